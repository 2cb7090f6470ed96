"""inspect_source writes a datasets file for whatever tables there are; it is understood, passes the checks, and what it
declares can be read."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.checks import Error
from django.core.management import CommandError, call_command
from pytest_django import Settings

from exportapp import checks, datasets
from exportapp.datasets import Dataset
from exportapp.engine.readers import open_reader
from exportapp.engine.specs import Recipe
from exportapp.recipes import problems, query_for
from tests.services import MariaDB, free_port

# `"` quotes an identifier in both, once MariaDB is told so.
TABLES = '''
CREATE TABLE orders (id BIGINT NOT NULL, updated_at DATETIME NOT NULL, placed_at DATETIME NOT NULL, due_on DATE,
    total DECIMAL(10,2), rate DOUBLE, gift BOOLEAN, photo BLOB, note TEXT, opens TIME, amount INT, PRIMARY KEY (id));
CREATE INDEX orders_placed ON orders (placed_at);
CREATE INDEX orders_updated ON orders (updated_at);
CREATE TABLE visits (id INT NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, seen_at DATETIME NOT NULL);
CREATE INDEX visits_seen ON visits (seen_at);
CREATE TABLE "select" (id INT NOT NULL PRIMARY KEY, "from" INT, "group" VARCHAR(9));
CREATE TABLE "my table" (id INT NOT NULL PRIMARY KEY, "full name" VARCHAR(9));
CREATE TABLE "my-table" (id INT NOT NULL PRIMARY KEY);
CREATE TABLE "it's" (id INT NOT NULL PRIMARY KEY, "a'b" INT NOT NULL UNIQUE);
CREATE TABLE "say ""hi""" (id INT NOT NULL UNIQUE, "say ""ho""" VARCHAR(9));
CREATE TABLE "back`tick" (id INT NOT NULL PRIMARY KEY, "back`column" INT);
CREATE TABLE "back\\slash" (id INT NOT NULL PRIMARY KEY, "a\\nb" INT);
CREATE TABLE "SHOUTED" ("ID" INT NOT NULL PRIMARY KEY, "Created" DATETIME);
CREATE TABLE "2024 sales" (id INT NOT NULL PRIMARY KEY);
CREATE TABLE "größe" ("länge" INT NOT NULL PRIMARY KEY);
CREATE TABLE "表" (id INT NOT NULL PRIMARY KEY);
CREATE TABLE members (club INT NOT NULL, number INT NOT NULL, PRIMARY KEY (club, number));
CREATE TABLE nullable (code INT UNIQUE, name VARCHAR(9));
CREATE TABLE measured (at DOUBLE NOT NULL PRIMARY KEY, place INT NOT NULL UNIQUE);
CREATE TABLE keyless (note VARCHAR(9));
CREATE VIEW gifts AS SELECT id, placed_at FROM orders WHERE gift = 1;
INSERT INTO orders (id, placed_at, updated_at) VALUES (7, '2026-01-01 10:00:00', '2026-01-02 10:00:00');
INSERT INTO "select" VALUES (1, 2, 'x');
INSERT INTO "say ""hi""" VALUES (1, 'x');
'''
NAMES = {
    "orders": "orders", "visits": "visits", "select": "select", "my table": "my_table", "my-table": "my_table_2", "it's": "it_s",
    'say "hi"': "say_hi", "back`tick": "back_tick", "back\\slash": "back_slash", "SHOUTED": "shouted",
    "2024 sales": "t_2024_sales", "größe": "gr_e", "表": "table", "members": "members", "nullable": "nullable",
    "measured": "measured", "keyless": "keyless", "gifts": "gifts",
}  # fmt: skip


@pytest.fixture(scope="module")
def mysql_url(mariadb: MariaDB) -> str:
    url = mariadb.create_database("inspected")
    mariadb.sql(f"SET sql_mode = 'ANSI_QUOTES'; {TABLES}", "inspected")
    return url


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("inspected") / "shop.sqlite3"
    sqlite(path, TABLES)
    return f"sqlite:///{path}"


def sqlite(path: Path, statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


@pytest.fixture
def inspect(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command for a source at an address, and puts what it prints in force."""

    def run(url: str, *arguments: str) -> str:
        monkeypatch.setenv("SOURCE_SHOP_URL", url)
        settings.DATASETS_FILE = tmp_path / "none.toml"
        printed = io.StringIO()
        call_command("inspect_source", "shop", *arguments, stdout=printed)
        settings.DATASETS_FILE = tmp_path / "datasets.toml"
        settings.DATASETS_FILE.write_text(printed.getvalue())
        return printed.getvalue()

    return run


@pytest.fixture(params=["mysql", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    """A real MariaDB, and SQLite, with the same tables."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def found(url: str, inspect: Callable[..., str]) -> dict[str, Dataset]:
    """The datasets that were written, by the names of their tables."""
    inspect(url)
    return {one.relation: one for one in datasets.catalogue().datasets.values()}


# --- what is written --------------------------------------------------------------------------------------------------


def test_every_table_and_view_is_a_dataset_with_a_name_of_its_own(found: dict[str, Dataset]) -> None:
    taken = {"my table", "my-table"}  # which of the two comes first is the database's to say
    assert {name: one.name for name, one in found.items() if name not in taken} == {
        name: slug for name, slug in NAMES.items() if name not in taken
    }
    assert {found[name].name for name in taken} == {"my_table", "my_table_2"}
    assert [one.relation for one in found.values() if one.view] == ["gifts"]


def test_key_is_the_primary_one_or_another_that_is_unique_never_null_and_exact(found: dict[str, Dataset]) -> None:
    keys = {name: list(one.key) for name, one in found.items()}
    assert keys["orders"] == keys["it's"] == ["id"]
    assert keys["members"] == ["club", "number"]
    assert keys['say "hi"'] == ["id"]
    assert keys["größe"] == ["länge"]
    assert keys["measured"] == ["place"], "a float is not exact under comparison"
    assert keys["nullable"] == keys["keyless"] == keys["gifts"] == []


def test_time_column_is_when_something_came_to_be(found: dict[str, Dataset]) -> None:
    times = {name: one.time_column for name, one in found.items() if one.time_column}
    assert times == {"orders": "placed_at", "visits": "seen_at", "SHOUTED": "Created", "gifts": "placed_at"}


def test_types_are_those_of_the_columns(found: dict[str, Dataset]) -> None:
    types = {column.name: column.type for column in found["orders"].columns}
    assert types == {
        "id": "integer", "placed_at": "datetime", "updated_at": "datetime", "due_on": "date", "total": "decimal",
        "rate": "float", "gift": "boolean", "photo": "binary", "note": "text", "opens": "time", "amount": "integer",
    }  # fmt: skip
    total, photo = found["orders"].column("total"), found["orders"].column("photo")
    assert total is not None and total.scale == 2
    assert photo is not None and not photo.selected


def test_strange_names_come_through_as_they_are(found: dict[str, Dataset]) -> None:
    columns = {name: [column.name for column in one.columns] for name, one in found.items()}
    assert columns["select"] == ["id", "from", "group"]
    assert columns["my table"] == ["id", "full name"]
    assert columns["it's"] == ["id", "a'b"]
    assert columns['say "hi"'] == ["id", 'say "ho"']
    assert columns["back`tick"] == ["id", "back`column"]
    assert columns["back\\slash"] == ["id", "a\\nb"]
    assert columns["größe"] == ["länge"]


def test_what_is_written_passes_the_checks(found: dict[str, Dataset]) -> None:
    told = checks.datasets()
    assert [one.msg for one in told if isinstance(one, Error)] == []
    assert [one.msg.partition(":")[2].split(":")[0] for one in told] == [" datasets.shouted"], "no index on its time"


def test_what_is_written_can_be_exported(found: dict[str, Dataset], url: str) -> None:
    for dataset in found.values():
        recipe = Recipe(dataset.name, tuple(column.name for column in dataset.columns))
        assert problems(recipe, dataset) == {}
        query = query_for(recipe, dataset, User(username="alice"))
        with open_reader(url) as reader:
            plan = reader.plan(query, 1000, "")
            rows = [row for part in plan.ranges for batch in reader.stream(query, part, "") for row in batch]
        assert len(rows) == plan.rows == (dataset.relation in ("orders", "select", 'say "hi"')), dataset.relation


def test_only_the_named_tables_are_written(url: str, inspect: Callable[..., str]) -> None:
    inspect(url, "--table", "orders", "--table", "my table")
    assert set(datasets.catalogue().datasets) == {"orders", "my_table"}


def test_file_names_the_variable_and_never_the_address(url: str, inspect: Callable[..., str]) -> None:
    printed = inspect(url)
    assert 'url_env = "SOURCE_SHOP_URL"' in printed
    assert url not in printed
    assert "secret" not in printed


# --- each database's own ----------------------------------------------------------------------------------------------

SPECIAL = r"""
CREATE TABLE special (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY COMMENT 'Says "what"\nand \\ why',
    state ENUM('new','it''s','a,b','c"d','ü') NOT NULL, tags SET('a','b'), flag TINYINT(1), tiny TINYINT, bits BIT(8),
    born YEAR, at TIMESTAMP(6) NULL, clock TIME(3), data JSON, `da``ta` JSON, exact DECIMAL(30,0), small FLOAT, place POINT,
    bytes VARBINARY(9), blobs LONGBLOB, letters LONGTEXT, uuid CHAR(36));
CREATE TABLE prefixed (tenant INT NOT NULL, name VARCHAR(99) NOT NULL, UNIQUE (tenant, name(10)));
CREATE TABLE chosen (state ENUM('a','b') NOT NULL PRIMARY KEY, id INT NOT NULL UNIQUE);
CREATE TABLE stamped (id INT NOT NULL PRIMARY KEY, created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (created));
"""


@pytest.fixture
def special(mariadb: MariaDB, inspect: Callable[..., str]) -> tuple[dict[str, Dataset], str]:
    mariadb.sql("DROP DATABASE IF EXISTS special")
    url = mariadb.create_database("special")
    mariadb.sql(SPECIAL, "special")
    printed = inspect(url)
    return datasets.catalogue().datasets, printed


def test_columns_that_only_mysql_has(special: tuple[dict[str, Dataset], str]) -> None:
    columns = {column.name: column for column in special[0]["special"].columns}
    assert {name: one.type for name, one in columns.items()} == {
        "id": "integer", "state": "text", "tags": "text", "flag": "boolean", "tiny": "integer", "bits": "integer",
        "born": "integer", "at": "datetime", "clock": "time", "data": "json", "da`ta": "json", "exact": "decimal",
        "small": "float", "place": "text", "bytes": "binary", "blobs": "binary", "letters": "text", "uuid": "text",
    }  # fmt: skip
    assert columns["state"].choices == ("new", "it's", "a,b", 'c"d', "ü")
    assert columns["tags"].choices == ()
    assert columns["id"].description == 'Says "what"\nand \\ why'
    assert columns["exact"].scale == 0
    assert [one.msg for one in checks.datasets() if isinstance(one, Error)] == []


def test_what_only_people_know_is_to_be_checked(special: tuple[dict[str, Dataset], str]) -> None:
    assert (
        'name = "flag"\nlabel = "Flag"\ntype = "boolean"  # please check: 0 and 1 alone? Else "integer"\n' in special[1]
    )


def test_columns_that_would_be_called_the_same_have_their_own_names(
    mariadb: MariaDB, inspect: Callable[..., str]
) -> None:
    mariadb.sql("DROP DATABASE IF EXISTS twins")
    url = mariadb.create_database("twins")
    mariadb.sql("CREATE TABLE t (a_b INT PRIMARY KEY, `a b` INT, day DATE, moment DATETIME)", "twins")
    inspect(url)
    [dataset] = datasets.catalogue().datasets.values()
    assert [column.label for column in dataset.columns] == ["a_b", "a b", "Day", "Moment"]
    assert dataset.time_column == "moment"


def test_neither_a_prefix_nor_an_enum_is_a_key(special: tuple[dict[str, Dataset], str]) -> None:
    assert special[0]["prefixed"].key == ()
    assert special[0]["chosen"].key == ("id",)


def test_zone_is_certain_for_a_timestamp_alone(special: tuple[dict[str, Dataset], str]) -> None:
    stamped = special[1].partition("[datasets.stamped]")[2].partition("[[")[0]
    assert 'time_zone = "UTC"\n' in stamped
    assert special[0]["stamped"].time_column == "created"


def test_file_of_sqlite_with_what_only_sqlite_allows(tmp_path: Path, inspect: Callable[..., str]) -> None:
    path = tmp_path / "my %23 shop?.sqlite3"
    sqlite(path, """
        CREATE TABLE "😀" ("🎁" INTEGER PRIMARY KEY, untyped, "tab	\x7f" TEXT, at TIMESTAMP);
        CREATE TABLE codes (code TEXT PRIMARY KEY, label);
        CREATE TABLE firm_codes (code TEXT PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE strict_codes (code TEXT PRIMARY KEY) STRICT;
        CREATE VIRTUAL TABLE words USING fts5(word);
        CREATE TABLE made (id INTEGER PRIMARY KEY, price INT, doubled INT AS (price * 2));
        CREATE TABLE partly (id INTEGER NOT NULL, gone INT);
        CREATE UNIQUE INDEX partly_id ON partly (id) WHERE gone IS NULL;
        CREATE INDEX partly_expression ON partly (id + 1);
    """)  # fmt: skip
    printed = inspect(f"sqlite:///{tmp_path}/my%20%2523%20shop%3F.sqlite3")
    assert "😀" in printed
    found = {one.relation: one for one in datasets.catalogue().datasets.values()}
    assert (found["😀"].key, found["😀"].time_column) == (("🎁",), "at")
    assert [column.name for column in found["😀"].columns] == ["🎁", "untyped", "tab\t\x7f", "at"]
    assert found["codes"].key == (), "SQLite lets a primary key be NULL, unless it is an integer"
    assert found["strict_codes"].key == found["firm_codes"].key == ("code",)
    assert [column.name for column in found["words"].columns] == ["word"]
    assert [column.name for column in found["made"].columns] == ["id", "price", "doubled"]
    assert found["partly"].key == ()


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_told_in_a_sentence(
    inspect: Callable[..., str], sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mariadb: MariaDB
) -> None:
    def told(url: str, *arguments: str) -> str:
        with pytest.raises(CommandError) as error:
            inspect(url, *arguments)
        return str(error.value)

    assert told("") == "Set SOURCE_SHOP_URL=mysql://user:password@host:3306/database first."
    assert told(sqlite_url, "--table", "orderz") == "There is no table or view 'orderz'."
    (tmp_path / "text").write_text("a text of some length, and no database" * 99)
    for url in (
        "sqlite:////nowhere/shop.sqlite3",
        f"sqlite:///{tmp_path}/text",
        f"mysql://user:opensesame@127.0.0.1:{free_port()}/shop",
        mariadb.url("inspected", password="opensesame"),
        "mysql://user:open/sesame@db/shop",
        "postgres://user:opensesame@db/shop",
    ):
        assert told(url).startswith("The source shop could not be looked at: ")
        assert "sesame" not in told(url)
    with pytest.raises(CommandError, match="small letters"):
        call_command("inspect_source", "My Shop")


def test_declared_source_keeps_its_facts(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    settings.DATASETS_FILE = tmp_path / "datasets.toml"
    settings.DATASETS_FILE.write_text('[sources.shop]\nlabel = "The \\"shop\\""\nurl_env = "MY_SHOP"\nconnections = 3')
    monkeypatch.setenv("MY_SHOP", sqlite_url)
    printed = io.StringIO()
    call_command("inspect_source", "shop", stdout=printed)
    before: Any = datasets.catalogue().sources
    settings.DATASETS_FILE = tmp_path / "written.toml"
    settings.DATASETS_FILE.write_text(printed.getvalue())
    assert datasets.catalogue().sources == before
