"""Datetimes in the zone that a person chose: through both changes of the clocks, by Python's own zone tables."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest

from exportapp.engine import zones
from exportapp.engine.specs import Column
from exportapp.engine.zones import in_zone
from exportapp.engine.zones import moved as moved_there

ZONES = {  # each with a year in which its offset changed, and not always by an hour
    "UTC": 2026,
    "Europe/Berlin": 2026,
    "America/New_York": 2026,
    "America/St_Johns": 2006,
    "Asia/Kathmandu": 1986,
    "Australia/Lord_Howe": 2026,
    "Pacific/Apia": 2011,
    "Africa/Monrovia": 1972,
}


def moved(texts: Iterable[str], stored: str, zone: str) -> list[str]:
    """All the texts by one and the same converter, which may have remembered something of those before."""
    _, shifts = in_zone([Column("n", "integer"), Column("at", "datetime", zone=stored)], zone)
    assert shifts
    rows = moved_there([(b"1", text.encode(), b"key") for text in texts], shifts)
    assert {(row[0], row[2]) for row in rows} == {(b"1", b"key")}
    return [(row[1] or b"").decode() for row in rows]


def moved_by_python(at: datetime, stored: str, zone: str) -> str:
    there = at.replace(tzinfo=ZoneInfo(stored)).astimezone(UTC).astimezone(ZoneInfo(zone))
    odd = (there.utcoffset() or timedelta()) % timedelta(minutes=1)
    return str(there.astimezone(UTC) if odd else there)


def through(start: datetime, end: datetime, step: timedelta) -> list[datetime]:
    return [start + step * count for count in range((end - start) // step)]


@pytest.mark.parametrize(
    ("stored", "berlin"),
    [
        ("2026-03-29 00:59:59.999999", "2026-03-29 01:59:59.999999+01:00"), ("2026-03-29 01:00:00", "2026-03-29 03:00:00+02:00"),
        ("2026-10-25 00:30:00", "2026-10-25 02:30:00+02:00"), ("2026-10-25 01:30:00", "2026-10-25 02:30:00+01:00"),
        ("1970-01-01 00:00:01", "1970-01-01 01:00:01+01:00"), ("2038-01-19 03:14:07", "2038-01-19 04:14:07+01:00"),
    ],
)  # fmt: skip
def test_the_two_times_of_a_repeated_hour_stay_apart(stored: str, berlin: str) -> None:
    assert moved([stored], "UTC", "Europe/Berlin") == [berlin]


@pytest.mark.parametrize(
    ("stored", "zone"), [pair for pair in product(ZONES, repeat=2) if {"UTC", "Europe/Berlin"} & set(pair)]
)
def test_every_half_hour_of_years_with_changes_is_what_python_makes_of_it(stored: str, zone: str) -> None:
    for year in {ZONES[stored], ZONES[zone]}:
        times = through(datetime(year, 1, 1, 0, 7, 5), datetime(year + 1, 1, 1), timedelta(minutes=30))
        assert moved(map(str, times), stored, zone) == [moved_by_python(at, stored, zone) for at in times]


@pytest.mark.parametrize(
    ("stored", "zone", "day", "step"),
    [
        ("America/St_Johns", "UTC", datetime(2006, 10, 28), timedelta(minutes=1)),  # at a minute after midnight
        ("UTC", "America/St_Johns", datetime(2006, 10, 28), timedelta(minutes=1)),
        ("Australia/Lord_Howe", "Europe/Berlin", datetime(2026, 10, 3), timedelta(minutes=1)),
        ("Europe/Berlin", "Europe/Berlin", datetime(2026, 3, 28), timedelta(minutes=1)),
        ("UTC", "Africa/Monrovia", datetime(1972, 1, 6), timedelta(seconds=7)),  # from -00:44:30 to 0, at 00:44:30
        ("Africa/Monrovia", "UTC", datetime(1972, 1, 6), timedelta(seconds=7)),
        ("UTC", "Europe/Berlin", datetime(1893, 3, 31), timedelta(seconds=7)),  # from 00:53:28 to 1, at 23:06:32
    ],
)
def test_days_around_a_change_are_what_python_makes_of_them(
    stored: str, zone: str, day: datetime, step: timedelta
) -> None:
    times = through(day, day + timedelta(days=3), step)
    assert moved(map(str, times), stored, zone) == [moved_by_python(at, stored, zone) for at in times]


def test_what_is_remembered_is_right_when_it_was_forgotten_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "KEPT", 3)
    times = through(datetime(2026, 3, 24), datetime(2026, 4, 3), timedelta(minutes=20)) * 2
    expected = [moved_by_python(at, "UTC", "Europe/Berlin") for at in times]
    assert moved(map(str, times), "UTC", "Europe/Berlin") == expected


def test_a_day_is_looked_up_once_for_all_columns_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[datetime] = []
    look_up = zones._Shift._moved

    def counted(shift: zones._Shift, local: datetime) -> tuple[datetime, bytes]:
        asked.append(local)
        return look_up(shift, local)

    monkeypatch.setattr(zones._Shift, "_moved", counted)
    _, shifts = in_zone([Column(name, "datetime", zone="UTC") for name in "abcdefgh"], "Asia/Kathmandu")
    times = through(datetime(2026, 1, 1), datetime(2026, 1, 11), timedelta(seconds=61))
    for _ in range(2):
        moved_there([(str(at).encode(),) * 8 for at in times], shifts)
    assert len(asked) <= 2 * 10


def test_what_is_remembered_is_bounded_whatever_the_number_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight TIMESTAMP columns of distinct minutes once took 250 MB."""
    assert zones.KEPT <= 20_000
    monkeypatch.setattr(zones, "KEPT", 2_000)
    texts = [str(at).encode() for at in through(datetime(1960, 1, 1), datetime(2030, 1, 1), timedelta(days=1))]
    _, shifts = in_zone([Column(name, "datetime", zone="UTC") for name in "abcdefgh"], "Europe/Berlin")
    tracemalloc.start()
    for start in range(0, len(texts), 2000):
        moved_there([(text,) * 8 for text in texts[start : start + 2000]], shifts)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5_000_000  # of which a batch has half


