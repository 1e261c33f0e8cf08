"""The arithmetic of a quota cell: what is free, what was spent here, what the hub knows beside it.

A cell is (tenant, dimension, resource or none). It keeps what is *free*, not what is held, so that a reservation
and its commit each write one number: reserving takes from what is free, releasing gives it back, and committing
moves from held to used, which leaves what is free as it was. What is held follows from the others::

    used = base + total                 base: what the hub knows of others; total: everything ever booked here
    held = limit - used - free

**The hub's word is merged, never copied.** The hub's ``used`` contains a part that came from us, ``own``; how large
a part depends on which of our reports had arrived when it answered. So ``base = used - own``, and our own total is
added whole, reported or not: exact under stale, late and repeated answers (HiveHub wire 4.5). Merging by time stamp
went over the limit in 999 of 1,000 simulated runs.

**The sign is kept.** A credit for what was never charged leaves the cell below zero: a drift that the next facts
even out. It is shown as 0, and lets nobody in: the room is counted from 0.

**A period is a cell of its own.** Nothing is reset; another start of the period is another cell. Facts are booked
whatever the limit says; only a new hold is ever refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from hivetenancy.decision import Reason, Refusal
from hivetenancy.ids import CellKey, Dimension, TenantId
from hivetenancy.periods import bounds
from hivetenancy.plans import ANY_RESOURCE, CANONICAL, QuotaKind, QuotaLimit
from hivetenancy.sources import QuotaStanding, TenantLimits

from .protocol import CellSnapshot

UNLIMITED: Final = 1 << 62
"""The ceiling of a cell without limit: far beyond any amount, so that one comparison serves both."""

PERIODS_KEPT: Final = 3
"""Earlier periods that a counter keeps, for a wall clock that is set back (one is left for each forward jump)."""

_NEVER: Final = -(1 << 62)
_ALWAYS: Final = 1 << 62

_STATIC_REASONS: Final = {"max_payload_bytes": Reason.PAYLOAD_TOO_LARGE, "max_batch": Reason.BATCH_TOO_LARGE}


class Terms:
    """A `QuotaLimit`, ready for the arithmetic. Cells of many tenants share one."""

    __slots__ = ("ceiling", "counts", "declared", "dimension", "kind", "limit", "source")

    def __init__(self, source: QuotaLimit, *, declared: bool = True) -> None:
        self.source = source
        self.declared = declared
        self.limit = source.limit if declared else 0
        self.ceiling = UNLIMITED if self.limit is None else self.limit
        self.dimension = source.dimension
        self.kind = source.kind
        # What an ephemeral gauge counts ends with its reservation, so a commit frees it and books nothing.
        self.counts = source.kind is not QuotaKind.EPHEMERAL


@lru_cache(maxsize=4096)
def terms_of(limit: QuotaLimit, *, declared: bool = True) -> Terms:
    """Return the terms of *limit*; of zero if the dimension is no longer *declared* for the tenant."""
    return Terms(limit, declared=declared)


class Cell:
    """A durable gauge of a tenant as a whole, and the base of the other kinds.

    Attributes:
        base: What the hub knows beyond our own part: its ``used - own``.
        total: Everything ever booked here, signed.
        free: What a reservation could still take; below 0 after an overrun or a lowered limit.
        terms: The limit, with its kind.
        limits: What the cell was last brought in line with; ``None``: look again at the next use.
        resource: The resource, ``None`` for the tenant as a whole.
        opens: Wall microseconds from which the cell may be used without a second look.
        closes: Where that ends.

    Concurrency:
        Pure; whoever owns the cell calls it from one thread at a time.
    """

    __slots__ = ("base", "free", "limits", "terms", "total")

    resource: str | None = None
    opens: int = _NEVER
    closes: int = _ALWAYS

    base: int
    free: int
    limits: TenantLimits | None
    terms: Terms
    total: int

    def __init__(self, limit: QuotaLimit) -> None:
        self.terms = terms_of(limit)
        self.base = self.total = 0
        self.free = self.terms.ceiling
        self.limits = None

    @property
    def key(self) -> CellKey:
        """The cell as a demand names it."""
        dimension = self.terms.dimension
        return dimension if self.resource is None else (dimension, self.resource)

    @property
    def used(self) -> int:
        """What is used, as far as known here; negative after a credit for what was never charged."""
        return self.base + self.total

    @property
    def held(self) -> int:
        """What open reservations hold."""
        return self.terms.ceiling - self.base - self.total - self.free

    @property
    def idle(self) -> bool:
        """Whether nothing here would be missed: nothing held, and nothing booked that ``own`` could contain."""
        return self.total == 0 and self.held == 0

    @property
    def overrun(self) -> int:
        """By how much facts have passed the limit."""
        return max(0, self.used - self.terms.ceiling)

    def fits(self, amount: int) -> bool:
        """Whether *amount* can be held now. An underflow makes no room beyond the limit; 0 always fits."""
        return amount == 0 or amount <= self.free + min(0, self.used)

    def hold(self, amount: int) -> None:
        """Hold *amount*, which the caller has found to fit."""
        self.free -= amount

    def release(self, amount: int) -> None:
        """Free *amount* of what is held."""
        self.free += amount

    def settle(self, held: int, actual: int) -> None:
        """End a hold of *held* with the fact *actual*, more or less than was held, and whatever the limit."""
        if self.terms.counts:
            self.total += actual
            self.free += held - actual
        else:
            self.free += held

    def book(self, amount: int) -> None:
        """Book a fact that nobody reserved; a negative one is a credit."""
        self.total += amount
        self.free -= amount

    def restate(self, limit: QuotaLimit, base: int, *, declared: bool = True) -> None:
        """Take over a limit and the hub's word; nothing that was booked or is held here is lost."""
        if limit is not self.terms.source or declared is not self.terms.declared:
            terms = terms_of(limit, declared=declared)
            self.free += terms.ceiling - self.terms.ceiling
            self.terms = terms
        self.free -= base - self.base
        self.base = base

    def current(self, wall_us: int) -> bool:
        """Whether this is the cell that a demand at *wall_us* falls into."""
        return True

    def snapshot(self) -> CellSnapshot:
        """Return where the cell stands."""
        terms, counter = self.terms, self.terms.kind is QuotaKind.COUNTER
        return CellSnapshot(
            dimension=terms.dimension,
            resource=self.resource,
            kind=terms.kind,
            limit=terms.limit,
            used=max(0, self.used),
            held=self.held,
            remaining=None if terms.limit is None else max(0, self.free + min(0, self.used)),
            period_start_us=self.opens if counter else None,
            resets_at_us=self.closes if counter else None,
        )


