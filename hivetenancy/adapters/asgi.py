"""Any ASGI application made multi-tenant: the outer layer, and the way in.

Two layers and no second router. The *outer layer* checks the raw path, finds the credential and authenticates it, and
lets no answer out that no guard admitted. A *guard* stands in front of each leaf of the application's own router,
behind the router's match, so that it cannot disagree with it, and decides everything else (`guards`). The outer layer
also is where the life cycle happens: the lifespan starts the tenancy before the application and stops it after; where
a server sends no lifespan, the first request starts it.

Nothing here imports a framework. Where Starlette or FastAPI is loaded, its routers are walked (`routes`, `fastapi`).
"""

from __future__ import annotations

import importlib
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, Final

from hivetenancy.access_keys.format import find_credential
from hivetenancy.clock import SECOND_US
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, TenancyError, UnavailableError

from .catalogue import INTERNAL_ERROR
from .declare import ANY, WEBSOCKET, Declarations, Functions, Leaf, marker_of
from .exchange import KEY, ASGIApp, Exchange, Layer, Message, Receive, Scope, Send, dressed, send_answer
from .guards import Guard
from .host import Host
from .http import Answer, answer, bad_path, render_unavailable
from .sessions import Session

_PAUSE_US: Final = SECOND_US
"""After a failed start no request tries again for so long, so that a dead hub is not called once a request."""

_WALKERS: Final = (("fastapi", "fastapi"), ("starlette", "routes"), ("litestar", "litestar"), ("quart", "quart"))
"""Frameworks by the module that is loaded where one is used, and the file here that knows it."""

_log: Final = logging.getLogger("hivetenancy")


