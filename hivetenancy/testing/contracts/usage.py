"""What every `UsageReporter` must do: each record reaches the hub once, in its own cell and period.

The cases hold both ends. They record, they move the clock, and they are the hub: `LedgerHub` keeps receipts as HiveHub
wire 4.6 has them, and loses requests and replies, forgets, rejects or is written by somebody else when told to.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias

from hivetenancy.clock import DAY_US, SECOND_US, Clock
from hivetenancy.errors import HubUnavailableError, TenancyError
from hivetenancy.ids import CellKey, TenantId
from hivetenancy.plans import MAX_AMOUNT
from hivetenancy.sources import (
    RejectCode,
    RejectedLine,
    SourceConflict,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
    UsageSink,
)
from hivetenancy.usage import Flushes, UsageReporter

from ..clock import ManualClock
from ._cases import Cases, switching_often

LINES_MAX: Final = 1000
"""Most lines of a report (HiveHub wire 4.6)."""

Place: TypeAlias = tuple[TenantId, str, str | None, int | None]
"""A cell at the hub: tenant, dimension, resource, start of the period."""


class UsageHarness(Protocol):
    """How a case meets a reporter."""

    def build(self, sink: UsageSink, clock: Clock) -> tuple[UsageReporter, Flushes]:
        """Return a new reporter, as a process that has just started would have it, and what flushes it.

        It counts the canonical dimensions in UTC, reports to *sink* when flushed and only then, and tells the time by
        *clock*. A reporter that flushes itself is both.
        """
        ...


CASES: Final[Cases[UsageHarness]] = Cases()


# --- the hub ---------------------------------------------------------------------------------------------------------


class Fate(Enum):
    """What becomes of a report."""

    LOST = "the request is lost: nothing happens"
    UNANSWERED = "the report is applied, and the reply is lost"


@dataclass
class _Source:
    sequence: int = 0
    report: UsageReport | None = None
    reply: UsageReply | None = None
    values: dict[tuple[Place, str | None], int] = field(default_factory=dict)

    def copy(self) -> _Source:
        return _Source(self.sequence, self.report, self.reply, dict(self.values))


class LedgerHub:
    """A hub that keeps nothing but usage, and can be told to misbehave.

    Attributes:
        fates: What becomes of the next reports, in order; none left: all is well.
        reject: Says of each line whether, and why, it is rejected; ``None``: no line is.
        during: Called while a report is under way.
        received: Every report that came in, refused and repeated ones too.
    """

    def __init__(self) -> None:
        self.fates: deque[Fate] = deque()
        self.reject: Callable[[UsageLine], RejectCode | None] | None = None
        self.during: Callable[[], object] | None = None
        self.received: list[UsageReport] = []
        self._sources: dict[str, _Source] = {}
        self._past: dict[str, list[_Source]] = {}

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Take in *report*, as wire 4.6 says, unless a fate is due."""
        if self.during is not None:
            during, self.during = self.during, None
            during()
        fate = self.fates.popleft() if self.fates else None
        if fate is Fate.LOST:
            raise HubUnavailableError("the request was lost")
        self.received.append(report)
        answer = self._take(report)
        if fate is Fate.UNANSWERED:
            raise HubUnavailableError("the reply was lost")
        return answer

    def _take(self, report: UsageReport) -> UsageReply | SourceConflict:
        stored = self._sources.setdefault(report.source, _Source())
        if stored.sequence == report.sequence and stored.report == report and stored.reply is not None:
            return stored.reply
        if not report.previous_sequence == stored.sequence < report.sequence:
            return SourceConflict(last_sequence=stored.sequence)
        if stored.report is not None and stored.report.final:
            return SourceConflict(last_sequence=stored.sequence)
        self._past.setdefault(report.source, []).append(stored.copy())
        rejected = []
        for index, line in enumerate(report.lines):
            code = self._judge(stored, report.lines[:index], line)
            if code is None:
                stored.values[_place(line), line.reason] = line.value
            else:
                passing = code in (RejectCode.BUSY, RejectCode.PERIOD_NOT_OPEN)
                rejected.append(RejectedLine(index=index, code=code, permanent=not passing))
        stored.sequence, stored.report = report.sequence, report
        stored.reply = UsageReply(last_sequence=report.sequence, rejected=tuple(rejected))
        return stored.reply

    def _judge(self, stored: _Source, before: tuple[UsageLine, ...], line: UsageLine) -> RejectCode | None:
        counter = line.kind is UsageKind.COUNTER
        if any((_place(line), line.reason) == (_place(other), other.reason) for other in before):
            return RejectCode.DUPLICATE_LINE
        if abs(line.value) >= MAX_AMOUNT:
            return RejectCode.OUT_OF_RANGE
        correction = line.kind is UsageKind.CORRECTION
        if correction != (line.reason is not None) or (counter and line.period_start_us is None):
            return RejectCode.KIND_MISMATCH
        if line.period_start_us is not None and not counter and not correction:
            return RejectCode.KIND_MISMATCH
        if counter and line.value < stored.values.get((_place(line), None), 0):
            return RejectCode.REGRESSED
        return None if self.reject is None else self.reject(line)

    def close(self, period_start_us: int) -> None:
        """Take nothing more for a period, whatever else is rejected."""
        before = self.reject

        def closed(line: UsageLine) -> RejectCode | None:
            if line.period_start_us == period_start_us:
                return RejectCode.PERIOD_CLOSED
            return None if before is None else before(line)

        self.reject = closed

    def forget(self, reports: int) -> None:
        """Lose the last *reports* reports of the source that reported last, as a restored copy would."""
        source = self.received[-1].source
        for _ in range(min(reports, len(self._past.get(source, [])))):
            self._sources[source] = self._past[source].pop()

    def usurp(self) -> None:
        """Let another writer go on with the source that reported last, with the very same numbers."""
        self._sources[self.received[-1].source].sequence += 1

    @property
    def sources(self) -> list[str]:
        """The sources that have reported, in order."""
        return list(self._sources)

    def totals(self) -> dict[Place, int]:
        """Everything counted, summed over the sources, corrections in their period; cells of zero are left out."""
        sums: dict[Place, int] = {}
        for source in self._sources.values():
            for (place, _), value in source.values.items():
                sums[place] = sums.get(place, 0) + value
        return {place: value for place, value in sums.items() if value}


