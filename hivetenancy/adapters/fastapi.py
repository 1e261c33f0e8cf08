"""FastAPI: ``Depends(require("kv.get"))`` with an OpenAPI security scheme, and its routers walked.

`require` declares the function of the route that depends on it, and gives the handler its tenant. It decides nothing:
the guard in front of the route read the declaration at start, and has admitted the request before any dependency
runs.

An included router is live and lazily built here: FastAPI keeps ``include_router`` as a reference, and makes the
effective routes, with applications of their own, when they are first asked for. They are asked for now, guarded, and
the routers sealed, so that they are never made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

try:
    import fastapi.routing as routing
    from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection
    from starlette.routing import BaseRoute, Router
except ImportError as error:
    raise ImportError("this adapter needs FastAPI: pip install fastapi") from error

from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionSpec
from hivetenancy.ids import CellKey, Effect
from hivetenancy.tenant import Tenant, current_tenant

from . import routes
from .declare import ANY, Declarations
from .exchange import Layer
from .routes import Walker

_INCLUDED: Final[type[Any] | None] = getattr(routing, "_IncludedRouter", None)
_FRONTEND: Final[type[Any] | None] = getattr(routing, "_FrontendRouteGroup", None)


class require(SecurityBase):  # noqa: N801 - reads as a call: Depends(require("kv.get"))
    """What a route performs, as a dependency.

    Args:
        name: The function's name.
        effect: Its effect; ``None``: the function is declared elsewhere, on ``tenancy.functions`` or by a marker.
        cost: Rate units that a call takes; with *effect* only.
        demand: Quota amounts to hold while the handler runs; with *effect* only.

    Raises:
        ConfigurationError: A value is out of range, or *cost* or *demand* stands without *effect*.
    """

    def __init__(
        self,
        name: str,
        *,
        effect: Effect | str | None = None,
        cost: int | None = None,
        demand: Mapping[CellKey, int] | None = None,
    ) -> None:
        self.said: FunctionSpec | str = name
        if effect is not None:
            self.said = _spec(name, effect, cost, demand)
        elif cost is not None or demand is not None:
            raise ConfigurationError(f"require({name!r}): cost and demand need effect=, too")
        self.model = HTTPBearerModel(description="An access key, in one of the headers that the server takes.")
        self.scheme_name = "AccessKey"

    def __repr__(self) -> str:
        return f"require({self.said!r})"

    async def __call__(self, connection: HTTPConnection) -> Tenant:
        """Return the tenant that the guard admitted."""
        return current_tenant()


def guard(app: object, declarations: Declarations, layer: Layer) -> bool:
    """Guard the routes of *app* as `routes.guard` does, FastAPI's own kinds included."""
    return routes.guard(app, declarations, layer, walker=FastAPIWalker)


class FastAPIWalker(Walker):
    """Walks FastAPI's routers as well."""

    def knows(self, router: Router) -> bool:
        """Whether *router* dispatches in a way that is known here."""
        if not isinstance(router, routing.APIRouter):
            return super().knows(router)
        kind = type(router)
        return (
            kind.app is routing.APIRouter.app
            and kind.__call__ is Router.__call__
            and getattr(kind, "handle", None) is getattr(routing.APIRouter, "handle", None)
        )

    def router(self, router: Router, prefix: str) -> None:
        """Walk *router*; files that it serves beside its routes have no place for a guard."""
        if getattr(router, "_low_priority_routes", None):
            self.problems.append(
                f"{prefix or '/'}: frontend() routes are of an unknown kind; mount StaticFiles with a marker instead"
            )
        super().router(router, prefix)

    def seal(self) -> None:
        """Let nothing be added, nor the effective routes be made anew without guards."""
        super().seal()
        for router in self._routers:
            if isinstance(router, routing.APIRouter):
                router._mark_routes_changed = _sealed  # type: ignore[method-assign]

    def route(self, route: BaseRoute, prefix: str) -> None:
        """Walk one route."""
        handle = getattr(route.handle, "__func__", None)
        if _INCLUDED is not None and type(route) is _INCLUDED:
            self._included(route, prefix)
        elif isinstance(route, routing.APIRoute) and handle is routing.APIRoute.handle:
            self._api_route(route, route, prefix)
        else:
            super().route(route, prefix)

    def _included(self, included: Any, prefix: str) -> None:
        """Walk the effective routes of an included router, and the router itself, which is live."""
        for candidate in included.effective_candidates():
            if type(candidate) is _INCLUDED:
                self._included(candidate, prefix)
            elif isinstance(candidate.original_route, routing.APIRoute):
                self._api_route(candidate, candidate.original_route, prefix)
            elif candidate.starlette_route is not None:
                self.route(candidate.starlette_route, prefix)
            else:
                self.problems.append(f"{prefix}: an included route of the unknown kind {type(candidate).__qualname__}")
        original = included.original_router
        if getattr(original, "_low_priority_routes", None) or not self.knows(original):
            self.problems.append(f"{prefix or '/'}: the included router {original!r} is of an unknown kind")
        if original not in self._routers:
            self._routers.append(original)

    def _api_route(self, effective: Any, original: Any, prefix: str) -> None:
        if getattr(original.handle, "__func__", None) is not routing.APIRoute.handle:
            self.problems.append(f"{prefix}{effective.path}: a route of the unknown kind {type(original).__qualname__}")
            return
        own, _ = self.declared(effective.endpoint, effective)
        methods = frozenset(effective.methods) if effective.methods else None
        where = f"handler {effective.endpoint.__module__}.{effective.endpoint.__qualname__}"
        self._leaf(effective, "app", prefix + effective.path, methods, own, where)

    def declared(self, endpoint: Any, route: Any) -> tuple[dict[str, FunctionSpec | str], frozenset[str] | None]:
        """Return what the handler or one of its dependencies declares."""
        own, methods = super().declared(endpoint, route)
        dependant = getattr(route, "dependant", None)
        required = {} if dependant is None else {_label(one.said): one.said for one in _required(dependant)}
        if not required:
            return own, methods
        names = {_label(said) for said in own.values()} | set(required)
        if len(names) > 1:
            self.problems.append(f"{route.path}: declares more than one function: {', '.join(sorted(names))}")
        own.setdefault(ANY, next(iter(required.values())))
        return own, methods


def _required(dependant: Any) -> list[require]:
    found = [dependant.call] if isinstance(dependant.call, require) else []
    for inner in dependant.dependencies:
        found += _required(inner)
    return found


def _label(said: FunctionSpec | str) -> str:
    return said if isinstance(said, str) else said.name


def _spec(name: str, effect: Effect | str, cost: int | None, demand: Mapping[CellKey, int] | None) -> FunctionSpec:
    try:
        known = Effect(effect)
    except ValueError:
        raise ConfigurationError(f"{name}: effect must be one of {', '.join(Effect)}, got {effect!r}") from None
    return FunctionSpec(name=name, effect=known, cost=1 if cost is None else cost, demand=demand or {})


def _sealed() -> NoReturn:
    raise ConfigurationError("the routes are guarded and sealed; add all of them before tenancy.asgi(app)")
