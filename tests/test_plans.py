"""Plans state what they admit, refuse what makes no sense, and become what engines read."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy import plans
from hivetenancy.clock import MINUTE_US, SECOND_US
from hivetenancy.decision import Refusal
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import (
    CANONICAL,
    NO_RATE_LIMITS,
    CalendarPolicy,
    ConcurrencyPolicy,
    DimensionSpec,
    Plan,
    Policy,
    QuotaKind,
    QuotaLimit,
    RateLimits,
    RatePolicy,
    Scope,
    quota_limit,
)
from hivetenancy.ratelimit import PERMIT, Subject
from hivetenancy.sources import QuotaStanding, TenantLimits

ACME = TenantId("acme")


@pytest.mark.parametrize(
    "build, fix",
    [
        (lambda: RatePolicy(limit=0, period_us=1), "limit must be a whole number from 1"),
        (lambda: RatePolicy(limit=1.5, period_us=1), "limit must be a whole number"),  # type: ignore[arg-type]
        (lambda: RatePolicy(limit=True, period_us=1), "limit must be a whole number"),
        (lambda: RatePolicy(limit=2**53, period_us=1), "2**53 - 1"),
        (lambda: RatePolicy(limit=1, period_us=0), "period_us must be a whole number from 1"),
        (lambda: RatePolicy(limit=1, period_us=1, burst=0), "burst must be a whole number from 1"),
        (lambda: RatePolicy(limit=1, period_us=1, name="Per Minute"), "1-64 of a-z, 0-9"),
        (lambda: CalendarPolicy(limit=0, period=Period.DAY), "limit must be a whole number from 1"),
        (lambda: CalendarPolicy(limit=1, period=Period.DAY, zone="Mars/Olympus"), "tzdata"),
        (lambda: ConcurrencyPolicy(limit=-1), "limit must be a whole number from 0"),
        (lambda: RateLimits([ConcurrencyPolicy(limit=1), ConcurrencyPolicy(limit=2)]), "different names"),
        (lambda: DimensionSpec(name="jobs", unit="jobs", kind=QuotaKind.COUNTER), "a counter needs a period"),
        (lambda: QuotaLimit(dimension="jobs", limit=1, kind=QuotaKind.LEVEL, period=Period.DAY), "nothing else has"),
        (lambda: QuotaLimit(dimension="jobs", limit=-1, kind=QuotaKind.LEVEL), "limit must be a whole number from 0"),
        (lambda: QuotaLimit(dimension="", limit=1, kind=QuotaKind.LEVEL), "1-64 of a-z"),
        (lambda: quota_limit("jobs", 1), "build a QuotaLimit and state its kind"),
        (lambda: Plan(name="Pro"), "1-64 of a-z"),
        (lambda: Plan(name="pro", quotas=(quota_limit("keys", 1), quota_limit("keys", 2))), "states a quota twice"),
        (lambda: Plan(name="pro", rates=(ConcurrencyPolicy(limit=1), ConcurrencyPolicy(limit=1))), "different names"),
        (lambda: Plan(name="pro", statics={"max_batch": -1}), "max_batch must be a whole number from 0"),
    ],
)
def test_a_wrong_value_is_refused_when_built_and_the_message_names_the_fix(
    build: Callable[[], object], fix: str
) -> None:
    """Nothing wrong survives its construction."""
    with pytest.raises(ConfigurationError, match=re.escape(fix)):
        build()


def test_bounds_in_words_and_numbers() -> None:
    """Each policy says the most that it admits."""
    bucket = RatePolicy(limit=100, period_us=MINUTE_US, burst=20)
    window = RatePolicy(limit=100, period_us=MINUTE_US)
    assert (bucket.bound(), window.bound()) == (
        "never more than 20 + 1.66667 x t in any t seconds",
        "never more than 100 in any 60 s",
    )
    assert (bucket.capacity, window.capacity) == (20, 100)
    assert [bucket.admits_at_most(span) for span in (1, MINUTE_US - 1, MINUTE_US)] == [20, 119, 120]
    assert [window.admits_at_most(span) for span in (1, MINUTE_US, MINUTE_US + 1)] == [100, 100, 200]
    calendar = CalendarPolicy(limit=5, period=Period.DAY, zone="Europe/Berlin")
    assert calendar.bound() == "never more than 5 in any calendar day (Europe/Berlin)"
    slots = ConcurrencyPolicy(limit=3)
    assert slots.bound() == "never more than 3 at the same moment"
    assert calendar.capacity == 5
    assert "default: never more than 100" in repr(RateLimits([window]))


@given(
    limit=st.integers(1, 1000),
    period=st.integers(1, 10**9),
    burst=st.none() | st.integers(1, 100),
    first=st.integers(1, 10**10),
    second=st.integers(1, 10**10),
)
def test_the_stated_bound_is_sound(limit: int, period: int, burst: int | None, first: int, second: int) -> None:
    """It never falls with a longer span, and two spans together are never promised less than their union."""
    policy = RatePolicy(limit=limit, period_us=period, burst=burst)
    both = policy.admits_at_most(first + second)
    assert policy.admits_at_most(first) <= both <= policy.admits_at_most(first) + policy.admits_at_most(second)
    assert policy.admits_at_most(1) >= policy.capacity


@given(
    limit=st.integers(1, 8),
    period=st.integers(1, 60),
    burst=st.none() | st.integers(1, 8),
    steps=st.lists(st.integers(0, 20), max_size=60),
    span=st.integers(1, 120),
)
def test_the_engine_keeps_to_the_stated_bound(
    limit: int, period: int, burst: int | None, steps: list[int], span: int
) -> None:
    """In no half-open span does the limiter in memory admit more than the policy says."""
    assert _most(limit, period, burst, steps, span) <= RatePolicy(
        limit=limit, period_us=period, burst=burst
    ).admits_at_most(span)


def _most(limit: int, period: int, burst: int | None, steps: list[int], span: int) -> int:
    """Return the most that the engine admits in any span."""
    from hivetenancy.ratelimit.memory import MemoryRateLimiter

    limiter = MemoryRateLimiter()
    subjects = (Subject("t", RateLimits.of([RatePolicy(limit=limit, period_us=period, burst=burst)])),)
    moment, admitted = 1000, []
    for step in steps:
        moment += step
        for _ in range(3):
            if limiter.try_acquire(subjects, now=(moment, moment)) is PERMIT:
                admitted.append(moment)
    return max((sum(start <= other < start + span for other in admitted) for start in admitted), default=0)


def test_the_bound_catches_an_understatement() -> None:
    """A policy that forgot its burst would be caught by the same property: the engine admits 8 at one moment."""

    class Understated(RatePolicy):
        def admits_at_most(self, span_us: int) -> int:
            return span_us * self.limit // self.period_us

    assert _most(1, 60, 8, [0, 0, 0], 1) > Understated(limit=1, period_us=60, burst=8).admits_at_most(1)


# --- RateLimits ------------------------------------------------------------------------------------------------------


def test_equal_policies_give_one_object() -> None:
    """An engine finds what it compiled by identity, so equal limits of many tenants share it; order counts."""
    first, second = RatePolicy(limit=1, period_us=SECOND_US, name="a"), ConcurrencyPolicy(limit=1, name="b")
    one = RateLimits.of([first, second])
    assert RateLimits.of((RatePolicy(limit=1, period_us=SECOND_US, name="a"), second)) is one
    assert RateLimits.of([second, first]) is not one
    assert RateLimits([first, second]) != one
    assert NO_RATE_LIMITS.policies == ()


def test_what_is_interned_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million tenants with limits of their own do not grow it for ever."""
    table: dict[tuple[Policy, ...], RateLimits] = {}
    monkeypatch.setattr(plans, "_interned", table)
    for limit in range(1, 3 * plans._INTERNED_MAX):
        made = RateLimits.of([ConcurrencyPolicy(limit=limit)])
        assert made.policies == (ConcurrencyPolicy(limit=limit),)
    assert 0 < len(table) <= plans._INTERNED_MAX


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_canonical_dimensions_have_the_kinds_of_the_architecture() -> None:
    """Counters count by month, gauges have no period, and every name is the one of its row."""
    assert all(name == spec.name for name, spec in CANONICAL.items())
    assert {name for name, spec in CANONICAL.items() if spec.kind is QuotaKind.COUNTER} == {
        "operations",
        "searches",
        "tokens",
        "credits",
        "egress_bytes",
    }
    assert {name for name, spec in CANONICAL.items() if spec.kind is QuotaKind.EPHEMERAL} == {
        "connections",
        "requests_in_flight",
    }
    assert quota_limit("operations", None).period is Period.MONTH
    assert quota_limit("vectors", 3, resource="docs").resource == "docs"


