"""Which routes start and which do not: markers, tables, verbs, the public list, and what hides from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.adapters.declare import by_method
from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionSpec, function
from hivetenancy.ids import Effect
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.host import Stage, problem

anyio = pytest.mark.anyio


@function("kv.get", effect="read")
async def get(request: Request) -> Response:
    return PlainTextResponse("got")


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def plain_socket(websocket: WebSocket) -> None:
    await websocket.accept()


def wrap(*routes: BaseRoute, **options: Any) -> TenancyASGI:
    return TenancyASGI(Starlette(routes=list(routes)), Stage().tenancy, **options)


def hides(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def hidden(request: Request) -> Any:
        return await handler(request)

    return hidden


def keeps(handler: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(handler)(hides(handler))


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("bare")(scope, receive, send)


class Odd(BaseRoute):
    """A kind of route that nobody knows."""

    path = "/odd"

    def matches(self, scope: Any) -> Any:
        return Match.FULL, {}

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await bare(scope, receive, send)


class OwnHandle(Route):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await bare(scope, receive, send)


class OwnDispatch(Router):
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await bare(scope, receive, send)


class OwnEndpoint(HTTPEndpoint):
    @function("kv.get", effect="read")
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("got")

    async def dispatch(self) -> None:
        await PlainTextResponse("anything")(self.scope, self.receive, self.send)


class Half(HTTPEndpoint):
    @function("kv.get", effect="read")
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("got")

    async def put(self, request: Request) -> Response:
        return PlainTextResponse("put")


marked_app = function("sub.all", effect="read")(Starlette(routes=[Route("/x", get)]))

REFUSED: dict[str, tuple[list[BaseRoute], dict[str, Any], str]] = {
    "no marker": ([Route("/x", plain)], {}, r"GET /x has no function.*handler .*plain"),
    "hidden marker": ([Route("/x", hides(get))], {}, "GET /x has no function"),
    "one of many": ([Route("/x", get), Mount("/a", routes=[Mount("/b", routes=[Route("/c", plain)])])], {}, "/a/b/c"),
    "websocket": ([WebSocketRoute("/ws", plain_socket)], {}, "WEBSOCKET /ws has no function"),
    "static files": ([Mount("/static", StaticFiles(directory="."))], {}, r"/static has no function.*StaticFiles"),
    "mounted callable": ([Mount("/bare", bare)], {}, "/bare has no function"),
    "unknown kind": ([Odd()], {}, "unknown kind Odd"),
    "own handle": ([OwnHandle("/x", get)], {}, "unknown kind OwnHandle"),
    "own dispatch": ([Mount("/x", OwnDispatch([Route("/x", get)]))], {}, "unknown kind OwnDispatch"),
    "own endpoint": ([Route("/x", OwnEndpoint)], {}, "/x has no function"),
    "half an endpoint": ([Route("/x", Half)], {}, "PUT /x has no function"),
    "default": ([Mount("/x", Router([Route("/y", get)], default=bare))], {}, r"/x/\* has no function"),
    "host": ([Host("api.example", Router([Route("/x", plain)]))], {}, "GET /x has no function"),
    "marked sub-application": ([Mount("/sub", marked_app)], {}, "routes of its own"),
    "public and marked": ([Route("/x", get)], {"public": ("GET /x",)}, "declared twice"),
    "table and marked": ([Route("/x", get)], {"functions": {"GET /x": "kv.get"}}, "declared twice"),
    "public without route": ([Route("/x", get)], {"public": ("GET /livez",)}, "public: 'GET /livez' is no route"),
    "public template": ([Route("/f/{name}", get)], {"public": ("GET /f/logo",)}, "public: 'GET /f/logo' is no route"),
    "table without route": ([Route("/x", get)], {"functions": {"GET /y": "kv.get"}}, "functions: 'GET /y' is no route"),
    "unknown name": ([Route("/x", plain)], {"functions": {"GET /x": "kv.none"}}, "no function 'kv.none'"),
    "entry": ([Route("/x", plain)], {"public": ("/x",)}, "must be a method, one space and a path"),
    "string": ([Route("/x", plain)], {"public": "GET /x"}, "must be a tuple"),
    "two terms": (
        [Route("/x", get), Route("/y", function("kv.get", effect="write")(keeps(plain)))],
        {},
        "declared twice with different terms",
    ),
    "verb of a socket": ([WebSocketRoute("/ws", plain_socket)], {"functions": by_method()}, "WEBSOCKET /ws has no"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_does_not_start(which: str) -> None:
    """The application is refused when it is wrapped, and the message names the place."""
    routes, options, message = REFUSED[which]
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        wrap(*routes, **options)


def test_all_faults_are_told_at_once() -> None:
    """One run shows everything there is to mend."""
    with pytest.raises(ConfigurationError) as caught:
        wrap(Route("/one", plain), Route("/two", plain), public=("GET /three",))
    assert all(path in str(caught.value) for path in ("/one", "/two", "/three"))


def test_nothing_is_wrapped_when_something_is_wrong() -> None:
    """An application that was refused is unchanged."""
    app = Starlette(routes=[Route("/x", get), Route("/y", plain)])
    before = [route.app for route in app.routes]  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError):
        TenancyASGI(app, Stage().tenancy)
    assert [route.app for route in app.routes] == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        lambda app: app.add_route("/late", get),
        lambda app: app.mount("/late", bare),
        lambda app: app.host("late", bare),
        lambda app: app.router.add_websocket_route("/late", plain_socket),
        lambda app: app.routes.append(Route("/late", get)),
        lambda app: app.routes.insert(0, Route("/late", get)),
        lambda app: app.routes.__setitem__(0, Route("/late", get)),
        lambda app: app.routes.__iadd__([Route("/late", get)]),
        lambda app: app.routes[0].routes.append(Route("/late", get)),
    ],
)
def test_routers_are_sealed(change: Callable[[Any], None]) -> None:
    """Adding a route afterwards raises, at any depth."""
    app = Starlette(routes=[Mount("/sub", routes=[Route("/x", get)])])
    TenancyASGI(app, Stage().tenancy)
    with pytest.raises(ConfigurationError, match="sealed"):
        change(app)


@anyio
async def test_every_known_place_gets_its_guard() -> None:
    """Mounts, hosts, routers, sub-applications, defaults, partials, methods, markers kept by wraps, static files."""
    stage = Stage()

    class Handlers:
        @function("kv.method", effect="read")
        async def method(self, request: Request) -> Response:
            return PlainTextResponse("got")

    files = function("files.read", effect="read")(StaticFiles(directory="."))
    fallback = function("kv.fallback", effect="read")(functools.partial(bare))
    sub = Starlette(routes=[Route("/x", get)], middleware=[Middleware(GZipMiddleware)])
    app = Starlette(
        routes=[
            Route("/x", get),
            Route("/partial", functools.partial(get)),
            Route("/method", Handlers().method),
            Route("/kept", keeps(get)),
            Route("/around", get, middleware=[Middleware(GZipMiddleware)]),
            Mount("/mount", routes=[Route("/x", get)], middleware=[Middleware(GZipMiddleware)]),
            Mount("/router", Router([Route("/x", get)], default=fallback)),
            Mount("/sub", sub),
            Mount("/wrapped", GZipMiddleware(Starlette(routes=[Route("/x", get)]))),
            Mount("/files", files, middleware=[Middleware(GZipMiddleware)]),
            Host("api.example", Router([Route("/h", get)])),
        ]
    )
    paths = "/x /partial /method /kept /around /mount/x /router/x /router/other /sub/x /wrapped/x /files/pyproject.toml"
    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        for path in paths.split():
            assert (await client.request("GET", path)).status == 401, path
            answer = await client.request("GET", path, headers=stage.key.headers)
            assert answer.status == 200, path
            assert answer.header("ratelimit") is not None, path
        hosted = {**stage.key.headers, "Host": "api.example"}
        assert (await client.request("GET", "/h", headers=hosted)).status == 200
        assert (await client.request("GET", "/h", headers=stage.key.headers)).status == 404


@anyio
async def test_a_table_declares_handlers_that_cannot_carry_a_marker() -> None:
    """By method and template, with mounts' prefixes; other methods of an application are 405."""
    stage = Stage()
    read = FunctionSpec(name="doc.read", effect=Effect.READ)
    app = Starlette(
        routes=[Mount("/a", routes=[Route("/doc/{id}", plain, methods=["GET", "PUT"])]), Mount("/bare", bare)]
    )
    table = {
        "GET /a/doc/{id}": read,
        "PUT /a/doc/{id}": FunctionSpec(name="doc.write", effect=Effect.WRITE),
        "GET /bare": "doc.read",
    }
    async with AsgiClient(TenancyASGI(app, stage.tenancy, functions=table)) as client:
        got = {
            (method, path): (await client.request(method, path, headers=stage.reader.headers)).status
            for method in ("GET", "HEAD", "PUT")
            for path in ("/a/doc/1", "/bare/anything")
        }
    assert got == {
        ("GET", "/a/doc/1"): 200,
        ("HEAD", "/a/doc/1"): 200,
        ("PUT", "/a/doc/1"): 403,
        ("GET", "/bare/anything"): 200,
        ("HEAD", "/bare/anything"): 405,
        ("PUT", "/bare/anything"): 405,
    }


