"""The only place that changes the state of an export or a step: the table of moves, and the verbs that make them.

Each verb is one short transaction and each move one conditional UPDATE that names the state it expects, and, for the
holder of a running step, the fence. Zero rows changed means that the step is not ours any more. Locks are taken in one
order: gate, export, step. All times are the database's.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError, close_old_connections, connection, transaction
from django.db.models import Case, F, IntegerField, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Now

from exportapp import datasets, recipes
from exportapp.engine.errors import ExportError, LeaseLost
from exportapp.engine.readers.base import COUNT_LIMIT
from exportapp.engine.specs import FileResult, KeyRange, PieceResult, Plan, Recipe, to_json
from exportapp.models import UNFINISHED, Event, Export, ExportState, Gate, Process, Step, StepKind, StepState
from exportapp.origins import origin

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

EXPORT_MOVES: dict[str, tuple[tuple[str, ...], str]] = {
    "start": ((ExportState.QUEUED,), ExportState.RUNNING),
    "make ready": ((ExportState.RUNNING,), ExportState.READY),
    "fail": (UNFINISHED, ExportState.FAILED),
    "cancel": (UNFINISHED, ExportState.CANCELLED),
    "expire": ((ExportState.READY,), ExportState.EXPIRED),
}
STEP_MOVES: dict[str, tuple[tuple[str, ...], str]] = {
    "claim": ((StepState.WAITING,), StepState.RUNNING),
    "finish": ((StepState.RUNNING,), StepState.DONE),
    "retry": ((StepState.RUNNING,), StepState.WAITING),
    "yield": ((StepState.RUNNING,), StepState.WAITING),
    "lose": ((StepState.RUNNING,), StepState.WAITING),
    "fail": ((StepState.RUNNING,), StepState.FAILED),
    "drop": ((StepState.WAITING, StepState.RUNNING), StepState.DROPPED),
}

READING = (StepKind.PLAN, StepKind.CHUNK)  # the kinds that hold a connection to the source
REMAINDERS = 1 << 20  # positions that one coarse range has for its remainders
LONGEST_BACK_OFF = 900  # seconds
LATELY = 200  # so many claims back the scheduler knows whose turn it was
FORBIDDEN = "Stopped: its owner may not export this any more."
_DEADLOCK = (1205, 1213)


class OverLimit(ExportError):
    """There are too many exports already; the sentence says whose, and what to do."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, permanent=True)


def now() -> datetime:
    """The database's time: the only clock that leases and back-offs are measured with."""
    at: datetime = Gate.objects.values_list(Now(), flat=True).get(pk=1)
    return at


def replace_dead_connection() -> None:
    """A server or a firewall ends a connection that is idle for long, while a step or a store takes its time."""
    if not transaction.get_connection().in_atomic_block:
        close_old_connections()


def _retried(verb: Callable[P, R]) -> Callable[P, R]:
    """Deadlocks and lock waits undo a whole transaction, so the verb may simply run again."""

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        replace_dead_connection()
        for _ in range(4):
            try:
                return verb(*args, **kwargs)
            except OperationalError as error:
                if not error.args or error.args[0] not in _DEADLOCK or transaction.get_connection().in_atomic_block:
                    raise
        return verb(*args, **kwargs)

    return run


def _move_export(export: Export, verb: str, **changes: Any) -> bool:
    before, after = EXPORT_MOVES[verb]
    moved = Export.objects.filter(pk=export.pk, state__in=before).update(state=after, **changes)
    export.refresh_from_db()
    return moved == 1


def _move_steps(steps: QuerySet[Step], verb: str, **changes: Any) -> int:
    before, after = STEP_MOVES[verb]
    return steps.filter(state__in=before).update(state=after, **changes)


def _held(step: Step) -> QuerySet[Step]:
    return Step.objects.filter(pk=step.pk, fence=step.fence)


def _tell(
    export: Export, kind: str, text: str, *, step: Step | None = None, actor: User | None = None, detail: str = ""
) -> None:
    Event.objects.create(
        export=export, step=step, at=now(), actor=actor, origin=origin(), kind=kind, text=text, detail=detail
    )


