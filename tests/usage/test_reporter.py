"""The loop: when it reports, what it does in an outage, and what is left at stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.sources import RejectCode, SourceConflict, UsageReply, UsageReport
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts.usage import Fate, LedgerHub
from hivetenancy.usage.cumulative import AlarmKind
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import BACKOFF_MAX_S, Reporter

ACME = TenantId("acme")
pytestmark = pytest.mark.anyio


class World:
    """A reporter, its hub and its clock, and the waits that its loop asked for."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.hub = LedgerHub()
        self.usage = MemoryUsage(clock=self.clock)
        self.reporter = Reporter(self.usage, self.hub, clock=self.clock, **{"jitter": lambda: 1.0, **options})
        self.waits: list[float] = []

    def record(self, amount: int = 1) -> None:
        self.usage.record(ACME, {"storage_bytes": amount})

    @property
    def counted(self) -> int:
        return self.hub.totals().get((ACME, "storage_bytes", None, None), 0)

    async def run(self, step: Callable[[int], object], times: int) -> None:
        """Run the loop for so many waits; *step* is called in place of each."""

        async def pause(seconds: float, *, until_woken: bool) -> None:
            self.waits.append(seconds)
            step(len(self.waits))
            self.reporter._stopping = len(self.waits) > times

        self.reporter._pause = pause  # type: ignore[method-assign]
        await self.reporter.run()


async def test_the_loop_reports_on_its_interval() -> None:
    """Each interval what changed goes out, and the state says when that last succeeded."""
    world = World(interval_s=30.0)
    assert world.reporter.last_success_us is None
    await world.run(lambda _: (world.clock.advance(30), world.record()), 3)
    assert world.waits == [30.0] * 4
    assert world.counted == 3
    assert world.reporter.last_success_us == ManualClock().now()[1] + 90_000_000


async def test_the_loop_backs_off_and_recovers() -> None:
    """In an outage the waits double up to a bound, nothing is lost, and afterwards the interval is back."""
    world = World(interval_s=10.0)
    world.hub.fates.extend([Fate.LOST, Fate.UNANSWERED] * 4)
    seen: list[tuple[int, str | None]] = []

    def step(_: int) -> None:
        seen.append((world.reporter.failures, world.reporter.last_error))
        world.record()

    await world.run(step, 10)
    assert world.waits == [10.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, BACKOFF_MAX_S, BACKOFF_MAX_S, 10.0, 10.0]
    assert seen[1] == (1, "the request was lost")
    assert seen[9] == (0, None)
    assert world.reporter.last_error is None
    await world.reporter.flush()
    assert world.counted == 11
    assert world.reporter.unreported == 0


async def test_a_backoff_is_spread() -> None:
    """Of a back-off only a random share is waited, so that servers do not return together."""
    world = World(jitter=lambda: 0.25)
    world.hub.fates.extend([Fate.LOST] * 3)
    await world.run(lambda _: world.record(), 3)
    assert world.waits == [10.0, 0.25, 0.5, 1.0]


async def test_the_hubs_own_wait_is_honoured() -> None:
    """A hub that says when to come back is not asked before."""
    world = World()

    async def report(_: UsageReport) -> UsageReply:
        raise HubUnavailableError("later", retry_after_us=42_000_000)

    world.hub.report = report  # type: ignore[method-assign]
    await world.run(lambda _: world.record(), 1)
    assert world.waits == [10.0, 42.0]


async def test_a_hub_outside_the_wire_is_an_outage() -> None:
    """An answer that cannot be is not used; the report stays as it was and the loop goes on."""
    world = World()
    honest = world.hub.report

    async def report(report: UsageReport) -> UsageReply | SourceConflict:
        await honest(report)
        return UsageReply(last_sequence=report.sequence + 1)

    world.hub.report = report  # type: ignore[method-assign]
    world.record()
    with pytest.raises(HubContractError):
        await world.reporter.flush()
    await world.run(lambda _: None, 1)
    assert world.reporter.failures == 2
    world.hub.report = honest  # type: ignore[method-assign]
    assert await world.reporter.flush() == 1
    assert world.counted == 1


async def test_another_error_reaches_the_supervisor_and_loses_nothing() -> None:
    """A sink that breaks ends the loop with its own error; the next one sends the same report."""
    world = World()
    world.hub.during = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await world.run(lambda _: world.record(), 1)
    assert world.usage._wake is None
    await world.reporter.flush()
    assert world.counted == 1


