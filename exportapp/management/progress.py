"""What a command tells a terminal while it exports, and how much it was in the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO, cast

from django.core.management.base import OutputWrapper

from exportapp import lifecycle
from exportapp.datasets import Dataset
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import PieceResult

REDRAW_SECONDS = 0.2
BAR = 20  # characters


class Unheard(OutputWrapper):
    """A standard stream that may be closed (2>&-), on a full disk, or a pipe that nobody reads.

    What is said there matters less than the export and its exit code, which scripts go by.
    """

    def __init__(self, stream: OutputWrapper) -> None:
        super().__init__(cast(TextIO, stream))
        self._stream = stream

    def write(  # type: ignore[override]  # as Django's own
        self, msg: str = "", style_func: Callable[[str], str] | None = None, ending: str | None = None
    ) -> None:
        try:
            self._stream.write(msg, style_func, ending)
            self._stream.flush()
        except AttributeError:  # Python has None for a stream that is closed
            pass
        except OSError:
            # Python tries again at its end with what it could not write, and would make the exit code 120 of that.
            with suppress(OSError), open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())


class Progress:
    """What is done so far: on a terminal a line drawn again and again, elsewhere nothing until the end."""

    def __init__(self, stream: OutputWrapper, quiet: bool, dataset: Dataset) -> None:
        self._stream, self._quiet, self._dataset = stream, quiet, dataset
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
        if sentence := lifecycle.too_much(self._dataset, rows, size):
            raise ExportError(sentence, permanent=True)
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
