"""Limits of tenants from memory: fresh enough, fetched once, never an older word over a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace

import pytest

from hivetenancy.access_keys.feed import Feed
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubContractError, HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.limits import FRESH_US, GATHER_S, IDLE_US, PAUSE_US, STALE_US, CachedLimits, LimitsEntry, frozen
from hivetenancy.plans import Plan, QuotaKind, quota_limit
from hivetenancy.sources import LimitsAnswer, LimitsBatch, TenantLimits
from hivetenancy.testing import FakeHiveHub, ManualClock
from tests.hub.virtual_loop import VirtualLoop

pytestmark = pytest.mark.anyio


class World:
    """A hub, its feed, and a cache of limits that listens to it."""

    def __init__(self, kind: type[CachedLimits] = CachedLimits, **options: int) -> None:
        self.clock = ManualClock()
        self.hub = FakeHiveHub(clock=self.clock)
        self.acme = self.hub.add_tenant("acme", plan="free")
        self.feed = Feed(self.hub, clock=self.clock)
        self.limits = kind(self.hub, floors=self.feed.floors, clock=self.clock, **options)
        self.feed.subscribe(self.limits)

    async def opened(self) -> World:
        """Open the feed."""
        await self.feed.open()
        return self

    async def ask(self) -> TenantLimits | None:
        """Ask as a request does: memory first, then waiting."""
        return await self.limits.limits(self.acme.id, now=self.clock.now())

    def known(self) -> TenantLimits | None:
        """What memory alone says."""
        return self.limits.try_limits(self.acme.id, now=self.clock.now())

    async def keys(self) -> int | None:
        """The limit of ``keys`` that a request is held to."""
        return _keys(await self.ask())


def _keys(limits: TenantLimits | None) -> int | None:
    assert limits is not None
    (found,) = [standing.limit.limit for standing in limits.quotas if standing.limit.dimension == "keys"]
    return found


async def test_one_fetch_serves_until_it_is_no_longer_fresh() -> None:
    """The hub is asked once; the same object comes back, since identity tells that nothing changed."""
    world = await World().opened()
    assert world.known() is None
    first = await world.ask()
    world.clock.advance(us=FRESH_US - 1)
    assert await world.ask() is first
    assert world.known() is first
    world.hub.assert_calls("limits", 1)


async def test_callers_share_one_look_up_and_a_cancelled_leader_harms_nobody() -> None:
    """Fifty ask at once, the first is cancelled in the middle: one call, forty-nine answers."""
    world = await World().opened()
    with world.hub.hold("limits") as held:
        callers = [asyncio.create_task(world.ask()) for _ in range(50)]
        await held.wait_for(1)
        callers[0].cancel()
        await asyncio.gather(callers[0], return_exceptions=True)
        held.release()
        answers = await asyncio.gather(*callers[1:])
    assert callers[0].cancelled()
    assert {id(answer) for answer in answers} == {id(world.known())}
    world.hub.assert_calls("limits", 1)
    assert not world.limits._flights


who: ContextVar[str] = ContextVar("who", default="nobody")


async def test_the_look_up_acts_for_nobody() -> None:
    """It serves everybody, so it must not carry the context of whoever asked first."""
    world, seen = await World().opened(), []
    real = world.hub.limits

    async def watched(*args: object, **kwargs: object) -> LimitsAnswer:
        seen.append(who.get())
        return await real(*args, **kwargs)  # type: ignore[arg-type]

    world.hub.limits = watched  # type: ignore[method-assign]
    who.set("the first asker")
    await world.ask()
    assert seen == ["nobody"]


async def test_an_unknown_tenant_is_none_and_not_kept() -> None:
    """It may be created in the next moment."""
    world = await World().opened()
    stranger = TenantId("00000000-0000-4000-8000-000000000000")
    for _ in range(2):
        assert await world.limits.limits(stranger, now=world.clock.now()) is None
    world.hub.assert_calls("limits", 2)


# --- guarded fills ----------------------------------------------------------------------------------------------------


class Trusting(CachedLimits):
    """A broken cache: keeps whatever comes."""

    def _accepts(self, tenant: TenantId, limits: TenantLimits | None, epoch: int, revision: int) -> bool:
        return True


class Rewinding(CachedLimits):
    """Another: lets an earlier answer replace a later one."""

    def _keep(self, tenant: TenantId, entry: object, *, tell: bool = True) -> None:
        self._entries[tenant] = entry  # type: ignore[assignment]


async def _lowered_in_flight(kind: type[CachedLimits]) -> tuple[int | None, int | None]:
    """Lower a limit while the look-up is under way; return what the waiter and the next caller are held to."""
    world = await World(kind).opened()
    with world.hub.hold("limits") as held:
        waiter = asyncio.create_task(world.keys())
        await held.wait_for(1)
        world.acme.set_limit("keys", 7)
        held.release()
        return await waiter, await world.keys()


async def test_an_answer_from_before_a_change_is_never_served() -> None:
    """Limits that change while the look-up is in flight are asked for again; a trusting cache serves the old ones."""
    assert await _lowered_in_flight(CachedLimits) == (7, 7)
    assert await _lowered_in_flight(Trusting) != (7, 7)


async def test_a_change_of_the_plan_counts_in_flight_too() -> None:
    """The floor of a plan is only known to matter once the answer names the plan."""
    world = await World().opened()
    with world.hub.hold("limits") as held:
        waiter = asyncio.create_task(world.keys())
        await held.wait_for(1)
        world.hub.define_plan(Plan(name="free", quotas=(quota_limit("keys", 3),)))
        held.release()
        assert await waiter == 3


async def test_a_replica_that_stays_behind_cannot_tell() -> None:
    """Asked once more with the least revision, it cannot answer; that is a 503 and never the old answer."""
    world = await World().opened()
    with world.hub.stale_replica():
        world.acme.set_limit("keys", 7)
        with pytest.raises(HubUnavailableError):
            await world.ask()
        assert [call.arguments["min_revision"] is None for call in world.hub.calls if call.name == "limits"] == [
            True,
            False,
        ]
    world.clock.advance(us=PAUSE_US)
    assert await world.keys() == 7


async def test_a_source_that_ignores_the_least_revision_is_not_believed() -> None:
    """An answer from before a change that was announced is given up, not acted on."""
    world = await World().opened()
    old = await world.hub.limits(world.acme.id)
    world.acme.set_limit("keys", 7)

    async def ignores(*_: object, **__: object) -> LimitsAnswer:
        return old

    world.hub.limits = ignores  # type: ignore[method-assign]
    with pytest.raises(HubUnavailableError, match="from before a change"):
        await world.ask()
    assert not world.limits._entries


@pytest.mark.parametrize("change", ["limit", "plan", "definition", "suspended"])
async def test_each_kind_of_change_drops_what_is_kept(change: str) -> None:
    """The next request waits for the new answer, and gets it."""
    world = await World().opened()
    before = await world.ask()
    if change == "limit":
        world.acme.set_limit("keys", 7)
    elif change == "plan":
        world.acme.set_plan("pro")
    elif change == "definition":
        world.hub.define_plan(Plan(name="free", quotas=(quota_limit("keys", 3),)))
    else:
        world.acme.suspend()
    assert world.known() is None
    after = await world.ask()
    assert after is not before
    assert after != before


async def test_a_key_event_drops_no_limits() -> None:
    """Issuing and revoking keys, which is frequent, costs no look-up of limits."""
    world = await World().opened()
    before = await world.ask()
    world.acme.issue_key(permissions=["read"]).revoke()
    other = world.hub.add_tenant("globex", plan="pro")
    other.set_limit("keys", 1)
    assert world.known() is before


async def test_a_refresh_never_brings_back_an_older_word() -> None:
    """An answer of the batch that was made before, and arrives after, a newer one is passed over."""
    for kind, expected in ((CachedLimits, 7), (Rewinding, 1000)):
        world = await World(kind).opened()
        world.limits._floors_now = lambda: None  # without a feed only the revision tells
        await world.ask()
        world.clock.advance(us=FRESH_US)
        world.known()
        with world.hub.hold("limits_batch") as held:
            late = asyncio.create_task(world.limits.refresh())
            await held.wait_for(1)
            world.acme.set_limit("keys", 7)  # the event drops the entry, the next request fetches the new word
            assert await world.keys() == 7
            held.release()
            await late
        assert await world.keys() == expected


# --- age, outage, pause -----------------------------------------------------------------------------------------------


async def test_age_counts_from_the_sending_of_the_question() -> None:
    """A reply that took its time is as old as its question."""
    world = await World().opened()
    with world.hub.hold("limits") as held:
        waiter = asyncio.create_task(world.ask())
        await held.wait_for(1)
        world.clock.advance(us=FRESH_US - 1)
        held.release()
        await waiter
    assert not world.limits._due
    world.clock.advance(us=1)
    world.known()
    assert world.limits._due == {world.acme.id}


async def test_what_is_no_longer_fresh_serves_on_and_is_refreshed() -> None:
    """Nobody on the request path waits, and the next answer is the new object."""
    world = await World().opened()
    before = await world.ask()
    world.clock.advance(us=FRESH_US)
    assert await world.ask() is before
    assert await world.limits.refresh() == 1
    assert world.known() is not before
    world.hub.assert_calls("limits", 1)
    world.hub.assert_calls("limits_batch", 1)
    assert await world.limits.refresh() == 0


async def test_an_outage_stops_nobody_up_to_the_stated_bound() -> None:
    """To the microsecond; for a second after a failure nobody asks again."""
    world = await World().opened()
    before = await world.ask()
    with world.hub.outage():
        world.clock.advance(us=STALE_US - 1)
        world.hub.forget_calls()
        assert await world.ask() is before
        assert await world.ask() is before
        world.hub.assert_calls("limits", 1)
        world.clock.advance(us=PAUSE_US)
        assert await world.ask() is not before
        world.hub.assert_calls("limits", 2)
    world.clock.advance(us=PAUSE_US)
    assert await world.keys() == 1_000


async def test_beyond_the_bound_gauges_freeze_and_the_rest_goes_on() -> None:
    """No gauge grows on knowledge of yesterday; rates, counters and what is free to read stay as they were known."""
    world = await World().opened()
    before = await world.ask()
    assert before is not None
    with world.hub.outage():
        world.clock.advance(us=STALE_US)
        after = await world.ask()
        assert after is not None
        assert await world.ask() is after, "identity tells engines that nothing changed"
    for old, new in zip(before.quotas, after.quotas, strict=True):
        gauge = old.limit.kind in (QuotaKind.CONTRIBUTION, QuotaKind.LEVEL)
        assert new == (replace(old, limit=replace(old.limit, limit=0)) if gauge else old)
    assert (after.rates, after.statics, after.status) == (before.rates, before.statics, before.status)


async def test_an_unknown_tenant_is_told_at_once_that_it_cannot_be_told() -> None:
    """In an outage it waits for nothing, and is no refusal."""
    world = await World().opened()
    with world.hub.outage():
        with pytest.raises(HubUnavailableError):
            await world.ask()
        with pytest.raises(HubUnavailableError) as caught:
            world.known()
        assert caught.value.retry_after_us == PAUSE_US
        with pytest.raises(HubUnavailableError):
            await world.ask()
        world.hub.assert_calls("limits", 1)


async def test_a_tenant_that_was_idle_is_asked_about_before_it_is_served() -> None:
    """The age of what serves is bounded while the hub answers, whoever comes back."""
    world = await World().opened()
    before = await world.ask()
    world.clock.advance(us=IDLE_US - 1)
    assert world.known() is before
    world.clock.advance(us=1)
    assert world.known() is None
    assert await world.ask() is not before


async def test_a_hub_that_takes_its_time_does_not_hold_up_a_tenant_that_is_known() -> None:
    """What is known serves after a quarter of a second, and the answer is kept when it comes."""
    world = await World().opened()
    before = await world.ask()
    world.clock.advance(us=IDLE_US)
    with world.hub.hold("limits") as held:
        assert await asyncio.wait_for(world.ask(), 4) is before
        held.release()
        await asyncio.gather(*world.limits._tasks)
    assert world.known() is not before


async def test_what_is_in_use_is_refreshed_ahead_of_need_at_different_moments() -> None:
    """Thousand tenants that were learnt together are not asked about together."""
    world = await World().opened()
    others = [world.hub.add_tenant(f"tenant {number}") for number in range(100)]
    for other in others:
        await world.limits.limits(other.id, now=world.clock.now())
    moments = {entry.ahead_us for entry in world.limits._entries.values()}
    assert len(moments) > 10
    assert all(FRESH_US * 60 // 100 <= moment < FRESH_US for moment in moments)
    world.clock.advance(us=max(moments))
    for other in others:
        assert world.limits.try_limits(other.id, now=world.clock.now()) is not None
    assert await world.limits.refresh() == 100
    world.hub.assert_calls("limits_batch", 1)


class Restarted:
    """A world whose cache is made anew, with what the one before had kept."""

    def __init__(self, world: World, kept: dict[TenantId, LimitsEntry | None]) -> None:
        self.feed = Feed(world.hub, clock=world.clock)
        self.limits = CachedLimits(world.hub, floors=self.feed.floors, clock=world.clock)
        self.feed.subscribe(self.limits)
        self.feed.resume(world.feed.floors.epoch, world.feed._cursor or "", world.hub.service.revision)
        self.limits.recall(kept.get, revision=world.hub.service.revision)


async def remembering() -> tuple[World, dict[TenantId, LimitsEntry | None], TenantLimits]:
    """A world that has learnt the limits of its tenant, and written them down."""
    world, kept = await World().opened(), dict[TenantId, LimitsEntry | None]()
    world.limits._told = kept.__setitem__
    known = await world.ask()
    assert known is not None
    return world, kept, known


async def test_what_was_kept_over_a_restart_serves_by_its_age_and_is_asked_for_again() -> None:
    """The hub need not be there; an entry of before is never counted as fresher than it is."""
    world, kept, known = await remembering()
    again = Restarted(world, kept)
    with world.hub.outage():
        assert again.limits.try_limits(world.acme.id, now=world.clock.now()) is known
        assert again.limits._due == {world.acme.id}
        world.clock.advance(us=IDLE_US)
        assert again.limits.try_limits(world.acme.id, now=world.clock.now()) is None
        assert await again.limits.limits(world.acme.id, now=world.clock.now()) is known
        world.clock.advance(us=STALE_US)
        assert await again.limits.limits(world.acme.id, now=world.clock.now()) == frozen(known)


async def test_what_changed_during_a_restart_is_not_served_from_before() -> None:
    """The events of the time in between drop what they are about, by tenant and by plan."""
    for change in (
        lambda world: world.acme.set_limit("keys", 7),
        lambda world: world.hub.define_plan(Plan(name="free")),
    ):
        world, kept, known = await remembering()
        world.feed.close()
        again = Restarted(world, kept)
        change(world)
        assert again.feed.pull()
        assert again.limits.try_limits(world.acme.id, now=world.clock.now()) is None
        assert await again.limits.limits(world.acme.id, now=world.clock.now()) != known


async def test_a_reset_forgets_what_was_kept_over_a_restart() -> None:
    """Nobody can say what happened in between."""
    world, kept, _known = await remembering()
    world.feed.close()
    again = Restarted(world, kept)
    world.hub.start_epoch()
    assert again.feed.pull()
    assert again.limits.try_limits(world.acme.id, now=world.clock.now()) is None


async def test_a_tenant_that_is_gone_is_forgotten_for_good() -> None:
    """Once the hub has said so, what was kept of it does not come back."""
    world, kept, known = await remembering()
    again = Restarted(world, dict(kept))
    again.limits._floors_now = lambda: None  # as with a hub that tells of no changes
    told: dict[TenantId, LimitsEntry | None] = {}
    again.limits._told = told.__setitem__
    assert again.limits.try_limits(world.acme.id, now=world.clock.now()) is known
    world.acme.delete()
    assert await again.limits.refresh() == 1
    assert again.limits.try_limits(world.acme.id, now=world.clock.now()) is None
    assert told == {world.acme.id: None}


@pytest.mark.parametrize("failure", [HubContractError("two epochs"), KeyError("rates"), TimeoutError("slow")])
async def test_whatever_a_source_raises_means_that_it_cannot_be_told(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A contradiction or a bug there is a 503 here, with the pause; never a 500, and never a refusal."""
    world = await World().opened()

    async def fails(*_: object, **__: object) -> LimitsAnswer:
        raise failure

    world.hub.limits = fails  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(HubUnavailableError):
            await world.ask()
    with pytest.raises(HubUnavailableError):
        world.known()


