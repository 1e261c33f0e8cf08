"""FastAPI: dependencies that declare functions, included routers that are built lazily, its own pages."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from hivetenancy.adapters.asgi import TenancyASGI, middleware
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, DeniedError, InvalidNameError
from hivetenancy.functions import function
from hivetenancy.tenant import Tenant, current_tenant
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.host import Stage, problem

fastapi = pytest.importorskip("fastapi", reason="FastAPI is in the extra `hosts`")

from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket  # noqa: E402
from fastapi.responses import PlainTextResponse  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402

from hivetenancy.adapters.fastapi import require  # noqa: E402

pytestmark = pytest.mark.anyio

NO_PAGES: dict[str, Any] = {"openapi_url": None}
Reads = Annotated[Tenant, Depends(require("item.get", effect="read"))]


def deep(tenant: Reads) -> str:
    """A dependency of a dependency."""
    return tenant.id


class Item(BaseModel):
    """A body."""

    name: str


def router(**options: Any) -> APIRouter:
    made = APIRouter(**options)

    @made.get("/items/{name}")
    async def read(name: str, tenant: Reads) -> dict[str, str]:
        return {"tenant": tenant.id, "name": name, "bound": current_tenant().id}

    @made.put("/items")
    @function("item.set", effect="write", demand={"operations": 1})
    def write(item: Item) -> str:
        return current_tenant().id

    @made.websocket("/ws")
    async def socket(websocket: WebSocket, tenant: Reads) -> None:
        await websocket.accept()
        await websocket.send_text(tenant.id)
        await websocket.close()

    return made


async def test_a_dependency_declares_the_function_and_gives_the_tenant() -> None:
    """Depends(require(...)) is found among dependencies of any depth; def handlers see their tenant as well."""
    stage = Stage()
    app = FastAPI(**NO_PAGES)
    app.include_router(router())

    @app.get("/deep")
    async def deeper(tenant: Annotated[str, Depends(deep)]) -> str:
        return tenant

    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        assert (await client.request("GET", "/items/a")).status == 401
        answer = await client.request("GET", "/items/a", headers=stage.key.headers)
        assert answer.json() == {"tenant": stage.id, "name": "a", "bound": stage.id}
        assert (await client.request("GET", "/deep", headers=stage.key.headers)).json() == stage.id
        body = {"headers": {**stage.key.headers, "Content-Type": "application/json"}, "body": b'{"name": "a"}'}
        assert (await client.request("PUT", "/items", **body)).json() == stage.id
        body["headers"] = {**stage.reader.headers, "Content-Type": "application/json"}
        assert (await client.request("PUT", "/items", **body)).status == 403
        async with client.websocket("/ws", headers=stage.reader.headers) as socket:
            assert await socket.receive() == stage.id
        async with client.websocket("/ws") as socket:
            assert socket.refusal.status == 401


async def test_included_routers_are_guarded_at_every_prefix_and_depth() -> None:
    """One router included twice, one inside another, Starlette's routes and mounts in it, all before first use."""
    stage = Stage()
    shared = router(prefix="/v1")
    outer = APIRouter()
    outer.include_router(shared, prefix="/inner")

    @function("item.plain", effect="read")
    async def starlettes(request: Request) -> PlainTextResponse:
        return PlainTextResponse(current_tenant().id)

    outer.routes.append(Route("/plain", starlettes))
    outer.routes.append(Mount("/mount", routes=[Route("/x", starlettes)]))
    app = FastAPI(**NO_PAGES)
    app.include_router(shared, prefix="/a")
    app.include_router(shared, prefix="/b")
    app.include_router(outer, prefix="/c")
    sub = FastAPI(**NO_PAGES)
    sub.include_router(router())
    app.mount("/sub", sub)
    paths = ("/a/v1/items/x", "/b/v1/items/x", "/c/inner/v1/items/x", "/c/plain", "/c/mount/x", "/sub/items/x")
    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        for path in paths:
            assert (await client.request("GET", path)).status == 401, path
            answer = await client.request("GET", path, headers=stage.key.headers)
            assert (answer.status, answer.header("ratelimit") is not None) == (200, True), path
            method = await client.request("DELETE", path, headers=stage.key.headers)
            assert problem(method) == (405, "METHOD_NOT_ALLOWED")
            assert method.header("allow")
        async with client.websocket("/c/inner/v1/ws", headers=stage.key.headers) as socket:
            assert await socket.receive() == stage.id


@pytest.mark.parametrize("included_last", [True, False])
async def test_an_included_route_without_a_function_does_not_start(included_last: bool) -> None:
    """Whenever it was added to the live router, as long as it was before the wrapping."""
    made = APIRouter()
    app = FastAPI(**NO_PAGES)
    if not included_last:
        app.include_router(made, prefix="/p")

    @made.get("/open")
    async def unmarked() -> str:
        return "secret"

    if included_last:
        app.include_router(made, prefix="/p")
    with pytest.raises(ConfigurationError, match="GET /p/open has no function"):
        TenancyASGI(app, Stage().tenancy)


async def test_routers_are_sealed_with_those_they_include() -> None:
    """The live reference cannot be used to add a route behind the guards' back."""
    made = router()
    app = FastAPI(**NO_PAGES)
    app.include_router(made, prefix="/p")
    TenancyASGI(app, Stage().tenancy)
    for holder in (made, app):
        with pytest.raises(ConfigurationError, match="sealed"):

            @holder.get("/late")
            async def late() -> str:
                return "secret"

    with pytest.raises(ConfigurationError, match="sealed"):
        app.include_router(router())
    with pytest.raises(ConfigurationError, match="sealed"):
        made._mark_routes_changed()


