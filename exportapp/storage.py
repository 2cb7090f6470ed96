"""Where an export's files are: names, links and deletion. Names hold ids and fences alone, never a person's text."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

from django.conf import settings
from django.utils.http import content_disposition_header

from exportapp.engine.errors import ExportError
from exportapp.engine.sinks import open_store
from exportapp.engine.sinks.base import Store
from exportapp.engine.sinks.local import LocalStore
from exportapp.models import Export, ExportState, Step


@lru_cache(maxsize=4)
def _open(url: str) -> Store:
    return open_store(url)


def store_url() -> str:
    """The store's URL with its endpoint, as the engine understands it; it holds no credentials."""
    if settings.STORAGE_URL.startswith("s3:") and settings.S3_ENDPOINT:
        return f"{settings.STORAGE_URL}?{urlencode({'endpoint': settings.S3_ENDPOINT})}"
    url: str = settings.STORAGE_URL
    return url


def store() -> Store:
    """The configured store."""
    return _open(store_url())


def check_room() -> None:
    """Raises ExportError, which passes when there is room again, before the store is full to the last byte."""
    free = store().free()
    if free is not None and free < settings.MIN_FREE_MB << 20:
        raise ExportError("The export desk's storage is nearly full.", detail=f"{free >> 20} MB are free, "
                          f"EXPORTAPP_MIN_FREE_MB is {settings.MIN_FREE_MB}")  # fmt: skip


def piece_name(step: Step) -> str:
    """Where a chunk writes; the fence keeps two holders of one step apart."""
    return f"{step.export.folder}/pieces/{step.position:020d}-{step.pk}-{step.fence}"


def file_name(step: Step) -> str:
    """Where an assemble step writes the finished file."""
    return f"{step.export.folder}/{step.fence}/file.{step.export.extension}"


def download_name(export: Export) -> str:
    """A name that every file system takes, made of the letters and digits of the export's own."""
    words = re.sub(r"[^\w.-]+", "-", export.name.removesuffix(f".{export.extension}")).strip("-.")[:80]
    return f"{words or export.dataset}.{export.extension}"


def link(export: Export) -> str | None:
    """An address signed for this moment, that the browser fetches the file from; None when we send it ourselves."""
    return store().link(
        export.file_name,
        seconds=settings.LINK_SECONDS,
        disposition=content_disposition_header(True, download_name(export)) or "attachment",
        content_type=export.content_type,
        endpoint=settings.S3_PUBLIC_ENDPOINT,
    )


def local_path(export: Export) -> Path | None:
    """Where the file is on this machine, if it is here."""
    here = store()
    return here.path(export.file_name) if isinstance(here, LocalStore) else None


def tidy(export: Export) -> None:
    """Deletes all that an ended export ever stored, but for the file of a ready one."""
    if export.state != ExportState.READY:
        store().delete(export.folder)
        return
    store().delete(f"{export.folder}/pieces")
    fence = int(export.file_name.split("/")[1])
    for earlier in range(1, fence):  # what was begun by holders that were killed or lost the step
        store().delete(f"{export.folder}/{earlier}")
