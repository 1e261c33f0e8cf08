"""Whom a client believes after a pause, an upgrade or a move, and that it says what is wrong."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from hivetenancy import compose as compose_module
from hivetenancy import tenant as tenant_module
from hivetenancy.authority.api import hub_app
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.decision import Refusal
from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError, UnavailableError
from hivetenancy.gate import Caller
from hivetenancy.hub.client import HiveHub
from hivetenancy.hub.sinks_build import usage_sink
from hivetenancy.hub.sinks_state import MemoryState
from hivetenancy.hub.store import StateStore
from hivetenancy.hub.wire import Service
from hivetenancy.ids import TenantId
from hivetenancy.sources import KeyRecord, UsageKind, UsageLine, UsageReport
from tests.hub.test_start_up import TODAY, Keys, part, until, unwell
from tests.hub.wired import SOURCE, Got, Sent, Wired, from_app

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a process that never had a tenancy, and locks of its own."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def serving(hub: HiveHub, **options: Any) -> ClusterTenancy:
    """A tenancy over *hub*, whose polls do not wait in real time."""
    tenancy = Tenancy.embedded(hub, allow_workers=True, **options)
    tenancy._feed._wait_seconds = 0
    return tenancy


def spent(tenant: str, value: int, *, writer: str = "w", sequence: int = 1) -> UsageReport:
    """A report of what one tenant used this month."""
    line = UsageLine(
        tenant_id=TenantId(tenant),
        dimension="tokens",
        resource=None,
        kind=UsageKind.COUNTER,
        value=value,
        period_start_us=4_102_444_800_000_000,
    )
    return UsageReport(source=SOURCE, writer=writer, sequence=sequence, previous_sequence=sequence - 1, lines=(line,))


# --- a hub that was recalled and not heard from -----------------------------------------------------------------------


async def recalled(tmp_path: Path) -> tuple[Wired, HiveHub]:
    """A client that knows its hub from a state file alone, since the hub was away when it started."""
    world = Wired()
    async with serving(world.client(), state=tmp_path / "state.db"):
        pass
    hub = world.client()
    with world.down():
        store = StateStore(tmp_path / "state.db", clock=world.clock)
        hub.remember(store, await asyncio.to_thread(store.open))
        with pytest.raises(HubUnavailableError):
            await hub.open()
        store.close()
    hub._state = None
    world.clock.advance(61)  # past the pause of the breaker
    return world, hub


@pytest.mark.parametrize("question", ["introspect", "batch", "limits", "limits batch", "changes", "report"])
async def test_a_recalled_hub_is_verified_before_it_is_believed(tmp_path: Path, question: str) -> None:
    """Another hub in its place is believed in nothing, not even in the moment before the next check."""
    world, hub = await recalled(tmp_path)
    other = Wired()
    world.line.answer = from_app(hub_app(other.service))
    assert hub._transport is not None
    hub._transport._key = other.hub._transport._key  # type: ignore[union-attr]
    asking: dict[str, Callable[[], Any]] = {
        "introspect": lambda: hub.introspect(other.key),
        "batch": lambda: hub.introspect_batch([b"x" * 32]),
        "limits": lambda: hub.limits(other.acme),
        "limits batch": lambda: hub.limits_batch([other.acme]),
        "changes": lambda: hub.changes(None),
        "report": lambda: hub.report(spent(other.acme, 5)),
    }
    before = len(world.line.sent)
    with pytest.raises(HubContractError, match="another hub answers"):
        await asking[question]()
    assert [sent.path for sent in world.line.sent[before:]] == ["/extensions"]


async def test_fifty_who_ask_a_recalled_hub_verify_it_once(tmp_path: Path) -> None:
    """And one of them who gives up takes nothing from the others."""
    world, hub = await recalled(tmp_path)
    before = len(world.line.sent)
    asking = [asyncio.create_task(hub.introspect(world.key)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each.key, KeyRecord) for each in answers[1:])  # type: ignore[union-attr]
    assert sum(sent.path == "/extensions" for sent in world.line.sent[before:]) == 1


# --- a hub of today's wire, which has no id ---------------------------------------------------------------------------


async def test_state_outlives_the_upgrade_of_a_hub(tmp_path: Path) -> None:
    """A hub that says its id for the first time takes over the file that was made under its address, for good.

    How usage is reported stays as it is pinned, though the hub could do better by now.
    """
    world = Wired(extensions=TODAY)
    path = tmp_path / "state.db"
    for extensions in (TODAY, ALL_EXTENSIONS, ALL_EXTENSIONS):
        world.service.set_extensions(extensions)
        async with serving(world.client(keys=Keys(world), service="nexus"), state=path) as tenancy:
            assert not unwell(tenancy)
            tenancy._usage.record(world.acme, {"nodes": 5})
            await tenancy.flush()
    assert world.service.desk.get_user_database(world.acme).quota.current_nodes == 15
    assert not any(sent.path.startswith("/nexus/usage/") for sent in world.line.sent)
    store = StateStore(path, clock=world.clock)
    assert store.open(world.service.hub_id).hub_id == world.service.hub_id
    store.close()


async def test_state_of_a_hub_at_another_address_is_refused(tmp_path: Path) -> None:
    """All that is known of a hub without an id is where it is."""
    world = Wired(extensions=TODAY)
    path = tmp_path / "state.db"
    async with serving(world.client(keys=Keys(world), synap_usage="absolute"), state=path):
        pass
    moved = world.client(keys=Keys(world), synap_usage="absolute", url="http://127.0.0.1:12001")
    with pytest.raises(ConfigurationError, match=r"12000.*12001.*another state file"):
        await serving(moved, state=path).start()


# --- what is announced no more ----------------------------------------------------------------------------------------


async def test_keys_of_idempotency_that_vanish_hold_usage_back() -> None:
    """A repeat would count twice at a hub that does not know its key any more; it goes on when the hub does."""
    world = Wired(extensions=[name for name in ALL_EXTENSIONS if name != "usage"])
    hub = world.client(service="lesstokens")
    await hub.open()
    everything = world.service.extensions

    def reply_lost(sent: Sent, got: Got) -> Got:
        if sent.path.endswith("/consume"):
            raise httpx.ReadError("reset")
        return got

    with world.bent(reply_lost), pytest.raises(HubUnavailableError):
        await hub.report(spent(world.acme, 30))
    world.service.set_extensions(everything - {"idempotency"})
    with pytest.raises(HubUnavailableError):
        await hub._verify()
    with pytest.raises(HubUnavailableError, match="idempotency"):
        await hub.report(spent(world.acme, 30))
    assert world.service.desk.get_user_tokens(world.acme).tokens.used == 30
    world.service.set_extensions(everything)
    await hub._verify()
    await hub.report(spent(world.acme, 30))
    assert world.service.desk.get_user_tokens(world.acme).tokens.used == 30


async def test_a_service_key_that_was_rotated_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """With the time until which ours counts, once in the log and in health; a process that began later says nothing."""
    world = Wired()
    async with serving(world.client()) as tenancy:
        world.clock.advance(1)
        with caplog.at_level(logging.WARNING):
            world.service.rotate_service_key(world.service_key.key_id, overlap_seconds=3_600)
            await tenancy._feed.poll_once()
            await tenancy._feed.poll_once()
        hub = tenancy.hub
        assert isinstance(hub, HiveHub)
        assert "2100-01-01T01:00:01" in part(hub, "hub service key").why
        assert caplog.text.count("the service key was rotated") == 1
        world.clock.advance(3_700)
        with pytest.raises(HubUnavailableError, match="refused the service key"):
            await hub.open()
    world.clock.advance(1)
    renewed = world.service.rotate_service_key(world.service_key.key_id)
    world.clock.advance(1)
    later = world.client(service_key=renewed.secret)
    await later.open()
    await later.changes(None)
    assert "hub service key" not in {each.name for each in later.parts()}


# --- who uses it ------------------------------------------------------------------------------------------------------


async def test_a_hub_serves_one_tenancy() -> None:
    """Two would each take the other's usage for their own, and whoever stops first would end it for both."""
    world = Wired()
    first, second = serving(world.hub), serving(world.hub)
    async with first:
        with pytest.raises(ConfigurationError, match="one hub for each"):
            await second.start()
        await second.stop()
        assert await first._limits.limits(world.acme, now=world.clock.now())
    async with second:
        assert await second._limits.limits(world.acme, now=world.clock.now())


