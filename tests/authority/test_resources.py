"""The calls that count: what they answer, what they refuse, and that limits show the same numbers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from hivetenancy.authority import booking
from hivetenancy.authority.desk import Desk
from hivetenancy.authority.resources import MAX_U32, UNLIMITED, CallRefused, QuotaVerdict, VectorQuota
from hivetenancy.authority.service import HubService
from hivetenancy.authority.state import HubState, TenantRecord
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import MAX_AMOUNT
from hivetenancy.sources import QuotaStanding, UsageKind, UsageLine, UsageReport
from hivetenancy.testing import ManualClock
from tests.tiers import examples

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
ODD_NAMES = ["", "a/b", "a\\b", "a?b", "a#b", "a%20b", "a\tb", " a", "a ", ".", "..", "\u202ea", "e\u0301", "x" * 256]


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still, at the start of 2100."""
    return ManualClock()


@pytest.fixture
def hub(clock: ManualClock) -> HubService:
    """A control plane without tenants."""
    return HubService(clock=clock)


@pytest.fixture
def acme(hub: HubService) -> TenantId:
    """A tenant on the smallest plan."""
    return hub.add_tenant("acme", plan="free")


@pytest.fixture
def desk(hub: HubService) -> Desk:
    """The calls."""
    return hub.desk


def refused(call: Callable[[], object]) -> tuple[int, str | None, str, str | None]:
    """Status, code, text and field of a refusal."""
    with pytest.raises(CallRefused) as caught:
        call()
    return caught.value.status, caught.value.code, str(caught.value), caught.value.field


async def standing(
    hub: HubService, tenant: TenantId, dimension: Dimension, resource: str | None = None
) -> QuotaStanding:
    """One quota as limits show it."""
    found = (await hub.limits(tenant)).limits
    assert found is not None
    return next(cell for cell in found.quotas if (cell.limit.dimension, cell.limit.resource) == (dimension, resource))


# --- vectorizer ------------------------------------------------------------------------------------------------------


