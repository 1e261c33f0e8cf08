"""Answers that outlive their key: a stream ends when the key does, and is not made to look whole."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.functions import function
from hivetenancy.testing.asgi import AsgiClient, AsgiProtocolError
from tests.adapters.host import Stage

pytestmark = pytest.mark.anyio

ended: list[str] = []


@function("events.read", effect="read")
async def events(request: Request) -> Response:
    async def rows() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: x\n\n"
                if request.query_params.get("idle"):
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
        finally:
            ended.append("ended")

    return StreamingResponse(rows(), media_type="text/event-stream")


@function("events.plain", effect="read")
class Plain:
    """The same without Starlette's help."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.Event().wait()
        finally:
            ended.append("ended")


@pytest.mark.parametrize("path", ["/events", "/events?idle=1", "/plain"])
@pytest.mark.parametrize("how", ["revoke", "suspend"])
async def test_revocation_breaks_a_stream_off(path: str, how: str) -> None:
    """Busy or idle, it ends unfinished; its generator is closed and nothing stays held."""
    stage = Stage()
    ended.clear()
    app = TenancyASGI(Starlette(routes=[Route("/events", events), Route("/plain", Plain())]), stage.tenancy)
    async with AsgiClient(app) as client:
        with pytest.raises(AsgiProtocolError, match="before its answer was finished"):
            async with client.stream("GET", path, headers=stage.key.headers) as exchange:
                assert await exchange.next_chunk()
                assert (await stage.held())["registered"] == 1
                if how == "revoke":
                    stage.key.revoke()
                else:
                    stage.acme.suspend()
                while await exchange.next_chunk() is not None:
                    pass
        gc.collect()  # a generator that the framework left suspended in `yield` is closed by the loop, when it is found
        for _ in range(10):
            await asyncio.sleep(0)
        assert ended == ["ended"]
        assert await stage.held() == {}


async def test_a_stream_that_ends_by_itself_is_whole_and_leaves_the_registry() -> None:
    """The ordinary case."""
    stage = Stage()

    @function("rows.read", effect="read")
    async def rows(request: Request) -> Response:
        async def three() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"row"

        return StreamingResponse(three())

    async with AsgiClient(TenancyASGI(Starlette(routes=[Route("/", rows)]), stage.tenancy)) as client:
        answer = await client.request("GET", "/", headers=stage.key.headers)
        assert (answer.complete, answer.body) == (True, b"rowrowrow")
        assert await stage.held() == {}


async def test_a_cancellation_that_is_not_ours_stays_one() -> None:
    """A server that cancels its request task still sees it cancelled."""
    stage = Stage()
    app = TenancyASGI(Starlette(routes=[Route("/plain", Plain())]), stage.tenancy)
    async with AsgiClient(app) as client:
        begun = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                begun.set()

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "GET", "path": "/plain", "raw_path": b"/plain", "query_string": b""}
        bearer = (b"authorization", f"Bearer {stage.key.secret}".encode())
        task = asyncio.ensure_future(app({**scope, "headers": [bearer]}, receive, send))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stage.held() == {}
        assert client.has_lifespan
