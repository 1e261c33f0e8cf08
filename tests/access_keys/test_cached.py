"""What the engine does beside its contract: bounds, background work, threads, and what went wrong elsewhere."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from hivetenancy.access_keys.cached import GATHER_S, CachedAccessKeys, Freshness
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.format import digest
from hivetenancy.access_keys.permissions import MCP
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.ids import Effect, Environment, KeyId, Permission, Surface, TenantId
from hivetenancy.testing.contracts.access_keys import World, seconds, settle
from tests.access_keys.engines import make, no_pause
from tests.hub.virtual_loop import VirtualLoop
from tests.tiers import examples

pytestmark = pytest.mark.anyio
READ, ADMIN = Effect.READ, Effect.ADMIN


def built(world: World, **options: Any) -> CachedAccessKeys:
    """An engine with a feed, and *options*."""
    feed = Feed(world.hub, clock=world.clock)
    return CachedAccessKeys(world.hub, feed=feed, functions=world.functions, clock=world.clock, **options)


async def known(engine: CachedAccessKeys, world: World, count: int) -> list[bytes]:
    """That many keys, looked up."""
    secrets = [world.hub.issue(tenant=f"tenant-{number}") for number in range(count)]
    for secret in secrets:
        assert isinstance(await engine.validate(secret, effect=READ), Principal)
    return secrets


# --- what went wrong elsewhere ---------------------------------------------------------------------------------------


async def test_d01_any_well_formed_key_was_a_tenant() -> None:
    """A thousand random keys of the right shape are no tenant, get no rights and fill no cache of tenants."""
    world = World()
    engine = make(world)
    for number in range(1000):
        answer = await engine.validate(b"hh_live_%032d" % (number + 10_000), effect=READ)
        assert isinstance(answer, Refusal)
        assert (answer.reason, answer.tenant) == (Reason.UNKNOWN_KEY, None)
    assert len(engine) == 0


async def test_d14_caches_grew_past_their_maximum_and_stampeded() -> None:
    """The cache never holds more than its maximum, and an expired entry costs one look-up however many ask."""
    world = World()
    engine = built(world, max_keys=10, max_negative=10)
    secrets = await known(engine, world, 40)
    assert len(engine) <= 10
    for number in range(40):
        await engine.validate(b"hh_live_forged_%032d" % number, effect=READ)
    assert len(engine._negative) <= 10
    world.clock.advance(31)
    asked = world.hub.asked
    world.hub.hold = True
    herd = [asyncio.ensure_future(engine.validate(secrets[-1], effect=READ)) for _ in range(50)]
    await settle()
    world.hub.held[0].release()
    assert len({id(answer) for answer in await asyncio.gather(*herd)}) == 1
    assert world.hub.asked == asked + 1


async def test_d37_a_check_hashed_against_every_stored_key() -> None:
    """A hit is one look-up: no question, no write, the same object, with one key known or a hundred."""
    world = World()
    engine = make(world)
    for secret in await known(engine, world, 100):
        before = dict(engine._entries)
        asked = world.hub.asked
        assert engine.try_validate(secret, effect=READ) is engine.try_validate(secret, effect=READ)
        assert engine._entries == before
        assert world.hub.asked == asked


async def test_d40_an_outage_was_reported_as_an_invalid_key() -> None:
    """While the hub is away no key is called wrong, right or forged: the answer is "cannot tell"."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    world.hub.down = True
    for credential in (secret, b"hh_live_" + b"f" * 32):
        for _ in range(3):
            with pytest.raises(HubUnavailableError) as caught:
                await engine.validate(credential, effect=READ)
            assert caught.value.retry_after_us
            world.clock.advance(1)
    assert len(engine._negative) == 0


