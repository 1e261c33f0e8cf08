"""What items are charged: any interleaving of blocks ends with the last word charged once, and the records add up."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal
from hivetenancy.errors import MisuseError
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.periods import Period
from hivetenancy.quota import QuotaManager, Reservation
from hivetenancy.quota.items import NOTHING, ItemBlock, ItemCharges, MemoryItemLedger, Settled
from hivetenancy.quota.local import LocalQuota
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts.quota import ACME, OTHER, limits_for, standing
from tests.tiers import examples

from .world import SetLimits

BYTES, KEYS = "storage_bytes", "keys"


class World:
    """An engine, a ledger, and the usage that a caller would have recorded."""

    def __init__(self, limit: int = 100, *, charges: type[ItemCharges] = ItemCharges, only_async: bool = False) -> None:
        self.view = SetLimits()
        self.clock = ManualClock()
        self.view.set(
            limits_for(ACME, standing(BYTES, limit), standing(KEYS, 10), standing("calls", 9, period=Period.DAY))
        )
        self.quota = LocalQuota(self.view, clock=self.clock)
        self.ledger = MemoryItemLedger()
        engine: QuotaManager = OnlyAsync(self.quota) if only_async else self.quota
        self.charges = charges(engine, self.ledger)
        self.recorded: dict[CellKey, int] = {}

    def open(self, item: str, **amounts: int) -> ItemBlock:
        block = self.charges.try_open(ACME, item, amounts)
        assert isinstance(block, ItemBlock), block
        return block

    def record(self, settled: Settled) -> Settled:
        for key, amount in settled.amounts.items():
            self.recorded[key] = self.recorded.get(key, 0) + amount
        return settled

    def put(self, item: str, **amounts: int) -> Settled:
        return self.record(self.open(item, **amounts).commit())

    def cells(self) -> dict[CellKey, tuple[int, int]]:
        cells = self.quota.try_snapshot(ACME) or ()
        return {cell.dimension: (cell.used, cell.held) for cell in cells if cell.used or cell.held}

    def charged(self, item: str) -> dict[CellKey, int]:
        return dict(self.ledger.charged(ACME, item))


class OnlyAsync:
    """An engine that can only answer by waiting, and cannot note facts."""

    def __init__(self, quota: LocalQuota) -> None:
        self.quota = quota
        self.credit = quota.credit

    async def reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Reservation | Refusal:
        await asyncio.sleep(0)
        answer = await self.quota.reserve(tenant, demand, op_id=op_id, now=now)
        return answer


def test_an_overwrite_costs_the_difference() -> None:
    """Growing charges what was added, shrinking credits what was lost, deleting gives all back."""
    world = World()
    assert world.put("a", storage_bytes=40, keys=1).amounts == {BYTES: 40, KEYS: 1}
    assert world.put("a", storage_bytes=60, keys=1).amounts == {BYTES: 20}
    assert world.put("a", storage_bytes=10, keys=1).amounts == {BYTES: -50}
    assert world.charged("a") == {BYTES: 10, KEYS: 1}
    assert world.put("a").amounts == {BYTES: -10, KEYS: -1}
    assert world.charged("a") == {}
    assert world.cells() == {}
    assert len(world.ledger) == 0


def test_a_full_tenant_can_shrink_and_delete() -> None:
    """At the limit only what grows is refused, and the refusal says what was missing."""
    world = World(limit=50)
    world.put("a", storage_bytes=30)
    world.put("b", storage_bytes=20)
    refusal = world.charges.try_open(ACME, "a", {BYTES: 31})
    assert isinstance(refusal, Refusal)
    assert (refusal.dimension, refusal.requested, refusal.limit) == (BYTES, 1, 50)
    assert world.cells() == {BYTES: (50, 0)}
    world.view.set(limits_for(ACME, standing(BYTES, 5)))
    world.put("a", storage_bytes=29)
    world.put("b")
    assert world.cells() == {BYTES: (29, 0)}


def test_concurrent_overwrites_charge_once() -> None:
    """Ten writers of one item hold its largest size once, and the last to commit is what is charged."""
    world = World(limit=20)
    blocks = [world.open("a", storage_bytes=size) for size in (5, 20, 11, 20, 1, 20, 20, 3, 20, 7)]
    assert world.cells() == {BYTES: (0, 20)}
    for block in blocks:
        world.record(block.commit())
    assert world.cells() == {BYTES: (7, 0)}
    assert world.recorded == {BYTES: 7}
    assert world.charged("a") == {BYTES: 7}


def test_nothing_falls_while_another_block_is_open() -> None:
    """A delete that commits beside an open overwrite gives nothing back until that one ends."""
    world = World()
    world.put("a", storage_bytes=50)
    overwrite, delete = world.open("a", storage_bytes=60), world.open("a")
    assert world.record(delete.commit()) == NOTHING
    assert world.cells() == {BYTES: (50, 10)}
    assert world.record(overwrite.close()).amounts == {BYTES: -50}
    assert world.cells() == {}
    assert world.charged("a") == {}


def test_a_failed_block_changes_nothing() -> None:
    """Closing without a commit frees the hold and leaves the charge; afterwards the block can do nothing more."""
    world = World()
    world.put("a", storage_bytes=5)
    block = world.open("a", storage_bytes=50)
    assert block.close() == NOTHING
    assert block.close() == NOTHING
    with pytest.raises(MisuseError):
        block.commit()
    assert world.cells() == {BYTES: (5, 0)}
    committed = world.open("a", storage_bytes=6)
    world.record(committed.commit())
    assert committed.close() == NOTHING
    with pytest.raises(MisuseError):
        committed.commit()
    assert world.cells() == {BYTES: (6, 0)}


def test_an_item_may_turn_out_larger_or_smaller() -> None:
    """A commit that says what the item really is books just that, over the limit too."""
    world = World(limit=50)
    world.record(world.open("a", storage_bytes=10, keys=1).commit({BYTES: 4}))
    assert world.charged("a") == {BYTES: 4, KEYS: 1}
    settled = world.record(world.open("a", storage_bytes=10, keys=1).commit({BYTES: 70}))
    assert settled.amounts == {BYTES: 66}
    assert world.cells() == {BYTES: (70, 0), KEYS: (1, 0)}
    block = world.open("a")
    with pytest.raises(ValueError, match="storage_bytes"):
        block.commit({BYTES: -1})
    block.close()


def test_a_counter_is_no_charge() -> None:
    """What a period counts cannot be given back, so a block with a counter is misuse from the start."""
    world = World()
    with pytest.raises(MisuseError):
        world.charges.try_open(ACME, "a", {"calls": 1})
    with pytest.raises(ValueError, match="storage_bytes"):
        world.charges.try_open(ACME, "a", {BYTES: -1})
    assert world.cells() == {}


def test_items_of_tenants_are_apart() -> None:
    """One name in two tenants is two items."""
    world = World()
    world.view.set(limits_for(OTHER, standing(BYTES, 100)))
    world.put("a", storage_bytes=5)
    block = world.charges.try_open(OTHER, "a", {BYTES: 7})
    assert isinstance(block, ItemBlock)
    assert block.commit().amounts == {BYTES: 7}
    assert world.charged("a") == {BYTES: 5}


def test_a_dropped_block_frees_its_hold() -> None:
    """A block that nobody ended warns, holds nothing from the next call on, and what it left due is credited later."""
    world = World()
    world.put("a", storage_bytes=30)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        world.open("a", storage_bytes=40)
        delete = world.open("a")
        forgotten = world.open("a", storage_bytes=90)
        world.record(delete.commit())
        del forgotten
        gc.collect()
    assert [warning.category for warning in seen] == [ResourceWarning, ResourceWarning]
    world.put("b", storage_bytes=1)
    assert world.cells() == {BYTES: (31, 0)}
    world.record(world.open("a", storage_bytes=2).close())
    assert world.cells() == {BYTES: (1, 0)}
    assert world.recorded == {BYTES: 1}


@pytest.mark.anyio
async def test_limits_are_fetched_without_holding() -> None:
    """Where the limits have to be fetched first, two writers of one item still hold its size once."""
    world = World(limit=20)
    world.view.cold = True
    assert world.charges.try_open(ACME, "a", {BYTES: 20}) is None
    answers = await asyncio.gather(*(world.charges.open(ACME, "a", {BYTES: 20}) for _ in range(3)))
    assert world.cells() == {BYTES: (0, 20)}
    for block in answers:
        assert isinstance(block, ItemBlock)
        world.record(block.commit())
    assert world.recorded == {BYTES: 20}
    unknown = await world.charges.open(OTHER, "a", {BYTES: 1})
    assert isinstance(unknown, Refusal)


@pytest.mark.anyio
async def test_an_engine_that_can_only_wait() -> None:
    """With one, blocks open by waiting; facts beyond the stated size are misuse, which leaves the block open."""
    world = World(limit=20, only_async=True)
    assert world.charges.try_open(ACME, "a", {BYTES: 5}) is None
    first = await world.charges.open(ACME, "a", {BYTES: 5})
    assert isinstance(first, ItemBlock)
    with pytest.raises(MisuseError):
        first.commit({BYTES: 6})
    world.record(first.commit())
    assert isinstance(await world.charges.open(ACME, "a", {BYTES: 21}), Refusal)
    smaller = world.charges.try_open(ACME, "a", {BYTES: 3})
    assert isinstance(smaller, ItemBlock)
    world.record(smaller.commit())
    assert world.recorded == {BYTES: 3}
    assert world.cells() == {BYTES: (3, 0)}


@pytest.mark.anyio
@pytest.mark.parametrize("only_async", [False, True], ids=["cold", "only async"])
async def test_cancelled_while_opening(only_async: bool) -> None:
    """Wherever the wait for a block is cancelled, nothing stays held and the item is as it was."""
    for steps in range(7):
        world = World(only_async=only_async)
        world.view.cold = True
        task = asyncio.ensure_future(world.charges.open(ACME, "a", {BYTES: 5}))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        (answer,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(answer, ItemBlock):
            answer.close()
        world.view.cold = False
        assert world.cells() == {}


# --- every interleaving -----------------------------------------------------------------------------------------------


def interleave(draw: Callable[[int], int], steps: int, charges: type[ItemCharges] = ItemCharges) -> None:
    """Open, commit, fail and drop blocks on a few items in any order, and hold each moment against a plain model."""
    world = World(limit=30, charges=charges)
    last: dict[str, dict[CellKey, int]] = {}
    opened: list[tuple[str, dict[CellKey, int], ItemBlock]] = []
    try:
        for _ in range(steps):
            if draw(3) == 0 or not opened:
                item = "abc"[draw(3)]
                amounts: dict[CellKey, int] = {BYTES: draw(16), KEYS: draw(2)} if draw(4) else {}
                before = world.cells()
                block = world.charges.try_open(ACME, item, amounts)
                if isinstance(block, ItemBlock):
                    opened.append((item, amounts, block))
                else:
                    assert world.cells() == before
            else:
                which, commits = draw(len(opened)), draw(3)  # drawn before a block is taken: drawing may raise
                item, amounts, block = opened.pop(which)
                if commits:
                    last[item] = {key: amount for key, amount in amounts.items() if amount}
                    world.record(block.commit())
                else:
                    world.record(block.close())
            used, held = world.cells().get(BYTES, (0, 0))
            assert used + held <= 30
            assert used == world.recorded.get(BYTES, 0) == sum(world.charged(item).get(BYTES, 0) for item in "abc")
            busy = {item for item, _, _ in opened}
            for item in set("abc") - busy:
                assert world.charged(item) == last.get(item, {}), item
            if not busy:
                assert held == 0
    finally:
        for _, _, block in opened:
            block.close()


def test_blocks_in_any_order() -> None:
    """Random interleavings from fixed seeds: use is the sum of charges and of records, and never over the limit."""
    for seed in range(examples(60, 1000)):
        interleave(random.Random(seed).randrange, 40)


@settings(max_examples=examples(30, 1000))
@given(st.data())
def test_blocks_in_a_drawn_order(data: st.DataObject) -> None:
    """The same, as Hypothesis draws and shrinks it."""
    interleave(lambda below: data.draw(st.integers(0, below - 1)), data.draw(st.integers(1, 15)))


class ChargesEachWriter(ItemCharges):
    """Broken: each block holds its whole size, so concurrent overwrites charge twice."""

    def _begin(self, item, stated, reservation):  # type: ignore[no-untyped-def]
        block = super()._begin(item, stated, reservation)
        item.charge = {}
        return block


class CreditsAtOnce(ItemCharges):
    """Broken: gives back what falls free while another block may still commit more."""

    def _commit(self, item, stated, now):  # type: ignore[no-untyped-def]
        open_blocks, item.blocks = item.blocks, 1
        settled = super()._commit(item, stated, now)
        item.blocks = open_blocks - 1
        return settled


class RecordsStatements(ItemCharges):
    """Broken: reports what was stated instead of what was booked."""

    def _commit(self, item, stated, now):  # type: ignore[no-untyped-def]
        return Settled(super()._commit(item, stated, now).tickets, dict(stated))


class ForgetsTheFall(ItemCharges):
    """Broken: a smaller overwrite or a delete gives nothing back."""

    def _commit(self, item, stated, now):  # type: ignore[no-untyped-def]
        return super()._commit(item, {**item.charge, **stated}, now)


@pytest.mark.parametrize("broken", [ChargesEachWriter, CreditsAtOnce, RecordsStatements, ForgetsTheFall])
def test_a_broken_charge_is_caught(broken: type[ItemCharges]) -> None:
    """The interleavings find each planted fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises((AssertionError, ValueError, KeyError)):
            for seed in range(300):
                interleave(random.Random(seed).randrange, 40, broken)
        gc.collect()
