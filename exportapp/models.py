"""The tables: columns, constraints and facts derived from them. What changes a state is in lifecycle.py alone."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.urls import reverse

from exportapp.engine import specs
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS


class ExportState(models.TextChoices):
    QUEUED = "queued", "Waiting"
    RUNNING = "running", "Running"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "Expired"


class StepState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"
    DROPPED = "dropped", "Dropped"


class StepKind(models.TextChoices):
    PLAN = "plan", "Plan"
    CHUNK = "chunk", "Chunk"
    ASSEMBLE = "assemble", "Assemble"
    NOTIFY = "notify", "Notify"


UNFINISHED = (ExportState.QUEUED, ExportState.RUNNING)


class Export(models.Model):
    """One recipe asked for by one owner."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="exports")
    request_key = models.CharField(max_length=64, help_text="The form's token: the same one twice is one export.")
    name = models.CharField(max_length=200)
    dataset = models.CharField(max_length=100)
    source = models.CharField(max_length=100)
    recipe_json = models.JSONField()
    definition = models.JSONField(help_text="The dataset as it was declared when the export was asked for.")
    query_json = models.JSONField(help_text="The recipe against that definition, with the row rule's values.")
    notify = models.BooleanField(default=True)
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="reruns")

    state = models.CharField(max_length=10, choices=ExportState, default=ExportState.QUEUED)
    error = models.TextField(blank=True, help_text="A sentence for the owner.")
    rows_estimated = models.BigIntegerField(null=True)
    rows_exact = models.BooleanField(default=False)
    small = models.BooleanField(default=False)
    chunks_left = models.IntegerField(default=0)

    file_name = models.CharField(max_length=300, blank=True)
    file_rows = models.BigIntegerField(null=True)
    file_bytes = models.BigIntegerField(null=True)
    receipt = models.JSONField(null=True)

    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    tidied = models.BooleanField(default=False, help_text="Nothing but the finished file is left in the store.")

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["owner", "request_key"], name="one_export_a_request")]
        indexes = [
            models.Index(fields=["owner", "-created_at"], name="export_owner"),
            models.Index(fields=["state", "expires_at"], name="export_state"),
            models.Index(fields=["tidied", "finished_at"], name="export_leftovers"),
            models.Index(fields=["dataset", "-finished_at"], name="export_learned"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("export", args=[self.pk])

    @property
    def recipe(self) -> specs.Recipe:
        return specs.from_json(specs.Recipe, self.recipe_json)

    @property
    def query(self) -> specs.Query:
        return specs.from_json(specs.Query, self.query_json)

    @property
    def unfinished(self) -> bool:
        return self.state in UNFINISHED

    @property
    def format_label(self) -> str:
        recipe = self.recipe
        label = FORMATS[recipe.format].label
        return label if recipe.compression == "none" else f"{label}, {COMPRESSIONS[recipe.compression].label}"

    @property
    def extension(self) -> str:
        recipe = self.recipe
        return FORMATS[recipe.format].extension + COMPRESSIONS[recipe.compression].extension

    @property
    def content_type(self) -> str:
        recipe = self.recipe
        return COMPRESSIONS[recipe.compression].content_type or FORMATS[recipe.format].content_type

    @property
    def folder(self) -> str:
        """Everything that this export ever stores is below this name."""
        return str(self.pk)


class Step(models.Model):
    """One claimable piece of an export's work. Only who holds the fence of a running step may write to it."""

    export = models.ForeignKey(Export, models.CASCADE, related_name="steps")
    kind = models.CharField(max_length=10, choices=StepKind)
    position = models.BigIntegerField(default=0, help_text="Pieces are joined in this order.")
    range_json = models.JSONField(null=True, help_text="The key range of a chunk.")

    state = models.CharField(max_length=10, choices=StepState, default=StepState.WAITING)
    fence = models.BigIntegerField(default=0)
    attempts = models.IntegerField(default=0)
    crashes = models.IntegerField(default=0)
    not_before = models.DateTimeField()
    rung_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=200, blank=True)
    error = models.TextField(blank=True, help_text="What it waits for or failed of, with details for operators.")

    rows_estimated = models.BigIntegerField(null=True)
    rows_done = models.BigIntegerField(default=0)
    bytes_done = models.BigIntegerField(default=0)
    result = models.JSONField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["position", "pk"]
        indexes = [
            models.Index(fields=["state", "not_before"], name="step_waiting"),
            models.Index(fields=["state", "lease_until"], name="step_lease"),
            models.Index(fields=["export", "position"], name="step_order"),
            models.Index(fields=["started_at"], name="step_started"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def key_range(self) -> specs.KeyRange:
        return specs.from_json(specs.KeyRange, self.range_json or {})


class AppendOnly(models.QuerySet["Event"]):
    """Events are history: nothing changes them, and they go with their export alone."""

    def update(self, **kwargs: Any) -> int:
        raise TypeError("events are append-only")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("events are append-only")


class Event(models.Model):
    """Who did what to an export, when and why. Written in the transaction of the change, and never again."""

    export = models.ForeignKey(Export, models.CASCADE, related_name="events")
    step = models.ForeignKey(Step, models.CASCADE, null=True, related_name="events")
    at = models.DateTimeField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    origin = models.CharField(
        max_length=200, blank=True, db_default="", help_text="The address or process that it came from."
    )
    kind = models.CharField(max_length=30)
    text = models.TextField(help_text="A sentence for the owner.")
    detail = models.TextField(blank=True, help_text="For operators.")

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["export", "kind"], name="event_kind")]

    def __str__(self) -> str:
        return self.text

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("events are append-only")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("events are append-only")


class Gate(models.Model):
    """The one row that claims lock, so that only one decides at a time who is next. A migration makes it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)

    def __str__(self) -> str:
        return "gate"


class Process(models.Model):
    """The last sign of life of a dispatcher or worker, and what it said of itself."""

    name = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=20)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    facts = models.JSONField(default=dict)

    class Meta:
        ordering = ["kind", "name"]
        verbose_name = "sign of life"
        verbose_name_plural = "signs of life"

    def __str__(self) -> str:
        return self.name


class PersonAttribute(models.Model):
    """A fact about a person that row rules compare with, such as country = DE. Several values mean any of them."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="export_attributes")
    name = models.CharField(max_length=60)
    value = models.CharField(max_length=200)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["person", "name", "value"], name="one_attribute_value")]

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"


class DatasetFigures(models.Model):
    """What a worker last counted of a dataset, for estimates and pages. Only who holds the lease may write to it.

    `fingerprint` is of the definition that was looked at last; times are texts as the source stores them.
    """

    dataset = models.CharField(max_length=100, unique=True)
    fingerprint = models.CharField(max_length=64, blank=True)
    computed_at = models.DateTimeField(null=True)
    rows = models.BigIntegerField(null=True)
    rows_exact = models.BooleanField(default=False)
    oldest = models.CharField(max_length=40, blank=True)
    newest = models.CharField(max_length=40, blank=True)
    days = models.JSONField(default=list, help_text="Pairs of a day and its rows, in order; empty where not counted.")
    seconds = models.FloatField(null=True, help_text="What the last look took.")
    error = models.TextField(blank=True, help_text="Why the last look failed, for operators.")
    tried_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)

    class Meta:
        ordering = ["dataset"]
        verbose_name_plural = "dataset figures"

    def __str__(self) -> str:
        return self.dataset
