"""Servers on real sockets as subjects: the aiohttp example, the RESP example, and one tenancy with three ways in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from types import ModuleType
from typing import Any, ClassVar

import httpx
from aiohttp import WSMsgType, web

from examples import resp_server
from hivetenancy import current_tenant, function
from hivetenancy.errors import TenancyError
from hivetenancy.testing.conformance import (
    Count,
    Name,
    Names,
    Operation,
    Optional,
    Pattern,
    Running,
    Setting,
    Subject,
    Value,
)
from hivetenancy.testing.conformance.hosting import Hosted
from hivetenancy.testing.conformance.http import HttpRunning, HttpSubject, Route
from hivetenancy.testing.conformance.resp import RespClient, RespRunning, RespSubject
from hivetenancy.testing.conformance.websocket import WebSocketRunning, WebSocketSubject, opened

Handler = Callable[[web.Request], Any]
Mistake = Callable[[ModuleType], Handler]
"""Makes a handler for one copy of the aiohttp example."""
Replaced = Callable[[resp_server.RespServer, Any, Any], Any]
"""A command of the RESP example: gets the server, the tenant and the arguments."""

_SPEC = find_spec("examples.aiohttp_kv")
assert _SPEC is not None
assert isinstance(_SPEC.loader, SourceFileLoader)
_CODE = _SPEC.loader.get_code("examples.aiohttp_kv")
assert _CODE is not None


# --- aiohttp ---------------------------------------------------------------------------------------------------------


async def listening(app: web.Application, stack: AsyncExitStack) -> int:
    """Serve *app* until *stack* ends, and return the port."""
    runner = web.AppRunner(app)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


def reaching(port: int) -> httpx.AsyncClient:
    """A client of the server on *port*."""
    # Without a context of its own, each client reads all root certificates of the machine: 60 ms.
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=SSLContext(PROTOCOL_TLS_CLIENT))


class AiohttpKeyValue(HttpSubject):
    """`examples/aiohttp_kv.py` on a socket, with other handlers in the places of some.

    Args:
        **mistakes: The handlers, by the names that the example has for its own.
    """

    operations = (
        Operation("put", effect="write", key=Name(), value=Value()),
        Operation("get", key=Name()),
        Operation("delete", effect="write", key=Name()),
        Operation("names", about="key", prefix=Optional(Pattern("prefix"))),
    )
    routes: ClassVar[Any] = {
        "put": Route(method="PUT", path="/kv/{key}", body="value"),
        "get": Route(method="GET", path="/kv/{key}"),
        "delete": Route(method="DELETE", path="/kv/{key}"),
        "names": Route(method="GET", path="/kv", query=("prefix",)),
    }

    def __init__(self, **mistakes: Mistake) -> None:
        self.mistakes = mistakes

    async def start(self, setting: Setting) -> HttpRunning:
        """Serve a copy of the example, whose handlers are looked up in it when it is built."""
        module = ModuleType("aiohttp_kv")
        exec(_CODE, module.__dict__)  # type: ignore[arg-type]
        module.__dict__.update({name: mistake(module) for name, mistake in self.mistakes.items()})
        hosted, stack = Hosted(setting), AsyncExitStack()
        port = await listening(module.build(hosted.tenancy), stack)
        client = await stack.enter_async_context(reaching(port))
        headers = {one.id: hosted.headers(one.id) for one in setting.tenants}
        return HttpRunning(self.routes, client, headers, hosted.secrets(), stack)


# --- RESP ------------------------------------------------------------------------------------------------------------


class RespKeyValue(RespSubject):
    """`examples/resp_server.py`, an asyncio server, with other commands in the places of some.

    Args:
        **mistakes: The commands, by their names.
    """

    operations: Sequence[Operation] = (
        Operation("set", effect="write", key=Name(), value=Value()),
        Operation("set_for_a_time", effect="write", key=Name(), value=Value()),
        Operation("get", key=Name()),
        Operation("mget", keys=Names()),
        Operation("exists", keys=Names()),
        Operation("delete", effect="write", keys=Names()),
        Operation("incr", effect="write", key=Name()),
        Operation("incrby", effect="write", key=Name(), by=Count()),
        Operation("expire", effect="write", key=Name()),
        Operation("ttl", key=Name()),
        Operation("scan", about="key", pattern=Pattern()),
        Operation("walk", about="key"),
        Operation("ping", about="key", scoped=False),
    )
    commands: ClassVar[Any] = {
        "set": ("SET", "{key}", "{value}"),
        "set_for_a_time": ("SET", "{key}", "{value}", "EX", "50"),
        "get": ("GET", "{key}"),
        "mget": ("MGET", "{keys}"),
        "exists": ("EXISTS", "{keys}"),
        "delete": ("DEL", "{keys}"),
        "incr": ("INCR", "{key}"),
        "incrby": ("INCRBY", "{key}", "{by}"),
        "expire": ("EXPIRE", "{key}", "100"),
        "ttl": ("TTL", "{key}"),
        "scan": ("SCAN", "0", "MATCH", "{pattern}", "COUNT", "1000"),
        "ping": ("PING",),
    }
    alone = "single"

    def __init__(self, **mistakes: Replaced) -> None:
        self.mistakes = mistakes

    async def start(self, setting: Setting) -> RespRunning:
        """Serve, and connect every tenant."""
        hosted, stack = Hosted(setting), AsyncExitStack()
        server = await serving(hosted, stack, self.mistakes)
        return RespKeyValueRunning(self.commands, await connected(hosted, setting, server), hosted.secrets(), stack)


async def serving(hosted: Hosted, stack: AsyncExitStack, mistakes: Mapping[str, Replaced]) -> resp_server.RespServer:
    """Serve the RESP example until *stack* ends, at a time that stands still."""
    server: resp_server.RespServer
    server = await stack.enter_async_context(resp_server.serve(hosted.tenancy, now_us=lambda: 1))
    for name, run in mistakes.items():
        command = server.commands[name.encode()]
        server.commands[name.encode()] = command._replace(
            run=lambda tenant, args, run=run: run(server, tenant, args)  # type: ignore[misc]
        )
    return server


async def connected(hosted: Hosted, setting: Setting, server: resp_server.RespServer) -> dict[str, RespClient]:
    """A connection for each tenant."""
    return {
        one.id: await RespClient.open("127.0.0.1", server.port, ("AUTH", str(hosted.key(one.id))))
        for one in setting.tenants
    }


class RespKeyValueRunning(RespRunning):
    """The server, running."""

    def __init__(self, *arguments: Any) -> None:
        *before, self._stack = arguments
        super().__init__(*before)

    async def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Call; a listing has no order, and a walk is one page after the other."""
        if operation == "walk":
            return await self._walk(self.clients[tenant])
        reply = await super().call(tenant, operation, arguments, surface)
        return [reply[0], sorted(reply[1])] if operation == "scan" and isinstance(reply, list) else reply

    async def _walk(self, client: RespClient) -> Any:
        cursor, found = b"0", []
        for _ in range(100):
            reply = await client.command("SCAN", cursor, "COUNT", "2")
            if not isinstance(reply, list):
                return reply
            cursor = reply[0]
            found += reply[1]
            if cursor == b"0":
                break
        return sorted(found)

    async def stop(self) -> None:
        """Stop the connections, and the server."""
        await super().stop()
        await self._stack.aclose()


