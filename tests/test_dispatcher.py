"""The dispatcher rings for what may run, marks only what rang, and tidies what nobody writes to any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from pytest_django import Settings

from exportapp import dispatcher, lifecycle, storage
from exportapp.dispatcher import Dispatcher, due_steps, ring_due, sweep
from exportapp.doorbell import Unreachable
from exportapp.engine.errors import ExportError
from exportapp.models import Event, Export, ExportState, Process, Step, StepKind, StepState
from exportapp.retention import tidy
from tests.scenes import ask, everything, file_of, finish, held, in_state, piece, take
from tests.services import wait_until

pytestmark = pytest.mark.usefixtures("desk")


class Bell:
    """A doorbell that remembers what it rang for, and fails when told to."""

    def __init__(self) -> None:
        self.rung: list[int] = []
        self.broken = False

    def ring(self, steps: Iterable[int]) -> None:
        if self.broken:
            raise Unreachable("the broker does not answer (Fake)")
        self.rung += steps

    def depth(self) -> int:
        if self.broken:
            raise Unreachable("the broker does not answer (Fake)")
        return len(self.rung)

    def close(self) -> None:
        pass


def fresh(export: Export) -> Export:
    return Export.objects.get(pk=export.pk)


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> Bell:
    """The bell that every dispatcher of the test has."""
    bell = Bell()
    monkeypatch.setattr(dispatcher, "open_doorbell", lambda url: bell)
    return bell


def later(seconds: float) -> None:
    """Time passes: everything that was written is so much older."""
    past = timedelta(seconds=seconds)
    for export in Export.objects.all():
        moments = {name: getattr(export, name) for name in ("created_at", "started_at", "finished_at", "expires_at")}
        Export.objects.filter(pk=export.pk).update(**{name: at - past for name, at in moments.items() if at})
    for step in Step.objects.all():
        moments = {name: getattr(step, name) for name in ("not_before", "rung_at", "lease_until", "started_at")}
        Step.objects.filter(pk=step.pk).update(**{name: at - past for name, at in moments.items() if at})


# --- ringing ----------------------------------------------------------------------------------------------------------


def test_what_may_run_is_rung_for_oldest_export_first_and_its_parts_in_order(alice: User, bob: User) -> None:
    first, second = ask(alice), ask(bob)
    finish(take(), parts=3)  # its chunks are younger steps than the plan of the second
    chunks = first.steps.filter(kind=StepKind.CHUNK).order_by("position")
    assert due_steps() == [*chunks.values_list("pk", flat=True), second.steps.get().pk]


def test_what_runs_has_ended_or_must_wait_is_not_rung_for(alice: User) -> None:
    held(StepKind.PLAN, alice)
    lifecycle.cancel(ask(alice), alice, "Enough")
    ask(alice).steps.update(not_before=lifecycle.now() + timedelta(seconds=5))
    assert due_steps() == []
    later(6)
    assert len(due_steps()) == 1


def test_step_is_rung_for_once_and_again_after_a_while(alice: User, bell: Bell) -> None:
    step = ask(alice).steps.get()
    assert (ring_due(bell), ring_due(bell)) == (1, 0)
    later(29)
    assert ring_due(bell) == 0
    later(2)
    assert ring_due(bell) == 1
    assert bell.rung == [step.pk, step.pk]


@pytest.mark.parametrize("put_back", [lifecycle.hand_back, lambda step: lose(step)])
def test_step_that_was_put_back_is_rung_for_at_once(
    alice: User, bell: Bell, put_back: Callable[[Step], object]
) -> None:
    ask(alice)
    ring_due(bell)
    put_back(take())
    assert ring_due(bell) == 1


def lose(step: Step) -> None:
    Step.objects.filter(pk=step.pk).update(lease_until=lifecycle.now() - timedelta(seconds=1))
    lifecycle.take_back_lost()


def test_step_that_failed_is_rung_for_when_its_pause_is_over(alice: User, bell: Bell) -> None:
    ask(alice)
    ring_due(bell)
    lifecycle.fail_step(take(), ExportError("Later."))
    assert ring_due(bell) == 0
    later(13)
    assert ring_due(bell) == 1


def test_nothing_is_marked_when_the_broker_did_not_take_it(alice: User, bell: Bell) -> None:
    for _ in range(3):
        ask(alice)
    before = everything()
    bell.broken = True
    with pytest.raises(Unreachable):
        ring_due(bell)
    assert everything() == before
    bell.broken = False
    assert ring_due(bell) == 3


def test_very_many_steps_are_rung_for_in_portions(alice: User, bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "RINGS_AT_ONCE", 2)
    for _ in range(5):
        ask(alice)
    assert [ring_due(bell) for _ in range(4)] == [2, 2, 1, 0]
    assert bell.rung == sorted(bell.rung)


def test_two_dispatchers_that_ring_for_the_same_step_do_no_harm(alice: User, bell: Bell) -> None:
    step = ask(alice).steps.get()
    first, second = due_steps(), due_steps()  # both looked before either rang
    for steps in (first, second):
        bell.ring(steps)
    assert bell.rung == [step.pk, step.pk]
    assert [lifecycle.claim("worker", hint) for hint in bell.rung] == [step, None]


# --- sweeping ---------------------------------------------------------------------------------------------------------


def store(name: str) -> None:
    sink = storage.store().create(name)
    sink.write(b"content")
    sink.finish()


def stored(export: Export) -> list[str]:
    """What lies in the store, unfinished files too, below the export's folder."""
    folder = storage.store().path(export.folder)  # type: ignore[attr-defined]  # the desk's is a local one
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def go_round() -> None:
    """What a dispatcher does apart from ringing, once."""
    sweep()
    tidy()


