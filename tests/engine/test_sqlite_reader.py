"""The SQLite reader: values as they are declared or a sentence, plans that cover all rows, and a kill that holds."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.readers import sqlite
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.specs import Column, Condition, KeyRange, Plan, Query
from tests.engine.scenes import Opening, columns, query, rows_of, sqlite_source


def value(reader: SQLiteReader, literal: str, kind: str, scale: int | None = None) -> bytes | None:
    """What a column of type `kind` gives for one SQL literal."""
    [[raw]] = rows_of(reader, Query(f"SELECT {literal} AS a", True, (Column("a", kind, scale),)))
    return raw


VALUES = [
    ("9223372036854775807", "integer", b"9223372036854775807"), ("-9223372036854775808", "integer", b"-9223372036854775808"),
    ("'0012'", "integer", b"0012"), ("0.1", "float", b"0.1"), ("1e300", "float", b"1e+300"), ("-2.0", "float", b"-2.0"),
    ("'12.345'", "decimal", b"12.345"), ("1", "boolean", b"1"), ("'2024-02-29'", "date", b"2024-02-29"),
    ("'2024-02-29T10:00:00.5+01:00'", "datetime", b"2024-02-29T10:00:00.5+01:00"), ("'-838:59:59'", "time", b"-838:59:59"),
    ("1700000000", "datetime", b"1700000000"), ("'größer 🦀'", "text", "größer 🦀".encode()), ("''", "text", b""),
    ("7", "text", b"7"), ("1.50", "text", b"1.5"), ("x'00ff22'", "binary", b'\x00\xff"'), ("x'ff'", "text", b"\xff"),
    ("'{}'", "json", b"{}"), ("NULL", "integer", None), ("NULL", "date", None), ("NULL", "text", None), ("NULL", "binary", None),
]  # fmt: skip


@pytest.mark.parametrize(("literal", "kind", "raw"), VALUES)
def test_values_come_as_they_are_stored(opened: Opening, literal: str, kind: str, raw: bytes | None) -> None:
    assert value(opened(""), literal, kind) == raw


SCALED = [
    ("12.5", b"12.50"), ("12", b"12.00"), ("-0.1", b"-0.10"), ("NULL", None), ("1e999", b"inf"),
    ("9007199254740993", b"9007199254740993.00"), ("-9007199254740993", b"-9007199254740993.00"),  # no double has these
]  # fmt: skip


@pytest.mark.parametrize(("literal", "raw"), SCALED)
def test_a_scale_gives_binary_fractions_their_digits_back(opened: Opening, literal: str, raw: bytes | None) -> None:
    assert value(opened(""), literal, "decimal", 2) == raw


@pytest.mark.parametrize("kind", ["integer", "decimal", "float", "boolean", "date", "datetime", "time"])
@pytest.mark.parametrize("literal", ["'x'", "''", "'1,2'", "'\"'", "'1\n'", "'12 o''clock'"])
def test_a_text_where_none_is_declared_is_told_by_its_column(opened: Opening, kind: str, literal: str) -> None:
    with pytest.raises(ExportError, match=r"The column a is declared as a (number|time) but holds a text") as caught:
        value(opened(""), literal, kind)
    assert caught.value.permanent


# --- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "names", "key"), [("nope", "a", ""), ("t", "nope", ""), ("t", "a", "nope")])
def test_a_table_or_column_that_is_gone_is_told(opened: Opening, table: str, names: str, key: str) -> None:
    reader = opened("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    with pytest.raises(ExportError, match="no longer has what this dataset names") as caught:
        rows_of(reader, query(table, names, key))
    assert caught.value.permanent


def test_a_missing_file_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        SQLiteReader(f"sqlite:///{tmp_path}/nope.sqlite3")
    assert caught.value.permanent
    assert not list(tmp_path.iterdir())


def test_a_path_may_hold_anything(tmp_path: Path) -> None:
    folder = tmp_path / "a b?%23#größe"
    folder.mkdir()
    sqlite_source(folder, "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    quoted = str(folder).replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    reader = SQLiteReader(f"sqlite:///{quoted}/source.sqlite3")
    assert rows_of(reader, query("t", "a")) == [(b"1",)]
    reader.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "source.sqlite3").write_text("id,name\n" * 999)
    reader = SQLiteReader(f"sqlite:///{tmp_path}/source.sqlite3")
    with pytest.raises(ExportError, match="not a database"):
        rows_of(reader, query("t", "a"))
    reader.close()


def test_a_number_beyond_sqlites_range_is_told(opened: Opening) -> None:
    condition = Condition(Column("a", "integer"), "lt", (str(1 << 63),))
    with pytest.raises(ExportError, match="too large") as caught:
        rows_of(opened("CREATE TABLE t (a)"), query("t", "a", conditions=(condition,)))
    assert caught.value.permanent


# --- plan and stream -------------------------------------------------------------------------------------------------


def numbered(rows: int) -> str:
    """SQL that makes a temporary table n of the numbers 1, 2, ... in its column i."""
    return f"CREATE TEMP TABLE n AS WITH RECURSIVE m(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM m LIMIT {rows}) SELECT i FROM m;"


NUMBERS = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES {};".format(
    ", ".join(f"({number}, 'a{number % 3}')" for number in range(-5, 15))
)


def test_a_plan_counts_and_cuts_the_rows(opened: Opening) -> None:
    plan = opened(NUMBERS).plan(query("t", "a", "id:integer"), 7, "")
    assert (plan.rows, plan.exact, len(plan.ranges)) == (20, True, 3)


def test_the_ranges_of_a_plan_hold_every_row_once(opened: Opening) -> None:
    reader = opened(NUMBERS)
    wanted = query("t", "a", "id:integer")
    ranges = reader.plan(wanted, 3, "").ranges
    keys = [row[1] for one in ranges for row in rows_of(reader, wanted, one.after, one.upto)]
    assert keys == [b"%d" % number for number in range(-5, 15)]
    assert len(ranges) == 7


def test_a_plan_looks_only_at_the_rows_that_are_meant(opened: Opening) -> None:
    condition = Condition(Column("id", "integer"), "ge", ("10",))
    plan = opened(NUMBERS).plan(query("t", "a", "id:integer", conditions=(condition,)), 100, "")
    assert plan == Plan((KeyRange(None, (14,)),), 5, True)


@pytest.mark.parametrize(("key", "last"), [("a", ("a2",)), ("a id:integer", ("a2",))])
def test_other_keys_are_one_range_up_to_the_last(opened: Opening, key: str, last: tuple[str | int, ...]) -> None:
    assert opened(NUMBERS).plan(query("t", "id:integer", key), 3, "").ranges == (KeyRange(None, last),)


def test_without_a_key_or_rows_all_is_one_open_range(opened: Opening) -> None:
    reader = opened(NUMBERS)
    nothing = Condition(Column("id", "integer"), "gt", ("99",))
    assert reader.plan(query("t", "a"), 3, "") == Plan((KeyRange(),), 20, True)
    assert reader.plan(query("t", "a", "id:integer", conditions=(nothing,)), 3, "") == Plan((KeyRange(),), 0, True)


@pytest.mark.parametrize("key", ["a:integer", "b", "b a:integer"])
def test_a_key_that_holds_null_is_refused_because_its_row_would_be_lost(opened: Opening, key: str) -> None:
    reader = opened("CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (NULL, NULL)")
    with pytest.raises(ExportError, match="holds NULL") as caught:
        reader.plan(query("t", "a", key), 3, "")
    assert caught.value.permanent


def test_keys_that_sqlite_orders_without_case_lose_no_row(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BATCH_ROWS", 1)
    reader = opened("CREATE TABLE t (a TEXT COLLATE NOCASE, id INTEGER, PRIMARY KEY (a, id));"
                    "INSERT INTO t VALUES ('a', 2), ('A', 1), ('B', 1), ('b', 2), ('A', 3), ('c', 1)")  # fmt: skip
    wanted = query("t", "a id:integer", "a id:integer")
    ordered = rows_of(reader, wanted)
    for place, row in enumerate(ordered):
        assert rows_of(reader, wanted, ((row[0] or b"").decode(), int(row[1] or 0))) == ordered[place + 1 :]


def test_batches_are_bounded(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BATCH_ROWS", 6)
    batches = opened(NUMBERS).stream(query("t", "a"), KeyRange(), "")
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]


def test_batches_of_long_rows_are_bounded_in_bytes(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BATCH_BYTES", 10_000)
    reader = opened(f"CREATE TABLE t (a INTEGER, b, c TEXT); {numbered(300)}"
                    "INSERT INTO t SELECT i, zeroblob(600), printf('%.*c', 400, 'x') FROM n")  # fmt: skip
    sizes = [len(batch) for batch in reader.stream(query("t", "a:integer b:binary c"), KeyRange(), "")]
    assert sum(sizes) == 300
    assert max(sizes) == 16  # 1, 1, 2, 4, 8: of 8 there would be room


def test_long_rows_behind_short_ones_are_noticed_within_a_step(
    opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BATCH_BYTES", 10_000)
    reader = opened(f"CREATE TABLE t (a); {numbered(900)} INSERT INTO t SELECT i FROM n WHERE i <= 300;"
                    "INSERT INTO t SELECT zeroblob(1000) FROM n WHERE i > 300")  # fmt: skip
    batches = list(reader.stream(query("t", "a"), KeyRange(), ""))
    assert sum(map(len, batches)) == 900
    long = [sum(len(row[0] or b"") > 900 for row in batch) for batch in batches]
    assert max(long) <= 10 + sqlite.STEP_ROWS


def test_no_batch_is_kept_while_the_next_is_read(opened: Opening) -> None:
    reader = opened(f"CREATE TABLE t (a); {numbered(40)} INSERT INTO t SELECT zeroblob(1 << 20) FROM n")
    tracemalloc.start()
    assert sum(map(len, reader.stream(query("t", "a"), KeyRange(), ""))) == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9 << 20


def test_the_types_are_the_declared_ones(opened: Opening) -> None:
    assert opened("").typed(query("t", "a:integer b")) == columns("a:integer b")


# --- kill ------------------------------------------------------------------------------------------------------------

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2e7) SELECT count(*) AS a FROM n"


def ended_by_sqlite(error: ExportError) -> bool:
    """Whether the statement itself was ended, and not only what came after it."""
    return getattr(error.__cause__, "sqlite_errorname", "") == "SQLITE_INTERRUPT"


def test_a_kill_from_another_thread_ends_a_query_at_work(opened: Opening) -> None:
    reader = opened("")
    killer = threading.Timer(0.05, reader.kill)
    killer.start()
    with pytest.raises(ExportError) as caught:
        rows_of(reader, query(LONG, "a:integer", is_query=True))
    killer.join()
    assert not caught.value.permanent
    assert ended_by_sqlite(caught.value)


def test_a_kill_before_the_query_ends_it_too(opened: Opening) -> None:
    reader = opened("")
    reader.kill()
    for relation in (LONG, "SELECT 1 AS a"):
        with pytest.raises(ExportError, match="interrupted") as caught:
            rows_of(reader, query(relation, "a:integer", is_query=True))
        assert ended_by_sqlite(caught.value) is (relation == LONG)


def test_a_kill_between_two_batches_ends_the_stream(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BATCH_ROWS", 6)
    reader = opened(NUMBERS)
    batches = reader.stream(query("t", "a"), KeyRange(), "")
    next(batches)
    reader.kill()
    with pytest.raises(ExportError, match="interrupted"):
        next(batches)


def test_a_kill_after_the_end_harms_nobody(opened: Opening) -> None:
    reader = opened("")
    reader.close()
    reader.kill()
