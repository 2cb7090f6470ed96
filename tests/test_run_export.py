"""run_export asks as the form does, with the same rights and the same sentences, waits, and says where the file is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from exportapp import lifecycle, storage
from exportapp.engine.specs import RecipeFilter
from exportapp.management.commands import run_export
from exportapp.models import Export, ExportState
from worker.heart import HEART
from worker.tasks import work

pytestmark = pytest.mark.usefixtures("shop")

MONTH = ["--from", "2026-01-01", "--to", "2026-02-01"]


def asked(*arguments: str) -> str:
    """What the command prints."""
    printed = io.StringIO()
    call_command("run_export", *arguments, stdout=printed)
    return printed.getvalue()


def refused(*arguments: str) -> str:
    """What the command complains about; nothing was asked for."""
    before = Export.objects.count()
    with pytest.raises(CommandError) as error:
        asked(*arguments)
    assert Export.objects.count() == before
    return str(error.value)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What happens while the command waits: instead of sleeping it does what it is given."""
    monkeypatch.setattr(HEART, "start", lambda: None)

    def during(act: Callable[[], object]) -> None:
        monkeypatch.setattr(run_export.time, "sleep", lambda seconds: act())

    return during


def test_command_waits_for_the_file_and_says_where_it_is(
    alice: User, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    meanwhile(work)
    lines = asked("orders", "--user", "alice", *MONTH).splitlines()
    export = Export.objects.get()
    assert lines[-1] == f"ready: 25 rows, {export.file_bytes:,} bytes, {export.file_name}"
    assert lines[0] == "ready: 25 of about 25 rows"
    path = storage.local_path(export)
    assert path is not None
    assert path.stat().st_size == export.file_bytes


def test_progress_is_told_when_it_changes(alice: User, meanwhile: Callable[[Callable[[], object]], None]) -> None:
    turns = iter([lambda: None, lambda: None, lambda: None])

    def now_and_then() -> None:
        next(turns, work)()

    meanwhile(now_and_then)
    lines = asked("orders", "--user", "alice", *MONTH).splitlines()
    assert lines[0] == "waiting: 0 of about 0 rows"
    assert lines.count(lines[0]) == 1


def test_without_waiting_the_id_is_all_that_is_printed(alice: User) -> None:
    printed = asked("orders", "--user", "alice", *MONTH, "--no-wait")
    assert printed == f"{Export.objects.get().pk}\n"
    assert Export.objects.get().state == ExportState.QUEUED


def test_options_make_the_recipe_that_the_form_would(alice: User) -> None:
    asked(
        "orders", "--user", "alice", *MONTH, "--zone", "Asia/Tokyo", "--columns", "id, total", "--format", "jsonl",
        "--compression", "gzip", "--name", "Mine", "--mail", "--no-wait",
        "--where", "status", "in", "paid", "refunded", "--where", "total", "between", "", "9.5",
        "--where", "email", "empty",
    )  # fmt: skip
    export = Export.objects.get()
    recipe = export.recipe
    assert (recipe.columns, recipe.format, recipe.compression) == (("id", "total"), "jsonl", "gzip")
    assert (recipe.start, recipe.end, recipe.zone) == ("2026-01-01", "2026-02-01", "Asia/Tokyo")
    assert recipe.filters == (
        RecipeFilter("status", "in", ("paid", "refunded")),
        RecipeFilter("total", "between", ("", "9.5")),
        RecipeFilter("email", "empty"),
    )
    assert (export.name, export.notify, export.owner) == ("Mine", True, alice)


def test_columns_that_are_not_named_are_those_ticked_at_first(alice: User) -> None:
    asked("orders", "--user", "alice", *MONTH, "--no-wait")
    export = Export.objects.get()
    assert export.recipe.columns == ("id", "placed_at", "status", "total", "gift", "due_on")
    assert (export.name, export.notify) == ("Orders", False)


def test_each_call_is_an_export_of_its_own(alice: User) -> None:
    for _ in range(2):
        asked("orders", "--user", "alice", *MONTH, "--no-wait")
    assert Export.objects.count() == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["orders", "--user", "nobody", *MONTH], "There is no user 'nobody'."),
        (["nothing", "--user", "alice"], "There is no dataset 'nothing' in the datasets file."),
        (["orders", "--user", "charlie", *MONTH], "You may not export Orders."),
        (["orders", "--user", "alice", "--from", "soon", "--to", "2026-01-01", "--columns", "x"],
         "columns: There is no column “x” in Orders.\n"
         "start: “soon” is not a date. Write it like 2026-01-31 or 2026-01-31 14:30."),
        (["orders", "--user", "alice", *MONTH, "--where", "status"],
         "--where takes a column, a comparison and its values, as in: --where status in paid refunded"),
        (["orders", "--user", "alice", *MONTH, "--where", "total", "between", "5"],
         "filters.0: “is between” takes two values."),
        (["orders", "--user", "alice", *MONTH, "--name", "x" * 201], "A name has at most 200 characters."),
    ],
)  # fmt: skip
def test_mistake_is_told_in_a_sentence(alice: User, charlie: User, arguments: list[str], sentence: str) -> None:
    assert refused(*arguments) == sentence


def test_export_that_fails_ends_the_command_with_its_sentence(
    alice: User, shop: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    shop.unlink()
    meanwhile(work)
    with pytest.raises(CommandError) as error:
        asked("orders", "--user", "alice", *MONTH)
    assert str(error.value) == Export.objects.get().error != ""


def test_export_that_is_cancelled_ends_the_command(
    alice: User, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    meanwhile(lambda: lifecycle.cancel(Export.objects.get(), alice, "Enough"))
    with pytest.raises(CommandError, match=r"The export was cancelled\."):
        asked("orders", "--user", "alice", *MONTH)


def test_file_that_expired_while_the_command_slept_is_said(
    alice: User, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    meanwhile(lambda: Export.objects.update(state=ExportState.EXPIRED))
    with pytest.raises(CommandError, match=r"The export was expired\."):
        asked("orders", "--user", "alice", *MONTH)
