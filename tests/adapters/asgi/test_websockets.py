"""WebSockets: refused before accept, each message a call, closed with the catalogue's code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, HubUnavailableError, InvalidNameError
from hivetenancy.functions import function
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient, WebSocketClosedError
from tests.adapters.host import Stage, problem

pytestmark = pytest.mark.anyio

RAISED = {
    "denied": (DeniedError.of(Refusal(reason=Reason.NOT_FOUND)), 4404, "NOT_FOUND"),
    "name": (InvalidNameError("empty"), 4400, "INVALID_NAME"),
    "unavailable": (HubUnavailableError("gone"), 1013, "UNAVAILABLE"),
}


@function("chat.talk", effect="write", demand={"operations": 1})
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        if text in RAISED:
            raise RAISED[text][0]
        if text == "break":
            raise RuntimeError("the handler broke")
        await websocket.send_text(f"{current_tenant().id} {text}")


@function("chat.push", effect="read")
async def push(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text("tick")
        await asyncio.sleep(0)


@function("chat.early", effect="read")
async def early(websocket: WebSocket) -> None:
    raise RAISED["denied"][0]


async def undeclared(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def guarded(stage: Stage, *more: Any, **options: Any) -> TenancyASGI:
    handlers = (talk, push, early)
    routes = [WebSocketRoute(f"/{handler.__name__}", handler) for handler in handlers]
    return TenancyASGI(Starlette(routes=[*routes, *more]), stage.tenancy, **options)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "MISSING_CREDENTIAL"),
        ({"X-API-Key": "wrong-wrong-wrong-wrong"}, 401, "INVALID_CREDENTIAL"),
        ({"X-API-Key": "short"}, 400, "INVALID_CREDENTIAL_CARRIER"),
    ],
)
async def test_refused_before_accept(headers: dict[str, str], status: int, code: str) -> None:
    """The handshake gets the real status and body where the server offers that, and is closed where it does not."""
    async with AsgiClient(guarded(Stage())) as client:
        async with client.websocket("/talk", headers=headers) as socket:
            assert problem(socket.refusal) == (status, code)
        async with client.websocket("/talk", headers=headers, denial_extension=False) as socket:
            assert (socket.accepted, socket.status) == (False, 403)


async def test_a_bad_path_and_an_unknown_one() -> None:
    """400 for a path that cannot be one, 404 for a route that is not there, which costs a unit."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk%00", headers=stage.key.headers) as socket:
            assert problem(socket.refusal) == (400, "INVALID_PATH")
        async with client.websocket("/nowhere", headers=stage.key.headers) as socket:
            assert problem(socket.refusal) == (404, "NOT_FOUND")
        key = stage.tight()
        for expected in (404, 404, 429):
            async with client.websocket("/nowhere", headers=key.headers) as socket:
                assert socket.refusal.status == expected


async def test_each_message_is_one_call() -> None:
    """The handshake takes a unit and no demand; each message takes both, and counts when the handler comes back."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk", headers=stage.key.headers) as socket:
            for text in ("one", "two", "three"):
                await socket.send(text)
                assert await socket.receive() == f"{stage.acme.id} {text}"
            held = await stage.held()
            assert held.pop("registered") == 1
            assert held.pop("connections") == 1
            assert held == {}
        cells = {cell.dimension: cell.used for cell in await stage.tenancy.gate.usage(stage.acme.id)}
        assert cells["operations"] == 3
        assert await stage.held() == {}


async def test_a_handshake_is_checked_like_a_call() -> None:
    """A key without the permission is 403 before accept."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk", headers=stage.reader.headers) as socket:
            assert problem(socket.refusal) == (403, "FORBIDDEN")
        assert await stage.held() == {}


async def test_connections_are_bounded_by_the_plan() -> None:
    """The third at once is 429; when one ends, the next comes in."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk", headers=stage.key.headers):
            async with client.websocket("/talk", headers=stage.key.headers) as second:
                assert second.accepted
                async with client.websocket("/talk", headers=stage.key.headers) as third:
                    assert problem(third.refusal) == (429, "QUOTA_EXCEEDED")
            async with client.websocket("/talk", headers=stage.key.headers) as fourth:
                assert fourth.accepted
        assert await stage.held() == {}


async def test_messages_over_the_rate_close_with_4429() -> None:
    """Two units: the handshake and one message; the second message ends it and says how long to wait."""
    stage = Stage()
    key = stage.hub.add_tenant("slow", plan="tight").issue_key(permissions=["read"])

    @function("chat.listen", effect="read")
    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async with AsgiClient(guarded(stage, WebSocketRoute("/listen", listen))) as client:
        async with client.websocket("/listen", headers=key.headers) as socket:
            await socket.send("one")
            assert await socket.receive() == "one"
            await socket.send("two")
            assert await socket.closed() == (4429, "RATE_LIMITED; retry after 1 s")


@pytest.mark.parametrize("path", ["/talk", "/push"])
async def test_revocation_closes_an_idle_and_a_busy_connection(path: str) -> None:
    """Nobody has to send anything: the feed's word closes it with 4401."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket(path, headers=stage.key.headers) as socket:
            if path == "/push":
                assert await socket.receive() == "tick"
            stage.key.revoke()
            assert await socket.closed() == (4401, "INVALID_CREDENTIAL")
        assert await stage.held() == {}


