"""`CommandSession`, sweeps and RESP without a server: which reply is whose, whatever comes in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.errors import InvalidNameError, MisuseError
from hivetenancy.scopes import command_session, command_sweeps, commands
from hivetenancy.scopes.command_front import Front
from hivetenancy.scopes.command_keys import CommandRefusedError, Unsent
from hivetenancy.scopes.command_replies import UnexpectedReplyError
from hivetenancy.scopes.command_session import ABORTED, CommandSession
from hivetenancy.scopes.command_sweeps import ScanCursors, sweep
from hivetenancy.scopes.command_table import COMMANDS
from hivetenancy.scopes.resp import (
    Caps,
    Items,
    Line,
    ProtocolError,
    Replies,
    Requests,
    decode,
    encode,
    encode_command,
    error,
)
from tests.scopes.test_commands import CHANNEL, KEY, Sink, scope, words

OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"


def session(protocol: int = 2) -> CommandSession:
    """A connection of ``acme``."""
    return CommandSession(scope(), protocol=protocol)


def message(*items: object, mark: bytes = b"*") -> bytes:
    """A message of pub/sub."""
    return encode(Items(items, mark))


# --- transactions ----------------------------------------------------------------------------------------------------


def test_exec_answers_in_the_shapes_of_what_was_queued() -> None:
    """Each reply of EXEC is read as its own command's: names are stripped in one and left alone in the next."""
    made = session()
    for text in ("MULTI", "LRANGE l 0 -1", "BLPOP l 0", "KEYS *", "GET k", "EXEC"):
        made.send(words(text))
    assert made.receive(OK) == OK
    for _ in range(4):
        assert made.receive(QUEUED) == QUEUED
    replies = [[KEY + b"v"], [KEY + b"l", b"v"], [KEY + b"a"], Line(b"-ERR of 'user:acme:k'")]
    seen = decode(made.receive(encode(replies)))
    assert seen == [[KEY + b"v"], [b"l", b"v"], [b"a"], b"-ERR of 'k'"]
    assert made.idle


def test_a_command_that_the_server_did_not_queue_shifts_nothing() -> None:
    """Only what was answered QUEUED counts: WATCH within MULTI is refused by the server and leaves no reply in EXEC."""
    made = session()
    for text in ("MULTI", "WATCH k", "KEYS *", "EXEC"):
        made.send(words(text))
    made.receive(OK)
    made.receive(b"-ERR WATCH inside MULTI is not allowed\r\n")
    made.receive(QUEUED)
    assert decode(made.receive(encode([[KEY + b"a"]]))) == [[b"a"]]