async def test_a_look_up_that_is_ended_is_said_to_those_who_wait() -> None:
    """When the loop's tasks are cancelled, waiters are not left for ever."""
    world = await World().opened()
    with world.hub.hold("limits") as held:
        waiter = asyncio.create_task(world.ask())
        await held.wait_for(1)
        for task in world.limits._tasks:
            task.cancel()
        with pytest.raises(HubUnavailableError, match="ended"):
            await waiter


async def test_without_a_feed_age_is_the_safety_net() -> None:
    """Changes are seen after the stated time, and nothing is guarded."""
    clock = ManualClock()
    hub = FakeHiveHub(clock=clock)
    acme = hub.add_tenant("acme")
    limits = CachedLimits(hub, clock=clock, fresh_us=SECOND_US, stale_us=0)
    before = await limits.limits(acme.id, now=clock.now())
    acme.set_limit("keys", 7)
    clock.advance(us=SECOND_US - 1)
    assert limits.try_limits(acme.id, now=clock.now()) is before
    clock.advance(us=1)
    assert limits.try_limits(acme.id, now=clock.now()) is None


# --- reset, refresh, bound --------------------------------------------------------------------------------------------


async def test_a_reset_has_everything_fetched_anew() -> None:
    """A new epoch raises the floor of everything; what is kept serves until its turn, and its turn comes in time."""
    world = await World().opened()
    before = await world.ask()
    world.hub.start_epoch()
    world.feed.pull()
    assert await world.ask() is before
    await world.limits.refresh()
    assert world.known() is not before
    assert world.limits._entries[world.acme.id].epoch == world.feed.floors.epoch


