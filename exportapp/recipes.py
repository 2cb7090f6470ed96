"""Holds a recipe against its dataset: every mistake becomes a sentence beside its field, the rest a Query."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.contrib.auth.models import User

from exportapp.datasets import Dataset, DatasetColumn, rule_values
from exportapp.engine import specs
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.encoders.delimited import DELIMITERS, NULLS
from exportapp.engine.specs import Condition, FileOptions, Query, Recipe, RecipeFilter

Conditions = Callable[[specs.Column, tuple[str, ...]], tuple[Condition, ...]]
Problems = dict[str, str]  # field -> sentence; the filter in row 2 is "filters.2"


@dataclass(frozen=True)
class Filter:
    """A comparison that people may choose. `values` is how many it takes, None for a list."""

    label: str
    types: frozenset[str]
    values: int | None
    conditions: Conditions


def _plain(op: str) -> Conditions:
    def conditions(column: specs.Column, values: tuple[str, ...]) -> tuple[Condition, ...]:
        return (Condition(column, op, tuple(_midnight(column, value) for value in values)),)

    return conditions


def _is(column: specs.Column, values: tuple[str, ...]) -> tuple[Condition, ...]:
    return _between(column, values * 2) if _whole_day(column, values[0]) else (Condition(column, "eq", values),)


def _between(column: specs.Column, values: tuple[str, ...]) -> tuple[Condition, ...]:
    low, high = values
    lower = (Condition(column, "ge", (_midnight(column, low),)),) if low.strip() else ()
    return (*lower, _up_to(column, high)) if high.strip() else lower


def _up_to(column: specs.Column, high: str) -> Condition:
    """A day as the end of a range of moments means all of it."""
    if not _whole_day(column, high):
        return Condition(column, "le", (high,))
    if high == date.max.isoformat():
        return Condition(column, "le", (f"{high} 23:59:59.999999",))
    after = date.fromisoformat(high) + timedelta(days=1)
    return Condition(column, "lt", (_midnight(column, after.isoformat()),))


def _whole_day(column: specs.Column, value: str) -> bool:
    return column.type == "datetime" and len(value) == len("2026-01-31")


def _midnight(column: specs.Column, value: str) -> str:
    return f"{value} 00:00:00" if _whole_day(column, value) else value


LONGEST_VALUE = 1000  # characters
_TEXTS = frozenset({"text", "json"})
_EXACT = frozenset({"text", "boolean", "integer", "decimal", "date", "datetime"})
_RANGED = specs.NUMBER_TYPES | specs.MOMENT_TYPES

FILTERS: dict[str, Filter] = {
    "eq": Filter("is", _EXACT, 1, _is),
    "in": Filter("is one of", _EXACT, None, _plain("in")),
    "contains": Filter("contains", _TEXTS, 1, _plain("contains")),
    "between": Filter("is between", frozenset(_RANGED), 2, _between),
    "empty": Filter("is empty", specs.COLUMN_TYPES, 0, _plain("empty")),
    "not_empty": Filter("is not empty", specs.COLUMN_TYPES, 0, _plain("not_empty")),
}


def problems(recipe: Recipe, dataset: Dataset) -> Problems:
    """Everything that keeps the recipe from being run, as sentences by field; {} when nothing does."""
    found: Problems = {}
    if not recipe.columns:
        found["columns"] = "Tick at least one column."
    elif unknown := [name for name in recipe.columns if dataset.column(name) is None]:
        found["columns"] = f"There is no column “{unknown[0]}” in {dataset.label}."
    elif len(set(recipe.columns)) != len(recipe.columns):
        found["columns"] = "A column is named twice."
    if recipe.format not in FORMATS:
        found["format"] = "Choose one of the formats."
    if sentence := _compression_problem(recipe):
        found["compression"] = sentence
    found |= _option_problems(recipe)
    known_zone = recipe.zone in available_timezones()
    if not known_zone:  # also where no range is chosen: the times in the file are written in the zone
        found["zone"] = f"There is no time zone “{recipe.zone[:40]}”."
    # The dates are looked at all the same, so that all mistakes are told at once.
    found |= _range_problems(recipe, dataset, recipe.zone if known_zone else "UTC")
    for number, item in enumerate(recipe.filters):
        if sentence := _filter_problem(item, dataset):
            found[f"filters.{number}"] = sentence
    return found


def _compression_problem(recipe: Recipe) -> str:
    form = FORMATS.get(recipe.format)
    if recipe.compression not in COMPRESSIONS:
        return "Choose one of the compressions."
    if form and recipe.compression not in form.compressions:
        return f"{form.label} files are compressed in themselves: choose no other compression."
    return ""


def _option_problems(recipe: Recipe) -> Problems:
    form, options = FORMATS.get(recipe.format), recipe.options
    most = form.max_columns if form else None
    if form and most and len(recipe.columns) > most:
        return {"columns": f"{form.label} files hold at most {most:,} columns. Choose fewer, or another format."}
    known = options.header in HEADERS and options.delimiter in DELIMITERS and options.null in NULLS
    if not known or recipe.consistency not in CONSISTENCIES:
        return {"options": "Choose among the options that are offered."}
    return {}


HEADERS = {"labels": "Labels", "names": "Database names"}
CONSISTENCIES = {
    "chunked": "In parts: each row as of its part's reading. What is interrupted goes on where it was",
    "snapshot": "In one go: all rows as of one moment. What is interrupted starts all over",
}


def heeded(format: str, options: FileOptions) -> FileOptions:
    """The options without those that a format does not know, so that a recipe says nothing that is not so."""
    known = FORMATS[format].options if format in FORMATS else frozenset()
    return FileOptions(**{name: value for name, value in specs.to_json(options).items() if name in known})


def query_for(recipe: Recipe, dataset: Dataset, person: User) -> Query:
    """The engine's query for a recipe without problems, narrowed by the dataset's row rule to the person's rows."""
    conditions = [*_time_conditions(recipe, dataset), *_rule_conditions(dataset, person)]
    for item in recipe.filters:
        column = _column(dataset, item.column)
        values = tuple(_clean(column, value) for value in item.values)
        conditions += FILTERS[item.op].conditions(column.spec, values)
    columns = tuple(_column(dataset, name).spec for name in recipe.columns)
    return Query(dataset.relation, bool(dataset.query), columns, dataset.key_columns, tuple(conditions))


