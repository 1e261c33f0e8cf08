"""The examples that this adapter has, driven as a client would."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from hivetenancy.testing.asgi import AsgiClient
from hivetenancy.testing.hub import FakeHiveHub
from tests.adapters.host import problem

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[3] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_starlette_kv() -> None:
    """Two tenants, one store, the same names: each has its own."""
    hub = FakeHiveHub()
    mine = hub.add_tenant("acme", plan="pro").issue_key(permissions=["read", "write", "delete"])
    theirs = hub.add_tenant("globex", plan="pro").issue_key(permissions=["read"])
    async with AsgiClient(load("starlette_kv").build(hub)) as client:
        assert (await client.request("GET", "/livez")).text == "alive"
        assert (await client.request("PUT", "/kv/a/b", headers=mine.headers, body=b"x")).status == 204
        assert (await client.request("GET", "/kv/a/b", headers=mine.headers)).body == b"x"
        assert problem(await client.request("GET", "/kv/a/b", headers=theirs.headers)) == (404, "NOT_FOUND")
        assert (await client.request("GET", "/kv", headers=mine.headers)).json() == ["a/b"]
        assert (await client.request("GET", "/kv", headers=theirs.headers)).json() == []
        async with client.websocket("/watch", headers=mine.headers) as socket:
            await socket.send("a/b")
            assert json.loads(await socket.receive()) == {"a/b": True}
        assert (await client.request("DELETE", "/kv/a/b", headers=theirs.headers)).status == 403
        assert (await client.request("DELETE", "/kv/a/b", headers=mine.headers)).status == 204
        assert (await client.request("DELETE", "/kv/a/b", headers=mine.headers)).status == 404


async def test_fastapi_kv() -> None:
    """The same with dependencies, and its pages open."""
    pytest.importorskip("fastapi", reason="FastAPI is in the extra `hosts`")
    hub = FakeHiveHub()
    mine = hub.add_tenant("acme", plan="pro").issue_key(permissions=["read", "write"])
    theirs = hub.add_tenant("globex", plan="pro").issue_key(permissions=["read"])
    headers = {**mine.headers, "Content-Type": "application/json"}
    async with AsgiClient(load("fastapi_kv").build(hub)) as client:
        assert (await client.request("GET", "/docs")).status == 200
        assert (await client.request("PUT", "/kv/a", headers=headers, body=b'{"text": "x"}')).status == 204
        assert (await client.request("GET", "/kv/a", headers=mine.headers)).json() == {"text": "x"}
        assert problem(await client.request("GET", "/kv/a", headers=theirs.headers)) == (404, "NOT_FOUND")
        assert (await client.request("GET", "/kv", headers=theirs.headers)).json() == []
