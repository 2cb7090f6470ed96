"""Tells before an export starts about how many rows it has, how big it gets, how long it takes and who is before it.

From kept figures and from what past exports came to: nothing here asks a source. Each part is a range, the wider the more
of it is guessed; docs/estimates.md says how good they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from itertools import islice
from statistics import quantiles
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet

from exportapp import figures, lifecycle, recipes, turns
from exportapp.datasets import Dataset, DatasetColumn
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import Condition, Recipe, from_json, to_json
from exportapp.models import Export, ExportState

Span = tuple[int, int]

PAST = 50  # exports of one kind that are learned from
LATELY = 15  # of them, that speeds are learned from
LOOKED_AT = 300  # latest exports of a dataset that they are looked for among

# Bytes of a value in CSV as it mostly is, with what stands around it.
WIDTHS = {"integer": 8, "decimal": 8, "float": 10, "text": 17, "boolean": 2, "date": 11, "datetime": 26, "time": 9,
          "json": 60, "binary": 40}  # fmt: skip
COMPRESSED = 0.25
START_SECONDS = 0.6  # of any export: planning, joining, and a doorbell for a worker
TRUSTED_BYTES = 1_000_000  # so many bytes of CSV that were exported count as much as what is assumed
EQUAL, PART = 20, 5  # one of so many rows is taken to equal a value, to meet another condition
SOON = timedelta(seconds=1)  # a step that is younger waits for a doorbell and for nobody
LEARNED = 1.5  # and one that others had before, so many times
SHARES = 5  # exports with the same conditions that are learned from
UNKNOWN = 4.0  # a guess of a share of rows may be so many times too high or too low


@dataclass(frozen=True)
class Estimate:
    """Ranges from low to high; None where nothing is known. `notes` says what is a guess, `problem` what is too much."""

    rows: Span | None
    bytes: Span | None
    seconds: Span | None
    ahead: int
    guess: bool
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Past:
    """What an export of the same kind came to. `weight` is what its rows were taken to be in CSV."""

    columns: tuple[str, ...]
    rows: int
    bytes: int
    seconds: float
    weight: float


@dataclass
class _Notes:
    """Collects what is guessed."""

    told: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        if sentence not in self.told:
            self.told.append(sentence)


def estimate(dataset: Dataset, recipe: Recipe, person: User, sample: Span | None = None) -> Estimate:
    """What an export of the recipe would come to for this person. Raises ValueError for one that cannot be understood.

    `sample` are rows that were seen already, and their bytes in CSV or in the recipe's own format without compression.
    """
    notes = _Notes()
    _, ahead = turns.places(person.pk, lifecycle.now() - SOON)
    rows = _rows(dataset, recipe, person, notes)
    if rows is None:
        return Estimate(None, None, None, ahead, True, tuple(notes.told))
    past = past_exports(dataset, recipe)
    each = width(dataset, recipe)
    size, unsure = row_bytes(recipe, past, each, sample)
    if not past:
        notes.add("Size and time are guesses until the first export of this kind.")
    fixed = FORMATS[recipe.format].typical.fixed
    total = int(rows[0] * size / unsure + fixed), math.ceil(rows[1] * size * unsure + fixed)
    problem = lifecycle.too_much(dataset, rows[0], total[0])
    return Estimate(rows, total, seconds(recipe, past, rows, each), ahead, bool(notes.told), tuple(notes.told), problem)


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(dataset: Dataset, recipe: Recipe, person: User, notes: _Notes) -> Span | None:
    known = figures.of(dataset)
    if known is None:
        notes.add("Nobody has counted these rows yet." + (" A worker does it soon." if settings.FIGURES_HOURS else ""))
        return None
    span, times, others = _by_time(known, recipe, dataset, person)
    if times and not known.days:
        notes.add("The rows are taken to be spread evenly over time.")
    elif not known.rows_exact and not known.days:
        notes.add("The number of rows is the database's own estimate.")
    if not others:
        return span
    notes.add("How many rows meet the conditions is a guess.")
    if shares := _learned_shares(known, recipe, dataset, person):
        least, most = min(shares) / LEARNED, max(shares) * LEARNED
    else:
        share = math.prod(selectivity(one, dataset) for one in others)
        least, most = share / UNKNOWN, share * UNKNOWN
    return int(span[0] * least), min(span[1], math.ceil(span[1] * most))


def _by_time(
    known: figures.Figures, recipe: Recipe, dataset: Dataset, person: User
) -> tuple[Span, list[Condition], list[Condition]]:
    """The rows of the recipe's range, the conditions that make the range, and the others."""
    conditions = recipes.query_for(recipe, dataset, person).conditions
    times = [one for one in conditions if one.column.name == dataset.time_column and one.op in _BOUNDS]
    low, high = _window(times, whole_days=dataset.time_is_day)
    others = [one for one in conditions if one not in times]
    return within(known, low, high, dataset, lifecycle.now()), times, others


