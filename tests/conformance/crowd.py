"""``python -m tests.conformance.crowd``: 120 tenants at once on one server, and what tenancy costs it.

The reference server behind one Starlette application and one tenancy, so that each call takes the whole road: key,
rates, function, quota, names. Every tenant is a task of its own that mixes operations, and each call gives way to the
others in its middle. Each answer is searched for what another tenant wrote. Then one caller makes the same calls on
the application with tenants and without, in turns, and the ratio of the two is printed.

`test_crowd` runs it for as long as its tier allows; here ``--seconds`` says how long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hivetenancy.compose import Tenancy
from hivetenancy.functions import function
from hivetenancy.namespaces import TenantNames
from hivetenancy.plans import Plan, RatePolicy, quota_limit
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient
from hivetenancy.testing.conformance import Setting, canaries
from hivetenancy.testing.hub import FakeHiveHub
from tests.conformance.reference import RefusedError, Server

READS = ("get", "mget", "keys", "count", "search", "read_counter", "queue_length", "poll", "statistics", "backup")
WRITES = ("set", "delete", "rename", "incr", "create_collection", "insert", "push", "pop", "publish", "subscribe")
PLENTY = 10**12
PLAN = Plan(
    name="crowd",
    rates=(RatePolicy(name="second", limit=10**9, period_us=1_000_000, burst=10**9),),
    quotas=(quota_limit("operations", PLENTY),),
)
KEYS = ("k", "a:b", "user:1", "*", "k.x")


class Shared(Server):
    """The reference server, serving whoever is bound."""

    guarded = True

    def names(self) -> TenantNames:
        return cast("TenantNames", current_tenant())

    def handle(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Serve one call without keeping what would grow for ever."""
        try:
            found = self.call("", operation, arguments, "direct")
        except RefusedError as error:
            found = {"refused": str(error)}
        self.log.clear()
        for table in self.tables.values():
            table.trace.clear()
        return found

    def trips(self) -> int:
        return sum(len(table.trips) for table in self.tables.values())


class CarelessServer(Shared):
    """A server with one mistake: a backup takes all there is. The search has to find it."""

    guarded = False

    def backup(self) -> dict[str, Any]:
        return {name.rpartition(":")[2]: value for name, value in self.kv.rows.items()}


def application(server: Shared) -> Starlette:
    """One route for each operation."""

    def route(operation: str, effect: str) -> Route:
        @function(f"crowd.{operation}", effect=effect, demand={"operations": 1})
        async def endpoint(request: Request) -> Response:
            arguments = json.loads(await request.body())
            await asyncio.sleep(0)  # where a server would wait for its store, and others go on
            return JSONResponse(server.handle(operation, arguments))

        return Route(f"/{operation}", endpoint, methods=["POST"])

    return Starlette(routes=[*(route(name, "read") for name in READS), *(route(name, "write") for name in WRITES)])


@dataclass(slots=True)
class Caller:
    """One tenant's client: what it asks next, and what it saw."""

    tag: int
    headers: dict[str, str]
    random: random.Random
    subscriptions: list[str] = field(default_factory=list)
    calls: int = 0
    foreign: Counter[str] = field(default_factory=Counter)

    def next(self) -> tuple[str, dict[str, Any]]:
        """Draw an operation and its arguments."""
        draw = self.random
        operation = draw.choice(READS if draw.random() < 0.5 else WRITES)
        key, value = draw.choice(KEYS), canaries.canary(self.tag, draw.randrange(100))
        if operation == "poll" and not self.subscriptions:
            operation = "get"
        arguments: dict[str, Any] = {
            "mget": {"keys": list(KEYS)},
            "keys": {"pattern": draw.choice(("*", "k*", "?"))},
            "rename": {"source": key, "target": draw.choice(KEYS)},
            "incr": {"key": key, "by": 1},
            "search": {"name": key},
            "create_collection": {"name": key},
            "insert": {"name": key, "value": value},
            "push": {"queue": key, "value": value},
            "pop": {"queue": key},
            "queue_length": {"queue": key},
            "publish": {"topic": "orders.new", "value": value},
            "subscribe": {"pattern": "#"},
            "poll": {"subscription": self.subscriptions[-1] if self.subscriptions else ""},
            "set": {"key": key, "value": value},
            **{name: {"key": key} for name in ("get", "delete", "read_counter")},
        }.get(operation, {})
        if operation == "subscribe" and self.subscriptions:
            return "get", {"key": key}
        return operation, arguments

    def see(self, operation: str, status: int, body: bytes) -> None:
        """Take an answer in."""
        self.calls += 1
        if status != 200:
            self.foreign[f"{operation}: status {status}"] += 1
        if operation == "subscribe":
            self.subscriptions.append(json.loads(body))
        strange = canaries.found(body) - {f"{self.tag:04x}"}
        self.foreign.update(f"{operation} showed data of {tag}" for tag in strange)


