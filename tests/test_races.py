"""Races on MariaDB, which a single connection or SQLite would hide: two connections, one of them stopped at a chosen statement,
the other let past or seen to wait; and a COMMIT of which nobody knows whether it happened."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import DjangoDbBlocker, Settings

from exportapp import datasets, dispatcher, lifecycle, storage
from exportapp.engine.errors import LeaseLost
from exportapp.engine.specs import FileResult, Recipe
from exportapp.environment import database
from exportapp.models import Event, Export, ExportState, Step, StepKind, StepState
from tests.scenes import DATASETS, ask, file_of, held, piece, planned, take, write_shop
from tests.services import MariaDB, wait_until
from worker import tasks
from worker.heart import HEART

PATIENCE = 20.0  # seconds, for what happens at once


# --- a MariaDB in the place of the tests' SQLite ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def app_database(mariadb: MariaDB, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The app database of all threads of this process is on MariaDB meanwhile."""
    name = f"races_{uuid.uuid4().hex[:8]}"
    before, sqlite = connections.settings[DEFAULT_DB_ALIAS], connections[DEFAULT_DB_ALIAS]
    connections.settings[DEFAULT_DB_ALIAS] = {**before, **database(mariadb.create_database(name))}
    del connections[DEFAULT_DB_ALIAS]
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        yield
        connection.close()
    connections.settings[DEFAULT_DB_ALIAS] = before
    connections[DEFAULT_DB_ALIAS] = sqlite  # where it is in memory, this connection is all that there is of it
    mariadb.sql(f"DROP DATABASE {name}")


