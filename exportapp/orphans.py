"""Ends queries that run at the sources for nobody: after a killed worker or an unheard cancel a server goes on by itself.

No list of queries is kept: each has a comment that names its step and fence, and what is no running step's is ended.
"""

from __future__ import annotations

import logging
import re

from exportapp import datasets
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import end_queries
from exportapp.models import Step, StepState

log = logging.getLogger(__name__)

_COMMENT = re.compile(r"exportapp export=([0-9a-f-]{36}) step=(\d{1,18}) fence=(\d{1,18})")


def comment_for(step: Step) -> str:
    """What marks a step's queries in the process list of its source."""
    return f"exportapp export={step.export_id} step={step.pk} fence={step.fence}"


def end_orphan_queries() -> int:
    """Ends the queries of steps that are not running under that fence. Returns how many."""
    ended = 0
    for source in filter(lambda source: source.url, datasets.catalogue().sources.values()):
        try:
            if count := end_queries(source.url, _is_orphan):
                log.warning("ended %d queries at %s that nobody reads any more", count, source.name)
                ended += count
        except ExportError as error:
            log.warning("could not look for queries at %s: %s", source.name, error)
    return ended


def _is_orphan(comment: str) -> bool:
    found = _COMMENT.fullmatch(comment)
    if not found:
        return False
    export, step, fence = found.groups()
    # A step that this desk does not know is another desk's.
    known = Step.objects.filter(pk=int(step), export_id=export)
    return known.exists() and not known.filter(fence=int(fence), state=StepState.RUNNING).exists()
