"""`CommandScope` without a server: which words go out, which never do, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError, MisuseError
from hivetenancy.hooks import IsolationEvent, IsolationKind
from hivetenancy.ids import STANDALONE, TenantId
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.scopes import command_keys, command_replies, commands
from hivetenancy.scopes.command_keys import CommandRefusedError, Unsent, look_up
from hivetenancy.scopes.command_replies import UnexpectedReplyError, clean_error
from hivetenancy.scopes.command_table import COMMANDS, COMMANDS_TEXT, FORBIDDEN, FRONT, Shape, by_word, parse
from hivetenancy.scopes.commands import CommandScope
from hivetenancy.scopes.graph import GraphScope
from hivetenancy.scopes.resp import Items, Line

ACME = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
KEY, CHANNEL = b"user:acme:", b"user_acme:"


class Sink:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[IsolationEvent] = []

    def isolation(self, event: IsolationEvent, *, now: Any = None) -> None:
        """Keep one."""
        self.events.append(event)


def scope(sink: Sink | None = None) -> CommandScope:
    """The commands of the tenant ``acme``."""
    names = PrefixNamespaces(scheme="slug").for_tenant(ACME)
    return CommandScope(names, tenant=ACME.tenant_id, sink=sink)


def words(text: str) -> list[bytes]:
    """The words of a command; ``^`` stands for the tenant's keys and ``~`` for its channels."""
    return [
        KEY + word[1:].encode() if word[0] == "^" else CHANNEL + word[1:].encode() if word[0] == "~" else word.encode()
        for word in text.split()
    ]


SCOPED = """
get k                                            | get ^k
MSET a 1 b 2                                     | MSET ^a 1 ^b 2
BLPOP a b 0                                      | BLPOP ^a ^b 0
BITOP NOT to from                                | BITOP NOT ^to ^from
ZUNIONSTORE to 2 a b WEIGHTS 1 2                 | ZUNIONSTORE ^to 2 ^a ^b WEIGHTS 1 2
LMPOP 1 l LEFT                                   | LMPOP 1 ^l LEFT
MSETEX 2 a 1 b 2 EX 5                            | MSETEX 2 ^a 1 ^b 2 EX 5
COPY a b REPLACE                                 | COPY ^a ^b REPLACE
SORT l BY w_*->f LIMIT 0 5 GET # GET o_* store d | SORT ^l BY ^w_*->f LIMIT 0 5 GET # GET ^o_* store ^d
SORT l BY nosort                                 | SORT ^l BY ^nosort
GEORADIUS g 1 2 3 km COUNT 4 ANY STORE d         | GEORADIUS ^g 1 2 3 km COUNT 4 ANY STORE ^d
GEORADIUSBYMEMBER g STORE 3 km STOREDIST d       | GEORADIUSBYMEMBER ^g STORE 3 km STOREDIST ^d
XREAD COUNT 2 BLOCK 0 STREAMS a b 0 $            | XREAD COUNT 2 BLOCK 0 STREAMS ^a ^b 0 $
XREADGROUP GROUP g c NOACK streams a >           | XREADGROUP GROUP g c NOACK streams ^a >
XGROUP CREATE x g $                              | XGROUP CREATE ^x g $
object encoding k                                | object encoding ^k
MEMORY USAGE k SAMPLES 0                         | MEMORY USAGE ^k SAMPLES 0
KEYS *                                           | KEYS ^*
KEYS user:globex:*                               | KEYS ^user:globex:*
SCAN 5                                           | SCAN 5 MATCH ^*
SCAN 5 COUNT 9 match a* TYPE list                | SCAN 5 COUNT 9 match ^a* TYPE list
PUBLISH c m                                      | PUBLISH ~c m
SUBSCRIBE a __keyspace@0__:x                     | SUBSCRIBE ~a ~__keyspace@0__:x
PSUBSCRIBE *                                     | PSUBSCRIBE ~*
UNSUBSCRIBE                                      | UNSUBSCRIBE
PUBSUB CHANNELS                                  | PUBSUB CHANNELS ~*
PUBSUB NUMSUB a                                  | PUBSUB NUMSUB ~a
PING user:globex:k                               | PING user:globex:k
WATCH a b                                        | WATCH ^a ^b
"""


