"""Limits out of the calls of each service: which number limits what, and what nobody says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubContractError, HubRefusedError, HubUnavailableError
from hivetenancy.hub import wire
from hivetenancy.hub.client import HiveHub
from hivetenancy.hub.composed import PROFILES, ComposedLimits, ServiceProfile
from hivetenancy.hub.wire import Service
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.limits import CachedLimits
from hivetenancy.plans import CANONICAL, Plan, QuotaKind, QuotaLimit, RatePolicy, quota_limit
from hivetenancy.sources import QuotaStanding, TenantLimits

from .wired import UNKNOWN, Got, Sent, Wired

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def nothing(_tenant: TenantId, _dimension: Dimension, _resource: str | None) -> int:
    """A host that reported nothing yet."""
    return 0


def composed(world: Wired, service: str, *plans: Plan, confirmed: Any = nothing) -> ComposedLimits:
    """Limits of one service of a hub of today's wire."""
    hub: HiveHub = world.hub
    return ComposedLimits(
        hub,
        PROFILES[Service(service)],
        clock=world.clock,
        plans={plan.name: plan for plan in plans},
        confirmed=confirmed,
    )


def today(**options: Any) -> Wired:
    """A hub that announces nothing."""
    return Wired(extensions=(), **options)


async def found(source: ComposedLimits, tenant: TenantId) -> TenantLimits:
    """The limits of a tenant that is there."""
    limits = (await source.limits(tenant)).limits
    assert limits is not None
    return limits


def cells(limits: TenantLimits) -> dict[tuple[Dimension, str | None], tuple[int | None, int]]:
    """Limit and use, by cell."""
    return {(each.limit.dimension, each.limit.resource): (each.limit.limit, each.used) for each in limits.quotas}


async def test_d11_one_number_was_used_for_three_resources() -> None:
    """Each number of the hub limits the one thing that its call is about; what no call names is not declared."""
    world = today()
    desk, user = world.service.desk, world.acme
    docs = desk.create_collection(user, "docs", user, 3).collection_id
    more = desk.create_collection(user, "more", user, 3).collection_id
    desk.update_collection_usage(docs, 7, 70)
    limits = await found(composed(world, "vectorizer"), user)
    assert cells(limits) == {
        ("collections", None): (50, 2),
        ("vectors", docs): (100_000, 7),
        ("vectors", more): (100_000, 0),
    }
    assert limits.plan == "pro"
    assert {each.limit.kind for each in limits.quotas} == {QuotaKind.CONTRIBUTION}
    desk.update_nexus_usage(user, nodes_created=2, relationships_created=3, storage_bytes=5 * MIB - 70, credits_used=11)
    assert cells(await found(composed(world, "nexus"), user)) == {
        ("nodes", None): (100_000, 2),
        ("relationships", None): (500_000, 3),
        ("storage_bytes", None): (10 * 1024 * MIB, 5 * MIB),
        ("credits", None): (10_000, 11),
    }
    desk.create_resource(user, "queue", "jobs")
    desk.consume_tokens(user, 30, "x")
    assert cells(await found(composed(world, "synap"), user)) == {
        ("queues", None): (100, 1),
        ("streams", None): (None, 0),
    }
    assert cells(await found(composed(world, "lesstokens"), user)) == {("tokens", None): (2_000, 30)}


def test_every_profile_names_dimensions_that_there_are() -> None:
    """One for each service, each dimension canonical, and no operation asked about two."""
    assert set(PROFILES) == set(Service)
    for profile in PROFILES.values():
        assert set(profile.checks) <= set(CANONICAL)
        assert len(set(profile.checks.values())) == len(profile.checks)


async def test_a_count_of_a_month_has_its_month() -> None:
    """Credits and tokens, of the month that it is; a gauge has none."""
    world = today()
    for service, counted in (("nexus", {"credits"}), ("lesstokens", {"tokens"}), ("synap", set())):
        limits = await found(composed(world, service), world.acme)
        months = {each.limit.dimension: each for each in limits.quotas if each.limit.kind is QuotaKind.COUNTER}
        assert set(months) == counted
        for each in months.values():
            start, end = each.period_start_us, each.resets_at_us
            assert start is not None
            assert end is not None
            assert start <= world.clock.now()[1] < end
            assert end - start == 31 * 86_400 * SECOND_US  # January 2100


