"""The heartbeat: one thread a process extends the leases of all steps that run in it, writes their progress, and kills
the query of a step that is to stop: because its lease is gone, or the worker is to end. It also gives the sign of life."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connections

from exportapp import lifecycle
from exportapp.celery import draining
from exportapp.engine.errors import LeaseLost
from exportapp.models import Step
from exportapp.processes import sign_of_life, sign_off

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0
SILENT_SECONDS = 10.0


class Killable(Protocol):
    def kill(self) -> None: ...


class Pulse:
    """One running step, shared between its own thread and the heart."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.rows = 0
        self.bytes = 0
        self._written = (0, 0)
        self._beaten = self._moved = time.monotonic()
        self._lost = threading.Event()
        self._reader: Killable | None = None
        self.interrupted = False

    def reading(self, reader: Killable) -> None:
        """Names the reader that is to be killed when the step is to stop."""
        self._reader = reader
        self.check()

    def progress(self, rows: int, size: int) -> None:
        """Notes the progress of a step. Raises LeaseLost when it is not this worker's any more."""
        if (rows, size) != (self.rows, self.bytes):
            self.rows, self.bytes, self._moved = rows, size, time.monotonic()
        self.check()

    def check(self) -> None:
        if self.lost:
            raise LeaseLost

    @property
    def lost(self) -> bool:
        """True when the step was taken away, or could be by now: no beat reached the database for too long."""
        return self._lost.is_set() or time.monotonic() - self._beaten > settings.SELF_STOP_SECONDS

    def give_up_if_stalled(self, at: float) -> None:
        """Lets go of a step that has not moved for very long: beats alone would hold it for ever."""
        if not self._lost.is_set() and at - self._moved > settings.STALL_SECONDS:
            log.error("step %s has not moved for %.0f s and is given up", self.step.pk, at - self._moved)
            self._lose()

    def interrupt(self) -> None:
        """Ends a query that gives no row, now or any more: its step would learn only with the next that the worker is to
        end."""
        silent = not self.rows or time.monotonic() - self._moved > SILENT_SECONDS
        if self._reader and silent and not self.interrupted:
            self.interrupted = True
            self._reader.kill()

    def due(self, at: float) -> bool:
        if self._lost.is_set():
            return False
        moved = (self.rows, self.bytes) != self._written
        return moved or at - self._beaten >= settings.BEAT_SECONDS

    def beat(self) -> None:
        began, written = time.monotonic(), (self.rows, self.bytes)
        try:
            if lifecycle.beat(self.step, *written):
                self._beaten, self._written = began, written
                return
        except DatabaseError as error:
            log.warning("a heartbeat did not reach the database: %s", error)
            if not self.lost:
                return
        self._lose()

    def _lose(self) -> None:
        self._lost.set()
        if self._reader:
            self._reader.kill()


def _beat(pulse: Pulse, at: float) -> None:
    try:
        pulse.give_up_if_stalled(at)
        if pulse.due(at):
            pulse.beat()
        if draining():
            pulse.interrupt()
    except Exception:  # such as a reader that its own thread closes just now; the other steps live on this thread too
        log.exception("a heartbeat of step %s failed", pulse.step.pk)


class Heart:
    """The heartbeat thread of this process; started at its first use, and again in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pulses: set[Pulse] = set()
        self._process = 0
        self._signed = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        with self._lock:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._pulses = set()
                self._signed = 0.0
                self._stopped = threading.Event()
                self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ends the thread, if it runs in this process."""
        if self._process == os.getpid():
            self._stopped.set()
            self._thread.join(timeout=2)

    @contextmanager
    def beating(self, step: Step) -> Iterator[Pulse]:
        """Keeps the step's lease alive while the block runs."""
        self.start()
        pulse = Pulse(step)
        with self._lock:
            self._pulses.add(pulse)
        try:
            yield pulse
        finally:
            with self._lock:
                self._pulses.discard(pulse)

    def _run(self) -> None:
        while not self._stopped.wait(PROGRESS_SECONDS):
            try:
                self._round()
            except Exception:  # without this thread every step of this process would stop itself
                log.exception("the heart goes on after an error")
        sign_off("worker")
        connections.close_all()

    def _round(self) -> None:
        close_old_connections()
        with self._lock:
            pulses = list(self._pulses)
        at = time.monotonic()
        for pulse in pulses:
            _beat(pulse, at)
        if at - self._signed >= settings.BEAT_SECONDS and self._sign(len(pulses)):
            self._signed = at

    def _sign(self, running: int) -> bool:
        """Whether the sign of life reached the database: after an outage it is to be there before the next sweep."""
        try:
            sign_of_life("worker", {"steps": running})
            return True
        except DatabaseError as error:
            log.warning("the sign of life did not reach the database: %s", error)
            return False


HEART = Heart()
