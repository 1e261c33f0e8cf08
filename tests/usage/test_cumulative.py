"""The rules of running totals, one by one; what they add up to is in test_stateful."""

from __future__ import annotations

import pytest

from hivetenancy.errors import HubContractError
from hivetenancy.ids import TenantId
from hivetenancy.plans import MAX_AMOUNT, QuotaKind
from hivetenancy.sources import (
    RejectCode,
    RejectedLine,
    SourceConflict,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)
from hivetenancy.usage.cumulative import ALARMS_MAX, AlarmKind, Totals, Window

ACME = TenantId("acme")
JANUARY: Window = (0, 31)
FEBRUARY: Window = (31, 59)


def made() -> Totals:
    """Totals that have counted three searches."""
    totals = Totals(source="0" * 32, writer="w")
    count(totals, 3)
    return totals


def count(totals: Totals, amount: int, window: Window | None = JANUARY, cell: str = "searches") -> None:
    """Count an amount of a counter, or of a gauge without a period."""
    totals.add(window, ACME, cell, QuotaKind.CONTRIBUTION if window is None else QuotaKind.COUNTER, amount)


def sent(totals: Totals, fresh: str = "f" * 32) -> UsageReport:
    """The next report; there must be one."""
    totals.begin_round()
    report = totals.report(fresh=fresh)
    assert report is not None
    return report


def acknowledge(totals: Totals, *rejected: tuple[int, RejectCode, bool]) -> int:
    """Send the next report and have it acknowledged, but for some lines."""
    report = sent(totals)
    lines = tuple(RejectedLine(index=index, code=code, permanent=permanent) for index, code, permanent in rejected)
    return totals.settle(report, UsageReply(last_sequence=report.sequence, rejected=lines), fresh="f" * 32)


def test_a_report_is_handed_out_until_it_is_settled() -> None:
    """The same object comes back, whatever is counted, until its outcome is known."""
    totals = made()
    report = sent(totals)
    count(totals, 4)
    assert sent(totals) is report
    assert totals.unreported == 2
    assert totals.settle(report, UsageReply(last_sequence=1), fresh="") == 1
    assert [line.value for line in sent(totals).lines] == [7]


def test_a_change_that_nets_to_nothing_needs_no_line() -> None:
    """A gauge that came back to what the hub knows is not reported."""
    totals = made()
    acknowledge(totals)
    count(totals, 5, None, "keys")
    count(totals, -5, None, "keys")
    assert totals.changed == 1
    totals.begin_round()
    assert totals.report(fresh="") is None
    assert totals.unreported == 0


@pytest.mark.parametrize(
    "reply",
    [
        UsageReply(last_sequence=2),
        UsageReply(last_sequence=1, rejected=(RejectedLine(index=1, code=RejectCode.BUSY, permanent=False),)),
        UsageReply(last_sequence=1, rejected=(RejectedLine(index=-1, code=RejectCode.BUSY, permanent=False),)),
        UsageReply(last_sequence=1, rejected=(RejectedLine(index=0, code=RejectCode.BUSY, permanent=False),) * 2),
        SourceConflict(last_sequence=0),
    ],
)
def test_an_answer_that_cannot_be_is_not_used(reply: UsageReply | SourceConflict) -> None:
    """What is no answer to this report changes nothing; the report stays under way and is sent again."""
    totals = made()
    report = sent(totals)
    with pytest.raises(HubContractError):
        totals.settle(report, reply, fresh="f" * 32)
    assert totals.report(fresh="") is report
    assert totals.sources == ("0" * 32,)
    assert not totals.alarms


def test_only_the_report_under_way_can_be_settled() -> None:
    """An answer that comes a second time is an error of the caller."""
    totals = made()
    report = sent(totals)
    reply = UsageReply(last_sequence=1)
    totals.settle(report, reply, fresh="")
    with pytest.raises(ValueError, match="not under way"):
        totals.settle(report, reply, fresh="")


def test_lost_history_is_told_again_from_where_the_hub_stands() -> None:
    """Each total goes out again, those of zero included, after the number where the hub stands; and an alarm."""
    totals = made()
    acknowledge(totals)
    count(totals, 5, None, "keys")
    acknowledge(totals)
    count(totals, -5, None, "keys")
    acknowledge(totals)
    count(totals, 1)
    assert totals.settle(sent(totals), SourceConflict(last_sequence=1), fresh="f" * 32) == 0
    report = totals.report(fresh="f" * 32)
    assert report is not None
    assert (report.previous_sequence, report.sequence, report.source) == (1, 5, "0" * 32)
    assert {(line.dimension, line.value) for line in report.lines} == {("searches", 4), ("keys", 0)}
    assert [alarm.kind for alarm in totals.alarms] == [AlarmKind.HISTORY_LOST]


