"""Control planes to run the kit on: in this process, over ASGI, as a process, and a real one; and broken ones."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from hivetenancy.authority.api import hub_app
from hivetenancy.authority.service import HubService
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import Dimension, KeyId, TenantId
from hivetenancy.sources import ControlPlane, TenantStatus
from hivetenancy.testing import FakeHiveHub, ManualClock
from hivetenancy.testing.contracts.control_plane import Issued, RawReply
from tests.authority.asking import raw_ask
from tests.hub.wired import BASE, Answer, Got, Line, Sent, client_on, from_app

PLAIN = ssl.create_default_context()  # loaded once: each client would read the certificates again


class OfService:
    """The operator of a `HubService` in this process."""

    def __init__(self, service: HubService, clock: ManualClock) -> None:
        self.service = service
        self.clock = clock

    async def add_tenant(self, *, plan: str) -> TenantId:
        """Create a tenant."""
        return self.service.add_tenant(f"t-{uuid4().hex}", plan=plan)

    async def issue_key(
        self,
        tenant: TenantId,
        *,
        permissions: Sequence[str] = ("read", "write"),
        functions: Sequence[str] | None = None,
        expires_in_s: float | None = None,
        service: str | None = None,
    ) -> Issued:
        """Issue a key."""
        ends = None if expires_in_s is None else self.clock.now()[1] + round(expires_in_s * 1_000_000)
        key = self.service.issue_key(
            tenant, name="k", permissions=permissions, functions=functions, expires_at_us=ends, service=service
        )
        return Issued(key_id=key.key_id, secret=key.secret)

    async def revoke_key(self, key_id: KeyId) -> None:
        """Revoke a key."""
        self.service.revoke_key(key_id)

    async def rotate_key(self, key_id: KeyId, *, overlap_s: int, compromised: bool = False) -> Issued:
        """Give a key another secret."""
        key = self.service.rotate_key(key_id, overlap_seconds=overlap_s, compromised=compromised)
        return Issued(key_id=key.key_id, secret=key.secret)

    async def set_plan(self, tenant: TenantId, plan: str) -> None:
        """Put a tenant on another plan."""
        self.service.set_plan(tenant, plan)

    async def set_limit(self, tenant: TenantId, dimension: Dimension, limit: int) -> None:
        """Give a tenant a limit of its own."""
        self.service.set_limit(tenant, dimension, limit)

    async def set_status(self, tenant: TenantId, status: TenantStatus) -> None:
        """Suspend or resume a tenant."""
        (self.service.resume if status is TenantStatus.ACTIVE else self.service.suspend)(tenant)

    async def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.clock.advance(seconds)
        self.service.wake()


class OverControl:
    """The operator of `hub serve --control`: its control routes, and the wire for what that has calls for."""

    def __init__(self, url: str, token: str, calls: HiveHub) -> None:
        self.url, self.token, self.calls = url, token, calls

    async def ask(self, method: str, path: str, body: Any) -> Any:
        """Ask a control route."""
        headers = [("X-Fake-Control", self.token), ("Content-Type", "application/json")]
        reply = await over_tcp(self.url, method, f"/_fake/{path}".encode(), json.dumps(body).encode(), headers)
        assert reply.status < 300, reply.body
        return reply.json

    async def add_tenant(self, *, plan: str) -> TenantId:
        """Create a tenant."""
        return TenantId((await self.ask("POST", "tenants", {"name": f"t-{uuid4().hex}", "plan": plan}))["id"])

    async def issue_key(
        self,
        tenant: TenantId,
        *,
        permissions: Sequence[str] = ("read", "write"),
        functions: Sequence[str] | None = None,
        expires_in_s: float | None = None,
        service: str | None = None,
    ) -> Issued:
        """Issue a key."""
        asked = {
            "permissions": list(permissions),
            "functions": functions,
            "expires_in": expires_in_s,
            "service": service,
        }
        made = await self.ask("POST", f"tenants/{tenant}/keys", {k: v for k, v in asked.items() if v is not None})
        return Issued(key_id=KeyId(made["id"]), secret=made["secret"])

    async def revoke_key(self, key_id: KeyId) -> None:
        """Revoke a key, by call 4."""
        await self.calls.access_keys.revoke(key_id)

    async def rotate_key(self, key_id: KeyId, *, overlap_s: int, compromised: bool = False) -> Issued:
        """Give a key another secret, by X6."""
        made = await self.calls.access_keys.rotate(
            key_id, overlap_seconds=overlap_s, expected_version=1, compromised=compromised
        )
        return Issued(key_id=key_id, secret=made.access_key)

    async def set_plan(self, tenant: TenantId, plan: str) -> None:
        """Put a tenant on another plan."""
        await self.ask("PATCH", f"tenants/{tenant}", {"plan": plan})

    async def set_limit(self, tenant: TenantId, dimension: Dimension, limit: int) -> None:
        """Give a tenant a limit of its own."""
        await self.ask("PATCH", f"tenants/{tenant}", {"limits": {dimension: limit}})

    async def set_status(self, tenant: TenantId, status: TenantStatus) -> None:
        """Suspend or resume a tenant."""
        await self.ask("PATCH", f"tenants/{tenant}", {"status": status.value})

    async def advance(self, seconds: float) -> None:
        """Move the clock."""
        await self.ask("POST", "clock", {"advance_seconds": seconds})


async def over_tcp(
    url: str, method: str, target: bytes, body: bytes | None, headers: Sequence[tuple[str, str]]
) -> RawReply:
    """Send exactly this to a server; no HTTP client of Python's but this one leaves a target alone."""

    def exchange() -> RawReply:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=60)
        try:
            connection.putrequest(method, target.decode("ascii"))
            for name, value in (*headers, ("Content-Length", str(len(body or b"")))):
                connection.putheader(name, value)
            connection.endheaders(body or b"")
            reply = connection.getresponse()
            return RawReply(status=reply.status, body=reply.read())
        finally:
            connection.close()

    return await asyncio.to_thread(exchange)


