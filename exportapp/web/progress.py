"""What the pages show of an export beyond its row: progress, speed, time left, place in the queue and what it waits for.

A page asks in few queries, however many exports are on it; and `version` tells whether it has anything new to say.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import CharField, Count, Exists, Max, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from exportapp import turns
from exportapp.lifecycle import now
from exportapp.models import Event, Export, ExportState, Process, Step, StepKind, StepState
from exportapp.web.words import short, span_words

SILENT_SECONDS = 30.0
SILENT_BEATS = 2.5
FINE = ("reachable", "not tried yet")  # what a dispatcher says of a broker that is none to worry about

SENTENCES = {
    "dispatcher": "The export desk's dispatcher does not run at the moment; this export {} when an operator has started it.",
    "queue": "The export desk's queue does not answer at the moment; this export {} by itself when it does.",
    "worker": "No worker of the export desk answers at the moment; this export {} by itself when one does.",
}


SPEED_SECONDS = 30.0  # what speeds are told of
MOST_CELLS = 60  # of a strip
QUARTERS = ("", "a quarter is read", "half of it is read", "three quarters are read")
FRESH_SECONDS = 60.0  # a page that polls is answered anew after so long: "2 minutes ago" is not for ever

Span = tuple[int, int]


@dataclass(frozen=True)
class Progress:
    """`percent` is None while nothing is known; `rows_a_second` is that of the last moments, and `left` follows from it."""

    export: Export
    rows: int
    percent: int | None
    rows_a_second: int
    waits_for: str
    left: Span | None = None  # seconds, at least and at most
    ahead: int = 0  # exports that get a worker before this one
    joining: bool = False  # all rows are read

    @property
    def said(self) -> str:
        """What a screen reader is told: the state, and of what runs the last quarter that it has passed."""
        state = self.export.get_state_display().lower()
        quarter = QUARTERS[self.percent // 25] if self.export.state == ExportState.RUNNING and self.percent else ""
        return f"{self.export.name}: {state}{', ' * bool(quarter)}{quarter}"

    @property
    def speed(self) -> str:
        return short(self.rows_a_second)

    @property
    def estimated(self) -> str:
        number = self.export.rows_estimated or 0
        return f"{number:,}" if self.export.rows_exact else short(number)

    @property
    def left_words(self) -> str:
        return span_words(*self.left) if self.left else ""

    @property
    def title(self) -> str:
        """What a tab says before the name."""
        if self.export.state == ExportState.RUNNING and self.percent is not None:
            return f"{self.percent} %"
        return self.export.get_state_display()


@dataclass(frozen=True)
class Cell:
    """A part of an export as a strip shows it, or several parts where there are too many; `filled` in percent."""

    state: str
    filled: int


def with_progress(exports: QuerySet[Export], at: datetime | None = None) -> QuerySet[Export]:
    """Adds what `progress` needs, without a query for each export. `at` is the database's time, if it is known."""
    rows = (
        Step.objects.filter(export=OuterRef("pk"), kind=StepKind.CHUNK).values("export").annotate(sum=Sum("rows_done"))
    )
    retries = Event.objects.filter(export=OuterRef("pk"), kind="retry").order_by("-pk").values("text")[:1]
    running = Step.objects.filter(export=OuterRef("pk"), state=StepState.RUNNING)
    put_back = Step.objects.filter(export=OuterRef("pk"), state=StepState.WAITING, attempts__gt=0)
    joining = Step.objects.filter(export=OuterRef("pk"), kind=StepKind.ASSEMBLE)
    return exports.annotate(
        rows_read=Coalesce(Subquery(rows.values("sum")), 0),
        put_back=Exists(put_back),
        last_retry=Subquery(retries),
        held=Exists(running),
        joining=Exists(joining),
        earliest_lease=Subquery(running.order_by("lease_until").values("lease_until")[:1]),
        # The same for all of them, so it is asked once and not by each row.
        silent=Value(silent_part(at), output_field=CharField()),
    )


def silent_part(at: datetime | None = None) -> str:
    """Without which part of the desk no waiting step begins at the moment, and '' when all of them answer."""
    at = at or now()
    # Leases may be set so long that a worker gives its sign less often.
    since = at - timedelta(seconds=max(SILENT_SECONDS, 3 * settings.BEAT_SECONDS))
    alive = list(Process.objects.filter(seen_at__gt=since).order_by("-seen_at").values_list("kind", "facts"))
    brokers = [facts.get("broker", "") for kind, facts in alive if kind == "dispatcher"]
    if not brokers:
        return "dispatcher"
    if brokers[0] not in FINE:
        return "queue"
    if any(kind == "worker" for kind, _ in alive):
        return ""
    # A child that is replaced signs off before the next one signs, but it was at work.
    return "" if Step.objects.filter(started_at__gt=since).exists() else "worker"


def progresses(exports: Sequence[Export], at: datetime) -> list[Progress]:
    """The progress of exports of one owner that came through `with_progress`, at the database's time `at`."""
    speeds = _speeds([one for one in exports if one.state == ExportState.RUNNING], at)
    places = places_of(exports, at)
    return [_progress(one, at, speeds.get(one.pk, 0.0), places.get(one.pk, 0)) for one in exports]


def places_of(exports: Sequence[Export], at: datetime) -> dict[UUID, int]:
    """How many exports get a worker before each of these of one owner that is queued."""
    queued = [one for one in exports if one.state == ExportState.QUEUED]
    return turns.places(queued[0].owner_id, at)[0] if queued else {}