def test_another_writer_gets_the_source_and_we_a_new_one() -> None:
    """The new source counts from the last acknowledged totals, from sequence one, with an alarm naming the old one."""
    totals = made()
    acknowledge(totals)
    count(totals, 4)
    totals.settle(sent(totals), SourceConflict(last_sequence=9), fresh="f" * 32)
    report = totals.report(fresh="")
    assert report is not None
    assert (report.source, report.sequence, report.previous_sequence) == ("f" * 32, 1, 0)
    assert [line.value for line in report.lines] == [4]
    assert totals.sources == ("0" * 32, "f" * 32)
    assert totals.total(JANUARY, ACME, "searches") == 7
    assert [(alarm.kind, alarm.source) for alarm in totals.alarms] == [(AlarmKind.FOREIGN_WRITER, "0" * 32)]


def test_a_hub_that_disowns_every_source_is_not_believed() -> None:
    """A conflict on a source that was drawn just now is a fault of the hub, and begins no further source."""
    totals = made()
    totals.settle(sent(totals), SourceConflict(last_sequence=9), fresh="f" * 32)
    report = totals.report(fresh="")
    assert report is not None
    with pytest.raises(HubContractError):
        totals.settle(report, SourceConflict(last_sequence=9), fresh="e" * 32)
    assert len(totals.sources) == 2


def test_a_parked_cell_is_counted_and_not_sent() -> None:
    """What the hub refuses for good is kept, with what is missing there, while the rest moves on."""
    totals = made()
    count(totals, 1, None, "keys")
    assert acknowledge(totals, (0, RejectCode.PERIOD_CLOSED, True)) == 1
    count(totals, 4)
    count(totals, 1, None, "keys")
    assert [line.dimension for line in sent(totals).lines] == ["keys"]
    (alarm,) = totals.alarms
    assert (alarm.kind, alarm.code, alarm.missing) == (AlarmKind.PARKED, RejectCode.PERIOD_CLOSED, 3)
    assert (alarm.tenant_id, alarm.dimension, alarm.resource, alarm.period_start_us) == (ACME, "searches", None, 0)
    assert [parked.missing for parked in totals.parked] == [7]
    assert totals.total(JANUARY, ACME, "searches") == 7


@pytest.mark.parametrize("code", list(RejectCode))
def test_the_hub_says_whether_a_refusal_is_for_good(code: RejectCode) -> None:
    """A line refused for the moment comes again in the next round, and not in this one."""
    totals = made()
    acknowledge(totals, (0, code, False))
    assert totals.report(fresh="") is None
    assert totals.unreported == 1
    assert [line.value for line in sent(totals).lines] == [3]
    assert not totals.parked


def test_a_total_that_no_line_can_hold_is_parked() -> None:
    """A total of 2**53 is not sent: some reader would round it."""
    totals = made()
    count(totals, MAX_AMOUNT - 4)
    acknowledge(totals)
    count(totals, 1)
    totals.begin_round()
    assert totals.report(fresh="") is None
    assert [(alarm.code, alarm.missing) for alarm in totals.alarms] == [(RejectCode.OUT_OF_RANGE, 1)]


def test_alarms_are_bounded() -> None:
    """However often something goes wrong, the latest alarms are kept and no more."""
    totals = Totals(source="0" * 32, writer="w")
    for number in range(ALARMS_MAX + 5):
        count(totals, 1, None, f"c{number}")
    while totals.unreported:
        lines = len(sent(totals).lines)
        report = totals.report(fresh="")
        assert report is not None
        rejected = tuple(RejectedLine(index=i, code=RejectCode.UNKNOWN_DIMENSION, permanent=True) for i in range(lines))
        totals.settle(report, UsageReply(last_sequence=report.sequence, rejected=rejected), fresh="")
    assert len(totals.alarms) == ALARMS_MAX
    assert len(totals.parked) == ALARMS_MAX + 5


