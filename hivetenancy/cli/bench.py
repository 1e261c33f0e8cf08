"""``hivetenancy bench``: what tenancy costs on this machine.

Absolute times of a shared machine mean little, so each row is a ratio to a denominator measured in the same run, right
beside it: SHA (the SHA-256 of one key), an f-string, or *bare* (one request through a one-route Starlette
application without tenancy). Rounds are interleaved, every row once a round; the median of the rounds is shown with the
quarter below and above it. A gate is the ratio that the project holds itself to (``docs/reference/performance.md``).

Nothing here passes or fails: it prints. ``tests/benchmarks`` imports the rows and sets peers beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final

from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.format import find_credential
from hivetenancy.clock import Instant, SystemClock
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.context import TenantContext
from hivetenancy.functions import Function, FunctionRegistry, function
from hivetenancy.gate import Admission
from hivetenancy.ids import Amounts, Effect, Surface, TenantId
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.plans import Plan, QuotaLimit, RateLimits, RatePolicy, quota_limit
from hivetenancy.quota.fixed import FixedLimits
from hivetenancy.quota.local import LocalQuota, LocalReservation
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.ratelimit.protocol import Subject
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.hub import FakeHiveHub

MANY: Final = 100_000
SOME: Final = 1_000
_MINUTE_US: Final = 60_000_000
_PLENTY: Final = 10**9

_BUCKETS: Final = (
    RatePolicy(name="per-minute", limit=_PLENTY, period_us=_MINUTE_US, burst=_PLENTY),
    RatePolicy(name="per-hour", limit=_PLENTY, period_us=60 * _MINUTE_US, burst=_PLENTY),
)
_WINDOWS: Final = (
    RatePolicy(name="per-minute", limit=_PLENTY, period_us=_MINUTE_US),
    RatePolicy(name="per-hour", limit=_PLENTY, period_us=60 * _MINUTE_US),
)
_QUOTAS: Final[tuple[QuotaLimit, ...]] = (
    quota_limit("storage_bytes", 2**50),
    quota_limit("keys", 2**50),
    quota_limit("operations", 2**50),
)
_PLAN: Final = Plan(name="bench", rates=_BUCKETS, quotas=_QUOTAS)
_NARROW: Final = Plan(
    name="narrow",
    rates=(RatePolicy(name="per-hour", limit=1, period_us=60 * _MINUTE_US, burst=1),),
    quotas=_QUOTAS,
)
_ONE: Final[Amounts] = {"storage_bytes": 10}
_THREE: Final[Amounts] = {"storage_bytes": 10, "keys": 1, "operations": 1}

Work = Callable[[int], Awaitable[None]]
"""Does something *n* times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Something to measure.

    Attributes:
        name: What it is.
        work: Does it *n* times.
        per: What its time is divided by: ``SHA``, ``f-string`` or ``bare``.
        gate: The ratio that the project holds itself to; ``None``: a figure for orientation.
        beyond: Work whose time is taken off first, so that the row is what tenancy adds to it; ``None``: nothing is.
        peer: Whether this is somebody else's code, for comparison.
    """

    name: str
    work: Work
    per: str
    gate: float | None = None
    beyond: Work | None = None
    peer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured: microseconds, and the ratio with its middle half."""

    name: str
    us: float
    per: str
    ratio: float
    low: float
    high: float
    gate: float | None
    peer: bool

    @property
    def met(self) -> bool | None:
        """Whether the gate is met; ``None`` where there is none."""
        return None if self.gate is None else self.ratio <= self.gate


@dataclass(slots=True)
class Report:
    """All figures of a run, and those that are no ratio."""

    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


# --- measuring -------------------------------------------------------------------------------------------------------


