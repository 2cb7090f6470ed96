"""manage.py run_export: writes an export into a file or a pipe, by the same engine as the workers, in this process."""

from __future__ import annotations

import json
import os
import signal
import threading
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter

from exportapp import datasets, receipts, recipes
from exportapp.engine.chunks import write_piece
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.encoders.delimited import NULLS
from exportapp.engine.errors import ExportError, Interrupted
from exportapp.engine.readers import Reader, open_reader
from exportapp.engine.sinks.base import Store
from exportapp.engine.specs import ChunkSpec, FileResult, KeyRange, PieceResult, Recipe
from exportapp.management import asked
from exportapp.management.asked import FAILED, LATER
from exportapp.management.output import Output
from exportapp.management.progress import Progress, Unheard
from exportapp.management.signals import ended_by_signals, held_back, ignore_signals

UNREAD = 128 + signal.SIGPIPE
PATIENCE = 10  # seconds until a thread that does not end is left where it is
HELP = r"""
conditions, of which all have to hold:
  --where COLUMN=VALUE      is the value
  --where COLUMN=A,B,C      is one of them; a comma within a value is written \,
  --where COLUMN=LOW..HIGH  is between, both included; for numbers and times, and one of them may be left out
  --where COLUMN~TEXT       contains the text
  --where COLUMN=           is empty
  --where COLUMN!=          is not empty

A file is complete or not there: it gets its name when all of it and of its receipt is on the disk, and what had the name
before stays until then. Everything that is not the export itself goes to the standard error.

exit codes:
  0    done
  1    it failed, and would fail again: a column that is gone, a right that the source does not grant
  2    the arguments are wrong
  75   it failed, and may succeed later: a database that does not answer, a full disk
  129  ended because its terminal was closed (SIGHUP)
  130  ended by Ctrl-C (SIGINT)
  141  what read the output or the receipt has ended before
  143  ended by SIGTERM
"""


