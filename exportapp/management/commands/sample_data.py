"""Writes the demo shop into a source database, so that there is something to export."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from exportapp.environment import env_secret
from exportapp.sample import SampleError, write_shop

VARIABLE = "SOURCE_SHOP_URL"


class Command(BaseCommand):
    help = "Writes the demo shop: customers, products, orders and order lines. A shop that is there is left alone."
    requires_system_checks: list[str] = []  # the app's own database and services are not involved

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--url",
            help=f"sqlite:////path/file or mysql://user:password@host:port/database; without it, {VARIABLE} says where",
        )
        parser.add_argument("--orders", type=int, default=200_000, help="how many orders (default 200000)")
        parser.add_argument("--seed", type=int, default=20261101, help="another number, another shop")
        parser.add_argument("--replace", action="store_true", help="write a shop anew that is there already")

    def handle(self, *args: Any, **options: Any) -> None:
        url = options["url"] or env_secret(VARIABLE)
        if not url:
            raise CommandError(f"Say where the shop goes: --url, or the environment variable {VARIABLE}.")
        begun = time.monotonic()
        try:
            counts = write_shop(url, options["orders"], options["seed"], self.stdout.write, replace=options["replace"])
        except (SampleError, OSError, sqlite3.Error) as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            # The MySQL driver may be absent, so its errors are known by their module only.
            if not type(error).__module__.startswith("MySQLdb") and not isinstance(error, ImportError):
                raise
            raise CommandError(f"MySQL: {error}") from error
        rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
        self.stdout.write(f"The shop has {rows} ({time.monotonic() - begun:.1f} seconds).")
