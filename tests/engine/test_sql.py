"""SQL texts, tried on SQLite: names are quoted whatever they hold, values are bound, and keys compare as tuples do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from typing import Any

import pytest

from exportapp.engine import sql
from exportapp.engine.readers import mysql
from exportapp.engine.readers.sqlite import DIALECT
from exportapp.engine.specs import Column, Condition, Key, KeyRange, Query
from tests.engine.scenes import columns, query

HOSTILE = [
    "a`b",
    "``",
    'a"b',
    "a'b",
    "a.b",
    "%s",
    "?",
    "-- x",
    "/* x",
    "x */",
    "a; DROP TABLE t",
    "größe 🦀",
    " ",
    "\\",
]
MYSQL = mysql.DIALECT


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


def found(database: sqlite3.Connection, wanted: Query, key_range: KeyRange = KeyRange()) -> list[Any]:  # noqa: B008
    """The query's columns of all rows that the WHERE clause lets through, in key order."""
    clause, values = sql.where(DIALECT, wanted, key_range)
    names = ", ".join(DIALECT.column(column) for column in wanted.columns)
    source, order = sql.source(DIALECT, wanted), sql.order(DIALECT, wanted)
    return database.execute(f"SELECT {names} FROM {source}{clause}{order}", values).fetchall()


def matching(database: sqlite3.Connection, column: Column, op: str, *values: str) -> list[Any]:
    """The values in the only column of table t that meet a condition."""
    return [value for [value] in found(database, Query("t", False, (column,), (), (Condition(column, op, values),)))]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_a_column_and_nothing_else(database: sqlite3.Connection, name: str) -> None:
    column = Column(name)
    database.execute(f"CREATE TABLE t ({DIALECT.column(column)})")
    database.execute("INSERT INTO t VALUES ('x'), ('y')")
    wanted = Query("t", False, (column,), (column,), (Condition(column, "eq", ("x",)),))
    assert found(database, wanted) == [("x",)]


@pytest.mark.parametrize("name", [name for name in HOSTILE if "." not in name])
def test_a_hostile_name_is_a_table_and_nothing_else(database: sqlite3.Connection, name: str) -> None:
    database.execute(f"CREATE TABLE {DIALECT.name(name)} (a)")
    assert found(database, query(name, "a")) == []


def test_a_qualified_table_is_quoted_part_by_part_and_a_column_never_split() -> None:
    assert DIALECT.name("main.t`") == "`main`.`t```"
    assert DIALECT.column(Column("main.t`")) == "`main.t```"


def test_a_query_stands_in_brackets(database: sqlite3.Connection) -> None:
    wanted = query("SELECT 1 AS a UNION SELECT 2", "a", "a:integer", is_query=True)
    assert found(database, wanted, KeyRange((1,))) == [(2,)]


@pytest.mark.parametrize("op", sorted(sql.OPERATORS))
def test_values_are_bound_and_never_part_of_the_text(op: str) -> None:
    hostile = "' OR 1=1 -- \0 ?"
    clause, values = sql.where(MYSQL, query("t", "a", conditions=(Condition(Column("a"), op, (hostile,)),)), KeyRange())
    assert "1=1" not in clause
    assert clause.count(MYSQL.mark) == len(values)
    assert len(values) == (0 if "empty" in op else 2 if op == "exactly" else 1)


def test_nothing_to_restrict_makes_no_clause() -> None:
    assert sql.where(DIALECT, query("t", "a"), KeyRange()) == ("", [])


@pytest.mark.parametrize("width", [1, 2, 3])
def test_ranges_of_composite_keys_hold_what_tuples_say(database: sqlite3.Connection, width: int) -> None:
    keys: list[Key] = list(product((-1, 0, 7), repeat=width))
    names = " ".join(f"k{place}:integer" for place in range(width))
    database.execute(f"CREATE TABLE t ({', '.join(f'k{place} INTEGER' for place in range(width))})")
    database.executemany(f"INSERT INTO t VALUES ({', '.join('?' * width)})", keys)
    wanted = query("t", names, names)
    for after, upto in product([None, *keys], repeat=2):
        within = [key for key in keys if (after is None or key > after) and (upto is None or key <= upto)]
        assert found(database, wanted, KeyRange(after, upto)) == within


