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
from exportapp.management.progress import Unheard

DIFFERS, UNREADABLE = 1, 2


class Command(BaseCommand):
    help = (
        "Checks a file against its receipt: its bytes and the SHA-256 of all of it and of each part; rows are not counted. "
        "Exit codes: 0 it is the same, 1 it differs, or the receipt contradicts itself, 2 one of them cannot be read, or "
        "is no receipt. Files are checked as they were downloaded: compressed ones before they are unpacked."
    )
    requires_system_checks: list[str] = []  # it needs neither settings nor a database

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the file; - is the standard input")
        parser.add_argument("receipt", help="its receipt (JSON), from run_export or from the page of an export")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout, self.stderr = Unheard(self.stdout), Unheard(self.stderr)
        said = _claims(options["receipt"])
        if mistakes := receipts.mistakes(_blocks(options["file"]), said):
            raise CommandError("\n".join(["The file is not what its receipt says.", *mistakes]), returncode=DIFFERS)
        self.stdout.write(
            f"The file is what its receipt says: {said.whole.bytes:,} bytes, and the same SHA-256 of all of them and of "
            f"each part. Rows were not counted; the receipt says {said.whole.rows:,}."
        )


def _claims(path: str) -> receipts.Claims:
    try:
        return receipts.claims(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise _unreadable(path, error) from error
    except receipts.NoReceipt as error:
        raise _no_receipt(path, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _no_receipt(path, "it is no JSON") from error


def _blocks(path: str) -> Iterator[bytes]:
    if path == "-" and sys.stdin is None:
        raise CommandError("The standard input cannot be read: it is closed.", returncode=UNREADABLE)
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be read: {error.strerror}.", returncode=UNREADABLE)


def _no_receipt(path: str, reason: str) -> CommandError:
    return CommandError(f"{path} is no receipt: {reason}.", returncode=UNREADABLE)
