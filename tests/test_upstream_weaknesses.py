"""What went wrong in the servers that this library was drawn from, tried over the whole road.

A test is named after the weakness, by its number in our study of those servers. Most stand in the rooms that they
belong to; here are those that need a server with everything around it, and the short cases of those servers' own
suites that no room tests by the way. `tests/test_upstream.py` says where each is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError
from typing import Any, Final

import pytest

pytest.importorskip("starlette", reason="starlette is not installed: it belongs to an extra")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hivetenancy import (
    ConfigurationError,
    MissingTenantError,
    NeverFitsError,
    QuotaExceededError,
    Reason,
    Refusal,
    StaticLimitError,
    TenancyError,
    Tenant,
    TenantContext,
    TenantId,
    current_tenant,
    function,
    quota_limit,
)
from hivetenancy.authority.plans import ENTERPRISE, FREE, PRO
from hivetenancy.cli.kv_server import OPERATION, KeyValueServer, missing
from hivetenancy.clock import HOUR_US
from hivetenancy.compose import Tenancy
from hivetenancy.decision import DONE
from hivetenancy.ids import STANDALONE, Effect, Surface
from hivetenancy.namespaces.prefix import IdentityNamespaces
from hivetenancy.plans import Plan, RatePolicy
from hivetenancy.quota.fixed import FixedLimits
from hivetenancy.quota.local import LocalQuota
from hivetenancy.ratelimit import PERMIT
from hivetenancy.testing import AsgiClient, FakeHiveHub, IssuedKey, ManualClock
from hivetenancy.testing.asgi_http import Response as Answer

pytestmark = pytest.mark.anyio

FULL: Final = ("read", "write", "delete")


class Road:
    """A hub with two tenants, and the demo's key-value server behind its tenancy."""

    def __init__(self, server: Callable[[], Starlette] | None = None) -> None:
        self.hub = FakeHiveHub(clock=ManualClock())
        self.acme, self.globex = (self.hub.add_tenant(name, plan="pro") for name in ("acme", "globex"))
        self.key, self.other = (tenant.issue_key(permissions=FULL) for tenant in (self.acme, self.globex))
        self.tenancy = Tenancy.embedded(self.hub, audit=None, allow_workers=True)
        self.server = KeyValueServer()
        self.app = self.tenancy.asgi((server or self.server.app)())
        self.client = AsgiClient(self.app)

    async def call(
        self, method: str, path: str, key: IssuedKey | None = None, body: bytes = b"", **headers: str
    ) -> Answer:
        """Send a request, with *key* and with headers whose names are written with underscores."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, headers={**(key.headers if key else {}), **extra}, body=body)

    async def used(self, key: IssuedKey) -> dict[str, int]:
        """What the usage page says that the key's tenant uses."""
        cells = (await self.call("GET", "/usage", key)).json()["usage"]
        return {cell["dimension"]: cell["used"] for cell in cells if cell["used"]}

    async def tenant(self, key: IssuedKey) -> Tenant:
        """The handle of the key's tenant."""
        caller = await self.tenancy.gate.authenticate(key.secret.encode(), now=self.tenancy.gate.now())
        assert not isinstance(caller, Refusal)
        return caller.tenant


@asynccontextmanager
async def road(server: Callable[[], Starlette] | None = None) -> AsyncIterator[Road]:
    """A started `Road`."""
    made = Road(server)
    async with made.client:
        yield made


# --- what went wrong there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"x_hivehub_service": "true"},
        {"x_hivehub_service": ""},
        {"x_hivehub_service": "a-wrong-value"},
        {"x_internal": "1", "x_hivehub_service": "1", "x_admin": "true"},
    ],
    ids=str,
)
async def test_d02_a_header_skipped_authentication(headers: dict[str, str]) -> None:
    """A service header, whatever its value and whomever it names, gives a request without key nothing at all."""
    async with road() as made:
        plain = await made.call("GET", "/kv")
        named = await made.call("GET", "/kv", x_hivehub_user_id=made.acme.id, **headers)
        assert plain.status == named.status == 401
        assert plain.body == named.body
        written = await made.call("PUT", "/kv/a", body=b"x", x_hivehub_user_id=made.acme.id, **headers)
        assert written.status == 401
        assert made.server.store == {}


