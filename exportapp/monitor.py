"""The figures of the operators' first page: what runs, waits, fails and is gone, in few queries that indexes bound.

It looks into the app database, and at the store's free room: no source, broker or mail server is asked from a page.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core.cache import cache
from django.db.models import Count, DurationField, ExpressionWrapper, F, Max, Min, Q, Sum
from django.db.models.functions import TruncHour
from django.urls import reverse

from exportapp import datasets, storage
from exportapp.engine.errors import ExportError
from exportapp.lifecycle import READING, now
from exportapp.models import UNFINISHED, Event, Export, ExportState, Process, Step, StepKind, StepState

KEPT_SECONDS = 5  # several operators look at the same figures
SILENT_SECONDS = 60.0
LONG_WAIT = 300  # seconds; more means too few workers, or none
HOURS = 24
DAYS = 7
REASONS = SLOWEST = 6
SHOWN = 12  # signs of life
LATEST = 200  # steps that something went wrong with
FINE = ("reachable", "not tried yet")
WITH_A_FILE = (ExportState.READY, ExportState.EXPIRED)
EVER = (False, True)  # makes a range of finished_at out of the index that begins with `tidied`
SCALE = 100  # the height of a chart in its own units
SLOT = 10  # and the width of an hour


@dataclass(frozen=True)
class Figure:
    """One number of the page with the list behind it. `state` is good, odd or bad, or "" when there is nothing to judge."""

    label: str
    value: str
    note: str = ""
    state: str = ""
    url: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a table of the page: the texts of its cells, and the list behind it."""

    name: str
    cells: tuple[str, ...]
    state: str = ""
    url: str = ""
    note: str = ""


@dataclass
class Hour:
    """What ended within an hour."""

    start: datetime
    ready: int = 0
    failed: int = 0
    cancelled: int = 0
    rows: int = 0

    @property
    def label(self) -> str:
        return f"{self.start:%H:%M}"

    @property
    def url(self) -> str:
        return rows_behind("export", finished_at__gte=self.start, finished_at__lt=self.start + timedelta(hours=1))


@dataclass(frozen=True)
class Bar:
    """A bar as SVG wants it, in a picture that is SCALE high and has SLOT for each hour."""

    x: int
    y: float
    height: float
    kind: str
    title: str
    url: str


@dataclass(frozen=True)
class Chart:
    """Bars below a round number that is at or above the highest."""

    title: str
    top: int
    total: int
    bars: tuple[Bar, ...]
    width: int = HOURS * SLOT
    height: int = SCALE


@dataclass
class Signs:
    """The processes that live, the newest sign first, and what is known of those that do not."""

    alive: list[Process] = field(default_factory=list)
    gone: list[Process] = field(default_factory=list)

    def of(self, kind: str) -> list[Process]:
        return [process for process in self.alive if process.kind == kind]

    def gone_of(self, kind: str) -> list[Process]:
        return [process for process in self.gone if process.kind == kind]


@dataclass(frozen=True)
class Monitor:
    """Everything that the page shows, as of one moment."""

    at: datetime
    figures: list[Figure]
    hours: list[Hour]
    charts: list[Chart]
    failures: list[Line]
    slowest: list[Line]
    sources: list[Line]
    processes: list[Line]
    processes_left_out: int
    gone: str
    gone_url: str

    @property
    def troubles(self) -> list[str]:
        """What an operator has to see to, in sentences."""
        told = [figure.trouble for figure in self.figures if figure.trouble]
        return told + [f"Source {line.name}: {line.note}" for line in self.sources if line.state == "bad"]


def figures() -> Monitor:
    """The figures of now, or those of a few seconds ago."""
    kept: Monitor | None = cache.get("monitor")
    if kept is None:
        kept = _figures()
        cache.set("monitor", kept, KEPT_SECONDS)
    return kept


def _figures() -> Monitor:
    at = now()
    signs = signs_of_life(at)
    hours = ended_by_hour(at)
    read = reading(at)
    return Monitor(
        at=at,
        figures=[*work(at), broker(signs), *_kinds(signs, at), mails(at), files()],
        hours=hours,
        charts=[exports_chart(hours), rows_chart(hours)],
        failures=failures(at),
        slowest=slowest(read, at),
        sources=sources(read, at),
        processes=[_process_line(process, at) for process in signs.alive[:SHOWN]],
        processes_left_out=max(0, len(signs.alive) - SHOWN),
        gone=_gone_words(signs.gone, at),
        gone_url=rows_behind("process", alive="no"),
    )


def rows_behind(model: str, **query: Any) -> str:
    """The address of the admin's list of these rows."""
    words = {key: value.isoformat() if isinstance(value, datetime) else str(value) for key, value in query.items()}
    return f"{reverse(f'admin:exportapp_{model}_changelist')}?{urlencode(words)}"


