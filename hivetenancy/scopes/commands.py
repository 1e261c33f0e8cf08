"""`CommandScope`: Redis commands within one tenant's names, and their replies with the tenant's own.

::

    scope = CommandScope(tenant)
    command = scope.scope([b"MGET", b"a", b"b"])     # raises what may not be sent
    reply = await raw.execute_command(*command.words)
    return command.unscope(reply)                    # raises what must not be seen

A connection that may send ``MULTI``, ``SUBSCRIBE`` or ``SCAN`` goes through `hivetenancy.scopes.command_session`, which
remembers what its replies mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from hivetenancy.errors import InvalidNameError, MisuseError
from hivetenancy.hooks import IsolationEvent, IsolationKind, IsolationSink, subject_hash
from hivetenancy.ids import TenantId
from hivetenancy.namespaces.kinds import ChannelKind, KeyKind
from hivetenancy.namespaces.protocol import BinaryScope, NameScope

from .command_keys import CommandRefusedError, Unsent, complete, look_up, spots
from .command_replies import UnexpectedReplyError, clean_error, unscope, unscope_message
from .command_table import Command, Part, Shape
from .resp import Line


class CommandNames(Protocol):
    """The names that commands hold: of a tenant handle, or of its `TenantNames`."""

    @property
    def kv(self) -> NameScope[KeyKind]:
        """Keys, whatever lies under them."""
        ...

    @property
    def channels(self) -> NameScope[ChannelKind]:
        """Channels."""
        ...


class CommandScope:
    """The commands of one tenant.

    Args:
        names: The tenant's names.
        tenant: Whose they are, for the audit alone.
        sink: Told of each command that cannot be scoped, and of each name in a reply that is not the tenant's;
            `hivetenancy.hooks.LimitedIsolation` keeps a flood from it. ``None``: nobody is told, and nothing is let
            through either.

    Concurrency:
        Without state; any number of threads and connections.
    """

    __slots__ = ("_key", "_scopes", "_sink", "_tenant", "channels", "keys", "secret")

    def __init__(
        self, names: CommandNames, *, tenant: TenantId | None = None, sink: IsolationSink | None = None
    ) -> None:
        if not hasattr(names, "kv"):
            raise TypeError(f"a CommandScope takes all names of a tenant, got {type(names).__name__}: pass the tenant")
        keys, channels = names.kv.binary, names.channels.binary
        self._tenant, self._sink = tenant, sink
        self._key = keys.key
        self._scopes = {
            Part.KEY: keys.key,
            Part.GLOB: keys.pattern,
            Part.LOOKUP: _lookup(keys),
            Part.CHANNEL: channels.key,
            Part.CHANNEL_GLOB: channels.pattern,
        }
        self.keys: BinaryScope[Any] = _Lock(keys, self)
        """Keys; ``strip`` reports what is not the tenant's."""
        self.channels: BinaryScope[Any] = _Lock(channels, self)
        """Channels, likewise."""
        self.secret: Final = frozenset({keys.prefix, channels.prefix})
        """What the tenant never sees: its prefixes."""

    def scope(self, args: Sequence[bytes]) -> ScopedCommand:
        """Return the command *args* within the tenant's names.

        Args:
            args: The command's words, its name first, as the tenant sent them.

        Raises:
            CommandRefusedError: It is not in the table, has the wrong number of words, holds a name that cannot be
                scoped, or its names cannot be located beyond doubt. Nothing was sent.
            TypeError: *args* is no sequence of bytes.
        """
        try:
            command = look_up(args)
            words = list(args) if command.single else complete(command, args)
            if command.single:
                words[1] = bytes(self._key(words[1]))
            else:
                for at, part in spots(command, words):
                    words[at] = bytes(self._scopes[part](words[at]))
        except (TypeError, AttributeError):
            _only_bytes(args)
            raise
        except InvalidNameError:
            _only_bytes(args)
            raise self._unscopable(CommandRefusedError(Unsent.NAME, look_up(args).name)) from None
        except CommandRefusedError as refused:
            raise self._unscopable(refused) from None
        return ScopedCommand(self, command, args, words)

    def message(self, reply: object) -> object:
        """Return a message of pub/sub with the tenant's own names.

        Raises:
            InvalidNameError: A channel is not the tenant's; reported, and never to be shown.
            UnexpectedReplyError: It is no message.
        """
        return unscope_message(self, reply)

    def report(self, kind: IsolationKind, operation: str, subject: bytes) -> None:
        """Tell the sink."""
        if self._sink is not None:
            event = IsolationEvent(
                kind=kind, tenant=self._tenant, operation=operation, subject_hash=subject_hash(subject)
            )
            self._sink.isolation(event)

    def _unscopable(self, refused: CommandRefusedError) -> CommandRefusedError:
        if refused.why is not Unsent.ARITY:
            self.report(IsolationKind.UNSCOPABLE, "commands.scope", refused.command.encode())
        return refused


