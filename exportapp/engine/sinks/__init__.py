"""Stores by the scheme of their URL."""

from __future__ import annotations

import importlib

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.base import Store

STORES = {
    "file": "exportapp.engine.sinks.local:LocalStore",
    "s3": "exportapp.engine.sinks.s3:S3Store",
    "memory": "exportapp.engine.sinks.memory:MemoryStore",
}


def open_store(url: str) -> Store:
    """The store for `file:///folder` or `s3://bucket/prefix?endpoint=...`."""
    scheme = url.partition(":")[0]
    if scheme not in STORES:
        raise ExportError("The export desk's storage is not set up. An operator has to correct it.",
                          permanent=True, detail=f"unknown scheme {scheme!r}")  # fmt: skip
    module, _, name = STORES[scheme].partition(":")
    store: Store = getattr(importlib.import_module(module), name)(url)
    return store