Raw = Callable[[str, bytes, bytes | None, Sequence[tuple[str, str]]], Awaitable[RawReply]]


async def _no_wire(*_: object) -> RawReply:
    raise AssertionError("a case that needs no wire sent something raw")


@dataclass
class Subject:
    """A control plane as the kit sees it."""

    plane: ControlPlane
    tenant: TenantId
    operator: Any = None
    calls: Any = None
    send: Raw = _no_wire
    service_key: str = field(default="", repr=False)

    async def raw(
        self, method: str, target: bytes, body: bytes | None = None, *, headers: Sequence[tuple[str, str]] = ()
    ) -> RawReply:
        """Send exactly this."""
        given = {name.lower(): value for name, value in headers}
        given.setdefault("x-service-key", self.service_key)
        given.setdefault("content-type", "application/json")
        return await self.send(method, BASE.encode() + target, body, list(given.items()))


def model() -> tuple[HubService, OfService]:
    """A control plane in this process, and its operator."""
    clock = ManualClock()
    service = HubService(clock=clock, authority="fake")
    return service, OfService(service, clock)


def fake() -> tuple[FakeHiveHub, OfService]:
    """A fake in this process, door and all, and its operator."""
    clock = ManualClock()
    made = FakeHiveHub(clock=clock)
    return made, OfService(made.service, clock)


async def in_process(_life: AsyncExitStack) -> Subject:
    """The fake itself: method calls."""
    made, operator = fake()
    return Subject(plane=made, tenant=await operator.add_tenant(plan="pro"), operator=operator)


async def over_asgi(life: AsyncExitStack, family: Any) -> Subject:
    """The fake's application under the real client, on a client of *family*."""
    made, operator = fake()
    app, key = made.app, made.service_key
    client = await life.enter_async_context(family.AsyncClient(transport=family.ASGITransport(app=app)))
    told: dict[str, Any] = {"clock": operator.clock, "allow_fake": True, "retries": 0}
    hub = HiveHub("http://localhost", key, service="synap", http=client, **told)
    await hub.open()

    async def send(method: str, target: bytes, body: bytes | None, headers: Sequence[tuple[str, str]]) -> RawReply:
        plain = [(name.encode(), value.encode()) for name, value in headers]
        reply = await raw_ask(app, method, target, headers=plain, chunks=(body or b"",))
        return RawReply(status=reply.status, body=reply.raw)

    return Subject(
        plane=hub,
        tenant=await operator.add_tenant(plan="pro"),
        operator=operator,
        calls=hub,
        send=send,
        service_key=key,
    )