def progress(export: Export, at: datetime) -> Progress:
    return progresses([export], at)[0]


def _progress(export: Export, at: datetime, speed: float, ahead: int) -> Progress:
    rows = int(getattr(export, "rows_read", 0))
    percent = None
    if export.rows_estimated:
        # An estimate may be too low; only a finished file is at 100.
        percent = min(99, 100 * rows // export.rows_estimated)
    elif export.rows_estimated == 0:
        percent = 99
    waits_for = _waits_for(export, at)
    joining = export.state == ExportState.RUNNING and bool(getattr(export, "joining", False))
    left = None if waits_for or joining else _left(export, rows, speed, at)
    return Progress(export, rows, percent, int(speed), waits_for, left, ahead, joining)


def _speeds(exports: Sequence[Export], at: datetime) -> dict[UUID, float]:
    """Rows a second of each export over the last moments: what each part has read is taken to be spread over its time."""
    if not exports:
        return {}
    began = {export.pk: export.started_at or at for export in exports}
    since = at - timedelta(seconds=SPEED_SECONDS)
    lately = Q(state=StepState.RUNNING) | Q(state=StepState.DONE, finished_at__gt=since)
    steps = Step.objects.filter(lately, export__in=began, kind=StepKind.CHUNK, rows_done__gt=0)
    rows: Counter[UUID] = Counter()
    first = dict.fromkeys(began, at)
    for export, count, start, end in steps.values_list("export_id", "rows_done", "started_at", "finished_at"):
        start, end = max(start or began[export], began[export]), end or at
        seen = max(start, since)
        first[export] = min(first[export], seen)
        rows[export] += count * max(end - seen, timedelta()) / max(end - start, timedelta(seconds=0.1))  # type: ignore[assignment]
    seconds = {export: (at - begin).total_seconds() for export, begin in first.items()}
    return {export: rows[export] / seconds[export] for export in began if seconds[export] > 0.5}


def _left(export: Export, rows: int, speed: float, at: datetime) -> Span | None:
    """Seconds until all is read, told the wider the less was seen of it and the less its number of rows is known."""
    if not (export.rows_estimated and export.started_at and speed and rows):
        return None
    seconds = max(export.rows_estimated - rows, 0) / speed
    wide = 1.25 + 0.2 * (not export.rows_exact) + 0.25 * (at - export.started_at < timedelta(seconds=10))
    return int(seconds / wide), int(seconds * wide) + 1


def _waits_for(export: Export, at: datetime) -> str:
    """A sentence, where there is more to say than that it waits its turn."""
    if not export.unfinished:
        return ""
    silent = getattr(export, "silent", "")
    if silent and not getattr(export, "held", False):
        return SENTENCES[silent].format("starts" if export.state == ExportState.QUEUED else "goes on")
    if lease := getattr(export, "earliest_lease", None):
        since = settings.LEASE_SECONDS - (lease - at).total_seconds()
        if since > SILENT_BEATS * settings.BEAT_SECONDS:
            return (
                f"One of its workers has been silent for {since:.0f} s; another one takes over within a minute or so."
            )
    return (getattr(export, "last_retry", "") or "") if getattr(export, "put_back", False) else ""


# --- whether there is anything new ------------------------------------------------------------------------------------


def version(exports: Iterable[Export], at: datetime, *more: Any) -> tuple[str, str]:
    """What changes when what is shown of these exports does, and the same with the time as people read it: an ETag.

    They came through `with_progress`. `more` is what else the page shows.
    """
    facts = [
        (
            str(one.pk),
            one.state,
            one.name,
            one.rows_estimated,
            getattr(one, "rows_read", 0),
            getattr(one, "joining", False),
            _waits_for(one, at),
        )
        for one in exports
    ]
    moved = hashlib.sha256(repr((facts, more)).encode()).hexdigest()[:24]
    return moved, f'"{moved}-{at.timestamp() // FRESH_SECONDS:.0f}"'


# --- the strip --------------------------------------------------------------------------------------------------------


def strip(chunks: Sequence[tuple[str, int, int | None]], ended: bool = False) -> list[Cell]:
    """The cells of a strip, from each chunk's state, rows read and rows estimated, in their order."""
    count = min(len(chunks), MOST_CELLS)
    cuts = [len(chunks) * place // count for place in range(count + 1)] if count else []
    return [_cell(chunks[start:end], ended) for start, end in pairwise(cuts)]


def _cell(chunks: Sequence[tuple[str, int, int | None]], ended: bool) -> Cell:
    states = {state for state, _, _ in chunks}
    filled = sum(_filled(*chunk) for chunk in chunks) // len(chunks)
    if states == {StepState.DONE}:
        return Cell(StepState.DONE, 100)
    for state in (StepState.FAILED, StepState.RUNNING, StepState.DROPPED):
        if state in states:
            return Cell(state, filled)
    return Cell(StepState.DROPPED if ended else StepState.WAITING, filled)


def _filled(state: str, rows: int, estimated: int | None) -> int:
    if state == StepState.DONE:
        return 100
    return min(95, 100 * rows // estimated) if estimated else 0


def steps_changed(export: Export) -> tuple[Any, ...]:
    """What changes with every step and event of an export, in two queries."""
    told = export.events.aggregate(last=Max("pk"))["last"]
    counts = export.steps.order_by().values_list("state").annotate(count=Count("pk"), rows=Sum("rows_done"))
    return told, sorted(counts)
