"""Every value comes through: tables are written in each registered format, read back by programs that are not ours, and
held against the server's own text of each value."""

from __future__ import annotations

import datetime
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from exportapp.engine.chunks import write_piece
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import mysql as mysql_reader
from exportapp.engine.readers import open_reader
from exportapp.engine.readers.base import Reader
from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import ChunkSpec, Column, FileOptions, KeyRange, Query
from tests.engine.scenes import columns
from tests.engine.servers import database_of
from tests.oracles.comparison import check
from tests.oracles.examples import examples
from tests.oracles.formulas import safe
from tests.oracles.server import Truth, mysql, mysql_truth, sqlite_truth
from tests.services import MariaDB

EXACT = FileOptions(exact=True)
ID = Column("id", "integer")
formats = pytest.mark.parametrize("format", FORMATS)
joining = pytest.mark.parametrize("format", [name for name, form in FORMATS.items() if form.joins])


def written(reader: Reader, format: str, wanted: Query, options: FileOptions = EXACT, zone: str = "") -> bytes:
    """A whole file."""
    store = MemoryStore()
    write_piece(ChunkSpec(wanted, KeyRange(), format, "none", "file", True, "", 3600, options, zone), reader, store)
    return store.files["file"]


def table(name: str, *wanted: Column) -> Query:
    return Query(name, False, wanted, (ID,))


@dataclass
class Server:
    """A database of this module's own, and the oracle's way to it."""

    url: str
    cursor: Any


@pytest.fixture(scope="module")
def server(mariadb: MariaDB) -> Iterator[Server]:
    url = database_of(mariadb).url
    with mysql(url) as cursor:
        yield Server(url, cursor)


@pytest.fixture
def reader(server: Server) -> Iterator[MySQLReader]:
    """Of each test's own: a failure in the midst of the rows ends its connection."""
    with closing(MySQLReader(server.url)) as opened:
        yield opened


# --- each type with its edges -----------------------------------------------------------------------------------------

WHOLE = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "INT": 32, "BIGINT": 64}
TEXTS = [
    "''", "' '", "'a  '", "'größer'", "'🦀 👨‍👩‍👧 𝔘'", "'\"'", "'\"\"'", "','", "'a,b;c\td'", "'\\r\\n'", "'\\n'", "'\\r'",
    "'\\\\N'", "'NULL'",
    "'\\\\'", "x'00'", "x'0b1f7f'", "'=1+1'", "'+1-1'", "'-5'", "'@a'", "'\\'a'", "'{\"a\": 1}'", "'<&>]]>'", "'_x0041_ _x000D_'",
    "'\u2028\u0085\ufeff\ufffe\uffff'", "'007'", "'1e5'", "'true'", "'2024-02-29'", "'%s %b %%'", "'e\u0301 é'",
]  # fmt: skip
BYTES = ["''", "'a'", "x'00'", "x'00270a2200ff'", "x'0d0a'", "x'ffd8ffe0'", "x'c3a4'", "'=1'", "x'5c4e'"]
JSONS = [
    "'{}'", "'[]'", "'null'", "'\"\"'", "'{\"a\": [1.10, \"ü🦀\"], \"a\": 12345678901234567890123}'", "'{ \"b\":\\n1e400 }'",
    "'\"\\\\ud83e\\\\udd80 \\\\\"\"'", "'true'", "'-0.0'",
]  # fmt: skip
SHAPES = [
    "ST_GeomFromText('POINT(-180.123456789 90)')", "ST_GeomFromText('LINESTRING(0 0,1 1,2 0.5)')",
    "ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 0),(1 1,2 1,2 2,1 1))')", "ST_GeomFromText('MULTIPOINT(1 1,2 2)')",
    "ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)))')",
    "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(1 1,2 2))')", "ST_GeomFromText('POINT(1e300 1e-300)', 4326)",
]  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """A type with the values at its ends. `refused` are the formats that cannot hold them."""

    sql: str
    declared: str
    literals: list[str]
    name: str = ""
    kind: str = ""
    refused: frozenset[str] = frozenset()


def _whole_numbers() -> Iterator[Edge]:
    for name, bits in WHOLE.items():
        most = 1 << bits - 1
        yield Edge(name, "integer", ["0", "1", "-1", f"{most - 1}", f"{-most}"])
        yield Edge(f"{name} UNSIGNED", "integer", ["0", "1", f"{2 * most - 1}", "999999999999999"])