@contextmanager
def _holding(step: Step, verb: str, **changes: Any) -> Iterator[Export]:
    """The transaction in which a step's holder moves it: export locked first. Raises LeaseLost if it is not ours."""
    with transaction.atomic():
        export = Export.objects.select_for_update().get(pk=step.export_id)
        if not _move_steps(_held(step), verb, lease_until=None, **changes):
            raise LeaseLost
        yield export


# --- asking, cancelling, asking again --------------------------------------------------------------------------------


@_retried
def request(
    owner: User,
    dataset: datasets.Dataset,
    recipe: Recipe,
    *,
    request_key: str,
    name: str = "",
    notify: bool = True,
    parent: Export | None = None,
    actor: User | None = None,
) -> Export:
    """Accepts an export: row, plan step and event in one transaction, and nothing outside the database.

    The recipe must be without problems. The same `request_key` of the same owner again gives the export that is there
    already. `actor` is who asked, if not the owner. Raises ExportError when the owner may not export the dataset, and
    OverLimit when too many exports of the owner's, or of all, are under way.
    """
    if not datasets.may_export(owner, dataset):
        raise ExportError(f"You may not export {dataset.label}.", permanent=True)
    try:
        with transaction.atomic():
            at = now()
            _check_limits(owner, request_key)
            export = Export.objects.create(
                owner=owner,
                request_key=request_key,
                name=name or dataset.label,
                dataset=dataset.name,
                source=dataset.source,
                recipe_json=to_json(recipe),
                definition=asdict(dataset),
                query_json=to_json(recipes.query_for(recipe, dataset, owner)),
                notify=notify,
                parent=parent,
                created_at=at,
            )
            Step.objects.create(export=export, kind=StepKind.PLAN, not_before=at)
            by = actor or owner
            _tell(export, "requested", f"Asked for by {by.get_username()}", actor=by)
            return export
    except IntegrityError:
        return Export.objects.get(owner=owner, request_key=request_key)


def _check_limits(owner: User, request_key: str) -> None:
    User.objects.select_for_update().get(pk=owner.pk)  # one request of a person's after the other, to be counted
    if Export.objects.filter(owner=owner, request_key=request_key).exists():
        return
    unfinished = Export.objects.filter(state__in=UNFINISHED)
    if unfinished.filter(owner=owner).count() >= settings.EXPORTS_PER_PERSON:
        raise OverLimit("You have as many exports under way as the export desk takes from one person "
                        f"({settings.EXPORTS_PER_PERSON:,}). Wait for one to end, or cancel one.")  # fmt: skip
    if unfinished.count() >= settings.EXPORTS_IN_ALL:
        raise OverLimit("The export desk has as many exports to do as it takes. Please try again in a few minutes.")
    if sentence := _is_kept(Export.objects.filter(owner=owner), settings.ROWS_PER_PERSON, settings.MB_PER_PERSON):
        raise OverLimit(f"Your finished files hold {sentence} the export desk keeps for one person. Please wait for one "
                        "of them to expire.")  # fmt: skip
    if sentence := _is_kept(Export.objects.all(), settings.ROWS_IN_ALL, settings.MB_IN_ALL):
        raise OverLimit(
            f"All finished files hold {sentence} the export desk keeps. Please try again when some have expired."
        )


def _is_kept(exports: QuerySet[Export], rows: int, megabytes: int) -> str:
    """How the sentence begins when the ready files of these exports are as much as is kept; 0 is no limit."""
    if not (rows or megabytes):
        return ""
    kept = exports.filter(state=ExportState.READY).aggregate(rows=Sum("file_rows"), size=Sum("file_bytes"))
    for unit, most, there in (("rows", rows, kept["rows"] or 0), ("MB", megabytes, (kept["size"] or 0) >> 20)):
        if most and there >= most:
            return f"{there:,} {unit}, and {most:,} is the most that"
    return ""


@_retried
def run_again(export: Export, actor: User) -> Export:
    """A new export of the same recipe for the same owner, against today's dataset and the owner's rights of today.

    While one such is under way, asking again gives that one. Raises ExportError when it cannot be done.
    """
    with transaction.atomic():
        return _again(Export.objects.select_for_update().get(pk=export.pk), actor)