# --- what runs and waits ----------------------------------------------------------------------------------------------


def work(at: datetime) -> list[Figure]:
    """Running and waiting exports, and for how long the oldest step that may run has waited."""
    exports = dict(Export.objects.filter(state__in=UNFINISHED).values_list("state").annotate(Count("pk")).order_by())
    steps = Step.objects.filter(state__in=(StepState.WAITING, StepState.RUNNING)).aggregate(
        running=Count("pk", filter=Q(state=StepState.RUNNING)),
        due=Count("pk", filter=Q(state=StepState.WAITING, not_before__lte=at)),
        later=Count("pk", filter=Q(state=StepState.WAITING, not_before__gt=at)),
        oldest=Min("not_before", filter=Q(state=StepState.WAITING, not_before__lte=at)),
    )
    waits = int((at - steps["oldest"]).total_seconds()) if steps["oldest"] else 0
    long = waits >= LONG_WAIT
    later = f", {counted(steps['later'], 'step')} to be tried again" if steps["later"] else ""
    return [
        Figure(
            "Running",
            f"{exports.get(ExportState.RUNNING, 0):,}",
            f"{counted(steps['running'], 'step')} in hand",
            url=rows_behind("export", state__exact=ExportState.RUNNING),
        ),
        Figure(
            "Waiting",
            f"{exports.get(ExportState.QUEUED, 0):,}",
            f"{counted(steps['due'], 'step')} due{later}",
            url=rows_behind("export", state__exact=ExportState.QUEUED),
        ),
        Figure(
            "Longest wait",
            lasted(waits),
            "of a step that may run" if steps["due"] else "no step is due",
            "bad" if long else "good",
            rows_behind("step", state__exact=StepState.WAITING, o="7"),
            f"The oldest step has waited for {lasted(waits)}: too few workers, or none" if long else "",
        ),
    ]


def mails(at: datetime) -> Figure:
    """Mails that wait, that are tried again, and that were given up lately."""
    waiting = Step.objects.filter(state__in=(StepState.WAITING, StepState.RUNNING), kind=StepKind.NOTIFY).aggregate(
        fresh=Count("pk", filter=Q(error="")), again=Count("pk", filter=~Q(error=""))
    )
    lost = Step.objects.filter(
        state=StepState.FAILED, kind=StepKind.NOTIFY, finished_at__gte=at - timedelta(days=DAYS)
    ).count()
    note = f"{waiting['again']:,} tried again, {lost:,} given up in {DAYS} days"
    state = "bad" if waiting["again"] else "odd" if lost else "good"
    behind: dict[str, Any] = {"state__exact": StepState.FAILED if lost else StepState.WAITING}
    if waiting["again"]:
        behind = {"state__exact": StepState.WAITING}
    return Figure(
        "Mails waiting",
        f"{waiting['fresh'] + waiting['again']:,}",
        note,
        state,
        rows_behind("step", kind__exact=StepKind.NOTIFY, **behind),
        f"{counted(waiting['again'], 'mail')} could not be sent so far" if waiting["again"] else "",
    )


# --- signs of life ----------------------------------------------------------------------------------------------------


def silent_after() -> timedelta:
    """For how long a process may say nothing; leases may be set so long that it seldom does."""
    return timedelta(seconds=max(SILENT_SECONDS, 3 * settings.BEAT_SECONDS))


def signs_of_life(at: datetime) -> Signs:
    """All processes that have not signed off, those that live apart from those that fell silent."""
    signs = Signs()
    for process in Process.objects.order_by("-seen_at"):
        (signs.alive if at - process.seen_at < silent_after() else signs.gone).append(process)
    return signs


def broker(signs: Signs) -> Figure:
    """The queue as the dispatcher saw it last."""
    url = rows_behind("process", kind="dispatcher")
    seers = signs.of("dispatcher")
    if not seers:
        return Figure("Queue", "unknown", "no dispatcher looks at it", "odd", url)
    facts: dict[str, Any] = seers[0].facts
    said, depth = str(facts.get("broker", "")), facts.get("waiting")
    refused = sum(process.facts.get("refused") or 0 for process in seers)
    note = f"{counted(refused, 'doorbell')} refused" if refused else f"doorbells; broker {said}"
    if said in FINE:
        return Figure("Queue", "0" if depth is None else f"{depth:,}", note, "odd" if refused else "good", url)
    return Figure("Queue", "away", said, "bad", url, f"Queue: {said}")


def _kinds(signs: Signs, at: datetime) -> list[Figure]:
    return [_kind(signs, kind, at) for kind in ("worker", "dispatcher")]


