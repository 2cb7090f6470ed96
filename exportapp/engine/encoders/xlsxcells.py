"""Cells of SpreadsheetML (ECMA-376 part 1, 18.3.1.4), a column of a batch at a time; knows nothing of sheets and files.

Whatever Excel would show or keep in another way than the source has it becomes a text with all that the value says.
"""

from __future__ import annotations

import datetime
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import lru_cache
from zoneinfo import ZoneInfo

from exportapp.engine.encoders.formulas import is_formula
from exportapp.engine.encoders.texts import check_utf8, no_utf8
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, Values

LONGEST_TEXT = 32_767  # these four: "Excel specifications and limits"
DIGITS = 15
FLOAT_DIGITS = 17  # the file holds the whole double; among texts, a sum would silently leave the number out
LARGEST_NUMBER = 9.99999999999999e307
SMALLEST_NUMBER = 2.2250738585072014e-308
DAY = 86_400_000  # milliseconds
KEPT_VALUES = 10_000

# The places of the cell formats in styles.xml; a decimal's formats by its scale follow.
PLAIN, HEADER, QUOTED_HEADER, QUOTED, VERBATIM, WHOLE, DATE, MOMENT, MOMENT_MS, CLOCK, CLOCK_MS = range(11)
SCALES = 11

Cells = tuple[bytes, Sequence[bytes]]  # a template with one %b, and what goes into it row by row

NULL = b"<c/>"
READY = b"%b"
# Cells without "r" follow each other (18.3.1.4): no reference has to be made for each.
_NUMBER_CELL = b'<c s="%d"><v>%%b</v></c>'
_TEXT = b'<c t="inlineStr"><is><t>%b</t></is></c>'
_SPACED_TEXT = b'<c t="inlineStr"><is><t xml:space="preserve">%b</t></is></c>'
_STYLED_TEXT = b'<c s="%d" t="inlineStr"><is><t xml:space="preserve">%b</t></is></c>'

BORDER = b"\xff"  # in no UTF-8 text: a whole column is looked at joined by it, and split again
_ILLEGAL = rb"[\0-\x08\x0b-\x1f]|\xef\xbf[\xbe\xbf]"  # XML 1.0, 2.2; \r besides, which XML reads as \n (2.11)
_ESCAPED = re.compile(b"(%b)|_(?=x[0-9A-Fa-f]{4}(?:_|%b))" % (_ILLEGAL, _ILLEGAL))
_ORDINARY = bytes(set(range(256)) - set(b"&<>") - (set(range(32)) - set(b"\t\n")))
_SUSPECT = re.compile(BORDER + rb"[=@+\-\t\r\n\0\xef]")  # nothing else begins what formulas.is_formula takes for one

# (?!): Python before 3.11.5 takes ",1," for numbers otherwise (gh-106052).
_PLAIN_NUMBERS = re.compile(rb"(?:,-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+|(?!))*+")
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(rb"(\d{4})-(\d\d)-(\d\d)")
_TIME_OF_DAY = rb"[ T]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)"
_SECOND = re.compile(_TIME_OF_DAY)
_MOMENT = re.compile(rb"(\d{4}-\d\d-\d\d)%b(?:\.(\d{1,6}))?([+-]\d\d:\d\d)?" % _TIME_OF_DAY)
_CLOCK = re.compile(rb"(\d{2,3}:[0-5]\d:[0-5]\d)(?:\.(\d{1,6}))?")
_DAY_0 = datetime.date(1899, 12, 30).toordinal()
_FIRST_DAY = 61  # 1900-03-01: before it stands a 29 February 1900 that never was