def test_usage_goes_on_in_another_loop() -> None:
    """A tenancy that is started again in a new loop reports there, however crowded it was in the old one."""
    world = Wired(extensions=TODAY)
    hub = world.client(keys=Keys(world), service="lesstokens")

    async def crowd(sequence: int) -> None:
        await hub.open()
        sink = hub._calls_sink
        assert sink is not None
        await asyncio.gather(
            hub.report(spent(world.acme, 10 * sequence, sequence=sequence)), *(sink.upkeep() for _ in range(5))
        )
        await hub.aclose()

    asyncio.run(crowd(1))
    asyncio.run(crowd(2))
    assert world.service.desk.get_user_tokens(world.acme).tokens.used == 20


async def test_what_an_earlier_process_left_under_way_is_not_ours() -> None:
    """Confirmed after a restart, it is taken from nobody's total: the tenant would be admitted that much twice."""
    world = Wired(extensions=TODAY)
    kept = MemoryState()
    await world.client(keys=Keys(world), service="lesstokens").open()

    def sink() -> Any:
        return usage_sink(Service.LESSTOKENS, world.hub, clock=world.clock, state=kept)

    def reply_lost(sent: Sent, got: Got) -> Got:
        if sent.path.endswith("/consume"):
            raise httpx.ReadError("reset")
        return got

    with world.bent(reply_lost), pytest.raises(HubUnavailableError):
        await sink().report(spent(world.acme, 30))
    again = sink()
    world.clock.advance(130)
    await again.upkeep()
    assert again.pending == 0
    assert again.confirmed(world.acme, "tokens", None) == 0
    await again.report(spent(world.acme, 7, writer="another"))
    assert again.confirmed(world.acme, "tokens", None) == 7
    assert world.service.desk.get_user_tokens(world.acme).tokens.used == 37


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 404, 500])
@pytest.mark.parametrize(("path", "name"), [("introspect", "keys"), ("limits", "limits of tenants")])
async def test_health_is_red_where_one_question_alone_fails(status: int, path: str, name: str) -> None:
    """The hub says what it is and tells of changes, and nobody new could be served: that is not well."""
    world = Wired()
    async with serving(world.client()) as tenancy:
        gate = tenancy.gate

        async def ask() -> None:
            await gate.authenticate(world.key, now=gate.now())
            await tenancy._limits.limits(world.other, now=gate.now())

        with world.bent(lambda sent, got: Got(status, b"{}") if sent.path.endswith(path) else got):
            with pytest.raises(UnavailableError):
                await ask()
            assert unwell(tenancy) == {name}
        world.clock.advance(2)
        await ask()
        assert not unwell(tenancy)


