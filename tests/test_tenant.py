"""The tenant handle: names, blocks that commit on a clean exit, threads, and what nothing bound falls back to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hivetenancy import tenant as tenant_module
from hivetenancy.compose import Tenancy
from hivetenancy.context import bound
from hivetenancy.decision import DONE, Ticket
from hivetenancy.errors import (
    MissingTenantError,
    MisuseError,
    NeverFitsError,
    QuotaExceededError,
    StaticLimitError,
    UnauthenticatedError,
    UnavailableError,
)
from hivetenancy.gate import Admission, Gate
from hivetenancy.ids import STANDALONE
from hivetenancy.lifecycle.protocol import Standing, State
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.prefix import IdentityNamespaces
from hivetenancy.tenant import (
    ChargeBlock,
    ReserveBlock,
    Tenant,
    announce_cluster,
    announce_standalone,
    bound_to,
    current_tenant,
    merged,
    standalone_tenant,
)
from hivetenancy.testing import FakeHiveHub
from tests.engines import PLAN, UNAVAILABLE, Rig, Step, drive

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process that never had a tenancy, and nothing bound."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", False)
    before = bound.get()
    bound.set(None)
    yield
    bound.set(before)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Rig, Tenant]]:
    """Admit a request, bind it as a guard does, and close it at the end."""
    rig = await Rig(**options).ready()
    rig.gate.home.settle_here()
    admission = await rig.admit(rig.get)
    assert isinstance(admission, Admission)
    rig.clear()
    before = bound.get()
    bound.set(admission)
    try:
        yield rig, admission.tenant
    finally:
        bound.set(before)
        admission.close()


# --- reserve ----------------------------------------------------------------------------------------------------------


async def test_a_block_commits_on_a_clean_exit() -> None:
    """Held while it is open, used and recorded when it ends."""
    async with serving() as (rig, tenant):
        async with tenant.reserve(keys=2):
            assert (rig.cells(), rig.usage.records) == ({"keys": (0, 2)}, [])
        assert (rig.cells(), rig.usage.records) == ({"keys": (2, 0)}, [{"keys": 2}])


async def test_a_block_that_fails_releases() -> None:
    """An error and a cancellation alike; nothing is recorded."""
    async with serving() as (rig, tenant):
        for error in (KeyError("bug"), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with tenant.reserve(keys=2):
                    raise error
            assert (rig.cells(), rig.usage.records) == ({}, [])


async def test_after_an_explicit_commit_nothing_changes_any_more() -> None:
    """The write is done: an error or a cancellation behind it does not take the charge back."""
    async with serving() as (rig, tenant):
        with pytest.raises(asyncio.CancelledError):
            async with tenant.reserve(keys=3) as block:
                block.commit(keys=1)
                raise asyncio.CancelledError
        assert (rig.cells(), rig.usage.records) == ({"keys": (1, 0)}, [{"keys": 1}])


class ReleasesAfterCommit(ReserveBlock):
    """A broken block: an error takes back what was committed."""

    __slots__ = ()

    def _end(self, clean: bool) -> None:
        reservation = self._reservation
        super()._end(clean)
        if not clean and reservation is not None and reservation.committed:
            gate: Any = self._tenant._services
            gate._quota.credit(reservation.tenant, reservation.committed)


async def test_a_block_that_takes_its_commit_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the test above."""
    monkeypatch.setattr(tenant_module, "ReserveBlock", ReleasesAfterCommit)
    with pytest.raises(AssertionError):
        await test_after_an_explicit_commit_nothing_changes_any_more()


async def test_committing_twice_is_misuse() -> None:
    """The first counts; outside the block neither commit nor extend has a meaning."""
    async with serving() as (rig, tenant):
        async with tenant.reserve(keys=1) as block:
            block.commit()
            with pytest.raises(MisuseError):
                block.commit()
            with pytest.raises(MisuseError):
                block.extend(keys=1)
        with pytest.raises(MisuseError, match="inside the block"):
            block.commit()
        with pytest.raises(MisuseError, match="inside the block"):
            tenant.reserve(keys=1).extend(keys=1)
        assert rig.usage.records == [{"keys": 1}]


