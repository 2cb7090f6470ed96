"""JSON Lines: an object a row. Numbers keep all their digits, because they are never parsed on the way."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring

from exportapp.engine.encoders.templates import RowTemplates
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import NUMBER_TYPES, Column, FileOptions, Row

_JSON_NUMBER = re.compile(rb"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")  # RFC 8259, section 6


class JSONLinesEncoder:
    """One JSON object a line: numbers as numbers, binary as base64, JSON columns embedded, the rest as texts."""

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        self._columns = columns
        self._writers = [_WRITERS.get(column.type, _text) for column in columns]
        names = [json.dumps(column.name, ensure_ascii=False).encode().replace(b"%", b"%%") for column in columns]
        fields = [name + b":%b" for name in names]
        nulls = [name + b":null" for name in names]
        self._templates = RowTemplates(fields, nulls, lambda parts: b"{" + b",".join(parts) + b"}\n")

    def start(self) -> bytes:
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        try:
            return self._templates.write([self._row(row) for row in rows])
        except UnicodeDecodeError as error:
            raise ExportError("A text column holds bytes that are no UTF-8 text. Leave the column out, or choose CSV.",
                              permanent=True, detail=str(error)) from error  # fmt: skip

    def _row(self, row: Row) -> Row:
        return tuple(None if value is None else write(value) for write, value in zip(self._writers, row, strict=True))

    def finish(self) -> bytes:
        return b""


def _text(raw: bytes) -> bytes:
    return encode_basestring(raw.decode()).encode()


def _number(raw: bytes) -> bytes:
    return raw if _JSON_NUMBER.fullmatch(raw) else _text(raw)


def _boolean(raw: bytes) -> bytes:
    return {b"0": b"false", b"1": b"true"}.get(raw) or _number(raw)


def _binary(raw: bytes) -> bytes:
    return b'"' + b64encode(raw) + b'"'


def _json(raw: bytes) -> bytes:
    try:
        json.loads(raw.decode(), parse_float=str, parse_int=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _text(raw)
    # Embedded as it was written: parsed and written anew, digits, repeated names and escapes would change. In JSON that
    # was accepted, a line end stands between the values alone.
    return raw.strip().translate(_ONE_LINE)


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_WRITERS: dict[str, Callable[[bytes], bytes]] = {
    **dict.fromkeys(NUMBER_TYPES, _number),
    "boolean": _boolean,
    "binary": _binary,
    "json": _json,
}
