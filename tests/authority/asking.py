"""Asks the application that speaks the wire, and holds every reply against the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from hivetenancy.authority.api import hub_app
from hivetenancy.authority.api_http import Message
from hivetenancy.authority.openapi import openapi
from hivetenancy.authority.service import HubService
from hivetenancy.ids import TenantId
from hivetenancy.testing import FakeHiveHub, ManualClock

BASE = "/api/internal"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SOURCE = "0123456789abcdef0123456789abcdef"
DOCUMENT = openapi()


@cache
def _validator(path: str, method: str, status: int) -> Draft202012Validator | None:
    response = DOCUMENT["paths"][path][method]["responses"].get(str(status))
    if response is None:
        return None
    schema = response["content"]["application/json"]["schema"]
    return Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]}, format_checker=FormatChecker(["uuid"])
    )


_ERRORS = Draft202012Validator({"$ref": "#/components/schemas/ErrorBody", "components": DOCUMENT["components"]})
_PATHS = sorted(
    ((re.compile(re.sub(r"\{[a-z_]+\}", "[^/]+", path)), path) for path in DOCUMENT["paths"]),
    key=lambda pair: pair[1].count("{"),
)


def operation(method: str, raw_path: str) -> tuple[str, str] | None:
    """The operation of the document that a request is for."""
    for pattern, path in _PATHS:
        if pattern.fullmatch(raw_path):
            return (path, method.lower()) if method.lower() in DOCUMENT["paths"][path] else None
    return None


def check_reply(method: str, raw_path: str, status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """Hold a reply to everything that is true of all, and to the document; return its JSON."""
    assert not 300 <= status < 400, "a hub never redirects"
    assert headers["x-hivehub-authority"] == "fake"
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    value = json.loads(body)
    assert isinstance(value, dict)
    found = operation(method, raw_path)
    validator = None if found is None else _validator(*found, status)
    if validator is None:
        assert status in (400, 401, 404, 405), f"{method} {raw_path}: {status} is not in the document"
        validator = _ERRORS
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not problems, problems
    if status == 400:
        assert value.get("field") or value.get("code") == "already_revoked", value
        assert value.get("code") in ("bad_field", "already_revoked"), value
    if status == 405:
        assert headers["allow"]
    if value.get("code") in ("rate_limited", "in_progress", "replica_behind"):
        assert int(headers["retry-after"]) > 0
    if status < 300 and b'"access_key":' in body:
        assert headers["cache-control"] == "no-store"
    return value


@dataclass
class Reply:
    """A checked reply."""

    status: int
    headers: dict[str, str]
    raw: bytes = field(repr=False)
    json: Any

    @property
    def field(self) -> str | None:
        """The field at fault."""
        value: str | None = self.json.get("field")
        return value


async def raw_ask(
    app: Any,
    method: str,
    target: bytes,
    *,
    headers: list[tuple[bytes, bytes]],
    chunks: tuple[bytes, ...] = (b"",),
) -> Reply:
    """Ask with exactly these bytes, and return the checked reply."""
    path, _, query = target.partition(b"?")
    incoming: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": index + 1 < len(chunks)}
        for index, chunk in enumerate(chunks)
    ]
    incoming.append({"type": "http.disconnect"})
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    names = [name.decode() for name, _ in sent[0]["headers"]]
    assert len(set(names)) == len(names)
    got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    body = sent[1]["body"]
    return Reply(
        sent[0]["status"], got, body, check_reply(method, path.decode("latin-1"), sent[0]["status"], got, body)
    )


class Asker:
    """A hub on the wire with two tenants, and what asks it.

    Args:
        fake: Whether the whole fake stands there, its door and its application, and not the model alone.
        **options: Of the hub.

    Attributes:
        hub: The control plane.
        clock: Its clock.
        app: The application.
        key: A service key for all services with every scope.
        acme: A tenant on the plan ``free``.
        other: Another one.
    """

    def __init__(self, *, fake: bool = False, **options: Any) -> None:
        self.clock = ManualClock()
        self.hub: HubService
        self.app: Any
        if fake:
            made = FakeHiveHub(clock=self.clock, **options)
            self.hub, self.app = made.service, made.app
        else:
            self.hub = HubService(clock=self.clock, authority="fake", **options)
            self.app = hub_app(self.hub)
        self.key = self.hub.issue_service_key().secret
        self.acme: TenantId = self.hub.add_tenant("acme", plan="free")
        self.other: TenantId = self.hub.add_tenant("other", plan="free")

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """Ask over httpx, below `BASE`; *content* is sent as it is."""
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            sent = content if content is not None or body is None else json.dumps(body).encode()
            got = await client.request(
                method,
                BASE + path,
                content=sent,
                headers={"X-Service-Key": self.key if key is None else key, **(headers or {})},
            )
        raw_path = got.request.url.raw_path.split(b"?")[0].decode("latin-1")
        value = check_reply(method, raw_path, got.status_code, dict(got.headers), got.content)
        return Reply(got.status_code, dict(got.headers), got.content, value)

    async def raw(
        self,
        method: str,
        target: bytes,
        *chunks: bytes,
        headers: list[tuple[bytes, bytes]] | None = None,
        app: Any = None,
    ) -> Reply:
        """Ask with exactly these bytes; *headers* instead of the service key."""
        shown = [(b"x-service-key", self.key.encode())] if headers is None else headers
        return await raw_ask(self.app if app is None else app, method, target, headers=shown, chunks=chunks or (b"",))

    async def generate(self, **more: Any) -> Reply:
        """Make a key of acme's over the wire."""
        asked = {"service": "synap", "name": "a key", "permissions": ["read"], "user_id": self.acme, **more}
        return await self.ask("POST", "/access-keys/generate", {k: v for k, v in asked.items() if v is not None})

    async def collection(self, name: str = "docs", **more: Any) -> Reply:
        """Register a collection of acme's over the wire."""
        asked = {"collection_name": name, "project_id": self.acme, "dimension": 3}
        return await self.ask("POST", f"/vectorizer/users/{self.acme}/collections", asked, **more)