def _kind(signs: Signs, kind: str, at: datetime) -> Figure:
    alive, gone = signs.of(kind), signs.gone_of(kind)
    seen = f"seen {ago(alive[0].seen_at, at)}" if alive else "no sign of life"
    note = f"{seen}; {len(gone)} gone without a word" if gone else seen
    state = "bad" if not alive else "odd" if gone else "good"
    url = rows_behind("process", kind=kind)
    return Figure(f"{kind.title()}s", f"{len(alive):,}", note, state, url, "" if alive else f"No {kind} runs")


def _process_line(process: Process, at: datetime) -> Line:
    facts: dict[str, Any] = process.facts
    says = ", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None)
    odd = process.kind == "dispatcher" and facts.get("broker") not in FINE
    cells = (process.kind, ago(process.seen_at, at), says)
    url = reverse("admin:exportapp_process_change", args=[process.pk])
    return Line(process.name.removeprefix(f"{process.kind} "), cells, "bad" if odd else "good", url)


def _gone_words(gone: list[Process], at: datetime) -> str:
    if not gone:
        return ""
    kinds = Counter(process.kind for process in gone)
    who = " and ".join(counted(number, kind) for kind, number in sorted(kinds.items()))
    return f"{who} gone without a word in the last hour, the last one {ago(gone[0].seen_at, at)}"


# --- what ended -------------------------------------------------------------------------------------------------------


def ended_by_hour(at: datetime) -> list[Hour]:
    """The last 24 hours, the one that runs included, with what ended in them."""
    first = at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    hours = {first + timedelta(hours=number): Hour(first + timedelta(hours=number)) for number in range(HOURS)}
    ended = (
        Export.objects.filter(tidied__in=EVER, finished_at__gte=first)
        .annotate(hour=TruncHour("finished_at", tzinfo=UTC))
        .values_list("hour", "state")
        .annotate(Count("pk"), Sum("file_rows"))
        .order_by()
    )
    for start, state, count, rows in ended:
        if hour := hours.get(start):
            kind = "ready" if state in WITH_A_FILE else state
            setattr(hour, kind, getattr(hour, kind) + count)
            hour.rows += rows or 0
    return list(hours.values())


def exports_chart(hours: list[Hour]) -> Chart:
    """Exports that ended, failed ones on top of the others."""
    top = round_above(hour.ready + hour.failed for hour in hours)
    bars = []
    for number, hour in enumerate(hours):
        title = f"{hour.label} UTC: {hour.ready:,} ready, {hour.failed:,} failed"
        below = SCALE * hour.ready / top
        for kind, count, base in (("ready", hour.ready, 0.0), ("failed", hour.failed, below)):
            if count:
                bars.append(_bar(number, base, SCALE * count / top, kind, title, hour.url))
    return Chart("Exports an hour", top, sum(hour.ready + hour.failed for hour in hours), tuple(bars))


def rows_chart(hours: list[Hour]) -> Chart:
    """Rows of the files that became ready."""
    top = round_above(hour.rows for hour in hours)
    bars = (
        _bar(number, 0, SCALE * hour.rows / top, "rows", f"{hour.label} UTC: {hour.rows:,} rows", hour.url)
        for number, hour in enumerate(hours)
        if hour.rows
    )
    return Chart("Rows an hour", top, sum(hour.rows for hour in hours), tuple(bars))


def _bar(number: int, base: float, height: float, kind: str, title: str, url: str) -> Bar:
    height = max(height, 1.0)  # one failure among thousands is to be seen
    return Bar(number * SLOT + 1, round(max(0.0, SCALE - base - height), 2), round(height, 2), kind, title, url)


def round_above(values: Iterable[int]) -> int:
    """The least of 1, 2, 5, 10, 20, 50 and so on that no value exceeds."""
    highest = max(values, default=0)
    power = 10 ** int(math.log10(highest)) if highest else 1
    return next(step * power for step in (1, 2, 5, 10) if step * power >= highest)


def failures(at: datetime) -> list[Line]:
    """Why exports failed in the last days, most frequent reason first."""
    since = at - timedelta(days=DAYS)
    reasons = (
        Export.objects.filter(state=ExportState.FAILED, tidied__in=EVER, finished_at__gte=since)
        .values_list("error")
        .annotate(many=Count("pk"), last=Max("finished_at"))
        .order_by("-many", "-last")[:REASONS]
    )
    lines = []
    for reason, many, last in reasons:
        day = since.replace(minute=0, second=0, microsecond=0)  # an address that stays the same is one to come back to
        url = rows_behind("export", state__exact=ExportState.FAILED, error=reason, finished_at__gte=day)
        lines.append(Line(reason or "No reason given", (f"{many:,}", ago(last, at)), "bad", url))
    return lines


# --- what is read -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """What was read of a dataset in the last 24 hours: rows and seconds of its finished chunks."""

    source: str
    dataset: str
    rows: int
    seconds: float
    chunks: int
    succeeded: datetime | None


