"""Cuts keys into coarse ranges. A chunk may end early, so ranges need not be even: skew only makes remainders."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from string import ascii_lowercase, ascii_uppercase, digits

from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, Key, KeyRange, KeyValue

MOST_RANGES = 1000  # whatever a server estimates; a range with more rows than meant is left in remainders
MOST_GUESSES = 100  # edges that a server is asked to put into its own order
DEPTH = 6  # letters of a text that are looked at, behind what all begin with

# What keys are made of, the narrowest first: numbers, hexadecimal ones, and identifiers in general. Others than letters
# and digits are in none: to a collation they may be nothing at all.
ALPHABETS = (digits, digits + "abcdef", digits + "ABCDEF", digits + ascii_uppercase + ascii_lowercase)
BYTES = bytes(range(256)).decode("latin-1")


def cut(first: int, last: int, parts: int) -> tuple[KeyRange, ...]:
    """Up to `parts` ranges of about the same width, without gap or overlap, that end with `last`.

    The first begins with whatever is there, for not every server takes first - 1 for less than `first`: to MariaDB a
    BIT(64) is above -1 in no row at all.
    """
    span = last - first + 1
    parts = max(1, min(parts, span, MOST_RANGES))
    return cut_at([first - 1 + span * index // parts for index in range(1, parts)], last)


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
    binary = column.type == "binary"
    low, high = (bytes.fromhex(str(value)).decode("latin-1") if binary else str(value) for value in (first, last))
    found = _texts_between(low, high, parts, BYTES if binary else "")
    return tuple(text.encode("latin-1").hex() for text in found) if binary else found


def _texts_between(low: str, high: str, parts: int, alphabet: str) -> tuple[str, ...]:
    same = next((index for index, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), 0)
    tails = [text[same : same + DEPTH] for text in (low, high)]
    alphabet = alphabet or next((one for one in ALPHABETS if set("".join(tails)) <= set(one)), ALPHABETS[-1])
    start, end = sorted(_number(tail, alphabet) for tail in tails)
    between = (start + (end - start) * index // parts for index in range(1, parts))
    return tuple(dict.fromkeys(low[:same] + _text(number, alphabet) for number in between))


def _number(text: str, alphabet: str) -> int:
    """The first letters of a text as the digits of a number; a letter that the alphabet has not counts as the one before it."""
    number = 0
    for letter in text.ljust(DEPTH, alphabet[0]):
        number = number * len(alphabet) + max(bisect_right(alphabet, letter) - 1, 0)
    return number


def _text(number: int, alphabet: str) -> str:
    letters = []
    for _ in range(DEPTH):
        number, digit = divmod(number, len(alphabet))
        letters.append(alphabet[digit])
    return "".join(reversed(letters))


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
