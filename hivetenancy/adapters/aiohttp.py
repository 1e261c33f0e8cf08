"""aiohttp applications made multi-tenant.

Two layers, as for ASGI. The *outer middleware* checks the raw path, authenticates, and sends the answer: it calls
``prepare`` and ``write_eof`` itself, so that a slot is held to the last byte, and lets no answer out that no guard
admitted. A *guard* takes the place of each route's handler, behind the router's own match, so that no middleware in
between (a method override, a redirect to another handler) can reach a handler unguarded. aiohttp has no public way to
stand there; `_put` writes the two private attributes of a route, and checks that this had the effect.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final, cast

try:
    from aiohttp import hdrs, web
    from aiohttp.web_urldispatcher import MatchedSubAppResource, PrefixedSubAppResource
except ImportError as error:
    raise ImportError("this adapter needs its extra: pip install 'hivetenancy[aiohttp]'") from error

from hivetenancy.access_keys.format import find_credential
from hivetenancy.clock import SECOND_US
from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, UnavailableError
from hivetenancy.functions import FunctionSpec
from hivetenancy.tenant import Tenant, bound_to

from .aiohttp_exchange import (
    EXCHANGE,
    TENANT,
    Exchange,
    Handler,
    MeteredContent,
    UnadmittedError,
    Way,
    dress,
    is_response,
    metered_content,
    rendered,
)
from .catalogue import INTERNAL_ERROR
from .declare import ANY, WEBSOCKET, Declarations, Functions, Leaf, Rules, marker_of
from .exchange import Layer
from .host import Host
from .http import answer, bad_path, render_unavailable

__all__ = ["TENANT", "MeteredContent", "metered_content", "setup", "setup_standalone"]

_log: Final = logging.getLogger("hivetenancy")

_ADAPTER: Final = web.AppKey("hivetenancy.adapter", object)

_RESOURCES: Final = (web.PlainResource, web.DynamicResource, web.StaticResource)
"""The kinds of resource whose routes are known; one of another class may hand requests to anything."""

_SUBAPPS: Final = (PrefixedSubAppResource, MatchedSubAppResource)


def setup(app: web.Application, host: Host, *, public: Iterable[str] = (), functions: Functions = None) -> None:
    """Make *app*, with all that is mounted in it, multi-tenant; start and stop the tenancy with it.

    Call it once, on the outermost application, before it is started. Routes may be added after it: they are looked at
    when the application starts.

    Args:
        app: The application.
        host: The tenancy.
        public: Exact method and raw path of each route that needs no key, as ``"GET /livez"``.
        functions: Functions for handlers that carry no marker: a table ``{"GET /path": ...}`` by the path as the router
            writes it (``/kv/{key}``, prefixes included, a static resource by its prefix), or `by_method`.

    Raises:
        ConfigurationError: It is too late or was done before; an entry cannot be read. When the application starts: a
            route has no function, or an entry fits no route; the message names each.
    """
    if app.pre_frozen:
        raise ConfigurationError("set tenancy up before the application is started, or mounted in another one")
    if _ADAPTER in app:
        raise ConfigurationError("tenancy is set up for this application already")
    adapter = _Adapter(app, host, public, functions)
    app[_ADAPTER] = adapter
    app.middlewares.insert(0, adapter.outer)
    app.cleanup_ctx.insert(0, adapter.life)
    app.on_response_prepare.append(adapter.prepared)
    app.on_shutdown.append(adapter.shut_down)


def setup_standalone(app: web.Application, tenant: Tenant) -> None:
    """Let the handlers of *app* find *tenant*, the one owner of everything; nothing else changes.

    Raises:
        ConfigurationError: It is too late.
    """
    if app.pre_frozen:
        raise ConfigurationError("set tenancy up before the application is started, or mounted in another one")
    owner = bound_to(tenant)

    @web.middleware
    async def bind(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[TENANT] = tenant
        before = bound.get()
        bound.set(owner)
        try:
            return await handler(request)
        finally:
            bound.set(before)

    app.middlewares.insert(0, bind)


class _Adapter:
    """What `setup` adds to an application."""

    def __init__(self, app: web.Application, host: Host, public: Iterable[str], functions: Functions) -> None:
        self._app = app
        self._host = host
        self._layer = Layer(host.gate, host.options, host.connections)
        self._declarations = Declarations(host.gate.functions, public=public, functions=functions)
        self._public = self._declarations.public
        self._guarded: set[web.AbstractRoute] = set()
        self._lasting: set[Exchange] = set()

        @web.middleware
        async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._serve(request, handler)

        self.outer = outer

    # --- life ----------------------------------------------------------------------------------------------------

    async def life(self, app: web.Application) -> AsyncIterator[None]:
        """Guard the routes, run the tenancy: the first thing of the application's start, and the last of its end."""
        if app.middlewares[0] is not self.outer:
            raise ConfigurationError(
                "a middleware was put in front of the tenancy, where it could answer without a key: append it instead"
            )
        self._guard_routes()
        app.pre_freeze()  # aiohttp does so only after the other start-up code, which could still add routes
        await self._host.start()
        try:
            yield
        finally:
            await self._host.stop()

    async def shut_down(self, app: web.Application) -> None:
        """End what would keep the server waiting: WebSockets and streams."""
        for exchange in list(self._lasting):
            exchange.end(Reason.SERVER_STOPS)

    # --- routes --------------------------------------------------------------------------------------------------

    def _guard_routes(self) -> None:
        problems: list[str] = []
        self._declarations.apply(list(self._leaves(self._app, problems)), problems)
        for method, path in sorted(self._public):
            _log.warning("open to everybody, without a key: %s %s", method, path)

    def _leaves(self, app: web.Application, problems: list[str]) -> Iterator[Leaf]:
        if type(app.router) is not web.UrlDispatcher:
            problems.append(f"{type(app.router).__name__} is a router that is not known here")
        for resource in app.router.resources():
            if type(resource) in _SUBAPPS:
                inner = resource.get_info()["app"]
                if _ADAPTER in inner:
                    problems.append(f"{resource!r} has a tenancy of its own; set up the outermost application alone")
                yield from self._leaves(inner, problems)
            elif type(resource) in _RESOURCES:
                yield from self._resource(resource)
            else:
                problems.append(
                    f"{resource!r} is a {type(resource).__name__}, a kind of resource that is not known here"
                )

    def _resource(self, resource: web.AbstractResource) -> Iterator[Leaf]:
        """One leaf for each handler, so that the HEAD which aiohttp adds to a GET goes with it."""
        by_handler: dict[Any, list[web.AbstractRoute]] = {}
        for route in resource:
            by_handler.setdefault(route.handler, []).append(route)
        for handler, routes in by_handler.items():
            methods = frozenset(route.method for route in routes)
            own, listed = _own(handler, resource, methods)
            sockets = (WEBSOCKET, resource.canonical) in self._declarations.table
            if sockets:
                listed = frozenset({WEBSOCKET})
            yield Leaf(path=resource.canonical, methods=listed, own=own, wrap=self._wrapper(handler, routes, sockets))

    def _wrapper(self, handler: Any, routes: list[web.AbstractRoute], sockets: bool) -> Callable[[Rules], None]:
        def wrap(rules: Rules) -> None:
            for route in routes:
                _put(route, _guard(handler, Way(self._layer, rules, sockets, _expectation(route))))
                self._guarded.add(route)

        return wrap

    # --- requests ------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        exchange = Exchange(self._layer, request, self._lasting)
        request[EXCHANGE] = exchange
        try:
            response = await self._answer(exchange, request, handler)
            await exchange.deliver(response)
        finally:
            exchange.leave()
        response = exchange.sent or response
        if isinstance(response, web.HTTPException):
            raise response  # sent already; aiohttp wants exceptions raised, not returned
        return response

    async def _answer(self, exchange: Exchange, request: web.Request, handler: Handler) -> web.StreamResponse:
        turned_away = await self._arrive(exchange, request)
        if turned_away is not None:
            return turned_away
        info = request.match_info
        response: web.StreamResponse
        try:
            if info.http_exception is None and info.route not in self._guarded:
                return await exchange.instead(200, ())  # it was added after the start, and has no guard
            response = await handler(request)
        except web.HTTPException as error:
            response = error
        except UnadmittedError as error:
            response = error.response
        except Exception:
            if exchange.passed or exchange.said is not None:
                if exchange.said is None:
                    raise
            else:
                _log.exception("a middleware failed before any handler was reached")
            return exchange.said or await exchange.instead(500, ())
        if exchange.said is not None:
            return exchange.said
        if exchange.passed:
            return response
        if not is_response(response):
            return await exchange.instead(500, ())
        return await exchange.unless_cors(response)

    async def _arrive(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        """Find out who is asking; return the answer if it ends here."""
        layer, now, method = self._layer, exchange.now, request.method
        gate = layer.gate
        if not self._host.running:
            return exchange.say(render_unavailable(UnavailableError("not running", retry_after_us=SECOND_US)))
        path, _, query = request.raw_path.partition("#")[0].partition("?")
        if bad_path(path.encode("utf-8", "surrogateescape")):
            return exchange.refuse(gate.refuse(Reason.INVALID_PATH, caller=None, function=None, now=now))
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        credential = find_credential(headers, query.encode("utf-8", "surrogateescape"))
        if credential is Reason.NO_CREDENTIAL:
            if (method, path) in self._public:
                return None
            if method == "OPTIONS" and _is_preflight(request):
                exchange.cors = True
                return None
        try:
            answered = await gate.authenticate(credential, now=now)
        except UnavailableError as error:
            return exchange.say(render_unavailable(error))
        if isinstance(answered, Refusal):
            return exchange.refuse(answered)
        exchange.caller = answered
        return None

    async def prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        """Meet a response before its first byte; the signal ``on_response_prepare``."""
        exchange = request.get(EXCHANGE)
        if isinstance(exchange, Exchange):
            await exchange.begin(request, response)
        else:  # an ``Expect`` that aiohttp refused before any middleware
            dress(response)


def _guard(handler: Any, way: Way) -> Handler:
    """Return what stands in the place of *handler*."""

    async def guard(request: web.Request) -> web.StreamResponse:
        exchange = request.get(EXCHANGE)
        if not isinstance(exchange, Exchange) or exchange.layer is not way.layer:
            _log.error("a guarded route was reached without the tenancy in front, and refused")
            return rendered(answer(INTERNAL_ERROR))
        rule = way.rule(request.method)
        if rule is None:
            return await exchange.not_allowed(way.allow)
        return await exchange.run(request, handler, rule, way)

    if not isinstance(handler, type):
        functools.update_wrapper(guard, handler)
    return guard


# --- small parts -----------------------------------------------------------------------------------------------------


def _own(
    handler: Any, resource: web.AbstractResource, methods: frozenset[str]
) -> tuple[dict[str, FunctionSpec | str], frozenset[str] | None]:
    """Return what *handler* says about itself, and the methods that need a function (``None``: any)."""
    listed = None if hdrs.METH_ANY in methods else methods
    if isinstance(handler, type) and issubclass(handler, web.View):
        taken = frozenset(method for method in hdrs.METH_ALL if hasattr(handler, method.lower()))
        listed = taken if listed is None else listed & taken or listed
        marks = {method: marker_of(getattr(handler, method.lower(), None)) for method in listed}
        own: dict[str, FunctionSpec | str] = {method: mark for method, mark in marks.items() if mark is not None}
    else:
        own = {}
    whole = marker_of(resource if isinstance(resource, web.StaticResource) else handler)
    if whole is not None:
        own[ANY] = whole
    return own, listed


def _put(route: web.AbstractRoute, guard: Handler) -> None:
    """Let *route* hand its requests to *guard*, and greet no body before that has admitted the request."""
    cast("Any", route)._handler = guard
    cast("Any", route)._expect_handler = _wait_and_see
    if route.handler is not guard:
        raise ConfigurationError("this version of aiohttp does not let a route be guarded; please report it")


def _expectation(route: web.AbstractRoute) -> Handler:
    """Return what *route* does about ``Expect: 100-continue``."""
    return cast("Handler", cast("Any", route)._expect_handler)


async def _wait_and_see(request: web.Request) -> None:
    """Say nothing to ``Expect: 100-continue`` yet; the guard does, once the request is admitted."""


def _is_preflight(request: web.Request) -> bool:
    return hdrs.ORIGIN in request.headers and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
