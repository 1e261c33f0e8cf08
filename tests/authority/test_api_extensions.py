"""X0 to X6 over HTTP: the announcement, keys, changes, limits, usage, and calls that have their effect once."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from typing import Any

import httpx
import pytest

from hivetenancy.access_keys.format import digest
from hivetenancy.authority import api_services
from hivetenancy.authority.api import hub_app
from hivetenancy.authority.api_http import Message
from hivetenancy.authority.api_routes import ROUTES
from hivetenancy.authority.backend import ServiceBackend
from hivetenancy.authority.idempotency import Claim, IdempotencyStore
from hivetenancy.authority.view import HubView, Inspection
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import (
    CalendarPolicy,
    ConcurrencyPolicy,
    Plan,
    QuotaKind,
    QuotaLimit,
    RatePolicy,
    Scope,
    quota_limit,
)
from hivetenancy.sources import UsageKind, UsageLine, UsageReply, UsageReport

from .asking import BASE, SOURCE, UNKNOWN, Asker, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
def hub() -> Asker:
    """A hub on the wire, with every extension."""
    return Asker()


def written(wall_us: int) -> str:
    """A time of the wire, in this file's own way."""
    seconds = wall_us // 1_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


# --- X0 --------------------------------------------------------------------------------------------------------------


async def test_x0_says_what_the_hub_is_and_what_the_caller_may(hub: Asker) -> None:
    """A service key of one service hears that; one for all hears null."""
    said = (await hub.ask("GET", "/extensions")).json
    assert (said["authority"], said["hub_id"], said["service"]) == ("fake", hub.hub.hub_id, None)
    assert said["extensions"] == ["introspection", "changes", "limits", "usage", "idempotency", "key_management"]
    assert (said["epoch"], said["revision"]) == (hub.hub.epoch, hub.hub.revision)
    assert said["now"].startswith(written(hub.clock.now()[1]))
    assert (said["idempotency_window_seconds"], said["usage_grace_seconds"]) == (30 * 86_400, 3_600)
    one = hub.hub.issue_service_key("synap", ["limits"]).secret
    said = (await hub.ask("GET", "/extensions", key=one)).json
    assert (said["service"], said["scopes"]) == ("synap", ["limits"])


# --- X1 --------------------------------------------------------------------------------------------------------------

ACTIVE = (
    "active id version user_id service name permissions functions resources networks environment plan created_at "
    "not_before expires_at last_used_at rotation epoch revision now"
)


async def test_x1_describes_an_active_key_with_every_field(hub: Asker) -> None:
    """One that is absent would make the key malformed, so null is written."""
    made = (await hub.generate()).json
    said = (await hub.ask("POST", "/access-keys/introspect", {"access_key": made["access_key"]})).json
    assert set(said) == set(ACTIVE.split())
    assert (said["active"], said["id"], said["user_id"]) == (True, made["access_key_id"], hub.acme)
    assert (said["service"], said["plan"], said["functions"], said["rotation"]) == ("synap", "free", None, None)
    assert (said["epoch"], said["revision"]) == (hub.hub.epoch, hub.hub.revision)


async def test_x1_describes_a_rotation(hub: Asker) -> None:
    """Both secrets are active; each says which version it is."""
    made = (await hub.generate()).json
    body = {"overlap_seconds": 60, "expected_version": 1}
    rotated = await hub.ask("POST", f"/access-keys/{made['access_key_id']}/rotate", body)
    assert (rotated.status, rotated.json["version"]) == (200, 2)
    for secret, version in ((made["access_key"], 1), (rotated.json["access_key"], 2)):
        said = (await hub.ask("POST", "/access-keys/introspect", {"access_key": secret})).json
        assert (said["version"], said["rotation"]["current_version"]) == (version, 2)
        assert said["rotation"]["overlap_until"] == rotated.json["overlap_until"]
    stale = await hub.ask("POST", f"/access-keys/{made['access_key_id']}/rotate", body)
    assert (stale.status, stale.json["code"]) == (409, "version_conflict")


