"""The arithmetic of token buckets and windows keeps the bounds that the policies print."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import MAX_AMOUNT, CalendarPolicy, ConcurrencyPolicy, RateLimits, RatePolicy
from hivetenancy.ratelimit import LimitState, gcra, window
from hivetenancy.ratelimit.program import BucketRule, CalendarRule, Program, Rule, SlidingRule, SlotsRule, State

HOURLY = CalendarPolicy(limit=4, period=Period.HOUR)
START = 4_102_444_800 * SECOND_US

buckets = st.builds(
    RatePolicy,
    limit=st.integers(1, 300) | st.sampled_from((99_999, 100_000, 7_000_003)),
    period_us=st.sampled_from((1, 7, 1000, SECOND_US, MINUTE_US)) | st.integers(1, 5_000_000),
    burst=st.integers(1, 12),
)
windows = st.builds(RatePolicy, limit=st.integers(1, 12), period_us=st.integers(1, 200) | st.just(SECOND_US))
policies = buckets | windows
#: Steps of a clock: mostly ahead, sometimes back.
steps = st.integers(0, 40) | st.integers(0, 2_000_000) | st.integers(-500_000, -1)
schedules = st.lists(st.tuples(steps, st.integers(1, 4)), min_size=1, max_size=60)


def rule_of(policy: RatePolicy) -> Rule:
    """The rule that counts for *policy*."""
    return SlidingRule(policy) if policy.burst is None else BucketRule(policy)


@given(policies, schedules)
def test_no_span_admits_more_than_the_policy_prints(policy: RatePolicy, schedule: list[tuple[int, int]]) -> None:
    """Over any schedule, clock steps included, each span admits at most `admits_at_most`, in real time."""
    rule, state, real, reading = rule_of(policy), (), 0, 0
    admitted: list[tuple[int, int]] = []
    for step, cost in schedule:
        real += max(step, 0)
        reading += step
        if cost <= rule.capacity:
            wait, state = rule.take(state, (reading, reading), cost)
            if not wait:
                admitted.append((real, cost))
    for first in range(len(admitted)):
        units = 0
        for last in range(first, len(admitted)):
            units += admitted[last][1]
            assert units <= policy.admits_at_most(admitted[last][0] - admitted[first][0] + 1)


@given(policies, schedules, st.integers(1, 4))
def test_a_wait_is_exact_and_a_refusal_changes_nothing(
    policy: RatePolicy, schedule: list[tuple[int, int]], cost: int
) -> None:
    """Refused one microsecond before the wait, admitted at it; a refusal hands back the very state."""
    rule, state, now = rule_of(policy), (), 0
    for step, units in schedule:
        now += step
        if units <= rule.capacity:
            state = rule.take(state, (now, now), units)[1]
    if cost > rule.capacity:
        return
    wait, after = rule.take(state, (now, now), cost)
    if wait:
        assert after is state
        assert wait > 0
        before = now + wait - 1
        assert rule.take(state, (before, before), cost)[0] == 1
        assert rule.take(state, (now + wait, now + wait), cost)[0] == 0
    else:
        assert rule.used(after, (now, now)) <= rule.capacity


@given(policies, schedules)
def test_used_and_reset_are_rounded_against_the_caller(policy: RatePolicy, schedule: list[tuple[int, int]]) -> None:
    """What remains passes, one unit more does not; at the reset everything is free, and not before."""
    rule, state, now = rule_of(policy), (), 0
    for step, units in schedule:
        now += step
        if units <= rule.capacity:
            state = rule.take(state, (now, now), units)[1]
    remaining = max(0, rule.capacity - rule.used(state, (now, now)))
    if remaining:
        assert rule.take(state, (now, now), remaining)[0] == 0
    if remaining < rule.capacity:
        assert rule.take(state, (now, now), remaining + 1)[0] > 0
        reset = rule.wait(state, (now, now), 0)
        assert rule.take(state, (now + reset - 1, 0), rule.capacity)[0] > 0
        assert rule.take(state, (now + reset, 0), rule.capacity)[0] == 0


@given(
    st.lists(st.tuples(buckets, st.integers(-(10**12), 10**12) | st.integers(-1001, 1001)), min_size=1, max_size=4),
    st.integers(0, 10**9),
)
def test_what_is_told_at_once_is_what_is_told(stored: list[tuple[RatePolicy, int]], now_us: int) -> None:
    """For any cell of buckets the short way, the long way and `used` with `wait` say the same; it is silent about a
    cell of another plan, even of the same length, and about plans that are not all buckets."""
    named = [replace(policy, name=f"p{at}") for at, (policy, _) in enumerate(stored)]
    program, other = Program(3, RateLimits(named)), Program(4, RateLimits(named))
    windowed = Program(3, RateLimits([*named[1:], replace(named[0], burst=None)]))
    now = (now_us, START)
    states = [(now_us * 1000 + ahead_ns,) for _, ahead_ns in stored]
    cell = program.pack(states)
    told = program.told_at_once(cell, now)
    assert told == program.told(program.unpack(cell), now, program)
    assert told == [
        LimitState(
            policy.name,
            policy.limit,
            policy.period_us,
            rule.capacity,
            max(0, rule.capacity - rule.used(state, now)),
            rule.wait(state, now, 0),
        )
        for policy, rule, state in zip(named, program.rules, states, strict=True)
    ]
    assert other.told_at_once(cell, now) is None
    assert windowed.told_at_once(cell, now) is None


@given(st.integers(0, 5), st.lists(st.tuples(st.booleans(), st.integers(1, 10**6)), max_size=30))
def test_slots_count_calls(limit: int, calls: list[tuple[bool, int]]) -> None:
    """A concurrency limit counts calls up to its limit, whatever they cost, and time changes nothing."""
    rule, state, held = SlotsRule(ConcurrencyPolicy(limit=limit)), (), 0
    for at, (later, cost) in enumerate(calls):
        now = (at * DAY_US * later, START)
        assert rule.told(state, now) == LimitState("in-flight", limit, None, limit, limit - held, None)
        assert cost <= rule.capacity
        wait, state = rule.take(state, now, cost)
        assert (wait == 0) == (held < limit)
        held = min(limit, held + 1)
        assert rule.used(state, now) == held


@given(policies, schedules, st.integers(0, 59))
def test_a_refund_never_makes_more_pass(policy: RatePolicy, schedule: list[tuple[int, int]], which: int) -> None:
    """A call given back leaves no more room than if it had never been made, for the same other calls."""
    rule = rule_of(policy)
    made: State = ()
    never: State = ()
    now = latest = 0
    taken: tuple[int, int] | None = None
    for at, (step, cost) in enumerate(schedule):
        now += step
        latest = max(latest, now)
        if cost > rule.capacity:
            continue
        wait, after = rule.take(made, (now, now), cost)
        if wait:
            continue
        made = after
        if at == which % len(schedule):
            taken = (now, cost)
        else:
            wait, never = rule.take(never, (now, now), cost)
            if wait:
                # The clock was set back behind a time that the twin has not seen: what ended then has not for it.
                assert now < latest, "the twin has less in use, so it admits what this one admits"
                return
    if taken is not None:
        made = rule.withdrawn(made, (taken[0], 0), latest, taken[1])
        for later in (0, 1, 50, 1_000, 300_000, 1_000_000):
            at = (latest + later, 0)
            assert rule.used(made, at) >= rule.used(never, at)


@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 2_000))
def test_a_window_stays_small(gaps: list[int], period_us: int) -> None:
    """A sliding window never holds more entries than its bound, however busy it is."""
    state, now = window.EMPTY, 0
    for gap in gaps:
        now += gap
        state = window.slide(state, now=now, limit=10**6, period_us=period_us)[1]
        assert (len(state) - 2) // 2 <= window.MAX_ENTRIES
        assert state[0] == sum(state[3::2])


def test_a_steady_demand_gets_its_rate() -> None:
    """Under a demand of twice the limit a window admits at least 97 % of it, and a bucket all of it."""
    for policy in (
        RatePolicy(limit=100, period_us=MINUTE_US),
        RatePolicy(limit=100, period_us=MINUTE_US, burst=1),
    ):
        rule, state, admitted = rule_of(policy), (), 0
        for now in range(0, 60 * MINUTE_US, 300_000):
            wait, state = rule.take(state, (now, now), 1)
            admitted += not wait
        assert 0.97 * 6_000 <= admitted <= 6_100


@pytest.mark.parametrize("limit", [1, 3, 7, 99_999, 100_000])
def test_the_interval_is_rounded_up_by_next_to_nothing(limit: int) -> None:
    """The emission interval is never below period / limit, and less than 0.1 % above at 100,000 a second."""
    interval = gcra.interval_ns(RatePolicy(limit=limit, period_us=SECOND_US, burst=1))
    assert 10**9 <= interval * limit < 10**9 * 1.001


def test_a_bucket_never_refills_for_longer_than_a_word_holds() -> None:
    """The largest policies that can be stated fit into signed 64 bits, cut on the strict side."""
    huge = RatePolicy(limit=1, period_us=MAX_AMOUNT - 1, burst=MAX_AMOUNT - 1)
    late = 100 * 365 * DAY_US
    wait, state = BucketRule(huge).take((), (late, late), gcra.capacity(huge))
    assert wait == 0
    assert state[0] < 2**63
    assert 1 <= gcra.capacity(huge) <= huge.capacity


def test_a_bucket_asks_for_a_burst_and_a_cost() -> None:
    """A policy without burst and a cost below 1 are errors of use."""
    with pytest.raises(ValueError, match="no burst"):
        gcra.decide(None, now=0, policy=RatePolicy(limit=1, period_us=1))
    with pytest.raises(ValueError, match="cost"):
        gcra.decide(None, now=0, policy=RatePolicy(limit=1, period_us=1, burst=1), cost=0)
    with pytest.raises(ValueError, match="cost"):
        window.slide((), now=0, limit=1, period_us=1, cost=0)
    with pytest.raises(ValueError, match="cost"):
        window.calendar((), now=(0, 0), policy=HOURLY, cost=0)
    with pytest.raises(ValueError, match="fewer"):
        window.wait_us((1, 0, 0, 1), 0, 10, 2)


@given(buckets, schedules)
def test_decide_and_the_rule_agree(policy: RatePolicy, schedule: list[tuple[int, int]]) -> None:
    """The documented `decide` and the compiled rule are one arithmetic."""
    rule, state, now = BucketRule(policy), (), 0
    for step, cost in schedule:
        now += step
        verdict = gcra.decide(state[0] if state else None, now=now, policy=policy, cost=cost)
        if cost > rule.capacity:
            assert (verdict.allowed, verdict.retry_after) == (False, None)
            continue
        wait, state = rule.take(state, (now, now), cost)
        assert (verdict.allowed, verdict.retry_after, verdict.tat) == (
            not wait,
            wait,
            state[0] if state else None,
        )
        assert verdict.remaining == max(0, rule.capacity - rule.used(state, (now, now)))
        assert verdict.reset_after == rule.wait(state, (now, now), 0)


def test_never_is_told_apart_from_not_now() -> None:
    """A cost over a window's limit has no wait."""
    assert window.slide((), now=0, limit=3, period_us=9, cost=4) == (None, ())
    assert window.calendar((), now=(0, 0), policy=HOURLY, cost=5) == (None, ())


