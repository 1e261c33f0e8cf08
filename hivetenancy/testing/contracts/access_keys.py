"""What every `AccessKeyValidator` over an `IntrospectionSource` must do.

The cases ask the questions that validators with a cache have got wrong: is a key that was revoked while it was looked
up accepted afterwards, does an outage look like a wrong key, does one forged key cost one look-up a request. They move
a scripted hub and a clock by hand; nothing waits for real time.

To run them against an engine of your own, say how it is built over a given hub and clock::

    def make(world: World) -> ImmediateValidator:
        return MyValidator(world.hub, functions=world.functions, clock=world.clock)

    @pytest.mark.anyio
    @pytest.mark.parametrize("case", CASES, ids=str)
    async def test_my_validator(case):
        await case(make)

The hub signals its changes (`SignalsChanges`): an engine must have applied a change when the call that made it returns.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from hivetenancy.access_keys import ImmediateValidator, Principal, Rechecks
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import HubContractError, UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.ids import Effect, Environment, KeyId, TenantId

from ..clock import ManualClock
from ._cases import Cases
from ._keyhub import ScriptedHub, seconds, settle

READ, WRITE, DELETE, ADMIN = Effect.READ, Effect.WRITE, Effect.DELETE, Effect.ADMIN


class World:
    """What an engine is built over: a scripted hub, a clock that is moved by hand, the functions of a host.

    Attributes:
        clock: The only time there is.
        hub: The source of keys and changes.
        functions: One function of each effect: ``kv.get``, ``kv.set``, ``kv.delete`` and ``kv.flush``.
        environment: The environment that the engine must confine itself to.
    """

    def __init__(self, *, skew_us: int = 0) -> None:
        self.clock = ManualClock()
        self.hub = ScriptedHub(self.clock, skew_us=skew_us)
        self.functions = FunctionRegistry()
        for name, effect in (("kv.get", READ), ("kv.set", WRITE), ("kv.delete", DELETE), ("kv.flush", ADMIN)):
            self.functions.declare(name, effect=effect)
        self.environment = Environment.LIVE


class Engine(ImmediateValidator, Rechecks, Protocol):
    """What the cases are for: a validator that answers from memory and can ask again about a principal."""


class Make(Protocol):
    """Builds the engine under test over *world*: windows as architecture decision 7 has them, keys of *environment*."""

    def __call__(self, world: World) -> Engine:
        """Return a new engine that has looked nothing up."""
        ...


Answer: TypeAlias = Principal | Refusal | None

CASES: Final[Cases[Make]] = Cases()
"""All cases, to be parametrized over."""


def allowed(answer: Answer) -> Principal:
    """Assert that *answer* is a principal."""
    assert isinstance(answer, Principal), f"expected to be accepted, got {answer!r}"
    return answer


def refused(answer: Answer, *reasons: Reason) -> Refusal:
    """Assert that *answer* is a refusal for one of *reasons*."""
    assert isinstance(answer, Refusal), f"expected to be refused, got {answer!r}"
    assert answer.reason in reasons, f"expected one of {reasons}, got {answer.reason!r}"
    return answer


async def unavailable(engine: Engine, secret: bytes, effect: Effect = READ) -> None:
    """Assert that *engine* says it cannot tell."""
    try:
        answer = await engine.validate(secret, effect=effect)
    except UnavailableError:
        return
    raise AssertionError(f"expected to hear that it cannot be told, got {answer!r}")


# --- who is accepted -------------------------------------------------------------------------------------------------


@CASES.add
async def a_key_of_the_hub_is_accepted(make: Make) -> None:
    """A key that the hub knows gives its tenant, its id and the mask of its functions, and is asked about once."""
    world = World()
    engine, secret = make(world), world.hub.issue(tenant="tenant-a", permissions=["read"])
    principal = allowed(await engine.validate(secret, effect=READ))
    assert (principal.tenant_id, principal.key_id) == (TenantId("tenant-a"), world.hub.key_id(secret))
    assert principal.mask == sum(1 << each.bit for each in world.functions if each.effect is READ)
    assert not principal.stale
    for _ in range(5):
        assert engine.try_validate(secret, effect=READ) is principal
    assert world.hub.asked == 1


@CASES.add
async def a_well_formed_key_is_nobody(make: Make) -> None:
    """A key that only looks right is refused, and gives no tenant."""
    world = World()
    refused(await make(world).validate(b"hh_live_" + b"x" * 32, effect=READ), Reason.UNKNOWN_KEY)


@CASES.add
async def malformed_keys_never_reach_the_hub(make: Make) -> None:
    """Empty, short, long, and anything but visible ASCII is refused without a question."""
    world = World()
    engine = make(world)
    for bad in (b"", b"x" * 15, b"x" * 513, b"x" * 100_000, b"k" * 20 + b" ", b"k" * 20 + b"\x00", b"\xe9" * 20):
        refused(await engine.validate(bad, effect=READ), Reason.MALFORMED_CREDENTIAL)
        refused(engine.try_validate(bad, effect=READ), Reason.MALFORMED_CREDENTIAL)
    assert world.hub.asked == 0


@CASES.add
async def keys_are_not_normalised(make: Make) -> None:
    """Another case of the same letters is another key."""
    world = World()
    engine, secret = make(world), world.hub.issue(secret=b"Hh_Live_AbCdEfGhIjKl")
    allowed(await engine.validate(secret, effect=READ))
    refused(await engine.validate(secret.lower(), effect=READ), Reason.UNKNOWN_KEY)


@CASES.add
async def permissions_are_what_the_key_says(make: Make) -> None:
    """No preset is assumed: write grants no read, an empty list nothing, a denial wins, a bad list nothing."""
    world = World()
    engine = make(world)
    bits = {each.name: each.bit for each in world.functions}

    async def names(**terms: object) -> set[str]:
        mask = allowed(await engine.validate(world.hub.issue(**terms), effect=READ)).mask  # type: ignore[arg-type]
        return {name for name, bit in bits.items() if mask >> bit & 1}

    assert await names(permissions=["write"]) == {"kv.set"}
    assert await names(permissions=["admin"]) == set(bits)
    assert await names(permissions=["read", "write", "delete"]) == set(bits) - {"kv.flush"}
    assert await names(functions=()) == set()
    assert await names(functions=("kv.*", "!kv.delete"), permissions=["read", "delete"]) == {"kv.get"}
    assert await names(functions=("kv.get", "KV.*")) == set()


@CASES.add
async def restrictions_that_cannot_be_enforced_refuse(make: Make) -> None:
    """A key that is confined to networks or resources is refused rather than accepted everywhere."""
    world = World()
    engine = make(world)
    for secret in (world.hub.issue(networks=("10.0.0.0/8",)), world.hub.issue(resources=("read:a/*",))):
        refused(await engine.validate(secret, effect=READ), Reason.UNSUPPORTED_RESTRICTION)


@CASES.add
async def the_other_environment_is_refused(make: Make) -> None:
    """A test key opens no live data."""
    world = World()
    secret = world.hub.issue(environment=Environment.TEST)
    refused(await make(world).validate(secret, effect=READ), Reason.WRONG_ENVIRONMENT)


# --- how long --------------------------------------------------------------------------------------------------------


@CASES.add
async def expiry_has_no_leeway(make: Make) -> None:
    """A key is accepted until the microsecond it ends, whatever our clock and the hub's say of each other."""
    for skew in (0, seconds(600), -seconds(600)):
        world = World(skew_us=skew)
        engine, secret = make(world), world.hub.issue(expires_in_us=seconds(7))
        allowed(await engine.validate(secret, effect=READ))
        world.clock.advance(us=seconds(7) - 1)
        allowed(await engine.validate(secret, effect=READ))
        world.clock.advance(us=1)
        assert not isinstance(engine.try_validate(secret, effect=READ), Principal)
        refused(await engine.validate(secret, effect=READ), Reason.EXPIRED_KEY)


