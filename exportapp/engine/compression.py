"""Compressors: each piece is a stream of its own, so that compressed pieces still join by concatenation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zstandard
from isal import isal_zlib

GZIP_WINDOW = 31  # a window of 15 bits plus 16: the gzip wrapper, with no time and no name in it (zlib manual)


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def finish(self) -> bytes: ...


class Plain:
    """No compression."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class Gzip:
    """One gzip member (RFC 1952; members join by concatenation, section 2.2). The same input gives the same bytes."""

    def __init__(self) -> None:
        self._stream = isal_zlib.compressobj(level=1, wbits=GZIP_WINDOW)

    def compress(self, data: bytes, /) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


class Zstandard:
    """One frame with a checksum (RFC 8878; frames join by concatenation, section 3)."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()

    def compress(self, data: bytes, /) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


@dataclass(frozen=True)
class Compression:
    """`extension` is added to the format's; `content_type` replaces the format's when it is not ''."""

    label: str
    sentence: str
    extension: str
    content_type: str
    open: Callable[[], Compressor]


COMPRESSIONS: dict[str, Compression] = {
    "none": Compression("None", "As it is", "", "", Plain),
    "gzip": Compression("gzip", "Much smaller; every system opens it", ".gz", "application/gzip", Gzip),
    "zstd": Compression("Zstandard", "Smaller still, for programs that know it", ".zst", "application/zstd", Zstandard),
}
