"""The commands about a connection, which a front answers itself: what clients ask before and beside their work.

redis-py opens with ``HELLO 3 AUTH ...`` and ``CLIENT SETINFO``, redis-cli asks for ``COMMAND DOCS``. None of it is
passed on. Answered by the server it would be about the front's own connection, or about everybody's (isolation note,
A23 and A51): ``INFO``, ``CLIENT LIST`` and their like show other tenants' memory, load and addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .command_keys import CommandRefusedError, Unsent, shown
from .command_table import COMMANDS
from .resp import Items, Line

OK: Final = Line(b"+OK")
_FEW: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontAnswer:
    """What a front has to do for one command.

    Attributes:
        reply: What to answer, once the rest went well.
        key: The access key to authenticate first; ``None``: none was shown. It is in no representation.
        protocol: Which RESP to speak from the reply on.
        leaves: Whether the client wants the connection closed after the reply.
    """

    reply: object
    key: bytes | None = None
    protocol: int
    leaves: bool = False

    def __repr__(self) -> str:
        return f"<FrontAnswer in RESP{self.protocol}>"


class Front:
    """What a front knows of one client's connection.

    Args:
        version: The version of Redis to claim: clients choose by it what they send.

    Concurrency:
        Belongs to one connection.
    """

    __slots__ = ("_version", "name", "protocol")

    def __init__(self, version: str = "7.0.0") -> None:
        self._version = version.encode()
        self.protocol = 2
        self.name = b""

    def answer(self, args: Sequence[bytes]) -> FrontAnswer | None:
        """Return what to do for *args*; ``None``: the command is none of the front's.

        Nothing changes but the client's name. `protocol` is for the front to set once it acted on the answer.

        Raises:
            CommandRefusedError: It is one of the front's, and not as it should be or not offered.
        """
        match args[0].upper() if args else b"":
            case b"AUTH":
                return self._auth(args)
            case b"HELLO":
                return self._hello(args)
            case b"QUIT":
                return self._answer(OK, leaves=True)
            case b"SELECT":
                return self._answer(OK if list(args[1:]) == [b"0"] else Line(b"-ERR DB index is out of range"))
            case b"CLIENT":
                return self._answer(self._client(args))
            case b"COMMAND":
                return self._answer(self._command(args))
            case b"INFO":
                return self._answer(b"# Server\r\nredis_version:%b\r\nredis_mode:standalone\r\n" % self._version)
        return None

    def _answer(self, reply: object, *, leaves: bool = False) -> FrontAnswer:
        return FrontAnswer(reply=reply, protocol=self.protocol, leaves=leaves)

    def _auth(self, args: Sequence[bytes]) -> FrontAnswer:
        """``AUTH [username] key``; the username says nothing."""
        if not 2 <= len(args) <= 3:
            raise CommandRefusedError(Unsent.ARITY, "AUTH")
        return FrontAnswer(reply=OK, key=args[-1], protocol=self.protocol)

    def _hello(self, args: Sequence[bytes]) -> FrontAnswer:
        """``HELLO [2 | 3 [AUTH username key] [SETNAME name]]``."""
        protocol, key = self.protocol, None
        if len(args) > 1:
            if args[1] not in (b"2", b"3"):
                return self._answer(Line(b"-NOPROTO unsupported protocol version"))
            protocol = int(args[1])
        rest = list(args[2:])
        while rest:
            option = rest.pop(0).upper()
            if option == b"AUTH" and len(rest) >= 2:
                key = rest[1]
                del rest[:2]
            elif option == b"SETNAME" and rest:
                self.name = rest.pop(0)
            else:
                raise CommandRefusedError(Unsent.SYNTAX, "HELLO")
        return FrontAnswer(reply=self._greeting(protocol), key=key, protocol=protocol)

    def _greeting(self, protocol: int) -> Items:
        fields = [b"server", b"redis", b"version", self._version, b"proto", protocol, b"id", 1]
        fields += [b"mode", b"standalone", b"role", b"master", b"modules", Items(())]
        return Items(fields, b"%" if protocol == 3 else b"*")

    def _client(self, args: Sequence[bytes]) -> object:
        what = args[1].upper() if 1 < len(args) < _FEW else b""
        match what, len(args):
            case b"SETNAME", 3:
                self.name = args[2]
                return OK
            case b"SETINFO", 4:
                return OK
            case b"GETNAME", 2:
                return self.name
            case b"ID", 2:
                return 1
        raise CommandRefusedError(Unsent.UNKNOWN, f"CLIENT {shown(what)}")

    def _command(self, args: Sequence[bytes]) -> object:
        what = args[1].upper() if len(args) > 1 else b""
        if what == b"COUNT":
            return len(COMMANDS)
        return Items((), b"%" if what == b"DOCS" and self.protocol == 3 else b"*")
