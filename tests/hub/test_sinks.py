"""The rules of reporting by calls, one by one; what they add up to is in test_sinks_exact."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hivetenancy.clock import DAY_US, HOUR_US, SECOND_US
from hivetenancy.decision import Ticket
from hivetenancy.errors import (
    ConfigurationError,
    HubContractError,
    HubRefusedError,
    HubUnavailableError,
    InvalidNameError,
    StoreUnavailableError,
)
from hivetenancy.hub import wire
from hivetenancy.hub.sinks import Alarms, CallSink, Outcome, attempt
from hivetenancy.hub.sinks_absolute import CollectionTotals, split_resource
from hivetenancy.hub.sinks_build import pin_cumulative, usage_sink
from hivetenancy.hub.sinks_calls import CreditsSpent, GraphUsage, ResourceUsage, TokensSpent
from hivetenancy.hub.sinks_increment import SETTLE_US, IncrementCall, compare
from hivetenancy.hub.sinks_state import MemoryState, Strategy
from hivetenancy.hub.store import StateStore
from hivetenancy.ids import CellKey
from hivetenancy.plans import CANONICAL, DimensionSpec, QuotaKind
from hivetenancy.sources import RejectCode, UsageKind, UsageLine, UsageReply, UsageReport
from hivetenancy.testing.clock import ManualClock
from hivetenancy.usage.cumulative import AlarmKind
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter
from tests.hub.sinks_world import COLLECTIONS, TENANTS, Calls, Counts, Link

pytestmark = pytest.mark.anyio

ACME, OTHER, _ = TENANTS
DOCS = COLLECTIONS[ACME]
WINDOW_US = 30 * DAY_US
MESSAGES = {**CANONICAL, "messages": DimensionSpec(name="messages", unit="messages", kind=QuotaKind.CONTRIBUTION)}


class Scripted(Link):
    """A link with a script instead of luck.

    Attributes:
        fates: What becomes of the next calls: ``lost``, ``unanswered``, ``refused`` (no connection), ``ok``, an error.
        at_once: How many calls are under way.
        most: How many were at the same time.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(random.Random(0), clock, late_s=1)
        self.sound = True
        self.fates: list[str | Exception] = []
        self.at_once = self.most = 0

    async def carry(self, effect: Any) -> Any:
        self.calls += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0)
            return self._fate(effect)
        finally:
            self.at_once -= 1

    def _fate(self, effect: Any) -> Any:
        match self.fates.pop(0) if self.fates else "ok":
            case "lost":
                raise HubUnavailableError("the request was lost")
            case "unanswered":
                effect()
                raise HubUnavailableError("the reply was lost")
            case "refused":
                raise HubUnavailableError("no connection", outcome_unknown=False)
            case Exception() as error:
                raise error
        return effect()


