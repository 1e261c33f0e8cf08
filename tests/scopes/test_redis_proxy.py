"""The example `examples/redis_proxy.py` before a real Redis: by redis-py, by redis-cli, and by whoever means harm."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("redis", reason="redis-py is what talks to the proxy: pip install redis")

from redis import exceptions

from hivetenancy.hooks import IsolationKind
from hivetenancy.plans import ConcurrencyPolicy
from hivetenancy.scopes import command_session
from tests.adapters.world import plan
from tests.readme import ROOT
from tests.scopes.live_redis import Raw
from tests.scopes.served_proxy import command, proxy, served, until
from tests.tiers import examples, needs_program

pytestmark = [pytest.mark.anyio, needs_program("redis-server")]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py_does_what_it_does_everywhere(redis: Raw, redis_port: int, protocol: int) -> None:
    """Strings, hashes, lists, sets, sorted sets, streams, scans and transactions, by the ordinary client."""
    async with served(redis_port) as made, made.client(protocol=protocol) as client:
        assert await client.ping()
        assert await client.set("s", "1", ex=100)
        assert await client.incr("s") == 2
        assert await client.mget("s", "none") == [b"2", None]
        assert await client.hset("h", mapping={"f": "1", "g": "2"}) == 2
        assert await client.hgetall("h") == {b"f": b"1", b"g": b"2"}
        assert await client.rpush("l", "a", "b") == 2
        assert list(await client.blpop(["none", "l"], 1)) == [b"l", b"a"]
        assert await client.sadd("u", "x", "y") == 2
        assert await client.smembers("u") == {b"x", b"y"}
        assert await client.zadd("z", {"m": 1.5}) == 1
        assert await client.zscore("z", "m") == 1.5
        assert list(await client.bzpopmin(["z"], 1)) == [b"z", b"m", 1.5]
        entry = await client.xadd("x", {"f": "v"})
        assert entry in str(await client.xread({"x": "0"})).encode()
        await client.xgroup_create("x", "w", "0")
        assert b"x" in dict(await client.xreadgroup("w", "c", {"x": ">"}))
        assert sorted(await client.keys("*")) == [b"h", b"l", b"s", b"u", b"x"]
        assert sorted([key async for key in client.scan_iter(count=1)]) == [b"h", b"l", b"s", b"u", b"x"]
        assert await client.dbsize() == 5
        assert await client.randomkey() in {b"h", b"l", b"s", b"u", b"x"}
        async with client.pipeline(transaction=True) as pipe:
            pipe.set("t", 1).lpop("l").keys("t*").get("t")
            assert await pipe.execute() == [True, b"b", [b"t"], b"1"]
        async with client.pipeline(transaction=False) as pipe:
            for number in range(300):
                pipe.set(f"n{number}", number)
            assert await pipe.execute() == [True] * 300
        assert await client.flushdb()
        assert await client.keys("*") == []
        assert await client.client_setname("me")
        assert await client.client_id() == 1


@needs_program("redis-cli")
@pytest.mark.service("redis-cli")
async def test_redis_cli(redis: Raw, redis_port: int) -> None:
    """The real redis-cli, in both versions of the protocol, with what it sends by itself."""
    async with served(redis_port) as made:

        async def cli(*arguments: str, key: str | None = None, say: bytes | None = None) -> str:
            process = await asyncio.create_subprocess_exec(
                "redis-cli", "-p", str(made.proxy.port), "--no-auth-warning",
                *(("-a", key) if key else ()), *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(process.communicate(say), 30)
            return out.decode().strip()

        key = made.keys["a"].secret
        said = b"SET hello world\nHSET h f 1\nMULTI\nGET hello\nKEYS h*\nEXEC\nEVAL 'return 1' 0\nGET hello\n"
        lines = (await cli(key=key, say=said)).splitlines()
        assert lines[:5] == ["OK", "1", "OK", "QUEUED", "QUEUED"]
        assert sorted(lines[5:8]) == ["h", "hello", "world"]
        assert lines[8] == "ERR not permitted to tenants: command 'EVAL'"
        assert lines[-1] == "world"
        assert await cli("-3", "HGETALL", "h", key=key) in ("f\n1", "f 1", '1# "f" => "1"')
        assert sorted((await cli("--scan", key=key)).split()) == ["h", "hello"]
        assert await cli("GET", "hello", key=made.keys["b"].secret) == ""
        assert "NOAUTH" in await cli("GET", "hello")
        assert "WRONGPASS" in await cli("GET", "hello", key="hh_test_made_up_and_never_issued")


async def test_a42_a16_nobody_sees_what_is_not_theirs(redis: Raw, redis_port: int) -> None:
    """Another tenant's keys and un-owned ones are in no listing, count, draw, copy or purge."""
    planted = [b"legacy", b"user:", b"user:alice:x", b"tenant", b"\xff"]
    for key in planted:
        redis("SET", key, "legacy-canary")
    async with served(redis_port) as made, made.client("a") as a, made.client("b") as b:
        await a.mset({"same": "a-canary", "a": "a-canary"})
        await b.mset({"same": "b-canary", "user:alice:x": "b-canary"})
        physical = [key for key in redis("KEYS", "*") if b"same" in key]
        assert len(physical) == 2
        for client, own in ((a, {b"same", b"a"}), (b, {b"same", b"user:alice:x"})):
            assert set(await client.keys("*")) == {key async for key in client.scan_iter()} == own
            assert await client.dbsize() == len(own)
            assert {await client.randomkey() for _ in range(9)} <= own
            assert await client.mget("legacy", *physical, b"\xff") == [None] * 4
            assert await client.delete("legacy", *physical) == 0
            assert not await client.exists("legacy", *physical)
            with pytest.raises(exceptions.ResponseError, match="no such key"):
                await client.rename("legacy", "stolen")
        assert await a.get("same") == b"a-canary"
        assert await a.flushall()
        assert await b.mget("same", "user:alice:x") == [b"b-canary", b"b-canary"]
        assert await b.flushdb()
    assert sorted(redis("KEYS", "*")) == sorted(planted)


