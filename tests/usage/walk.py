"""One reporter beside a hub that misbehaves and a plain sum of everything recorded; what both machines drive."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from hivetenancy.clock import HOUR_US, SECOND_US
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import CellKey, TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import CANONICAL, DimensionSpec, QuotaKind
from hivetenancy.sources import RejectCode
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts.usage import Fate, LedgerHub, Place
from hivetenancy.usage.cumulative import AlarmKind, Totals
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter

T = TypeVar("T")

HOURLY: Final = DimensionSpec(name="hits", unit="hits", kind=QuotaKind.COUNTER, period=Period.HOUR)
TENANTS: Final = (TenantId("acme"), TenantId("other"))
CELLS: Final[tuple[CellKey, ...]] = ("storage_bytes", ("vectors", "docs"), "searches", "hits")
GAUGES: Final = CELLS[:2]


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise AssertionError("it suspended")


class Walk:
    """The steps that may be taken, in any order, and what must hold after each."""

    def __init__(self, totals: type[Totals] = Totals) -> None:
        self.kind = totals
        self.hub = LedgerHub()
        self.clock = ManualClock()
        self.truth: dict[Place, int] = {}
        self.start()

    def start(self) -> None:
        """Be a process that has just started."""
        self.usage = MemoryUsage(dimensions={**CANONICAL, "hits": HOURLY}, clock=self.clock)
        sound = self.usage._totals
        self.usage._totals = self.kind(source=sound.sources[-1], writer=sound._writer)
        self.reporter = Reporter(self.usage, self.hub, clock=self.clock)
        self.before = dict(self.truth)
        self.disturbed = True  # nothing acknowledged yet that could be forgotten

    # --- steps ------------------------------------------------------------------------------------------------------

    def record(self, tenant: TenantId, cell: CellKey, amount: int, late_us: int = 0) -> None:
        """Record an amount, perhaps with an instant of a while ago."""
        amount = amount if cell in GAUGES else abs(amount)
        monotonic_us, wall_us = self.clock.now()
        self.usage.record(tenant, {cell: amount}, now=(monotonic_us - late_us, wall_us - late_us))
        dimension, resource = (cell, None) if isinstance(cell, str) else cell
        place = (tenant, dimension, resource, _period_start(dimension, wall_us - late_us))
        self.truth[place] = self.truth.get(place, 0) + amount

    def flush(self, fates: list[Fate], during: tuple[TenantId, CellKey, int] | None = None) -> None:
        """Flush before a hub to which *fates* happen, while something else is recorded."""
        self.hub.fates.extend(fates)
        heard = len(self.hub.received)
        if during is not None:
            self.hub.during = lambda: self.record(*during)
        try:
            drive(self.reporter.flush())
        except HubUnavailableError:
            return
        finally:
            self.hub.fates.clear()
            self.hub.during = None
        if self.disturbed and len(self.hub.received) == heard:
            return  # nothing was to be said, so nobody noticed that the hub forgot
        if self.usage.unreported == 0:
            assert self.hub.totals() == self.recorded()
            self.disturbed = False

    def advance(self, us: int) -> None:
        """Let time pass."""
        self.clock.advance(us=us)

    def step_wall(self, us: int) -> None:
        """Set the wall clock, either way."""
        self.clock.step_wall(us=us)

    def reject(self, dimension: str | None) -> None:
        """Let the hub be busy for a dimension, or for none."""
        self.hub.reject = None if dimension is None else _busy(dimension)

    def forget(self, reports: int) -> None:
        """Let the hub lose its latest reports.

        Not where it may not: what was dropped after the grace time cannot be told again, and a hub that lost history
        and is then written by somebody else shows neither.
        """
        if not self.disturbed and self._ours() and not self.usage._totals._dropped_until:
            self.hub.forget(reports)
            self.disturbed = True

    def usurp(self) -> None:
        """Let somebody else write our source; not while a report of ours is in limbo: then nobody can tell its fate."""
        if not self.disturbed and self._ours() and self.usage._totals._flight is None:
            self.hub.usurp()
            self.disturbed = True

    def restart(self) -> None:
        """End the process in good order, and start another."""
        self.reject(None)
        self.flush([])
        if self.usage.unreported == 0:
            drive(self.reporter._flush(final=True))
            self.start()

    def settle(self) -> None:
        """At the end, with all well, the hub has counted just what was recorded."""
        self.reject(None)
        for _ in range(3):
            self.record(TENANTS[0], "storage_bytes", 1)  # something to say, so that a hub that forgot is noticed
            self.flush([])
        assert self.hub.totals() == self.recorded()
        assert self.usage.unreported == 0
        assert not [alarm for alarm in self.usage.alarms if alarm.kind is AlarmKind.PARKED]

    # --- what holds -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """No counter at the hub is above the truth, and no gauge here differs from it."""
        for place, value in self.hub.totals().items():
            assert place[3] is None or value <= self.truth[place], "counted twice"
        for tenant in TENANTS:
            for cell in GAUGES:
                dimension, resource = (cell, None) if isinstance(cell, str) else cell
                place = (tenant, dimension, resource, None)
                expected = self.truth.get(place, 0) - self.before.get(place, 0)
                assert self.usage.total(tenant, cell, None) == expected

    def recorded(self) -> dict[Place, int]:
        """Everything recorded, over all processes; cells of zero are left out."""
        return {place: value for place, value in self.truth.items() if value}

    def _ours(self) -> bool:
        return bool(self.hub.received) and self.hub.received[-1].source == self.usage.sources[-1]


def _busy(dimension: str) -> Any:
    return lambda line: RejectCode.BUSY if line.dimension == dimension else None


def _period_start(dimension: str, wall_us: int) -> int | None:
    if dimension == "hits":
        return wall_us - wall_us % HOUR_US
    if dimension != "searches":
        return None
    now = datetime.fromtimestamp(wall_us // SECOND_US, UTC)
    return int(now.replace(day=1, hour=0, minute=0, second=0).timestamp()) * SECOND_US
