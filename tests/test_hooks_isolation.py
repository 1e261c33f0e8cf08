"""Isolation events: rate-limited by tenant, and none holds what it is about."""

from __future__ import annotations

import hashlib

import pytest

from hivetenancy.clock import MINUTE_US, Instant
from hivetenancy.errors import ConfigurationError
from hivetenancy.hooks import IsolationEvent, IsolationKind, LimitedIsolation, subject_hash
from hivetenancy.ids import TenantId
from hivetenancy.testing.clock import ManualClock


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[IsolationEvent] = []

    def isolation(self, event: IsolationEvent, *, now: Instant | None = None) -> None:
        assert now is not None
        self.events.append(event)


def event(tenant: str | None = "a") -> IsolationEvent:
    return IsolationEvent(
        kind=IsolationKind.FOREIGN_HANDLE,
        tenant=None if tenant is None else TenantId(tenant),
        operation="cursors.open",
        subject_hash=subject_hash("x"),
    )


def test_a_flood_of_one_tenant_is_held_back_and_counted() -> None:
    """Three pass in a minute; the first of the next minute says how many did not. Others are not touched by it."""
    sink, clock = Kept(), ManualClock()
    limited = LimitedIsolation(sink, burst=3, clock=clock)
    for _ in range(100):
        limited.isolation(event())
    limited.isolation(event("b"))
    limited.isolation(event(None))
    assert [each.tenant for each in sink.events] == ["a", "a", "a", "b", None]
    clock.advance(us=MINUTE_US)
    limited.isolation(event())
    assert sink.events[-1].suppressed == 97
    limited.isolation(event())
    assert sink.events[-1].suppressed == 0


def test_a_clock_that_steps_back_begins_a_new_period() -> None:
    """A monotonic time before the period is no reason to be silent until it comes again."""
    sink = Kept()
    limited = LimitedIsolation(sink, burst=1)
    limited.isolation(event(), now=(10 * MINUTE_US, 0))
    limited.isolation(event(), now=(MINUTE_US, 0))
    assert len(sink.events) == 2


def test_counts_are_kept_of_so_many_tenants() -> None:
    """Beyond, the tenant whose period is oldest is forgotten, and memory does not grow with invented tenants."""
    sink = Kept()
    limited = LimitedIsolation(sink, burst=1, tenants=2)
    for tenant in ("a", "b", "c", "c", "b", "a"):
        limited.isolation(event(tenant), now=(0, 0))
    assert [each.tenant for each in sink.events] == ["a", "b", "c", "a"]


@pytest.mark.parametrize("wrong", [{"burst": 0}, {"period_us": 0}, {"tenants": 0}])
def test_a_limit_below_one_is_refused(wrong: dict[str, int]) -> None:
    """A limiter that lets nothing through would be an audit that is switched off."""
    with pytest.raises(ConfigurationError, match="at least 1"):
        LimitedIsolation(Kept(), **wrong)


def test_a_subject_is_not_told() -> None:
    """Equal subjects have equal hashes, others not, and text is its bytes; no plain digest of it is the hash."""
    assert subject_hash("a") == subject_hash(b"a") != subject_hash("b")
    assert len(subject_hash("\ud800")) == 16
    assert subject_hash("a") != hashlib.blake2b(b"a", digest_size=8).hexdigest(), "anybody could try short names"
