"""A subject for servers that speak RESP, the protocol of Redis.

Write how to start the server, and a command for each operation. Each tenant has one connection of its own, which stays
open: what a server leaves on a connection is looked for, too. `hiredis` reads the replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import hiredis

from .subject import Running, ServerCrashedError, Subject

_TIMEOUT: Final = 10.0


class RespClient:
    """One connection.

    Args:
        reader: From the server.
        writer: To it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = hiredis.Reader()

    @classmethod
    async def open(cls, host: str, port: int, *first: Sequence[str | bytes]) -> RespClient:
        """Connect, and send *first*, such as ``("AUTH", key)``.

        Raises:
            ServerCrashedError: Nobody listens, or one of *first* is refused.
        """
        try:
            client = cls(*await asyncio.open_connection(host, port))
        except OSError as error:
            raise ServerCrashedError(f"nobody listens on {host}:{port}") from error
        for command in first:
            reply = await client.command(*command)
            if isinstance(reply, Exception):
                await client.close()
                raise ServerCrashedError(f"{command[0]!r} is refused: {reply}")
        return client

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Send a command and return its reply; an error is returned, not raised.

        Raises:
            ServerCrashedError: The connection was closed, or there is no reply within ten seconds.
        """
        parts = [argument if isinstance(argument, bytes) else str(argument).encode() for argument in arguments]
        head = b"*%d\r\n" % len(parts)
        self._writer.write(head + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._writer.drain()
                return await self._reply()
        except (OSError, TimeoutError) as error:
            raise ServerCrashedError(f"no reply: {type(error).__name__}") from error

    async def _reply(self) -> Any:
        while (reply := self._parser.gets()) is False:
            data = await self._reader.read(65_536)
            if not data:
                raise ServerCrashedError("the connection was closed")
            self._parser.feed(data)
        return reply

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # closed by the other side before


class RespSubject(Subject):
    """A subject for a server that speaks RESP. Write `start`, which returns a `RespRunning`, and the commands.

    Attributes:
        commands: The command of each operation, by its name: parts, of which ``{key}`` is the argument of that name. A
            list becomes one part for each item, a mapping one for each key and value.
    """

    surfaces = ("resp",)
    commands: ClassVar[Mapping[str, Sequence[str]]] = {}

    def succeeded(self, observation: Any) -> bool:
        """Return whether *observation* is no error reply."""
        return not (isinstance(observation, dict) and "raised" in observation)


class RespRunning(Running):
    """A server that is reached over RESP.

    Args:
        commands: As in `RespSubject`.
        clients: The connection of each tenant, by its id.
        secrets: What nothing may show.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], clients: Mapping[str, RespClient], secrets: Iterable[str] = ()
    ) -> None:
        self._commands = commands
        self.clients = clients
        self._secrets = tuple(secrets)

    async def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Send the command on the tenant's connection, and return the reply."""
        return await self.clients[tenant].command(*filled(self._commands[operation], arguments))

    async def stop(self) -> None:
        """Close the connections. Extend this to stop the server itself."""
        for client in self.clients.values():
            await client.close()

    def secrets(self) -> Iterable[str]:
        """Return the secrets."""
        return self._secrets


def filled(command: Sequence[str], arguments: Mapping[str, Any]) -> list[str | bytes | int]:
    """Return *command* with the arguments in their places."""
    parts: list[str | bytes | int] = []
    for part in command:
        name = part[1:-1] if part.startswith("{") and part.endswith("}") else None
        if name is None or name not in arguments:
            parts.append(part)
        elif isinstance(arguments[name], list):
            parts += arguments[name]
        elif isinstance(arguments[name], Mapping):
            parts += [piece for pair in arguments[name].items() for piece in pair]
        else:
            parts.append(arguments[name])
    return parts
