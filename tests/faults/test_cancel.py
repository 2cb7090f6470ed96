"""Cancel means that it is over: the query ends on the server that is in the midst of it, nothing stays in the store, and
the history says who cancelled and when. The waits are generous here; the campaign measures how long it takes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.faults.breakable import BreakableDesk, objects_in, s3_env
from tests.journeys.visitor import Visitor
from tests.pages import changed
from tests.services import MailServer, MariaDB, Moto, RabbitMQ, free_port, wait_until

# The first two give no row for hours: one sorts what it has grouped, and the other counts for some of its rows, which lie so
# that of three chunks the first has none, the second comes to them when its upload has begun, and the third starts there.
DATASETS = """
[sources.shop]
[datasets.sorted]
source = "shop"
query = '''SELECT x.seq * y.seq % 1000 AS letter, COUNT(*) AS n FROM seq_1_to_1000000 AS x, seq_1_to_1000000 AS y
    GROUP BY letter ORDER BY n DESC'''
columns = [{ name = "letter", type = "integer" }, { name = "n", type = "integer" }]

[datasets.counted]
source = "shop"
query = '''SELECT id, note, IF(id <= 9900, 0, (SELECT COUNT(*) FROM seq_1_to_1000000 AS x, seq_1_to_1000000 AS y
    WHERE x.seq * y.seq % 7 = id % 7)) AS n FROM notes'''
key = ["id"]
columns = [{ name = "id", type = "integer" }, { name = "note" }, { name = "n", type = "integer" }]

