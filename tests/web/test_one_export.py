"""The page of one export: what was asked for, how far it is, what is in the file, and what happened."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from exportapp import datasets, lifecycle, recipes
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import FileOptions, Recipe, RecipeFilter
from exportapp.management import asked
from exportapp.management.commands.run_export import Command
from exportapp.models import Event, Export, ExportState, Step, StepKind, StepState
from exportapp.web.progress import strip
from exportapp.web.repairs import repairs
from exportapp.web.words import command, short, span_words
from tests.pages import Element, read
from tests.scenes import HOSTILE, ask, browser, in_state


def shown(client: Client, export: Export) -> Element:
    response = client.get(f"/exports/{export.pk}/")
    assert response.status_code == 200
    return read(response.content).one("main")


def told(page: Element) -> dict[str, str]:
    """The page's lists of headings and texts."""
    return {heading.text: text.text for heading, text in zip(page.all("dt"), page.all("dd"), strict=True)}


def test_recipe_is_told_in_words(alices: Client, alice: User) -> None:
    filters = (
        RecipeFilter("status", "in", ("paid", "new")),
        RecipeFilter("total", "between", ("", "9.50")),
        RecipeFilter("email", "empty"),
    )
    export = ask(
        alice, columns=("id", "email"), start="2026-01-01", end="2026-02-01", zone="Asia/Tokyo", filters=filters
    )
    page = shown(alices, export)
    assert told(page) == {
        "Dataset": "Orders",
        "Placed at": "from 2026-01-01 until 2026-02-01 (not included), Asia/Tokyo",
        "Columns": "Id, E-mail <of the customer>",
        "Only rows where": "E-mail <of the customer> is empty",  # the last of three
        "Format": "CSV",
        "Mail": "yes",
    }
    assert "Status is one of paid, new" in page.text
    assert "Total is between any and 9.50" in page.text


def test_choices_that_not_everybody_makes_are_told(alices: Client, alice: User) -> None:
    options = FileOptions(header="names", delimiter=";", null="NULL", bom=True, exact=True)
    page = shown(alices, ask(alice, options=options, consistency="snapshot"))
    assert told(page)["Read"] == "in one go, all rows as of one moment"
    for choice in ("database names in the first row", "semicolon between the values",
                   "NULL for missing values", "with a byte order mark", "machine exact, not for spreadsheets"):  # fmt: skip
        assert choice in page.text


def test_receipt_is_shown_once_there_is_a_file(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, compression="gzip")
    Export.objects.filter(pk=export.pk).update(
        receipt={**(export.receipt or {}), "read_from": "2026-01-01T10:00:00+00:00", "read_until": "2026-01-01T10:00:07+00:00"}
    )  # fmt: skip
    facts = told(shown(alices, export))
    assert facts["Rows"] == "1"
    assert facts["Size"] == "7 bytes (7 bytes)"
    assert facts["SHA-256"] == f"{(export.receipt or {})['sha256']} Copy the SHA-256"
    assert "Values" not in facts, "a receipt of old says nothing about them"
    assert facts["Read"] == "1 January 2026, 10:00:00 to 10:00:07 UTC, one statement"
    assert facts["Format"] == "CSV, gzip"
    assert "What is in the file" not in shown(alices, ask(alice)).text


def test_receipt_is_there_to_take_away(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY)
    response = alices.get(f"/exports/{export.pk}/receipt.json")
    assert response.json() == export.receipt
    assert response["Content-Disposition"].endswith('.csv.receipt.json"')
    page = alices.get(f"/exports/{export.pk}/").content.decode()
    assert f'href="/exports/{export.pk}/receipt.json"' in page


def test_without_a_file_there_is_no_receipt(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.RUNNING)
    assert alices.get(f"/exports/{export.pk}/receipt.json").status_code == 404
    assert "receipt.json" not in alices.get(f"/exports/{export.pk}/").content.decode()


@pytest.mark.parametrize("state", ExportState.values)
def test_page_polls_while_the_export_is_unfinished(alices: Client, alice: User, state: str) -> None:
    export = in_state(alice, state)
    region = shown(alices, export).one(id="export")
    assert region.attributes.get("hx-get") == (f"/exports/{export.pk}/" if export.unfinished else None)
    ids = [one.attributes.get("id") for one in region.walk() if one.tag in ("a", "button", "summary")]
    assert all(ids), "without an id the focus is lost at each poll"


