"""Texts that a spreadsheet would run as formulas (OWASP, "CSV Injection"). Numbers are never among them."""

from __future__ import annotations

import re

# Full-width signs count: Excel takes them for their ASCII forms where East Asian input is set.
_DANGEROUS = re.compile(
    rb"[=@\t\r\n\0]|\xef\xbc[\x9d\xa0]|(?:[+-]|\xef\xbc[\x8b\x8d])(?!(?:\d+(?:[ .,-]?\d+)*(?:[eE][+-]?\d+)?)?\Z)"
)


def is_formula(text: bytes) -> bool:
    """Whether a text begins like a formula. "-1.5", "+44 20 7946" and "-" are numbers, telephones and dashes."""
    return _DANGEROUS.match(text) is not None


_ANY = re.compile(rb'(?:\A|")(?:[=@\t\r\n\0+-]|\xef\xbc)')


def may_hold_formula(quoted: bytes) -> bool:
    """Whether any of several texts, joined by quotes, begins in a way that wants a closer look."""
    return _ANY.search(quoted) is not None


def defused(text: bytes) -> bytes:
    """The text with an apostrophe before it, which spreadsheets take for "this is text", if it needs one."""
    return b"'" + text if is_formula(text) else text
