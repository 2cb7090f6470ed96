"""Holds a file against the truth, and says in words what is lost, doubled, cut or wrong.

What each format should make of each value stands here, written anew from docs/types.md.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from tests.oracles.files import READERS, Damaged, File, Held, Moment, Number, floating, parsed_json, shortened
from tests.oracles.server import Truth

SHOWN = 5  # rows of each complaint
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_EXCEL_DIGITS = 15
_EXCEL_BEGINS = datetime.date(1900, 3, 1)


def check(format: str, truth: Truth, data: bytes, **more: Any) -> None:
    """Raises AssertionError with a sentence for all that the file has otherwise than the truth.

    `more` goes to the format's reader.
    """
    assert format in READERS, f"there is no oracle for the format {format}: write one in tests/oracles/files.py"
    assert not (found := complaints(format, truth, data, **more)), "\n".join(found)


def complaints(format: str, truth: Truth, data: bytes, **more: Any) -> list[str]:
    """What is wrong with a file, a sentence each."""
    try:
        file = READERS[format](data, truth.kinds, **more)
    except Damaged as error:
        return [f"the file is damaged: {error}"]
    should = [
        tuple(None if raw is None else MEANT[format](kind, raw) for kind, raw in zip(truth.kinds, row, strict=True))
        for row in truth.rows
    ]
    return [*_of_names(truth, file), *_of_rows(truth.names, should, file.rows)]


def _of_names(truth: Truth, file: File) -> list[str]:
    # A file of JSON Lines without rows has no names either.
    if file.names == truth.names or not (file.names or truth.rows):
        return []
    return [f"wrong names: {file.names} instead of {truth.names}"]


def _of_rows(names: Sequence[str], should: Sequence[Held], held: Sequence[Held]) -> list[str]:
    if should == held:
        return []
    missing, strange = Counter(map(repr, should)), Counter(map(repr, held))
    missing, strange = missing - strange, strange - missing
    if not missing and not strange:
        return ["the rows are in another order"]
    known = set(map(repr, should))
    doubled = [row for row in strange.elements() if row in known]
    others = [row for row in strange.elements() if row not in known]
    lost = list(missing.elements())
    wrong = _wrong_values(names, should, held) if len(should) == len(held) and not doubled else []
    complaints = [f"wrong value: {wrong[:SHOWN]} ({len(wrong)})"] if wrong else []
    if lost and not wrong:
        complaints.append(f"lost rows: {len(lost)} of {len(should)}, {_shown(lost)}")
        if should[: len(held)] == held:
            complaints.append(f"cut: only the first {len(held)} of {len(should)} rows are there")
    if doubled:
        complaints.append(f"doubled rows: {len(doubled)}, {_shown(doubled)}")
    if others and not wrong:
        complaints.append(f"rows that the table has not: {len(others)}, {_shown(others)}")
    return complaints


def _wrong_values(names: Sequence[str], should: Sequence[Held], held: Sequence[Held]) -> list[str]:
    return [
        f"row {number}, {name}: {_cell(got)} instead of {_cell(meant)}"
        for number, pair in enumerate(zip(should, held, strict=True), 1)
        for name, meant, got in zip(names, *pair, strict=True)
        if repr(meant) != repr(got)
    ]


def _cell(value: Any) -> str:
    return f"{value!r:.200}"


def _shown(rows: Sequence[str]) -> str:
    return ", ".join(f"{row:.300}" for row in rows[:SHOWN])


# --- what each format should make of a value -------------------------------------------------------------------------


def _in_text(kind: str, raw: bytes) -> Any:
    if kind == "binary":
        return raw
    return floating(kind, raw.decode()) if kind.startswith("float") else raw.decode()


def _in_json(kind: str, raw: bytes) -> Any:
    if kind == "boolean" and raw in (b"0", b"1"):
        return raw == b"1"
    if kind in ("number", "boolean") and _JSON_NUMBER.fullmatch(raw.decode()):
        return Number(raw.decode())
    if kind.startswith("float") and not _JSON_NUMBER.fullmatch(raw.decode()):
        return raw.decode()
    if kind == "json":
        try:
            return parsed_json(raw.decode())
        except ValueError:
            return raw.decode()
    return _in_text(kind, raw)


def _in_sheet(kind: str, raw: bytes) -> Any:
    if kind == "boolean" and raw in (b"0", b"1"):
        return raw == b"1"
    if kind in ("number", "boolean"):
        return _number_in_sheet(raw.decode())
    if kind.startswith("float"):
        return floating(kind, repr(float(raw) + 0.0))
    if kind in _SHEET_MOMENTS:
        return _SHEET_MOMENTS[kind](raw.decode())
    return _in_text(kind, raw)


def _number_in_sheet(text: str) -> Any:
    if not _JSON_NUMBER.fullmatch(text):
        return text
    number = Decimal(text).normalize()
    digits = re.sub("[eE].*|[-.]", "", text).strip("0")
    return Number(str(number)) if len(digits) <= _EXCEL_DIGITS else text


def _date_in_sheet(text: str) -> Any:
    return Moment(text) if _is_excel_day(text) else text


def _datetime_in_sheet(text: str) -> Any:
    day, _, clock = text.partition(" ")
    return Moment(shortened(text)) if _is_excel_day(day) and not _is_finer_than_milliseconds(clock) else text


def _time_in_sheet(text: str) -> Any:
    return Moment(shortened(text)) if not text.startswith("-") and not _is_finer_than_milliseconds(text) else text


def _is_excel_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text) >= _EXCEL_BEGINS
    except ValueError:
        return False


def _is_finer_than_milliseconds(clock: str) -> bool:
    return bool(clock.partition(".")[2][3:].strip("0"))


_SHEET_MOMENTS: dict[str, Callable[[str], Any]] = {
    "date": _date_in_sheet,
    "datetime": _datetime_in_sheet,
    "time": _time_in_sheet,
}


def _in_parquet(kind: str, raw: bytes) -> Any:
    if kind == "boolean":
        return raw == b"1"
    if kind == "number":
        return Number(re.sub(r"^(-?)0+(?=[0-9])", r"\1", raw.decode()))  # a true number has no zeros before it
    if kind in ("date", "datetime"):
        return Moment(shortened(raw.decode()))
    return _in_text(kind, raw)  # a TIME as well: Parquet has times of day, and this is a span


MEANT: dict[str, Callable[[str, bytes], Any]] = {
    "csv": _in_text,
    "tsv": _in_text,
    "jsonl": _in_json,
    "xlsx": _in_sheet,
    "parquet": _in_parquet,
}
