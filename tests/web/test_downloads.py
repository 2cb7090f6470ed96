"""Fetching a file: in ranges, so that a broken download goes on, under a name that is safe, or by a signed link."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from exportapp import lifecycle, storage
from exportapp.models import Event, Export, ExportState
from exportapp.web import downloads
from tests.scenes import HOSTILE, ask, file_of, in_state
from tests.services import SeaweedFS, wait_until
from tests.services.s3 import REGION

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def export(alice: User) -> Export:
    return in_state(alice, ExportState.READY, name="Orders", content=CONTENT)


class Fetched(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch(client: Client, export: Export, wanted: str | None = None, **headers: str) -> Fetched:
    if wanted is not None:
        headers["range"] = wanted
    response = client.get(f"/exports/{export.pk}/download", headers=headers)
    return Fetched(response.status_code, response.headers, response.getvalue())


def test_whole_file_arrives_with_all_that_a_resuming_client_needs(alices: Client, export: Export) -> None:
    response = fetch(alices, export)
    assert (response.status, response.body) == (200, CONTENT)
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"] == f'"{(export.receipt or {})["sha256"]}"'
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="Orders.csv"'
    assert "no-store" in response.headers["Cache-Control"]
    assert "private" in response.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=1000-", 1000, 1023),
        ("bytes=1000-99999", 1000, 1023),
        ("bytes=1023-1023", 1023, 1023),
        ("bytes=-10", 1014, 1023),
        ("bytes=-1", 1023, 1023),
    ],
)
def test_part_of_the_file_arrives(alices: Client, export: Export, wanted: str, first: int, last: int) -> None:
    response = fetch(alices, export, wanted)
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/1024"
    assert response.headers["Content-Length"] == str(last - first + 1)
    assert response.body == CONTENT[first : last + 1]
    assert "no-store" in response.headers["Cache-Control"]


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_part_beyond_the_end_is_refused_with_the_size(alices: Client, export: Export, wanted: str) -> None:
    response = fetch(alices, export, wanted)
    assert (response.status, response.headers["Content-Range"], response.body) == (416, "bytes */1024", b"")


@pytest.mark.parametrize(
    "wanted",
    ["", "bytes", "bytes=", "bytes=-", "bytes=9-3", "bytes=a-b", "bytes=1-2,5-9", "lines=1-2", "bytes=--5", "bytes= 1-2",
     "bytes=0-", "bytes=-99999", "bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_single_part_gives_the_whole_file(alices: Client, export: Export, wanted: str) -> None:
    response = fetch(alices, export, wanted)
    assert (response.status, response.body) == (200, CONTENT)
    assert "Content-Range" not in response.headers


def test_part_is_given_only_of_the_file_that_the_client_has_begun(alices: Client, export: Export) -> None:
    etag = fetch(alices, export).headers["ETag"]
    same = fetch(alices, export, "bytes=5-9", **{"if-range": etag})
    assert (same.status, same.body) == (206, CONTENT[5:10])
    for other in ('"another"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        whole = fetch(alices, export, "bytes=5-9", **{"if-range": other})
        assert (whole.status, whole.body) == (200, CONTENT)


def test_download_in_pieces_is_the_file(alices: Client, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "BLOCK", 1000)
    content = bytes(number % 251 for number in range(10_007))
    export = in_state(alice, ExportState.READY, content=content)
    got = fetch(alices, export, "bytes=0-4000").body
    while len(got) < len(content):
        got += fetch(alices, export, f"bytes={len(got)}-{len(got) + 2999}").body
    assert got == content


def test_empty_file_can_be_fetched(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, content=b"")
    response = fetch(alices, export)
    assert (response.status, response.body) == (200, b"")
    assert fetch(alices, export, "bytes=0-").status == 416


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_leaves_no_folder_and_splits_no_header(alices: Client, alice: User, name: str) -> None:
    export = in_state(alice, ExportState.READY, name=name)
    header = fetch(alices, export).headers["Content-Disposition"]
    plain, encoded = r'filename="[A-Za-z0-9_][\w.-]*\.csv"', r"filename\*=utf-8''[A-Za-z0-9_%][\w.%-]*\.csv"
    assert re.fullmatch(f"attachment; ({plain}|{encoded})", header, re.ASCII), header
    assert not re.search(r"%(0|1|2[^0-9]|2F|5C|22)", header, re.IGNORECASE), header
    assert ".." not in header


def test_name_without_a_usable_letter_becomes_the_dataset_s(alices: Client, alice: User) -> None:
    export = in_state(alice, ExportState.READY, name="😀 .. /", format="jsonl", compression="gzip")
    response = fetch(alices, export)
    assert response.headers["Content-Disposition"] == 'attachment; filename="orders.jsonl.gz"'
    assert response.headers["Content-Type"] == "application/gzip"


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(CONTENT[:-1]), lambda file: file.unlink()])
def test_file_that_is_not_the_one_that_was_made_is_not_given_away(
    alices: Client, export: Export, change: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    change(file_of(export))
    response = fetch(alices, export)
    assert response.status == 410
    assert "no longer the file that was made" in response.body.decode()
    assert (export.file_name in caplog.text, noted()) == (True, [])


def noted() -> list[str]:
    """The downloads in the history, oldest first."""
    return [event.text for event in Event.objects.filter(kind="downloaded").order_by("pk")]


@pytest.mark.parametrize(
    "wanted", [None, "bytes=0-", "bytes=1-", "bytes=-5", "bytes=00-", "bytes=1-2,5-9", "lines=1-2"]
)
def test_whatever_part_is_fetched_first_is_noted(alices: Client, export: Export, wanted: str | None) -> None:
    assert fetch(alices, export, wanted).body
    assert noted() == ["Downloaded by alice"]


def test_download_is_noted_once_however_many_parts_it_takes(alices: Client, export: Export) -> None:
    for wanted in ("bytes=500-", None, "bytes=-5", "bytes=0-499", None):
        assert fetch(alices, export, wanted).body
    assert noted() == ["Downloaded by alice"]


def test_download_is_noted_again_after_an_hour(alices: Client, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    began = lifecycle.now()
    for minutes, lines in ((0, 1), (59, 1), (61, 2), (119, 2)):
        at = began + timedelta(minutes=minutes)
        monkeypatch.setattr(lifecycle, "now", lambda at=at: at)
        assert fetch(alices, export, "bytes=1-").body
        assert len(noted()) == lines, minutes


def test_downloads_of_another_person_export_or_address_are_noted_beside_it(
    alices: Client, alice: User, root: User, export: Export
) -> None:
    roots = Client()
    roots.force_login(root)
    other = in_state(alice, ExportState.READY)
    for client, wanted, address in (
        (alices, export, "192.0.2.1"),
        (roots, export, "192.0.2.1"),
        (alices, other, "192.0.2.1"),
        (alices, export, "192.0.2.2"),
    ):
        for _ in range(2):
            client.get(f"/exports/{wanted.pk}/download", REMOTE_ADDR=address).close()
    assert list(Event.objects.filter(kind="downloaded").order_by("pk").values_list("export", "actor", "origin")) == [
        (export.pk, alice.pk, "web 192.0.2.1"),
        (export.pk, root.pk, "web 192.0.2.1"),
        (other.pk, alice.pk, "web 192.0.2.1"),
        (export.pk, alice.pk, "web 192.0.2.2"),
    ]


def test_answer_without_a_byte_of_the_file_is_no_download(alices: Client, export: Export) -> None:
    alices.head(f"/exports/{export.pk}/download").close()
    assert fetch(alices, export, "bytes=5000-").status == 416
    file_of(export).unlink()
    assert fetch(alices, export).status == 410
    assert noted() == []


def test_head_tells_the_size_without_the_file(alices: Client, export: Export) -> None:
    response = alices.head(f"/exports/{export.pk}/download")
    assert (response.status_code, response["Content-Length"], response.getvalue()) == (200, str(len(CONTENT)), b"")
    response.close()


@pytest.mark.parametrize("state", [state for state in ExportState.values if state != ExportState.READY])
def test_only_a_ready_export_has_a_file(alices: Client, alice: User, state: str) -> None:
    assert fetch(alices, in_state(alice, state)).status == 404


def test_file_that_expires_during_the_download_arrives_whole(alices: Client, export: Export) -> None:
    response = alices.get(f"/exports/{export.pk}/download")
    file_of(export).unlink()
    assert response.getvalue() == CONTENT


def test_file_is_closed_when_the_client_goes_away_before_its_first_byte(alices: Client, export: Export) -> None:
    before = len(os.listdir("/proc/self/fd"))
    response = alices.get(f"/exports/{export.pk}/download")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    response.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_right_is_looked_at_for_every_part(alices: Client, alice: User, export: Export) -> None:
    assert fetch(alices, export, "bytes=0-9").status == 206
    alice.groups.clear()
    assert fetch(alices, export, "bytes=10-19").status == 404


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, settings: Settings, monkeypatch: pytest.MonkeyPatch, desk: Path) -> str:
    """The desk keeps its files in a new bucket of a store that checks signatures."""
    name = seaweedfs.create_bucket(f"desk-{desk.name}".lower().replace("_", "-")[:60].strip("-"))
    for variable, value in (
        ("AWS_ACCESS_KEY_ID", seaweedfs.access_key),
        ("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key),
        ("AWS_DEFAULT_REGION", REGION),
    ):
        monkeypatch.setenv(variable, value)
    settings.STORAGE_URL = f"s3://{name}/below/here"
    settings.S3_ENDPOINT = settings.S3_PUBLIC_ENDPOINT = seaweedfs.endpoint
    return name


def test_click_leads_to_a_link_signed_at_that_moment(alices: Client, alice: User, bucket: str) -> None:
    export = in_state(alice, ExportState.READY, name='A "file"', content=CONTENT)
    before = lifecycle.now()
    response = fetch(alices, export)
    assert response.status == 302
    assert "no-store" in response.headers["Cache-Control"]
    query = {name: values[0] for name, values in parse_qs(urlsplit(response.headers["Location"]).query).items()}
    assert query["X-Amz-Expires"] == "300"
    assert query["X-Amz-Date"] >= f"{before:%Y%m%dT%H%M%SZ}"
    assert storage.local_path(export) is None

    with urllib.request.urlopen(response.headers["Location"]) as fetched:
        assert fetched.read() == CONTENT
        assert fetched.headers["Content-Disposition"] == 'attachment; filename="A-file.csv"'
        assert fetched.headers["Content-Type"] == "text/csv; charset=utf-8"
    part = urllib.request.Request(response.headers["Location"], headers={"Range": "bytes=1000-"})
    with urllib.request.urlopen(part) as fetched:
        assert (fetched.status, fetched.read()) == (206, CONTENT[1000:])


@pytest.mark.parametrize(
    ("method", "headers"), [("get", {}), ("get", {"range": "bytes=1-"}), ("get", {"range": "bytes=-5"}), ("head", {})]
)
def test_every_link_that_is_handed_out_is_noted(
    alices: Client, alice: User, bucket: str, method: str, headers: dict[str, str]
) -> None:
    export = in_state(alice, ExportState.READY, content=CONTENT)
    for _ in range(2):  # whoever has a link has the file, so none hides behind another
        answer = getattr(alices, method)(f"/exports/{export.pk}/download", headers=headers)
        with urllib.request.urlopen(answer.headers["Location"]) as fetched:
            assert fetched.read() == CONTENT
    assert noted() == ["Downloaded by alice"] * 2


def test_link_is_of_no_use_once_its_time_is_over_or_for_another_file(
    alices: Client, alice: User, bucket: str, settings: Settings
) -> None:
    settings.LINK_SECONDS = 1
    export, other = (in_state(alice, ExportState.READY, content=CONTENT) for _ in range(2))
    link = fetch(alices, export).headers["Location"]

    def status(address: str) -> int:
        try:
            with urllib.request.urlopen(address) as fetched:
                return int(fetched.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    assert status(fetch(alices, export).headers["Location"].replace(str(export.pk), str(other.pk))) == 403
    wait_until(lambda: status(link) == 403, 20, "the end of the link")


def test_nobody_else_gets_a_link(alice: User, bob: User, bucket: str) -> None:
    export = in_state(alice, ExportState.READY)
    client = Client()
    assert fetch(client, export).headers["Location"].startswith("/login/")
    client.force_login(bob)
    assert fetch(client, export).status == 404
    assert fetch(client, ask(alice)).status == 404
