"""The Celery app. Messages are doorbells: acknowledged before the work, kept nowhere, and replaceable at any time;
what recovers lost work is the lease in the database (docs/decisions/0001-the-database-is-the-truth.md)."""

from __future__ import annotations

import mmap
import os
from typing import Any

from celery import Celery
from celery.signals import worker_shutting_down
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "exportapp.settings")

from django.conf import settings

QUEUE = "exports"
# A doorbell older than this has been rung again. pika and kombu declare the queue alike, or RabbitMQ refuses one.
QUEUE_ARGUMENTS: dict[str, Any] = {"x-message-ttl": 60_000, "x-max-length": 10_000}
TASK = "worker.tasks.work"

app = Celery("exportapp", broker=settings.BROKER_URL)
app.conf.update(
    imports=("worker.tasks",),
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, durable=True, queue_arguments=QUEUE_ARGUMENTS)],
    task_create_missing_queues=False,
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=20,
    worker_max_memory_per_child=400_000,  # KiB; acts after a task
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_consumer="worker.consumer:Consumer",
    worker_hijack_root_logger=False,
    worker_soft_shutdown_timeout=30,
    broker_heartbeat=15,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_acquire_timeout=5,
    # kombu's default polls once a second, which cost two seconds a doorbell in memory.
    broker_transport_options={"polling_interval": 0.05} if settings.BROKER_URL.startswith("memory:") else {},
    timezone="UTC",
)

# One byte that a pool's children share with their parent. A multiprocessing.Event would do, but holds a lock that
# a killed child never gives back.
_draining = mmap.mmap(-1, 1)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _draining[0] = 1


def draining() -> bool:
    """True once this worker was told to end: steps then hand themselves back at their next batch."""
    return _draining[0] == 1
