"""The operators' view: everything to be read, nothing to be edited; the actions call the lifecycle."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import Count, Max, Min, Model, Q, QuerySet, Sum
from django.db.models.functions import Now
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from exportapp import datasets, lifecycle, monitor
from exportapp.engine.errors import ExportError
from exportapp.models import Event, Export, ExportState, PersonAttribute, Process, Step, StepKind, StepState

A_PAGE = 50
NOTHING = "–"
INLINE_ROWS = 200  # an export of a billion rows has thousands of steps: its page shows the first, and a link to all
WATCHING = [f"exportapp.view_{model}" for model in ("export", "step", "event", "process")]
SHAPES = {
    StepState.WAITING: ExportState.QUEUED,
    StepState.DONE: ExportState.READY,
    StepState.DROPPED: ExportState.CANCELLED,
}


class ReadOnly:
    """No adding, changing or deleting, whatever rights a person has."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyList(ReadOnly, admin.ModelAdmin):
    """A list that stays quick when it is long: it counts only what it shows."""

    list_per_page = A_PAGE
    show_full_result_count = False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = {"title": str(self.opts.verbose_name_plural).capitalize()}
        return super().changelist_view(request, {**title, **(extra_context or {})})


# --- what cells say ---------------------------------------------------------------------------------------------------


def state_badge(row: Export | Step) -> str:
    """The state in words, colour and shape."""
    shape = SHAPES.get(StepState(row.state), row.state) if isinstance(row, Step) else row.state
    return render_to_string("admin/state.html", {"shape": str(shape), "label": row.get_state_display()})


def moment(at: datetime | None) -> str:
    """A time as short as a column wants it: today's without the day."""
    if at is None:
        return NOTHING
    words = f"{at:%H:%M:%S}" if at.date() == timezone.now().date() else f"{at.day} {at:%b %H:%M}"
    return format_html('<time datetime="{}" title="{} UTC">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}", words)


def number(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def short(text: str, length: int) -> str:
    """The beginning of a text; a pointer that rests on it sees the rest."""
    cut = Truncator(text).chars(length)
    return cut if cut == text else format_html('<span title="{}">{}</span>', text, cut)


def worker_name(name: str) -> str:
    """Host and process of a worker, without the mark between them, which only tells those of other days apart."""
    host, _, rest = name.partition("#")
    return format_html('<span title="{}">{}</span>', name, f"{host}:{rest.rpartition(':')[2]}" if rest else name)


def pretty(value: Any) -> str:
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False)) if value else NOTHING


def link(text: Any, name: str, *args: Any, **query: Any) -> str:
    address = reverse(f"admin:exportapp_{name}", args=args) + (f"?{urlencode(query)}" if query else "")
    return format_html('<a href="{}">{}</a>', address, text)


# --- filters ----------------------------------------------------------------------------------------------------------


class DeclaredFilter(admin.SimpleListFilter):
    """Chooses by a name of the datasets file: to ask the table which names it holds would read all of it."""

    path = registry = ""

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        chosen = request.GET.get(str(self.parameter_name), "")
        names = {*getattr(datasets.catalogue(), self.registry), *([chosen] if chosen else [])}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.path: self.value()}) if self.value() else queryset


class DatasetFilter(DeclaredFilter):
    title, parameter_name, path, registry = "dataset", "dataset", "dataset", "datasets"


class SourceFilter(DeclaredFilter):
    title, parameter_name, path, registry = "source", "source", "source", "sources"


class StepSourceFilter(SourceFilter):
    path = "export__source"


class TroubleFilter(admin.SimpleListFilter):
    """Steps that something went wrong with."""

    title, parameter_name = "trouble", "trouble"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("yes", "Put off or failed"), ("crashed", "Lost a worker")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Step]) -> QuerySet[Step]:
        if self.value() == "crashed":
            return queryset.filter(crashes__gt=0)
        unwell = Q(state__in=(StepState.WAITING, StepState.RUNNING), attempts__gt=0) & ~Q(error="")
        return queryset.filter(unwell | Q(state=StepState.FAILED)) if self.value() else queryset


class AliveFilter(admin.SimpleListFilter):
    """Processes that were seen lately, or were not and have not signed off."""

    title, parameter_name = "sign of life", "alive"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("yes", "Alive"), ("no", "Gone without a word")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Process]) -> QuerySet[Process]:
        since = lifecycle.now() - monitor.silent_after()
        if self.value() == "no":
            return queryset.filter(seen_at__lte=since)
        return queryset.filter(seen_at__gt=since) if self.value() else queryset


