"""Limits that are stated in code, for components that are used without a control plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hivetenancy.clock import Instant
from hivetenancy.ids import TenantId
from hivetenancy.plans import Plan
from hivetenancy.sources import LimitsView, QuotaStanding, TenantLimits


def limits_of(tenant: TenantId, plan: Plan) -> TenantLimits:
    """Return the limits of a tenant on *plan*, of which nothing is used yet."""
    quotas = tuple(QuotaStanding(limit=limit) for limit in plan.quotas)
    return TenantLimits(tenant_id=tenant, plan=plan.name, rates=plan.rates, quotas=quotas, statics=plan.statics)


class FixedLimits:
    """A `LimitsView` for limits that are stated in code: a plan for each tenant, or one plan for all.

    Args:
        plans: Plans by tenant, or the plan of every tenant there is.

    Concurrency:
        Thread-safe.

    Example:
        >>> from hivetenancy.plans import Plan, quota_limit
        >>> limits = FixedLimits(Plan(name="small", quotas=(quota_limit("keys", 10),)))
        >>> limits.try_limits(TenantId("acme"), now=(0, 0)).plan
        'small'
    """

    def __init__(self, plans: Plan | Mapping[TenantId, Plan]) -> None:
        self._everybody = plans if isinstance(plans, Plan) else None
        self._known: dict[TenantId, TenantLimits] = {}
        if not isinstance(plans, Plan):
            for tenant, plan in plans.items():
                self.set(tenant, plan)

    def set(self, tenant: TenantId, plan: Plan) -> None:
        """Put *tenant* on *plan* from the next question on."""
        self.state(limits_of(tenant, plan))

    def state(self, limits: TenantLimits) -> None:
        """Let *limits* be those of their tenant from the next question on."""
        self._known[limits.tenant_id] = limits

    def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant*; ``None`` for one that nobody stated."""
        known = self._known.get(tenant)
        if known is None and self._everybody is not None:
            known = self._known.setdefault(tenant, limits_of(tenant, self._everybody))
        return known

    async def limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant*; ``None``: no such tenant."""
        return self.try_limits(tenant, now=now)


if TYPE_CHECKING:
    _view: type[LimitsView] = FixedLimits
