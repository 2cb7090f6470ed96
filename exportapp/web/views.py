"""The pages: fetch with access check, form, verb, redirect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import available_timezones

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Lower
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.http import content_disposition_header
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from exportapp import datasets, figures, lifecycle, recipes, storage
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Recipe
from exportapp.models import UNFINISHED, Export, ExportState, Gate, StepKind, StepState
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
from exportapp.web.forms import ExportForm
from exportapp.web.progress import places_of, progress, progresses, steps_changed, strip, version, with_progress
from exportapp.web.repairs import Repair, advice, repairs
from exportapp.web.words import command, recipe_words

EXPORTS_A_PAGE = 20
MOST_PARTS = 5000  # of one export, that its strip tells of


@for_people
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    has_some = Export.objects.filter(owner=signed_in(request)).exists()
    return redirect("exports" if has_some else "choose-dataset")


@for_people
@require_safe
def choose_dataset(request: HttpRequest) -> HttpResponse:
    allowed = datasets.visible_to(signed_in(request))
    wanted = request.GET.get("q", "").strip()[:200]
    words = wanted.lower().split()
    known = figures.shown(allowed)
    cards = [
        {
            "dataset": one,
            "told": (told := _searched(one)),
            "hidden": not all(word in told for word in words),
            "figures": known.get(one.name),
        }
        for one in allowed
    ]
    found = sum(not card["hidden"] for card in cards)
    return render(request, "exports/choose.html", {"cards": cards, "wanted": wanted, "found": found})


def _searched(dataset: datasets.Dataset) -> str:
    """What the search among the datasets looks at, in small letters."""
    columns = (f"{column.name} {column.label}" for column in dataset.columns)
    return " ".join([dataset.name, dataset.label, dataset.row, dataset.description, *columns]).lower()


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
    if form.asked and form.is_valid():
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
        "asked": form.asked,
        "guess_zone": posted is None and like is None,
        "operators": recipes.FILTERS,
        "zones": sorted(available_timezones()),
        "figures": figures.shown([dataset]).get(name),
    }
    return render(request, "exports/new.html", context, status=status if form.asked else 200)


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
    person, at = signed_in(request), lifecycle.now()
    mine = Export.objects.filter(owner=person)
    counts = dict(mine.order_by().values_list("state").annotate(count=Count("pk")))
    chosen = _chosen(request)
    found = with_progress(_filtered(mine, chosen).select_related("owner"), at)
    page = Paginator(found, EXPORTS_A_PAGE).get_page(request.GET.get("page"))
    shown = list(page)
    moved, etag = version(shown, at, counts, places_of(shown, at))
    if (unchanged := _unchanged(request, etag)) is not None:
        return unchanged
    under_way = sum(counts.get(state, 0) for state in UNFINISHED)
    offered = _offered(person, shown)
    context = {
        "page": page,
        "rows": [
            {"progress": one, "repairs": _repairs_of(one.export) if one.export.dataset in offered else []}
            for one in progresses(shown, at)
        ],
        "closed": {one.pk for one in datasets.no_longer_allowed(one for one in shown if one.file_name)},
        "offered": offered,
        "chosen": chosen,
        "filtered": bool(chosen["state"] or chosen["dataset"] or chosen["q"]),
        "groups": [
            {
                "key": key,
                "label": label,
                "count": sum(counts.get(state, 0) for state in states),
                "query": _query(chosen, state=key),
            }
            for key, (label, states) in GROUPS.items()
        ],
        "datasets": _datasets_of(mine),
        "poll": f"{reverse('exports')}{_query(chosen, page=page.number)}",
        "newer": page.has_previous() and _query(chosen, page=page.previous_page_number()),
        "older": page.has_next() and _query(chosen, page=page.next_page_number()),
        "moving": any(one.unfinished for one in shown),
        "moved": moved,
        "etag": etag,
        "total": sum(counts.values()),
        "under_way": under_way,
        "ready": counts.get(ExportState.READY, 0),
    }
    response = render(request, "exports/list.html", context)
    response["ETag"] = etag
    return response


GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "": ("All", tuple(ExportState.values)),
    "under-way": ("Under way", UNFINISHED),
    "ready": ("Ready", (ExportState.READY,)),
    "failed": ("Failed", (ExportState.FAILED,)),
}


def _chosen(request: HttpRequest) -> dict[str, str]:
    """The filters of the list; what is unknown counts for none."""
    chosen = {name: request.GET.get(name, "").strip()[:200].replace("\0", "") for name in ("state", "dataset", "q")}
    return chosen | {"state": chosen["state"] if chosen["state"] in GROUPS else ""}


def _filtered(exports: QuerySet[Export], chosen: dict[str, str]) -> QuerySet[Export]:
    if chosen["state"]:
        exports = exports.filter(state__in=GROUPS[chosen["state"]][1])
    if chosen["dataset"]:
        exports = exports.filter(dataset=chosen["dataset"])
    labels = {one.name: one.label.lower() for one in datasets.catalogue().datasets.values()} if chosen["q"] else {}
    for word in chosen["q"].split()[:10]:
        alike = [name for name, label in labels.items() if word.lower() in label]
        # Whether MySQL heeds the size of letters is the collation's decision.
        named = Q(name__icontains=word) | Q(lowered__contains=word.lower())
        exports = exports.annotate(lowered=Lower("name")).filter(named | Q(dataset__in=alike))
    return exports


def _query(chosen: dict[str, str], **changes: str | int) -> str:
    """The address's query for these filters; the first page needs none."""
    wanted = {**chosen, **changes}
    told = {name: value for name, value in wanted.items() if value and (name, value) != ("page", 1)}
    return f"?{urlencode(told)}" if told else ""


