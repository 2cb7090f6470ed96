"""Readers by the scheme of a source's URL."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exportapp.engine.errors import ExportError
from exportapp.engine.readers.base import Reader as Reader

# Dotted names, imported at first use: the embedded default runs on machines without mysqlclient.
READERS = {
    "mysql": "exportapp.engine.readers.mysql:MySQLReader",
    "sqlite": "exportapp.engine.readers.sqlite:SQLiteReader",
}


def _reader_class(url: str) -> type[Reader]:
    scheme = url.partition(":")[0]
    if scheme not in READERS:
        raise ExportError("This source's address is not understood. An operator has to correct it.",
                          permanent=True, detail=f"unknown scheme {scheme!r}")  # fmt: skip
    module, _, name = READERS[scheme].partition(":")
    try:
        found: type[Reader] = getattr(importlib.import_module(module), name)
        return found
    except ImportError as error:
        raise ExportError("This source's driver is not installed. An operator has to install it.",
                          permanent=True, detail=str(error)) from error  # fmt: skip


def end_queries(url: str, orphan: Callable[[str], bool]) -> int:
    """Ends the running queries at a source whose comment is an `orphan`; returns how many. Raises ExportError."""
    return _reader_class(url).end_queries(url, orphan)


@contextmanager
def open_reader(url: str) -> Iterator[Reader]:
    """A reader for a source's URL, closed at the end. Raises ExportError when the source cannot be reached."""
    reader = _reader_class(url)(url)
    try:
        yield reader
    finally:
        reader.close()
