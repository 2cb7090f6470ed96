"""The app database as companies run it: the same tests on MariaDB, and processes that race there for the same steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import MariaDB

ROOT = Path(__file__).resolve().parent.parent

# What depends on the database: locks, clocks, queries of lists, times, and texts of all kinds.
MODULES = [
    "tests/test_lifecycle.py", "tests/test_claim.py", "tests/test_dispatcher.py", "tests/web/test_health.py",
    "tests/web/test_my_exports.py", "tests/test_figures.py", "tests/test_monitor.py",
    "tests/test_admin.py::test_every_list_and_every_row_can_be_read",
    "tests/test_admin.py::test_exports_are_found_by_what_operators_know_of_them",
]  # fmt: skip
ELSEWHERE = "not behind_200 and not hostile"  # long, and the same on every database


def test_what_depends_on_the_database_passes_on_mariadb(mariadb: MariaDB) -> None:
    options = ["-q", "--no-header", "-x", "-p", "no:cacheprovider", "-k", ELSEWHERE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *MODULES],
        cwd=ROOT,
        env=os.environ | {"EXPORTAPP_DATABASE_URL": mariadb.url(f"nested_{uuid.uuid4().hex[:8]}")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


# --- a race -----------------------------------------------------------------------------------------------------------

SECONDS = 30  # at most; it ends when all is done
PEOPLE, EXPORTS = 3, 8  # so many people, with so many exports each
RACERS = 4
CAPS = {"STEPS_PER_EXPORT": 2, "STEPS_PER_PERSON": 3, "STEPS_IN_ALL": 6}
CONNECTIONS = 4

DATASETS = f"""
[sources.shop]
connections = {CONNECTIONS}
[datasets.orders]
source = "shop"
table = "orders"
key = ["id"]
columns = [{{ name = "id", type = "integer" }}]
"""

# A worker that does its steps in no time, and now and then hands one back, fails or cancels somebody's export.
RACER = """
import json, os, random, sys, time
import django
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Count
from exportapp import datasets, lifecycle
from exportapp.engine.errors import ExportError, LeaseLost
from exportapp.engine.specs import FileResult, KeyRange, PieceResult, Plan, Recipe
from exportapp.models import Step, StepState

name, seconds = sys.argv[1], float(sys.argv[2])
dice = random.Random(name)
orders = datasets.catalogue().datasets["orders"]
(settings.VAR / f"{name} is there").touch()
while len(list(settings.VAR.glob("* is there"))) < RACERS:
    time.sleep(0.005)
lifecycle.request(User.objects.earliest("pk"), orders, Recipe("orders", ("id",)), request_key="all at once")

def most(field):
    running = Step.objects.filter(state=StepState.RUNNING)
    return max([row["count"] for row in running.values(field).annotate(count=Count("pk"))], default=0)

def look():
    running = Step.objects.filter(state=StepState.RUNNING)
    reading = running.filter(kind__in=["plan", "chunk"]).count()
    return [most("export"), most("export__owner"), running.count(), reading]

def do(step):
    if step.kind == "plan":
        lifecycle.finish_plan(step, Plan(tuple(KeyRange((n,), (n + 1,)) for n in range(6)), 60, True))
    elif step.kind == "chunk":
        rest = (step.position,) if dice.random() < 0.2 else None
        lifecycle.finish_chunk(step, PieceResult("piece", 10, 100, "0", rest))
    elif step.kind == "assemble":
        rows = sum(one.rows_done for one in step.export.steps.filter(kind="chunk"))
        lifecycle.make_ready(step, FileResult("x/1/file", rows, rows, "0"), {})
    else:
        lifecycle.finish_notify(step, "sent")

def touch(step):
    luck = dice.random()
    if luck < 0.03:
        lifecycle.cancel(dice.choice(held + [step]).export, None, "Enough")
    elif luck < 0.06:
        return lifecycle.hand_back(step)
    elif luck < 0.1:
        return lifecycle.fail_step(step, ExportError("Later."))
    elif luck < 0.2 and not lifecycle.beat(step, 5, 50):
        raise LeaseLost
    do(step)

seen, claims, held, lost = [[0, 0, 0, 0]], [], [], 0
ends = time.monotonic() + seconds
while time.monotonic() < ends and Step.objects.filter(state__in=["waiting", "running"]).exists():
    step = lifecycle.claim(name, dice.choice([None, dice.randrange(1, 500)])) if len(held) < 3 else None
    if step:
        claims.append([step.pk, step.fence])
        held.append(step)
        seen.append(look())
    if held and (not step or dice.random() < 0.5):  # a worker holds one; holding more presses harder on the caps
        try:
            touch(held.pop(dice.randrange(len(held))))
        except LeaseLost:
            lost += 1
    elif not step:
        lifecycle.take_back_lost()
        time.sleep(0.01)
print(json.dumps({"claims": claims, "most": [max(column) for column in zip(*seen)], "lost": lost}))
""".replace("RACERS", str(RACERS))

SETUP = f"""
import django
django.setup()
from django.contrib.auth.models import User
from exportapp import datasets, lifecycle
from exportapp.engine.specs import Recipe
orders = datasets.catalogue().datasets["orders"]
people = [User.objects.create_user(f"person {{n}}") for n in range({PEOPLE})]
for number in range({EXPORTS}):
    for person in people:
        lifecycle.request(person, orders, Recipe("orders", ("id",)), request_key=str(number))
