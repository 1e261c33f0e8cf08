"""Random requests through random trees of routes: none reaches a handler that its own guard did not admit.

Each handler asks what is bound when it runs: an open admission for exactly the function that was declared on it, for
the method that it sees, by a key that permits it. A guard that is left off, and a resolver that looks the function up
in front of the router (which a method override, or a rewritten path, makes disagree with it), are both found.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.adapters.guards import Guard
from hivetenancy.context import bound
from hivetenancy.decision import Refusal
from hivetenancy.functions import MARKER, FunctionSpec
from hivetenancy.gate import Admission
from hivetenancy.ids import Effect, Surface
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.asgi.driver import Wire, http_scope
from tests.adapters.host import Stage
from tests.tiers import examples

pytestmark = [pytest.mark.anyio, pytest.mark.deep]

METHODS = ["GET", "PUT", "POST", "DELETE"]
EFFECTS = {"GET": Effect.READ, "HEAD": Effect.READ, "PUT": Effect.WRITE, "POST": Effect.ADMIN, "DELETE": Effect.DELETE}
WORDS = ["a", "b", "kv", "x y", "é"]
SECRET = b"reached a handler"


class Fault(AssertionError):
    """A handler was reached by a request that its guard did not admit."""


class Forest:
    """Random applications, and what their handlers insist on."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.paths: list[str] = []
        self.public: list[str] = []
        self.reached = 0
        self._count = 0

    def app(self) -> Starlette:
        """A whole application, with a middleware that overrides methods and rewrites paths."""
        routes = self.routes("", 3)

        async def livez(request: Request) -> Response:
            self.check(None)
            return PlainTextResponse(SECRET)

        self.public.append("GET /livez")
        self.paths.append("/livez")
        return Starlette(routes=[*routes, Route("/livez", livez)], middleware=[Middleware(Meddles)])

    def routes(self, prefix: str, depth: int) -> list[BaseRoute]:
        """Some routes below *prefix*."""
        made: list[BaseRoute] = []
        for _ in range(self.draw.randint(1, 4)):
            word = "/" + self.draw.choice(WORDS)
            kind = self.draw.choice(
                ["route", "route", "class", "leaf"] + ["mount", "router", "sub", "host"] * (depth > 0)
            )
            if kind in ("route", "class", "leaf"):
                made.append(self.leaf(kind, prefix, word))
            elif kind == "mount":
                made.append(Mount(word, routes=self.routes(prefix + word, depth - 1)))
            elif kind == "router":
                made.append(Mount(word, Router(self.routes(prefix + word, depth - 1), redirect_slashes=False)))
            elif kind == "sub":
                made.append(Mount(word, Starlette(routes=self.routes(prefix + word, depth - 1))))
            else:
                made.append(Host("testserver", Router(self.routes(prefix, depth - 1))))
        return made

    def leaf(self, kind: str, prefix: str, word: str) -> BaseRoute:
        """One handler, with what it declares."""
        path = word + self.draw.choice(["", "/", "/{name}", "/{name:path}"])
        self.paths.append(prefix + path.replace("{name}", "n").replace("{name:path}", "n/m"))
        if kind == "leaf":
            spec = self.spec(Effect.READ)

            async def mounted(scope: Any, receive: Any, send: Any) -> None:
                self.check(spec)
                await PlainTextResponse(SECRET)(scope, receive, send)

            setattr(mounted, MARKER, spec)
            return Mount(word, mounted)
        if kind == "class":
            verbs = self.draw.sample(METHODS, 2)
            body = {verb.lower(): method(self.handler(self.spec(EFFECTS[verb]))) for verb in verbs}
            return Route(path, type("Endpoint", (HTTPEndpoint,), body))
        verb = self.draw.choice(METHODS)
        return Route(path, self.handler(self.spec(EFFECTS[verb])), methods=[verb])

    def spec(self, effect: Effect) -> FunctionSpec:
        """A function of its own for each handler."""
        self._count += 1
        return FunctionSpec(name=f"f.n{self._count}", effect=effect)

    def handler(self, spec: FunctionSpec) -> Callable[[Request], Any]:
        """A handler that insists on *spec*."""

        async def handle(request: Request) -> Response:
            self.check(spec)
            return PlainTextResponse(SECRET)

        setattr(handle, MARKER, spec)
        return handle

    def check(self, spec: FunctionSpec | None) -> None:
        """Insist that what is bound was admitted for this very handler."""
        self.reached += 1
        here = bound.get()
        if not isinstance(here, Admission) or not here.open:
            raise Fault("nothing was admitted")
        if spec is None:
            if here.function is not None or here.caller is not None:
                raise Fault("a public handler has a tenant")
            return
        if here.function is None or here.function.name != spec.name:
            raise Fault(f"{spec.name} runs on an admission for {here.function}")
        permissions = set() if here.caller is None else here.caller.principal.permissions
        if not {spec.effect.value, "admin"} & set(permissions):
            raise Fault(f"{spec.name} runs for a key that does not permit it")


