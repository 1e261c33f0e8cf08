"""Drives an ASGI application as a server would, and as strictly as the protocol allows.

httpx's transport, which tests of ASGI applications often use, sends no lifespan, hands the answer over when it is whole
and knows no WebSocket; what must be seen here are the chunks as they are sent, a client that leaves half-way, and a
refusal before the handshake. This driver calls the application in a task of its own, answers its ``receive`` and checks
each message that it sends: what a server would have to guess about is an `AsgiProtocolError`, not a lenient answer.

Nothing sleeps. Whatever waits has a time limit, and says what it waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote

from .asgi_http import Body, Exchange, Response
from .asgi_lifespan import Lifespan, LifespanFailedError
from .asgi_run import Application, AsgiProtocolError, ClientDisconnectedError
from .asgi_websocket import WebSocket, WebSocketClosedError

__all__ = [
    "Application",
    "AsgiClient",
    "AsgiProtocolError",
    "Body",
    "ClientDisconnectedError",
    "Exchange",
    "Headers",
    "LifespanFailedError",
    "Response",
    "WebSocket",
    "WebSocketClosedError",
]

Text: TypeAlias = str | bytes
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[Text, Text]]
"""Headers to send: a mapping, or pairs where one name may come twice; text is encoded as latin-1."""

_UNRESERVED: Final = "/%:@!$&'()*+,;=~-._"


class AsgiClient:
    """A client that speaks ASGI to *app*.

    As ``async with AsgiClient(app) as client`` it sends the lifespan: the application starts before the block and is
    shut down after it. Without the block no lifespan is sent, as by servers that have none.

    Args:
        app: The application.
        timeout: Seconds that any single wait may take.
        lifespan: ``auto``: an application that raises at the lifespan scope has none, as uvicorn takes it; ``on``: it
            must have one.
        raise_app_exceptions: Whether what the application raises reaches the caller. ``False``: it is the response's
            *error*, and where no answer had begun the status is 500, as a server would answer.
        root_path: Where the application is mounted.
        scheme: ``http`` or ``https``; a WebSocket uses ``ws`` or ``wss``.
        http_version: What the client speaks.
        spec_version: Of ASGI for HTTP: after the client left, ``send`` does nothing in 2.3, which uvicorn speaks, and
            raises `ClientDisconnectedError` in 2.4. WebSockets are always of 2.4, as uvicorn's are.
        client: Address and port of the client; ``None``: unknown, as over a unix socket.
        server: Name and port of the server.

    Concurrency:
        Belongs to one event loop; any number of requests at once.
    """

    def __init__(
        self,
        app: Application,
        *,
        timeout: float = 5,
        lifespan: Literal["auto", "on"] = "auto",
        raise_app_exceptions: bool = True,
        root_path: str = "",
        scheme: Literal["http", "https"] = "http",
        http_version: str = "1.1",
        spec_version: Literal["2.3", "2.4"] = "2.3",
        client: tuple[str, int] | None = ("127.0.0.1", 50_000),
        server: tuple[str, int] = ("testserver", 80),
    ) -> None:
        self._app = app
        self._timeout = timeout
        self._lifespan_mode = lifespan
        self._raises = raise_app_exceptions
        self._root_path = root_path
        self._scheme = scheme
        self._http_version = http_version
        self._spec_version = spec_version
        self._client = client
        self._server = server
        self._lifespan: Lifespan | None = None
        self.state: dict[str, Any] = {}

    async def __aenter__(self) -> AsgiClient:
        """Start the application.

        Raises:
            LifespanFailedError: It answered ``lifespan.startup.failed``.
            AsgiProtocolError: It broke the protocol.
        """
        self._lifespan = Lifespan(self._app, self.state, self._timeout)
        await self._lifespan.start(required=self._lifespan_mode == "on")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut the application down.

        Raises:
            LifespanFailedError: It answered ``lifespan.shutdown.failed``.
            AsgiProtocolError: It broke the protocol.
        """
        if self._lifespan is not None:
            await self._lifespan.stop()

    @property
    def has_lifespan(self) -> bool:
        """Whether the application took the lifespan."""
        return self._lifespan is not None and self._lifespan.supported

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: Body = b"",
        query: Text | None = None,
        raw_path: bytes | None = None,
        extensions: Mapping[str, Mapping[str, Any]] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and return the whole answer.

        ``Host`` is added where *headers* has none; so is ``Content-Length``, or ``Transfer-Encoding`` for a body in
        chunks, unless *headers* says either.

        Args:
            method: The method, as it stands.
            path: The path as in a URL, with a query behind ``?`` if *query* is ``None``. With *raw_path* it is put
                into the scope as it stands.
            headers: The headers.
            body: The body. Chunks are asked for one by one; an error of theirs counts as the client's leaving, and is
                raised once the application has ended.
            query: The query, without ``?``.
            raw_path: The path's bytes on the wire; ``None``: those of *path*.
            extensions: What the server offers, by name.
            timeout: Seconds for the whole exchange; ``None``: the client's.

        Raises:
            AsgiProtocolError: The application broke the protocol.
            TimeoutError: The application did not end in time; it is cancelled.
            Exception: What the application raised, with *raise_app_exceptions*.
        """
        limit = self._timeout if timeout is None else timeout
        async with self.stream(
            method,
            path,
            headers=headers,
            body=body,
            query=query,
            raw_path=raw_path,
            extensions=extensions,
            timeout=limit,
        ) as exchange:
            return await exchange.response()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: Body | None = b"",
        query: Text | None = None,
        raw_path: bytes | None = None,
        extensions: Mapping[str, Mapping[str, Any]] | None = None,
        buffer: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Exchange]:
        """Send a request and follow the exchange.

        Leaving the block before the application has ended disconnects, and waits for it to end.

        Args:
            method: As in `request`; so are *path*, *headers*, *query*, *raw_path* and *extensions*.
            path: The path.
            headers: The headers.
            body: The body; ``None``: `Exchange.send` sends it, chunk by chunk.
            query: The query.
            raw_path: The path's bytes.
            extensions: What the server offers.
            buffer: How many chunks of the answer may lie unread before the application's ``send`` waits, as it does
                where a client reads slowly; ``None``: any number.
            timeout: Seconds that any single wait may take; ``None``: the client's.

        Raises:
            AsgiProtocolError: The application broke the protocol.
            TimeoutError: The application did not end in time; it is cancelled.
            Exception: What the application raised, with *raise_app_exceptions*, unless the block raised.
        """
        limit = self._timeout if timeout is None else timeout
        pairs = _pairs(headers)
        _complete_headers(pairs, body, self._server)
        scope = self._scope("http", self._scheme, path, query, raw_path, pairs, extensions) | {"method": method}
        exchange = Exchange(scope, body, buffer=buffer, timeout=limit, raises=self._raises)
        exchange._start(self._app)
        try:
            yield exchange
        except BaseException:
            await exchange._abandon()
            raise
        await exchange._finish()

    @asynccontextmanager
    async def websocket(
        self,
        path: str,
        *,
        headers: Headers = (),
        subprotocols: Iterable[str] = (),
        query: Text | None = None,
        raw_path: bytes | None = None,
        denial_extension: bool = True,
        timeout: float | None = None,
    ) -> AsyncIterator[WebSocket]:
        """Open a WebSocket; the block begins once the application has accepted or refused it.

        Leaving the block closes it with 1000, and waits for the application to end.

        Args:
            path: As in `request`; so are *headers*, *query* and *raw_path*.
            headers: The headers; those of the handshake are added.
            subprotocols: What the client offers.
            query: The query.
            raw_path: The path's bytes.
            denial_extension: Whether the server lets the application refuse with an answer of its own
                (``websocket.http.response``); without, a refusal is a bare 403.
            timeout: Seconds that any single wait may take; ``None``: the client's.

        Raises:
            AsgiProtocolError: The application broke the protocol.
            TimeoutError: The application did not answer, or did not end, in time; it is cancelled.
            Exception: What the application raised, with *raise_app_exceptions*, unless the block raised.
        """
        offered = list(subprotocols)
        pairs = _pairs(headers)
        _complete_handshake(pairs, offered, self._server)
        extensions: dict[str, Mapping[str, Any]] = {"websocket.http.response": {}} if denial_extension else {}
        scheme = "wss" if self._scheme == "https" else "ws"
        scope = self._scope("websocket", scheme, path, query, raw_path, pairs, extensions) | {"subprotocols": offered}
        limit = self._timeout if timeout is None else timeout
        socket = WebSocket(scope, timeout=limit, raises=self._raises)
        socket._start(self._app)
        try:
            await socket._handshake()
            yield socket
        except BaseException:
            await socket._abandon()
            raise
        await socket._finish()

    def _scope(
        self,
        kind: str,
        scheme: str,
        path: str,
        query: Text | None,
        raw_path: bytes | None,
        headers: list[tuple[bytes, bytes]],
        extensions: Mapping[str, Mapping[str, Any]] | None,
    ) -> dict[str, Any]:
        if query is None and raw_path is None:
            path, _, query = path.partition("?")
        if raw_path is None:
            raw_path = quote(path, safe=_UNRESERVED).encode("ascii")
            path = unquote(path)
        scope: dict[str, Any] = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": self._spec_version if kind == "http" else "2.4"},
            "http_version": self._http_version,
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": _bytes(query or b""),
            "root_path": self._root_path,
            "headers": headers,
            "client": self._client,
            "server": self._server,
            "extensions": {name: dict(value) for name, value in (extensions or {}).items()},
        }
        if self.has_lifespan:
            scope["state"] = self.state.copy()
        return scope


def _bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _pairs(headers: Headers) -> list[tuple[bytes, bytes]]:
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(_bytes(name).lower(), _bytes(value)) for name, value in items]


def _complete_headers(headers: list[tuple[bytes, bytes]], body: Body | None, server: tuple[str, int]) -> None:
    """Add what every client sends."""
    _add_host(headers, server)
    named = {name for name, _ in headers}
    if body == b"" or named & {b"content-length", b"transfer-encoding"}:
        return
    if isinstance(body, bytes):
        headers.append((b"content-length", str(len(body)).encode("ascii")))
    else:
        headers.append((b"transfer-encoding", b"chunked"))


def _complete_handshake(headers: list[tuple[bytes, bytes]], offered: list[str], server: tuple[str, int]) -> None:
    _add_host(headers, server)
    headers += [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),  # the one of RFC 6455, section 1.3
    ]
    if offered:
        headers.append((b"sec-websocket-protocol", ", ".join(offered).encode("ascii")))


def _add_host(headers: list[tuple[bytes, bytes]], server: tuple[str, int]) -> None:
    if not any(name == b"host" for name, _ in headers):
        host, port = server
        headers.insert(0, (b"host", (host if port in (80, 443) else f"{host}:{port}").encode("ascii")))
