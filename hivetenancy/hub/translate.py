"""Between HiveHub's JSON and the values of the four sources.

Whatever the wire says that our values cannot hold makes the answer unusable (`HubContractError`), but for what can only
take trust away: a permission that is not known grants nothing, a dead key stays dead whatever its reason is called, a
change of an unknown type drops what is kept about its key, user or plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, TypeVar

from pydantic import ValidationError

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, HubContractError
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.periods import UTC, Period
from hivetenancy.plans import Policy, QuotaKind, QuotaLimit, RatePolicy, Scope
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    ChangeEvent,
    ChangeType,
    InactiveKey,
    InactiveReason,
    KeyAnswer,
    KeyRecord,
    KeyState,
    LimitsAnswer,
    LimitsBatch,
    QuotaStanding,
    RejectCode,
    RejectedLine,
    TenantLimits,
    TenantStatus,
    UsageLine,
    UsageReply,
    UsageReport,
)

from . import wire

_Value = TypeVar("_Value")

_PERMISSIONS: Final = {member.value: member for member in Permission}
_REASONS: Final = {member.value: member for member in InactiveReason}
_EVENTS: Final = {member.value: member for member in ChangeType}
_CODES: Final = {member.value: member for member in RejectCode}


def explain(error: ValidationError) -> str:
    """Name the fields at fault and what is wrong with them; never a value, which may be a secret."""
    faults = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'the body'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    ]
    return "; ".join(faults)


def _built(build: Callable[[], _Value]) -> _Value:
    """Build a value that checks itself."""
    try:
        return build()
    except ConfigurationError as error:
        raise HubContractError(f"HiveHub's answer is out of range: {error}") from None


# --- keys ------------------------------------------------------------------------------------------------------------


def key_answer(stamp: wire.Stamped, key: wire.IntrospectedKey, service: str | None) -> KeyAnswer:
    """Return what a hub said about one key."""
    return KeyAnswer(epoch=stamp.epoch, revision=stamp.revision, now_us=stamp.now, key=key_state(key.root, service))


def batch_answer(reply: wire.IntrospectedKeys, service: str | None) -> BatchAnswer:
    """Return what a hub said about several keys."""
    keys = tuple(key_state(key, service) for key in reply.results)
    return BatchAnswer(epoch=reply.epoch, revision=reply.revision, now_us=reply.now, keys=keys)


def key_state(key: wire.ActiveKey | wire.DeadKey, service: str | None) -> KeyState:
    """Return what one key is worth to *service*.

    Raises:
        HubContractError: The hub calls a key active that belongs to another service.
    """
    if isinstance(key, wire.DeadKey):
        return InactiveKey(
            reason=_REASONS.get(key.reason, InactiveReason.UNKNOWN),
            key_id=None if key.id is None else KeyId(key.id),
            tenant_id=None if key.user_id is None else TenantId(key.user_id),
            revoked_at_us=key.revoked_at,
            not_before_us=key.not_before,
        )
    if service is not None and key.service is not None and key.service.value != service:
        raise HubContractError("HiveHub calls a key of another service active")
    return KeyRecord(
        key_id=KeyId(key.id),
        version=key.version,
        tenant_id=TenantId(key.user_id),
        name=key.name,
        permissions=frozenset(_PERMISSIONS[name] for name in key.permissions if name in _PERMISSIONS),
        functions=key.functions,
        resources=None if key.resources is None else tuple(str(rule) for rule in key.resources),
        networks=key.networks,
        environment=Environment(key.environment),
        plan=key.plan,
        created_at_us=key.created_at,
        not_before_us=key.not_before,
        expires_at_us=key.expires_at,
        current_version=key.version if key.rotation is None else key.rotation.current_version,
        overlap_until_us=None if key.rotation is None else key.rotation.overlap_until,
        unknown_restrictions=key.unknown,
    )


# --- changes ---------------------------------------------------------------------------------------------------------


def change_batch(reply: wire.Changes) -> ChangeBatch:
    """Return a poll's answer."""
    return ChangeBatch(
        epoch=reply.epoch,
        revision=reply.revision,
        now_us=reply.now,
        events=tuple(event for event in map(_event, reply.events) if event is not None),
        cursor=reply.cursor,
        more=reply.more,
        reset=reply.reset,
        spread_seconds=reply.spread_seconds,
    )


def _event(event: wire.Event) -> ChangeEvent | None:
    kind = _EVENTS.get(event.type) or _nearest(event)
    if kind is None:
        return None
    return ChangeEvent(
        revision=event.revision,
        type=kind,
        at_us=event.at,
        key_id=None if event.id is None else KeyId(event.id),
        tenant_id=None if event.user_id is None else TenantId(event.user_id),
        plan=event.plan,
        digest_prefix=event.digest_prefix,
        revoked_at_us=event.revoked_at,
        expires_at_us=event.expires_at,
    )


def _nearest(event: wire.Event) -> ChangeType | None:
    """Take a change of an unknown type for the widest one about the same thing."""
    if event.id is not None:
        return ChangeType.KEY_CHANGED
    if event.user_id is not None:
        return ChangeType.USER_CHANGED
    return ChangeType.PLAN_CHANGED if event.plan is not None else None


# --- limits ----------------------------------------------------------------------------------------------------------


def limits_answer(tenant: TenantId, reply: wire.Limits) -> LimitsAnswer:
    """Return the limits of *tenant*.

    Raises:
        HubContractError: They are another user's, or out of range.
    """
    if reply.user_id != tenant:
        raise HubContractError("HiveHub answers about another user than it was asked about")
    return LimitsAnswer(
        epoch=reply.epoch, revision=reply.revision, now_us=reply.now, limits=tenant_limits(tenant, reply)
    )


