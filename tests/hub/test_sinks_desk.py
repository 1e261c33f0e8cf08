"""Reporting by calls to the control plane that the fake speaks for: what is counted there is what limits show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from hivetenancy.authority.resources import CallRefused
from hivetenancy.authority.service import HubService
from hivetenancy.errors import HubRefusedError, HubUnavailableError
from hivetenancy.hub import wire
from hivetenancy.hub.sinks_build import usage_sink
from hivetenancy.hub.sinks_increment import SETTLE_US
from hivetenancy.ids import CellKey
from hivetenancy.plans import CANONICAL, DimensionSpec, QuotaKind
from hivetenancy.sources import RejectCode
from hivetenancy.testing.clock import ManualClock
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter
from tests.hub.test_sinks import Scripted

pytestmark = pytest.mark.anyio

M = TypeVar("M", bound=BaseModel)
DIMENSIONS = {**CANONICAL, "messages": DimensionSpec(name="messages", unit="messages", kind=QuotaKind.CONTRIBUTION)}


class DeskCalls:
    """The calls that usage needs, made of the desk without HTTP; all four groups in one."""

    def __init__(self, hub: HubService, link: Scripted, service: wire.Service) -> None:
        self.desk, self.link, self.service = hub.desk, link, service
        self.vectorizer = self.nexus = self.synap = self.lesstokens = self

    async def ask(self, reply: type[M] | None, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Make a call over the link, and read the answer as the wire has it."""

        def effect() -> Any:
            try:
                answer = call(*args, **named)
            except CallRefused as refused:
                raise HubRefusedError(refused.status, str(refused), code=refused.code) from None
            return None if reply is None else reply.model_validate(asdict(answer))

        return await self.link.carry(effect)

    async def validate_collection(self, collection_id: str, user_id: str) -> wire.CollectionValidation:
        found = await self.ask(wire.CollectionValidation, self.desk.validate_collection, collection_id, user_id)
        return wire.CollectionValidation.model_validate(found)

    async def get_user_database(self, user_id: str) -> wire.UserDatabase:
        return wire.UserDatabase.model_validate(await self.ask(wire.UserDatabase, self.desk.get_user_database, user_id))

    async def get_user_tokens(self, user_id: str) -> wire.UserTokens:
        return wire.UserTokens.model_validate(await self.ask(wire.UserTokens, self.desk.get_user_tokens, user_id))

    async def consume_tokens(self, user_id: str, *, amount: int, operation: str, **_: Any) -> wire.ConsumedTokens:
        found = await self.ask(wire.ConsumedTokens, self.desk.consume_tokens, user_id, amount, operation)
        return wire.ConsumedTokens.model_validate(found)

    async def update_usage(self, who: str, **numbers: Any) -> Any:
        numbers.pop("idempotency_key", None)
        numbers.pop("repeatable", None)
        if self.service is wire.Service.VECTORIZER:
            totals = numbers["vector_count"], numbers["storage_bytes"]
            return await self.ask(wire.UpdatedCollection, self.desk.update_collection_usage, who, *totals)
        if self.service is wire.Service.NEXUS:
            return await self.ask(None, self.desk.update_nexus_usage, who, **numbers)
        kind, name = wire.ResourceType(numbers.pop("resource_type")).value, numbers.pop("resource_name")
        return await self.ask(None, self.desk.update_synap_usage, who, kind, name, **numbers)


class World:
    """A host of one service before a control plane in memory."""

    def __init__(self, service: wire.Service, **options: Any) -> None:
        self.clock = ManualClock()
        self.hub = HubService(clock=self.clock)
        self.acme = self.hub.add_tenant("acme", plan="pro")
        self.link = Scripted(self.clock)
        calls: Any = DeskCalls(self.hub, self.link, service)
        self.sink = usage_sink(service, calls, clock=self.clock, **options)
        self.usage = MemoryUsage(clock=self.clock, dimensions=DIMENSIONS)
        self.reporter = Reporter(self.usage, self.sink, clock=self.clock)

    async def report(self, amounts: dict[CellKey, int]) -> None:
        """Count and report, whatever comes of it."""
        self.usage.record(self.acme, amounts)
        with suppress(HubUnavailableError):
            await self.reporter.flush()


