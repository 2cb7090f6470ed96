"""Names in the store: made of ids and fences alone, whatever people call their exports, and tidied without collateral."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from exportapp import storage
from exportapp.engine.errors import ExportError
from exportapp.models import Export, ExportState, StepKind
from tests.scenes import HOSTILE, held, in_state
from tests.services import Moto
from tests.services.s3 import REGION

pytestmark = pytest.mark.usefixtures("desk")

SAFE = re.compile(r"[0-9a-f-]{36}/[0-9a-z./-]+")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_the_store_hold_nothing_that_a_person_wrote(alice: User, name: str) -> None:
    chunk = held(StepKind.CHUNK, alice, name=name, format="jsonl", compression="gzip")
    piece, file = storage.piece_name(chunk), storage.file_name(chunk)
    assert SAFE.fullmatch(piece)
    assert piece == f"{chunk.export_id}/pieces/{0:020d}-{chunk.pk}-1"
    assert file == f"{chunk.export_id}/1/file.jsonl.gz"


def test_two_holders_of_one_step_write_to_two_names(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    first = (storage.piece_name(step), storage.file_name(step))
    step.fence += 1
    assert not set(first) & {storage.piece_name(step), storage.file_name(step)}


def test_pieces_sort_by_their_positions(alice: User) -> None:
    step = held(StepKind.CHUNK, alice)
    names = []
    for position in (0, 1, 9, 10, 1 << 20, 1 << 62):
        step.position = position
        names.append(storage.piece_name(step))
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "download"),
    [
        ("Orders of January", "Orders-of-January.csv"),
        ("../../etc/passwd", "etc-passwd.csv"),
        ("a\r\nX: y", "a-X-y.csv"),
        ("über 😀", "über.csv"),
        ("日本語の名前", "日本語の名前.csv"),
        ("report.csv", "report.csv"),
        ("😀", "orders.csv"),
        ("..", "orders.csv"),
        (".hidden", "hidden.csv"),
        ("con.txt", "con.txt.csv"),
        ("x" * 200, "x" * 80 + ".csv"),
        ("a/b\\c:d*e?f\"g<h>i|j;k'l%m$n&o", "a-b-c-d-e-f-g-h-i-j-k-l-m-n-o.csv"),
    ],
)
def test_file_is_downloaded_under_a_name_that_every_system_takes(alice: User, name: str, download: str) -> None:
    assert storage.download_name(Export(name=name, dataset="orders", recipe_json={"dataset": "orders", "columns": []})) == download  # fmt: skip  # noqa: E501


def test_store_is_told_its_endpoint_and_no_credentials(settings: Settings) -> None:
    settings.STORAGE_URL = "s3://bucket/prefix"
    settings.S3_ENDPOINT = ""
    assert storage.store_url() == "s3://bucket/prefix"
    settings.S3_ENDPOINT = "http://s3.internal:9000/?a=b"
    assert storage.store_url() == "s3://bucket/prefix?endpoint=http%3A%2F%2Fs3.internal%3A9000%2F%3Fa%3Db"
    settings.STORAGE_URL = "file:///srv/files"
    assert storage.store_url() == "file:///srv/files"


def test_local_file_has_a_path_and_no_link(alice: User, desk: Path) -> None:
    export = in_state(alice, ExportState.READY, content=b"content")
    path = storage.local_path(export)
    assert path is not None
    assert path.read_bytes() == b"content"
    assert path.is_relative_to(desk / "files")
    assert storage.link(export) is None


def test_store_that_is_not_understood_is_told_in_a_sentence(settings: Settings) -> None:
    settings.STORAGE_URL = "ftp://user:opensesame@host"
    with pytest.raises(ExportError) as error:
        storage.store()
    assert error.value.permanent
    assert "opensesame" not in str(error.value)


def test_tidying_twice_or_where_nothing_is_does_no_harm(alice: User) -> None:
    export = in_state(alice, ExportState.READY)
    storage.tidy(export)
    storage.tidy(export)
    path = storage.local_path(export)
    assert path is not None and path.exists()
    nothing = in_state(alice, ExportState.CANCELLED)
    storage.tidy(nothing)
    storage.tidy(nothing)


@pytest.fixture
def bucket(moto: Moto, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """The desk keeps its files in an S3 bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    settings.STORAGE_URL, settings.S3_ENDPOINT = "s3://tidied/below/here", moto.endpoint
    return moto.create_bucket("tidied")


def test_bucket_is_tidied_down_to_the_finished_file(alice: User, bucket: str, moto: Moto) -> None:
    export = in_state(alice, ExportState.READY)
    for name in ("pieces/1", "11/file.csv", "12/file.csv", "1/file.csv"):
        sink = storage.store().create(f"{export.folder}/{name}")
        sink.write(b"content")
        sink.finish()
    other = in_state(alice, ExportState.READY)
    client, prefix = moto.client(), f"below/here/{export.folder}"
    client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/2/file.csv")
    export.file_name = f"{export.folder}/12/file.csv"
    storage.tidy(export)
    assert set(moto.objects(bucket)) == {f"{prefix}/12/file.csv", f"below/here/{other.file_name}"}
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")

    export.state = ExportState.EXPIRED
    storage.tidy(export)
    assert set(moto.objects(bucket)) == {f"below/here/{other.file_name}"}
