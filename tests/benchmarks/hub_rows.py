"""What a hub over HTTP costs: the real client over the fake's ASGI application, beside the spine and beside designs.

The hub is not on the path of a known key, so a warm key must cost what it costs without HTTP. What is no ratio stands
in the notes: how many calls a herd makes, how long a cold start takes, what a slow hub does to those who are known, how
often the hub is asked in steady state, what 100,000 keys and limits weigh.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.format import digest
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.authority.service import HubService
from hivetenancy.cli.bench import Report, Row, SteadyClock, Work, measure, request, starlette_app
from hivetenancy.clock import SECOND_US
from hivetenancy.compose import Tenancy
from hivetenancy.errors import UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.ids import Effect, TenantId
from hivetenancy.limits import CachedLimits
from hivetenancy.plans import Plan, quota_limit
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    KeyAnswer,
    LimitsAnswer,
    LimitsBatch,
    SourceConflict,
    UsageReply,
    UsageReport,
)
from hivetenancy.testing import FakeHiveHub, ManualClock
from hivetenancy.testing.clock import ShiftedClock
from tests.hub.virtual_loop import VirtualLoop

HERD: Final = 10_000
TENANTS: Final = 1_000
NODE: Final = 100_000
WEIGHED: Final = 5_000
"""Of how many the memory is measured: the allocator's trace makes everything several times slower."""

PLAN: Final = Plan(name="bench", quotas=(quota_limit("storage_bytes", 2**50),))
PERMISSIONS: Final = ("read", "write")


class Counted:
    """A control plane whose calls are counted, and which can be made slow.

    Args:
        hub: The control plane: `HiveHub`, or the model itself.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.calls: Counter[str] = Counter()
        self.present = self.peak = 0
        self.wait: float | None = 0.0
        """Seconds before it is asked at all; ``None``: for ever."""
        self.waiting: list[asyncio.Future[None]] = []

    async def _count(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        self.calls[name] += 1
        self.present += 1
        self.peak = max(self.peak, self.present)
        try:
            if self.wait is None:
                silence = asyncio.get_running_loop().create_future()
                self.waiting.append(silence)
                await silence
            elif self.wait:
                await asyncio.sleep(self.wait)
            return await work()
        finally:
            self.present -= 1

    async def introspect(self, credential: bytes, **options: Any) -> KeyAnswer:
        """Ask about one key."""
        return await self._count("introspect", lambda: self.hub.introspect(credential, **options))

    async def introspect_batch(self, digests: Sequence[bytes], **options: Any) -> BatchAnswer:
        """Ask about several keys."""
        return await self._count("introspect_batch", lambda: self.hub.introspect_batch(digests, **options))

    async def limits(self, tenant: TenantId, **options: Any) -> LimitsAnswer:
        """Ask about one tenant."""
        return await self._count("limits", lambda: self.hub.limits(tenant, **options))

    async def limits_batch(self, tenants: Sequence[TenantId], **options: Any) -> LimitsBatch:
        """Ask about several tenants."""
        return await self._count("limits_batch", lambda: self.hub.limits_batch(tenants, **options))

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Poll."""
        return await self._count("changes", lambda: self.hub.changes(cursor, wait_seconds=wait_seconds))

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Hand in usage."""
        return await self._count("report", lambda: self.hub.report(report))

    @property
    def hub_id(self) -> str:
        """Which hub it is."""
        return str(self.hub.hub_id)


class Node:
    """The two caches of one process, over one counted hub."""

    def __init__(self, source: Counted, clock: Any, *, size: int = 100_000) -> None:
        self.source, self.clock = source, clock
        self.feed = Feed(source, clock=clock)
        self.keys = CachedAccessKeys(
            source, functions=FunctionRegistry(), feed=self.feed, clock=clock, max_keys=size, max_waiting=2 * size
        )
        self.limits = CachedLimits(source, floors=self.feed.floors, clock=clock, max_tenants=size)
        self.feed.subscribe(self.limits)
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, *, poll: bool = False) -> Node:
        """Open the feed and start the background work."""
        await self.feed.open()
        works = (self.keys.run, self.limits.run, *((self.feed.run,) if poll else ()))
        self.tasks = [asyncio.create_task(work()) for work in works]
        await asyncio.sleep(0)
        return self

    async def request(self, secret: bytes, tenant: TenantId) -> None:
        """Do what a request asks of the two: who is it, and what may it have."""
        await self.keys.validate(secret, effect=Effect.READ)
        await self.limits.limits(tenant, now=self.clock.now())

    async def stop(self) -> None:
        """End the background work."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.keys.aclose()


