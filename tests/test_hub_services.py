"""A whole server of each service against a hub of today's wire: admitted, limited, and reported to the last piece."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hivetenancy import tenant as tenant_module
from hivetenancy.authority.desk import Desk
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import HubUnavailableError
from hivetenancy.gate import Admission, Caller
from hivetenancy.ids import CellKey, Surface
from hivetenancy.plans import DimensionSpec, Plan, QuotaKind, QuotaLimit
from tests.hub.test_start_up import Keys
from tests.hub.wired import Got, Sent, Wired

pytestmark = pytest.mark.anyio

ORDERS = "queue/orders"
MESSAGES = QuotaLimit(dimension="messages", limit=1_000, kind=QuotaKind.CONTRIBUTION, resource=ORDERS, period=None)


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a process that never had a tenancy, and locks of its own."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@dataclass(frozen=True)
class Service:
    """What one service does in a request, and where its hub shows the sum.

    Attributes:
        name: The service.
        path: How the path of its usage call ends.
        cell: What a request takes, the resource ``{}`` being the collection.
        limit: How much of it there may be.
        shown: Reads what the hub counts.
        options: For the client.
        once: Whether a call adds and is made once, whatever becomes of it. The fake's takes totals, so what arrived is
            added up here.
    """

    name: str
    path: str
    cell: CellKey
    limit: int
    shown: Callable[[Desk, str, str], int]
    options: dict[str, Any]
    once: bool = False


def _messages(desk: Desk, user: str, _collection: str) -> int:
    found = desk.resource(user, "queue", "orders")
    return 0 if found is None else found.message_count


SYNAP = ("synap", "/usage", ("messages", ORDERS), 1_000, _messages)
HOST_PLAN = {"default": Plan(name="default", quotas=(MESSAGES,))}
SERVICES = {
    "vectorizer": Service(
        "vectorizer",
        "/usage",
        ("vectors", "{}"),
        100_000,
        lambda desk, user, collection: desk.validate_collection(collection, user).quota.current_vectors,
        {},
    ),
    "nexus": Service(
        "nexus", "/usage", "nodes", 100_000, lambda desk, user, _: desk.get_user_database(user).quota.current_nodes, {}
    ),
    "synap absolute": Service(*SYNAP, {"synap_usage": "absolute", "plans": HOST_PLAN}),
    "synap increment": Service(*SYNAP, {"synap_usage": "increment", "plans": HOST_PLAN}, once=True),
    "lesstokens": Service(
        "lesstokens", "/consume", "tokens", 2_000, lambda desk, user, _: desk.get_user_tokens(user).tokens.used, {}
    ),
}


class Host:
    """A server of one service, whose every request takes a tenth of the limit."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.world = Wired(extensions=())
        self.desk, self.user = self.world.service.desk, self.world.acme
        self.collection = self.desk.create_collection(self.user, "docs", self.user, 3).collection_id
        self.desk.create_resource(self.user, "queue", "orders")
        hub = self.world.client(keys=Keys(self.world), service=service.name, **service.options)
        own = DimensionSpec(name="messages", unit="messages", kind=QuotaKind.CONTRIBUTION)
        self.tenancy: ClusterTenancy = Tenancy.embedded(hub, allow_workers=True, dimensions=[own], audit=None)
        cell = service.cell
        if isinstance(cell, tuple):
            cell = cell[0], cell[1].format(self.collection)
        self.cell: CellKey = cell
        demand = {cell: service.limit // 10}
        self.added = 0
        self.usual = self.world.line.answer
        self.world.line.answer = self.answer
        self.function = self.tenancy.functions.declare("work.do", effect="write", demand=demand)

    async def work(self) -> bool:
        """Serve one request; whether it was admitted."""
        gate = self.tenancy.gate
        caller = await gate.authenticate(self.world.key, now=gate.now())
        assert isinstance(caller, Caller)
        admission = await gate.admit(caller, self.function, surface=Surface.HTTP, now=gate.now())
        if isinstance(admission, Refusal):
            assert admission.reason is Reason.QUOTA_EXCEEDED
            return False
        assert isinstance(admission, Admission)
        admission.settle(succeeded=True)
        admission.close()
        return True

    async def answer(self, sent: Sent) -> Got:
        """Answer as the hub does, and add up what is added."""
        got = self.usual(sent)
        found = got if isinstance(got, Got) else await got
        if sent.method == "PUT" and found.status == 200:
            self.added += json.loads(sent.body).get("message_count", 0)
        return found

    async def report(self) -> None:
        """Report, whatever comes of it."""
        with suppress(HubUnavailableError):
            await self.tenancy.flush()

    @property
    def shown(self) -> int:
        """What the hub counts."""
        if self.service.once:
            return self.added
        return self.service.shown(self.desk, self.user, self.collection)


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("fate", ["well", "reply lost", "request lost"])
async def test_a_service_on_todays_wire(name: str, fate: str) -> None:
    """Ten requests of a tenth each, a fate in the middle: no more, no fewer, and the hub counts them all once."""
    service = SERVICES[name]
    host = Host(service)

    def lost(sent: Sent, got: Got) -> Got:
        if sent.path.endswith(service.path) and sent.method != "GET":
            raise httpx.ReadError("reset")
        return got

    async def dropped(sent: Sent) -> Got:
        return lost(sent, Got() if sent.path.endswith(service.path) else await host.answer(sent))

    async with host.tenancy:
        for _ in range(5):
            assert await host.work()
        if fate == "reply lost":
            host.world.line.bend = lost
        elif fate == "request lost":
            host.world.line.answer = dropped
        await host.report()
        host.world.line.bend, host.world.line.answer = None, host.answer
        for _ in range(3):
            host.world.clock.advance(130)
            await host.report()
        arrived = 0 if service.once and fate == "request lost" else 5
        assert host.shown == arrived * service.limit // 10
        await host.tenancy._limits.refresh()
        assert [await host.work() for _ in range(6)] == [True] * 5 + [False]
        await host.report()
        assert host.shown == (arrived + 5) * service.limit // 10
        red = {part.name for part in host.tenancy.health().parts if not part.ok}
        assert red == ({"hub usage synap.update_usage"} if service.once and fate != "well" else set())


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if not service.once])
async def test_a_report_that_is_cancelled_anywhere_counts_once(name: str) -> None:
    """At each turn of the loop that it takes, before the call and after: what is sent next leaves the sum right."""
    service = SERVICES[name]
    part, ended = service.limit // 50, 0
    for turns in range(0, 40, 2):
        host = Host(service)
        await host.tenancy.start()
        host.tenancy._usage.record(host.user, {host.cell: part})
        report = asyncio.create_task(host.tenancy.flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        ended += report.done()
        report.cancel()
        await asyncio.wait([report])
        for _ in range(3):
            host.world.clock.advance(130)
            await host.report()
        assert host.shown == part, turns
        assert host.tenancy._usage.unreported == 0
        await host.tenancy.stop()
    assert 0 < ended < 20, "some were cancelled, and some had ended before"
