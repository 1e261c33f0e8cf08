"""The ASGI driver: what a server would do, and no mercy for an application that breaks the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hivetenancy.testing import (
    AsgiClient,
    AsgiProtocolError,
    LifespanFailedError,
    ManualClock,
    WebSocketClosedError,
)
from hivetenancy.testing.asgi import ClientDisconnectedError
from tests.hub.virtual_loop import VirtualLoop

pytestmark = pytest.mark.anyio

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}
MORE: dict[str, Any] = {**BODY, "more_body": True}


def says(*messages: dict[str, Any], error: Exception | None = None) -> Any:
    """An application that sends these messages, whatever it is asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that sends back what it receives, message by message."""
    await send(START)
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


def scope_of(seen: list[dict[str, Any]]) -> Any:
    """An application that notes its scope."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send(START)
        await send(BODY)

    return app


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_request_and_its_answer() -> None:
    """Status, headers in order, body, text and JSON arrive; a header is found by any spelling of its name."""
    headers = [(b"x-one", b"1"), (b"x-two", b"a"), (b"x-two", b"b")]
    app = says({**START, "status": 201, "headers": headers}, {**MORE, "body": b"[1,"}, {**BODY, "body": b" 2]"})
    response = await AsgiClient(app).request("GET", "/")
    assert (response.status, response.headers, response.complete) == (201, tuple(headers), True)
    assert (response.chunks, response.body, response.text, response.json()) == (
        (b"[1,", b" 2]"),
        b"[1, 2]",
        "[1, 2]",
        [1, 2],
    )
    assert (response.header("X-One"), response.header("x-three")) == ("1", None)
    assert response.header_values("X-Two") == ["a", "b"]
    with pytest.raises(AssertionError, match="x-two was sent 2 times"):
        response.header("x-two")


async def test_the_scope_is_a_servers() -> None:
    """Path and raw path, query, headers in lower case and what a client adds are as a server gives them."""
    seen: list[dict[str, Any]] = []
    client = AsgiClient(scope_of(seen), root_path="/api", scheme="https", server=("example.org", 8443), client=None)
    extensions = {"tls": {"version": 1}}
    await client.request("PUT", "/a%20b/é?x=%2f&y", headers={"X-Key": "v"}, body=b"abc", extensions=extensions)
    scope = seen[0]
    assert (scope["type"], scope["method"], scope["http_version"], scope["scheme"]) == ("http", "PUT", "1.1", "https")
    assert (scope["path"], scope["raw_path"]) == ("/a b/é", b"/a%20b/%C3%A9")
    assert (scope["query_string"], scope["root_path"]) == (b"x=%2f&y", "/api")
    assert (scope["client"], scope["server"], scope["extensions"]) == (None, ("example.org", 8443), extensions)
    assert scope["headers"] == [(b"host", b"example.org:8443"), (b"x-key", b"v"), (b"content-length", b"3")]
    assert "state" not in scope


async def test_what_a_test_says_stands() -> None:
    """Raw path, query and headers that a test gives are sent as they are, twice and wrong if it wants them so."""
    seen: list[dict[str, Any]] = []
    client = AsgiClient(scope_of(seen))
    headers = [("Host", "other"), (b"Content-Length", b"99"), ("a", "1"), ("A", "\xff")]
    await client.request("GET", "/%zz?x", raw_path=b"/%ff", query="q=%", headers=headers, body=b"abc")
    scope = seen[0]
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/%zz?x", b"/%ff", b"q=%")
    assert scope["headers"] == [(b"host", b"other"), (b"content-length", b"99"), (b"a", b"1"), (b"a", b"\xff")]