def test_a_plan_does_not_change() -> None:
    """Its statics are copied and read-only."""
    statics = {"max_batch": 1}
    plan = Plan(name="pro", statics=statics)
    statics["max_batch"] = 100
    assert plan.statics == {"max_batch": 1}
    with pytest.raises(TypeError):
        plan.statics["max_batch"] = 2  # type: ignore[index]


# --- TenantLimits ----------------------------------------------------------------------------------------------------


def _limits(*rates: Policy, quotas: tuple[QuotaLimit, ...] = ()) -> TenantLimits:
    standings = tuple(QuotaStanding(limit=quota) for quota in quotas)
    return TenantLimits(tenant_id=ACME, plan="pro", rates=rates, quotas=standings)


def test_rates_are_split_by_scope_and_shared() -> None:
    """What all keys share and what each key has are two sets, the same objects for every tenant of a plan."""
    minute = RatePolicy(limit=10, period_us=MINUTE_US, name="minute")
    key = RatePolicy(limit=2, period_us=MINUTE_US, name="key-minute", scope=Scope.KEY)
    limits = _limits(minute, key)
    assert (limits.tenant_rates.policies, limits.key_rates.policies) == ((minute,), (key,))
    assert _limits(minute, key).tenant_rates is limits.tenant_rates
    assert _limits().key_rates.policies == ()


