"""A multi-tenant key-value server on Starlette.

    pip install 'hivetenancy[demo]'
    python examples/starlette_kv.py

It prints two keys, one of each tenant, and serves on http://127.0.0.1:8000. Neither tenant sees the other's data, each
has the limits of its plan, and the handlers hold no line about either.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from hivetenancy import DeniedError, Reason, Refusal, Tenancy, current_tenant, function
from hivetenancy.testing import FakeHiveHub

store: dict[str, bytes] = {}


def missing() -> DeniedError:
    """What is not there, and what is another tenant's, give the same answer."""
    return DeniedError.of(Refusal(reason=Reason.NOT_FOUND))


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
        raise missing()
    return Response(store[key], media_type="application/octet-stream")


@function("kv.delete", effect="delete", demand={"operations": 1})
async def delete(request: Request) -> Response:
    tenant = current_tenant()
    key = str(tenant.kv.key(request.path_params["key"]))
    if key not in store:
        raise missing()
    async with tenant.charge(key):
        del store[key]
    return Response(status_code=204)


@function("kv.list", effect="read", demand={"operations": 1})
async def keys(request: Request) -> Response:
    names = current_tenant().kv
    return JSONResponse(sorted(str(names.strip(key)) for key in store if names.owns(key)))


@function("kv.watch", effect="read")
async def watch(websocket: WebSocket) -> None:
    """Answers each key that it is sent with whether it is there; each message is one call."""
    await websocket.accept()
    names = current_tenant().kv
    async for name in websocket.iter_text():
        await websocket.send_json({name: str(names.key(name)) in store})


async def livez(request: Request) -> Response:
    return PlainTextResponse("alive")


routes = [
    Route("/kv", keys, methods=["GET"]),
    Route("/kv/{key:path}", put, methods=["PUT"]),
    Route("/kv/{key:path}", get, methods=["GET"]),
    Route("/kv/{key:path}", delete, methods=["DELETE"]),
    WebSocketRoute("/watch", watch),
    Route("/livez", livez, methods=["GET"]),
]


def build(hub: FakeHiveHub) -> ASGIApp:
    """The server on *hub*: a fake one here, your control plane in production."""
    return Tenancy.embedded(hub).asgi(Starlette(routes=list(routes)), public=("GET /livez",))


if __name__ == "__main__":
    import uvicorn

    hub = FakeHiveHub()
    for name in ("acme", "globex"):
        key = hub.add_tenant(name, plan="pro").issue_key(permissions=["read", "write", "delete"])
        print(f"{name}: curl -H 'Authorization: Bearer {key.secret}' http://127.0.0.1:8000/kv")
    uvicorn.run(build(hub), host="127.0.0.1", port=8000)