async def test_chunks_are_sent_as_they_come() -> None:
    """A body in chunks, from either kind of iterable, is received chunk by chunk and announced as chunked."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    for body in (chunks(), [b"one", b"two"]):
        response = await AsgiClient(echo).request("POST", "/", body=body)
        assert response.chunks == (b"one", b"two")
    seen: list[dict[str, Any]] = []
    await AsgiClient(scope_of(seen)).request("POST", "/", body=[b"x"])
    assert (b"transfer-encoding", b"chunked") in seen[0]["headers"]


async def test_chunks_are_asked_for_when_they_are_received() -> None:
    """An application that does not read a body does not make the client produce it."""
    produced: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(5):
            produced.append(number)
            yield b"x"

    await AsgiClient(says(START, BODY)).request("POST", "/", body=chunks())
    assert produced == []


async def test_a_body_that_fails_is_a_client_that_leaves() -> None:
    """An error of the test's own body is the test's; to the application the client has left."""
    received: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([(await receive())["type"], (await receive())["type"]])

    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await AsgiClient(app).request("POST", "/", body=chunks())
    assert received == ["http.request", "http.disconnect"]


async def test_a_head_has_no_body() -> None:
    """The body of an answer to HEAD is dropped, as a server does, and not held to its length."""
    app = says({**START, "headers": [(b"content-length", b"99")]}, BODY)
    response = await AsgiClient(app).request("HEAD", "/")
    assert (response.chunks, response.header("content-length")) == ((), "99")


async def test_trailers() -> None:
    """Trailers arrive where the server offers them and they were announced."""
    trailer = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
    app = says({**START, "trailers": True}, BODY, {**trailer, "more_trailers": True}, trailer)
    response = await AsgiClient(app).request("GET", "/", extensions={"http.response.trailers": {}})
    assert (response.trailers, response.complete) == (((b"x-sum", b"1"), (b"x-sum", b"1")), True)


# --- broken applications ---------------------------------------------------------------------------------------------

LONG = {**START, "headers": [(b"content-length", b"1")]}
TWO = {**START, "headers": [(b"content-length", b"1"), (b"content-length", b"2")]}
SHORT = {**START, "headers": [(b"content-length", b"3")]}
BROKEN: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "nothing": ("returned without an answer", ()),
    "no body": ("returned before its answer was finished", (START,)),
    "half a body": ("returned before its answer was finished", (START, MORE)),
    "body first": ("body before http.response.start", (BODY,)),
    "two starts": ("came twice", (START, START)),
    "after the end": ("http.response.body after the answer was finished", (START, BODY, BODY)),
    "start after the end": ("after the answer was finished", (START, BODY, START)),
    "unknown": ("'http.response.push' is no message", ({"type": "http.response.push"},)),
    "no type": ("None is no message", ({},)),
    "a text status": ("status must be", ({**START, "status": "200"},)),
    "an interim status": ("status must be", ({**START, "status": 100},)),
    "text headers": ("a name and a value in bytes", ({**START, "headers": [("a", "b")]},)),
    "three in a header": ("a name and a value in bytes", ({**START, "headers": [(b"a", b"b", b"c")]},)),
    "upper case": ("lower-case name", ({**START, "headers": [(b"A", b"b")]},)),
    "split header": ("no line break", ({**START, "headers": [(b"a", b"b\r\nc: d")]},)),
    "empty name": ("lower-case name", ({**START, "headers": [(b"", b"b")]},)),
    "two lengths": ("one whole number", (TWO,)),
    "a length of text": ("one whole number", ({**START, "headers": [(b"content-length", b"x")]},)),
    "too long": ("content-length said 1, the body has 2", (LONG, BODY)),
    "too short": ("content-length said 3, the body has 2", (SHORT, BODY)),
    "text body": ("body must be bytes", (START, {**BODY, "body": "ok"})),
    "more as a number": ("more_body a bool", (START, {**BODY, "more_body": 1})),
    "a body with 204": ("has no body", ({**START, "status": 204}, BODY)),
    "trailers not offered": ("does not offer", ({**START, "trailers": True}, BODY)),
    "trailers unannounced": ("unannounced", (START, MORE, {"type": "http.response.trailers"})),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("swallow", [False, True], ids=["raised", "swallowed"])
async def test_a_broken_application_fails_loudly(broken: str, swallow: bool) -> None:
    """Each breach of the protocol is an error that says what it was, though the application swallows it."""
    message, messages = BROKEN[broken]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await says(*messages)(scope, receive, send)
        except AsgiProtocolError:
            if not swallow:
                raise

    for raises in (True, False):
        with pytest.raises(AsgiProtocolError, match=message):
            await AsgiClient(app, raise_app_exceptions=raises).request("GET", "/")


async def test_what_an_application_raises_is_raised() -> None:
    """An error before, within and after the answer reaches the test, unless it asked for a server's answer."""
    for messages, status, complete in (((), 500, False), ((START, MORE), 200, False), ((START, BODY), 200, True)):
        app = says(*messages, error=KeyError("broken"))
        with pytest.raises(KeyError, match="broken"):
            await AsgiClient(app).request("GET", "/")
        response = await AsgiClient(app, raise_app_exceptions=False).request("GET", "/")
        assert (response.status, response.complete, repr(response.error)) == (status, complete, "KeyError('broken')")


