"""A connection of a line protocol: who it is, what each command holds, how it ends."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from hivetenancy.adapters.streams import AnyConnection, Connection, StandaloneConnection, State, error_line
from hivetenancy.clock import MINUTE_US
from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import (
    DeniedError,
    ForbiddenError,
    HubUnavailableError,
    InvalidNameError,
    MissingTenantError,
    MisuseError,
    QuotaExceededError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
)
from hivetenancy.ids import Effect
from hivetenancy.namespaces.prefix import IdentityNamespaces
from hivetenancy.plans import Plan, RatePolicy
from hivetenancy.tenant import Tenant, current_tenant, standalone_tenant
from tests.adapters.world import World, plan
from tests.tiers import examples

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def world(tested: Plan | None = None) -> AsyncIterator[World]:
    """A running tenancy with three functions."""
    made = World(tested)
    functions = made.tenancy.functions
    functions.declare("kv.get", effect=Effect.READ)
    functions.declare("kv.set", effect=Effect.WRITE, demand={"operations": 1})
    functions.declare("kv.admin", effect=Effect.ADMIN)
    async with made.tenancy:
        yield made


class Peer:
    """A server's side of one connection; remembers why it was closed."""

    def __init__(self, made: World, **options: float) -> None:
        self.reasons: list[Reason] = []
        self.connection = Connection(made.tenancy, close=self.reasons.append, peer="a test", **options)


async def connected(made: World) -> Peer:
    peer = Peer(made)
    assert await peer.connection.authenticate(made.key.secret.encode()) is None
    return peer


async def settle() -> None:
    """Let callbacks and tasks that are ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_command_is_admitted_bound_and_settled() -> None:
    """Inside its block a command has its tenant; a clean exit commits what the function demands."""
    async with world() as made:
        peer = await connected(made)
        async with peer.connection.admit("kv.set") as tenant:
            assert current_tenant() is tenant
            assert tenant.id == made.tenant.id
            assert (await made.all_held())["operations"] == 1
        assert bound.get() is None
        assert await made.used("operations") == 1
        await peer.connection.aclose()
        assert await made.all_held() == {}


async def test_an_exception_releases_what_a_command_held() -> None:
    """A command that fails is not charged."""
    async with world() as made:
        peer = await connected(made)
        with pytest.raises(ZeroDivisionError):
            async with peer.connection.admit("kv.set"):
                raise ZeroDivisionError
        assert await made.used("operations") == 0
        await peer.connection.aclose()
        assert await made.all_held() == {}


async def test_d40_no_key_meant_unscoped_access() -> None:
    """Without a key nothing is admitted, whatever the command, and no tenant is bound."""
    async with world() as made:
        peer = Peer(made)
        for command in ("kv.get", "kv.set", "kv.admin", "no.such"):
            with pytest.raises(UnauthenticatedError):
                async with peer.connection.admit(command):
                    raise AssertionError("unreachable")
            with pytest.raises(MissingTenantError):
                current_tenant()
        with pytest.raises(UnauthenticatedError):
            await peer.connection.attempt()
        await peer.connection.aclose()


async def test_d38_nothing_was_connected() -> None:
    """One command through one connection meets every check: key, rate, permission, quota, and usage is reported."""
    tested = plan(RatePolicy(limit=4, period_us=MINUTE_US, burst=4, name="burst"), operations=1)
    async with world(tested) as made:
        peer = Peer(made)
        assert await peer.connection.authenticate(b"hh_test_made_up_and_never_issued") is not None
        assert await peer.connection.authenticate(made.key.secret.encode()) is None
        async with peer.connection.admit("kv.set"):
            pass
        with pytest.raises(QuotaExceededError):
            async with peer.connection.admit("kv.set"):
                pass
        with pytest.raises(ForbiddenError):
            async with peer.connection.admit("kv.admin"):
                pass
        async with peer.connection.admit("kv.get"):
            pass
        with pytest.raises(RateLimitedError):
            async with peer.connection.admit("kv.get"):
                pass
        await peer.connection.aclose()
        await made.tenancy.flush()
        assert made.tenant.used("operations") == 1


async def test_d16_hub_failure_silently_single_tenant() -> None:
    """A hub that cannot be reached admits nobody new and turns nobody into the one owner of everything."""
    async with world() as made:
        made.hub.down = True
        peer = Peer(made)
        with pytest.raises(UnavailableError):
            await peer.connection.authenticate(made.key.secret.encode())
        assert peer.connection.state is State.UNAUTHENTICATED
        with pytest.raises(UnauthenticatedError):
            async with peer.connection.admit("kv.get"):
                pass
        made.hub.down = False
        await peer.connection.aclose()


async def test_d16_a_tenancy_that_is_not_running_serves_nothing() -> None:
    """Before the start and after the stop there is no connection to be had, hub or no hub."""
    made = World()
    with pytest.raises(MisuseError, match="not running"):
        Connection(made.tenancy, close=lambda reason: None)
    async with made.tenancy:
        pass
    with pytest.raises(MisuseError, match="not running"):
        Connection(made.tenancy, close=lambda reason: None)


@pytest.mark.parametrize(
    ("credential", "reason"),
    [
        (b"", Reason.NO_CREDENTIAL),
        (b"short", Reason.MALFORMED_CREDENTIAL),
        (b"x" * 10_000, Reason.MALFORMED_CREDENTIAL),
        ("ключ-ключ-ключ-ключ".encode(), Reason.MALFORMED_CREDENTIAL),
        (b"0123456789abcdef\r\n", Reason.MALFORMED_CREDENTIAL),
        (b" 0123456789abcdef", Reason.MALFORMED_CREDENTIAL),
        (b"\x000123456789abcdef", Reason.MALFORMED_CREDENTIAL),
        (b"0123456789abcdef", Reason.UNKNOWN_KEY),
    ],
)
async def test_bad_keys(credential: bytes, reason: Reason) -> None:
    """Whatever is no key is refused, and the connection stays without one."""
    async with world() as made:
        async with Peer(made).connection as connection:
            refusal = await connection.authenticate(credential)
            assert refusal is not None
            assert refusal.reason is reason
            assert connection.state is State.UNAUTHENTICATED
        assert await made.all_held() == {}


async def test_an_unknown_function_is_refused_and_paid_for() -> None:
    """A command for which no function was declared is nobody's, and takes a unit."""
    tested = plan(RatePolicy(limit=2, period_us=MINUTE_US, burst=2, name="burst"))
    async with world(tested) as made:
        peer = await connected(made)
        for _ in range(2):
            with pytest.raises(ForbiddenError, match=r"no\.such"):
                async with peer.connection.admit("no.such"):
                    pass
        with pytest.raises(RateLimitedError):
            await peer.connection.attempt()
        await peer.connection.aclose()


