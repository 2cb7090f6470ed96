"""Pieces: what was read is what is stored, an early end leaves exactly the rest, and a failure leaves nothing."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from exportapp.engine.chunks import write_piece
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import ExportError, Interrupted
from exportapp.engine.readers import base, open_reader, sqlite
from exportapp.engine.sinks.memory import MemorySink, MemoryStore
from exportapp.engine.specs import ChunkSpec, Column, Key, KeyRange, PieceResult, Query, Row
from tests.engine.scenes import ListReader, query, sqlite_source

ROWS: list[Row] = [(b"a%d" % number, b"%d" % number) for number in range(1, 8)]
KEYED = query("t", "name", "id:integer")
LINES = b"".join(b'"a%d"\r\n' % number for number in range(1, 8))


def chunk(wanted: Query = KEYED, key_range: KeyRange | None = None, **more: object) -> ChunkSpec:
    spec = ChunkSpec(wanted, key_range or KeyRange(), "csv", "none", "piece", False, "test", 3600)
    return dataclasses.replace(spec, **more)  # type: ignore[arg-type]


def stopping_after(batches: int) -> Callable[[], bool]:
    """Says "stop" when asked for the `batches`th time, and ever after."""
    asked: list[int] = []
    return lambda: asked.append(1) or len(asked) >= batches  # type: ignore[func-returns-value]


def test_a_piece_holds_the_rows_without_their_keys() -> None:
    store = MemoryStore()
    piece = write_piece(chunk(), ListReader(ROWS), store)
    assert store.files == {"piece": LINES}
    assert piece == PieceResult("piece", 7, len(LINES), hashlib.sha256(LINES).hexdigest())


def test_bytes_and_hash_are_those_of_the_compressed_file() -> None:
    store = MemoryStore()
    piece = write_piece(chunk(compression="gzip"), ListReader(ROWS), store)
    stored = store.files["piece"]
    assert gzip.decompress(stored) == LINES
    assert (piece.bytes, piece.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())


def test_only_the_first_piece_has_the_header() -> None:
    store = MemoryStore()
    write_piece(chunk(first=True), ListReader(ROWS), store)
    assert store.files["piece"] == b'"name"\r\n' + LINES


def test_no_rows_make_an_empty_piece_and_a_file_of_its_header() -> None:
    store = MemoryStore()
    assert write_piece(chunk(), ListReader([]), store).rows == 0
    write_piece(chunk(first=True, name="first"), ListReader([]), store)
    assert store.files == {"piece": b"", "first": b'"name"\r\n'}


def test_the_types_are_those_that_the_source_has() -> None:
    class Typing(ListReader):
        def typed(self, query: Query) -> tuple[Column, ...]:
            return (Column("name", "integer"),)

    store = MemoryStore()
    write_piece(chunk(), Typing([(b"1", b"1")]), store)
    assert store.files == {"piece": b"1\r\n"}


# --- ending early ----------------------------------------------------------------------------------------------------


def pieces_of(reader: base.Reader, wanted: Query, cut: int, upto: Key | None = None) -> tuple[list[PieceResult], bytes]:
    """The pieces of a range when the first ends after `cut` batches, and the remainder as soon as it may."""
    store, after = MemoryStore(), None
    pieces: list[PieceResult] = []
    while not pieces or pieces[-1].last_key is not None:
        spec = chunk(wanted, KeyRange(after, upto), name=f"{len(pieces):03d}")
        pieces.append(write_piece(spec, reader, store, stopping=stopping_after(1 if pieces else cut)))
        after = pieces[-1].last_key
        assert len(pieces) < 50
    return pieces, b"".join(store.files[piece.name] for piece in pieces)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("cut", range(1, 9))
def test_an_early_end_leaves_exactly_the_rest(batch: int, cut: int) -> None:
    pieces, whole = pieces_of(ListReader(ROWS, batch), KEYED, cut)
    assert whole == LINES
    assert sum(piece.rows for piece in pieces) == len(ROWS)
    assert pieces[0].rows == min(7, batch * cut)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("cut", range(1, 9))
def test_rows_of_one_key_are_never_parted_where_a_key_is_not_unique(batch: int, cut: int) -> None:
    """A view's key is only declared to be unique, and the remainder begins behind the last key."""
    twins: list[Row] = [(b"a%d" % number, b"%d" % key) for number, key in enumerate((1, 2, 2, 2, 3, 3, 4, 4), 1)]
    pieces, whole = pieces_of(ListReader(twins, batch), KEYED, cut)
    assert whole == b"".join(b'"a%d"\r\n' % number for number in range(1, 9))
    assert sum(piece.rows for piece in pieces) == 8


