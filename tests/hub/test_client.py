"""The typed calls: what each sends, to the byte, and what it makes of a reply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.errors import (
    ConfigurationError,
    HubContractError,
    HubRefusedError,
    HubUnavailableError,
    InvalidNameError,
)
from hivetenancy.hub import wire
from hivetenancy.hub.client import HiveHub
from hivetenancy.hub.names import MAX_NAME_BYTES
from hivetenancy.sources import UsageKind, UsageLine, UsageReport

from .wired import SERVICE_KEY, SOURCE, UNKNOWN, Got, Line, Sent, Wired, client_on

pytestmark = pytest.mark.anyio

U = "5f0c2c4e-8f52-4b7e-9c1d-3a0d0f6b7a11"
C = "c0113c70-0000-4000-8000-000000000001"
K = "acce5500-0000-4000-8000-000000000002"
P = "9a3e4700-0000-4000-8000-000000000003"
WHEN = "2030-01-31T12:00:00.250000Z"
AT = int(datetime(2030, 1, 31, 12, 0, 0, 250_000, UTC).timestamp() * 1_000_000)
QUOTA = {"max_vectors": 10_000, "current_vectors": 7, "can_insert": True}
VERDICT = {"allowed": True, "remaining": 3, "limit": 2**63 - 1}
INFO = {
    "id": K,
    "service": "nexus",
    "name": "k",
    "permissions": ["read", "delete"],
    "active": False,
    "created_at": WHEN,
    "last_used_at": None,
}
TOKENS = {"available": 150, "used": 50, "total": 200, "limit_reached": False}


@dataclass(frozen=True)
class Golden:
    """One call: what is sent for it, what the hub says then, and what the caller is given."""

    name: str
    call: Callable[[HiveHub], Awaitable[object]]
    method: str
    target: str
    body: str | None
    reply: Any
    value: object
    status: int = 200
    repeated: bool = True


def quota(service: str) -> Golden:
    """One of the four calls that ask for a verdict."""
    return Golden(
        f"{service}.check_quota",
        lambda hub: getattr(hub, service).check_quota(U, operation="insert", estimated_size=5),
        "POST",
        f"/{service}/quota",
        f'{{"project_id":"{U}","operation":"insert","estimated_size":5}}',
        VERDICT,
        wire.QuotaVerdict(allowed=True, remaining=3, limit=2**63 - 1),
    )


GOLDEN = [
    Golden(
        "access_keys.generate",
        lambda hub: hub.access_keys.generate(
            service="synap", name="k é", permissions=["read", "admin"], expires_at_us=AT
        ),
        "POST",
        "/access-keys/generate",
        '{"service":"synap","name":"k é","permissions":["read","admin"],"expires_at":"2030-01-31T12:00:00.250000Z"}',
        {
            "success": True,
            "access_key": "hh_live_secret",
            "access_key_id": K,
            "service": "synap",
            "name": "k é",
            "permissions": ["read", "admin"],
            "created_at": "2030-01-31T13:00:00.25+01:00",
        },
        wire.GeneratedKey(
            success=True,
            access_key="hh_live_secret",
            access_key_id=K,
            service=wire.Service.SYNAP,
            name="k é",
            permissions=(wire.WirePermission.READ, wire.WirePermission.ADMIN),
            created_at=AT,
        ),
        repeated=False,
    ),
    Golden(
        "access_keys.generate_for",
        lambda hub: hub.access_keys.generate_for(
            U, service="synap", name="k", permissions=["read"], functions=["kv.*"], parent_key_id=P
        ),
        "POST",
        "/access-keys/generate",
        f'{{"service":"synap","name":"k","permissions":["read"],"user_id":"{U}","functions":["kv.*"],'
        f'"parent_key_id":"{P}"}}',
        {
            "success": True,
            "access_key": "hh_live_secret",
            "access_key_id": K,
            "service": "synap",
            "name": "k",
            "permissions": ["read"],
            "created_at": WHEN,
            "user_id": U,
            "functions": ["kv.*"],
            "resources": None,
            "networks": [],
            "environment": "live",
            "version": 1,
            "epoch": 1,
            "revision": 9,
            "now": WHEN,
        },
        wire.GeneratedKey(
            success=True,
            access_key="hh_live_secret",
            access_key_id=K,
            service=wire.Service.SYNAP,
            name="k",
            permissions=(wire.WirePermission.READ,),
            created_at=AT,
            user_id=U,
            functions=("kv.*",),
            networks=(),
            environment="live",
            version=1,
            epoch=1,
            revision=9,
            now=AT,
        ),
        repeated=False,
    ),
    Golden(
        "access_keys.list",
        lambda hub: hub.access_keys.list(),
        "GET",
        "/access-keys",
        None,
        {"keys": [INFO]},
        wire.KeyList(
            keys=(
                wire.KeyInfo(
                    id=K,
                    service=wire.Service.NEXUS,
                    name="k",
                    permissions=(wire.WirePermission.READ, wire.WirePermission.DELETE),
                    active=False,
                    created_at=AT,
                ),
            )
        ),
    ),
    Golden(
        "access_keys.list of a page",
        lambda hub: hub.access_keys.list(service="nexus", user_id=U, limit=2, cursor="a_b-1"),
        "GET",
        f"/access-keys?service=nexus&user_id={U}&limit=2&cursor=a_b-1",
        None,
        {"keys": [], "cursor": "next"},
        wire.KeyList(keys=(), cursor="next"),
    ),
    Golden(
        "access_keys.get",
        lambda hub: hub.access_keys.get(K.upper()),
        "GET",
        f"/access-keys/{K}",
        None,
        {**INFO, "last_used_at": WHEN, "of another release": 1},
        wire.KeyInfo(
            id=K,
            service=wire.Service.NEXUS,
            name="k",
            permissions=(wire.WirePermission.READ, wire.WirePermission.DELETE),
            active=False,
            created_at=AT,
            last_used_at=AT,
        ),
    ),
    Golden(
        "access_keys.revoke",
        lambda hub: hub.access_keys.revoke(K),
        "DELETE",
        f"/access-keys/{K}",
        None,
        {"success": True, "message": "done"},
        wire.RevokedKey(success=True, message="done"),
    ),
    Golden(
        "access_keys.revoke again, of today's wire",
        lambda hub: hub.access_keys.revoke(K),
        "DELETE",
        f"/access-keys/{K}",
        None,
        {"error": "Access key already revoked"},
        wire.RevokedKey(success=True, message="already revoked"),
        status=400,
    ),
    Golden(
        "access_keys.revoke again, with its code",
        lambda hub: hub.access_keys.revoke(K),
        "DELETE",
        f"/access-keys/{K}",
        None,
        {"error": "no", "code": "already_revoked"},
        wire.RevokedKey(success=True, message="already revoked"),
        status=400,
    ),
    Golden(
        "access_keys.rotate",
        lambda hub: hub.access_keys.rotate(K, overlap_seconds=60, expected_version=1),
        "POST",
        f"/access-keys/{K}/rotate",
        '{"overlap_seconds":60,"compromised":false,"expected_version":1}',
        {"access_key": "hh_live_new", "access_key_id": K, "version": 2, "overlap_until": WHEN},
        wire.RotatedKey(access_key="hh_live_new", access_key_id=K, version=2, overlap_until=AT),
        repeated=False,
    ),
    Golden(
        "vectorizer.get_user_collections",
        lambda hub: hub.vectorizer.get_user_collections(U),
        "GET",
        f"/vectorizer/users/{U}/collections",
        None,
        {
            "user_id": U,
            "collections": [
                {
                    "collection_id": C,
                    "collection_name": "docs",
                    "project_id": "p",
                    "project_name": "P",
                    "vector_count": 2**64 - 1,
                    "dimension": 384,
                    "created_at": WHEN,
                }
            ],
            "total_collections": 1,
            "plan": "pro",
            "collection_limit": 2**32 - 1,
        },
        wire.UserCollections(
            user_id=U,
            collections=(
                wire.Collection(
                    collection_id=C,
                    collection_name="docs",
                    project_id="p",
                    project_name="P",
                    vector_count=2**64 - 1,
                    dimension=384,
                    created_at=AT,
                ),
            ),
            total_collections=1,
            plan="pro",
            collection_limit=2**32 - 1,
        ),
    ),
    Golden(
        "vectorizer.create_collection",
        lambda hub: hub.vectorizer.create_collection(U, name="docs", project_id="p", dimension=384),
        "POST",
        f"/vectorizer/users/{U}/collections",
        '{"collection_name":"docs","project_id":"p","dimension":384}',
        {"collection_id": C, "collection_name": "docs", "created": True},
        wire.CreatedCollection(collection_id=C, collection_name="docs", created=True),
        status=201,
        repeated=False,
    ),
    Golden(
        "vectorizer.validate_collection",
        lambda hub: hub.vectorizer.validate_collection(C, U),
        "GET",
        f"/vectorizer/collections/{C}/validate?user_id={U}",
        None,
        {"valid": True, "user_id": U, "collection_id": C, "quota": QUOTA, "plan": "pro"},
        wire.CollectionValidation(
            valid=True, user_id=U, collection_id=C, quota=wire.VectorQuota.model_validate(QUOTA), plan="pro"
        ),
    ),
    Golden(
        "vectorizer.update_usage",
        lambda hub: hub.vectorizer.update_usage(C, vector_count=7, storage_bytes=2**64 - 1),
        "PUT",
        f"/vectorizer/collections/{C}/usage",
        '{"vector_count":7,"storage_bytes":18446744073709551615}',
        {"success": True, "updated": True, "quota": QUOTA},
        wire.UpdatedCollection(success=True, updated=True, quota=wire.VectorQuota.model_validate(QUOTA)),
    ),
    *map(quota, ("vectorizer", "nexus", "synap", "lesstokens")),
    Golden(
        "nexus.get_user_database",
        lambda hub: hub.nexus.get_user_database(U),
        "GET",
        f"/nexus/users/{U}/database",
        None,
        {
            "database_name": f"user_{U}_nexus",
            "quota": {
                "max_nodes": 1,
                "current_nodes": 2,
                "max_relationships": 3,
                "current_relationships": 4,
                "storage_limit_mb": 5,
                "storage_used_mb": 6,
            },
            "credits": {"available": 7, "total": 8, "used": 9},
        },
        wire.UserDatabase(
            database_name=f"user_{U}_nexus",
            quota=wire.NexusQuota(
                max_nodes=1,
                current_nodes=2,
                max_relationships=3,
                current_relationships=4,
                storage_limit_mb=5,
                storage_used_mb=6,
            ),
            credits=wire.Credits(available=7, total=8, used=9),
        ),
    ),
    Golden(
        "nexus.consume_credits",
        lambda hub: hub.nexus.consume_credits(U, amount=5, operation="classification", description="why"),
        "POST",
        f"/nexus/users/{U}/credits",
        '{"amount":5,"operation":"classification","description":"why"}',
        {"success": True, "can_continue": False, "credits_remaining": 0},
        wire.ConsumedCredits(success=True, can_continue=False, credits_remaining=0),
        repeated=False,
    ),
    Golden(
        "nexus.update_usage",
        lambda hub: hub.nexus.update_usage(
            U, nodes_created=1, relationships_created=2, storage_bytes=3, credits_used=0
        ),
        "PUT",
        f"/nexus/users/{U}/usage",
        '{"nodes_created":1,"relationships_created":2,"storage_bytes":3,"credits_used":0}',
        {},
        None,
        repeated=False,
    ),
    Golden(
        "synap.get_user_resources",
        lambda hub: hub.synap.get_user_resources(U),
        "GET",
        f"/synap/users/{U}/resources",
        None,
        {"user_id": U, "resources": {"queues": ["jobs"], "streams": [], "key_value_stores": ["a/b"]}},
        wire.UserResources(
            user_id=U, resources=wire.Resources(queues=("jobs",), streams=(), key_value_stores=("a/b",))
        ),
    ),
    *(
        Golden(
            f"synap.validate_resource of a {kind}",
            lambda hub, kind=kind: hub.synap.validate_resource("jobs é", U, resource_type=kind),  # type: ignore[misc]
            "GET",
            f"/synap/resources/jobs%20%C3%A9/validate?user_id={U}&type={spelt}",
            None,
            {"belongs_to_user": True, "resource_name": "jobs é", "resource_type": kind},
            wire.ResourceValidation(
                belongs_to_user=True, resource_name="jobs é", resource_type=wire.ResourceType(kind)
            ),
        )
        for kind, spelt in (("queue", "Queue"), ("stream", "Stream"), ("keyvalue", "KeyValue"))
    ),
    Golden(
        "synap.create_resource",
        lambda hub: hub.synap.create_resource(U, resource_type="keyvalue", name="jobs", max_size=9),
        "POST",
        f"/synap/users/{U}/resources",
        '{"resource_type":"keyvalue","resource_name":"jobs","config":{"max_size":9}}',
        {"full_resource_name": f"user_{U}:jobs", "created": True},
        wire.CreatedResource(full_resource_name=f"user_{U}:jobs", created=True),
        status=201,
        repeated=False,
    ),
    Golden(
        "synap.update_usage",
        lambda hub: hub.synap.update_usage(U, resource_type="queue", resource_name=f"user_{U}:jobs", message_count=4),
        "PUT",
        f"/synap/users/{U}/usage",
        f'{{"resource_type":"queue","resource_name":"user_{U}:jobs","message_count":4}}',
        {"success": True},
        None,
        repeated=False,
    ),
    Golden(
        "synap.update_usage by who knows that it is absolute",
        lambda hub: hub.synap.update_usage(
            U, resource_type="queue", resource_name="jobs", storage_bytes=4, repeatable=True
        ),
        "PUT",
        f"/synap/users/{U}/usage",
        '{"resource_type":"queue","resource_name":"jobs","storage_bytes":4}',
        {},
        None,
    ),
    Golden(
        "lesstokens.get_user_tokens",
        lambda hub: hub.lesstokens.get_user_tokens(U),
        "GET",
        f"/lesstokens/users/{U}/tokens",
        None,
        {"user_id": U, "tokens": TOKENS},
        wire.UserTokens(user_id=U, tokens=wire.Tokens.model_validate(TOKENS)),
    ),
    Golden(
        "lesstokens.validate_tokens",
        lambda hub: hub.lesstokens.validate_tokens(U, required=20),
        "GET",
        f"/lesstokens/users/{U}/validate?required=20",
        None,
        {"allowed": False, "tokens_available": 5, "tokens_required": 20},
        wire.TokenValidation(allowed=False, tokens_available=5, tokens_required=20),
    ),
    Golden(
        "lesstokens.consume_tokens",
        lambda hub: hub.lesstokens.consume_tokens(U, amount=5, operation="x"),
        "POST",
        f"/lesstokens/users/{U}/consume",
        '{"amount":5,"operation":"x"}',
        {"success": True, "tokens_remaining": 145},
        wire.ConsumedTokens(success=True, tokens_remaining=145),
        repeated=False,
    ),
    Golden(
        "lesstokens.check_limit",
        lambda hub: hub.lesstokens.check_limit(U),
        "GET",
        f"/lesstokens/users/{U}/limit",
        None,
        {"tokens": TOKENS},
        wire.TokenLimit(tokens=wire.Tokens.model_validate(TOKENS)),
    ),
]


def says(golden: Golden) -> Line:
    """A line at whose end somebody says what a golden call is answered with."""
    return Line(lambda _sent: Got(golden.status, json.dumps(golden.reply).encode()))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
async def test_a_call_on_the_wire(golden: Golden) -> None:
    """Method, path, query, headers and body to the byte; and the reply as a value, times in microseconds."""
    line = says(golden)
    assert await golden.call(client_on(line)) == golden.value
    (sent,) = line.sent
    assert (sent.method, sent.target) == (golden.method, golden.target)
    assert sent.body == (b"" if golden.body is None else golden.body.encode())
    assert sent.headers["x-service-key"] == SERVICE_KEY
    assert sent.headers["content-type"] == "application/json"
    assert not {"authorization", "cookie", "idempotency-key"} & sent.headers.keys()


def test_every_call_of_the_wire_is_there() -> None:
    """The 23 calls, and the two that key management adds, each have a golden request."""
    groups = {name: getattr(HiveHub("https://hub", SERVICE_KEY), name) for name in ("access_keys", "vectorizer")}
    groups |= {name: getattr(HiveHub("https://hub", SERVICE_KEY), name) for name in ("nexus", "synap", "lesstokens")}
    public = {f"{name}.{method}" for name, group in groups.items() for method in dir(group) if method[0] != "_"}
    assert {golden.name.split(" ")[0] for golden in GOLDEN} == public
    assert len(public) == 23 + 2


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
async def test_a_lost_reply(golden: Golden) -> None:
    """A call that does the same when it is made twice is made again; one that adds something is made once."""
    line = says(golden)

    def lose_first(_sent: Sent, got: Got) -> Got:
        if len(line.sent) == 1:
            raise httpx.ReadError("reset")
        return got

    line.bend = lose_first
    hub = client_on(line, retries=3)
    if golden.repeated:
        assert await golden.call(hub) == golden.value
        assert len(line.sent) == 2
        assert line.sent[0] == line.sent[1]
        assert line.sent[0].headers == line.sent[1].headers
    else:
        with pytest.raises(HubUnavailableError) as caught:
            await golden.call(hub)
        assert caught.value.outcome_unknown
        assert len(line.sent) == 1


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
async def test_a_lost_request(golden: Golden) -> None:
    """Where nothing can have happened every call is made again."""
    line = says(golden)

    def refuse_first(_sent: Sent, got: Got) -> Got:
        if len(line.sent) == 1:
            raise httpx.ConnectError("refused")
        return got

    line.bend = refuse_first
    assert await golden.call(client_on(line, retries=3)) == golden.value
    assert len(line.sent) == 2


KEYED: list[tuple[str, Callable[[HiveHub, str], Awaitable[object]]]] = [
    (
        "access_keys.generate",
        lambda hub, key: hub.access_keys.generate(service="synap", name="k", permissions=["read"], idempotency_key=key),
    ),
    (
        "access_keys.rotate",
        lambda hub, key: hub.access_keys.rotate(K, overlap_seconds=0, expected_version=1, idempotency_key=key),
    ),
    (
        "vectorizer.create_collection",
        lambda hub, key: hub.vectorizer.create_collection(U, name="d", project_id=U, dimension=1, idempotency_key=key),
    ),
    (
        "nexus.consume_credits",
        lambda hub, key: hub.nexus.consume_credits(U, amount=1, operation="x", idempotency_key=key),
    ),
    (
        "nexus.update_usage",
        lambda hub, key: hub.nexus.update_usage(
            U, nodes_created=1, relationships_created=0, storage_bytes=0, credits_used=0, idempotency_key=key
        ),
    ),
    (
        "synap.create_resource",
        lambda hub, key: hub.synap.create_resource(U, resource_type="queue", name="j", idempotency_key=key),
    ),
    (
        "synap.update_usage",
        lambda hub, key: hub.synap.update_usage(
            U, resource_type="queue", resource_name="j", message_count=1, idempotency_key=key
        ),
    ),
    (
        "lesstokens.consume_tokens",
        lambda hub, key: hub.lesstokens.consume_tokens(U, amount=1, operation="x", idempotency_key=key),
    ),
]


@pytest.mark.parametrize("name, call", KEYED, ids=[name for name, _ in KEYED])
async def test_a_key_of_idempotency_travels(name: str, call: Callable[[HiveHub, str], Awaitable[object]]) -> None:
    """Each call that adds something takes a key, which goes along as a header, the same each time."""
    line = Line(lambda _sent: Got(503))
    with pytest.raises(HubUnavailableError):
        await call(client_on(line), "a-key-of-ours")
    assert [sent.headers["idempotency-key"] for sent in line.sent] == ["a-key-of-ours"]


async def test_a_keyed_call_is_repeated_where_the_hub_honours_keys() -> None:
    """The reply is lost, the call is made again under its key, and the credits are spent once."""
    world = Wired(retries=3)
    await world.hub.open()
    lost: list[Sent] = []

    def lose_first(sent: Sent, got: Got) -> Got:
        if sent.method == "POST" and not lost:
            lost.append(sent)
            raise httpx.ReadError("reset")
        return got

    with world.bent(lose_first):
        spent = await world.hub.nexus.consume_credits(world.acme, amount=5, operation="x", idempotency_key="k" * 8)
    assert spent.credits_remaining == 10_000 - 5
    assert (await world.hub.nexus.get_user_database(world.acme)).credits.used == 5


@pytest.mark.parametrize("opened", [False, True], ids=["not opened", "opened"])
async def test_a_keyed_call_is_made_once_where_the_hub_honours_none(opened: bool) -> None:
    """A hub of today's wire does not know keys: repeated, such a call would count twice."""
    world = Wired(extensions=[name for name in ALL_EXTENSIONS if name != "idempotency"], retries=3)
    if opened:
        await world.hub.open()

    def lose(sent: Sent, got: Got) -> Got:
        if sent.method == "POST":
            raise httpx.ReadError("reset")
        return got

    with world.bent(lose), pytest.raises(HubUnavailableError) as caught:
        await world.hub.nexus.consume_credits(world.acme, amount=5, operation="x", idempotency_key="k" * 8)
    assert caught.value.outcome_unknown
    assert world.service.desk.get_user_database(world.acme).credits.used == 5


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a%20b", " a", "a ", "a\tb", "a\nb", "a\x00b", "a\u200bb"),
        *("e\u0301", "\ud800", "a" * (MAX_NAME_BYTES + 1), f"user_{UNKNOWN}:jobs", f"USER_{UNKNOWN}:jobs"),
    ],
    ids=ascii,
)
async def test_a_name_that_cannot_travel_is_refused_before_anything_is_sent(name: str) -> None:
    """In a path it would be another call, in a body a name that no path could reach again (HiveHub wire 4.9)."""
    line = Line(lambda _sent: Got(500))
    hub = client_on(line)
    for call in (
        hub.synap.validate_resource(name, U, resource_type="queue"),
        hub.synap.create_resource(U, resource_type="queue", name=name),
        hub.vectorizer.create_collection(U, name=name, project_id=U, dimension=3),
    ):
        with pytest.raises(InvalidNameError):
            await call
    assert line.sent == []


