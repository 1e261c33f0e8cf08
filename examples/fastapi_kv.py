"""A multi-tenant key-value server on FastAPI, with its documentation pages open to everybody.

    pip install 'hivetenancy[demo]' fastapi
    python examples/fastapi_kv.py

It prints a key and serves on http://127.0.0.1:8000; http://127.0.0.1:8000/docs shows the lock at each operation.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.types import ASGIApp

from hivetenancy import DeniedError, Reason, Refusal, Tenancy, Tenant
from hivetenancy.adapters.fastapi import require
from hivetenancy.testing import FakeHiveHub

store: dict[str, str] = {}

Reader = Annotated[Tenant, Depends(require("kv.get", effect="read", demand={"operations": 1}))]
Writer = Annotated[Tenant, Depends(require("kv.set", effect="write", demand={"operations": 1}))]
Lister = Annotated[Tenant, Depends(require("kv.list", effect="read", demand={"operations": 1}))]


class Value(BaseModel):
    """What is stored under a key."""

    text: str


router = APIRouter(prefix="/kv", tags=["keys"])


@router.get("")
async def keys(tenant: Lister) -> list[str]:
    return sorted(str(tenant.kv.strip(key)) for key in store if tenant.kv.owns(key))


@router.put("/{name}", status_code=204)
def put(name: str, value: Value, tenant: Writer) -> Response:
    """A `def` handler: FastAPI runs it in a thread, and `with` hands the charge to the tenancy's loop."""
    key = str(tenant.kv.key(name))
    with tenant.charge(key, storage_bytes=len(value.text.encode())):
        store[key] = value.text
    return Response(status_code=204)


@router.get("/{name}")
async def get(name: str, tenant: Reader) -> Value:
    key = str(tenant.kv.key(name))
    if key not in store:
        raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND))
    return Value(text=store[key])


def build(hub: FakeHiveHub) -> ASGIApp:
    """The server on *hub*: a fake one here, your control plane in production."""
    app = FastAPI(title="Keys", redoc_url=None, swagger_ui_oauth2_redirect_url=None)
    app.include_router(router)
    return Tenancy.embedded(hub).asgi(app, public=("GET /docs", "GET /openapi.json"))


if __name__ == "__main__":
    import uvicorn

    hub = FakeHiveHub()
    key = hub.add_tenant("acme", plan="pro").issue_key(permissions=["read", "write"])
    print(f"curl -H 'X-API-Key: {key.secret}' http://127.0.0.1:8000/kv")
    uvicorn.run(build(hub), host="127.0.0.1", port=8000)
