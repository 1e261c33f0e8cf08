"""A deletion leaves nothing, harms no neighbour, says so only when it was seen, and is resumed after any failure."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hivetenancy.clock import SECOND_US
from hivetenancy.connections import ConnectionRegistry
from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.lifecycle import (
    DeletionIncompleteError,
    Receipt,
    Standing,
    State,
    Step,
    TenantStateError,
    Tombstone,
)
from hivetenancy.lifecycle.deletion import WORK, Lifecycle, receipts_hash
from hivetenancy.lifecycle.sources import FilesSource, PrefixSource
from hivetenancy.lifecycle.store import LifecycleStore
from hivetenancy.namespaces.files import TenantFiles
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.testing.clock import ManualClock
from tests.lifecycle.world import (
    ACME,
    NAMES,
    OTHER,
    DoesNotDrain,
    ForgetsTheFence,
    ForgetsThoseThatLeft,
    KeyStore,
    LooksOnce,
    Quick,
    SkipsASource,
    SweepsBeyond,
    TrustsThePurge,
    opened,
    until,
)
from tests.tiers import examples

pytestmark = pytest.mark.anyio


def filled(name: str = "kv") -> KeyStore:
    """A store in which two tenants have three keys each."""
    store = KeyStore(name)
    for tenant, key in itertools.product((ACME, OTHER), ("a", "b", "a:b")):
        store.put(tenant, key)
    return store


# --- the whole of it --------------------------------------------------------------------------------------------------


async def test_a_deletion_empties_every_source_and_leaves_a_tombstone() -> None:
    """Receipts say how much, the tombstone names them; the neighbour keeps all; asked again it is the same one."""
    one, two = filled("one"), filled("two")
    lifecycle = await opened(one, two)
    tombstone = await lifecycle.delete(ACME)
    assert [store.of(ACME) for store in (one, two)] == [0, 0]
    assert [store.of(OTHER) for store in (one, two)] == [3, 3]
    receipts = await lifecycle.receipts(ACME, 1)
    assert [(each.source, each.amount) for each in receipts] == [("one", 3), ("two", 3)]
    assert (tombstone.tenant, tombstone.generation) == (ACME, 1)
    assert tombstone.receipts_hash == receipts_hash(receipts)
    assert await lifecycle.standing(ACME) == Standing(State.DELETED, 1)
    assert await lifecycle.delete(ACME) == tombstone == await lifecycle.tombstone(ACME)
    assert await lifecycle.tombstone(OTHER) is None
    assert lifecycle.trouble() is None


@pytest.mark.parametrize("way", ["active", "read_only", "blocked", "deleting"])
async def test_it_works_from_every_state(way: str) -> None:
    """Whatever somebody did to the tenant before."""
    store = filled()
    lifecycle = await opened(store)
    if way == "read_only":
        await lifecycle.make_read_only(ACME)
    elif way == "blocked":
        await lifecycle.block(ACME)
    elif way == "deleting":
        store.fail = OSError("down")
        with pytest.raises(DeletionIncompleteError):
            await lifecycle.delete(ACME)
        store.fail = None
    assert (await lifecycle.standing(ACME)).state == way
    assert (await lifecycle.delete(ACME)).generation == 1
    assert (store.of(ACME), store.of(OTHER)) == (0, 3)


async def test_callers_share_one_deletion_and_may_leave() -> None:
    """Two at once have one tombstone; it goes on when whoever asked is cancelled."""
    store = filled()
    lifecycle = await opened(store)
    first, second = (asyncio.create_task(lifecycle.delete(ACME)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    tombstone = await second
    assert first.cancelled() or await first == tombstone
    assert await lifecycle.tombstone(ACME) == tombstone


async def test_without_a_data_source_nothing_is_called_deleted() -> None:
    """An empty proof would be none: refused, and nothing is changed."""
    lifecycle = await opened()
    with pytest.raises(ConfigurationError, match="no data source is registered"):
        await lifecycle.delete(ACME)
    assert await lifecycle.standing(ACME) == (State.ACTIVE, 1)
    assert not lifecycle.fence.life(ACME).shut


async def test_an_unfinished_deletion_is_never_taken_back() -> None:
    """Neither unblocked nor blocked nor made read-only; once deleted, only its tombstone brings the tenant back."""
    store = filled()
    lifecycle = await opened(store)
    store.fail = OSError("down")
    with pytest.raises(DeletionIncompleteError):
        await lifecycle.delete(ACME)
    for way in (lifecycle.unblock, lifecycle.block, lifecycle.make_read_only):
        with pytest.raises(TenantStateError, match="cannot become"):
            await way(ACME)
    store.fail = None
    await lifecycle.resume()
    for way in (lifecycle.unblock, lifecycle.block, lifecycle.make_read_only):
        with pytest.raises(TenantStateError, match="with its tombstone"):
            await way(ACME)
    assert lifecycle.fence.life(ACME).shut


# --- A38, A39 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
async def test_a39_a_sweep_takes_no_neighbour_along(broken: bool) -> None:
    """A source deletes what the scope owns, also where the store finds more; a hand-made beginning does not."""
    store = filled()

    async def everything(prefix: str) -> list[str]:
        return [name for name in store.rows if not broken or name.startswith(prefix)]

    lifecycle = Quick()
    source: Any = store.source(scan=everything)
    if broken:
        source.__class__ = SweepsBeyond
    lifecycle.register(source)
    await lifecycle.open()
    await lifecycle.delete(ACME)
    assert store.of(ACME) == 0
    assert (store.of(OTHER) == 3) is not broken, "the broken sweep has to be seen, and the real one to spare"


async def test_a38_the_next_life_needs_the_tombstone_and_is_another() -> None:
    """Generation 2; a forged tombstone, one of another tenant and one of an earlier life open nothing."""
    store = filled()
    lifecycle = await opened(store)
    first = await lifecycle.delete(ACME)
    for forged in (replace(first, token="0" * 32), replace(first, tenant=OTHER), replace(first, generation=2)):
        with pytest.raises(TenantStateError, match="not the tombstone"):
            await lifecycle.recreate(forged)
    assert await lifecycle.recreate(first) == Standing(State.ACTIVE, 2)
    assert (lifecycle.fence.life(ACME).generation, lifecycle.fence.life(ACME).shut) == (2, False)
    with pytest.raises(TenantStateError, match="not the tombstone"):
        await lifecycle.recreate(first)
    second = await lifecycle.delete(ACME)
    assert (second.generation, second.token != first.token) == (2, True)
    with pytest.raises(TenantStateError, match="not the tombstone"):
        await lifecycle.recreate(first)
    assert await lifecycle.recreate(second) == Standing(State.ACTIVE, 3)


@pytest.mark.parametrize("kind", [Quick, SkipsASource])
async def test_a39_no_source_is_left_out(kind: type[Quick]) -> None:
    """Of each there is a receipt and nothing left; a lifecycle that skips one is seen."""
    stores = [filled("one"), filled("two")]
    lifecycle = await opened(*stores, kind=kind)
    await lifecycle.delete(ACME)
    complete = [store.of(ACME) for store in stores] == [0, 0] and len(await lifecycle.receipts(ACME, 1)) == 2
    assert complete is (kind is Quick)


# --- the proof --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Quick, LooksOnce])
async def test_a_write_that_was_under_way_elsewhere_shows_in_the_second_look(kind: type[Quick]) -> None:
    """It lands during the pause: not deleted, resumed; whoever looks once calls it deleted."""
    store = filled()
    landed: list[float] = []

    async def late(seconds: float) -> None:
        if not landed:
            landed.append(seconds)
            store.put(ACME, "late")
        await asyncio.sleep(0)

    lifecycle = await opened(store, kind=kind, sleep=late, proof_seconds=2.5)
    if kind is LooksOnce:
        await lifecycle.delete(ACME)
        store.put(ACME, "late")
        assert (await lifecycle.standing(ACME)).state is State.DELETED
        assert store.of(ACME) == 1, "the broken proof has to be seen"
        return
    with pytest.raises(DeletionIncompleteError, match="1 pieces are left") as caught:
        await lifecycle.delete(ACME)
    assert (caught.value.step, landed) == (Step.PROVE, [2.5])
    assert (await lifecycle.standing(ACME)).state is State.DELETING
    assert isinstance((await lifecycle.resume())[ACME], Tombstone)
    assert store.of(ACME) == 0


@pytest.mark.parametrize("kind", [Quick, TrustsThePurge])
async def test_a_source_that_says_it_has_purged_is_not_believed(kind: type[Quick]) -> None:
    """It is looked at; a lifecycle that does not calls it deleted."""
    store = filled()

    async def nothing(names: object) -> None:
        return None

    store.remove = nothing  # type: ignore[method-assign]
    lifecycle = await opened(store, kind=kind)
    if kind is TrustsThePurge:
        await lifecycle.delete(ACME)
        assert store.of(ACME) == 3, "the broken proof has to be seen"
        return
    with pytest.raises(DeletionIncompleteError, match="kv: 3 pieces are left"):
        await lifecycle.delete(ACME)
    assert (await lifecycle.standing(ACME)).state is State.DELETING


class Answers:
    """A source with answers of its own."""

    name = "odd"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def purge(self, context: TenantContext) -> int:
        """Answer well."""
        return 0

    async def count(self, context: TenantContext) -> int:
        """Answer."""
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is asyncio.Event:
            await asyncio.Event().wait()
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize("answer", [None, False, -1, "0", OSError("s3cret"), asyncio.Event])
async def test_what_is_no_count_is_no_proof(answer: object) -> None:
    """Nothing, a truth value, less than none, text, a failure, silence; the error shows nothing of the message."""
    lifecycle = Quick(sources=[Answers(answer)], source_seconds=0.01)
    await lifecycle.open()
    with pytest.raises(DeletionIncompleteError) as caught:
        await lifecycle.delete(ACME)
    assert (caught.value.step, list(caught.value.failures)) == (Step.PROVE, ["odd"])
    assert "s3cret" not in str(caught.value)
    assert (await lifecycle.standing(ACME)).state is State.DELETING


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_a_source_that_fails_leaves_the_tenant_deleting_and_the_others_purged() -> None:
    """It is refused meanwhile, health says why, and `resume` finishes what can be finished."""
    good, bad = filled("good"), filled("bad")
    lifecycle = await opened(good, bad)
    bad.fail = ConnectionError("down")
    with pytest.raises(DeletionIncompleteError, match=r"step purge: bad: ConnectionError \(see the log\)"):
        await lifecycle.delete(ACME)
    assert (good.of(ACME), bad.of(ACME)) == (0, 3)
    assert (await lifecycle.standing(ACME)).state is State.DELETING
    assert lifecycle.fence.life(ACME).shut
    assert "1 deletions are unfinished" in (lifecycle.trouble() or "")
    assert isinstance((await lifecycle.resume())[ACME], DeletionIncompleteError)
    bad.fail = None
    outcome = await lifecycle.resume()
    assert isinstance(outcome[ACME], Tombstone)
    assert (bad.of(ACME), lifecycle.trouble()) == (0, None)
    assert [each.amount for each in await lifecycle.receipts(ACME, 1)] == [3, 3]


class Unchecked(Quick):
    """Takes any text for a tenant's id."""

    def _check(self, tenant: TenantId, standing: Standing) -> None:
        return None


