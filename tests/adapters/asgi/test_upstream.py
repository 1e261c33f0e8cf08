"""What went wrong over HTTP in the servers that this library was drawn from, each as a test named after it.

The numbers are those of the weaknesses proven from their code; each test would fail on that code.
"""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.adapters.declare import by_method
from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import function
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.host import Stage, problem

pytestmark = pytest.mark.anyio

PREFIXES = ("collections", "vectors", "search", "auth", "health", "dashboard")


@function("data.read", effect="read")
async def read(request: Request) -> Response:
    return JSONResponse({"tenant": current_tenant().id})


@function("admin.flush", effect="admin")
async def flush(request: Request) -> Response:
    return JSONResponse("flushed")


@function("data.talk", effect="read")
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def guarded(stage: Stage) -> TenancyASGI:
    routes: list[Any] = [Route(f"/{prefix}/{{rest:path}}", read, methods=["GET", "POST"]) for prefix in PREFIXES]
    routes += [Route("/admin/flush", flush, methods=["POST"]), Mount("/graphql", routes=[Route("/", read)])]
    routes += [WebSocketRoute("/ws", talk)]
    return TenancyASGI(Starlette(routes=routes), stage.tenancy)


async def test_d01_any_well_formed_key_was_a_tenant() -> None:
    """A made-up key of the right shape opens nothing, and each made-up key is not a tenant with limits of its own."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        for number in range(20):
            made_up = {"Authorization": f"Bearer hh_live_{number:032d}"}
            assert problem(await client.request("GET", "/collections/x", headers=made_up)) == (
                401,
                "INVALID_CREDENTIAL",
            )


@pytest.mark.parametrize("value", ["", "1", "true", "internal"])
async def test_d02_a_header_skipped_authentication(value: str) -> None:
    """No header that says "internal" skips anything, alone or with somebody's id, and none raises a key's rights."""
    stage = Stage()
    bypass = {"X-HiveHub-Service": value, "X-HiveHub-User-Id": stage.acme.id}
    async with AsgiClient(guarded(stage)) as client:
        for path in ("/collections/x", "/graphql/"):
            assert problem(await client.request("GET", path, headers=bypass)) == (401, "MISSING_CREDENTIAL")
        answer = await client.request("POST", "/admin/flush", headers={**stage.reader.headers, **bypass})
        assert problem(answer) == (403, "FORBIDDEN")


async def test_d03_data_routes_bypassed_the_check() -> None:
    """No prefix of a path is exempt: every route needs a key, in every method, and has the key's tenant bound."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        for prefix in PREFIXES:
            for path in (f"/{prefix}/x", f"/{prefix}", f"/{prefix}x", f"/{prefix}/../admin/flush"):
                for method in ("GET", "POST", "DELETE", "OPTIONS"):
                    assert (await client.request(method, path)).status == 401, (method, path)
            answer = await client.request("GET", f"/{prefix}/x", headers=stage.rivals.headers)
            assert answer.json() == {"tenant": stage.rival.id}
        async with client.websocket("/ws") as socket:
            assert socket.refusal.status == 401


async def test_d05_no_configuration_yielded_tenancy() -> None:
    """The shortest set-up enforces tenants; there is no set-up that starts with routes left open."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        assert (await client.request("GET", "/collections/x")).status == 401
        assert (await client.request("GET", "/collections/x", headers=stage.key.headers)).status == 200

    async def forgotten(request: Request) -> Response:
        return JSONResponse("everybody's data")

    with pytest.raises(ConfigurationError, match="/forgotten"):
        TenancyASGI(Starlette(routes=[Route("/forgotten", forgotten)]), stage.tenancy)


async def test_d31_gateway_headers_were_trusted_from_anyone() -> None:
    """A chosen user id beside a key changes nothing: the tenant is the key's."""
    stage = Stage()
    claim = {"X-Hivehub-User-Id": stage.rival.id, "X-Forwarded-User": stage.rival.id, "X-Tenant-Id": stage.rival.id}
    async with AsgiClient(guarded(stage)) as client:
        assert (
            await client.request("GET", "/collections/x", headers={"Authorization": "Bearer x", **claim})
        ).status == 400
        assert (await client.request("GET", "/collections/x", headers=claim)).status == 401
        answer = await client.request("GET", "/collections/x", headers={**stage.key.headers, **claim})
        assert answer.json() == {"tenant": stage.acme.id}


async def test_d36_a_429_had_no_retry_after() -> None:
    """Each 429 of a rate says when to come back, over HTTP and for a handshake, and means it."""
    stage = Stage()
    key = stage.tight()
    async with AsgiClient(guarded(stage)) as client:
        for _ in range(2):
            assert (await client.request("GET", "/collections/x", headers=key.headers)).status == 200
        for path in ("/collections/x", "/nowhere"):
            refused = await client.request("GET", path, headers=key.headers)
            assert (refused.status, refused.header("retry-after")) == (429, "1")
        async with client.websocket("/ws", headers=key.headers) as socket:
            assert (socket.refusal.status, socket.refusal.header("retry-after")) == (429, "1")
        stage.clock.advance(1)
        assert (await client.request("GET", "/collections/x", headers=key.headers)).status == 200


async def test_d40_no_key_meant_unscoped_access() -> None:
    """There is no hybrid mode: no key, no access; and a generic command route is a route like any other."""
    stage = Stage()

    async def command(request: Request) -> Response:
        return JSONResponse(str(current_tenant().kv.key("x")))

    app = Starlette(routes=[Route("/api/v1/command", command, methods=["POST"])])
    async with AsgiClient(TenancyASGI(app, stage.tenancy, functions=by_method())) as client:
        body = b'{"command": "kv.flushall"}'
        assert (await client.request("POST", "/api/v1/command", body=body)).status == 401
        answer = await client.request("POST", "/api/v1/command", headers=stage.rivals.headers, body=body)
        assert answer.json() == f"user:{stage.rival.id}:x"
        with stage.hub.outage():  # an outage was told as an invalid key
            fresh = stage.acme.issue_key(permissions=["write"])
            assert (await client.request("POST", "/api/v1/command", headers=fresh.headers, body=body)).status == 503


async def test_d45_a_429_had_no_headers_and_its_reset_was_made_up() -> None:
    """A refusal carries both families of rate headers, with the wait that holds."""
    stage = Stage()
    key = stage.tight()
    async with AsgiClient(guarded(stage)) as client:
        for _ in range(3):
            answer = await client.request("GET", "/collections/x", headers=key.headers)
        assert answer.status == 429
        assert answer.header("ratelimit-policy") == '"minute";q=60;w=60'
        assert answer.header("ratelimit") == '"minute";r=0;t=1'
        wall_us = stage.clock.now()[1]
        assert answer.header("x-ratelimit-reset") == str(-(-(wall_us + 1_000_000) // 1_000_000))