class CellWriter:
    """Writes the columns of one file; what it remembers is bounded."""

    def __init__(self, exact: bool) -> None:
        self._exact = exact
        self._booleans = _Memo(self._boolean)
        self._dates = _Memo(self._date)
        self._clocks = _Memo(self._clock)
        self._days = _Memo(lambda raw: b"%d" % _day(raw))
        self._seconds = _Memo(_second, limit=2 * 86_400)

    def writer(self, column: Column, style: int) -> Callable[[Values], Cells]:
        """What writes the column; `style` is the format of its numbers."""
        writers: dict[str, Callable[[Values], Cells]] = {
            "integer": lambda values: self._numbers(values, style),
            "decimal": lambda values: self._numbers(values, style),
            "float": lambda values: self._numbers(values, style, FLOAT_DIGITS),
            "boolean": lambda values: (READY, list(map(self._booleans.__getitem__, values))),
            "date": lambda values: (READY, list(map(self._dates.__getitem__, values))),
            "time": lambda values: (READY, list(map(self._clocks.__getitem__, values))),
            "datetime": lambda values: self._moments(values, column.zone),
            "binary": lambda values: self.texts([v if v is None else b64encode(v) for v in values], column),
        }
        return writers.get(column.type, lambda values: self.texts(values, column))

    def texts(self, values: Values, column: Column) -> Cells:
        """Texts, whatever they look like. Raises ExportError for those that are too long, or no texts."""
        present, joined = _joined(values, BORDER)
        if not present:
            return READY, [NULL] * len(values)
        _check_utf8(joined, len(present))
        _check_lengths(present, column.title)
        texts: Sequence[bytes] = present
        if joined.translate(None, _ORDINARY) or b"_x" in joined or b"\xef\xbf" in joined:
            texts = _escaped(joined).split(BORDER)
        template = _SPACED_TEXT if _has_spaces(joined) else _TEXT
        if not self._exact and _SUSPECT.search(BORDER + joined):
            pairs = zip(present, texts, strict=True)
            texts = [_styled(text, QUOTED) if is_formula(raw) else template % text for raw, text in pairs]
            template = READY
        return _with_nulls(template, texts, values)

    def verbatim(self, raw: bytes) -> bytes:
        """A number, date or time that Excel would change, as a text."""
        _check_utf8(raw, 1)
        _check_lengths([raw], "A column")
        return _styled(_escaped(raw), QUOTED if not self._exact and is_formula(raw) else VERBATIM)

    def _numbers(self, values: Values, style: int, digits: int = DIGITS) -> Cells:
        cell = _NUMBER_CELL % style
        present, joined = _joined(values, b",")
        short = bool(present) and max(map(len, present)) <= DIGITS and joined.count(b",") == len(present) - 1
        if short and _PLAIN_NUMBERS.fullmatch(b"," + joined):
            return _with_nulls(cell, present, values)
        cells = [cell % raw if _fits(raw, digits) else self.verbatim(raw) for raw in present]
        return _with_nulls(READY, cells, values)

    def _boolean(self, raw: bytes) -> bytes:
        if raw in (b"0", b"1"):
            return b'<c t="b"><v>%b</v></c>' % raw
        return _NUMBER_CELL % WHOLE % raw if _fits(raw) else self.verbatim(raw)

    def _date(self, raw: bytes) -> bytes:
        try:
            return _NUMBER_CELL % DATE % b"%d" % _day(raw)
        except ValueError:
            return self.verbatim(raw)

    def _moments(self, values: Values, zone: str) -> Cells:
        try:
            if _are_plain_moments(values, zone):
                days, seconds = self._days, self._seconds
                cells = [days[value[:10]] + seconds[value[10:19]] for value in values]  # type: ignore[index]
                return _NUMBER_CELL % MOMENT, cells
        except (TypeError, ValueError):  # one is NULL or has to be a text
            pass
        return READY, [NULL if value is None else self._moment(value, zone) for value in values]

    def _moment(self, raw: bytes, zone: str) -> bytes:
        try:
            day, clock, fraction, offset = _matched(_MOMENT, raw)
            if bool(offset) != bool(zone) or (zone and not _has_own_offset(raw, zone)):
                return self.verbatim(raw)
            serial = self._days[day] + _share_of_day(_milliseconds(clock, fraction))
            return _NUMBER_CELL % (MOMENT if fraction is None else MOMENT_MS) % serial
        except ValueError:
            return self.verbatim(raw)

    def _clock(self, raw: bytes) -> bytes:
        try:
            clock, fraction = _matched(_CLOCK, raw)
            serial = repr(_milliseconds(clock, fraction) / DAY).encode()
            return _NUMBER_CELL % (CLOCK if fraction is None else CLOCK_MS) % serial
        except ValueError:
            return self.verbatim(raw)


class _Memo(dict[bytes | None, bytes]):
    """Remembers what `make` made; forgets all when it has too much."""

    def __init__(self, make: Callable[[bytes], bytes], limit: int = KEPT_VALUES) -> None:
        self._make = make
        self._limit = limit

    def __missing__(self, raw: bytes | None) -> bytes:
        if len(self) >= self._limit:
            self.clear()
        made = self[raw] = NULL if raw is None else self._make(raw)
        return made


def header(title: str, exact: bool) -> bytes:
    """The cell of a column's title."""
    raw = title.encode()
    return _styled(_escaped(raw), QUOTED_HEADER if not exact and is_formula(raw) else HEADER)


def _joined(values: Values, border: bytes) -> tuple[Sequence[bytes], bytes]:
    try:
        return values, border.join(values)  # type: ignore[return-value, arg-type]
    except TypeError:
        present = [value for value in values if value is not None]
        return present, border.join(present)


def _with_nulls(template: bytes, present: Sequence[bytes], values: Values) -> Cells:
    if len(present) == len(values):
        return template, present
    cells = map(template.__mod__, present)
    return READY, [NULL if value is None else next(cells) for value in values]