def _learned_shares(known: figures.Figures, recipe: Recipe, dataset: Dataset, person: User) -> list[float]:
    """Which share of their range's rows the latest exports with the very same conditions had."""
    wanted = json.loads(json.dumps(to_json(recipe)["filters"]))
    done = _done(dataset) if dataset.row_rule is None else _done(dataset).filter(owner=person)
    found = done.order_by("-finished_at").values_list("recipe_json", "file_rows")[:LOOKED_AT]
    shares = []
    for made, rows in islice((one for one in found if one[0].get("filters") == wanted), SHARES):
        try:
            (low, high), *_ = _by_time(known, from_json(Recipe, made), dataset, person)
        except (TypeError, ValueError):  # of a dataset that was declared otherwise then
            continue
        if low + high >= 200:  # of fewer, chance decides
            shares.append(2 * (rows or 0) / (low + high))
    return shares


_BOUNDS = ("ge", "gt", "le", "lt")
_DAY = timedelta(days=1)


def _window(bounds: Iterable[Condition], *, whole_days: bool) -> tuple[datetime, datetime]:
    """The narrowest range that is meant, as stored; its end is not included."""
    low, high = datetime.min, datetime.max
    for bound in bounds:
        at = datetime.fromisoformat(bound.values[0])
        if whole_days and bound.op in ("gt", "le") and at < datetime.max - _DAY:
            at = datetime.combine(at.date(), time()) + _DAY
        low, high = (max(low, at), high) if bound.op in ("ge", "gt") else (low, min(high, at))
    return low, high


def within(known: figures.Figures, low: datetime, high: datetime, dataset: Dataset, now: datetime) -> Span:
    """The rows of a range, by their days; a day that is cut is taken to have its rows spread over it."""
    if low >= high:
        return 0, 0
    grown = _grown(known, low, high, dataset, now)
    if not known.days:
        return _spread(known, low, high, grown)
    if (low, high) == (datetime.min, datetime.max):
        return known.rows, known.rows + grown
    whole = cut = most = 0.0
    first, last = low.date().isoformat(), high.date().isoformat()
    for day, count in known.days:
        if first <= day <= last:
            share = _share(datetime.fromisoformat(day), low, high)
            whole += count if share == 1 else 0
            cut += count * share if share < 1 else 0
            most += min(count * share * 2, count)
    return int(whole + cut / 2), math.ceil(most) + grown


def _share(day: datetime, low: datetime, high: datetime) -> float:
    """How much of a day is in the range."""
    end = day + _DAY if day < datetime.max - _DAY else datetime.max
    return max((min(high, end) - max(low, day)) / (end - day), 0.0)


def _spread(known: figures.Figures, low: datetime, high: datetime, grown: int) -> Span:
    total = (known.rows, known.rows) if known.rows_exact else (int(known.rows / 1.5), math.ceil(known.rows * 1.5))
    if (low, high) == (datetime.min, datetime.max):
        return total[0], total[1] + grown
    if known.oldest is None or known.newest is None or known.newest <= known.oldest:
        return 0, total[1] + grown
    oldest, newest = known.oldest.replace(tzinfo=None), known.newest.replace(tzinfo=None)
    share = max((min(high, newest) - max(low, oldest)) / (newest - oldest), 0.0)
    return int(total[0] * share / UNKNOWN), min(total[1], math.ceil(total[1] * share * UNKNOWN)) + grown


def _grown(known: figures.Figures, low: datetime, high: datetime, dataset: Dataset, now: datetime) -> int:
    """The most rows that may have come since they were counted: twice as many as came in as long a time lately."""
    zone = ZoneInfo(dataset.stored_zone)
    counted, until = (at.astimezone(zone).replace(tzinfo=None) for at in (known.computed_at, now))
    fresh = (min(high, until) - max(low, counted)) / _DAY
    if fresh <= 0 or not dataset.time_column:
        return 0
    lately = (counted - timedelta(days=28)).date().isoformat()
    return math.ceil(fresh * 2 * sum(count for day, count in known.days if day >= lately) / 28)


def selectivity(condition: Condition, dataset: Dataset) -> float:
    """About which share of the rows meets a condition. Without looking it can only be guessed."""
    column = dataset.column(condition.column.name)
    different = _different(column) if column else EQUAL
    shares = {
        "eq": 1 / different,
        "in": min(1.0, len(condition.values) / different),
        "exactly": min(1.0, len(condition.values) / different),
        "empty": 1 / PART,
        "not_empty": 1 - 1 / PART,
    }
    return shares.get(condition.op, 1 / PART if condition.op == "contains" else 1 / 2)


def _different(column: DatasetColumn) -> int:
    return len(column.choices) or (2 if column.type == "boolean" else EQUAL)


