"""A recipe in words, for the page of an export and its mails."""

from __future__ import annotations

from collections.abc import Iterator

from exportapp.datasets import Dataset
from exportapp.engine.encoders.delimited import DELIMITERS
from exportapp.engine.specs import FileOptions, Recipe
from exportapp.recipes import FILTERS, HEADERS


def recipe_words(recipe: Recipe, dataset: Dataset) -> list[tuple[str, str]]:
    """Pairs of a heading and what the person chose."""
    labels = {column.name: column.label for column in dataset.columns}
    words = [("Dataset", dataset.label)]
    if dataset.time_column:
        words.append((labels[dataset.time_column], _range(recipe)))
    words.append(("Columns", ", ".join(labels.get(name, name) for name in recipe.columns)))
    if choices := "; ".join(_choices(recipe.options)):
        words.append(("Written", choices))
    if recipe.consistency == "snapshot":
        words.append(("Read", "in one go, all rows as of one moment"))
    words += [
        ("Only rows where", _filter(labels.get(one.column, one.column), one.op, one.values)) for one in recipe.filters
    ]
    return words


def _choices(options: FileOptions) -> Iterator[str]:
    """What was chosen about the file, where it is not what everybody gets."""
    if options.header != FileOptions.header:
        yield HEADERS[options.header].lower() + " in the first row"
    if options.delimiter != FileOptions.delimiter:
        yield f"{DELIMITERS[options.delimiter].lower()} between the values"
    if options.null != FileOptions.null:
        yield f"{options.null} for missing values"
    if options.bom:
        yield "with a byte order mark"
    if options.exact:
        yield "machine exact, not for spreadsheets"


def _range(recipe: Recipe) -> str:
    if not (recipe.start or recipe.end):
        return "all times"
    since = f"from {recipe.start} " if recipe.start else ""
    until = f"until {recipe.end} (not included)" if recipe.end else "on"
    return f"{since}{until}, {recipe.zone}"


def _filter(label: str, op: str, values: tuple[str, ...]) -> str:
    joined = " and ".join(value or "any" for value in values) if op == "between" else ", ".join(values)
    return f"{label} {FILTERS[op].label} {joined}".strip()
