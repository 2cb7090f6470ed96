"""Parquet with true types, written by pyarrow: a column of a batch is parsed in one call, and never value by value."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from exportapp.engine.encoders.templates import Values
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, FileOptions, Row

GROUP_ROWS = 16_384
GROUP_BYTES = 8 << 20  # raw; together they keep a chunk below 100 MB, pyarrow included
LONGEST_SHOWN = 40  # characters of a value in a sentence


class ParquetEncoder:
    """One file in row groups of bounded size; compressed in itself, page by page, with Zstandard."""

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        # Imported here: a process that writes other formats does without its 60 MB.
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        self._columns = columns
        self._schema = pyarrow.schema([(column.name, self._type(column)) for column in columns])
        self._file = _Drain()
        self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd", compression_level=1)
        self._group: list[Any] = []
        self._rows = self._bytes = 0

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
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
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
        # TIME goes from -838:59:59 to 838:59:59, and Parquet's times of day from 0 to 24 hours: it stays a text.
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
        return text if kind == text.type else text.cast(kind)

    def _refused(self, column: Column, values: Values, kind: Any) -> ExportError:
        for value in values:
            try:
                self._parsed(self._arrow.array([value], self._arrow.binary()), kind)
            except self._arrow.ArrowInvalid as error:
                shown = (value or b"").decode(errors="replace")[:LONGEST_SHOWN]
                return ExportError(f"The column {column.title} holds “{shown}”, which Parquet's type {kind} has not. Leave "
                                   "the column out, or choose CSV or JSON Lines.", permanent=True, detail=str(error))  # fmt: skip
        raise AssertionError("a column was refused and each of its values was not")


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
