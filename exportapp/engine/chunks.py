"""Writes one piece: reader -> encoder -> compressor -> sink, in memory bounded by a batch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import Interrupted
from exportapp.engine.keyranges import key_of
from exportapp.engine.readers.base import Reader
from exportapp.engine.sinks.base import Sink, Store
from exportapp.engine.specs import ChunkSpec, Key, PieceResult, Row


def write_piece(
    spec: ChunkSpec,
    reader: Reader,
    store: Store,
    *,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda rows, size: None,
) -> PieceResult:
    """Writes the piece `spec.name` and says what is in it.

    Ends early when `spec.seconds` are over or `stopping()` says so: with a key the rest is left for a remainder
    (`last_key`); without one, `stopping` raises Interrupted and time alone ends nothing. `progress(rows, bytes)`
    is called after each batch and may raise to give up. Whatever is raised, nothing stays under the name.
    """
    columns = reader.typed(spec.query)
    encoder = FORMATS[spec.format].encoder(columns)
    resumable = bool(spec.query.key) and FORMATS[spec.format].joins
    writer = _Writer(store.create(spec.name), spec.compression)
    try:
        writer.write(encoder.start() if spec.header else b"")
        rows, last_key = 0, None
        deadline = time.monotonic() + spec.seconds
        for batch in reader.stream(spec.query, spec.range, spec.comment):
            writer.write(encoder.encode(_without_key(batch, len(columns))))
            rows += len(batch)
            progress(rows, writer.bytes)
            if stopping() or (resumable and time.monotonic() >= deadline):
                if not resumable:
                    raise Interrupted
                last_key = _key(spec, batch[-1], len(columns))
                break
        writer.write(encoder.finish())
        return PieceResult(spec.name, rows, *writer.finish(), None if last_key == spec.range.upto else last_key)
    except BaseException:
        writer.abort()
        raise


def _without_key(batch: list[Row], width: int) -> list[Row]:
    return batch if not batch or len(batch[0]) == width else [row[:width] for row in batch]


def _key(spec: ChunkSpec, row: Row, width: int) -> Key:
    return key_of(spec.query.key, row[width:])


class _Writer:
    """Compresses into a sink, counting and hashing what arrives there."""

    def __init__(self, sink: Sink, compression: str) -> None:
        self._sink = sink
        self._compressor = COMPRESSIONS[compression].open()
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self._store(self._compressor.compress(data) if data else b"")

    def _store(self, data: bytes) -> None:
        if data:
            self._hash.update(data)
            self.bytes += len(data)
            self._sink.write(data)

    def finish(self) -> tuple[int, str]:
        self._store(self._compressor.finish())
        self._sink.finish()
        return self.bytes, self._hash.hexdigest()

    def abort(self) -> None:
        self._sink.abort()