@pytest.mark.parametrize(
    "identity",
    [
        *("", "acme", "..", f"{U}/../{UNKNOWN}", f" {U}", f"{U}\n", f"{{{U}}}", f"urn:uuid:{U}", U.replace("-", "")),
        *(f"{U}?x=", "５" + U[1:], U[:-1]),
        *(None, 5, U.encode()),
    ],
    ids=ascii,
)
async def test_an_id_that_is_none_is_refused_before_anything_is_sent(identity: Any) -> None:
    """Nor is it repaired: no braces, no prefix, no missing hyphens."""
    line = Line(lambda _sent: Got(500))
    hub = client_on(line)
    for call in (
        hub.access_keys.get(identity),
        hub.access_keys.revoke(identity),
        hub.access_keys.rotate(identity, overlap_seconds=0, expected_version=1),
        hub.vectorizer.get_user_collections(identity),
        hub.vectorizer.validate_collection(C, identity),
        hub.vectorizer.update_usage(identity, vector_count=1, storage_bytes=1),
        hub.nexus.get_user_database(identity),
        hub.nexus.consume_credits(identity, amount=1, operation="x"),
        hub.synap.get_user_resources(identity),
        hub.synap.validate_resource("jobs", identity, resource_type="queue"),
        hub.lesstokens.check_limit(identity),
        hub.extensions.limits(identity),
        hub.extensions.limits_batch([identity]),
    ):
        with pytest.raises(InvalidNameError):
            await call
    assert line.sent == []


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: hub.vectorizer.create_collection(U, name="d", project_id=U, dimension=-1),
        lambda hub: hub.vectorizer.create_collection(U, name="d", project_id="", dimension=3),
        lambda hub: hub.vectorizer.update_usage(C, vector_count=2**64, storage_bytes=0),
        lambda hub: hub.vectorizer.check_quota(U, operation="x", estimated_size=2**63),
        lambda hub: hub.nexus.consume_credits(U, amount=-1, operation="x"),
        lambda hub: hub.nexus.consume_credits(U, amount=1.5, operation="x"),
        lambda hub: hub.lesstokens.consume_tokens(U, amount=1, operation=""),
        lambda hub: hub.lesstokens.validate_tokens(U, required=-1),
        lambda hub: hub.synap.update_usage(U, resource_type="topic", resource_name="j", message_count=1),
        lambda hub: hub.synap.validate_resource("j", U, resource_type="Queue"),
        lambda hub: hub.synap.create_resource(U, resource_type="topic", name="j"),
        lambda hub: hub.access_keys.list(service="redis"),
        lambda hub: hub.access_keys.list(limit=0),
        lambda hub: hub.access_keys.list(cursor="a b"),
        lambda hub: hub.access_keys.generate(service="synap", name="k", permissions=[]),
        lambda hub: hub.access_keys.generate(service="synap", name="k", permissions=["own"]),
        lambda hub: hub.access_keys.rotate(K, overlap_seconds=-1, expected_version=1),
        lambda hub: hub.extensions.introspect_batch([b"short"]),
        lambda hub: hub.extensions.introspect_batch([bytes(32)] * 1_001),
        lambda hub: hub.extensions.limits_batch([U] * 1_001),
        lambda hub: hub.extensions.limits_batch([U], sources=["not hex"]),
        lambda hub: hub.extensions.limits(U, sources=["not hex"]),
        lambda hub: hub.extensions.limits(U, sources=[SOURCE] * 65),
        lambda hub: hub.extensions.limits_page(limit=0),
        lambda hub: hub.extensions.limits_page(cursor="a b"),
        lambda hub: hub.extensions.changes("a b"),
        lambda hub: hub.extensions.changes(None, wait_seconds=26),
    ],
)
async def test_a_value_out_of_range_is_refused_before_anything_is_sent(
    call: Callable[[HiveHub], Awaitable[object]],
) -> None:
    """With an error of ours, which names the field and not the value."""
    line = Line(lambda _sent: Got(500))
    with pytest.raises(InvalidNameError):
        await call(client_on(line))
    assert line.sent == []


