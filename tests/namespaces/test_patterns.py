"""A tenant's pattern matches the tenant's own names and nothing else, in every dialect.

The law of `hivetenancy.namespaces.patterns`: a scoped pattern matches a physical name just where that name is the
prefix and a name that the pattern matches. Each attack runs against what the library does and against a version
without the defence, which has to be seen leaking.
"""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.namespaces import patterns
from hivetenancy.namespaces.codec import encode
from hivetenancy.namespaces.patterns import AMQP, COLONS, MQTT, NATS, PATTERN_BYTES_MAX, SYNAP, TopicDialect
from tests.tiers import examples, needs_program

DIALECTS = [AMQP, SYNAP, NATS, MQTT, COLONS]
UUID = "550e8400-e29b-41d4-a716-446655440000"

tenants = st.text(min_size=1, max_size=8).map(encode)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


def says(refused: Callable[[], object]) -> str:
    """The message of what is refused; a failure where it is not."""
    with pytest.raises(InvalidNameError) as caught:
        refused()
    return str(caught.value)


# --- Redis glob -------------------------------------------------------------------------------------------------------


def reference_glob(pattern: bytes, name: bytes) -> bool:
    """Redis's own algorithm, step by step, as its C source has it; exponential, so for short patterns only."""
    while pattern and name:
        if pattern[0] == 0x2A:
            while pattern[1:2] == b"*":
                pattern = pattern[1:]
            if len(pattern) == 1:
                return True
            return any(reference_glob(pattern[1:], name[start:]) for start in range(len(name)))
        if pattern[0] == 0x5B:
            matched, pattern = reference_class(pattern[1:], name[0])
            if not matched:
                return False
        elif pattern[0] != 0x3F:
            if pattern[0] == 0x5C and len(pattern) >= 2:
                pattern = pattern[1:]
            if pattern[0] != name[0]:
                return False
        pattern, name = pattern[1:], name[1:]
        if not name:
            pattern = pattern.lstrip(b"*")
    return not pattern and not name


def reference_class(pattern: bytes, byte: int) -> tuple[bool, bytes]:
    """The inner loop of the same; what it returns begins with the last byte of the class."""
    sign = [byte - 256 if byte > 127 else byte]
    negated = pattern[:1] == b"^"
    pattern = pattern[1:] if negated else pattern
    matched = False
    while True:
        if pattern[:1] == b"\\" and len(pattern) >= 2:
            pattern = pattern[1:]
            matched |= pattern[0] == byte
        elif pattern[:1] == b"]":
            break
        elif not pattern:
            pattern = b"]"
            break
        elif len(pattern) >= 3 and pattern[1:2] == b"-":
            ends = sorted(end - 256 if end > 127 else end for end in (pattern[0], pattern[2]))
            matched |= ends[0] <= sign[0] <= ends[1]
            pattern = pattern[2:]
        else:
            matched |= pattern[0] == byte
        pattern = pattern[1:]
    return matched != negated, pattern


GLOBS = [
    ("*", "a", True),
    ("*", "", False),  # as in Redis: an empty name is looked at by no pattern
    ("", "", True),
    ("h?llo", "hello", True),
    ("h?llo", "hllo", False),
    ("h*llo", "heeeello", True),
    ("h[ae]llo", "hallo", True),
    ("h[^e]llo", "hello", False),
    ("h[a-b]llo", "hbllo", True),
    ("h[b-a]llo", "hbllo", True),  # the ends of a range in either order
    (r"h\*llo", "h*llo", True),
    (r"h\*llo", "hello", False),
    ("a\\", "a\\", True),  # nothing behind it to escape
    ("a[", "ab", False),  # not closed: a class of nothing
    ("a[^", "ab", True),  # not closed: anything
    ("a[b", "ab", True),
    ("a[b-", "a-", True),
    ("a[b-]", "ac", False),  # the range swallows the bracket: from "]" to "b"
    ("a[b-]", "a_", True),
    (r"a[\]]", "a]", True),
    ("a[*]", "a*", True),
    ("**a**b**", "xaxb", True),
    ("?", "é", False),  # a character is a byte
    ("??", "é", True),
    ("user:{a}:*", "user:{a}:x", True),
]


