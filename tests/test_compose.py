"""`Tenancy`: it starts only when nothing is missing, says how it is, and stops without losing anything."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hivetenancy import Tenancy, workers
from hivetenancy import tenant as tenant_module
from hivetenancy.background import Supervisor
from hivetenancy.clock import SECOND_US
from hivetenancy.compose import ClusterTenancy
from hivetenancy.connections import ConnectionRegistry
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, MissingTenantError, UnavailableError
from hivetenancy.gate import Admission, Caller
from hivetenancy.ids import STANDALONE, Surface, TenantId
from hivetenancy.plans import DimensionSpec, Plan, QuotaKind, QuotaLimit
from hivetenancy.testing import FakeHiveHub, ManualClock
from hivetenancy.usage.reporter import Reporter
from tests.engines import PLAN

pytestmark = pytest.mark.anyio

JOBS = Plan(name="jobs", quotas=(QuotaLimit(dimension="jobs", limit=5, kind=QuotaKind.CONTRIBUTION),))


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test a process that never had a tenancy, and locks of its own."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.glob("*.lock")) == [], "a lock was left behind"
    assert workers._held == {}


class World:
    """A hub and a tenancy over it, with one tenant and one key."""

    def __init__(self, *plans: Plan, **options: Any) -> None:
        self.hub = FakeHiveHub(clock=ManualClock(), plans=[PLAN, *plans])
        self.acme = self.hub.add_tenant("acme", plan="small")
        self.key = self.acme.issue_key(permissions=["read", "write"])
        self.tenancy = Tenancy.embedded(self.hub, **options)
        self.set = self.tenancy.functions.declare("kv.set", effect="write", demand={"operations": 1})

    async def serve(self) -> Admission | Refusal:
        """Serve one request; close it."""
        gate = self.tenancy.gate
        caller = await gate.authenticate(self.key.secret.encode(), now=gate.now())
        if not isinstance(caller, Caller):
            return caller
        admission = await gate.admit(caller, self.set, surface=Surface.HTTP, now=gate.now())
        if isinstance(admission, Admission):
            admission.settle(succeeded=True)
            admission.close()
        return admission


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions of all sorts
            await asyncio.sleep(0.001)


# --- start ------------------------------------------------------------------------------------------------------------


async def test_a_tenancy_starts_serves_reports_and_stops() -> None:
    """Green while it runs; everything is reported at stop; started twice is started once."""
    world = World()
    assert not world.tenancy.health().ok
    async with world.tenancy as tenancy:
        assert tenancy is world.tenancy
        await tenancy.start()
        assert tenancy.running
        assert tenancy.health().ok, tenancy.health()
        names = [part.name for part in tenancy.health().parts]
        assert len(names) == len(set(names)), names  # whoever makes a mapping of them loses none
        assert set(names) >= {"tenancy", "hub feed", "keys", "usage", "change feed"}
        for _ in range(3):
            assert isinstance(await world.serve(), Admission)
        assert world.hub.count("report") == 0
    world.hub.assert_reported(world.acme, "operations", 3)
    assert not tenancy.running
    assert next(part.name for part in tenancy.health().parts if not part.ok) == "tenancy"
    await tenancy.stop()


async def test_usage_can_be_flushed() -> None:
    """While it runs, once: a second flush has nothing to say."""
    world = World()
    async with world.tenancy as tenancy:
        await world.serve()
        assert await tenancy.flush() == 1
        assert await tenancy.flush() == 0
        world.hub.assert_reported(world.acme, "operations", 1)


async def test_callers_of_start_share_one_attempt() -> None:
    """And a cancelled one does not end it for the others."""
    world = World()
    attempts: list[int] = []
    real = world.tenancy._start

    async def counted() -> None:
        attempts.append(1)
        await asyncio.sleep(0.01)
        await real()

    world.tenancy._start = counted  # type: ignore[method-assign]
    callers = [asyncio.create_task(world.tenancy.start()) for _ in range(5)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert (len(attempts), world.tenancy.running) == (1, True)
    await world.tenancy.stop()


async def test_a_dimension_that_no_plan_declares_stops_the_start() -> None:
    """The message names the function, the dimension and the fix; with the plan it starts."""
    world = World()
    world.tenancy.functions.declare("jobs.add", effect="write", demand={("jobs", "big"): 1})
    with pytest.raises(ConfigurationError, match=r"'jobs.add' demands 'jobs', which no plan .* add a QuotaLimit"):
        await world.tenancy.start()
    assert not world.tenancy.running
    world.hub.define_plan(JOBS)
    await world.tenancy.start()
    await world.tenancy.stop()


async def test_statics_may_be_demanded() -> None:
    """They are declared by a plan as well."""
    world = World()
    world.tenancy.functions.declare("kv.batch", effect="write", demand={"max_batch": 10})
    world.tenancy.check()


async def test_a_hub_that_is_down_stops_the_start_and_a_later_one_works() -> None:
    """Nothing is left of the failed attempt: no lock, no task, no home."""
    world = World()
    with world.hub.outage():
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await world.tenancy.start()
        assert workers._held == {}
        assert not world.tenancy.running
        assert world.tenancy._home._loop is None
    await world.tenancy.start()
    assert isinstance(await world.serve(), Admission)
    await world.tenancy.stop()


async def test_a_second_worker_is_refused_unless_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is a wrong configuration with its remedy; two tenancies in one process are none."""

    def taken(_: str) -> None:
        raise ConfigurationError(workers.REMEDY)

    first, second = World(), World()
    async with first.tenancy, second.tenancy:
        pass
    monkeypatch.setattr("hivetenancy.compose.claim", taken)
    with pytest.raises(ConfigurationError, match="allow_workers=True"):
        await first.tenancy.start()
    assert not first.tenancy.running
    async with World(allow_workers=True).tenancy as tenancy:
        assert tenancy.running


