"""The page for a new export: it answers at once, and every mistake is told beside its field with all typing kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from exportapp import figures
from exportapp.models import Event, Export, ExportState, PersonAttribute, Step, StepKind
from tests.pages import Element, Pairs, beside, changed, read
from tests.scenes import HOSTILE, ask, browser, last, new_form, send, the_form

ORDERS = "/exports/new/orders/"
FILLED: dict[str, str | list[str] | None] = {
    "name": "My orders",
    "start": "2026-01-01 00:00",
    "end": "2026-02-01 00:00",
    "zone": "Europe/Berlin",
    "columns": ["id", "total"],
    "filter_column": "status",
    "filter_op": "in",
    "filter_low": "paid, refunded",
    "format": "jsonl",
    "compression": "gzip",
}


def filled(client: Client, **other: str | list[str] | None) -> Pairs:
    """The form as a person filled it in, but for the fields named."""
    form = the_form(new_form(client))
    return changed(form.sends(), **{**FILLED, **other})


def refused(client: Client, pairs: Pairs, address: str = ORDERS) -> Element:
    """The page that comes back when nothing was started; it keeps all that was typed, the token as well."""
    response = send(client, address, pairs)
    assert response.status_code == 422
    assert not Export.objects.exists()
    page = read(response.content)
    assert "Nothing was started yet" in page.one(id="problems").text
    return page


def kept(page: Element, pairs: Pairs, *gone: str) -> None:
    """All that was typed is in the form again; `gone` are fields whose value no control of the form has."""
    secret = {"csrfmiddlewaretoken", *gone}
    sent = sorted((name, value) for name, value in the_form(page).sends() if name not in secret)
    assert sent == sorted((name, value) for name, value in pairs if name not in secret)


# --- starting --------------------------------------------------------------------------------------------------------


def test_form_is_answered_at_once_and_one_export_with_a_plan_step_is_there(alices: Client, alice: User) -> None:
    response = send(alices, ORDERS, filled(alices))

    assert (response.status_code, response["Location"]) == (302, "/exports/")
    export = Export.objects.get()
    assert (export.owner, export.state, export.name, export.dataset) == (
        alice,
        ExportState.QUEUED,
        "My orders",
        "orders",
    )
    assert [step.kind for step in Step.objects.all()] == [StepKind.PLAN]
    assert [(event.kind, event.actor) for event in Event.objects.all()] == [("requested", alice)]
    recipe = export.recipe
    assert (recipe.columns, recipe.format, recipe.compression) == (("id", "total"), "jsonl", "gzip")
    assert (recipe.start, recipe.end, recipe.zone) == ("2026-01-01 00:00", "2026-02-01 00:00", "Europe/Berlin")
    assert [(one.column, one.op, one.values) for one in recipe.filters] == [("status", "in", ("paid", "refunded"))]


def test_form_as_it_comes_can_be_started_with_nothing_typed(alices: Client) -> None:
    assert send(alices, ORDERS, the_form(new_form(alices)).sends()).status_code == 302
    export = last()
    assert export.notify
    assert export.recipe.columns == ("id", "placed_at", "status", "total", "gift", "due_on")
    assert export.name.startswith("Orders from 20")


@pytest.mark.parametrize("dataset", ["revenue", "products"])
def test_dataset_dated_by_the_day_or_without_time_can_be_started_as_it_comes(alices: Client, dataset: str) -> None:
    form = the_form(new_form(alices, dataset))
    assert send(alices, f"/exports/new/{dataset}/", form.sends()).status_code == 302
    assert last().dataset == dataset


MOMENTS = """
[sources.shop]
[datasets.visits]
source = "shop"
table = "visits"
columns = [{ name = "id", type = "integer" }, { name = "at", type = "datetime" }]
"""
AS_THEY_ARE = (
    "Times of a known zone (TIMESTAMP, or declared by an operator) are in the time zone chosen here, others as stored."
)
IN_THE_ZONE = "The file has its times in the time zone chosen here."


def test_zone_is_asked_for_where_there_are_times_and_no_range(alices: Client, settings: Settings) -> None:
    settings.DATASETS_FILE.write_text(MOMENTS)
    page = new_form(alices, "visits")
    assert not page.all("input", name="start")
    assert not page.all("button", cls="chip")
    assert page.one("input", name="zone").attributes["value"] == "UTC"
    assert AS_THEY_ARE in page.one(id="time").text
    pairs = the_form(page).sends()
    told = refused(alices, changed(pairs, zone="Mars/Olympus"), "/exports/new/visits/")
    assert "There is no time zone “Mars/Olympus”." in beside(told, told.one("input", name="zone"))
    assert send(alices, "/exports/new/visits/", changed(pairs, zone="Asia/Tokyo")).status_code == 302
    assert last().recipe.zone == "Asia/Tokyo"


def test_without_any_times_there_is_no_zone_to_choose(alices: Client) -> None:
    assert not new_form(alices, "products").all("input", name="zone")


@pytest.mark.parametrize(
    ("more", "zone", "said"),
    [
        ("", "", AS_THEY_ARE),
        ('time_column = "at"', "", AS_THEY_ARE),
        ('time_column = "at"\ntime_zone = "Asia/Tokyo"', "", IN_THE_ZONE),
        ('time_column = "at"', "Asia/Tokyo", IN_THE_ZONE),
    ],
)
def test_page_says_in_which_zone_the_file_will_have_its_times(
    alices: Client, settings: Settings, more: str, zone: str, said: str
) -> None:
    text = MOMENTS.replace('table = "visits"', f'table = "visits"\n{more}')
    if zone:
        text = text.replace('type = "datetime"', f'type = "datetime", zone = "{zone}"')
    settings.DATASETS_FILE.write_text(text)
    page = new_form(alices, "visits")
    assert said in page.one(id="time").text
    compared = f"as they are stored{' (Asia/Tokyo)' if said == IN_THE_ZONE else ''}."
    assert compared in page.one(id="filters").text


def test_unticked_mail_is_not_wanted(alices: Client) -> None:
    send(alices, ORDERS, filled(alices, notify=None))
    assert not last().notify


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_kept_and_escaped(alices: Client, name: str) -> None:
    page = refused(alices, filled(alices, name=name, end="soon"))
    one_line = name.replace("\r", "").replace("\n", "")  # what a browser makes of a value in one line
    assert page.one("input", id="id_name").attributes["value"].replace("\r", "").replace("\n", "") == one_line
    assert not page.all("img", src="x")
    assert send(alices, ORDERS, filled(alices, name=name)).status_code == 302


def test_same_form_sent_twice_makes_one_export(alices: Client) -> None:
    pairs = filled(alices)
    assert [send(alices, ORDERS, pairs).status_code for _ in range(2)] == [302, 302]
    assert Export.objects.count() == Step.objects.count() == 1


def test_form_that_was_changed_and_sent_again_makes_another_export(alices: Client) -> None:
    """The browser's Back shows the page as it was, with its token."""
    pairs = filled(alices)
    for change in ({}, {"end": "2026-01-20"}, {"name": "Another"}, {"format": "tsv"}):
        sent = [(name, change.get(name, value)) for name, value in pairs]
        assert [send(alices, ORDERS, sent).status_code for _ in range(2)] == [302, 302]
    assert Export.objects.count() == 4


