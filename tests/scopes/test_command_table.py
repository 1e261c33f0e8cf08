"""The table of Redis commands, compared line by line with what a real server says of itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from hivetenancy.scopes.command_keys import CommandRefusedError, Unsent, look_up, spots
from hivetenancy.scopes.command_table import (
    COMMANDS,
    COMMANDS_TEXT,
    FORBIDDEN,
    FRONT,
    OPTIONS,
    Command,
    Part,
    Range,
    by_word,
    parse,
)
from tests.scopes.live_redis import Raw
from tests.tiers import examples, needs_program

live = needs_program("redis-server")

#: Commands that newer servers take more words of than the one at hand may.
GROWN = {"ZRANK", "ZREVRANK"}


def said(redis: Raw) -> dict[str, tuple[int, frozenset[bytes]]]:
    """What the server says of itself: arity and flags of each command and subcommand."""
    found: dict[str, tuple[int, frozenset[bytes]]] = {}

    def take(entry: Any) -> None:
        name = entry[0].decode().upper().replace("|", " ")
        found[name] = (int(entry[1][1:]), frozenset(flag[1:] for flag in entry[2]))
        for below in entry[9]:
            take(below)

    for entry in redis("COMMAND"):
        take(entry)
    return found


@live
def test_a10_every_command_of_a_server_is_in_the_table_or_refused(redis: Raw) -> None:
    """No command that the server knows is passed on by accident, nor by a subcommand that is not listed."""
    known = said(redis)
    assert len(known) > 300
    assert undecided(known, COMMANDS) == []


def undecided(known: Mapping[str, tuple[int, frozenset[bytes]]], table: Mapping[str, Command]) -> list[str]:
    """Commands of the server that are passed on though they are not to be, or refused though nobody said so."""
    lines, found = by_word(table), []
    for name, (arity, _) in known.items():
        words = name.encode().split()
        decided = words[0] in FORBIDDEN or words[0] in FRONT or len(words) == 2
        listed = name in COMMANDS or any(each.startswith(name + " ") for each in COMMANDS)
        try:
            look_up([*words, *[b"1"] * max(0, abs(arity) - len(words))], lines)
            if not listed:
                found.append(name)
        except CommandRefusedError as refused:
            if not listed and (not decided or refused.why is Unsent.ARITY):
                found.append(name)
    return found


@live
def test_a51_a_line_too_many_is_found(redis: Raw) -> None:
    """The test above fails for a table that passes on a command about the server, or a subcommand."""
    for line in ("CONFIG GET -3 r", "EVAL -3 w n2", "MEMORY STATS 2 r", "PUBSUB NUMPAT 2 r", "SLOWLOG GET -2 r"):
        wider = {**COMMANDS, **parse(line)}
        assert undecided(said(redis), wider) == [next(iter(parse(line)))]


@live
def test_each_line_says_what_the_server_says(redis: Raw) -> None:
    """Arity and effect are the server's own."""
    known = said(redis)
    shared = [command for name, command in COMMANDS.items() if name in known]
    assert len(shared) > 200
    for command in shared:
        arity, flags = known[command.name]
        if command.name not in GROWN and arity != -1:  # -1: a module that does not say, such as Redis 8.0's vector sets
            assert command.arity == arity, command.name
        if b"write" in flags:
            assert command.effect in "wd", command.name
        elif b"readonly" in flags:
            assert command.effect == "r", command.name


def differences(redis: Raw, table: Mapping[str, Command], forms: Sequence[list[bytes]]) -> list[tuple[bytes, ...]]:
    """The *forms* in which the table finds other keys than the server does."""
    lines = by_word(table)
    answers = redis.many([("COMMAND", "GETKEYS", *form) for form in forms])
    return [
        tuple(form)
        for form, answer in zip(forms, answers, strict=True)
        if (mine := keys_of(form, lines)) is not None and mine != found_in(answer) and not _beyond(form)
    ]


def _beyond(form: Sequence[bytes]) -> bool:
    """What this Redis cannot judge: a form of newer servers, PFMERGE of one key, and GROUP anywhere but in front.

    Nor what Valkey and Redis judge differently: of ``STORE`` and ``STOREDIST`` together Valkey names only the last,
    which is the one that counts; the table scopes both.
    """
    name = form[0].decode()
    return (
        (name in GROWN and len(form) > 3)
        or {b"STORE", b"STOREDIST"} <= set(form)
        or (name == "PFMERGE" and len(form) == 2)
        or (name == "XREADGROUP" and form[1] != b"GROUP")
    )


def keys_of(form: list[bytes], lines: Mapping[bytes, Any]) -> list[bytes] | None:
    """The keys that a table finds; ``None`` where it refuses."""
    try:
        command = look_up(form, lines)
        return sorted(form[at] for at, part in spots(command, form) if part is Part.KEY)
    except CommandRefusedError:
        return None


def found_in(answer: object) -> list[bytes]:
    """The keys that the server finds."""
    return sorted(item for item in answer if isinstance(item, bytes)) if isinstance(answer, list) else []


WORDS = [word.encode() for line in OPTIONS.values() for word in line.replace("=", " ").replace(",", " ").split()]