def test_a_calendar_window_ends_with_its_period() -> None:
    """The limit holds until the period's last microsecond and is whole again after it, in the zone's own days."""
    for policy in (
        CalendarPolicy(limit=2, period=Period.DAY, zone="Europe/Berlin"),
        CalendarPolicy(limit=2, period=Period.MONTH),
    ):
        end = bounds(policy.period, START, policy.zone)[1]
        wait, state = window.calendar((), now=(0, START), policy=policy, cost=2)
        assert wait == 0
        assert window.calendar(state, now=(0, START), policy=policy)[0] == end - START
        assert window.calendar(state, now=(end - START - 1, end - 1), policy=policy)[0] == 1
        assert window.calendar(state, now=(end - START, end), policy=policy)[0] == 0


def test_one_wild_wall_reading_does_not_close_a_tenant_for_a_century() -> None:
    """After a reading of the year 2200 an hourly limit is whole again within one hour of real time."""
    wild = START + 100 * 365 * DAY_US
    _, state = window.calendar((), now=(0, wild), policy=HOURLY, cost=4)
    assert window.calendar(state, now=(1, START), policy=HOURLY)[0] == HOUR_US - 1
    assert window.calendar(state, now=(HOUR_US - 1, START + HOUR_US), policy=HOURLY)[0] == 1
    assert window.calendar(state, now=(HOUR_US, START + HOUR_US), policy=HOURLY)[0] == 0


