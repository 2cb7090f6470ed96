"""The list of a person's exports: theirs alone, newest first, with progress, and quiet once all is done."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from exportapp import lifecycle
from exportapp.models import UNFINISHED, Event, Export, ExportState, Process, Step, StepKind, StepState
from tests.pages import Element, read
from tests.scenes import HOSTILE, ask, in_state


def listed(client: Client, query: str = "") -> Element:
    response = client.get(f"/exports/{query}")
    assert response.status_code == 200
    return read(response.content).one("main")


def names(page: Element) -> list[str]:
    return [link.text for link in page.all("a", cls="name")]


def running(owner: User, rows: int, of: int | None, exact: bool = True) -> Export:
    """An export that runs for ten seconds already, with two chunks that share its rows."""
    export = in_state(owner, ExportState.RUNNING)
    at = lifecycle.now()
    for part in (rows // 2, rows - rows // 2):
        Step.objects.create(export=export, kind=StepKind.CHUNK, state=StepState.RUNNING, rows_done=part, not_before=at)
    values = {"rows_estimated": of, "rows_exact": exact, "started_at": at - timedelta(seconds=10)}
    Export.objects.filter(pk=export.pk).update(**values)
    return export


def sign(kind: str, seconds: float = 0, name: str = "", **facts: object) -> None:
    """A process's sign of life, so many seconds ago."""
    at = lifecycle.now() - timedelta(seconds=seconds)
    row = {"kind": kind, "started_at": at, "seen_at": at, "facts": facts}
    Process.objects.update_or_create(name=name or kind, defaults=row)


@pytest.fixture(autouse=True)
def _processes(desk: Path) -> None:
    """All parts of the desk answer."""
    sign("dispatcher", broker="reachable", waiting=0)
    sign("worker", steps=0)


def test_newcomer_is_told_what_to_do(alices: Client) -> None:
    page = listed(alices)
    assert "Nothing here yet" in page.text
    assert not page.all("table")


def test_exports_are_listed_newest_first_and_only_ones_own(alices: Client, alice: User, bob: User) -> None:
    for name in ("first", "second", "third"):
        ask(alice, name=name)
    ask(bob, name="of bob")
    page = listed(alices)
    assert names(page) == ["third", "second", "first"]
    assert "3 under way, 0 files ready" in page.text


