"""Clocks for tests: one that only moves by hand, and one that runs and can be pushed ahead."""

from __future__ import annotations

from typing import Final

from hivetenancy.clock import SECOND_US, Instant, SystemClock

_YEAR_2100_US: Final = 4_102_444_800 * SECOND_US


class ManualClock:
    """A clock that stands still until it is moved.

    It starts on 2100-01-01 UTC, so that a stray reading of the machine's clock fails loudly.

    Args:
        monotonic_us: First monotonic reading.
        wall_us: First wall reading.
    """

    def __init__(self, *, monotonic_us: int = 1_000_000 * SECOND_US, wall_us: int = _YEAR_2100_US) -> None:
        self._monotonic_us = monotonic_us
        self._wall_us = wall_us

    def now(self) -> Instant:
        """Return the present instant."""
        return self._monotonic_us, self._wall_us

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Move both times ahead together.

        Raises:
            ValueError: The step is negative; use `step_wall` for a wall clock that is set back.
        """
        step = round(seconds * SECOND_US) + us
        if step < 0:
            raise ValueError("a clock advances forwards; step_wall() moves the wall clock back")
        self._monotonic_us += step
        self._wall_us += step

    def step_wall(self, *, us: int) -> None:
        """Move the wall clock alone, either way, as an operator or NTP would."""
        self._wall_us += us

    def step_monotonic(self, *, us: int) -> None:
        """Move the monotonic reading alone, either way, as a reading taken on another core might seem to."""
        self._monotonic_us += us


class ShiftedClock:
    """The machine's clock, ahead by whatever it was told to jump."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self._ahead_us = 0

    def now(self) -> Instant:
        """Return the present instant, shifted."""
        monotonic, wall = self._system.now()
        return monotonic + self._ahead_us, wall + self._ahead_us

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Jump both times ahead together.

        Raises:
            ValueError: The step is negative.
        """
        step = round(seconds * SECOND_US) + us
        if step < 0:
            raise ValueError("a clock advances forwards")
        self._ahead_us += step