@pytest.mark.parametrize("overlap, version", [(-1, 1), (2_592_001, 1), (0, 0), (0.5, 1)])
async def test_x6_refuses_a_rotation_out_of_range(hub: Asker, overlap: Any, version: Any) -> None:
    """The field is named, the key stays as it was."""
    key = (await hub.generate()).json["access_key_id"]
    body = {"overlap_seconds": overlap, "expected_version": version}
    refused = await hub.ask("POST", f"/access-keys/{key}/rotate", body)
    assert (refused.status, refused.field) == (400, "expected_version" if overlap == 0 else "overlap_seconds")
    assert hub.hub.key(key).newest.version == 1


async def test_x1_says_why_a_key_is_dead(hub: Asker) -> None:
    """Revoked, expired, early, suspended, unowned, unknown; another service's key is unknown."""

    async def reason(secret: str, key: str | None = None) -> dict[str, Any]:
        reply = await hub.ask("POST", "/access-keys/introspect", {"access_key": secret}, key=key)
        assert reply.json["active"] is False
        found: dict[str, Any] = reply.json
        return found

    assert set(await reason("nonsense")) == {"active", "reason", "epoch", "revision", "now"}
    made = (await hub.generate()).json
    nexus = hub.hub.issue_service_key("nexus").secret
    assert (await reason(made["access_key"], nexus))["reason"] == "unknown"
    await hub.ask("DELETE", f"/access-keys/{made['access_key_id']}")
    dead = await reason(made["access_key"])
    assert (dead["reason"], dead["id"], dead["user_id"]) == ("revoked", made["access_key_id"], hub.acme)
    assert dead["revoked_at"].startswith(written(hub.clock.now()[1]))
    early = (await hub.generate(not_before="2200-01-01T00:00:00Z")).json["access_key"]
    assert (await reason(early))["not_before"] == "2200-01-01T00:00:00Z"
    assert (await reason((await hub.generate(user_id=None)).json["access_key"]))["reason"] == "unowned"
    late = (await hub.generate(expires_at="2101-01-01T00:00:00Z")).json["access_key"]
    hub.hub.suspend(hub.acme)
    assert (await reason(late))["reason"] == "suspended"
    hub.clock.advance(400 * 86_400)
    assert (await reason(late))["reason"] == "expired"


async def test_x1_answers_a_batch_in_order_from_one_snapshot(hub: Asker) -> None:
    """By digests; asking so is no use of a key."""
    made = (await hub.generate()).json
    known, unknown = (digest(secret.encode()).hex() for secret in (made["access_key"], "x" * 20))
    said = await hub.ask("POST", "/access-keys/introspect/batch", {"digests": [unknown, known, unknown]})
    assert [key["active"] for key in said.json["results"]] == [False, True, False]
    assert said.json["results"][1]["last_used_at"] is None
    assert said.json["revision"] == hub.hub.revision
    assert (await hub.ask("POST", "/access-keys/introspect/batch", {"digests": []})).json["results"] == []
    full = {"digests": [unknown] * 1_001}
    assert (await hub.ask("POST", "/access-keys/introspect/batch", full)).field == "digests"
    odd = {"digests": [unknown, known.upper()]}
    assert (await hub.ask("POST", "/access-keys/introspect/batch", odd)).field == "digests[1]"


async def stale_answers_are_refused(hub: Asker) -> None:
    """Whatever the question: an answer below ``min_revision`` is a 503 ``replica_behind``, one at it is given."""
    now, epoch = hub.hub.revision, hub.hub.epoch
    user = f"/synap/users/{hub.acme}/limits"
    asked: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", "/access-keys/introspect", {"access_key": "x" * 20}),
        ("POST", "/access-keys/introspect/batch", {"digests": []}),
        ("POST", "/synap/limits", {"user_ids": [hub.acme]}),
        ("POST", "/synap/limits", {"user_ids": []}),
        ("GET", user, None),
        ("GET", user.replace(hub.acme, UNKNOWN), None),
        ("GET", "/synap/limits", None),
    ]
    for method, path, body in asked:
        for revision, of, behind in ((now, epoch, False), (now + 1, epoch, True), (now + 1, None, True), (0, 9, True)):
            order = {"min_revision": revision} | ({} if of is None else {"epoch": of})
            query = "?" + "&".join(f"{name}={value}" for name, value in order.items())
            got = await hub.ask(method, path + ("" if body else query), {**body, **order} if body else None)
            assert (got.json.get("code") == "replica_behind") == behind, (path, order)
            assert (got.status == 503) == behind
            if not behind:
                assert (got.json["epoch"], got.json["revision"]) == (epoch, now)


