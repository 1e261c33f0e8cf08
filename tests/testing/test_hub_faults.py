"""What can go wrong with a fake hub goes wrong in the same way for methods and over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hivetenancy.authority.api_routes import ROUTES
from hivetenancy.errors import (
    ConfigurationError,
    HubContractError,
    HubRefusedError,
    HubUnavailableError,
    TenancyError,
)
from hivetenancy.hub.client import HiveHub
from hivetenancy.sources import (
    InactiveKey,
    SourceConflict,
    TenantStatus,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)
from hivetenancy.testing import FakeHiveHub, FakeTenant, ManualClock
from hivetenancy.testing.faults import CALLS, SOURCE_CALLS, USUAL_FAULTS, WIRE_CALLS, Fault

pytestmark = pytest.mark.anyio

SOURCE = "5" * 32


@pytest.fixture
def hub() -> FakeHiveHub:
    """A fake on a clock that stands still."""
    return FakeHiveHub(clock=ManualClock())


@pytest.fixture
def acme(hub: FakeHiveHub) -> FakeTenant:
    """A tenant."""
    return hub.add_tenant("acme", plan="pro")


async def connected(hub: FakeHiveHub, **options: Any) -> HiveHub:
    """The real client, opened, that repeats nothing by itself."""
    client = hub.connect(**{"service": "synap", "retries": 0, **options})
    await client.open()
    hub.forget_calls()
    return client


def usage(tenant: FakeTenant, value: int, *, sequence: int = 1, previous: int | None = None) -> UsageReport:
    """A report of so many keys in all."""
    line = UsageLine(tenant_id=tenant.id, dimension="keys", resource=None, kind=UsageKind.CONTRIBUTION, value=value)
    before = sequence - 1 if previous is None else previous
    return UsageReport(source=SOURCE, writer="w", sequence=sequence, previous_sequence=before, lines=(line,))


def verdict(error: TenancyError) -> tuple[Any, ...]:
    """What a caller can tell an error by."""
    more = ("transient", "retry_after_us", "outcome_unknown")
    return (type(error), *(getattr(error, name, None) for name in more))


# --- each fault, both ways -------------------------------------------------------------------------------------------

UNKNOWN = (HubUnavailableError, True, None, True)
CONTRACT = (HubContractError, None, None, None)
#: Each fault of a call, what a caller hears, and whether the call was done.
FAULTS: dict[str, tuple[Fault, tuple[Any, ...], bool]] = {
    "status 500": (Fault(status=500), UNKNOWN, False),
    "status 503, come back": (
        Fault(status=503, retry_after=2),
        (HubUnavailableError, True, 2_000_000, True),
        False,
    ),
    "status 429, a throttle": (
        Fault(status=429, retry_after=3),
        (HubUnavailableError, True, 3_000_000, False),
        False,
    ),
    "status 401": (Fault(status=401), (HubUnavailableError, False, None, False), False),
    "status 403": (Fault(status=403), (HubUnavailableError, False, None, False), False),
    "status 302": (Fault(status=302), CONTRACT, False),
    "status 418": (Fault(status=418), CONTRACT, False),
    "connection refused": (Fault(connection="refused"), (HubUnavailableError, True, None, False), False),
    "connection reset": (Fault(connection="reset"), UNKNOWN, False),
    "reply lost": (Fault(reply="lost"), UNKNOWN, True),
    "reply truncated": (Fault(reply="truncated"), UNKNOWN, True),
    "reply malformed": (Fault(reply="malformed"), CONTRACT, True),
}


@pytest.mark.parametrize("over_http", [False, True], ids=["method", "wire"])
@pytest.mark.parametrize("case", FAULTS)
async def test_a_fault_is_heard_and_did_its_work_or_not(
    hub: FakeHiveHub, acme: FakeTenant, case: str, over_http: bool
) -> None:
    """Methods and the real client raise the same, what was to be done was done, and the next call is well again."""
    fault, heard, done = FAULTS[case]
    asked: Any = await connected(hub) if over_http else hub
    hub.script("report", [fault, None])
    with pytest.raises(TenancyError) as caught:
        await asked.report(usage(acme, 3))
    assert verdict(caught.value) == heard
    assert hub.calls[0].outcome == case.split(",")[0]
    assert acme.used("keys") == (3 if done else 0)
    hub.advance(60)  # whatever the client's own breaker thinks of it
    assert isinstance(await asked.report(usage(acme, 3)), UsageReply)
    hub.assert_reported(acme, "keys", 3)
    assert [call.outcome for call in hub.calls] == [case.split(",")[0], "answered"]


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429])
async def test_a_status_that_is_a_verdict_elsewhere(hub: FakeHiveHub, acme: FakeTenant, status: int) -> None:
    """To a question that nobody may refuse, such a status is no answer, by methods and over the wire alike."""
    client = await connected(hub)
    hub.fail("limits", status=status, times=2)
    heard = []
    for asked in (hub, client):
        with pytest.raises(TenancyError) as caught:
            await asked.limits(acme.id)
        heard.append(type(caught.value))
    expected = HubUnavailableError if status in (404, 429) else HubContractError
    assert heard[1] is expected
    assert heard[0] is (HubContractError if status == 429 else expected)


async def test_a_slow_reply_comes_byte_by_byte(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Each byte takes its time of the hub's clock; methods hear of no answer."""
    client = await connected(hub)
    with hub.fail("limits", reply="slow", latency=1, times=None) as planted:
        with pytest.raises(HubUnavailableError):
            await hub.limits(acme.id)
        asked = asyncio.create_task(client.limits(acme.id))
        for _ in range(40):
            await asyncio.sleep(0)
            hub.advance(1)
        assert not asked.done()
        for _ in range(20_000):
            if asked.done():
                break
            await asyncio.sleep(0)
            hub.advance(1)
        assert (await asked).limits is not None
        assert planted.hits == 2