@anyio
async def test_verbs_are_an_explicit_choice() -> None:
    """by_method: GET reads, PUT writes, DELETE deletes; a marker still wins."""
    stage = Stage()

    @function("kv.admin", effect="admin")
    async def admin(request: Request) -> Response:
        return PlainTextResponse("admin")

    app = Starlette(
        routes=[
            Route("/x", plain, methods=["GET", "PUT", "DELETE"]),
            Route("/admin", admin, methods=["GET"]),
            Mount("/bare", bare),
        ]
    )
    writer = stage.acme.issue_key(permissions=["write"])
    async with AsgiClient(TenancyASGI(app, stage.tenancy, functions=by_method())) as client:
        statuses = [
            (await client.request(method, path, headers=key.headers)).status
            for key in (stage.reader, writer)
            for method, path in [("GET", "/x"), ("PUT", "/x"), ("DELETE", "/x"), ("GET", "/admin"), ("BREW", "/bare/x")]
        ]
    assert statuses == [200, 403, 403, 403, 405, 403, 200, 403, 403, 405]
    with pytest.raises(ConfigurationError, match="function name"):
        by_method("Not A Name")


@anyio
async def test_a_bare_application_is_declared_as_a_whole() -> None:
    """A marker on any ASGI callable is one function for everything it answers."""
    stage = Stage()
    app = TenancyASGI(function("bare.read", effect="read")(functools.partial(bare)), stage.tenancy)
    async with AsgiClient(app) as client:
        assert (await client.request("GET", "/anything")).status == 401
        assert (await client.request("BREW", "/anything", headers=stage.key.headers)).text == "bare"


