"""Makes one file of the pieces, and trusts none of them: each must be what its chunk said it wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.base import Store
from exportapp.engine.specs import FileResult, PieceResult


def join_pieces(
    pieces: Sequence[PieceResult], name: str, store: Store, *, progress: Callable[[int], None] = lambda size: None
) -> FileResult:
    """Writes the file `name` from `pieces` in their order; complete or absent.

    `progress(bytes)` may raise to give up. A piece whose bytes or SHA-256 differ from its result raises a permanent
    ExportError: the file would not be what the chunks read.
    """
    sink = store.create(name)
    whole, size = hashlib.sha256(), 0
    try:
        for piece in pieces:
            part, length = hashlib.sha256(), 0
            for block in store.read(piece.name):
                part.update(block)
                whole.update(block)
                length += len(block)
                sink.write(block)
                progress(size + length)
            if (length, part.hexdigest()) != (piece.bytes, piece.sha256):
                raise ExportError("A part of the export was damaged in the store. Please run it again.",
                                  permanent=True, detail=f"{piece.name}: {length} of {piece.bytes} bytes")  # fmt: skip
            size += length
        sink.finish()
    except BaseException:
        sink.abort()
        raise
    return FileResult(name, sum(piece.rows for piece in pieces), size, whole.hexdigest())