@pytest.mark.parametrize("fake", [False, True])
async def test_a_revision_that_is_not_there_yet_is_503(fake: bool) -> None:
    """As HiveHub wire 4.2 says, for keys and for limits, known or not: by the model alone, and by the fake."""
    await stale_answers_are_refused(Asker(fake=fake))


async def test_an_older_snapshot_behind_the_application_is_noticed(hub: Asker) -> None:
    """A backend may answer from a replica; whether that is recent enough the application judges."""
    old: HubView = hub.hub.snapshot()

    class Replica(ServiceBackend):
        async def inspect(self, name: Any, digests: Any, **more: Any) -> Inspection:
            return old.inspect(digests, 0, more["service"])

    made = (await hub.generate()).json
    hub.app = hub_app(Replica(hub.hub))
    body = {"access_key": made["access_key"]}
    assert (await hub.ask("POST", "/access-keys/introspect", body)).json["reason"] == "unknown"
    asked = {**body, "min_revision": made["revision"], "epoch": made["epoch"]}
    assert (await hub.ask("POST", "/access-keys/introspect", asked)).status == 503
    with pytest.raises(AssertionError):
        await stale_answers_are_refused(hub)  # the fixture's revision is not the replica's


# --- X2 --------------------------------------------------------------------------------------------------------------


async def test_x2_tells_what_changed(hub: Asker) -> None:
    """From a cursor on, each event with what it is about; without one, nothing and where to start."""
    start = (await hub.ask("GET", "/changes?cursor=&wait_seconds=0")).json
    assert (start["events"], start["reset"], start["more"]) == ([], False, False)
    made = (await hub.generate()).json
    await hub.ask("DELETE", f"/access-keys/{made['access_key_id']}")
    hub.hub.set_plan(hub.acme, "pro")
    hub.hub.define_plan(Plan(name="pro"))
    key = hub.hub.issue_service_key()
    hub.hub.rotate_service_key(key.key_id, overlap_seconds=60)
    said = (await hub.ask("GET", f"/changes?cursor={start['cursor']}")).json
    kinds = ["key_created", "key_revoked", "user_changed", "plan_changed", "service_key_rotated"]
    assert [event["type"] for event in said["events"]] == kinds
    assert [event["revision"] for event in said["events"]] == [start["revision"] + n for n in range(1, 6)]
    created, revoked, changed, plan, rotated = said["events"]
    assert created["digest_prefix"] == digest(made["access_key"].encode()).hex()[:16]
    assert (revoked["id"], revoked["user_id"]) == (made["access_key_id"], hub.acme)
    assert "revoked_at" in revoked
    assert (changed["user_id"], plan["plan"]) == (hub.acme, "pro")
    assert set(rotated) == {"revision", "type", "at", "expires_at"}


@pytest.mark.parametrize("cursor", ["nonsense", "a.b", "%20", "x" * 600, "-", "%E2%82%AC"])
async def test_x2_resets_who_lost_the_place(hub: Asker, cursor: str) -> None:
    """Whatever the cursor is, never a 4xx."""
    said = await hub.ask("GET", f"/changes?cursor={cursor}&wait_seconds=25")
    assert (said.status, said.json["reset"], said.json["spread_seconds"]) == (200, True, 10)


@pytest.mark.parametrize("wait", ["26", "-1", "1.5", "", "x", "1&wait_seconds=1"])
async def test_x2_refuses_another_wait(hub: Asker, wait: str) -> None:
    """0 to 25 whole seconds, once."""
    refused = await hub.ask("GET", f"/changes?wait_seconds={wait}")
    assert (refused.status, refused.field) == (400, "wait_seconds")


