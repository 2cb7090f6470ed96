"""The broker is stopped, hangs, has an alarm, loses its queue, refuses, or carries rubbish: people go on asking, and
everything that they asked for ends ready by itself. Real servers; the only fake is the broker that the pages are told of."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from exportapp.celery import QUEUE, TASK
from tests.journeys.desk import Desk
from tests.journeys.visitor import Visitor
from tests.services import MariaDB, RabbitMQ, wait_until
from tests.services.base import HOST, send_signal, session_members

DATASETS = """
[sources.shop]
[datasets.words]
source = "shop"
table = "words"
key = ["id"]
columns = [{ name = "id", type = "integer" }, { name = "word" }]
[datasets.slow]
source = "shop"
query = "SELECT seq, SLEEP(0.2) AS nap FROM seq_1_to_40"
columns = [{ name = "seq", type = "integer" }, { name = "nap", type = "integer" }]
"""
TABLE = """
CREATE TABLE words (id INT PRIMARY KEY, word VARCHAR(20));
INSERT INTO words SELECT seq, CONCAT('word ', seq) FROM seq_1_to_1000;
"""
WORDS = '"Id","Word"\r\n' + "".join(f'{number},"word {number}"\r\n' for number in range(1, 1001))

QUEUE_SILENT = "The export desk's queue does not answer at the moment; this export starts by itself when it does."
RUNNING = "SELECT COUNT(*) FROM exportapp_step WHERE state = 'running'"
SPENT = "SELECT COUNT(*) FROM exportapp_event WHERE kind IN ('retry', 'taken back')"

Outage = Callable[[RabbitMQ], AbstractContextManager[None]]


class Scene(NamedTuple):
    """A desk at work, alice's browser, and the broker that the pages know: it takes no connection, and hangs for whom
    it does not."""

    desk: Desk
    alice: Visitor
    trap: socket.socket

    def ready(self, path: str, seconds: float = 90) -> None:
        wait_until(lambda: self.alice.state(path) == "Ready", seconds, "the file", interval=0.2)

    def facts(self) -> dict[str, Any]:
        rows = self.desk.ask("SELECT facts FROM exportapp_process WHERE kind = 'dispatcher'")
        return dict(json.loads(rows[0][0])) if rows else {}

    @property
    def worker_ended(self) -> bool:
        return self.desk.processes.ended("worker")

    def number(self, query: str) -> int:
        return int(self.desk.ask(query)[0][0])


@pytest.fixture(scope="module")
def scene(mariadb: MariaDB, rabbitmq: RabbitMQ) -> Iterator[Scene]:
    with Desk(mariadb, rabbitmq, DATASETS) as desk, socket.create_server((HOST, 0)) as trap:
        mariadb.sql(TABLE, desk.source)
        desk.manage("migrate", "-v0")
        desk.add_user("alice")
        trap.setblocking(False)
        desk.start_web(EXPORTAPP_BROKER_URL=f"amqp://nobody@{HOST}:{trap.getsockname()[1]}/")
        desk.start_worker()
        desk.start_dispatcher()
        alice = Visitor(desk.address)
        alice.sign_in("alice", "alice-password")
        yield Scene(desk, alice, trap)


@contextmanager
def stopped(rabbitmq: RabbitMQ) -> Iterator[None]:
    rabbitmq.stop()
    try:
        yield
    finally:
        rabbitmq.start()


@contextmanager
def hung(rabbitmq: RabbitMQ) -> Iterator[None]:
    """It keeps its connections, takes new ones, and says nothing."""
    assert rabbitmq._process is not None
    processes = session_members(rabbitmq._process.pid)
    try:
        for process in processes:
            send_signal(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            send_signal(process, signal.SIGCONT)


@contextmanager
def alarmed(rabbitmq: RabbitMQ) -> Iterator[None]:
    """Who publishes is held up until the memory alarm ends."""
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        yield
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.8")


# --- away --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", [stopped, hung, alarmed])
def test_what_is_asked_for_while_the_broker_is_away_is_accepted_and_ready_after_it(
    scene: Scene, rabbitmq: RabbitMQ, outage: Outage
) -> None:
    wait_until(lambda: scene.facts()["broker"] == "reachable", 30, "the end of an outage before")
    with outage(rabbitmq):
        first, second = (scene.alice.ask("words") for _ in range(2))
        wait_until(lambda: QUEUE_SILENT in scene.alice.get(first).page.text, 60, "the page to say why it waits")
        assert scene.alice.get("/exports/").page.text.count(QUEUE_SILENT) == 2
        assert {scene.alice.state(path) for path in (first, second)} == {"Waiting"}
    for path in (first, second):
        scene.ready(path)
        assert scene.alice.download(path).body == WORDS.encode()
    assert QUEUE_SILENT not in scene.alice.get("/exports/").page.text
    with pytest.raises(BlockingIOError):  # nobody of the pages' process has even tried
        scene.trap.accept()


@pytest.fixture
def _worker_for_the_next(scene: Scene) -> Iterator[None]:
    yield
    if scene.worker_ended:
        begun = times_ready(scene.desk)
        with pika.BlockingConnection(pika.URLParameters(scene.desk.env["EXPORTAPP_BROKER_URL"])) as connection:
            connection.channel().queue_purge(QUEUE)
        scene.desk.start_worker()
        wait_until(lambda: times_ready(scene.desk) > begun, 30, "the next worker")


@pytest.mark.usefixtures("_worker_for_the_next")
@pytest.mark.parametrize("outage", [stopped, hung])
def test_worker_that_is_to_end_while_the_broker_is_away_hands_its_step_back_and_ends(
    scene: Scene, rabbitmq: RabbitMQ, outage: Outage
) -> None:
    path, before = scene.alice.ask("slow"), scene.number(SPENT)
    wait_until(lambda: scene.number(RUNNING), 30, "its step")
    with outage(rabbitmq):
        scene.desk.processes.term("worker")
        wait_until(lambda: scene.worker_ended, 60, "the end of the worker")
        assert scene.number(RUNNING) == 0
    scene.desk.start_worker()
    scene.ready(path)
    assert scene.number(SPENT) == before


@pytest.mark.slow
def test_outage_longer_than_the_pauses_between_tries_stops_no_step_and_ends_by_itself(
    scene: Scene, rabbitmq: RabbitMQ
) -> None:
    running, before = scene.alice.ask("slow"), scene.number(SPENT)
    wait_until(lambda: scene.number(RUNNING), 30, "its step")
    tried = times_tried(scene.desk)
    with stopped(rabbitmq):
        scene.ready(running)  # a worker that is at it needs no broker
        waiting = scene.alice.ask("words")
        wait_until(lambda: times_tried(scene.desk) >= tried + 6, 90, "the worker to try again and again")
        assert scene.alice.state(waiting) == "Waiting"
    scene.ready(waiting)
    assert scene.number(SPENT) == before


def times_tried(desk: Desk) -> int:
    """So often workers reached no broker; their pauses grow by two seconds each time."""
    return desk.processes.log("worker").count("Trying again in")


@pytest.mark.slow
def test_lost_step_is_taken_back_while_the_broker_hangs(scene: Scene, rabbitmq: RabbitMQ) -> None:
    mistakes = scene.desk.processes.log("dispatcher").count("Traceback")
    path, before = scene.alice.ask("slow"), scene.number(SPENT)
    [[worker]] = wait_until(lambda: scene.desk.ask(RUNNING.replace("COUNT(*)", "worker")), 30, "its step")
    with hung(rabbitmq):
        os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
        wait_until(lambda: scene.number(SPENT) > before, 30, "the step to be taken back")
        assert scene.number(RUNNING) == 0
        # First the open connection is given up, after half a minute, and then a new one is tried in vain.
        wait_until(lambda: "StackTimeout" in scene.facts()["broker"], 90, "the dispatcher to try again")
    scene.ready(path)
    assert scene.desk.processes.log("dispatcher").count("Traceback") == mistakes


# --- refusing ----------------------------------------------------------------------------------------------------------


def vhost(desk: Desk) -> str:
    return desk.env["EXPORTAPP_BROKER_URL"].rpartition("/")[2]


@contextmanager
def asleep(desk: Desk, *names: str) -> Iterator[None]:
    """Stops processes of the desk with their children."""
    members = [pid for name in names for pid in session_members(desk.processes._running[name].pid)]
    for pid in members:
        send_signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in members:
            send_signal(pid, signal.SIGCONT)


def test_doorbell_that_reaches_no_queue_is_seen_and_rung_again(scene: Scene, rabbitmq: RabbitMQ) -> None:
    before = scene.facts().get("refused", 0)
    with asleep(scene.desk, "worker"):  # it would make its queue anew at once
        with asleep(scene.desk, "dispatcher"):
            path = scene.alice.ask("words")
            rabbitmq.ctl("delete_queue", QUEUE, "-p", vhost(scene.desk))
        wait_until(lambda: scene.facts().get("refused", 0) > before, 30, "the dispatcher to say so")
        assert "a doorbell reached no queue" in scene.desk.processes.log("dispatcher")
    scene.ready(path)
    wait_until(lambda: scene.facts()["broker"] == "reachable", 30, "the dispatcher to say that all is well")
    assert not scene.worker_ended


def test_doorbell_that_the_broker_refuses_is_seen_and_rung_again(scene: Scene, rabbitmq: RabbitMQ) -> None:
    before = scene.facts().get("refused", 0)
    full = json.dumps({"max-length": 0, "overflow": "reject-publish"})
    rabbitmq.ctl("set_policy", "-p", vhost(scene.desk), "full", QUEUE, full)
    try:
        path = scene.alice.ask("words")
        wait_until(lambda: scene.facts()["broker"] == "the broker refused a doorbell", 30, "the dispatcher to say so")
        assert scene.facts()["refused"] > before
        assert "the broker refused a doorbell" in scene.desk.processes.log("dispatcher")
        assert QUEUE_SILENT in scene.alice.get(path).page.text
    finally:
        rabbitmq.ctl("clear_policy", "-p", vhost(scene.desk), "full")
    scene.ready(path)


# --- rubbish -----------------------------------------------------------------------------------------------------------

JSON, PICKLE = "application/json", "application/x-python-serialize"
OURS = {"task": TASK, "id": "rubbish", "lang": "py"}
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class Evil:
    """What a pickle could do to whoever opens it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.kill, (os.getpid(), signal.SIGKILL)


