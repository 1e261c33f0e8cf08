"""Usage received: counted once however often it is sent, refused whole or by the line, and never lost in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hivetenancy.clock import HOUR_US
from hivetenancy.hub.book import UsageBook
from hivetenancy.hub.service import HubService
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import ANY_RESOURCE, QuotaKind, QuotaLimit
from hivetenancy.sources import (
    QuotaStanding,
    RejectCode,
    SourceConflict,
    UsageLine,
    UsageReply,
    UsageReport,
)
from hivetenancy.testing import ManualClock
from tests.tiers import examples

pytestmark = pytest.mark.anyio

A, B = "a" * 32, "b" * 32


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still, at the start of 2100."""
    return ManualClock()


@pytest.fixture
def hub(clock: ManualClock) -> HubService:
    """A control plane without tenants."""
    return HubService(clock=clock)


@pytest.fixture
def acme(hub: HubService) -> TenantId:
    """A tenant."""
    return hub.add_tenant("acme", plan="pro")


def gauge(tenant: TenantId, value: int, *, dimension: str = "keys", resource: str | None = None) -> UsageLine:
    """The running total of a durable gauge."""
    return UsageLine(tenant_id=tenant, dimension=dimension, resource=resource, kind=QuotaKind.CONTRIBUTION, value=value)


def counter(tenant: TenantId, value: int, start_us: int | None, *, dimension: str = "operations") -> UsageLine:
    """The running total of a counter."""
    return UsageLine(
        tenant_id=tenant,
        dimension=dimension,
        resource=None,
        kind=QuotaKind.COUNTER,
        value=value,
        period_start_us=start_us,
    )


def report(
    *lines: UsageLine, source: str = A, sequence: int = 1, previous: int = 0, final: bool = False, writer: str = "w"
) -> UsageReport:
    """A report of one source."""
    return UsageReport(
        source=source, writer=writer, sequence=sequence, previous_sequence=previous, lines=lines, final=final
    )


def month(clock: ManualClock) -> int:
    """Start of the present month."""
    return bounds(Period.MONTH, clock.now()[1])[0]


async def standing(
    hub: HubService, tenant: TenantId, *place: str | None, sources: tuple[str, ...] = ()
) -> QuotaStanding:
    """One quota with its standing."""
    dimension, resource = place if len(place) == 2 else (place[0], None)
    found = (await hub.limits(tenant, sources=sources)).limits
    assert found is not None
    return next(cell for cell in found.quotas if (cell.limit.dimension, cell.limit.resource) == (dimension, resource))


# --- once ------------------------------------------------------------------------------------------------------------


async def test_a_repeat_gives_the_first_reply(hub: HubService, acme: TenantId) -> None:
    """The same report again changes nothing, and is answered as it was the first time, rejections included."""
    first = report(gauge(acme, 7), gauge(TenantId("nobody"), 1))
    reply = await hub.report(first)
    assert reply == await hub.report(replace(first, lines=tuple(first.lines)))
    assert isinstance(reply, UsageReply)
    assert (reply.last_sequence, [line.index for line in reply.rejected]) == (1, [1])
    assert hub.used(acme, "keys") == 7


async def test_the_first_reply_is_kept_though_the_answer_would_differ_now(hub: HubService) -> None:
    """A repeat after the tenant came into being still says that its line was rejected: nothing was counted."""
    other = hub.add_tenant("other", plan="free")
    sent = report(gauge(other, 1))
    hub.delete_tenant(other)
    first = await hub.report(sent)
    assert isinstance(first, UsageReply)
    assert [line.code for line in first.rejected] == [RejectCode.UNKNOWN_USER]
    assert await hub.report(sent) == first


async def test_totals_follow_one_another(hub: HubService, acme: TenantId) -> None:
    """Each report replaces its source's totals; a gauge may fall, below nothing too."""
    for sequence, value in enumerate((5, 9, 2, -3), start=1):
        await hub.report(report(gauge(acme, value), sequence=sequence, previous=sequence - 1))
        assert hub.used(acme, "keys") == value


async def test_a_gap_in_the_sequence_is_allowed(hub: HubService, acme: TenantId) -> None:
    """What counts is the report that it follows, not that numbers are consecutive."""
    await hub.report(report(gauge(acme, 1), sequence=10))
    assert await hub.report(report(gauge(acme, 2), sequence=70, previous=10)) == UsageReply(last_sequence=70)
    assert hub.used(acme, "keys") == 2