class Caller:
    """Who polls over bare ASGI, and may hang up.

    Attributes:
        sent: What came back.
    """

    def __init__(self, hub: Asker, cursor: str) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self._first = True
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": f"{BASE}/changes".encode(),
            "query_string": f"cursor={cursor}&wait_seconds=25".encode(),
            "headers": [(b"x-service-key", hub.key.encode())],
        }
        self.task = asyncio.create_task(hub.app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._first:
            self._first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


async def waiting(hub: Asker, count: int) -> None:
    """Let the loop run until so many polls wait."""
    for _ in range(100):
        if len(hub.hub._bell) == count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{len(hub.hub._bell)} polls wait, not {count}")


async def test_x2_waits_for_a_change(hub: Asker) -> None:
    """The poll is answered the moment that something happens."""
    caller = Caller(hub, (await hub.ask("GET", "/changes?wait_seconds=0")).json["cursor"])
    await waiting(hub, 1)
    hub.hub.suspend(hub.acme)
    await asyncio.wait_for(caller.task, 30)
    assert b"user_suspended" in caller.sent[1]["body"]


async def test_x2_stops_waiting_when_the_caller_hangs_up(hub: Asker) -> None:
    """Nothing is sent, and nothing waits any more."""
    caller = Caller(hub, (await hub.ask("GET", "/changes?wait_seconds=0")).json["cursor"])
    await waiting(hub, 1)
    caller.gone.set()
    await asyncio.wait_for(caller.task, 30)
    assert (caller.sent, len(hub.hub._bell)) == ([], 0)


async def test_x2_ends_its_wait_when_the_server_cancels_it(hub: Asker) -> None:
    """As at a shutdown."""
    caller = Caller(hub, (await hub.ask("GET", "/changes?wait_seconds=0")).json["cursor"])
    await waiting(hub, 1)
    caller.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.task
    assert (caller.sent, len(hub.hub._bell)) == ([], 0)


# --- X3 --------------------------------------------------------------------------------------------------------------


async def test_x3_says_what_limits_a_user(hub: Asker) -> None:
    """Quotas with their use, rates with their scope, static limits."""
    report = {
        "writer": "w",
        "sequence": 1,
        "previous_sequence": 0,
        "lines": [{"user_id": hub.acme, "dimension": "storage_bytes", "kind": "contribution", "value": 70}],
    }
    await hub.ask("PUT", f"/synap/usage/{SOURCE}", report)
    said = (await hub.ask("GET", f"/synap/users/{hub.acme}/limits?source={SOURCE}&source={SOURCE[::-1]}")).json
    assert (said["user_id"], said["plan"], said["status"]) == (hub.acme, "free", "active")
    quotas = {quota["dimension"]: quota for quota in said["quotas"]}
    storage = quotas["storage_bytes"]
    assert (storage["kind"], storage["used"], storage["own"], storage["limit"]) == ("contribution", 70, 70, 100 << 20)
    assert "period" not in storage
    assert (quotas["searches"]["limit"], quotas["vectors"]["resource"]) == (None, "*")
    assert (quotas["tokens"]["period"], quotas["tokens"]["kind"]) == ("month", "counter")
    assert quotas["tokens"]["period_start"] <= said["now"] < quotas["tokens"]["resets_at"]
    assert said["rates"][0] == {
        "name": "per-minute",
        "limit": 100,
        "period_seconds": 60,
        "burst": None,
        "scope": "user",
    }
    assert said["static"] == {"max_payload_bytes": 262_144, "max_ttl_seconds": 86_400, "max_batch": 10}
    hub.hub.begin_deletion(hub.acme)
    assert (await hub.ask("GET", f"/synap/users/{hub.acme}/limits")).json["status"] == "deleting"


async def test_x3_writes_every_policy_so_that_a_reader_admits_no_more(hub: Asker) -> None:
    """A fraction of a second, a key's own rate, a calendar, and concurrency as a quota."""
    hub.hub.set_rates(
        hub.acme,
        [
            RatePolicy(name="fast", limit=5, period_us=500_000, burst=7, scope=Scope.KEY),
            CalendarPolicy(name="days", limit=9, period=Period.DAY, zone="Europe/Berlin"),
            CalendarPolicy(name="months", limit=8, period=Period.MONTH),
            ConcurrencyPolicy(name="at-once", limit=3),
            ConcurrencyPolicy(name="at-once-each", limit=2, scope=Scope.KEY),
        ],
    )
    daily = QuotaLimit(dimension="jobs", limit=5, kind=QuotaKind.COUNTER, period=Period.DAY, zone="Europe/Berlin")
    hub.hub.set_quota(hub.acme, daily)
    said = (await hub.ask("GET", f"/synap/users/{hub.acme}/limits")).json
    assert {rate["name"]: rate["period_seconds"] for rate in said["rates"]} == {
        "fast": 0.5,
        "days": 90_000,
        "months": 31 * 86_400,
    }
    assert (said["rates"][0]["burst"], said["rates"][0]["scope"]) == (7, "key")
    quotas = [(quota["dimension"], quota["limit"], quota.get("zone")) for quota in said["quotas"]]
    assert ("jobs", 5, "Europe/Berlin") in quotas
    assert [limit for name, limit, _ in quotas if name == "requests_in_flight"] == [3]
    hub.hub.set_quota(hub.acme, quota_limit("requests_in_flight", 2))
    said = (await hub.ask("GET", f"/synap/users/{hub.acme}/limits")).json
    assert [quota["limit"] for quota in said["quotas"] if quota["dimension"] == "requests_in_flight"] == [2]


async def test_x3_of_an_unknown_user_is_404_with_its_place_in_the_order(hub: Asker) -> None:
    """So that the caller can tell whether it is news."""
    said = await hub.ask("GET", f"/synap/users/{UNKNOWN}/limits")
    assert (said.status, said.json["error"]) == (404, "User not found")
    assert (said.json["epoch"], said.json["revision"]) == (hub.hub.epoch, hub.hub.revision)


async def test_x3_pages_through_all_users(hub: Asker) -> None:
    """Each once, each with its revision."""
    for number in range(3):
        hub.hub.add_tenant(f"t{number}", plan="free")
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await hub.ask("GET", f"/synap/limits?limit=2&cursor={cursor}")).json
        seen += [item["user_id"] for item in page["items"]]
        assert all(item["revision"] == page["revision"] for item in page["items"])
        cursor = page.get("cursor")
        if cursor is None:
            break
    assert sorted(seen) == sorted(tenant.tenant_id for tenant in hub.hub.tenants())


