"""The guard that stands behind a router's own match, in front of one leaf.

It is the only place where a request is admitted, and where what it took is given back: a framework sends its 500
before the exception reaches any outer layer, so nothing further out could settle in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, InvalidNameError, MisuseError, UnavailableError
from hivetenancy.functions import Function
from hivetenancy.ids import Surface

from .catalogue import INTERNAL_ERROR, METHOD_NOT_ALLOWED
from .declare import ANY, WEBSOCKET, Public, Rule, Rules
from .exchange import KEY, ASGIApp, Exchange, Layer, Receive, Scope, Send, send_answer
from .http import Answer, answer, render_unavailable
from .sessions import Session

_HANDLERS: Final = "starlette.exception_handlers"
"""Where Starlette and FastAPI keep the host's exception handlers while a request runs."""

TAKEN: Final = (
    "the application has a tenancy already, and can have no other; make an application for each, as a function that "
    "builds it does"
)
"""Why an application of a framework whose guards cannot be exchanged is refused."""

_log: Final = logging.getLogger("hivetenancy")


async def _raise_on(_connection: object, error: Exception) -> None:
    """Stand in for a host's handler of our refusals: hand the refusal on to the guard."""
    raise error


class Guard:
    """Admits what is to reach *app*, and nothing else.

    Args:
        app: The leaf: a route's own application.
        rules: The function, or `PUBLIC`, by method.
        layer: What the adapter's exchanges share.
    """

    __slots__ = ("_allow", "_app", "_known_handlers", "_layer", "_only", "_rules", "_safe_handlers")

    def __init__(self, app: ASGIApp, rules: Rules, layer: Layer) -> None:
        self._app = app
        self._layer = layer
        self._rules = rules
        self._only: Rule | None = rules[ANY] if list(rules) == [ANY] else None
        self._allow = ", ".join(sorted(method for method in rules if method not in (ANY, WEBSOCKET)))
        self._known_handlers: Mapping[Any, Any] | None = None
        self._safe_handlers: Mapping[Any, Any] | None = None

    @property
    def inside(self) -> ASGIApp:
        """What is guarded."""
        return self._app

    @property
    def layer(self) -> Layer:
        """Whose guard it is."""
        return self._layer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit and run, or refuse."""
        exchange = scope.get(KEY)
        if type(exchange) is not Exchange or exchange.layer.gate is not self._layer.gate:
            await self._other(exchange, scope, receive, send)
            return
        # By the method that the router saw, which a middleware may have overridden.
        rule = self._only or self._rules.get(scope["method"]) or self._rules.get(ANY)
        if rule is None:
            await self._not_allowed(exchange, send)
            return
        if exchange.admission is not None:
            raise MisuseError("this request was admitted before; a guarded application must not call another one")
        gate, caller, now = self._layer.gate, exchange.caller, exchange.now
        if isinstance(rule, Public):
            admission = gate.admit_public(now=now)
        elif caller is None:
            refusal = gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=rule, now=now)
            await exchange.turn_away(self._layer.refusal(refusal, None, now), send)
            return
        else:
            try:
                admitted = await gate.admit(caller, rule, surface=Surface.HTTP, now=now)
            except UnavailableError as error:
                await exchange.turn_away(render_unavailable(error), send)
                return
            if isinstance(admitted, Refusal):
                self._layer.block(caller, admitted, rule.cost, now)
                await exchange.turn_away(self._layer.refusal(admitted, caller, now), send)
                return
            admission = admitted
        inner = exchange.guard(admission, receive, send)
        before = bound.get()
        bound.set(admission)
        try:
            if inner is not receive and exchange.too_long(scope["headers"]):
                await exchange.refuse_payload()
                return
            handlers = scope.get(_HANDLERS)
            if handlers is not None and handlers[0] is not self._known_handlers:
                self._learn(handlers[0])
            if self._safe_handlers is not None and handlers is not None:
                scope[_HANDLERS] = (self._safe_handlers, handlers[1])
            await self._app(scope, inner, exchange.guarded_send)
        except Exception as error:
            if not await exchange.failed(error):
                raise
        except asyncio.CancelledError:
            if not exchange.ended():
                raise
        finally:
            bound.set(before)
            exchange.leave()

    def _learn(self, handlers: Mapping[Any, Any]) -> None:
        """See whether the host's handlers would swallow a refusal, once for the application."""
        self._known_handlers = handlers
        ours = refusals()
        swallowing = {base for kind in ours for base in kind.__mro__} & set(handlers)
        self._safe_handlers = {**handlers, **dict.fromkeys(ours, _raise_on)} if swallowing else None

    async def _not_allowed(self, exchange: Exchange, send: Send) -> None:
        """Answer a method that no part of the handler takes, as a router would: for one unit."""
        layer, caller = self._layer, exchange.caller
        allow = (b"allow", self._allow.encode())
        if caller is None:
            refusal = layer.gate.refuse(Reason.NO_CREDENTIAL, caller=None, function=None, now=exchange.now)
            said: Answer = layer.refusal(refusal, None, exchange.now)
        else:
            try:
                taken = await layer.gate.admit_attempt(caller, now=exchange.now)
            except UnavailableError as error:
                await exchange.turn_away(render_unavailable(error), send)
                return
            if isinstance(taken, Refusal):
                said = layer.refusal(taken, caller, exchange.now)
            else:
                rates = layer.rates(taken, exchange.now)
                taken.close()
                said = answer(METHOD_NOT_ALLOWED, headers=[allow, *rates])
        await exchange.turn_away(said, send)

    async def _other(self, session: object, scope: Scope, receive: Receive, send: Send) -> None:
        """Deal with what is no HTTP request behind the outer layer of this tenancy."""
        if isinstance(session, Exchange | Session) and session.layer.gate is not self._layer.gate:
            await self._foreign(session, send)
            return
        if isinstance(session, Session) and scope["type"] == "websocket":
            rule = self._rules.get(WEBSOCKET) or self._rules.get(ANY)
            if rule is None:
                await session.send({"type": "websocket.close"})
            else:
                await session.run(self._app, rule if isinstance(rule, Function) else None, scope, receive)
            return
        _log.error(
            "a guarded route was reached without the tenancy in front, and refused: serve what tenancy.asgi(app) "
            "returned, not the application itself"
        )
        if scope["type"] == "http":
            await send_answer(send, answer(INTERNAL_ERROR), scope["method"])
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1011, "reason": ""})

    async def _foreign(self, session: Exchange | Session, send: Send) -> None:
        """Refuse what another tenancy let in: its callers mean nothing to this one's engines."""
        _log.error(
            "a route that is guarded by one tenancy was reached through another, and refused: an application serves "
            "for the tenancy that it was given to last, tenancy.asgi(app)"
        )
        if isinstance(session, Exchange):
            await session.turn_away(answer(INTERNAL_ERROR), send)
        else:
            await session.deny(answer(INTERNAL_ERROR))


def refusals() -> tuple[type[Exception], ...]:
    """Every class that a refusal can have."""
    found: list[type[Exception]] = [InvalidNameError]
    todo: list[type[Exception]] = [DeniedError, UnavailableError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return tuple(found)
