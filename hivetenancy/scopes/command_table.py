"""Every command of Redis and Valkey that a tenant may send, and where the names stand in it.

One line a command, the way one would read it aloud::

    BLPOP   -3  w  1..-2  -> first

At least 3 words with the command's own (Redis's *arity*; positive: exactly so many). It writes (``r`` reads, ``d``
deletes whole keys, ``-`` concerns the connection). Keys stand from word 1 to the last but one. The reply's first item
is a key. What a line does not name is no name: values, fields, members, ids.

Where names stand:

| written | meaning |
|---|---|
| ``1`` | a key |
| ``1..``, ``1..-2``, ``1../2`` | keys from 1 to the end; to the last but one; every second word |
| ``n2``, ``n1/2`` | a count at 2, then that many keys; keys with a value behind each |
| ``o3`` | options from 3 on, as `OPTIONS` lists them: nothing else may stand there |
| ``c1``, ``c1..`` | a channel; channels |
| ``p1..`` | patterns of channels |
| ``g1`` | a glob over keys |
| ``+p2``, ``+MATCH`` | added, as ``*``, where it is left out: without it the command would look at everybody's names |

What the table does not hold is refused: an unknown command, an unknown subcommand, an option it does not list. A
command of a newer server is not guessed at.

Source: a server's own ``COMMAND`` and ``COMMAND GETKEYS``, with which the tests compare each line that it knows; for
what is newer than Redis 7.0, the key specifications in the command files of Redis and Valkey, of which the tests hold a
copy. ``docs/reference/commands.md`` says which servers and files. Isolation note, A10, A15, A16.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

COMMANDS_TEXT: Final = """
# strings
APPEND                3 w 1
DECR                  2 w 1
DECRBY                3 w 1
DELIFEQ               3 d 1
DELEX                -2 d 1
DIGEST                2 r 1
GET                   2 r 1
GETDEL                2 w 1
GETEX                -2 w 1
GETRANGE              4 r 1
GETSET                3 w 1
INCR                  2 w 1
INCRBY                3 w 1
INCRBYFLOAT           3 w 1
LCS                  -3 r 1..2
MGET                 -2 r 1..
MSET                 -3 w 1../2
MSETEX               -4 w n1/2
MSETNX               -3 w 1../2
PSETEX                4 w 1
SET                  -3 w 1
SETEX                 4 w 1
SETNX                 3 w 1
SETRANGE              4 w 1
STRLEN                2 r 1
SUBSTR                4 r 1

# bitmaps
BITCOUNT             -2 r 1
BITFIELD             -2 w 1
BITFIELD_RO          -2 r 1
BITOP                -4 w 2..
BITPOS               -3 r 1
GETBIT                3 r 1
SETBIT                4 w 1

# HyperLogLogs
PFADD                -2 w 1
PFCOUNT              -2 r 1..
PFMERGE              -2 w 1..

# keys
COPY                 -3 w 1..2 o3
DEL                  -2 d 1..
DUMP                  2 r 1
EXISTS               -2 r 1..
EXPIRE               -3 w 1
EXPIREAT             -3 w 1
EXPIRETIME            2 r 1
MEMORY HELP           2 -
MEMORY USAGE         -3 r 2
OBJECT ENCODING       3 r 2
OBJECT FREQ           3 r 2
OBJECT HELP           2 -
OBJECT IDLETIME       3 r 2
OBJECT REFCOUNT       3 r 2
PERSIST               2 w 1
PEXPIRE              -3 w 1
PEXPIREAT            -3 w 1
PEXPIRETIME           2 r 1
PTTL                  2 r 1
RENAME                3 w 1..2
RENAMENX              3 w 1..2
SORT                 -2 w 1 o2
SORT_RO              -2 r 1 o2
TOUCH                -2 r 1..
TTL                   2 r 1
TYPE                  2 r 1
UNLINK               -2 d 1..

# the whole key space: confined to the tenant's own keys
DBSIZE                1 r           -> sweep
FLUSHALL             -1 d           -> sweep
FLUSHDB              -1 d           -> sweep
KEYS                  2 r g1        -> names
RANDOMKEY             1 r           -> sweep
SCAN                 -2 r o2 +MATCH -> scan

# hashes
HDEL                 -3 w 1
HEXISTS               3 r 1
HEXPIRE              -6 w 1
HEXPIREAT            -6 w 1
HEXPIRETIME          -5 r 1
HGET                  3 r 1
HGETALL               2 r 1
HGETDEL              -5 w 1
HGETEX               -5 w 1
HINCRBY               4 w 1
HINCRBYFLOAT          4 w 1
HKEYS                 2 r 1
HLEN                  2 r 1
HMGET                -3 r 1
HMSET                -4 w 1
HPERSIST             -5 w 1
HPEXPIRE             -6 w 1
HPEXPIREAT           -6 w 1
HPEXPIRETIME         -5 r 1
HPTTL                -5 r 1
HRANDFIELD           -2 r 1
HSCAN                -3 r 1
HSET                 -4 w 1
HSETEX               -6 w 1
HSETNX                4 w 1
HSTRLEN               3 r 1
HTTL                 -5 r 1
HVALS                 2 r 1

