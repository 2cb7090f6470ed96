"""Kills that hold, on the server too, and a sentence for all that a server can do to an export."""

from __future__ import annotations

import threading
from collections.abc import Callable

import MySQLdb
import pytest

from exportapp.engine.errors import ExportError
from exportapp.engine.readers import mysql, open_reader
from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.specs import KeyRange
from tests.engine.scenes import query, rows_of
from tests.engine.servers import ROWS_A_MILLION, Database, url_of_user
from tests.services import free_port, wait_until


def outcome(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Starts `work` in a thread; the list is to hold what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def test_a_kill_from_another_thread_ends_the_query_on_the_server(database: Database, reader: MySQLReader) -> None:
    SEQUENCE = "seq_1_to_1000000"
    # Without a row for hours: the server does not look whether its client is still there.
    busy = query(
        f"SELECT COUNT(*) AS a FROM {SEQUENCE} AS x, {SEQUENCE} AS y WHERE x.seq * y.seq % 7 = 3", "a", is_query=True
    )
    thread, raised = outcome(lambda: list(reader.stream(busy, KeyRange(), "kill me")))
    wait_until(lambda: database.running("kill me"), 10, "the query to run")
    reader.kill()
    thread.join(20)
    assert [type(error) for error in raised] == [ExportError]
    wait_until(lambda: not database.running("kill me"), 10, "the query to end")


def test_a_killed_stream_never_looks_like_one_that_ended(database: Database, reader: MySQLReader) -> None:
    batches = reader.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "")
    next(batches)
    reader.kill()
    with pytest.raises(ExportError, match="broke off the connection") as caught:
        list(batches)
    assert not caught.value.permanent


def test_a_kill_that_finds_no_free_connection_ends_the_stream_all_the_same(database: Database) -> None:
    reader = MySQLReader(url_of_user(database, "lonely", "WITH MAX_USER_CONNECTIONS 1"))
    batches = reader.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "")
    next(batches)
    reader.kill()
    with pytest.raises(ExportError, match="broke off"):
        list(batches)
    reader.close()


def test_a_query_that_an_operator_kills_is_tried_again(database: Database, reader: MySQLReader) -> None:
    batches = reader.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "")
    next(batches)
    database.sql(f"KILL QUERY {reader._thread}")
    with pytest.raises(ExportError) as caught:
        list(batches)
    assert not caught.value.permanent


def test_a_kill_before_the_query_and_after_the_end_holds(database: Database) -> None:
    reader = MySQLReader(database.url)
    reader.kill()
    with pytest.raises(ExportError, match="broke off"):
        rows_of(reader, query("SELECT 1 AS a", "a", is_query=True))
    reader.close()
    reader.kill()
    reader.close()


def test_a_query_that_outlasts_its_client_is_ended_on_the_server(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "READ_TIMEOUT", 1)
    busy = query("SELECT SLEEP(30) AS a", "a", is_query=True)
    with open_reader(database.url) as reader, pytest.raises(ExportError, match="broke off"):
        list(reader.stream(busy, KeyRange(), "too slow"))
    wait_until(lambda: not database.running("too slow"), 10, "the query to end")


def test_a_kill_reaches_no_connection_that_only_has_the_same_number(database: Database, reader: MySQLReader) -> None:
    other = MySQLReader(database.url)
    batches = other.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "somebody else")
    next(batches)
    rows_of(reader, query("SELECT 1 AS a", "a", is_query=True))
    reader._thread = other._thread
    reader._comment = "ours"
    reader.kill()
    assert sum(map(len, batches)) > 900_000
    other.close()


# --- sentences --------------------------------------------------------------------------------------------------------


def told(work: Callable[[], object]) -> tuple[str, bool]:
    """The sentence for a person and whether there is no use in trying again."""
    with pytest.raises(ExportError) as caught:
        work()
    assert "secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    assert caught.value.detail
    return caught.value.sentence, caught.value.permanent


REFUSED = ("The database refused to let the export desk read this. An operator has to grant it.", True)
CHANGED = ("The table no longer has what this dataset names. An operator has to update the dataset.", True)
WRONG = ("The database cannot compute these rows. An operator has to correct the dataset or what it reads.", True)
BROKEN = ("The database did not answer or broke off the connection.", False)
FULL = ("The database has no free connection for the export right now.", False)


