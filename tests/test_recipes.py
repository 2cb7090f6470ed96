"""A recipe against its dataset: every mistake is a sentence beside its field, and the rest is a query whose values are
bound and whose names are the dataset's own."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User

from exportapp.datasets import Dataset, DatasetColumn, RowRule
from exportapp.engine import sql
from exportapp.engine.readers.sqlite import DIALECT
from exportapp.engine.specs import COLUMN_TYPES, Column, Condition, KeyRange, Query, Recipe, RecipeFilter
from exportapp.engine.zones import in_zone, moved
from exportapp.models import PersonAttribute
from exportapp.recipes import FILTERS, moment, problems, query_for

COLUMNS = (
    DatasetColumn("id", "Number", "integer"),
    DatasetColumn("at", "Placed at", "datetime"),
    *(DatasetColumn(kind, kind.capitalize(), kind) for kind in sorted(COLUMN_TYPES)),
    DatasetColumn("secret", "Secret", "text", filterable=False),
)
ORDERS = Dataset("orders", "shop", COLUMNS, label="Orders", table="orders", key=("id",), time_column="at")
DAYS = replace(ORDERS, time_column="date", label="Days")
TIMELESS = replace(ORDERS, time_column="")
NOBODY = User(username="alice")


def recipe(**more: Any) -> Recipe:
    return Recipe(**{"dataset": "orders", "columns": ("id",), **more})


def wrong(dataset: Dataset = ORDERS, **more: Any) -> dict[str, str]:
    return problems(recipe(**more), dataset)


def filtered(column: str, op: str, *values: str) -> dict[str, str]:
    return wrong(filters=(RecipeFilter(column, op, values),))


# --- sentences --------------------------------------------------------------------------------------------------------


def test_recipe_that_can_be_run_has_no_problems() -> None:
    assert wrong() == {}
    assert wrong(start="2026-01-01", end="2026-02-01 12:30", zone="Asia/Tokyo", columns=("at", "id")) == {}


CHOICES: list[tuple[dict[str, Any], str, str]] = [
    ({"columns": ()}, "columns", "Tick at least one column."),
    ({"columns": ("id", "salary")}, "columns", "There is no column “salary” in Orders."),
    ({"columns": ("id", "at", "id")}, "columns", "A column is named twice."),
    ({"format": "docx"}, "format", "Choose one of the formats."),
    ({"compression": "rar"}, "compression", "Choose one of the compressions."),
    ({"zone": "Mars/Olympus"}, "zone", "There is no time zone “Mars/Olympus”."),
    ({"zone": "x" * 100}, "zone", f"There is no time zone “{'x' * 40}”."),
    ({"start": "yesterday"}, "start", "“yesterday” is not a date. Write it like 2026-01-31 or 2026-01-31 14:30."),
    ({"end": "26-01-01"}, "end", "“26-01-01” is not a date. Write it like 2026-01-31 or 2026-01-31 14:30."),
    ({"end": "2026-02-30"}, "end", "2026-02-30 does not exist in the calendar."),
    ({"end": "2026-01-01 24:00"}, "end", "2026-01-01 24:00 does not exist in the calendar."),
    ({"start": "0000-01-01"}, "start", "0000-01-01 does not exist in the calendar."),
    ({"start": "2026-01-02", "end": "2026-01-01"}, "end", "The end has to be after the start."),
    ({"start": "2026-01-01", "end": "2026-01-01"}, "end", "The end has to be after the start."),
]


@pytest.mark.parametrize(("more", "field", "sentence"), CHOICES, ids=[str(row[0])[:40] for row in CHOICES])
def test_mistake_is_a_sentence_beside_its_field(more: dict[str, Any], field: str, sentence: str) -> None:
    assert wrong(**more) == {field: sentence}


def test_all_mistakes_are_told_at_once() -> None:
    found = wrong(
        columns=(), format="", compression="", zone="", start="x", end="y", filters=(RecipeFilter("id", "eq", ("x",)),)
    )
    assert set(found) == {"columns", "format", "compression", "zone", "start", "end", "filters.0"}


def test_unknown_zone_is_told_whatever_the_range() -> None:
    for zone in ("Mars/Olympus", "", "../etc/passwd"):
        told = {"zone": f"There is no time zone “{zone}”."}
        assert wrong(start="2026-01-01", end="2026-02-01", zone=zone) == told
        assert wrong(zone=zone) == wrong(TIMELESS, zone=zone) == wrong(DAYS, zone=zone) == told
        assert set(wrong(start="2026-01-01", end="2026-01-01", zone=zone)) == {"zone", "end"}


# --- the time range ---------------------------------------------------------------------------------------------------

LIMITED = replace(ORDERS, max_days=31)


@pytest.mark.parametrize(
    ("start", "end", "field", "sentence"),
    [
        ("2026-01-01", "2026-02-01", "", ""),
        ("2026-01-01", "2026-02-01 00:01", "end",
         "This range has 32 days; Orders may be exported for at most 31 at once."),
        ("2026-01-01", "2027-01-01", "end", "This range has 365 days; Orders may be exported for at most 31 at once."),
        ("2026-01-01", "", "end", "Choose both ends: Orders may be exported for at most 31 days at once."),
        ("", "2026-01-01", "start", "Choose both ends: Orders may be exported for at most 31 days at once."),
        ("", "", "start", "Choose both ends: Orders may be exported for at most 31 days at once."),
    ],
)  # fmt: skip
def test_range_is_no_longer_than_it_may_be(start: str, end: str, field: str, sentence: str) -> None:
    assert wrong(LIMITED, start=start, end=end) == ({field: sentence} if field else {})


def test_dataset_without_a_time_has_no_range() -> None:
    assert wrong(TIMELESS) == {}
    for ends in ({"start": "2026-01-01"}, {"end": "2026-01-01"}):
        assert wrong(TIMELESS, **ends) == {"start": "Orders has no time to choose a range of."}


def test_dataset_of_days_takes_no_hours() -> None:
    assert wrong(DAYS, start="2026-01-01", end="2026-01-02 00:00") == {}
    told = "Days are dated by the day. Write a date without a time."
    assert wrong(DAYS, start="2026-01-01 08:00", end="2026-01-02") == {"start": told}


@pytest.mark.parametrize(
    ("text", "zone", "exists"),
    [
        ("2026-03-29 01:59", "Europe/Berlin", True),
        ("2026-03-29 02:00", "Europe/Berlin", False),
        ("2026-03-29 02:59:59", "Europe/Berlin", False),
        ("2026-03-29 03:00", "Europe/Berlin", True),
        ("2026-10-25 02:30", "Europe/Berlin", True),
        ("2026-03-08 02:30", "America/New_York", False),
        ("2026-10-04 02:15", "Australia/Lord_Howe", False),
        ("2026-03-29 02:30", "UTC", True),
    ],
)
def test_hour_that_the_clocks_went_over_does_not_exist(text: str, zone: str, exists: bool) -> None:
    told = f"{text[:16]} does not exist in {zone}: the clocks went forward over it."
    assert wrong(start=text, zone=zone) == ({} if exists else {"start": told})


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31 23:59"])
@pytest.mark.parametrize("stored", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_ends_of_the_calendar_are_a_query_or_a_sentence(text: str, zone: str, stored: str) -> None:
    dataset = replace(ORDERS, time_zone=stored)
    found = wrong(dataset, start=text, zone=zone)
    if found:
        assert found == {"start": f"{text[:10]} is out of reach."}
    else:
        [bound] = conditions(dataset, start=text, zone=zone)
        assert len(bound[2][0]) == 19, "a year has four digits, or the database guesses the century"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2026-01-31", (2026, 1, 31, 0, 0, 0)),
        (" 2026-1-3 ", (2026, 1, 3, 0, 0, 0)),
        ("2026-01-31 7:05", (2026, 1, 31, 7, 5, 0)),
        ("2026-01-31T14:30", (2026, 1, 31, 14, 30, 0)),
        ("2026-01-31 14:30:59", (2026, 1, 31, 14, 30, 59)),
    ],
)
def test_time_may_be_written_as_people_and_browsers_do(text: str, numbers: tuple[int, ...]) -> None:
    assert moment(text).timetuple()[:6] == numbers


# --- the query --------------------------------------------------------------------------------------------------------


def conditions(dataset: Dataset = ORDERS, person: User = NOBODY, **more: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    wanted = recipe(**more)
    assert problems(wanted, dataset) == {}
    return [(one.column.name, one.op, one.values) for one in query_for(wanted, dataset, person).conditions]


def test_query_has_the_chosen_columns_in_their_order_and_the_datasets_key() -> None:
    query = query_for(recipe(columns=("text", "id")), ORDERS, NOBODY)
    text, number = Column("text", label="Text"), Column("id", "integer", label="Number")
    assert query == Query("orders", False, (text, number), (number,), ())
    declared = replace(ORDERS, table="", query="SELECT 1 AS id")
    assert query_for(recipe(), declared, NOBODY).is_query


def test_start_is_in_the_range_and_end_is_not() -> None:
    assert conditions(start="2026-01-01", end="2026-02-01 12:30") == [
        ("at", "ge", ("2026-01-01 00:00:00",)),
        ("at", "lt", ("2026-02-01 12:30:00",)),
    ]
    assert conditions() == []
    assert conditions(end="2026-02-01") == [("at", "lt", ("2026-02-01 00:00:00",))]


def test_range_is_shifted_into_the_zone_that_the_times_are_stored_in() -> None:
    def bounds(zone: str, stored: str) -> list[str]:
        dataset = replace(ORDERS, time_zone=stored)
        return [one[2][0] for one in conditions(dataset, start="2026-03-29", end="2026-03-30", zone=zone)]

    assert bounds("Europe/Berlin", "UTC") == ["2026-03-28 23:00:00", "2026-03-29 22:00:00"]
    assert bounds("UTC", "Europe/Berlin") == ["2026-03-29 01:00:00", "2026-03-30 02:00:00"]
    assert bounds("Europe/Berlin", "Europe/Berlin") == ["2026-03-29 00:00:00", "2026-03-30 00:00:00"]
    assert bounds("Asia/Tokyo", "America/New_York") == ["2026-03-28 11:00:00", "2026-03-29 11:00:00"]


def test_range_is_compared_in_the_zone_that_the_time_column_itself_declares() -> None:
    columns = tuple(replace(one, zone="Europe/Berlin") if one.name == "at" else one for one in COLUMNS)
    found = conditions(replace(ORDERS, columns=columns), start="2026-01-01", end="2026-01-02", zone="Europe/Berlin")
    assert [one[2][0] for one in found] == ["2026-01-01 00:00:00", "2026-01-02 00:00:00"]


@pytest.mark.parametrize(
    ("stored", "day"),
    [
        ("UTC", datetime(2026, 10, 24)),
        ("Europe/Berlin", datetime(2026, 10, 24)),
        ("Australia/Lord_Howe", datetime(2026, 4, 4)),  # half an hour
        ("America/St_Johns", datetime(2006, 10, 28)),  # from a minute past midnight to the day before
        ("America/New_York", datetime(2026, 10, 31)),
    ],
)
def test_row_is_in_the_range_if_and_only_if_its_printed_moment_is(stored: str, day: datetime) -> None:
    """What is stored in the hour that the clocks show twice is printed as of its first time."""
    dataset = replace(ORDERS, time_zone=stored)
    rows = [str(day + timedelta(minutes=7 * count)) for count in range(2 * 24 * 60 // 7)]
    _, shifts = in_zone([Column("at", "datetime", zone=stored)], "UTC")
    printed = dict(zip(rows, (one for (one,) in moved([(row.encode(),) for row in rows], shifts)), strict=True))
    bounds = [str(day - timedelta(hours=12) + timedelta(minutes=25 * count)) for count in range(3 * 24 * 60 // 25)]
    for start, end in pairwise(bounds):
        (_, _, (low,)), (_, _, (high,)) = conditions(dataset, start=start, end=end, zone="UTC")
        in_file = [row for row in rows if low <= row < high]
        assert in_file == [row for row in rows if start <= (printed[row] or b"").decode()[:19] < end]


def test_days_are_shifted_into_no_zone() -> None:
    assert conditions(DAYS, start="2026-01-01", end="2026-02-01", zone="Asia/Tokyo") == [
        ("date", "ge", ("2026-01-01",)),
        ("date", "lt", ("2026-02-01",)),
    ]


def test_row_rule_narrows_the_query_to_the_persons_rows(alice: User, bob: User) -> None:
    ruled = replace(ORDERS, row_rule=RowRule("text", "country"))
    for value in ("FR", "DE"):
        PersonAttribute.objects.create(person=alice, name="country", value=value)
    assert conditions(ruled, alice) == [("text", "exactly", ("DE", "FR"))]
    assert conditions(ruled, bob) == [("text", "exactly", ())]
    mine = replace(ORDERS, row_rule=RowRule("text", "username"))
    assert conditions(mine, bob) == [("text", "exactly", ("bob",))]
    numbered = replace(ORDERS, row_rule=RowRule("integer", "country"))
    assert conditions(numbered, alice) == [("integer", "in", ("DE", "FR"))]


def test_names_that_the_dataset_does_not_have_never_reach_a_query() -> None:
    for unknown in (recipe(columns=("id`; DROP TABLE x",)), recipe(filters=(RecipeFilter("1=1 OR id", "eq", ("1",)),))):
        with pytest.raises(ValueError, match="is no column"):
            query_for(unknown, ORDERS, NOBODY)


@pytest.mark.parametrize("value", ["' OR 1=1 --", '"; DROP TABLE orders; --', "%", "_", "!", "\\", "{0}", "?", "\n"])
@pytest.mark.parametrize("op", ["eq", "in", "contains"])
def test_values_are_bound_and_are_no_part_of_the_statement(op: str, value: str) -> None:
    wanted = recipe(filters=(RecipeFilter("text", op, (f"x{value}y",)),))
    query = query_for(wanted, ORDERS, NOBODY)
    clause, values = sql.where(DIALECT, query, KeyRange())
    same, _ = sql.where(
        DIALECT, query_for(recipe(filters=(RecipeFilter("text", op, ("z",)),)), ORDERS, NOBODY), KeyRange()
    )
    assert clause == same
    with sqlite3.connect(":memory:") as connection:
        connection.execute('CREATE TABLE orders ("text")')
        for text in (f"x{value}y", "other", "x1y"):
            connection.execute("INSERT INTO orders VALUES (?)", [text])
        found = [text for (text,) in connection.execute(f'SELECT "text" FROM orders{clause}', values)]
    connection.close()
    assert found == [f"x{value}y"]


# --- filters ----------------------------------------------------------------------------------------------------------

WORKS = {
    "eq": {"text", "boolean", "integer", "decimal", "date", "datetime"},
    "in": {"text", "boolean", "integer", "decimal", "date", "datetime"},
    "contains": {"text", "json"},
    "between": {"integer", "decimal", "float", "date", "datetime", "time"},
    "empty": set(COLUMN_TYPES),
    "not_empty": set(COLUMN_TYPES),
}
SAMPLE = {
    "boolean": "yes", "integer": "7", "decimal": "7.50", "float": "0.5", "date": "2026-01-31",
    "datetime": "2026-01-31 14:30", "time": "14:30",
}  # fmt: skip


@pytest.mark.parametrize("op", FILTERS)
@pytest.mark.parametrize("kind", sorted(COLUMN_TYPES))
def test_comparison_works_for_its_types_and_no_others(kind: str, op: str) -> None:
    values = (SAMPLE.get(kind, "x"),) * {"between": 2, "empty": 0, "not_empty": 0}.get(op, 1)
    told = f"“{FILTERS[op].label}” does not work for {kind.capitalize()}."
    assert filtered(kind, op, *values) == ({} if kind in WORKS[op] else {"filters.0": told})


BOUND = [
    ("integer", " 007 ", "7"),
    ("integer", "-12", "-12"),
    ("integer", "18446744073709551615", "18446744073709551615"),
    ("decimal", "12.50", "12.50"),
    ("decimal", "1e3", "1000"),
    ("decimal", "-0.000001", "-0.000001"),
    ("decimal", "12345678901234567890.123456789", "12345678901234567890.123456789"),
    ("boolean", "Yes", "1"),
    ("boolean", "FALSE", "0"),
    ("date", "2026-1-5", "2026-01-05"),
    ("date", "0900-01-05", "0900-01-05"),
    ("datetime", "2026-01-05T07:08", "2026-01-05 07:08:00"),
    ("datetime", "0900-01-05 00:00", "0900-01-05 00:00:00"),
    ("text", "  spaces stay  ", "  spaces stay  "),
]


@pytest.mark.parametrize(("kind", "typed", "bound"), BOUND)
def test_value_is_bound_in_the_form_of_its_type(kind: str, typed: str, bound: str) -> None:
    assert conditions(filters=(RecipeFilter(kind, "eq", (typed,)),)) == [(kind, "eq", (bound,))]
    assert conditions(filters=(RecipeFilter(kind, "in", (typed, typed)),)) == [(kind, "in", (bound, bound))]


@pytest.mark.parametrize(("kind", "typed", "bound"), [("float", "1e-3", "0.001"), ("time", "-12:30:15", "-12:30:15")])
def test_bound_of_a_range_is_in_the_form_of_its_type(kind: str, typed: str, bound: str) -> None:
    assert conditions(filters=(RecipeFilter(kind, "between", (typed, "")),)) == [(kind, "ge", (bound,))]


def test_day_as_a_bound_of_moments_means_all_of_it() -> None:
    """Bare midnight would leave out the last day without a word."""

    def bound(op: str, *values: str) -> list[tuple[str, str]]:
        return [(found, value) for _, found, (value,) in conditions(filters=(RecipeFilter("datetime", op, values),))]

    january = [("ge", "2026-01-01 00:00:00"), ("lt", "2026-02-01 00:00:00")]
    assert bound("between", "2026-01-01", "2026-1-31") == january
    assert bound("between", "", "2026-01-31") == january[1:]
    assert bound("between", "2026-01-01", "2026-01-31 12:00") == [january[0], ("le", "2026-01-31 12:00:00")]
    assert bound("between", "", "9999-12-31") == [("le", "9999-12-31 23:59:59.999999")]
    assert bound("eq", "2026-01-31") == [("ge", "2026-01-31 00:00:00"), january[1]]
    assert bound("eq", "2026-01-31 00:00") == [("eq", "2026-01-31 00:00:00")]
    assert bound("in", "2026-01-31") == [("in", "2026-01-31 00:00:00")]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("integer", "10", "9"), ("decimal", "1.5", "-2"), ("date", "2026-02-01", "2026-01-31"), ("time", "12:00", "-13:00"),
     ("datetime", "2026-01-31 12:00", "2026-01-31 11:59")],
)  # fmt: skip
def test_range_that_ends_before_it_starts_is_told(kind: str, low: str, high: str) -> None:
    told = f"The end of the range of {kind.capitalize()} is before its start."
    assert filtered(kind, "between", low, high) == {"filters.0": told}
    assert filtered(kind, "between", high, low) == filtered(kind, "between", low, low) == {}


def test_value_of_more_than_a_thousand_characters_is_told() -> None:
    """Databases refuse long patterns, in words that help nobody."""
    assert filtered("text", "contains", "ä" * 1000) == {}
    told = f"“{'ä' * 40}…” is too long: a value has at most 1,000 characters."
    assert filtered("text", "in", "short", "ä" * 1001) == {"filters.0": told}


HUGE = [
    f"{digit}e{sign}999999999999999999" for digit in "10" for sign in ("", "-")
]  # written out, no memory holds them
REFUSED = {
    "integer": (["twelve", "1.5", "18446744073709551616", "0x10", "9" * 900], "a whole number"),
    "decimal": (["12,50", "nan", "inf", "1e60", *HUGE, "1" * 61],
                "a number such as 12.50"),
    "float": (["much", "nan", "-inf", *HUGE], "a number such as 12.5"),
    "boolean": (["perhaps", "2"], "yes or no"),
    "date": (["2026-02-30", "soon"], "a date such as 2026-01-31"),
    "datetime": (["2026-02-30 10:00", "noon"], "a time such as 2026-01-31 14:30"),
    "time": (["9", "noon", "12:30pm"], "a time such as 14:30:00"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "typed"), [(kind, typed) for kind, (all_, _) in REFUSED.items() for typed in all_])
def test_value_of_another_type_is_told(kind: str, typed: str) -> None:
    told = f"“{typed[:40]}” is not {REFUSED[kind][1]}, as {kind.capitalize()} is."
    op = "between" if kind in ("float", "time") else "eq"
    values = (typed, "") if op == "between" else (typed,)
    assert filtered(kind, op, *values) == {"filters.0": told}


INCOMPLETE: list[tuple[str, str, tuple[str, ...], str]] = [
    ("text", "eq", (), "Write what Text is to be compared with, or remove the condition."),
    ("text", "eq", ("",), "Write what Text is to be compared with, or remove the condition."),
    ("text", "eq", ("a", "b"), "“is” takes one value."),
    ("text", "in", (), "Write what Text is to be compared with, or remove the condition."),
    ("integer", "in", ("1", ""), "Write what Integer is to be compared with, or remove the condition."),
    ("integer", "between", ("", ""), "Write what Integer is to be compared with, or remove the condition."),
    ("integer", "between", ("1",), "“is between” takes two values."),
    ("integer", "between", ("1", "2", "3"), "“is between” takes two values."),
    ("text", "empty", ("a",), "“is empty” takes no value."),
    ("text", "like", ("a",), "Choose a comparison."),
    ("salary", "eq", ("a",), "There is no column “salary” to filter by."),
    ("secret", "eq", ("a",), "There is no column “secret” to filter by."),
]


@pytest.mark.parametrize(("column", "op", "values", "told"), INCOMPLETE)
def test_condition_that_says_too_little_or_too_much_is_told(
    column: str, op: str, values: tuple[str, ...], told: str
) -> None:
    assert filtered(column, op, *values) == {"filters.0": told}


def test_each_condition_is_told_by_its_place() -> None:
    good, bad = RecipeFilter("id", "eq", ("1",)), RecipeFilter("id", "eq", ("x",))
    assert list(wrong(filters=(good, bad, good, bad))) == ["filters.1", "filters.3"]


def test_range_of_values_has_both_ends_in_it_and_either_may_be_open() -> None:
    def bounds(*values: str) -> list[tuple[str, tuple[str, ...]]]:
        return [one[1:] for one in conditions(filters=(RecipeFilter("decimal", "between", values),))]

    assert bounds("1", "2.5") == [("ge", ("1",)), ("le", ("2.5",))]
    assert bounds("", "2.5") == [("le", ("2.5",))]
    assert bounds("1", " ") == [("ge", ("1",))]


def test_conditions_are_all_to_hold() -> None:
    filters = (RecipeFilter("text", "contains", ("a",)), RecipeFilter("text", "not_empty"))
    assert conditions(start="2026-01-01", filters=filters) == [
        ("at", "ge", ("2026-01-01 00:00:00",)),
        ("text", "contains", ("a",)),
        ("text", "not_empty", ()),
    ]
    assert query_for(recipe(filters=filters), ORDERS, NOBODY).conditions[0] == Condition(
        Column("text", label="Text"), "contains", ("a",)
    )
