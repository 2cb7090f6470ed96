"""Signals that end a command: heard once, at a moment when what it leaves behind is known."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextmanager
def ended_by_signals(for_good: bool) -> Iterator[None]:
    """Within, signals that end it raise SystemExit, once, with the code that a shell has for them.

    `for_good`, they are ignored afterwards: the exit code is to be that of what has happened.
    """

    def end(number: int, frame: object) -> None:
        ignore_signals()
        raise SystemExit(128 + number)

    before = {each: signal.getsignal(each) for each in ENDING}
    try:
        for each, handler in before.items():
            if handler != signal.SIG_IGN:  # nohup and a shell's background have some ignored, and mean it
                signal.signal(each, end)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_IGN if for_good else handler)


def ignore_signals() -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def held_back() -> Iterator[None]:
    """Within, signals wait; threads that are begun here leave them to this one for good, as they inherit the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
