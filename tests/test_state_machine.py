"""The lifecycle against a model of it: in whatever order people ask and cancel, workers work, die and wake up again, rights
come and go and time passes, what the desk promises holds after every single thing that happens, and every export ends.

Hypothesis makes the stories up, the same ones each time. EXPORTAPP_STORIES=1000 tells so many, and new ones each time.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Model
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest_django import Settings

from exportapp import datasets, dispatcher, lifecycle, processes, retention, storage
from exportapp.engine.errors import ExportError, LeaseLost
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import FileResult, KeyRange, PieceResult, Plan, Recipe
from exportapp.lifecycle import EXPORT_MOVES, LONGEST_BACK_OFF
from exportapp.models import UNFINISHED, Event, Export, ExportState, Step, StepKind, StepState

STORIES = int(os.environ.get("EXPORTAPP_STORIES", "0"))
THINGS = 60  # that happen in a story

# Small numbers: a story is short, and is to come up against each of them. Of the caps one is tight in a story, or all are.
LIMITS = {"EXPORTS_PER_PERSON": 3, "EXPORTS_IN_ALL": 7, "RETRIES": 3, "CRASHES": 3}
TIGHT = {"STEPS_PER_EXPORT": 2, "STEPS_PER_PERSON": 2, "STEPS_IN_ALL": 3}
LOOSE = dict.fromkeys(TIGHT, 99)
CAPS = [*({**LOOSE, cap: most} for cap, most in TIGHT.items()), LOOSE, {**TIGHT, "STEPS_PER_EXPORT": 1}]
CONNECTIONS = {"shop": 3, "yard": 1}
DATASETS = f"""
[sources.shop]
connections = {CONNECTIONS["shop"]}
[sources.yard]
connections = {CONNECTIONS["yard"]}

[datasets.orders]
source = "shop"
table = "orders"
groups = ["sales"]
key = ["id"]
columns = [{{ name = "id", type = "integer" }}]

[datasets.parcels]
source = "yard"
table = "parcels"
key = ["id"]
max_rows = 20
keep_days = 1
columns = [{{ name = "id", type = "integer" }}]
"""
MOST_ROWS = {"orders": 0, "parcels": 20}
KEEP_DAYS = {"orders": 7, "parcels": 1}
PEOPLE = ["alice", "bob", "charlie"]
WORKERS = range(4)
HANDS = 2  # steps that a worker holds at most
WIDTH = 10  # keys in a range of a plan; each key has one row

READING = (StepKind.PLAN, StepKind.CHUNK)
LIVE = (StepState.WAITING, StepState.RUNNING)
PASSING = ExportError("The database did not answer.", detail="MySQL 2013")
LASTING = ExportError("The table is gone.", permanent=True, detail="MySQL 1146")

Row = dict[str, Any]
DAY_ONE = datetime(2030, 1, 1, tzinfo=UTC)


REACHED: Counter[str] = Counter()  # how often the stories came to what


class Clock:
    """The database's time, which passes when a story says so."""

    at = DAY_ONE


# --- the model --------------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What the model knows of an export."""

    owner: str
    dataset: str
    mail: bool
    parent: UUID | None = None
    state: str = ExportState.QUEUED
    keys: int = 0
    ended: datetime | None = None
    tidied: bool = False

    @property
    def expires(self) -> datetime:
        assert self.ended
        return self.ended + timedelta(days=KEEP_DAYS[self.dataset])


@dataclass(eq=False)
class Claim:
    """A step in the hands of a worker, as it was when it was claimed."""

    worker: int
    step: Step
    lease: datetime
    silent: bool = False
    finished: bool = False

    @property
    def mail(self) -> bool:
        return self.step.kind == StepKind.NOTIFY

    @property
    def file(self) -> str:
        return storage.piece_name(self.step) if self.step.kind == StepKind.CHUNK else storage.file_name(self.step)


FROZEN = ("definition", "recipe_json", "query_json")  # and long
FIELDS: dict[type[Model], list[str]] = {
    model: [field.attname for field in model._meta.concrete_fields if field.attname not in FROZEN]
    for model in (Export, Step, Event)
}


class Seen:
    """All rows at one moment."""

    def __init__(self) -> None:
        self.rows = {
            model.__name__: list(model._default_manager.order_by("pk").values(*FIELDS[model])) for model in FIELDS
        }
        self.exports: dict[UUID, Row] = {row["id"]: row for row in self.rows["Export"]}
        self.steps: dict[int, Row] = {row["id"]: row for row in self.rows["Step"]}
        self._of: dict[UUID, list[Row]] = {export: [] for export in self.exports}
        self._events: dict[UUID, list[str]] = {export: [] for export in self.exports}
        for row in self.rows["Step"]:
            self._of[row["export_id"]].append(row)
        for row in self.rows["Event"]:
            self._events[row["export_id"]].append(row["kind"])

    def of(self, export: UUID, *kinds: str) -> list[Row]:
        """The export's steps in their order."""
        steps = [row for row in self._of[export] if row["kind"] in (kinds or StepKind.values)]
        return sorted(steps, key=lambda row: (row["position"], row["id"]))

    def story(self, export: UUID) -> list[str]:
        return self._events[export]

    def running(self) -> list[Row]:
        return [row for row in self.steps.values() if row["state"] == StepState.RUNNING]