async def test_d02_a_header_made_an_administrator() -> None:
    """Beside a key that may only read, such headers add no right and name no other tenant."""
    async with road() as made:
        await made.call("PUT", "/kv/a", made.other, b"theirs")
        reader = made.acme.issue_key(permissions=["read"])
        forged = {"x_hivehub_service": "true", "x_hivehub_user_id": made.globex.id}
        assert (await made.call("GET", "/kv/a", reader, **forged)).status == 404
        assert (await made.call("PUT", "/kv/a", reader, b"x", **forged)).status == 403
        assert (await made.call("GET", "/usage", reader, **forged)).json()["tenant"] == made.acme.id


#: Paths that the layer which checked keys let through there, by their beginning.
EXEMPT_THERE: Final = ("/collections", "/vectors", "/search", "/auth", "/health", "/dashboard", "/healthz-admin")


async def test_d03_data_routes_bypassed_the_check() -> None:
    """No path is exempt by how it begins, and behind every one the handler has the tenant of the key."""
    seen: list[str] = []

    def server() -> Starlette:
        @function("any.get", effect="read")
        async def handler(request: Request) -> Response:
            seen.append(current_tenant().id)
            return Response()

        paths = [path for stem in EXEMPT_THERE for path in (stem, stem + "/{rest:path}")]
        return Starlette(routes=[Route(path, handler) for path in paths])

    async with road(server) as made:
        for stem in EXEMPT_THERE:
            for path in (stem, stem + "/docs", stem + "/../docs"):
                assert (await made.call("GET", path)).status == 401, path
                assert (await made.call("POST", path)).status == 401, path
        assert seen == []
        for stem in EXEMPT_THERE:
            assert (await made.call("GET", stem + "/docs", made.key)).status == 200
        assert seen == [made.acme.id] * len(EXEMPT_THERE)


async def test_d03_an_exemption_is_exact() -> None:
    """What is public is one method and one path; whatever begins like it needs a key."""

    @function("health.read", effect="read")
    async def health(request: Request) -> Response:
        return Response()

    async def live(request: Request) -> Response:
        return Response("live")

    tenancy = Tenancy.embedded(FakeHiveHub(clock=ManualClock()), audit=None, allow_workers=True)
    routes = [Route("/health", live, methods=["GET"]), Route("/health/{what}", health)]
    async with AsgiClient(tenancy.asgi(Starlette(routes=routes), public=("GET /health",))) as client:
        assert (await client.request("GET", "/health")).text == "live"
        for method, path in (("POST", "/health"), ("GET", "/health/db"), ("GET", "/healthz"), ("GET", "//health")):
            assert (await client.request(method, path)).status == 401, path


@pytest.mark.parametrize("user", ["", "no-uuid", "00000000-0000-0000-0000-000000000000"])
async def test_d31_gateway_headers_were_trusted_from_anyone(user: str) -> None:
    """A bearer of any kind with a chosen user is no caller: who is asking is told by the hub alone."""
    async with road() as made:
        for chosen in (user, made.acme.id):
            forged = await made.call(
                "GET", "/kv", authorization="Bearer not-a-key-of-anybody", x_hivehub_user_id=chosen
            )
            assert (forged.status, forged.json()["code"]) == (401, "INVALID_CREDENTIAL")
            short = await made.call("GET", "/kv", authorization="Bearer x", x_hivehub_user_id=chosen)
            assert (short.status, short.json()["code"]) == (400, "INVALID_CREDENTIAL_CARRIER")


async def test_d31_a_key_and_a_gateway_header_disagreed() -> None:
    """With a good key the header changes nothing, whether it names the owner, another tenant or nobody."""
    async with road() as made:
        await made.call("PUT", "/kv/mine", made.key, b"x")
        for user in (made.acme.id, made.globex.id, "nobody", ""):
            told = await made.call("GET", "/usage", made.key, x_hivehub_user_id=user, x_user_id=user)
            assert told.json()["tenant"] == made.acme.id
            assert (await made.call("GET", "/kv", made.key, x_hivehub_user_id=user)).json() == ["mine"]