async def test_health_forgets_a_failure_that_nobody_repeats() -> None:
    """Or a server that is asked nothing because it is not well would never be well again."""
    world = Wired()
    async with serving(world.client()) as tenancy:
        with world.bent(lambda sent, got: Got(500, b"{}") if sent.path.endswith("introspect") else got):
            with pytest.raises(UnavailableError):
                await tenancy.gate.authenticate(world.key, now=tenancy.gate.now())
        assert "keys" in unwell(tenancy)
        world.clock.advance(31)
        await until(lambda: not unwell(tenancy))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_wait_that_is_none_is_refused(seconds: float) -> None:
    """When it is built, and not with an error of arithmetic at start."""
    with pytest.raises(ConfigurationError, match="wait_seconds"):
        serving(Wired().hub, wait_seconds=seconds)


@pytest.mark.parametrize(
    "options", [{"service_key": "svc_synap_0123456789abcdef\n"}, {"url": "ftp://x"}, {"service": "x"}]
)
def test_an_argument_that_is_wrong_shows_no_service_key(options: Any) -> None:
    """Nor in the variables of the frames that raise: a key with a line's end behind it is a secret all the same."""
    given = {"url": "https://hub", "service_key": "svc_synap_0123456789abcdef", **options}
    with pytest.raises(ConfigurationError) as wrong:
        HiveHub(**given)
    trace = wrong.value.__traceback__
    assert trace is not None
    trace = trace.tb_next  # from the first frame of ours on
    while trace is not None:
        assert "0123456789abcdef" not in repr(trace.tb_frame.f_locals)
        trace = trace.tb_next


def test_the_service_key_is_in_nothing_that_a_client_is_made_of() -> None:
    """Not in what it keeps for opening again, either."""
    world = Wired()
    cells = [cell.cell_contents for cell in world.hub._new_transport.__closure__ or ()]
    assert world.service_key.secret not in repr([vars(world.hub), cells])


def test_a_hub_that_is_used_in_another_loop_says_so() -> None:
    """With an error of ours; the HTTP client's own stands on frames that hold the service key."""

    async def closed(_sent: Sent) -> Got:
        raise RuntimeError("Event loop is closed")

    world = Wired()
    world.line.answer = closed
    with pytest.raises(HubUnavailableError, match="in one event loop") as wrong:
        asyncio.run(world.hub.open())
    assert wrong.value.__cause__ is None
    assert wrong.value.__context__ is None
    assert not wrong.value.transient