async def test_x3_answers_about_several_users_in_order(hub: Asker) -> None:
    """One that is not there has no limits."""
    said = await hub.ask("POST", "/synap/limits", {"user_ids": [hub.other, UNKNOWN, hub.acme], "sources": [SOURCE]})
    assert [item["user_id"] for item in said.json["items"]] == [hub.other, UNKNOWN, hub.acme]
    assert [item["limits"] is None for item in said.json["items"]] == [False, True, False]
    assert said.json["items"][0]["limits"]["plan"] == "free"


@pytest.mark.parametrize(
    "query, field",
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=a.b", "cursor"),
        ("source=x", "source"),
        ("source=" + SOURCE.upper().replace("0", "A"), "source"),
        ("&".join([f"source={SOURCE}"] * 65), "source"),
        ("min_revision=-1", "min_revision"),
        (f"min_revision={2**53}", "min_revision"),
        ("epoch=x", "epoch"),
    ],
)
async def test_what_x3_refuses_of_a_query(hub: Asker, query: str, field: str) -> None:
    """The field is named."""
    refused = await hub.ask("GET", f"/synap/limits?{query}")
    assert (refused.status, refused.field) == (400, field)


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "user_ids"),
        ({"user_ids": [UNKNOWN] * 1_001}, "user_ids"),
        ({"user_ids": [UNKNOWN, "acme"]}, "user_ids[1]"),
        ({"user_ids": [], "sources": ["x"]}, "sources[0]"),
        ({"user_ids": [], "sources": [SOURCE] * 65}, "sources"),
        ({"user_ids": [], "epoch": -1}, "epoch"),
    ],
)
async def test_what_x3_refuses_of_a_body(hub: Asker, body: dict[str, Any], field: str) -> None:
    """The field is named."""
    refused = await hub.ask("POST", "/synap/limits", body)
    assert (refused.status, refused.field) == (400, field)


# --- X4 --------------------------------------------------------------------------------------------------------------


LINE = {"user_id": UNKNOWN, "dimension": "storage_bytes", "kind": "contribution", "value": 1}


def line(hub: Asker, value: Any = 5, **more: Any) -> dict[str, Any]:
    """A line about acme's storage."""
    return {"user_id": hub.acme, "dimension": "storage_bytes", "kind": "contribution", "value": value, **more}