def _place(line: UsageLine) -> Place:
    return line.tenant_id, line.dimension, line.resource, line.period_start_us


# --- the cases -------------------------------------------------------------------------------------------------------

ACME: Final = TenantId("acme")
OTHER: Final = TenantId("other")


class _World:
    """One reporter, its hub and its clock."""

    def __init__(self, harness: UsageHarness) -> None:
        self.harness = harness
        self.hub = LedgerHub()
        self.clock = ManualClock()
        self.usage, self.flushing = harness.build(self.hub, self.clock)

    def record(self, tenant: TenantId = ACME, **amounts: int) -> None:
        cells: dict[CellKey, int] = dict(amounts.items())
        self.usage.record(tenant, cells)

    def month(self) -> int:
        """Start of the present month."""
        now = datetime.fromtimestamp(self.clock.now()[1] // SECOND_US, UTC)
        start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return int(start.timestamp()) * SECOND_US

    async def flush(self) -> int | None:
        """Flush; ``None`` if the hub could not be reached."""
        try:
            return await self.flushing.flush()
        except HubUnavailableError:
            return None

    def restart(self) -> None:
        """Be another process."""
        self.usage, self.flushing = self.harness.build(self.hub, self.clock)

    def gauge(self, tenant: TenantId = ACME) -> int:
        """What the hub has counted of the tenant's storage."""
        return self.hub.totals().get((tenant, "storage_bytes", None, None), 0)

    def counter(self, month: int, tenant: TenantId = ACME) -> int:
        """What the hub has counted of the tenant's searches in a month."""
        return self.hub.totals().get((tenant, "searches", None, month), 0)


@CASES.add
async def records_add_up(harness: UsageHarness) -> None:
    """What was recorded in many calls arrives as their sum, credits of a gauge included."""
    world = _World(harness)
    for amount in (5, 7, -3):
        world.record(storage_bytes=amount, searches=abs(amount))
    assert await world.flush() == 2, "flush() must say how many cells were acknowledged"
    assert (world.gauge(), world.counter(world.month())) == (9, 15)
    world.record(storage_bytes=-20)
    await world.flush()
    assert world.gauge() == -11, "the net through this source is signed, and never clamped"


@CASES.add
async def what_was_reported_is_not_counted_again(harness: UsageHarness) -> None:
    """A second flush without a record in between changes nothing, and asks nothing of the hub."""
    world = _World(harness)
    world.record(searches=3)
    await world.flush()
    asked = len(world.hub.received)
    assert await world.flush() == 0
    assert len(world.hub.received) == asked, "there was nothing to report"
    world.record(searches=4)
    await world.flush()
    assert world.counter(world.month()) == 7


@CASES.add
async def cells_are_kept_apart(harness: UsageHarness) -> None:
    """Each tenant, dimension and resource has a total of its own."""
    world = _World(harness)
    world.usage.record(ACME, {"vectors": 1, ("vectors", "docs"): 2, ("vectors", "logs"): 4, "keys": 8})
    world.usage.record(OTHER, {("vectors", "docs"): 16})
    await world.flush()
    assert world.hub.totals() == {
        (ACME, "vectors", None, None): 1,
        (ACME, "vectors", "docs", None): 2,
        (ACME, "vectors", "logs", None): 4,
        (ACME, "keys", None, None): 8,
        (OTHER, "vectors", "docs", None): 16,
    }


@CASES.add
async def a_gauge_of_the_moment_is_not_reported(harness: UsageHarness) -> None:
    """Open connections end with the process: they may be recorded, and the hub hears nothing of them."""
    world = _World(harness)
    world.record(connections=1, requests_in_flight=1, searches=1)
    await world.flush()
    assert list(world.hub.totals()) == [(ACME, "searches", None, world.month())]


@CASES.add
async def a_record_belongs_to_the_period_of_its_instant(harness: UsageHarness) -> None:
    """A counter's amounts are booked in the month they happened in, though they be reported in the next."""
    world = _World(harness)
    january = world.month()
    world.clock.advance(31 * 86400 - 1)
    before = world.clock.now()
    world.record(searches=1)
    world.clock.advance(1)
    february = world.month()
    assert february > january
    world.record(searches=10)
    world.usage.record(ACME, {"searches": 100}, now=before)
    await world.flush()
    assert (world.counter(january), world.counter(february)) == (101, 10)
    world.record(searches=20)
    await world.flush()
    assert (world.counter(january), world.counter(february)) == (101, 30)


@CASES.add
async def what_makes_no_sense_is_refused_whole(harness: UsageHarness) -> None:
    """An undeclared dimension, a static limit, a fraction, a counter that falls: refused, and nothing counted."""
    world = _World(harness)
    wrong: list[Mapping[Any, Any]] = [
        *({"nonsense": 1}, {("nonsense", "docs"): 1}, {"max_batch": 1}, {("vectors", ""): 1}),
        *({"storage_bytes": 1.0}, {"storage_bytes": "1"}, {"storage_bytes": True}, {"storage_bytes": None}),
        *({"searches": -1}, {"storage_bytes": 2**53}, {"storage_bytes": -(2**53)}),
    ]
    for amounts in wrong:
        try:
            world.usage.record(ACME, {"keys": 1, **amounts})
        except ValueError:
            continue
        raise AssertionError(f"{amounts} was counted")
    await world.flush()
    assert world.hub.totals() == {}, "a record that is refused must leave nothing behind"


@CASES.add
async def usage_without_a_tenant_is_refused(harness: UsageHarness) -> None:
    """Code that lost the tenant is told so, rather than counting for nobody."""
    world = _World(harness)
    nobody: Any
    for nobody in (None, ""):
        try:
            world.usage.record(nobody, {"searches": 1})
        except (TenancyError, TypeError, ValueError):
            continue
        raise AssertionError(f"usage of {nobody!r} was counted")


@CASES.add
async def marks_during_a_report_are_kept(harness: UsageHarness) -> None:
    """What is recorded while a report is under way is in the next report."""
    world = _World(harness)
    world.record(searches=1, storage_bytes=1)
    world.hub.during = lambda: world.record(searches=10, storage_bytes=-1)
    await world.flush()
    await world.flush()
    assert (world.counter(world.month()), world.gauge()) == (11, 0)


@CASES.add
async def an_outage_loses_nothing(harness: UsageHarness) -> None:
    """What could not be sent is sent later, with what came in between; a flush that failed says so."""
    world = _World(harness)
    world.hub.fates.extend([Fate.LOST] * 3)
    for amount in (1, 10, 100):
        world.record(searches=amount, storage_bytes=amount)
        assert await world.flush() is None, "flush() must raise HubUnavailableError"
    for _ in range(3):
        await world.flush()
    assert (world.counter(world.month()), world.gauge()) == (111, 111)


@CASES.add
async def a_lost_reply_counts_once(harness: UsageHarness) -> None:
    """A report that was applied without the reporter knowing is not counted a second time."""
    world = _World(harness)
    world.hub.fates.extend([Fate.UNANSWERED] * 3)
    for amount in (1, 10, 100, 1000):
        world.record(searches=amount, storage_bytes=amount)
        await world.flush()
    for _ in range(3):
        await world.flush()
    assert (world.counter(world.month()), world.gauge()) == (1111, 1111)
    assert len(world.hub.sources) == 1, "nobody else wrote the source"


@CASES.add
async def a_report_is_frozen_until_its_outcome_is_known(harness: UsageHarness) -> None:
    """After a lost reply the very same report is sent, whatever was recorded since."""
    world = _World(harness)
    world.hub.fates.append(Fate.UNANSWERED)
    world.record(searches=1)
    await world.flush()
    world.record(searches=10, keys=1)
    await world.flush()
    first, again, *_ = world.hub.received
    assert first == again, "the report was changed before its outcome was known"
    await world.flush()
    assert world.counter(world.month()) == 11


@CASES.add
async def reports_follow_each_other(harness: UsageHarness) -> None:
    """A source is 32 hex digits, its sequence rises, and each report names the one acknowledged before it."""
    world = _World(harness)
    for amount in (1, 2, 3):
        world.record(searches=amount)
        await world.flush()
    reports = world.hub.received
    assert re.fullmatch("[0-9a-f]{32}", reports[0].source)
    assert {report.source for report in reports} == {reports[0].source}
    assert {report.writer for report in reports} == {reports[0].writer}
    assert [report.previous_sequence for report in reports] == [0, *(report.sequence for report in reports[:-1])]
    assert all(report.previous_sequence < report.sequence for report in reports)


@CASES.add
async def a_report_says_what_changed(harness: UsageHarness) -> None:
    """A report holds the cells that changed, once each, and no others."""
    world = _World(harness)
    world.record(searches=1, keys=1)
    world.record(OTHER, keys=1)
    await world.flush()
    world.record(OTHER, keys=1)
    world.record(OTHER, keys=1)
    await world.flush()
    lines = [(line.tenant_id, line.dimension, line.value) for line in world.hub.received[-1].lines]
    assert lines == [(OTHER, "keys", 3)]


@CASES.add
async def many_cells_take_many_reports(harness: UsageHarness) -> None:
    """No report has more than a thousand lines, and one flush sends them all."""
    world = _World(harness)
    for number in range(2_300):
        world.usage.record(ACME, {("vectors", f"c{number}"): number + 1})
    assert await world.flush() == 2_300
    assert max(len(report.lines) for report in world.hub.received) <= LINES_MAX
    assert sum(world.hub.totals().values()) == sum(range(2_301))


@CASES.add
async def a_hub_that_forgot_is_told_everything(harness: UsageHarness) -> None:
    """When the hub lost what it had acknowledged, it gets every total again and not only what changed."""
    world = _World(harness)
    for tenant in (ACME, OTHER):
        world.record(tenant, searches=1, storage_bytes=5)
        await world.flush()
    world.record(ACME, storage_bytes=-5)
    await world.flush()
    world.hub.forget(2)
    world.record(ACME, keys=1)
    for _ in range(3):
        await world.flush()
    assert (world.gauge(ACME), world.gauge(OTHER)) == (0, 5)
    assert (world.counter(world.month(), ACME), world.counter(world.month(), OTHER)) == (1, 1)
    assert world.hub.totals()[(ACME, "keys", None, None)] == 1
    assert len(world.hub.sources) == 1, "the source is ours still"


@CASES.add
async def another_writer_is_left_its_source(harness: UsageHarness) -> None:
    """When somebody else writes the source, a new one begins and counts from what was acknowledged last."""
    world = _World(harness)
    world.record(searches=5, storage_bytes=5)
    await world.flush()
    world.hub.usurp()
    world.record(searches=7, keys=1)
    for _ in range(3):
        await world.flush()
    assert (world.counter(world.month()), world.gauge()) == (12, 5)
    assert len(world.hub.sources) == 2, "a new source must begin"


@CASES.add
async def what_is_rejected_for_now_comes_again(harness: UsageHarness) -> None:
    """A line that the hub could not take at the moment is sent again, while the rest is acknowledged."""
    world = _World(harness)
    world.hub.reject = lambda line: RejectCode.BUSY if line.dimension == "searches" else None
    world.record(searches=3, keys=1)
    assert await world.flush() == 1
    world.record(searches=4)
    world.hub.reject = None
    await world.flush()
    assert world.counter(world.month()) == 7


@CASES.add
async def what_was_rejected_for_now_is_said_again_though_it_came_back(harness: UsageHarness) -> None:
    """A sink over calls may have begun to tell what it could not confirm; so it has to hear that it was taken back."""
    world = _World(harness)
    world.record(storage_bytes=3)
    await world.flush()
    world.hub.reject = lambda line: RejectCode.BUSY if line.dimension == "storage_bytes" else None
    world.record(storage_bytes=4, keys=1)
    await world.flush()
    world.record(storage_bytes=-4)
    world.hub.reject = None
    await world.flush()
    lines = [line.value for report in world.hub.received for line in report.lines if line.dimension == "storage_bytes"]
    assert lines == [3, 7, 3]
    await world.flush()
    assert len(world.hub.received) == 3, "there was nothing left to say"


@CASES.add
async def what_is_rejected_for_good_stops_nothing_else(harness: UsageHarness) -> None:
    """A line that the hub will never take is not sent for ever, and does not hold up the others."""
    world = _World(harness)
    world.hub.reject = lambda line: RejectCode.UNKNOWN_USER if line.tenant_id == OTHER else None
    for amount in (1, 10, 100):
        world.record(OTHER, searches=amount)
        world.record(ACME, searches=amount)
        await world.flush()
    assert world.counter(world.month()) == 111
    lines = [line for report in world.hub.received for line in report.lines if line.tenant_id == OTHER]
    assert len(lines) == 1, "a line that was refused for good was sent again"


@CASES.add
async def what_belongs_to_a_closed_period_is_booked_in_the_open_one(harness: UsageHarness) -> None:
    """What the hub closed a period without is a correction in the open one, signed with its reason, and all of it."""
    world = _World(harness)
    january = world.month()
    world.record(searches=1)
    await world.flush()
    before = world.clock.now()
    world.record(searches=10)
    world.clock.advance(40 * 86400)
    february = world.month()
    world.hub.close(january)
    world.record(searches=100)
    for _ in range(2):
        await world.flush()
    assert (world.counter(january), world.counter(february)) == (1, 110)
    world.usage.record(ACME, {"searches": 1000}, now=before)
    for _ in range(2):
        await world.flush()
    assert (world.counter(january), world.counter(february)) == (1, 1110)
    lines = [line for report in world.hub.received for line in report.lines if line.kind is UsageKind.CORRECTION]
    assert lines
    assert all(line.reason is not None and line.reason.startswith("period_closed") for line in lines)
    assert {line.period_start_us for line in lines} == {february}


@CASES.add
async def a_correction_that_is_refused_is_not_tried_for_ever(harness: UsageHarness) -> None:
    """A hub that takes no correction either is told so once, and everything else goes on."""
    world = _World(harness)
    world.hub.reject = lambda line: RejectCode.PERIOD_CLOSED if line.period_start_us is not None else None
    for amount in (1, 10, 100):
        world.record(searches=amount, storage_bytes=amount)
        await world.flush()
    assert world.gauge() == 111
    refused = [line for report in world.hub.received for line in report.lines if line.dimension == "searches"]
    assert [line.kind for line in refused] == [UsageKind.COUNTER, UsageKind.CORRECTION]


@CASES.add
async def a_restart_adds_to_what_was_before(harness: UsageHarness) -> None:
    """A new process counts from zero in a source of its own, so nothing at the hub falls or is overwritten."""
    world = _World(harness)
    world.record(searches=100, storage_bytes=100)
    await world.flush()
    world.restart()
    world.record(searches=1, storage_bytes=-1)
    await world.flush()
    assert (world.counter(world.month()), world.gauge()) == (101, 99)
    assert len(world.hub.sources) == 2
    assert len({report.writer for report in world.hub.received}) == 2


@CASES.add
async def records_of_many_threads_all_count(harness: UsageHarness) -> None:
    """Threads that record one cell at once, while it is being reported, lose nothing and count nothing twice."""
    world = _World(harness)
    threads, each = 4, 500
    ready = threading.Barrier(threads + 1)

    def work() -> None:
        ready.wait()
        for _ in range(each):
            world.usage.record(ACME, {"searches": 1, "storage_bytes": 2})

    workers = [threading.Thread(target=work) for _ in range(threads)]
    with switching_often():
        for worker in workers:
            worker.start()
        ready.wait()
        while any(worker.is_alive() for worker in workers):
            await world.flush()
        for worker in workers:
            worker.join()
    await world.flush()
    assert (world.counter(world.month()), world.gauge()) == (threads * each, 2 * threads * each)


@CASES.add
async def a_ticket_is_done_after_the_flush(harness: UsageHarness) -> None:
    """The ticket of a record is done once the hub has it, at the latest, and can be waited for."""
    world = _World(harness)
    ticket = world.usage.record(ACME, {"searches": 1})
    await world.flush()
    await ticket
    assert ticket.done
    assert ticket.wait(0)


@CASES.add
async def a_step_of_the_wall_clock_loses_nothing(harness: UsageHarness) -> None:
    """A clock that ran ahead and is set right books some use in the wrong month, and loses none of it."""
    world = _World(harness)
    month = world.month()
    world.record(searches=1)
    await world.flush()
    world.clock.step_wall(us=60 * DAY_US)
    world.record(searches=10)
    await world.flush()
    world.clock.step_wall(us=-60 * DAY_US)
    world.record(searches=100)
    await world.flush()
    assert world.counter(month) == 101
    assert sum(world.hub.totals().values()) == 111
