"""Fetches an export only for those who may see it. For everybody else it does not exist."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest

from exportapp.datasets import still_allowed
from exportapp.models import Export


def signed_in(request: HttpRequest) -> User:
    """The person behind a request that passed `login_required`."""
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
