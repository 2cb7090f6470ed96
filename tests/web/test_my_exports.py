"""The list of a person's exports: theirs alone, newest first, with progress, and quiet once all is done."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from exportapp import lifecycle
from exportapp.models import UNFINISHED, Event, Export, ExportState, Process, Step, StepKind, StepState
from exportapp.retention import tidy
from tests.pages import Element, read
from tests.scenes import HOSTILE, ask, browser, file_of, in_state


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
    assert not page.all("form"), "there is nothing to search in"


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
    assert "21 to 40 of 45" in listed(alices, "?page=2").one(cls="pager").text
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
        ("queued", ["Cancel N", "Let it go on", "Stop it"], "Waits for a free worker"),
        ("running", ["Cancel N", "Let it go on", "Stop it"], "Counting the rows"),
        (
            "ready",
            [
                "Download N",
                "Run again",
                "Edit as new",
                "Receipt as JSON",
                "Delete the file…",
                "Keep it",
                "Delete the file",
            ],
            "1 row · 7",
        ),
        ("failed", ["Run again N", "Edit as new"], "The table is <gone>."),
        ("cancelled", ["Run again N", "Edit as new"], "Cancelled"),
        ("expired", ["Run again N", "Edit as new"], "file removed"),
    ],
)
def test_each_state_says_what_it_means_and_offers_what_can_be_done(
    alices: Client, alice: User, state: str, actions: list[str], word: str
) -> None:
    export = in_state(alice, state, name="N")
    row = listed(alices).one("tr", id=f"export-{export.pk}")
    buttons = [one for one in row.one("td", cls="acts").walk() if one.tag in ("a", "button")]
    assert [one.text for one in buttons] == actions
    assert export.get_state_display() in row.text
    assert word in row.text


def test_controls_in_what_polls_have_ids_so_that_focus_stays(alices: Client, alice: User) -> None:
    for state in ExportState.values:
        in_state(alice, state)
    region = listed(alices).one(id="exports")
    ids = [one.attributes.get("id") for one in region.walk() if one.tag in ("a", "button", "summary")]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("rows", "of", "exact", "percent", "said"),
    [
        (0, None, False, None, "Counting the rows"),
        (0, 0, True, "99", "0 of 0 rows"),
        (1_500, 6_000, True, "25", "1,500 of 6,000 rows 1"),
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


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(alice: User) -> None:
    """One export in each state, and two of other datasets."""
    for state in ExportState.values:
        in_state(alice, state, name=f"{state} orders")
    in_state(alice, ExportState.READY, name="Tea and coffee", dataset="products")
    in_state(alice, ExportState.QUEUED, name="By day", dataset="revenue")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 8),
        ("?state=under-way", ["By day", "running orders", "queued orders"]),
        ("?state=ready", ["Tea and coffee", "ready orders"]),
        ("?state=failed", ["failed orders"]),
        ("?state=nonsense", 8),
        ("?dataset=products", ["Tea and coffee"]),
        ("?dataset=gone", []),
        ("?q=COFFEE", ["Tea and coffee"]),
        ("?q=coffee+tea", ["Tea and coffee"]),
        ("?q=coffee+milk", []),
        ("?q=revenue", ["By day"]),  # the label of its dataset
        ("?q=100%25", []),
        ("?q=%00", 8),
        ("?state=ready&dataset=orders&q=ord", ["ready orders"]),
    ],
)
@pytest.mark.usefixtures("mixed")
def test_list_is_narrowed_by_state_dataset_and_words(alices: Client, query: str, found: list[str] | int) -> None:
    shown = names(listed(alices, query))
    assert (len(shown) if isinstance(found, int) else shown) == found


@pytest.mark.usefixtures("mixed")
def test_filters_say_what_is_chosen_and_keep_the_others(alices: Client) -> None:
    page = listed(alices, "?state=ready&dataset=orders&q=ord&page=1")
    chips = page.one(id="chips").all("a")
    assert [chip.text for chip in chips] == ["All 8", "Under way 3", "Ready 2", "Failed 1"]
    assert [chip.text for chip in chips if "aria-current" in chip.attributes] == ["Ready 2"]
    assert chips[3].attributes["href"] == "/exports/?state=failed&dataset=orders&q=ord"
    assert page.one(id="narrow").sends() == [("state", "ready"), ("dataset", "orders"), ("q", "ord")]
    offered = [option.text for option in page.one(id="dataset").all("option")]
    assert offered == ["All datasets", "Orders", "Products", "Revenue"]


def test_pages_keep_the_filters(alices: Client, alice: User) -> None:
    for number in range(25):
        ask(alice, name=f"of March & April {number}")
        ask(alice, name="another")
    kept = urlencode({"state": "under-way", "q": "March &"})
    first = listed(alices, f"?{kept}")
    assert first.one(id="older").attributes["href"] == f"/exports/?{kept}&page=2"
    second = listed(alices, f"?{kept}&page=2")
    assert len(names(second)) == 5
    assert second.one(id="newer").attributes["href"] == f"/exports/?{kept}"
    assert second.one(id="exports").attributes["hx-get"] == f"/exports/?{kept}&page=2"


@pytest.mark.usefixtures("mixed")
def test_when_nothing_fits_the_page_says_so_and_leads_back(alices: Client) -> None:
    page = listed(alices, "?q=nowhere")
    assert "No export of yours fits" in page.text
    assert "You have 8 exports in all" in page.text
    assert page.one(id="all").attributes["href"] == "/exports/"
    assert page.one(id="q").attributes["value"] == "nowhere", "to be changed"


# --- polling ----------------------------------------------------------------------------------------------------------


def polled(client: Client, address: str, etag: str) -> Any:
    return client.get(address, headers={"HX-Request": "true", "If-None-Match": etag})


@pytest.fixture
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute, in which all answers are the same, does not end during a test."""
    monkeypatch.setattr("exportapp.web.progress.FRESH_SECONDS", 10.0**9)