def test_old_periods_are_dropped_once_acknowledged() -> None:
    """A counter goes when its period is over and the hub has it; what is owed, parked or a gauge stays."""
    totals = made()
    count(totals, 1, JANUARY, "tokens")
    count(totals, 2, None, "keys")
    count(totals, 3, FEBRUARY)
    totals.begin_round()
    report = totals.report(fresh="")
    assert report is not None
    assert totals.drop_closed(100) == 0, "it is under way"
    dimensions = [line.dimension for line in report.lines]
    rejected = RejectedLine(index=dimensions.index("tokens"), code=RejectCode.UNKNOWN_DIMENSION, permanent=True)
    totals.settle(report, UsageReply(last_sequence=1, rejected=(rejected,)), fresh="")
    assert totals.drop_closed(31) == 0, "its end is not before that"
    assert totals.drop_closed(32) == 1
    assert totals.total(JANUARY, ACME, "searches") == 0
    assert totals.total(JANUARY, ACME, "tokens") == 1
    assert totals.total(None, ACME, "keys") == 2
    assert totals.total(FEBRUARY, ACME, "searches") == 3
    assert totals.drop_closed(100) == 1


def test_a_period_that_comes_back_is_counted_in_a_new_source() -> None:
    """What was dropped restarts from zero where it can be added, not where it would be taken for a fall."""
    totals = made()
    count(totals, 8, None, "keys")
    acknowledge(totals)
    totals.drop_closed(100)
    count(totals, 5)
    report = sent(totals, "e" * 32)
    assert (report.source, report.sequence, [line.value for line in report.lines]) == ("e" * 32, 1, [5])
    totals.settle(report, UsageReply(last_sequence=1), fresh="")
    count(totals, 1, None, "keys")
    assert [line.value for line in sent(totals).lines] == [1], "the gauge goes on from what the old source holds"


def test_what_the_old_source_owes_goes_before_a_new_one() -> None:
    """A period that came back waits until a hub that lost history has been told everything in the old source."""
    totals = made()
    for _ in range(2):
        count(totals, 4, None, "keys")
        acknowledge(totals)
    totals.drop_closed(100)
    count(totals, 1, None, "keys")
    report = sent(totals)
    count(totals, 5)
    totals.settle(report, SourceConflict(last_sequence=1), fresh="")
    owed = sent(totals)
    assert (owed.source, [(line.dimension, line.value) for line in owed.lines]) == ("0" * 32, [("keys", 9)])
    totals.settle(owed, UsageReply(last_sequence=owed.sequence), fresh="")
    assert totals.report(fresh="e" * 32) is None
    later = sent(totals, "e" * 32)
    assert (later.source, [(line.dimension, line.value) for line in later.lines]) == ("e" * 32, [("searches", 5)])


def refuse(totals: Totals, window: Window, code: RejectCode = RejectCode.PERIOD_CLOSED) -> UsageLine:
    """Send the next report, of one line, and refuse it for good while *window* is the open period."""
    report = sent(totals)
    (line,) = report.lines
    reply = UsageReply(last_sequence=report.sequence, rejected=(RejectedLine(index=0, code=code, permanent=True),))
    totals.settle(report, reply, fresh="f" * 32, open_period=lambda _cell, _window: (window, "period_closed 2100-01"))
    return line


MARCH: Window = (59, 90)


def test_what_a_closed_period_lacks_is_a_correction() -> None:
    """It is booked in the open period in the same round, and what still comes in for the closed one follows it."""
    totals = made()
    acknowledge(totals)
    count(totals, 4)
    refuse(totals, FEBRUARY)
    assert totals.unreported == 1
    count(totals, 10)
    count(totals, 100, FEBRUARY)
    lines = {line.kind: line for line in sent(totals).lines}
    correction = lines[UsageKind.CORRECTION]
    assert (correction.value, correction.period_start_us, correction.reason) == (14, 31, "period_closed 2100-01")
    assert lines[UsageKind.COUNTER].value == 100
    assert totals.total(JANUARY, ACME, "searches") == 17
    assert totals.total(FEBRUARY, ACME, "searches") == 114, "as the hub has it, correction included"
    assert not totals.alarms