async def test_a51_the_server_is_not_shown(redis: Raw, redis_port: int) -> None:
    """Scripts and whatever shows or changes the server are refused, and the connection goes on."""
    calls = "EVAL s 0|FCALL f 0|SCRIPT LOAD s|CONFIG GET *|MONITOR|CLIENT LIST|CLIENT INFO|SLOWLOG GET|MEMORY STATS"
    calls += "|ACL WHOAMI|DEBUG OBJECT k|LATENCY LATEST|CLUSTER INFO|ROLE|PUBSUB NUMPAT|MIGRATE h 1 k 0 9|MOVE k 1"
    calls += "|SWAPDB 0 1|SELECT 1|SHUTDOWN|REPLICAOF h 1|RESET|OBJECT NOSUCH k|CLIENT REPLY OFF|CLIENT TRACKING ON"
    async with served(redis_port) as made, made.client() as client:
        redis("SET", "secret-of-another", "1")
        for call in calls.split("|"):
            with pytest.raises(exceptions.ResponseError) as refused:
                await client.execute_command(*call.split())
            assert "user:" not in str(refused.value)
        info = await client.info()
        assert set(info) == {"redis_version", "redis_mode"}
        assert await client.get("k") is None
    assert {event.kind for event in made.sink.events} == {IsolationKind.UNSCOPABLE}


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a14_pub_sub_is_ones_own(redis: Raw, redis_port: int, protocol: int) -> None:
    """A subscription to everything hears the tenant's own channels: no other tenant's, no notification of keys."""
    redis("CONFIG", "SET", "notify-keyspace-events", "KEA")
    try:
        async with served(redis_port) as made, made.client("a", protocol=protocol) as a, made.client("b") as b:
            heard = a.pubsub()
            await heard.psubscribe("*", "__key*__:*")
            await heard.subscribe("c", "__keyspace@0__:k")
            for _ in range(4):
                assert (await heard.get_message(timeout=10))["type"] in ("psubscribe", "subscribe")
            assert sorted(await a.pubsub_channels()) == [b"__keyspace@0__:k", b"c"]
            assert await b.pubsub_channels() == []
            assert await b.publish("c", "b-canary") == 0
            assert dict(await b.pubsub_numsub("c")) == {b"c": 0}
            await b.set("k", "b-canary")
            await a.set("k", "1")
            redis("PUBLISH", "c", "legacy-canary")
            assert await a.publish("c", "mine") == 2
            got = [await heard.get_message(timeout=10) for _ in range(2)]
            assert {(item["type"], item["channel"], item["data"]) for item in got} == {
                ("message", b"c", b"mine"),
                ("pmessage", b"c", b"mine"),
            }
            await heard.unsubscribe()
            await heard.punsubscribe()
            assert {(await heard.get_message(timeout=10))["channel"] for _ in range(4)} == {
                b"c", b"*", b"__keyspace@0__:k", b"__key*__:*"
            }  # fmt: skip
            assert await heard.get_message(timeout=0.01) is None
            await heard.aclose()
    finally:
        redis("CONFIG", "SET", "notify-keyspace-events", "")


