"""The lines of commands newer than Redis 7.0, compared with what the sources of Redis and Valkey say of them.

The server that the other tests ask may not know these commands. What stands here is copied, by hand, from the key
specifications in Redis's and Valkey's own command files: where the search for keys begins, and how it goes on. From
that alone the keys of a command are found, and the table has to find the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from hivetenancy.scopes.command_keys import CommandRefusedError, Unsent, look_up, spots
from hivetenancy.scopes.command_table import COMMANDS, FORBIDDEN, FRONT, Command, Part, by_word, parse
from tests.scopes.live_redis import Raw
from tests.scopes.test_command_table import live, said

ONE = "begin 1, range to 0, step 1"
"""One key, at word 1."""
PAIRS = "begin 1, keynum at 0, first 1, step 2"
"""A count at word 1, and then as many keys with a value behind each."""

#: Arity, whether it writes, and the key specification.
NEWER = {
    # Redis 7.4, Valkey 9.0: src/commands/hexpire.json and its like
    "HEXPIRE": (-6, True, ONE),
    "HEXPIREAT": (-6, True, ONE),
    "HEXPIRETIME": (-5, False, ONE),
    "HPERSIST": (-5, True, ONE),
    "HPEXPIRE": (-6, True, ONE),
    "HPEXPIREAT": (-6, True, ONE),
    "HPEXPIRETIME": (-5, False, ONE),
    "HPTTL": (-5, False, ONE),
    "HTTL": (-5, False, ONE),
    # Redis 8.0, Valkey 9.0 and 9.1
    "HGETDEL": (-5, True, ONE),
    "HGETEX": (-5, True, ONE),
    "HSETEX": (-6, True, ONE),
    # Redis 8.2
    "XACKDEL": (-6, True, ONE),
    "XDELEX": (-5, True, ONE),
    # Redis 8.4, Valkey 9.1
    "MSETEX": (-4, True, PAIRS),
    # Redis 8.4
    "DELEX": (-2, True, ONE),
    "DIGEST": (2, False, ONE),
    # Valkey 9.0
    "DELIFEQ": (3, True, ONE),
    # Redis 8.0, 8.2 (VISMEMBER) and 8.4 (VRANGE): as modules/vector-sets/vset.c registers them
    "VADD": (-5, True, ONE),
    "VCARD": (2, False, ONE),
    "VDIM": (2, False, ONE),
    "VEMB": (-3, False, ONE),
    "VGETATTR": (3, False, ONE),
    "VINFO": (2, False, ONE),
    "VISMEMBER": (3, False, ONE),
    "VLINKS": (-3, False, ONE),
    "VRANDMEMBER": (-2, False, ONE),
    "VRANGE": (-4, False, ONE),
    "VREM": (3, True, ONE),
    "VSETATTR": (4, True, ONE),
    "VSIM": (-4, False, ONE),
}

#: Commands as their syntax has them; what begins with ``key`` is a key, and nothing else is.
WRITTEN = """
HEXPIRE key1 60 NX FIELDS 2 f g
HEXPIREAT key1 1700000000 FIELDS 1 f
HEXPIRETIME key1 FIELDS 2 f g
HPERSIST key1 FIELDS 1 f
HPEXPIRE key1 60 GT FIELDS 2 f g
HPEXPIREAT key1 1700000000 FIELDS 1 f
HPEXPIRETIME key1 FIELDS 2 f g
HPTTL key1 FIELDS 1 f
HTTL key1 FIELDS 2 f g
HGETDEL key1 FIELDS 2 f g
HGETEX key1 EX 60 FIELDS 2 f g
HSETEX key1 FNX EX 60 FIELDS 2 f v g w
XACKDEL key1 group KEEPREF IDS 2 1-1 1-2
XDELEX key1 ACKED IDS 2 1-1 1-2
MSETEX 2 key1 v key2 w NX EX 60
MSETEX 1 key1 v
DELEX key1 IFEQ v
DIGEST key1
DELIFEQ key1 v
VADD key1 REDUCE 2 VALUES 2 1 1 element CAS Q8 EF 100 SETATTR {} M 8
VCARD key1
VDIM key1
VEMB key1 element RAW
VGETATTR key1 element
VINFO key1
VISMEMBER key1 element
VLINKS key1 element WITHSCORES
VRANDMEMBER key1 3
VRANGE key1 [a + 10
VREM key1 element
VSETATTR key1 element {}
VSIM key1 ELE element WITHSCORES COUNT 3 FILTER .a>1
XREADGROUP GROUP group consumer COUNT 1 BLOCK 0 CLAIM 5 NOACK STREAMS key1 key2 > 0
"""

#: Commands of Redis 8.6 and 8.8, and of Valkey 9.1, that nobody has placed.
UNPLACED = "ARGET ARSET CLUSTERSCAN HOTKEYS INCREX SENTINEL XCFGSET XNACK FT.SEARCH JSON.SET"


def found(args: list[bytes], table: Mapping[str, Command]) -> list[int] | None:
    """Which words are keys, by *table*; ``None``: it refuses."""
    try:
        return [at for at, part in spots(look_up(args, by_word(table)), args) if part is Part.KEY]
    except CommandRefusedError:
        return None


def specified(args: list[bytes], spec: str) -> list[int]:
    """Which words are keys, by the specification."""
    return [1] if spec == ONE else list(range(2, 2 + 2 * int(args[1]), 2))


def samples(name: str) -> Iterator[list[bytes]]:
    """Commands of all lengths that may be, of words, of counts, and with words that are options elsewhere."""
    arity, _, spec = NEWER[name]
    for length in [arity] if arity > 0 else range(-arity, 5 - arity):
        for word in (b"w", b"1", b"2", b"STORE", b"STREAMS", b"KEYS"):
            plain = [name.encode(), *[word] * (length - 1)]
            if spec == ONE:
                yield plain
            else:
                yield from ([*plain[:1], b"%d" % n, *plain[2:]] for n in range(1, (length - 2) // 2 + 1))


def wrong(table: Mapping[str, Command]) -> set[str]:
    """The commands of `NEWER` that *table* has otherwise."""
    return {name for name in NEWER if differs(name, table)}


def differs(name: str, table: Mapping[str, Command]) -> bool:
    """Whether *table* has one command otherwise."""
    command, (arity, writes, spec) = table[name], NEWER[name]
    if command.arity != arity or command.effect not in ("wd" if writes else "r"):
        return True
    return any(found(args, table) != specified(args, spec) for args in samples(name))


def test_a15_newer_lines_say_what_the_sources_say() -> None:
    """Arity, effect and the places of keys are those of the command files of Redis and Valkey."""
    assert wrong(COMMANDS) == set()


@pytest.mark.parametrize("line", [line for line in WRITTEN.splitlines() if line])
def test_a15_the_keys_of_a_command_as_its_syntax_has_it(line: str) -> None:
    """In a command with all that may stand in it, the keys are found and nothing else is taken for one."""
    args = line.encode().split()
    assert found(args, COMMANDS) == [at for at, word in enumerate(args) if word.startswith(b"key")]


def test_each_newer_command_is_written_out() -> None:
    """No command of the list above is left out of the examples."""
    assert {line.split()[0] for line in WRITTEN.splitlines() if line} - {"XREADGROUP"} == set(NEWER)


@pytest.mark.parametrize("name", NEWER)
def test_a_wrong_newer_line_is_found(name: str) -> None:
    """The comparison fails for a key elsewhere, one more or none, another arity and another effect."""
    arity, writes, spec = NEWER[name]
    effect, places = "w" if writes else "r", "1" if spec == ONE else "n1/2"
    others = ["", "1.."] if spec == ONE else ["", "n1", "1../2", "2", "2../2"]
    if spec == ONE and abs(arity) > 2:
        others += ["2", "1..2"]
    lines = [f"{name} {arity} {effect} {other}" for other in others if other != "1.." or arity != 2]
    lines += [f"{name} {arity - 1} {effect} {places}", f"{name} {arity} {'r' if writes else 'w'} {places}"]
    assert wrong({**COMMANDS, **parse(f"{name} {arity} {effect} {places}")}) == set()
    for line in lines:
        assert wrong({**COMMANDS, **parse(line)}) == {name}, line


@live
def test_each_line_has_a_source(redis: Raw) -> None:
    """A command that the server at hand does not know stands in the table only if it stands in the list above."""
    assert set(COMMANDS) - set(said(redis)) <= set(NEWER)


@pytest.mark.parametrize("name", UNPLACED.split())
def test_a_command_that_nobody_placed_is_refused(name: str) -> None:
    """A command of a newer server that is not in the table is refused, with or without words."""
    word = name.encode()
    assert word not in FRONT
    for args in ([word], [word, b"k"], [word, b"k", b"0", b"v"]):
        with pytest.raises(CommandRefusedError) as refused:
            look_up(args)
        assert refused.value.why is (Unsent.FORBIDDEN if word in FORBIDDEN else Unsent.UNKNOWN)
