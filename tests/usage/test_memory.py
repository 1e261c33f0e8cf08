"""Counting in memory: what is refused, what can be read, and that nobody waits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hivetenancy.clock import HOUR_US, SECOND_US
from hivetenancy.decision import DONE
from hivetenancy.errors import ConfigurationError, MissingTenantError
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import DimensionSpec, QuotaKind
from hivetenancy.sources import RejectCode, RejectedLine, UsageReply
from hivetenancy.testing.clock import ManualClock
from hivetenancy.usage.memory import MemoryUsage

ACME = TenantId("acme")
JANUARY_2100 = 4_102_444_800 * SECOND_US


def made(**options: Any) -> MemoryUsage:
    """Usage on a clock that stands still."""
    return MemoryUsage(**{"clock": ManualClock(), **options})


def test_what_was_recorded_can_be_read_at_once() -> None:
    """A total holds everything recorded, before and after it was reported."""
    usage = made()
    assert usage.record(ACME, {"searches": 2, "storage_bytes": 7, ("vectors", "docs"): 3}) is DONE
    assert usage.total(ACME, "searches", JANUARY_2100) == 2
    usage.begin_round()
    report = usage.next_report()
    assert report is not None
    usage.settle(report, UsageReply(last_sequence=1))
    usage.record(ACME, {"searches": 5, "storage_bytes": -9})
    assert usage.total(ACME, "searches", JANUARY_2100) == 7
    assert usage.total(ACME, "storage_bytes", None) == -2
    assert usage.total(ACME, ("vectors", "docs"), None) == 3
    assert usage.total(ACME, "vectors", None) == usage.total(TenantId("other"), "searches", JANUARY_2100) == 0


@pytest.mark.parametrize(
    ("cell", "start"), [("searches", None), ("searches", JANUARY_2100 + 1), ("keys", 0), ("x", None)]
)
def test_a_cell_that_cannot_be_is_not_read(cell: str, start: int | None) -> None:
    """A period that is none of the dimension's is an error, not zero."""
    with pytest.raises(ValueError, match=r"period|declared"):
        made().total(ACME, cell, start)


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"nonsense": 1}, "nobody declared the dimension 'nonsense'"),
        ({("nonsense", "docs"): 1}, "nobody declared"),
        ({"max_batch": 1}, "static limit"),
        ({("max_batch", "x"): 1}, "static limit"),
        ({("vectors", ""): 1}, "must be a name"),
        ({("vectors", None): 1}, "must be a name"),
        ({"searches": -1}, "never falls"),
        ({"searches": 1.0}, "whole number"),
        ({"searches": True}, "whole number"),
        ({"keys": 2**53}, r"below 2\*\*53"),
        ({"keys": -(2**53)}, r"below 2\*\*53"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(amounts: Any, message: str) -> None:
    """A bad record is a ValueError that names what is wrong; nothing of it is counted."""
    usage = made()
    with pytest.raises(ValueError, match=message):
        usage.record(ACME, {"storage_bytes": 1, **amounts})
    assert usage.total(ACME, "storage_bytes", None) == 0


def test_the_largest_amounts_count() -> None:
    """Just inside the bound, either way, an amount counts."""
    usage = made()
    usage.record(ACME, {"keys": 2**53 - 1, "vectors": 1 - 2**53})
    assert (usage.total(ACME, "keys", None), usage.total(ACME, "vectors", None)) == (2**53 - 1, 1 - 2**53)


def test_usage_is_somebodys() -> None:
    """Without a tenant nothing is counted, and the error says so."""
    for nobody in ("", None):
        with pytest.raises(MissingTenantError):
            made().record(nobody, {"keys": 1})  # type: ignore[arg-type]


def test_dimensions_of_ones_own() -> None:
    """Only what is declared is counted, in periods of the zone that is named."""
    spec = DimensionSpec(name="calls", unit="calls", kind=QuotaKind.COUNTER, period=Period.DAY)
    usage = made(dimensions={"calls": spec}, zone="Asia/Tokyo")
    usage.record(ACME, {"calls": 1})
    start, _ = bounds(Period.DAY, JANUARY_2100, "Asia/Tokyo")
    assert start == JANUARY_2100 - 9 * HOUR_US
    assert usage.total(ACME, "calls", start) == 1
    with pytest.raises(ValueError, match="declared"):
        usage.record(ACME, {"searches": 1})


def test_measured_and_momentary_gauges_are_counted_and_not_reported() -> None:
    """A level is measured by somebody, a gauge of the moment is gone with the process: neither is summed at the hub."""
    level = DimensionSpec(name="disk", unit="bytes", kind=QuotaKind.LEVEL)
    moment = DimensionSpec(name="open", unit="files", kind=QuotaKind.EPHEMERAL)
    usage = made(dimensions={"disk": level, "open": moment})
    usage.record(ACME, {"disk": 5, "open": 1})
    assert (usage.total(ACME, "disk", None), usage.total(ACME, "open", None)) == (5, 1)
    assert usage.unreported == 0


def test_a_source_is_drawn_for_each_life_of_the_totals() -> None:
    """Two processes never share a source by chance, and a given one is checked."""
    one, other = made(), made()
    assert one.sources != other.sources
    assert re.fullmatch("[0-9a-f]{32}", one.sources[0])
    assert made(source="ab" * 16).sources == ("ab" * 16,)


@pytest.mark.parametrize(
    "wrong",
    [{"source": "node-1"}, {"source": "AB" * 16}, {"grace_us": -1}, {"grace_us": 1.5}, {"zone": "Nowhere/At_All"}],
)
def test_a_wrong_setting_is_refused_when_built(wrong: dict[str, Any]) -> None:
    """A setting that cannot be honoured is an error at once."""
    with pytest.raises(ConfigurationError):
        made(**wrong)


def test_memory_follows_cells_and_not_calls() -> None:
    """A recorder folds by itself: entries never pile up, though nobody reads or reports."""
    usage = made()
    for _ in range(10_000):
        usage.record(ACME, {"searches": 1})
        assert len(usage._inbox) <= 64
    assert usage.total(ACME, "searches", JANUARY_2100) == 10_000


def test_a_recorder_does_not_wait_for_the_lock() -> None:
    """While somebody else holds the lock a record is taken all the same, and counted later."""
    usage = made()
    with usage._lock:
        for _ in range(500):
            usage.record(ACME, {"searches": 1})
    assert usage.total(ACME, "searches", JANUARY_2100) == 500


@pytest.mark.parametrize(
    ("period", "zone", "days", "reason"),
    [
        (Period.MONTH, "UTC", 40, "period_closed 2100-01"),
        (Period.MONTH, "Asia/Tokyo", 40, "period_closed 2100-01"),
        (Period.DAY, "UTC", 1, "period_closed 2100-01-01"),
        (Period.HOUR, "Asia/Kolkata", 1, "period_closed 2099-12-31T23:30Z"),
    ],
)
def test_a_correction_names_the_period_it_makes_good(period: Period, zone: str, days: int, reason: str) -> None:
    """The reason of a correction is the closed period in its own calendar, and its place is the open one."""
    clock = ManualClock()
    spec = DimensionSpec(name="hits", unit="hits", kind=QuotaKind.COUNTER, period=period)
    usage = made(dimensions={"hits": spec}, clock=clock, zone=zone)
    usage.record(ACME, {"hits": 3})
    clock.advance(days * 86400)
    usage.begin_round()
    first = usage.next_report()
    assert first is not None
    closed = RejectedLine(index=0, code=RejectCode.PERIOD_CLOSED, permanent=True)
    usage.settle(first, UsageReply(last_sequence=1, rejected=(closed,)))
    second = usage.next_report()
    assert second is not None
    (line,) = second.lines
    assert (line.reason, line.value) == (reason, 3)
    assert line.period_start_us == bounds(period, clock.now()[1], zone)[0]


def test_old_periods_do_not_pile_up() -> None:
    """After years of hours, what is kept is the hours within the grace time."""
    clock = ManualClock()
    spec = DimensionSpec(name="hits", unit="hits", kind=QuotaKind.COUNTER, period=Period.HOUR)
    usage = made(dimensions={"hits": spec}, clock=clock)
    for _ in range(200):
        usage.record(ACME, {"hits": 1})
        usage.begin_round()
        report = usage.next_report()
        assert report is not None
        usage.settle(report, UsageReply(last_sequence=report.sequence))
        usage.drop_closed()
        assert len(usage._totals._books) <= 3
        clock.advance(3600)


def test_whoever_wants_to_be_woken_is() -> None:
    """Once enough cells have changed the recorder wakes the reporter, again until a round begins, and not after."""
    usage, woken = made(), []
    usage.wake_at(3, lambda: woken.append(1))
    for number in range(6):
        usage.record(ACME, {("vectors", f"c{number}"): 1})
    assert woken
    usage.begin_round()
    woken.clear()
    usage.record(ACME, {("vectors", "c0"): 1})
    assert not woken
    usage.wake_at(3, None)
    for number in range(200):
        usage.record(ACME, {("vectors", f"d{number}"): 1})
    assert not woken