def test_a_period_that_was_counted_is_not_come_to_again() -> None:
    """An hour really passes while the clock stands just before the counted one; entering that anew frees nothing."""
    _, state = window.calendar((), now=(0, START), policy=HOURLY, cost=4)
    assert START % HOUR_US == 0
    wait, state = window.calendar(state, now=(HOUR_US, START - 1), policy=HOURLY, cost=4)
    assert wait == 0
    assert window.calendar(state, now=(HOUR_US + 1, START), policy=HOURLY)[0] == HOUR_US - 1


@given(st.lists(st.tuples(st.integers(0, 40 * MINUTE_US), st.integers(-90 * MINUTE_US, 0)), max_size=80))
def test_a_calendar_window_frees_nothing_to_a_wall_clock_set_back(moves: list[tuple[int, int]]) -> None:
    """Set back however often, it admits the limit once for each new hour reached and each hour that really passed."""
    rule, state, real, shift, farthest, admitted = CalendarRule(HOURLY), (), 0, 0, 0, 0
    first = (START + moves[0][1] + moves[0][0]) // HOUR_US if moves else 0
    for ahead, back in moves:
        real += ahead
        shift += back
        now = (real, START + real + shift)
        farthest = max(farthest, now[1])
        for _ in range(HOURLY.limit + 1):
            wait, state = rule.take(state, now, 1)
            admitted += not wait
        hours = 1 + farthest // HOUR_US - first + (real // HOUR_US if shift else 0)
        assert admitted <= HOURLY.limit * hours