CONFLICTS: dict[str, Callable[[TenantId], UsageReport]] = {
    "other bytes": lambda acme: report(gauge(acme, 99), sequence=2, previous=1),
    "another writer": lambda acme: report(gauge(acme, 5), sequence=2, previous=1, writer="copy"),
    "a report skipped": lambda acme: report(gauge(acme, 99), sequence=4, previous=3),
    "an old one": lambda acme: report(gauge(acme, 1), sequence=1, previous=0),
    "from the start": lambda acme: report(gauge(acme, 99), sequence=3, previous=0),
}


@pytest.mark.parametrize("conflict", CONFLICTS)
async def test_a_conflict_changes_nothing(hub: HubService, acme: TenantId, conflict: str) -> None:
    """A report that does not follow the stored one is refused whole, telling what is stored."""
    await hub.report(report(gauge(acme, 1)))
    await hub.report(report(gauge(acme, 5), sequence=2, previous=1))
    assert await hub.report(CONFLICTS[conflict](acme)) == SourceConflict(last_sequence=2)
    assert hub.used(acme, "keys") == 5
    assert await hub.report(report(gauge(acme, 6), sequence=3, previous=2)) == UsageReply(last_sequence=3)


async def test_an_unknown_source_with_a_past_is_a_conflict(hub: HubService, acme: TenantId) -> None:
    """A source that was acknowledged before and is unknown here learns that history was lost."""
    assert await hub.report(report(gauge(acme, 1), sequence=5, previous=4)) == SourceConflict(last_sequence=0)


async def test_a_closed_source_stays_counted(hub: HubService, acme: TenantId) -> None:
    """The last report of a source can be repeated, nothing follows it, and its totals stay."""
    last = report(gauge(acme, 4), final=True)
    reply = await hub.report(last)
    assert await hub.report(last) == reply
    assert await hub.report(report(gauge(acme, 9), sequence=2, previous=1)) == SourceConflict(last_sequence=1)
    assert hub.used(acme, "keys") == 4


async def test_sources_are_added(hub: HubService, acme: TenantId) -> None:
    """What counts is the sum over sources; each is asked for by name as one's own part of it."""
    await hub.report(report(gauge(acme, 5)))
    await hub.report(report(gauge(acme, -2), source=B))
    for sources, own in (((), 0), ((A,), 5), ((B,), -2), ((A, B), 3), (("c" * 32,), 0)):
        found = await standing(hub, acme, "keys", sources=sources)
        assert (found.used, found.own) == (3, own)
    assert hub.used_by_source(acme, "keys") == {A: 5, B: -2}


async def test_used_less_own_does_not_move_with_own_reports(hub: HubService, acme: TenantId) -> None:
    """``used - own`` is the others' part, whenever one's own report arrives (wire 4.5)."""
    await hub.report(report(gauge(acme, 10), source=B))
    for sequence in range(1, 6):
        await hub.report(report(gauge(acme, sequence * 3), sequence=sequence, previous=sequence - 1))
        found = await standing(hub, acme, "keys", sources=(A,))
        assert found.used - found.own == 10


async def test_usage_makes_no_revision(hub: HubService, acme: TenantId) -> None:
    """Reports are no changes: the feed stays silent."""
    before = hub.revision
    await hub.report(report(gauge(acme, 5)))
    assert hub.revision == before


# --- cells -----------------------------------------------------------------------------------------------------------


async def test_each_resource_has_a_cell_of_its_own(hub: HubService, acme: TenantId) -> None:
    """Vectors are counted for each collection, and the limit that all share is shown with each in use."""
    lines = [gauge(acme, 3, dimension="vectors", resource="a"), gauge(acme, 4, dimension="vectors", resource="b")]
    await hub.report(report(*lines, gauge(acme, 0, dimension="vectors", resource="empty")))
    for name, used in (("a", 3), ("b", 4), (ANY_RESOURCE, 0)):
        found = await standing(hub, acme, "vectors", name, sources=(A,))
        assert (found.used, found.own, found.limit.limit) == (used, used, 100_000)
    answer = (await hub.limits(acme)).limits
    assert answer is not None
    assert [cell.limit.resource for cell in answer.quotas if cell.limit.dimension == "vectors"] == ["*", "a", "b"]
    assert (hub.used(acme, "vectors", resource="a"), hub.used(acme, "vectors")) == (3, 0)