# lists
BLMOVE                6 w 1..2
BLMPOP               -5 w n2        -> first
BLPOP                -3 w 1..-2     -> first
BRPOP                -3 w 1..-2     -> first
BRPOPLPUSH            4 w 1..2
LINDEX                3 r 1
LINSERT               5 w 1
LLEN                  2 r 1
LMOVE                 5 w 1..2
LMPOP                -4 w n1        -> first
LPOP                 -2 w 1
LPOS                 -3 r 1
LPUSH                -3 w 1
LPUSHX               -3 w 1
LRANGE                4 r 1
LREM                  4 w 1
LSET                  4 w 1
LTRIM                 4 w 1
RPOP                 -2 w 1
RPOPLPUSH             3 w 1..2
RPUSH                -3 w 1
RPUSHX               -3 w 1

# sets
SADD                 -3 w 1
SCARD                 2 r 1
SDIFF                -2 r 1..
SDIFFSTORE           -3 w 1..
SINTER               -2 r 1..
SINTERCARD           -3 r n1
SINTERSTORE          -3 w 1..
SISMEMBER             3 r 1
SMEMBERS              2 r 1
SMISMEMBER           -3 r 1
SMOVE                 4 w 1..2
SPOP                 -2 w 1
SRANDMEMBER          -2 r 1
SREM                 -3 w 1
SSCAN                -3 r 1
SUNION               -2 r 1..
SUNIONSTORE          -3 w 1..

# sorted sets
BZMPOP               -5 w n2        -> first
BZPOPMAX             -3 w 1..-2     -> first
BZPOPMIN             -3 w 1..-2     -> first
ZADD                 -4 w 1
ZCARD                 2 r 1
ZCOUNT                4 r 1
ZDIFF                -3 r n1
ZDIFFSTORE           -4 w 1 n2
ZINCRBY               4 w 1
ZINTER               -3 r n1
ZINTERCARD           -3 r n1
ZINTERSTORE          -4 w 1 n2
ZLEXCOUNT             4 r 1
ZMPOP                -4 w n1        -> first
ZMSCORE              -3 r 1
ZPOPMAX              -2 w 1
ZPOPMIN              -2 w 1
ZRANDMEMBER          -2 r 1
ZRANGE               -4 r 1
ZRANGEBYLEX          -4 r 1
ZRANGEBYSCORE        -4 r 1
ZRANGESTORE          -5 w 1..2
ZRANK                -3 r 1
ZREM                 -3 w 1
ZREMRANGEBYLEX        4 w 1
ZREMRANGEBYRANK       4 w 1
ZREMRANGEBYSCORE      4 w 1
ZREVRANGE            -4 r 1
ZREVRANGEBYLEX       -4 r 1
ZREVRANGEBYSCORE     -4 r 1
ZREVRANK             -3 r 1
ZSCAN                -3 r 1
ZSCORE                3 r 1
ZUNION               -3 r n1
ZUNIONSTORE          -4 w 1 n2

# places on earth
GEOADD               -5 w 1
GEODIST              -4 r 1
GEOHASH              -2 r 1
GEOPOS               -2 r 1
GEORADIUS            -6 w 1 o6
GEORADIUSBYMEMBER    -5 w 1 o5
GEORADIUSBYMEMBER_RO -5 r 1
GEORADIUS_RO         -6 r 1
GEOSEARCH            -7 r 1
GEOSEARCHSTORE       -8 w 1..2

# streams
XACK                 -4 w 1
XACKDEL              -6 w 1
XADD                 -5 w 1
XAUTOCLAIM           -6 w 1
XCLAIM               -6 w 1
XDEL                 -3 w 1
XDELEX               -5 w 1
XGROUP CREATE        -5 w 2
XGROUP CREATECONSUMER 5 w 2
XGROUP DELCONSUMER    5 w 2
XGROUP DESTROY        4 w 2
XGROUP HELP           2 -
XGROUP SETID         -5 w 2
XINFO CONSUMERS       4 r 2
XINFO GROUPS          3 r 2
XINFO HELP            2 -
XINFO STREAM         -3 r 2
XLEN                  2 r 1
XPENDING             -3 r 1
XRANGE               -4 r 1
XREAD                -4 r o1        -> streams
XREADGROUP           -7 w o1        -> streams
XREVRANGE            -4 r 1
XSETID               -3 w 1
XTRIM                -4 w 1

