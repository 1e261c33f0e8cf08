"""One application, given to one tenancy after another, as the tests of a module do with the application that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import function
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.host import Stage, problem

anyio = pytest.mark.anyio


@function("kv.get", effect="read", demand={"operations": 1})
async def get(request: Request) -> Response:
    return PlainTextResponse(current_tenant().id)


@function("ws.run", effect="read")
async def run(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def livez(request: Request) -> Response:
    return PlainTextResponse("alive")


@function("raw.get", effect="read")
async def bare(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(current_tenant().id)(scope, receive, send)


def application() -> Starlette:
    return Starlette(
        routes=[
            Route("/kv", get),
            Route("/livez", livez),
            WebSocketRoute("/ws", run),
            Mount("/deep", routes=[Route("/kv", get)]),
            Mount("/raw", bare),
            Mount("/back", Router([Route("/kv", get)], default=bare)),
            Host("api.example", bare),
        ]
    )


PATHS = ("/kv", "/deep/kv", "/raw/x", "/back/kv", "/back/other")


async def served(app: TenancyASGI, stage: Stage) -> None:
    """Every kind of leaf is this tenancy's."""
    async with AsgiClient(app) as client:
        for path in PATHS:
            answer = await client.request("GET", path, headers=stage.key.headers)
            assert (answer.status, answer.text) == (200, stage.id), path
        hosted = await client.request("GET", "/", headers={**stage.key.headers, "host": "api.example"})
        assert (hosted.status, hosted.text) == (200, stage.id)
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            assert socket.accepted
        assert (await client.request("GET", "/livez")).text == "alive"
        assert (await client.request("GET", "/kv")).status == 401


@anyio
async def test_an_application_serves_for_the_tenancy_that_it_was_given_to_last() -> None:
    """Each test of a module may wrap the module's one application; public routes are stated anew each time."""
    app = application()
    for _ in range(3):
        stage = Stage()
        await served(TenancyASGI(app, stage.tenancy, public=("GET /livez",)), stage)
        assert stage.acme.used("operations") == 3  # for each of the three routes to `get`


@anyio
async def test_nothing_is_served_for_the_tenancy_that_had_it_before() -> None:
    """Its callers are nobody to the engines behind the guards, so each is refused as a fault, and never let in."""
    app, former, latter = application(), Stage(), Stage()
    stale = TenancyASGI(app, former.tenancy, public=("GET /livez",))
    TenancyASGI(app, latter.tenancy, public=("GET /livez",))
    async with AsgiClient(stale) as client:
        for path in (*PATHS, "/livez"):
            assert problem(await client.request("GET", path, headers=former.key.headers)) == (500, "INTERNAL_ERROR")
        async with client.websocket("/ws", headers=former.key.headers) as socket:
            assert socket.refusal.status == 500


@anyio
async def test_the_log_says_why_it_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Since nobody else could tell."""
    app, former = application(), Stage()
    stale = TenancyASGI(app, former.tenancy, public=("GET /livez",))
    TenancyASGI(app, Stage().tenancy, public=("GET /livez",))
    async with AsgiClient(stale) as client:
        await client.request("GET", "/kv", headers=former.key.headers)
    assert "guarded by one tenancy was reached through another" in caplog.text


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda part: part, "the application is what another"),
        (lambda part: Starlette(routes=[Mount("/part", app=part)]), "/part: what is"),
    ],
)
def test_a_tenancy_within_another_is_refused(build: Callable[[Any], Any], message: str) -> None:
    """Neither would let out what the other admitted; the same tenancy may stand within itself."""
    own = Stage()
    part = TenancyASGI(Starlette(routes=[Route("/kv", get)]), own.tenancy)
    TenancyASGI(build(part), own.tenancy)
    with pytest.raises(ConfigurationError, match=message):
        TenancyASGI(build(part), Stage().tenancy)


def fastapi() -> tuple[Any, str]:
    """A FastAPI application with an included router."""
    fastapi: Any = pytest.importorskip("fastapi", reason="FastAPI is in the extra `hosts`")
    from hivetenancy.adapters.fastapi import require

    router = fastapi.APIRouter()

    async def read() -> str:
        return current_tenant().id

    router.get("/kv", dependencies=[fastapi.Depends(require("kv.get", effect="read"))])(read)
    app = fastapi.FastAPI(openapi_url=None)
    app.include_router(router, prefix="/in")
    return app, "/in/kv"


@anyio
async def test_fastapi_serves_for_the_last_one_too() -> None:
    """Its included routers have leaves of their own."""
    app, path = fastapi()
    for _ in range(2):
        stage = Stage()
        async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
            answer = await client.request("GET", path, headers=stage.key.headers)
        assert (answer.status, answer.json()) == (200, stage.id)


def litestar() -> Any:
    """An application of Litestar."""
    litestar = pytest.importorskip("litestar", reason="Litestar is in the extra `hosts`")

    @function("kv.get", effect="read")
    def read() -> str:
        return ""

    return litestar.Litestar([litestar.get("/kv", sync_to_thread=False)(read)], openapi_config=None)


def quart() -> Any:
    """An application of Quart."""
    quart = pytest.importorskip("quart", reason="Quart is in the extra `hosts`")
    app = quart.Quart(__name__, static_folder=None)

    @function("kv.get", effect="read")
    async def read() -> str:
        return ""

    app.get("/kv")(read)
    return app


@pytest.mark.parametrize("build", [litestar, quart])
def test_where_guards_cannot_be_exchanged_a_second_tenancy_is_refused(build: Callable[[], Any]) -> None:
    """With the remedy; the same tenancy may come twice."""
    app, stage = build(), Stage()
    TenancyASGI(app, stage.tenancy)
    TenancyASGI(app, stage.tenancy)
    with pytest.raises(ConfigurationError, match="make an application for each"):
        TenancyASGI(app, Stage().tenancy)
