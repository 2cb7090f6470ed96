"""What each kind of step does by itself: names that carry the fence, a receipt that adds up, one mail per outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.mail import EmailMessage
from django.db import OperationalError
from pytest_django import Settings

from exportapp import lifecycle, receipts, storage
from exportapp.engine.errors import ExportError, LeaseLost
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.sinks.base import Store
from exportapp.models import Export, ExportState, Step, StepKind, StepState
from tests.scenes import ask, file_of, held, take
from worker import steps
from worker.heart import Pulse
from worker.steps import STEPS

pytestmark = pytest.mark.usefixtures("shop")


def do(step: Step) -> Step:
    """Does a step, and gives it as it is after."""
    STEPS[step.kind](step, Pulse(step))
    return Step.objects.select_related("export").get(pk=step.pk)


def worked(owner: User, kind: str, **recipe: Any) -> Step:
    """A running step of that kind, after the ones before it were really done."""
    ask(owner, **recipe)
    while (step := take()).kind != kind:
        do(step)
    return step


def names(step: Step) -> list[str]:
    store: Store = storage.store()
    return [name.removeprefix(f"{step.export.folder}/") for name in store.names(step.export.folder)]


@pytest.fixture
def comments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The comments that the reader's queries carry."""
    seen: list[str] = []
    plan, stream = SQLiteReader.plan, SQLiteReader.stream

    def noted_plan(self: SQLiteReader, query: Any, rows: int, comment: str) -> Any:
        seen.append(comment)
        return plan(self, query, rows, comment)

    def noted_stream(self: SQLiteReader, query: Any, key_range: Any, comment: str, runs: Any) -> Iterator[Any]:
        seen.append(comment)
        return stream(self, query, key_range, comment, runs)

    monkeypatch.setattr(SQLiteReader, "plan", noted_plan)
    monkeypatch.setattr(SQLiteReader, "stream", noted_stream)
    return seen


def test_queries_say_for_which_step_and_fence_they_run(alice: User, comments: list[str]) -> None:
    chunk = worked(alice, StepKind.CHUNK)
    do(chunk)
    plan = chunk.export.steps.get(kind=StepKind.PLAN)
    assert comments == [f"exportapp export={chunk.export_id} step={step.pk} fence=1" for step in (plan, chunk)]


def test_pieces_and_file_carry_the_fence_of_who_wrote_them(alice: User) -> None:
    chunk = worked(alice, StepKind.CHUNK)
    lifecycle.hand_back(chunk)
    chunk = take()
    do(chunk)
    assert names(chunk) == [f"pieces/{0:020d}-{chunk.pk}-2"]
    assemble = take()
    lifecycle.hand_back(assemble)
    assemble = do(take())
    assert assemble.export.file_name == f"{chunk.export_id}/2/file.csv"
    assert file_of(assemble.export).exists()


