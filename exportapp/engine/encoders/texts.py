"""Whether texts are UTF-8, which all formats but CSV have to know, and what to say of those that are not."""

from __future__ import annotations

import codecs

from exportapp.engine.errors import ExportError

_SLICE = 1 << 20


def check_utf8(data: bytes) -> None:
    """Raises ExportError. In slices, since a decoded text may take four times the bytes."""
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _SLICE):
            decoder.decode(data[start : start + _SLICE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise no_utf8(
            "A text column holds bytes that are", f"{error.reason}: {error.object[error.start : error.end]!r}"
        ) from error


def no_utf8(what_is: str, detail: str) -> ExportError:
    """The sentence for bytes that are no text; `what_is` begins it."""
    return ExportError(f"{what_is} no UTF-8 text. Leave the column out, or choose CSV.", permanent=True, detail=detail)
