"""A subject for servers that speak JSON over a WebSocket, one reply for each message.

Write how to start the server; the message of a call is ``{"operation": ..., **arguments}`` unless `message` says
otherwise. Each tenant has one connection, which stays open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from .subject import Running, ServerCrashedError, Subject

_TIMEOUT: Final = 10.0


class WebSocketSubject(Subject):
    """A subject for a server on a WebSocket. Write `start`, which returns a `WebSocketRunning`."""

    surfaces = ("websocket",)

    def message(self, operation: str, arguments: Mapping[str, Any]) -> str | bytes:
        """Return the message of a call."""
        return json.dumps({"operation": operation, **arguments})

    def reply(self, raw: str | bytes) -> Any:
        """Return what the tenant observes of a reply."""
        try:
            return json.loads(raw)
        except ValueError:
            return raw


class WebSocketRunning(Running):
    """A server that is reached over a WebSocket.

    Args:
        subject: Says what messages look like.
        connections: The connection of each tenant, by its id.
        secrets: What nothing may show.
    """

    def __init__(
        self, subject: WebSocketSubject, connections: Mapping[str, ClientConnection], secrets: Iterable[str] = ()
    ) -> None:
        self._subject = subject
        self.connections = connections
        self._secrets = tuple(secrets)

    async def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Send the message on the tenant's connection, and return the reply.

        Raises:
            ServerCrashedError: The connection was closed, or there is no reply within ten seconds.
        """
        connection = self.connections[tenant]
        try:
            async with asyncio.timeout(_TIMEOUT):
                await connection.send(self._subject.message(operation, arguments))
                return self._subject.reply(await connection.recv())
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServerCrashedError(f"no reply to {operation}: {type(error).__name__}") from error

    async def stop(self) -> None:
        """Close the connections. Extend this to stop the server itself."""
        for connection in self.connections.values():
            await connection.close()

    def secrets(self) -> Iterable[str]:
        """Return the secrets."""
        return self._secrets


async def opened(url: str, headers: Mapping[str, Mapping[str, str]]) -> dict[str, ClientConnection]:
    """Open a connection for each tenant.

    Args:
        url: Where the server listens, ``ws://...``.
        headers: What the tenants' handshakes carry, by their ids.

    Raises:
        ServerCrashedError: Nobody listens, or a handshake is refused.
    """
    connections = {}
    try:
        for tenant, own in headers.items():
            connections[tenant] = await connect(url, additional_headers=dict(own), open_timeout=_TIMEOUT)
    except (OSError, TimeoutError, WebSocketException) as error:
        for connection in connections.values():
            await connection.close()
        raise ServerCrashedError(f"no connection to {url}: {type(error).__name__}") from error
    return connections