def test_an_application_that_hangs_is_cancelled() -> None:
    """Every wait has an end, and says what it waited for; nothing is left running."""
    loop = VirtualLoop(ManualClock())  # or a slow machine would cut off the answer that does begin
    try:
        waits = loop.create_task(hang_and_be_cancelled())
        loop.advance(10)
        assert waits.result() == ["/never", "/late", "/ws"]
    finally:
        loop.close()


async def hang_and_be_cancelled() -> list[str]:
    """Ask an application that hangs in every way; return what ended."""
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            if scope["path"] == "/late":
                await send(START)
                await send(BODY)
            await asyncio.Event().wait()
        finally:
            ended.append(scope["path"])

    client = AsgiClient(app, timeout=0.02)
    with pytest.raises(TimeoutError, match=r"waited 0\.02 s for the answer to begin"):
        await client.request("GET", "/never")
    with pytest.raises(TimeoutError, match="still running"):
        await client.request("GET", "/late")
    with pytest.raises(TimeoutError, match="to be accepted or refused"):
        async with client.websocket("/ws"):
            pass
    return ended


async def test_an_application_that_ends_cancelled() -> None:
    """An application that lets a cancellation of its own out is at fault."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(AsgiProtocolError):
        await AsgiClient(app).request("GET", "/")


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_an_answer_is_followed_chunk_by_chunk() -> None:
    """Chunks arrive as they are sent, in answer to what the client sends meanwhile."""
    async with AsgiClient(echo).stream("POST", "/", body=None) as exchange:
        assert await exchange.started() == 200
        for chunk in (b"one", b"two"):
            await exchange.send(chunk)
            assert await exchange.next_chunk() == chunk
        await exchange.send(b"end", more=False)
        assert [chunk async for chunk in exchange] == [b"end"]
        assert (await exchange.response()).body == b"onetwoend"
        with pytest.raises(ValueError, match="not open"):
            await exchange.send(b"late")
    async with AsgiClient(echo).stream("POST", "/", body=b"whole") as exchange:
        with pytest.raises(ValueError, match="body=None"):
            await exchange.send(b"more")
        await exchange.response()


async def test_a_client_that_leaves_within_the_body() -> None:
    """A client that leaves half-way through its body is a disconnect to the application."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            received.append(message.get("body", message["type"]))
            if message["type"] == "http.disconnect":
                return

    async with AsgiClient(app).stream("POST", "/", body=None) as exchange:
        await exchange.send(b"half")
        exchange.disconnect()
        with pytest.raises(ClientDisconnectedError, match="before the answer began"):
            await exchange.started()
    assert received[-1] == "http.disconnect"


@pytest.mark.parametrize(("version", "last"), [("2.3", "sent"), ("2.4", "the client is gone")])
async def test_a_client_that_leaves_within_the_answer(version: Any, last: str) -> None:
    """After a disconnect nothing arrives; the application hears of it, and since ASGI 2.4 from ``send`` too."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(MORE)
        log.append((await receive())["type"])
        try:
            await send(BODY)
            log.append("sent")
        except OSError as error:
            log.append(str(error))
            raise

    async with AsgiClient(app, spec_version=version).stream("GET", "/") as exchange:
        assert await exchange.next_chunk() == b"ok"
        exchange.disconnect()
        assert await exchange.next_chunk() is None
    assert log == ["http.disconnect", last]


async def test_leaving_the_block_disconnects() -> None:
    """A block that is left, quietly or by an error, ends the exchange and the application."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send(START)
            log.append((await receive())["type"])
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    client = AsgiClient(app)
    async with client.stream("GET", "/") as exchange:
        await exchange.started()
    with pytest.raises(KeyError):
        async with client.stream("GET", "/") as exchange:
            await exchange.started()
            raise KeyError("the test's own")
    assert log == ["http.disconnect", "cancelled"]


async def test_a_slow_reader_holds_the_application_back() -> None:
    """With a buffer, ``send`` waits until the client has read enough; a client that leaves frees it."""
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number in range(10):
            await send(MORE)
            sent.append(number)
        await send({**BODY, "body": b""})

    client = AsgiClient(app)
    for buffer in (0, 2):
        sent.clear()
        async with client.stream("GET", "/", buffer=buffer) as exchange:
            await exchange.started()
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0))])
            assert len(sent) == buffer
            await exchange.next_chunk()
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0))])
            assert len(sent) == buffer + 1
    assert len(sent) == 10, "freed by leaving"