ZERO = UNKNOWN = frozenset({"parquet"})
EDGES = [
    *_whole_numbers(),
    Edge("TINYINT(1)", "boolean", ["0", "1"], kind="boolean"),
    Edge("INT ZEROFILL", "integer", ["0", "42", "4294967295"]),
    Edge("BIGINT(20) UNSIGNED ZEROFILL", "integer", ["0", "42", "18446744073709551615"]),
    Edge("DECIMAL(65,30)", "decimal", ["0", "-0.1", f"{'9' * 35}.{'9' * 30}", f"-{'9' * 35}.{'9' * 30}", "1e-30"]),
    Edge("DECIMAL(65,0)", "decimal", ["0", "-1", "9" * 65, "-" + "9" * 65]),
    Edge("DECIMAL(30,30)", "decimal", ["0", f"0.{'9' * 30}", f"-0.{'1' * 30}"]),
    Edge("DECIMAL(10,2)", "decimal", ["12.5", "-99999999.99", "0.01"]),
    Edge("DECIMAL(38,10)", "decimal", ["1", f"{'9' * 28}.{'9' * 10}"]),
    Edge("DECIMAL(9,2) ZEROFILL", "decimal", ["1.5"]),
    Edge("FLOAT", "float", ["0", "-0e0", "19.99", "0.1", "16777217", "16777215", "3.402823466e38", "-3.402823466e38",
                            "1.175494351e-38", "1.4e-45", "123456.7", "1e10", "33554431"]),
    Edge("FLOAT(7,3)", "float", ["1.5", "-9999.999", "0.1"]),
    Edge("DOUBLE", "float", ["0", "-0e0", "0.1", "0.30000000000000004", "1.7976931348623157e308", "-1.7976931348623157e308",
                             "2.2250738585072014e-308", "5e-324", "9007199254740993", "123456789012345680", "1e15", "1e22"]),
    Edge("DOUBLE(10,3)", "float", ["1.5", "-1234567.891", "0.1"]),
    Edge("FLOAT ZEROFILL", "float", ["0", "19.99"]),
    Edge("DOUBLE ZEROFILL", "float", ["0", "1.5"]),
    Edge("BIT(1)", "integer", ["b'0'", "b'1'"]),
    Edge("BIT(9)", "integer", ["b'0'", "b'101010101'", "b'111111111'"]),
    Edge("BIT(64)", "integer", ["0", "1 << 63", "~0"]),
    Edge("YEAR", "integer", ["1901", "2024", "2155"]),
    Edge("DATE", "date", ["'1000-01-01'", "'1899-12-31'", "'1900-02-28'", "'1900-03-01'", "'2024-02-29'", "'9999-12-31'"]),
    Edge("DATETIME", "datetime", ["'1000-01-01 00:00:00'", "'1900-02-28 23:59:59'", "'1900-03-01'", "'1969-12-31 23:59:59'",
                                  "'2024-02-29 12:34:56'", "'2024-03-31 02:30:00'", "'9999-12-31 23:59:59'"]),
    Edge("DATETIME(3)", "datetime", ["'2024-02-29 23:59:59.999'", "'2024-01-01 00:00:00.001'", "'9999-12-31 23:59:59.999'"]),
    Edge("DATETIME(6)", "datetime", ["'1000-01-01 00:00:00.000001'", "'2024-02-29 10:00:00.120000'",
                                     "'9999-12-31 23:59:59.999999'", "'2024-02-29 00:00:00'"]),
    Edge("TIMESTAMP", "datetime", ["'1970-01-01 00:00:01'", "'2024-10-27 01:30:00'", "'2038-01-19 03:14:07'"]),
    Edge("TIMESTAMP(6)", "datetime", ["'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07.999999'"]),
    Edge("TIME", "time", ["'00:00:00'", "'23:59:59'", "'24:00:00'", "'838:59:59'", "'-838:59:59'", "'-00:00:01'"]),
    Edge("TIME(3)", "time", ["'00:00:00.001'", "'838:59:59.000'", "'-12:00:00.500'"]),
    Edge("TIME(6)", "time", ["'00:00:00.000001'", "'838:59:58.999999'", "'-838:59:58.999999'", "'12:00:00'"]),
    Edge("CHAR(50)", "text", TEXTS),
    Edge("VARCHAR(50)", "text", TEXTS),
    *(Edge(f"{size}TEXT", "text", TEXTS) for size in ("TINY", "", "MEDIUM", "LONG")),
    Edge("NATIONAL VARCHAR(50)", "text", ["''", "'größer'"]),
    Edge("BINARY(4)", "binary", ["''", "'a'", "x'00'", "x'ffffffff'", "x'0d0a2c22'"]),
    Edge("VARBINARY(20)", "binary", BYTES),
    *(Edge(f"{size}BLOB", "binary", BYTES) for size in ("TINY", "", "MEDIUM", "LONG")),
    Edge("ENUM('a','größe','b''\"','','1')", "text", ["1", "2", "3", "''", "'1'"]),
    Edge("SET('x','ü','z z')", "text", ["''", "1", "'x,ü'", "7"]),
    Edge("JSON", "json", JSONS),
    Edge("GEOMETRY", "text", SHAPES),
    Edge("POINT", "text", ["POINT(1, -2.5)"]),
    Edge("INET6", "text", ["'::'", "'::ffff:1.2.3.4'", "'2001:db8::1'"]),
    Edge("INET4", "text", ["'0.0.0.0'", "'255.255.255.255'"]),
    Edge("UUID", "text", ["'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-ffff-ffff-ffff-fffffffffffe'"]),
    # What not every format can hold, each by itself.
    Edge("YEAR", "integer", ["0"], "year zero"),
    Edge("TINYINT(1)", "boolean", ["2"], "neither true nor false", "boolean", UNKNOWN),
    Edge("TINYINT(1)", "boolean", ["-1"], "less than false", "boolean", UNKNOWN),
    Edge("DATE", "date", ["'0000-00-00'"], "zero date", refused=ZERO),
    Edge("DATE", "date", ["'2024-02-00'"], "zero day", refused=ZERO),
    Edge("DATE", "date", ["'2023-02-29'"], "day that never was", refused=ZERO),
    Edge("DATETIME", "datetime", ["'0000-00-00 00:00:00'"], "zero datetime", refused=ZERO),
    Edge("DATETIME(6)", "datetime", ["'2024-00-01 12:00:00.5'"], "zero month", refused=ZERO),
    Edge("TIMESTAMP", "datetime", ["0"], "zero timestamp", refused=ZERO),
    Edge("TEXT", "text", ["REPEAT('x', 32767)"], "longest text of a sheet"),
    Edge("TEXT", "text", ["REPEAT('x', 32768)"], "text too long for a sheet", refused=frozenset({"xlsx"})),
    Edge("MEDIUMTEXT", "text", ["REPEAT('🦀', 16384)"], "crabs too long for a sheet",
         refused=frozenset({"xlsx"})),
]  # fmt: skip
every_edge = pytest.mark.parametrize(
    ("place", "edge"), list(enumerate(EDGES)), ids=[f"{edge.sql} {edge.name}".strip() for edge in EDGES]
)


