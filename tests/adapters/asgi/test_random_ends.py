"""Random errors, refusals, cancellations and clients that leave: nothing held stays held.

Looked at after every request that is over: concurrency slots, quota held, connections counted, streams registered. A
guard that forgets to leave is found.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.adapters.exchange import Exchange
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, HubUnavailableError, InvalidNameError
from hivetenancy.functions import function
from hivetenancy.gate import Admission
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient
from tests.adapters.asgi.driver import http_scope
from tests.adapters.host import Stage
from tests.tiers import examples

pytestmark = [pytest.mark.anyio, pytest.mark.deep]

ERRORS = [
    RuntimeError("broken"),
    DeniedError.of(Refusal(reason=Reason.NOT_FOUND)),
    InvalidNameError("empty"),
    HubUnavailableError("gone"),
    asyncio.CancelledError(),
]


class Trouble:
    """Handlers that suspend, hold, fail and stream at random."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    async def stumble(self, chance: float = 0.15) -> None:
        """Suspend a few times, and perhaps fail."""
        for _ in range(self.draw.randint(0, 3)):
            await asyncio.sleep(0)
        if self.draw.random() < chance:
            raise self.draw.choice(ERRORS)

    async def work(self) -> None:
        """Hold something while stumbling."""
        tenant = current_tenant()
        async with tenant.reserve(storage_bytes=self.draw.choice([1, 10, 2_000])) as block:
            await self.stumble()
            if self.draw.random() < 0.5:
                block.commit(storage_bytes=0)
            await self.stumble()

    @function("t.answer", effect="write", demand={"operations": 1})
    async def answer(self, request: Request) -> Response:
        """Answer at once."""
        await self.stumble()
        if self.draw.random() < 0.5:
            await request.body()
        await self.work()
        background = BackgroundTask(self.stumble) if self.draw.random() < 0.3 else None
        return PlainTextResponse("done", self.draw.choice([200, 204, 404, 503]), background=background)

    @function("t.stream", effect="read", demand={"operations": 1})
    async def stream(self, request: Request) -> Response:
        """Answer bit by bit."""

        async def rows() -> AsyncIterator[bytes]:
            for _ in range(self.draw.randint(0, 4)):
                await self.work()
                yield b"row"

        await self.stumble()
        return StreamingResponse(rows())

    @function("t.talk", effect="write", demand={"operations": 1})
    async def talk(self, websocket: WebSocket) -> None:
        """Answer each message."""
        await self.stumble(0.05)
        await websocket.accept()
        async for text in websocket.iter_text():
            await self.work()
            await websocket.send_text(text)

    def app(self, stage: Stage) -> TenancyASGI:
        """The application, with what a host may put in between."""
        middleware = self.draw.choice([[], [Middleware(GZipMiddleware, minimum_size=1)], [Middleware(Tidy)]])
        routes = [
            Route("/answer", self.answer, methods=["PUT"]),
            Route("/stream", self.stream),
            WebSocketRoute("/talk", self.talk),
        ]
        return TenancyASGI(Starlette(routes=routes, middleware=middleware), stage.tenancy)


class Tidy(BaseHTTPMiddleware):
    """The kind of middleware that runs the application in another task."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


class Client:
    """A client that may send too much, leave, or see its request cancelled."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.body = [b"x" * draw.choice([0, 10, 60]) for _ in range(draw.randint(1, 3))]
        self.leaves = draw.random() < 0.3
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.leaves and self.draw.random() < 0.3:
            self.gone.set()
        if self.body and not self.gone.is_set():
            return {"type": "http.request", "body": self.body.pop(0), "more_body": bool(self.body)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        if self.leaves and self.draw.random() < 0.2:
            self.gone.set()
        if self.gone.is_set() and self.draw.random() < 0.5:
            raise OSError("the client is gone")


class Socket:
    """The same for WebSockets."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.todo = [{"type": "websocket.connect"}]
        self.todo += [{"type": "websocket.receive", "text": "t"} for _ in range(draw.randint(0, 4))]
        self.todo.append({"type": "websocket.disconnect", "code": 1000})

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        return self.todo.pop(0) if len(self.todo) > 1 else self.todo[0]

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)


async def walk(count: int, seed: int) -> int:
    """Make *count* random requests; return how many were cancelled by us.

    Raises:
        AssertionError: Something is held though nobody is at work.
    """
    draw = random.Random(seed)
    cancelled = 0
    made = 0
    while made < count:
        stage, trouble = Stage(), Trouble(draw)
        app = trouble.app(stage)
        async with AsgiClient(TenancyASGI(Starlette(), stage.tenancy)):
            for _ in range(min(50, count - made)):
                made += 1
                key = stage.key
                if draw.random() < 0.2:  # one that must be looked up first, which suspends
                    key = stage.acme.issue_key(permissions=["read", "write"])
                bearer = [(b"authorization", b"Bearer " + key.secret.encode())]
                path, method = draw.choice([("/answer", "PUT"), ("/stream", "GET"), ("/talk", "WS"), ("/none", "GET")])
                scope = http_scope(method, path.encode(), bearer)
                peer: Any = Client(draw)
                if method == "WS":
                    scope |= {"type": "websocket", "subprotocols": []}
                    peer = Socket(draw)
                task = asyncio.ensure_future(app(scope, peer.receive, peer.send))
                steps = draw.choice([0, 1, 2, 3, 5, 8, 13, 21, 500])
                for _ in range(steps):
                    if task.done():
                        break
                    await asyncio.sleep(0)
                if draw.random() < 0.1:
                    key.revoke()
                    stage.key = stage.acme.issue_key(permissions=["read", "write"])
                if not task.done():
                    cancelled += steps < 500
                    task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                held = await stage.held()
                assert held == {}, f"seed {seed}, request {made}, {method} {path}: {held} is still held"
    return cancelled


async def test_nothing_stays_held() -> None:
    """500 requests in the fast tier, 20,000 in the deep one."""
    count = examples(500, 20_000)
    assert await walk(count, seed=random.randrange(2**32)) > count / 20


@contextmanager
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Guards that do not leave when something went wrong."""
    forgotten: list[Admission] = []

    def stay(self: Exchange) -> None:
        if self.admission is not None and self.admission.open:
            forgotten.append(self.admission)

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "leave", stay)
        try:
            yield
        finally:
            for admission in forgotten:
                admission.close()


async def test_a_guard_that_does_not_leave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same walk, with the guard's `finally` doing nothing."""
    with forgetful(monkeypatch), pytest.raises(AssertionError, match="is still held"):
        for seed in range(20):
            await walk(100, seed)
