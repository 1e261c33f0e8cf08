"""Calendar periods: where an hour, a day or a month begins and ends in a named time zone.

Pure arithmetic over wall microseconds. A period is named by its start; another start is another cell, so nothing is
ever reset, it is merely no longer the present one. Days and months follow the zone's calendar: the day on which clocks
change has 23 or 25 hours. Hours are cut at the zone's full hours, which half-hour offsets shift, and at the moment of a
change by half an hour; an hour that clocks repeat is two hours, so none lasts two.
"""

from __future__ import annotations

from datetime import UTC as _UTC
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hivetenancy.clock import HOUR_US, SECOND_US
from hivetenancy.errors import ConfigurationError

UTC: Final = "UTC"


class Period(StrEnum):
    """A calendar period, as the wire names it (HiveHub wire 4.5)."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@lru_cache(maxsize=64)
def zone(name: str) -> tzinfo:
    """Return the time zone called *name*.

    Raises:
        ConfigurationError: There is no such zone, or the system has no time zone data; the message names the package.
    """
    if name == UTC:
        return _UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"no time zone data for {name!r}; check the name, or install the package 'tzdata'"
        ) from error


def bounds(period: Period, wall_us: int, zone_name: str = UTC) -> tuple[int, int]:
    """Return start (inclusive) and end (exclusive), in wall microseconds, of the *period* that holds *wall_us*.

    Args:
        period: Which calendar period.
        wall_us: Microseconds since 1970-01-01 UTC.
        zone_name: IANA name of the zone whose calendar counts; ``UTC`` needs no zone data.

    Returns:
        ``(start_us, end_us)`` with ``start_us <= wall_us < end_us``.

    Raises:
        ConfigurationError: *zone_name* is not known here.

    Concurrency:
        Pure.
    """
    start, end = _bounds_cached(period, wall_us // HOUR_US, zone_name)
    if start <= wall_us < end:
        return start, end
    return _compute(period, wall_us, zone_name)


@lru_cache(maxsize=4096)
def _bounds_cached(period: Period, hour: int, zone_name: str) -> tuple[int, int]:
    return _compute(period, hour * HOUR_US, zone_name)


def _compute(period: Period, wall_us: int, zone_name: str) -> tuple[int, int]:
    local = datetime.fromtimestamp(wall_us // SECOND_US, zone(zone_name))
    if period is Period.HOUR:
        return _hour(wall_us, local)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period is Period.MONTH:
        midnight = midnight.replace(day=1)
    following = _after(period, midnight)
    if _wall_us(following) <= wall_us:  # clocks went back over midnight: the day that had begun goes on
        midnight, following = following, _after(period, following)
    return _wall_us(midnight), _wall_us(following)


def _after(period: Period, midnight: datetime) -> datetime:
    if period is Period.MONTH:
        return (midnight + timedelta(days=32)).replace(day=1)
    return midnight + timedelta(days=1)


def _hour(wall_us: int, local: datetime) -> tuple[int, int]:
    shift = _shift(local)
    start = (wall_us + shift) // HOUR_US * HOUR_US - shift
    return _cut(start, wall_us, local), _cut(start + HOUR_US, wall_us, local)


def _shift(local: datetime) -> int:
    """Return by how much the full hours of *local* lie before those of UTC."""
    return int((local.utcoffset() or timedelta(0)).total_seconds()) * SECOND_US % HOUR_US


def _cut(edge: int, wall_us: int, local: datetime) -> int:
    """Return *edge*, or the moment on the way there from *wall_us* at which the full hours shift.

    Lord Howe Island changes by half an hour, so that the hours after the change would overlap those before.
    """
    shift, there = _shift(local), edge // SECOND_US
    if edge > wall_us:
        there -= 1
    if _shift(datetime.fromtimestamp(there, local.tzinfo)) == shift:
        return edge
    same, other = wall_us // SECOND_US, there
    while abs(same - other) > 1:
        middle = (same + other) // 2
        if _shift(datetime.fromtimestamp(middle, local.tzinfo)) == shift:
            same = middle
        else:
            other = middle
    return max(same, other) * SECOND_US


def _wall_us(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND_US