# vector sets
VADD                 -5 w 1
VCARD                 2 r 1
VDIM                  2 r 1
VEMB                 -3 r 1
VGETATTR              3 r 1
VINFO                 2 r 1
VISMEMBER             3 r 1
VLINKS               -3 r 1
VRANDMEMBER          -2 r 1
VRANGE               -4 r 1
VREM                  3 w 1
VSETATTR              4 w 1
VSIM                 -4 r 1

# pub/sub
PSUBSCRIBE           -2 r p1..      -> confirmations
PUBLISH               3 w c1
PUBSUB CHANNELS      -2 r p2 +p2    -> channels
PUBSUB HELP           2 -
PUBSUB NUMSUB        -2 r c2..      -> numsub
PUBSUB SHARDCHANNELS -2 r p2 +p2    -> channels
PUBSUB SHARDNUMSUB   -2 r c2..      -> numsub
PUNSUBSCRIBE         -1 r p1..      -> confirmations
SPUBLISH              3 w c1
SSUBSCRIBE           -2 r c1..      -> confirmations
SUBSCRIBE            -2 r c1..      -> confirmations
SUNSUBSCRIBE         -1 r c1..      -> confirmations
UNSUBSCRIBE          -1 r c1..      -> confirmations

# transactions
DISCARD               1 -
EXEC                  1 -           -> exec
MULTI                 1 -
UNWATCH               1 -
WATCH                -2 r 1..

# nothing of anybody's
ECHO                  2 -
PING                 -1 -
TIME                  1 -
"""

OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "COPY": "REPLACE",  # not DB: there is one database for a tenant
        "GEORADIUS": "WITHCOORD WITHDIST WITHHASH COUNT=value ANY ASC DESC STORE=key STOREDIST=key",
        "GEORADIUSBYMEMBER": "WITHCOORD WITHDIST WITHHASH COUNT=value ANY ASC DESC STORE=key STOREDIST=key",
        "SCAN": "MATCH=glob COUNT=value TYPE=value",
        "SORT": "ASC DESC ALPHA LIMIT=value,value BY=lookup GET=lookup STORE=key",
        "SORT_RO": "ASC DESC ALPHA LIMIT=value,value BY=lookup GET=lookup",
        "XREAD": "COUNT=value BLOCK=value STREAMS=streams",
        "XREADGROUP": "GROUP=value,value COUNT=value BLOCK=value CLAIM=value NOACK STREAMS=streams",
    }
)
"""What may stand at ``o``: a word alone, or with what follows it. ``streams``: half of all that is left is keys."""

REPEATED: Final = frozenset({b"GET"})
"""Options that may stand twice. Of another one Redis takes the last, so a second one is a mistake or worse."""

FORBIDDEN_TEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "a script reaches keys that no table can find": (
            "EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION SCRIPT"
        ),
        "it shows or changes the server, which is everybody's": (
            "ACL BGREWRITEAOF BGSAVE COMMANDLOG CONFIG DEBUG FAILOVER LASTSAVE LATENCY LOLWUT MODULE MONITOR PFDEBUG "
            "PFSELFTEST PSYNC REPLCONF REPLICAOF ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG SYNC WAIT WAITAOF"
        ),
        "it counts or moves slots and nodes": (
            "ASKING CLUSTER CLUSTERSCAN READONLY READWRITE RESTORE-ASKING SFLUSH TRIMSLOTS"
        ),
        "it leads out of the tenant's one database": "MIGRATE MOVE SWAPDB",
        "the server trusts its payload with the memory of all": "RESTORE",
    }
)
"""Commands that no tenant may send, by why."""

FRONT: Final = frozenset({b"AUTH", b"CLIENT", b"COMMAND", b"HELLO", b"INFO", b"QUIT", b"RESET", b"SELECT"})
"""Commands about the connection, which whoever stands before the server answers itself and never passes on."""


class Part(StrEnum):
    """What stands at a place of a command."""

    KEY = "key"
    GLOB = "glob"
    """A pattern of keys."""
    LOOKUP = "lookup"
    """A key with a ``*`` to be filled in: ``SORT ... BY``, ``GET``. ``#`` is the element itself, and no key."""
    CHANNEL = "channel"
    CHANNEL_GLOB = "channel_glob"


