"""Readers by the scheme of a source's URL."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from exportapp.engine.errors import ExportError
from exportapp.engine.readers.base import Reader as Reader

# Dotted names, imported at first use: the embedded default runs on machines without mysqlclient.
READERS = {
    "mysql": "exportapp.engine.readers.mysql:MySQLReader",
    "sqlite": "exportapp.engine.readers.sqlite:SQLiteReader",
}


@contextmanager
def open_reader(url: str) -> Iterator[Reader]:
    """A reader for a source's URL, closed at the end. Raises ExportError when the source cannot be reached."""
    scheme = url.partition(":")[0]
    if scheme not in READERS:
        raise ExportError("This source's address is not understood. An operator has to correct it.",
                          permanent=True, detail=f"unknown scheme {scheme!r}")  # fmt: skip
    module, _, name = READERS[scheme].partition(":")
    try:
        reader: Reader = getattr(importlib.import_module(module), name)(url)
    except ImportError as error:
        raise ExportError("This source's driver is not installed. An operator has to install it.",
                          permanent=True, detail=str(error)) from error  # fmt: skip
    try:
        yield reader
    finally:
        reader.close()
