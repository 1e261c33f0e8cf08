"""The life cycle: started before the application, stopped after it, refused while it cannot start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hivetenancy.adapters.asgi import TenancyASGI, middleware
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.functions import function
from hivetenancy.testing.asgi import AsgiClient, LifespanFailedError
from tests.adapters.host import Stage, problem

pytestmark = pytest.mark.anyio


@function("kv.get", effect="read")
async def get(request: Request) -> Response:
    return PlainTextResponse("got")


@function("kv.mystery", effect="read", demand={"mysteries": 1})
async def undeclared_dimension(request: Request) -> Response:
    return PlainTextResponse("got")


async def test_the_lifespan_starts_before_and_stops_after_the_application() -> None:
    """In its own start-up and shutdown the application finds the tenancy running."""
    stage = Stage()
    seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        seen.append(("startup", stage.tenancy.running))
        yield {"from": "the application"}
        seen.append(("shutdown", stage.tenancy.running))

    app = TenancyASGI(Starlette(routes=[Route("/", get)], lifespan=lifespan), stage.tenancy)
    async with AsgiClient(app, lifespan="on") as client:
        assert client.state == {"from": "the application"}
        assert (await client.request("GET", "/", headers=stage.key.headers)).status == 200
    assert seen == [("startup", True), ("shutdown", True)]
    assert not stage.tenancy.running


async def test_a_failed_self_check_fails_the_start_up_with_its_reason() -> None:
    """A demand that no plan declares is told to the server, and the application is not started."""
    stage = Stage()
    started: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        started.append(True)
        yield

    app = TenancyASGI(Starlette(routes=[Route("/", undeclared_dimension)], lifespan=lifespan), stage.tenancy)
    with pytest.raises(LifespanFailedError, match="mysteries"):
        async with AsgiClient(app):
            pass
    assert not started
    assert not stage.tenancy.running


async def test_an_application_that_fails_to_start_stops_the_tenancy() -> None:
    """Nothing goes on in the background of a server that gave up."""
    stage = Stage()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if app is not None:
            raise RuntimeError("no database")
        yield

    app = TenancyASGI(Starlette(routes=[Route("/", get)], lifespan=lifespan), stage.tenancy)
    with pytest.raises((LifespanFailedError, RuntimeError), match="no database"):
        async with AsgiClient(app):
            pass
    assert not stage.tenancy.running


async def test_an_application_that_fails_to_shut_down_still_stops_the_tenancy() -> None:
    """Its failure is handed on after the stop."""
    stage = Stage()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        raise RuntimeError("disk is full")

    app = TenancyASGI(Starlette(routes=[Route("/", get)], lifespan=lifespan), stage.tenancy)
    with pytest.raises((LifespanFailedError, RuntimeError), match="disk is full"):
        async with AsgiClient(app):
            assert stage.tenancy.running
    assert not stage.tenancy.running


async def test_an_application_without_a_lifespan_is_started_all_the_same() -> None:
    """Whether it raises at the lifespan scope, or returns."""
    for raises in (True, False):
        stage = Stage()

        @function("kv.get", effect="read")
        async def bare(scope: Any, receive: Any, send: Any, raises: bool = raises) -> None:
            if scope["type"] == "lifespan":
                if raises:
                    raise ValueError("no lifespan here")
                return
            await PlainTextResponse("got")(scope, receive, send)

        async with AsgiClient(TenancyASGI(bare, stage.tenancy), lifespan="on") as client:
            assert stage.tenancy.running
            assert (await client.request("GET", "/", headers=stage.key.headers)).text == "got"
        assert not stage.tenancy.running


async def test_without_a_lifespan_the_first_request_starts_it() -> None:
    """Many first requests start it once."""
    stage = Stage()
    client = AsgiClient(TenancyASGI(Starlette(routes=[Route("/", get)]), stage.tenancy))
    answers = await asyncio.gather(*(client.request("GET", "/", headers=stage.key.headers) for _ in range(5)))
    assert [one.status for one in answers] == [200] * 5
    await stage.tenancy.stop()


@pytest.mark.parametrize("error", [HubUnavailableError("out of reach"), ConfigurationError("no plan")])
async def test_while_it_cannot_start_every_request_is_503(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason; after a pause the next request tries again."""
    stage = Stage()
    attempts: list[int] = []
    start = stage.tenancy.start

    async def fails() -> None:
        attempts.append(1)
        raise error

    monkeypatch.setattr(stage.tenancy, "start", fails)
    client = AsgiClient(TenancyASGI(Starlette(routes=[Route("/", get)]), stage.tenancy))
    for _ in range(3):
        answer = await client.request("GET", "/", headers=stage.key.headers)
        assert problem(answer) == (503, "UNAVAILABLE")
        assert answer.header("retry-after") == "1"
    async with client.websocket("/", headers=stage.key.headers) as socket:
        assert socket.refusal.status == 503
    async with client.websocket("/", headers=stage.key.headers, denial_extension=False) as socket:
        assert socket.status == 403
    assert attempts == [1]
    monkeypatch.setattr(stage.tenancy, "start", start)
    assert (await client.request("GET", "/", headers=stage.key.headers)).status == 503
    stage.clock.advance(1)
    assert (await client.request("GET", "/", headers=stage.key.headers)).status == 200
    await stage.tenancy.stop()


