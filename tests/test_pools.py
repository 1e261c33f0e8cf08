"""Leased connections: cancelled at every await, over a connection whose replies would shift."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hivetenancy.errors import MissingTenantError, MisuseError
from hivetenancy.pools import TenantPool
from hivetenancy.tenant import Tenant, current_tenant
from tests.engines import Step, drive
from tests.tenants import ACME, BETA, a_process, a_tenant, who
from tests.tiers import examples

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


class Wire:
    """A pipelined connection to a server that answers in order; a reply that nobody reads stays for the next reader."""

    def __init__(self) -> None:
        self.replies: deque[str] = deque()
        self.tenant: str | None = None  # as a session variable
        self.closed = False

    async def ask(self, question: str) -> str:
        """Send, and read a reply; each may be cancelled."""
        assert not self.closed
        await Step()
        self.replies.append(f"{self.tenant}:{question}")
        await Step()
        await Step()
        return self.replies.popleft()


class Wires:
    """A pool of them, of the usual kind."""

    def __init__(self) -> None:
        self.idle: list[Wire] = []
        self.made = 0

    async def acquire(self) -> Wire:
        """Give one out, or a new one."""
        await Step()
        if self.idle:
            return self.idle.pop()
        self.made += 1
        return Wire()

    async def release(self, wire: Wire) -> None:
        """Take one back."""
        await Step()
        assert wire not in self.idle
        self.idle.append(wire)

    def discard(self, wire: Wire) -> None:
        """End one."""
        wire.closed = True
        if wire in self.idle:
            self.idle.remove(wire)


async def enter(wire: Wire, tenant: Tenant) -> None:
    """Tell the server who it is."""
    await Step()
    wire.tenant = tenant.id


async def reset(wire: Wire) -> None:
    """Tell it that it is nobody."""
    await Step()
    wire.tenant = None


def clean(wire: Wire) -> bool:
    """Whether nothing is under way."""
    return wire.tenant is None and not wire.replies


Leases = Callable[[], Any]


def leased(wires: Wires, **changed: Any) -> Leases:
    """The pool under test."""
    hooks: dict[str, Any] = {"enter": enter, "reset": reset, "clean": clean, **changed}
    pool: TenantPool[Wire] = TenantPool(acquire=wires.acquire, release=wires.release, discard=wires.discard, **hooks)
    return pool.lease


def naive(wires: Wires) -> Leases:
    """What one writes first: give it back, whatever happened."""

    @asynccontextmanager
    async def lease() -> AsyncIterator[Wire]:
        wire = await wires.acquire()
        try:
            await enter(wire, current_tenant())
            yield wire
        finally:
            wires.idle.append(wire)

    return lease


def forgetful(wires: Wires) -> Leases:
    """One that tells the connection its tenant once."""

    @asynccontextmanager
    async def lease() -> AsyncIterator[Wire]:
        wire = await wires.acquire()
        if wire.tenant is None:
            await enter(wire, current_tenant())
        try:
            yield wire
        except BaseException:
            wires.discard(wire)
            raise
        wires.idle.append(wire)

    return lease


def cancelled_at_random(lease: Leases, count: int, seed: int) -> tuple[int, int, int]:
    """Do *count* pieces of work, each cancelled at a random await or not at all, for random tenants.

    Returns:
        How many replies were somebody else's or to another question, how many replies came, and how many pieces of
        work were cancelled.
    """
    source = random.Random(seed)
    crossings = replies = cancellations = 0
    tenants = [a_tenant(f"t{number}") for number in range(5)]

    async def work(tenant: Tenant, questions: list[str]) -> None:
        nonlocal crossings, replies
        async with lease() as wire:
            for question in questions:
                reply = await wire.ask(question)
                replies += 1
                crossings += reply != f"{tenant.id}:{question}"
                if source.random() < 0.02:
                    raise ZeroDivisionError

    for number in range(count):
        tenant = source.choice(tenants)
        questions = [f"{number}.{part}" for part in range(source.randint(1, 3))]
        at = source.choice([None, *range(14)])
        ended = drive(tenant.bind(work)(tenant, questions), cancel_at=at)
        cancellations += isinstance(ended, asyncio.CancelledError)
        assert ended is None or isinstance(ended, asyncio.CancelledError | ZeroDivisionError), ended
        assert who() == "nobody"
    return crossings, replies, cancellations


@pytest.mark.deep
@pytest.mark.timeout(600)
def test_a30_random_cancellation_at_every_await_crosses_nowhere() -> None:
    """Nobody gets a reply to somebody else's question, and the pool still reuses what is clean."""
    wires, count = Wires(), examples(2_000, 100_000)
    crossings, replies, cancellations = cancelled_at_random(leased(wires), count, seed=11)
    assert crossings == 0
    assert replies > count
    assert cancellations > count // 4
    assert wires.made < count
    assert all(clean(wire) and not wire.closed for wire in wires.idle)