@pytest.mark.usefixtures("_still")
@pytest.mark.parametrize("one", [False, True])
def test_poll_is_answered_with_nothing_until_something_moves(alices: Client, alice: User, one: bool) -> None:
    export = running(alice, 100, 1000)
    address = export.get_absolute_url() if one else "/exports/"
    etag = alices.get(address)["ETag"]
    for _ in range(2):
        answer = polled(alices, address, etag)
        assert (answer.status_code, answer.content, answer["ETag"]) == (204, b"", etag)
    assert alices.get(address, headers={"If-None-Match": etag}).status_code == 304
    chunks = Step.objects.filter(export=export, kind=StepKind.CHUNK)
    moves: list[Any] = [
        lambda: chunks.update(rows_done=80),
        lambda: Process.objects.all().delete() and chunks.update(state=StepState.WAITING),
        lambda: lifecycle.cancel(export, alice, "Cancelled by alice"),
    ]
    for move in moves:
        etag = alices.get(address)["ETag"]
        move()
        answer = polled(alices, address, etag)
        assert answer.status_code == 200
        assert answer["ETag"] != etag


@pytest.mark.usefixtures("_still")
def test_new_export_and_what_comes_before_one_are_news(alices: Client, alice: User, bob: User) -> None:
    ask(alice)
    for who in (alice, bob):
        etag = alices.get("/exports/")["ETag"]
        ask(who)
        assert polled(alices, "/exports/", etag).status_code == 200