async def test_what_is_from_before_a_reset_does_not_serve_beyond_its_spread() -> None:
    """Whoever was not asked about in time is asked about before it serves: nobody told what changed in between."""
    world = await World().opened()
    before = await world.ask()
    world.hub.start_epoch()
    world.feed.pull()
    world.clock.advance(10)
    assert world.known() is None
    with world.hub.outage():  # where the hub cannot tell, it serves on like any entry
        assert await world.ask() is before
    world.clock.advance(2)
    assert await world.ask() is not before


async def test_a_reset_forgets_what_is_written_down() -> None:
    """Or the process after this one would go on from behind the reset, and believe what was from before it."""
    world, kept, _known = await remembering()
    world.hub.start_epoch()
    world.feed.pull()
    assert kept == {world.acme.id: None}


async def test_a_plan_that_changes_before_anybody_asked_is_no_longer_written_down() -> None:
    """A second restart finds nothing of the tenant, whom no event named and nobody asked for in the first."""
    world, kept, _known = await remembering()
    world.feed.close()
    again = Restarted(world, dict(kept))
    plans = {tenant: entry.limits.plan for tenant, entry in kept.items()}
    again.limits.recall(kept.get, revision=world.hub.service.revision, tenants=plans)
    again.limits._told = kept.__setitem__
    world.hub.define_plan(Plan(name="pro"))
    assert again.feed.pull()
    assert kept[world.acme.id] is not None
    world.hub.define_plan(Plan(name="free"))
    assert again.feed.pull()
    assert kept == {world.acme.id: None}


