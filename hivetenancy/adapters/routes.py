"""The routers of Starlette, walked once at start: every leaf gets its guard, every router is sealed.

A leaf is where a router hands a request over: the ``app`` of a route, of a WebSocket route, of a mount of something
that is no router, or a router's own default. Mounts, hosts, routers and sub-applications are walked through. What is
not known here keeps the application from starting, because a request could pass through it unguarded: a route class
with a ``handle`` of its own, a router with a dispatch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

try:
    from starlette.applications import Starlette
    from starlette.endpoints import HTTPEndpoint
    from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
except ImportError as error:
    raise ImportError("this adapter needs Starlette: pip install 'hivetenancy[starlette]'") from error

from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionSpec

from .declare import ANY, WEBSOCKET, Declarations, Leaf, Rules, marker_of
from .exchange import ASGIApp, Layer
from .guards import Guard

_VERBS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")
"""What `HTTPEndpoint` dispatches on."""

_DEPTH: Final = 32
"""Wrappers that are looked through before something else is suspected."""

_ANOTHER: Final = "is what another tenancy's asgi() returned; give it as it was before"
"""Two tenancies cannot both admit a request: each would withhold the answers that only the other admitted."""


def guard(app: object, declarations: Declarations, layer: Layer, *, walker: type[Walker] | None = None) -> bool:
    """Guard the routes of *app*, if it is one of Starlette's, or wraps one; ``False``: it is not.

    Raises:
        ConfigurationError: A route has no function or is of an unknown kind; the message names each.
    """
    router = router_of(app)
    if router is None:
        return False
    walk = (walker or Walker)(layer)
    if behind_another(app, layer):
        walk.problems.append(f"the application {_ANOTHER}")
    else:
        walk.router(router, "")
    declarations.apply(walk.leaves, walk.problems)
    walk.seal()
    return True


def router_of(app: object) -> Router | None:
    """Find the router in *app*: an application, a router, or middleware around one that keeps it as ``app``."""
    for _ in range(_DEPTH):
        if isinstance(app, Starlette):
            return app.router
        if isinstance(app, Router) or app is None:
            return app
        app = getattr(app, "app", None) or getattr(app, "inner", None)
    return None


def behind_another(app: object, layer: Layer) -> bool:
    """Whether another tenancy than that of *layer* stands between *app* and its router."""
    for _ in range(_DEPTH):
        if isinstance(app, Starlette | Router | Guard) or app is None:
            return False
        own = getattr(app, "layer", None)
        if isinstance(own, Layer) and own.gate is not layer.gate:
            return True
        app = getattr(app, "app", None) or getattr(app, "inner", None)
    return False


class SealedRoutes(list[BaseRoute]):
    """The routes of a guarded router. Nothing can be added: it would have no guard.

    Attributes:
        layer: Whose guards they have.
    """

    def __init__(self, routes: Iterable[BaseRoute], layer: Layer) -> None:
        super().__init__(routes)
        self.layer = layer

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise ConfigurationError("the routes are guarded and sealed; add all of them before tenancy.asgi(app)")

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


class Walker:
    """Finds the leaves of a router, and what could not be understood."""

    def __init__(self, layer: Layer) -> None:
        self.leaves: list[Leaf] = []
        self.problems: list[str] = []
        self._layer = layer
        self._seen: set[int] = set()
        self._routers: list[Router] = []

    # --- routers -----------------------------------------------------------------------------------------------------

    def router(self, router: Router, prefix: str) -> None:
        """Walk *router*, whose paths stand behind *prefix*."""
        if id(router) in self._seen:
            return
        self._seen.add(id(router))
        if isinstance(router.routes, SealedRoutes) and router.routes.layer.gate is self._layer.gate:
            return  # guarded before, by the same tenancy
        self._routers.append(router)
        if not self.knows(router):
            self.problems.append(
                f"the router at {prefix or '/'} is of the unknown kind {type(router).__qualname__}, with a dispatch of "
                f"its own; use Starlette's Router, or mount it behind an application that carries a marker"
            )
        for route in router.routes:
            self.route(route, prefix)
        default = _unguarded(router.default)
        if getattr(default, "__func__", None) is not Router.not_found:
            self._leaf(router, "default", f"{prefix}/*", None, _own(default), "the router's default")

    def knows(self, router: Router) -> bool:
        """Whether *router* dispatches in a way that is known here."""
        return type(router).app is Router.app and type(router).__call__ is Router.__call__

    def seal(self) -> None:
        """Let nothing be added to the routers any more."""
        for router in self._routers:
            router.routes = SealedRoutes(router.routes, self._layer)

    # --- routes ------------------------------------------------------------------------------------------------------

    def route(self, route: BaseRoute, prefix: str) -> None:
        """Walk one route."""
        handle = getattr(route.handle, "__func__", None)
        if isinstance(route, Mount) and handle is Mount.handle:
            self._mount(route, prefix + route.path)
        elif isinstance(route, Host) and handle is Host.handle:
            self._inside(route, "app", _unguarded(route.app), prefix)
        elif isinstance(route, Route) and handle is Route.handle:
            own, methods = self.declared(route.endpoint, route)
            self._leaf(route, "app", prefix + route.path, methods or _upper(route.methods), own, _name(route))
        elif isinstance(route, WebSocketRoute) and handle is WebSocketRoute.handle:
            own, _ = self.declared(route.endpoint, route)
            self._leaf(route, "app", prefix + route.path, frozenset({WEBSOCKET}), own, _name(route))
        else:
            self.problems.append(
                f"{prefix}{getattr(route, 'path', '/?')}: a route of the unknown kind {type(route).__qualname__}; its "
                f"requests could pass unguarded. Use Route, WebSocketRoute, Mount or Host"
            )

    def declared(self, endpoint: Any, route: Any) -> tuple[dict[str, FunctionSpec | str], frozenset[str] | None]:
        """Return what the handler of *route* declares by method, and its methods if it tells them itself."""
        if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
            return _class_based(endpoint)
        return _own(endpoint), None

    def _mount(self, mount: Mount, path: str) -> None:
        base: Any = mount._base_app
        if mount.app is base or router_of(base) is None:
            self._inside(mount, "app", base, path)
        else:  # a mount with middleware of its own around a router: the leaves are further in
            self._inside(mount, "_base_app", base, path)

    def _inside(self, holder: Any, attribute: str, app: Any, path: str) -> None:
        router = router_of(app)
        if behind_another(app, self._layer):
            self.problems.append(f"{path}: what is mounted there {_ANOTHER}")
        elif router is None:
            self._leaf(holder, attribute, path, None, _own(app), type(app).__qualname__)
        elif marker_of(app) is not None:
            self.problems.append(f"{path}: a mounted application has routes of its own; mark those instead of it")
        else:
            self.router(router, path)

    def _leaf(
        self,
        holder: Any,
        attribute: str,
        path: str,
        methods: frozenset[str] | None,
        own: dict[str, FunctionSpec | str],
        why: str,
    ) -> None:
        inner: ASGIApp = getattr(holder, attribute)
        if isinstance(inner, Guard):
            if inner.layer.gate is self._layer.gate:
                return
            inner = inner.inside  # of a tenancy that had the application before, as in the test before this one
        self.leaves.append(
            Leaf(path=path, methods=methods, own=own, why=why, wrap=self._wrapping(holder, attribute, inner))
        )

    def _wrapping(self, holder: Any, attribute: str, inner: ASGIApp) -> Callable[[Rules], None]:
        def wrap(rules: Rules) -> None:
            setattr(holder, attribute, Guard(inner, rules, self._layer))

        return wrap


def _unguarded(app: Any) -> Any:
    return app.inside if isinstance(app, Guard) else app


def _own(handler: Any) -> dict[str, FunctionSpec | str]:
    found = marker_of(handler)
    return {} if found is None else {ANY: found}


def _class_based(endpoint: type[HTTPEndpoint]) -> tuple[dict[str, FunctionSpec | str], frozenset[str] | None]:
    """Read the markers of a class-based endpoint: its methods', and the class's own for those without one."""
    own = _own(endpoint)
    if endpoint.dispatch is not HTTPEndpoint.dispatch or endpoint.__await__ is not HTTPEndpoint.__await__:
        return own, None  # it dispatches by itself, so only a marker on the class says what it does
    methods = {verb for verb in _VERBS if getattr(endpoint, verb.lower(), None) is not None}
    for verb in sorted(methods):
        found = marker_of(getattr(endpoint, verb.lower()))
        if found is not None:
            own[verb] = found
    if "GET" in methods and "HEAD" not in methods:
        methods.add("HEAD")
        if "GET" in own:
            own["HEAD"] = own["GET"]
    return own, frozenset(methods)


def _upper(methods: Iterable[str] | None) -> frozenset[str] | None:
    return None if methods is None else frozenset(methods)


def _name(route: Any) -> str:
    endpoint = getattr(route, "endpoint", None)
    if getattr(endpoint, "__module__", None) == "fastapi.applications":
        return "a page that FastAPI adds by itself; openapi_url=None, docs_url=None or redoc_url=None turn it off"
    name = getattr(endpoint, "__qualname__", None) or type(endpoint).__qualname__
    return f"handler {getattr(endpoint, '__module__', '?')}.{name}"