@pytest.mark.parametrize("pattern, name, expected", GLOBS)
def test_a_glob_means_what_it_means_in_redis(pattern: str, name: str, expected: bool) -> None:
    """The table of cases, odd ones included, agrees with the matcher and with Redis's algorithm."""
    assert patterns.glob_matches(pattern, name) is expected
    assert patterns.glob_matches(pattern.encode(), name.encode()) is expected
    assert reference_glob(pattern.encode(), name.encode()) is expected


def test_globs_agree_with_the_algorithm_of_redis() -> None:
    """All patterns of up to four symbols (six in the deep tier), on all short names."""
    subjects = [bytes(n) for size in range(4) for n in itertools.product(b"ab]", repeat=size)]
    for size in range(examples(4, 6)):
        for symbols in itertools.product(b"a*?[]^-\\", repeat=size):
            pattern = bytes(symbols)
            matches = patterns.glob_matcher(pattern)
            for name in subjects[: None if size < 4 else 14]:
                assert matches(name) == reference_glob(pattern, name), (pattern, name)


@given(pattern=st.binary(max_size=8), name=st.binary(max_size=6))
@example(pattern=b"[a-\xc3]", name=b"\xe0")
@example(pattern=b"[a-\xc3]", name=b"b")
def test_globs_of_any_bytes_agree_with_the_algorithm_of_redis(pattern: bytes, name: bytes) -> None:
    """Bytes above 127 as well, whose order in Redis is that of signed characters."""
    assert patterns.glob_matches(pattern, name) == reference_glob(pattern, name)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[bytes]]]:
    """A Redis of our own on a socket, and a function that sends it one command and returns the strings of the reply."""
    folder: Path = tmp_path_factory.mktemp("redis", numbered=True)
    address = folder / "s"
    command = ["redis-server", "--port", "0", "--unixsocket", str(address), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "ready to accept connections" in line:
                    break
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(address))
                with link.makefile("rwb") as stream:
                    yield lambda *words: converse(stream, words)
        finally:
            server.terminate()
            server.communicate(timeout=10)


def converse(stream: object, words: tuple[bytes, ...]) -> list[bytes]:
    """One command in, one array or status out."""
    stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]
    first = stream.readline()  # type: ignore[attr-defined]
    assert first[:1] in b"+*:", first
    if first[:1] != b"*":
        return [first[1:-2]]
    reply = []
    for _ in range(int(first[1:])):
        size = int(stream.readline()[1:])  # type: ignore[attr-defined]
        reply.append(stream.read(size + 2)[:-2])  # type: ignore[attr-defined]
    return reply


@needs_program("redis-server")
@pytest.mark.service("redis-server")
def test_globs_agree_with_a_redis(redis: Callable[..., list[bytes]]) -> None:
    """What KEYS finds in a real Redis is what the matcher finds, for odd patterns and for the table above."""
    if shutil.which("redis-server") is None:  # pragma: no cover - the mark skips
        return
    stored = {bytes(n) for size in (1, 2, 3) for n in itertools.product(b"ab]-\\\xc3", repeat=size)}
    stored |= {name.encode() for _, name, _ in GLOBS if name}
    redis(b"FLUSHALL")
    redis(b"MSET", *itertools.chain.from_iterable((name, b"") for name in stored))
    odd = itertools.product(b"a*?[]^-\\\xc3", repeat=examples(3, 5))
    for pattern in [*(pattern.encode() for pattern, _, _ in GLOBS), *map(bytes, odd)]:
        matches = patterns.glob_matcher(pattern)
        assert set(redis(b"KEYS", pattern)) == {name for name in stored if matches(name)}, pattern


@given(token=tenants, other=tenants, pattern=st.text("ab*?[]^-\\é", min_size=1, max_size=6), name=names)
@example(token="acme", other="b", pattern="*", name="x")
def test_a12_a_glob_stays_within_the_tenant(token: str, other: str, pattern: str, name: str) -> None:
    """The scoped glob matches what the glob matches among the tenant's names, and nothing of another tenant's."""
    prefix = f"user:{token}:"
    scoped = patterns.glob(prefix, pattern)
    assert scoped == prefix + pattern
    assert patterns.glob(prefix.encode(), pattern.encode()) == scoped.encode()
    assert patterns.glob_matches(scoped, prefix + name) == patterns.glob_matches(pattern, name)
    assert other == token or not patterns.glob_matches(scoped, f"user:{other}:{name}")
    assert not patterns.glob_matches(scoped, f"__keyspace@0__:{prefix}{name}")


