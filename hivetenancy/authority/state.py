"""What a control plane knows, as one value: tenants, plans, keys and usage, and what can be read from them.

Tenants and keys are frozen and replaced whole, so a copy is cheap and never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from hivetenancy.clock import HOUR_US
from hivetenancy.ids import Dimension, KeyId, TenantId
from hivetenancy.periods import bounds
from hivetenancy.plans import ANY_RESOURCE, CANONICAL, Plan, Policy, QuotaKind, QuotaLimit
from hivetenancy.sources import (
    InactiveKey,
    InactiveReason,
    KeyState,
    QuotaStanding,
    RejectCode,
    TenantLimits,
    TenantStatus,
    UsageKind,
    UsageLine,
)

from .book import UsageBook, out_of_range
from .credentials import ServiceKey
from .idempotency import IdempotencyStore
from .keys import Key
from .resources import RegisteredCollection, RegisteredResource

USAGE_GRACE_US: Final = HOUR_US
"""How long after its end a period still takes reports (``usage_grace_seconds`` of HiveHub wire 4.1)."""

#: Which lines fit which dimension. Ephemeral gauges are gone before a report could arrive; static limits count nothing.
_LINES: Final = {
    QuotaKind.COUNTER: (UsageKind.COUNTER, UsageKind.CORRECTION),
    QuotaKind.CONTRIBUTION: (UsageKind.CONTRIBUTION, UsageKind.CORRECTION),
    QuotaKind.LEVEL: (UsageKind.LEVEL,),
}

_Cell: TypeAlias = tuple[Dimension, str | None]
_UNKNOWN_KEY: Final = InactiveKey(reason=InactiveReason.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRecord:
    """One tenant.

    Attributes:
        tenant_id: A random UUID.
        name: What people call it; not unique, and no part of any stored name.
        plan: Name of its plan.
        status: Where it stands in its life.
        quotas: Limits of its own, by dimension and resource, instead of the plan's.
        statics: Static limits of its own; ``None``: not limited.
        rates: Rate policies of its own; ``None``: the plan's.
    """

    tenant_id: TenantId
    name: str
    plan: str
    status: TenantStatus = TenantStatus.ACTIVE
    quotas: Mapping[_Cell, QuotaLimit] = field(default_factory=lambda: MappingProxyType({}))
    statics: Mapping[Dimension, int | None] = field(default_factory=lambda: MappingProxyType({}))
    rates: tuple[Policy, ...] | None = None


@dataclass(slots=True)
class HubState:
    """Everything a control plane knows at one revision.

    Attributes:
        plans: By name.
        tenants: By id.
        keys: By id.
        digests: The key that each secret ever was one of.
        usage: What was used.
        last_used: When each key was last introspected, in wall microseconds.
        collections: What call 6 registered, by id.
        collection_ids: The ids of those by owner and name.
        resources: What call 16 registered, by owner, then by type and short name.
        service_keys: By id.
        idempotency: Which calls were made under an idempotency key.

    Concurrency:
        None of its own: the control plane's lock covers it, or it is a copy that nobody changes.
    """

    plans: dict[str, Plan]
    tenants: dict[TenantId, TenantRecord] = field(default_factory=dict)
    keys: dict[KeyId, Key] = field(default_factory=dict)
    digests: dict[bytes, KeyId] = field(default_factory=dict, repr=False)
    usage: UsageBook = field(default_factory=UsageBook)
    last_used: dict[KeyId, int] = field(default_factory=dict)
    collections: dict[str, RegisteredCollection] = field(default_factory=dict)
    collection_ids: dict[TenantId, dict[str, str]] = field(default_factory=dict)
    resources: dict[TenantId, dict[tuple[str, str], RegisteredResource]] = field(default_factory=dict)
    service_keys: dict[str, ServiceKey] = field(default_factory=dict, repr=False)
    idempotency: IdempotencyStore = field(default_factory=IdempotencyStore, repr=False)

    def copy(self) -> HubState:
        """Return the same knowledge, apart from whatever happens next."""
        return HubState(
            plans=dict(self.plans),
            tenants=dict(self.tenants),
            keys=dict(self.keys),
            digests=dict(self.digests),
            usage=self.usage.copy(),
            last_used=dict(self.last_used),
            collections=dict(self.collections),
            collection_ids={tenant: dict(ids) for tenant, ids in self.collection_ids.items()},
            resources={tenant: dict(held) for tenant, held in self.resources.items()},
            service_keys=dict(self.service_keys),
            idempotency=self.idempotency.copy(),
        )

    def put_collection(self, held: RegisteredCollection) -> None:
        """Add *held*, or replace the one of its id."""
        self.collections[held.collection_id] = held
        self.collection_ids.setdefault(held.tenant_id, {})[held.name] = held.collection_id

    def put_resource(self, held: RegisteredResource) -> None:
        """Add *held*, or replace the one of its owner, type and name."""
        self.resources.setdefault(held.tenant_id, {})[held.resource_type, held.name] = held

    def put_key(self, key: Key) -> None:
        """Add *key*, or replace the one of its id."""
        self.keys[key.key_id] = key
        self.digests.update((version.digest, key.key_id) for version in key.versions)

    def drop_tenant(self, tenant: TenantId) -> None:
        """Forget a tenant with its keys and usage, so that its keys are unknown from now on."""
        del self.tenants[tenant]
        for key in [key for key in self.keys.values() if key.tenant_id == tenant]:
            del self.keys[key.key_id]
            self.last_used.pop(key.key_id, None)
            for version in key.versions:
                del self.digests[version.digest]
        for collection_id in self.collection_ids.pop(tenant, {}).values():
            del self.collections[collection_id]
        self.resources.pop(tenant, None)
        self.usage.forget(tenant)

    # --- keys --------------------------------------------------------------------------------------------------------

    def key_behind(self, digest: bytes, service: str | None = None) -> Key | None:
        """The key that *digest* belongs to, if it is one for *service* (``None``: for any)."""
        key_id = self.digests.get(digest)
        key = None if key_id is None else self.keys[key_id]
        return key if key is not None and key.serves(service) else None

    def key_state(self, digest: bytes, now_us: int, service: str | None = None) -> KeyState:
        """Say what the key behind *digest* is worth to *service*; a key of another one is unknown."""
        key = self.key_behind(digest, service)
        if key is None:
            return _UNKNOWN_KEY
        owner = self.tenants.get(key.tenant_id) if key.tenant_id is not None else None
        return key.state(
            digest,
            plan=owner.plan if owner is not None else "",
            suspended=owner is not None and owner.status is not TenantStatus.ACTIVE,
            now_us=now_us,
        )

    # --- limits ------------------------------------------------------------------------------------------------------

    def limits(self, tenant: TenantId, sources: Collection[str], now_us: int) -> TenantLimits | None:
        """Everything that limits *tenant*; ``None``: there is no such tenant."""
        record = self.tenants.get(tenant)
        if record is None:
            return None
        own = frozenset(sources)
        cells = self.quotas(record)
        standings: list[QuotaStanding] = []
        for limit in cells.values():
            standings.append(self._standing(tenant, limit, own, now_us))
            if limit.resource == ANY_RESOURCE:
                standings.extend(self._each(tenant, limit, cells, own, now_us))
        return TenantLimits(
            tenant_id=tenant,
            plan=record.plan,
            status=record.status,
            rates=self.plans[record.plan].rates if record.rates is None else record.rates,
            quotas=tuple(standings),
            statics=self.statics(record),
        )

    def quotas(self, record: TenantRecord) -> dict[_Cell, QuotaLimit]:
        """The quota limits in force: the plan's, with the tenant's own in their place."""
        plan = self.plans[record.plan].quotas
        return {(quota.dimension, quota.resource): quota for quota in plan} | dict(record.quotas)

    def statics(self, record: TenantRecord) -> dict[Dimension, int]:
        """The static limits in force."""
        merged = {**self.plans[record.plan].statics, **record.statics}
        return {dimension: limit for dimension, limit in merged.items() if limit is not None}

    def _each(
        self,
        tenant: TenantId,
        limit: QuotaLimit,
        cells: Collection[_Cell],
        own: frozenset[str],
        now_us: int,
    ) -> list[QuotaStanding]:
        """Standings of the resources in use that share *limit*, each with a cell of its own."""
        start, _ = _period(limit, now_us)
        return [
            self._standing(tenant, replace(limit, resource=name), own, now_us)
            for name in self.usage.resources(tenant, limit.dimension, start)
            if (limit.dimension, name) not in cells
        ]

    def _standing(self, tenant: TenantId, limit: QuotaLimit, own: frozenset[str], now_us: int) -> QuotaStanding:
        start, end = _period(limit, now_us)
        used, mine = self.usage.total(tenant, limit.dimension, limit.resource, start, own=own)
        return QuotaStanding(limit=limit, used=used, own=mine, period_start_us=start, resets_at_us=end)

    def standing(self, record: TenantRecord, dimension: Dimension, resource: str | None, now_us: int) -> QuotaStanding:
        """The limit of one cell and how much of it is used; what no plan names has a limit of zero."""
        limit = self._limit(record, dimension, resource)
        return self._standing(record.tenant_id, replace(limit, resource=resource), frozenset(), now_us)

    def _limit(self, record: TenantRecord, dimension: Dimension, resource: str | None) -> QuotaLimit:
        known = self.what_is(record, dimension, resource)
        if known is None:
            return QuotaLimit(dimension=dimension, limit=0, kind=QuotaKind.CONTRIBUTION)
        stated = any((dimension, place) in self.quotas(record) for place in (resource, ANY_RESOURCE, None))
        return known if stated else replace(known, limit=0)

    # --- usage -------------------------------------------------------------------------------------------------------

    def what_is(self, record: TenantRecord, dimension: Dimension, resource: str | None = None) -> QuotaLimit | None:
        """How *dimension* behaves for a tenant: as its limits say, or by its canonical kind, or as any plan says.

        Usage counts where nothing limits it: a fact that happened is not dropped because a plan does not name it.
        """
        cells = self.quotas(record)
        others = (None, ANY_RESOURCE) if resource is None else (ANY_RESOURCE, None)
        for place in (resource, *others):
            if (dimension, place) in cells:
                return cells[dimension, place]
        spec = CANONICAL.get(dimension)
        if spec is not None:
            return QuotaLimit(dimension=dimension, limit=None, kind=spec.kind, period=spec.period)
        stated = (quota for plan in self.plans.values() for quota in plan.quotas)
        return next((quota for quota in stated if quota.dimension == dimension), None)

    def used(self, record: TenantRecord, limit: QuotaLimit, now_us: int) -> Mapping[str, int]:
        """What each source reported for the cell of *limit* in the present period."""
        start, _ = _period(limit, now_us)
        return self.usage.by_source(record.tenant_id, limit.dimension, limit.resource, start)

    def judge(self, line: UsageLine, now_us: int) -> RejectCode | None:
        """Say what is wrong with a line of a report; whether it falls back is for the book."""
        record = self.tenants.get(line.tenant_id)
        if record is None:
            return RejectCode.UNKNOWN_USER
        spec = self.what_is(record, line.dimension, line.resource)
        if spec is None:
            return RejectCode.UNKNOWN_DIMENSION
        if not _fits(line, spec):
            return RejectCode.KIND_MISMATCH
        if out_of_range(line):
            return RejectCode.OUT_OF_RANGE
        return _judge_period(line, spec, now_us)


def _period(limit: QuotaLimit, now_us: int) -> tuple[int | None, int | None]:
    if limit.period is None:
        return None, None
    return bounds(limit.period, now_us, limit.zone)


def _fits(line: UsageLine, spec: QuotaLimit) -> bool:
    """Whether a line is of a kind that the dimension has, with the fields of that kind and no others."""
    return (
        line.kind in _LINES.get(spec.kind, ())
        and (line.period_start_us is None) == (spec.period is None)
        and (line.term is None) == (line.kind != UsageKind.LEVEL)
        and (line.reason is None) == (line.kind != UsageKind.CORRECTION)
    )


def _judge_period(line: UsageLine, spec: QuotaLimit, now_us: int) -> RejectCode | None:
    if line.period_start_us is None or spec.period is None:
        return None
    if type(line.period_start_us) is not int or line.period_start_us < 0:
        return RejectCode.OUT_OF_RANGE
    if line.period_start_us > now_us:
        return RejectCode.PERIOD_NOT_OPEN
    start, end = bounds(spec.period, line.period_start_us, spec.zone)
    if start != line.period_start_us:
        return RejectCode.OUT_OF_RANGE
    return RejectCode.PERIOD_CLOSED if end + USAGE_GRACE_US <= now_us else None
