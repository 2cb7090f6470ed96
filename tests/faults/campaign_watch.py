"""Looks at a desk's steps from aside, for how long things take; the verdict does not depend on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import MySQLdb

from tests.faults.campaign_faults import Fault
from tests.oracles.server import mysql
from tests.services import MariaDB

ESTABLISHED = "01"
LOOK, TRACE = 0.3, 1.0  # seconds between two looks at what runs, and at what exports have left where

RUNNING = "SELECT id, worker FROM exportapp_step WHERE state = 'running'"
DUE = "SELECT COUNT(*) FROM exportapp_step WHERE state = 'waiting' AND not_before < NOW(6)"
ENDS = "SELECT id, UNIX_TIMESTAMP(finished_at) FROM exportapp_step WHERE finished_at IS NOT NULL"
CANCELS = "SELECT id, UNIX_TIMESTAMP(finished_at) FROM exportapp_export WHERE state = 'cancelled'"
READ = """SELECT REGEXP_SUBSTR(info, '(?<=export=)[0-9a-f-]+') FROM information_schema.processlist
    WHERE info LIKE '/* exportapp %'"""
SERVED = "SELECT id, host, command, time, info FROM information_schema.processlist WHERE user = 'app'"


class Watch:
    """Looks at the steps from aside. `idle` is the longest time that work was due and none was under way.

    `stored` gives the names of all that lies in the store; it is called by the helper, because it may take long.
    """

    def __init__(
        self, app: MariaDB, database: str, source: str, stored: Callable[[], Sequence[str]], helper: Executor
    ) -> None:
        self.idle = 0.0
        self._url, self._source, self._stored, self._helper = app.url(database), source, stored, helper
        self._traces: dict[str, float] = {}  # when an export was last seen at the source or in the store
        self._tracing: Future[None] | None = None
        self._traced = 0.0
        self._hits: list[tuple[float, int]] = []  # when a fault struck, and a step that ran there
        self._running: list[tuple[int, str]] = []
        self._seen = 0
        self._looked = 0.0
        self._idle_since: float | None = None

    def tend(self, faults: Sequence[Fault]) -> None:
        for fault in faults[self._seen :]:
            self._hits += [(fault.at, step) for step, worker in self._running if _struck(fault, worker)]
        self._seen = len(faults)
        if time.monotonic() > self._looked + LOOK:
            self._looked = time.monotonic()
            with suppress(MySQLdb.Error), mysql(self._url) as cursor:  # the server may be down
                self._look(cursor)
        if time.monotonic() > self._traced + TRACE and self._has_traced():
            self._traced = time.monotonic()
            self._tracing = self._helper.submit(self._trace)

    def _has_traced(self) -> bool:
        return self._tracing is None or (self._tracing.done() and self._tracing.result() is None)  # or raises why not

    def _trace(self) -> None:
        at = time.time()
        seen = {name.partition("/")[0] for name in self._stored()}
        with suppress(MySQLdb.Error), mysql(self._source) as cursor:
            cursor.execute(READ)
            seen |= {export for [export] in cursor.fetchall()}
        self._traces.update(dict.fromkeys(seen, at))

    def working(self) -> list[int]:
        """The processes that ran a step when last looked."""
        return [_pid(worker) for _, worker in self._running]

    def _look(self, cursor: Any) -> None:
        cursor.execute(RUNNING)
        self._running = list(cursor.fetchall())
        cursor.execute(DUE)
        [[due]] = cursor.fetchall()
        if not due or self._running:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        else:
            self.idle = max(self.idle, time.monotonic() - self._idle_since)

    def recovery(self) -> float:
        """The longest time from a fault to the end of a step that ran where it struck."""
        ends = self._times(ENDS)
        # What had ended before the fault was seen running a moment too long.
        return max([0.0, *(ends[step] - at for at, step in self._hits if step in ends)])

    def cancelling(self) -> float:
        """The longest time from a cancel to the last that was seen of that export at the source or in the store."""
        return max([0.0, *(self._traces.get(export, 0.0) - at for export, at in self._times(CANCELS).items())])

    def _times(self, query: str) -> dict[Any, float]:
        with mysql(self._url) as cursor:
            cursor.execute(query)
            return {one: float(at) for one, at in cursor.fetchall()}


def _struck(fault: Fault, worker: str) -> bool:
    return not fault.pids or _pid(worker) in fault.pids


def _pid(worker: str) -> int:
    return int(worker.rpartition(":")[2] or 0)


# --- connections -----------------------------------------------------------------------------------------------------


def served(server: MariaDB) -> list[str]:
    """The connections of the desk's user that a server has."""
    return server.sql(SERVED).splitlines()


def held(port: int) -> set[int]:
    """The near ends of all open connections to a port of this machine, as the kernel lists them."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    ends = (line[1:4] for line in lines)
    return {_port(near) for near, far, state in ends if _port(far) == port and state == ESTABLISHED}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