@pytest.mark.parametrize("line", SCOPED.strip().splitlines())
def test_a15_each_name_is_scoped_and_nothing_else(line: str) -> None:
    """Keys, patterns and channels get the tenant's prefix wherever they stand; values and options stay."""
    sent, expected = line.split("|")
    assert list(scope().scope(words(sent)).words) == words(expected)


REFUSED = """
unknown | NOSUCH | JSON.GET k . | FT.SEARCH i q | XGROUP NOSUCH x | OBJECT NOSUCH k | MEMORY STATS | PUBSUB NUMPAT
unknown | MEMORY DOCTOR | client|list | XGROUP|CREATE x g $
forbidden | EVAL s 0 | EVALSHA s 0 | FCALL f 0 | FUNCTION LIST | SCRIPT LOAD s | CONFIG GET * | DEBUG SLEEP 1 | MONITOR
forbidden | MIGRATE h 1 k 0 9 | SHUTDOWN | SAVE | SLOWLOG GET | ACL LIST | MODULE LIST | REPLICAOF a 1 | SWAPDB 0 1
forbidden | MOVE k 1 | CLUSTER NODES | RESTORE k 0 p | WAIT 1 0 | ROLE | LATENCY LATEST | SYNC | PSYNC a 0 | LOLWUT
front | CLIENT LIST | CLIENT KILL a | INFO | SELECT 1 | COMMAND DOCS | HELLO 3 | AUTH k | RESET | QUIT
arity | GET | GET a b | SET k | MSET a 1 b | MSETEX 1 k | XGROUP | OBJECT ENCODING | KEYS | DBSIZE x | BLPOP k
syntax | ZUNION 0 k | ZUNION -1 k | ZUNION +1 k | ZUNION 01 k | ZUNION 2 k | ZUNION x k | ZUNION 1.0 k | ZUNION 1e0 k
syntax | ZUNION 99999999999999999999 k | ZUNION 18446744073709551617 k | SINTERCARD 3 a b | BLMPOP 0 9 k LEFT
syntax | COPY a b DB 1 | SORT l NOSUCH | SORT l STORE | SORT l STORE a STORE b | SORT l LIMIT 1 | SORT_RO l STORE d
syntax | XREAD STREAMS a b 0 | XREAD COUNT 1 a 0 | XREAD COUNT STREAMS STREAMS a 0 | XREAD BLOCK 1 k 0
syntax | GEORADIUS g 1 2 3 km STORE | SCAN 0 MATCH a MATCH b | SCAN 0 MATCH
syntax | GEORADIUS g 1 2 3 km STORE a STORE b | SCAN 0 NOSUCH x
"""
CASES = [
    (line.split(" | ")[0], case.strip()) for line in REFUSED.strip().splitlines() for case in line.split(" | ")[1:]
]


@pytest.mark.parametrize(("why", "text"), CASES)
def test_a15_what_cannot_be_located_is_refused(why: str, text: str) -> None:
    """Unknown, forbidden, wrongly counted: refused with the command's name, and nothing else of what was sent."""
    sink = Sink()
    with pytest.raises(CommandRefusedError) as refused:
        scope(sink).scope(words(text))
    assert refused.value.why is Unsent[why.upper()]
    command = refused.value.command
    assert str(refused.value) == f"{refused.value.why} '{command}'"
    assert " ".join(text.upper().replace("|", "?").split()).startswith(command)
    assert len(command.split()) <= 2
    assert [event.kind for event in sink.events] == [IsolationKind.UNSCOPABLE] * (why != "arity")


