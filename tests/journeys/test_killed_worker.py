"""A worker is killed, or asked to end, in the middle of a chunk; the file is compared with the table, byte for byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.journeys.desk import Desk
from tests.services import MariaDB, RabbitMQ, wait_until

ROWS = 300_000

DATASETS = """
[sources.shop]
[datasets.notes]
source = "shop"
view = "slowly"
key = ["id"]
time_column = "at"
columns = [
    { name = "id", type = "integer" },
    { name = "note" },
    { name = "price", type = "decimal", scale = 2 },
    { name = "at", type = "datetime" },
]
"""

TABLE = f"""
CREATE TABLE notes (id BIGINT PRIMARY KEY, note VARCHAR(200), price DECIMAL(20,2), at DATETIME NOT NULL, KEY (at));
INSERT INTO notes SELECT seq * 3,
    CASE seq % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN CONCAT('say "', seq, '", twice')
        WHEN 3 THEN CONCAT('two\\nlines 😀 ', seq) ELSE CONCAT('plain ', seq) END,
    IF(seq % 5 = 0, NULL, seq * 1.25 - 1000), '2024-01-01 00:00:00' + INTERVAL seq SECOND
FROM seq_1_to_{ROWS};
CREATE VIEW slowly AS SELECT id, IF(id % 3000, note, IF(SLEEP(0.02), note, note)) AS note, price, at FROM notes;
"""  # six seconds of reading, whatever the speed of the engine: somebody has to be caught in the midst of it

CSV_BY_SQL = r"""
SELECT CONCAT(id, ',', IF(note IS NULL, '', CONCAT('"', REPLACE(note, '"', '""'), '"')), ',',
    IFNULL(price, ''), ',', at, '\r') FROM notes ORDER BY id
"""


RUNNING = "SELECT worker FROM exportapp_step WHERE kind = 'chunk' AND state = 'running' AND rows_done > 0"
ENDED = "SELECT state FROM exportapp_export WHERE state IN ('ready', 'failed', 'cancelled')"


@contextmanager
def reading(mariadb: MariaDB, rabbitmq: RabbitMQ) -> Iterator[tuple[Desk, str, str]]:
    """A desk whose worker is in the middle of its first chunk, with the export's id and the worker's name."""
    with Desk(mariadb, rabbitmq, DATASETS) as desk:
        mariadb.sql(TABLE, desk.source)
        desk.manage("migrate", "-v0")
        desk.add_user("alice")
        export = desk.request("notes", "alice")
        desk.start_dispatcher()
        desk.start_worker()
        [[worker]] = wait_until(lambda: desk.ask(RUNNING), 60, "a chunk that has read its first rows")
        yield desk, export, worker


SLOW = """
[sources.shop]
[datasets.slow]
source = "shop"
query = "SELECT COUNT(*) AS n FROM seq_1_to_1000000 AS x, seq_1_to_1000000 AS y WHERE x.seq * y.seq % 7 = 3"
columns = [{ name = "n", type = "integer" }]
"""


def test_worker_that_is_asked_to_end_lets_go_of_a_query_that_has_given_no_row_yet(
    mariadb: MariaDB, rabbitmq: RabbitMQ
) -> None:
    with Desk(mariadb, rabbitmq, SLOW) as desk:
        desk.manage("migrate", "-v0")
        desk.add_user("alice")
        desk.request("slow", "alice")
        desk.start_dispatcher()
        desk.start_worker()
        wait_until(lambda: queries_on(mariadb), 60, "the query")
        desk.processes.term("worker")
        wait_until(lambda: desk.processes.ended("worker"), 30, "the end of the worker")
        assert desk.ask("SELECT kind, state, attempts, crashes FROM exportapp_step") == [["plan", "waiting", "0", "0"]]
        wait_until(lambda: not queries_on(mariadb), 10, "the query to leave the server")


def queries_on(mariadb: MariaDB) -> str:
    return mariadb.sql("SELECT info FROM information_schema.processlist WHERE info LIKE '/* exportapp export=%'")


def assert_whole(desk: Desk, export: str) -> None:
    [[state]] = wait_until(lambda: desk.ask(ENDED), 120, "the end of the export")
    assert state == "ready"
    expected = '"Id","Note","Price","At"\r\n' + desk.mariadb.sql(CSV_BY_SQL, desk.source)
    assert desk.file(export) == expected.encode()


def test_chunk_of_a_killed_worker_is_done_by_another_and_the_file_is_whole(
    mariadb: MariaDB, rabbitmq: RabbitMQ
) -> None:
    with reading(mariadb, rabbitmq) as (desk, export, worker):
        os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
        assert_whole(desk, export)
        assert desk.ask("SELECT COUNT(*) FROM exportapp_event WHERE kind = 'taken back'") == [["1"]]
        assert desk.ask("SELECT MAX(crashes) FROM exportapp_step") == [["1"]]


def test_worker_that_is_asked_to_end_hands_its_chunk_over_and_spends_no_attempt(
    mariadb: MariaDB, rabbitmq: RabbitMQ
) -> None:
    with reading(mariadb, rabbitmq) as (desk, export, _):
        desk.processes.term("worker")
        wait_until(lambda: desk.processes.ended("worker"), 30, "the end of the worker")
        assert desk.ask("SELECT COUNT(*) FROM exportapp_step WHERE state = 'running'") == [["0"]]
        assert desk.ask("SELECT name FROM exportapp_process WHERE kind = 'worker'") == []
        assert not desk.ask(ENDED)
        wait_until(lambda: not queries_on(mariadb), 10, "the query of the chunk to leave the server")
        desk.start_worker("worker after the deploy")
        assert_whole(desk, export)
        assert desk.ask("SELECT MAX(crashes), MAX(attempts) FROM exportapp_step") == [["0", "1"]]
        assert desk.ask("SELECT COUNT(*) FROM exportapp_event WHERE kind IN ('taken back', 'retry')") == [["0"]]
