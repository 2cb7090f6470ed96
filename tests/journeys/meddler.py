"""A bad post office: carries doorbells from the dispatcher's vhost to the workers', loses some, doubles some, and
delivers the rest in any order."""

from __future__ import annotations

import random
import threading
from types import TracebackType
from typing import Self

import pika
from pika.adapters.blocking_connection import BlockingChannel

from exportapp.celery import QUEUE, QUEUE_ARGUMENTS

ROUND_SECONDS = 0.3


class Meddler:
    """Runs in a thread between two vhosts. `lost` and `doubled` count what it did."""

    def __init__(self, collects_at: str, delivers_to: str, seed: int) -> None:
        self.lost = self.doubled = 0
        self._from, self._to = collects_at, delivers_to
        self._random = random.Random(seed)
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="meddler")

    def _run(self) -> None:
        try:
            with _connection(self._from) as post_box, _connection(self._to) as letter_box:
                collected, delivered = _channel(post_box), _channel(letter_box)
                while not self._ending.wait(ROUND_SECONDS):
                    self._round(collected, delivered)
        except Exception as error:
            self._error = error

    def _round(self, collected: BlockingChannel, delivered: BlockingChannel) -> None:
        bag: list[tuple[pika.BasicProperties, bytes]] = []
        while (got := collected.basic_get(QUEUE, auto_ack=True))[0]:
            bag += [(got[1], got[2])] * self._copies()
        self._random.shuffle(bag)
        for properties, body in bag:
            delivered.basic_publish("", QUEUE, body, properties)

    def _copies(self) -> int:
        # The first one is lost and the second doubled whatever the dice say, so that no run is harmless.
        copies = {(0, 0): 0, (1, 0): 2}.get((self.lost, self.doubled), self._random.choice((0, 0, 1, 2, 2)))
        self.lost += copies == 0
        self.doubled += copies == 2
        return copies

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def _connection(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def _channel(connection: pika.BlockingConnection) -> BlockingChannel:
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments=QUEUE_ARGUMENTS)
    return channel
