"""What every `RateLimiter` must do.

The cases ask what limiters have got wrong: does a refusal cost units, does an hour that refuses still burn a minute's
slot, does a window let twice the limit through at its seam, is the wait exact, does a clock that is set back free
anything, does a plan that changed hold from the next call on. They move a clock by hand; nothing waits for real time.

To run them against an engine of your own, say how it is built over a given clock::

    def make(clock: ManualClock) -> RateLimiter:
        return MyLimiter(clock=clock)

    @pytest.mark.anyio
    @pytest.mark.parametrize("case", CASES, ids=str)
    async def test_my_limiter(case):
        await case(make)

An engine that several threads may call, and that answers at once, passes `THREADED` as well.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from hivetenancy.clock import HOUR_US, MINUTE_US, SECOND_US
from hivetenancy.decision import Reason, Refusal
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Policy, RateLimits, RatePolicy
from hivetenancy.ratelimit import ImmediateRateLimiter, RateLimiter, Subject

from ..clock import ManualClock
from ._cases import Cases, switching_often

Make: TypeAlias = Callable[[ManualClock], RateLimiter]
"""Builds the engine under test over a clock."""

MakeThreaded: TypeAlias = Callable[[ManualClock], ImmediateRateLimiter]
"""Builds an engine that any number of threads may call."""

CASES: Final[Cases[Make]] = Cases()
"""What every engine must do."""

THREADED: Final[Cases[MakeThreaded]] = Cases()
"""What an engine must do that claims to be safe for threads."""


def bucket(limit: int, period_us: int = SECOND_US, *, burst: int | None = None, name: str = "bucket") -> RatePolicy:
    """Return a token bucket; its burst is *limit* where none is given."""
    return RatePolicy(limit=limit, period_us=period_us, burst=burst or limit, name=name)


def sliding(limit: int, period_us: int = MINUTE_US, *, name: str = "window") -> RatePolicy:
    """Return a sliding window."""
    return RatePolicy(limit=limit, period_us=period_us, name=name)


def subject(*policies: Policy, id: str = "t:acme") -> Subject:  # noqa: A002 - the field's own word
    """Return a subject under these policies."""
    return Subject(id, RateLimits.of(policies))


class Desk:
    """One engine, its clock, and short ways to ask it.

    Attributes:
        clock: Moved by hand.
        limiter: The engine under test.
    """

    def __init__(self, make: Make) -> None:
        self.clock = ManualClock()
        self.limiter = make(self.clock)

    async def ask(self, *subjects: Subject, cost: int = 1) -> Refusal | None:
        """Acquire; return the refusal, or ``None`` when admitted."""
        answer = await self.limiter.acquire(subjects, cost=cost, now=self.clock.now())
        return answer if isinstance(answer, Refusal) else None

    async def count(self, *subjects: Subject, most: int = 1000) -> int:
        """Acquire one unit at a time until refused; return how many passed."""
        for admitted in range(most):
            if await self.ask(*subjects) is not None:
                return admitted
        return most

    async def wait(self, *subjects: Subject, cost: int = 1) -> int:
        """Acquire, which must be refused for its rate; return the wait."""
        refusal = await self.ask(*subjects, cost=cost)
        assert refusal is not None, "admitted, where a refusal was due"
        assert refusal.reason is Reason.RATE_LIMITED
        assert refusal.retry_after_us is not None
        return refusal.retry_after_us

    async def assert_exact(self, wait: int, *subjects: Subject, cost: int = 1) -> None:
        """Assert that the call is refused until just before *wait* has passed, and admitted at it."""
        assert wait > 0
        self.clock.advance(us=wait - 1)
        assert await self.ask(*subjects, cost=cost) is not None, "admitted before the wait it was told"
        self.clock.advance(us=1)
        assert await self.ask(*subjects, cost=cost) is None, "refused after the wait it was told"


@CASES.add
async def a_burst_passes_and_then_no_more(make: Make) -> None:
    """A token bucket admits its burst at once and refuses the next unit, and says which limit it was."""
    desk, acme = Desk(make), subject(bucket(10, burst=20))
    assert await desk.count(acme) == 20
    refusal = await desk.ask(acme)
    assert refusal is not None
    assert (refusal.policy, refusal.limit, refusal.requested) == ("bucket", 10, 1)


@CASES.add
async def a_window_gives_its_whole_limit_at_once(make: Make) -> None:
    """A sliding window admits its whole limit at once, and all of it again one period later."""
    desk, acme = Desk(make), subject(sliding(100))
    assert await desk.count(acme) == 100
    desk.clock.advance(us=MINUTE_US - 1)
    assert await desk.count(acme) == 0
    desk.clock.advance(us=1)
    assert await desk.count(acme) == 100


@CASES.add
async def a_window_has_no_seam(make: Make) -> None:
    """A sliding window admits no more than its limit across the edge of any clock minute."""
    desk, acme = Desk(make), subject(sliding(100))
    edge = bounds(Period.HOUR, desk.clock.now()[1])[1] + 7 * MINUTE_US
    desk.clock.advance(us=edge - desk.clock.now()[1] - MINUTE_US)
    await desk.ask(acme)  # a window that starts at the first hit starts here
    desk.clock.advance(us=MINUTE_US - 1)
    before = await desk.count(acme)
    desk.clock.advance(us=SECOND_US)
    assert before + await desk.count(acme) <= 100


@CASES.add
async def a_wait_is_exact(make: Make) -> None:
    """Refused one microsecond before the wait is over and admitted at it, for every kind of policy."""
    for policy in (bucket(3, burst=5), sliding(5), sliding(5, 7), CalendarPolicy(limit=3, period=Period.HOUR)):
        desk, acme = Desk(make), subject(policy)
        for pause in (0, 300_001, 1, 13):
            desk.clock.advance(us=pause)
            while await desk.ask(acme) is None:
                pass
        await desk.assert_exact(await desk.wait(acme), acme)


@CASES.add
async def a_wait_counts_the_cost(make: Make) -> None:
    """The wait is that of this cost, not of one unit."""
    for policy in (bucket(7, burst=9), sliding(9)):
        desk, acme = Desk(make), subject(policy)
        for _ in range(9):
            assert await desk.ask(acme) is None
            desk.clock.advance(us=1)
        one = await desk.wait(acme)
        four = await desk.wait(acme, cost=4)
        assert four >= one
        assert four > one or policy.burst is None, "a cost of four waits no longer than a cost of one"
        await desk.assert_exact(four, acme, cost=4)


@CASES.add
async def a_refusal_takes_nothing(make: Make) -> None:
    """Being refused, however often, pushes nobody further away from service."""
    for policy in (bucket(1, burst=3), sliding(3), CalendarPolicy(limit=3, period=Period.HOUR)):
        desk, acme = Desk(make), subject(policy)
        assert await desk.ask(acme, cost=2) is None
        for _ in range(20):
            assert await desk.ask(acme, cost=2) is not None
        assert await desk.ask(acme) is None, "the unit that was free is gone"
        wait = await desk.wait(acme)
        for _ in range(20):
            assert await desk.wait(acme) == wait
        await desk.assert_exact(wait, acme)


@CASES.add
async def policies_are_taken_together(make: Make) -> None:
    """An hour that refuses takes nothing from the minute, in whichever order they stand."""
    minute, hour = sliding(50, MINUTE_US, name="minute"), sliding(3, HOUR_US, name="hour")
    for policies in ((minute, hour), (hour, minute)):
        desk, acme = Desk(make), subject(*policies)
        assert await desk.count(acme) == 3
        for _ in range(60):
            refusal = await desk.ask(acme)
            assert refusal is not None
            assert refusal.policy == "hour"
        assert await desk.count(subject(minute)) == 47, "what the hour refused was taken from the minute"


@CASES.add
async def subjects_are_taken_together(make: Make) -> None:
    """A key that refuses takes nothing from its tenant, and a tenant that refuses nothing from the key."""
    desk = Desk(make)
    tenant, key = subject(bucket(1, burst=10)), subject(bucket(1, burst=3), id="k:one")
    assert await desk.count(tenant, key) == 3
    assert await desk.count(tenant, key) == 0
    assert await desk.count(tenant) == 7
    other = subject(bucket(1, burst=5), id="k:two")
    assert await desk.ask(tenant, other) is not None
    assert await desk.count(other) == 5


@CASES.add
async def the_longest_wait_is_told(make: Make) -> None:
    """Where several policies refuse, the wait is the longest, exact, and the policy is the one it comes from."""
    desk = Desk(make)
    tenant = subject(bucket(2, name="second"), sliding(2, MINUTE_US, name="minute"))
    key = subject(bucket(2, 10 * SECOND_US, name="ten"), id="k:one")
    assert await desk.count(tenant, key) == 2
    refusal = await desk.ask(tenant, key)
    assert refusal is not None
    assert (refusal.policy, refusal.retry_after_us) == ("minute", MINUTE_US)
    await desk.assert_exact(MINUTE_US, tenant, key)


@CASES.add
async def a_cost_that_can_never_pass(make: Make) -> None:
    """A cost over the capacity is refused for good, without a wait, and takes nothing."""
    for policy in (bucket(1, burst=3), sliding(3), CalendarPolicy(limit=3, period=Period.DAY)):
        desk, acme = Desk(make), subject(bucket(100, name="wide"), policy)
        refusal = await desk.ask(acme, cost=4)
        assert refusal is not None
        assert (refusal.reason, refusal.retry_after_us) == (Reason.COST_TOO_LARGE, None)
        assert await desk.count(acme) == 3


@CASES.add
async def a_cost_below_one_is_an_error(make: Make) -> None:
    """A cost of zero or less raises `ValueError`, for a subject never seen and for one that is."""
    desk, acme = Desk(make), subject(bucket(5))
    for _ in range(2):
        for cost in (0, -3):
            try:
                await desk.ask(acme, cost=cost)
            except ValueError:
                continue
            raise AssertionError(f"a cost of {cost} was answered")
        assert await desk.ask(acme) is None


@CASES.add
async def a_clock_that_steps_back_frees_nothing(make: Make) -> None:
    """Neither a monotonic reading that is older than the last one nor a wall clock set back frees a unit."""
    for policy in (bucket(1, burst=3), sliding(3), CalendarPolicy(limit=3, period=Period.HOUR)):
        desk, acme = Desk(make), subject(policy)
        assert await desk.count(acme) == 3
        for step in (1, SECOND_US, 90 * MINUTE_US):
            desk.clock.step_monotonic(us=-step)
            desk.clock.step_wall(us=-step)
            assert await desk.count(acme) == 0, f"a clock set back by {step} us freed units"


@CASES.add
async def an_idle_subject_stays_counted_when_the_clock_steps_back(make: Make) -> None:
    """What had flowed off is not to be had twice by setting the wall clock back into the period before."""
    desk, acme = Desk(make), subject(CalendarPolicy(limit=3, period=Period.HOUR))
    assert await desk.count(acme) == 3
    desk.clock.advance(us=HOUR_US)
    assert await desk.count(acme) == 3
    desk.clock.step_wall(us=-HOUR_US)
    assert await desk.count(acme) == 0


@CASES.add
async def slots_come_back_with_their_release(make: Make) -> None:
    """A concurrency limit refuses without a wait until a slot is released, and then admits as many."""
    desk, acme = Desk(make), subject(ConcurrencyPolicy(limit=4))
    taken = desk.clock.now()
    assert await desk.count(acme) == 4
    refusal = await desk.ask(acme)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_us) == (Reason.TOO_MANY_IN_FLIGHT, None)
    desk.clock.advance(seconds=3600)
    assert await desk.count(acme) == 0, "time freed a slot"
    for _ in range(3):
        desk.limiter.release([acme], taken=taken)
    assert await desk.count(acme) == 3


@CASES.add
async def a_call_holds_one_slot_whatever_it_costs(make: Make) -> None:
    """A cost, however far over a concurrency limit, takes one slot and its release frees one; rates count it all."""
    desk, slots = Desk(make), ConcurrencyPolicy(limit=3)
    acme = subject(bucket(1, burst=40), slots)
    taken = desk.clock.now()
    for _ in range(3):
        assert await desk.ask(acme, cost=9) is None
    refusal = await desk.ask(acme, cost=9)
    assert refusal is not None
    assert (refusal.reason, refusal.limit, refusal.requested) == (Reason.TOO_MANY_IN_FLIGHT, 3, 1)
    for refund in (False, True):
        desk.limiter.release([acme], cost=9, taken=taken, refund=refund)
        assert await desk.ask(acme) is None
        assert await desk.ask(acme) is not None, "the release of one call freed more than one slot"
    for _ in range(3):
        desk.limiter.release([acme], taken=taken)
    assert await desk.ask(acme, cost=20) is None
    assert await desk.wait(acme) == SECOND_US, "40 units less 3 x 9, 2 x 1 and 20, and 9 given back"


@CASES.add
async def a_concurrency_limit_of_zero_refuses_every_call(make: Make) -> None:
    """A concurrency limit of 0 refuses whatever the cost, with `TOO_MANY_IN_FLIGHT`, and takes no unit."""
    desk, none = Desk(make), ConcurrencyPolicy(limit=0)
    for acme in (subject(none), subject(bucket(1, burst=5), none)):
        for cost in (1, 4):
            refusal = await desk.ask(acme, cost=cost)
            assert refusal is not None, "a limit of zero was taken for none"
            assert (refusal.reason, refusal.retry_after_us) == (Reason.TOO_MANY_IN_FLIGHT, None)
            assert (refusal.policy, refusal.limit) == (none.name, 0)
    assert await desk.count(subject(bucket(1, burst=5))) == 5


@CASES.add
async def a_slot_released_twice_frees_none_that_was_not_held(make: Make) -> None:
    """However often it is released, a concurrency limit never admits more than its limit."""
    desk, acme = Desk(make), subject(ConcurrencyPolicy(limit=2))
    taken = desk.clock.now()
    desk.limiter.release([acme], taken=taken)
    assert await desk.ask(acme) is None
    for _ in range(3):
        desk.limiter.release([acme], taken=taken)
    assert await desk.count(acme) == 2


@CASES.add
async def no_slot_is_taken_where_a_rate_refuses(make: Make) -> None:
    """A rate that refuses takes no slot, and slots that are full take no unit."""
    desk, rate, slots = Desk(make), bucket(1, burst=2), ConcurrencyPolicy(limit=3)
    acme = subject(rate, slots)
    assert await desk.count(acme) == 2
    assert await desk.count(subject(slots)) == 1
    desk.clock.advance(seconds=10)
    assert await desk.count(acme) == 0
    assert await desk.count(subject(rate)) == 2


@CASES.add
async def a_release_without_anything_to_free_is_harmless(make: Make) -> None:
    """Releasing for a subject never seen, or for a plan without slots, changes nothing."""
    desk, acme = Desk(make), subject(bucket(1, burst=3))
    taken = desk.clock.now()
    desk.limiter.release([subject(ConcurrencyPolicy(limit=1), id="t:nobody"), acme], taken=taken)
    assert await desk.count(acme) == 3
    desk.limiter.release([acme], taken=taken)
    assert await desk.count(acme) == 0, "a release without refund gave units back"


@CASES.add
async def a_refund_gives_the_units_back(make: Make) -> None:
    """Refunded at the instant it was taken, a call has cost nothing."""
    for policy in (bucket(1, burst=5), sliding(5), CalendarPolicy(limit=5, period=Period.HOUR)):
        desk, acme = Desk(make), subject(policy)
        taken = desk.clock.now()
        assert await desk.ask(acme, cost=5) is None
        assert await desk.ask(acme) is not None
        desk.limiter.release([acme], cost=5, taken=taken, refund=True)
        assert await desk.count(acme) == 5


@CASES.add
async def a_refund_never_makes_more_pass(make: Make) -> None:
    """A late refund leaves no more room than if the call had never been made."""
    for policy in (bucket(1, burst=5), sliding(5, 6 * SECOND_US), CalendarPolicy(limit=5, period=Period.HOUR)):
        room = []
        for made in (False, True):
            desk, acme = Desk(make), subject(policy)
            taken = desk.clock.now()
            if made:
                assert await desk.ask(acme, cost=4) is None
            desk.clock.advance(seconds=3)
            assert await desk.ask(acme) is None
            if made:
                desk.limiter.release([acme], cost=4, taken=taken, refund=True)
            room.append(await desk.count(acme))
        assert room[1] <= room[0]
        assert room[1] >= 4, "a refund within the period gave nothing back"


@CASES.add
async def a_refund_of_what_has_flowed_off_gives_nothing(make: Make) -> None:
    """Long after, nothing is left to give back, and nothing is."""
    for policy in (bucket(1, burst=5), sliding(5), CalendarPolicy(limit=5, period=Period.HOUR)):
        desk, acme = Desk(make), subject(policy)
        taken = desk.clock.now()
        assert await desk.ask(acme, cost=5) is None
        desk.clock.advance(seconds=7200)
        assert await desk.count(acme) == 5
        desk.limiter.release([acme], cost=5, taken=taken, refund=True)
        assert await desk.count(acme) == 0


@CASES.add
async def a_raised_plan_holds_from_the_next_call(make: Make) -> None:
    """A plan that is raised admits more at once, less what was consumed before."""
    for small, large in (
        (bucket(1, burst=10), bucket(100, burst=50)),
        (sliding(10), sliding(50)),
        (sliding(10, HOUR_US), bucket(100, burst=50, name="window")),
        (CalendarPolicy(limit=10, period=Period.DAY), CalendarPolicy(limit=50, period=Period.DAY)),
        (ConcurrencyPolicy(limit=10), ConcurrencyPolicy(limit=50)),
    ):
        desk = Desk(make)
        assert await desk.count(subject(small)) == 10
        assert await desk.count(subject(large)) == 40


@CASES.add
async def a_lowered_plan_holds_from_the_next_call(make: Make) -> None:
    """A plan that is lowered refuses at once who has consumed more, and its wait is exact."""
    for large, small in (
        (bucket(50, burst=50), bucket(1, burst=10)),
        (sliding(50), sliding(10)),
        (sliding(50), bucket(1, burst=10, name="window")),
        (bucket(50, burst=50), sliding(10, name="bucket")),
    ):
        desk = Desk(make)
        for _ in range(40):
            assert await desk.ask(subject(large)) is None
        await desk.assert_exact(await desk.wait(subject(small)), subject(small))


@CASES.add
async def two_plans_in_turn_free_nothing(make: Make) -> None:
    """A tenant that is asked about under an old and a new plan in turn, as caches may, gains nothing by it."""
    desk, large, small = Desk(make), subject(bucket(10, burst=100)), subject(bucket(1, burst=10))
    admitted = 0
    for _ in range(300):
        admitted += await desk.ask(large) is None
        admitted += await desk.ask(small) is None
    assert admitted <= 100


@CASES.add
async def subjects_do_not_touch_each_other(make: Make) -> None:
    """Each subject has its own units, however many others come in between."""
    desk, policy = Desk(make), sliding(3, HOUR_US)
    assert await desk.count(subject(policy)) == 3
    for other in range(3000):
        assert await desk.ask(subject(policy, id=f"t:{other}")) is None
    assert await desk.count(subject(policy)) == 0, "a limited tenant was forgotten"
    assert await desk.count(subject(policy, id="t:7")) == 2


@CASES.add
async def state_goes_with_the_id(make: Make) -> None:
    """Two subjects with one id share their units; the object does not matter."""
    desk, policy = Desk(make), bucket(1, burst=100)
    first, second = subject(policy), subject(policy)
    pair = (first,), (second,)
    admitted = 0
    for turn in range(400):
        answer = await desk.limiter.acquire(pair[turn // 50 % 2], now=desk.clock.now())
        admitted += not isinstance(answer, Refusal)
    assert admitted == 100


@CASES.add
async def without_now_the_clock_is_read(make: Make) -> None:
    """``now=None`` asks about the present of the engine's clock."""
    desk, acme = Desk(make), [subject(bucket(1))]
    assert not isinstance(await desk.limiter.acquire(acme), Refusal)
    refused = await desk.limiter.acquire(acme)
    assert isinstance(refused, Refusal)
    assert refused.retry_after_us == SECOND_US
    desk.clock.advance(seconds=1)
    assert not isinstance(await desk.limiter.acquire(acme), Refusal)