async def put(hub: Asker, sequence: int, previous: int, *lines: Any, key: str | None = None, **more: Any) -> Reply:
    """Report."""
    body = {"writer": "w", "sequence": sequence, "previous_sequence": previous, "lines": list(lines), **more}
    return await hub.ask("PUT", f"/synap/usage/{SOURCE}", body, key=key)


async def test_x4_counts_a_report_once_and_refuses_another_writer(hub: Asker) -> None:
    """The same bytes are answered again; anything but the next is a conflict that changes nothing."""
    first = await put(hub, 3, 0, line(hub))
    assert first.json == {"last_sequence": 3, "rejected": []}
    assert (await put(hub, 3, 0, line(hub))).raw == first.raw
    for sequence, previous in ((3, 0), (5, 4), (2, 1)):
        refused = await put(hub, sequence, previous, line(hub, 6))
        assert (refused.status, refused.json["code"], refused.json["last_sequence"]) == (409, "source_conflict", 3)
    assert hub.hub.used(hub.acme, "storage_bytes") == 5
    assert (await put(hub, 4, 3, line(hub, 7), final=True)).status == 200
    assert hub.hub.used(hub.acme, "storage_bytes") == 7


async def test_x4_rejects_lines_one_by_one(hub: Asker) -> None:
    """The others are applied; the codes say whether trying again can help."""
    month = "2100-01-01T00:00:00Z"
    said = await put(
        hub,
        1,
        0,
        line(hub),
        line(hub),
        line(hub, user_id=UNKNOWN),
        line(hub, dimension="colours"),
        line(hub, kind="level", term=1, resource="c"),
        line(hub, 2**53, resource="a"),
        line(hub, 10**400, resource="b"),
        line(hub, dimension="tokens", kind="counter", period_start=month),
        line(hub, dimension="credits", kind="counter", period_start="2200-01-01T00:00:00Z"),
        line(hub, dimension="credits", kind="counter", period_start="0001-01-01T00:00:00Z"),
        line(hub, 3, kind="correction", reason="a closed period"),
        line(hub, 3, kind="correction", reason="é" * 255, resource="d"),
        line(hub, 3, resource="\u0000" + "x" * 1_000),
    )
    assert {item["index"]: (item["code"], item["permanent"]) for item in said.json["rejected"]} == {
        1: ("duplicate_line", True),
        2: ("unknown_user", True),
        3: ("unknown_dimension", True),
        4: ("kind_mismatch", True),
        5: ("out_of_range", True),
        6: ("out_of_range", True),
        8: ("period_not_open", False),
        9: ("out_of_range", True),
        11: ("out_of_range", True),
    }
    assert hub.hub.used(hub.acme, "storage_bytes") == 8
    assert hub.hub.used(hub.acme, "tokens") == 5


async def test_x4_source_belongs_to_who_reported_first(hub: Asker) -> None:
    """Another identity is refused, and changes nothing."""
    assert (await put(hub, 1, 0, line(hub))).status == 200
    other = hub.hub.issue_service_key().secret
    assert (await put(hub, 2, 1, line(hub, 9), key=other)).status == 403
    assert hub.hub.used(hub.acme, "storage_bytes") == 5


@pytest.mark.parametrize(
    "more, field",
    [
        ({"sequence": 0}, "sequence"),
        ({"sequence": 1, "previous_sequence": 1}, "previous_sequence"),
        ({"previous_sequence": -1}, "previous_sequence"),
        ({"writer": ""}, "writer"),
        ({"final": 1}, "final"),
        ({"lines": [LINE] * 1_001}, "lines"),
        ({"lines": [{}]}, "lines[0].user_id"),
        ({"lines": {}}, "lines"),
    ],
)
async def test_what_x4_refuses_as_a_whole(hub: Asker, more: dict[str, Any], field: str) -> None:
    """A malformed report is a 400 that names the field."""
    body = {"writer": "w", "sequence": 1, "previous_sequence": 0, "lines": [], **more}
    refused = await hub.ask("PUT", f"/synap/usage/{SOURCE}", body)
    assert (refused.status, refused.field) == (400, field)
    assert (await hub.ask("PUT", f"/synap/usage/{SOURCE[:-1]}", body)).field == "source"