# --- while it runs ----------------------------------------------------------------------------------------------------


async def test_a_revocation_counts_for_requests_and_open_connections() -> None:
    """At once, since this hub lives in the process: everybody who keeps its answers hears of its changes."""
    world = World()
    async with world.tenancy as tenancy:
        gate = tenancy.gate
        caller = await gate.authenticate(world.key.secret.encode(), now=gate.now())
        assert isinstance(caller, Caller)
        closed: list[Reason] = []
        tenancy.connections.add(caller.principal, closed.append)
        world.key.revoke()
        assert closed == [Reason.REVOKED_KEY]
        refused = await world.serve()
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.REVOKED_KEY


async def test_changed_limits_count_at_once() -> None:
    """The cache of limits hears of changes, too."""
    world = World()
    async with world.tenancy:
        assert isinstance(await world.serve(), Admission)
        world.acme.set_limit("operations", 1)
        refused = await world.serve()
        assert isinstance(refused, Refusal)
        assert (refused.reason, refused.limit, refused.used) == (Reason.QUOTA_EXCEEDED, 1, 1)


@pytest.mark.parametrize("deaf", [ConnectionRegistry, "limits"])
async def test_a_part_that_hears_nothing_is_caught(deaf: object) -> None:
    """Not subscribed to the feed, a registry leaves connections open, and a cache of limits serves the old ones."""
    world = World()
    tenancy = world.tenancy
    part = tenancy.connections if deaf is ConnectionRegistry else tenancy._limits
    tenancy._feed._listeners = [each for each in tenancy._feed._listeners if each is not part]
    with pytest.raises(AssertionError):
        async with tenancy as running:
            if deaf is ConnectionRegistry:
                caller = await running.gate.authenticate(world.key.secret.encode(), now=running.gate.now())
                assert isinstance(caller, Caller), "set up"
                closed: list[Reason] = []
                running.connections.add(caller.principal, closed.append)
                world.key.revoke()
                assert closed == [Reason.REVOKED_KEY]
            else:
                await world.serve()
                world.acme.set_limit("operations", 1)
                assert isinstance(await world.serve(), Refusal)


async def test_connections_end_with_their_key_and_are_rechecked() -> None:
    """An expiry on the clock, and a change that only a fresh look can judge."""
    world = World()
    key = world.acme.issue_key(permissions=["read"], expires_in=60)
    async with world.tenancy as tenancy:
        gate = tenancy.gate
        closed: dict[str, Reason] = {}
        for name, secret in (("expires", key.secret), ("stays", world.key.secret)):
            caller = await gate.authenticate(secret.encode(), now=gate.now())
            assert isinstance(caller, Caller)
            tenancy.connections.add(caller.principal, lambda reason, name=name: closed.setdefault(name, reason))
        world.key.change(permissions=["read"])
        await until(lambda: not tenancy.connections.in_doubt)
        assert closed == {}
        world.hub.advance(60)
        tenancy.connections._wake()
        await until(lambda: closed)
        assert closed == {"expires": Reason.EXPIRED_KEY}
        world.key.expire()
        await until(lambda: len(closed) == 2)
        assert closed["stays"] is Reason.EXPIRED_KEY