async def test_subscriptions_have_a_cap(redis: Raw, redis_port: int) -> None:
    """A connection is subscribed to so many channels and no more; the next is an error, and the connection stays."""
    cap = command_session.SUBSCRIPTIONS
    async with served(redis_port) as made, made.raw("a") as (reader, writer):
        writer.write(command(b"SUBSCRIBE", *[b"c%d" % number for number in range(cap + 1)]))
        refusal = b"-ERR too many subscriptions on this connection for 'SUBSCRIBE'\r\n"
        assert await reader.readline() == refusal
        assert redis("PUBSUB", "CHANNELS") == []
        writer.write(command(b"SUBSCRIBE", *[b"c%d" % number for number in range(cap)]))
        await reader.readuntil(b":%d\r\n" % cap)
        writer.write(command(b"PSUBSCRIBE", b"*"))
        assert await reader.readline() == refusal.replace(b"'S", b"'PS")
        assert str(redis("PUBSUB", "CHANNELS")).count(":c") == cap
        assert redis("PUBSUB", "NUMPAT") == b":0"
        async with made.client("a") as a:
            assert await a.publish("c0", "x") == 1


async def test_transactions_and_refusals(redis: Raw, redis_port: int) -> None:
    """WATCH sees a change; a command refused by the proxy, by the gate or by Redis makes EXEC abort, all alike."""
    async with served(redis_port) as made, made.client() as client, made.client() as other, made.client("b") as b:
        async with client.pipeline() as pipe:
            await pipe.watch("k")
            await b.set("k", "theirs")
            pipe.multi()
            pipe.set("k", "1")
            assert await pipe.execute() == [True]
            await pipe.watch("k")
            await other.set("k", "2")
            pipe.multi()
            pipe.set("k", "3")
            with pytest.raises(exceptions.WatchError):
                await pipe.execute()
        for bad in (("EVAL", "s", "0"), ("SET", "k"), ("SCAN", "0"), ("SELECT", "0"), ("SUBSCRIBE", "c")):
            pipe = client.pipeline()
            pipe.set("k", "lost").execute_command(*bad)
            with pytest.raises(exceptions.ResponseError):
                await pipe.execute()
        assert await client.get("k") == b"2"
        reader = made.world.tenant.issue_key(permissions=["read"])
        async with made.raw() as (lines, writer):
            writer.write(command(b"AUTH", reader.secret.encode()) + command(b"MULTI") + command(b"SET", b"k", b"lost"))
            writer.write(command(b"GET", b"k") + command(b"EXEC") + command(b"GET", b"k"))
            answers = [(await lines.readline())[:7] for _ in range(6)]
            assert answers[:2] == [b"+OK\r\n", b"+OK\r\n"]
            assert answers[2].startswith(b"-NOPERM")
            assert answers[3:5] == [b"+QUEUED", b"-EXECAB"]


async def test_answers_come_in_order(redis: Raw, redis_port: int) -> None:
    """Refusals and answers of the proxy's own keep their place in a pipeline of Redis's."""
    async with served(redis_port) as made, made.client(protocol=2) as client:
        pipe = client.pipeline(transaction=False)
        pipe.set("a", "1").execute_command("NOSUCH").get("a").execute_command("CLIENT", "ID").execute_command("GET")
        pipe.execute_command("SCAN", "0").execute_command("DBSIZE").execute_command("SELECT", "5").get("a")
        pipe.execute_command("EVAL", "x", "0").lpush("a", "1").get("a")
        replies = await pipe.execute(raise_on_error=False)
        shown = ["error" if isinstance(reply, Exception) else reply for reply in replies]
        expected = [True, "error", b"1", 1, "error", (0, [b"a"]), 1, "error", b"1", "error", "error", b"1"]
        assert [list(item) if isinstance(item, tuple) else item for item in shown] == [
            list(item) if isinstance(item, tuple) else item for item in expected
        ]