async def test_unlimited_is_said_in_three_ways() -> None:
    """The largest number of each width is no limit, and a number beyond what we count with is none either."""
    world = today()
    for most in (2**64 - 1, 2**63 - 1, 2**53):
        with world.bent(lambda _sent, got, m=most: changed(got, ("tokens", "total"), m)):  # type: ignore[misc]
            assert cells(await found(composed(world, "lesstokens"), world.acme)) == {("tokens", None): (None, 0)}
    with world.bent(lambda _sent, got: changed(got, ("collection_limit",), 2**32 - 1)):
        assert cells(await found(composed(world, "vectorizer"), world.acme)) == {("collections", None): (None, 0)}
    with world.bent(lambda _sent, got: changed(got, ("tokens", "total"), 2**53 - 1)):
        limits = await found(composed(world, "lesstokens"), world.acme)
    assert cells(limits) == {("tokens", None): (2**53 - 1, 0)}


def changed(got: Got, place: tuple[str, ...], value: Any) -> Got:
    """A reply with one value changed."""
    body = got.json
    inside = body
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value
    return Got(got.status, json.dumps(body).encode(), got.headers)


async def test_a_user_that_is_not_there_is_nobody() -> None:
    """By every service; any other refusal is none of that, and a failure is a failure."""
    world = today()
    for service in Service:
        source = composed(world, service.value)
        assert (await source.limits(UNKNOWN)).limits is None
        for status, error in ((400, HubRefusedError), (503, HubUnavailableError), (418, HubContractError)):
            world.clock.advance(61)
            with world.bent(lambda _sent, _got, s=status: Got(s, b'{"error": "x"}')):  # type: ignore[misc]
                with pytest.raises(error):
                    await source.limits(world.acme)
        world.clock.advance(61)
        assert (await source.limits(world.acme)).limits is not None


@pytest.mark.parametrize(
    "verdict, expected",
    [
        ({"allowed": True}, None),
        ({"allowed": True, "limit": 10}, (10, 0)),
        ({"allowed": True, "limit": 10, "remaining": 4}, (10, 6)),
        ({"allowed": True, "limit": 10, "remaining": -3}, (10, 13)),
        ({"allowed": True, "limit": 10, "remaining": 20}, (10, 0)),
        ({"allowed": True, "limit": -1}, None),
        ({"allowed": False}, (0, 0)),
        ({"allowed": False, "limit": -1}, (0, 0)),
        ({"allowed": False, "limit": 10}, (10, 10)),
        ({"allowed": False, "limit": 10, "remaining": 4}, (10, 10)),
        ({"allowed": False, "limit": 10, "remaining": -2}, (10, 12)),
    ],
    ids=str,
)
async def test_what_a_verdict_is_worth(verdict: dict[str, Any], expected: tuple[int, int] | None) -> None:
    """A "no" leaves no room, with numbers or without; a "yes" without a limit tells nothing."""
    world = today()

    def bend(sent: Sent, got: Got) -> Got:
        return Got(200, json.dumps(verdict).encode()) if sent.path == "/synap/quota" else got

    asked = ServiceProfile(service=Service.SYNAP, checks={"queues": "create_queue", "operations": "count"})
    source = ComposedLimits(world.hub, asked, clock=world.clock, plans={}, confirmed=nothing)
    with world.bent(bend):
        limits = cells(await found(source, world.acme))
    assert limits.get(("operations", None)) == expected
    assert limits[("queues", None)] == (expected or (None, 0))


async def test_what_a_host_states_is_added() -> None:
    """Rates, static limits and quotas of the plan that the hub names; what the hub limits is the hub's matter."""
    world = today()
    stated = Plan(
        name="pro",
        rates=(RatePolicy(name="r", limit=5, period_us=SECOND_US),),
        quotas=(
            quota_limit("collections", 3),
            quota_limit("storage_bytes", 1_000),
            QuotaLimit(dimension="jobs", limit=7, kind=QuotaKind.EPHEMERAL),
        ),
        statics={"payload_bytes": 9},
    )
    limits = await found(composed(world, "vectorizer", stated, Plan(name="default")), world.acme)
    assert cells(limits) == {
        ("collections", None): (50, 0),
        ("storage_bytes", None): (1_000, 0),
        ("jobs", None): (7, 0),
    }
    assert limits.rates == stated.rates
    assert limits.statics == {"payload_bytes": 9}
    other = await found(composed(world, "vectorizer", stated), world.other)
    assert cells(other) == {("collections", None): (3, 0)}
    assert other.plan == "free"
    assert not other.rates


