"""A fake hub as an ASGI application: the wire, and the faults that only bytes can have.

What the application answers is that of `HubApp`; a fault that its call met is put over it here. A broken
connection is nothing that ASGI knows: under uvicorn the connection is cut, anywhere else `ConnectionFaultError` is
raised, which a transport in the same process turns into its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hivetenancy.authority.api import AUTHORITY, hub_app
from hivetenancy.authority.api_http import Answer, ClientGoneError, Receive, Scope, Send
from hivetenancy.authority.backend import Backend
from hivetenancy.clock import SECOND_US

from .faults import EXCHANGE, ConnectionFaultError, Exchange, Fault
from .hub_core import FakeHubCore

_SLOW_SECONDS: Final = 0.1
_MALFORMED: Final = b'{"this is": no JSON'


class FakeHubApp:
    """The wire of one fake hub.

    Args:
        hub: The fake.

    Concurrency:
        Any number of requests, under any number of event loops.
    """

    def __init__(self, hub: Any) -> None:
        fake: FakeHubCore = hub
        backend: Backend = hub
        self._fake = fake
        self._wire = hub_app(backend)

    def __repr__(self) -> str:
        return f"<FakeHubApp of {self._fake!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as the hub, faults included."""
        if scope["type"] != "http":
            await self._wire(scope, receive, send)
            return
        exchange = Exchange()
        token = EXCHANGE.set(exchange)
        try:
            answer = await self._wire.answer(scope, receive)
        except ClientGoneError:
            return  # nobody is left to be told
        finally:
            EXCHANGE.reset(token)
        await self._deliver(answer, exchange.fault, receive, send)

    async def _deliver(self, answer: Answer, fault: Fault | None, receive: Receive, send: Send) -> None:
        connection = None if fault is None else "reset" if fault.reply == "lost" else fault.connection
        if connection is not None:
            await cut(ConnectionFaultError(connection), receive, send)
        elif fault is None or (answer.status >= 400 and fault.reply is not None):
            await self._send(answer.status, answer.headers, answer.body, send)
        elif fault.status is not None:
            again = () if fault.retry_after is None else ((b"retry-after", str(fault.retry_after).encode("ascii")),)
            await self._send(fault.status, again, b'{"error":"a fault of the fake"}', send)
        elif fault.reply == "malformed":
            await self._send(answer.status, answer.headers, _MALFORMED, send)
        elif fault.reply == "truncated":
            await self._begin(answer.status, answer.headers, len(answer.body), send)
            half = answer.body[: len(answer.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            await cut(ConnectionFaultError("reset"), receive, send)
        elif fault.reply == "slow":
            await self._drip(answer, round((fault.latency or _SLOW_SECONDS) * SECOND_US), send)
        else:
            await self._send(answer.status, answer.headers, answer.body, send)

    async def _drip(self, answer: Answer, pause_us: int, send: Send) -> None:
        await self._begin(answer.status, answer.headers, len(answer.body), send)
        for place in range(len(answer.body)):
            await self._fake._door.delay(pause_us)
            await send({"type": "http.response.body", "body": answer.body[place : place + 1], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, headers: tuple[tuple[bytes, bytes], ...], length: int, send: Send) -> None:
        standing = (
            (b"content-type", b"application/json"),
            (AUTHORITY, self._fake.authority.encode("ascii")),
            (b"content-length", str(length).encode("ascii")),
        )
        await send({"type": "http.response.start", "status": status, "headers": [*standing, *headers]})

    async def _send(self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, send: Send) -> None:
        await self._begin(status, headers, len(body), send)
        await send({"type": "http.response.body", "body": body})


async def cut(fault: ConnectionFaultError, receive: Receive, send: Send) -> None:
    """Break the connection that a request came by.

    ASGI has no word for that, so the transport is taken from where uvicorn keeps it; a server that keeps none gets the
    error, and answers 500 or closes.

    Raises:
        ConnectionFaultError: There is no connection here that could be cut.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    abort: Callable[[], None] | None = getattr(transport, "abort", None)
    if abort is None:
        raise fault
    abort()
    while (await receive())["type"] != "http.disconnect":
        pass  # so that the server has seen the end before it is told that there was no answer