async def test_a_long_pipeline_waits_and_is_not_refused(redis: Raw, redis_port: int) -> None:
    """Bulk loading by an ordinary client works under a plan of a hundred at once, as HiveHub's ``pro`` is."""
    hundred = ConcurrencyPolicy(limit=100, name="at-once")
    async with served(redis_port, plan(hundred)) as made, made.client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(300):
            pipe.set(f"n:{number}", number)
        assert await pipe.execute() == [True] * 300
        assert await client.dbsize() == 300


async def test_a20_a_scan_cursor_is_of_one_tenant(redis: Raw, redis_port: int) -> None:
    """A cursor works on any connection of its tenant; for another it is one that was never given."""
    async with served(redis_port) as made, made.client("a") as a, made.client("a") as again, made.client("b") as b:
        await a.mset({f"k{number}": "" for number in range(2_000)})
        cursor, found = await a.scan(0, count=10)
        assert cursor > 0
        assert len(found) < 2_000
        more = await again.scan(cursor, count=10)
        assert set(more[1]) <= {b"k%d" % number for number in range(2_000)}
        for guess in (cursor, cursor + 1, 7):
            with pytest.raises(exceptions.ResponseError, match="invalid cursor"):
                await b.scan(guess)
        assert await b.scan(0) in [(0, []), [0, []]]


async def test_a26_another_key_on_the_same_socket_starts_anew(redis: Raw, redis_port: int) -> None:
    """Who authenticates again is that tenant from then on: no subscription, transaction or watch of before is left."""
    async with served(redis_port) as made, made.raw("a") as (reader, writer):
        other = made.keys["b"].secret.encode()

        async def say(*words: bytes) -> bytes:
            writer.write(command(*words))
            return await reader.readline()

        assert await say(b"SET", b"k", b"a-canary") == b"+OK\r\n"
        assert await say(b"WATCH", b"k") == b"+OK\r\n"
        assert await say(b"AUTH", other) == b"+OK\r\n"
        assert await say(b"GET", b"k") == b"$-1\r\n"
        assert await say(b"EXEC") == b"-ERR EXEC without MULTI\r\n"
        assert await say(b"SET", b"k", b"b-canary") == b"+OK\r\n"
        assert await say(b"AUTH", b"hh_test_made_up_and_never_issued") != b"+OK\r\n"
        assert await say(b"GET", b"k") == b"$8\r\n"
        assert await reader.readline() == b"b-canary\r\n"  # a refused key leaves the connection what it was
        assert await say(b"AUTH", b"default", made.keys["a"].secret.encode()) == b"+OK\r\n"
        assert await say(b"GET", b"k") == b"$8\r\n"
        assert await reader.readline() == b"a-canary\r\n"


async def test_another_protocol_forgets_no_watch(redis: Raw, redis_port: int) -> None:
    """It takes another connection to Redis, so it is refused while keys are watched or channels subscribed."""
    async with served(redis_port) as made, made.raw("a") as (reader, writer):

        async def say(*words: bytes) -> bytes:
            writer.write(command(*words))
            return await reader.readline()

        refused = b"-ERR not while keys are watched or channels subscribed: command 'HELLO'\r\n"
        assert await say(b"WATCH", b"k") == b"+OK\r\n"
        assert await say(b"HELLO", b"3") == refused
        async with made.raw("a") as (heard, other):
            other.write(command(b"SET", b"k", b"changed"))
            assert await heard.readline() == b"+OK\r\n"
        assert await say(b"MULTI") == b"+OK\r\n"
        assert await say(b"SET", b"k", b"mine") == b"+QUEUED\r\n"
        assert await say(b"EXEC") == b"*-1\r\n"
        assert await say(b"HELLO", b"3") == b"%7\r\n"
        await reader.readuntil(b"modules\r\n*0\r\n")
        assert (await say(b"SUBSCRIBE", b"c"))[:1] == b">"
        await reader.readuntil(b":1\r\n")
        assert await say(b"HELLO", b"2") == refused