@pytest.fixture(scope="module")
def edges(server: Server) -> Server:
    """Of each edge a table, `edge_<place>`, whose last row holds NULL."""
    server.cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES', explicit_defaults_for_timestamp = 1")
    for place, edge in enumerate(EDGES):
        rows = ", ".join(f"({number}, {literal})" for number, literal in enumerate([*edge.literals, "NULL"]))
        server.cursor.execute(f"CREATE TABLE edge_{place} (id INT PRIMARY KEY, v {edge.sql} NULL)")
        server.cursor.execute(f"INSERT INTO edge_{place} VALUES {rows}")
        assert server.cursor.rowcount == len(edge.literals) + 1
    return server


@formats
@every_edge
def test_every_type_comes_through_with_its_edges(
    edges: Server, reader: MySQLReader, format: str, place: int, edge: Edge
) -> None:
    wanted = table(f"edge_{place}", ID, Column("v", edge.declared))
    if format in edge.refused:
        with pytest.raises(ExportError, match=r"\bv\b") as caught:
            written(reader, format, wanted)
        assert caught.value.permanent
        return
    truth = mysql_truth(edges.cursor, f"edge_{place}", order="id", kinds={"v": edge.kind} if edge.kind else {})
    assert len(truth.rows) == len(edge.literals) + 1
    check(format, truth, written(reader, format, wanted))


@formats
@every_edge
def test_every_type_comes_through_in_a_column_by_itself(
    edges: Server, reader: MySQLReader, format: str, place: int, edge: Edge
) -> None:
    """Where a line may have nothing in it but NULL."""
    if format in edge.refused:
        return
    truth = mysql_truth(edges.cursor, f"edge_{place}", ["v"], "id", {"v": edge.kind} if edge.kind else {})
    check(format, truth, written(reader, format, table(f"edge_{place}", Column("v", edge.declared))))


