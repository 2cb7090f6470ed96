"""Looks at a source's tables: columns, keys and indexes. For the system checks and for `manage.py inspect_source`."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit


class Unreachable(Exception):
    """The source does not answer; the message holds no password."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table or a query. `type` is one of the dataset file's; `declared` is the server's own word.

    `utc`: the server keeps it in UTC and shows it in the session's zone, which is UTC for exports.
    """

    name: str
    type: str
    declared: str = ""
    nullable: bool = True
    comment: str = ""
    scale: int | None = None
    choices: tuple[str, ...] = ()
    utc: bool = False


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[TableColumn, ...]
    is_view: bool = False
    unique: tuple[tuple[str, ...], ...] = ()  # the primary key first
    indexes: tuple[tuple[str, ...], ...] = ()

    def column(self, name: str) -> TableColumn | None:
        return next((column for column in self.columns if column.name == name), None)


class Inspector(Protocol):
    def tables(self) -> dict[str, Table]:
        """All tables and views by name."""

    def columns_of(self, query: str) -> tuple[TableColumn, ...]:
        """The columns of a SELECT; only names are certain. Raises ValueError with the server's words."""


@contextlib.contextmanager
def inspecting(url: str) -> Iterator[Inspector]:
    """An inspector of the source at `url`. Raises Unreachable, ImportError without the driver."""
    scheme = url.partition(":")[0]
    if scheme == "mysql":
        with _inspecting_mysql(url) as inspector:
            yield inspector
    elif scheme == "sqlite":
        with _inspecting_sqlite(url) as inspector:
            yield inspector
    else:
        raise Unreachable(f"its address begins with {scheme!r}, and not with mysql: or sqlite:")


# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------

_MYSQL_TYPES = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit"), "integer"),
    **dict.fromkeys(("float", "double"), "float"),
    **dict.fromkeys(("datetime", "timestamp"), "datetime"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "binary"),
    **{name: name for name in ("decimal", "date", "time", "json")},
}
_COLUMNS = """SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_COMMENT, NUMERIC_SCALE
    FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION"""
_INDEXES = """SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS
    WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"""
# MariaDB's JSON is a LONGTEXT with a check; MySQL's is a type, and its CHECK_CONSTRAINTS names no tables.
_JSON_CHECKS = """SELECT TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
    WHERE CONSTRAINT_SCHEMA = DATABASE() AND CHECK_CLAUSE LIKE 'json\\_valid(%'"""
_VIEWS = "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()"


@contextlib.contextmanager
def _inspecting_mysql(url: str) -> Iterator[Inspector]:
    from exportapp.engine.readers import mysql  # only here: the driver may be missing

    try:
        connection = mysql.connect(url)
    except mysql.MySQLdb.Error as error:
        raise Unreachable(f"it does not answer: {_words(error)}") from error
    try:
        yield _MySQLInspector(connection, mysql.MySQLdb.Error)
    finally:
        connection.close()


class _MySQLInspector:
    def __init__(self, connection: Any, error: type[Exception]) -> None:
        self._connection, self._error = connection, error

    def _rows(self, statement: str) -> list[list[str]]:
        self._connection.query(statement.encode())
        rows = self._connection.store_result().fetch_row(0, 0)
        return [["" if value is None else value.decode() for value in row] for row in rows]

    def tables(self) -> dict[str, Table]:
        views = {name for [name] in self._rows(_VIEWS)}
        documents = self._documents()
        tables: dict[str, Table] = {}
        for name, *facts in self._rows(_COLUMNS):
            table = tables.setdefault(name, Table(name, (), is_view=name in views))
            column = _mysql_column(*facts)
            if (name, column.name) in documents:
                column = replace(column, type="json")
            tables[name] = replace(table, columns=(*table.columns, column))
        return {name: self._with_indexes(table, self._indexes()) for name, table in tables.items()}

    def _documents(self) -> set[tuple[str, str]]:
        """The tables' columns that a check keeps to valid JSON."""
        if "MariaDB" not in self._connection.get_server_info():
            return set()
        return {
            (table, clause.removeprefix("json_valid(`").removesuffix("`)").replace("``", "`"))
            for table, clause in self._rows(_JSON_CHECKS)
        }

    def _indexes(self) -> list[list[str]]:
        if not hasattr(self, "_index_rows"):
            self._index_rows = self._rows(_INDEXES)
        return self._index_rows

    def _with_indexes(self, table: Table, rows: list[list[str]]) -> Table:
        parts: dict[tuple[str, bool], list[tuple[str, str]]] = {}
        for owner, index, repeats, column, prefix in rows:
            if owner == table.name:
                parts.setdefault((index, repeats == "0"), []).append((column, prefix))
        # An index on a prefix of a text does not identify it, and makes nothing before it unique.
        unique = [tuple(name for name, _ in part) for (_, is_unique), part in parts.items()
                  if is_unique and not any(prefix for _, prefix in part)]  # fmt: skip
        indexes = [tuple(name for name, _ in part) for part in parts.values()]
        return replace(table, unique=tuple(unique), indexes=tuple(indexes))

    def columns_of(self, query: str) -> tuple[TableColumn, ...]:
        try:
            self._connection.query(f"SELECT * FROM ({query}) AS export_rows LIMIT 0".encode())
            described = self._connection.store_result().describe()
        except self._error as error:
            raise ValueError(_words(error)) from error
        return tuple(TableColumn(one[0], "") for one in described)


