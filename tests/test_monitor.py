"""The operators' first page: its figures are those of the rows behind them, and cost the same however many there are."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from exportapp import lifecycle, monitor, storage
from exportapp.engine.errors import ExportError
from exportapp.models import Event, Export, ExportState, Process, Step, StepKind, StepState
from exportapp.processes import sign_of_life, sign_off
from tests.pages import Element, read
from tests.scenes import ask, browser, finish, held, in_state, piece, take


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def roots(root: User) -> Client:
    return browser(root)


@pytest.fixture
def healthy(desk: None) -> None:
    """A worker and a dispatcher that have just been seen."""
    sign_of_life("worker", {"steps": 0})
    sign_of_life("dispatcher", {"broker": "reachable", "waiting": 3})


def seen(client: Client) -> Element:
    """The monitor, as it is now."""
    cache.clear()
    response = client.get("/admin/", headers={"X-Part": "monitor"})
    assert response.status_code == 200
    return read(response.content)


def tiles(client: Client) -> dict[str, Element]:
    page = seen(client)
    return {one.one(cls="what").text: one for one in page.one("ul", cls="figures").all("li")}


def table(client: Client, title: str) -> list[str]:
    """The lines of the table below that title."""
    [panel] = [one for one in seen(client).all("section") if one.all("h2")[0].text.startswith(title)]
    return [row.text for row in panel.one("tbody").all("tr")]


def rows_at(client: Client, place: Element) -> int:
    """How many rows the list shows that a place of the page links to."""
    address = place.all("a")[0].attributes["href"]
    response = client.get(address)
    assert response.status_code == 200, address
    lists = read(response.content).all("table", id="result_list")
    return len(lists[0].one("tbody").all("tr")) if lists else 0


def troubles(client: Client) -> list[str]:
    return [one.text for part in seen(client).all("ul", cls="troubles") for one in part.all("li")]


def many(owner: User, count: int, **values: Any) -> list[Export]:
    """So many exports that ended at various times of the last days."""
    pattern = in_state(owner, ExportState.READY)
    skipped = ("id", "request_key", "finished_at", "state", "error")
    same = {f.attname: getattr(pattern, f.attname) for f in Export._meta.fields if f.name not in skipped}
    at = lifecycle.now()
    exports = Export.objects.bulk_create(
        [
            Export(
                **{**same, "request_key": uuid.uuid4().hex, "finished_at": at - timedelta(minutes=number % 5_000),
                   "state": ExportState.FAILED if number % 5 == 0 else ExportState.READY,
                   "error": f"Reason {number % 40}" if number % 5 == 0 else "", **values}
            )
            for number in range(count)
        ],
        batch_size=1_000,  # MariaDB takes 16 MB at once
    )  # fmt: skip
    Step.objects.bulk_create(
        [
            Step(
                export=export, kind=StepKind.CHUNK, state=StepState.DONE, not_before=at, rows_done=10,
                started_at=at - timedelta(seconds=9 + number % 5_000), finished_at=at,
            )
            for number, export in enumerate(exports)
        ],
        batch_size=1_000,
    )  # fmt: skip
    return exports


# --- what runs, waits and lives ---------------------------------------------------------------------------------------


def test_figures_link_to_as_many_rows_as_they_name(roots: Client, alice: User, healthy: None) -> None:
    for state, count in ((ExportState.RUNNING, 2), (ExportState.QUEUED, 3), (ExportState.READY, 1)):
        for _ in range(count):
            in_state(alice, state)
    found = tiles(roots)
    assert found["Running"].one("b").text == "2"
    assert found["Waiting"].one("b").text == "3"
    assert rows_at(roots, found["Running"]) == 2
    assert rows_at(roots, found["Waiting"]) == 3
    assert found["Workers"].one("b").text == found["Dispatchers"].one("b").text == "1"
    assert rows_at(roots, found["Workers"]) == 1
    assert found["Queue"].one("b").text == "3"
    assert rows_at(roots, found["Room for files"]) == 1
    assert troubles(roots) == []
    assert "Nothing needs an operator." in seen(roots).text


def test_oldest_step_that_may_run_says_how_long_work_waits(roots: Client, alice: User, healthy: None) -> None:
    ask(alice)
    step = ask(alice).steps.get()
    ask(alice).steps.update(not_before=lifecycle.now() + timedelta(hours=1), attempts=1)
    Step.objects.filter(pk=step.pk).update(not_before=lifecycle.now() - timedelta(seconds=100))
    tile = tiles(roots)["Longest wait"]
    assert 100 <= int(tile.one("b").text.removesuffix(" s")) < 110
    assert "2 steps due, 1 step to be tried again" in tiles(roots)["Waiting"].text
    assert troubles(roots) == []
    Step.objects.filter(pk=step.pk).update(not_before=lifecycle.now() - timedelta(minutes=10))
    assert troubles(roots) == ["The oldest step has waited for 10 min: too few workers, or none"]
    page = read(roots.get(tiles(roots)["Longest wait"].one("a").attributes["href"]).content)
    first = page.one("table", id="result_list").one("tbody").all("tr")[0]
    assert f"Plan {step.pk}" in first.text, "the oldest comes first"


def old(process: str, minutes: float, **facts: Any) -> None:
    at = lifecycle.now() - timedelta(minutes=minutes)
    Process.objects.create(name=process, kind=process.split()[0], started_at=at, seen_at=at, facts=facts)


def test_dead_predecessors_are_counted_and_hide_neither_life_nor_trouble(roots: Client, healthy: None) -> None:
    for number in range(30):
        old(f"worker gone#{number}", 10 + number)
    lines = table(roots, "Signs of life")
    assert len(lines) == 2, "those that live"
    assert not any("gone" in line for line in lines)
    gone = seen(roots).one("p", cls="gone")
    assert gone.text == "30 workers gone without a word in the last hour, the last one 10 min ago"
    assert rows_at(roots, gone) == 30
    assert "30 gone without a word" in tiles(roots)["Workers"].text
    assert troubles(roots) == [], "others have taken over"
    sign_off("worker")
    assert troubles(roots) == ["No worker runs"]
    assert "bad" in tiles(roots)["Workers"].attributes["class"].split()


def test_who_signed_off_is_not_missed(roots: Client, healthy: None) -> None:
    sign_of_life("worker", {"steps": 0})
    old("worker other", 0)
    sign_off("worker")
    assert seen(roots).all("p", cls="gone") == []
    assert tiles(roots)["Workers"].one("b").text == "1"


@pytest.mark.parametrize("broker", ["the broker hangs", "the broker does not answer (ConnectionRefusedError)"])
def test_broker_is_what_the_living_dispatcher_saw_last(roots: Client, healthy: None, broker: str) -> None:
    old("dispatcher gone", 5, broker=broker, waiting=None)
    assert troubles(roots) == []
    Process.objects.filter(kind="dispatcher", facts__broker="reachable").update(
        facts={"broker": broker, "waiting": None}
    )
    assert troubles(roots) == [f"Queue: {broker}"]
    assert tiles(roots)["Queue"].one("b").text == "away"


def test_without_a_dispatcher_nobody_knows_the_queue(roots: Client, desk: None) -> None:
    assert troubles(roots) == ["No worker runs", "No dispatcher runs"]
    assert tiles(roots)["Queue"].one("b").text == "unknown"


def test_mails_that_wait_are_tried_again_and_were_given_up_are_told_apart(
    roots: Client, alice: User, healthy: None
) -> None:
    step = held(StepKind.NOTIFY, alice)
    assert tiles(roots)["Mails waiting"].one("b").text == "1"
    assert troubles(roots) == []
    lifecycle.fail_step(step, ExportError("The mail server did not take the mail."))
    assert troubles(roots) == ["1 mail could not be sent so far"]
    assert rows_at(roots, tiles(roots)["Mails waiting"]) == 1
    Step.objects.filter(pk=step.pk).update(not_before=lifecycle.now())
    lifecycle.fail_step(take(), ExportError("No such person.", permanent=True))
    tile = tiles(roots)["Mails waiting"]
    assert tile.one("b").text == "0"
    assert "0 tried again, 1 given up in 7 days" in tile.text
    assert rows_at(roots, tile) == 1
    assert troubles(roots) == []


def test_room_and_files_are_those_of_the_store(
    roots: Client, alice: User, healthy: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_state(alice, ExportState.READY)
    Export.objects.update(file_bytes=3 << 30)
    monkeypatch.setattr(type(storage.store()), "free", lambda self: 5 << 30)
    tile = tiles(roots)["Room for files"]
    assert tile.one("b").text == "5.0 GB"
    assert "1 file, 3.0 GB" in tile.text
    settings.MIN_FREE_MB = 6_000
    assert troubles(roots) == ["The store has 5.0 GB left: nothing more is written"]
    monkeypatch.setattr(type(storage.store()), "free", lambda self: None)
    assert tiles(roots)["Files"].one("b").text == "3.0 GB"


def test_store_that_does_not_answer_costs_the_page_nothing_else(
    roots: Client, healthy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> int:
        raise ExportError("The file store refused the export desk.")

    monkeypatch.setattr(type(storage.store()), "free", refuse)
    assert troubles(roots) == ["Store: The file store refused the export desk."]


# --- what ended -------------------------------------------------------------------------------------------------------


def test_hours_hold_what_ended_in_them(roots: Client, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime.fromisoformat("2026-03-29 14:20:00+00:00")
    ended = {
        "2026-03-29 14:05": (ExportState.READY, 10), "2026-03-29 14:00": (ExportState.EXPIRED, 5),
        "2026-03-29 13:59": (ExportState.FAILED, None), "2026-03-28 15:00": (ExportState.READY, 100),
        "2026-03-28 14:59": (ExportState.READY, 1_000), "2026-03-29 02:30": (ExportState.CANCELLED, None),
    }  # fmt: skip
    for when, (state, rows) in ended.items():
        export = in_state(alice, state)
        Export.objects.filter(pk=export.pk).update(finished_at=f"{when}:00+00:00", file_rows=rows, tidied=rows == 10)
    monkeypatch.setattr(monitor, "now", lambda: at)
    hours = {hour.label: hour for hour in monitor.ended_by_hour(at)}
    assert len(hours) == 24
    assert [*hours][:: len(hours) - 1] == ["15:00", "14:00"]
    assert (hours["14:00"].ready, hours["14:00"].rows) == (2, 15)
    assert (hours["13:00"].ready, hours["13:00"].failed) == (0, 1)
    assert (hours["15:00"].ready, hours["15:00"].rows) == (1, 100)
    assert hours["02:00"].cancelled == 1
    assert sum(hour.ready for hour in hours.values()) == 3, "what ended before is not among them"
    told = seen(roots).one("details", id="by-hour").all("tr")
    assert [row.text for row in told if row.text.startswith("29 Mar 14:00")] == ["29 Mar 14:00 2 0 0 15"]
    [row] = [row for row in told if row.text.startswith("29 Mar 14:00")]
    assert rows_at(roots, row) == 2
    bars = seen(roots).all("svg", preserveaspectratio="none")[0].all("rect")
    assert [bar.one("title").text for bar in bars][-1] == "14:00 UTC: 2 ready, 0 failed"


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0, 1), (1, 1), (2, 2), (3, 5), (6, 10), (10, 10), (11, 20), (999, 1000), (2_000_001, 5_000_000)],
)
def test_charts_end_at_a_round_number_above_their_highest_bar(highest: int, top: int) -> None:
    assert monitor.round_above([0, highest]) == top
    assert monitor.round_above([]) == 1


def test_bars_stay_inside_their_chart_and_small_ones_are_seen() -> None:
    at = datetime.fromisoformat("2026-03-29 14:00:00+00:00")
    hours = [monitor.Hour(at, ready=990, failed=10, rows=1), monitor.Hour(at, ready=1_000, failed=1, rows=10**9)]
    for chart in (monitor.exports_chart(hours), monitor.rows_chart(hours)):
        assert chart.bars
        for bar in chart.bars:
            assert bar.height >= 1
            assert 0 <= bar.y <= bar.y + bar.height <= monitor.SCALE


def test_reasons_come_with_the_most_frequent_first_and_lead_to_their_exports(roots: Client, alice: User) -> None:
    ages = {"It is <gone> & away": 2, "Too many rows, 100 %": 3, "Long ago": 1}
    for reason, count in ages.items():
        for _ in range(count):
            export = in_state(alice, ExportState.FAILED)
            Export.objects.filter(pk=export.pk).update(error=reason)
    Export.objects.filter(error="Long ago").update(finished_at=lifecycle.now() - timedelta(days=8))
    [panel] = [one for one in seen(roots).all("section") if one.text.startswith("Why exports failed")]
    lines = panel.one("tbody").all("tr")
    assert [line.one("a").text for line in lines] == ["Too many rows, 100 %", "It is <gone> & away"]
    assert [rows_at(roots, line) for line in lines] == [3, 2]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_slowest_dataset_comes_first_with_its_speed(roots: Client, alice: User) -> None:
    for dataset, rows, seconds in (("orders", 1_000, 10), ("products", 90, 3)):
        step = held(StepKind.CHUNK, alice, dataset=dataset)
        lifecycle.finish_chunk(step, piece(rows))
        Step.objects.filter(pk=step.pk).update(started_at=lifecycle.now() - timedelta(seconds=seconds))
        finished = Step.objects.get(pk=step.pk).started_at
        assert finished
        Step.objects.filter(pk=step.pk).update(finished_at=finished + timedelta(seconds=seconds))
        take()
    assert table(roots, "Slowest datasets") == ["products 30 90 1", "orders 100 1,000 1"]


def test_source_is_what_its_last_reading_was(roots: Client, alice: User, healthy: None) -> None:
    assert table(roots, "Source databases") == ["shop not read for 24 h — —"]
    step = held(StepKind.CHUNK, alice)
    assert table(roots, "Source databases") == ["shop reachable 0 s ago —"]
    lifecycle.fail_step(step, ExportError("The database did not answer.", detail="(2003, 'db7')"))
    Step.objects.filter(kind=StepKind.PLAN).update(finished_at=lifecycle.now() - timedelta(seconds=30))
    assert table(roots, "Source databases") == [
        "shop not reachable 30 s ago 0 s ago",
        "The database did not answer.",
    ]
    assert troubles(roots) == ["Source shop: The database did not answer."]
    [panel] = [one for one in seen(roots).all("section") if one.text.startswith("Source databases")]
    assert rows_at(roots, panel.one("tbody").all("tr")[0]) == 1
    Step.objects.filter(pk=step.pk).update(not_before=lifecycle.now())
    finish(take())
    Event.objects.all()._raw_delete("default")
    Step.objects.filter(pk=step.pk).update(finished_at=lifecycle.now() + timedelta(seconds=1))
    assert troubles(roots) == []


def test_no_source_is_asked(
    roots: Client, alice: User, healthy: None, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    ask(alice)
    monkeypatch.setenv("SOURCE_SHOP_URL", "mysql://nobody:nothing@192.0.2.1:1/nowhere")
    settings.BROKER_URL = "amqp://nobody:nothing@192.0.2.1:1/nowhere"
    assert seen(roots).all("section")


# --- the page ---------------------------------------------------------------------------------------------------------


def test_long_history_costs_no_more_queries_than_a_short_one(roots: Client, alice: User, healthy: None) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            assert roots.get("/admin/").status_code == 200
        return len(captured)

    many(alice, 10)
    roots.get("/admin/")
    few = queries()
    assert few <= 20
    many(alice, 10_000)
    assert queries() == few


def test_figures_are_kept_for_some_seconds(roots: Client, alice: User, healthy: None) -> None:
    roots.get("/admin/", headers={"X-Part": "monitor"})
    ask(alice)
    with CaptureQueriesContext(connection) as captured:
        roots.get("/admin/", headers={"X-Part": "monitor"})
    assert not any("exportapp_" in query["sql"] for query in captured)


def test_page_holds_the_monitor_nothing_inline_and_refreshes_without_scripts_too(roots: Client, alice: User) -> None:
    many(alice, 50)
    html = roots.get("/admin/").content.decode()
    page = read(html)
    assert page.one("div", id="monitor").text
    assert page.one("noscript").one("meta").attributes == {"http-equiv": "refresh", "content": "10"}
    assert all(script.attributes.get("src") for script in page.all("script"))
    assert not page.all("style")
    assert not [one for one in page.walk() if "style" in one.attributes]
    assert not [one for one in page.walk() for name in one.attributes if name.startswith("on")]
    part = roots.get("/admin/", headers={"X-Part": "monitor"})
    assert "<html" not in part.content.decode()
    assert "no-store" in part["Cache-Control"]


def test_hostile_words_are_text(roots: Client, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED)
    Export.objects.filter(pk=export.pk).update(error="<script>alert(1)</script>")
    old("worker <script>alert(1)</script>", 0, broker="<script>alert(1)</script>")
    html = roots.get("/admin/").content.decode()
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_figures_are_for_who_may_see_all_lists_behind_them(person: Callable[..., User], healthy: None) -> None:
    made = person("watcher", is_staff=True)
    watching = Permission.objects.filter(codename__in=["view_export", "view_step", "view_event", "view_process"])
    made.user_permissions.set(watching.exclude(codename="view_step"))
    assert 'id="monitor"' not in browser(made).get("/admin/").content.decode()
    made.user_permissions.set(watching)
    assert 'id="monitor"' in browser(made).get("/admin/").content.decode()