def call(*args: Any, **kwargs: Any) -> bytes:
    return json.dumps([args, kwargs, EMBED]).encode()


# What it is, its headers, its content type and its body.
Message = tuple[str, dict[str, Any] | None, str | None, bytes]

RUBBISH: list[Message] = [
    ("random bytes", None, None, os.urandom(1000)),
    ("nothing", None, None, b""),
    ("random bytes for our task", OURS, JSON, os.urandom(1000)),
    ("random bytes that call themselves text", OURS, "text/plain", os.urandom(1000)),
    ("a pickle", OURS, PICKLE, pickle.dumps([[1], {}, EMBED])),
    ("a pickle that kills", OURS, PICKLE, pickle.dumps(Evil())),
    ("a pickle without headers", None, PICKLE, pickle.dumps(Evil())),
    ("another app's task", {"task": "shop.tasks.charge", "id": "1"}, JSON, call(1)),
    (
        "an old task that another app calls",
        None,
        JSON,
        json.dumps({"task": "shop.charge", "id": "1", "args": []}).encode(),
    ),
    ("JSON that is no task", None, JSON, b'{"hello": "world"}'),
    ("a number", None, JSON, b"5"),
    ("an object for our task", OURS, JSON, b'{"args": 5}'),
    ("a megabyte", OURS, JSON, call("x" * (1 << 20))),
    ("ten megabytes without headers", None, None, os.urandom(10 << 20)),
    ("an unknown content type", OURS, "application/x-unknown", call(1)),
    ("an unknown compression", {**OURS, "compression": "application/x-unknown"}, JSON, call(1)),
    ("a time that is none", {**OURS, "eta": "tomorrow"}, JSON, call(1)),
    ("a hint that is a word", OURS, JSON, call("one")),
    ("a hint that is a list", OURS, JSON, call([1, 2])),
    ("a hint that is nothing", OURS, JSON, call(None)),
    ("a hint below zero", OURS, JSON, call(-1)),
    ("a hint that is no step", OURS, JSON, call(1 << 40)),
    ("a hint that no database takes", OURS, JSON, call(1 << 80)),
    ("two hints", OURS, JSON, call(1, 2)),
    ("an argument that we do not have", OURS, JSON, call(colour="red")),
]
# Messages at which Celery's own code stumbles before any of ours is asked.
CRUEL: list[Message] = [
    ("no id", {"task": TASK}, JSON, call(1)),
    ("a number for our task", OURS, JSON, b"5"),
    ("too few parts", OURS, JSON, b"[]"),
    ("a task that is a table", {"task": {"a": 1}, "id": "1"}, JSON, call(1)),
]


