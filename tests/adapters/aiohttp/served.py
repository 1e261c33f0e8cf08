"""An aiohttp application of a few routes, served on loopback by aiohttp's own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")

from aiohttp import ClientSession, web
from multidict import CIMultiDictProxy

from hivetenancy.adapters.aiohttp import TENANT, metered_content
from hivetenancy.functions import function
from hivetenancy.tenant import current_tenant
from tests.adapters.world import World


@function("kv.get", effect="read")
async def get(request: web.Request) -> web.Response:
    """Answer with the physical name."""
    tenant = current_tenant()
    assert request[TENANT] is tenant
    return web.Response(text=str(tenant.kv.key(request.match_info["key"])))


@function("kv.set", effect="write", demand={"operations": 1})
async def put(request: web.Request) -> web.Response:
    """Take the body, and charge it."""
    body = await request.read()
    tenant = current_tenant()
    name = tenant.kv.key(request.match_info["key"])
    async with tenant.charge(name, storage_bytes=len(body)):
        pass
    return web.Response(status=204)


@function("kv.piece", effect="write", demand={"operations": 1})
async def pieces(request: web.Request) -> web.Response:
    """Take the body piece by piece."""
    size = 0
    async for piece in metered_content(request):
        size += len(piece)
    return web.Response(text=str(size))


@function("kv.fail", effect="write", demand={"operations": 1})
async def fail(request: web.Request) -> web.Response:
    """Fail as the query says."""
    what = request.query["what"]
    if what.isdigit():
        return web.Response(status=int(what))
    raise FAILURES[what]()


FAILURES: dict[str, Callable[[], BaseException]] = {}


class Served(NamedTuple):
    """A world, its application, a client, and where the server listens."""

    world: World
    app: web.Application
    client: ClientSession
    port: int

    async def ask(self, method: str, path: str, *, key: bool = True, **options: Any) -> Told:
        """Ask with the tenant's key, or without."""
        headers = {**(self.world.key.headers if key else {}), **options.pop("headers", {})}
        async with self.client.request(method, path, headers=headers, allow_redirects=False, **options) as response:
            return Told(response.status, response.headers, await response.read())

    async def raw(self, sent: bytes) -> bytes:
        """Send *sent* as it is and read to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()

    async def head(self, sent: bytes) -> bytes:
        """Send *sent* as it is and read the head of the first answer: a server lingers for a body that never comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            async with asyncio.timeout(10):
                return await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()

    async def quiet(self) -> None:
        """Let what is still under way on the server end."""
        async with asyncio.timeout(10):
            while await self.world.all_held():  # noqa: ASYNC110 - what it waits for is the subject of the test
                await asyncio.sleep(0)


class Told(NamedTuple):
    """An answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of a problem body."""
        import json

        assert self.headers["Content-Type"] == "application/problem+json", self
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return str(problem["code"])


def routes() -> list[web.RouteDef]:
    """The routes above."""
    return [
        web.get("/kv/{key}", get),
        web.put("/kv/{key}", put),
        web.post("/pieces", pieces),
        web.get("/fail", fail),
    ]


@asynccontextmanager
async def served(
    world: World | None = None,
    *,
    extra: Any = (),
    middlewares: Any = (),
    build: Callable[[web.Application], None] = lambda app: None,
    cancels: bool = False,
    max_size: int = 2**20,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve the routes above and *extra* ones, with *options* for `Tenancy.setup`."""
    world = world or World()
    app = web.Application(middlewares=middlewares, client_max_size=max_size)
    app.add_routes([*routes(), *extra])
    build(app)
    world.tenancy.setup(app, **options)
    runner = web.AppRunner(app, handler_cancellation=cancels, access_log=None, shutdown_timeout=0.1)
    try:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{port}") as client:
            yield Served(world, app, client, port)
    finally:
        await runner.cleanup()