def issued(hub: Any, count: int, plan: str = "free") -> list[tuple[bytes, TenantId]]:
    """Give *hub* tenants with one key each; return their secrets and ids."""
    service: HubService = hub.service if isinstance(hub, FakeHiveHub) else hub
    made = []
    for number in range(count):
        tenant = service.add_tenant(f"tenant-{number}", plan=plan)
        made.append((service.issue_key(tenant, name="k", permissions=PERMISSIONS).secret.encode(), tenant))
    return made


# --- a warm key ------------------------------------------------------------------------------------------------------


async def warm_rows() -> list[Row]:
    """Return the rows of a warm key: over the spine's fake, and over the real client."""
    fake = FakeHiveHub(clock=SteadyClock())
    secret, tenant = issued(fake, 1)[0]
    client = fake.connect(service="synap")
    await client.open()
    rows, nodes = [], []
    for name, hub in (("the spine's fake", fake), ("HiveHub", client)):
        node = await Node(Counted(hub), fake.clock).start()
        await node.request(secret, tenant)
        nodes.append(node)
        rows += [
            Row(name=f"warm key, {name}", work=_keys(node, secret), per="SHA"),
            Row(name=f"warm key and limits, {name}", work=_both(node, secret, tenant), per="SHA"),
        ]
    for node in nodes:  # nothing is left to do: the clock stands
        await node.stop()
    return rows


def _keys(node: Node, secret: bytes) -> Work:
    async def work(count: int) -> None:
        validate, now = node.keys.try_validate, node.clock.now()
        for _ in range(count):
            validate(secret, effect=Effect.READ, now=now)

    return work


def _both(node: Node, secret: bytes, tenant: TenantId) -> Work:
    async def work(count: int) -> None:
        for _ in range(count):
            await node.request(secret, tenant)

    return work


# --- herds -----------------------------------------------------------------------------------------------------------


async def herd_note() -> dict[str, str]:
    """10,000 concurrent misses of one key."""
    fake = FakeHiveHub()
    secret, _ = issued(fake, 1)[0]
    client = fake.connect(service="synap")
    await client.open()
    source = Counted(client)
    node = await Node(source, fake.clock).start()
    fake.forget_calls()
    began = time.perf_counter()
    answers = await asyncio.gather(*(node.keys.validate(secret, effect=Effect.READ) for _ in range(HERD)))
    took = time.perf_counter() - began
    accepted = sum(isinstance(each, Principal) for each in answers)
    await node.stop()
    await client.aclose()
    calls = fake.count("introspect") + fake.count("introspect_batch")
    return {f"{HERD:,} concurrent misses of one key": f"{calls} call, {accepted:,} accepted, {1000 * took:.0f} ms"}


async def warm_up_note(tenants: int) -> dict[str, str]:
    """Many tenants come at once to a node that knows none."""
    fake = FakeHiveHub()
    made = issued(fake, tenants)
    client = fake.connect(service="synap")
    await client.open()
    source = Counted(client)
    node = await Node(source, fake.clock).start()
    source.calls.clear()
    source.wait = 0.005  # as a network would make it: without, no call would ever wait beside another
    began = time.perf_counter()
    results = await asyncio.gather(*(node.request(*each) for each in made), return_exceptions=True)
    took = time.perf_counter() - began
    failed = sum(isinstance(each, UnavailableError) for each in results)
    again = 0
    while failed and again < 10:  # who could not be told comes again, as a client does after Retry-After
        again += 1
        await asyncio.sleep(1)
        results = await asyncio.gather(*(node.request(*each) for each in made), return_exceptions=True)
        failed = sum(isinstance(each, UnavailableError) for each in results)
        took = time.perf_counter() - began
    await node.stop()
    await client.aclose()
    said = f"{sum(source.calls.values()):,} calls, at most {source.peak} at once, {took:.2f} s"
    return {f"{tenants:,} tenants warm up at once": f"{said}, {again} times 503 for some"}