def test_token_of_somebody_else_makes_an_export_of_ones_own(alices: Client, bob: User) -> None:
    pairs = filled(alices)
    send(alices, ORDERS, pairs)
    send(browser(bob), ORDERS, pairs)
    assert sorted(export.owner.username for export in Export.objects.all()) == ["alice", "bob"]


def test_form_without_a_csrf_token_is_refused(alice: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    response = send(strict, ORDERS, filled(strict, csrfmiddlewaretoken=None))
    assert response.status_code == 403
    assert "did not go through" in response.content.decode()
    assert not Export.objects.exists()


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "typed", "sentence"),
    [
        ("end", {"end": "2026-01-01 00:00"}, "The end has to be after the start."),
        ("end", {"end": "2025-12-31"}, "The end has to be after the start."),
        ("end", {"end": "2026-02-30"}, "2026-02-30 does not exist in the calendar."),
        ("start", {"start": "2026-02-30 10:00"}, "2026-02-30 10:00 does not exist in the calendar."),
        ("end", {"end": "2026-03-29 02:30"}, "2026-03-29 02:30 does not exist in Europe/Berlin: the clocks went forward"),
        ("start", {"start": "yesterday"}, "“yesterday” is not a date. Write it like 2026-01-31 or 2026-01-31 14:30."),
        ("end", {"end": "2026-07-01"}, "This range has 181 days; Orders may be exported for at most 100 at once."),
        ("end", {"end": ""}, "Choose both ends: Orders may be exported for at most 100 days at once."),
        ("start", {"start": "", "end": ""}, "Choose both ends"),
        ("zone", {"zone": "Europe/Atlantis"}, "There is no time zone “Europe/Atlantis”."),
        ("name", {"name": "x" * 201}, "at most 200 characters"),
    ],
)  # fmt: skip
def test_mistake_is_told_beside_its_field(alices: Client, field: str, typed: dict[str, str], sentence: str) -> None:
    pairs = filled(alices, **typed)
    page = refused(alices, pairs)
    control = page.one("input", name=field)
    assert sentence in beside(page, control)
    assert control.attributes["aria-invalid"] == "true"
    assert any(link.attributes["href"] == f"#id_{field}" for link in page.one(id="problems").all("a"))
    kept(page, pairs)


