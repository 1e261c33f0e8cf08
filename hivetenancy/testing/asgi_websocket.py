"""One WebSocket, accepted or refused."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from .asgi_http import Response
from .asgi_run import ClientDisconnectedError, Message, Run, checked_headers

_RESERVED: Final = frozenset({1004, 1005, 1006, 1015})  # RFC 6455, 7.4.1: never sent


class WebSocketClosedError(Exception):
    """The WebSocket is closed, by the application or because it ended.

    Attributes:
        code: The close code.
        reason: The reason, which may be empty.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class WebSocket(Run):
    """A WebSocket, accepted or refused; made by `AsgiClient.websocket`.

    Attributes:
        scope: The scope that the application was called with.
        accepted: Whether the application accepted it.
        status: 101 where it was accepted; otherwise the status of the refusal, 403 where the application just closed.
        headers: The headers of the acceptance or the refusal.
        subprotocol: The subprotocol chosen; ``None``: none.
        close_code: Code of the close, 1006 where the application ended without one; ``None``
            while open, where it was refused, and where the client closed it.
        close_reason: Its reason.
        error: What the application raised, if it did.
    """

    def __init__(self, scope: dict[str, Any], *, timeout: float, raises: bool) -> None:
        super().__init__(scope, timeout=timeout, raises=raises)
        self.accepted = False
        self.status: int | None = None
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self._out: deque[Message] = deque([{"type": "websocket.connect"}])
        self._in: deque[str | bytes] = deque()
        self._refusal: list[bytes] = []
        self._refused = False
        self._left: Message | None = None

    @property
    def refusal(self) -> Response:
        """The answer that refused it.

        Raises:
            AssertionError: It was accepted.
        """
        if self.accepted or self.status is None:
            raise AssertionError("the WebSocket was accepted, so there is no refusal")
        return Response(status=self.status, headers=self.headers, chunks=tuple(self._refusal), error=self.error)

    async def send(self, data: str | bytes) -> None:
        """Send a text or a binary message.

        Raises:
            WebSocketClosedError: It is closed, or was refused.
        """
        self._check_open()
        text, binary = (data, None) if isinstance(data, str) else (None, data)
        self._out.append({"type": "websocket.receive", "text": text, "bytes": binary})
        self._moved()

    async def receive(self) -> str | bytes:
        """Wait for the next message.

        Raises:
            WebSocketClosedError: There is none and the application closed it, or ended.
            TimeoutError: Neither came in time.
            AsgiProtocolError: The application broke the protocol.
            Exception: What the application raised, with *raise_app_exceptions*.
        """
        await self._until(lambda: bool(self._in) or self.close_code is not None, "a message")
        if self._in:
            return self._in.popleft()
        self._raise_what_went_wrong()
        self._check_open()
        raise self._closed(1006, "the application ended")

    async def closed(self) -> tuple[int, str]:
        """Wait until the application has closed it or ended, and return code and reason; errors as `receive`."""
        await self._until(lambda: self.close_code is not None, "the close")
        self._raise_what_went_wrong()
        if self.close_code is None:
            self._closed(1006, "the application ended")
        assert self.close_code is not None
        return self.close_code, self.close_reason

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it from the client's side; 1006 is a connection that broke. Nothing happens if it is closed.

        What the application sends afterwards raises `ClientDisconnectedError` there.

        Args:
            code: What the application receives with ``websocket.disconnect``.
            reason: Likewise.
        """
        if self._left is None and self.close_code is None:
            self._left = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._moved()

    def _check_open(self) -> None:
        if self.status is not None and not self.accepted:
            raise WebSocketClosedError(1006, f"refused with status {self.status}")
        if self.close_code is not None:
            raise WebSocketClosedError(self.close_code, self.close_reason)
        if self._left is not None:
            raise WebSocketClosedError(self._left["code"], self._left["reason"])

    def _closed(self, code: int, reason: str) -> WebSocketClosedError:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
        return WebSocketClosedError(self.close_code, self.close_reason)

    async def _handshake(self) -> None:
        await self._until(lambda: self.accepted or self._refused, "the WebSocket to be accepted or refused")
        if self.accepted or self._refused:
            return
        self._raise_what_went_wrong()
        if self.error is None:
            raise self._violate("the application returned without accepting or refusing the WebSocket")
        self.status, self._refused = 500, True  # what a server would say in its place

    async def _finish(self) -> None:
        if self.accepted:
            self.close()
        await self._join()
        self._raise_what_went_wrong()

    async def _receive(self) -> Message:
        await self._wait_for(lambda: bool(self._out) or self._left is not None or self._shut)
        if self._out and not self._shut:
            return self._out.popleft()
        if self._left is not None:
            return dict(self._left)
        code = 1006 if self.close_code is None else self.close_code
        return {"type": "websocket.disconnect", "code": code, "reason": self.close_reason}

    @property
    def _shut(self) -> bool:
        """Whether the application has nothing to hear any more."""
        return self.close_code is not None or self._refused

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if self._shut:
            raise self._violate(f"{kind} after the WebSocket was closed or refused")
        if self._left is not None:
            raise ClientDisconnectedError("the client is gone")
        if self.accepted:
            self._take_open(kind, message)
        else:
            self._take_connecting(kind, message)
        self._moved()

    def _take_connecting(self, kind: object, message: Message) -> None:
        if kind == "websocket.accept" and self.status is None:
            subprotocol = message.get("subprotocol")
            if subprotocol is not None and subprotocol not in self.scope["subprotocols"]:
                raise self._violate(f"the subprotocol {subprotocol!r} was not offered")
            self.headers = checked_headers(message.get("headers", ()), self._violate)
            self.subprotocol, self.accepted, self.status = subprotocol, True, 101
        elif kind == "websocket.close" and self.status is None:
            self.status, self._refused = 403, True
        elif kind == "websocket.http.response.start" and self.status is None and self._may_deny:
            status = message.get("status")
            if type(status) is not int or not 200 <= status <= 599:
                raise self._violate(f"the status must be a whole number from 200 to 599, got {status!r}")
            self.headers = checked_headers(message.get("headers", ()), self._violate)
            self.status = status
        elif kind == "websocket.http.response.body" and self.status is not None:
            body = message.get("body", b"")
            if type(body) is not bytes:
                raise self._violate(f"body must be bytes, got {type(body)}")
            self._refusal.append(body)
            self._refused = not message.get("more_body", False)
        else:
            raise self._violate(f"{kind!r} is no answer to websocket.connect here")

    @property
    def _may_deny(self) -> bool:
        return "websocket.http.response" in self.scope["extensions"]

    def _take_open(self, kind: object, message: Message) -> None:
        if kind == "websocket.send":
            text, binary = message.get("text"), message.get("bytes")
            if isinstance(text, str) and binary is None:
                self._in.append(text)
            elif isinstance(binary, bytes) and text is None:
                self._in.append(binary)
            else:
                raise self._violate("websocket.send holds either text or bytes")
        elif kind == "websocket.close":
            code, reason = message.get("code", 1000), message.get("reason") or ""
            if type(code) is not int or not 1000 <= code <= 4999 or code in _RESERVED:
                raise self._violate(f"{code!r} is no code that a WebSocket can be closed with")
            if len(reason.encode("utf-8")) > 123:
                raise self._violate("the reason of a close is at most 123 bytes")
            self._closed(code, reason)
        else:
            raise self._violate(f"{kind!r} is no message of an open WebSocket")