def test_shapes_taken_in_order_of_sending_would_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for a session that queues what it sent."""
    monkeypatch.setattr(command_session, "_QUEUED", b"-ERR WATCH inside MULTI is not allowed\r\n")
    with pytest.raises((UnexpectedReplyError, AssertionError)):
        test_a_command_that_the_server_did_not_queue_shifts_nothing()


def test_a_refused_command_spoils_the_transaction() -> None:
    """What never reached the server cannot make it abort, so EXEC goes out as DISCARD and is answered EXECABORT."""
    for bad in ("EVAL s 0", "GET", "NOSUCH", "DBSIZE", "SCAN 0", "SUBSCRIBE c", "FLUSHALL"):
        made = session()
        made.send(words("MULTI"))
        with pytest.raises(CommandRefusedError):
            made.send(words(bad))
        made.send(words("SET k v"))
        assert list(made.send(words("EXEC")).words) == [b"DISCARD"]
        assert [made.receive(frame) for frame in (OK, QUEUED, OK)] == [OK, QUEUED, ABORTED]
        assert list(made.send(words("EXEC")).words) == [b"EXEC"]  # the next one is new


def test_a_refusal_outside_spoils_nothing() -> None:
    """Without MULTI a refused command leaves the next transaction alone; DISCARD ends a spoiled one."""
    made = session()
    made.spoil()
    with pytest.raises(CommandRefusedError):
        made.send(words("EVAL s 0"))
    made.send(words("MULTI"))
    assert made.queueing
    made.spoil()
    made.send(words("DISCARD"))
    made.send(words("MULTI"))
    assert list(made.send(words("EXEC")).words) == [b"EXEC"]


def test_exec_may_be_null_or_an_error_but_not_too_short() -> None:
    """A watched key that was written answers null; a list of another length than was queued is not shown."""
    for answer in (b"*-1\r\n", b"_\r\n", b"-EXECABORT Transaction discarded\r\n"):
        made = session()
        for text in ("MULTI", "KEYS *", "EXEC"):
            made.send(words(text))
        made.receive(OK)
        made.receive(QUEUED)
        assert made.receive(answer) == answer
    made = session()
    for text in ("MULTI", "KEYS *", "EXEC"):
        made.send(words(text))
    made.receive(OK)
    made.receive(QUEUED)
    with pytest.raises(UnexpectedReplyError):
        made.receive(encode([[KEY + b"a"], [KEY + b"b"]]))


# --- pub/sub ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "mark"), [(2, b"*"), (3, b">")])
def test_a14_messages_are_the_tenants_own(protocol: int, mark: bytes) -> None:
    """Confirmations and messages show the tenant's channels; one of a notification or of another tenant raises."""
    made = session(protocol)
    made.send(words("PSUBSCRIBE * a"))
    first = message(b"psubscribe", CHANNEL + b"*", 1, mark=mark)
    assert made.receive(first) == message(b"psubscribe", b"*", 1, mark=mark)
    assert not made.idle
    told = message(b"pmessage", CHANNEL + b"*", CHANNEL + b"c", b"user_acme:x", mark=mark)
    assert made.receive(told) == message(b"pmessage", b"*", b"c", b"user_acme:x", mark=mark)  # before the second one
    made.receive(message(b"psubscribe", CHANNEL + b"a", 2, mark=mark))
    assert made.idle
    assert made.subscribed
    for channel in (b"__keyspace@0__:user:acme:k", b"user_globex:c", b"user_acme", CHANNEL):
        with pytest.raises(InvalidNameError):
            made.receive(message(b"pmessage", CHANNEL + b"*", channel, b"del", mark=mark))


def test_messages_as_they_come_would_show_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails without the second lock."""
    monkeypatch.setattr(commands._Lock, "strip", lambda lock, physical: physical.removeprefix(CHANNEL))
    with pytest.raises(pytest.fail.Exception):
        test_a14_messages_are_the_tenants_own(2, b"*")


@pytest.mark.parametrize(("protocol", "mark"), [(2, b"*"), (3, b">")])
def test_unsubscribing_from_everything_answers_for_each(protocol: int, mark: bytes) -> None:
    """Without channels there are as many confirmations as there were subscriptions, and one of null for none."""
    made = session(protocol)
    made.send(words("SUBSCRIBE a b"))
    for count, channel in enumerate((b"a", b"b"), start=1):
        made.receive(message(b"subscribe", CHANNEL + channel, count, mark=mark))
    made.send(words("UNSUBSCRIBE"))
    made.send(words("GET k"))
    for count, channel in ((1, b"a"), (0, b"b")):
        assert not made.idle
        made.receive(message(b"unsubscribe", CHANNEL + channel, count, mark=mark))
    assert not made.subscribed
    assert made.receive(b"$1\r\nv\r\n") == b"$1\r\nv\r\n"
    made.send(words("UNSUBSCRIBE"))
    null = b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n".replace(b"*", mark)
    assert made.receive(null) == null
    assert made.idle


@pytest.mark.parametrize(("protocol", "mark"), [(2, b"*"), (3, b">")])
def test_a_connection_has_a_cap_of_subscriptions(protocol: int, mark: bytes) -> None:
    """Channels and patterns count together, asked for or confirmed; what is over the cap is refused, and not sent."""
    made = CommandSession(scope(), protocol=protocol, subscriptions=3)

    def full(text: str) -> bool:
        try:
            made.send(words(text))
        except CommandRefusedError as refused:
            return str(refused) == f"too many subscriptions on this connection for '{text.split()[0]}'"
        return False

    def confirm(verb: bytes, name: bytes) -> None:
        made.receive(message(verb, CHANNEL + name, 1, mark=mark))

    assert full("SUBSCRIBE a b c d")
    assert made.idle
    assert not full("SUBSCRIBE a b")
    assert full("PSUBSCRIBE a* b*")  # nothing is confirmed yet
    confirm(b"subscribe", b"a")
    assert not full("PSUBSCRIBE a*")
    assert full("SSUBSCRIBE s")
    confirm(b"subscribe", b"b")
    confirm(b"psubscribe", b"a*")
    assert made.idle
    assert full("SSUBSCRIBE s")
    assert not full("UNSUBSCRIBE a")
    assert full("SUBSCRIBE c")  # not before it is confirmed
    confirm(b"unsubscribe", b"a")
    assert not full("SSUBSCRIBE s")
    made.receive(b"-MOVED 5 127.0.0.1:7000\r\n")  # refused by the server: its place is free again
    assert not full("SSUBSCRIBE t")
    confirm(b"ssubscribe", b"t")
    assert full("SUBSCRIBE c")
    for verb in ("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"):
        assert not full(verb)
    for verb, name in ((b"unsubscribe", b"b"), (b"punsubscribe", b"a*"), (b"sunsubscribe", b"t")):
        confirm(verb, name)
    assert made.idle
    assert not full("SUBSCRIBE a a a")  # one channel, thrice: three places until they are answered
    for _ in range(3):
        confirm(b"subscribe", b"a")
    assert not full("SUBSCRIBE b c")
    assert full("SUBSCRIBE d")


@pytest.mark.parametrize("fault", ["counts nothing", "counts what is confirmed alone", "forgets no answer"])
def test_a_session_that_counts_otherwise_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The test above fails for a session without a cap, for one that a pipeline gets round, and for one that fills."""

    def reserve(self: CommandSession, command: Any) -> None:
        if fault == "counts what is confirmed alone":
            self._asked = 0
            right(self, command)

    right = CommandSession._reserve
    if fault == "forgets no answer":
        monkeypatch.setattr(command_session, "_subscribes", lambda command: len(command.sent) - 1)
    else:
        monkeypatch.setattr(CommandSession, "_reserve", reserve)
    with pytest.raises(AssertionError):
        test_a_connection_has_a_cap_of_subscriptions(2, b"*")