@pytest.mark.parametrize("kind", [Quick, Unchecked])
async def test_a3_another_spelling_of_an_id_reaches_nothing(kind: type[Quick], tmp_path: Path) -> None:
    """It names the same rows, but not the same fence: what is purged then belongs to a tenant that goes on working."""
    store, alias = filled(), TenantId(ACME.replace("-", "").upper())
    lifecycle = await opened(store, kind=kind)
    lifecycle.register(FilesSource("files", NAMES, TenantFiles(tmp_path)))
    for change in (lifecycle.block, lifecycle.make_read_only, lifecycle.delete):
        outcome = await asyncio.gather(change(alias), return_exceptions=True)
        assert isinstance(outcome[0], InvalidNameError) is (kind is Quick)
    assert (store.of(ACME) == 3) is (kind is Quick)
    assert not lifecycle.fence.life(ACME).shut
    if kind is Quick:
        with pytest.raises(InvalidNameError):
            await lifecycle.delete(TenantId("no-uuid"))
        assert lifecycle.store.standings() == []
        slugs = PrefixNamespaces(scheme="slug")
        simple = TenantContext(tenant_id=TenantId(ACME.replace("-", "")), key_id=None, generation=1)
        PrefixSource("kv", slugs, lambda names: [names.kv], scan=store.scan, delete=store.remove).check(simple)