async def test_a_threshold_wakes_the_loop_from_any_thread() -> None:
    """Enough changed cells bring a report long before its interval, whoever recorded them."""
    world = World(interval_s=3600.0, threshold=5)
    running = asyncio.create_task(world.reporter.run())
    reported = asyncio.Event()
    honest = world.hub.report

    async def report(report: UsageReport) -> UsageReply | SourceConflict:
        reported.set()
        return await honest(report)

    world.hub.report = report  # type: ignore[method-assign]
    await asyncio.sleep(0)

    def work() -> None:
        for number in range(5):
            world.usage.record(ACME, {("vectors", f"c{number}"): 1})

    await asyncio.to_thread(work)
    await asyncio.wait_for(reported.wait(), 10)
    assert await world.reporter.stop() == 0
    await asyncio.wait_for(running, 10)
    assert sum(world.hub.totals().values()) == 5


async def test_while_the_hub_is_away_a_threshold_wakes_nobody() -> None:
    """A back-off is waited out, though cells change meanwhile; stop ends it at once."""
    world = World(threshold=1)
    waiting = asyncio.create_task(world.reporter._pause(3600.0, until_woken=False))
    for _ in range(3):
        world.reporter._woken.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not waiting.done()
    await world.reporter.stop()
    await asyncio.wait_for(waiting, 10)


async def test_a_pause_ends_by_itself() -> None:
    """Unwoken, a pause lasts its time and no longer."""
    world = World()
    await asyncio.wait_for(world.reporter._pause(0.001, until_woken=True), 10)
    await asyncio.wait_for(world.reporter._pause(0.001, until_woken=False), 10)


async def test_stop_reports_what_is_left_and_closes_the_source() -> None:
    """At stop the rest goes out, with what is recorded meanwhile, and a final report ends the source."""
    world = World()
    world.record()
    world.hub.during = world.record
    assert await world.reporter.stop() == 0
    assert world.counted == 2
    assert [report.final for report in world.hub.received] == [False, False, True]
    world.record()
    assert await world.reporter.flush() == 1
    assert world.counted == 3
    assert len(world.hub.sources) == 2


async def test_stop_with_nothing_to_say_asks_nothing() -> None:
    """A reporter that never reported has no source to close, and its loop does not begin."""
    world = World()
    assert await world.reporter.stop() == 0
    await asyncio.wait_for(world.reporter.run(), 10)
    assert world.hub.received == []


async def test_stop_tries_again_within_its_time() -> None:
    """A lost reply at stop is asked again, and the report still counts once."""
    world = World(jitter=lambda: 0.0)
    world.hub.fates.extend([Fate.UNANSWERED, Fate.LOST, Fate.UNANSWERED])
    world.record()
    assert await world.reporter.stop(30.0) == 0
    assert world.counted == 1


async def test_stop_ends_in_time_and_says_what_is_left() -> None:
    """With the hub away, stop gives up at its deadline and returns how many cells the hub lacks."""
    world = World(jitter=lambda: 0.001)
    world.hub.fates.extend([Fate.LOST] * 1_000_000)
    world.usage.record(ACME, {"storage_bytes": 1, "keys": 1})
    assert await world.reporter.stop(0.01) == 2


async def test_stop_passes_on_an_error_of_the_sink() -> None:
    """A `TimeoutError` that is not of the deadline is the sink's own, and is shown."""
    world = World()

    async def report(_: UsageReport) -> UsageReply:
        raise TimeoutError("the sink's own")

    world.hub.report = report  # type: ignore[method-assign]
    world.record()
    with pytest.raises(TimeoutError, match="the sink's own"):
        await world.reporter.stop(60.0)


async def test_one_report_is_under_way_at_a_time() -> None:
    """Two flushes at once send each report once, one after the other."""
    world = World()
    honest, open_now, most = world.hub.report, 0, 0

    async def report(report: UsageReport) -> UsageReply | SourceConflict:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return await honest(report)

    world.hub.report = report  # type: ignore[method-assign]
    for _ in range(3):
        world.record()
        await asyncio.gather(*(world.reporter.flush() for _ in range(4)))
    assert (most, world.counted) == (1, 3)


