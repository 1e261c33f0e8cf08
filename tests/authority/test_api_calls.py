"""The 23 calls over HTTP: what each answers and refuses. Every reply is held against the OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest

from hivetenancy.authority.desk import Desk
from hivetenancy.authority.resources import CallRefused
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.ids import TenantId

from .asking import UNKNOWN, Asker

pytestmark = pytest.mark.anyio


@pytest.fixture
def hub() -> Asker:
    """A hub on the wire, with every extension."""
    return Asker()


@pytest.fixture
def today() -> Asker:
    """A hub of today's wire: no extension at all."""
    return Asker(extensions=())


# --- access keys -----------------------------------------------------------------------------------------------------


async def test_call_1_of_today_makes_a_key_that_nobody_owns(today: Asker) -> None:
    """Without X6 the reply has today's fields alone, unknown ones are ignored, and the key is unowned."""
    made = await today.generate(colour="red", expires_at="2101-01-01T00:00:00Z")
    assert made.status == 200
    assert set(made.json) == {
        "success",
        "access_key",
        "access_key_id",
        "service",
        "name",
        "permissions",
        "created_at",
        "expires_at",
    }
    assert made.json["expires_at"] == "2101-01-01T00:00:00Z"
    assert today.hub.key(made.json["access_key_id"]).tenant_id is None


async def test_call_1_with_key_management_makes_a_key_for_its_owner(hub: Asker) -> None:
    """The echo says what was made, with the revision of the change."""
    made = await hub.generate(functions=["kv.get"], networks=["10.0.0.0/8"], not_before="2100-06-01T00:00:00.5Z")
    assert made.status == 200
    assert made.json["user_id"] == hub.acme
    assert made.json["functions"] == ["kv.get"]
    assert made.json["networks"] == ["10.0.0.0/8"]
    assert made.json["not_before"] == "2100-06-01T00:00:00.500000Z"
    assert (made.json["version"], made.json["environment"]) == (1, "test")
    assert (made.json["epoch"], made.json["revision"]) == (hub.hub.epoch, hub.hub.revision)


async def test_calls_2_and_3_show_keys_without_secrets(hub: Asker) -> None:
    """A list, a page of it, one of it; a key that was introspected says when."""
    first, second = (await hub.generate()).json, (await hub.generate(service="nexus")).json
    listed = await hub.ask("GET", "/access-keys")
    assert [key["id"] for key in listed.json["keys"]] == sorted([first["access_key_id"], second["access_key_id"]])
    assert first["access_key"] not in listed.raw.decode()
    assert [key["service"] for key in (await hub.ask("GET", "/access-keys?service=nexus")).json["keys"]] == ["nexus"]
    page = await hub.ask("GET", f"/access-keys?user_id={hub.acme}&limit=1")
    rest = await hub.ask("GET", f"/access-keys?limit=1&cursor={page.json['cursor']}")
    assert {key["id"] for reply in (page, rest) for key in reply.json["keys"]} == {
        first["access_key_id"],
        second["access_key_id"],
    }
    assert "cursor" not in rest.json
    one = await hub.ask("GET", f"/access-keys/{first['access_key_id']}")
    assert one.json == next(key for key in listed.json["keys"] if key["id"] == first["access_key_id"])
    assert "last_used_at" not in one.json
    await hub.ask("POST", "/access-keys/introspect", {"access_key": first["access_key"]})
    assert "last_used_at" in (await hub.ask("GET", f"/access-keys/{first['access_key_id'].upper()}")).json


async def test_call_2_of_today_ignores_what_it_does_not_know(today: Asker) -> None:
    """Fields of X6 are unknown fields there, and no row says whose a key is."""
    await today.generate()
    listed = await today.ask("GET", "/access-keys?user_id=nonsense&limit=0&colour=red&colour=blue")
    assert listed.status == 200
    assert set(listed.json) == {"keys"}
    assert set(listed.json["keys"][0]) == {"id", "service", "name", "permissions", "active", "created_at"}