async def test_a_block_at_the_same_time_does_not_stop_a_deletion() -> None:
    """A deletion begins from whatever state there is in its turn."""
    lifecycle = await opened(filled())
    async with lifecycle._turn:
        deletion = asyncio.create_task(lifecycle.delete(ACME))
        await until(lambda: lifecycle._turn._waiters)  # it has looked where the tenant stands, and waits for its turn
        await asyncio.to_thread(lifecycle.store.move, ACME, Standing(State.ACTIVE, 1), State.BLOCKED)
    assert isinstance(await deletion, Tombstone)


async def test_a_source_that_cancels_itself_shows() -> None:
    """A cancellation that was not the deletion's is a failure like any other, told and tried again."""

    class Cancels:
        name = "cancels"

        async def purge(self, context: TenantContext) -> int:
            raise asyncio.CancelledError

        count = purge

    lifecycle = await opened(filled())
    lifecycle.register(Cancels())
    with pytest.raises(DeletionIncompleteError, match="cancelled by something else"):
        await lifecycle.delete(ACME)
    assert isinstance((await lifecycle.resume())[ACME], DeletionIncompleteError)
    assert "cancels" in (lifecycle.trouble() or "")


async def test_one_bad_tenant_does_not_stop_the_others() -> None:
    """Of two unfinished deletions one can be finished, and is."""
    store = filled()

    class Stubborn(Quick):
        async def _purge(self, context: TenantContext) -> None:
            if context.tenant_id == ACME:
                raise DeletionIncompleteError(ACME, Step.PURGE, {"kv": "corrupt"})
            await super()._purge(context)

    lifecycle = await opened(store, kind=Stubborn)
    for tenant in (ACME, OTHER):
        await asyncio.to_thread(lifecycle.store.begin, tenant, Standing(State.ACTIVE, 1), ["kv"])
    outcome = await lifecycle.resume()
    assert isinstance(outcome[ACME], DeletionIncompleteError)
    assert isinstance(outcome[OTHER], Tombstone)


