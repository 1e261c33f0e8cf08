"""Two tenants on one Redis, and each alone on a database of its own: what they say, and whether it is the same.

A tenant behind the scope must observe what it would observe alone. So each command goes to the shared database through
a `CommandSession`, and as it is to a database where nobody else is; the two replies are compared. Nothing else has to
be known about a command.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from hivetenancy.context import TenantContext
from hivetenancy.errors import TenancyError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.scopes.command_keys import CommandRefusedError
from hivetenancy.scopes.command_session import CommandSession
from hivetenancy.scopes.command_sweeps import ScanCursors, is_swept, sweep
from hivetenancy.scopes.commands import CommandScope
from hivetenancy.scopes.resp import Items, Line, decode, encode
from tests.scopes.live_redis import Raw, raw

TENANTS = ("1", "12")  # of which one begins the other
PREFIXES = {tenant: f"user:{tenant}:".encode() for tenant in TENANTS}


def scope_of(tenant: str) -> CommandScope:
    """The commands of a tenant."""
    context = TenantContext(tenant_id=TenantId(tenant), key_id=None, generation=1)
    return CommandScope(PrefixNamespaces(scheme="slug").for_tenant(context), tenant=context.tenant_id)


class Conversation:
    """One tenant's connection, through the scope."""

    def __init__(self, redis: Raw, tenant: str) -> None:
        self.redis, self.session, self.cursors = redis, CommandSession(scope_of(tenant)), ScanCursors()

    def __call__(self, args: Sequence[bytes]) -> object:
        """Say something, and return what the tenant sees."""
        try:
            command = self.session.send(args)
            if is_swept(command):
                return self._sweep(sweep(self.session.scope, command, self.cursors))
            return decode(self.session.receive(encode(self.redis(*command.words))))
        except CommandRefusedError as refused:
            return Line(b"-ERR %b" % str(refused).encode())

    def _sweep(self, steps: object) -> object:
        try:
            words = next(steps)
            while True:
                words = steps.send(self.redis(*words))
        except StopIteration as done:
            value = done.value
            return Line(b"$-1") if value is None else Line(b":%d" % value) if isinstance(value, int) else value