# --- three ways in ---------------------------------------------------------------------------------------------------

SURFACES = ("rest", "websocket", "resp")


class ThreeWays(Subject):
    """One tenancy and one store, reached by REST, over a WebSocket and in RESP.

    Args:
        scopes: Of whom a message on the WebSocket is taken to be; by default of the tenant that is bound.
        **mistakes: Commands of the RESP surface, by their names.
    """

    operations = (
        Operation("set", effect="write", key=Name(), value=Value()),
        Operation("get", key=Name()),
        Operation("delete", effect="write", key=Name()),
        Operation("scan", about="key"),
        Operation("mget", keys=Names(), surfaces=("websocket", "resp")),
    )
    surfaces = SURFACES
    alone = "single"
    routes: ClassVar[Any] = {
        "set": Route(method="PUT", path="/kv/{key}", body="value"),
        "get": Route(method="GET", path="/kv/{key}"),
        "delete": Route(method="DELETE", path="/kv/{key}"),
        "scan": Route(method="GET", path="/kv"),
    }
    commands: ClassVar[Any] = {
        "set": ("SET", "{key}", "{value}"),
        "get": ("GET", "{key}"),
        "delete": ("DEL", "{key}"),
        "scan": ("SCAN", "0", "COUNT", "1000"),
        "mget": ("MGET", "{keys}"),
    }

    def __init__(self, scopes: Callable[[], Callable[[], Any]] | None = None, **mistakes: Replaced) -> None:
        self.scopes, self.mistakes = scopes, mistakes

    async def start(self, setting: Setting) -> Running:
        """Serve on two ports, and connect every tenant to each."""
        hosted, stack = Hosted(setting), AsyncExitStack()
        server = await serving(hosted, stack, self.mistakes)
        whose = current_tenant if self.scopes is None else self.scopes()
        app = three_ways(server, whose)
        hosted.tenancy.setup(app)
        port = await listening(app, stack)
        client = await stack.enter_async_context(reaching(port))
        headers = {one.id: hosted.headers(one.id) for one in setting.tenants}
        secrets = hosted.secrets()
        sockets = await opened(f"ws://127.0.0.1:{port}/ws", headers)
        return ThreeWaysRunning(
            {
                "rest": HttpRunning(self.routes, client, headers, secrets, AsyncExitStack()),
                "websocket": WebSocketRunning(WebSocketSubject(), sockets, secrets),
                "resp": RespRunning(self.commands, await connected(hosted, setting, server), secrets),
            },
            stack,
        )


