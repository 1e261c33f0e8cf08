"""The example `examples/resp_server.py`, spoken to by redis-py, by redis-cli and by whoever sends bad input."""

from __future__ import annotations

import asyncio
import random
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

pytest.importorskip("hiredis", reason="the example needs hiredis: pip install hiredis")
redis = pytest.importorskip("redis", reason="redis-py is what talks to the example: pip install redis")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from redis import exceptions  # noqa: E402
from redis.asyncio import Redis  # noqa: E402

from hivetenancy.clock import MINUTE_US  # noqa: E402
from hivetenancy.compose import Tenancy  # noqa: E402
from hivetenancy.plans import Plan, RatePolicy  # noqa: E402
from tests.adapters.example import example  # noqa: E402
from tests.adapters.world import World, plan  # noqa: E402
from tests.readme import ROOT  # noqa: E402
from tests.tiers import examples, needs_program  # noqa: E402

server = example("resp_server")

pytestmark = pytest.mark.anyio


class Served(NamedTuple):
    """A world, and a server for it."""

    world: World
    server: Any

    @asynccontextmanager
    async def client(self, key: str | None = None, **options: Any) -> AsyncIterator[Any]:
        """A redis-py client with the tenant's key."""
        options.setdefault("protocol", 3)
        made = Redis(
            host="127.0.0.1",
            port=self.server.port,
            password=key or self.world.key.secret,
            retry=None,
            socket_timeout=10,
            **options,
        )
        try:
            yield made
        finally:
            await made.aclose()

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def quiet(self) -> None:
        """Wait until the server has noticed that its peers have left."""
        async with asyncio.timeout(10):
            await asyncio.gather(*(task for task in self.server._tasks if task is not self.server.sweeper))


@asynccontextmanager
async def served(tested: Plan | None = None) -> AsyncIterator[Served]:
    """A server on a free port."""
    world = World(tested)
    async with server.serve(world.tenancy, now_us=lambda: world.clock.now()[1]) as running:
        yield Served(world, running)