def test_long_lists_are_paged_without_losing_one(alices: Client, alice: User) -> None:
    for number in range(45):
        ask(alice, name=f"export {number}")
    pages = [names(listed(alices, f"?page={number}")) for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [20, 20, 5]
    assert [name for page in pages for name in page] == [f"export {number}" for number in reversed(range(45))]
    assert "45 under way" in listed(alices, "?page=2").text
    assert [link.text for link in listed(alices, "?page=2").one(cls="pager").all("a")] == ["Newer", "Older"]
    assert names(listed(alices, "?page=99")) == pages[2]
    assert names(listed(alices, "?page=x")) == pages[0]


def test_number_of_queries_does_not_grow_with_the_list(alices: Client, alice: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            listed(alices)
        return len(seen)

    for state in ExportState.values:
        in_state(alice, state)
    few = queries()
    for state in ExportState.values * 2:
        in_state(alice, state)
        running(alice, 10, 20)
    assert queries() == few


@pytest.mark.parametrize("state", ExportState.values)
def test_list_polls_while_something_on_it_is_unfinished(alices: Client, alice: User, state: str) -> None:
    in_state(alice, state)
    region = listed(alices).one(id="exports")
    assert ("hx-get" in region.attributes) == (state in ("queued", "running"))
    if "hx-get" in region.attributes:
        assert region.attributes["hx-select"] == "#exports"


def test_older_page_polls_itself(alices: Client, alice: User) -> None:
    for _ in range(21):
        ask(alice)
    assert listed(alices, "?page=2").one(id="exports").attributes["hx-get"] == "/exports/?page=2"


@pytest.mark.parametrize(
    ("state", "actions", "word"),
    [
        ("queued", ["Cancel"], "Waits for a free worker"),
        ("running", ["Cancel"], "Counting the rows"),
        ("ready", ["Download", "Run again"], "1 row · 7"),
        ("failed", ["Run again"], "The table is <gone>."),
        ("cancelled", ["Run again"], "Cancelled"),
        ("expired", ["Run again"], "file removed"),
    ],
)
def test_each_state_says_what_it_means_and_offers_what_can_be_done(
    alices: Client, alice: User, state: str, actions: list[str], word: str
) -> None:
    export = in_state(alice, state, name="N")
    row = listed(alices).one("tr", id=f"export-{export.pk}")
    buttons = [one for one in row.one("td", cls="acts").walk() if one.tag in ("a", "button")]
    assert [one.text for one in buttons] == [f"{action} N" for action in actions]
    assert export.get_state_display() in row.text
    assert word in row.text


def test_controls_in_what_polls_have_ids_so_that_focus_stays(alices: Client, alice: User) -> None:
    for state in ExportState.values:
        in_state(alice, state)
    region = listed(alices).one(id="exports")
    ids = [one.attributes.get("id") for one in region.walk() if one.tag in ("a", "button")]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("rows", "of", "exact", "percent", "said"),
    [
        (0, None, False, None, "Counting the rows"),
        (0, 0, True, "99", "0 of 0 rows"),
        (1_500, 6_000, True, "25", "1,500 of 6,000 rows · 1"),
        (1_500, 6_000, False, "25", "1,500 of about 6,000 rows"),
        (6_000, 6_000, True, "99", "6,000 of 6,000 rows"),
        (7_000, 6_000, False, "99", "7,000 rows"),
    ],
)
def test_progress_is_the_sum_of_the_chunks_and_never_full_too_early(
    alices: Client, alice: User, rows: int, of: int | None, exact: bool, percent: str | None, said: str
) -> None:
    running(alice, rows, of, exact)
    page = listed(alices)
    assert page.one("progress").attributes.get("value") == percent
    assert said in page.one("td", cls="how").text
    assert "rows/s" in page.text or not rows


def test_row_says_what_a_retry_waits_for(alices: Client, alice: User) -> None:
    export = running(alice, 10, 20)
    text = "The database did not answer. Trying again in 10 s."
    Event.objects.create(export=export, at=lifecycle.now(), kind="retry", text=text)
    assert text not in listed(alices).text
    Step.objects.filter(export=export, kind=StepKind.PLAN).update(state=StepState.WAITING, attempts=1)
    assert text in listed(alices).text


DISPATCHER = "The export desk's dispatcher does not run at the moment; this export {} when an operator has started it."
QUEUE = "The export desk's queue does not answer at the moment; this export {} by itself when it does."
WORKERS = "No worker of the export desk answers at the moment; this export {} by itself when one does."


@pytest.mark.parametrize(
    ("dispatcher", "worker", "said"),
    [
        ({"broker": "reachable"}, {}, ""),
        ({"broker": "not tried yet"}, {}, ""),  # it has just begun
        ({"broker": "the broker does not answer (AMQPConnectionError)"}, {}, QUEUE),
        ({"broker": "the broker refused a doorbell"}, {}, QUEUE),
        ({"broker": "reachable", "seconds": 29}, {"seconds": 29}, ""),
        ({"broker": "reachable", "seconds": 31}, {}, DISPATCHER),
        ({"broker": "reachable"}, {"seconds": 31}, WORKERS),
        ({"broker": "reachable", "seconds": 31}, {"seconds": 31}, DISPATCHER),
    ],
)
def test_waiting_export_says_which_part_of_the_desk_it_waits_for(
    alices: Client, alice: User, dispatcher: dict[str, Any], worker: dict[str, Any], said: str
) -> None:
    export = ask(alice)
    sign("dispatcher", **dispatcher)
    sign("worker", **worker)
    sentence = said.format("starts") or "Waits for a free worker"
    assert listed(alices).one("td", cls="how").text == sentence
    assert sentence in read(alices.get(f"/exports/{export.pk}/").content).one("main").text


def test_desk_without_any_process_is_told(alices: Client, alice: User) -> None:
    ask(alice)
    Process.objects.all().delete()
    assert DISPATCHER.format("starts") in listed(alices).text


def test_dispatcher_that_was_heard_last_speaks_for_the_broker(alices: Client, alice: User) -> None:
    ask(alice)
    sign("dispatcher", seconds=9, name="another", broker="the broker hangs")
    assert QUEUE.format("starts") not in listed(alices).text
    sign("dispatcher", seconds=11, broker="reachable")
    assert QUEUE.format("starts") in listed(alices).text


@pytest.mark.parametrize(("seconds", "told"), [(24, False), (26, True), (59, True)])
def test_running_export_says_when_one_of_its_workers_gives_no_sign(
    alices: Client, alice: User, seconds: int, told: bool
) -> None:
    export = running(alice, 10, 20)
    lease = lifecycle.now() + timedelta(seconds=60 - seconds)
    Step.objects.filter(export=export, state=StepState.RUNNING).update(lease_until=lease)
    assert (f"has been silent for {seconds} s; another one takes over" in listed(alices).text) is told


def test_right_that_was_taken_away_closes_the_file_on_every_page_and_says_so(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY)
    alice.groups.clear()
    for page in (listed(alices), read(alices.get(f"/exports/{export.pk}/").content)):
        assert "your right to this data was taken away" in page.text
        assert not page.all("a", id=f"download-{export.pk}")


def test_export_that_was_stopped_by_nobody_says_why(alices: Client, alice: User) -> None:
    lifecycle.cancel(ask(alice), None, lifecycle.FORBIDDEN)
    lifecycle.cancel(ask(alice), alice, "Cancelled by alice")
    stopped, cancelled = (row.text for row in listed(alices).all("td", cls="how")[::-1])
    assert lifecycle.FORBIDDEN in stopped
    assert cancelled.startswith("Cancelled")


def test_worker_whose_child_is_replaced_is_not_missed(alices: Client, alice: User) -> None:
    """Between the sign-off of one child and the first sign of the next, a small desk has none."""
    ask(alice)
    Process.objects.filter(kind="worker").delete()
    assert WORKERS.format("starts") in listed(alices).text
    done = in_state(alice, ExportState.READY).steps.all()
    done.update(state=StepState.DONE, started_at=lifecycle.now() - timedelta(seconds=20))
    assert WORKERS.format("starts") not in listed(alices).text


def test_running_export_says_so_only_while_none_of_its_steps_runs(alices: Client, alice: User) -> None:
    export = running(alice, 10, 20)
    sign("dispatcher", broker="the broker hangs")
    assert "does not answer" not in listed(alices).text
    Step.objects.filter(export=export).update(state=StepState.WAITING)
    assert QUEUE.format("goes on") in listed(alices).one("td", cls="how").text


@pytest.mark.parametrize("state", [state for state in ExportState.values if state not in UNFINISHED])
def test_what_has_ended_waits_for_nothing(alices: Client, alice: User, state: str) -> None:
    in_state(alice, state)
    Process.objects.all().delete()
    assert "by itself" not in listed(alices).text


def test_parts_of_the_desk_are_asked_once_a_page(alices: Client, alice: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            listed(alices)
        return len(seen)

    sign("dispatcher", broker="the broker hangs")
    ask(alice)
    few = queries()
    for _ in range(9):
        ask(alice)
    assert queries() == few


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_texts_and_nothing_else(alices: Client, alice: User, name: str) -> None:
    for state in ExportState.values:
        in_state(alice, state, name=name)
    page = listed(alices)
    assert set(names(page)) == {" ".join(name.split())}
    assert not page.all("script")
    assert not page.all("img")


def test_cancelling_what_has_ended_is_said_and_not_done(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, name="Old")
    response = alices.post(f"/exports/{export.pk}/cancel", follow=True)
    assert "“Old” had ended already." in read(response.content).text
    export.refresh_from_db()
    assert export.state == ExportState.READY


def test_running_again_is_one_export_while_it_is_under_way(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED, name="N")
    for _ in range(2):
        assert alices.post(f"/exports/{export.pk}/again")["Location"] == "/exports/"
    again = Export.objects.exclude(pk=export.pk).get()
    assert (again.parent, again.name, again.recipe, again.state) == (export, "N", export.recipe, ExportState.QUEUED)


def test_running_again_without_the_right_says_why_not(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY)
    alice.groups.clear()
    page = read(alices.post(f"/exports/{export.pk}/again", follow=True).content)
    assert page.one("li", cls="bad").text == "You may not export Orders."
    assert Export.objects.count() == 1
