"""Queries that run at a source for nobody are ended, on a real server; those of a running step and of others are not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User

from exportapp import lifecycle
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import end_queries, open_reader
from exportapp.engine.specs import KeyRange
from exportapp.models import Step, StepKind, StepState
from exportapp.orphans import comment_for, end_orphan_queries
from tests.engine.scenes import query
from tests.engine.servers import Database, database_of
from tests.scenes import held
from tests.services import MariaDB, wait_until

SLOW = query("SELECT SLEEP(60) AS a", "a", is_query=True)


@pytest.fixture
def source(mariadb: MariaDB, desk: object, monkeypatch: pytest.MonkeyPatch) -> Database:
    database = database_of(mariadb)
    monkeypatch.setenv("SOURCE_SHOP_URL", database.url)
    return database


@contextmanager
def running(source: Database, comment: str) -> Iterator[list[Exception]]:
    """A query of nobody's that runs in a thread; the list gets what ended it."""
    ended: list[Exception] = []

    def read() -> None:
        with open_reader(source.url) as reader:
            readers.append(reader)
            try:
                list(reader.stream(SLOW, KeyRange(), comment))
            except ExportError as error:
                ended.append(error)

    readers: list[object] = []
    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: source.running(comment), 10, "the query to run")
    try:
        yield ended
    finally:
        end_queries(source.url, lambda found: found == comment)
        thread.join(10)
        assert not thread.is_alive()


ENDS: dict[str, Callable[[Step], object]] = {
    "taken back": lambda step: Step.objects.filter(pk=step.pk).update(state=StepState.WAITING),
    "claimed by another": lambda step: Step.objects.filter(pk=step.pk).update(fence=step.fence + 1),
    "cancelled": lambda step: lifecycle.cancel(step.export, None, "Cancelled"),
    "failed": lambda step: lifecycle.fail_step(step, ExportError("No.", permanent=True)),
}


@pytest.mark.parametrize("end", ENDS)
def test_query_of_a_step_that_is_no_longer_held_is_ended(source: Database, alice: User, end: str) -> None:
    step = held(StepKind.CHUNK, alice)
    with running(source, comment_for(step)) as ended:
        ENDS[end](step)
        assert end_orphan_queries() == 1
        wait_until(lambda: not source.running(comment_for(step)), 10, "the query to end")
        wait_until(lambda: bool(ended), 10, "the reader to notice")


def test_query_of_a_running_step_goes_on(source: Database, alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    with running(source, comment_for(step)) as ended:
        assert end_orphan_queries() == 0
        assert source.running(comment_for(step))
        assert not ended


@pytest.mark.parametrize(
    "comment",
    [
        "nightly report",
        "exportapp export=00000000-0000-0000-0000-000000000000 step={step} fence=1",
        "exportapp export={export} step=999999999 fence=1",
        "exportapp export={export} step={step} fence=1 and more",
    ],
)
def test_queries_of_others_go_on(source: Database, alice: User, comment: str) -> None:
    """Another desk may read the same source under the same user."""
    step = held(StepKind.CHUNK, alice)
    lifecycle.cancel(step.export, None, "Cancelled")
    with running(source, comment.format(export=step.export_id, step=step.pk)):
        assert end_orphan_queries() == 0


def test_source_that_does_not_answer_is_no_obstacle(
    source: Database, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_SHOP_URL", "mysql://nobody:secret@127.0.0.1:1/x")
    assert end_orphan_queries() == 0
