"""Templates of rows: patterns of NULLs are remembered, but not without end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from exportapp.engine.encoders.templates import PATTERNS_KEPT, RowTemplates
from exportapp.engine.specs import Row


def test_patterns_of_null_are_kept_within_bounds_and_stay_right() -> None:
    rows: list[Row] = list(product((b"x", None), repeat=11))
    templates = RowTemplates([b"%b"] * 11, [b"-"] * 11, b"".join)
    for row in rows:
        assert templates.write([row]) == b"".join(value or b"-" for value in row)
        assert len(templates._patterns) <= PATTERNS_KEPT
    assert len(rows) > PATTERNS_KEPT


def test_a_pattern_is_made_once() -> None:
    made: list[bytes] = []

    def join(parts: Sequence[bytes]) -> bytes:
        made.append(b"".join(parts))
        return made[-1]

    RowTemplates([b"%b", b"%b"], [b"-", b"-"], join).write([(b"x", None)] * 9)
    assert made == [b"%b%b", b"%b-"]
