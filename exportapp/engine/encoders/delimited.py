"""CSV by RFC 4180, in UTF-8: what may be empty is always quoted, so that NULL (nothing) and '' (two quotes) stay apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from exportapp.engine.encoders.templates import RowTemplates
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES, Column, FileOptions, Row

BARE_TYPES = NUMBER_TYPES | MOMENT_TYPES | {"boolean"}  # never empty, and no comma, quote or line end in them


class CSVEncoder:
    """Comma-separated values; binary columns as base64.

    A file of one column writes NULL as \\N: an empty line would be dropped by most readers.
    """

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        self._columns = columns
        bare = [column.type in BARE_TYPES for column in columns]
        self._quoted = [index for index, plain in enumerate(bare) if not plain]
        self._binary = [index for index, column in enumerate(columns) if column.type == "binary"]
        null = b"\\N" if len(columns) == 1 else b""
        fields = [b"%b" if plain else b'"%b"' for plain in bare]
        self._templates = RowTemplates(fields, [null] * len(columns), lambda parts: b",".join(parts) + b"\r\n")

    def start(self) -> bytes:
        names = ['"' + column.name.replace('"', '""') + '"' for column in self._columns]
        return ",".join(names).encode() + b"\r\n"

    def encode(self, rows: Sequence[Row]) -> bytes:
        if self._binary:
            rows = [self._with_base64(row) for row in rows]
        block = self._templates.write(rows)
        # Two quotes a quoted value and not one more: then no value had a quote of its own, and all is well-formed.
        nulls = sum(row[index] is None for row in rows for index in self._quoted) if self._may_hold_null(rows) else 0
        if block.count(b'"') == 2 * (len(rows) * len(self._quoted) - nulls):
            return block
        return self._templates.write([self._doubled(row) for row in rows])

    def _may_hold_null(self, rows: Sequence[Row]) -> bool:
        return any(None in row for row in rows)

    def _doubled(self, row: Row) -> Row:
        values = list(row)
        for index in self._quoted:
            value = values[index]
            if value is not None and b'"' in value:
                values[index] = value.replace(b'"', b'""')
        return tuple(values)

    def _with_base64(self, row: Row) -> Row:
        values = list(row)
        for index in self._binary:
            value = values[index]
            values[index] = None if value is None else b64encode(value)
        return tuple(values)

    def finish(self) -> bytes:
        return b""