def about_others() -> list[tuple[str, Golden, dict[str, object]]]:
    """Golden calls whose replies say whom they are about, and the same about somebody else."""
    fields = ("user_id", "collection_id", "access_key_id", "id")
    named = {
        "access_keys.get": ("id",),
        "access_keys.rotate": ("access_key_id",),
        "vectorizer.get_user_collections": ("user_id",),
        "vectorizer.validate_collection": ("user_id", "collection_id"),
        "synap.get_user_resources": ("user_id",),
        "lesstokens.get_user_tokens": ("user_id",),
    }
    assert {field for each in named.values() for field in each} == set(fields)
    return [
        (f"{golden.name} {field}", golden, {field: UNKNOWN})
        for golden in GOLDEN
        for field in named.get(golden.name, ())
    ]


@pytest.mark.parametrize("name, golden, wrong", about_others(), ids=[name for name, _, _ in about_others()])
async def test_an_answer_about_somebody_else_is_none(name: str, golden: Golden, wrong: dict[str, object]) -> None:
    """Another user, another collection, another key than was asked about: nothing of it is used."""
    line = Line(lambda _sent: Got(200, json.dumps({**golden.reply, **wrong}).encode()))
    with pytest.raises(HubContractError):
        await golden.call(client_on(line))


async def test_a_resource_of_another_name_is_none() -> None:
    """Call 15 is about a name and a type; a reply about another of either is no answer."""
    for wrong in ({"resource_name": "other"}, {"resource_type": "stream"}):
        reply = {"belongs_to_user": True, "resource_name": "jobs", "resource_type": "queue", **wrong}
        line = Line(lambda _sent, reply=reply: Got(200, json.dumps(reply).encode()))  # type: ignore[misc]
        with pytest.raises(HubContractError):
            await client_on(line).synap.validate_resource("jobs", U, resource_type="queue")