@pytest.mark.parametrize("kind", [Quick, ForgetsThoseThatLeft])
async def test_a_source_that_is_not_registered_any_more_is_asked_for(kind: type[Quick], tmp_path: Path) -> None:
    """After a restart without it nothing is called deleted; a lifecycle that forgets it is seen."""
    one, two = filled("one"), filled("two")
    two.fail = OSError("down")
    lifecycle = await opened(one, two, store=tmp_path / "life", kind=kind)
    with pytest.raises(DeletionIncompleteError):
        await lifecycle.delete(ACME)
    await lifecycle.aclose()
    two.fail = None
    lifecycle = await opened(one, store=tmp_path / "life", kind=kind)
    result = (await lifecycle.resume())[ACME]
    if kind is ForgetsThoseThatLeft:
        assert isinstance(result, Tombstone), "the broken variant has to be seen"
        assert two.of(ACME) == 3
    else:
        assert isinstance(result, DeletionIncompleteError)
        assert "two: it was registered when the deletion began" in str(result)
        lifecycle.register(two.source())
        assert isinstance((await lifecycle.resume())[ACME], Tombstone)
        assert two.of(ACME) == 0
    await lifecycle.aclose()


async def test_a_start_without_any_source_leaves_a_deletion_unfinished(tmp_path: Path) -> None:
    """And says so: health is not green because there was nobody to ask."""
    store = filled()
    store.fail = OSError("down")
    lifecycle = await opened(store, store=tmp_path / "life")
    with pytest.raises(DeletionIncompleteError):
        await lifecycle.delete(ACME)
    await lifecycle.aclose()
    lifecycle = await opened(store=tmp_path / "life")
    assert isinstance((await lifecycle.resume())[ACME], DeletionIncompleteError)
    assert "it was registered when the deletion began" in (lifecycle.trouble() or "")
    await lifecycle.aclose()