class ResourceCell(Cell):
    """A durable gauge of one resource."""

    __slots__ = ("resource",)

    def __init__(self, limit: QuotaLimit, resource: str) -> None:
        super().__init__(limit)
        self.resource = resource


class MomentCell(Cell):
    """An ephemeral gauge.

    Its span is empty, so that an engine's short cut, in which every commit counts, never takes it.
    """

    __slots__ = ("resource",)

    opens = 0
    closes = 0

    def __init__(self, limit: QuotaLimit, resource: str | None) -> None:
        super().__init__(limit)
        self.resource = resource


class PeriodCell(Cell):
    """A counter, of a tenant or of a resource, within one period."""

    __slots__ = ("closes", "opens", "resource")

    def __init__(self, limit: QuotaLimit, opens: int, closes: int, *, resource: str | None = None) -> None:
        super().__init__(limit)
        self.opens = opens
        self.closes = closes
        self.resource = resource

    @property
    def idle(self) -> bool:
        """Whether nothing here would be missed; what the hub said of a period that is over, it may not say again."""
        return self.total == 0 and self.base == 0 and self.held == 0

    def current(self, wall_us: int) -> bool:
        """Whether *wall_us* lies in the period."""
        return self.opens <= wall_us < self.closes


def new_cell(limit: QuotaLimit, resource: str | None, span: tuple[int, int] | None) -> Cell:
    """Return a cell in which nothing was booked yet; *span* is the period of a counter, ``None`` for a gauge."""
    if span is not None:
        return PeriodCell(limit, *span, resource=resource)
    if limit.kind is QuotaKind.EPHEMERAL:
        return MomentCell(limit, resource)
    return Cell(limit) if resource is None else ResourceCell(limit, resource)


def split(key: CellKey) -> tuple[Dimension, str | None]:
    """Return dimension and resource of a cell's name.

    Raises:
        ValueError: It is neither a dimension nor a pair of dimension and resource.
    """
    if isinstance(key, str):
        return key, None
    parts: object = key  # typed, yet it comes from a host's code
    if isinstance(parts, tuple) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
        return key
    raise ValueError(f"a quota cell is a dimension or (dimension, resource), got {key!r}")


def check_amount(key: CellKey, amount: int, *, signed: bool = False) -> None:
    """Raise `ValueError` unless *amount* is a whole number, and at least 0 or *signed*."""
    if type(amount) is not int or (amount < 0 and not signed):
        least = "a whole number" if signed else "a whole number of at least 0"
        raise ValueError(f"the amount of {key!r} must be {least}, got {amount!r}")


def find(limits: TenantLimits, dimension: Dimension, resource: str | None) -> QuotaStanding | None:
    """Return the standing that a cell follows, ``None``: undeclared.

    It is the one stated for the resource, else the one for any resource. The tenant as a whole follows its own alone.
    """
    general = None
    for standing in limits.quotas:
        limit = standing.limit
        if limit.dimension == dimension:
            if limit.resource == resource:
                return standing
            if resource is not None and limit.resource == ANY_RESOURCE:
                general = standing
    return general


