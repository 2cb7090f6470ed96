"""Sends a finished file: from the local store with ranges, so that a broken download resumes, or by a signed link;
and notes who got it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import BinaryIO

from django.contrib.auth.models import User
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.utils.http import content_disposition_header

from exportapp import lifecycle, storage
from exportapp.models import Event, Export
from exportapp.origins import origin

log = logging.getLogger(__name__)

BLOCK = 1 << 18


class FileDamaged(Exception):
    """What the store has under the export's name is not the file that was made, or nothing is there."""


def send(request: HttpRequest, export: Export) -> HttpResponseBase:
    """The response for a ready export's file. Raises FileDamaged when the store has not what was made."""
    if (size := storage.store().size(export.file_name)) != export.file_bytes:
        log.error("export %s: %s has %s bytes of %s", export.pk, export.file_name, size, export.file_bytes)
        raise FileDamaged
    if link := storage.link(export):
        response: HttpResponseBase = HttpResponseRedirect(link)
    else:
        response = _local(request, export)
    response["Cache-Control"] = "no-store, private"
    return response


def note(request: HttpRequest, response: HttpResponseBase, export: Export, person: User) -> None:
    """Keeps in the history that the person got the file, or any part of it, or a link, which opens the whole."""
    link = isinstance(response, HttpResponseRedirect)
    content = request.method == "GET" and isinstance(response, StreamingHttpResponse)
    if link or (content and not _noted_lately(export, person)):
        lifecycle.note_download(export, person)


def _noted_lately(export: Export, person: User) -> bool:
    """Whether the last hour has it already: a download that resumes, or takes many parts at once, is one."""
    since = lifecycle.now() - timedelta(hours=1)
    lately = Event.objects.filter(export=export, kind="downloaded", actor=person, origin=origin(), at__gt=since)
    return lately.exists()


def _local(request: HttpRequest, export: Export) -> HttpResponseBase:
    path = storage.local_path(export)
    try:
        file = path.open("rb") if path else None
    except FileNotFoundError:  # it has expired since we looked
        file = None
    if file is None:
        raise Http404
    size = export.file_bytes or 0
    etag = f'"{export.receipt["sha256"]}"' if export.receipt else ""
    wanted = _range(request, size, etag)
    if wanted is None:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    start, end = wanted
    partial = (start, end) != (0, size)
    response = StreamingHttpResponse(_Part(file, start, end), status=206 if partial else 200)
    response["Content-Type"] = export.content_type
    response["Content-Length"] = str(end - start)
    response["Content-Disposition"] = content_disposition_header(True, storage.download_name(export)) or "attachment"
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    if partial:
        response["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return response


def _range(request: HttpRequest, size: int, etag: str) -> tuple[int, int] | None:
    """The bytes asked for as [start, end); all of them for what is no single range; None when it lies outside.

    RFC 9110: an unknown unit or a malformed range is ignored (14.2), and so is one whose If-Range does not hold (13.1.5).
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("Range", ""))
    holds = request.headers.get("If-Range", etag) == etag
    if not match or not holds or match.group() == "bytes=-":
        return 0, size
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return None
    return (start, end) if end > start else (0, size)


class _Part:
    """The bytes [start, end) of an open file, which the response closes even when nobody has read it.

    The file stays readable through its handle even when it expires and is deleted meanwhile.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        left = self._end - self._file.seek(self._start)
        while left and (block := self._file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