class TenancyASGI:
    """An application with its tenancy around it: an ASGI application itself.

    Args:
        app: The application.
        host: The tenancy.
        public: Exact method and raw path of each route that needs no key, as ``"GET /livez"``.
        functions: Functions for handlers that carry no marker.
        inside: Whether this is a middleware of the application, whose router is then found when it starts; and whose
            framework, further out, renders what nobody caught.

    Raises:
        ConfigurationError: A route has no function, or an entry fits no route; the message names each.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: Host,
        *,
        public: Iterable[str] = (),
        functions: Functions = None,
        inside: bool = False,
    ) -> None:
        self._host = host
        self._layer = Layer(host.gate, host.options, host.connections)
        self._declarations = Declarations(host.gate.functions, public=public, functions=functions)
        self._public = frozenset((method, path.encode("utf-8")) for method, path in self._declarations.public)
        self._inside = inside
        self._app = app
        self._ready = False
        self._stopped = False
        self._try_again: int | None = None
        if not inside:
            self._app = self._prepare(app)
            self._ready = True

    def __repr__(self) -> str:
        return f"TenancyASGI({self._app!r})"

    @property
    def layer(self) -> Layer:
        """What its guards share; by it they know each other."""
        return self._layer

    @property
    def inner(self) -> ASGIApp:
        """The application that is wrapped."""
        return self._app

    def __getattr__(self, name: str) -> Any:
        """Whatever this layer does not have itself is the application's: ``state``, ``url_path_for`` and the like."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise ConfigurationError(f"a connection of type {kind!r} has no tenancy; known are http and websocket")
        known = scope.get(KEY)
        if known is not None and known.layer.gate is self._layer.gate:
            if not self._ready:
                self._settle_routes(scope)
            await self._app(scope, receive, send)  # inside of another layer of the same tenancy: decided there
            return
        if not (self._host.running and self._ready):
            unready = await self._start_late(scope)
            if unready is not None:
                await _turn_away(scope, send, unready)
                return
        if kind == "http":
            await self._http(scope, receive, send)
        else:
            await self._websocket(scope, receive, send)

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        layer = self._layer
        gate = layer.gate
        now = gate.now()
        method = scope["method"]
        raw = scope.get("raw_path")
        if _bad(raw, scope):
            await self._refuse(gate.refuse(Reason.INVALID_PATH, caller=None, function=None, now=now), method, send)
            return
        credential = find_credential(scope["headers"], scope.get("query_string", b""))
        cors = False
        if credential is Reason.NO_CREDENTIAL and (
            self._is_public(method, raw, scope) or (cors := method == "OPTIONS" and _is_preflight(scope))
        ):
            caller = None
        else:
            try:
                answered = await gate.authenticate(credential, now=now)
            except UnavailableError as error:
                await send_answer(send, render_unavailable(error), method)
                return
            if isinstance(answered, Refusal):
                await self._refuse(answered, method, send)
                return
            caller = answered
            if layer.blocked and caller in layer.blocked and not self._is_public(method, raw, scope):
                said = await self._still_blocked(caller, now)
                if said is not None:
                    await send_answer(send, said, method)
                    return
        exchange = Exchange(layer, caller, method, send, now)
        exchange.cors = cors
        scope[KEY] = exchange
        try:
            await self._app(scope, receive, exchange.send)
            if exchange.broken:
                await exchange.finish()
        except Exception:
            if not (self._inside or exchange.out):
                await exchange.say(answer(INTERNAL_ERROR))
            raise
        finally:
            scope.pop(KEY, None)  # the scope and the exchange would hold each other

    async def _still_blocked(self, caller: Any, now: tuple[int, int]) -> Answer | None:
        """Ask the limiter about a caller that it refused a moment ago, before the router has any work with it."""
        layer = self._layer
        if now[0] >= layer.blocked[caller]:
            del layer.blocked[caller]
            return None
        try:
            taken = await layer.gate.admit_attempt(caller, now=now)
        except UnavailableError as error:
            return render_unavailable(error)
        if isinstance(taken, Refusal):
            return layer.refusal(taken, caller, now)
        layer.blocked.pop(caller, None)  # the plan changed, or units came back
        taken.close(refund=True)
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self._layer.gate
        now = gate.now()
        session = Session(self._layer, None, scope, send, now)
        raw = scope.get("raw_path")
        if _bad(raw, scope):
            await session.refuse(gate.refuse(Reason.INVALID_PATH, caller=None, function=None, now=now))
            return
        credential = find_credential(scope["headers"], scope.get("query_string", b""))
        if credential is not Reason.NO_CREDENTIAL or not self._is_public("GET", raw, scope):
            try:
                answered = await gate.authenticate(credential, now=now)
            except UnavailableError as error:
                session.passed = True
                await session.deny(render_unavailable(error))
                return
            if isinstance(answered, Refusal):
                await session.refuse(answered)
                return
            session.caller = answered
        scope[KEY] = session
        try:
            await self._app(scope, receive, session.send)
        finally:
            scope.pop(KEY, None)

    async def _refuse(self, refusal: Refusal, method: str, send: Send) -> None:
        await send_answer(send, self._layer.refusal(refusal, None, (0, 0)), method)

    def _is_public(self, method: str, raw: bytes | None, scope: Scope) -> bool:
        if not self._public:
            return False
        path = raw if raw is not None else scope["path"].encode("utf-8", "surrogateescape")
        return (method, path) in self._public

    # --- the life cycle ----------------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        life = _Lifespan(self._host, receive, send)
        first = await receive()
        try:
            if not self._ready:
                self._settle_routes(scope)
            await self._host.start()
        except (TenancyError, OSError) as error:
            _log.error("the tenancy did not start: %s", error)
            await send({"type": "lifespan.startup.failed", "message": f"hivetenancy: {error}"})
            return
        self._stopped = False
        try:
            await life.run(self._app, scope, first)
        finally:
            self._stopped = True
            await self._host.stop()

    async def _start_late(self, scope: Scope) -> Answer | None:
        """Start on the first request, where no lifespan came; return the 503 while that fails."""
        waiting = UnavailableError("not started", retry_after_us=SECOND_US)
        now = self._layer.gate.now()[0]
        if self._stopped or (self._try_again is not None and now < self._try_again):
            return render_unavailable(waiting)
        try:
            if not self._ready:
                self._settle_routes(scope)
            await self._host.start()
        except TenancyError as error:
            self._try_again = now + _PAUSE_US
            _log.error("the tenancy did not start, requests are answered with 503: %s", error)
            return render_unavailable(error if isinstance(error, UnavailableError) else waiting)
        return None

    # --- the routes --------------------------------------------------------------------------------------------------

    def _settle_routes(self, scope: Scope) -> None:
        """Guard the routes of the application that this layer is a middleware of."""
        app = scope.get("app") or scope.get("litestar_app")
        if app is None:
            raise ConfigurationError(
                "tenancy.middleware did not find its application in the scope; wrap it: app = tenancy.asgi(app)"
            )
        self._prepare(app)
        self._ready = True

    def _prepare(self, app: Any) -> ASGIApp:
        guarded = self._guard_routes(app)
        for method, path in sorted(self._declarations.public):
            _log.warning("open to everybody, without a key: %s %s", method, path)
        return guarded

    def _guard_routes(self, app: Any) -> ASGIApp:
        layer = self._layer
        for framework, module in _WALKERS:
            if framework in sys.modules:
                walker = importlib.import_module(f".{module}", __package__)
                if walker.guard(app, self._declarations, layer):
                    return app  # type: ignore[no-any-return]
        return _Plain(app, self._declarations, layer)


