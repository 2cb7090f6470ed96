"""docs/formats.md is the registries in words: what is there was made from their entries, and nothing is missing."""

from __future__ import annotations

from pathlib import Path

from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.encoders.base import Format

PAGE = Path(__file__).parent.parent / "docs" / "formats.md"
WORDS = {
    "header": "header",
    "delimiter": "delimiter",
    "bom": "byte order mark",
    "null": "word for NULL",
    "exact": "machine exact",
}


def format_row(key: str, entry: Format) -> str:
    choices = ", ".join(word for name, word in WORDS.items() if name in entry.options) or "none"
    read = "in parts, or in one go" if entry.joins else "in one go"
    compressions = ", ".join(COMPRESSIONS[name].label for name in entry.compressions if name != "none") or "in itself"
    return f"| {entry.label} | `{key}` | .{entry.extension} | {entry.sentence} | {compressions} | {choices} | {read} |"


def test_every_format_has_its_row_and_its_limits() -> None:
    page = PAGE.read_text()
    rows = [line for line in page.partition("## Compression")[0].splitlines() if line.startswith("| ")][1:]
    assert rows == [format_row(key, entry) for key, entry in FORMATS.items()]
    for entry in FORMATS.values():
        assert entry.limits in " ".join(page.split())


def test_every_compression_has_its_row() -> None:
    rows = [line for line in PAGE.read_text().partition("## Compression")[2].splitlines() if line.startswith("| ")][1:]
    assert rows == [f"| {one.label} | `{key}` | {one.sentence} |" for key, one in COMPRESSIONS.items()]
