"""A table's truth, read in another way than the engine reads it: each value is the server's own text of it, and comes as
hex, so that no driver can change a byte of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import MySQLdb

TruthRow = tuple[bytes | None, ...]


@dataclass(frozen=True)
class Truth:
    """What a table holds: of each column its name and kind, of each value its bytes.

    The bytes are UTF-8 text, but for the kind "binary". Kinds are: text, number (of exact digits), float32, float64,
    boolean, binary, json, date, datetime, time.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[TruthRow, ...]


# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------

_NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year", "bit")
_BINARIES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_SHAPES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
    "geomcollection",
)  # fmt: skip
_KINDS = {
    **dict.fromkeys(_NUMBERS, "number"), **dict.fromkeys(_BINARIES, "binary"), "float": "float32", "double": "float64",
    "date": "date", "datetime": "datetime", "timestamp": "datetime", "time": "time", "json": "json",
}  # fmt: skip
_EXPRESSIONS = {
    **dict.fromkeys(_BINARIES, "HEX({0})"), **dict.fromkeys(_SHAPES, "HEX(ST_AsText({0}))"),
    "bit": "HEX(CAST({0}+0 AS CHAR))",
    "float": "HEX(CAST(CAST({0} AS DOUBLE) AS CHAR))",  # as CHAR it would be cut to six digits
}  # fmt: skip
_COLUMNS = """SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS
    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"""
_CHECKS = """SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
    WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = %s"""


@contextmanager
def mysql(url: str) -> Iterator[Any]:
    """A cursor on a connection of its own, in UTC; it may write, and takes whatever values the server takes."""
    parts = urlsplit(url)
    connection: Any = MySQLdb.connect(
        host=parts.hostname or "127.0.0.1", port=parts.port or 3306, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=parts.path.lstrip("/"), charset="utf8mb4", autocommit=True,
    )  # fmt: skip
    with closing(connection), closing(connection.cursor()) as cursor:
        # And waits for no lock that a test has left behind.
        cursor.execute("SET time_zone = '+00:00', sql_mode = '', lock_wait_timeout = 10")
        yield cursor


def mysql_truth(
    cursor: Any, table: str, names: Sequence[str] = (), order: str = "", kinds: dict[str, str] | None = None
) -> Truth:
    """What the table holds. `kinds` says of columns what only people know: that a number is meant as boolean."""
    cursor.execute(_COLUMNS, (table,))
    types = dict(cursor.fetchall())
    names = tuple(names) or tuple(types)
    # Nothing else tells MariaDB's JSON from the LONGTEXT that it is.
    cursor.execute(_CHECKS, (table,))
    json_columns = {name for [clause] in cursor.fetchall() for name in re.findall(r"^json_valid\(`(.+)`\)$", clause)}
    expressions = [_EXPRESSIONS.get(types[name], "HEX(CONVERT(CAST({0} AS CHAR) USING utf8mb4))") for name in names]
    wanted = ", ".join(expression.format(_quoted(name)) for name, expression in zip(names, expressions, strict=True))
    # "%" would be a mark for values, if there were any.
    cursor.execute(f"SELECT {wanted} FROM {_quoted(table)}{f' ORDER BY {order}' if order else ''}")
    rows = tuple(tuple(None if value is None else bytes.fromhex(value) for value in row) for row in cursor.fetchall())
    found = {name: "json" if name in json_columns else _KINDS.get(types[name], "text") for name in names}
    return Truth(names, tuple({**found, **(kinds or {})}[name] for name in names), rows)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


# --- SQLite ----------------------------------------------------------------------------------------------------------

_SQLITE_KINDS = {"INTEGER": "number", "REAL": "float64", "TEXT": "text", "BLOB": "binary", "BOOLEAN": "boolean",
                 "DATE": "date", "DATETIME": "datetime", "TIME": "time", "JSON": "json", "DECIMAL": "number"}  # fmt: skip


def sqlite_truth(file: Path, table: str, order: str = "") -> Truth:
    """What the table holds; the kinds go by the types that its columns were declared with."""
    with closing(sqlite3.connect(file)) as connection:
        connection.text_factory = bytes
        columns = [(row[1].decode(), row[2].decode()) for row in connection.execute(f"PRAGMA table_info({table})")]
        rows = connection.execute(f"SELECT * FROM {table}{f' ORDER BY {order}' if order else ''}").fetchall()
    kinds = tuple(_SQLITE_KINDS[declared.partition("(")[0]] for _, declared in columns)
    return Truth(tuple(name for name, _ in columns), kinds, tuple(tuple(map(_bytes_of, row)) for row in rows))


def _bytes_of(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return repr(value).encode() if isinstance(value, float) else b"%d" % value