async def test_what_gives_way_is_no_longer_written_down() -> None:
    """Of what is not kept no change is noted, so it must not come back after a restart."""
    world = await World(max_tenants=1).opened()
    kept: dict[TenantId, LimitsEntry | None] = {}
    world.limits._told = kept.__setitem__
    await world.ask()
    other = world.hub.add_tenant("other", plan="free")
    await world.limits.limits(other.id, now=world.clock.now())
    assert {tenant: entry is not None for tenant, entry in kept.items()} == {world.acme.id: False, other.id: True}


async def test_a_waiter_looks_again_at_what_was_heard_since_its_answer_came() -> None:
    """A change that is heard of between the answer and the waking of its waiters has the hub asked once more."""
    world = await World().opened()
    flight: asyncio.Future[LimitsAnswer] = asyncio.get_running_loop().create_future()
    old = await world.hub.limits(world.acme.id)
    world.limits._flights[world.acme.id] = flight
    waiter = asyncio.create_task(world.keys())
    await asyncio.sleep(0)
    flight.set_result(old)
    del world.limits._flights[world.acme.id]
    world.acme.set_limit("keys", 7)
    assert await waiter == 7


async def test_an_older_answer_brings_back_no_tenant_that_is_gone() -> None:
    """ "No such tenant" is an answer like any other: one from before it is not taken in afterwards."""
    world = await World().opened()
    world.feed.close()  # so that the deletion is not heard of
    world.clock.advance(1)
    old = await world.hub.limits(world.acme.id)
    world.acme.delete()
    assert await world.ask() is None
    assert not world.limits._accepts(world.acme.id, old.limits, old.epoch, old.revision)