async def test_stop_closes_open_connections() -> None:
    """With the reason that the server stops."""
    world = World()
    closed: list[Reason] = []
    async with world.tenancy as tenancy:
        caller = await tenancy.gate.authenticate(world.key.secret.encode(), now=tenancy.gate.now())
        assert isinstance(caller, Caller)
        tenancy.connections.add(caller.principal, closed.append)
    assert closed == [Reason.SERVER_STOPS]


async def test_health_says_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    """A feed without answers, a report that failed, a part that died: each is red with its reason, and green again."""
    caplog.set_level(logging.CRITICAL, "hivetenancy")
    world = World()
    async with world.tenancy as tenancy:
        await world.serve()
        with world.hub.outage():
            with pytest.raises(UnavailableError):
                await tenancy.flush()
            world.hub.advance(6)
            tenancy._feed.pull()
            bad = {part.name: part.why for part in tenancy.health().parts if not part.ok}
            assert bad.keys() == {"hub feed", "usage"}
            assert all(bad.values())
            assert not tenancy.health().ok
        await tenancy.flush()
        assert tenancy.health().ok, tenancy.health()
        tenancy._supervisor._faults["limits"] = "ValueError: x"
        assert [part.why for part in tenancy.health().parts if not part.ok] == ["ValueError: x"]


# --- stop -------------------------------------------------------------------------------------------------------------


