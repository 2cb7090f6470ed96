"""The form by itself: what becomes of typed fields, and what it starts with."""

from __future__ import annotations

from datetime import datetime

import pytest
from django.http import QueryDict

from exportapp import datasets
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import Recipe, RecipeFilter
from exportapp.recipes import FILTERS
from exportapp.web.forms import ExportForm, FilterRow, presets

RANGE = "token=t&start=2026-01-01&end=2026-01-31&zone=UTC&columns=id&format=csv&compression=none"


def orders() -> datasets.Dataset:
    return datasets.catalogue().datasets["orders"]


def form(query: str) -> ExportForm:
    return ExportForm(orders(), QueryDict(query))


def test_typed_form_becomes_a_recipe_without_problems() -> None:
    typed = form(f"{RANGE}&filter-column=total&filter-op=between&filter-low=1&filter-high=2")
    assert typed.is_valid(), typed.problems
    assert typed.recipe == Recipe(
        "orders", ("id",), "csv", "none", "2026-01-01", "2026-01-31", "UTC", (RecipeFilter("total", "between", ("1", "2")),)
    )  # fmt: skip


def test_columns_keep_the_order_in_which_they_are_sent() -> None:
    typed = form(f"{RANGE}&columns=total&columns=email")
    assert typed.is_valid()
    assert typed.recipe.columns == ("id", "total", "email")


def test_form_without_a_token_is_not_valid() -> None:
    assert not form(RANGE.replace("token=t", "")).is_valid()


def test_zone_left_empty_means_utc() -> None:
    typed = form(RANGE.replace("zone=UTC", "zone="))
    assert typed.is_valid()
    assert typed.recipe.zone == "UTC"


@pytest.mark.parametrize(
    ("op", "low", "high", "values"),
    [
        ("eq", "a,b", "z", ("a,b",)),
        ("in", " a, b ,,c ", "z", ("a", "b", "c")),
        ("between", "a", "z", ("a", "z")),
        ("between", "", "z", ("", "z")),
        ("empty", "a", "z", ()),
        ("nonsense", "a", "z", ()),
    ],
)
def test_condition_takes_as_many_values_as_its_comparison(
    op: str, low: str, high: str, values: tuple[str, ...]
) -> None:
    assert FilterRow("status", op, low, high).values == values


@pytest.mark.parametrize("op", FILTERS)
def test_condition_of_an_export_comes_back_as_it_was(op: str) -> None:
    count = FILTERS[op].values
    values = ("1", "2", "3") if count is None else ("1", "2")[:count]
    recipe = Recipe("orders", ("id",), filters=(RecipeFilter("id", op, values),))
    [row] = ExportForm(orders(), recipe=recipe).filter_rows
    assert (row.column, row.op, row.values) == ("id", op, values)


def test_incomplete_lists_of_conditions_do_no_harm() -> None:
    typed = form(f"{RANGE}&filter-column=id&filter-column=status&filter-low=7&filter-op=eq")
    assert not typed.is_valid()
    assert list(typed.problems) == ["filters.1"]


@pytest.mark.parametrize("removed", ["", "-1", "7", "x", "²"])
def test_removing_a_condition_that_is_not_there_removes_none(removed: str) -> None:
    typed = form(f"{RANGE}&filter-column=id&filter-op=eq&filter-low=7&remove_filter={removed}")
    assert [row.column for row in typed.filter_rows] == ["id"]


def test_every_format_and_compression_is_offered_and_one_is_chosen() -> None:
    new = ExportForm(orders())
    assert [choice["key"] for choice in new.format_choices() if choice["chosen"]] == ["csv"]
    assert len(new.format_choices()) == len(FORMATS)
    assert [choice["key"] for choice in new.compression_choices() if choice["chosen"]] == ["none"]
    assert len(new.compression_choices()) == len(COMPRESSIONS)


def test_two_new_forms_have_two_tokens() -> None:
    tokens = {str(ExportForm(orders())["token"].value()) for _ in range(2)}
    assert len(tokens) == 2


def test_file_is_named_after_dataset_and_days() -> None:
    typed = form(RANGE)
    assert typed.is_valid()
    assert typed.default_name() == "Orders from 2026-01-01 to 2026-01-31"


def test_presets_are_whole_days_that_a_year_s_turn_does_not_upset() -> None:
    assert presets(datetime(2026, 1, 1, 12)) == [
        ("Yesterday", "2025-12-31", "2026-01-01"),
        ("Last 7 days", "2025-12-25", "2026-01-01"),
        ("Last 30 days", "2025-12-02", "2026-01-01"),
        ("Last month", "2025-12-01", "2026-01-01"),
        ("This year", "2026-01-01", "2026-01-02"),
    ]