async def test_d43_the_plaintext_key_was_the_cache_key(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the engine's own attributes, nor a foreign exception that quotes the key, tell it to anybody."""
    world = World()
    engine, canary = make(world), b"hh_live_canary_" + b"5" * 30
    world.hub.issue(secret=canary)
    world.hub.nonsense = RuntimeError(f"cannot parse {canary!r}")
    with caplog.at_level(logging.DEBUG), pytest.raises(HubUnavailableError) as caught:
        await engine.validate(canary, effect=READ)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "canary" not in caplog.text + str(caught.value)
    world.hub.nonsense = None
    world.clock.advance(1)
    await engine.validate(canary, effect=READ)
    assert all("canary" not in repr(value) for value in vars(engine).values())


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_those_asked_about_longest_ago_give_way() -> None:
    """A key that is refreshed outlives those that came after it and were not."""
    world = World()
    engine = built(world, max_keys=8)
    secrets = await known(engine, world, 8)
    world.clock.advance(25)
    assert isinstance(engine.try_validate(secrets[0], effect=READ), Principal)
    await settle()
    await known(engine, world, 4)
    assert isinstance(engine.try_validate(secrets[0], effect=READ), Principal)
    assert engine.try_validate(secrets[1], effect=READ) is None


async def test_look_ups_are_bounded() -> None:
    """So many are under way, so many wait, and beyond that it cannot be told. Known keys do not notice."""
    world = World()
    engine = built(world, max_flights=2, max_waiting=1)
    [good] = await known(engine, world, 1)
    world.hub.hold = True
    waiting = [asyncio.ensure_future(engine.validate(world.hub.issue(), effect=READ)) for _ in range(3)]
    await settle()
    with pytest.raises(HubUnavailableError, match="too many"):
        await engine.validate(world.hub.issue(), effect=READ)
    assert isinstance(engine.try_validate(good, effect=READ), Principal)
    world.hub.hold = False
    for reply in world.hub.held:
        reply.release()
    assert all(isinstance(answer, Principal) for answer in await asyncio.gather(*waiting))
    assert engine._flights == {}


async def test_more_keys_than_look_ups_wait_for_their_turn() -> None:
    """A thousand tenants that come at once after a restart are all served, and the hub never sees more than a few."""
    world = World()
    engine = built(world, max_flights=8)
    secrets, at_once, most = [world.hub.issue() for _ in range(1_000)], 0, 0
    real = world.hub.introspect

    async def counted(*args: object, **kwargs: object) -> object:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        try:
            return await real(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            at_once -= 1

    world.hub.introspect = counted  # type: ignore[method-assign, assignment]
    answers = await asyncio.gather(*(engine.validate(secret, effect=READ) for secret in secrets))
    assert all(isinstance(answer, Principal) for answer in answers)
    assert most == 8
    assert engine._flights == {}


async def test_a_flood_of_unknown_keys_is_no_sign_of_an_outage() -> None:
    """Whoever waits for a turn in vain hears that it cannot be told; nothing is served stale because of it."""
    world = World()
    engine = built(world, max_flights=1)
    [good] = await known(engine, world, 1)
    world.clock.advance(31)
    world.hub.hold = True
    first = asyncio.ensure_future(engine.validate(world.hub.issue(), effect=READ))
    await settle()
    turn = engine._turns[asyncio.get_running_loop()]
    assert turn.locked()
    second = engine._look_up(digest(b"x" * 20), b"x" * 20)
    with pytest.raises(HubUnavailableError, match="too many"):
        engine._deadline, deadline = 0.0, engine._deadline
        await second
    engine._deadline = deadline
    assert engine._failed_us is None
    assert engine.try_validate(good, effect=READ) is None
    for reply in world.hub.held:
        reply.release()
    assert isinstance(await first, Principal)


async def test_a_look_up_has_a_deadline() -> None:
    """A hub that never answers is given up, and counts as away."""
    world = World()
    engine = built(world, deadline_us=10_000)
    world.hub.hold = True
    with pytest.raises(HubUnavailableError):
        await engine.validate(world.hub.issue(), effect=READ)
    assert engine._flights == {}


@pytest.mark.parametrize(
    "options",
    [
        {"max_keys": 0},
        {"max_negative": 0},
        {"max_flights": 0},
        {"deadline_us": 0},
        {"deadline_us": seconds(5)},
    ],
)
def test_sizes_are_checked(options: dict[str, int]) -> None:
    """A size that makes no sense is refused when the engine is built, by its name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        built(World(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"admin_us": 0},
        {"admin_us": seconds(31)},
        {"negative_us": seconds(6)},
        {"negative_us": 0},
        {"stale_read_us": -1},
        {"refresh_percent": 0},
        {"refresh_percent": 101},
    ],
)
def test_windows_are_checked(options: dict[str, int]) -> None:
    """So is a window."""
    with pytest.raises(ConfigurationError):
        Freshness(**options)


def test_the_bound_is_printed() -> None:
    """The three bounds of revocation are said in words, from the numbers in force."""
    assert "hub dead: 30 s and 300 s for reads, 60 s for writes" in Freshness().bound()
    assert "hub dead: 30 s and 0 s for reads" in Freshness(stale_read_us=0).bound()


async def test_an_allowance_of_zero_is_none() -> None:
    """Each allowance can be switched off."""
    world = World()
    engine = built(world, freshness=Freshness(stale_read_us=0))
    [secret] = await known(engine, world, 1)
    world.hub.down = True
    world.clock.advance(30)
    with pytest.raises(HubUnavailableError):
        await engine.validate(secret, effect=READ)
    principal = await engine.validate(secret, effect=Effect.WRITE)
    assert isinstance(principal, Principal)
    assert principal.stale


# --- resets, refreshing, forgetting ----------------------------------------------------------------------------------


async def test_a_reset_verifies_by_batch_and_stops_nobody() -> None:
    """After a reset keys go on, are asked about by digest in batches spread over the time, and count anew."""
    world = World()
    pauses: list[float] = []

    async def pause(length: float) -> None:
        pauses.append(length)
        await asyncio.sleep(0)

    engine = built(world, sleep=pause)
    secrets = await known(engine, world, 30)
    world.hub.delay_events = True
    world.hub.revoke(secrets[3])
    world.hub.forget_history()
    asked = world.hub.asked
    assert isinstance(engine.try_validate(secrets[0], effect=READ), Principal)
    await settle()
    assert world.hub.batches == [30]
    assert sum(pauses) <= world.hub.spread_seconds
    world.clock.advance(world.hub.spread_seconds)
    for secret in secrets:
        answer = engine.try_validate(secret, effect=READ)
        assert isinstance(answer, Principal) is (secret is not secrets[3])
    assert world.hub.asked == asked


async def test_a_new_epoch_may_count_from_below() -> None:
    """Revisions of another epoch are not compared: a hub that begins again at a small number is believed."""
    world = World()
    engine = built(world, sleep=no_pause)
    [secret] = await known(engine, world, 1)
    world.hub.revision = 0
    world.hub._history = {name: [(0, state) for _, state in states] for name, states in world.hub._history.items()}
    world.hub.forget_history()
    await settle()
    world.clock.advance(world.hub.spread_seconds)
    principal = engine.try_validate(secret, effect=READ)
    assert isinstance(principal, Principal)
    assert principal.generation == 1


async def test_two_resets_give_no_more_time() -> None:
    """What was known before the first keeps its deadline over the second."""
    world = World()
    engine = built(world, sleep=lambda _: asyncio.Event().wait())  # nothing is verified in the background
    [secret] = await known(engine, world, 1)
    world.hub.forget_history()
    world.clock.advance(6)
    world.hub.forget_history()
    world.clock.advance(us=seconds(4) - 1)
    assert isinstance(engine.try_validate(secret, effect=READ), Principal)
    world.clock.advance(us=1)
    assert engine.try_validate(secret, effect=READ) is None
    assert len(engine) == 0
    assert engine._by_key._digests == {}
    await engine.aclose()


async def test_a_crowd_is_refreshed_together() -> None:
    """Keys that fall due in one turn of the loop are asked about in one batch."""
    world = World()
    engine = make(world)
    secrets = await known(engine, world, 20)
    world.clock.advance(25)
    for secret in secrets:
        assert isinstance(engine.try_validate(secret, effect=READ), Principal)
    await settle()
    assert world.hub.batches == [20]


async def test_an_outage_is_watched_in_the_background() -> None:
    """While somebody uses stale keys the hub is asked again by itself, and its return is noticed without a wait."""
    world = World()
    engine = built(world, sleep=no_pause)
    [secret] = await known(engine, world, 1)
    world.hub.down = True
    world.clock.advance(40)
    stale = await engine.validate(secret, effect=READ)
    assert isinstance(stale, Principal)
    assert stale.stale
    world.hub.down = False
    await settle()
    fresh = engine.try_validate(secret, effect=READ)
    assert isinstance(fresh, Principal)
    assert not fresh.stale
    assert engine._refresher is None or engine._refresher.done()


@pytest.mark.parametrize("what", ["key", "tenant", "all"])
async def test_forget(what: str) -> None:
    """What is forgotten is looked up again before it counts, also if its look-up was under way; the rest stays."""
    world = World()
    engine = make(world)
    first, second = await known(engine, world, 2)
    terms: dict[str, dict[str, Any]] = {
        "key": {"key_id": world.hub.key_id(first)},
        "tenant": {"tenant_id": TenantId("tenant-0")},
        "all": {},
    }
    engine.forget(**terms[what])
    assert engine.try_validate(first, effect=READ) is None
    assert (engine.try_validate(second, effect=READ) is None) == (what == "all")
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(first, effect=READ))
    await settle()
    engine.forget(**terms[what])
    world.hub.hold = False
    asked = world.hub.asked
    world.hub.held[0].release()
    assert isinstance(await asking, Principal)
    assert world.hub.asked == asked + 1


async def test_without_a_feed_age_and_epochs_count() -> None:
    """An engine alone trusts an answer for its window, admin for 5 s, and begins anew with a larger epoch."""
    world = World()
    engine = CachedAccessKeys(world.hub, functions=world.functions, clock=world.clock)
    first, second = await known(engine, world, 2)
    world.hub.revoke(first)
    assert isinstance(engine.try_validate(first, effect=READ), Principal)
    world.clock.advance(5)
    assert engine.try_validate(first, effect=ADMIN) is None
    world.hub.epoch += 1
    world.hub.revision += 1
    await known(engine, world, 1)
    world.clock.advance(2)
    await settle()
    assert not isinstance(engine.try_validate(first, effect=READ), Principal)
    assert isinstance(await engine.validate(second, effect=READ), Principal)


async def test_a_host_may_confine_a_key() -> None:
    """A preset of the host's own rule takes away and never adds."""
    world = World()
    engine = built(world, confine=lambda record: MCP if record.tenant_id == "agents" else None)
    agent = await engine.validate(world.hub.issue(tenant="agents", permissions=["admin"]), effect=READ)
    reader = await engine.validate(world.hub.issue(tenant="agents", permissions=["read"]), effect=READ)
    person = await engine.validate(world.hub.issue(permissions=["admin"]), effect=READ)
    assert isinstance(agent, Principal)
    assert isinstance(reader, Principal)
    assert isinstance(person, Principal)
    assert agent.permissions == {Permission.READ, Permission.WRITE}
    assert agent.surfaces == {Surface.MCP}
    assert reader.permissions == {Permission.READ}
    assert person.surfaces is None
    assert agent.mask.bit_count() == 2


async def test_a_restriction_is_logged_once_by_key_id(caplog: pytest.LogCaptureFixture) -> None:
    """The operator hears which key cannot be honoured here, once."""
    world = World()
    engine, secret = make(world), world.hub.issue(networks=("10.0.0.0/8",))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await engine.validate(secret, effect=READ)
            world.clock.advance(6)
    assert [record.getMessage() for record in caplog.records] == [
        f"access key {world.hub.key_id(secret)} is confined in a way that cannot be enforced here (networks): refused"
    ]


async def test_environments_are_told_apart_only_when_asked() -> None:
    """An engine for any environment takes both."""
    world = World()
    engine = built(world)
    answer = await engine.validate(world.hub.issue(environment=Environment.TEST), effect=READ)
    assert isinstance(answer, Principal)
    assert answer.environment is Environment.TEST


async def test_stopping_ends_what_is_under_way() -> None:
    """Whoever waits for a look-up when the engine stops hears that it cannot be told."""
    world = World()
    engine = make(world)
    owner = asyncio.ensure_future(engine.run())
    world.hub.hold = True
    waiting = asyncio.ensure_future(engine.validate(world.hub.issue(), effect=READ))
    await settle()
    owner.cancel()
    await asyncio.wait([owner])
    with pytest.raises(HubUnavailableError, match="stopped"):
        await waiting
    await engine.aclose()
    world.hub.revoke(world.hub.issue())


# --- threads ---------------------------------------------------------------------------------------------------------


def test_a_race_of_threads_accepts_nothing_revoked() -> None:
    """Threads validate while others revoke: once a revocation has returned, no thread is told yes."""
    world = World()
    feed = Feed(world.hub, clock=world.clock)
    engine = CachedAccessKeys(world.hub, feed=feed, functions=world.functions, clock=world.clock)
    secrets = [world.hub.issue(tenant=f"tenant-{number % 7}") for number in range(examples(60, 1000))]

    async def fill() -> None:
        for secret in secrets:
            await engine.validate(secret, effect=READ)

    asyncio.run(fill())
    revoked: set[bytes] = set()
    wrong: list[object] = []
    over = threading.Event()

    def validate(start: int) -> None:
        at = start
        while not over.is_set():
            secret = secrets[at % len(secrets)]
            was_revoked = secret in revoked
            try:
                answer = engine.try_validate(secret, effect=READ)
            except Exception as error:
                wrong.append(error)
                return
            if was_revoked and isinstance(answer, Principal):
                wrong.append(secret)
            at += 7

    threads = [threading.Thread(target=validate, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for secret in secrets[::2]:
        world.hub.revoke(secret)
        revoked.add(secret)
    engine.forget(key_id=KeyId("no such key"))
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(engine) == len(secrets) // 2
    assert engine.try_validate(secrets[1], effect=READ) is not None


def test_threads_with_loops_of_their_own() -> None:
    """Each loop shares its own look-ups; nothing is awaited across loops."""
    world = World()
    engine = make(world)
    secret = world.hub.issue()
    answers: list[Any] = []

    def ask() -> None:
        answers.append(asyncio.run(engine.validate(secret, effect=READ)))

    asyncio.run(engine.validate(world.hub.issue(), effect=READ))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(isinstance(answer, Principal) for answer in answers)


def test_an_engine_is_for_a_registry() -> None:
    """Its repr counts, and tells nothing else."""
    world = World()
    engine = CachedAccessKeys(world.hub, functions=FunctionRegistry(), clock=world.clock)
    assert repr(engine) == "CachedAccessKeys(0 keys, 0 look-ups)"


def test_keys_that_come_due_one_after_the_other_go_together() -> None:
    """After a refresh the next one waits for others to go along: 20 keys over two seconds are two questions."""
    world, batches = World(), list[int]()
    loop, ask = VirtualLoop(world.clock), world.hub.introspect_batch

    async def counted(digests: Any, **options: Any) -> Any:
        batches.append(len(digests))
        return await ask(digests, **options)

    world.hub.introspect_batch = counted  # type: ignore[method-assign]
    try:
        engine = built(world)
        secrets = [world.hub.issue() for _ in range(20)]
        for secret in secrets:
            loop.create_task(engine.validate(secret, effect=READ))
        loop.advance(21.5)
        for secret in secrets:
            loop.call_soon(lambda each=secret: engine.try_validate(each, effect=READ))
            loop.advance(GATHER_S / 25)
        loop.advance(GATHER_S)
        assert batches == [1, 19]
        loop.run_until_complete(engine.aclose())
    finally:
        loop.close()


async def test_what_an_earlier_process_knew_is_verified_and_forgotten_if_it_is_dead() -> None:
    """A live key is kept again; a revoked one is struck off for good, or each restart would ask about it for ever."""
    world, told = World(), dict[bytes, bool]()
    good, dead = (digest(secret) for secret in (world.hub.issue(), revoked(world)))
    engine = built(world, kept=told.__setitem__)
    engine.recall([good, dead])
    assert engine.recalled == 2
    await engine._verify_recalled()
    assert told == {good: True, dead: False}
    assert engine.recalled == 0
    assert len(engine) == 1


def revoked(world: World) -> bytes:
    """A key that was revoked."""
    secret = world.hub.issue()
    world.hub.revoke(secret)
    return secret
