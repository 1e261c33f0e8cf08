"""All cells of one process: found, brought in line with the limits in force, kept, and forgotten when idle.

Memory only; takes no lock of a tenant and reads no clock: the engine that owns the store does both.

A cell is brought in line when it is next used, not when its limits change: the limits it was last brought in line with
are compared by identity. A new cell of a resource is not kept until something is held or booked in it, so that names
which are only asked for cost no memory.

A cell in which something was booked is never forgotten: dropping our own total while the hub's ``own`` contains it
would make the tenant's use look smaller than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final, TypeAlias

from hivetenancy.clock import MINUTE_US
from hivetenancy.ids import CellKey, Dimension, TenantId
from hivetenancy.plans import ANY_RESOURCE, QuotaKind
from hivetenancy.sources import QuotaStanding, TenantLimits

from .ledger import (
    PERIODS_KEPT,
    Cell,
    PeriodCell,
    canonical_kind,
    find,
    new_cell,
    period_to_use,
    span_of,
    split,
    stated_base,
)

Place: TypeAlias = tuple[Dimension, str | None, TenantId]

_SWEEP: Final = 16  # cells looked at for each new one beyond max_cells: enough to keep up, too few to stall a request
_GRAIN_US: Final = 15 * MINUTE_US  # every zone's calendar turns on a quarter of an hour


class Cells:
    """The cells of a process.

    Args:
        max_cells: How many are kept before idle ones are forgotten.
        guard: Held for a moment while cells are counted; a lock where several threads use the store.

    Attributes:
        whole: Cells of tenants as a whole, by dimension and tenant. Keys are typed as any cell's name, so that an
            engine can look up what a demand names without asking what kind of name it is.
        resources: Cells of resources, by dimension, tenant and resource.

    Concurrency:
        All calls about one tenant come from one thread at a time.
    """

    def __init__(self, max_cells: int, guard: AbstractContextManager[object]) -> None:
        self.whole: dict[CellKey, dict[TenantId, Cell]] = {}
        self.resources: dict[Dimension, dict[TenantId, dict[str, Cell]]] = {}
        self._earlier: dict[Place, tuple[PeriodCell, ...]] = {}
        self._unplaced: dict[TenantId, dict[tuple[CellKey, int], int]] = {}
        self._max_cells = max_cells
        self._guard = guard
        self._count = 0
        self._hand: Iterator[Place] = iter(())

    def __len__(self) -> int:
        return self._count

    # --- finding -----------------------------------------------------------------------------------------------------

    def known(self, tenant: TenantId, dimension: Dimension, resource: str | None) -> Cell | None:
        """Return the cell that is kept under that name, as it is."""
        if resource is None:
            return self.whole.get(dimension, {}).get(tenant)
        return self.resources.get(dimension, {}).get(tenant, {}).get(resource)

    def in_line(
        self, tenant: TenantId, dimension: Dimension, resource: str | None, limits: TenantLimits, wall: int
    ) -> Cell | None:
        """Return the cell in line with *limits* at *wall*; ``None``: nothing is counted under that name.

        A cell that is no longer declared stays, with a limit of zero.
        """
        cell = self.known(tenant, dimension, resource)
        if cell is not None and cell.limits is limits and cell.current(wall):
            return cell
        standing = find(limits, dimension, resource)
        if standing is None or standing.limit.kind is QuotaKind.STATIC:
            if cell is not None:
                cell.restate(cell.terms.source, cell.base, declared=False)
                cell.limits = limits
            return cell
        cell = self._in_period(tenant, cell, resource, standing, wall)
        base = stated_base(standing, resource, cell.opens if isinstance(cell, PeriodCell) else None)
        cell.restate(standing.limit, cell.base if base is None else base)
        # Below zero, an engine's short cut would see more room than the limit.
        cell.limits = limits if cell.used >= 0 else None
        if resource is None:
            self.keep(tenant, cell)
        return cell

    def lookup(self, tenant: TenantId, key: CellKey, limits: TenantLimits | None, wall: int) -> Cell | None:
        """Return the cell of *key* as `in_line` does; without limits, the one that is known, in its own period."""
        dimension, resource = split(key)
        if limits is not None:
            return self.in_line(tenant, dimension, resource, limits, wall)
        cell = self.known(tenant, dimension, resource)
        if isinstance(cell, PeriodCell) and not cell.current(wall):
            return self._in_period(tenant, cell, resource, QuotaStanding(limit=cell.terms.source), wall)
        return cell

    def kind(self, tenant: TenantId, key: CellKey, limits: TenantLimits | None) -> QuotaKind | None:
        """Return how *key* behaves for *tenant*, as far as can be told."""
        dimension, resource = split(key)
        standing = None if limits is None else find(limits, dimension, resource)
        if standing is not None:
            return standing.limit.kind
        cell = self.known(tenant, dimension, resource)
        return canonical_kind(dimension) if cell is None else cell.terms.kind

    def all_of(self, tenant: TenantId, limits: TenantLimits, wall: int) -> list[Cell]:
        """Return every cell of *tenant* that is declared or not idle, sorted by dimension and resource."""
        stated = ((standing.limit.dimension, standing.limit.resource) for standing in limits.quotas)
        names: set[tuple[Dimension, str | None]] = {name for name in stated if name[1] != ANY_RESOURCE}
        names |= {split(dimension) for dimension, cells in list(self.whole.items()) if tenant in cells}
        for dimension, tenants in list(self.resources.items()):
            names |= {(dimension, resource) for resource in tenants.get(tenant, ())}
        ordered = sorted(names, key=lambda name: (name[0], name[1] or ""))
        found = (self.in_line(tenant, dimension, resource, limits, wall) for dimension, resource in ordered)
        return [cell for cell in found if cell is not None and (cell.terms.declared or not cell.idle)]

    # --- periods -----------------------------------------------------------------------------------------------------

    def _in_period(
        self, tenant: TenantId, cell: Cell | None, resource: str | None, standing: QuotaStanding, wall: int
    ) -> Cell:
        """Return the cell for *wall*: *cell*, an earlier one of the counter, or a new one."""
        limit = standing.limit
        span = span_of(limit, standing, wall)
        if span is None:
            fresh = new_cell(limit, resource, None)
            same = cell is not None and isinstance(cell, PeriodCell) == isinstance(fresh, PeriodCell)
            if cell is not None and same and cell.terms.counts is fresh.terms.counts:
                return cell
            return self._place(tenant, fresh)
        present = cell if isinstance(cell, PeriodCell) else None
        if present is not None and present.opens == span[0]:
            return present
        return self._turn(tenant, present, (limit.dimension, resource, tenant), standing, span)

    def _turn(
        self,
        tenant: TenantId,
        present: PeriodCell | None,
        place: Place,
        standing: QuotaStanding,
        span: tuple[int, int],
    ) -> PeriodCell:
        """Leave the period of *present* for the one of *span*, and remember what was left."""
        known = ((present,) if present else ()) + self._earlier.pop(place, ())
        chosen = period_to_use(known, span[0])
        if chosen is None:
            chosen = PeriodCell(standing.limit, *span, resource=place[1])
            self._place(tenant, chosen)
        left = (cell for cell in known if cell is not chosen and not cell.idle)
        rest = sorted(left, key=lambda cell: cell.opens, reverse=True)[:PERIODS_KEPT]
        if rest:
            self._earlier[place] = tuple(rest)
        if present is not None:
            self.keep(tenant, chosen)
        return chosen

    # --- booking -----------------------------------------------------------------------------------------------------

    def book(self, tenant: TenantId, key: CellKey, amount: int, limits: TenantLimits | None, wall: int) -> Cell | None:
        """Book a fact, and return its cell.

        A name under which nothing is counted is passed over. While nobody can say where a fact belongs, it waits, added
        up by quarters of an hour, for the first question that brings the limits.
        """
        cell = self.lookup(tenant, key, limits, wall)
        if cell is not None:
            self.keep(tenant, cell)
            cell.book(amount)
            if cell.used < 0:
                cell.limits = None
        elif limits is None and amount:
            waiting = self._unplaced.setdefault(tenant, {})
            quarter = (key, wall // _GRAIN_US * _GRAIN_US)
            waiting[quarter] = waiting.get(quarter, 0) + amount
        return cell

    def _place(self, tenant: TenantId, cell: Cell) -> Cell:
        """Book into a new cell the facts that were waiting for it."""
        waiting = self._unplaced.get(tenant)
        if waiting:
            for key, wall in [quarter for quarter in waiting if quarter[0] == cell.key]:
                if not isinstance(cell, PeriodCell) or cell.current(wall):
                    cell.book(waiting.pop((key, wall)))
            if not waiting:
                del self._unplaced[tenant]
            if cell.total:
                self.keep(tenant, cell)
        return cell

    # --- keeping and forgetting --------------------------------------------------------------------------------------

    def keep(self, tenant: TenantId, cell: Cell) -> None:
        """Keep *cell* under its name."""
        if cell.resource is None:
            cells = self.whole.setdefault(cell.terms.dimension, {})
            known, cells[tenant] = cells.get(tenant), cell
        else:
            of = self.resources.setdefault(cell.terms.dimension, {}).setdefault(tenant, {})
            known, of[cell.resource] = of.get(cell.resource), cell
        if known is None:
            with self._guard:
                self._count += 1

    def forget_some(self, entered: Callable[[TenantId], AbstractContextManager[bool]]) -> None:
        """Forget the idle ones among a few cells, if there are too many.

        Args:
            entered: Enters the work on a tenant, without waiting; gives False where another thread is at it.
        """
        if self._count <= self._max_cells:
            return
        with self._guard:
            places = list(islice(self._hand, _SWEEP))
            if not places:
                self._hand = self._round()
        for dimension, resource, tenant in places:
            with entered(tenant) as mine:
                if mine and self._forget(dimension, resource, tenant):
                    with self._guard:
                        self._count -= 1

    def _forget(self, dimension: Dimension, resource: str | None, tenant: TenantId) -> bool:
        cell = self.known(tenant, dimension, resource)
        if cell is None or not cell.idle or (dimension, resource, tenant) in self._earlier:
            return False
        if resource is None:
            del self.whole[dimension][tenant]
        else:
            resources = self.resources[dimension][tenant]
            del resources[resource]
            if not resources:
                del self.resources[dimension][tenant]
        return True

    def _round(self) -> Iterator[Place]:
        """Go once through the names of all cells there are; one dimension's, or tenant's, are listed at a time."""
        for dimension, cells in list(self.whole.items()):
            yield from [(split(dimension)[0], None, tenant) for tenant in list(cells)]
        for name, tenants in list(self.resources.items()):
            for tenant in list(tenants):
                yield from [(name, resource, tenant) for resource in list(tenants.get(tenant, ()))]


def earlier_of(cells: Cells) -> Sequence[PeriodCell]:
    """Return the cells of earlier periods that are kept, for tests and memory figures."""
    return [cell for kept in cells._earlier.values() for cell in kept]
