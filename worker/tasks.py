"""The one Celery task: a doorbell was rung, so claim a step, do it and record it, while the slice lasts."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from celery.concurrency import get_implementation
from celery.concurrency.thread import TaskPool
from celery.signals import worker_init, worker_process_init, worker_process_shutdown, worker_ready, worker_shutdown
from django.conf import settings
from django.core.management.base import SystemCheckError
from django.db import Error as DatabaseError
from django.db import connections

from exportapp import datasets, figures, lifecycle
from exportapp.celery import app, draining
from exportapp.checks import check_settings
from exportapp.engine.errors import ExportError, Interrupted, LeaseLost
from exportapp.models import Step, StepKind
from exportapp.origins import process_name
from worker.heart import HEART
from worker.steps import STEPS

log = logging.getLogger(__name__)

MISTAKES = 3  # attempts at a step that fails in a way nobody foresaw


@app.task(name="worker.tasks.work", ignore_result=True)
def work(hint: Any = None) -> None:
    """Runs steps until none may run or the slice is over. `hint` is the step that was rung for, and only a hint."""
    hinted = hint if isinstance(hint, int) else None
    ends, idle = time.monotonic() + settings.SLICE_SECONDS, True
    try:
        while not draining() and (step := lifecycle.claim(process_name(), hinted)):
            run(step)
            hinted, idle = None, False
            if time.monotonic() >= ends:
                break
        if idle and not draining():
            figures.refresh_one(draining)
    except DatabaseError as error:  # the dispatcher rings again when it is back
        log.error("the app database does not answer: %s", error)


def run(step: Step) -> None:
    """Does a claimed step, whatever happens to it."""
    try:
        with HEART.beating(step) as pulse:
            if step.kind != StepKind.NOTIFY and not datasets.still_allowed(step.export):
                lifecycle.cancel(step.export, None, lifecycle.FORBIDDEN)
                return
            STEPS[step.kind](step, pulse)
    except LeaseLost:
        log.warning("step %s was taken away under fence %s", step.pk, step.fence)
    except Exception as error:
        if pulse.lost:
            log.warning("step %s, which is no longer held, ended with %r", step.pk, error)
        else:
            _give_up(step, Interrupted() if pulse.interrupted else error)


def _give_up(step: Step, error: Exception) -> None:
    try:
        if isinstance(error, Interrupted):
            lifecycle.hand_back(step)
        elif isinstance(error, ExportError):
            lifecycle.fail_step(step, error)
        elif isinstance(error, DatabaseError):
            log.warning("step %s lost the app database: %s", step.pk, error)
            lifecycle.fail_step(step, ExportError("The export desk's own database did not answer.", detail=str(error)))
        else:
            log.exception("step %s failed", step.pk)
            mistake = step.attempts >= MISTAKES  # most likely ours: waiting longer will not mend it
            sentence = "Something went wrong on our side."
            lifecycle.fail_step(step, ExportError(sentence, permanent=mistake, detail=traceback.format_exc()))
    except LeaseLost:
        log.warning("step %s was taken away under fence %s", step.pk, step.fence)


@worker_init.connect
def _settings_are_right(sender: Any, **_: Any) -> None:
    if settings.BROKER_URL.startswith("memory:") and not issubclass(get_implementation(sender.pool_cls), TaskPool):
        raise SystemExit("EXPORTAPP_BROKER_URL names no broker: run `manage.py work`, which is all in one process.")
    try:
        check_settings()
    except SystemCheckError as error:
        raise SystemExit(str(error)) from None  # any other exception of a signal's receiver is logged, and forgotten
    connections.close_all()  # the pool's children are to inherit none


@worker_process_init.connect
def _child_is_alive(**_: Any) -> None:
    HEART.start()


@worker_ready.connect
def _process_is_alive(sender: Any, **_: Any) -> None:
    # Only where steps run in this very process: a prefork parent must have no threads when it forks.
    if isinstance(sender.pool, TaskPool):
        HEART.start()


@worker_process_shutdown.connect
@worker_shutdown.connect
def _process_ends(**_: Any) -> None:
    HEART.stop()