def _again(export: Export, actor: User) -> Export:
    if under_way := export.reruns.filter(state__in=UNFINISHED).first():
        return under_way
    dataset = datasets.catalogue().datasets.get(export.dataset)
    if dataset is None:
        raise ExportError(f"{export.name} cannot be run again: its dataset is no longer offered.", permanent=True)
    if found := recipes.problems(export.recipe, dataset):
        raise ExportError(next(iter(found.values())), permanent=True)
    return request(
        export.owner,
        dataset,
        export.recipe,
        request_key=f"again {export.pk.hex} {export.reruns.count()}",
        name=export.name,
        notify=export.notify,
        parent=export,
        actor=actor,
    )


@_retried
def cancel(export: Export, actor: User | None, reason: str) -> bool:
    """Ends an export that is waiting or running; its steps are dropped, so their holders lose their leases.

    False when it had ended already. `reason` is the sentence that its history keeps.
    """
    with transaction.atomic():
        locked = Export.objects.select_for_update().get(pk=export.pk)
        return _end(locked, "cancel", reason, actor=actor)


def note_download(export: Export, actor: User) -> None:
    """Keeps in the history who fetched the file."""
    _tell(export, "downloaded", f"Downloaded by {actor.get_username()}", actor=actor)


def _end(export: Export, verb: str, text: str, *, actor: User | None = None, detail: str = "") -> bool:
    at = now()
    error = "" if actor else text  # who ended it knows why
    if not _move_export(export, verb, finished_at=at, error=error):
        return False
    _move_steps(Step.objects.filter(export=export), "drop", lease_until=None, finished_at=at)
    _tell(export, export.state, text, actor=actor, detail=detail)
    if verb == "fail":
        log.error("export %s failed: %s %s", export.pk, text, detail.strip().rpartition("\n")[2])
    if verb == "fail" and export.notify:
        Step.objects.create(export=export, kind=StepKind.NOTIFY, not_before=at)
    return True


# --- claiming: the scheduler -----------------------------------------------------------------------------------------


@_retried
def claim(worker: str, hint: int | None = None) -> Step | None:
    """Gives the fairest step that may run now to `worker`, with a new fence and a lease; None when there is none.

    Fairest is who has the fewest running steps, then who was served longest ago, then who asked first; a small export
    that has begun is finished before. The hinted step is taken when nobody is more entitled. Caps hold per export,
    person, source (its connections) and in total; the last slot is kept for small exports. Mails go one at a time.
    """
    with transaction.atomic():
        Gate.objects.select_for_update().get(pk=1)
        at = now()
        running = list(
            Step.objects.filter(state=StepState.RUNNING).values_list(
                "kind", "export_id", "export__owner_id", "export__source"
            )
        )
        room = settings.STEPS_IN_ALL - len(running)
        if room < 1:
            return None
        exports = Counter(export for _, export, _, _ in running)
        people = Counter(owner for _, _, owner, _ in running)
        sources = Counter(source for kind, _, _, source in running if kind in READING)
        full = [name for name, count in sources.items() if count >= _connections(name)]
        waiting = (
            Step.objects.filter(state=StepState.WAITING, not_before__lte=at)
            .exclude(export_id__in=[one for one, count in exports.items() if count >= settings.STEPS_PER_EXPORT])
            .exclude(export__owner_id__in=[one for one, count in people.items() if count >= settings.STEPS_PER_PERSON])
            .exclude(kind__in=READING, export__source__in=full)
        )
        if any(kind == StepKind.NOTIFY for kind, *_ in running):
            waiting = waiting.exclude(kind=StepKind.NOTIFY)  # a mail server that hangs is to hold one worker, not all
        if room == 1 and settings.STEPS_IN_ALL > 1:
            waiting = waiting.filter(Q(export__small=True) | Q(kind__in=(StepKind.PLAN, StepKind.NOTIFY)))
        load = Case(
            *(When(export__owner_id=owner, then=Value(count)) for owner, count in people.items()),
            default=Value(0),
            output_field=IntegerField(),
        )
        # Who has just finished has as few running steps as who waits: without turns their backlog would go on first.
        turn = Case(
            When(Q(kind=StepKind.NOTIFY, attempts=0) | Q(export__small=True) & ~Q(kind=StepKind.NOTIFY), then=Value(0)),
            *(When(export__owner_id=owner, then=Value(place)) for place, owner in enumerate(_served_lately(), 2)),
            default=Value(1),
            output_field=IntegerField(),
        )
        order = ("load", "turn", "export__created_at", "export_id", "position", "pk")
        fairest = waiting.annotate(load=load, turn=turn).order_by(*order)
        candidates = list(fairest[:10])
        if candidates and hint and hint != candidates[0].pk:
            first = candidates[0]
            candidates = [*fairest.filter(pk=hint, load__lte=first.load, turn__lte=first.turn), *candidates]
        for patient in (False, True):
            for step in candidates:
                if claimed := _take(step, worker, at, patient):
                    return claimed
        return None


