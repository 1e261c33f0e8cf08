"""The reporter passes its contract, and reporters with a planted fault do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hivetenancy.clock import Clock, Instant
from hivetenancy.decision import DONE, Ticket
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.plans import QuotaKind
from hivetenancy.sources import SourceConflict, UsageLine, UsageReply, UsageReport, UsageSink
from hivetenancy.testing.contracts._cases import Case
from hivetenancy.testing.contracts.usage import CASES, UsageHarness
from hivetenancy.usage import Flushes, UsageReporter
from hivetenancy.usage.cumulative import Flight, OpenPeriod, Totals, Window, _Cell
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter
from tests.broken import OneLostUpdate

pytestmark = pytest.mark.filterwarnings("error")


class Harness:
    """The engine that ships, or the same with other totals or another way to record."""

    def __init__(
        self,
        totals: type[Totals] = Totals,
        usage: type[MemoryUsage] = MemoryUsage,
        reporter: type[Reporter] = Reporter,
        **options: Any,
    ) -> None:
        self.totals = totals
        self.usage = usage
        self.reporter = reporter
        self.options = options

    def build(self, sink: UsageSink, clock: Clock) -> tuple[UsageReporter, Flushes]:
        usage = self.usage(clock=clock, **self.options)
        sound = usage._totals
        usage._totals = self.totals(source=sound.sources[-1], writer=sound._writer)
        return usage, self.reporter(usage, sink, clock=clock)


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_reporter_keeps_the_contract(case: Case[UsageHarness]) -> None:
    """The reporter that ships passes each case."""
    await case(Harness())


# --- reporters with a planted fault ---------------------------------------------------------------------------------


class ResetsAfterTheAwait(Totals):
    """Takes whatever is there when the reply comes for reported (upstream D17, D42)."""

    def _acknowledge(self, flight: Flight, reply: UsageReply, open_period: OpenPeriod | None = None) -> int:
        report, cells, _ = flight
        return super()._acknowledge((report, cells, [cell.total for cell in cells]), reply, open_period)


class AlwaysFolded(MemoryUsage):
    """Sound: has all that was recorded in its totals whenever they are looked at."""

    def settle(self, report: UsageReport, outcome: UsageReply | SourceConflict) -> int:
        self._try_fold()
        return super().settle(report, outcome)


class ClearsOnError(Reporter):
    """Drops what it tried to send when that fails (upstream D17: a failed report is lost)."""

    async def flush(self) -> int:
        try:
            return await super().flush()
        except HubUnavailableError:
            totals = self._usage._totals
            for cell in [] if totals._flight is None else totals._flight[1]:
                cell.acked = cell.total
            totals._flight = None
            totals._round.clear()
            raise


class Swallows(Reporter):
    """Says that all is well when it is not (upstream D17: `flush` says Ok on failure)."""

    async def flush(self) -> int:
        try:
            return await super().flush()
        except HubUnavailableError:
            return 0


class SendsIncrements(Totals):
    """Reports what came since, as if the hub added up (upstream D42: a time-out counts twice)."""

    def report(self, *, fresh: str, final: bool = False) -> UsageReport | None:
        report = super().report(fresh=fresh, final=final)
        if report is None or self._flight is None:
            return report
        _, cells, totals = self._flight
        lines = tuple(
            replace(line, value=line.value - cell.acked) for line, cell in zip(report.lines, cells, strict=True)
        )
        report = replace(report, lines=lines)
        self._flight = report, cells, totals
        return report


class Rebuilds(Reporter):
    """Builds a failed report anew, under the next number."""

    async def flush(self) -> int:
        try:
            return await super().flush()
        except HubUnavailableError:
            totals = self._usage._totals
            if totals._flight is not None:
                totals._requeue(totals._flight[1])
            totals._flight = None
            raise


class KeepsItsSource(MemoryUsage):
    """Counts from zero under an old name after a restart (upstream D17: billing drops to near zero)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(source="0" * 32, **options)