@pytest.mark.parametrize("over_http", [False, True], ids=["method", "wire"])
async def test_latency_is_of_the_hubs_clock(hub: FakeHiveHub, acme: FakeTenant, over_http: bool) -> None:
    """A delayed call is answered when the clock has been moved, from what is known then, and no sooner."""
    asked: Any = await connected(hub) if over_http else hub
    planted = hub.fail("limits", latency=30)
    task = asyncio.create_task(asked.limits(acme.id))
    async with asyncio.timeout(30):
        while not planted.hits:  # noqa: ASYNC110 - the call is on its way, and the delay counts from its arrival
            await asyncio.sleep(0)
    for step in (10, 19, 1):
        await asyncio.sleep(0.01)
        assert not task.done()
        acme.set_plan("free")
        hub.advance(step)
    limits = (await task).limits
    assert limits is not None
    assert limits.plan == "free"


async def test_latency_passes_by_itself_where_the_clock_runs() -> None:
    """With the machine's clock nobody has to move it."""
    hub = FakeHiveHub()
    hub.fail("limits", latency=0.02)
    began = hub.clock.now()[0]
    await hub.limits(hub.add_tenant("acme").id)
    assert hub.clock.now()[0] - began >= 20_000


async def test_a_clock_that_is_moved_by_itself_is_seen(acme: FakeTenant, hub: FakeHiveHub) -> None:
    """Moving the clock itself, rather than through the hub, ends a delay as well."""
    hub.fail("limits", latency=30)
    task = asyncio.create_task(hub.limits(acme.id))
    await asyncio.sleep(0)
    hub.clock.advance(30)
    async with asyncio.timeout(30):
        await task


# --- which call meets which ------------------------------------------------------------------------------------------


async def outcomes(hub: FakeHiveHub, acme: FakeTenant, count: int, name: str = "limits") -> list[str]:
    """What so many calls met."""
    hub.forget_calls()
    for _ in range(count):
        try:
            await (hub.limits(acme.id) if name == "limits" else hub.introspect(b"x"))
        except TenancyError:
            continue
    return [call.outcome for call in hub.calls]


