"""Reads files back by programs that are not ours, one reader a format, and each value in a form that keeps apart whatever
may not be mixed up: NULL and '', a number and the text of its digits, a date and its text."""

from __future__ import annotations

import base64
import binascii
import datetime
import io
import json
import re
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from xml.etree.ElementTree import ParseError

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.parquet

from tests.oracles.formulas import is_formula

Held = tuple[Any, ...]


class Damaged(AssertionError):
    """The file cannot be read to its end: it was cut, or a byte of it is wrong."""


@dataclass(frozen=True)
class Number:
    """A number that the format itself knows as one, by its digits."""

    text: str


@dataclass(frozen=True)
class Moment:
    """A date or time that the format itself knows as one."""

    text: str


@dataclass(frozen=True)
class File:
    """What a file holds, by an independent reader."""

    names: tuple[str, ...]
    rows: list[Held]


def floating(kind: str, text: str) -> str:
    """The number of a float's text, in the one way that Python writes it: 1e2 and 100.0 are the same."""
    value = float(text)
    return repr(struct.unpack("<f", struct.pack("<f", value))[0] if kind == "float32" else value)


def shortened(clock: str) -> str:
    """A time without the zeros at the end of its fraction: most formats have one precision for all."""
    return clock.rstrip("0").rstrip(".") if "." in clock else clock


# --- CSV and TSV -----------------------------------------------------------------------------------------------------