async def test_a_resource_with_a_limit_of_its_own_is_shown_once(hub: HubService, acme: TenantId) -> None:
    """A collection that has its own limit stands with that alone."""
    await hub.report(report(gauge(acme, 3, dimension="vectors", resource="a")))
    hub.set_limit(acme, "vectors", 9, resource="a")
    found = await standing(hub, acme, "vectors", "a")
    assert (found.used, found.limit.limit) == (3, 9)


async def test_a_counter_begins_anew_with_its_period(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A counter's standing is of the present period, and says when that ends."""
    start, end = bounds(Period.MONTH, clock.now()[1])
    await hub.report(report(counter(acme, 8, start)))
    found = await standing(hub, acme, "operations")
    assert (found.used, found.period_start_us, found.resets_at_us) == (8, start, end)
    clock.advance(us=end - clock.now()[1])
    found = await standing(hub, acme, "operations")
    assert (found.used, found.period_start_us) == (0, end)
    late = report(counter(acme, 9, start), counter(acme, 1, end), sequence=2, previous=1)
    assert await hub.report(late) == UsageReply(last_sequence=2)
    assert hub.used(acme, "operations") == 1


async def test_what_no_plan_limits_is_counted_all_the_same(hub: HubService, acme: TenantId) -> None:
    """A fact of a canonical dimension is not dropped because the tenant's plan does not name it."""
    hub.define_plan(replace(hub.plans["pro"], quotas=()))
    assert await hub.report(report(gauge(acme, 5))) == UsageReply(last_sequence=1)
    assert hub.used(acme, "keys") == 5


async def test_a_dimension_of_another_plan_is_known(hub: HubService, acme: TenantId) -> None:
    """A dimension that any plan declares can be reported, by tenants of other plans too."""
    widgets = QuotaLimit(dimension="widgets", limit=1, kind=QuotaKind.CONTRIBUTION)
    hub.define_plan(replace(hub.plans["free"], quotas=(widgets,)))
    await hub.report(report(gauge(acme, 5, dimension="widgets")))
    assert hub.used(acme, "widgets") == 5


async def test_usage_of_a_deleted_tenant_is_gone(hub: HubService, acme: TenantId) -> None:
    """Usage is taken while a tenant is being deleted, and rejected when it is."""
    hub.begin_deletion(acme)
    assert await hub.report(report(gauge(acme, 1))) == UsageReply(last_sequence=1)
    hub.delete_tenant(acme)
    reply = await hub.report(report(gauge(acme, 2), sequence=2, previous=1))
    assert isinstance(reply, UsageReply)
    assert [line.code for line in reply.rejected] == [RejectCode.UNKNOWN_USER]


# --- rejected lines --------------------------------------------------------------------------------------------------

BIG = 2**53
REJECTED: dict[str, tuple[RejectCode, bool, Callable[[TenantId, int], UsageLine]]] = {
    "nobody's": (RejectCode.UNKNOWN_USER, True, lambda _acme, _now: gauge(TenantId("nobody"), 1)),
    "of nothing": (RejectCode.UNKNOWN_DIMENSION, True, lambda acme, _: gauge(acme, 1, dimension="widgets")),
    "of another kind": (RejectCode.KIND_MISMATCH, True, lambda acme, _: gauge(acme, 1, dimension="operations")),
    "a counter without period": (RejectCode.KIND_MISMATCH, True, lambda acme, _: counter(acme, 1, None)),
    "a gauge with a period": (
        RejectCode.KIND_MISMATCH, True, lambda acme, now: replace(gauge(acme, 1), period_start_us=now),
    ),
    "an ephemeral gauge": (
        RejectCode.KIND_MISMATCH,
        True,
        lambda acme, _: replace(gauge(acme, 1, dimension="connections"), kind=QuotaKind.EPHEMERAL),
    ),
    "a static limit": (
        RejectCode.KIND_MISMATCH,
        True,
        lambda acme, _: replace(gauge(acme, 1, dimension="max_batch"), kind=QuotaKind.STATIC),
    ),
    "too large": (RejectCode.OUT_OF_RANGE, True, lambda acme, _: gauge(acme, BIG)),
    "too small": (RejectCode.OUT_OF_RANGE, True, lambda acme, _: gauge(acme, -BIG)),
    "a negative counter": (RejectCode.OUT_OF_RANGE, True, lambda acme, now: counter(acme, -1, now)),
    "no number": (RejectCode.OUT_OF_RANGE, True, lambda acme, _: gauge(acme, 1.5)),  # type: ignore[arg-type]
    "within a period": (RejectCode.OUT_OF_RANGE, True, lambda acme, now: counter(acme, 1, now - 1)),
    "before time": (RejectCode.OUT_OF_RANGE, True, lambda acme, _: counter(acme, 1, -1)),
    "long ago": (RejectCode.PERIOD_CLOSED, True, lambda acme, _: counter(acme, 1, 0)),
    "ahead": (RejectCode.PERIOD_NOT_OPEN, False, lambda acme, now: counter(acme, 1, now + HOUR_US)),
}  # fmt: skip


@pytest.mark.parametrize("case", REJECTED)
async def test_a_line_is_rejected_alone(hub: HubService, acme: TenantId, clock: ManualClock, case: str) -> None:
    """A line that cannot be counted is rejected with its code while the rest of the report counts."""
    code, permanent, line = REJECTED[case]
    good = [gauge(acme, 1, dimension="queues"), gauge(acme, 2, dimension="nodes")]
    reply = await hub.report(report(good[0], line(acme, month(clock)), good[1]))
    assert isinstance(reply, UsageReply)
    assert [(found.index, found.code, found.permanent) for found in reply.rejected] == [(1, code, permanent)]
    assert (hub.used(acme, "queues"), hub.used(acme, "nodes")) == (1, 2)


async def test_a_counter_never_falls(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A counter below its source's last total is rejected; equal is fine, and other sources do not matter."""
    start = month(clock)
    await hub.report(report(counter(acme, 100, start), source=B))
    for sequence, (value, codes) in enumerate([(5, []), (5, []), (4, [RejectCode.REGRESSED]), (6, [])], start=1):
        reply = await hub.report(report(counter(acme, value, start), sequence=sequence, previous=sequence - 1))
        assert isinstance(reply, UsageReply)
        assert [line.code for line in reply.rejected] == codes
    assert hub.used(acme, "operations") == 106


async def test_a_cell_stands_in_a_report_once(hub: HubService, acme: TenantId) -> None:
    """The second line of a cell is rejected, whatever it says."""
    reply = await hub.report(report(gauge(acme, 1), gauge(acme, 2)))
    assert isinstance(reply, UsageReply)
    assert [(line.index, line.code) for line in reply.rejected] == [(1, RejectCode.DUPLICATE_LINE)]
    assert hub.used(acme, "keys") == 1


async def test_a_period_stays_open_for_its_grace(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A counter is taken until an hour after its period's end, to the microsecond."""
    start, end = bounds(Period.MONTH, clock.now()[1])
    clock.advance(us=end + HOUR_US - 1 - clock.now()[1])
    assert await hub.report(report(counter(acme, 1, start))) == UsageReply(last_sequence=1)
    clock.advance(us=1)
    reply = await hub.report(report(counter(acme, 2, start), sequence=2, previous=1))
    assert isinstance(reply, UsageReply)
    assert [line.code for line in reply.rejected] == [RejectCode.PERIOD_CLOSED]


MALFORMED: dict[str, dict[str, Any]] = {
    "source": {"source": "A" * 32},
    "short source": {"source": "a" * 31},
    "sequence of nothing": {"sequence": 0},
    "going back": {"sequence": 1, "previous_sequence": 1},
    "before the start": {"previous_sequence": -1},
}


@pytest.mark.parametrize("wrong", MALFORMED)
async def test_a_malformed_report_is_an_error(hub: HubService, acme: TenantId, wrong: str) -> None:
    """A report that no client may build is an error, not a conflict."""
    with pytest.raises(ValueError, match="usage report"):
        await hub.report(replace(report(gauge(acme, 1)), **MALFORMED[wrong]))


async def test_a_report_is_bounded(hub: HubService, acme: TenantId) -> None:
    """A report holds a thousand lines."""
    lines = [gauge(acme, 1, dimension="vectors", resource=str(number)) for number in range(1_001)]
    with pytest.raises(ValueError, match="1000 lines"):
        await hub.report(report(*lines))
    assert await hub.report(report(*lines[:1_000])) == UsageReply(last_sequence=1)


# --- a lossy line between source and hub -----------------------------------------------------------------------------


class AddsRepeats(UsageBook):
    """A broken book: what is sent again is added again."""

    __slots__ = ()

    def receive(self, report: UsageReport, judge: Any) -> UsageReply | SourceConflict:
        before = dict(self._sources)
        reply = super().receive(report, judge)
        if before.get(report.source) == self._sources.get(report.source) and isinstance(reply, UsageReply):
            line = report.lines[0]
            cells = self._totals[line.tenant_id, line.dimension]
            cells[line.resource, line.period_start_us][report.source] += line.value
        return reply


class TakesAnything(UsageBook):
    """A broken book: it does not look which report another one follows."""

    __slots__ = ()

    def receive(self, report: UsageReport, judge: Any) -> UsageReply | SourceConflict:
        self._sources.pop(report.source, None)
        return super().receive(replace(report, previous_sequence=0), judge)


class ForgetsRejections(UsageBook):
    """A broken book: a repeat is acknowledged whole, though a line of it was never counted."""

    __slots__ = ()

    def receive(self, report: UsageReport, judge: Any) -> UsageReply | SourceConflict:
        known = self._sources.get(report.source)
        reply = super().receive(report, judge)
        return UsageReply(last_sequence=report.sequence) if known and known.last == report else reply


class _Client:
    """A source that keeps one report in flight, frozen, until its outcome is known."""

    def __init__(self, source: str, tenant: TenantId) -> None:
        self.source, self.tenant = source, tenant
        self.total = self.acknowledged = 0
        self.flight: UsageReport | None = None
        self.sent: list[UsageReport] = []
        self.answers: dict[int, UsageReply | SourceConflict] = {}

    def send(self) -> UsageReport:
        """The report in flight, made now if there is none; one of its lines can never be counted."""
        if self.flight is None:
            lines = (gauge(self.tenant, self.total), gauge(TenantId("nobody"), 1))
            sequence = self.acknowledged + 1
            self.flight = report(*lines, source=self.source, sequence=sequence, previous=self.acknowledged)
            self.sent.append(self.flight)
        return self.flight


async def lossy_walk(hub: HubService, seed: int) -> None:
    """Two sources count, over a line that loses replies and delivers old reports again.

    After each delivery the hub's total must be that of the newest report of each source, and each report must be
    answered as it was the first time, or as a conflict once another one followed.
    """
    draw = random.Random(seed)
    acme = hub.add_tenant("acme", plan="pro")
    clients = [_Client(source, acme) for source in (A, B)]
    for _ in range(40):
        client = draw.choice(clients)
        client.total += draw.randrange(-3, 9)
        again = draw.random() < 0.3 and client.sent
        one = draw.choice(client.sent) if again else client.send()
        answer = await hub.report(one)
        if one is client.sent[-1]:
            assert isinstance(answer, UsageReply)
            assert client.answers.setdefault(one.sequence, answer) == answer
            if not again and draw.random() < 0.6:  # the reply arrives
                client.acknowledged, client.flight = one.sequence, None
        else:
            assert answer == SourceConflict(last_sequence=client.sent[-1].sequence)
        assert hub.used(acme, "keys") == sum(client.sent[-1].lines[0].value for client in clients if client.sent)


def with_book(book: type[UsageBook]) -> HubService:
    """A control plane with another book."""
    hub = HubService(clock=ManualClock())
    hub._state.usage = book()
    return hub


@pytest.mark.parametrize("seed", range(examples(20, 500)))
async def test_a_lossy_line_loses_and_doubles_nothing(seed: int) -> None:
    """Lost replies and repeats of any age leave every total exact."""
    await lossy_walk(with_book(UsageBook), seed)


@pytest.mark.parametrize("broken", [AddsRepeats, TakesAnything, ForgetsRejections])
async def test_a_broken_book_is_caught(broken: type[UsageBook]) -> None:
    """The walk above fails on a book that counts twice, takes anything, or forgets what it rejected."""
    caught = 0
    for seed in range(20):
        try:
            await lossy_walk(with_book(broken), seed)
        except AssertionError:
            caught += 1
    assert caught >= 10
