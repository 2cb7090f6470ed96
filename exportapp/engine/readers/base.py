"""What a reader is: the only part that talks to a source. It plans, streams raw rows, and can be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from exportapp.engine.runs import Run
from exportapp.engine.specs import Column, KeyRange, Plan, Query, Row

COUNT_LIMIT = 200_000  # rows that planning counts exactly; beyond, the estimate is the server's own


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