def limits_batch(tenants: Iterable[TenantId], reply: wire.LimitsPage) -> LimitsBatch:
    """Return the limits of *tenants*, in that order.

    Raises:
        HubContractError: The answer is about other users, or out of range.
    """
    asked = list(tenants)
    if [item.user_id for item in reply.items] != asked:
        raise HubContractError("HiveHub answers about other users than it was asked about")
    return LimitsBatch(
        epoch=reply.epoch,
        now_us=reply.now,
        limits=tuple(
            None if item.limits is None else tenant_limits(TenantId(item.user_id), item.limits) for item in reply.items
        ),
        revisions=tuple(item.revision for item in reply.items),
    )


def tenant_limits(tenant: TenantId, limits: wire.Limits | wire.LimitsBody) -> TenantLimits:
    """Return limits as engines read them.

    Raises:
        HubContractError: A value is out of range, or a cell is limited twice, of which one would be the looser.
    """
    cells = [(quota.dimension, quota.resource) for quota in limits.quotas]
    if len(set(cells)) != len(cells):
        raise HubContractError("HiveHub states a quota twice")
    return _built(
        lambda: TenantLimits(
            tenant_id=tenant,
            plan=limits.plan,
            status=TenantStatus(limits.status),
            rates=tuple(map(_rate, limits.rates)),
            quotas=tuple(map(_standing, limits.quotas)),
            statics=limits.static,
        )
    )


def _rate(rate: wire.Rate) -> Policy:
    return _policy(rate.name, rate.limit, max(1, round(rate.period_seconds * SECOND_US)), rate.burst, rate.scope)


@lru_cache(maxsize=4096)
def _policy(name: str, limit: int, period_us: int, burst: int | None, scope: str) -> Policy:
    """Return the one object for this policy."""
    of = Scope.TENANT if scope == "user" else Scope.KEY
    return RatePolicy(name=name, limit=limit, period_us=period_us, burst=burst, scope=of)


def _standing(quota: wire.Quota) -> QuotaStanding:
    start, end = quota.period_start, quota.resets_at
    if quota.kind == "counter" and (start is None or end is None or start >= end):
        # Without its period a count says nothing of the present one, which would then begin at zero.
        raise HubContractError("HiveHub gives a count without the period that it is of")
    limit = _limit(quota.dimension, quota.limit, quota.kind, quota.resource, quota.period, quota.zone or UTC)
    return _use(limit, quota.used, quota.own, start, end)


@lru_cache(maxsize=4096)
def _use(limit: QuotaLimit, used: int, own: int, start: int | None, end: int | None) -> QuotaStanding:
    """Return the one object for this standing: most dimensions of most tenants are not in use at all."""
    return QuotaStanding(limit=limit, used=used, own=own, period_start_us=start, resets_at_us=end)


@lru_cache(maxsize=4096)
def _limit(
    dimension: str, limit: int | None, kind: str, resource: str | None, period: str | None, zone: str
) -> QuotaLimit:
    """Return the one object for this limit: tenants are many, and plans few."""
    return QuotaLimit(
        dimension=dimension,
        limit=limit,
        kind=QuotaKind(kind),
        resource=resource,
        period=None if period is None else Period(period),
        zone=zone,
    )


# --- usage -----------------------------------------------------------------------------------------------------------


def wire_report(report: UsageReport) -> tuple[wire.Report, tuple[RejectedLine, ...]]:
    """Return *report* as it travels, the same bytes each time, and the lines that the wire cannot say.

    One such line, of a tenant without a UUID or of a resource with too long a name, must not hold up the others: it is
    as good as rejected for ever.
    """
    lines: list[wire.Line] = []
    left_out: list[RejectedLine] = []
    for index, line in enumerate(report.lines):
        try:
            lines.append(_wire_line(line))
        except ValidationError as error:
            field = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
            code = _UNSAID.get(field, RejectCode.OUT_OF_RANGE)
            left_out.append(RejectedLine(index=index, code=code, permanent=True))
    written = wire.Report(
        writer=report.writer,
        sequence=report.sequence,
        previous_sequence=report.previous_sequence,
        final=report.final,
        lines=tuple(lines),
    )
    return written, tuple(left_out)


_UNSAID: Final = {"user_id": RejectCode.UNKNOWN_USER, "dimension": RejectCode.UNKNOWN_DIMENSION}


def _wire_line(line: UsageLine) -> wire.Line:
    return wire.Line(
        user_id=line.tenant_id,
        dimension=line.dimension,
        resource=line.resource,
        kind=line.kind.value,
        value=line.value,
        period_start=line.period_start_us,
        term=line.term,
        reason=line.reason,
    )


def usage_reply(receipt: wire.Receipt, lines: int, left_out: tuple[RejectedLine, ...]) -> UsageReply:
    """Return the hub's receipt for a report of *lines* lines, *left_out* among them, as one for all of it.

    Raises:
        HubContractError: It rejects a line that was not sent.
    """
    skipped = {line.index for line in left_out}
    sent = [index for index in range(lines) if index not in skipped]
    if any(line.index >= len(sent) for line in receipt.rejected):
        raise HubContractError("HiveHub rejects a line that was not in the report")
    rejected = [
        RejectedLine(index=sent[line.index], code=_CODES.get(line.code, RejectCode.OTHER), permanent=line.permanent)
        for line in receipt.rejected
    ]
    return UsageReply(last_sequence=receipt.last_sequence, rejected=(*left_out, *rejected))