async def test_revocation_closes_an_idle_connection() -> None:
    """A revoked key ends its silent connections, and only those."""
    async with world() as made:
        mine, also = await connected(made), await connected(made)
        other = Peer(made)
        assert await other.connection.authenticate(
            made.other.issue_key(permissions=["read"]).secret.encode()
        ) is None  # fmt: skip
        made.key.revoke()
        await settle()
        assert mine.reasons == also.reasons == [Reason.REVOKED_KEY]
        assert mine.connection.state is State.CLOSING
        assert mine.connection.closed_for is Reason.REVOKED_KEY
        assert other.connection.state is State.AUTHENTICATED
        with pytest.raises(UnauthenticatedError):
            async with mine.connection.admit("kv.get"):
                pass
        for peer in (mine, also, other):
            await peer.connection.aclose()
        assert len(made.tenancy.connections) == 0


async def test_suspension_closes_an_idle_connection() -> None:
    """A suspended tenant loses its open connections."""
    async with world() as made:
        peer = await connected(made)
        made.tenant.suspend()
        await settle()
        assert peer.reasons == [Reason.SUSPENDED_TENANT]
        await peer.connection.aclose()


async def test_expiry_closes_an_idle_connection() -> None:
    """A key that ends takes its connections with it, at its end on the monotonic clock."""
    async with world() as made:
        key = made.tenant.issue_key(permissions=["read"], expires_in=60)
        peer = Peer(made)
        assert await peer.connection.authenticate(key.secret.encode()) is None
        made.clock.advance(59)
        made.tenancy.connections.close_due(made.clock.now())
        assert peer.reasons == []
        made.clock.advance(2)
        made.tenancy.connections.close_due(made.clock.now())
        assert peer.reasons == [Reason.EXPIRED_KEY]
        await peer.connection.aclose()


async def test_a_key_that_ended_is_noticed_by_the_next_command_too() -> None:
    """Reads are re-checked as well: the connection is old, and is closed once the reply had its turn."""
    async with world() as made:
        key = made.tenant.issue_key(permissions=["read"], expires_in=60)
        peer = Peer(made)
        assert await peer.connection.authenticate(key.secret.encode()) is None
        made.clock.advance(61)
        with pytest.raises(UnauthenticatedError):
            async with peer.connection.admit("kv.get"):
                pass
        assert peer.reasons == []  # the server has not had its turn yet
        assert peer.connection.state is State.CLOSING
        await settle()
        assert peer.reasons == [Reason.EXPIRED_KEY]
        assert await made.all_held() == {}


