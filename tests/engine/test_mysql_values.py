"""Values from a real server as it has them, and filters that find what plain SQL finds."""

from __future__ import annotations

import random
import struct

import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.readers.mysql import MySQLReader, shortest_float
from exportapp.engine.specs import Column, Condition, Query
from tests.engine.scenes import query, rows_of
from tests.engine.servers import Database

LONG = f"{'9' * 35}.{'123456789' * 3}123"
VALUES = [
    ("DECIMAL(65,30)", LONG, LONG), ("DECIMAL(65,30)", "-0.1", f"-0.1{'0' * 29}"), ("DECIMAL(10,2)", "12.5", "12.50"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
    ("BIGINT", "-9223372036854775808", "-9223372036854775808"), ("TINYINT(1)", "1", "1"), ("INT ZEROFILL", "42", "0000000042"),
    ("FLOAT", "19.99", "19.99"), ("FLOAT", "16777217", "16777216"), ("FLOAT", "16777215", "16777215"),
    ("FLOAT", "3.4028234e38", "3.4028235e+38"), ("FLOAT", "-1.17549435e-38", "-1.1754944e-38"), ("FLOAT", "0", "0"),
    ("DOUBLE", "1.7976931348623157e308", "1.7976931348623157e308"), ("DOUBLE", "0.1", "0.1"),
    ("DOUBLE", "2.2250738585072014e-308", "2.2250738585072014e-308"), ("DOUBLE", "-123456789012345680", "-1.2345678901234568e17"),
    ("BIT(9)", "b'101010101'", "341"), ("BIT(1)", "b'1'", "1"), ("BIT(64)", "~0", "18446744073709551615"),
    ("DATE", "'0000-00-00'", "0000-00-00"), ("DATE", "'2024-02-00'", "2024-02-00"), ("DATE", "'9999-12-31'", "9999-12-31"),
    ("DATETIME", "'0000-00-00'", "0000-00-00 00:00:00"),
    ("DATETIME(6)", "'2024-02-29 10:00:00.000001'", "2024-02-29 10:00:00.000001"),
    ("TIMESTAMP", "FROM_UNIXTIME(1)", "1970-01-01 00:00:01"), ("TIME", "'-838:59:59'", "-838:59:59"),
    ("TIME(3)", "'1.5'", "00:00:01.500"),
    ("YEAR", "0", "0000"), ("YEAR", "2024", "2024"), ("ENUM('a','b''\"')", "2", "b'\""), ("SET('x','y','z')", "5", "x,z"),
    ("JSON", "'{\"a\": [1.10, \"ü\"]}'", '{"a": [1.10, "ü"]}'), ("GEOMETRY", "POINT(1, 2.5)", "POINT(1 2.5)"),
    ("BLOB", "x'00270A2200FF'", b"\x00'\n\"\x00\xff"), ("BINARY(3)", "'a'", b"a\0\0"), ("VARCHAR(9)", "'a\\0b'", "a\0b"),
    ("TEXT", "'🦀 größer'", "🦀 größer"), ("VARCHAR(9) CHARACTER SET latin1", "'größe €'", "größe €"), ("CHAR(5)", "'a  '", "a"),
    ("VARCHAR(9) CHARACTER SET utf16", "'🦀'", "🦀"), ("VARCHAR(9)", "''", ""), ("BLOB", "''", ""), ("INET6", "'::1'", "::1"),
    ("VARCHAR(9)", "NULL", None), ("FLOAT", "NULL", None), ("BIT(3)", "NULL", None),
    ("GEOMETRY", "NULL", None), ("DATE", "NULL", None),
]  # fmt: skip


def test_values_come_as_the_server_has_them(database: Database, reader: MySQLReader) -> None:
    kinds = ", ".join(f"c{place} {kind} NULL" for place, (kind, _, _) in enumerate(VALUES))
    literals = ", ".join(literal for _, literal, _ in VALUES)
    database.sql(f"SET sql_mode='', time_zone='+05:30'; CREATE TABLE t ({kinds}); INSERT INTO t VALUES ({literals})")
    [row] = rows_of(reader, query("t", " ".join(f"c{place}" for place in range(len(VALUES)))))
    meant = [value.encode() if isinstance(value, str) else value for _, _, value in VALUES]
    assert list(zip(VALUES, row, strict=True)) == list(zip(VALUES, meant, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_float_is_written_as_the_shortest_text_that_reads_back_as_it(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        [single] = struct.unpack("f", struct.pack("I", chance.randrange(0x7F800000)))
        text = shortest_float(repr(single).encode()) or b""
        assert struct.pack("f", float(text)) == struct.pack("f", single)
        assert len(text) <= 14


@pytest.mark.parametrize(
    ("declared", "kind", "really"),
    [
        ("text", "INT", "integer"), ("integer", "INT", "integer"), ("boolean", "TINYINT(1)", "boolean"),
        ("binary", "INT", "integer"), ("integer", "DECIMAL(9,2)", "decimal"), ("decimal", "FLOAT", "float"),
        ("integer", "VARCHAR(9)", "text"), ("datetime", "TEXT", "text"), ("boolean", "TEXT", "text"), ("json", "TEXT", "json"),
        ("text", "DATE", "date"), ("date", "DATETIME", "datetime"), ("integer", "DATETIME", "datetime"),
        ("time", "TIME", "time"), ("binary", "BLOB", "binary"),
        ("integer", "BIT(9)", "integer"), ("text", "GEOMETRY", "text"),
    ],
)  # fmt: skip
def test_the_servers_type_wins_over_a_wrong_declaration(
    database: Database, reader: MySQLReader, declared: str, kind: str, really: str
) -> None:
    database.sql(f"CREATE TABLE t (a {kind})")
    assert [column.type for column in reader.typed(query("t", f"a:{declared}"))] == [really]


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("DECIMAL(65,30)", {"precision": 65, "scale": 30}), ("DECIMAL(5,0) UNSIGNED", {"precision": 5, "scale": 0}),
        ("DECIMAL(7,2) UNSIGNED ZEROFILL", {"precision": 7, "scale": 2, "padded": True}),
        ("TINYINT", {"bits": 8, "unsigned": False}), ("MEDIUMINT UNSIGNED", {"bits": 24, "unsigned": True}),
        ("BIGINT UNSIGNED", {"bits": 64, "unsigned": True, "padded": False}), ("INT ZEROFILL", {"padded": True}),
        ("YEAR", {"bits": 16, "padded": True}), ("BIT(3)", {"bits": 64, "unsigned": True}), ("FLOAT", {"bits": 32}),
        ("DOUBLE", {"bits": 64}), ("TIMESTAMP", {"zone": "UTC"}), ("DATETIME", {"zone": "Asia/Tokyo"}),
        ("DATE", {"zone": "Asia/Tokyo"}), ("TEXT", {"zone": "", "bits": None}),
    ],
)  # fmt: skip
def test_the_reader_tells_what_the_server_knows_of_a_column(
    database: Database, reader: MySQLReader, kind: str, known: dict[str, object]
) -> None:
    database.sql(f"CREATE TABLE t (a {kind})")
    [column] = reader.typed(Query("t", False, (Column("a", zone="Asia/Tokyo"),)))
    assert {name: getattr(column, name) for name in known} == known


HOSTILE = ["a`b", "``", 'a"b', "a'b", "a.b", "%s", "%b", "?", "-- x", "/* x", "x */", "größe", "\\", ":a"]


def test_hostile_names_are_read_like_others(database: Database, reader: MySQLReader) -> None:
    quoted = [f"`{name.replace('`', '``')}`" for name in HOSTILE]
    database.sql(f"CREATE TABLE `%s``?` ({', '.join(f'{name} INT' for name in quoted)});"
                 f"INSERT INTO `%s``?` VALUES ({', '.join(map(str, range(len(HOSTILE))))})")  # fmt: skip
    names = tuple(Column(name, "integer") for name in HOSTILE)
    conditions = tuple(Condition(column, "eq", (str(place),)) for place, column in enumerate(names))
    [row] = rows_of(reader, Query("%s`?", False, names, names[:2], conditions))
    assert row == tuple(b"%d" % place for place in range(len(HOSTILE)))


def test_a_query_keeps_its_own_marks(reader: MySQLReader) -> None:
    relation = "SELECT '100%s ? :a %(b)s' AS a, 7 AS id"
    condition = Condition(Column("id", "integer"), "eq", ("7",))
    assert rows_of(reader, query(relation, "a", is_query=True, conditions=(condition,))) == [(b"100%s ? :a %(b)s",)]


@pytest.mark.parametrize("relation", ["SELECT '\0' AS a", "SELECT \0 AS a"])
def test_the_mark_of_bound_values_in_a_query_is_refused(reader: MySQLReader, relation: str) -> None:
    condition = Condition(Column("a"), "eq", ("x",))
    for conditions in ((), (condition,)):
        with pytest.raises(ExportError, match="NUL") as caught:
            rows_of(reader, query(relation, "a", is_query=True, conditions=conditions))
        assert caught.value.permanent


def test_a_session_is_in_utc_speaks_utf8_and_cannot_write(database: Database, reader: MySQLReader) -> None:
    body = "BEGIN INSERT INTO t VALUES (1); RETURN 1; END"
    database.sql(f"CREATE TABLE t (a INT);\nDELIMITER //\nCREATE FUNCTION spoil() RETURNS INT {body}//\n")
    session = "SELECT @@session.time_zone AS zone, @@character_set_client AS sent, @@character_set_results AS got"
    assert rows_of(reader, query(session, "zone sent got", is_query=True)) == [(b"+00:00", b"utf8mb4", b"utf8mb4")]
    with pytest.raises(ExportError, match="READ ONLY"):
        rows_of(reader, query("SELECT spoil() AS a", "a", is_query=True))
    assert database.sql("SELECT COUNT(*) FROM t") == "0\n"


# --- filters ----------------------------------------------------------------------------------------------------------

HUGE = f"1{'0' * 40}"
ROWS = f"""
CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(40), note VARCHAR(40) COLLATE utf8mb4_bin, price DECIMAL(65,30),
                big DECIMAL(65,0), size FLOAT, at DATETIME, day DATE, hour TIME, on_sale BOOLEAN,
                code BIGINT UNSIGNED, flags BIT(9), doc JSON);
INSERT INTO t VALUES
 (1, 'ann', '100%', 0.1, {HUGE}, 19.99, '2024-01-01', '2024-01-01', '10:00:00', 1, 18446744073709551615, 341, '{{}}'),
 (2, 'Ann', '100x', 0.2, {HUGE} + 1, -1.5, '2024-01-01 23:59:59', '2024-01-02', '-838:59:59', 0, 18446744073709551614, 1,
  '[1]'),
 (3, 'änn', 'a_b', 0.3, 2 * {HUGE}, 0, '2024-01-02', '2024-01-03', '838:59:59', 1, 9007199254740993, 0, '"x"'),
 (4, 'a!nn', 'a!b\\\\', 0.100000000000000000000000000001, -{HUGE}, 3.5, '2023-12-31', '2023-12-31', '09:59:59', 0,
  9007199254740992, 2, NULL),
 (5, '', '', -0.1, 0, 1e30, '2024-06-01 12:00:00', '2024-06-01', '00:00:00', 1, 0, 3, 'null'),
 (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (7, '''; DROP TABLE t; --', 'x\\0y', 12.5, 35, 2, '2024-01-01 00:00:01', '2024-01-01', '10:00:01', 0, 1, 256,
  '{{"a": 1}}');
"""
FILTERS = [
    ("name", "eq", ["ann"], "name = 'ann'"), ("note", "eq", ["100%"], "note = '100%'"), ("name", "eq", [""], "name = ''"),
    ("note", "eq", ["x\0y"], "id = 7"), ("name", "eq", ["'; DROP TABLE t; --"], "id = 7"), ("note", "eq", ["a!b\\"], "id = 4"),
    ("name", "in", ["ann", "a!nn", "nope"], "name IN ('ann', 'a!nn')"), ("name", "contains", ["N"], "name LIKE '%N%'"),
    ("note", "contains", ["%"], "LOCATE('%', note)"), ("note", "contains", ["_"], "LOCATE('_', note)"),
    ("name", "contains", ["!"], "id = 4"), ("note", "contains", ["b\\"], "id = 4"), ("name", "contains", ["'"], "id = 7"),
    ("doc", "contains", ["{"], "doc LIKE '%{%'"), ("name", "contains", [""], "name IS NOT NULL"),
    ("name", "empty", [], "name IS NULL OR name = ''"), ("name", "not_empty", [], "name <> ''"),
    ("day", "empty", [], "day IS NULL"), ("price", "not_empty", [], "price IS NOT NULL"), ("doc", "empty", [], "doc IS NULL"),
    ("price", "eq", ["0.1"], "id = 1"), ("price", "eq", ["0.100000000000000000000000000001"], "id = 4"),
    ("price", "ge", ["0.2"], "price >= 0.2"), ("price", "lt", ["0.1"], "price < 0.1"),
    ("price", "in", ["0.3", "-0.1"], "id IN (3, 5)"),
    ("big", "eq", [HUGE], "id = 1"),
    ("big", "gt", [HUGE], "id IN (2, 3)"), ("big", "le", [f"-{HUGE}"], "id = 4"),
    ("size", "ge", ["3.5"], "size >= 3.5"), ("size", "lt", ["-1e0"], "size < -1"), ("size", "le", ["1e30"], "size <= 1e30"),
    ("at", "ge", ["2024-01-01 00:00:00"], "at >= '2024-01-01'"), ("at", "lt", ["2024-01-02 00:00:00"], "at < '2024-01-02'"),
    ("day", "eq", ["2024-01-01"], "day = '2024-01-01'"), ("day", "in", ["2024-01-01", "2024-06-01"], "id IN (1, 5, 7)"),
    ("hour", "gt", ["10:00:00"], "id IN (3, 7)"), ("hour", "le", ["-838:59:59"], "id = 2"),
    ("on_sale", "eq", ["1"], "on_sale"), ("on_sale", "in", ["0"], "NOT on_sale"), ("flags", "gt", ["255"], "id IN (1, 7)"),
    ("code", "eq", ["18446744073709551615"], "id = 1"), ("code", "gt", ["9007199254740992"], "id IN (1, 2, 3)"),
    ("code", "in", ["9007199254740993", "-1"], "id = 3"), ("code", "ge", ["-5"], "code IS NOT NULL"),
]  # fmt: skip
KINDS = {
    "id": "integer", "price": "decimal", "big": "decimal", "size": "float", "at": "datetime", "day": "date", "hour": "time",
    "on_sale": "boolean", "code": "integer", "flags": "integer", "doc": "json",
}  # fmt: skip


def test_every_filter_gives_what_plain_sql_says(database: Database, reader: MySQLReader) -> None:
    database.sql(ROWS)
    for name, op, values, plain in FILTERS:
        condition = Condition(Column(name, KINDS.get(name, "text")), op, tuple(values))
        found = [int(row[0] or 0) for row in rows_of(reader, query("t", "id:integer", conditions=(condition,)))]
        meant = [int(line) for line in database.sql(f"SELECT id FROM t WHERE {plain} ORDER BY id").split()]
        assert sorted(found) == meant, (name, op, values)
        assert 0 < len(meant) < 7, "a filter that finds all or nothing shows little"


def test_conditions_are_met_together(database: Database, reader: MySQLReader) -> None:
    database.sql(ROWS)
    conditions = (
        Condition(Column("on_sale", "boolean"), "eq", ("1",)),
        Condition(Column("price", "decimal"), "gt", ("0",)),
    )
    assert rows_of(reader, query("t", "id", conditions=conditions)) == [(b"1",), (b"3",)]
