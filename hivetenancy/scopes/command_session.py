"""What the replies of one connection to a Redis mean: the state that commands leave behind.

A server answers in order, but not one for one. ``SUBSCRIBE a b`` has two answers and messages follow; within ``MULTI``
each command is answered ``QUEUED`` and ``EXEC`` answers for all of them; in RESP3 messages come between answers. A
`CommandSession` keeps count, so that every name in every reply is read by the shape of the command that asked for it.

It does no I/O. A front calls `send` for what the tenant sends, writes the words to the server, hands `receive` each
reply, and writes what that returns to the tenant. Answers of the front's own go through `answer`, so that they wait for
their turn.

One session is for one connection of one tenant. Who acts for another tenant takes another session, and another
connection to the server: this one may be watching, queueing, subscribed, or about to be answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from .command_keys import CommandRefusedError, Unsent
from .command_replies import DELIVERIES, UnexpectedReplyError, kind_of
from .command_sweeps import is_swept
from .command_table import Shape
from .commands import CommandScope, ScopedCommand
from .resp import Items, Line, decode, encode

ABORTED: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
_OK: Final = b"+OK\r\n"
_QUEUED: Final = b"+QUEUED\r\n"
SUBSCRIPTIONS: Final = 1_024
"""How many channels and patterns one connection may be subscribed to, where nothing else is said."""
HELD: Final = 10_000
"""How many commands a transaction may queue, and how many keys a connection may watch, where nothing else is said."""
_OUTSIDE: Final = frozenset({Shape.SWEEP, Shape.SCAN, Shape.CONFIRMATIONS})


class _Awaited:
    """A reply that is still to come, or an answer of the front's own that waits for its turn."""

    __slots__ = ("aborts", "command", "frame", "left", "take")

    def __init__(
        self,
        command: ScopedCommand | None = None,
        *,
        aborts: bool = False,
        frame: bytes | None = None,
        take: Callable[[object], None] | None = None,
    ) -> None:
        self.command, self.aborts, self.frame, self.take = command, aborts, frame, take
        self.left = 0


