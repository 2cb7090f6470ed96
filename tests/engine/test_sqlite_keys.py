"""Keys in SQLite, where any column may hold values of any type and of any collation: ranges lose no row, or a plan refuses."""

from __future__ import annotations

import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import key_of
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.specs import Column, Condition, Plan, Query, Row
from tests.engine.scenes import Opening, query, rows_of


def rests(reader: SQLiteReader, wanted: Query) -> list[list[Row]]:
    """What a remainder behind each of the rows has."""
    keys = [tuple(row[place] for place in wanted.key_places) for row in rows_of(reader, wanted)]
    return [rows_of(reader, wanted, key_of(wanted.key, key)) for key in keys]


# --- values of another kind ------------------------------------------------------------------------------------------

STRANGE = {
    "texts as binary": ("CREATE TABLE t (k BLOB); INSERT INTO t VALUES ('aa'), ('bb')", "k:binary"),
    "a text among binary ones": ("CREATE TABLE t (k); INSERT INTO t VALUES (x'01'), ('b'), (x'02')", "k:binary"),
    "a blob among texts": ("CREATE TABLE t (k TEXT); INSERT INTO t VALUES (x'6161'), ('b')", "k"),
    "numbers as texts": ("CREATE TABLE t (k); INSERT INTO t VALUES ('a'), (7)", "k"),
    "texts as integers": ("CREATE TABLE t (k TEXT); INSERT INTO t VALUES ('9'), ('59')", "k:integer"),
    "a text among integers": ("CREATE TABLE t (k); INSERT INTO t VALUES (1), ('5'), (9)", "k:integer"),
    "fractions as integers": ("CREATE TABLE t (k REAL); INSERT INTO t VALUES (1), (2)", "k:integer"),
    "seconds as times": (
        "CREATE TABLE b (n INTEGER); INSERT INTO b VALUES (1700000000); CREATE VIEW t AS SELECT n AS k FROM b",
        "k:datetime",
    ),
    "a number as a date": ("CREATE TABLE t (k DATE); INSERT INTO t VALUES ('2024-01-01'), (20240102)", "k:date"),
    "behind another": ("CREATE TABLE t (a INTEGER, k TEXT); INSERT INTO t VALUES (1, 'x'), (1, x'78')", "a:integer k"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "key"), STRANGE.values(), ids=STRANGE)
def test_a_key_that_is_stored_as_something_else_is_refused_because_rows_would_be_lost(
    opened: Opening, script: str, key: str
) -> None:
    kind = key.rpartition("k")[2].strip(":") or "text"
    said = f"The key column k is declared as {kind} but some rows hold something else. An operator has to correct the dataset."
    with pytest.raises(ExportError, match=said) as caught:
        opened(script).plan(query("t", key, key), 3, "")
    assert caught.value.permanent


def test_only_the_rows_that_are_meant_have_to_fit_a_key(opened: Opening) -> None:
    reader = opened("CREATE TABLE t (a INTEGER, k); INSERT INTO t VALUES (1, 'x'), (2, 7), (3, NULL)")
    first = Condition(Column("a", "integer"), "eq", ("1",))
    assert reader.plan(query("t", "a", "k", conditions=(first,)), 3, "").rows == 1


FITTING = {
    "integers": ("CREATE TABLE t (k); INSERT INTO t VALUES (9), (-1), (59), (10)", "k:integer"),
    "texts": ("CREATE TABLE t (k TEXT); INSERT INTO t VALUES ('9'), ('b'), ('59'), ('')", "k"),
    "binary": ("CREATE TABLE t (k); INSERT INTO t VALUES (x'01'), (x'ff00'), (x''), (x'61')", "k:binary"),
    "dates": ("CREATE TABLE t (k DATE); INSERT INTO t VALUES ('2024-02-01'), ('2024-01-01'), ('2023-01-01')", "k:date"),
    "times": ("CREATE TABLE t (k DATETIME); INSERT INTO t VALUES ('2024-02-01 10:00'), ('2024-01-01')", "k:datetime"),
    "several": ("CREATE TABLE t (a TEXT, k); INSERT INTO t VALUES ('x', 9), ('x', 10), ('X', 9), ('y', -1)", "a k:integer"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "key"), FITTING.values(), ids=FITTING)