def bounds(row: Row) -> tuple[int, int]:
    """The keys from ... to that a chunk's step is answerable for: what it has read, if it is done, else all its range."""
    key_range = row["range_json"]
    upto = key_range["upto"]
    if row["state"] == StepState.DONE and row["result"]["last_key"] is not None:
        upto = row["result"]["last_key"]
    return (key_range["after"] or [0])[0], upto[0]


# --- what holds at every moment ---------------------------------------------------------------------------------------


def nobody_but_the_models_holders_holds_a_step(desk: Desk, now: Seen) -> None:
    running = sorted((row["id"], row["fence"]) for row in now.running())
    assert running == sorted((claim.step.pk, claim.step.fence) for claim in desk.held)


def who_lost_a_step_has_changed_nothing(desk: Desk, now: Seen) -> None:
    if desk.still:
        assert now.rows == desk.before.rows


def exports_are_where_the_model_says(desk: Desk, now: Seen) -> None:
    assert {key: row["state"] for key, row in now.exports.items()} == {key: one.state for key, one in desk.told.items()}
    assert {key: row["tidied"] for key, row in now.exports.items()} == {
        key: one.tidied for key, one in desk.told.items()
    }


def attempts_and_crashes_are_counted(desk: Desk, now: Seen) -> None:
    for key, row in now.steps.items():
        assert (row["attempts"], row["crashes"]) == (desk.attempts[key], desk.crashes[key])
        assert row["attempts"] <= row["fence"]


def chunks_left_are_the_chunks_that_are_not_done(desk: Desk, now: Seen) -> None:
    for key, export in now.exports.items():
        unfinished = [row for row in now.of(key, StepKind.CHUNK) if row["state"] in LIVE]
        if export["state"] in UNFINISHED:
            assert export["chunks_left"] == len(unfinished)
        planned = "planned" in now.story(key)
        made = planned and not unfinished and export["chunks_left"] == 0
        assert len(now.of(key, StepKind.ASSEMBLE)) == (1 if made else 0)


def ended_exports_have_nothing_to_run_but_their_mail(desk: Desk, now: Seen) -> None:
    for key, export in now.exports.items():
        live = [row["kind"] for row in now.of(key) if row["state"] in LIVE]
        if export["state"] not in UNFINISHED:
            assert export["finished_at"] is not None
            assert live in ([], [StepKind.NOTIFY])
        else:
            assert live, "an export under way has nothing to run"


def history_tells_the_state(desk: Desk, now: Seen) -> None:
    verbs = {state: verb for verb, (_, state) in EXPORT_MOVES.items()}
    for key, export in now.exports.items():
        kinds = now.story(key)
        assert kinds[0] == "requested"
        told: str = ExportState.QUEUED
        for kind in kinds:
            if kind in verbs:
                assert told in EXPORT_MOVES[verbs[kind]][0]
                told = kind
        assert told == export["state"]
        counts = Counter(kinds)
        assert all(counts[kind] <= 1 for kind in ("requested", "running", "planned", *EXPORT_MOVES, *verbs))
        assert counts["mailed"] + counts["mail failed"] <= 1
        crashes = sum(row["crashes"] for row in now.of(key))
        poisoned = sum(row["crashes"] == LIMITS["CRASHES"] for row in now.of(key))
        assert counts["taken back"] == crashes - poisoned


def caps_hold(desk: Desk, now: Seen) -> None:
    running = now.running()
    assert len(running) <= desk.caps["STEPS_IN_ALL"]
    exports = Counter(row["export_id"] for row in running)
    people = Counter(now.exports[row["export_id"]]["owner_id"] for row in running)
    sources = Counter(now.exports[row["export_id"]]["source"] for row in running if row["kind"] in READING)
    assert max(exports.values(), default=0) <= desk.caps["STEPS_PER_EXPORT"]
    assert max(people.values(), default=0) <= desk.caps["STEPS_PER_PERSON"]
    assert all(count <= CONNECTIONS[source] for source, count in sources.items())
    unfinished = Counter(row["owner_id"] for row in now.exports.values() if row["state"] in UNFINISHED)
    assert max(unfinished.values(), default=0) <= LIMITS["EXPORTS_PER_PERSON"]
    assert sum(unfinished.values()) <= LIMITS["EXPORTS_IN_ALL"]


def every_key_is_read_once_and_in_order(desk: Desk, now: Seen) -> None:
    for key, told in desk.told.items():
        parts = [bounds(row) for row in now.of(key, StepKind.CHUNK)]
        assert len({row["position"] for row in now.of(key)}) >= len(parts), "two parts have one position"
        assert all(end == start for (_, end), (start, _) in pairwise(parts)), "a gap, or something twice"
        assert (parts[0][0], parts[-1][1]) == (0, told.keys) if parts else not told.keys


def what_is_ready_is_whole(desk: Desk, now: Seen) -> None:
    for key, export in now.exports.items():
        published = export["state"] in (ExportState.READY, ExportState.EXPIRED)
        assert (export["receipt"] is not None) == bool(export["file_name"]) == published
        if published:
            chunks = now.of(key, StepKind.CHUNK)
            assert {row["state"] for row in chunks} == {StepState.DONE}
            assert export["file_rows"] == sum(row["rows_done"] for row in chunks) == desk.told[key].keys
            assert export["file_bytes"] == sum(row["bytes_done"] for row in chunks)
            assert export["expires_at"] == desk.told[key].expires