@CASES.add
async def many_at_once_get_the_limit(make: Make) -> None:
    """Of many tasks that ask at the same moment, exactly as many as the limit are admitted."""
    desk, acme = Desk(make), subject(sliding(20), ConcurrencyPolicy(limit=30))
    answers = await asyncio.gather(*[desk.ask(acme) for _ in range(60)])
    assert answers.count(None) == 20


@CASES.add
async def the_printed_bound_holds(make: Make) -> None:
    """Over a long walk no span admits more than the policy says it admits at most."""
    walk = random.Random(13)
    for policy in (bucket(10, burst=4), sliding(7, SECOND_US), bucket(100_000, burst=3), sliding(50, 3 * SECOND_US)):
        desk, acme = Desk(make), subject(policy)
        admitted: list[int] = []
        for _ in range(1500):
            desk.clock.advance(us=walk.choice((0, 0, 1, 9, 1000, 30_000, walk.randrange(400_000))))
            if await desk.ask(acme) is None:
                admitted.append(desk.clock.now()[0])
        assert_within(policy, admitted)


def assert_within(policy: RatePolicy, admitted: Sequence[int]) -> None:
    """Assert that units admitted at these times, in rising order, keep to the bound of *policy* in every span."""
    for first in range(len(admitted)):
        for last in range(first, min(len(admitted), first + 400)):
            span = admitted[last] - admitted[first] + 1  # the shortest half-open span that holds both
            most = policy.admits_at_most(span)
            assert last - first + 1 <= most, f"{last - first + 1} within {span} us, where {most} are allowed"


