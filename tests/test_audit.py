"""`manage.py audit_storage`: what is missing and what is left over is found, in each store; what is needed is left alone."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings

from exportapp import dispatcher, lifecycle, storage
from exportapp.engine.sinks import s3
from exportapp.engine.sinks.base import Sink
from exportapp.models import Export, ExportState, StepKind
from tests.engine.servers import PART, bucket_of, session
from tests.scenes import held, in_state
from tests.services.s3 import S3Server


def audited(*words: str) -> tuple[int, list[str]]:
    """The exit code, and the lines."""
    out = io.StringIO()
    try:
        call_command("audit_storage", *words, stdout=out)
        code = 0
    except SystemExit as end:
        code = int(str(end.code))
    return code, out.getvalue().splitlines()


def store_file(name: str, content: bytes = b"x") -> str:
    sink = storage.store().create(name)
    sink.write(content)
    sink.finish()
    return name


@pytest.fixture
def begin() -> Iterator[Callable[[str], None]]:
    """Begins files that are never finished."""
    sinks: list[Sink] = []

    def begin(name: str) -> None:
        sinks.append(storage.store().create(name))
        sinks[-1].write(b"x" * 3 * PART)

    yield begin
    for sink in sinks:
        sink.abort()


def tidied(export: Export) -> Export:
    Export.objects.filter(pk=export.pk).update(finished_at=lifecycle.now() - timedelta(seconds=61))
    dispatcher.tidy()
    export.refresh_from_db()
    assert export.tidied
    return export


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, desk: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("moto")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session(server.secret_key))
        bucket = bucket_of(server)
        settings.STORAGE_URL, settings.S3_ENDPOINT = f"s3://{bucket.bucket}/{bucket.key('desk')}", server.endpoint
        monkeypatch.setattr(s3, "FIRST_PART", PART)


@pytest.mark.usefixtures("store")
def test_what_is_under_way_or_ready_fits_together(alice: User, begin: Callable[[str], None]) -> None:
    chunk = held(StepKind.CHUNK, alice)
    store_file(storage.piece_name(chunk))
    begin(f"{chunk.export.folder}/1/file.csv")
    tidied(in_state(alice, ExportState.READY))
    assert audited() == (0, ["Files and rows fit together."])


@pytest.mark.usefixtures("store")
def test_file_that_is_gone_or_cut_is_found(alice: User) -> None:
    gone, cut, whole = (in_state(alice, ExportState.READY, name) for name in ("gone", "cut", "whole"))
    storage.store().delete(gone.file_name)
    store_file(cut.file_name, b"id")
    code, lines = audited("--delete")
    assert code == 1
    assert lines == [
        f"The file of {gone.pk} (gone) is gone: {gone.file_name}",
        f"The file of {cut.pk} (cut) has 2 bytes and not {cut.file_bytes}: {cut.file_name}",
        "2 found, 0 deleted.",
    ]
    assert storage.store().size(cut.file_name) == 2
    assert whole.file_name not in "".join(lines)


@pytest.mark.usefixtures("store")
def test_leftovers_are_found_and_deleted_when_asked(alice: User, begin: Callable[[str], None]) -> None:
    ready = tidied(in_state(alice, ExportState.READY))
    cancelled = held(StepKind.CHUNK, alice).export
    lifecycle.cancel(cancelled, alice, "Cancelled")
    tidied(cancelled)
    deleted = uuid.uuid4()
    leftovers = [
        store_file(f"{deleted}/3/file.csv"),
        store_file(f"{ready.folder}/pieces/00000000000000000000-1-1"),
        store_file(f"{cancelled.folder}/2/file.csv"),
    ]
    begin(f"{cancelled.folder}/9/file.csv")
    code, lines = audited()
    assert code == 1
    assert lines[-1] == "4 found, 0 deleted."
    for name in leftovers:
        assert sum(line.endswith(f": {name}") for line in lines) == 1
    [unfinished] = [line for line in lines if "never finished" in line]
    assert unfinished.endswith(f": {cancelled.folder}/9/file.csv")
    code, lines = audited("--delete")
    assert (code, lines[-1]) == (0, "4 found, 4 deleted.")
    assert audited() == (0, ["Files and rows fit together."])
    assert storage.store().size(ready.file_name) == ready.file_bytes


@pytest.mark.usefixtures("store")
def test_files_of_others_are_told_and_not_deleted(alice: User) -> None:
    store_file("reports/2026.csv")
    for _ in range(2):
        assert audited("--delete") == (
            1,
            ["No export has such a folder: reports/2026.csv", "1 found, 0 deleted."],
        )


def test_store_that_does_not_answer_is_told(desk: Path, settings: Settings) -> None:
    settings.STORAGE_URL, settings.S3_ENDPOINT = "s3://nowhere", "http://127.0.0.1:1"
    with pytest.raises(CommandError, match="The file store does not answer"):
        audited()
