"""Quart: its view functions get their guards, once, at start; its answers pass through the exchange all along.

Quart matches a request, runs the host's ``before_request`` functions and calls a view function by the endpoint's
name. The guard stands in that view function's place, behind the match. What the view returns is sent further out, so
the exchange encloses the whole application, and is admitted when the view is reached; an answer before that (a
router's 404, a ``before_request`` function that answers) was admitted by nobody and is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

try:
    from quart import Quart, Response, has_request_context, request, websocket
except ImportError as error:
    raise ImportError("this adapter needs Quart: pip install quart") from error

from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, UnavailableError
from hivetenancy.functions import Function, FunctionSpec
from hivetenancy.ids import Surface

from .declare import ANY, WEBSOCKET, Declarations, Leaf, Public, Rule, Rules, marker_of
from .exchange import DENIALS, KEY, ASGIApp, Exchange, Layer, Receive, Scope, Send
from .guards import TAKEN
from .http import render_unavailable
from .sessions import Session


def guard(app: object, declarations: Declarations, layer: Layer) -> bool:
    """Guard the routes of *app*, if it is Quart's; ``False``: it is not.

    Raises:
        ConfigurationError: A route has no function; the message names each.
    """
    if not isinstance(app, Quart):
        return False
    if isinstance(app.asgi_app, _Enclosed):
        if app.asgi_app.layer.gate is not layer.gate:
            raise ConfigurationError(TAKEN)
        return True
    views = _Views(app, layer)
    declarations.apply(views.leaves())
    views.install()
    app.add_url_rule = _sealed  # type: ignore[method-assign]
    app.asgi_app = _Enclosed(app.asgi_app, layer)  # type: ignore[method-assign, assignment]
    return True


def _sealed(*_args: object, **_kwargs: object) -> NoReturn:
    raise ConfigurationError("the routes are guarded and sealed; add all of them before tenancy.asgi(app)")


class _Views:
    """The view functions of one application."""

    def __init__(self, app: Quart, layer: Layer) -> None:
        self._app = app
        self._layer = layer
        self._rules: dict[str, Rules] = {}

    def leaves(self) -> list[Leaf]:
        found = []
        for rule in self._app.url_map.iter_rules():
            view = self._app.view_functions.get(rule.endpoint)
            methods = {WEBSOCKET} if rule.websocket else set(rule.methods or ())
            found.append(
                Leaf(
                    path=rule.rule,
                    methods=frozenset(methods),
                    own=_declared(view, methods),
                    why=f"endpoint {rule.endpoint!r}",
                    wrap=self._collecting(rule.endpoint),
                )
            )
        return found

    def _collecting(self, endpoint: str) -> Callable[[Rules], None]:
        def collect(rules: Rules) -> None:
            known = self._rules.setdefault(endpoint, {})
            for method, rule in rules.items():
                if known.setdefault(method, rule) is not rule:
                    raise ConfigurationError(
                        f"endpoint {endpoint!r} has two functions for {method}, one by each rule; use two endpoints"
                    )

        return collect

    def install(self) -> None:
        app = self._app
        for endpoint, view in list(app.view_functions.items()):
            app.view_functions[endpoint] = self._guarded(self._rules.get(endpoint, {}), view)
        options = app.make_default_options_response

        async def guarded_options() -> Any:
            rules = self._rules.get(request.endpoint or "", {})
            return await self._run(rules, lambda: options())

        app.make_default_options_response = guarded_options  # type: ignore[method-assign]

    def _guarded(self, rules: Rules, view: Any) -> Callable[..., Any]:
        async def guarded(**values: Any) -> Any:
            return await self._run(rules, lambda: self._app.ensure_async(view)(**values))

        return guarded

    async def _run(self, rules: Rules, call: Callable[[], Any]) -> Any:
        exchange = (request if has_request_context() else websocket).scope.get(KEY)
        if isinstance(exchange, Session):
            rule = rules.get(WEBSOCKET)
            if rule is None or not await exchange.open(rule if isinstance(rule, Function) else None):
                return None
            bound.set(exchange.admission)  # for the rest of this task, which is this connection's own
        elif isinstance(exchange, Exchange):
            rule = rules.get(request.method) or rules.get(ANY)
            if rule is None or not await self._admit(exchange, rule):
                return Response("", 403)
        else:
            raise ConfigurationError("this application is guarded; serve what tenancy.asgi(app) returned")
        try:
            return await call()
        except DENIALS as error:
            await exchange.failed(error)
            return Response("", 403) if isinstance(exchange, Exchange) else None

    async def _admit(self, exchange: Exchange, rule: Rule) -> bool:
        gate, caller, layer = self._layer.gate, exchange.caller, self._layer
        if isinstance(rule, Public):
            exchange.admit(gate.admit_public(now=exchange.now))
            return True
        if caller is None:
            refusal = gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=rule, now=exchange.now)
            await exchange.answer(layer.refusal(refusal, None, exchange.now))
            return False
        try:
            answer = await gate.admit(caller, rule, surface=Surface.HTTP, now=exchange.now)
        except UnavailableError as error:
            await exchange.answer(render_unavailable(error))
            return False
        if isinstance(answer, Refusal):
            layer.block(caller, answer, rule.cost, exchange.now)
            await exchange.answer(layer.refusal(answer, caller, exchange.now))
            return False
        exchange.admit(answer)
        return True


class _Enclosed:
    """The application inside of the exchange."""

    def __init__(self, app: Any, layer: Layer) -> None:
        self._app: ASGIApp = app
        self.layer = layer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope.get(KEY)
        if isinstance(exchange, Session):
            await exchange.serve(self._app, scope, receive)
            return
        if not isinstance(exchange, Exchange):
            await self._app(scope, receive, send)  # the lifespan; a request is refused where its view is reached
            return
        caller, limits = exchange.caller, None
        if caller is not None:
            try:
                found = await self.layer.gate.limits_of(caller, now=exchange.now)
            except UnavailableError as error:
                await exchange.turn_away(render_unavailable(error), send)
                return
            limits = None if isinstance(found, Refusal) else found  # refused where the view is reached
        inner = exchange.enclose(limits, receive, send)
        try:
            if inner is not receive and exchange.too_long(scope["headers"]):
                await exchange.refuse_payload()
                return
            await self._app(scope, inner, exchange.guarded_send)
        except Exception as error:
            if not await exchange.failed(error):
                raise
        except asyncio.CancelledError:
            if not exchange.ended():
                raise
        finally:
            exchange.leave()


def _declared(view: Any, methods: set[str]) -> dict[str, FunctionSpec | str]:
    own: dict[str, FunctionSpec | str] = {}
    whole = marker_of(view)
    if whole is not None:
        own[ANY] = whole
    view_class = getattr(view, "view_class", None)
    for method in methods:
        found = marker_of(getattr(view_class, method.lower(), None))
        if found is not None:
            own[method] = found
    if "GET" in own:
        own.setdefault("HEAD", own["GET"])
    if "OPTIONS" in methods and own and ANY not in own:
        own.setdefault("OPTIONS", own[min(own)])  # Quart answers it by itself, with the list of methods
    return own