FORMS = """
SET s @|SET s @ EX 100|SET s # KEEPTTL|GET s|GETSET s @|GETDEL s|GETEX s EX 50|APPEND s @|STRLEN s|GETRANGE s 0 5
SUBSTR s 0 3|SETRANGE s 2 @|INCR s|INCRBY s #|INCRBYFLOAT s 1.5|DECR s|DECRBY s 2|MGET s s s|MSET s @ s @
MSETNX s @ s @|SETNX s @|SETEX s 100 @|PSETEX s 100000 @|LCS s s|LCS s s IDX|SETBIT s 7 1|GETBIT s 7|BITCOUNT s
BITPOS s 1|BITFIELD s INCRBY u8 0 1|BITFIELD_RO s GET u8 0|BITOP AND s s s|BITOP NOT s s|EXISTS s l s|DEL s
DEL l h s|UNLINK u z|TOUCH s l|TYPE s|TYPE l|TTL s|PTTL missing|PERSIST s|EXPIRE s 100|PEXPIRE s 100000
EXPIREAT s 4102444800|PEXPIREAT s 4102444800000|EXPIRETIME s|PEXPIRETIME s|RENAME s s|RENAME missing s|RENAMENX s s
COPY s s|COPY s s REPLACE|DUMP s|OBJECT ENCODING s|OBJECT REFCOUNT l|OBJECT FREQ s|KEYS *|KEYS s*|KEYS [sl]?
KEYS \\*|DBSIZE|FLUSHDB|SCAN 0 COUNT 1000|SCAN 0 MATCH s* COUNT 1000|SCAN 0 COUNT 1000 TYPE list
SCAN 0 MATCH user:* COUNT 1000|HSET h f @ g @|HSETNX h f @|HGET h f|HMGET h f g none|HMSET h f @|HGETALL h|HKEYS h
HVALS h|HLEN h|HEXISTS h f|HDEL h f|HINCRBY h n 2|HINCRBYFLOAT h n 1.5|HSTRLEN h f|HSCAN h 0|HRANDFIELD h -3
LPUSH l @ @|RPUSH l @|LPUSHX l @|RPUSHX l @|LRANGE l 0 -1|LLEN l|LINDEX l 0|LSET l 0 @|LINSERT l BEFORE @ @
LREM l 0 @|LTRIM l 0 5|LPOP l|RPOP l 2|LPOS l @|RPOPLPUSH l l|LMOVE l l LEFT RIGHT|LMPOP 2 l l LEFT|!BLPOP l l 0
!BRPOP l 0|!BLMPOP 0 2 l l RIGHT|!BRPOPLPUSH l l 0|!BLMOVE l l LEFT LEFT 0|SADD u @ 1 2|SREM u 1|SMEMBERS u
SISMEMBER u 1|SMISMEMBER u 1 9|SCARD u|SINTER u u|SUNION u u|SDIFF u u|SINTERSTORE u u u|SUNIONSTORE u u u
SDIFFSTORE u u u|SINTERCARD 2 u u LIMIT 1|SMOVE u u 1|SSCAN u 0|ZADD z 1 a 2 b|ZADD z # @|ZCARD z|ZSCORE z a
ZMSCORE z a b|ZRANK z a|ZREVRANK z a|ZRANGE z 0 -1 WITHSCORES|ZRANGE z 0 10 BYSCORE|ZREVRANGE z 0 -1
ZRANGEBYSCORE z 0 9|ZREVRANGEBYSCORE z 9 0|ZRANGEBYLEX z - +|ZREVRANGEBYLEX z + -|ZLEXCOUNT z - +|ZCOUNT z 0 5
ZINCRBY z 2 a|ZREM z a|ZREMRANGEBYRANK z 3 9|ZREMRANGEBYSCORE z 7 8|ZREMRANGEBYLEX z [x [y|ZPOPMIN z|ZPOPMAX z 2
ZMPOP 2 z z MIN|!BZPOPMIN z z 0|!BZPOPMAX z 0|!BZMPOP 0 2 z z MAX COUNT 2|ZUNION 2 z z WITHSCORES|ZINTER 2 z z
ZDIFF 2 z z|ZINTERCARD 2 z z|ZUNIONSTORE z 2 z z WEIGHTS 1 2|ZINTERSTORE z 2 z z|ZDIFFSTORE z 2 z z
ZRANGESTORE z z 0 -1|ZSCAN z 0|?ZUNION 5 z z|?ZUNIONSTORE z 1|GEOADD g 13.3 38.1 p 15.0 37.5 q|GEODIST g p q km
GEOHASH g p|GEOPOS g p|GEORADIUS g 15 37 200 km WITHDIST|GEORADIUS g 15 37 200 km STORE z
GEORADIUS g 15 37 200 km ASC STOREDIST z|GEORADIUSBYMEMBER g p 200 km STORE z|GEORADIUS_RO g 15 37 200 km
GEORADIUSBYMEMBER_RO g p 200 km|GEOSEARCH g FROMMEMBER p BYRADIUS 200 km
GEOSEARCHSTORE z g FROMMEMBER p BYRADIUS 200 km|PFADD p @ @|PFCOUNT p p|PFMERGE p p p|SORT l ALPHA
SORT u BY nosort GET # GET s*|SORT l BY s* GET s* ALPHA|SORT l ALPHA STORE l|SORT_RO u ALPHA GET h*->f
SORT u ALPHA LIMIT 0 2 DESC|XADD x * f @|XADD x MAXLEN 10 * f @|XLEN x|XRANGE x - +|XREVRANGE x + - COUNT 2
XREAD COUNT 2 STREAMS x x 0 0|XREAD STREAMS x 0|XREADGROUP GROUP w c COUNT 2 STREAMS x >
XREADGROUP GROUP none c STREAMS x >|XGROUP CREATE x w 0 MKSTREAM|XGROUP DESTROY x none|XGROUP CREATECONSUMER x w c
XGROUP DELCONSUMER x w d|XGROUP SETID x w 0|XPENDING x w|XINFO GROUPS x|XINFO STREAM x|XINFO CONSUMERS x w
XACK x w 1-1|XDEL x 1-1|XTRIM x MAXLEN 20|XAUTOCLAIM x w c 0 0 COUNT 1|XCLAIM x w c 0 1-1|ECHO @|PING @|PUBLISH c @
PUBSUB NUMSUB c d|PUBSUB CHANNELS|PUBSUB CHANNELS *|MEMORY USAGE missing|?GET|?SET s|?MSET s @ s|?ZUNION 0 z
?SORT l LIMIT 1|?SET|?XREAD STREAMS x
"""

#: Times, in replies that hold one: they pass between two calls.
PASSING = {
    b"TTL",
    b"PTTL",
    b"EXPIRETIME",
    b"PEXPIRETIME",
    b"XINFO",
    b"XPENDING",
    b"XAUTOCLAIM",
    b"XCLAIM",
    b"HRANDFIELD",
}
UNORDERED = {b"KEYS", b"SCAN"}
LETTERS = frozenset("slhuzgpx")