async def test_what_the_hub_counts_without_a_limit_is_limited_by_the_host() -> None:
    """Its count stays the hub's; by the plan that is called default where the hub names none."""
    world = today()
    world.service.desk.create_resource(world.acme, "stream", "log")
    default = Plan(name="default", quotas=(quota_limit("streams", 4), quota_limit("queues", 1)))
    limits = cells(await found(composed(world, "synap", default), world.acme))
    assert limits[("streams", None)] == (4, 1)
    assert limits[("queues", None)] == (100, 0), "a limit of the hub's is not widened or narrowed by the host"


async def test_our_own_share_is_what_the_hub_confirmed_before_it_was_asked() -> None:
    """A report that is confirmed meanwhile is not taken off, so nothing is admitted twice for it."""
    world = today()
    world.service.desk.update_nexus_usage(world.acme, nodes_created=20, credits_used=5)
    confirmed = {"nodes": 12, "credits": 5}

    def ours(tenant: TenantId, dimension: Dimension, resource: str | None) -> int:
        assert (tenant, resource) == (world.acme, None)
        return confirmed.get(dimension, 0)

    limits = await found(composed(world, "nexus", confirmed=ours), world.acme)
    own = {each.limit.dimension: each.own for each in limits.quotas}
    assert own == {"nodes": 12, "relationships": 0, "storage_bytes": 0, "credits": 5}

    def confirm(_sent: Sent, got: Got) -> Got:
        confirmed["nodes"] = 20
        return got

    with world.bent(confirm):
        limits = await found(composed(world, "nexus", confirmed=ours), world.acme)
    nodes = next(each for each in limits.quotas if each.limit.dimension == "nodes")
    assert (nodes.used, nodes.own) == (20, 12)


@pytest.mark.parametrize("collections", [1, 70])
async def test_our_own_share_of_a_collection_is_older_than_its_count(collections: int) -> None:
    """Which ones there are is known from the hub alone, so their counts are asked for after our share was taken."""
    world = today()
    world.service.set_plan(world.acme, "enterprise")
    desk = world.service.desk
    ids = [
        desk.create_collection(world.acme, f"c{number}", world.acme, 3).collection_id for number in range(collections)
    ]
    confirmed = dict.fromkeys(ids, 4)
    for each in ids:
        desk.update_collection_usage(each, 4, 0)

    def report(sent: Sent, got: Got) -> Got:
        if sent.path.endswith("/collections") and confirmed[ids[0]] == 4:
            for each in ids:  # between the first answer and whatever is asked next
                desk.update_collection_usage(each, 9, 0)
        return got

    def ours(_tenant: TenantId, _dimension: Dimension, resource: str | None) -> int:
        assert resource is not None
        return confirmed[resource]

    with world.bent(report):
        limits = await found(composed(world, "vectorizer", confirmed=ours), world.acme)
    shares = {(each.used, each.own) for each in limits.quotas if each.limit.dimension == "vectors"}
    assert shares == {(9, 4)}


async def test_a_collection_that_is_gone_or_is_anothers_has_no_room() -> None:
    """It says nothing of the tenant, which keeps its other limits."""
    world = today()
    for name in ("a", "b", "c"):
        world.service.desk.create_collection(world.acme, name, world.acme, 3)

    def bend(sent: Sent, got: Got) -> Got:
        if not sent.path.endswith("/validate"):
            return got
        if sent.path == validated[0]:
            return Got(404, b'{"error": "Collection not found"}')
        return got.but(valid=False) if sent.path == validated[1] else got

    ids = [each.collection_id for each in world.service.desk.get_user_collections(world.acme).collections]
    validated = [f"/vectorizer/collections/{each}/validate" for each in ids]
    with world.bent(bend):
        limits = cells(await found(composed(world, "vectorizer"), world.acme))
    assert [limits["vectors", each] for each in ids] == [(0, 0), (0, 0), (100_000, 0)]
    assert limits["collections", None] == (50, 3)