def test_a_correction_moves_on_while_periods_close() -> None:
    """After a long outage the correction itself comes too late: it is booked in the next period, and not parked."""
    totals = made()
    refuse(totals, FEBRUARY)
    count(totals, 4)
    assert refuse(totals, MARCH).value == 7
    count(totals, 10)
    (line,) = sent(totals).lines
    assert (line.kind, line.value, line.period_start_us) == (UsageKind.CORRECTION, 17, 59)
    assert [totals.total(window, ACME, "searches") for window in (FEBRUARY, MARCH)] == [0, 17]
    assert not totals.alarms


@pytest.mark.parametrize("code", [RejectCode.PERIOD_CLOSED, RejectCode.KIND_MISMATCH])
def test_a_correction_that_is_refused_is_parked(code: RejectCode) -> None:
    """Where there is no later period, or the refusal is another, the alarm says what is missing and of which period."""
    totals = made()
    refuse(totals, FEBRUARY)
    refuse(totals, FEBRUARY, code)
    count(totals, 4)
    totals.begin_round()
    assert totals.report(fresh="") is None
    (alarm,) = totals.alarms
    assert (alarm.kind, alarm.code, alarm.missing) == (AlarmKind.PARKED, code, 3)
    assert (alarm.period_start_us, alarm.reason) == (31, "period_closed 2100-01")
    assert [parked.missing for parked in totals.parked] == [7]


def test_a_closed_cell_is_kept_as_long_as_its_correction() -> None:
    """What comes in late finds the correction as long as that can grow; then both go."""
    totals = made()
    refuse(totals, FEBRUARY)
    acknowledge(totals)
    assert totals.drop_closed(40) == 0
    count(totals, 4)
    assert [line.value for line in sent(totals).lines] == [7]
    acknowledge(totals)
    assert totals.drop_closed(60) == 2
    assert totals.total(JANUARY, ACME, "searches") == 0


def test_a_correction_goes_on_in_a_new_source() -> None:
    """When somebody else takes the source, what the hub acknowledged of a correction is not said again."""
    totals = made()
    refuse(totals, FEBRUARY)
    acknowledge(totals)
    count(totals, 4)
    totals.settle(sent(totals), SourceConflict(last_sequence=9), fresh="e" * 32)
    (line,) = sent(totals).lines
    assert (line.kind, line.value) == (UsageKind.CORRECTION, 4)


def test_history_lost_of_a_closed_period_is_an_alarm() -> None:
    """A hub that forgot, and closed the period since, cannot be told again; the alarm names what it may lack."""
    totals = made()
    acknowledge(totals)
    count(totals, 1, None, "keys")
    totals.settle(sent(totals), SourceConflict(last_sequence=0), fresh="f" * 32)
    report = sent(totals)
    index = [line.dimension for line in report.lines].index("searches")
    rejected = (RejectedLine(index=index, code=RejectCode.PERIOD_CLOSED, permanent=True),)
    reply = UsageReply(last_sequence=report.sequence, rejected=rejected)
    totals.settle(report, reply, fresh="", open_period=lambda _cell, _window: (FEBRUARY, "period_closed 2100-01"))
    *_, alarm = totals.alarms
    assert (alarm.kind, alarm.dimension, alarm.missing) == (AlarmKind.HISTORY_LOST, "searches", 3)
    totals.begin_round()
    assert totals.report(fresh="") is None


def test_a_final_report_closes_the_source() -> None:
    """It is sent once, when nothing is left to say; what comes later is counted in a new source."""
    totals = made()
    totals.begin_round()
    first = totals.report(fresh="", final=True)
    assert first is not None
    assert (len(first.lines), first.final) == (1, False)
    totals.settle(first, UsageReply(last_sequence=1), fresh="")
    last = totals.report(fresh="", final=True)
    assert last is not None
    assert (last.lines, last.final, last.previous_sequence) == ((), True, 1)
    totals.settle(last, UsageReply(last_sequence=2), fresh="")
    assert totals.report(fresh="", final=True) is None
    count(totals, 2)
    later = sent(totals, "e" * 32)
    assert (later.source, later.sequence, [line.value for line in later.lines]) == ("e" * 32, 1, [2])


def test_a_source_with_something_left_to_say_stays_open() -> None:
    """While a line waits to be sent again, or there never was a report, nothing is closed."""
    totals = made()
    acknowledge(totals, (0, RejectCode.BUSY, False))
    assert totals.report(fresh="", final=True) is None
    untouched = Totals(source="0" * 32, writer="w")
    assert untouched.report(fresh="", final=True) is None