def test_sweep_takes_back_what_died(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    later(61)
    sweep()
    step.refresh_from_db()
    assert (step.state, step.crashes) == (StepState.WAITING, 1)


def test_export_whose_owner_lost_the_right_is_stopped_by_the_sweep(alice: User, bob: User) -> None:
    """Waiting and running ones, whether a worker looks at them or not."""
    running, waiting, others = held(StepKind.CHUNK, alice).export, ask(alice), ask(bob)
    alice.groups.clear()
    dispatcher.sweep()
    for export in (running, waiting):
        export.refresh_from_db()
        assert export.state == ExportState.CANCELLED
        assert export.events.latest("pk").text == "Stopped: its owner may not export this any more."
        assert not export.steps.filter(state__in=(StepState.WAITING, StepState.RUNNING)).exists()
    others.refresh_from_db()
    assert others.state == ExportState.QUEUED


def test_expired_file_goes_a_sweep_after_its_time(alice: User) -> None:
    export = in_state(alice, ExportState.READY)
    file = file_of(export)
    go_round()
    assert file.exists()
    later(7 * 86400 + 1)
    go_round()
    export.refresh_from_db()
    assert (export.state, file.exists(), stored(export)) == (ExportState.EXPIRED, False, [])


@pytest.mark.parametrize("state", [ExportState.CANCELLED, ExportState.FAILED])
def test_what_is_over_is_tidied_at_once_and_again_when_no_worker_can_still_write(alice: User, state: str) -> None:
    export = in_state(alice, state)
    store(f"{export.folder}/pieces/1")
    go_round()
    assert stored(export) == []
    store(f"{export.folder}/pieces/2")  # by a holder that has not noticed yet
    later(59)
    go_round()
    assert (stored(export), fresh(export).tidied) == ([], False)
    store(f"{export.folder}/pieces/3")
    later(2)
    go_round()
    assert (stored(export), fresh(export).tidied) == ([], True)


def test_export_that_expires_while_it_is_tidied_is_tidied_again(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    export = in_state(alice, ExportState.READY)
    later(7 * 86400 + 1)
    kept = storage.tidy

    def expiring(one: Export) -> None:
        kept(one)
        lifecycle.expire_due()  # by another dispatcher

    monkeypatch.setattr(storage, "tidy", expiring)
    tidy()
    monkeypatch.undo()
    later(7 * 86400 + 1)
    assert stored(export)
    tidy()
    export.refresh_from_db()
    assert (export.state, stored(export), export.tidied) == (ExportState.EXPIRED, [], True)


@pytest.mark.parametrize("state", ExportState.values)
def test_only_the_finished_file_is_left_of_what_has_ended(alice: User, state: str) -> None:
    export = in_state(alice, state)
    file = f"{export.folder}/12/file.csv"
    Export.objects.filter(pk=export.pk).update(file_name=file)
    everywhere = ["1/file.csv.part", "11/file.csv", "12/file.csv", "pieces/1", "pieces/2.part"]
    for name in everywhere:
        store(f"{export.folder}/{name}")
    later(61)
    go_round()
    export.refresh_from_db()
    left = {"queued": everywhere, "running": everywhere, "ready": ["12/file.csv"]}
    assert stored(export) == sorted(left.get(state, []))
    assert export.tidied == (not export.unfinished)


def test_store_that_fails_for_one_export_stops_no_other_and_is_tried_again(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = [in_state(alice, ExportState.CANCELLED) for _ in range(3)]
    for export in exports:
        store(f"{export.folder}/pieces/1")
    later(61)
    tidy = storage.tidy

    def tidy_but_one(export: Export) -> None:
        if export == exports[1]:
            raise ExportError("The file store does not answer.")
        tidy(export)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "tidy", tidy_but_one)
        go_round()
    assert [len(stored(export)) for export in exports] == [0, 1, 0]
    go_round()
    assert [len(stored(export)) for export in exports] == [0, 0, 0]


def test_tidied_export_is_not_looked_at_again(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    in_state(alice, ExportState.CANCELLED)
    later(61)
    go_round()
    monkeypatch.setattr(storage, "tidy", lambda export: pytest.fail("tidied twice"))
    go_round()


def test_second_sweep_finds_nothing_to_do(alice: User) -> None:
    in_state(alice, ExportState.READY)
    held(StepKind.CHUNK, alice)
    later(7 * 86400 + 61)
    go_round()
    before = everything()
    go_round()
    assert everything() == before
    assert Event.objects.filter(kind__in=["expired", "taken back"]).count() == 2


def test_process_that_is_silent_for_an_hour_is_forgotten() -> None:
    at = lifecycle.now()
    for name, minutes in (("old", 61), ("young", 59)):
        Process.objects.create(name=name, kind="worker", started_at=at, seen_at=at - timedelta(minutes=minutes))
    go_round()
    assert [process.name for process in Process.objects.all()] == ["young"]


# --- the process ------------------------------------------------------------------------------------------------------


def test_dispatcher_says_how_the_broker_is(alice: User, bell: Bell) -> None:
    desk = Dispatcher()
    desk._ending.set()  # it waits for nothing

    def said() -> dict[str, object]:
        desk._sign()
        facts: dict[str, object] = Process.objects.get(kind="dispatcher").facts
        return facts

    assert said() == {"broker": "not tried yet", "waiting": None}
    ask(alice)
    desk._ring()
    assert said() == {"broker": "reachable", "waiting": 1}
    bell.broken = True
    ask(alice)
    desk._ring()
    assert said() == {"broker": "the broker does not answer (Fake)", "waiting": None}
    bell.broken = False
    desk._ring()
    assert said() == {"broker": "reachable", "waiting": 2}


def test_pauses_grow_while_the_broker_is_away_and_its_failure_is_logged_once(
    bell: Bell, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Dispatcher()
    pauses: list[float | None] = []
    monkeypatch.setattr(desk._ending, "wait", pauses.append)
    bell.broken = True
    for _ in range(7):
        desk._ring()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert len(caplog.records) == 1
    bell.broken = False
    desk._ring()
    bell.broken = True
    desk._looked = 0
    desk._ring()
    assert pauses[7:] == [1]
    assert len(caplog.records) == 2


class Hanging(Bell):
    """A bell that hangs as a broker in trouble makes it, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs, self.let_go = threading.Event(), threading.Event()

    def ring(self, steps: Iterable[int]) -> None:
        self.hangs.set()
        self.let_go.wait(30)


@pytest.mark.parametrize("part", ["ring_due", "tidy"])
def test_broker_or_store_that_hangs_keeps_no_sweep_from_going_on(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, part: str
) -> None:
    bell, sweeps, signs = Hanging(), [0], [0]
    settings.SWEEP_SECONDS = 0.01
    monkeypatch.setattr(dispatcher, "SIGN_SECONDS", 0.01)
    monkeypatch.setattr(dispatcher, "open_doorbell", lambda url: bell)
    for one in ("ring_due", "tidy"):
        monkeypatch.setattr(dispatcher, one, lambda *_, hangs=one == part: bell.ring([1]) if hangs else None)
    monkeypatch.setattr(dispatcher, "sweep", lambda: sweeps.append(1))
    monkeypatch.setattr(dispatcher, "sign_of_life", lambda kind, facts: signs.append(1))
    desk = Dispatcher()
    desk.start()
    assert bell.hangs.wait(10)
    begun = len(sweeps), len(signs)
    wait_until(lambda: len(sweeps) > begun[0] + 3 and len(signs) > begun[1] + 3, 10, "further sweeps")
    assert not bell.let_go.is_set()
    bell.let_go.set()
    desk.stop()
    assert not any(thread.is_alive() for thread in desk._threads)


def test_after_an_outage_of_the_database_the_sweep_leaves_workers_a_beat_to_say_that_they_live(
    bell: Bell, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    desk, done = Dispatcher(), []
    monkeypatch.setattr(desk._ending, "wait", lambda seconds: done.append(seconds))
    answers = iter([OperationalError(2006, "gone"), None, None])

    def sweeping() -> None:
        if error := next(answers):
            raise error
        done.append("swept")

    monkeypatch.setattr(dispatcher, "sweep", sweeping)
    with pytest.raises(OperationalError):
        desk._sweep()
    desk._sweep()
    desk._sweep()
    assert done == [settings.BEAT_SECONDS, "swept", "swept"]


def test_export_that_cannot_be_understood_keeps_no_other_from_being_stopped_or_expiring(alice: User, bob: User) -> None:
    ask(alice, name="unreadable")
    Export.objects.update(definition={})
    old = in_state(alice, ExportState.READY)
    other = ask(bob)
    bob.groups.clear()
    later(8 * 86400)
    sweep()
    assert (fresh(old).state, fresh(other).state) == (ExportState.EXPIRED, ExportState.CANCELLED)


@pytest.mark.parametrize("error", [OperationalError(2006, "gone"), RuntimeError("a mistake of ours")])
def test_dispatcher_goes_on_after_an_error(bell: Bell, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    desk = Dispatcher()
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise error
        desk._ending.set()

    thread = threading.Thread(target=desk._repeat, args=(work, 0.01))
    thread.start()
    thread.join(10)
    assert len(tries) == 2
    [record] = caplog.records
    assert (record.exc_info is None) == isinstance(error, OperationalError), "of our own mistakes the log says where"


def test_whole_export_goes_through_with_nothing_but_doorbells(alice: User, bell: Bell) -> None:
    export = ask(alice)
    while ring_due(bell):
        while bell.rung and (step := lifecycle.claim("worker", bell.rung.pop())):
            if step.kind == StepKind.CHUNK and step.position == 0:
                lifecycle.finish_chunk(step, piece(3, (5,)))
            else:
                finish(step)
    export.refresh_from_db()
    assert (export.state, export.file_rows) == (ExportState.READY, 13)


def test_files_of_other_exports_are_left_alone(alice: User) -> None:
    ended, ready = in_state(alice, ExportState.CANCELLED), in_state(alice, ExportState.READY)
    later(61)
    sweep()
    assert file_of(ready).exists()
    assert stored(ended) == []
