"""What the pages show of an export beyond its row: progress, speed and what it waits for, computed in few queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Exists, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from exportapp.models import Event, Export, ExportState, Step, StepKind, StepState


@dataclass(frozen=True)
class Progress:
    """`percent` is None while nothing is known; `rows_a_second` counts from the export's start."""

    export: Export
    rows: int
    percent: int | None
    rows_a_second: int
    waits_for: str


def with_progress(exports: QuerySet[Export]) -> QuerySet[Export]:
    """Adds what `progress` needs, without a query for each export."""
    rows = (
        Step.objects.filter(export=OuterRef("pk"), kind=StepKind.CHUNK).values("export").annotate(sum=Sum("rows_done"))
    )
    retries = Event.objects.filter(export=OuterRef("pk"), kind="retry").order_by("-pk").values("text")[:1]
    put_back = Step.objects.filter(export=OuterRef("pk"), state=StepState.WAITING, attempts__gt=0)
    return exports.annotate(
        rows_read=Coalesce(Subquery(rows.values("sum")), 0), put_back=Exists(put_back), last_retry=Subquery(retries)
    )


def progress(export: Export, at: datetime) -> Progress:
    """The progress of an export that came through `with_progress`, at the database's time `at`."""
    rows = int(getattr(export, "rows_read", 0))
    percent = None
    if export.rows_estimated:
        # An estimate may be too low; only a finished file is at 100.
        percent = min(99, 100 * rows // export.rows_estimated)
    elif export.rows_estimated == 0:
        percent = 99
    seconds = (at - export.started_at).total_seconds() if export.started_at else 0
    speed = int(rows / seconds) if seconds > 0.5 and export.state == ExportState.RUNNING else 0
    waits_for = (
        (getattr(export, "last_retry", "") or "") if export.unfinished and getattr(export, "put_back", False) else ""
    )
    return Progress(export, rows, percent, speed, waits_for)