async def test_a_source_that_came_later_is_purged_as_well() -> None:
    """What is registered while a deletion is unfinished belongs to it."""
    one, two = filled("one"), filled("two")
    one.fail = OSError("down")
    lifecycle = await opened(one)
    with pytest.raises(DeletionIncompleteError):
        await lifecycle.delete(ACME)
    one.fail = None
    lifecycle.register(two.source())
    assert isinstance((await lifecycle.resume())[ACME], Tombstone)
    assert [each.source for each in await lifecycle.receipts(ACME, 1)] == ["one", "two"]
    assert two.of(ACME) == 0


async def test_the_background_work_comes_back_to_what_is_unfinished() -> None:
    """`run` resumes at once, and again after its pause."""
    store, pauses = filled(), []
    store.fail = OSError("down")

    async def mended(seconds: float) -> None:
        if seconds >= 30:
            pauses.append(seconds)
            store.fail = None
        await asyncio.sleep(0)

    lifecycle = await opened(store, sleep=mended)
    with pytest.raises(DeletionIncompleteError):
        await lifecycle.delete(ACME)
    running = asyncio.create_task(lifecycle.run())
    await until(lambda: lifecycle.trouble() is None)
    assert (await lifecycle.standing(ACME)).state is State.DELETED
    running.cancel()
    assert pauses
    await lifecycle.aclose()


# --- work under way ---------------------------------------------------------------------------------------------------


class Request:
    """A request under way that may be ended, as adapters enter theirs."""

    def __init__(self, lifecycle: Lifecycle, *, heeds: bool = True) -> None:
        self.life, self.heeds, self.ended = lifecycle.fence.life(ACME), heeds, False
        self.life.running += 1
        self.life.requests.add(self)

    def end(self, reason: object, /) -> None:
        """End it, if it heeds."""
        self.ended = True
        if self.heeds:
            self.leave()

    def leave(self) -> None:
        """It is over."""
        self.life.requests.discard(self)
        self.life.running -= 1


@pytest.mark.parametrize("kind", [Quick, DoesNotDrain])
async def test_a_request_under_way_is_waited_for(kind: type[Quick]) -> None:
    """What it still writes is purged as well; a lifecycle that does not wait leaves it behind."""
    store = filled()
    lifecycle = await opened(store, kind=kind, drain_seconds=100)
    request = Request(lifecycle)
    deletion = asyncio.create_task(lifecycle.delete(ACME))
    await until(lambda: request.life.shut)
    if kind is DoesNotDrain:
        await deletion
    for _ in range(20):
        await asyncio.sleep(0)
    store.put(ACME, "written at the end")
    request.leave()
    await deletion
    assert not request.ended
    assert store.of(ACME) == (1 if kind is DoesNotDrain else 0)


async def test_what_takes_too_long_is_ended() -> None:
    """And the deletion goes on."""
    lifecycle = await opened(filled())
    request = Request(lifecycle)
    await lifecycle.delete(ACME)
    assert request.ended


