"""A recipe in words: for people, and for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from exportapp.datasets import Dataset
from exportapp.engine.encoders.delimited import DELIMITERS
from exportapp.engine.specs import FileOptions, Recipe, RecipeFilter
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


def span_words(low: int, high: int) -> str:
    """A span of seconds, in one unit and in round numbers."""
    size, unit = (1, "s") if high < 100 else (60, "min") if high < 100 * 60 else (3600, "h")
    first, last = low // size, -(-high // size)
    if size == 1 and high >= 20:
        first, last = first // 5 * 5, -(-last // 5) * 5
    if first == last or last <= 1:
        return f"{last} {unit}"
    return f"{first}–{last} {unit}" if first else f"up to {last} {unit}"


def short(number: int) -> str:
    """A number in few characters, for what need not be exact."""
    for size, letter, places in ((1_000_000_000, "bn", 2), (1_000_000, "M", 2), (10_000, "k", 0)):
        if number >= size:
            return f"{number / (1000 if letter == 'k' else size):,.{places}f} {letter}"
    return f"{number:,}"


# --- as a command -----------------------------------------------------------------------------------------------------


def command(recipe: Recipe, dataset: Dataset, output: str, user: str = "") -> str:
    """The same export as a line for a shell, on several; '' for one that the command line has no words for.

    `user` is whose rows count, where a row rule makes a difference. The command always reads in one go.
    """
    try:
        lines = list(_lines(recipe, output, user if dataset.row_rule else ""))
    except ValueError:
        return ""
    return " \\\n".join([f"manage.py run_export {shlex.quote(recipe.dataset)}", *(f"  {line}" for line in lines)])


def _lines(recipe: Recipe, output: str, user: str) -> Iterator[str]:
    yield from filter(None, (_line(("from", recipe.start)), _line(("to", recipe.end))))
    if recipe.zone != "UTC":
        yield _line(("zone", recipe.zone))
    if any("," in name or name != name.strip() for name in recipe.columns):
        raise ValueError("a comma stands between columns")
    yield _line(("columns", ",".join(recipe.columns)))
    for item in recipe.filters:
        yield _line(("where", _condition(item)))
    yield _line(("format", recipe.format), ("compression", recipe.compression.replace("none", "")))
    if options := list(_option_words(recipe.options)):
        yield " ".join(options)
    if user:
        yield _line(("user", user))
    yield _line(("output", output))


def _line(*options: tuple[str, str]) -> str:
    """Options with their values; a value that begins with a hyphen would be taken for another option."""
    said = [(name, shlex.quote(value), "=" if value.startswith("-") else " ") for name, value in options if value]
    return " ".join(f"--{name}{between}{value}" for name, value, between in said)


def _option_words(options: FileOptions) -> Iterable[str]:
    default = FileOptions()
    if options.header != default.header:
        yield f"--header {options.header}"
    if options.delimiter != default.delimiter:
        yield f"--delimiter {DELIMITERS[options.delimiter].lower()}"
    if options.null != default.null:
        yield f"--null {shlex.quote(options.null)}"
    if options.bom:
        yield "--bom"
    if options.exact:
        yield "--exact"


def _condition(item: RecipeFilter) -> str:
    name, values = item.column, item.values
    if set("=~") & set(name) or name.endswith("!"):
        raise ValueError("a sign would end the column's name too early")
    if item.op == "empty":
        return f"{name}="
    if item.op == "not_empty":
        return f"{name}!="
    if item.op == "contains":
        return f"{name}~{values[0]}"
    if item.op == "between":
        return f"{name}={values[0].strip()}..{values[1].strip()}"
    if any(value.endswith("\\") for value in values[:-1]):
        raise ValueError("a backslash would take the comma after it for its own")
    return f"{name}={','.join(value.replace(',', chr(92) + ',') for value in values)}"
