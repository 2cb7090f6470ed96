"""Parquet with true types, written by pyarrow: columns are parsed whole, and never value by value."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from decimal import Decimal, DecimalException
from typing import Any, Protocol

from exportapp.engine.encoders.texts import no_utf8
from exportapp.engine.errors import ExportError
from exportapp.engine.runs import grouped, runs_of
from exportapp.engine.specs import NUMBER_TYPES, Column, FileOptions, Row, Values

GROUP_ROWS = 32_768
GROUP_BYTES = 4 << 20  # in memory; together they keep a chunk below 100 MB, pyarrow included
ARRAY_BYTES = 1 << 10  # what each column of each batch takes besides its values (measured)
RUN_BYTES = 1 << 20  # of text that is parsed at once: that takes four times its size
FOOTER_BYTES = 1 << 10  # what the file's last part, kept in memory, grows by with each column of a group (measured)
# Columns of more different values are written as they are: of TPC-H's lineitem that made a file 17 % smaller, 8 % sooner.
DICTIONARY_BYTES = 16 << 10
WIDEST_DECIMAL = 38  # digits
DOUBLE_DIGITS = 15  # that every double keeps
MOST_PLACES = 1074  # behind the point, that a double ever has
SMALLEST_DOUBLE = 2.2250738585072014e-308  # below it, they keep fewer
LONGEST_SHOWN = 40  # characters of a value in a sentence
DELIMITER = ","  # of a run
_INTEGER_BYTES = b"-0123456789"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WAY_OUT = "Leave the column out, or choose CSV or JSON Lines."


def _goes_in_run(column: Column) -> bool:
    """Whether Arrow's CSV reader has the column's type: neither that of long decimals nor a text to check.

    It adds the zeros that a decimal's scale asks for without looking whether there is room: there has to be.
    """
    if column.type == "decimal":
        if column.precision is None or column.scale is None:
            return False
        return column.bare and column.precision + column.scale <= WIDEST_DECIMAL
    return column.bare and column.type in NUMBER_TYPES | {"boolean", "date", "datetime"}


class ParquetEncoder:
    """One file in row groups of bounded size; compressed in itself, page by page.

    With Zstandard: Snappy would take 0.15 us less of a row's 1.3, and make the file 40 % larger.
    """

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        # Of Arrow's allocators the one that neither keeps what is given back nor grows with the rows (11 MB a million with
        # the C library's, from two threads).
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        # Imported here: a process that writes other formats does without its 60 MB.
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet

        self._arrow = pyarrow
        self._width = len(columns)
        self._schema = pyarrow.schema([(column.name, _type(pyarrow, column)) for column in columns])
        groups = grouped(columns, _goes_in_run)
        self.runs = runs_of(groups, "", lambda column: DELIMITER)
        self._parts = [
            _OneColumn(pyarrow, group[0]) if len(group) == 1 else _RunOfColumns(pyarrow, group) for group in groups
        ]
        self._file = _Drain()
        self._writer = pyarrow.parquet.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=1,
            dictionary_pagesize_limit=DICTIONARY_BYTES,
            # Of texts they would keep the least and the greatest of each group, of 16 MB maybe, several times over.
            write_statistics=[column.name for column in columns if column.type not in ("text", "json", "binary")],
        )
        self._rows = self._bytes = self._footer = 0

    def start(self) -> bytes:
        return self._file.drained()

    def encode(self, rows: Sequence[Row]) -> bytes:
        if rows:
            self._rows += len(rows)
            self._bytes += sum(
                part.add(values) for part, values in zip(self._parts, zip(*rows, strict=True), strict=True)
            )
            # Each group stays in memory as its part of the footer: they grow when those are more than a group.
            larger = max(1, self._footer / GROUP_BYTES)
            if self._rows >= GROUP_ROWS * larger or self._bytes >= GROUP_BYTES * larger:
                self._end_group()
        return self._file.drained()

    def finish(self) -> bytes:
        self._end_group()
        self._writer.close()
        return self._file.drained()

    def _end_group(self) -> None:
        if self._rows:
            columns = [column for part in self._parts for column in part.taken()]
            self._writer.write_table(self._arrow.table(columns, schema=self._schema), row_group_size=self._rows)
            self._rows = self._bytes = 0
            self._footer += FOOTER_BYTES * self._width


class _Part(Protocol):
    """What is there of the next row group: of one column, or of those in a run."""

    def add(self, values: Values) -> int:
        """Takes the values of a batch, and says how many bytes of memory they are."""

    def taken(self) -> list[Any]:
        """The columns, and is empty again."""


class _OneColumn:
    def __init__(self, arrow: Any, column: Column) -> None:
        self._arrow, self._column, self._kind = arrow, column, _type(arrow, column)
        self._arrays: list[Any] = []

    def add(self, values: Values) -> int:
        self._arrays.append(self._array(values))
        return int(self._arrays[-1].nbytes) + ARRAY_BYTES

    def taken(self) -> list[Any]:
        arrays, self._arrays = self._arrays, []
        return [self._arrow.chunked_array(arrays, self._kind)]

    def _array(self, values: Values) -> Any:
        raw = self._arrow.array(values, self._arrow.binary())
        if self._kind == raw.type:
            return raw
        try:
            return self._parsed(raw)
        except self._arrow.ArrowInvalid as error:
            raise self._refused(values) from error

    def _parsed(self, raw: Any) -> Any:
        text = raw.cast(self._arrow.string())  # looks whether it is UTF-8
        if self._kind == text.type:
            return text
        if self._arrow.types.is_decimal(self._kind):
            return self._plain_decimals(text).cast(self._kind)
        parsed = text.cast(self._kind)
        if self._is_misread(text, parsed):
            raise self._arrow.ArrowInvalid("understood by Arrow alone")
        return parsed

    def _plain_decimals(self, text: Any) -> Any:
        """Decimals that Arrow reads right: what has too many digits it makes another number, and 1e-99999999 crashes it."""
        before, behind, compute = self._kind.precision - self._kind.scale, self._kind.scale, self._arrow.compute
        plain = rf"^[+-]?0*[0-9]{{0,{before}}}(?:\.[0-9]{{0,{behind}}})?$"
        others = compute.invert(compute.match_substring_regex(text, plain))
        if not compute.any(others).as_py():
            return text
        rewritten = [self._plain_decimal(raw) for raw in text.filter(others).to_pylist()]
        return compute.replace_with_mask(text, others, self._arrow.array(rewritten, text.type))

    def _plain_decimal(self, raw: str) -> str:
        """A decimal with all the digits behind the point that its type has. Raises ArrowInvalid where those are too few."""
        before, behind = self._kind.precision - self._kind.scale, self._kind.scale
        try:
            number = Decimal(raw if _DECIMAL.fullmatch(raw) else "")
        except DecimalException as error:
            raise self._arrow.ArrowInvalid("no decimal") from error
        if not number:
            return "0"
        plain = f"{number:.{behind}f}" if number.adjusted() < before else ""
        if not plain or Decimal(plain) != number:
            raise self._arrow.ArrowInvalid("too many digits")
        return plain

    def _is_misread(self, text: Any, parsed: Any) -> bool:
        """Whether Arrow's parsers took something for a value that it is not.

        They read 0xff as an integer (0xffffffffffffffff as -1), "true" as a boolean, and 1e400 as infinite, and drop the
        digits of a double that are too many.
        """
        types = self._arrow.types
        if types.is_integer(parsed.type) or types.is_boolean(parsed.type):
            data = text.buffers()[2]
            return data is not None and bool(data.to_pybytes().translate(None, _INTEGER_BYTES))
        return types.is_floating(parsed.type) and self._is_misread_float(text, parsed)

    def _is_misread_float(self, text: Any, parsed: Any) -> bool:
        compute = self._arrow.compute
        finite = compute.is_finite(parsed)
        if any(re.search("[0-9]", raw) for raw in text.filter(compute.invert(finite)).to_pylist()):
            return True
        if self._column.bits is not None:
            return False  # all of them are floats of the source's own, in its own words
        long = compute.greater(compute.binary_length(text), DOUBLE_DIGITS)
        small = compute.less(compute.abs(parsed), SMALLEST_DOUBLE)
        other = compute.not_equal(parsed.cast(text.type), text)
        odd = compute.and_(compute.and_(finite, other), compute.or_(long, small))
        return any(map(_loses_digits, compute.unique(text.filter(odd)).to_pylist()))

    def _refused(self, values: Values) -> ExportError:
        for value in values:
            try:
                self._parsed(self._arrow.array([value], self._arrow.binary()))
            except self._arrow.ArrowInvalid as error:
                return _refusal(self._column, value or b"", self._kind, str(error)[:500])
        raise AssertionError("a column was refused and each of its values was not")


class _RunOfColumns:
    """Numbers and times of the source's own, parsed by Arrow's CSV reader: a quarter of the time of column by column."""

    def __init__(self, arrow: Any, columns: Sequence[Column]) -> None:
        self._arrow, self._columns = arrow, columns
        self._kinds = {column.name: _type(arrow, column) for column in columns}
        self._row_bits: int = sum(kind.bit_width + 1 for kind in self._kinds.values())  # a bit says whether it is NULL
        self._blocks: list[bytes] = []
        self._waiting = 0
        self._tables: list[Any] = []

    def add(self, values: Values) -> int:
        self._blocks.append(b"\n".join(values))  # type: ignore[arg-type]  # a run is never NULL
        self._waiting += len(self._blocks[-1])
        if self._waiting >= RUN_BYTES:
            self._parse()
        return len(values) * self._row_bits // 8 + ARRAY_BYTES

    def taken(self) -> list[Any]:
        self._parse()
        tables, self._tables = self._tables, []
        return list(self._arrow.concat_tables(tables).columns)

    def _parse(self) -> None:
        data = b"\n".join(self._blocks)
        self._blocks, self._waiting = [], 0
        if not data:
            return
        try:
            self._tables.append(self._parsed(data))
        except self._arrow.ArrowInvalid:  # which names neither the column nor the value
            separate = zip(*(line.split(DELIMITER.encode()) for line in data.split(b"\n")), strict=True)
            for column, values in zip(self._columns, separate, strict=True):
                _OneColumn(self._arrow, column).add([value or None for value in values])
            raise

    def _parsed(self, data: bytes) -> Any:
        csv = self._arrow.csv
        table = csv.read_csv(
            self._arrow.BufferReader(data),
            csv.ReadOptions(use_threads=False, column_names=list(self._kinds), block_size=len(data) + 1),
            csv.ParseOptions(delimiter=DELIMITER, quote_char=False),
            csv.ConvertOptions(column_types=self._kinds, null_values=[""], check_utf8=False),
        )
        table.validate(full=True)  # which finds decimals of more digits than their type has
        return table


def _type(arrow: Any, column: Column) -> Any:
    """The Parquet type of a column; a text where the source does not say enough for a type that loses nothing."""
    if column.type == "integer":
        width = next((width for width in (8, 16, 32, 64) if width >= (column.bits or 64)), 64)
        return getattr(arrow, f"{'u' if column.unsigned else ''}int{width}")()
    if column.type == "decimal" and column.scale is not None and 0 <= column.scale <= WIDEST_DECIMAL:
        # With more digits it is a text: decimal256 is Arrow's own, and DuckDB reads other numbers in it.
        precision = column.precision or WIDEST_DECIMAL
        return arrow.decimal128(precision, column.scale) if precision <= WIDEST_DECIMAL else arrow.string()
    if column.type == "float":
        return arrow.float32() if column.bits == 32 else arrow.float64()
    if column.type == "datetime":
        return arrow.timestamp("us", column.zone or None)
    # TIME goes from -838:59:59 to 838:59:59, and Parquet's times of day from 0 to 24 hours: it stays a text. A span
    # it has not: Arrow's duration is written as a bare integer, and read as that by all others (DuckDB: BIGINT).
    plain = {"boolean": arrow.bool_, "date": arrow.date32, "binary": arrow.binary}
    return plain.get(column.type, arrow.string)()


def _loses_digits(raw: str) -> bool:
    """Whether a number's text says more than the double that it is read as: no double would be written so."""
    double = float(raw)
    if repr(double) == raw:
        return False
    number = Decimal(raw)
    places = min(max(0, -int(number.as_tuple().exponent)), MOST_PLACES)
    return number != Decimal(repr(double)) and number != Decimal(f"{double:.{places}f}")


def _refusal(column: Column, value: bytes, kind: Any, detail: str) -> ExportError:
    shown = value[: 4 * LONGEST_SHOWN].decode(errors="replace")[:LONGEST_SHOWN]
    holds = f"The column {column.title} holds “{shown}”, which"
    try:
        value.decode()
    except UnicodeDecodeError:
        return no_utf8(f"{holds} is", detail)
    return ExportError(f"{holds} Parquet's type {kind} has not. {_WAY_OUT}", permanent=True, detail=detail)


class _Drain(io.RawIOBase):
    """A file that gives away what was written to it, and knows how much that was in all."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        block = bytes(data)
        self._blocks.append(block)
        self._size += len(block)
        return len(block)

    def tell(self) -> int:
        return self._size

    def drained(self) -> bytes:
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)
