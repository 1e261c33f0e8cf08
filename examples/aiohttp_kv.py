"""A small multi-tenant key-value server on aiohttp.

Run it, and it prints two tenants' keys and ready lines for curl::

    python examples/aiohttp_kv.py --port 8090

The handlers see one dict for everybody. What keeps tenants apart is `tenant.kv`, what keeps them within their plans is
`tenant.charge`, and everything else, keys, rates, permissions, refusals, is ``tenancy.setup(app)``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from functools import partial

from aiohttp import web

from hivetenancy import DeniedError, Reason, Refusal, Tenancy, current_tenant, function
from hivetenancy.adapters.aiohttp import metered_content
from hivetenancy.ids import Amounts
from hivetenancy.testing import FakeHiveHub

OPERATION: Amounts = {"operations": 1}
STORE: web.AppKey[dict[str, bytes]] = web.AppKey("store", dict)


@function("kv.list", effect="read", demand=OPERATION)
async def names(request: web.Request) -> web.Response:
    """Return the caller's own names, as the caller wrote them."""
    scope, prefix = current_tenant().kv, request.query.get("prefix", "")
    own = (scope.strip(name) for name in request.app[STORE] if scope.owns(name))
    return web.json_response(sorted(name for name in own if name.startswith(prefix)))


@function("kv.get", effect="read", demand=OPERATION)
async def get(request: web.Request) -> web.Response:
    """Return what is stored under the key."""
    name = _name(request)
    if name not in request.app[STORE]:
        raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND))
    return web.Response(body=request.app[STORE][name], content_type="application/octet-stream")


@function("kv.set", effect="write", demand=OPERATION)
async def put(request: web.Request) -> web.Response:
    """Store the body under the key; `metered_content` stops at the plan's limit while it arrives."""
    name, body = _name(request), await metered_content(request).read()
    async with current_tenant().charge(name, storage_bytes=len(body), keys=1):
        request.app[STORE][name] = body
    return web.Response(status=204)


@function("kv.delete", effect="delete", demand=OPERATION)
async def delete(request: web.Request) -> web.Response:
    """Delete the key, and credit what it was charged."""
    name = _name(request)
    async with current_tenant().charge(name):
        found = request.app[STORE].pop(name, None) is not None
    if not found:
        raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND))
    return web.Response(status=204)


@function("usage.read", effect="read")
async def usage(request: web.Request) -> web.Response:
    """Return where the caller's own quotas stand."""
    cells = [asdict(cell) for cell in await current_tenant().usage()]
    return web.json_response(cells, dumps=partial(json.dumps, default=str))


async def livez(request: web.Request) -> web.Response:
    """Say that the server is there; the one route that needs no key."""
    return web.Response(text="ok")


def _name(request: web.Request) -> str:
    return str(current_tenant().kv.key(request.match_info["key"]))


def build(tenancy: Tenancy) -> web.Application:
    """Return the application for *tenancy*."""
    # aiohttp's own limit of 1 MiB would hold beside that of the plan: leave the matter to the plan.
    app = web.Application(client_max_size=0)
    app[STORE] = {}
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/kv", names),
            web.get("/kv/{key:.+}", get),
            web.put("/kv/{key:.+}", put),
            web.delete("/kv/{key:.+}", delete),
            web.get("/usage", usage),
        ]
    )
    tenancy.setup(app, public=("GET /livez",))
    return app


async def main(port: int) -> None:
    """Serve two tenants of a fake hub until interrupted."""
    hub = FakeHiveHub()
    runner = web.AppRunner(build(Tenancy.embedded(hub)))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        for name in ("acme", "globex"):
            tenant = hub.add_tenant(name, plan="pro")
            key = tenant.issue_key(permissions=["read", "write", "delete"])
            print(f"{name}  {tenant.id}  {key.secret}")
            print(f"  curl -i -X PUT -d {name} -H 'Authorization: Bearer {key.secret}' {url}/kv/hello")
            print(f"  curl -i -H 'Authorization: Bearer {key.secret}' {url}/kv/hello", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A multi-tenant key-value server on a fake hub.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().port))