@pytest.mark.parametrize(
    ("group", "typed", "sentence"),
    [
        ("columns", {"columns": []}, "Tick at least one column."),
        ("columns", {"columns": ["id", "salary"]}, "There is no column “salary” in Orders."),
        ("columns", {"columns": ["id", "id"]}, "A column is named twice."),
        ("formats", {"format": "docx"}, "Choose one of the formats."),
        ("formats", {"format": None}, "Choose one of the formats."),
        ("formats", {"compression": "rar"}, "Choose one of the compressions."),
    ],
)
def test_wrong_choice_is_told_in_its_group(
    alices: Client, group: str, typed: dict[str, str | list[str] | None], sentence: str
) -> None:
    pairs = filled(alices, **typed)
    page = refused(alices, pairs)
    assert sentence in beside(page, page.one("fieldset", id=group))
    kept(page, pairs, *typed)


@pytest.mark.parametrize(
    ("column", "op", "value", "sentence"),
    [
        ("id", "eq", "twelve", "“twelve” is not a whole number, as Id is."),
        ("total", "between", "12,50", "“12,50” is not a number such as 12.50, as Total is."),
        ("gift", "eq", "perhaps", "“perhaps” is not yes or no, as Gift is."),
        ("due_on", "eq", "2026-02-30", "“2026-02-30” is not a date such as 2026-01-31, as Due on is."),
        ("placed_at", "between", "noon", "“noon” is not a time such as 2026-01-31 14:30, as Placed at is."),
        ("status", "eq", "", "Write what Status is to be compared with, or remove the condition."),
        ("gift", "contains", "y", "“contains” does not work for Gift."),
        ("comment", "contains", "x", "There is no column “comment” to filter by."),
        ("", "eq", "paid", "Choose the column that “paid” is about, or remove the condition."),
    ],
)
def test_wrong_condition_is_told_beside_it(alices: Client, column: str, op: str, value: str, sentence: str) -> None:
    pairs = filled(alices, filter_column=column, filter_op=op, filter_low=value)
    page = refused(alices, pairs)
    low = page.one("input", name="filter-low")
    assert beside(page, low) == sentence
    assert low.attributes["aria-invalid"] == "true"
    kept(page, pairs, *(["filter-column"] if column == "comment" else []))


def test_all_mistakes_are_told_at_once(alices: Client) -> None:
    pairs = filled(alices, start="2026-02-30", zone="Mars/Olympus", columns=[], filter_column="id", name="x" * 300)
    told = [item.text for item in refused(alices, pairs).one(id="problems").all("li")]
    assert len(told) == 5, told


def test_every_one_of_very_many_conditions_counts(alices: Client) -> None:
    many = ["id"] * 60
    pairs = filled(alices, filter_column=many, filter_op=["eq"] * 60, filter_low=[str(n) for n in range(60)])
    pairs = changed(pairs, filter_high=[""] * 60)
    assert send(alices, ORDERS, pairs).status_code == 302
    assert len(last().recipe.filters) == 60


@pytest.mark.parametrize("name", ["orders", "regional", "nothing"])
def test_dataset_that_a_person_may_not_export_is_not_there(charlie: User, name: str) -> None:
    client = browser(charlie)
    address = f"/exports/new/{name}/"
    assert client.get(address).status_code == 404
    assert send(client, address, [("token", "t"), ("columns", "id")]).status_code == 404
    assert not Export.objects.exists()
    assert address not in client.get("/exports/new/").content.decode()


def test_row_rule_opens_a_dataset_to_who_has_the_attribute(charlie: User) -> None:
    PersonAttribute.objects.create(person=charlie, name="country", value="DE")
    client = browser(charlie)
    assert send(client, "/exports/new/regional/", the_form(new_form(client, "regional")).sends()).status_code == 302
    assert [(one.op, one.values) for one in last().query.conditions] == [("exactly", ("DE",))]


