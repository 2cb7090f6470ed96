"""Figures of datasets: about how many rows, of which days, counted in the background and kept for forms and estimates.

A worker without a step to do counts one dataset; a web request reads what was kept, and never asks a source.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import Error as DatabaseError
from django.db.models import F

from exportapp import datasets
from exportapp.datasets import Dataset
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import open_reader
from exportapp.engine.readers.base import Histogram, Reader
from exportapp.engine.specs import Query
from exportapp.lifecycle import READING, now
from exportapp.models import DatasetFigures, Step, StepState

log = logging.getLogger(__name__)

HINT = 0  # the step that a doorbell for figures names: there is none of that number
STATEMENT_SECONDS = 5.0
LOOK_SECONDS = 20.0  # all of a look, with the opening of the source
LEASE = timedelta(seconds=120)
RETRY = timedelta(minutes=15)
MOST_DAYS = 12_000
REMIND_SECONDS = 2.0


@dataclass(frozen=True)
class Figures:
    """What is known of a dataset. Days and ends are in the zone that its times are stored in."""

    rows: int
    rows_exact: bool
    computed_at: datetime
    oldest: datetime | None
    newest: datetime | None
    days: tuple[tuple[str, int], ...]


# --- what is known ----------------------------------------------------------------------------------------------------


def of(dataset: Dataset) -> Figures | None:
    """The figures of a dataset as it is declared now; None when there are none yet."""
    return of_all([dataset]).get(dataset.name)


def shown(declared: Iterable[Dataset]) -> dict[str, Figures]:
    """What people may read of datasets, without the days: nothing where they have only some rows of their own."""
    return of_all((dataset for dataset in declared if dataset.row_rule is None), with_days=False)


def of_all(declared: Iterable[Dataset], *, with_days: bool = True) -> dict[str, Figures]:
    """The figures of those that have some, by name, in one query."""
    known = {dataset.name: dataset for dataset in declared}
    kept = DatasetFigures.objects.filter(dataset__in=known, computed_at__isnull=False, rows__isnull=False)
    if not with_days:
        kept = kept.defer("days")
    found = ((row, known[row.dataset]) for row in kept)
    return {
        row.dataset: _figures(row, dataset, with_days)
        for row, dataset in found
        if row.fingerprint == fingerprint(dataset)
    }


def _figures(row: DatasetFigures, dataset: Dataset, with_days: bool) -> Figures:
    days = tuple((str(day), int(count)) for day, count in row.days) if with_days else ()
    oldest, newest = moment_of(row.oldest, dataset), moment_of(row.newest, dataset)
    return Figures(row.rows or 0, row.rows_exact, row.computed_at or datetime.min, oldest, newest, days)


def moment_of(text: str, dataset: Dataset) -> datetime | None:
    """A stored time as a moment; None for what is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(dataset.stored_zone))


def fingerprint(dataset: Dataset) -> str:
    """Changes with whatever figures depend on, and not with labels."""
    timed = dataset.column(dataset.time_column)
    parts = [dataset.source, dataset.table, dataset.view, dataset.query, dataset.time_column, timed and timed.type]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# --- what is due ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Due:
    """A dataset to be counted, and its row as it was when that was seen."""

    dataset: Dataset
    row: DatasetFigures | None


def _due(at: datetime) -> list[_Due]:
    """What may be counted now, longest ago first: at most one dataset of each source that has a connection to spare."""
    if not settings.FIGURES_HOURS:
        return []
    declared = datasets.catalogue()
    rows = {row.dataset: row for row in DatasetFigures.objects.defer("days")}
    found = [_Due(dataset, rows.get(dataset.name)) for dataset in declared.datasets.values()]
    busy = {one.dataset.source for one in found if one.row and one.row.lease_until and one.row.lease_until > at}
    wanted = [one for one in found if one.dataset.source not in busy and _is_due(one, at)]
    wanted.sort(key=lambda one: (one.row is not None and one.row.tried_at is not None, _tried(one)))
    first = {one.dataset.source: one for one in reversed(wanted)}
    return [one for source, one in first.items() if _has_room(source)]


def _tried(one: _Due) -> float:
    return one.row.tried_at.timestamp() if one.row and one.row.tried_at else 0.0


def _is_due(one: _Due, at: datetime) -> bool:
    row = one.row
    if row is None or row.tried_at is None or row.fingerprint != fingerprint(one.dataset):
        return True
    age = timedelta(hours=settings.FIGURES_HOURS)
    return at - row.tried_at > (min(age, RETRY) if row.error else age)