async def test_a_block_is_open_once_at_a_time_and_may_be_used_again() -> None:
    """Entered twice, the first hold would be nobody's."""
    async with serving() as (rig, tenant):
        block = tenant.reserve(keys=1)
        async with block:
            with pytest.raises(MisuseError, match="open already"):
                await block.__aenter__()
            with pytest.raises(MisuseError, match="open already"):
                block.__enter__()
        async with block:
            pass
        charge = tenant.charge("doc", storage_bytes=10)
        async with charge:
            with pytest.raises(MisuseError, match="open already"):
                await charge.__aenter__()
        assert rig.cells() == {"keys": (2, 0), "storage_bytes": (10, 0)}


async def test_a_charge_that_is_used_again_charges_again() -> None:
    """A commit of the first use must not be taken for one of the second."""
    async with serving() as (rig, tenant):
        big, small = tenant.charge("doc", storage_bytes=100), tenant.charge("doc", storage_bytes=1)
        for block, size in ((big, 100), (small, 1), (big, 100)):
            async with block:
                block.commit()
            assert rig.cells()["storage_bytes"] == (size, 0)
        async with small:
            pass
        assert rig.cells()["storage_bytes"] == (1, 0)


async def test_extending_holds_more_or_nothing_more() -> None:
    """For work whose size shows on the way; a refusal leaves what was held."""
    async with serving() as (rig, tenant):
        async with tenant.reserve(keys=1) as block:
            block.extend(keys=1)
            assert rig.cells() == {"keys": (0, 2)}
            with pytest.raises(QuotaExceededError) as caught:
                block.extend(keys=2)
            assert (caught.value.refusal.limit, caught.value.refusal.tenant) == (3, rig.tenant.id)
            assert rig.cells() == {"keys": (0, 2)}
        assert rig.cells() == {"keys": (2, 0)}


async def test_a_block_without_room_raises_and_holds_nothing() -> None:
    """All its dimensions or none; the error says who, what and how much."""
    async with serving() as (rig, tenant):
        with pytest.raises(QuotaExceededError) as caught:
            async with tenant.reserve(storage_bytes=10, keys=4):
                raise AssertionError("entered")
        refusal = caught.value.refusal
        assert (refusal.dimension, refusal.requested, refusal.tenant, refusal.key_id) == (
            "keys",
            4,
            rig.tenant.id,
            rig.key.key_id,
        )
        assert rig.cells() == {}


async def test_a_block_that_cannot_be_told_raises_503() -> None:
    """And holds nothing, neither quick nor after waiting."""
    async with serving() as (rig, tenant):
        rig.script.fail["reserve"] = UNAVAILABLE
        for slow in (set(), {"reserve"}):
            rig.script.slow = slow
            with pytest.raises(UnavailableError):
                async with tenant.reserve(keys=1):
                    pass
        assert rig.cells() == {}


async def test_entering_can_be_cancelled_at_every_step() -> None:
    """A suspending entrance undoes itself."""
    async with serving() as (rig, tenant):
        rig.script.slow = {"reserve"}

        async def work() -> str:
            async with tenant.reserve(keys=1):
                await Step()
            async with tenant.charge("doc", storage_bytes=1):
                await Step()
            return "through"

        ends = []
        for n in range(12):
            used = rig.cells()
            end = drive(work(), cancel_at=n)
            ends.append(end)
            assert all(held == 0 for _, held in rig.cells().values()), (n, used)
            async with tenant.charge("doc"):
                pass
            rig.quota.credit(rig.tenant.id, {"keys": rig.cells().get("keys", (0, 0))[0]})
        assert "through" in ends
        assert isinstance(ends[0], asyncio.CancelledError)