def reading(at: datetime) -> list[Read]:
    """The reading of the last 24 hours by source and dataset."""
    done = Q(state=StepState.DONE)
    chunks = done & Q(kind=StepKind.CHUNK)
    took = ExpressionWrapper(F("finished_at") - F("started_at"), DurationField())
    found = (
        Step.objects.filter(started_at__gte=at - timedelta(hours=HOURS), kind__in=READING)
        .values_list("export__source", "export__dataset")
        .annotate(
            rows=Sum("rows_done", filter=chunks),
            took=Sum(took, filter=chunks),
            parts=Count("pk", filter=chunks),
            succeeded=Max("finished_at", filter=done),
        )
        .order_by()
    )
    return [
        Read(source, dataset, rows or 0, took.total_seconds() if took else 0.0, count, last)
        for source, dataset, rows, took, count, last in found
    ]


def slowest(read: list[Read], at: datetime) -> list[Line]:
    """The datasets with the fewest rows a second while they were read, slowest first."""
    measured = sorted((one for one in read if one.rows and one.seconds), key=lambda one: one.rows / one.seconds)
    return [
        Line(
            one.dataset,
            (f"{one.rows / one.seconds:,.0f}", f"{one.rows:,}", f"{one.chunks:,}"),
            url=rows_behind("export", dataset=one.dataset, finished_at__gte=_a_day_before(at)),
        )
        for one in measured[:SLOWEST]
    ]


def sources(read: list[Read], at: datetime) -> list[Line]:
    """Each source with its last successful and its last failed reading. A source is odd when nobody has read it lately."""
    failed = _failed_readings(at)
    succeeded: dict[str, datetime | None] = dict.fromkeys([*datasets.catalogue().sources, *failed])
    for one in read:
        before = succeeded.get(one.source)
        succeeded[one.source] = max(filter(None, (before, one.succeeded)), default=None)
    return [_source_line(name, last, failed.get(name), at) for name, last in sorted(succeeded.items())]


def _source_line(name: str, succeeded: datetime | None, failed: tuple[datetime, str] | None, at: datetime) -> Line:
    cells = (ago(succeeded, at) if succeeded else "—", ago(failed[0], at) if failed else "—")
    if failed and (succeeded is None or failed[0] > succeeded):
        url = rows_behind("step", source=name, trouble="yes")
        return Line(name, ("not reachable", *cells), "bad", url, failed[1])
    words = "reachable" if succeeded else f"not read for {HOURS} h"
    note = failed[1] if failed else ""
    return Line(name, (words, *cells), "good" if succeeded else "", rows_behind("step", source=name), note)


def _failed_readings(at: datetime) -> dict[str, tuple[datetime, str]]:
    """When reading each source was last put off, and why: from the events of those steps that an error is known of.

    Asked for by their kind alone, MariaDB would look through all events there ever were.
    """
    unwell = Step.objects.filter(started_at__gte=at - timedelta(hours=HOURS), kind__in=READING).exclude(error="")
    read_from = dict(unwell.order_by("-started_at").values_list("pk", "export__source")[:LATEST])
    told = (
        Event.objects.filter(step__in=[*read_from], kind="retry").order_by("pk") if read_from else Event.objects.none()
    )
    return {
        read_from[step]: (when, text.partition(" Trying again in ")[0])
        for step, when, text in told.values_list("step_id", "at", "text")  # the last one of a source stays
    }


# --- the store --------------------------------------------------------------------------------------------------------


def files() -> Figure:
    """The finished files and the room that is left for more."""
    kept = Export.objects.filter(state=ExportState.READY).aggregate(many=Count("pk"), size=Sum("file_bytes"))
    held = f"{counted(kept['many'], 'file')}, {size_words(kept['size'] or 0)}"
    url = rows_behind("export", state__exact=ExportState.READY, o="-8")
    try:
        free = storage.store().free()
    except ExportError as error:
        return Figure("Room for files", "unknown", error.sentence, "bad", url, f"Store: {error.sentence}")
    if free is None:
        return Figure("Files", size_words(kept["size"] or 0), counted(kept["many"], "file"), "", url)
    low = free < settings.MIN_FREE_MB << 20
    trouble = f"The store has {size_words(free)} left: nothing more is written" if low else ""
    return Figure("Room for files", size_words(free), held, "bad" if low else "good", url, trouble)


# --- words ------------------------------------------------------------------------------------------------------------


def lasted(seconds: float) -> str:
    """A length of time in one unit."""
    for most, size, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < most:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 86_400:.0f} days"


def ago(then: datetime, at: datetime) -> str:
    return f"{lasted(max(0.0, (at - then).total_seconds()))} ago"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size_words(size: int) -> str:
    """Bytes in the unit that needs three digits at most."""
    amount, units = float(size), ["bytes", "KB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" or amount >= 100 else f"{amount:.1f} {units[0]}"


def _a_day_before(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS)
