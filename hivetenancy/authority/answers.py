"""From the values of the four sources to HiveHub's JSON: the server's side of what `hivetenancy.hub.wire` models.

The wire's list of rates knows token buckets and sliding windows alone. Whatever else limits a tenant is written so that
a reader of the wire admits no more than a caller in process: a calendar policy goes as the sliding window of its
longest period, which never admits more than the calendar; a tenant's concurrency policy goes as the quota of
``requests_in_flight``, the smaller of the two where both are stated. A concurrency policy of each key alone has no form
on the wire and is not sent: a hub that must limit that states the quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeVar, assert_never

from pydantic import BaseModel

from hivetenancy.clock import SECOND_US
from hivetenancy.hub import wire
from hivetenancy.ids import TenantId
from hivetenancy.periods import UTC, Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Policy, QuotaKind, QuotaLimit, RatePolicy, Scope
from hivetenancy.sources import (
    ChangeBatch,
    ChangeEvent,
    InactiveKey,
    KeyRecord,
    LimitsAnswer,
    LimitsBatch,
    QuotaStanding,
    TenantLimits,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)
from hivetenancy.sources.protocol import IN_FLIGHT_DIMENSION

from .view import Announcement, InspectedKey, Inspection, LimitsPage

ANNOUNCEMENT: Final = "announcement"
"""The extension that does not announce itself: it is the list."""

_LONGEST_SECONDS: Final = {Period.HOUR: 3_600, Period.DAY: 86_400, Period.MONTH: 31 * 86_400}
_KINDS: Final[Mapping[QuotaKind, Literal["counter", "contribution", "level", "ephemeral"]]] = {
    QuotaKind.COUNTER: "counter",
    QuotaKind.CONTRIBUTION: "contribution",
    QuotaKind.LEVEL: "level",
    QuotaKind.EPHEMERAL: "ephemeral",  # a static limit is no quota: the hub keeps it apart
}

_ZONE_SECONDS: Final = 3_600
"""By how much a change of the clocks can lengthen a period of a zone that is not UTC."""


class _Placed(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def now_us(self) -> int: ...


def stamp(answer: _Placed) -> wire.Stamped:
    """Return where *answer* stands in the hub's order."""
    return wire.Stamped(epoch=answer.epoch, revision=answer.revision, now=answer.now_us)


# --- X0 --------------------------------------------------------------------------------------------------------------


def announcement(said: Announcement) -> wire.Announcement:
    """Return what a hub says of itself."""
    return wire.Announcement(
        version=said.version,
        hub_id=said.hub_id,
        authority=said.authority,
        epoch=said.epoch,
        revision=said.revision,
        now=said.now_us,
        service=None if said.service is None else wire.Service(said.service),
        scopes=said.scopes,
        extensions=tuple(name for name in said.extensions if name != ANNOUNCEMENT),
        idempotency_window_seconds=said.idempotency_window_seconds,
        usage_grace_seconds=said.usage_grace_seconds,
    )


# --- X1 --------------------------------------------------------------------------------------------------------------


def keys(found: Inspection) -> wire.IntrospectedKeys:
    """Return what several keys are worth."""
    return wire.IntrospectedKeys(
        epoch=found.epoch,
        revision=found.revision,
        now=found.now_us,
        results=tuple(key(each).root for each in found.keys),
    )


def key(found: InspectedKey) -> wire.IntrospectedKey:
    """Return what a key is worth."""
    if isinstance(found.key, InactiveKey):
        return wire.IntrospectedKey(_dead(found.key))
    return wire.IntrospectedKey(_active(found.key, found))


def _dead(state: InactiveKey) -> wire.DeadKey:
    return wire.DeadKey(
        active=False,
        reason=state.reason.value,
        id=state.key_id,
        user_id=state.tenant_id,
        revoked_at=state.revoked_at_us,
        not_before=state.not_before_us,
    )


