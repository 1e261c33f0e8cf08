r"""What the cases of names are judged by: matchers written without a look at how the library scopes a pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from hivetenancy.namespaces.patterns import TopicDialect


def like(pattern: str, escape: str = "\\") -> Callable[[str], bool]:
    """Return whether a name is ``LIKE`` *pattern*, upper and lower case told apart."""
    pieces: list[str] = []
    symbols = iter(pattern)
    for symbol in symbols:
        if symbol == escape:
            pieces.append(re.escape(next(symbols)))
        else:
            pieces.append({"%": ".*", "_": "."}.get(symbol) or re.escape(symbol))
    compiled = re.compile("".join(pieces), re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def topics(pattern: str, dialect: TopicDialect) -> Callable[[str], bool]:
    """Return whether a topic matches *pattern*, segment by segment, as brokers of *dialect* match."""
    wanted = pattern.split(dialect.separator)
    return lambda topic: _segments(wanted, topic.split(dialect.separator), dialect)


def _segments(wanted: Sequence[str], found: Sequence[str], dialect: TopicDialect) -> bool:
    if not wanted:
        return not found
    first, rest = wanted[0], wanted[1:]
    if first == dialect.many:
        return any(_segments(rest, found[taken:], dialect) for taken in range(dialect.many_from, len(found) + 1))
    return bool(found) and first in (dialect.one, found[0]) and _segments(rest, found[1:], dialect)


def glob(pattern: str) -> Callable[[str], bool]:
    r"""Return whether a name matches *pattern* as Redis matches: on bytes, with ``* ? [...] [^...] [a-c] \``.

    The standard library's `fnmatch` knows no backslash and negates with ``!``.
    """
    text = pattern.encode("utf-8", "surrogatepass")
    compiled = re.compile(b"".join(_pieces(text)), re.DOTALL)
    return lambda name: compiled.fullmatch(name.encode("utf-8", "surrogatepass")) is not None


def _pieces(pattern: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(pattern):
        byte, at = pattern[at : at + 1], at + 1
        if byte == b"*":
            yield b".*"
        elif byte == b"?":
            yield b"."
        elif byte == b"[":
            piece, at = _byte_class(pattern, at)
            yield piece
        elif byte == b"\\" and at < len(pattern):
            yield re.escape(pattern[at : at + 1])
            at += 1
        else:
            yield re.escape(byte)


def _byte_class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Read a class that begins after its bracket; one that is never closed ends with the pattern."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    if negated:
        members = set(range(256)) - members
    inside = b"".join(b"\\x%02x" % member for member in sorted(members))
    return (b"[" + inside + b"]" if inside else b"(?!)"), at + 1