def test_failed_export_says_why_and_offers_to_change_it(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED)
    page = shown(alices, export)
    assert page.one("h2", cls="bad").text == "The table is <gone>."
    assert "Nothing is lost: run it again" in page.text
    edit = [link for link in page.all("a") if link.text == "Edit as new"]
    assert [link.attributes["href"] for link in edit] == [f"/exports/new/orders/?like={export.pk}"]


def test_history_has_every_event_newest_first(alices: Client, alice: User) -> None:
    export = ask(alice)
    lifecycle.cancel(export, alice, "Cancelled by alice")
    texts = [item.one("span").text for item in shown(alices, export).one(cls="line").all("li")]
    assert texts == ["Cancelled by alice", "Asked for by alice"]


def test_details_for_operators_are_not_on_the_page(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED)
    Event.objects.create(export=export, at=lifecycle.now(), kind="failed", text="It failed.", detail="host db7:3306")
    page = shown(alices, export)
    assert "It failed." in page.text
    assert "db7" not in page.text


def test_export_with_very_many_parts_has_a_page_of_few_queries(alices: Client, alice: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            shown(alices, export)
        return len(seen)

    export = ask(alice)
    few = queries()
    at = lifecycle.now()
    Step.objects.bulk_create(
        Step(export=export, kind=StepKind.CHUNK, position=n, not_before=at + timedelta(days=1)) for n in range(1200)
    )
    for _ in range(30):
        Event.objects.create(export=export, at=at, kind="retry", text="again", actor=alice)
    assert queries() == few
    page = shown(alices, export)
    assert len(page.one(cls="strip").all("svg")) == 60
    assert page.one(cls="strip").attributes["aria-label"] == "0 of 1,200 parts read"
    assert "1,200 parts" in page.text


def test_repetition_names_what_it_repeats(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, name="Old one")
    again = lifecycle.run_again(export, alice)
    repeats = [link for link in shown(alices, again).all("a") if link.text == "Old one"]
    assert [link.attributes["href"] for link in repeats] == [f"/exports/{export.pk}/"]


def test_operator_sees_whose_it_is_and_only_what_operators_may_do(alice: User, root: User) -> None:
    stop = ["Cancel N", "Let it go on", "Stop it"]
    expected = {"queued": stop, "running": stop, "ready": ["Download, 7 bytes N"]}
    for state in ExportState.values:
        page = shown(browser(root), in_state(alice, state, name="N"))
        assert told(page)["Owner"] == "alice"
        controls = [one.text for one in page.all("button") + page.all("a", cls="btn") if "hidden" not in one.attributes]
        assert controls == expected.get(state, []), state


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_text_and_nothing_else(alices: Client, alice: User, name: str) -> None:
    page = shown(alices, in_state(alice, ExportState.READY, name=name))
    assert page.one("h1").text == " ".join(name.split())
    assert not page.all("script")
    assert not page.all("img")


def test_dataset_that_is_no_longer_offered_does_not_break_the_page(alices: Client, alice: User, desk: object) -> None:
    from django.conf import settings

    export = in_state(alice, ExportState.READY)
    settings.DATASETS_FILE.write_text("[sources.shop]\n")
    page = shown(alices, export)
    assert told(page)["Dataset"] == "Orders"
    assert "not offered to you any more" in page.one(id="not-offered").text
    assert not page.all("a", id="edit")
    assert not page.all(id="command")
    assert "Run again" not in page.text
    assert page.all("a", id=f"download-{export.pk}"), "the file is there all the same"


# --- as a command -----------------------------------------------------------------------------------------------------


def understood(text: str) -> Recipe:
    """The recipe that run_export makes of a command, as a shell hands it over."""
    program, name, *arguments = shlex.split(text.replace("\\\n", " "))
    assert (program, name) == ("manage.py", "run_export")
    options: dict[str, Any] = vars(Command().create_parser("manage.py", "run_export").parse_args(arguments))
    asked.check_texts(options)
    return asked.recipe(options, asked.dataset(options["dataset"]))


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("products", ("id", "name")),
        Recipe("orders", ("total", "id"), start="2026-01-01 06:30", end="2026-02-01", zone="Asia/Tokyo", format="xlsx"),
        Recipe("products", ("name",), compression="gzip", format="jsonl"),
        Recipe("products", ("name",), format="tsv", options=FileOptions(header="names", null="\\N", exact=True)),
        Recipe("products", ("name",), options=FileOptions("names", ";", True, "NULL", True)),
        Recipe("products", ("name",), options=FileOptions(delimiter="\t")),
        Recipe(
            "products", ("id",), filters=(RecipeFilter("id", "between", ("-5", "")), RecipeFilter("id", "eq", ("-7",)))
        ),
        Recipe(
            "products", ("id",), filters=(RecipeFilter("name", "in", ("a b", "it's", "c,d", "$(rm -rf /)", "e\\,f")),)
        ),
        Recipe(
            "products", ("id",), filters=(RecipeFilter("name", "eq", ("=a, ~b",)), RecipeFilter("name", "not_empty"))
        ),
        Recipe(
            "products",
            ("id",),
            filters=(RecipeFilter("name", "contains", ("100 % ;\n`x`",)), RecipeFilter("id", "empty")),
        ),
    ],
    ids=str,
)
def test_command_asks_for_the_very_same_recipe(recipe: Recipe) -> None:
    dataset = datasets.catalogue().datasets[recipe.dataset]
    recipe = replace(recipe, options=recipes.heeded(recipe.format, recipe.options))
    assert not recipes.problems(recipe, dataset)
    text = command(recipe, dataset, "-strange.csv")
    assert understood(text) == replace(recipe, consistency="snapshot")


