"""Where a command writes an export to, and what it tells a terminal meanwhile."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from django.core.management.base import OutputWrapper

from exportapp import lifecycle
from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.local import rename_durably
from exportapp.engine.specs import PieceResult

REDRAW_SECONDS = 0.2
BAR = 20  # characters


class Output:
    """The one file of a store of its own: under its name is all of it, or what was there before.

    "-" is the standard output. That, and what is no regular file, such as a device, is written to as it goes.
    """

    def __init__(self, name: str) -> None:
        self._path = Path(os.path.realpath(name))  # behind a link: what it names is replaced, and not the link
        self._part: Path | None = None
        if name == "-":
            self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        elif self._path.exists() and not self._path.is_file():
            self._file = self._path.open("wb")
        else:
            # Of a name that nobody else has: two exports may be under way to the same place.
            self._part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.part")
            self._file = self._part.open("xb")
            if self._path.exists():
                shutil.copymode(self._path, self._part)

    def create(self, name: str) -> Output:
        return self

    def write(self, data: bytes) -> None:
        with _explained():
            self._file.write(data)

    def finish(self) -> None:
        with _explained():
            self._file.flush()
            if self._part:
                os.fsync(self._file.fileno())
            self._file.close()
            if self._part:
                rename_durably(self._part, self._path)

    def abort(self) -> None:
        with suppress(OSError):
            self._file.close()
        if self._part:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(f"The output cannot be written: {error.strerror}.") from error


class Progress:
    """What is done so far: on a terminal a line drawn again and again, elsewhere nothing until the end."""

    def __init__(self, stream: OutputWrapper, quiet: bool, most: int) -> None:
        self._stream, self._quiet, self._most = stream, quiet, most
        self.drawn = not quiet and stream.isatty()
        self._expected = 0
        self._shown = ""

    def __enter__(self) -> Self:
        self._began = self._shown_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds = max(time.monotonic() - self._began, 0.001)
        self._show("")

    def begin(self, expected: int) -> None:
        """Shows the line, before the first row is there."""
        self._expected = expected
        self._show(self._line(0))

    def __call__(self, rows: int, size: int) -> None:
        if self._most and rows > self._most:
            raise ExportError(lifecycle.too_many(self._most), permanent=True)
        if self.drawn and time.monotonic() - self._shown_at >= REDRAW_SECONDS:
            self._show(self._line(rows))

    def _line(self, rows: int) -> str:
        told = f"{rows:,} rows  {rows / max(time.monotonic() - self._began, 0.001):,.0f} rows/s"
        if not self._expected:
            return told
        share = min(rows / self._expected, 0.99)  # it is an estimate: what is complete says so by ending
        return f"[{'#' * int(share * BAR):-<{BAR}}] about {share:.0%}  {told}"

    def _show(self, line: str) -> None:
        """Draws over the line before; one that the terminal would break in two could not be drawn over."""
        if not self.drawn:
            return
        line = line[: _width(self._stream) - 1]
        blank = " " * len(self._shown)
        self._stream.write(f"\r{blank}\r{line}", str, ending="")
        self._stream.flush()
        self._shown, self._shown_at = line, time.monotonic()

    def told(self, piece: PieceResult) -> None:
        """Says what has been written, and how fast."""
        if not self._quiet:
            speed = piece.rows / self._seconds
            self._stream.write(f"{piece.rows:,} rows, {piece.bytes:,} bytes, {speed:,.0f} rows/s", str)


def _width(stream: OutputWrapper) -> int:
    with suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or 80  # a terminal that does not know its size says 0
    return 80
