"""A recipe in words, for the page of an export and its mails."""

from __future__ import annotations

from exportapp.datasets import Dataset
from exportapp.engine.specs import Recipe
from exportapp.recipes import FILTERS


def recipe_words(recipe: Recipe, dataset: Dataset) -> list[tuple[str, str]]:
    """Pairs of a heading and what the person chose."""
    labels = {column.name: column.label for column in dataset.columns}
    words = [("Dataset", dataset.label)]
    if dataset.time_column:
        words.append((labels[dataset.time_column], _range(recipe)))
    words.append(("Columns", ", ".join(labels.get(name, name) for name in recipe.columns)))
    words += [
        ("Only rows where", _filter(labels.get(one.column, one.column), one.op, one.values)) for one in recipe.filters
    ]
    return words


def _range(recipe: Recipe) -> str:
    if not (recipe.start or recipe.end):
        return "all times"
    since = f"from {recipe.start} " if recipe.start else ""
    until = f"until {recipe.end} (not included)" if recipe.end else "on"
    return f"{since}{until}, {recipe.zone}"


def _filter(label: str, op: str, values: tuple[str, ...]) -> str:
    joined = " and ".join(value or "any" for value in values) if op == "between" else ", ".join(values)
    return f"{label} {FILTERS[op].label} {joined}".strip()