@dataclass(frozen=True)
class Example:
    """A request that succeeds, one of every route."""

    name: str
    method: str
    path: str
    query: str = ""
    body: dict[str, Any] | None = None


def examples_of(hub: Asker) -> list[Example]:
    """A request that succeeds for each of the calls, in any order; makes what they speak about."""
    desk, user = hub.hub.desk, hub.acme
    key = desk.generate_key("synap", "a key", ["read"], user_id=user)
    doomed = desk.generate_key("synap", "a key", ["read"], user_id=user)
    collection = desk.create_collection(user, "docs", user, 3).collection_id
    desk.create_resource(user, "queue", "jobs")
    quota = {"project_id": user, "operation": "insert", "estimated_size": 5}
    consume = {"amount": 1, "operation": "x", "description": "why"}
    resource = {"resource_type": "queue", "resource_name": "jobs"}
    generate = {
        "service": "synap",
        "name": "a key",
        "permissions": ["read", "write"],
        "expires_at": "2150-01-01T00:00:00Z",
        "user_id": user,
        "functions": ["kv.*"],
        "resources": None,
        "networks": ["10.0.0.0/8"],
        "environment": "test",
        "not_before": "2100-01-01T00:00:00Z",
    }
    line = {"user_id": user, "dimension": "storage_bytes", "kind": "contribution", "value": 5}
    counted = {
        "user_id": user,
        "dimension": "tokens",
        "kind": "counter",
        "value": 5,
        "period_start": "2100-01-01T00:00:00Z",
    }
    nexus = {"nodes_created": 1, "relationships_created": 1, "storage_bytes": 1, "credits_used": 1}
    return [
        Example("access_keys.generate", "POST", "/access-keys/generate", body=generate),
        Example("access_keys.list", "GET", "/access-keys", f"service=synap&user_id={user}&limit=5"),
        Example("access_keys.get", "GET", f"/access-keys/{key.key.id}"),
        Example("access_keys.revoke", "DELETE", f"/access-keys/{doomed.key.id}"),
        Example(
            "access_keys.rotate",
            "POST",
            f"/access-keys/{key.key.id}/rotate",
            body={"overlap_seconds": 5, "compromised": False, "expected_version": 1},
        ),
        Example("vectorizer.get_user_collections", "GET", f"/vectorizer/users/{user}/collections"),
        Example(
            "vectorizer.create_collection",
            "POST",
            f"/vectorizer/users/{user}/collections",
            body={"collection_name": "more", "project_id": user, "dimension": 3},
        ),
        Example(
            "vectorizer.validate_collection",
            "GET",
            f"/vectorizer/collections/{collection}/validate",
            f"user_id={user}",
        ),
        Example(
            "vectorizer.update_usage",
            "PUT",
            f"/vectorizer/collections/{collection}/usage",
            body={"vector_count": 1, "storage_bytes": 1},
        ),
        *(
            Example(f"{service}.check_quota", "POST", f"/{service}/quota", body=quota)
            for service in ("vectorizer", "nexus", "synap", "lesstokens")
        ),
        Example("nexus.get_user_database", "GET", f"/nexus/users/{user}/database"),
        Example("nexus.consume_credits", "POST", f"/nexus/users/{user}/credits", body=consume),
        Example("nexus.update_usage", "PUT", f"/nexus/users/{user}/usage", body=nexus),
        Example("synap.get_user_resources", "GET", f"/synap/users/{user}/resources"),
        Example("synap.validate_resource", "GET", "/synap/resources/jobs/validate", f"user_id={user}&type=Queue"),
        Example(
            "synap.create_resource",
            "POST",
            f"/synap/users/{user}/resources",
            body={"resource_type": "stream", "resource_name": "log", "config": {"max_size": 1, "ttl": 1}},
        ),
        Example(
            "synap.update_usage",
            "PUT",
            f"/synap/users/{user}/usage",
            body={**resource, "message_count": 1, "storage_bytes": 1},
        ),
        Example("lesstokens.get_user_tokens", "GET", f"/lesstokens/users/{user}/tokens"),
        Example("lesstokens.validate_tokens", "GET", f"/lesstokens/users/{user}/validate", "required=5"),
        Example("lesstokens.consume_tokens", "POST", f"/lesstokens/users/{user}/consume", body=consume),
        Example("lesstokens.check_limit", "GET", f"/lesstokens/users/{user}/limit"),
        Example("announcement", "GET", "/extensions"),
        Example("introspect", "POST", "/access-keys/introspect", body={"access_key": key.access_key}),
        Example("introspect_batch", "POST", "/access-keys/introspect/batch", body={"digests": ["0" * 64]}),
        Example("changes", "GET", "/changes", "cursor=nonsense&wait_seconds=0"),
        Example("limits", "GET", f"/synap/users/{user}/limits", f"source={SOURCE}&min_revision=1&epoch=1"),
        Example("limits_page", "GET", "/synap/limits", f"limit=5&source={SOURCE}"),
        Example("limits_batch", "POST", "/synap/limits", body={"user_ids": [user, UNKNOWN], "sources": [SOURCE]}),
        Example(
            "report",
            "PUT",
            f"/synap/usage/{SOURCE}",
            body={"writer": "w", "sequence": 1, "previous_sequence": 0, "final": False, "lines": [line, counted]},
        ),
    ]