TINY: Final = Plan(
    name="tiny",
    rates=(RatePolicy(name="burst", limit=12, period_us=HOUR_US, burst=12),),
    quotas=(quota_limit("storage_bytes", 10), quota_limit("keys", 5), quota_limit("operations", 6)),
    statics={"max_payload_bytes": 20},
)


async def walk_the_road(made: Road) -> list[str]:
    """Meet every check once, on a plan that is soon used up, and return what came."""
    made.hub.define_plan(TINY)
    made.acme.set_plan("tiny")
    key, reader = made.acme.issue_key(permissions=FULL), made.acme.issue_key(permissions=["read"])
    answers = [
        await made.call("GET", "/kv/a"),
        await made.call("GET", "/kv/a", None, x_api_key="hh_test_well_formed_and_unknown"),
        await made.call("PUT", "/kv/a", reader, b"12345"),
        await made.call("PUT", "/kv/a", key, b"1" * 21),
        await made.call("PUT", "/kv/a", key, b"1" * 11),
        await made.call("PUT", "/kv/a", key, b"12345"),
        await made.call("GET", "/kv/a", made.other),
        *[await made.call("GET", "/kv/a", key) for _ in range(6)],
        *[await made.call("GET", "/kv/a", key) for _ in range(4)],
    ]
    got = [f"{answer.status} {answer.json()['code'] if answer.status >= 400 else ''}".strip() for answer in answers]
    await made.tenancy.flush()
    told = [made.acme.used(dimension) for dimension in ("storage_bytes", "keys", "operations")]
    return [*got, *made.server.store, *(str(each) for each in told)]


async def test_d38_nothing_was_connected() -> None:
    """One server, one `asgi` call: key, permission, payload, quota, name, rate and usage all answer."""
    async with road() as made:
        assert await walk_the_road(made) == [
            "401 MISSING_CREDENTIAL",
            "401 INVALID_CREDENTIAL",
            "403 FORBIDDEN",
            "413 PAYLOAD_TOO_LARGE",
            "429 QUOTA_EXCEEDED",
            "204",
            "404 NOT_FOUND",
            *["200"] * 5,
            "429 QUOTA_EXCEEDED",
            *["429 QUOTA_EXCEEDED"] * 2,
            *["429 RATE_LIMITED"] * 2,
            f"user:{made.acme.id}:a",
            *("5", "1", "6"),
        ]


def _all_keys_are_good(made: Road) -> None:
    gate, good = made.tenancy.gate, made.key.secret.encode()
    real = gate._validator

    class Believes:
        """Takes every key for the same good one."""

        async def validate(self, credential: bytes, **more: Any) -> Any:
            """Say who owns the good one."""
            return await real.validate(good, **more)

    gate._validator, gate._try_validate = Believes(), lambda *_, **__: None


def _nothing_is_forbidden(made: Road) -> None:
    made.tenancy.gate._forbids = lambda *_: None  # type: ignore[method-assign]


def _nothing_is_limited(made: Road) -> None:
    made.tenancy.gate._try_acquire = lambda *_, **__: PERMIT


def _everything_fits(made: Road) -> None:
    unlimited = tuple(quota_limit(name, None) for name in ("storage_bytes", "keys", "operations"))
    made.tenancy.gate._try_reserve = LocalQuota(FixedLimits(Plan(name="p", quotas=unlimited))).try_reserve


def _one_name_space(made: Road) -> None:
    made.tenancy.gate._names = IdentityLike()


class IdentityLike:
    """Gives every tenant the names of a server without tenants."""

    def for_tenant(self, context: TenantContext) -> Any:
        """Return names that are left as they are."""
        alone = TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)
        return IdentityNamespaces().for_tenant(alone)


def _nothing_is_recorded(made: Road) -> None:
    made.tenancy.gate._record = lambda *_, **__: DONE  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "unplug",
    [
        _all_keys_are_good,
        _nothing_is_forbidden,
        _nothing_is_limited,
        _everything_fits,
        _one_name_space,
        _nothing_is_recorded,
    ],
    ids=lambda unplug: unplug.__name__.strip("_"),
)
async def test_d38_a_part_that_is_unplugged_is_noticed(unplug: Callable[[Road], None]) -> None:
    """The walk above comes out otherwise as soon as one single part of the road answers for nobody."""
    async with road() as whole:
        expected = [line.replace(whole.acme.id, "ACME") for line in await walk_the_road(whole)]
    async with road() as made:
        unplug(made)
        assert [line.replace(made.acme.id, "ACME") for line in await walk_the_road(made)] != expected


