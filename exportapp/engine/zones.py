"""Moves datetimes from the zone that they are stored in to the one that the file is written in, with their offset.

By Python's zone tables and not the server's: where those are not loaded, CONVERT_TZ gives NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from exportapp.engine.specs import Column, Row

MINUTES_KEPT = 100_000
_MINUTE = len("2026-03-29 01:30")
_SECOND = len("2026-03-29 01:30:00")


Shifts = dict[int, Callable[[bytes | None], bytes | None]]


def in_zone(columns: Sequence[Column], zone: str) -> tuple[tuple[Column, ...], Shifts]:
    """The columns as they are when written in `zone`, and by their places what moves the values of some there.

    A datetime whose zone nobody declared stays as it is stored.
    """
    if not zone:
        return tuple(replace(column, zone="") for column in columns), {}
    shifts: Shifts = {
        index: _Shift(column.zone, zone)
        for index, column in enumerate(columns)
        if column.type == "datetime" and column.zone
    }
    return tuple(
        replace(column, zone=zone, bare=False) if index in shifts else column for index, column in enumerate(columns)
    ), shifts


def moved(rows: list[Row], shifts: Shifts) -> list[Row]:
    """The rows with the values at some of their places moved."""
    values = list(zip(*rows, strict=True))
    for place, shift in shifts.items():
        values[place] = tuple(map(shift, values[place]))
    return list(zip(*values, strict=True))


class _Shift:
    """Texts of one zone into texts of another. Remembers minutes: within one, no clock has ever been changed."""

    def __init__(self, stored: str, wanted: str) -> None:
        self._stored, self._wanted = ZoneInfo(stored), ZoneInfo(wanted)
        self._minutes: dict[bytes, tuple[bytes, bytes] | None] = {}

    def __call__(self, text: bytes | None) -> bytes | None:
        if text is None:
            return None
        minute = text[:_MINUTE]
        if text[_SECOND:].strip(b".0123456789"):
            return text  # with an offset of its own
        if minute not in self._minutes:
            if len(self._minutes) >= MINUTES_KEPT:
                self._minutes.clear()
            self._minutes[minute] = self._of_minute(minute)
        moved = self._minutes[minute]
        return moved[0] + text[_MINUTE:] + moved[1] if moved else self._by_itself(text)

    def _of_minute(self, minute: bytes) -> tuple[bytes, bytes] | None:
        """The minute and the offset that it becomes; None for what has no such thing."""
        try:
            there, offset = self._moved(datetime.strptime(minute.decode(), "%Y-%m-%d %H:%M"))
        except (ValueError, OverflowError):
            return None
        return (there.isoformat(" ", "minutes").encode(), offset) if there.second == 0 else None

    def _by_itself(self, text: bytes) -> bytes:
        """For the odd seconds of local times before zones were agreed on; what is no moment (0000-00-00) stays."""
        try:
            there, offset = self._moved(datetime.fromisoformat(text[:_SECOND].decode()))
        except (ValueError, OverflowError):
            return text
        return there.isoformat(" ", "seconds").encode() + text[_SECOND:] + offset

    def _moved(self, local: datetime) -> tuple[datetime, bytes]:
        """A time that the stored zone had twice, when its clocks went back, is taken for the first of the two, and one
        that it never had as if the clocks had not gone forward (PEP 495, fold=0)."""
        moment = local.replace(tzinfo=self._stored).astimezone(UTC)
        there = moment.astimezone(self._wanted)
        offset = there.utcoffset() or timedelta()
        if offset % timedelta(minutes=1):  # ISO 8601 has no seconds in an offset
            there, offset = moment, timedelta()
        sign, minutes = "-" if offset < timedelta() else "+", abs(offset) // timedelta(minutes=1)
        return there.replace(tzinfo=None), f"{sign}{minutes // 60:02}:{minutes % 60:02}".encode()
