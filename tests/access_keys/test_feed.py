"""The feed: what it does in which order, and that it neither spins nor dies."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from hivetenancy.access_keys.feed import Feed
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.sources import ChangeBatch, ChangeEvent
from hivetenancy.testing.contracts.access_keys import World, settle

pytestmark = pytest.mark.anyio


class Ear:
    """A listener that remembers, and notes what the floors and the cursor were when it heard."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.heard: list[tuple[int, int, str | None]] = []
        self.resets: list[int] = []
        self.fault: Exception | None = None

    def on_event(self, event: ChangeEvent) -> None:
        if self.fault is not None:
            raise self.fault
        self.heard.append((event.revision, self.feed.floors.needed(event.key_id), self.feed._cursor))

    def on_reset(self, spread_seconds: int) -> None:
        self.resets.append(spread_seconds)


class Polled:
    """A source elsewhere: it answers polls of a scripted hub and signals nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.polls = 0

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        self.polls += 1
        return await self.world.hub.changes(cursor, wait_seconds=wait_seconds)


async def test_floors_rise_before_listeners_hear_and_the_cursor_moves_last() -> None:
    """The order of work that makes a crash in between harmless."""
    world = World()
    feed = Feed(world.hub, clock=world.clock)
    ear = Ear(feed)
    feed.subscribe(ear)
    await feed.open()
    before = feed._cursor
    secret = world.hub.issue()
    world.hub.revoke(secret)
    assert [(revision, floor) for revision, floor, _ in ear.heard] == [(101, 101), (102, 102)]
    assert ear.heard[0][2] == before
    assert feed._cursor != before


class Crossing:
    """A source of two polls that are answered in the wrong order, the first with an older revision."""

    def __init__(self) -> None:
        self.polls: list[asyncio.Future[ChangeBatch]] = []

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        self.polls.append(asyncio.get_running_loop().create_future())
        return await self.polls[-1]


async def test_the_place_is_a_cursor_with_its_own_revision() -> None:
    """A poll that was overtaken moves nothing: with its revision, floors would be too low after a restart."""
    world, source = World(), Crossing()
    places: list[tuple[int, str, int]] = []
    feed = Feed(source, clock=world.clock, moved=lambda *place: places.append(place))
    polls = [asyncio.create_task(feed.poll_once()) for _ in range(2)]
    await settle()
    for poll, revision in ((source.polls[1], 10), (source.polls[0], 5)):
        poll.set_result(ChangeBatch(epoch=1, revision=revision, now_us=0, events=(), cursor=f"at-{revision}"))
        await settle()
    assert [await poll for poll in polls] == [True, True]
    assert places == [(1, "at-10", 10)]


async def test_a_listener_that_fails_is_told_again() -> None:
    """The cursor does not move past an event that was not applied."""
    world = World()
    source = Polled(world)
    feed = Feed(source, clock=world.clock)
    await feed.open()
    ear = Ear(feed)
    end = feed.subscribe(ear)
    ear.fault = RuntimeError("broken")
    world.hub.issue()
    with pytest.raises(RuntimeError, match="broken"):
        await feed.poll_once()
    ear.fault = None
    assert await feed.poll_once()
    assert [revision for revision, _, _ in ear.heard] == [101]
    end()
    world.hub.issue()
    assert await feed.poll_once()
    assert len(ear.heard) == 1


async def test_a_change_counts_before_the_call_that_made_it_returns() -> None:
    """In the loop's thread, and without any loop."""
    world = World()
    feed = Feed(world.hub, clock=world.clock)
    ear = Ear(feed)
    feed.subscribe(ear)
    world.hub.issue()  # before the feed was opened: opens it, and everything earlier is in no floor
    assert feed.opened
    assert feed.floors.floor_all == 101
    world.hub.issue()
    assert [revision for revision, _, _ in ear.heard] == [102]


async def test_a_change_of_another_thread_is_applied_in_the_loop() -> None:
    """Listeners hear in the thread they belong to."""
    world = World()
    feed = Feed(world.hub, clock=world.clock, sleep=lambda _: asyncio.Event().wait())
    heard: list[int] = []

    class Threads(Ear):
        def on_event(self, event: ChangeEvent) -> None:
            heard.append(threading.get_ident())

    feed.subscribe(Threads(feed))
    running = asyncio.ensure_future(feed.run())
    await settle()
    await asyncio.to_thread(world.hub.issue)
    await settle()
    assert heard == [threading.get_ident()]
    running.cancel()
    await asyncio.wait([running])


