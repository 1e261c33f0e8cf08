"""One HTTP request and its answer, followed step by step."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .asgi_run import ClientDisconnectedError, Message, Run, checked_headers

Body: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""What to send: at once, or in chunks, each asked for when the application receives it."""

_NO_BODY: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer, whole or as far as it came.

    Attributes:
        status: The status.
        headers: Names (lower case) and values in the order sent.
        chunks: The non-empty pieces of the body as they were sent.
        trailers: Trailing headers.
        complete: Whether the application finished the answer.
        error: What the application raised, where the client was told not to raise it.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    chunks: tuple[bytes, ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    complete: bool = True
    error: BaseException | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of the header *name*; ``None``: it was not sent.

        Raises:
            AssertionError: It was sent more than once; `header_values` returns each.
        """
        values = self.header_values(name)
        if len(values) > 1:
            raise AssertionError(f"the header {name} was sent {len(values)} times: {values}")
        return values[0] if values else None

    def header_values(self, name: str) -> list[str]:
        """Each value of the header *name*, in the order sent."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.headers if key == wanted]


class Exchange(Run):
    """One request and its answer, step by step; made by `AsgiClient.stream`.

    Attributes:
        scope: The scope that the application was called with.
        status: The status; ``None`` before the answer began.
        headers: The headers of the answer.
        trailers: Its trailing headers.
        complete: Whether the application finished the answer.
        disconnected: Whether the client left.
        error: What the application raised, if it did.
    """

    def __init__(
        self, scope: dict[str, Any], body: Body | None, *, buffer: int | None, timeout: float, raises: bool
    ) -> None:
        super().__init__(scope, timeout=timeout, raises=raises)
        self.status: int | None = None
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.trailers: tuple[tuple[bytes, bytes], ...] = ()
        self.complete = False
        self.disconnected = False
        self._buffer = buffer
        self._out: deque[Message] = deque()
        self._in: deque[bytes] = deque()
        self._chunks: list[bytes] = []
        self._source = None if body is None or isinstance(body, bytes) else _chunks_of(body)
        self._request_done = False
        self._body_done = False
        self._trailers_due = False
        self._declared: int | None = None
        self._length = 0
        self._body_error: BaseException | None = None
        if isinstance(body, bytes):
            self._queue(body, more=False)

    async def send(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a piece of the request's body; with ``more=False`` the last one.

        Raises:
            ValueError: The body was given at the start, or is finished.
        """
        if self._source is not None or self._request_done:
            raise ValueError("the body of this request is not open: pass body=None to stream(), and send the end once")
        self._queue(chunk, more=more)

    def disconnect(self) -> None:
        """Leave: the application receives ``http.disconnect``, and nothing that it sends arrives."""
        self.disconnected = True
        self._moved()

    async def started(self) -> int:
        """Wait for the answer to begin, and return its status.

        Raises:
            TimeoutError: It did not in time.
            AsgiProtocolError: The application ended without an answer.
            ClientDisconnectedError: This client left before there was one.
            Exception: What the application raised before it, with *raise_app_exceptions*.
        """
        await self._until(lambda: self.status is not None, "the answer to begin")
        if self.status is None:
            self._raise_what_went_wrong()
            if self.disconnected:
                raise ClientDisconnectedError("this client left before the answer began")
            if self.error is None:
                raise self._violate("the application returned without an answer")
            self.status = 500  # what a server would say in its place
            self._body_done = True
        return self.status

    async def next_chunk(self) -> bytes | None:
        """Wait for the next piece of the answer's body; ``None``: there is no more.

        Raises:
            TimeoutError: Neither came in time.
            AsgiProtocolError: The application ended before the answer did.
            Exception: What the application raised meanwhile, with *raise_app_exceptions*.
        """
        await self.started()
        await self._until(lambda: bool(self._in) or self._body_done or self.disconnected, "more of the answer")
        if self._in:
            chunk = self._in.popleft()
            self._moved()
            return chunk
        if not self._body_done and not self.disconnected:
            self._raise_what_went_wrong()
            if self.error is None:
                raise self._violate("the application returned before its answer was finished")
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the answer's body as they are sent."""
        while (chunk := await self.next_chunk()) is not None:
            yield chunk

    async def response(self) -> Response:
        """Read what is left and return the answer as far as it came; errors as `next_chunk`."""
        async for _ in self:
            pass
        if self._trailers_due and not self.disconnected:
            await self._until(lambda: self.complete, "the trailers")
        await self._until_ended()
        assert self.status is not None
        return Response(
            status=self.status,
            headers=self.headers,
            chunks=tuple(self._chunks),
            trailers=self.trailers,
            complete=self.complete,
            error=self.error,
        )

    async def _until_ended(self) -> None:
        """An error may come after the last byte, and belongs to the answer."""
        await self._join()
        self._raise_what_went_wrong()

    async def _finish(self) -> None:
        if not self.complete and not self.ended:
            self.disconnect()
        await self._until_ended()
        if not self.complete and not self.disconnected and self.error is None:
            raise self._violate("the application returned before its answer was finished")

    def _raise_what_went_wrong(self) -> None:
        """The test's own error comes first: what the application made of it is its consequence."""
        if self._body_error is not None and self._violation is None:
            raise self._body_error
        super()._raise_what_went_wrong()

    def _queue(self, chunk: bytes, *, more: bool) -> None:
        self._request_done = not more
        self._out.append({"type": "http.request", "body": chunk, "more_body": more})
        self._moved()

    async def _receive(self) -> Message:
        if self._source is not None and not self._request_done and not self._gone:
            await self._pull(self._source)
        await self._wait_for(lambda: self._gone or bool(self._out))
        return {"type": "http.disconnect"} if self._gone else self._out.popleft()

    @property
    def _gone(self) -> bool:
        return self.disconnected or self.complete

    async def _pull(self, source: AsyncIterator[bytes]) -> None:
        try:
            chunk = await anext(source)
        except StopAsyncIteration:
            self._queue(b"", more=False)
        except Exception as error:  # noqa: BLE001 - the test's own; to the application the client has left
            self._body_error = error
            self.disconnect()
        else:
            self._queue(chunk, more=True)

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if self.complete:
            raise self._violate(f"{kind} after the answer was finished")
        if kind == "http.response.start":
            self._begin(message)
        elif kind == "http.response.body":
            self._take_body(message)
        elif kind == "http.response.trailers":
            self._take_trailers(message)
        else:
            raise self._violate(f"{kind!r} is no message of an answer")
        self._moved()
        if self.disconnected and self.scope["asgi"]["spec_version"] == "2.4":
            raise ClientDisconnectedError("the client is gone")
        if self._buffer is not None:
            room = self._buffer
            await self._wait_for(lambda: len(self._in) <= room or self.disconnected)

    def _begin(self, message: Message) -> None:
        if self.status is not None:
            raise self._violate("http.response.start came twice")
        status = message.get("status")
        if type(status) is not int or not 200 <= status <= 599:
            raise self._violate(f"the status must be a whole number from 200 to 599, got {status!r}")
        headers = self._checked_headers(message)
        self._trailers_due = bool(message.get("trailers", False))
        if self._trailers_due and "http.response.trailers" not in self.scope["extensions"]:
            raise self._violate("trailers were announced, which this server does not offer")
        lengths = {value for name, value in headers if name == b"content-length"}
        if len(lengths) > 1 or any(not value.isdigit() for value in lengths):
            raise self._violate(f"content-length must be one whole number, got {sorted(lengths)}")
        self._declared = int(lengths.pop()) if lengths else None
        self.status, self.headers = status, headers

    def _take_body(self, message: Message) -> None:
        if self.status is None or self._body_done:
            when = "before http.response.start" if self.status is None else "after the last one"
            raise self._violate(f"http.response.body {when}")
        body, more = message.get("body", b""), message.get("more_body", False)
        if type(body) is not bytes or type(more) is not bool:
            raise self._violate(f"body must be bytes and more_body a bool, got {type(body)} and {type(more)}")
        if body and self.status in _NO_BODY:
            raise self._violate(f"an answer with status {self.status} has no body")
        self._count(len(body), more=more)
        if body and self.scope["method"] != "HEAD" and not self.disconnected:
            self._chunks.append(body)
            self._in.append(body)
        self._body_done = not more
        self.complete = self._body_done and not self._trailers_due

    def _count(self, length: int, *, more: bool) -> None:
        """Hold the body to the content-length, which a server would have to break the connection for."""
        self._length += length
        if self._declared is None or self.scope["method"] == "HEAD" or self.status in _NO_BODY:
            return
        if self._length > self._declared or (not more and self._length < self._declared):
            raise self._violate(f"content-length said {self._declared}, the body has {self._length} bytes")

    def _take_trailers(self, message: Message) -> None:
        if not self._body_done or not self._trailers_due:
            raise self._violate("http.response.trailers came unannounced, or before the end of the body")
        self.trailers += self._checked_headers(message)
        self.complete = not message.get("more_trailers", False)

    def _checked_headers(self, message: Message) -> tuple[tuple[bytes, bytes], ...]:
        return checked_headers(message.get("headers", ()), self._violate)


async def _chunks_of(body: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, AsyncIterable):
        async for chunk in body:
            yield chunk
    else:
        for chunk in body:
            yield chunk
