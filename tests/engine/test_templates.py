"""Templates of rows: patterns of NULLs are remembered, but not without end."""

from __future__ import annotations

from itertools import product

from exportapp.engine.encoders.templates import TEMPLATES_KEPT, RowTemplates
from exportapp.engine.specs import Row


def test_columns_with_null_are_kept_within_bounds_and_stay_right() -> None:
    rows: list[Row] = list(product((b"x", None), repeat=11))
    templates = RowTemplates([b"%b%%"] * 11, [b"-"] * 11, b"".join)
    for row in rows:
        assert templates.columns([(value,) for value in row]) == b"".join(b"x%" if value else b"-" for value in row)
        assert len(templates._templates) <= TEMPLATES_KEPT
    assert len(rows) > TEMPLATES_KEPT


def test_rows_with_null_are_left_to_the_columns() -> None:
    templates = RowTemplates([b"%b", b"%b"], [b"-", b"-"], b"".join)
    assert templates.rows([(b"a", b"b")]) == b"ab"
    assert templates.rows([(b"a", b"b"), (b"a", None)]) is None
