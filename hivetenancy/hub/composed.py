"""Limits, for a hub that has no call for them: put together from the calls of each service (HiveHub wire 3).

A `ServiceProfile` says which call feeds which dimension, one number for one dimension: what a call does not name is not
guessed from it. So much cannot be had from today's wire at all (rates, payload and batch sizes, storage at Vectorizer,
the limits of Synap's names); it comes from plans that the host states, by the name that the hub gives or as
``"default"``. What neither states is not declared, and a demand on it is refused.

A reply of these calls has no place in an order and does not say which part of its numbers is ours. So an answer here
takes the place of the one before, whenever it comes, and *own* is what the hub had confirmed to us before it was asked:
a report that is applied in between is counted twice until the next answer, which is the safe side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

from hivetenancy.clock import Clock
from hivetenancy.errors import HubRefusedError
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.periods import UTC, Period, bounds
from hivetenancy.plans import Plan, QuotaKind, QuotaLimit, quota_limit
from hivetenancy.sources import LimitsAnswer, LimitsBatch, QuotaStanding, TenantLimits

from . import wire
from .calls import LessTokensCalls, NexusCalls, SynapCalls, VectorizerCalls

DEFAULT_PLAN: Final = "default"
"""The plan of a host that counts where the hub names none, or none that the host states."""

_MIB: Final = 1024 * 1024
_UNLIMITED: Final = frozenset({2**32 - 1, 2**63 - 1, 2**64 - 1})  # how an unsigned count says "no limit"
_AMOUNT_MAX: Final = 2**53 - 1
_AT_ONCE: Final = 8  # calls of one batch; the transport's pool is shared with everything else
_COLLECTIONS_ASKED: Final = 64  # whose own limit is asked for; a user with more gets the smallest of these for the rest

_Answer = TypeVar("_Answer")

Confirmed = Callable[[TenantId, Dimension, str | None], int]
"""What the hub has confirmed of our own running total of a cell."""


class ServiceCalls(Protocol):
    """The calls that limits are put together from."""

    vectorizer: VectorizerCalls
    nexus: NexusCalls
    synap: SynapCalls
    lesstokens: LessTokensCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProfile:
    """What is to be known of one service's calls.

    Attributes:
        service: The service.
        checks: Operations to ask calls 9, 11, 18 or 23 about, by the one dimension that each tells about.
    """

    service: wire.Service
    checks: Mapping[Dimension, str] = field(default_factory=lambda: MappingProxyType({}))


PROFILES: Final[Mapping[wire.Service, ServiceProfile]] = MappingProxyType(
    {
        **{service: ServiceProfile(service=service) for service in wire.Service},
        wire.Service.SYNAP: ServiceProfile(
            service=wire.Service.SYNAP,
            checks=MappingProxyType({"queues": "create_queue"}),
        ),
    }
)
"""By service. Only Synap's limit of queues has to be asked for by operation.