def test_a12_an_id_with_wildcards_is_written_without() -> None:
    """A tenant called ``*`` lists its own names; with the id as it is, it would list everybody's."""
    victim = f"user:{encode('victim')}:secret"
    for evil in ("*", "?ictim", "[u-w]ictim", "v*"):
        assert patterns.glob_matches(f"user:{evil}:" + "*", victim), "without the defence this is a leak"
        assert not patterns.glob_matches(patterns.glob(f"user:{encode(evil)}:", "*"), victim)
        with pytest.raises(ConfigurationError, match="prefix"):
            patterns.glob(f"user:{evil}:", "*")
        with pytest.raises(ConfigurationError, match="prefix"):
            patterns.glob(f"user:{evil}:".encode(), b"*")


@given(text=st.text("ab*?[]\\^-", max_size=6), name=st.text("ab*?[]\\^-", min_size=1, max_size=6))
def test_a_literal_glob_matches_itself_alone(text: str, name: str) -> None:
    """A name made literal matches that name and no other."""
    literal = patterns.glob_literal(text)
    assert patterns.glob_matches(literal, name) == (text == name)
    assert patterns.glob_literal(text.encode()) == literal.encode()
    assert patterns.glob_matches(literal + "*", text + name)


class Expensive(Exception):
    """More steps than a bounded matcher may take."""