def _served_lately() -> list[int]:
    """The people whose steps were claimed last, longest ago first."""
    # Two queries: joined, MariaDB sorted all steps there ever were instead of following the index.
    latest = list(
        Step.objects.exclude(started_at=None).order_by("-started_at").values_list("export_id", flat=True)[:LATELY]
    )
    owners = dict(Export.objects.filter(pk__in=latest).values_list("pk", "owner_id"))
    return list(dict.fromkeys(owners[export] for export in latest if export in owners))[::-1]


def _connections(source: str) -> int:
    declared = datasets.catalogue().sources.get(source)
    return declared.connections if declared else datasets.Source.connections


def _take(step: Step, worker: str, at: datetime, patient: bool) -> Step | None:
    # Who stopped with an export's lock in hand is not to stop all who hold the gate: first what nobody has locked.
    skip = not patient and connection.features.has_select_for_update_skip_locked
    export = Export.objects.select_for_update(skip_locked=skip).filter(pk=step.export_id).first()
    if export is None:
        return None
    taken = _move_steps(
        Step.objects.filter(pk=step.pk),
        "claim",
        fence=F("fence") + 1,
        attempts=F("attempts") + 1,
        lease_until=at + timedelta(seconds=settings.LEASE_SECONDS),
        worker=worker,
        started_at=at,
        rows_done=0,
        bytes_done=0,
    )
    if not taken:  # cancelled between our look and our lock
        return None
    if export.state == ExportState.QUEUED and _move_export(export, "start", started_at=at):
        _tell(export, "running", "Started")
    return Step.objects.select_related("export", "export__owner").get(pk=step.pk)


# --- what the holder of a step may say -------------------------------------------------------------------------------


@_retried
def beat(step: Step, rows: int, size: int) -> bool:
    """Extends the lease and writes the progress (rows, bytes). False when the step is not the caller's any more."""
    lease = now() + timedelta(seconds=settings.LEASE_SECONDS)
    held = _held(step).filter(state=StepState.RUNNING)
    return held.update(lease_until=lease, rows_done=rows, bytes_done=size) == 1