# --- exports ----------------------------------------------------------------------------------------------------------


class FirstRows(BaseInlineFormSet):
    """The first rows of a list that may be long, and where all of them are."""

    left_out = False

    def get_queryset(self) -> QuerySet[Any]:
        if not hasattr(self, "_first"):
            rows = super().get_queryset()[: INLINE_ROWS + 1]
            self.left_out = len(rows) > INLINE_ROWS
            self._first = rows[:INLINE_ROWS]
        return self._first

    @property
    def all_of_them(self) -> str:
        return monitor.rows_behind("step" if self.model is Step else "event", export=self.instance.pk)


class ReadOnlyRows(ReadOnly, admin.TabularInline):
    formset = FirstRows
    template = "admin/rows.html"
    extra = 0
    max_num = 0


class StepInline(ReadOnlyRows):
    model = Step
    fields = [
        "step", "badge", "worker_short", "attempts", "crashes", "rows", "began", "ended", "error", "its_events",
    ]  # fmt: skip
    readonly_fields = ["step", "badge", "worker_short", "rows", "began", "ended", "its_events"]

    @admin.display(description="step")
    def step(self, step: Step) -> str:
        return link(f"{step.get_kind_display()} {step.pk}", "step_change", step.pk)

    @admin.display(description="state")
    def badge(self, step: Step) -> str:
        return state_badge(step)

    @admin.display(description="worker")
    def worker_short(self, step: Step) -> str:
        return worker_name(step.worker) if step.worker else NOTHING

    @admin.display(description="rows")
    def rows(self, step: Step) -> str:
        return number(step.rows_done)

    @admin.display(description="began")
    def began(self, step: Step) -> str:
        return moment(step.started_at)

    @admin.display(description="ended")
    def ended(self, step: Step) -> str:
        return moment(step.finished_at)

    @admin.display(description="events")
    def its_events(self, step: Step) -> str:
        return link("Events", "event_changelist", step=step.pk)


