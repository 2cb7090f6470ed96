"""Whose turn comes when: how many exports get a worker before another, as lifecycle.claim gives them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Q

from exportapp.models import Step, StepKind, StepState


def places(owner: int, at: datetime) -> tuple[dict[UUID, int], int]:
    """The exports before each of a person's that waits, and before one that would be asked for now, of what may run at `at`.

    Of the person's own the older ones, and of each other person who has no more steps running one for each turn.
    """
    running = Counter(
        Step.objects.filter(export__owner=owner, state=StepState.RUNNING).values_list("export_id", flat=True)
    )
    due = Q(state=StepState.WAITING, not_before__lte=at) & ~Q(kind=StepKind.NOTIFY)
    full = [export for export, count in running.items() if count >= settings.STEPS_PER_EXPORT]  # waits for its own
    own = (
        Step.objects.filter(due, export__owner=owner).exclude(export__in=full).order_by("export__created_at", "export")
    )
    people = Step.objects.exclude(export__owner=owner).order_by().values_list("export__owner_id")
    others = people.filter(due | Q(state=StepState.RUNNING)).annotate(
        waiting=Count("export", filter=due, distinct=True), running=Count("pk", filter=Q(state=StepState.RUNNING))
    )
    rivals = [waiting for _, waiting, busy in others if busy <= running.total()]
    exports = list(dict.fromkeys(own.values_list("export_id", flat=True)))
    before = [place + sum(min(waiting, place + 1) for waiting in rivals) for place in range(len(exports) + 1)]
    return dict(zip(exports, before, strict=False)), before[-1]