async def test_stop_is_not_held_up_by_a_dead_hub(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tries for its time, says how much is unreported, and keeps it for a later start."""
    monkeypatch.setattr("hivetenancy.compose._CLOSE_SECONDS", 0.01)
    world = World()
    await world.tenancy.start()
    await world.serve()
    with world.hub.outage("report"):
        await world.tenancy.stop()
    assert "1 cells of usage unreported" in caplog.text
    await world.tenancy.start()
    await world.tenancy.stop()
    world.hub.assert_reported(world.acme, "operations", 1)


def test_a_tenancy_can_be_started_again_in_another_loop() -> None:
    """Test clients do that with every application: each life serves, is green, and reports."""
    world = World(report_seconds=0.005)

    async def life(expected: int) -> None:
        async with world.tenancy as tenancy:
            await world.serve()
            await until(lambda: world.acme.used("operations") == expected)
            await asyncio.sleep(0.01)
            assert tenancy.health().ok, tenancy.health()

    for n in (1, 2, 3):
        asyncio.run(life(n))
    world.hub.assert_reported(world.acme, "operations", 3)


def test_a_reporter_that_is_kept_over_a_stop_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped ends at once, so the second life would be red and report nothing by itself."""
    made: list[Reporter] = []
    real = ClusterTenancy._new_reporter

    def first(self: ClusterTenancy) -> Reporter:
        made.append(real(self) if not made else made[0])
        return made[0]

    monkeypatch.setattr(ClusterTenancy, "_new_reporter", first)
    world = World(report_seconds=0.005)

    async def life(wait: float) -> bool:
        async with world.tenancy as tenancy:
            await world.serve()
            ends = asyncio.get_running_loop().time() + wait
            while tenancy.health().ok and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            return tenancy.health().ok

    assert asyncio.run(life(0.02))
    assert not asyncio.run(life(10))


async def test_stop_gives_up_a_start_under_way() -> None:
    """Whoever waited for it is gone, perhaps; nothing may begin to run afterwards."""
    world = World()
    opened = asyncio.Event()
    world.tenancy._feed.open = opened.wait  # type: ignore[assignment, method-assign]
    starting = asyncio.create_task(world.tenancy.start())
    await asyncio.sleep(0.005)
    await world.tenancy.stop()
    opened.set()
    await asyncio.gather(starting, return_exceptions=True)
    assert not world.tenancy.running
    assert workers._held == {}


async def test_a_stop_that_fails_lets_go_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock and the home are free, whatever a part did on its way out."""

    async def breaks(_: Supervisor) -> None:
        await real(_)
        raise RuntimeError("on the way out")

    real = Supervisor.stop
    monkeypatch.setattr(Supervisor, "stop", breaks)
    world = World()
    await world.tenancy.start()
    with pytest.raises(RuntimeError):
        await world.tenancy.stop()
    assert (workers._held, world.tenancy._home._loop) == ({}, None)


# --- building ---------------------------------------------------------------------------------------------------------


async def test_a_path_is_refused_rather_than_ignored() -> None:
    """There is no durable engine yet, and an option that does nothing would lose usage quietly."""
    with pytest.raises(ConfigurationError, match="path="):
        Tenancy.embedded(FakeHiveHub(), "/var/lib/app")
    Tenancy.embedded(FakeHiveHub(), None)


async def test_dimensions_come_from_the_canon_the_plans_and_the_host() -> None:
    """What the host, a plan or the canon declares can be recorded; what nobody declares cannot."""
    own = DimensionSpec(name="jobs", unit="jobs", kind=QuotaKind.LEVEL)
    for world in (World(JOBS), World(dimensions=[own])):
        assert world.tenancy.gate.count(TenantId("acme"), {"jobs": 1, "keys": 1}).done
    with pytest.raises(ValueError, match="jobs"):
        World().tenancy.gate.count(TenantId("acme"), {"jobs": 1})


@pytest.mark.parametrize("late", ["own", "plan"])
async def test_a_dimension_that_comes_later_is_reported(late: str) -> None:
    """A quota of one tenant alone, or of a plan defined after the start, was booked and never reported."""
    hub = FakeHiveHub()
    jobs = QuotaLimit(dimension="jobs", limit=5, kind=QuotaKind.CONTRIBUTION)
    async with Tenancy.embedded(hub, allow_workers=True) as tenancy:
        acme = hub.add_tenant("acme", plan="free")
        if late == "own":
            acme.set_quota(jobs)
        else:
            hub.define_plan(Plan(name="late", quotas=(jobs,)))
            acme.set_plan("late")
        reservation = await tenancy.gate.hold(acme.id, {"jobs": 2}, tenancy.gate.now())
        assert not isinstance(reservation, Refusal)
        tenancy.gate.settle(reservation, None, tenancy.gate.now())
        await tenancy.flush()
    assert acme.used("jobs") == 2


async def test_the_hubs_clock_is_the_tenancys() -> None:
    """So that a test moves one clock; another may be given."""
    world = World()
    assert world.tenancy.clock is world.hub.clock
    own = ManualClock(wall_us=SECOND_US)
    assert Tenancy.embedded(world.hub, clock=own).clock is own


async def test_the_audit_is_logged_unless_told_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    """On its own logger by default; not at all with `None`."""
    caplog.set_level(logging.DEBUG, "hivetenancy.audit")
    for options, lines in (({}, 1), ({"audit": None}, 0)):
        caplog.clear()
        world = World(**options)  # type: ignore[arg-type]
        async with world.tenancy:
            world.key.revoke()
            await world.serve()
        assert len([record for record in caplog.records if record.name == "hivetenancy.audit"]) == lines
        assert world.key.secret not in caplog.text


async def test_standalone_is_always_well() -> None:
    """Nothing to start, nothing to stop, one owner of everything."""
    async with Tenancy.standalone() as tenancy:
        assert tenancy.health().ok
        assert tenancy.mode == "standalone"
        assert tenancy.current_tenant().id == STANDALONE
        assert str(tenancy.current_tenant().kv.key("a:b")) == "a:b"


async def test_d14_a_stampede_of_look_ups() -> None:
    """Upstream had no single flight: here fifty requests on a cold cache ask once about key and limits."""
    world = World()
    world.acme.clear_limits()
    async with world.tenancy:
        answers = await asyncio.gather(*[world.serve() for _ in range(50)])
        assert any(isinstance(answer, Admission) for answer in answers)
        world.hub.assert_calls("introspect", 1)
        world.hub.assert_calls("limits", 1)


async def test_cluster_mode_has_no_tenant_outside_requests() -> None:
    """Even before it was started."""
    with pytest.raises(MissingTenantError):
        World().tenancy.current_tenant()