"""

FACTS = """
import json
import django
django.setup()
from collections import Counter
from exportapp.models import Event, Export, Step
print(json.dumps({
    "exports": dict(Counter(Export.objects.values_list("state", flat=True))),
    "fences": dict(Step.objects.values_list("pk", "fence")),
    "assembles": [[one.state, one.chunks_left, one.steps.filter(kind="assemble").count(),
                   one.events.filter(kind="ready").count(), one.events.filter(kind="cancelled").count(),
                   one.events.filter(kind="running").count(), one.steps.exclude(state__in=["done", "dropped"]).count()]
                  for one in Export.objects.all()],
}))
"""


@pytest.fixture
def env(mariadb: MariaDB, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of processes that share an app database of their own."""
    name = f"race_{uuid.uuid4().hex[:8]}"
    (tmp_path / "datasets.toml").write_text(DATASETS)
    yield os.environ | {
        "DJANGO_SETTINGS_MODULE": "exportapp.settings",
        "EXPORTAPP_VAR": str(tmp_path),
        "EXPORTAPP_DATASETS": str(tmp_path / "datasets.toml"),
        "EXPORTAPP_DATABASE_URL": mariadb.create_database(name),
        "EXPORTAPP_RETRY_SECONDS": "0",
        **{f"EXPORTAPP_{cap}": str(most) for cap, most in CAPS.items()},
    }
    mariadb.sql(f"DROP DATABASE {name}")


def python(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def printed(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "Traceback" not in error, error
    return out


def test_processes_that_race_claim_no_step_twice_and_publish_every_export_once(env: dict[str, str]) -> None:
    printed(python(env, "manage.py", "migrate", "-v0"))
    printed(python(env, "-c", SETUP))
    racers = [python(env, "-c", RACER, f"racer {number}", str(SECONDS)) for number in range(RACERS)]
    try:
        told = [json.loads(printed(racer)) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
    facts = json.loads(printed(python(env, "-c", FACTS)))

    claims = Counter((step, fence) for one in told for step, fence in one["claims"])
    assert claims.most_common(1)[0][1] == 1, "a step was given twice under one fence"
    fences = Counter(step for step, _ in claims)
    assert {str(step): count for step, count in fences.items()} == {
        step: fence for step, fence in facts["fences"].items() if fence
    }, "a claim is missing"

    exports, people, all_, reading = (max(column) for column in zip(*(one["most"] for one in told), strict=True))
    assert exports <= CAPS["STEPS_PER_EXPORT"]
    assert people <= CAPS["STEPS_PER_PERSON"]
    assert reading <= CONNECTIONS
    assert 1 < all_ <= CAPS["STEPS_IN_ALL"]

    assert sum(facts["exports"].values()) == PEOPLE * EXPORTS + 1, "who asked for the same at once got the same"
    assert set(facts["exports"]) == {"ready", "cancelled"}, "there was time to finish everything"
    for state, chunks_left, assembles, ready, cancelled, running, unfinished in facts["assembles"]:
        assert (ready, cancelled) == ((1, 0) if state == "ready" else (0, 1))
        assert assembles == 1 or state == "cancelled"
        assert chunks_left == 0 or state == "cancelled"
        assert assembles <= 1
        assert running <= 1
        assert unfinished == 0
    assert sum(one["lost"] for one in told) > 0, "no cancel met a step that ran"
    print(f"{len(claims)} claims of {RACERS} processes, {facts['exports']}, {sum(one['lost'] for one in told)} lost")


# --- connections that die ---------------------------------------------------------------------------------------------

WORKER = """
import sys
import django
django.setup()
from django.db import connection
from exportapp import lifecycle
from exportapp.engine.specs import KeyRange, Plan
step = lifecycle.claim("worker")
print(connection.connection.thread_id(), flush=True)
sys.stdin.readline()  # meanwhile, a chunk is read for an hour, and the database restarts
lifecycle.finish_plan(step, Plan((KeyRange((0,), (9,)),), 9, True))
print(step.export.steps.get(pk=step.pk).state)
"""

FROZEN = """
import time
import django
django.setup()
from django.db import transaction
from exportapp.models import Gate
with transaction.atomic():
    Gate.objects.select_for_update().get(pk=1)
    print("holds it", flush=True)
    time.sleep(300)
"""

CLAIMER = """
import django
django.setup()
from django.db import OperationalError
from exportapp import lifecycle
for _ in range(6):
    try:
        print(lifecycle.claim("worker").kind)
        break
    except OperationalError:
        pass
"""


def talk(env: dict[str, str], code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_step_is_recorded_though_its_workers_connection_has_died_meanwhile(
    mariadb: MariaDB, env: dict[str, str]
) -> None:
    printed(python(env, "manage.py", "migrate", "-v0"))
    printed(python(env, "-c", SETUP))
    with talk(env, WORKER) as worker:
        assert worker.stdout
        mariadb.sql(f"KILL {int(worker.stdout.readline())}")
        told, _ = worker.communicate("go on\n", timeout=60)
    assert (worker.returncode, told) == (0, "done\n")


def test_process_that_is_frozen_in_the_middle_of_a_claim_does_not_stop_the_desk(env: dict[str, str]) -> None:
    printed(python(env, "manage.py", "migrate", "-v0"))
    printed(python(env, "-c", SETUP))
    with talk(env, FROZEN) as frozen:
        assert frozen.stdout
        assert frozen.stdout.readline() == "holds it\n"
        frozen.send_signal(signal.SIGSTOP)
        try:
            assert printed(python(env, "-c", CLAIMER)) == "plan\n"
        finally:
            frozen.kill()