async def test_receive_after_the_answer_says_disconnect() -> None:
    """After its answer an application that listens on is told that the client is gone, as by a server."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(BODY)
        log.append((await receive())["type"])

    await AsgiClient(app).request("GET", "/")
    assert log == ["http.disconnect"]


# --- WebSockets ------------------------------------------------------------------------------------------------------


def socket(*messages: dict[str, Any], error: Exception | None = None) -> Any:
    """An application that answers a handshake with these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await says(*messages, error=error)(scope, receive, send)

    return app


ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
CLOSE: dict[str, Any] = {"type": "websocket.close"}
SEND: dict[str, Any] = {"type": "websocket.send", "text": "hi"}
DENY: dict[str, Any] = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]}
DENIAL: dict[str, Any] = {"type": "websocket.http.response.body", "body": b"no"}


async def test_a_websocket_is_accepted_and_used() -> None:
    """Texts and bytes go both ways; what was offered and chosen, and the handshake's headers, are there."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await receive()
        await send({**ACCEPT, "subprotocol": "b", "headers": [(b"x", b"y")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        seen.append(message)

    client = AsgiClient(app, scheme="https")
    async with client.websocket("/ws?a=b", headers={"X-Key": "v"}, subprotocols=["a", "b"]) as ws:
        assert (ws.accepted, ws.status, ws.subprotocol, ws.headers) == (True, 101, "b", ((b"x", b"y"),))
        for data in ("text", b"bytes"):
            await ws.send(data)
            assert await ws.receive() == data
        with pytest.raises(AssertionError, match="was accepted"):
            _ = ws.refusal
        ws.close(4000, "enough")
        ws.close()
        with pytest.raises(WebSocketClosedError) as closed:
            await ws.send("late")
        assert (closed.value.code, closed.value.reason) == (4000, "enough")
    scope, last = seen
    headers = dict(scope["headers"])
    assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "wss", "/ws")
    assert (scope["query_string"], scope["subprotocols"]) == (b"a=b", ["a", "b"])
    assert (headers[b"upgrade"], headers[b"x-key"], headers[b"sec-websocket-protocol"]) == (b"websocket", b"v", b"a, b")
    assert last == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}


async def test_leaving_the_block_closes() -> None:
    """A WebSocket that the test leaves is closed with 1000."""
    codes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        codes.append((await receive())["code"])

    async with AsgiClient(app).websocket("/") as ws:
        assert ws.close_code is None
    assert codes == [1000]


async def test_a_websocket_that_the_application_closes() -> None:
    """Messages sent before the close are read first, then code and reason come, and to the application too."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in (ACCEPT, SEND, {**CLOSE, "code": 4401, "reason": "revoked"}):
            await send(message)
        received.append(await receive())

    async with AsgiClient(app).websocket("/") as ws:
        assert await ws.receive() == "hi"
        assert await ws.closed() == (4401, "revoked")
        for again in (ws.receive(), ws.send("x")):
            with pytest.raises(WebSocketClosedError, match="closed with 4401 revoked"):
                await again
    assert (ws.close_code, ws.close_reason) == (4401, "revoked")
    assert received == [{"type": "websocket.disconnect", "code": 4401, "reason": "revoked"}]


async def test_a_websocket_whose_application_ends() -> None:
    """An application that ends without a close leaves a broken connection: 1006."""
    async with AsgiClient(socket(ACCEPT)).websocket("/") as ws:
        with pytest.raises(WebSocketClosedError, match="1006"):
            await ws.receive()
    async with AsgiClient(socket(ACCEPT)).websocket("/") as ws:
        assert (await ws.closed())[0] == 1006


async def test_a_websocket_that_is_refused() -> None:
    """A close before the acceptance is a bare 403; with the extension an answer of the application's own."""
    async with AsgiClient(socket({**CLOSE, "code": 4000})).websocket("/") as ws:
        assert (ws.accepted, ws.status, ws.refusal.body, ws.close_code) == (False, 403, b"", None)
        for use in (ws.send("x"), ws.receive()):
            with pytest.raises(WebSocketClosedError, match="refused with status 403"):
                await use
    denied = socket(DENY, {**DENIAL, "more_body": True}, DENIAL)
    async with AsgiClient(denied).websocket("/") as ws:
        assert (ws.status, ws.headers, ws.refusal.body) == (401, ((b"a", b"b"),), b"nono")
        assert ws.refusal.header("a") == "b"
    with pytest.raises(AsgiProtocolError, match=r"no answer to websocket\.connect here"):
        async with AsgiClient(denied).websocket("/", denial_extension=False):
            pass


