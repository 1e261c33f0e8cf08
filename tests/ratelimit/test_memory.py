"""What is the memory engine's own: bounded memory, hot cells, changed plans, and the faults of its forerunners."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from hivetenancy.clock import HOUR_US, MINUTE_US, SECOND_US, Instant
from hivetenancy.decision import Reason, Refusal
from hivetenancy.periods import Period
from hivetenancy.plans import NO_RATE_LIMITS, CalendarPolicy, ConcurrencyPolicy, Policy, RateLimits
from hivetenancy.ratelimit import PERMIT, LimitState, Subject, memory
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.ratelimit.program import Program, State
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts.ratelimit import bucket, sliding, subject
from tests.ratelimit.walk import Walk


class Bench:
    """An engine with a clock and a short way to ask it."""

    def __init__(self, **options: int) -> None:
        self.clock = ManualClock()
        self.limiter = MemoryRateLimiter(clock=self.clock, **options)

    def ask(self, *subjects: Subject, cost: int = 1) -> Refusal | None:
        """Acquire; the refusal, or ``None``."""
        answer = self.limiter.try_acquire(subjects, cost=cost, now=self.clock.now())
        return answer if isinstance(answer, Refusal) else None

    def count(self, *subjects: Subject) -> int:
        """How many units pass one by one."""
        return next(n for n in range(10_000) if self.ask(*subjects) is not None)


# What the three servers got wrong (upstream part D).


def test_d13_fixed_windows_allowed_twice_at_the_seam() -> None:
    """Vectorizer let 2,000 of 1,000 a minute through at a window's edge; here no minute has more than 1,000."""
    bench, acme = Bench(), subject(sliding(1000))
    assert bench.ask(acme) is None
    bench.clock.advance(us=MINUTE_US - 1)
    assert bench.count(acme) == 999
    bench.clock.advance(us=1)
    assert bench.count(acme) == 1


def test_d13_idle_tenants_are_dropped() -> None:
    """Vectorizer's map was never evicted; here it follows the tenants that are alive, without a sweep."""
    bench, limits = Bench(), RateLimits.of([bucket(10)])
    for wave in range(5):
        for tenant in range(2_000):
            bench.ask(Subject(f"t:{wave}/{tenant}", limits))
        bench.clock.advance(seconds=60)
    assert bench.limiter.subjects <= 4_500
    for _ in range(30_000):
        bench.ask(Subject("t:one", limits))
        bench.clock.advance(us=200_000)
    assert bench.limiter.subjects == 1


def test_d35_an_hour_refusal_still_burnt_a_minute_slot() -> None:
    """Nexus took the minute before it asked the hour; here a refusal by the hour leaves the minute whole."""
    bench, minute, hour = Bench(), sliding(6, name="minute"), sliding(3, HOUR_US, name="hour")
    acme = subject(minute, hour)
    assert bench.count(acme) == 3
    for _ in range(10):
        refusal = bench.ask(acme)
        assert refusal is not None
        assert refusal.policy == "hour"
    assert [state.remaining for state in bench.limiter.peek([acme], now=bench.clock.now())] == [3, 0]


def test_d35_asking_about_an_unknown_tenant_allocated() -> None:
    """Nexus made an entry for whoever was asked about; here a look, a refusal and a release make none."""
    bench, acme = Bench(), subject(bucket(2))
    bench.limiter.peek([acme], now=bench.clock.now())
    assert bench.ask(acme, cost=3) is not None
    bench.limiter.release([acme], taken=bench.clock.now(), refund=True)
    assert bench.limiter.subjects == 0


def test_d36_a_429_had_no_retry_after() -> None:
    """Nexus promised a wait and sent none; here every refusal by a rate has one, exact and positive."""
    for policy in (bucket(3), sliding(3), CalendarPolicy(limit=3, period=Period.MONTH)):
        bench, acme = Bench(), subject(policy)
        assert bench.count(acme) == 3
        refusal = bench.ask(acme)
        assert refusal is not None
        assert refusal.retry_after_us is not None
        assert refusal.retry_after_us > 0


