"""The example `examples/redis_proxy.py` before a real Redis, as a subject of the conformance suite.

Each start takes an empty Redis of its own from a small stock of servers, and gives it back empty; a tenant's own server
is the same proxy in standalone mode. Every tenant keeps one connection, and a second one once it subscribes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from hivetenancy.compose import Tenancy
from hivetenancy.context import TenantContext
from hivetenancy.ids import STANDALONE
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.codec import IdScheme
from hivetenancy.testing import FakeHiveHub
from hivetenancy.testing.conformance import Mapping as Pairs
from hivetenancy.testing.conformance import Name, Names, Operation, Pattern, Setting, Value
from hivetenancy.testing.conformance.resp import RespClient, RespRunning, RespSubject
from tests.adapters.example import example
from tests.adapters.world import plan
from tests.scopes.live_redis import live_redis, raw

proxy = example("redis_proxy")

COMMANDS: dict[str, tuple[str, ...]] = {
    "set": ("SET", "{key}", "{value}"),
    "get": ("GET", "{key}"),
    "getdel": ("GETDEL", "{key}"),
    "append": ("APPEND", "{key}", "{value}"),
    "mset": ("MSET", "{pairs}"),
    "mget": ("MGET", "{keys}"),
    "exists": ("EXISTS", "{keys}"),
    "delete": ("DEL", "{keys}"),
    "type": ("TYPE", "{key}"),
    "rename": ("RENAME", "{key}", "{to}"),
    "copy": ("COPY", "{key}", "{to}", "REPLACE"),
    "keys": ("KEYS", "{pattern}"),
    "scan": ("SCAN", "0", "MATCH", "{pattern}", "COUNT", "1000"),
    "dbsize": ("DBSIZE",),
    "hset": ("HSET", "{hash}", "f", "{value}"),
    "hgetall": ("HGETALL", "{hash}"),
    "push": ("RPUSH", "{list}", "{value}"),
    "pop": ("LMPOP", "2", "{list}", "{other}", "LEFT"),
    "range": ("LRANGE", "{list}", "0", "-1"),
    "sort": ("SORT", "{list}", "BY", "nosort", "GET", "{key}", "STORE", "{to}"),
    "sadd": ("SADD", "{set}", "{value}"),
    "union": ("SUNION", "{set}", "{other}"),
    "zadd": ("ZADD", "{zset}", "1", "{value}"),
    "zunion": ("ZUNION", "2", "{zset}", "{other}"),
    "xadd": ("XADD", "{stream}", "1-*", "f", "{value}"),
    "xread": ("XREAD", "STREAMS", "{stream}", "{other}", "0", "0"),
    "xgroup": ("XGROUP", "CREATE", "{stream}", "g", "0", "MKSTREAM"),
    "xreadgroup": ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "{stream}", ">"),
    "publish": ("PUBLISH", "{channel}", "{value}"),
    "channels": ("PUBSUB", "CHANNELS", "{pattern}"),
    "flush": ("FLUSHDB",),
}


class RedisProxySubject(RespSubject):
    """The proxy."""

    scheme = IdScheme.OPAQUE
    commands = COMMANDS
    operations = (
        Operation("set", effect="write", key=Name(), value=Value()),
        Operation("get", key=Name()),
        Operation("getdel", effect="write", key=Name()),
        Operation("append", effect="write", key=Name(), value=Value()),
        Operation("mset", effect="write", pairs=Pairs()),
        Operation("mget", keys=Names()),
        Operation("exists", keys=Names()),
        Operation("delete", effect="write", keys=Names()),
        Operation("type", key=Name()),
        Operation("rename", effect="write", key=Name(), to=Name()),
        Operation("copy", effect="write", key=Name(), to=Name()),
        Operation("keys", pattern=Pattern()),
        Operation("scan", pattern=Pattern()),
        Operation("dbsize"),
        Operation("hset", effect="write", hash=Name(), value=Value()),
        Operation("hgetall", hash=Name()),
        Operation("push", effect="write", list=Name(), value=Value()),
        Operation("pop", effect="write", list=Name(), other=Name()),
        Operation("range", list=Name()),
        Operation("sort", effect="write", list=Name(), key=Pattern(), to=Name()),
        Operation("sadd", effect="write", set=Name(), value=Value()),
        Operation("union", set=Name(), other=Name()),
        Operation("zadd", effect="write", zset=Name(), value=Value()),
        Operation("zunion", zset=Name(), other=Name()),
        Operation("xadd", effect="write", stream=Name(), value=Value()),
        Operation("xread", stream=Name(), other=Name()),
        Operation("xgroup", effect="write", stream=Name()),
        Operation("xreadgroup", effect="write", stream=Name()),
        Operation("publish", effect="write", channel=Name(), value=Value()),
        Operation("channels", pattern=Pattern()),
        Operation("subscribe", effect="write", channel=Name()),
        Operation("psubscribe", effect="write", pattern=Pattern()),
        Operation("heard", about="channel", scoped=False),  # it names nothing: what it hears was named on subscribing
        Operation("flush", effect="purge"),
    )

    def __init__(self) -> None:
        self.open = ExitStack()
        self.stock: list[int] = []

    async def start(self, setting: Setting) -> RedisProxyRunning:
        """Take an empty Redis, and put a proxy before it."""
        port = self.stock.pop() if self.stock else self.open.enter_context(live_redis())
        running = RedisProxyRunning(self, port)
        await running.begin(setting)
        return running

    def close(self) -> None:
        """End the stock of servers."""
        self.open.close()


class _Mapped:
    """The names of a setting, for the ids that a hub gave its tenants."""

    def __init__(self, setting: Setting, ids: Mapping[str, str]) -> None:
        self._setting, self._ids = setting, ids

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the names of the setting's tenant."""
        return self._setting.names_of(self._ids.get(context.tenant_id, STANDALONE))


