"""A whole export desk of real processes for a journey: databases, broker, dispatcher, workers, web."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services import MariaDB, Processes, RabbitMQ, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

# Leases and pauses are shortened, so that a journey sees in seconds what takes a minute in earnest.
QUICK = {
    "EXPORTAPP_LEASE_SECONDS": "6",
    "EXPORTAPP_SWEEP_SECONDS": "0.5",
    "EXPORTAPP_RING_AGAIN_SECONDS": "2",
    "EXPORTAPP_RETRY_SECONDS": "1",
}


class Desk:
    """The app on a database, a source and a broker of its own, in a temporary folder."""

    def __init__(
        self, mariadb: MariaDB, rabbitmq: RabbitMQ, datasets: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.mariadb = mariadb
        mark = uuid.uuid4().hex[:8]
        self.app, self.source = f"app_{mark}", f"source_{mark}"
        self._temporary = tempfile.TemporaryDirectory(prefix="exportapp-desk-", ignore_cleanup_errors=True)
        self.var = Path(self._temporary.name)
        self.port = free_port()
        (self.var / "datasets.toml").write_text(datasets)
        self.env = {
            "EXPORTAPP_VAR": str(self.var),
            "EXPORTAPP_DATASETS": str(self.var / "datasets.toml"),
            "EXPORTAPP_DATABASE_URL": mariadb.create_database(self.app),
            "SOURCE_SHOP_URL": mariadb.create_database(self.source),
            "EXPORTAPP_BROKER_URL": rabbitmq.vhost(),
            "EXPORTAPP_BASE_URL": f"http://127.0.0.1:{self.port}",
            **QUICK,
            **(env or {}),
        }
        self.processes = Processes(self.env, ROOT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.processes.__exit__(kind, error, trace)
        finally:
            for database in (self.app, self.source):
                self.mariadb.sql(f"DROP DATABASE IF EXISTS `{database}`")
            self._temporary.cleanup()

    def manage(self, *arguments: str) -> str:
        """Runs manage.py to its end and gives what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"manage.py {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def add_user(self, name: str, *, email: str = "", staff: bool = False) -> None:
        """A person whose password is their name and '-password'."""
        code = (
            "from django.contrib.auth.models import User; "
            f"User.objects.create_user({name!r}, {email!r}, {name + '-password'!r}, is_staff={staff}, is_superuser={staff})"
        )
        self.manage("shell", "-v0", "-c", code)

    def request(self, dataset: str, owner: str, key: str = "1") -> str:
        """Asks for all columns and rows of a dataset; gives the export's id, the same one for the same key."""
        code = (
            "from django.contrib.auth.models import User; from exportapp import datasets, lifecycle; "
            f"from exportapp.engine.specs import Recipe; dataset = datasets.catalogue().datasets[{dataset!r}]; "
            f"recipe = Recipe({dataset!r}, tuple(column.name for column in dataset.columns)); "
            f"print(lifecycle.request(User.objects.get(username={owner!r}), dataset, recipe, request_key={key!r}).pk)"
        )
        return self.manage("shell", "-v0", "-c", code).strip()

    @property
    def address(self) -> str:
        return self.env["EXPORTAPP_BASE_URL"]

    def start_dispatcher(self, name: str = "dispatcher", **env: str) -> None:
        self.processes.start(name, [sys.executable, "manage.py", "dispatch"], **env)
        wait_until(lambda: "ready" in self.processes.log(name), 30, "the dispatcher")

    def start_worker(self, name: str = "worker", concurrency: int = 1, **env: str) -> None:
        options = ["--without-heartbeat", "--without-gossip", "--without-mingle", "-O", "fair", "-l", "INFO"]
        argv = [BIN / "celery", "-A", "exportapp", "worker", "-c", str(concurrency), "-n", f"{name}@%h", *options]
        self.processes.start(name, argv, **env)
        wait_until(lambda: "ready." in self.processes.log(name), 30, "the worker")

    def start_web(self, name: str = "web", **env: str) -> None:
        argv = [BIN / "gunicorn", "exportapp.wsgi", "--worker-class", "gthread", "--threads", "8"]
        argv += ["--no-control-socket", "--bind", f"127.0.0.1:{self.port}"]
        self.processes.start(name, argv, **env)
        wait_until(lambda: "Booting worker" in self.processes.log(name), 30, "gunicorn")

    def ask(self, statement: str) -> list[list[str]]:
        """Rows of the app's own database, by its command line client."""
        return [line.split("\t") for line in self.mariadb.sql(statement, self.app).splitlines()]

    def file(self, export_id: str) -> bytes:
        """The finished file of an export, read from the folder."""
        [[name]] = self.ask(f"SELECT file_name FROM exportapp_export WHERE id = '{export_id.replace('-', '')}'")
        return (self.var / "files" / name).read_bytes()