async def test_amounts_may_be_a_mapping_keywords_or_both() -> None:
    """A mapping for resources, keywords for the rest; one dimension twice is an error."""
    assert merged(None, {}) == {}
    assert merged({("vectors", "docs"): 3}, {"keys": 1}) == {("vectors", "docs"): 3, "keys": 1}
    assert merged({}, {"keys": 1}) == {"keys": 1}
    with pytest.raises(ValueError, match="twice"):
        merged({"keys": 1}, {"keys": 2})


# --- charge -----------------------------------------------------------------------------------------------------------


async def test_a_charge_commits_once() -> None:
    """At the explicit commit or on a clean exit; twice, or outside, is misuse."""
    async with serving() as (rig, tenant):
        async with tenant.charge("doc", storage_bytes=50) as block:
            block.commit(storage_bytes=40)
            with pytest.raises(MisuseError, match="committed before"):
                block.commit()
        with pytest.raises(MisuseError, match="inside the block"):
            block.commit()
        with pytest.raises(asyncio.CancelledError):
            async with tenant.charge("doc", storage_bytes=45) as block:
                block.commit()
                raise asyncio.CancelledError
        with pytest.raises(KeyError):
            async with tenant.charge("doc", storage_bytes=900):
                raise KeyError
        assert (rig.cells(), rig.recorded()) == ({"storage_bytes": (45, 0)}, {"storage_bytes": 45})


async def test_concurrent_overwrites_charge_once() -> None:
    """Two that write 600 of 1,000 bytes at the same time both fit, since it is one item."""
    async with serving() as (rig, tenant):
        async with tenant.charge("doc", storage_bytes=600), tenant.charge("doc", storage_bytes=600):
            assert rig.cells()["storage_bytes"] == (0, 600)
        assert (rig.cells(), rig.recorded()) == ({"storage_bytes": (600, 0)}, {"storage_bytes": 600})


# --- statics, records, usage ------------------------------------------------------------------------------------------


async def test_statics_are_compared_and_neither_held_nor_recorded() -> None:
    """A batch that is too large never fits; a TTL over the plan's is an error of the value."""
    async with serving() as (rig, tenant):
        tenant.check(max_batch=10, max_ttl_seconds=60)
        with pytest.raises(NeverFitsError):
            tenant.check(max_batch=11)
        with pytest.raises(StaticLimitError):
            tenant.check(max_ttl_seconds=61)
        async with tenant.reserve(keys=1, max_batch=5):
            assert rig.cells() == {"keys": (0, 1)}
        assert [record for record in rig.usage.records if record] == [{"keys": 1}]


async def test_record_counts_and_refuses_what_it_cannot_count() -> None:
    """Nothing is booked where the dimension is unknown or the amount is none."""
    async with serving() as (rig, tenant):
        assert tenant.record(searches=1) is DONE
        assert tenant.record({"operations": 2}).done
        for amounts in ({"unheard_of": 1}, {"operations": -1}, {"operations": 0.5}):
            with pytest.raises(ValueError):
                tenant.record(amounts)  # type: ignore[arg-type]
        assert rig.cells() == {"operations": (2, 0)}


async def test_usage_shows_every_cell() -> None:
    """At once where it is known, after a fetch where it is not."""
    async with serving() as (rig, tenant):
        async with tenant.reserve(keys=2):
            pass
        known = tenant.try_usage()
        assert known is not None
        assert [(cell.dimension, cell.used) for cell in known if cell.used] == [("keys", 2)]
        rig.tenant.set_limit("keys", 7)
        assert tenant.try_usage() is None
        (cell,) = [cell for cell in await tenant.usage() if cell.dimension == "keys"]
        assert (cell.limit, cell.used, cell.remaining) == (7, 2, 5)


# --- tickets ----------------------------------------------------------------------------------------------------------


class SlowTicket:
    """A ticket that somebody else completes."""

    def __init__(self) -> None:
        self.done = False

    def wait(self, timeout: float | None = None) -> bool:
        """Say whether it is done."""
        return self.done

    def __await__(self) -> Any:
        while not self.done:
            yield