class World:
    """One host, one service, one hub."""

    def __init__(self, service: wire.Service, *, state: Any = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.link = Scripted(self.clock)
        self.calls = Calls(self.link)
        self.state = MemoryState() if state is None else state
        self.service, self.options = service, options
        self.begin()

    def begin(self) -> None:
        """Be a new process with what the old one kept."""
        self.begin_sink()
        self.usage = MemoryUsage(clock=self.clock, dimensions=MESSAGES)
        self.reporter = Reporter(self.usage, self.sink, clock=self.clock)

    def begin_sink(self) -> None:
        """Have another sink with what the old one kept, under the same totals."""
        self.sink = usage_sink(self.service, self.calls, clock=self.clock, state=self.state, **self.options)
        if hasattr(self, "reporter"):
            self.reporter = Reporter(self.usage, self.sink, clock=self.clock)

    async def report(self, tenant: Any = ACME, **amounts: int) -> None:
        """Count and report."""
        await self.report_cells(dict(amounts.items()), tenant)

    async def report_cells(self, amounts: Mapping[CellKey, int], tenant: Any = ACME) -> None:
        """Count and report cells."""
        if amounts:
            self.usage.record(tenant, amounts)
        try:
            await self.reporter.flush()
        except HubUnavailableError as error:
            self.error: HubUnavailableError | None = error
        else:
            self.error = None

    def held(self, what: str, who: str = ACME) -> int:
        """What the hub counts."""
        return self.calls.counts.get(who, what)

    @property
    def keys(self) -> list[str]:
        """The idempotency keys that the hub has seen."""
        return list(self.calls.counts.keys)


def nexus(**options: Any) -> World:
    """A graph server on a hub with idempotency keys, unless told otherwise."""
    return World(wire.Service.NEXUS, **{"window_us": WINDOW_US, **options})


def vectorizer(**options: Any) -> World:
    """A vector server."""
    return World(wire.Service.VECTORIZER, **options)


VECTORS: dict[CellKey, int] = {("vectors", DOCS): 5}


# --- which strategy --------------------------------------------------------------------------------------------------


def test_synap_without_a_stated_strategy_is_refused() -> None:
    """The wire does not say what call 17 takes, so nothing is guessed: the error names both."""
    with pytest.raises(ConfigurationError, match=r"'absolute'.*'increment'"):
        World(wire.Service.SYNAP)


@pytest.mark.parametrize(
    ("service", "options", "strategy"),
    [
        (wire.Service.VECTORIZER, {}, Strategy.ABSOLUTE),
        (wire.Service.VECTORIZER, {"window_us": WINDOW_US}, Strategy.ABSOLUTE),
        (wire.Service.NEXUS, {}, Strategy.READ_BACK),
        (wire.Service.NEXUS, {"window_us": WINDOW_US}, Strategy.IDEMPOTENCY_KEY),
        (wire.Service.LESSTOKENS, {}, Strategy.READ_BACK),
        (wire.Service.LESSTOKENS, {"window_us": WINDOW_US}, Strategy.IDEMPOTENCY_KEY),
        (wire.Service.SYNAP, {"synap_usage": "absolute"}, Strategy.ABSOLUTE),
        (wire.Service.SYNAP, {"synap_usage": "increment"}, Strategy.INCREMENT),
        (wire.Service.SYNAP, {"synap_usage": "increment", "window_us": WINDOW_US}, Strategy.IDEMPOTENCY_KEY),
    ],
)
def test_each_service_has_its_strategy(service: wire.Service, options: Any, strategy: Strategy) -> None:
    """What a hub can do decides, and it is pinned."""
    world = World(service, **options)
    assert strategy in world.state.pinned().values()
    (part,) = world.sink.parts()
    assert part.ok
    assert strategy in part.why


def test_a_strategy_never_changes_by_itself() -> None:
    """A hub that learnt idempotency keys, or running totals, does not make the host count in two ways."""
    state = MemoryState()
    nexus(state=state, window_us=0)
    assert "read_back" in nexus(state=state).sink.parts()[0].why
    assert state.pinned()["nexus.update_usage"] == Strategy.READ_BACK
    with pytest.raises(ConfigurationError, match=r"calls.*cumulative"):
        pin_cumulative(state)
    other = MemoryState()
    pin_cumulative(other)
    with pytest.raises(ConfigurationError, match=r"cumulative.*calls"):
        nexus(state=other)


async def test_a_strategy_is_pinned_on_disk(tmp_path: Path) -> None:
    """The state file knows it after a restart."""
    store = StateStore(tmp_path / "state")
    store.open("hub")
    world = nexus(state=store)
    await world.report(nodes=1)
    store.close()
    store.open("hub")
    with pytest.raises(ConfigurationError, match="idempotency_key"):
        nexus(state=store, window_us=0)
    store.close()


@pytest.mark.parametrize("strategy", [Strategy.ABSOLUTE, Strategy.CUMULATIVE, Strategy.READ_BACK, "window"])
def test_a_strategy_must_fit_its_call(strategy: Any) -> None:
    """A call that adds states no totals, one that tells nothing is not read back, a short window is none."""
    clock, calls = ManualClock(), Calls(Scripted(ManualClock()))
    window_us = HOUR_US if strategy == "window" else WINDOW_US
    strategy = Strategy.IDEMPOTENCY_KEY if strategy == "window" else strategy
    call = ResourceUsage(calls.synap, {"messages": "message_count"})
    with pytest.raises(ConfigurationError):
        IncrementCall(call, strategy, state=MemoryState(), alarms=Alarms(clock), clock=clock, window_us=window_us)


def test_a_field_that_a_call_lacks_is_refused_when_built() -> None:
    """A mapping with a slip of the pen does not report into nowhere."""
    clock, calls, state = ManualClock(), Calls(Scripted(ManualClock())), MemoryState()
    with pytest.raises(ConfigurationError, match="bytes"):
        CollectionTotals(calls.vectorizer, {"vectors": "bytes"}, state=state, clock=clock)
    with pytest.raises(ConfigurationError, match="share"):
        fields = {"vectors": "vector_count", "keys": "vector_count"}
        CollectionTotals(calls.vectorizer, fields, state=state, clock=clock)
    with pytest.raises(ConfigurationError, match="nodes"):
        GraphUsage(calls.nexus, {"nodes": "nodes"})
    with pytest.raises(ConfigurationError, match="size"):
        ResourceUsage(calls.synap, {"messages": "size"})


# --- lines -----------------------------------------------------------------------------------------------------------


async def test_what_no_call_can_say_is_refused_for_good_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The reporter parks it with an alarm, the rest moves on, and the log has one line a dimension."""
    world = nexus()
    for tenant in TENANTS:
        await world.report(tenant, nodes=1, searches=1, queues=1)
    assert [world.held("nodes_created", tenant) for tenant in TENANTS] == [1, 1, 1]
    assert {alarm.code for alarm in world.usage.alarms} == {RejectCode.UNKNOWN_DIMENSION}
    said = [record.getMessage() for record in caplog.records if "no call" in record.getMessage()]
    assert len(said) == 2


async def test_a_dimension_of_the_wrong_breadth_is_refused() -> None:
    """Vectors of a tenant as a whole belong to no collection, and nodes of a resource to no call."""
    world = vectorizer()
    await world.report(vectors=1)
    graph = nexus()
    await graph.report_cells({("nodes", "g"): 1})
    assert [alarm.code for alarm in (*world.usage.alarms, *graph.usage.alarms)] == [RejectCode.UNKNOWN_DIMENSION] * 2
    assert not graph.link.calls


async def test_a_measured_level_is_refused() -> None:
    """No call of today's wire knows which of two measurements is the newer."""
    line = UsageLine(tenant_id=ACME, dimension="nodes", resource=None, kind=UsageKind.LEVEL, value=1, term=1)
    report = UsageReport(source="0" * 32, writer="w", sequence=1, previous_sequence=0, lines=(line,))
    answer = await nexus().sink.report(report)
    assert isinstance(answer, UsageReply)
    assert [(line.code, line.permanent) for line in answer.rejected] == [(RejectCode.KIND_MISMATCH, True)]


async def test_the_same_report_gets_the_same_reply() -> None:
    """A reporter that did not hear the answer asks again, and nothing is sent for it."""
    world = nexus()
    line = UsageLine(tenant_id=ACME, dimension="nodes", resource=None, kind=UsageKind.CONTRIBUTION, value=7)
    report = UsageReport(source="0" * 32, writer="w", sequence=1, previous_sequence=0, lines=(line,))
    first = await world.sink.report(report)
    assert await world.sink.report(report) is first
    assert world.link.calls == 1


async def test_what_could_not_be_settled_comes_again_and_the_rest_is_done() -> None:
    """A tenant whose call fails does not hold up another; a hub that is gone altogether is an error."""
    world = nexus()
    world.usage.record(OTHER, {"nodes": 1})
    world.link.fates = ["refused"]
    await world.report(nodes=1)
    assert world.error is None
    assert (world.usage.unreported, world.held("nodes_created") + world.held("nodes_created", OTHER)) == (1, 1)
    world.link.fates = ["refused"]
    await world.report()
    assert world.error is not None, "the reporter has to back off, and health to be red"
    await world.report()
    assert world.usage.unreported == 0


async def test_tenants_go_side_by_side_and_calls_of_one_do_not() -> None:
    """Many tenants take a bounded number of calls at once; the collections of one tenant go one after the other."""
    world = nexus()
    for number in range(100):
        world.usage.record(f"t{number}", {"nodes": 1})  # type: ignore[arg-type]
    await world.report()
    assert 2 <= world.link.most <= 8
    many = vectorizer()
    for number in range(20):
        collection = str(UUID(int=3000 + number))
        many.calls.vectorizer.owners[collection] = ACME
        many.usage.record(ACME, {("vectors", collection): 1})
    await many.report()
    assert many.link.most == 1


@pytest.mark.parametrize(
    ("error", "outcome", "verdict"),
    [
        (HubUnavailableError("?"), Outcome.UNKNOWN, HubUnavailableError),
        (HubUnavailableError("?", outcome_unknown=False), Outcome.NO_EFFECT, HubUnavailableError),
        (HubContractError("not JSON"), Outcome.UNKNOWN, HubUnavailableError),
        (HubRefusedError(404, "User not found"), Outcome.REFUSED, RejectCode.UNKNOWN_USER),
        (HubRefusedError(400, "bad"), Outcome.REFUSED, RejectCode.OUT_OF_RANGE),
        (HubRefusedError(422, "bad"), Outcome.REFUSED, RejectCode.OUT_OF_RANGE),
        (HubRefusedError(429, "Insufficient credits"), Outcome.REFUSED, RejectCode.BUSY),
        (HubRefusedError(409, "user_not_active"), Outcome.REFUSED, RejectCode.BUSY),
        (InvalidNameError("no UUID"), Outcome.REFUSED, RejectCode.OUT_OF_RANGE),
    ],
)
async def test_each_error_of_a_call_has_one_meaning(error: Exception, outcome: Outcome, verdict: Any) -> None:
    """Only what certainly had no effect may be built anew; a reply outside the wire may have had one."""

    async def call() -> None:
        raise error

    found = await attempt(call())
    assert found[0] is outcome
    assert found[1] is verdict or type(found[1]) is verdict


# --- absolute totals -------------------------------------------------------------------------------------------------


async def test_a_total_is_what_was_there_and_what_we_counted() -> None:
    """The vectors that the hub knew before are the base, asked for once; bytes count from the start, with a warning."""
    world = vectorizer()
    world.calls.counts.held[DOCS, "vector_count"] = 1000
    await world.report_cells({("vectors", DOCS): 5, ("storage_bytes", DOCS): 70})
    await world.report_cells({("vectors", DOCS): -2})
    assert (world.held("vector_count", DOCS), world.held("storage_bytes", DOCS)) == (1003, 70)
    assert world.link.calls == 3, "one question, two statements"
    assert world.sink.confirmed(ACME, "vectors", DOCS) == 3


async def test_d17_totals_of_a_new_process_do_not_begin_at_zero() -> None:
    """Vectorizer stated what it had counted since its start, so a restart made billing drop to near zero."""
    world = vectorizer()
    await world.report_cells({("vectors", DOCS): 100, ("storage_bytes", DOCS): 7000})
    world.begin()
    await world.report_cells({("vectors", DOCS): 1})
    assert (world.held("vector_count", DOCS), world.held("storage_bytes", DOCS)) == (101, 7000)


async def test_a_total_that_may_not_have_arrived_is_stated_by_the_next_process() -> None:
    """It was kept before it was stated, so the next process knows it, and states it though nobody counts anything."""
    world = vectorizer()
    world.link.fates = ["ok", "lost"]
    await world.report_cells(VECTORS)
    world.begin()
    assert world.sink.pending == 1
    assert await world.sink.upkeep() == 0
    assert (world.held("vector_count", DOCS), world.sink.pending) == (5, 0)


@pytest.mark.parametrize("fault", ["foreign", "unknown", "no UUID"])
async def test_a_collection_that_is_not_the_tenants_is_refused_for_good(fault: str) -> None:
    """Call 8 does not say whose a collection is, so it is asked first; nothing is stated, and the others go on."""
    world = vectorizer()
    foreign = COLLECTIONS[OTHER]
    if fault == "unknown":
        del world.calls.vectorizer.owners[foreign]
    if fault == "no UUID":
        world.link.fates = [InvalidNameError("ids at HiveHub are UUIDs")]
    await world.report_cells({("vectors", foreign): 9})
    await world.report_cells(VECTORS)
    assert (world.held("vector_count", foreign), world.held("vector_count", DOCS)) == (0, 5)
    (alarm,) = world.usage.alarms
    assert (alarm.kind, alarm.code) == (AlarmKind.PARKED, RejectCode.UNKNOWN_USER)


async def test_a_late_statement_does_not_have_the_last_word() -> None:
    """An unchanged total is stated again every 300 s for an hour, and then no more."""
    world = vectorizer()
    await world.report_cells(VECTORS)
    world.calls.counts.held[DOCS, "vector_count"] = 3  # an older statement, delivered late
    world.clock.advance(299)
    await world.sink.upkeep()
    assert world.held("vector_count", DOCS) == 3
    world.clock.advance(1)
    await world.sink.upkeep()
    assert world.held("vector_count", DOCS) == 5
    before = world.link.calls
    for _ in range(200):
        world.clock.advance(60)
        await world.sink.upkeep()
    assert world.link.calls - before == 11, "a collection that rests costs nothing"


async def test_a_total_that_came_back_is_stated_again() -> None:
    """Stated with an unknown outcome and then back at what was acknowledged: the hub may hold what was stated."""
    world = vectorizer()
    await world.report_cells(VECTORS)
    world.usage.record(OTHER, {("vectors", COLLECTIONS[OTHER]): 1})  # somebody is settled, so ours is merely busy
    world.link.fates = ["unanswered"]
    await world.report_cells({("vectors", DOCS): -1})
    assert world.held("vector_count", DOCS) == 4
    await world.report_cells({("vectors", DOCS): 1})
    assert (world.held("vector_count", DOCS), world.usage.unreported) == (5, 0)


async def test_what_nothing_changes_is_not_stated() -> None:
    """A line that is said again because another of its report was busy makes no call."""
    world = vectorizer()
    await world.report_cells({("vectors", DOCS): 5})
    await world.report_cells({("storage_bytes", DOCS): 5, ("vectors", DOCS): 0})
    assert world.link.calls == 3
    await world.report_cells({("vectors", DOCS): 0})
    assert world.link.calls == 3


async def test_a_total_below_zero_is_stated_as_zero() -> None:
    """More deletes than we ever counted writes, of bytes that nobody told us of: no number can say that."""
    world = vectorizer()
    await world.report_cells({("storage_bytes", DOCS): -5})
    assert world.held("storage_bytes", DOCS) == 0
    await world.report_cells({("storage_bytes", DOCS): 7})
    assert world.held("storage_bytes", DOCS) == 2


async def test_an_answer_of_200_that_took_nothing_is_no_success() -> None:
    """A hub that says that it did not update is told again."""
    world = vectorizer()
    quota = wire.VectorQuota(max_vectors=1, current_vectors=1, can_insert=True)
    sound = world.calls.vectorizer.update_usage

    async def update_usage(*_args: Any, **_options: Any) -> wire.UpdatedCollection:
        return wire.UpdatedCollection(success=True, updated=False, quota=quota)

    world.calls.vectorizer.update_usage = update_usage  # type: ignore[method-assign]
    await world.report_cells(VECTORS)
    assert world.usage.unreported == 1
    world.calls.vectorizer.update_usage = sound  # type: ignore[method-assign]
    await world.report_cells({})
    assert (world.usage.unreported, world.held("vector_count", DOCS)) == (0, 5)


class FullDisk(MemoryState):
    """Keeps nothing while it is full."""

    full = True

    def put_absolute(self, *args: Any) -> Ticket:
        self._check()
        return super().put_absolute(*args)

    def put_delivery(self, *args: Any) -> Ticket:
        self._check()
        return super().put_delivery(*args)

    def _check(self) -> None:
        if self.full:
            raise StoreUnavailableError("the disk is full")


@pytest.mark.parametrize("service", [wire.Service.VECTORIZER, wire.Service.NEXUS])
async def test_what_cannot_be_kept_is_not_sent(service: wire.Service) -> None:
    """A restart would not know of it. Nothing is lost: it is sent once the disk takes it."""
    state = FullDisk()
    world = World(service, state=state, window_us=WINDOW_US)
    amounts = VECTORS if service is wire.Service.VECTORIZER else {"nodes": 5}
    await world.report_cells(amounts)
    assert isinstance(world.error, HubUnavailableError)
    assert not world.calls.counts.held
    state.full = False
    await world.report_cells({})
    assert sum(world.calls.counts.held.values()) == 5


# --- increments ------------------------------------------------------------------------------------------------------


async def test_an_increment_under_a_key_is_repeated_to_the_byte() -> None:
    """Whatever is counted meanwhile goes into the next delivery; the hub, which keeps keys, counts each once."""
    world = nexus()
    world.link.fates = ["unanswered", "lost", "refused"]
    for amount in (1, 10, 100, 1000):
        await world.report(nodes=amount)
    assert world.held("nodes_created") == 1111
    assert len(world.keys) == 2
    assert (world.sink.pending, world.usage.unreported, world.state.deliveries()) == (0, 0, ())


@pytest.mark.parametrize("step_wall_us", [0, -20 * DAY_US])
async def test_nothing_is_repeated_when_the_key_may_be_forgotten(step_wall_us: int) -> None:
    """In the last hour of the window the amount is parked with an alarm, though a clock was set back."""
    world = nexus()
    world.link.fates = ["unanswered"]
    await world.report(nodes=5)
    world.clock.advance(us=WINDOW_US - HOUR_US)
    world.clock.step_wall(us=step_wall_us)
    await world.report(nodes=7)
    assert world.held("nodes_created") == 12
    (alarm,) = world.sink.alarms
    assert (alarm.call, alarm.tenant_id, dict(alarm.amounts)) == ("nexus.update_usage", ACME, {"nodes_created": 5})
    (part,) = world.sink.parts()
    assert not part.ok
    assert world.usage.unreported == 0
    assert world.sink.confirmed(ACME, "nodes", None) == 7, "nobody knows whether the hub holds the parked 5"


async def test_just_before_that_it_is() -> None:
    """A microsecond earlier the key still counts."""
    world = nexus()
    world.link.fates = ["unanswered"]
    await world.report(nodes=5)
    world.clock.advance(us=WINDOW_US - HOUR_US - 1)
    await world.report()
    assert (world.held("nodes_created"), len(world.keys), world.sink.alarms) == (5, 1, ())


async def test_a_verdict_changes_nothing_and_comes_again() -> None:
    """Too few credits: the hub took none, so the next time is another delivery, with what came since."""
    world = nexus()
    world.calls.counts.refuse = HubRefusedError(429, "Insufficient credits", code="insufficient_credits")
    await world.report(credits=5)
    assert (world.usage.unreported, world.error, world.sink.pending) == (1, None, 0)
    world.calls.counts.refuse = None
    await world.report(credits=7)
    assert (world.held("credits_used"), len(world.keys)) == (12, 1)


async def test_a_verdict_on_a_repeat_does_not_settle_the_first_sending() -> None:
    """The first may still arrive; so it stays frozen, and is neither dropped nor built anew."""
    world = nexus()
    world.link.fates = ["lost", HubRefusedError(429, "Insufficient credits")]
    for amount in (1, 10, 100):
        await world.report(credits=amount)
    assert world.held("credits_used") == 111
    first, *_ = world.calls.counts.keys.values()
    assert first == (
        ACME,
        {**dict.fromkeys(("nodes_created", "relationships_created", "storage_bytes"), 0), "credits_used": 1},
    )


@pytest.mark.parametrize("status", [404, 422])
async def test_a_refusal_for_good_parks_what_may_have_counted(status: int) -> None:
    """Refused at once, nothing was counted and the reporter parks the cell. Refused on a repeat, the amount is too."""
    world = nexus()
    world.link.fates = [HubRefusedError(status, "no")]
    await world.report(nodes=5)
    assert not world.sink.alarms
    assert [alarm.missing for alarm in world.usage.alarms] == [5]
    other = nexus()
    other.link.fates = ["lost", HubRefusedError(status, "no")]
    await other.report(nodes=5)
    await other.report()
    assert [dict(alarm.amounts) for alarm in other.sink.alarms] == [{"nodes_created": 5}]


async def test_a_delivery_outlives_its_process(tmp_path: Path) -> None:
    """Killed with an unknown outcome, the next process finds bytes and key in the state file and goes on with them."""
    store = StateStore(tmp_path / "state", clock=ManualClock())
    store.open("hub")
    world = nexus(state=store)
    world.link.fates = ["unanswered"]
    await world.report(nodes=5)
    store.close()
    store.open("hub")
    world.begin()
    await world.report(nodes=7)
    assert (world.held("nodes_created"), len(world.keys), store.deliveries()) == (12, 2, ())
    store.close()


async def test_a_delivery_without_traffic_is_looked_after() -> None:
    """A tenant that does nothing any more has its last delivery settled all the same."""
    world = nexus()
    world.link.fates = ["lost"]
    await world.report(nodes=5)
    world.begin()
    assert (world.sink.pending, await world.sink.upkeep()) == (1, 0)
    assert (world.held("nodes_created"), world.sink.pending) == (5, 0)


async def test_totals_that_outlive_the_sink_go_on_from_what_was_acknowledged() -> None:
    """A sink that does not know its reporter asks for a new source; what it finds in a delivery is not sent again."""
    world = nexus()
    await world.report(nodes=100, credits=1)
    world.link.fates = ["unanswered"]
    await world.report(nodes=5)
    world.begin_sink()
    for amount in (7, 0, 0):
        await world.report(nodes=amount)
    assert (world.held("nodes_created"), world.held("credits_used"), world.usage.unreported) == (112, 1, 0)
    assert len(world.usage.sources) == 2


async def test_a_delivery_of_a_call_that_is_not_used_any_more_shows() -> None:
    """It is neither sent nor dropped, and health is red until an operator looks."""
    state = MemoryState()
    state.put_delivery("old", 1, b'{"call": "lesstokens.consume_tokens"}')
    world = nexus(state=state)
    assert [part.ok for part in world.sink.parts()] == [True, False]
    assert len(state.deliveries()) == 1


async def test_a_flush_that_is_cancelled_leaves_the_outcome_unknown() -> None:
    """Stopped in the middle of a call, it is repeated under its key like any other."""
    world = nexus()
    world.usage.record(ACME, {"nodes": 5})
    sound = world.link._fate

    def applied_and_gone(effect: Any) -> Any:
        effect()
        raise asyncio.CancelledError

    world.link._fate = applied_and_gone  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await world.reporter.flush()
    world.link._fate = sound  # type: ignore[method-assign]
    assert world.sink.pending == 1
    await world.report(nodes=7)
    await world.report()
    assert (world.held("nodes_created"), len(world.keys)) == (12, 2)


async def test_what_was_deleted_is_a_debt_that_growth_pays() -> None:
    """An increment cannot be negative: the hub holds too much, health says so, and the next writes are set off."""
    world = nexus()
    await world.report(nodes=10)
    await world.report(nodes=-4)
    assert (world.held("nodes_created"), world.usage.unreported) == (10, 0)
    place = ("nexus.update_usage", ACME, None)
    assert world.sink.debts == {place: {"nodes_created": 4}}
    (part,) = world.sink.parts()
    assert part.ok
    assert "too much for 1 accounts" in part.why
    await world.report(nodes=3)
    assert (world.held("nodes_created"), world.sink.debts[place]) == (10, {"nodes_created": 1})
    await world.report(nodes=3)
    assert (world.held("nodes_created"), world.sink.debts) == (12, {})


async def test_counters_of_long_ago_are_dropped_and_nothing_counts_twice() -> None:
    """Memory follows the periods that are open; a line of a period that was dropped is refused as closed."""
    world = nexus()
    for _ in range(30):
        await world.report(credits=5)
        world.clock.advance(20 * 86400)
    (account,) = world.sink._accounts.values()
    assert len(account.cells) <= 4
    assert world.held("credits_used") == 150
    late = UsageLine(
        tenant_id=ACME, dimension="credits", resource=None, kind=UsageKind.COUNTER, value=5, period_start_us=0
    )
    report = UsageReport(source="e" * 32, writer="x", sequence=1, previous_sequence=0, lines=(late,))
    answer = await world.sink.report(report)
    assert isinstance(answer, UsageReply)
    assert [line.code for line in answer.rejected] == [RejectCode.PERIOD_CLOSED]
    assert world.held("credits_used") == 150


# --- once ------------------------------------------------------------------------------------------------------------

ORDERS = "queue/orders"


async def test_an_increment_without_key_is_sent_once() -> None:
    """An unknown outcome parks the amount, with an alarm, and the cell goes on; what certainly failed is sent again."""
    world = World(wire.Service.SYNAP, synap_usage="increment")
    for fate, amount in (("unanswered", 1), ("lost", 10), ("refused", 100), ("ok", 1000)):
        world.link.fates = [fate]
        await world.report_cells({("messages", ORDERS): amount})
    assert world.held("message_count", f"{ACME}/{ORDERS}") == 1101
    assert [dict(alarm.amounts) for alarm in world.sink.alarms] == [{"message_count": 1}, {"message_count": 10}]
    assert world.sink.parked == {("synap.update_usage", ACME, ORDERS): {"message_count": 11}}
    assert world.usage.unreported == 0
    assert world.sink.confirmed(ACME, "messages", ORDERS) == 1100


async def test_an_increment_that_was_under_way_at_a_crash_is_parked() -> None:
    """The next process finds it, and does not know more than the last one did."""
    world = World(wire.Service.SYNAP, synap_usage="increment")
    world.link.fates = [RuntimeError("killed")]
    with pytest.raises(RuntimeError):
        await world.report_cells({("messages", ORDERS): 5})
    world.begin()
    assert await world.sink.upkeep() == 0
    assert [dict(alarm.amounts) for alarm in world.sink.alarms] == [{"message_count": 5}]
    assert (world.held("message_count", f"{ACME}/{ORDERS}"), world.state.deliveries()) == (0, ())


async def test_synaps_totals_are_stated_where_the_operator_says_so() -> None:
    """A total is repeated for ever, by name and type of the resource."""
    world = World(wire.Service.SYNAP, synap_usage="absolute")
    world.calls.synap.adds = False
    world.link.fates = ["lost", "unanswered"]
    for amount in (5, -2, 0):
        await world.report_cells({("messages", ORDERS): amount, ("storage_bytes", ORDERS): 10 * amount})
    who = f"{ACME}/{ORDERS}"
    assert (world.held("message_count", who), world.held("storage_bytes", who)) == (3, 30)


@pytest.mark.parametrize("resource", ["orders", "queue/", "table/orders", "/orders", None])
async def test_a_resource_of_synap_has_a_type_and_a_name(resource: str | None) -> None:
    """Without a type nothing is guessed: the line is refused for good."""
    assert split_resource(resource) is None
    world = World(wire.Service.SYNAP, synap_usage="increment")
    await world.report_cells({"messages" if resource is None else ("messages", resource): 1})
    assert not world.link.calls
    assert [alarm.code for alarm in world.usage.alarms] == [RejectCode.UNKNOWN_DIMENSION]


# --- reading back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
async def test_an_unknown_outcome_is_read_once_nothing_can_arrive_any_more(fate: str) -> None:
    """Until then the line is busy and nothing else is sent; then the hub's count tells, and nothing counts twice."""
    world = nexus(window_us=0)
    await world.report(nodes=100)
    world.link.fates = ["ok", fate]
    await world.report(nodes=5)
    before = world.link.calls
    await world.report(nodes=7)
    assert world.link.calls == before
    assert (world.usage.unreported, world.error) == (1, None), "busy, not an outage: others need not wait for it"
    assert "1 calls have an unknown outcome" in world.sink.parts()[0].why
    world.clock.advance(us=SETTLE_US)
    await world.report()
    await world.report()
    assert (world.held("nodes_created"), world.usage.unreported, world.sink.alarms) == (112, 0, ())


@pytest.mark.parametrize(("fate", "by_others"), [("unanswered", 3), ("lost", 3), ("unanswered", 5)])
async def test_what_cannot_be_told_is_parked(fate: str, by_others: int) -> None:
    """Somebody else counted too, or it was applied twice: nothing is guessed, and the cell goes on."""
    world = nexus(window_us=0)
    world.link.fates = ["ok", fate]
    await world.report(nodes=5)
    world.calls.counts.add(ACME, {"nodes_created": by_others})
    world.clock.advance(us=SETTLE_US)
    await world.report(nodes=7)
    assert [dict(alarm.amounts) for alarm in world.sink.alarms] == [{"nodes_created": 5}]
    applied = 5 if fate == "unanswered" else 0
    assert (world.held("nodes_created"), world.usage.unreported) == (applied + by_others + 7, 0)


@pytest.mark.parametrize(
    ("before", "after", "amounts", "applied"),
    [
        ({"amount": 1}, {"amount": 6}, {"amount": 5}, True),
        ({"amount": 1}, {"amount": 1}, {"amount": 5}, False),
        ({"amount": 1}, {"amount": 11}, {"amount": 5}, None),
        ({"amount": 9}, {"amount": 5}, {"amount": 5}, None),
        ({"nodes": 1, "edges": 1}, {"nodes": 2, "edges": 3}, {"nodes": 1, "edges": 2}, True),
        ({"nodes": 1, "edges": 1}, {"nodes": 2, "edges": 1}, {"nodes": 1, "edges": 2}, None),
        ({"nodes": 1, "edges": 1}, {"nodes": 2, "edges": 9}, {"nodes": 1}, True),
        ({"nodes": 1, "storage_mb": 1}, {"nodes": 2, "storage_mb": 1}, {"nodes": 1, "storage_bytes": 3}, True),
        ({"storage_mb": 1}, {"storage_mb": 1}, {"storage_bytes": 1_000_000}, None),
        ({"storage_mb": 1}, {"storage_mb": 1}, {"storage_bytes": 1 << 20}, False),
        ({"storage_mb": 1}, {"storage_mb": 2}, {"storage_bytes": 1 << 20}, True),
        ({"storage_mb": 1}, {"storage_mb": 4}, {"storage_bytes": 2 << 20}, True),
        ({"storage_mb": 1}, {"storage_mb": 5}, {"storage_bytes": 2 << 20}, None),
    ],
)
def test_what_the_hubs_count_tells(before: Any, after: Any, amounts: Any, applied: bool | None) -> None:
    """Exactly the amount: applied; nothing: not; anything else, and less than a megabyte: nobody knows."""
    assert compare(before, after, amounts) is applied


async def test_nothing_that_is_read_back_is_sent_while_another_waits() -> None:
    """Calls 12 and 13 both move the credits that are read: the second waits until the first is known."""
    clock, state, counts = ManualClock(), MemoryState(), Counts()
    link = Scripted(clock)
    calls, alarms = Calls(link, counts), Alarms(clock)
    both = [
        IncrementCall(call, Strategy.READ_BACK, state=state, alarms=alarms, clock=clock)
        for call in (GraphUsage(calls.nexus, {"nodes": "nodes_created"}), CreditsSpent(calls.nexus))
    ]
    sink = CallSink(both, clock=clock, state=state, alarms=alarms)
    usage = MemoryUsage(clock=clock)
    reporter = Reporter(usage, sink, clock=clock)
    usage.record(ACME, {"nodes": 5, "credits": 3})
    link.fates = ["ok", "lost"]
    await reporter.flush()
    assert counts.held == {}, "the credits were spent while the nodes were in doubt"
    clock.advance(us=SETTLE_US)
    await reporter.flush()
    assert (counts.get(ACME, "nodes_created"), counts.get(ACME, "credits_used")) == (5, 3)


async def test_tokens_are_spent_and_read_back() -> None:
    """Call 21 adds and call 19 tells."""
    world = World(wire.Service.LESSTOKENS)
    world.link.fates = ["ok", "unanswered"]
    await world.report(tokens=5)
    world.clock.advance(us=SETTLE_US)
    await world.report(tokens=7)
    assert (world.held("amount"), world.usage.unreported) == (12, 0)
    assert TokensSpent(world.calls.lesstokens).fields == {"tokens": "amount"}


async def test_a_hub_that_cannot_be_read_is_not_told() -> None:
    """Without a count from before, an unknown outcome could never be settled."""
    world = nexus(window_us=0)
    world.link.fates = ["lost"]
    await world.report(nodes=5)
    assert world.error is not None
    assert (world.calls.counts.held, world.sink.pending) == ({}, 0)
    await world.report()
    assert world.held("nodes_created") == 5


async def test_an_alarm_is_logged_with_the_cell_and_the_amount(caplog: pytest.LogCaptureFixture) -> None:
    """An operator can settle by hand what nobody can tell: whose, what, how much, when, why."""
    world = World(wire.Service.SYNAP, synap_usage="increment")
    world.link.fates = ["lost"]
    with caplog.at_level(logging.ERROR):
        await world.report_cells({("messages", ORDERS): 5})
    (said,) = [record.getMessage() for record in caplog.records]
    assert all(text in said for text in (ACME, ORDERS, "'message_count': 5", "outcome is unknown"))
    assert world.sink.alarms[0].at_us == world.clock.now()[1]


def test_the_waiting_time_covers_a_call() -> None:
    """A request may arrive as long as somebody still sends it: four deadlines of a call."""
    assert SETTLE_US >= 4 * 30 * SECOND_US
