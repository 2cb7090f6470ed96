"""The lifecycle by itself: its table holds for every verb from every state, only who holds a step may write to it, and
each change has its event or did not happen."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError, transaction
from django.db.models import F, Model
from pytest_django import Settings

from exportapp import datasets, lifecycle
from exportapp.engine.errors import ExportError, LeaseLost
from exportapp.engine.specs import FileResult, KeyRange, Recipe
from exportapp.lifecycle import EXPORT_MOVES, REMAINDERS, STEP_MOVES
from exportapp.models import Event, Export, ExportState, PersonAttribute, Process, Step, StepKind, StepState
from tests.scenes import DATASETS, ask, everything, finish, held, in_state, piece, planned, take

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.usefixtures("desk")

PASSING = ExportError("The database did not answer.", detail="MySQL 2013")
LASTING = ExportError("The table is gone.", permanent=True, detail="MySQL 1146")


def kinds() -> list[str]:
    """The kinds of all events, in the order in which they were written."""
    return list(Event.objects.order_by("pk").values_list("kind", flat=True))


TOO_MUCH = "More than %s: that is the most to be exported at once. Choose a shorter range or add a condition."


def fresh(row: Any) -> Any:
    return type(row).objects.get(pk=row.pk)


def change(row: Model, **values: Any) -> None:
    """Changes a row behind the lifecycle's back."""
    type(row)._default_manager.filter(pk=row.pk).update(**values)


def declare(desk: Path, **orders: Any) -> None:
    """The datasets file with other facts about orders."""
    lines = "\n".join(f"{name} = {value}" for name, value in orders.items())
    (desk / "datasets.toml").write_text(DATASETS.replace("max_days = 100", lines))


# --- the table --------------------------------------------------------------------------------------------------------

WRITING = {"update", "create", "get_or_create", "update_or_create", "bulk_update", "setattr", "Export", "Step"}
SQL = {"execute", "executemany", "cursor", "raw", "RawSQL", "extra"}
SOURCES = [
    path.relative_to(ROOT)
    for room in ("exportapp", "worker")
    for path in (ROOT / room).rglob("*.py")
    if "migrations" not in path.parts
]


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def writes_a_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(target, ast.Attribute) and target.attr == "state" for target in targets)
    if isinstance(node, ast.Call) and called(node) in WRITING:
        texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
        return "state" in texts or any(keyword.arg == "state" for keyword in node.keywords)
    return False


def test_only_two_functions_write_states_and_both_take_them_from_the_table() -> None:
    writers = set()
    for path in SOURCES:
        for function in ast.walk(ast.parse((ROOT / path).read_text())):
            if any(writes_a_state(node) for node in ast.iter_child_nodes(function) for node in ast.walk(node)):
                writers.add((str(path), getattr(function, "name", "")))
    assert writers - {("exportapp/lifecycle.py", "")} == {
        ("exportapp/lifecycle.py", "_move_export"),
        ("exportapp/lifecycle.py", "_move_steps"),
    }


