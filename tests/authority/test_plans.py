"""The plans that a control plane starts with are those of the wire page."""

from __future__ import annotations

import pytest

from hivetenancy.authority.plans import DEFAULT_PLANS
from hivetenancy.authority.service import HubService
from hivetenancy.errors import ConfigurationError
from hivetenancy.plans import ANY_RESOURCE, CANONICAL, Plan, QuotaKind, RatePolicy

MIB, GIB, DAY = 2**20, 2**30, 86_400

#: HiveHub wire, part 5, copied by hand: dimension or policy, then free, pro, enterprise.
TABLE: list[tuple[str, int | None, int | None, int | None]] = [
    ("storage_bytes", 100 * MIB, 10 * GIB, 100 * GIB),
    ("backup_bytes", 100 * MIB, 10 * GIB, 100 * GIB),
    ("keys", 1_000, 100_000, 1_000_000),
    ("collections", 3, 50, 1_000),
    ("vectors", 10_000, 100_000, 1_000_000),
    ("nodes", 10_000, 100_000, 10_000_000),
    ("relationships", 50_000, 500_000, 50_000_000),
    ("queues", 10, 100, 1_000),
    ("streams", 10, 100, 1_000),
    ("operations", 100_000, 10_000_000, None),
    ("searches", None, None, None),
    ("egress_bytes", None, None, None),
    ("tokens", 200, 2_000, 20_000),
    ("credits", 1_000, 10_000, 100_000),
    ("connections", 100, 1_000, 10_000),
    ("requests_in_flight", 10, 100, 1_000),
    ("max_payload_bytes", 256 * 1024, MIB, 10 * MIB),
    ("max_ttl_seconds", DAY, 7 * DAY, 30 * DAY),
    ("max_batch", 10, 100, 1_000),
    ("per-minute", 100, 1_000, 10_000),
    ("per-hour", 1_000, 30_000, 300_000),
]


def limits(plan: Plan) -> dict[str, int | None]:
    """All numbers of a plan by name."""
    quotas = {quota.dimension: quota.limit for quota in plan.quotas}
    return {**quotas, **plan.statics, **{policy.name: policy.limit for policy in plan.rates}}  # type: ignore[dict-item]


@pytest.mark.parametrize(("column", "name"), [(1, "free"), (2, "pro"), (3, "enterprise")])
def test_a_default_plan(column: int, name: str) -> None:
    """A default plan states exactly the numbers of the wire page."""
    assert limits(DEFAULT_PLANS[name]) == {row[0]: row[column] for row in TABLE}


def test_every_canonical_dimension_is_declared() -> None:
    """Each plan declares every canonical dimension, with its canonical kind and period."""
    for plan in DEFAULT_PLANS.values():
        declared = {quota.dimension: (quota.kind, quota.period) for quota in plan.quotas}
        counted = {
            name: (spec.kind, spec.period) for name, spec in CANONICAL.items() if spec.kind is not QuotaKind.STATIC
        }
        assert declared == counted
        assert set(plan.statics) == set(CANONICAL) - set(counted)


def test_rates_are_sliding_windows_and_vectors_are_per_collection() -> None:
    """Rates have no burst, so they are sliding windows; vectors are limited for each collection alike."""
    for plan in DEFAULT_PLANS.values():
        assert all(isinstance(policy, RatePolicy) and policy.burst is None for policy in plan.rates)
        assert {quota.dimension for quota in plan.quotas if quota.resource == ANY_RESOURCE} == {"vectors"}


def test_a_plan_can_be_put_in_the_place_of_a_default() -> None:
    """Plans given replace those of their name and stand beside the others, as a list or by name."""
    mine, own = Plan(name="free"), Plan(name="own")
    for given in ([mine, own], {"free": mine, "own": own}):
        plans = HubService(plans=given).plans
        assert plans["free"] is mine
        assert set(plans) == {"free", "own", "pro", "enterprise"}


@pytest.mark.parametrize(
    "given", [[Plan(name="own"), Plan(name="own")], {"mine": Plan(name="own")}], ids=["twice", "misnamed"]
)
def test_plans_that_contradict_each_other_are_refused(given: object) -> None:
    """Two plans of one name, or one under another's name, are an error when the hub is built."""
    with pytest.raises(ConfigurationError, match="name"):
        HubService(plans=given)  # type: ignore[arg-type]
