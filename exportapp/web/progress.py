"""What the pages show of an export beyond its row: progress, speed and what it waits for, computed in few queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import CharField, Exists, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from exportapp.lifecycle import now
from exportapp.models import Event, Export, ExportState, Process, Step, StepKind, StepState

SILENT_SECONDS = 30.0
SILENT_BEATS = 2.5
FINE = ("reachable", "not tried yet")  # what a dispatcher says of a broker that is none to worry about

SENTENCES = {
    "dispatcher": "The export desk's dispatcher does not run at the moment; this export {} when an operator has started it.",
    "queue": "The export desk's queue does not answer at the moment; this export {} by itself when it does.",
    "worker": "No worker of the export desk answers at the moment; this export {} by itself when one does.",
}


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
    running = Step.objects.filter(export=OuterRef("pk"), state=StepState.RUNNING)
    put_back = Step.objects.filter(export=OuterRef("pk"), state=StepState.WAITING, attempts__gt=0)
    return exports.annotate(
        rows_read=Coalesce(Subquery(rows.values("sum")), 0),
        put_back=Exists(put_back),
        last_retry=Subquery(retries),
        held=Exists(running),
        earliest_lease=Subquery(running.order_by("lease_until").values("lease_until")[:1]),
        # The same for all of them, so it is asked once and not by each row.
        silent=Value(silent_part(), output_field=CharField()),
    )


def silent_part() -> str:
    """Without which part of the desk no waiting step begins at the moment, and '' when all of them answer."""
    at = now()
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
    return Progress(export, rows, percent, speed, _waits_for(export, at))


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
