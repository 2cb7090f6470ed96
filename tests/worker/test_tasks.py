"""The one task, called as Celery calls it: a doorbell makes a whole export, and nothing that goes wrong holds a step."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.mail import EmailMessage
from pytest_django import Settings

from exportapp import celery, lifecycle
from exportapp.engine.errors import ExportError
from exportapp.models import Event, Export, ExportState, PersonAttribute, Step, StepKind, StepState
from tests.scenes import ask, everything, file_of, finish, held, take
from worker import tasks
from worker.heart import HEART, Pulse
from worker.steps import STEPS
from worker.tasks import work

pytestmark = pytest.mark.usefixtures("shop")


@pytest.fixture(autouse=True)
def _no_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No beats from a thread: it would look at the database from outside of the test's transaction."""
    monkeypatch.setattr(HEART, "start", lambda: None)


@pytest.fixture
def draining() -> Iterator[Callable[[], None]]:
    """Tells this worker to end, as Celery does at SIGTERM."""
    yield celery._drain
    celery._draining[0] = 0


def misbehave(monkeypatch: pytest.MonkeyPatch, kind: str, error: BaseException) -> None:
    def do(step: Step, pulse: Pulse) -> None:
        raise error

    monkeypatch.setitem(STEPS, kind, do)


def states(export: Export) -> list[tuple[str, str]]:
    return list(export.steps.order_by("pk").values_list("kind", "state"))


CSV = '"Id","Placed at"\r\n' + "".join(f"{2 * day},2026-01-{day:02d} 10:00:00\r\n" for day in range(1, 26))


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_one_doorbell_makes_a_small_export_and_mails_its_owner(alice: User, mailoutbox: list[EmailMessage]) -> None:
    export = ask(alice, name="January")
    work(export.steps.get().pk)
    export.refresh_from_db()
    assert states(export) == [(kind, StepState.DONE) for kind in ("plan", "chunk", "assemble", "notify")]
    assert (export.state, export.file_rows) == (ExportState.READY, 25)
    assert file_of(export).read_bytes().decode() == CSV
    assert [mail.to for mail in mailoutbox] == [["alice@example.com"]]
    assert [event.kind for event in export.events.order_by("pk")] == [
        "requested", "running", "planned", "ready", "mailed",
    ]  # fmt: skip


def test_file_of_many_parts_is_the_same_file(alice: User, settings: Settings) -> None:
    settings.CHUNK_ROWS = 4
    export = ask(alice)
    work()
    export.refresh_from_db()
    assert export.steps.filter(kind=StepKind.CHUNK).count() == 7
    assert file_of(export).read_bytes().decode() == CSV


def test_export_without_rows_is_a_file_with_a_header(alice: User) -> None:
    export = ask(alice, start="2025-01-01", end="2025-02-01")
    work()
    export.refresh_from_db()
    assert (export.state, export.file_rows) == (ExportState.READY, 0)
    assert file_of(export).read_bytes().decode() == '"Id","Placed at"\r\n'


def test_doorbell_goes_on_with_what_else_may_run(alice: User, bob: User) -> None:
    exports = [ask(owner) for owner in (alice, bob, alice)]
    work(exports[2].steps.get().pk)
    assert set(Export.objects.values_list("state", flat=True)) == {ExportState.READY}


@pytest.mark.parametrize("hint", [None, "7", "'; DROP TABLE", {}, {"id": 1}, [1], 1.5, True, -1, 0, 1 << 200, 10**9])
def test_hint_that_makes_no_sense_is_as_good_as_none(alice: User, hint: Any) -> None:
    export = ask(alice)
    work(hint)
    export.refresh_from_db()
    assert export.state == ExportState.READY


def test_doorbell_without_work_does_nothing(alice: User) -> None:
    ask(alice).steps.update(not_before=lifecycle.now() + timedelta(hours=1))
    before = everything()
    work(Step.objects.get().pk)
    assert everything() == before


def test_worker_gives_the_doorbell_back_when_its_slice_is_over(alice: User, settings: Settings) -> None:
    settings.SLICE_SECONDS = 0
    export = ask(alice)
    done = []
    for _ in range(4):
        work()
        done.append(states(export)[-1])
    assert done == [("chunk", "waiting"), ("assemble", "waiting"), ("notify", "waiting"), ("notify", "done")]