# --- size and time ----------------------------------------------------------------------------------------------------


def width(dataset: Dataset, recipe: Recipe) -> float:
    """About how many bytes a row of these columns has as text."""
    columns = [column for name in recipe.columns if (column := dataset.column(name))]
    names = sum(len(column.name) + 4 for column in columns) if FORMATS[recipe.format].typical.names else 0
    return names + sum(_width(column) for column in columns) + 1


def _width(column: DatasetColumn) -> float:
    if column.choices:
        return 3 + sum(map(len, column.choices)) / len(column.choices)
    return WIDTHS.get(column.type, WIDTHS["text"])


def past_exports(dataset: Dataset, recipe: Recipe) -> list[Past]:
    """The latest exports of the dataset in the same format and compression, newest first."""
    rows = (
        _done(dataset)
        .order_by("-finished_at")
        .values_list("recipe_json", "file_rows", "file_bytes", "started_at", "finished_at")
    )
    alike = (row for row in rows[:LOOKED_AT] if _kind(row[0]) == (recipe.format, recipe.compression))
    return [_past(dataset, recipe, row) for row in islice(alike, PAST)]


def _done(dataset: Dataset) -> QuerySet[Export]:
    done = Export.objects.filter(dataset=dataset.name, state__in=(ExportState.READY, ExportState.EXPIRED))
    return done.filter(file_rows__isnull=False, started_at__isnull=False, finished_at__isnull=False)


def _kind(made: dict[str, Any]) -> tuple[Any, Any]:
    return made.get("format"), made.get("compression")


def _past(dataset: Dataset, recipe: Recipe, facts: Sequence[Any]) -> Past:
    made, rows, size, began, ended = facts
    columns = tuple(map(str, made.get("columns", ())))
    weight = rows * width(dataset, Recipe(dataset.name, columns, recipe.format))
    return Past(columns, rows, size or 0, (ended - began).total_seconds(), weight)


def row_bytes(recipe: Recipe, past: Sequence[Past], each: float, sample: Span | None) -> tuple[float, float]:
    """The bytes of a row in the file, and how many times more or less they may be."""
    share, fixed = FORMATS[recipe.format].typical.share, FORMATS[recipe.format].typical.fixed
    share *= COMPRESSED if recipe.compression != "none" else 1
    same = [one for one in past if set(one.columns) == set(recipe.columns) and one.rows]
    if same and (rows := sum(one.rows for one in same)) >= 20:
        sizes = [max(one.bytes - fixed, 1) / one.rows for one in same]
        return max(sum(one.bytes - fixed for one in same), 1) / rows, _spread_of(sizes, 1.1, 2.0)
    if sample and sample[0] and share == 1:
        return sample[1] / sample[0], 1.3
    if past:
        # What was exported counts by its bytes, against a few that are as they are assumed to be.
        weight, size = sum(one.weight for one in past), sum(max(one.bytes - fixed, 0) for one in past)
        return each * (size + share * TRUSTED_BYTES / 100) / (weight + TRUSTED_BYTES / 100), 1.5
    return (sample[1] / sample[0] * share, 1.6) if sample and sample[0] else (each * share, 2.0)


def seconds(recipe: Recipe, past: Sequence[Past], rows: Span, each: float) -> Span:
    """From start to ready file."""
    past = past[:LATELY]  # a source that is slow today was quick last week
    assumed = 1 / (FORMATS[recipe.format].typical.speed * 1e6)
    start = min([START_SECONDS * 5, *(one.seconds for one in past)]) if past else START_SECONDS
    weight = sum(one.weight for one in past)
    pace = (_pace(past, start) * weight + assumed * TRUSTED_BYTES) / (weight + TRUSTED_BYTES)
    took = [one.seconds / max(start + one.weight * pace, 0.01) for one in past]
    unsure = _spread_of(took, 1.4, 4.0) if len(past) > 1 else 3.0
    low, high = (start + count * each * pace for count in rows)
    return max(1, int(low / unsure)), max(1, math.ceil(high * unsure))


def _pace(past: Sequence[Past], start: float) -> float:
    """Seconds for a byte, of the export that stands in the middle: one that waited for a database tells nothing."""
    paces = sorted((max(one.seconds - start, 0.0) / one.weight, one.weight) for one in past if one.weight)
    half, passed = sum(weight for _, weight in paces) / 2, 0.0
    for pace, weight in paces:
        passed += weight
        if passed >= half:
            return pace
    return 0.0


def _spread_of(values: Sequence[float], least: float, most: float) -> float:
    """How many times its middle values four of five of them stay within."""
    if len(values) < 5:
        return least * 1.1
    tenths = quantiles(values, n=10)
    return min(max(math.sqrt(tenths[-1] / max(tenths[0], 1e-9)), least), most)