def each_outcome_has_its_one_mail(desk: Desk, now: Seen) -> None:
    for key, told in desk.told.items():
        wanted = told.mail and told.state in (ExportState.READY, ExportState.EXPIRED, ExportState.FAILED)
        mails = now.of(key, StepKind.NOTIFY)
        assert len(mails) == int(wanted)
        over = sum(row["state"] in (StepState.DONE, StepState.FAILED) for row in mails)
        assert sum(kind.startswith("mail") for kind in now.story(key)) == over


def nothing_goes_back(desk: Desk, now: Seen) -> None:
    before = desk.before
    assert now.exports.keys() >= before.exports.keys()
    assert now.steps.keys() >= before.steps.keys()
    assert now.rows["Event"][: len(before.rows["Event"])] == before.rows["Event"]
    for key, old in before.exports.items():
        new = now.exports[key]
        if old["state"] not in UNFINISHED and new["state"] != old["state"]:
            assert (old["state"], new["state"]) == (ExportState.READY, ExportState.EXPIRED)
        if old["state"] not in UNFINISHED:
            assert new["finished_at"] == old["finished_at"]
    for step, old in before.steps.items():
        new = now.steps[step]
        assert new["fence"] >= old["fence"]
        assert new["state"] in LIVE or new["finished_at"] is not None
        if old["state"] not in LIVE:
            assert new == old


def what_runs_has_a_lease_and_what_waits_a_time(desk: Desk, now: Seen) -> None:
    leases = {claim.step.pk: claim.lease for claim in desk.held}
    for key, row in now.steps.items():
        assert row["lease_until"] == leases.get(key)
        if row["state"] == StepState.WAITING:
            assert row["not_before"] <= Clock.at + timedelta(seconds=1.2 * LONGEST_BACK_OFF)


def files_are_there_as_long_as_they_are_needed(desk: Desk, now: Seen) -> None:
    files = set(desk.store.files)
    for key, export in now.exports.items():
        mine = {name for name in files if name.startswith(f"{key}/")}
        if export["state"] == ExportState.READY:
            assert export["file_name"] in mine, "a link leads nowhere"
            assert not export["tidied"] or mine == {export["file_name"]}
        elif export["state"] in UNFINISHED:
            done = [row for row in now.of(key, StepKind.CHUNK) if row["state"] == StepState.DONE]
            assert {row["result"]["name"] for row in done} <= mine
        elif export["tidied"]:
            assert not mine


INVARIANTS: list[Callable[[Desk, Seen], None]] = [
    nobody_but_the_models_holders_holds_a_step,
    who_lost_a_step_has_changed_nothing,
    exports_are_where_the_model_says,
    attempts_and_crashes_are_counted,
    chunks_left_are_the_chunks_that_are_not_done,
    ended_exports_have_nothing_to_run_but_their_mail,
    history_tells_the_state,
    caps_hold,
    every_key_is_read_once_and_in_order,
    what_is_ready_is_whole,
    each_outcome_has_its_one_mail,
    nothing_goes_back,
    what_runs_has_a_lease_and_what_waits_a_time,
    files_are_there_as_long_as_they_are_needed,
]


# --- what may happen --------------------------------------------------------------------------------------------------

picks = st.integers(0, 30)  # one of a list, whatever its length
WORK = (
    ["is done"] * 6
    + ["is claimed"] * 4
    + ["ends early"] * 2
    + ["fails", "fails for good", "is handed back", "dies", "waits", "waits"]
)
VERBS = ["finish", "rest", "fail", "fail for good", "hand back", "beat"]


