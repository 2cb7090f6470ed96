"""Where a change comes from: the history keeps it beside who made it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ORIGIN: ContextVar[str] = ContextVar("origin", default="")


def process_name() -> str:
    """This process among all of them: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def origin() -> str:
    """What is named in the history: where the request came from, else this process."""
    return _ORIGIN.get() or process_name()


@contextmanager
def coming_from(words: str) -> Iterator[None]:
    """What is changed in the block comes from there."""
    token = _ORIGIN.set(words)
    try:
        yield
    finally:
        _ORIGIN.reset(token)
