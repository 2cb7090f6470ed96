"""The heartbeat: it keeps leases alive, tells a step that lost its lease to stop, and never stops itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from pytest_django import Settings

from exportapp import lifecycle
from exportapp.engine.errors import LeaseLost
from exportapp.models import Process, Step, StepKind
from exportapp.processes import process_name, sign_of_life, sign_off
from tests.scenes import held
from tests.services import wait_until
from worker import heart
from worker.heart import Heart, Pulse


class Reader:
    """What a pulse knows of a reader."""

    def __init__(self) -> None:
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1


@pytest.fixture
def step(desk: object, alice: User) -> Step:
    return held(StepKind.CHUNK, alice)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database does not answer a beat."""

    def beat(*_: Any) -> bool:
        raise OperationalError(2006, "gone")

    monkeypatch.setattr(lifecycle, "beat", beat)


def pulse_of_silence(seconds: float, step: Step | None = None) -> tuple[Pulse, Reader]:
    """A step's pulse whose last beat that arrived is so many seconds ago."""
    pulse, reader = Pulse(step or Step(pk=1)), Reader()
    pulse.reading(reader)
    pulse._beaten = time.monotonic() - seconds
    return pulse, reader


# --- one step ---------------------------------------------------------------------------------------------------------


def test_beat_extends_the_lease_and_writes_the_progress(step: Step) -> None:
    Step.objects.filter(pk=step.pk).update(lease_until=lifecycle.now())
    pulse, reader = pulse_of_silence(11, step)
    pulse.progress(5, 500)
    pulse.beat()
    step.refresh_from_db()
    assert (step.rows_done, step.bytes_done) == (5, 500)
    assert step.lease_until is not None and step.lease_until > lifecycle.now()
    assert not pulse.lost
    assert not pulse.due(time.monotonic())
    assert reader.killed == 0


def test_beat_of_a_step_that_was_taken_away_kills_its_query(step: Step) -> None:
    pulse, reader = pulse_of_silence(0, step)
    lifecycle.cancel(step.export, None, "Enough")
    pulse.beat()
    assert (pulse.lost, reader.killed) == (True, 1)
    for touch in (pulse.check, lambda: pulse.progress(1, 1), lambda: pulse.reading(Reader())):
        with pytest.raises(LeaseLost):
            touch()


def test_reader_that_opens_after_the_lease_was_lost_reads_nothing(step: Step) -> None:
    pulse = Pulse(step)
    lifecycle.cancel(step.export, None, "Enough")
    pulse.beat()
    with pytest.raises(LeaseLost):
        pulse.reading(Reader())


def test_beat_is_due_when_something_moved_or_after_a_while(settings: Settings) -> None:
    pulse, _ = pulse_of_silence(0)
    at = time.monotonic()
    assert not pulse.due(at)
    assert not pulse.due(at + settings.BEAT_SECONDS - 1)
    assert pulse.due(at + settings.BEAT_SECONDS + 1)
    pulse.progress(1, 10)
    assert pulse.due(at)


@pytest.mark.usefixtures("silent")
def test_step_goes_on_while_the_database_is_silent_for_a_moment() -> None:
    pulse, reader = pulse_of_silence(44)
    pulse.beat()
    pulse.check()
    assert (pulse.lost, reader.killed) == (False, 0)


@pytest.mark.usefixtures("silent")
def test_step_stops_by_itself_before_its_lease_can_be_over() -> None:
    pulse, reader = pulse_of_silence(46)
    with pytest.raises(LeaseLost):
        pulse.check()
    pulse.beat()
    assert (pulse.lost, reader.killed) == (True, 1)


def test_step_that_stopped_by_itself_does_not_come_back_to_life(step: Step) -> None:
    pulse, _ = pulse_of_silence(0, step)
    pulse._lost.set()
    pulse.beat()
    assert pulse.lost


def test_lease_counts_from_before_the_beat_was_sent(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)

    def slow_beat(*_: Any) -> bool:
        clock.now += 40  # the answer came late: the database may have written the lease long before
        return True

    with monkeypatch.context() as patch:
        patch.setattr(heart.time, "monotonic", lambda: clock.now)
        patch.setattr(lifecycle, "beat", slow_beat)
        pulse = Pulse(step)
        pulse.beat()
        assert not pulse.lost
        clock.now += 6
        assert pulse.lost


