"""A store in memory, with the same promises: for tests and for looking at the first rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from exportapp.engine.errors import ExportError


class MemoryStore:
    """Files in a dict."""

    def __init__(self, url: str = "memory:") -> None:
        self.files: dict[str, bytes] = {}

    def create(self, name: str) -> MemorySink:
        return MemorySink(self.files, name)

    def read(self, name: str) -> Iterator[bytes]:
        if name not in self.files:
            raise ExportError("A part of the export is missing from the store.", permanent=True, detail=name)
        yield self.files[name]

    def size(self, name: str) -> int | None:
        return len(self.files[name]) if name in self.files else None

    def free(self) -> int | None:
        return None

    def names(self, prefix: str) -> Iterator[str]:
        yield from sorted(name for name in self.files if name.startswith(prefix.rstrip("/") + "/"))

    def unfinished(self) -> Iterator[tuple[str, datetime]]:
        yield from ()

    def delete(self, prefix: str) -> None:
        self.files.pop(prefix, None)
        for name in list(self.names(prefix)):
            del self.files[name]

    def link(self, name: str, *, seconds: int, disposition: str, content_type: str, endpoint: str = "") -> str | None:
        return None


class MemorySink:
    def __init__(self, files: dict[str, bytes], name: str) -> None:
        self._files, self._name = files, name
        self._blocks: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._blocks.append(data)

    def finish(self) -> None:
        self._files[self._name] = b"".join(self._blocks)

    def abort(self) -> None:
        self._blocks = []
