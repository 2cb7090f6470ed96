"""What may be exported, and by whom: loads datasets.toml and answers for rights. It opens no source."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User

from exportapp.engine import specs
from exportapp.environment import env_secret
from exportapp.models import Export

Person = User | AnonymousUser | AbstractBaseUser
log = logging.getLogger(__name__)
_understood: dict[Path, Catalogue] = {}
NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


class DatasetError(Exception):
    """A mistake in datasets.toml: `where` names the part of the file, `hint` what to write."""

    def __init__(self, where: str, message: str, hint: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where, self.message, self.hint = where, message, hint


@dataclass(frozen=True)
class Source:
    """A database to export from. Its address comes from the environment, because it holds a password."""

    name: str
    label: str = ""
    url_env: str = ""
    default: str = ""
    connections: int = 8

    @property
    def url(self) -> str:
        """The address, '' when the environment names none."""
        return env_secret(self.url_env, self.default.replace("{var}", str(settings.VAR)))


@dataclass(frozen=True)
class DatasetColumn:
    name: str
    label: str = ""
    type: str = "text"
    description: str = ""
    selected: bool = True
    filterable: bool = True
    choices: tuple[str, ...] = ()
    scale: int | None = None
    zone: str = ""

    @property
    def spec(self) -> specs.Column:
        return specs.Column(self.name, self.type, self.scale, self.label, self.zone)


@dataclass(frozen=True)
class RowRule:
    """Only rows whose `column` is among the values of the person's `attribute`."""

    column: str
    attribute: str


@dataclass(frozen=True)
class Dataset:
    """One declaration of datasets.toml; frozen into each export as JSON."""

    name: str
    source: str
    columns: tuple[DatasetColumn, ...]
    label: str = ""
    row: str = "row"
    description: str = ""
    table: str = ""
    view: str = ""
    query: str = ""
    key: tuple[str, ...] = ()
    time_column: str = ""
    time_zone: str = ""
    groups: tuple[str, ...] = ()
    max_rows: int = 0
    max_mb: int = 0
    max_days: int = 0
    keep_days: int = 7
    row_rule: RowRule | None = None

    def column(self, name: str) -> DatasetColumn | None:
        return next((column for column in self.columns if column.name == name), None)

    @property
    def time_label(self) -> str:
        """The time column's label, '' without one."""
        column = self.column(self.time_column)
        return column.label if column else ""

    @property
    def time_is_day(self) -> bool:
        """Whether the time column has days and no hours."""
        column = self.column(self.time_column)
        return column is not None and column.type == "date"

    @property
    def stored_zone(self) -> str:
        """The zone that ranges of time are compared in."""
        return self.known_zone or "UTC"

    @property
    def known_zone(self) -> str:
        """The zone that is declared for the time column, by itself or by the dataset; '' when nobody has said."""
        column = self.column(self.time_column)
        return self.time_zone or (column.zone if column else "")

    @property
    def relation(self) -> str:
        return self.query or self.table or self.view

    @property
    def key_columns(self) -> tuple[specs.Column, ...]:
        return tuple(column.spec for name in self.key if (column := self.column(name)))


@dataclass(frozen=True)
class Catalogue:
    """All that datasets.toml declares."""

    sources: dict[str, Source] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)


def catalogue() -> Catalogue:
    """The file as it is now: read again when it changed.

    A mistake in it must not stop a desk that runs: it is logged, and what was last understood stays in force. Raises
    DatasetError when nothing was understood yet.
    """
    path = Path(settings.DATASETS_FILE)
    try:
        _understood[path] = _load(path, path.stat().st_mtime_ns)
    except (DatasetError, OSError) as error:
        if path not in _understood:
            raise _as_dataset_error(path, error) from error
        log.error("the datasets file is not understood, the one before stays in force: %s", error)
    return _understood[path]


def _as_dataset_error(path: Path, error: DatasetError | OSError) -> DatasetError:
    if isinstance(error, DatasetError):
        return error
    return DatasetError(str(path), f"cannot be read: {error.strerror}", "Set EXPORTAPP_DATASETS to a file.")


@lru_cache(maxsize=4)
def _load(path: Path, stamp: int) -> Catalogue:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DatasetError(str(path), f"is no TOML: {error}", "Compare it with the example, datasets.toml.") from error
    return parse(data)


def parse(data: dict[str, Any]) -> Catalogue:
    """The catalogue of a parsed file. Raises DatasetError at the first mistake that can be seen without a source."""
    sources = {name: _source(name, table) for name, table in _table("sources", data.get("sources", {})).items()}
    datasets = {
        name: _dataset(name, table, sources) for name, table in _table("datasets", data.get("datasets", {})).items()
    }
    return Catalogue(sources, datasets)


