"""What the application does with a request before it is a call: who asks, where to, and what may not be in it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import pytest

from hivetenancy.authority import api as api_module
from hivetenancy.authority.api import HubApp, hub_app
from hivetenancy.authority.api_http import MAX_BODY, Message, bad_field
from hivetenancy.authority.api_routes import KEY_MANAGEMENT, ROUTES
from hivetenancy.authority.backend import ServiceBackend
from hivetenancy.authority.credentials import ALL_SCOPES
from hivetenancy.authority.resources import CallRefused
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.errors import ConfigurationError, HubUnavailableError

from .asking import BASE, SOURCE, UNKNOWN, Asker, Reply

pytestmark = pytest.mark.anyio

CREDITS = f"{BASE}/nexus/users/{UNKNOWN}/credits".encode()


@pytest.fixture
def hub() -> Asker:
    """A hub on the wire, with every extension."""
    return Asker()


def filled(path: str, hub: Asker) -> str:
    """A path of the table with something in the place of each parameter."""
    values = {
        "user_id": hub.acme,
        "key_id": UNKNOWN,
        "collection_id": UNKNOWN,
        "resource_name": "jobs",
        "service": "synap",
        "source": SOURCE,
    }
    return path.format(**values)


# --- who asks --------------------------------------------------------------------------------------------------------


async def strangers_learn_nothing(app: Any, hub: Asker) -> None:
    """Whatever a stranger asks for, the answer is the very same 401."""
    wrong = [(b"x-service-key", b"svc_all_" + b"x" * 43)]
    twice = [(b"x-service-key", hub.key.encode())] * 2
    bearer = [(b"authorization", b"Bearer " + hub.key.encode())]
    replies: list[Reply] = []
    for headers in ([], wrong, twice, bearer, [(b"x-service-key", b"\xff")], [(b"x-service-key", b"x" * 10_000)]):
        for method, target in (
            ("GET", f"{BASE}/extensions".encode()),
            ("GET", b"/nowhere"),
            ("PATCH", f"{BASE}/extensions".encode()),
            ("GET", b"/%zz/%2e%2e"),
            ("POST", CREDITS),
            ("GET", f"{BASE}/access-keys/{UNKNOWN}?a=%".encode()),
        ):
            replies.append(await hub.raw(method, target, b"not json", headers=headers, app=app))
    assert {reply.status for reply in replies} == {401}
    assert {reply.raw for reply in replies} == {b'{"error":"Invalid API key"}'}
    assert len({tuple(sorted(reply.headers.items())) for reply in replies}) == 1


async def test_a_wrong_or_missing_service_key_is_401_before_anything_else(hub: Asker) -> None:
    """Even where path, method, query or body are wrong too; there twice is wrong as well."""
    await strangers_learn_nothing(hub.app, hub)


async def test_a_body_of_a_stranger_is_not_read(hub: Asker) -> None:
    """Nobody keeps the hub busy without a key."""

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        sent.append(message)

    sent: list[Message] = []
    scope = {"type": "http", "method": "POST", "raw_path": CREDITS, "query_string": b"", "headers": []}
    await hub.app(scope, receive, send)
    assert sent[0]["status"] == 401


async def test_an_expired_or_replaced_service_key_is_401(hub: Asker) -> None:
    """From the very moment on."""
    made = hub.hub.issue_service_key()
    assert (await hub.ask("GET", "/extensions", key=made.secret)).status == 200
    newer = hub.hub.rotate_service_key(made.key_id, overlap_seconds=5)
    assert (await hub.ask("GET", "/extensions", key=made.secret)).status == 200
    hub.clock.advance(5)
    assert (await hub.ask("GET", "/extensions", key=made.secret)).status == 401
    assert (await hub.ask("GET", "/extensions", key=newer.secret)).status == 200


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope], ids=lambda route: route.name)
async def test_a_service_key_without_the_scope_is_403(hub: Asker, route: Any) -> None:
    """Before path values, query or body are looked at, and for each route that has a scope."""
    key = hub.hub.issue_service_key(scopes=ALL_SCOPES - {route.scope}).secret
    path = filled(route.path, hub).replace(UNKNOWN, "no-id")
    refused = await hub.ask(route.method, path + "?a=1", key=key, content=b"not json")
    assert (refused.status, refused.json["error"], refused.json["code"]) == (403, "Access denied", "forbidden")


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.service or "{service}" in route.path],
    ids=lambda route: f"{route.name} {route.method}",
)
async def test_a_service_key_of_another_service_is_403(hub: Asker, route: Any) -> None:
    """By the path alone, whether or not what it speaks of is there."""
    own = route.service.value if route.service else "synap"
    other = "nexus" if own != "nexus" else "synap"
    for service, status in ((other, 403), (own, None)):
        key = hub.hub.issue_service_key(service).secret
        got = await hub.ask(route.method, filled(route.path, hub), key=key, content=b"{}")
        assert (got.status == 403) == (status == 403)


# --- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/internal",
        "/api/internal/",
        "//api/internal/extensions",
        "/api/internal/extensions/",
        "/api//internal/extensions",
        "/api/internal/access-keys/",
        "/api/internal/EXTENSIONS",
        f"/api/internal/redis/users/{UNKNOWN}/limits",
        f"/api/internal/access-keys/{UNKNOWN}/rotate/",
        "/_fake/reset",
        "/openapi.json",
    ],
)
async def test_an_unknown_path_is_404(hub: Asker, path: str) -> None:
    """With every method; a trailing or doubled slash is another path and never redirected."""
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
        got = await hub.raw(method, path.encode())
        assert (got.status, got.raw) == (404, b'{"error":"Not found"}')


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.name} {route.method}")
async def test_a_wrong_method_is_405_and_says_which_is_right(hub: Asker, route: Any) -> None:
    """HEAD and OPTIONS are methods like any other that is not there."""
    path = (BASE + filled(route.path, hub)).encode()
    right = {other.method for other in ROUTES if other.path == route.path}
    for method in ({"HEAD", "OPTIONS", "PATCH", "GET", "POST", "PUT", "DELETE", "get", "QUERY"}) - right:
        got = await hub.raw(method, path)
        assert (got.status, got.headers["allow"]) == (405, ", ".join(sorted(right))), method


BAD_PATHS = [
    b"/api/internal/synap/resources/%/validate",
    b"/api/internal/synap/resources/%4/validate",
    b"/api/internal/synap/resources/%zz/validate",
    b"/api/internal/synap/resources/a%2fb/validate",
    b"/api/internal/synap/resources/a%2Fb/validate",
    b"/api/internal/synap/resources/a%5cb/validate",
    b"/api/internal/synap/resources/a\\b/validate",
    b"/api/internal/synap/resources/a%00/validate",
    b"/api/internal/synap/resources/a%0a/validate",
    b"/api/internal/synap/resources/%2e%2e/validate",
    b"/api/internal/synap/resources/../validate",
    b"/api/internal/synap/./resources/a/validate",
    b"/api/internal/synap/resources/%ff/validate",
    b"/api/internal/synap/resources/%c0%af/validate",
    b"/api/internal/%2e%2e/extensions",
    b"no-slash",
]


async def bad_paths_are_refused(app: Any, hub: Asker) -> None:
    """Each of `BAD_PATHS` is a 400 about the path; one that is decoded once only is a name."""
    for path in BAD_PATHS:
        got = await hub.raw("GET", path + f"?user_id={hub.acme}&type=queue".encode(), app=app)
        assert (got.status, got.field) == (400, "path"), path
    twice = f"/api/internal/synap/resources/a%252fb/validate?user_id={hub.acme}&type=queue".encode()
    got = await hub.raw("GET", twice, app=app)
    assert (got.status, got.field) == (400, "resource_name"), "it is the name a%2fb, which no resource can have"


async def test_a_path_that_cannot_be_taken_apart_is_400(hub: Asker) -> None:
    """A bad escape, an encoded slash, backslash or NUL, a control or a dot segment (HiveHub wire 4.9)."""
    await bad_paths_are_refused(hub.app, hub)


@pytest.mark.parametrize(
    "path, field",
    [
        ("/access-keys/nonsense", "key_id"),
        (f"/access-keys/{UNKNOWN.replace('-', '')}", "key_id"),
        (f"/access-keys/{{{UNKNOWN}}}", "key_id"),
        ("/nexus/users/acme/database", "user_id"),
        ("/nexus/users//database", "user_id"),
        ("/vectorizer/collections/docs/validate", "collection_id"),
        (f"/synap/users/{UNKNOWN}x/limits", "user_id"),
        ("/synap/resources//validate?user_id={u}&type=queue", "resource_name"),
        (f"/synap/resources/{'x' * 256}/validate?user_id={{u}}&type=queue", "resource_name"),
        ("/synap/resources/a%25b/validate?user_id={u}&type=queue", "resource_name"),
        (f"/synap/resources/user_{UNKNOWN}:/validate?user_id={{u}}&type=queue", "resource_name"),
    ],
)
async def test_a_value_in_a_path_that_is_none_is_400(hub: Asker, path: str, field: str) -> None:
    """The field is named."""
    refused = await hub.raw("GET", (BASE + path.replace("{u}", hub.acme)).encode())
    assert (refused.status, refused.field) == (400, field)


async def test_ids_are_taken_in_either_case(hub: Asker) -> None:
    """And answered in lower case."""
    got = await hub.ask("GET", f"/nexus/users/{hub.acme.upper()}/database")
    assert got.json["database_name"] == f"user_{hub.acme}_nexus"


async def test_a_server_without_raw_path_is_an_error_of_the_operator(hub: Asker) -> None:
    """Without it no path could be read safely, so nothing is answered."""

    async def never(*_: object) -> Any:
        raise AssertionError

    scope = {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "headers": [(b"x-service-key", hub.key.encode())],
    }
    with pytest.raises(ConfigurationError, match="raw_path"):
        await hub.app(scope, never, never)


# --- bodies ----------------------------------------------------------------------------------------------------------

BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "body"),
    (b"amount=1", "body"),
    (b"{", "body"),
    (b"[]", "body"),
    (b"7", "body"),
    (b"null", "body"),
    (b'"x"', "body"),
    (b'\xef\xbb\xbf{"amount": 1, "operation": "x"}', "body"),
    (b'{"amount": 1, "operation": "x"}\x00', "body"),
    (b'{"amount": 1, "operation": "x"} {}', "body"),
    (b'{"amount": 1, "operation": "\xff"}', "body"),
    (b'{"amount": 1, "operation": "\\ud800"}', "body"),
    (b'{"amount": 1, "amount": 2, "operation": "x"}', "body"),
    (b'{"amount": 1, "operation": "x", "more": {"a": 1, "a": 2}}', "body"),
    (b'{"amount": 1, "\\u0061mount": 2, "operation": "x"}', "body"),
    (b'{"amount": NaN, "operation": "x"}', "body"),
    (b'{"amount": 1, "operation": "x", "more": Infinity}', "body"),
    (b'{"amount": 1, "operation": "x", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body"),
    (b'{"amount": 1, "operation": "x", "more": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", "body"),
    (b'{"amount": ' + b"9" * 100_000 + b', "operation": "x"}', "body"),
    (b'{"amount": ' + b"9" * 4_000 + b', "operation": "x"}', "amount"),
    (b'{"amount": 1e999, "operation": "x"}', "amount"),
    (b'{"amount": 1.0, "operation": "x"}', "amount"),
    (b'{"amount": 1.5, "operation": "x"}', "amount"),
    (b'{"amount": -1, "operation": "x"}', "amount"),
    (b'{"amount": 18446744073709551616, "operation": "x"}', "amount"),
    (b'{"amount": "1", "operation": "x"}', "amount"),
    (b'{"amount": true, "operation": "x"}', "amount"),
    (b'{"amount": [1], "operation": "x"}', "amount"),
    (b'{"operation": "x"}', "amount"),
    (b'{"amount": 1}', "operation"),
    (b'{"amount": 1, "operation": ""}', "operation"),
    (b'{"amount": 1, "operation": "a\\u0000"}', "operation"),
    (b'{"amount": 1, "operation": null}', "operation"),
    (b'{"amount": 1, "operation": "x", "description": 7}', "description"),
]


@pytest.mark.parametrize("body, field", BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_a_body_that_is_none_of_this_call_is_400(hub: Asker, body: bytes, field: str) -> None:
    """The field is named, or the body; nothing is consumed."""
    path = f"/nexus/users/{hub.acme}"
    refused = await hub.ask("POST", f"{path}/credits", content=body)
    assert (refused.status, refused.field, refused.json["code"]) == (400, field, "bad_field")
    assert (await hub.ask("GET", f"{path}/database")).json["credits"]["used"] == 0


async def test_unknown_fields_are_ignored_by_the_23_calls_and_refused_by_extensions(hub: Asker) -> None:
    """In bodies and in queries (HiveHub wire 4)."""
    body = {"amount": 1, "operation": "x", "colour": {"red": [1]}}
    assert (await hub.ask("POST", f"/nexus/users/{hub.acme}/credits?a=1&a=2&b", body)).status == 200
    asked = {"access_key": "x" * 20, "colour": 1}
    assert (await hub.ask("POST", "/access-keys/introspect", asked)).field == "colour"
    assert (await hub.ask("GET", f"/synap/users/{hub.acme}/limits?colour=1")).field == "colour"
    assert (await hub.ask("GET", "/changes?c0l=1")).field == "query"
    assert (await hub.ask("GET", "/extensions?a")).field == "a"
    report = {
        "writer": "w",
        "sequence": 1,
        "previous_sequence": 0,
        "lines": [{"user_id": hub.acme, "dimension": "x", "kind": "counter", "value": 1, "colour": 2}],
    }
    assert (await hub.ask("PUT", f"/synap/usage/{SOURCE}", report)).field == "lines[0].colour"


async def too_much_is_refused(app: Any, hub: Asker) -> None:
    """A body over 1 MiB is a 413, whether it is announced, comes at once, or comes in chunks."""
    path = f"{BASE}/nexus/users/{hub.acme}/credits".encode()
    body = json.dumps({"amount": 1, "operation": "x"}).encode()
    padded = body + b" " * (MAX_BODY - len(body))
    key = (b"x-service-key", hub.key.encode())
    for chunks in ((padded + b" ",), tuple([b" " * 1024] * 1025), (padded, b" ")):
        got = await hub.raw("POST", path, *chunks, app=app)
        assert (got.status, got.json.get("code")) == (413, "too_large")
    for length in (b"1048577", b"9" * 30):
        got = await hub.raw("POST", path, body, headers=[key, (b"content-length", length)], app=app)
        assert got.status == 413
    assert (await hub.raw("POST", path, padded[:1000], padded[1000:], app=app)).status == 200


async def test_a_body_over_a_mebibyte_is_413(hub: Asker) -> None:
    """Counted while it is read."""
    await too_much_is_refused(hub.app, hub)


async def test_who_hangs_up_while_sending_gets_no_answer_and_no_effect(hub: Asker) -> None:
    """Half a body is no body."""
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"amount": 1,', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError("something was answered")

    path = f"{BASE}/nexus/users/{hub.acme}/credits".encode()
    headers = [(b"x-service-key", hub.key.encode())]
    scope = {"type": "http", "method": "POST", "raw_path": path, "query_string": b"", "headers": headers}
    await hub.app(scope, receive, send)
    assert hub.hub.desk.get_user_database(hub.acme).credits.used == 0


async def test_no_reply_repeats_a_secret(hub: Asker) -> None:
    """Neither the service key nor an access key stands in any refusal."""
    secret = (await hub.generate()).json["access_key"]
    for body in ({"access_key": secret, "more": 1}, {"access_key": [secret]}, {secret: 1}, {"access_key": secret * 99}):
        refused = await hub.ask("POST", "/access-keys/introspect", body)
        assert refused.status == 400
        assert secret not in refused.raw.decode()
        assert secret[:20] not in refused.raw.decode()
    for path in (f"/access-keys/{secret}", f"/changes?{secret}=1", f"/synap/users/{secret}/limits"):
        refused = await hub.ask("GET", path)
        assert (refused.status, secret in refused.raw.decode()) == (400, False)
    assert hub.key not in repr(hub.app) + repr(hub.app._backend)


# --- switches, refusals, servers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_EXTENSIONS)
async def test_an_extension_that_is_off_is_an_unknown_path(name: str) -> None:
    """Byte for byte, with any method; X0's list does not have it; the 23 calls go on."""
    hub = Asker(extensions=[other for other in ALL_EXTENSIONS if other != name])
    unknown = await hub.raw("GET", b"/api/internal/nowhere")
    for route in ROUTES:
        if route.extension != name:
            continue
        for method in ("GET", "POST", "PUT", "DELETE"):
            got = await hub.raw(method, (BASE + filled(route.path, hub)).encode())
            assert (got.status, got.headers, got.raw) == (404, unknown.headers, unknown.raw), route.name
    said = await hub.ask("GET", "/extensions")
    if name != "announcement":
        assert set(said.json["extensions"]) == set(ALL_EXTENSIONS) - {name, "announcement"}
    assert (await hub.ask("GET", f"/nexus/users/{hub.acme}/database")).status == 200