async def test_a_cancelled_flush_loses_nothing() -> None:
    """Cancelled while the report is under way, before or after it was applied, a flush counts once all the same."""
    for applied in (False, True):
        world = World()
        honest, never = world.hub.report, asyncio.Event()

        async def report(
            report: UsageReport,
            honest: Any = honest,
            never: asyncio.Event = never,
            applied: bool = applied,
        ) -> UsageReply | SourceConflict:
            if applied:
                await honest(report)
            await never.wait()
            raise AssertionError("unreachable")

        world.hub.report = report  # type: ignore[method-assign]
        world.record()
        task = asyncio.create_task(world.reporter.flush())
        await asyncio.sleep(0)
        world.record(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.hub.report = honest  # type: ignore[method-assign]
        await world.reporter.flush()
        await world.reporter.flush()
        assert world.counted == 11


async def test_an_alarm_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """What no retry mends is in the state and in the log, each alarm once."""
    world = World()
    world.hub.reject = lambda line: RejectCode.UNKNOWN_USER if line.dimension == "keys" else None
    with caplog.at_level(logging.ERROR, logger="hivetenancy.usage"):
        for amount in (1, 2):
            world.usage.record(ACME, {"keys": amount, "storage_bytes": amount})
            await world.reporter.flush()
        world.usage.record(ACME, {("vectors", "docs"): 1})
        world.hub.reject = lambda line: RejectCode.KIND_MISMATCH
        await world.reporter.flush()
    assert [alarm.code for alarm in world.reporter.alarms] == [RejectCode.UNKNOWN_USER, RejectCode.KIND_MISMATCH]
    assert len(caplog.records) == 2
    assert [alarm.missing for alarm in world.usage.parked] == [3, 1]


@pytest.mark.parametrize("wrong", [{"interval_s": 0}, {"interval_s": -1}, {"threshold": 0}, {"threshold": 1.5}])
async def test_a_wrong_setting_is_refused_when_built(wrong: dict[str, Any]) -> None:
    """A loop that could not turn is not built."""
    with pytest.raises(ConfigurationError):
        World(**wrong)


# --- what went wrong upstream ---------------------------------------------------------------------------------------


async def test_d17_marks_made_during_the_report_were_lost() -> None:
    """A snapshot, an await, a reset: what came in between was erased. Here it is in the next report."""
    world = World()
    world.record(5)
    world.hub.during = lambda: world.record(7)
    await world.reporter.flush()
    await world.reporter.flush()
    assert world.counted == 12


async def test_d17_a_restart_dropped_the_bill_to_near_zero() -> None:
    """Totals that begin anew in a new process add to what the hub has, instead of replacing it."""
    world = World()
    world.record(1000)
    await world.reporter.stop()
    again = World()
    again.hub = world.hub
    again.reporter = Reporter(again.usage, world.hub, clock=again.clock)
    again.record(1)
    await again.reporter.flush()
    assert world.counted == 1001


async def test_d17_searches_and_deletes_triggered_no_report() -> None:
    """Any change is reported by itself: a search alone, a delete alone."""
    world = World()
    world.usage.record(ACME, {"searches": 1})
    assert await world.reporter.flush() == 1
    world.record(-3)
    assert await world.reporter.flush() == 1
    assert world.counted == -3


async def test_d17_flush_said_ok_on_failure() -> None:
    """A flush that could not report raises, and the final one at stop says what is left."""
    world = World()
    world.hub.fates.append(Fate.LOST)
    world.record()
    with pytest.raises(HubUnavailableError):
        await world.reporter.flush()
    assert world.reporter.unreported == 1


async def test_d35_usage_only_grew() -> None:
    """A delete is a credit: the gauge falls, at the hub too, and below what it was."""
    world = World()
    for amount in (100, -60, -60):
        world.record(amount)
        await world.reporter.flush()
    assert world.counted == -20


async def test_d42_a_time_out_after_the_hub_applied_it_counted_twice() -> None:
    """The very same report is sent again, and the hub knows it."""
    world = World()
    world.hub.fates.extend([Fate.UNANSWERED] * 5)
    world.record(3)
    for _ in range(5):
        with pytest.raises(HubUnavailableError):
            await world.reporter.flush()
    await world.reporter.flush()
    assert world.counted == 3
    assert len(set(world.hub.received)) == 1


async def test_d42_idle_users_were_resent_for_ever() -> None:
    """A tenant that does nothing costs no line."""
    world = World()
    world.record()
    await world.reporter.flush()
    world.usage.record(TenantId("other"), {"keys": 1})
    await world.reporter.flush()
    assert [line.tenant_id for line in world.hub.received[-1].lines] == ["other"]
    assert not [alarm for alarm in world.reporter.alarms if alarm.kind is not AlarmKind.PARKED]


async def test_d44_one_error_lost_the_rest() -> None:
    """A line that cannot be applied does not take the others with it."""
    world = World()
    world.hub.reject = lambda line: RejectCode.UNKNOWN_DIMENSION if line.dimension == "keys" else None
    world.usage.record(ACME, {"keys": 1, "storage_bytes": 2, "vectors": 3})
    assert await world.reporter.flush() == 2
    assert world.counted == 2