def test_chunk_that_reads_more_rows_than_its_dataset_allows_gives_up(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planned number may be too low, and a dataset without a key is read in one go."""
    monkeypatch.setattr("exportapp.engine.readers.sqlite.BATCH_ROWS", 10)
    step = worked(alice, StepKind.CHUNK)
    step.export.definition["max_rows"] = 15
    with pytest.raises(ExportError, match="More than 15 rows") as caught:
        do(step)
    assert caught.value.permanent
    assert names(step) == []


def test_file_that_is_shorter_in_the_store_is_not_published(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    step = worked(alice, StepKind.ASSEMBLE)
    monkeypatch.setattr(type(storage.store()), "size", lambda store, name: 1)
    with pytest.raises(ExportError, match=r"1 of .* bytes are in the store") as caught:
        do(step)
    assert not caught.value.permanent
    assert Export.objects.get().state == ExportState.RUNNING


def test_only_the_first_part_has_the_header(alice: User, settings: Settings) -> None:
    settings.CHUNK_ROWS = 9
    step = worked(alice, StepKind.ASSEMBLE)
    pieces = [b"".join(storage.store().read(f"{step.export.folder}/{name}")) for name in names(step)]
    assert [piece.startswith(b'"Id"') for piece in pieces] == [True, False, False]


@pytest.mark.parametrize(("dataset", "parts"), [("orders", 3), ("products", 1)])
def test_receipt_adds_up(alice: User, settings: Settings, dataset: str, parts: int) -> None:
    settings.CHUNK_ROWS = 9
    export = do(worked(alice, StepKind.ASSEMBLE, dataset=dataset)).export
    receipt, content = export.receipt, file_of(export).read_bytes()
    assert receipt is not None
    assert (receipt["rows"], receipt["bytes"]) == (export.file_rows, len(content))
    assert receipt["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(receipt["parts"]) == parts
    end = 0
    for part in receipt["parts"]:
        assert part["from"] == end
        end += part["bytes"]
        assert part["sha256"] == hashlib.sha256(content[part["from"] : end]).hexdigest()
    assert end == len(content)
    assert sum(part["rows"] for part in receipt["parts"]) == export.file_rows
    asked = {name: value for name, value in export.recipe_json.items() if name != "consistency"}
    assert (receipt["recipe"], receipt["user"]) == (asked, "alice")
    assert receipt["consistency"] == (receipts.SNAPSHOT if parts == 1 else receipts.CHUNKED)
    assert receipt["read_from"] <= receipt["read_until"]
    assert receipt["times"] == "as stored"


def test_damaged_piece_makes_no_file(alice: User) -> None:
    step = worked(alice, StepKind.ASSEMBLE)
    [piece] = names(step)
    path = storage.store().path(f"{step.export.folder}/{piece}")  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes().replace(b"24,", b"25,"))
    with pytest.raises(ExportError, match="damaged") as error:
        do(step)
    assert error.value.permanent
    assert names(step) == [piece]


def test_file_of_who_lost_the_step_at_the_last_moment_is_deleted(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    step = worked(alice, StepKind.ASSEMBLE)
    pieces = names(step)
    make_ready = lifecycle.make_ready

    def cancelled_first(*args: Any) -> None:
        assert len(names(step)) == len(pieces) + 1
        lifecycle.cancel(step.export, alice, "Enough")
        make_ready(*args)

    monkeypatch.setattr(lifecycle, "make_ready", cancelled_first)
    with pytest.raises(LeaseLost):
        do(step)
    assert names(step) == pieces


@pytest.mark.parametrize("kind", [StepKind.PLAN, StepKind.CHUNK, StepKind.ASSEMBLE])
def test_step_that_was_lost_before_it_began_writes_nothing(alice: User, kind: str) -> None:
    step = worked(alice, kind)
    before = names(step)
    pulse = Pulse(step)
    pulse._lost.set()
    with pytest.raises(LeaseLost):
        STEPS[kind](step, pulse)
    assert names(step) == before
    step.refresh_from_db()
    assert step.state == "running"


@pytest.mark.parametrize(("kind", "work"), [(StepKind.CHUNK, "run_here"), (StepKind.ASSEMBLE, "join_pieces")])
def test_step_whose_lease_could_be_over_by_now_records_nothing(
    alice: User, monkeypatch: pytest.MonkeyPatch, kind: str, work: str
) -> None:
    step = worked(alice, kind)
    pulse, real = Pulse(step), getattr(steps, work)

    def slow(*args: Any, **more: Any) -> Any:
        result = real(*args, **more)
        pulse._beaten -= 46  # the database was silent for so long; the step may still be ours, or not
        return result

    monkeypatch.setattr(steps, work, slow)
    with pytest.raises(LeaseLost):
        STEPS[kind](step, pulse)
    step.refresh_from_db()
    assert (step.state, step.export.state) == ("running", ExportState.RUNNING)


def test_progress_is_what_the_chunk_has_read(alice: User) -> None:
    step = worked(alice, StepKind.CHUNK)
    pulse = Pulse(step)
    STEPS[StepKind.CHUNK](step, pulse)
    step.refresh_from_db()
    assert (pulse.rows, pulse.bytes) == (step.rows_done, step.bytes_done) == (25, step.bytes_done)
    assert pulse.bytes > 100


# --- mails ------------------------------------------------------------------------------------------------------------


def test_each_outcome_has_its_mail(alice: User, mailoutbox: list[EmailMessage]) -> None:
    do(held(StepKind.NOTIFY, alice))
    failing = held(StepKind.PLAN, alice)
    lifecycle.fail_step(failing, ExportError("The table is gone.", permanent=True))
    do(take())
    assert [mail.subject for mail in mailoutbox] == ["Ready: Orders", "Not exported: Orders"]


def test_mail_that_could_not_be_noted_is_noted_later_and_not_sent_again(
    alice: User, mailoutbox: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = held(StepKind.NOTIFY, alice)
    answers = iter([OperationalError(2013, "Lost connection"), OperationalError(2006, "gone")])
    note, waits = lifecycle.finish_notify, []

    def noting(*args: Any) -> None:
        if error := next(answers, None):
            raise error
        note(*args)

    monkeypatch.setattr(lifecycle, "finish_notify", noting)
    monkeypatch.setattr(steps.time, "sleep", waits.append)
    steps.notify(step, Pulse(step))
    step.refresh_from_db()
    assert (step.state, len(mailoutbox), waits) == (StepState.DONE, 1, [1, 1])


def test_mail_that_cannot_be_noted_as_long_as_the_step_is_held_is_somebody_elses(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = held(StepKind.NOTIFY, alice)
    pulse = Pulse(step)

    def away(*_: Any) -> None:
        raise OperationalError(2006, "gone")

    monkeypatch.setattr(lifecycle, "finish_notify", away)
    monkeypatch.setattr(steps.time, "sleep", lambda _: pulse._lost.set())
    with pytest.raises(LeaseLost):
        steps.notify(step, pulse)


@pytest.mark.parametrize("change", [{"email": ""}, {"is_active": False}])
def test_person_without_an_address_or_an_account_gets_no_mail_and_the_history_says_so(
    alice: User, mailoutbox: list[EmailMessage], change: dict[str, Any]
) -> None:
    User.objects.filter(pk=alice.pk).update(**change)
    step = do(held(StepKind.NOTIFY, alice))
    assert (step.state, mailoutbox) == ("done", [])
    assert step.export.events.latest("pk").text == "No mail: the account is closed or has no address"


def test_mail_about_a_file_that_expired_meanwhile_says_that_it_was_ready(
    alice: User, mailoutbox: list[EmailMessage]
) -> None:
    step = held(StepKind.NOTIFY, alice)
    step.export.state = ExportState.EXPIRED
    do(step)
    assert [mail.subject for mail in mailoutbox] == ["Ready: Orders"]