USUAL = [(f"v{place}", place, edge) for place, edge in enumerate(EDGES) if not edge.name]


@pytest.fixture(scope="module")
def sides(edges: Server) -> Server:
    """A table with a column of each type: NULL in all of them, in some and in none."""
    kinds = ", ".join(f"{name} {edge.sql} NULL" for name, _, edge in USUAL)
    edges.cursor.execute(f"CREATE TABLE sides (id INT PRIMARY KEY, {kinds})")
    edges.cursor.execute("INSERT INTO sides (id) SELECT seq FROM seq_0_to_99")
    for name, place, edge in USUAL:
        turn = len(edge.literals) + 1
        edges.cursor.execute(
            f"UPDATE sides JOIN edge_{place} AS e ON e.id = sides.id % {turn} SET {name} = e.v WHERE sides.id < 90"
        )
    return edges


@formats
def test_all_types_come_through_side_by_side(sides: Server, reader: MySQLReader, format: str) -> None:
    wanted = table("sides", ID, *(Column(name, edge.declared) for name, _, edge in USUAL))
    truth = mysql_truth(
        sides.cursor, "sides", order="id", kinds={name: edge.kind for name, _, edge in USUAL if edge.kind}
    )
    assert len(truth.rows) == 100
    assert set(truth.rows[99][1:]) == {None}
    check(format, truth, written(reader, format, wanted))


@formats
def test_a_table_without_rows_makes_a_file_without_rows(server: Server, reader: MySQLReader, format: str) -> None:
    server.cursor.execute("CREATE TABLE IF NOT EXISTS nothing (id INT PRIMARY KEY, v TEXT)")
    truth = Truth(("id", "v"), ("number", "text"), ())
    check(format, truth, written(reader, format, table("nothing", ID, Column("v"))))


# --- every character set ----------------------------------------------------------------------------------------------

LINES = [
    "".join(map(chr, range(start, start + 64)))
    for start in (*range(0, 0x600, 64), 0x5D0, 0x620, 0xE01, 0x10D0, 0x1E00, 0x2010, 0x20A0, 0x2190, 0x2500, 0x3040,
                  0x30A0, 0x4E00, 0x9F80, 0xAC00, 0xFF01, 0xFFC0, 0x1D400, 0x1F600, 0x1F980, 0x2F800)
]  # fmt: skip


@formats
def test_every_character_set_comes_through(server: Server, reader: MySQLReader, format: str) -> None:
    server.cursor.execute("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS ORDER BY 1")
    charsets = [name for [name] in server.cursor.fetchall()]
    assert {"utf8mb4", "utf16", "latin1", "cp1251", "sjis", "gb2312", "ucs2"} < set(charsets)
    kinds = ", ".join(
        f"c_{name} VARCHAR({64 * 4 if name == 'binary' else 64}) CHARACTER SET {name}" for name in charsets
    )
    server.cursor.execute(f"CREATE TABLE IF NOT EXISTS charsets (id INT PRIMARY KEY, {kinds})")
    places = ", ".join(["%s"] * (1 + len(charsets)))
    rows = [(number, *[line] * len(charsets)) for number, line in enumerate(LINES)]
    server.cursor.executemany(f"INSERT IGNORE INTO charsets VALUES ({places})", rows)
    names = [Column(f"c_{name}", "binary" if name == "binary" else "text") for name in charsets]
    truth = mysql_truth(server.cursor, "charsets", [column.name for column in names], "id")
    for whole in ("utf8mb4", "utf16", "utf16le", "utf32"):
        held = [row[charsets.index(whole)] for row in truth.rows]
        assert held == [line.encode() for line in LINES]
    check(format, truth, written(reader, format, table("charsets", *names)))


# --- 16 MB ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(server: Server) -> Iterator[Server]:
    """A table with a text of 16 MB, and sessions that may send it; new ones, because that is settled as they begin."""
    server.cursor.execute("SELECT @@GLOBAL.max_allowed_packet")
    [[before]] = server.cursor.fetchall()
    server.cursor.execute("SET GLOBAL max_allowed_packet = 256 << 20")
    try:
        with mysql(server.url) as cursor:
            cursor.execute("CREATE TABLE large (id INT PRIMARY KEY, v LONGTEXT)")
            parts = "CONCAT(REPEAT('größe \"🦀\"\\r\\n', 1 << 20), REPEAT('x', (16 << 20) - (18 << 20) % (16 << 20)))"
            cursor.execute(f"INSERT INTO large VALUES (1, 'before'), (2, {parts}), (3, NULL), (4, 'behind')")
            yield Server(server.url, cursor)
    finally:
        server.cursor.execute(f"SET GLOBAL max_allowed_packet = {before}")


