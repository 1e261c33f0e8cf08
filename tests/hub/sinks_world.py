"""A link that loses and repeats, plain hubs behind it, and one host that counts in front; in virtual time.

The hubs here are a few lines of arithmetic each, on purpose: what is counted is to be judged by something that shares
no code with what is tested.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubContractError, HubRefusedError, HubUnavailableError
from hivetenancy.hub import wire
from hivetenancy.hub.sinks import CallSink
from hivetenancy.hub.sinks_build import usage_sink
from hivetenancy.hub.sinks_state import MemoryState
from hivetenancy.ids import CellKey, TenantId
from hivetenancy.sources import SourceConflict, UsageReply, UsageReport, UsageSink
from hivetenancy.testing.clock import ManualClock
from hivetenancy.usage.cumulative import Totals
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter

T = TypeVar("T")

LOST: Final = 0.15
"""Share of requests that are lost."""

UNANSWERED: Final = 0.30
"""Share of replies that are lost."""

LATE: Final = 0.5
"""Share of both that arrive (again) later."""

TENANTS: Final = tuple(TenantId(str(UUID(int=1000 + number))) for number in range(3))
COLLECTIONS: Final = {tenant: str(UUID(int=2000 + number)) for number, tenant in enumerate(TENANTS)}


class Link:
    """Carries calls to a hub, or not.

    Attributes:
        twice: Whether what was applied may arrive again.
        down: Whether the hub is not there: refused before anything is sent.
    """

    def __init__(self, draw: random.Random, clock: ManualClock, *, late_s: int, twice: bool = True) -> None:
        self.draw = draw
        self.clock = clock
        self.late_s = late_s
        self.twice = twice
        self.down = False
        self.sound = False
        self.calls = 0
        self._late: list[tuple[int, int, Callable[[], object]]] = []

    async def carry(self, effect: Callable[[], T]) -> T:
        """Make a call."""
        self.calls += 1
        if self.down:
            raise HubUnavailableError("no connection", outcome_unknown=False)
        if not self.sound and self.draw.random() < LOST:
            self._again(effect)
            raise HubUnavailableError("the request was lost")
        answer = effect()
        if not self.sound and self.draw.random() < UNANSWERED:
            if self.twice:
                self._again(effect)
            raise HubUnavailableError("the reply was lost")
        return answer

    def _again(self, effect: Callable[[], object]) -> None:
        if self.draw.random() < LATE:
            at_us = self.clock.now()[0] + self.draw.randint(1, self.late_s) * SECOND_US
            heapq.heappush(self._late, (at_us, self.calls, effect))

    @property
    def busy(self) -> bool:
        """Whether something is still under way."""
        return bool(self._late)

    def arrive(self) -> None:
        """Let everything arrive whose time has come."""
        while self._late and self._late[0][0] <= self.clock.now()[0]:
            effect = heapq.heappop(self._late)[2]
            try:
                effect()
            except HubRefusedError:
                continue


# --- hubs ------------------------------------------------------------------------------------------------------------


@dataclass
class Counts:
    """What a hub holds: one number for each name."""

    held: dict[tuple[str, str], int] = field(default_factory=dict)
    keys: dict[str, object] = field(default_factory=dict)
    refuse: HubRefusedError | None = None

    def get(self, who: str, what: str) -> int:
        """Return a number."""
        return self.held.get((who, what), 0)

    def state(self, who: str, numbers: Mapping[str, int]) -> None:
        """Take totals."""
        self.check()
        self.held.update({(who, what): number for what, number in numbers.items()})

    def add(self, who: str, numbers: Mapping[str, int], key: str | None = None) -> None:
        """Take increments, those under a key once."""
        if key is not None and key in self.keys:
            if self.keys[key] != (who, numbers):
                raise HubRefusedError(422, "other bytes", code="idempotency_mismatch")
            return
        self.check()
        if key is not None:
            self.keys[key] = (who, dict(numbers))
        for what, number in numbers.items():
            self.held[who, what] = self.get(who, what) + number

    def check(self) -> None:
        """Refuse, if told to."""
        if self.refuse is not None:
            raise self.refuse


class Vectorizer:
    """Calls 7 and 8."""

    def __init__(self, link: Link, counts: Counts) -> None:
        self.link, self.counts = link, counts
        self.owners = {collection: tenant for tenant, collection in COLLECTIONS.items()}

    async def validate_collection(self, collection_id: str, user_id: str) -> wire.CollectionValidation:
        def effect() -> wire.CollectionValidation:
            if self.owners.get(collection_id) is None:
                raise HubRefusedError(404, "Collection not found")
            vectors = self.counts.get(collection_id, "vector_count")
            quota = wire.VectorQuota(max_vectors=10**9, current_vectors=vectors, can_insert=True)
            return wire.CollectionValidation(
                valid=self.owners[collection_id] == user_id,
                user_id=user_id,
                collection_id=collection_id,
                quota=quota,
                plan="pro",
            )

        return await self.link.carry(effect)

    async def update_usage(
        self, collection_id: str, *, vector_count: int, storage_bytes: int
    ) -> wire.UpdatedCollection:
        def effect() -> wire.UpdatedCollection:
            self.counts.state(collection_id, {"vector_count": vector_count, "storage_bytes": storage_bytes})
            quota = wire.VectorQuota(max_vectors=10**9, current_vectors=vector_count, can_insert=True)
            return wire.UpdatedCollection(success=True, updated=True, quota=quota)

        return await self.link.carry(effect)


class Nexus:
    """Calls 10, 12 and 13."""

    def __init__(self, link: Link, counts: Counts) -> None:
        self.link, self.counts = link, counts

    async def get_user_database(self, user_id: str) -> wire.UserDatabase:
        def effect() -> wire.UserDatabase:
            self.counts.check()
            nodes, edges, stored, used = (
                self.counts.get(user_id, name)
                for name in ("nodes_created", "relationships_created", "storage_bytes", "credits_used")
            )
            quota = wire.NexusQuota(
                max_nodes=0,
                current_nodes=nodes,
                max_relationships=0,
                current_relationships=edges,
                storage_limit_mb=0,
                storage_used_mb=-(-stored // 2**20),
            )
            return wire.UserDatabase(
                database_name="graph", quota=quota, credits=wire.Credits(available=0, total=0, used=used)
            )

        return await self.link.carry(effect)

    async def consume_credits(
        self,
        user_id: str,
        *,
        amount: int,
        operation: str,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ConsumedCredits:
        await self.link.carry(lambda: self.counts.add(user_id, {"credits_used": amount}, idempotency_key))
        return wire.ConsumedCredits(success=True, can_continue=True, credits_remaining=1)

    async def update_usage(
        self,
        user_id: str,
        *,
        nodes_created: int,
        relationships_created: int,
        storage_bytes: int,
        credits_used: int,
        idempotency_key: str | None = None,
    ) -> None:
        numbers = {
            "nodes_created": nodes_created,
            "relationships_created": relationships_created,
            "storage_bytes": storage_bytes,
            "credits_used": credits_used,
        }
        assert all(number >= 0 for number in numbers.values())
        await self.link.carry(lambda: self.counts.add(user_id, numbers, idempotency_key))


class Synap:
    """Call 17, as totals or as increments."""

    def __init__(self, link: Link, counts: Counts) -> None:
        self.link, self.counts = link, counts
        self.adds = True

    async def update_usage(
        self,
        user_id: str,
        *,
        resource_type: wire.ResourceType | str,
        resource_name: str,
        message_count: int | None = None,
        storage_bytes: int | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> None:
        assert repeatable is not self.adds, "an increment is not repeatable, and a total is"
        said = {"message_count": message_count, "storage_bytes": storage_bytes}
        numbers = {name: number for name, number in said.items() if number is not None}
        who = f"{user_id}/{wire.ResourceType(resource_type).value}/{resource_name}"

        def effect() -> None:
            self.counts.add(who, numbers, idempotency_key) if self.adds else self.counts.state(who, numbers)

        await self.link.carry(effect)


class LessTokens:
    """Calls 19 and 21."""

    def __init__(self, link: Link, counts: Counts) -> None:
        self.link, self.counts = link, counts

    async def get_user_tokens(self, user_id: str) -> wire.UserTokens:
        def effect() -> wire.UserTokens:
            used = self.counts.get(user_id, "amount")
            return wire.UserTokens(
                user_id=user_id, tokens=wire.Tokens(available=0, used=used, total=0, limit_reached=False)
            )

        return await self.link.carry(effect)

    async def consume_tokens(
        self,
        user_id: str,
        *,
        amount: int,
        operation: str,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ConsumedTokens:
        await self.link.carry(lambda: self.counts.add(user_id, {"amount": amount}, idempotency_key))
        return wire.ConsumedTokens(success=True, tokens_remaining=1)


class Calls:
    """The four groups over one link, on one set of numbers."""

    def __init__(self, link: Link, counts: Counts | None = None) -> None:
        self.counts = Counts() if counts is None else counts
        self.vectorizer = Vectorizer(link, self.counts)
        self.nexus = Nexus(link, self.counts)
        self.synap = Synap(link, self.counts)
        self.lesstokens = LessTokens(link, self.counts)


class OverLink:
    """A sink of running totals over the link (X4)."""

    def __init__(self, link: Link, take: Callable[[UsageReport], UsageReply | SourceConflict]) -> None:
        self.link, self.take = link, take

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        return await self.link.carry(lambda: self.take(report))


# --- the host --------------------------------------------------------------------------------------------------------


@dataclass
class Host:
    """One process that counts and reports; it may be started again.

    Attributes:
        sink: Where it reports to.
        clock: Its clock.
        totals: What keeps its totals; a broken one, for the check of the checks.
    """

    sink: UsageSink
    clock: ManualClock
    totals: type[Totals] = Totals
    usage: MemoryUsage = field(init=False)
    reporter: Reporter = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Be a new process."""
        self.usage = MemoryUsage(clock=self.clock)
        sound = self.usage._totals
        self.usage._totals = self.totals(source=sound.sources[-1], writer=sound._writer)
        self.begin_reporter()

    def begin_reporter(self) -> None:
        """Be a new reporter of the same totals."""
        self.reporter = Reporter(self.usage, self.sink, clock=self.clock)

    def record(self, tenant: TenantId, amounts: Mapping[CellKey, int]) -> None:
        """Count something."""
        self.usage.record(tenant, amounts)

    async def flush(self, *, final: bool = False) -> bool:
        """Flush; whether the hub was there."""
        try:
            await self.reporter._flush(final=final)
        except (HubUnavailableError, HubContractError):
            return False
        return True


def sink_of(service: wire.Service, calls: Any, clock: ManualClock, state: MemoryState, **options: Any) -> CallSink:
    """The sink of a service."""
    return usage_sink(service, calls, clock=clock, state=state, **options)
