"""Compares the store with the rows: what is kept for nobody, and what is missing. It changes nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from exportapp import storage
from exportapp.models import Export, ExportState

FOREIGN = "No export has such a folder"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; `leftover` names a file that may be deleted."""

    text: str
    leftover: str = ""


def audit() -> Iterator[Finding]:
    """What does not fit together, missing files first. Raises ExportError when the store does not answer."""
    yield from _missing()
    yield from _leftovers()


def _missing() -> Iterator[Finding]:
    for export in Export.objects.filter(state=ExportState.READY).order_by("created_at").iterator():
        size = storage.store().size(export.file_name)
        if size == export.file_bytes or not _still_ready(export):
            continue
        told = "is gone" if size is None else f"has {size:,} bytes and not {export.file_bytes:,}"
        yield Finding(f"The file of {export.pk} ({export.name}) {told}: {export.file_name}")


def _still_ready(export: Export) -> bool:
    return Export.objects.filter(pk=export.pk, state=ExportState.READY).exists()


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
    folder = name.partition("/")[0]
    try:
        export = Export.objects.filter(pk=UUID(folder)).first()
    except ValueError:
        return FOREIGN
    if export is None:
        return "Its export's row is gone"
    if export.unfinished or not export.tidied:  # tidying takes it away
        return ""
    return "" if name == export.file_name and export.state == ExportState.READY else "Its export has ended without it"