# --- X5 --------------------------------------------------------------------------------------------------------------

ONCE = {"Idempotency-Key": "0123456789"}


async def test_x5_takes_credits_once(hub: Asker) -> None:
    """The same call under the same key gets the same bytes; another body is refused, another key is another call."""
    path, body = f"/nexus/users/{hub.acme}/credits", {"amount": 10, "operation": "x"}
    first = await hub.ask("POST", path, body, headers=ONCE)
    again = await hub.ask("POST", path, body, headers=ONCE)
    assert (first.status, first.raw) == (again.status, again.raw)
    other = await hub.ask("POST", path, {**body, "amount": 11}, headers=ONCE)
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")
    assert (await hub.ask("POST", path, body, headers={"Idempotency-Key": "9876543210"})).status == 200
    assert hub.hub.desk.get_user_database(hub.acme).credits.used == 20


async def test_x5_is_scoped_to_identity_and_target(hub: Asker) -> None:
    """The key of another caller, path or query is another key."""
    path, body = f"/nexus/users/{hub.acme}/credits", {"amount": 10, "operation": "x"}
    other = hub.hub.issue_service_key().secret
    await hub.ask("POST", path, body, headers=ONCE)
    await hub.ask("POST", path, body, headers=ONCE, key=other)
    await hub.ask("POST", path + "?a=1", body, headers=ONCE)
    await hub.ask("POST", path.replace(hub.acme, hub.other), body, headers=ONCE)
    assert hub.hub.desk.get_user_database(hub.acme).credits.used == 30
    assert hub.hub.desk.get_user_database(hub.other).credits.used == 10


async def test_x5_keeps_only_a_success(hub: Asker) -> None:
    """A refusal had no effect, so the call may be tried anew under its key."""
    path, body = f"/nexus/users/{hub.acme}/credits", {"amount": 1_001, "operation": "x"}
    assert (await hub.ask("POST", path, body, headers=ONCE)).status == 429
    hub.hub.set_plan(hub.acme, "pro")
    assert (await hub.ask("POST", path, body, headers=ONCE)).status == 200


async def test_x5_never_repeats_a_secret(hub: Asker) -> None:
    """A repeat is told id and version, and makes no second key."""
    body = {"service": "synap", "name": "a key", "permissions": ["read"], "user_id": hub.acme}
    made = await hub.ask("POST", "/access-keys/generate", body, headers=ONCE)
    again = await hub.ask("POST", "/access-keys/generate", body, headers=ONCE)
    assert (again.status, again.json["code"]) == (409, "secret_not_repeatable")
    assert (again.json["id"], again.json["version"]) == (made.json["access_key_id"], 1)
    rotate = {"overlap_seconds": 0, "expected_version": 1}
    path = f"/access-keys/{made.json['access_key_id']}/rotate"
    assert (await hub.ask("POST", path, rotate, headers=ONCE)).json["version"] == 2
    again = await hub.ask("POST", path, rotate, headers=ONCE)
    assert (again.status, again.json["version"]) == (409, 2)
    assert len((await hub.ask("GET", "/access-keys")).json["keys"]) == 1


async def test_x5_says_that_a_call_is_in_progress(hub: Asker) -> None:
    """With when to come back."""
    path, raw = f"/nexus/users/{hub.acme}/credits", b'{"amount":1,"operation":"x"}'
    identity = hub.hub.authenticate(hub.key)
    assert identity is not None
    claim = Claim(
        identity=identity.identity, method="POST", target=f"{BASE}{path}?".encode(), key=ONCE["Idempotency-Key"]
    )
    hub.hub._state.idempotency.claim(claim, sha256(raw).digest(), hub.clock.now()[1])
    busy = await hub.ask("POST", path, content=raw, headers=ONCE)
    assert (busy.status, busy.json["code"], busy.headers["retry-after"]) == (409, "in_progress", "1")