def test_a_value_that_looks_like_a_message_is_none() -> None:
    """A list that a tenant stored is no message: in RESP2 without a subscription, in RESP3 never."""
    look = encode([b"message", b"user_globex:c", b"x"])
    made = session()
    made.send(words("LRANGE l 0 -1"))
    assert made.receive(look) == look
    made = session(3)
    made.send(words("SUBSCRIBE a"))
    made.receive(message(b"subscribe", CHANNEL + b"a", 1, mark=b">"))
    made.send(words("LRANGE l 0 -1"))
    assert made.receive(look) == look
    made = session(2)
    made.send(words("SUBSCRIBE a"))
    made.receive(message(b"subscribe", CHANNEL + b"a", 1))
    made.send(words("PING"))
    assert made.receive(encode([b"pong", b""])) == encode([b"pong", b""])


def test_what_nobody_asked_for_is_not_shown() -> None:
    """An unexpected reply, an invalidation, a confirmation of another verb: the connection is done for."""
    with pytest.raises(UnexpectedReplyError):
        session().receive(OK)
    with pytest.raises(UnexpectedReplyError):
        session(3).receive(message(b"invalidate", [KEY + b"k"], mark=b">"))
    made = session(3)
    made.send(words("GET k"))
    with pytest.raises(UnexpectedReplyError):
        made.receive(message(b"subscribe", CHANNEL + b"a", 1, mark=b">"))
    made = session(3)
    made.send(words("GET k"))
    with pytest.raises(ProtocolError):  # an error in a form that no command of the table answers with
        made.receive(b"!17\r\nERR user:globex:k\r\n")
    made = session(2)
    made.send(words("SUBSCRIBE a"))
    with pytest.raises(UnexpectedReplyError):
        made.receive(message(b"unsubscribe", CHANNEL + b"a", 1))
    made = session(2)
    made.send(words("SUBSCRIBE a"))
    assert made.receive(b"-ERR no\r\n") == b"-ERR no\r\n"
    assert made.idle


def test_answers_of_the_front_wait_for_their_turn() -> None:
    """A reply of the front's own comes after those that were asked for before, and at once where there are none."""
    made = session()
    assert made.answer(b"+0\r\n") == b"+0\r\n"
    made.send(words("GET a"))
    assert made.answer(b"+1\r\n") == b""
    made.send(words("GET b"))
    assert made.answer(b"+2\r\n") == b""
    assert made.answer(b"+3\r\n") == b""
    assert made.receive(b"$1\r\na\r\n") == b"$1\r\na\r\n+1\r\n"
    assert made.receive(b"$1\r\nb\r\n") == b"$1\r\nb\r\n+2\r\n+3\r\n"
    taken: list[object] = []
    made.ask(taken.append)
    assert made.receive(b":5\r\n") == b""
    assert taken == [b":5"]