@THREADED.add
async def threads_get_the_limit(make: MakeThreaded) -> None:
    """Threads that ask at the same moment are admitted exactly as often as the limit says."""
    clock = ManualClock()
    limiter = make(clock)
    acme = (subject(bucket(1, burst=2_000), sliding(2_000)),)
    admitted = _race(lambda: limiter.try_acquire(acme, now=clock.now()), threads=4, calls=1_000)
    assert sum(not isinstance(answer, Refusal) for answer in admitted) == 2_000


@THREADED.add
async def threads_hold_no_more_slots_than_there_are(make: MakeThreaded) -> None:
    """Slots taken and released by many threads are all free in the end, and never more than the limit are held."""
    clock = ManualClock()
    limiter = make(clock)
    acme = (subject(ConcurrencyPolicy(limit=3)),)
    for _ in range(50):  # what went wrong is seen at once, before something else that goes wrong makes up for it
        answers = _race(lambda: limiter.try_acquire(acme, now=clock.now()), threads=4, calls=1)
        admitted = sum(not isinstance(answer, Refusal) for answer in answers)
        assert admitted == 3, f"{admitted} of 3 slots were given to 4 threads"
        _race(lambda: limiter.release(acme, taken=clock.now()), threads=3, calls=1)
    counting, held, most = threading.Lock(), 0, 0

    def come_and_go() -> None:
        nonlocal held, most
        if isinstance(limiter.try_acquire(acme, now=clock.now()), Refusal):
            return
        with counting:
            held += 1
            most = max(most, held)
        time.sleep(0)  # lets the others come while this one holds its slot
        with counting:
            held -= 1
        limiter.release(acme, taken=clock.now())

    _race(come_and_go, threads=4, calls=500)
    assert most <= 3
    again = [limiter.try_acquire(acme, now=clock.now()) for _ in range(10)]
    assert sum(not isinstance(answer, Refusal) for answer in again) == 3


def _race(call: Callable[[], object], *, threads: int, calls: int) -> list[object]:
    """Call from several threads that are switched as often as the interpreter can; return all answers."""
    answers: list[list[object]] = [[] for _ in range(threads)]
    start = threading.Barrier(threads)

    def run(mine: list[object]) -> None:
        start.wait()
        mine.extend(call() for _ in range(calls))

    workers = [threading.Thread(target=run, args=(mine,)) for mine in answers]
    with switching_often():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return [answer for mine in answers for answer in mine]