The answer to any other operation does not say what it counts (wire 3), so it is asked about none: the number of bytes
that one hub tells for ``api_request`` would be taken for a number of requests.
"""


class ComposedLimits:
    """A `LimitsSource` over the calls of one service.

    Args:
        calls: The typed calls.
        profile: Which call feeds which dimension.
        clock: Its wall time stands for the hub's, which these calls do not tell.
        plans: What the host states, by name; see `DEFAULT_PLAN`.
        confirmed: What the hub has confirmed of our own usage.

    Concurrency:
        For the loop of the calls.
    """

    def __init__(
        self,
        calls: ServiceCalls,
        profile: ServiceProfile,
        *,
        clock: Clock,
        plans: Mapping[str, Plan],
        confirmed: Confirmed,
    ) -> None:
        self._calls = calls
        self._profile = profile
        self._clock = clock
        self._plans = plans
        self._confirmed = confirmed

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """Put together what limits *tenant*; the order of changes is unknown here, so its arguments say nothing.

        Raises:
            HubUnavailableError: A call was not answered.
            HubContractError: A call was answered outside the wire.
        """
        now_us = self._clock.now()[1]
        return LimitsAnswer(epoch=0, revision=0, now_us=now_us, limits=await self._find(tenant, now_us))

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Put together what limits *tenants*, a few at a time; otherwise as `limits`."""
        now_us = self._clock.now()[1]
        found = await _gather(_AT_ONCE, [partial(self._find, tenant, now_us) for tenant in tenants])
        return LimitsBatch(epoch=0, now_us=now_us, limits=tuple(found), revisions=(0,) * len(found))

    async def _find(self, tenant: TenantId, now_us: int) -> TenantLimits | None:
        ask = {
            wire.Service.VECTORIZER: self._vectorizer,
            wire.Service.NEXUS: self._nexus,
            wire.Service.SYNAP: self._synap,
            wire.Service.LESSTOKENS: self._lesstokens,
        }[self._profile.service]
        try:
            plan, told = await ask(tenant, now_us)
            told += await self._checked(tenant, now_us, {standing.limit.dimension for standing in told})
        except HubRefusedError as error:
            if error.status == 404:
                return None
            raise
        return self._compose(tenant, plan, told)

    def _compose(self, tenant: TenantId, name: str, told: list[QuotaStanding]) -> TenantLimits:
        plan = self._plans.get(name) or self._plans.get(DEFAULT_PLAN)
        standings = {(each.limit.dimension, each.limit.resource): each for each in told}
        for stated in () if plan is None else plan.quotas:
            place = (stated.dimension, stated.resource)
            known = standings.get(place)
            if known is None or known.limit.limit is None:
                # What the hub counts without limiting it is limited by the host; what it limits is the hub's matter.
                standings[place] = replace(known, limit=stated) if known is not None else QuotaStanding(limit=stated)
        return TenantLimits(
            tenant_id=tenant,
            plan=name,
            rates=() if plan is None else plan.rates,
            quotas=tuple(standings.values()),
            statics={} if plan is None else plan.statics,
        )

    # --- the services ---

    async def _vectorizer(self, tenant: TenantId, now_us: int) -> tuple[str, list[QuotaStanding]]:
        found = await self._calls.vectorizer.get_user_collections(tenant)
        # Which collections there are is known only now; so their counts are those of the answers that follow.
        own = {each.collection_id: self._confirmed(tenant, "vectors", each.collection_id) for each in found.collections}
        asked = found.collections[:_COLLECTIONS_ASKED]
        told = await _gather(_AT_ONCE, [partial(self._vectors, each.collection_id, tenant) for each in asked])
        counts = {each.collection_id: count for each, count in zip(asked, told, strict=True)}
        if len(found.collections) > len(asked):
            found = await self._calls.vectorizer.get_user_collections(tenant)
        least = min((most for most, _ in counts.values()), default=0)
        standings = [_gauge("collections", found.collection_limit, found.total_collections, 0)]
        for each in found.collections:
            most, used = counts.get(each.collection_id, (least, each.vector_count))
            ours = own.get(each.collection_id, 0)
            standings.append(_gauge("vectors", most, used, ours, resource=each.collection_id))
        return found.plan, standings

    async def _vectors(self, collection: str, tenant: TenantId) -> tuple[int, int]:
        """Return how many vectors a collection may hold and holds: none where the hub says it is not the tenant's."""
        try:
            answer = await self._calls.vectorizer.validate_collection(collection, tenant)
        except HubRefusedError as error:
            if error.status == 404:  # it is gone since it was listed, which says nothing of the tenant
                return 0, 0
            raise
        return (answer.quota.max_vectors, answer.quota.current_vectors) if answer.valid else (0, 0)

    async def _nexus(self, tenant: TenantId, now_us: int) -> tuple[str, list[QuotaStanding]]:
        own = self._own(tenant, "nodes", "relationships", "storage_bytes", "credits")
        found = await self._calls.nexus.get_user_database(tenant)
        quota = found.quota
        stored = quota.storage_limit_mb
        return DEFAULT_PLAN, [
            _gauge("nodes", quota.max_nodes, quota.current_nodes, own["nodes"]),
            _gauge("relationships", quota.max_relationships, quota.current_relationships, own["relationships"]),
            _gauge(
                "storage_bytes",
                stored if stored in _UNLIMITED else stored * _MIB,
                quota.storage_used_mb * _MIB,
                own["storage_bytes"],
            ),
            _month("credits", found.credits.total, found.credits.used, own["credits"], now_us),
        ]

    async def _synap(self, tenant: TenantId, now_us: int) -> tuple[str, list[QuotaStanding]]:
        found = (await self._calls.synap.get_user_resources(tenant)).resources
        counted = {"queues": len(found.queues), "streams": len(found.streams)}
        # Registered by call 16 and counted there, so none of it is ours to add.
        return DEFAULT_PLAN, [_gauge(name, 2**64 - 1, used, 0) for name, used in counted.items()]

    async def _lesstokens(self, tenant: TenantId, now_us: int) -> tuple[str, list[QuotaStanding]]:
        own = self._own(tenant, "tokens")
        tokens = (await self._calls.lesstokens.get_user_tokens(tenant)).tokens
        return DEFAULT_PLAN, [_month("tokens", tokens.total, tokens.used, own["tokens"], now_us)]

    async def _checked(self, tenant: TenantId, now_us: int, told: set[Dimension]) -> list[QuotaStanding]:
        """Ask the one-number calls, each about one dimension.

        An answer without a limit tells nothing but its verdict: where that is "no" there is no room.
        """
        group = {
            wire.Service.VECTORIZER: self._calls.vectorizer,
            wire.Service.NEXUS: self._calls.nexus,
            wire.Service.SYNAP: self._calls.synap,
            wire.Service.LESSTOKENS: self._calls.lesstokens,
        }[self._profile.service]
        own, found = self._own(tenant, *self._profile.checks), []
        for dimension, operation in self._profile.checks.items():
            verdict = await group.check_quota(tenant, operation=operation)
            limit = verdict.limit if verdict.limit is not None and verdict.limit >= 0 else None
            if limit is None and verdict.allowed:
                continue
            limit = limit or 0
            left = limit if verdict.remaining is None else verdict.remaining
            if not verdict.allowed:
                left = min(left, 0)
            ours = 0 if dimension in told else own[dimension]
            found.append(_standing(dimension, limit, max(0, limit - left), ours, now_us))
        return found

    def _own(self, tenant: TenantId, *dimensions: Dimension) -> dict[Dimension, int]:
        """Return what is confirmed by now; to be taken before the hub is asked."""
        return {dimension: self._confirmed(tenant, dimension, None) for dimension in dimensions}


