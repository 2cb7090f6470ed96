"""What a spreadsheet would run as a formula, by hand from docs/formats.md, and the truth of files that are made safe from it.

Letter by letter and as slow as that is: the engine's own rule is a regular expression, and these have to agree.
"""

from __future__ import annotations

from dataclasses import replace

from tests.oracles.server import Truth

ALWAYS = "=@\t\r\n\0＝＠"
SIGNS = "+-＋－"
BETWEEN_GROUPS = " .,-"


def is_formula(text: str) -> bool:
    if text == "":
        return False
    if text[0] in ALWAYS:
        return True
    return text[0] in SIGNS and not is_number(text[1:])


def is_number(text: str) -> bool:
    """Whether that is a number or a telephone number, the sign being gone; a sign by itself is a dash."""
    mantissa, mark, exponent = text.replace("E", "e").partition("e")
    if mark:
        digits = exponent[1:] if exponent[:1] in ("+", "-") else exponent
        return are_digits(digits) and are_groups(mantissa)
    return text == "" or are_groups(text)


def are_groups(text: str) -> bool:
    group = ""
    for letter in text:
        if letter not in BETWEEN_GROUPS:
            group += letter
        elif not are_digits(group):
            return False
        else:
            group = ""
    return are_digits(group)


def are_digits(text: str) -> bool:
    return text != "" and all(letter in "0123456789" for letter in text)


def defused(text: str) -> str:
    return "'" + text if is_formula(text) else text


def safe(truth: Truth) -> Truth:
    """The truth as it stands in a file that is made safe for spreadsheets; the reader has to be told of it for base64."""
    rows = tuple(
        tuple(
            defused(value.decode()).encode() if kind in ("text", "json") and value is not None else value
            for kind, value in zip(truth.kinds, row, strict=True)
        )
        for row in truth.rows
    )
    return replace(truth, names=tuple(map(defused, truth.names)), rows=rows)