async def test_extensions_are_switched_while_it_runs(hub: Asker) -> None:
    """So that a test can let one vanish."""
    assert (await hub.ask("GET", "/extensions")).status == 200
    hub.hub.set_extensions([KEY_MANAGEMENT])
    assert (await hub.ask("GET", "/extensions")).status == 404


async def test_what_a_backend_raises_becomes_a_status() -> None:
    """An outage is 503 with its Retry-After, a throttle always has one, a refusal keeps its status."""
    hub = Asker()
    errors: list[Exception] = []

    class Failing(ServiceBackend):
        async def perform(self, name: str, action: Callable[[], Any], arguments: Any) -> Any:
            raise errors[-1]

    app = hub_app(Failing(hub.hub))

    async def ask(error: Exception) -> Reply:
        errors.append(error)
        return await hub.raw("GET", f"{BASE}/nexus/users/{hub.acme}/database".encode(), app=app)

    down = await ask(HubUnavailableError("out", retry_after_us=1_500_000))
    assert (down.status, down.json["details"], down.headers["retry-after"]) == (503, "out", "2")
    assert "retry-after" not in (await ask(HubUnavailableError("out"))).headers
    assert (await ask(CallRefused(429, "rate_limited", "Slow down"))).headers["retry-after"] == "1"
    assert "retry-after" not in (await ask(CallRefused(429, "quota_exceeded", "Full"))).headers
    assert (await ask(bad_field("user_id", "is wrong"))).field == "user_id"
    with pytest.raises(ZeroDivisionError):
        await ask(ZeroDivisionError())