# --- sweeps ----------------------------------------------------------------------------------------------------------


class Table:
    """A server with keys, which answers scans *per* places at a time."""

    def __init__(self, keys: list[bytes], per: int) -> None:
        self.keys, self.per, self.steps = keys, per, 0

    def __call__(self, args: list[bytes]) -> object:
        """Answer one command."""
        self.steps += 1
        if args[0] == b"UNLINK":
            self.keys = [key if key not in args[1:] else b"gone" for key in self.keys]
            return Line(b":1")
        at, match = int(args[1]), args[args.index(b"MATCH") + 1]
        assert match.endswith(b"*")
        after = at + self.per
        found = [key for key in self.keys[at:after] if key.startswith(match[:-1])]
        return Items([b"%d" % (after if after < len(self.keys) else 0), Items(found)])


def run(text: str, table: Any, cursors: ScanCursors | None = None, sink: Sink | None = None) -> object:
    """Run one sweep to its end."""
    made = scope(sink)
    steps = sweep(made, made.scope(words(text)), cursors or ScanCursors())
    try:
        args = next(steps)
        while True:
            args = steps.send(table(args))
    except StopIteration as done:
        return done.value


EVERYBODY = [
    KEY + b"a",
    b"user:globex:a",
    *[b"user:globex:%d" % n for n in range(500)],
    KEY + b"b",
    b"legacy",
    KEY + b"c",
]


def test_a16_a23_a_sweep_is_about_ones_own() -> None:
    """DBSIZE, RANDOMKEY and FLUSHDB count, draw and delete the tenant's keys, and nobody else's."""
    assert run("DBSIZE", Table(EVERYBODY, 7)) == 3
    assert {run("RANDOMKEY", Table(EVERYBODY, 50)) for _ in range(60)} == {b"a", b"b", b"c"}
    assert run("RANDOMKEY", Table([b"user:globex:a"], 7)) is None
    table = Table(list(EVERYBODY), 7)
    assert run("FLUSHALL async", table) == b"+OK"
    assert [key for key in EVERYBODY if key not in table.keys] == [KEY + b"a", KEY + b"b", KEY + b"c"]


def test_a23_a_scan_takes_no_more_calls_for_other_tenants_keys() -> None:
    """A tenant whose keys fit one call gets them in one, however many others there are: calls tell no totals."""
    few = run("SCAN 0", Table([KEY + b"a"], 10))
    many = run("SCAN 0", Table([KEY + b"a", *[b"user:globex:%d" % n for n in range(5_000)]], 10))
    assert few == many == [b"0", [b"a"]]


def test_a_scan_of_one_step_would_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for a scan that comes back after one step of the server's."""
    monkeypatch.setattr(command_sweeps, "_WANTED", 0)
    with pytest.raises(AssertionError):
        test_a23_a_scan_takes_no_more_calls_for_other_tenants_keys()


def test_a20_a22_a_cursor_is_worthless_to_another_tenant() -> None:
    """A cursor is a random number of one tenant's: another's is one that was never given, and so is an old one."""
    table = Table([KEY + b"%d" % n for n in range(100)], 10)
    mine, theirs = ScanCursors(limit=2), ScanCursors()
    cursor, found = run("SCAN 0", table, mine)
    assert found == [b"%d" % n for n in range(10)]
    assert cursor != b"10"
    assert 0 < int(cursor) < 2**63
    assert run(f"SCAN {cursor.decode()}", table, mine)[1] == [b"%d" % n for n in range(10, 20)]
    assert run(f"SCAN {cursor.decode()}", table, mine)[1] == [b"%d" % n for n in range(10, 20)]
    for other in (cursor.decode(), "10", "5", "-1", "x", "99999999999999999999", "+0"):
        asked = table.steps
        assert run(f"SCAN {other}", table, theirs) == b"-ERR invalid cursor"
        assert table.steps == asked  # and the server is asked nothing, whichever it is (A22)
    run("SCAN 0", table, mine)
    assert run(f"SCAN {cursor.decode()}", table, mine) == b"-ERR invalid cursor"  # two newer ones are kept


