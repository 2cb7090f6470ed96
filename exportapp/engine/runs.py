"""Runs: neighbouring columns that a source writes side by side itself, so that a row comes as fewer values.

What costs in Python is a value, not its bytes: a row of sixteen values that comes as seven takes half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from exportapp.engine.specs import Column, Row


@dataclass(frozen=True)
class Run:
    """Columns from the place `first` on, as one text: `between` stands between each two of them, `null` for NULL.

    Their values hold none of `between`, so that they can be told apart again.
    """

    first: int
    between: tuple[str, ...]
    null: str

    @property
    def places(self) -> range:
        return range(self.first, self.first + len(self.between) + 1)

    def values(self, text: bytes) -> Row:
        """The values that were written side by side."""
        parts = []
        for between in self.between:
            part, _, text = text.partition(between.encode())
            parts.append(part)
        null = self.null.encode()
        return tuple(None if part == null else part for part in (*parts, text))


def grouped(columns: Sequence[Column], together: Callable[[Column], bool]) -> list[tuple[Column, ...]]:
    """The columns in groups of neighbours that may stand `together`; each of the others by itself."""
    return [
        group
        for joined, neighbours in groupby(columns, together)
        for group in ([tuple(neighbours)] if joined else zip(neighbours, strict=False))
    ]


def runs_of(groups: Iterable[Sequence[Column]], null: str, before: Callable[[Column], str]) -> tuple[Run, ...]:
    """A run for each group of several columns, with `before(column)` before each but the first of it."""
    runs, place = [], 0
    for group in groups:
        if len(group) > 1:
            runs.append(Run(place, tuple(map(before, group[1:])), null))
        place += len(group)
    return tuple(runs)


class Layout:
    """Where in a row that comes in `runs` the values of its columns are."""

    def __init__(self, width: int, runs: Iterable[Run]) -> None:
        self._runs = {place: run for run in runs for place in run.places}
        self._places: list[int] = []
        for index in range(width):
            goes_on = index in self._runs and index != self._runs[index].first
            self._places.append(self._places[-1] if goes_on else self._places[-1] + 1 if self._places else 0)

    def place(self, index: int) -> int:
        """The place in a row of the value, or the run, that has the column `index`."""
        return self._places[index]

    def value(self, row: Row, index: int) -> bytes | None:
        """The value of the column `index`, out of its run if it is in one."""
        value = row[self._places[index]]
        run = self._runs.get(index)
        return value if run is None or value is None else run.values(value)[index - run.first]
