"""RESP, the protocol of Redis: frames cut from a stream, and values that can be written again as they were read.

A front passes most replies on without a look inside; what it does look into has to leave as it came, but for the names.
hiredis and redis-py's parsers give Python values, and in those ``+OK`` and a bulk string ``OK``, the two nulls, a set
and a list, the digits of a double can no longer be told apart. Hence a reader of our own: it knows where a frame ends,
in RESP2 and RESP3, and keeps what it does not understand as it is.

Every announced length is checked against a cap before anything is made or awaited on its account.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hivetenancy.errors import TenancyError

_END: Final = b"\r\n"
_CR, _LF = _END
_BULK_HEAD: Final = re.compile(rb"\$([0-9]{1,10})\r\n").match
_HEAD_MAX: Final = 32
_LINE_MAX: Final = 64 * 1024
_DEPTH_MAX: Final = 32
_BULKS: Final = b"$=!"
_LISTS: Final = b"*~>"
_MAPS: Final = b"%|"
_LINES: Final = b"+-:,#_("


class ProtocolError(TenancyError):
    """What was sent is no RESP, or larger than the caps; the connection cannot be read any further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How much one command may have.

    Attributes:
        words: Words, the command's own included.
        word_bytes: Bytes of one word.
        command_bytes: Bytes of all words together.
    """

    words: int
    word_bytes: int
    command_bytes: int


class Requests:
    """Commands, as clients send them: arrays of bulk strings. Fed in whatever pieces they arrive."""

    __slots__ = ("_at", "_buffer", "_bytes", "_left", "_words")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = self._left = self._bytes = 0
        self._words: list[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Take *data*."""
        self._buffer += data

    def next(self, caps: Caps) -> list[bytes] | None:
        """Return the next command; ``None`` while it is not all there. An empty command is an empty list.

        Raises:
            ProtocolError: It is none, or larger than *caps*, which is known from the lengths alone.
        """
        if self._words is None:
            count = self._length(b"*", caps.words)
            if count is None:
                return None
            self._words, self._left, self._bytes = [], count, 0
        words, buffer, at = self._words, self._buffer, self._at
        for _ in range(self._left):
            found = _BULK_HEAD(buffer, at)
            if found is None:
                self._at = at
                self._length(b"$", caps.word_bytes)  # says what is wrong, where it is not just incomplete
                break
            size, start = int(found[1]), found.end()
            if size > caps.word_bytes:
                raise ProtocolError("invalid bulk length")
            if self._bytes + size > caps.command_bytes:
                raise ProtocolError("too big command")
            end = start + size
            if len(buffer) < end + 2:
                break
            if buffer[end] != _CR or buffer[end + 1] != _LF:
                raise ProtocolError("expected CRLF behind an argument")
            words.append(bytes(buffer[start:end]))
            at = end + 2
            self._left -= 1
            self._bytes += size
        self._at = at
        self._trim()
        if self._left:
            return None
        self._words = None
        return words

    def _trim(self) -> None:
        del self._buffer[: self._at]
        self._at = 0

    def _length(self, mark: bytes, most: int) -> int | None:
        buffer, at = self._buffer, self._at
        if at >= len(buffer):
            return None
        if buffer[at] != mark[0]:
            raise ProtocolError(f"expected '{mark.decode()}'")
        end = buffer.find(_END, at, at + _HEAD_MAX)
        if end < 0:
            if len(buffer) - at >= _HEAD_MAX:
                raise ProtocolError("invalid length")
            return None
        digits = buffer[at + 1 : end]
        if not digits.isdigit() or len(digits) > 10:
            raise ProtocolError("invalid length")
        if int(digits) > most:
            raise ProtocolError("invalid multibulk length" if mark == b"*" else "invalid bulk length")
        self._at = end + 2
        return int(digits)


