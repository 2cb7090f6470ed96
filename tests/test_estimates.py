"""Estimates: the rows of a range from kept days, sizes and speeds from past exports, and a range that says what is guessed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries, Settings

from exportapp import datasets, estimates, figures, lifecycle, turns
from exportapp.datasets import Dataset
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Recipe, RecipeFilter
from exportapp.estimates import Estimate, estimate
from exportapp.models import DatasetFigures, Export, ExportState, PersonAttribute, Step
from tests.scenes import ask, finish, held, in_state, take
from worker import tasks
from worker.heart import HEART

pytestmark = pytest.mark.usefixtures("desk")

COLUMNS = ("id", "placed_at")
NO_FIGURES = "Nobody has counted these rows yet. A worker does it soon."
CONDITIONS = "How many rows meet the conditions is a guess."
FIRST = "Size and time are guesses until the first export of this kind."


def declared(name: str = "orders") -> Dataset:
    return datasets.catalogue().datasets[name]


def counted(name: str = "orders", **changes: Any) -> None:
    """Figures of 100 rows a day in January 2026, counted just now."""
    days = [[date(2026, 1, day).isoformat(), 100] for day in range(1, 32)]
    at = lifecycle.now()
    kept = {
        "rows": 3100,
        "rows_exact": True,
        "days": days,
        "oldest": "2026-01-01 00:00:00",
        "newest": "2026-01-31 23:59:59",
    }
    DatasetFigures.objects.create(
        dataset=name,
        fingerprint=figures.fingerprint(declared(name)),
        computed_at=at,
        tried_at=at,
        **{**kept, **changes},
    )


def told(person: User, sample: tuple[int, int] | None = None, dataset: str = "orders", **recipe: Any) -> Estimate:
    return estimate(declared(dataset), Recipe(dataset, **{"columns": COLUMNS, **recipe}), person, sample)


def made(owner: User, rows: int, size: int, seconds: float, **recipe: Any) -> None:
    """An export that is ready, of so many rows, bytes and seconds."""
    export = in_state(owner, ExportState.READY, **recipe)
    ended = lifecycle.now()
    Export.objects.filter(pk=export.pk).update(
        file_rows=rows, file_bytes=size, started_at=ended - timedelta(seconds=seconds), finished_at=ended
    )


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        ("2026-01-01", "2026-02-01", (3100, 3100)),
        ("2026-01-10", "2026-01-11", (100, 100)),
        ("", "", (3100, 3100)),
        ("2026-01-30", "", (200, 200)),
        ("", "2026-01-03", (200, 200)),
        ("2025-01-01", "2025-03-01", (0, 0)),
        ("2026-01-10 12:00", "2026-01-12", (125, 200)),
        ("2026-01-10 06:00", "2026-01-10 12:00", (12, 50)),
        ("2026-01-12", "2026-01-10", (0, 0)),
    ],
)
def test_rows_of_a_range_are_those_of_its_days(alice: User, start: str, end: str, rows: tuple[int, int]) -> None:
    counted()
    assert told(alice, start=start, end=end).rows == rows


def test_a_range_is_meant_in_its_zone_and_days_are_those_of_the_source(alice: User) -> None:
    counted()
    assert told(alice, start="2026-01-10", end="2026-01-11", zone="Asia/Tokyo").rows == (50, 175)


def test_days_of_a_date_column_are_whole(alice: User) -> None:
    counted("revenue")
    found = told(alice, dataset="revenue", columns=("day",), start="2026-01-10", end="2026-01-12")
    assert found.rows == (200, 200)
    upto = RecipeFilter("day", "between", ("2026-01-10", "2026-01-12"))
    assert told(alice, dataset="revenue", columns=("day",), filters=(upto,)).rows == (300, 300)


def test_rows_that_came_since_they_were_counted_widen_the_range(alice: User) -> None:
    now = datetime(2026, 2, 3)
    known = figures.Figures(
        3100, True, datetime.fromisoformat("2026-02-01T00:00Z"), None, None,
        tuple((f"2026-01-{day:02}", 100) for day in range(1, 32)),
    )  # fmt: skip
    now = datetime.fromisoformat("2026-02-03T00:00Z")
    assert estimates.within(known, datetime(2026, 1, 1), datetime(2026, 2, 1), declared(), now) == (3100, 3100)
    assert estimates.within(known, datetime(2026, 1, 1), datetime(2026, 2, 2), declared(), now) == (3100, 3300)
    assert estimates.within(known, datetime.min, datetime.max, declared(), now) == (3100, 3500)


def test_conditions_lower_the_rows_and_make_them_a_guess(alice: User) -> None:
    counted()
    found = told(alice, filters=(RecipeFilter("status", "eq", ("paid",)),))
    assert found.guess
    assert CONDITIONS in found.notes
    assert found.rows == (38, 620)
    gifts = told(alice, filters=(RecipeFilter("gift", "eq", ("yes",)),))
    assert gifts.rows == (387, 3100)
    all_ops = ("in", "contains", "empty", "not_empty")
    for op in all_ops:
        values = () if "empty" in op else ("a",)
        low, high = told(alice, filters=(RecipeFilter("status", op, values),)).rows or (-1, -1)
        assert 0 <= low < high <= 3100


def test_the_share_of_rows_that_meet_conditions_is_learned_from_exports_with_the_same(alice: User, bob: User) -> None:
    counted()
    paid, new = (RecipeFilter("status", "eq", (word,)) for word in ("paid", "new"))
    for rows in (600, 660):
        made(bob, rows, 30 * rows, 1, columns=COLUMNS, start="2026-01-01", end="2026-01-08", filters=(paid,))
    found = told(alice, filters=(paid,))
    assert found.rows == (1771, 3100)
    assert told(alice, filters=(new,)).rows == (38, 620)
    assert told(alice, start="2026-01-01", end="2026-01-02", filters=(paid,)).rows == (57, 100)
    assert CONDITIONS in found.notes


def test_a_row_rule_is_a_condition(charlie: User) -> None:
    counted("regional", days=[])
    PersonAttribute.objects.create(person=charlie, name="country", value="DE")
    found = told(charlie, dataset="regional", columns=("country",))
    assert found.rows == (38, 620)
    assert CONDITIONS in found.notes


def test_without_days_rows_are_taken_to_be_spread_evenly(alice: User) -> None:
    counted(days=[])
    found = told(alice, start="2026-01-01", end="2026-01-16")
    assert found.rows and found.rows[0] < 1500 < found.rows[1]
    assert "The rows are taken to be spread evenly over time." in found.notes
    assert told(alice).rows == (3100, 3100)


def test_rows_that_the_database_estimates_are_a_range(alice: User) -> None:
    counted(days=[], rows_exact=False, oldest="", newest="")
    assert told(alice).rows == (2066, 4650)
    assert told(alice, start="2026-01-01", end="2026-02-01").rows == (0, 4650)


def test_without_figures_nothing_is_made_up(alice: User, settings: Settings) -> None:
    assert told(alice) == Estimate(None, None, None, 0, True, (NO_FIGURES,))
    settings.FIGURES_HOURS = 0
    assert told(alice).notes == ("Nobody has counted these rows yet.",)


def test_more_than_the_dataset_allows_is_told(alice: User, desk: Any) -> None:
    path = desk / "datasets.toml"
    path.write_text(path.read_text().replace("max_days = 100", "max_days = 100\nmax_rows = 3000"))
    counted()
    assert told(alice).problem.startswith("More than 3,000 rows")
    assert told(alice, start="2026-01-01", end="2026-01-20").problem == ""


# --- size and time ----------------------------------------------------------------------------------------------------


def within(span: tuple[int, int] | None, value: float) -> bool:
    return span is not None and span[0] <= value <= span[1]


def test_without_past_exports_size_and_time_are_wide_guesses(alice: User) -> None:
    counted()
    found = told(alice)
    assert FIRST in found.notes and found.guess
    assert found.bytes and found.bytes[1] >= 3.9 * found.bytes[0]
    assert within(found.bytes, 3100 * 30)
    assert found.seconds and found.seconds[0] <= 1 < found.seconds[1]


def test_what_past_exports_of_the_same_columns_came_to_is_what_is_expected(alice: User) -> None:
    counted()
    for rows in (1000, 2000, 3000):
        made(alice, rows, 50 * rows, 2, columns=COLUMNS)
    found = told(alice)
    assert not found.guess
    assert found.notes == ()
    assert within(found.bytes, 3100 * 50)
    assert found.bytes and found.bytes[1] < 1.5 * found.bytes[0]
    assert within(found.seconds, 2)


def test_of_other_columns_the_share_of_text_is_learned(alice: User) -> None:
    counted()
    before = told(alice).bytes
    made(alice, 100_000, 100_000 * 100, 5, columns=("id", "placed_at", "status", "email"))
    after = told(alice).bytes
    assert before and after
    assert after[0] > before[0]
    assert after[1] / after[0] < before[1] / before[0]


def test_rows_that_were_seen_tell_more_of_text_than_what_is_assumed(alice: User) -> None:
    counted()
    assert within(told(alice, sample=(20, 20 * 500)).bytes, 3100 * 500)
    packed = told(alice, sample=(20, 20 * 500), compression="gzip").bytes
    assert packed and packed[1] < 3100 * 500


def test_exports_of_another_format_or_dataset_teach_nothing(alice: User) -> None:
    counted()
    counted("revenue")
    made(alice, 1000, 1000 * 5000, 500, format="xlsx", columns=COLUMNS)
    made(alice, 1000, 1000 * 5000, 500, compression="gzip", columns=COLUMNS)
    assert FIRST in told(alice).notes
    assert FIRST in told(alice, dataset="revenue", columns=("day",)).notes
    assert FIRST not in told(alice, format="xlsx").notes


def test_how_fast_a_dataset_is_read_is_learned(alice: User) -> None:
    counted(rows=10_000_000, days=[])
    quick = told(alice).seconds
    for rows in (1_000_000, 2_000_000, 100):
        made(alice, rows, 30 * rows, 1 + rows / 10_000, columns=COLUMNS)  # 10,000 rows a second
    found = told(alice).seconds
    assert within(found, 1000)
    assert quick and found and found[0] > quick[1]


def test_one_export_that_waited_for_its_source_does_not_spoil_what_was_learned(alice: User) -> None:
    counted(rows=1_000_000, days=[])
    for _ in range(4):
        made(alice, 1_000_000, 30_000_000, 10, columns=COLUMNS)
    made(alice, 1_000, 30_000, 3600, columns=COLUMNS)
    assert within(told(alice).seconds, 10)


def test_an_estimate_takes_few_queries_and_none_at_the_source(
    alice: User,
    django_assert_max_num_queries: DjangoAssertNumQueries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(url: str) -> None:
        raise ExportError("asked")

    monkeypatch.setattr("exportapp.engine.readers._reader_class", refused)
    counted()
    for _ in range(3):
        made(alice, 1000, 50_000, 2, columns=COLUMNS)
    with django_assert_max_num_queries(8):
        assert told(alice).rows


@pytest.mark.usefixtures("shop")
def test_the_estimate_holds_the_receipt_of_the_export_that_follows(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HEART, "start", lambda: None)
    while figures.refresh_one():
        pass
    for form in ("csv", "jsonl", "xlsx", "parquet"):
        ask(alice, format=form)
        tasks.work()
        expected = told(alice, start="2026-01-01", end="2026-02-01", format=form)
        export = ask(alice, format=form)
        tasks.work()
        export.refresh_from_db()
        assert expected.rows == (export.file_rows, export.file_rows)
        assert within(expected.bytes, export.file_bytes or 0)


# --- who is before it -------------------------------------------------------------------------------------------------


def ahead_of(owner: User) -> int:
    return turns.places(owner.pk, lifecycle.now() - estimates.SOON)[1]


def old() -> None:
    for step in Step.objects.all():
        Step.objects.filter(pk=step.pk).update(not_before=step.not_before - timedelta(seconds=5))


def test_own_exports_and_one_of_each_other_person_for_each_turn_are_before_it(
    alice: User, bob: User, person: Callable[..., User]
) -> None:
    assert ahead_of(alice) == 0
    for owner in (alice, alice, bob, bob, bob, person("carol", "sales")):
        ask(owner)
    assert ahead_of(alice) == 0, "they wait for a doorbell alone"
    old()
    assert ahead_of(alice) == 2 + 3 + 1
    assert ahead_of(person("dora", "sales")) == 3


def test_whoever_has_more_running_comes_later_and_what_waits_for_its_own_steps_blocks_nobody(
    alice: User, bob: User, settings: Settings
) -> None:
    settings.STEPS_PER_EXPORT = 2
    step = held("chunk", bob, parts=4)
    old()
    assert ahead_of(alice) == 0, "he has a step running, and she has none"
    assert ahead_of(bob) == 1
    take()
    assert ahead_of(bob) == 0, "two of its steps run: that is all it may"
    finish(step)
    old()
    assert ahead_of(bob) == 1


def test_it_is_first_that_a_new_export_is_given_when_nobody_is_before_it(alice: User, bob: User) -> None:
    held("chunk", bob, parts=4)
    old()
    assert ahead_of(alice) == 0
    export = ask(alice)
    assert take().export == export