#: Commands of the generic endpoint.
COMMANDS: Final = ("kv.get", "kv.keys", "kv.flushall", "script.flush")


def generic_server(store: dict[str, bytes]) -> Callable[[], Starlette]:
    """A server with one endpoint for all commands, which serves whoever the running code acts for."""

    @function("command", effect="write")
    async def command(request: Request) -> Response:
        asked = json.loads(await request.body())
        tenant, name = current_tenant(), asked["command"]
        mine = [key for key in store if tenant.kv.owns(key)]
        if name == "kv.get":
            key = tenant.kv.key(asked["key"])
            if key not in store:
                raise missing()
            return Response(store[key])
        if name == "kv.flushall":
            for key in mine:
                del store[key]
        return JSONResponse([tenant.kv.strip(key) for key in mine])

    return lambda: Starlette(routes=[Route("/api/v1/command", command, methods=["POST"])])


async def test_d40_the_generic_endpoint_had_no_tenant() -> None:
    """One endpoint for every command is a route as any other: no key no command, and with one only one's own data."""
    store: dict[str, bytes] = {}
    async with road(generic_server(store)) as made:
        store[str((await made.tenant(made.key)).kv.key("mine"))] = b"acme's"
        store[str((await made.tenant(made.other)).kv.key("mine"))] = b"globex's"

        async def send(by: IssuedKey | None, command: str, **more: str) -> Answer:
            body = json.dumps({"command": command, **more}).encode()
            return await made.call("POST", "/api/v1/command", by, body)

        for command in COMMANDS:
            assert (await send(None, command, key="mine")).status == 401
        assert len(store) == 2
        assert (await send(made.key, "kv.get", key="mine")).body == b"acme's"
        foreign = str((await made.tenant(made.other)).kv.key("mine"))
        assert (await send(made.key, "kv.get", key=foreign)).status == 404, "a physical name reached another tenant"
        assert (await send(made.key, "kv.flushall")).json() == ["mine"]
        assert list(store.values()) == [b"globex's"]


async def test_d40_a_mode_between_the_two_was_an_open_door() -> None:
    """A tenancy is one of two objects, and there is no third that serves whoever brings no key."""
    alone, cluster = Tenancy.standalone(), Road().tenancy
    assert (alone.mode, cluster.mode) == ("standalone", "cluster")
    with pytest.raises(TypeError):
        Tenancy()  # type: ignore[abstract]
    async with road() as made:
        scopeless = await made.call("PUT", f"/kv/user:{made.globex.id}:x", body=b"planted")
        assert scopeless.status == 401
        await made.call("PUT", f"/kv/user:{made.globex.id}:x", made.key, b"planted")
        assert (await made.call("GET", "/kv", made.other)).json() == [], "a name written out reached another tenant"


async def test_d16_an_unreachable_hub_became_no_tenancy() -> None:
    """A server that cannot ask the hub says 503 to everybody, and serves nobody without tenants."""
    made = Road()
    with made.hub.outage():
        refused = await made.call("GET", "/kv", made.key)
        assert (refused.status, refused.json()["code"]) == (503, "UNAVAILABLE")
        assert (await made.call("PUT", "/kv/a", body=b"x")).status == 503
        assert made.server.store == {}
    await made.tenancy.stop()


# --- short cases of those servers' own suites ------------------------------------------------------------------------


async def test_the_same_name_in_two_tenants_is_two_objects() -> None:
    """Each reads its own, and a name is free again after its delete, for both."""
    async with road() as made:
        for key, body in ((made.key, b"acme"), (made.other, b"globex")):
            assert (await made.call("PUT", "/kv/docs", key, body)).status == 204
        assert (await made.call("GET", "/kv/docs", made.key)).body == b"acme"
        assert (await made.call("DELETE", "/kv/docs", made.key)).status == 204
        assert (await made.call("GET", "/kv/docs", made.other)).body == b"globex"
        assert (await made.call("PUT", "/kv/docs", made.key, b"again")).status == 204
        assert (await made.call("GET", "/kv/docs", made.key)).body == b"again"