def _lookup(keys: BinaryScope[Any]) -> Any:
    """Return how a pattern of ``SORT`` is scoped.

    Redis puts the element in place of the first ``*`` and looks up what comes out. The prefix has no ``*``, so whatever
    the element is, the key begins with the prefix. Without any ``*`` nothing is looked up.
    """

    def scope(pattern: bytes) -> bytes:
        return pattern if pattern == b"#" else bytes(keys.key(pattern))

    return scope


class _Lock:
    """Names of one kind whose ``strip`` tells of what is not the tenant's."""

    __slots__ = ("_inner", "_scope", "key", "keys", "owns", "pattern", "prefix", "range", "starting")

    def __init__(self, inner: BinaryScope[Any], scope: CommandScope) -> None:
        self._inner, self._scope = inner, scope
        self.key, self.keys, self.pattern = inner.key, inner.keys, inner.pattern
        self.owns, self.prefix, self.range, self.starting = inner.owns, inner.prefix, inner.range, inner.starting

    def strip(self, physical: bytes, /) -> bytes:
        """Return the logical name of *physical*."""
        try:
            logical = self._inner.strip(physical)
        except InvalidNameError:
            logical = b""
        if logical:  # the prefix alone is no name
            return logical
        self._scope.report(IsolationKind.FOREIGN_NAME, "commands.unscope", physical)
        raise InvalidNameError("the store returned a name that is not this tenant's")


def _only_bytes(args: object) -> None:
    """Say so where a command is no words, or its words are no bytes: a mistake of the server, not of its client."""
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise TypeError(f"a command is a list of its words as bytes, as [b'GET', b'k'], not {type(args).__name__}")
    odd = next((word for word in args if not isinstance(word, bytes)), None)
    if odd is not None:
        raise TypeError(f"the words of a command are bytes, and one is {type(odd).__name__}: encode it")


class ScopedCommand:
    """One command, ready to be sent, and what its reply means.

    Attributes:
        command: The line of the table.
        sent: The words as the tenant sent them.
    """

    __slots__ = ("_scope", "_words", "command", "sent")

    def __init__(self, scope: CommandScope, command: Command, sent: Sequence[bytes], words: Sequence[bytes]) -> None:
        self._scope = scope
        self._words = words
        self.command = command
        self.sent = sent

    def __repr__(self) -> str:
        return f"<ScopedCommand {self.command.name}>"

    @property
    def words(self) -> Sequence[bytes]:
        """What to send to the server.

        Raises:
            MisuseError: The server has no command for it: `hivetenancy.scopes.command_sweeps` puts it together.
        """
        if self.command.shape is Shape.SWEEP:
            raise MisuseError(f"{self.command.name} looks at everybody's keys; run its sweep instead")
        return self._words

    def unscope(self, reply: object) -> object:
        """Return the server's *reply* as the tenant may see it; an error stays one of its class.

        Args:
            reply: As a driver or `hivetenancy.scopes.resp` gives it, names in ``bytes``.

        Raises:
            InvalidNameError: It holds a name that is not the tenant's; reported, and never to be shown.
            UnexpectedReplyError: It is not of the shape that the command declares.
            MisuseError: It is of ``EXEC``, whose replies `hivetenancy.scopes.command_session` knows.
        """
        if isinstance(reply, Exception):
            return type(reply)(self.clean(str(reply).encode("utf-8", "surrogateescape")))
        if type(reply) is Line and reply.startswith(b"-"):
            return Line(b"-" + self.clean(reply[1:]).encode())
        shape = self.command.shape
        if shape is Shape.EXEC:
            raise MisuseError("the replies of EXEC are those of the commands before it; use a CommandSession")
        if shape is Shape.SWEEP:
            raise UnexpectedReplyError("a sweep has no reply of its own")
        return unscope(self._scope, shape, reply)

    def clean(self, text: bytes) -> str:
        """Return what the tenant may see of an error of the server's; see `command_replies.clean_error`."""
        words = complete(self.command, self.sent)
        renamed = [(bytes(to), word) for word, to in zip(words, self._words, strict=True) if word != to]
        return clean_error(text, sent=words, renamed=renamed, secret=self._scope.secret)