def test_d45_bucket_parameters_were_frozen_at_creation() -> None:
    """Synap ignored a plan upgrade for tenants already seen; here it holds from the next call on."""
    bench = Bench()
    assert bench.count(subject(bucket(10, burst=20))) == 20
    assert bench.count(subject(bucket(1000, burst=2000))) == 1980


def test_d45_remaining_exceeded_the_limit() -> None:
    """Synap told more remaining than its limit; here it stays within 0 and the capacity, at any reading."""
    bench, acme = Bench(), subject(bucket(10, burst=20), sliding(30), ConcurrencyPolicy(limit=25))
    for step in (0, 5 * SECOND_US, HOUR_US, -2 * HOUR_US):
        bench.clock.step_monotonic(us=step)
        bench.count(acme)
        for state in bench.limiter.peek([acme], now=bench.clock.now()):
            assert 0 <= state.remaining <= state.capacity
    for _ in range(99):
        bench.limiter.release([acme], taken=bench.clock.now())
    assert bench.limiter.peek([acme])[2].remaining == 25


def test_d45_reset_was_always_one() -> None:
    """Synap's reset was the constant 1; here it is when everything is free again."""
    bench, acme = Bench(), subject(bucket(10, burst=20), sliding(30), ConcurrencyPolicy(limit=25))
    assert [state.reset_after_us for state in bench.limiter.peek([acme])] == [0, 0, None]
    bench.ask(acme, cost=5)
    assert [state.reset_after_us for state in bench.limiter.peek([acme])] == [500_000, MINUTE_US, None]


# What their own tests ask for (upstream part E).


def test_e_synap_burst_of_20_at_free_then_refuse() -> None:
    """Synap: Free has 10 a second with a burst of 20; the 21st at once is refused."""
    bench = Bench()
    assert bench.count(subject(bucket(10, burst=20))) == 20


def test_e_synap_separate_users_have_separate_buckets() -> None:
    """Synap: one user at the limit does not touch another."""
    bench, policy = Bench(), bucket(10, burst=20)
    assert bench.count(subject(policy, id="t:a")) == 20
    assert bench.count(subject(policy, id="t:b")) == 20


@pytest.mark.parametrize("rate", [10, 100, 1000])
def test_e_synap_plan_limits(rate: int) -> None:
    """Synap: 10, 100 and 1,000 a second by plan, each with twice that as burst."""
    bench, acme = Bench(), subject(bucket(rate, burst=2 * rate))
    assert bench.count(acme) == 2 * rate
    bench.clock.advance(seconds=1)
    assert bench.count(acme) == rate


def test_e_synap_cleanup_keeps_recent() -> None:
    """Synap: a clean-up keeps who was seen lately; here it keeps whoever has units in use, however long ago."""
    bench, limits = Bench(), RateLimits.of([sliding(2, HOUR_US)])
    assert bench.count(Subject("t:recent", limits)) == 2
    for tenant in range(5_000):
        bench.clock.advance(us=500_000)
        bench.ask(Subject(f"t:{tenant}", RateLimits.of([bucket(10)])))
    assert bench.count(Subject("t:recent", limits)) == 0
    assert bench.limiter.subjects < 200


def test_e_nexus_three_a_minute_then_refuse_with_a_wait_of_a_minute_at_most() -> None:
    """Nexus: 3 a minute, the fourth is refused with a wait within (0, 60 s]."""
    bench, acme = Bench(), subject(sliding(3))
    for pause in (0, 100_000, 7 * SECOND_US):
        bench.clock.advance(us=pause)
        assert bench.ask(acme) is None
    refusal = bench.ask(acme)
    assert refusal is not None
    assert refusal.retry_after_us is not None
    assert 0 < refusal.retry_after_us <= MINUTE_US