[datasets.few]
source = "shop"
query = "SELECT id, note FROM notes WHERE id <= 200"
key = ["id"]
columns = [{ name = "id", type = "integer" }, { name = "note" }]
"""
PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def bucket(moto: Moto) -> str:
    return moto.create_bucket(f"cancel-{free_port()}")


@pytest.fixture(scope="module")
def counting(mariadb: MariaDB, rabbitmq: RabbitMQ, moto: Moto, bucket: str) -> Iterator[BreakableDesk]:
    """A desk with what never ends; alice has a mail address and root is an operator. Each test brings its worker."""
    with MailServer() as mailserver:
        env = s3_env(moto, bucket) | {"EXPORTAPP_CHUNK_ROWS": "5000", "EXPORTAPP_MAIL_URL": mailserver.url}
        with BreakableDesk(mariadb, rabbitmq, DATASETS, env) as desk:
            desk.furnish(15_000, 4800)
            desk.add_user("root", staff=True)
            desk.start_web()
            desk.start_dispatcher()
            yield desk
            assert not mailserver.messages, "a cancelled export is mailed about"


@contextmanager
def working(desk: BreakableDesk, concurrency: int) -> Iterator[None]:
    """A worker that ends with its queries, whatever became of the test: they would go on for hours."""
    desk.start_worker(concurrency=concurrency)
    try:
        yield
    finally:
        with suppress(ValueError):  # killed already
            desk.processes.kill("worker")
        for number in queries_of(desk):
            with suppress(RuntimeError):  # ended already
                desk.mariadb.sql(f"KILL {number}")


def queries_of(desk: BreakableDesk, export: str = "") -> list[str]:
    """The connections that the source has a query of this export's in, or of anybody's."""
    running = f"SELECT id FROM information_schema.processlist WHERE info LIKE '/* exportapp export={export}%'"
    return desk.mariadb.sql(running).splitlines()


def wait_for_queries(desk: BreakableDesk, name: str, export: str, count: int) -> None:
    """Until so many chunks of an export are being read."""

    def reading() -> bool:
        running = desk.steps(name, "id", "kind = 'chunk' AND state = 'running'")
        return len(queries_of(desk, export)) == len(running) == count

    wait_until(reading, PATIENCE, "its queries", 0.2)


def visitor(desk: BreakableDesk, name: str) -> Visitor:
    browser = Visitor(desk.address)
    browser.sign_in(name, f"{name}-password")
    return browser


def cancel_as_owner(desk: BreakableDesk, export: str) -> None:
    alice, path = visitor(desk, "alice"), f"/exports/{export}/"
    forms = alice.get(path).page.one("main").all("form")
    [form] = [form for form in forms if form.attributes.get("action", "").endswith("/cancel")]
    alice.post(form.attributes["action"], form.sends())
    assert alice.state(path) == "Cancelled"


def cancel_as_operator(desk: BreakableDesk, export: str) -> None:
    """By the action of the admin, for the one export that is ticked."""
    root, path = visitor(desk, "root"), "/admin/exportapp/export/"
    form = root.get(path).page.one("form", id="changelist-form")
    answer = root.post(path, changed(form.sends(), action="cancel_exports", _selected_action=[export]))
    assert "Cancelled 1 of 1" in answer.page.text


def assert_over(desk: BreakableDesk, export: str, name: str, by: str) -> None:
    """The query is gone, no step runs or waits, and the row says who ended it and when."""
    wait_until(lambda: not queries_of(desk, export), PATIENCE, "the queries to leave the server")
    assert {state for [state] in desk.steps(name, "state")} <= {"done", "dropped"}
    assert desk.one(name, "state, finished_at IS NULL, file_name") == ["cancelled", "0", ""]
    history = desk.ask(
        "SELECT username, text, ABS(TIMESTAMPDIFF(MICROSECOND, event.at, finished_at)) < 1000000 "
        "FROM exportapp_event AS event JOIN auth_user ON auth_user.id = actor_id "
        f"JOIN exportapp_export AS export ON export.id = export_id WHERE export.name = '{name}' AND kind = 'cancelled'"
    )
    assert history == [[by, f"Cancelled by {by}", "1"]]


def assert_nothing_left(desk: BreakableDesk, moto: Moto, bucket: str, name: str, export: str) -> None:
    wait_until(lambda: desk.one(name, "tidied") == ["1"], PATIENCE, "the export to be tidied", 0.2)
    assert stored_of(moto, bucket, export) == []


def stored_of(moto: Moto, bucket: str, export: str) -> list[str]:
    """What there is of an export: objects, and then uploads that are open."""
    names = sorted(name for name in objects_in(moto, bucket) if export in name)
    return ["open upload" if name.startswith("open: ") else "object" for name in names]


def test_owners_cancel_ends_a_sort_on_the_server(counting: BreakableDesk, moto: Moto, bucket: str) -> None:
    desk, name = counting, "sorted for the owner"
    with working(desk, concurrency=1):
        export = desk.ask_for({name: "sorted"})[name]
        wait_for_queries(desk, name, export, 1)
        cancel_as_owner(desk, export)
        assert_over(desk, export, name, "alice")
        assert_nothing_left(desk, moto, bucket, name, export)


def test_operators_cancel_ends_all_chunks_and_leaves_no_piece_and_no_open_upload(
    counting: BreakableDesk, moto: Moto, bucket: str
) -> None:
    desk, name = counting, "counted for an operator"
    with working(desk, concurrency=3):
        export = desk.ask_for({name: "counted"})[name]
        begun = ["object", "open upload"]
        wait_until(lambda: stored_of(moto, bucket, export) == begun, PATIENCE, "a piece and an upload", 0.2)
        wait_for_queries(desk, name, export, 2)
        assert desk.steps(name, "state", "kind = 'chunk'") == [["done"], ["running"], ["running"]]

        cancel_as_operator(desk, export)
        assert_over(desk, export, name, "root")
        assert_nothing_left(desk, moto, bucket, name, export)


def test_cancel_ends_the_query_of_a_worker_that_was_just_killed(
    counting: BreakableDesk, moto: Moto, bucket: str
) -> None:
    """Nobody reads it any more, and a server that sorts does not look whether anybody does."""
    desk, name = counting, "sorted for the dead"
    with working(desk, concurrency=1):
        export = desk.ask_for({name: "sorted"})[name]
        wait_for_queries(desk, name, export, 1)
        desk.processes.kill("worker")
        assert queries_of(desk, export), "the server noticed by itself: this proves nothing"
        cancel_as_owner(desk, export)
        assert_over(desk, export, name, "alice")
        assert desk.events(name)["taken back"] == 0
        assert "queries at shop that nobody reads" in desk.processes.log("dispatcher")
        assert_nothing_left(desk, moto, bucket, name, export)


def test_cancel_of_what_a_frozen_worker_holds_leaves_nothing_even_when_that_goes_on(
    counting: BreakableDesk, moto: Moto, bucket: str
) -> None:
    """Of few rows, a piece is one request, which a store takes whenever it comes."""
    desk, points = counting, ("chunk claimed", "piece written without its name", "file assembled")
    exports = desk.ask_for(dict.fromkeys(points, "few"))
    desk.start_failing_worker("SIGSTOP", concurrency=len(points))
    held = set(points)
    while held:  # each before its lease is over and another worker finishes it
        name = wait_until(lambda: next(iter(held & set(desk.broken())), None), PATIENCE, f"one of {held} to be come to")
        assert name
        cancel_as_owner(desk, exports[name])
        held.remove(name)
    for name, export in exports.items():
        assert_nothing_left(desk, moto, bucket, name, export)
    told = {name: desk.events(name) for name in points}

    for process in desk.broken().values():
        os.kill(process, signal.SIGCONT)
    wait_until(lambda: desk.over() == set(points), PATIENCE, "all to be done with their steps", 0.2)
    for name, export in exports.items():
        assert desk.one(name, "state, file_name") == ["cancelled", ""]
        assert stored_of(moto, bucket, export) == []
        assert desk.events(name) == told[name]
