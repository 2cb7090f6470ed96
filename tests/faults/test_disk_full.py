"""The store is full, or away, in the middle of a piece or of a file: nothing half done is shown, the export says what it
waits for, and goes on by itself. The disk is a real one (tmpfs), so the tests have to be run as root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.breakable import NOTES, BreakableDesk, csv_of, files_below, objects_in, s3_env
from tests.journeys.visitor import Visitor
from tests.services import MariaDB, RabbitMQ, SeaweedFS, free_port, wait_until

MB = 1 << 20
DISK = 96 * MB
ROWS, WIDTH = 15_000, 2000  # three pieces of more than 4 MB
FULL = "The export desk's storage is full or does not answer."
NEARLY_FULL = "The export desk's storage is nearly full."
AWAY = "The file store does not answer."


class SmallDisk:
    """A file system of its own, with `files` for the store, and a ballast that takes the rest of the room."""

    def __init__(self, folder: Path) -> None:
        self.files, self._ballast = folder / "files", folder / "ballast"
        self._folder = folder

    @property
    def free(self) -> int:
        return shutil.disk_usage(self._folder).free

    def leave(self, room: int) -> None:
        """Fills the disk until only so much is free."""
        self.make_room()
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free - room)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path) -> Iterator[SmallDisk]:
    options = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "exportapp-tests", str(folder)]
    done = subprocess.run(options, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"A disk that can be full has to be mounted, which only root may do: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with mounted(tmp_path_factory.mktemp("disk")) as small:
        yield small


@pytest.fixture(scope="module")
def notes_desk(mariadb: MariaDB, rabbitmq: RabbitMQ, disk: SmallDisk) -> Iterator[BreakableDesk]:
    """A desk on the small disk; each test brings its worker."""
    env = _env() | {"EXPORTAPP_STORAGE_URL": f"file://{disk.files}"}
    with BreakableDesk(mariadb, rabbitmq, NOTES, env) as desk:
        desk.furnish(ROWS, WIDTH)
        desk.start_dispatcher()
        yield desk


def _env() -> dict[str, str]:
    return {"EXPORTAPP_CHUNK_ROWS": "5000", "EXPORTAPP_RETRY_SECONDS": "0.5", "EXPORTAPP_RING_AGAIN_SECONDS": "1"}


@contextmanager
def working(desk: BreakableDesk, min_free_mb: int) -> Iterator[None]:
    desk.start_worker(EXPORTAPP_MIN_FREE_MB=str(min_free_mb))
    try:
        yield
    finally:
        desk.processes.term("worker")
        wait_until(lambda: desk.processes.ended("worker"), 30, "the end of the worker")


def wait_for_retry(desk: BreakableDesk, name: str, kind: str, why: str) -> None:
    """Until a step of this kind waits for a reason that begins so."""
    waits = f"kind = '{kind}' AND error LIKE '{why.replace(chr(39), chr(39) * 2)}%'"
    wait_until(lambda: desk.steps(name, "id", waits), 90, f"“{name}” to say what it waits for", 0.2)
    assert desk.one(name, "state, file_name") == ["running", ""]
    assert desk.events(name)["retry"] >= 1


def assert_ends_ready(desk: BreakableDesk, name: str, files: Path) -> None:
    desk.wait_for_end()
    state, file_name = desk.one(name, "state, file_name")
    assert state == "ready"
    assert (files / file_name).read_bytes() == csv_of(desk)
    assert files_below(files) == desk.published()
    assert {crashes for [crashes] in desk.steps(name, "crashes")} == {"0"}


def test_disk_that_is_full_in_the_middle_of_a_piece_delays_the_export(
    notes_desk: BreakableDesk, disk: SmallDisk
) -> None:
    desk, name = notes_desk, "full within a piece"
    export = desk.ask_for({name: "notes"})[name]
    before = files_below(disk.files)
    desk.start_web()
    with working(desk, min_free_mb=0):
        disk.leave(2 * MB)
        wait_for_retry(desk, name, "chunk", FULL)
        assert all(new.endswith(".part") for new in files_below(disk.files) - before)
        alice = Visitor(desk.address)
        alice.sign_in("alice", "alice-password")
        assert alice.state(f"/exports/{export}/") == "Running"
        assert FULL.replace("'", "\u2019") in alice.get("/exports/").page.one("main").text.replace("'", "\u2019")
        disk.make_room()
        assert_ends_ready(desk, name, disk.files)
    done = [int(fence) for [fence] in desk.steps(name, "fence", "kind = 'chunk'")]
    assert max(done) > 1


def test_disk_that_is_full_in_the_middle_of_the_assembly_delays_the_export_and_reads_nothing_again(
    notes_desk: BreakableDesk, disk: SmallDisk
) -> None:
    desk, name, size = notes_desk, "full within the file", len(csv_of(notes_desk))
    desk.ask_for({name: "notes"})
    with working(desk, min_free_mb=0):
        disk.leave(size + size // 2)
        wait_for_retry(desk, name, "assemble", FULL)
        assert [fence for [fence] in desk.steps(name, "fence", "kind = 'chunk' AND state = 'done'")] == ["1"] * 3
        disk.make_room()
        assert_ends_ready(desk, name, disk.files)
    assert [fence for [fence] in desk.steps(name, "fence", "kind = 'chunk'")] == ["1"] * 3


def test_export_stops_before_the_disk_is_full(notes_desk: BreakableDesk, disk: SmallDisk) -> None:
    """The operator's margin is kept: a full disk would stop what else lives on it."""
    desk, name, margin = notes_desk, "nearly full", 8
    before = files_below(disk.files)
    with working(desk, min_free_mb=margin):
        disk.leave(margin * MB - 1)
        desk.ask_for({name: "notes"})
        wait_for_retry(desk, name, "chunk", NEARLY_FULL)
        assert files_below(disk.files) == before, "it began to write below the margin"
        # Enough for one piece, and for the beginning of the second.
        disk.leave(margin * MB + len(csv_of(desk)) // 3 + MB)
        wait_until(lambda: desk.steps(name, "id", "kind = 'chunk' AND state = 'done'"), 60, "a first piece", 0.2)
        wait_for_retry(desk, name, "chunk", NEARLY_FULL)
        wait_until(lambda: len(files_below(disk.files) - before) == 1, 30, "the second piece to be given up")
        assert disk.free >= margin * MB
        disk.make_room()
        assert_ends_ready(desk, name, disk.files)


@pytest.mark.slow
def test_file_store_that_is_away_in_the_middle_delays_the_export(
    mariadb: MariaDB, rabbitmq: RabbitMQ, seaweedfs: SeaweedFS
) -> None:
    bucket = seaweedfs.create_bucket(f"away-{free_port()}")
    points = {"middle of a piece": "chunk", "middle of the assembly": "assemble"}
    # Frozen at their points until the store is away; a lease that outlives that.
    env = _env() | s3_env(seaweedfs, bucket) | {"EXPORTAPP_LEASE_SECONDS": "15"}
    with BreakableDesk(mariadb, rabbitmq, NOTES, env) as desk:
        desk.furnish(10_000, 4800)
        desk.ask_for(dict.fromkeys(points, "notes"))
        desk.start_dispatcher()
        desk.start_failing_worker("SIGSTOP", concurrency=3, EXPORTAPP_FAULT_BYTES="9000000")
        wait_until(lambda: set(desk.broken()) == set(points), 60, "both to be in the middle")
        assert [name for name in objects_in(seaweedfs, bucket) if name.startswith("open: ")]
        try:
            seaweedfs.stop()
            for process in desk.broken().values():
                os.kill(process, signal.SIGCONT)
            for name, kind in points.items():
                wait_for_retry(desk, name, kind, AWAY)
        finally:
            seaweedfs.start()

        desk.wait_for_end()
        expected = csv_of(desk)
        for name in points:
            state, file_name = desk.one(name, "state, file_name")
            assert state == "ready"
            file = seaweedfs.client().get_object(Bucket=bucket, Key=f"desk/{file_name}")["Body"].read()
            assert file == expected
            assert {crashes for [crashes] in desk.steps(name, "crashes")} == {"0"}
        assert objects_in(seaweedfs, bucket) == desk.published()