@CASES.add
async def a_wall_clock_that_jumps_changes_nothing(make: Make) -> None:
    """Ages and ends are counted on the monotonic clock."""
    world = World()
    engine, secret = make(world), world.hub.issue(expires_in_us=seconds(20))
    allowed(await engine.validate(secret, effect=READ))
    world.clock.step_wall(us=-seconds(3600))
    world.clock.advance(us=seconds(20))
    assert not isinstance(engine.try_validate(secret, effect=READ), Principal)


@CASES.add
async def an_old_secret_ends_with_its_overlap(make: Make) -> None:
    """After a rotation both secrets count until the overlap ends, then only the new one."""
    world = World()
    engine, old = make(world), world.hub.issue()
    allowed(await engine.validate(old, effect=READ))
    new = world.hub.rotate(old, overlap_us=seconds(10))
    first, second = await engine.validate(old, effect=READ), await engine.validate(new, effect=READ)
    assert allowed(first).key_id == allowed(second).key_id
    world.clock.advance(10)
    refused(await engine.validate(old, effect=READ), Reason.EXPIRED_KEY)
    allowed(await engine.validate(new, effect=READ))


@CASES.add
async def age_counts_from_the_sending_of_the_question(make: Make) -> None:
    """Neither a slow answer nor use makes an entry younger: it ends 30 s after the question was sent."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    world.clock.advance(1.5)
    world.hub.held[0].release()
    allowed(await asking)
    world.hub.down = True
    world.hub.hold = False
    world.clock.advance(us=seconds(28.5) - 1)
    assert isinstance(engine.try_validate(secret, effect=READ), Principal)
    world.clock.advance(us=1)
    assert not isinstance(engine.try_validate(secret, effect=READ), Principal)


@CASES.add
async def an_idle_key_is_asked_about_again(make: Make) -> None:
    """A key that comes back after its window is looked up before it is accepted: silence of the feed is not trusted."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    allowed(await engine.validate(secret, effect=READ))
    world.hub.delay_events = True
    world.hub.revoke(secret)
    world.clock.advance(31)
    assert engine.try_validate(secret, effect=READ) is None
    refused(await engine.validate(secret, effect=READ), Reason.REVOKED_KEY)