async def test_what_the_fake_says_of_a_resource_is_taken() -> None:
    """By its short name and by its full one, which is the same resource."""
    world = Wired()
    await world.hub.synap.create_resource(world.acme, resource_type="queue", name="jobs")
    found = await world.hub.synap.validate_resource("jobs", world.acme, resource_type="queue")
    assert found.belongs_to_user


@pytest.mark.parametrize(
    "status, body, error",
    [
        (400, {"error": "Invalid dimension: must be positive"}, HubRefusedError),
        (404, {"error": "User not found"}, HubRefusedError),
        (409, {"error": "x", "code": "version_conflict"}, HubRefusedError),
        (409, {"error": "x", "code": "in_progress"}, HubUnavailableError),
        (413, {"error": "x"}, HubRefusedError),
        (422, {"error": "x", "code": "idempotency_mismatch"}, HubRefusedError),
        (429, {"error": "Insufficient credits"}, HubRefusedError),
        (401, {"error": "Invalid API key"}, HubUnavailableError),
        (403, {"error": "Access denied"}, HubUnavailableError),
        (500, {"error": "x"}, HubUnavailableError),
        (503, {"error": "x"}, HubUnavailableError),
        (418, {"error": "x"}, HubContractError),
        (302, {"error": "x"}, HubContractError),
        (200, {"error": "Insufficient credits"}, HubContractError),
        (200, [], HubContractError),
    ],
)
@pytest.mark.parametrize("name", ["nexus.consume_credits", "lesstokens.check_limit", "access_keys.list"])
async def test_what_each_status_means(name: str, status: int, body: Any, error: type[Exception]) -> None:
    """Refused, not told, or outside the wire: the three are never mixed up."""
    golden = next(each for each in GOLDEN if each.name == name)
    line = Line(lambda _sent: Got(status, json.dumps(body).encode()))
    with pytest.raises(error) as caught:
        await golden.call(client_on(line))
    assert type(caught.value) is error
    if isinstance(caught.value, HubRefusedError):
        assert caught.value.status == status
        assert caught.value.code == body.get("code")
        assert body["error"] in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"ok", b'{"success": true}', b"null"])
