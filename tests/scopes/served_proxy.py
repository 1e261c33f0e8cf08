"""The example `examples/redis_proxy.py` before a real Redis, with two tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from redis.asyncio import Redis

from hivetenancy.hooks import IsolationEvent
from hivetenancy.plans import Plan
from tests.adapters.example import example
from tests.adapters.world import World

proxy = example("redis_proxy")


class Sink:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[IsolationEvent] = []

    def isolation(self, event: IsolationEvent, *, now: Any = None) -> None:
        """Keep one."""
        self.events.append(event)


class Served(NamedTuple):
    """A world, and a proxy for it."""

    world: World
    proxy: Any
    keys: dict[str, Any]
    sink: Sink

    def redis(self, who: str = "a", **options: Any) -> Redis:
        """A redis-py client of tenant ``a`` or ``b``."""
        secret = options.pop("password", None) or self.keys[who].secret
        options.setdefault("socket_timeout", 20)
        return Redis(host="127.0.0.1", port=self.proxy.port, password=secret, retry=None, **options)

    @asynccontextmanager
    async def client(self, who: str = "a", **options: Any) -> AsyncIterator[Any]:
        """The same, for a block."""
        made = self.redis(who, **options)
        try:
            yield made
        finally:
            await made.aclose()

    @asynccontextmanager
    async def raw(self, who: str | None = None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection, authenticated where *who* is given."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            if who is not None:
                writer.write(command(b"AUTH", self.keys[who].secret.encode()))
                assert await reader.readline() == b"+OK\r\n"
            yield reader, writer
        finally:
            writer.transport.abort()

    async def quiet(self) -> None:
        """Wait until the proxy has noticed that its clients have left."""
        async with asyncio.timeout(20):
            while self.proxy._tasks:
                await asyncio.gather(*self.proxy._tasks, return_exceptions=True)
                await asyncio.sleep(0)


@asynccontextmanager
async def served(port: int, tested: Plan | None = None, *, made: Any = None) -> AsyncIterator[Served]:
    """A proxy before the Redis on *port*; *made*: a class of proxies in place of the example's."""
    world, sink = World(tested), Sink()
    other = world.other.issue_key(permissions=["read", "write", "delete"])
    before = proxy.RedisProxy
    try:
        proxy.RedisProxy = made or before
        async with proxy.serve(world.tenancy, ("127.0.0.1", port), sink=sink) as running:
            yield Served(world, running, {"a": world.key, "b": other}, sink)
    finally:
        proxy.RedisProxy = before


def command(*parts: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


async def until(come: Callable[[], bool]) -> None:
    """Wait until what a server says has come about."""
    async with asyncio.timeout(20):
        while not come():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0)
