"""A desk of the quickstart with an export in each state and a browser session for each person, for pages to be seen.

Run as a program, it fills the desk that EXPORTAPP_VAR names; what it made goes to its output as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.journeys.quickstart import ROOT, Quickstart
from tests.services import Processes, wait_until

UNDER_WAY = 3  # so many of alice's are under way, and so many may be: to run one more again is too much
SETTINGS = {
    "EXPORTAPP_EXPORTS_PER_PERSON": str(UNDER_WAY),
    "EXPORTAPP_BEHIND_PROXY": "1",  # each visit comes from an address of its own, so that none uses up another's tries
    "EXPORTAPP_LOG_LEVEL": "WARNING",
}
ANSWERS_FOR = timedelta(hours=1)  # so long the desk looks alive, although its worker stands still


@dataclass
class Staged:
    """The desk's address, the session cookie of each person, and what the addresses of its pages are made of."""

    address: str
    database: Path
    sessions: dict[str, str]
    words: dict[str, str]
    ages: dict[str, float]  # seconds, by the key of an export as the database has it

    def make_young(self) -> None:
        """Has what is under way begin anew, so that a picture does not depend on how long the ones before it took."""
        with closing(sqlite3.connect(self.database, timeout=30)) as database, database:
            for key, age in self.ages.items():
                began = datetime.now(UTC) - timedelta(seconds=age)
                times = [f"{at:%Y-%m-%d %H:%M:%S.%f}" for at in (began, began + timedelta(seconds=2))]
                database.execute(
                    "UPDATE exportapp_export SET created_at = ?, started_at = iif(started_at IS NULL, NULL, ?) WHERE id = ?",
                    [*times, key],
                )
                started = "UPDATE exportapp_step SET started_at = ? WHERE export_id = ? AND started_at IS NOT NULL"
                database.execute(started, [times[1], key])


@contextmanager
def staged_desk(var: Path, port: int | None = None) -> Iterator[Staged]:
    """Runs it; its worker stands still, so that every state stays as it is."""
    quickstart = Quickstart(var)
    with quickstart.processes:
        pass  # there are none in there yet
    quickstart.processes = Processes({"EXPORTAPP_VAR": str(var), **SETTINGS}, ROOT)
    quickstart.port = port or quickstart.port
    with quickstart:
        quickstart.start()
        database = var / "exportapp.sqlite3"
        wait_until(lambda: _all_counted(database), 90, "the figures of all datasets")
        worker = quickstart.worker
        _stand_still(worker, database)
        try:
            filling = subprocess.run(
                [sys.executable, "-m", "tests.journeys.staged"],
                cwd=ROOT,
                env=os.environ | {"EXPORTAPP_VAR": str(var), "DJANGO_SETTINGS_MODULE": "exportapp.settings"},
                capture_output=True,
                text=True,
            )
            assert filling.returncode == 0, filling.stderr
            yield Staged(quickstart.address, database, **json.loads(filling.stdout))
        finally:
            os.kill(worker, signal.SIGCONT)


def _all_counted(path: Path) -> bool:
    datasets = tomllib.loads((ROOT / "datasets.toml").read_text())["datasets"]
    with closing(sqlite3.connect(path, timeout=30)) as database:
        counted = "SELECT count(*) FROM exportapp_datasetfigures WHERE computed_at IS NOT NULL"
        return bool(database.execute(counted).fetchone()[0] == len(datasets))


def _stand_still(worker: int, path: Path) -> None:
    """Stops the worker, but not in the middle of a transaction, or nobody else could write."""
    while True:
        os.kill(worker, signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(path, timeout=0.5)) as database:
                database.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.1)