async def test_suspension_closes_and_another_tenant_goes_on() -> None:
    """Only the suspended tenant's connections end."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk", headers=stage.key.headers) as mine:
            async with client.websocket("/talk", headers=stage.rivals.headers) as theirs:
                stage.acme.suspend()
                assert (await mine.closed())[0] == 4401
                await theirs.send("hello")
                assert await theirs.receive() == f"{stage.rival.id} hello"


async def test_stop_closes_connections() -> None:
    """The server's own end is told as such."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk", headers=stage.key.headers) as socket:
            await stage.tenancy.stop()
            code, _ = await socket.closed()
            assert code in (1001, 1012, 1013)


@pytest.mark.parametrize("which", RAISED)
async def test_a_refusal_raised_while_a_message_is_worked_on_closes_with_its_code(which: str) -> None:
    """The close code and reason are the catalogue's; the message's demand is released."""
    stage = Stage()
    _, code, reason = RAISED[which]
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/talk", headers=stage.key.headers) as socket:
            await socket.send(which)
            assert await socket.closed() == (code, reason)
        cells = {cell.dimension: cell.used for cell in await stage.tenancy.gate.usage(stage.acme.id)}
        assert cells["operations"] == 0
        assert await stage.held() == {}


async def test_a_refusal_raised_before_accept_refuses_the_handshake() -> None:
    """As over HTTP."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.websocket("/early", headers=stage.key.headers) as socket:
            assert problem(socket.refusal) == (404, "NOT_FOUND")


async def test_a_handler_that_breaks_leaves_nothing_held() -> None:
    """Its error reaches the server; the connection's slot and the message's demand are free."""
    stage = Stage()
    async with AsgiClient(guarded(stage), raise_app_exceptions=False) as client:
        async with client.websocket("/talk", headers=stage.key.headers) as socket:
            await socket.send("break")
            with pytest.raises(WebSocketClosedError):
                await socket.receive()
        assert await stage.held() == {}


async def test_a_client_that_vanishes_leaves_nothing_held() -> None:
    """Even in the middle of a message."""
    stage = Stage()
    async with AsgiClient(guarded(stage), raise_app_exceptions=False) as client:
        async with client.websocket("/talk", headers=stage.key.headers) as socket:
            await socket.send("one")
            socket.close(1006)
        assert await stage.held() == {}


async def test_class_based_and_public_websockets() -> None:
    """A marker on the class declares it; a public one is listed as the GET that it is on the wire."""
    stage = Stage()

    @function("chat.class", effect="read")
    class Echo(WebSocketEndpoint):
        encoding = "text"

        async def on_receive(self, websocket: WebSocket, data: str) -> None:
            await websocket.send_text(current_tenant().id)

    async def status(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    app = guarded(stage, WebSocketRoute("/class", Echo), WebSocketRoute("/status", status), public=("GET /status",))
    async with AsgiClient(app) as client:
        async with client.websocket("/class", headers=stage.reader.headers) as socket:
            await socket.send("hello")
            assert await socket.receive() == stage.acme.id
        async with client.websocket("/status") as socket:
            await socket.send("hello")
            assert await socket.receive() == "hello"
            assert (await socket.closed())[0] == 1000
        async with client.websocket("/class") as socket:
            assert socket.refusal.status == 401


async def test_a_websocket_accepted_without_a_guard_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A middleware that accepts by itself gets a refusal out, never an acceptance."""
    stage = Stage()
    app = guarded(stage)

    class Eager:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket" and scope["path"] == "/leak":
                await undeclared(WebSocket(scope, receive, send))
            else:
                await self.app(scope, receive, send)

    app = TenancyASGI(Starlette(routes=[WebSocketRoute("/talk", talk)], middleware=[(Eager, (), {})]), stage.tenancy)
    async with AsgiClient(app, raise_app_exceptions=False) as client:
        async with client.websocket("/leak", headers=stage.key.headers) as socket:
            assert problem(socket.refusal) == (403, "FORBIDDEN")
    assert "no function was declared" in caplog.text


async def test_a_reader_that_is_cancelled_loses_no_message() -> None:
    """A handler may give up waiting and wait again."""
    stage = Stage()

    @function("chat.patient", effect="read")
    async def patient(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(3):
            waiting = asyncio.ensure_future(websocket.receive_text())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await websocket.send_text("ready")
        await websocket.send_text(await websocket.receive_text())

    async with AsgiClient(guarded(stage, WebSocketRoute("/patient", patient))) as client:
        async with client.websocket("/patient", headers=stage.key.headers) as socket:
            assert await socket.receive() == "ready"
            await socket.send("hello")
            assert await socket.receive() == "hello"