async def test_the_pages_that_fastapi_adds_need_a_decision() -> None:
    """They are named, with what turns them off; listed as public they are served."""
    stage = Stage()
    with pytest.raises(ConfigurationError, match=r"(?s)GET /openapi.json has no function.*openapi_url=None"):
        TenancyASGI(FastAPI(), stage.tenancy)
    app = FastAPI(redoc_url=None, swagger_ui_oauth2_redirect_url=None)
    app.include_router(router())
    async with AsgiClient(TenancyASGI(app, stage.tenancy, public=("GET /openapi.json", "GET /docs"))) as client:
        schema = (await client.request("GET", "/openapi.json")).json()
        assert (await client.request("GET", "/docs")).status == 200
    schemes = schema["components"]["securitySchemes"]
    assert schemes["AccessKey"]["type"] == "http"
    assert schemes["AccessKey"]["scheme"] == "bearer"
    assert schema["paths"]["/items/{name}"]["get"]["security"] == [{"AccessKey": []}]


async def test_require_may_name_a_function_that_is_declared_elsewhere() -> None:
    """A name alone, or with its terms; two functions on one route, or an unknown one, do not start."""
    stage = Stage()
    stage.tenancy.functions.declare("item.far", effect="admin")
    app = FastAPI(**NO_PAGES)

    @app.get("/far", dependencies=[Depends(require("item.far"))])
    async def far() -> str:
        return "far"

    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        assert (await client.request("GET", "/far", headers=stage.key.headers)).status == 403

    for dependencies, message in (
        ([Depends(require("item.none"))], "no function 'item.none'"),
        ([Depends(require("a.b", effect="read")), Depends(require("c.d", effect="read"))], "more than one function"),
    ):
        app = FastAPI(**NO_PAGES)
        app.get("/x", dependencies=dependencies)(lambda: "x")
        with pytest.raises(ConfigurationError, match=message):
            TenancyASGI(app, Stage().tenancy)
    with pytest.raises(ConfigurationError, match="effect="):
        require("a.b", cost=2)
    with pytest.raises(ConfigurationError, match="effect must be one of"):
        require("a.b", effect="delight")


async def test_a_refusal_raised_in_a_handler_or_dependency() -> None:
    """FastAPI's own handlers, and the host's for ValueError, swallow nothing."""
    stage = Stage()
    app = FastAPI(**NO_PAGES)

    @app.exception_handler(ValueError)
    async def swallow(request: Request, error: ValueError) -> PlainTextResponse:
        return PlainTextResponse("swallowed", 418)

    def raising() -> None:
        raise InvalidNameError("empty")

    @app.get("/name", dependencies=[Depends(require("a.b", effect="read")), Depends(raising)])
    async def name() -> str:
        return "never"

    @app.get("/denied", dependencies=[Depends(require("a.b", effect="read"))])
    def denied() -> str:
        raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND))

    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        assert problem(await client.request("GET", "/name", headers=stage.key.headers)) == (400, "INVALID_NAME")
        assert problem(await client.request("GET", "/denied", headers=stage.key.headers)) == (404, "NOT_FOUND")
        assert await stage.held() == {}


async def test_a_body_that_is_too_long_for_a_model() -> None:
    """FastAPI turns the disconnect into a 400 of its own; the client gets 413."""
    stage = Stage()
    app = FastAPI(**NO_PAGES)
    app.include_router(router())
    headers = {**stage.key.headers, "Content-Type": "application/json"}
    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        body = [b'{"name": "', b"x" * 200, b'"}']
        answer = await client.request("PUT", "/items", headers=headers, body=body)
        assert problem(answer) == (413, "PAYLOAD_TOO_LARGE")
        invalid = await client.request("PUT", "/items", headers=headers, body=b"{}")
        assert invalid.status == 422
        assert await stage.held() == {}
        cells = {cell.dimension: cell.used for cell in await stage.tenancy.gate.usage(stage.acme.id)}
        assert cells["operations"] == 0


async def test_kinds_that_have_no_place_for_a_guard_do_not_start(tmp_path: Any) -> None:
    """frontend() serves files beside the routes; a route class with a handle of its own serves anything."""
    app = FastAPI(**NO_PAGES)
    if hasattr(app, "frontend"):
        (tmp_path / "index.html").write_text("hello")
        app.frontend("/", directory=str(tmp_path))
        with pytest.raises(ConfigurationError, match="frontend"):
            TenancyASGI(app, Stage().tenancy)

    class OwnHandle(fastapi.routing.APIRoute):  # type: ignore[name-defined, misc]
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("secret")(scope, receive, send)

    for include in (False, True):
        app = FastAPI(**NO_PAGES)
        made = APIRouter(route_class=OwnHandle)
        made.get("/x", dependencies=[Depends(require("a.b", effect="read"))])(lambda: "x")
        if include:
            app.include_router(made)
        else:
            app.mount("/m", made)
        with pytest.raises(ConfigurationError, match=r"unknown kind .*OwnHandle"):
            TenancyASGI(app, Stage().tenancy)


async def test_as_a_middleware() -> None:
    """app.add_middleware, with its router found at start."""
    stage = Stage()
    app = FastAPI(**NO_PAGES)
    app.add_middleware(middleware(stage.tenancy))
    app.include_router(router())
    async with AsgiClient(app) as client:
        assert (await client.request("GET", "/items/a")).status == 401
        assert (await client.request("GET", "/items/a", headers=stage.key.headers)).status == 200
