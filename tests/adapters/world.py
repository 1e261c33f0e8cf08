"""The stage of `tests.adapters.host` with one tenant on a plan that the test chooses."""

from __future__ import annotations

from hivetenancy.adapters.http import HttpOptions
from hivetenancy.clock import MINUTE_US
from hivetenancy.plans import ConcurrencyPolicy, Plan, Policy, RatePolicy, quota_limit
from tests.adapters.host import Stage

AT_ONCE = ConcurrencyPolicy(limit=1_000, name="at-once")
PER_MINUTE = RatePolicy(limit=1_000_000, period_us=MINUTE_US, burst=1_000_000, name="per-minute")


def plan(
    *rates: Policy,
    storage_bytes: int = 1_000_000,
    keys: int = 10_000,
    operations: int | None = None,
    connections: int | None = 1_000,
    max_payload_bytes: int | None = None,
    max_ttl_seconds: int = 1_000,
) -> Plan:
    """A plan called ``tested``: with *rates*, or room for everything."""
    statics = {"max_ttl_seconds": max_ttl_seconds}
    if max_payload_bytes is not None:
        statics["max_payload_bytes"] = max_payload_bytes
    return Plan(
        name="tested",
        rates=rates or (PER_MINUTE, AT_ONCE),
        quotas=(
            quota_limit("storage_bytes", storage_bytes),
            quota_limit("keys", keys),
            quota_limit("operations", operations),
            quota_limit("connections", connections),
        ),
        statics=statics,
    )


class World(Stage):
    """A hub, a tenant on the plan ``tested`` with a key, another one beside it, and a tenancy over them."""

    def __init__(self, tested: Plan | None = None, *, http: HttpOptions | None = None) -> None:
        super().__init__(http=http, plans=[tested or plan()])
        self.tenant = self.hub.add_tenant("tenant", plan="tested")
        self.other = self.hub.add_tenant("other", plan="tested")
        self.key = self.tenant.issue_key(permissions=["read", "write", "delete"])

    async def all_held(self) -> dict[str, int]:
        """What anything still holds; empty: nothing."""
        return await self.held(self.tenant)

    async def used(self, dimension: str) -> int:
        """What the tenant has used of *dimension*."""
        cells = await self.tenancy.gate.usage(self.tenant.id)
        return next((cell.used for cell in cells if cell.dimension == dimension), 0)
