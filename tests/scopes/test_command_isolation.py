"""Two tenants on one real Redis: each is answered what it would be answered alone, whatever either says."""

from __future__ import annotations

import random
from functools import partial

import pytest

from hivetenancy.scopes import commands
from hivetenancy.scopes.command_keys import look_up
from hivetenancy.scopes.command_table import COMMANDS, COMMANDS_TEXT, by_word, parse
from tests.scopes.conversation import FORMS, Program, crossings
from tests.scopes.live_redis import Raw
from tests.tiers import examples, needs_program

pytestmark = needs_program("redis-server")


def test_the_program_says_every_command() -> None:
    """Each command of the table that this Redis may know is said, but for those with a test of their own."""
    said = {form.lstrip("!?").split()[0] for line in FORMS.strip().splitlines() for form in line.split("|")}
    unsaid = {name.split()[0] for name in COMMANDS} - said
    newer = {name for name in unsaid if name[0] == "V" or name.startswith(("HE", "HP", "HT", "HG", "HSETEX", "DEL"))}
    others = {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "TIME", "RANDOMKEY", "FLUSHALL", "SPOP", "SRANDMEMBER"}
    others |= {"ZRANDMEMBER", "XSETID", "DIGEST", "MSETEX", "XACKDEL", "XDELEX", "SPUBLISH"}
    assert {name for name in unsaid - newer - others if "SUBSCRIBE" not in name} == set()


@pytest.mark.deep
@pytest.mark.timeout(600)
def test_a10_a16_no_command_crosses(redis: Raw, redis_port: int) -> None:
    """A long talk of two tenants, one of whose ids begins the other's: nothing differs from talking alone."""
    seed = random.randrange(2**32)
    assert crossings(redis_port, seed, examples(1_000, 60_000)) == [], f"seed {seed}"


BROKEN = {
    "MGET of one key": ("MGET                 -2 r 1..", "MGET                 -2 r 1"),
    "MSET of one key": ("MSET                 -3 w 1../2", "MSET                 -3 w 1"),
    "DEL of one key": ("DEL                  -2 d 1..", "DEL                  -2 d 1"),
    "RENAME of one key": ("RENAME                3 w 1..2", "RENAME                3 w 1"),
    "SET of no key": ("SET                  -3 w 1", "SET                  -3 w"),
    "no numkeys": ("ZUNIONSTORE          -4 w 1 n2", "ZUNIONSTORE          -4 w 1"),
    "SORT without STORE and GET": ("SORT                 -2 w 1 o2", "SORT                 -2 w 1"),
    "GEORADIUS without STORE": ("GEORADIUS            -6 w 1 o6", "GEORADIUS            -6 w 1"),
    "XREAD without keys": ("XREAD                -4 r o1        -> streams", "XREAD                -4 r"),
    "KEYS of everybody": (
        "KEYS                  2 r g1        -> names",
        "KEYS                  2 r           -> names",
    ),
    "KEYS unstripped": ("KEYS                  2 r g1        -> names", "KEYS                  2 r g1"),
    "BLPOP unstripped": ("BLPOP                -3 w 1..-2     -> first", "BLPOP                -3 w 1..-2"),
    "LMPOP unstripped": ("LMPOP                -4 w n1        -> first", "LMPOP                -4 w n1"),
    "ZMPOP unstripped": ("ZMPOP                -4 w n1        -> first", "ZMPOP                -4 w n1"),
    "XREAD unstripped": ("XREAD                -4 r o1        -> streams", "XREAD                -4 r o1"),
    "DBSIZE of everybody": ("DBSIZE                1 r           -> sweep", "DBSIZE                1 r"),
    "FLUSHDB of everybody": ("FLUSHDB              -1 d           -> sweep", "FLUSHDB              -1 d"),
    "SCAN of everybody": ("SCAN                 -2 r o2 +MATCH -> scan", "SCAN                 -2 r o2 -> scan"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_line_crosses(redis: Raw, redis_port: int, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The talk finds each table with one wrong line."""
    right, wrong = BROKEN[fault]
    assert COMMANDS_TEXT.count(right + "\n") == 1
    broken = by_word(parse(COMMANDS_TEXT.replace(right + "\n", wrong + "\n")))
    monkeypatch.setattr(commands, "look_up", partial(look_up, table=broken))
    name = right.split()[0]
    monkeypatch.setattr(Program, "favourite", name, raising=False)
    assert any(crossings(redis_port, seed, 150) for seed in range(12))
