"""How much may they hold or use? The protocols and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal, Ticket
from hivetenancy.ids import Amounts, CellKey, Dimension, TenantId
from hivetenancy.plans import QuotaKind


class Reservation(Protocol):
    """Amounts held for a piece of work, in every dimension or in none. It ends once: by `commit` or by `release`."""

    @property
    def tenant(self) -> TenantId:
        """For whom it is held."""
        ...

    @property
    def held(self) -> Mapping[CellKey, int]:
        """What is held now, by cell; empty once ended."""
        ...

    @property
    def committed(self) -> Mapping[CellKey, int] | None:
        """What was committed, by cell; ``None`` until then. What the usage record says."""
        ...

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Ticket:
        """Turn what is held into what is used.

        Args:
            actual: What was really used; a cell that is left out commits as held. More than held is a fact and is
                booked even over the limit; less frees the difference.
            now: The present instant; ``None``: the engine reads its clock. A fact belongs to the period in which it was
                reserved.

        Returns:
            A ticket that is done when the fact is as durable as its dimension asks for.

        Raises:
            MisuseError: It was committed or released before, or *actual* names a cell that was never declared.
        """
        ...

    def release(self) -> None:
        """Free what is held. After a commit or an earlier release it does nothing."""
        ...

    def try_extend(self, more: Amounts, *, now: Instant | None = None) -> Refusal | None:
        """Hold *more* as well, for work whose size shows on the way; ``None``: done. A refusal changes nothing.

        Raises:
            MisuseError: It has ended.
        """
        ...


class QuotaManager(Protocol):
    """Keeps what tenants hold and use within their limits.

    An engine that can answer at once also has ``try_reserve`` (same arguments; ``None`` only where waiting could bring
    an answer), and `reserve` is a wrapper around it.
    """

    async def reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Reservation | Refusal:
        """Hold *demand* in all its cells, or in none.

        Args:
            tenant: For whom.
            demand: Amounts by cell, each at least 0. A static dimension is compared with its limit and not held.
            op_id: Name of the operation; a repeat while the first reservation is open returns that one.
            now: The present instant; ``None``: the engine reads its clock.

        Returns:
            The reservation, or a refusal (`QUOTA_EXCEEDED`, `STATIC_LIMIT`, `BATCH_TOO_LARGE` or `PAYLOAD_TOO_LARGE`),
            after which nothing is held. A cell that nobody declared has a limit of zero. ``retry_after_us`` is set only
            for counters: the end of their period.

        Raises:
            ValueError: An amount is negative or no whole number.
            UnavailableError: The limits of the tenant cannot be told.

        Concurrency:
            All cells are read, decided and written in one step. Cancelling leaves nothing held.
        """
        ...

    def credit(
        self, tenant: TenantId, amounts: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Ticket:
        """Give back what a durable gauge was charged before, for example after a delete.

        Args:
            tenant: To whom.
            amounts: Amounts by cell, each at least 0.
            op_id: Name of the operation; a repeat with one that was credited lately changes nothing.
            now: The present instant; ``None``: the engine reads its clock.

        Raises:
            ValueError: An amount is negative.
            MisuseError: A cell is a counter or a static limit: what a period counted stays counted.
        """
        ...


class ImmediateQuotaManager(QuotaManager, Protocol):
    """A quota manager that can answer from memory."""

    def try_reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Reservation | Refusal | None:
        """Answer as `QuotaManager.reserve`, or ``None`` where waiting could bring an answer."""
        ...


class NotesFacts(Protocol):
    """Optional ability: take note of use that was not reserved, so that limits and snapshots see it."""

    def note(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> None:
        """Book *amounts* as used. Facts are booked even over the limit; cells nobody declared are passed over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSnapshot:
    """Where one quota cell stands.

    Attributes:
        dimension: What is counted.
        resource: Of which resource; ``None``: of the tenant as a whole.
        kind: How the dimension behaves.
        limit: The limit; ``None``: unlimited.
        used: What is used, as far as known here; never shown below 0.
        held: What open reservations hold.
        remaining: What could still be reserved; ``None``: unlimited.
        period_start_us: Start of the counter's period; ``None`` for a gauge.
        resets_at_us: End of that period.
    """

    dimension: Dimension
    resource: str | None
    kind: QuotaKind
    limit: int | None
    used: int
    held: int
    remaining: int | None
    period_start_us: int | None = None
    resets_at_us: int | None = None


class TellsQuotas(Protocol):
    """Optional ability: where the cells stand, for usage pages."""

    def try_snapshot(self, tenant: TenantId, *, now: Instant | None = None) -> Sequence[CellSnapshot] | None:
        """Return every cell of *tenant*, sorted by dimension and resource; ``None`` where only a fetch can tell.

        Raises:
            UnavailableError: The limits of the tenant cannot be told.
        """
        ...


class ItemLedger(Protocol):
    """Remembers what each item of each tenant is charged, so that an overwrite or a delete credits just that.

    A host that knows the size of what it stores can implement this over its own store; nothing is kept twice then.

    Concurrency:
        One step each, on the thread of the engine.
    """

    def charged(self, tenant: TenantId, item: str) -> Mapping[CellKey, int]:
        """Return what *item* is charged; empty where it is not."""
        ...

    def set_charge(self, tenant: TenantId, item: str, amounts: Mapping[CellKey, int]) -> None:
        """Set what *item* is charged from now on; nothing forgets the item."""
        ...