async def measure(rows: Sequence[Row], *, rounds: int, seconds: float) -> list[Figure]:
    """Measure *rows* beside their denominators, each once a round, for about *seconds* a row and round."""
    denominators = {"SHA": _sha, "f-string": _f_string, "bare": await _bare_work()}
    used = {row.per for row in rows}
    works: dict[str, Work] = {name: work for name, work in denominators.items() if name in used}
    works |= {row.name: row.work for row in rows}
    works |= {f"beyond {row.name}": row.beyond for row in rows if row.beyond is not None}
    counts = {name: await _calibrate(work, seconds) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(await _time(work, counts[name]))
    nothing = [0.0] * rounds
    return [_figure(row, times[row.name], times[row.per], times.get(f"beyond {row.name}", nothing)) for row in rows]


async def _time(work: Work, count: int) -> float:
    gc.collect()
    began = time.perf_counter_ns()
    await work(count)
    return (time.perf_counter_ns() - began) / count / 1000


async def _calibrate(work: Work, seconds: float) -> int:
    count = 64
    while True:
        us = await _time(work, count)
        if us * count > seconds * 1e6 / 10 or count >= 1_000_000:
            return max(64, min(1_000_000, int(seconds * 1e6 / us)))
        count *= 4


def _figure(row: Row, whole: Sequence[float], denominators: Sequence[float], beyond: Sequence[float]) -> Figure:
    times = [mine - less for mine, less in zip(whole, beyond, strict=True)]
    ratios = sorted(mine / other for mine, other in zip(times, denominators, strict=True))
    quarter = len(ratios) // 4
    return Figure(
        name=row.name,
        us=statistics.median(times),
        per=row.per,
        ratio=statistics.median(ratios),
        low=ratios[quarter],
        high=ratios[-1 - quarter],
        gate=row.gate,
        peer=row.peer,
    )


_KEY: Final = b"hh_test_0123456789abcdefghijklmnopqrstuvwxyzABCDEF"


async def _sha(count: int) -> None:
    for _ in range(count):
        sha256(_KEY).digest()


async def _f_string(count: int) -> None:
    tenant, key = "550e8400-e29b-41d4-a716-446655440000", "session:1"
    for _ in range(count):
        f"user:{tenant}:{key}"


# --- the engines ---------------------------------------------------------------------------------------------------


def engine_rows() -> list[Row]:
    """Return the rows of single engines."""
    return [
        Row(name="one token bucket, hot", work=_acquire(_BUCKETS[:1], 1), per="SHA", gate=0.6),
        Row(name="two token buckets, 100,000 tenants", work=_acquire(_BUCKETS, MANY), per="SHA", gate=3),
        Row(name="two sliding windows, 100,000 tenants", work=_acquire(_WINDOWS, MANY), per="SHA", gate=5),
        Row(name="reserve + commit, 1 dimension", work=_reserve(_ONE), per="SHA", gate=1.5),
        Row(name="reserve + commit, 3 dimensions", work=_reserve(_THREE), per="SHA", gate=3),
        Row(name="scope a name, checked and typed", work=_scope(), per="f-string", gate=2.5),
    ]


def subjects_for(policies: Sequence[RatePolicy], tenants: int) -> list[tuple[Subject, ...]]:
    """Return the subjects of so many tenants, shuffled with a fixed seed."""
    limits = RateLimits.of(policies)
    each: list[tuple[Subject, ...]] = [(Subject(f"t:{number:032x}", limits),) for number in range(tenants)]
    random.Random(7).shuffle(each)
    return each


def _acquire(policies: Sequence[RatePolicy], tenants: int) -> Work:
    limiter = MemoryRateLimiter()
    each = subjects_for(policies, tenants)
    now = SystemClock().now()
    for subjects in each:
        limiter.try_acquire(subjects, now=now)
    at = 0

    async def work(count: int) -> None:
        nonlocal at
        acquire, size, now = limiter.try_acquire, len(each), SystemClock().now()
        for _ in range(count):
            acquire(each[at], now=now)
            at = at + 1 if at + 1 < size else 0

    return work


def _reserve(demand: Amounts) -> Work:
    tenant = TenantId("bench")
    quota = LocalQuota(FixedLimits(_PLAN))

    async def work(count: int) -> None:
        reserve, now = quota.try_reserve, SystemClock().now()
        for _ in range(count):
            taken = reserve(tenant, demand, now=now)
            if isinstance(taken, LocalReservation):
                taken.commit(now=now)

    return work


def _scope() -> Work:
    context = TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=0)
    scope = PrefixNamespaces().for_tenant(context).kv

    async def work(count: int) -> None:
        key = scope.key
        for _ in range(count):
            key("session:1")

    return work


