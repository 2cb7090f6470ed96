"""Reads MySQL and MariaDB through mysqlclient's raw interface: the text protocol's bytes are the exact values.

Every session runs in UTC, read-only, with utf8mb4; a result is streamed and never buffered whole.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import MySQLdb as MySQLdb
from MySQLdb import _mysql
from MySQLdb.constants import FIELD_TYPE, FLAG

from exportapp.engine import sql
from exportapp.engine.errors import ExportError
from exportapp.engine.keyranges import cut, cut_at, guesses, key_of, null_key
from exportapp.engine.readers.base import COUNT_LIMIT, Histogram, TooSlow, days_of
from exportapp.engine.runs import Layout, Run
from exportapp.engine.specs import MOMENT_TYPES, Column, Key, KeyRange, KeyValue, Plan, Query, Row

# A NUL cannot stand in a statement, so it marks bound values even where a declared query has its own % or ?.
DIALECT = sql.Dialect(quote="`", mark="\0", bytes_of="CAST(CONVERT({0} USING utf8mb4) AS BINARY)")

SESSION = (
    "SET time_zone='+00:00'",
    "SET sql_mode='TRADITIONAL,NO_ENGINE_SUBSTITUTION'",
    # The server drops a client that pauses longer than net_write_timeout (default 60 s) while it streams.
    "SET net_write_timeout=3600, net_read_timeout=600, wait_timeout=28800",
    "SET innodb_lock_wait_timeout=5, lock_wait_timeout=5",
    # Each statement reads as of one moment, whatever isolation the server is set to.
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
)
OPEN_SECONDS = 15.0  # for the statements of a new session
READ_TIMEOUT = 600  # seconds that a query may take until its first row
STATEMENT_SECONDS = 6 * 3600  # and until its last; MariaDB's clock goes on while rows are sent
BATCH_BYTES = 8 << 20
BATCH_VALUES = 40_000  # of more, wide tables would take too much memory
BATCH_ROWS = 1000  # of 2000 the values leave the processor's cache before they are written: 5 % slower

REFUSED = {1044, 1045, 1049, 1130, 1142, 1143, 1227, 1370, 1698, 1820, 1862, 3118, 3159, 4151}
CHANGED = {1054, 1064, 1146, 1356}
FULL = {1040, 1203, 1226}
LOST = 2013
GONE = 1094  # a connection that ended by itself meanwhile
TOO_SLOW = {1969, 3024}  # MariaDB's max_statement_time, MySQL's max_execution_time
PASSES = {
    1020, 1205, 1206, 1213, 1297, 1412, 1615, 1637, 1689, 3058, 3572,  # others' locks and changes
    1053, 1077, 1079, 1080, 3032, 3168,  # a server that ends, or is out of service
    1028, 1152, 1184, 1317, 1927, 3169, 4031,  # a query or a connection that was ended
    1042, 1043, 1129, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161,  # the network
    1021, 1026, 1030, 1037, 1041, 1114, 1135, 3015, 3019,  # no disk, memory or threads left
    1047,  # a node of Galera that is not ready
    1105,  # an unknown error: nobody says that it lasts
    9001, 9002, 9004,  # ProxySQL does not reach a server
}  # fmt: skip
# What the client itself says: the network, TLS, a server that is away. Below 1000 are the errors that client and server
# share, of files and memory, and 0 is the driver's own.
CLIENT = (range(1000), range(2000, 3000), range(5000, 6000))
PLAN_SECONDS = 1
FIRST_YEAR = 1901  # of YEAR, besides 0; the server reads numbers below 100 as years since 1970 or 2000
UNEXPLAINED = {1142, 1143, 1345}  # EXPLAIN of a view wants SHOW VIEW and the rights on its tables; reading it does not

_BITS = {
    FIELD_TYPE.TINY: 8, FIELD_TYPE.SHORT: 16, FIELD_TYPE.INT24: 24, FIELD_TYPE.LONG: 32, FIELD_TYPE.LONGLONG: 64,
    FIELD_TYPE.YEAR: 16, FIELD_TYPE.BIT: 64,
}  # fmt: skip
_DECIMALS = {FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL}
_FLOATS = {FIELD_TYPE.FLOAT: 32, FIELD_TYPE.DOUBLE: 64}
_NUMBERS = _BITS.keys() | _DECIMALS | _FLOATS.keys()
_MOMENTS = {
    FIELD_TYPE.DATE: "date", FIELD_TYPE.TIME: "time", FIELD_TYPE.DATETIME: "datetime", FIELD_TYPE.TIMESTAMP: "datetime",
}  # fmt: skip
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
    with _wire(connection) as wire, _given_up_when_silent(wire):
        connection.set_character_set("utf8mb4")
    return connection


def _wire(connection: Any) -> socket.socket:
    """A handle of one's own to a connection's socket. Taken at its start: while a thread waits for an answer, mysqlclient
    lets no other one ask for the socket."""
    return socket.socket(fileno=os.dup(connection.fileno()))


@contextlib.contextmanager
def _given_up_when_silent(wire: socket.socket) -> Iterator[None]:
    """Cuts a new connection that does not answer: READ_TIMEOUT is meant for a first row, and nobody can kill it yet."""
    watch = threading.Timer(OPEN_SECONDS, _cut, [wire])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        watch.join()


def _cut(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        # Closed without lingering it is reset. An orderly end leaves a server that waits to send on the query,
        # its locks and its connection, until TCP gives up minutes later.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.shutdown(socket.SHUT_RDWR)


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
        self._mariadb = "MariaDB" in self._connection.get_server_info()
        self._wire = _wire(self._connection)
        self._fields: dict[str, Any] = {}
        self._flags: dict[str, int] = {}
        self._streaming = False
        self._comment = ""
        self._most: int | None = None  # rows of a stream
        try:
            self._begin()
        except ExportError:
            self.close()
            raise

    def _begin(self) -> None:
        with _explained(), _given_up_when_silent(self._wire):
            for statement in SESSION:
                self._connection.query(statement)
            self._limit(STATEMENT_SECONDS)
            self._thread = self._connection.thread_id()

    def plan(self, query: Query, rows_per_chunk: int, comment: str) -> Plan:
        self._comment = comment
        with _explained():
            clause, values = sql.where(DIALECT, query, KeyRange())
            base = f"FROM {sql.source(DIALECT, query)}{clause}"
            rows, exact = self._estimate(base, values)
            if not query.key:
                return Plan((KeyRange(),), rows, exact)
            self._learn(query)
            self._check_key(query)
            lead = query.key[0]
            ends = self._ends(query, lead, base, values)
            if ends is None:
                return Plan((KeyRange(),), 0, True)
            first, last = ends
            parts = -(-rows // rows_per_chunk)
            if lead.type == "integer":
                year = self._fields[lead.name][1] == FIELD_TYPE.YEAR
                return Plan(cut(max(int(first), FIRST_YEAR) if year else int(first), int(last), parts), rows, exact)
            return Plan(cut_at(self._edges(query, lead, first, last, parts), last), rows, exact)

    def _ends(self, query: Query, lead: Column, base: str, values: sql.Values) -> Key | None:
        """The first and the last value of the key's first column, None without rows."""
        name = DIALECT.column(lead)
        wanted = f"SELECT MIN({name}), MAX({name}) "
        found = None
        if values:
            with _none_of(TOO_SLOW):
                found = self._quickly(wanted + base, values)
        if found is None:
            # The ends of the wanted rows are found by looking at all of them; those of a table are at hand.
            found = self._rows(f"{wanted}FROM {sql.source(DIALECT, query)}", [])
        return None if found[0][0] is None else key_of((lead, lead), found[0])

    def _edges(self, query: Query, lead: Column, first: KeyValue, last: KeyValue, parts: int) -> list[KeyValue]:
        """Values of the key's first column that part it, distinct and in order by the column's own collation."""
        if query.is_query:
            return []
        name, relation = DIALECT.column(lead), sql.source(DIALECT, query)
        asked = guesses(lead, first, last, parts)
        if not asked:
            return []
        one = f"(SELECT {name} AS edge FROM {relation} WHERE {name} > {DIALECT.mark} ORDER BY {name} LIMIT 1)"
        statement = f"SELECT DISTINCT edge FROM ({' UNION ALL '.join([one] * len(asked))}) AS edges ORDER BY edge"
        with _none_of(TOO_SLOW):
            found = self._quickly(statement, [sql.bound(lead, guess) for guess in asked])
            return [key_of((lead,), row)[0] for row in found]
        return []

    def _quickly(self, statement: str, values: sql.Values, seconds: float | None = None) -> Any:
        """The rows of a statement that can be done without; the server gives it up after PLAN_SECONDS or `seconds`."""
        self._limit(seconds or PLAN_SECONDS)
        try:
            return self._rows(statement, values)
        finally:
            self._limit(STATEMENT_SECONDS)

    def _limit(self, seconds: float) -> None:
        """Has the server give up every statement that takes longer."""
        setting = f"max_statement_time={seconds}" if self._mariadb else f"max_execution_time={int(seconds * 1000)}"
        self._connection.query(f"SET {setting}".encode())

    def histogram(self, query: Query, column: Column | None, seconds: float, comment: str) -> Histogram:
        self._comment = comment
        with _explained():
            clause, values = sql.where(DIALECT, query, KeyRange())
            base = f"FROM {sql.source(DIALECT, query)}{clause}"
            rows, exact = self._estimate(base, values)
            if column is None or not (exact or self._has_index(query, column)):
                return Histogram(rows, exact)
            with _none_of(TOO_SLOW):
                return self._by_day(DIALECT.column(column), base, values, seconds)
            return Histogram(rows, exact)

    def _by_day(self, name: str, base: str, values: sql.Values, seconds: float) -> Histogram:
        ends = self._quickly(f"SELECT MIN({name}), MAX({name}) {base}", values, seconds)[0]
        oldest, newest = ((value or b"").decode(errors="replace") for value in ends)
        # Grouped by an index of the column the rows themselves are not read.
        counted = self._quickly(f"SELECT DATE({name}), COUNT(*) {base} GROUP BY 1", values, seconds)
        return Histogram(sum(int(count) for _, count in counted), True, oldest, newest, days_of(counted))

    def _has_index(self, query: Query, column: Column) -> bool:
        """Whether a table has an index that begins with the column."""
        if query.is_query:
            return False
        schema, _, name = query.relation.rpartition(".")
        found = self._rows(
            "SELECT 1 FROM information_schema.STATISTICS WHERE SEQ_IN_INDEX = 1 AND TABLE_NAME = \0 AND COLUMN_NAME = \0"
            f" AND INDEX_TYPE = 'BTREE' AND TABLE_SCHEMA = {DIALECT.mark if schema else 'DATABASE()'} LIMIT 1",
            [name, column.name, schema] if schema else [name, column.name],
        )
        return bool(found)

    def only_first(self, rows: int, seconds: float) -> None:
        self._most = rows
        with _explained():
            self._limit(seconds)

    def can_resume(self, query: Query) -> bool:
        # Texts that are equal to the collation, "a" and "A", may both be there where no unique index keeps them out.
        if all(column.type != "text" for column in query.key):
            return True
        with _explained():
            return not query.is_query and self._is_table(query.relation)

    def _is_table(self, relation: str) -> bool:
        schema, _, name = relation.rpartition(".")
        found = self._rows(
            "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_NAME = \0 AND TABLE_SCHEMA = "
            + ("\0" if schema else "DATABASE()"),
            [name, schema] if schema else [name],
        )
        return bool(found) and found[0][0] == b"BASE TABLE"

    def _check_key(self, query: Query) -> None:
        # Only those: a date that is NOT NULL "is NULL" when it is 0000-00-00 (MySQL manual, "Comparison Functions").
        nullable = tuple(column for column in query.key if not self._flags[column.name] & FLAG.NOT_NULL)
        if nullable:
            statement, values = sql.with_null_key(DIALECT, replace(query, key=nullable))
            if self._rows(statement, values):
                raise null_key(", ".join(column.name for column in nullable))

    def _estimate(self, base: str, values: sql.Values) -> tuple[int, bool]:
        rows = 0
        with _none_of(TOO_SLOW):
            counted = f"SELECT COUNT(*) FROM (SELECT 1 {base} LIMIT {COUNT_LIMIT + 1}) AS counted"
            rows = int(self._quickly(counted, values)[0][0])
            if rows <= COUNT_LIMIT:
                return rows, True
        with _none_of(UNEXPLAINED):
            result = self._query(f"EXPLAIN SELECT 1 {base}", values, stream=False)
            names = [field[0].lower() for field in result.describe()]
            rows = max(rows, int(result.fetch_row(0, 0)[0][names.index("rows")] or 0))
        return rows, False

    def typed(self, query: Query) -> tuple[Column, ...]:
        with _explained():
            self._learn(query)
            return tuple(
                _typed(column, self._fields[column.name], self._flags[column.name]) for column in query.columns
            )

    def _learn(self, query: Query) -> None:
        names = [column.name for column in query.read]
        quoted = ", ".join(DIALECT.column(Column(name)) for name in names)
        result = self._query(f"SELECT {quoted} FROM {sql.source(DIALECT, query)} LIMIT 0", [], stream=False)
        self._fields = dict(zip(names, result.describe(), strict=True))
        self._flags = dict(zip(names, result.field_flags(), strict=True))
        if wrong := [column for column in query.key if not _fits_key(column, self._fields[column.name][1])]:
            # A text compares as a number or the other way round, and in another order than the index has.
            raise ExportError(f"The key column {wrong[0].name} is declared as {wrong[0].type} but is of another type. An "
                              "operator has to correct the dataset.", permanent=True)  # fmt: skip
        if listed := [column.name for column in query.key if self._flags[column.name] & (FLAG.ENUM | FLAG.SET)]:
            # Ordered by the places of its words, compared by their letters: ranges would lose rows.
            raise ExportError(f"The key column {listed[0]} is an ENUM or SET, which cannot be cut into ranges. An "
                              "operator has to choose another key for this dataset, or none.", permanent=True)  # fmt: skip

    def stream(self, query: Query, key_range: KeyRange, comment: str, runs: Sequence[Run] = ()) -> Iterator[list[Row]]:
        self._comment = comment
        with _explained():
            self._learn(query)
            columns, layout = query.read, Layout(len(query.read), runs)
            selected, texts = _selected([self._expression(column) for column in columns], runs)
            clause, values = sql.where(DIALECT, query, key_range)
            statement = f"SELECT {selected} FROM {sql.source(DIALECT, query)}{clause}{sql.order(DIALECT, query)}"
            statement += "" if self._most is None else f" LIMIT {self._most}"
            result = self._query(statement, [*texts, *values], stream=True)
            self._streaming = True
            kinds = [self._fields[column.name][1] for column in columns]
            floats = [layout.place(index) for index, kind in enumerate(kinds) if kind == FIELD_TYPE.FLOAT]
            most = max(1, min(BATCH_ROWS, BATCH_VALUES // len(columns)))
            step = min(most, _step_rows(result))
            try:
                while batch := _fetch(result, step, most):
                    yield [_with_floats(row, floats) for row in batch] if floats else batch
                    del batch  # before the next is fetched: a row may have 16 MB
            except GeneratorExit:
                _cut(self._wire)  # else freeing the result would read it to its end
                raise
            self._streaming = False

    def _expression(self, column: Column) -> str:
        return _EXPRESSIONS.get(self._fields[column.name][1], "{0}").format(DIALECT.column(column))

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
        _cut(self._wire)

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

    @staticmethod
    def end_queries(url: str, orphan: Callable[[str], bool]) -> int:
        with _explained(), contextlib.closing(connect(url, read_timeout=5)) as helper:
            # A user without the right PROCESS sees the own connections alone, which are those that count.
            helper.query(b"SELECT ID, INFO FROM information_schema.PROCESSLIST WHERE INFO LIKE '/* %'")
            running = helper.store_result().fetch_row(0, 0)
            ended = [number for number, text in running if orphan(sql.comment_of(text.decode(errors="replace")))]
            for number in ended:
                with _none_of({GONE}):
                    helper.query(b"KILL %b" % number)
        return len(ended)

    def close(self) -> None:
        # Only a half-read result is cut off: a server counts and logs connections that end without a word.
        if self._streaming:
            _cut(self._wire)
        with contextlib.suppress(MySQLdb.Error):
            self._connection.close()
        self._wire.close()


def _selected(expressions: list[str], runs: Sequence[Run]) -> tuple[str, sql.Values]:
    """The list behind SELECT, and the texts bound in it."""
    selected: list[str] = []
    texts: sql.Values = []
    done = 0
    for run in runs:
        first, *others = (f"IFNULL({expressions[place]}, {DIALECT.mark})" for place in run.places)
        selected += expressions[done : run.first]
        if len(set(run.between)) == 1:  # a few per cent less of the server's time, which is what an export waits for
            selected.append(f"CONCAT_WS({', '.join([DIALECT.mark, first, *others])})")
            texts += [run.between[0], *[run.null] * len(run.places)]
        else:
            selected.append(f"CONCAT({f', {DIALECT.mark}, '.join([first, *others])})")
            texts += [run.null, *chain.from_iterable((between, run.null) for between in run.between)]
        done = run.places.stop
    return ", ".join(selected + expressions[done:]), texts


def _step_rows(result: Any) -> int:
    """As many rows as fit BATCH_BYTES even if every value is as long as its type allows."""
    widest: int = sum(field[3] % (1 << 32) for field in result.describe())  # the driver gives LONGTEXT's 4 GiB as -1
    return max(1, BATCH_BYTES // max(1, widest))


def _fetch(result: Any, step: int, most: int) -> list[Row]:
    """A batch of `most` rows, fetched `step` at a time: values are mostly far shorter than their type allows."""
    batch: list[Row] = list(result.fetch_row(step, 0))
    size = 0
    while step < most and len(batch) % step == 0:
        size += sum(map(len, filter(None, chain.from_iterable(batch[-step:]))))
        if len(batch) + step > most or size >= BATCH_BYTES or not (more := result.fetch_row(step, 0)):
            break
        batch += more
    return batch


def _fits_key(column: Column, server_type: int) -> bool:
    if column.type == "integer":
        return server_type in _NUMBERS
    if column.type in MOMENT_TYPES:
        return server_type in _MOMENTS
    return server_type not in _NUMBERS | _MOMENTS.keys()


def _typed(column: Column, field: Any, flags: int) -> Column:
    """The column as the server has it: what was declared counts only where the server says less."""
    kind, length, scale = field[1], field[3], field[5]
    unsigned = bool(flags & FLAG.UNSIGNED)
    padded = kind == FIELD_TYPE.YEAR or bool(flags & FLAG.ZEROFILL)
    if kind in _BITS:
        declared = column.type if column.type == "boolean" else "integer"
        unsigned = unsigned or kind in (FIELD_TYPE.BIT, FIELD_TYPE.YEAR)
        return replace(column, type=declared, bits=_BITS[kind], unsigned=unsigned, padded=padded, zone="", bare=True)
    if kind in _DECIMALS:
        precision = length - (scale > 0) - (not unsigned)  # the length counts the point and the sign as well
        return replace(column, type="decimal", precision=precision, scale=scale, padded=padded, zone="", bare=True)
    if kind in _FLOATS:
        return replace(column, type="float", bits=_FLOATS[kind], padded=padded, zone="", bare=kind == FIELD_TYPE.DOUBLE)
    if kind in _MOMENTS:
        # The session is in UTC, and so is what the server gives of a TIMESTAMP.
        zone = "UTC" if kind == FIELD_TYPE.TIMESTAMP else column.zone
        return replace(column, type=_MOMENTS[kind], zone=zone, bare=True)
    texts = {"text", "json", "binary"}
    return replace(column, type=column.type if column.type in texts else "text", zone="")


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
def _none_of(codes: set[int]) -> Iterator[None]:
    """Ends the block at an error of these codes, and goes on behind it."""
    try:
        yield
    except MySQLdb.Error as error:
        if error.args[0] not in codes:
            raise


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except MySQLdb.Error as error:
        raise explain(error) from error


def explain(error: Exception) -> ExportError:
    """The sentence for a driver's error, with what the server said as detail.

    Only what is known to pass is worth another attempt: PASSES, FULL and the client's own errors. All else that a server
    says of a statement it says again: a number out of range, two rows where one may be, a function that is not there. See
    the server, client and global error message references of MySQL, the error codes of MariaDB's knowledge base (which
    gives 5000 to 5999 to clients as well, "ERR_Packet") and "ProxySQL Error Codes".
    """
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    detail = f"MySQL {code}: {error.args[1] if len(error.args) > 1 else error}"
    if code in REFUSED:
        return ExportError("The database refused to let the export desk read this. An operator has to grant it.",
                           permanent=True, detail=detail)  # fmt: skip
    if code in CHANGED:
        return ExportError("The table no longer has what this dataset names. An operator has to update the dataset.",
                           permanent=True, detail=detail)  # fmt: skip
    if code in TOO_SLOW:
        return TooSlow("The database takes too long over these rows and gave up. Choose a shorter time or fewer rows.",
                       permanent=True, detail=detail)  # fmt: skip
    if code in FULL:
        return ExportError("The database has no free connection for the export right now.", detail=detail)
    if code in PASSES or any(code in codes for codes in CLIENT):
        return ExportError("The database did not answer or broke off the connection.", detail=detail)
    return ExportError("The database cannot compute these rows. An operator has to correct the dataset or what it reads.",
                       permanent=True, detail=detail)  # fmt: skip