def test_right_that_ends_while_the_form_is_open_is_told(
    alices: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = filled(alices)
    answers = iter([True, False])  # the page's own look, and the lifecycle's a moment later
    monkeypatch.setattr("exportapp.datasets.may_export", lambda *_: next(answers))
    page = refused(alices, pairs)
    assert "You may not export Orders." in page.one(id="problems").text
    kept(page, pairs)


# --- conditions without JavaScript ------------------------------------------------------------------------------------


def test_condition_is_added_and_removed_without_javascript_and_everything_stays(alices: Client) -> None:
    pairs = filled(alices, end="not a date yet", columns=["total"])
    page = read(send(alices, ORDERS, [*pairs, ("add_filter", "1")]).content)
    assert len(page.all(cls="filter")) == 2
    assert not page.all(id="problems")
    more = the_form(page).sends()
    assert [value for name, value in more if name.startswith("filter-")] == [
        *("status", "in", "paid, refunded", ""),
        *("", "eq", "", ""),
    ]

    more = changed(more, filter_column=["status", "id"], filter_op=["in", "between"])
    more = changed(more, filter_low=["paid, refunded", "1"], filter_high=["", "9"])
    response = send(alices, ORDERS, [*more, ("remove_filter", "0")])
    assert response.status_code == 200
    page = read(response.content)
    left = the_form(page).sends()
    assert [value for name, value in left if name.startswith("filter-")] == ["id", "between", "1", "9"]
    unfiltered = [pair for pair in pairs if not pair[0].startswith(("filter-", "csrf"))]
    assert sorted(pair for pair in left if not pair[0].startswith(("filter-", "csrf"))) == sorted(unfiltered)
    assert not Export.objects.exists()

    page = read(send(alices, ORDERS, [*left, ("remove_filter", "0")]).content)
    assert [value for name, value in the_form(page).sends() if name.startswith("filter-")] == ["", "eq", "", ""]


def test_enter_in_a_field_starts_the_export_and_removes_no_condition(alices: Client) -> None:
    form = the_form(new_form(alices))
    submits = [button for button in form.all("button") if button.attributes.get("type", "submit") == "submit"]
    assert "name" not in submits[0].attributes  # a browser presses the first one for Enter


# --- starting from another export -------------------------------------------------------------------------------------


def test_form_is_filled_from_an_own_export(alices: Client) -> None:
    send(alices, ORDERS, filled(alices))
    first = last()
    form = the_form(new_form(alices, query=f"?like={first.pk}"))
    sent = form.sends()
    wanted = {**FILLED, "name": "", "filter_high": ""}
    for name, value in wanted.items():
        name = name.replace("filter_", "filter-")
        assert [one for key, one in sent if key == name] == ([value] if isinstance(value, str) else value), name
    assert send(alices, ORDERS, sent).status_code == 302
    assert Export.objects.count() == 2
    assert last().recipe == first.recipe


def test_form_keeps_both_ends_of_a_condition_and_the_lack_of_mail(alices: Client, alice: User) -> None:
    pairs = filled(alices, filter_column="total", filter_op="between", filter_low="", filter_high="9.5", notify=None)
    send(alices, ORDERS, pairs)
    form = the_form(new_form(alices, query=f"?like={last().pk}"))
    sent = [pair for pair in form.sends() if pair[0].startswith("filter-")]
    assert [value for _, value in sent] == ["total", "between", "", "9.5"]


@pytest.mark.parametrize("query", ["?like=", "?like=nonsense"])
def test_strange_example_is_ignored(alices: Client, query: str) -> None:
    assert alices.get(ORDERS + query).status_code == 200


def test_export_of_another_dataset_is_no_example(alices: Client, alice: User) -> None:
    form = the_form(new_form(alices, query=f"?like={ask(alice, 'products').pk}"))
    assert ("columns", "total") in form.sends()


def test_recipe_of_a_stranger_is_not_shown(alices: Client, bob: User, root: User) -> None:
    secret = ask(bob, start="2026-01-01", end="2026-01-02")
    for client in (alices, browser(root)):
        assert client.get(f"{ORDERS}?like={secret.pk}").status_code == 404


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_only_datasets_that_are_open_are_offered(alices: Client, charlie: User, root: User) -> None:
    def offered(client: Client) -> list[str]:
        page = read(client.get("/exports/new/").content)
        return [link.text for card in page.all(cls="choice") for link in card.all("a")]

    assert offered(alices) == ["Orders", "Products", "Revenue"]
    assert offered(browser(charlie)) == ["Products", "Revenue"]
    assert offered(browser(root)) == ["Orders", "Products", "Revenue"]


def test_desk_without_open_datasets_says_so(alices: Client, settings: Settings, desk: object) -> None:
    settings.DATASETS_FILE.write_text("[sources.shop]\n")
    assert "No dataset is open to you" in read(alices.get("/exports/new/").content).text


def test_start_page_leads_a_newcomer_to_the_datasets_and_others_to_their_exports(
    alices: Client, alice: User, person: Callable[..., User]
) -> None:
    assert alices.get("/")["Location"] == "/exports/new/"
    ask(alice)
    assert alices.get("/")["Location"] == "/exports/"


def test_choices_are_offered_to_the_formats_that_have_them(alices: Client) -> None:
    form = read(alices.get("/exports/new/orders/").content).one("main").one("form")
    offered = [one.attributes["data-formats"] for one in form.all("div") if "data-formats" in one.attributes]
    assert offered == ["csv tsv jsonl", "csv tsv xlsx", "csv", "csv tsv"]  # compression, header, delimiter, NULL
    assert form.one("details").attributes["data-formats"] == "csv tsv jsonl xlsx"


# --- choosing a dataset ------------------------------------------------------------------------------------------------


def cards(client: Client, words: str = "") -> list[str]:
    """The datasets that the page shows for these words."""
    page = read(client.get("/exports/new/", {"q": words} if words else {}).content)
    shown = [card for card in page.all("li", cls="choice") if "hidden" not in card.attributes]
    assert ("hidden" in page.one(id="none").attributes) == bool(shown)
    return [card.one("a").text for card in shown]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["Orders", "Products", "Revenue"]),
        ("  ", ["Orders", "Products", "Revenue"]),
        ("REV", ["Revenue"]),
        ("e-mail customer", ["Orders"]),
        ("e-mail product", []),
        ("salary", []),
    ],
)
def test_datasets_are_found_by_every_word_of_names_and_columns(alices: Client, words: str, found: list[str]) -> None:
    assert cards(alices, words) == found


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_search_is_kept_and_escaped(alices: Client, words: str) -> None:
    page = read(alices.get("/exports/new/", {"q": words}).content)
    assert page.one(id="q").attributes["value"] == words.strip()
    assert not page.all("img", src="x")


