"""Usage received: counted once however often it is sent, refused whole or by the line, and never lost in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hivetenancy.authority.book import MAX_REASONS, UsageBook
from hivetenancy.authority.resources import CallRefused
from hivetenancy.authority.service import HubService
from hivetenancy.clock import HOUR_US
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import ANY_RESOURCE, QuotaKind, QuotaLimit
from hivetenancy.sources import (
    QuotaStanding,
    RejectCode,
    SourceConflict,
    UsageKind,
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
    return UsageLine(tenant_id=tenant, dimension=dimension, resource=resource, kind=UsageKind.CONTRIBUTION, value=value)


def counter(tenant: TenantId, value: int, start_us: int | None, *, dimension: str = "operations") -> UsageLine:
    """The running total of a counter."""
    return UsageLine(
        tenant_id=tenant,
        dimension=dimension,
        resource=None,
        kind=UsageKind.COUNTER,
        value=value,
        period_start_us=start_us,
    )


def level(tenant: TenantId, value: int, term: int | None, *, dimension: str = "disk") -> UsageLine:
    """A measurement."""
    return replace(gauge(tenant, value, dimension=dimension), kind=UsageKind.LEVEL, term=term)


def correction(line: UsageLine, value: int, reason: str | None = "closed") -> UsageLine:
    """What is made good in the cell of *line*."""
    return replace(line, kind=UsageKind.CORRECTION, value=value, reason=reason)


def codes(reply: UsageReply | SourceConflict) -> list[RejectCode]:
    """Why lines were rejected."""
    assert isinstance(reply, UsageReply)
    return [line.code for line in reply.rejected]


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
        lambda acme, _: gauge(acme, 1, dimension="connections"),
    ),
    "a static limit": (
        RejectCode.KIND_MISMATCH,
        True,
        lambda acme, _: gauge(acme, 1, dimension="max_batch"),
    ),
    "a level of what is counted": (RejectCode.KIND_MISMATCH, True, lambda acme, _: level(acme, 1, 1, dimension="keys")),
    "a gauge with a term": (RejectCode.KIND_MISMATCH, True, lambda acme, _: replace(gauge(acme, 1), term=1)),
    "a gauge with a reason": (RejectCode.KIND_MISMATCH, True, lambda acme, _: replace(gauge(acme, 1), reason="x")),
    "no reason": (RejectCode.KIND_MISMATCH, True, lambda acme, _: correction(gauge(acme, 1), 1, None)),
    "an empty reason": (RejectCode.OUT_OF_RANGE, True, lambda acme, _: correction(gauge(acme, 1), 1, "")),
    "a long reason": (RejectCode.OUT_OF_RANGE, True, lambda acme, _: correction(gauge(acme, 1), 1, "x" * 256)),
    "a correction of long ago": (RejectCode.PERIOD_CLOSED, True, lambda acme, _: correction(counter(acme, 1, 0), 1)),
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


# --- levels and corrections ------------------------------------------------------------------------------------------


@pytest.fixture
def disk(hub: HubService, acme: TenantId) -> TenantId:
    """A tenant with a limit of what is measured."""
    hub.set_quota(acme, QuotaLimit(dimension="disk", limit=1_000, kind=QuotaKind.LEVEL))
    return acme


async def tell(hub: HubService, source: str, *lines: UsageLine) -> list[RejectCode]:
    """Report lines as whatever the source has to say next; return why any were rejected."""
    first = report(*lines, source=source)
    conflict = await hub.report(replace(first, sequence=2**52, previous_sequence=2**52 - 1, lines=()))
    last = conflict.last_sequence
    return codes(await hub.report(replace(first, sequence=last + 1, previous_sequence=last)))


async def test_the_highest_term_counts(hub: HubService, disk: TenantId) -> None:
    """A level is that of the highest term, never a sum; who was voted out is refused for good."""
    steps: list[tuple[str, int, int, list[RejectCode], int]] = [
        (A, 1, 500, [], 500),
        (A, 1, 300, [], 300),  # the elected measures again
        (B, 1, 700, [RejectCode.REGRESSED], 300),
        (B, 2, 400, [], 400),
        (A, 1, 900, [RejectCode.REGRESSED], 400),
        (B, 2, 0, [], 0),
        (B, 1, 5, [RejectCode.REGRESSED], 0),
        (A, 7, 10, [], 10),
    ]
    for source, term, value, rejected, used in steps:
        assert await tell(hub, source, level(disk, value, term)) == rejected
        assert hub.used(disk, "disk") == used
    for sources, own in (((A,), 10), ((B,), 0), ((A, B), 10)):
        found = await standing(hub, disk, "disk", sources=sources)
        assert (found.used, found.own) == (10, own)


@pytest.mark.parametrize(
    ("value", "term", "code"),
    [
        (-1, 1, RejectCode.OUT_OF_RANGE),
        (1, -1, RejectCode.OUT_OF_RANGE),
        (1, 2**53, RejectCode.OUT_OF_RANGE),
        (1, None, RejectCode.KIND_MISMATCH),
    ],
)
async def test_a_wrong_level(hub: HubService, disk: TenantId, value: int, term: int | None, code: RejectCode) -> None:
    """A level is not negative and has a term; there is no correction of a measurement."""
    line = level(disk, value, term)
    assert await tell(hub, A, line) == [code]
    assert await tell(hub, A, correction(replace(line, term=None), 1)) == [RejectCode.KIND_MISMATCH]
    assert hub.used(disk, "disk") == 0


async def test_corrections_are_added(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A correction is a signed running total for its reason, added to what its source and others count."""
    start = month(clock)
    await tell(hub, A, counter(acme, 10, start), correction(counter(acme, 0, start), 5))
    await tell(hub, B, correction(counter(acme, 0, start), 1), correction(counter(acme, 0, start), -3, "refund"))
    assert hub.used_by_source(acme, "operations") == {A: 15, B: -2}
    await tell(hub, A, correction(counter(acme, 0, start), 2))
    found = await standing(hub, acme, "operations", sources=(A,))
    assert (found.used, found.own) == (10, 12)
    assert await tell(hub, A, counter(acme, 9, start)) == [RejectCode.REGRESSED]
    assert await tell(hub, A, counter(acme, 10, start)) == []
    await tell(hub, A, correction(gauge(acme, 0, dimension="vectors", resource="docs"), 4))
    assert hub.used(acme, "vectors", resource="docs") == 4
    assert (await standing(hub, acme, "vectors", "docs")).used == 4