def three_ways(server: resp_server.RespServer, whose: Callable[[], Any]) -> web.Application:
    """The web application over the RESP server's commands; *whose* tells the WebSocket's tenant."""

    async def run(command: str, arguments: Mapping[str, Any], tenant: Any) -> Any:
        values = [arguments[name] for name in ("key", "keys", "value") if name in arguments]
        flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
        words = [part if isinstance(part, bytes) else part.encode() for part in flat]
        words = [b"0", b"COUNT", b"1000"] if command == "scan" else words
        name = {"delete": b"DEL"}.get(command, command.upper().encode())
        return plain(await server.commands[name].run(tenant, words))

    @function("rest.read", effect="read")
    async def read(request: web.Request) -> web.Response:
        key = request.match_info.get("key")
        found = await run("scan" if key is None else "get", {} if key is None else {"key": key}, current_tenant())
        return web.json_response(found, status=404 if found is None else 200)

    @function("rest.write", effect="write")
    async def write(request: web.Request) -> web.Response:
        arguments = {"key": request.match_info["key"], "value": await request.read()}
        return web.json_response(await run("set", arguments, current_tenant()))

    @function("rest.delete", effect="delete")
    async def delete(request: web.Request) -> web.Response:
        return web.json_response(await run("delete", {"key": request.match_info["key"]}, current_tenant()))

    @function("ws.call", effect="write")
    async def talk(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                arguments = json.loads(message.data)
                try:
                    reply = await run(arguments.pop("operation"), arguments, whose())
                except TenancyError as error:
                    reply = {"raised": type(error).__name__}
                await ws.send_str(json.dumps(reply))
        return ws

    app = web.Application()
    key = "/kv/{key:.+}"
    app.add_routes([web.get("/kv", read), web.get(key, read), web.put(key, write), web.delete(key, delete)])
    app.add_routes([web.get("/ws", talk)])
    return app


def plain(reply: Any) -> Any:
    """*reply* of a command as JSON has it; the names of a listing in order, as they come in none."""
    if isinstance(reply, list):
        items = [plain(item) for item in reply]
        return [items[0], sorted(items[1])] if len(items) == 2 and isinstance(items[1], list) else items
    return reply.decode() if isinstance(reply, bytes) else reply


class ThreeWaysRunning(Running):
    """The three ways in."""

    def __init__(self, ways: Mapping[str, Any], stack: AsyncExitStack) -> None:
        self.ways, self._stack = ways, stack

    async def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Call by the way that is asked for."""
        reply = await self.ways[surface].call(tenant, operation, arguments, surface)
        if surface == "resp" and operation == "scan" and isinstance(reply, list):
            return [reply[0], sorted(reply[1])]
        return reply

    def secrets(self) -> list[str]:
        """The access keys."""
        return list(self.ways["rest"].secrets())

    async def stop(self) -> None:
        """Close the connections, then the servers."""
        for way in self.ways.values():
            await way.stop()
        await self._stack.aclose()
