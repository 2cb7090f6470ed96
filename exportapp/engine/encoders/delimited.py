"""CSV by RFC 4180, in UTF-8, and TSV in the same way: what may be empty is always quoted, so that NULL (nothing) and ''
(two quotes) stay apart."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace

from exportapp.engine.encoders.formulas import all_defused, defused, is_formula, quoted_defused
from exportapp.engine.encoders.templates import BETWEEN, RowTemplates, changed
from exportapp.engine.runs import grouped, runs_of
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES, Column, FileOptions, Row, Values

BARE_TYPES = NUMBER_TYPES | MOMENT_TYPES | {"boolean"}  # never empty, and no delimiter, quote or line end in them
DELIMITERS = {",": "Comma", ";": "Semicolon", "\t": "Tab", "|": "Bar"}
NULLS = {"": "Nothing", "NULL": "NULL", "\\N": "\\N"}
BOM = b"\xef\xbb\xbf"
_CLOCK = re.compile(rb"[+-]?[0-9:.]*+")  # no cell of a sheet can be named in it


class CSVEncoder:
    """Separated values; binary columns as base64.

    A file of one column never writes NULL as nothing, but as \\N: most readers drop an empty line.
    """

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        self._columns = columns
        self._options = options
        groups = grouped(columns, lambda column: column.bare and column.type in BARE_TYPES)
        bare = [group[0].type in BARE_TYPES for group in groups]
        self._care = [self._writer(group[0]) for group in groups]
        # Of a database without types: it may hold "+T1+Z2", which adds up two cells of a sheet.
        self._loose = [place for place, care in enumerate(self._care) if care == self._moment]
        self._plain = all(column.type != "binary" for column in columns)
        null = null_text(options, len(columns)).encode()
        fields = [b"%b" if plain else b'"%b"' for plain in bare]
        delimiter = options.delimiter.encode()
        self.runs = runs_of(groups, null.decode(), lambda column: options.delimiter)
        empty = tuple(delimiter * (len(group) - 1) for group in groups)
        # A quote has to be doubled, and what begins with a blank may be a formula.
        special = b'"' if options.exact else b'"\t\r\n'
        nulls = [null if len(group) == 1 else None for group in groups]
        self._templates = RowTemplates(fields, nulls, lambda parts: delimiter.join(parts) + b"\r\n", empty, special)

    def start(self) -> bytes:
        named = self._options.header == "names"
        titles = [(column.name if named else column.title).encode() for column in self._columns]
        line = self._options.delimiter.encode().join(b'"' + self._escaped(title) + b'"' for title in titles)
        return (BOM if self._options.bom else b"") + line + b"\r\n"

    def encode(self, rows: Sequence[Row]) -> bytes:
        if self._plain and not any(_has_signs([row[place] for row in rows]) for place in self._loose):
            block = self._templates.rows(rows)
            if block is not None:
                return block if self._options.exact else quoted_defused(block)
        columns: list[Values] = list(zip(*rows, strict=True)) or [()] * len(self._care)
        return self._templates.columns(
            [care(column) if care else column for column, care in zip(columns, self._care, strict=True)]
        )

    def _writer(self, column: Column) -> Callable[[Values], Values] | None:
        """What makes the values of a column harmless; None where they are."""
        if column.type == "binary":
            return self._base64
        if column.type not in BARE_TYPES:
            return self._text
        return None if column.bare or column.type not in MOMENT_TYPES or self._options.exact else self._moment

    def _base64(self, column: Values) -> Values:
        return self._text([None if value is None else b64encode(value) for value in column])

    def _moment(self, column: Values) -> Values:
        if not _has_signs(column):
            return column
        return [
            _quoted(value) if value and is_formula(value) and not _CLOCK.fullmatch(value) else value for value in column
        ]

    def _text(self, column: Values) -> Values:
        return changed(column, self._all_escaped, self._escaped)

    def _escaped(self, text: bytes) -> bytes:
        return (text if self._options.exact else defused(text)).replace(b'"', b'""')

    def _all_escaped(self, texts: bytes) -> bytes:
        return (texts if self._options.exact else all_defused(texts)).replace(b'"', b'""')

    def finish(self) -> bytes:
        return b""


class TSVEncoder(CSVEncoder):
    """The same with tabs between."""

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        super().__init__(columns, replace(options, delimiter="\t"))


def null_text(options: FileOptions, width: int) -> str:
    """What stands for NULL in a file of `width` columns."""
    return options.null or ("\\N" if width == 1 else "")


def told(options: FileOptions, width: int) -> str:
    """How values are written, as a sentence for the receipt."""
    null = null_text(options, width)
    texts = "as stored" if options.exact else "as stored, with an apostrophe before those that look like formulas"
    return f"NULL is {null or 'nothing'} and an empty text two quotes; texts are {texts}."


def _quoted(moment: bytes) -> bytes:
    return b'"' + defused(moment).replace(b'"', b'""') + b'"'


def _has_signs(column: Values) -> bool:
    """Whether a value may begin with a sign."""
    joined = BETWEEN + BETWEEN.join(filter(None, column))
    return BETWEEN + b"-" in joined or BETWEEN + b"+" in joined