class Program:
    """What two tenants say in turn, drawn from `FORMS`."""

    favourite = ""
    """A command that they say more often."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.forms = [form for line in FORMS.strip().splitlines() for form in line.split("|")]
        self.liked = [form for form in self.forms if form.lstrip("!?").split()[0] == self.favourite]
        self.count = 0
        self.stamp = 0

    def words(self, tenant: str, form: str) -> list[bytes]:
        """A form, with names and values: a value says whose it is."""
        return [self._word(tenant, word) for word in form.lstrip("!?").split(" ")]

    def _word(self, tenant: str, word: str) -> bytes:
        if word in LETTERS:
            return self._key(word)
        if word == "@":
            self.count += 1
            return b"canary-%b-%d" % (tenant.encode(), self.count % 7)
        if word == "#":
            return b"%d" % self.draw.randrange(5)
        if word == "*" and self.stamp:
            return b"%d-1" % self.stamp
        return word.encode()

    def _key(self, letter: str) -> bytes:
        key = self.draw.choice(letter * 15 + "slhuzgpx").encode() + b"%d" % self.draw.randrange(2)
        return self.draw.choice(list(PREFIXES.values())) + key if self.draw.random() < 0.05 else key

    def steps(self, count: int) -> Iterator[tuple[str, list[list[bytes]]]]:
        """Who speaks, and what: one command, or a transaction."""
        for self.stamp in range(1, count + 1):
            tenant = self.draw.choice(TENANTS)
            liked = self.liked and self.draw.random() < 0.2
            forms = [
                self.draw.choice(self.liked if liked else self.forms) for _ in range(self.draw.choice([1, 1, 1, 3]))
            ]
            if len(forms) > 1 or forms[0].startswith("!"):
                inner = [form for form in forms if not form.startswith(("?", "DBSIZE", "FLUSHDB", "SCAN"))]
                forms = ["MULTI", *inner, self.draw.choice(["EXEC", "EXEC", "EXEC", "DISCARD"])]
            stamp, self.stamp = self.stamp, 0
            spoken = []
            for form in forms:
                self.stamp = stamp if form.startswith("XADD") else 0
                spoken.append(self.words(tenant, form))
            yield tenant, spoken


def same(args: Sequence[bytes], mine: object, alone: object) -> bool:
    """Whether a tenant was answered what it would be answered alone."""
    name = args[0]
    if name in PASSING:
        return type(mine) is type(alone)
    if name in UNORDERED and isinstance(mine, Items) and isinstance(alone, Items):
        if name == b"SCAN":
            return mine[0] == alone[0] and sorted(mine[1]) == sorted(alone[1])
        return sorted(mine) == sorted(alone)
    if isinstance(alone, Line) and alone.startswith(b"-") and isinstance(mine, Line) and mine.startswith(b"-"):
        return mine == alone or _ours(mine)
    return mine == alone


def _ours(mine: Line) -> bool:
    """An error that the scope found before the server did: in words of its own, and about the command alone."""
    return re.fullmatch(rb"-ERR (wrong number of arguments for|syntax error in) '[A-Z ]+'", mine) is not None


def crossings(port: int, seed: int, steps: int) -> list[tuple[str, list[bytes], object, object]]:
    """Run a program, and return where a tenant was answered something else than alone."""
    with talking(port) as (shared, alone):
        found = []
        for tenant, spoken in Program(seed).steps(steps):
            for args in spoken:
                theirs = alone[tenant](*args)
                try:
                    mine = shared[tenant](args)
                except TenancyError as fault:  # the second lock; a connection that it closed says no more
                    return [*found, (tenant, args, fault, theirs)]
                if b"PUBSUB" not in args and not _same_all(args, mine, theirs, spoken):
                    found.append((tenant, args, mine, theirs))
        return found


def _same_all(args: Sequence[bytes], mine: object, alone: object, spoken: list[list[bytes]]) -> bool:
    if args == [b"EXEC"] and isinstance(mine, Items) and isinstance(alone, Items):
        queued = spoken[1:-1]
        return len(mine) == len(alone) == len(queued) and all(map(same, queued, mine, alone))
    return same(args, mine, alone)


@contextmanager
def talking(port: int) -> Iterator[tuple[dict[str, Conversation], dict[str, Raw]]]:
    """The tenants on one database, and each on one of its own."""
    with ExitStack() as stack:
        shared, alone = {}, {}
        for number, tenant in enumerate(TENANTS, start=1):
            shared[tenant] = Conversation(stack.enter_context(raw(port)), tenant)
            alone[tenant] = stack.enter_context(raw(port))
            alone[tenant]("SELECT", number)
            alone[tenant]("FLUSHDB")
        yield shared, alone
