"""The token bucket, as the generic cell rate algorithm: pure arithmetic over one stored number.

The rule. Each key stores its *theoretical arrival time* (TAT): the moment at which everything it took has flowed off
again. One unit flows off in one *emission interval*, period / limit. A call of *cost* units moves the TAT ahead by
*cost* intervals, counted from the present if the TAT lies in the past, and passes when the new TAT is at most *burst*
intervals (the burst tolerance) ahead of the present. From this follows the bound that the policy prints: never more
than burst + rate x t in any t.

Three roundings, all against the caller. Public time is whole microseconds, but an interval of 10 us (100,000 a second)
must not be rounded by a tenth; so the TAT counts **nanoseconds**, and the interval is rounded **up** to one (rounding
down would admit more than the bound). Remaining units round down, waits round up to the next microsecond. In Python
the TAT is one integer; a Redis script, which counts in doubles, keeps it as two, microseconds and the nanoseconds below
one, and carries between them by hand, so that both agree to the last digit.

What is rounded away: at 100,000 units a second at most 0.01 % of the rate, at ten million 1 %; above a thousand million
a second the interval stays one nanosecond and the bucket is stricter than its policy. A bucket holds at most 146 years
of refill: a larger burst is cut to that, so that a TAT fits into a signed 64-bit word.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hivetenancy.plans import RatePolicy

NS_PER_US: Final = 1000

HORIZON_NS: Final = 2**62
"""The longest refill that a bucket can hold, some 146 years; with the present it stays below 2**63."""


class Verdict(NamedTuple):
    """The answer of `decide`.

    Attributes:
        allowed: Whether the units passed.
        tat: The time to store, in nanoseconds; unchanged by a refusal, ``None`` if nothing was stored before it.
        remaining: Units that would still pass now, rounded down.
        retry_after: Microseconds until this call would pass, rounded up; 0 when it passed, ``None``: never.
        reset_after: Microseconds until the whole burst is free, rounded up.
    """

    allowed: bool
    tat: int | None
    remaining: int
    retry_after: int | None
    reset_after: int


def interval_ns(policy: RatePolicy) -> int:
    """Return the emission interval in nanoseconds, rounded up: period / limit, at least 1."""
    return min(-(-policy.period_us * NS_PER_US // policy.limit), HORIZON_NS)


def capacity(policy: RatePolicy) -> int:
    """Return the units that may pass at once: the burst, cut to what refills within `HORIZON_NS`.

    Raises:
        ValueError: *policy* has no burst; it is a sliding window's.
    """
    if policy.burst is None:
        raise ValueError(f"policy {policy.name!r} has no burst: a sliding window counts it")
    return min(policy.burst, HORIZON_NS // interval_ns(policy))


def decide(tat: int | None, *, now: int, policy: RatePolicy, cost: int = 1) -> Verdict:
    """Decide whether *cost* units conform to *policy* at *now*.

    A refusal returns the stored time unchanged: being refused never pushes a tenant further away from service.

    Args:
        tat: Theoretical arrival time stored for the key, in **nanoseconds** on the clock of *now*; ``None`` for a key
            never seen, which is the same as any time in the past.
        now: Present time in **microseconds**. May lie before *tat* and may step backwards between calls; neither frees
            capacity, since a stored time only ever grows but by `refunded`.
        policy: Limit, period and burst.
        cost: Units to admit together, all or none; at least 1.

    Returns:
        The verdict and the time to store. ``retry_after`` is exact: refused one microsecond before it, admitted at it;
        ``None`` when *cost* exceeds the burst: no wait will ever help.

    Raises:
        ValueError: *cost* is below 1, or *policy* has no burst (a sliding window's).

    Concurrency:
        Pure. The engine makes read, decide and write one step.

    Source:
        ITU-T I.371, generic cell rate algorithm, virtual scheduling form.

    Example:
        >>> two_per_second = RatePolicy(limit=2, period_us=1_000_000, burst=2)
        >>> first = decide(None, now=0, policy=two_per_second)
        >>> first.allowed, first.tat, first.remaining
        (True, 500000000, 1)
        >>> second = decide(first.tat, now=0, policy=two_per_second)
        >>> third = decide(second.tat, now=0, policy=two_per_second)
        >>> third.allowed, third.retry_after, third.tat == second.tat
        (False, 500000, True)
        >>> decide(second.tat, now=499_999, policy=two_per_second).allowed
        False
        >>> decide(second.tat, now=500_000, policy=two_per_second).allowed
        True
    """
    if cost < 1:
        raise ValueError(f"cost must be at least 1, got {cost}")
    interval, units = interval_ns(policy), capacity(policy)
    present = now * NS_PER_US
    held = present if tat is None or tat < present else tat
    if cost > units:
        return Verdict(False, tat, free(held, present, interval, units), None, up_us(held - present))
    after = held + cost * interval
    late = after - present - units * interval
    if late > 0:
        return Verdict(False, tat, free(held, present, interval, units), up_us(late), up_us(held - present))
    return Verdict(True, after, free(after, present, interval, units), 0, up_us(after - present))


def free(tat: int, present: int, interval: int, units: int) -> int:
    """Return the units that would pass at *present*, rounded down; all times in nanoseconds."""
    return max(0, units - used(tat, present, interval))


def used(tat: int, present: int, interval: int) -> int:
    """Return the units that have not flowed off yet at *present*, rounded up; all times in nanoseconds.

    After the clock stepped back this can exceed the burst.
    """
    return max(0, -((present - tat) // interval))


def holding(units: int, *, now: int, policy: RatePolicy) -> int:
    """Return the TAT, in nanoseconds, of a key that at *now* (microseconds) has *units* in use."""
    return now * NS_PER_US + units * interval_ns(policy)


def refunded(tat: int, *, cost: int, interval: int, elapsed_us: int) -> int:
    """Return the TAT, in nanoseconds, after the *cost* units of a call *elapsed_us* ago are given back.

    What flowed off since the call is not given back a second time. Had the call never been made, the bucket could have
    stood idle for at most the time elapsed, and the two TATs would now differ by at least *cost* intervals less that
    time: taking off exactly this much never makes more pass than if the call had not been made.

    Args:
        tat: The stored time, in nanoseconds.
        cost: Units of the call.
        interval: The emission interval, in nanoseconds.
        elapsed_us: Time since the call, in microseconds; at least the latest reading of the clock that any call has
            seen, less that of the call. Below 0 counts as 0.
    """
    return tat - max(0, cost * interval - max(0, elapsed_us) * NS_PER_US)


def up_us(span_ns: int) -> int:
    """Return a span in nanoseconds as microseconds, rounded up, at least 0."""
    return max(0, -(-span_ns // NS_PER_US))
