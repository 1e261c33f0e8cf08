"""The machine's clock: whole microseconds, two readings, and one that runs through suspend."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from hivetenancy import clock
from hivetenancy.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, SystemClock


def test_the_units_follow_from_each_other() -> None:
    """A day is 24 hours of 60 minutes of 60 seconds of a million microseconds."""
    assert (SECOND_US, MINUTE_US, HOUR_US, DAY_US) == (10**6, 60 * 10**6, 3600 * 10**6, 86_400 * 10**6)


def test_both_readings_are_whole_microseconds() -> None:
    """The wall reading is the machine's, the monotonic one never falls, and both are integers."""
    before = time.time_ns() // 1000
    readings = [SystemClock().now() for _ in range(1000)]
    after = time.time_ns() // 1000
    assert all(type(part) is int for reading in readings for part in reading)
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(readings))
    assert before <= readings[0][1] <= readings[-1][1] <= after


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no clock that runs through suspend")
def test_the_monotonic_reading_runs_through_suspend() -> None:
    """Where there is a clock that goes on during suspend, it is the one that is read."""
    low = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    reading = SystemClock().now()[0]
    assert low <= reading <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def test_a_system_without_that_clock_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel or sandbox that refuses the clock, or a system that does not know it, gives the plain monotonic one."""

    def refuses(_clock: int) -> int:
        raise OSError("not here")

    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime_ns", refuses, raising=False)
    assert clock._monotonic_clock() == time.CLOCK_MONOTONIC
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert clock._monotonic_clock() == time.CLOCK_MONOTONIC
