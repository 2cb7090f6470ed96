"""A folder as a store: nothing outside of it, nothing half done in it, and a sentence when the disk is full."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.local import LocalStore
from tests.engine.servers import PART, put


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("name", ["../file", "a/../../file", "/etc/file", "escape/file", "a/../escape"])
def test_a_name_cannot_leave_the_folder(local_store: LocalStore, tmp_path: Path, name: str) -> None:
    put(LocalStore(f"file://{tmp_path}/outside"), "file", b"precious")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "escape").symlink_to(tmp_path / "outside")
    for use in (local_store.create, local_store.path, local_store.delete, local_store.size):
        with pytest.raises(ValueError, match="leaves the store"):
            use(name)
    assert everything(tmp_path) == ["outside/file"]


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(local_store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "files" / "file.part").symlink_to(tmp_path / "victim")
    with pytest.raises(ExportError):
        local_store.create("file")
    assert (tmp_path / "victim").read_text() == "precious"


def test_an_abort_leaves_no_file_of_any_name(local_store: LocalStore, tmp_path: Path) -> None:
    sink = local_store.create("a/file")
    sink.write(b"x" * PART)
    assert everything(tmp_path)
    sink.abort()
    assert everything(tmp_path) == []


def test_deleting_a_folder_takes_what_a_dead_process_left_unfinished(local_store: LocalStore, tmp_path: Path) -> None:
    sink = local_store.create("a/pieces/1")
    sink.write(b"x" * PART)
    local_store.delete("a")
    assert everything(tmp_path) == []
    sink.abort()


def test_two_that_delete_the_same_folder_do_not_disturb_each_other(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(local_store, "a/1", b"x")
    delete_it = shutil.rmtree

    def after_the_other(path: Path) -> None:
        delete_it(path)
        delete_it(path)

    monkeypatch.setattr(shutil, "rmtree", after_the_other)
    local_store.delete("a")
    assert list(local_store.names("a")) == []


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 2 MiB: to the writer, a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("block", [100, 1 << 20, 3 << 20])
def test_a_full_disk_is_told_and_nothing_stays(
    local_store: LocalStore, tmp_path: Path, small_disk: None, block: int
) -> None:
    sink = local_store.create("a/file")
    with pytest.raises(ExportError, match="storage is full") as caught:
        for _ in range(1 + (3 << 20) // block):
            sink.write(b"x" * block)
    sink.abort()
    assert not caught.value.permanent
    assert everything(tmp_path) == []


def test_a_disk_that_is_full_only_at_the_end_is_told_too(
    local_store: LocalStore, tmp_path: Path, small_disk: None
) -> None:
    sink = local_store.create("a/file")
    sink.write(b"x" * (2 << 20))
    sink.write(b"y")  # stays in the buffer
    with pytest.raises(ExportError, match="storage is full"):
        sink.finish()
    sink.abort()
    assert everything(tmp_path) == []


def test_a_folder_that_is_gone_when_a_piece_is_done_is_told(local_store: LocalStore) -> None:
    sink = local_store.create("a/file")
    local_store.delete("a")
    with pytest.raises(ExportError, match="missing"):
        sink.finish()
    sink.abort()
    assert local_store.size("a/file") is None


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """What a power cut leaves at the least: what was synced, and the names that a folder had when it was synced."""
    kept: set[Path] = set()
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folder = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            kept.update(folder / name for name in os.listdir(descriptor))

    monkeypatch.setattr(os, "fsync", fsync)
    return kept


def test_a_power_cut_takes_no_folder_above_a_finished_file(tmp_path: Path, on_disk: set[Path]) -> None:
    store = LocalStore(f"file://{tmp_path}/var/files")
    put(store, "a/pieces/1", b"x")
    put(store, "a/2/file.csv", b"x")
    put(store, "b/1/file.csv", b"x")
    made = {*(tmp_path / "var").rglob("*"), tmp_path / "var"}
    assert len(made) == 10
    assert made - on_disk == set()


def test_a_folder_that_goes_while_one_is_made_below_it_is_made_again(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(local_store, "a/1", b"x")
    mkdir, gone = Path.mkdir, []

    def first_it_goes(path: Path, *arguments: object, **options: object) -> None:
        if path.name == "pieces" and not gone:
            gone.append(path)
            local_store.delete("a")
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", first_it_goes)
    put(local_store, "a/pieces/1", b"y")
    assert gone
    assert local_store.size("a/pieces/1") == 1


def test_a_file_in_the_place_of_a_folder_is_told(local_store: LocalStore) -> None:
    put(local_store, "a", b"x")
    with pytest.raises(ExportError, match="does not answer"):
        local_store.create("a/file")


def test_a_folder_gives_no_links(local_store: LocalStore) -> None:
    assert local_store.link("a", seconds=60, disposition="attachment", content_type="text/csv") is None
