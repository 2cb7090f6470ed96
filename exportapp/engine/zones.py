"""Moves datetimes from the zone that they are stored in to the one that the file is written in, with their offset.

By Python's zone tables and not the server's: where those are not loaded, CONVERT_TZ gives NULL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

from exportapp.engine.specs import Column, Row, Values

Shifts = dict[int, Callable[[Values], Values]]
Day = tuple[bytes, bytes, int, bytes]  # the two days that its times fall on, how many minutes they move, their offset
Kept = TypeVar("Kept")

KEPT = 20_000  # days, and as many minutes of others: some MB, however many columns have these zones
DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
_DAY = len("2026-03-29")
_MINUTE = len("2026-03-29 01:30")
_SECOND = len("2026-03-29 01:30:00")
_DATE = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TAIL = rb"(?::[0-5][0-9](?:\.[0-9]+)?)?"
_is_day = re.compile(_DATE).fullmatch
_is_tail = re.compile(_TAIL).fullmatch
_is_moment = re.compile(_DATE + rb"[ T](?:[01][0-9]|2[0-3]):[0-5][0-9]" + _TAIL).fullmatch
_SECONDS = frozenset(b":%02d" % second for second in range(60))
_MINUTES = 24 * 60
_CLOCKS = [b" %02d:%02d" % divmod(minute, 60) for minute in range(_MINUTES)] * 2  # of a day, and of the next
_PLACES = {sign + clock[1:]: place for sign in (b" ", b"T") for place, clock in enumerate(_CLOCKS[:_MINUTES])}


def in_zone(columns: Sequence[Column], zone: str) -> tuple[tuple[Column, ...], Shifts]:
    """The columns as they are when written in `zone`, and by their places what moves the values of some there.

    A datetime whose zone nobody declared stays as it is stored.
    """
    if not zone:
        return tuple(replace(column, zone="") for column in columns), {}
    stored = {index: column.zone for index, column in enumerate(columns) if column.type == "datetime" and column.zone}
    by_zone = {each: _Shift(each, zone) for each in set(stored.values())}
    shifts: Shifts = {index: by_zone[each] for index, each in stored.items()}
    return tuple(
        replace(column, zone=zone, bare=False) if index in shifts else column for index, column in enumerate(columns)
    ), shifts


def moved(rows: list[Row], shifts: Shifts) -> list[Row]:
    """The rows with the values at some of their places moved."""
    values: list[Values] = list(zip(*rows, strict=True))
    for place, shift in shifts.items():
        values[place] = shift(values[place])
    return list(zip(*values, strict=True))


class _Memo(dict[bytes, Kept]):
    """Remembers what `make` made; forgets all when it has too much."""

    def __init__(self, make: Callable[[bytes], Kept]) -> None:
        self._make = make

    def __missing__(self, key: bytes) -> Kept:
        if len(self) >= KEPT:
            self.clear()
        made = self[key] = self._make(key)
        return made


class _Shift:
    """Texts of one zone into texts of another.

    No zone ever changed its clocks twice within a day, so that what holds at both ends of a day holds throughout. On
    most days, then, all that is left to do for a value is to add minutes to minutes.
    """

    def __init__(self, stored: str, wanted: str) -> None:
        self._stored, self._wanted = ZoneInfo(stored), ZoneInfo(wanted)
        self._days = _Memo(self._of_day)
        self._minutes = _Memo(self._of_minute)

    def __call__(self, values: Values) -> Values:
        days, made = self._days, list[bytes | None]()
        for text in values:
            if text is None:
                made.append(text)
                continue
            day, place, tail = days[text[:_DAY]], _PLACES.get(text[_DAY:_MINUTE]), text[_MINUTE:]
            if day is None or place is None or not (tail in _SECONDS or _is_tail(tail)):
                made.append(self._apart(text))
                continue
            first, second, minutes, offset = day
            place += minutes
            made.append((first if place < _MINUTES else second) + _CLOCKS[place] + tail + offset)
        return made

    def _apart(self, text: bytes) -> bytes:
        """A value of a day on which a clock was changed. What is no moment, or has an offset of its own, stays."""
        if not _is_moment(text):
            return text
        minute = self._minutes[text[:_MINUTE]]
        return minute[0] + text[_MINUTE:] + minute[1] if minute else self._by_itself(text)

    def _by_itself(self, text: bytes) -> bytes:
        """For the odd seconds of local times before zones were agreed on; what never was (0000-00-00) stays."""
        try:
            there, offset = self._moved(datetime.fromisoformat(text[:_SECOND].decode()))
        except (ValueError, OverflowError):
            return text
        return there.isoformat(" ", "seconds").encode() + text[_SECOND:] + offset

    def _of_day(self, day: bytes) -> Day | None:
        """None for a day on which a clock was changed, and for what is no day."""
        steady = self._steady(day, DAY) if _is_day(day) else None
        if steady is None or steady[0] > datetime.max - DAY:
            return None
        there, offset = steady
        first, second = (at.isoformat().encode()[:_DAY] for at in (there, there + DAY))
        return first, second, there.hour * 60 + there.minute, offset

    def _of_minute(self, minute: bytes) -> tuple[bytes, bytes] | None:
        """The minute and the offset that it becomes; None where seconds have to be looked at."""
        steady = self._steady(minute, MINUTE)
        return (steady[0].isoformat(" ", "minutes").encode(), steady[1]) if steady else None

    def _steady(self, text: bytes, length: timedelta) -> tuple[datetime, bytes] | None:
        """What the beginning of a day or a minute becomes, if its end moves as far and no second has to be looked at."""
        try:
            start = datetime.fromisoformat(text.decode())
            there, offset = self._moved(start)
            end = self._moved(start + length - SECOND)
        except (ValueError, OverflowError):
            return None
        return (there, offset) if end == (there + length - SECOND, offset) and not there.second else None

    def _moved(self, local: datetime) -> tuple[datetime, bytes]:
        """A time that the stored zone had twice, when its clocks went back, is taken for the first of the two, and one
        that it never had as if the clocks had not gone forward (PEP 495, fold=0)."""
        moment = local.replace(tzinfo=self._stored).astimezone(UTC)
        there = moment.astimezone(self._wanted)
        offset = there.utcoffset() or timedelta()
        if offset % MINUTE:  # ISO 8601 has no seconds in an offset
            there, offset = moment, timedelta()
        sign, minutes = "-" if offset < timedelta() else "+", abs(offset) // MINUTE
        return there.replace(tzinfo=None), f"{sign}{minutes // 60:02}:{minutes % 60:02}".encode()