class Replies:
    """Replies, cut from what a server sends; each comes out as the bytes that it came in.

    Args:
        most: Bytes of one reply.
    """

    __slots__ = ("_at", "_buffer", "_most", "_owed")

    def __init__(self, most: int) -> None:
        self._buffer = bytearray()
        self._at, self._owed, self._most = 0, 1, most

    def feed(self, data: bytes) -> None:
        """Take *data*."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next reply; ``None`` while it is not all there.

        Raises:
            ProtocolError: It is no RESP, or larger than the cap.
        """
        buffer = self._buffer
        while self._owed:
            end = buffer.find(_END, self._at)
            if end < 0:
                if len(buffer) - self._at > _LINE_MAX:
                    raise ProtocolError("a line without an end")
                return None
            mark = buffer[self._at]
            after, owed = end + 2, 0
            if mark in _BULKS:
                size = _number(buffer[self._at + 1 : end])
                after += size + 2 if size >= 0 else 0
            elif mark in _LISTS:
                owed = max(_number(buffer[self._at + 1 : end]), 0)
            elif mark in _MAPS:
                owed = 2 * max(_number(buffer[self._at + 1 : end]), 0) + (mark == b"|"[0])
            elif mark not in _LINES:
                raise ProtocolError("not a reply")
            if after > self._most:
                raise ProtocolError("the reply is too large")
            if len(buffer) < after:
                return None
            self._at, self._owed = after, self._owed - 1 + owed
        reply = bytes(buffer[: self._at])
        del buffer[: self._at]
        self._at, self._owed = 0, 1
        return reply


def _number(digits: bytes | bytearray) -> int:
    body = digits[1:] if digits[:1] == b"-" else digits
    if not body.isdigit() or len(body) > 18:
        raise ProtocolError("invalid length")
    return int(digits)


class Line(bytes):
    """A value without a length of its own, with its mark: ``+OK``, ``:5``, ``-ERR no``, ``$-1``."""

    __slots__ = ()


class Items(list[object]):
    """An array, set, push or map, with its mark. A map is keys and values in turn."""

    __slots__ = ("mark",)

    def __init__(self, items: Iterable[object], mark: bytes = b"*") -> None:
        super().__init__(items)
        self.mark = mark


def decode(frame: bytes) -> object:
    """Return the value of *frame*, one whole reply: ``bytes``, a `Line` or `Items`.

    Raises:
        ProtocolError: There is something in it that no command of the table answers with, or behind it.
    """
    value, end = _decode(frame, 0, 0)
    if end != len(frame):
        raise ProtocolError("more than one reply")
    return value


def _decode(frame: bytes, at: int, depth: int) -> tuple[object, int]:
    end = frame.find(_END, at)
    mark = frame[at : at + 1]
    if end < 0 or not mark or depth > _DEPTH_MAX:
        raise ProtocolError("not a reply")
    if mark in _LINES or frame[at + 1 : at + 2] == b"-":
        return Line(frame[at:end]), end + 2
    count = _number(frame[at + 1 : end])
    at = end + 2
    if mark == b"$":
        return frame[at : at + count], at + count + 2
    if mark not in b"*~>%":
        raise ProtocolError("a reply of an unknown kind")
    items = Items((), mark)
    for _ in range(2 * count if mark == b"%" else count):
        item, at = _decode(frame, at, depth + 1)
        items.append(item)
    return items, at


def encode(value: object) -> bytes:
    """Return the frame of *value*: what `decode` gives, or a ``list``, ``int`` or ``bytes``.

    Raises:
        TypeError: It is anything else.
    """
    pieces: list[bytes] = []
    _encode(value, pieces)
    return b"".join(pieces)


def _encode(value: object, pieces: list[bytes]) -> None:
    match value:
        case Line():
            pieces.append(value + _END)
        case bytes():
            pieces.append(b"$%d\r\n%b\r\n" % (len(value), value))
        case bool():
            raise TypeError("a reply holds no bool")
        case int():
            pieces.append(b":%d\r\n" % value)
        case list():
            mark = value.mark if isinstance(value, Items) else b"*"
            pieces.append(b"%b%d\r\n" % (mark, len(value) // (2 if mark == b"%" else 1)))
            for item in value:
                _encode(item, pieces)
        case _:
            raise TypeError(f"a reply holds no {type(value).__name__}")


def encode_command(words: Sequence[bytes]) -> bytes:
    """Return a command as servers read it."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def error(text: str) -> bytes:
    """Return the frame of an error, whatever *text* holds: one line, printable."""
    return b"-%b\r\n" % "".join(char if char.isprintable() else " " for char in text).encode()