def _active(record: KeyRecord, found: InspectedKey) -> wire.ActiveKey:
    rotating = record.overlap_until_us is not None or record.version < record.current_version
    rotation = wire.Rotation(current_version=record.current_version, overlap_until=record.overlap_until_us)
    return wire.ActiveKey(
        active=True,
        id=record.key_id,
        version=record.version,
        user_id=record.tenant_id,
        service=None if found.service is None else wire.Service(found.service),
        name=record.name,
        permissions=tuple(sorted(permission.value for permission in record.permissions)),
        functions=record.functions,
        resources=record.resources,
        networks=record.networks,
        environment=record.environment.value,
        plan=record.plan,
        created_at=record.created_at_us,
        not_before=record.not_before_us,
        expires_at=record.expires_at_us,
        last_used_at=found.last_used_at_us,
        rotation=rotation if rotating else None,
    )


# --- X2 --------------------------------------------------------------------------------------------------------------


def changes(batch: ChangeBatch) -> wire.Changes:
    """Return what changed."""
    return wire.Changes(
        epoch=batch.epoch,
        revision=batch.revision,
        now=batch.now_us,
        events=tuple(_event(event) for event in batch.events),
        cursor=batch.cursor,
        more=batch.more,
        reset=batch.reset,
        spread_seconds=batch.spread_seconds,
    )


def _event(event: ChangeEvent) -> wire.Event:
    return wire.Event(
        revision=event.revision,
        type=event.type.value,
        at=event.at_us,
        id=event.key_id,
        user_id=event.tenant_id,
        plan=event.plan,
        digest_prefix=event.digest_prefix,
        revoked_at=event.revoked_at_us,
        expires_at=event.expires_at_us,
    )


# --- X3 --------------------------------------------------------------------------------------------------------------


def limits(answer: LimitsAnswer, known: TenantLimits) -> wire.Limits:
    """Return the limits of one tenant, which *answer* has."""
    body = _body(known)
    return wire.Limits(
        epoch=answer.epoch,
        revision=answer.revision,
        now=answer.now_us,
        user_id=known.tenant_id,
        plan=body.plan,
        status=body.status,
        quotas=body.quotas,
        rates=body.rates,
        static=body.static,
    )


def limits_batch(batch: LimitsBatch, tenants: Sequence[str], *, revision: int) -> wire.LimitsPage:
    """Return the limits of several *tenants*, in their order; *revision* is that of an answer about nobody."""
    items = tuple(
        wire.LimitsItem(user_id=tenant, revision=taken_at, limits=None if known is None else _body(known))
        for tenant, known, taken_at in zip(tenants, batch.limits, batch.revisions, strict=True)
    )
    least = min(batch.revisions, default=revision)
    return wire.LimitsPage(epoch=batch.epoch, revision=least, now=batch.now_us, items=items)


def limits_page(page: LimitsPage) -> wire.LimitsPage:
    """Return the limits of one page of tenants."""
    items = tuple(
        wire.LimitsItem(user_id=known.tenant_id, revision=page.revision, limits=_body(known)) for known in page.limits
    )
    return wire.LimitsPage(epoch=page.epoch, revision=page.revision, now=page.now_us, items=items, cursor=page.cursor)


def _body(known: TenantLimits) -> wire.LimitsBody:
    return wire.LimitsBody(
        plan=known.plan,
        status=known.status.value,
        quotas=tuple(_quota(standing) for standing in _in_flight(known)),
        rates=tuple(rate for policy in known.rates if (rate := _rate(policy)) is not None),
        static=dict(known.statics),
    )


def _in_flight(known: TenantLimits) -> Iterable[QuotaStanding]:
    """The quotas, with the tenant's concurrency policies in that of requests in flight."""
    stated = [
        policy.limit for policy in known.rates if isinstance(policy, ConcurrencyPolicy) and policy.scope is Scope.TENANT
    ]
    if not stated:
        return known.quotas
    others = [standing for standing in known.quotas if not _counts_in_flight(standing.limit)]
    stated += [
        standing.limit.limit
        for standing in known.quotas
        if _counts_in_flight(standing.limit) and standing.limit.limit is not None
    ]
    limit = QuotaLimit(dimension=IN_FLIGHT_DIMENSION, limit=min(stated), kind=QuotaKind.EPHEMERAL)
    return [*others, QuotaStanding(limit=limit)]


