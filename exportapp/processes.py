"""Signs of life: each dispatcher and worker process keeps one row that says when it was last seen."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import Error as DatabaseError

from exportapp.lifecycle import now
from exportapp.models import Process
from exportapp.origins import process_name

FORGOTTEN = timedelta(hours=1)


def sign_of_life(kind: str, facts: dict[str, Any]) -> None:
    """Writes when this process was seen, with what it says of itself."""
    at = now()
    row = {"kind": kind, "seen_at": at, "facts": facts}
    Process.objects.update_or_create(
        name=f"{kind} {process_name()}", defaults=row, create_defaults={**row, "started_at": at}
    )


def sign_off(kind: str) -> None:
    """Takes this process's row away as it ends in order, so that only what died stays to be noticed."""
    with suppress(DatabaseError):
        Process.objects.filter(name=f"{kind} {process_name()}").delete()


def forget_the_dead() -> None:
    """Drops processes that were not seen for long; an hour leaves an operator time to notice."""
    Process.objects.filter(seen_at__lt=now() - FORGOTTEN).delete()
