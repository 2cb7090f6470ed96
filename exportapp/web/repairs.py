"""What can be done about an export that failed: other recipes that would have got through, each one click away.

It goes by the sentence that the person reads, for that is what the failure left. It starts nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from exportapp import recipes
from exportapp.datasets import Dataset
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import Recipe
from exportapp.models import Export

LEAST = timedelta(minutes=2)  # a shorter range is not cut


@dataclass(frozen=True)
class Repair:
    """`recipes` are to be asked for together; `told` says what they are."""

    key: str
    label: str
    told: str
    recipes: tuple[Recipe, ...]


def repairs(export: Export, dataset: Dataset) -> list[Repair]:
    """The repairs of a failed export that today's dataset has no objection to."""
    recipe = export.recipe
    found = (
        _halved(export.error, recipe),
        _as_format(export.error, recipe),
        _without(export.error, recipe, dataset),
    )
    return [
        repair for repair in found if repair and not any(recipes.problems(recipe, dataset) for recipe in repair.recipes)
    ]


def advice(error: str) -> str:
    """What else can be done."""
    if "perator" in error:
        return "An operator can see the details and mend this. When that is done, run it again."
    if "hoose" in error or "Leave" in error:
        return "Edit it as a new export to choose otherwise; all that you filled in is there."
    return "Nothing is lost: run it again, or edit it as a new export."


def _halved(error: str, recipe: Recipe) -> Repair | None:
    if "shorter range" not in error or not (recipe.start and recipe.end):
        return None
    start, end = recipes.moment(recipe.start), recipes.moment(recipe.end)
    middle = _middle(start, end)
    if middle is None:
        return None
    cut = str(middle.date()) if middle.time() == datetime.min.time() else f"{middle:%Y-%m-%d %H:%M}"
    return Repair(
        "halves",
        "Export it in two halves",
        f"Two files: until {cut}, and from then on.",
        (replace(recipe, end=cut), replace(recipe, start=cut)),
    )


def _middle(start: datetime, end: datetime) -> datetime | None:
    """The midnight, or else the minute, in the midst."""
    if end - start < LEAST:
        return None
    middle = start + (end - start) / 2
    midnight = datetime.combine(middle.date(), datetime.min.time())
    if start < midnight < end and end - start >= timedelta(days=2):
        return midnight
    return middle.replace(second=0, microsecond=0)


def _as_format(error: str, recipe: Recipe) -> Repair | None:
    """In the first format that the sentence itself proposes."""
    proposed = error.rpartition("hoose ")[2]
    places = {proposed.find(form.label): key for key, form in FORMATS.items() if form.label in proposed}
    if not places or (key := places[min(places)]) == recipe.format:
        return None
    kept = recipe.compression if recipe.compression in FORMATS[key].compressions else FORMATS[key].compressions[0]
    other = replace(recipe, format=key, compression=kept, options=recipes.heeded(key, recipe.options))
    return Repair(
        "format", f"Export it as {FORMATS[key].label}", "The same rows and columns in another format.", (other,)
    )


def _without(error: str, recipe: Recipe, dataset: Dataset) -> Repair | None:
    """Without the column that the sentence names."""
    if "column" not in error or len(recipe.columns) < 2:
        return None
    titles = {
        title: name for name in recipe.columns if (column := dataset.column(name)) for title in (name, column.label)
    }
    named = [title for title in sorted(titles, key=len, reverse=True) if title and f"column {title} " in f"{error} "]
    if not named:
        return None
    name = titles[named[0]]
    column = dataset.column(name)
    label = column.label if column and column.label else name
    rest = tuple(one for one in recipe.columns if one != name)
    return Repair(
        "column", f"Leave out {label}", "The same rows, with all other columns.", (replace(recipe, columns=rest),)
    )