async def test_x5_does_nothing_where_no_further_call_can_be_remembered(hub: Asker) -> None:
    """A call whose repeat would not be known is refused with 503, one without a key goes on."""
    hub.hub._state.idempotency = IdempotencyStore(max_entries=0)
    path, body = f"/nexus/users/{hub.acme}/credits", {"amount": 10, "operation": "x"}
    full = await hub.ask("POST", path, body, headers=ONCE)
    assert (full.status, full.headers["retry-after"]) == (503, "60")
    assert (await hub.ask("POST", path, body)).status == 200
    assert hub.hub.desk.get_user_database(hub.acme).credits.used == 10


async def test_x5_without_a_claim_would_count_twice(hub: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken application that does not look at the key takes the credits again."""
    monkeypatch.setattr(api_services, "once", lambda _service, _question, effect: effect().answer)
    with pytest.raises(AssertionError):
        await test_x5_takes_credits_once(hub)


@pytest.mark.parametrize("value", ["short", "x" * 129, "with space", "\u00e9" * 10, ""])
async def test_x5_refuses_a_key_that_is_none(hub: Asker, value: str) -> None:
    """Named like a field."""
    path, body = f"/nexus/users/{hub.acme}/credits", b'{"amount":1,"operation":"x"}'
    headers = [(b"x-service-key", hub.key.encode()), (b"idempotency-key", value.encode("latin-1"))]
    refused = await hub.raw("POST", (BASE + path).encode(), body, headers=headers)
    assert (refused.status, refused.field) == (400, "idempotency_key")
    twice = [headers[0], *[(b"Idempotency-Key", b"0123456789")] * 2]
    assert (await hub.raw("POST", (BASE + path).encode(), body, headers=twice)).field == "idempotency_key"


async def test_x5_that_is_off_ignores_the_header() -> None:
    """Today's hub knows no such header: the call has its effect each time."""
    hub = Asker(extensions=())
    path, body = f"/nexus/users/{hub.acme}/credits", {"amount": 10, "operation": "x"}
    for _ in range(2):
        assert (await hub.ask("POST", path, body, headers={"Idempotency-Key": "x"})).status == 200
    assert hub.hub.desk.get_user_database(hub.acme).credits.used == 20


def test_x5_is_there_for_the_calls_of_the_wire() -> None:
    """Calls 1, 6, 12, 13, 16, 17, 21 and rotate, and no other."""
    numbers = {route.number for route in ROUTES if route.idempotent}
    assert numbers == {"1", "6", "12", "13", "16", "17", "21", "X6"}


# --- there and back --------------------------------------------------------------------------------------------------


async def test_the_client_reads_what_the_control_plane_says(hub: Asker) -> None:
    """Over the wire and back, every answer of the four sources is the value that a method call gives."""
    made = hub.hub.issue_key(hub.acme, name="k", permissions=["read"], functions=["kv.*"], networks=["10.0.0.0/8"])
    secret, nobody = made.secret.encode(), digest(b"x" * 20)
    lines = (
        UsageLine(tenant_id=hub.acme, dimension="storage_bytes", resource=None, kind=UsageKind.CONTRIBUTION, value=-5),
    )
    report = UsageReport(source=SOURCE, writer="w", sequence=1, previous_sequence=0, lines=lines)
    nowhere = TenantId(UNKNOWN)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hub.app)) as http:
        client = HiveHub("http://127.0.0.1:1", hub.key, service="synap", http=http, clock=hub.clock, allow_fake=True)
        await client.open()
        start = await client.changes(None)
        assert start == await hub.hub.changes(None)
        assert await client.report(report) == await client.report(report) == UsageReply(last_sequence=1)
        assert await client.introspect(secret) == await hub.hub.introspect(secret)
        batch = [digest(secret), nobody]
        assert await client.introspect_batch(batch) == await hub.hub.introspect_batch(batch)
        for sources in ((), (SOURCE,)):
            answer = await client.limits(hub.acme, sources=sources)
            assert answer == await hub.hub.limits(hub.acme, sources=sources)
        assert await client.limits(nowhere) == await hub.hub.limits(nowhere)
        both = [hub.acme, nowhere]
        assert await client.limits_batch(both) == await hub.hub.limits_batch(both)
        hub.hub.revoke_key(made.key_id)
        assert await client.introspect(secret) == await hub.hub.introspect(secret)
        assert await client.changes(start.cursor) == await hub.hub.changes(start.cursor)
        await client.aclose()
