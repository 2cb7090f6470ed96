"""A worker is frozen for longer than its lease, others finish its exports, and then it goes on: it changes nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.breakable import NOTES, BreakableDesk, csv_of, files_below, mails_about, objects_in, s3_env
from tests.services import MailServer, MariaDB, Moto, RabbitMQ, free_port, wait_until

FROZEN = (
    "claim not committed",
    "chunk claimed",
    "middle of a piece",
    "piece written without its name",
    "piece finished",
    "middle of the assembly",
    "file written without its name",
    "file assembled",
    "publication not committed",
    "mail claimed",
    "mail sent",
)
UPLOADING = ("chunk claimed", "piece written without its name", "file written without its name", "file assembled")
SETTLING = 3.0  # seconds, longer than a beat: for what a zombie does after it has been told
TABLES = ("export", "step", "event")


class Frozen:
    """A desk where the workers of some exports are frozen, each at its point, while others have finished all."""

    def __init__(self, desk: BreakableDesk, mailserver: MailServer, points: tuple[str, ...]) -> None:
        self.desk, self.mailserver, self.points = desk, mailserver, points
        self.ids: dict[str, str] = {}

    def freeze(self) -> None:
        self.ids = self.desk.ask_for(dict.fromkeys(self.points, "notes"))
        self.desk.start_dispatcher()
        # Nobody else is there yet, and each export freezes its own process: all of them come to their points.
        self.desk.start_failing_worker("SIGSTOP", concurrency=len(self.points))
        wait_until(lambda: set(self.desk.broken()) == set(self.points), 60, "all points to be come to", 0.2)
        assert all(_is_stopped(process) for process in self.desk.broken().values())

    def let_others_finish(self) -> None:
        self.desk.start_worker("other", concurrency=2)
        self.desk.wait_for_end()

    def wake(self) -> None:
        """Until each is done with its step."""
        for process in self.desk.broken().values():
            os.kill(process, signal.SIGCONT)
        wait_until(lambda: self.desk.over() == set(self.points), 60, "all to be done with their steps", 0.2)
        time.sleep(SETTLING)

    def everything(self) -> dict[str, object]:
        """All rows, and all mails."""
        rows = {table: self.desk.ask(f"SELECT * FROM exportapp_{table} ORDER BY id") for table in TABLES}
        return {**rows, "mails": mails_about(self.mailserver, self.points)}


def _is_stopped(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def mailserver() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def _env(mailserver: MailServer) -> dict[str, str]:
    return {
        "EXPORTAPP_MAIL_URL": mailserver.url,
        "EXPORTAPP_RING_AGAIN_SECONDS": "1",
        "EXPORTAPP_CHUNK_ROWS": "5000",
        "EXPORTAPP_STEPS_PER_PERSON": "32",
    }


def test_frozen_worker_that_goes_on_changes_neither_rows_nor_files_nor_mails(
    mariadb: MariaDB, rabbitmq: RabbitMQ, mailserver: MailServer
) -> None:
    with BreakableDesk(mariadb, rabbitmq, NOTES, _env(mailserver)) as desk:
        desk.furnish(15_000)
        frozen, files = Frozen(desk, mailserver, FROZEN), desk.var / "files"
        frozen.freeze()
        frozen.let_others_finish()

        expected = csv_of(desk)
        assert {state for [state] in desk.ask("SELECT state FROM exportapp_export")} == {"ready"}
        assert all((files / name).read_bytes() == expected for name in desk.published())
        before, stored = frozen.everything(), _sums(files)
        assert set(stored) == desk.published()
        # A claim that was never committed is no claim; its lock, which all others waited for, was given up by the server.
        assert {point: desk.events(point)["taken back"] for point in FROZEN} == {
            point: int(point != "claim not committed") for point in FROZEN
        }

        frozen.wake()
        assert frozen.everything() == before
        assert _sums(files) == stored, "a zombie left something behind, or changed what was there"
        # One had handed its mail over before it was frozen, which nobody else can know.
        assert mails_about(mailserver, FROZEN) == {
            point: [f"<{export}.export-ready@exportapp>"] * (2 if point == "mail sent" else 1)
            for point, export in frozen.ids.items()
        }


def _sums(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files_below(folder)}


@pytest.mark.slow
def test_frozen_upload_that_goes_on_leaves_no_object_and_no_open_upload(
    mariadb: MariaDB, rabbitmq: RabbitMQ, mailserver: MailServer, moto: Moto
) -> None:
    bucket = moto.create_bucket(f"zombies-{free_port()}")
    with BreakableDesk(mariadb, rabbitmq, NOTES, _env(mailserver) | s3_env(moto, bucket)) as desk:
        # So small that a piece is one request and no upload: what comes late is not refused by the store.
        desk.furnish(15_000)
        frozen = Frozen(desk, mailserver, UPLOADING)
        frozen.freeze()
        frozen.let_others_finish()
        before, stored = frozen.everything(), _tags(moto, bucket)
        assert objects_in(moto, bucket) == desk.published()

        frozen.wake()
        assert frozen.everything() == before
        assert objects_in(moto, bucket) == desk.published()
        assert _tags(moto, bucket) == stored


def _tags(moto: Moto, bucket: str) -> dict[str, str]:
    """What each object is and when it was written."""
    found = moto.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {one["Key"]: f"{one['ETag']} {one['LastModified']}" for one in found}
