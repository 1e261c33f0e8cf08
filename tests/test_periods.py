"""Calendar periods: they hold what they are asked about, and lie edge to edge, whatever clocks do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy import periods
from hivetenancy.clock import DAY_US, HOUR_US, SECOND_US
from hivetenancy.errors import ConfigurationError
from hivetenancy.periods import Period, bounds, zone

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",  # 5:30
    "Asia/Kathmandu",  # 5:45
    "Australia/Lord_Howe",  # changes by half an hour
    "America/Sao_Paulo",  # used to change at midnight
    "America/Havana",  # repeats the hour after midnight
    "Pacific/Apia",  # left out 2011-12-30
    "America/St_Johns",  # -3:30, and once changed at 0:01
]
Bounds = Callable[[Period, int, str], tuple[int, int]]


def at(text: str) -> int:
    """Return wall microseconds of an ISO date with offset."""
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_US


def check(cut: Bounds, period: Period, wall: int, name: str) -> None:
    """Assert what makes a period: it holds the moment, and its neighbours begin and end where it does."""
    start, end = cut(period, wall, name)
    assert start <= wall < end
    for moment in (start, end - 1, (start + end) // 2):
        assert cut(period, moment, name) == (start, end)
    assert cut(period, start - 1, name)[1] == start
    assert cut(period, end, name)[0] == end


@given(
    period=st.sampled_from(Period),
    wall=st.integers(at("1990-01-01T00:00+00:00"), at("2090-01-01T00:00+00:00")),
    name=st.sampled_from(ZONES),
)
def test_a_period_holds_its_moment_and_adjoins_its_neighbours(period: Period, wall: int, name: str) -> None:
    """start <= t < end, the same answer throughout, and no gap or overlap at either edge."""
    check(bounds, period, wall, name)


CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00+00:00"),
    ("Europe/Berlin", "2026-10-25T01:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00+00:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30+00:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00+00:00"),
    ("America/Sao_Paulo", "2018-02-18T02:00+00:00"),
    ("America/Havana", "2026-11-01T05:00+00:00"),
    ("Pacific/Apia", "2011-12-30T10:00+00:00"),
    ("America/St_Johns", "2010-11-07T02:31+00:00"),
]


@pytest.mark.parametrize("name, change", CHANGES)
@pytest.mark.parametrize("period", Period)
def test_periods_adjoin_around_each_change_of_clocks(period: Period, name: str, change: str) -> None:
    """For three hours on both sides of a change, and to the microsecond at it, the calendar has no seam."""
    moment = at(change)
    for wall in [moment - 1, moment, moment + 1, *range(moment - 3 * HOUR_US, moment + 3 * HOUR_US, 300 * SECOND_US)]:
        check(bounds, period, wall, name)


def overlapping(period: Period, wall: int, name: str) -> tuple[int, int]:
    """A broken calendar: hours cut by the offset of the moment alone."""
    if period is not Period.HOUR:
        return bounds(period, wall, name)
    shift = periods._shift(datetime.fromtimestamp(wall // SECOND_US, zone(name)))
    start = (wall + shift) // HOUR_US * HOUR_US - shift
    return start, start + HOUR_US


def by_the_clock(period: Period, wall: int, name: str) -> tuple[int, int]:
    """Another one: days of 24 hours since midnight."""
    start, _ = bounds(period, wall, name)
    return start, start + DAY_US


@pytest.mark.parametrize(
    "broken, period, name, wall",
    [
        (overlapping, Period.HOUR, "Australia/Lord_Howe", at("2026-10-03T15:35+00:00")),
        (by_the_clock, Period.DAY, "Europe/Berlin", at("2026-03-29T12:00+00:00")),
    ],
)
def test_the_property_catches_broken_calendars(broken: Bounds, period: Period, name: str, wall: int) -> None:
    """Hours that overlap at Lord Howe's change, and a spring day of 24 hours, fail the same check."""
    with pytest.raises(AssertionError):
        check(broken, period, wall, name)


@pytest.mark.parametrize(
    "name, day, hours",
    [("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25), ("Europe/Berlin", "2026-06-01", 24),
     ("Australia/Lord_Howe", "2026-10-04", 23.5), ("UTC", "2026-03-29", 24)],
)  # fmt: skip
def test_the_day_of_a_change_is_as_long_as_it_is(name: str, day: str, hours: float) -> None:
    """The day on which clocks change has 23 or 25 hours, at Lord Howe 23 and a half."""
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone(name)).timestamp()) * SECOND_US
    start, end = bounds(Period.DAY, noon, name)
    assert (end - start) / HOUR_US == hours


@pytest.mark.parametrize(
    "wall, start, end",
    [
        ("2028-02-29T23:59:59+00:00", "2028-02-01T00:00+00:00", "2028-03-01T00:00+00:00"),
        ("2027-02-28T23:59:59+00:00", "2027-02-01T00:00+00:00", "2027-03-01T00:00+00:00"),
        ("2026-12-31T23:59:59+00:00", "2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00"),
        ("2026-01-31T00:00:00+00:00", "2026-01-01T00:00+00:00", "2026-02-01T00:00+00:00"),
    ],
)
def test_months_end_where_the_calendar_says(wall: str, start: str, end: str) -> None:
    """Leap days, short months and the turn of the year."""
    assert bounds(Period.MONTH, at(wall)) == (at(start), at(end))


def test_a_month_begins_at_the_zones_midnight() -> None:
    """The month of Berlin begins one or two hours before that of UTC."""
    start, end = bounds(Period.MONTH, at("2026-03-15T00:00+00:00"), "Europe/Berlin")
    assert (start, end) == (at("2026-03-01T00:00+01:00"), at("2026-04-01T00:00+02:00"))


def test_hours_are_cut_at_the_full_hours_of_the_zone() -> None:
    """In Kolkata they begin at half past, in Kathmandu at a quarter past, as seen from UTC."""
    moment = at("2026-05-05T10:20+00:00")
    assert bounds(Period.HOUR, moment, "Asia/Kolkata")[0] == at("2026-05-05T09:30+00:00")
    assert bounds(Period.HOUR, moment, "Asia/Kathmandu")[0] == at("2026-05-05T10:15+00:00")


def test_no_hour_lasts_longer_than_an_hour() -> None:
    """The hour that clocks repeat in autumn is two hours."""
    first = bounds(Period.HOUR, at("2026-10-25T00:30+00:00"), "Europe/Berlin")
    second = bounds(Period.HOUR, at("2026-10-25T01:30+00:00"), "Europe/Berlin")
    assert first != second
    assert first[1] - first[0] == second[1] - second[0] == HOUR_US


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe", "Europe/Berlin\0"])
def test_an_unknown_zone_names_the_package(name: str) -> None:
    """A zone that is none, or a path in disguise, is an error that names the package with the data."""
    with pytest.raises(ConfigurationError, match="tzdata"):
        bounds(Period.DAY, 0, name)


def test_a_system_without_zone_data_still_has_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any data a named zone is an error that says what to install, and UTC works."""
    monkeypatch.setattr("zoneinfo._tzpath.TZPATH", ())
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zone.cache_clear()
    from zoneinfo import ZoneInfo

    ZoneInfo.clear_cache()
    with pytest.raises(ConfigurationError, match="install the package 'tzdata'"):
        zone("Europe/Berlin")
    assert zone("UTC") is UTC
    assert bounds(Period.DAY, at("2026-01-01T12:00+00:00")) == (
        at("2026-01-01T00:00+00:00"),
        at("2026-01-02T00:00+00:00"),
    )
