"""Keeps the last lines of campaigns in docs/faults.md."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
HEAD = "| date | machine | faults for | files | result |\n|---|---|---|---|---|\n"
KEPT = 12


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores, {memory} GB, {platform.system()} {platform.machine()}"


def write(line: str, seconds: float, store: str) -> None:
    """Puts the line on top of the table at the page's end."""
    text, _, rows = PAGE.read_text().partition(HEAD)
    new = f"| {time.strftime('%Y-%m-%d')} | {machine()} | {seconds / 60:g} min | {store} | `{line}` |"
    PAGE.write_text(text + HEAD + "\n".join([new, *rows.splitlines()][:KEPT]) + "\n")