class EventInline(ReadOnlyRows):
    model = Event
    fields = ["when", "who", "origin", "kind", "text", "detail", "of_step"]
    readonly_fields = ["when", "who", "of_step"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return super().get_queryset(request).select_related("actor", "step")

    @admin.display(description="at")
    def when(self, event: Event) -> str:
        return moment(event.at)

    @admin.display(description="actor")
    def who(self, event: Event) -> str:
        return event.actor.get_username() if event.actor else NOTHING

    @admin.display(description="step")
    def of_step(self, event: Event) -> str:
        step = event.step
        return link(f"{step.get_kind_display()} {step.pk}", "step_change", step.pk) if step else NOTHING


class ExportList(ChangeList):
    """A page of exports with what their steps do, in one query for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        note_steps(self.result_list)


def note_steps(exports: list[Export]) -> None:
    """Gives those exports that are under way a sum of their steps, as `work`."""
    running, waiting = Q(state=StepState.RUNNING), Q(state=StepState.WAITING)
    sums = (
        Step.objects.filter(export__in=[export.pk for export in exports if export.unfinished])
        .values("export_id")
        .annotate(
            rows=Sum("rows_done", filter=Q(kind=StepKind.CHUNK)),
            workers=Count("pk", filter=running),
            worker=Max("worker", filter=running),
            due=Min("not_before", filter=waiting),
            error=Max("error", filter=waiting),
        )
        .order_by()
    )
    found = {one["export_id"]: one for one in sums}
    at = lifecycle.now() if found else None
    for export in exports:
        export.work = {**found[export.pk], "at": at} if export.pk in found else {}  # type: ignore[attr-defined]


def work_of(export: Export) -> dict[str, Any]:
    if not hasattr(export, "work"):
        note_steps([export])
    work: dict[str, Any] = export.work  # type: ignore[attr-defined]
    return work


@admin.register(Export)
class ExportAdmin(ReadOnlyList):
    list_display = [
        "badge", "short_name", "owner", "dataset", "progress", "rows", "size", "waits", "worker", "asked", "ended",
    ]  # fmt: skip
    list_display_links = ["short_name"]
    list_filter = ["state", DatasetFilter, SourceFilter, "created_at", "finished_at"]
    search_fields = ["=id", "name", "dataset", "owner__username", "owner__email", "error"]
    search_help_text = "Id, name, dataset, owner, or words of an error"
    list_select_related = ["owner"]
    date_hierarchy = "created_at"
    fieldsets = [
        (
            None,
            {
                "fields": [
                    ("badge", "progress", "rows", "size"),
                    ("owner", "dataset", "source", "parent"),
                    ("created_at", "started_at", "finished_at", "expires_at"),
                    ("waits", "worker", "notify"),
                    "error",
                ]
            },
        ),
        ("File", {"fields": ["file_name", "tidied", "receipt_text"], "classes": ["collapse"]}),
        ("Recipe, and the dataset as it was", {"fields": ["recipe_text", "definition_text"], "classes": ["collapse"]}),
    ]
    readonly_fields = [
        "badge", "progress", "rows", "size", "waits", "worker", "receipt_text", "recipe_text", "definition_text",
    ]  # fmt: skip
    inlines = [StepInline, EventInline]
    actions = ["cancel_exports", "retry_exports", "expire_exports", "mail_again"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ExportList

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        export = self.get_object(request, object_id)
        buttons = fitting_actions(export) if export and self.has_operate_permission(request) else []
        context = {"title": str(export), "subtitle": None, "buttons": buttons}
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description="state", ordering="state")
    def badge(self, export: Export) -> str:
        return state_badge(export)

    @admin.display(description="name", ordering="name")
    def short_name(self, export: Export) -> str:
        return short(export.name, 40)

    @admin.display(description="progress")
    def progress(self, export: Export) -> str:
        if not export.unfinished:
            return short(export.error, 60) or NOTHING
        read, estimated = work_of(export).get("rows") or 0, export.rows_estimated
        if not estimated:
            return NOTHING
        percent = min(99, 100 * read // estimated)  # an estimate may be too low: only a finished file is at 100
        about = "" if export.rows_exact else "about "
        return format_html(
            '<progress value="{}" max="100" aria-label="Progress"></progress> {} % of {}{}',
            percent, percent, about, number(estimated),
        )  # fmt: skip

    @admin.display(description="rows", ordering="file_rows")
    def rows(self, export: Export) -> str:
        return number(work_of(export).get("rows") if export.unfinished else export.file_rows)

    @admin.display(description="size", ordering="file_bytes")
    def size(self, export: Export) -> str:
        return NOTHING if export.file_bytes is None else monitor.size_words(export.file_bytes)

    @admin.display(description="waits")
    def waits(self, export: Export) -> str:
        work = work_of(export)
        if not export.unfinished or work.get("due") is None:
            return NOTHING
        seconds = (work["at"] - work["due"]).total_seconds()
        if seconds < 0:
            return format_html('<span title="{}">again in {}</span>', work["error"], monitor.lasted(-seconds))
        return monitor.lasted(seconds)

    @admin.display(description="worker")
    def worker(self, export: Export) -> str:
        work = work_of(export)
        if not export.unfinished or not work.get("workers"):
            return NOTHING
        return worker_name(work["worker"]) if work["workers"] == 1 else f"{work['workers']} workers"

    @admin.display(description="asked", ordering="created_at")
    def asked(self, export: Export) -> str:
        return moment(export.created_at)

    @admin.display(description="ended", ordering="finished_at")
    def ended(self, export: Export) -> str:
        return moment(export.finished_at)

    @admin.display(description="receipt")
    def receipt_text(self, export: Export) -> str:
        return pretty(export.receipt)

    @admin.display(description="recipe")
    def recipe_text(self, export: Export) -> str:
        return pretty(export.recipe_json)

    @admin.display(description="dataset")
    def definition_text(self, export: Export) -> str:
        return pretty(export.definition)

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel_exports(self, request: HttpRequest, queryset: QuerySet[Export]) -> HttpResponse | None:
        operator = _operator(request)
        reason = f"Cancelled by {operator.get_username()}"
        return self._do(request, queryset, "Cancelled", "had ended already",
                        lambda export: lifecycle.cancel(export, operator, reason))  # fmt: skip

    @admin.action(description="Retry: the same again, for the same owner", permissions=["operate"])
    def retry_exports(self, request: HttpRequest, queryset: QuerySet[Export]) -> HttpResponse | None:
        for export in queryset.select_related("owner"):
            try:
                again = lifecycle.run_again(export, _operator(request))
            except ExportError as error:
                self.message_user(request, f"{export.name}: {error.sentence}", messages.ERROR)
            else:
                self.message_user(request, f"{again.name} was asked for again.")
        return _back(request)

    @admin.action(description="Expire: remove the file now", permissions=["operate"])
    def expire_exports(self, request: HttpRequest, queryset: QuerySet[Export]) -> HttpResponse | None:
        operator = _operator(request)
        return self._do(request, queryset, "Expired", "have no file",
                        lambda export: lifecycle.expire(export, operator))  # fmt: skip

    @admin.action(description="Send mail again", permissions=["operate"])
    def mail_again(self, request: HttpRequest, queryset: QuerySet[Export]) -> HttpResponse | None:
        operator = _operator(request)
        return self._do(request, queryset, "Mail asked for again:", "have no mail that was sent or given up",
                        lambda export: lifecycle.mail_again(export, operator))  # fmt: skip

    def _do(
        self,
        request: HttpRequest,
        exports: QuerySet[Export],
        did: str,
        others: str,
        verb: Callable[[Export], bool],
    ) -> HttpResponse | None:
        """Does it to each, and says to how many."""
        tried = list(exports)
        done = sum(bool(verb(export)) for export in tried)
        rest = f"; the others {others}" if done < len(tried) else ""
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, f"{did} {done} of {len(tried)}{rest}.", level)
        return _back(request)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the person may act on exports; Django's own right to change them."""
        return request.user.has_perm("exportapp.change_export")


def fitting_actions(export: Export) -> list[tuple[str, str]]:
    """The actions that can be done to an export as it is, for the buttons on its page."""
    if export.unfinished:
        return [("cancel_exports", "Cancel")]
    fitting = [("retry_exports", "Retry")]
    if export.state == ExportState.READY:
        fitting.append(("expire_exports", "Expire"))
    mails = set(export.steps.filter(kind=StepKind.NOTIFY).values_list("state", flat=True))
    if mails and not mails & {StepState.WAITING, StepState.RUNNING}:
        fitting.append(("mail_again", "Send mail again"))
    return fitting


def _back(request: HttpRequest) -> HttpResponse | None:
    """To the page of the export that the button was on; None leads to the list, as Django has it."""
    export = request.POST.get("page_of", "")
    return redirect("admin:exportapp_export_change", export) if export else None


def _operator(request: HttpRequest) -> User:
    operator = request.user
    if not isinstance(operator, User):
        raise TypeError("the admin is for signed-in users")
    return operator


# --- steps, events, signs of life -------------------------------------------------------------------------------------


@admin.register(Step)
class StepAdmin(ReadOnlyList):
    list_display = [
        "step", "badge", "of_export", "worker_short", "attempts", "crashes", "rows", "due", "began", "ended", "short_error",
    ]  # fmt: skip
    list_filter = ["state", "kind", StepSourceFilter, TroubleFilter, "started_at"]
    search_fields = ["=id", "=export__id", "export__name", "worker", "error"]
    search_help_text = "Id of a step or export, name of an export, worker, or words of an error"
    list_select_related = ["export"]
    date_hierarchy = "started_at"
    ordering = ["-pk"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    ("badge", "kind", "export"),
                    ("attempts", "crashes", "fence"),
                    ("not_before", "started_at", "finished_at"),
                    ("worker", "lease_until", "rung_at"),
                    ("rows_done", "rows_estimated", "bytes_done"),
                    "error",
                    "its_events",
                ]
            },
        ),
        ("Range and result", {"fields": ["position", "range_json", "result"]}),
    ]
    readonly_fields = ["badge", "its_events"]

    @admin.display(description="step", ordering="pk")
    def step(self, step: Step) -> str:
        return f"{step.get_kind_display()} {step.pk}"

    @admin.display(description="state", ordering="state")
    def badge(self, step: Step) -> str:
        return state_badge(step)

    @admin.display(description="export", ordering="export__name")
    def of_export(self, step: Step) -> str:
        return link(short(step.export.name, 30), "export_change", step.export_id)

    @admin.display(description="worker", ordering="worker")
    def worker_short(self, step: Step) -> str:
        return worker_name(step.worker) if step.worker else NOTHING

    @admin.display(description="rows", ordering="rows_done")
    def rows(self, step: Step) -> str:
        return number(step.rows_done)

    @admin.display(description="due", ordering="not_before")
    def due(self, step: Step) -> str:
        return moment(step.not_before)

    @admin.display(description="began", ordering="started_at")
    def began(self, step: Step) -> str:
        return moment(step.started_at)

    @admin.display(description="ended", ordering="finished_at")
    def ended(self, step: Step) -> str:
        return moment(step.finished_at)

    @admin.display(description="error")
    def short_error(self, step: Step) -> str:
        return short(step.error, 60)

    @admin.display(description="events")
    def its_events(self, step: Step) -> str:
        lines = step.events.select_related("actor")[:INLINE_ROWS]
        told = format_html_join(
            "", "<li>{} {} <code>{}</code></li>", ((moment(one.at), one.text, one.detail) for one in lines)
        )
        return format_html('<ul class="told">{}</ul>{}', told, link("All of them", "event_changelist", step=step.pk))