def test_wrong_passwords_users_and_databases_are_for_an_operator(database: Database) -> None:
    for user, password in (("app", "top-secret"), ("nobody", "secret")):
        assert told(lambda: MySQLReader(database.server.url(database.name, user, password))) == REFUSED  # noqa: B023
    assert told(lambda: MySQLReader(database.server.url("no_such_database"))) == REFUSED


def test_a_user_that_may_come_in_only_by_another_way_is_for_an_operator(database: Database) -> None:
    database.sql("CREATE OR REPLACE USER local_only@'%' IDENTIFIED VIA unix_socket")
    assert told(lambda: MySQLReader(database.server.url(database.name, "local_only", "secret"))) == REFUSED


def test_what_a_user_may_not_read_is_for_an_operator(database: Database) -> None:
    database.sql("CREATE TABLE t (a INT, b INT); CREATE TABLE u (a INT)")
    reader = MySQLReader(url_of_user(database, "shy", grant="SELECT (a)", table="t"))
    assert rows_of(reader, query("t", "a")) == []
    assert told(lambda: rows_of(reader, query("t", "a b"))) == REFUSED
    assert told(lambda: rows_of(reader, query("u", "a"))) == REFUSED
    reader.close()


@pytest.mark.parametrize(
    ("relation", "is_query"),
    [("nope", False), ("t", False), ("broken", False), ("SELEC 1", True), ("no_such_schema.t", False)],
)
def test_what_is_gone_is_for_an_operator(
    database: Database, reader: MySQLReader, relation: str, is_query: bool
) -> None:
    database.sql("CREATE TABLE t (id INT); CREATE TABLE u (a INT); CREATE VIEW broken AS SELECT a FROM u; DROP TABLE u")
    wanted = query(relation, "a", is_query=is_query)
    assert told(lambda: rows_of(reader, wanted)) == CHANGED
    assert told(lambda: reader.typed(wanted)) == CHANGED


# Views that can be made, described and begun to be read: only some of their rows cannot be computed.
COMPUTED = {
    1690: "SELECT seq AS id, CAST(5000 AS UNSIGNED) - seq AS a FROM seq_1_to_10000",
    1242: "SELECT n.seq AS id, (SELECT m.seq FROM seq_1_to_2 AS m WHERE n.seq > 5000) AS a FROM seq_1_to_10000 AS n",
    1644: "SELECT seq AS id, refuse_above(seq, 5000) AS a FROM seq_1_to_10000",
}


@pytest.mark.parametrize("code", COMPUTED)
def test_rows_that_the_server_cannot_compute_are_not_tried_again(
    database: Database, reader: MySQLReader, code: int
) -> None:
    database.sql("DELIMITER //\nCREATE FUNCTION refuse_above(n INT, most INT) RETURNS INT BEGIN "
                 "IF n > most THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too much'; END IF; RETURN n; END //")  # fmt: skip
    database.sql(f"CREATE VIEW computed AS {COMPUTED[code]}")
    batches = reader.stream(query("computed", "id a"), KeyRange(), "")
    assert next(batches)[0][0] == b"1"
    with pytest.raises(ExportError) as caught:
        list(batches)
    assert (caught.value.sentence, caught.value.permanent) == WRONG
    assert caught.value.detail == f"MySQL {code}: {caught.value.__cause__.args[1]}"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a' COLLATE utf8mb4_bin = 'b' COLLATE utf8mb4_general_ci AS a",
        "SELECT no_such_function(1) AS a",
        "SELECT UPPER(1, 2) AS a",
        "SELECT (SELECT 1, 2) AS a",
    ],
)
def test_a_query_that_the_server_does_not_take_is_not_tried_again(reader: MySQLReader, statement: str) -> None:
    wanted = query(statement, "a", is_query=True)
    assert told(lambda: rows_of(reader, wanted)) == WRONG
    assert told(lambda: reader.plan(wanted, 1000, "")) == WRONG


def test_a_function_that_a_user_may_not_call_is_for_an_operator(database: Database) -> None:
    database.sql("CREATE FUNCTION one() RETURNS INT RETURN 1")
    reader = MySQLReader(url_of_user(database, "no_caller"))
    assert told(lambda: rows_of(reader, query("SELECT one() AS a", "a", is_query=True))) == REFUSED
    reader.close()