# --- stopping, and no feed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["nexus", "lesstokens"])
async def test_a_stop_in_an_outage_ends_and_loses_nothing(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that hangs holds nobody up; a look-up that waits for it ends; and the next start reports what is left."""
    monkeypatch.setattr(compose_module, "_CLOSE_SECONDS", 0.05)
    dimension = {"nexus": "nodes", "lesstokens": "tokens"}[service]
    world = Wired(extensions=TODAY)
    tenancy = serving(world.client(keys=Keys(world), service=service))
    usual = world.line.answer

    async def hangs(_sent: Sent) -> Got:
        await asyncio.Event().wait()
        raise AssertionError

    await tenancy.start()
    tenancy._usage.record(world.acme, {dimension: 3})
    world.line.answer = hangs
    waiting = asyncio.create_task(tenancy._limits.limits(world.other, now=world.clock.now()))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tenancy.stop()
        waiting.cancel()
    assert tenancy._usage.unreported == 1
    world.line.answer = usual
    async with tenancy:
        for _ in range(3):
            world.clock.advance(130)
            await tenancy.flush()
        assert tenancy._usage.unreported == 0
    desk = world.service.desk
    held = desk.get_user_database(world.acme).quota.current_nodes, desk.get_user_tokens(world.acme).tokens.used
    assert sum(held) == 3


async def test_d41_a_busy_tenant_sees_its_new_limit_without_a_feed() -> None:
    """On today's wire age alone counts, from the question: use every second does not put a refresh off."""
    world = Wired(extensions=TODAY)
    async with serving(world.client(keys=Keys(world), service="lesstokens")) as tenancy:
        limits = tenancy._limits

        def limit() -> int | None:
            found = limits.try_limits(world.acme, now=world.clock.now())
            assert found is not None
            return found.quotas[0].limit.limit

        await limits.limits(world.acme, now=world.clock.now())
        world.service.set_limit(world.acme, "tokens", 7)
        seen = []
        for _ in range(30):
            world.clock.advance(1)
            seen.append(limit())
            if limits._due:
                await limits.refresh()
        assert seen[0] == 2_000
        assert limit() == 7


async def test_a_feed_that_begins_later_vouches_for_nothing_before() -> None:
    """A hub that tells of changes from now on told nobody of the key that was revoked just before."""
    world = Wired(extensions=[name for name in ALL_EXTENSIONS if name != "changes"])
    async with serving(world.client()) as tenancy:
        gate = tenancy.gate
        assert isinstance(await gate.authenticate(world.key, now=gate.now()), Caller)
        world.service.revoke_key(world.issued.key_id)
        world.service.set_extensions(ALL_EXTENSIONS)
        assert isinstance(tenancy.hub, HiveHub)
        await tenancy.hub._verify()
        assert await tenancy._feed.poll_once()
        assert isinstance(await gate.authenticate(world.key, now=gate.now()), Refusal)


async def test_many_restarts_in_one_process_still_know_limits() -> None:
    """Each makes a source of usage, and a question about limits may name no more than 64."""
    world = Wired()
    tenancy = serving(world.client())
    for _ in range(66):
        async with tenancy:
            tenancy._usage.record(world.acme, {"operations": 1})
    assert len(tenancy._usage.sources) > 64
    async with tenancy:
        assert await tenancy._limits.limits(world.acme, now=world.clock.now())
    assert world.service.used(world.acme, "operations") == 66


@pytest.mark.parametrize("extensions", [ALL_EXTENSIONS, TODAY])
async def test_an_opening_that_is_cancelled_anywhere_can_be_made_again(extensions: Any) -> None:
    """And a poll that is leaves the hub as well as it was."""
    ended = 0
    for turns in range(0, 30, 2):
        world = Wired(extensions=extensions)
        hub = world.client(keys=Keys(world), service="nexus")
        asking: tuple[Callable[[], Any], ...] = (hub.open, partial(hub.limits, world.acme))
        for ask in asking:
            task = asyncio.create_task(ask())
            for _ in range(turns):
                await asyncio.sleep(0)
            ended += task.done()
            task.cancel()
            await asyncio.wait([task])
            await hub.open()
        assert (await hub.limits(world.acme)).limits is not None
        assert all(part.ok for part in hub.parts())
        await hub.aclose()
    assert 0 < ended < 30


async def test_a_service_key_that_may_do_too_much_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """When the hub is opened, and not with every check of it for ever after."""
    world = Wired()
    bend = lambda sent, got: got.but(authority="hivehub") if sent.path == "/extensions" else got  # noqa: E731
    with world.bent(bend), caplog.at_level(logging.WARNING):
        await world.hub.open()
        await world.hub._verify()
        await world.hub._verify()
    assert caplog.text.count("may manage access keys") == 1
