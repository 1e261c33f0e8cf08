"""One server, on a fake hub in this process or on `hivetenancy hub serve` in another.

    pip install 'hivetenancy[demo]'
    python examples/two_hubs.py
    python examples/two_hubs.py http://127.0.0.1:40123 svc_all_...

Without arguments the fake is an object in this process, with a tenant whose key is printed. With the URL and the key
that `hivetenancy hub serve --tenants tenants.json` prints, the same server asks that process over HTTP, as it would ask
HiveHub. `allow_fake=True` is what makes the second one believe a fake; a server in production has no such line.
"""

from __future__ import annotations

import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hivetenancy import Tenancy, current_tenant, function
from hivetenancy.hub.client import HiveHub
from hivetenancy.testing import FakeHiveHub

store: dict[str, bytes] = {}


@function("kv.set", effect="write", demand={"operations": 1})
async def put(request: Request) -> Response:
    tenant, body = current_tenant(), await request.body()
    key = str(tenant.kv.key(request.path_params["key"]))
    async with tenant.charge(key, storage_bytes=len(body)):
        store[key] = body
    return Response(status_code=204)


@function("kv.list", effect="read", demand={"operations": 1})
async def keys(request: Request) -> Response:
    names = current_tenant().kv
    return JSONResponse(sorted(str(names.strip(key)) for key in store if names.owns(key)))


def build(hub: FakeHiveHub | HiveHub) -> ASGIApp:
    """The server. Which of the two hubs it has makes no difference to a line of it."""
    routes = [Route("/kv", keys, methods=["GET"]), Route("/kv/{key:path}", put, methods=["PUT"])]
    return Tenancy.embedded(hub).asgi(Starlette(routes=routes))


def in_process() -> FakeHiveHub:
    hub = FakeHiveHub()
    key = hub.add_tenant("acme", plan="pro").issue_key(permissions=["read", "write"])
    print(f"curl -H 'Authorization: Bearer {key.secret}' http://127.0.0.1:8000/kv")
    return hub


def elsewhere(url: str, service_key: str) -> HiveHub:
    return HiveHub(url, service_key, service="synap", allow_fake=True)


if __name__ == "__main__":
    import uvicorn

    hub = elsewhere(sys.argv[1], sys.argv[2]) if len(sys.argv) == 3 else in_process()
    uvicorn.run(build(hub), host="127.0.0.1", port=8000)
