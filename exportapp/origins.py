"""Where a change comes from: the history keeps it beside who made it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

_ORIGIN: ContextVar[str] = ContextVar("origin", default="")


def process_name() -> str:
    """This process among all that ever were: host, a mark of its own, and process id."""
    return f"{socket.gethostname()}#{_mark(os.getpid())}:{os.getpid()}"


@cache
def _mark(process: int) -> str:
    # A container that starts again has the same host name and the same process ids.
    return secrets.token_hex(3)


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