@pytest.mark.parametrize(("rows", "killed"), [(0, 1), (5, 0)])
def test_step_of_a_worker_that_is_to_end_is_interrupted_only_before_its_first_row(
    step: Step, monkeypatch: pytest.MonkeyPatch, rows: int, killed: int
) -> None:
    """With rows it hands itself over at its next batch, and nothing is read twice."""
    monkeypatch.setattr(heart, "draining", lambda: True)
    pulse, reader = pulse_of_silence(0, step)
    pulse.progress(rows, rows)
    for _ in range(3):
        heart._beat(pulse, time.monotonic())
    assert (reader.killed, pulse.interrupted) == (killed, killed == 1)
    assert not pulse.lost


def test_step_that_waits_for_its_next_row_is_interrupted_as_well(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sort that gave some rows before, say: it would not hear of the end for minutes."""
    monkeypatch.setattr(heart, "draining", lambda: True)
    pulse, reader = pulse_of_silence(0, step)
    pulse.progress(5, 5)
    heart._beat(pulse, time.monotonic())
    assert not reader.killed
    monkeypatch.setattr(pulse, "_moved", time.monotonic() - heart.SILENT_SECONDS - 1)
    heart._beat(pulse, time.monotonic())
    assert (reader.killed, pulse.interrupted, pulse.lost) == (1, True, False)


# --- all of a process -------------------------------------------------------------------------------------------------


def beating() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heart"]


class Beats:
    """Beats that arrive; those of some steps fail as they are told."""

    def __init__(self) -> None:
        self.of: list[int] = []
        self.answers: dict[int, bool | Exception] = {}

    def __call__(self, step: Step, rows: int, size: int) -> bool:
        self.of.append(step.pk)
        answer = self.answers.get(step.pk, True)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Beats:
    settings.BEAT_SECONDS = 0
    beats = Beats()
    monkeypatch.setattr(lifecycle, "beat", beats)
    return beats


@pytest.fixture
def hearts(beats: Beats, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Heart]]:
    """Makes hearts that beat fast, and sign nowhere; all are stopped before the settings are put back."""
    monkeypatch.setattr(heart, "PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr(heart, "sign_of_life", lambda kind, facts: None)
    monkeypatch.setattr(heart, "sign_off", lambda kind: None)
    made: list[Heart] = []

    def make() -> Heart:
        made.append(Heart())
        return made[-1]

    yield make
    for one in made:
        one.stop()
    wait_until(lambda: not beating(), 10, "the end of the threads")


def test_heart_beats_for_all_steps_while_they_run(hearts: Callable[[], Heart], beats: Beats) -> None:
    heart = hearts()
    with heart.beating(Step(pk=1)), heart.beating(Step(pk=2)):
        wait_until(lambda: {1, 2} <= set(beats.of), 10, "beats of both")
    with heart.beating(Step(pk=3)):
        wait_until(lambda: 3 in beats.of, 10, "a beat of the third")
        begun = len(beats.of)
        wait_until(lambda: len(beats.of) > begun + 3, 10, "more beats")
        assert set(beats.of[begun + 1 :]) == {3}
    assert len(beating()) == 1


def test_lost_step_is_told_and_no_other(hearts: Callable[[], Heart], beats: Beats) -> None:
    heart = hearts()
    beats.answers[1] = False
    with heart.beating(Step(pk=1)) as lost, heart.beating(Step(pk=2)) as kept:
        wait_until(lambda: lost.lost, 10, "the loss")
        wait_until(lambda: beats.of.count(2) > 3, 10, "further beats")
        assert not kept.lost


class Closed(Reader):
    """A reader that its own thread has just closed."""

    def kill(self) -> None:
        self.killed += 1
        raise RuntimeError("Cannot operate on a closed database.")


@pytest.mark.parametrize("answer", [False, OperationalError(2006, "gone"), RuntimeError("a mistake of ours")])
def test_heart_goes_on_whatever_happens_to_one_step(
    hearts: Callable[[], Heart], beats: Beats, answer: bool | Exception
) -> None:
    heart = hearts()
    beats.answers[1] = answer
    with heart.beating(Step(pk=1)) as failing:
        failing.reading(Closed())
        wait_until(lambda: 1 in beats.of, 10, "the first beat")
        with heart.beating(Step(pk=2)):
            wait_until(lambda: beats.of.count(2) > 3, 10, "beats of another step")


def test_heart_goes_on_after_what_nobody_foresaw(
    hearts: Callable[[], Heart], beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs: list[int] = []

    def refuse(*_: Any) -> None:
        signs.append(1)
        raise LookupError("no gate")

    monkeypatch.setattr(heart, "sign_of_life", refuse)
    with hearts().beating(Step(pk=1)):
        wait_until(lambda: signs and beats.of.count(1) > 3, 10, "beats")


def test_forked_child_has_a_heart_of_its_own_and_none_of_its_parents_steps(
    hearts: Callable[[], Heart], beats: Beats
) -> None:
    heart = hearts()
    with heart.beating(Step(pk=1)):
        wait_until(lambda: beats.of, 10, "a beat")
        heart.stop()
        assert not beating()  # no child inherits a thread
        heart._process = -1
        heart.stop()
        beats.of.clear()
        with heart.beating(Step(pk=2)):
            wait_until(lambda: len(beats.of) > 3, 10, "beats of the child")
            assert set(beats.of) == {2}


@pytest.mark.usefixtures("desk")
def test_heart_gives_the_sign_of_life_of_its_worker() -> None:
    Heart()._sign(3)
    process = Process.objects.get()
    assert (process.kind, process.facts) == ("worker", {"steps": 3})
    Heart()._sign(2)
    process = Process.objects.get()
    assert process.facts == {"steps": 2}
    assert process.started_at < process.seen_at


def test_heart_that_stops_takes_the_sign_away(
    hearts: Callable[[], Heart], beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(heart, "sign_off", told.append)
    one = hearts()
    one.stop()
    assert told == []  # it never started
    one.start()
    one.stop()
    assert (told, beating()) == (["worker"], [])


@pytest.mark.usefixtures("desk")
def test_process_that_signs_off_leaves_the_signs_of_others() -> None:
    at = lifecycle.now()
    Process.objects.create(name="worker elsewhere:1", kind="worker", started_at=at, seen_at=at)
    for kind in ("worker", "dispatcher"):
        sign_of_life(kind, {})
    sign_off("worker")
    assert [process.kind for process in Process.objects.all()] == ["dispatcher", "worker"]
    assert not Process.objects.filter(name=f"worker {process_name()}").exists()


def test_sign_of_life_that_does_not_arrive_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OperationalError(2006, "gone")

    monkeypatch.setattr(heart, "sign_of_life", refuse)
    Heart()._sign(0)
    assert "sign of life" in caplog.text


# --- a step that does not move ----------------------------------------------------------------------------------------


def test_step_that_does_not_move_for_long_is_given_up(step: Step, settings: Settings) -> None:
    settings.STALL_SECONDS = 100
    pulse, reader = Pulse(step), Reader()
    pulse.reading(reader)
    at = time.monotonic()
    heart._beat(pulse, at + 99)
    assert (pulse.lost, reader.killed) == (False, 0)
    heart._beat(pulse, at + 101)
    assert (pulse.lost, reader.killed) == (True, 1)
    heart._beat(pulse, at + 102)
    assert reader.killed == 1
    before = Step.objects.get(pk=step.pk).lease_until
    heart._beat(pulse, at + 200)
    assert Step.objects.get(pk=step.pk).lease_until == before  # so that another worker gets it


def test_step_that_moves_is_not_given_up(step: Step, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.STALL_SECONDS = 30
    pulse = Pulse(step)
    at = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: at + 20)
    pulse.progress(1, 10)
    monkeypatch.undo()
    heart._beat(pulse, at + 45)
    assert not pulse.lost
