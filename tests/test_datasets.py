"""The datasets file: every mistake names its place and what to write, a broken file stops no desk, and rights hold."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from pytest_django import Settings

from exportapp import datasets
from exportapp.datasets import Dataset, DatasetColumn, DatasetError, RowRule, Source, catalogue, may_export, parse
from exportapp.engine.specs import COLUMN_TYPES, Column, RecipeFilter
from exportapp.models import Export, PersonAttribute
from tests.scenes import DATASETS, ask

ROOT = Path(__file__).resolve().parent.parent

GOOD = """
[sources.shop]
[datasets.orders]
source = "shop"
table = "orders"
key = ["id"]
time_column = "at"
columns = [{ name = "id", type = "integer" }, { name = "at", type = "datetime" }, { name = "note" }]
"""


def parsed(text: str) -> datasets.Catalogue:
    return parse(tomllib.loads(text))


# --- mistakes ---------------------------------------------------------------------------------------------------------

# What is replaced in the good file, by what, and the place, message and hint that follow.
MISTAKES = [
    ("[sources.shop]", "sources = 5", "sources", "is not a table", "Write it as [sources.NAME]."),
    ("[sources.shop]", 'sources.shop = "mysql://"', "sources.shop", "is not a table", "Write it as [sources.shop]."),
    ("[sources.shop]", "[sources.shop]\nport = 3306", "sources.shop", "knows no 'port'",
     "It may have: connections, default, label, url_env."),
    ("[sources.shop]", '[sources.shop]\nname = "x"', "sources.shop", "knows no 'name'",
     "It may have: connections, default, label, url_env."),
    ("[sources.shop]", '[sources.shop]\nconnections = "8"', "sources.shop", "connections is of the wrong type",
     "It is to be a number."),
    ("[sources.shop]", "[sources.shop]\nconnections = true", "sources.shop", "connections is of the wrong type",
     "It is to be a number."),
    ("[sources.shop]", '[sources.shop]\ndefault = "mysql://root:secret@db/shop"', "sources.shop",
     "default holds a user or password", "Put the address into SOURCE_SHOP_URL instead."),
    ("[sources.shop]", '[sources.shop]\n[sources."my shop"]', "sources.my shop", "is no good name",
     "Use small letters, digits and underscores."),
    ("[datasets.orders]", "[datasets]\norders = 5\n[datasets.others]", "datasets.orders", "is not a table",
     "Write it as [datasets.orders]."),
    ("[datasets.orders]", "[datasets.Orders]", "datasets.Orders", "is no good name",
     "Use small letters, digits and underscores."),
    ("[datasets.orders]", '[datasets."1st"]', "datasets.1st", "is no good name",
     "Use small letters, digits and underscores."),
    ('source = "shop"', "", "datasets.orders", "has no source", 'Write source = "..." first.'),
    ('source = "shop"', 'source = "warehouse"', "datasets.orders", "source 'warehouse' is not declared",
     "Add [sources.warehouse]."),
    ('source = "shop"', 'source = "shop"\ncolour = "red"', "datasets.orders", "knows no 'colour'",
     "It may have: description, groups, keep_days, key, label, max_days, max_mb, max_rows, query, row, source, table, "
     "time_column, time_zone, view."),
    ('source = "shop"', 'source = "shop"\ngroups = "sales"', "datasets.orders", "groups is of the wrong type",
     "It is to be a list of texts."),
    ('source = "shop"', 'source = "shop"\ngroups = [7]', "datasets.orders", "groups is of the wrong type",
     "It is to be a list of texts."),
    ('source = "shop"', 'source = "shop"\nlabel = 2026-01-01', "datasets.orders", "label is of the wrong type",
     "It is to be a text."),
    ('source = "shop"', 'source = "shop"\nmax_rows = 1.5', "datasets.orders", "max_rows is of the wrong type",
     "It is to be a number."),
    ('source = "shop"', 'source = "shop"\nmax_days = -1', "datasets.orders", "max_days is below zero",
     "Leave it out for no limit."),
    ('source = "shop"', 'source = "shop"\nkeep_days = 0', "datasets.orders", "keep_days is below one",
     "Leave it out for 7 days, or write how many."),
    ('source = "shop"', 'source = "shop"\nkeep_days = -1', "datasets.orders", "keep_days is below one",
     "Leave it out for 7 days, or write how many."),
    ('table = "orders"', "", "datasets.orders", "needs exactly one of table, view and query",
     'Write, for example, table = "orders".'),
    ('table = "orders"', 'table = "orders"\nview = "orders"', "datasets.orders",
     "needs exactly one of table, view and query", 'Write, for example, table = "orders".'),
    ('key = ["id"]', 'key = ["number"]', "datasets.orders", "key names the unknown column 'number'",
     "Declare it among the columns."),
    ('key = ["id"]', 'key = [["id"]]', "datasets.orders", "key is of the wrong type", "It is to be a list of texts."),
    ('type = "integer"', 'type = "decimal"', "datasets.orders", "id is of a type that is not exact enough for a key",
     "Leave key out."),
    ('time_column = "at"', 'time_column = "when"', "datasets.orders", "time_column names the unknown column 'when'",
     "Declare it among the columns."),
    ('time_column = "at"', 'time_column = "note"', "datasets.orders", "the time column note is no date or datetime",
     "Correct its type."),
    ('time_column = "at"', 'time_column = "at"\ntime_zone = "Mars/Olympus"', "datasets.orders",
     "the zone 'Mars/Olympus' does not exist", 'Write, for example, "Europe/Berlin".'),
    ('key = ["id"]\ntime_column = "at"\ncolumns = [{ name = "id", type = "integer" }, { name = "at", ',
     'time_column = "at"\ntime_zone = "UTC"\ncolumns = [{ name = "at", zone = "Asia/Tokyo", ',
     "datasets.orders", "time_zone is 'UTC', but the time column at has the zone 'Asia/Tokyo'",
     "Declare one of the two, and leave the other out."),
    ('time_column = "at"', 'row_rule = { column = "country", attribute = "country" }', "datasets.orders",
     "row_rule names the unknown column 'country'", "Declare the column."),
    ('time_column = "at"', 'row_rule = "country"', "datasets.orders.row_rule", "is not a table",
     "Write it as [datasets.orders.row_rule]."),
    ('time_column = "at"', 'row_rule = { column = "note" }', "datasets.orders.row_rule", "has no attribute",
     'Write attribute = "..." first.'),
    ('time_column = "at"', 'row_rule = { column = "note", attribute = "x", op = "in" }', "datasets.orders.row_rule",
     "knows no 'op'", "It may have: attribute, column."),
    ('{ name = "note" }', "{ }", "datasets.orders.columns[2]", "has no name", 'Write name = "..." first.'),
    ('{ name = "note" }', '"note"', "datasets.orders.columns[2]", "has no name", 'Write name = "..." first.'),
    ('{ name = "note" }', '{ name = "note", type = "varchar" }', "datasets.orders.columns[2]",
     "type 'varchar' does not exist", f"It may be: {', '.join(sorted(COLUMN_TYPES))}."),
    ('{ name = "note" }', '{ name = "note", kind = "text" }', "datasets.orders.columns[2]", "knows no 'kind'",
     "It may have: choices, description, filterable, label, name, scale, selected, type, zone."),
    ('{ name = "note" }', '{ name = "note", selected = "no" }', "datasets.orders.columns[2]",
     "selected is of the wrong type", "It is to be true or false."),
    ('{ name = "note" }', '{ name = 7 }', "datasets.orders.columns[2]", "name is of the wrong type",
     "It is to be a text."),
    ('{ name = "note" }', '{ name = "at" }', "datasets.orders", "has no columns, or one twice",
     "`manage.py inspect_source` prints them all."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "where", "message", "hint"), MISTAKES, ids=[row[1] for row in MISTAKES])
def test_mistake_names_its_place_and_what_to_write(old: str, new: str, where: str, message: str, hint: str) -> None:
    assert old in GOOD
    with pytest.raises(DatasetError) as mistake:
        parsed(GOOD.replace(old, new))
    assert (mistake.value.where, mistake.value.message, mistake.value.hint) == (where, message, hint)
    assert str(mistake.value) == f"{where}: {message}"
    assert "secret" not in str(mistake.value) + mistake.value.hint


@pytest.mark.parametrize(
    ("columns", "message"), [("[]", "has no columns, or one twice"), ("5", "columns is not a list")]
)
def test_dataset_without_columns_is_a_mistake(columns: str, message: str) -> None:
    text = GOOD[: GOOD.index("columns =")] + f"columns = {columns}"
    with pytest.raises(DatasetError) as mistake:
        parsed(text)
    assert mistake.value.where.startswith("datasets.orders")
    assert mistake.value.message == message


def test_datasets_that_are_no_table_are_a_mistake() -> None:
    with pytest.raises(DatasetError) as mistake:
        parsed("datasets = []")
    assert (mistake.value.where, mistake.value.hint) == ("datasets", "Write it as [datasets.NAME].")


def test_no_source_need_be_reached_to_read_the_file() -> None:
    assert set(parsed(GOOD).datasets) == {"orders"}
    assert parsed("") == datasets.Catalogue()


# --- what is understood -----------------------------------------------------------------------------------------------


def test_what_is_left_out_has_sensible_values() -> None:
    orders = parsed(GOOD).datasets["orders"]
    assert (orders.label, orders.row, orders.stored_zone, orders.keep_days) == ("Orders", "row", "UTC", 7)
    assert (orders.groups, orders.max_rows, orders.max_days, orders.row_rule) == ((), 0, 0, None)
    assert orders.column("at") == DatasetColumn("at", "At", "datetime")
    assert orders.column("nothing") is None
    assert orders.key_columns == (Column("id", "integer", label="Id"),)
    assert (orders.time_label, orders.time_is_day, orders.relation) == ("At", False, "orders")
    assert parsed(GOOD).sources["shop"] == Source("shop", "shop", "SOURCE_SHOP_URL", "", 8)


def test_zone_of_dataset_and_time_column_is_one_whichever_declares_it() -> None:
    declared = 'type = "datetime"', 'type = "datetime", zone = "Europe/Berlin"'
    by_column = GOOD.replace(*declared)
    by_dataset = GOOD.replace('time_column = "at"', 'time_column = "at"\ntime_zone = "Europe/Berlin"')
    for text in (by_column, by_dataset, by_dataset.replace(*declared)):
        orders = parsed(text).datasets["orders"]
        at = orders.column("at")
        assert at
        assert (orders.stored_zone, orders.known_zone, at.zone) == ("Europe/Berlin",) * 3
        assert datasets.thaw(asdict(orders)).stored_zone == "Europe/Berlin"
    orders = parsed(GOOD).datasets["orders"]
    assert (orders.stored_zone, orders.known_zone) == ("UTC", "")
    other = GOOD.replace('name = "note"', 'name = "sent", type = "datetime", zone = "Asia/Tokyo"')
    assert parsed(other).datasets["orders"].known_zone == ""


def test_example_that_operators_copy_is_understood() -> None:
    assert set(parsed((ROOT / "datasets.toml").read_text()).datasets) >= {"orders"}


def test_frozen_dataset_thaws_to_what_it_was() -> None:
    rule = 'row_rule = { column = "note", attribute = "country" }\ngroups = ["sales"]'
    orders = parsed(GOOD.replace('key = ["id"]', f'key = ["id"]\n{rule}')).datasets["orders"]
    frozen = asdict(orders)
    assert datasets.thaw(frozen) == orders
    assert datasets.thaw({**frozen, "from_a_later_version": 1}) == orders


def test_address_of_a_source_comes_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.VAR = tmp_path
    source = Source("shop", url_env="SOURCE_TEST_URL", default="sqlite:///{var}/a{b}.sqlite3")
    assert source.url == f"sqlite:///{tmp_path}/a{{b}}.sqlite3"
    monkeypatch.setenv("SOURCE_TEST_URL", "mysql://user:secret@db/shop")
    assert source.url == "mysql://user:secret@db/shop"
    (tmp_path / "address").write_text("mysql://user:other@db/shop\n")
    monkeypatch.setenv("SOURCE_TEST_URL_FILE", str(tmp_path / "address"))
    assert source.url == "mysql://user:other@db/shop"


# --- the file as it is now --------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, settings: Settings) -> Path:
    settings.DATASETS_FILE = tmp_path / "datasets.toml"
    settings.DATASETS_FILE.write_text(GOOD)
    return tmp_path / "datasets.toml"


def rewrite(file: Path, text: str) -> None:
    stamp = file.stat().st_mtime_ns + 1_000_000
    file.write_text(text)
    os.utime(file, ns=(stamp, stamp))


def test_changed_file_is_read_again_and_an_unchanged_one_is_not(file: Path) -> None:
    first = catalogue()
    assert catalogue() is first
    rewrite(file, GOOD.replace('table = "orders"', 'table = "orders"\nlabel = "All orders"'))
    assert catalogue().datasets["orders"].label == "All orders"


@pytest.mark.parametrize("broken", ["[datasets", GOOD.replace('"shop"', '"warehouse"'), "\x00", None])
def test_broken_file_is_logged_and_the_one_before_stays_in_force(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before = catalogue()
    if broken is None:
        file.unlink()
    else:
        rewrite(file, broken)
    with caplog.at_level(logging.ERROR):
        assert catalogue() is before
    assert "the one before stays in force" in caplog.text
    file.write_text(GOOD.replace("orders", "purchases"))
    assert set(catalogue().datasets) == {"purchases"}


@pytest.mark.parametrize(
    ("content", "message"), [(b"[datasets", "is no TOML"), (b"\xff\xfe", "is no TOML"), (None, "cannot be read")]
)
def test_file_that_was_never_understood_is_a_mistake(file: Path, content: bytes | None, message: str) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as mistake:
        catalogue()
    assert mistake.value.where == str(file)
    assert mistake.value.hint


# --- who may export ---------------------------------------------------------------------------------------------------

OPEN = Dataset("open", "shop", ())
GROUPED = Dataset("grouped", "shop", (), groups=("sales", "finance"))
RULED = Dataset("ruled", "shop", (DatasetColumn("country"),), row_rule=RowRule("country", "country"))
BOTH = Dataset("both", "shop", (DatasetColumn("country"),), groups=("sales",), row_rule=RowRule("country", "country"))


@pytest.fixture
def people(person: Callable[..., User]) -> dict[str, User]:
    """One person of each kind; the countries are facts that row rules ask for."""
    cast = {
        "charlie": person("charlie"),
        "alice": person("alice", "sales"),
        "german": person("german"),
        "german of sales": person("german of sales", "sales"),
        "finance": person("finance", "finance", "catering"),
        "disabled": person("disabled", "sales", is_active=False),
        "superuser": person("superuser", is_superuser=True),
        "disabled superuser": person("disabled superuser", is_superuser=True, is_active=False),
    }
    for name in ("german", "german of sales", "disabled"):
        PersonAttribute.objects.create(person=cast[name], name="country", value="DE")
        PersonAttribute.objects.create(person=cast[name], name="colour", value="red")
    return cast


@pytest.mark.parametrize(
    ("dataset", "allowed"),
    [
        (OPEN, {"charlie", "alice", "german", "german of sales", "finance", "superuser"}),
        (GROUPED, {"alice", "german of sales", "finance", "superuser"}),
        (RULED, {"german", "german of sales"}),
        (BOTH, {"german of sales"}),
    ],
    ids=lambda value: value.name if isinstance(value, Dataset) else "",
)
def test_who_may_export_what(people: dict[str, User], dataset: Dataset, allowed: set[str]) -> None:
    assert {name for name, one in people.items() if may_export(one, dataset)} == allowed
    assert not may_export(AnonymousUser(), dataset)


def test_username_and_email_are_facts_by_themselves(alice: User) -> None:
    assert datasets.rule_values(alice, RowRule("owner", "username")) == ("alice",)
    assert datasets.rule_values(alice, RowRule("owner", "email")) == ("alice@example.com",)
    assert datasets.rule_values(alice, RowRule("owner", "country")) == ()
    for value in ("FR", "DE"):
        PersonAttribute.objects.create(person=alice, name="country", value=value)
    assert datasets.rule_values(alice, RowRule("owner", "country")) == ("DE", "FR")


def test_person_without_an_email_has_no_rows_by_it(alice: User) -> None:
    alice.email = ""
    assert not may_export(alice, Dataset("mine", "shop", (), row_rule=RowRule("email", "email")))


def test_visible_are_ones_own_datasets_by_their_label(alice: User, charlie: User) -> None:
    assert [one.name for one in datasets.visible_to(alice)] == ["orders", "products", "revenue"]
    assert [one.name for one in datasets.visible_to(charlie)] == ["products", "revenue"]
    assert datasets.visible_to(AnonymousUser()) == []


# --- the right that an export was asked for with ----------------------------------------------------------------------


def still_allowed(export: Export) -> bool:
    return datasets.still_allowed(Export.objects.select_related("owner").get(pk=export.pk))


def test_right_lasts_while_the_owner_has_it(alice: User) -> None:
    export = ask(alice)
    assert still_allowed(export)
    alice.groups.clear()
    assert not still_allowed(export)
    alice.groups.add(Group.objects.get(name="sales"))
    assert still_allowed(export)
    User.objects.update(is_active=False)
    assert not still_allowed(export)


def test_right_is_that_of_the_groups_of_today(alice: User, desk: Path) -> None:
    export = ask(alice)
    (desk / "datasets.toml").write_text(DATASETS.replace('groups = ["sales"]', 'groups = ["finance"]'))
    assert not still_allowed(export)


def test_dataset_that_left_the_file_keeps_the_groups_it_had(alice: User, desk: Path) -> None:
    export = ask(alice)
    (desk / "datasets.toml").write_text("[sources.shop]")
    assert still_allowed(export)
    alice.groups.clear()
    assert not still_allowed(export)


def facts(person: User, *values: str) -> None:
    person.export_attributes.all().delete()
    for value in values:
        PersonAttribute.objects.create(person=person, name="country", value=value)


@pytest.mark.parametrize(
    ("then", "today", "allowed"),
    [
        (("DE",), ("DE",), True),
        (("DE",), ("DE", "FR"), True),
        (("DE", "FR"), ("DE",), False),
        (("DE",), ("FR",), False),
        (("DE",), (), False),
    ],
)
def test_right_ends_when_the_owner_sees_fewer_rows_than_the_file_has(
    alice: User, then: tuple[str, ...], today: tuple[str, ...], allowed: bool
) -> None:
    facts(alice, *then)
    export = ask(alice, "regional")
    facts(alice, *today)
    assert still_allowed(export) == allowed


def test_file_that_was_filtered_to_what_the_owner_still_sees_is_still_theirs(alice: User) -> None:
    facts(alice, "DE", "FR")
    narrow = ask(alice, "regional", filters=(RecipeFilter("country", "in", ("DE",)),))
    wide = ask(alice, "regional", filters=(RecipeFilter("country", "in", ("DE", "FR")),))
    facts(alice, "DE")
    assert (still_allowed(narrow), still_allowed(wide)) == (True, False)


REGIONAL_RULE = 'row_rule = { column = "country", attribute = "country" }'


def test_rule_that_is_new_ends_the_right_and_one_that_is_gone_does_not(alice: User, desk: Path) -> None:
    facts(alice, "DE")
    ruled = ask(alice, "regional")
    (desk / "datasets.toml").write_text(DATASETS.replace(REGIONAL_RULE, ""))
    free = ask(alice, "regional")
    facts(alice)
    assert still_allowed(ruled)
    facts(alice, "DE")
    (desk / "datasets.toml").write_text(DATASETS)
    assert (still_allowed(ruled), still_allowed(free)) == (True, False)


def test_rule_on_another_column_ends_the_right(alice: User, desk: Path) -> None:
    facts(alice, "DE")
    export = ask(alice, "regional")
    two = 'columns = [{ name = "country" }, { name = "region" }]'
    changed = DATASETS.replace(REGIONAL_RULE, REGIONAL_RULE.replace('column = "country"', 'column = "region"'))
    (desk / "datasets.toml").write_text(changed.replace('columns = [{ name = "country" }]', two))
    assert not still_allowed(export)


def test_address_of_an_exports_source_outlives_its_declaration(
    alice: User, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ask(alice)
    assert datasets.source_url(export) == ""
    monkeypatch.setenv("SOURCE_SHOP_URL", "sqlite:////shop")
    assert datasets.source_url(export) == "sqlite:////shop"
    (desk / "datasets.toml").write_text("")
    assert datasets.source_url(export) == "sqlite:////shop"
