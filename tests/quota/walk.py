"""One walk over the rules of a quota engine, beside the naive model; drawn by Hypothesis or by a seed.

Every step is done to both and the two are compared: the answer, its numbers, and then each cell. What must hold
whatever the model says is checked as well: nothing is admitted beyond the limit, a refusal changes nothing, each
reservation ends once, and nothing is held when none is open.
"""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from hivetenancy.decision import Refusal
from hivetenancy.errors import MisuseError
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import ANY_RESOURCE, QuotaKind
from hivetenancy.quota.local import LocalQuota, LocalReservation
from hivetenancy.sources import QuotaStanding
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts.quota import ACME, OTHER, limits_for, standing

from .naive import NaiveQuota, NaiveReservation
from .world import SetLimits

CELLS: Final[tuple[CellKey, ...]] = (
    "storage_bytes",
    "operations",
    "connections",
    ("vectors", "docs"),
    ("vectors", "other"),
    ("calls", "docs"),
    "nobody_declared",
    "max_batch",
)
GAUGES: Final[tuple[CellKey, ...]] = ("storage_bytes", ("vectors", "docs"), ("vectors", "other"))
HOUR_US: Final = 3_600_000_000

T = TypeVar("T")


@dataclass
class Pair:
    """One reservation in both engines."""

    real: LocalReservation
    model: NaiveReservation


