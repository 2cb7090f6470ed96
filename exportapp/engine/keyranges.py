"""Cuts keys into coarse ranges. A chunk may end early, so ranges need not be even: skew only makes remainders."""

from __future__ import annotations

from itertools import pairwise

from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, Key, KeyRange, KeyValue

MOST_RANGES = 1000  # whatever a server estimates; a range with more rows than meant is left in remainders


def cut(first: int, last: int, parts: int) -> tuple[KeyRange, ...]:
    """Up to `parts` ranges that cover first..last without gap or overlap; none reaches beyond `last`."""
    span = last - first + 1
    parts = max(1, min(parts, span, MOST_RANGES))
    edges = [first - 1 + span * index // parts for index in range(parts + 1)]
    return tuple(KeyRange((below,), (upto,)) for below, upto in pairwise(edges))


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
