"""Plans: rate policies, quota limits and static limits, as the authority states them.

Everything is validated when built and never changes afterwards; a new plan is a new object. A rate policy states its
own bound, the most it admits in any span of time, in words (`bound`) and as a number (`admits_at_most`); a property
test holds every engine to that number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension
from hivetenancy.periods import UTC, Period, zone

MAX_AMOUNT: Final = 2**53
"""Amounts stay below this, so that they survive JSON readers and Redis scripts that count in doubles."""

ANY_RESOURCE: Final = "*"
"""As the resource of a `QuotaLimit`: each resource of the dimension has a cell, and this limit, of its own."""


class Scope(StrEnum):
    """Who shares the units of a rate policy: all keys of a tenant, or one key."""

    TENANT = "tenant"
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePolicy:
    """At most *limit* units a period: a token bucket with a burst, a sliding window without one.

    With a burst the policy is a token bucket (GCRA): *burst* units at once, refilled evenly with *limit* units a
    period. Without one it is a sliding window: never more than *limit* units in any span of *period_us*, the whole
    limit at once if it is free.

    Attributes:
        limit: Units a period, at least 1.
        period_us: The period in microseconds, at least 1.
        burst: Units that may pass at once after a rest; ``None`` makes it a sliding window.
        name: What headers and refusals call the policy: 1-64 of ``a-z 0-9 - _ .``.
        scope: Whether the tenant or each key has the units.

    Raises:
        ConfigurationError: A value is out of range.
    """

    limit: int
    period_us: int
    burst: int | None = None
    name: str = "default"
    scope: Scope = Scope.TENANT

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_range("limit", self.limit, 1)
        _check_range("period_us", self.period_us, 1)
        if self.burst is not None:
            _check_range("burst", self.burst, 1)

    @property
    def capacity(self) -> int:
        """The most units that one call can ever take."""
        return self.limit if self.burst is None else self.burst

    def admits_at_most(self, span_us: int) -> int:
        """Return the most units admitted within any half-open span of *span_us* microseconds, at least 1."""
        if self.burst is None:
            return self.limit * -(-span_us // self.period_us)
        return self.burst + span_us * self.limit // self.period_us

    def bound(self) -> str:
        """Return the bound in words."""
        seconds = self.period_us / SECOND_US
        if self.burst is None:
            return f"never more than {self.limit} in any {seconds:g} s"
        return f"never more than {self.burst} + {self.limit / seconds:g} x t in any t seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarPolicy:
    """At most *limit* units in each calendar period of a named zone; all of them return when the period ends.

    Attributes:
        limit: Units a period, at least 1.
        period: Hour, day or month.
        zone: IANA name of the time zone whose calendar counts.
        name: What headers and refusals call the policy.
        scope: Whether the tenant or each key has the units.

    Raises:
        ConfigurationError: A value is out of range, or the zone is unknown here.
    """

    limit: int
    period: Period
    zone: str = UTC
    name: str = "calendar"
    scope: Scope = Scope.TENANT

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_range("limit", self.limit, 1)
        zone(self.zone)

    @property
    def capacity(self) -> int:
        """The most units that one call can ever take."""
        return self.limit

    def bound(self) -> str:
        """Return the bound in words."""
        return f"never more than {self.limit} in any calendar {self.period.value} ({self.zone})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyPolicy:
    """At most *limit* calls at the same moment, whatever each costs; a slot comes back when its call has ended.

    Attributes:
        limit: Calls at once; with 0 nothing passes.
        name: What headers and refusals call the policy.
        scope: Whether the tenant or each key has the units.

    Raises:
        ConfigurationError: A value is out of range.
    """

    limit: int
    name: str = "in-flight"
    scope: Scope = Scope.TENANT

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_range("limit", self.limit, 0)

    def bound(self) -> str:
        """Return the bound in words."""
        return f"never more than {self.limit} at the same moment"


Policy: TypeAlias = RatePolicy | CalendarPolicy | ConcurrencyPolicy
"""Any rule of a `RateLimits`."""


class RateLimits:
    """Several policies that are decided together, all or nothing.

    Compared and hashed by identity, so that an engine finds what it compiled for it with one cheap look-up; build one
    with `RateLimits.of`, which gives the same object for equal policies.
    """

    __slots__ = ("__weakref__", "policies")

    policies: tuple[Policy, ...]

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(policies)
        names = [policy.name for policy in self.policies]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"rate policies need different names, got {names}")

    def __repr__(self) -> str:
        return f"RateLimits({', '.join(f'{policy.name}: {policy.bound()}' for policy in self.policies)})"

    @staticmethod
    def of(policies: Iterable[Policy]) -> RateLimits:
        """Return the one object for these policies, in this order.

        Raises:
            ConfigurationError: Two policies have one name.
        """
        key = tuple(policies)
        found = _interned.get(key)
        if found is None:
            if len(_interned) >= _INTERNED_MAX:
                _interned.clear()  # only costs a recompilation; plans are few, individual limits may be many
            found = _interned[key] = RateLimits(key)
        return found


_INTERNED_MAX: Final = 4096
_interned: dict[tuple[Policy, ...], RateLimits] = {}

NO_RATE_LIMITS: Final = RateLimits(())
"""No policy at all: everything passes."""


class QuotaKind(StrEnum):
    """How a dimension behaves, as the wire names it (HiveHub wire 4.5)."""

    COUNTER = "counter"
    """Counter of a period: only grows, starts anew with the period."""
    CONTRIBUTION = "contribution"
    """Durable gauge that we count: grows with writes, shrinks with deletes."""
    LEVEL = "level"
    """Durable gauge that is measured."""
    EPHEMERAL = "ephemeral"
    """Gauge of the moment, such as open connections; gone with the process."""
    STATIC = "static"
    """A limit on one value, such as the longest TTL; nothing is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionSpec:
    """What a dimension is.

    Attributes:
        name: The dimension.
        unit: What one unit is, for people.
        kind: How it behaves.
        period: The calendar period of a counter; ``None`` for the other kinds.

    Raises:
        ConfigurationError: A counter without period, or a period on something else.
    """

    name: Dimension
    unit: str
    kind: QuotaKind
    period: Period | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_period(self.kind, self.period, self.name)