def test_what_comes_due_meanwhile_goes_along() -> None:
    """A refresh waits a moment, so that tenants that come due one after the other are one question."""
    world = World()
    others = [world.hub.add_tenant(f"other-{number}", plan="free").id for number in range(10)]
    loop = VirtualLoop(world.clock)
    try:
        loop.create_task(world.feed.open())
        running = loop.create_task(world.limits.run())
        for tenant in others:
            loop.advance(GATHER_S / 20)
            world.limits._ask_for(tenant)
        loop.advance(GATHER_S)
        world.hub.assert_calls("limits_batch", 1)
        assert set(world.limits._entries) == set(others)
        running.cancel()
        loop.rest()
    finally:
        loop.close()


def test_batches_are_no_larger_than_the_wire_allows() -> None:
    """1,203 tenants that are due take two calls."""
    world = World()
    tenants = [world.hub.add_tenant(f"t{n}").id for n in range(1203)]
    sizes: list[int] = []
    real = world.hub.limits_batch

    async def measured(asked: Sequence[TenantId], **options: object) -> LimitsBatch:
        sizes.append(len(asked))
        return await real(asked, **options)  # type: ignore[arg-type]

    async def learn() -> None:
        await world.feed.open()
        for tenant in tenants:
            await world.limits.limits(tenant, now=world.clock.now())

    world.hub.limits_batch = measured  # type: ignore[method-assign]
    loop = VirtualLoop(world.clock)
    try:
        loop.run_until_complete(learn())
        world.clock.advance(us=FRESH_US)
        for tenant in tenants:
            world.limits.try_limits(tenant, now=world.clock.now())
        runner = loop.create_task(world.limits.run())
        loop.advance(GATHER_S)
        assert sizes == [1000, 203]
        assert not world.limits._due
        runner.cancel()
        loop.rest()
    finally:
        loop.close()


