"""Cuts keys into coarse ranges. A chunk may end early, so ranges need not be even: skew only makes remainders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, Key, KeyRange, KeyValue

MOST_RANGES = 1000  # whatever a server estimates; a range with more rows than meant is left in remainders
MOST_GUESSES = 100  # edges that a server is asked to put into its own order


def cut(first: int, last: int, parts: int) -> tuple[KeyRange, ...]:
    """Up to `parts` ranges that cover first..last without gap or overlap; none reaches beyond `last`."""
    span = last - first + 1
    parts = max(1, min(parts, span, MOST_RANGES))
    edges = [first - 1 + span * index // parts for index in range(parts + 1)]
    return tuple(KeyRange((below,), (upto,)) for below, upto in pairwise(edges))


def cut_at(edges: Sequence[KeyValue], last: KeyValue) -> tuple[KeyRange, ...]:
    """The ranges between `edges`, which are in the source's own order, up to and with `last`."""
    keys: list[Key | None] = [None, *((edge,) for edge in edges if edge != last), (last,)]
    return tuple(KeyRange(below, upto) for below, upto in pairwise(keys))


def guesses(column: Column, first: KeyValue, last: KeyValue, parts: int) -> tuple[KeyValue, ...]:
    """Values that may part first..last into `parts` of about the same number of rows, in no order that can be relied on.

    They are between the two as if values were spread evenly; a text is taken for the number that its letters behind what
    both begin with make. Which comes first is for the source's collation to say.
    """
    parts = min(parts, MOST_GUESSES)
    if parts < 2:
        return ()
    if column.type in ("date", "datetime"):
        return _moments_between(str(first), str(last), parts, whole_days=column.type == "date")
    low, high = (_letters(column, value) for value in (first, last))
    same = next((index for index, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), 0)
    numbers = sorted(_number(text[same : same + 6]) for text in (low, high))
    between = (numbers[0] + (numbers[1] - numbers[0]) * index // parts for index in range(1, parts))
    found = (_written(column, low[:same] + _text(number)) for number in between)
    return tuple(dict.fromkeys(value for value in found if value))


def _letters(column: Column, value: KeyValue) -> str:
    return bytes.fromhex(str(value)).decode("latin-1") if column.type == "binary" else str(value)


def _number(letters: str) -> int:
    """Six letters as the digits of a number; those beyond Latin-1 count as its last."""
    return int.from_bytes(letters.encode("latin-1", "replace").ljust(6, b"\0"), "big")


def _text(number: int) -> str:
    return number.to_bytes(6, "big").rstrip(b"\0").decode("latin-1")


def _written(column: Column, letters: str) -> str:
    if column.type == "binary":
        return letters.encode("latin-1").hex()
    # Letters alone: what stands between "9" and "A", or is invisible, may be nothing at all to a collation.
    return "".join(letter if letter.isalnum() else "0" for letter in letters)


def _moments_between(first: str, last: str, parts: int, *, whole_days: bool) -> tuple[KeyValue, ...]:
    try:
        low, high = datetime.fromisoformat(first), datetime.fromisoformat(last)
    except ValueError:  # 0000-00-00
        return ()
    between = (low + (high - low) * index / parts for index in range(1, parts))
    written = (at.isoformat(" ", "seconds")[: 10 if whole_days else None] for at in between)
    return tuple(dict.fromkeys(written))


def key_of(columns: tuple[Column, ...], raw: tuple[bytes | None, ...]) -> Key:
    """The raw key values of a row as JSON can hold them: integers, texts, and hex for binary ones.

    Raises a permanent ExportError for values that no key range could name.
    """
    return tuple(_value(column, value) for column, value in zip(columns, raw, strict=True))


def _value(column: Column, raw: bytes | None) -> KeyValue:
    if raw is None:
        raise null_key(column.name)
    try:
        if column.type == "integer":
            return int(raw)
        return raw.hex() if column.type == "binary" else raw.decode()
    except ValueError as error:
        raise ExportError(f"The key column {column.name} is declared as {column.type} but holds something else. An "
                          "operator has to correct the dataset.", permanent=True, detail=str(error)) from error  # fmt: skip


def null_key(name: str) -> ExportError:
    """A row whose key holds NULL lies in no range: it would be missing from the file without a word."""
    return ExportError(f"The key ({name}) of some rows holds NULL, so that they would be left out. An operator has to "
                       "choose another key for this dataset, or none.", permanent=True)  # fmt: skip
