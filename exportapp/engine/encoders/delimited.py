"""CSV by RFC 4180, in UTF-8, and TSV in the same way: what may be empty is always quoted, so that NULL (nothing) and ''
(two quotes) stay apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import replace

from exportapp.engine.encoders.formulas import all_defused, defused, quoted_defused
from exportapp.engine.encoders.templates import RowTemplates, Values, changed
from exportapp.engine.runs import grouped, runs_of
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES, Column, FileOptions, Row

BARE_TYPES = NUMBER_TYPES | MOMENT_TYPES | {"boolean"}  # never empty, and no delimiter, quote or line end in them
DELIMITERS = {",": "Comma", ";": "Semicolon", "\t": "Tab", "|": "Bar"}
NULLS = {"": "Nothing", "NULL": "NULL", "\\N": "\\N"}
BOM = b"\xef\xbb\xbf"


class CSVEncoder:
    """Separated values; binary columns as base64.

    A file of one column never writes NULL as nothing, but as \\N: most readers drop an empty line.
    """

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        self._columns = columns
        self._options = options
        groups = grouped(columns, lambda column: column.bare and column.type in BARE_TYPES)
        bare = [group[0].type in BARE_TYPES for group in groups]
        self._quoted = bare.count(False)
        self._care = [_CARE.get(group[0].type, self._text) for group in groups]
        self._plain = all(column.type != "binary" for column in columns)
        null = null_text(options, len(columns)).encode()
        fields = [b"%b" if plain else b'"%b"' for plain in bare]
        delimiter = options.delimiter.encode()
        self.runs = runs_of(groups, null.decode(), lambda column: options.delimiter)
        self._tabs = len(columns) - 1 if options.delimiter == "\t" else 0
        nulls = [null if len(group) == 1 else None for group in groups]
        self._templates = RowTemplates(fields, nulls, lambda parts: delimiter.join(parts) + b"\r\n")

    def start(self) -> bytes:
        named = self._options.header == "names"
        titles = [(column.name if named else column.title).encode() for column in self._columns]
        line = self._options.delimiter.encode().join(b'"' + self._escaped(title) + b'"' for title in titles)
        return (BOM if self._options.bom else b"") + line + b"\r\n"

    def encode(self, rows: Sequence[Row]) -> bytes:
        if self._plain:
            block = self._templates.rows(rows)
            if block is not None and self._is_well_formed(block, rows):
                return block if self._options.exact else quoted_defused(block)
            del block
        columns: list[Values] = list(zip(*rows, strict=True)) or [()] * len(self._care)
        return self._templates.columns(
            [care(column) if care else column for column, care in zip(columns, self._care, strict=True)]
        )

    def _is_well_formed(self, block: bytes, rows: Sequence[Row]) -> bool:
        """Whether no text has a quote, and none could begin with a line end or a tab."""
        # Two quotes a quoted value and not one more: then no value has a quote of its own.
        if block.count(b'"') != 2 * len(rows) * self._quoted:
            return False
        if self._options.exact or not self._quoted:
            return True
        tabs = b"\t" in block and block.count(b"\t") != self._tabs * len(rows)
        return not tabs and block.count(b"\n") == len(rows) and block.count(b"\r") == len(rows)

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


def _base64(column: Values) -> Values:
    return [None if value is None else b64encode(value) for value in column]


_CARE: dict[str, Callable[[Values], Values] | None] = {**dict.fromkeys(BARE_TYPES, None), "binary": _base64}
