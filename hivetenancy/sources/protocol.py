"""The four questions to a control plane, and the values of their answers.

Order is what makes them safe (HiveHub wire 4.2). Every change of the hub has a *revision*; every answer carries the
*epoch* and the *revision* that it was taken at, and *now*, the hub's wall clock. A caller that knows of a later change
asks again with ``min_revision``; the source answers at or above it or raises `HubUnavailableError`. An *epoch* is
larger whenever acknowledged history may have been lost.

All times are wall microseconds of the hub. No value here holds a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from hivetenancy.clock import Instant
from hivetenancy.ids import Dimension, Environment, KeyId, Permission, TenantId
from hivetenancy.plans import NO_RATE_LIMITS, ConcurrencyPolicy, Policy, QuotaKind, QuotaLimit, RateLimits, Scope

# --- keys ------------------------------------------------------------------------------------------------------------


class InactiveReason(StrEnum):
    """Why a key is not active (HiveHub wire 4.3). Never shown to a caller."""

    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SUSPENDED = "suspended"
    UNOWNED = "unowned"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An active key, as the hub describes it (HiveHub wire 4.3).

    Attributes:
        key_id: The public id; stays the same over rotations.
        version: Which version of the secret was presented.
        tenant_id: The owner.
        name: The owner's name for the key.
        permissions: The wire permissions, never empty.
        functions: The function allow list as written; ``None``: no list, ``()``: nothing.
        resources: Resource rules; ``None``: none. A validator that cannot enforce them refuses the key.
        networks: Networks the key is confined to; likewise.
        environment: Live or test.
        plan: Name of the owner's plan.
        created_at_us: When it was issued.
        not_before_us: Not valid before; ``None``: at once.
        expires_at_us: Not valid from then on; ``None``: no end.
        current_version: The newest version, larger than *version* while an old secret is in its overlap.
        overlap_until_us: When older versions end; ``None`` outside a rotation.
        unknown_restrictions: Names of what else the hub says about the key and this version does not know. It may
            confine the key, so a validator refuses it.
    """

    key_id: KeyId
    version: int
    tenant_id: TenantId
    name: str
    permissions: frozenset[Permission]
    functions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    networks: tuple[str, ...]
    environment: Environment
    plan: str
    created_at_us: int
    not_before_us: int | None
    expires_at_us: int | None
    current_version: int
    overlap_until_us: int | None
    unknown_restrictions: tuple[str, ...] = ()

    @property
    def ends_at_us(self) -> int | None:
        """When this very secret stops to count: its expiry, or the end of its overlap if that is earlier."""
        ends = [self.expires_at_us]
        if self.version < self.current_version:
            ends.append(self.overlap_until_us if self.overlap_until_us is not None else 0)
        known = [end for end in ends if end is not None]
        return min(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class InactiveKey:
    """A key that is not active.

    Attributes:
        reason: Why.
        key_id: The key, unless it is unknown.
        tenant_id: The owner, unless unknown or unowned.
        revoked_at_us: When it was revoked, if it was.
        not_before_us: When it will be valid, if that is the reason.
    """

    reason: InactiveReason
    key_id: KeyId | None = None
    tenant_id: TenantId | None = None
    revoked_at_us: int | None = None
    not_before_us: int | None = None


KeyState: TypeAlias = KeyRecord | InactiveKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAnswer:
    """One key, from one snapshot of the hub."""

    epoch: int
    revision: int
    now_us: int
    key: KeyState


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """Several keys, in the order asked, from one snapshot of the hub."""

    epoch: int
    revision: int
    now_us: int
    keys: tuple[KeyState, ...]


class IntrospectionSource(Protocol):
    """Tells what a key is. The authority behind every `AccessKeyValidator`."""

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Describe the key *credential*.

        Args:
            credential: The key as presented; must never be kept, logged or put into a URL.
            min_revision: Answer from this revision or a later one.
            epoch: The epoch that *min_revision* belongs to.

        Raises:
            HubUnavailableError: No answer, or none recent enough.
            HubContractError: The hub answered outside the wire.
        """
        ...

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Describe up to 1,000 keys by their digests (`hivetenancy.access_keys.format.digest`).

        Raises:
            HubUnavailableError: No answer, or none recent enough.
            HubContractError: The hub answered outside the wire.
        """
        ...


# --- changes ---------------------------------------------------------------------------------------------------------


class ChangeType(StrEnum):
    """What happened at the hub (HiveHub wire 4.4)."""

    KEY_CREATED = "key_created"
    KEY_ROTATED = "key_rotated"
    KEY_CHANGED = "key_changed"
    KEY_REVOKED = "key_revoked"
    USER_CHANGED = "user_changed"
    USER_SUSPENDED = "user_suspended"
    USER_RESUMED = "user_resumed"
    USER_DELETING = "user_deleting"
    USER_DELETED = "user_deleted"
    LIMITS_CHANGED = "limits_changed"
    PLAN_CHANGED = "plan_changed"
    SERVICE_KEY_ROTATED = "service_key_rotated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent:
    """One change.

    Attributes:
        revision: Its place in the hub's order.
        type: What happened.
        at_us: When.
        key_id: The key, for events about one.
        tenant_id: The tenant, for events about one or about its key.
        plan: The plan, for ``plan_changed``.
        digest_prefix: First 16 hex digits of the new secret's digest, for ``key_created`` and ``key_rotated``.
        revoked_at_us: For ``key_revoked``.
        expires_at_us: For ``service_key_rotated``: when the old one ends.
    """

    revision: int
    type: ChangeType
    at_us: int
    key_id: KeyId | None = None
    tenant_id: TenantId | None = None
    plan: str | None = None
    digest_prefix: str | None = None
    revoked_at_us: int | None = None
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBatch:
    """What happened since a cursor.

    Attributes:
        epoch: Epoch of the answer.
        revision: Everything up to here is visible.
        now_us: The hub's clock.
        events: At most 1,000, in order of revision unless the hub says otherwise; apply whatever order they come in.
        cursor: Where to go on.
        more: Whether more is waiting.
        reset: Whether the cursor was not understood: everything kept must be verified again.
        spread_seconds: Over how long to spread that verification.
    """

    epoch: int
    revision: int
    now_us: int
    events: tuple[ChangeEvent, ...]
    cursor: str
    more: bool = False
    reset: bool = False
    spread_seconds: int = 0


class ChangeSource(Protocol):
    """Tells what changed."""

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Return what happened since *cursor*, waiting up to *wait_seconds* (0-25) for something to happen.

        A poll without cursor answers at once, with the present revision and no events.

        Raises:
            HubUnavailableError: No answer.
            HubContractError: The hub answered outside the wire.
        """
        ...


class SignalsChanges(Protocol):
    """Optional ability of a `ChangeSource` that lives in this process: changes are there the moment they are made."""

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake*, in the thread of whoever makes a change, after each one; return a function that ends it."""
        ...

    def try_changes(self, cursor: str | None) -> ChangeBatch | None:
        """Answer as `ChangeSource.changes` without waiting; ``None`` while the hub is out of reach."""
        ...


# --- limits ----------------------------------------------------------------------------------------------------------


IN_FLIGHT_DIMENSION: Final = "requests_in_flight"
IN_FLIGHT_POLICY: Final = "requests-in-flight"
"""Name of the policy that a limit of ``requests_in_flight`` becomes."""


class TenantStatus(StrEnum):
    """Where a tenant stands in its life (HiveHub wire 4.5)."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStanding:
    """A quota limit and how much of it the hub knows to be used.

    The part that counts here is ``used - own`` plus everything that our own sources ever recorded, reported or not:
    exact under stale, late and repeated answers (HiveHub wire 4.5).

    Attributes:
        limit: The limit, with its kind and period.
        used: What the hub has counted, from everybody; may be negative.
        own: The part of *used* that came from the sources named in the question.
        period_start_us: Start of the period the numbers are of; ``None`` for a gauge.
        resets_at_us: End of that period.
    """

    limit: QuotaLimit
    used: int = 0
    own: int = 0
    period_start_us: int | None = None
    resets_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """Everything that limits one tenant, from one snapshot of the hub.

    How many requests are served at once is a matter for the rate limiter, which frees a slot when its request ends.
    So a quota of ``requests_in_flight`` that has a limit also stands in *tenant_rates*, as a concurrency limit called
    ``requests-in-flight``, unless a policy of that name is stated.

    Attributes:
        tenant_id: The tenant.
        plan: Name of its plan.
        status: Where it stands in its life.
        rates: Rate policies of both scopes.
        quotas: Quota limits with their standings.
        statics: Static limits by dimension.
        tenant_rates: The policies that all keys share, ready for an engine, the limit of requests in flight included.
        key_rates: The policies that each key has of its own.
    """

    tenant_id: TenantId
    plan: str
    status: TenantStatus = TenantStatus.ACTIVE
    rates: tuple[Policy, ...] = ()
    quotas: tuple[QuotaStanding, ...] = ()
    statics: Mapping[Dimension, int] = field(default_factory=dict)
    tenant_rates: RateLimits = field(init=False, repr=False, compare=False, default=NO_RATE_LIMITS)
    key_rates: RateLimits = field(init=False, repr=False, compare=False, default=NO_RATE_LIMITS)

    def __post_init__(self) -> None:
        policies = (*self.rates, *self._in_flight())
        for name, scope in (("tenant_rates", Scope.TENANT), ("key_rates", Scope.KEY)):
            mine = RateLimits.of(policy for policy in policies if policy.scope is scope)
            object.__setattr__(self, name, mine)
        object.__setattr__(self, "statics", MappingProxyType(dict(self.statics)))

    def _in_flight(self) -> tuple[ConcurrencyPolicy, ...]:
        if any(policy.name == IN_FLIGHT_POLICY for policy in self.rates):
            return ()
        for quota in (standing.limit for standing in self.quotas):
            ours = quota.dimension == IN_FLIGHT_DIMENSION and quota.kind is QuotaKind.EPHEMERAL
            if ours and quota.resource is None and quota.limit is not None:
                return (ConcurrencyPolicy(name=IN_FLIGHT_POLICY, limit=quota.limit),)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsAnswer:
    """The limits of one tenant; ``None`` where the hub knows no such tenant."""

    epoch: int
    revision: int
    now_us: int
    limits: TenantLimits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsBatch:
    """The limits of several tenants in the order asked, each with the revision it was taken at."""

    epoch: int
    now_us: int
    limits: tuple[TenantLimits | None, ...]
    revisions: tuple[int, ...]


class LimitsSource(Protocol):
    """Tells what a tenant may do and hold, and what it has used."""

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """Return the limits of *tenant*; *sources* (at most 64) are those whose share is wanted as ``own``.

        Raises:
            HubUnavailableError: No answer, or none recent enough.
            HubContractError: The hub answered outside the wire.
        """
        ...

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Return the limits of up to 1,000 tenants; otherwise as `limits`."""
        ...


class LimitsView(Protocol):
    """What engines and the gate read limits from: memory in front of a `LimitsSource`, or limits stated in code.

    A `TenantLimits` is a new object exactly when something about it may have changed, so identity tells.
    """

    def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant* from memory; ``None`` where only a fetch can tell.

        Raises:
            UnavailableError: A fetch was tried a moment ago and could not tell.
        """
        ...

    async def limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant*, fetched if need be; ``None``: no such tenant.

        Raises:
            UnavailableError: The source cannot tell.
        """
        ...


# --- usage -----------------------------------------------------------------------------------------------------------


class UsageKind(StrEnum):
    """How the hub must treat the value of a line (HiveHub wire 4.6)."""

    COUNTER = "counter"
    """Running total within its period; never falls."""
    CONTRIBUTION = "contribution"
    """Signed net of what went through this source; summed over sources, never clamped."""
    LEVEL = "level"
    """A measurement; replaced only by one of a higher term, never summed."""
    CORRECTION = "correction"
    """Signed running total of what belongs to a period that was closed, booked in the open one, with its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """The running total of one cell in one report (HiveHub wire 4.6).

    Attributes:
        tenant_id: The tenant.
        dimension: What was counted.
        resource: Of which resource; ``None``: of the tenant as a whole.
        kind: How the hub must treat the value.
        value: The total, ``abs(value) < 2**53``.
        period_start_us: Start of the period that a counter or a counter's correction is booked in; ``None`` for a
            gauge.
        term: For a level: the fencing number of the reporter that measured it.
        reason: For a correction: why.
    """

    tenant_id: TenantId
    dimension: Dimension
    resource: str | None
    kind: UsageKind
    value: int
    period_start_us: int | None = None
    term: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Running totals of one source. Sent again unchanged until its outcome is known.

    Attributes:
        source: 32 hex digits, made with the totals and lost with them.
        writer: Random for each start of a process.
        sequence: Rises with each report of the source.
        previous_sequence: What the source last saw acknowledged; 0 at first.
        lines: At most 1,000.
        final: Whether the source is closed with this report; its values stay counted.
    """

    source: str
    writer: str
    sequence: int
    previous_sequence: int
    lines: tuple[UsageLine, ...]
    final: bool = False


class RejectCode(StrEnum):
    """Why a line was not applied (HiveHub wire 4.6).

    ``period_not_open`` and ``busy`` are passing, ``other`` is what the hub says it is, the rest is permanent.
    """

    UNKNOWN_USER = "unknown_user"
    UNKNOWN_DIMENSION = "unknown_dimension"
    KIND_MISMATCH = "kind_mismatch"
    REGRESSED = "regressed"
    OUT_OF_RANGE = "out_of_range"
    DUPLICATE_LINE = "duplicate_line"
    PERIOD_CLOSED = "period_closed"
    PERIOD_NOT_OPEN = "period_not_open"
    BUSY = "busy"
    OTHER = "other"
    """A code that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedLine:
    """A line of a report that was not applied, though the report was."""

    index: int
    code: RejectCode
    permanent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReply:
    """The hub's receipt: it acknowledges the lines of this report, but for the rejected ones."""

    last_sequence: int
    rejected: tuple[RejectedLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConflict:
    """The hub's stored sequence fits neither this report nor its predecessor; nothing was changed."""

    last_sequence: int


class UsageSink(Protocol):
    """Takes usage reports. Cumulative, so that receiving one twice counts once."""

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Apply *report* once, however often it is sent.

        Raises:
            HubUnavailableError: The outcome is unknown; send the very same report again.
            HubContractError: The hub answered outside the wire.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePart:
    """How one part of a control plane elsewhere is doing.

    Attributes:
        name: Such as ``hub keys``.
        ok: Whether it does what it should.
        why: What is wrong, or in which way it works; never a secret.
    """

    name: str
    ok: bool
    why: str = ""


class RemoteHub(Protocol):
    """Optional ability of a `ControlPlane` that lives elsewhere: it is verified before anything is asked of it."""

    async def open(self) -> None:
        """Ask the hub what it is, prove the service key, and choose how each question is answered. Again if need be.

        Raises:
            ConfigurationError: The hub answered, and cannot or must not be used as configured; the message says how.
            HubUnavailableError: The hub cannot be reached.
        """
        ...

    async def run(self) -> None:
        """Ask now and then whether the hub is what it was, until cancelled; also opens one that was away at start."""
        ...

    async def aclose(self) -> None:
        """Close connections. The hub may be opened again."""
        ...

    def parts(self) -> tuple[SourcePart, ...]:
        """Return how each part is doing. Memory only."""
        ...


class ControlPlane(IntrospectionSource, ChangeSource, LimitsSource, UsageSink, Protocol):
    """All four questions in one object: a fake in memory, a local authority, or HiveHub."""

    @property
    def hub_id(self) -> str:
        """Which hub this is; state on disk is stamped with it."""
        ...
