"""The system checks: what is wrong with settings and with datasets.toml, told at start, each with what to do.

An error stops the start: a setting that is not understood, a key that would lose rows. What makes one dataset's exports
fail, or a source that does not answer, is a warning: the desk starts for all the others.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.management.base import BaseCommand
from django.db import Error as DatabaseError
from django.db import connection

from exportapp.datasets import Catalogue, Dataset, DatasetError, Source, catalogue
from exportapp.engine.specs import MOMENT_TYPES, NUMBER_TYPES
from exportapp.environment import PROBLEMS
from exportapp.introspection import Inspector, Table, Unreachable, inspecting

SETTINGS = "settings"
ADD_DRIVER = "apt-get install -y gcc pkg-config python3-dev libmariadb-dev && .venv/bin/pip install -r requirements.txt"


def check_settings() -> None:
    """For a process that no management command starts. Raises SystemCheckError with all wrong settings and hints."""
    BaseCommand().check(tags=[SETTINGS])


@register(SETTINGS)
def environment(**_: Any) -> list[CheckMessage]:
    """Variables that were not understood, and parts that do not fit together."""
    found: list[CheckMessage] = [
        Error(f"{problem.variable}: {problem.message}.", hint=problem.hint, id="exportapp.E001") for problem in PROBLEMS
    ]
    sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    if sqlite and not settings.BROKER_URL.startswith("memory:"):
        found.append(
            Warning(
                "EXPORTAPP_BROKER_URL names a broker, but the app database is SQLite, which serves one machine alone.",
                hint="Set EXPORTAPP_DATABASE_URL to a MySQL or MariaDB database.",
                id="exportapp.W002",
            )
        )
    if not sqlite and not _has_driver():
        found.append(
            Error("EXPORTAPP_DATABASE_URL needs mysqlclient.", hint=f"This adds it: {ADD_DRIVER}", id="exportapp.E003")
        )
    elif not sqlite:
        found += _app_database()
    return found + list(_storage())


def _app_database() -> Iterator[CheckMessage]:
    """Whether it lets us in. Only a warning: it may be down at the moment, and come back."""
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        yield Warning(
            f"EXPORTAPP_DATABASE_URL: the database does not let the app in: {error.args[-1]}.",
            hint="Are host, user, password and database right, and is it running?",
            id="exportapp.W006",
        )


def _has_driver() -> bool:
    return importlib.util.find_spec("MySQLdb") is not None


def _storage() -> Iterator[CheckMessage]:
    parts = urlsplit(settings.STORAGE_URL)
    if parts.scheme == "s3" and not parts.netloc:
        yield Error(
            "EXPORTAPP_STORAGE_URL names no bucket.", hint="Write it like s3://bucket/prefix.", id="exportapp.E004"
        )
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        existing = next(one for one in (folder, *folder.parents) if one.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            yield Error(
                f"EXPORTAPP_STORAGE_URL: {existing} cannot be written to.",
                hint="Name a folder that this user may write to.",
                id="exportapp.E005",
            )


@register(SETTINGS)
def datasets_file(**_: Any) -> list[CheckMessage]:
    """The datasets file by itself."""
    try:
        if catalogue().datasets:
            return []
    except DatasetError as error:
        return [Error(f"{_file()}: {error}.", hint=error.hint, id="exportapp.E010")]
    hint = "`manage.py inspect_source NAME` writes them for a database."
    return [Warning(f"{_file()}: there is no dataset in it.", hint=hint, id="exportapp.W015")]


@register
def datasets(**_: Any) -> list[CheckMessage]:
    """The datasets against their sources."""
    try:
        declared = catalogue()
    except DatasetError:
        return []  # told by the check above
    return [message for source in declared.sources.values() for message in _source(source, declared)]


def _file() -> str:
    return Path(settings.DATASETS_FILE).name


def _source(source: Source, declared: Catalogue) -> Iterator[CheckMessage]:
    where = f"{_file()}: sources.{source.name}"
    mine = [dataset for dataset in declared.datasets.values() if dataset.source == source.name]
    if not source.url:
        yield Warning(f"{where} has no address.", hint=f"Set {source.url_env}=mysql://user:password@host:3306/database", id="exportapp.W011")  # fmt: skip  # noqa: E501
        return
    try:
        with inspecting(source.url) as inspector:
            tables = inspector.tables()
            for dataset in mine:
                yield from _dataset(dataset, tables, inspector)
    except Unreachable as error:
        yield Warning(f"{where} was not looked at: {error}.", hint=f"Is {source.url_env} right?", id="exportapp.W012")
    except ImportError:
        yield Error(f"{where} needs mysqlclient.", hint=f"This adds it: {ADD_DRIVER}", id="exportapp.E013")
    except Exception as error:
        # Whatever a server answers to our questions, a check must not keep the desk from starting.
        yield Warning(f"{where} could not be looked at: {type(error).__name__}.", hint=str(error), id="exportapp.W014")


def _dataset(dataset: Dataset, tables: dict[str, Table], inspector: Inspector) -> Iterator[CheckMessage]:
    where = f"{_file()}: datasets.{dataset.name}"
    if dataset.query:
        try:
            table = Table("", inspector.columns_of(dataset.query), is_view=True)
        except ValueError as error:
            yield Warning(
                f"{where}: the query does not run: {error}.", hint="Try it in the database.", id="exportapp.W020"
            )
            return
    elif dataset.relation in tables:
        table = tables[dataset.relation]
    else:
        yield Warning(
            f"{where}: there is no table or view {dataset.relation!r}.",
            hint=_near(dataset.relation, tables) or "Is the user allowed to SELECT from it?",
            id="exportapp.W021",
        )
        return
    yield from _columns(where, dataset, table)
    yield from _time_zone(where, dataset, table)
    if not table.is_view:
        yield from _key(where, dataset, table)
        yield from _time_index(where, dataset, table)


def _near(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), n=3)
    return f"Did you mean {' or '.join(close)}?" if close else ""


def _columns(where: str, dataset: Dataset, table: Table) -> Iterator[CheckMessage]:
    names = [column.name for column in table.columns]
    for declared in dataset.columns:
        real = table.column(declared.name)
        if real is None:
            yield Warning(
                f"{where}: there is no column {declared.name!r}.",
                hint=_near(declared.name, names) or f"There are: {', '.join(names)}.",
                id="exportapp.W022",
            )
        elif real.type and not _fits(declared.type, real.type):
            # A key of the wrong type is cut and ordered wrongly, which loses rows.
            severe = declared.name in dataset.key
            yield (Error if severe else Warning)(
                f"{where}: {declared.name} is declared as {declared.type}, but is {real.declared or real.type}.",
                hint=f'Write type = "{real.type}".',
                id="exportapp.E023" if severe else "exportapp.W023",
            )


def _fits(declared: str, real: str) -> bool:
    """Whether values of the real type can be written as the declared one."""
    if declared in NUMBER_TYPES | {"boolean"}:
        return real in NUMBER_TYPES | {"boolean"}
    if declared in MOMENT_TYPES:
        return real == declared or {declared, real} <= {"date", "datetime"}
    if declared == "binary" or real == "binary":
        return declared == real
    return declared in ("text", "json") and real not in NUMBER_TYPES


def _key(where: str, dataset: Dataset, table: Table) -> Iterator[CheckMessage]:
    if not dataset.key:
        return
    whole = set(dataset.key)
    if not any(set(unique) <= whole for unique in table.unique):
        known = " or ".join(str(list(unique)) for unique in table.unique)
        hint = f"Unique are: {known}." if known else "Leave key out: the export is then read in one go."
        yield Error(f"{where}: the key {list(dataset.key)} is not unique.", hint=hint, id="exportapp.E024")
    for name in dataset.key:
        column = table.column(name)
        if column and column.nullable:
            yield Error(
                f"{where}: the key column {name} may be NULL, and rows with NULL would be left out.",
                hint="Choose a key of columns that are NOT NULL, or leave key out.",
                id="exportapp.E025",
            )
        if column and column.declared.startswith(("enum", "set")):
            yield Error(
                f"{where}: the key column {name} is an {column.declared[:4].strip('(').upper()}, whose order is not that "
                "of its texts: rows would be left out.",
                hint="Choose another key, or leave key out.",
                id="exportapp.E027",
            )


def _time_zone(where: str, dataset: Dataset, table: Table) -> Iterator[CheckMessage]:
    column = table.column(dataset.time_column)
    if column and column.utc and dataset.stored_zone != "UTC":
        yield Error(
            f"{where}: {column.name} is a TIMESTAMP, which is read in UTC, but time_zone is {dataset.stored_zone}: every "
            "range would be shifted.",
            hint="Declare UTC for it, as time_zone or as the column's zone.",
            id="exportapp.E028",
        )


def _time_index(where: str, dataset: Dataset, table: Table) -> Iterator[CheckMessage]:
    if dataset.time_column and not any(index[0] == dataset.time_column for index in table.indexes):
        yield Warning(
            f"{where}: no index begins with the time column {dataset.time_column}; each export reads the whole table.",
            hint=f"CREATE INDEX {table.name}_{dataset.time_column} ON {table.name} ({dataset.time_column})",
            id="exportapp.W026",
        )