async def test_reasons_are_bounded(hub: HubService, acme: TenantId) -> None:
    """A source cannot fill the memory with reasons; those it has can be told anew."""
    lines = [correction(gauge(acme, 0), 1, f"r{number}") for number in range(MAX_REASONS)]
    assert await tell(hub, A, *lines) == []
    assert await tell(hub, A, correction(gauge(acme, 0), 1, "one more")) == [RejectCode.OUT_OF_RANGE]
    assert await tell(hub, A, correction(gauge(acme, 0), 2, "r0")) == []
    assert hub.used(acme, "keys") == MAX_REASONS + 1


async def test_what_a_report_says_twice(hub: HubService, acme: TenantId) -> None:
    """A total and its corrections are lines of their own; the same one twice is not."""
    lines = [gauge(acme, 1), correction(gauge(acme, 0), 2), correction(gauge(acme, 0), 4, "other")]
    assert await tell(hub, A, *lines, correction(gauge(acme, 0), 8)) == [RejectCode.DUPLICATE_LINE]
    assert hub.used(acme, "keys") == 7


async def test_levels_and_corrections_go_with_their_tenant(hub: HubService, disk: TenantId) -> None:
    """A snapshot keeps what it saw, and nothing of a deleted tenant stays."""
    await tell(hub, A, level(disk, 5, 1), correction(gauge(disk, 0), 3))
    view = hub.snapshot()
    await tell(hub, A, level(disk, 6, 1), correction(gauge(disk, 0), 4))
    assert view.state.usage.total(disk, "disk", None, None) == (5, 0)
    assert view.state.usage.total(disk, "keys", None, None) == (3, 0)
    hub.delete_tenant(disk)
    usage = hub.snapshot().state.usage
    assert (usage.total(disk, "disk", None, None), usage.total(disk, "keys", None, None)) == ((0, 0), (0, 0))


class AddsLevels(UsageBook):
    """A broken book: it adds the measurements of all sources."""

    __slots__ = ()

    def _put(self, source: str, line: UsageLine) -> None:
        super()._put(source, replace(line, kind=UsageKind.CONTRIBUTION))


class TakesAnyTerm(UsageBook):
    """A broken book: the latest measurement counts, whoever made it."""

    __slots__ = ()

    def _unfit(self, source: str, line: UsageLine) -> RejectCode | None:
        return None


@pytest.mark.parametrize("broken", [AddsLevels, TakesAnyTerm])
async def test_a_book_without_terms_is_caught(hub: HubService, disk: TenantId, broken: type[UsageBook]) -> None:
    """The test of terms fails on a book that adds levels, or takes those of whoever was voted out."""
    hub._state.usage = broken()
    with pytest.raises(AssertionError):
        await test_the_highest_term_counts(hub, disk)


# --- whose a source is -----------------------------------------------------------------------------------------------


async def test_a_source_belongs_to_who_reported_first(hub: HubService, acme: TenantId) -> None:
    """Another identity's report of a source is refused and changes nothing; this process may report for all."""
    first = report(gauge(acme, 1))
    reply = await hub.report(first, owner="node")
    for again in (first, report(gauge(acme, 9), sequence=2, previous=1)):
        with pytest.raises(CallRefused) as refused:
            await hub.report(again, owner="other")
        assert (refused.value.status, refused.value.code) == (403, "forbidden")
    assert hub.used(acme, "keys") == 1
    assert await hub.report(first, owner="node") == await hub.report(first) == reply
    assert await hub.report(report(gauge(acme, 2), source=B, sequence=5, previous=4), owner="other") == SourceConflict(
        last_sequence=0
    )
    assert isinstance(await hub.report(report(gauge(acme, 2), source=B), owner="node"), UsageReply)


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
