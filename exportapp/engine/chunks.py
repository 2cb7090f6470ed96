"""Writes one piece: reader -> encoder -> compressor -> sink, in memory bounded by a batch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import Interrupted
from exportapp.engine.keyranges import key_of
from exportapp.engine.readers.base import Reader
from exportapp.engine.runs import Layout
from exportapp.engine.sinks.base import Sink, Store
from exportapp.engine.specs import ChunkSpec, PieceResult, Row
from exportapp.engine.zones import in_zone, moved

LARGE_BLOCK = 4 << 20  # bytes; of larger ones no second is made before the first is gone


def write_piece(
    spec: ChunkSpec,
    reader: Reader,
    store: Store,
    *,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda rows, size: None,
) -> PieceResult:
    """Writes the piece `spec.name` and says what is in it.

    Ends early when `spec.seconds` are over or `stopping()` says so: with a key that can be resumed the rest is left for
    a remainder (`last_key`), from the next change of key on; without one, or where the piece is to be whole, `stopping`
    raises Interrupted and time alone ends nothing. `progress(rows, bytes)` is called after each batch and at the end, and
    may raise to give up. Whatever is raised, nothing stays under the name.
    """
    columns, shifts = in_zone(reader.typed(spec.query), spec.zone)
    form = FORMATS[spec.format]
    encoder = form.encoder(columns, spec.options)
    resumable = bool(spec.query.key) and form.joins and not spec.whole and reader.can_resume(spec.query)
    layout = Layout(len(spec.query.read), encoder.runs)
    width = layout.place(len(columns) - 1) + 1
    moves = {layout.place(index): shift for index, shift in shifts.items()}

    def key(row: Row) -> Row:
        return tuple(layout.value(row, place) for place in spec.query.key_places)

    writer = _Writer(store.create(spec.name), spec.compression)
    try:
        writer.write(encoder.start() if spec.first else b"")
        rows, ending, last_key = 0, False, None
        before: Row = ()  # the key of the row before
        deadline = time.monotonic() + spec.seconds
        for batch in reader.stream(spec.query, spec.range, spec.comment, encoder.runs):
            if ending and (end := _first_change(batch, before, key)) is not None:
                before = key(batch[end - 1]) if end else before
                last_key = key_of(spec.query.key, before)
                batch = batch[:end]
            if batch:
                before = key(batch[-1])
                rows += len(batch)
                if len(batch[0]) > width:
                    batch = [row[:width] for row in batch]
                writer.write(encoder.encode(moved(batch, moves) if moves else batch))
                progress(rows, writer.bytes)
            del batch  # before the next is fetched: a row may have 16 MB
            if last_key is not None:
                break
            ending = stopping() or (resumable and time.monotonic() >= deadline)
            if ending and not resumable:
                raise Interrupted
        writer.write(encoder.finish())
        writer.flush()
        progress(rows, writer.bytes)
        return PieceResult(spec.name, rows, *writer.finish(), last_key, tuple(columns[index].title for index in shifts))
    except BaseException:
        writer.abort()
        raise


def _first_change(batch: list[Row], before: Row, key: Callable[[Row], Row]) -> int | None:
    """How many rows of a batch still have the key `before`, that of the row before them; None when all of them have.

    The key of a view or a query is unique by declaration only, and a remainder starts behind the last key: a piece that
    ended between two rows of one key would lose the second.
    """
    return next((index for index, row in enumerate(batch) if key(row) != before), None)


class _Writer:
    """Compresses into a sink, counting and hashing what arrives there.

    In a thread of its own, one block behind: zlib, hashlib, files and sockets all let other threads run meanwhile.
    """

    def __init__(self, sink: Sink, compression: str) -> None:
        self._sink = sink
        self._compressor = COMPRESSIONS[compression].open()
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[None] | None = None
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Hands a block over; what went wrong with the one before is raised here."""
        self._wait()
        if len(data) > LARGE_BLOCK:
            self._pass_on(data)
        elif data:
            self._pending = self._thread.submit(self._pass_on, data)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _pass_on(self, data: bytes) -> None:
        self._store(self._compressor.compress(data))

    def _store(self, data: bytes) -> None:
        if data:
            self._hash.update(data)
            self.bytes += len(data)
            self._sink.write(data)

    def flush(self) -> None:
        """Has all of the file in the sink, and still under no name."""
        self._wait()
        self._thread.shutdown()
        self._store(self._compressor.finish())

    def finish(self) -> tuple[int, str]:
        self._sink.finish()
        return self.bytes, self._hash.hexdigest()

    def abort(self) -> None:
        self._thread.shutdown()
        self._sink.abort()
