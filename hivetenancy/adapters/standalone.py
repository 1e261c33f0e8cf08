"""Any ASGI application in standalone mode: the one owner of everything is bound, and nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hivetenancy.context import Bound, bound
from hivetenancy.tenant import Tenant, bound_to

from .exchange import ASGIApp, Receive, Scope, Send


class StandaloneASGI:
    """An application as it is: every message passes untouched, in both directions.

    Args:
        app: The application.
        tenant: What `hivetenancy.current_tenant` says inside it.
    """

    def __init__(self, app: ASGIApp, tenant: Tenant) -> None:
        self._app = app
        self._bound: Bound = bound_to(tenant)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the one owner bound."""
        before = bound.get()
        bound.set(self._bound)
        try:
            await self._app(scope, receive, send)
        finally:
            bound.set(before)


def middleware(tenant: Tenant) -> Callable[..., StandaloneASGI]:
    """Return what ``app.add_middleware`` takes; options of the cluster-mode middleware are accepted and not needed."""

    def hivetenancy(app: ASGIApp, **_options: Any) -> StandaloneASGI:
        return StandaloneASGI(app, tenant)

    return hivetenancy