def test_e_nexus_windows_are_per_tenant_and_nothing_is_there_before_the_first_call() -> None:
    """Nexus: each tenant has windows of its own, and before its first activity there is no state."""
    bench, policy = Bench(), sliding(3)
    assert bench.count(subject(policy, id="t:a")) == 3
    assert bench.limiter.subjects == 1
    assert bench.limiter.peek([subject(policy, id="t:b")])[0].remaining == 3
    assert bench.limiter.subjects == 1


# Bounded memory.


def test_at_the_cap_new_subjects_share_and_are_only_stricter() -> None:
    """With the cap full of live tenants new ones share overflow cells: none gets more than its limit, and it shows."""
    bench, limits = Bench(max_subjects=50), RateLimits.of([sliding(3, HOUR_US)])
    tenants = [Subject(f"t:{tenant}", limits) for tenant in range(1_000)]
    admitted = [0] * 1_000
    for _ in range(5):
        for at, tenant in enumerate(tenants):
            admitted[at] += bench.ask(tenant) is None
    assert admitted[:50] == [3] * 50
    assert max(admitted) <= 3
    shared = len({hash(tenant.id) % memory.OVERFLOW_CELLS for tenant in tenants[50:]})
    assert sum(admitted[50:]) == bench.limiter.overflowed == 3 * shared
    assert bench.limiter.subjects == 50
    bench.clock.advance(seconds=7_200)
    for _ in range(10):
        for tenant in tenants[:40]:
            bench.ask(tenant)
    assert bench.ask(tenants[999]) is None
    assert bench.limiter.subjects <= 50


def test_tenant_and_key_of_one_call_do_not_share_an_overflow_cell() -> None:
    """Two new subjects of one call with one plan are both counted, even where their overflow cells would be one."""
    bench, limits = Bench(max_subjects=1), RateLimits.of([sliding(1000, HOUR_US)])
    bench.ask(Subject("t:first", limits))
    crowd = [Subject(f"x:{at}", limits) for at in range(2 * memory.OVERFLOW_CELLS)]
    cell = {}
    pair = next(
        (cell[home], one)
        for one in crowd
        if (home := hash(one.id) % memory.OVERFLOW_CELLS) in cell or cell.__setitem__(home, one)
    )
    assert bench.ask(*pair, cost=10) is None
    assert [state.remaining for state in bench.limiter.peek(pair)] == [990, 990]


def test_slots_taken_in_an_overflow_cell_are_freed_there() -> None:
    """A slot taken at the cap is freed by its release, though there is room for a cell of its own by then."""
    bench, limits = Bench(max_subjects=1), RateLimits.of([ConcurrencyPolicy(limit=2)])
    first, second = Subject("t:first", limits), Subject("t:second", limits)
    taken = bench.clock.now()
    assert bench.count(first) == 2
    assert bench.count(second) == 2
    for _ in range(2):
        bench.limiter.release([first], taken=taken)
    bench.clock.advance(seconds=60)
    assert bench.ask(second) is not None
    for _ in range(2):
        bench.limiter.release([second], taken=taken)
    assert bench.count(second) == 2


def test_plans_without_cells_are_forgotten() -> None:
    """A plan is compiled once and let go when it is neither in use nor among the latest."""
    bench, acme = Bench(), subject(sliding(5, HOUR_US))
    assert bench.ask(acme) is None
    for _ in range(10_000):
        bench.limiter.peek([Subject("t:other", RateLimits([bucket(3)]))])
    assert len(bench.limiter._numbered) <= 4_097
    assert bench.count(acme) == 4, "a plan that was compiled again lost its tenant's state"