def test_a_collection_is_registered_once(hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """A collection has one id however often it is created, and is listed with its project, which is the user."""
    made = desk.create_collection(acme, "docs", acme, 384)
    again = desk.create_collection(acme, "docs", acme, 384)
    assert (made.created, again.created, made.collection_id) == (True, False, again.collection_id)
    other = desk.create_collection(acme, "Docs", acme, 3)
    listed = desk.get_user_collections(acme)
    assert (listed.user_id, listed.plan, listed.total_collections, listed.collection_limit) == (acme, "free", 2, 3)
    assert [(one.collection_id, one.collection_name, one.dimension) for one in listed.collections] == [
        (made.collection_id, "docs", 384),
        (other.collection_id, "Docs", 3),
    ]
    first = listed.collections[0]
    assert (first.project_id, first.project_name, first.vector_count) == (acme, "acme", 0)
    assert first.created_at_us == clock.now()[1]
    assert hub.used(acme, "collections") == 2


def test_a_collection_of_another_dimension(desk: Desk, acme: TenantId) -> None:
    """A name that stands for another dimension is no success."""
    desk.create_collection(acme, "docs", acme, 384)
    assert refused(lambda: desk.create_collection(acme, "docs", acme, 3))[:2] == (409, "exists_differently")


def test_the_limit_of_collections(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """The first collection beyond the limit is refused and not there; one that exists is still answered."""
    for name in "abc":
        desk.create_collection(acme, name, acme, 3)
    assert refused(lambda: desk.create_collection(acme, "d", acme, 3)) == (
        429,
        "quota_exceeded",
        "Collection limit reached",
        None,
    )
    assert not desk.create_collection(acme, "a", acme, 3).created
    assert desk.get_user_collections(acme).total_collections == hub.used(acme, "collections") == 3
    hub.set_limit(acme, "collections", 4)
    assert desk.create_collection(acme, "d", acme, 3).created


async def test_the_limit_counts_what_others_report(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Collections that came by cumulative usage take the same places."""
    line = UsageLine(tenant_id=acme, dimension="collections", resource=None, kind=UsageKind.CONTRIBUTION, value=2)
    await hub.report(UsageReport(source="a" * 32, writer="w", sequence=1, previous_sequence=0, lines=(line,)))
    desk.create_collection(acme, "a", acme, 3)
    assert refused(lambda: desk.create_collection(acme, "b", acme, 3))[1] == "quota_exceeded"
    found = await standing(hub, acme, "collections")
    assert (found.used, hub.used_by_source(acme, "collections")) == (3, {"a" * 32: 2, "call:6": 1})


@pytest.mark.parametrize("name", [*ODD_NAMES, "*", f"user_{UUID(int=7)}:a"])
def test_a_name_that_cannot_travel(hub: HubService, desk: Desk, acme: TenantId, name: str) -> None:
    """A name that the SDK would send as another is refused with its field, and nothing is made."""
    found = refused(lambda: desk.create_collection(acme, name, acme, 3))
    assert (found[0], found[1], found[3]) == (400, "bad_field", "collection_name")
    if name != "*":
        found = refused(lambda: desk.create_resource(acme, "queue", name))
        assert (found[0], found[1], found[3]) == (400, "bad_field", "resource_name")
    assert (hub.used(acme, "collections"), hub.used(acme, "queues")) == (0, 0)


@pytest.mark.parametrize("dimension", [-1, 2**32, 1.5, True, "3"])
def test_a_dimension_is_positive(desk: Desk, acme: TenantId, dimension: int) -> None:
    """A dimension is a positive number of 32 bits; 0 has the text of the SDK."""
    found = refused(lambda: desk.create_collection(acme, "a", acme, dimension))
    assert (found[0], found[1], found[3]) == (400, "bad_field", "dimension")
    assert refused(lambda: desk.create_collection(acme, "a", acme, 0)) == (
        400,
        "bad_field",
        "Invalid dimension: must be positive",
        "dimension",
    )


async def test_totals_of_a_collection_replace_each_other(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """What a collection holds is what was last said; a user's storage is the sum over collections."""
    a, b = (desk.create_collection(acme, name, acme, 3).collection_id for name in "ab")
    desk.update_collection_usage(a, 500, 1_000)
    desk.update_collection_usage(b, 7, 10)
    reply = desk.update_collection_usage(a, 300, 600)
    assert reply == desk.update_collection_usage(a, 300, 600)
    assert (reply.success, reply.updated) == (True, True)
    assert reply.quota == VectorQuota(max_vectors=10_000, current_vectors=300, can_insert=True)
    assert desk.validate_collection(a, acme).quota == reply.quota
    assert [one.vector_count for one in desk.get_user_collections(acme).collections] == [300, 7]
    assert (await standing(hub, acme, "storage_bytes")).used == 610
    assert [(await standing(hub, acme, "vectors", name)).used for name in "ab"] == [300, 7]


def test_a_full_collection_takes_no_more(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """At the limit and beyond it, which is a fact and no error, nothing can be inserted; without a limit always."""
    made = desk.create_collection(acme, "a", acme, 3).collection_id
    for count, room in ((9_999, True), (10_000, False), (10_001, False)):
        assert desk.update_collection_usage(made, count, 0).quota == VectorQuota(
            max_vectors=10_000, current_vectors=count, can_insert=room
        )
    hub.set_limit(acme, "vectors", None)
    assert desk.validate_collection(made, acme).quota == VectorQuota(
        max_vectors=UNLIMITED, current_vectors=10_001, can_insert=True
    )


def test_numbers_fit_the_wire(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Without limits every number is one that the official SDK can read."""
    for dimension in ("collections", "vectors", "nodes", "relationships", "storage_bytes", "credits", "tokens"):
        hub.set_limit(acme, dimension, None)
    made = desk.create_collection(acme, "a", acme, 3).collection_id
    database = desk.get_user_database(acme)
    tokens = desk.get_user_tokens(acme).tokens
    assert desk.get_user_collections(acme).collection_limit == MAX_U32 == 2**32 - 1
    unlimited = [
        desk.validate_collection(made, acme).quota.max_vectors,
        database.quota.max_nodes,
        database.quota.max_relationships,
        database.quota.storage_limit_mb,
        database.credits.total,
        database.credits.available,
        tokens.total,
        tokens.available,
    ]
    assert set(unlimited) == {2**63 - 1}
    assert not tokens.limit_reached
    for service in ("vectorizer", "nexus", "synap", "lesstokens"):
        assert desk.check_quota(service, acme, "insert", 10**18) == QuotaVerdict(
            allowed=True, remaining=None, limit=None
        )


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT, 1.0, True, "1"])
def test_counts_are_whole_and_bounded(hub: HubService, desk: Desk, acme: TenantId, amount: int) -> None:
    """A count that no total can hold is refused with its field, and nothing of the call is booked."""
    made = desk.create_collection(acme, "a", acme, 3).collection_id
    desk.create_resource(acme, "queue", "q")
    hub.set_limit(acme, "credits", None)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("vector_count", lambda: desk.update_collection_usage(made, amount, 1)),
        ("storage_bytes", lambda: desk.update_collection_usage(made, 1, amount)),
        ("nodes_created", lambda: desk.update_nexus_usage(acme, nodes_created=amount, storage_bytes=1)),
        ("credits_used", lambda: desk.update_nexus_usage(acme, credits_used=amount, storage_bytes=1)),
        ("message_count", lambda: desk.update_synap_usage(acme, "queue", "q", message_count=amount, storage_bytes=1)),
        ("storage_bytes", lambda: desk.update_synap_usage(acme, "queue", "q", storage_bytes=amount)),
        ("amount", lambda: desk.consume_credits(acme, amount, "op")),
    ]
    for field, call in calls:
        found = refused(call)
        assert (found[0], found[1], found[3]) == (400, "bad_field", field)
    assert [hub.used(acme, name) for name in ("storage_bytes", "nodes", "credits")] == [0, 0, 0]
    assert hub.used(acme, "vectors", resource="a") == 0


def test_a_sum_that_no_total_can_hold(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Increments are refused before their sum leaves the range, all four together."""
    desk.update_nexus_usage(acme, storage_bytes=MAX_AMOUNT - 1)
    found = refused(lambda: desk.update_nexus_usage(acme, nodes_created=5, storage_bytes=1))
    assert (found[0], found[3]) == (400, "storage_bytes")
    assert hub.used(acme, "nodes") == 0


# --- quota verdicts --------------------------------------------------------------------------------------------------

VERDICTS: list[tuple[str, str, int | None, bool, int, int]] = [
    ("vectorizer", "insert", 100 * MIB, True, 100 * MIB, 100 * MIB),
    ("vectorizer", "insert", 100 * MIB + 1, False, 100 * MIB, 100 * MIB),
    ("vectorizer", "health_check", None, True, 100 * MIB, 100 * MIB),
    ("vectorizer", "create_collection", None, True, 3, 3),
    ("vectorizer", "create_collection", MIB, True, 3, 3),
    ("nexus", "create_node", None, True, 10_000, 10_000),
    ("nexus", "create_node", 100 * MIB + 1, False, 100 * MIB, 100 * MIB),
    ("nexus", "create_relationship", 1, True, 50_000, 50_000),
    ("synap", "create_queue", None, True, 10, 10),
    ("synap", "create_stream", None, True, 10, 10),
    ("synap", "publish", 5, True, 100 * MIB, 100 * MIB),
    ("lesstokens", "api_request", 200, True, 200, 200),
    ("lesstokens", "classification", 201, False, 200, 200),
]


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_a_quota_verdict(desk: Desk, acme: TenantId, case: tuple[str, str, int | None, bool, int, int]) -> None:
    """Each operation is judged by what it takes; the triple is that of what refuses it."""
    service, operation, size, allowed, remaining, limit = case
    verdict = desk.check_quota(service, acme, operation, size)
    assert verdict == QuotaVerdict(allowed=allowed, remaining=remaining, limit=limit)


def test_a_verdict_holds_and_counts_nothing(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """A verdict follows what is used, and asking uses nothing."""
    hub.set_limit(acme, "queues", 1)
    for _ in range(3):
        assert desk.check_quota("synap", acme, "create_queue").allowed
    desk.create_resource(acme, "queue", "q")
    assert desk.check_quota("synap", acme, "create_queue") == QuotaVerdict(allowed=False, remaining=0, limit=1)
    desk.update_nexus_usage(acme, storage_bytes=101 * MIB)
    assert desk.check_quota("nexus", acme, "store") == QuotaVerdict(allowed=False, remaining=0, limit=100 * MIB)


def test_what_a_plan_does_not_name_is_refused(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """A dimension that no limit names has a limit of zero, as everywhere."""
    hub.define_plan(replace(hub.plans["free"], quotas=()))
    assert desk.check_quota("synap", acme, "create_queue") == QuotaVerdict(allowed=False, remaining=0, limit=0)
    assert refused(lambda: desk.create_resource(acme, "queue", "q"))[1] == "quota_exceeded"
    assert refused(lambda: desk.consume_tokens(acme, 1, "op"))[0] == 429


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("service", {"service": "postgres"}),
        ("operation", {"operation": ""}),
        ("operation", {"operation": "a\n"}),
        ("estimated_size", {"estimated_size": -1}),
        ("estimated_size", {"estimated_size": 2**63}),
        ("estimated_size", {"estimated_size": 0.5}),
    ],
)
def test_a_wrong_question_about_quotas(desk: Desk, acme: TenantId, field: str, wrong: dict[str, object]) -> None:
    """A question outside the wire is refused with its field."""
    question: dict[str, object] = {"service": "nexus", "project_id": acme, "operation": "insert", **wrong}
    found = refused(lambda: desk.check_quota(**question))  # type: ignore[arg-type]
    assert (found[0], found[1], found[3]) == (400, "bad_field", field)


# --- nexus and lesstokens --------------------------------------------------------------------------------------------


async def test_a_graph_is_counted_by_increments(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Each report adds, beyond limits too; storage is shown in MiB, used rounded up and the limit down."""
    hub.set_limit(acme, "storage_bytes", 5 * MIB + MIB // 2)
    desk.update_nexus_usage(acme, nodes_created=2, relationships_created=3, storage_bytes=MIB, credits_used=999)
    desk.update_nexus_usage(acme, nodes_created=9_999, storage_bytes=1, credits_used=5)
    found = desk.get_user_database(acme)
    assert found.database_name == f"user_{acme}_nexus"
    quota = found.quota
    assert (quota.current_nodes, quota.max_nodes) == (10_001, 10_000)
    assert (quota.current_relationships, quota.max_relationships) == (3, 50_000)
    assert (quota.storage_used_mb, quota.storage_limit_mb) == (2, 5)
    assert (found.credits.used, found.credits.total, found.credits.available) == (1_004, 1_000, 0)
    for dimension, used in (("nodes", 10_001), ("relationships", 3), ("storage_bytes", MIB + 1), ("credits", 1_004)):
        assert (await standing(hub, acme, dimension)).used == used


async def test_credits_are_taken_or_not(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Credits are taken while there are enough; too many are refused, and none of them is taken."""
    first = desk.consume_credits(acme, 999, "query", "a big one")
    assert (first.success, first.can_continue, first.credits_remaining) == (True, True, 1)
    assert refused(lambda: desk.consume_credits(acme, 2, "query")) == (
        429,
        "insufficient_credits",
        "Insufficient credits",
        None,
    )
    assert (await standing(hub, acme, "credits")).used == 999
    last = desk.consume_credits(acme, 1, "query")
    assert (last.can_continue, last.credits_remaining) == (False, 0)
    assert desk.consume_credits(acme, 0, "query").credits_remaining == 0


async def test_tokens_are_taken_or_not(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Tokens behave alike, and every call about them tells the same."""
    assert desk.consume_tokens(acme, 150, "classification").tokens_remaining == 50
    assert refused(lambda: desk.consume_tokens(acme, 51, "op"))[:3] == (429, "quota_exceeded", "Insufficient tokens")
    tokens = desk.get_user_tokens(acme).tokens
    assert (tokens.available, tokens.used, tokens.total, tokens.limit_reached) == (50, 150, 200, False)
    assert desk.check_token_limit(acme) == desk.get_user_tokens(acme)
    for required, allowed in ((50, True), (51, False)):
        found = desk.validate_tokens(acme, required)
        assert (found.allowed, found.tokens_available, found.tokens_required) == (allowed, 50, required)
    desk.consume_tokens(acme, 50, "op")
    assert desk.check_token_limit(acme).tokens.limit_reached
    assert (await standing(hub, acme, "tokens")).used == 200
    assert refused(lambda: desk.validate_tokens(acme, -1))[3] == "required"


def test_a_month_begins_anew(desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """Credits and tokens of a month are there again in the next."""
    desk.consume_credits(acme, 1_000, "op")
    desk.consume_tokens(acme, 200, "op")
    clock.advance(us=bounds(Period.MONTH, clock.now()[1])[1] - clock.now()[1])
    assert desk.consume_credits(acme, 1, "op").credits_remaining == 999
    assert desk.get_user_tokens(acme).tokens.used == 0


# --- synap -----------------------------------------------------------------------------------------------------------


def test_resources_are_listed_by_type(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """One name may be a queue, a stream and a store; each is there once, and stores count for nothing."""
    for kind in ("queue", "stream", "keyvalue"):
        made = desk.create_resource(acme, kind, "orders", max_size=5, ttl=60)
        assert (made.full_resource_name, made.created) == (f"user_{acme}:orders", True)
        assert not desk.create_resource(acme, kind, "orders").created
    desk.create_resource(acme, "queue", "mail")
    found = desk.get_user_resources(acme)
    assert (found.queues, found.streams, found.key_value_stores) == (("orders", "mail"), ("orders",), ("orders",))
    assert [hub.used(acme, name) for name in ("queues", "streams", "keys")] == [2, 1, 0]
    held = desk.resource(acme, "queue", "orders")
    assert held is not None
    assert (held.max_size, held.ttl) == (5, 60)


def test_the_limits_of_queues_and_streams(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Queues and streams are limited each by their own, stores by none."""
    hub.set_limit(acme, "queues", 1)
    hub.set_limit(acme, "streams", 0)
    desk.create_resource(acme, "queue", "a")
    assert refused(lambda: desk.create_resource(acme, "queue", "b"))[:3] == (
        429,
        "quota_exceeded",
        "Queue limit reached",
    )
    assert refused(lambda: desk.create_resource(acme, "stream", "a"))[2] == "Stream limit reached"
    assert not desk.create_resource(acme, "queue", "a").created
    assert desk.create_resource(acme, "keyvalue", "a").created


def test_a_resource_is_known_by_both_names(desk: Desk, acme: TenantId, hub: HubService) -> None:
    """The short name and the full one are the owner's; another user's prefix, type or name is nobody's."""
    other = hub.add_tenant("other", plan="free")
    desk.create_resource(acme, "queue", "orders")
    full = f"user_{acme}:orders"
    cases = [
        ("orders", acme, "queue", True),
        (full, acme, "queue", True),
        ("orders", acme, "stream", False),
        ("mail", acme, "queue", False),
        ("orders", other, "queue", False),
        (full, other, "queue", False),
        (f"user_{other}:orders", acme, "queue", False),
    ]
    for name, user, kind, belongs in cases:
        found = desk.validate_resource(name, user, kind)
        assert (found.belongs_to_user, found.resource_name, found.resource_type) == (belongs, name, kind)


async def test_totals_of_a_resource_replace_each_other(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """A report tells where a resource stands; what it leaves out stays; storage is the sum over resources."""
    desk.create_resource(acme, "queue", "a")
    desk.create_resource(acme, "keyvalue", "a")
    desk.update_synap_usage(acme, "queue", "a", message_count=5, storage_bytes=100)
    desk.update_synap_usage(acme, "keyvalue", f"user_{acme}:a", storage_bytes=7)
    desk.update_synap_usage(acme, "queue", "a", storage_bytes=60)
    desk.update_synap_usage(acme, "queue", "a", message_count=2)
    held = desk.resource(acme, "queue", "a")
    assert held is not None
    assert (held.message_count, held.storage_bytes) == (2, 60)
    assert (await standing(hub, acme, "storage_bytes")).used == 67


def test_an_unknown_type_is_refused(desk: Desk, acme: TenantId) -> None:
    """A type that the wire does not know is refused with its field."""
    for call in (
        lambda: desk.create_resource(acme, "topic", "a"),
        lambda: desk.validate_resource("a", acme, "topic"),
        lambda: desk.update_synap_usage(acme, "topic", "a", message_count=1),
    ):
        found = refused(call)
        assert (found[0], found[3]) == (400, "resource_type")
    assert refused(lambda: desk.create_resource(acme, "queue", "a", ttl=-1))[3] == "ttl"


# --- whose it is -----------------------------------------------------------------------------------------------------


def test_foreign_equals_unknown(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Whatever belongs to somebody else is answered in the very words for what does not exist."""
    other = hub.add_tenant("other", plan="free")
    theirs = desk.create_collection(other, "docs", other, 3).collection_id
    desk.create_resource(other, "queue", "docs")
    nobody = str(uuid4())
    pairs: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: desk.validate_collection(theirs, acme), lambda: desk.validate_collection(nobody, acme)),
        (
            lambda: desk.create_collection(acme, "a", other, 3),
            lambda: desk.create_collection(acme, "a", nobody, 3),
        ),
        (
            lambda: desk.update_synap_usage(acme, "queue", "docs", message_count=1),
            lambda: desk.update_synap_usage(acme, "queue", "nothing", message_count=1),
        ),
        (
            lambda: desk.update_synap_usage(acme, "queue", f"user_{other}:docs", message_count=1),
            lambda: desk.update_synap_usage(acme, "queue", f"user_{nobody}:docs", message_count=1),
        ),
    ]
    for foreign, unknown in pairs:
        assert refused(foreign) == refused(unknown)
        assert refused(foreign)[0] == 404
    assert refused(pairs[0][0])[2] == "Collection not found"
    assert desk.resource(acme, "queue", "docs") is None


def test_an_unknown_user(hub: HubService, desk: Desk) -> None:
    """Every call about a user that there is not says so, and one about a project likewise."""
    nobody = str(uuid4())
    calls: list[Callable[[], object]] = [
        lambda: desk.get_user_collections(nobody),
        lambda: desk.create_collection(nobody, "a", nobody, 3),
        lambda: desk.validate_collection(nobody, nobody),
        lambda: desk.get_user_database(nobody),
        lambda: desk.consume_credits(nobody, 1, "op"),
        lambda: desk.update_nexus_usage(nobody, nodes_created=1),
        lambda: desk.get_user_resources(nobody),
        lambda: desk.validate_resource("a", nobody, "queue"),
        lambda: desk.create_resource(nobody, "queue", "a"),
        lambda: desk.update_synap_usage(nobody, "queue", "a", message_count=1),
        lambda: desk.get_user_tokens(nobody),
        lambda: desk.validate_tokens(nobody, 1),
        lambda: desk.consume_tokens(nobody, 1, "op"),
        lambda: desk.check_token_limit(nobody),
    ]
    assert {refused(call) for call in calls} == {(404, "not_found", "User not found", None)}
    assert refused(lambda: desk.check_quota("nexus", nobody, "op"))[2] == "Project not found"
    assert refused(lambda: desk.update_collection_usage(nobody, 1, 1))[2] == "Collection not found"


def test_a_deleted_tenant_leaves_nothing(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """With a tenant its collections and resources are gone."""
    made = desk.create_collection(acme, "a", acme, 3).collection_id
    desk.create_resource(acme, "queue", "a")
    hub.delete_tenant(acme)
    assert desk.collection(made) is None
    assert refused(lambda: desk.update_collection_usage(made, 1, 1))[2] == "Collection not found"
    state = hub.snapshot().state
    assert (state.collections, state.collection_ids, state.resources) == ({}, {}, {})


@pytest.mark.parametrize("end", ["suspend", "begin_deletion"])
def test_who_is_not_active_begins_nothing_new(hub: HubService, desk: Desk, acme: TenantId, end: str) -> None:
    """A suspended user makes and takes nothing, and may be read and reported about."""
    made = desk.create_collection(acme, "a", acme, 3).collection_id
    desk.create_resource(acme, "queue", "a")
    getattr(hub, end)(acme)
    for call in (
        lambda: desk.create_collection(acme, "b", acme, 3),
        lambda: desk.create_resource(acme, "queue", "b"),
        lambda: desk.consume_credits(acme, 1, "op"),
        lambda: desk.consume_tokens(acme, 1, "op"),
    ):
        assert refused(call)[:2] == (409, "user_not_active")
    assert not desk.check_quota("nexus", acme, "create_node").allowed
    assert not desk.validate_tokens(acme, 1).allowed
    assert not desk.update_collection_usage(made, 1, 1).quota.can_insert
    desk.update_synap_usage(acme, "queue", "a", storage_bytes=1)
    desk.update_nexus_usage(acme, nodes_created=1)
    assert hub.used(acme, "storage_bytes") == 2


def test_calls_make_no_revision(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Usage and what is registered are no changes that pollers hear of."""
    before = hub.revision
    made = desk.create_collection(acme, "a", acme, 3).collection_id
    desk.update_collection_usage(made, 1, 1)
    desk.create_resource(acme, "queue", "a")
    desk.consume_credits(acme, 1, "op")
    assert hub.revision == before


def test_a_snapshot_stands_still(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """What is registered after a snapshot is not in it."""
    view = hub.snapshot()
    desk.create_collection(acme, "a", acme, 3)
    desk.create_resource(acme, "queue", "a")
    hub.issue_service_key()
    assert (view.state.collection_ids, view.state.resources, view.state.service_keys) == ({}, {}, {})


# --- one truth -------------------------------------------------------------------------------------------------------


def walk(hub: HubService, seed: int) -> None:
    """Make random calls for two users beside a plain sum, and compare limits, replies and the sum after each."""
    draw = random.Random(seed)
    desk = hub.desk
    users = [hub.add_tenant(name, plan="free") for name in "ab"]
    for user in users:
        for dimension, limit in (("collections", 2), ("queues", 2), ("credits", 20)):
            hub.set_limit(user, dimension, limit)
    truth: Counter[tuple[TenantId, str]] = Counter()
    stored: dict[tuple[TenantId, str], int] = {}
    for _ in range(60):
        user, name, amount = draw.choice(users), draw.choice("abc"), draw.randrange(8)
        kind = draw.choice(("collection", "level", "queue", "credits", "nodes"))
        try:
            if kind == "collection":
                truth[user, "collections"] += desk.create_collection(user, name, user, 3).created
            elif kind == "queue":
                truth[user, "queues"] += desk.create_resource(user, "queue", name).created
            elif kind == "credits":
                left = desk.consume_credits(user, amount, "op").credits_remaining
                truth[user, "credits"] += amount
                assert left == 20 - truth[user, "credits"]
            elif kind == "nodes":
                desk.update_nexus_usage(user, nodes_created=amount)
                truth[user, "nodes"] += amount
            else:
                listed = {one.collection_name: one.collection_id for one in desk.get_user_collections(user).collections}
                if name in listed:
                    desk.update_collection_usage(listed[name], amount, amount)
                    stored[user, name] = amount
        except CallRefused as refusal:
            if refusal.status != 429:
                raise
        for each in users:
            for dimension, most in (("collections", 2), ("queues", 2), ("credits", 20), ("nodes", 1_000)):
                assert hub.used(each, dimension) == truth[each, dimension] <= most
            total = sum(value for (owner, _), value in stored.items() if owner == each)
            assert hub.used(each, "storage_bytes") == total


@pytest.mark.parametrize("seed", range(examples(15, 300)))
def test_calls_and_limits_are_one_truth(seed: int) -> None:
    """Whatever is called, each total is what was done, and no limit is passed by what can be refused."""
    walk(HubService(clock=ManualClock()), seed)


def never_refuses(
    self: Desk, state: HubState, record: TenantRecord, dimension: Dimension, amount: int, call: int, refusal: object
) -> None:
    """A broken desk: it books what does not fit."""
    self._add(state, record, dimension, amount, call)


def refuses_late(
    self: Desk,
    state: HubState,
    record: TenantRecord,
    dimension: Dimension,
    amount: int,
    call: int,
    refusal: tuple[str, str],
) -> None:
    """A broken desk: it books first and refuses then."""
    self._add(state, record, dimension, amount, call)
    limit = state.standing(record, dimension, None, self._now_us())
    if limit.limit.limit is not None and limit.used > limit.limit.limit:
        raise CallRefused(429, *refusal)


def adds_up(self: Desk, collection_id: str, vector_count: int, storage_bytes: int) -> None:
    """A broken desk: it takes totals for increments."""
    with self._hub.transaction() as state:
        held = state.collections[collection_id]
        self._add(state, state.tenants[held.tenant_id], "storage_bytes", storage_bytes, 8)


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (booking.BookingDesk, "_take", never_refuses),
        (booking.BookingDesk, "_take", refuses_late),
        (Desk, "update_collection_usage", adds_up),
    ],
)
def test_a_broken_desk_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: type[object], name: str, broken: Callable[..., None]
) -> None:
    """The walk fails on a desk that does not refuse, refuses late, or adds totals up."""
    monkeypatch.setattr(owner, name, broken)
    caught = 0
    for seed in range(10):
        try:
            walk(HubService(clock=ManualClock()), seed)
        except AssertionError:
            caught += 1
    assert caught >= 8