class DurableGate(Gate):
    """A gate over a journal: what is recorded takes a while to be on disk."""

    tickets: list[SlowTicket]

    def _durable(self, ticket: Ticket) -> Ticket:
        slow = SlowTicket()
        self.tickets.append(slow)
        return slow

    def settle(self, *arguments: Any) -> Ticket:
        return self._durable(super().settle(*arguments))

    def count(self, *arguments: Any) -> Ticket:
        return self._durable(super().count(*arguments))


async def test_the_answer_waits_for_what_the_handler_committed() -> None:
    """A block's and a record's ticket that is not done is awaited before the first byte."""
    async with serving(gate=DurableGate) as (rig, tenant):
        rig.gate.tickets = []  # type: ignore[attr-defined]
        async with tenant.reserve(keys=1):
            pass
        tenant.record(searches=1)
        admission = bound.get()
        assert isinstance(admission, Admission)
        assert not admission.durable
        waiting = asyncio.create_task(admission.until_durable())
        first, second = rig.gate.tickets  # type: ignore[attr-defined]
        for ticket in (first, second):
            await asyncio.sleep(0)
            assert not waiting.done()
            ticket.done = True
        await waiting
        assert admission.durable


async def test_outside_a_request_the_ticket_is_the_callers() -> None:
    """There is no answer to delay; whoever commits gets the ticket."""
    async with serving(gate=DurableGate) as (rig, tenant):
        rig.gate.tickets = []  # type: ignore[attr-defined]
        admission = bound.get()
        assert isinstance(admission, Admission)
        bound.set(bound_to(tenant))
        assert not tenant.record(searches=1).done
        bound.set(None)
        assert not tenant.record(searches=1).done
        assert admission.durable


# --- threads and the context ------------------------------------------------------------------------------------------


async def test_a_with_block_works_from_a_thread_and_on_the_loop() -> None:
    """From a thread everything happens on the loop's; on the loop it works while nothing has to be waited for."""
    async with serving() as (rig, tenant):
        home, where = threading.get_ident(), []
        real = rig.quota.try_reserve

        def watched(*arguments: Any, **options: Any) -> Any:
            where.append(threading.get_ident())
            return real(*arguments, **options)

        rig.gate._try_reserve = watched

        def work() -> None:
            with tenant.reserve(keys=1) as block:
                block.extend(keys=1)
            with tenant.charge("doc", storage_bytes=5):
                pass
            tenant.record(operations=1)
            with pytest.raises(QuotaExceededError):
                with tenant.reserve(keys=9):
                    pass

        await asyncio.to_thread(work)
        assert set(where) == {home}
        await asyncio.sleep(0)
        assert rig.cells() == {"keys": (2, 0), "storage_bytes": (5, 0), "operations": (1, 0)}
        with tenant.reserve(keys=1), tenant.charge("doc", storage_bytes=6):
            pass
        assert rig.cells()["keys"] == (3, 0)


async def test_a_with_block_that_has_to_wait() -> None:
    """From a thread it waits; on the loop's own thread it raises, and holds nothing."""
    async with serving() as (rig, tenant):
        rig.script.slow = {"reserve"}
        with pytest.raises(MisuseError, match="async with"):
            with tenant.reserve(keys=1):
                pass
        with pytest.raises(MisuseError, match="async with"):
            with tenant.charge("doc", storage_bytes=1):
                pass
        assert rig.cells() == {}

        def work() -> None:
            with tenant.reserve(keys=1):
                pass
            with tenant.charge("doc", storage_bytes=1):
                pass

        await asyncio.to_thread(work)
        assert rig.cells() == {"keys": (1, 0), "storage_bytes": (1, 0)}


async def test_a_block_in_another_loop_is_refused() -> None:
    """The engines belong to one thread; a second loop would race them."""
    async with serving() as (rig, tenant):

        async def elsewhere() -> None:
            for block in (tenant.reserve(keys=1), tenant.charge("doc", storage_bytes=1)):
                with pytest.raises(MisuseError, match="is not the tenancy's"):
                    async with block:
                        pass

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert rig.cells() == {}