def _words(error: Exception) -> str:
    return f"MySQL {error.args[0]}: {error.args[1]}" if len(error.args) > 1 else str(error)


def _mysql_column(name: str, data: str, full: str, nullable: str, comment: str, scale: str) -> TableColumn:
    kind = "boolean" if full == "tinyint(1)" else _MYSQL_TYPES.get(data, "text")
    # The server writes a quote inside a value twice.
    choices = tuple(one.replace("''", "'") for one in re.findall(r"'((?:[^']|'')*)'", full)) if data == "enum" else ()
    digits = int(scale) if data == "decimal" and scale else None
    return TableColumn(name, kind, full, nullable == "YES", comment, digits, choices, data == "timestamp")


# --- SQLite ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _inspecting_sqlite(url: str) -> Iterator[Inspector]:
    path = unquote(urlsplit(url).path)[1:]
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5)
    except sqlite3.Error as error:
        raise Unreachable(f"the file {path} cannot be opened") from error
    with contextlib.closing(connection):
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            raise Unreachable(f"the file {path} is no SQLite database") from error
        yield _SQLiteInspector(connection)


@dataclass
class _SQLiteInspector:
    connection: sqlite3.Connection
    _found: dict[str, Table] = field(default_factory=dict)

    def tables(self) -> dict[str, Table]:
        listed = self.connection.execute(
            "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall()
        return {name: self._table(name, kind == "view") for name, kind in listed if not name.startswith("sqlite_")}

    def _table(self, name: str, is_view: bool) -> Table:
        columns, primary = [], []
        for _, column, declared, not_null, _, place, hidden in self._pragma("table_xinfo", name):
            if hidden == 1:  # of a virtual table; generated columns are 2 and 3
                continue
            columns.append(_sqlite_column(column, declared, nullable=not not_null))
            if place:
                primary.append((place, column))
        # Only an INTEGER primary key keeps NULL out by itself (manual, "CREATE TABLE", 3.5); the others say so.
        if len(primary) == 1:
            columns = [_rowid(column) if column.name == primary[0][1] else column for column in columns]
        unique = [tuple(column for _, column in sorted(primary))] if primary else []
        indexes = list(unique)
        for _, index, is_unique, origin, partial in self._pragma("index_list", name):
            parts = tuple(part for _, _, part in self._pragma("index_info", index))
            if None in parts or partial:
                continue
            indexes.append(parts)
            if is_unique and origin != "pk":
                unique.append(parts)
        return Table(name, tuple(columns), is_view, tuple(unique), tuple(indexes))

    def _pragma(self, pragma: str, name: str) -> list[Any]:
        quoted = '"' + name.replace('"', '""') + '"'
        return self.connection.execute(f"PRAGMA {pragma}({quoted})").fetchall()

    def columns_of(self, query: str) -> tuple[TableColumn, ...]:
        try:
            cursor = self.connection.execute(f"SELECT * FROM ({query}) LIMIT 0")
        except sqlite3.Error as error:
            raise ValueError(f"SQLite: {error}") from error
        return tuple(TableColumn(one[0], "") for one in cursor.description)


def _rowid(column: TableColumn) -> TableColumn:
    return replace(column, nullable=False) if column.declared.upper() == "INTEGER" else column


def _sqlite_column(name: str, declared: str, *, nullable: bool) -> TableColumn:
    word = declared.upper()
    scale = word.partition(",")[2].rstrip(") ")
    kinds = (
        ("BOOL", "boolean"), ("INT", "integer"), ("DATETIME", "datetime"), ("TIMESTAMP", "datetime"), ("DATE", "date"),
        ("TIME", "time"), ("DEC", "decimal"), ("NUMERIC", "decimal"), ("REAL", "float"), ("FLOA", "float"),
        ("DOUB", "float"), ("JSON", "json"), ("BLOB", "binary"),
    )  # fmt: skip
    kind = next((kind for part, kind in kinds if part in word), "text")
    digits = int(scale) if kind == "decimal" and scale.strip().isdigit() else None
    return TableColumn(name, kind, declared, nullable, "", digits)