def test_answer_is_made_anew_each_minute_so_that_times_are_true(
    alices: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(alice, 1, 2)
    Process.objects.update(seen_at=lifecycle.now() + timedelta(hours=1))
    etag = alices.get("/exports/")["ETag"]
    later = lifecycle.now() + timedelta(seconds=60)
    monkeypatch.setattr(lifecycle, "now", lambda: later)
    answer = polled(alices, "/exports/", etag)
    assert answer.status_code == 200
    moved = etag.partition("-")[0].strip('"')
    assert read(answer.content).one(id="exports").attributes["data-moved"] == moved, "nothing moved"


@pytest.mark.usefixtures("_still")
@pytest.mark.parametrize(("state", "most"), [(ExportState.RUNNING, 9), (ExportState.QUEUED, 11)])
def test_idle_poll_costs_few_queries_however_many_exports_there_are(
    alices: Client, alice: User, state: str, most: int
) -> None:
    for _ in range(20):
        in_state(alice, state)
    for address in ("/exports/", Export.objects.all()[0].get_absolute_url()):
        etag = alices.get(address)["ETag"]
        with CaptureQueriesContext(connection) as seen:
            assert polled(alices, address, etag).status_code == 204
        assert len(seen) <= most, [query["sql"][:90] for query in seen]


def test_somebody_elses_moves_are_no_news(alices: Client, alice: User, bob: User) -> None:
    running(alice, 1, 2)
    etag = alices.get("/exports/")["ETag"].split("-")[0]
    running(bob, 1, 2)
    assert alices.get("/exports/")["ETag"].split("-")[0] == etag


# --- speed, time left, place ------------------------------------------------------------------------------------------


def part(export: Export, rows: int, began: float, ended: float | None = None) -> None:
    """A chunk that began so many seconds ago, and runs, or ended so many seconds ago."""
    at = lifecycle.now()
    Step.objects.create(
        export=export,
        kind=StepKind.CHUNK,
        state=StepState.RUNNING if ended is None else StepState.DONE,
        rows_done=rows,
        not_before=at,
        started_at=at - timedelta(seconds=began),
        finished_at=None if ended is None else at - timedelta(seconds=ended),
        lease_until=at + timedelta(seconds=60) if ended is None else None,
    )


def how(client: Client, export: Export) -> str:
    return listed(client).one("tr", id=f"export-{export.pk}").one(cls="how").text


def slow_start(owner: User, exact: bool = True) -> Export:
    """One that has run for long."""
    export = in_state(owner, ExportState.RUNNING)
    began = lifecycle.now() - timedelta(seconds=1000)
    Export.objects.filter(pk=export.pk).update(rows_estimated=100_000, rows_exact=exact, started_at=began)
    return export


def speed(told: str) -> int:
    return int(told.partition(" rows/s")[0].rpartition(" ")[2].replace(",", ""))


def test_speed_is_that_of_the_last_moments(alices: Client, alice: User) -> None:
    export = slow_start(alice)
    part(export, 10_000, 1000, 500)  # slow, and long ago
    part(export, 30_000, 60, 0)
    assert 470 <= speed(how(alices, export)) <= 500
    part(export, 15_000, 30)  # beside it, at the same pace
    assert 940 <= speed(how(alices, export)) <= 1000


def test_export_that_stands_still_has_no_speed(alices: Client, alice: User) -> None:
    export = slow_start(alice)
    part(export, 10_000, 1000, 500)
    assert "rows/s" not in how(alices, export)
    assert "left" not in how(alices, export)


def test_time_left_is_a_range_the_wider_the_less_is_known(alices: Client, alice: User) -> None:
    def left(exact: bool) -> tuple[int, int]:
        export = slow_start(alice, exact)
        part(export, 75_000, 150)  # 500 rows a second, and 25,000 to go: 50 seconds
        low, high = how(alices, export).partition(" s left")[0].rpartition(" ")[2].split("–")
        return int(low), int(high)

    exact, about = left(True), left(False)
    assert 35 <= exact[0] <= 45
    assert 60 <= exact[1] <= 70
    assert about[0] < exact[0] < exact[1] < about[1]


def test_file_that_is_put_together_says_so(alices: Client, alice: User) -> None:
    export = slow_start(alice)
    part(export, 100_000, 60, 1)
    Step.objects.create(export=export, kind=StepKind.ASSEMBLE, state=StepState.RUNNING, not_before=lifecycle.now())
    assert "putting the file together" in how(alices, export)
    assert "left" not in how(alices, export)
    assert "value" not in listed(alices).one("progress").attributes


def test_waiting_export_tells_its_place(alices: Client, alice: User, bob: User) -> None:
    mine = [ask(alice) for _ in range(3)]
    for _ in range(2):
        ask(bob)
    # With each turn of hers bob has one as well, as long as he has any.
    assert [how(alices, export) for export in mine] == ["1 export ahead", "3 exports ahead", "4 exports ahead"]
    assert "3 exports ahead" in read(alices.get(mine[1].get_absolute_url()).content).one(id="export").text


def test_who_has_more_running_comes_after(alices: Client, alice: User, bob: User) -> None:
    export = ask(alice)
    ask(bob)
    assert how(alices, export) == "1 export ahead"
    Step.objects.filter(export=ask(bob)).update(state=StepState.RUNNING)
    assert how(alices, export) == "Waits for a free worker"


# --- what a click does ------------------------------------------------------------------------------------------------


def test_file_is_deleted_at_once_and_the_row_says_so(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, name="Secret")
    path = file_of(export)
    row = listed(alices).one("tr", id=f"export-{export.pk}")
    question = row.one(id=f"gone-{export.pk}")
    assert row.one("button", id=f"remove-{export.pk}").attributes["popovertarget"] == question.attributes["id"]
    form = question.one("form")
    page = read(alices.post(form.attributes["action"], dict(form.sends()), follow=True).content)
    assert page.one("li", cls="good").text == "The file of “Secret” was deleted."
    assert "file removed" in how(alices, export)
    assert alices.get(f"/exports/{export.pk}/download").status_code == 404
    tidy()
    assert not path.exists()


@pytest.mark.parametrize("state", [state for state in ExportState.values if state != ExportState.READY])
def test_without_a_file_there_is_nothing_to_delete(alices: Client, alice: User, state: str) -> None:
    export = in_state(alice, state, name="N")
    events = export.events.count()
    page = read(alices.post(f"/exports/{export.pk}/remove", follow=True).content)
    assert "“N” had no file to delete." in page.text
    export.refresh_from_db()
    assert (export.state, export.events.count()) == (state, events)


def test_dataset_that_is_gone_offers_neither_edit_nor_run_again(alices: Client, alice: User, desk: Path) -> None:
    for state in ExportState.values:
        in_state(alice, state)
    (desk / "datasets.toml").write_text("[sources.shop]\n")
    page = listed(alices)
    assert "Edit as new" not in page.text
    assert "Run again" not in page.text
    assert len(page.all("a", id=f"download-{Export.objects.get(state='ready').pk}")) == 1


def test_export_that_failed_is_repaired_by_one_click_in_the_list(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED, name="January")
    Export.objects.update(error="More than 10 rows: that is the most to be exported at once. Choose a shorter range.")
    form = listed(alices).one("td", cls="how").one("form")
    assert form.one("button").text == "Export it in two halves"
    for _ in range(2):  # twice is once
        sent = dict(form.sends("repair", "halves"))
        assert alices.post(form.attributes["action"], sent)["Location"] == "/exports/"
    halves = Export.objects.exclude(pk=export.pk).order_by("created_at", "name")
    assert [(half.name, half.recipe.start, half.recipe.end) for half in halves] == [
        ("January (1 of 2)", "2026-01-01", "2026-01-16"),
        ("January (2 of 2)", "2026-01-16", "2026-02-01"),
    ]
    assert {half.parent for half in halves} == {export}


def test_halves_are_both_asked_for_or_none(alices: Client, alice: User, settings: Any) -> None:
    export = in_state(alice, ExportState.FAILED)
    Export.objects.update(error="More than 10 rows. Choose a shorter range.")
    settings.EXPORTS_PER_PERSON = 1
    assert alices.post(f"/exports/{export.pk}/again", {"repair": "halves"}).status_code == 429
    assert Export.objects.count() == 1


@pytest.mark.parametrize("state", ["ready", "failed"])
def test_repair_that_is_none_is_not_there(alices: Client, alice: User, state: str) -> None:
    export = in_state(alice, state)
    assert alices.post(f"/exports/{export.pk}/again", {"repair": "halves"}).status_code == 404


def test_colleague_sees_nothing_of_anothers_exports_in_the_filters(alice: User, bob: User) -> None:
    in_state(alice, ExportState.READY, name="mine", dataset="products")
    ask(bob)
    page = listed(browser(bob))
    assert page.one(id="chips").all("a")[0].text == "All 1"
    assert not page.all(id="dataset"), "he has one dataset, and needs no choice"