async def test_a_user_with_many_collections_gets_the_least_for_the_rest() -> None:
    """Not more than 64 are asked about in one refresh."""
    world = today()
    world.service.set_plan(world.acme, "enterprise")
    for number in range(70):
        world.service.desk.create_collection(world.acme, f"c{number}", world.acme, 3)
    asked: list[str] = []

    def bend(sent: Sent, got: Got) -> Got:
        if not sent.path.endswith("/validate"):
            return got
        asked.append(sent.path)
        return changed(got, ("quota", "max_vectors"), 100 + len(asked))

    with world.bent(bend):
        limits = await found(composed(world, "vectorizer"), world.acme)
    assert len(asked) == len(set(asked)) == 64
    vectors = [each.limit.limit for each in limits.quotas if each.limit.dimension == "vectors"]
    assert len(vectors) == 70
    assert sorted(vectors)[:7] == [101] * 7  # type: ignore[type-var]


async def test_a_batch_asks_a_few_at_a_time_and_keeps_the_order() -> None:
    """At most eight calls are under way, whoever is in it; somebody who is not there has the place of nobody."""
    world = today()
    tenants = [world.service.add_tenant(f"t{number}", plan="free") for number in range(30)]
    under_way = most = 0

    async def slowly(_sent: Sent, got: Got) -> Got:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(5):
            await asyncio.sleep(0)  # whoever else may start does
        under_way -= 1
        return got

    asked = [*tenants[:10], UNKNOWN, *tenants[10:]]
    with world.bent(slowly):
        batch = await composed(world, "lesstokens").limits_batch(asked)
    assert [None if each is None else each.tenant_id for each in batch.limits] == [*tenants[:10], None, *tenants[10:]]
    assert len(batch.revisions) == len(asked)
    assert 1 < most <= 8


async def test_the_first_failure_ends_a_batch() -> None:
    """With the library's own error, and no call goes on behind it."""
    world = today()
    tenants = [world.service.add_tenant(f"t{number}", plan="free") for number in range(30)]

    async def third(sent: Sent, got: Got) -> Got:
        await asyncio.sleep(0)
        if sent is world.line.sent[2]:
            raise httpx.ReadError("reset")
        return got

    with world.bent(third), pytest.raises(HubUnavailableError):
        await composed(world, "lesstokens").limits_batch(tenants)
    sent = len(world.line.sent)
    for _ in range(200):
        await asyncio.sleep(0)  # whatever still goes on would send
    assert len(world.line.sent) == sent < len(tenants)


async def test_later_answers_take_the_place_of_earlier_ones() -> None:
    """They have no order but that, so whatever is put together is kept until the next."""
    world = today()
    cached = CachedLimits(composed(world, "lesstokens"), clock=world.clock, floors=lambda: None)
    first = await cached.limits(world.acme, now=world.clock.now())
    assert first is not None
    world.service.desk.consume_tokens(world.acme, 30, "x")
    world.clock.advance(31)
    cached.try_limits(world.acme, now=world.clock.now())
    await cached.refresh()
    second = cached.try_limits(world.acme, now=world.clock.now())
    assert second is not None
    assert cells(second) == {("tokens", None): (2_000, 30)}


async def test_no_failure_becomes_a_limit() -> None:
    """Whatever call of several fails, there are no limits at all: half of them would be an unlimited other half."""
    world = today()
    world.service.desk.create_collection(world.acme, "docs", world.acme, 3)
    for service, paths in (("vectorizer", ("collections", "validate")), ("synap", ("resources", "quota"))):
        for path in paths:

            def fail(sent: Sent, got: Got, path: str = path) -> Got:
                return Got(500, b"{}") if sent.path.endswith(path) else got

            world.clock.advance(61)
            with world.bent(fail), pytest.raises(HubUnavailableError):
                await composed(world, service).limits(world.acme)


def test_a_standing_is_what_engines_read() -> None:
    """The values that this file compares are the ones of the source."""
    assert QuotaStanding(limit=quota_limit("tokens", 5)).used == 0
    assert wire.Service("synap") is Service.SYNAP
