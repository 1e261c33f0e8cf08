"""The world of the quota tests: limits that are set by hand, a clock that is moved by hand, and engines in it."""

from __future__ import annotations

from collections.abc import Callable

from hivetenancy.clock import Instant
from hivetenancy.ids import TenantId
from hivetenancy.quota import QuotaManager
from hivetenancy.quota.local import LocalQuota
from hivetenancy.sources import TenantLimits
from hivetenancy.testing.clock import ManualClock


class SetLimits:
    """A `LimitsView` that says what it was told last; *cold* makes each first question one that has to wait."""

    def __init__(self, *, cold: bool = False) -> None:
        self.told: dict[TenantId, TenantLimits] = {}
        self.cold = cold
        self.fetches = 0

    def set(self, limits: TenantLimits) -> None:
        self.told[limits.tenant_id] = limits

    def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        return None if self.cold else self.told.get(tenant)

    async def limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        from asyncio import sleep

        self.fetches += 1
        if self.cold:
            await sleep(0)
            self.cold = False
        return self.told.get(tenant)


class Harness:
    """One engine in its world."""

    def __init__(
        self, build: Callable[[SetLimits, ManualClock], QuotaManager], *, threadsafe: bool = False, cold: bool = False
    ) -> None:
        self.view = SetLimits(cold=cold)
        self.clock = ManualClock()
        self.threadsafe = threadsafe
        self.quota = build(self.view, self.clock)

    def set_limits(self, limits: TenantLimits) -> None:
        self.view.set(limits)


def local(view: SetLimits, clock: ManualClock) -> LocalQuota:
    """The engine under test."""
    return LocalQuota(view, clock=clock)


def local_for_threads(view: SetLimits, clock: ManualClock) -> LocalQuota:
    """The engine under test, for threads."""
    return LocalQuota(view, clock=clock, threadsafe=True)
