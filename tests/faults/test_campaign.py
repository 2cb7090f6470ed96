"""A short campaign: whatever dies, nothing that was accepted is lost, doubled, damaged, or left behind."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import MySQLdb
import pytest

from tests.faults import campaign_record
from tests.faults.campaign import Plan, report, run
from tests.faults.campaign_faults import Chaos, Supervisor, parent_of
from tests.faults.campaign_watch import Watch, held, served
from tests.faults.proxy import Proxy
from tests.oracles.deliveries import FEW
from tests.oracles.server import mysql
from tests.services import MariaDB, Processes, free_port, wait_until
from tests.services.base import session_members

SEED = int(os.environ.get("EXPORTAPP_SEED", "1"))


@pytest.mark.timeout(600)
def test_faults_at_random_moments_lose_double_damage_and_leave_nothing(pytestconfig: pytest.Config) -> None:
    outcome = run(Plan(seed=SEED, seconds=120, rows=60_000, pause=2.0, fault_pause=1.5))
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():  # type: ignore[union-attr]
        print(f"\n{outcome.line}")
    report(outcome)
    verdict = outcome.verdict
    assert (verdict.lost, verdict.doubled, verdict.bad, verdict.orphans) == ([], [], [], [])
    # It was no idle run: each kind of fault struck, while people asked and got what they asked for.
    assert verdict.exports > 10
    assert all(outcome.faults[kind] for kind in ("kills", "freezes", "restarts", "cuts", "mail"))
    assert 2 * verdict.ready > verdict.exports - verdict.cancelled
    assert len(verdict.failed) <= FEW


def test_the_last_lines_stand_in_the_docs_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "faults.md"
    page.write_text(campaign_record.PAGE.read_text().partition(campaign_record.HEAD)[0] + campaign_record.HEAD)
    monkeypatch.setattr(campaign_record, "PAGE", page)
    for seed in range(campaign_record.KEPT + 3):
        campaign_record.write(f"seed={seed}", 600, "local")
    rows = page.read_text().partition(campaign_record.HEAD)[2].splitlines()
    assert len(rows) == campaign_record.KEPT
    assert rows[0].endswith(f"| 10 min | local | `seed={campaign_record.KEPT + 2}` |")


# --- what freezes ----------------------------------------------------------------------------------------------------


def test_processes_of_each_kind_freeze_and_go_on() -> None:
    with Processes({}, "/") as processes, Proxy(free_port()) as proxy:
        starters = {name: _starter(processes, name) for name in ("web", "dispatcher-1", "worker-1", "worker-2")}
        desk: Any = SimpleNamespace(processes=processes)
        supervisor = Supervisor(desk, starters)
        supervisor.start()
        nobody: Any = SimpleNamespace()
        chaos = Chaos(1, 0.01, 1, supervisor, {"source": proxy}, {}, nobody, nobody, list)
        seen: set[str] = set()

        def all_frozen() -> bool:
            supervisor.tend()
            chaos.tend()
            seen.update(_frozen(supervisor))
            return seen == {"worker's child", "worker", "dispatcher", "web's child"}

        wait_until(all_frozen, 60, "each kind to freeze")
        assert chaos.counts["freezes"] >= 4
        chaos.heal()
        assert not _frozen(supervisor)


def test_a_process_that_comes_or_goes_while_they_are_counted_is_no_orphan() -> None:
    with Processes({}, "/") as processes:
        desk: Any = SimpleNamespace(processes=processes)
        forking = ["/bin/sh", "-c", "while :; do sleep 0.02; done"]
        supervisor = Supervisor(desk, {"worker": lambda: processes.start("worker", forking) and None})
        supervisor.start()
        assert [supervisor.unowned() for _ in range(200)] == [[]] * 200
        strange = processes.start("strange", ["/bin/sleep", "60"])
        assert supervisor.unowned() == [strange.pid]


def _starter(processes: Processes, name: str) -> Callable[[], None]:
    return lambda: processes.start(name, ["/bin/sh", "-c", "sleep 100 & wait"]) and None


def _frozen(supervisor: Supervisor) -> set[str]:
    mains = {supervisor.pid(name): name.partition("-")[0] for name in supervisor.names}
    children = {
        child: f"{mains[main]}'s child" for main in mains for child in session_members(main) if parent_of(child) == main
    }
    return {kind for pid, kind in (mains | children).items() if _state(pid) == "T"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return ""


# --- how long a cancel takes -----------------------------------------------------------------------------------------

CANCELLED, READY = "0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"


@pytest.fixture
def watched(mariadb: MariaDB) -> Iterator[str]:
    """A database of which the first export was cancelled 100 seconds ago; a source as well."""
    mariadb.create_database("watched")
    ago = "UTC_TIMESTAMP(6) - INTERVAL 100 SECOND"
    rows = f"('{CANCELLED}', 'cancelled', {ago}), ('{READY}', 'ready', {ago})"
    mariadb.sql("CREATE TABLE exportapp_export (id UUID, state VARCHAR(9), finished_at DATETIME(6));"
                f"INSERT INTO exportapp_export VALUES {rows}", "watched")  # fmt: skip
    yield "watched"
    mariadb.sql("DROP DATABASE watched")


def slowest_cancel(mariadb: MariaDB, database: str, *stored: str) -> float:
    with ThreadPoolExecutor(1) as helper:
        watch = Watch(mariadb, database, mariadb.url(database), lambda: stored, helper)
        watch.tend([])
    return watch.cancelling()


@pytest.mark.parametrize("name", ["pieces/0-1-1", "1/file.csv", "1/file.csv (an open upload)"])
def test_a_cancel_lasts_until_its_last_file_is_gone(mariadb: MariaDB, watched: str, name: str) -> None:
    assert slowest_cancel(mariadb, watched, f"{READY}/{name}") == 0
    assert 100 <= slowest_cancel(mariadb, watched, f"{CANCELLED}/{name}") < 130


def test_a_cancel_lasts_until_its_last_query_is_gone(mariadb: MariaDB, watched: str) -> None:
    with reading(mariadb, watched, READY):
        assert slowest_cancel(mariadb, watched) == 0
    with reading(mariadb, watched, CANCELLED):
        assert 100 <= slowest_cancel(mariadb, watched) < 130
    assert slowest_cancel(mariadb, watched) == 0


@contextmanager
def reading(mariadb: MariaDB, database: str, export: str) -> Iterator[None]:
    """A query of an export is at the source meanwhile."""

    def read() -> None:
        with suppress(MySQLdb.Error), mysql(mariadb.url(database)) as cursor:
            cursor.execute(f"/* exportapp export={export} step=1 fence=1 */ SELECT SLEEP(60)")

    reader = threading.Thread(target=read)
    reader.start()
    query = "SELECT id FROM information_schema.processlist WHERE info LIKE '/* exportapp %'"
    number = wait_until(lambda: mariadb.sql(query).strip(), 10, "the query")
    try:
        yield
    finally:
        mariadb.sql(f"KILL {number}")
        reader.join()


def test_a_store_that_is_slow_holds_up_nobody(mariadb: MariaDB, watched: str) -> None:
    listed = threading.Event()
    with ThreadPoolExecutor(1) as helper:
        watch = Watch(mariadb, watched, mariadb.url(watched), lambda: [str(listed.wait(60))], helper)
        began = time.monotonic()
        watch.tend([])
        assert time.monotonic() - began < 5
        listed.set()


# --- connections that nobody needs -----------------------------------------------------------------------------------


def test_a_connection_that_a_server_has_is_seen() -> None:
    with MariaDB() as server:
        assert served(server) == []
        with mysql(server.url("mysql")):
            assert len(served(server)) == 1
        wait_until(lambda: not served(server), 10, "the end of the connection")


def test_a_connection_that_a_process_keeps_is_seen_until_it_closes_it() -> None:
    with MariaDB() as server, Proxy(server.port) as proxy:
        with mysql(proxy.through(server.url("mysql"))):
            [port] = held(proxy.port)
            assert proxy.hush(random.Random(1), 1) == 1
            assert held(proxy.port) == {port}
        # The server does not hear of it, but that is not the process's fault.
        assert held(proxy.port) == set()
        assert len(served(server)) == 1
