"""What a finished file says of itself, and whether a file is what its receipt says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exportapp.datasets import RowRule
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import FileResult, PieceResult, Recipe, to_json

SNAPSHOT = "one statement: all rows as of one moment"
CHUNKED = "each part as of its own reading"

_DIGEST = re.compile(r"[0-9a-f]{64}")


def receipt(
    recipe: Recipe,
    pieces: Sequence[PieceResult],
    file: FileResult,
    *,
    read_from: str,
    read_until: str,
    user: str = "",
    rule: RowRule | None = None,
) -> dict[str, Any]:
    """The receipt of `file`, which `pieces` were joined to; times are ISO 8601, byte ranges are of the file.

    `user` is whose rights it was made with, if anybody's, and `rule` the dataset's, that chose among the rows for them.
    """
    asked = to_json(recipe)
    del asked["consistency"]  # a wish: what became of it is said below
    made = {
        "rows": file.rows,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "recipe": asked,
        "read_from": read_from,
        "read_until": read_until,
        "consistency": SNAPSHOT if len(pieces) == 1 else CHUNKED,
        "times": _times(recipe, pieces),
        "values": FORMATS[recipe.format].told(recipe.options, len(recipe.columns)),
        "parts": _parts(pieces),
    }
    return made | _rights(user, rule)


def _parts(pieces: Sequence[PieceResult]) -> list[dict[str, Any]]:
    parts, offset = [], 0
    for piece in pieces:
        parts.append({"from": offset, "bytes": piece.bytes, "rows": piece.rows, "sha256": piece.sha256})
        offset += piece.bytes
    return parts


def _times(recipe: Recipe, pieces: Sequence[PieceResult]) -> str:
    moved = list(dict.fromkeys(name for piece in pieces for name in piece.zoned))
    return f"{', '.join(moved)} in {recipe.zone}, any others as stored" if moved else "as stored"


def _rights(user: str, rule: RowRule | None) -> dict[str, str]:
    """Whose, and that a rule applied; not the values that it has for this person, which may be nobody else's business."""
    made = {"user": user} if user else {}
    if rule:
        made["row_rule"] = f"only rows whose {rule.column} is among the user's values of {rule.attribute}"
    return made


# --- a file held against it ------------------------------------------------------------------------------------------


class NoReceipt(ValueError):
    """What was given is no receipt; the text completes "It is no receipt: ..."."""


@dataclass(frozen=True)
class Stretch:
    """What a receipt says of some bytes of its file, of all of them or of a part."""

    start: int
    bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class Claims:
    """What of a receipt can be held against a file."""

    whole: Stretch
    parts: tuple[Stretch, ...]


def claims(receipt: Any) -> Claims:
    """What a receipt says of its file. Raises NoReceipt for what is none."""
    if not isinstance(receipt, dict):
        raise NoReceipt("it is no JSON object")
    whole = _stretch({**receipt, "from": 0}, "")
    parts = receipt.get("parts")
    if not isinstance(parts, list):
        raise NoReceipt("it has no list of parts")
    return Claims(whole, tuple(_stretch(part, f"part {number}: ") for number, part in enumerate(parts, 1)))


def _stretch(said: Any, where: str) -> Stretch:
    if not isinstance(said, dict):
        raise NoReceipt(f"{where}it is no JSON object")
    numbers = [said.get(name) for name in ("from", "bytes", "rows")]
    for name, number in zip(("from", "bytes", "rows"), numbers, strict=True):
        if type(number) is not int or number < 0:  # to isinstance, true would be a number
            raise NoReceipt(f"{where}its “{name}” is no whole number, or not there")
    digest = said.get("sha256")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise NoReceipt(f"{where}its “sha256” is no SHA-256 in hexadecimal digits, or not there")
    return Stretch(said["from"], said["bytes"], said["rows"], digest)


def mistakes(blocks: Iterable[bytes], said: Claims) -> list[str]:
    """How a file, given in blocks, differs from what its receipt says: sentences, none when it is the very same file.

    Rows are not counted, which not every format allows without all of its data: their numbers have to add up only.
    """
    if found := contradictions(said):
        return found  # no file is like that: the blocks are not even asked for
    whole, size = hashlib.sha256(), 0
    hashes = [hashlib.sha256() for _ in said.parts]
    for block in blocks:
        whole.update(block)
        for part, digest in zip(said.parts, hashes, strict=True):
            digest.update(block[max(0, part.start - size) : max(0, part.start + part.bytes - size)])
        size += len(block)
    if size != said.whole.bytes:
        found.append(f"The file has {size:,} bytes, its receipt says {said.whole.bytes:,}.")
    if whole.hexdigest() != said.whole.sha256:
        found.append("The file's SHA-256 is not the one of its receipt.")
    for part, digest in zip(said.parts, hashes, strict=True):
        if digest.hexdigest() != part.sha256:
            found.append(f"What differs is among the bytes from {part.start:,} to {part.start + part.bytes:,}.")
    return found


def contradictions(said: Claims) -> list[str]:
    """How the parts do not make up the whole."""
    found, end = [], 0
    for part in said.parts:
        if part.start != end:
            found.append(f"Its receipt contradicts itself: no part begins at byte {end:,}, but one at {part.start:,}.")
        end = part.start + part.bytes
    for what in ("rows", "bytes"):
        total, made = getattr(said.whole, what), sum(getattr(part, what) for part in said.parts)
        if total != made:
            found.append(f"Its receipt contradicts itself: {total:,} {what} in all, {made:,} in its parts.")
    return found