def _datasets_of(exports: QuerySet[Export]) -> list[tuple[str, str]]:
    """The datasets that a person's exports are of, as name and label."""
    known = datasets.catalogue().datasets
    names = exports.order_by().values_list("dataset", flat=True).distinct()
    return sorted(((name, known[name].label if name in known else name) for name in names), key=lambda pair: pair[1])


def _offered(person: User, exports: Iterable[Export]) -> set[str]:
    """The datasets of these exports that the person can still make exports of."""
    known = datasets.catalogue().datasets
    names = {export.dataset for export in exports}
    return {name for name in names if name in known and datasets.may_export(person, known[name])}


def _unchanged(request: HttpRequest, etag: str) -> HttpResponse | None:
    """The empty answer to who has seen this already."""
    if request.headers.get("If-None-Match") != etag:
        return None
    # htmx would put the nothing of a 304 in the page's place.
    return HttpResponse(status=204 if request.headers.get("HX-Request") else 304, headers={"ETag": etag})


@for_people
@require_safe
@never_cache
def one_export(request: HttpRequest, export_id: UUID) -> HttpResponse:
    person, at = signed_in(request), lifecycle.now()
    export_for(person, export_id)
    export = with_progress(Export.objects.select_related("owner", "parent"), at).get(pk=export_id)
    place = places_of([export], at).get(export.pk)
    moved, etag = version([export], at, steps_changed(export), place)
    if (unchanged := _unchanged(request, etag)) is not None:
        return unchanged
    dataset = datasets.thaw(export.definition)
    receipt = export.receipt or {}
    chunks = export.steps.filter(kind=StepKind.CHUNK)
    parts = list(chunks.values_list("state", "rows_done", "rows_estimated")[:MOST_PARTS])
    own = export.owner_id == person.pk
    offered = bool(_offered(export.owner, [export]))
    context: dict[str, Any] = {
        "export": export,
        "read_from": parse_datetime(receipt.get("read_from", "")),
        "read_until": parse_datetime(receipt.get("read_until", "")),
        "values": receipt.get("values", ""),
        "progress": progress(export, at),
        "own": own,
        "offered": {export.dataset} if offered else set(),
        "closed": {one.pk for one in datasets.no_longer_allowed([export]) if one.owner_id == person.pk},
        "may_stop": may_stop(person, export),
        "words": recipe_words(export.recipe, dataset),
        "command": command(export.recipe, dataset, storage.download_name(export), export.owner.get_username()),
        "events": export.events.select_related("actor")[:200],
        "parts": len(parts),
        "parts_done": sum(state == StepState.DONE for state, _, _ in parts),
        "workers": chunks.exclude(worker="").aggregate(count=Count("worker", distinct=True))["count"],
        "took": export.finished_at and export.started_at and (export.finished_at - export.started_at).total_seconds(),
        "strip": strip(parts, ended=not export.unfinished),
        "reruns": export.reruns.order_by("-created_at")[:5],
        "moved": moved,
        "etag": etag,
    }
    if export.state == ExportState.FAILED:
        context["advice"] = advice(export.error)
        context["repairs"] = _repairs_of(export) if own and offered else []
    response = render(request, "exports/one.html", context)
    response["ETag"] = etag
    return response


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
    """The same once more, or what `repair` names in its stead."""
    person = signed_in(request)
    export = own_export_for(person, export_id)
    try:
        if wanted := request.POST.get("repair", ""):
            _repair(export, person, wanted)
        else:
            lifecycle.run_again(export, person)
    except lifecycle.OverLimit as error:
        return render(request, "429.html", {"sentence": error.sentence}, status=429)
    except ExportError as error:
        messages.error(request, error.sentence)
    return redirect("exports")


def _repairs_of(export: Export) -> list[Repair]:
    dataset = datasets.catalogue().datasets.get(export.dataset)
    return repairs(export, dataset) if dataset and export.state == ExportState.FAILED else []


def _repair(export: Export, person: User, wanted: str) -> None:
    """Asks for what a repair proposes, once for each click there may be. Raises Http404 where it is none."""
    dataset = datasets.catalogue().datasets.get(export.dataset)
    repair = next((one for one in _repairs_of(export) if one.key == wanted), None)
    if dataset is None or repair is None:
        raise Http404
    count = len(repair.recipes)
    with transaction.atomic():  # both halves or none
        for number, recipe in enumerate(repair.recipes, 1):
            lifecycle.request(
                person,
                dataset,
                recipe,
                request_key=f"{wanted} {number} {export.pk.hex}",
                name=f"{export.name[:180]} ({number} of {count})" if count > 1 else export.name,
                notify=export.notify,
                parent=export,
            )


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


@for_people
@require_POST
def remove(request: HttpRequest, export_id: UUID) -> HttpResponse:
    """The file goes now, and not only when its time is over."""
    person = signed_in(request)
    export = own_export_for(person, export_id)
    if lifecycle.expire(export, person):
        messages.success(request, f"The file of “{export.name}” was deleted.")
    else:
        messages.info(request, f"“{export.name}” had no file to delete.")
    return redirect("exports")