@formats
def test_a_text_of_16_megabytes_comes_through(large: Server, reader: MySQLReader, format: str) -> None:
    wanted = table("large", ID, Column("v"))
    if format == "xlsx":
        with pytest.raises(ExportError, match="v holds a text of") as caught:
            written(reader, format, wanted)
        assert caught.value.permanent
        return
    truth = mysql_truth(large.cursor, "large", order="id")
    assert len(truth.rows[1][1] or b"") >= 16 << 20
    check(format, truth, written(reader, format, wanted))


# --- how a file is written --------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1+1", "-1-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "－1+2", "-5", "+44 20 7946", "-", "-1.5e3", "a=1",
            "", "'=1", "0", "\"=1", " =1"]  # fmt: skip


# Base64 has no sign but "+": that of the first two is "+A1+" and "+123".
BASES = [b"\xf8\x0d\x7e", b"\xfb\x5d\xb7", *(text.encode() for text in FORMULAS[2:])]
APOSTROPHES = ("csv", "tsv")  # a sheet's cell has a mark of its own for that, and the other formats are no sheets


def hold(format: str, truth: Truth, data: bytes, exact: bool) -> None:
    """Holds a file against the truth, made safe for spreadsheets or `exact`."""
    if exact or format not in APOSTROPHES:
        check(format, truth, data)
    else:
        check(format, safe(truth), data, safe=True)


@pytest.mark.parametrize("exact", [False, True])
@formats
def test_only_texts_that_are_formulas_get_an_apostrophe(
    server: Server, reader: MySQLReader, format: str, exact: bool
) -> None:
    server.cursor.execute(
        "CREATE TABLE IF NOT EXISTS formulas (id INT PRIMARY KEY, v VARCHAR(50), n INT, w VARBINARY(50))"
    )
    rows = [(number, text, -number, base) for number, (text, base) in enumerate(zip(FORMULAS, BASES, strict=True))]
    server.cursor.executemany("INSERT IGNORE INTO formulas VALUES (%s, %s, %s, %s)", rows)
    truth = mysql_truth(server.cursor, "formulas", order="id")
    wanted = table("formulas", ID, Column("v"), Column("n", "integer"), Column("w", "binary"))
    data = written(reader, format, wanted, FileOptions(exact=exact))
    hold(format, truth, data, exact)


@pytest.mark.parametrize(
    ("format", "options", "more"),
    [
        ("csv", {"delimiter": ";"}, {"delimiter": ";"}), ("csv", {"delimiter": "\t"}, {"delimiter": "\t"}),
        ("csv", {"delimiter": "|", "null": "NULL"}, {"delimiter": "|", "null": "NULL"}),
        ("csv", {"null": "\\N"}, {"null": "\\N"}),
        ("tsv", {"null": "NULL"}, {"null": "NULL"}),
    ],
)  # fmt: skip
def test_delimiters_and_words_for_null_are_kept_apart_from_values(
    edges: Server, reader: MySQLReader, format: str, options: dict[str, Any], more: dict[str, str]
) -> None:
    place = next(place for place, edge in enumerate(EDGES) if edge.sql == "VARCHAR(50)")
    truth = mysql_truth(edges.cursor, f"edge_{place}", order="id")
    wanted = table(f"edge_{place}", ID, Column("v"))
    check(format, truth, written(reader, format, wanted, FileOptions(exact=True, **options)), **more)


MOMENTS_OF_CHANGE = ["1970-01-01 00:00:01", "2024-03-31 00:59:59.999999", "2024-03-31 01:00:00", "2024-10-27 00:30:00.5",
                     "2024-10-27 01:30:00.5", "2038-01-19 03:14:07"]  # fmt: skip


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "UTC"])
@formats
def test_a_timestamp_in_any_zone_is_the_same_moment(
    server: Server, reader: MySQLReader, format: str, zone: str
) -> None:
    """Each with its offset, so that the hour that clocks have twice is no riddle; a sheet has it in the title alone."""
    server.cursor.execute("CREATE TABLE IF NOT EXISTS zones (id INT PRIMARY KEY, v TIMESTAMP(6) NULL)")
    rows = list(enumerate([*MOMENTS_OF_CHANGE, None]))
    server.cursor.executemany("INSERT IGNORE INTO zones VALUES (%s, %s)", rows)
    truth = mysql_truth(server.cursor, "zones", order="id")
    data = written(reader, format, table("zones", ID, Column("v", "datetime")), zone=zone)
    check(format, IN_ZONE.get(format, with_offset)(truth, zone), data)


