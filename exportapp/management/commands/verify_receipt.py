"""manage.py verify_receipt: says whether a file is what its receipt says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from exportapp import receipts
from exportapp.engine.sinks.base import BLOCK

DIFFERS, UNREADABLE = 1, 2


class Command(BaseCommand):
    help = (
        "Checks a file against its receipt. Exit codes: 0 it is the same, 1 it differs, 2 one of them cannot be read. "
        "Files are checked as they were downloaded: compressed ones before they are unpacked."
    )
    requires_system_checks: list[str] = []  # it needs neither settings nor a database

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the file; - is the standard input")
        parser.add_argument("receipt", help="its receipt (JSON), from run_export or from the page of an export")

    def handle(self, *args: Any, **options: Any) -> None:
        receipt = _receipt(options["receipt"])
        try:
            told = f"The file is what its receipt says: {int(receipt['rows']):,} rows, {int(receipt['bytes']):,} bytes."
            mistakes = receipts.mistakes(_blocks(options["file"]), receipt)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _no_receipt(options["receipt"]) from error
        if mistakes:
            raise CommandError("\n".join(["The file is not what its receipt says.", *mistakes]), returncode=DIFFERS)
        self.stdout.write(told)


def _receipt(path: str) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _no_receipt(path) from error


def _blocks(path: str) -> Iterator[bytes]:
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be read: {error.strerror}.", returncode=UNREADABLE)


def _no_receipt(path: str) -> CommandError:
    return CommandError(f"{path} is no receipt.", returncode=UNREADABLE)
