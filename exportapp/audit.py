"""Compares the store with the rows: what is kept for nobody, and what is missing. It changes nothing by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from exportapp import storage
from exportapp.lifecycle import replace_dead_connection
from exportapp.models import Export, ExportState

FOREIGN = "This is no export's file"

# As storage.piece_name and storage.file_name write them, to the letter: in a bucket with other tenants somebody else's
# folder may well be named by a UUID, too, or by 32 hexadecimal digits that UUID() would take for one.
_OURS = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/"
    r"(?:pieces/[0-9]{20}-[0-9]+-[0-9]+|[0-9]+/file\.[a-z0-9]+(?:\.[a-z0-9]+)?)"
)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; `leftover` names a file that may be deleted."""

    text: str
    leftover: str = ""


def audit() -> Iterator[Finding]:
    """What does not fit together, missing files first. Raises ExportError when the store does not answer."""
    yield from _missing()
    yield from _leftovers()


def _exports() -> QuerySet[Export]:
    """All exports, over a connection that works: the store may have been asked for longer than a server keeps one."""
    replace_dead_connection()
    return Export.objects.all()


def _missing() -> Iterator[Finding]:
    # The keys at once: a cursor would have to outlive its connection.
    for key in list(_ready().order_by("created_at").values_list("pk", flat=True)):
        if export := _ready().filter(pk=key).first():
            yield from _fault_of(export)


def _ready() -> QuerySet[Export]:
    return _exports().filter(state=ExportState.READY)


def _fault_of(export: Export) -> Iterator[Finding]:
    size = storage.store().size(export.file_name)
    # Looked at again: while the store was asked, it may have expired.
    if size == export.file_bytes or not _ready().filter(pk=export.pk).exists():
        return
    told = "is gone" if size is None else f"has {size:,} bytes and not {export.file_bytes:,}"
    yield Finding(f"The file of {export.pk} ({export.name}) {told}: {export.file_name}")


def _leftovers() -> Iterator[Finding]:
    store = storage.store()
    for name in store.names(""):
        # Looked at again: since it was listed, its export may have ended, and been tidied.
        if (reason := _nobodys(name)) and store.size(name) is not None:
            yield Finding(f"{reason}: {name}", "" if reason is FOREIGN else name)
    for name, touched in store.unfinished():
        if reason := _nobodys(name):
            told = f"{reason}, and it was never finished since {touched:%Y-%m-%d %H:%M} UTC: {name}"
            yield Finding(told, "" if reason is FOREIGN else name)


def _nobodys(name: str) -> str:
    """Why nobody needs what is under this name; "" when somebody does."""
    ours = _OURS.fullmatch(name)
    if not ours:
        return FOREIGN
    export = _exports().filter(pk=UUID(ours[1])).first()
    if export is None:
        return "Its export's row is gone"
    if export.unfinished or not export.tidied:  # tidying takes it away
        return ""
    return "" if name == export.file_name and export.state == ExportState.READY else "Its export has ended without it"
