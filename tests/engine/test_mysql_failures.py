"""Kills that hold, on the server too, and a sentence for all that a server can do to an export."""

from __future__ import annotations

import threading
from collections.abc import Callable

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


def test_a_full_server_is_tried_again(database: Database) -> None:
    url = url_of_user(database, "alone", "WITH MAX_USER_CONNECTIONS 1")
    only = MySQLReader(url)
    assert told(lambda: MySQLReader(url)) == FULL
    only.close()


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
