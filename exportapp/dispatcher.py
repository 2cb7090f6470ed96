"""Rings for work that waits, takes back what died, expires and tidies what is old. Any number of them may run.

Threads apart: any may hang with its broker, store or source, but sweeping, which talks to the database alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.db.models import Q

from exportapp import figures, lifecycle
from exportapp.doorbell import Doorbell, Refused, Unreachable, open_doorbell
from exportapp.lifecycle import now
from exportapp.models import Step, StepState
from exportapp.orphans import end_orphan_queries
from exportapp.processes import forget_the_dead, sign_of_life, sign_off
from exportapp.retention import tidy

log = logging.getLogger(__name__)

RING_SECONDS = 0.2
SIGN_SECONDS = 5.0
HANGS_SECONDS = 10.0
RINGS_AT_ONCE = 200
LONGEST_PAUSE = 30.0


def due_steps() -> list[int]:
    """Ids of waiting steps that may run and were not rung for lately, oldest export first."""
    at = now()
    quiet = Q(rung_at=None) | Q(rung_at__lt=at - timedelta(seconds=settings.RING_AGAIN_SECONDS))
    waiting = Step.objects.filter(quiet, state=StepState.WAITING, not_before__lte=at)
    return list(waiting.order_by("export__created_at", "position", "pk").values_list("pk", flat=True)[:RINGS_AT_ONCE])


def ring_due(bell: Doorbell) -> int:
    """Rings for every due step and notes when. Raises Unreachable, and then notes nothing: all are rung again."""
    if steps := due_steps():
        bell.ring(steps)
        Step.objects.filter(pk__in=steps).update(rung_at=now())
    return len(steps)


def sweep() -> None:
    """Does what time makes due in the database: takes lost steps back, lets old exports expire."""
    if lost := lifecycle.take_back_lost():
        log.warning("took %d steps back from workers that fell silent", lost)
    lifecycle.expire_due()
    forget_the_dead()
    if stopped := lifecycle.stop_forbidden():
        log.warning("stopped %d exports whose owners may not export them any more", stopped)


class Dispatcher:
    """The threads of a dispatcher process, from `start` until `stop`."""

    def __init__(self) -> None:
        self._ending = threading.Event()
        self._facts: dict[str, object] = {"broker": "not tried yet", "waiting": None}
        rounds: list[tuple[Callable[[], object], float]] = [(self._ring, RING_SECONDS), (self._sign, SIGN_SECONDS)]
        rounds += [(work, settings.SWEEP_SECONDS) for work in (self._sweep, tidy, end_orphan_queries)]
        self._threads = [threading.Thread(target=self._repeat, args=one, daemon=True) for one in rounds]
        self._bell = open_doorbell(settings.BROKER_URL)
        self._pause, self._refused = 0.0, 0
        self._answered, self._swept = time.monotonic(), True
        self._reminder = figures.Reminder()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        ends = time.monotonic() + 5
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        sign_off("dispatcher")

    def _ring(self) -> None:
        try:
            ring_due(self._bell)
            if hints := self._reminder.due():
                self._bell.ring(hints)
            self._facts = {"broker": "reachable", "waiting": self._bell.depth()}  # asking also answers its heartbeats
            self._pause = 0.0
        except Unreachable as error:
            if not self._pause:
                log.error("%s; ringing again when it does", error)
            self._refused += isinstance(error, Refused)
            self._facts = {"broker": str(error), "waiting": None}
            self._pause = min(max(1.0, self._pause * 2), LONGEST_PAUSE)
            self._ending.wait(self._pause)
        finally:
            self._answered = time.monotonic()

    def _sweep(self) -> None:
        if not self._swept and now():  # who lost the database as well is to say first that he is alive
            self._ending.wait(settings.BEAT_SECONDS)
        self._swept = False
        sweep()
        self._swept = True

    def _sign(self) -> None:
        facts = self._facts | ({"refused": self._refused} if self._refused else {})
        if not self._pause and time.monotonic() - self._answered > HANGS_SECONDS:  # pika notices after 30 s
            facts |= {"broker": "the broker hangs", "waiting": None}
        sign_of_life("dispatcher", facts)

    def _repeat(self, work: Callable[[], None], seconds: float) -> None:
        while not self._ending.is_set():
            try:
                close_old_connections()
                work()
            except DatabaseError as error:
                log.error("the app database does not answer: %s", error)
                self._ending.wait(1)
            except Exception:
                log.exception("the dispatcher goes on after an error")
                self._ending.wait(1)
            self._ending.wait(seconds)
        connection.close()