async def test_sending_to_a_client_that_is_gone() -> None:
    """What is sent after the client left fails in the application, which is no fault of its."""
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        log.append((await receive())["type"])
        try:
            await send(SEND)
        except OSError:
            log.append("failed")
            raise

    async with AsgiClient(app).websocket("/") as ws:
        ws.close(1006)
    assert log == ["websocket.disconnect", "failed"]


BROKEN_SOCKETS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "silence": ("without accepting or refusing", ()),
    "half a refusal": ("without accepting or refusing", (DENY,)),
    "a message first": ("no answer to websocket.connect", (SEND,)),
    "http": ("no answer to websocket.connect", (START,)),
    "a body without start": ("no answer to websocket.connect", (DENIAL,)),
    "two refusals": ("no answer to websocket.connect", (DENY, DENY)),
    "a refusal of 101": ("status must be", ({**DENY, "status": 101},)),
    "a refusal of text": ("body must be bytes", (DENY, {**DENIAL, "body": "no"})),
    "a protocol not offered": ("was not offered", ({**ACCEPT, "subprotocol": "x"},)),
    "a header of text": ("in bytes", ({**ACCEPT, "headers": [("a", "b")]},)),
    "two acceptances": ("no message of an open WebSocket", (ACCEPT, ACCEPT)),
    "nothing to send": ("either text or bytes", (ACCEPT, {"type": "websocket.send"})),
    "both to send": ("either text or bytes", (ACCEPT, {**SEND, "bytes": b"x"})),
    "after the close": ("after the WebSocket was closed", (ACCEPT, CLOSE, SEND)),
    "after the refusal": ("after the WebSocket was closed", (CLOSE, ACCEPT)),
    "a reserved code": ("no code", (ACCEPT, {**CLOSE, "code": 1006})),
    "a small code": ("no code", (ACCEPT, {**CLOSE, "code": 1})),
    "a long reason": ("at most 123", (ACCEPT, {**CLOSE, "reason": "x" * 124})),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN_SOCKETS)
async def test_a_broken_websocket_application_fails_loudly(broken: str) -> None:
    """Each breach of the WebSocket protocol is an error that says what it was."""
    message, messages = BROKEN_SOCKETS[broken]
    with pytest.raises(AsgiProtocolError, match=message):
        async with AsgiClient(socket(*messages)).websocket("/", subprotocols=["a"]) as ws:
            await ws.closed()


async def test_what_a_websocket_application_raises() -> None:
    """An error before the acceptance and after it reaches the test, or is a 500 and a broken connection."""
    early, late = socket(error=KeyError("x")), socket(ACCEPT, error=KeyError("x"))
    for app in (early, late):
        with pytest.raises(KeyError):
            async with AsgiClient(app).websocket("/") as ws:
                await ws.closed()
    async with AsgiClient(early, raise_app_exceptions=False).websocket("/") as ws:
        assert (ws.status, repr(ws.refusal.error)) == (500, "KeyError('x')")
    async with AsgiClient(late, raise_app_exceptions=False).websocket("/") as ws:
        assert (await ws.closed())[0] == 1006


# --- lifespan --------------------------------------------------------------------------------------------------------


def living(log: list[str], **answers: dict[str, Any]) -> Any:
    """An application with a lifespan that notes what happens, and may answer otherwise."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            log.append(f"request {scope['state']}")
            await says(START, BODY)(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            log.append(step)
            scope["state"][step] = True
            await send(answers.get(step, {"type": f"lifespan.{step}.complete"}))

    return app


async def test_the_lifespan_surrounds_the_requests() -> None:
    """The application starts before the block and is shut down after it; requests see a copy of its state."""
    log: list[str] = []
    async with AsgiClient(living(log), lifespan="on") as client:
        assert client.has_lifespan
        await client.request("GET", "/")
    assert log == ["startup", "request {'startup': True}", "shutdown"]


async def test_no_block_no_lifespan() -> None:
    """Without the block an application is called as by a server that sends no lifespan."""
    seen: list[dict[str, Any]] = []
    await AsgiClient(scope_of(seen)).request("GET", "/")
    assert [scope["type"] for scope in seen] == ["http"]


async def test_an_application_that_fails_to_start_or_stop() -> None:
    """The application's own message reaches the test."""
    log: list[str] = []
    failed = {"type": "lifespan.startup.failed", "message": "no route has a function"}
    with pytest.raises(LifespanFailedError, match="no route has a function"):
        async with AsgiClient(living(log, startup=failed)):
            log.append("never")
    with pytest.raises(LifespanFailedError, match="failed to shut down"):
        async with AsgiClient(living(log, shutdown={"type": "lifespan.shutdown.failed"})):
            pass
    assert "never" not in log