def _table(where: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        name = where if "." in where else f"{where}.NAME"
        raise DatasetError(where, "is not a table", f"Write it as [{name}].")
    return table


def _fill(where: str, kind: type[Any], table: dict[str, Any], **fixed: Any) -> Any:
    hints = {name: item.type for name, item in kind.__dataclass_fields__.items()}
    for name, value in table.items():
        if name not in hints or name in fixed:
            raise DatasetError(
                where, f"knows no {name!r}", f"It may have: {', '.join(sorted(set(hints) - set(fixed)))}."
            )
        plain = hints[name].split(" ")[0].split("[")[0]
        if plain in _WORDS and not _is(plain, value):
            raise DatasetError(where, f"{name} is of the wrong type", f"It is to be {_WORDS[plain]}.")
    needed = [name for name, item in kind.__dataclass_fields__.items() if item.default is MISSING]
    if missing := [name for name in needed if name not in table and name not in fixed]:
        raise DatasetError(where, f"has no {missing[0]}", f'Write {missing[0]} = "..." first.')
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    return kind(**{**values, **fixed})


_PLAIN: dict[str, type] = {"str": str, "int": int, "bool": bool}
_WORDS = {"str": "a text", "int": "a number", "bool": "true or false", "tuple": "a list of texts"}


def _is(plain: str, value: Any) -> bool:
    if plain == "tuple":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, _PLAIN[plain]) and (plain == "bool" or not isinstance(value, bool))


def _source(name: str, table: Any) -> Source:
    where = f"sources.{name}"
    _check_name(where, name)
    defaults = {"label": name, "url_env": f"SOURCE_{name.upper()}_URL"}
    source: Source = _fill(where, Source, {**defaults, **_table(where, table)}, name=name)
    if "@" in source.default:
        raise DatasetError(where, "default holds a user or password", f"Put the address into {source.url_env} instead.")
    return source