@CASES.add
async def a_key_in_use_is_refreshed_ahead(make: Make) -> None:
    """Before its window ends a key in use is asked about in the background, and its caller does not wait."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    first = allowed(await engine.validate(secret, effect=READ))
    world.clock.advance(25)
    assert engine.try_validate(secret, effect=READ) is first
    await settle()
    world.clock.advance(20)
    allowed(engine.try_validate(secret, effect=READ))
    assert world.hub.asked == 1, "refreshing ahead needs no secret: it asks by digest"


@CASES.add
async def a_key_becomes_valid_in_time(make: Make) -> None:
    """No refusal outlives the moment from which the key is valid."""
    world = World()
    engine, secret = make(world), world.hub.issue(not_before_in_us=seconds(2))
    refused(await engine.validate(secret, effect=READ), Reason.KEY_NOT_YET_VALID)
    world.clock.advance(2)
    allowed(await engine.validate(secret, effect=READ))


# --- refusals that are kept ------------------------------------------------------------------------------------------


@CASES.add
async def one_forged_key_costs_one_question(make: Make) -> None:
    """The same wrong key is asked about once in 5 s, not with each request."""
    world = World()
    engine, forged = make(world), b"hh_live_" + b"f" * 32
    for _ in range(10):
        refused(await engine.validate(forged, effect=READ), Reason.UNKNOWN_KEY)
    assert world.hub.asked == 1
    world.clock.advance(5)
    refused(await engine.validate(forged, effect=READ), Reason.UNKNOWN_KEY)
    assert world.hub.asked == 2


@CASES.add
async def a_created_key_counts_at_once(make: Make) -> None:
    """The refusal of a key that did not exist falls the moment it is created; other refusals stay."""
    world = World()
    engine, secret, other = make(world), b"hh_live_" + b"n" * 32, b"hh_live_" + b"o" * 32
    refused(await engine.validate(secret, effect=READ), Reason.UNKNOWN_KEY)
    refused(await engine.validate(other, effect=READ), Reason.UNKNOWN_KEY)
    world.hub.issue(secret=secret)
    allowed(await engine.validate(secret, effect=READ))
    asked = world.hub.asked
    refused(await engine.validate(other, effect=READ), Reason.UNKNOWN_KEY)
    assert world.hub.asked == asked


@CASES.add
async def a_refusal_that_was_under_way_is_not_kept(make: Make) -> None:
    """An answer "unknown" that arrives after the key was created is not believed."""
    world = World()
    engine, secret = make(world), b"hh_live_" + b"n" * 32
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    world.hub.issue(secret=secret)
    world.hub.hold = False
    world.hub.held[0].release()
    allowed(await asking)


@CASES.add
async def forged_keys_evict_no_good_one(make: Make) -> None:
    """A flood of wrong keys lives in a room of its own."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    allowed(await engine.validate(secret, effect=READ))
    for number in range(300):
        refused(await engine.validate(b"hh_live_forged_%032d" % number, effect=READ), Reason.UNKNOWN_KEY)
    asked = world.hub.asked
    allowed(await engine.validate(secret, effect=READ))
    assert world.hub.asked == asked