@pytest.mark.parametrize("count", [b" 1", b"1 ", b"1\n", b"\xd9\xa1", b"", b"1_0", b"0x1", b"--1"])
def test_a15_a_count_has_one_spelling(count: bytes) -> None:
    """What `int` would take and Redis would not is no count; nor is a newline, or another alphabet's digit."""
    with pytest.raises(CommandRefusedError) as refused:
        scope().scope([b"ZUNION", count, b"k"])
    assert refused.value.why is Unsent.SYNTAX


def test_a08_newlines_and_other_bytes_make_no_command() -> None:
    """A command's name is its bytes: nothing is trimmed, folded but ASCII, or cut at a NUL."""
    for name in (
        b"GET\n",
        b" GET",
        b"GET\0",
        b"GET ",
        b"\xc7ET",
        "GE\u0280T".encode(),
        b"",
        b"XGROUP CREATE",
    ):
        with pytest.raises(CommandRefusedError) as refused:
            scope().scope([name, b"k"])
        assert refused.value.why is Unsent.UNKNOWN
    with pytest.raises(CommandRefusedError):
        scope().scope([])


def test_names_that_cannot_be_are_refused() -> None:
    """An empty key, one that is too long, an empty pattern: the command is refused, not repaired."""
    for args in ([b"GET", b""], [b"GET", b"k" * 5000], [b"KEYS", b""], [b"SUBSCRIBE", b""], [b"MGET", b"a", b""]):
        with pytest.raises(CommandRefusedError) as refused:
            scope().scope(args)
        assert refused.value.why is Unsent.NAME


def test_forbidden_and_front_commands_are_not_in_the_table() -> None:
    """Nothing is both allowed and not."""
    first = {name.split()[0].encode() for name in COMMANDS}
    assert not first & set(FORBIDDEN)
    assert not first & FRONT


@given(st.lists(st.binary(max_size=12), max_size=8), st.sampled_from(sorted(COMMANDS)))
def test_whatever_is_sent_is_scoped_or_refused(rest: list[bytes], name: str) -> None:
    """Words are changed only by a prefix in front, and none is lost."""
    try:
        made = scope().scope([*name.encode().split(), *rest])
    except CommandRefusedError:
        return
    if made.command.shape is Shape.SWEEP:
        return
    sent = [*name.encode().split(), *rest]
    for before, after in zip(sent, made.words, strict=False):
        assert after in (before, KEY + before, CHANNEL + before)
    assert len(made.words) - len(sent) in (0, 1, 2)


# --- replies ---------------------------------------------------------------------------------------------------------

MINE, THEIRS = KEY + b"k", b"user:globex:k"

REPLIES = [
    ("KEYS *", [MINE], [b"k"]),
    ("SCAN 0", [b"7", [MINE, MINE]], [b"7", [b"k", b"k"]]),
    ("BLPOP k 0", [MINE, b"v"], [b"k", b"v"]),
    ("BZPOPMIN k 0", [MINE, b"m", b"1"], [b"k", b"m", b"1"]),
    ("LMPOP 1 k LEFT", [MINE, [b"user:globex:v"]], [b"k", [b"user:globex:v"]]),
    ("XREAD STREAMS k 0", [[MINE, [[b"1-1", [b"f", b"v"]]]]], [[b"k", [[b"1-1", [b"f", b"v"]]]]]),
    ("XREAD STREAMS k 0", Items([MINE, []], b"%"), Items([b"k", []], b"%")),
    ("XREAD STREAMS k 0", {MINE: []}, {b"k": []}),
    ("PUBSUB CHANNELS", [CHANNEL + b"c"], [b"c"]),
    ("PUBSUB NUMSUB c d", [CHANNEL + b"c", 1, CHANNEL + b"d", 0], [b"c", 1, b"d", 0]),
    ("PUBSUB NUMSUB c", {CHANNEL + b"c": 1}, {b"c": 1}),
    ("SUBSCRIBE c", [b"subscribe", CHANNEL + b"c", 1], [b"subscribe", b"c", 1]),
    ("UNSUBSCRIBE", [b"unsubscribe", None, 0], [b"unsubscribe", None, 0]),
]


