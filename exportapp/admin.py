"""The operators' view: everything to be read, nothing to be edited; the actions call the lifecycle."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.timesince import timesince

from exportapp import lifecycle
from exportapp.engine.errors import ExportError
from exportapp.models import Event, Export, PersonAttribute, Process, Step

SILENT_AFTER = timedelta(seconds=60)


class ReadOnly:
    """No adding, changing or deleting, whatever rights a person has."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class StepInline(ReadOnly, admin.TabularInline):
    model = Step
    fields = [
        "kind",
        "state",
        "fence",
        "attempts",
        "crashes",
        "worker",
        "rows_done",
        "started_at",
        "finished_at",
        "error",
    ]
    extra = 0
    max_num = 0


class EventInline(ReadOnly, admin.TabularInline):
    model = Event
    fields = ["at", "actor", "kind", "text", "detail"]
    extra = 0
    max_num = 0


@admin.register(Export)
class ExportAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["short_name", "state", "owner", "dataset", "created_at", "file_rows", "page", "short_error"]
    list_filter = ["state", "dataset", "source", "created_at"]
    search_fields = ["=id", "name", "dataset", "owner__username", "owner__email", "error"]
    list_select_related = ["owner"]
    date_hierarchy = "created_at"
    exclude = ["query_json"]
    inlines = [StepInline, EventInline]
    actions = ["cancel_exports", "retry_exports"]

    @admin.display(description="name", ordering="name")
    def short_name(self, export: Export) -> str:
        return Truncator(export.name).chars(40)

    @admin.display(description="error", ordering="error")
    def short_error(self, export: Export) -> str:
        return Truncator(export.error).chars(60)

    @admin.display(description="page")
    def page(self, export: Export) -> str:
        return format_html('<a href="{}">open</a>', export.get_absolute_url())

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel_exports(self, request: HttpRequest, queryset: QuerySet[Export]) -> None:
        operator = _operator(request)
        done = sum(lifecycle.cancel(one, operator, f"Cancelled by {operator.get_username()}") for one in queryset)
        others = "; the others had ended already" if done < len(queryset) else ""
        self.message_user(request, f"Cancelled {done} of {len(queryset)}{others}.")

    @admin.action(description="Retry: the same again, for the same owner", permissions=["operate"])
    def retry_exports(self, request: HttpRequest, queryset: QuerySet[Export]) -> None:
        for export in queryset.select_related("owner"):
            try:
                again = lifecycle.run_again(export, _operator(request))
            except ExportError as error:
                self.message_user(request, f"{export.name}: {error.sentence}", messages.ERROR)
            else:
                self.message_user(request, f"{again.name} was asked for again.")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the person may cancel and retry; Django's own right to change exports."""
        return request.user.has_perm("exportapp.change_export")


def _operator(request: HttpRequest) -> User:
    operator = request.user
    if not isinstance(operator, User):
        raise TypeError("the admin is for signed-in users")
    return operator


@admin.register(Step)
class StepAdmin(ReadOnly, admin.ModelAdmin):
    list_display = [
        "id",
        "export",
        "kind",
        "state",
        "fence",
        "attempts",
        "crashes",
        "worker",
        "rows_done",
        "lease_until",
        "error",
    ]
    list_filter = ["state", "kind"]
    search_fields = ["=id", "=export__id", "export__name", "worker", "error"]
    list_select_related = ["export"]


@admin.register(Event)
class EventAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["at", "export", "kind", "actor", "origin", "text", "detail"]
    list_filter = ["kind", "at"]
    search_fields = ["=export__id", "export__name", "actor__username", "origin", "text", "detail"]
    list_select_related = ["export", "actor"]


@admin.register(Process)
class ProcessAdmin(ReadOnly, admin.ModelAdmin):
    """The last sign of life of dispatchers and workers, and the broker as the dispatchers see it."""

    list_display = ["name", "kind", "alive", "seen", "started_at", "says"]
    list_filter = ["kind"]

    @admin.display(boolean=True)
    def alive(self, process: Process) -> bool:
        return lifecycle.now() - process.seen_at < SILENT_AFTER

    @admin.display(description="seen", ordering="seen_at")
    def seen(self, process: Process) -> str:
        seconds = (lifecycle.now() - process.seen_at).total_seconds()
        return f"{seconds:.0f} s ago" if seconds < 120 else f"{timesince(process.seen_at, lifecycle.now())} ago"

    @admin.display
    def says(self, process: Process) -> str:
        facts: dict[str, Any] = process.facts
        return ", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None)


class PersonAttributeInline(admin.TabularInline):
    model = PersonAttribute
    extra = 0
    verbose_name = "fact for row rules"
    verbose_name_plural = "facts for row rules"


admin.site.unregister(User)


@admin.register(User)
class PersonAdmin(UserAdmin):
    inlines = [PersonAttributeInline]


admin.site.site_header = "exportapp: operators"
admin.site.site_title = "exportapp"
admin.site.index_title = "What runs"