async def test_a_refresh_that_fails_leaves_everybody_due() -> None:
    """By an outage, by a fault of the source, or by a cancellation in the middle."""
    world = await World().opened()
    await world.ask()
    world.clock.advance(us=FRESH_US)
    world.known()
    with world.hub.outage("limits_batch"):
        with pytest.raises(HubUnavailableError):
            await world.limits.refresh()
    assert world.limits._due == {world.acme.id}
    with world.hub.hold("limits_batch") as held:
        refresh = asyncio.create_task(world.limits.refresh())
        await held.wait_for(1)
        refresh.cancel()
        await asyncio.gather(refresh, return_exceptions=True)
    assert world.limits._due == {world.acme.id}
    assert await world.limits.refresh() == 1


async def test_a_tenant_that_is_gone_is_dropped_by_the_refresh() -> None:
    """Even where no feed told of it."""
    world = await World().opened()
    await world.ask()
    world.limits._floors = None
    world.clock.advance(us=FRESH_US)
    world.known()
    gone = LimitsBatch(epoch=1, now_us=0, limits=(None,), revisions=(99,))

    async def batch(*_: object, **__: object) -> LimitsBatch:
        return gone

    world.hub.limits_batch = batch  # type: ignore[method-assign]
    await world.limits.refresh()
    assert world.known() is None


async def test_the_number_of_tenants_is_bounded() -> None:
    """The oldest go first."""
    world = await World(max_tenants=3).opened()
    tenants = [world.hub.add_tenant(f"t{n}").id for n in range(5)]
    for tenant in tenants:
        await world.limits.limits(tenant, now=world.clock.now())
    assert list(world.limits._entries) == tenants[2:]


def test_the_background_work_survives_a_change_of_loops() -> None:
    """A tenancy may be stopped, and started again in another loop; the refresh goes on there."""
    world = World()
    for _ in range(2):
        loop = VirtualLoop(world.clock)
        try:
            loop.run_until_complete(world.feed.open())
            loop.run_until_complete(world.ask())
            runner = loop.create_task(world.limits.run())
            loop.rest()  # it waits, and with that belongs to this loop
            assert not runner.done(), runner.exception()
            world.clock.advance(us=FRESH_US)
            before = world.known()
            assert before is not None
            loop.advance(GATHER_S)
            assert not runner.done(), runner.exception()
            assert world.known() is not before
            runner.cancel()
            loop.rest()
        finally:
            loop.close()