def moved(truth: Truth, zone: str, move: Callable[[datetime.datetime], str]) -> Truth:
    def there(raw: bytes) -> bytes:
        moment = datetime.datetime.fromisoformat(raw.decode()).replace(tzinfo=datetime.UTC)
        return move(moment.astimezone(ZoneInfo(zone))).encode()

    return replace(truth, rows=tuple((number, None if raw is None else there(raw)) for number, raw in truth.rows))


def with_offset(truth: Truth, zone: str) -> Truth:
    return moved(truth, zone, lambda moment: moment.isoformat(" ", "microseconds"))


def in_a_sheet(truth: Truth, zone: str) -> Truth:
    """Local times under a title with the zone; with the offset where a text has to stand, finer than milliseconds."""

    def move(moment: datetime.datetime) -> str:
        exact = moment.isoformat(" ", "microseconds")
        return exact if moment.microsecond % 1000 else exact[: -len("+00:00")]

    return replace(moved(truth, zone, move), names=("id", f"v ({zone})"))


IN_ZONE: dict[str, Callable[[Truth, str], Truth]] = {"xlsx": in_a_sheet, "parquet": lambda truth, zone: truth}


# --- in pieces --------------------------------------------------------------------------------------------------------


def _many(cursor: Any, kinds: str, rows: list[tuple[Any, ...]], key: str) -> None:
    cursor.execute(f"CREATE OR REPLACE TABLE many ({kinds}, note VARCHAR(20), PRIMARY KEY ({key}))")
    places = ", ".join(["%s"] * (len(rows[0]) + 1))
    numbered = [(*row, f"row {number}") for number, row in enumerate(rows)]
    cursor.executemany(f"INSERT IGNORE INTO many VALUES ({places})", numbered)  # what a collation takes for one


WORDS = [f"{first}{second}" for first in ("", "a", "A", "ä", "b", "ß", "ss", "é", "z", "Z", "'", "%", "\\", "~", "ÿ")
         for second in ("", " ", "a", "Ä", "1", "é", "-")]  # fmt: skip
CRABS = [word + crab for word in WORDS for crab in ("", "🦀", "🐙")]
DATES = [
    f"2024-{month:02}-{day:02} 00:00:00.{micro:06}" for month in (2, 3) for day in range(1, 29) for micro in (0, 1)
]
KEYS: list[tuple[str, str, list[tuple[Any, ...]]]] = [
    ("k INT", "k:integer", [(number * number - 50,) for number in range(100)]),
    ("k BIGINT UNSIGNED", "k:integer", [((1 << 64) - 1 - number * 10**15,) for number in range(100)]),
    ("k VARCHAR(20) COLLATE utf8mb4_general_ci", "k", [(word,) for word in CRABS]),
    ("k VARCHAR(20) COLLATE utf8mb4_unicode_ci", "k", [(word,) for word in CRABS]),
    ("k VARCHAR(20) COLLATE utf8mb4_unicode_nopad_ci", "k", [(word,) for word in CRABS]),
    ("k VARCHAR(20) COLLATE utf8mb4_bin", "k", [(word,) for word in CRABS]),
    ("k VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci", "k", [(word,) for word in WORDS]),
    ("k VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german2_ci", "k", [(word,) for word in WORDS]),
    ("k VARBINARY(9)", "k:binary", [(bytes([first, second]),) for first in (0, 39, 127, 128, 255) for second in range(9)]),
    ("k DATETIME(6)", "k:datetime", [(moment,) for moment in DATES]),
    ("k DATE", "k:date", [("0000-00-00",), *((moment[:10],) for moment in DATES)]),
    ("a VARCHAR(9) COLLATE utf8mb4_general_ci, b DATE, c INT", "a b:date c:integer",
     [(word, day, number) for word in ("", "a", "B", "ä", "🦀") for day in ("0000-00-00", "2024-02-29")
      for number in (-1, 0, 3, 7, 9)]),
    ("b INT, a VARCHAR(9) CHARACTER SET latin1", "b:integer a",
     [(number, word) for number in (-(1 << 31), 0, (1 << 31) - 1) for word in WORDS[:30]]),
]  # fmt: skip


