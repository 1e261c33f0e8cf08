"""What keeps a client from making an outage of the hub worse: a circuit breaker and a budget for retries.

The breaker is **closed** while calls succeed. After *failures* failures in a row it is **open**: every call is refused
at once, for a time that is jittered (so that a fleet does not come back as one) and doubles with each opening that
follows a failed probe. Then it is **half open**: exactly one call goes out as the probe, every other is refused as
before. The probe's success closes, its failure opens for longer, and a probe that ends without a verdict (cancelled,
throttled) gives its place to the next call. A call that began before the state last changed has no say any more:
neither a late success nor a late failure of the time before speaks of the hub as it is now.

None of the kept libraries serves: pybreaker 1.4.1, aiobreaker 1.2.0 and purgatory 3.0.1 each let all of five
concurrent callers through in the half-open state, which is the herd that a breaker is there to hold back; pybreaker
around a coroutine function moreover counts no failure at all; and all three measure their pauses on the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from random import random as _random
from typing import Final

from hivetenancy.clock import SECOND_US, Clock
from hivetenancy.errors import ConfigurationError

FAILURES: Final = 5
"""Failures in a row that open the circuit: one lost connection of a hub that restarts is not yet an outage."""

FIRST_PAUSE_US: Final = 1 * SECOND_US
LONGEST_PAUSE_US: Final = 5 * SECOND_US
"""A hub that is back is noticed by the first call after this time."""


class CircuitState(StrEnum):
    """Which way a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(Enum):
    """What a call says of the hub's health."""

    SUCCESS = "success"  # any answer that was meant: 2xx and a refusal (4xx) alike
    FAILURE = "failure"  # none, a 5xx, or one that is no answer of a hub
    NEITHER = "neither"  # a throttle, a cancellation, a fault of our own


class Passage:
    """The right to make one call; to be settled exactly once, whatever happens."""

    __slots__ = ("generation",)

    def __init__(self, generation: int) -> None:
        self.generation = generation


class CircuitBreaker:
    """Refuses calls to a hub that does not answer, and finds out with one call at a time whether it does again.

    Args:
        clock: Where the time comes from; the monotonic reading counts.
        failures: Failures in a row that open the circuit; at least 1.
        first_pause_us: How long the first opening lasts at most, in microseconds.
        longest_pause_us: How long any opening lasts at most.
        random: A number in [0, 1); an opening lasts between half and the whole of its pause.

    Raises:
        ConfigurationError: A number is out of range.

    Concurrency:
        Belongs to one event loop; nothing here waits, so each method is one step.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        failures: int = FAILURES,
        first_pause_us: int = FIRST_PAUSE_US,
        longest_pause_us: int = LONGEST_PAUSE_US,
        random: Callable[[], float] = _random,
    ) -> None:
        if failures < 1 or not 0 < first_pause_us <= longest_pause_us:
            raise ConfigurationError(
                "circuit breaker: failures must be 1 or more, and 0 < first_pause_us <= longest_pause_us"
            )
        self._clock, self._random = clock, random
        self._limit, self._first_us, self._longest_us = failures, first_pause_us, longest_pause_us
        self._state = CircuitState.CLOSED
        self._generation = 0  # goes up with each change of state, so that late outcomes are known as such
        self._failures = 0
        self._openings = 0  # without a success between them
        self._reopens_us = 0
        self._probe: Passage | None = None

    @property
    def state(self) -> CircuitState:
        """How it stands; ``OPEN`` until the first call after the pause asks."""
        return self._state

    @property
    def wait_us(self) -> int:
        """Microseconds until the next call may pass; 0 where one may now, or where only the probe's end decides."""
        return max(0, self._reopens_us - self._now()) if self._state is CircuitState.OPEN else 0

    def enter(self) -> Passage | None:
        """Return the right to make one call, or ``None``: refused, nothing may be sent.

        Whoever holds a passage settles it, in a ``finally``: an unsettled probe keeps all others out.
        """
        if self._state is CircuitState.OPEN and self._now() >= self._reopens_us:
            self._move(CircuitState.HALF_OPEN)
        if self._state is CircuitState.CLOSED:
            return Passage(self._generation)
        if self._state is CircuitState.OPEN or self._probe is not None:
            return None
        self._probe = Passage(self._generation)
        return self._probe

    def settle(self, passage: Passage, outcome: Outcome) -> None:
        """Say how the call of *passage* went. A second word on one passage, or a late one, changes nothing."""
        current, passage.generation = passage.generation == self._generation, -1
        if not current:
            return
        if self._state is CircuitState.HALF_OPEN:
            self._settle_probe(outcome)
        elif outcome is Outcome.SUCCESS:
            self._failures = 0
        elif outcome is Outcome.FAILURE:
            self._failures += 1
            if self._failures >= self._limit:
                self._open()

    def _settle_probe(self, outcome: Outcome) -> None:
        self._probe = None  # the only passage of this generation
        if outcome is Outcome.SUCCESS:
            self._openings = 0
            self._move(CircuitState.CLOSED)
        elif outcome is Outcome.FAILURE:
            self._open()

    def _open(self) -> None:
        pause_us = min(self._longest_us, self._first_us << min(self._openings, 40))
        self._openings += 1
        self._reopens_us = self._now() + pause_us // 2 + int(self._random() * (pause_us - pause_us // 2))
        self._move(CircuitState.OPEN)

    def _move(self, state: CircuitState) -> None:
        self._state = state
        self._generation += 1
        self._failures = 0
        self._probe = None

    def _now(self) -> int:
        return self._clock.now()[0]


class RetryBudget:
    """Lets retries be at most a share of the calls, so that an outage is never multiplied by them.

    A bucket of tokens: each call that is sent earns *percent* hundredths of one, each retry costs one, and the bucket
    holds *reserve*, with which it starts. So of N calls at most ``N * percent / 100 + reserve`` are retried, however
    many are allowed to each. It counts in hundredths, hence in whole numbers, and needs no clock.

    Args:
        percent: Retries earned by 100 calls; 0 to 100.
        reserve: Retries that may be spent at once; 0 or more. Without one a client that calls rarely could never
            retry.

    Raises:
        ConfigurationError: A number is out of range.

    Concurrency:
        Belongs to one event loop.
    """

    def __init__(self, *, percent: int = 10, reserve: int = 10) -> None:
        if not 0 <= percent <= 100 or reserve < 0:
            raise ConfigurationError("retry budget: percent must be 0 to 100, reserve 0 or more")
        self._percent = percent
        self._most = self._hundredths = 100 * reserve

    def earn(self) -> None:
        """Count a call that is sent for the first time."""
        self._hundredths = min(self._most, self._hundredths + self._percent)

    def spend(self) -> bool:
        """Take one retry out of the budget; ``False``: there is none, do not retry."""
        if self._hundredths < 100:
            return False
        self._hundredths -= 100
        return True
