"""Counting rows by day on real sources: by an index or where there are few, within its time, and the first rows alone."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import pytest

from exportapp.engine.readers import mysql, open_reader, sqlite
from exportapp.engine.readers.base import Histogram, Reader, TooSlow
from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.specs import Column, Condition
from tests.engine.scenes import Opening, query, rows_of, sqlite_source
from tests.engine.servers import Database, url_of_user

AT = Column("at", "datetime")
DAYS = tuple((f"2024-01-0{day}", day) for day in range(1, 5))
TEN = Histogram(10, True, "2024-01-01 00:00:01", "2024-01-04 00:00:04", DAYS)
ROWS = ", ".join(f"('{day} 00:00:0{number}')" for day, count in DAYS for number in range(1, count + 1))
FILLED = "CREATE TABLE t (at DATETIME); INSERT INTO t VALUES " + ROWS + ";"
INDEXED = FILLED + "CREATE INDEX t_at ON t (at);"
ENDLESS = "WITH RECURSIVE n(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM n) SELECT at FROM n"


def histogram(reader: Reader, relation: str = "t", column: Column | None = AT, seconds: float = 5) -> Histogram:
    return reader.histogram(query(relation, "at:datetime", is_query=" " in relation), column, seconds, "test")


# --- MySQL ------------------------------------------------------------------------------------------------------------


def test_rows_of_each_day_are_counted(database: Database, reader: MySQLReader) -> None:
    database.sql(INDEXED)
    assert histogram(reader) == TEN
    assert histogram(reader, f"{database.name}.t") == TEN


def test_without_a_time_only_the_rows_are_counted(database: Database, reader: MySQLReader) -> None:
    database.sql(FILLED)
    assert histogram(reader, column=None) == Histogram(10, True)


def test_rows_without_a_day_are_counted_and_stand_under_none(database: Database, reader: MySQLReader) -> None:
    database.sql(INDEXED + "SET sql_mode=''; INSERT INTO t VALUES (NULL), ('0000-00-00 00:00:00');")
    found = histogram(reader)
    assert (found.rows, found.days, found.newest) == (12, DAYS, TEN.newest)


def test_of_many_rows_days_are_counted_by_an_index_alone(
    database: Database, reader: MySQLReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COUNT_LIMIT", 9)
    database.sql(FILLED)
    found = histogram(reader)
    assert (found.exact, found.days, found.oldest) == (False, None, "")
    assert found.rows and found.rows >= 10
    database.sql("ALTER TABLE t ADD COLUMN other INT, ADD INDEX (other, at)")
    assert histogram(reader).days is None, "an index that begins with another column helps little"
    database.sql("CREATE INDEX t_at ON t (at)")
    assert histogram(reader) == TEN
    assert "Using index" in database.sql("EXPLAIN SELECT DATE(at), COUNT(*) FROM t GROUP BY 1")
    assert histogram(reader, "SELECT at FROM t").days is None, "nobody knows the indexes of a query"


def test_few_rows_of_a_view_or_a_query_are_counted_by_day_too(database: Database, reader: MySQLReader) -> None:
    database.sql(FILLED + "CREATE VIEW v AS SELECT at FROM t;")
    assert histogram(reader, "v") == TEN
    assert histogram(reader, "SELECT at FROM t") == TEN


def test_a_count_that_takes_too_long_is_given_up_on_the_server(
    database: Database, reader: MySQLReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "PLAN_SECONDS", 0.2)
    slow = "SELECT NOW() AS at FROM seq_1_to_1000 WHERE SLEEP(0.01) = 0"
    began = monotonic()
    found = histogram(reader, slow, seconds=0.2)
    assert monotonic() - began < 3
    assert (found.exact, found.days) == (False, None)
    database.sql(INDEXED)
    assert histogram(reader) == TEN, "the connection goes on"
    assert database.running("test") == []


def test_conditions_narrow_what_is_counted(database: Database, reader: MySQLReader) -> None:
    database.sql(INDEXED)
    narrow = query("t", "at:datetime", conditions=(Condition(AT, "ge", ("2024-01-04",)),))
    assert reader.histogram(narrow, AT, 5, "").days == DAYS[-1:]


def test_whoever_may_only_read_a_table_may_count_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "COUNT_LIMIT", 9)
    database.sql(INDEXED)
    with open_reader(url_of_user(database, "counter", table="t")) as reader:
        assert histogram(reader) == TEN


def test_the_first_rows_are_asked_for_alone(database: Database, reader: MySQLReader) -> None:
    database.sql("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_1000")
    reader.only_first(3, 2)
    assert rows_of(reader, query("t", "id", "id:integer")) == [(b"1",), (b"2",), (b"3",)]
    assert reader._rows("SHOW SESSION STATUS LIKE 'Handler_read_next'", [])[0][1] <= b"3"


def test_first_rows_that_take_too_long_are_told_apart(database: Database, reader: MySQLReader) -> None:
    reader.only_first(3, 0.2)
    slow = query("SELECT seq AS id, SLEEP(0.2) AS s FROM seq_1_to_1000 ORDER BY seq DESC", "id s", is_query=True)
    with pytest.raises(TooSlow):
        rows_of(reader, slow)
    assert rows_of(reader, query("SELECT 1 AS id", "id", is_query=True)) == [(b"1",)]


# --- SQLite -----------------------------------------------------------------------------------------------------------


def test_sqlite_counts_rows_of_each_day(opened: Opening) -> None:
    reader = opened(INDEXED)
    assert histogram(reader) == histogram(reader, "main.t") == histogram(reader, "SELECT at FROM t") == TEN
    assert histogram(reader, column=None) == Histogram(10, True)


def test_sqlite_counts_many_rows_by_an_index_alone(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "COUNT_LIMIT", 9)
    reader = opened(FILLED + "CREATE INDEX some ON t (at) WHERE at > '2024-01-02';")
    assert histogram(reader) == Histogram(10, True)
    assert histogram(opened("CREATE INDEX t_at ON t (at)")) == TEN


def test_sqlite_leaves_what_is_no_day_out_of_the_days(opened: Opening) -> None:
    found = histogram(opened(INDEXED + "INSERT INTO t VALUES (NULL), (1700000000), ('soon'), ('');"))
    assert (found.rows, found.oldest, found.newest, found.days) == (14, TEN.oldest, TEN.newest, DAYS)
    other = opened("CREATE TABLE u (at); INSERT INTO u VALUES (1700000000)")
    assert histogram(other, "u") == Histogram(1, True)


def test_sqlite_gives_a_count_up_after_its_time_and_can_go_on(tmp_path: Path) -> None:
    reader = SQLiteReader(sqlite_source(tmp_path, INDEXED))
    began = monotonic()
    assert histogram(reader, ENDLESS, seconds=0.2) == Histogram(None, False)
    assert monotonic() - began < 2
    reader.only_first(3, 0.2)
    with pytest.raises(TooSlow):
        rows_of(reader, query(f"SELECT at FROM ({ENDLESS}) ORDER BY at DESC", "at", is_query=True))
    assert rows_of(reader, query(ENDLESS, "at:integer", is_query=True)) == [(b"1",), (b"2",), (b"3",)]
    reader.close()
