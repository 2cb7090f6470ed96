"""Key ranges: they cover all keys once, whatever the numbers; and keys become values that JSON can hold."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import cut, key_of
from exportapp.engine.specs import Column
from tests.engine.scenes import columns

SPANS = [(1, 1), (0, 0), (-5, -5), (1, 2), (-3, 3), (0, 9), (-(1 << 63), (1 << 64) - 1), (7, 10**30)]


@pytest.mark.parametrize(("first", "last"), SPANS)
@pytest.mark.parametrize("parts", [0, 1, 2, 3, 7, 1000])
def test_ranges_meet_and_reach_from_first_to_last(first: int, last: int, parts: int) -> None:
    ranges = cut(first, last, parts)
    assert (ranges[0].after, ranges[-1].upto) == ((first - 1,), (last,))
    assert all(one.upto == following.after for one, following in pairwise(ranges))
    assert all(one.after < one.upto for one in ranges if one.after and one.upto)
    assert len(ranges) == max(1, min(parts, last - first + 1))


@pytest.mark.parametrize("seed", range(50))
def test_every_key_lies_in_exactly_one_range(seed: int) -> None:
    chance = random.Random(seed)
    first = chance.randrange(-40, 40)
    last = first + chance.randrange(60)
    ranges = cut(first, last, chance.randrange(1, 30))
    edges = [(int(one.after[0]), int(one.upto[0])) for one in ranges if one.after and one.upto]
    holding = [sum(after < key <= upto for after, upto in edges) for key in range(first - 3, last + 4)]
    assert holding == [0] * 3 + [1] * (last - first + 1) + [0] * 3


def test_keys_become_numbers_texts_and_hex() -> None:
    key = columns("a:integer b c:binary d:datetime")
    raw = (b"18446744073709551615", "größer".encode(), b"\x00\xff", b"2024-01-01 00:00:00")
    assert key_of(key, raw) == (18446744073709551615, "größer", "00ff", "2024-01-01 00:00:00")


@pytest.mark.parametrize(
    ("kind", "raw", "sentence"),
    [
        ("integer", None, "holds NULL"),
        ("integer", b"seven", "declared as integer"),
        ("text", b"\xff", "declared as text"),
    ],
)
def test_a_value_that_no_range_can_name_is_an_error_with_a_sentence(
    kind: str, raw: bytes | None, sentence: str
) -> None:
    with pytest.raises(ExportError, match=sentence) as caught:
        key_of((Column("id", kind),), (raw,))
    assert caught.value.permanent


def test_no_estimate_makes_more_ranges_than_a_plan_can_hold() -> None:
    ranges = cut(1, 10**12, 10**9)
    assert len(ranges) == 1000
    assert (ranges[0].after, ranges[-1].upto) == ((0,), (10**12,))
