"""Datetimes in the zone that a person chose: through both changes of the clocks, by Python's own zone tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from exportapp.engine.specs import Column
from exportapp.engine.zones import in_zone
from exportapp.engine.zones import moved as moved_there

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Monrovia",
)


def moved(text: str, stored: str, zone: str) -> str:
    _, shifts = in_zone([Column("n", "integer"), Column("at", "datetime", zone=stored)], zone)
    assert shifts
    [row] = moved_there([(b"1", text.encode(), b"key")], shifts)
    assert (row[0], row[2]) == (b"1", b"key")
    return (row[1] or b"").decode()


@pytest.mark.parametrize(
    ("stored", "berlin"),
    [
        ("2026-03-29 00:59:59.999999", "2026-03-29 01:59:59.999999+01:00"), ("2026-03-29 01:00:00", "2026-03-29 03:00:00+02:00"),
        ("2026-10-25 00:30:00", "2026-10-25 02:30:00+02:00"), ("2026-10-25 01:30:00", "2026-10-25 02:30:00+01:00"),
        ("1970-01-01 00:00:01", "1970-01-01 01:00:01+01:00"), ("2038-01-19 03:14:07", "2038-01-19 04:14:07+01:00"),
    ],
)  # fmt: skip
def test_the_two_times_of_a_repeated_hour_stay_apart(stored: str, berlin: str) -> None:
    assert moved(stored, "UTC", "Europe/Berlin") == berlin


@pytest.mark.parametrize("stored", ZONES)
@pytest.mark.parametrize("zone", ZONES)
def test_every_half_hour_of_a_year_is_the_same_moment_in_any_zone(stored: str, zone: str) -> None:
    at = datetime(2026, 1, 1, 0, 7, 5)
    while at.year == 2026:
        meant = at.replace(tzinfo=ZoneInfo(stored)).astimezone(UTC)
        assert datetime.fromisoformat(moved(str(at), stored, zone)) == meant
        at += timedelta(hours=11, minutes=30)


def test_a_time_that_was_there_twice_is_the_first_and_one_that_never_was_goes_on() -> None:
    assert moved("2026-10-25 02:30:00", "Europe/Berlin", "UTC") == "2026-10-25 00:30:00+00:00"
    assert moved("2026-03-29 02:30:00", "Europe/Berlin", "UTC") == "2026-03-29 01:30:00+00:00"


@pytest.mark.parametrize("text", ["1880-01-01 12:00:00.5", "1900-01-01 00:00:00"])
def test_odd_seconds_of_old_local_times_are_kept(text: str) -> None:
    for stored, zone in (("Europe/Berlin", "UTC"), ("UTC", "America/New_York"), ("Africa/Monrovia", "Asia/Kathmandu")):
        meant = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(stored))
        assert datetime.fromisoformat(moved(text, stored, zone)) == meant.astimezone(UTC)


@pytest.mark.parametrize("text", ["0000-00-00 00:00:00", "2024-02-00 00:00:00", "9999-12-31 23:59:59", "yesterday", ""])
def test_what_is_no_moment_stays_as_it_is(text: str) -> None:
    assert moved(text, "UTC", "Pacific/Apia") == text


def test_a_time_that_brings_its_own_offset_is_left_alone() -> None:
    for text in ("2026-01-31T10:00:00Z", "2026-01-31 10:00:00.5Z", "2026-01-31 10:00:00+03:00"):
        assert moved(text, "UTC", "Europe/Berlin") == text


def test_null_stays_null_and_only_declared_times_move() -> None:
    columns = (
        Column("a", "datetime", zone="UTC"),
        Column("b", "datetime"),
        Column("c", "date", zone="UTC"),
        Column("d"),
    )
    after, shifts = in_zone(columns, "Asia/Tokyo")
    assert [column.zone for column in after] == ["Asia/Tokyo", "", "UTC", ""]
    assert shifts
    row = (None, b"2026-01-31 10:00:00", b"2026-01-31", b"2026-01-31 10:00:00")
    assert moved_there([row], shifts) == [row]


def test_without_a_zone_or_a_declared_time_nothing_is_done() -> None:
    assert in_zone([Column("a", "datetime", zone="UTC")], "") == ((Column("a", "datetime"),), {})
    assert in_zone([Column("a", "datetime"), Column("b")], "Asia/Tokyo")[1] == {}