def test_a_lock_that_is_not_given_back_in_time_is_waited_for_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "SESSION", (*mysql.SESSION, "SET lock_wait_timeout=1"))
    database.sql("CREATE TABLE t (a INT)")
    holder = mysql.connect(database.url)
    holder.query("LOCK TABLES t WRITE")
    reader = MySQLReader(database.url)
    assert told(lambda: rows_of(reader, query("t", "a"))) == BROKEN
    holder.close()
    wait_until(lambda: rows_of(reader, query("t", "a")) == [], 10, "the lock to go")
    reader.close()


# By the numbers, what no server here can be brought to say.
PASSES = [
    0,
    3,
    28,
    1020,
    1021,
    1047,
    1053,
    1205,
    1213,
    1317,
    1412,
    1637,
    1927,
    2006,
    2013,
    2026,
    3032,
    3168,
    3169,
    4031,
    9001,
]
LASTS = [
    1038,
    1153,
    1194,
    1267,
    1292,
    1305,
    1365,
    1366,
    1411,
    1424,
    1436,
    1449,
    1525,
    1690,
    1792,
    3140,
    3141,
    3819,
    4078,
]


@pytest.mark.parametrize(("codes", "told_of_it"), [(PASSES, BROKEN), (LASTS, WRONG)])
def test_only_what_passes_by_itself_is_tried_again(codes: list[int], told_of_it: tuple[str, bool]) -> None:
    for kind in (MySQLdb.OperationalError, MySQLdb.ProgrammingError, MySQLdb.DataError, MySQLdb.InterfaceError):
        for code in codes:
            error = mysql.explain(kind(code, "what the server says"))
            assert (code, error.sentence, error.permanent) == (code, *told_of_it)
            assert error.detail == f"MySQL {code}: what the server says"


def test_a_driver_that_gives_no_number_is_tried_again() -> None:
    for error in (MySQLdb.InterfaceError(0, ""), MySQLdb.OperationalError(), MySQLdb.InterfaceError("closed")):
        told_of_it = mysql.explain(error)
        assert (told_of_it.sentence, told_of_it.permanent) == BROKEN


def test_a_full_server_is_tried_again(database: Database) -> None:
    url = url_of_user(database, "alone", "WITH MAX_USER_CONNECTIONS 1")
    only = MySQLReader(url)
    assert told(lambda: MySQLReader(url)) == FULL
    only.close()


def test_a_server_that_falls_silent_before_the_session_is_set_up_is_given_up_and_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "OPEN_SECONDS", 0.3)
    monkeypatch.setattr(mysql, "SESSION", ("DO SLEEP(40)",))
    threads = threading.active_count()
    with pytest.raises(ExportError, match="did not answer") as told:
        MySQLReader(database.url)
    assert (told.value.permanent, threading.active_count()) == (False, threads)


def test_nobody_at_the_address_is_tried_again() -> None:
    assert told(lambda: MySQLReader(f"mysql://app:secret@127.0.0.1:{free_port()}/shop")) == BROKEN


@pytest.mark.parametrize(
    "url", ["mysql://app:top#secret@127.0.0.1/shop", "mysql://app:secret/x@h/shop", "mysql://app:secret@[h/x"]
)
def test_an_address_with_a_bare_password_is_told_without_it(url: str) -> None:
    with pytest.raises(ExportError, match="percent-encoded") as caught:
        MySQLReader(url)
    assert not any(piece in f"{caught.value} {caught.value.__cause__!r}" for piece in ("top", "secret", "/x", "[h"))


def test_a_password_may_hold_anything_that_is_encoded(database: Database) -> None:
    database.sql(
        f"CREATE OR REPLACE USER odd@'%' IDENTIFIED BY 'a#/?@:% ü'; GRANT SELECT ON {database.name}.* TO odd@'%'"
    )
    reader = MySQLReader(database.server.url(database.name, "odd", "a%23%2F%3F%40%3A%25%20%C3%BC"))
    assert rows_of(reader, query("SELECT 1 AS a", "a", is_query=True)) == [(b"1",)]
    reader.close()


def test_a_server_that_dies_is_tried_again(database: Database, reader: MySQLReader) -> None:
    batches = reader.stream(query(ROWS_A_MILLION, "id body", is_query=True), KeyRange(), "")
    next(batches)
    database.server.kill()
    try:
        assert told(lambda: list(batches)) == BROKEN
        assert told(lambda: MySQLReader(database.url)) == BROKEN
    finally:
        database.server.start()
    assert told(lambda: rows_of(reader, query("SELECT 1 AS a", "a", is_query=True))) == BROKEN
