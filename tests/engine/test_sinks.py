"""The contract of all stores: files under names, each complete or absent."""

from __future__ import annotations

import hashlib

import pytest

from exportapp.engine.assemble import join_pieces
from exportapp.engine.errors import ExportError
from exportapp.engine.sinks import open_store
from exportapp.engine.sinks.base import Store
from exportapp.engine.specs import PieceResult
from tests.engine.servers import PART, content, put


@pytest.fixture(params=["memory", "local", "moto", "seaweedfs"])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(f"{request.param}_store")
    return made


def test_a_file_is_there_after_finish_and_not_before(store: Store) -> None:
    sink = store.create("a/b/file.csv")
    sink.write(b"id\r\n" * (PART // 2))
    assert (store.size("a/b/file.csv"), list(store.names("a"))) == (None, [])
    sink.finish()
    assert (store.size("a/b/file.csv"), list(store.names("a"))) == (2 * PART, ["a/b/file.csv"])


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART])
def test_every_byte_comes_back_in_blocks(store: Store, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    put(store, "a/file", data[:10], data[10:])
    assert content(store, "a/file") == data
    assert store.size("a/file") == size


def test_an_aborted_file_never_was(store: Store) -> None:
    sink = store.create("a/file")
    sink.write(b"x" * (PART + 1))
    sink.abort()
    sink.abort()
    assert (store.size("a/file"), list(store.names("a"))) == (None, [])


def test_a_name_written_again_is_replaced_whole(store: Store) -> None:
    put(store, "a/file", b"a long first attempt")
    put(store, "a/file", b"short")
    assert content(store, "a/file") == b"short"


def test_an_aborted_second_writing_leaves_the_first(store: Store) -> None:
    put(store, "a/file", b"first")
    sink = store.create("a/file")
    sink.write(b"second")
    sink.abort()
    assert content(store, "a/file") == b"first"


def test_a_file_that_is_not_there_is_told(store: Store) -> None:
    assert store.size("a/nope") is None
    with pytest.raises(ExportError, match="missing from the store") as caught:
        content(store, "a/nope")
    assert caught.value.permanent


def test_names_are_those_below_a_folder_and_no_neighbours(store: Store) -> None:
    for name in ("abc/1", "abc/pieces/2", "abcd/3", "ab", "x/abc/4"):
        put(store, name, b"x")
    assert sorted(store.names("abc")) == ["abc/1", "abc/pieces/2"]
    assert sorted(store.names("abc/pieces/")) == ["abc/pieces/2"]
    assert list(store.names("nope")) == []


def test_deleting_a_folder_leaves_its_neighbours(store: Store) -> None:
    for name in ("abc/1", "abc/pieces/2", "abcd/3", "ab/4"):
        put(store, name, b"x")
    store.delete("abc")
    left = [name for folder in ("abc", "abcd", "ab") for name in store.names(folder)]
    assert left == ["abcd/3", "ab/4"]


def test_deleting_a_folder_leaves_what_a_neighbour_is_writing(store: Store) -> None:
    sink = store.create("abcd/file")
    sink.write(b"x" * (PART + 1))
    store.delete("abc")
    sink.finish()
    assert store.size("abcd/file") == PART + 1


def test_deleting_a_file_leaves_those_beside_it(store: Store) -> None:
    put(store, "a/1", b"x")
    put(store, "a/12", b"y")
    store.delete("a/1")
    assert list(store.names("a")) == ["a/12"]


def test_deleting_nothing_is_silent(store: Store) -> None:
    store.delete("nope/1")
    put(store, "a/1", b"x")
    store.delete("a")
    store.delete("a")
    assert list(store.names("a")) == []


def test_pieces_join_to_a_file(store: Store) -> None:
    contents = [b"id\r\n", b"", b"x" * (PART + 3), b"y"]
    pieces = []
    for number, data in enumerate(contents):
        put(store, f"a/pieces/{number}", data)
        pieces.append(PieceResult(f"a/pieces/{number}", 1, len(data), hashlib.sha256(data).hexdigest()))
    file = join_pieces(pieces, "a/1/file.csv", store)
    assert content(store, "a/1/file.csv") == b"".join(contents)
    assert file.bytes == store.size("a/1/file.csv")


@pytest.mark.parametrize("url", ["", "ftp://host", "/srv/files"])
def test_an_address_that_no_store_knows_is_told(url: str) -> None:
    with pytest.raises(ExportError, match="storage is not set up") as caught:
        open_store(url)
    assert caught.value.permanent
