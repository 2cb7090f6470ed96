"""Where a chunk runs: in this process."""

from __future__ import annotations

from collections.abc import Callable

from exportapp.engine.chunks import write_piece
from exportapp.engine.readers import Reader, open_reader
from exportapp.engine.sinks import open_store
from exportapp.engine.specs import ChunkSpec, PieceResult


def run_here(
    spec: ChunkSpec,
    source_url: str,
    store_url: str,
    *,
    reading: Callable[[Reader], None],
    stopping: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> PieceResult:
    """Runs a chunk in this thread. `reading` is told the reader, so that somebody else can kill its query."""
    with open_reader(source_url) as reader:
        reading(reader)
        return write_piece(spec, reader, open_store(store_url), stopping=stopping, progress=progress)
