"""The scheduler: who has least comes first, every cap holds, and nobody waits behind somebody else's many exports."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from pytest_django import Settings

from exportapp import dispatcher, doorbell, lifecycle
from exportapp.engine.errors import ExportError
from exportapp.models import Export, ExportState, Step, StepKind, StepState
from tests.scenes import DATASETS, ask, everything, finish, held, planned, take

pytestmark = pytest.mark.usefixtures("desk")


def chunked(owner: User, parts: int = 5, small: bool = True, dataset: str = "orders") -> Export:
    """An export whose chunks wait, as if nobody had ever claimed its plan; a big one has many rows."""
    export = ask(owner, dataset)
    export.steps.update(state=StepState.RUNNING)
    lifecycle.finish_plan(export.steps.get(), planned(parts, 10 if small else 1_000_000))
    return export


def taken(count: int = 99) -> list[Step]:
    """Claims until nothing more may run, or `count` times."""
    steps: list[Step] = []
    while len(steps) < count and (step := lifecycle.claim("worker")):
        steps.append(step)
    return steps


def test_claim_is_short_and_so_are_dispatcher_and_doorbell() -> None:
    assert len(inspect.getsource(inspect.unwrap(lifecycle.claim)).splitlines()) < 60
    lines = [len(Path(module.__file__ or "").read_text().splitlines()) for module in (dispatcher, doorbell)]
    assert sum(lines) < 250


def test_claimed_step_has_a_fence_a_lease_and_nothing_done(alice: User) -> None:
    step = ask(alice).steps.get()
    Step.objects.filter(pk=step.pk).update(rows_done=7, bytes_done=700)
    before = lifecycle.now()
    claimed = take("worker 1")
    assert (claimed.state, claimed.fence, claimed.attempts, claimed.worker) == (StepState.RUNNING, 1, 1, "worker 1")
    assert (claimed.rows_done, claimed.bytes_done) == (0, 0)
    assert claimed.lease_until is not None and claimed.lease_until >= before + timedelta(seconds=60)
    assert claimed.export.state == ExportState.RUNNING
    assert claimed.export.started_at == claimed.started_at
    assert lifecycle.claim("worker 2") is None


def test_export_starts_once(alice: User) -> None:
    step = held(StepKind.PLAN, alice)
    lifecycle.hand_back(step)
    again = take()
    assert again.export.started_at == step.export.started_at
    assert again.export.events.filter(kind="running").count() == 1


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_oldest_export_comes_first_and_its_parts_in_their_order(alice: User) -> None:
    first, second = chunked(alice, parts=2), chunked(alice, parts=2)
    steps = taken(4)
    assert [step.export for step in steps] == [first, first, second, second]
    assert [step.position for step in steps[:2]] == sorted(step.position for step in steps[:2])


def test_who_has_fewest_running_steps_comes_first(alice: User, bob: User, charlie: User) -> None:
    chunked(alice), chunked(bob)
    ask(charlie, "products")
    owners = [step.export.owner.username for step in taken(7)]
    assert owners == ["alice", "bob", "charlie", "alice", "bob", "alice", "bob"]


def test_hint_is_followed_among_equals(alice: User, bob: User) -> None:
    chunked(alice)
    last = chunked(bob).steps.filter(kind=StepKind.CHUNK).last()
    assert last is not None
    assert take(hint=last.pk) == last


def test_hint_to_who_has_more_is_not_followed(alice: User, bob: User) -> None:
    mine = chunked(alice).steps.filter(kind=StepKind.CHUNK).last()
    assert mine is not None
    take()
    ask(bob)
    assert take(hint=mine.pk).export.owner == bob


@pytest.mark.parametrize("hint", [0, -1, 1 << 70, 999_999])
def test_hint_to_nothing_does_no_harm(alice: User, hint: int) -> None:
    step = ask(alice).steps.get()
    assert take(hint=hint) == step
    assert lifecycle.claim("worker", hint) is None


def test_hint_opens_no_door(alice: User, bob: User, settings: Settings) -> None:
    settings.STEPS_PER_EXPORT = 1
    full, later, ended = chunked(alice), ask(alice), ask(alice)
    take()
    later.steps.update(not_before=lifecycle.now() + timedelta(seconds=60))
    lifecycle.cancel(ended, alice, "Enough")
    for closed in (full, later, ended):
        for step in closed.steps.all():
            assert lifecycle.claim("worker", step.pk) is None
    other = ask(bob)
    assert take(hint=later.steps.get().pk).export == other


def test_of_those_with_equally_many_the_one_served_longest_ago_comes_first(
    alice: User, bob: User, charlie: User
) -> None:
    for owner in (alice, bob):
        chunked(owner, parts=9, small=False)
    chunked(charlie, parts=9, small=False, dataset="products")
    owners = []
    for _ in range(6):  # one worker: when it claims, nobody has a running step
        step = take()
        owners.append(step.export.owner.username)
        finish(step)
    assert owners == ["alice", "bob", "charlie"] * 2


def test_hint_does_not_jump_a_turn(alice: User, bob: User) -> None:
    mine = chunked(alice, small=False).steps.filter(kind=StepKind.CHUNK)
    finish(take())
    chunked(bob, small=False)
    last = mine.last()
    assert last is not None
    assert take(hint=last.pk).export.owner == bob


def test_small_export_that_has_begun_is_finished_before_the_next_turn(alice: User, bob: User) -> None:
    chunked(alice, parts=9, small=False)
    finish(take())
    small, next_one = ask(bob), ask(bob)
    served = []
    for _ in range(6):
        step = take()
        served.append((step.export.owner.username, step.kind))
        finish(step)
    assert served[:4] == [("bob", kind) for kind in ("plan", "chunk", "assemble", "notify")]
    assert served[4:] == [("alice", "chunk"), ("bob", "plan")]
    small.refresh_from_db()
    assert small.state == ExportState.READY
    assert next_one.steps.count() == 2


# --- caps -------------------------------------------------------------------------------------------------------------


def test_export_has_no_more_steps_running_than_it_may(alice: User, settings: Settings) -> None:
    settings.STEPS_PER_EXPORT = 3
    first, second = chunked(alice), chunked(alice)
    assert [step.export for step in taken()] == [first] * 3 + [second] * 3


def test_person_has_no_more_steps_running_than_they_may(alice: User, bob: User, settings: Settings) -> None:
    settings.STEPS_PER_PERSON = 3
    for owner in (alice, alice, bob):
        chunked(owner, parts=9)
    steps = taken()
    assert sorted(step.export.owner.username for step in steps) == ["alice"] * 3 + ["bob"] * 3
    finish(next(step for step in steps if step.export.owner == alice))
    assert [step.export.owner for step in taken()] == [alice]


TWO_SOURCES = DATASETS.replace("[sources.shop]", "[sources.shop]\nconnections = 2\n[sources.other]").replace(
    '[datasets.products]\nsource = "shop"', '[datasets.products]\nsource = "other"'
)


def test_source_has_no_more_connections_than_it_may(alice: User, bob: User, charlie: User, desk: Path) -> None:
    (desk / "datasets.toml").write_text(TWO_SOURCES)
    joining = held(StepKind.ASSEMBLE, alice)
    for owner in (alice, bob):
        chunked(owner)
    chunked(charlie, dataset="products")
    assert sorted(step.export.source for step in taken()) == ["other"] * 4 + ["shop"] * 2
    lifecycle.hand_back(joining)
    assert taken() == [joining], "joining pieces takes no connection, and frees none"


def test_source_that_left_the_file_keeps_a_cap(alice: User, bob: User, desk: Path, settings: Settings) -> None:
    settings.STEPS_PER_EXPORT = settings.STEPS_PER_PERSON = 6
    chunked(alice, parts=9), chunked(bob, parts=9)
    (desk / "datasets.toml").write_text("")
    assert len(taken()) == 8


def mailing(*owners: User) -> None:
    """Exports that are ready, with their mails waiting."""
    for step in [held(StepKind.ASSEMBLE, owner) for owner in owners]:
        finish(step)


def test_mails_go_one_at_a_time_and_hold_up_nobody(alice: User, bob: User, charlie: User) -> None:
    mailing(alice, bob)
    charlie.groups.set(alice.groups.all())
    chunked(charlie)
    steps = taken()
    assert [step.kind for step in steps].count(StepKind.NOTIFY) == 1
    assert [step.kind for step in steps].count(StepKind.CHUNK) == 4
    finish(next(step for step in steps if step.kind == StepKind.NOTIFY))
    assert [step.kind for step in taken()] == [StepKind.NOTIFY]


def test_mail_comes_first_once_and_then_in_its_turn(alice: User, bob: User) -> None:
    mailing(alice)
    ask(bob)
    mail = take()
    assert mail.kind == StepKind.NOTIFY
    lifecycle.fail_step(mail, ExportError("The mail server did not take the mail."))
    Step.objects.update(not_before=lifecycle.now())
    assert [step.kind for step in taken(2)] == [StepKind.PLAN, StepKind.NOTIFY]


def test_no_more_steps_run_than_may_in_all(alice: User, bob: User, settings: Settings) -> None:
    settings.STEPS_IN_ALL = 3
    for owner in (alice, bob):
        chunked(owner, parts=9)
    assert len(taken()) == 3
    ask(alice)
    assert lifecycle.claim("worker") is None


def test_last_place_is_kept_for_what_is_quick(alice: User, bob: User, charlie: User, settings: Settings) -> None:
    settings.STEPS_IN_ALL = 4
    settings.STEPS_PER_PERSON = 99
    chunked(alice, small=False), chunked(alice, small=False)
    steps = taken()
    assert len(steps) == 3, "a place is left"
    plan = take(hint=ask(bob).steps.get().pk)
    assert (plan.kind, plan.export.owner) == (StepKind.PLAN, bob)
    finish(plan)
    small = take()
    assert (small.kind, small.export.owner) == (StepKind.CHUNK, bob)
    finish(small)
    finish(take())
    assert take().kind == StepKind.NOTIFY


def test_only_place_serves_everything(alice: User, settings: Settings) -> None:
    settings.STEPS_IN_ALL = 1
    chunked(alice, small=False)
    assert len(taken()) == 1


def test_place_is_free_again_however_its_step_ended(alice: User, settings: Settings) -> None:
    settings.STEPS_PER_EXPORT = settings.STEPS_IN_ALL = 1
    endings: list[Callable[[Step], object]] = [
        finish,
        lifecycle.hand_back,
        lambda step: lifecycle.fail_step(step, ExportError("Later.")),
        lambda step: lifecycle.fail_step(step, ExportError("Never.", permanent=True)),
        lambda step: lifecycle.cancel(step.export, alice, "Enough"),
    ]
    for end in endings:
        Export.objects.all().delete()
        chunked(alice)
        step = take()
        ask(alice)
        assert lifecycle.claim("worker") is None
        end(step)
        assert lifecycle.claim("worker") is not None


# --- what may not run -------------------------------------------------------------------------------------------------


def test_step_waits_until_its_time(alice: User) -> None:
    step = ask(alice).steps.get()
    Step.objects.update(not_before=lifecycle.now() + timedelta(seconds=60))
    before = everything()
    assert lifecycle.claim("worker") is None
    assert everything() == before
    Step.objects.update(not_before=F("not_before") - timedelta(seconds=61))
    assert take() == step


def test_ended_export_has_nothing_to_run_but_its_mail(alice: User, bob: User, charlie: User) -> None:
    cancelled = held(StepKind.CHUNK, alice, parts=3)
    failed = held(StepKind.CHUNK, bob, parts=3)
    lifecycle.cancel(cancelled.export, alice, "Enough")
    lifecycle.fail_step(failed, ExportError("Never.", permanent=True))
    [mail] = taken()
    assert (mail.kind, mail.export) == (StepKind.NOTIFY, failed.export)


# --- 200 exports of one person ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 6])
@pytest.mark.parametrize("hogs", [1, 2])
def test_newcomer_waits_for_one_chunk_at_most_behind_200_big_exports(
    alice: User, charlie: User, bob: User, settings: Settings, workers: int, hogs: int
) -> None:
    settings.STEPS_PER_EXPORT = settings.STEPS_PER_PERSON = 99  # caps are not what helps here
    for _ in range(200 // hogs):
        for owner, dataset in ((alice, "orders"), (charlie, "products"))[:hogs]:
            ask(owner, dataset)
    doorbells = list(Step.objects.values_list("pk", flat=True))  # what the queue holds, and older than the newcomer's

    def claim() -> Step:
        step = lifecycle.claim("worker", doorbells.pop(0) if doorbells else None)
        assert step is not None
        return step

    def do(step: Step) -> None:
        if step.kind == StepKind.PLAN and step.export.owner != bob:
            lifecycle.finish_plan(step, planned(50, 10_000_000, exact=False))
        else:
            finish(step)

    def turn() -> None:
        """The worker that is longest at it finishes, and claims again."""
        do(at_work.pop(0))
        at_work.append(claim())

    at_work = [claim() for _ in range(workers)]
    for _ in range(20):
        turn()
    small = ask(bob)
    while small.state != ExportState.READY:
        do(at_work.pop(0))
        waits = small.steps.filter(state=StepState.WAITING).exists()
        at_work.append(claim())
        assert not waits or at_work[-1].export == small, "a step began while the newcomer's waited"
        small.refresh_from_db()
