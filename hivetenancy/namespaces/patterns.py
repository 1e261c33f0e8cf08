r"""A tenant's own pattern, confined to the tenant's own names; one function a dialect, and a matcher for each.

A prefix holds none of the characters that mean something in a pattern (`hivetenancy.namespaces.codec`), so scoping is
mostly putting the prefix in front. What is left to do is to refuse what would mean something else behind a prefix:

- ``LIKE`` knows ``_``, which stands in prefixes, so there it is escaped.
- A regular expression may hold ``)`` or ``|`` and leave its place, so it is compiled alone, and then put in a group.
- A topic is matched segment by segment, so the tenant has to be a whole segment, and nothing in a pattern may stand for
  it: not a ``#`` that also means "no segment at all", not a ``$share/`` in front.

**The one law**: for any tenant with prefix P, any pattern p that is accepted and any name n, the scoped pattern matches
a physical name just where that name is P + n and p matches n. It holds for names as tenants may have them: not empty,
and topics as `check_topic` takes them.

The second lock is not here: who hands out what a store matched asks `hivetenancy.namespaces.delivery` first.

Matching takes time in the length of the pattern times that of the name at the very most, whatever is in them. Redis
itself took exponential time until CVE-2022-36021. Regular expressions are the exception and say so.

Source: isolation note, section 4.5; Redis ``util.c``, ``stringmatchlen``; SQL:2016 8.5; MQTT 5.0, 4.7 and 4.8.2; NATS
"Subject-Based Messaging"; AMQP 0-9-1, 3.1.3.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import AnyStr, Final, overload

from hivetenancy.errors import ConfigurationError, InvalidNameError

PATTERN_BYTES_MAX: Final = 2000
"""Longest pattern that is matched or compiled here.