def _canonical() -> Mapping[Dimension, DimensionSpec]:
    gauge, counter, moment, static = (
        QuotaKind.CONTRIBUTION,
        QuotaKind.COUNTER,
        QuotaKind.EPHEMERAL,
        QuotaKind.STATIC,
    )
    rows: list[tuple[str, str, QuotaKind]] = [
        ("storage_bytes", "logical bytes", gauge),
        ("backup_bytes", "logical bytes", gauge),
        *[(name, name, gauge) for name in ("keys", "collections", "vectors", "nodes", "relationships")],
        ("queues", "queues", gauge),
        ("streams", "streams", gauge),
        *[(name, name, counter) for name in ("operations", "searches", "tokens", "credits")],
        ("egress_bytes", "bytes", counter),
        ("connections", "connections", moment),
        ("requests_in_flight", "requests", moment),
        ("max_payload_bytes", "bytes", static),
        ("max_batch", "items", static),
        ("max_ttl_seconds", "seconds", static),
    ]
    return MappingProxyType(
        {
            name: DimensionSpec(name=name, unit=unit, kind=kind, period=Period.MONTH if kind is counter else None)
            for name, unit, kind in rows
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimit:
    """The limit of one dimension, for the tenant as a whole, for one resource, or for each resource alike.

    Attributes:
        dimension: The dimension.
        limit: In the unit of the dimension, at least 0; ``None``: counted without limit.
        kind: How the dimension behaves.
        resource: ``None`` for the tenant as a whole, a resource's name, or `ANY_RESOURCE`.
        period: The calendar period of a counter; ``None`` for the other kinds.
        zone: IANA name of the time zone whose calendar the period follows.

    Raises:
        ConfigurationError: A value is out of range, or kind and period do not fit.
    """

    dimension: Dimension
    limit: int | None
    kind: QuotaKind
    resource: str | None = None
    period: Period | None = None
    zone: str = UTC

    def __post_init__(self) -> None:
        _check_name(self.dimension)
        if self.limit is not None:
            _check_range("limit", self.limit, 0)
        _check_period(self.kind, self.period, self.dimension)
        zone(self.zone)


def quota_limit(name: Dimension, limit: int | None, *, resource: str | None = None) -> QuotaLimit:
    """Return the `QuotaLimit` of a canonical dimension.

    Raises:
        ConfigurationError: *name* is not canonical; build a `QuotaLimit` for a dimension of your own.
    """
    spec = CANONICAL.get(name)
    if spec is None:
        raise ConfigurationError(f"{name!r} is no canonical dimension; build a QuotaLimit and state its kind")
    return QuotaLimit(dimension=name, limit=limit, kind=spec.kind, period=spec.period, resource=resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a tenant on this plan may do and hold.

    Attributes:
        name: The plan's name.
        rates: Rate policies, with different names.
        quotas: Quota limits; a dimension that is not among them has a limit of zero.
        statics: Static limits by dimension; one that is not among them is not limited.

    Raises:
        ConfigurationError: Two policies have one name, two limits one cell, or a static limit is negative.
    """

    name: str
    rates: tuple[Policy, ...] = ()
    quotas: tuple[QuotaLimit, ...] = ()
    statics: Mapping[Dimension, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        RateLimits(self.rates)
        cells = [(quota.dimension, quota.resource) for quota in self.quotas]
        if len(set(cells)) != len(cells):
            raise ConfigurationError(f"plan {self.name!r} states a quota twice")
        for dimension, limit in self.statics.items():
            _check_range(dimension, limit, 0)
        object.__setattr__(self, "statics", MappingProxyType(dict(self.statics)))


def _check_name(name: str) -> None:
    if not (1 <= len(name) <= 64 and all(c.isascii() and (c.islower() or c.isdigit() or c in "-_.") for c in name)):
        raise ConfigurationError(f"the name {name!r} must be 1-64 of a-z, 0-9, '-', '_' and '.'")


def _check_range(what: str, value: int, least: int) -> None:
    if type(value) is not int or not least <= value < MAX_AMOUNT:
        raise ConfigurationError(f"{what} must be a whole number from {least} to 2**53 - 1, got {value!r}")


def _check_period(kind: QuotaKind, period: Period | None, what: str) -> None:
    if (kind is QuotaKind.COUNTER) != (period is not None):
        raise ConfigurationError(f"{what}: a counter needs a period, and nothing else has one")


CANONICAL: Final = _canonical()
"""The canonical dimensions by name (architecture, section 4)."""
