"""Assembling: the pieces in their order make the file; one that is not what its chunk wrote makes none."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence

import pytest

from exportapp.engine.assemble import join_pieces
from exportapp.engine.errors import ExportError
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import FileResult, PieceResult

CONTENTS = {"c": b"id\r\n1\r\n", "a": b"2\r\n", "empty": b"", "b": b"3\r\n4\r\n"}
WHOLE = b"id\r\n1\r\n2\r\n3\r\n4\r\n"


def stored(contents: dict[str, bytes]) -> tuple[MemoryStore, list[PieceResult]]:
    store = MemoryStore()
    store.files.update(contents)
    return store, [
        PieceResult(name, data.count(b"\n"), len(data), hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    ]


def refused(store: MemoryStore, pieces: Sequence[PieceResult]) -> ExportError:
    """The error that joining ends with; no file has come of it, and the pieces are as they were."""
    before = dict(store.files)
    with pytest.raises(ExportError) as caught:
        join_pieces(pieces, "file", store)
    assert store.files == before
    return caught.value


def test_pieces_are_joined_in_the_order_given_whatever_their_names() -> None:
    store, pieces = stored(CONTENTS)
    file = join_pieces(pieces, "file", store)
    assert store.files["file"] == WHOLE
    assert file == FileResult("file", 5, len(WHOLE), hashlib.sha256(WHOLE).hexdigest())


def test_the_pieces_stay() -> None:
    store, pieces = stored(CONTENTS)
    join_pieces(pieces, "file", store)
    assert store.files == CONTENTS | {"file": WHOLE}


def test_compressed_pieces_make_one_compressed_file() -> None:
    store, pieces = stored({name: gzip.compress(data) for name, data in CONTENTS.items()})
    join_pieces(pieces, "file", store)
    assert gzip.decompress(store.files["file"]) == WHOLE


def test_no_pieces_make_an_empty_file() -> None:
    store = MemoryStore()
    assert join_pieces([], "file", store).bytes == 0
    assert store.files == {"file": b""}


@pytest.mark.parametrize("name", list(CONTENTS))
def test_a_missing_piece_ends_the_export(name: str) -> None:
    store, pieces = stored(CONTENTS)
    del store.files[name]
    error = refused(store, pieces)
    assert (error.permanent, error.sentence) == (True, "A part of the export is missing from the store.")


@pytest.mark.parametrize("data", [b"2\r\n3\r\n", b"2\r", b"", b"3\r\n"], ids=["longer", "shorter", "empty", "changed"])
def test_a_damaged_piece_ends_the_export(data: bytes) -> None:
    store, pieces = stored(CONTENTS)
    store.files["a"] = data
    error = refused(store, pieces)
    assert error.permanent
    assert "damaged" in error.sentence


def test_two_pieces_that_changed_places_end_the_export() -> None:
    store, pieces = stored(CONTENTS)
    store.files["a"], store.files["b"] = store.files["b"], store.files["a"]
    assert "damaged" in refused(store, pieces).sentence


def test_progress_tells_all_bytes_so_far() -> None:
    store, pieces = stored(CONTENTS)
    told: list[int] = []
    join_pieces(pieces, "file", store, progress=told.append)
    assert told == [7, 10, 10, 16]


def test_giving_up_in_progress_leaves_no_file() -> None:
    store, pieces = stored(CONTENTS)

    def give_up(size: int) -> None:
        if size == 10:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        join_pieces(pieces, "file", store, progress=give_up)
    assert "file" not in store.files
