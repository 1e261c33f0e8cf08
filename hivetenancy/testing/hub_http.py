"""The real client over a fake hub, without a network.

httpx has a transport for ASGI applications, which hands over only whole answers; what is tested here are also those
that break off, and connections that never come about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx

from hivetenancy.authority.api_http import Message
from hivetenancy.hub.client import HiveHub

from .faults import ConnectionFaultError
from .hub_app import FakeHubApp

URL: Final = "http://127.0.0.1"
"""What the client takes the fake for: this machine, without a port that anybody listens on."""


class FakeTransport(httpx.AsyncBaseTransport):
    """Hands requests to a fake's application, and its broken connections to httpx.

    Args:
        app: The application.
    """

    def __init__(self, app: FakeHubApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request.

        Raises:
            httpx.ConnectError: A fault refused the connection.
            httpx.ReadError: A fault broke it before an answer began.
        """
        content = await request.aread()
        asked = iter([{"type": "http.request", "body": content, "more_body": False}])
        sent: list[Message] = []

        async def receive() -> Message:
            for message in asked:
                return message
            await asyncio.Event().wait()  # the caller never hangs up: it cancels
            raise AssertionError("unreachable")

        async def send(message: Message) -> None:
            sent.append(message)

        broken: ConnectionFaultError | None = None
        try:
            await self._app(_scope(request), receive, send)
        except ConnectionFaultError as fault:
            broken = fault
        if broken is not None and not sent:
            failure = httpx.ConnectError if broken.kind == "refused" else httpx.ReadError
            raise failure(str(broken), request=request)
        return httpx.Response(
            sent[0]["status"],
            headers=sent[0]["headers"],
            stream=_Body([message["body"] for message in sent[1:]], broken),
            request=request,
        )


class _Body(httpx.AsyncByteStream):
    """What the application sent, and where it broke off."""

    def __init__(self, pieces: list[bytes], broken: ConnectionFaultError | None) -> None:
        self._pieces = pieces
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._broken is not None:
            raise httpx.ReadError(str(self._broken))


def _scope(request: httpx.Request) -> dict[str, Any]:
    raw_path, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }


def connected(app: FakeHubApp, *, service_key: str, **options: Any) -> HiveHub:
    """Return the real client over *app*; see `hivetenancy.testing.hub.FakeHiveHub.connect`."""
    client: Any = httpx.AsyncClient(transport=FakeTransport(app))
    return HiveHub(URL, service_key, **{"http": client, "allow_fake": True, **options})
