"""The page of one export: what was asked for, how far it is, what is in the file, and what happened."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from exportapp import lifecycle
from exportapp.engine.specs import FileOptions, RecipeFilter
from exportapp.models import Event, Export, ExportState, Step, StepKind
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
    assert facts["Size"].startswith("7 bytes")
    assert facts["SHA-256"] == (export.receipt or {})["sha256"]
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
    ids = [one.attributes.get("id") for one in region.walk() if one.tag in ("a", "button")]
    assert all(ids), "without an id the focus is lost at each poll"


def test_failed_export_says_why_and_offers_to_change_it(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED)
    page = shown(alices, export)
    assert page.one(cls="bad").text == "The table is <gone>."
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
    assert len(page.one(cls="strip").all("li")) == 500
    assert "1200 parts" in page.text


def test_repetition_names_what_it_repeats(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, name="Old one")
    again = lifecycle.run_again(export, alice)
    repeats = [link for link in shown(alices, again).all("a") if link.text == "Old one"]
    assert [link.attributes["href"] for link in repeats] == [f"/exports/{export.pk}/"]


def test_operator_sees_whose_it_is_and_only_what_operators_may_do(alice: User, root: User) -> None:
    expected = {"queued": ["Cancel"], "running": ["Cancel"], "ready": ["Download"]}
    for state in ExportState.values:
        page = shown(browser(root), in_state(alice, state, name="N"))
        assert told(page)["Owner"] == "alice"
        controls = [one.text for one in page.all("button") + page.all("a", cls="btn")]
        assert controls == [f"{action} N" for action in expected.get(state, [])], state


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