async def test_a_full_tenant_disturbs_nobody_and_still_reads_and_deletes() -> None:
    """At its limit a tenant is refused new data alone; others, its reads and its deletes go on."""
    async with road() as made:
        made.acme.set_limit("keys", 1)
        assert (await made.call("PUT", "/kv/a", made.key, b"1")).status == 204
        assert (await made.call("PUT", "/kv/b", made.key, b"1")).status == 429
        assert (await made.call("GET", "/kv/a", made.key)).status == 200
        assert (await made.call("PUT", "/kv/b", made.other, b"1")).status == 204
        assert (await made.call("DELETE", "/kv/a", made.key)).status == 204
        assert (await made.call("PUT", "/kv/b", made.key, b"1")).status == 204


async def test_a_deleted_tenant_takes_nobody_along() -> None:
    """Its key is 401 from the next call on, and what the others have stored is there, readable and charged."""
    async with road() as made:
        for key in (made.key, made.other):
            assert (await made.call("PUT", "/kv/docs", key, b"four")).status == 204
        made.acme.begin_deletion()
        made.acme.delete()
        assert (await made.call("GET", "/kv/docs", made.key)).status == 401
        assert (await made.call("GET", "/kv/docs", made.other)).body == b"four"
        assert (await made.used(made.other))["storage_bytes"] == 4


@pytest.mark.parametrize(("tenants", "each"), [(3, 5), (5, 10)])
async def test_concurrent_creations_end_with_exact_counts(tenants: int, each: int) -> None:
    """However many create at once, each tenant has as many as it made, and is charged for just those."""
    async with road() as made:
        keys = [made.hub.add_tenant(f"t{at}", plan="pro").issue_key(permissions=FULL) for at in range(tenants)]
        answers = await asyncio.gather(
            *[made.call("PUT", f"/kv/{name}", key, b"four") for name in range(each) for key in keys]
        )
        assert {answer.status for answer in answers} == {204}
        for key in keys:
            assert await made.used(key) == {"keys": each, "storage_bytes": 4 * each, "operations": each}
        assert len(made.server.store) == tenants * each


async def test_what_is_charged_is_what_was_stored() -> None:
    """Three writes here and two there are charged to the byte, and not by a price for each call."""
    async with road() as made:
        for key, sizes in ((made.key, (1, 20, 300)), (made.other, (7, 0))):
            for at, size in enumerate(sizes):
                await made.call("PUT", f"/kv/{at}", key, b"x" * size)
            stored = await made.used(key)
            assert (stored["storage_bytes"], stored["keys"]) == (sum(sizes), len(sizes))


async def test_a_fresh_tenant_has_used_nothing() -> None:
    """Before its first call every cell of a tenant stands at zero, with nothing held and all of it remaining."""
    async with road() as made:
        cells = await (await made.tenant(made.key)).usage()
        assert cells
        assert {(cell.used, cell.held) for cell in cells} == {(0, 0)}
        assert all(cell.remaining == cell.limit for cell in cells)


async def test_an_unknown_operation_is_allowed_to_nobody() -> None:
    """Not even a key that may do everything calls what was never declared."""
    made = Road()
    async with made.tenancy:
        root = made.acme.issue_key(permissions=["admin"])
        gate, now = made.tenancy.gate, made.tenancy.gate.now()
        stranger = Tenancy.embedded(made.hub, audit=None).functions.declare("no.such", effect=Effect.READ)
        caller = await gate.authenticate(root.secret.encode(), now=now)
        assert not isinstance(caller, Refusal)
        answer = await gate.admit(caller, stranger, surface=Surface.HTTP, now=now)
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.UNDECLARED_FUNCTION


async def test_code_without_a_tenant_raises_in_cluster_mode() -> None:
    """No tenant is no wider view: outside a request nothing is everybody's."""
    async with road():
        with pytest.raises(MissingTenantError):
            current_tenant()


