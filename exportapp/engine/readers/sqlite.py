"""Reads SQLite files, for the embedded default. SQLite types values and not columns, so each value is checked."""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter, length_hint
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from exportapp.engine import sql
from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import cut, key_of, null_key
from exportapp.engine.readers.base import COUNT_LIMIT, Histogram, TooSlow, days_of
from exportapp.engine.runs import Run
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES, Column, Key, KeyRange, Plan, Query, Row


class _Dialect(sql.Dialect):
    def key(self, column: Column) -> str:
        """By its bytes: a collation takes "a" and "A" for one, and a remainder would lose a row.

        An index that is in the order of bytes, as they are by default, is used all the same.
        """
        return f"{self.column(column)} COLLATE BINARY"


# Not the standard's double quotes: in them SQLite takes the name of a missing column for a text, and gives that.
DIALECT = _Dialect(quote="`", mark="?", bytes_of="CAST({0} AS BLOB)")
STORED_AS = {"integer": "integer", "binary": "blob"}  # keys of the other types are texts
BATCH_ROWS = 2000
BATCH_VALUES = 40_000  # of more, wide tables would take too much memory
BATCH_BYTES = 8 << 20
STEP_ROWS = 32  # of more the bound in bytes is not much of one; of fewer it takes longer
_NUMBER = re.compile(rb"[+-]?(\d++(\.\d*+)?+|\.\d++)([eE][+-]?\d++)?")
_MOMENT_SIGNS = b"0123456789-+:. TZ"
_MOMENT = re.compile(b"[%b]+" % re.escape(_MOMENT_SIGNS))
EXACT_AS_FLOAT = 1 << 53


def path_of(url: str) -> str:
    """The file of `sqlite:////absolute/path` or `sqlite:///relative/path`."""
    return unquote(urlsplit(url).path)[1:]


