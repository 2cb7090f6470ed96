"""Files in a folder of this machine: written beside their place, synced, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.base import BLOCK

UNFINISHED = ".part"


class LocalStore:
    """A folder given as `file:///absolute/path`."""

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(urlsplit(url).path))

    def path(self, name: str) -> Path:
        """The path of a name, which cannot leave the folder."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(f"{name!r} leaves the store")
        return path

    def create(self, name: str) -> LocalSink:
        with _explained():
            return LocalSink(self.path(name))

    def read(self, name: str) -> Iterator[bytes]:
        with _explained(), self.path(name).open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    def size(self, name: str) -> int | None:
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def free(self) -> int | None:
        with _explained():
            there = next(folder for folder in (self.root, *self.root.parents) if folder.is_dir())
            return shutil.disk_usage(there).free

    def names(self, prefix: str) -> Iterator[str]:
        for path in sorted(self.path(prefix).rglob("*")):
            if path.is_file() and not path.name.endswith(UNFINISHED):
                yield str(path.relative_to(self.root.resolve()))

    def unfinished(self) -> Iterator[tuple[str, datetime]]:
        for path in sorted(self.path("").rglob(f"*{UNFINISHED}")):
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                yield str(path.relative_to(self.root.resolve())).removesuffix(UNFINISHED), written

    def delete(self, prefix: str) -> None:
        path = self.path(prefix)
        with _explained():
            if path.is_dir():
                with contextlib.suppress(FileNotFoundError):  # somebody else is deleting it, too
                    shutil.rmtree(path)
            else:
                for one in (path, path.with_name(path.name + UNFINISHED)):
                    one.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # the folder goes with its last file
                    path.parent.rmdir()

    def link(self, name: str, *, seconds: int, disposition: str, content_type: str, endpoint: str = "") -> str | None:
        return None


class LocalSink:
    """One file on the way: complete under its name after `finish`, absent before and after `abort`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + UNFINISHED)
        _make_durably(path.parent)
        descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=BLOCK)

    def write(self, data: bytes) -> None:
        with _explained():
            self._file.write(data)

    def finish(self) -> None:
        with _explained():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            rename_durably(self._part, self._path)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


def rename_durably(before: Path, after: Path) -> None:
    """Renames a synced file within its folder, so that the new name outlives a power cut. Raises OSError."""
    before.rename(after)
    _sync(after.parent)


def _make_durably(folder: Path) -> None:
    """Makes a folder, and those above it that are missing: each is a name in the one above, which is synced for it."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    except FileNotFoundError:
        _make_durably(folder.parent)
        _make_durably(folder)  # once more from the start: somebody may have taken away what was just made
        return
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ExportError(
            "A part of the export is missing from the store.", permanent=True, detail=str(error)
        ) from error
    except OSError as error:
        raise ExportError("The export desk's storage is full or does not answer.", detail=str(error)) from error