async def test_executors_need_bind() -> None:
    """Without it they have no tenant and say what to do; with it they act for this one, and forget it afterwards."""
    announce_cluster()
    async with serving() as (_, tenant):
        loop = asyncio.get_running_loop()
        with pytest.raises(MissingTenantError, match=r"tenant\.bind"):
            await loop.run_in_executor(None, current_tenant)
        assert await loop.run_in_executor(None, tenant.bind(current_tenant)) is tenant
        assert await asyncio.to_thread(current_tenant) is tenant
        with pytest.raises(MissingTenantError):
            await loop.run_in_executor(None, current_tenant)


async def test_bind_restores_what_was_bound_and_passes_everything_through() -> None:
    """Arguments, result and exception; and for another tenant than the running request's, too."""
    async with serving() as (_, tenant), serving() as (_, other):
        assert current_tenant() is other

        def work(number: int, *, name: str) -> tuple[str, int, str]:
            """Do it."""
            return current_tenant().id, number, name

        assert tenant.bind(work)(7, name="x") == (tenant.id, 7, "x")
        assert tenant.bind(work).__doc__ == "Do it."
        with pytest.raises(ZeroDivisionError):
            tenant.bind(lambda: 1 // 0)()
        assert current_tenant() is other


async def test_bound_coroutines_keep_their_tenant_and_generators_are_refused() -> None:
    """A coroutine runs later, in whoever's context: the binding must be made there. A generator's cannot be."""
    announce_cluster()
    async with serving() as (_, tenant):

        async def work() -> Tenant:
            await asyncio.sleep(0)
            return current_tenant()

        bound.set(None)
        task = asyncio.create_task(tenant.bind(work)())
        with pytest.raises(MissingTenantError):
            current_tenant()
        assert await task is tenant

        def pieces() -> Iterator[int]:
            yield 1

        async def apieces() -> AsyncIterator[int]:
            yield 1

        for generator in (pieces, apieces):
            with pytest.raises(MisuseError, match="bind what it calls"):
                tenant.bind(generator)


async def test_bind_on_a_public_route_works() -> None:
    """What is bound there has no tenant; a tenant that the code has from elsewhere can be bound all the same."""
    async with serving() as (rig, tenant):
        public = rig.gate.admit_public(now=rig.now)
        bound.set(public)
        with pytest.raises(MissingTenantError, match="public"):
            current_tenant()
        assert tenant.bind(current_tenant)() is tenant
        public.close()


# --- what nothing bound falls back to ---------------------------------------------------------------------------------


def _nothing() -> None: ...


@pytest.mark.parametrize(
    "steps, found",
    [
        ([], False),
        (["standalone"], True),
        (["cluster"], False),
        (["standalone", "cluster"], False),
        (["cluster", "standalone"], False),
    ],
)
async def test_what_nothing_bound_means(steps: list[str], found: bool) -> None:
    """The one owner in standalone mode; an error as soon as this process ever had cluster mode, in either order."""
    owner = standalone_tenant(IdentityNamespaces())
    for step in steps:
        if step == "standalone":
            announce_standalone(owner)
        else:
            announce_cluster()
    if found:
        assert current_tenant() is owner
    else:
        with pytest.raises(MissingTenantError):
            current_tenant()


async def test_d16_a_hub_failure_silently_became_single_tenant() -> None:
    """A cluster tenancy whose hub fails never becomes the owner of everything, not even beside a standalone one."""
    hub = FakeHiveHub(plans=[PLAN])
    alone = Tenancy.standalone()
    assert current_tenant() is alone.current_tenant()
    tenancy = Tenancy.embedded(hub)
    with hub.outage():
        with pytest.raises(UnavailableError):
            await tenancy.start()
    assert not tenancy.running
    assert tenancy.mode == "cluster"
    with pytest.raises(MissingTenantError):
        tenancy.current_tenant()
    with pytest.raises(MissingTenantError):
        current_tenant()
    assert not tenancy.health().ok


async def test_a_process_that_forgets_its_cluster_mode_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the announcement lost, code outside requests would quietly act for the owner of everything."""
    monkeypatch.setattr("hivetenancy.compose.announce_cluster", _nothing)
    alone = Tenancy.standalone()
    Tenancy.embedded(FakeHiveHub())
    assert current_tenant() is alone.current_tenant()


# --- standalone -------------------------------------------------------------------------------------------------------


async def test_standalone_changes_nothing_and_holds_nothing() -> None:
    """Names are the identity, blocks take any amount, records count nowhere, and rules of use are the same."""
    tenant = standalone_tenant(IdentityNamespaces())
    assert (tenant.id, tenant.key_id) == (STANDALONE, None)
    assert str(tenant.kv.key("config:app")) == "config:app"
    async with tenant.reserve(keys=10**9, unheard_of=1) as block:
        block.extend(keys=1)
        assert block.commit() is DONE
        with pytest.raises(MisuseError):
            block.commit()
    with tenant.reserve(keys=1):
        pass
    async with tenant.charge("doc", storage_bytes=10**15) as charge:
        assert charge.commit() is DONE
        with pytest.raises(MisuseError):
            charge.commit()
    with tenant.charge("doc"):
        pass
    assert tenant.record(searches=1) is DONE
    tenant.check(max_batch=10**9)
    assert (tenant.try_usage(), await tenant.usage()) == ((), ())
    with pytest.raises(KeyError):
        async with tenant.reserve(keys=1):
            raise KeyError


async def test_standalone_works_in_every_thread_and_loop() -> None:
    """There is no home to hand anything to."""
    tenant = standalone_tenant(IdentityNamespaces())

    async def work() -> None:
        async with tenant.reserve(keys=1), tenant.charge("doc"):
            pass

    await asyncio.to_thread(lambda: asyncio.run(work()))
    await work()


def _blocks() -> list[Callable[[Tenant], ReserveBlock | ChargeBlock]]:
    return [lambda tenant: tenant.reserve(keys=1), lambda tenant: tenant.charge("doc", storage_bytes=1)]


@pytest.mark.parametrize("block", _blocks())
async def test_a_block_that_outlives_its_tenancy_says_so(block: Callable[[Tenant], Any]) -> None:
    """In a thread, after the loop has gone: an error that names the remedy, and no hang."""
    kept: list[Tenant] = []

    async def serve() -> None:
        async with serving() as (_, tenant):
            kept.append(tenant)

    await asyncio.to_thread(lambda: asyncio.run(serve()))
    with pytest.raises(MisuseError, match="has ended"):
        with block(kept[0]):
            pass


async def test_a_tenant_has_every_kind_of_name() -> None:
    """Whatever its names have it has, and it is the same scope; in standalone mode too."""
    kinds = [name for name in dir(TenantNames) if not name.startswith("_")]
    assert len(kinds) == 17
    async with serving() as (_, tenant):
        for each in (tenant, standalone_tenant(IdentityNamespaces())):
            for kind in kinds:
                assert getattr(each, kind) is getattr(each.names, kind)


async def test_bound_work_counts_as_under_way() -> None:
    """In a block and in what was bound, while it runs; once the tenant is fenced off it does not begin, and says so."""
    async with serving() as (rig, tenant):
        admission = bound.get()
        assert isinstance(admission, Admission)
        life = rig.gate.fence.life(tenant.id)
        rest = life.busy
        with tenant.bound():
            assert (life.busy, tenant.bind(lambda: life.busy)()) == (rest + 1, rest + 2)
            assert bound.get() is admission  # of this tenant's own request, whose answer waits for tickets
        assert life.busy == rest
        bound.set(None)
        rig.gate.fence.put(tenant.id, Standing(State.BLOCKED, 1))
        with pytest.raises(UnauthenticatedError):
            with tenant.bound():
                pass
        with pytest.raises(UnauthenticatedError):
            tenant.bind(current_tenant)()
        with pytest.raises(UnauthenticatedError):
            await tenant.bind(tenant.usage)()
        assert (life.busy, bound.get()) == (rest, None)