SHOPS = ("Ä", "a", "aa", "B", "'%", "")
TABLE = "CREATE TABLE line (shop TEXT, day DATE, place INTEGER, mark BLOB, note TEXT, PRIMARY KEY (shop, day, place));"
LINE = "INSERT INTO line VALUES ('{}', '2024-01-0{}', {}, x'{:02x}00', 'row-{}');"
SCRIPT = TABLE + "".join(
    LINE.format(SHOPS[row % 6].replace("'", "''"), 1 + row // 6 % 3, row // 18 - 1, 250 - row * 9, row)
    for row in range(27)
)


@pytest.mark.parametrize("key", ["shop day:date place:integer", "mark:binary", "note"])
def test_the_rest_is_exact_at_every_cut_of_composite_binary_and_text_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(sqlite, "BATCH_ROWS", 1)
    wanted = query("line", "note", key)
    with open_reader(sqlite_source(tmp_path, SCRIPT)) as reader:
        [planned] = reader.plan(wanted, 10, "").ranges
        for cut in range(1, 28):
            pieces, whole = pieces_of(reader, wanted, cut, planned.upto)
            assert sorted(whole.split()) == sorted(b'"row-%d"' % number for number in range(27))
            assert [piece.rows for piece in pieces] == [cut] + [1] * (27 - cut)


def test_time_alone_ends_a_piece_with_a_key_after_its_batch() -> None:
    piece = write_piece(chunk(seconds=0), ListReader(ROWS), MemoryStore())
    assert (piece.rows, piece.last_key) == (2, (2,))


def test_a_range_that_was_read_to_its_end_has_no_remainder() -> None:
    piece = write_piece(chunk(key_range=KeyRange(None, (2,)), seconds=0), ListReader(ROWS), MemoryStore())
    assert (piece.rows, piece.last_key) == (2, None)


KEYLESS = query("t", "name id:integer")


def test_without_a_key_time_ends_nothing() -> None:
    piece = write_piece(chunk(KEYLESS, seconds=0), ListReader(ROWS), MemoryStore())
    assert (piece.rows, piece.last_key) == (7, None)


def test_without_a_key_stopping_gives_the_piece_up() -> None:
    store = MemoryStore()
    with pytest.raises(Interrupted):
        write_piece(chunk(KEYLESS), ListReader(ROWS), store, stopping=stopping_after(2))
    assert store.files == {}


def test_a_format_whose_pieces_do_not_join_is_not_ended_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "csv", dataclasses.replace(FORMATS["csv"], joins=False))
    assert write_piece(chunk(seconds=0), ListReader(ROWS), MemoryStore()).rows == 7
    with pytest.raises(Interrupted):
        write_piece(chunk(), ListReader(ROWS), MemoryStore(), stopping=lambda: True)


# --- failing ---------------------------------------------------------------------------------------------------------


class Disaster(Exception):
    pass


def disaster(*_: object) -> None:
    raise Disaster


class WatchedStore(MemoryStore):
    """Knows which sinks were aborted, and can refuse to finish one."""

    def __init__(self, failing: str = "") -> None:
        super().__init__()
        self.aborted: list[str] = []
        self.failing = failing

    def create(self, name: str) -> MemorySink:
        sink = super().create(name)
        sink.abort = lambda: self.aborted.append(name)  # type: ignore[method-assign]
        if self.failing:
            setattr(sink, self.failing, disaster)
        return sink


@pytest.mark.parametrize("part", ["reader", "write", "finish", "progress", "stopping"])
def test_whatever_fails_nothing_stays_under_the_name(part: str) -> None:
    store = WatchedStore(part if part in ("write", "finish") else "")
    reader = ListReader(ROWS, then=disaster if part == "reader" else lambda: None)
    more = {part: disaster} if part in ("progress", "stopping") else {}
    with pytest.raises(Disaster):
        write_piece(chunk(), reader, store, **more)  # type: ignore[arg-type]
    assert (store.files, store.aborted) == ({}, ["piece"])


def test_a_value_that_the_format_cannot_hold_ends_the_piece() -> None:
    store = WatchedStore()
    with pytest.raises(ExportError):
        write_piece(chunk(format="jsonl"), ListReader([*ROWS, (b"\xff", b"8")]), store)
    assert (store.files, store.aborted) == ({}, ["piece"])


def test_progress_is_told_after_each_batch() -> None:
    told: list[tuple[int, int]] = []
    piece = write_piece(chunk(), ListReader(ROWS), MemoryStore(), progress=lambda rows, size: told.append((rows, size)))
    assert [rows for rows, _ in told] == [2, 4, 6, 7, 7]
    sizes = [size for _, size in told]  # of what has reached the store by then: a block may still be on its way there
    assert sizes == sorted(sizes)
    assert sizes[-1] == piece.bytes


def test_who_gives_up_at_the_end_leaves_nothing_under_the_name() -> None:
    def give_up(rows: int, size: int) -> None:
        if (rows, size) == (7, whole.bytes):
            raise Interrupted

    whole = write_piece(chunk(), ListReader(ROWS), MemoryStore())
    store = MemoryStore()
    with pytest.raises(Interrupted):
        write_piece(chunk(), ListReader(ROWS), store, progress=give_up)
    assert not store.files


def test_what_goes_wrong_in_the_store_ends_the_piece_at_the_next_block() -> None:
    class FullSink(MemorySink):
        def write(self, data: bytes) -> None:
            raise ExportError("The disk is full.")

    store = MemoryStore()
    store.create = lambda name: FullSink(store.files, name)  # type: ignore[method-assign]
    told: list[int] = []
    with pytest.raises(ExportError, match="disk is full"):
        write_piece(chunk(), ListReader(ROWS), store, progress=lambda rows, size: told.append(rows))
    assert told == [2]
    assert not store.files


def test_a_batch_is_written_before_the_next_is_read() -> None:
    events: list[str] = []
    reader = ListReader(ROWS, 3, then=lambda: events.append("read"))
    write_piece(chunk(), reader, MemoryStore(), progress=lambda rows, size: events.append(f"wrote {rows}"))
    assert events == ["wrote 3", "read", "wrote 6", "read", "wrote 7", "wrote 7"]
