"""The cases of the kit for control planes that make the calls of the wire."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from hivetenancy.errors import HubRefusedError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import (
    LimitsAnswer,
)

from ._plane import (
    NOBODY,
    OPERATOR,
    WIRE,
    Issued,
    RawReply,
    Subject,
    contract,
    live,
    refused,
    service_of,
    state_of,
)

# --- the calls of the wire -------------------------------------------------------------------------------------------


@contract(WIRE)
async def the_service_key_is_asked_for_first(subject: Subject) -> None:
    """A stranger learns that it is one, and nothing of what is there."""
    for target in (b"/extensions", b"/access-keys", b"/no/such/path", b"/synap/users/nonsense/resources"):
        for shown in ("svc_synap_0123456789abcdefghijkl", "x" * 200):
            reply = await subject.raw("GET", target, headers=[("X-Service-Key", shown)])
            assert reply.status == 401, f"{target!r} answered {reply.status} to a wrong service key"
            assert "error" in reply.json


@contract(WIRE)
async def every_read_answers(subject: Subject) -> None:
    """Calls 5, 10, 14, 19, 20, 22 and the four verdicts, for a tenant that is there."""
    hub, user = subject.calls, subject.tenant
    found = await hub.vectorizer.get_user_collections(user)
    assert found.total_collections == len(found.collections)
    assert (await hub.nexus.get_user_database(user)).database_name
    assert (await hub.synap.get_user_resources(user)).resources is not None
    tokens = (await hub.lesstokens.get_user_tokens(user)).tokens
    assert (await hub.lesstokens.check_limit(user)).tokens == tokens
    asked = await hub.lesstokens.validate_tokens(user, required=2**40)
    assert (asked.tokens_required, asked.allowed) == (2**40, tokens.available >= 2**40)
    for group, operation in (
        (hub.vectorizer, "insert"),
        (hub.nexus, "create_node"),
        (hub.synap, "create_queue"),
        (hub.lesstokens, "classification"),
    ):
        assert isinstance((await group.check_quota(user, operation=operation)).allowed, bool)


@contract(WIRE)
async def a_user_that_is_not_there_is_not_found(subject: Subject) -> None:
    """By every call that takes one, with one text."""
    hub = subject.calls
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: hub.vectorizer.get_user_collections(NOBODY),
        lambda: hub.nexus.get_user_database(NOBODY),
        lambda: hub.nexus.consume_credits(NOBODY, amount=1, operation="x"),
        lambda: hub.synap.get_user_resources(NOBODY),
        lambda: hub.synap.create_resource(NOBODY, resource_type="queue", name="q"),
        lambda: hub.lesstokens.get_user_tokens(NOBODY),
        lambda: hub.lesstokens.consume_tokens(NOBODY, amount=1, operation="x"),
        lambda: hub.lesstokens.check_limit(NOBODY),
    )
    for call in calls:
        await refused(call(), 404, text="User not found")


@contract(WIRE)
async def a_key_lives_through_the_calls(subject: Subject) -> None:
    """Generated, listed, shown and revoked; a second time is told, and the secret is shown once."""
    keys, service = subject.calls.access_keys, service_of(subject)
    made = await keys.generate(service=service, name="contract", permissions=["read", "admin"])
    assert made.success
    assert made.access_key
    assert made.name == "contract"
    shown = await keys.get(made.access_key_id)
    assert (shown.active, [each.value for each in shown.permissions]) == (True, ["read", "admin"])
    assert made.access_key_id in {each.id for each in (await keys.list(service=service)).keys}
    reply = await subject.raw("GET", b"/access-keys")
    assert made.access_key.encode() not in reply.body
    assert (await keys.revoke(made.access_key_id)).success
    again = await subject.raw("DELETE", f"/access-keys/{made.access_key_id}".encode())
    assert (again.status, "already revoked" in again.json["error"]) == (400, True)
    assert not (await keys.get(made.access_key_id)).active
    await refused(keys.get(NOBODY), 404, text="Access key not found")
    await refused(keys.revoke(NOBODY), 404, text="Access key not found")


@contract(WIRE, OPERATOR)
async def collections_are_registered_and_measured(subject: Subject) -> None:
    """Calls 5 to 8: totals replace, the limit is a 429, and a dimension of 0 is none."""
    hub, user = subject.calls.vectorizer, await subject.operator.add_tenant(plan="free")
    made = await hub.create_collection(user, name="docs", project_id=user, dimension=3)
    assert made.created
    assert made.collection_name == "docs"
    for total in (7, 7, 4):
        told = await hub.update_usage(made.collection_id, vector_count=total, storage_bytes=total)
        assert told.quota.current_vectors == total
    valid = await hub.validate_collection(made.collection_id, user)
    assert (valid.valid, valid.quota.current_vectors, valid.plan) == (True, 4, "free")
    found = await hub.get_user_collections(user)
    assert [(each.collection_name, each.dimension, each.vector_count) for each in found.collections] == [("docs", 3, 4)]
    await refused(hub.create_collection(user, name="flat", project_id=user, dimension=0), 400, text="must be positive")
    for number in range(found.collection_limit - 1):
        await hub.create_collection(user, name=f"c{number}", project_id=user, dimension=3)
    await refused(
        hub.create_collection(user, name="more", project_id=user, dimension=3), 429, text="Collection limit reached"
    )
    await refused(hub.update_usage(NOBODY, vector_count=1, storage_bytes=1), 404, text="Collection not found")


@contract(WIRE, OPERATOR)
async def a_graph_is_counted_by_increments(subject: Subject) -> None:
    """Calls 10, 12 and 13: what is told adds up, and credits end."""
    hub, user = subject.calls.nexus, await subject.operator.add_tenant(plan="free")
    for _ in range(2):
        await hub.update_usage(user, nodes_created=2, relationships_created=3, storage_bytes=0, credits_used=1)
    found = await hub.get_user_database(user)
    assert (found.quota.current_nodes, found.quota.current_relationships, found.credits.used) == (4, 6, 2)
    assert found.credits.available == found.credits.total - 2
    spent = await hub.consume_credits(user, amount=found.credits.available, operation="x")
    assert (spent.credits_remaining, spent.can_continue) == (0, False)
    await refused(hub.consume_credits(user, amount=1, operation="x"), 429, text="Insufficient credits")
    assert (await hub.get_user_database(user)).credits.used == found.credits.total


@contract(WIRE, OPERATOR)
async def resources_are_registered_by_name(subject: Subject) -> None:
    """Calls 14 to 17: three kinds with names of their own, short name or full one, a kind spelt either way."""
    hub, user = subject.calls.synap, await subject.operator.add_tenant(plan="free")
    for kind in ("queue", "stream", "keyvalue"):
        made = await hub.create_resource(user, resource_type=kind, name="jobs")
        assert made.full_resource_name == f"user_{user}:jobs"
        await hub.update_usage(user, resource_type=kind, resource_name="jobs", message_count=1)
        await hub.update_usage(user, resource_type=kind, resource_name=made.full_resource_name, storage_bytes=1)
        assert (await hub.validate_resource("jobs", user, resource_type=kind)).belongs_to_user
        assert not (await hub.validate_resource("none", user, resource_type=kind)).belongs_to_user
    names = (await hub.get_user_resources(user)).resources
    assert len(names.queues) == len(names.streams) == len(names.key_value_stores) == 1
    for spelt in (b"Queue", b"queue", b"KeyValue", b"keyvalue"):
        target = b"/synap/resources/jobs/validate?user_id=" + user.encode() + b"&type=" + spelt
        assert (await subject.raw("GET", target)).json["belongs_to_user"] is True, spelt


@contract(WIRE, OPERATOR)
async def tokens_are_spent(subject: Subject) -> None:
    """Calls 19 to 22: never below nothing."""
    hub, user = subject.calls.lesstokens, await subject.operator.add_tenant(plan="free")
    total = (await hub.get_user_tokens(user)).tokens.total
    assert (await hub.consume_tokens(user, amount=total - 1, operation="x")).tokens_remaining == 1
    assert (await hub.validate_tokens(user, required=1)).allowed
    assert not (await hub.validate_tokens(user, required=2)).allowed
    await refused(hub.consume_tokens(user, amount=2, operation="x"), 429)
    await hub.consume_tokens(user, amount=1, operation="x")
    tokens = (await hub.check_limit(user)).tokens
    assert (tokens.available, tokens.used, tokens.limit_reached) == (0, total, True)


@contract(WIRE, OPERATOR)
async def what_is_anothers_is_as_good_as_missing(subject: Subject) -> None:
    """A collection or a resource of another user is answered to the byte like one that nobody has."""
    hub = subject.calls
    mine, theirs = [await subject.operator.add_tenant(plan="free") for _ in range(2)]
    made = await hub.vectorizer.create_collection(theirs, name="docs", project_id=theirs, dimension=3)
    await hub.synap.create_resource(theirs, resource_type="queue", name="jobs")

    async def both(target: str, foreign: str, missing: str) -> tuple[RawReply, RawReply]:
        one = await subject.raw("GET", target.format(foreign).encode())
        return one, await subject.raw("GET", target.format(missing).encode())

    one, other = await both(f"/vectorizer/collections/{{}}/validate?user_id={mine}", made.collection_id, NOBODY)
    assert (one.status, one.body) == (other.status, other.body)
    assert one.status == 404
    resource = f"/synap/resources/{{}}/validate?user_id={mine}&type=Queue"
    one, other = await both(resource, "jobs", "gone")
    assert one.json["belongs_to_user"] is other.json["belongs_to_user"] is False
    foreign = await subject.raw("GET", resource.format(f"user_{theirs}:jobs").encode())
    assert foreign.json["belongs_to_user"] is False


@contract(WIRE)
async def a_name_that_cannot_travel_is_refused(subject: Subject) -> None:
    """In a body, because no path could reach it again; the field is named and nothing is made."""
    user = subject.tenant
    names = ["", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a%b", " a", "a ", "a\tb", "e\u0301", "a\u200bb"]
    for name in [*names, "x" * 256, f"user_{NOBODY}:a"]:
        for path, field_name, body in (
            ("vectorizer/users/{}/collections", "collection_name", {"project_id": user, "dimension": 3}),
            ("synap/users/{}/resources", "resource_name", {"resource_type": "queue"}),
        ):
            asked = json.dumps({**body, field_name: name}).encode()
            reply = await subject.raw("POST", b"/" + path.format(user).encode(), asked)
            assert reply.status == 400, f"{name!r} was answered {reply.status}"
            assert reply.json.get("field") == field_name


@contract(WIRE)
async def a_path_is_taken_apart_before_it_is_decoded(subject: Subject) -> None:
    """An encoded slash, a dot segment, a bad escape or a control character is 400, and reaches nobody else."""
    user = subject.tenant.encode()
    tail = b"/validate?user_id=" + user + b"&type=Queue"
    for name in (b"a%2Fb", b"a%5Cb", b"%00", b"a%0Ab", b"%2e%2e", b"a%", b"a%zz", b"%ff"):
        reply = await subject.raw("GET", b"/synap/resources/" + name + tail)
        assert reply.status == 400, f"{name!r} was answered {reply.status}"
    for query in (b"", b"?type=Queue", b"?user_id=" + user, tail[9:] + b"&type=Queue"):
        reply = await subject.raw("GET", b"/synap/resources/a/validate" + query)
        assert reply.status == 400, f"{query!r} was answered {reply.status}"


@contract(WIRE)
async def bad_input_is_named_and_never_a_fault(subject: Subject) -> None:
    """Not JSON, not an object, a wrong type, a negative count, an unknown word: 400 with the field."""
    user = subject.tenant.encode()
    spend, quota = b"/nexus/users/" + user + b"/credits", b"/nexus/quota"
    for target, body, field_name in (
        (spend, b"", None),
        (spend, b"{", None),
        (spend, b"[]", None),
        (spend, b'{"amount": -1, "operation": "x"}', "amount"),
        (spend, b'{"amount": 1.5, "operation": "x"}', "amount"),
        (spend, b'{"amount": "1", "operation": "x"}', "amount"),
        (spend, b'{"amount": 18446744073709551616, "operation": "x"}', "amount"),
        (spend, b'{"amount": 1}', "operation"),
        (spend, b'{"amount": 1, "operation": "\\u0000"}', "operation"),
        (quota, b'{"project_id": 5, "operation": "x"}', "project_id"),
        (b"/access-keys/generate", b'{"service": "redis", "name": "x", "permissions": ["read"]}', "service"),
    ):
        reply = await subject.raw("POST", target, body)
        assert reply.status == 400, f"{body!r} was answered {reply.status}"
        assert field_name is None or reply.json.get("field") == field_name, f"{body!r}: {reply.json}"
    assert (await subject.raw("GET", b"/no/such/path")).status == 404
    assert (await subject.raw("PATCH", b"/access-keys")).status == 405
    assert (await subject.raw("GET", b"/synap/users/nonsense/resources")).status == 400


# --- the extensions of the wire --------------------------------------------------------------------------------------


@contract(WIRE, OPERATOR)
async def a_call_with_a_key_takes_effect_once(subject: Subject) -> None:
    """The same key and bytes give the first reply; other bytes are refused, and nothing more is spent."""
    user = await subject.operator.add_tenant(plan="pro")
    key, hub = f"contract-{uuid4().hex}", subject.calls.nexus
    replies = [await hub.consume_credits(user, amount=5, operation="x", idempotency_key=key) for _ in range(3)]
    assert replies[0] == replies[1] == replies[2]
    await refused(
        hub.consume_credits(user, amount=6, operation="x", idempotency_key=key), 422, code="idempotency_mismatch"
    )
    assert (await hub.get_user_database(user)).credits.used == 5
    await hub.consume_credits(user, amount=5, operation="x", idempotency_key=f"contract-{uuid4().hex}")
    assert (await hub.get_user_database(user)).credits.used == 10


@contract(WIRE, OPERATOR)
async def a_secret_is_not_repeated(subject: Subject) -> None:
    """A repeat of generating or rotating says which key it was about, and shows nothing."""
    user, keys = await subject.operator.add_tenant(plan="pro"), subject.calls.access_keys
    key = f"contract-{uuid4().hex}"
    asked = {"service": service_of(subject), "name": "contract", "permissions": ["read"], "idempotency_key": key}
    made = await keys.generate_for(user, **asked)  # type: ignore[arg-type]
    await refused(keys.generate_for(user, **asked), 409, code="secret_not_repeatable")  # type: ignore[arg-type]
    listed = (await keys.list(user_id=user)).keys
    assert [each.id for each in listed] == [made.access_key_id]


@contract(WIRE, OPERATOR)
async def a_key_is_made_as_it_was_asked_for(subject: Subject) -> None:
    """With its owner and everything that confines it, which introspection then tells."""
    user, keys = await subject.operator.add_tenant(plan="pro"), subject.calls.access_keys
    made = await keys.generate_for(
        user,
        service=service_of(subject),
        name="narrow",
        permissions=["read"],
        functions=["kv.get"],
        networks=["10.0.0.0/8"],
    )
    record = live(await state_of(subject, Issued(key_id=KeyId(made.access_key_id), secret=made.access_key)))
    assert (record.tenant_id, record.functions, record.networks) == (user, ("kv.get",), ("10.0.0.0/8",))


@contract(WIRE, OPERATOR)
async def a_rotation_names_the_version_it_is_of(subject: Subject) -> None:
    """Another version is a conflict and changes nothing; the id stays and nothing widens."""
    user, keys = await subject.operator.add_tenant(plan="pro"), subject.calls.access_keys
    made = await keys.generate_for(user, service=service_of(subject), name="k", permissions=["read"])
    rotated = await keys.rotate(made.access_key_id, overlap_seconds=60, expected_version=1)
    assert (rotated.access_key_id, rotated.version) == (made.access_key_id, 2)
    for wrong in (1, 3):
        await refused(
            keys.rotate(made.access_key_id, overlap_seconds=0, expected_version=wrong), 409, code="version_conflict"
        )
    for secret in (made.access_key, rotated.access_key):
        record = live(await state_of(subject, Issued(key_id=KeyId(made.access_key_id), secret=secret)))
        assert {each.value for each in record.permissions} == {"read"}
    await refused(keys.rotate(NOBODY, overlap_seconds=0, expected_version=1), 404)


@contract(WIRE, OPERATOR)
async def a_child_is_no_wider_than_its_parent(subject: Subject) -> None:
    """Nor of another user, nor of a parent that is not active; a foreign parent is as good as a missing one."""
    mine, theirs = [await subject.operator.add_tenant(plan="pro") for _ in range(2)]
    keys, service = subject.calls.access_keys, service_of(subject)
    parent = await keys.generate_for(
        mine, service=service, name="parent", permissions=["read"], functions=["kv.get", "kv.scan"]
    )

    async def child(user: TenantId, under: str, **more: Any) -> Any:
        asked = {"permissions": ["read"], "functions": ["kv.get"], **more}
        return await keys.generate_for(user, service=service, name="child", parent_key_id=under, **asked)

    made = await child(mine, parent.access_key_id)
    for wider in ({"permissions": ["read", "write"]}, {"functions": None}, {"functions": ["kv.*"]}):
        try:
            await child(mine, parent.access_key_id, **wider)
        except HubRefusedError:
            continue
        raise AssertionError(f"a child with {wider} was made")
    foreign = await refused(child(theirs, parent.access_key_id), 404)
    missing = await refused(child(theirs, NOBODY), 404)
    assert str(foreign) == str(missing)
    await keys.revoke(parent.access_key_id)
    try:
        await child(mine, parent.access_key_id)
    except HubRefusedError:
        pass
    else:
        raise AssertionError("a child of a revoked parent was made")
    assert made.access_key_id in {each.id for each in (await keys.list(user_id=mine)).keys}


@contract(WIRE, OPERATOR)
async def pages_hold_everybody_once(subject: Subject) -> None:
    """Users with their limits, and keys of one user, in pages of one."""
    users = {await subject.operator.add_tenant(plan="free") for _ in range(3)}
    keys = {(await subject.operator.issue_key(subject.tenant)).key_id for _ in range(3)}
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(1_000):
        page = await subject.calls.extensions.limits_page(limit=2, cursor=cursor)
        assert len(page.items) <= 2
        seen += [item.user_id for item in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert users <= set(seen)
    listed: list[str] = []
    for _ in range(1_000):
        rows = await subject.calls.access_keys.list(user_id=subject.tenant, limit=1, cursor=cursor)
        listed += [row.id for row in rows.keys]
        cursor = rows.cursor
        if cursor is None:
            break
    assert len(listed) == len(set(listed))
    assert keys <= set(listed)


@contract(WIRE)
async def a_hub_says_which_it_is(subject: Subject) -> None:
    """The same each time, with its epoch, its time, and rights that the calls here need."""
    first, second = [await subject.calls.extensions.announcement() for _ in range(2)]
    assert first is not None, "this kit is for hubs that announce what they speak"
    assert second is not None
    assert (first.hub_id, first.epoch) == (second.hub_id, second.epoch)
    assert first.epoch >= 1
    assert first.authority
    assert {"introspect", "changes", "limits", "usage"} <= set(first.scopes)
    assert second.revision >= first.revision
    answer: LimitsAnswer = await subject.plane.limits(subject.tenant)
    assert (answer.epoch, subject.plane.hub_id) == (first.epoch, first.hub_id)
