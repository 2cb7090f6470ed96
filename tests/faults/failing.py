"""A Celery worker that breaks where it is told to: `celery -A tests.faults.failing worker`.

The product has no hooks for this: its functions are wrapped by their names. An export breaks its worker at the point
that is its own name, and only who arrives there first: a file in the folder EXPORTAPP_FAULTS is the mark of that.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from celery.signals import worker_init

from exportapp.celery import app as app  # what `celery -A` looks for

CLAIM = "exportapp.lifecycle:claim"
RUN = "worker.tasks:run"
PROGRESS = "worker.heart:Pulse.progress"
LOCAL_NAME = "exportapp.engine.sinks.local:rename_durably"
S3_FINISH = "exportapp.engine.sinks.s3:S3Sink.finish"
MAIL = "exportapp.notifications:export_ready"

Here = Callable[..., bool]


def anywhere(*_: Any) -> bool:
    return True


def _some_bytes(pulse: Any, rows: int, size: int) -> bool:
    """In the middle: something, and on S3 a whole part, has been written, and more is to come."""
    return size >= int(os.environ.get("EXPORTAPP_FAULT_BYTES", "1"))


def _made_ready(export: Any, kind: str, *_: Any) -> bool:
    return kind == "ready"


@dataclass(frozen=True)
class Point:
    """Before or after a call of one of these functions, by a step of this kind."""

    kind: str
    when: str
    targets: tuple[str, ...]
    is_here: Here = anywhere


def _after(kind: str, *targets: str, is_here: Here = anywhere) -> Point:
    return Point(kind, "after", targets, is_here)


def _before(kind: str, *targets: str, is_here: Here = anywhere) -> Point:
    return Point(kind, "before", targets, is_here)


POINTS = {
    "plan made": _before("plan", "exportapp.lifecycle:finish_plan"),
    "plan recorded": _after("plan", "exportapp.lifecycle:finish_plan"),
    "claim not committed": _before("plan", "exportapp.lifecycle:_take"),  # of what is next after the plan
    "chunk claimed": _after("chunk", CLAIM),
    "middle of a piece": _after("chunk", PROGRESS, is_here=_some_bytes),
    "piece written without its name": _before("chunk", LOCAL_NAME, S3_FINISH),
    "piece finished": _before("chunk", "exportapp.lifecycle:finish_chunk"),
    "piece recorded": _after("chunk", "exportapp.lifecycle:finish_chunk"),
    "assembly claimed": _after("assemble", CLAIM),
    "middle of the assembly": _after("assemble", PROGRESS, is_here=_some_bytes),
    "file written without its name": _before("assemble", LOCAL_NAME, S3_FINISH),
    "file assembled": _before("assemble", "exportapp.lifecycle:make_ready"),
    "publication not committed": _before("assemble", "exportapp.lifecycle:_tell", is_here=_made_ready),
    "published": _after("assemble", "exportapp.lifecycle:make_ready"),
    "mail claimed": _after("notify", CLAIM),
    "mail not sent": _before("notify", MAIL),
    "mail sent": _before("notify", "exportapp.lifecycle:finish_notify"),
    "mail recorded": _after("notify", "exportapp.lifecycle:finish_notify"),
}

_current: Any = None  # the step that this process claimed last; in a prefork child no other runs beside it
_woken = ""  # the point at which this process was frozen and goes on


@worker_init.connect
def _set_traps(**_: Any) -> None:
    for target in sorted({RUN} | {target for point in POINTS.values() for target in point.targets}):
        _wrap(target)


def _wrap(target: str) -> None:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    real = getattr(owner, name)

    @wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        global _current
        _arrive(target, "before", args)
        try:
            result = real(*args, **kwargs)
        except BaseException:
            if target == CLAIM:
                _leave_word()
            raise
        if target == CLAIM:
            _current = result
        _arrive(target, "after", args)
        if target == RUN:
            _leave_word()
        return result

    setattr(owner, name, wrapped)


def _arrive(target: str, when: str, args: tuple[Any, ...]) -> None:
    global _woken
    name = _current.export.name if _current else ""
    point = POINTS.get(name)
    if not point or target not in point.targets or (point.kind, point.when) != (_current.kind, when):
        return
    if point.is_here(*args) and _leave_mark(name):
        os.kill(os.getpid(), signal.Signals[os.environ["EXPORTAPP_FAULT_SIGNAL"]])
        _woken = name


def _leave_word() -> None:
    """Says that who was frozen here has gone on, and is done with what it was about."""
    if _woken:
        (Path(os.environ["EXPORTAPP_FAULTS"]) / f".over {_woken}").touch()


def _leave_mark(name: str) -> bool:
    """Whether nobody was at this point before; the mark says which process is the first."""
    marks = Path(os.environ["EXPORTAPP_FAULTS"])
    with tempfile.NamedTemporaryFile("w", dir=marks, prefix=".", delete=False) as file:
        file.write(str(os.getpid()))
    try:
        os.link(file.name, marks / name)  # with its content, or not at all
    except FileExistsError:
        return False
    finally:
        os.unlink(file.name)
    return True