def test_command_names_the_person_only_where_rows_depend_on_it() -> None:
    known = datasets.catalogue().datasets
    assert "--user 'al ice'" in command(Recipe("regional", ("country",)), known["regional"], "a.csv", "al ice")
    assert "--user" not in command(Recipe("products", ("id",)), known["products"], "a.csv", "alice")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("products", ("a,b",)),
        Recipe("products", ("id",), filters=(RecipeFilter("na=me", "eq", ("a",)),)),
        Recipe("products", ("id",), filters=(RecipeFilter("name", "in", ("a\\", "b")),)),
    ],
)
def test_what_a_command_line_cannot_say_has_no_command(recipe: Recipe) -> None:
    assert command(recipe, datasets.catalogue().datasets["products"], "a.csv") == ""


def test_command_is_on_the_page_to_be_copied(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, name="It's <all>", zone="Europe/Berlin")
    page = shown(alices, export)
    assert page.one("button", id="copy-command").attributes["data-copy"] == "command"
    assert understood("".join(map(str, page.one(id="command").children))) == replace(
        export.recipe, consistency="snapshot"
    )


# --- repairs ----------------------------------------------------------------------------------------------------------


def offered(owner: User, error: str, **recipe: Any) -> dict[str, tuple[Recipe, ...]]:
    export = in_state(owner, ExportState.FAILED, **recipe)
    Export.objects.filter(pk=export.pk).update(error=error)
    export.refresh_from_db()
    return {one.label: one.recipes for one in repairs(export, datasets.catalogue().datasets[export.dataset])}


TOO_MUCH = "More than 10 rows: that is the most to be exported at once. Choose a shorter range or add a condition."


@pytest.mark.parametrize(
    ("start", "end", "cut"),
    [
        ("2026-01-01", "2026-02-01", "2026-01-16"),
        ("2026-01-01 00:00", "2026-01-02 00:00", "2026-01-01 12:00"),
        ("2026-01-01 10:00", "2026-01-01 10:03", "2026-01-01 10:01"),
        ("2026-01-01 10:00", "2026-01-01 10:01", ""),
    ],
)
def test_too_long_a_range_is_cut_in_two_that_meet(alice: User, start: str, end: str, cut: str) -> None:
    found = offered(alice, TOO_MUCH, start=start, end=end, zone="Europe/Berlin")
    halves = [(one.start, one.end) for one in found.get("Export it in two halves", ())]
    assert halves == ([(start, cut), (cut, end)] if cut else [])


def test_days_are_not_cut(alice: User) -> None:
    assert not offered(alice, TOO_MUCH, dataset="revenue", start="2026-01-01", end="2026-01-02")
    assert offered(alice, TOO_MUCH, dataset="revenue", start="2026-01-01", end="2026-01-03")


def test_without_both_ends_there_is_nothing_to_halve(alice: User) -> None:
    assert not offered(alice, TOO_MUCH, dataset="revenue", start="", end="2026-01-03")