class Shape(StrEnum):
    """Where names stand in a reply."""

    PLAIN = "plain"
    """Nowhere."""
    NAMES = "names"
    """Each item is a key."""
    FIRST = "first"
    """The first item is a key; null: there was nothing."""
    SCAN = "scan"
    """A cursor and keys."""
    STREAMS = "streams"
    """Pairs of a key and entries; null: there was nothing."""
    CHANNELS = "channels"
    """Each item is a channel."""
    NUMSUB = "numsub"
    """A channel and a number, in turn."""
    CONFIRMATIONS = "confirmations"
    """One message for each channel."""
    EXEC = "exec"
    """The replies of the commands queued since ``MULTI``, each in its own shape."""
    SWEEP = "sweep"
    """No reply of the server's: `hivetenancy.scopes.command_sweeps` puts it together from scans."""


@dataclass(frozen=True, slots=True)
class Range:
    """Parts from *first* to *last* (0: the end; below: from the end), every *step* words."""

    first: int
    last: int
    step: int
    part: Part


@dataclass(frozen=True, slots=True)
class Counted:
    """A number at *at*, then as many keys, each with ``step - 1`` words behind it."""

    at: int
    step: int


@dataclass(frozen=True, slots=True)
class Options:
    """Words from *at* on, and what follows each."""

    at: int
    known: Mapping[bytes, tuple[str, ...]]


Place = Range | Counted | Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line of the table.

    Attributes:
        name: In capitals, with its subcommand.
        arity: Words, with the command's own; negative: at least so many.
        effect: ``r``, ``w``, ``d`` or ``-``; see the module.
        places: Where names stand.
        added: What is put in where it is left out: ``p2``, ``MATCH`` or nothing.
        shape: Of the reply.
        single: Whether all there is is one key, at word 1.
    """

    name: str
    arity: int
    effect: str
    places: tuple[Place, ...]
    added: str
    shape: Shape
    single: bool

    def takes(self, words: int) -> bool:
        """Whether the command may have so many *words*, its own included."""
        return words == self.arity or words >= -self.arity > 0


_PLACE: Final = re.compile(r"([cpgno]?)([1-9])(\.\.(-?[0-9]+)?)?(?:/([1-9]))?")
_PARTS: Final = {"": Part.KEY, "c": Part.CHANNEL, "p": Part.CHANNEL_GLOB, "g": Part.GLOB}


def parse(text: str) -> dict[str, Command]:
    """Return the commands of a table by name.

    Raises:
        ValueError: A line is not as the module describes it, or stands twice.
    """
    commands: dict[str, Command] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            command = _parse_line(line)
            if command.name in commands:
                raise ValueError(f"{command.name} stands in the table twice")
            commands[command.name] = command
    return commands


def _parse_line(line: str) -> Command:
    written, _, shape = line.partition("->")
    match = re.match(r"([A-Z_]+(?: [A-Z]+)?) +(-?[0-9]+) ([rwd-])(.*)", written)
    if match is None:
        raise ValueError(f"not a line of the table: {line!r}")
    name, arity, effect, places = match.groups()
    words = places.split()
    single = words == ["1"]
    return Command(
        name=name,
        arity=int(arity),
        effect=effect,
        places=tuple(_parse_place(name, word) for word in words if word[0] != "+"),
        added=next((word[1:] for word in words if word[0] == "+"), ""),
        shape=Shape(shape.strip() or "plain"),
        single=single,
    )


def _parse_place(name: str, word: str) -> Place:
    match = _PLACE.fullmatch(word)
    if match is None:
        raise ValueError(f"{name}: not a place: {word!r}")
    letter, first, on, last, step = match.groups()
    if letter == "o":
        return Options(int(first), _parse_options(OPTIONS[name]))
    if letter == "n":
        return Counted(int(first), int(step or 1))
    return Range(int(first), int(last or 0) if on else int(first), int(step or 1), _PARTS[letter])


def _parse_options(text: str) -> Mapping[bytes, tuple[str, ...]]:
    options = {}
    for word in text.split():
        name, _, follows = word.partition("=")
        options[name.encode()] = tuple(follows.split(",")) if follows else ()
    return MappingProxyType(options)


Found = Command | Mapping[bytes, Command]


def by_word(commands: Mapping[str, Command]) -> Mapping[bytes, Found]:
    """Return *commands* by their first word; a container's by their second word below it."""
    found: dict[bytes, Found] = {}
    for name, command in commands.items():
        word, _, sub = name.partition(" ")
        if sub:
            below = found.setdefault(word.encode(), {})
            found[word.encode()] = {**below, sub.encode(): command}  # type: ignore[dict-item]  # a container's own
        else:
            found[word.encode()] = command
    return MappingProxyType(found)


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(parse(COMMANDS_TEXT))
"""The table, by the name of the command."""

FORBIDDEN: Final[Mapping[bytes, str]] = MappingProxyType(
    {name.encode(): why for why, names in FORBIDDEN_TEXT.items() for name in names.split()}
)
"""Why a command is forbidden, by its name."""