def _column(dataset: Dataset, name: str) -> DatasetColumn:
    column = dataset.column(name)
    if column is None:
        raise ValueError(f"{name} is no column of {dataset.name}")
    return column


def _rule_conditions(dataset: Dataset, person: User) -> tuple[Condition, ...]:
    if dataset.row_rule is None:
        return ()
    column = _column(dataset, dataset.row_rule.column).spec
    op = "exactly" if column.type == "text" else "in"
    return (Condition(column, op, rule_values(person, dataset.row_rule)),)


# --- the time range --------------------------------------------------------------------------------------------------


def moment(text: str) -> datetime:
    """A local time from a form or a command line. Raises ValueError with a sentence."""
    text = text.strip()
    if not re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2})?)?", text):
        raise ValueError(f"“{text[:40]}” is not a date. Write it like 2026-01-31 or 2026-01-31 14:30.")
    try:
        numbers = [int(number) for number in re.split(r"[-: T]", text)]
        return datetime(*numbers)  # type: ignore[arg-type]  # three to six numbers, by the pattern above
    except ValueError:
        raise ValueError(f"{text} does not exist in the calendar.") from None


def _range_problems(recipe: Recipe, dataset: Dataset, zone: str) -> Problems:
    if not dataset.time_column:
        return {"start": f"{dataset.label} has no time to choose a range of."} if recipe.start or recipe.end else {}
    found: Problems = {}
    moments: dict[str, datetime] = {}
    for name, text in (("start", recipe.start), ("end", recipe.end)):
        if text:
            try:
                moments[name] = _existing(moment(text), zone, dataset)
            except ValueError as error:
                found[name] = str(error)
    if len(moments) == 2:
        found |= _span_problems(moments["start"], moments["end"], dataset)
    elif dataset.max_days and not found:
        missing = "end" if recipe.start else "start"
        found[missing] = (
            f"Choose both ends: {dataset.label} may be exported for at most {dataset.max_days} days at once."
        )
    return found


def _span_problems(start: datetime, end: datetime, dataset: Dataset) -> Problems:
    if start >= end:
        return {"end": "The end has to be after the start."}
    if dataset.max_days and end - start > timedelta(days=dataset.max_days):
        days = -(-(end - start) // timedelta(days=1)) if end - start else 0
        return {
            "end": f"This range has {days} days; {dataset.label} may be exported for at most {dataset.max_days} at once."
        }
    return {}


def _existing(local: datetime, zone: str, dataset: Dataset) -> datetime:
    """The moment itself, if clocks ever showed it: an hour is left out when they go forward."""
    if dataset.time_is_day:
        if local.time() != time():
            raise ValueError(f"{dataset.label} are dated by the day. Write a date without a time.")
        return local
    aware = local.replace(tzinfo=ZoneInfo(zone))
    try:
        back = aware.astimezone(ZoneInfo("UTC")).astimezone(ZoneInfo(zone))
        aware.astimezone(ZoneInfo(dataset.stored_zone))
    except OverflowError:
        raise ValueError(f"{local.date()} is out of reach.") from None
    if back.replace(tzinfo=None) != local:
        raise ValueError(
            f"{local.isoformat(' ', 'minutes')} does not exist in {zone}: the clocks went forward over it."
        )
    return local


def _time_conditions(recipe: Recipe, dataset: Dataset) -> tuple[Condition, ...]:
    if not dataset.time_column:
        return ()
    column = _column(dataset, dataset.time_column).spec
    bounds = (("ge", recipe.start), ("lt", recipe.end))
    return tuple(Condition(column, op, (_stored(text, recipe.zone, dataset),)) for op, text in bounds if text)


def _stored(text: str, zone: str, dataset: Dataset) -> str:
    """A bound of the range as the time column writes it, in the zone that it is stored in."""
    local = moment(text)
    if dataset.time_is_day:
        return local.date().isoformat()
    there = local.replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo(dataset.stored_zone))
    return _written(_repeated_until(there) if there.fold else there)