def stated_base(standing: QuotaStanding, resource: str | None, opens: int | None) -> int | None:
    """Return what *standing* says of others' use of a cell, or ``None`` where it says nothing.

    Args:
        standing: What `find` found.
        resource: The cell's resource. A limit for any resource counts none of them.
        opens: Start of a counter's period; ``None`` for a gauge. Numbers of another period say nothing of this one.
    """
    if standing.limit.resource != resource:
        return 0
    if opens is not None and standing.period_start_us != opens:
        return None
    return standing.used - standing.own


def span_of(limit: QuotaLimit, standing: QuotaStanding | None, wall_us: int) -> tuple[int, int] | None:
    """Return the period of *limit* at *wall_us*, ``None`` for a gauge.

    The hub's own bounds win where *wall_us* lies within them.
    """
    if limit.period is None:
        return None
    if standing is not None:
        start, end = standing.period_start_us, standing.resets_at_us
        if start is not None and end is not None and start <= wall_us < end:
            return start, end
    return bounds(limit.period, wall_us, limit.zone)


def period_to_use(known: Iterable[PeriodCell], opens: int) -> PeriodCell | None:
    """Return the cell among *known* to count in for the period that starts at *opens*; ``None``: a new one.

    A period that may have been forgotten is not opened again, since nobody can tell what it held: a wall clock that
    is set back further than `PERIODS_KEPT` counts in the oldest period still known.
    """
    cells = sorted(known, key=lambda cell: cell.opens)
    for cell in cells:
        if cell.opens == opens:
            return cell
    if len(cells) > PERIODS_KEPT and opens < cells[0].opens:
        return cells[0]
    return None


def no_room(tenant: TenantId, cell: Cell, amount: int, wall_us: int) -> Refusal:
    """Return the refusal of *amount* by *cell*. A wait is named only where the end of a period brings enough room."""
    terms = cell.terms
    counter = terms.kind is QuotaKind.COUNTER
    return Refusal(
        reason=Reason.QUOTA_EXCEEDED,
        tenant=tenant,
        retry_after_us=max(1, cell.closes - wall_us) if counter and amount <= terms.ceiling else None,
        dimension=terms.dimension,
        resource=cell.resource,
        limit=terms.limit,
        used=max(0, cell.used),
        held=cell.held,
        requested=amount,
        resets_at_us=cell.closes if counter else None,
    )


def undeclared(tenant: TenantId, key: CellKey | None, amount: int) -> Refusal:
    """Return the refusal of a cell that nobody declared, or of a tenant that nobody knows: a limit of zero."""
    dimension, resource = (None, None) if key is None else split(key)
    return Refusal(
        reason=Reason.QUOTA_EXCEEDED,
        tenant=tenant,
        dimension=dimension,
        resource=resource,
        limit=0,
        used=0,
        held=0,
        requested=amount,
    )


def is_static(limits: TenantLimits, key: CellKey) -> bool:
    """Whether *key* names a limit on one value, of which nothing is counted."""
    dimension, resource = split(key)
    standing = find(limits, dimension, resource)
    if standing is not None:
        return standing.limit.kind is QuotaKind.STATIC
    return resource is None and (dimension in limits.statics or canonical_kind(dimension) is QuotaKind.STATIC)


def canonical_kind(dimension: Dimension) -> QuotaKind | None:
    """Return the kind of a canonical dimension, ``None`` for others."""
    spec = CANONICAL.get(dimension)
    return None if spec is None else spec.kind


def compare_static(tenant: TenantId, limits: TenantLimits, key: CellKey, amount: int) -> Refusal | None:
    """Judge a demand that has no cell: a static limit is compared, anything else is undeclared; ``None``: it passes."""
    if not is_static(limits, key):
        return undeclared(tenant, key, amount)
    dimension, resource = split(key)
    standing = find(limits, dimension, resource)
    limit = limits.statics.get(dimension) if standing is None else standing.limit.limit
    if limit is None or amount <= limit:
        return None
    return Refusal(
        reason=_STATIC_REASONS.get(dimension, Reason.STATIC_LIMIT),
        tenant=tenant,
        dimension=dimension,
        resource=resource,
        limit=limit,
        requested=amount,
    )


def graver(first: Refusal | None, second: Refusal) -> Refusal:
    """Return which of two refusals of one demand to answer with: one that no wait cures, else the longer wait."""
    if first is None:
        return second
    if first.retry_after_us is None:
        return first
    if second.retry_after_us is None or second.retry_after_us > first.retry_after_us:
        return second
    return first
