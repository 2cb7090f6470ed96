"""The MySQL reader on a real server: plans and ranges that lose no row, batches bounded in bytes, results left half-way."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from exportapp.engine.chunks import write_piece
from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import key_of
from exportapp.engine.readers import mysql, open_reader
from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import ChunkSpec, Column, Condition, KeyRange, Plan, Query
from tests.engine.scenes import columns, query, rows_of
from tests.engine.servers import ROWS_A_MILLION, Database, url_of_user
from tests.services import wait_until

# --- plans ------------------------------------------------------------------------------------------------------------


def plan_of(reader: MySQLReader, wanted: Query, rows: int = 10) -> Plan:
    return reader.plan(wanted, rows, "test")


@pytest.fixture
def numbers(database: Database) -> None:
    database.sql("CREATE TABLE t (id INT PRIMARY KEY, at DATETIME, name VARCHAR(9), INDEX (at), INDEX (name));"
                 "INSERT INTO t SELECT CAST(seq AS SIGNED) - 10, '2024-01-01' + INTERVAL seq DAY, CONCAT('n', seq % 7)"
                 "FROM seq_0_to_99")  # fmt: skip


def test_a_plan_counts_the_rows_and_cuts_their_keys(numbers: None, reader: MySQLReader) -> None:
    plan = plan_of(reader, query("t", "name", "id:integer"), 30)
    edges = [None, (14,), (39,), (64,), (89,)]
    assert plan == Plan(tuple(map(KeyRange, edges, edges[1:])), 100, True)


def test_the_ranges_of_a_plan_hold_every_row_once(numbers: None, reader: MySQLReader) -> None:
    wanted = query("t", "id:integer", "id:integer")
    ranges = plan_of(reader, wanted, 7).ranges
    ids = [int(row[0] or 0) for one in ranges for row in rows_of(reader, wanted, one.after, one.upto)]
    assert ids == list(range(-10, 90))


def test_a_plan_looks_only_at_the_range_of_time_that_is_meant(numbers: None, reader: MySQLReader) -> None:
    at = Column("at", "datetime")
    conditions = (Condition(at, "ge", ("2024-01-11 00:00:00",)), Condition(at, "lt", ("2024-01-16 00:00:00",)))
    plan = plan_of(reader, query("t", "id", "id:integer", conditions=conditions))
    assert plan == Plan((KeyRange(None, (4,)),), 5, True)


def test_beyond_the_limit_of_counting_the_server_estimates(
    numbers: None, reader: MySQLReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COUNT_LIMIT", 99)
    plan = plan_of(reader, query("t", "id", "id:integer"))
    assert not plan.exact
    assert plan.rows >= 100
    monkeypatch.setattr(mysql, "COUNT_LIMIT", 100)
    assert plan_of(reader, query("t", "id", "id:integer")).exact


@pytest.mark.parametrize("grant", ["SELECT", "SELECT, SHOW VIEW"])
def test_a_view_that_the_server_does_not_explain_is_planned_all_the_same(
    numbers: None, database: Database, monkeypatch: pytest.MonkeyPatch, grant: str
) -> None:
    monkeypatch.setattr(mysql, "COUNT_LIMIT", 49)
    database.sql("CREATE VIEW v AS SELECT id, name FROM t")
    with open_reader(url_of_user(database, "viewer", grant=grant, table="v")) as reader:
        plan = reader.plan(query("v", "name", "id:integer"), 10, "test")
    assert not plan.exact
    assert plan.rows >= 50
    assert plan.ranges[-1].upto == (89,)


@pytest.mark.parametrize(
    ("key", "last"), [("name", "n6"), ("name id:integer", "n6"), ("at:datetime", "2024-04-09 00:00:00")]
)
def test_other_keys_are_cut_between_values_that_are_there(
    numbers: None, reader: MySQLReader, key: str, last: str
) -> None:
    ranges = plan_of(reader, query("t", "id", key), 10).ranges
    assert len(ranges) > 3
    assert (ranges[0].after, ranges[-1].upto) == (None, (last,))
    assert all(one.upto == other.after for one, other in pairwise(ranges))


@pytest.mark.parametrize("kind", ["VARCHAR(20) COLLATE utf8mb4_general_ci", "VARCHAR(20) COLLATE utf8mb4_bin",
                                  "CHAR(8) CHARACTER SET latin1",
                                  "VARBINARY(20)", "BINARY(16)", "DATETIME", "DATE", "TIMESTAMP"])  # fmt: skip
@pytest.mark.parametrize("skewed", [False, True])
def test_the_ranges_of_a_plan_hold_each_row_once(
    database: Database, reader: MySQLReader, kind: str, skewed: bool
) -> None:
    """Whatever was guessed: the letters of a collation have an order of their own, and rows crowd where they like."""
    chance = random.Random(kind)
    letters = "aAbBzZ059_-. äÖß€" if "BINARY" in kind or "CHAR" in kind else ""
    values = {f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}" for _ in range(60)}
    if letters:
        values = {("same" * skewed + "".join(chance.choices(letters, k=4))).strip() for _ in range(300)}
    rows = ", ".join(f"('{value}')" for value in values)
    database.sql(f"SET sql_mode=''; CREATE TABLE t (n INT AUTO_INCREMENT UNIQUE, k {kind}, PRIMARY KEY (k));"
                 f"INSERT IGNORE INTO t (k) VALUES {rows}")  # fmt: skip
    declared = "binary" if "BINARY" in kind else "text" if letters else "date" if kind == "DATE" else "datetime"
    wanted = query("t", "n:integer", f"k:{declared}")
    ranges = plan_of(reader, wanted, 5).ranges
    assert len(ranges) > 3
    everything = rows_of(reader, wanted)
    assert [row for one in ranges for row in rows_of(reader, wanted, one.after, one.upto)] == everything


@pytest.mark.parametrize("key", ["n:integer k", "n:integer k m:integer"])
def test_the_ranges_of_a_composite_key_hold_each_row_once(database: Database, reader: MySQLReader, key: str) -> None:
    database.sql("CREATE TABLE t (n INT, k VARCHAR(9), m INT, PRIMARY KEY (n, k, m));"
                 "INSERT INTO t SELECT seq DIV 30, CONCAT('k', seq % 10), seq FROM seq_1_to_300")  # fmt: skip
    wanted = query("t", "m:integer", key)
    ranges = plan_of(reader, wanted, 20).ranges
    assert len(ranges) > 3
    rows = [row[0] for one in ranges for row in rows_of(reader, wanted, one.after, one.upto)]
    assert sorted(rows) == sorted(b"%d" % number for number in range(1, 301))


def test_a_condition_that_is_slow_to_count_does_not_hold_planning_up(
    numbers: None, database: Database, reader: MySQLReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is the server's, so that nothing goes on there; what could not be counted is estimated."""
    database.sql("CREATE VIEW slow AS SELECT id, SLEEP(0.1) AS s FROM t")
    monkeypatch.setattr(mysql, "PLAN_SECONDS", 0.2)
    wanted = query("slow", "id:integer", "id:integer", conditions=(Condition(Column("s", "integer"), "eq", ("0",)),))
    monkeypatch.setattr(MySQLReader, "_check_key", lambda *_: None)  # it reads nothing of a column that is NOT NULL
    plan = plan_of(reader, wanted, 10)
    assert not plan.exact
    assert plan.ranges[-1].upto == (89,)