async def test_what_does_not_end_keeps_the_tenant_deleting() -> None:
    """Nothing is purged under it, so that nothing is written behind the proof; once it has ended, `resume` does it."""
    store = filled()
    lifecycle = await opened(store)
    request = Request(lifecycle, heeds=False)
    token = lifecycle.fence.life(ACME).enter()
    assert token is not None
    with pytest.raises(DeletionIncompleteError, match="2 pieces have not ended") as caught:
        await lifecycle.delete(ACME)
    assert (caught.value.step, list(caught.value.failures)) == (Step.DRAIN, [WORK])
    assert (request.ended, store.of(ACME), store.deletes) == (True, 3, 0)
    request.leave()
    lifecycle.fence.life(ACME).leave(token)
    assert isinstance((await lifecycle.resume())[ACME], Tombstone)


# --- crashes ----------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone."""


class CrashingStore(LifecycleStore):
    """Ends everything at its write number *at*, before or after it is on disk."""

    def __init__(self, path: Path, at: int, *, after: bool, end: Callable[[], None]) -> None:
        super().__init__(path)
        self._at, self._after, self._end, self.writes = at, after, end, 0

    def _write(self, write: Callable[[], Any]) -> Any:
        self.writes += 1
        if self.writes == self._at and not self._after:
            self._end()
        result = write()
        if self.writes == self._at and self._after:
            self._end()
        return result

    def begin(self, *args: Any) -> Any:
        """Begin, or crash."""
        return self._write(lambda: super(CrashingStore, self).begin(*args))

    def step(self, *args: Any) -> Any:
        """Note the step, or crash."""
        return self._write(lambda: super(CrashingStore, self).step(*args))

    def receive(self, *args: Any) -> Any:
        """Keep the receipt, or crash."""
        return self._write(lambda: super(CrashingStore, self).receive(*args))

    def conclude(self, *args: Any) -> Any:
        """Conclude, or crash."""
        return self._write(lambda: super(CrashingStore, self).conclude(*args))


WRITES = 7
"""Of a deletion with two sources: begin, drain, purge, two receipts, prove, the end."""


def crash() -> None:
    """Go."""
    raise Crash


async def restarted(path: Path, stores: list[KeyStore], kind: type[Quick]) -> bool:
    """Start again after a crash; say whether all is as it must be."""
    begun = LifecycleStore(path)
    begun.open()
    standing = begun.standing(ACME)
    begun.close()
    lifecycle = await opened(*stores, store=path, kind=kind)
    fenced = lifecycle.fence.life(ACME).shut
    outcome = await lifecycle.resume()
    clean = all(store.of(ACME) == 0 for store in stores) and all(store.of(OTHER) == 3 for store in stores)
    after = await lifecycle.standing(ACME)
    await lifecycle.aclose()
    if standing.state is State.ACTIVE:  # it had not begun
        return not fenced and not outcome and all(store.of(ACME) == 3 for store in stores)
    return fenced and clean and after == Standing(State.DELETED, 1)


@pytest.mark.parametrize("kind", [Quick, ForgetsTheFence])
async def test_a_crash_at_any_write_is_resumed(kind: type[Quick], tmp_path: Path) -> None:
    """Before and after each: refused from the start, then finished; a start that forgets the fence is seen."""
    well = {}
    points = list(itertools.product(range(1, WRITES + 1), (False, True)))
    for at, after in points if kind is Quick else points[::4]:
        path, stores = tmp_path / f"{at}{after}", [filled("one"), filled("two")]
        lifecycle = Quick(CrashingStore(path, at, after=after, end=crash), sources=[store.source() for store in stores])
        await lifecycle.open()
        with pytest.raises(Crash):
            await lifecycle.delete(ACME)
        lifecycle.store.close()
        well[at, after] = await restarted(path, stores, kind)
    assert all(well.values()) is (kind is Quick), well
    if kind is ForgetsTheFence:
        assert not any(ok for (at, after), ok in well.items() if (at, after) > (1, False))