def test_card_and_form_tell_what_is_known_of_a_dataset(alices: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = timezone.now() - timedelta(hours=3)
    known = figures.Figures(1234567, False, newest + timedelta(hours=2), None, newest, ())
    monkeypatch.setattr("exportapp.figures.shown", lambda declared: {"orders": known})
    page = read(alices.get("/exports/new/").content)
    [card] = [one for one in page.all("li", cls="choice") if "Orders" in one.text]
    assert "≈ 1,234,567" in card.text
    assert "3 hours ago" in card.text.replace("\xa0", " ")
    assert "Counted an hour ago" in card.text.replace("\xa0", " ")
    assert not page.all("dl")[1:]
    assert "About 1,234,567 rows, newest 3 hours ago" in new_form(alices).one("main").text.replace("\xa0", " ")


# --- helping without starting -------------------------------------------------------------------------------------------


def test_preset_fills_the_range_keeps_all_else_and_starts_nothing(alices: Client) -> None:
    pairs = filled(alices, name="Kept", start="nonsense")
    response = send(alices, ORDERS, [*pairs, ("preset", "last-month")])
    assert response.status_code == 200
    page = read(response.content)
    assert not page.all(id="problems")
    assert page.one("button", value="last-month").attributes["aria-pressed"] == "true"
    sent = dict(the_form(page).sends())
    assert sent["start"].endswith("-01 00:00")
    kept(page, [(name, sent.get(name, value) if name in ("start", "end") else value) for name, value in pairs])
    assert not Export.objects.exists()


def test_spreadsheet_warning_stands_beside_the_format_with_its_remedy(alices: Client, settings: Settings) -> None:
    text = settings.DATASETS_FILE.read_text()
    settings.DATASETS_FILE.write_text(
        text.replace('name = "status"', 'name = "status", description = "zeros in front"')
    )
    page = new_form(alices)
    warning = page.one(id="damage")
    assert "hidden" not in warning.attributes
    assert "would change Status (zeros in front)." in warning.text
    form = the_form(page)
    page = read(send(alices, ORDERS, form.sends("use_format", "xlsx")).content)
    assert "hidden" in page.one(id="damage").attributes
    assert ("format", "xlsx") in the_form(page).sends()


def test_columns_come_back_in_the_order_that_was_sent(alices: Client) -> None:
    page = refused(alices, filled(alices, columns=["total", "id"], end="soon"))
    assert [value for name, value in the_form(page).sends() if name == "columns"] == ["total", "id"]