def test_ends_that_are_slow_to_find_are_waited_for_where_nothing_else_gives_them(
    numbers: None, database: Database, reader: MySQLReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.sql("CREATE VIEW slow AS SELECT id + SLEEP(0.005) AS id FROM t")
    monkeypatch.setattr(mysql, "PLAN_SECONDS", 0.2)
    monkeypatch.setattr(MySQLReader, "_check_key", lambda *_: None)
    assert plan_of(reader, query("slow", "id:integer", "id:integer"), 10).ranges[-1].upto == (89,)


def test_without_a_key_or_rows_all_is_one_open_range(numbers: None, database: Database, reader: MySQLReader) -> None:
    database.sql("CREATE TABLE nothing (id INT PRIMARY KEY)")
    assert plan_of(reader, query("t", "id")) == Plan((KeyRange(),), 100, True)
    for key in ("", "id:integer", "id:integer id:integer"):
        assert plan_of(reader, query("nothing", "id", key)) == Plan((KeyRange(),), 0, True)


WITH_NULL = "CREATE TABLE t (a INT, b VARCHAR(9) NOT NULL); INSERT INTO t VALUES (1, 'x'), (NULL, 'y')"


@pytest.mark.parametrize("key", ["a:integer", "b a:integer"])
def test_a_key_that_holds_null_is_refused_because_its_row_would_be_lost(
    database: Database, reader: MySQLReader, key: str
) -> None:
    database.sql(WITH_NULL)
    with pytest.raises(ExportError, match="holds NULL") as caught:
        plan_of(reader, query("t", "a", key))
    assert caught.value.permanent


def test_null_beside_the_key_or_in_rows_that_are_not_meant_does_no_harm(
    database: Database, reader: MySQLReader
) -> None:
    database.sql(WITH_NULL)
    others = Condition(Column("b"), "eq", ("x",))
    assert plan_of(reader, query("t", "a", "b")).rows == 2
    assert plan_of(reader, query("t", "a", "a:integer", conditions=(others,))) == Plan((KeyRange(None, (1,)),), 1, True)


def test_a_zero_date_in_a_key_is_not_taken_for_null(database: Database, reader: MySQLReader) -> None:
    database.sql("SET sql_mode=''; CREATE TABLE t (day DATE NOT NULL, a INT); INSERT INTO t VALUES ('0000-00-00', 1)")
    assert plan_of(reader, query("t", "a", "day:date a:integer")).ranges == (KeyRange(None, ("0000-00-00",)),)


# --- keys and cuts ----------------------------------------------------------------------------------------------------

WORDS = (
    "('a',1),('a',2),('B',1),('ä',3),('Å',4),('z',1),('ß',1),('ss',2),('🦀',1),('🐙',2),('',1),('a b',1),('a-b',1),"
    "('%',1),(x'27',1)"
)
KEYS = [
    ("k VARCHAR(9) COLLATE utf8mb4_general_ci, n INT", "k n:integer", WORDS),
    ("k VARCHAR(9) COLLATE utf8mb4_unicode_ci, n INT", "k n:integer", WORDS),
    ("k VARCHAR(9) COLLATE utf8mb4_bin, n INT", "k n:integer", WORDS),
    ("k VARCHAR(9) COLLATE utf8mb4_unicode_nopad_ci, n INT", "k", "('a',1),('a ',2),('B',3),('ä  ',4),('b ',5)"),
    ("k VARCHAR(9) CHARACTER SET latin1, n INT", "k n:integer", "('a',2),('A',1),('ä',3),('é',1),('€',1),('z',1),('ÿ',1)"),
    ("k BINARY(3), n INT", "k:binary", "(x'000000',1),(x'00ff27',2),(x'ffffff',3),(x'61620a',4)"),
    ("k BIGINT UNSIGNED, n INT", "k:integer", "(0,1),(9223372036854775808,2),(18446744073709551614,3),(18446744073709551615,4)"),
    ("k DECIMAL(30), n INT", "k:integer", "(-99999999999999999999,1),(0,2),(99999999999999999998,3),(99999999999999999999,4)"),
    ("k DATE, n INT", "k:date n:integer", "('0000-00-00',1),('2024-02-00',1),('2024-02-29',2),('2024-02-29',1),('9999-12-31',1)"),
    ("k DATETIME(6), n INT", "k:datetime", "('2024-01-01',1),('2024-01-01 00:00:00.000001',2),('2024-01-01 00:00:00.000002',3)"),
    ("k TIMESTAMP, n INT", "k:datetime", "('1970-01-01 06:00:00',1),('2024-03-31 02:30:00',2),('2037-01-01',3)"),
    ("k BIT(9), n INT", "k:integer", "(b'0',1),(b'1',2),(b'111111111',3)"),
    ("k BIT(64), n INT", "k:integer", "(b'0',1),(b'101',2),(~0,3)"),
    ("k YEAR, n INT", "k:integer n:integer", "(0,1),(0,2),(1901,1),(1969,7),(1970,1),(2024,2),(2069,1),(2155,1)"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key", "rows"), KEYS, ids=[table for table, _, _ in KEYS])
def test_no_row_is_lost_or_doubled_wherever_a_range_is_cut(
    database: Database, reader: MySQLReader, table: str, key: str, rows: str
) -> None:
    names = ", ".join(column.name for column in columns(key))
    database.sql(
        f"SET sql_mode='', time_zone='+05:30'; CREATE TABLE t ({table}, PRIMARY KEY ({names})); INSERT INTO t VALUES {rows}"
    )
    wanted = query("t", "n:integer", key)
    ordered = rows_of(reader, wanted)
    assert len(ordered) == rows.count("),(") + 1
    for place, row in enumerate(ordered, 1):
        at = key_of(wanted.key, tuple(row[place] for place in wanted.key_places))
        assert rows_of(reader, wanted, None, at) == ordered[:place]
        assert rows_of(reader, wanted, at, None) == ordered[place:]


@pytest.mark.parametrize(("table", "key", "rows"), KEYS, ids=[table for table, _, _ in KEYS])
def test_the_plan_of_any_key_reaches_its_last_row(
    database: Database, reader: MySQLReader, table: str, key: str, rows: str
) -> None:
    names = ", ".join(column.name for column in columns(key))
    database.sql(
        f"SET sql_mode='', time_zone='+05:30'; CREATE TABLE t ({table}, PRIMARY KEY ({names})); INSERT INTO t VALUES {rows}"
    )
    wanted = query("t", "n:integer", key)
    ranges = plan_of(reader, wanted, 2).ranges
    assert [row for one in ranges for row in rows_of(reader, wanted, one.after, one.upto)] == rows_of(reader, wanted)


@pytest.mark.parametrize(
    ("kind", "key"), [("VARCHAR(9)", "k:integer"), ("INT", "k"), ("DATETIME", "k:binary"), ("INT", "k:date")]
)
def test_a_key_that_is_of_another_type_than_declared_is_refused(
    database: Database, reader: MySQLReader, kind: str, key: str
) -> None:
    """Numbers in a text column go 1, 10, 2: MIN and MAX, and so the ranges, would miss most of them."""
    database.sql(f"CREATE TABLE t (k {kind} PRIMARY KEY, n INT)")
    with pytest.raises(ExportError, match="The key column k is declared as") as caught:
        plan_of(reader, query("t", "n", key))
    assert caught.value.permanent


def test_rows_are_granted_to_exactly_the_name_that_is_meant(database: Database, reader: MySQLReader) -> None:
    """A collation takes all of these for one, and the app's database keeps them apart."""
    names = ("alice", "Alice", "álice", "alice ", "alic\u00e9", "größe 🦀", "grösse 🦀")
    for charset in ("utf8mb4", "latin1"):
        known = [name for name in names if charset == "utf8mb4" or "🦀" not in name]
        database.sql(f"CREATE OR REPLACE TABLE t (id INT PRIMARY KEY, owner VARCHAR(20) CHARACTER SET {charset}, KEY (owner));"
                     + "".join(f"INSERT INTO t VALUES ({n}, '{name}');" for n, name in enumerate(known)))  # fmt: skip
        for number, name in enumerate(known):
            condition = Condition(Column("owner"), "exactly", ("nobody", name))
            assert rows_of(reader, query("t", "id:integer", "id:integer", conditions=(condition,))) == [
                (b"%d" % number,)
            ]


@pytest.mark.parametrize("kind", ["ENUM('new','done','lost')", "SET('new','done','lost')"])
def test_a_key_whose_order_is_not_that_of_its_texts_is_refused(
    database: Database, reader: MySQLReader, kind: str
) -> None:
    database.sql(
        f"CREATE TABLE t (k {kind}, n INT, PRIMARY KEY (k, n)); INSERT INTO t VALUES ('new', 1), ('done', 2), ('lost', 3)"
    )
    wanted = query("t", "n", "k n:integer")
    for use in (plan_of, rows_of):
        with pytest.raises(ExportError, match="The key column k is an ENUM or SET") as caught:
            use(reader, wanted)
        assert caught.value.permanent
    assert len(rows_of(reader, query("t", "k n", "n:integer"))) == 3


# --- streaming --------------------------------------------------------------------------------------------------------


def batches_of(reader: MySQLReader, relation: str, names: str) -> list[list[int]]:
    """The bytes of each row, batch by batch."""
    batches = reader.stream(query(relation, names, is_query=True), KeyRange(), "")
    return [[sum(len(value or b"") for value in row) for row in batch] for batch in batches]


@pytest.mark.parametrize("kind", ["LONGTEXT", "JSON", "LONGBLOB", "MEDIUMTEXT"])
def test_batches_of_long_values_are_bounded_in_bytes(database: Database, reader: MySQLReader, kind: str) -> None:
    database.sql(
        f"CREATE TABLE t (a {kind} CHECK (1)); INSERT INTO t SELECT JSON_QUOTE(REPEAT('x', 1 << 20)) FROM seq_1_to_20"
    )
    batches = batches_of(reader, "SELECT a FROM t", "a")
    assert sum(map(len, batches)) == 20
    assert max(map(len, batches)) <= 9


@pytest.mark.parametrize("kind", ["LONGTEXT", "TEXT", "VARCHAR(9)"])
def test_batches_of_short_values_are_full_however_long_they_might_be(
    database: Database, reader: MySQLReader, kind: str
) -> None:
    database.sql(f"CREATE TABLE t (a {kind}); INSERT INTO t SELECT seq FROM seq_1_to_5000")
    sizes = [len(batch) for batch in batches_of(reader, "SELECT a FROM t", "a")]
    assert sum(sizes) == 5000
    assert min(sizes[:-1]) > 900


def test_a_result_that_fills_its_batches_exactly_ends(reader: MySQLReader) -> None:
    assert [len(batch) for batch in batches_of(reader, "SELECT seq AS a FROM seq_1_to_2000", "a")] == [1000, 1000]
    assert batches_of(reader, "SELECT seq AS a FROM seq_1_to_1 WHERE seq > 1", "a") == []


def rows_sent(database: Database) -> int:
    return int(database.sql("SHOW GLOBAL STATUS LIKE 'Rows_sent'").split()[1])


@pytest.mark.parametrize("way", ["left", "closed"])
def test_a_result_that_is_left_half_way_is_not_read_to_its_end(database: Database, way: str) -> None:
    reader = MySQLReader(database.url)
    before = rows_sent(database)
    batches = reader.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "half way")
    next(batches)
    if way == "closed":
        reader.close()
    del batches
    reader.close()
    wait_until(lambda: not database.running("half way"), 10, "the query to end")
    assert rows_sent(database) - before < 500_000


def test_a_result_that_was_read_to_its_end_is_no_broken_connection_to_the_server(
    numbers: None, database: Database
) -> None:
    aborted = "SHOW GLOBAL STATUS LIKE 'Aborted_clients'"
    before = database.sql(aborted)
    with open_reader(database.url) as reader:
        assert len(rows_of(reader, query("t", "name", "id:integer"))) == 100
    wait_until(lambda: database.sql(f"SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = '{database.name}' "
                                    "AND USER = 'app'") == "0\n", 10, "the end of the connection")  # fmt: skip
    assert database.sql(aborted) == before


def test_the_comment_shows_in_the_process_list(database: Database, reader: MySQLReader) -> None:
    batches = reader.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "export=ab */ step=7")
    next(batches)
    assert [text.partition(" SELECT")[0] for text in database.running("export=ab")] == ["/* export=ab / step=7 */"]


@pytest.mark.parametrize(("relation", "resumed"), [("t", True), ("v", False), ("SELECT * FROM t", False)])
def test_texts_that_are_equal_to_the_collation_are_not_parted(
    database: Database, monkeypatch: pytest.MonkeyPatch, relation: str, resumed: bool
) -> None:
    """A table's key is unique by its collation; that of a view or a query may have "a" and "A", and behind one of them
    the other would be lost."""
    database.sql("CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_bin PRIMARY KEY);"
                 "INSERT INTO t VALUES ('a'), ('A'), ('b'), ('B'), ('c'), ('C');"
                 "CREATE VIEW v AS SELECT k COLLATE utf8mb4_general_ci AS k FROM t")  # fmt: skip
    wanted = query(relation, "k", "k", is_query=relation.startswith("SELECT"))
    monkeypatch.setattr(mysql, "BATCH_ROWS", 1)
    store = MemoryStore()
    with open_reader(database.url) as reader:
        assert reader.can_resume(wanted) is resumed
        spec = ChunkSpec(wanted, KeyRange(None, ("c",)), "csv", "none", "piece", False, "", 0)
        piece = write_piece(spec, reader, store)
    assert (piece.last_key is not None) is resumed
    assert resumed or piece.rows == 6


def test_a_table_of_another_database_is_one_as_well(database: Database, reader: MySQLReader) -> None:
    database.sql("CREATE TABLE t (k VARCHAR(9) PRIMARY KEY)")
    assert reader.can_resume(query(f"{database.name}.t", "k", "k"))
    assert not reader.can_resume(query("information_schema.TABLES", "TABLE_NAME", "TABLE_NAME"))


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_pieces_that_end_early_make_the_whole_file(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    database.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, note TEXT); INSERT INTO t SELECT seq, CONCAT('n', seq) FROM seq_1_to_50"
    )
    monkeypatch.setattr(mysql, "BATCH_ROWS", 8)
    store, after = MemoryStore(), None
    while not store.files or after:
        number = len(store.files)
        spec = ChunkSpec(
            query("t", "note", "id:integer"), KeyRange(after, (50,)), name, "none", str(number), False, "", 0
        )
        with open_reader(database.url) as reader:
            after = write_piece(spec, reader, store).last_key
    assert len(store.files) == 7
    assert re.findall(rb"n\d+", b"".join(store.files.values())) == [b"n%d" % number for number in range(1, 51)]