def _has_room(source: str) -> bool:
    """Whether exports leave a connection: they come first."""
    declared = datasets.catalogue().sources.get(source)
    if declared is None or not declared.url:
        return False
    reading = Step.objects.filter(state=StepState.RUNNING, kind__in=READING, export__source=source).count()
    return reading < declared.connections


class Reminder:
    """Tells a dispatcher for what to ring. Not from the first moment on: exports that waited for it come first."""

    def __init__(self) -> None:
        self._next = time.monotonic() + REMIND_SECONDS
        self._rung: dict[str, float] = {}

    def due(self) -> list[int]:
        """A hint for each dataset to be counted that was not rung for lately."""
        at = time.monotonic()
        if at < self._next:
            return []
        self._next = at + REMIND_SECONDS
        names = [one.dataset.name for one in _due(now())]
        fresh = [name for name in names if at - self._rung.get(name, -math.inf) > settings.RING_AGAIN_SECONDS]
        self._rung |= dict.fromkeys(fresh, at)
        return [HINT] * len(fresh)


# --- counting ---------------------------------------------------------------------------------------------------------


def refresh_one(stopping: Callable[[], bool] = lambda: False) -> str:
    """Counts one dataset that is due, if there is one. Returns its name, '' when there was nothing to do.

    A source that fails is noted for operators and tried again later; what was known before stays.
    """
    for one in _due(now()):
        if claimed := _claim(one):
            _count(one, claimed, stopping)
            return one.dataset.name
    return ""


def _claim(one: _Due) -> DatasetFigures | None:
    """Takes the lease, unless somebody else was quicker: the row must be as it was seen."""
    name, at = one.dataset.name, now()
    seen = one.row or DatasetFigures(dataset=name)
    if one.row is None:
        DatasetFigures.objects.get_or_create(dataset=name)
    changes: dict[str, Any] = {"lease_until": at + LEASE, "tried_at": at}
    if seen.fingerprint != (mark := fingerprint(one.dataset)):
        changes |= {"fingerprint": mark, "computed_at": None, "rows": None, "oldest": "", "newest": "", "days": []}
    as_seen = DatasetFigures.objects.filter(
        dataset=name, lease_until=seen.lease_until, tried_at=seen.tried_at, fingerprint=seen.fingerprint
    )
    return DatasetFigures.objects.get(dataset=name) if as_seen.update(**changes) else None


def _count(one: _Due, claimed: DatasetFigures, stopping: Callable[[], bool]) -> None:
    held = DatasetFigures.objects.filter(pk=claimed.pk, lease_until=claimed.lease_until)
    began = time.monotonic()
    try:
        changes = _kept(_look(one.dataset, stopping))
    except DatabaseError:
        raise  # the desk's own: nothing can be noted, and the lease ends by itself
    except Exception as error:
        if stopping():
            held.update(lease_until=None, tried_at=one.row.tried_at if one.row else None)
            return
        log.warning("the rows of %s could not be counted: %s", one.dataset.name, error)
        changes = {"error": str(error) if isinstance(error, ExportError) else repr(error)}
    held.update(lease_until=None, seconds=time.monotonic() - began, **changes)


def _kept(found: Histogram) -> dict[str, Any]:
    return {
        "error": "",
        "computed_at": F("tried_at"),  # rows that came while it counted may be missing
        "rows": found.rows,
        "rows_exact": found.exact,
        "oldest": found.oldest[:40],
        "newest": found.newest[:40],
        "days": [list(pair) for pair in (found.days or ())[-MOST_DAYS:]],
    }


def _look(dataset: Dataset, stopping: Callable[[], bool]) -> Histogram:
    timed = dataset.column(dataset.time_column)
    column = timed.spec if timed else None
    columns = (column,) if column else tuple(one.spec for one in dataset.columns[:1])
    query = Query(dataset.relation, bool(dataset.query), columns)
    comment = f"exportapp figures of {dataset.name}"
    with open_reader(datasets.catalogue().sources[dataset.source].url) as reader, _bounded(reader, stopping):
        return reader.histogram(query, column, STATEMENT_SECONDS, comment)


@contextmanager
def _bounded(reader: Reader, stopping: Callable[[], bool]) -> Iterator[None]:
    """Kills the reader when the look takes too long, which a server that does not answer may, or the worker is to end."""
    over = threading.Event()
    ends = time.monotonic() + LOOK_SECONDS

    def watch() -> None:
        while not over.wait(0.2):
            if stopping() or time.monotonic() > ends:
                return reader.kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