async def test_vectors_and_bytes_of_a_collection() -> None:
    """Totals go where limits show them, and a second statement adds nothing."""
    world = World(wire.Service.VECTORIZER)
    docs = world.hub.desk.create_collection(world.acme, "docs", world.acme, 4).collection_id
    world.hub.desk.update_collection_usage(docs, 1000, 0)
    for _ in range(2):
        await world.report({("vectors", docs): 5, ("storage_bytes", docs): 70})
    held = world.hub.desk.collection(docs)
    assert held is not None
    assert (held.vector_count, held.storage_bytes) == (1010, 140)
    assert world.hub.used(world.acme, "storage_bytes") == 140


async def test_a_collection_of_another_tenant() -> None:
    """Foreign equals unknown: refused for good, and nothing of the other tenant's changes."""
    world = World(wire.Service.VECTORIZER)
    other = world.hub.add_tenant("other", plan="pro")
    docs = world.hub.desk.create_collection(other, "docs", other, 4).collection_id
    await world.report({("vectors", docs): 5})
    assert [alarm.code for alarm in world.usage.alarms] == [RejectCode.UNKNOWN_USER]
    held = world.hub.desk.collection(docs)
    assert held is not None
    assert held.vector_count == 0


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
async def test_a_graph_is_read_back(fate: str) -> None:
    """Nodes, relationships, bytes and credits count once, though an outcome was unknown."""
    world = World(wire.Service.NEXUS)
    world.link.fates = ["ok", fate]
    first: dict[CellKey, int] = {"nodes": 2, "relationships": 3, "storage_bytes": 3 << 20, "credits": 4}
    await world.report(first)
    assert world.sink.pending == 1
    world.clock.advance(us=SETTLE_US)
    await world.report({"nodes": 10})
    found = {name: world.hub.used(world.acme, str(name)) for name in first}
    assert found == {**first, "nodes": 12}
    assert not world.sink.alarms


@pytest.mark.parametrize(("stored", "parked"), [(3 << 20, 0), (1000, 1)])
async def test_bytes_alone_are_read_to_the_megabyte(stored: int, parked: int) -> None:
    """The hub rounds up; what fills a megabyte can be told, and what does not is parked rather than guessed."""
    world = World(wire.Service.NEXUS)
    await world.report({"storage_bytes": 500})
    world.link.fates = ["ok", "unanswered"]
    await world.report({"storage_bytes": stored})
    assert world.sink.pending == 1
    world.clock.advance(us=SETTLE_US)
    await world.report({"storage_bytes": 7})
    assert len(world.sink.alarms) == parked
    assert world.hub.used(world.acme, "storage_bytes") == 500 + stored + 7


async def test_tokens_run_out_and_come_back() -> None:
    """More than is left is refused as a verdict: nothing is spent, the line is busy, and comes again next month."""
    world = World(wire.Service.LESSTOKENS)
    await world.report({"tokens": 1990})
    await world.report({"tokens": 20})
    assert (world.hub.used(world.acme, "tokens"), world.usage.unreported) == (1990, 1)
    world.clock.advance(40 * 86400)
    await world.reporter.flush()
    assert (world.hub.used(world.acme, "tokens"), world.usage.unreported) == (20, 0)


async def test_a_queue_by_its_type_and_name() -> None:
    """Call 17 takes totals at this hub, and that is what the operator says."""
    world = World(wire.Service.SYNAP, synap_usage="absolute")
    world.hub.desk.create_resource(world.acme, "queue", "orders")
    for amount in (5, -2):
        await world.report({("messages", "queue/orders"): amount, ("storage_bytes", "queue/orders"): 10 * amount})
    held = world.hub.desk.resource(world.acme, "queue", "orders")
    assert held is not None
    assert (held.message_count, held.storage_bytes) == (3, 30)
