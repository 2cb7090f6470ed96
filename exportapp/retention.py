"""Deletes from the store what ended exports left there: pieces, open uploads, and files whose time is over."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models import Q

from exportapp import storage
from exportapp.engine.errors import ExportError
from exportapp.lifecycle import now, replace_dead_connection
from exportapp.models import UNFINISHED, Export, ExportState

log = logging.getLogger(__name__)

AT_ONCE = 200


def tidy() -> None:
    """One round: what was cancelled or failed goes at once, and once more when no holder can write any more."""
    # A holder notices the end of its export within a beat; by the end of its lease it writes nothing.
    quiet = Q(finished_at__lt=now() - timedelta(seconds=settings.LEASE_SECONDS))
    ended = Export.objects.filter(tidied=False).exclude(state__in=UNFINISHED)
    for export in ended.filter(quiet | ~Q(state=ExportState.READY)).order_by("finished_at")[:AT_ONCE]:
        try:
            storage.tidy(export)
        except ExportError as error:
            log.warning("could not tidy %s: %s", export.pk, error)
            continue
        replace_dead_connection()
        # Not if it has expired meanwhile: then its file is to go as well.
        ended.filter(quiet, pk=export.pk, state=export.state).update(tidied=True)