async def test_call_4_revokes_once(hub: Asker) -> None:
    """A second time is a 400 that says so."""
    key = (await hub.generate()).json["access_key_id"]
    done = await hub.ask("DELETE", f"/access-keys/{key}")
    assert (done.status, done.json["success"]) == (200, True)
    assert done.json["revision"] == hub.hub.revision
    again = await hub.ask("DELETE", f"/access-keys/{key}")
    assert (again.status, again.json["code"], again.json["error"]) == (
        400,
        "already_revoked",
        "Access key already revoked",
    )


async def test_call_4_of_today_says_no_more_than_that_it_is_done(today: Asker) -> None:
    """Without X6 there is no order that the reply could have a place in."""
    key = (await today.generate()).json["access_key_id"]
    done = await today.ask("DELETE", f"/access-keys/{key}")
    assert done.json == {"success": True, "message": "Access key revoked"}


async def test_a_service_key_of_one_service_sees_keys_of_that_alone(hub: Asker) -> None:
    """Another service's key is shown, revoked and rotated like one that is not there; naming the service is a 403."""
    key = (await hub.generate(service="synap")).json["access_key_id"]
    nexus = hub.hub.issue_service_key("nexus").secret
    rotate = {"overlap_seconds": 0, "expected_version": 1}
    asked: list[tuple[str, str, Any]] = [("GET", "", None), ("DELETE", "", None), ("POST", "/rotate", rotate)]
    for method, tail, body in asked:
        foreign = await hub.ask(method, f"/access-keys/{key}{tail}", body, key=nexus)
        missing = await hub.ask(method, f"/access-keys/{UNKNOWN}{tail}", body, key=nexus)
        assert (foreign.status, foreign.raw, foreign.headers) == (404, missing.raw, missing.headers)
    assert (await hub.ask("GET", "/access-keys", key=nexus)).json["keys"] == []
    assert (await hub.ask("GET", "/access-keys?service=synap", key=nexus)).status == 403
    body = {"service": "synap", "name": "x", "permissions": ["read"]}
    assert (await hub.ask("POST", "/access-keys/generate", body, key=nexus)).status == 403