async def test_a_call_without_a_result_reads_no_body(content: bytes) -> None:
    """Whatever stands there, a success is one; but for an error that says 200."""
    update = next(each for each in GOLDEN if each.name == "nexus.update_usage")
    assert await update.call(client_on(Line(lambda _sent: Got(200, content)))) is None
    with pytest.raises(HubContractError):
        await update.call(client_on(Line(lambda _sent: Got(200, b'{"error": "Insufficient credits"}'))))


async def test_a_refusal_that_does_not_parse_is_its_status() -> None:
    """And what is no printable text goes into no message."""
    for body in (b"<html>", b"", b'{"error": 5}', b'{"error": "a\\u0000b"}', b"[" * 100_000):
        line = Line(lambda _sent, body=body: Got(404, body))  # type: ignore[misc]
        with pytest.raises(HubRefusedError) as caught:
            await client_on(line).lesstokens.check_limit(U)
        assert caught.value.status == 404
        assert "404" in str(caught.value)
        assert str(caught.value).isprintable()


async def test_a_key_that_differs_from_what_was_asked_is_revoked_and_raised() -> None:
    """A hub that ignores what it does not know makes a wider key than was asked for; nobody is given it."""
    world = Wired(extensions=[name for name in ALL_EXTENSIONS if name != "key_management"])
    with pytest.raises(HubContractError, match="user_id, functions") as caught:
        await world.hub.access_keys.generate_for(
            world.acme, service="synap", name="wide", permissions=["read"], functions=["kv.get"]
        )
    assert "revoked again" in str(caught.value)
    kept = {info.name: info.active for info in (await world.hub.access_keys.list(service="synap")).keys}
    assert kept == {"k": True, "wide": False}