def test_a_time_that_was_there_twice_is_the_first_and_one_that_never_was_goes_on() -> None:
    assert moved(["2026-10-25 02:30:00", "2026-03-29 02:30:00"], "Europe/Berlin", "UTC") == [
        "2026-10-25 00:30:00+00:00",
        "2026-03-29 01:30:00+00:00",
    ]


@pytest.mark.parametrize(
    "text", ["1880-01-01 12:00:00.5", "1900-01-01 00:00:00", "1899-12-31 23:59:59", "0001-01-02 00:00:00"]
)
def test_odd_seconds_of_old_local_times_are_kept(text: str) -> None:
    for stored, zone in product(
        ("UTC", "Europe/Berlin", "Africa/Monrovia"), ("UTC", "America/New_York", "Asia/Kathmandu")
    ):
        meant = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(stored))
        [there] = moved([text], stored, zone)
        assert datetime.fromisoformat(there) == meant.astimezone(UTC)


STAYS = [
    "0000-00-00 00:00:00", "2024-02-00 00:00:00", "2023-02-29 00:00:00", "yesterday", "",
    "2026-01-31", "2026-01-31 ", "2026-01-31 24:00:00", "2026-01-31 12:60:00", "2026-01-31 12:00:60", "2026-01-31 12:00:5",
    "2026-01-31 12", "2026-01-31 12:00:", "2026-01-31 12:00:00.", "2026-01-31 12:00:00 ", "2026-01-31 12:00:00\n",
    "2026-01-31 12:00:00.5.5", "2026-01-31  12:00:00", "2026-01-31t12:00:00", "2026-W05-6 12:00:00", "20260131T120000",
    "20260131T120000.5", "٢٠26-01-31 12:00:00", "12:00:00",
]  # fmt: skip
OWN_OFFSETS = [
    "2026-01-31T10:00:00Z", "2026-01-31 10:00:00.5Z", "2026-01-31 10:00:00+03:00", "2026-01-31 12:00Z", "2026-01-31 12:00+02",
    "2026-01-31 12:00:00+02", "2026-01-31 12:00:00-0230", "2026-01-31 12:00:00.25 +02:00", "20260131T120000+05",
    "20260131T120000Z",
]  # fmt: skip


@pytest.mark.parametrize("stored", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("text", [*STAYS, *OWN_OFFSETS])
def test_what_is_no_moment_or_brings_its_own_offset_stays_as_it_is(text: str, stored: str) -> None:
    zone = "Pacific/Apia" if stored == "UTC" else "America/New_York"
    assert moved([text], stored, zone) == [text]
    on_a_day_of_change = text.replace("2026-01-31", "2026-03-29").replace("20260131", "20260329")
    assert moved([on_a_day_of_change, on_a_day_of_change], stored, "Europe/London") == [on_a_day_of_change] * 2


@pytest.mark.parametrize(
    ("text", "berlin"),
    [
        ("2026-01-31 12:00", "2026-01-31 13:00+01:00"),
        ("2026-01-31T12:00:00", "2026-01-31 13:00:00+01:00"),
        ("2026-01-31 23:00:00.5", "2026-02-01 00:00:00.5+01:00"),
        ("2026-03-29T12:00:00.000001", "2026-03-29 14:00:00.000001+02:00"),
        ("2026-03-29 12:00", "2026-03-29 14:00+02:00"),
    ],
)
def test_a_moment_may_lack_its_seconds_or_have_the_letter_of_the_standard(text: str, berlin: str) -> None:
    assert moved([text], "UTC", "Europe/Berlin") == [berlin]


def test_the_last_days_of_the_calendar_move_as_far_as_it_goes() -> None:
    assert moved(["9999-12-31 23:59:59", "0001-01-01 00:00:00"], "UTC", "UTC") == [
        "9999-12-31 23:59:59+00:00",
        "0001-01-01 00:00:00+00:00",
    ]
    assert moved(["9999-12-31 10:00:00", "9999-12-31 11:00:00"], "UTC", "Pacific/Apia") == [
        "9999-12-31 23:00:00+13:00",
        "9999-12-31 11:00:00",
    ]


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
