"""`manage.py quickstart`, the heart of `make run`, as a process of a test."""

from __future__ import annotations

import re
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.services import Processes, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
ORDERS = 8_000


class Quickstart:
    """One desk on the embedded default, with its data in `var`. Each `start` runs it anew on the same data."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.port = free_port()
        self.processes = Processes({"EXPORTAPP_VAR": str(var)}, ROOT)
        self._runs = 0

    def start(self, orders: int = ORDERS) -> Self:
        self.begin(orders)
        wait_until(lambda: "Ctrl-C" in self.told or self.ended, 120, "the desk")
        assert not self.ended, self.told
        return self

    def begin(self, orders: int = ORDERS) -> None:
        """Starts it without waiting for anything."""
        self._runs += 1
        self._process = self.processes.start(
            f"run {self._runs}",
            [sys.executable, "manage.py", "quickstart", "--port", str(self.port), "--orders", str(orders)],
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def told(self) -> str:
        """What the newest run printed."""
        return self.processes.log(f"run {self._runs}")

    @property
    def address(self) -> str:
        found = re.search(r"^Open +(\S+)$", self.told, re.MULTILINE)
        assert found, self.told
        return found[1]

    @property
    def passwords(self) -> dict[str, str]:
        block = self.told.partition("Users and passwords\n")[2]
        return dict(re.findall(r"^  (\w+) +(\S+)$", block, re.MULTILINE))

    @property
    def file(self) -> Path:
        found = re.search(r"^The newest finished file\n +(\S+)$", self.told, re.MULTILINE)
        assert found, self.told
        return Path(found[1])

    @property
    def worker(self) -> int:
        """The process id of dispatcher and worker."""
        [pid] = [pid for pid in self.processes.survivors() if b"work" in _arguments(pid)]
        return pid

    def rows(self, statement: str) -> list[Any]:
        """The first column of what plain SQL says of the demo shop."""
        with closing(sqlite3.connect(f"file:{self.var}/shop.sqlite3?mode=ro", uri=True)) as shop:
            return [row[0] for row in shop.execute(statement)]

    def end(self, number: signal.Signals) -> int:
        """Sends the signal to the one process that a person or a supervisor sees, and gives its exit code."""
        self._process.send_signal(number)
        return self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.processes.__exit__(kind, error, trace)


def _arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
