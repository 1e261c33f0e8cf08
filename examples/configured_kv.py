"""A key-value server that has tenants or none, as its settings say.

    pip install 'hivetenancy[demo]'
    python examples/configured_kv.py examples/standalone.toml
    python examples/configured_kv.py examples/cluster.toml

No line of it asks which mode it runs in. `hivetenancy config show --file examples/cluster.toml` shows what it would
run with, and where each value comes from. Against `hivetenancy hub serve`, which prints a URL and a service key:

    HIVETENANCY_HUB__URL=... HIVETENANCY_HUB__SERVICE_KEY=... python examples/configured_kv.py --fake

That a fake may stand in for HiveHub is said here, in code, and in no file and no variable.
"""

from __future__ import annotations

import argparse

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hivetenancy import Tenancy, current_tenant, function

store: dict[str, bytes] = {}


@function("kv.set", effect="write", demand={"operations": 1})
async def put(request: Request) -> Response:
    tenant, body = current_tenant(), await request.body()
    key = str(tenant.kv.key(request.path_params["key"]))
    async with tenant.charge(key, storage_bytes=len(body)):
        store[key] = body
    return Response(status_code=204)


@function("kv.get", effect="read", demand={"operations": 1})
async def get(request: Request) -> Response:
    key = str(current_tenant().kv.key(request.path_params["key"]))
    if key not in store:
        return Response(status_code=404)  # what is not there, and what is another tenant's
    return Response(store[key], media_type="application/octet-stream")


async def livez(request: Request) -> Response:
    return PlainTextResponse("alive")


def build(tenancy: Tenancy) -> ASGIApp:
    """The server, whatever its tenancy is."""
    routes = [
        Route("/kv/{key:path}", put, methods=["PUT"]),
        Route("/kv/{key:path}", get, methods=["GET"]),
        Route("/livez", livez, methods=["GET"]),
    ]
    return tenancy.asgi(Starlette(routes=routes), public=("GET /livez",))


if __name__ == "__main__":
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", help="the settings file; without one the environment says everything")
    parser.add_argument("--fake", action="store_true", help="let a fake hub stand in for HiveHub")
    options = parser.parse_args()
    tenancy = Tenancy.from_env(file=options.file, allow_fake=options.fake)
    uvicorn.run(build(tenancy), host="127.0.0.1", port=8000)
