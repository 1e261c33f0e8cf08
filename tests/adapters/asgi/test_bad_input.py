"""Everything a client can send gets its answer from the catalogue: never a 500, never a hang."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.functions import function
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.host import Stage, problem

pytestmark = pytest.mark.anyio

KEY = "hh_test_0123456789abcdef"


@function("kv.get", effect="read")
async def get(request: Request) -> Response:
    return PlainTextResponse(str(current_tenant().kv.key(request.path_params["key"])))


def guarded(stage: Stage) -> TenancyASGI:
    routes = [Route("/kv/{key:path}", get), Mount("/sub", routes=[Route("/kv/{key:path}", get)])]
    return TenancyASGI(Starlette(routes=routes), stage.tenancy)


CARRIERS: dict[str, tuple[list[tuple[bytes, bytes]], str, int, str]] = {
    "two headers": (
        [(b"x-api-key", b"k" * 20), (b"x-hub-access-key", b"k" * 20)],
        "",
        400,
        "INVALID_CREDENTIAL_CARRIER",
    ),
    "one twice": ([(b"x-api-key", b"k" * 20), (b"x-api-key", b"k" * 20)], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "empty": ([(b"x-api-key", b"")], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "bearer empty": ([(b"authorization", b"Bearer ")], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "10 kB": ([(b"x-api-key", b"k" * 10_000)], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "non-ASCII": ([(b"x-api-key", "schlüssel-schlüssel".encode())], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "control": ([(b"x-api-key", b"0123456789\x010123456789")], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "spaces": ([(b"x-api-key", b"0123456789 0123456789")], "", 400, "INVALID_CREDENTIAL_CARRIER"),
    "wrong scheme": ([(b"authorization", b"Basic dXNlcjpwYXNzd29yZA==")], "", 401, "MISSING_CREDENTIAL"),
    "in the query": ([(b"x-api-key", b"k" * 20)], "?api_key=" + KEY, 400, "INVALID_CREDENTIAL_CARRIER"),
    "query alone": ([], "?access_token=" + KEY, 400, "INVALID_CREDENTIAL_CARRIER"),
    "unknown": ([(b"x-api-key", b"k" * 20)], "", 401, "INVALID_CREDENTIAL"),
}


@pytest.mark.parametrize("which", CARRIERS)
async def test_credentials(which: str) -> None:
    """A fault of the carrier is 400 and names the carriers; a fault of the key is 401."""
    headers, query, status, code = CARRIERS[which]
    async with AsgiClient(guarded(Stage())) as client:
        assert problem(await client.request("GET", "/kv/a" + query, headers=headers)) == (status, code)


PATHS: dict[bytes, tuple[int, str | None]] = {
    b"/kv/a": (200, None),
    b"/kv/..": (200, None),
    b"/kv/../../etc/passwd": (200, None),
    b"/kv//": (200, None),
    b"/kv//a//": (200, None),
    b"//kv/a": (404, "NOT_FOUND"),
    b"/kv/a%2fb": (200, None),
    b"/kv%2fa": (200, None),  # the server decodes before anybody matches
    b"/kv/%00": (400, "INVALID_PATH"),
    b"/kv/a%0ab": (400, "INVALID_PATH"),
    b"/kv/%7f": (400, "INVALID_PATH"),
    b"/kv/%c2%85": (400, "INVALID_PATH"),
    b"/kv/%ff": (400, "INVALID_PATH"),
    b"/kv/%ed%a0%80": (400, "INVALID_PATH"),
    b"/kv/%zz": (400, "INVALID_PATH"),
    b"/kv/%": (400, "INVALID_PATH"),
    b"/kv/\x00": (400, "INVALID_PATH"),
    b"/kv/\xff": (400, "INVALID_PATH"),
    b"/kv/%e2%82%ac": (200, None),
    "/kv/€".encode(): (200, None),
    b"/kv": (307, None),
    b"/kv/": (400, "INVALID_NAME"),
    b"/kv/" + b"n" * 5_000: (400, "INVALID_NAME"),
    b"/sub/kv/a": (200, None),
    b"/sub/kv/%00": (400, "INVALID_PATH"),
    b"/sub": (307, None),
    b"*": (404, "NOT_FOUND"),
    b"example.com:443": (404, "NOT_FOUND"),
    b"/" + b"x" * 60_000: (404, "NOT_FOUND"),
}


@pytest.mark.parametrize("raw", PATHS, ids=lambda raw: repr(raw[:24]))
@pytest.mark.parametrize("root_path", ["", "/root"])
async def test_paths(raw: bytes, root_path: str) -> None:
    """A path that cannot be one is 400 before anything else is looked at; every other one is the router's business."""
    stage = Stage()
    status, code = PATHS[raw]
    async with AsgiClient(guarded(stage), root_path=root_path) as client:
        path = unquote(raw.decode("utf-8", "replace"))  # what a lenient server makes of it
        if root_path and raw.startswith(b"/"):
            path, raw = root_path + path, root_path.encode() + raw
        answer = await client.request("GET", path, raw_path=raw, headers=stage.key.headers)
        keyless = await client.request("GET", path, raw_path=raw)
    assert answer.status == status, answer
    if code is not None:
        assert problem(answer) == (status, code)
    assert keyless.status == (400 if code == "INVALID_PATH" else 401)


async def test_a_server_without_raw_paths() -> None:
    """The decoded path is looked at instead."""
    stage = Stage()
    app = guarded(stage)

    async def hides_raw_path(scope: Any, receive: Any, send: Any) -> None:
        scope.pop("raw_path", None)
        await app(scope, receive, send)

    async with AsgiClient(hides_raw_path) as client:
        assert (await client.request("GET", "/kv/a", headers=stage.key.headers)).status == 200
        for bad in ("/kv/%00", "/kv/%ff", "/kv/%0a"):
            assert problem(await client.request("GET", bad, headers=stage.key.headers)) == (400, "INVALID_PATH")


@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "HEAD", "TRACE", "BREW", "get", "PROPFIND", "*", "X" * 2_000])
@pytest.mark.parametrize("path", ["/kv/a", "/nowhere", "/sub/kv/a"])
async def test_methods(method: str, path: str) -> None:
    """Whatever the method: 401 without a key; the router's own answer, or the handler's, with one."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        assert (await client.request(method, path)).status == 401
        answer = await client.request(method, path, headers=stage.key.headers)
        expected = 404 if path == "/nowhere" else 200 if method == "HEAD" else 405
        assert answer.status == expected
        assert await stage.held() == {}


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "X-Original-URL"])
async def test_override_headers_change_nothing(header: str) -> None:
    """No header makes a request another one."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("GET", "/nowhere", headers={**stage.key.headers, header: "/kv/a"})
        assert answer.status == 404
        assert (await client.request("GET", "/kv/a", headers={header: "GET"})).status == 401


async def test_a_name_with_any_byte_is_a_name_or_a_400() -> None:
    """Each single byte, percent-encoded, gives the handler's answer or the catalogue's, and no other tenant's name."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        for byte in range(256):
            answer = await client.request("GET", f"/kv/a%{byte:02x}b", headers=stage.key.headers)
            assert answer.status in (200, 400), byte
            if answer.status == 200:
                assert answer.text.startswith(f"user:{stage.acme.id}:")
            else:
                assert problem(answer)[1] in ("INVALID_PATH", "INVALID_NAME")