def fill() -> dict[str, dict[str, Any]]:
    """Fills the desk of these settings. What needs Django is imported here: a test has it set up for another desk."""
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.contrib.auth.tokens import default_token_generator
    from django.test import Client
    from django.utils.encoding import force_bytes
    from django.utils.http import urlsafe_base64_encode

    from exportapp import lifecycle
    from exportapp.models import Event, Export, ExportState, Process, Step, StepKind, StepState
    from tests.scenes import in_state

    people = {name: User.objects.get(username=name) for name in ("alice", "bob", "operator")}
    alice = people["alice"]
    User.objects.filter(pk=alice.pk).update(first_name="Alice", last_name="Archer")
    at = lifecycle.now()
    words = {"ready": str(Export.objects.get().pk), "word": default_token_generator.make_token(alice)}
    words["uid"] = urlsafe_base64_encode(force_bytes(alice.pk))
    ages = {}

    def stage(word: str, state: str, name: str, ago: timedelta, **values: Any) -> Export:
        Export._meta.get_field("id").default = lambda: uuid.uuid5(uuid.NAMESPACE_URL, word)  # the same in each run
        Export._meta.get_field("id").__dict__.pop("_get_default", None)
        made = in_state(values.pop("owner", alice), state, name=name, **values.pop("recipe", {}))
        times = {"created_at": at - ago, "started_at": made.started_at and at - ago + timedelta(seconds=2)}
        if made.finished_at:
            times["finished_at"] = at - ago + timedelta(seconds=40)
        if made.expires_at:
            times["expires_at"] = at - ago + timedelta(days=7, seconds=40)
        Export.objects.filter(pk=made.pk).update(**times, **values)
        if not made.unfinished:
            made.steps.update(state=StepState.DONE, started_at=at - ago, finished_at=at - ago)
        else:
            ages[made.pk.hex] = ago.total_seconds()
        words[word] = str(made.pk)
        return made

    hours, days = timedelta(hours=1), timedelta(days=1)
    # Oldest first, as they would have come.
    file = {"file_rows": 3_310, "file_bytes": 412_887}
    stage("expired", ExportState.EXPIRED, "Refunds of the third quarter", 12 * days, **file)
    stage(
        "damaged",
        ExportState.READY,
        "Customers, for the newsletter",
        3 * days,
        file_rows=148_220,
        file_bytes=22_440_118,
    )
    stage("cancelled", ExportState.CANCELLED, "Everything, by mistake", 2 * days)
    failed = stage("failed", ExportState.FAILED, "Orders of all years", 3 * hours,
                   error="More than 10,000,000 rows: that is the most to be exported at once. Choose a shorter range or "
                         "add a filter.", recipe={"format": "xlsx"})  # fmt: skip
    Event.objects.create(export=failed, at=at - 3 * hours, kind="failed", text=Export.objects.get(pk=failed.pk).error)
    stage(
        "queued",
        ExportState.QUEUED,
        "Orders since spring",
        timedelta(minutes=1, seconds=20),
        recipe={"format": "parquet"},
    )
    stage("counting", ExportState.RUNNING, "Orders of last week", timedelta(seconds=4))
    running = stage("running", ExportState.RUNNING, "Orders, January to October", timedelta(seconds=20),
                    rows_estimated=1_240_000, chunks_left=3)  # fmt: skip
    Event.objects.create(export=running, at=at, kind="running", text="Started")
    running.steps.update(state=StepState.DONE)
    for position, (state, rows) in enumerate(
        [(StepState.DONE, 310_000)] * 2 + [(StepState.RUNNING, 148_400), (StepState.WAITING, 0), (StepState.WAITING, 0)]
    ):
        Step.objects.create(
            export=running, kind=StepKind.CHUNK, state=state, position=position, rows_done=rows, rows_estimated=310_000,
            not_before=at, started_at=at if rows else None, lease_until=at + ANSWERS_FOR if state == StepState.RUNNING else None,
        )  # fmt: skip
    # What nobody can show: the page about our own mistakes.
    stage("broken", ExportState.CANCELLED, "Broken", 400 * days, owner=people["operator"], definition={})
    assert alice.exports.filter(state__in=[ExportState.QUEUED, ExportState.RUNNING]).count() == UNDER_WAY
    if not Process.objects.filter(kind="worker").exists():
        Process.objects.create(name="worker of the pictures", kind="worker", started_at=at, seen_at=at)
    Process.objects.update(seen_at=at + ANSWERS_FOR)

    sessions = {}
    for name, person in people.items():
        client = Client()
        client.force_login(person)
        sessions[name] = client.cookies["sessionid"].value
    words["word"] = default_token_generator.make_token(User.objects.get(pk=alice.pk))  # signing in ends older ones
    return {"sessions": sessions, "words": words, "ages": ages}


if __name__ == "__main__":
    print(json.dumps(fill()))