Redis gives up on the 1001st ``*`` that stands apart; within 2000 bytes there is no such one, so this limit is also what
makes `glob_matches` agree with Redis on every pattern it takes.
"""

_GLOB_META: Final = re.compile(r"[*?\[\\]")
_GLOB_META_BYTES: Final = re.compile(rb"[*?\[\\]")


# --- Redis glob: KEYS, SCAN MATCH, PSUBSCRIBE -------------------------------------------------------------------------


def glob(prefix: AnyStr, pattern: AnyStr) -> AnyStr:
    r"""Return the Redis glob that matches just what *pattern* matches among the names with *prefix*.

    Raises:
        InvalidNameError: *pattern* is empty or no plain ``str`` (``bytes`` with a prefix of bytes).
        ConfigurationError: *prefix* holds one of ``* ? [ \``.

    Concurrency:
        Pure.

    Example:
        >>> glob("user:acme:", "session:*")
        'user:acme:session:*'
    """
    _check_same(prefix, pattern)
    if _has_meta(prefix):
        raise ConfigurationError(r"a prefix of names must not hold any of * ? [ \: they mean something in patterns")
    return prefix + pattern


def _has_meta(prefix: str | bytes) -> bool:
    found = _GLOB_META.search(prefix) if isinstance(prefix, str) else _GLOB_META_BYTES.search(prefix)
    return found is not None


@overload
def glob_literal(text: str) -> str: ...
@overload
def glob_literal(text: bytes) -> bytes: ...


def glob_literal(text: str | bytes) -> str | bytes:
    r"""Return the glob that matches *text* alone: what a name has to become where a command takes a pattern.

    Example:
        >>> glob_literal("50%*") + "*"
        '50%\\**'
    """
    if isinstance(text, str):
        return _GLOB_META.sub(r"\\\g<0>", text)
    return _GLOB_META_BYTES.sub(rb"\\\g<0>", text)


def glob_matches(pattern: str | bytes, name: str | bytes) -> bool:
    r"""Whether Redis takes *name* to match *pattern*, upper and lower case told apart.

    ``*`` any bytes, ``?`` one byte, ``[a-c]`` and ``[^a]`` one byte of a class or outside it, ``\`` before what is
    meant literally. As in Redis, a character is a byte, so ``?`` matches half an ``é``; a class that is not closed ends
    with the pattern; the ends of a range may stand in either order; bytes from 0x80 on sort before ``a``, as they do in
    Redis on x86-64, where C's ``char`` has a sign.

    Raises:
        InvalidNameError: *pattern* is longer than `PATTERN_BYTES_MAX`, or either holds a lone surrogate.

    Concurrency:
        Pure. To match one pattern often, keep what `glob_matcher` returns.
    """
    return glob_matcher(pattern)(name)


def glob_matcher(pattern: str | bytes) -> Callable[[str | bytes], bool]:
    """Return what tells whether a name matches *pattern*; see `glob_matches`, also for what is raised."""
    raw = _utf8(pattern)
    _check_length(len(raw))
    if not raw:
        return lambda name: not _utf8(name)
    match = re.compile(_glob_regex(raw), re.DOTALL).match

    def matches(name: str | bytes) -> bool:
        candidate = _utf8(name)
        # Redis looks at a pattern only while there is something left of the name: "*" does not match the empty name.
        return bool(candidate) and match(candidate) is not None

    return matches


def _glob_regex(raw: bytes) -> bytes:
    """Translate a glob: each run between two stars is found once, from the left, and never tried again.

    That is what an atomic group does. It is enough, since a run has a fixed length, and it keeps the time bounded.
    """
    runs: list[list[bytes]] = [[]]
    at = 0
    while at < len(raw):
        symbol = raw[at : at + 1]
        at += 1
        if symbol == b"*":
            if runs[-1] or len(runs) == 1:
                runs.append([])
        elif symbol == b"?":
            runs[-1].append(b".")
        elif symbol == b"[":
            found, at = _glob_class(raw, at)
            runs[-1].append(found)
        else:
            if symbol == b"\\" and at < len(raw):
                symbol = raw[at : at + 1]
                at += 1
            runs[-1].append(re.escape(symbol))
    return _runs_regex([b"".join(run) for run in runs])


def _runs_regex(runs: list[bytes]) -> bytes:
    """Return what matches *runs* with anything between each two of them."""
    first, *middle = runs
    if not middle:
        return first + rb"\Z"
    *middle, last = middle
    return first + b"".join(b"(?>.*?" + run + b")" for run in middle if run) + b".*" + last + rb"\Z"


def _glob_class(raw: bytes, at: int) -> tuple[bytes, int]:
    """Return the class that begins behind the ``[`` before *at*, and where it ends; read as Redis reads it."""
    negated = raw[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(raw):
        left = len(raw) - at
        if raw[at] == 0x5C and left >= 2:  # a backslash
            members.add(raw[at + 1])
            at += 2
        elif raw[at] == 0x5D:  # a closing bracket
            at += 1
            break
        elif left >= 3 and raw[at + 1] == 0x2D:  # a range; its end may be a bracket, which then closes nothing
            members.update(_signed_range(raw[at], raw[at + 2]))
            at += 3
        else:
            members.add(raw[at])
            at += 1
    if not members:
        return (b"." if negated else b"(?!)"), at
    body = b"".join(b"\\x%02x" % member for member in sorted(members))
    return (b"[^" if negated else b"[") + body + b"]", at


def _signed_range(one: int, other: int) -> set[int]:
    low, high = sorted((_signed(one), _signed(other)))
    return {value & 0xFF for value in range(low, high + 1)}


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


# --- SQL LIKE ---------------------------------------------------------------------------------------------------------


def like(prefix: str, pattern: str, escape: str = "\\") -> str:
    r"""Return the ``LIKE`` pattern that matches just what *pattern* matches among the names with *prefix*.

    Args:
        prefix: ``%``, ``_`` and *escape* in it are escaped.
        pattern: ``%`` and ``_`` are wildcards.
        escape: What makes a wildcard behind it literal, in *pattern* and in the result. The statement has to name it:
            ``name LIKE ? ESCAPE '\'``; without that clause some databases know no escape, and ``_`` in a prefix would
            match any character.

    Raises:
        InvalidNameError: *pattern* is no plain ``str``, is empty, holds NUL (stores cut a pattern there), ends in a
            lone *escape*, or escapes what is neither a wildcard nor *escape*; *escape* is not one character, or a
            wildcard.

    Concurrency:
        Pure.

    Example:
        >>> like("user_acme:", "50\\%_")
        'user\\_acme:50\\%_'
    """
    _check_like(pattern, escape)
    literal = prefix.replace(escape, escape + escape)  # first, or it would escape the escapes put in below
    return literal.replace("_", escape + "_").replace("%", escape + "%") + pattern


def like_matches(pattern: str, name: str, escape: str = "\\") -> bool:
    r"""Whether *name* is ``LIKE`` *pattern*, upper and lower case told apart; raises as `like`.

    Many databases fold case in ``LIKE`` unless told otherwise: SQLite without ``PRAGMA case_sensitive_like=ON``, MySQL
    and SQL Server under their usual collations. What they return still lies among the tenant's own names, since a
    prefix is in lower case and no two differ in case alone; but it may be more than the tenant asked for.
    """
    _check_like(pattern, escape)
    runs: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        symbol = pattern[at]
        at += 1
        if symbol == escape:
            runs[-1].append(re.escape(pattern[at]))
            at += 1
        elif symbol == "%":
            runs.append([])
        else:
            runs[-1].append("." if symbol == "_" else re.escape(symbol))
    text = _runs_regex([run.encode() for run in map("".join, runs)]).decode()
    return re.compile(text, re.DOTALL).match(name) is not None


def _check_like(pattern: str, escape: str) -> None:
    _check_pattern(pattern)
    if type(escape) is not str or len(escape) != 1 or escape in "%_\0":
        raise InvalidNameError("the escape of LIKE is one character, and no wildcard")
    if "\0" in pattern:
        raise InvalidNameError("a LIKE pattern must not hold NUL: stores cut it there")
    _check_length(len(pattern))
    at = pattern.find(escape)
    while at >= 0:
        if at + 1 == len(pattern):
            raise InvalidNameError("the LIKE pattern ends in its escape, which escapes nothing")
        if pattern[at + 1] not in ("%", "_", escape):
            raise InvalidNameError("in a LIKE pattern only %, _ and the escape itself can be escaped")
        at = pattern.find(escape, at + 2)


# --- Regular expressions ----------------------------------------------------------------------------------------------

#: Reads an expression that compiles, part by part: an escape, a class, what looks back, and what would lead this very
#: expression astray, since escapes and classes mean nothing in a comment or, in verbose mode, behind a "#".
_PARTS: Final = re.compile(
    r"(?P<escape>\\(?s:.))"
    r"|\[\^?\]?(?:\\(?s:.)|[^\]\\])*\]"
    r"|(?P<back>\^|\(\?<[=!])"
    r"|(?P<aside>\(\?(?:#|[a-zA-Z-]*x))"
)
_BACKWARD_ESCAPES: Final = frozenset({r"\A", r"\b", r"\B"})


def regex(prefix: str, pattern: str) -> re.Pattern[str]:
    r"""Return the regular expression that matches just what *pattern* matches, whole, among the names with *prefix*.

    Nothing calls this unless a host does. Python's ``re`` knows no limit of time: ``(a+)+b`` of 30 characters can hold
    a processor for years, and no prefix changes that. Let only tenants use it whom you trust, or hand the text of the
    result to an engine whose time is linear, such as RE2 (which writes ``\z`` for the ``\Z`` at its end).

    Args:
        prefix: Matched literally, at the very beginning.
        pattern: In the syntax of ``re``. It has to match the whole of a name.

    Returns:
        ``\Aprefix(?:pattern)\Z``, compiled: ``match``, ``search`` and ``fullmatch`` answer the same.

    Raises:
        InvalidNameError: *pattern* is no plain ``str``, is empty, is longer than `PATTERN_BYTES_MAX`, is no regular
            expression on its own (so nothing in it closes a group that it did not open), sets flags for the whole
            expression, looks at what stands before it (``^``, ``\A``, ``\b``, ``\B``, ``(?<=``, ``(?<!``: behind a
            prefix these would mean something else), or holds a comment, ``(?#`` or ``(?x:``.

    Concurrency:
        Pure.

    Example:
        >>> expression = regex("user:acme:", "a|b.*")
        >>> [name for name in ("user:acme:a", "user:acme:bc", "user:evil:bc", "bc") if expression.search(name)]
        ['user:acme:a', 'user:acme:bc']
    """
    _check_pattern(pattern)
    _check_length(len(pattern))
    alone = _compiled(pattern)
    if alone.flags != re.UNICODE:
        raise InvalidNameError("a regular expression must not set flags for itself as a whole; write (?i:...) instead")
    for part in _PARTS.finditer(pattern):
        if part["aside"]:
            raise InvalidNameError("a regular expression must not hold comments: (?# (?x:")
        if part["back"] or part["escape"] in _BACKWARD_ESCAPES:
            raise InvalidNameError(r"a regular expression must not look at what stands before it: ^ \A \b \B (?<= (?<!")
    return _compiled(rf"\A{re.escape(prefix)}(?:{pattern})\Z")


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError, Warning):  # a warning where the host made errors of them
        # Without the cause: it would repeat the whole text, prefix and all.
        raise InvalidNameError("not a regular expression on its own") from None


# --- Topics of segments -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDialect:
    """How a broker reads topics.

    Attributes:
        name: For messages.
        separator: The one character between segments.
        one: The segment that stands for exactly one.
        many: The segment that stands for any number of them.
        many_from: How many *many* stands for at least: 0 or 1.
        many_last: Whether *many* may only be the last segment.
        reserved: What the first segment of a tenant's topic must not begin with; empty: nothing is reserved.
        shared: The head of shared subscriptions, ``$share/group/filter``; empty: there are none.
        blanks: Whether a segment may hold white space.

    Raises:
        ConfigurationError: The separator and the two wildcards are not three different characters, *many_from* is
            neither 0 nor 1, or *shared* does not end in the separator.
    """

    name: str
    separator: str
    one: str
    many: str
    many_from: int = 0
    many_last: bool = False
    reserved: str = ""
    shared: str = ""
    blanks: bool = True
    #: Matches what needs no second look: a pattern whose first segment is literal and open to nobody else.
    _plain: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        marks = (self.separator, self.one, self.many)
        if set(map(len, marks)) != {1} or len(set(marks)) != 3 or self.many_from not in (0, 1):
            raise ConfigurationError("separator, one and many are three different characters, and many_from is 0 or 1")
        if self.shared and not self.shared.endswith(self.separator):
            raise ConfigurationError("the head of shared subscriptions ends in the separator")
        separator, one, many = map(re.escape, marks)
        blanks = "" if self.blanks else r"\s"
        literal = rf"[^{separator}{one}{many}\0{blanks}]+"
        later = "|".join([literal, one] if self.many_last else [literal, one, many])
        head = rf"(?!{re.escape(self.reserved)})" if self.reserved else ""
        plain = rf"{head}{literal}(?:{separator}(?:{later}))*(?:{separator}{many})?"
        object.__setattr__(self, "_plain", re.compile(plain))


AMQP: Final = TopicDialect(name="AMQP", separator=".", one="*", many="#")
"""AMQP 0-9-1 topic exchanges (RabbitMQ): ``*`` one segment, ``#`` any number, anywhere."""
SYNAP: Final = TopicDialect(name="Synap", separator=".", one="*", many="#", many_last=True)
"""Synap's pub/sub: as AMQP, but ``#`` stands at the end alone."""
NATS: Final = TopicDialect(
    name="NATS", separator=".", one="*", many=">", many_from=1, many_last=True, reserved="$", blanks=False
)
"""NATS: ``*`` one token, ``>`` one or more at the end. Its protocol is divided by blanks, so no token holds one."""
MQTT: Final = TopicDialect(
    name="MQTT", separator="/", one="+", many="#", many_last=True, reserved="$", shared="$share/"
)
"""MQTT 3.1.1 and 5: ``+`` one level, ``#`` any number at the end."""
COLONS: Final = TopicDialect(name="colon", separator=":", one="*", many="#")
"""Segments between colons, with the wildcards of AMQP."""

DIALECTS: Final[Mapping[str, TopicDialect]] = MappingProxyType({".": AMQP, "/": MQTT, ":": COLONS})
"""The dialect of each separator that a manager of names knows. Where it is ``.``, `SYNAP` and `NATS` are others."""


def segmented(prefix: str, pattern: str, dialect: TopicDialect) -> str:
    """Return the pattern for the broker that matches just what *pattern* matches among the topics with *prefix*.

    Where *prefix* ends in the separator, the tenant is a whole segment, and every pattern can be scoped. A pattern of
    nothing but "any number" gets one "exactly one" before it (``user_t.#`` becomes ``user_t.*.#``): a topic has at
    least one segment, and without that the pattern would match ``user_t``, which is nobody's.

    Where it does not, as in the profile of Synap (``user_{t}:`` before topics with ``.``), the tenant is glued to the
    first segment of the topic. A wildcard there would have to match part of a segment, which no broker can: it is
    refused. In Synap itself a tenant's bare ``#`` was accepted and never matched. A broker in one's own process has no
    such trouble: it strips the prefix first and matches the logical topic (`topic_matches`).

    Raises:
        InvalidNameError: *pattern* is no plain ``str``, is empty, or longer than `PATTERN_BYTES_MAX`; a segment is
            empty or holds a wildcard that is not the whole segment; a wildcard stands where the dialect has none, or
            where it cannot be scoped; the first segment is reserved, as ``$SYS``. The message names the rule.
        ConfigurationError: *prefix* holds a wildcard of *dialect*.

    Concurrency:
        Pure.

    Example:
        >>> segmented("user_acme.", "orders.*", AMQP), segmented("user_acme/", "$share/g/#", MQTT)
        ('user_acme.orders.*', '$share/g/user_acme/+/#')
    """
    if dialect.one in prefix or dialect.many in prefix:
        raise ConfigurationError(f"a prefix of topics must not hold a wildcard of {dialect.name}")
    plain = type(pattern) is str and len(pattern) <= PATTERN_BYTES_MAX and pattern.isascii()
    if plain and dialect._plain.fullmatch(pattern):
        return prefix + pattern  # as most are: nothing to refuse, and nothing to put in
    head, segments = _pattern_segments(pattern, dialect)
    if prefix and not prefix.endswith(dialect.separator) and segments[0] in (dialect.one, dialect.many):
        raise InvalidNameError(
            "a pattern of topics cannot begin with a wildcard here: tenant and topic share the first segment; "
            f"use a profile that puts {dialect.separator!r} between them"
        )
    if prefix and not dialect.many_from and all(segment == dialect.many for segment in segments):
        segments = [dialect.one, dialect.many]
    return head + prefix + dialect.separator.join(segments)


def topic_matches(pattern: str, topic: str, dialect: TopicDialect) -> bool:
    """Whether *pattern* matches *topic*, both logical or both physical; what a broker in one's own process asks.

    It strips the prefix off the physical topic first (`hivetenancy.namespaces.delivery`) and asks with logical ones.
    Then it does not matter how the prefix is put before a topic, and ``#`` means all topics of the tenant.

    Args:
        pattern: As the tenant gave it. Of a shared subscription the inner filter counts.
        topic: The topic of one message. No pattern matches what `check_topic` refuses.
        dialect: How both are read.

    Raises:
        InvalidNameError: *pattern* is none of *dialect*; as `segmented`, but for what concerns the prefix.

    Concurrency:
        Pure. Time: segments of the pattern times segments of the topic, at the most.
    """
    _head, wanted = _pattern_segments(pattern, dialect)
    try:
        found = _topic_segments(topic, dialect)
    except InvalidNameError:
        return False
    return _segments_match(wanted, found, dialect)


def check_topic(topic: str, dialect: TopicDialect) -> None:
    """Check that *topic* is one that can be published to: the names for which patterns keep their law.

    Raises:
        InvalidNameError: *topic* is no plain ``str``, is empty, has an empty segment, a wildcard, a reserved first
            segment, NUL, or a blank where the dialect has none.
    """
    _topic_segments(topic, dialect)


def _segments_match(wanted: list[str], found: list[str], dialect: TopicDialect) -> bool:
    """Match with one way back, to the last "any number": all else takes just one segment, so that is enough."""
    at = here = 0
    retry: int | None = None  # where in *found* the last "any number" has reached
    behind = 0  # what is wanted behind it
    while here < len(found):
        if at < len(wanted) and wanted[at] == dialect.many:
            here += dialect.many_from
            at += 1
            retry, behind = here, at
        elif at < len(wanted) and (wanted[at] == dialect.one or wanted[at] == found[here]):
            at, here = at + 1, here + 1
        elif retry is not None:
            retry += 1
            at, here = behind, retry
        else:
            return False
    rest = wanted[at:]
    return here == len(found) and not dialect.many_from * len(rest) and all(each == dialect.many for each in rest)


def _pattern_segments(pattern: str, dialect: TopicDialect) -> tuple[str, list[str]]:
    """Return what stands before the filter of a shared subscription, and the segments of *pattern*; refuse the rest."""
    _check_pattern(pattern)
    _check_length(len(pattern))
    head, inner = _unshared(pattern, dialect)
    segments = inner.split(dialect.separator)
    for segment in segments:
        if segment not in (dialect.one, dialect.many):
            _check_segment(segment, dialect)
    if dialect.many_last and dialect.many in segments[:-1]:
        raise InvalidNameError(f"in {dialect.name} {dialect.many!r} stands at the end of a pattern alone")
    _check_head(segments[0], dialect)
    return head, segments


def _unshared(pattern: str, dialect: TopicDialect) -> tuple[str, str]:
    """Divide ``$share/group/filter``; a pattern that is not shared comes back whole."""
    if not dialect.shared or not pattern.startswith(dialect.shared):
        return "", pattern
    group, separator, inner = pattern[len(dialect.shared) :].partition(dialect.separator)
    if not separator or not inner:
        raise InvalidNameError(f"a shared subscription is {dialect.shared}group{dialect.separator}filter")
    _check_segment(group, dialect)
    return dialect.shared + group + separator, inner


def _topic_segments(topic: str, dialect: TopicDialect) -> list[str]:
    _check_pattern(topic)
    segments = topic.split(dialect.separator)
    for segment in segments:
        _check_segment(segment, dialect)
    _check_head(segments[0], dialect)
    return segments


def _check_segment(segment: str, dialect: TopicDialect) -> None:
    if not segment:
        raise InvalidNameError("a topic must not have an empty segment")
    if dialect.one in segment or dialect.many in segment:
        raise InvalidNameError(f"in {dialect.name} a wildcard is a whole segment of a pattern, never part of one")
    if "\0" in segment:
        raise InvalidNameError(f"a topic of {dialect.name} must not hold NUL")
    if not dialect.blanks and any(map(str.isspace, segment)):
        raise InvalidNameError(f"a topic of {dialect.name} must not hold blanks: its protocol is divided by them")


def _check_head(segment: str, dialect: TopicDialect) -> None:
    if dialect.reserved and segment.startswith(dialect.reserved):
        raise InvalidNameError(f"in {dialect.name} topics that begin with {dialect.reserved!r} are the broker's own")


# --- Common -----------------------------------------------------------------------------------------------------------


def _check_pattern(pattern: str) -> None:
    # `type(...) is`: a physical name is a str too, and scoping one again must not pass.
    if type(pattern) is not str:
        raise InvalidNameError(f"a pattern is a plain str: {type(pattern).__name__}")
    if not pattern:
        raise InvalidNameError("a pattern must not be empty")
    if not pattern.isascii():
        _utf8(pattern)


def _check_same(prefix: str | bytes, pattern: str | bytes) -> None:
    if isinstance(prefix, str):
        _check_pattern(pattern)  # type: ignore[arg-type]  # AnyStr: a str too, or refused
    elif type(pattern) is not bytes:
        raise InvalidNameError(f"a pattern in bytes is plain bytes: {type(pattern).__name__}")
    elif not pattern:
        raise InvalidNameError("a pattern must not be empty")


def _check_length(size: int) -> None:
    if size > PATTERN_BYTES_MAX:
        raise InvalidNameError(f"a pattern has at most {PATTERN_BYTES_MAX} characters")


def _utf8(text: str | bytes) -> bytes:
    try:
        return text.encode("utf-8") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise InvalidNameError("a name or pattern must not hold a lone surrogate: no store can keep it") from None