@pytest.mark.parametrize(("kinds", "key", "rows"), KEYS, ids=[kinds for kinds, _, _ in KEYS])
@joining
def test_pieces_that_end_early_lose_and_double_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, format: str, kinds: str, key: str, rows: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(mysql_reader, "BATCH_ROWS", 7)
    keys = columns(key)
    order = ", ".join(column.name for column in keys)
    _many(server.cursor, kinds, rows, order)
    wanted = Query("many", False, (Column("note"), *keys), keys)
    pieces = _pieces(server.url, format, wanted)
    truth = mysql_truth(server.cursor, "many", [column.name for column in wanted.columns], order)
    assert len(pieces) > max(2, len(truth.rows) // 15)
    check(format, truth, b"".join(pieces))


@joining
def test_pieces_never_part_rows_of_one_key(server: Server, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """The key of a view is unique by declaration only."""
    monkeypatch.setattr(mysql_reader, "BATCH_ROWS", 7)
    _many(
        server.cursor,
        "k VARCHAR(9) COLLATE utf8mb4_bin, n INT",
        [(word, n) for word in WORDS for n in range(5)],
        "k, n",
    )
    wanted = Query("many", False, columns("k n:integer note"), columns("k"))
    pieces = _pieces(server.url, format, wanted)
    truth = mysql_truth(server.cursor, "many", order="k, n")
    assert len(pieces) > len(truth.rows) // 15
    check(format, truth, b"".join(pieces))


def _pieces(url: str, format: str, wanted: Query) -> list[bytes]:
    """A file in pieces, each of which has no time for more than its first batches; a reader lasts for one."""
    store = MemoryStore()
    names: list[str] = []
    with open_reader(url) as reader:
        ranges = reader.plan(wanted, 20, "").ranges
    for planned in ranges:
        after, whole = planned.after, False
        while not whole:
            names.append(f"{len(names):04d}")
            reach = KeyRange(after, planned.upto)
            spec = ChunkSpec(wanted, reach, format, "none", names[-1], len(names) == 1, "", 0, EXACT)
            with open_reader(url) as reader:
                after = write_piece(spec, reader, store).last_key
            whole = after is None
    return [store.files[name] for name in names]


# --- tables that nobody thought of ------------------------------------------------------------------------------------

LETTERS = st.text(st.characters(codec="utf-8"), max_size=20) | st.text("\"',;\t\r\n\\N=+-@ %0é🦀\0_x<&", max_size=8)
NAMES = (
    "a",
    "größe",
    'say "x"',
    "a,b;c\td",
    "b`c",
    "%s",
    "x y",
    "ключ",
    "\\N",
    "c'd",
    "{}",
    "NULL",
    "x" * 64,
    "=1+1",
    "+49 1",
    "-a",
)
MOMENTS = st.datetimes(datetime.datetime(1000, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)).map(str)
DAYS = st.dates(datetime.date(1000, 1, 1)).map(str)
CLOCKS = st.times().map(str)


def whole(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


def digits(width: int, places: int) -> st.SearchStrategy[str]:
    """Decimals as texts: Python's own would be rounded to 28 digits on the way."""
    signed = st.integers(-(10**width) + 1, 10**width - 1)
    return signed.map(lambda number: f"{number}e-{places}")


def documents() -> st.SearchStrategy[str]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LETTERS
    inner = st.recursive(leaves, lambda more: st.lists(more, max_size=3) | st.dictionaries(LETTERS, more, max_size=3))
    return inner.map(json.dumps)


Kind = tuple[str, str, st.SearchStrategy[Any]]
MYSQL_KINDS: list[Kind] = [
    ("INT", "integer", whole(32)), ("BIGINT UNSIGNED", "integer", whole(64, signed=False)),
    ("BIT(64)", "integer", whole(64, signed=False)),
    ("BIGINT", "integer", whole(64)), ("TINYINT(1)", "boolean", st.integers(0, 1)),
    ("INT(8) ZEROFILL", "integer", whole(32, signed=False)),
    ("DECIMAL(65,30)", "decimal", digits(65, 30)), ("DECIMAL(18,4)", "decimal", digits(18, 4)),
    ("DOUBLE", "float", st.floats(allow_nan=False, allow_infinity=False)),
    ("FLOAT", "float", st.floats(allow_nan=False, allow_infinity=False, width=32)),
    ("DATE", "date", DAYS), ("DATETIME(6)", "datetime", MOMENTS), ("DATETIME(3)", "datetime", MOMENTS),
    ("TIME(6)", "time", CLOCKS),
    ("VARCHAR(20) CHARACTER SET utf8mb4", "text", LETTERS), ("LONGTEXT CHARACTER SET utf8mb4", "text", LETTERS),
    ("VARCHAR(20) CHARACTER SET latin1", "text", LETTERS), ("CHAR(20) CHARACTER SET utf16", "text", LETTERS),
    ("VARBINARY(20)", "binary", st.binary(max_size=20)), ("LONGBLOB", "binary", st.binary(max_size=20)),
    ("JSON", "json", documents()), ("ENUM('a','ü,\"')", "text", st.integers(1, 2)),
]  # fmt: skip
SQLITE_KINDS: list[Kind] = [
    ("INTEGER", "integer", whole(64)), ("REAL", "float", st.floats(allow_nan=False)),
    ("TEXT", "text", LETTERS), ("BLOB", "binary", st.binary(max_size=20)),
    ("BOOLEAN", "boolean", st.integers(0, 1)), ("JSON", "json", documents()),
    ("DATE", "date", DAYS), ("DATETIME", "datetime", MOMENTS), ("TIME", "time", CLOCKS),
]  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Columns with names, and rows of values for a driver; the first column numbers the rows."""

    columns: list[tuple[str, Kind]]
    rows: list[tuple[Any, ...]]
    exact: bool

    def create(self, quote: Callable[[str], str]) -> str:
        kinds = ", ".join(f"{quote(name)} {kind[0]}" for name, kind in self.columns)
        return f"(id INTEGER PRIMARY KEY, {kinds})"

    def query(self, name: str) -> Query:
        return table(name, ID, *(Column(title, kind[1]) for title, kind in self.columns))

    def numbered(self) -> list[tuple[Any, ...]]:
        return [(number, *row) for number, row in enumerate(self.rows)]


@st.composite
def tables(draw: st.DrawFn, kinds: list[Kind]) -> Table:
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))
    names = draw(st.permutations(NAMES))
    rows = st.lists(st.tuples(*(st.none() | kind[2] for kind in chosen)), max_size=30)
    return Table(list(zip(names, chosen, strict=False)), draw(rows), draw(st.booleans()))


_numbers = count()


@formats
@examples(25)
@given(made=tables(MYSQL_KINDS))
def test_any_table_of_mysql_comes_through(server: Server, format: str, made: Table) -> None:
    name = f"any_{next(_numbers)}"
    create = made.create(lambda title: "`" + title.replace("`", "``") + "`")
    server.cursor.execute("SET sql_mode = ''")
    server.cursor.execute(f"CREATE TABLE {name} {create}")
    try:
        server.cursor.executemany(
            f"INSERT IGNORE INTO {name} VALUES ({', '.join(['%s'] * (1 + len(made.columns)))})", made.numbered()
        )
        booleans = {title: "boolean" for title, kind in made.columns if kind[1] == "boolean"}
        truth = mysql_truth(server.cursor, name, order="id", kinds=booleans)
        assert len(truth.rows) == len(made.rows)
        with open_reader(server.url) as reader:
            written_and_held(reader, format, truth, made, name)
    finally:
        server.cursor.execute(f"DROP TABLE {name}")


@formats
@examples(25)
@given(made=tables(SQLITE_KINDS))
def test_any_table_of_sqlite_comes_through(format: str, made: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "any.sqlite3"
        with closing(sqlite3.connect(file)) as connection, connection:
            create = made.create(lambda title: '"' + title.replace('"', '""') + '"')
            connection.execute(f"CREATE TABLE t {create}")
            places = ", ".join("?" * (1 + len(made.columns)))
            connection.executemany(f"INSERT INTO t VALUES ({places})", made.numbered())
        truth = sqlite_truth(file, "t", "id")
        assert len(truth.rows) == len(made.rows)
        with open_reader(f"sqlite:///{file}") as reader:
            written_and_held(reader, format, truth, made, "t")


def written_and_held(reader: Reader, format: str, truth: Truth, made: Table, name: str) -> None:
    data = written(reader, format, made.query(name), FileOptions(exact=made.exact))
    note(f"{data!r:.4000}")
    hold(format, truth, data, made.exact)