def deliver(scene: Scene, messages: list[Message]) -> None:
    """Publishes one after the other, each when a worker took the one before."""
    with pika.BlockingConnection(pika.URLParameters(scene.desk.env["EXPORTAPP_BROKER_URL"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for what, headers, content_type, body in messages:
            properties = pika.BasicProperties(content_type=content_type, headers=headers)
            channel.basic_publish("", QUEUE, body, properties, mandatory=True)
            wait_until(lambda: scene.worker_ended or not waiting_in(channel), 30, f"the end of {what}")


def waiting_in(channel: BlockingChannel) -> int:
    return int(channel.queue_declare(QUEUE, passive=True).method.message_count)


def assert_the_same_worker_goes_on(scene: Scene, begun: int) -> None:
    for path in [scene.alice.ask("words") for _ in range(3)]:
        wait_until(lambda path=path: scene.worker_ended or scene.alice.state(path) == "Ready", 90, "the file")  # type: ignore[misc]
        assert not scene.worker_ended
        assert scene.alice.download(path).body == WORDS.encode()
    assert times_ready(scene.desk) == begun


def times_ready(desk: Desk) -> int:
    return desk.processes.log("worker").count("ready.")


def test_rubbish_in_the_queue_stops_no_worker(scene: Scene) -> None:
    begun = times_ready(scene.desk)
    deliver(scene, RUBBISH)
    assert_the_same_worker_goes_on(scene, begun)
    assert max(map(len, scene.desk.processes.log("worker").splitlines())) < 10_000


@pytest.mark.usefixtures("_worker_for_the_next")
@pytest.mark.parametrize("message", CRUEL, ids=[what for what, *_ in CRUEL])
def test_message_over_which_celery_stumbles_stops_no_worker(scene: Scene, message: Message) -> None:
    begun = times_ready(scene.desk)
    deliver(scene, [message])
    assert_the_same_worker_goes_on(scene, begun)