@pytest.mark.parametrize(("text", "reply", "expected"), REPLIES)
def test_names_in_replies_are_stripped(text: str, reply: object, expected: object) -> None:
    """Each declared shape gives the tenant's own names, and leaves values alone."""
    command = scope().scope(words(text))
    assert command.unscope(reply) == expected


def foreign(reply: Any) -> Any:
    """The reply with another tenant's names in place of ours."""
    if isinstance(reply, bytes):
        return reply.replace(b"acme", b"globex")
    if isinstance(reply, dict):
        return {foreign(key): value for key, value in reply.items()}
    if isinstance(reply, list):
        made = [foreign(item) for item in reply]
        return Items(made, reply.mark) if isinstance(reply, Items) else made
    return reply


NAMED = [case for case in REPLIES if foreign(case[1]) != case[1]]


@pytest.mark.parametrize(("text", "reply", "expected"), NAMED)
def test_the_second_lock_holds_in_every_shape(text: str, reply: object, expected: object) -> None:
    """A name that is not the tenant's raises, shows nothing, and is reported once."""
    sink = Sink()
    command = scope(sink).scope(words(text))
    with pytest.raises(InvalidNameError) as raised:
        command.unscope(foreign(reply))
    assert "globex" not in str(raised.value)
    assert [event.kind for event in sink.events] == [IsolationKind.FOREIGN_NAME]
    assert "globex" not in repr(sink.events)