async def test_standalone_mode_gives_the_server_back_as_it_was() -> None:
    """Without tenants no key is needed, names are untouched, nothing is limited and no header is added."""
    server = KeyValueServer()
    bare, alone = KeyValueServer().app(), Tenancy.standalone()
    names: list[Any] = []

    @function("kv.set", effect="write", demand=OPERATION)
    async def put(request: Request) -> Response:
        tenant = alone.current_tenant()
        names.append(tenant.kv.key("config:app"))
        async with tenant.charge("config:app", storage_bytes=2**60):
            return Response(status_code=204)

    app = alone.asgi(Starlette(routes=[Route("/x", put, methods=["PUT"]), *server.app().routes]))
    async with AsgiClient(app) as client, AsgiClient(bare) as plain:
        written = await client.request("PUT", "/x", body=b"x")
        assert (written.status, written.headers) == (204, ())
        assert names == ["config:app"]
        ours, theirs = await client.request("GET", "/nowhere"), await plain.request("GET", "/nowhere")
        assert (ours.status, ours.headers, ours.body) == (theirs.status, theirs.headers, theirs.body)
    async with alone:
        assert alone.health().ok


async def test_a_refusal_says_its_code_in_json() -> None:
    """An error body is one JSON object with a code; details stand in it only where there are any."""
    async with road() as made:
        made.acme.set_limit("keys", 0)
        bare = (await made.call("GET", "/kv")).json()
        full = await made.call("PUT", "/kv/a", made.key, b"x")
        assert set(bare) == {"type", "title", "status", "code"}
        assert set(full.json()) > set(bare)
        assert (full.json()["code"], full.json()["dimension"], full.json()["limit"]) == ("QUOTA_EXCEEDED", "keys", 0)


async def test_every_path_needs_a_key_in_cluster_mode() -> None:
    """That of a health check, one that no route has, and a WebSocket's among them."""

    @function("health.read", effect="read")
    async def health(request: Request) -> Response:
        return Response("well")

    @function("ws.talk", effect="read")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()

    def server() -> Starlette:
        return Starlette(routes=[Route("/health", health), WebSocketRoute("/ws", talk)])

    async with road(server) as made:
        for path in ("/health", "/", "/nowhere"):
            assert (await made.call("GET", path)).status == 401
        async with made.client.websocket("/ws") as refused:
            assert refused.refusal.status == 401
        assert (await made.call("GET", "/health", made.key)).status == 200


async def test_a_key_that_nobody_owns_is_401() -> None:
    """A key without a tenant is no caller."""
    async with road() as made:
        answer = await made.call("GET", "/kv", made.hub.issue_unowned_key())
        assert (answer.status, answer.json()["code"]) == (401, "INVALID_CREDENTIAL")


@pytest.mark.parametrize("name", ["PRO", "Pro", "platinum", ""])
async def test_a_plan_is_named_exactly(name: str) -> None:
    """No other spelling of a plan is taken for it, and none stands in for one that is unknown."""
    hub = FakeHiveHub(clock=ManualClock())
    with pytest.raises(TenancyError):
        hub.add_tenant("acme", plan=name)
    assert hub.add_tenant("acme", plan="pro").plan == "pro"


async def test_plans_are_ordered() -> None:
    """Each limit of the plan free is at most that of pro, which is at most that of enterprise."""

    def limits(plan: Plan) -> dict[str, float]:
        quotas = {quota.dimension: float("inf") if quota.limit is None else quota.limit for quota in plan.quotas}
        rates = {policy.name: policy.limit for policy in plan.rates}
        return {**quotas, **rates, **plan.statics}

    free, pro, enterprise = (limits(plan) for plan in (FREE, PRO, ENTERPRISE))
    assert free.keys() == pro.keys() == enterprise.keys()
    assert all(free[name] <= pro[name] <= enterprise[name] for name in free)


async def test_static_limits_bound_from_above() -> None:
    """Exactly at the limit passes, one more is refused; a short value is the host's own business."""
    async with road() as made:
        tenant = await made.tenant(made.key)
        await tenant.usage()  # its limits are known from here on, as in a request
        for name, error in (
            ("max_ttl_seconds", StaticLimitError),
            ("max_batch", NeverFitsError),
            ("max_payload_bytes", NeverFitsError),
        ):
            limit = PRO.statics[name]
            tenant.check(**{name: limit})
            tenant.check(**{name: 0})
            with pytest.raises(error):
                tenant.check(**{name: limit + 1})