def test_celery_knows_the_task_by_the_name_that_is_rung(settings: Settings) -> None:
    assert celery.app.tasks[celery.TASK] == work
    assert work.ignore_result
    assert not work.acks_late


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_step_that_belongs_to_somebody_else_by_now_is_left_alone(
    alice: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    export = ask(alice)

    def do(step: Step, pulse: Pulse) -> None:
        Step.objects.filter(pk=step.pk).update(fence=step.fence + 1, worker="another")
        before.update(everything())
        finish(step)

    before: dict[str, list[dict[str, Any]]] = {}
    monkeypatch.setitem(STEPS, StepKind.PLAN, do)
    work()
    assert everything() == before
    assert export.steps.get().worker == "another"
    assert [record.levelname for record in caplog.records] == ["WARNING"], "it is nobody's mistake"


def test_mistake_of_ours_is_tried_again_and_told_to_operators_alone(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ask(alice)
    misbehave(monkeypatch, StepKind.PLAN, ZeroDivisionError("secret inside"))
    for attempt in range(1, 4):
        work()
        step = export.steps.order_by("pk")[0]
        assert step.attempts == attempt
        export.steps.update(not_before=lifecycle.now())
    export.refresh_from_db()
    assert (export.state, export.error) == (ExportState.FAILED, "Something went wrong on our side.")
    events = export.events.exclude(kind__in=["requested", "running", "mailed"])
    assert [event.kind for event in events] == ["failed", "retry", "retry"]
    for event in events:
        assert "secret inside" not in event.text
        assert "ZeroDivisionError: secret inside" in event.detail


def test_lasting_error_fails_at_once_with_its_sentence(alice: User, shop: Path) -> None:
    with contextlib.closing(sqlite3.connect(shop)) as connection:
        connection.execute("ALTER TABLE orders RENAME COLUMN placed_at TO placed")
    export = ask(alice)
    work()
    export.refresh_from_db()
    assert export.state == ExportState.FAILED
    assert export.error == "The table no longer has what this dataset names. An operator has to update the dataset."
    assert "placed_at" in export.events.get(kind="failed").detail


def test_source_that_is_not_there_fails_with_a_sentence(alice: User, shop: Path) -> None:
    shop.unlink()
    export = ask(alice)
    work()
    export.refresh_from_db()
    assert export.state == ExportState.FAILED
    assert str(shop) not in export.error


@pytest.mark.parametrize("error", [ExportError("Gone.", permanent=True), ZeroDivisionError(), ExportError("Later.")])
def test_error_of_a_step_that_was_lost_meanwhile_changes_nothing(
    alice: User, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    export = ask(alice)

    def do(step: Step, pulse: Pulse) -> None:
        lifecycle.cancel(export, alice, "Enough")
        before.update(everything())
        raise error

    before: dict[str, list[dict[str, Any]]] = {}
    monkeypatch.setitem(STEPS, StepKind.PLAN, do)
    work()
    assert everything() == before


def test_error_of_a_reader_that_was_killed_is_nobodys(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(alice)

    def do(step: Step, pulse: Pulse) -> None:
        pulse._lost.set()
        before.update(everything())
        raise ExportError("The database broke off.", permanent=True)

    before: dict[str, list[dict[str, Any]]] = {}
    monkeypatch.setitem(STEPS, StepKind.PLAN, do)
    work()
    assert everything() == before


def test_mail_that_fails_is_tried_again_and_the_file_stays(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    export = ask(alice)
    misbehave(monkeypatch, StepKind.NOTIFY, ExportError("The mail server did not take the mail."))
    work()
    export.refresh_from_db()
    assert export.state == ExportState.READY
    assert states(export)[-1] == ("notify", "waiting")


# --- rights -----------------------------------------------------------------------------------------------------------


def leave_the_group(alice: User) -> None:
    alice.groups.clear()


def be_disabled(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)


@pytest.mark.parametrize("kind", [StepKind.PLAN, StepKind.CHUNK, StepKind.ASSEMBLE])
@pytest.mark.parametrize("lose_the_right", [leave_the_group, be_disabled])
def test_export_whose_owner_lost_the_right_is_stopped_at_its_next_step(
    alice: User, monkeypatch: pytest.MonkeyPatch, lose_the_right: Callable[[User], None], kind: str
) -> None:
    lifecycle.hand_back(held(kind, alice))
    lose_the_right(alice)
    done: list[Step] = []
    monkeypatch.setitem(STEPS, kind, lambda step, pulse: done.append(step))
    work()
    assert done == []
    export = Export.objects.get()
    assert export.state == ExportState.CANCELLED
    told = export.events.latest("pk")
    assert (told.kind, told.text, told.actor) == ("cancelled", "Stopped: its owner may not export this any more.", None)
    assert lifecycle.claim("worker") is None


def test_export_that_would_show_more_rows_than_its_owner_may_see_now_is_stopped(alice: User) -> None:
    PersonAttribute.objects.create(person=alice, name="country", value="DE")
    PersonAttribute.objects.create(person=alice, name="country", value="FR")
    export = ask(alice, "regional")
    alice.export_attributes.filter(value="FR").delete()
    work()
    export.refresh_from_db()
    assert export.state == ExportState.CANCELLED


def test_outcome_is_mailed_even_to_who_may_not_export_any_more(alice: User, mailoutbox: list[EmailMessage]) -> None:
    lifecycle.hand_back(held(StepKind.NOTIFY, alice))
    alice.groups.clear()
    work()
    assert len(mailoutbox) == 1


def test_datasets_file_that_is_not_understood_puts_the_step_back(alice: User, desk: Path, settings: Settings) -> None:
    export = ask(alice)
    settings.DATASETS_FILE = desk / "broken.toml"  # as a worker sees it that starts with it
    settings.DATASETS_FILE.write_text("[datasets")
    work()
    step = export.steps.get()
    assert (step.state, step.attempts, step.crashes) == (StepState.WAITING, 1, 0)
    assert "DatasetError" in Event.objects.get(kind="retry").detail


# --- ending -----------------------------------------------------------------------------------------------------------


def test_worker_that_is_to_end_claims_nothing_more(alice: User, draining: Callable[[], None]) -> None:
    ask(alice)
    before = everything()
    draining()
    work()
    assert everything() == before


def test_worker_that_is_to_end_finishes_what_it_read_and_leaves_the_rest(
    alice: User, shop: Path, draining: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exportapp.engine.readers.sqlite.BATCH_ROWS", 10)
    export = ask(alice)
    finish(take(), rows=25)
    chunk = take()
    Step.objects.filter(pk=chunk.pk).update(range_json={"after": None, "upto": [50]})
    draining()
    tasks.run(Step.objects.select_related("export", "export__owner").get(pk=chunk.pk))
    celery._draining[0] = 0
    first, rest = export.steps.filter(kind=StepKind.CHUNK)
    assert (first.state, first.rows_done, rest.state, rest.key_range.after) == ("done", 10, "waiting", (20,))
    work()
    export.refresh_from_db()
    assert (export.state, file_of(export).read_bytes().decode()) == (ExportState.READY, CSV)


@pytest.mark.parametrize(("kind", "dataset"), [(StepKind.ASSEMBLE, "orders"), (StepKind.CHUNK, "revenue")])
def test_step_that_cannot_stop_half_way_is_handed_back(
    alice: User, shop: Path, settings: Settings, draining: Callable[[], None], kind: str, dataset: str
) -> None:
    with contextlib.closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("INSERT INTO revenue VALUES ('2026-01-05', 10), ('2026-01-06', 20)")
    settings.SLICE_SECONDS = 0
    export = ask(alice, dataset)
    while (step := take()).kind != kind:
        tasks.run(step)
    draining()
    tasks.run(step)
    step.refresh_from_db()
    assert (step.state, step.attempts) == (StepState.WAITING, 0)
    celery._draining[0] = 0
    settings.SLICE_SECONDS = 60
    work()
    export.refresh_from_db()
    assert export.state == ExportState.READY


def test_no_thread_is_started_where_a_pool_will_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(HEART, "start", lambda: started.append("heart"))

    class Prefork:
        pool = object()

    class Threads:
        pool = tasks.TaskPool.__new__(tasks.TaskPool)

    tasks._process_is_alive(sender=Prefork)
    assert started == []
    tasks._process_is_alive(sender=Threads)
    tasks._child_is_alive()
    assert started == ["heart", "heart"]
