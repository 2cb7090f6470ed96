"""Texts that a spreadsheet would run as formulas (OWASP, "CSV Injection"). Numbers are never among them."""

from __future__ import annotations

import re
from itertools import chain

# Full-width signs count: Excel takes them for their ASCII forms where East Asian input is set.
_ALWAYS = rb"[=@\0]|\xef\xbc[\x9d\xa0]"
_BLANKS = rb"[\t\r\n]"
# Possessive, and never two ways to read the same digits: the texts are anybody's, and may be chosen to take for ever. The
# branches with nothing in them: Python before 3.11.5 goes on from where a failed repeat had stopped (gh-106052).
_DIGITS = rb"(?>\d++(?:[ .,-]\d++|(?!))*+(?>[eE][+-]?\d++|)|)"
_SIGNED = rb"(?:[+-]|\xef\xbc[\x8b\x8d])(?!" + _DIGITS + rb"%b)"

_ONE = re.compile(rb"%b|%b|%b" % (_ALWAYS, _BLANKS, _SIGNED % rb"\Z"))
_IN_LIST = rb"(?:%b|%b|%b)" % (_ALWAYS, _BLANKS, _SIGNED % rb"(?:\x7f|\Z)")
_FIRST_OF_LIST, _NEXT_OF_LIST = re.compile(_IN_LIST), re.compile(rb"\x7f(?=%b)" % _IN_LIST)
_BEGINNINGS = (b"=", b"@", b"\0", b"\xef\xbc\x9d", b"\xef\xbc\xa0")
_SIGNS = (b"-", b"+", b"\xef\xbc\x8b", b"\xef\xbc\x8d")
_NUMBER_FOLLOWS = re.compile(_DIGITS + b'"')


def is_formula(text: bytes) -> bool:
    """Whether a text begins like a formula. "-1.5", "+44 20 7946" and "-" are numbers, telephones and dashes."""
    return _ONE.match(text) is not None


def defused(text: bytes) -> bytes:
    """The text with an apostrophe before it, which spreadsheets take for "this is text", if it needs one."""
    return b"'" + text if is_formula(text) else text


def all_defused(texts: bytes) -> bytes:
    """The same for many texts at once, with a DEL between each two of them."""
    rest = _NEXT_OF_LIST.sub(b"\x7f'", texts)
    return b"'" + rest if _FIRST_OF_LIST.match(texts) else rest


def quoted_defused(block: bytes) -> bytes:
    """The same for all texts of a block where quotes stand around them and nowhere else.

    Those that begin with a tab or a line end are left: behind a closing quote these are no part of a text.
    """
    # Not by one regular expression: a single byte that is nowhere is found missing at the speed of memory.
    for beginning in _BEGINNINGS:
        if beginning[:1] in block:
            block = block.replace(b'"' + beginning, b"\"'" + beginning)
    for sign in _SIGNS:
        if sign[:1] in block and b'"' + sign in block:
            before, *texts = block.split(b'"' + sign)
            signed = [b'"' + sign if _NUMBER_FOLLOWS.match(text) else b"\"'" + sign for text in texts]
            block = before + b"".join(chain.from_iterable(zip(signed, texts, strict=True)))
    return block
