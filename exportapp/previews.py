"""The first rows of a recipe as the file will show them: written by the real encoder into memory, with little time to do it.

A source that hangs holds no request for longer: it is asked in a thread of its own, one at a time for each person.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from exportapp.engine.chunks import write_piece
from exportapp.engine.encoders import FORMATS
from exportapp.engine.encoders.delimited import null_text
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import Reader, open_reader
from exportapp.engine.readers.base import TooSlow
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import ChunkSpec, FileOptions, KeyRange, Query, Recipe

log = logging.getLogger(__name__)

ROWS = 20
SECONDS = 2.0  # all in all
STATEMENT_SECONDS = (1.2, 0.6)  # for the first rows of all; for any rows, when those take too long
MOST_BYTES = 4 << 20
AT_ONCE = 4  # of one process; what hangs is counted until it is cut

SILENT = f"The source did not answer within {SECONDS:g} seconds: no rows to show. The export itself may take its time."
CHANGED = "The form was changed meanwhile."
BUSY = "Many people are looking at first rows just now. They come with the next change."
TOO_LONG = "These rows are too long to be shown here."


@dataclass(frozen=True)
class Cell:
    """A value as it stands in the file; `missing` where it is NULL."""

    text: str
    missing: bool = False


@dataclass(frozen=True)
class Preview:
    """The header and the first rows, or the `problem` why there are none.

    `first` is False for rows that are in the file but may not be its first ones. `bytes` is what the rows take as text.
    """

    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    bytes: int = 0
    first: bool = True
    problem: str = ""

    @property
    def sample(self) -> tuple[int, int] | None:
        """Rows and their bytes, for the estimate."""
        return (len(self.rows), self.bytes) if self.rows else None


# --- writing ----------------------------------------------------------------------------------------------------------


def first_rows(url: str, query: Query, recipe: Recipe, comment: str, reading: Callable[[Reader], None]) -> Preview:
    """The preview of a recipe. Raises ExportError; TooSlow when the source could not give rows in time."""
    sooner, later = STATEMENT_SECONDS
    with open_reader(url) as reader:
        reading(reader)
        try:
            return _written(reader, query, recipe, comment, sooner)
        except TooSlow:
            if not query.key:
                raise
        # In the order of the key the rows of a late range may be found only at the end of the table.
        return replace(_written(reader, replace(query, key=()), recipe, comment, later), first=False)


def _written(reader: Reader, query: Query, recipe: Recipe, comment: str, seconds: float) -> Preview:
    reader.only_first(ROWS, seconds)
    form, options = _as_text(recipe)
    spec = ChunkSpec(
        query, KeyRange(), form, "none", "preview", True, comment, SECONDS, options, recipe.zone, whole=True
    )
    store = MemoryStore()
    rows = write_piece(spec, reader, store, progress=_bounded).rows
    text = store.files["preview"].decode("utf-8-sig", errors="replace")
    if FORMATS[form].typical.names:
        return Preview(("One line a row",), tuple((Cell(line),) for line in text.splitlines()), len(text.encode()))
    delimiter = options.delimiter if "delimiter" in FORMATS[form].options else "\t"
    header, *lines = parsed(text, delimiter, null_text(options, len(query.columns)))
    body = text.partition("\r\n")[2] if rows else ""
    return Preview(tuple(cell.text for cell in header), tuple(lines), len(body.encode()))


def _as_text(recipe: Recipe) -> tuple[str, FileOptions]:
    """The format that shows the rows, and its options: that of a text itself, CSV with values as they are for others."""
    if FORMATS[recipe.format].joins:
        return recipe.format, recipe.options
    heeded = "header" in FORMATS[recipe.format].options
    return "csv", FileOptions(header=recipe.options.header if heeded else "names", exact=True)


def _bounded(rows: int, size: int) -> None:
    if size > MOST_BYTES:
        raise ExportError(TOO_LONG)


def parsed(text: str, delimiter: str, null: str) -> list[tuple[Cell, ...]]:
    """The lines of a file that CSVEncoder wrote; what stands in it without quotes as `null` is missing."""
    field_of = re.compile(rf'(?:"((?:[^"]|"")*)"|([^"\r\n{re.escape(delimiter)}]*))({re.escape(delimiter)}|\r\n)')
    lines: list[tuple[Cell, ...]] = []
    line: list[Cell] = []
    for quoted, bare, end in (match.groups() for match in field_of.finditer(text)):
        line.append(Cell(bare, bare == null) if quoted is None else Cell(quoted.replace('""', '"')))
        if end == "\r\n":
            lines.append(tuple(line))
            line = []
    return lines


# --- one at a time ----------------------------------------------------------------------------------------------------


class Killable(Protocol):
    def kill(self) -> None: ...


@dataclass
class _Run:
    """A preview that is being written in its own thread."""

    over: threading.Event = field(default_factory=threading.Event)
    found: Preview | None = None
    given_up: bool = False
    reader: Killable | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reading(self, reader: Killable) -> None:
        with self.lock:
            self.reader = reader
            if self.given_up:
                raise ExportError(CHANGED)

    def give_up(self, sentence: str) -> None:
        """Lets the request go at once, and the query end by itself or by a kill, which may take as long as the source."""
        with self.lock:
            if self.found is None:
                self.given_up, self.found = True, Preview(problem=sentence)
        self.over.set()
        if self.given_up and self.reader:
            threading.Thread(target=self._kill, daemon=True).start()

    def _kill(self) -> None:
        with self.lock:
            if self.reader:
                self.reader.kill()

    def end(self, found: Preview) -> None:
        with self.lock:
            self.found, self.reader = self.found or found, None
        self.over.set()


_runs: dict[int, _Run] = {}
_lock = threading.Lock()
_room = threading.BoundedSemaphore(AT_ONCE)


def preview(person: int, url: str, query: Query, recipe: Recipe) -> Preview:
    """The first rows for a person, within SECONDS. A newer one ends the person's older one, which then has a problem."""
    run = _Run()
    with _lock:
        older, _runs[person] = _runs.get(person), run
    if older:
        older.give_up(CHANGED)
    if not _room.acquire(blocking=False):
        return Preview(problem=BUSY)
    threading.Thread(target=_write, args=(run, person, url, query, recipe), daemon=True).start()
    if not run.over.wait(SECONDS):
        run.give_up(SILENT)
    with _lock:
        if _runs.get(person) is run:
            del _runs[person]
    return run.found or Preview(problem=SILENT)


def _write(run: _Run, person: int, url: str, query: Query, recipe: Recipe) -> None:
    try:
        found = first_rows(url, query, recipe, f"exportapp preview for {person}", run.reading)
    except TooSlow:
        found = Preview(problem=SILENT)
    except ExportError as error:
        found = Preview(problem=error.sentence)
    except Exception:
        log.exception("a preview failed")
        found = Preview(problem="The first rows cannot be shown.")
    finally:
        _room.release()
    run.end(found)
