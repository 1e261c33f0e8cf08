"""The three plans that a control plane starts with (HiveHub wire, part 5); each can be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hivetenancy.clock import HOUR_US, MINUTE_US
from hivetenancy.plans import ANY_RESOURCE, Plan, RatePolicy, quota_limit

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_GIB: Final = 1024 * _MIB
_DAY_SECONDS: Final = 86_400

#: Counted, so that they show in reports and bills, and not limited by any of the three plans.
_UNLIMITED: Final = ("searches", "egress_bytes")


def _plan(name: str, *, per_minute: int, per_hour: int, statics: Mapping[str, int], **quotas: int | None) -> Plan:
    """Build a plan; *quotas* by canonical dimension, ``vectors`` for each collection alike."""
    amounts: dict[str, int | None] = {**quotas, "backup_bytes": quotas["storage_bytes"]}
    amounts |= dict.fromkeys(_UNLIMITED)
    return Plan(
        name=name,
        rates=(
            RatePolicy(limit=per_minute, period_us=MINUTE_US, name="per-minute"),
            RatePolicy(limit=per_hour, period_us=HOUR_US, name="per-hour"),
        ),
        quotas=tuple(
            quota_limit(dimension, limit, resource=ANY_RESOURCE if dimension == "vectors" else None)
            for dimension, limit in amounts.items()
        ),
        statics=statics,
    )


FREE: Final = _plan(
    "free",
    per_minute=100,
    per_hour=1_000,
    statics={"max_payload_bytes": 256 * _KIB, "max_ttl_seconds": _DAY_SECONDS, "max_batch": 10},
    storage_bytes=100 * _MIB,
    keys=1_000,
    collections=3,
    vectors=10_000,
    nodes=10_000,
    relationships=50_000,
    queues=10,
    streams=10,
    operations=100_000,
    tokens=200,
    credits=1_000,
    connections=100,
    requests_in_flight=10,
)
"""The plan ``free``."""

PRO: Final = _plan(
    "pro",
    per_minute=1_000,
    per_hour=30_000,
    statics={"max_payload_bytes": _MIB, "max_ttl_seconds": 7 * _DAY_SECONDS, "max_batch": 100},
    storage_bytes=10 * _GIB,
    keys=100_000,
    collections=50,
    vectors=100_000,
    nodes=100_000,
    relationships=500_000,
    queues=100,
    streams=100,
    operations=10_000_000,
    tokens=2_000,
    credits=10_000,
    connections=1_000,
    requests_in_flight=100,
)
"""The plan ``pro``."""

ENTERPRISE: Final = _plan(
    "enterprise",
    per_minute=10_000,
    per_hour=300_000,
    statics={"max_payload_bytes": 10 * _MIB, "max_ttl_seconds": 30 * _DAY_SECONDS, "max_batch": 1_000},
    storage_bytes=100 * _GIB,
    keys=1_000_000,
    collections=1_000,
    vectors=1_000_000,
    nodes=10_000_000,
    relationships=50_000_000,
    queues=1_000,
    streams=1_000,
    operations=None,
    tokens=20_000,
    credits=100_000,
    connections=10_000,
    requests_in_flight=1_000,
)
"""The plan ``enterprise``."""

DEFAULT_PLANS: Final[Mapping[str, Plan]] = MappingProxyType({plan.name: plan for plan in (FREE, PRO, ENTERPRISE)})
"""The plans by name."""
