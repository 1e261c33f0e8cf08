"""The fake hub: friendly to tests, deterministic in time, and false only where a test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

import hivetenancy.testing
from hivetenancy.access_keys.format import digest
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.ids import Environment, Permission, TenantId
from hivetenancy.plans import Plan, QuotaKind, QuotaLimit, RatePolicy
from hivetenancy.sources import (
    ChangeType,
    ControlPlane,
    InactiveKey,
    InactiveReason,
    KeyRecord,
    SignalsChanges,
    TenantStatus,
    UsageLine,
    UsageReply,
    UsageReport,
)
from hivetenancy.testing import FakeHiveHub, FakeTenant, IssuedKey, ManualClock, ShiftedClock
from hivetenancy.testing.faults import SOURCE_CALLS
from hivetenancy.testing.hub import JOURNAL

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


async def reason(hub: FakeHiveHub, key: IssuedKey) -> InactiveReason | None:
    """Why a key is not active; ``None``: it is."""
    found = (await hub.introspect(key.secret.encode())).key
    return found.reason if isinstance(found, InactiveKey) else None


def usage(tenant: FakeTenant, value: int, *, sequence: int = 1) -> UsageReport:
    """A report of so many keys in all."""
    line = UsageLine(tenant_id=tenant.id, dimension="keys", resource=None, kind=QuotaKind.CONTRIBUTION, value=value)
    return UsageReport(source=SOURCE, writer="w", sequence=sequence, previous_sequence=sequence - 1, lines=(line,))


#: Each call that code under test can make, by its name.
QUESTIONS: dict[str, Callable[[ControlPlane, FakeTenant], Awaitable[object]]] = {
    "introspect": lambda hub, _: hub.introspect(b"hh_test_unknown"),
    "introspect_batch": lambda hub, _: hub.introspect_batch([digest(b"x")]),
    "limits": lambda hub, acme: hub.limits(acme.id),
    "limits_batch": lambda hub, acme: hub.limits_batch([acme.id]),
    "changes": lambda hub, _: hub.changes(None),
    "report": lambda hub, acme: hub.report(usage(acme, 3)),
}


# --- what a test does ------------------------------------------------------------------------------------------------


def test_the_first_lines_work_without_a_loop() -> None:
    """A fake is built, filled and changed without a running loop, by an ordinary function."""
    hub = FakeHiveHub()
    acme = hub.add_tenant("acme", plan="pro")
    key = acme.issue_key(permissions=["read", "write"])
    assert key.headers == {"Authorization": f"Bearer {key.secret}"}
    assert isinstance(hub.clock, ShiftedClock)
    assert (hub.tenant("acme"), acme.plan, acme.status) == (acme, "pro", TenantStatus.ACTIVE)
    assert (hub.authority, hub.hub_id) == ("fake", hub.service.hub_id)
    assert hub.plans.keys() == {"free", "pro", "enterprise"}


async def test_a_key_as_it_was_asked_for(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Every argument of ``issue_key`` reaches the record, times counted from now."""
    now = hub.clock.now()[1]
    key = acme.issue_key(
        name="ci",
        permissions=["read", "delete"],
        functions=["kv.*"],
        resources=["r"],
        networks=["10.0.0.0/8"],
        expires_in=60,
        valid_in=0.5,
        environment=Environment.LIVE,
    )
    assert key.secret.startswith("hh_test_"), "a fake's secrets never look live"
    hub.advance(1)
    found = (await hub.introspect(key.secret.encode())).key
    assert isinstance(found, KeyRecord)
    assert (found.name, found.tenant_id, found.key_id) == ("ci", acme.id, key.key_id)
    assert (found.permissions, found.functions) == ({Permission.READ, Permission.DELETE}, ("kv.*",))
    assert (found.resources, found.networks, found.environment) == (("r",), ("10.0.0.0/8",), Environment.LIVE)
    assert (found.not_before_us, found.expires_at_us) == (now + 500_000, now + 60_000_000)


