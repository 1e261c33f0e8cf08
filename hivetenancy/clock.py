"""Time, as integers through one door.

Two readings are taken together, once a request, and passed down: *monotonic* for rates, leases and ages (it runs
through suspend where the system offers such a clock, so an entry does not stay young while a laptop sleeps) and *wall*
for expiry and calendars. Every public time is a whole number of microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

Instant: TypeAlias = tuple[int, int]
"""``(monotonic_us, wall_us)``: a plain tuple, because one is made for every request.

``monotonic_us`` has an arbitrary origin; ``wall_us`` counts from 1970-01-01 UTC.
"""

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US


class Clock(Protocol):
    """Something that tells both times at once."""

    def now(self) -> Instant:
        """Return the present instant. Never blocks; callable from any thread."""
        ...


def _monotonic_clock() -> int:
    """Return the clock that goes on while the machine is suspended, or the next best.

    On Linux ``CLOCK_MONOTONIC`` stops during suspend; ``CLOCK_BOOTTIME`` does not. A key that was fetched before the
    lid was closed must be old when it is opened.
    """
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is not None:
        try:
            time.clock_gettime_ns(boottime)
        except OSError:  # a kernel or a sandbox without it
            pass
        else:
            return boottime
    return getattr(time, "CLOCK_MONOTONIC", 0)


_MONOTONIC: Final = _monotonic_clock()
_monotonic_ns: Callable[[int], int] = getattr(time, "clock_gettime_ns", lambda _clock: time.monotonic_ns())
_wall_ns = time.time_ns


class SystemClock:
    """The machine's own clocks.

    Concurrency:
        Stateless; any number of threads.
    """

    __slots__ = ()

    def now(self) -> Instant:
        """Return the present instant of this machine."""
        return _monotonic_ns(_MONOTONIC) // 1000, _wall_ns() // 1000