def _styled(text: bytes, style: int) -> bytes:
    return _STYLED_TEXT % (style, text)


def _has_spaces(joined: bytes) -> bool:
    bordered = BORDER + joined + BORDER
    return b"\xff " in bordered or b" \xff" in bordered or b"\n" in joined or b"\t" in joined


def _escaped(text: bytes) -> bytes:
    text = _ESCAPED.sub(_escape, text)
    return text.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")


def _escape(match: re.Match[bytes]) -> bytes:
    """A character as _xHHHH_, and the _ of a text that already looks so (22.9.2.19, ST_Xstring)."""
    return b"_x%04X_" % ord((match[1] or b"_").decode())


def _check_utf8(joined: bytes, texts: int) -> None:
    if joined.count(BORDER) != texts - 1:
        raise no_utf8("A text column holds bytes that are", "a byte 0xff")
    check_utf8(joined.replace(BORDER, b"\n"))


def _check_lengths(texts: Sequence[bytes], title: str) -> None:
    """Excel counts in UTF-16; a text has no more units there than bytes in UTF-8."""
    if max(map(len, texts)) <= LONGEST_TEXT:
        return
    longest = max(len(text.decode().encode("utf-16-le")) // 2 for text in texts if len(text) > LONGEST_TEXT)
    if longest > LONGEST_TEXT:
        raise ExportError(f"{title} holds a text of {longest:,} characters; Excel cells hold at most {LONGEST_TEXT:,}. "
                          "Leave the column out, or choose CSV, JSON Lines or Parquet.", permanent=True)  # fmt: skip


def _fits(raw: bytes, most: int = DIGITS) -> bool:
    """Whether Excel keeps the number as it is written here, but for zeros at its end."""
    match = _NUMBER.fullmatch(raw)
    if match is None:
        return False
    digits = (match[1] + (match[2] or b"")).strip(b"0")
    return len(digits) <= most and (not digits or SMALLEST_NUMBER <= abs(float(raw)) <= LARGEST_NUMBER)


def _matched(pattern: re.Pattern[bytes], raw: bytes) -> tuple[bytes, ...]:
    match = pattern.fullmatch(raw)
    if match is None:
        raise ValueError(raw)
    return match.groups()


def _day(raw: bytes) -> int:
    """The serial number of a date. Raises ValueError for a date that Excel has not."""
    day = datetime.date(*map(int, _matched(_DATE, raw))).toordinal() - _DAY_0
    if day < _FIRST_DAY:
        raise ValueError(raw)
    return day


def _second(raw: bytes) -> bytes:
    (clock,) = _matched(_SECOND, raw)
    return _share_of_day(_milliseconds(clock, None))


def _milliseconds(clock: bytes, fraction: bytes | None) -> int:
    """Raises ValueError for what is finer than Excel's milliseconds."""
    digits = fraction or b""
    if digits[3:].strip(b"0"):
        raise ValueError(fraction)
    hours, minutes, seconds = map(int, clock.split(b":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + int(digits[:3].ljust(3, b"0"))


def _share_of_day(milliseconds: int) -> bytes:
    """What stands behind the day's number: ".5" for noon. 12 digits: a double has no more behind five before the point."""
    return b".%012d" % round(milliseconds * 10**12 / DAY)


def _are_plain_moments(values: Values, zone: str) -> bool:
    """Whether all are whole seconds, with the offset of their zone if they have one. Raises TypeError for NULL."""
    length = len("2026-03-29 03:30:00" + ("+02:00" if zone else ""))
    if set(map(len, values)) != {length}:  # type: ignore[arg-type]
        return False
    if not zone:
        return True
    days = {value[:10] + value[19:] for value in values}  # type: ignore[index]
    return all(_holds_all_day(day[:10], day[10:], zone) for day in days)


def _has_own_offset(raw: bytes, zone: str) -> bool:
    return _holds_all_day(raw[:10], raw[-6:], zone) or _is_local(raw, zone)


@lru_cache(maxsize=KEPT_VALUES)
def _holds_all_day(day: bytes, offset: bytes, zone: str) -> bool:
    """Whether the zone has this offset from the first second of a day to the last: none changes its clocks twice in one."""
    return all(_is_local(day + clock + offset, zone) for clock in (b" 00:00:00", b" 23:59:59"))


def _is_local(raw: bytes, zone: str) -> bool:
    """Whether the offset is the zone's own, and not one that the value brought or that zones.in_zone left in UTC."""
    at = datetime.datetime.fromisoformat(raw.decode())
    try:
        return at.utcoffset() == at.astimezone(ZoneInfo(zone)).utcoffset()
    except OverflowError:
        return False