async def test_the_life_of_a_key(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A key can be changed, rotated, expired and revoked, each seen by the next question."""
    key = acme.issue_key(permissions=["read"])
    key.change(permissions=["write"], functions=["a"])
    found = (await hub.introspect(key.secret.encode())).key
    assert isinstance(found, KeyRecord)
    assert (found.permissions, found.functions) == ({Permission.WRITE}, ("a",))
    new = key.rotate(overlap_seconds=10)
    assert (new.key_id, new.version) == (key.key_id, 2)
    assert [await reason(hub, each) for each in (key, new)] == [None, None]
    hub.advance(10)
    assert [await reason(hub, each) for each in (key, new)] == [InactiveReason.EXPIRED, None]
    newest = new.rotate(compromised=True)
    assert [await reason(hub, each) for each in (new, newest)] == [InactiveReason.REVOKED, None]
    newest.expire(expires_in=5)
    assert await reason(hub, newest) is None
    newest.expire()
    assert await reason(hub, newest) is InactiveReason.EXPIRED
    newest.revoke()
    newest.revoke()
    assert await reason(hub, newest) is InactiveReason.REVOKED
    assert await reason(hub, hub.issue_unowned_key()) is InactiveReason.UNOWNED


async def test_the_life_of_a_tenant(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A tenant can be suspended, resumed and deleted; its name is free afterwards."""
    key = acme.issue_key(permissions=["read"])
    acme.suspend()
    assert await reason(hub, key) is InactiveReason.SUSPENDED
    acme.resume()
    assert await reason(hub, key) is None
    acme.begin_deletion()
    assert acme.status is TenantStatus.DELETING
    acme.delete()
    assert await reason(hub, key) is InactiveReason.UNKNOWN
    assert hub.add_tenant("acme").id != acme.id


async def test_limits_of_a_tenant(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Plans, limits, quotas and rates can be set and dropped."""
    acme.set_plan("free")
    acme.set_limit("storage_bytes", 100)
    acme.set_quota(QuotaLimit(dimension="widgets", limit=2, kind=QuotaKind.CONTRIBUTION))
    acme.set_rates(RatePolicy(limit=1, period_us=1, name="own"))
    found = (await hub.limits(acme.id)).limits
    assert found is not None
    by_name = {cell.limit.dimension: cell.limit.limit for cell in found.quotas}
    assert (found.plan, by_name["storage_bytes"], by_name["widgets"]) == ("free", 100, 2)
    assert [policy.name for policy in found.rates] == ["own"]
    acme.clear_limits()
    hub.define_plan(Plan(name="free"))
    found = (await hub.limits(acme.id)).limits
    assert found is not None
    assert (found.quotas, found.rates) == ((), ())


def test_a_name_stands_once(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A second tenant of a name, and a name that is not there, are errors that say what to do."""
    with pytest.raises(ConfigurationError, match=r"hub\.tenant\('acme'\) returns it"):
        hub.add_tenant("acme")
    with pytest.raises(ConfigurationError, match=r"there are \['acme'\]"):
        hub.tenant("globex")


def test_plans_of_ones_own() -> None:
    """A fake takes plans as a list or by name, in the place of or beside its own."""
    tiny = Plan(name="tiny")
    for plans in ([tiny], {"tiny": tiny}):
        assert FakeHiveHub(plans=plans).add_tenant("acme", plan="tiny").plan == "tiny"


def test_no_secret_can_be_printed(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A secret is an attribute and in no repr."""
    key = acme.issue_key(permissions=["read"])
    assert key.secret
    assert key.secret not in f"{key!r} {acme!r} {hub!r} {hub.service!r} {vars(hub)!r} {vars(acme)!r}"
    assert (str(key.key_id) in repr(key), "acme" in repr(acme)) == (True, True)


def test_a_seed_repeats_and_marks() -> None:
    """A seeded fake makes the same ids and secrets each time, and says so in each secret; others differ."""

    def made(seed: int | None) -> tuple[str, str, str, str]:
        hub = FakeHiveHub(seed=seed)
        tenant = hub.add_tenant("acme")
        key = tenant.issue_key(permissions=["read"])
        return hub.hub_id, tenant.id, key.key_id, key.secret

    assert made(7) == made(7)
    assert len({made(seed) for seed in (7, 8, None, None)}) == 4
    assert made(7)[3].startswith("hh_test_seeded_")
    assert not made(None)[3].startswith("hh_test_seeded_")


async def test_time_is_the_hubs_own(acme: FakeTenant, hub: FakeHiveHub) -> None:
    """``advance`` moves the clock of keys and answers, by a clock that runs as well as by one that stands."""
    for each in (hub, FakeHiveHub()):
        tenant = each.tenant("acme") if each is hub else each.add_tenant("acme")
        key = tenant.issue_key(permissions=["read"], expires_in=3_600)
        before = (await each.introspect(b"x")).now_us
        assert await reason(each, key) is None
        each.advance(3_600)
        assert await reason(each, key) is InactiveReason.EXPIRED
        assert (await each.introspect(b"x")).now_us >= before + 3_600_000_000


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCE_CALLS)
async def test_an_outage_stops_everything_and_ends(hub: FakeHiveHub, acme: FakeTenant, name: str) -> None:
    """In an outage every call fails, by block or by switch, and works again afterwards."""
    ask = QUESTIONS[name]
    with hub.outage(), hub.outage():
        assert hub.down
        with pytest.raises(HubUnavailableError, match=rf"does not answer {name}"):
            await ask(hub, acme)
    hub.down = True
    with pytest.raises(HubUnavailableError):
        await ask(hub, acme)
    assert hub.try_changes(None) is None
    hub.down = False
    assert not hub.down
    await ask(hub, acme)
    assert hub.try_changes(None) is not None


@pytest.mark.parametrize("name", SOURCE_CALLS)
async def test_an_outage_of_one_call_leaves_the_others(hub: FakeHiveHub, acme: FakeTenant, name: str) -> None:
    """Naming a call takes that one away and no other."""
    with hub.outage(name):
        assert not hub.down
        for other, ask in QUESTIONS.items():
            if other == name:
                with pytest.raises(HubUnavailableError):
                    await ask(hub, acme)
            else:
                await ask(hub, acme)


async def test_the_hub_changes_while_it_is_out_of_reach(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """What a test does in an outage is done, signalled to nobody then, and there when it ends."""
    key = acme.issue_key(permissions=["read"])
    cursor = (await hub.changes(None)).cursor
    calls: list[str] = []
    end = hub.subscribe(lambda: calls.append("woken"))
    with hub.outage():
        key.revoke()
        assert calls == []
    assert calls == ["woken"], "once when it ends"
    batch = hub.try_changes(cursor)
    assert batch is not None
    assert [event.type for event in batch.events] == [ChangeType.KEY_REVOKED]
    acme.suspend()
    end()
    acme.resume()
    assert len(calls) == 2


async def test_an_outage_breaks_a_poll_that_waits(hub: FakeHiveHub) -> None:
    """A poll that waits when the hub goes down fails at once, instead of waiting the outage out."""
    cursor = (await hub.changes(None)).cursor
    poll = asyncio.create_task(hub.changes(cursor, wait_seconds=25))
    await asyncio.sleep(0)
    with hub.outage():
        with pytest.raises(HubUnavailableError):
            await asyncio.wait_for(poll, 30)


async def test_advancing_the_clock_ends_a_poll(hub: FakeHiveHub) -> None:
    """Time that is pushed ahead does not leave a poll waiting in real time."""
    cursor = (await hub.changes(None)).cursor
    poll = asyncio.create_task(hub.changes(cursor, wait_seconds=25))
    await asyncio.sleep(0)
    hub.advance(30)
    assert (await asyncio.wait_for(poll, 30)).events == ()


async def test_a_poll_is_woken_from_another_thread(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A change made by a thread answers a poll of this loop."""
    cursor = (await hub.changes(None)).cursor
    poll = asyncio.create_task(hub.changes(cursor, wait_seconds=25))
    await asyncio.sleep(0)
    thread = threading.Thread(target=acme.suspend)
    thread.start()
    assert len((await asyncio.wait_for(poll, 30)).events) == 1
    thread.join(30)


async def test_a_lost_reply_did_its_work(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A report whose reply is lost was counted; sent again it gives the first reply and counts once."""
    hub.lose_next_reply("report", times=2)
    for _ in range(2):
        with pytest.raises(HubUnavailableError, match="lost the reply to report"):
            await hub.report(usage(acme, 3))
        assert acme.used("keys") == 3
    assert await hub.report(usage(acme, 3)) == UsageReply(last_sequence=1)
    hub.assert_reported(acme, "keys", 3)
    assert [call.outcome for call in hub.calls] == ["reply lost", "reply lost", "answered"]


async def test_a_held_reply_is_older_than_what_happened_since(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A reply held while the key is revoked says that it is active, at the revision before."""
    key = acme.issue_key(permissions=["read"])
    before = hub.service.revision
    with hub.hold("introspect") as held:
        asked = asyncio.create_task(hub.introspect(key.secret.encode()))
        await held.wait_for(1)
        assert (held.count, held.released, repr(held)) == (1, False, "<Held introspect: 1 held>")
        key.revoke()
        held.release()
        answer = await asyncio.wait_for(asked, 30)
        assert (await hub.introspect(key.secret.encode())).revision == before + 1, "released holds nothing more"
    assert (answer.revision, isinstance(answer.key, KeyRecord), held.count) == (before, True, 0)


async def test_held_replies_are_let_go_with_the_block(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Leaving the block releases; a call that is cancelled meanwhile is held no more; waiting has an end."""
    with hub.hold("limits") as held:
        first, second = (asyncio.create_task(hub.limits(acme.id)) for _ in range(2))
        await held.wait_for(2)
        first.cancel()
        await asyncio.wait([first])
        assert held.count == 1
        with pytest.raises(TimeoutError, match=r"1 replies to limits are held, waited 0\.01 s for 2"):
            await held.wait_for(2, timeout=0.01)
    assert (await asyncio.wait_for(second, 30)).limits is not None


async def test_a_held_feed_is_silent_until_released(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """While polls are held nothing is to be had at once either; subscribers are called when they are released."""
    calls: list[bool] = []
    hub.subscribe(lambda: calls.append(hub.try_changes(None) is not None))
    with hub.hold("changes") as held:
        acme.suspend()
        held.release()
    assert calls[:2] == [False, True]


async def test_an_outage_reaches_a_held_reply(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """A reply that was held when the hub went down does not arrive."""
    with hub.hold("limits") as held:
        asked = asyncio.create_task(hub.limits(acme.id))
        await held.wait_for(1)
        hub.down = True
        held.release()
        with pytest.raises(HubUnavailableError):
            await asyncio.wait_for(asked, 30)


async def test_a_stale_replica_answers_from_the_past(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Within the block keys and limits are as they were; who knows of more is refused; the feed goes on."""
    key = acme.issue_key(permissions=["read"])
    known = digest(key.secret.encode())
    cursor = (await hub.changes(None)).cursor
    with hub.stale_replica():
        key.revoke()
        acme.set_plan("free")
        now = hub.service.revision
        old = await hub.introspect(key.secret.encode())
        assert (old.revision, isinstance(old.key, KeyRecord)) == (now - 2, True)
        assert isinstance((await hub.introspect_batch([known])).keys[0], KeyRecord)
        limits = [(await hub.limits(acme.id)).limits, *(await hub.limits_batch([acme.id])).limits]
        assert [found.plan for found in limits if found] == ["pro", "pro"]
        for ask in (
            hub.introspect(b"x", min_revision=now),
            hub.introspect_batch([], min_revision=now),
            hub.limits(acme.id, min_revision=now),
            hub.limits_batch([acme.id], min_revision=now),
        ):
            with pytest.raises(HubUnavailableError, match="replica behind"):
                await ask
        assert len((await hub.changes(cursor)).events) == 2
    assert await reason(hub, key) is InactiveReason.REVOKED


async def test_a_new_epoch_resets_the_feed(hub: FakeHiveHub) -> None:
    """Losing history gives every reader a reset and answers a larger epoch."""
    batch = await hub.changes(None)
    hub.start_epoch()
    after = await hub.changes(batch.cursor)
    assert (after.reset, after.epoch > batch.epoch) == (True, True)


# --- journal and assertions ------------------------------------------------------------------------------------------


async def test_the_journal_holds_every_call_and_no_secret(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Each call stands in the journal once, in order, with the key by its id and never by its secret."""
    key = acme.issue_key(permissions=["read"])
    await hub.introspect(key.secret.encode(), min_revision=1)
    for ask in QUESTIONS.values():
        await ask(hub, acme)
    assert [call.name for call in hub.calls] == ["introspect", *QUESTIONS]
    assert hub.calls[0].arguments == {"key": key.key_id, "min_revision": 1}
    assert hub.calls[1].arguments["key"] == "unknown"
    assert hub.calls[0].at_us == hub.clock.now()[1]
    text = "\n".join(f"{call!r} {call}" for call in hub.calls)
    assert str(hub.calls[1]) == "introspect(key='unknown', min_revision=None): answered"
    for secret in (key.secret, digest(key.secret.encode()).hex(), "hh_test_unknown", str(digest(b"x"))):
        assert secret not in text


async def test_no_error_holds_a_secret(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """What a fault says about a call with a key does not say the key."""
    key = acme.issue_key(permissions=["read"])
    messages = []
    for fault in (hub.outage("introspect"), hub.stale_replica()):
        with fault:
            with pytest.raises(HubUnavailableError) as caught:
                await hub.introspect(key.secret.encode(), min_revision=99)
            messages.append(f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}")
    hub.lose_next_reply("introspect")
    with pytest.raises(HubUnavailableError) as lost:
        await hub.introspect(key.secret.encode())
    assert key.secret not in " ".join([*messages, repr(lost.value)])


async def test_counting_calls(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Calls are counted, in outages too, and a wrong count shows what was called."""
    hub.assert_calls("introspect", 0)
    with pytest.raises(AssertionError, match="nothing"):
        hub.assert_calls("introspect", 1)
    with hub.outage():
        with pytest.raises(HubUnavailableError):
            await hub.introspect(b"x")
    await hub.limits(acme.id)
    hub.assert_calls("introspect", 1)
    assert hub.count("limits") == 1
    with pytest.raises(AssertionError, match=r"(?s)introspect was called 1 times, not 2.*outage.*limits\("):
        hub.assert_calls("introspect", 2)
    hub.forget_calls()
    assert (hub.calls, hub.count("introspect")) == ((), 0)


async def test_the_journal_is_bounded(hub: FakeHiveHub) -> None:
    """The journal keeps the latest calls; the count goes on."""
    for _ in range(JOURNAL + 5):
        await hub.introspect(b"x")
    assert len(hub.calls) == JOURNAL
    hub.assert_calls("introspect", JOURNAL + 5)


async def test_asserting_what_was_reported(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """What was reported is asserted by tenant or id, and a wrong amount shows each source."""
    hub.assert_reported(acme, "keys", 0)
    await hub.report(usage(acme, 3))
    hub.assert_reported(acme.id, "keys", 3)
    with pytest.raises(AssertionError, match=r"acme reported 3 keys, not 4; by source: 55555555: 3; 1 reports came"):
        hub.assert_reported(acme, "keys", 4)
    with pytest.raises(AssertionError, match=r"0 vectors of 'docs', not 1; by source: none"):
        hub.assert_reported(acme, "vectors", 1, resource="docs")


MISUSES: dict[str, Callable[[FakeHiveHub], object]] = {
    "outage": lambda hub: hub.outage("validate").__enter__(),
    "lose": lambda hub: hub.lose_next_reply("validate"),
    "lose none": lambda hub: hub.lose_next_reply("report", times=0),
    "hold": lambda hub: hub.hold("validate").__enter__(),
    "count": lambda hub: hub.count("validate"),
    "assert": lambda hub: hub.assert_calls("validate", 1),
    "tenant": lambda hub: hub.assert_reported(TenantId("acme"), "keys", 1),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_wrong_name_is_an_error(hub: FakeHiveHub, misuse: str) -> None:
    """A call that no hub has, and an amount that means nothing, are errors and never silently without effect."""
    with pytest.raises(ConfigurationError):
        MISUSES[misuse](hub)


# --- several loops and threads ---------------------------------------------------------------------------------------


def test_one_fake_serves_several_loops(hub: FakeHiveHub, acme: FakeTenant) -> None:
    """Two loops in two threads use one fake at once; every call is counted."""
    keys = [acme.issue_key(permissions=["read"]) for _ in range(20)]
    failed: list[object] = []

    async def use() -> None:
        for key in keys:
            if await reason(hub, key) is not None:
                failed.append(key)
            await hub.limits(acme.id)

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert (hub.count("introspect"), hub.count("limits")) == (40, 40)


def test_a_fake_is_a_control_plane() -> None:
    """The fake can stand wherever a control plane can, which mypy checks, and signals its changes."""
    plane: ControlPlane = FakeHiveHub()
    signals: SignalsChanges = FakeHiveHub()
    assert plane.hub_id
    assert signals.try_changes(None) is not None


# --- the front door --------------------------------------------------------------------------------------------------


def test_the_front_door_is_lazy_and_honest() -> None:
    """Every public name is there, and a wrong one is an error that names the module."""
    for name in hivetenancy.testing.__all__:
        assert getattr(hivetenancy.testing, name).__name__ == name
    with pytest.raises(AttributeError, match=r"hivetenancy\.testing.*nothing"):
        _ = hivetenancy.testing.nothing