# --- revocation ------------------------------------------------------------------------------------------------------


@CASES.add
async def a_revoked_key_is_refused_at_once(make: Make) -> None:
    """Once the revocation is announced, the key is not accepted any more, nor is its principal."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    principal = allowed(await engine.validate(secret, effect=READ))
    world.hub.revoke(secret)
    assert not isinstance(engine.try_validate(secret, effect=READ), Principal)
    assert not isinstance(engine.try_recheck(principal, effect=READ), Principal)
    refused(await engine.validate(secret, effect=READ), Reason.REVOKED_KEY)
    refused(await engine.recheck(principal, effect=READ), Reason.REVOKED_KEY)


@CASES.add
async def a_key_revoked_during_its_look_up_is_never_accepted(make: Make) -> None:
    """The answer was taken before the revocation and arrives after it."""
    world = World()
    engine, secret, other = make(world), world.hub.issue(), world.hub.issue(tenant="tenant-b")
    allowed(await engine.validate(other, effect=READ))
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    world.hub.revoke(secret)
    world.hub.hold = False
    world.hub.held[0].release()
    refused(await asking, Reason.REVOKED_KEY)
    refused(await engine.validate(secret, effect=READ), Reason.REVOKED_KEY)


@CASES.add
async def a_tenant_suspended_during_a_look_up_is_never_accepted(make: Make) -> None:
    """Likewise for the tenant, of which the engine may not even have heard before the answer."""
    world = World()
    engine, secret, other = make(world), world.hub.issue(), world.hub.issue(tenant="tenant-b")
    allowed(await engine.validate(other, effect=READ))
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    world.hub.suspend()
    world.hub.hold = False
    world.hub.held[0].release()
    refused(await asking, Reason.SUSPENDED_TENANT)


@CASES.add
async def the_feed_is_opened_before_the_first_question(make: Make) -> None:
    """A key that is revoked during the very first look-up is refused: changes are heard of from before it."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    world.hub.revoke(secret)
    world.hub.hold = False
    world.hub.held[0].release()
    refused(await asking, Reason.REVOKED_KEY)


@CASES.add
async def suspension_drops_every_key_of_the_tenant(make: Make) -> None:
    """All keys of a suspended tenant fall together, and nobody else's."""
    world = World()
    engine = make(world)
    mine, foreign = [world.hub.issue() for _ in range(3)], world.hub.issue(tenant="tenant-b")
    for secret in (*mine, foreign):
        allowed(await engine.validate(secret, effect=READ))
    world.hub.suspend()
    for secret in mine:
        assert not isinstance(engine.try_validate(secret, effect=READ), Principal)
        refused(await engine.validate(secret, effect=READ), Reason.SUSPENDED_TENANT)
    allowed(engine.try_validate(foreign, effect=READ))


@CASES.add
async def a_lagging_answer_is_asked_for_again(make: Make) -> None:
    """An answer from before a change that was announced is not used; the next question names the revision."""
    world = World()
    engine, secret = make(world), world.hub.issue(permissions=["read", "admin"])
    allowed(await engine.validate(secret, effect=READ))
    world.hub.change(secret, permissions=["read"])
    world.hub.lag = 1
    principal = allowed(await engine.validate(secret, effect=READ))
    assert principal.mask.bit_count() == 1, "the permission that was taken away is back"