class SQLiteReader:
    """A read-only connection to an SQLite file; see readers.base.Reader."""

    def __init__(self, url: str) -> None:
        with _explained():
            self._connection = sqlite3.connect(
                f"file:{quote(path_of(url))}?mode=ro", uri=True, timeout=20, check_same_thread=False
            )
            self._connection.text_factory = bytes
        self._killed = False
        self._deadline = self._seconds = math.inf
        self._most: int | None = None  # rows of a stream
        # Not interrupt(): that reaches a statement at work, and is lost on one that is about to start.
        self._connection.set_progress_handler(self._is_to_end, 10_000)

    def _is_to_end(self) -> bool:
        return self._killed or time.monotonic() > self._deadline

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Ends the statements of the block with TooSlow after so long."""
        self._deadline = time.monotonic() + seconds
        try:
            yield
        except sqlite3.OperationalError as error:
            if self._killed or time.monotonic() <= self._deadline:
                raise
            raise TooSlow("The database takes too long over these rows and was stopped. Choose a shorter time or fewer "
                          "rows.", permanent=True, detail=f"SQLite: {seconds:g} s") from error  # fmt: skip
        finally:
            self._deadline = math.inf

    def plan(self, query: Query, rows_per_chunk: int, comment: str) -> Plan:
        with _explained():
            clause, values = sql.where(DIALECT, query, KeyRange())
            # SQLite keeps no estimates: to look at every row is what it can, and files of this kind are small.
            statement = f"SELECT {_facts(query.key)} FROM {sql.source(DIALECT, query)}{clause}"
            [[rows, *facts]] = self._connection.execute(statement, values).fetchall()
            if not query.key or not rows:
                return Plan((KeyRange(),), rows, True)
            first, last = _edges(query.key, *facts)
            if query.key[0].type != "integer":
                return Plan((KeyRange(None, (last,)),), rows, True)
            return Plan(cut(int(first), int(last), -(-rows // rows_per_chunk)), rows, True)

    def histogram(self, query: Query, column: Column | None, seconds: float, comment: str) -> Histogram:
        with _explained():
            clause, values = sql.where(DIALECT, query, KeyRange())
            base = f"FROM {sql.source(DIALECT, query)}{clause}"
            found = Histogram(None, False)
            with contextlib.suppress(TooSlow), self._within(seconds):
                found = Histogram(self._connection.execute(f"SELECT COUNT(*) {base}", values).fetchone()[0], True)
            few = found.rows is not None and found.rows <= COUNT_LIMIT
            if column is not None and (few or self._has_index(query, column)):
                with contextlib.suppress(TooSlow), self._within(seconds):
                    return self._by_day(column, base, values)
            return found

    def _by_day(self, column: Column, base: str, values: sql.Values) -> Histogram:
        name = DIALECT.column(column)
        statement = f"SELECT substr({name}, 1, 10), COUNT(*), MIN({name}), MAX({name}) {base} GROUP BY 1"
        counted = self._connection.execute(statement, values).fetchall()
        rows = sum(count for _, count, *_ in counted)
        days = days_of((day, count) for day, count, *_ in counted)
        if not days:
            return Histogram(rows, True)
        # The ends are those of the days: a value that is no time is more than every text, or less.
        ends = {day: (oldest, newest) for day, _, oldest, newest in counted}
        oldest, newest = ends[days[0][0].encode()][0], ends[days[-1][0].encode()][1]
        return Histogram(rows, True, oldest.decode(errors="replace"), newest.decode(errors="replace"), days)

    def _has_index(self, query: Query, column: Column) -> bool:
        """Whether a table has an index of all its rows that begins with the column."""
        if query.is_query:
            return False
        schema, _, name = query.relation.rpartition(".")
        statement = (
            "SELECT 1 FROM pragma_index_list(?, ?) AS list JOIN pragma_index_info(list.name, ?) AS info"
            " WHERE NOT list.partial AND info.seqno = 0 AND info.name = ? COLLATE NOCASE"
        )
        found = self._connection.execute(statement, [name, schema or "main", schema or "main", column.name])
        return found.fetchone() is not None

    def only_first(self, rows: int, seconds: float) -> None:
        self._most, self._seconds = rows, seconds

    def can_resume(self, query: Query) -> bool:
        return True

    def typed(self, query: Query) -> tuple[Column, ...]:
        return query.columns

    def stream(self, query: Query, key_range: KeyRange, comment: str, runs: Sequence[Run] = ()) -> Iterator[list[Row]]:
        # No columns are bare here, for any may hold values of any type: there are no runs.
        with _explained(), self._within(self._seconds):
            columns = query.read
            expressions = ", ".join(_expression(column) for column in columns)
            clause, values = sql.where(DIALECT, query, key_range)
            statement = f"SELECT {expressions} FROM {sql.source(DIALECT, query)}{clause}{sql.order(DIALECT, query)}"
            statement += "" if self._most is None else f" LIMIT {self._most}"
            cursor = self._connection.execute(statement, values)
            converters = [_CONVERTERS.get(column.type, _texts)(column) for column in columns]
            texts = [itemgetter(place) for place, column in enumerate(columns) if column.type not in _CONVERTERS]
            while batch := self._fetch(cursor, texts):
                yield _converted(batch, converters)
                del batch  # before the next is fetched: a row may have 16 MB

    def _fetch(self, cursor: sqlite3.Cursor, texts: Sequence[Callable[[Any], Any]]) -> list[Any]:
        """A batch that ends at BATCH_BYTES. A step at most doubles it: rows are mostly as long as those before them."""
        if self._killed:
            raise sqlite3.OperationalError("interrupted")
        batch: list[Any] = []
        size, most = 0, max(1, min(BATCH_ROWS, BATCH_VALUES // len(cursor.description)))
        while size < BATCH_BYTES and len(batch) < most:
            step = cursor.fetchmany(min(max(1, len(batch)), STEP_ROWS, most - len(batch)))
            if not step:
                break
            batch += step
            size += sum(sum(map(length_hint, map(text, step))) for text in texts)
        return batch

    def kill(self) -> None:
        self._killed = True

    def close(self) -> None:
        self._connection.close()

    @staticmethod
    def end_queries(url: str, orphan: Callable[[str], bool]) -> int:
        return 0  # a query ends with the process that runs it


Converter = Callable[[Sequence[Any]], Sequence[bytes | None]]


def _expression(column: Column) -> str:
    """An integer is written out by SQLite itself: that takes a fraction of the time. Not a real number: it would lose
    digits."""
    name = DIALECT.column(column)
    if column.type not in NUMBER_TYPES | {"boolean"} or column.scale is not None:
        return name
    return f"CASE typeof({name}) WHEN 'integer' THEN CAST({name} AS TEXT) ELSE {name} END"


def _facts(key: tuple[Column, ...]) -> str:
    """What a plan has to know of all rows, in one look at them: their number, and for a key what `_edges` takes."""
    if not key:
        return "COUNT(*)"
    names = [DIALECT.column(column) for column in key]
    lead, nulls = DIALECT.key(key[0]), " OR ".join(f"{name} IS NULL" for name in names)
    kinds = [STORED_AS.get(column.type, "text") for column in key]
    strange = [f"typeof({name}) <> '{kind}'" for name, kind in zip(names, kinds, strict=True)]
    counts = [f"COUNT(*) FILTER (WHERE {condition})" for condition in (nulls, *strange)]
    return ", ".join(["COUNT(*)", f"MIN({lead})", f"MAX({lead})", *counts])


def _edges(key: tuple[Column, ...], first: Any, last: Any, nulls: int, *strange: int) -> Key:
    """The first and the last value of the leading column. Refuses keys that ranges would lose rows of.

    A number is less than any text and a text less than any blob, whatever they look like: a value that is not stored as
    those are that it is compared with would lie outside its range.
    """
    if nulls:
        raise null_key(", ".join(column.name for column in key))
    if wrong := [column for column, count in zip(key, strange, strict=True) if count]:
        raise ExportError(f"The key column {wrong[0].name} is declared as {wrong[0].type} but some rows hold something "
                          "else. An operator has to correct the dataset.", permanent=True)  # fmt: skip
    ends = (key[0], key[0])
    return key_of(ends, _raw(ends, (first, last)))


def _converted(batch: list[Any], converters: list[Converter]) -> list[Row]:
    ready = [convert(values) for convert, values in zip(converters, zip(*batch, strict=True), strict=True)]
    return list(zip(*ready, strict=True))


def _raw(columns: tuple[Column, ...], row: Any) -> Row:
    return tuple(
        _CONVERTERS.get(column.type, _texts)(column)([value])[0] for column, value in zip(columns, row, strict=True)
    )


def _texts(column: Column) -> Converter:
    def convert(values: Sequence[Any]) -> Sequence[bytes | None]:
        if set(map(type, values)) == {bytes}:
            return values
        return [value if value is None or isinstance(value, bytes) else str(value).encode() for value in values]

    return convert


def _checked(word: str, pattern: re.Pattern[bytes], column: Column) -> Converter:
    """Values of a declared type; what is a text all the same has to look like one of that type."""
    plain = b"0123456789," if pattern is _NUMBER else _MOMENT_SIGNS + b","
    several = re.compile(b"(?:%b,)*" % pattern.pattern)
    real, zeros = b"%r", b""
    if column.scale is not None:
        real, zeros = b"%%.%df" % column.scale, b"." * bool(column.scale) + b"0" * column.scale

    def text_of(value: Any) -> bytes | None:
        if value is None:
            return None
        if isinstance(value, bytes) and pattern.fullmatch(value):
            return value
        if isinstance(value, bytes):
            raise ExportError(f"The column {column.name} is declared as a {word} but holds a text. An operator has "
                              "to declare it as text.", permanent=True)  # fmt: skip
        return real % value if isinstance(value, float) else b"%d" % value + zeros

    def convert(values: Sequence[Any]) -> Sequence[bytes | None]:
        kinds = set(map(type, values))
        if kinds == {float} or (zeros and kinds <= {int, float} and max(map(abs, values)) < EXACT_AS_FLOAT):
            return ((real + b" ") * len(values) % tuple(values)).split()  # a sixth faster than one by one
        if kinds == {bytes}:
            joined = b",".join(values)
            single = joined.count(b",") == len(values) - 1 and all(values)
            # Nothing but digits, or the signs of times, is found out much faster than by the pattern.
            if single and (not joined.translate(None, plain) or several.fullmatch(joined + b",")):
                return values
        return list(map(text_of, values))

    return convert


_CONVERTERS: dict[str, Callable[[Column], Converter]] = {
    **dict.fromkeys(NUMBER_TYPES | {"boolean"}, partial(_checked, "number", _NUMBER)),
    **dict.fromkeys(MOMENT_TYPES, partial(_checked, "time", _MOMENT)),
}


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OverflowError as error:
        raise ExportError("A number in the conditions is too large for this database.",
                          permanent=True, detail=f"SQLite: {error}") from error  # fmt: skip
    except sqlite3.Error as error:
        missing = "no such" in str(error) or "unable to open" in str(error)
        sentence = (
            "The table no longer has what this dataset names. An operator has to update the dataset."
            if missing
            else "The database did not answer or broke off."
        )
        raise ExportError(sentence, permanent=missing, detail=f"SQLite: {error}") from error
