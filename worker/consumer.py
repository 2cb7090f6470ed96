"""Celery's consumer, made to outlive a message that is none and to end beside a broker that hangs.

Celery's own code stumbles over a message without an id, or with a body that is no call, and then the whole worker ends,
with the steps that run in it, at every start anew. And at its end it says goodbye to the broker and waits for the answer
without a limit (amqp reads from a socket that has no timeout)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

log = logging.getLogger(__name__)

GOODBYE_SECONDS = 1.0


class Consumer(CeleryConsumer):
    """Throws away what cannot be understood; the dispatcher rings again for what was meant."""

    def stop(self) -> None:
        if self.connection and self.connection.connected:
            sock = getattr(self.connection.connection, "sock", None)  # the transport in memory has none
            if sock:
                sock.settimeout(GOODBYE_SECONDS)
        super().stop()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        # Celery's own logs the error with the whole body, however long that is.
        log.error("threw away a message that cannot be decoded, of %d bytes", len(message.body))
        message.ack()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        understand = super().create_task_handler(*args, **kwargs)

        def handle(message: Any) -> None:
            try:
                understand(message)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                log.error("threw away a message that is no doorbell: %r", error)
                if not message.acknowledged:
                    message.reject()

        return handle