@anyio
async def test_a_bare_application_is_declared_by_an_exact_table() -> None:
    """It sees no request but those of the table; the others are 404 and 405, with Allow."""
    stage = Stage()
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await bare(scope, receive, send)

    table = {"GET /doc": FunctionSpec(name="doc.read", effect=Effect.READ)}
    guarded = TenancyASGI(app, stage.tenancy, functions=table, public=("GET /livez",))
    async with AsgiClient(guarded) as client:
        assert (await client.request("GET", "/livez")).text == "bare"
        assert (await client.request("GET", "/doc", headers=stage.key.headers)).text == "bare"
        missing = await client.request("GET", "/doc/", headers=stage.key.headers)
        method = await client.request("PUT", "/doc", headers=stage.key.headers)
        async with client.websocket("/doc", headers=stage.key.headers) as socket:
            assert socket.refusal.status == 404
    assert problem(missing) == (404, "NOT_FOUND")
    assert (problem(method), method.header("allow")) == ((405, "METHOD_NOT_ALLOWED"), "GET")
    assert [path for path in reached if path] == ["/livez", "/doc"]


def test_a_bare_application_without_a_declaration_does_not_start() -> None:
    """The message says what can be done."""
    with pytest.raises(ConfigurationError, match="mark the application itself"):
        TenancyASGI(bare, Stage().tenancy)


def test_public_routes_are_told_at_start(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log sees what is open."""
    wrap(Route("/livez", plain), public=("GET /livez",))
    assert "open to everybody, without a key: GET /livez" in caplog.text
