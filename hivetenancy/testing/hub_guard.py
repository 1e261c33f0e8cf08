"""What stands in front of a fake that listens on a socket: this machine's own programs only, and an end that is quick.

A page in somebody's browser can send requests to a port of the machine that it is shown on, and can have a name of its
own resolve to that machine (DNS rebinding). It cannot leave out ``Origin`` where it sends one, nor forge ``Host``; so
a request with an ``Origin`` is refused, and one whose ``Host`` is no name of this machine.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from hivetenancy.authority.api_http import Answer, Message, Receive, RequestError, Scope, Send, encoded

from .faults import ConnectionFaultError
from .hub_app import cut
from .hub_control import Application, reply

LOOPBACK: Final = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_SOON_SECONDS: Final = 0.2


class Guard:
    """Refuses what no program of this machine would send, and ends what is open when it is told to.

    Args:
        app: What it stands in front of.

    Concurrency:
        Belongs to one event loop.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Refuse whatever comes from now on, and end what is open within a moment."""
        self._ending.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = self._refusal(scope)
        if error is not None:
            await reply(Answer(status=error.status, body=encoded(error.body)), send)
            return
        await self._until_the_end(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if any(name == b"origin" for name, _ in headers):
            return RequestError(403, "A fake hub answers no web page: a request with an Origin is refused")
        if len(hosts) != 1 or LOOPBACK.fullmatch(hosts[0]) is None:
            return RequestError(403, "A fake hub answers under the names of this machine only: Host is another")
        if self._ending.is_set():
            return RequestError(503, "Service temporarily unavailable")
        return None

    async def _until_the_end(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        # what cuts a connection looks for the server behind `send`
        note_to = _Sends(note, getattr(send, "__self__", None))
        work = asyncio.ensure_future(self._app(scope, receive, note_to.send))
        end = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait({work}, timeout=_SOON_SECONDS)
            if work.done():
                if work.exception() is not None and not begun:  # the server's own answer would not say whose it is
                    await reply(Answer(status=500, body=b'{"error":"Internal server error"}'), send)
                work.result()
            elif not begun:
                await reply(Answer(status=503, body=b'{"error":"Service temporarily unavailable"}'), send)
            else:  # a reply that comes by the byte: cut, or the server complains that it was never finished
                work.cancel()
                await asyncio.wait({work})
                await cut(ConnectionFaultError("reset"), receive, note_to.send)
        finally:
            work.cancel()
            end.cancel()
            await asyncio.gather(work, end, return_exceptions=True)


class _Sends:
    """A ``send`` that still shows the server's transport."""

    def __init__(self, send: Send, server: object) -> None:
        self._send = send
        self.transport = getattr(server, "transport", None)

    async def send(self, message: Message) -> None:
        """Send on."""
        await self._send(message)