@pytest.mark.parametrize(("text", "reply", "expected"), NAMED)
def test_without_the_second_lock_it_would_be_shown(
    text: str, reply: object, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails for a scope whose lock lets everything through."""
    monkeypatch.setattr(commands._Lock, "strip", lambda self, physical: physical)
    sink = Sink()
    assert b"globex" in repr(scope(sink).scope(words(text)).unscope(foreign(reply))).encode()
    assert sink.events == []


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("KEYS *", b"x"),
        ("KEYS *", None),
        ("KEYS *", [None]),
        ("KEYS *", [[MINE]]),
        ("KEYS *", [1]),
        ("SCAN 0", [b"0"]),
        ("SCAN 0", [b"0", [], []]),
        ("BLPOP k 0", []),
        ("XREAD STREAMS k 0", [MINE]),
        ("XREAD STREAMS k 0", [[MINE]]),
        ("SUBSCRIBE c", [b"message", CHANNEL + b"c"]),
        ("SUBSCRIBE c", [b"invalidate", [MINE]]),
        ("SUBSCRIBE c", b"x"),
        ("PUBSUB CHANNELS", 5),
    ],
)
def test_a_reply_of_another_shape_is_not_shown(text: str, reply: object) -> None:
    """Where names would stand in it cannot be told, so it raises."""
    made = scope().scope(words(text))
    if reply == [b"message", CHANNEL + b"c"]:
        assert made.unscope(reply) == [b"message", b"c"]  # a message, as a subscriber gets them
        return
    with pytest.raises(UnexpectedReplyError):
        made.unscope(reply)


def test_a_tenants_prefix_alone_is_no_name() -> None:
    """A key that somebody planted under the bare prefix belongs to nobody."""
    with pytest.raises(InvalidNameError):
        scope().scope([b"KEYS", b"*"]).unscope([KEY])


def test_exec_and_sweeps_have_no_shape_of_their_own() -> None:
    """What a reply means only a session knows, or a sweep: asked alone, the scope does not guess."""
    with pytest.raises(MisuseError):
        scope().scope([b"EXEC"]).unscope([MINE])
    for name in (b"DBSIZE", b"FLUSHALL", b"RANDOMKEY"):
        command = scope().scope([name])
        with pytest.raises(MisuseError):
            command.words  # noqa: B018 - reading it is what is refused
        with pytest.raises(UnexpectedReplyError):
            command.unscope(MINE)


# --- errors ----------------------------------------------------------------------------------------------------------

ERRORS = [
    ("GET k", b"WRONGTYPE Operation against a key", b"WRONGTYPE Operation against a key"),
    ("XREAD STREAMS k 0", b"NOGROUP No such key 'user:acme:k' or", b"NOGROUP No such key 'k' or"),
    ("GET k", b"NOGROUP No such key 'user:globex:k'", b"NOGROUP the server could not run the command"),
    ("GET k", b"ERR about user:acme:other", b"ERR the server could not run the command"),
    ("GET k", b"ERR about 'other'", b"ERR the server could not run the command"),
    ("GET k", b'ERR about "other"', b"ERR the server could not run the command"),
    ("GET k", b"ERR about `other`", b"ERR the server could not run the command"),
    ("GET k", b"ERR wrong number of arguments for 'get' command", b"ERR wrong number of arguments for 'get' command"),
    ("XGROUP SETID k g 1", b"ERR for 'xgroup|setid' command", b"ERR for 'xgroup|setid' command"),
    ("GET k", b"ERR Can't execute 'get': only", b"ERR Can't execute 'get': only"),
    ("GET k", b"MOVED 5 10.0.0.7:6379", b"ERR the server could not run the command"),
    ("GET k", b"NOAUTH Authentication required.", b"ERR the server could not run the command"),
    ("GET k", b"LOADING Redis is loading /var/lib/x", b"LOADING the server could not run the command"),
    ("GET k", b"no kind at all", b"ERR the server could not run the command"),
    ("MGET user:acme: b", b"ERR at 'user:acme:user:acme:'", b"ERR at 'user:acme:'"),
]


@pytest.mark.parametrize(("text", "said", "seen"), ERRORS)
def test_errors_show_no_physical_name(text: str, said: bytes, seen: bytes) -> None:
    """A known kind passes with the tenant's own words; whatever else it quotes, or whose it is, goes."""
    command = scope().scope(words(text))
    assert command.unscope(Line(b"-" + said)) == Line(b"-" + seen)
    assert str(command.unscope(ValueError(said.decode()))) == seen.decode()


def test_errors_passed_as_they_are_would_show_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for a scope that passes errors on."""
    monkeypatch.setattr(commands, "clean_error", lambda text, **about: text.decode())
    shown = [scope().scope(words(text)).unscope(Line(b"-" + said)) for text, said, _ in ERRORS]
    assert sum(b"globex" in line or KEY in line for line in map(bytes, shown)) >= 3


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=20))
def test_no_error_shows_the_prefix(noise: bytes, key: bytes) -> None:
    """Whatever an error says, the tenant's prefix is in it only as part of a word that the tenant sent."""
    shown = clean_error(b"ERR " + noise + KEY + key, sent=[b"GET", b"k"], renamed=[(KEY + b"k", b"k")], secret=[KEY])
    assert KEY.decode() not in shown


# --- patterns, standalone, hash tags -------------------------------------------------------------------------------


def test_a12_a_pattern_cannot_leave_the_prefix() -> None:
    """Every glob goes behind the literal prefix; a pattern glued on without it is another test's mutant."""
    for pattern in (b"*", b"?ser:globex:*", b"[u]ser:*", b"\\*", b"**", b"../*", b"*\0", b"]["):
        assert scope().scope([b"KEYS", pattern]).words[1] == KEY + pattern
        assert scope().scope([b"PSUBSCRIBE", pattern]).words[1] == CHANNEL + pattern
        assert scope().scope([b"SORT", b"l", b"BY", pattern]).words[3] == KEY + pattern


def test_a14_notification_channels_are_never_formed() -> None:
    """No word that a tenant can send makes Redis's own channels, nor a pattern that matches them."""
    for channel in (b"__keyspace@0__:*", b"__keyevent@0__:del", b"__redis__:invalidate", b"*"):
        for verb in (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"PUBLISH"):
            rest = [b"m"] if verb == b"PUBLISH" else []
            assert not scope().scope([verb, channel, *rest]).words[1].startswith(b"__")
    broken = by_word(
        parse(
            COMMANDS_TEXT.replace("-> confirmations", "").replace("PSUBSCRIBE           -2 r p1..", "PSUBSCRIBE -2 r")
        )
    )
    assert command_keys.spots(look_up([b"PSUBSCRIBE", b"*"], broken), [b"PSUBSCRIBE", b"*"]) == []


def test_a37_a_hash_tag_in_a_key_steers_nothing() -> None:
    """Under the profile for Redis Cluster a key's own braces do not choose its slot."""
    crc = pytest.importorskip("redis.crc", reason="redis-py says which slot a key has: pip install redis")
    tagged = PrefixNamespaces(scheme="slug", profile="tagged").for_tenant(ACME)
    keys = [b"plain", b"{victim}", b"a{victim}b", b"{}", b"}{x}", b"{acme}"]
    made = CommandScope(tagged).scope([b"MGET", *keys]).words[1:]
    assert len({crc.key_slot(key) for key in made}) == 1
    assert len({crc.key_slot(scope().scope([b"GET", key]).words[1]) for key in keys}) > 1  # the default does not say so


def test_standalone_changes_nothing() -> None:
    """With the identity a command goes out as it came, and its reply comes back as it is."""
    alone = TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)
    made = CommandScope(IdentityNamespaces().for_tenant(alone)).scope([b"BLPOP", b"a", b"b", b"0"])
    assert list(made.words) == [b"BLPOP", b"a", b"b", b"0"]
    assert made.unscope([b"a", b"user:globex:x"]) == [b"a", b"user:globex:x"]
    assert repr(made) == "<ScopedCommand BLPOP>"