async def test_connections_are_counted_and_given_back() -> None:
    """Each connection holds one of the tenant's; closing frees it, twice closing frees it once."""
    async with world(plan(connections=2)) as made:
        first, second, third = await connected(made), await connected(made), Peer(made)
        refusal = await third.connection.authenticate(made.key.secret.encode())
        assert refusal is not None
        assert refusal.reason is Reason.QUOTA_EXCEEDED
        assert len(made.tenancy.connections) == 2
        await first.connection.aclose()
        await first.connection.aclose()
        assert await third.connection.authenticate(made.key.secret.encode()) is None
        assert (await made.all_held())["connections"] == 2
        for peer in (second, third):
            await peer.connection.aclose()
        assert await made.all_held() == {}


async def test_another_key_takes_over_and_holds_once() -> None:
    """A second AUTH acts for the second key; the same tenant's connection is not counted twice."""
    async with world(plan(connections=1)) as made:
        peer = await connected(made)
        assert await peer.connection.authenticate(made.key.secret.encode()) is None
        assert (await made.all_held()) == {"connections": 1, "registered": 1}
        other = made.other.issue_key(permissions=["read"])
        assert await peer.connection.authenticate(other.secret.encode()) is None
        async with peer.connection.admit("kv.get") as tenant:
            assert tenant.id == made.other.id
        assert await peer.connection.authenticate(b"wrong-wrong-wrong-wrong") is not None
        async with peer.connection.admit("kv.get") as tenant:
            assert tenant.id == made.other.id  # a refused key changes nothing
        assert "connections" not in await made.all_held()
        await peer.connection.aclose()
        assert await made.all_held() == {}


async def test_the_deadline_of_authentication() -> None:
    """Who shows no key in time is closed; who does is left alone."""
    async with world() as made:
        await (await connected(made)).connection.aclose()  # from here on the key is known, and nothing is waited for
        late, early = Peer(made, auth_timeout=0), Peer(made, auth_timeout=0)
        assert await early.connection.authenticate(made.key.secret.encode()) is None
        await asyncio.sleep(0.01)
        assert late.reasons == [Reason.NO_CREDENTIAL]
        assert early.reasons == []
        refusal = await late.connection.authenticate(made.key.secret.encode())
        assert refusal is not None
        await early.connection.aclose()


async def test_a_revocation_while_it_waits_for_its_turn() -> None:
    """A connection whose key goes while it is being authenticated never comes to be."""
    async with world() as made:
        peer = Peer(made)
        with made.hub.hold("introspect") as held:
            pending = asyncio.create_task(peer.connection.authenticate(made.key.secret.encode()))
            await settle()
            made.key.revoke()
            await settle()
            held.release()
        refusal = await pending
        assert refusal is not None
        assert refusal.reason is Reason.REVOKED_KEY
        await peer.connection.aclose()


async def test_a_dropped_connection_warns_and_frees() -> None:
    """A server that forgets `aclose` is told, and what the connection held comes back."""
    async with world() as made:
        peers = [await connected(made)]
        with pytest.warns(ResourceWarning, match="never closed"):
            peers.clear()
        await settle()
        assert await made.all_held() == {}


async def test_the_context_is_bound_per_command_even_when_they_overlap() -> None:
    """Commands of one connection that run at the same time each see their own block, and leave none behind."""
    async with world() as made:
        peer = await connected(made)
        order = asyncio.Event()

        async def one() -> Tenant:
            async with peer.connection.admit("kv.get") as tenant:
                await order.wait()
                assert current_tenant() is tenant
            assert bound.get() is None
            return tenant

        tasks = [asyncio.create_task(one()) for _ in range(5)]
        await settle()
        order.set()
        assert len(set(map(id, await asyncio.gather(*tasks)))) == 1
        await peer.connection.aclose()


async def test_a_block_is_for_one_command() -> None:
    """Entering a block that is open is a mistake, not a second command."""
    async with world() as made:
        peer = await connected(made)
        block = peer.connection.admit("kv.set")
        async with block:
            with pytest.raises(MisuseError):
                await block.__aenter__()
        await peer.connection.aclose()
        assert await made.all_held() == {}


async def test_a27_a_command_is_admitted_around_no_yield() -> None:
    """The block binds its tenant, so in an async generator it is refused; nothing is held then."""
    async with world() as made:
        peer = await connected(made)

        async def items() -> AsyncIterator[None]:
            async with peer.connection.admit("kv.get"):
                yield

        async def stacked() -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(peer.connection.admit("kv.get"))
                yield

        for generator in (items, stacked):
            with pytest.raises(MisuseError, match="around a yield"):
                await anext(generator())