def test_a_limit_of_requests_in_flight_becomes_a_concurrency_policy() -> None:
    """The rate limiter enforces it, for the tenant as a whole, 0 included."""
    for limit in (0, 7):
        limits = _limits(quotas=(quota_limit("requests_in_flight", limit), quota_limit("keys", 1)))
        assert limits.tenant_rates.policies == (ConcurrencyPolicy(name="requests-in-flight", limit=limit),)
        assert limits.rates == ()


@pytest.mark.parametrize(
    "quota",
    [
        quota_limit("requests_in_flight", None),
        quota_limit("requests_in_flight", 5, resource="docs"),
        quota_limit("connections", 5),
        QuotaLimit(dimension="requests_in_flight", limit=5, kind=QuotaKind.LEVEL),
    ],
)
def test_nothing_else_becomes_one(quota: QuotaLimit) -> None:
    """Not without a limit, not for a resource, not another dimension, not of another kind."""
    assert _limits(quotas=(quota,)).tenant_rates.policies == ()


def test_a_policy_of_that_name_wins() -> None:
    """Whoever states `requests-in-flight` as a policy has said it better, in whichever scope."""
    own = ConcurrencyPolicy(name="requests-in-flight", limit=2, scope=Scope.KEY)
    limits = _limits(own, quotas=(quota_limit("requests_in_flight", 7),))
    assert (limits.tenant_rates.policies, limits.key_rates.policies) == ((), (own,))


def test_the_limiter_enforces_requests_in_flight() -> None:
    """One passes, the second waits for the first to end; with a limit of 0 none passes."""
    from hivetenancy.ratelimit.memory import MemoryRateLimiter

    limiter, now = MemoryRateLimiter(), (0, 0)
    one = (Subject("t:1", _limits(quotas=(quota_limit("requests_in_flight", 1),)).tenant_rates),)
    none = (Subject("t:2", _limits(quotas=(quota_limit("requests_in_flight", 0),)).tenant_rates),)
    assert limiter.try_acquire(one, now=now) is PERMIT
    refused = limiter.try_acquire(one, now=now)
    assert isinstance(refused, Refusal)
    assert (refused.policy, refused.limit) == ("requests-in-flight", 1)
    limiter.release(one, taken=now)
    assert limiter.try_acquire(one, now=now) is PERMIT
    assert isinstance(limiter.try_acquire(none, now=now), Refusal)