def _counts_in_flight(limit: QuotaLimit) -> bool:
    return limit.dimension == IN_FLIGHT_DIMENSION and limit.kind is QuotaKind.EPHEMERAL and limit.resource is None


def _quota(standing: QuotaStanding) -> wire.Quota:
    limit = standing.limit
    return wire.Quota(
        dimension=limit.dimension,
        resource=limit.resource,
        kind=_KINDS[limit.kind],
        limit=limit.limit,
        used=standing.used,
        own=standing.own,
        period=None if limit.period is None else limit.period.value,
        period_start=standing.period_start_us,
        resets_at=standing.resets_at_us,
        zone=None if limit.period is None or limit.zone == UTC else limit.zone,
    )


def _rate(policy: Policy) -> wire.Rate | None:
    if isinstance(policy, RatePolicy):
        return wire.Rate(
            name=policy.name,
            limit=policy.limit,
            period_seconds=_seconds(policy.period_us),
            burst=policy.burst,
            scope=_scope(policy.scope),
        )
    if isinstance(policy, CalendarPolicy):
        longest = _LONGEST_SECONDS[policy.period] + (0 if policy.zone == UTC else _ZONE_SECONDS)
        return wire.Rate(
            name=policy.name, limit=policy.limit, period_seconds=longest, burst=None, scope=_scope(policy.scope)
        )
    if isinstance(policy, ConcurrencyPolicy):
        return None  # see the top of this file
    assert_never(policy)


def _seconds(period_us: int) -> int | float:
    whole, fraction = divmod(period_us, SECOND_US)
    return period_us / SECOND_US if fraction else whole


def _scope(scope: Scope) -> wire.RateScope:
    match scope:
        case Scope.TENANT:
            return "user"
        case Scope.KEY:
            return "key"
    assert_never(scope)


# --- X4 --------------------------------------------------------------------------------------------------------------


def report(source: str, told: wire.Report) -> UsageReport:
    """Return the report that a client put."""
    return UsageReport(
        source=source,
        writer=told.writer,
        sequence=told.sequence,
        previous_sequence=told.previous_sequence,
        final=told.final,
        lines=tuple(_line(line) for line in told.lines),
    )


def _line(line: wire.Line) -> UsageLine:
    return UsageLine(
        tenant_id=TenantId(line.user_id),
        dimension=line.dimension,
        resource=line.resource,
        kind=UsageKind(line.kind),
        value=line.value,
        period_start_us=line.period_start,
        term=line.term,
        reason=line.reason,
    )


def receipt(reply: UsageReply) -> wire.Receipt:
    """Return the receipt for a report."""
    rejected = tuple(
        wire.Rejected(index=line.index, code=line.code.value, permanent=line.permanent) for line in reply.rejected
    )
    return wire.Receipt(last_sequence=reply.last_sequence, rejected=rejected)


# --- the 23 calls ----------------------------------------------------------------------------------------------------

_Model = TypeVar("_Model", bound=BaseModel)


def call(reply: type[_Model], made: object) -> _Model:
    """Return what `Desk` answered as a *reply*, whose names it has but for the unit of times."""
    fields = _fields(made)
    if reply is wire.UserResources:
        fields["resources"] = {name: fields.pop(name) for name in ("queues", "streams", "key_value_stores")}
    return reply.model_validate(fields)


def _fields(value: Any) -> dict[str, Any]:
    return {each.name.removesuffix("_us"): _plain(getattr(value, each.name)) for each in fields_of(value)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, tuple):
        return tuple(_plain(each) for each in value)
    return value.value if isinstance(value, Enum) else value