class Desk(RuleBasedStateMachine):
    """A desk with three people and four workers."""

    def __init__(self) -> None:
        super().__init__()
        Clock.at = DAY_ONE
        self._story = transaction.atomic()
        self._story.__enter__()
        self.store: Any = storage.store()
        self.store.files.clear()
        self.told: dict[UUID, Told] = {}
        self.tokens: dict[tuple[str, str], UUID] = {}
        self.held: list[Claim] = []
        self.lost: list[Claim] = []
        self.attempts: Counter[int] = Counter()
        self.crashes: Counter[int] = Counter()
        self.active, self.sales = set(PEOPLE), set(PEOPLE)
        self.caps = LOOSE
        self.still = False  # whether the last thing that happened is to have changed nothing
        self.before = Seen()

    @invariant()
    def everything_holds(self) -> None:
        now = Seen()
        REACHED["moments"] += 1
        for holds in INVARIANTS:
            holds(self, now)
        self.before, self.still = now, False
        Clock.at += timedelta(milliseconds=1)  # no two things happen at the same time

    def teardown(self) -> None:
        REACHED.update(row["kind"] for row in self.before.rows["Event"])
        REACHED["stories"] += 1
        try:
            if sys.exc_info()[0] is None:  # the story went well
                self.settle()
        finally:
            transaction.set_rollback(True)
            self._story.__exit__(None, None, None)

    # - asking

    def may(self, owner: str, dataset: str) -> bool:
        return owner in self.active and (dataset != "orders" or owner in self.sales)

    def under_way(self, owner: str | None = None) -> list[UUID]:
        return [
            key for key, one in self.told.items() if one.state in UNFINISHED and (owner is None or one.owner == owner)
        ]

    def refusal(self, owner: str, dataset: str) -> type[ExportError] | None:
        if not self.may(owner, dataset):
            return ExportError
        full = len(self.under_way(owner)) >= LIMITS["EXPORTS_PER_PERSON"]
        return lifecycle.OverLimit if full or len(self.under_way()) >= LIMITS["EXPORTS_IN_ALL"] else None

    def asks(self, verb: Callable[[], Export], told: Told, known: UUID | None) -> None:
        """Asks, and compares the answer with the model's: the export that is there already, a refusal, or a new one."""
        expected = self.refusal(told.owner, told.dataset)
        if known and expected is not ExportError:
            expected = None
        if expected:
            self.still = True
            REACHED[expected.__name__] += 1
            with pytest.raises(ExportError) as refused:
                verb()
            assert type(refused.value) is expected
            return
        export = verb()
        if known:
            assert export.pk == known
            self.still = True
        else:
            assert export.pk not in self.told
            self.told[export.pk] = told
            self.tokens[(told.owner, export.request_key)] = export.pk

    @rule(owner=st.sampled_from(PEOPLE), dataset=st.sampled_from(sorted(KEEP_DAYS)), token=picks, mail=st.booleans())
    def request(self, owner: str, dataset: str, token: int, mail: bool) -> None:
        declared = datasets.catalogue().datasets[dataset]
        person = User.objects.get(username=owner)
        self.asks(
            lambda: lifecycle.request(
                person, declared, Recipe(dataset, ("id",)), request_key=str(token), notify=mail or token % 2 == 0
            ),
            Told(owner, dataset, mail or token % 2 == 0),
            self.tokens.get((owner, str(token))),
        )

    @initialize(
        caps=st.sampled_from(CAPS),
        people=st.integers(1, 3),
        dataset=st.sampled_from(sorted(KEEP_DAYS)),
        count=st.integers(1, 6),
        planned=st.booleans(),
    )
    def some_have_asked_already(
        self, caps: dict[str, int], people: int, dataset: str, count: int, planned: bool
    ) -> None:
        self.caps = caps
        for name, most in caps.items():
            setattr(settings, name, most)
        for number in range(count):
            self.request(PEOPLE[number % people], dataset if number % 2 else "orders", number, True)
            self.everything_holds()
        for number in range(len(self.told) if planned else 0):
            claim = self.takes(number % len(WORKERS), sorted(self.before.steps)[number])
            self.everything_holds()
            if claim and claim.step.kind == StepKind.PLAN:
                self.plans(claim, 3 - number % 2)
                self.everything_holds()

    @precondition(lambda self: self.tokens)
    @rule(pick=picks)
    def request_with_the_same_token(self, pick: int) -> None:
        (owner, token), key = list(self.tokens.items())[pick % len(self.tokens)]
        told = self.told[key]
        declared, person = datasets.catalogue().datasets[told.dataset], User.objects.get(username=owner)
        self.asks(
            lambda: lifecycle.request(person, declared, Recipe(told.dataset, ("id",)), request_key=token), told, key
        )

    @precondition(lambda self: self.told)
    @rule(pick=picks)
    def run_again(self, pick: int) -> None:
        key = list(self.told)[pick % len(self.told)]
        old = self.told[key]
        under_way = [rerun for rerun in self.under_way() if self.told[rerun].parent == key]
        export = Export.objects.get(pk=key)
        if under_way:
            assert lifecycle.run_again(export, export.owner).pk in under_way
            self.still = True
        else:
            told = Told(old.owner, old.dataset, old.mail, key)
            self.asks(lambda: lifecycle.run_again(export, export.owner), told, None)

    # - ending

    def ends(self, key: UUID, state: str) -> None:
        told = self.told[key]
        told.state, told.ended = state, Clock.at
        for claim in [claim for claim in self.held if claim.step.export_id == key and not claim.mail]:
            self.loses(claim)

    def loses(self, claim: Claim, *, finished: bool = False) -> None:
        claim.finished = finished
        self.held.remove(claim)
        self.lost.append(claim)

    @precondition(lambda self: len(self.told) > 2)
    @rule(pick=picks, operator=st.booleans())
    def cancel(self, pick: int, operator: bool) -> None:
        unfinished = self.under_way()
        keys = unfinished if unfinished and pick % 4 else list(self.told)
        export = Export.objects.get(pk=keys[pick % len(keys)])
        actor = User.objects.get(username="root" if operator else export.owner.username)
        went = self.told[export.pk].state in UNFINISHED
        assert lifecycle.cancel(export, actor, "Enough") == went
        self.still = not went
        if went:
            self.ends(export.pk, ExportState.CANCELLED)
            event = Event.objects.latest("pk")
            assert (event.export_id, event.kind, event.actor_id) == (export.pk, "cancelled", actor.pk)

    @precondition(lambda self: self.told)
    @rule(pick=picks)
    def download(self, pick: int) -> None:
        ready = [key for key, one in self.told.items() if one.state == ExportState.READY]
        if ready:
            export = Export.objects.get(pk=ready[pick % len(ready)])
            lifecycle.note_download(export, export.owner)

    # - rights

    @rule(group=st.booleans())
    def revoke_or_restore_a_right(self, group: bool) -> None:
        name = "charlie"  # the others go on with theirs
        person = User.objects.get(username=name)
        rights = self.sales if group else self.active
        rights ^= {name}
        if group:
            person.groups.set(Group.objects.filter(name="sales") if name in self.sales else [])
        else:
            User.objects.filter(pk=person.pk).update(is_active=name in self.active)

    # - working

    def free(self) -> list[int]:
        hands = Counter(claim.worker for claim in self.held if not claim.silent)
        return [worker for worker in WORKERS if hands[worker] < HANDS]

    def eligible(self) -> list[Row]:
        """The steps that a claim may give, by the rules as they are written in the design."""
        now, running = self.before, self.before.running()
        room = self.caps["STEPS_IN_ALL"] - len(running)
        exports = Counter(row["export_id"] for row in running)
        people = Counter(now.exports[row["export_id"]]["owner_id"] for row in running)
        sources = Counter(now.exports[row["export_id"]]["source"] for row in running if row["kind"] in READING)
        mailing = any(row["kind"] == StepKind.NOTIFY for row in running)
        found = []
        for row in now.steps.values():
            export = now.exports[row["export_id"]]
            quick = export["small"] or row["kind"] in (StepKind.PLAN, StepKind.NOTIFY)
            if (
                row["state"] == StepState.WAITING
                and row["not_before"] <= Clock.at
                and room >= (1 if quick else 2)
                and exports[row["export_id"]] < self.caps["STEPS_PER_EXPORT"]
                and people[export["owner_id"]] < self.caps["STEPS_PER_PERSON"]
                and not (row["kind"] == StepKind.NOTIFY and mailing)
                and (row["kind"] not in READING or sources[export["source"]] < CONNECTIONS[export["source"]])
            ):
                found.append({**row, "load": people[export["owner_id"]]})
        return found

    def takes(self, worker: int, hint: int | None = None) -> Claim | None:
        """Claims as a worker does, which also looks at the owner's right before it begins."""
        eligible = {row["id"]: row for row in self.eligible()}
        step = lifecycle.claim(f"worker {worker}", hint)
        assert (step is None) == (not eligible), "something could run, or could not"
        if step is None:
            self.still = True
            due = [row for row in self.before.steps.values() if row["state"] == StepState.WAITING]
            REACHED["claim held up by a cap"] += any(row["not_before"] <= Clock.at for row in due)
            return None
        assert step.pk in eligible
        assert eligible[step.pk]["load"] == min(row["load"] for row in eligible.values()), "somebody has less"
        REACHED[f"claimed {step.kind}"] += 1
        assert step.fence == self.before.steps[step.pk]["fence"] + 1
        claim = Claim(worker, step, Clock.at + timedelta(seconds=settings.LEASE_SECONDS))
        self.held.append(claim)
        self.attempts[step.pk] += 1
        told = self.told[step.export_id]
        if told.state == ExportState.QUEUED:
            told.state = ExportState.RUNNING
        if step.kind in (StepKind.CHUNK, StepKind.ASSEMBLE):  # from now on, there may be a file under its name
            sink = self.store.create(claim.file)
            sink.finish()
        if not claim.mail and not self.may(told.owner, told.dataset):
            assert not datasets.still_allowed(step.export)
            assert lifecycle.cancel(step.export, None, lifecycle.FORBIDDEN)
            self.ends(step.export_id, ExportState.CANCELLED)
        return claim

    @precondition(lambda self: self.free())
    @rule(pick=picks, hint=st.none() | st.integers(0, 40))
    def claim(self, pick: int, hint: int | None) -> None:
        ids = sorted(self.before.steps)
        if hint is not None:
            hint = ids[hint] if hint < len(ids) else 1 << 60
        self.takes(self.free()[pick % len(self.free())], hint)

    @rule(pick=picks, count=st.integers(1, 8))
    def workers_claim(self, pick: int, count: int) -> None:
        for _ in range(count):
            if self.free():
                self.claim(pick, None)
                self.everything_holds()

    @rule(how=st.lists(st.sampled_from(WORK), min_size=1, max_size=10), pick=picks)
    def work_goes_on(self, how: list[str], pick: int) -> None:
        for one in how:
            if not self.at_work() or (one == "is claimed" and self.free()):
                self.takes(self.free()[0])
            elif one == "fails":
                self.fail_step(pick, False)
            elif one == "fails for good":
                self.fail_step(pick, True)
            elif one == "is handed back":
                self.hand_back(pick)
            elif one == "dies":
                self.worker_dies_and_is_missed(pick)
            elif one == "waits":
                self.passes(LONGEST_BACK_OFF)
            elif one == "ends early" and self.at_work(StepKind.CHUNK):
                self.finish_chunk(pick, 3)
            else:
                self.does(self.one(pick))
            self.everything_holds()

    @precondition(lambda self: self.under_way())
    @rule(frozen=st.booleans())
    def an_export_gets_ready(self, frozen: bool) -> None:
        """By its second publisher, if the first one froze when it was about to, and wakes when all is done."""
        zombies: list[Claim] = []
        for _ in range(40):
            if assembling := self.at_work(StepKind.ASSEMBLE):
                if not frozen or zombies:
                    self.publishes(assembling[0])
                    self.everything_holds()
                    break
                zombies += assembling[:1]
                self.worker_dies_and_is_missed(self.at_work().index(zombies[0]))
            elif claims := self.at_work():
                self.does(claims[0])
            elif not self.takes(self.free()[0]):
                self.passes(LONGEST_BACK_OFF)
            self.everything_holds()
        for zombie in zombies:
            self.acts_late(zombie, "finish")

    def at_work(self, *kinds: str) -> list[Claim]:
        return [claim for claim in self.held if not claim.silent and claim.step.kind in (kinds or StepKind.values)]

    def one(self, pick: int, *kinds: str) -> Claim:
        claims = self.at_work(*kinds)
        return claims[pick % len(claims)]

    @precondition(lambda self: self.at_work())
    @rule(pick=picks, rows=st.integers(0, 5))
    def beat(self, pick: int, rows: int) -> None:
        claim = self.one(pick)
        assert lifecycle.beat(claim.step, rows if claim.step.kind == StepKind.CHUNK else 0, rows * 100)
        claim.lease = Clock.at + timedelta(seconds=settings.LEASE_SECONDS)

    @precondition(lambda self: self.at_work(StepKind.PLAN))
    @rule(pick=picks, parts=st.integers(1, 3), exact=st.booleans(), big=st.booleans())
    def finish_plan(self, pick: int, parts: int, exact: bool, big: bool) -> None:
        self.plans(self.one(pick, StepKind.PLAN), parts, exact, big)

    def plans(self, claim: Claim, parts: int = 2, exact: bool = True, big: bool = False) -> None:
        told = self.told[claim.step.export_id]
        rows = parts * WIDTH if exact else parts * WIDTH // 2  # an estimate may be too low
        if big and told.dataset == "orders":
            rows, exact = settings.SMALL_ROWS, False
        lifecycle.finish_plan(claim.step, plan(parts, rows, exact))
        self.loses(claim, finished=True)
        if 0 < MOST_ROWS[told.dataset] < rows:
            self.ends(claim.step.export_id, ExportState.FAILED)
        else:
            told.keys = parts * WIDTH

    @precondition(lambda self: self.at_work(StepKind.CHUNK))
    @rule(pick=picks, early=st.none() | st.integers(1, WIDTH))
    def finish_chunk(self, pick: int, early: int | None) -> None:
        self.reads(self.one(pick, StepKind.CHUNK), early)

    def reads(self, claim: Claim, early: int | None = None) -> None:
        """Reads the whole range, or leaves a rest after so many keys; of the rest there may be nothing left."""
        key, (after, upto) = claim.step.export_id, bounds(self.before.steps[claim.step.pk])
        last = None if early is None else min(after + early, upto)
        lifecycle.finish_chunk(claim.step, piece(claim, after, upto, last))
        self.loses(claim, finished=True)
        others = sum(row["rows_done"] for row in self.before.of(key) if row["id"] != claim.step.pk)
        rows = others + (last or upto) - after
        if 0 < MOST_ROWS[self.told[key].dataset] < rows:
            self.ends(key, ExportState.FAILED)

    @precondition(lambda self: self.at_work(StepKind.ASSEMBLE))
    @rule(pick=picks, cut=st.sampled_from([0, 0, 0, 1]))
    def make_ready(self, pick: int, cut: int) -> None:
        claim = self.one(pick, StepKind.ASSEMBLE)
        if cut:  # the file has lost a row
            self.still = True
            with pytest.raises(ExportError) as refused:
                lifecycle.make_ready(claim.step, joined(self.before, claim, cut), {})
            assert refused.value.permanent
        else:
            self.publishes(claim)

    def publishes(self, claim: Claim) -> None:
        lifecycle.make_ready(claim.step, joined(self.before, claim), {"rows": 1})
        self.loses(claim, finished=True)
        self.ends(claim.step.export_id, ExportState.READY)

    @precondition(lambda self: self.at_work(StepKind.NOTIFY))
    @rule(pick=picks)
    def finish_notify(self, pick: int) -> None:
        claim = self.one(pick, StepKind.NOTIFY)
        lifecycle.finish_notify(claim.step, "The mail was sent")
        self.loses(claim)

    @precondition(lambda self: self.at_work())
    @rule(pick=picks, lasting=st.sampled_from([False, False, True]))
    def fail_step(self, pick: int, lasting: bool) -> None:
        claim = self.one(pick)
        lifecycle.fail_step(claim.step, LASTING if lasting else PASSING)
        self.loses(claim)
        told = self.told[claim.step.export_id]
        if not claim.mail and (lasting or self.attempts[claim.step.pk] >= LIMITS["RETRIES"]):
            self.ends(claim.step.export_id, ExportState.FAILED)
        state = Step.objects.get(pk=claim.step.pk).state
        if claim.mail:
            assert told.ended
            late = Clock.at - told.ended > timedelta(seconds=settings.MAIL_SECONDS)
            assert state == (StepState.FAILED if lasting or late else StepState.WAITING)
        else:
            assert state == (StepState.WAITING if told.state in UNFINISHED else StepState.FAILED)

    @precondition(lambda self: self.at_work())
    @rule(pick=picks)
    def hand_back(self, pick: int) -> None:
        claim = self.one(pick)
        lifecycle.hand_back(claim.step)
        self.loses(claim)
        self.attempts[claim.step.pk] -= 1
        assert Step.objects.get(pk=claim.step.pk).state == StepState.WAITING

    # - dying

    def dies(self, worker: int) -> None:
        for claim in self.held:
            claim.silent |= claim.worker == worker

    @precondition(lambda self: self.at_work())
    @rule(pick=picks)
    def worker_dies(self, pick: int) -> None:
        self.dies(self.one(pick).worker)

    @precondition(lambda self: self.at_work())
    @rule(pick=picks)
    def worker_dies_and_is_missed(self, pick: int) -> None:
        self.dies(self.one(pick).worker)
        self.passes(settings.LEASE_SECONDS + 1)
        self.sweep()

    @precondition(lambda self: self.at_work())
    @rule(pick=picks)
    def a_step_kills_whoever_takes_it(self, pick: int) -> None:
        poison = self.one(pick).step.pk
        for _ in range(LIMITS["CRASHES"]):
            if claims := [claim for claim in self.at_work() if claim.step.pk == poison]:
                self.worker_dies_and_is_missed(self.at_work().index(claims[0]))
                self.everything_holds()
                self.takes(self.free()[0], poison)
                self.everything_holds()

    @precondition(lambda self: self.at_work())
    @rule(pick=picks, verb=st.sampled_from(VERBS))
    def zombie_acts_beside_the_next_holder(self, pick: int, verb: str) -> None:
        self.worker_dies_and_is_missed(pick)
        self.everything_holds()
        while self.free() and self.takes(self.free()[0]):
            self.everything_holds()
        self.everything_holds()
        if self.lost:
            self.zombie_acts(pick, verb, True)

    @precondition(lambda self: self.lost)
    @rule(
        pick=picks,
        verb=st.sampled_from(VERBS),
        first=st.booleans(),
    )
    def zombie_acts(self, pick: int, verb: str, first: bool) -> None:
        """Somebody goes on with a step that they had once, and have lost or finished since."""
        again = [claim for claim in self.lost if any(claim.step.pk == other.step.pk for other in self.held)]
        claims = again if first and again else self.lost
        REACHED["zombie beside a new holder"] += bool(first and again)
        self.acts_late(claims[-1 - pick % len(claims)], verb)

    def acts_late(self, claim: Claim, verb: str) -> None:
        REACHED[f"zombie {claim.step.kind}"] += 1
        self.still = True
        if verb == "beat":
            assert not lifecycle.beat(claim.step, 5, 500)
            return
        with pytest.raises(LeaseLost):
            {
                "finish": self.finishes_late,
                "rest": lambda claim: self.finishes_late(claim, 1),
                "fail": lambda claim: lifecycle.fail_step(claim.step, PASSING),
                "fail for good": lambda claim: lifecycle.fail_step(claim.step, LASTING),
                "hand back": lambda claim: lifecycle.hand_back(claim.step),
            }[verb](claim)

    def finishes_late(self, claim: Claim, rest: int | None = None) -> None:
        step = claim.step
        if step.kind == StepKind.PLAN:
            lifecycle.finish_plan(step, plan(2, 2 * WIDTH, True))
        elif step.kind == StepKind.CHUNK:
            after, upto = (step.key_range.after or (0,))[0], (step.key_range.upto or (0,))[0]
            lifecycle.finish_chunk(step, piece(claim, int(after), int(upto), rest and int(after) + rest))
        elif step.kind == StepKind.ASSEMBLE:
            try:
                lifecycle.make_ready(step, joined(self.before, claim), {"rows": 1})
            except LeaseLost:
                if not claim.finished:  # nobody does a step again that they have finished
                    self.store.delete(claim.file)  # as the worker does
                raise
        else:
            lifecycle.finish_notify(step, "The mail was sent")

    # - time

    def passes(self, seconds: float) -> None:
        """Time passes, and who is alive beats meanwhile."""
        Clock.at += timedelta(seconds=seconds)
        for claim in self.at_work():
            row = self.before.steps.get(claim.step.pk, {"rows_done": 0, "bytes_done": 0})
            assert lifecycle.beat(claim.step, row["rows_done"], row["bytes_done"]), "who is alive has lost a step"
            claim.lease = Clock.at + timedelta(seconds=settings.LEASE_SECONDS)

    @rule(seconds=st.sampled_from([1, 30, 59, 61, 900, 3600, 86_401, 8 * 86_400]), swept=st.booleans())
    def time_passes(self, seconds: int, swept: bool) -> None:
        self.passes(seconds)
        if swept:
            self.sweep()
            self.everything_holds()
            self.tidy()

    @rule()
    def sweep(self) -> None:
        dispatcher.sweep()
        lost = [claim for claim in self.held if claim.lease < Clock.at]
        for claim in sorted(lost, key=lambda claim: (claim.step.position, claim.step.pk)):
            if claim in self.held:  # an export that is given up takes its other steps with it
                self.loses(claim)
                self.crashes[claim.step.pk] += 1
                poisoned = self.crashes[claim.step.pk] >= LIMITS["CRASHES"]
                REACHED["poisoned"] += poisoned
                if poisoned and not claim.mail:
                    self.ends(claim.step.export_id, ExportState.FAILED)
        for key in self.under_way():
            if not self.may(self.told[key].owner, self.told[key].dataset):
                self.ends(key, ExportState.CANCELLED)
        for told in self.told.values():
            if told.state == ExportState.READY and told.expires < Clock.at:
                told.state, told.tidied = ExportState.EXPIRED, False

    @rule()
    def tidy(self) -> None:
        retention.tidy()
        over = Clock.at - timedelta(seconds=settings.LEASE_SECONDS)
        for told in self.told.values():
            told.tidied |= told.ended is not None and told.ended < over

    # - the end

    def settle(self) -> None:
        """Whatever has happened: with honest workers and time every export ends, every mail goes, every file goes."""
        self.sweep()
        self.everything_holds()
        for _ in range(300):
            if not any(row["state"] in LIVE for row in self.before.steps.values()):
                break
            if not self.works_on():
                self.passes(1.2 * LONGEST_BACK_OFF)
                self.sweep()
                self.everything_holds()
        assert not any(row["state"] in LIVE for row in self.before.steps.values()), "something never ends"
        assert not self.under_way()
        self.passes(86_400 * (max(KEEP_DAYS.values()) + 1))
        self.sweep()
        self.tidy()
        self.everything_holds()
        assert not self.store.files, "something is left in the store for ever"
        assert {told.state for told in self.told.values()} <= {"expired", "failed", "cancelled"}

    def works_on(self) -> bool:
        """Finishes what is in anybody's hands, or claims something. False when there is neither."""
        if not self.at_work():
            claim = self.takes(0)
            self.everything_holds()
            return claim is not None
        for claim in self.at_work():
            if claim in self.held:
                self.does(claim)
                self.everything_holds()
        return True

    def does(self, claim: Claim) -> None:
        verbs: dict[str, Callable[[Claim], None]] = {
            StepKind.PLAN: self.plans,
            StepKind.CHUNK: self.reads,
            StepKind.ASSEMBLE: self.publishes,
            StepKind.NOTIFY: self.mails,
        }
        verbs[claim.step.kind](claim)

    def mails(self, claim: Claim) -> None:
        lifecycle.finish_notify(claim.step, "The mail was sent")
        self.loses(claim)