def naive_steps(pattern: str, name: str, budget: list[int]) -> bool:
    """The obvious recursion, which counts its steps."""
    budget[0] -= 1
    if budget[0] < 0:
        raise Expensive
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(naive_steps(pattern[1:], name[start:], budget) for start in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and naive_steps(pattern[1:], name[1:], budget)


def test_a_glob_takes_no_exponential_time() -> None:
    """What sends the obvious recursion past 100,000 steps is answered (CVE-2022-36021), in bounded time."""
    with pytest.raises(Expensive):
        naive_steps("*a" * 12 + "b", "a" * 60, [100_000])
    for pattern in ("*a" * 900 + "b", "*a?" * 600 + "*b", "*" + "a" * 900 + "b", "*?" * 400 + "b"):
        assert not patterns.glob_matches(pattern, "a" * 1024)
    assert not patterns.like_matches("%a" * 900 + "b", "a" * 1024)
    assert not patterns.topic_matches("#.a." * 400 + "b", "a." * 500 + "a", AMQP)


# --- SQL LIKE ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    """A database that tells upper from lower case in LIKE."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("PRAGMA case_sensitive_like=ON")
        yield connection
    connection.close()


def sql_like(connection: sqlite3.Connection, name: str, pattern: str, escape: str) -> bool:
    """What the database says."""
    return bool(connection.execute("SELECT ? LIKE ? ESCAPE ?", (name, pattern, escape)).fetchone()[0])


@st.composite
def likes(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern and its escape, such as are accepted."""
    escape = draw(st.sampled_from("\\!au:"))
    words = ["%", "_", escape + "%", escape + "_", escape * 2, *(c for c in "abuser:_é" if c != escape)]
    return "".join(draw(st.lists(st.sampled_from(words), min_size=1, max_size=6))), escape


@given(token=tenants, other=tenants, drawn=likes(), name=names | st.text("ab%_\\!", min_size=1, max_size=5))
@example(token="acme", other="b", drawn=("%", "\\"), name="x")
def test_a12_a_like_stays_within_the_tenant(
    sqlite: sqlite3.Connection, token: str, other: str, drawn: tuple[str, str], name: str
) -> None:
    """The database finds by the scoped pattern what it finds by the plain one among the tenant's own names."""
    pattern, escape = drawn
    prefix = f"user_{token}:"
    scoped = patterns.like(prefix, pattern, escape)
    expected = sql_like(sqlite, name, pattern, escape)
    assert patterns.like_matches(pattern, name, escape) == expected
    assert sql_like(sqlite, prefix + name, scoped, escape) == expected
    assert patterns.like_matches(scoped, prefix + name, escape) == expected
    for foreign in (f"user_{other}:{name}", f"userX{token}:{name}"):
        assert foreign.startswith(prefix) or not sql_like(sqlite, foreign, scoped, escape)


def test_a12_the_underscore_of_a_prefix_is_no_wildcard(sqlite: sqlite3.Connection) -> None:
    """``user_`` and the escapes of a token hold ``_``; unescaped they match the names of others."""
    mine, theirs = f"user_{encode('a.b')}:", f"user_{encode('axxxb')}:secret"
    broken = mine + "%"
    assert mine == "user_a_2eb:"
    assert sql_like(sqlite, "user_aX2eb:secret", broken, "\\"), "without the defence this is a leak"
    assert not sql_like(sqlite, "user_aX2eb:secret", patterns.like(mine, "%"), "\\")
    assert not sql_like(sqlite, theirs, patterns.like(mine, "%"), "\\")
    assert sql_like(sqlite, mine + "x", patterns.like(mine, "%"), "\\")


def test_a_database_that_folds_case_needs_the_second_lock(sqlite: sqlite3.Connection) -> None:
    """What a LIKE without case finds too much is the tenant's own; what it finds of others' is nothing."""
    sqlite.execute("PRAGMA case_sensitive_like=OFF")
    try:
        prefix = f"user_{encode('Acme')}:"
        scoped = patterns.like(prefix, "doc%")
        assert sql_like(sqlite, prefix + "DOCS", scoped, "\\")
        assert not sql_like(sqlite, f"user_{encode('acme')}:docs", scoped, "\\")
    finally:
        sqlite.execute("PRAGMA case_sensitive_like=ON")


@pytest.mark.parametrize(
    "pattern, escape, rule",
    [
        ("a\\", "\\", "ends in its escape"),
        ("\\\\\\", "\\", "ends in its escape"),
        ("\\a", "\\", "only %, _ and the escape"),
        ("a\0%", "\\", "NUL"),
        ("", "\\", "empty"),
        ("a", "", "one character"),
        ("a", "ab", "one character"),
        ("a", "%", "no wildcard"),
        ("\ud800", "\\", "surrogate"),
        ("a" * (PATTERN_BYTES_MAX + 1), "\\", "at most"),
    ],
)
def test_a_like_that_means_nothing_is_refused(pattern: str, escape: str, rule: str) -> None:
    """A dangling escape and its like are refused, with the rule; databases differ in what they make of them."""
    assert rule in says(lambda: patterns.like("user_a:", pattern, escape))
    assert rule in says(lambda: patterns.like_matches(pattern, "a", escape))


# --- Regular expressions ----------------------------------------------------------------------------------------------


EXPRESSIONS = [
    "a",
    "a|b",
    ".*",
    "a|.*",
    "(a)|b",
    "[^:]+",
    "(?i:a)b",
    "a$",
    r"a\.b",
    r"(?P<x>a)(?P=x)",
    "[]^]+",
    r"[\]^]a",
]


@given(token=tenants, other=tenants, pattern=st.sampled_from(EXPRESSIONS), name=names | st.text("ab]^.A", min_size=1))
@example(token="acme", other="b", pattern="a|.*", name="b")
def test_a13_an_expression_stays_within_the_tenant(token: str, other: str, pattern: str, name: str) -> None:
    """The scoped expression finds the tenant's names that the expression matches whole, however it is asked."""
    prefix = f"user:{token}:"
    scoped = patterns.regex(prefix, pattern)
    expected = re.fullmatch(pattern, name) is not None
    for ask in (scoped.search, scoped.match, scoped.fullmatch):
        assert (ask(prefix + name) is not None) == expected
        if other != token:
            assert ask(f"user:{other}:{name}") is None
            assert ask(f"user:{other}:{prefix}{name}") is None, "another tenant's name that holds our prefix"


def test_a13_alternation_cannot_leave_the_group() -> None:
    """``x|.*`` behind a prefix means another thing without a group, and anything at all without an anchor."""
    victim, embraced = "user:victim:secret", "user:victim:user:acme:x"
    assert re.compile("user:acme:x|.*").search(victim), "without the group this is a leak"
    assert re.compile("user:acme:(?:x|.*)").search(embraced), "without the anchor this is a leak"
    scoped = patterns.regex("user:acme:", "x|.*")
    assert scoped.search("user:acme:anything")
    assert not scoped.search(victim)
    assert not scoped.search(embraced)


@pytest.mark.parametrize("pattern", ["x)|(?:.*", "x)|.*|(?:x", "x)|(.*"])
def test_a13_brackets_cannot_leave_the_group(pattern: str) -> None:
    """What closes the group early is refused, since it is no expression on its own; the message shows no prefix."""
    assert re.compile(f"user:acme:(?:{pattern})").search("user:victim:secret"), "not compiled alone: a leak"
    message = says(lambda: patterns.regex("user:acme:", pattern))
    assert "on its own" in message
    assert "acme" not in message


@pytest.mark.parametrize(
    "pattern, rule",
    [
        ("(?i)a", "flags"),
        ("(?s).", "flags"),
        ("(?x) a", "flags"),
        ("a)(?:b", "on its own"),
        ("(a", "on its own"),
        ("a\\", "on its own"),
        ("a(?#", "on its own"),
        ("a(?i)", "on its own"),
        ("(?#[)^a]", "comments"),
        ("(?x: a # [\n)", "comments"),
        ("(?i-x:a)", "comments"),
        ("^a", "before it"),
        ("a|^b", "before it"),
        (r"\Aa", "before it"),
        (r"\bb", "before it"),
        (r"\\\Bb", "before it"),
        ("(?<=:)a", "before it"),
        ("(?<!x)a", "before it"),
        ("", "empty"),
        ("(" * 3000, "at most"),
    ],
)
def test_a13_an_expression_that_would_mean_something_else_is_refused(pattern: str, rule: str) -> None:
    """Flags for the whole, unbalanced parts, and what looks back into the prefix are refused with the rule."""
    assert rule in says(lambda: patterns.regex("user:acme:", pattern))


# --- Topics -----------------------------------------------------------------------------------------------------------


def reference_topic(wanted: list[str], found: list[str], dialect: TopicDialect) -> bool:
    """The definition, by recursion."""
    if not wanted:
        return not found
    if wanted[0] == dialect.many:
        return any(
            reference_topic(wanted[1:], found[taken:], dialect) for taken in range(dialect.many_from, len(found) + 1)
        )
    return bool(found) and wanted[0] in (dialect.one, found[0]) and reference_topic(wanted[1:], found[1:], dialect)


def all_patterns(dialect: TopicDialect, most: int) -> Iterator[list[str]]:
    """All patterns of a few segments that the dialect takes."""
    for size in range(1, most + 1):
        for segments in itertools.product(["a", "b", dialect.one, dialect.many], repeat=size):
            if not (dialect.many_last and dialect.many in segments[:-1]):
                yield list(segments)


def broker_matches(pattern: str, topic: str, dialect: TopicDialect) -> bool:
    """What a broker of *dialect* does with physical pattern and topic: it knows nothing of tenants."""
    inner = pattern.split("/", 2)[2] if dialect.shared and pattern.startswith(dialect.shared) else pattern
    return reference_topic(inner.split(dialect.separator), topic.split(dialect.separator), dialect)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a14_a_wildcard_stays_within_the_tenant(dialect: TopicDialect) -> None:
    """All patterns of up to three segments, on all topics: a broker matches just the tenant's own that are meant."""
    sep = dialect.separator
    mine, theirs = f"user_{UUID}{sep}", f"user_b{sep}"
    topics = [sep.join(t) for size in (1, 2, 3) for t in itertools.product("ab", repeat=size)]
    for segments in all_patterns(dialect, examples(3, 4)):
        pattern = sep.join(segments)
        scoped = patterns.segmented(mine, pattern, dialect)
        for topic in topics:
            expected = reference_topic(segments, topic.split(sep), dialect)
            assert patterns.topic_matches(pattern, topic, dialect) == expected
            assert broker_matches(scoped, mine + topic, dialect) == expected
            assert patterns.topic_matches(scoped, mine + topic, dialect) == expected
            assert not broker_matches(scoped, theirs + topic, dialect)
        for nobodys in (mine[:-1], mine[:-1] + "x", "a", f"x{sep}{mine}a"):
            assert not broker_matches(scoped, nobodys, dialect), "a topic that is not the tenant's"


segments_of = st.text("ab0é -_", min_size=1, max_size=3).filter(lambda text: not any(map(str.isspace, text)))


@given(
    dialect=st.sampled_from(DIALECTS),
    token=tenants,
    other=tenants,
    wanted=st.lists(segments_of | st.sampled_from(["1", "n"]), min_size=1, max_size=6),
    found=st.lists(segments_of, min_size=1, max_size=6),
)
def test_a14_any_pattern_of_topics_keeps_the_law(
    dialect: TopicDialect, token: str, other: str, wanted: list[str], found: list[str]
) -> None:
    """Drawn patterns, tenants and topics: scoped and physical match just where plain and logical do."""
    sep = dialect.separator
    wild = {"1": dialect.one, "n": dialect.many}
    segments = [wild.get(segment, segment) for segment in wanted]
    if dialect.many_last:
        segments = [segment for segment in segments[:-1] if segment != dialect.many] + segments[-1:]
    scoped = patterns.segmented(f"user_{token}{sep}", sep.join(segments), dialect)
    expected = reference_topic(segments, found, dialect)
    assert patterns.topic_matches(sep.join(segments), sep.join(found), dialect) == expected
    assert broker_matches(scoped, sep.join([f"user_{token}", *found]), dialect) == expected
    assert other == token or not broker_matches(scoped, sep.join([f"user_{other}", *found]), dialect)


def test_a14_what_naive_scoping_lets_through() -> None:
    """Passing ``$share`` through, gluing in front of everything, and a bare ``#``: each is wrong without the rule."""

    def naive(prefix: str, pattern: str) -> str:
        return pattern if pattern.startswith("$share/") else prefix + pattern

    victim = "user_b/secret"
    assert broker_matches(naive("user_a/", "$share/g/#"), victim, MQTT), "without the defence this is a leak"
    assert patterns.segmented("user_a/", "$share/g/#", MQTT) == "$share/g/user_a/+/#"
    assert not broker_matches("$share/g/user_a/+/#", victim, MQTT)
    assert broker_matches("user_a.#", "user_a", AMQP), "without the defence a topic that is nobody's"
    assert not broker_matches(patterns.segmented("user_a.", "#", AMQP), "user_a", AMQP)
    assert not broker_matches(patterns.segmented("user_a.", "#.#", AMQP), "user_a", AMQP)


@pytest.mark.parametrize(
    "dialect, pattern, rule",
    [
        (AMQP, "a..b", "empty segment"),
        (AMQP, ".a", "empty segment"),
        (AMQP, "a.", "empty segment"),
        (AMQP, "a.b*", "whole segment"),
        (AMQP, "a.#b", "whole segment"),
        (AMQP, "a\0", "NUL"),
        (SYNAP, "#.a", "at the end"),
        (SYNAP, "#.#", "at the end"),
        (NATS, ">.a", "at the end"),
        (NATS, "$SYS.>", "broker's own"),
        (NATS, "$JS.API.>", "broker's own"),
        (NATS, "a b", "blanks"),
        (NATS, "a\r\nPUB x 0", "blanks"),
        (MQTT, "$SYS/#", "broker's own"),
        (MQTT, "$queue/a", "broker's own"),
        (MQTT, "$share", "broker's own"),
        (MQTT, "$share/g", "shared subscription"),
        (MQTT, "$share/g/", "shared subscription"),
        (MQTT, "$share//a", "empty segment"),
        (MQTT, "$share/+/a", "whole segment"),
        (MQTT, "$share/g/$SYS/#", "broker's own"),
        (MQTT, "$share/g/$share/h/#", "broker's own"),
        (MQTT, "#/a", "at the end"),
        (MQTT, "/a", "empty segment"),
        (MQTT, "a+/b", "whole segment"),
        (MQTT, "", "empty"),
        (MQTT, "a/" * 1001 + "a", "at most"),
    ],
)
def test_a14_what_cannot_be_scoped_is_refused(dialect: TopicDialect, pattern: str, rule: str) -> None:
    """Reserved heads, parts of segments, empty segments: refused with the rule, with and without a tenant."""
    for prefix in (f"user_a{dialect.separator}", ""):
        assert rule in says(lambda p=prefix: patterns.segmented(p, pattern, dialect))  # type: ignore[misc]
    assert rule in says(lambda: patterns.topic_matches(pattern, "a", dialect))


@pytest.mark.parametrize("topic", ["$SYS/broker", "a//b", "a/+", "a/#", "a\0"])
def test_a14_no_pattern_matches_a_topic_that_is_none(topic: str) -> None:
    """``#`` does not mean the broker's own topics, and what cannot be published is matched by nothing."""
    assert not patterns.topic_matches("#", topic, MQTT)
    assert not patterns.topic_matches("+/broker", topic, MQTT)
    says(lambda: patterns.check_topic(topic, MQTT))
    patterns.check_topic("a/b", MQTT)


def test_a14_where_the_tenant_is_glued_to_the_first_segment() -> None:
    """With Synap's names a wildcard first segment cannot be sent to the broker, and does work in one's own process."""
    glued = "user_550e8400e29b41d4a716446655440000:"
    assert patterns.segmented(glued, "orders.*.#", SYNAP) == glued + "orders.*.#"
    assert not broker_matches(glued + "#", glued + "orders.new", SYNAP), "what upstream did: a bare # never matched"
    for pattern in ("#", "*", "*.new"):
        assert "first segment" in says(lambda p=pattern: patterns.segmented(glued, p, SYNAP))  # type: ignore[misc]
        assert patterns.segmented("", pattern, SYNAP) == pattern
    physical = glued + "orders.new"
    assert patterns.topic_matches("#", physical.removeprefix(glued), SYNAP)


def test_a_prefix_with_a_wildcard_is_refused() -> None:
    """As for globs: the characters that mean something stand in no prefix."""
    for dialect in DIALECTS:
        for wild in (dialect.one, dialect.many):
            with pytest.raises(ConfigurationError, match="wildcard"):
                patterns.segmented(f"user_{wild}{dialect.separator}", "a", dialect)


def test_each_separator_has_a_dialect() -> None:
    """A manager finds the dialect of its separator."""
    assert {separator: dialect.separator for separator, dialect in patterns.DIALECTS.items()} == {
        ".": ".",
        "/": "/",
        ":": ":",
    }


@given(
    dialect=st.sampled_from(DIALECTS),
    pattern=st.text("ab.:/*#+>$ \0\x1fé", max_size=7),
    prefix=st.sampled_from(["user_a{}", "user_a!", ""]),
)
def test_the_short_way_takes_nothing_that_the_long_way_refuses(
    dialect: TopicDialect, pattern: str, prefix: str
) -> None:
    """Most patterns are accepted at a glance; that glance agrees with the rules, segment by segment."""
    prefix = prefix.format(dialect.separator)
    if dialect._plain.fullmatch(pattern):
        head, segments = patterns._pattern_segments(pattern, dialect)
        assert (head, dialect.separator.join(segments)) == ("", pattern)
        assert segments[0] not in (dialect.one, dialect.many)
        assert patterns.segmented(prefix, pattern, dialect) == prefix + pattern


@pytest.mark.parametrize(
    "wrong",
    [
        {"separator": ""},
        {"separator": "::"},
        {"one": "#"},
        {"many": "."},
        {"many_from": 2},
        {"shared": "$share"},
    ],
)
def test_a_dialect_is_checked_when_it_is_made(wrong: dict[str, object]) -> None:
    """A host's own dialect whose marks run together would scope nothing."""
    with pytest.raises(ConfigurationError):
        TopicDialect(**({"name": "own", "separator": ".", "one": "*", "many": "#"} | wrong))  # type: ignore[arg-type]


class Physical(str):
    """A str that is not plain, as physical names are."""

    __slots__ = ()


@pytest.mark.parametrize("pattern", [Physical("a"), b"a", None, 1])
def test_a_pattern_is_a_plain_str(pattern: object) -> None:
    """What is scoped already, bytes and the like are refused by every dialect."""
    for refused in (
        lambda: patterns.glob("user:a:", pattern),
        lambda: patterns.like("user:a:", pattern),  # type: ignore[arg-type]
        lambda: patterns.regex("user:a:", pattern),  # type: ignore[arg-type]
        lambda: patterns.segmented("user:a.", pattern, AMQP),  # type: ignore[arg-type]
    ):
        assert "plain str" in says(refused)  # type: ignore[arg-type]
    for wrong in ("a", bytearray(b"a"), b""):
        says(lambda w=wrong: patterns.glob(b"user:a:", w))  # type: ignore[misc]
    says(lambda: patterns.glob("user:a:", ""))
    says(lambda: patterns.glob_matches("\ud800", "a"))
    says(lambda: patterns.glob_matches("*" * (PATTERN_BYTES_MAX + 1), "a"))