class _Help(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    pass


class Command(BaseCommand):
    help = "Writes an export into a file or to the standard output. It needs no broker, no worker and no web server."
    requires_system_checks: list[str] = []  # they open every source

    _alone = False  # whether the process ends with the command

    def run_from_argv(self, argv: list[str]) -> None:
        self._alone = True
        super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class, parser.epilog = _Help, HELP
        parser.add_argument("dataset", help="its name in the datasets file")
        parser.add_argument("--output", required=True, metavar="PATH", help="the file; - is the standard output")
        parser.add_argument("--receipt", metavar="PATH", help="a file for the receipt (JSON)")
        parser.add_argument("--from", dest="start", metavar="TIME", help="2026-01-31 or '2026-01-31 14:30'")
        parser.add_argument("--to", dest="end", metavar="TIME", help="the end of the range, not included")
        parser.add_argument("--zone", default="UTC", help="of both, and of the times in the file; else UTC")
        parser.add_argument("--columns", metavar="A,B", help="else: those that the form ticks at first")
        parser.add_argument("--where", action="append", default=[], metavar="CONDITION", help="see below")
        parser.add_argument("--user", metavar="NAME", help="whose rights and rows count; else none are asked for")
        parser.add_argument("--format", default="csv", choices=FORMATS)
        parser.add_argument("--compression", default="none", choices=COMPRESSIONS)
        parser.add_argument("--header", choices=recipes.HEADERS, help="what the first row has; else labels")
        parser.add_argument("--delimiter", type=asked.delimiter, help=f"between the values: {', '.join(asked.NAMED)}")
        parser.add_argument("--null", choices=NULLS, help="what stands for missing values; else nothing")
        parser.add_argument("--bom", action="store_true", help="begin with a byte order mark, for older Excel")
        parser.add_argument("--exact", action="store_true",
                            help="machine exact: texts that look like formulas are left as they are")  # fmt: skip
        parser.add_argument("--quiet", action="store_true", help="no progress, and no line at the end")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stderr = Unheard(self.stderr)
        with ended_by_signals(for_good=self._alone):
            try:
                self._export(options)
            except ExportError as error:
                raise CommandError(str(error), returncode=FAILED if error.permanent else LATER) from error
            except BrokenPipeError:
                raise SystemExit(UNREAD) from None

    def _export(self, options: dict[str, Any]) -> None:
        asked.check_texts(options)
        dataset = asked.dataset(options["dataset"])
        recipe = asked.recipe(options, dataset)
        person = asked.person(options["user"], dataset)
        progress = Progress(self.stderr, options["quiet"] or not options["verbosity"], dataset)
        places = [Output(option, options[option]) for option in ("output", "receipt") if options[option] is not None]
        output, *others = places
        with _opened(places):
            began = datetime.now(UTC)
            with progress:
                url = datasets.catalogue().sources[dataset.source].url
                reading = _Reading(url, _spec(recipe, dataset, person), lambda: _abort(places))
                piece = reading.piece(output, progress)
            for receipt in others:
                receipt.write(_receipt(recipe, piece, began, person, dataset))
                receipt.finish()
            ignore_signals()  # the new file and the new receipt belong together
            for place in places:
                place.publish()
            progress.told(piece)


class _Reading:
    """Reads in a thread: the driver waits for the server in C, and the main thread would hear no signal meanwhile."""

    def __init__(self, url: str, spec: ChunkSpec, abort: Callable[[], None]) -> None:
        self._url, self._spec, self._abort = url, spec, abort
        self._stop = threading.Event()
        self._reader: Reader | None = None
        self._reading: Future[PieceResult] | None = None

    def piece(self, output: Output, progress: Progress) -> PieceResult:
        with ThreadPoolExecutor(1, "reader") as pool:
            try:
                return self._begun(pool, output, progress).result()
            except SystemExit as end:
                self._stop.set()
                if self._reader:
                    self._reader.kill()
                if self._reading and wait([self._reading], PATIENCE).not_done:  # in a pipe that nobody reads, say
                    self._abort()
                    os._exit(cast(int, end.code))
                raise

    def _begun(self, pool: ThreadPoolExecutor, output: Output, progress: Progress) -> Future[PieceResult]:
        with held_back():  # until it is known what a signal is to end
            self._reading = pool.submit(self._piece, output, progress)
            return self._reading

    def _piece(self, output: Output, progress: Progress) -> PieceResult:
        with open_reader(self._url) as reader:
            self._reader = reader
            if self._stop.is_set():
                raise Interrupted
            if progress.drawn:
                # Without its key: nothing is going to be cut, so that the number of rows is all that is asked.
                progress.begin(reader.plan(replace(self._spec.query, key=()), 1, self._spec.comment).rows)
            store = cast(Store, output)  # as much of one as writing a piece needs
            return write_piece(self._spec, reader, store, stopping=self._stop.is_set, progress=progress)


@contextmanager
def _opened(places: Sequence[Output]) -> Iterator[None]:
    """Within, the places can be written to; what was not published by the end is gone."""
    try:
        try:
            for place in places:
                _open(place)
            yield
        finally:
            ignore_signals()  # or the first of them would leave what is aborted below
    finally:
        _abort(places)


def _open(place: Output) -> None:
    try:
        place.open()
    except OSError as error:
        raise asked.wrong({place.option: f"{place.name} cannot be written: {error.strerror}."}) from error


def _abort(places: Sequence[Output]) -> None:
    for place in places:
        place.abort()


def _receipt(recipe: Recipe, piece: PieceResult, began: datetime, person: User, dataset: datasets.Dataset) -> bytes:
    made = receipts.receipt(
        recipe,
        [piece],
        FileResult(piece.name, piece.rows, piece.bytes, piece.sha256),
        read_from=began.isoformat(),
        read_until=datetime.now(UTC).isoformat(),
        user=person.username,
        rule=dataset.row_rule,
    )
    return json.dumps(made, indent=2, ensure_ascii=False).encode() + b"\n"


def _spec(recipe: Recipe, dataset: datasets.Dataset, person: User) -> ChunkSpec:
    return ChunkSpec(
        query=recipes.query_for(recipe, dataset, person),
        range=KeyRange(),
        format=recipe.format,
        compression=recipe.compression,
        name="output",
        first=True,
        comment=f"exportapp run_export={dataset.name} process={os.getpid()}",
        seconds=0,
        options=recipe.options,
        zone=recipe.zone,
        whole=True,
    )
