"""Cuts keys into coarse ranges. A chunk may end early, so ranges need not be even: skew only makes remainders."""

from __future__ import annotations

from itertools import pairwise

from exportapp.engine.specs import Column, Key, KeyRange, KeyValue


def cut(first: int, last: int, parts: int) -> tuple[KeyRange, ...]:
    """Up to `parts` ranges that cover first..last without gap or overlap; none reaches beyond `last`."""
    span = last - first + 1
    parts = max(1, min(parts, span))
    edges = [first - 1 + span * index // parts for index in range(parts + 1)]
    return tuple(KeyRange((below,), (upto,)) for below, upto in pairwise(edges))


def key_of(columns: tuple[Column, ...], raw: tuple[bytes | None, ...]) -> Key:
    """The raw key values of a row as JSON can hold them: integers, texts, and hex for binary ones."""
    return tuple(_value(column, value) for column, value in zip(columns, raw, strict=True))


def _value(column: Column, raw: bytes | None) -> KeyValue:
    if raw is None:
        raise ValueError(f"the key column {column.name} holds NULL")
    if column.type == "integer":
        return int(raw)
    return raw.hex() if column.type == "binary" else raw.decode()