@admin.register(Event)
class EventAdmin(ReadOnlyList):
    list_display = ["when", "of_export", "kind", "who", "origin", "text", "short_detail"]
    list_filter = ["kind", "at"]
    search_fields = ["=export__id", "export__name", "actor__username", "origin", "text", "detail"]
    search_help_text = "Id or name of an export, who, from where, or words"
    list_select_related = ["export", "actor"]
    date_hierarchy = "at"

    @admin.display(description="at", ordering="at")
    def when(self, event: Event) -> str:
        return moment(event.at)

    @admin.display(description="export", ordering="export__name")
    def of_export(self, event: Event) -> str:
        return link(short(event.export.name, 30), "export_change", event.export_id)

    @admin.display(description="actor", ordering="actor__username")
    def who(self, event: Event) -> str:
        return event.actor.get_username() if event.actor else NOTHING

    @admin.display(description="detail")
    def short_detail(self, event: Event) -> str:
        return short(event.detail, 80)


@admin.register(Process)
class ProcessAdmin(ReadOnlyList):
    """The last sign of life of dispatchers and workers, and the broker as the dispatchers see it."""

    list_display = ["name", "kind", "alive", "seen", "began", "says"]
    list_filter = [AliveFilter, "kind"]
    ordering = ["-seen_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Process]:
        processes: QuerySet[Process] = super().get_queryset(request)
        return processes.annotate(now=Now())

    @admin.display(boolean=True)
    def alive(self, process: Any) -> bool:
        return bool(process.now - process.seen_at < monitor.silent_after())

    @admin.display(description="seen", ordering="seen_at")
    def seen(self, process: Any) -> str:
        return monitor.ago(process.seen_at, process.now)

    @admin.display(description="began", ordering="started_at")
    def began(self, process: Process) -> str:
        return moment(process.started_at)

    @admin.display
    def says(self, process: Process) -> str:
        facts: dict[str, Any] = process.facts
        return ", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None)


# --- people -----------------------------------------------------------------------------------------------------------


class PersonAttributeInline(admin.TabularInline):
    model = PersonAttribute
    extra = 0
    verbose_name = "fact for row rules"
    verbose_name_plural = "facts for row rules"


admin.site.unregister(User)


@admin.register(User)
class PersonAdmin(UserAdmin):
    inlines = [PersonAttributeInline]


# --- the first page ---------------------------------------------------------------------------------------------------

_stock_index = admin.site.index


def index(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
    """The first page with the monitor on top, for those who may see the lists behind it; or the monitor alone, anew."""
    if not request.user.has_perms(WATCHING):
        return _stock_index(request, extra_context)
    context = {**(extra_context or {}), "monitor": monitor.figures()}
    if request.headers.get("X-Part") == "monitor":
        return HttpResponse(render_to_string("admin/monitor.html", context, request))
    return _stock_index(request, context)


# A site of our own would have to be named in the settings and hold everything that Django registers at the stock one.
admin.site.index = index  # type: ignore[method-assign]
admin.site.empty_value_display = NOTHING
admin.site.enable_nav_sidebar = False  # the lists need its width, and the first page has the same links
admin.site.site_header = "exportapp: operators"
admin.site.site_title = "exportapp"
admin.site.index_title = "What runs"