def test_a_key_that_is_stored_as_declared_loses_no_row(opened: Opening, script: str, key: str) -> None:
    reader, wanted = opened(script), query("t", key, key)
    everything = rows_of(reader, wanted)
    assert rests(reader, wanted) == [everything[place + 1 :] for place in range(len(everything))]
    assert planned(reader, wanted) == everything


def planned(reader: SQLiteReader, wanted: Query) -> list[Row]:
    """The rows of all ranges of a plan."""
    plan: Plan = reader.plan(wanted, 1, "")
    return [row for one in plan.ranges for row in rows_of(reader, wanted, one.after, one.upto)]


# --- values that a collation takes for one ---------------------------------------------------------------------------

LETTERS = "INSERT INTO b VALUES ('a'), ('B'), ('b'), ('A'), ('a '), ('D'), ('c '), ('c')"
ALIKE = {
    "a table": f"CREATE TABLE b (k TEXT COLLATE NOCASE); {LETTERS}; ALTER TABLE b RENAME TO t",
    "a table whose index is exact": f"CREATE TABLE b (k TEXT COLLATE NOCASE); CREATE UNIQUE INDEX i ON b (k COLLATE BINARY);"
                                    f"{LETTERS}; ALTER TABLE b RENAME TO t",
    "a view": f"CREATE TABLE b (k TEXT PRIMARY KEY); {LETTERS}; CREATE VIEW t AS SELECT k COLLATE NOCASE AS k FROM b",
    "spaces": f"CREATE TABLE b (k TEXT COLLATE RTRIM); {LETTERS}; ALTER TABLE b RENAME TO t",
}  # fmt: skip


@pytest.mark.parametrize("script", ALIKE.values(), ids=ALIKE)
def test_keys_that_only_a_collation_takes_for_one_lose_no_row(opened: Opening, script: str) -> None:
    reader, wanted = opened(script), query("t", "k", "k")
    everything = rows_of(reader, wanted)
    assert everything == [(text,) for text in (b"A", b"B", b"D", b"a", b"a ", b"b", b"c", b"c ")]
    assert rests(reader, wanted) == [everything[place + 1 :] for place in range(len(everything))]
    assert planned(reader, wanted) == everything


def test_conditions_on_a_key_go_by_its_collation_as_people_search(opened: Opening) -> None:
    reader = opened(ALIKE["a table"])
    condition = Condition(Column("k"), "eq", ("A",))
    wanted = query("t", "k", "k", conditions=(condition,))
    assert rows_of(reader, wanted) == [(b"A",), (b"a",)]
    assert rows_of(reader, wanted, ("A",), ("z",)) == [(b"a",)]


def test_a_key_may_be_named_like_a_part_of_the_statement(opened: Opening) -> None:
    reader = opened("CREATE TABLE t (`a WHERE b` TEXT); INSERT INTO t VALUES ('x'), ('y')")
    name = Column("a WHERE b")
    wanted = Query("t", False, (name,), (name,), (Condition(name, "ge", ("x",)),))
    assert rows_of(reader, wanted, ("x",)) == [(b"y",)]


@pytest.mark.parametrize("key", ["id:integer", "k", "k n:integer", "d:datetime", "b:binary"])
def test_an_index_in_the_order_of_bytes_finds_and_orders_the_rows(opened: Opening, key: str) -> None:
    reader = opened("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, n INTEGER, d DATETIME UNIQUE, b BLOB UNIQUE, v);"
                    "CREATE UNIQUE INDEX i ON t (k, n)")  # fmt: skip
    statements: list[str] = []
    reader._connection.set_trace_callback(statements.append)
    wanted = query("t", "v", key)
    rows_of(reader, wanted, key_of(wanted.key, tuple(b"1" for _ in wanted.key)))
    reader._connection.set_trace_callback(None)
    [steps] = [list(reader._connection.execute(f"EXPLAIN QUERY PLAN {statement}")) for statement in statements]
    assert [step[3].split(b" USING ")[0] for step in steps] == [b"SEARCH t"]