@pytest.mark.parametrize("app", [says(), says(START), says(error=KeyError("x"))], ids=["silent", "http only", "raises"])
async def test_an_application_without_lifespan(app: Any) -> None:
    """An application that does not take the scope has no lifespan, unless the test says that it must."""
    async with AsgiClient(app) as client:
        assert not client.has_lifespan
    with pytest.raises(LifespanFailedError, match="does not take the lifespan"):
        async with AsgiClient(app, lifespan="on"):
            pass


async def test_a_broken_lifespan() -> None:
    """An application that dies, hangs or answers wrongly between start and end is at fault."""

    async def dies(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise KeyError("died")

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(KeyError, match="died"):
        async with AsgiClient(dies):
            pass
    with pytest.raises(AsgiProtocolError, match=r"without lifespan\.shutdown\.complete"):
        async with AsgiClient(returns):
            pass
    with pytest.raises(TimeoutError, match=r"lifespan\.startup\.complete"):
        async with AsgiClient(hangs, timeout=0.02):
            pass
    with pytest.raises(AsgiProtocolError, match=r"does not answer lifespan\.shutdown"):
        async with AsgiClient(living([], shutdown={"type": "lifespan.startup.complete"})):
            pass


# --- a real framework ------------------------------------------------------------------------------------------------


def starlette(log: list[str]) -> Starlette:
    """A small application of every kind."""

    async def size(request: Request) -> JSONResponse:
        try:
            body = await request.body()
        except ClientDisconnect:
            log.append("left")
            raise
        return JSONResponse({"path": request.path_params["path"], "size": len(body)})

    async def stream(request: Request) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"one"
                yield b"two"
                await asyncio.Event().wait()
            finally:
                log.append("stream ended")

        return StreamingResponse(chunks())

    async def later(request: Request) -> Response:
        return Response("ok", background=BackgroundTask(log.append, "background"))

    async def fails(request: Request) -> Response:
        raise KeyError("handler")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text((await socket.receive_text()).upper())
        except WebSocketDisconnect as error:
            log.append(f"socket {error.code}")

    async def deny(socket: WebSocket) -> None:
        await socket.send_denial_response(JSONResponse({"code": "NO"}, status_code=401))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        log.append("up")
        yield
        log.append("down")

    routes = [
        Route("/size/{path:path}", size, methods=["PUT"]),
        Route("/stream", stream),
        Route("/later", later),
        Route("/fails", fails),
        WebSocketRoute("/talk", talk),
        WebSocketRoute("/deny", deny),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def test_starlette_is_driven_whole() -> None:
    """Requests, streams, WebSockets, refusals, errors and the lifespan of a real framework work as on a server."""
    log: list[str] = []
    async with AsgiClient(starlette(log)) as client:
        response = await client.request("PUT", "/size/a%20b", body=[b"x"] * 3)
        assert response.json() == {"path": "a b", "size": 3}
        assert (await client.request("GET", "/later")).text == "ok"
        assert (await client.request("GET", "/nowhere")).status == 404
        async with client.stream("GET", "/stream") as exchange:
            assert [await exchange.next_chunk(), await exchange.next_chunk()] == [b"one", b"two"]
        async with client.websocket("/talk") as ws:
            await ws.send("hi")
            assert await ws.receive() == "HI"
        async with client.websocket("/deny") as ws:
            assert (ws.status, ws.refusal.json()) == (401, {"code": "NO"})
        with pytest.raises(KeyError, match="handler"):
            await client.request("GET", "/fails")
    assert log == ["up", "background", "stream ended", "socket 1000", "down"]
    lenient = AsgiClient(starlette(log), raise_app_exceptions=False)
    failed = await lenient.request("GET", "/fails")
    assert (failed.status, failed.complete, repr(failed.error)) == (500, True, "KeyError('handler')")


async def test_starlette_notices_a_client_that_leaves_within_its_body() -> None:
    """A framework's own reading of the body ends when the client leaves."""
    log: list[str] = []
    with pytest.raises(ClientDisconnect):
        async with AsgiClient(starlette(log)).stream("PUT", "/size/a", body=None) as exchange:
            await exchange.send(b"half")
            exchange.disconnect()
    assert log == ["left"]
