"""What a node keeps over a restart: the values, how old they are, and limits written down as text.

The text is JSON of our own, with a version, in two parts: the numbers, which are the tenant's own, and the shape, which
it mostly shares with its plan. Tenants of one plan have one shape, which is compressed and read once and then found
again by its bytes. No library serves: pydantic would be loaded by whoever opens a file, and builds the plan anew for
each tenant.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final, NamedTuple

from hivetenancy.clock import Instant
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Policy, QuotaKind, QuotaLimit, RatePolicy, Scope
from hivetenancy.sources import QuotaStanding, TenantLimits, TenantStatus

ROW_VERSION: Final = 1
"""Of the text. A row of another version is passed over, so its tenant is unknown until somebody asks for it."""

UNKNOWN_AGE_US: Final = 2**63 - 1
"""The age of what cannot be dated: older than any allowance."""

# --- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLimits:
    """Limits of a tenant as they were learnt.

    Attributes:
        limits: The limits.
        epoch: Epoch of the answer.
        revision: Revision of the answer.
        sent_us: Wall time at which the question was **sent**; 0 where that is not known any more.

    Raises:
        ValueError: *sent_us* is no time.
    """

    limits: TenantLimits
    epoch: int
    revision: int
    sent_us: int

    def __post_init__(self) -> None:
        check_time("sent_us", self.sent_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPlace:
    """How far the change feed was followed.

    Attributes:
        epoch: Epoch of the feed.
        cursor: Where to go on.
        revision: Everything up to here was applied.
    """

    epoch: int
    cursor: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnnouncement:
    """What the hub announced last. What it announced once and is missing later is an outage, not a change of strategy.

    Attributes:
        hub_id: Which hub.
        epoch: Its epoch.
        extensions: What it could do.
    """

    hub_id: str
    epoch: int
    extensions: frozenset[str] = frozenset()


class UsageCell(NamedTuple):
    """A cell of usage: the resource is ``None`` for the tenant as a whole."""

    tenant: TenantId
    dimension: Dimension
    resource: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A call to the hub whose outcome is not known, frozen as it was first sent.

    Attributes:
        id: Its idempotency key, or a name of the caller's.
        first_sent_us: Wall time at which it was first sent.
        body: What was sent, to the byte. Must not hold a secret: it is written as it is.
    """

    id: str
    first_sent_us: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What the file held when it was opened.

    Attributes:
        hub_id: Which hub it is of; ``None``: it is new, and no hub is known yet.
        announcement: What that hub announced last.
        place: How far the feed was followed; ``None``: begin anew, with everything doubtful.
        limits: Limits by tenant, read when they are asked for. Whether some are young enough to serve, `age_us` tells.
        digests: Digests of keys that were known, the last seen first. None may be accepted before the hub has said so.
        forgotten: Rows that were damaged or of another version, and count as never kept.
    """

    hub_id: str | None
    announcement: KeptAnnouncement | None = None
    place: FeedPlace | None = None
    limits: Mapping[TenantId, KeptLimits] = field(default_factory=dict, repr=False)
    digests: tuple[bytes, ...] = field(default=(), repr=False)
    forgotten: int = 0


def age_us(kept: KeptLimits, now: Instant) -> int:
    """Return the age of *kept* by the wall clock, counted from the sending of the question.

    Returns:
        Microseconds; `UNKNOWN_AGE_US` where *kept* cannot be dated or lies in the future, so never less than it is.
    """
    age = now[1] - kept.sent_us
    return age if age >= 0 and kept.sent_us else UNKNOWN_AGE_US


# --- limits as text --------------------------------------------------------------------------------------------------

_POLICIES: Final[Mapping[str, type[Policy]]] = {
    "rate": RatePolicy,
    "calendar": CalendarPolicy,
    "concurrency": ConcurrencyPolicy,
}
_NO_TEXT: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError, zlib.error)
"""What reading something else than our text raises; a policy that cannot be built here any more is a `ValueError`."""

_POLICY_NAMES: Final = {kind: name for name, kind in _POLICIES.items()}


class _Shape(NamedTuple):
    plan: str
    status: TenantStatus
    rates: tuple[Policy, ...]
    quotas: tuple[QuotaLimit, ...]
    statics: Mapping[Dimension, int]


def encode_limits(kept: KeptLimits) -> bytes:
    """Write down everything of *kept* but the time of its sending; `decode_limits` reads it."""
    limits = kept.limits
    own = {
        "v": ROW_VERSION,
        "tenant": limits.tenant_id,
        "epoch": kept.epoch,
        "revision": kept.revision,
        "standings": [[s.used, s.own, s.period_start_us, s.resets_at_us] for s in limits.quotas],
    }
    quotas = tuple([standing.limit for standing in limits.quotas])
    shape = _shape_text(limits.plan, limits.status, limits.rates, quotas, tuple(limits.statics.items()))
    return as_json(own) + b"\n" + shape


def decode_limits(body: bytes, sent_us: int) -> KeptLimits | None:
    """Read what `encode_limits` wrote; ``None`` for another version or something else altogether."""
    head, _, packed = body.partition(b"\n")
    try:
        own = json.loads(head)
        if own["v"] != ROW_VERSION:
            return None
        shape = _shape(packed)
        numbers = zip(shape.quotas, own["standings"], strict=True)
        limits = TenantLimits(
            tenant_id=TenantId(own["tenant"]),
            plan=shape.plan,
            status=shape.status,
            rates=shape.rates,
            quotas=tuple([_standing(limit, *each) for limit, each in numbers]),
            statics=shape.statics,
        )
        return KeptLimits(limits=limits, epoch=own["epoch"], revision=own["revision"], sent_us=sent_us)
    except _NO_TEXT:
        return None


def can_decode(body: bytes) -> bool:
    """Tell whether `decode_limits` can read *body*, by its version and shape, at a fiftieth of the cost."""
    head, _, packed = body.partition(b"\n")
    try:
        return head.startswith(b'{"v":%d,' % ROW_VERSION) and _shape(packed) is not None
    except _NO_TEXT:
        return False


class KeptTenants(Mapping[TenantId, KeptLimits]):
    """Limits by tenant, each read when it is asked for, every time anew.

    Reading takes some 75 us a tenant and makes some 30 objects, so a node that knew 100,000 tenants would start
    seconds later, and keep what nobody asks for.

    Args:
        rows: Time of sending and text by tenant, all of them such that `can_decode`.
    """

    def __init__(self, rows: Mapping[TenantId, tuple[int, bytes]]) -> None:
        self._rows = rows

    def __getitem__(self, tenant: TenantId) -> KeptLimits:
        sent_us, body = self._rows[tenant]
        kept = decode_limits(body, sent_us)
        if kept is None:
            raise KeyError(tenant)
        return kept

    def plans(self) -> dict[TenantId, str]:
        """Return the plan of each tenant."""
        return {tenant: _shape(body.partition(b"\n")[2]).plan for tenant, (_, body) in self._rows.items()}

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._rows

    def __iter__(self) -> Iterator[TenantId]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<KeptTenants: {len(self)}>"


def plans_of(limits: Mapping[TenantId, KeptLimits]) -> dict[TenantId, str]:
    """Return the plan of each tenant. Of `KeptTenants` without reading the limits, at a fiftieth of the cost."""
    if not isinstance(limits, KeptTenants):
        return {tenant: kept.limits.plan for tenant, kept in limits.items()}
    return limits.plans()


def _standing(limit: QuotaLimit, used: int, own: int, start: int | None, end: int | None) -> QuotaStanding:
    return QuotaStanding(limit=limit, used=used, own=own, period_start_us=start, resets_at_us=end)


def _as_dict(value: Policy | QuotaLimit) -> dict[str, object]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


@lru_cache(maxsize=4096)
def _shape_text(
    plan: str,
    status: TenantStatus,
    rates: tuple[Policy, ...],
    quotas: tuple[QuotaLimit, ...],
    statics: tuple[tuple[Dimension, int], ...],
) -> bytes:
    shape = {
        "plan": plan,
        "status": status,
        "rates": [{"policy": _POLICY_NAMES[type(policy)], **_as_dict(policy)} for policy in rates],
        "quotas": [_as_dict(quota) for quota in quotas],
        "statics": dict(statics),
    }
    return zlib.compress(as_json(shape), 1)


@lru_cache(maxsize=4096)
def _shape(packed: bytes) -> _Shape:
    read = json.loads(zlib.decompress(packed))
    return _Shape(
        plan=read["plan"],
        status=TenantStatus(read["status"]),
        rates=tuple(_policy(**row) for row in read["rates"]),
        quotas=tuple(_quota(**row) for row in read["quotas"]),
        statics=read["statics"],
    )


def _policy(policy: str, scope: str, period: str | None = None, **rest: Any) -> Policy:
    if period is not None:
        rest["period"] = Period(period)
    return _POLICIES[policy](scope=Scope(scope), **rest)


def _quota(kind: str, period: str | None, **rest: Any) -> QuotaLimit:
    return QuotaLimit(kind=QuotaKind(kind), period=None if period is None else Period(period), **rest)


def as_json(value: object) -> bytes:
    """Write *value* as compact JSON in ASCII, lone surrogates included."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def check_time(what: str, value: int) -> None:
    """Refuse what is no wall time in microseconds."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{what} must be microseconds since 1970, got {value!r}")