async def test_the_writes_of_a_deletion_are_those_that_are_crashed_at(tmp_path: Path) -> None:
    """No step was added that the crashes leave out."""
    store = CrashingStore(tmp_path / "life", 0, after=False, end=crash)
    lifecycle = Quick(store, sources=[filled("one").source(), filled("two").source()])
    await lifecycle.open()
    await lifecycle.delete(ACME)
    await lifecycle.aclose()
    assert store.writes == WRITES


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.lifecycle import test_deletion as here

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    path, at, after = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
    folder = here.OnDisk(path.with_suffix(".data"))
    store = here.CrashingStore(path, at, after=after, end=kill)
    lifecycle = here.Quick(store, sources=[folder, here.filled("b").source()])
    await lifecycle.open()
    await lifecycle.delete(here.ACME)

asyncio.run(main())
"""


class OnDisk:
    """A source whose data outlives a process: a file for each key of each tenant."""

    name = "disk"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, tenant: TenantId) -> list[Path]:
        """The tenant's files."""
        return sorted(self.folder.glob(f"{tenant}.*"))

    async def purge(self, context: TenantContext) -> int:
        """Remove them, one by one."""
        found = self.of(context.tenant_id)
        for path in found:
            path.unlink()
        return len(found)

    async def count(self, context: TenantContext) -> int:
        """Count them."""
        return len(self.of(context.tenant_id))


KILLS = [(4, False), (1, True), *itertools.product(range(1, WRITES + 1), (False, True))][: examples(1, 2 + 2 * WRITES)]


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
async def test_kill_9_at_any_boundary_is_resumed(tmp_path: Path) -> None:
    """A real process, a real file: what it wrote down is found, and the deletion comes to its end."""
    for number, (at, after) in enumerate(KILLS):
        path = tmp_path / f"life{number}"
        disk = OnDisk(path.with_suffix(".data"))
        disk.folder.mkdir()
        for tenant, key in itertools.product((ACME, OTHER), "abc"):
            (disk.folder / f"{tenant}.{key}").touch()
        run = [sys.executable, "-c", CHILD, str(path), str(at), str(after)]
        child = await asyncio.to_thread(subprocess.run, run, cwd=Path(__file__).parents[2], capture_output=True)
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        lifecycle = Quick(path, sources=[disk, filled("b").source()])
        await lifecycle.open()
        begun = (at, after) != (1, False)
        assert lifecycle.fence.life(ACME).shut is begun
        await lifecycle.resume()
        assert (await lifecycle.standing(ACME)).state is (State.DELETED if begun else State.ACTIVE)
        assert (len(disk.of(ACME)), len(disk.of(OTHER))) == (0 if begun else 3, 3)
        await lifecycle.aclose()


# --- small matters ----------------------------------------------------------------------------------------------------


def test_receipts_are_dated_and_their_hash_depends_on_each() -> None:
    """On source, amount and time, and not on their order."""
    one, two = (Receipt(source=name, amount=1, at_us=SECOND_US) for name in ("a", "b"))
    assert receipts_hash([one, two]) == receipts_hash([two, one])
    for other in (replace(two, amount=2), replace(two, at_us=0), replace(two, source="c")):
        assert receipts_hash([one, other]) != receipts_hash([one, two])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
@pytest.mark.parametrize("name", ["drain_seconds", "proof_seconds", "source_seconds"])
def test_waits_are_bounded(name: str, seconds: float) -> None:
    """No wait, one without end and none at all are refused when it is built."""
    with pytest.raises(ConfigurationError, match=name):
        Lifecycle(**{name: seconds})  # type: ignore[arg-type]


def test_two_sources_cannot_have_one_name() -> None:
    """Receipts could not tell them apart."""
    lifecycle = Lifecycle(sources=[filled().source()])
    with pytest.raises(ConfigurationError, match="two data sources are called 'kv'"):
        lifecycle.register(filled().source())
    with pytest.raises(ConfigurationError, match="'kv' is what the tenancy keeps itself"):
        lifecycle.attach(connections=ConnectionRegistry(), clock=ManualClock(), own=[filled().source()])
    for name in ("", WORK):
        with pytest.raises(ConfigurationError, match="needs a name of its own"):
            lifecycle.register(filled(name).source())