async def storm(made: World, seed: int, rounds: int, leave: bool = False) -> dict[str, int]:
    """Run commands that fail, are cancelled and are refused, at random; return what is held after."""
    draw = random.Random(seed)

    async def one(connection: AnyConnection) -> None:
        name = draw.choice(("kv.get", "kv.set", "kv.set", "kv.admin", "no.such"))
        async with connection.admit(name) as tenant:
            if draw.random() < 0.5:
                async with tenant.charge(f"item{draw.randrange(8)}", storage_bytes=draw.randrange(100)):
                    await asyncio.sleep(0)
                    if draw.random() < 0.3:
                        raise ZeroDivisionError
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            if draw.random() < 0.2:
                raise draw.choice((ZeroDivisionError(), HubUnavailableError("x"), InvalidNameError("x")))

    done = 0
    while done < rounds:
        peer = await connected(made)
        for _ in range(10):
            tasks = [asyncio.create_task(one(peer.connection)) for _ in range(5)]
            for _ in range(draw.randrange(4)):
                await asyncio.sleep(0)
            for task in tasks:
                if draw.random() < 0.4:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            done += len(tasks)
        if leave:
            block = peer.connection.admit("kv.set")
            await block.__aenter__()
            bound.set(None)
            leave = False
            LEAKS.append(block)
        await peer.connection.aclose()
    return await made.all_held()


LEAKS: list[object] = []


@pytest.mark.deep
async def test_nothing_stays_held_after_random_cancellations_and_errors() -> None:
    """Whatever commands do, in the end nothing is held: no amount, no slot, no entry."""
    async with world() as made:
        assert await storm(made, random.randrange(2**32), examples(500, 20_000)) == {}


async def test_a_planted_leak_is_seen() -> None:
    """The storm's own check is no formality: one command that is never left shows."""
    async with world() as made:
        held = await storm(made, 1, 50, leave=True)
        assert held == {"operations": 1, "at-once": 1}
        block = LEAKS.pop()
        await block.__aexit__(None, None, None)  # type: ignore[attr-defined]
        assert await made.all_held() == {}


async def test_standalone_admits_everything() -> None:
    """The twin takes any key or none, binds the one owner, and counts nothing."""
    tenant = standalone_tenant(IdentityNamespaces())
    async with StandaloneConnection(tenant, close=lambda reason: None, peer="x") as connection:
        assert await connection.authenticate(b"") is None
        await connection.attempt()
        async with connection.admit("whatever") as here:
            assert here is tenant
            assert current_tenant() is tenant
            assert str(here.kv.key("a")) == "a"
        assert connection.state is State.AUTHENTICATED
    assert connection.state is State.CLOSING


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_refusal_has_a_line(reason: Reason) -> None:
    """Each refusal becomes one line of ASCII, whatever its numbers and names hold."""
    refusal = Refusal(
        reason=reason,
        function="kv.get",
        retry_after_us=1,
        dimension="storage_bytes",
        resource="a\r\n-ERR b\u2028é c",
        limit=1,
        used=2,
        held=3,
        requested=4,
    )
    line = error_line(refusal)
    assert line.isascii()
    assert line.isprintable()
    assert line.split(" ")[0] in {"ERR", "NOAUTH", "WRONGPASS", "NOPERM", "OOM", "RATELIMITED", "TRYAGAIN"}
    assert error_line(DeniedError.of(refusal)) == line


async def test_lines_of_note() -> None:
    """The lines that the documentation shows, and nothing of a foreign error's text."""
    assert error_line(Refusal(reason=Reason.NO_CREDENTIAL)) == "NOAUTH An access key is needed."
    assert error_line(Refusal(reason=Reason.REVOKED_KEY)) == error_line(Refusal(reason=Reason.UNKNOWN_KEY))
    limited = Refusal(reason=Reason.RATE_LIMITED, policy="burst", limit=10, retry_after_us=249_001)
    assert error_line(limited) == "RATELIMITED retry_after_ms=250 policy=burst limit=10 Too many requests."
    full = Refusal(reason=Reason.QUOTA_EXCEEDED, dimension="storage_bytes", limit=9, used=8, held=0, requested=2)
    assert error_line(full) == (
        "OOM dimension=storage_bytes limit=9 used=8 held=0 requested=2 The plan has no room for this."
    )
    assert error_line(HubUnavailableError("secret")).startswith("TRYAGAIN retry_after_ms=1000 ")
    assert error_line(InvalidNameError("secret")).startswith("ERR The name is")
    assert error_line(ZeroDivisionError("secret")) == "ERR The server failed."


async def test_no_warning_where_building_failed() -> None:
    """A connection that could not be built leaves nothing to warn about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MisuseError):
            Connection(World().tenancy, close=lambda reason: None)
        gc.collect()
