"""How long a cancel and a killed worker take with the default settings, on real MariaDB and RabbitMQ servers.

`python -m bench.recovery` needs what `make test` installs and takes some six minutes, most of which are leases that end.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.journeys.desk import QUICK, Desk
from tests.services import MariaDB, RabbitMQ, wait_until

DATASETS = """
[sources.shop]
[datasets.slow]
source = "shop"
view = "slow_notes"
key = ["id"]
columns = [{ name = "id", type = "integer" }, { name = "nap", type = "integer" }]
[datasets.sorted]
source = "shop"
query = '''SELECT x.seq * y.seq % 1000 AS letter, COUNT(*) AS n FROM seq_1_to_1000000 AS x, seq_1_to_1000000 AS y
    GROUP BY letter ORDER BY n DESC'''
columns = [{ name = "letter", type = "integer" }, { name = "n", type = "integer" }]
"""
TABLES = """
CREATE TABLE notes (id INT PRIMARY KEY); INSERT INTO notes SELECT seq FROM seq_1_to_12000;
CREATE VIEW slow_notes AS SELECT id, SLEEP(0.005) AS nap FROM notes;
"""
# The waits as they are in earnest; only the chunks are short.
DEFAULTS = dict.fromkeys(QUICK, "") | {"EXPORTAPP_CHUNK_SECONDS": "5", "EXPORTAPP_CHUNK_ROWS": "2000"}
CANCELS, KILLS = 6, 4
PATIENCE = 200


def queries(desk: Desk, export: str) -> str:
    found = f"SELECT id FROM information_schema.processlist WHERE info LIKE '/* exportapp export={export}%'"
    return desk.mariadb.sql(found)


def stored(desk: Desk, export: str) -> list[Path]:
    folder = desk.var / "files" / export
    return [path for path in folder.rglob("*") if path.is_file()]


def cancel(desk: Desk, dataset: str, key: str) -> float:
    """Seconds from a cancel until neither a query nor a file is left; of `slow` a piece is there, `sorted` only sorts."""
    export = desk.request(dataset, "alice", key)
    wait_until(
        lambda: queries(desk, export) and (dataset == "sorted" or stored(desk, export)), PATIENCE, "its work", 0.2
    )
    verb = f"from exportapp.models import Export; from exportapp import lifecycle; one = Export.objects.get(pk={export!r}); "
    desk.manage("shell", "-v0", "-c", verb + "lifecycle.cancel(one, one.owner, 'Cancelled by alice')")
    began = time.monotonic()
    wait_until(lambda: not (queries(desk, export) or stored(desk, export)), PATIENCE, "nothing to be left", 0.1)
    return time.monotonic() - began


def kill(desk: Desk, key: str) -> float:
    """Seconds from the kill of a worker's child until its chunk runs again; then the export ends."""
    export = desk.request("slow", "alice", key)
    running = f"kind = 'chunk' AND state = 'running' AND rows_done > 50 AND export_id = '{export}'"
    found = wait_until(
        lambda: desk.ask(f"SELECT worker, id FROM exportapp_step WHERE {running}"), PATIENCE, "a chunk", 0.1
    )
    worker, step = found[0]
    os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
    began = time.monotonic()
    again = f"SELECT 1 FROM exportapp_step WHERE id = {step} AND fence > 1 AND state IN ('running', 'done')"
    wait_until(lambda: desk.ask(again), PATIENCE, "another worker", 0.1)
    took = time.monotonic() - began
    ready = f"SELECT 1 FROM exportapp_export WHERE id = '{export}' AND state = 'ready'"
    wait_until(lambda: desk.ask(ready), PATIENCE, "the file", 0.5)
    return took


def main() -> None:
    with MariaDB() as mariadb, RabbitMQ() as rabbitmq, Desk(mariadb, rabbitmq, DATASETS, DEFAULTS) as desk:
        mariadb.sql(TABLES, desk.source)
        desk.manage("migrate", "-v0")
        desk.add_user("alice")
        desk.start_dispatcher()
        desk.start_worker(concurrency=3)
        cancels = [cancel(desk, ("slow", "sorted")[number % 2], f"cancel {number}") for number in range(CANCELS)]
        print("seconds from a cancel until nothing is left:", *(f"{took:.1f}" for took in cancels))
        kills = [kill(desk, f"kill {number}") for number in range(KILLS)]
        print("seconds from a kill until another worker has the chunk:", *(f"{took:.1f}" for took in kills))


if __name__ == "__main__":
    main()