# --- the whole gate --------------------------------------------------------------------------------------------------


class SteadyClock(ManualClock):
    """Stands still, at the cost of a clock that runs.

    So no key and no limit grows old, and is refreshed, while the others are measured.
    """

    def __init__(self) -> None:
        super().__init__()
        self._read = SystemClock().now

    def now(self) -> Instant:
        """Read the machine's clock, and return the one instant."""
        self._read()
        return super().now()


class World:
    """A started tenancy with tenants and a key for each, all known already.

    Args:
        tenants: How many.
        plan: Which plan they are on.
    """

    def __init__(self, tenants: int, plan: Plan = _PLAN) -> None:
        self.hub = FakeHiveHub(plans={plan.name: plan}, clock=SteadyClock())
        issued = [
            self.hub.add_tenant(f"tenant-{number}", plan=plan.name).issue_key(permissions=["read", "write", "delete"])
            for number in range(tenants)
        ]
        self.keys = [key.secret.encode() for key in issued]
        random.Random(7).shuffle(self.keys)
        self.tenancy = Tenancy.embedded(self.hub, audit=None, allow_workers=True)
        self.function: Function = self.tenancy.functions.declare("kv.set", effect="write", demand=_ONE)

    async def start(self) -> World:
        """Start, and have every key and every tenant looked up once."""
        await self.tenancy.start()
        for key in self.keys:
            await one_admission(self.tenancy, self.function, key)
        return self


async def one_admission(tenancy: ClusterTenancy, called: Function, key: bytes) -> None:
    """Send one key through the whole gate: key, rates, permission, quota, name, commit, usage, release."""
    gate = tenancy.gate
    now = gate.now()
    caller: Any = await gate.authenticate(key, now=now)
    admission = await gate.admit(caller, called, surface=Surface.HTTP, now=now)
    if isinstance(admission, Admission):
        admission.tenant.kv.key("session:1")
        admission.settle(succeeded=True)
        admission.close()


def gate_rows(world: World, large: World | None) -> list[Row]:
    """Return the rows of the gate, over started worlds."""
    tenancy = world.tenancy
    tenant = tenancy.gate._caller(_principal(world)).tenant

    async def authenticate(count: int) -> None:
        headers = _headers(world.keys[0])
        validate, now = tenancy.gate._try_validate, tenancy.gate.now()
        for _ in range(count):
            validate(find_credential(headers, b""), effect=Effect.READ, now=now)

    def reserve(demand: Amounts) -> Work:
        async def work(count: int) -> None:
            for _ in range(count):
                async with tenant.reserve(demand):
                    pass

        return work

    def admissions(of: World) -> Work:
        at = 0

        async def work(count: int) -> None:
            nonlocal at
            for _ in range(count):
                at = at + 1 if at + 1 < len(of.keys) else 0
                await one_admission(of.tenancy, of.function, of.keys[at])

        return work

    async def hot(count: int) -> None:
        key = world.keys[0]
        for _ in range(count):
            await one_admission(tenancy, world.function, key)

    rows = [
        Row(name="ten headers to principal, cached key", work=authenticate, per="SHA", gate=3.5),
        Row(name="async with tenant.reserve, 1 dimension", work=reserve(_ONE), per="SHA", gate=3.2),
        Row(name="async with tenant.reserve, 3 dimensions", work=reserve(_THREE), per="SHA", gate=6),
        Row(name="whole gate, hot", work=hot, per="SHA", gate=9),
    ]
    if large is not None:
        rows.append(Row(name="whole gate, 100,000 tenants, random", work=admissions(large), per="SHA", gate=14))
    return rows


def _principal(world: World) -> Any:
    answer = world.tenancy.gate._try_validate(world.keys[0], effect=Effect.READ, now=world.tenancy.gate.now())
    return answer


def _headers(key: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"localhost:8000"),
        (b"user-agent", b"python-httpx/0.28.1"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"5"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"x-request-id", b"7f0c0b1e"),
        (b"authorization", b"Bearer " + key),
    ]


# --- over ASGI -------------------------------------------------------------------------------------------------------


