"""Runs: neighbouring columns that come as one value are told apart again, and lose nothing on the way to the file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from exportapp.engine.chunks import write_piece
from exportapp.engine.encoders import FORMATS
from exportapp.engine.runs import Layout, Run, grouped, runs_of
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import ChunkSpec, Column, FileOptions, KeyRange, Query, Row
from tests.engine.scenes import ListReader, columns

MIXED = tuple(
    replace(one, bare=one.type != "text") for one in columns("a:integer b:date c d:integer e f:integer g:integer")
)


def test_neighbours_that_may_stand_together_are_one_group() -> None:
    groups = grouped(MIXED, lambda column: column.bare)
    assert [[column.name for column in group] for group in groups] == [["a", "b"], ["c"], ["d"], ["e"], ["f", "g"]]
    assert runs_of(groups, "NULL", lambda column: column.name) == (Run(0, ("b",), "NULL"), Run(5, ("g",), "NULL"))


def test_a_column_is_found_by_itself_and_in_its_run() -> None:
    layout = Layout(8, (Run(0, (",",), ""), Run(5, (";",), "")))
    assert [layout.place(index) for index in range(8)] == [0, 0, 1, 2, 3, 4, 4, 5]
    row: Row = (b"1,2", None, b"4", b"5", b";7", b"8")
    assert [layout.value(row, index) for index in range(8)] == [b"1", b"2", None, b"4", b"5", None, b"7", b"8"]


ROWS: list[Row] = [(b"1", b"2024-01-31", b"x,y", b"7", b"-1", b"-1", None), (b"2", None, None, None, b"", None, b"5")]


@pytest.mark.parametrize("null", ["", "NULL", "\\N"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_a_file_is_the_same_with_runs_and_without(name: str, delimiter: str, null: str) -> None:
    options = FileOptions(delimiter=delimiter, null=null)
    files = []
    for bare in (True, False):
        wanted = Query(
            "t", False, tuple(replace(one, bare=bare and one.bare, bits=one.bare * 64 or None) for one in MIXED)
        )
        spec = ChunkSpec(wanted, KeyRange(), name, "none", "piece", True, "test", 3600, options)
        store = MemoryStore()
        assert write_piece(spec, ListReader(ROWS), store).rows == 2
        files.append(store.files["piece"])
    assert files[0] == files[1]


def test_numbers_of_a_json_row_come_as_one_value() -> None:
    wanted = tuple(replace(one, bits=64) for one in MIXED)
    encoder = FORMATS["jsonl"].encoder(wanted)
    [run] = encoder.runs
    assert run.values(b'null,"g":5') == (None, b"5")
    rows = [(b"1", b"2024-01-31", b"x", b"7", b"y", b'null,"g":5')]
    assert json.loads(encoder.encode(rows)) == {
        "a": 1,
        "b": "2024-01-31",
        "c": "x",
        "d": 7,
        "e": "y",
        "f": None,
        "g": 5,
    }


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].encoder(MIXED).runs])
def test_a_run_that_is_null_is_an_error_and_no_shorter_row(name: str) -> None:
    """As a server gives that cuts a text at its max_allowed_packet."""
    encoder = FORMATS[name].encoder(tuple(replace(one, bits=64) for one in MIXED))
    with pytest.raises(TypeError):
        encoder.encode([(None, None, b"7", b"y", None)])


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("cut", range(1, 7))
def test_a_key_within_a_run_leaves_exactly_the_rest(batch: int, cut: int) -> None:
    rows: list[Row] = [(b"%d" % (key // 2), b"x", b"%d" % (key % 2), b"", b"%d" % key) for key in range(6)]
    names = tuple(replace(one, bare=one.type != "text") for one in columns("a:integer x k:integer t n:integer"))
    key = (Column("a", "integer"), Column("k", "integer"))
    wanted = Query("t", False, (names[0], names[2], names[4], names[1]), key)
    rows = [(row[0], row[2], row[4], row[1]) for row in rows]
    store, after, pieces, stops = MemoryStore(), None, 0, iter([False] * (cut - 1) + [True] * 99)
    while not pieces or after:
        spec = ChunkSpec(wanted, KeyRange(after), "csv", "none", f"{pieces}", False, "test", 3600)
        after = write_piece(spec, ListReader(rows, batch), store, stopping=lambda: next(stops)).last_key
        pieces += 1
    assert b"".join(store.files.values()) == b"".join(
        b'%d,%d,%d,"x"\r\n' % (key // 2, key % 2, key) for key in range(6)
    )
