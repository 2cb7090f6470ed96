"""Parquet with true types, written by pyarrow: a column of a batch is parsed in one call, and never value by value."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from exportapp.engine.encoders.templates import Values
from exportapp.engine.errors import ExportError
from exportapp.engine.runs import Run
from exportapp.engine.specs import Column, FileOptions, Row

GROUP_ROWS = 32_768
GROUP_BYTES = 8 << 20  # raw; together they keep a chunk below 100 MB, pyarrow included
FOOTER_BYTES = 1 << 10  # what the file's last part, kept in memory, grows by with each column of a group (measured)
# Columns of more different values are written as they are: of TPC-H's lineitem that made a file 17 % smaller, 8 % sooner.
DICTIONARY_BYTES = 16 << 10
LONGEST_SHOWN = 40  # characters of a value in a sentence
_INTEGER_BYTES = b"-0123456789"


class ParquetEncoder:
    """One file in row groups of bounded size; compressed in itself, page by page.

    With Zstandard: Snappy would take 0.15 us less of a row's 1.3, and make the file 40 % larger.
    """

    runs: tuple[Run, ...] = ()

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        # Imported here: a process that writes other formats does without its 60 MB.
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet

        self._arrow = pyarrow
        self._columns = columns
        self._schema = pyarrow.schema([(column.name, self._type(column)) for column in columns])
        self._file = _Drain()
        self._writer = pyarrow.parquet.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=1,
            dictionary_pagesize_limit=DICTIONARY_BYTES,
        )
        self._group: list[Any] = []
        self._rows = self._bytes = self._footer = 0

    def start(self) -> bytes:
        return self._file.drained()

    def encode(self, rows: Sequence[Row]) -> bytes:
        if rows:
            pairs = zip(self._columns, zip(*rows, strict=True), self._schema.types, strict=True)
            batch = self._arrow.RecordBatch.from_arrays(
                [self._array(column, values, kind) for column, values, kind in pairs], schema=self._schema
            )
            self._group.append(batch)
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
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
        if self._group:
            self._writer.write_table(self._arrow.Table.from_batches(self._group), row_group_size=self._rows)
            self._group, self._rows, self._bytes = [], 0, 0
            self._footer += FOOTER_BYTES * len(self._columns)

    def _type(self, column: Column) -> Any:
        """The Parquet type of a column; a text where the source does not say enough for a type that loses nothing."""
        arrow = self._arrow
        if column.type == "integer":
            width = next((width for width in (8, 16, 32, 64) if width >= (column.bits or 64)), 64)
            return getattr(arrow, f"{'u' if column.unsigned else ''}int{width}")()
        if column.type == "decimal" and column.scale is not None:
            precision = column.precision or 38
            return (arrow.decimal128 if precision <= 38 else arrow.decimal256)(precision, column.scale)
        if column.type == "float":
            return arrow.float32() if column.bits == 32 else arrow.float64()
        if column.type == "datetime":
            return arrow.timestamp("us", column.zone or None)
        # TIME goes from -838:59:59 to 838:59:59, and Parquet's times of day from 0 to 24 hours: it stays a text. A span
        # it has not: Arrow's duration is written as a bare integer, and read as that by all others (DuckDB: BIGINT).
        plain = {"boolean": arrow.bool_, "date": arrow.date32, "binary": arrow.binary}
        return plain.get(column.type, arrow.string)()

    def _array(self, column: Column, values: Values, kind: Any) -> Any:
        raw = self._arrow.array(values, self._arrow.binary())
        if kind == raw.type:
            return raw
        try:
            return self._parsed(raw, kind)
        except self._arrow.ArrowInvalid as error:
            raise self._refused(column, values, kind) from error

    def _parsed(self, raw: Any, kind: Any) -> Any:
        text = raw.cast(self._arrow.string())  # looks whether it is UTF-8
        if kind == text.type:
            return text
        parsed = text.cast(kind)
        if self._is_misread(text, parsed):
            raise self._arrow.ArrowInvalid("understood by Arrow alone")
        return parsed

    def _is_misread(self, text: Any, parsed: Any) -> bool:
        """Whether Arrow's parsers took something for a value that it is not.

        They read 0xff as an integer (0xffffffffffffffff as -1), "true" as a boolean, and 1e400 as infinite.
        """
        types, compute = self._arrow.types, self._arrow.compute
        if types.is_integer(parsed.type) or types.is_boolean(parsed.type):
            data = text.buffers()[2]
            return data is not None and bool(data.to_pybytes().translate(None, _INTEGER_BYTES))
        if types.is_floating(parsed.type):
            infinite = text.filter(compute.is_inf(parsed))
            return len(infinite) > 0 and bool(compute.any(compute.match_substring_regex(infinite, "[0-9]")).as_py())
        return False

    def _refused(self, column: Column, values: Values, kind: Any) -> ExportError:
        for value in values:
            try:
                self._parsed(self._arrow.array([value], self._arrow.binary()), kind)
            except self._arrow.ArrowInvalid as error:
                return ExportError(_sentence(column, value or b"", kind), permanent=True, detail=str(error)[:500])
        raise AssertionError("a column was refused and each of its values was not")


def _sentence(column: Column, value: bytes, kind: Any) -> str:
    shown = value[: 4 * LONGEST_SHOWN].decode(errors="replace")[:LONGEST_SHOWN]
    holds = f"The column {column.title} holds “{shown}”, which"
    try:
        value.decode()
    except UnicodeDecodeError:  # which JSON Lines refuses as well
        return f"{holds} is no UTF-8 text. Leave the column out, or choose CSV."
    return f"{holds} Parquet's type {kind} has not. Leave the column out, or choose CSV or JSON Lines."


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
