"""manage.py inspect_source: writes a datasets file for the tables that a database has."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from exportapp.datasets import NAME, DatasetError, Source, catalogue
from exportapp.engine.specs import KEY_TYPES
from exportapp.introspection import Table, TableColumn, Unreachable, inspecting

# Which of several time columns people mean: when something came to be, and rather not when it was last touched.
TIME_WORDS = (
    "created",
    "placed",
    "ordered",
    "inserted",
    "occurred",
    "happened",
    "received",
    "date",
    "time",
    "_at",
    "_on",
)
LATE_WORDS = ("updated", "modified", "changed", "deleted", "expires")


class Command(BaseCommand):
    help = "Prints a source and a dataset for each of its tables, to be saved as a datasets file and trimmed."
    requires_system_checks: list[str] = []  # it helps to write the very file that the checks would miss

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the source; its address is in SOURCE_<NAME>_URL")
        parser.add_argument("--table", action="append", default=[], help="only this table or view; may be repeated")

    def handle(self, *args: Any, **options: Any) -> None:
        source = _source(options["name"])
        if not source.url:
            raise CommandError(f"Set {source.url_env}=mysql://user:password@host:3306/database first.")
        try:
            with inspecting(source.url) as inspector:
                tables = inspector.tables()
        except Unreachable as error:
            raise CommandError(f"The source {source.name} could not be looked at: {error}.") from error
        except ImportError as error:
            raise CommandError("mysqlclient is not installed; `manage.py check` says how to add it.") from error
        wanted = options["table"] or sorted(tables)
        if missing := [name for name in wanted if name not in tables]:
            raise CommandError(f"There is no table or view {missing[0]!r}.")
        self.stdout.write(_source_text(source))
        taken: set[str] = set()
        for name in wanted:
            self.stdout.write(_dataset_text(source, tables[name], taken))


def _source(name: str) -> Source:
    if not NAME.fullmatch(name):
        raise CommandError("A source's name has small letters, digits and underscores.")
    try:
        declared = catalogue().sources.get(name)
    except DatasetError:
        declared = None
    return declared or Source(name, label=name, url_env=f"SOURCE_{name.upper()}_URL")


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's (TOML 1.0, "String")."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _source_text(source: Source) -> str:
    lines = [
        f"[sources.{source.name}]",
        f"label = {_text(source.label or source.name)}",
        f"url_env = {_text(source.url_env)}  # the variable with the address; never write a password here",
        *([f"default = {_text(source.default)}"] if source.default else []),
        f"connections = {source.connections}",
        "",
    ]
    return "\n".join(lines)


def _dataset_text(source: Source, table: Table, taken: set[str]) -> str:
    name = _name(table.name, taken)
    key = _key_of(table)
    time = _time_of(table)
    lines = [
        f"[datasets.{name}]",
        f"source = {_text(source.name)}",
        f"label = {_text(_words(table.name))}",
        f"{'view' if table.is_view else 'table'} = {_text(table.name)}",
        f"key = {_list(key)}" if key else "# no unique key that can be cut into ranges: exports are read in one go",
    ]
    if time:
        check = "" if time.utc else "  # the zone that the times are stored in: please check"
        lines += [f"time_column = {_text(time.name)}", f'time_zone = "UTC"{check}']
    lines += ["groups = []  # empty: everybody who is signed in may export this", ""]
    labels = _labels(table.columns)
    return "\n".join([*lines, *(_column_text(name, column, labels[column.name]) for column in table.columns)])


def _labels(columns: Iterable[TableColumn]) -> dict[str, str]:
    """What each column is called; by its very name where another would be called the same."""
    words = {column.name: _words(column.name) for column in columns}
    times = Counter(words.values())
    return {name: label if times[label] == 1 else name for name, label in words.items()}


def _name(table: str, taken: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9_]+", "_", table.lower()).strip("_")[:90] or "table"
    plain = plain if plain[0].isalpha() else f"t_{plain}"
    number, name = 2, plain
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    taken.add(name)
    return name


def _words(name: str) -> str:
    return name.replace("_", " ").strip().capitalize() or name


def _key_of(table: Table) -> list[str]:
    for unique in table.unique:
        columns = [table.column(name) for name in unique]
        if all(
            column and not column.nullable and column.type in KEY_TYPES and not column.choices for column in columns
        ):
            return list(unique)
    return []


def _time_of(table: Table) -> TableColumn | None:
    indexed = {index[0] for index in table.indexes}

    def rank(column: TableColumn) -> tuple[bool, bool, bool, int, bool]:
        name = column.name.lower()
        late = any(word in name for word in LATE_WORDS)
        likely = next((place for place, word in enumerate(TIME_WORDS) if word in name), len(TIME_WORDS))
        return (column.name not in indexed, late, column.nullable, likely, column.type == "date")

    times = [column for column in table.columns if column.type in ("datetime", "date")]
    return min(times, key=rank, default=None)


def _column_text(dataset: str, column: TableColumn, label: str) -> str:
    lines = [f"[[datasets.{dataset}.columns]]", f"name = {_text(column.name)}", f"label = {_text(label)}"]
    # That is what MySQL makes of BOOLEAN, and some keep other numbers in it.
    check = '  # please check: 0 and 1 alone? Else "integer"' if column.declared == "tinyint(1)" else ""
    lines.append(f"type = {_text(column.type)}{check}")
    if column.comment:
        lines.append(f"description = {_text(column.comment)}")
    if column.scale is not None:
        lines.append(f"scale = {column.scale}")
    if column.choices:
        lines.append(f"choices = {_list(column.choices)}")
    if column.type == "binary":
        lines.append("selected = false")
    return "\n".join([*lines, ""])
