"""Quotas kept in the memory of one process.

Everything a request does here is one look-up a cell and one subtraction; nothing is awaited while something is
decided, so a cancelled task cannot stop half-way. The arithmetic, and why it is exact, stands in
`hivetenancy.quota.ledger`; what is kept in memory and what is forgotten, in `hivetenancy.quota.cells`.

**The short cut.** `LocalQuota.try_reserve` first takes what it can from cells that are known, in line with the limits
in force and in their period. Whatever is unusual (a new cell, new limits, a new period, a resource, a refusal) undoes
that and goes the whole way round, which decides again from the start. The two agree because both ask one thing: is as
much free? State machine tests drive them beside a naive model.

**Threads.** An engine belongs to the thread of its loop and takes no lock. With ``threadsafe=True`` it takes a lock of
the tenant on every side: reserve, commit, release, extend, credit, note and snapshot. What the garbage collector frees
is put on a list and freed by the next call, since a finalizer may run in any thread, in the middle of anything.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias

from hivetenancy.clock import Clock, Instant, SystemClock
from hivetenancy.decision import DONE, Refusal, Ticket
from hivetenancy.errors import MisuseError, UnavailableError
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.plans import QuotaKind
from hivetenancy.sources import LimitsView, TenantLimits

from .cells import Cells
from .ledger import Cell, check_amount, compare_static, graver, is_static, no_room, undeclared
from .protocol import CellSnapshot, ImmediateQuotaManager, NotesFacts, Reservation, TellsQuotas

CREDITS_KEPT: Final = 128
"""How many named credits of a tenant are remembered, so that a repeat of one changes nothing."""

Overrun: TypeAlias = Callable[[TenantId, CellSnapshot], None]
"""Called after a fact has left a cell over its limit. Must not block, raise, or call the engine."""

_Part: TypeAlias = tuple[Cell, int]

_NO_LOCK: Final[AbstractContextManager[object]] = nullcontext()
_NO_CELLS: Final[Mapping[CellKey, Cell]] = {}


class LocalReservation:
    """A reservation of a `LocalQuota`; this very class is one that was released.

    Open, committed and released are three classes, and ending a reservation changes its class: nothing has to be asked
    while it is open, and only an open one has a finalizer to pay for.
    """

    __slots__ = ("__weakref__", "_engine", "_op_id", "_parts", "_tenant")

    _engine: LocalQuota
    _op_id: str | None
    _parts: list[_Part]
    _tenant: TenantId

    @property
    def tenant(self) -> TenantId:
        """For whom it is held."""
        return self._tenant

    @property
    def held(self) -> Mapping[CellKey, int]:
        """What is held now, by cell; empty once ended."""
        return {}

    @property
    def committed(self) -> Mapping[CellKey, int] | None:
        """What was committed, by cell; ``None`` until then. Ephemeral gauges are freed, so they are not in it."""
        return None

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Ticket:
        """Turn what is held into what is used; see `Reservation.commit`. Facts are in memory, so the ticket is done."""
        raise MisuseError("this reservation has ended: commit once, or release")

    def release(self) -> None:
        """Free what is held. After a commit or an earlier release it does nothing."""

    def try_extend(self, more: Amounts, *, now: Instant | None = None) -> Refusal | None:
        """Hold *more* as well; see `Reservation.try_extend`.

        A counter that is held already grows within the period it was reserved in. Where the limits have to be fetched
        again, those that were last known count: the reservation was admitted by them.
        """
        raise MisuseError("this reservation has ended: extend it before commit or release")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.strip('_')} of {self._tenant}: {self.held or self.committed or 'nothing'}>"


class _Released(LocalReservation):
    __slots__ = ()


class _Committed(LocalReservation):
    __slots__ = ()

    @property
    def committed(self) -> Mapping[CellKey, int]:
        """What was committed, by cell."""
        return {cell.key: amount for cell, amount in self._parts if amount and cell.terms.counts}


class _Open(LocalReservation):
    """Open, in cells in which every commit counts, and without a name: ends without a question."""

    __slots__ = ()

    @property
    def held(self) -> Mapping[CellKey, int]:
        """What is held, by cell."""
        return {cell.key: amount for cell, amount in self._parts}

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Ticket:
        """Turn what is held into what is used."""
        if actual is not None:
            return self._engine._commit(self, actual, now)
        for cell, amount in self._parts:
            cell.total += amount  # what is free stays free: held became used
        self.__class__ = _Committed  # type: ignore[assignment]  # the three have one layout
        return DONE

    def release(self) -> None:
        """Free what is held."""
        for cell, amount in self._parts:
            cell.free += amount
        self.__class__ = _Released  # type: ignore[assignment]

    def try_extend(self, more: Amounts, *, now: Instant | None = None) -> Refusal | None:
        """Hold *more* as well, or nothing more."""
        return self._engine._extend(self, more, now)

    def __del__(self) -> None:
        # May run in any thread and between any two steps, so it touches no cell.
        self._engine._dropped.append((self._tenant, self._parts))
        if self._parts:
            warnings.warn(
                f"a reservation of {self._tenant} was dropped open and is freed: {dict(self.held)}; "
                "commit or release it, or use it as a block",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class _OpenCareful(_Open):
    """Open, and named, shared between threads, or in a cell that a commit frees: ends by way of the engine."""

    __slots__ = ()

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Ticket:
        """Turn what is held into what is used."""
        return self._engine._commit(self, actual, now)

    def release(self) -> None:
        """Free what is held."""
        self._engine._release(self)


class LocalQuota:
    """A `QuotaManager` in memory: all cells of this process, each as its tenant's limits have it.

    Args:
        limits: Tells the limits of each tenant. When its answer is another object, the cells are brought in line:
            what was spent and is held here stays, and the hub's word is merged into it.
        clock: Read where a call passes no ``now``.
        threadsafe: Take a lock of the tenant on every side. *limits* and *clock* must then be thread-safe as well.
        max_cells: Cells kept before idle ones are forgotten; one in which something was booked is never forgotten.
        on_overrun: Called when a fact leaves a cell over its limit: a commit of more than was held, or a `note`.

    Concurrency:
        Belongs to one thread, unless *threadsafe*. Nothing waits but `reserve`, and that only for the limits.

    Source:
        Architecture, decisions 10, 22 and 25; HiveHub wire 4.5.
    """

    def __init__(
        self,
        limits: LimitsView,
        *,
        clock: Clock | None = None,
        threadsafe: bool = False,
        max_cells: int = 1_000_000,
        on_overrun: Overrun | None = None,
    ) -> None:
        if max_cells < 1:
            raise ValueError(f"max_cells must be at least 1, got {max_cells}")
        self._limits = limits
        self._view = limits.try_limits
        self._clock = clock or SystemClock()
        self._on_overrun = on_overrun
        self._cells = Cells(max_cells, threading.Lock() if threadsafe else _NO_LOCK)
        # What the short cut sees: nothing where every step has to be taken under a lock.
        self._short_cut = {} if threadsafe else self._cells.whole
        self._short_resources = {} if threadsafe else self._cells.resources
        self._named: dict[tuple[TenantId, str], weakref.ref[LocalReservation]] = {}
        self._credited: dict[TenantId, OrderedDict[str, None]] = {}
        self._dropped: deque[tuple[TenantId, list[_Part]]] = deque()
        self._locks: dict[TenantId, threading.Lock] | None = {} if threadsafe else None

    def try_reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> LocalReservation | Refusal | None:
        """Answer as `reserve`, or ``None`` where the limits have to be fetched first."""
        if now is None:
            now = self._clock.now()
        limits = self._view(tenant, now=now)
        if limits is None:
            return None
        if op_id is None and not self._dropped:
            wall, cells = now[1], self._short_cut
            parts: list[_Part] = []
            try:
                for key, amount in demand.items():
                    if type(key) is str:
                        cell = cells[key][tenant]
                    else:
                        cell = self._short_resources[key[0]][tenant][key[1]]
                    if (
                        cell.limits is not limits
                        or not cell.opens <= wall < cell.closes
                        or type(amount) is not int
                        or amount <= 0
                    ):
                        break
                    free = cell.free - amount
                    if free < 0:
                        break
                    cell.free = free
                    parts.append((cell, amount))
                else:
                    taken = _Open()
                    taken._engine = self
                    taken._tenant = tenant
                    taken._parts = parts
                    taken._op_id = None
                    return taken
            except (LookupError, TypeError):  # a cell that is not there yet, or a name that is none
                pass
            except BaseException:
                _give_back(parts)
                raise
            _give_back(parts)
        return self._decide(tenant, demand, op_id, now[1], limits)

    async def reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> LocalReservation | Refusal:
        """Hold *demand* in all its cells, or in none; see `QuotaManager.reserve`.

        A tenant that nobody knows has a limit of zero. Nothing is held while the limits are fetched, so cancelling
        leaves nothing behind.
        """
        answer = self.try_reserve(tenant, demand, op_id=op_id, now=now)
        if answer is not None:
            return answer
        limits = await self._limits.limits(tenant, now=now or self._clock.now())
        if limits is None:
            key = next(iter(demand), None)
            return undeclared(tenant, key, 0 if key is None else demand[key])
        answer = self.try_reserve(tenant, demand, op_id=op_id, now=now)
        if answer is not None:
            return answer
        return self._decide(tenant, demand, op_id, (now or self._clock.now())[1], limits)

    def credit(
        self, tenant: TenantId, amounts: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Ticket:
        """Give back what a durable gauge was charged before; see `QuotaManager.credit`.

        A cell that nobody declares and in which nothing was charged is passed over. Of the credits with an *op_id*
        the last `CREDITS_KEPT` of each tenant are remembered.
        """
        at = now or self._clock.now()
        limits = self._told(tenant, at)
        with self._enter(tenant):
            for key, amount in amounts.items():
                check_amount(key, amount)
                self._check_creditable(tenant, key, limits)
            if op_id is None or self._first_credit(tenant, op_id):
                for key, amount in amounts.items():
                    self._cells.book(tenant, key, -amount, limits, at[1])
        self._cells.forget_some(self._entered)
        return DONE

    def note(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> None:
        """Book *amounts* as used, over the limit too; cells nobody declared are passed over.

        Negative amounts lower a gauge. While the limits cannot be told, facts of cells not yet known are kept, by
        quarters of an hour, and booked with the first question that brings the limits.

        Raises:
            ValueError: An amount is no whole number, or a counter's is negative.
        """
        at = now or self._clock.now()
        limits = self._told(tenant, at)
        over: list[CellSnapshot] = []
        with self._enter(tenant):
            for key, amount in amounts.items():
                check_amount(key, amount, signed=self._cells.kind(tenant, key, limits) is not QuotaKind.COUNTER)
            for key, amount in amounts.items():
                cell = self._cells.book(tenant, key, amount, limits, at[1])
                if cell is not None and amount > 0 and cell.overrun:
                    over.append(cell.snapshot())
        self._cells.forget_some(self._entered)
        self._tell_overruns(tenant, over)

    def try_snapshot(self, tenant: TenantId, *, now: Instant | None = None) -> Sequence[CellSnapshot] | None:
        """Return every cell of *tenant*, sorted by dimension and resource; ``None`` where only a fetch can tell.

        A limit for any resource shows as the resources in use. A cell that is no longer declared shows, with a limit
        of zero, while something is booked in it.
        """
        at = now or self._clock.now()
        limits = self._view(tenant, now=at)
        if limits is None:
            return None
        with self._enter(tenant):
            return [cell.snapshot() for cell in self._cells.all_of(tenant, limits, at[1])]

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _decide(
        self, tenant: TenantId, demand: Amounts, op_id: str | None, wall: int, limits: TenantLimits
    ) -> LocalReservation | Refusal:
        """Decide the whole way round: all or nothing, and nothing is written before all is known to fit."""
        with self._enter(tenant):
            if op_id is not None:
                known = self._still_open(tenant, op_id)
                if known is not None:
                    return known
            wanted: list[_Part] = []
            refusal = self._judge(tenant, demand, wall, limits, wanted)
            answer = self._take(tenant, wanted, op_id) if refusal is None else refusal
        self._cells.forget_some(self._entered)
        return answer

    def _judge(
        self,
        tenant: TenantId,
        demand: Amounts,
        wall: int,
        limits: TenantLimits | None,
        wanted: list[_Part],
        mine: Mapping[CellKey, Cell] = _NO_CELLS,
    ) -> Refusal | None:
        """Put what *demand* would hold into *wanted*; return why it cannot, or ``None``. Holds nothing.

        *mine* are cells to use as they are, whatever the limits and the period.
        """
        worst: Refusal | None = None
        for key, amount in demand.items():
            check_amount(key, amount)
            if amount == 0:
                continue
            cell = mine.get(key) or self._cells.lookup(tenant, key, limits, wall)
            if cell is not None and cell.fits(amount):
                wanted.append((cell, amount))
                continue
            short = _uncounted(tenant, limits, key, amount) if cell is None else no_room(tenant, cell, amount, wall)
            if short is not None:
                worst = graver(worst, short)
        return worst

    def _take(self, tenant: TenantId, wanted: list[_Part], op_id: str | None) -> LocalReservation:
        for cell, amount in wanted:
            self._cells.keep(tenant, cell)
            cell.hold(amount)
        careful = op_id is not None or self._locks is not None or not all(cell.terms.counts for cell, _ in wanted)
        taken = _OpenCareful() if careful else _Open()
        taken._engine, taken._tenant, taken._parts, taken._op_id = self, tenant, wanted, op_id
        if op_id is not None:
            self._named[tenant, op_id] = weakref.ref(taken)
        return taken

    def _still_open(self, tenant: TenantId, op_id: str) -> LocalReservation | None:
        found = self._named.get((tenant, op_id))
        known = None if found is None else found()
        return known if isinstance(known, _Open) else None

    # --- ending ------------------------------------------------------------------------------------------------------

    def _commit(self, taken: _Open, actual: Amounts | None, now: Instant | None) -> Ticket:
        tenant = taken._tenant
        at = (now or self._clock.now()) if actual else (0, 0)
        limits = self._told(tenant, at) if actual else None
        over: list[CellSnapshot] = []
        with self._enter(tenant):
            _check_open(taken)
            facts = self._facts(taken, actual or {}, at[1], limits)
            for cell, held, amount in facts:
                cell.settle(held, amount)
                if amount > held and cell.overrun:
                    over.append(cell.snapshot())
            taken._parts = [(cell, amount) for cell, _, amount in facts]
            self._end(taken, _Committed)
        self._tell_overruns(tenant, over)
        return DONE

    def _facts(
        self, taken: _Open, actual: Amounts, wall: int, limits: TenantLimits | None
    ) -> list[tuple[Cell, int, int]]:
        """Pair what was held with what became of it; raises before anything is written."""
        left = dict(actual)
        facts = []
        for cell, held in taken._parts:
            amount = left.pop(cell.key, held)
            check_amount(cell.key, amount)
            facts.append((cell, held, amount))
        for key, amount in left.items():
            check_amount(key, amount)
            cell_or_none = self._cells.lookup(taken._tenant, key, limits, wall)
            if cell_or_none is not None and cell_or_none.terms.declared:
                self._cells.keep(taken._tenant, cell_or_none)
                facts.append((cell_or_none, 0, amount))
            elif limits is None or not is_static(limits, key):
                raise MisuseError(f"commit() names {key!r}, which no plan of the tenant declares")
        return facts

    def _release(self, taken: _Open) -> None:
        with self._enter(taken._tenant):
            if isinstance(taken, _Open):
                _give_back(taken._parts)
                self._end(taken, _Released)

    def _end(self, taken: _Open, how: type[LocalReservation]) -> None:
        if taken._op_id is not None:
            self._named.pop((taken._tenant, taken._op_id), None)
        taken.__class__ = how  # type: ignore[assignment]  # all of them have one layout

    def _extend(self, taken: _Open, more: Amounts, now: Instant | None) -> Refusal | None:
        at = now or self._clock.now()
        tenant, limits = taken._tenant, self._view(taken._tenant, now=at)
        with self._enter(tenant):
            _check_open(taken)
            mine = {cell.key: cell for cell, _ in taken._parts if limits is None or not cell.current(at[1])}
            wanted: list[_Part] = []
            refusal = self._judge(tenant, more, at[1], limits, wanted, mine)
            if refusal is None:
                self._add(taken, wanted)
            return refusal

    def _add(self, taken: _Open, wanted: list[_Part]) -> None:
        for cell, amount in wanted:
            cell.hold(amount)
            for index, (held_in, held) in enumerate(taken._parts):
                if held_in is cell:  # perhaps of a period that is over, so it must not become the present cell again
                    taken._parts[index] = (cell, held + amount)
                    break
            else:
                self._cells.keep(taken._tenant, cell)
                taken._parts.append((cell, amount))
        if not all(cell.terms.counts for cell, _ in wanted):
            taken.__class__ = _OpenCareful

    def _told(self, tenant: TenantId, at: Instant) -> TenantLimits | None:
        """Return the limits if they can be told now: a fact has happened whether or not they can."""
        try:
            return self._view(tenant, now=at)
        except UnavailableError:
            return None

    def _check_creditable(self, tenant: TenantId, key: CellKey, limits: TenantLimits | None) -> None:
        kind = self._cells.kind(tenant, key, limits)
        if kind in (QuotaKind.COUNTER, QuotaKind.STATIC) or (limits is not None and is_static(limits, key)):
            raise MisuseError(
                f"{key!r} cannot be credited: what a period counted stays counted, a static limit counts nothing"
            )

    def _first_credit(self, tenant: TenantId, op_id: str) -> bool:
        seen = self._credited.setdefault(tenant, OrderedDict())
        if op_id in seen:
            return False
        seen[op_id] = None
        if len(seen) > CREDITS_KEPT:
            seen.popitem(last=False)
        return True

    def _tell_overruns(self, tenant: TenantId, over: Sequence[CellSnapshot]) -> None:
        if self._on_overrun is not None:
            for snapshot in over:
                self._on_overrun(tenant, snapshot)

    # --- locks, finalizers, memory -----------------------------------------------------------------------------------

    def _enter(self, tenant: TenantId) -> AbstractContextManager[object]:
        """Free what the collector found, then take the tenant's lock, if there are locks."""
        while self._dropped:
            try:
                owner, parts = self._dropped.popleft()
            except IndexError:  # another thread was quicker
                break
            with self._lock(owner):
                _give_back(parts)
        return self._lock(tenant)

    def _lock(self, tenant: TenantId) -> AbstractContextManager[object]:
        return _NO_LOCK if self._locks is None else self._lock_of(tenant, self._locks)

    @staticmethod
    def _lock_of(tenant: TenantId, locks: dict[TenantId, threading.Lock]) -> threading.Lock:
        return locks.get(tenant) or locks.setdefault(tenant, threading.Lock())

    @contextmanager
    def _entered(self, tenant: TenantId) -> Iterator[bool]:
        """Enter the work on *tenant* if nobody else is at it, ourselves included."""
        lock = None if self._locks is None else self._lock_of(tenant, self._locks)
        mine = lock is None or lock.acquire(blocking=False)
        try:
            yield mine
        finally:
            if lock is not None and mine:
                lock.release()


def _give_back(parts: Sequence[_Part]) -> None:
    for cell, amount in parts:
        cell.free += amount


def _check_open(taken: LocalReservation) -> None:
    if not isinstance(taken, _Open):
        raise MisuseError("this reservation has ended: commit or extend it once, before release")


def _uncounted(tenant: TenantId, limits: TenantLimits | None, key: CellKey, amount: int) -> Refusal | None:
    return undeclared(tenant, key, amount) if limits is None else compare_static(tenant, limits, key, amount)


if TYPE_CHECKING:
    _manages: type[ImmediateQuotaManager] = LocalQuota
    _notes: type[NotesFacts] = LocalQuota
    _tells: type[TellsQuotas] = LocalQuota
    _reservation: type[Reservation] = LocalReservation