def read_delimited(data: bytes, kinds: Sequence[str], delimiter: str, null: str = "", safe: bool = False) -> File:
    """By a strict reader of RFC 4180 below, and by DuckDB; they have to agree. In a `safe` file no base64 is a formula."""
    null = null or ("\\N" if len(kinds) == 1 else "")
    records = _records(data, delimiter.encode())
    if not records:
        raise Damaged("cut: not even a header")
    if wrong := [number for number, record in enumerate(records) if len(record) != len(kinds)]:
        raise Damaged(f"line {wrong[0]} has {len(records[wrong[0]])} values instead of {len(kinds)}")
    try:
        texts = [
            [None if not quoted and value == null.encode() else value.decode() for quoted, value in record]
            for record in records
        ]
    except UnicodeDecodeError as error:
        raise Damaged(f"wrong byte: no UTF-8, {error}") from error
    by_duckdb = _by_duckdb(data, len(kinds), delimiter, null)
    if by_duckdb != texts[1:]:
        raise Damaged(f"DuckDB reads {by_duckdb!r:.2000} where RFC 4180 says {texts[1:]!r:.2000}")
    if safe:
        texts[1:] = [[_undone(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in texts[1:]]
    rows = [tuple(_of_text(kind, value) for kind, value in zip(kinds, row, strict=True)) for row in texts[1:]]
    return File(tuple(value or "" for value in texts[0]), rows)


def _records(data: bytes, delimiter: bytes) -> list[list[tuple[bool, bytes]]]:
    """The lines of a file, of each value whether it was quoted; every line ends in CR LF, the last as well."""
    field = re.compile(rb'"([^"]*(?:""[^"]*)*)"|([^"\r\n%b]*)' % re.escape(delimiter))
    records: list[list[tuple[bool, bytes]]] = []
    place, record = 0, []
    while place < len(data):
        found = field.match(data, place)
        assert found is not None  # it may be empty
        quoted = found[1] is not None
        record.append((quoted, found[1].replace(b'""', b'"') if quoted else found[2]))
        place = found.end()
        if data.startswith(delimiter, place):
            place += len(delimiter)
        elif data.startswith(b"\r\n", place):
            place += 2
            records.append(record)
            record = []
        else:
            raise Damaged(f"cut, or a wrong byte: no value ends at byte {place}, {data[place : place + 20]!r}")
    if record:
        raise Damaged("cut: the last line has no end")
    return records


def _by_duckdb(data: bytes, width: int, delimiter: str, null: str) -> list[list[str | None]]:
    names = [f"c{place}" for place in range(width)]
    columns = ", ".join(f"{name}: 'VARCHAR'" for name in names)
    longest = max(1 << 21, len(data) + 1)
    with tempfile.NamedTemporaryFile(suffix=".csv") as file, closing(duckdb.connect()) as connection:
        file.write(data)
        file.flush()
        statement = f"""SELECT * FROM read_csv($file, columns={{{columns}}}, header=true, auto_detect=false, quote='"',
            escape='"', delim=$delimiter, nullstr=[$null], allow_quoted_nulls=false, parallel=false,
            max_line_size={longest}, buffer_size={longest * 2})"""
        try:
            given = {"file": file.name, "delimiter": delimiter, "null": null}
            return [list(row) for row in connection.execute(statement, given).fetchall()]
        except duckdb.Error as error:
            raise Damaged(f"DuckDB cannot read it: {error}") from error


def _of_text(kind: str, value: str | None) -> Any:
    if value is None:
        return None
    if kind == "binary":
        return _of_base64(value)
    return floating(kind, value) if kind.startswith("float") else value


def _undone(kind: str, value: str | None) -> str | None:
    """Base64 without the apostrophe that it has to have where it begins like a formula, and nowhere else."""
    if kind != "binary" or value is None:
        return value
    if is_formula(value):
        raise Damaged(f"base64 that is a formula, {value!r:.100}")
    base = value.removeprefix("'")
    if base != value and not is_formula(base):
        raise Damaged(f"an apostrophe before what is no formula, {value!r:.100}")
    return base


def _of_base64(value: str) -> bytes:
    try:
        decoded = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise Damaged(f"wrong byte: no base64, {value!r:.100}") from error
    if base64.b64encode(decoded).decode() != value:  # the last letter has bits that say nothing
        raise Damaged(f"wrong byte: no base64 as it is written, {value!r:.100}")
    return decoded


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def read_jsonlines(data: bytes, kinds: Sequence[str]) -> File:
    """By Python's json; objects come as tuples of pairs, so that repeated names and their order are seen."""
    if data and not data.endswith(b"\n"):
        raise Damaged("cut: the last line has no end")
    names: tuple[str, ...] = ()
    rows = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            pairs = parsed_json(line.decode())
        except ValueError as error:
            raise Damaged(f"line {number} is no JSON: {error}") from error
        if not isinstance(pairs, tuple) or len(pairs) != len(kinds):
            raise Damaged(f"line {number} is no object of {len(kinds)} values: {line!r:.200}")
        found = tuple(name for name, _ in pairs)
        if names and found != names:
            raise Damaged(f"line {number} has other names: {found} instead of {names}")
        names = found
        rows.append(tuple(_of_json(kind, value) for kind, (_, value) in zip(kinds, pairs, strict=True)))
    return File(names, rows)


def parsed_json(text: str) -> Any:
    """JSON with all that its text says; a ValueError for what is no JSON (RFC 8259 knows no NaN)."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=refuse, object_pairs_hook=tuple)


def _of_json(kind: str, value: Any) -> Any:
    if kind == "binary" and isinstance(value, str):
        return _of_base64(value)
    if kind.startswith("float") and isinstance(value, Number):
        return floating(kind, value.text)
    return value


# --- XLSX ------------------------------------------------------------------------------------------------------------


def read_xlsx(data: bytes, kinds: Sequence[str]) -> File:
    """By openpyxl, all sheets one after another."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns of dates that are none, and of much else that is wrong
            with closing(openpyxl.load_workbook(io.BytesIO(data), read_only=True)) as book:
                sheets = [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if damaged := archive.testzip():
                raise Damaged(f"wrong byte in {damaged}")
    except (zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, EOFError, UserWarning) as error:
        raise Damaged(f"cut, or a wrong byte: openpyxl cannot read it, {error!r}") from error
    if not sheets or not all(sheets):
        raise Damaged("a sheet has no header")
    headers = {tuple(map(_unescaped, sheet[0])) for sheet in sheets}
    if len(headers) != 1:
        raise Damaged(f"the sheets have different headers: {headers}")
    rows = [row + (None,) * (len(kinds) - len(row)) for sheet in sheets for row in sheet[1:]]
    return File(headers.pop(), [tuple(map(_of_cell, kinds, row)) for row in rows])


def _unescaped(value: Any) -> Any:
    """openpyxl leaves _x000D_ as it is; ECMA-376 part 1, 22.9.2.19, makes a carriage return of it."""
    if not isinstance(value, str):
        return value
    return re.sub("_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), value)


def _of_cell(kind: str, cell: Any) -> Any:
    match cell:
        case bool():
            return cell
        case int() | float():
            if kind.startswith("float"):
                return floating(kind, repr(cell + 0.0))  # a sheet has no minus zero
            return Number(str(Decimal(repr(cell)).normalize()))
        case datetime.datetime() if kind == "date":
            return Moment(cell.date().isoformat()) if cell.time() == datetime.time() else cell
        case datetime.datetime():
            return Moment(shortened(cell.isoformat(" ")))
        case datetime.timedelta():
            return Moment(clock_of(cell))
    cell = _unescaped(cell)
    if isinstance(cell, str) and kind == "binary":
        return _of_base64(cell)
    return floating(kind, cell) if isinstance(cell, str) and kind.startswith("float") else cell


def clock_of(span: datetime.timedelta) -> str:
    """A span of time as the server writes a TIME: -838:59:59."""
    sign, span = ("-", -span) if span < datetime.timedelta() else ("", span)
    minutes, seconds = divmod(span // datetime.timedelta(seconds=1), 60)
    fraction = f".{span.microseconds:06}" if span.microseconds else ""
    return shortened(f"{sign}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{fraction}")


# --- Parquet ---------------------------------------------------------------------------------------------------------


def read_parquet(data: bytes, kinds: Sequence[str]) -> File:
    """By Arrow and by DuckDB; they have to agree."""
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"cut, or a wrong byte: Arrow cannot read it, {error}") from error
    if len(columns) != len(kinds):
        raise Damaged(f"{len(columns)} columns instead of {len(kinds)}")
    held = [[_of_arrow(kind, value) for value in column] for kind, column in zip(kinds, columns, strict=True)]
    for name, mine, theirs, kind in zip(table.column_names, held, _parquet_by_duckdb(data).columns, kinds, strict=True):
        also = [_of_arrow(kind, value) for value in theirs.to_pylist()]
        if also != mine:
            raise Damaged(f"{name}: DuckDB reads {also!r:.1000} where Arrow reads {mine!r:.1000}")
    return File(tuple(table.column_names), list(zip(*held, strict=True)))


def _parquet_by_duckdb(data: bytes) -> pa.Table:
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, closing(duckdb.connect()) as connection:
        file.write(data)
        file.flush()
        try:
            return connection.sql("SELECT * FROM read_parquet($file)", params={"file": file.name}).to_arrow_table()
        except duckdb.Error as error:
            raise Damaged(f"DuckDB cannot read it: {error}") from error


def _of_arrow(kind: str, value: Any) -> Any:
    match value:
        case bool():
            return value
        case int() | Decimal():
            return Number(f"{value:f}" if isinstance(value, Decimal) else str(value))
        case float():
            return floating(kind, repr(value))
        case str() if kind == "number":  # with more digits than the file's decimals have
            return Number(value)
        case datetime.datetime():
            moment = value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value
            return Moment(shortened(moment.isoformat(" ")))
        case datetime.date() | datetime.time():
            return Moment(shortened(value.isoformat()))
        case datetime.timedelta():
            return Moment(clock_of(value))
    return value


READERS: dict[str, Callable[..., File]] = {
    "csv": lambda data, kinds, **more: read_delimited(data, kinds, **{"delimiter": ",", **more}),
    "tsv": lambda data, kinds, **more: read_delimited(data, kinds, **{"delimiter": "\t", **more}),
    "jsonl": read_jsonlines,
    "xlsx": read_xlsx,
    "parquet": read_parquet,
}