# --- a hub that takes its time ---------------------------------------------------------------------------------------


async def slow_note(rounds: int) -> dict[str, str]:
    """Requests of known tenants that are due for a refresh, while the hub is quick, slow or silent; interleaved."""
    ways: dict[str, float | None] = {"at once": 0.0, "in 2 s": 2.0, "never": None}
    p50: dict[str, list[float]] = {way: [] for way in ways}
    p99: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, wait in ways.items():
            times = await _slow_round(wait)
            p50[way].append(times[len(times) // 2])
            p99[way].append(times[len(times) * 99 // 100])
    return {
        f"known tenants, hub answers {way}: p50, p99 in us": f"{_span(p50[way])}, {_span(p99[way])}" for way in ways
    }


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} - {max(values):.1f})"


async def _slow_round(wait: float | None, tenants: int = 200, requests: int = 3_000) -> list[float]:
    """Send whole requests through a Starlette application while everything that is known is due for a refresh."""
    clock = ShiftedClock()
    hub = HubService(clock=clock, plans=[PLAN])
    made = issued(hub, tenants, PLAN.name)
    source = Counted(hub)
    tenancy = Tenancy.embedded(source, clock=clock, audit=None, allow_workers=True)
    app = tenancy.asgi(starlette_app())
    headers = [[(b"host", b"localhost"), (b"authorization", b"Bearer " + secret)] for secret, _ in made]
    draw, times = random.Random(7), []
    async with tenancy:
        for each in headers:
            if await request(app, each) != 204:
                raise RuntimeError("a request of the benchmark was refused")
        clock.advance(24)
        source.wait = wait
        gc.collect()
        for _ in range(requests):
            each = draw.choice(headers)
            began = time.perf_counter_ns()
            status = await request(app, each)
            times.append((time.perf_counter_ns() - began) / 1000)
            if status != 204:
                raise RuntimeError(f"a known tenant was answered {status}")
            await asyncio.sleep(0)
        source.wait = 0.0
        for task in source.waiting:
            task.cancel()
    return sorted(times)


# --- steady state ----------------------------------------------------------------------------------------------------


def steady_note(tenants: int = 100, rate: float = 100.0, seconds: int = 600) -> dict[str, str]:
    """Calls to the hub per 1,000 requests, ours run in virtual time beside the rules of the three servers.

    Assumed: one node, one key for each tenant, random tenants, nothing changes, the hub answers in 20 ms, one minute of
    warming up is not counted. Usage reports are left out for everybody.
    """
    draw = random.Random(7)
    arrivals = []
    at = 0.0
    while (at := at + draw.expovariate(rate)) < 60 + seconds:
        arrivals.append((at, draw.randrange(tenants)))
    ours = _ours(arrivals, tenants)
    counted = sum(1 for at, _ in arrivals if at >= 60)
    rules = {
        "Synap (one look-up a key and 60 s)": (60.0,),
        "Vectorizer (key 300 s, quota 60 s)": (300.0, 60.0),
        "Nexus (nothing kept: one look-up a request)": (0.0,),
    }
    notes = {
        f"hub calls per 1,000 requests, {name}": f"{1000 * _by_rule(arrivals, ttls) / counted:.1f}"
        for name, ttls in rules.items()
    }
    total = sum(ours.values())
    split = ", ".join(f"{name} {1000 * calls / counted:.1f}" for name, calls in sorted(ours.items()))
    mine = {
        f"hub calls per 1,000 requests, ours ({tenants} tenants, {rate:g}/s)": f"{1000 * total / counted:.1f}: {split}"
    }
    return mine | notes


def _by_rule(arrivals: Sequence[tuple[float, int]], ttls: Sequence[float]) -> int:
    """Count the calls of a cache that asks when what it has is older than its time to live."""
    calls = 0
    for ttl in ttls:
        asked: dict[int, float] = {}
        for at, tenant in arrivals:
            if tenant not in asked or at - asked[tenant] >= ttl:
                asked[tenant] = at
                calls += at >= 60
    return calls


def _ours(arrivals: Sequence[tuple[float, int]], tenants: int) -> Counter[str]:
    clock = ManualClock()
    loop = VirtualLoop(clock)
    hub = HubService(clock=clock)
    made = issued(hub, tenants)
    source = Counted(hub)
    source.wait = 0.02
    node = Node(source, clock)
    starting = loop.create_task(node.start(poll=True))
    loop.advance(0.1)
    starting.result()
    began = clock.now()[0]
    for at, tenant in arrivals:
        loop.advance(max(0.0, at - (clock.now()[0] - began) / SECOND_US))
        if at < 60:
            source.calls.clear()
        loop.create_task(node.request(*made[tenant]))
    loop.rest()
    stopping = loop.create_task(node.stop())
    loop.advance(1)
    stopping.result()
    loop.close()
    return source.calls


# --- a hundred thousand ----------------------------------------------------------------------------------------------


async def many_notes(count: int) -> dict[str, str]:
    """A node that knew many keys is started again: batches until all are verified; then what they and limits weigh."""
    fake = FakeHiveHub()
    made = issued(fake, count)
    digests = [digest(secret) for secret, _ in made]
    client = fake.connect(service="synap")
    await client.open()
    took, calls = await _verified(client, fake, digests)
    restart = f"{took:.1f} s, {calls} batch calls, {1e6 * took / count:.0f} us a key (client and hub in one process)"
    small = min(count, WEIGHED)
    keys, limits = await _weights(client, fake, digests[:small], [tenant for _, tenant in made[:small]])
    await client.aclose()
    return {
        f"restart of a node that knew {count:,} keys: all verified after": restart,
        f"memory of {NODE:,} cached keys ({small:,} weighed)": _weight(keys, small),
        f"memory of {NODE:,} cached limits, plan 'free' ({small:,} weighed)": _weight(limits, small),
    }


def _weight(size: int, count: int) -> str:
    each = size / count
    return f"{each * NODE / 1e6:.0f} MB, {each:.0f} bytes each"


async def _verified(client: Any, fake: FakeHiveHub, digests: Sequence[bytes]) -> tuple[float, int]:
    node = Node(source := Counted(client), fake.clock)
    node.keys.recall(digests)
    began = time.perf_counter()
    await node.start()
    while len(node.keys) < len(digests) and time.perf_counter() - began < 300:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    await node.stop()
    return took, source.calls["introspect_batch"]


async def _weights(
    client: Any, fake: FakeHiveHub, digests: Sequence[bytes], tenants: Sequence[TenantId]
) -> tuple[int, int]:
    node = Node(Counted(client), fake.clock)
    await node.feed.open()
    fake.forget_calls()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, len(digests), 1000):
            await node.keys._ask_batch(list(digests[start : start + 1000]))
        fake.forget_calls()
        gc.collect()
        after_keys = tracemalloc.get_traced_memory()[0]
        node.limits._due.update(tenants)
        while node.limits._due:
            await node.limits.refresh()
        fake.forget_calls()
        gc.collect()
        after_limits = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    held = len(node.keys), len(node.limits._entries)
    if held != (len(digests), len(tenants)):
        raise RuntimeError(f"expected {len(digests)} keys and limits to be kept, got {held}")
    await node.stop()
    return after_keys - before, after_limits - after_keys


# --- all of it -------------------------------------------------------------------------------------------------------


async def everything(*, quick: bool) -> Report:
    """Measure all rows and notes."""
    rounds, seconds = (5, 0.02) if quick else (21, 0.05)
    report = Report(await measure(await warm_rows(), rounds=rounds, seconds=seconds))
    report.notes = {
        **await herd_note(),
        **await warm_up_note(100 if quick else TENANTS),
        **await slow_note(3 if quick else 9),
        **await asyncio.to_thread(steady_note, seconds=120 if quick else 600),
        **await many_notes(2_000 if quick else NODE),
    }
    return report
