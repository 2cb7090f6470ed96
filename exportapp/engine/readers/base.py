"""What a reader is: the only part that talks to a source. It plans, streams raw rows, and can be killed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from exportapp.engine.errors import ExportError
from exportapp.engine.runs import Run
from exportapp.engine.specs import Column, KeyRange, Plan, Query, Row

COUNT_LIMIT = 200_000  # rows that planning counts exactly; beyond, the estimate is the server's own

Days = tuple[tuple[str, int], ...]

_DAY = re.compile(r"(?!0000)[0-9]{4}-(?!00)[0-9]{2}-(?!00)[0-9]{2}")


class TooSlow(ExportError):
    """A statement was given up because it took longer than it may."""


@dataclass(frozen=True)
class Histogram:
    """About how many rows there are (`exact` when counted, None when not even that is known), and how many of each day.

    Days are those of the times as the source stores them. `days` is None where it would not be cheap to count them.
    """

    rows: int | None
    exact: bool
    oldest: str = ""
    newest: str = ""
    days: Days | None = None


def days_of(counted: Iterable[tuple[bytes | None, bytes | int]]) -> Days:
    """The days among what was counted, in order: neither NULL nor 0000-00-00 is one."""
    texts = ((day.decode(errors="replace"), int(count)) for day, count in counted if day is not None)
    return tuple(sorted(pair for pair in texts if _DAY.fullmatch(pair[0])))


class Reader(Protocol):
    """One connection to a source, used by one thread; only `kill` may be called from another."""

    def __init__(self, url: str) -> None: ...

    def plan(self, query: Query, rows_per_chunk: int, comment: str) -> Plan:
        """Cuts the query's rows into coarse key ranges. Raises ExportError."""

    def stream(self, query: Query, key_range: KeyRange, comment: str, runs: Sequence[Run] = ()) -> Iterator[list[Row]]:
        """Batches of raw rows in key order, with the values of `query.read`. Raises ExportError.

        Those of each of `runs` come as one value; only columns that `typed` calls bare may be in one.

        A batch is bounded in rows and, where the source tells how wide its columns may be, in bytes. Left half-way, it
        ends the connection: what remains is never read.
        """

    def histogram(self, query: Query, column: Column | None, seconds: float, comment: str) -> Histogram:
        """What can be told of the query's rows cheaply, with `column` as their time. Raises ExportError.

        Rows are counted by an index of the column alone, or where there are few; each statement is given up after
        `seconds`, or sooner.
        """

    def only_first(self, rows: int, seconds: float) -> None:
        """From now on `stream` gives at most so many rows, and raises TooSlow when they are not there in time."""

    def can_resume(self, query: Query) -> bool:
        """Whether the rows behind any row's key are exactly those that come after it. Raises ExportError."""

    def typed(self, query: Query) -> tuple[Column, ...]:
        """The query's columns with the types that the source really has. Raises ExportError."""

    def kill(self) -> None:
        """Ends the running query, on the server too; `stream` then raises. Safe from any thread, at any time."""

    def close(self) -> None:
        """Closes the connection without reading what is left of a result."""

    @staticmethod
    def end_queries(url: str, orphan: Callable[[str], bool]) -> int:
        """Ends the running queries of this source's user whose comment is an `orphan`. Returns how many.

        Raises ExportError.
        """
