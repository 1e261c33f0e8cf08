"""The clocks for tests move as told, and only then."""

from __future__ import annotations

import pytest

from hivetenancy.clock import SECOND_US, SystemClock
from hivetenancy.testing.clock import ManualClock, ShiftedClock

_YEAR_2100_US = 4_102_444_800 * SECOND_US


def test_a_manual_clock_starts_in_2100_and_stands_still() -> None:
    """A stray reading of the machine's clock is far away from it, and asking does not move it."""
    clock = ManualClock()
    assert clock.now() == clock.now()
    assert clock.now()[1] == _YEAR_2100_US
    assert SystemClock().now()[1] < _YEAR_2100_US


def test_a_manual_clock_moves_both_times_together_or_one_alone() -> None:
    """`advance` moves both, the two steps move one, either way."""
    clock = ManualClock(monotonic_us=10, wall_us=100)
    clock.advance(1.5, us=3)
    assert clock.now() == (1_500_013, 1_500_103)
    clock.step_wall(us=-1_500_103)
    assert clock.now() == (1_500_013, 0)
    clock.step_monotonic(us=-13)
    assert clock.now() == (1_500_000, 0)


@pytest.mark.parametrize("clock", [ManualClock(), ShiftedClock()])
def test_advancing_backwards_is_an_error(clock: ManualClock | ShiftedClock) -> None:
    """A negative step is refused and changes nothing."""
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)


def test_a_shifted_clock_runs_and_jumps() -> None:
    """It is ahead of the machine's clock by the sum of its jumps, in both readings."""
    clock = ShiftedClock()
    clock.advance(3600)
    clock.advance(us=5)
    ahead = 3600 * SECOND_US + 5
    low, reading, high = SystemClock().now(), clock.now(), SystemClock().now()
    assert all(least + ahead <= at <= most + ahead for least, at, most in zip(low, reading, high, strict=True))