@CASES.add
async def an_older_answer_never_replaces_a_newer_one(make: Make) -> None:
    """Two questions about one key: the one that saw the key alive arrives after the one that saw it revoked."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    principal = allowed(await engine.validate(secret, effect=READ))
    world.clock.advance(25)
    world.hub.hold = True
    allowed(engine.try_validate(secret, effect=READ))  # starts a refresh, whose answer is taken now
    await settle()
    assert len(world.hub.held) == 1
    world.clock.advance(6)
    world.hub.delay_events = True
    world.hub.revoke(secret)
    world.hub.hold = False
    refused(await engine.recheck(principal, effect=READ), Reason.REVOKED_KEY)
    world.hub.held[0].release()
    await settle()
    assert not isinstance(engine.try_validate(secret, effect=READ), Principal)


@CASES.add
async def a_reset_trusts_nothing_past_its_deadline(make: Make) -> None:
    """When the hub may have lost history, keys go on for the stated spread and are verified again before it ends."""
    for larger_epoch in (True, False):
        world = World()
        engine, secret = make(world), world.hub.issue()
        allowed(await engine.validate(secret, effect=READ))
        world.hub.delay_events = True
        world.hub.revoke(secret)  # the announcement is lost with the history
        world.hub.forget_history(larger_epoch=larger_epoch)
        world.hub.down = True  # nor can anybody ask
        world.clock.advance(world.hub.spread_seconds)
        answer: Answer = None
        try:
            answer = engine.try_validate(secret, effect=READ)
        except UnavailableError:
            continue
        assert not isinstance(answer, Principal)


@CASES.add
async def an_answer_from_before_a_reset_is_not_kept(make: Make) -> None:
    """A look-up that was under way when history was lost must not revive what the lost part took away."""
    world = World()
    engine, secret, other = make(world), world.hub.issue(), world.hub.issue(tenant="tenant-b")
    allowed(await engine.validate(other, effect=READ))
    world.hub.hold = True
    asking = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    world.hub.delay_events = True
    world.hub.revoke(secret)
    world.hub.forget_history(larger_epoch=False)
    world.hub.hold = False
    world.hub.held[0].release()
    refused(await asking, Reason.REVOKED_KEY)


# --- outages ---------------------------------------------------------------------------------------------------------


@CASES.add
async def an_outage_is_not_a_wrong_key(make: Make) -> None:
    """What cannot be told is said to be so, is not remembered as a refusal, and is asked again a second later."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    allowed(await engine.validate(world.hub.issue(), effect=READ))
    world.hub.down = True
    await unavailable(engine, secret)
    asked = world.hub.asked
    for _ in range(5):
        await unavailable(engine, secret)
        await unavailable(engine, b"hh_live_" + b"u" * 32)
    assert world.hub.asked == asked, "no look-up within a second of a failed one"
    world.hub.down = False
    world.clock.advance(1)
    allowed(await engine.validate(secret, effect=READ))


@CASES.add
async def known_keys_survive_an_outage_within_their_allowance(make: Make) -> None:
    """Reads go on for 300 s beyond the window, writes and deletes for 60 s, admin not at all; each is marked."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    allowed(await engine.validate(secret, effect=READ))
    world.hub.down = True
    world.clock.advance(us=seconds(30))
    for effect in (READ, WRITE, DELETE):
        assert allowed(await engine.validate(secret, effect=effect)).stale
    assert engine.try_validate(secret, effect=READ) is engine.try_validate(secret, effect=READ)
    await unavailable(engine, secret, ADMIN)
    world.clock.advance(us=seconds(60) - 1)
    allowed(await engine.validate(secret, effect=WRITE))
    world.clock.advance(us=1)
    await unavailable(engine, secret, WRITE)
    await unavailable(engine, secret, DELETE)
    allowed(await engine.validate(secret, effect=READ))
    world.clock.advance(us=seconds(240))
    await unavailable(engine, secret, READ)


@CASES.add
async def an_authoritative_no_ends_the_allowance(make: Make) -> None:
    """The allowance is for an outage: a hub that answers "revoked" is believed, also in the middle of one."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    allowed(await engine.validate(secret, effect=READ))
    world.hub.down = True
    world.clock.advance(31)
    allowed(await engine.validate(secret, effect=READ))
    world.hub.delay_events = True
    world.hub.revoke(secret)
    world.hub.down = False
    world.clock.advance(6)
    refused(await engine.validate(secret, effect=READ), Reason.REVOKED_KEY)
    world.hub.down = True
    world.clock.advance(1)
    refused(await engine.validate(secret, effect=READ), Reason.REVOKED_KEY)


@CASES.add
async def expiry_counts_during_an_outage(make: Make) -> None:
    """No allowance reaches past the key's own end."""
    world = World()
    engine, secret = make(world), world.hub.issue(expires_in_us=seconds(40))
    allowed(await engine.validate(secret, effect=READ))
    world.hub.down = True
    world.clock.advance(35)
    allowed(await engine.validate(secret, effect=READ))
    world.clock.advance(5)
    await unavailable(engine, secret)