def forms(names: Sequence[str], seed: int, each: int) -> Iterator[list[bytes]]:
    """Commands of all lengths: words of their own, numbers where a count may stand, and options.

    What the table says of places is not looked at, only how many words there may be.
    """
    draw = random.Random(seed)
    for name in names:
        words = name.encode().split()
        least = abs(COMMANDS[name].arity) - len(words)
        for length in range(least, least + 5 if COMMANDS[name].arity < 0 else least + 1):
            plain = [b"k%d" % at for at in range(length)]
            yield words + plain
            for at in range(min(length, 2)):
                for count in (1, 2, 3):
                    yield [*words, *plain[:at], b"%d" % count, *plain[at + 1 :]]
        if name in OPTIONS:
            for _ in range(each):
                start = [b"k%d" % at for at in range(draw.choice([least - 2, 0, 1, 2, 4, 5]))]
                if name == "XREADGROUP" and draw.random() < 0.5:
                    start = [b"GROUP", b"group", b"consumer"]
                yield words + start + [word for _ in range(draw.randrange(5)) for word in _option(name, draw)]


def _option(name: str, draw: random.Random) -> list[bytes]:
    """An option of the command with about what belongs to it, or any word."""
    if draw.random() < 0.1:
        return [draw.choice(WORDS)]
    option, _, follows = draw.choice(OPTIONS[name].split()).partition("=")
    count = len(follows.split(",")) if follows else 0
    if follows == "streams":
        count = 2 * draw.randrange(3)
    count += draw.choice([0] * 9 + [1])
    return [option.encode(), *draw.sample([b"1", b"2", b"3", b"a", b"b", b"c", b"d"], count)]


#: The server has no keys for these: shard channels are named by the same rules, and only there to find a slot.
CHANNELS = {"SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"}


def drawn(known: Mapping[str, object], names: Sequence[str] = tuple(COMMANDS)) -> list[list[bytes]]:
    """The forms of the commands that the server knows."""
    shared = [name for name in names if name in known and name not in CHANNELS]
    return list(forms(shared, random.randrange(2**32), examples(150, 5_000)))


@live
def test_a15_the_keys_are_where_the_server_finds_them(redis: Raw) -> None:
    """In every form that is not refused, the table and ``COMMAND GETKEYS`` name the same words."""
    known = said(redis)
    drawn_forms = drawn(known)
    assert differences(redis, COMMANDS, drawn_forms) == []
    lines = by_word(COMMANDS)
    met = {look_up(form).name for form in drawn_forms if keys_of(form, lines)}
    keyed = {name for name, command in COMMANDS.items() if name in known and any(map(_of_keys, command.places))}
    assert keyed - met == {"SCAN"}  # whose only option with a name is a pattern


def _of_keys(place: object) -> bool:
    return not isinstance(place, Range) or place.part is Part.KEY


BROKEN = {
    "MGET without its range": ("MGET                 -2 r 1..", "MGET                 -2 r 1"),
    "MSET that takes values for keys": ("MSET                 -3 w 1../2", "MSET                 -3 w 1.."),
    "DEL of the first key": ("DEL                  -2 d 1..", "DEL                  -2 d 1"),
    "BLPOP with its time-out": ("BLPOP                -3 w 1..-2 ", "BLPOP                -3 w 1.. "),
    "BITOP without its target": ("BITOP                -4 w 2..", "BITOP                -4 w 3.."),
    "ZUNIONSTORE without numkeys": ("ZUNIONSTORE          -4 w 1 n2", "ZUNIONSTORE          -4 w 1"),
    "ZUNIONSTORE without its target": ("ZUNIONSTORE          -4 w 1 n2", "ZUNIONSTORE          -4 w n2"),
    "SINTERCARD as a range": ("SINTERCARD           -3 r n1", "SINTERCARD           -3 r 2.."),
    "LMPOP without keys": ("LMPOP                -4 w n1   ", "LMPOP                -4 w      "),
    "RENAME of one key": ("RENAME                3 w 1..2", "RENAME                3 w 1"),
    "COPY without its target": ("COPY                 -3 w 1..2 o3", "COPY                 -3 w 1 o3"),
    "SORT without STORE": ("SORT                 -2 w 1 o2", "SORT                 -2 w 1"),
    "GEORADIUS without STORE": ("GEORADIUS            -6 w 1 o6", "GEORADIUS            -6 w 1"),
    "XREAD without streams": ("XREAD                -4 r o1 ", "XREAD                -4 r    "),
    "XGROUP with its subcommand": ("XGROUP CREATE        -5 w 2", "XGROUP CREATE        -5 w 1"),
    "OBJECT with its subcommand": ("OBJECT ENCODING       3 r 2", "OBJECT ENCODING       3 r 1"),
}


@live
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_line_is_found(redis: Raw, fault: str) -> None:
    """The comparison with the server fails for a table with one wrong line."""
    right, wrong = BROKEN[fault]
    assert COMMANDS_TEXT.count(right) == 1
    name = next(name for name in sorted(COMMANDS, key=len, reverse=True) if right.startswith(name + " "))
    broken = parse(COMMANDS_TEXT.replace(right, wrong))
    drawn_forms = drawn({name: ...}, [name])
    assert differences(redis, broken, drawn_forms), fault
    assert not differences(redis, COMMANDS, drawn_forms)