async def test_a_journal_sees_each_call_by_name_and_no_secret() -> None:
    """Every one of the calls passes through the backend, under the name of its route."""
    hub = Asker()
    seen: dict[str, Any] = {}

    class Journal(ServiceBackend):
        async def perform(self, name: str, action: Callable[[], Any], arguments: Any) -> Any:
            seen[name] = dict(arguments)
            return await super().perform(name, action, arguments)

    hub.app = hub_app(Journal(hub.hub))
    made = await hub.generate(functions=["kv.get"])
    await hub.ask("POST", f"/nexus/users/{hub.acme}/credits", {"amount": 1, "operation": "x", "description": "free"})
    assert seen["access_keys.generate"]["user_id"] == hub.acme
    assert seen["nexus.consume_credits"] == {"user_id": hub.acme, "amount": 1, "operation": "x"}
    assert made.json["access_key"] not in repr(seen)


async def test_lifespan_is_answered_and_a_websocket_refused(hub: Asker) -> None:
    """The rest of ASGI."""

    async def run(scope: dict[str, Any], *incoming: str) -> list[str]:
        messages = list(incoming)
        sent: list[str] = []

        async def receive() -> Message:
            return {"type": messages.pop(0)}

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await hub.app(scope, receive, send)
        return sent

    events = ("lifespan.startup", "lifespan.shutdown")
    assert await run({"type": "lifespan"}, *events) == [f"{event}.complete" for event in events]
    assert await run({"type": "websocket"}, "websocket.connect") == ["websocket.close"]