async def test_a_key_that_differs_and_cannot_be_revoked_is_named() -> None:
    """An operator has to end it then, so the message says which it is; and no secret."""
    world = Wired(extensions=())

    def no_revocation(sent: Sent, got: Got) -> Got:
        if sent.method == "DELETE":
            raise httpx.ReadError("reset")
        return got

    with world.bent(no_revocation), pytest.raises(HubContractError, match="revoke it") as caught:
        await world.hub.access_keys.generate_for(world.acme, service="synap", name="mine", permissions=["read"])
    made = next(info for info in (await world.hub.access_keys.list(service="synap")).keys if info.name == "mine")
    assert made.id in str(caught.value)
    assert "hh_" not in str(caught.value)


# --- the extensions ---------------------------------------------------------------------------------------------------


STAMP = {"epoch": 3, "revision": 41, "now": WHEN}


@pytest.mark.parametrize(
    "call, method, target, body",
    [
        (lambda x: x.announcement(), "GET", "/extensions", ""),
        (
            lambda x: x.introspect(b"hh_live_0123456789abcdef", min_revision=5, epoch=2),
            "POST",
            "/access-keys/introspect",
            '{"access_key":"hh_live_0123456789abcdef","min_revision":5,"epoch":2}',
        ),
        (
            lambda x: x.introspect(b"hh_live_0123456789abcdef"),
            "POST",
            "/access-keys/introspect",
            '{"access_key":"hh_live_0123456789abcdef"}',
        ),
        (
            lambda x: x.introspect_batch([bytes(32), b"\xff" * 32]),
            "POST",
            "/access-keys/introspect/batch",
            f'{{"digests":["{"00" * 32}","{"ff" * 32}"]}}',
        ),
        (lambda x: x.changes(None, wait_seconds=0), "GET", "/changes?wait_seconds=0", ""),
        (lambda x: x.changes("c_1-2"), "GET", "/changes?wait_seconds=2&cursor=c_1-2", ""),
        (lambda x: x.limits(U), "GET", f"/synap/users/{U}/limits", ""),
        (
            lambda x: x.limits(U, sources=[SOURCE, "f" * 32], min_revision=7, epoch=3),
            "GET",
            f"/synap/users/{U}/limits?source={SOURCE}&source={'f' * 32}&min_revision=7&epoch=3",
            "",
        ),
        (
            lambda x: x.limits_batch([U, UNKNOWN], sources=[SOURCE], min_revision=7, epoch=3),
            "POST",
            "/synap/limits",
            f'{{"user_ids":["{U}","{UNKNOWN}"],"sources":["{SOURCE}"],"min_revision":7,"epoch":3}}',
        ),
        (
            lambda x: x.limits_page(limit=5, cursor="c", sources=[SOURCE]),
            "GET",
            f"/synap/limits?limit=5&source={SOURCE}&cursor=c",
            "",
        ),
        (
            lambda x: x.report(
                UsageReport(
                    source=SOURCE,
                    writer="w",
                    sequence=2,
                    previous_sequence=1,
                    lines=(
                        UsageLine(
                            tenant_id=U,  # type: ignore[arg-type]
                            dimension="operations",
                            resource=None,
                            kind=UsageKind.COUNTER,
                            value=5,
                            period_start_us=AT,
                        ),
                    ),
                )
            ),
            "PUT",
            f"/synap/usage/{SOURCE}",
            f'{{"writer":"w","sequence":2,"previous_sequence":1,"final":false,"lines":[{{"user_id":"{U}",'
            f'"dimension":"operations","kind":"counter","value":5,"period_start":"{WHEN}"}}]}}',
        ),
    ],
)
async def test_an_extension_on_the_wire(
    call: Callable[[Any], Awaitable[object]], method: str, target: str, body: str
) -> None:
    """Method, path, query and body to the byte; all but a poll are repeated where a reply is lost."""

    def lose(_sent: Sent) -> Got:
        raise httpx.ReadError("reset")

    line = Line(lose)
    with pytest.raises(HubUnavailableError):
        await call(client_on(line, retries=1).extensions)
    assert [(sent.method, sent.target, sent.body.decode()) for sent in line.sent] == [(method, target, body)] * (
        1 if target.startswith("/changes") else 2
    )