def test_no_module_that_knows_the_models_has_sql_of_its_own() -> None:
    for path in SOURCES:
        text = (ROOT / path).read_text()
        if "exportapp.models" in text or "django.db" in text:
            calls = [called(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
            assert not SQL & set(calls), path


def test_every_move_of_the_table_is_some_verbs() -> None:
    tree = ast.parse((ROOT / "exportapp/lifecycle.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    texts = {text.value for call in calls for text in ast.walk(call) if isinstance(text, ast.Constant)}
    assert set(EXPORT_MOVES) | set(STEP_MOVES) <= texts


def test_states_that_end_an_export_or_a_step_have_no_way_out() -> None:
    ways_out = {before for befores, _ in EXPORT_MOVES.values() for before in befores}
    assert set(ExportState.values) - ways_out == {"failed", "cancelled", "expired"}
    ways_out = {before for befores, _ in STEP_MOVES.values() for before in befores}
    assert set(StepState.values) - ways_out == {"done", "failed", "dropped"}


# --- every verb from every state --------------------------------------------------------------------------------------

Verb = Callable[[Step], object]

# What the holder of a running step may say: the step's kind, the verb, and the move that it is.
HOLDERS: dict[str, tuple[str, Verb, str]] = {
    "finish_plan": (StepKind.PLAN, finish, "finish"),
    "finish_chunk": (StepKind.CHUNK, finish, "finish"),
    "finish_chunk, with a rest": (StepKind.CHUNK, lambda step: lifecycle.finish_chunk(step, piece(4, (7,))), "finish"),
    "make_ready": (StepKind.ASSEMBLE, finish, "finish"),
    "finish_notify": (StepKind.NOTIFY, finish, "finish"),
    "hand_back": (StepKind.CHUNK, lifecycle.hand_back, "yield"),
    "fail_step": (StepKind.CHUNK, lambda step: lifecycle.fail_step(step, PASSING), "retry"),
    "fail_step, for good": (StepKind.CHUNK, lambda step: lifecycle.fail_step(step, LASTING), "fail"),
}
holders = pytest.mark.parametrize(("kind", "verb", "move"), HOLDERS.values(), ids=HOLDERS.keys())
others = pytest.mark.parametrize("state", [state for state in StepState.values if state != StepState.RUNNING])


@holders
def test_holder_moves_a_running_step(alice: User, kind: str, verb: Verb, move: str) -> None:
    step = held(kind, alice)
    verb(step)
    assert (fresh(step).state, fresh(step).lease_until) == (STEP_MOVES[move][1], None)


@others
@holders
def test_holder_of_what_does_not_run_changes_nothing(alice: User, kind: str, verb: Verb, move: str, state: str) -> None:
    step = held(kind, alice)
    change(step, state=state)
    before = everything()
    with pytest.raises(LeaseLost):
        verb(step)
    assert everything() == before


@holders
def test_holder_under_an_old_fence_changes_nothing(alice: User, kind: str, verb: Verb, move: str) -> None:
    step = held(kind, alice)
    change(step, fence=F("fence") + 1)
    before = everything()
    with pytest.raises(LeaseLost):
        verb(step)
    assert everything() == before


@holders
def test_holder_whose_export_was_cancelled_changes_nothing(alice: User, kind: str, verb: Verb, move: str) -> None:
    step = held(kind, alice)
    if not lifecycle.cancel(step.export, alice, "Enough"):
        assert kind == StepKind.NOTIFY
        return
    before = everything()
    with pytest.raises(LeaseLost):
        verb(step)
    assert everything() == before


@others
def test_what_does_not_run_has_no_heartbeat(alice: User, state: str) -> None:
    step = held(StepKind.CHUNK, alice)
    change(step, state=state)
    before = everything()
    assert not lifecycle.beat(step, 5, 500)
    assert everything() == before


def test_heartbeat_extends_the_lease_and_writes_the_progress(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    change(step, lease_until=lifecycle.now())
    assert lifecycle.beat(step, 5, 500)
    now = fresh(step)
    assert (now.rows_done, now.bytes_done, now.fence) == (5, 500, step.fence)
    assert now.lease_until > lifecycle.now() + timedelta(seconds=30)


def test_heartbeat_under_an_old_fence_changes_nothing(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    change(step, fence=F("fence") + 1)
    before = everything()
    assert not lifecycle.beat(step, 5, 500)
    assert everything() == before


@pytest.mark.parametrize("state", StepState.values)
def test_claim_takes_what_waits_and_nothing_else(alice: User, state: str) -> None:
    step = ask(alice).steps.get()
    change(step, state=state)
    before = everything()
    claimed = lifecycle.claim("worker")
    assert (claimed == step) == (state == StepState.WAITING)
    assert claimed or everything() == before


@pytest.mark.parametrize("state", StepState.values)
def test_lost_is_what_runs_after_its_lease(alice: User, state: str) -> None:
    step = held(StepKind.CHUNK, alice)
    change(step, state=state, lease_until=lifecycle.now() - timedelta(seconds=1))
    before = everything()
    if state == StepState.RUNNING:
        assert lifecycle.take_back_lost() == 1
        assert fresh(step).state == StepState.WAITING
    else:
        assert lifecycle.take_back_lost() == 0
        assert everything() == before


@pytest.mark.parametrize("state", ExportState.values)
def test_cancel_ends_what_is_unfinished_and_nothing_else(alice: User, bob: User, state: str) -> None:
    export = in_state(alice, state)
    before = everything()
    cancelled = lifecycle.cancel(export, bob, "Cancelled by bob")
    assert cancelled == (state in EXPORT_MOVES["cancel"][0])
    if not cancelled:
        assert everything() == before
        return
    now = fresh(export)
    assert (now.state, now.error, now.finished_at is not None) == (ExportState.CANCELLED, "", True)
    assert [step.state for step in now.steps.all()] == [StepState.DROPPED]
    event = now.events.get(kind="cancelled")
    assert (event.actor, event.text) == (bob, "Cancelled by bob")


@pytest.mark.parametrize("state", ExportState.values)
def test_time_expires_what_is_ready_and_nothing_else(alice: User, state: str) -> None:
    export = in_state(alice, state)
    change(export, expires_at=lifecycle.now() - timedelta(seconds=1), tidied=True)
    before = everything()
    expired = lifecycle.expire_due()
    if state == ExportState.READY:
        assert expired == [export]
        assert (fresh(export).state, fresh(export).tidied) == (ExportState.EXPIRED, False)
    else:
        assert expired == []
        assert everything() == before


def test_file_is_kept_until_its_time_is_over(alice: User) -> None:
    in_state(alice, ExportState.READY)
    before = everything()
    assert lifecycle.expire_due() == []
    assert everything() == before


@pytest.mark.parametrize("state", [state for state in ExportState.values if state != ExportState.RUNNING])
def test_only_a_running_export_becomes_ready(alice: User, state: str) -> None:
    step = held(StepKind.ASSEMBLE, alice)
    change(step.export, state=state)
    before = everything()
    with pytest.raises(LeaseLost):
        finish(step)
    assert everything() == before


# --- events -----------------------------------------------------------------------------------------------------------


def test_history_of_an_export_that_goes_well_has_each_change_once(alice: User) -> None:
    export = ask(alice)
    while step := lifecycle.claim("worker"):
        finish(step, parts=3)
    assert kinds() == ["requested", "running", "planned", "ready", "mailed"]
    texts = list(export.events.order_by("pk").values_list("text", flat=True))
    assert texts == [
        "Asked for by alice",
        "Started",
        "To be read: 30 rows in 3 parts",
        "Ready: 30 rows, checked against every part",
        "The mail was sent",
    ]


def test_history_tells_when_another_number_of_rows_was_counted_before(alice: User) -> None:
    step = held(StepKind.PLAN, alice)
    lifecycle.finish_plan(step, planned(parts=3, rows=31))
    while following := lifecycle.claim("worker"):
        finish(following)
    ready = step.export.events.get(kind="ready")
    assert ready.text == "Ready: 30 rows, checked against every part; 31 were counted before"


CHANGES: dict[str, Verb] = {
    "retry": lambda step: lifecycle.fail_step(step, PASSING),
    "failed": lambda step: lifecycle.fail_step(step, LASTING),
    "cancelled": lambda step: lifecycle.cancel(step.export, None, "Enough"),
    "taken back": lambda step: lose(step),
    "downloaded": lambda step: lifecycle.note_download(step.export, step.export.owner),
}


def lose(step: Step, crashes: int = 0) -> None:
    """A step's worker dies, and the sweep comes after the end of its lease."""
    change(step, lease_until=lifecycle.now() - timedelta(seconds=1), crashes=crashes)
    lifecycle.take_back_lost()


@pytest.mark.parametrize(("kind", "verb"), CHANGES.items(), ids=CHANGES.keys())
def test_change_writes_one_event(alice: User, kind: str, verb: Verb) -> None:
    step = held(StepKind.CHUNK, alice)
    before = kinds()
    verb(step)
    assert kinds() == [*before, kind]


def seen(step: Step, seconds: float) -> None:
    """The step's worker was seen so long after the end of the lease that `lose` gives it."""
    at = lifecycle.now() - timedelta(seconds=1) + timedelta(seconds=seconds)
    Process.objects.create(name=f"worker {step.worker}", kind="worker", started_at=at, seen_at=at)


@pytest.mark.parametrize(("seconds", "crashes"), [(0.5, 0), (-0.5, 1)])
def test_worker_that_lives_on_after_its_lease_did_not_crash(alice: User, seconds: float, crashes: int) -> None:
    """The database was away for longer than the lease."""
    step = held(StepKind.CHUNK, alice)
    seen(step, seconds)
    lose(step)
    assert (fresh(step).state, fresh(step).crashes) == (StepState.WAITING, crashes)


def test_step_that_no_worker_gets_on_with_is_given_up_though_none_crashed(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    seen(step, 0.5)
    change(step, attempts=settings.RETRIES)
    step.refresh_from_db()
    lose(step)
    assert fresh(step).state == StepState.FAILED
    assert fresh(step.export).error == "This export did not get on and was given up. An operator can see why."


def test_mail_is_tried_for_its_day_whatever_became_of_a_lease(alice: User) -> None:
    step = held(StepKind.NOTIFY, alice)
    seen(step, 0.5)
    change(step, attempts=settings.RETRIES)
    lose(step)
    assert fresh(step).state == StepState.WAITING


def test_step_that_is_given_up_for_its_crashes_writes_one_event(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    before = kinds()
    lose(step, crashes=2)
    assert kinds() == [*before, "failed"]


def test_expiry_writes_one_event(alice: User) -> None:
    change(in_state(alice, ExportState.READY), expires_at=lifecycle.now() - timedelta(seconds=1))
    before = kinds()
    lifecycle.expire_due()
    assert kinds() == [*before, "expired"]


SPOKEN: dict[str, tuple[str, Verb]] = {
    **{name: (kind, verb) for name, (kind, verb, move) in HOLDERS.items() if "chunk" not in name and move != "yield"},
    **{name: (StepKind.CHUNK, verb) for name, verb in CHANGES.items()},
}


@pytest.mark.parametrize(("kind", "verb"), SPOKEN.values(), ids=SPOKEN.keys())
def test_change_whose_event_cannot_be_written_did_not_happen(
    alice: User, monkeypatch: pytest.MonkeyPatch, kind: str, verb: Verb
) -> None:
    step = held(kind, alice)
    if verb is CHANGES["taken back"]:
        change(step, lease_until=lifecycle.now() - timedelta(seconds=1))
        verb = lambda _: lifecycle.take_back_lost()  # noqa: E731
    before = everything()
    no_events(monkeypatch)
    with pytest.raises(DiskFull):
        verb(step)
    assert everything() == before


def test_request_claim_and_expiry_whose_event_cannot_be_written_did_not_happen(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(in_state(alice, ExportState.READY), expires_at=lifecycle.now() - timedelta(seconds=1))
    Step.objects.all().delete()
    ask(alice)
    before = everything()
    no_events(monkeypatch)
    for verb in (lambda: ask(alice), lambda: lifecycle.claim("worker"), lifecycle.expire_due):
        with pytest.raises(DiskFull):
            verb()
        assert everything() == before


class DiskFull(Exception):
    pass


def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DiskFull

    monkeypatch.setattr(Event.objects, "create", refuse)


def test_what_a_caller_rolls_back_leaves_no_event(alice: User) -> None:
    before = everything()
    with transaction.atomic():
        ask(alice)
        transaction.set_rollback(True)
    assert everything() == before


def test_events_are_never_changed(alice: User) -> None:
    event = ask(alice).events.get()
    event.text = "It was bob"
    with pytest.raises(TypeError):
        event.save()
    with pytest.raises(TypeError):
        Event.objects.filter(pk=event.pk).update(text="It was bob")
    with pytest.raises(TypeError), transaction.atomic():
        Event.objects.bulk_update([event], ["text"])
    with pytest.raises(TypeError):
        event.delete()
    with pytest.raises(TypeError):
        Event.objects.all().delete()
    assert fresh(event).text == "Asked for by alice"


# --- asking -----------------------------------------------------------------------------------------------------------


def request(owner: User, key: str, dataset: str = "orders", **more: Any) -> Export:
    declared = datasets.catalogue().datasets[dataset]
    return lifecycle.request(owner, declared, Recipe(dataset, ("id",)), request_key=key, **more)


def test_same_key_of_the_same_owner_is_one_export(alice: User, bob: User) -> None:
    first = request(alice, "k", name="First")
    before = everything()
    assert request(alice, "k", name="Second") == first
    assert everything() == before
    assert request(bob, "k") != first
    assert request(alice, "l") != first


def test_request_has_a_plan_step_that_may_run_at_once(alice: User) -> None:
    export = request(alice, "k")
    [step] = export.steps.all()
    assert (step.kind, step.state, step.not_before) == (StepKind.PLAN, StepState.WAITING, export.created_at)
    assert (export.state, export.name, export.notify) == (ExportState.QUEUED, "Orders", True)


def test_who_may_not_export_the_dataset_is_told_and_nothing_is_written(charlie: User, alice: User) -> None:
    alice.is_active = False
    for person in (charlie, alice):
        before = everything()
        with pytest.raises(ExportError) as refused:
            request(person, "k")
        assert (refused.value.sentence, refused.value.permanent) == ("You may not export Orders.", True)
        assert everything() == before


def test_operator_asks_in_the_name_of_the_owner_and_the_history_says_so(alice: User, root: User) -> None:
    export = request(alice, "k", actor=root)
    assert export.owner == alice
    assert [(event.actor, event.text) for event in export.events.all()] == [(root, "Asked for by root")]


def test_changed_datasets_file_changes_nothing_in_an_export_under_way(alice: User, desk: Path) -> None:
    declare(desk, max_rows=20, keep_days=3)
    fits, too_big = ask(alice), ask(alice)
    frozen = [(fresh(export).definition, fresh(export).query_json) for export in (fits, too_big)]
    declare(desk, max_rows=5, keep_days=300)
    assert datasets.catalogue().datasets["orders"].max_rows == 5

    while step := lifecycle.claim("worker"):
        finish(step, parts=2, rows=10 if step.export == fits else 11)
    assert [(fresh(export).definition, fresh(export).query_json) for export in (fits, too_big)] == frozen
    assert fresh(fits).expires_at - fresh(fits).finished_at == timedelta(days=3)
    assert (fresh(fits).state, fresh(too_big).state) == (ExportState.READY, ExportState.FAILED)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_further_exports_of_a_person_are_refused_and_those_of_others_not(
    alice: User, bob: User, settings: Settings
) -> None:
    settings.EXPORTS_PER_PERSON = 2
    first, second = ask(alice), ask(alice)
    before = everything()
    with pytest.raises(lifecycle.OverLimit, match=r"You have as many exports under way as .* \(2\)"):
        ask(alice)
    assert everything() == before
    ask(bob)
    lifecycle.cancel(first, alice, "Cancelled")
    ask(alice)
    with pytest.raises(lifecycle.OverLimit):
        lifecycle.run_again(first, alice)
    assert second.request_key != first.request_key


def test_the_same_request_again_is_no_further_one(alice: User, settings: Settings) -> None:
    settings.EXPORTS_PER_PERSON = 1
    export = ask(alice)
    declared = datasets.catalogue().datasets["orders"]
    assert lifecycle.request(alice, declared, export.recipe, request_key=export.request_key) == export


def test_desk_takes_so_many_exports_and_no_more(alice: User, bob: User, settings: Settings) -> None:
    settings.EXPORTS_IN_ALL = 1
    ask(alice)
    with pytest.raises(lifecycle.OverLimit, match="The export desk has as many exports to do as it takes"):
        ask(bob)


@pytest.mark.parametrize(("limit", "whose"), [("ROWS", "PERSON"), ("MB", "PERSON"), ("ROWS", "ALL"), ("MB", "ALL")])
def test_who_has_as_much_in_finished_files_as_is_kept_is_refused_until_one_expires(
    alice: User, bob: User, settings: Settings, limit: str, whose: str
) -> None:
    export = in_state(alice, ExportState.READY)
    change(export, file_rows=100, file_bytes=100 << 20)
    setattr(settings, f"{limit}_{'PER_PERSON' if whose == 'PERSON' else 'IN_ALL'}", 100)
    with pytest.raises(lifecycle.OverLimit, match=f"hold 100 {limit.replace('ROWS', 'rows')}, and 100 is the most"):
        ask(alice)
    if whose == "PERSON":
        ask(bob)
    else:
        with pytest.raises(lifecycle.OverLimit):
            ask(bob)
    change(export, state=ExportState.EXPIRED)
    ask(alice)


# --- planning ---------------------------------------------------------------------------------------------------------


def test_plan_makes_a_chunk_of_each_range_in_their_order(alice: User) -> None:
    step = held(StepKind.PLAN, alice)
    lifecycle.finish_plan(step, planned(parts=3, rows=100))
    chunks = list(step.export.steps.filter(kind=StepKind.CHUNK))
    assert [chunk.key_range for chunk in chunks] == list(planned(3).ranges)
    assert [chunk.position for chunk in chunks] == [0, REMAINDERS, 2 * REMAINDERS]
    assert {(chunk.state, chunk.rows_estimated) for chunk in chunks} == {(StepState.WAITING, 34)}
    export = fresh(step.export)
    assert (export.chunks_left, export.rows_estimated, export.rows_exact, export.small) == (3, 100, True, True)


@pytest.mark.parametrize(("rows", "small"), [(99_999, True), (100_000, False)])
def test_plan_says_whether_the_export_is_small(alice: User, rows: int, small: bool) -> None:
    step = held(StepKind.PLAN, alice)
    lifecycle.finish_plan(step, planned(rows=rows, exact=False))
    assert (fresh(step.export).small, fresh(step.export).rows_exact) == (small, False)
    assert step.export.events.latest("pk").text == f"To be read: about {rows:,} rows in one part"


TOO_MANY = "More than 20 rows: that is the most to be exported at once. Choose a shorter range or add a condition."


@pytest.mark.parametrize(
    ("rows", "exact", "most", "refused"),
    [
        (20, True, 20, False),
        (21, True, 20, True),
        (300_000, False, 20, True),  # estimates are made only of what has more than 200,000
        (300_000, False, 200_000, True),
        (300_000, False, 200_001, False),
        (0, True, 20, False),
    ],
)
def test_export_is_refused_that_has_too_many_rows_for_certain(
    alice: User, desk: Path, rows: int, exact: bool, most: int, refused: bool
) -> None:
    declare(desk, max_rows=most)
    step = held(StepKind.PLAN, alice)
    lifecycle.finish_plan(step, planned(2, rows, exact))
    export = fresh(step.export)
    waiting = export.steps.filter(state=StepState.WAITING).values_list("kind", flat=True)
    if refused:
        assert (export.state, export.error) == (ExportState.FAILED, TOO_MUCH % f"{most:,} rows")
        assert list(waiting) == [StepKind.NOTIFY]
        assert kinds() == ["requested", "running", "failed"]
    else:
        assert (export.state, export.error) == (ExportState.RUNNING, "")
        assert list(waiting) == [StepKind.CHUNK, StepKind.CHUNK]


def test_export_whose_parts_are_more_than_its_dataset_allows_together_is_ended(alice: User, desk: Path) -> None:
    declare(desk, max_mb=3)
    export = held(StepKind.CHUNK, alice, parts=3).export
    first, second = export.steps.filter(kind=StepKind.CHUNK)[:2]
    lifecycle.finish_chunk(first, replace(piece(1), bytes=3 << 20))
    assert fresh(export).state == ExportState.RUNNING
    lifecycle.finish_chunk(take(), replace(piece(1), bytes=1 << 20))
    assert (fresh(export).state, fresh(export).error) == (ExportState.FAILED, TOO_MUCH % "3 MB")
    assert fresh(second).state == StepState.DONE


# --- chunks -----------------------------------------------------------------------------------------------------------


def test_what_a_chunk_leaves_over_is_a_step_between_it_and_the_next(alice: User) -> None:
    step = held(StepKind.CHUNK, alice, parts=2, rows=10)
    lifecycle.finish_chunk(step, piece(4, last_key=(7,)))
    first, rest, second = step.export.steps.filter(kind=StepKind.CHUNK)
    assert (first.state, first.rows_done, first.bytes_done) == (StepState.DONE, 4, 400)
    assert (rest.state, rest.key_range, rest.rows_estimated) == (StepState.WAITING, KeyRange((7,), (10,)), 6)
    assert rest.position == first.position + 1, "position 0 alone has the header"
    assert second.key_range == KeyRange((10,), (20,))
    assert fresh(step.export).chunks_left == 2


def test_rest_that_cannot_be_written_leaves_the_chunk_unfinished(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    step = held(StepKind.CHUNK, alice)
    before = everything()

    def refuse(*_: Any) -> None:
        raise DiskFull

    monkeypatch.setattr(Step, "save", refuse)
    with pytest.raises(DiskFull):
        lifecycle.finish_chunk(step, piece(4, (7,)))
    assert everything() == before


def test_last_of_several_finishers_makes_the_one_assemble_step(alice: User) -> None:
    first = held(StepKind.CHUNK, alice, parts=3)
    second, third = take(), take()  # all three hold the export as it was when they claimed

    def assembles() -> int:
        return first.export.steps.filter(kind=StepKind.ASSEMBLE).count()

    lifecycle.finish_chunk(second, piece())
    lifecycle.finish_chunk(first, piece(4, (7,)))
    lifecycle.finish_chunk(third, piece())
    assert assembles() == 0
    rest = take()
    lifecycle.finish_chunk(rest, piece(6))
    assert (assembles(), fresh(first.export).chunks_left) == (1, 0)
    for done in (first, second, third, rest):
        with pytest.raises(LeaseLost):
            lifecycle.finish_chunk(done, piece())
    assert (assembles(), fresh(first.export).chunks_left) == (1, 0)
    assert take().kind == StepKind.ASSEMBLE


def test_export_that_turns_out_to_have_too_many_rows_fails_at_that_chunk(alice: User, desk: Path) -> None:
    declare(desk, max_rows=20)
    first = held(StepKind.PLAN, alice)
    lifecycle.finish_plan(first, planned(3, 15, exact=False))
    one, two, running = take(), take(), take()
    lifecycle.finish_chunk(one, piece(10))
    assert fresh(one.export).state == ExportState.RUNNING
    lifecycle.finish_chunk(two, piece(11))
    export = fresh(one.export)
    assert (export.state, export.error) == (ExportState.FAILED, TOO_MANY)
    assert not lifecycle.beat(running, 1, 1)
    assert list(export.steps.filter(state=StepState.WAITING).values_list("kind", flat=True)) == [StepKind.NOTIFY]


# --- publishing -------------------------------------------------------------------------------------------------------


def test_file_is_published_with_its_receipt_and_an_end(alice: User) -> None:
    step = held(StepKind.ASSEMBLE, alice, parts=2)
    lifecycle.make_ready(step, FileResult("folder/1/file.csv", 20, 1234, "f" * 64), {"rows": 20})
    export = fresh(step.export)
    assert (export.state, export.file_name, export.file_rows, export.file_bytes, export.receipt) == (
        ExportState.READY, "folder/1/file.csv", 20, 1234, {"rows": 20},
    )  # fmt: skip
    assert export.expires_at - export.finished_at == timedelta(days=7)
    assert take().kind == StepKind.NOTIFY


@pytest.mark.parametrize("rows", [19, 21, 0])
def test_file_with_other_rows_than_were_read_is_not_published(alice: User, rows: int) -> None:
    step = held(StepKind.ASSEMBLE, alice, parts=2)
    before = everything()
    with pytest.raises(ExportError) as refused:
        lifecycle.make_ready(step, FileResult("folder/1/file.csv", rows, 1234, "f" * 64), {})
    assert refused.value.permanent
    assert f"{rows} rows in the file, 20 read" in refused.value.detail
    assert everything() == before


def test_who_wants_no_mail_gets_none(alice: User) -> None:
    export = ask(alice)
    change(export, notify=False)
    while step := lifecycle.claim("worker"):
        finish(step)
    assert fresh(export).state == ExportState.READY
    assert not export.steps.filter(kind=StepKind.NOTIFY).exists()
    failing = ask(alice)
    change(failing, notify=False)
    lifecycle.fail_step(take(), LASTING)
    assert fresh(failing).state == ExportState.FAILED
    assert not failing.steps.filter(kind=StepKind.NOTIFY).exists()


# --- failing, giving back, losing -------------------------------------------------------------------------------------


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The database's clock stands still, and back-offs are as long as they are meant."""
    at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(lifecycle, "now", lambda: at)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    return at


def test_step_is_tried_again_later_and_later_and_then_fails_its_export(
    alice: User, noon: datetime, settings: Settings
) -> None:
    settings.RETRY_SECONDS, settings.RETRIES = 100, 5
    step = ask(alice).steps.get()
    pauses = []
    for _ in range(4):
        lifecycle.fail_step(take(), PASSING)
        step = fresh(step)
        assert (step.state, step.rung_at, step.error) == (StepState.WAITING, None, str(PASSING))
        pauses.append((step.not_before - noon).total_seconds())
        assert lifecycle.claim("worker") is None
        change(step, not_before=noon)
    assert pauses == [100, 200, 400, 800]
    told = step.export.events.latest("pk")
    assert (told.kind, told.text, told.detail) == (
        "retry", "The database did not answer. Trying again in 800 s.", "MySQL 2013",
    )  # fmt: skip

    lifecycle.fail_step(take(), PASSING)
    export = fresh(step.export)
    assert (export.state, export.error) == (ExportState.FAILED, "The database did not answer.")
    assert fresh(step).state == StepState.FAILED
    assert export.events.get(kind="failed").detail == "MySQL 2013"
    assert take().kind == StepKind.NOTIFY


def test_no_pause_is_longer_than_a_quarter_of_an_hour(alice: User, noon: datetime, settings: Settings) -> None:
    settings.RETRIES = 99
    step = held(StepKind.PLAN, alice)
    step.attempts = 60
    lifecycle.fail_step(step, PASSING)
    assert (fresh(step).not_before - noon).total_seconds() == 900


def test_lasting_error_fails_the_export_at_once_and_stops_its_other_steps(alice: User) -> None:
    step = held(StepKind.CHUNK, alice, parts=3)
    other = take()
    lifecycle.fail_step(step, LASTING)
    export = fresh(step.export)
    assert (export.state, export.error) == (ExportState.FAILED, "The table is gone.")
    assert not lifecycle.beat(other, 1, 1)
    assert export.steps.filter(kind=StepKind.CHUNK, state=StepState.DROPPED).count() == 2
    assert "MySQL 1146" not in export.error


def fails_for_good(step: Step) -> None:
    lifecycle.fail_step(step, LASTING)


def fails_for_too_long(step: Step) -> None:
    change(step.export, finished_at=lifecycle.now() - timedelta(seconds=settings.MAIL_SECONDS + 1))
    step.export.refresh_from_db()
    lifecycle.fail_step(step, PASSING)


def crashes_too_often(step: Step) -> None:
    lose(step, crashes=2)


@pytest.mark.parametrize("verb", [fails_for_good, fails_for_too_long, crashes_too_often])
def test_mail_that_cannot_be_sent_fails_no_export(alice: User, verb: Verb) -> None:
    step = held(StepKind.NOTIFY, alice)
    export = fresh(step.export)
    verb(step)
    assert fresh(step).state == StepState.FAILED
    assert (fresh(export).state, fresh(export).error) == (ExportState.READY, "")
    assert kinds()[-1] == "mail failed"
    assert lifecycle.claim("worker") is None


def test_step_that_is_handed_back_has_spent_nothing(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    for _ in range(7):
        lifecycle.hand_back(step)
        step = take()
    assert (step.attempts, step.crashes, step.fence) == (1, 0, 8)
    assert kinds() == ["requested", "running", "planned"]


def test_step_of_a_silent_worker_is_another_ones_and_may_run_at_once(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    change(step, rung_at=lifecycle.now())
    assert lifecycle.take_back_lost() == 0
    lose(step)
    now = fresh(step)
    assert (now.state, now.crashes, now.rung_at, now.lease_until) == (StepState.WAITING, 1, None, None)
    told = step.export.events.latest("pk")
    assert (told.text, told.detail) == (
        "A worker fell silent in the step “chunk”; another one takes over.", "worker, crash 1",
    )  # fmt: skip
    again = take("another")
    assert (again, again.fence) == (step, step.fence + 1)
    with pytest.raises(LeaseLost):
        lifecycle.finish_chunk(step, piece())
    lifecycle.finish_chunk(again, piece())


def test_step_that_beats_at_the_last_moment_is_not_taken_back(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [held(StepKind.CHUNK, alice, parts=2), take()]
    for step in lost:
        change(step, lease_until=lifecycle.now() - timedelta(seconds=1))
    tell = lifecycle._tell

    def tell_and_let_the_other_beat(*args: Any, **more: Any) -> None:
        tell(*args, **more)
        for step in lost:
            lifecycle.beat(step, 1, 1)

    monkeypatch.setattr(lifecycle, "_tell", tell_and_let_the_other_beat)
    assert lifecycle.take_back_lost() == 1
    assert sorted(fresh(step).state for step in lost) == [StepState.RUNNING, StepState.WAITING]


def test_step_that_crashes_its_worker_three_times_is_given_up(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    for _ in range(2):
        lose(step, step.crashes)
        step = take()
    lose(step, step.crashes)
    export = fresh(step.export)
    assert (export.state, export.error) == (
        ExportState.FAILED,
        "This export stopped its worker three times and was given up. An operator can see why.",
    )
    assert (fresh(step).state, fresh(step).crashes) == (StepState.FAILED, 3)
    assert export.events.get(kind="failed").detail == "worker, crash 3"


def test_leases_and_pauses_are_measured_with_the_databases_clock(alice: User, noon: datetime) -> None:
    step = held(StepKind.CHUNK, alice)
    assert step.lease_until == noon + timedelta(seconds=60)
    lifecycle.beat(step, 1, 1)
    assert fresh(step).lease_until == noon + timedelta(seconds=60)
    assert set(Event.objects.values_list("at", flat=True)) == {noon}
    assert (step.export.created_at, fresh(step.export).started_at) == (noon, noon)


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_cancel_takes_the_steps_from_their_holders(alice: User) -> None:
    step = held(StepKind.CHUNK, alice, parts=3)
    assert lifecycle.beat(step, 1, 1)
    assert lifecycle.cancel(step.export, alice, "Enough")
    assert not lifecycle.beat(step, 2, 2)
    assert lifecycle.claim("worker") is None
    assert set(step.export.steps.filter(kind=StepKind.CHUNK).values_list("state", flat=True)) == {StepState.DROPPED}


def test_second_cancel_says_that_nothing_was_left_to_cancel(alice: User) -> None:
    export = ask(alice)
    stale = fresh(export)
    assert lifecycle.cancel(export, alice, "Enough")
    assert not lifecycle.cancel(stale, alice, "Enough")
    assert kinds() == ["requested", "cancelled"]


def test_cancel_that_comes_before_the_publication_leaves_no_file(alice: User) -> None:
    step = held(StepKind.ASSEMBLE, alice)
    lifecycle.cancel(step.export, alice, "Enough")
    with pytest.raises(LeaseLost):
        finish(step)
    assert (fresh(step.export).state, fresh(step.export).file_name) == (ExportState.CANCELLED, "")


def test_cancel_that_comes_after_the_publication_changes_nothing(alice: User) -> None:
    step = held(StepKind.ASSEMBLE, alice)
    stale = fresh(step.export)
    finish(step)
    assert not lifecycle.cancel(stale, alice, "Enough")
    assert fresh(stale).state == ExportState.READY


def test_export_that_ends_in_the_middle_of_its_publication_is_not_published(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = held(StepKind.ASSEMBLE, alice)
    thaw = datasets.thaw

    def thaw_and_cancel(definition: dict[str, Any]) -> datasets.Dataset:
        change(step.export, state=ExportState.CANCELLED)  # as a database without our lock would let somebody do
        return thaw(definition)

    monkeypatch.setattr(datasets, "thaw", thaw_and_cancel)
    with pytest.raises(LeaseLost):
        finish(step)
    assert (fresh(step).state, fresh(step.export).file_name) == (StepState.RUNNING, "")


def test_step_that_is_cancelled_under_the_schedulers_hands_is_not_given(
    alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ask(alice), ask(bob)
    look = lifecycle._take

    def cancel_and_look(*args: Any) -> Step | None:
        lifecycle.cancel(first, alice, "Enough")
        return look(*args)

    monkeypatch.setattr(lifecycle, "_take", cancel_and_look)
    assert take().export == second
    assert fresh(first).state == ExportState.CANCELLED


# --- deadlocks --------------------------------------------------------------------------------------------------------


def deadlocking(times: int, code: int = 1213) -> tuple[list[int], Callable[[], str]]:
    tries: list[int] = []

    @lifecycle._retried
    def verb() -> str:
        tries.append(1)
        if len(tries) <= times:
            raise OperationalError(code, "Deadlock found")
        return "done"

    return tries, verb


def test_deadlock_undid_the_transaction_so_the_verb_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "get_connection", lambda: SimpleNamespace(in_atomic_block=False))
        for code in (1213, 1205):
            tries, verb = deadlocking(4, code)
            assert (verb(), len(tries)) == ("done", 5)
        for times, runs, code in ((9, 5, 1213), (1, 1, 2013)):
            tries, verb = deadlocking(times, code)
            with pytest.raises(OperationalError):
                verb()
            assert len(tries) == runs


def test_deadlock_inside_a_callers_transaction_is_the_callers() -> None:
    tries, verb = deadlocking(1)
    with transaction.atomic(), pytest.raises(OperationalError):
        verb()
    assert len(tries) == 1


# --- again ------------------------------------------------------------------------------------------------------------


def test_running_again_is_a_new_export_of_the_same_recipe(alice: User, root: User) -> None:
    old = in_state(alice, ExportState.EXPIRED, name="Old", format="jsonl")
    change(old, notify=False)
    again = lifecycle.run_again(fresh(old), root)
    assert (again.parent, again.owner, again.name, again.recipe, again.notify) == (old, alice, "Old", old.recipe, False)
    assert again.events.get().actor == root
    assert fresh(old).state == ExportState.EXPIRED


def test_running_again_twice_is_one_export_until_that_has_ended(alice: User) -> None:
    old = in_state(alice, ExportState.READY)
    again = lifecycle.run_again(old, alice)
    assert lifecycle.run_again(old, alice) == again
    lifecycle.cancel(again, alice, "Enough")
    assert lifecycle.run_again(old, alice) not in (old, again)


def test_running_again_takes_the_dataset_of_today(alice: User, desk: Path) -> None:
    old = in_state(alice, ExportState.READY)
    declare(desk, keep_days=30)
    assert datasets.thaw(old.definition).keep_days == 7
    assert datasets.thaw(lifecycle.run_again(old, alice).definition).keep_days == 30


def refused(export: Export, actor: User) -> str:
    """Why an export cannot be run again."""
    before = everything()
    with pytest.raises(ExportError) as error:
        lifecycle.run_again(export, actor)
    assert error.value.permanent
    assert everything() == before
    return error.value.sentence


def test_right_that_is_gone_keeps_an_export_from_running_again_whoever_asks(alice: User, root: User) -> None:
    export = in_state(alice, ExportState.READY)
    alice.groups.clear()
    assert refused(export, root) == "You may not export Orders."


def test_dataset_that_is_gone_keeps_an_export_from_running_again(alice: User, desk: Path) -> None:
    export = in_state(alice, ExportState.READY, name="Old")
    (desk / "datasets.toml").write_text("[sources.shop]")
    assert refused(export, alice) == "Old cannot be run again: its dataset is no longer offered."


def test_recipe_that_fits_no_longer_keeps_an_export_from_running_again(alice: User, desk: Path) -> None:
    export = in_state(alice, ExportState.READY)
    (desk / "datasets.toml").write_text(DATASETS.replace('{ name = "placed_at", type = "datetime" }', '{ name = "at" }')
                                        .replace('time_column = "placed_at"', ""))  # fmt: skip
    assert refused(export, alice) == "There is no column “placed_at” in Orders."


def test_row_rule_of_today_holds_for_an_export_that_runs_again(alice: User) -> None:
    PersonAttribute.objects.create(person=alice, name="country", value="DE")
    old = ask(alice, "regional")
    PersonAttribute.objects.filter(person=alice).update(value="FR")
    lifecycle.cancel(old, alice, "Enough")
    again = lifecycle.run_again(old, alice)
    assert [one.values for one in again.query.conditions] == [("FR",)]


def test_who_fetched_the_file_is_kept(alice: User, root: User) -> None:
    export = in_state(alice, ExportState.READY)
    lifecycle.note_download(export, root)
    event = export.events.get(kind="downloaded")
    assert (event.actor, event.text) == (root, "Downloaded by root")
