"""Whether two files hold the same: the engine's CSV and the one that mysqlclient and csv.writer made of the same table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from bench.tables import TABLES


def same_records(table: str, ours: Path, theirs: Path) -> int:
    """The number of records, when all are equal; a RuntimeError with the first that is not.

    Python's csv does not tell NULL from '': that is for the engine's own tests.
    """
    floats = [index for index, column in enumerate(TABLES[table].columns) if column.type == "float"]
    number = -1
    for number, (mine, other) in enumerate(zip_longest(_records(ours), _records(theirs))):
        if mine != other and (not mine or not other or _numbers(mine, floats) != _numbers(other, floats)):
            raise RuntimeError(f"record {number} of {table} differs:\n{mine}\n{other}")
    return number


def _records(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.reader(file)


def _numbers(record: list[str], floats: list[int]) -> list[object]:
    """A float may be written in more ways than one."""
    values: list[object] = list(record)
    for index in floats:
        values[index] = float(record[index]) if record[index] else None
    return values