@pytest.mark.parametrize("broken", [naive, forgetful])
def test_a30_the_usual_pools_cross(broken: Callable[[Wires], Leases]) -> None:
    """The walk above finds replies that shifted, and a tenant that stayed on a connection."""
    crossings, replies, _ = cancelled_at_random(broken(Wires()), 400, seed=11)
    assert 0 < crossings <= replies


def test_a30_each_defence_is_needed() -> None:
    """Reading without a lease's defences one at a time: no discard; no look at whether it is clean."""

    def undiscarding(wires: Wires) -> Leases:
        wires.discard = wires.idle.append  # type: ignore[method-assign]
        return leased(wires, reset=None, clean=lambda wire: True)

    assert cancelled_at_random(undiscarding(Wires()), 400, seed=11)[0] > 0


async def test_a30_a_connection_that_comes_back_dirty_is_discarded() -> None:
    """The borrower left a reply behind, without any error: it is loud, and nobody gets that connection again."""
    wires = Wires()
    lease = leased(wires)
    with ACME.bound():
        with pytest.raises(MisuseError, match="left on it"):
            async with lease() as wire:
                wire.replies.append("late")
        assert (wire.closed, wires.idle) == (True, [])
        async with lease() as other:
            assert (other.tenant, other is wire) == ("acme", False)
        assert (other.tenant, wires.idle) == (None, [other])
    with BETA.bound():
        async with lease() as again:
            assert (again, again.tenant) == (other, "beta")


async def test_nothing_is_taken_without_a_tenant() -> None:
    """Nobody's work gets no connection; a lease is open once at a time, and again afterwards."""
    wires = Wires()
    lease = leased(wires)()
    with pytest.raises(MissingTenantError):
        async with lease:
            pass
    assert wires.made == 0
    with ACME.bound():
        async with lease:
            with pytest.raises(MisuseError, match="open already"):
                async with lease:
                    pass
        async with lease as wire:
            assert wire.tenant == "acme"
        with pytest.raises(ZeroDivisionError):
            async with lease:
                raise ZeroDivisionError
        async with lease:
            pass


class Failing:
    """A pool of plain functions, one of which fails."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.log: list[str] = []

    def _do(self, what: str) -> bool:
        self.log.append(what)
        if what == self.fails:
            raise ZeroDivisionError
        return True

    def pool(self) -> TenantPool[str]:
        """The pool."""
        return TenantPool(
            acquire=lambda: str(self._do("acquire")),
            release=lambda connection: self._do("release"),
            discard=lambda connection: self._do("discard"),
            enter=lambda connection, tenant: self._do("enter"),
            reset=lambda connection: self._do("reset"),
            clean=lambda connection: self._do("clean"),
        )


EXPECTED = {
    "acquire": ["acquire"],
    "enter": ["acquire", "enter", "discard"],
    "work": ["acquire", "enter", "work", "discard"],
    "reset": ["acquire", "enter", "work", "reset", "discard"],
    "clean": ["acquire", "enter", "work", "reset", "clean", "discard"],
    "release": ["acquire", "enter", "work", "reset", "clean", "release", "discard"],
    "": ["acquire", "enter", "work", "reset", "clean", "release"],
}


@pytest.mark.parametrize("fails", EXPECTED)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_whatever_fails_the_connection_is_discarded(fails: str, asynchronous: bool) -> None:
    """With ``with`` and ``async with`` alike, each hook is called once, in order; after a failure it is discarded."""
    failing = Failing(fails)
    lease = failing.pool().lease()

    async def work() -> None:
        if asynchronous:
            async with lease:
                failing._do("work")
        else:
            with lease:
                failing._do("work")

    with ACME.bound():
        for _ in range(2):  # a lease can be used again
            failing.log.clear()
            if fails:
                with pytest.raises(ZeroDivisionError):
                    await work()
            else:
                await work()
            assert failing.log == EXPECTED[fails]


async def test_an_asynchronous_pool_needs_async_with() -> None:
    """Taken with ``with`` it says so, and no coroutine is left over."""
    wires = Wires()
    with ACME.bound(), pytest.raises(MisuseError, match="`async with`"):
        with leased(wires)():
            pass


async def test_discarding_goes_to_its_end_though_its_borrower_is_cancelled_again() -> None:
    """An asynchronous discard is shielded."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def discard(connection: object) -> None:
        begun.set()
        for _ in range(5):
            await asyncio.sleep(0)
        ended.set()

    pool: TenantPool[object] = TenantPool(
        acquire=object, release=lambda connection: None, discard=discard, clean=lambda connection: True
    )

    async def work() -> None:
        async with pool.lease():
            await asyncio.sleep(3_600)

    with ACME.bound():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await ended.wait()
