"""What a store is: files under names, each complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

BLOCK = 1 << 20


class Sink(Protocol):
    """One file being written. Nothing is under its name before `finish`, and nothing at all after `abort`."""

    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


class Store(Protocol):
    """Where pieces and finished files live. Names are relative paths of safe characters. All raise ExportError."""

    def create(self, name: str) -> Sink:
        """A new file. A name is written once; writing it again replaces it whole."""

    def read(self, name: str) -> Iterator[bytes]:
        """The file in blocks; permanent ExportError when there is none."""

    def size(self, name: str) -> int | None:
        """The file's bytes, None when there is none."""

    def free(self) -> int | None:
        """How many bytes there is room for; None where nobody knows."""

    def names(self, prefix: str) -> Iterator[str]:
        """The names below the folder `prefix`, unfinished files excepted."""

    def unfinished(self) -> Iterator[tuple[str, datetime]]:
        """The names of files that were begun and not finished, each with the UTC time of its last sign of life."""

    def delete(self, prefix: str) -> None:
        """The file `prefix`, or all below the folder `prefix`, unfinished ones too; silent when there is nothing."""

    def link(self, name: str, *, seconds: int, disposition: str, content_type: str, endpoint: str = "") -> str | None:
        """An address that anybody can fetch the file from for `seconds`; None where there is no such thing.

        `endpoint` is the store as browsers reach it, if that differs.
        """