MUTANTS = {
    "numkeys by int": (command_keys, "_COUNT", __import__("re").compile(rb"[ +]*[0-9]+\s*"), "ZUNION +1 k"),
    "an option may stand twice": (command_keys, "REPEATED", frozenset({b"GET", b"STORE"}), "SORT l STORE a STORE b"),
    "names in quotes pass": (command_replies, "_quotes_only", lambda text, sent: True, None),
}


@pytest.mark.parametrize("fault", MUTANTS)
def test_a_broken_rule_lets_through_what_the_tests_refuse(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above tell each rule from its absence."""
    module, name, wrong, text = MUTANTS[fault]
    monkeypatch.setattr(module, name, wrong)
    if text is None:
        made = scope().scope([b"GET", b"k"]).unscope(Line(b"-NOGROUP No such key 'user:globex:k'"))
        assert b"globex" in bytes(made)
    else:
        scope().scope(words(text))


def test_a_table_is_read_or_refused() -> None:
    """A line that is not as described, or that stands twice, is no table."""
    for bad in ("GET", "GET 2 x 1", "GET 2 r 1 q", "GET 2 r 0", "GET 2 r 1\nGET 2 r 1"):
        with pytest.raises(ValueError):
            parse(bad)
    with pytest.raises(ValueError):
        parse("GET 2 r 1 -> nosuch")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["GET", "k"], "one is str: encode it"),
        ([b"GET", "k"], "one is str: encode it"),
        ([b"GET", 5], "one is int"),
        ("GET k", "a command is a list of its words as bytes"),
        (b"GET k", "not bytes"),
        (5, "not int"),
    ],
)
def test_what_is_no_command_is_said(args: Any, said: str) -> None:
    """A mistake of the server's own is no refusal of its client: the message says what to hand in."""
    scope = CommandScope(PrefixNamespaces(scheme="slug").for_tenant(TENANT_OF_MISUSE))
    with pytest.raises(TypeError, match=said):
        scope.scope(args)


def test_one_kind_of_name_is_not_enough() -> None:
    """A scope of commands wants all of a tenant's names, one of graphs those of the graph; each says what to pass."""
    names: Any = PrefixNamespaces(scheme="slug").for_tenant(TENANT_OF_MISUSE)
    with pytest.raises(TypeError, match="pass the tenant"):
        CommandScope(names.kv)
    with pytest.raises(TypeError, match=r"pass \.graph"):
        GraphScope(names)


TENANT_OF_MISUSE = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
