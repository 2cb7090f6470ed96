"""What the engine's tests build from: columns in a few letters, random values, and a reader that keeps its rows in a list."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from exportapp.engine.keyranges import key_of
from exportapp.engine.readers.base import Reader
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.runs import Run
from exportapp.engine.specs import Column, Key, KeyRange, Plan, Query, Row

TEXTS = ("", "a", '"', '""', ",", "\r\n", "\n", "\\N", "\\", "%b%s%%", "größer", "🦀", "=1+1", "\x00\x1f", "a,b\"c'\nd")

Opening = Callable[[str], SQLiteReader]


def columns(words: str) -> tuple[Column, ...]:
    """Columns of "name:type name:type"; a text where no type is given."""
    pairs = [word.partition(":") for word in words.split()]
    return tuple(Column(name, kind or "text") for name, _, kind in pairs)


def query(relation: str, names: str, key: str = "", *, is_query: bool = False, **more: object) -> Query:
    return Query(relation, is_query, columns(names), columns(key), **more)  # type: ignore[arg-type]


def rows_of(reader: Reader, wanted: Query, after: Key | None = None, upto: Key | None = None) -> list[Row]:
    """All rows of a range at once."""
    return [row for batch in reader.stream(wanted, KeyRange(after, upto), "") for row in batch]


def sqlite_source(folder: Path, script: str) -> str:
    """The address of an SQLite file that a script has filled."""
    connection = sqlite3.connect(folder / "source.sqlite3")
    connection.executescript(script)
    connection.close()
    return f"sqlite:///{folder}/source.sqlite3"


def random_rows(seed: int, makers: Sequence[Callable[[random.Random], bytes]], count: int = 60) -> list[Row]:
    """Rows with a NULL here and there: in some of them none, in some nothing else."""
    chance = random.Random(seed)
    nulls = chance.choice((0, 0.1, 0.6))
    return [tuple(None if chance.random() < nulls else make(chance) for make in makers) for _ in range(count)]


def a_text(chance: random.Random) -> bytes:
    return "".join(chance.choices(TEXTS, k=chance.randrange(4))).encode()


def plain_text(chance: random.Random) -> bytes:
    return "".join(chance.choices("abc ,\n;'é🦀%", k=chance.randrange(6))).encode()


def an_integer(chance: random.Random) -> bytes:
    return str(chance.randrange(-(1 << 63), 1 << 64)).encode()


def a_decimal(chance: random.Random) -> bytes:
    return f"{chance.randrange(-(10**30), 10**30)}.{chance.randrange(10**30):030d}".encode()


def some_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(5))


class ListReader:
    """A source of rows in a list, sorted by their key; `then` is called before each batch but the first."""

    def __init__(self, rows: Sequence[Row], batch: int = 2, then: Callable[[], None] = lambda: None) -> None:
        self.rows, self.batch, self.then = rows, batch, then

    def plan(self, query: Query, rows_per_chunk: int, comment: str) -> Plan:
        return Plan((KeyRange(),), len(self.rows), True)

    def can_resume(self, query: Query) -> bool:
        return True

    def typed(self, query: Query) -> tuple[Column, ...]:
        return query.columns

    def stream(self, query: Query, key_range: KeyRange, comment: str, runs: Sequence[Run] = ()) -> Iterator[list[Row]]:
        keys = [key_of(query.key, tuple(row[place] for place in query.key_places)) for row in self.rows]
        within = [row for row, key in zip(self.rows, keys, strict=True) if self._within(key, key_range)]
        for start in range(0, len(within), self.batch):
            if start:
                self.then()
            yield [self._in_runs(row, runs) for row in within[start : start + self.batch]]

    def _in_runs(self, row: Row, runs: Sequence[Run]) -> Row:
        for run in reversed(runs):
            texts = [run.null.encode() if value is None else value for value in row[run.first : run.places.stop]]
            joined = texts[0] + b"".join(
                between.encode() + text for between, text in zip(run.between, texts[1:], strict=True)
            )
            row = (*row[: run.first], joined, *row[run.places.stop :])
        return row

    def _within(self, key: Key, key_range: KeyRange) -> bool:
        after, upto = key_range.after, key_range.upto
        return (after is None or key > after) and (upto is None or key <= upto)

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass
