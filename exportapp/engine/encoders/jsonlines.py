"""JSON Lines: an object a row. Numbers keep all their digits, because they are never parsed on the way."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Sequence

from exportapp.engine.encoders.jsonscan import is_json
from exportapp.engine.encoders.templates import RowTemplates, changed
from exportapp.engine.encoders.texts import check_utf8
from exportapp.engine.runs import grouped, runs_of
from exportapp.engine.specs import NUMBER_TYPES, Column, FileOptions, Row, Values

_JSON_NUMBER = re.compile(rb"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")  # RFC 8259, section 6
_ESCAPES = {bytes([code]): b"\\u%04x" % code for code in range(32)} | {
    b"\b": b"\\b", b"\t": b"\\t", b"\n": b"\\n", b"\f": b"\\f", b"\r": b"\\r",
}  # fmt: skip
_SPECIAL = b'"\\' + b"".join(_ESCAPES)
_BARE = NUMBER_TYPES | {"boolean", "binary", "json"}  # quoted by their writers, where they are quoted


class JSONLinesEncoder:
    """One JSON object a line: numbers as numbers, binary as base64, JSON columns embedded, the rest as texts."""

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        groups = grouped(columns, lambda column: column.bare and _writer(column) is None)
        self.runs = runs_of(groups, "null", lambda column: f",{_named(column)}")
        self._writers = [_writer(group[0]) for group in groups]
        self._plain = all(writer in (None, _texts) for writer in self._writers)
        names = [_named(group[0]).encode() for group in groups]
        values = [b"%b" if group[0].type in _BARE else b'"%b"' for group in groups]
        fields = [name.replace(b"%", b"%%") + value for name, value in zip(names, values, strict=True)]
        nulls = [name + b"null" if len(group) == 1 else None for name, group in zip(names, groups, strict=True)]
        empty = tuple("".join(f",{_named(column)}" for column in group[1:]).encode() for group in groups)
        self._templates = RowTemplates(fields, nulls, lambda parts: b"{" + b",".join(parts) + b"}\n", empty, _SPECIAL)

    def start(self) -> bytes:
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        block = self._templates.rows(rows) if self._plain else None
        if block is not None:
            check_utf8(block)
            return block
        columns: list[Values] = list(zip(*rows, strict=True)) or [()] * len(self._writers)
        written = [write(column) if write else column for column, write in zip(columns, self._writers, strict=True)]
        return self._templates.columns(written)

    def finish(self) -> bytes:
        return b""


def _named(column: Column) -> str:
    return json.dumps(column.name, ensure_ascii=False) + ":"


def _texts(column: Values) -> Values:
    return changed(column, _escaped, _escaped)


def _escaped(text: bytes) -> bytes:
    check_utf8(text)
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    for control, escape in _ESCAPES.items():
        text = text.replace(control, escape)
    return text


def _text(raw: bytes) -> bytes:
    return b'"' + _escaped(raw) + b'"'


def _number(raw: bytes) -> bytes:
    return raw if _JSON_NUMBER.fullmatch(raw) else _text(raw)


def _boolean(raw: bytes) -> bytes:
    return {b"0": b"false", b"1": b"true"}.get(raw) or _number(raw)


def _binary(raw: bytes) -> bytes:
    return b'"' + b64encode(raw) + b'"'


def _json(raw: bytes) -> bytes:
    check_utf8(raw)
    if not is_json(raw):
        return _text(raw)
    # Embedded as it was written: parsed and written anew, digits, repeated names and escapes would change. In JSON that
    # was accepted, a line end stands between the values alone.
    return raw.strip().translate(_ONE_LINE)


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _each(write: Callable[[bytes], bytes]) -> Callable[[Values], Values]:
    return lambda column: [None if value is None else write(value) for value in column]


_NUMBERS, _BOOLEANS, _BINARIES, _JSONS = map(_each, (_number, _boolean, _binary, _json))
_WRITERS = {**dict.fromkeys(NUMBER_TYPES, _NUMBERS), "boolean": _BOOLEANS, "binary": _BINARIES, "json": _JSONS}


def _writer(column: Column) -> Callable[[Values], Values] | None:
    """What makes values of a column into JSON; None where they are JSON already."""
    if column.type in NUMBER_TYPES and column.plain_number:
        return None
    return _WRITERS.get(column.type, _texts)
