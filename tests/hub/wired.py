"""A `HiveHub` on a line that can be listened to and tampered with, to a hub on the wire or to a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx

from hivetenancy.authority.api import hub_app
from hivetenancy.authority.service import HubService
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import TenantId
from hivetenancy.testing import ManualClock

URL = "http://127.0.0.1:12000"
BASE = "/api/internal"
UNKNOWN = TenantId("00000000-0000-4000-8000-000000000000")
SOURCE = "0123456789abcdef0123456789abcdef"
SERVICE_KEY = "svc_synap_0123456789abcdef"


@dataclass(frozen=True)
class Sent:
    """A request as it went out; *target* is the raw path below `BASE` with its query."""

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The fields of the query."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@dataclass(frozen=True)
class Got:
    """A reply on its way; *body* may be a stream that never ends."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def but(self, **changes: Any) -> Got:
        """The reply with fields of its JSON changed; `...` takes one away."""
        value = {**self.json, **changes}
        return Got(self.status, json.dumps({k: v for k, v in value.items() if v is not ...}).encode(), self.headers)


Bend = Callable[[Sent, Got], Got | Awaitable[Got]]
Answer = Callable[[Sent], Got | Awaitable[Got]]


class Stream(httpx.AsyncByteStream):
    """A body piece by piece, which counts what was taken."""

    def __init__(self, piece: bytes, pieces: int, pause_s: float = 0.0) -> None:
        self.piece, self.pieces, self.pause_s, self.taken = piece, pieces, pause_s, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.pieces):
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            self.taken += len(self.piece)
            yield self.piece


class Line(httpx.AsyncBaseTransport):
    """Carries requests to *answer*, keeps them, and lets `bend` change what comes back."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.sent: list[Sent] = []
        self.bend: Bend | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one."""
        raw = request.url.raw_path.decode("ascii")
        body = await request.aread()
        headers = {name.lower(): value for name, value in request.headers.items()}
        sent = Sent(request.method, raw.removeprefix(BASE), headers, body)
        self.sent.append(sent)
        got = await _now(self.answer(sent))
        if self.bend is not None:
            got = await _now(self.bend(sent, got))
        stream = got.body if isinstance(got.body, httpx.AsyncByteStream) else httpx.ByteStream(got.body)
        return httpx.Response(got.status, headers=got.headers, stream=stream)


async def _now(value: Any) -> Got:
    got: Got = await value if isinstance(value, Awaitable) else value
    return got


def from_app(app: Any) -> Answer:
    """Let an ASGI application answer, the target as raw as it came."""

    async def answer(sent: Sent) -> Got:
        incoming = [{"type": "http.request", "body": sent.body, "more_body": False}]
        outgoing: list[Any] = []
        forever = asyncio.Event()

        async def receive() -> Any:
            if not incoming:
                await forever.wait()
            return incoming.pop()

        async def send(message: Any) -> None:
            outgoing.append(message)

        raw, _, query = (BASE + sent.target).encode("ascii").partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "http",
            "path": raw.decode(),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 12000),
        }
        await app(scope, receive, send)
        start, *pieces = outgoing
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Got(start["status"], b"".join(piece["body"] for piece in pieces), headers)

    return answer


def client_on(line: Line, **options: Any) -> HiveHub:
    """A `HiveHub` over *line*, which never pauses between two attempts."""
    given: dict[str, Any] = {"service": "synap", "retries": 0, "allow_fake": True, **options}
    key = given.pop("service_key", SERVICE_KEY)
    hub = HiveHub(given.pop("url", URL), key, http=httpx.AsyncClient(transport=line), **given)

    async def at_once(_seconds: float) -> None:
        await asyncio.sleep(0)

    assert hub._transport is not None
    hub._transport._sleep = at_once
    return hub


class Wired:
    """A hub on the wire with two tenants, and a `HiveHub` to it.

    Attributes:
        clock: Of both.
        service: The control plane.
        line: What lies between.
        hub: The client.
        acme: A tenant on the plan ``pro``.
        other: Another one.
        key: An access key of acme's.
    """

    def __init__(self, *, extensions: Any = ALL_EXTENSIONS, of: str | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.service = HubService(clock=self.clock, authority="fake", extensions=extensions)
        self.service_key = self.service.issue_service_key(of)
        self.acme = self.service.add_tenant("acme", plan="pro")
        self.other = self.service.add_tenant("other", plan="free")
        self.issued = self.service.issue_key(self.acme, name="k", permissions=["read", "write"])
        self.key = self.issued.secret.encode()
        self.line = Line(from_app(hub_app(self.service)))
        self.options = {"clock": self.clock, "service_key": self.service_key.secret, **options}
        self.hub = self.client()

    def client(self, **options: Any) -> HiveHub:
        """Another client on the same line."""
        return client_on(self.line, **{**self.options, **options})

    @contextmanager
    def bent(self, bend: Bend) -> Iterator[None]:
        """Change the replies within the block."""
        self.line.bend = bend
        try:
            yield
        finally:
            self.line.bend = None

    def down(self) -> Any:
        """No connection within the block."""

        def refuse(_sent: Sent, _got: Got) -> Got:
            raise httpx.ConnectError("connection refused")

        return self.bent(refuse)
