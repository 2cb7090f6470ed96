"""The pages: fetch with access check, form, verb, redirect."""

from __future__ import annotations

from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from django.contrib import messages
from django.core.paginator import Paginator
from django.db import Error as DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.http import content_disposition_header
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from exportapp import datasets, lifecycle, recipes, storage
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Recipe
from exportapp.models import Export, ExportState, Gate, StepKind
from exportapp.web import downloads
from exportapp.web.access import (
    export_for,
    export_to_stop_for,
    file_for,
    for_people,
    may_stop,
    own_export_for,
    signed_in,
)
from exportapp.web.forms import ExportForm, presets
from exportapp.web.progress import progress, with_progress
from exportapp.web.words import recipe_words

EXPORTS_A_PAGE = 20


@for_people
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    has_some = Export.objects.filter(owner=signed_in(request)).exists()
    return redirect("exports" if has_some else "choose-dataset")


@for_people
@require_safe
def choose_dataset(request: HttpRequest) -> HttpResponse:
    return render(request, "exports/choose.html", {"datasets": datasets.visible_to(signed_in(request))})


@for_people
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def new_export(request: HttpRequest, name: str) -> HttpResponse:
    person = signed_in(request)
    dataset = datasets.catalogue().datasets.get(name)
    if dataset is None or not datasets.may_export(person, dataset):
        raise Http404
    posted = request.POST if request.method == "POST" else None
    like = _recipe_to_edit(request, dataset)
    form = ExportForm(dataset, posted, recipe=like)
    status = 422
    asked = posted is not None and "add_filter" not in posted and "remove_filter" not in posted
    if asked and form.is_valid():
        try:
            lifecycle.request(
                person,
                dataset,
                form.recipe,
                request_key=form.request_key,
                name=form.cleaned_data["name"].strip() or form.default_name(),
                notify=form.cleaned_data["notify"],
            )
            return redirect("exports")
        except lifecycle.OverLimit as error:
            status = 429
            form.add_error(None, error.sentence)
        except ExportError as error:
            form.add_error(None, error.sentence)
    context = {
        "dataset": dataset,
        "form": form,
        "asked": asked,
        "guess_zone": posted is None and like is None,
        "presets": presets(timezone.now()),
        "operators": recipes.FILTERS,
        "zones": sorted(available_timezones()),
    }
    return render(request, "exports/new.html", context, status=status if asked else 200)


def _recipe_to_edit(request: HttpRequest, dataset: datasets.Dataset) -> Recipe | None:
    """The recipe of the own export that `?like=` names, to start a new one from."""
    try:
        like = UUID(request.GET.get("like", ""))
    except ValueError:
        return None
    export = own_export_for(signed_in(request), like)
    return export.recipe if export.dataset == dataset.name else None


@for_people
@require_safe
@never_cache
def my_exports(request: HttpRequest) -> HttpResponse:
    mine = Export.objects.filter(owner=signed_in(request))
    page = Paginator(with_progress(mine.select_related("owner")), EXPORTS_A_PAGE).get_page(request.GET.get("page"))
    at = lifecycle.now()
    context = {
        "page": page,
        "rows": [progress(export, at) for export in page],
        "closed": {export.pk for export in datasets.no_longer_allowed(export for export in page if export.file_name)},
        "moving": any(export.unfinished for export in page),
        "under_way": mine.filter(state__in=[ExportState.QUEUED, ExportState.RUNNING]).count(),
        "ready": mine.filter(state=ExportState.READY).count(),
    }
    return render(request, "exports/list.html", context)


@for_people
@require_safe
@never_cache
def one_export(request: HttpRequest, export_id: UUID) -> HttpResponse:
    person = signed_in(request)
    export_for(person, export_id)
    export = with_progress(Export.objects.select_related("owner", "parent")).get(pk=export_id)
    dataset = datasets.thaw(export.definition)
    receipt = export.receipt or {}
    chunks = export.steps.filter(kind=StepKind.CHUNK)
    context: dict[str, Any] = {
        "export": export,
        "read_from": parse_datetime(receipt.get("read_from", "")),
        "read_until": parse_datetime(receipt.get("read_until", "")),
        "progress": progress(export, lifecycle.now()),
        "own": export.owner_id == person.pk,
        "closed": {one.pk for one in datasets.no_longer_allowed([export]) if one.owner_id == person.pk},
        "may_stop": may_stop(person, export),
        "words": recipe_words(export.recipe, dataset),
        "events": export.events.select_related("actor")[:200],
        "parts": chunks.count(),
        "chunks": chunks[:500],
    }
    return render(request, "exports/one.html", context)


@for_people
@require_safe
def download(request: HttpRequest, export_id: UUID) -> HttpResponseBase:
    person = signed_in(request)
    export = file_for(person, export_id)
    if export.state != ExportState.READY:
        raise Http404
    try:
        response = downloads.send(request, export)
    except downloads.FileDamaged:
        return render(request, "410.html", {"export": export}, status=410)
    downloads.note(request, response, export, person)
    return response


@for_people
@require_safe
@never_cache
def receipt(request: HttpRequest, export_id: UUID) -> HttpResponse:
    export = export_for(signed_in(request), export_id)
    if not export.receipt:
        raise Http404
    name = f"{storage.download_name(export)}.receipt.json"
    headers = {"Content-Disposition": content_disposition_header(True, name) or "attachment"}
    return JsonResponse(export.receipt, json_dumps_params={"indent": 2}, headers=headers)


@for_people
@require_POST
def cancel(request: HttpRequest, export_id: UUID) -> HttpResponse:
    person = signed_in(request)
    export = export_to_stop_for(person, export_id)
    if not lifecycle.cancel(export, person, f"Cancelled by {person.get_username()}"):
        messages.info(request, f"“{export.name}” had ended already.")
    return redirect("exports" if export.owner_id == person.pk else export)


@for_people
@require_POST
def again(request: HttpRequest, export_id: UUID) -> HttpResponse:
    person = signed_in(request)
    export = own_export_for(person, export_id)
    try:
        lifecycle.run_again(export, person)
    except lifecycle.OverLimit as error:
        return render(request, "429.html", {"sentence": error.sentence}, status=429)
    except ExportError as error:
        messages.error(request, error.sentence)
    return redirect("exports")


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """This process and the app database answer."""
    try:
        lifecycle.now()
    except DatabaseError:
        return JsonResponse({"database": "does not answer"}, status=503)
    except Gate.DoesNotExist:
        return JsonResponse({"database": "is not set up: run manage.py migrate"}, status=503)
    return JsonResponse({"database": "ok"})