class RedisProxyRunning(RespRunning):
    """A proxy that runs."""

    def __init__(self, subject: RedisProxySubject, port: int) -> None:
        self.subject, self.redis_port = subject, port
        self._stack = AsyncExitStack()
        self._heard: dict[str, RespClient] = {}

    async def begin(self, setting: Setting) -> None:
        """Start the proxy, and connect every tenant."""
        keys: dict[str, str] = {}
        if setting.standalone:
            tenancy: Any = Tenancy.standalone(names=setting.names)
        else:
            hub = FakeHiveHub(seed=1, plans=[plan()])
            ids: dict[str, str] = {}
            for number, one in enumerate(setting.tenants):
                made = hub.add_tenant(f"tenant-{number}", plan="tested")
                ids[made.id] = one.id
                keys[one.id] = made.issue_key(permissions=["read", "write", "delete"]).secret
            tenancy = Tenancy.embedded(hub, names=_Mapped(setting, ids), allow_workers=True)
        self.sink: list[Any] = []
        self._keys = keys
        upstream = ("127.0.0.1", self.redis_port)
        self.proxy = await self._stack.enter_async_context(proxy.serve(tenancy, upstream, sink=self))
        clients = {one.id: await self._client(one.id) for one in setting.tenants}
        super().__init__(COMMANDS, clients, keys.values())

    def isolation(self, event: Any, *, now: Any = None) -> None:
        """Keep what the scope reports."""
        if event.kind == "foreign_name":
            self.sink.append(event.operation)

    async def _client(self, tenant: str) -> RespClient:
        first = [("AUTH", self._keys[tenant])] if tenant in self._keys else []
        return await RespClient.open("127.0.0.1", self.proxy.port, *first)

    async def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Make one call; what has no order is sorted."""
        if operation in ("subscribe", "psubscribe", "heard"):
            return await self._listen(tenant, operation, arguments)
        reply = await super().call(tenant, operation, arguments, surface)
        if operation in ("keys", "union", "channels") and isinstance(reply, list):
            return sorted(reply)
        if operation == "scan" and isinstance(reply, list):
            return [reply[0], sorted(reply[1])]
        return reply

    async def _listen(self, tenant: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Subscribe, or return what was heard since: a PING goes round, so that nothing is on its way any more."""
        if tenant not in self._heard:
            self._heard[tenant] = await self._client(tenant)
            await self._heard[tenant].command("SUBSCRIBE", "always")
        client = self._heard[tenant]
        if operation != "heard":
            return await self._until(client, [operation.encode()], operation.upper(), *arguments.values())
        heard = await self._until(client, [b"pong"], "PING")
        return heard[:-1]

    async def _until(self, client: RespClient, kinds: list[bytes], *command: str) -> list[Any]:
        got = [await client.command(*command)]
        while isinstance(got[-1], list) and got[-1][0] not in kinds:
            got.append(await client._reply())
        return got

    def trips(self) -> list[Any]:
        """Return what the second lock held since the last time."""
        found, self.sink = self.sink, []
        return found

    async def stop(self) -> None:
        """Stop the proxy, and give the Redis back, empty."""
        await super().stop()
        for client in self._heard.values():
            await client.close()
        await self._stack.aclose()
        with raw(self.redis_port) as redis:
            redis("FLUSHALL")
        self.subject.stock.append(self.redis_port)
        await asyncio.sleep(0)
