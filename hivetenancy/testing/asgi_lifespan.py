"""The life of an ASGI application, from before the first request until after the last."""

from __future__ import annotations

from collections import deque
from typing import Any

from .asgi_run import Application, AsgiProtocolError, Message, Run


class LifespanFailedError(AssertionError):
    """The application answered ``lifespan.startup.failed`` or ``lifespan.shutdown.failed``; the message is its own."""


class Lifespan(Run):
    """The application's life, from before the first request until after the last."""

    def __init__(self, app: Application, state: dict[str, Any], timeout: float) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        super().__init__(scope, timeout=timeout, raises=True)
        self._app = app
        self._out: deque[Message] = deque()
        self._said: str | None = None
        self._asked = "startup"
        self._message = ""
        self._listening = False
        self.supported = False

    async def start(self, *, required: bool) -> None:
        """Start the application, or find that it takes no lifespan; with *required* that is an error."""
        self._out.append({"type": "lifespan.startup"})
        self._start(self._app)
        try:
            await self._until(lambda: self._said is not None, "lifespan.startup.complete")
        except BaseException:
            await self._abandon()
            raise
        if self._said == "failed":
            await self._until(lambda: self._listening, "the application to end or to listen")
            await self._abandon()  # a server that does not start says nothing more
            raise LifespanFailedError(self._message or "the application failed to start, without a message")
        self.supported = self._said == "complete"
        if not self.supported and required:
            raise LifespanFailedError("the application does not take the lifespan") from self.error

    async def stop(self) -> None:
        """Shut the application down, if it took the lifespan."""
        if not self.supported:
            return
        self._said, self._asked = None, "shutdown"
        self._out.append({"type": "lifespan.shutdown"})
        self._moved()
        try:
            await self._until(lambda: self._said is not None, "lifespan.shutdown.complete")
            await self._join()
        finally:
            await self._abandon()
        if self._said == "failed":
            raise LifespanFailedError(self._message or "the application failed to shut down, without a message")
        self._raise_what_went_wrong()
        if self._said is None:
            raise AsgiProtocolError("the application ended without lifespan.shutdown.complete")

    async def _receive(self) -> Message:
        self._listening = not self._out
        self._moved()
        await self._wait_for(lambda: bool(self._out))
        return self._out.popleft()

    async def _send(self, message: Message) -> None:
        kind = str(message.get("type"))
        _, _, said = kind.rpartition(".")
        if kind != f"lifespan.{self._asked}.{said}" or said not in ("complete", "failed") or self._said is not None:
            # Not noted as a violation: an application that takes this scope for a request has no lifespan.
            raise AsgiProtocolError(f"{kind} does not answer lifespan.{self._asked}")
        self._said, self._message = said, str(message.get("message", ""))
        self._moved()
