"""A deploy costs nothing but time: workers are restarted again and again under one export, and the pages under people
who click all the while. Processes are started as docs/operating.md says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.journeys.desk import BIN, ROOT, Desk
from tests.journeys.visitor import Visitor
from tests.services import MariaDB, RabbitMQ, wait_until

ROWS = 600_000
RESTARTS = 20

# A row takes as long to read as `pace` says, so that the export lasts as long as the deploys.
DATASETS = """
[sources.shop]
[datasets.notes]
source = "shop"
view = "slow_notes"
key = ["id"]
columns = [{ name = "id", type = "integer" }, { name = "note" }, { name = "nap", type = "integer" }]
"""
TABLES = f"""
CREATE TABLE notes (id INT PRIMARY KEY, note VARCHAR(50));
INSERT INTO notes SELECT seq * 3, CONCAT('note "', seq, '"') FROM seq_1_to_{ROWS};
CREATE TABLE pace (seconds DOUBLE); INSERT INTO pace VALUES (0.0002);
CREATE VIEW slow_notes AS SELECT id, note, SLEEP((SELECT seconds FROM pace)) AS nap FROM notes;
"""
CSV_BY_SQL = """SELECT CONCAT(id, ',"', REPLACE(note, '"', '""'), '",0', '\\r') FROM notes ORDER BY id"""

ENDED = "SELECT state FROM exportapp_export WHERE state NOT IN ('queued', 'running')"
DONE = "SELECT COUNT(*) FROM exportapp_step WHERE kind = 'chunk' AND state = 'done'"


def as_documented(service: str) -> list[str]:
    """The command line that operators are given."""
    page = (ROOT / "docs/operating.md").read_text()
    [line] = re.findall(rf"^ExecStart=/opt/exportapp/.venv/bin/({service} .*)$", page, re.MULTILINE)
    program, *options = shlex.split(line)
    return [str(BIN / program), *options]


# --- workers -----------------------------------------------------------------------------------------------------------


def start_workers(desk: Desk, *names: str) -> None:
    for name in names:
        desk.processes.start(name, [*as_documented("celery"), "--concurrency", "1", "-n", f"{name}@%h"])
    for name in names:
        wait_until(lambda name=name: "ready." in desk.processes.log(name), 30, name)  # type: ignore[misc]


def test_rolling_restarts_of_all_workers_cost_an_export_nothing_but_time(mariadb: MariaDB, rabbitmq: RabbitMQ) -> None:
    with Desk(mariadb, rabbitmq, DATASETS, {"EXPORTAPP_CHUNK_ROWS": "100000", "EXPORTAPP_CHUNK_SECONDS": "6"}) as desk:
        mariadb.sql(TABLES, desk.source)
        desk.manage("migrate", "-v0")
        desk.add_user("alice")
        export = desk.request("notes", "alice")
        desk.start_dispatcher()
        old = ["a", "b"]
        start_workers(desk, *old)
        for number in range(RESTARTS // 2):
            new = [f"a{number}", f"b{number}"]
            start_workers(desk, *new)
            for name in old:
                desk.processes.term(name)
            wait_until(lambda old=old: all(map(desk.processes.ended, old)), 30, f"the end of {old}")  # type: ignore[misc]
            old = new
        assert not desk.ask(ENDED), "the export was to last as long as the deploys"
        assert int(desk.ask(DONE)[0][0]) > RESTARTS // 2
        mariadb.sql("UPDATE pace SET seconds = 0", desk.source)

        assert wait_until(lambda: desk.ask(ENDED), 90, "the end of the export") == [["ready"]]
        expected = '"Id","Note","Nap"\r\n' + mariadb.sql(CSV_BY_SQL, desk.source)
        assert desk.file(export) == expected.encode()
        assert desk.ask("SELECT MAX(attempts), MAX(crashes) FROM exportapp_step") == [["1", "0"]]
        assert desk.ask("SELECT COUNT(*) FROM exportapp_event WHERE kind IN ('retry', 'taken back')") == [["0"]]


# --- pages -------------------------------------------------------------------------------------------------------------


class Clicks:
    """What people met who clicked all the while."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self.errors: list[str] = []
        self._ending = threading.Event()

    @contextmanager
    def by(self, *people: Callable[[], int]) -> Iterator[None]:
        """Each of them clicks in a thread of their own until the block ends."""
        threads = [threading.Thread(target=self._go_on, args=(click,)) for click in people]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _go_on(self, click: Callable[[], int]) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                status = click()
            except Exception as error:
                self.errors.append(repr(error))
                time.sleep(0.1)
            else:
                self.count += 1
                self.longest = max(self.longest, time.monotonic() - began)
                if status != 200:
                    self.errors.append(f"status {status}")


def reload_in_place(desk: Desk, master: int) -> int:
    """What `systemctl reload` does: new children, then the old ones end."""
    said = desk.processes.log("web")
    os.kill(master, signal.SIGHUP)

    def changed() -> bool:
        news = desk.processes.log("web")[len(said) :]
        return news.count("Booting worker") >= 2 and news.count("Worker exiting") >= 2

    wait_until(changed, 30, "new children")
    return master


def begin_another(desk: Desk, master: int) -> int:
    """A second gunicorn on the same socket, then SIGTERM to the first."""
    said = desk.processes.log("web")

    def news() -> str:
        return desk.processes.log("web")[len(said) :]

    os.kill(master, signal.SIGUSR2)
    wait_until(lambda: news().count("Booting worker") >= 2, 30, "another gunicorn")
    os.kill(master, signal.SIGTERM)
    wait_until(lambda: "Master has been promoted" in news(), 40, "the end of the old one")
    [after] = re.findall(r"\[(\d+)\] \[INFO\] Starting gunicorn", news())
    return int(after)


@pytest.mark.parametrize("restart", [reload_in_place, begin_another])
def test_restart_of_the_pages_drops_no_request(
    mariadb: MariaDB, rabbitmq: RabbitMQ, restart: Callable[[Desk, int], int]
) -> None:
    with Desk(mariadb, rabbitmq, DATASETS) as desk:
        mariadb.sql("CREATE TABLE slow_notes (id INT PRIMARY KEY, note TEXT, nap INT)", desk.source)
        desk.manage("migrate", "-v0")
        desk.add_user("alice")
        command = as_documented("gunicorn")
        command[command.index("--bind") + 1] = f"127.0.0.1:{desk.port}"
        master = desk.processes.start("web", command).pid
        wait_until(lambda: desk.processes.log("web").count("Booting worker") >= 2, 30, "gunicorn")
        alice = Visitor(desk.address)
        alice.sign_in("alice", "alice-password")
        asked: list[str] = []

        def ask() -> int:
            asked.append(alice.ask("notes"))
            time.sleep(0.2)  # for the others, not for the pages
            return 200

        def look() -> int:
            with urllib.request.urlopen(f"{desk.address}/readyz", timeout=30) as answer:
                return int(answer.status)

        clicks = Clicks()
        with clicks.by(ask, look, look):
            for _ in range(5):
                clicked = clicks.count
                master = restart(desk, master)
                # New children load the app for a second or two, in which requests wait for them.
                wait_until(lambda clicked=clicked: clicks.count > clicked + 20, 30, "answers")  # type: ignore[misc]
        told = f"{clicks.count} requests, {len(asked)} of them exports, the longest {clicks.longest:.1f} s"
        print(f"5 restarts: {told}")
        assert clicks.errors[:5] == []
        assert clicks.count > 100
        assert desk.ask("SELECT COUNT(*) FROM exportapp_export") == [[str(len(asked))]]
