"""Fetches an export only for those who may see it. For everybody else it does not exist."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase

from exportapp.datasets import still_allowed
from exportapp.models import Export

View = Callable[..., HttpResponseBase]


def for_people(view: View) -> View:
    """Lets in who is signed in. A page that polls is told to load itself anew: swapped in, the sign-in would be lost."""
    guarded: View = login_required(view)

    @wraps(view)
    def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.headers.get("HX-Request") and not request.user.is_authenticated:
            return HttpResponse(status=204, headers={"HX-Refresh": "true"})
        return guarded(request, *args, **kwargs)

    return guard


def signed_in(request: HttpRequest) -> User:
    """The person behind a request that passed `for_people`."""
    if not isinstance(request.user, User):
        raise Http404
    return request.user


def is_operator(person: User) -> bool:
    """Operators watch everybody's exports; the right is Django's own, so that the admin decides who has it."""
    return person.is_staff and person.has_perm("exportapp.view_export")


def export_for(person: User, export_id: UUID) -> Export:
    """The export, if the person owns it or is an operator. Raises Http404."""
    export = Export.objects.select_related("owner").filter(pk=export_id).first()
    if export is None or not (export.owner_id == person.pk or is_operator(person)):
        raise Http404
    return export


def may_stop(person: User, export: Export) -> bool:
    """Owners may, and operators who may change exports: the same right that the admin asks for."""
    return export.owner_id == person.pk or (is_operator(person) and person.has_perm("exportapp.change_export"))


def export_to_stop_for(person: User, export_id: UUID) -> Export:
    """The export, if the person may stop it. Raises Http404."""
    export = export_for(person, export_id)
    if not may_stop(person, export):
        raise Http404
    return export


def own_export_for(person: User, export_id: UUID) -> Export:
    """The person's own export, for what only its owner does. Raises Http404."""
    export = export_for(person, export_id)
    if export.owner_id != person.pk:
        raise Http404
    return export


def file_for(person: User, export_id: UUID) -> Export:
    """The export whose file the person may fetch now: its owner only while the right to the dataset lasts."""
    export = export_for(person, export_id)
    if export.owner_id == person.pk and not still_allowed(export):
        raise Http404
    return export