def starlette_app(routes: int = 1, *, functions: bool = True) -> Any:
    """Return a Starlette application with so many routes, the last of which is asked."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def put(_request: Request) -> Response:
        return Response(status_code=204)

    handler = function("kv.set", effect="write", demand=_ONE)(put) if functions else put
    paths = [f"/other-{number}" for number in range(routes - 1)] + ["/kv/{key:path}"]
    return Starlette(routes=[Route(path, handler, methods=["PUT"]) for path in paths])


async def request(app: Any, headers: list[tuple[bytes, bytes]]) -> int:
    """Send one request as a server would, and return its status."""
    status = 0
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"hello", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/kv/session",
        "raw_path": b"/kv/session",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8_000),
        "state": {},
    }
    await app(scope, receive, send)
    return status


def requests_with(app: Any, keys: Iterable[bytes]) -> Work:
    """Return work that sends requests with *keys* in turn."""
    each = [_headers(key) for key in keys]
    at = 0

    async def work(count: int) -> None:
        nonlocal at
        for _ in range(count):
            at = at + 1 if at + 1 < len(each) else 0
            await request(app, each[at])

    return work


async def _bare_work() -> Work:
    try:
        app = starlette_app(functions=False)
    except ImportError:
        return _sha  # no row asks for it then
    return requests_with(app, [_KEY])


async def asgi_rows(small: World, large: World | None) -> list[Row]:
    """Return the rows of whole requests, over started worlds."""
    bare = await _bare_work()
    rows = [
        Row(
            name="ASGI, everything on, added: 1,000 tenants",
            work=requests_with(small.tenancy.asgi(starlette_app()), small.keys),
            per="bare",
            gate=0.6,
            beyond=bare,
        ),
        Row(
            name="ASGI, everything on, added: 1,000 tenants, 100 routes",
            work=requests_with(small.tenancy.asgi(starlette_app(100)), small.keys),
            per="bare",
            gate=0.6,
            beyond=requests_with(starlette_app(100, functions=False), small.keys),
        ),
    ]
    if large is not None:
        work = requests_with(large.tenancy.asgi(starlette_app()), large.keys)
        rows.append(
            Row(name="ASGI, everything on, added: 100,000 tenants", work=work, per="bare", gate=0.8, beyond=bare)
        )
    narrow = World(1, _NARROW)
    await narrow.start()
    refused = requests_with(narrow.tenancy.asgi(starlette_app()), narrow.keys)
    rows.append(Row(name="ASGI, a refused (rate) request, total", work=refused, per="bare", gate=0.6))
    return rows


# --- what is no ratio ------------------------------------------------------------------------------------------------


def memory_notes(tenants: int = 20_000) -> dict[str, str]:
    """Return bytes of one cell of each engine, as the allocator counts them.

    What is there anyway is not counted: the tenants' ids, their subjects and their limits.
    """
    now = SystemClock().now()
    each = subjects_for(_BUCKETS, tenants)
    ids = [TenantId(f"{number:032x}") for number in range(tenants)]
    limits = FixedLimits(_PLAN)
    for tenant in ids:
        limits.try_limits(tenant, now=now)

    def limiter() -> object:
        engine = MemoryRateLimiter()
        for subjects in each:
            engine.try_acquire(subjects, now=now)
        return engine

    def quota(demand: Amounts) -> Callable[[], object]:
        def build() -> object:
            engine = LocalQuota(limits)
            for tenant in ids:
                taken = engine.try_reserve(tenant, demand, now=now)
                if isinstance(taken, LocalReservation):
                    taken.commit(now=now)
            return engine

        return build

    first, three = _bytes(quota(_ONE)) / tenants, _bytes(quota(_THREE)) / tenants
    return {
        "bytes: two-bucket cell (gate 200)": f"{_bytes(limiter) / tenants:.0f}",
        "bytes: cached key, everything included (gate 280)": f"{_key_bytes():.0f}",
        "bytes: quota cell, the first of a tenant (gate 320)": f"{first:.0f}",
        "bytes: quota cell, each further one (gate 200)": f"{(three - first) / 2:.0f}",
    }


def _key_bytes(count: int = 5_000) -> float:
    """Return bytes of one cached key: entry, principal, ids and indexes."""
    hub = FakeHiveHub(plans={_PLAN.name: _PLAN})
    keys = [
        hub.add_tenant(f"tenant-{number}", plan=_PLAN.name).issue_key(permissions=["read"]).secret.encode()
        for number in range(count)
    ]

    async def fill() -> float:
        engine = CachedAccessKeys(hub, functions=FunctionRegistry(), feed=Feed(hub, clock=hub.clock), clock=hub.clock)
        hub.forget_calls()
        before = tracemalloc.get_traced_memory()[0]
        for key in keys:
            await engine.validate(key, effect=Effect.READ)
        hub.forget_calls()  # the fake's own journal is no part of the engine
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / count

    gc.collect()
    tracemalloc.start()
    try:
        return asyncio.run(fill())
    finally:
        tracemalloc.stop()


def _bytes(build: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    built = build()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del built
    return size


def stall_note() -> dict[str, str]:
    """Return the longest single decision over 100,000 tenants: growth, collection and expiry included."""
    limiter = MemoryRateLimiter()
    each = subjects_for(_BUCKETS, MANY)
    clock = SystemClock()
    longest = 0
    for _ in range(2):
        for subjects in each:
            began = time.perf_counter_ns()
            limiter.try_acquire(subjects, now=clock.now())
            longest = max(longest, time.perf_counter_ns() - began)
    return {"longest stall, two buckets, 100,000 tenants (gate 1 ms)": f"{longest / 1e6:.2f} ms"}


def import_note() -> dict[str, str]:
    """Return how long ``import hivetenancy`` takes in a new interpreter, beside ``import asyncio``."""
    ratios = [_import_us("hivetenancy") / _import_us("asyncio") for _ in range(7)]
    return {"import hivetenancy / import asyncio, processes (gate 1.2)": f"{statistics.median(ratios):.2f}"}


def _import_us(module: str) -> float:
    began = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return (time.perf_counter_ns() - began) / 1000


# --- the command -----------------------------------------------------------------------------------------------------


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no world of 100,000 tenants")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    report = asyncio.run(everything(quick=options.quick))
    if options.json:
        print(json.dumps({"figures": [asdict(each) for each in report.figures], "notes": report.notes}))
    else:
        print(table(report))
    return 0


async def everything(*, quick: bool, peers: Callable[[], list[Row]] = list) -> Report:
    """Measure all rows, and *peers* in the same run."""
    rounds, seconds = (5, 0.02) if quick else (21, 0.05)
    small = await World(SOME).start()
    large = None if quick else await World(MANY).start()
    rows = engine_rows() + gate_rows(small, large)
    try:
        rows += await asgi_rows(small, large)
    except ImportError:
        print("rows over ASGI need Starlette: pip install 'hivetenancy[starlette]'", file=sys.stderr)
    rows += peers()
    # Worlds of 100,000 tenants would be walked by each collection in between. What the engines do to the collector has
    # a figure of its own, the longest stall.
    gc.collect()
    gc.freeze()
    report = Report(await measure(rows, rounds=rounds, seconds=seconds))
    gc.unfreeze()
    await small.tenancy.stop()
    if large is not None:
        await large.tenancy.stop()
    # In a thread, because one of them runs a loop of its own.
    report.notes = {**await asyncio.to_thread(memory_notes), **stall_note(), **import_note()}
    return report


def table(report: Report) -> str:
    """Return the report as text."""
    lines = [
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {platform.system()}",
        "",
        f"{'':54} {'us':>8} {'ratio':>8}  {'middle half':>15}  {'gate':>10}",
    ]
    for each in report.figures:
        gate = "" if each.gate is None else f"{each.gate:g} {'met' if each.met else 'missed'}"
        name = f"  peer: {each.name}" if each.peer else each.name
        span = f"{each.low:.2f} - {each.high:.2f}"
        lines.append(f"{name:54} {each.us:8.2f} {each.ratio:8.2f}  {span:>15}  {gate:>10}  of {each.per}")
    lines.append("")
    lines += [f"{name:70} {value}" for name, value in report.notes.items()]
    return "\n".join(lines)