def _standing(dimension: Dimension, limit: int, used: int, own: int, now_us: int) -> QuotaStanding:
    counter = quota_limit(dimension, None).kind is QuotaKind.COUNTER
    return _month(dimension, limit, used, own, now_us) if counter else _gauge(dimension, limit, used, own)


def _gauge(dimension: Dimension, limit: int, used: int, own: int, *, resource: str | None = None) -> QuotaStanding:
    stated = QuotaLimit(
        dimension=dimension, limit=_limit(limit), kind=QuotaKind.CONTRIBUTION, resource=resource, period=None
    )
    return QuotaStanding(limit=stated, used=min(used, _AMOUNT_MAX), own=own)


def _month(dimension: Dimension, limit: int, used: int, own: int, now_us: int) -> QuotaStanding:
    start, end = bounds(Period.MONTH, now_us, UTC)
    stated = QuotaLimit(dimension=dimension, limit=_limit(limit), kind=QuotaKind.COUNTER, period=Period.MONTH)
    return QuotaStanding(limit=stated, used=min(used, _AMOUNT_MAX), own=own, period_start_us=start, resets_at_us=end)


def _limit(count: int) -> int | None:
    return None if count in _UNLIMITED or count > _AMOUNT_MAX else count


async def _gather(at_once: int, asks: Iterable[Callable[[], Awaitable[_Answer]]]) -> list[_Answer]:
    """Make calls, at most *at_once* at a time; the first failure ends the others."""
    gate = asyncio.Semaphore(at_once)

    async def one(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        async with gate:
            return await ask()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(ask)) for ask in asks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
