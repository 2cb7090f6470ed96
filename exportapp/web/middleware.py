"""Notes where a request comes from, for the history of what it changes."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from exportapp.origins import coming_from


def note_origin(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    def handle(request: HttpRequest) -> HttpResponseBase:
        with coming_from(f"web {address(request)}"):
            return get_response(request)

    return handle


def address(request: HttpRequest) -> str:
    """The client's address; behind a proxy the last one that it forwards, for what stands before it anybody can write."""
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.BEHIND_PROXY else ""
    return (forwarded.rpartition(",")[2].strip() or request.META.get("REMOTE_ADDR", ""))[:100]
