"""manage.py run_export: asks for an export from the command line, waits for it, and says where the file is."""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Sum

from exportapp import datasets, lifecycle, recipes
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Recipe, RecipeFilter
from exportapp.models import Export, ExportState


class Command(BaseCommand):
    help = "Asks for an export, as the form does, and waits until the workers have made it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("dataset")
        parser.add_argument("--user", required=True, help="whose export it is")
        parser.add_argument("--from", dest="start", default="", help="2026-01-31 or '2026-01-31 14:30', in --zone")
        parser.add_argument("--to", dest="end", default="", help="the end of the range, not included")
        parser.add_argument("--zone", default="UTC")
        parser.add_argument("--columns", default="", help="names with commas between; without: those ticked at first")
        parser.add_argument("--where", action="append", nargs="+", default=[], metavar="COLUMN OP VALUE",
                            help=f"a filter; OP is one of {', '.join(recipes.FILTERS)}")  # fmt: skip
        parser.add_argument("--format", default="csv", choices=FORMATS)
        parser.add_argument("--compression", default="none", choices=COMPRESSIONS)
        parser.add_argument("--name", default="")
        parser.add_argument("--mail", action="store_true", help="mail the user about the outcome")
        parser.add_argument("--no-wait", action="store_true", help="print the export's id and end")

    def handle(self, *args: Any, **options: Any) -> None:
        export = self._request(options)
        if options["no_wait"]:
            self.stdout.write(str(export.pk))
            return
        self._wait(export)

    def _request(self, options: dict[str, Any]) -> Export:
        try:
            owner = User.objects.get(username=options["user"])
            dataset = datasets.catalogue().datasets[options["dataset"]]
        except User.DoesNotExist:
            raise CommandError(f"There is no user {options['user']!r}.") from None
        except KeyError:
            raise CommandError(f"There is no dataset {options['dataset']!r} in the datasets file.") from None
        if len(options["name"]) > 200:
            raise CommandError("A name has at most 200 characters.")
        recipe = _recipe(options, dataset)
        if found := recipes.problems(recipe, dataset):
            raise CommandError("\n".join(f"{field}: {sentence}" for field, sentence in found.items()))
        try:
            return lifecycle.request(
                owner, dataset, recipe, request_key=uuid.uuid4().hex, name=options["name"], notify=options["mail"]
            )
        except ExportError as error:
            raise CommandError(error.sentence) from error

    def _wait(self, export: Export) -> None:
        told = ""
        while export.unfinished:
            time.sleep(0.2)
            export.refresh_from_db()
            rows = export.steps.aggregate(rows=Sum("rows_done"))["rows"] or 0
            line = f"{export.get_state_display().lower()}: {rows:,} of about {export.rows_estimated or 0:,} rows"
            if line != told:
                self.stdout.write(line)
                told = line
        if export.state != ExportState.READY:
            raise CommandError(export.error or f"The export was {export.get_state_display().lower()}.")
        self.stdout.write(f"ready: {export.file_rows:,} rows, {export.file_bytes:,} bytes, {export.file_name}")


def _recipe(options: dict[str, Any], dataset: datasets.Dataset) -> Recipe:
    named = [name.strip() for name in options["columns"].split(",") if name.strip()]
    chosen = named or [column.name for column in dataset.columns if column.selected]
    filters = []
    for where in options["where"]:
        if len(where) < 2:
            raise CommandError(
                "--where takes a column, a comparison and its values, as in: --where status in paid refunded"
            )
        filters.append(RecipeFilter(where[0], where[1], tuple(where[2:])))
    return Recipe(
        dataset=dataset.name,
        columns=tuple(chosen),
        format=options["format"],
        compression=options["compression"],
        start=options["start"],
        end=options["end"],
        zone=options["zone"],
        filters=tuple(filters),
    )
