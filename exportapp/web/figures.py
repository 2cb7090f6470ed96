"""The live part of the form for a new export: the histogram of its time, and the card with estimate and first rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.template.defaultfilters import filesizeformat
from django.utils.cache import get_conditional_response, patch_cache_control, patch_vary_headers
from django.utils.http import http_date
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from exportapp import datasets, figures, previews, recipes
from exportapp.datasets import Dataset
from exportapp.engine.specs import FileOptions, Recipe
from exportapp.estimates import Estimate, Span, estimate
from exportapp.web.access import for_people, signed_in
from exportapp.web.forms import ExportForm
from exportapp.web.progress import silent_part
from exportapp.web.words import short, span_words

MOST_DAYS = 1500  # of more a chart shows months
CLOSE = 1.25  # ends of a range that are so close are told as one number
SHOWN_CHARACTERS = 300


def _dataset_for(request: HttpRequest, name: str) -> Dataset:
    """The dataset, if the person may export it. Raises Http404."""
    dataset = datasets.catalogue().datasets.get(name)
    if dataset is None or not datasets.may_export(signed_in(request), dataset):
        raise Http404
    return dataset


# --- the histogram ----------------------------------------------------------------------------------------------------


@for_people
@require_safe
def histogram(request: HttpRequest, name: str) -> HttpResponseBase:
    """Rows per day, or per month where there are very many days, as the source stores its times."""
    dataset = _dataset_for(request, name)
    # Where a person has only some rows of their own, how many others have is not for them.
    known = figures.of(dataset) if dataset.row_rule is None else None
    etag = _etag(request, dataset, known)
    changed = int(known.computed_at.timestamp()) if known else None
    response = get_conditional_response(request, etag, changed, None)
    if response is None:
        response = JsonResponse(_histogram(known))
    response["ETag"] = etag
    if changed is not None:
        response["Last-Modified"] = http_date(changed)
    patch_cache_control(response, private=True, max_age=60 if known else 0, must_revalidate=True)
    patch_vary_headers(response, ["Cookie"])
    return response


def _etag(request: HttpRequest, dataset: Dataset, known: figures.Figures | None) -> str:
    parts = (signed_in(request).pk, figures.fingerprint(dataset), known and known.computed_at.isoformat())
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def _histogram(known: figures.Figures | None) -> dict[str, Any]:
    if known is None:
        nothing = dict.fromkeys(("oldest", "newest", "rows", "rows_exact", "computed_at"))
        return {"unit": "day", "days": [], **nothing}
    months = len(known.days) > MOST_DAYS
    return {
        "unit": "month" if months else "day",
        "days": _months(known.days) if months else known.days,
        "oldest": known.oldest,
        "newest": known.newest,
        "rows": known.rows,
        "rows_exact": known.rows_exact,
        "computed_at": known.computed_at,
    }


def _months(days: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
    """The rows of each month, under its first day."""
    by_month = groupby(days, key=lambda pair: pair[0][:7])
    return [(f"{month}-01", sum(count for _, count in pairs)) for month, pairs in by_month]


# --- the card ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Card:
    """What the card shows, in words."""

    rows: str
    size: str
    seconds: str
    starts: str
    starts_why: str


@for_people
@require_POST
@never_cache
def estimated(request: HttpRequest, name: str) -> HttpResponse:
    """The card for the form as it stands. Nothing is written, whatever is in it."""
    person, dataset = signed_in(request), _dataset_for(request, name)
    form = ExportForm(dataset, request.POST)
    complete = form.is_valid()
    recipe = form.recipe if complete else _valid_part(form.recipe, form.problems, dataset)
    if recipe is None:
        return render(request, "exports/_estimate.html", {"nothing": "Tick a column, and an estimate stands here."})
    shown = None
    # Without what is not right yet the file would not be the one that is meant: its first rows would mislead.
    if not form.problems:
        query = recipes.query_for(recipe, dataset, person)
        shown = previews.preview(person.pk, datasets.catalogue().sources[dataset.source].url, query, recipe)
    told = estimate(dataset, recipe, person, shown.sample if shown else None)
    context = {
        "estimate": told,
        "card": _card(told),
        "partly": bool(form.problems),
        "preview": shown,
        "cut": SHOWN_CHARACTERS,
    }
    return render(request, "exports/_estimate.html", context)


def _valid_part(recipe: Recipe, problems: recipes.Problems, dataset: Dataset) -> Recipe | None:
    """The recipe without what is not right yet; None without a column."""
    columns = tuple(dict.fromkeys(name for name in recipe.columns if dataset.column(name)))
    wrong = {int(field.partition(".")[2]) for field in problems if field.startswith("filters.")}
    right = replace(
        recipe,
        columns=columns,
        format="csv" if "format" in problems else recipe.format,
        compression="none" if {"format", "compression"} & problems.keys() else recipe.compression,
        options=FileOptions() if "options" in problems else recipe.options,
        zone=dataset.stored_zone if "zone" in problems else recipe.zone,
        start=_time(recipe.start, dataset),
        end=_time(recipe.end, dataset),
        filters=tuple(item for number, item in enumerate(recipe.filters) if number not in wrong),
    )
    return right if columns else None


def _time(text: str, dataset: Dataset) -> str:
    """A bound that is a time: one that is too far from the other is one all the same."""
    try:
        moves = 1 < recipes.moment(text).year < 9999  # to another zone, without leaving the calendar
    except ValueError:
        return ""
    return text if moves and dataset.time_column else ""


def _card(told: Estimate) -> _Card:
    return _Card(
        _span(told.rows, short),
        _span(told.bytes, filesizeformat),
        span_words(*told.seconds) if told.seconds else "?",
        *_starts(told.ahead),
    )


def _starts(ahead: int) -> tuple[str, str]:
    part = silent_part()
    if part:
        return "later", f"the export desk's {part} does not answer"
    return ("now", "nobody is before you") if not ahead else ("soon", f"behind {ahead} other{'s' * (ahead > 1)}")


def _span(span: Span | None, word: Any) -> str:
    if span is None:
        return "?"
    low, high = span
    if low == high:
        return str(word(low))
    if low and high / low <= CLOSE:
        return f"≈ {word((low + high) // 2)}"
    words = str(word(low)), str(word(high))
    if low * 50 < high:
        return f"up to {words[1]}"
    return f"≈ {words[0]}" if words[0] == words[1] else f"{words[0]} – {words[1]}"