def plan(parts: int, rows: int, exact: bool) -> Plan:
    ranges = [KeyRange((WIDTH * part,) if part else None, (WIDTH * part + WIDTH,)) for part in range(parts)]
    return Plan(tuple(ranges), rows, exact)


def piece(claim: Claim, after: int, upto: int, last: int | None) -> PieceResult:
    rows = (last or upto) - after
    return PieceResult(claim.file, rows, 100 * rows, "0" * 64, None if last is None else (last,))


def joined(now: Seen, claim: Claim, cut: int = 0) -> FileResult:
    """The file of all pieces that are done."""
    done = [row for row in now.of(claim.step.export_id, StepKind.CHUNK) if row["state"] == StepState.DONE]
    rows, size = total(done, "rows"), total(done, "bytes")
    return FileResult(claim.file, rows - cut, size, "0" * 64)


def total(rows: Iterable[Row], name: str) -> int:
    return sum(row["result"][name] for row in rows)


# --- the stories ------------------------------------------------------------------------------------------------------


TO_BE_REACHED = [
    *(
        "ready",
        "failed",
        "cancelled",
        "expired",
        "retry",
        "taken back",
        "poisoned",
        "mailed",
        "mail failed",
        "downloaded",
    ),
    *("ExportError", "OverLimit", "claim held up by a cap", "zombie beside a new holder"),
    *(f"zombie {kind}" for kind in StepKind.values),
]