def test_a_range_narrows_the_conditions_and_does_not_widen_them(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE t (a INTEGER, b INTEGER)")
    database.executemany("INSERT INTO t VALUES (?, ?)", product(range(3), repeat=2))
    condition = Condition(Column("b", "integer"), "eq", ("1",))
    wanted = query("t", "a b", "a:integer b:integer", conditions=(condition,))
    assert found(database, wanted, KeyRange((0, 1), (2, 1))) == [(1, 1), (2, 1)]


def test_contains_takes_every_letter_as_itself(database: sqlite3.Connection) -> None:
    texts = ["100%", "100x", "a_b", "axb", "!", "a!b", "!%", "!_", "\\", "a\\b", "%", "_", "", "'", "größer"]
    database.execute("CREATE TABLE t (a TEXT)")
    database.executemany("INSERT INTO t VALUES (?)", [[text] for text in texts])
    for part in [*texts, "%%", "0%", "_b", "!%", "öß"]:
        assert matching(database, Column("a"), "contains", part) == [text for text in texts if part in text], part


def test_empty_and_not_empty_share_all_rows_between_them(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE t (a)")
    database.execute("INSERT INTO t VALUES (NULL), (''), (' '), ('x')")
    assert matching(database, Column("a"), "empty") == [None, ""]
    assert matching(database, Column("a"), "not_empty") == [" ", "x"]


def test_only_null_is_empty_where_the_column_is_no_text(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")
    database.execute("INSERT INTO t VALUES (NULL), (0)")
    assert matching(database, Column("a", "integer"), "empty") == [None]
    assert matching(database, Column("a", "integer"), "not_empty") == [0]


def test_numbers_are_compared_as_numbers(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE t (a DECIMAL)")
    database.execute("INSERT INTO t VALUES (9), (10), (12.5)")
    assert matching(database, Column("a", "decimal"), "ge", "10.00") == [10, 12.5]
    assert matching(database, Column("a", "decimal"), "in", "12.50", "9") == [9, 12.5]
    assert matching(database, Column("a", "integer"), "gt", "9") == [10, 12.5]
    assert matching(database, Column("a", "float"), "lt", "1e1") == [9]


@pytest.mark.parametrize(
    ("value", "scale"), [("1.50", 2), ("-7", 0), ("1" * 60, 0), ("1E-5", 5), (f"0.{'1' * 40}", 30)]
)
def test_a_decimal_has_as_many_places_as_it_needs_and_all_others_before_the_point(value: str, scale: int) -> None:
    condition = Condition(Column("a", "decimal"), "eq", (value,))
    assert sql.where(DIALECT, query("t", "a", conditions=(condition,)), KeyRange()) == (
        f" WHERE `a` = CAST(? AS DECIMAL(65,{scale}))",
        [value],
    )


def test_a_list_of_nothing_lets_no_row_through(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE t (a)")
    database.execute("INSERT INTO t VALUES ('x'), (NULL)")
    assert matching(database, Column("a"), "in") == []


@pytest.mark.parametrize("text", ["x */ DROP TABLE t; /*", "*/", "**//", "/*", "export=1 step=2", "%s ? \0"])
def test_a_comment_cannot_end_early(text: str) -> None:
    comment = sql.comment(text)
    assert comment.startswith("/* ")
    assert comment.index("*/") == len(comment) - len("*/ ")


def test_no_comment_is_no_text() -> None:
    assert sql.comment("") == ""


@pytest.mark.parametrize(
    ("row", "is_found"), [((1, None), True), ((None, 1), True), ((1, 1), False), ((2, None), False)]
)
def test_null_in_any_part_of_a_key_is_found_among_the_rows_that_are_meant(
    database: sqlite3.Connection, row: tuple[int | None, int | None], is_found: bool
) -> None:
    database.execute("CREATE TABLE t (a, b)")
    database.execute("INSERT INTO t VALUES (?, ?)", row)
    condition = Condition(Column("a", "integer"), "lt", ("2",))
    either = query("t", "a", "a:integer b:integer", conditions=(condition,) if row[0] else ())
    assert bool(database.execute(*sql.with_null_key(DIALECT, either)).fetchall()) is is_found


def test_values_are_typed_for_their_column() -> None:
    kinds = columns("a:integer b:boolean c:float d:binary e:decimal f:datetime g")
    values = ("-7", "1", "1e3", "00ff", "1.10", "2024-01-01", "1")
    typed = [sql.bound(column, value) for column, value in zip(kinds, values, strict=True)]
    assert typed == [-7, 1, 1000.0, b"\x00\xff", "1.10", "2024-01-01", "1"]
