"""What a hub must do about order (HiveHub wire 4.2), on a seeded walk and in a race of threads."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hivetenancy.authority.admin import MintedKey
from hivetenancy.authority.feed import ChangeLog
from hivetenancy.authority.service import HubService
from hivetenancy.authority.state import HubState
from hivetenancy.authority.view import HubView
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import ChangeBatch, KeyRecord
from hivetenancy.testing import ManualClock
from tests.tiers import examples

pytestmark = pytest.mark.anyio


class World:
    """A hub beside a plain model of it: which keys count, and what every revision was about."""

    def __init__(self, hub: HubService, seed: int) -> None:
        self.hub, self.draw = hub, random.Random(seed)
        self.about: dict[int, KeyId | TenantId] = {}
        self.live: dict[KeyId, MintedKey] = {}
        self.dead: dict[KeyId, MintedKey] = {}
        self.suspended = False
        self.acme = hub.add_tenant("acme", plan="free")
        self.about[1] = self.acme

    def change(self) -> None:
        """Make one change, and note what its revision is about."""
        kind = self.draw.choice(("issue", "issue", "revoke", "suspend", "plan"))
        if kind == "issue":
            key = self.hub.issue_key(self.acme, name="k", permissions=["read"])
            self.live[key.key_id] = key
            self.about[key.revision] = key.key_id
        elif kind == "revoke" and self.live:
            key_id = self.draw.choice(list(self.live))
            self.dead[key_id] = self.live.pop(key_id)
            self.about[self.hub.revoke_key(key_id)] = key_id
        elif kind == "suspend":
            self.suspended = not self.suspended
            change = self.hub.suspend if self.suspended else self.hub.resume
            self.about[change(self.acme)] = self.acme
        else:
            self.about[self.hub.set_plan(self.acme, self.draw.choice(("free", "pro")))] = self.acme

    @property
    def revision(self) -> int:
        """The latest revision that a change returned."""
        return max(self.about)


async def ordered_walk(hub: HubService, seed: int) -> None:
    """Change, ask and follow at random; assert after each step what wire 4.2 asks of a hub."""
    world = World(hub, seed)
    cursor, seen, epoch, told = (await hub.changes(None)).cursor, 1, 1, 1
    for _ in range(60):
        step = world.draw.random()
        if step < 0.5:
            world.change()
            assert world.revision == len(world.about), "every change has a revision of its own, without gaps"
        elif step < 0.75 and world.live | world.dead:
            key = world.draw.choice([*world.live.values(), *world.dead.values()])
            answer = await hub.introspect(key.secret.encode(), min_revision=world.revision, epoch=epoch)
            assert answer.revision == world.revision, "an answer is at the highest revision that is visible"
            assert (answer.epoch, answer.revision >= told) == (epoch, True), "and never goes back"
            told = answer.revision
            active = isinstance(answer.key, KeyRecord)
            assert active == (key.key_id in world.live and not world.suspended), "and holds every change up to it"
        elif step < 0.97:
            batch = await hub.changes(cursor, wait_seconds=0)
            assert not batch.reset
            for event in batch.events:
                assert event.revision == seen + 1, "no event is left out, repeated or out of order"
                assert world.about[event.revision] in (event.key_id, event.tenant_id), "and it says whom it is about"
                seen = event.revision
            assert batch.revision == seen, "a poll shows no revision whose events it has not sent"
            assert batch.more or seen == world.revision
            cursor = batch.cursor
        else:
            before, epoch = epoch, hub.start_epoch()
            assert epoch > before
            batch = await hub.changes(cursor, wait_seconds=0)
            assert batch.reset, "a cursor of another epoch is reset"
            cursor, seen = batch.cursor, batch.revision
            assert (batch.epoch, batch.revision) == (epoch, world.revision)


class RevisionBeforeCommit(HubService):
    """A broken hub: its answers claim a revision that is not in them yet."""

    def _view(self) -> HubView:
        view = super()._view()
        return HubView(epoch=view.epoch, revision=view.revision + 1, state=view.state)


class AnswersFromACopy(HubService):
    """A broken hub: its answers claim the present revision and come from an older state."""

    _old: HubState | None = None

    def _view(self) -> HubView:
        view = super()._view()
        self._old, old = view.state.copy(), self._old
        return HubView(epoch=view.epoch, revision=view.revision, state=old or view.state)


class SilentSuspension(HubService):
    """A broken hub: a suspension is made and nobody is told."""

    def suspend(self, tenant: TenantId) -> int:
        revision = super().suspend(tenant)
        self._log._events.pop()
        return revision


class _Skips(ChangeLog):
    def since(self, cursor: str | None, now_us: int) -> ChangeBatch:
        batch = super().since(cursor, now_us)
        if len(batch.events) < 2:
            return batch
        return self._batch(batch.events[:1], self.revision, now_us)


class CursorTooFar(HubService):
    """A broken hub: its cursor stands behind events that it did not send."""

    def __init__(self) -> None:
        super().__init__(clock=ManualClock())
        self._log = _Skips(self._hub_id.replace("-", ""))


class _SameEpoch(ChangeLog):
    def start_epoch(self) -> int:
        self._events.clear()
        return self.epoch


class ForgetsTheEpoch(HubService):
    """A broken hub: it loses history and goes on in the same epoch."""

    def __init__(self) -> None:
        super().__init__(clock=ManualClock())
        self._log = _SameEpoch(self._hub_id.replace("-", ""))


BROKEN = [RevisionBeforeCommit, AnswersFromACopy, SilentSuspension, CursorTooFar, ForgetsTheEpoch]


@pytest.mark.parametrize("seed", range(examples(20, 500)))
async def test_a_hub_keeps_order(seed: int) -> None:
    """Revisions, snapshots, events and epochs are as wire 4.2 asks, whatever is changed and asked."""
    await ordered_walk(HubService(clock=ManualClock()), seed)


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_hub_without_order_is_caught(broken: type[HubService]) -> None:
    """The walk above fails on hubs that break one of its rules each."""
    caught = 0
    for seed in range(20):
        try:
            await ordered_walk(broken(), seed)
        except AssertionError:
            caught += 1
    assert caught >= 10


# --- a race ----------------------------------------------------------------------------------------------------------


def race(hub: HubService, rounds: int) -> tuple[dict[int, bool], list[tuple[int, bool]], list[int]]:
    """One thread suspends and resumes a tenant while others ask for its key and follow the feed.

    After every other change it goes on only when somebody was told of it, however threads are scheduled.

    Returns:
        Whether the key counts at each revision, what the askers were told at which revision, and the revisions that
        the follower saw.
    """
    acme = hub.add_tenant("acme", plan="free")
    secret = hub.issue_key(acme, name="k", permissions=["read"]).secret.encode()
    truth = {hub.revision: True}
    answers: list[tuple[int, bool]] = []
    seen: list[int] = []
    done = threading.Event()

    def ask() -> None:
        finished = False
        while not finished:
            finished = done.is_set()
            answers.append(ask_once(hub, secret))

    def follow() -> None:
        cursor = hub.try_changes(None).cursor
        finished = False
        while not finished:
            finished = done.is_set()
            batch = hub.try_changes(cursor)
            seen.extend(event.revision for event in batch.events)
            cursor = batch.cursor

    threads = [threading.Thread(target=target) for target in (ask, ask, follow)]
    for thread in threads:
        thread.start()
    for number in range(rounds):
        change = hub.resume if number % 2 else hub.suspend
        truth[change(acme)] = bool(number % 2)
        told = len(answers) + 3  # two may have been asked for before the change, one by each thread
        while number % 4 in (0, 3) and len(answers) < told and any(thread.is_alive() for thread in threads[:2]):
            time.sleep(0)
    done.set()
    for thread in threads:
        thread.join(30)
    return truth, answers, seen


def ask_once(hub: HubService, secret: bytes) -> tuple[int, bool]:
    """Ask without a loop: the service answers without suspending."""
    question = hub.introspect(secret)
    try:
        question.send(None)
    except StopIteration as answered:
        return answered.value.revision, isinstance(answered.value.key, KeyRecord)
    raise AssertionError("a question about a key suspended")


class TwoSteps(HubService):
    """A broken hub: it reads revision and state in two steps, and the first suspension comes in between."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.between, self.changed, self.read = threading.Event(), threading.Event(), threading.Event()

    def suspend(self, tenant: TenantId) -> int:
        self.between.wait(30)
        revision = super().suspend(tenant)
        self.changed.set()
        self.read.wait(30)  # or it would be resumed before anybody saw it suspended
        return revision

    def _view(self) -> HubView:
        revision = self._log.revision
        if not self.changed.is_set():
            self._lock.release()
            self.between.set()
            self.changed.wait(30)
            self._lock.acquire()
            self.read.set()  # the lock is held until the answer is made
        return HubView(epoch=self._log.epoch, revision=revision, state=self._state)


@contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_threads_see_snapshots() -> None:
    """Whatever threads do, an answer holds exactly the changes up to its revision, and no event is lost."""
    rounds = examples(100, 1_000)
    with switching_often():
        truth, answers, seen = race(HubService(clock=ManualClock()), rounds)
    assert len({revision for revision, _ in answers}) >= rounds // 2
    assert [answer for answer in answers if truth[answer[0]] is not answer[1]] == []
    assert seen == sorted(set(seen))
    assert seen == [] or set(range(seen[0], max(truth) + 1)) == set(seen)


def test_a_hub_that_reads_in_two_steps_is_caught() -> None:
    """The race above shows a hub whose revision and state are not read together."""
    truth, answers, _seen = race(TwoSteps(ManualClock()), 4)
    assert [revision for revision, active in answers if truth[revision] is not active]


async def test_polls_from_many_tasks_all_wake() -> None:
    """A hundred polls that wait are all answered by one change."""
    hub = HubService(clock=ManualClock())
    cursor = (await hub.changes(None)).cursor
    polls = [asyncio.create_task(hub.changes(cursor, wait_seconds=25)) for _ in range(100)]
    await asyncio.sleep(0)
    hub.add_tenant("acme", plan="free")
    async with asyncio.timeout(30):
        batches = await asyncio.gather(*polls)
    assert {len(batch.events) for batch in batches} == {1}
