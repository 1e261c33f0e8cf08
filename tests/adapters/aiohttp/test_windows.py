"""Hooks outside of the window in which the tenant is bound, and a connection that serves one tenant after the other."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")

from aiohttp import web

from hivetenancy import tenant as tenant_module
from hivetenancy.adapters.aiohttp import TENANT
from hivetenancy.context import bound
from hivetenancy.functions import function
from tests.adapters.aiohttp.served import served
from tests.tenants import who

pytestmark = pytest.mark.anyio


async def test_a28_the_tenant_stands_on_the_request_for_hooks_outside_of_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``on_response_prepare`` of a plain answer finds nothing bound, and the tenant on the request."""
    monkeypatch.setattr(tenant_module._Process, "cluster", True)
    seen: list[tuple[str, str, str]] = []

    async def prepared(request: web.Request, response: Any) -> None:
        tenant = request.get(TENANT)
        seen.append((request.path, "nobody" if tenant is None else tenant.id, who()))

    @function("kv.stream", effect="read")
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(who().encode())
        return response

    def build(app: web.Application) -> None:
        app.on_response_prepare.append(prepared)

    async with served(build=build, extra=[web.get("/stream", stream)]) as made:
        tenant = made.world.tenant.id
        await made.ask("GET", "/kv/a")
        assert (await made.ask("GET", "/stream")).body.decode() == tenant
        await made.ask("GET", "/kv/a", key=False)
    assert seen == [("/kv/a", tenant, "nobody"), ("/stream", tenant, tenant), ("/kv/a", "nobody", "nobody")]


async def test_a26_a_kept_alive_connection_serves_one_tenant_after_the_other() -> None:
    """Requests with the keys of two tenants, and without one, over one connection: each has its own, or none."""
    async with served() as made:
        other = made.world.other.issue_key(permissions=["read"])
        made_connections = 0
        for key in (made.world.key, other, None, made.world.key, None, other) * 5:
            headers = {} if key is None else key.headers
            async with made.client.get(f"http://127.0.0.1:{made.port}/kv/a", headers=headers) as response:
                text = await response.text()
                made_connections = max(made_connections, len(made.client.connector._conns))  # type: ignore[union-attr]
            if key is None:
                assert response.status == 401
            else:
                tenant = made.world.tenant if key is made.world.key else made.world.other
                assert text == f"user:{tenant.id}:a"
            assert bound.get() is None
        assert made_connections == 1