def test_cursors_as_the_server_gives_them_would_work_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for cursors that are passed on."""
    monkeypatch.setattr(ScanCursors, "give", lambda self, place: place)
    monkeypatch.setattr(ScanCursors, "find", lambda self, number: number)
    with pytest.raises((AssertionError, ValueError)):
        test_a20_a22_a_cursor_is_worthless_to_another_tenant()


def test_sweeps_refuse_what_they_do_not_know() -> None:
    """Options that Redis would refuse are refused; a server's error comes back; a foreign name raises."""
    table = Table(EVERYBODY, 7)
    for bad in ("SCAN 0 COUNT 0", "SCAN 0 COUNT x", "FLUSHDB NOW", "FLUSHALL ASYNC SYNC"):
        with pytest.raises(CommandRefusedError):
            run(bad, table)
    assert table.steps == 0
    failing = iter([Items([b"5", Items([KEY + b"a"])]), Line(b"-LOADING /x"), Line(b"-READONLY x")])
    assert run("DBSIZE", lambda args: next(failing)) == b"-LOADING the server could not run the command"
    answers: Iterator[object] = iter([Items([b"0", Items([KEY + b"a"])]), Line(b"-READONLY x")])
    assert run("FLUSHDB", lambda args: next(answers)) == b"-READONLY the server could not run the command"
    sink = Sink()
    for text in ("SCAN 0", "DBSIZE", "RANDOMKEY", "FLUSHDB"):
        with pytest.raises(InvalidNameError):
            run(text, lambda args: Items([b"0", Items([b"user:globex:a"])]), sink=sink)
    assert len(sink.events) == 4
    made = scope()
    with pytest.raises(MisuseError):
        next(sweep(made, made.scope([b"GET", b"k"]), ScanCursors()))


# --- the front's own commands ----------------------------------------------------------------------------------------


def test_a51_the_front_answers_about_the_connection_alone() -> None:
    """What clients ask is answered without the server; what shows other connections is not offered."""
    front = Front()
    hello = front.answer(words("HELLO 3 AUTH default sesame SETNAME me"))
    assert hello is not None
    assert (hello.key, hello.protocol, front.protocol, front.name) == (b"sesame", 3, 2, b"me")
    assert "sesame" not in repr(hello)
    assert isinstance(hello.reply, Items)
    assert hello.reply.mark == b"%"
    replies = {
        "HELLO": Items,
        "CLIENT ID": int,
        "CLIENT GETNAME": bytes,
        "CLIENT SETNAME x": Line,
        "CLIENT SETINFO LIB-NAME x": Line,
        "COMMAND": Items,
        "COMMAND COUNT": int,
        "COMMAND DOCS": Items,
        "INFO": bytes,
        "SELECT 0": Line,
        "QUIT": Line,
    }
    for text, kind in replies.items():
        answer = front.answer(words(text))
        assert answer is not None
        assert type(answer.reply) is kind, text
        assert answer.key is None
    assert front.answer(words("AUTH user sesame")).key == b"sesame"
    assert front.answer(words("SELECT 1")).reply == b"-ERR DB index is out of range"
    assert front.answer(words("HELLO 4")).reply == b"-NOPROTO unsupported protocol version"
    assert front.answer(words("GET k")) is None
    assert front.answer([]) is None
    for bad in ("CLIENT LIST", "CLIENT INFO", "CLIENT KILL a", "CLIENT TRACKING ON", "CLIENT REPLY OFF", "CLIENT"):
        with pytest.raises(CommandRefusedError) as refused:
            front.answer(words(bad))
        assert refused.value.why is Unsent.UNKNOWN
    for bad in ("AUTH", "AUTH a b c", "HELLO 3 AUTH a", "HELLO 3 NOSUCH"):
        with pytest.raises(CommandRefusedError):
            front.answer(words(bad))
    assert front.answer(words("COMMAND COUNT")).reply == len(COMMANDS)


# --- RESP ------------------------------------------------------------------------------------------------------------

CAPS = Caps(words=4, word_bytes=10, command_bytes=20)

VALUES: Any = st.recursive(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [Line(b"+OK"), Line(b":-5"), Line(b"$-1"), Line(b"*-1"), Line(b"_"), Line(b",inf"), Line(b"#t")]
        ),
    ),
    lambda inner: st.builds(
        lambda items, mark: Items(items * 2 if mark == b"%" else items, mark),
        st.lists(inner, max_size=4),
        st.sampled_from([b"*", b"~", b">", b"%"]),
    ),
    max_leaves=12,
)