class Process:
    """`hivetenancy hub serve`, started once."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "hivetenancy", "hub", "serve", "--json", "--control", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "hub serve said nothing"
        said = json.loads(line)
        self.url, self.key, self.token = said["url"], said["service_key"], said["control_token"]

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.communicate(timeout=20)

    async def subject(self, life: AsyncExitStack) -> Subject:
        """A client of it."""
        hub = HiveHub(self.url, self.key, service="synap", allow_fake=True, retries=0, verify=PLAIN)
        await hub.open()
        life.push_async_callback(hub.aclose)
        operator = OverControl(self.url, self.token, hub)

        async def send(method: str, target: bytes, body: bytes | None, headers: Sequence[tuple[str, str]]) -> RawReply:
            return await over_tcp(self.url, method, target, body, headers)

        return Subject(
            plane=hub,
            tenant=await operator.add_tenant(plan="pro"),
            operator=operator,
            calls=hub,
            send=send,
            service_key=self.key,
        )


async def real(life: AsyncExitStack, url: str, key: str, tenant: str, service: str | None) -> Subject:
    """A real hub, without anybody to operate it."""
    hub = HiveHub(url, key, service=service, allow_fake=True)
    await hub.open()
    life.push_async_callback(hub.aclose)

    async def send(method: str, target: bytes, body: bytes | None, headers: Sequence[tuple[str, str]]) -> RawReply:
        return await over_tcp(url, method, target, body, headers)

    return Subject(plane=hub, tenant=TenantId(tenant), calls=hub, send=send, service_key=key)


# --- broken ones -----------------------------------------------------------------------------------------------------

Mutant = Callable[[Answer], Callable[[Sent], Awaitable[Got]]]


async def mutated(mutant: Mutant) -> Subject:
    """The application with something wrong in front of it, once the client has verified it."""
    service, operator = model()
    key = service.issue_service_key().secret
    line = Line(from_app(hub_app(service)))
    hub = client_on(line, service_key=key, clock=operator.clock)
    await hub.open()
    line.answer = mutant(line.answer)

    async def send(method: str, target: bytes, body: bytes | None, headers: Sequence[tuple[str, str]]) -> RawReply:
        sent = Sent(method, target.decode("ascii").removeprefix(BASE), dict(headers), body or b"")
        got = await line.answer(sent)  # type: ignore[misc]
        return RawReply(status=got.status, body=got.body)

    return Subject(
        plane=hub,
        tenant=await operator.add_tenant(plan="pro"),
        operator=operator,
        calls=hub,
        send=send,
        service_key=key,
    )


def _reply(change: Callable[[Sent, Got], Got]) -> Mutant:
    """A mutant that changes replies."""

    def mutant(answer: Answer) -> Callable[[Sent], Awaitable[Got]]:
        async def changed(sent: Sent) -> Got:
            return change(sent, await answer(sent))  # type: ignore[misc]

        return changed

    return mutant


def frozen(answer: Answer) -> Callable[[Sent], Awaitable[Got]]:
    """Says to a question what it said the first time: a cache in front that nobody told of."""
    known: dict[tuple[str, str, bytes], Got] = {}

    async def changed(sent: Sent) -> Got:
        name = (sent.method, sent.target, sent.body)
        if sent.method == "PUT" or name not in known:
            known[name] = await answer(sent)  # type: ignore[misc]
        return known[name]

    return changed


def forgetful(answer: Answer) -> Callable[[Sent], Awaitable[Got]]:
    """Does not hear what a question adds: a revision, a key of idempotency, a parent, a confinement, a version."""
    lost = {"min_revision", "parent_key_id", "functions", "networks", "sources", "final"}

    async def changed(sent: Sent) -> Got:
        body = sent.body
        if body.startswith(b"{"):
            asked = json.loads(body)
            kept = {name: value for name, value in asked.items() if name not in lost}
            body = json.dumps(kept).encode() if kept != asked else body
        path, _, query = sent.target.partition("?")
        fields = [each for each in query.split("&") if each.split("=")[0] not in (*lost, "source", "cursor")]
        headers = {name: value for name, value in sent.headers.items() if name != "idempotency-key"}
        target = f"{path}?{'&'.join(fields)}" if fields != [""] else path
        return await answer(replace(sent, target=target, headers=headers, body=body))  # type: ignore[misc, no-any-return]

    return changed


def twice(answer: Answer) -> Callable[[Sent], Awaitable[Got]]:
    """Does everything two times, as a proxy that retries by itself."""

    async def changed(sent: Sent) -> Got:
        if sent.method in ("POST", "PUT", "DELETE"):
            await answer(sent)  # type: ignore[misc]
        return await answer(sent)  # type: ignore[misc, no-any-return]

    return changed


def _agreeable(sent: Sent, got: Got) -> Got:
    if sent.path.startswith("/synap/usage") or got.status < 400:
        return got
    return Got(200, b'{"success": true, "error": "none"}')


def _alive(sent: Sent, got: Got) -> Got:
    def wake(key: dict[str, Any]) -> dict[str, Any]:
        template = {
            "active": True,
            "id": str(uuid4()),
            "version": 1,
            "user_id": str(uuid4()),
            "service": None,
            "name": "k",
            "permissions": ["read"],
            "functions": None,
            "resources": None,
            "networks": [],
            "environment": "test",
            "plan": "free",
            "created_at": "2100-01-01T00:00:00Z",
            "not_before": None,
            "expires_at": None,
            "last_used_at": None,
            "rotation": None,
        }
        return key if key["active"] else {**template, **{n: v for n, v in key.items() if n in ("id", "user_id") and v}}

    if got.status != 200 or "introspect" not in sent.path:
        return got
    value = got.json
    if "results" in value:
        return got.but(results=[wake(key) for key in value["results"]])
    stamp = {name: value[name] for name in ("epoch", "revision", "now")}
    return Got(200, json.dumps({**wake(value), **stamp}).encode(), got.headers)


def _backwards(_sent: Sent, got: Got) -> Got:
    value = got.json
    return got.but(**{name: part[::-1] for name, part in value.items() if isinstance(part, list)})


def _deaf(sent: Sent, got: Got) -> Got:
    return got.but(events=[], reset=False) if sent.path == "/changes" and got.status == 200 else got


def _wordless(_sent: Sent, got: Got) -> Got:
    return Got(400 if got.status < 429 else got.status, b'{"error": "no"}') if got.status >= 400 else got


def _off_by_one(_sent: Sent, got: Got) -> Got:
    def more(value: Any) -> Any:
        if isinstance(value, dict):
            keep = ("epoch", "revision", "last_sequence", "index", "spread_seconds")
            return {name: part if name in keep else more(part) for name, part in value.items()}
        if isinstance(value, list):
            return [more(part) for part in value]
        return value + 1 if type(value) is int else value

    return Got(got.status, json.dumps(more(got.json)).encode(), got.headers) if got.status < 300 else got


def _careless(sent: Sent, got: Got) -> Got:
    """Takes every report, and says so without looking."""
    if not sent.path.startswith("/synap/usage"):
        return got
    asked = json.loads(sent.body)
    return Got(200, json.dumps({"last_sequence": asked["sequence"], "rejected": []}).encode())


def _possessive(_sent: Sent, got: Got) -> Got:
    return got.but(**{name: True for name in ("belongs_to_user", "allowed") if name in got.json})


def _nameless(sent: Sent, got: Got) -> Got:
    changed = {"hub_id": str(uuid4())} if sent.path == "/extensions" else {}
    return got.but(**changed) if got.status == 200 and changed else got


def _everybodys(sent: Sent, got: Got) -> Got:
    return got.but(service=None) if "introspect" in sent.path and got.status == 200 else got


def _stuck(_sent: Sent, got: Got) -> Got:
    value = got.json
    return got.but(cursor=...) if "items" in value or "keys" in value else got


def _revisionless(_sent: Sent, got: Got) -> Got:
    value = got.json
    if "events" in value:
        return got.but(events=[{**event, "revision": 7} for event in value["events"]])
    return got.but(revision=0) if "revision" in value and got.status == 200 else got


def _default_owner(sent: Sent, got: Got) -> Got:
    """Limits for whoever is asked about."""
    if sent.path.endswith("/limits") and got.status == 404:
        body = {"user_id": sent.path.split("/")[3], "plan": "free", "status": "active", "quotas": [], "rates": []}
        stamp = {name: got.json[name] for name in ("epoch", "revision", "now")}
        return Got(200, json.dumps({**body, "static": {}, **stamp}).encode())
    return got


def _polite(sent: Sent, got: Got) -> Got:
    """Refuses a strange cursor instead of beginning anew."""
    return Got(400, b'{"error": "x"}') if sent.path == "/changes" and got.json.get("reset") else got


def _in_no_hurry(answer: Answer) -> Callable[[Sent], Awaitable[Got]]:
    """Waits even where nobody knows from where on."""

    async def changed(sent: Sent) -> Got:
        if sent.path == "/changes" and "cursor" not in sent.target:
            await asyncio.sleep(5)
        return await answer(sent)  # type: ignore[misc, no-any-return]

    return changed


def _open(answer: Answer) -> Callable[[Sent], Awaitable[Got]]:
    """Looks at the path before the service key."""

    async def changed(sent: Sent) -> Got:
        got: Got = await answer(sent)  # type: ignore[misc]
        return Got(404, b'{"error": "Not found"}') if got.status == 401 and "no/such" in sent.target else got

    return changed


MUTANTS: dict[str, Mutant] = {
    "frozen": frozen,
    "forgetful": forgetful,
    "twice": twice,
    "agreeable": _reply(_agreeable),
    "alive": _reply(_alive),
    "backwards": _reply(_backwards),
    "deaf": _reply(_deaf),
    "wordless": _reply(_wordless),
    "off by one": _reply(_off_by_one),
    "careless": _reply(_careless),
    "possessive": _reply(_possessive),
    "everybody's": _reply(_everybodys),
    "nameless": _reply(_nameless),
    "stuck": _reply(_stuck),
    "revisionless": _reply(_revisionless),
    "default owner": _reply(_default_owner),
    "polite": _reply(_polite),
    "in no hurry": _in_no_hurry,
    "open": _open,
}