@pytest.mark.parametrize(
    ("error", "format", "label", "becomes"),
    [
        ("A text is too long. Leave the column out, or choose CSV, JSON Lines or Parquet.", "xlsx", "CSV", "csv"),
        ("It is no UTF-8 text. Leave the column out, or choose CSV.", "csv", "", ""),
        ("A number is too long. Leave it out, or choose JSON Lines or CSV.", "parquet", "JSON Lines", "jsonl"),
    ],
)
def test_format_that_the_sentence_proposes_is_one_click_away(
    alice: User, error: str, format: str, label: str, becomes: str
) -> None:
    found = offered(alice, error, format=format)
    made = found.get(f"Export it as {label}", ())
    assert [one.format for one in made] == ([becomes] if becomes else [])
    assert all(one.options == FileOptions() for one in made)


def test_column_that_the_sentence_names_can_be_left_out(alice: User) -> None:
    error = "The column Status is declared as a number but holds a text. An operator has to correct it."
    columns = ("id", "status", "total")
    [repaired] = offered(alice, error, columns=columns)["Leave out Status"]
    assert repaired.columns == ("id", "total")
    assert not offered(alice, error, columns=("status",)), "nothing would be left"
    assert not offered(alice, "The column Statuses is gone.", columns=columns)


def test_failed_page_offers_its_repairs_to_the_owner_alone(alices: Client, alice: User, root: User) -> None:
    export = in_state(alice, ExportState.FAILED)
    Export.objects.update(error=TOO_MUCH)
    [repair] = [one.one("form") for one in shown(alices, export).one(cls="repairs").all("li") if one.all("form")]
    assert ("repair", "halves") in repair.sends("repair", "halves")
    assert not shown(browser(root), export).all(cls="repairs")


# --- strip, title and words -------------------------------------------------------------------------------------------


def test_strip_fills() -> None:
    done, half = (StepState.DONE, 5, 5), (StepState.RUNNING, 5, 10)
    waits, wide = (StepState.WAITING, 0, 10), (StepState.RUNNING, 99, 10)
    told = [(cell.state, cell.filled) for cell in strip([done, half, wide, waits, (StepState.FAILED, 1, None)])]
    assert told == [("done", 100), ("running", 50), ("running", 95), ("waiting", 0), ("failed", 0)]
    assert strip([]) == []
    many = strip([done] * 900 + [half] + [waits] * 299)
    assert [cell.state for cell in many] == ["done"] * 45 + ["running"] + ["waiting"] * 14
    assert [cell.state for cell in strip([done, waits], ended=True)] == ["done", "dropped"]


@pytest.mark.parametrize(("state", "title"), [("queued", "Waiting"), ("ready", "Ready"), ("failed", "Failed")])
def test_tab_says_the_state(alices: Client, alice: User, state: str, title: str) -> None:
    page = read(alices.get(in_state(alice, state, name="N").get_absolute_url()).content)
    assert page.one("title").text == f"{title} · N · exportapp"


def test_tab_says_how_far_it_is_and_a_reader_hears_each_quarter(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.RUNNING, name="N")
    Export.objects.filter(pk=export.pk).update(rows_estimated=100)
    step = Step.objects.create(export=export, kind=StepKind.CHUNK, not_before=lifecycle.now(), state=StepState.RUNNING)
    for rows, title, said in ((0, "0 %", "N: running"), (24, "24 %", "N: running"), (49, "49 %", "N: running, a quarter is read"),
                              (62, "62 %", "N: running, half of it is read"),
                              (120, "99 %", "N: running, three quarters are read")):  # fmt: skip
        Step.objects.filter(pk=step.pk).update(rows_done=rows)
        page = read(alices.get(export.get_absolute_url()).content)
        assert page.one("title").text == f"{title} · N · exportapp"
        assert page.one(id="export").attributes["data-said"] == said


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0, 1, "1 s"),
        (1, 2, "1–2 s"),
        (0, 7, "up to 7 s"),
        (33, 61, "30–65 s"),
        (70, 130, "1–3 min"),
        (3000, 9000, "up to 3 h"),
    ],
)
def test_spans_are_told_in_round_numbers(low: int, high: int, told: str) -> None:
    assert span_words(low, high) == told


@pytest.mark.parametrize(
    ("number", "told"), [(9_999, "9,999"), (12_345, "12 k"), (1_240_000, "1.24 M"), (3 * 10**9, "3.00 bn")]
)
def test_numbers_are_short(number: int, told: str) -> None:
    assert short(number) == told


def test_every_format_has_a_name_that_repairs_can_find() -> None:
    assert len({form.label for form in FORMATS.values()}) == len(FORMATS)
