"""The names in a reply, turned back into the tenant's own: by the shape that the table declares, never by search.

This is the second lock. Each physical name that a server returns has to be the tenant's; one that is not raises, and
nothing of the reply is shown. A reply of another shape than declared raises too: where names would stand is then
anybody's guess.

Errors are text, and Redis quotes keys in some. Only those of known kinds pass, with the physical names of the very
command put back, and only if whatever else they quote was sent by the tenant. Otherwise the kind remains and the text
goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from hivetenancy.errors import TenancyError
from hivetenancy.namespaces.protocol import BinaryScope

from .command_table import Shape
from .resp import Items, Line


class UnexpectedReplyError(TenancyError):
    """A reply that is not of the shape that its command declares. It is not shown."""


class ReplyNames(Protocol):
    """The two kinds of names that replies hold."""

    @property
    def keys(self) -> BinaryScope[Any]:
        """Keys."""
        ...

    @property
    def channels(self) -> BinaryScope[Any]:
        """Channels."""
        ...


def unscope(names: ReplyNames, shape: Shape, reply: object) -> object:
    """Return *reply* with the tenant's own names.

    Args:
        names: The tenant's.
        shape: As the table declares it; not `Shape.EXEC`, whose parts have shapes of their own.
        reply: As `hivetenancy.scopes.resp` or a driver gives it: ``bytes``, lists, mappings, ``None`` for null.

    Raises:
        InvalidNameError: A name is not the tenant's.
        UnexpectedReplyError: The reply is not of *shape*.
    """
    if shape is Shape.PLAIN:
        return reply
    return _READERS[shape](names, reply)


def is_null(reply: object) -> bool:
    """Whether *reply* is a null of either protocol."""
    return reply is None or (type(reply) is Line and reply in (b"$-1", b"*-1", b"_"))


def _items(reply: object, least: int = 0) -> Sequence[object]:
    if not isinstance(reply, list | tuple) or len(reply) < least:
        raise UnexpectedReplyError("the reply is not of the shape that its command declares")
    return reply


def _like(reply: object, items: Iterable[object]) -> list[object]:
    return Items(items, reply.mark) if isinstance(reply, Items) else list(items)


def _strip(scope: BinaryScope[Any], name: object) -> bytes:
    if type(name) is not bytes:
        raise UnexpectedReplyError("there is no name where the reply should hold one")
    return scope.strip(name)


def _names(names: ReplyNames, reply: object) -> object:
    return _like(reply, [_strip(names.keys, name) for name in _items(reply)])


def _channels(names: ReplyNames, reply: object) -> object:
    return _like(reply, [_strip(names.channels, name) for name in _items(reply)])


def _first(names: ReplyNames, reply: object) -> object:
    if is_null(reply):
        return reply
    first, *rest = _items(reply, 1)
    return _like(reply, [_strip(names.keys, first), *rest])


def _scan(names: ReplyNames, reply: object) -> object:
    cursor, found = _pair(reply)
    return _like(reply, [cursor, _names(names, found)])


def _pair(reply: object) -> Sequence[object]:
    items = _items(reply, 2)
    if len(items) != 2:
        raise UnexpectedReplyError("the reply is not of the shape that its command declares")
    return items


def _streams(names: ReplyNames, reply: object) -> object:
    if is_null(reply):
        return reply
    if isinstance(reply, Mapping):
        return {_strip(names.keys, key): entries for key, entries in reply.items()}
    if isinstance(reply, Items) and reply.mark == b"%":
        return _alternate(names.keys, reply)
    return _like(reply, [_like(pair, [_strip(names.keys, _pair(pair)[0]), _pair(pair)[1]]) for pair in _items(reply)])


def _alternate(scope: BinaryScope[Any], reply: object) -> object:
    items = _items(reply)
    return _like(reply, [item if at % 2 else _strip(scope, item) for at, item in enumerate(items)])


def _numsub(names: ReplyNames, reply: object) -> object:
    if isinstance(reply, Mapping):
        return {_strip(names.channels, channel): count for channel, count in reply.items()}
    return _alternate(names.channels, reply)


#: Which items of a message are channels or patterns of them, by its kind.
_MESSAGES: Final[Mapping[bytes, tuple[int, ...]]] = {
    b"message": (1,),
    b"smessage": (1,),
    b"pmessage": (1, 2),
    **{
        verb + kind + b"subscribe": (1,)
        for verb in (b"", b"p", b"s")
        for kind in (b"", b"un")
    },
}  # fmt: skip

DELIVERIES: Final = frozenset({b"message", b"pmessage", b"smessage"})
"""Kinds of messages that come on their own; the others answer a command."""


def kind_of(reply: object) -> bytes:
    """Return what kind of message *reply* is; empty: none."""
    kind = reply[0] if isinstance(reply, list | tuple) and reply else None
    return kind if type(kind) is bytes and kind in _MESSAGES else b""


def unscope_message(names: ReplyNames, reply: object) -> object:
    """Return a message of pub/sub, or a confirmation, with the tenant's own names.

    Raises:
        InvalidNameError: A name is not the tenant's.
        UnexpectedReplyError: It is no message.
    """
    places = _MESSAGES.get(kind_of(reply))
    if places is None:
        raise UnexpectedReplyError("not a message of pub/sub")
    items = list(_items(reply, max(places) + 1))
    for at in places:
        if not is_null(items[at]):  # UNSUBSCRIBE without any subscription
            items[at] = _strip(names.channels, items[at])
    return _like(reply, items)


def _confirmation(names: ReplyNames, reply: object) -> object:
    return unscope_message(names, reply)


_READERS: Final[Mapping[Shape, Callable[[ReplyNames, object], object]]] = {
    Shape.NAMES: _names,
    Shape.FIRST: _first,
    Shape.SCAN: _scan,
    Shape.STREAMS: _streams,
    Shape.CHANNELS: _channels,
    Shape.NUMSUB: _numsub,
    Shape.CONFIRMATIONS: _confirmation,
}

_PASSED: Final = frozenset({"ERR", "WRONGTYPE", "NOGROUP", "BUSYGROUP", "EXECABORT", "UNBLOCKED", "INVALIDOBJ"})
_KIND_ONLY: Final = frozenset({"LOADING", "BUSY", "TRYAGAIN", "OOM", "READONLY", "MISCONF", "CLUSTERDOWN"})
_REPLACED: Final = "the server could not run the command"
#: What an error quotes. A quotation mark behind a letter is an apostrophe.
_QUOTED: Final = re.compile(rb"(?<![A-Za-z])'([^']*)'|\"([^\"]*)\"|`([^`]*)`")
_KIND: Final = re.compile(r"[A-Z][A-Z]*(?= |$)")


def clean_error(
    text: bytes, *, sent: Sequence[bytes], renamed: Iterable[tuple[bytes, bytes]], secret: Iterable[bytes]
) -> str:
    """Return the text of a server's error as the tenant may see it.

    Args:
        text: As the server sent it, without the mark.
        sent: The words that the tenant sent.
        renamed: Physical names in what the server got, with what the tenant had sent in their place.
        secret: What must not remain: the tenant's prefixes.
    """
    line = text.decode("utf-8", "replace")
    match = _KIND.match(line)
    kind = match[0] if match else ""
    if kind not in _PASSED:
        return f"{kind if kind in _KIND_ONLY else 'ERR'} {_REPLACED}"
    pairs = sorted(renamed, key=lambda pair: -len(pair[0]))
    for at, (physical, _) in enumerate(pairs):
        text = text.replace(physical, b"\0%d\0" % at)
    # The tenant's own word may hold the prefix, so it is looked for while the words are out.
    hidden = any(prefix and prefix in text for prefix in secret)
    for at, (_, logical) in enumerate(pairs):
        text = text.replace(b"\0%d\0" % at, logical)
    if hidden or not _quotes_only(text, sent):
        return f"{kind} {_REPLACED}"
    return text.decode("utf-8", "replace")


def _quotes_only(text: bytes, sent: Sequence[bytes]) -> bool:
    """Whether all that *text* quotes are beginnings of words in *sent*, or the command's own name."""
    words = [word.lower() for word in sent]
    words.append(b"|".join(words[:2]))
    quoted = (b"".join(found).lower() for found in _QUOTED.findall(text))
    return all(any(word.startswith(part) for word in words) for part in quoted)