async def drive(client: AsgiClient, callers: list[Caller], go_on: Callable[[int], bool]) -> float:
    """Have all callers call at once until *go_on* says no; return the seconds that it took."""

    async def one(caller: Caller) -> None:
        while go_on(caller.calls):
            operation, arguments = caller.next()
            answer = await client.request(
                "POST", f"/{operation}", headers=caller.headers, body=json.dumps(arguments).encode()
            )
            caller.see(operation, answer.status, answer.body)

    began = time.perf_counter()
    await asyncio.gather(*map(one, callers))
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        calls: How many calls were made.
        foreign: What was seen that should not have been.
        trips: How often the lock around the store had to hold.
        seconds: How long it took.
    """

    calls: int
    foreign: Counter[str]
    trips: int
    seconds: float


def tenants_of(hub: FakeHiveHub, count: int) -> list[Caller]:
    """Make tenants at *hub*, and a caller for each."""
    made = [hub.add_tenant(f"tenant-{n}", plan=PLAN.name) for n in range(count)]
    return [
        Caller(tag, one.issue_key(permissions=["read", "write"]).headers, random.Random(tag))
        for tag, one in enumerate(made)
    ]


async def crowd(count: int, go_on: Callable[[int], bool], *, server: type[Shared] = Shared) -> Outcome:
    """Let *count* tenants loose on one server.

    Args:
        count: How many.
        go_on: Whether a caller that has made so many calls makes another one.
        server: The server.
    """
    hub = FakeHiveHub(plans={PLAN.name: PLAN})
    callers = tenants_of(hub, count)
    shared = server(cast("Setting", None))
    async with AsgiClient(Tenancy.embedded(hub, audit=None, allow_workers=True).asgi(application(shared))) as client:
        seconds = await drive(client, callers, go_on)
    foreign: Counter[str] = sum((one.foreign for one in callers), Counter())
    return Outcome(calls=sum(one.calls for one in callers), foreign=foreign, trips=shared.trips(), seconds=seconds)


async def cost(calls: int, rounds: int) -> tuple[float, float]:
    """Return the microseconds that a call takes with tenants and without: one caller, the same calls, in turns.

    One caller: 120 in one table cost this server more than 120 in tables of their own, since it sorts the table for
    each listing, and that is its own affair.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        for with_tenants in (True, False):
            hub = FakeHiveHub(plans={PLAN.name: PLAN})
            caller = tenants_of(hub, 1)[0]
            caller.random.seed(number)
            app = application(Shared(cast("Setting", None)))
            tenancy = Tenancy.embedded(hub, audit=None, allow_workers=True) if with_tenants else Tenancy.standalone()
            async with AsgiClient(tenancy.asgi(app)) as client:
                times[with_tenants].append(await drive(client, [caller], lambda made: made < calls) / calls * 1e6)
    return statistics.median(times[True]), statistics.median(times[False])


def show(outcome: Outcome) -> str:
    """Return the outcome as a line."""
    return (
        f"{outcome.calls} calls in {outcome.seconds:.1f} s, {sum(outcome.foreign.values())} answers held what was not "
        f"the caller's, {outcome.trips} trips"
    )


async def show_cost(calls: int = 1000, rounds: int = 9) -> str:
    """Return the cost as a line."""
    tenanted, bare = await cost(calls, rounds)
    return f"{tenanted:.0f} us a call with tenants, {bare:.0f} us without: {tenanted / bare:.2f}"


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """Go on for so long."""
    ends = time.perf_counter() + seconds
    return lambda calls: time.perf_counter() < ends


def main() -> None:
    """Run it as a program."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.crowd")
    parser.add_argument("--tenants", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    print(show(asyncio.run(crowd(options.tenants, for_seconds(options.seconds)))))
    print(asyncio.run(show_cost()))


if __name__ == "__main__":
    main()
