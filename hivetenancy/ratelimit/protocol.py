"""How fast may they go? The protocol and its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal
from hivetenancy.plans import RateLimits


class Subject:
    """Whom units are counted for, and by which policies. Build it once per tenant or key and keep it.

    Two subjects with one id share their state; their limits may differ, because a plan may change while in use.

    Attributes:
        id: Names the state, for example ``t:<tenant id>``.
        limits: The policies in force, decided together.
    """

    __slots__ = ("id", "limits")

    def __init__(self, id: str, limits: RateLimits) -> None:  # noqa: A002 - the field's own word
        self.id = id
        self.limits = limits

    def __repr__(self) -> str:
        return f"Subject({self.id!r}, {self.limits!r})"


class Permit:
    """The answer "go". It says nothing more, so that all admitted requests share one: `PERMIT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PERMIT"


PERMIT: Final = Permit()
"""The shared permit."""


class LimitState(NamedTuple):
    """Where one policy of one subject stands.

    Attributes:
        name: The policy's name.
        limit: Units a period (or at once).
        window_us: The period in microseconds; ``None`` for a concurrency limit.
        capacity: The most units one call can take; for a concurrency limit, its slots.
        remaining: Units that would pass now, rounded down; for a concurrency limit, calls.
        reset_after_us: Microseconds until all units are free again, rounded up; ``None``: time does not bring them.
    """

    name: str
    limit: int
    window_us: int | None
    capacity: int
    remaining: int
    reset_after_us: int | None


class RateLimiter(Protocol):
    """Admits or refuses by rate.

    An engine that can answer at once also has ``try_acquire`` (same arguments; ``None`` only where waiting could bring
    an answer), and `acquire` is a wrapper around it.
    """

    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        """Take *cost* units from every policy of every subject, or from none.

        Args:
            subjects: For whom to count, for example the tenant and the key.
            cost: Units to take, at least 1. A concurrency limit counts the call as one, whatever it costs.
            now: The present instant; ``None``: the engine reads its clock. Its monotonic part may lie before an earlier
                call's; that frees no capacity.

        Returns:
            The permit, or a refusal (`RATE_LIMITED`, `TOO_MANY_IN_FLIGHT`, `COST_TOO_LARGE`) after which nothing was
            taken. ``retry_after_us`` is exact: refused until just before, admitted at it if nobody else comes; the
            longest of all that refuse; ``None`` where a slot must be freed or *cost* can never pass.

        Raises:
            ValueError: *cost* is below 1.
            StoreUnavailableError: The shared state cannot be reached.

        Concurrency:
            All policies are read, decided and written in one step.
        """
        ...

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        """Free the one slot of each concurrency limit that an `acquire` admitted at *taken* holds.

        Args:
            subjects: As given to `acquire`.
            cost: As given to `acquire`.
            taken: The instant given to (or read by) `acquire`.
            refund: Also give the units back, because the library itself answered 503. A refund never makes more pass
                than if the call had not been made.
        """
        ...


class ImmediateRateLimiter(RateLimiter, Protocol):
    """A limiter that can answer from memory."""

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal | None:
        """Answer as `acquire`, or ``None`` where waiting could bring an answer."""
        ...


class TellsStates(Protocol):
    """Optional ability: where the policies stand, for headers."""

    def peek(self, subjects: Sequence[Subject], *, now: Instant | None = None) -> Sequence[LimitState]:
        """Return the state of each policy of each subject, in order. Changes nothing."""
        ...
