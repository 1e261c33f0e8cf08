"""Windows: at most so many units in any span of a period, or in each calendar period. Pure arithmetic.

**Sliding.** A window keeps what was admitted as entries, each a number of units and the time of its *last* one. A new
call joins the newest entry while that entry is younger than period / 32, else it opens another; so there are at most 34
live entries however busy the tenant. An entry's units are free again when the whole entry is older than the period.
Counting each unit at the time of the last one of its entry errs on the strict side only: never more than the limit in
*any* span of the period, without the double limit at the seam of fixed windows. What the merging costs is at most 1/33
of the rate, under a demand that never lets go; whoever takes the whole limit at once has it back exactly one period
later, and no wait is ever longer than a period (but for a clock that stepped back).

State: a tuple ``(total, opened, last, units, last, units, ...)``, oldest entry first; ``opened`` is when the newest
entry was opened; ``()`` when nothing was ever admitted. Times are microseconds, made monotone: a call with a reading
before the newest entry's is counted at that entry's time, and frees nothing.

**Calendar.** A window keeps the start of the period it counts for, the units used in it, and the monotonic reading at
its first use. It moves on when the wall clock reaches the end of that period. A wall clock that is set back frees
nothing: the window goes on counting for the later period it had already reached. So that one wild reading (the year
2200) does not close a tenant until then, the window also moves on once it was in use for as long as its period lasts on
the monotonic clock, which no honest period outlives. State: ``(start, used, first_use)``, or ``()``.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from hivetenancy.clock import Instant
from hivetenancy.periods import bounds
from hivetenancy.plans import CalendarPolicy

SLICES: Final = 32
"""Into how many slices a period is cut: 16 words more or less a tenant against 3 % more or less of the rate."""

MAX_ENTRIES: Final = SLICES + 2
"""No sliding window ever holds more entries than this."""

State: TypeAlias = tuple[int, ...]
"""What a window stores; ``()`` is "never seen"."""

EMPTY: Final[State] = ()


def slice_us(period_us: int) -> int:
    """Return how long, in microseconds, an entry takes up further calls: a 32nd of the period, rounded up."""
    return -(-period_us // SLICES)


def trimmed(state: State, now: int, period_us: int) -> State:
    """Return *state* without the entries that no longer count at *now* (monotonic microseconds)."""
    end = len(state)
    if not end:
        return state
    horizon = max(now, state[-2]) - period_us
    if state[2] > horizon:
        return state
    if state[-2] <= horizon:
        return EMPTY
    at, gone = 4, state[3]
    while state[at] <= horizon:
        gone += state[at + 1]
        at += 2
    return (state[0] - gone, state[1], *state[at:])


def added(state: State, now: int, period_us: int, cost: int) -> State:
    """Return the *trimmed* state with *cost* units admitted at *now*."""
    if not state:
        return (cost, now, now, cost)
    last = state[-2]
    present = max(now, last)
    if present - state[1] < slice_us(period_us):
        return (state[0] + cost, *state[1:-2], present, state[-1] + cost)
    return (state[0] + cost, present, *state[2:], present, cost)


def wait_us(state: State, now: int, period_us: int, excess: int) -> int:
    """Return the microseconds until *excess* units of the *trimmed* state no longer count.

    Exact for this count: they still do one microsecond before.

    Raises:
        ValueError: The state holds fewer units than that.
    """
    for at in range(2, len(state), 2):
        excess -= state[at + 1]
        if excess <= 0:
            return state[at] + period_us - now
    raise ValueError("the window holds fewer units than are to leave it")


def slide(state: State, *, now: int, limit: int, period_us: int, cost: int = 1) -> tuple[int | None, State]:
    """Decide whether *cost* units fit into a sliding window at *now*.

    Args:
        state: What was stored; ``()`` for a key never seen.
        now: Monotonic microseconds; may step backwards, which frees nothing.
        limit: Units that any span of *period_us* may hold.
        period_us: The span, in microseconds.
        cost: Units to admit together, all or none; at least 1.

    Returns:
        ``(0, state to store)`` when they pass; ``(wait in microseconds, the state as it was)`` when they do not, exact;
        the wait is ``None`` when *cost* exceeds the limit.

    Raises:
        ValueError: *cost* is below 1.

    Example:
        >>> wait, state = slide((), now=0, limit=3, period_us=60, cost=3)
        >>> wait, slide(state, now=59, limit=3, period_us=60)[0], slide(state, now=60, limit=3, period_us=60)[0]
        (0, 1, 0)
    """
    if cost < 1:
        raise ValueError(f"cost must be at least 1, got {cost}")
    if cost > limit:
        return None, state
    live = trimmed(state, now, period_us)
    excess = (live[0] if live else 0) + cost - limit
    if excess > 0:
        return wait_us(live, now, period_us, excess), state
    return 0, added(live, now, period_us, cost)


def withdrawn(state: State, *, taken: int, latest: int, period_us: int, cost: int) -> State:
    """Return *state* without *cost* units that were admitted at *taken*, as far as they are still counted.

    They leave the entry that took them in; its time stays, so nobody else's units leave earlier than they would have.
    Where *latest*, the latest reading any call has seen, is a period after *taken*, that entry may be gone and its
    place taken by another: nothing is given back.
    """
    if latest - taken >= period_us:
        return state
    for at in range(2, len(state), 2):
        if state[at] >= taken:
            back = min(cost, state[at + 1])
            return (state[0] - back, *state[1 : at + 1], state[at + 1] - back, *state[at + 2 :])
    return state


def calendar_wait_us(state: State, now: Instant, policy: CalendarPolicy) -> int:
    """Return the microseconds until the period that *state* counts for is over; at or below 0: it is.

    The wait holds if both clocks advance alike.
    """
    if not state:
        return 0
    start, end = bounds(policy.period, state[0], policy.zone)
    return min(end - now[1], state[2] + end - start - now[0])


def calendar(state: State, *, now: Instant, policy: CalendarPolicy, cost: int = 1) -> tuple[int | None, State]:
    """Decide whether *cost* units fit into the calendar period of *now*.

    Args:
        state: What was stored; ``()`` for a key never seen.
        now: The present instant. A wall reading before the stored period frees nothing.
        policy: Limit, period and zone.
        cost: Units to admit together, all or none; at least 1.

    Returns:
        As `slide`; the wait ends with the period.

    Raises:
        ValueError: *cost* is below 1.
    """
    if cost < 1:
        raise ValueError(f"cost must be at least 1, got {cost}")
    if cost > policy.limit:
        return None, state
    left = calendar_wait_us(state, now, policy)
    if left <= 0:
        start = bounds(policy.period, now[1], policy.zone)[0]
        # Not before the stored one: a wall clock set back would else come to that period again, and free it again.
        return 0, (max(start, state[0]) if state else start, cost, now[0])
    if state[1] + cost > policy.limit:
        return left, state
    return 0, (state[0], state[1] + cost, state[2])


def calendar_withdrawn(state: State, taken: Instant, policy: CalendarPolicy, cost: int) -> State:
    """Return *state* without *cost* units that were admitted at *taken*, if it still counts for their period."""
    if not state or taken[0] < state[2] or bounds(policy.period, taken[1], policy.zone)[0] != state[0]:
        return state
    return (state[0], max(0, state[1] - cost), state[2])