@pytest.mark.parametrize(
    "more, field",
    [
        ({"service": "redis"}, "service"),
        ({"service": "Synap"}, "service"),
        ({"name": ""}, "name"),
        ({"name": "a" * 256}, "name"),
        ({"name": "é" * 200}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 7}, "name"),
        ({"permissions": []}, "permissions"),
        ({"permissions": "read"}, "permissions"),
        ({"permissions": ["read", "own"]}, "permissions[1]"),
        ({"expires_at": 7}, "expires_at"),
        ({"expires_at": "2000-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2101-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
        ({"not_before": "9999-12-31T23:59:59-23:59"}, "not_before"),
        ({"user_id": "acme"}, "user_id"),
        ({"user_id": UNKNOWN.replace("-", "")}, "user_id"),
        ({"networks": ["10.0.0.1/8"]}, "networks"),
        ({"environment": "prod"}, "environment"),
        ({"colour": "red"}, "colour"),
        ({"hh_test_0123456789": "red"}, "body"),
    ],
)
async def test_what_call_1_refuses(hub: Asker, more: dict[str, Any], field: str) -> None:
    """Each is a 400 that names the field, and makes no key."""
    refused = await hub.generate(**more)
    assert (refused.status, refused.field) == (400, field)
    assert (await hub.ask("GET", "/access-keys")).json["keys"] == []


async def test_a_key_for_an_unknown_user_or_from_an_unknown_parent_is_a_404(hub: Asker) -> None:
    """Neither is made."""
    assert (await hub.generate(user_id=UNKNOWN)).json["error"] == "User not found"
    assert (await hub.generate(parent_key_id=UNKNOWN)).json["error"] == "Access key not found"


# --- vectorizer ------------------------------------------------------------------------------------------------------


async def test_calls_5_to_8_keep_collections(hub: Asker) -> None:
    """Register, list, validate and report; the plan ``free`` has three."""
    made = await hub.collection()
    assert (made.status, made.json["created"]) == (201, True)
    identity = made.json["collection_id"]
    told = await hub.ask("PUT", f"/vectorizer/collections/{identity}/usage", {"vector_count": 7, "storage_bytes": 70})
    assert told.json["quota"] == {"max_vectors": 10_000, "current_vectors": 7, "can_insert": True}
    listed = await hub.ask("GET", f"/vectorizer/users/{hub.acme}/collections")
    assert (listed.json["total_collections"], listed.json["collection_limit"], listed.json["plan"]) == (1, 3, "free")
    assert listed.json["collections"][0]["vector_count"] == 7
    valid = await hub.ask("GET", f"/vectorizer/collections/{identity}/validate?user_id={hub.acme}")
    assert (valid.json["valid"], valid.json["user_id"]) == (True, hub.acme)
    assert [(await hub.collection(f"c{n}")).status for n in range(3)] == [201, 201, 429]


@pytest.mark.parametrize(
    "more, field",
    [
        ({"dimension": 0}, "dimension"),
        ({"dimension": -1}, "dimension"),
        ({"dimension": 1.5}, "dimension"),
        ({"dimension": 2**32}, "dimension"),
        ({"dimension": "3"}, "dimension"),
        ({"dimension": True}, "dimension"),
        ({"dimension": None}, "dimension"),
        ({"dimension": 10**4000}, "dimension"),
        *(({"collection_name": name}, "collection_name") for name in ("", "a/b", "..", "a b ", "a\tb", "e\u0301")),
        ({"collection_name": "x" * 256}, "collection_name"),
        ({"collection_name": f"user_{UNKNOWN}:docs"}, "collection_name"),
        ({"collection_name": ["docs"]}, "collection_name"),
        ({"project_id": ""}, "project_id"),
    ],
)
async def test_what_call_6_refuses(hub: Asker, more: dict[str, Any], field: str) -> None:
    """Each is a 400 that names the field, and makes no collection."""
    body = {"collection_name": "docs", "project_id": hub.acme, "dimension": 3, **more}
    refused = await hub.ask("POST", f"/vectorizer/users/{hub.acme}/collections", body)
    assert (refused.status, refused.field) == (400, field)
    assert (await hub.ask("GET", f"/vectorizer/users/{hub.acme}/collections")).json["total_collections"] == 0


async def test_dimension_0_has_the_text_that_the_sdk_knows(hub: Asker) -> None:
    """As its own tests expect it."""
    body = {"collection_name": "docs", "project_id": hub.acme, "dimension": 0}
    refused = await hub.ask("POST", f"/vectorizer/users/{hub.acme}/collections", body)
    assert refused.json["error"] == "Invalid dimension: must be positive"


# --- quota, credits and tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["vectorizer", "nexus", "synap", "lesstokens"])
async def test_calls_9_11_18_and_23_answer_a_triple(hub: Asker, service: str) -> None:
    """The wire does not say what it counts; it says whether it fits, or which project is unknown."""
    body = {"project_id": hub.acme, "operation": "insert", "estimated_size": 1, "colour": "red"}
    said = await hub.ask("POST", f"/{service}/quota", body)
    assert said.json["allowed"] is True
    assert said.json["remaining"] == said.json["limit"]
    huge = await hub.ask("POST", f"/{service}/quota", {**body, "estimated_size": 2**60})
    assert huge.json["allowed"] is False
    assert (await hub.ask("POST", f"/{service}/quota", {**body, "project_id": UNKNOWN})).status == 404
    assert (await hub.ask("POST", f"/{service}/quota", {**body, "estimated_size": -1})).field == "estimated_size"
    assert (await hub.ask("POST", f"/{service}/quota", {**body, "estimated_size": 2**63})).field == "estimated_size"


async def test_calls_10_12_and_13_keep_a_graph(hub: Asker) -> None:
    """The database, its credits, and increments; too few credits are a 429 that takes none."""
    path = f"/nexus/users/{hub.acme}"
    told = {"nodes_created": 2, "relationships_created": 3, "storage_bytes": 5, "credits_used": 10}
    assert (await hub.ask("PUT", f"{path}/usage", told)).json == {}
    took = await hub.ask("POST", f"{path}/credits", {"amount": 90, "operation": "query"})
    assert took.json == {"success": True, "can_continue": True, "credits_remaining": 900}
    short = await hub.ask("POST", f"{path}/credits", {"amount": 901, "operation": "query"})
    assert (short.status, short.json["error"], short.json["code"]) == (
        429,
        "Insufficient credits",
        "insufficient_credits",
    )
    assert "retry-after" not in short.headers
    shown = (await hub.ask("GET", f"{path}/database")).json
    assert shown["database_name"] == f"user_{hub.acme}_nexus"
    assert (shown["quota"]["current_nodes"], shown["quota"]["current_relationships"]) == (2, 3)
    assert shown["credits"] == {"available": 900, "total": 1_000, "used": 100}
    missing = await hub.ask("PUT", f"{path}/usage", {"nodes_created": 2})
    assert (missing.status, missing.field) == (400, "relationships_created")


async def test_calls_14_to_17_keep_resources(hub: Asker) -> None:
    """Register, list, validate in either case, report by short and by full name."""
    path = f"/synap/users/{hub.acme}"
    body = {"resource_type": "queue", "resource_name": "jobs é", "config": {"max_size": 5}}
    made = await hub.ask("POST", f"{path}/resources", body)
    assert (made.status, made.json) == (201, {"full_resource_name": f"user_{hub.acme}:jobs é", "created": True})
    listed = await hub.ask("GET", f"{path}/resources")
    assert listed.json["resources"] == {"queues": ["jobs é"], "streams": [], "key_value_stores": []}
    for kind in ("Queue", "queue"):
        for name in ("jobs%20%C3%A9", f"user_{hub.acme}:jobs%20%C3%A9"):
            asked = f"/synap/resources/{name}/validate?user_id={hub.acme}&type={kind}"
            said = await hub.ask("GET", asked)
            assert (said.json["belongs_to_user"], said.json["resource_type"]) == (True, "queue")
    told = {"resource_type": "queue", "resource_name": "jobs é", "message_count": 4, "storage_bytes": 40}
    assert (await hub.ask("PUT", f"{path}/usage", told)).json == {}
    full = {**told, "resource_name": f"user_{hub.acme}:jobs é", "message_count": None}
    assert (await hub.ask("PUT", f"{path}/usage", full)).json == {}
    held = hub.hub.desk.resource(hub.acme, "queue", "jobs é")
    assert held is not None
    assert (held.message_count, held.storage_bytes) == (4, 40)


@pytest.mark.parametrize(
    "query, field",
    [
        ("type=queue", "user_id"),
        ("user_id={u}", "type"),
        ("user_id={u}&type=table", "type"),
        ("user_id={u}&user_id={u}&type=queue", "user_id"),
        ("user_id={u}&type=queue&type=queue", "type"),
        ("user_id=acme&type=queue", "user_id"),
        ("user_id=&type=queue", "user_id"),
        ("user_id={u}&type=%", "query"),
        ("user_id={u}&type=%ff", "query"),
    ],
)
async def test_what_call_15_refuses_of_a_query(hub: Asker, query: str, field: str) -> None:
    """A field that is missing, repeated or wrong is a 400 that names it."""
    refused = await hub.raw("GET", f"/api/internal/synap/resources/jobs/validate?{query.format(u=hub.acme)}".encode())
    assert (refused.status, refused.field) == (400, field)


async def test_calls_19_to_22_keep_tokens(hub: Asker) -> None:
    """Read, ask, consume, and be refused."""
    path = f"/lesstokens/users/{hub.acme}"
    took = await hub.ask("POST", f"{path}/consume", {"amount": 50, "operation": "classification"})
    assert took.json == {"success": True, "tokens_remaining": 150}
    tokens = {"available": 150, "used": 50, "total": 200, "limit_reached": False}
    assert (await hub.ask("GET", f"{path}/tokens")).json == {"user_id": hub.acme, "tokens": tokens}
    assert (await hub.ask("GET", f"{path}/limit")).json == {"tokens": tokens}
    assert (await hub.ask("GET", f"{path}/validate?required=151")).json == {
        "allowed": False,
        "tokens_available": 150,
        "tokens_required": 151,
    }
    assert (await hub.ask("POST", f"{path}/consume", {"amount": 151, "operation": "x"})).status == 429
    for bad in ("-1", "1.5", "", "1e3", str(2**64), "9" * 21, "٣"):
        assert (await hub.ask("GET", f"{path}/validate?required={bad}")).field == "required", bad


# --- foreign equals missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [(), ALL_EXTENSIONS], ids=["today", "extended"])
async def test_foreign_equals_missing_byte_for_byte(extensions: tuple[str, ...]) -> None:
    """Somebody else's collection or resource is answered like none: status, headers and body."""
    await foreign_is_missing(Asker(extensions=extensions))


@pytest.mark.parametrize("status, text", [(403, "Collection not found"), (404, "Not your collection")])
async def test_telling_foreign_from_missing_is_found(monkeypatch: pytest.MonkeyPatch, status: int, text: str) -> None:
    """A desk that says whose a collection is not, by status or by text, fails."""
    real = Desk.validate_collection

    def telling(desk: Desk, collection_id: str, user_id: str) -> Any:
        held = desk.collection(collection_id)
        if held is not None and held.tenant_id != user_id:
            raise CallRefused(status, "not_found", text)
        return real(desk, collection_id, user_id)

    monkeypatch.setattr(Desk, "validate_collection", telling)
    with pytest.raises(AssertionError):
        await foreign_is_missing(Asker())


async def foreign_is_missing(hub: Asker) -> None:
    """Ask about what is acme's as somebody else, and about what nobody has."""
    collection = (await hub.collection()).json["collection_id"]
    await hub.ask("POST", f"/synap/users/{hub.acme}/resources", {"resource_type": "queue", "resource_name": "jobs"})
    mine = hub.hub.desk.collection(collection)
    assert mine is not None
    assert mine.tenant_id == TenantId(hub.acme)

    async def pair(method: str, foreign: str, missing: str, body: Any = None, other: Any = None) -> None:
        first, second = await hub.ask(method, foreign, body), await hub.ask(method, missing, other or body)
        assert (first.status, first.headers, first.raw) == (second.status, second.headers, second.raw)
        assert first.status == 404 or first.json.get("belongs_to_user") is False

    validate = "/vectorizer/collections/{}/validate?user_id=" + hub.other
    await pair("GET", validate.format(collection), validate.format(UNKNOWN))
    told = {"resource_type": "queue", "resource_name": "jobs", "message_count": 1}
    usage = f"/synap/users/{hub.other}/usage"
    await pair("PUT", usage, usage, told, {**told, "resource_name": "jobz"})
    full = {**told, "resource_name": f"user_{hub.acme}:jobs"}
    await pair("PUT", usage, usage, full, {**told, "resource_name": f"user_{hub.acme}:jobz"})
    asked = f"/synap/resources/jobs/validate?type=queue&user_id={hub.other}"
    said = await hub.ask("GET", asked)
    assert said.json == {"belongs_to_user": False, "resource_name": "jobs", "resource_type": "queue"}
    foreign = await hub.ask("GET", asked.replace("jobs", f"user_{hub.acme}:jobs"))
    assert foreign.json["belongs_to_user"] is False
