"""Policies compiled for an engine: one rule a policy, one program a plan. Pure.

A *rule* answers for one policy over its *state*, a tuple of integers (``()``: never seen). A *program* is the rules of
one `RateLimits` in their order, and how their states are packed into one `bytes` value: the number of the program, then
the words of each state, 64 bits each. A cell of plain bytes in a plain dict is invisible to the garbage collector;
tuples of integers are not quite, for a dict that was given a fresh tuple is walked by the next full collection (3 ms at
100,000 cells).

**When a plan changes**, states carry over by the policy's name. Where the two rules count alike (same interval, same
window, a concurrency limit) the state itself goes on, and its numbers are judged by the new limit. Otherwise the units
in use carry over: they flow off as the *old* rule has it until a call fits into the *new* capacity beside them, and
that call starts the new count with them. So a new limit holds from the next call on, nothing that was consumed is
forgotten while a policy of that name stands, and a refusal under one plan changes nothing for another that is still in
use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Final, Protocol, TypeAlias, assert_never

from hivetenancy.clock import Instant
from hivetenancy.periods import bounds
from hivetenancy.plans import MAX_AMOUNT, CalendarPolicy, ConcurrencyPolicy, Policy, RateLimits, RatePolicy

from . import gcra, window
from .protocol import LimitState

State: TypeAlias = tuple[int, ...]

FREED_BY_OTHERS: Final = -1
"""Instead of a wait: no time helps, a slot must be freed."""


_packers: dict[int, Struct] = {}


def packer(words: int) -> Struct:
    """Return the `Struct` of so many signed 64-bit words."""
    found = _packers.get(words)
    if found is None:
        found = _packers[words] = Struct(f"<{words}q")
    return found


_state = tuple.__new__  # a named tuple's own constructor costs twice as much, and every answer's headers build them

_PAIR_BYTES: Final = 24
_pack_pair = packer(3).pack
_unpack_pair = packer(3).unpack


class Rule(Protocol):
    """One policy over its state. Waits are in microseconds; all methods are pure."""

    policy: Policy
    capacity: int

    def take(self, state: State, now: Instant, cost: int) -> tuple[int, State]:
        """Return 0 and the state with *cost* units taken, or the wait and the state as it was.

        *cost* is at least 1 and at most the capacity.
        """
        ...

    def used(self, state: State, now: Instant) -> int:
        """Return the units in use, rounded up."""
        ...

    def wait(self, state: State, now: Instant, allowed: int) -> int:
        """Return how long until at most *allowed* units are in use."""
        ...

    def holding(self, units: int, now: Instant) -> State:
        """Return a state with *units* in use."""
        ...

    def same_count(self, other: Rule) -> bool:
        """Whether a state of *other* means the same here."""
        ...

    def withdrawn(self, state: State, taken: Instant, latest_us: int, cost: int) -> State:
        """Return the state with the units of a call given back, as far as that is safe."""
        ...

    def told(self, state: State, now: Instant) -> LimitState:
        """Return where the policy stands: `used` and `wait` in one, since every answer's headers say it."""
        ...