async def test_a_fault_is_for_so_many_calls_of_a_name(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Others are well, and what was planted last comes first."""
    first = hub.fail("limits", status=503, times=2)
    assert "2 calls of limits" in repr(first)
    hub.fail("limits", "introspect", connection="reset")
    assert await outcomes(hub, acme, 1, "introspect") == ["connection reset"]
    assert await outcomes(hub, acme, 3) == ["status 503", "status 503", "answered"]
    assert (first.hits, hub.planted) == (2, [])


async def test_a_block_ends_a_fault(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Without a number a fault stays to the end of the block, and without a name it is for every call."""
    with hub.fail(status=503, times=None) as planted:
        assert await outcomes(hub, acme, 2) == ["status 503"] * 2
        assert await outcomes(hub, acme, 1, "introspect") == ["status 503"]
        assert hub.planted == [repr(planted)]
        assert "every call" in repr(planted)
    assert await outcomes(hub, acme, 1) == ["answered"]
    planted.remove()


async def test_a_script_says_call_by_call(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A script comes before what is planted, with holes in it, and mappings serve as faults."""
    hub.fail("limits", status=500, times=None)
    hub.script("limits", [None, {"connection": "refused"}, Fault(reply="lost")])
    assert any("script of 3" in line for line in hub.planted)
    assert await outcomes(hub, acme, 4) == ["answered", "connection refused", "reply lost", "status 500"]


async def test_chance_is_the_same_for_the_same_seed(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """The same seed gives the same faults, another others, and the rate is about what was asked for."""
    seen = []
    for seed in (7, 7, 8):
        with hub.faults("limits", seed=seed, rate=0.3) as weather:
            seen.append(await outcomes(hub, acme, 300))
        assert 50 < weather.hits < 130
        assert str(weather.hits) in repr(weather)
        await hub.deliver_late()
    assert seen[0] == seen[1] != seen[2]
    assert {fault.label for fault in USUAL_FAULTS} <= set(seen[0])
    assert await outcomes(hub, acme, 3) == ["answered"] * 3


async def test_no_chance_and_certainty(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A rate of 0 hits nothing and one of 1 everything."""
    with hub.faults(seed=1, rate=0):
        assert set(await outcomes(hub, acme, 20)) == {"answered"}
    with hub.faults(seed=1, rate=1, kinds=[{"status": 503}]):
        assert set(await outcomes(hub, acme, 20)) == {"status 503"}


async def test_healing_ends_everything(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Whatever was made to go wrong with calls is over, and a held reply comes through."""
    hub.down = True
    hub.fail(status=503, times=None)
    hub.script("limits", [Fault(status=500)] * 5)
    hub.lose_next_reply("limits")
    hub.faults(seed=1, rate=1)
    with hub.hold("introspect"):
        hub.heal()
        assert (hub.down, hub.planted, hub.late) == (False, [], 0)
        assert await outcomes(hub, acme, 2) == ["answered"] * 2
        assert await outcomes(hub, acme, 1, "introspect") == ["answered"]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda hub: hub.fail("nothing", status=503),
        lambda hub: hub.fail("limits"),
        lambda hub: hub.fail("limits", status=503, reply="lost"),
        lambda hub: hub.fail("limits", status=200),
        lambda hub: hub.fail("limits", status=True),
        lambda hub: hub.fail("limits", connection="torn"),
        lambda hub: hub.fail("limits", retry_after=1),
        lambda hub: hub.fail("limits", latency=-1),
        lambda hub: hub.fail("limits", latency=float("nan")),
        lambda hub: hub.fail("limits", again=-1),
        lambda hub: hub.fail("limits", status=503, times=0),
        lambda hub: hub.fail("limits", events="reversed"),
        lambda hub: hub.script("limits", [{"statuss": 503}]),
        lambda hub: hub.script("limits", ["503"]),
        lambda hub: hub.script("limits", [Fault(events="reversed")]),
        lambda hub: hub.script("nothing", []),
        lambda hub: hub.faults(seed="7", rate=0.1),
        lambda hub: hub.faults(seed=7, rate=1.1),
        lambda hub: hub.faults(seed=7, rate=0.1, kinds=[]),
        lambda hub: hub.faults(seed=7, rate=0.1, kinds=[Fault(events="reversed")]),
        lambda hub: hub.expect("nothing"),
        lambda hub: hub.skew(10**12),
        lambda hub: hub.set_epoch(0),
        lambda hub: hub.without("nothing").__enter__(),
        lambda hub: FakeHiveHub(extensions=["nothing"]),
        lambda hub: FakeHiveHub(seed=1, state="x"),
    ],
)
def test_a_fault_that_is_none_is_an_error(hub: FakeHiveHub, misuse: Callable[[FakeHiveHub], object]) -> None:
    """What would do nothing, or something else, is refused when it is said."""
    with pytest.raises(ConfigurationError):
        misuse(hub)
    assert (hub.planted, len(hub.service.extensions)) == ([], 7)


def test_the_names_are_those_of_the_wire() -> None:
    """Every call of the wire can be made to fail, and nothing else has a name."""
    assert set(CALLS) == {route.name for route in ROUTES}
    assert len(CALLS) == len(set(CALLS))
    assert set(SOURCE_CALLS).isdisjoint(WIRE_CALLS)


# --- late requests ---------------------------------------------------------------------------------------------------


async def test_a_request_that_was_lost_arrives_later(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Nothing is done at first; what arrives when the test says so is done then, and nobody hears its answer."""
    hub.fail("report", connection="reset", again=0)
    with pytest.raises(HubUnavailableError):
        await hub.report(usage(acme, 3))
    assert (acme.used("keys"), hub.late) == (0, 1)
    await hub.limits(acme.id)
    assert acme.used("keys") == 0
    assert await hub.deliver_late() == 1
    assert (acme.used("keys"), hub.late) == (3, 0)


async def test_a_late_duplicate_comes_after_so_many_calls(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """It arrives after a later report of its source, which it must not take back."""
    hub.fail("report", reply="lost", again=2)
    with pytest.raises(HubUnavailableError):
        await hub.report(usage(acme, 3))
    await hub.report(usage(acme, 3))
    assert hub.late == 1
    assert isinstance(await hub.report(usage(acme, 5, sequence=2)), UsageReply)
    assert hub.late == 0
    hub.assert_reported(acme, "keys", 5)
    assert await hub.report(usage(acme, 3)) == SourceConflict(last_sequence=2)


async def test_a_late_call_that_adds_adds_twice(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Without an idempotency key a duplicate of such a call counts again, which is why a client must not repeat it."""
    client = await connected(hub)
    hub.fail("nexus.consume_credits", again=0, latency=0)
    await client.nexus.consume_credits(acme.id, amount=5, operation="x")
    assert await hub.deliver_late() == 1
    assert acme.used("credits") == 10
    hub.fail("nexus.consume_credits", again=0)
    await client.nexus.consume_credits(acme.id, amount=5, operation="x", idempotency_key="only-once-please")
    assert await hub.deliver_late() == 1
    assert acme.used("credits") == 15


async def test_a_late_call_that_is_refused_harms_nobody(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A generated key whose request arrives again is refused, which the call that brought it does not hear."""
    client = await connected(hub)
    hub.fail("access_keys.generate", reply="lost", again=2)
    asked = {"service": "synap", "name": "k", "permissions": ["read"], "idempotency_key": "only-once"}
    with pytest.raises(HubUnavailableError):
        await client.access_keys.generate(**asked)  # type: ignore[arg-type]
    with pytest.raises(HubRefusedError) as caught:
        await client.access_keys.generate(**asked)  # type: ignore[arg-type]
    assert caught.value.code == "secret_not_repeatable"
    assert hub.calls[-1].outcome == "refused 409"
    await client.limits(acme.id)
    assert (hub.late, len((await client.access_keys.list()).keys)) == (0, 1)


# --- the feed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over_http", [False, True], ids=["method", "wire"])
async def test_events_are_told_wrongly(hub: FakeHiveHub, acme: FakeTenant, over_http: bool) -> None:
    """Reversed, repeated, skipped, or the cursor not known; and in order again afterwards."""
    asked: Any = await connected(hub) if over_http else hub
    start = await asked.changes(None)
    for change in (acme.suspend, acme.resume, acme.suspend):
        change()
    told = (await asked.changes(start.cursor, wait_seconds=0)).events
    assert len(told) == 3
    hub.script("changes", [{"events": kind} for kind in ("reversed", "repeated", "skipped", "cursor_lost")])
    seen = [await asked.changes(start.cursor, wait_seconds=0) for _ in range(5)]
    assert seen[0].events == told[::-1]
    assert seen[1].events == tuple(event for event in told for _ in range(2))
    assert seen[2].events == told[1:2]
    assert (seen[3].reset, seen[3].events) == (True, ())
    assert (seen[4].reset, seen[4].events) == (False, told)
    assert [call.outcome for call in hub.calls if call.name == "changes"][-2] == "events cursor_lost"


async def test_a_fault_of_the_feed_is_not_bypassed(hub: FakeHiveHub) -> None:
    """While a fault waits for a poll, nobody is answered in its place without one."""
    assert hub.try_changes(None) is not None
    hub.fail("changes", status=503)
    assert hub.try_changes(None) is None
    with pytest.raises(HubUnavailableError):
        await hub.changes(None)
    assert hub.try_changes(None) is not None


# --- faults of the hub -----------------------------------------------------------------------------------------------


async def test_an_outage_over_the_wire_is_no_connection(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Nothing was done, and the client knows it; a reply that an outage caught is one that broke off."""
    client = await connected(hub)
    with hub.outage("limits"):
        with pytest.raises(HubUnavailableError) as caught:
            await client.limits(acme.id)
        assert caught.value.outcome_unknown is False
    hub.advance(60)
    with hub.hold("limits") as held:
        asked = asyncio.create_task(client.limits(acme.id))
        await held.wait_for(1)
        hub.down = True
        held.release()
        with pytest.raises(HubUnavailableError) as broken:
            await asked
    assert broken.value.outcome_unknown is True


async def test_a_stale_replica_answers_every_reading_call(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Over the wire keys, limits and today's calls are as old as the replica; a later revision is not there."""
    client = await connected(hub)
    key = acme.issue_key(permissions=["read"])
    with hub.stale_replica():
        revision = hub.service.revision
        acme.set_plan("free")
        key.revoke()
        assert (await client.limits(acme.id)).limits.plan == "pro"  # type: ignore[union-attr]
        answer = await client.introspect(key.secret.encode())
        assert (answer.revision, isinstance(answer.key, InactiveKey)) == (revision, False)
        assert (await client.vectorizer.get_user_collections(acme.id)).plan == "pro"
        page = await client.extensions.limits_page()
        assert (page.revision, len(page.items)) == (revision, 1)
        keys = await client.access_keys.list()
        assert (keys.revision, keys.keys[0].active) == (revision, True)
        with pytest.raises(HubUnavailableError):
            await client.limits(acme.id, min_revision=revision + 1)
        assert hub.service.revision == revision + 2
        hub.advance(60)
    assert (await client.vectorizer.get_user_collections(acme.id)).plan == "free"
    assert (await client.access_keys.list()).keys[0].active is False


async def test_a_skewed_clock(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """The hub's own time is wrong and ours is right; health says so."""
    client = await connected(hub)
    hub.skew(86_400)
    assert (await hub.limits(acme.id)).now_us == hub.clock.now()[1] + 86_400 * 10**6
    await client.open()
    parts = {part.name: part.ok for part in client.parts()}
    assert parts == {"hub": True, "hub extensions": True, "hub clock": False}
    hub.skew(0)
    await client.open()
    assert all(part.ok for part in client.parts())


async def test_a_rejected_service_key(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """401 for everything, over the wire and by methods, until the block ends; no change is signalled meanwhile."""
    client = await connected(hub)
    with hub.service_key_rejected():
        assert hub.try_changes(None) is None
        for asked in (hub, client):
            with pytest.raises(HubUnavailableError) as caught:
                await asked.limits(acme.id)
            assert verdict(caught.value) == (HubUnavailableError, False, None, False)
    assert (await client.limits(acme.id)).limits is not None


async def test_an_extension_that_vanishes_and_comes_back(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Within the block it is neither announced nor there; the client takes that for an outage."""
    client = await connected(hub)
    with hub.without("limits", "idempotency"):
        with pytest.raises(HubUnavailableError):
            await client.limits(acme.id)
        with pytest.raises(HubUnavailableError, match="missing"):
            await client.open()
        assert (await hub.limits(acme.id)).limits is not None
    await client.open()
    assert (await client.limits(acme.id)).limits is not None


async def test_another_hub_and_an_earlier_one(hub: FakeHiveHub) -> None:
    """A client that knows the hub refuses another under its address, and the same in a smaller epoch."""
    client = await connected(hub)
    before = hub.hub_id
    assert hub.become_another_hub() == hub.hub_id != before
    with pytest.raises(HubUnavailableError, match="another hub"):
        await client.open()
    second = await connected(hub)
    hub.start_epoch()
    hub.start_epoch()
    await second.open()
    hub.set_epoch(2)
    with pytest.raises(HubUnavailableError, match="went back"):
        await second.open()


async def test_cursors_of_another_hub_or_epoch_are_reset(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Whatever was followed is lost with it."""
    for change in (hub.become_another_hub, hub.start_epoch, lambda: hub.set_epoch(1), hub.reset):
        acme_events = (await hub.changes(None)).cursor
        change()
        assert (await hub.changes(acme_events, wait_seconds=0)).reset is True


async def test_a_reset_is_a_new_beginning(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Tenants, keys, usage, faults and calls are gone; the service key still opens, and the epoch is larger."""
    client = await connected(hub)
    key = acme.issue_key(permissions=["read"])
    await hub.report(usage(acme, 3))
    hub.skew(60)
    hub.fail(status=503, times=None)
    hub.service.set_extensions([])
    epoch = hub.service.epoch
    hub.reset()
    assert (hub.tenants, hub.calls, hub.planted) == ((), (), [])
    assert (hub.service.epoch, len(hub.service.extensions)) == (epoch + 1, 7)
    assert isinstance((await hub.introspect(key.secret.encode())).key, InactiveKey)
    assert await hub.report(usage(hub.add_tenant("acme"), 1, sequence=4)) == SourceConflict(last_sequence=0)
    await client.open()
    assert hub.service.clock.now() == hub.clock.now()


# --- the journal -----------------------------------------------------------------------------------------------------


async def test_every_call_of_the_wire_is_journalled_and_met(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Whichever call it is: it stands in the journal by its name, a fault stops it, and no secret is written down."""
    client = await connected(hub)
    made = await client.access_keys.generate_for(acme.id, service="synap", name="k", permissions=["read"])
    collection = await client.vectorizer.create_collection(acme.id, name="docs", project_id=acme.id, dimension=3)
    await client.synap.create_resource(acme.id, resource_type="queue", name="jobs")
    of, user = collection.collection_id, acme.id
    none = {"nodes_created": 0, "relationships_created": 0, "storage_bytes": 0, "credits_used": 0}
    asks: dict[str, Callable[[], Awaitable[object]]] = {
        "introspect": lambda: client.introspect(made.access_key.encode()),
        "introspect_batch": lambda: client.introspect_batch([b"d" * 32]),
        "limits": lambda: client.limits(user),
        "limits_batch": lambda: client.limits_batch([user]),
        "limits_page": client.extensions.limits_page,
        "changes": lambda: client.changes(None),
        "report": lambda: client.report(usage(acme, 1)),
        "announcement": client.extensions.announcement,
        "access_keys.generate": lambda: client.access_keys.generate(service="synap", name="k", permissions=["read"]),
        "access_keys.list": client.access_keys.list,
        "access_keys.get": lambda: client.access_keys.get(made.access_key_id),
        "access_keys.rotate": lambda: client.access_keys.rotate(
            made.access_key_id, overlap_seconds=60, expected_version=1
        ),
        "access_keys.revoke": lambda: client.access_keys.revoke(made.access_key_id),
        "vectorizer.get_user_collections": lambda: client.vectorizer.get_user_collections(user),
        "vectorizer.create_collection": lambda: client.vectorizer.create_collection(
            user, name="more", project_id=user, dimension=3
        ),
        "vectorizer.validate_collection": lambda: client.vectorizer.validate_collection(of, user),
        "vectorizer.update_usage": lambda: client.vectorizer.update_usage(of, vector_count=1, storage_bytes=1),
        "vectorizer.check_quota": lambda: client.vectorizer.check_quota(user, operation="insert"),
        "nexus.get_user_database": lambda: client.nexus.get_user_database(user),
        "nexus.check_quota": lambda: client.nexus.check_quota(user, operation="insert"),
        "nexus.consume_credits": lambda: client.nexus.consume_credits(user, amount=1, operation="x"),
        "nexus.update_usage": lambda: client.nexus.update_usage(user, **none),
        "synap.get_user_resources": lambda: client.synap.get_user_resources(user),
        "synap.validate_resource": lambda: client.synap.validate_resource("jobs", user, resource_type="queue"),
        "synap.create_resource": lambda: client.synap.create_resource(user, resource_type="stream", name="s"),
        "synap.update_usage": lambda: client.synap.update_usage(
            user, resource_type="queue", resource_name="jobs", message_count=1
        ),
        "synap.check_quota": lambda: client.synap.check_quota(user, operation="insert"),
        "lesstokens.get_user_tokens": lambda: client.lesstokens.get_user_tokens(user),
        "lesstokens.validate_tokens": lambda: client.lesstokens.validate_tokens(user, required=1),
        "lesstokens.consume_tokens": lambda: client.lesstokens.consume_tokens(user, amount=1, operation="x"),
        "lesstokens.check_limit": lambda: client.lesstokens.check_limit(user),
        "lesstokens.check_quota": lambda: client.lesstokens.check_quota(user, operation="insert"),
    }
    assert set(asks) == set(CALLS)
    for name, ask in asks.items():
        hub.forget_calls()
        hub.fail(name, status=503)
        with pytest.raises(HubUnavailableError):
            await ask()
        hub.advance(60)
        await ask()
        assert [(call.name, call.outcome) for call in hub.calls] == [(name, "status 503"), (name, "answered")]
        text = "".join(f"{call!r}{call}" for call in hub.calls)
        assert made.access_key not in text
        assert hub.service_key not in text


async def test_a_refusal_is_journalled_with_its_status(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """What the hub itself refuses stands there as refused; a fault that was to spoil the answer leaves the refusal."""
    client = await connected(hub)
    acme.set_plan("free")
    with pytest.raises(HubRefusedError):
        await client.lesstokens.consume_tokens(acme.id, amount=10_000, operation="x")
    assert hub.calls[-1].outcome == "refused 429"
    hub.fail("lesstokens.consume_tokens", reply="malformed")
    with pytest.raises(HubRefusedError):
        await client.lesstokens.consume_tokens(acme.id, amount=10_000, operation="x")


async def test_calls_that_nobody_expected(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Where nothing is expected everything may come; from then on, what was not named is listed."""
    await hub.limits(acme.id)
    hub.assert_expected()
    hub.expect("limits")
    hub.expect("changes")
    await hub.limits(acme.id)
    await hub.changes(None)
    hub.assert_expected()
    await hub.introspect(b"x")
    with pytest.raises(AssertionError, match=r"introspect\(key='unknown'"):
        hub.assert_expected()
    hub.forget_calls()
    hub.assert_expected()


async def test_faults_and_tenants_in_a_file(tmp_path: Any) -> None:
    """A fake that is kept has its tenants by name again, and its service keys."""
    hub = FakeHiveHub(state=tmp_path / "hub.db")
    key, acme = hub.service_key, hub.add_tenant("acme", plan="pro")
    acme.suspend()
    hub.close()
    again = FakeHiveHub(state=tmp_path / "hub.db")
    try:
        assert (again.tenant("acme").id, again.tenant("acme").status) == (acme.id, TenantStatus.SUSPENDED)
        before, now = again.authenticate(key), again.authenticate(again.service_key)
        assert before is not None
        assert now is not None
        assert (before.identity, before.key_id == now.key_id) == (now.identity, False)
        again.reset()
        assert again.tenants == ()
    finally:
        again.close()
    empty = FakeHiveHub(state=tmp_path / "hub.db")
    assert (empty.tenants, empty.hub_id) == ((), hub.hub_id)
    empty.close()