def test_the_collector_sees_no_cell() -> None:
    """Shards full of cells are not tracked by the garbage collector, whatever the policies."""
    bench = Bench()
    for tenant in range(2_000):
        bench.ask(subject(bucket(5), sliding(9, HOUR_US), CalendarPolicy(limit=9, period=Period.DAY), id=f"t:{tenant}"))
    assert bench.limiter.subjects == 2_000
    assert not any(type(cell) is not bytes for shard in bench.limiter._shards for cell in shard.values())
    if hasattr(gc, "is_tracked") and not gc.is_tracked({}):
        assert not any(gc.is_tracked(shard) for shard in bench.limiter._shards)


# Hot cells.


def hot(bench: Bench, acme: tuple[Subject, ...], times: int = 64) -> None:
    """Ask until the cell is hot."""
    for _ in range(times):
        assert bench.limiter.try_acquire(acme, now=bench.clock.now()) is PERMIT


def test_a_hot_subject_is_one_with_its_cold_self() -> None:
    """A hot cell, a list of the same subject, another object of the same id and a cost of two share their units."""
    bench, policy = Bench(), bucket(1, burst=200)
    acme = (subject(policy),)
    hot(bench, acme)
    assert bench.limiter._live
    assert bench.limiter.peek(acme)[0].remaining == 136
    assert bench.limiter._live, "a look put the cell back"
    assert bench.limiter.try_acquire(list(acme), now=bench.clock.now()) is PERMIT
    hot(bench, acme, 32)
    assert bench.ask(subject(policy)) is None
    hot(bench, acme, 32)
    assert bench.ask(*acme, cost=2) is None
    assert bench.count(*acme) == 200 - 64 - 1 - 32 - 1 - 32 - 2


def test_a_hot_subject_whose_plan_was_exchanged() -> None:
    """Putting other limits on a subject in use takes effect at the next call, hot or not."""
    bench, acme = Bench(), (subject(bucket(1, burst=200)),)
    hot(bench, acme)
    acme[0].limits = RateLimits.of([bucket(1, burst=70)])
    assert bench.count(*acme) == 6


def test_hot_cells_are_few_and_for_a_second() -> None:
    """No more than the stated number of cells are hot, and the lease of each ends."""
    bench, limits = Bench(), RateLimits.of([bucket(10**6, burst=10**6)])
    tenants = [(Subject(f"t:{tenant}", limits),) for tenant in range(1_500)]
    for tenant in tenants:
        hot(bench, tenant, 40)
    assert len(bench.limiter._live) == len(bench.limiter._hot) == memory.HOT_CELLS
    bench.clock.advance(seconds=1)
    for tenant in tenants[:15]:
        hot(bench, tenant, 1)
    for tenant in tenants:
        assert bench.limiter.peek(tenant, now=bench.clock.now())[0].remaining >= 10**6 - 1
    assert bench.limiter.subjects == 1_500


def test_an_engine_for_threads_has_no_hot_cells() -> None:
    """Hot cells are changed without the lock, so an engine with a lock has none."""
    bench, acme = Bench(threadsafe=True), (subject(bucket(1, burst=1000)),)
    hot(bench, acme, 200)
    assert not bench.limiter._live


class Counted:
    """A lock that counts how often it is taken."""

    def __init__(self) -> None:
        self.lock, self.taken = threading.Lock(), 0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def test_each_side_of_a_threadsafe_engine_takes_the_lock() -> None:
    """Deciding, releasing and telling all wait for whoever holds the lock."""
    bench, acme = Bench(threadsafe=True), (subject(ConcurrencyPolicy(limit=5)),)
    sides = (
        lambda: bench.limiter.try_acquire(acme, now=bench.clock.now()),
        lambda: bench.limiter.release(acme, taken=bench.clock.now()),
        lambda: bench.limiter.peek(acme),
    )
    assert bench.limiter._lock is not None
    lock = Counted()
    bench.limiter._lock = lock  # type: ignore[assignment]
    for number, side in enumerate(sides, 1):
        side()
        assert lock.taken == number
        assert not lock.lock.locked()


# Edges.