def _repeated_until(at: datetime) -> datetime:
    """The end of the times that a zone's clocks show twice, for one in their second pass.

    What is stored there is taken for the first pass (zones.in_zone): no row is of the second, and those after it begin
    where the clocks show no time twice.
    """
    repeated, over = at, at + (at.replace(fold=0).utcoffset() or timedelta()) - (at.utcoffset() or timedelta())
    while over - repeated > timedelta(seconds=1):
        middle = repeated + (over - repeated) // 2
        if middle.replace(fold=0).utcoffset() == middle.replace(fold=1).utcoffset():
            over = middle
        else:
            repeated = middle
    return over


def _written(at: datetime) -> str:
    # Not strftime: it writes the year 900 as "900", and MySQL takes the year 1 as "1" for 2001.
    return at.replace(tzinfo=None).isoformat(" ", "seconds")


# --- filters ---------------------------------------------------------------------------------------------------------


def _filter_problem(item: RecipeFilter, dataset: Dataset) -> str:
    column = dataset.column(item.column)
    if column is None or not column.filterable:
        return f"There is no column “{item.column[:40]}” to filter by."
    if item.op not in FILTERS:
        return "Choose a comparison."
    kind = FILTERS[item.op]
    if column.type not in kind.types:
        return f"“{kind.label}” does not work for {column.label}."
    given = [value for value in item.values if value.strip()]
    if kind.values != 0 and (not given or (kind.values != 2 and len(given) < len(item.values))):
        return f"Write what {column.label} is to be compared with, or remove the condition."
    if kind.values is not None and len(item.values) != kind.values:
        return f"“{kind.label}” takes {('no value', 'one value', 'two values')[kind.values]}."
    if too_long := [value for value in given if len(value) > LONGEST_VALUE]:
        return f"“{too_long[0][:40]}…” is too long: a value has at most {LONGEST_VALUE:,} characters."
    try:
        cleaned = [_clean(column, value) for value in given]
    except ValueError as error:
        return str(error)
    if kind.values == 2 and len(cleaned) == 2 and _order(column, cleaned[0]) > _order(column, cleaned[1]):
        return f"The end of the range of {column.label} is before its start."
    return ""


def _order(column: DatasetColumn, cleaned: str) -> Any:
    """A cleaned value as it compares with others of its column; a time of day by its number of seconds."""
    if column.type in specs.NUMBER_TYPES:
        return Decimal(cleaned)
    if column.type != "time":
        return cleaned
    parts = [int(part) for part in cleaned.lstrip("-").split(":")]
    return (-1 if cleaned.startswith("-") else 1) * sum(part * 60**power for part, power in zip(parts, (2, 1, 0)))  # noqa: B905


def _clean(column: DatasetColumn, value: str) -> str:
    """A filter value in the form that the engine binds. Raises ValueError with a sentence."""
    cleaner = _CLEANERS.get(column.type)
    if cleaner is None or not value.strip():
        return value
    try:
        return cleaner(value.strip())
    except (ValueError, InvalidOperation):
        raise ValueError(f"“{value[:40]}” is not {_EXAMPLES[column.type]}, as {column.label} is.") from None


def _integer(value: str) -> str:
    number = int(value)
    if abs(number) >= 1 << 64:
        raise ValueError
    return str(number)


def _decimal(value: str) -> str:
    number = Decimal(value)
    # Looked at before it is written out: “1e999999999” has a billion digits.
    if not number.is_finite() or abs(number.adjusted()) > 60 or len(f"{number:f}") > 60:
        raise ValueError
    return f"{number:f}"


def _boolean(value: str) -> str:
    if (word := value.lower()) not in _TRUTHS:
        raise ValueError
    return _TRUTHS[word]


def _time(value: str) -> str:
    if not re.fullmatch(r"-?\d{1,3}:\d{2}(:\d{2})?", value):
        raise ValueError
    return value


_TRUTHS = {"1": "1", "true": "1", "yes": "1", "0": "0", "false": "0", "no": "0"}
_CLEANERS: dict[str, Callable[[str], str]] = {
    "integer": _integer,
    "decimal": _decimal,
    "float": lambda value: repr(float(_decimal(value))),
    "boolean": _boolean,
    "date": lambda value: moment(value).date().isoformat(),
    "datetime": lambda value: _written(moment(value)) if ":" in value else moment(value).date().isoformat(),
    "time": _time,
}
_EXAMPLES = {
    "integer": "a whole number",
    "decimal": "a number such as 12.50",
    "float": "a number such as 12.5",
    "boolean": "yes or no",
    "date": "a date such as 2026-01-31",
    "datetime": "a time such as 2026-01-31 14:30",
    "time": "a time such as 14:30:00",
}