def method(handler: Callable[[Request], Any]) -> Callable[[Any, Request], Any]:
    """*handler* as a method of a class."""

    async def call(_: Any, request: Request) -> Any:
        return await handler(request)

    setattr(call, MARKER, getattr(handler, MARKER))
    return call


class Meddles:
    """A middleware within that makes another request of some."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"x-http-method-override":
                    scope = {**scope, "method": value.decode()}
                elif name == b"x-rewrite":
                    scope["path"] = value.decode()
        await self.app(scope, receive, send)


class ResolverInFront:
    """What was tried and is wrong: the function is looked up by the router's own matching, in front of it."""

    def __init__(self, app: Starlette, stage: Stage) -> None:
        self.app, self.gate = app, stage.tenancy.gate
        self.register(app.routes)

    def register(self, routes: list[BaseRoute]) -> None:
        """Register every function of *routes*."""
        for route in routes:
            self.register(list(getattr(route, "routes", None) or []))
            handler: Any = getattr(route, "endpoint", None) or getattr(route, "app", None)
            for one in [handler, *(getattr(handler, verb.lower(), None) for verb in METHODS)]:
                if hasattr(one, MARKER):
                    self.gate.functions.register(getattr(one, MARKER))

    def find(self, routes: list[BaseRoute], scope: Any) -> Any:
        """The spec of the leaf that matches."""
        for route in routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                inner = getattr(route, "routes", None)
                if inner:
                    return self.find(list(inner), {**scope, **child})
                handler: Any = getattr(route, "endpoint", None) or route.app  # type: ignore[attr-defined]
                verb = "get" if scope["method"] == "HEAD" else scope["method"].lower()
                return getattr(getattr(handler, verb, handler), MARKER, None)
        return None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        spec = self.find(self.app.routes, scope)
        bearer = next((value[7:] for name, value in scope["headers"] if name == b"authorization"), None)
        if spec is None or bearer is None:
            return
        now = self.gate.now()
        caller = await self.gate.authenticate(bearer, now=now)
        if isinstance(caller, Refusal):
            return
        function = self.gate.functions.get(spec.name)
        assert function is not None
        admission = await self.gate.admit(caller, function, surface=Surface.HTTP, now=now)
        if isinstance(admission, Refusal):
            return
        bound.set(admission)
        try:
            await self.app(scope, receive, send)
        finally:
            bound.set(None)
            admission.close()


