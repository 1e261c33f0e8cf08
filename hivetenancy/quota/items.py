"""What single items are charged, so that overwriting costs the difference and deleting gives back.

A block on an item states what the item is charged from now on. Three numbers of an item, in each dimension, tell all:

* its *charge*: what the quota engine has booked for it, and what the ledger remembers;
* what it *counts* as while blocks are open: the charge and what they hold, the largest amount anybody stated;
* its *last* word: what the block that committed last stated.

Opening a block holds only what raises the count, so concurrent overwrites of one item are charged once. A commit books
at once what its amounts need beyond the charge. Nothing falls while another block is open, since that one may yet
commit more: what falls free is credited when the last block ends, and then the charge is the last word, exactly. So at
every moment the engine's use is the sum of all charges, nobody waits for anybody, and nothing goes over.

Two things are kept simple on purpose. What a failed block held stays held until the last block on that item ends. And a
block that commits while a larger one is open may book what that one holds, since a reservation is committed whole; the
difference is credited when the last block ends.

**Who records.** Nothing here records usage. `ItemBlock.commit` and `ItemBlock.close` return what was booked and
credited, and whoever calls them records just that, once: the sum of it is the change of the engine's use.

Everything goes over the `QuotaManager` protocol, so any engine will do.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal, Ticket
from hivetenancy.errors import MisuseError
from hivetenancy.ids import Amounts, CellKey, Dimension, TenantId

from .ledger import check_amount, split
from .protocol import ItemLedger, QuotaManager, Reservation

_SHAPES_KEPT: Final = 4096  # sets of cells that items share; beyond, only their sharing is lost

_Place: TypeAlias = tuple[TenantId, str]


class Settled(NamedTuple):
    """What the end of a block has booked.

    Attributes:
        tickets: What to wait for until it is durable; empty where there is nothing to wait for.
        amounts: What to record as usage, by cell: positive what was charged, negative what was credited. May be empty.
    """

    tickets: tuple[Ticket, ...]
    amounts: Mapping[CellKey, int]


NOTHING: Final = Settled((), MappingProxyType({}))
"""The end of a block that booked nothing."""


class _Item:
    """An item with open blocks, or with a fall that a forgotten block left due."""

    __slots__ = ("blocks", "charge", "held", "last", "place", "pool")

    def __init__(self, place: _Place, charge: Mapping[CellKey, int]) -> None:
        self.place = place
        self.charge = dict(charge)
        self.held: dict[CellKey, int] = {}
        self.pool: list[Reservation] = []
        self.last: Mapping[CellKey, int] | None = None
        self.blocks = 0

    def raises(self, amounts: Amounts) -> dict[CellKey, int]:
        """Return by how much *amounts* pass what the item counts as."""
        return _beyond(amounts, {key: self.counts(key) for key in amounts})

    def counts(self, key: CellKey) -> int:
        return self.charge.get(key, 0) + self.held.get(key, 0)

    def add(self, reservation: Reservation) -> None:
        self.pool.append(reservation)
        for key, amount in reservation.held.items():
            self.held[key] = self.held.get(key, 0) + amount

    def end(self, reservation: Reservation, actual: Amounts | None, now: Instant | None, booked: _Booked) -> None:
        """Commit *reservation* as *actual*; ``None``: release it."""
        self.pool.remove(reservation)
        for key, amount in reservation.held.items():
            self.held[key] -= amount
        if actual is None:
            reservation.release()
            return
        booked.wait_for(reservation.commit(actual, now=now))
        self.book(reservation.committed or {}, booked)

    def book(self, amounts: Mapping[CellKey, int], booked: _Booked, sign: int = 1) -> None:
        for key, amount in amounts.items():
            self.charge[key] = self.charge.get(key, 0) + sign * amount
            booked.amounts[key] = booked.amounts.get(key, 0) + sign * amount


class _Booked:
    """Collects what one call has booked."""

    __slots__ = ("amounts", "tickets")

    def __init__(self) -> None:
        self.amounts: dict[CellKey, int] = {}
        self.tickets: list[Ticket] = []

    def wait_for(self, ticket: Ticket) -> None:
        if not ticket.done:
            self.tickets.append(ticket)

    def settled(self) -> Settled:
        amounts = {key: amount for key, amount in self.amounts.items() if amount}
        return Settled(tuple(self.tickets), amounts) if amounts or self.tickets else NOTHING


class ItemBlock:
    """One open block on one item. It ends once, by `commit` or by `close`; dropped open it warns and frees its hold."""

    __slots__ = ("_amounts", "_charges", "_item", "_open")

    def __init__(self, charges: ItemCharges, item: _Item, amounts: Mapping[CellKey, int]) -> None:
        self._charges = charges
        self._item = item
        self._amounts = amounts
        self._open = True

    @property
    def amounts(self) -> Mapping[CellKey, int]:
        """What the block states; a cell that is not in it is charged 0."""
        return self._amounts

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Settled:
        """Make this the item's charge, and end the block.

        Args:
            actual: What the item really is; a cell that is left out is as stated. More than was stated is a fact, and
                is booked even over the limit.
            now: The present instant; ``None``: the engine reads its clock.

        Returns:
            What to record. Where other blocks on the item are open, what falls free follows when the last one ends.

        Raises:
            MisuseError: The block has ended, or *actual* is more than was stated and the engine cannot note facts. In
                the second case the block is still open.
            ValueError: An amount is negative or no whole number; the block is still open.
        """
        if not self._open:
            raise MisuseError("this block has ended: commit once, before it is left")
        amounts = self._amounts if not actual else _stated({**self._amounts, **actual})
        self._charges._check_facts(self._item, amounts)
        self._open = False
        return self._charges._commit(self._item, amounts, now)

    def close(self, *, now: Instant | None = None) -> Settled:
        """End the block without a word: the charge stays what it was. After a commit it does nothing.

        Returns:
            What to record: credits that were due when the last block on the item ends.
        """
        if not self._open:
            return NOTHING
        self._open = False
        return self._charges._close(self._item, now)

    def __del__(self) -> None:
        if self._open:
            self._charges._dropped.append(self._item)  # touches nothing else: may run anywhere, at any time
            warnings.warn(
                f"a block on an item of {self._item.place[0]} was dropped open: commit or close it",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class ItemCharges:
    """Blocks on items, over a quota engine and a ledger of what items are charged.

    Charges are amounts of durable gauges. A counter or a static limit raises `MisuseError` when a block is opened; an
    ephemeral gauge is held while blocks are open, and never charged.

    Args:
        quota: Any engine. One with ``try_reserve`` answers `try_open`; one with ``note`` takes facts beyond what was
            stated.
        ledger: What items are charged. While blocks on an item are open it shows what is booked, and is asked only
            when the first of them opens.

    Concurrency:
        Belongs to the thread of the engine. Nothing is awaited but the engine's answer in `open`; cancelled there, it
        leaves nothing held.
    """

    def __init__(self, quota: QuotaManager, ledger: ItemLedger) -> None:
        self._quota = quota
        self._ledger = ledger
        self._try_reserve = getattr(quota, "try_reserve", None)
        self._note = getattr(quota, "note", None)
        self._items: dict[_Place, _Item] = {}
        self._dropped: deque[_Item] = deque()
        self._gauges: set[Dimension] = set()

    def try_open(
        self, tenant: TenantId, item: str, amounts: Amounts, *, now: Instant | None = None
    ) -> ItemBlock | Refusal | None:
        """Open a block on *item*, which is to be charged *amounts* from its commit on.

        Args:
            tenant: Whose item.
            item: Its name; unique within the tenant.
            amounts: By cell, each at least 0; a cell that is left out is charged 0, so nothing means deleted.
            now: The present instant; ``None``: the engine reads its clock.

        Returns:
            The block; a refusal, which holds nothing and shows as requested what would have been held in addition; or
            ``None`` where the engine has to wait for its answer. A block that raises nothing is never refused.

        Raises:
            ValueError: An amount is negative or no whole number.
            MisuseError: A cell is a counter or a static limit.
            UnavailableError: The limits of the tenant cannot be told.
        """
        stated = _stated(amounts)
        self._check_gauges(tenant, stated, now)
        known = self._item((tenant, item))
        raised = known.raises(stated)
        if not raised:
            return self._begin(known, stated, None)
        if self._try_reserve is None:
            return None
        answer: Reservation | Refusal | None = self._try_reserve(tenant, raised, now=now)
        if answer is None or isinstance(answer, Refusal):
            return answer
        return self._begin(known, stated, answer)

    async def open(
        self, tenant: TenantId, item: str, amounts: Amounts, *, now: Instant | None = None
    ) -> ItemBlock | Refusal:
        """Open a block as `try_open` does, and wait for the engine if need be.

        Where an engine can only answer by waiting, blocks that wait for it together each hold their own raise until it
        has answered.
        """
        answer = self.try_open(tenant, item, amounts, now=now)
        if answer is None and self._try_reserve is not None:
            # An empty demand brings what the engine has to know, and holds nothing meanwhile.
            asked = await self._quota.reserve(tenant, {}, now=now)
            if isinstance(asked, Refusal):
                return asked
            asked.release()
            answer = self.try_open(tenant, item, amounts, now=now)
        if answer is not None:
            return answer
        stated = _stated(amounts)
        taken = await self._quota.reserve(tenant, self._item((tenant, item)).raises(stated), now=now)
        return taken if isinstance(taken, Refusal) else self._adopt((tenant, item), stated, taken, now)

    # --- the life of an item -----------------------------------------------------------------------------------------

    def _item(self, place: _Place) -> _Item:
        """Return the item with open blocks, or what it would be: it is kept once a block is open."""
        while self._dropped:
            self._abandon(self._dropped.popleft())
        known = self._items.get(place)
        return _Item(place, self._ledger.charged(*place)) if known is None else known

    def _begin(self, item: _Item, stated: Mapping[CellKey, int], reservation: Reservation | None) -> ItemBlock:
        if reservation is not None:
            item.add(reservation)
        item.blocks += 1
        self._items[item.place] = item
        return ItemBlock(self, item, stated)

    def _adopt(
        self, place: _Place, stated: Mapping[CellKey, int], taken: Reservation, now: Instant | None
    ) -> ItemBlock | Refusal:
        """Open a block on what was held while others may have moved the item."""
        try:
            item = self._item(place)
            raised = item.raises(stated)
            lacking = _beyond(raised, taken.held)
            refusal = taken.try_extend(lacking, now=now) if lacking else None
        except BaseException:
            taken.release()
            raise
        if raised and refusal is None:
            return self._begin(item, stated, taken)
        taken.release()
        return self._begin(item, stated, None) if refusal is None else refusal

    def _commit(self, item: _Item, stated: Mapping[CellKey, int], now: Instant | None) -> Settled:
        booked = _Booked()
        item.last = stated
        item.blocks -= 1
        facts = item.raises(stated)
        if facts and self._note is not None:
            self._note(item.place[0], facts, now=now)
            item.book(facts, booked)
        if item.blocks == 0:
            return self._settle(item, booked, now)
        for reservation in list(item.pool):
            short = _beyond(stated, item.charge)
            if any(key in short for key in reservation.held):
                item.end(reservation, {}, now, booked)  # whole, since the rest of it may still be needed
        self._ledger.set_charge(*item.place, _stated(item.charge))
        return booked.settled()

    def _close(self, item: _Item, now: Instant | None) -> Settled:
        item.blocks -= 1
        return NOTHING if item.blocks else self._settle(item, _Booked(), now)

    def _settle(self, item: _Item, booked: _Booked, now: Instant | None) -> Settled:
        """Bring the charge to the last word: commit what it needs of what is held, free the rest, credit the fall."""
        before = _stated(item.charge)
        last = before if item.last is None else item.last
        try:
            for reservation in list(item.pool):
                short = _beyond(last, item.charge)
                taken = {key: min(held, short.get(key, 0)) for key, held in reservation.held.items()}
                item.end(reservation, taken if any(taken.values()) else None, now, booked)
            falls = _beyond(item.charge, last)
            if falls:
                booked.wait_for(self._quota.credit(item.place[0], falls, now=now))
                item.book(falls, booked, -1)
        finally:
            self._items.pop(item.place, None)
            if booked.amounts:
                self._ledger.set_charge(*item.place, _stated(item.charge))
        return booked.settled()

    def _abandon(self, item: _Item) -> None:
        """End a block that nobody ended. What falls free stays due, for nobody is there to record it."""
        item.blocks -= 1
        if item.blocks == 0:
            for reservation in list(item.pool):
                item.end(reservation, None, None, _Booked())
            if item.last is None or not _beyond(item.charge, item.last):
                self._items.pop(item.place, None)

    # --- checks ------------------------------------------------------------------------------------------------------

    def _check_gauges(self, tenant: TenantId, amounts: Mapping[CellKey, int], now: Instant | None) -> None:
        """Ask the engine, once a dimension, whether it could be credited: later would be too late."""
        for key in amounts:
            dimension = split(key)[0]
            if dimension not in self._gauges:
                self._quota.credit(tenant, {key: 0}, now=now)
                self._gauges.add(dimension)

    def _check_facts(self, item: _Item, stated: Mapping[CellKey, int]) -> None:
        if self._note is None and item.raises(stated):
            raise MisuseError("the engine cannot note facts, so an item cannot be charged more than its blocks stated")


class MemoryItemLedger:
    """An `ItemLedger` in memory.

    It takes some 150 bytes an item, beside the item's name, and nothing for an item without charge.
    It is lost with the process: fit for a store that is in memory too. A store that keeps its data knows the sizes of
    what it keeps, and implements `ItemLedger` itself.

    Concurrency:
        Belongs to the thread of the engine.
    """

    def __init__(self) -> None:
        self._tenants: dict[TenantId, dict[str, tuple[tuple[CellKey, ...], *tuple[int, ...]]]] = {}
        self._shapes: dict[tuple[CellKey, ...], tuple[CellKey, ...]] = {}

    def charged(self, tenant: TenantId, item: str) -> Mapping[CellKey, int]:
        """Return what *item* is charged; empty where it is not."""
        row = self._tenants.get(tenant, {}).get(item)
        return {} if row is None else dict(zip(row[0], row[1:], strict=True))

    def set_charge(self, tenant: TenantId, item: str, amounts: Mapping[CellKey, int]) -> None:
        """Set what *item* is charged from now on; nothing forgets the item."""
        if amounts:
            self._tenants.setdefault(tenant, {})[item] = (self._shape(tuple(amounts)), *amounts.values())
            return
        items = self._tenants.get(tenant)
        if items is not None and items.pop(item, None) is not None and not items:
            del self._tenants[tenant]

    def _shape(self, cells: tuple[CellKey, ...]) -> tuple[CellKey, ...]:
        if len(self._shapes) >= _SHAPES_KEPT:
            self._shapes.clear()
        return self._shapes.setdefault(cells, cells)

    def __len__(self) -> int:
        return sum(len(items) for items in self._tenants.values())


def _stated(amounts: Amounts) -> dict[CellKey, int]:
    """Return *amounts* without zeros, checked."""
    for key, amount in amounts.items():
        check_amount(key, amount)
    return {key: amount for key, amount in amounts.items() if amount}


def _beyond(amounts: Mapping[CellKey, int], known: Mapping[CellKey, int]) -> dict[CellKey, int]:
    """Return by how much *amounts* pass *known*, where they do."""
    return {key: amount - known.get(key, 0) for key, amount in amounts.items() if amount > known.get(key, 0)}


if TYPE_CHECKING:
    _ledger: type[ItemLedger] = MemoryItemLedger