async def test_a_context_is_a_value() -> None:
    """Equal parts make equal contexts, and none can be changed on the way."""
    first, second = (TenantContext(tenant_id=TenantId("t"), key_id=None, generation=3) for _ in range(2))
    assert first == second
    with pytest.raises(FrozenInstanceError):
        first.tenant_id = TenantId("u")  # type: ignore[misc]


ACME: Final = TenantId("acme")


def quota(**limits: int) -> LocalQuota:
    """An engine with these limits for everybody."""
    return LocalQuota(FixedLimits(Plan(name="p", quotas=tuple(quota_limit(*each) for each in limits.items()))))


def fits(engine: LocalQuota, **amounts: int) -> bool:
    """Whether *amounts* could be reserved; nothing stays held."""
    answer = engine.try_reserve(ACME, amounts)
    if isinstance(answer, Refusal) or answer is None:
        return False
    answer.release()
    return True


@pytest.mark.parametrize(
    ("limit", "used", "yes", "no"),
    [(1_000, 999, 1, 2), (1_000, 1_000, 0, 1), (5, 4, 1, 2), (1, 0, 1, 2), (0, 0, 0, 1), (2**50, 2**50 - 1, 1, 2)],
)
async def test_room_to_the_unit(limit: int, used: int, yes: int, no: int) -> None:
    """What is left can be had to the last unit and not one more; with a limit of zero nothing can."""
    engine = quota(storage_bytes=limit)
    engine.note(ACME, {"storage_bytes": used})
    assert fits(engine, storage_bytes=yes)
    assert not fits(engine, storage_bytes=no)


async def test_a_tenant_over_its_limit_has_nothing_remaining() -> None:
    """1,500 used of 1,000 shows as that, with 0 remaining and never below."""
    engine = quota(storage_bytes=1_000)
    engine.note(ACME, {"storage_bytes": 1_500})
    (cell,) = engine.try_snapshot(ACME) or ()
    assert (cell.used, cell.remaining) == (1_500, 0)
    assert not fits(engine, storage_bytes=1)
    assert fits(engine, storage_bytes=0)


async def test_headroom_in_three_dimensions() -> None:
    """Of 10, 10,000 and 1,000,000, with 1, 8,000 and 800,000 used, the rest fits exactly, and one more of any not."""
    engine = quota(collections=10, vectors=10_000, storage_bytes=1_000_000)
    used = {"collections": 1, "vectors": 8_000, "storage_bytes": 800_000}
    held = engine.try_reserve(ACME, used)
    assert held is not None
    assert not isinstance(held, Refusal)
    held.commit()
    rest = {"collections": 9, "vectors": 2_000, "storage_bytes": 200_000}
    assert fits(engine, **rest)
    for dimension in rest:
        assert not fits(engine, **{**rest, dimension: rest[dimension] + 1})


async def test_a_count_is_the_hosts_own_statement() -> None:
    """A call counts in the dimensions that its function or handler names, and in no other behind their back."""
    async with road() as made:
        await made.call("GET", "/kv", made.key)
        assert await made.used(made.key) == {"operations": 1, "searches": 1}
        await made.call("PUT", "/kv/a", made.key, b"12345")
        assert await made.used(made.key) == {"operations": 2, "searches": 1, "keys": 1, "storage_bytes": 5}


async def test_a_block_says_why_it_has_no_room() -> None:
    """The error of a block reads "quota exceeded" and has the numbers."""
    async with road() as made:
        made.acme.set_limit("collections", 0)
        with pytest.raises(QuotaExceededError, match="quota exceeded: collections has limit 0") as refused:
            async with (await made.tenant(made.key)).reserve(collections=1):
                raise AssertionError("unreachable")
        assert refused.value.refusal.requested == 1


async def test_a_wrong_setting_is_found_when_the_tenancy_is_built() -> None:
    """An interval of zero, a threshold of zero, or a path that cannot be honoured is no tenancy."""
    hub = FakeHiveHub(clock=ManualClock())
    for wrong in ({"report_seconds": 0}, {"report_threshold": 0}, {"path": "/var/lib/x"}):
        with pytest.raises(ConfigurationError):
            Tenancy.embedded(hub, **wrong)  # type: ignore[arg-type]