@pytest.fixture
def cast(db: None, settings: Settings, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """People, datasets, a store in memory and the clock, all of them the stories' own."""
    (tmp_path / "datasets.toml").write_text(DATASETS)
    settings.DATASETS_FILE = tmp_path / "datasets.toml"
    settings.STORAGE_URL = f"memory:{tmp_path}"
    for name, value in {**LIMITS, **LOOSE}.items():
        setattr(settings, name, value)
    for module in (lifecycle, dispatcher, processes, retention):
        monkeypatch.setattr(module, "now", lambda: Clock.at)
    sales = Group.objects.create(name="sales")
    for name in PEOPLE:
        User.objects.create_user(name, f"{name}@example.com").groups.add(sales)
    User.objects.create_user("root", is_superuser=True)
    assert isinstance(storage.store(), MemoryStore)


@pytest.mark.usefixtures("cast")
@pytest.mark.timeout(0 if STORIES else 900)  # half a minute; a story that fails is made as short as can be
def test_desk_keeps_its_promises_in_every_story() -> None:
    run_state_machine_as_test(
        Desk,
        settings=hypothesis_settings(
            max_examples=STORIES or 40,
            stateful_step_count=THINGS,
            derandomize=not STORIES,
            database=None,
            deadline=None,
            print_blob=bool(STORIES),
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{REACHED['stories']} stories, {REACHED['moments']} moments: {dict(REACHED)}")
    assert STORIES or not [what for what in TO_BE_REACHED if not REACHED[what]], "the stories do not come far enough"
