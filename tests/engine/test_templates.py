"""Templates of rows: patterns of NULLs are remembered, but not without end."""

from __future__ import annotations

from itertools import product

import pytest

from exportapp.engine.encoders import templates
from exportapp.engine.encoders.templates import TEMPLATES_KEPT, RowTemplates
from exportapp.engine.specs import Row


def test_columns_with_null_are_kept_within_bounds_and_stay_right() -> None:
    rows: list[Row] = list(product((b"x", None), repeat=11))
    several = RowTemplates([b"%b%%"] * 11, [b"-"] * 11, b"".join, (b"",) * 11, b"")
    for row in rows:
        assert several.columns([(value,) for value in row]) == b"".join(b"x%" if value else b"-" for value in row)
        assert len(several._templates) <= TEMPLATES_KEPT
    assert len(rows) > TEMPLATES_KEPT


@pytest.fixture(params=[1 << 20, 5], ids=["at once", "in slices"])
def quoted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RowTemplates:
    """Rows of a run of two, with a tab between them, and a text."""
    monkeypatch.setattr(templates, "_SLICE", request.param)
    return RowTemplates([b"%b", b'"%b"'], [None, b"-"], lambda parts: b"\t".join(parts) + b"\n", (b"\t", b""), b'"\t\n')


def test_rows_are_written_as_they_are(quoted: RowTemplates) -> None:
    assert quoted.rows([(b"1\t2", b"a"), (b"3\t", b"")]) == b'1\t2\t"a"\n3\t\t""\n'
    assert quoted.rows([]) == b""


def test_rows_with_null_are_left_to_the_columns(quoted: RowTemplates) -> None:
    assert quoted.rows([(b"1\t2", b"a"), (b"3\t4", None)]) is None


@pytest.mark.parametrize("text", [b'"', b"\t", b"\n", b'"\n', b'"\n\t\t"', b'a"b', b'""'])
def test_texts_with_bytes_that_mean_something_are_left_to_the_columns(quoted: RowTemplates, text: bytes) -> None:
    for place in range(3):
        rows: list[Row] = [(b"1\t2", b"a")] * 3
        rows[place] = (b"1\t2", text)
        assert quoted.rows(rows) is None