@_retried
def finish_plan(step: Step, plan: Plan) -> None:
    """Records the plan and makes a chunk step of each range. Fails the export when it has more rows than it may."""
    with _holding(step, "finish", finished_at=now()) as export:
        dataset = datasets.thaw(export.definition)
        # An estimate is made of what has at least COUNT_LIMIT rows, and is not trusted beyond that.
        if (sentence := too_much(dataset, plan.rows)) and (plan.exact or dataset.max_rows <= COUNT_LIMIT):
            _end(export, "fail", sentence)
            return
        estimate = -(-plan.rows // len(plan.ranges))
        Export.objects.filter(pk=export.pk).update(
            chunks_left=len(plan.ranges),
            rows_estimated=plan.rows,
            rows_exact=plan.exact,
            small=plan.rows < settings.SMALL_ROWS,
        )
        at = now()
        Step.objects.bulk_create(
            _chunk(export, index * REMAINDERS, key_range, estimate, at) for index, key_range in enumerate(plan.ranges)
        )
        about = "" if plan.exact else "about "
        parts = "one part" if len(plan.ranges) == 1 else f"{len(plan.ranges)} parts"
        _tell(export, "planned", f"To be read: {about}{plan.rows:,} rows in {parts}", step=step)


def _chunk(export: Export, position: int, key_range: KeyRange, estimate: int, at: datetime) -> Step:
    return Step(
        export=export,
        kind=StepKind.CHUNK,
        position=position,
        range_json=to_json(key_range),
        rows_estimated=estimate,
        not_before=at,
    )


def too_much(dataset: datasets.Dataset, rows: int, size: int = 0) -> str:
    """The sentence for an export that has more rows or bytes than its dataset allows; "" when it has not."""
    for unit, most, there in (("rows", dataset.max_rows, rows), ("MB", dataset.max_mb, size >> 20)):
        if most and there > most:
            return (f"More than {most:,} {unit}: that is the most to be exported at once. Choose a shorter range or add a "
                    "condition.")  # fmt: skip
    return ""


@_retried
def finish_chunk(step: Step, piece: PieceResult) -> None:
    """Records a piece. What the chunk left over becomes a step of its own; the last chunk makes the assemble step."""
    facts = {"finished_at": now(), "rows_done": piece.rows, "bytes_done": piece.bytes, "result": to_json(piece)}
    with _holding(step, "finish", **facts) as export:
        done = Step.objects.filter(export=export).aggregate(rows=Sum("rows_done"), size=Sum("bytes_done"))
        if sentence := too_much(datasets.thaw(export.definition), done["rows"] or 0, done["size"] or 0):
            _end(export, "fail", sentence)
        elif piece.last_key is not None:
            rest = KeyRange(piece.last_key, step.key_range.upto)
            left = max(0, (step.rows_estimated or 0) - piece.rows)
            _chunk(export, step.position + 1, rest, left, now()).save()
        else:
            # Counting the unfinished ones instead would let two last finishers overlook each other.
            Export.objects.filter(pk=export.pk).update(chunks_left=F("chunks_left") - 1)
            export.refresh_from_db()
            if export.chunks_left == 0:
                Step.objects.create(export=export, kind=StepKind.ASSEMBLE, position=1 << 62, not_before=now())


@_retried
def make_ready(step: Step, file: FileResult, receipt: dict[str, Any]) -> None:
    """Publishes a finished file. This UPDATE is the only publication: before it no link exists, after it the file does.

    Raises a permanent ExportError, and publishes nothing, when the file's rows are not the sum of its chunks'.
    """
    with _holding(step, "finish", finished_at=now()) as export:
        rows = Step.objects.filter(export=export, kind=StepKind.CHUNK).aggregate(rows=Sum("rows_done"))["rows"]
        if rows != file.rows:
            raise ExportError("The file does not hold all rows that were read. Please run the export again.",
                              permanent=True, detail=f"{file.rows} rows in the file, {rows} read")  # fmt: skip
        at = now()
        published = _move_export(
            export,
            "make ready",
            file_name=file.name,
            file_rows=file.rows,
            file_bytes=file.bytes,
            receipt=receipt,
            finished_at=at,
            expires_at=at + timedelta(days=datasets.thaw(export.definition).keep_days),
        )
        if not published:
            raise LeaseLost
        differs = export.rows_exact and export.rows_estimated != file.rows
        counted = f"; {export.rows_estimated:,} were counted before" if differs else ""
        _tell(export, "ready", f"Ready: {file.rows:,} rows, checked against every part{counted}", step=step)
        if export.notify:
            Step.objects.create(export=export, kind=StepKind.NOTIFY, not_before=at)


@_retried
def is_published(export: Export, name: str) -> bool:
    """Whether a file of this name in the store is, or was, the export's."""
    return Export.objects.filter(pk=export.pk, file_name=name).exists()


@_retried
def finish_notify(step: Step, text: str) -> None:
    """Records that the owner was told."""
    with _holding(step, "finish", finished_at=now()) as export:
        _tell(export, "mailed", text, step=step)


@_retried
def hand_back(step: Step) -> None:
    """Puts a running step back as it was, without spending an attempt: its worker was asked to end."""
    with _holding(step, "yield", attempts=F("attempts") - 1, not_before=now(), rung_at=None):
        pass


@_retried
def fail_step(step: Step, error: ExportError) -> None:
    """Puts the step back with back-off, or, for a permanent error or the last attempt, fails it and its export.

    A mail is tried for MAIL_SECONDS from the outcome that it tells of.
    """
    if error.permanent or _is_last(step):
        with _holding(step, "fail", finished_at=now(), error=str(error)) as export:
            _fail(export, step, error.sentence, error.detail)
        return
    doubled = 2 ** min(step.attempts - 1, 20)
    delay = min(settings.RETRY_SECONDS * doubled, LONGEST_BACK_OFF) * random.uniform(0.8, 1.2)
    again = now() + timedelta(seconds=delay)
    with _holding(step, "retry", not_before=again, rung_at=None, error=str(error)) as export:
        _tell(export, "retry", f"{error.sentence} Trying again in {delay:.0f} s.", step=step, detail=error.detail)


def _is_last(step: Step) -> bool:
    if step.kind != StepKind.NOTIFY:
        return step.attempts >= settings.RETRIES
    return step.export.finished_at is None or now() - step.export.finished_at > timedelta(seconds=settings.MAIL_SECONDS)


def _fail(export: Export, step: Step, sentence: str, detail: str) -> None:
    if step.kind == StepKind.NOTIFY:
        _tell(export, "mail failed", "The mail could not be sent.", step=step, detail=f"{sentence} {detail}")
    else:
        _end(export, "fail", sentence, detail=detail)


# --- what time does --------------------------------------------------------------------------------------------------


def take_back_lost(limit: int = 200) -> int:
    """Takes running steps back from workers whose lease is over; fails those that lost three. Returns how many.

    A worker that was seen after the end of the lease did not crash: it lost the database for a while, or gave the step up.
    """
    at = now()
    lost = Step.objects.filter(state=StepState.RUNNING, lease_until__lt=at)[:limit]
    return sum(_take_back(step, at) for step in lost)


@_retried
def _take_back(step: Step, at: datetime) -> bool:
    with transaction.atomic():
        export = Export.objects.select_for_update().get(pk=step.export_id)
        still_lost = _held(step).filter(lease_until__lt=at)
        alive = Process.objects.filter(name=f"worker {step.worker}", seen_at__gt=step.lease_until).exists()
        crashes = step.crashes + (not alive)
        poison = crashes >= settings.CRASHES or (alive and _is_last(step))
        end = (
            {"finished_at": at, "error": "its worker ended without a word, or could not go on"}
            if poison
            else {"not_before": at, "rung_at": None}
        )
        if not _move_steps(still_lost, "fail" if poison else "lose", lease_until=None, crashes=crashes, **end):
            return False
        detail = f"{step.worker}, crash {crashes}"
        if poison:
            what = "stopped its worker three times" if crashes >= settings.CRASHES else "did not get on"
            _fail(export, step, f"This export {what} and was given up. An operator can see why.", detail)
        else:
            text = f"A worker fell silent in the step “{step.kind}”; another one takes over."
            if alive:
                text = f"A worker lost the desk's database in the step “{step.kind}”; it is taken up again."
            _tell(export, "taken back", text, step=step, detail=detail)
        return True


def stop_forbidden() -> int:
    """Cancels exports under way whose owners may not export them any more. Returns how many."""
    under_way = Export.objects.filter(state__in=UNFINISHED).select_related("owner").iterator()
    return sum(cancel(export, None, FORBIDDEN) for export in datasets.no_longer_allowed(under_way))


def expire_due(limit: int = 100) -> list[Export]:
    """Ready exports whose time is over become expired, row first; their files are the tidying's to delete."""
    due = Export.objects.filter(state=ExportState.READY, expires_at__lt=now())[:limit]
    return [export for export in due if expire(export)]


@_retried
def expire(export: Export, actor: User | None = None) -> bool:
    """Ends a ready export's time, for its file to be tidied away; `actor` is who wants it gone before. False when it is
    not ready (any more)."""
    with transaction.atomic():
        if not _move_export(export, "expire", tidied=False, **({"expires_at": now()} if actor else {})):
            return False
        why = f"The file was removed by {actor.get_username()}" if actor else "The file was removed: its time was over."
        _tell(export, "expired", why, actor=actor)
        return True


# --- what an operator may ask for ------------------------------------------------------------------------------------


@_retried
def mail_again(export: Export, actor: User) -> bool:
    """Has the mail of an ended export sent once more; False while none was sent or given up, or one is on its way."""
    with transaction.atomic():
        locked = Export.objects.select_for_update().get(pk=export.pk)
        mails = set(locked.steps.filter(kind=StepKind.NOTIFY).values_list("state", flat=True))
        if locked.unfinished or not mails or not mails <= {StepState.DONE, StepState.FAILED}:
            return False
        step = Step.objects.create(export=locked, kind=StepKind.NOTIFY, not_before=now())
        _tell(locked, "mail again", f"Mail asked for again by {actor.get_username()}", step=step, actor=actor)
        return True