def test_one_subject_twice_in_a_call_is_refused_clearly() -> None:
    """Two subjects with one id in one call are an error: their units would be counted once."""
    bench, policy = Bench(), bucket(5)
    with pytest.raises(ValueError, match="one id"):
        bench.ask(subject(policy), subject(policy))
    assert bench.count(subject(policy)) == 5


def test_no_subject_and_no_policy_admit() -> None:
    """Nothing to count for is nothing to refuse, and leaves nothing behind."""
    bench = Bench()
    assert bench.ask() is None
    assert bench.ask(Subject("t:acme", NO_RATE_LIMITS), cost=10**9) is None
    assert bench.limiter.subjects == 0
    assert bench.limiter.peek([Subject("t:acme", NO_RATE_LIMITS)]) == []


def test_arguments_are_checked() -> None:
    """A cap below one and a release of nothing are errors of use."""
    with pytest.raises(ValueError, match="max_subjects"):
        MemoryRateLimiter(max_subjects=0)
    with pytest.raises(ValueError, match="cost"):
        Bench().limiter.release([subject(bucket(1))], cost=0, taken=(0, 0))


def test_the_numbers_of_a_refusal() -> None:
    """A refusal says which policy, its limit, what was used and what was asked for: of slots, always one."""
    bench, acme = Bench(), subject(sliding(10, name="minute"), ConcurrencyPolicy(limit=1))
    assert bench.ask(acme, cost=7) is None
    for cost in (2, 4):  # the second is over the rate as well, and no wait would help
        refusal = bench.ask(acme, cost=cost)
        assert refusal == Refusal(reason=Reason.TOO_MANY_IN_FLIGHT, policy="in-flight", limit=1, used=1, requested=1)
    refusal = bench.ask(acme, cost=11)
    assert refusal == Refusal(reason=Reason.COST_TOO_LARGE, policy="minute", limit=10, requested=11)


def test_slots_held_go_on_under_a_changed_plan() -> None:
    """A plan that lowers a concurrency limit frees none that is held, tells none below zero, and one release is one
    call under either plan."""
    bench, rate = Bench(), bucket(1, burst=100)
    wide, narrow = subject(rate, ConcurrencyPolicy(limit=5)), subject(sliding(50), ConcurrencyPolicy(limit=2))
    taken = bench.clock.now()
    for _ in range(4):
        assert bench.ask(wide, cost=9) is None
    for left in (4, 3, 2):
        assert [bench.limiter.peek([one])[1].remaining for one in (wide, narrow)] == [5 - left, 0]
        refusal = bench.ask(narrow, cost=9)
        assert refusal == Refusal(reason=Reason.TOO_MANY_IN_FLIGHT, policy="in-flight", limit=2, used=left, requested=1)
        bench.limiter.release([wide], cost=9, taken=taken)
    assert bench.ask(narrow, cost=9) is None
    assert bench.limiter.peek([wide])[1].remaining == 3


def test_a_step_back_over_a_dropped_cell_frees_nothing() -> None:
    """Whose cell was dropped as idle has no more when the clock is set back than at the reading that dropped it."""
    bench, acme = Bench(), subject(CalendarPolicy(limit=3, period=Period.HOUR))
    assert bench.count(acme) == 3
    bench.clock.advance(seconds=3_700)
    for stranger in range(500):
        bench.ask(subject(bucket(1), id=f"t:{stranger}"))
    bench.clock.step_wall(us=-HOUR_US)
    assert bench.count(acme) == 3, "counted for the later hour, which the engine had reached"
    bench.clock.advance(seconds=3_590)
    assert bench.count(acme) == 0


def test_a_refund_after_the_plan_changed_gives_nothing_back() -> None:
    """Units taken under one plan are not given back under another, where they may never have been counted."""
    bench, old, new = Bench(), subject(bucket(1, burst=50)), subject(bucket(2, burst=10))
    taken = bench.clock.now()
    assert bench.ask(old, cost=5) is None
    assert bench.ask(new) is None
    bench.limiter.release([old], cost=5, taken=taken, refund=True)
    assert bench.count(new) == 4


