"""Ringing on a real RabbitMQ: confirmed, understood by Celery, and never waiting for ever for a broker in trouble."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pika
import pytest
from celery import Celery

from exportapp.celery import QUEUE, QUEUE_ARGUMENTS, TASK, app
from exportapp.doorbell import MemoryDoorbell, RabbitDoorbell, Unreachable, open_doorbell
from tests.services import RabbitMQ, free_port


@pytest.fixture
def url(rabbitmq: RabbitMQ) -> str:
    return rabbitmq.vhost()


@pytest.fixture
def bell(url: str) -> Iterator[RabbitDoorbell]:
    bell = RabbitDoorbell(url)
    yield bell
    bell.close()


class Message(NamedTuple):
    properties: pika.BasicProperties
    body: Any

    @property
    def step(self) -> int:
        return int(self.body[0][0])


def queued(url: str) -> list[Message]:
    """Takes all messages out of the queue."""
    messages = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        while (got := channel.basic_get(QUEUE, auto_ack=True))[0]:
            messages.append(Message(got[1], json.loads(got[2])))
    return messages


def password(url: str) -> str:
    return str(urlsplit(url).password)


def test_rings_are_in_the_queue_when_ring_returns_in_their_order(bell: RabbitDoorbell, url: str) -> None:
    bell.ring([7, 3, 1 << 60])
    assert bell.depth() == 3
    assert [message.step for message in queued(url)] == [7, 3, 1 << 60]
    assert bell.depth() == 0


def test_ring_says_what_celery_itself_would_say(bell: RabbitDoorbell, url: str) -> None:
    celery = Celery(broker=url)
    celery.conf.update(task_queues=app.conf.task_queues, task_default_queue=QUEUE)
    celery.send_task(TASK, args=[7], queue=QUEUE)  # declares the queue, too, and RabbitMQ refuses another declaration
    celery.close()
    bell.ring([7])
    theirs, ours = queued(url)
    assert ours.body == theirs.body == [[7], {}, {"callbacks": None, "chain": None, "chord": None, "errbacks": None}]
    for name in ("content_type", "content_encoding"):
        assert getattr(ours.properties, name) == getattr(theirs.properties, name)
    assert ours.properties.headers["task"] == theirs.properties.headers["task"] == TASK
    assert len(ours.properties.headers["id"]) == len(theirs.properties.headers["id"])


def test_every_ring_has_an_id_of_its_own_and_outlives_no_broker(bell: RabbitDoorbell, url: str) -> None:
    bell.ring([7, 7])
    first, second = queued(url)
    assert first.properties.headers["id"] != second.properties.headers["id"]
    assert first.properties.delivery_mode == 1


def test_queue_that_is_gone_is_told_and_made_anew(bell: RabbitDoorbell, url: str) -> None:
    bell.ring([1])
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(QUEUE)
    with pytest.raises(Unreachable, match="reached no queue"):
        bell.ring([2])
    bell.ring([3])
    assert [message.step for message in queued(url)] == [3]


def test_queue_of_another_shape_is_told(bell: RabbitDoorbell, url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(QUEUE, durable=True)
    with pytest.raises(Unreachable, match="ChannelClosedByBroker") as error:
        bell.ring([1])
    assert password(url) not in str(error.value)


def test_queue_forgets_the_oldest_rings_rather_than_filling_the_broker(bell: RabbitDoorbell, url: str) -> None:
    assert QUEUE_ARGUMENTS == {"x-message-ttl": 60_000, "x-max-length": 10_000}
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, arguments=QUEUE_ARGUMENTS)
        for number in range(10_000):
            channel.basic_publish("", QUEUE, json.dumps([[number]]).encode())
    bell.ring([77, 78])
    messages = queued(url)
    assert (len(messages), messages[0].step, messages[-1].step) == (10_000, 2, 78)


def test_wrong_password_is_told_without_it(url: str) -> None:
    bell = RabbitDoorbell(url.replace(password(url), "opensesame"))
    with pytest.raises(Unreachable) as error:
        bell.ring([1])
    assert "opensesame" not in str(error.value)


def test_address_where_nobody_listens_is_told() -> None:
    bell = RabbitDoorbell(f"amqp://user:opensesame@127.0.0.1:{free_port()}/desk")
    for act in (lambda: bell.ring([1]), bell.depth):
        with pytest.raises(Unreachable, match="does not answer") as error:
            act()
        assert "opensesame" not in str(error.value)
    bell.close()


def test_broker_that_comes_back_is_rung_again(bell: RabbitDoorbell, url: str, rabbitmq: RabbitMQ) -> None:
    bell.ring([1])
    rabbitmq.ctl("stop_app")
    try:
        for _ in range(2):
            with pytest.raises(Unreachable, match="does not answer") as error:
                bell.ring([2])
            assert password(url) not in str(error.value)
    finally:
        rabbitmq.ctl("start_app")
    bell.ring([3])
    assert bell.depth() == 1, "doorbells do not outlive their broker: the database remembers"
    assert [message.step for message in queued(url)] == [3]


def test_broker_in_a_memory_alarm_holds_nobody_up_and_is_rung_again_after_it(
    bell: RabbitDoorbell, url: str, rabbitmq: RabbitMQ
) -> None:
    bell.ring([1])
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    told: list[Unreachable] = []

    def ring() -> None:
        try:
            bell.ring([2])
        except Unreachable as error:
            told.append(error)

    thread = threading.Thread(target=ring)
    try:
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert [str(error) for error in told] == ["the broker does not answer (ConnectionBlockedTimeout)"]
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.8")
        thread.join(30)
    bell.ring([3])
    assert {1, 3} <= {message.step for message in queued(url)}


def test_doorbell_fits_its_address() -> None:
    assert isinstance(open_doorbell("memory://localhost"), MemoryDoorbell)
    assert isinstance(open_doorbell("amqp://user:password@rabbitmq:5672/desk"), RabbitDoorbell)
    assert isinstance(open_doorbell("amqps://user:password@rabbitmq:5671/desk"), RabbitDoorbell)


def test_doorbell_in_memory_rings_for_the_same_task() -> None:
    bell = MemoryDoorbell()
    with app.connection_for_read() as connection:
        queue = connection.default_channel
        app.amqp.queues[QUEUE](queue).declare()
        queue.queue_purge(QUEUE)
        bell.ring([7, 8])
        assert bell.depth() == 2
        messages = [queue.basic_get(QUEUE) for _ in range(2)]
        assert [json.loads(message.body)[0] for message in messages] == [[7], [8]]
        assert {message.headers["task"] for message in messages} == {TASK}
        assert bell.depth() == 0