@CASES.add
async def admin_needs_a_feed_that_is_heard(make: Make) -> None:
    """Without a word from the feed an admin call is verified within 5 s; reads are not."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    allowed(await engine.validate(secret, effect=ADMIN))
    world.clock.advance(us=seconds(6))
    world.hub.delay_events = True
    world.hub.revoke(secret)
    allowed(engine.try_validate(secret, effect=READ))
    refused(await engine.validate(secret, effect=ADMIN), Reason.REVOKED_KEY)


@CASES.add
async def nonsense_is_no_answer(make: Make) -> None:
    """A reply outside the wire accepts nobody, refuses nobody for good, and stops no other key."""
    world = World()
    engine, secret, other = make(world), world.hub.issue(), world.hub.issue()
    for fault in (HubContractError("outside the wire"), KeyError("user_id")):
        world.hub.nonsense = fault
        await unavailable(engine, secret)
        world.hub.nonsense = None
        allowed(await engine.validate(other, effect=READ))
        world.clock.advance(1)
        allowed(await engine.validate(secret, effect=READ))
        world.hub.change(secret, permissions=["read"])


# --- look-ups --------------------------------------------------------------------------------------------------------


@CASES.add
async def a_herd_asks_once(make: Make) -> None:
    """Any number of callers of one unknown key share one look-up."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    world.hub.hold = True
    callers = [asyncio.ensure_future(engine.validate(secret, effect=READ)) for _ in range(50)]
    await settle()
    world.hub.held[0].release()
    for answer in await asyncio.gather(*callers):
        allowed(answer)
    assert world.hub.asked == 1


@CASES.add
async def followers_outlive_the_leader(make: Make) -> None:
    """Cancelling whoever came first cancels nobody else, and asks nothing twice."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    world.hub.hold = True
    leader = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    follower = asyncio.ensure_future(engine.validate(secret, effect=READ))
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    world.hub.hold = False
    world.hub.held[0].release()
    allowed(await follower)
    assert world.hub.asked == 1


@CASES.add
async def a_recheck_needs_no_secret(make: Make) -> None:
    """A principal whose key is no longer in memory is looked up by its digest."""
    world = World()
    engine, secret = make(world), world.hub.issue()
    principal = allowed(await engine.validate(secret, effect=READ))
    world.clock.advance(40)
    assert engine.try_recheck(principal, effect=WRITE) is None
    again = allowed(await engine.recheck(principal, effect=WRITE))
    assert (again.key_id, again.digest) == (principal.key_id, principal.digest)
    assert world.hub.asked == 1


# --- secrets ---------------------------------------------------------------------------------------------------------


@CASES.add
async def no_secret_is_kept_or_told(make: Make) -> None:
    """After accepting, refusing and failing, no key is in the engine's memory, its repr, its errors or the log."""
    world = World()
    engine, canary = make(world), b"hh_live_canary_" + b"7" * 30
    forged, lost = canary[:-1] + b"8", canary[:-1] + b"9"
    world.hub.issue(secret=canary)
    with _logged() as records:
        principal = allowed(await engine.validate(canary, effect=READ))
        told = [repr(principal), repr(refused(await engine.validate(forged, effect=READ), Reason.UNKNOWN_KEY))]
        world.hub.down = True
        try:
            await engine.validate(lost, effect=READ)
        except UnavailableError as error:
            told += [repr(error), str(error), repr(error.__cause__), repr(error.__context__)]
    told += [repr(engine), *records]
    assert not [text for text in told if "canary" in text]
    assert not [kept for kept in _reachable(engine, beside=world) if b"canary" in kept]


@contextmanager
def _logged() -> Iterator[list[str]]:
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage() + repr(record.args) + repr(record.exc_info))

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def _reachable(engine: object, *, beside: World) -> Iterator[bytes]:
    """Yield all bytes and texts that can be reached from *engine* through data, the scripted hub left out."""
    seen, waiting = {id(beside), id(beside.hub), id(beside.hub.__dict__)}, [engine]
    # Classes, modules and functions lead everywhere, and a loop to the very test that holds the key it asked about.
    skipped = (type, type(gc), type(_reachable), asyncio.AbstractEventLoop)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, skipped):
            continue
        seen.add(id(found))
        if isinstance(found, bytes):
            yield found
        elif isinstance(found, str):
            yield found.encode("utf-8", "replace")
        else:
            waiting += gc.get_referents(found)


__all__ = ["CASES", "Engine", "KeyId", "Make", "ScriptedHub", "World", "seconds", "settle"]
