"""Rings: tells Celery's workers that a step may run. The only part that publishes; no web request comes here.

On RabbitMQ it publishes through pika, because a publish must be confirmed, must be seen to reach a queue, and must
not hang for ever in a memory alarm. kombu's transport in memory is for the single process of `manage.py work`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, NackError, UnroutableError

from exportapp.celery import QUEUE, QUEUE_ARGUMENTS, TASK, app


class Unreachable(Exception):
    """The broker could not take a doorbell; the message says why, without the address's password."""


class Refused(Unreachable):
    """The broker answers, but has no queue for a doorbell, or takes none."""


class Doorbell(Protocol):
    """One connection to a broker, used by one thread."""

    def ring(self, steps: Iterable[int]) -> None:
        """Publishes a doorbell for each step id. Raises Unreachable; steps after the failing one were not rung."""

    def depth(self) -> int:
        """How many doorbells wait. Raises Unreachable."""

    def close(self) -> None: ...


class RabbitDoorbell:
    """Confirmed, mandatory publishes; connects at first use and again after any failure."""

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = 10
        self._parameters.socket_timeout = 5
        self._parameters.stack_timeout = 10
        self._parameters.blocked_connection_timeout = 5
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None

    def ring(self, steps: Iterable[int]) -> None:
        with self._reached() as channel:
            for step in steps:
                channel.basic_publish("", QUEUE, _body(step), _properties(), mandatory=True)

    def depth(self) -> int:
        with self._reached() as channel:
            return int(channel.queue_declare(QUEUE, durable=True, arguments=QUEUE_ARGUMENTS).method.message_count)

    @contextmanager
    def _reached(self) -> Iterator[BlockingChannel]:
        try:
            if self._channel is None or self._channel.is_closed:
                self._connection = pika.BlockingConnection(self._parameters)
                self._channel = self._connection.channel()
                self._channel.queue_declare(QUEUE, durable=True, arguments=QUEUE_ARGUMENTS)
                self._channel.confirm_delivery()
            yield self._channel
        except (UnroutableError, NackError) as error:
            self.close()
            nacked = isinstance(error, NackError)
            raise Refused("the broker refused a doorbell" if nacked else "a doorbell reached no queue") from error
        except (AMQPError, AMQPConnectorException, OSError) as error:
            self.close()
            raise Unreachable(f"the broker does not answer ({type(error).__name__})") from error

    def close(self) -> None:
        with suppress(AMQPError, OSError):
            if self._connection is not None and self._connection.is_open:
                self._connection.close()
        self._connection = self._channel = None


class MemoryDoorbell:
    """For the embedded default, where dispatcher and worker are threads of one process."""

    def ring(self, steps: Iterable[int]) -> None:
        for step in steps:
            app.send_task(TASK, args=[step], queue=QUEUE)

    def depth(self) -> int:
        with app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return int(channel._size(QUEUE))  # kombu's virtual transports have no public way

    def close(self) -> None:
        pass


def open_doorbell(url: str) -> Doorbell:
    return MemoryDoorbell() if url.startswith("memory:") else RabbitDoorbell(url)


def _body(step: int) -> bytes:
    # Celery's message protocol 2: args, kwargs, embed.
    return json.dumps([[step], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()


def _properties() -> pika.BasicProperties:
    headers = {"task": TASK, "id": str(uuid.uuid4()), "lang": "py"}
    # Not kept on a disk: the database remembers, and a doorbell need not outlive its broker.
    return pika.BasicProperties("application/json", "utf-8", headers, delivery_mode=1)
