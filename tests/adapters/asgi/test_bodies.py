"""Bodies: bounded before they are read and as they arrive, never buffered; clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.adapters.http import HttpOptions
from hivetenancy.functions import function
from hivetenancy.testing.asgi import AsgiClient, AsgiProtocolError
from tests.adapters.host import Stage, problem

pytestmark = pytest.mark.anyio

reached: list[str] = []


@function("kv.set", effect="write", demand={"operations": 1})
async def put(request: Request) -> Response:
    reached.append("put")
    return PlainTextResponse(str(len(await request.body())))


@function("kv.catch", effect="write", demand={"operations": 1})
async def catch(request: Request) -> Response:
    try:
        await request.body()
    except BaseException:
        return PlainTextResponse("all is well")
    return PlainTextResponse("whole")


@function("kv.echo", effect="write")
class Echo:
    """Sends back each chunk as it comes; no StreamingResponse, because that watches `receive` itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def guarded(stage: Stage) -> TenancyASGI:
    routes = [Route(f"/{handler.__name__}", handler, methods=["PUT", "GET"]) for handler in (put, catch)]
    routes += [Route("/echo", Echo(), methods=["PUT"])]
    return TenancyASGI(Starlette(routes=routes), stage.tenancy)


def chunks(*sizes: int) -> list[bytes]:
    return [b"x" * size for size in sizes]


async def test_a_declared_length_over_the_plan_is_413_before_the_handler() -> None:
    """Nothing is read, nothing is held, and the connection is not closed under the client's upload."""
    stage = Stage()
    reached.clear()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("PUT", "/put", headers=stage.key.headers, body=b"x" * 101)
        assert problem(answer) == (413, "PAYLOAD_TOO_LARGE")
        assert answer.header("connection") is None
        assert answer.header("retry-after") is None
        assert await stage.held() == {}
        assert (await client.request("PUT", "/put", headers=stage.key.headers, body=b"x" * 100)).text == "100"
    assert reached == ["put"]


@pytest.mark.parametrize("path", ["/put", "/catch"])
async def test_a_body_without_a_length_is_counted_as_it_arrives(path: str) -> None:
    """The handler sees its client leave; whatever it catches or answers, the client gets 413."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("PUT", path, headers=stage.key.headers, body=chunks(60, 60, 60))
        assert problem(answer) == (413, "PAYLOAD_TOO_LARGE")
        assert await stage.held() == {}
        cells = {cell.dimension: cell.used for cell in await stage.tenancy.gate.usage(stage.acme.id)}
        assert cells["operations"] == 0
        whole = await client.request("PUT", path, headers=stage.key.headers, body=chunks(60, 40))
        assert whole.status == 200


async def test_a_get_with_a_body_is_bounded_as_well() -> None:
    """Its declared length is not looked at; its bytes are counted."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("GET", "/put", headers=stage.key.headers, body=b"x" * 101)
        assert problem(answer) == (413, "PAYLOAD_TOO_LARGE")


async def test_too_long_after_the_answer_has_begun_leaves_it_unfinished() -> None:
    """A 413 cannot be told any more, and a clean end would say that all went well."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        with pytest.raises(AsgiProtocolError, match="before its answer was finished"):
            await client.request("PUT", "/echo", headers=stage.key.headers, body=chunks(60, 60))
        assert await stage.held() == {}


async def test_the_host_s_own_bound_counts_where_it_is_smaller() -> None:
    """max_body_bytes bounds every plan, public routes included."""
    stage = Stage(http=HttpOptions(max_body_bytes=10))

    async def ping(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/put", put, methods=["PUT"]), Route("/ping", ping, methods=["POST"])])
    async with AsgiClient(TenancyASGI(app, stage.tenancy, public=("POST /ping",))) as client:
        assert problem(await client.request("PUT", "/put", headers=stage.key.headers, body=b"x" * 11))[0] == 413
        assert (await client.request("PUT", "/put", headers=stage.key.headers, body=b"x" * 10)).text == "10"
        assert problem(await client.request("POST", "/ping", body=b"x" * 11))[0] == 413
        assert (await client.request("POST", "/ping", body=b"x" * 10)).text == "10"


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"abc", b"", b"99999999999999999999999"])
async def test_strange_lengths_never_break_anything(length: bytes) -> None:
    """A length that is no number is the server's business; one that is, is compared."""
    stage = Stage()
    headers = [(b"authorization", b"Bearer " + stage.key.secret.encode()), (b"content-length", length)]
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("PUT", "/put", headers=headers, body=b"x")
    assert answer.status == (413 if length.startswith(b"999") else 200)


async def test_bodies_are_not_buffered() -> None:
    """The first chunk comes back before the second is sent."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        async with client.stream("PUT", "/echo", headers=stage.key.headers, body=None) as exchange:
            for piece in (b"one", b"two"):
                await exchange.send(piece, more=True)
                assert await exchange.next_chunk() == piece
            await exchange.send(b"", more=False)
            assert await exchange.next_chunk() is None


async def test_a_client_that_leaves_in_its_body_leaves_nothing_held() -> None:
    """The handler sees the disconnect; the demand is released."""
    stage = Stage()
    async with AsgiClient(guarded(stage), raise_app_exceptions=False) as client:
        async with client.stream("PUT", "/put", headers=stage.key.headers, body=None) as exchange:
            await exchange.send(b"half", more=True)
        assert await stage.held() == {}


async def test_a_client_that_leaves_in_the_answer_leaves_nothing_held() -> None:
    """Slots and registrations of a stream end with it."""
    stage = Stage()

    @function("kv.stream", effect="read")
    async def stream(request: Request) -> Response:
        async def rows() -> AsyncIterator[bytes]:
            while True:
                yield b"row"
                await asyncio.sleep(0)

        return StreamingResponse(rows())

    app: Any = TenancyASGI(Starlette(routes=[Route("/", stream)]), stage.tenancy)
    async with AsgiClient(app, raise_app_exceptions=False) as client:
        async with client.stream("GET", "/", headers=stage.key.headers, buffer=1) as exchange:
            assert await exchange.next_chunk() == b"row"
            assert (await stage.held())["in-flight"] == 1
        assert await stage.held() == {}
