"""The form by itself: what becomes of typed fields, and what it starts with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.http import QueryDict

from exportapp import datasets
from exportapp.datasets import DatasetColumn
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import Recipe, RecipeFilter
from exportapp.recipes import FILTERS
from exportapp.web.forms import ExportForm, FilterRow, danger, presets

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


def span(now: datetime, zone: str = "UTC", **other: Any) -> dict[str, tuple[str, str]]:
    """The presets of the orders, or of a dataset like them, by key."""
    dataset = replace(orders(), **{"max_days": 0, **other})
    return {one.key: (one.start, one.end) for one in presets(now, dataset, zone)}


def test_presets_are_whole_days_that_a_year_s_turn_does_not_upset() -> None:
    assert span(datetime(2026, 1, 1, 12, tzinfo=UTC)) == {
        "today": ("2026-01-01 00:00", "2026-01-02 00:00"),
        "yesterday": ("2025-12-31 00:00", "2026-01-01 00:00"),
        "last-7": ("2025-12-25 00:00", "2026-01-01 00:00"),
        "last-30": ("2025-12-02 00:00", "2026-01-01 00:00"),
        "last-month": ("2025-12-01 00:00", "2026-01-01 00:00"),
        "last-quarter": ("2025-10-01 00:00", "2026-01-01 00:00"),
        "this-year": ("2026-01-01 00:00", "2026-01-02 00:00"),
        "all": ("", ""),
    }


@pytest.mark.parametrize(
    ("month", "start", "end"),
    [(1, "2025-10-01", "2026-01-01"), (3, "2025-10-01", "2026-01-01"), (4, "2026-01-01", "2026-04-01"),
     (9, "2026-04-01", "2026-07-01"), (12, "2026-07-01", "2026-10-01")],
)  # fmt: skip
def test_last_quarter_is_the_one_that_is_over(month: int, start: str, end: str) -> None:
    assert span(datetime(2026, month, 30, tzinfo=UTC))["last-quarter"] == (f"{start} 00:00", f"{end} 00:00")


@pytest.mark.parametrize(
    ("zone", "day"), [("Asia/Tokyo", "2026-06-01"), ("America/New_York", "2026-05-31"), ("Mars/Olympus", "2026-05-31")]
)
def test_presets_are_days_of_the_zone(zone: str, day: str) -> None:
    assert span(datetime(2026, 5, 31, 23, 30, tzinfo=UTC), zone)["today"][0] == f"{day} 00:00"


@pytest.mark.parametrize("most", [1, 7, 30, 40, 1000])
def test_presets_are_never_longer_than_the_dataset_allows(most: int) -> None:
    offered = span(datetime(2026, 8, 31, tzinfo=UTC), max_days=most)
    assert "all" not in offered
    lengths = [datetime.fromisoformat(end) - datetime.fromisoformat(start) for start, end in offered.values()]
    assert max(lengths).days == most


def test_dataset_dated_by_the_day_has_presets_without_a_time_and_one_without_times_has_none() -> None:
    known = datasets.catalogue().datasets
    [first, *_] = presets(datetime(2026, 1, 1, tzinfo=UTC), known["revenue"], "UTC")
    assert (first.start, first.end) == ("2026-01-01", "2026-01-02")
    assert presets(datetime(2026, 1, 1, tzinfo=UTC), known["products"], "UTC") == []


@pytest.mark.parametrize("helper", ["add_filter=1", "remove_filter=0", "preset=today", "use_format=xlsx"])
def test_button_that_helps_asks_for_no_export(helper: str) -> None:
    assert form(RANGE).asked
    assert not form(f"{RANGE}&{helper}").asked


def test_preset_fills_both_ends_and_an_unknown_one_leaves_them() -> None:
    start, end = form(f"{RANGE}&preset=last-month").typed_range()
    assert start.endswith("-01 00:00")
    assert start < end
    assert form(f"{RANGE}&preset=nonsense").typed_range() == ("2026-01-01", "2026-01-31")


def test_format_that_is_helped_to_loses_a_compression_that_it_has_not() -> None:
    helped = form(RANGE.replace("compression=none", "compression=gzip") + "&use_format=xlsx")
    assert (helped.format, helped.compression) == ("xlsx", "none")
    assert form(f"{RANGE}&use_format=docx").format == "csv"


def test_ticked_columns_come_back_in_their_order_and_the_others_where_the_dataset_has_them() -> None:
    choices = form(f"{RANGE}&columns=total&columns=placed_at").column_choices()
    assert [one["column"].name for one in choices if one["ticked"]] == ["id", "total", "placed_at"]
    assert [one["column"].name for one in choices] == [
        "id", "total", "status", "placed_at", "gift", "due_on", "email", "comment"]  # fmt: skip
    assert [one["column"].name for one in ExportForm(orders()).column_choices()] == [
        column.name for column in orders().columns
    ]


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (DatasetColumn("sku", "Article", description="With zeros in front."), "zeros in front"),
        (DatasetColumn("reference", type="integer", description="A number of 18 digits."), "more than 15 digits"),
        (DatasetColumn("card", description="16 digits"), "more than 15 digits"),
        (DatasetColumn("code", description="8 digits"), "perhaps"),
        (DatasetColumn("tracking_id"), "perhaps"),
        (DatasetColumn("x", "Phone"), "perhaps"),
        (DatasetColumn("paid", description="15 digits"), ""),
        (DatasetColumn("id", type="integer"), ""),
        (DatasetColumn("code", choices=("01", "02")), ""),
        (DatasetColumn("idea", "Identity"), ""),
        (DatasetColumn("born", type="date", description="18 digits, zeros in front"), ""),
    ],
)
def test_column_that_a_spreadsheet_spoils_is_known_by_what_is_declared(column: DatasetColumn, why: str) -> None:
    assert danger(column).startswith(why)
    assert bool(danger(column)) == bool(why)


def test_only_ticked_columns_of_files_that_spreadsheets_guess_at_are_warned_of() -> None:
    dataset = replace(orders(), columns=(DatasetColumn("id", type="integer"), DatasetColumn("zip", "Zip")))
    warned = [
        ExportForm(dataset, QueryDict(RANGE.replace("csv", format) + "&columns=zip")).damaged() for format in FORMATS
    ]
    assert [[one["label"] for one in found] for found in warned] == [["Zip"], ["Zip"], [], [], []]
    assert ExportForm(dataset, QueryDict(RANGE)).damaged() == []
