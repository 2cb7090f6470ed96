"""What a source may expect of its guest, and what a file may be trusted with while others write: on a real server."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from exportapp.engine.chunks import write_piece
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import mysql, open_reader
from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import ChunkSpec, KeyRange, Query
from tests.engine.scenes import query, rows_of
from tests.engine.servers import Database

ACCOUNTS = 4_000
MONEY = ACCOUNTS * 100


@contextmanager
def writing(database: Database, statements: str) -> Iterator[threading.Event]:
    """Runs statements again and again beside the block; the event is set when they ran a few times."""
    stopped, busy = threading.Event(), threading.Event()

    def run() -> None:
        while not stopped.is_set():
            database.sql(statements)
            busy.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert busy.wait(30)
        yield busy
    finally:
        stopped.set()
        thread.join()


def spec(wanted: Query, key_range: KeyRange, **more: object) -> ChunkSpec:
    return replace(ChunkSpec(wanted, key_range, "csv", "none", "piece", False, "test", 3600), **more)  # type: ignore[arg-type]


def exported(database: Database, one: ChunkSpec) -> tuple[list[list[str]], tuple[object, ...] | None]:
    store = MemoryStore()
    with open_reader(database.url) as reader:
        piece = write_piece(one, reader, store)
    return list(csv.reader(io.StringIO(store.files["piece"].decode(), newline=""))), piece.last_key


def test_a_snapshot_keeps_the_sum_while_money_moves(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small batches, so that transfers fall into the reading; whoever read twice would find other sums."""
    monkeypatch.setattr(mysql, "BATCH_ROWS", 20)
    database.sql(f"CREATE TABLE account (id INT PRIMARY KEY, money INT NOT NULL, pad CHAR(250) DEFAULT 'x');"
                 f"INSERT INTO account (id, money) SELECT seq, 100 FROM seq_1_to_{ACCOUNTS}")  # fmt: skip
    last = ACCOUNTS - 1
    moves = "".join(
        f"START TRANSACTION; UPDATE account SET money = money - 7 WHERE id = {1 + number * 977 % last};"
        f"UPDATE account SET money = money + 7 WHERE id = {1 + (number * 977 + last // 2) % last}; COMMIT;"
        for number in range(100)
    )
    wanted = query("account", "money:integer pad", "id:integer")
    with writing(database, moves):
        sums = set()
        for _ in range(10):
            rows, _ = exported(database, spec(wanted, KeyRange(), whole=True))
            assert len(rows) == ACCOUNTS
            sums.add(sum(int(row[0]) for row in rows))
        changed = database.sql("SELECT COUNT(*) FROM account WHERE money <> 100")
    assert sums == {MONEY}
    assert int(changed) > 0


def test_in_parts_rows_that_stay_are_there_once_while_others_come_and_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "BATCH_ROWS", 50)
    database.sql("CREATE TABLE t (id INT PRIMARY KEY, stays INT NOT NULL);"
                 "INSERT INTO t SELECT seq * 3, 1 FROM seq_1_to_2000")  # fmt: skip
    comings = "INSERT INTO t SELECT seq * 3 + 1, 0 FROM seq_1_to_2000; DELETE FROM t WHERE stays = 0;"
    wanted = query("t", "id:integer stays:integer", "id:integer")
    with writing(database, comings):
        after, found = None, []
        while True:
            rows, after = exported(database, spec(wanted, KeyRange(after, (6000,)), seconds=0))  # type: ignore[arg-type]
            found += [int(row[0]) for row in rows if row[1] == "1"]
            if after is None:
                break
    assert found == [number * 3 for number in range(1, 2001)]


def test_a_reader_slower_than_the_server_does_not_break_the_stream(database: Database, reader: MySQLReader) -> None:
    """The server drops a client that takes nothing for net_write_timeout; its default is a minute, here a second."""
    database.sql("SET GLOBAL net_write_timeout = 1; CREATE TABLE t (id INT PRIMARY KEY, pad TEXT NOT NULL);"
                 "INSERT INTO t SELECT seq, REPEAT('x', 60000) FROM seq_1_to_400")  # fmt: skip
    try:
        with open_reader(database.url) as slow:
            batches = slow.stream(query("t", "pad", "id:integer"), KeyRange(), "")
            rows = len(next(batches))
            time.sleep(3)
            assert rows + sum(map(len, batches)) == 400
    finally:
        database.sql("SET GLOBAL net_write_timeout = 60")


def test_the_session_is_the_one_that_is_promised(reader: MySQLReader) -> None:
    names = [
        "time_zone",
        "character_set_results",
        "tx_isolation",
        "tx_read_only",
        "net_write_timeout",
        "lock_wait_timeout",
    ]
    values = ", ".join(
        f"@@session.{name} AS {name}" for name in [*names, "innodb_lock_wait_timeout", "max_statement_time"]
    )
    wanted = query(
        f"SELECT {values}", " ".join([*names, "innodb_lock_wait_timeout:integer", "max_statement_time"]), is_query=True
    )
    [row] = rows_of(reader, wanted)
    assert row[:4] == (b"+00:00", b"utf8mb4", b"REPEATABLE-READ", b"1")
    assert row[4:] == (b"3600", b"5", b"5", b"21600.000000")


def test_a_statement_that_takes_too_long_is_given_up_with_a_sentence(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "STATEMENT_SECONDS", 0.3)
    wanted = query("SELECT COUNT(*) AS n FROM seq_1_to_100000 a, seq_1_to_100000 b WHERE a.seq * b.seq % 7 = 3", "n:integer",
                   is_query=True)  # fmt: skip
    with (
        open_reader(database.url) as reader,
        pytest.raises(ExportError, match="takes too long over these rows") as caught,
    ):
        rows_of(reader, wanted)
    assert caught.value.permanent