@given(st.lists(VALUES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_replies_come_out_as_they_went_in(values: list[object], draw: random.Random) -> None:
    """In whatever pieces a stream arrives, each reply is cut where it ends and encodes to the same bytes."""
    frames = [encode(value) for value in values]
    stream, replies, found = b"".join(frames), Replies(1 << 20), []
    while stream or len(found) < len(frames):
        size = draw.randrange(1, 9)
        replies.feed(stream[:size])
        stream = stream[size:]
        while (frame := replies.next()) is not None:
            found.append(frame)
    assert found == frames
    assert [encode(decode(frame)) for frame in found] == frames


@given(st.lists(st.lists(st.binary(max_size=5), max_size=4), max_size=4), st.randoms(use_true_random=False))
def test_commands_come_out_as_they_went_in(commands: list[list[bytes]], draw: random.Random) -> None:
    """In whatever pieces a stream arrives, each command comes out whole and once."""
    stream, requests, found = b"".join(map(encode_command, commands)), Requests(), []
    while stream:
        size = draw.randrange(1, 9)
        requests.feed(stream[:size])
        stream = stream[size:]
        while (command := requests.next(CAPS)) is not None:
            found.append(command)
    assert found == commands


@pytest.mark.parametrize(
    "bad",
    [
        b"GET k\r\n",
        b"*5\r\n",
        b"*-1\r\n",
        b"*+1\r\n",
        b"* 1\r\n",
        b"*1\r\n:5\r\n",
        b"*1\r\n$11\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$1\r\nabc",
        b"*99999999999\r\n",
        b"*1" + b"1" * 40,
        b"*3\r\n$10\r\n0123456789\r\n$10\r\n0123456789\r\n$1\r\n",
    ],
)
def test_a_command_beyond_the_caps_is_known_by_its_lengths(bad: bytes) -> None:
    """What is no command, or too large, raises before anything of it is waited for."""
    requests = Requests()
    requests.feed(bad)
    with pytest.raises(ProtocolError):
        requests.next(CAPS)


@pytest.mark.parametrize(
    "bad", [b"$2000\r\n", b"x\r\n", b"$x\r\n", b"*1x\r\n", b"+" + b"x" * 70_000, b"\r\n", b"$" + b"9" * 19 + b"\r\n"]
)
def test_a_reply_beyond_the_cap_is_not_waited_for(bad: bytes) -> None:
    """What is no reply, or larger than one may be, raises."""
    replies = Replies(1_000)
    replies.feed(bad)
    with pytest.raises(ProtocolError):
        replies.next()


@pytest.mark.parametrize(
    "bad", [b"", b"+OK", b"+OK\r\n+OK\r\n", b"=5\r\ntxt:x\r\n", b"*1\r\n" * 40 + b":1\r\n", b"|1\r\n+a\r\n+b\r\n+c\r\n"]
)
def test_frames_that_no_command_answers_with_are_not_read(bad: bytes) -> None:
    """Half a frame, two of them, a depth without end, attributes: refused."""
    with pytest.raises(ProtocolError):
        decode(bad)


def test_only_replies_are_encoded() -> None:
    """An error is one line whatever it holds; a type that replies do not have is refused."""
    assert error("ERR a\r\n+OK") == b"-ERR a  +OK\r\n"
    for bad in (True, 1.5, None, "text", {}):
        with pytest.raises(TypeError):
            encode(bad)


def test_a_transaction_and_a_watch_have_an_end() -> None:
    """Commands in a queue and watched keys are bounded; what is over is refused, and EXEC then answers EXECABORT."""
    made = CommandSession(scope(), held=3)

    def refused(text: str) -> bool:
        try:
            made.send(words(text))
        except CommandRefusedError as error:
            return error.why is Unsent.HELD
        return False

    assert refused("WATCH a b c d")
    assert not refused("WATCH a b c")
    assert refused("WATCH d")
    assert not refused("UNWATCH")
    assert not refused("WATCH d")
    assert not refused("MULTI")
    assert [refused(f"SET a {n}") for n in range(5)] == [False, False, False, True, True]
    assert made.send(words("EXEC")).command.name == "DISCARD"
    assert not refused("MULTI")
    assert not refused("SET a 1")
    assert made.send(words("EXEC")).command.name == "EXEC"
