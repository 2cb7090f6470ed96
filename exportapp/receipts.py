"""What a finished file says of itself, and whether a file is what its receipt says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import FileResult, PieceResult, Recipe, to_json

SNAPSHOT = "one statement: all rows as of one moment"
CHUNKED = "each part as of its own reading"


def receipt(
    recipe: Recipe, pieces: Sequence[PieceResult], file: FileResult, *, read_from: str, read_until: str
) -> dict[str, Any]:
    """The receipt of `file`, which `pieces` were joined to; times are ISO 8601, byte ranges are of the file."""
    parts, offset = [], 0
    for piece in pieces:
        parts.append({"from": offset, "bytes": piece.bytes, "rows": piece.rows, "sha256": piece.sha256})
        offset += piece.bytes
    return {
        "rows": file.rows,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "recipe": to_json(recipe),
        "read_from": read_from,
        "read_until": read_until,
        "consistency": SNAPSHOT if len(pieces) == 1 else CHUNKED,
        "zone": recipe.zone,
        "times": _times(recipe, pieces),
        "values": FORMATS[recipe.format].told(recipe.options, len(recipe.columns)),
        "parts": parts,
    }


def _times(recipe: Recipe, pieces: Sequence[PieceResult]) -> str:
    moved = list(dict.fromkeys(name for piece in pieces for name in piece.zoned))
    return f"{', '.join(moved)} in {recipe.zone}, any others as stored" if moved else "as stored"


def mistakes(blocks: Iterable[bytes], receipt: dict[str, Any]) -> list[str]:
    """How a file, given in blocks, differs from its receipt: sentences, none when it is the very same file.

    Raises KeyError, TypeError or ValueError for what is no receipt.
    """
    whole, size = hashlib.sha256(), 0
    parts = [(int(part["from"]), int(part["bytes"]), str(part["sha256"])) for part in receipt["parts"]]
    hashes = [hashlib.sha256() for _ in parts]
    for block in blocks:
        whole.update(block)
        for (start, length, _), part in zip(parts, hashes, strict=True):
            part.update(block[max(0, start - size) : max(0, start + length - size)])
        size += len(block)
    found = []
    if size != int(receipt["bytes"]):
        found.append(f"The file has {size:,} bytes, its receipt says {int(receipt['bytes']):,}.")
    if whole.hexdigest() != str(receipt["sha256"]):
        found.append("The file's SHA-256 is not the one of its receipt.")
        for (start, length, digest), part in zip(parts, hashes, strict=True):
            if part.hexdigest() != digest:
                found.append(f"What differs is among the bytes from {start:,} to {start + length:,}.")
    return found
