"""Rate limiters that are wrong on purpose, each in the way one in the field was, and the cases that catch them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hivetenancy.clock import Instant
from hivetenancy.decision import Reason, Refusal
from hivetenancy.plans import ConcurrencyPolicy, Policy, RateLimits
from hivetenancy.ratelimit import PERMIT, Permit, Subject
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.testing.clock import ManualClock
from tests.broken import OneLostUpdate


class Broken(MemoryRateLimiter):
    """The memory engine, to be spoilt by a subclass. Always takes the generic way, so that a fault cannot hide."""

    fails: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.manual = clock

    def ask(self, subjects: Sequence[Subject], cost: int, now: Instant) -> Permit | Refusal:
        """Ask the sound engine."""
        return super().try_acquire(subjects, cost=cost, now=now)

    def forget(self, subject_id: str) -> None:
        """Lose the state of a subject."""
        if subject_id in self._live:
            self._put_back(subject_id)
        self._shards[hash(subject_id) & 255].pop(subject_id, None)


class TakesOnRefusal(Broken):
    """A refused call costs what is left (limits' and throttled's fixed windows)."""

    fails = ("a_refusal_takes_nothing", "policies_are_taken_together")

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        at = now or self._clock.now()
        answer = self.ask(subjects, cost, at)
        if isinstance(answer, Refusal) and answer.reason is Reason.RATE_LIMITED:
            for subject in subjects:
                while self.ask([subject], 1, at) is PERMIT:
                    pass
                for policy in subject.limits.policies:
                    while self.ask([Subject(subject.id, RateLimits.of([policy]))], 1, at) is PERMIT:
                        pass
        return answer


class TakesSome(Broken):
    """Asks policy after policy: what the first admitted is gone when the second refuses (nexus, limits, throttled)."""

    fails = ("policies_are_taken_together", "no_slot_is_taken_where_a_rate_refuses", "subjects_are_taken_together")

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        at = now or self._clock.now()
        for subject in subjects:
            for policy in subject.limits.policies:
                split = Subject(f"{subject.id}/{policy.name}", RateLimits.of([policy]))
                answer = self.ask([split], cost, at)
                if isinstance(answer, Refusal):
                    return answer
        return PERMIT


class FixedWindows(Broken):
    """Counts in fixed windows from the first hit: twice the limit at the seam (vectorizer)."""

    fails = ("a_window_has_no_seam", "the_printed_bound_holds")

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.windows: dict[str, tuple[int, int]] = {}

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        at = (now or self._clock.now())[0]
        subject = subjects[0]
        policy: Any = subject.limits.policies[0]
        start, used = self.windows.get(subject.id, (at, 0))
        if at - start >= policy.period_us:
            start, used = at, 0
        if used + cost > policy.limit:
            return Refusal(reason=Reason.RATE_LIMITED, policy=policy.name, retry_after_us=start + policy.period_us - at)
        self.windows[subject.id] = (start, used + cost)
        return PERMIT


class WaitsOneTooShort(Broken):
    """Tells a wait that is one microsecond short: retry then and you are refused again (throttled, flask-limiter)."""

    off = -1
    fails = (
        "a_wait_is_exact",
        "a_wait_counts_the_cost",
        "the_longest_wait_is_told",
        "without_now_the_clock_is_read",
    )

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        answer = self.ask(subjects, cost, now or self._clock.now())
        if isinstance(answer, Refusal) and answer.retry_after_us is not None:
            return replace(answer, retry_after_us=answer.retry_after_us + self.off)
        return answer


class WaitsOneTooLong(WaitsOneTooShort):
    """Tells a wait that is one microsecond long."""

    off = 1


class ClockBackFrees(Broken):
    """Forgets a subject when time runs backwards, as an unsigned difference or a clamp to zero does."""

    fails = ("a_clock_that_steps_back_frees_nothing", "an_idle_subject_stays_counted_when_the_clock_steps_back")

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.last = clock.now()

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        at = now or self._clock.now()
        if at[0] < self.last[0] or at[1] < self.last[1]:
            for subject in subjects:
                self.forget(subject.id)
        self.last = at
        return self.ask(subjects, cost, at)


class RefundsEverything(Broken):
    """Gives a call back in full however late, and resets what it cannot take apart."""

    fails = ("a_refund_never_makes_more_pass", "a_refund_of_what_has_flowed_off_gives_nothing")

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        if refund:
            for subject in subjects:
                self.forget(subject.id)


class RefundsNothing(Broken):
    """Ignores the refund."""

    fails = ("a_refund_gives_the_units_back", "a_refund_never_makes_more_pass")

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        super().release(subjects, cost=cost, taken=taken)


class RefundsUnasked(Broken):
    """Gives units back with every release."""

    fails = ("a_release_without_anything_to_free_is_harmless",)

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        super().release(subjects, cost=cost, taken=taken, refund=True)


class FrozenParameters(Broken):
    """Keeps the limits a subject was first seen with (synap)."""

    fails = ("a_raised_plan_holds_from_the_next_call", "a_lowered_plan_holds_from_the_next_call")

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.first: dict[str, Subject] = {}

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        frozen = [self.first.setdefault(subject.id, subject) for subject in subjects]
        return self.ask(frozen, cost, now or self._clock.now())


class StartsAnewWithAPlan(Broken):
    """Makes the plan part of the key, so that a changed plan starts from zero (limits), for each in turn."""

    fails = (
        "a_raised_plan_holds_from_the_next_call",
        "a_lowered_plan_holds_from_the_next_call",
        "two_plans_in_turn_free_nothing",
    )

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        keyed = [Subject(f"{subject.id}/{id(subject.limits)}", subject.limits) for subject in subjects]
        return self.ask(keyed, cost, now or self._clock.now())


class SlotsBelowZero(Broken):
    """Lets the number of held slots fall below zero, so that a slot released twice frees two."""

    fails = ("a_slot_released_twice_frees_none_that_was_not_held",)

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.spare = 0

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        held = self.peek(subjects)[0]
        self.spare += held.remaining == held.limit
        super().release(subjects, cost=cost, taken=taken, refund=refund)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        answer = self.ask(subjects, cost, now or self._clock.now())
        if isinstance(answer, Refusal) and self.spare:
            self.spare -= 1
            return PERMIT
        return answer


class SlotsLeak(Broken):
    """Never frees a slot, and says when one will be free."""

    fails = ("slots_come_back_with_their_release",)

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        """Free nothing."""


class SlotsByTheCost(Broken):
    """Takes and frees as many slots as the call costs, so that a costly call is many, or can never pass."""

    fails = ("a_call_holds_one_slot_whatever_it_costs", "a_concurrency_limit_of_zero_refuses_every_call")

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.held: dict[str, int] = {}

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        for subject in subjects:
            for policy in subject.limits.policies:
                if isinstance(policy, ConcurrencyPolicy) and self.held.get(subject.id, 0) + cost > policy.limit:
                    never = cost > policy.limit
                    reason = Reason.COST_TOO_LARGE if never else Reason.TOO_MANY_IN_FLIGHT
                    return Refusal(reason=reason, policy=policy.name, limit=policy.limit, requested=cost)
        answer = self.ask(subjects, cost, now or self._clock.now())
        if answer is PERMIT:
            for subject in subjects:
                self.held[subject.id] = self.held.get(subject.id, 0) + cost
        return answer

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        for subject in subjects:
            self.held[subject.id] = max(0, self.held.get(subject.id, 0) - cost)
        super().release(subjects, cost=cost, taken=taken, refund=refund)


class FreesByTheCost(Broken):
    """Takes one slot a call and frees as many as it cost, so that a costly call frees those of others."""

    fails = ("a_call_holds_one_slot_whatever_it_costs",)

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        super().release(subjects, cost=cost, taken=taken, refund=refund)
        for _ in range(cost - 1):
            super().release(subjects, taken=taken)


class ZeroIsACapacity(Broken):
    """Takes a limit of no slots for a capacity that every cost is over."""

    fails = ("a_concurrency_limit_of_zero_refuses_every_call",)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        answer = self.ask(subjects, cost, now or self._clock.now())
        if isinstance(answer, Refusal) and answer.reason is Reason.TOO_MANY_IN_FLIGHT and answer.limit == 0:
            return replace(answer, reason=Reason.COST_TOO_LARGE)
        return answer


class ZeroIsNoLimit(Broken):
    """Takes a limit of zero for none."""

    fails = ("a_concurrency_limit_of_zero_refuses_every_call",)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        left = [
            Subject(subject.id, RateLimits.of([policy for policy in subject.limits.policies if policy.limit]))
            for subject in subjects
        ]
        return self.ask(left, cost, now or self._clock.now())


class ForgetsTheOldest(Broken):
    """Keeps a thousand subjects and drops the one not seen for longest, limited or not (throttled)."""

    fails = ("subjects_do_not_touch_each_other",)

    def __init__(self, *, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.kept: OrderedDict[str, None] = OrderedDict()

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        for subject in subjects:
            self.kept[subject.id] = None
            self.kept.move_to_end(subject.id)
        while len(self.kept) > 1024:
            self.forget(self.kept.popitem(last=False)[0])
        return self.ask(subjects, cost, now or self._clock.now())


class OneBucketForAll(Broken):
    """Ignores who asks (fastapi-limiter's quick start; synap's bucket ``unknown``)."""

    fails = ("subjects_do_not_touch_each_other",)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        return self.ask([Subject("unknown", subjects[0].limits)], cost, now or self._clock.now())


class KeyedByObject(Broken):
    """Counts for the object instead of its id."""

    fails = ("state_goes_with_the_id",)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        keyed = [Subject(f"{subject.id}/{id(subject)}", subject.limits) for subject in subjects]
        return self.ask(keyed, cost, now or self._clock.now())


class CountsOneACall(Broken):
    """Takes one unit whatever the call costs, and asks no question about the cost."""

    fails = (
        "a_wait_counts_the_cost",
        "a_cost_that_can_never_pass",
        "a_cost_below_one_is_an_error",
        "a_refund_gives_the_units_back",
    )

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        return self.ask(subjects, 1, now or self._clock.now())


class HalfTheBurst(Broken):
    """Admits half of what is due (throttled's token bucket loses as much)."""

    fails = ("a_burst_passes_and_then_no_more", "a_window_gives_its_whole_limit_at_once")

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        return self.ask(subjects, cost * 2, now or self._clock.now())


class AwaitsInBetween(Broken):
    """Reads, lets others run, then writes: tasks that ask at once are all admitted (milvus, vectorizer's quota)."""

    fails = ("many_at_once_get_the_limit",)

    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        import asyncio

        free = min(state.remaining for state in self.peek(subjects, now=now))
        await asyncio.sleep(0)
        answer = self.ask(subjects, cost, now or self._clock.now())
        return PERMIT if free >= cost else answer


ENGINES: list[type[Broken]] = [
    TakesOnRefusal,
    TakesSome,
    FixedWindows,
    WaitsOneTooShort,
    WaitsOneTooLong,
    ClockBackFrees,
    RefundsEverything,
    RefundsNothing,
    RefundsUnasked,
    FrozenParameters,
    StartsAnewWithAPlan,
    SlotsBelowZero,
    SlotsLeak,
    SlotsByTheCost,
    FreesByTheCost,
    ZeroIsACapacity,
    ZeroIsNoLimit,
    ForgetsTheOldest,
    OneBucketForAll,
    KeyedByObject,
    CountsOneACall,
    HalfTheBurst,
    AwaitsInBetween,
]


def capacity(policy: Policy) -> int:
    """What passes at one moment, one unit at a time."""
    return policy.limit if isinstance(policy, ConcurrencyPolicy) else policy.capacity


class Racing:
    """Counts in a plain dict under a lock on both sides, giving way between reading and writing. Sound."""

    fails: ClassVar[tuple[str, ...]] = ()
    loses_an_acquire = False
    loses_a_release = False

    def __init__(self, *, clock: ManualClock) -> None:
        self.used: dict[str, int] = {}
        self.lock = threading.Lock()
        self.acquiring = OneLostUpdate() if self.loses_an_acquire else None
        self.releasing = OneLostUpdate() if self.loses_a_release else None

    def change(
        self, slip: OneLostUpdate | None, subject_id: str, write: Callable[[int], Permit | Refusal]
    ) -> Permit | Refusal:
        """Write what follows from what is in use, under the lock but for the one *slip* of this side."""

        def read() -> int:
            return self.used.get(subject_id, 0)

        if slip is not None:
            return slip.run(self.lock, read, write)
        with self.lock:
            found = read()
            time.sleep(0)  # lets another thread run, as any bytecode may
            return write(found)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        def write(used: int) -> Permit | Refusal:
            if used + cost > min(capacity(policy) for policy in subjects[0].limits.policies):
                return Refusal(reason=Reason.RATE_LIMITED)
            self.used[subjects[0].id] = used + cost
            return PERMIT

        return self.change(self.acquiring, subjects[0].id, write)

    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        """Answer as `try_acquire`."""
        return self.try_acquire(subjects, cost=cost, now=now)

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        """Free slots."""

        def write(used: int) -> Permit | Refusal:
            self.used[subjects[0].id] = max(0, used - cost)
            return PERMIT

        self.change(self.releasing, subjects[0].id, write)


class NoLock(Racing):
    """Loses an update on each side, as an engine without any lock does once two threads meet there."""

    fails = ("threads_get_the_limit", "threads_hold_no_more_slots_than_there_are")
    loses_an_acquire = loses_a_release = True


class LockOnOneSide(Racing):
    """Loses a release, as an engine does that takes its lock to acquire and not to release."""

    fails = ("threads_hold_no_more_slots_than_there_are",)
    loses_a_release = True


UNSAFE: list[type[Racing]] = [NoLock, LockOnOneSide]
