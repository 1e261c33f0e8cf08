"""Litestar: the leaves of its routing trie get their guards, once, at start.

Litestar resolves a path in a trie whose nodes hold, by method, the application to call: middleware of the handler
included. That is where the guards stand, behind the match. Errors are dealt with further in, so an
``after_exception`` hook hands what a handler raised to the exchange, which has answered before Litestar renders a
500.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

try:
    from litestar import Litestar
    from litestar._asgi.asgi_router import ASGIRouter
    from litestar._asgi.routing_trie.types import ASGIHandlerTuple, RouteTrieNode
except ImportError as error:
    raise ImportError("this adapter needs Litestar: pip install litestar") from error

from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionSpec

from .declare import ANY, WEBSOCKET, Declarations, Leaf, Rules, marker_of
from .exchange import KEY, ClosedError, Exchange, Layer
from .guards import TAKEN, Guard, refusals
from .sessions import Session

_AUTOMATIC: Final = "litestar.routes.http"
"""Where Litestar makes the OPTIONS handlers that it adds by itself."""


def guard(app: object, declarations: Declarations, layer: Layer) -> bool:
    """Guard the routes of *app*, if it is Litestar's; ``False``: it is not.

    Raises:
        ConfigurationError: A route has no function; the message names each.
    """
    if not isinstance(app, Litestar):
        return False
    if isinstance(app.asgi_router, _Sealed):
        layers = (entry.asgi_app for node in _nodes(app.asgi_router) for entry in node.asgi_handlers.values())
        if any(isinstance(one, Guard) and one.layer.gate is not layer.gate for one in layers):
            raise ConfigurationError(TAKEN)
        return True
    declarations.apply([leaf for node in _nodes(app.asgi_router) for leaf in _leaves(node, layer)])
    app.asgi_router.handle_routing.cache_clear()  # what it has found already has no guard
    app.asgi_router.__class__ = _Sealed
    app.after_exception.append(_hand_over)
    silenced = getattr(app.logging_config, "disable_stack_trace", None)
    if isinstance(silenced, set):
        silenced.update((*refusals(), ClosedError))
    return True


class _Sealed(ASGIRouter):
    __slots__ = ()

    def construct_routing_trie(self) -> NoReturn:
        """Refuse: a route that is added now would have no guard."""
        raise ConfigurationError("the routes are guarded and sealed; add all of them before tenancy.asgi(app)")


async def _hand_over(error: Exception, scope: Any) -> None:
    exchange = scope.get(KEY)
    if isinstance(exchange, Exchange | Session):
        await exchange.failed(error)


def _nodes(router: ASGIRouter) -> Iterator[RouteTrieNode]:
    """Every node of the trie once."""
    todo = [router.root_route_map_node, *router._mount_routes.values()]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if id(node) not in seen:
            seen.add(id(node))
            todo += node.children.values()
            yield node


def _leaves(node: RouteTrieNode, layer: Layer) -> Iterator[Leaf]:
    handlers = node.asgi_handlers
    said = {method: _declared(entry.handler) for method, entry in handlers.items()}
    for method, entry in list(handlers.items()):
        own = said[method]
        if own is None and method == "OPTIONS" and _is_automatic(entry.handler):
            own = next((said[other] for other in sorted(said) if said[other] is not None), None)
        path = node.path_template or next(iter(entry.handler.paths), "/")
        methods = None if method == "asgi" else frozenset({WEBSOCKET if method == "websocket" else str(method)})
        yield Leaf(
            path=path,
            methods=methods,
            own={} if own is None else {ANY: own},
            why=f"handler {entry.handler}",
            wrap=_wrapping(handlers, method, entry, layer),
        )


def _declared(handler: Any) -> FunctionSpec | None:
    """Look at the handler, at its function, and at the one that Litestar runs in a thread for it."""
    return marker_of(handler) or marker_of(handler.fn) or marker_of(getattr(handler.fn, "func", None))


def _is_automatic(handler: Any) -> bool:
    return getattr(handler.fn, "__module__", "") == _AUTOMATIC


def _wrapping(handlers: Any, method: Any, entry: ASGIHandlerTuple, layer: Layer) -> Callable[[Rules], None]:
    def wrap(rules: Rules) -> None:
        guarded: Any = Guard(entry.asgi_app, rules, layer)  # type: ignore[arg-type]  # its own scope types
        handlers[method] = ASGIHandlerTuple(asgi_app=guarded, handler=entry.handler)

    return wrap
