"""`manage.py audit_storage`: what is missing and what is left over is found, in each store; what is needed is left alone."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections
from pytest_django import DjangoDbBlocker, Settings

from exportapp import dispatcher, lifecycle, storage
from exportapp.engine.encoders import FORMATS
from exportapp.engine.sinks import s3
from exportapp.engine.sinks.base import Sink
from exportapp.engine.sinks.local import LocalStore
from exportapp.environment import database
from exportapp.models import Export, ExportState, StepKind
from tests.engine.servers import PART, bucket_of, session
from tests.scenes import DATASETS, held, in_state
from tests.services import MariaDB
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


OURS = "0b7c1f52-3f6e-4a55-9c1e-6a2d5f0e9b11"

# In a bucket that others use as well, or in a folder that somebody keeps notes in.
FOREIGN = [
    "reports/2026.csv",
    "d41d8cd98f00b204e9800998ecf8427e/1/file.csv",
    "D41D8CD9-8F00-B204-E980-0998ECF8427E/1/file.csv",
    "{d41d8cd9-8f00-b204-e980-0998ecf8427e}/1/file.csv",
    "urn:uuid:d41d8cd9-8f00-b204-e980-0998ecf8427e/1/file.csv",
    f"{OURS}.csv",
    f"{OURS}/photo.jpg",
    f"{OURS}/1/photo.jpg",
    f"{OURS}/1/file.csv/more",
    f"{OURS}/pieces/notes",
    f"{OURS}/pieces/00000000000000000000-1-1/more",
    f"old/{OURS}/1/file.csv",
]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_told_and_not_deleted(alice: User, name: str) -> None:
    store_file(name)
    for _ in range(2):
        assert audited("--delete") == (1, [f"This is no export's file: {name}", "1 found, 0 deleted."])
    assert storage.store().size(name) == 1


@pytest.mark.parametrize(
    ("form", "compression"), [(name, how) for name, kind in FORMATS.items() for how in kind.compressions]
)
def test_every_name_that_an_export_gives_is_known_as_its_own(alice: User, form: str, compression: str) -> None:
    chunk = held(StepKind.CHUNK, alice, format=form, compression=compression)
    last = held(StepKind.ASSEMBLE, alice, format=form, compression=compression)
    names = [store_file(storage.piece_name(chunk)), store_file(storage.file_name(last))]
    Export.objects.all().delete()
    code, lines = audited("--delete")
    assert code == 0
    assert sorted(lines) == sorted(["2 found, 2 deleted.", *(f"Its export's row is gone: {name}" for name in names)])


def test_store_that_does_not_answer_is_told(desk: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session("secret"))
    settings.STORAGE_URL, settings.S3_ENDPOINT = "s3://nowhere", "http://127.0.0.1:1"
    with pytest.raises(CommandError, match="The file store does not answer"):
        audited()


# --- a store that takes its time --------------------------------------------------------------------------------------


@pytest.fixture
def impatient(
    mariadb: MariaDB, django_db_blocker: DjangoDbBlocker, settings: Settings, tmp_path: Path
) -> Iterator[None]:
    """The app database is on a MariaDB that ends connections which ask nothing for a second; the settings say sixty."""
    name = f"audit_{uuid.uuid4().hex[:8]}"
    there = database(mariadb.create_database(name))
    there["OPTIONS"]["init_command"] = there["OPTIONS"]["init_command"].replace("wait_timeout=60", "wait_timeout=1")
    before, sqlite = connections.settings[DEFAULT_DB_ALIAS], connections[DEFAULT_DB_ALIAS]
    connections.settings[DEFAULT_DB_ALIAS] = {**before, **there}
    del connections[DEFAULT_DB_ALIAS]
    (tmp_path / "datasets.toml").write_text(DATASETS)
    settings.DATASETS_FILE = tmp_path / "datasets.toml"
    settings.STORAGE_URL = f"file://{tmp_path}/files"
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        yield
        connection.close()
    connections.settings[DEFAULT_DB_ALIAS] = before
    connections[DEFAULT_DB_ALIAS] = sqlite  # where it is in memory, this connection is all that there is of it
    mariadb.sql(f"DROP DATABASE {name}")


def test_store_that_outlasts_the_connection_to_the_database_is_audited_to_its_end(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@wait_timeout")
        assert cursor.fetchone() == (1,)
    alice = User.objects.create_superuser("alice")
    gone, _whole = (in_state(alice, ExportState.READY, name) for name in ("gone", "whole"))
    storage.store().delete(gone.file_name)
    Export.objects.update(tidied=True)
    leftovers = [store_file(f"{uuid.uuid4()}/1/file.csv") for _ in range(2)]
    size = LocalStore.size

    def slow(store: LocalStore, name: str) -> int | None:
        time.sleep(1.6)
        return size(store, name)

    monkeypatch.setattr(LocalStore, "size", slow)
    code, lines = audited("--delete")
    assert (code, lines[0], lines[-1]) == (
        1,
        f"The file of {gone.pk} (gone) is gone: {gone.file_name}",
        "3 found, 2 deleted.",
    )
    assert [size(storage.store(), name) for name in leftovers] == [None, None]  # type: ignore[arg-type]
