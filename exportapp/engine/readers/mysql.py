"""Reads MySQL and MariaDB through mysqlclient's raw interface: the text protocol's bytes are the exact values.

Every session runs in UTC, read-only, with utf8mb4; a result is streamed and never buffered whole.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import MySQLdb as MySQLdb
from MySQLdb import _mysql
from MySQLdb.constants import FIELD_TYPE, FLAG

from exportapp.engine import sql
from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import cut, key_of, null_key
from exportapp.engine.readers.base import COUNT_LIMIT
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES, Column, KeyRange, Plan, Query, Row

# A NUL cannot stand in a statement, so it marks bound values even where a declared query has its own % or ?.
DIALECT = sql.Dialect(quote="`", mark="\0", bytes_of="CAST(CONVERT({0} USING utf8mb4) AS BINARY)")

SESSION = (
    "SET time_zone='+00:00'",
    "SET sql_mode='TRADITIONAL,NO_ENGINE_SUBSTITUTION'",
    # The server drops a client that pauses longer than net_write_timeout (default 60 s) while it streams.
    "SET net_write_timeout=3600, net_read_timeout=600, wait_timeout=28800",
    "SET innodb_lock_wait_timeout=5, lock_wait_timeout=5",
    "SET SESSION TRANSACTION READ ONLY",
)
READ_TIMEOUT = 600  # seconds that a query may take until its first row
BATCH_BYTES = 8 << 20
BATCH_ROWS = 2000

REFUSED = {1044, 1045, 1049, 1142, 1143, 1227, 1698}
CHANGED = {1054, 1064, 1146, 1356}
FULL = {1040, 1203, 1226}
LOST = 2013
UNEXPLAINED = {1142, 1143, 1345}  # EXPLAIN of a view wants SHOW VIEW and the rights on its tables; reading it does not

_NUMBERS = {
    FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL, FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.LONG,
    FIELD_TYPE.INT24, FIELD_TYPE.LONGLONG, FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE, FIELD_TYPE.YEAR, FIELD_TYPE.BIT,
}  # fmt: skip
_MOMENTS = {FIELD_TYPE.DATE, FIELD_TYPE.TIME, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP}
_EXPRESSIONS: dict[int, str] = {
    FIELD_TYPE.FLOAT: "({0} + 0e0)",  # the text protocol cuts FLOAT to six digits; as DOUBLE it has them all
    FIELD_TYPE.BIT: "CAST({0} AS UNSIGNED)",
    FIELD_TYPE.GEOMETRY: "ST_AsText({0})",
}


def connect(url: str, *, read_timeout: int = 0) -> Any:
    """A raw connection for `mysql://user:password@host:port/database?ssl_ca=...`; parts may be percent-encoded.

    `unix_socket=` and `ssl_ca=` are the query parameters that are understood. `read_timeout` is in seconds.
    """
    parts, port = _split(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    arguments: dict[str, Any] = {
        "host": parts.hostname or "127.0.0.1",
        "port": port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.lstrip("/")),
        "connect_timeout": 5,
        "read_timeout": read_timeout or READ_TIMEOUT,
        "conv": {},
    }
    if "unix_socket" in options:
        arguments["unix_socket"] = options["unix_socket"]
    if "ssl_ca" in options:
        arguments["ssl"] = {"ca": options["ssl_ca"]}
    connection = _mysql.connect(**arguments)  # type: ignore[no-untyped-call]
    connection.set_character_set("utf8mb4")
    return connection


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        return parts, parts.port or 3306
    except ValueError:  # its message may hold a piece of the password: a # or / in it ends the address there
        hint = "the address is not understood; special characters in user and password have to be percent-encoded"
        raise MySQLdb.OperationalError(2005, hint) from None


class MySQLReader:
    """One session on a MySQL or MariaDB server; see readers.base.Reader."""

    def __init__(self, url: str) -> None:
        self._url = url
        with _explained():
            self._connection = connect(url)
            for statement in SESSION:
                self._connection.query(statement)
        self._thread = self._connection.thread_id()
        self._types: dict[str, int] = {}
        self._flags: dict[str, int] = {}
        self._streaming = False
        self._comment = ""

    def plan(self, query: Query, rows_per_chunk: int, comment: str) -> Plan:
        self._comment = comment
        with _explained():
            clause, values = sql.where(DIALECT, query, KeyRange())
            base = f"FROM {sql.source(DIALECT, query)}{clause}"
            rows, exact = self._estimate(base, values)
            if not query.key:
                return Plan((KeyRange(),), rows, exact)
            self._check_key(query)
            last = self._edge(query, base, values, "MAX")
            if last is None:
                return Plan((KeyRange(),), 0, True)
            if len(query.key) > 1 or query.key[0].type != "integer":
                return Plan((KeyRange(None, key_of(query.key, last)),), rows, exact)
            first = self._edge(query, base, values, "MIN")
            parts = -(-rows // rows_per_chunk)
            low, high = (int(key_of(query.key, edge or last)[0]) for edge in (first, last))
            return Plan(cut(low, high, parts), rows, exact)

    def _check_key(self, query: Query) -> None:
        self._learn(query)
        # Only those: a date that is NOT NULL "is NULL" when it is 0000-00-00 (MySQL manual, "Comparison Functions").
        nullable = tuple(column for column in query.key if not self._flags[column.name] & FLAG.NOT_NULL)
        if nullable:
            statement, values = sql.with_null_key(DIALECT, replace(query, key=nullable))
            if self._rows(statement, values):
                raise null_key(", ".join(column.name for column in nullable))

    def _estimate(self, base: str, values: sql.Values) -> tuple[int, bool]:
        [[text]] = self._rows(f"SELECT COUNT(*) FROM (SELECT 1 {base} LIMIT {COUNT_LIMIT + 1}) AS counted", values)
        if (rows := int(text)) <= COUNT_LIMIT:
            return rows, True
        try:
            result = self._query(f"EXPLAIN SELECT 1 {base}", values, stream=False)
        except MySQLdb.Error as error:
            if error.args[0] not in UNEXPLAINED:
                raise
            return rows, False
        names = [field[0].lower() for field in result.describe()]
        plan = result.fetch_row(0, 0)
        return max(rows, int(plan[0][names.index("rows")] or 0)), False

    def _edge(self, query: Query, base: str, values: sql.Values, edge: str) -> Row | None:
        """The key of the first (MIN) or last (MAX) row, None without rows."""
        names = [DIALECT.column(column) for column in query.key]
        if len(names) == 1:
            # Not ORDER BY ... LIMIT 1: with a time range, that may walk the whole primary key to find its first row.
            statement = f"SELECT {edge}({names[0]}) {base}"
        else:
            order = sql.order(DIALECT, query, " DESC" if edge == "MAX" else "")
            statement = f"SELECT {', '.join(names)} {base}{order} LIMIT 1"
        found: list[Row] = self._rows(statement, values)
        return found[0] if found and found[0][0] is not None else None

    def typed(self, query: Query) -> tuple[Column, ...]:
        with _explained():
            self._learn(query)
            return tuple(_typed(column, self._types[column.name]) for column in query.columns)

    def _learn(self, query: Query) -> None:
        names = list(dict.fromkeys(column.name for column in (*query.columns, *query.key)))
        quoted = ", ".join(DIALECT.column(Column(name)) for name in names)
        result = self._query(f"SELECT {quoted} FROM {sql.source(DIALECT, query)} LIMIT 0", [], stream=False)
        self._types = {name: field[1] for name, field in zip(names, result.describe(), strict=True)}
        self._flags = dict(zip(names, result.field_flags(), strict=True))
        if wrong := [column for column in query.key if not _fits_key(column, self._types[column.name])]:
            # A text compares as a number or the other way round, and in another order than the index has.
            raise ExportError(f"The key column {wrong[0].name} is declared as {wrong[0].type} but is of another type. An "
                              "operator has to correct the dataset.", permanent=True)  # fmt: skip
        if listed := [column.name for column in query.key if self._flags[column.name] & (FLAG.ENUM | FLAG.SET)]:
            # Ordered by the places of its words, compared by their letters: ranges would lose rows.
            raise ExportError(f"The key column {listed[0]} is an ENUM or SET, which cannot be cut into ranges. An "
                              "operator has to choose another key for this dataset, or none.", permanent=True)  # fmt: skip

    def stream(self, query: Query, key_range: KeyRange, comment: str) -> Iterator[list[Row]]:
        self._comment = comment
        with _explained():
            self._learn(query)
            columns = (*query.columns, *query.key)
            expressions = ", ".join(self._expression(column) for column in columns)
            clause, values = sql.where(DIALECT, query, key_range)
            statement = f"SELECT {expressions} FROM {sql.source(DIALECT, query)}{clause}{sql.order(DIALECT, query)}"
            result = self._query(statement, values, stream=True)
            self._streaming = True
            floats = [index for index, column in enumerate(columns) if self._types[column.name] == FIELD_TYPE.FLOAT]
            size = _batch_rows(result)
            try:
                while batch := _fetch(result, size):
                    yield [_with_floats(row, floats) for row in batch] if floats else batch
            except GeneratorExit:
                self._cut()  # else freeing the result would read it to its end
                raise
            self._streaming = False

    def _expression(self, column: Column) -> str:
        return _EXPRESSIONS.get(self._types[column.name], "{0}").format(DIALECT.column(column))

    def _rows(self, statement: str, values: sql.Values) -> Any:
        return self._query(statement, values, stream=False).fetch_row(0, 0)

    def _query(self, statement: str, values: sql.Values, *, stream: bool) -> Any:
        parts = f"{sql.comment(self._comment)}{statement}".encode().split(b"\0")
        literals = [self._literal(value) for value in values]
        if len(parts) != len(literals) + 1:
            raise ExportError("The dataset's names or its query hold a NUL character. An operator has to correct them.",
                              permanent=True, detail=repr(statement))  # fmt: skip
        filled = b"".join(part + literal for part, literal in zip(parts, [*literals, b""], strict=True))
        try:
            self._connection.query(filled)
        except MySQLdb.OperationalError as error:
            if error.args[0] == LOST:  # by us, after read_timeout: the server would go on with it
                self._kill_on_server()
            raise
        return self._connection.use_result() if stream else self._connection.store_result()

    def _literal(self, value: sql.Value) -> bytes:
        if isinstance(value, int | float):
            return repr(value).encode()
        if isinstance(value, bytes):
            return b"x'" + value.hex().encode() + b"'"
        literal: bytes = self._connection.string_literal(value.encode())
        return literal

    def kill(self) -> None:
        self._kill_on_server()
        self._cut()

    def _kill_on_server(self) -> None:
        # By a second connection: a server that sorts does not look at its socket and would go on for minutes. Found by
        # its comment as well: behind a restart or a failover the same number is somebody else's connection.
        with contextlib.suppress(MySQLdb.Error), contextlib.closing(connect(self._url, read_timeout=5)) as helper:
            ours: bytes = helper.string_literal(f"{sql.comment(self._comment)}%".encode())
            found = b"SELECT ID FROM information_schema.PROCESSLIST WHERE ID = %d AND INFO LIKE %b" % (
                self._thread,
                ours,
            )
            helper.query(found)
            if helper.store_result().fetch_row(0, 0):
                helper.query(b"KILL %d" % self._thread)

    def close(self) -> None:
        # Only a half-read result is cut off: a server counts and logs connections that end without a word.
        if self._streaming:
            self._cut()
        with contextlib.suppress(MySQLdb.Error):
            self._connection.close()

    def _cut(self) -> None:
        with contextlib.suppress(OSError, MySQLdb.Error):
            with socket.socket(fileno=os.dup(self._connection.fileno())) as wire:
                # Closed without lingering it is reset. An orderly end leaves a server that waits to send on the query,
                # its locks and its connection, until TCP gives up minutes later.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.shutdown(socket.SHUT_RDWR)


def _batch_rows(result: Any) -> int:
    """As many rows as fit BATCH_BYTES even if every value is as long as its type allows."""
    widest: int = sum(field[3] % (1 << 32) for field in result.describe())  # the driver gives LONGTEXT's 4 GiB as -1
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, widest)))


def _fetch(result: Any, step: int) -> list[Row]:
    """A batch, fetched `step` rows at a time: values are mostly far shorter than their type allows."""
    batch: list[Row] = list(result.fetch_row(step, 0))
    size = 0
    while step < BATCH_ROWS and len(batch) % step == 0:
        size += sum(len(value) for row in batch[-step:] for value in row if value)
        if len(batch) + step > BATCH_ROWS or size >= BATCH_BYTES or not (more := result.fetch_row(step, 0)):
            break
        batch += more
    return batch


def _fits_key(column: Column, server_type: int) -> bool:
    if column.type == "integer":
        return server_type in _NUMBERS
    if column.type in MOMENT_TYPES:
        return server_type in _MOMENTS
    return server_type not in _NUMBERS | _MOMENTS


def _typed(column: Column, server_type: int) -> Column:
    if server_type in _NUMBERS:
        return column if column.type in NUMBER_TYPES | {"boolean"} else Column(column.name, "decimal", column.scale)
    if server_type in _MOMENTS:
        return column if column.type in MOMENT_TYPES else Column(column.name, "datetime")
    return Column(column.name) if column.type in NUMBER_TYPES | MOMENT_TYPES | {"boolean"} else column


def _with_floats(row: Row, indexes: list[int]) -> Row:
    values = list(row)
    for index in indexes:
        values[index] = shortest_float(values[index])
    return tuple(values)


def shortest_float(text: bytes | None) -> bytes | None:
    """The shortest decimal that reads back as the same single-precision number: 19.99, not 19.989999771118164."""
    if text is None:
        return None
    value = float(text)
    packed = struct.pack("f", value)
    for digits in range(6, 10):
        short = f"{value:.{digits}g}"
        if struct.pack("f", float(short)) == packed:
            break
    return short.encode()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except MySQLdb.Error as error:
        raise explain(error) from error


def explain(error: Exception) -> ExportError:
    """The sentence for a driver's error; what a retry can mend is not permanent (MySQL manual, error reference)."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    detail = f"MySQL {code}: {error.args[1] if len(error.args) > 1 else error}"
    if code in REFUSED:
        return ExportError("The database refused to let the export desk read this. An operator has to grant it.",
                           permanent=True, detail=detail)  # fmt: skip
    if code in CHANGED:
        return ExportError("The table no longer has what this dataset names. An operator has to update the dataset.",
                           permanent=True, detail=detail)  # fmt: skip
    if code in FULL:
        return ExportError("The database has no free connection for the export right now.", detail=detail)
    if isinstance(error, MySQLdb.OperationalError | MySQLdb.InterfaceError):
        return ExportError("The database did not answer or broke off the connection.", detail=detail)
    return ExportError("The database reported an error while it read the rows.", detail=detail)
