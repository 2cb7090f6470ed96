"""manage.py quickstart: a whole export desk on this machine, with a demo shop, users and a first export made."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Sum

from exportapp import datasets, lifecycle, storage
from exportapp.engine.specs import Recipe
from exportapp.models import UNFINISHED, Export, ExportState
from exportapp.sample import write_shop

HOST = "127.0.0.1"
PEOPLE = ("operator", "alice", "bob")
FIRST_KEY = "first-export"
PR_SET_PDEATHSIG = 1  # prctl(2)


class Command(BaseCommand):
    help = "Starts web, dispatcher and worker here, with a demo shop, three users and a first export. Ctrl-C ends all."
    requires_system_checks: list[str] = []  # they run once the demo shop is there for them to look at

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", default=os.environ.get("PORT") or "8000")
        parser.add_argument("--orders", type=int, default=200_000, help="how big the demo shop is")

    def handle(self, *args: Any, **options: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell may have started us with it ignored
            signal.signal(number, _interrupt)
        port = _port(options["port"])
        _refuse_busy(port)
        os.environ.setdefault("EXPORTAPP_BASE_URL", f"http://{HOST}:{port}")
        try:
            self._prepare(options["orders"])
            with _children(port) as children:
                self._wait_ready(port, children)
                export = self._first_export(children)
                self._tell(export)
                _watch(children)
        except KeyboardInterrupt:
            self.stdout.write("\nEverything has ended.")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _prepare(self, orders: int) -> None:
        with suppress(datasets.DatasetError):  # the checks tell it
            self._make_shop(orders)
        self.check()
        self._say("Preparing the app database")
        call_command("migrate", verbosity=0)
        self.passwords = _people()

    def _make_shop(self, orders: int) -> None:
        source = datasets.catalogue().sources.get("shop")
        if source and source.default and source.url.startswith("sqlite:") and not Path(source.url[10:]).exists():
            self._say(f"Making the demo shop with {orders:,} orders")
            write_shop(source.url, orders=orders, progress=lambda line: self._say(f"  {line}"))

    def _wait_ready(self, port: int, children: dict[str, subprocess.Popen[bytes]]) -> None:
        self._say("Starting web, dispatcher and worker")
        while True:
            _all_alive(children)
            try:
                with urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=2):
                    return
            except OSError:
                time.sleep(0.05)

    def _first_export(self, children: dict[str, subprocess.Popen[bytes]]) -> Export | None:
        dataset = datasets.catalogue().datasets.get("orders")
        done = Export.objects.filter(request_key=FIRST_KEY).exclude(state__in=UNFINISHED).exists()
        if done or dataset is None or dataset.source != "shop":
            return Export.objects.filter(state=ExportState.READY).first()
        self._say("Making a first export: the orders of all time, as CSV")
        columns = tuple(column.name for column in dataset.columns)
        recipe = Recipe("orders", columns, start="2023-11-01", end="2026-11-01")
        export = lifecycle.request(
            User.objects.get(username="alice"),
            dataset,
            recipe,
            request_key=FIRST_KEY,
            name="All orders, a first export",
        )
        told = 0
        while export.unfinished:
            _all_alive(children)
            time.sleep(0.2)
            export.refresh_from_db()
            rows = export.steps.aggregate(rows=Sum("rows_done"))["rows"] or 0
            if rows != told:
                self._say(f"  {rows:,} of {export.rows_estimated:,} rows")
                told = rows
        if export.state != ExportState.READY:
            raise CommandError(export.error or "The first export was not finished.")
        return export

    def _tell(self, export: Export | None) -> None:
        people = "\n".join(f"  {name:<9} {password}" for name, password in self.passwords.items())
        file = storage.local_path(export) if export else None
        lines = ["", f"Open  {os.environ['EXPORTAPP_BASE_URL']}", f"Users and passwords\n{people}"]
        if file:
            lines.append(f"The newest finished file\n  {file}")
        self._say("\n".join([*lines, "", "Ctrl-C ends everything; the data stays in " + str(settings.VAR)]))


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    raise CommandError(f"{text!r} is no port. Choose a number up to 65535: PORT=8000 make run")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _refuse_busy(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise CommandError(f"Port {port} is taken. Choose another one: PORT={port + 1} make run") from None


def _people() -> dict[str, str]:
    """The demo's users with their passwords, which only the first run makes up."""
    path = settings.VAR / "demo-users.txt"
    if path.exists():
        return dict(line.split() for line in path.read_text().splitlines())
    made = {name: secrets.token_urlsafe(9) for name in PEOPLE}
    for name, password in made.items():
        user, _ = User.objects.get_or_create(username=name, defaults={"email": f"{name}@example.com"})
        user.is_staff = user.is_superuser = name == "operator"
        user.set_password(password)
        user.save()
    for dataset in datasets.catalogue().datasets.values():
        for group in dataset.groups:
            User.objects.get(username="alice").groups.add(Group.objects.get_or_create(name=group)[0])
    path.touch(mode=0o600)
    path.write_text("".join(f"{name} {password}\n" for name, password in made.items()))
    return made


def _commands(port: int) -> dict[str, list[str]]:
    here = Path(sys.executable).parent
    web = [str(here / "gunicorn"), "exportapp.wsgi", "--worker-class", "gthread", "--threads", "8"]
    web += ["--no-control-socket", "--bind", f"{HOST}:{port}"]
    if settings.BROKER_URL.startswith("memory:"):
        return {"web": web, "work": [sys.executable, "manage.py", "work"]}
    celery = [str(here / "celery"), "-A", "exportapp", "worker", "-c", "2", "-O", "fair", "-l", "INFO"]
    celery += ["--without-heartbeat", "--without-gossip", "--without-mingle"]
    return {"web": web, "dispatch": [sys.executable, "manage.py", "dispatch"], "worker": celery}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _children(port: int) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The desk's processes; all of them end with the block, and with this process however that ends."""
    logs = settings.VAR / "log"
    logs.mkdir(exist_ok=True)
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in _commands(port).items():
            with (logs / f"{name}.log").open("ab") as log:
                # A session of its own keeps the terminal's Ctrl-C from children that this process is to end in order.
                children[name] = subprocess.Popen(  # noqa: S603  our own programs
                    command,
                    cwd=settings.BASE_DIR,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
        yield children
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(children)


def _end(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        child.terminate()
    deadline = time.monotonic() + 10
    for child in children.values():
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _all_alive(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            raise CommandError(f"{name} ended unexpectedly; {settings.VAR}/log/{name}.log says why.")


def _watch(children: dict[str, subprocess.Popen[bytes]]) -> None:
    while True:
        _all_alive(children)
        time.sleep(0.5)
