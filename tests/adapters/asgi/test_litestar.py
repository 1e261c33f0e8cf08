"""Litestar: guards in the nodes of its trie, errors handed over by its hook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, DeniedError, HubUnavailableError, InvalidNameError
from hivetenancy.functions import FunctionSpec, function
from hivetenancy.ids import Effect
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient, AsgiProtocolError
from tests.adapters.host import Stage, problem

pytest.importorskip("litestar", reason="Litestar is in the extra `hosts`")

from litestar import Litestar, Request, WebSocket, asgi, get, put, websocket
from litestar.logging import LoggingConfig
from litestar.response import Stream

pytestmark = pytest.mark.anyio

RAISED = {
    "denied": DeniedError.of(Refusal(reason=Reason.NOT_FOUND)),
    "name": InvalidNameError("empty"),
    "unavailable": HubUnavailableError("gone"),
}


@get("/items/{name:str}")
@function("item.get", effect="read")
async def read(request: Request[Any, Any, Any]) -> str:
    name = request.path_params["name"]
    if name in RAISED:
        raise RAISED[name]
    if name == "break":
        raise RuntimeError("the handler broke")
    return current_tenant().id


@put("/items", status_code=200)
@function("item.set", effect="write", demand={"operations": 1})
async def write(request: Request[Any, Any, Any]) -> str:
    return str(len(await request.body()))


@get("/sync", sync_to_thread=True)
@function("item.sync", effect="read")
def sync() -> str:
    return current_tenant().id


@get("/stream")
@function("item.stream", effect="read")
async def stream() -> Stream:
    async def rows() -> AsyncIterator[bytes]:
        yield b"one"
        raise RAISED["denied"]

    return Stream(rows())


@websocket("/ws")
@function("item.talk", effect="read")
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while True:
        text = await socket.receive_text()
        if text in RAISED:
            raise RAISED[text]
        await socket.send_text(current_tenant().id)


@asgi("/raw", is_mount=True, copy_scope=True)
@function("item.raw", effect="read")
async def raw(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"raw"})


def litestar(*more: Any, **options: Any) -> Litestar:
    return Litestar([read, write, sync, stream, talk, raw, *more], openapi_config=None, **options)


async def test_handlers_of_every_kind_are_guarded() -> None:
    """HTTP, sync, WebSocket and mounted ASGI handlers; the trie's 404 and 405 are ours."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(litestar(), stage.tenancy)) as client:
        for path in ("/items/a", "/sync", "/raw", "/raw/deep/er"):
            assert (await client.request("GET", path)).status == 401, path
            answer = await client.request("GET", path, headers=stage.key.headers)
            assert (answer.status, answer.header("ratelimit") is not None) == (200, True), path
        assert (await client.request("GET", "/items/a", headers=stage.key.headers)).text == stage.id
        assert (await client.request("PUT", "/items", headers=stage.reader.headers)).status == 403
        assert problem(await client.request("GET", "/nowhere", headers=stage.key.headers)) == (404, "NOT_FOUND")
        assert problem(await client.request("DELETE", "/items", headers=stage.key.headers))[0] == 405
        options = await client.request("OPTIONS", "/items", headers=stage.key.headers)
        assert (options.status, options.header("allow")) == (204, "OPTIONS, PUT")
        assert (await client.request("OPTIONS", "/items")).status == 401
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            await socket.send("hello")
            assert await socket.receive() == stage.id
        async with client.websocket("/ws") as socket:
            assert socket.refusal.status == 401
        assert await stage.held() == {}


@pytest.mark.parametrize(
    ("which", "expected"),
    [("denied", (404, "NOT_FOUND")), ("name", (400, "INVALID_NAME")), ("unavailable", (503, "UNAVAILABLE"))],
)
async def test_a_refusal_raised_in_a_handler(which: str, expected: tuple[int, str]) -> None:
    """Litestar renders nothing and logs no traceback, though it is told to log every exception."""
    stage = Stage()
    logged: list[str] = []
    config = LoggingConfig(
        configure_root_logger=False,
        log_exceptions="always",
        exception_logging_handler=lambda logger, scope, traceback: logged.append(traceback[-1]),
    )
    async with AsgiClient(TenancyASGI(litestar(logging_config=config), stage.tenancy)) as client:
        answer = await client.request("GET", f"/items/{which}", headers=stage.key.headers)
        assert problem(answer) == expected
        assert not logged
        await client.request("GET", "/items/break", headers=stage.key.headers)
        assert logged == ["RuntimeError: the handler broke\n"]
        assert await stage.held() == {}


async def test_a_handler_s_own_failure_stays_litestar_s() -> None:
    """Its 500 goes out; nothing stays held."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(litestar(), stage.tenancy)) as client:
        answer = await client.request("GET", "/items/break", headers=stage.key.headers)
        assert (answer.status, answer.json()["detail"]) == (500, "Internal Server Error")
        assert await stage.held() == {}


async def test_a_refusal_after_the_first_byte() -> None:
    """The answer is left unfinished."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(litestar(), stage.tenancy)) as client:
        with pytest.raises(AsgiProtocolError, match="before its answer was finished"):
            await client.request("GET", "/stream", headers=stage.key.headers)
        assert await stage.held() == {}


async def test_bodies_are_bounded() -> None:
    """Declared or not, 413."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(litestar(), stage.tenancy)) as client:
        for body in (b"x" * 101, [b"x" * 60, b"x" * 60]):
            answer = await client.request("PUT", "/items", headers=stage.key.headers, body=body)
            assert problem(answer) == (413, "PAYLOAD_TOO_LARGE")
        assert (await client.request("PUT", "/items", headers=stage.key.headers, body=b"x" * 100)).text == "100"


async def test_websocket_refusals_and_revocation() -> None:
    """With the catalogue's codes instead of Litestar's 4500."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(litestar(), stage.tenancy)) as client:
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            await socket.send("denied")
            assert await socket.closed() == (4404, "NOT_FOUND")
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            await socket.send("hello")
            await socket.receive()
            stage.key.revoke()
            assert await socket.closed() == (4401, "INVALID_CREDENTIAL")
        assert await stage.held() == {}


async def test_a_handler_without_a_function_does_not_start_and_none_is_added_later() -> None:
    """A table names what cannot be marked."""

    @get("/open")
    async def unmarked() -> str:
        return "secret"

    with pytest.raises(ConfigurationError, match="GET /open has no function"):
        TenancyASGI(litestar(unmarked), Stage().tenancy)
    stage = Stage()
    app = litestar(unmarked)
    table = {"GET /open": FunctionSpec(name="open.read", effect=Effect.READ), "OPTIONS /open": "open.read"}
    guarded = TenancyASGI(app, stage.tenancy, functions=table)
    async with AsgiClient(guarded) as client:
        assert (await client.request("GET", "/open", headers=stage.key.headers)).text == "secret"

    @get("/late")
    async def late() -> str:
        return "secret"

    with pytest.raises(ConfigurationError, match="sealed"):
        app.register(late)


async def test_what_was_routed_before_the_wrapping_is_guarded_too() -> None:
    """Litestar remembers its matches; that memory is emptied."""
    stage = Stage()
    app = litestar()
    app.asgi_router.handle_routing(path="/items/a", method="GET")
    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        assert (await client.request("GET", "/items/a")).status == 401
        assert (await client.request("GET", "/items/a", headers=stage.key.headers)).header("ratelimit")