class Walk:
    """Drives both engines; *draw* picks a whole number from 0 below its argument."""

    def __init__(self, draw: Callable[[int], int], *, threadsafe: bool = False, max_cells: int = 3) -> None:
        self.draw = draw
        self.view = SetLimits()
        self.clock = ManualClock()
        self.real = LocalQuota(self.view, clock=self.clock, threadsafe=threadsafe, max_cells=max_cells)
        self.model = NaiveQuota(self.view, self.clock)
        self.open: list[Pair] = []
        self.ended: list[Pair] = []
        self.others = 0
        self.seen = 0
        self.kept_own: list[tuple[int, int]] = [(0, 0)]
        self.relimit()

    # --- drawing ---

    def pick(self, choices: tuple[T, ...] | list[T]) -> T:
        return choices[self.draw(len(choices))]

    def tenant(self) -> TenantId:
        return self.pick((ACME, ACME, OTHER))

    def demand(self, cells: tuple[CellKey, ...] = CELLS, most: int = 3, amount: int = 7) -> Amounts:
        return {self.pick(cells): self.draw(amount) for _ in range(1 + self.draw(most))}

    # --- rules ---

    def reserve(self) -> None:
        tenant, demand = self.tenant(), self.demand()
        op_id = self.pick((None, None, "op"))
        before = self.picture()
        real = self.real.try_reserve(tenant, demand, op_id=op_id)
        model = self.model.try_reserve(tenant, demand, op_id=op_id)
        if isinstance(real, Refusal) != isinstance(model, Refusal):
            for one in (real, model):
                if isinstance(one, LocalReservation | NaiveReservation):
                    one.release()  # so that what is seen is the difference
        if isinstance(model, Refusal):
            assert isinstance(real, Refusal), f"{dict(demand)} was admitted; the model says {model}"
            assert self.picture() == before, "a refusal changed something"
            assert real.reason is model.reason or len(demand) > 1
            return
        assert isinstance(real, LocalReservation), f"{dict(demand)} was refused: {real}"
        known = next((pair for pair in self.open if pair.real is real or pair.model is model), None)
        if known is not None:
            assert (known.real, known.model) == (real, model)
            return
        self.open.append(Pair(real, model))
        for key in demand:
            self.check_room(tenant, key)

    def check_room(self, tenant: TenantId, key: CellKey) -> None:
        """Used and held together are within the limit right after a reservation took from a cell that had room."""
        for cell in self.real.try_snapshot(tenant) or ():
            name = cell.dimension if cell.resource is None else (cell.dimension, cell.resource)
            if name == key and cell.limit is not None and self.model.held(self.model.slot(tenant, key)):
                slot = self.model.slot(tenant, key)
                assert cell.used + cell.held <= cell.limit or self.model.room(slot, cell.limit) < 0

    def commit(self) -> None:
        self.finish(lambda one: one.commit())

    def commit_actual(self) -> None:
        actual = self.demand(cells=("storage_bytes", "operations", ("vectors", "docs")), amount=10)
        self.finish(lambda one: one.commit(actual))

    def release(self) -> None:
        self.finish(lambda one: one.release())

    def finish(self, how: Callable[[LocalReservation | NaiveReservation], object]) -> None:
        if not self.open:
            return
        pair = self.open.pop(self.draw(len(self.open)))
        assert dict(pair.real.held) == dict(pair.model.held)
        how(pair.real)
        how(pair.model)
        assert pair.real.committed == pair.model.committed
        assert dict(pair.real.held) == {}
        self.ended.append(pair)

    def end_again(self) -> None:
        if self.ended:
            pair = self.pick(self.ended)
            before = self.picture()
            pair.real.release()
            try:
                pair.real.commit()
            except MisuseError:
                assert self.picture() == before
                return
            raise AssertionError("committed twice")

    def extend(self) -> None:
        if self.open:
            pair, more = self.pick(self.open), self.demand(cells=CELLS[:6])
            before = self.picture()
            real, model = pair.real.try_extend(more), pair.model.try_extend(more)
            assert (real is None) == (model is None), f"{dict(more)}: {real} but {model}"
            if real is not None:
                assert self.picture() == before
            assert pair.real.held == pair.model.held

    def drop(self) -> None:
        if self.open:
            pair = self.open.pop(self.draw(len(self.open)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del pair
                gc.collect(0)

    def credit(self) -> None:
        tenant, amounts = self.tenant(), self.demand(cells=GAUGES, most=2, amount=4)
        op_id = self.pick((None, None, None, "delete"))
        self.real.credit(tenant, amounts, op_id=op_id)
        self.model.credit(tenant, amounts, op_id=op_id)

    def note(self) -> None:
        tenant, amounts = self.tenant(), self.demand(cells=("storage_bytes", "operations", "nobody_declared"), most=2)
        self.real.note(tenant, amounts)
        self.model.note(tenant, amounts)

    def relimit(self) -> None:
        """New limits for everybody, with an answer of the hub that may be stale, late or repeated."""
        self.others += self.draw(3)
        for tenant in (ACME, OTHER):
            own = self.model.ours((tenant, "storage_bytes", None))
            self.kept_own.append((own, self.others))
            stale_own, others = self.pick(self.kept_own[-4:])
            hour = bounds(Period.HOUR, self.clock.now()[1] - HOUR_US * self.draw(2))[0]
            self.view.set(
                limits_for(
                    tenant,
                    standing("storage_bytes", self.pick((12, 20, 5, None)), used=others + stale_own, own=stale_own),
                    self.counter(tenant, hour),
                    standing("connections", 3, kind=QuotaKind.EPHEMERAL),
                    standing("vectors", self.pick((4, 9)), resource=ANY_RESOURCE),
                    standing("vectors", 6, resource="docs", used=1),
                    standing("calls", 8, resource=ANY_RESOURCE, period=Period.HOUR),
                    statics={"max_batch": 4},
                )
            )

    def counter(self, tenant: TenantId, hour: int) -> QuotaStanding:
        own = self.model.ours((tenant, "operations", hour))
        stated = standing("operations", self.pick((10, 25)), period=Period.HOUR, start_us=hour, used=own + 1, own=own)
        # The model, like the engine, keeps what was last said of each period it knows.
        return stated

    def tick(self) -> None:
        self.clock.advance(us=self.pick((1, HOUR_US // 3, HOUR_US)))

    def step_back(self) -> None:
        """Set the wall clock back, no further than to a period that is still kept."""
        if self.seen < 1:
            self.seen += 1
            self.clock.step_wall(us=-HOUR_US)

    def ahead(self) -> None:
        self.clock.step_wall(us=HOUR_US)
        self.seen = max(0, self.seen - 1)

    # --- what must hold ---

    def picture(self) -> list[object]:
        """Every cell in which there is something: idle ones may be forgotten at any time."""
        cells = [cell for tenant in (ACME, OTHER) for cell in self.real.try_snapshot(tenant) or ()]
        return [cell for cell in cells if cell.used or cell.held]

    def compare(self) -> None:
        """Hold each cell of the engine against the model."""
        for tenant in (ACME, OTHER):
            for cell in self.real.try_snapshot(tenant) or ():
                key: CellKey = cell.dimension if cell.resource is None else (cell.dimension, cell.resource)
                slot = self.model.slot(tenant, key)
                assert cell.used == max(0, self.model.used(slot)), f"{key} of {tenant}"
                assert cell.held == self.model.held(slot), f"{key} of {tenant}"
                if cell.limit is not None:
                    assert cell.remaining == max(0, self.model.room(slot, cell.limit))
        if not self.open:
            assert all(cell.held == 0 for tenant in (ACME, OTHER) for cell in self.real.try_snapshot(tenant) or ())

    def step(self, rule: str) -> None:
        getattr(self, rule)()
        self.compare()

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End what is open; after a failure without a word, so that the failure is what is seen."""
        for pair in self.open:
            pair.real.release()
            pair.model.release()
        self.open.clear()
        if kind is None:
            self.compare()


RULES: Final = (
    "reserve",
    "reserve",
    "reserve",
    "commit",
    "commit_actual",
    "release",
    "end_again",
    "extend",
    "drop",
    "credit",
    "note",
    "relimit",
    "tick",
    "step_back",
    "ahead",
)


def seeded(seed: int, steps: int, **options: bool) -> Walk:
    """Walk *steps* random steps from *seed*, comparing after each."""
    walk = Walk(random.Random(seed).randrange, **options)
    with walk:
        for _ in range(steps):
            walk.step(walk.pick(RULES))
    return walk