def test_slots_and_units_of_one_name_are_kept_apart() -> None:
    """A plan that makes a rate of a concurrency limit of the same name starts that rate from nothing."""
    bench, limits = Bench(), [ConcurrencyPolicy(limit=5, name="x"), sliding(5, name="x")]
    assert bench.count(subject(limits[0])) == 5
    assert bench.count(subject(limits[1])) == 5
    assert bench.count(subject(limits[0])) == 5


@pytest.mark.parametrize("order", [0, 1])
def test_a_plan_with_more_or_fewer_policies(order: int) -> None:
    """A policy that a plan adds starts fresh, one that stays goes on, wherever they stand."""
    bench, kept, added = Bench(), sliding(9, name="kept"), bucket(1, burst=4, name="added")
    both: list[Policy] = [kept, added] if order else [added, kept]
    assert bench.ask(subject(kept), cost=7) is None
    assert bench.count(subject(*both)) == 2
    assert bench.count(subject(kept)) == 0
    assert {state.name: state.remaining for state in bench.limiter.peek([subject(*both)])}["kept"] == 0


# The walk beside the core notices what it is there to notice.


def _generous_lift(self: MemoryRateLimiter, *given: object) -> None:
    honest_lift(self, *given)  # type: ignore[arg-type]
    for cell in self._hot.values():
        cell[3] += 1 + 2 * cell[2]


def _forgetful_put_back(self: MemoryRateLimiter, key: str) -> bytes:
    for cell in self._hot.values():
        cell[5] = 0
    return honest_put_back(self, key)


def _swapped_unpack(self: Program, cell: bytes) -> list[tuple[int, ...]]:
    return [*reversed(honest_unpack(self, cell))]


def _late_advance(self: Program, cell: bytes, now: Instant, cost: int) -> bytes | None:
    return honest_advance(self, cell, (now[0] + 1, now[1]), cost)


def _free_begin(self: Program, now: Instant, cost: int) -> bytes | None:
    return honest_begin(self, (now[0] - 1, now[1]), cost)


def _by_cost_release(self: MemoryRateLimiter, origin: Program, cell: bytes, program: Program, *how: Any) -> list[State]:
    states = honest_released(self, origin, cell, program, *how)
    for _ in range(how[0] - 1):
        states = honest_released(self, origin, origin.pack(states), program, 1, how[1], False)
    return states


def _late_told(self: Program, cell: bytes, now: Instant) -> list[LimitState] | None:
    return honest_told(self, cell, (now[0] + 1, now[1]))


def _foreign_told(self: Program, cell: bytes, now: Instant) -> list[LimitState] | None:
    own = self.number.to_bytes(8, "little") + cell[8:]
    return honest_told(self, own, now)


honest_released, honest_told = MemoryRateLimiter._released, Program.told_at_once
honest_lift, honest_put_back = MemoryRateLimiter._lift, MemoryRateLimiter._put_back
honest_unpack, honest_advance = Program.unpack, Program._advance_pair
honest_begin = Program.begin


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (MemoryRateLimiter, "_lift", _generous_lift),
        (MemoryRateLimiter, "_put_back", _forgetful_put_back),
        (Program, "unpack", _swapped_unpack),
        (Program, "_advance_pair", _late_advance),
        (Program, "begin", _free_begin),
        (MemoryRateLimiter, "_released", _by_cost_release),
        (Program, "told_at_once", _late_told),
        (Program, "told_at_once", _foreign_told),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_the_walk_notices(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, fault: object) -> None:
    """With a fault planted in the engine the seeded walk fails."""
    import random

    from tests.ratelimit.test_walk import step

    monkeypatch.setattr(owner, name, fault)

    def walks() -> None:
        for seed in range(6):
            draw, walk = random.Random(seed), Walk()
            for _ in range(400):
                step(walk, draw)

    with pytest.raises((AssertionError, IndexError)):
        walks()
