"""Sends a finished file: from the local store with ranges, so that a broken download resumes, or by a signed link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.utils.http import content_disposition_header

from exportapp import storage
from exportapp.models import Export

BLOCK = 1 << 18


def send(request: HttpRequest, export: Export) -> HttpResponseBase:
    """The response for a ready export's file. Raises Http404 when the file is gone."""
    if link := storage.link(export):
        response: HttpResponseBase = HttpResponseRedirect(link)
    elif path := storage.local_path(export):
        response = _local(request, export, path)
    else:
        raise Http404
    response["Cache-Control"] = "no-store, private"
    return response


def starts_at_the_beginning(request: HttpRequest) -> bool:
    """Whether this request fetches the file anew, rather than a later part of it or its size alone."""
    later = re.fullmatch(r"bytes=([1-9]\d*-\d*|-\d+)", request.headers.get("Range", ""))
    return request.method == "GET" and not later


def _local(request: HttpRequest, export: Export, path: Path) -> HttpResponseBase:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise Http404 from None
    size = path.stat().st_size
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
