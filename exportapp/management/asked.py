"""What a command line asks for: dataset, person and recipe, or a CommandError that names each wrong option."""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db import Error as DatabaseError

from exportapp import datasets, recipes
from exportapp.engine.encoders import FORMATS
from exportapp.engine.encoders.delimited import DELIMITERS
from exportapp.engine.specs import FileOptions, Recipe, RecipeFilter
from exportapp.management.output import same_place

FAILED, WRONG, LATER = 1, 2, os.EX_TEMPFAIL  # exit codes

_OPTIONS = {"start": "from", "end": "to"}  # the other fields have the names of their options
_PLACES = ("output", "receipt")
_TEXTS = ("start", "end", "zone", "columns", "user")
NAMED = {label.lower(): delimiter for delimiter, label in DELIMITERS.items()}
_CONDITION = re.compile(r"([^=~]*?)(!=|=|~)(.*)", re.DOTALL)
_COMMA = re.compile(r"(?<!\\),")


def wrong(problems: dict[str, str]) -> CommandError:
    lines = [f"--{_OPTIONS.get(option, option)}: {sentence}" for option, sentence in problems.items()]
    return CommandError("\n".join(["The export cannot be run.", *lines]), returncode=WRONG)


def delimiter(text: str) -> str:
    delimiter = NAMED.get(text.lower(), text.replace("\\t", "\t"))
    if delimiter not in DELIMITERS:
        raise ArgumentTypeError(f"choose one of {', '.join(NAMED)}")
    return delimiter


def check_texts(options: dict[str, Any]) -> None:
    """Raises CommandError for options that are there and say nothing, or nothing that is a text.

    An unset variable of a shell makes an empty option. Taken for none, it would export more than was meant.
    """
    given = [(name, options[name]) for name in (*_PLACES, *_TEXTS) if options[name] is not None]
    given += [(f"where {text}".strip(), text) for text in options["where"]]
    problems = {
        name: "This is empty: give it a value, or leave it out." for name, text in given if _is_empty(name, text)
    }
    problems |= {name: "This is no UTF-8 text." for name, text in given if name not in _PLACES and not _is_text(text)}
    if problems:
        raise wrong(problems)


def _is_empty(name: str, text: str) -> bool:
    return not (text.replace(",", " ") if name == "columns" else text).strip()


def _is_text(text: str) -> bool:
    """File names may be any bytes; what goes to a database and into a receipt may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dataset(name: str) -> datasets.Dataset:
    try:
        return datasets.catalogue().datasets[name]
    except KeyError:
        raise CommandError(f"There is no dataset {name!r} in the datasets file.", returncode=WRONG) from None
    except datasets.DatasetError as error:
        raise CommandError(f"{error}. {error.hint}", returncode=FAILED) from error


def person(name: str | None, dataset: datasets.Dataset) -> User:
    if not name and dataset.row_rule:
        raise wrong({"user": f"Name somebody: of {dataset.label}, everybody may have other rows."})
    if not name:
        return User()  # nobody: without a row rule nothing depends on the person
    try:
        person = User.objects.get(username=name)
        allowed = datasets.may_export(person, dataset)
    except User.DoesNotExist:
        raise wrong({"user": f"There is no user {name!r}."}) from None
    except DatabaseError as error:
        raise CommandError(f"The export desk's own database does not answer [{error}]", returncode=LATER) from error
    if not allowed:
        raise wrong({"user": f"{name} may not export {dataset.label}."})
    return person


def recipe(options: dict[str, Any], dataset: datasets.Dataset) -> Recipe:
    """The recipe that the options ask for, without problems. Raises CommandError with all of them."""
    form = FORMATS[options["format"]]
    chosen = {name: options[name] for name in asdict(FileOptions()) if options[name] not in (None, False)}
    problems = {name: f"{form.label} files have no such choice." for name in chosen if name not in form.options}
    if options["receipt"] and same_place(options["receipt"], options["output"]):
        problems["receipt"] = "This is where the export itself is to go."
    filters = {f"where {text}": _filter(text, dataset) for text in options["where"]}
    named = [name.strip() for name in (options["columns"] or "").split(",") if name.strip()]
    recipe = Recipe(
        dataset=dataset.name,
        columns=tuple(named or [column.name for column in dataset.columns if column.selected]),
        format=options["format"],
        compression=options["compression"],
        start=options["start"] or "",
        end=options["end"] or "",
        zone=options["zone"],
        filters=tuple(filters.values()),
        options=recipes.heeded(options["format"], FileOptions(**chosen)),
        consistency="snapshot",
    )
    where = {f"filters.{number}": option for number, option in enumerate(filters)}
    found = recipes.problems(recipe, dataset)
    if problems := problems | {where.get(field, field): sentence for field, sentence in found.items()}:
        raise wrong(problems)
    return recipe


def _filter(text: str, dataset: datasets.Dataset) -> RecipeFilter:
    parts = _CONDITION.fullmatch(text)
    if not parts or (parts[2] == "!=" and parts[3]):
        raise wrong({f"where {text}": "Write a condition like status=paid; run_export --help shows all kinds."})
    name, sign, value = parts[1].strip(), parts[2], parts[3]
    column = dataset.column(name)
    if sign == "~":
        return RecipeFilter(name, "contains", (value,))
    if not value:
        return RecipeFilter(name, "empty" if sign == "=" else "not_empty")
    if ".." in value and column and column.type in recipes.FILTERS["between"].types:
        low, _, high = value.partition("..")
        return RecipeFilter(name, "between", (low, high))
    values = tuple(one.replace("\\,", ",") for one in _COMMA.split(value))
    if len(values) == 1:
        return RecipeFilter(name, "eq", values)
    return RecipeFilter(name, "in", tuple(one.strip() for one in values))