async def test_a26_a_connection_that_is_kept_would_stay_the_first_tenants(
    redis: Raw, redis_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails for a proxy that keeps its connection to Redis when another key is shown."""
    monkeypatch.setattr(proxy.Peer, "_drop", lambda peer: None)
    async with served(redis_port) as made, made.raw("a") as (reader, writer):
        writer.write(command(b"SET", b"k", b"a-canary") + command(b"AUTH", made.keys["b"].secret.encode()))
        writer.write(command(b"GET", b"k"))
        assert [await reader.readline() for _ in range(4)] == [b"+OK\r\n", b"+OK\r\n", b"$8\r\n", b"a-canary\r\n"]
        monkeypatch.undo()  # so that it is closed at last


async def test_a50_revocation_ends_a_subscription(redis: Raw, redis_port: int) -> None:
    """A subscriber whose key is revoked hears nothing more, and its connection to Redis is gone."""
    async with served(redis_port) as made, made.raw("a") as (reader, writer), made.client("b") as b:
        writer.write(command(b"SUBSCRIBE", b"c"))
        assert b"subscribe" in await reader.readuntil(b":1\r\n")
        made.keys["a"].revoke()
        async with asyncio.timeout(20):
            assert b"message" not in await reader.read()
        await b.ping()
        await until(lambda: redis("PUBSUB", "CHANNELS") == [])


async def test_d40_without_a_key_nothing_is_answered(redis: Raw, redis_port: int) -> None:
    """Before a key each command is answered NOAUTH, and nothing is connected to Redis for it."""
    async with served(redis_port) as made, made.raw() as (reader, writer):
        for parts in [
            (b"GET", b"a"),
            (b"PING",),
            (b"INFO",),
            (b"HELLO", b"3"),
            (b"NOSUCH",),
            (b"COMMAND",),
            (b"EXEC",),
        ]:
            writer.write(command(*parts))
            assert (await reader.readline()).startswith(b"-NOAUTH"), parts
        assert b"user:" not in str(redis("CLIENT", "LIST")).encode()


@pytest.mark.parametrize("bad", [b"GET k\r\n", b"*100000000\r\n", b"*1\r\n$900000000\r\n", b"*17\r\n", b"\x16\x03\x01"])
async def test_nonsense_ends_the_connection(redis: Raw, redis_port: int, bad: bytes) -> None:
    """What is no command, or announces too much, is answered once, and then the connection is closed."""
    async with served(redis_port) as made:
        async with made.raw() as (reader, writer):
            writer.write(bad + b"\r\n" * 40)
            async with asyncio.timeout(20):
                assert (await reader.read()).startswith(b"-ERR Protocol error")
        async with made.raw("a") as (reader, writer):
            writer.write(command(b"SET", b"k", b"1") + command(b"GET", b"k") + b"nonsense\r\n")
            async with asyncio.timeout(20):
                assert (await reader.read()).startswith(b"+OK\r\n$1\r\n1\r\n-ERR Protocol error")
        await made.quiet()


async def test_without_redis_commands_say_so() -> None:
    """Where Redis cannot be reached the client is told to come back, and its connection stays."""
    async with served(1) as made, made.raw("a") as (reader, writer):
        for _ in range(2):
            writer.write(command(b"GET", b"k"))
            assert b"retry_after_ms" in await reader.readline()


async def fake_redis(reply: bytes) -> Any:
    """A server that answers anything with *reply*."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.read(1 << 16) and reply:
                writer.write(reply)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("reply", "audited"),
    [
        (b"*1\r\n$13\r\nuser:globex:k\r\n", True),
        (b"+surprise\r\n", False),
        (b":1\r\n:2\r\n", False),
        (b"garbage\r\n", False),
        (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$13\r\nuser:globex:k\r\n", False),
        (b"", False),
    ],
)
async def test_what_must_not_be_seen_ends_the_connection(reply: bytes, audited: bool) -> None:
    """A foreign name, a reply of another shape, one too many, no RESP, an end: the client gets nothing of it."""
    server = await fake_redis(reply)
    async with server, served(server.sockets[0].getsockname()[1]) as made, made.raw("a") as (reader, writer):
        writer.write(command(b"KEYS", b"*"))
        async with asyncio.timeout(20):
            assert b"globex" not in await reader.read()
        await made.quiet()
        kinds = [event.kind for event in made.sink.events]
        assert kinds == [IsolationKind.FOREIGN_NAME] * audited


# --- A30: cancellation -----------------------------------------------------------------------------------------------


READS = [(b"GET", b"k"), (b"LRANGE", b"l", b"0", b"-1")]
CALLS = [*READS, (b"BLPOP", b"none", b"0"), (b"SCAN", b"0"), (b"DBSIZE",), (b"MULTI",), (b"SUBSCRIBE", b"c")]
CALLS += [(b"EVAL", b"s", b"0"), (b"HELLO", b"3")]


async def disturbed(
    made: Any, rounds: int, draw: random.Random, calls: Sequence[tuple[bytes, ...]] = CALLS, patience: float = 20
) -> list[bytes]:
    """Kill clients of tenant ``a`` at random moments; return whatever tenant ``b`` was answered that is not its own."""
    secret, own, wrong = b"a-canary" * 40, b"b-own" * 40, []
    async with made.client("a") as a, made.client("b") as b:
        await a.set("k", secret)
        await a.rpush("l", *[secret] * 200)
        await b.set("k", own)
    for _ in range(rounds):
        async with made.raw("a") as (_, writer):
            for call in draw.choices(calls, k=draw.randrange(1, 6)):
                writer.write(command(*call))
            for _ in range(draw.randrange(30)):
                await asyncio.sleep(0)
            for task in list(made.proxy._tasks) if draw.random() < 0.3 else ():
                task.cancel()  # from within, as the end of a key does it
        async with made.raw("b") as (reader, writer):
            writer.write(command(b"GET", b"k"))
            answer = b""
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    answer = await reader.readline()
                    answer += await reader.readexactly(len(own) + 2) if answer.startswith(b"$") else b""
            if answer != b"$%d\r\n%b\r\n" % (len(own), own):
                wrong.append(answer)
    await made.quiet()
    return wrong


@pytest.mark.deep
@pytest.mark.timeout(600)
async def test_a30_a_killed_clients_reply_is_given_to_nobody(redis: Raw, redis_port: int) -> None:
    """Clients that leave at any moment leave nothing behind: no reply for others, no connection to Redis."""
    seed = random.randrange(2**32)
    async with served(redis_port) as made:
        assert await disturbed(made, examples(40, 3_000), random.Random(seed)) == [], f"seed {seed}"
    await until(lambda: str(redis("CLIENT", "LIST")).count("laddr=") == 1)  # the operator's own


class Pooling(proxy.RedisProxy):
    """A proxy that keeps connections to Redis for the next client, as pools do."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool: list[Any] = []

    async def take(self) -> Any:
        """Take one that somebody used."""
        return self.pool.pop() if self.pool else await super().take()

    def put_back(self, stream: Any) -> None:
        """Keep it."""
        self.pool.append(stream)

    async def stop(self) -> None:
        """Stop, and close the pool."""
        await super().stop()
        for _, writer in self.pool:
            writer.transport.abort()


async def test_a30_a_pool_would_give_it_to_the_next(redis: Raw, redis_port: int) -> None:
    """The test above fails for a proxy that keeps its connections to Redis."""
    async with served(redis_port, made=Pooling) as made:
        wrong = await disturbed(made, 40, random.Random(5), READS, patience=0.05)
        assert any(b"a-canary" in answer for answer in wrong)


async def test_a_blocked_client_that_leaves_is_let_go(redis: Raw, redis_port: int) -> None:
    """A client that leaves while it waits for BLPOP is gone from Redis at once, and takes no element with it."""
    async with served(redis_port) as made, made.client("a") as a:
        async with made.raw("a") as (_, writer):
            writer.write(command(b"BLPOP", b"q", b"0"))
            await until(lambda: "cmd=blpop" in str(redis("CLIENT", "LIST")))
        await until(lambda: "cmd=blpop" not in str(redis("CLIENT", "LIST")))
        await a.rpush("q", "kept")
        assert await a.llen("q") == 1


async def test_run_as_a_program(redis: Raw, redis_port: int) -> None:
    """Started as a program it prints keys and ready lines, and serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / "redis_proxy.py"), "--upstream", f"127.0.0.1:{redis_port}",
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            lines = [(await process.stdout.readline()).decode() for _ in range(6)]
        key = lines[0].split()[1]
        port = int(lines[1].split("-p ")[1].split()[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(command(b"AUTH", key.encode()) + command(b"SET", b"hello", b"acme"))
        assert [await reader.readline() for _ in range(2)] == [b"+OK\r\n"] * 2
        writer.close()
    finally:
        process.terminate()
        await process.communicate()
