"""Clocks for tests."""

from __future__ import annotations

import pytest

from hivetenancy.clock import SystemClock
from hivetenancy.testing import ManualClock, ShiftedClock

YEAR_2100_US = 4_102_444_800_000_000


def test_a_manual_clock_stands_until_it_is_moved() -> None:
    """Both times move together, or one of them alone, either way."""
    clock = ManualClock()
    monotonic, wall = clock.now()
    assert (clock.now(), wall) == ((monotonic, wall), YEAR_2100_US)
    clock.advance(1.5, us=2)
    assert clock.now() == (monotonic + 1_500_002, wall + 1_500_002)
    clock.step_wall(us=-5)
    clock.step_monotonic(us=-7)
    assert clock.now() == (monotonic + 1_499_995, wall + 1_499_997)
    assert ManualClock(monotonic_us=1, wall_us=2).now() == (1, 2)


def test_a_shifted_clock_runs_ahead() -> None:
    """It is the machine's clock, ahead by what it was told."""
    clock, system = ShiftedClock(), SystemClock()
    clock.advance(3_600)
    before = system.now()
    shifted = clock.now()
    after = system.now()
    for index in (0, 1):
        assert before[index] <= shifted[index] - 3_600_000_000 <= after[index]


@pytest.mark.parametrize("clock", [ManualClock(), ShiftedClock()])
def test_a_clock_advances_forwards(clock: ManualClock | ShiftedClock) -> None:
    """A negative step is an error."""
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)
