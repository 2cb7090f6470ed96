"""Looks at a desk's steps from aside, for how long things take; the verdict does not depend on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import MySQLdb

from tests.faults.campaign_faults import Fault
from tests.oracles.server import mysql
from tests.services import MariaDB

LOOK = 0.3  # seconds between two looks at what runs

RUNNING = "SELECT id, worker FROM exportapp_step WHERE state = 'running'"
DUE = "SELECT COUNT(*) FROM exportapp_step WHERE state = 'waiting' AND not_before < NOW(6)"
ENDS = "SELECT id, UNIX_TIMESTAMP(finished_at) FROM exportapp_step WHERE finished_at IS NOT NULL"
CANCELS = "SELECT id, UNIX_TIMESTAMP(finished_at) FROM exportapp_export WHERE state = 'cancelled'"
READ = """SELECT REGEXP_SUBSTR(info, '(?<=export=)[0-9a-f-]+') FROM information_schema.processlist
    WHERE info LIKE '/* exportapp %'"""


class Watch:
    """Looks at the steps from aside. `idle` is the longest time that work was due and none was under way."""

    def __init__(self, app: MariaDB, database: str, source: str) -> None:
        self.idle = 0.0
        self._url, self._source = app.url(database), source
        self._read: dict[str, float] = {}  # when an export was last seen being read at the source
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
            with suppress(MySQLdb.Error), mysql(self._source) as cursor:
                cursor.execute(READ)
                self._read.update((export, time.time()) for [export] in cursor.fetchall())

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
        # What had ended before was seen running a moment too long.
        return max((ends[step] - at for at, step in self._hits if step in ends), default=0.0)

    def cancelling(self) -> float:
        """The longest time from a cancel to the end of the last query of that export at the source."""
        print("DBG", list(self._read.items())[:3], list(self._times(CANCELS).items())[:3], len(self._read))
        return max(
            (self._read[export] - at for export, at in self._times(CANCELS).items() if export in self._read),
            default=0.0,
        )

    def _times(self, query: str) -> dict[Any, float]:
        with mysql(self._url) as cursor:
            cursor.execute(query)
            return {one: float(at) for one, at in cursor.fetchall()}


def _struck(fault: Fault, worker: str) -> bool:
    return not fault.pids or _pid(worker) in fault.pids


def _pid(worker: str) -> int:
    return int(worker.rpartition(":")[2] or 0)