class _Plain:
    """An application whose router nobody knows: one function for all of it, or an exact table in front.

    With a table the application sees no request but those whose method and path stand in it.
    """

    def __init__(self, app: ASGIApp, declarations: Declarations, layer: Layer) -> None:
        own = marker_of(app)
        self._guards: dict[tuple[str, str], Guard] = {}
        self._whole: Guard | None = None
        self._app = app
        leaves = [
            Leaf(path=path, methods=frozenset({method}), wrap=self._one(app, path, layer))
            for method, path in sorted({*declarations.table, *declarations.public})
        ]
        if own is not None or not leaves:
            why = (
                f"{app!r} is no framework that is known here: mark the application itself, or name each of its "
                f"routes in functions={{'GET /exact/path': ...}}"
            )
            leaves = [Leaf(path="/", methods=None, own={ANY: own} if own else {}, why=why, wrap=self._all(app, layer))]
        declarations.apply(leaves)

    def _one(self, app: ASGIApp, path: str, layer: Layer) -> Callable[[Any], None]:
        def wrap(rules: Any) -> None:
            for method, rule in rules.items():
                self._guards[method, path] = Guard(app, {method: rule}, layer)

        return wrap

    def _all(self, app: ASGIApp, layer: Layer) -> Callable[[Any], None]:
        def wrap(rules: Any) -> None:
            self._whole = Guard(app, rules, layer)

        return wrap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard: ASGIApp | None
        if scope["type"] == "lifespan":
            guard = self._app
        elif self._whole is not None:
            guard = self._whole
        else:
            method = scope["method"] if scope["type"] == "http" else WEBSOCKET
            path = scope["path"]
            guard = self._guards.get((method, path)) or self._guards.get((ANY, path))
            if guard is None:
                await self._unmatched(scope, send, sorted(m for m, p in self._guards if p == path and m != WEBSOCKET))
                return
        await guard(scope, receive, send)

    async def _unmatched(self, scope: Scope, send: Send, allowed: list[str]) -> None:
        """Say what a router says; the outer layer renders it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        headers = [(b"allow", ", ".join(allowed).encode())] if allowed else []
        await send({"type": "http.response.start", "status": 405 if allowed else 404, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class _Lifespan:
    """The application's own lifespan between our start and our stop."""

    def __init__(self, host: Host, receive: Receive, send: Send) -> None:
        self._host = host
        self._receive = receive
        self._send = send
        self._said = False
        self._first: Message | None = None

    async def run(self, app: ASGIApp, scope: Scope, first: Message) -> None:
        """Run it; where the application has none, wait for the server alone."""
        self._first = first
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            if self._said:
                raise
            _log.debug("the application takes no lifespan", exc_info=True)
        if not self._said:
            await self._send({"type": "lifespan.startup.complete"})
            await self._receive()
            await self.send({"type": "lifespan.shutdown.complete"})

    async def receive(self) -> Message:
        """Hand the start-up message on first."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Hand on what the application says, stopping the tenancy before its last word."""
        if not message["type"].startswith("lifespan."):
            raise ValueError(
                f"{message['type']} is no message of the lifespan"
            )  # it takes no notice of the scope's type
        self._said = True
        if message["type"] != "lifespan.startup.complete":
            await self._host.stop()
        await self._send(message)


def middleware(host: Host) -> Callable[..., TenancyASGI]:
    """Return what ``app.add_middleware`` takes: the outer layer as a middleware of the application that it guards.

    The routes are guarded when the application starts. Middleware that is added later stands further out, and answers
    of its own have no tenancy.

    Args:
        host: The tenancy.
    """

    def hivetenancy(app: ASGIApp, *, public: Iterable[str] = (), functions: Functions = None) -> TenancyASGI:
        return TenancyASGI(app, host, public=public, functions=functions, inside=True)

    return hivetenancy


async def _turn_away(scope: Scope, send: Send, said: Answer) -> None:
    """Answer before there is an exchange."""
    if scope["type"] == "http":
        await send_answer(send, said, scope["method"])
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        headers = dressed(said.headers)
        await send({"type": "websocket.http.response.start", "status": said.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": said.body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


def _bad(raw: bytes | None, scope: Scope) -> bool:
    """Whether the path cannot be one; a server that keeps no raw path has put U+FFFD where it could not decode."""
    if raw is not None:
        return bad_path(raw)
    return any(unicodedata.category(char) in ("Cc", "Cs") or char == "\ufffd" for char in scope["path"])


def _is_preflight(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
