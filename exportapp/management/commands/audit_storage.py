"""manage.py audit_storage: finds files whose row is gone and rows whose file is gone."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from exportapp import storage
from exportapp.audit import audit
from exportapp.engine.errors import ExportError

FOUND = 1


class Command(BaseCommand):
    help = (
        "Compares the store with the exports' rows: files that are missing or of another size, and files and open uploads "
        "that nobody needs. Ends with 0 when all fits together, with 1 when something was found."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--delete", action="store_true", help="delete the files and uploads that nobody needs")

    def handle(self, *args: Any, **options: Any) -> None:
        found = deleted = 0
        try:
            for finding in audit():
                found += 1
                self.stdout.write(finding.text)
                if options["delete"] and finding.leftover:
                    storage.store().delete(finding.leftover)
                    deleted += 1
        except ExportError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{found} found, {deleted} deleted." if found else "Files and rows fit together.")
        if found > deleted:
            raise SystemExit(FOUND)
