"""The memory engine beside its core, step by step: the rules of the walk, for Hypothesis and for a seeded walk."""

from __future__ import annotations

from typing import Final

from hivetenancy.clock import HOUR_US, SECOND_US
from hivetenancy.decision import Reason, Refusal
from hivetenancy.periods import Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, RateLimits, RatePolicy
from hivetenancy.ratelimit import PERMIT, Subject
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.ratelimit.program import FREED_BY_OTHERS, Program, SlotsRule, State, take
from hivetenancy.testing.clock import ManualClock


def _rate(limit: int, period_us: int, burst: int | None, name: str) -> RatePolicy:
    return RatePolicy(limit=limit, period_us=period_us, burst=burst, name=name)


PLANS: Final = (
    RateLimits.of([_rate(5, SECOND_US, 5, "a")]),
    RateLimits.of([_rate(50, SECOND_US, 7, "a")]),
    RateLimits.of([_rate(3, SECOND_US, 4, "a"), _rate(9, 7 * SECOND_US, 9, "b")]),
    RateLimits.of([_rate(6, 3 * SECOND_US, None, "a"), _rate(9, 8 * SECOND_US, None, "b")]),
    RateLimits.of([_rate(4, 3 * SECOND_US, None, "a"), ConcurrencyPolicy(limit=3, name="slots")]),
    RateLimits.of([CalendarPolicy(limit=12, period=Period.HOUR, name="b"), _rate(5, SECOND_US, 5, "a")]),
    RateLimits.of([ConcurrencyPolicy(limit=5, name="slots")]),
    RateLimits.of([]),
)
IDS: Final = ("t:acme", "t:zenith", "k:one")
BACK_AT_MOST_US: Final = 9 * SECOND_US  # below the ten seconds for which an idle cell stays


class Walk:
    """One engine, the states its core gives for the same calls, and a clock."""

    def __init__(self, *, threadsafe: bool = False) -> None:
        self.clock = ManualClock()
        self.farthest = self.clock.now()
        self.limiter = MemoryRateLimiter(clock=self.clock, threadsafe=threadsafe)
        self.programs = {plan: Program(number, plan) for number, plan in enumerate(PLANS)}
        self.states: dict[str, tuple[Program, list[State]]] = {}
        self.plans = dict.fromkeys(IDS, PLANS[0])
        self.tuples: dict[tuple[str, ...], tuple[Subject, ...]] = {}
        self.admitted: list[tuple[tuple[Subject, ...], int, tuple[int, int]]] = []
        self.latest_us = -(2**63)  # the latest reading that the engine was given: none yet

    def subjects(self, ids: tuple[str, ...]) -> tuple[Subject, ...]:
        """The same tuple each time while no plan changes, as the gate keeps it."""
        found = self.tuples.get(ids)
        if found is None or any(subject.limits is not self.plans[subject.id] for subject in found):
            found = self.tuples[ids] = tuple(Subject(id_, self.plans[id_]) for id_ in ids)
        return found

    def acquire(self, ids: tuple[str, ...], cost: int) -> None:
        """Ask both, and compare the answers and where all policies stand afterwards."""
        now, subjects = self.clock.now(), self.subjects(ids)
        self.latest_us = max(self.latest_us, now[0])
        answer = self.limiter.try_acquire(subjects, cost=cost, now=now)
        expected = self._model(subjects, cost, now)
        if expected is None:
            assert answer is PERMIT
            self.admitted.append((subjects, cost, now))
        else:
            assert isinstance(answer, Refusal)
            assert (answer.reason, answer.retry_after_us) == expected
        self.compare(subjects)

    def repeat(self, id_: str, times: int) -> None:
        """Ask often enough that the engine makes the cell hot."""
        for _ in range(times):
            self.acquire((id_,), 1)

    def _model(
        self, subjects: tuple[Subject, ...], cost: int, now: tuple[int, int]
    ) -> tuple[Reason, int | None] | None:
        after, waits = {}, []
        for subject in subjects:
            program = self.programs[subject.limits]
            origin, states = self.states.get(subject.id, (program, [()] * len(program.rules)))
            if any(cost > rule.capacity for rule in program.rules):
                return Reason.COST_TOO_LARGE, None
            taken = [take(rule, *origin.state_for(rule, states), now=now, cost=cost) for rule in program.rules]
            waits += [wait for wait, _ in taken]
            after[subject.id] = (program, [state for _, state in taken])
        if FREED_BY_OTHERS in waits:
            return Reason.TOO_MANY_IN_FLIGHT, None
        if any(waits):
            return Reason.RATE_LIMITED, max(waits)
        self.states.update({id_: value for id_, value in after.items() if value[1]})
        return None

    def release(self, which: int, refund: bool, twice: bool) -> None:
        """Release an admitted call, perhaps once too often."""
        if not self.admitted:
            return
        subjects, cost, taken = self.admitted[which % len(self.admitted)]
        if not twice:
            del self.admitted[which % len(self.admitted)]
        refund = refund and not twice
        self.limiter.release(subjects, cost=cost, taken=taken, refund=refund)
        for subject in subjects:
            self._model_release(subject, cost, taken, refund)
        self.compare(subjects)

    def _model_release(self, subject: Subject, cost: int, taken: tuple[int, int], refund: bool) -> None:
        program = self.programs[subject.limits]
        if subject.id not in self.states:
            return
        origin, states = self.states[subject.id]
        for rule in program.rules:
            at = origin.index.get(rule.policy.name)
            if at is None:
                continue
            if isinstance(rule, SlotsRule) and isinstance(origin.rules[at], SlotsRule):
                states[at] = (max(0, states[at][0] - 1),)  # one call, one slot
            elif refund and origin.rules[at].policy == rule.policy:
                latest = max(self.clock.now()[0], self.latest_us)
                states[at] = rule.withdrawn(states[at], taken, latest, cost)

    def compare(self, subjects: tuple[Subject, ...]) -> None:
        """Both say the same of where the policies stand."""
        now, expected = self.clock.now(), []
        for subject in subjects:
            program = self.programs[subject.limits]
            origin, states = self.states.get(subject.id, (program, [()] * len(program.rules)))
            expected += program.told(states, now, origin)
        assert self.limiter.peek(subjects, now=now) == expected

    def advance(self, us: int) -> None:
        """Move both clocks ahead."""
        self.clock.advance(us=us)
        now = self.clock.now()
        self.farthest = max(now[0], self.farthest[0]), max(now[1], self.farthest[1])

    def back(self, us: int, wall_only: bool) -> None:
        """Set the clock back, not so far that the engine may have dropped what the core still has."""
        now = self.clock.now()
        self.clock.step_wall(us=-min(us, BACK_AT_MOST_US - (self.farthest[1] - now[1])))
        if not wall_only:
            self.clock.step_monotonic(us=-min(us, BACK_AT_MOST_US - (self.farthest[0] - now[0])))

    def change_plan(self, id_: str, plan: int) -> None:
        """Give a subject another plan."""
        self.plans[id_] = PLANS[plan % len(PLANS)]

    def expire(self) -> None:
        """Let everything flow off, and drive the engine until it has looked at all its cells twice."""
        self.advance(3 * HOUR_US)
        stranger = RateLimits.of([_rate(1, 1, 1, "x")])
        self.latest_us = max(self.latest_us, self.clock.now()[0])
        for turn in range(400):
            self.limiter.try_acquire([Subject(f"s:{turn}", stranger)], now=self.clock.now())


PAUSES: Final = (0, 1, 7, 999, 100_000, 199_999, 200_000, 333_334, 1_000_000, 2_999_999, 8_000_000, 40_000_000)