class CommandSession:
    """One connection of one tenant.

    Args:
        scope: The tenant's commands.
        protocol: Which RESP the connection to the server speaks, 2 or 3; may be set later. In RESP2 a message is an
            array like any other, and known by being subscribed alone.
        subscriptions: How many channels and patterns, together, the connection may be subscribed to. The session and
            the server remember each by name until it is given up, so without a bound one connection could fill either.
            Those that were asked for count until they are answered, also where they are held already.
        held: How many commands a transaction may queue, and how many keys may be watched. Both are remembered here or
            by the server until the transaction ends; without a bound they could fill it.

    Concurrency:
        Belongs to one task or loop; nothing here waits.
    """

    __slots__ = (
        "_asked",
        "_awaited",
        "_held",
        "_limit",
        "_multi",
        "_queue",
        "_queued",
        "_spoiled",
        "_subscriptions",
        "_watched",
        "protocol",
        "scope",
    )

    def __init__(
        self, scope: CommandScope, *, protocol: int = 2, subscriptions: int = SUBSCRIPTIONS, held: int = HELD
    ) -> None:
        self.scope, self.protocol = scope, protocol
        self._awaited: deque[_Awaited] = deque()
        self._multi = self._spoiled = False  # as sent
        self._held, self._queued, self._watched = held, 0, 0  # as sent
        self._queue: list[ScopedCommand] | None = None  # as answered
        self._subscriptions: dict[bytes, set[object]] = {b"": set(), b"p": set(), b"s": set()}
        self._limit, self._asked = subscriptions, 0  # asked: sent and not yet confirmed

    @property
    def idle(self) -> bool:
        """Whether nothing is still to come but messages."""
        return not self._awaited

    @property
    def queueing(self) -> bool:
        """Whether a transaction was begun and not ended, as far as was sent."""
        return self._multi

    @property
    def subscribed(self) -> bool:
        """Whether messages may come."""
        return any(self._subscriptions.values())

    @property
    def attached(self) -> bool:
        """Whether this connection to the server holds what another one would not: watched keys, subscriptions.

        To go on with another would be to forget them, and the client would not know.
        """
        return bool(self._watched) or self._multi or self.subscribed

    # --- towards the server ------------------------------------------------------------------------------------------

    def send(self, args: Sequence[bytes]) -> ScopedCommand:
        """Return the command *args*, of which the reply is awaited from now on: send its words.

        A sweep (`command_sweeps.is_swept`) is awaited by nobody: run it once the session is `idle`, with `ask`.

        Raises:
            CommandRefusedError: As `CommandScope.scope`; or it cannot stand within a transaction, or would subscribe
                to more than the connection may be. Nothing is awaited, and a transaction that was begun will be
                discarded.
        """
        try:
            command = self.scope.scope(args)
            if self._multi and command.command.shape in _OUTSIDE:
                raise CommandRefusedError(Unsent.TRANSACTION, command.command.name)
            self._hold(command)
            self._reserve(command)
        except CommandRefusedError:
            self.spoil()
            raise
        if is_swept(command):
            return command
        name, aborts = command.command.name, False
        self._queued += self._multi
        if name == "MULTI":
            self._multi, self._queued = True, 0
        elif name in ("EXEC", "DISCARD"):
            if name == "EXEC" and self._spoiled:
                command, aborts = self.scope.scope([b"DISCARD"]), True
            self._multi = self._spoiled = False
        if name == "WATCH":
            self._watched += len(command.words) - 1
        elif name in ("UNWATCH", "EXEC", "DISCARD"):
            self._watched = 0
        self._awaited.append(_Awaited(command, aborts=aborts))
        return command

    def _hold(self, command: ScopedCommand) -> None:
        """Refuse what would have a transaction or the watch of a connection grow without end."""
        name = command.command.name
        queued = self._multi and self._queued >= self._held and name not in ("EXEC", "DISCARD")
        if queued or (name == "WATCH" and self._watched + len(command.words) - 1 > self._held):
            raise CommandRefusedError(Unsent.HELD, name)

    def _reserve(self, command: ScopedCommand) -> None:
        """Count what *command* subscribes to, or refuse it."""
        asked = _subscribes(command)
        if asked and asked + self._asked + sum(map(len, self._subscriptions.values())) > self._limit:
            raise CommandRefusedError(Unsent.SUBSCRIPTIONS, command.command.name)
        self._asked += asked

    def spoil(self) -> None:
        """Let a transaction that was begun end like one with a mistake in it: a command of it was not sent."""
        self._spoiled = self._multi

    def ask(self, take: Callable[[object], None]) -> None:
        """Await one reply that goes to *take*, decoded, rather than to the tenant."""
        self._awaited.append(_Awaited(take=take))

    def answer(self, frame: bytes) -> bytes:
        """Return what to write to the tenant now, given an answer of the front's own; empty: others come first."""
        self._awaited.append(_Awaited(frame=frame))
        return self._ready()

    def _ready(self) -> bytes:
        """Return the answers of the front's own whose turn it is."""
        frames = b""
        while self._awaited and (frame := self._awaited[0].frame) is not None:
            frames += frame
            self._awaited.popleft()
        return frames

    # --- towards the tenant ------------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> bytes:
        """Return what to write to the tenant for one reply of the server's.

        Raises:
            InvalidNameError: It holds a name that is not the tenant's; reported, and never to be shown.
            UnexpectedReplyError: Nobody asked for it, or it is of another shape than was asked for.
            ProtocolError: It cannot be read.

        After any of these, what is still to come cannot be told: close both connections.
        """
        head = self._awaited[0] if self._awaited else None
        confirms = head is not None and head.command is not None and head.command.command.shape is Shape.CONFIRMATIONS
        if frame[:1] == b">" or (self.protocol == 2 and frame[:1] == b"*" and (confirms or self.subscribed)):
            value = decode(frame)
            kind = kind_of(value)
            if kind in DELIVERIES:
                return encode(self.scope.message(value))
            if kind and head is not None and confirms:
                return self._confirmed(head, kind, value) + self._ready()
            if frame[:1] == b">":
                raise UnexpectedReplyError("the server sent a message that nobody asked for")
        if head is None:
            raise UnexpectedReplyError("the server sent a reply that nobody asked for")
        self._awaited.popleft()
        return self._answered(head, frame) + self._ready()

    def _answered(self, head: _Awaited, frame: bytes) -> bytes:
        if head.take is not None:
            head.take(decode(frame))
            return b""
        command = head.command
        assert command is not None
        if self._queue is not None and frame == _QUEUED:
            self._queue.append(command)
            return frame
        name, shape = command.command.name, command.command.shape
        if name == "MULTI" and frame == _OK:
            self._queue = []
        elif name == "DISCARD":
            self._queue = None
        elif shape is Shape.EXEC:
            return self._executed(command, frame)
        if head.aborts:
            return ABORTED
        if asked := _subscribes(command):  # an error: what is left of it will not be confirmed
            self._asked -= head.left or asked
        if shape is Shape.PLAIN and frame[:1] not in (b"-", b"!"):
            return frame
        return encode(command.unscope(decode(frame)))

    def _executed(self, command: ScopedCommand, frame: bytes) -> bytes:
        queue, self._queue = self._queue or [], None
        value = decode(frame)
        if type(value) is Line:  # null: a watched key was written; or an error
            return encode(command.unscope(value)) if value.startswith(b"-") else frame
        if not isinstance(value, Items) or len(value) != len(queue):
            raise UnexpectedReplyError("EXEC did not answer for the commands that were queued")
        return encode(Items([each.unscope(reply) for each, reply in zip(queue, value, strict=True)], value.mark))

    def _confirmed(self, head: _Awaited, kind: bytes, value: object) -> bytes:
        assert head.command is not None
        which, adds = _verb(kind)
        if _verb(head.command.command.name.lower().encode()) != (which, adds):
            raise UnexpectedReplyError("the server confirmed what nobody asked for")
        known = self._subscriptions[which]
        if not head.left:
            head.left = max(1, len(head.command.sent) - 1 if len(head.command.sent) > 1 else len(known))
        head.left -= 1
        if not head.left:
            self._awaited.popleft()
        shown = encode(self.scope.message(value))
        channel = value[1] if isinstance(value, Items) else None
        if adds:
            known.add(channel)
            self._asked -= 1
        else:
            known.discard(channel)
        return shown


def _subscribes(command: ScopedCommand) -> int:
    """Return how many channels or patterns *command* asks for."""
    adds = command.command.shape is Shape.CONFIRMATIONS and _verb(command.command.name.lower().encode())[1]
    return len(command.sent) - 1 if adds else 0


def _verb(kind: bytes) -> tuple[bytes, bool]:
    """Return which kind of subscription ``ssubscribe`` and its like are about, and whether it begins."""
    which = kind[:1] if kind[:1] in (b"p", b"s") and kind != b"subscribe" else b""
    return which, b"un" not in kind[:3]
