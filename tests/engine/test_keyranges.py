"""Key ranges: they cover all keys once, whatever the numbers; and keys become values that JSON can hold."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import cut, cut_at, guesses, key_of
from exportapp.engine.specs import Column, KeyRange
from tests.engine.scenes import columns

SPANS = [(1, 1), (0, 0), (-5, -5), (1, 2), (-3, 3), (0, 9), (-(1 << 63), (1 << 64) - 1), (7, 10**30)]


@pytest.mark.parametrize(("first", "last"), SPANS)
@pytest.mark.parametrize("parts", [0, 1, 2, 3, 7, 1000])
def test_ranges_meet_and_reach_from_first_to_last(first: int, last: int, parts: int) -> None:
    ranges = cut(first, last, parts)
    assert (ranges[0].after, ranges[-1].upto) == (None, (last,))
    assert all(one.upto == following.after for one, following in pairwise(ranges))
    assert all(one.after < one.upto for one in ranges if one.after and one.upto)
    assert len(ranges) == max(1, min(parts, last - first + 1))


@pytest.mark.parametrize("seed", range(50))
def test_every_key_lies_in_exactly_one_range(seed: int) -> None:
    chance = random.Random(seed)
    first = chance.randrange(-40, 40)
    last = first + chance.randrange(60)
    ranges = cut(first, last, chance.randrange(1, 30))
    edges = [(int(one.after[0]) if one.after else -1000, int(one.upto[0])) for one in ranges if one.upto]
    holding = [sum(after < key <= upto for after, upto in edges) for key in range(first - 3, last + 4)]
    assert holding == [1] * (last - first + 4) + [0] * 3


KEYS = [
    ("text", "K%08d", range(0, 10_000_019, 7919)), ("text", "%06x", range(0, 1 << 24, 4001)),
    ("text", "ORD-%04X-x", range(1 << 16)), ("binary", "%08x", range(0, 1 << 32, 1 << 20)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "pattern", "numbers"), KEYS)
def test_guesses_part_the_usual_keys_evenly(kind: str, pattern: str, numbers: range) -> None:
    keys = [pattern % number for number in numbers]
    edges = sorted(str(guess) for guess in guesses(Column("k", kind), keys[0], keys[-1], 10))
    between = [sum(low < key <= high for key in keys) for low, high in pairwise(["", *edges, "~"])]
    assert sum(between) == len(keys)
    assert len(between) == 10
    assert max(between) < 2 * len(keys) / 10


def test_days_and_moments_are_parted_by_time() -> None:
    days = guesses(Column("k", "date"), "2026-01-01", "2026-01-05", 4)
    assert days == ("2026-01-02", "2026-01-03", "2026-01-04")
    assert guesses(Column("k", "datetime"), "2026-01-01 00:00:00", "2026-01-02 00:00:00", 2) == ("2026-01-01 12:00:00",)
    assert guesses(Column("k", "date"), "0000-00-00", "2026-01-05", 4) == ()


def test_ranges_between_edges_meet_and_end_with_the_last_key() -> None:
    assert cut_at(["b", "d"], "d") == (KeyRange(None, ("b",)), KeyRange(("b",), ("d",)))
    assert cut_at([], "d") == (KeyRange(None, ("d",)),)


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
    assert (ranges[0].upto, ranges[-1].upto) == ((10**9,), (10**12,))