async def test_after_the_shutdown_requests_are_503() -> None:
    """A late request does not start it again."""
    stage = Stage()
    app = TenancyASGI(Starlette(routes=[Route("/", get)]), stage.tenancy)
    async with AsgiClient(app) as client:
        pass
    assert (await client.request("GET", "/", headers=stage.key.headers)).status == 503
    assert not stage.tenancy.running
    async with AsgiClient(app) as client:
        assert (await client.request("GET", "/", headers=stage.key.headers)).status == 200


async def test_as_a_middleware_it_guards_the_application_when_that_starts() -> None:
    """Routes may be added until then, and not after."""
    stage = Stage()
    app = Starlette()
    app.add_middleware(middleware(stage.tenancy))
    app.add_route("/", get)
    async with AsgiClient(app) as client:
        assert (await client.request("GET", "/")).status == 401
        assert (await client.request("GET", "/", headers=stage.key.headers)).status == 200
        with pytest.raises(ConfigurationError, match="sealed"):
            app.add_route("/late", get)
    assert not stage.tenancy.running


async def test_as_a_middleware_without_a_lifespan() -> None:
    """The first request finds the application in the scope."""
    stage = Stage()
    app = Starlette(routes=[Route("/", get)])
    app.add_middleware(middleware(stage.tenancy), public=())
    client = AsgiClient(app)
    assert (await client.request("GET", "/")).status == 401
    assert (await client.request("GET", "/", headers=stage.key.headers)).status == 200
    await stage.tenancy.stop()


async def test_as_a_middleware_a_route_without_a_function_fails_the_start_up() -> None:
    """As from tenancy.asgi, and before anything is served."""

    async def unmarked(request: Request) -> Response:
        return PlainTextResponse("secret")

    stage = Stage()
    app = Starlette(routes=[Route("/open", unmarked)])
    app.add_middleware(middleware(stage.tenancy))
    with pytest.raises(LifespanFailedError, match="GET /open has no function"):
        async with AsgiClient(app):
            pass
    answer = await AsgiClient(app).request("GET", "/open", headers=stage.key.headers)
    assert answer.status == 503


async def test_a_middleware_that_finds_no_application_says_so() -> None:
    """Around something that leaves nothing in the scope it refuses to guess."""
    stage = Stage()

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("secret")(scope, receive, send)

    with pytest.raises(LifespanFailedError, match=r"tenancy\.asgi"):
        async with AsgiClient(middleware(stage.tenancy)(bare)):
            pass


async def test_other_kinds_of_connection_are_refused() -> None:
    """A scope that nobody here knows is an error, not a way past."""
    stage = Stage()
    app = TenancyASGI(Starlette(routes=[Route("/", get)]), stage.tenancy)

    async def nothing(*_: Any) -> Any:
        return {}

    with pytest.raises(ConfigurationError, match="webtransport"):
        await app({"type": "webtransport"}, nothing, nothing)