class PeriodOfTheReport(MemoryUsage):
    """Books a record in the month in which it is reported."""

    def begin_round(self) -> None:
        waiting, self._inbox = list(self._inbox), type(self._inbox)()
        for _, tenant, cell, _, amount in waiting:
            super().record(tenant, {cell: amount})
        super().begin_round()

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        for cell, amount in amounts.items():
            meter = self._meter(cell)
            if type(amount) is not int or not meter.least <= amount < 2**53:
                raise ValueError("no amount")
            self._inbox.append((None, tenant, cell, meter.kind, amount))
        return DONE


class IgnoresTheInstant(MemoryUsage):
    """Reads its own clock though it was given an instant."""

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        return super().record(tenant, amounts)


class HalfARecord(MemoryUsage):
    """Counts what comes before the fault."""

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        for cell, amount in amounts.items():
            super().record(tenant, {cell: amount}, now=now)
        return DONE


class TakesNobody(MemoryUsage):
    """Counts for a tenant called nothing."""

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        return super().record(tenant or TenantId("default"), amounts, now=now)


class UnguardedSum(MemoryUsage):
    """Adds up in the thread that records, reading and writing in two steps: two threads that meet count once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._slip = OneLostUpdate()

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        wall_us = (self._now() if now is None else now)[1]
        totals, places = self._totals, [(self._meter(cell), cell, amount) for cell, amount in amounts.items()]

        def read() -> list[int]:
            return [totals.total(meter.open(wall_us), tenant, cell) for meter, cell, _ in places]

        def write(found: list[int]) -> None:
            for (meter, cell, amount), before in zip(places, found, strict=True):
                window = meter.open(wall_us)
                change = before + amount - totals.total(window, tenant, cell)
                totals.add(window, tenant, cell, meter.kind, change)

        self._slip.run(self._lock, read, write)
        return DONE


class ForgetsTheResource(Totals):
    def add(self, window: Window | None, tenant: TenantId, cell: CellKey, kind: QuotaKind, amount: int) -> None:
        super().add(window, tenant, cell if isinstance(cell, str) else cell[0], kind, amount)


class ReportsConnections(Totals):
    """Reports gauges of the moment as if they were kept."""

    def add(self, window: Window | None, tenant: TenantId, cell: CellKey, kind: QuotaKind, amount: int) -> None:
        super().add(window, tenant, cell, QuotaKind.CONTRIBUTION if kind is QuotaKind.EPHEMERAL else kind, amount)


class Clamps(Totals):
    """Never lets a gauge fall below zero."""

    def add(self, window: Window | None, tenant: TenantId, cell: CellKey, kind: QuotaKind, amount: int) -> None:
        super().add(window, tenant, cell, kind, max(amount, -self.total(window, tenant, cell)))


class SendsEverything(Totals):
    """Reports each cell each time."""

    def begin_round(self) -> None:
        super().begin_round()
        self._owe_everything()


class OneBigReport(Totals):
    """Sends whatever there is in one report."""

    def _next_cells(self) -> list[_Cell]:
        cells: list[_Cell] = []
        while more := super()._next_cells():
            cells += more
        return cells


class BadSource(Totals):
    """Names its source as it likes."""

    def __init__(self, *, source: str, writer: str) -> None:
        super().__init__(source="node-1", writer=writer)


class TrustsTheHub(Totals):
    """Goes on with what changed after the hub lost history."""

    def _owe_everything(self) -> None:
        pass


class CountsTwice(Totals):
    """Begins a new source with all totals."""

    def _begin_source(self, fresh: str) -> None:
        super()._begin_source(fresh)
        for book in self._books.values():
            for cell in book.values():
                cell.base = 0


class Fights(Totals):
    """Writes on in a source that somebody else writes."""

    def _conflict(self, flight: Flight, conflict: SourceConflict, fresh: str) -> None:
        self._acked_sequence = conflict.last_sequence
        self._sequence = max(self._sequence, conflict.last_sequence)
        self._flight = None
        self._owe_everything()


class TakesBusyForNothing(Totals):
    """Keeps quiet about a cell that is back where it was, though a line of it was refused for the moment."""

    def _acknowledge(self, flight: Flight, reply: UsageReply, open_period: OpenPeriod | None = None) -> int:
        acknowledged = super()._acknowledge(flight, reply, open_period)
        for cell in flight[1]:
            cell.again = False
        return acknowledged


class GivesUp(Totals):
    """Parks a line that was refused for the moment."""

    def _acknowledge(self, flight: Flight, reply: UsageReply, open_period: OpenPeriod | None = None) -> int:
        rejected = tuple(replace(line, permanent=True) for line in reply.rejected)
        return super()._acknowledge(flight, replace(reply, rejected=rejected), open_period)


class Insists(Totals):
    """Sends a line for ever that was refused for good."""

    def _acknowledge(self, flight: Flight, reply: UsageReply, open_period: OpenPeriod | None = None) -> int:
        rejected = tuple(replace(line, permanent=False) for line in reply.rejected)
        return super()._acknowledge(flight, replace(reply, rejected=rejected), open_period)


class ParksTheClosed(Totals):
    """Gives up what the hub closed a period without."""

    def _move(self, cell: _Cell, open_period: OpenPeriod | None) -> bool:
        return False


class CorrectsOnce(Totals):
    """Books what was missing when the period was closed, and loses what comes in for it later."""

    def _correct(self, correction: _Cell, amount: int) -> None:
        if not correction.total:
            super()._correct(correction, amount)


class CorrectsAndForgetsWhy(Totals):
    """Books the rest of a closed period as if it had been used in the open one."""

    def _move(self, cell: _Cell, open_period: OpenPeriod | None) -> bool:
        if open_period is None or cell.window is None:
            return False
        window, _ = open_period(cell.key[1], cell.window)
        if window == cell.window:
            return False
        self.add(window, *cell.key, cell.kind, cell.total - cell.acked)
        cell.corrected_by = self._find(window, cell.key, cell.kind)
        return True


class CorrectsForEver(Totals):
    """Corrects a correction that was refused, and that one, and so on, a round at a time."""

    def _move(self, cell: _Cell, open_period: OpenPeriod | None) -> bool:
        if cell.reason is None:
            return super()._move(cell, open_period)
        cell.queued = True
        self._later.append(cell)
        return True


class NeverDone(MemoryUsage):
    """Gives a ticket that is never done."""

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        super().record(tenant, amounts, now=now)
        return Pending()


class Pending:
    done = False

    def wait(self, timeout: float | None = None) -> bool:
        return False

    def __await__(self) -> Iterator[None]:
        return iter(())


class RestartsInside(Totals):
    """Counts a period that it had dropped from zero in the same source."""

    def drop_closed(self, before_us: int) -> int:
        dropped = super().drop_closed(before_us)
        self._dropped_until = 0
        return dropped


class Skips(Totals):
    """Counts each second record of a cell."""

    def add(self, window: Window | None, tenant: TenantId, cell: CellKey, kind: QuotaKind, amount: int) -> None:
        super().add(window, tenant, cell, kind, 0 if self.total(window, tenant, cell) else amount)


class AsksForNothing(Reporter):
    """Flushes though there is nothing to say."""

    async def flush(self) -> int:
        sent = await super().flush()
        totals = self._usage._totals
        if not sent:
            totals._sequence += 1
            empty: tuple[UsageLine, ...] = ()
            report = UsageReport(
                source=totals.sources[-1],
                writer="",
                sequence=totals._sequence,
                previous_sequence=totals._acked_sequence,
                lines=empty,
            )
            totals._flight = report, [], []
            self._usage.settle(report, await self._sink.report(report))
        return sent


#: Each fault, and the case that is there to catch it.
BROKEN: dict[str, tuple[Harness, str]] = {
    "ResetsAfterTheAwait": (Harness(ResetsAfterTheAwait, usage=AlwaysFolded), "marks_during_a_report_are_kept"),
    "ClearsOnError": (Harness(reporter=ClearsOnError), "an_outage_loses_nothing"),
    "Swallows": (Harness(reporter=Swallows), "an_outage_loses_nothing"),
    "SendsIncrements": (Harness(SendsIncrements), "what_was_reported_is_not_counted_again"),
    "AsksForNothing": (Harness(reporter=AsksForNothing), "what_was_reported_is_not_counted_again"),
    "Rebuilds": (Harness(reporter=Rebuilds), "a_lost_reply_counts_once"),
    "Rebuilds at all": (Harness(reporter=Rebuilds), "a_report_is_frozen_until_its_outcome_is_known"),
    "KeepsItsSource": (Harness(Fights, usage=KeepsItsSource), "a_restart_adds_to_what_was_before"),
    "PeriodOfTheReport": (Harness(usage=PeriodOfTheReport), "a_record_belongs_to_the_period_of_its_instant"),
    "IgnoresTheInstant": (Harness(usage=IgnoresTheInstant), "a_record_belongs_to_the_period_of_its_instant"),
    "HalfARecord": (Harness(usage=HalfARecord), "what_makes_no_sense_is_refused_whole"),
    "TakesNobody": (Harness(usage=TakesNobody), "usage_without_a_tenant_is_refused"),
    "UnguardedSum": (Harness(usage=UnguardedSum), "records_of_many_threads_all_count"),
    "ForgetsTheResource": (Harness(ForgetsTheResource), "cells_are_kept_apart"),
    "ReportsConnections": (Harness(ReportsConnections), "a_gauge_of_the_moment_is_not_reported"),
    "Clamps": (Harness(Clamps), "records_add_up"),
    "Skips": (Harness(Skips), "records_add_up"),
    "SendsEverything": (Harness(SendsEverything), "a_report_says_what_changed"),
    "OneBigReport": (Harness(OneBigReport), "many_cells_take_many_reports"),
    "BadSource": (Harness(BadSource), "reports_follow_each_other"),
    "TrustsTheHub": (Harness(TrustsTheHub), "a_hub_that_forgot_is_told_everything"),
    "CountsTwice": (Harness(CountsTwice), "another_writer_is_left_its_source"),
    "Fights": (Harness(Fights), "another_writer_is_left_its_source"),
    "TakesBusyForNothing": (
        Harness(TakesBusyForNothing),
        "what_was_rejected_for_now_is_said_again_though_it_came_back",
    ),
    "GivesUp": (Harness(GivesUp), "what_is_rejected_for_now_comes_again"),
    "Insists": (Harness(Insists), "what_is_rejected_for_good_stops_nothing_else"),
    "ParksTheClosed": (Harness(ParksTheClosed), "what_belongs_to_a_closed_period_is_booked_in_the_open_one"),
    "CorrectsOnce": (Harness(CorrectsOnce), "what_belongs_to_a_closed_period_is_booked_in_the_open_one"),
    "CorrectsAndForgetsWhy": (
        Harness(CorrectsAndForgetsWhy),
        "what_belongs_to_a_closed_period_is_booked_in_the_open_one",
    ),
    "CorrectsForEver": (Harness(CorrectsForEver), "a_correction_that_is_refused_is_not_tried_for_ever"),
    "NeverDone": (Harness(usage=NeverDone), "a_ticket_is_done_after_the_flush"),
    "RestartsInside": (Harness(RestartsInside), "a_step_of_the_wall_clock_loses_nothing"),
}


def fails(case: Case[UsageHarness], harness: UsageHarness) -> bool:
    """Whether the case finds fault; a fault may also show as an error of the engine."""
    try:
        asyncio.run(asyncio.wait_for(case(harness), 20))
    except Exception:
        return True
    return False


@pytest.mark.parametrize("fault", BROKEN)
def test_a_planted_fault_is_caught(fault: str) -> None:
    """The case that is there for a fault fails on a reporter that has it."""
    harness, case = BROKEN[fault]
    assert fails(CASES.named(case), harness)


def test_each_case_catches_something() -> None:
    """No case of the kit is there for nothing: each fails on one of the broken reporters."""
    assert {str(case) for case in CASES} == {case for _, case in BROKEN.values()}