# --- broken applications ---------------------------------------------------------------------------------------------


class _RoutesFirst(HubApp):
    """Broken: lets everybody in, and would look at the service key later."""

    def __init__(self, hub: Asker) -> None:
        super().__init__(ServiceBackend(hub.hub))
        self.key = hub.key

    def _authenticated(self, headers: Any) -> Any:
        return self._backend.authenticate(self.key)


def _decoded_first(raw: bytes) -> Any:
    """Broken: decodes the whole path, then splits it, as frameworks do."""
    return unquote(raw.decode("latin-1"))[1:].split("/")


async def _whole_body(receive: Any, headers: Any) -> bytes:
    """Broken: reads whatever comes."""
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


Check = Callable[[Any, Asker], Awaitable[None]]


@pytest.mark.parametrize(
    "attribute, broken, check",
    [
        ("split_path", _decoded_first, bad_paths_are_refused),
        ("read_body", _whole_body, too_much_is_refused),
    ],
)
async def test_a_broken_part_is_found(
    hub: Asker, monkeypatch: pytest.MonkeyPatch, attribute: str, broken: Any, check: Check
) -> None:
    """Decoding before splitting, and reading without counting, fail the checks above."""
    monkeypatch.setattr(api_module, attribute, broken)
    with pytest.raises(AssertionError):
        await check(hub.app, hub)


async def test_looking_at_the_path_before_the_service_key_is_found(hub: Asker) -> None:
    """An application that tells strangers which paths there are fails the check above."""
    with pytest.raises(AssertionError):
        await strangers_learn_nothing(_RoutesFirst(hub), hub)
