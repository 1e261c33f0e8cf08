"""The demo's server: a key-value store over HTTP that knows nothing of tenants but what `current_tenant` tells it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise ImportError("the demo needs its extra: pip install 'hivetenancy[demo]'") from error

from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError
from hivetenancy.functions import function
from hivetenancy.ids import Amounts
from hivetenancy.quota import CellSnapshot
from hivetenancy.tenant import Tenant, current_tenant

OPERATION: Amounts = {"operations": 1}
"""What every call counts, if it succeeds."""


class KeyValueServer:
    """Byte strings by key. The store is one dict for all tenants; only the names keep them apart."""

    def __init__(self) -> None:
        self.store: dict[str, bytes] = {}

    def app(self) -> Starlette:
        """Return the application, without any tenancy around it."""
        return Starlette(
            routes=[
                Route("/kv", self.keys, methods=["GET"]),
                Route("/kv/{key:path}", self.put, methods=["PUT"]),
                Route("/kv/{key:path}", self.get, methods=["GET"]),
                Route("/kv/{key:path}", self.delete, methods=["DELETE"]),
                Route("/usage", self.usage, methods=["GET"]),
            ]
        )

    @function("kv.set", effect="write", demand=OPERATION)
    async def put(self, request: Request) -> Response:
        """Store the body under the key."""
        tenant, body = current_tenant(), await request.body()
        key = str(tenant.kv.key(request.path_params["key"]))
        async with tenant.charge(key, storage_bytes=len(body), keys=1):
            self.store[key] = body
        return Response(status_code=204)

    @function("kv.get", effect="read", demand=OPERATION)
    async def get(self, request: Request) -> Response:
        """Return what is stored under the key."""
        key = str(current_tenant().kv.key(request.path_params["key"]))
        if key not in self.store:
            raise missing()
        return Response(self.store[key], media_type="application/octet-stream")

    @function("kv.delete", effect="delete", demand=OPERATION)
    async def delete(self, request: Request) -> Response:
        """Forget the key."""
        tenant = current_tenant()
        key = str(tenant.kv.key(request.path_params["key"]))
        if key not in self.store:
            raise missing()
        async with tenant.charge(key):
            del self.store[key]
        return Response(status_code=204)

    @function("kv.list", effect="read", demand=OPERATION)
    async def keys(self, request: Request) -> Response:
        """Return the caller's own keys, sorted, as a JSON list; ``?prefix=`` narrows it."""
        tenant = current_tenant()
        tenant.record(searches=1)
        prefix = request.query_params.get("prefix", "")
        mine = (tenant.kv.strip(key) for key in self.store if tenant.kv.owns(key))
        return JSONResponse(sorted(name for name in mine if name.startswith(prefix)))

    @function("usage.read", effect="read")
    async def usage(self, request: Request) -> Response:
        """Return where the caller's own quotas stand."""
        tenant = current_tenant()
        return Response(usage_json(tenant, await tenant.usage()), media_type="application/json")


def missing() -> DeniedError:
    """Return the answer for what is not there: the very bytes that another tenant's key gives."""
    return DeniedError.of(Refusal(reason=Reason.NOT_FOUND))


def usage_json(tenant: Tenant, cells: Sequence[CellSnapshot]) -> bytes:
    """Return the usage page of *tenant*: its id, and each cell by its dimension."""
    return json.dumps({"tenant": tenant.id, "usage": [asdict(cell) for cell in cells]}).encode()
