"""A tenancy to try adapters on: a fake hub whose clock stands still, the engines in memory, a few tenants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hivetenancy.adapters.http import HttpOptions
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.decision import Decision
from hivetenancy.periods import Period
from hivetenancy.plans import ConcurrencyPolicy, Plan, QuotaKind, QuotaLimit, RatePolicy
from hivetenancy.ratelimit import Subject
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.hub import FakeHiveHub, FakeTenant, IssuedKey

MINUTE_US = 60_000_000

ROOMY = Plan(
    name="roomy",
    rates=(
        RatePolicy(limit=600, period_us=MINUTE_US, burst=100_000, name="minute"),
        ConcurrencyPolicy(limit=1_000, name="in-flight"),
    ),
    quotas=(
        QuotaLimit(dimension="operations", limit=None, kind=QuotaKind.COUNTER, period=Period.MONTH),
        QuotaLimit(dimension="storage_bytes", limit=1_000, kind=QuotaKind.CONTRIBUTION),
        QuotaLimit(dimension="connections", limit=2, kind=QuotaKind.EPHEMERAL),
    ),
    statics={"max_payload_bytes": 100},
)
"""Room for everything a test does by the way, and small limits that a test runs into on purpose."""

TIGHT = Plan(name="tight", rates=(RatePolicy(limit=60, period_us=MINUTE_US, burst=2, name="minute"),))
"""Two at once, then one a second."""


@dataclass
class Seen:
    """A hook that keeps what it is told."""

    decisions: list[Decision] = field(default_factory=list)

    def decided(self, decision: Decision) -> None:
        """Keep it."""
        self.decisions.append(decision)

    def reasons(self) -> list[str]:
        """Why requests were refused, in order."""
        return [one.refusal.reason.value for one in self.decisions if one.refusal is not None]


class Stage:
    """A hub, a tenancy on it, and two tenants with a key each."""

    def __init__(self, *, http: HttpOptions | None = None, plans: Iterable[Plan] = ()) -> None:
        self.clock = ManualClock()
        self.hub = FakeHiveHub(clock=self.clock, plans=(ROOMY, TIGHT, *plans), seed=7)
        self.seen = Seen()
        self.tenancy: ClusterTenancy = Tenancy.embedded(
            self.hub, clock=self.clock, http=http, hooks=[self.seen], audit=None, allow_workers=True
        )
        self.acme: FakeTenant = self.hub.add_tenant("acme", plan="roomy")
        self.rival: FakeTenant = self.hub.add_tenant("rival", plan="roomy")
        self.key = self.acme.issue_key(permissions=["read", "write", "delete"])
        self.reader = self.acme.issue_key(permissions=["read"])
        self.rivals = self.rival.issue_key(permissions=["read", "write", "delete"])

    def tight(self, name: str = "tight") -> IssuedKey:
        """A key of a tenant that may call twice at once."""
        return self.hub.add_tenant(name, plan="tight").issue_key(permissions=["read", "write", "delete"])

    @property
    def id(self) -> str:
        """The id of the tenant whose keys `key` and `reader` are."""
        return self.acme.id

    async def held(self, tenant: FakeTenant | None = None) -> dict[str, int]:
        """What is still held for a tenant: concurrency slots, and quota by dimension; empty when all is given back."""
        tenant = tenant or self.acme
        gate = self.tenancy.gate
        left: dict[str, int] = {}
        limits = await self.tenancy._limits.limits(tenant.id, now=self.clock.now())
        assert limits is not None
        for state in gate.states((Subject("t:" + tenant.id, limits.tenant_rates),), self.clock.now()):
            if state.window_us is None and state.remaining != state.limit:
                left[state.name] = state.limit - state.remaining
        for cell in await gate.usage(tenant.id):
            if cell.held:
                left[cell.dimension] = cell.held
        if len(self.tenancy.connections):
            left["registered"] = len(self.tenancy.connections)
        return left


def problem(response: Any) -> tuple[int, str]:
    """Status and code of a refusal."""
    assert response.header("content-type") == "application/problem+json", response
    body = response.json()
    assert body["status"] == response.status, response
    return response.status, body["code"]