async def test_no_key_is_in_a_url_or_a_message() -> None:
    """An access key travels in a body alone, the service key in its header, and neither is in an error or a repr."""
    world = Wired(of="synap", retries=0)
    await world.hub.open()
    await world.hub.introspect(world.key)
    assert not any(world.issued.secret in sent.target for sent in world.line.sent)
    seen: list[str] = [repr(world.hub), repr(world.hub.parts()), str(vars(world.hub.access_keys))]
    for status in (400, 401, 404, 409, 418, 500):
        echo = json.dumps({"error": f"{world.issued.secret} {world.service_key.secret}"}).encode()
        with world.bent(lambda _sent, _got, status=status, echo=echo: Got(status, echo)):  # type: ignore[misc]
            for call in (world.hub.introspect(world.key), world.hub.limits(world.acme)):
                with pytest.raises((HubContractError, HubUnavailableError)) as caught:
                    await call
                seen.append(f"{caught.value!r} {caught.value}")
    assert not any(secret in text for text in seen for secret in (world.issued.secret, world.service_key.secret))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"url": ""}, "URL"),
        ({"url": "http://hub.example.com"}, "http"),
        ({"service_key": ""}, "key"),
        ({"service": "redis"}, "vectorizer, nexus, synap, lesstokens"),
        ({"synap_usage": "sometimes"}, "absolute"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": 11}, "retries"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    """When the object is built; the message names the fix."""
    with pytest.raises(ConfigurationError, match=message):
        client_on(Line(lambda _sent: Got(500)), **options)