def _check_name(where: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise DatasetError(where, "is no good name", "Use small letters, digits and underscores.")


def _dataset(name: str, table: Any, sources: dict[str, Source]) -> Dataset:
    where = f"datasets.{name}"
    _check_name(where, name)
    table = {"label": name.replace("_", " ").capitalize(), **_table(where, table)}
    declared = table.pop("columns", [])
    if not isinstance(declared, list):
        raise DatasetError(where, "columns is not a list", f"Write each one below a line [[{where}.columns]].")
    columns = tuple(_column(f"{where}.columns[{index}]", item) for index, item in enumerate(declared))
    zone, timed = table.get("time_zone", ""), table.get("time_column", "")
    columns = tuple(replace(one, zone=zone) if one.name == timed and not one.zone else one for one in columns)
    rule = table.pop("row_rule", None)
    rule = _fill(f"{where}.row_rule", RowRule, _table(f"{where}.row_rule", rule)) if rule is not None else None
    dataset: Dataset = _fill(where, Dataset, table, name=name, columns=columns, row_rule=rule)
    _validate(where, dataset, sources)
    return dataset


def _column(where: str, table: Any) -> DatasetColumn:
    if not isinstance(table, dict) or "name" not in table:
        raise DatasetError(where, "has no name", 'Write name = "..." first.')
    label = str(table["name"]).replace("_", " ").capitalize()
    column: DatasetColumn = _fill(where, DatasetColumn, {"label": label, **table})
    if column.type not in specs.COLUMN_TYPES:
        raise DatasetError(
            where, f"type {column.type!r} does not exist", f"It may be: {', '.join(sorted(specs.COLUMN_TYPES))}."
        )
    return column


def _validate(where: str, dataset: Dataset, sources: dict[str, Source]) -> None:
    names = [column.name for column in dataset.columns]
    if negative := [name for name in ("max_rows", "max_mb", "max_days") if getattr(dataset, name) < 0]:
        raise DatasetError(where, f"{negative[0]} is below zero", "Leave it out for no limit.")
    if dataset.keep_days < 1:  # no file is kept for good, and one that expires at once is of use to nobody
        hint = f"Leave it out for {Dataset.keep_days} days, or write how many."
        raise DatasetError(where, "keep_days is below one", hint)
    if dataset.source not in sources:
        raise DatasetError(where, f"source {dataset.source!r} is not declared", f"Add [sources.{dataset.source}].")
    if [bool(dataset.table), bool(dataset.view), bool(dataset.query)].count(True) != 1:
        raise DatasetError(where, "needs exactly one of table, view and query", 'Write, for example, table = "orders".')
    if not names or len(set(names)) != len(names):
        raise DatasetError(where, "has no columns, or one twice", "`manage.py inspect_source` prints them all.")
    for part, wanted in (("key", dataset.key), ("time_column", (dataset.time_column,) if dataset.time_column else ())):
        if missing := [name for name in wanted if name not in names]:
            raise DatasetError(
                where, f"{part} names the unknown column {missing[0]!r}", "Declare it among the columns."
            )
    if bad := [column.name for column in dataset.key_columns if column.type not in specs.KEY_TYPES]:
        raise DatasetError(where, f"{bad[0]} is of a type that is not exact enough for a key", "Leave key out.")
    time_column = dataset.column(dataset.time_column)
    if time_column and time_column.type not in ("date", "datetime"):
        raise DatasetError(where, f"the time column {time_column.name} is no date or datetime", "Correct its type.")
    if time_column and dataset.time_zone and time_column.zone != dataset.time_zone:
        raise DatasetError(
            where,
            f"time_zone is {dataset.time_zone!r}, but the time column {time_column.name} has the zone {time_column.zone!r}",
            "Declare one of the two, and leave the other out.",
        )
    for zone in (dataset.time_zone, *(column.zone for column in dataset.columns)):
        if zone and zone not in available_timezones():
            raise DatasetError(where, f"the zone {zone!r} does not exist", 'Write, for example, "Europe/Berlin".')
    if dataset.row_rule and dataset.row_rule.column not in names:
        raise DatasetError(
            where, f"row_rule names the unknown column {dataset.row_rule.column!r}", "Declare the column."
        )


def thaw(definition: dict[str, Any]) -> Dataset:
    """The dataset that was frozen into an export."""
    return specs.from_json(Dataset, definition)


def may_export(person: Person, dataset: Dataset) -> bool:
    """Whether the person is active, in one of the dataset's groups (if it names any), and has rows by its row rule."""
    if not (isinstance(person, User) and person.is_active):
        return False
    if dataset.row_rule and not rule_values(person, dataset.row_rule):
        return False
    return not dataset.groups or person.is_superuser or person.groups.filter(name__in=dataset.groups).exists()


def visible_to(person: Person) -> list[Dataset]:
    """The datasets that a person may export, by label."""
    return sorted((one for one in catalogue().datasets.values() if may_export(person, one)), key=lambda one: one.label)


def rule_values(person: User, rule: RowRule) -> tuple[str, ...]:
    """The values that a row rule allows this person; username and email are attributes by themselves."""
    if rule.attribute in ("username", "email"):
        own = str(getattr(person, rule.attribute))
        return (own,) if own else ()  # an account without an address is not the owner of all rows without one
    return tuple(person.export_attributes.filter(name=rule.attribute).order_by("value").values_list("value", flat=True))


def still_allowed(export: Export) -> bool:
    """Whether the owner still has the right that the export was asked for with, and sees no fewer rows than then.

    Groups and row rule are today's; a dataset that left the file keeps those it had.
    """
    frozen = thaw(export.definition)
    current = catalogue().datasets.get(export.dataset, frozen)
    if not may_export(export.owner, current):
        return False
    if current.row_rule is None:
        return True
    lists = [one for one in export.query.conditions if one.op in ("in", "exactly")]
    had = [one.values for one in lists if one.column.name == current.row_rule.column]
    now = set(rule_values(export.owner, current.row_rule))
    return any(set(values) <= now for values in had)


def no_longer_allowed(exports: Iterable[Export]) -> list[Export]:
    """Those whose owners have not the right any more; asked once for exports that are alike."""
    allowed: dict[tuple[int, str, str], bool] = {}

    def is_allowed(export: Export) -> bool:
        # What decides: the person, the dataset and the values of its row rule then.
        facts = (export.owner_id, export.dataset, str(export.query_json.get("conditions")))
        if facts not in allowed:
            try:
                allowed[facts] = still_allowed(export)
            except (LookupError, TypeError, ValueError):  # such an export fails by itself; the others are not to suffer
                log.exception("whether %s may go on cannot be told", export.pk)
                return True
        return allowed[facts]

    return [export for export in exports if not is_allowed(export)]


def source_url(export: Export) -> str:
    """The address of an export's source, from the environment."""
    source = catalogue().sources.get(export.source)
    return source.url if source else env_secret(f"SOURCE_{export.source.upper()}_URL")
