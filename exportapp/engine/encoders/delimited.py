"""CSV by RFC 4180, in UTF-8, and TSV in the same way: what may be empty is always quoted, so that NULL (nothing) and ''
(two quotes) stay apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import is_

from exportapp.engine.encoders.formulas import defused, may_hold_formula
from exportapp.engine.encoders.templates import RowTemplates, Values
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES, Column, FileOptions, Row

BARE_TYPES = NUMBER_TYPES | MOMENT_TYPES | {"boolean"}  # never empty, and no delimiter, quote or line end in them
DELIMITERS = {",": "Comma", ";": "Semicolon", "\t": "Tab", "|": "Bar"}
NULLS = {"": "Nothing", "NULL": "NULL", "\\N": "\\N"}
BOM = b"\xef\xbb\xbf"

# What formulas begin with, but for "-", which is everywhere, tabs and line ends; looked for with the quote before it.
_BEGINNINGS = (b"=", b"@", b"+", b"\0", b"\xef\xbc")


class CSVEncoder:
    """Separated values; binary columns as base64.

    A file of one column never writes NULL as nothing, but as \\N: most readers drop an empty line.
    """

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        self._columns = columns
        self._options = options
        bare = [column.type in BARE_TYPES for column in columns]
        self._quoted = bare.count(False)
        self._care = [_CARE.get(column.type, self._text) for column in columns]
        self._plain = all(column.type != "binary" for column in columns)  # the last rows needed no care
        null = options.null.encode() or (b"\\N" if len(columns) == 1 else b"")
        fields = [b"%b" if plain else b'"%b"' for plain in bare]
        delimiter = options.delimiter.encode()
        self._tabs = len(columns) - 1 if options.delimiter == "\t" else 0
        self._templates = RowTemplates(fields, [null] * len(columns), lambda parts: delimiter.join(parts) + b"\r\n")

    def start(self) -> bytes:
        named = self._options.header == "names"
        titles = [(column.name if named else column.title).encode() for column in self._columns]
        line = self._options.delimiter.encode().join(b'"' + self._escaped(title) + b'"' for title in titles)
        return (BOM if self._options.bom else b"") + line + b"\r\n"

    def encode(self, rows: Sequence[Row]) -> bytes:
        if self._plain:
            block = self._templates.rows(rows)
            if block is not None and not self._wants_care(block, rows):
                return block
        columns: list[Values] = list(zip(*rows, strict=True)) or [()] * len(self._columns)
        careful = [care(column) if care else column for column, care in zip(columns, self._care, strict=True)]
        self._plain = all(map(is_, columns, careful)) and not any(None in column for column in columns)
        return self._templates.columns(careful)

    def _wants_care(self, block: bytes, rows: Sequence[Row]) -> bool:
        """Whether a text may hold a quote or begin like a formula, seen in the block as a whole."""
        # Two quotes a quoted value and not one more: then no value has a quote of its own, and all is well-formed.
        if block.count(b'"') != 2 * len(rows) * self._quoted:
            return True
        if self._options.exact or not self._quoted:
            return False
        if b'"-' in block or block.count(b"\n") != len(rows) or block.count(b"\r") != len(rows):
            return True
        if b"\t" in block and block.count(b"\t") != self._tabs * len(rows):
            return True
        return any(byte in block and b'"' + byte in block for byte in _BEGINNINGS)

    def _text(self, column: Values) -> Values:
        """The column with quotes doubled and formulas made harmless; the very same one where nothing was to be done."""
        there = [value for value in column if value is not None]
        joined = b'"'.join(there)
        if joined.count(b'"') >= max(1, len(there)) or (not self._options.exact and may_hold_formula(joined)):
            return [None if value is None else self._escaped(value) for value in column]
        return column

    def _escaped(self, text: bytes) -> bytes:
        return (text if self._options.exact else defused(text)).replace(b'"', b'""')

    def finish(self) -> bytes:
        return b""


class TSVEncoder(CSVEncoder):
    """The same with tabs between."""

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        super().__init__(columns, replace(options, delimiter="\t"))


def _base64(column: Values) -> Values:
    return [None if value is None else b64encode(value) for value in column]


_CARE: dict[str, Callable[[Values], Values] | None] = {**dict.fromkeys(BARE_TYPES, None), "binary": _base64}