class BucketRule:
    """A token bucket; its state is the TAT in nanoseconds."""

    __slots__ = ("_limit", "_name", "_period_us", "capacity", "interval", "policy", "tolerance")

    def __init__(self, policy: RatePolicy) -> None:
        self.policy: Policy = policy
        self.capacity = gcra.capacity(policy)
        self.interval = gcra.interval_ns(policy)
        self.tolerance = self.capacity * self.interval
        self._name, self._limit, self._period_us = policy.name, policy.limit, policy.period_us

    def take(self, state: State, now: Instant, cost: int) -> tuple[int, State]:
        """See `Rule.take`."""
        present = now[0] * gcra.NS_PER_US
        after = (state[0] if state and state[0] > present else present) + cost * self.interval
        late = after - present - self.tolerance
        return (gcra.up_us(late), state) if late > 0 else (0, (after,))

    def used(self, state: State, now: Instant) -> int:
        """See `Rule.used`."""
        return gcra.used(state[0], now[0] * gcra.NS_PER_US, self.interval) if state else 0

    def wait(self, state: State, now: Instant, allowed: int) -> int:
        """See `Rule.wait`."""
        return gcra.up_us(state[0] - now[0] * gcra.NS_PER_US - allowed * self.interval) if state else 0

    def holding(self, units: int, now: Instant) -> State:
        """See `Rule.holding`."""
        return (now[0] * gcra.NS_PER_US + units * self.interval,)

    def same_count(self, other: Rule) -> bool:
        """See `Rule.same_count`."""
        return isinstance(other, BucketRule) and other.interval == self.interval

    def withdrawn(self, state: State, taken: Instant, latest_us: int, cost: int) -> State:
        """See `Rule.withdrawn`."""
        elapsed = latest_us - taken[0]
        return (gcra.refunded(state[0], cost=cost, interval=self.interval, elapsed_us=elapsed),)

    def told(self, state: State, now: Instant) -> LimitState:
        """See `Rule.told`."""
        capacity = self.capacity
        ahead = state[0] - now[0] * gcra.NS_PER_US if state else 0
        if ahead <= 0:
            return LimitState(self._name, self._limit, self._period_us, capacity, capacity, 0)
        left = capacity + -ahead // self.interval
        return LimitState(self._name, self._limit, self._period_us, capacity, max(0, left), -(-ahead // gcra.NS_PER_US))


class SlidingRule:
    """A sliding window; its state is that of `hivetenancy.ratelimit.window`."""

    __slots__ = ("capacity", "period_us", "policy", "slice_us")

    def __init__(self, policy: RatePolicy) -> None:
        self.policy: Policy = policy
        self.capacity = policy.limit
        self.period_us = policy.period_us
        self.slice_us = window.slice_us(policy.period_us)

    def take(self, state: State, now: Instant, cost: int) -> tuple[int, State]:
        """See `Rule.take`. The common case is written out: no entry leaves, the newest is joined."""
        if state and state[2] + self.period_us > now[0] >= state[-2]:
            total, opened, *_, _, units = state
            if now[0] - opened < self.slice_us and total + cost <= self.capacity:
                return 0, (total + cost, *state[1:-2], now[0], units + cost)
        live = window.trimmed(state, now[0], self.period_us)
        excess = (live[0] if live else 0) + cost - self.capacity
        if excess > 0:
            return window.wait_us(live, now[0], self.period_us, excess), state
        return 0, window.added(live, now[0], self.period_us, cost)

    def used(self, state: State, now: Instant) -> int:
        """See `Rule.used`."""
        live = window.trimmed(state, now[0], self.period_us)
        return live[0] if live else 0

    def wait(self, state: State, now: Instant, allowed: int) -> int:
        """See `Rule.wait`."""
        live = window.trimmed(state, now[0], self.period_us)
        excess = (live[0] if live else 0) - allowed
        return window.wait_us(live, now[0], self.period_us, excess) if excess > 0 else 0

    def holding(self, units: int, now: Instant) -> State:
        """See `Rule.holding`."""
        return window.added(window.EMPTY, now[0], self.period_us, units)

    def same_count(self, other: Rule) -> bool:
        """See `Rule.same_count`."""
        return isinstance(other, SlidingRule) and other.period_us == self.period_us

    def withdrawn(self, state: State, taken: Instant, latest_us: int, cost: int) -> State:
        """See `Rule.withdrawn`."""
        return window.withdrawn(state, taken=taken[0], latest=latest_us, period_us=self.period_us, cost=cost)

    def told(self, state: State, now: Instant) -> LimitState:
        """See `Rule.told`."""
        live = window.trimmed(state, now[0], self.period_us)
        used = live[0] if live else 0
        reset = window.wait_us(live, now[0], self.period_us, used) if used else 0
        left = self.capacity - used
        return LimitState(self.policy.name, self.capacity, self.period_us, self.capacity, max(0, left), reset)


class CalendarRule:
    """A calendar window; its state is that of `hivetenancy.ratelimit.window`."""

    __slots__ = ("calendar", "capacity", "policy")

    def __init__(self, policy: CalendarPolicy) -> None:
        self.policy: Policy = policy
        self.calendar = policy
        self.capacity = policy.limit

    def take(self, state: State, now: Instant, cost: int) -> tuple[int, State]:
        """See `Rule.take`."""
        wait, after = window.calendar(state, now=now, policy=self.calendar, cost=cost)
        assert wait is not None  # the cost was compared with the capacity before
        return wait, after

    def used(self, state: State, now: Instant) -> int:
        """See `Rule.used`."""
        return state[1] if window.calendar_wait_us(state, now, self.calendar) > 0 else 0

    def wait(self, state: State, now: Instant, allowed: int) -> int:
        """See `Rule.wait`."""
        left = window.calendar_wait_us(state, now, self.calendar)
        return left if left > 0 and state[1] > allowed else 0

    def holding(self, units: int, now: Instant) -> State:
        """See `Rule.holding`."""
        return window.calendar(window.EMPTY, now=now, policy=self.calendar, cost=max(units, 1))[1]

    def same_count(self, other: Rule) -> bool:
        """See `Rule.same_count`."""
        return (
            isinstance(other, CalendarRule)
            and other.calendar.period is self.calendar.period
            and other.calendar.zone == self.calendar.zone
        )

    def withdrawn(self, state: State, taken: Instant, latest_us: int, cost: int) -> State:
        """See `Rule.withdrawn`."""
        return window.calendar_withdrawn(state, taken, self.calendar, cost)

    def told(self, state: State, now: Instant) -> LimitState:
        """See `Rule.told`."""
        start, end = bounds(self.calendar.period, now[1], self.calendar.zone)
        left = max(0, self.capacity - self.used(state, now))
        return LimitState(self.policy.name, self.capacity, end - start, self.capacity, left, self.wait(state, now, 0))


class SlotsRule:
    """A concurrency limit; its state is the number of slots held.

    A call holds one slot, whatever it costs: cost is work done, and a slot says that the work is under way.
    """

    __slots__ = ("capacity", "limit", "policy")

    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self.policy: Policy = policy
        self.capacity = MAX_AMOUNT  # of a cost, which no concurrency limit bounds
        self.limit = policy.limit

    def take(self, state: State, now: Instant, cost: int) -> tuple[int, State]:
        """See `Rule.take`."""
        after = (state[0] if state else 0) + 1
        return (FREED_BY_OTHERS, state) if after > self.limit else (0, (after,))

    def used(self, state: State, now: Instant) -> int:
        """See `Rule.used`."""
        return state[0] if state else 0

    def wait(self, state: State, now: Instant, allowed: int) -> int:
        """See `Rule.wait`."""
        return FREED_BY_OTHERS if state and state[0] > allowed else 0

    def holding(self, units: int, now: Instant) -> State:
        """See `Rule.holding`; slots are never carried over from a count of another kind."""
        return (0,)

    def same_count(self, other: Rule) -> bool:
        """See `Rule.same_count`."""
        return isinstance(other, SlotsRule)

    def withdrawn(self, state: State, taken: Instant, latest_us: int, cost: int) -> State:
        """See `Rule.withdrawn`: slots are freed by every release, not by a refund."""
        return state

    def told(self, state: State, now: Instant) -> LimitState:
        """See `Rule.told`."""
        left = max(0, self.limit - (state[0] if state else 0))
        return LimitState(self.policy.name, self.limit, None, self.limit, left, None)


def rule_for(policy: Policy) -> Rule:
    """Return the rule of *policy*."""
    if isinstance(policy, RatePolicy):
        return SlidingRule(policy) if policy.burst is None else BucketRule(policy)
    if isinstance(policy, CalendarPolicy):
        return CalendarRule(policy)
    if isinstance(policy, ConcurrencyPolicy):
        return SlotsRule(policy)
    assert_never(policy)


class Program:
    """The rules of one plan, and the packing of their states.

    Attributes:
        number: Names the program within one engine; the first word of each cell.
        rules: One a policy, in order.
        index: The position of each rule by the name of its policy.
        slotted: Whether any rule is a concurrency limit.
        buckets: ``(interval, tolerance)`` of each rule, in nanoseconds, if all are token buckets; else empty.
        fixed: The packing of a cell of token buckets; ``None`` where states vary in length.
        advance: Takes ``(cell, now, cost)`` and returns the cell with *cost* units taken, or ``None`` if a rule
            refuses or the cell is of another program. The same as `unpack`, `Rule.take` and `pack`; two token buckets
            are written out, since a burst a second and a sum an hour is what most tenants have.
        pair: The numbers of `buckets` in a row if there are two; else ``None``.
        cells: How many cells of the engine hold this number.
        known: Whether the engine still finds the program by its plan; if not, it goes with its last cell.
    """

    __slots__ = ("advance", "buckets", "cells", "fixed", "index", "known", "number", "pair", "rules", "slotted")

    def __init__(self, number: int, limits: RateLimits) -> None:
        self.number = number
        self.rules: tuple[Rule, ...] = tuple(rule_for(policy) for policy in limits.policies)
        self.index = {rule.policy.name: at for at, rule in enumerate(self.rules)}
        self.slotted = any(isinstance(rule, SlotsRule) for rule in self.rules)
        self.cells = 0
        self.known = True
        only = tuple((rule.interval, rule.tolerance) for rule in self.rules if isinstance(rule, BucketRule))
        self.buckets = only if len(only) == len(self.rules) else ()
        self.fixed = packer(1 + len(self.rules)) if self.buckets else None
        self.pair = (*only[0], *only[1]) if len(self.buckets) == 2 else None
        self.advance: Callable[[bytes, Instant, int], bytes | None] = (
            self._advance_pair if self.pair else self._advance_buckets if self.fixed else self._advance_any
        )

    def _advance_any(self, cell: bytes, now: Instant, cost: int) -> bytes | None:
        size = len(cell) >> 3
        words = (_packers.get(size) or packer(size)).unpack(cell)
        if words[0] != self.number:
            return None
        after, at = [self.number], 1
        for rule in self.rules:
            start, at = at + 1, at + 1 + words[at]
            if cost > rule.capacity:
                return None
            wait, state = rule.take(words[start:at], now, cost)
            if wait:
                return None
            after.append(len(state))
            after += state
        size = len(after)
        return (_packers.get(size) or packer(size)).pack(*after)

    def _advance_pair(self, cell: bytes, now: Instant, cost: int) -> bytes | None:
        if len(cell) != _PAIR_BYTES or self.pair is None:
            return None
        number, first, second = _unpack_pair(cell)
        if number != self.number:
            return None
        interval, tolerance, interval2, tolerance2 = self.pair
        present = now[0] * gcra.NS_PER_US
        if first < present:
            first = present
        if second < present:
            second = present
        first += interval * cost
        second += interval2 * cost
        if first - present > tolerance or second - present > tolerance2:
            return None
        return _pack_pair(number, first, second)

    def _advance_buckets(self, cell: bytes, now: Instant, cost: int) -> bytes | None:
        fixed = self.fixed
        if fixed is None or len(cell) != fixed.size:
            return None
        number, *tats = fixed.unpack(cell)
        if number != self.number:
            return None
        present = now[0] * gcra.NS_PER_US
        for at, (interval, tolerance) in enumerate(self.buckets):
            tat = max(tats[at], present) + interval * cost
            if tat - present > tolerance:
                return None
            tats[at] = tat
        return fixed.pack(number, *tats)

    def begin(self, now: Instant, cost: int) -> bytes | None:
        """Return the cell of a subject never seen with *cost* units taken; ``None`` if there is none to keep."""
        states = []
        for rule in self.rules:
            if cost > rule.capacity:
                return None
            wait, state = rule.take((), now, cost)
            if wait:
                return None
            states.append(state)
        return self.pack(states) if states else None

    def pack(self, states: Iterable[State]) -> bytes:
        """Return one cell for the states of all rules, in order; those of token buckets are not empty."""
        if self.fixed is not None:
            return self.fixed.pack(self.number, *[word for state in states for word in state])
        words = [self.number]
        for state in states:
            words.append(len(state))
            words += state
        return packer(len(words)).pack(*words)

    def unpack(self, cell: bytes) -> Sequence[State]:
        """Return the states that `pack` was given."""
        words = packer(len(cell) >> 3).unpack(cell)
        if self.fixed is not None:
            return [(word,) for word in words[1:]]
        states, at = [], 1
        for _ in self.rules:
            end = at + 1 + words[at]
            states.append(words[at + 1 : end])
            at = end
        return states

    @property
    def never_seen(self) -> Sequence[State]:
        """The states of a subject that has no cell."""
        return [()] * len(self.rules)

    def idle(self, states: Iterable[State], now: Instant) -> bool:
        """Whether a cell with these states is as good as none."""
        return not any(rule.used(state, now) for rule, state in zip(self.rules, states, strict=True))

    def idle_cell(self, cell: bytes, now: Instant) -> bool:
        """Whether *cell*, of this program, is as good as none."""
        if self.fixed is not None:
            return bool(max(self.fixed.unpack(cell)[1:]) <= now[0] * gcra.NS_PER_US)
        return self.idle(self.unpack(cell), now)

    def told_at_once(self, cell: bytes, now: Instant) -> list[LimitState] | None:
        """Return where each policy stands for a *cell* of token buckets of this program; ``None`` for any other."""
        fixed = self.fixed
        if fixed is None or len(cell) != fixed.size:
            return None
        words = fixed.unpack(cell)
        if words[0] != self.number:
            return None
        return [rule.told((word,), now) for rule, word in zip(self.rules, words[1:], strict=True)]

    def told(self, states: Sequence[State], now: Instant, origin: Program) -> list[LimitState]:
        """Return where each policy stands; *states* are those of *origin*."""
        if origin is self:
            return [rule.told(state, now) for rule, state in zip(self.rules, states, strict=True)]
        return [_told(rule, *origin.state_for(rule, states), now) for rule in self.rules]

    def state_for(self, rule: Rule, states: Sequence[State]) -> tuple[Rule, State]:
        """Return the state that counts for *rule*, a rule of this or of another program, and the rule it is under."""
        at = self.index.get(rule.policy.name)
        if at is None:
            return rule, ()
        stored = self.rules[at]
        if isinstance(stored, SlotsRule) is not isinstance(rule, SlotsRule):
            return rule, ()  # slots and units are different things, whatever they are called
        return (rule if stored is rule or rule.same_count(stored) else stored), states[at]


def take(rule: Rule, under: Rule, state: State, now: Instant, cost: int) -> tuple[int, State]:
    """Take *cost* units by *rule* from a *state* that stands *under* the same rule or that of an earlier plan.

    Returns 0 and the next state under *rule*, or the wait (`FREED_BY_OTHERS`: no time helps) and the state as it was.
    """
    if under is rule or isinstance(rule, SlotsRule):
        return rule.take(state, now, cost)
    in_use = under.used(state, now)
    if in_use + cost > rule.capacity:
        return under.wait(state, now, rule.capacity - cost), state
    return rule.take(rule.holding(in_use, now) if in_use else (), now, cost)


def _told(rule: Rule, under: Rule, state: State, now: Instant) -> LimitState:
    """Return where *rule* stands while its units are still counted *under* the rule of an earlier plan."""
    if under is rule:
        return rule.told(state, now)
    left = max(0, rule.capacity - under.used(state, now))  # never of slots: two concurrency limits count alike
    return rule.told((), now)._replace(remaining=left, reset_after_us=under.wait(state, now, 0))
