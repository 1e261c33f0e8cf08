"""One call of an ASGI application, and what its messages are held to; the base of the exchanges of `.asgi`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""

_FORBIDDEN: Final = frozenset(b"\r\n\0")


class AsgiProtocolError(AssertionError):
    """The application broke the ASGI protocol: a message out of order, malformed, unknown, or missing."""


class ClientDisconnectedError(OSError):
    """What ``send`` raises in an application whose client is gone, as ASGI has it since 2.4."""


class Run:
    """One call of an application: its task, and bounded waits for what it does."""

    def __init__(self, scope: dict[str, Any], *, timeout: float, raises: bool) -> None:
        self.scope = scope
        self.error: BaseException | None = None
        self._timeout = timeout
        self._raises = raises
        self._violation: AsgiProtocolError | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the application has returned or raised."""
        return self._task is not None and self._task.done()

    def _start(self, app: Application) -> None:
        self._task = asyncio.ensure_future(self._call(app))
        self._task.add_done_callback(lambda _: self._moved())

    async def _call(self, app: Application) -> None:
        try:
            await app(self.scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - whatever an application raises is what the test is told
            self.error = error

    async def _receive(self) -> Message:
        raise AssertionError("each kind of scope has its own")

    async def _send(self, message: Message) -> None:
        raise AssertionError("each kind of scope has its own")

    def _moved(self) -> None:
        """Let everything that waits look again."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds, for ever: what the application itself may wait for."""
        while not condition():
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            await future

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until *condition* holds or the application has ended.

        Raises:
            TimeoutError: Neither came in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._wait_for(lambda: condition() or self.ended)
        except TimeoutError:
            raise TimeoutError(f"waited {self._timeout:g} s for {what}") from None

    async def _join(self) -> None:
        """Wait for the application to end, or cancel it.

        Raises:
            TimeoutError: It did not end in time.
        """
        assert self._task is not None
        _, running = await asyncio.wait([self._task], timeout=self._timeout)
        if running:
            await self._abandon()
            raise TimeoutError(f"the application was still running {self._timeout:g} s after its client was done")
        if self._task.cancelled():
            self.error = AsgiProtocolError("the application ended as if it had been cancelled")

    async def _abandon(self) -> None:
        """Cancel the application, if it still runs."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=self._timeout)

    def _violate(self, what: str) -> AsgiProtocolError:
        """Note that the application broke the protocol, so that it shows even if the application swallows it."""
        error = AsgiProtocolError(what)
        if self._violation is None:
            self._violation = error
        return error

    def _raise_what_went_wrong(self) -> None:
        if self._violation is not None:
            raise self._violation
        if self.error is not None and self._raises and not isinstance(self.error, ClientDisconnectedError):
            raise self.error


def checked_headers(
    headers: Iterable[Any], violate: Callable[[str], AsgiProtocolError]
) -> tuple[tuple[bytes, bytes], ...]:
    """Return headers that can be put on the wire, or refuse them."""
    checked: list[tuple[bytes, bytes]] = []
    for pair in headers:
        name, value = pair if isinstance(pair, (list, tuple)) and len(pair) == 2 else (None, None)
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise violate(f"a header is a name and a value in bytes, got {pair!r}")
        if not name or name != name.lower() or not _FORBIDDEN.isdisjoint(name + value) or b":" in name or b" " in name:
            raise violate(f"the header {name!r} must have a lower-case name and hold no line break or NUL")
        checked.append((name, value))
    return tuple(checked)