def command(*parts: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py_does_what_it_does_everywhere(protocol: int) -> None:
    """The commands of the example, by the ordinary client, in both versions of the protocol."""
    async with served() as made, made.client(protocol=protocol) as client:
        assert await client.ping()
        assert await client.set("a", b"1")
        assert await client.get("a") == b"1"
        assert await client.get("none") is None
        assert await client.incr("a") == 2
        assert await client.mget("a", "none", "a") == [b"2", None, b"2"]
        assert await client.exists("a", "a", "none") == 2
        assert await client.ttl("a") == -1
        assert await client.ttl("none") == -2
        assert await client.expire("a", 100)
        assert await client.ttl("a") == 100
        assert await client.delete("a", "none") == 1
        assert await client.set("b", b"x", px=1500)
        assert await client.client_setname("me")
        assert [name async for name in client.scan_iter()] == [b"b"]


async def test_tenants_do_not_see_each_other() -> None:
    """The same key is two keys; lists show one's own names, whole; a delete reaches nobody else's."""
    async with served() as made:
        other = made.world.other.issue_key(permissions=["read", "write", "delete"])
        async with made.client() as mine, made.client(other.secret) as theirs:
            await mine.set("same", "mine")
            await theirs.set("same", "theirs")
            await theirs.set("user:x:y", "theirs")
            assert await mine.get("same") == b"mine"
            assert await mine.get("user:x:y") is None
            assert await mine.delete("user:x:y") == 0
            assert sorted([name async for name in theirs.scan_iter()]) == [b"same", b"user:x:y"]
            physical = next(iter(made.server.store._items))
            assert await theirs.get(physical) is None  # somebody else's physical name is a name like any other


async def test_storage_is_charged_per_key() -> None:
    """Overwrites charge the difference, deletes and expiry give back, and a full plan says OOM."""
    async with served(plan(storage_bytes=200, keys=2)) as made, made.client() as client:
        world = made.world
        prefix = len(str((await world_tenant(made)).kv.key("a"))) - 1
        await client.set("a", b"x" * 10)
        assert await world.used("storage_bytes") == prefix + 1 + 10
        await client.set("a", b"x" * 4)
        assert await world.used("storage_bytes") == prefix + 1 + 4
        assert await client.incr("n") == 1
        assert await world.used("storage_bytes") == 2 * prefix + 1 + 4 + 1 + 1
        with pytest.raises(exceptions.OutOfMemoryError, match="dimension=keys"):
            await client.set("c", b"")
        with pytest.raises(exceptions.OutOfMemoryError, match="dimension=storage_bytes"):
            await client.set("a", b"x" * 1000)
        assert await client.get("a") == b"x" * 4
        await client.expire("a", 10)
        world.clock.advance(11)
        assert await client.get("a") is None
        await client.delete("n")
        assert await world.used("storage_bytes") == 0
        await client.set("b", b"1", ex=5)
        world.clock.advance(6)
        await made.server.store.sweep()
        assert await world.used("keys") == 0
        assert made.server.store._items == {}


async def world_tenant(made: Served) -> Any:
    """The handle of the tenant under test."""
    from hivetenancy.context import TenantContext
    from hivetenancy.namespaces.prefix import PrefixNamespaces

    class Handle:
        kv = PrefixNamespaces().for_tenant(
            TenantContext(tenant_id=made.world.tenant.id, key_id=None, generation=0)
        ).kv  # fmt: skip

    return Handle


async def test_a_ttl_over_the_plan_is_refused() -> None:
    """The static limit of the plan holds for EX, PX and EXPIRE."""
    async with served(plan(max_ttl_seconds=100)) as made, made.client() as client:
        await client.set("a", "1", ex=100)
        for call in (client.set("a", "1", ex=101), client.set("a", "1", px=100_001), client.expire("a", 101)):
            with pytest.raises(exceptions.ResponseError, match="limit=100"):
                await call
        for bad in (0, -1):
            with pytest.raises(exceptions.ResponseError, match="invalid expire time"):
                await client.execute_command("SET", "a", "1", "EX", bad)


@pytest.mark.parametrize("count", [1, 3, 7, 1000])
async def test_a_scan_gives_every_name_once(count: int) -> None:
    """Whatever the COUNT, a full walk gives each of the tenant's names exactly once, and only those."""
    async with served() as made:
        other = made.world.other.issue_key(permissions=["write"])
        async with made.client() as client, made.client(other.secret) as noise:
            names = {f"n{number}".encode() for number in range(30)}
            for name in names:
                await client.set(name, b"")
                await noise.set(b"x" + name, b"")
            walked = [name async for name in client.scan_iter(count=count)]
            assert sorted(walked) == sorted(names)
            assert {name async for name in client.scan_iter(match="n1?")} == {b"n%d" % n for n in range(10, 20)}
            assert {name async for name in client.scan_iter(match="n[^1-9]")} == {b"n0"}


async def test_a_scan_is_not_upset_by_deletes() -> None:
    """A name that is there all the time is given, whatever is deleted on the way."""
    async with served() as made, made.client() as client:
        for number in range(40):
            await client.set(f"n{number}", b"")
        cursor, seen = await client.scan(0, count=5)
        gone = {b"n%d" % number for number in range(0, 40, 2)}
        await client.delete(*gone)
        while cursor:
            cursor, more = await client.scan(cursor, count=5)
            seen += more
        assert {b"n%d" % number for number in range(1, 40, 2)} <= set(seen)


async def test_an_error_in_a_pipeline_does_not_desynchronise() -> None:
    """Each command of a pipeline gets its own reply, in its place, refusals and nonsense included."""
    async with served() as made, made.client() as client:
        pipe = client.pipeline(transaction=False)
        pipe.set("a", "1").incr("a").execute_command("NOSUCH").get("a")
        pipe.execute_command("GET").execute_command("SELECT", "5").execute_command("GET", "").get("a")
        replies = await pipe.execute(raise_on_error=False)
        kinds = [type(reply).__name__ if isinstance(reply, Exception) else reply for reply in replies]
        assert kinds == [True, 2, "ResponseError", b"2", "ResponseError", "ResponseError", "ResponseError", b"2"]


async def test_rate_limits_and_permissions_have_prefixes_that_clients_know() -> None:
    """RATELIMITED says when to come back; NOPERM and WRONGPASS become redis-py's own exceptions."""
    tested = plan(RatePolicy(limit=60, period_us=MINUTE_US, burst=6, name="burst"))
    async with served(tested) as made:
        reader = made.world.tenant.issue_key(permissions=["read"])
        async with made.client(reader.secret, protocol=2) as client:
            assert await client.get("a") is None
            with pytest.raises(exceptions.NoPermissionError):
                await client.set("a", "1")
            with pytest.raises(exceptions.ResponseError, match=r"RATELIMITED retry_after_ms=\d+ .*policy=burst"):
                for _ in range(9):
                    await client.mget("a", "b")
        with pytest.raises(exceptions.AuthenticationError, match="not valid"):
            async with made.client("hh_test_made_up_and_never_issued") as client:
                await client.ping()


async def test_d40_no_key_meant_unscoped_access() -> None:
    """Without a key every command is answered NOAUTH, the harmless ones too."""
    async with served() as made, made.raw() as (reader, writer):
        asked = [(b"GET", b"a"), (b"SET", b"a", b"1"), (b"PING",), (b"COMMAND",), (b"SELECT", b"0"), (b"NOSUCH",)]
        asked += [(b"CLIENT", b"ID"), (b"HELLO", b"3"), (b"GET",)]
        for parts in asked:
            writer.write(command(*parts))
            assert (await reader.readline()).startswith(b"-NOAUTH"), parts
        assert made.server.store._items == {}


async def test_revocation_closes_idle_clients() -> None:
    """A revoked key ends its silent connections at once, and the next attempt is refused."""
    async with served() as made, made.raw() as (reader, writer):
        writer.write(command(b"AUTH", made.world.key.secret.encode()))
        assert await reader.readline() == b"+OK\r\n"
        made.world.key.revoke()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        async with made.raw() as (again, sender):
            sender.write(command(b"AUTH", b"someone", made.world.key.secret.encode()))
            assert (await again.readline()).startswith(b"-WRONGPASS")


BAD = [
    b"*100000000\r\n",
    b"*17\r\n",
    b"*1\r\n$900000000\r\n",
    b"*1\r\n$4097\r\n",
    b"*-1\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n:5\r\n",
    b"*1\r\n*1\r\n*1\r\n",
    b"GET a\r\n",
    b"\r\n",
    b"\x00\xff\xfe",
    b"*" + b"1" * 100,
    b"*1\r\n$" + b"9" * 20 + b"\r\n",
    b"*1\r\n$3\r\nGETxx",
    b"*1 \r\n",
    b"%1\r\n+a\r\n+b\r\n",
    b"*16\r\n" + b"$4096\r\n" + b"x" * 4096 + b"\r\n" + b"$4096\r\n" + b"x" * 4096 + b"\r\n$4096\r\n"
    + b"x" * 4096 + b"\r\n$4096\r\n" + b"x" * 4096 + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sent", BAD, ids=lambda sent: repr(sent[:24]))
async def test_bad_input_is_answered_and_ends(sent: bytes) -> None:
    """What is no command, or announces too much, gets one error line and the end, from lengths alone."""
    async with served() as made, made.raw() as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(10):
            reply = await reader.read()
        assert re.fullmatch(rb"-ERR Protocol error: [^\r\n]*\r\n", reply)
        await made.quiet()


async def test_what_a_key_widens_and_what_it_does_not() -> None:
    """The caps grow with the key, in the middle of one packet, and end somewhere still."""
    async with served() as made, made.raw() as (reader, writer):
        big = b"x" * 100_000
        auth = command(b"AUTH", made.world.key.secret.encode())
        writer.write(auth + command(b"SET", b"a", big) + command(b"GET", b"a") + b"*1025\r\n")
        assert await reader.readline() == b"+OK\r\n"
        assert await reader.readline() == b"+OK\r\n"
        assert await reader.readexactly(len(big) + 11) == b"$100000\r\n" + big + b"\r\n"
        assert (await reader.read()).startswith(b"-ERR Protocol error")


async def test_names_of_any_kind_are_answered() -> None:
    """Empty, endless, binary and strange names get a reply each, never a broken connection."""
    async with served() as made, made.raw() as (reader, writer):
        writer.write(command(b"AUTH", made.world.key.secret.encode()))
        assert await reader.readline() == b"+OK\r\n"
        for name in (b"", b"\xff\xfe", b"x" * 500_000, b"\x00", b"\r\n", "ключ".encode(), b"../..", b"user:"):
            writer.write(command(b"SET", name, b"1") + command(b"GET", name))
            first = await reader.readline()
            second = await reader.readline()
            if first.startswith(b"-"):
                assert second.startswith(b"-ERR The name"), name[:20]
            else:
                assert second == b"$1\r\n", name[:20]
                assert await reader.readline() == b"1\r\n"


async def test_clients_that_leave_in_the_middle() -> None:
    """A peer that goes away mid-command leaves nothing held and no task behind."""
    async with served() as made:
        for cut in (b"", b"*", b"*2\r\n$3", b"*2\r\n$3\r\nGET\r\n$10\r\nabc"):
            async with made.raw() as (reader, writer):
                writer.write(command(b"AUTH", made.world.key.secret.encode()))
                assert await reader.readline() == b"+OK\r\n"
                writer.write(cut)
        await made.quiet()
        assert await made.world.all_held() == {}


@pytest.mark.deep
async def test_random_bytes_and_departures_leave_nothing_behind() -> None:
    """Random commands, cut anywhere, corrupted anywhere: the server answers or closes, and holds nothing after."""
    draw = random.Random()
    async with served() as made:
        key = made.world.key.secret.encode()
        words = [
            b"GET",
            b"SET",
            b"DEL",
            b"SCAN",
            b"MGET",
            b"INCR",
            b"EXPIRE",
            b"AUTH",
            b"HELLO",
            b"a",
            b"b",
            b"0",
            b"3",
        ]
        for _ in range(examples(60, 2_000)):
            sent = command(b"AUTH", key) if draw.random() < 0.8 else b""
            for _ in range(draw.randrange(1, 6)):
                sent += command(*draw.choices(words, k=draw.randrange(1, 5)))
            data = bytearray(sent)
            for _ in range(draw.randrange(3)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            async with made.raw() as (reader, writer):
                writer.write(bytes(data[: draw.randrange(1, len(data) + 1)]))
                writer.write_eof()
                async with asyncio.timeout(10):
                    await reader.read()
        await made.quiet()
        assert await made.world.all_held() == {}


@given(st.binary(max_size=200))
def test_measure_never_fails_otherwise(data: bytes) -> None:
    """Whatever bytes come, `measure` says how long the command is, that it is not all there, or that it is none."""
    try:
        size = server.measure(bytearray(data), server.BEFORE_KEY)
    except server.ProtocolError:
        return
    assert 0 <= size <= len(data)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.data())
def test_measure_finds_what_clients_send(parts: list[bytes], data: st.DataObject) -> None:
    """A command is measured whole, and no part of it is taken for one."""
    sent = command(*parts)
    assert server.measure(bytearray(sent + b"rest"), server.BEFORE_KEY) == len(sent)
    cut = data.draw(st.integers(0, len(sent) - 1))
    assert server.measure(bytearray(sent[:cut]), server.BEFORE_KEY) == 0


async def test_standalone_serves_without_keys() -> None:
    """The same server in standalone mode: no key, names as they are."""
    world = World()
    async with server.serve(Tenancy.standalone(), now_us=lambda: world.clock.now()[1]) as running:
        async with Served(world, running).raw() as (reader, writer):
            writer.write(command(b"SET", b"a", b"1"))
            assert await reader.readline() == b"+OK\r\n"
            assert list(running.store._items) == ["a"]


@needs_program("redis-cli")
@pytest.mark.service("redis-cli")
async def test_redis_cli() -> None:
    """The real redis-cli, in both versions of the protocol, with what it sends by itself."""
    async with served() as made:

        async def cli(*arguments: str, key: str | None = None) -> str:
            process = await asyncio.create_subprocess_exec(
                "redis-cli", "-p", str(made.server.port), "--no-auth-warning",
                *(("-a", key) if key else ()), *arguments,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(process.communicate(), 30)
            return out.decode().strip()

        key = made.world.key.secret
        assert await cli("SET", "hello", "world", key=key) == "OK"
        assert await cli("-3", "GET", "hello", key=key) == '"world"' or await cli("GET", "hello", key=key) == "world"
        assert "NOAUTH" in await cli("GET", "hello")
        assert await cli("--scan", key=key) == "hello"
        assert "unknown command" in await cli("FLUSHALL", key=key)


async def test_run_as_a_program() -> None:
    """Started as a program it prints keys and ready lines, and serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / "resp_server.py"), cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 30)).decode() for _ in range(3)]
        secret, port = lines[0].split()[2], int(lines[1].split(" -p ")[1].split()[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(command(b"AUTH", secret.encode()))
        assert await reader.readline() == b"+OK\r\n"
        writer.close()
    finally:
        process.terminate()
        await process.wait()