def requests(draw: random.Random, forest: Forest, stage: Stage, count: int) -> list[tuple[dict[str, Any], Wire]]:
    """Random requests: paths of the forest and damaged ones, any method, overrides, encodings, roots, keys."""
    made = []
    keys = [stage.key, stage.key, stage.reader, stage.rivals, stage.acme.issue_key(permissions=["admin"])]
    for _ in range(count):
        path = draw.choice(forest.paths) if draw.random() < 0.9 else "/" + draw.choice(WORDS)
        raw = path.encode().replace(b" ", b"%20")
        damage = draw.choice(["", "", "", "", "slash", "double", "escape", "dots", "case", "encode", "null"])
        if damage == "slash":
            raw = raw.rstrip(b"/") if raw.endswith(b"/") else raw + b"/"
        elif damage == "double":
            raw = raw.replace(b"/", b"//", 1)
        elif damage == "escape":
            raw = raw[:1] + raw[1:].replace(b"/", b"%2f", 1)
        elif damage == "dots":
            raw += b"/../" + draw.choice(forest.paths).encode().lstrip(b"/")
        elif damage == "case":
            raw = raw.upper()
        elif damage == "encode":
            raw = b"/" + b"".join(b"%%%02x" % byte for byte in raw[1:])
        elif damage == "null":
            raw += draw.choice([b"%00", b"%0a", b"%ff", b"\xff"])
        headers: list[tuple[bytes, bytes]] = []
        if draw.random() < 0.85:
            headers.append((b"authorization", b"Bearer " + draw.choice(keys).secret.encode()))
        if draw.random() < 0.05:
            headers.append((b"x-api-key", b"k" * 20))
        if draw.random() < 0.2:
            headers.append((b"x-http-method-override", draw.choice(METHODS).encode()))
        if draw.random() < 0.1:
            headers.append((b"x-rewrite", draw.choice(forest.paths).encode()))
        method = draw.choice([*METHODS, *METHODS, "HEAD", "OPTIONS", "BREW"])
        root = draw.choice(["", "", "", "/root"])
        made.append((http_scope(method, raw, headers, root), Wire()))
    return made


async def walk(rounds: int, each: int, seed: int, spoil: Callable[[Starlette, TenancyASGI], Any] | None = None) -> int:
    """Send *each* requests to each of *rounds* applications; return how many reached a handler.

    Raises:
        Fault: One reached a handler that its guard did not admit.
    """
    draw = random.Random(seed)
    reached = 0
    for number in range(rounds):
        stage, forest = Stage(), Forest(draw)
        inner = forest.app()
        app: Any = TenancyASGI(inner, stage.tenancy, public=tuple(forest.public))
        if spoil is not None:
            app = spoil(inner, app)
        async with AsgiClient(TenancyASGI(Starlette(), stage.tenancy)):
            for scope, wire in requests(draw, forest, stage, each):
                before = forest.reached
                sent = f"seed {seed}, application {number}: {scope['method']} {scope['raw_path']!r} {scope['headers']}"
                await app(scope, wire.receive, wire.send)
                assert wire.complete, sent
                assert wire.status < 500, sent
                assert (SECRET in wire.sent) <= (forest.reached == before + 1), sent
                assert bound.get() is None, sent
            assert await stage.held() == {}
        reached += forest.reached
    return reached


async def test_no_request_reaches_a_handler_unguarded() -> None:
    """500 of them in the fast tier, 20,000 in the deep one; a good part of them does reach a handler."""
    rounds = examples(10, 400)
    assert await walk(rounds, 50, seed=random.randrange(2**32)) > rounds * 3


async def test_a_guard_that_is_left_off_is_found() -> None:
    """The same walk, with the guard of one route taken off after the wrapping."""

    def leave_off(inner: Starlette, app: TenancyASGI) -> Any:
        route = next(route for route in inner.routes if isinstance(getattr(route, "app", None), Guard))
        route.app = route.app.inside  # type: ignore[attr-defined]
        return app

    with pytest.raises(Fault, match="nothing was admitted"):
        for seed in range(50):
            await walk(2, 50, seed, leave_off)


async def test_a_resolver_in_front_of_the_router_is_found() -> None:
    """It disagrees with the router as soon as something in between makes another request."""
    with pytest.raises(Fault, match=r"runs on an admission for|does not permit"):
        for seed in range(50):
            draw = random.Random(seed)
            stage, forest = Stage(), Forest(draw)
            app = ResolverInFront(forest.app(), stage)
            async with AsgiClient(TenancyASGI(Starlette(), stage.tenancy)):
                for scope, wire in requests(draw, forest, stage, 100):
                    scope["path"] = scope["path"].encode("utf-8", "replace").decode()
                    await app(scope, wire.receive, wire.send)