async def test_health_is_a_poll_that_completed_lately() -> None:
    """Healthy for ``wait_seconds + 3`` after a poll, not before the first and not by a failed one."""
    world = World()
    feed = Feed(world.hub, clock=world.clock, wait_seconds=4)
    assert not feed.healthy(world.clock.now())
    await feed.open()
    world.clock.advance(7)
    assert feed.healthy(world.clock.now())
    world.hub.down = True
    assert not feed.pull()
    assert feed.last_error == "out of reach"
    world.clock.advance(us=1)
    assert not feed.healthy(world.clock.now())
    world.hub.down = False
    assert feed.pull()
    assert feed.healthy(world.clock.now())
    assert feed.last_error is None


async def test_no_way_back_to_a_smaller_epoch() -> None:
    """An answer of an epoch that is over is no answer, and takes nothing away."""
    world = World()
    feed = Feed(world.hub, clock=world.clock)
    await feed.open()
    ear = Ear(feed)
    feed.subscribe(ear)
    world.hub.forget_history()
    assert ear.resets == [10]
    world.hub.epoch = 1
    assert not feed.pull()
    assert feed.floors.epoch == 2
    assert ear.resets == [10]


async def test_a_hub_that_does_not_answer_opens_nothing() -> None:
    """Opening fails as "cannot tell", and callers at once share the poll."""
    world = World()
    source = Polled(world)
    feed = Feed(source, clock=world.clock)
    world.hub.down = True
    outcomes = await asyncio.gather(*(feed.open() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, HubUnavailableError) for each in outcomes)
    assert source.polls == 1
    world.hub.down = False
    await feed.open()
    assert feed.opened


@pytest.mark.parametrize("polled", [True, False], ids=["polled", "signals"])
async def test_run_never_spins(polled: bool) -> None:
    """An idle source is asked once a second, a dead one with growing pauses, and one that speaks again is heard."""
    world = World()
    pauses: list[float] = []

    async def pause(length: float) -> None:
        pauses.append(length)
        await asyncio.sleep(0)

    source: Any = Polled(world) if polled else world.hub
    feed = Feed(source, clock=world.clock, sleep=pause)
    running = asyncio.ensure_future(feed.run())
    await settle()
    assert feed.opened
    assert all(0.5 < each <= 1 for each in pauses[1:])
    world.hub.down = True
    pauses.clear()
    await settle()
    failed = [each for each in pauses if each][1:]
    assert all(0.125 <= each <= 2 for each in failed)
    assert max(failed) > 1
    world.hub.down = False
    world.hub.issue()
    await settle()
    assert feed.floors.needed("key-1") == 101
    running.cancel()
    await asyncio.wait([running])


async def test_a_closed_feed_hears_nothing() -> None:
    """Closing ends the subscription at the source, once."""
    world = World()
    feed = Feed(world.hub, clock=world.clock)
    feed.close()
    feed.close()
    world.hub.issue()
    assert not feed.opened


@pytest.mark.parametrize("seconds", [-1, 26])
def test_the_waiting_time_is_the_wire_s(seconds: int) -> None:
    """A waiting time that the hub would refuse is refused here."""
    with pytest.raises(ConfigurationError, match="0 to 25"):
        Feed(World().hub, wait_seconds=seconds)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HubUnavailableError("no connection to the hub"), "no connection to the hub"),
        (HubUnavailableError(""), "HubUnavailableError"),
        (OSError("https://user:word@proxy.example"), "OSError"),
    ],
)
async def test_health_says_what_went_wrong_and_nothing_that_others_wrote(error: Exception, words: str) -> None:
    """An error of ours in its words; of any other its kind alone."""

    class Broken:
        async def changes(self, cursor: str | None, *, wait_seconds: int = 0) -> ChangeBatch:
            raise error

    feed = Feed(Broken())
    assert not await feed.poll_once()
    assert feed.last_error == words