@pytest.fixture(autouse=True)
def races(
    app_database: None, mariadb: MariaDB, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A desk with a shop, and with nothing of the test before."""
    (tmp_path / "datasets.toml").write_text(DATASETS)
    write_shop(tmp_path / "shop.sqlite3")
    monkeypatch.setenv("SOURCE_SHOP_URL", f"sqlite:///{tmp_path}/shop.sqlite3")
    monkeypatch.setattr(HEART, "start", lambda: None)
    settings.DATASETS_FILE = tmp_path / "datasets.toml"
    settings.VAR = tmp_path
    settings.STORAGE_URL = f"file://{tmp_path}/files"
    settings.STEPS_PER_EXPORT = settings.STEPS_PER_PERSON = 99
    sales = Group.objects.get_or_create(name="sales")[0]
    for name in ("alice", "bob"):
        User.objects.create_user(name, f"{name}@example.com").groups.add(sales)
    yield
    for model in (Export, User):  # and what belongs to them
        model._default_manager.all().delete()


@pytest.fixture
def alice(races: None) -> User:
    return User.objects.get(username="alice")


@pytest.fixture
def bob(races: None) -> User:
    return User.objects.get(username="bob")


@pytest.fixture
def deadlocks(mariadb: MariaDB) -> Callable[[], int]:
    """How many deadlocks the server has seen since the test began."""

    def count() -> int:
        return int(mariadb.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").split("\t")[1])

    before = count()
    return lambda: count() - before


# --- people and workers on connections of their own -------------------------------------------------------------------


class Actor(threading.Thread):
    """Does one thing on a connection of its own, and stops on the way: before or after the first statement like this."""

    def __init__(self, verb: Callable[[], Any], *, before: str = "", after: str = "", isolation: str = "") -> None:
        super().__init__(daemon=True)
        self._verb, self._before, self._after, self._isolation = verb, before, after, isolation
        self._there, self._go = threading.Event(), threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread_id = 0

    def run(self) -> None:
        try:
            with connection.cursor() as cursor:
                self.thread_id = connection.connection.thread_id()
                if self._isolation:
                    cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {self._isolation}")
            with connection.execute_wrapper(self._look):
                self.result = self._verb()
        except BaseException as error:
            self.error = error
        finally:
            connection.close()

    def _look(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if self._before and re.search(self._before, sql):
            self._pause()
        result = execute(sql, params, many, context)
        if self._after and re.search(self._after, sql):
            self._pause()
        return result

    def _pause(self) -> None:
        self._before = self._after = ""
        self._there.set()
        assert self._go.wait(PATIENCE)

    def stopped(self) -> Actor:
        """Starts it, and comes back when it has stopped where it was to."""
        self.start()
        assert self._there.wait(PATIENCE), self.error or "it did not come so far"
        return self

    def waiting(self) -> Actor:
        """Starts it, and comes back when it waits for a lock that somebody else has."""
        self.start()
        wait_until(lambda: self.thread_id and self._waits(), PATIENCE, "nobody waits for a lock")
        return self

    def _waits(self) -> bool:
        time.sleep(0.15)  # InnoDB shows what it found before as long as it is asked within 0.1 s again
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id = %s",
                [self.thread_id],
            )
            return cursor.fetchone() is not None

    def ended(self) -> Any:
        """Lets it go on to its end, and gives what came out."""
        self._go.set()
        self.join(PATIENCE)
        assert not self.is_alive(), "it hangs"
        if self.error:
            raise self.error
        return self.result


def at_once(verbs: Iterable[Callable[[], Any]]) -> list[Actor]:
    """All of them at the same moment, each on a connection of its own; gives them when all have ended."""
    verbs = list(verbs)
    barrier = threading.Barrier(len(verbs))

    def start(verb: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        return verb()

    actors = [Actor(lambda verb=verb: start(verb)) for verb in verbs]  # type: ignore[misc]
    for actor in actors:
        actor.start()
    for actor in actors:
        actor.join(PATIENCE)
        assert not actor.is_alive()
    return actors


LOCKS_EXPORT = r"^SELECT .*`exportapp_export`.* FOR UPDATE( SKIP LOCKED)?$"
MOVES_STEP = r"^UPDATE `exportapp_step`"
MOVES_EXPORT = r"^UPDATE `exportapp_export`"
LOCKS_PERSON = r"^SELECT .*`auth_user`.* FOR UPDATE$"
TELLS = r"^INSERT INTO `exportapp_event`"


def fresh(row: Any) -> Any:
    return type(row).objects.get(pk=row.pk)


def states(export: Export, kind: str) -> list[str]:
    return sorted(export.steps.filter(kind=kind).values_list("state", flat=True))


def outcomes(export: Export) -> list[str]:
    kinds = ("ready", "failed", "cancelled", "expired")
    return list(export.events.filter(kind__in=kinds).order_by("pk").values_list("kind", flat=True))


def test_app_reads_what_is_committed_in_the_same_transaction_too() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@tx_isolation")
        assert cursor.fetchone() == ("READ-COMMITTED",)


# --- two finish -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("stop", [LOCKS_EXPORT, MOVES_STEP, MOVES_EXPORT])
def test_last_two_chunks_that_finish_at_the_same_time_make_one_assemble_step(
    alice: User, stop: str, isolation: str
) -> None:
    """Whatever the isolation: the lock on the export is each one's first statement, and what it reads is read later."""
    first = held(StepKind.CHUNK, alice, parts=2)
    second = take()
    one = Actor(lambda: lifecycle.finish_chunk(first, piece()), after=stop, isolation=isolation).stopped()
    other = Actor(lambda: lifecycle.finish_chunk(second, piece()), isolation=isolation).waiting()
    one.ended(), other.ended()
    assert fresh(first.export).chunks_left == 0
    assert states(first.export, StepKind.ASSEMBLE) == [StepState.WAITING]


def test_last_finisher_that_stands_before_its_lock_sees_who_came_between(alice: User) -> None:
    first = held(StepKind.CHUNK, alice, parts=2)
    second = take()
    late = Actor(lambda: lifecycle.finish_chunk(first, piece()), before=LOCKS_EXPORT).stopped()
    lifecycle.finish_chunk(second, piece())
    assert states(first.export, StepKind.ASSEMBLE) == []
    late.ended()
    assert states(first.export, StepKind.ASSEMBLE) == [StepState.WAITING]


def test_eight_chunks_that_finish_at_once_make_one_assemble_step(alice: User, deadlocks: Callable[[], int]) -> None:
    steps = [held(StepKind.CHUNK, alice, parts=8), *(take() for _ in range(7))]
    for actor in at_once(lambda step=step: lifecycle.finish_chunk(step, piece()) for step in steps):  # type: ignore[misc]
        actor.ended()
    assert fresh(steps[0].export).chunks_left == 0
    assert states(steps[0].export, StepKind.ASSEMBLE) == [StepState.WAITING]
    assert deadlocks() == 0


def test_step_that_two_finish_under_one_fence_counts_once(alice: User) -> None:
    step = held(StepKind.CHUNK, alice, parts=2)
    one, other = at_once([lambda: lifecycle.finish_chunk(step, piece())] * 2)
    assert sorted([type(one.error), type(other.error)], key=str) == sorted([type(None), LeaseLost], key=str)
    assert fresh(step.export).chunks_left == 1


# --- cancel against the others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [LOCKS_EXPORT, MOVES_STEP, MOVES_EXPORT])
def test_cancel_waits_for_who_is_finishing_and_takes_the_rest(
    alice: User, deadlocks: Callable[[], int], stop: str
) -> None:
    step = held(StepKind.CHUNK, alice, parts=2)
    finishing = Actor(lambda: lifecycle.finish_chunk(step, piece()), after=stop).stopped()
    cancelling = Actor(lambda: lifecycle.cancel(step.export, alice, "Enough")).waiting()
    finishing.ended()
    assert cancelling.ended()
    assert states(step.export, StepKind.CHUNK) == [StepState.DONE, StepState.DROPPED]
    assert (fresh(step.export).state, outcomes(step.export)) == (ExportState.CANCELLED, ["cancelled"])
    assert deadlocks() == 0


@pytest.mark.parametrize("stop", [LOCKS_EXPORT, MOVES_EXPORT, MOVES_STEP])
def test_who_finishes_while_it_is_being_cancelled_has_lost(
    alice: User, deadlocks: Callable[[], int], stop: str
) -> None:
    step = held(StepKind.CHUNK, alice, parts=1)
    cancelling = Actor(lambda: lifecycle.cancel(step.export, alice, "Enough"), after=stop).stopped()
    finishing = Actor(lambda: lifecycle.finish_chunk(step, piece())).waiting()
    assert cancelling.ended()
    with pytest.raises(LeaseLost):
        finishing.ended()
    assert states(step.export, StepKind.CHUNK) == [StepState.DROPPED]
    assert states(step.export, StepKind.ASSEMBLE) == []
    assert deadlocks() == 0


def test_cancels_that_meet_finishers_never_lock_each_other(
    alice: User, bob: User, deadlocks: Callable[[], int]
) -> None:
    for _ in range(10):
        step = held(StepKind.CHUNK, alice, parts=3)
        others = [take(), take()]
        actors = at_once(
            [
                lambda: lifecycle.cancel(step.export, alice, "Enough"),  # noqa: B023
                lambda: lifecycle.cancel(step.export, bob, "Enough"),  # noqa: B023
                lambda: lifecycle.finish_chunk(step, piece()),  # noqa: B023
                lambda: lifecycle.fail_step(others[0], lifecycle.ExportError("Later.")),  # noqa: B023
                lambda: lifecycle.beat(others[1], 1, 1),  # noqa: B023
            ]
        )
        assert sorted(actor.result for actor in actors[:2]) == [False, True]
        assert {type(actor.error) for actor in actors} <= {type(None), LeaseLost}
        assert outcomes(step.export) == ["cancelled"]
        assert set(states(step.export, StepKind.CHUNK)) <= {StepState.DONE, StepState.DROPPED}
    assert deadlocks() == 0


def test_deadlock_with_a_stranger_is_survived(alice: User, bob: User, deadlocks: Callable[[], int]) -> None:
    """Somebody at a console locks in the other order, and has changed so much that the server ends our transaction."""
    step = held(StepKind.CHUNK, alice, parts=1)
    with transaction.atomic():
        for _ in range(50):
            Event.objects.create(export=ask(bob), at=lifecycle.now(), kind="note", text="")
        Step.objects.select_for_update().get(pk=step.pk)
        finishing = Actor(lambda: lifecycle.finish_chunk(step, piece())).waiting()
        Export.objects.select_for_update().get(pk=step.export_id)
    finishing.ended()
    assert deadlocks() == 1
    assert fresh(step.export).chunks_left == 0
    assert states(step.export, StepKind.ASSEMBLE) == [StepState.WAITING]


def file_for(step: Step) -> FileResult:
    return FileResult(storage.file_name(step), 10, 1000, "0" * 64)


@pytest.mark.parametrize("stop", [LOCKS_EXPORT, MOVES_STEP, MOVES_EXPORT, TELLS])
def test_export_that_is_being_published_can_not_be_cancelled(alice: User, stop: str) -> None:
    step = held(StepKind.ASSEMBLE, alice)
    publishing = Actor(lambda: lifecycle.make_ready(step, file_for(step), {}), after=stop).stopped()
    cancelling = Actor(lambda: lifecycle.cancel(step.export, alice, "Enough")).waiting()
    publishing.ended()
    assert not cancelling.ended()
    assert (fresh(step.export).state, outcomes(step.export)) == (ExportState.READY, ["ready"])
    assert states(step.export, StepKind.NOTIFY) == [StepState.WAITING]


@pytest.mark.parametrize("stop", [LOCKS_EXPORT, MOVES_EXPORT, MOVES_STEP, TELLS])
def test_export_that_is_being_cancelled_can_not_be_published(alice: User, stop: str) -> None:
    step = held(StepKind.ASSEMBLE, alice)
    cancelling = Actor(lambda: lifecycle.cancel(step.export, alice, "Enough"), after=stop).stopped()
    publishing = Actor(lambda: lifecycle.make_ready(step, file_for(step), {})).waiting()
    assert cancelling.ended()
    with pytest.raises(LeaseLost):
        publishing.ended()
    export = fresh(step.export)
    assert (export.state, export.file_name, outcomes(export)) == (ExportState.CANCELLED, "", ["cancelled"])
    assert states(export, StepKind.NOTIFY) == []


# --- claims -----------------------------------------------------------------------------------------------------------


def test_four_workers_claim_two_hundred_steps_and_none_twice(
    alice: User, bob: User, settings: Settings, deadlocks: Callable[[], int]
) -> None:
    settings.STEPS_IN_ALL = settings.STEPS_PER_EXPORT = settings.STEPS_PER_PERSON = 999
    settings.DATASETS_FILE.write_text(DATASETS.replace("[sources.shop]", "[sources.shop]\nconnections = 999"))
    for owner in (alice, bob) * 5:
        export = ask(owner)
        export.steps.update(state=StepState.RUNNING)
        lifecycle.finish_plan(export.steps.get(), planned(20))

    def claims() -> list[tuple[int, int]]:
        taken = []
        while step := lifecycle.claim("worker"):
            taken.append((step.pk, step.fence))
        return taken

    each = [actor.ended() for actor in at_once([claims] * 4)]
    counted = Counter(claim for one in each for claim in one)
    assert len(counted) == 200
    assert set(counted.values()) == {1}
    assert {fence for _, fence in counted} == {1}
    assert all(each), "they did not race"
    assert deadlocks() == 0


def test_caps_hold_for_claims_at_the_same_moment(alice: User, bob: User, settings: Settings) -> None:
    settings.STEPS_PER_EXPORT, settings.STEPS_PER_PERSON, settings.STEPS_IN_ALL = 2, 3, 5
    for owner in (alice, bob):
        for _ in range(2):
            export = ask(owner)
            export.steps.update(state=StepState.RUNNING)
            lifecycle.finish_plan(export.steps.get(), planned(5))
    actors = at_once([lambda: lifecycle.claim("worker")] * 8)
    steps = [step for actor in actors if (step := actor.ended())]
    assert len({step.pk for step in steps}) == len(steps) == 5
    assert max(Counter(step.export_id for step in steps).values()) == 2
    assert sorted(Counter(step.export.owner_id for step in steps).values()) == [2, 3]


def test_who_stops_with_an_exports_lock_in_hand_stops_no_claim_of_another(alice: User, bob: User) -> None:
    first = held(StepKind.CHUNK, alice, parts=5)
    other = ask(bob)
    Export.objects.filter(pk=other.pk).update(created_at=lifecycle.now() + timedelta(days=1))
    frozen = Actor(lambda: lifecycle.finish_chunk(first, piece()), after=LOCKS_EXPORT).stopped()
    step = take(hint=first.export.steps.filter(state=StepState.WAITING)[0].pk)
    assert step.export == other
    frozen.ended()


def test_wait_for_a_lock_that_is_too_long_is_told_as_one_and_begun_again(alice: User) -> None:
    """MySQL's 1205 after innodb_lock_wait_timeout, and not the 2013 of a server that does not answer for read_timeout."""
    step = held(StepKind.CHUNK, alice)
    holder = Actor(lambda: lifecycle.cancel(step.export, None, "Enough"), after=LOCKS_EXPORT).stopped()
    errors: list[int] = []

    def look(execute: Callable[..., Any], *args: Any) -> Any:
        try:
            return execute(*args)
        except OperationalError as error:
            errors.append(error.args[0])
            holder._go.set()
            raise

    with connection.execute_wrapper(look), pytest.raises(LeaseLost):
        lifecycle.finish_chunk(step, piece())
    holder.ended()
    assert errors == [1205]


def test_claim_whose_step_is_cancelled_between_look_and_lock_gives_the_next(alice: User, bob: User) -> None:
    first, second = ask(alice), ask(bob)
    claiming = Actor(lambda: lifecycle.claim("worker"), before=LOCKS_EXPORT).stopped()
    assert lifecycle.cancel(first, alice, "Enough")
    assert claiming.ended().export == second
    assert (fresh(first).state, fresh(first).started_at) == (ExportState.CANCELLED, None)


@pytest.mark.parametrize("stop", [LOCKS_EXPORT, MOVES_STEP, MOVES_EXPORT])
def test_cancel_of_what_is_being_claimed_takes_it_from_the_claimer(
    alice: User, deadlocks: Callable[[], int], stop: str
) -> None:
    export = ask(alice)
    claiming = Actor(lambda: lifecycle.claim("worker"), after=stop).stopped()
    cancelling = Actor(lambda: lifecycle.cancel(export, alice, "Enough")).waiting()
    step = claiming.ended()
    assert cancelling.ended()
    assert not lifecycle.beat(step, 1, 1)
    assert (fresh(export).state, states(export, StepKind.PLAN)) == (ExportState.CANCELLED, [StepState.DROPPED])
    assert deadlocks() == 0


# --- leases -----------------------------------------------------------------------------------------------------------


def silent(step: Step) -> None:
    Step.objects.filter(pk=step.pk).update(lease_until=lifecycle.now() - timedelta(seconds=1))


def test_beat_between_the_sweeps_look_and_its_lock_keeps_the_step(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    silent(step)
    sweeping = Actor(lifecycle.take_back_lost, before=LOCKS_EXPORT).stopped()
    assert lifecycle.beat(step, 5, 500)
    assert sweeping.ended() == 0
    assert (fresh(step).state, fresh(step).crashes) == (StepState.RUNNING, 0)
    lifecycle.finish_chunk(step, piece())


@pytest.mark.parametrize("stop", [MOVES_STEP, TELLS])
def test_beat_that_comes_while_the_step_is_taken_back_is_too_late(alice: User, stop: str) -> None:
    step = held(StepKind.CHUNK, alice)
    silent(step)
    sweeping = Actor(lifecycle.take_back_lost, after=stop).stopped()
    beating = Actor(lambda: lifecycle.beat(step, 5, 500)).waiting()
    assert sweeping.ended() == 1
    assert not beating.ended()
    assert (fresh(step).state, fresh(step).rows_done) == (StepState.WAITING, 0)


def test_beat_that_hung_until_somebody_else_had_the_step_changes_nothing(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    beating = Actor(lambda: lifecycle.beat(step, 5, 500), before=MOVES_STEP).stopped()
    silent(step)
    assert lifecycle.take_back_lost() == 1
    again = take()
    assert again == step
    assert not beating.ended()
    assert (fresh(step).fence, fresh(step).rows_done, fresh(step).lease_until) == (again.fence, 0, again.lease_until)


def test_step_is_taken_back_once_by_two_sweeps_at_the_same_moment(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    silent(step)
    assert sum(actor.ended() for actor in at_once([lifecycle.take_back_lost] * 4)) == 1
    assert (fresh(step).state, fresh(step).crashes) == (StepState.WAITING, 1)


def test_step_that_is_finished_while_a_sweep_waits_for_it_is_not_taken_back(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    silent(step)
    finishing = Actor(lambda: lifecycle.finish_chunk(step, piece()), after=MOVES_STEP).stopped()
    sweeping = Actor(lifecycle.take_back_lost).waiting()
    finishing.ended()
    assert sweeping.ended() == 0
    assert (fresh(step).state, fresh(step).crashes) == (StepState.DONE, 0)


# --- requests ---------------------------------------------------------------------------------------------------------


def request(owner: User, key: str) -> Export:
    return lifecycle.request(owner, datasets.catalogue().datasets["orders"], Recipe("orders", ("id",)), request_key=key)


@pytest.mark.parametrize("stop", [LOCKS_PERSON, r"^INSERT INTO `exportapp_export`", TELLS])
def test_same_token_at_the_same_moment_is_one_export(alice: User, stop: str) -> None:
    one = Actor(lambda: request(alice, "k"), after=stop).stopped()
    other = Actor(lambda: request(alice, "k")).waiting()
    assert one.ended() == other.ended()
    export = Export.objects.get()
    assert (states(export, StepKind.PLAN), export.events.count()) == ([StepState.WAITING], 1)


def test_same_token_eight_times_at_once_is_one_export(alice: User) -> None:
    exports = {actor.ended() for actor in at_once([lambda: request(alice, "k")] * 8)}
    assert exports == {Export.objects.get()}
    assert Step.objects.count() == 1


def test_no_person_gets_more_exports_than_they_may_by_asking_for_all_at_once(alice: User, settings: Settings) -> None:
    settings.EXPORTS_PER_PERSON = 3
    actors = at_once(lambda key=key: request(alice, str(key)) for key in range(8))  # type: ignore[misc]
    assert Counter(type(actor.error) for actor in actors) == {type(None): 3, lifecycle.OverLimit: 5}
    assert Export.objects.count() == 3


def test_run_again_twice_at_the_same_moment_is_one_export(alice: User) -> None:
    export = ask(alice)
    lifecycle.cancel(export, alice, "Enough")
    again = {actor.ended() for actor in at_once([lambda: lifecycle.run_again(export, alice)] * 4)}
    assert again == set(export.reruns.all())
    assert len(again) == 1


def test_run_again_of_what_is_being_cancelled_locks_against_it_and_both_are_done(
    alice: User, deadlocks: Callable[[], int]
) -> None:
    export = ask(alice)
    cancelling = Actor(lambda: lifecycle.cancel(export, alice, "Enough"), after=MOVES_EXPORT).stopped()
    asking = Actor(lambda: lifecycle.run_again(export, alice)).waiting()
    assert cancelling.ended()
    assert asking.ended().parent == export
    assert deadlocks() == 0
    assert (fresh(export).state, export.reruns.count(), Step.objects.count()) == (ExportState.CANCELLED, 1, 2)


# --- what is over -----------------------------------------------------------------------------------------------------


def ready(owner: User) -> Export:
    step = held(StepKind.ASSEMBLE, owner)
    lifecycle.make_ready(step, file_for(step), {})
    return fresh(step.export)  # type: ignore[no-any-return]


def over(export: Export) -> None:
    Export.objects.filter(pk=export.pk).update(expires_at=lifecycle.now() - timedelta(seconds=1))


@pytest.mark.parametrize("stop", [MOVES_EXPORT, TELLS])
def test_download_while_it_expires_is_in_the_history_and_changes_nothing(
    alice: User, deadlocks: Callable[[], int], stop: str
) -> None:
    export = ready(alice)
    over(export)
    expiring = Actor(lifecycle.expire_due, after=stop).stopped()
    fetching = Actor(lambda: lifecycle.note_download(export, alice)).waiting()
    assert expiring.ended() == [export]
    fetching.ended()
    assert (fresh(export).state, fresh(export).tidied) == (ExportState.EXPIRED, False)
    assert {"expired", "downloaded"} <= set(export.events.values_list("kind", flat=True))
    assert deadlocks() == 0


def test_export_expires_once_with_four_sweeps_at_the_same_moment(alice: User) -> None:
    export = ready(alice)
    over(export)
    assert sorted(len(actor.ended()) for actor in at_once([lifecycle.expire_due] * 4)) == [0, 0, 0, 1]
    assert outcomes(export) == ["ready", "expired"]


def test_export_that_expires_while_it_is_tidied_is_tidied_again(alice: User) -> None:
    export = ready(alice)
    Export.objects.filter(pk=export.pk).update(finished_at=lifecycle.now() - timedelta(seconds=999))
    over(export)
    tidying = Actor(dispatcher.tidy, before=MOVES_EXPORT).stopped()
    assert lifecycle.expire_due() == [export]
    tidying.ended()
    assert not fresh(export).tidied, "its file would stay for ever"
    dispatcher.tidy()
    assert fresh(export).tidied


# --- a COMMIT of which nobody knows whether it happened ---------------------------------------------------------------


@contextmanager
def cut(mariadb: MariaDB, number: int, *, happened: bool) -> Iterator[list[int]]:
    """The connection breaks at so manyeth COMMIT of this thread: after the server did it, or before it heard of it."""
    commits: list[int] = []
    thread, commit = threading.get_ident(), BaseDatabaseWrapper._commit

    def breaks(self: BaseDatabaseWrapper) -> Any:
        if threading.get_ident() != thread:
            return commit(self)
        commits.append(self.connection.thread_id())
        if len(commits) != number:
            return commit(self)
        if happened:
            commit(self)
        mariadb.sql(f"KILL {commits[-1]}")
        if happened:
            self.errors_occurred = True
            raise OperationalError(2013, "Lost connection to server during query")
        return commit(self)

    BaseDatabaseWrapper._commit = breaks
    try:
        yield commits
    finally:
        BaseDatabaseWrapper._commit = commit


CSV = '"Id","Placed at"\r\n' + "".join(f"{2 * day},2026-01-{day:02d} 10:00:00\r\n" for day in range(1, 26))


def assembling(owner: User) -> Step:
    """An assemble step with real pieces, claimed."""
    ask(owner)
    while (step := take()).kind != StepKind.ASSEMBLE:
        tasks.run(step)
    return step


def names(export: Export) -> set[str]:
    return {name.removeprefix(f"{export.folder}/") for name in storage.store().names(export.folder)}


def test_file_whose_publication_was_committed_and_not_heard_of_stays(alice: User, mariadb: MariaDB) -> None:
    step = assembling(alice)
    with cut(mariadb, 1, happened=True) as commits:
        tasks.run(step)
    assert connection.connection.thread_id() not in commits, "it went on with another connection"
    export = fresh(step.export)
    assert (export.state, export.file_name) == (ExportState.READY, f"{export.pk}/1/file.csv")
    assert outcomes(export) == ["ready"]
    assert file_of(export).read_bytes().decode() == CSV
    assert states(export, StepKind.ASSEMBLE) == [StepState.DONE]
    assert states(export, StepKind.NOTIFY) == [StepState.WAITING]

    with pytest.raises(LeaseLost):
        lifecycle.make_ready(step, FileResult("another/1/file", 25, 1, "0" * 64), {})
    assert fresh(export).file_name == export.file_name
    Export.objects.filter(pk=export.pk).update(finished_at=lifecycle.now() - timedelta(seconds=999))
    dispatcher.tidy()
    assert names(export) == {"1/file.csv"}


def test_publication_that_was_not_committed_is_tried_again(alice: User, mariadb: MariaDB) -> None:
    step = assembling(alice)
    with cut(mariadb, 1, happened=False):
        tasks.run(step)
    export = fresh(step.export)
    assert (export.state, export.file_name, outcomes(export)) == (ExportState.RUNNING, "", [])
    assert states(export, StepKind.ASSEMBLE) == [StepState.WAITING]
    assert "1/file.csv" in names(export), "who does not know whether it is published deletes nothing"

    Step.objects.update(not_before=lifecycle.now())
    tasks.work()
    export = fresh(export)
    assert (export.state, export.file_name) == (ExportState.READY, f"{export.pk}/2/file.csv")
    assert outcomes(export) == ["ready"]
    assert file_of(export).read_bytes().decode() == CSV
    Export.objects.filter(pk=export.pk).update(finished_at=lifecycle.now() - timedelta(seconds=999))
    dispatcher.tidy()
    assert names(export) == {"2/file.csv"}


@pytest.mark.parametrize("kind", [StepKind.CHUNK, StepKind.ASSEMBLE])
def test_what_a_worker_wrote_goes_with_it_though_its_connection_died_in_the_meantime(
    alice: User, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It was frozen for longer than the server keeps an idle connection, and its export was cancelled and tidied."""
    ask(alice)
    while (step := take()).kind != kind:
        tasks.run(step)

    def wake_up(*_: Any) -> None:
        lifecycle.cancel(step.export, None, "Enough")
        mariadb.sql(f"KILL {connection.connection.thread_id()}")
        raise LeaseLost

    verb, name = ("finish_chunk", storage.piece_name) if kind == StepKind.CHUNK else ("make_ready", storage.file_name)
    monkeypatch.setattr(lifecycle, verb, wake_up)
    tasks.run(step)
    connection.close()
    assert name(step).removeprefix(f"{step.export.folder}/") not in names(step.export)


def test_request_that_was_committed_and_not_heard_of_is_found_by_its_token(alice: User, mariadb: MariaDB) -> None:
    with cut(mariadb, 1, happened=True), pytest.raises(OperationalError):
        request(alice, "k")
    assert request(alice, "k") == Export.objects.get()


def test_request_that_was_not_committed_leaves_nothing(alice: User, mariadb: MariaDB) -> None:
    with cut(mariadb, 1, happened=False), pytest.raises(OperationalError):
        request(alice, "k")
    assert (Export.objects.count(), Step.objects.count(), Event.objects.count()) == (0, 0, 0)


def settle() -> None:
    """Doorbells ring, back-offs and leases pass, sweeps sweep."""
    while Step.objects.filter(state__in=(StepState.WAITING, StepState.RUNNING)).exists():
        with suppress(OperationalError):  # the task failed; what it held comes back with its lease
            tasks.work()
        Step.objects.filter(state=StepState.WAITING).update(not_before=lifecycle.now())
        for step in Step.objects.filter(state=StepState.RUNNING):
            silent(step)
        lifecycle.take_back_lost()


COMMITS = 10  # of an export in two parts: five claims, a plan, two chunks, a file, a mail


@pytest.mark.parametrize("happened", [True, False], ids=["committed", "not committed"])
@pytest.mark.parametrize("number", range(1, COMMITS + 1))
def test_export_ends_ready_and_once_whichever_commit_of_its_way_is_cut(
    alice: User, mariadb: MariaDB, settings: Settings, mailoutbox: list[EmailMessage], number: int, happened: bool
) -> None:
    settings.CHUNK_ROWS = 13
    export = ask(alice)
    with cut(mariadb, number, happened=happened) as commits:
        settle()
    assert len(commits) > COMMITS or (happened and len(commits) == COMMITS), "not all commits have had their turn"
    export = fresh(export)
    assert (export.state, outcomes(export)) == (ExportState.READY, ["ready"])
    assert file_of(export).read_bytes().decode() == CSV
    assert states(export, StepKind.CHUNK) == [StepState.DONE] * 2
    assert states(export, StepKind.ASSEMBLE) == states(export, StepKind.NOTIFY) == [StepState.DONE]
    assert len(mailoutbox) == 1