# --- what the server has to read --------------------------------------------------------------------------------------


def reads_of(reader: MySQLReader) -> int:
    """The index and table rows that this session made the server look at so far."""
    found = reader._rows("SHOW SESSION STATUS LIKE 'Handler_read%'", [])
    return sum(int(number) for name, number in found if name != b"Handler_read_retry")


@pytest.mark.parametrize("view", [False, True])
def test_a_short_time_is_found_by_its_index(database: Database, reader: MySQLReader, view: bool) -> None:
    database.sql("CREATE TABLE t (id INT PRIMARY KEY, at DATETIME NOT NULL, note VARCHAR(20), INDEX (at));"
                 "INSERT INTO t SELECT seq, '2024-01-01' + INTERVAL seq * 7919 % 20000 MINUTE, 'x' FROM seq_1_to_20000;"
                 "CREATE VIEW v AS SELECT * FROM t; ANALYZE TABLE t")  # fmt: skip
    at = Column("at", "datetime")
    conditions = (Condition(at, "ge", ("2024-01-05 00:00:00",)), Condition(at, "lt", ("2024-01-05 06:00:00",)))
    wanted = query("v" if view else "t", "id:integer at:datetime note", "id:integer", conditions=conditions)
    before = reads_of(reader)
    ranges = plan_of(reader, wanted, 1000).ranges
    rows = [row for one in ranges for row in rows_of(reader, wanted, one.after, one.upto)]
    assert len(rows) == 360
    assert reads_of(reader) - before < 5 * 360  # counted once, its ends looked for, read; not the 20,000 of the table


def test_planning_a_whole_table_reads_its_edges_alone(
    database: Database, reader: MySQLReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "COUNT_LIMIT", 100)
    database.sql("CREATE TABLE t (k VARCHAR(20) PRIMARY KEY); INSERT INTO t SELECT LPAD(seq, 8, 0) FROM seq_1_to_20000;"
                 "ANALYZE TABLE t")  # fmt: skip
    before = reads_of(reader)
    assert len(plan_of(reader, query("t", "k", "k"), 1000).ranges) > 10
    assert reads_of(reader) - before < 500


@pytest.mark.parametrize("width", [1, 300, 900])
def test_batches_of_wide_tables_have_fewer_rows(database: Database, reader: MySQLReader, width: int) -> None:
    names = [f"c{number}" for number in range(width)]
    database.sql(f"CREATE TABLE t ({', '.join(f'{name} TINYINT' for name in names)});"
                 f"INSERT INTO t (c0) SELECT seq % 7 FROM seq_1_to_1500")  # fmt: skip
    sizes = [len(batch) for batch in reader.stream(query("t", " ".join(names)), KeyRange(), "")]
    assert sum(sizes) == 1500
    assert max(sizes) * width <= 40_000
    assert max(sizes) == min(1000, 40_000 // width)
