"""Requests to an aiohttp application: who gets in, what is answered, what stays held."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")

from aiohttp import ClientError, web

from hivetenancy.adapters.aiohttp_exchange import Exchange
from hivetenancy.adapters.catalogue import INVALID_CARRIER, MISSING_CREDENTIAL, NOT_FOUND
from hivetenancy.adapters.http import HttpOptions, answer
from hivetenancy.clock import MINUTE_US
from hivetenancy.context import bound
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, HubUnavailableError, InvalidNameError
from hivetenancy.functions import function
from hivetenancy.namespaces.prefix import IdentityNamespaces
from hivetenancy.plans import RatePolicy
from hivetenancy.tenant import current_tenant, standalone_tenant
from tests.adapters.aiohttp.served import FAILURES, served
from tests.adapters.world import World, plan
from tests.tiers import examples

pytestmark = pytest.mark.anyio

FAILURES.update(
    denied=lambda: DeniedError.of(Refusal(reason=Reason.NOT_FOUND)),
    name=lambda: InvalidNameError("x"),
    unavailable=lambda: HubUnavailableError("secret", retry_after_us=1_500_000),
    crash=lambda: ZeroDivisionError("secret"),
    found=lambda: web.HTTPFound("/elsewhere"),
    conflict=lambda: web.HTTPConflict(),
    large=lambda: web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2),
)


async def test_an_admitted_request_is_bound_and_dressed() -> None:
    """The handler finds its tenant; the answer carries rate and security headers; nothing stays bound."""
    async with served() as made:
        told = await made.ask("GET", "/kv/a")
        assert told.status == 200
        assert told.body.decode().endswith(":a")
        assert made.world.tenant.id in told.body.decode()
        assert told.headers["X-Content-Type-Options"] == "nosniff"
        assert "x-api-key" in told.headers["Vary"]
        assert told.headers["X-RateLimit-Remaining"] == "999999"
        assert '"per-minute";r=999999' in told.headers["RateLimit"]
        assert bound.get() is None
        assert await made.world.all_held() == {}


async def test_d40_no_key_meant_unscoped_access() -> None:
    """Without a key every path and method, known or not, is the same 401 and reaches nothing."""
    async with served() as made:
        for method, path in (("GET", "/kv/a"), ("PUT", "/kv/a"), ("GET", "/no"), ("PATCH", "/kv/a"), ("OPTIONS", "/")):
            told = await made.ask(method, path, key=False)
            assert told.status == 401, (method, path)
            assert told.body == answer(MISSING_CREDENTIAL).body
            assert told.headers["WWW-Authenticate"] == 'Bearer realm="hivehub"'
            assert not any("ratelimit" in name.lower() for name in told.headers)
        assert (await made.ask("HEAD", "/kv/a", key=False)).status == 401


async def test_d38_nothing_was_connected() -> None:
    """One route through `setup` meets every check, key, rate, permission, quota, and its usage is reported."""
    tested = plan(RatePolicy(limit=5, period_us=MINUTE_US, burst=5, name="burst"), operations=1)
    async with served(World(tested)) as made:
        reader = made.world.tenant.issue_key(permissions=["read"])
        wrong = {"Authorization": "Bearer hh_test_made_up_and_never_issued"}
        assert (await made.ask("PUT", "/kv/a", headers=wrong)).status == 401
        assert (await made.ask("PUT", "/kv/a", data=b"1")).status == 204
        assert (await made.ask("PUT", "/kv/a", data=b"1")).code == "QUOTA_EXCEEDED"
        assert (await made.ask("PUT", "/kv/a", data=b"1", headers=reader.headers)).code == "FORBIDDEN"
        assert (await made.ask("GET", "/kv/a")).status == 200
        assert (await made.ask("GET", "/nope")).code == "NOT_FOUND"
        limited = await made.ask("GET", "/nope")
        assert limited.code == "RATE_LIMITED"
        assert limited.headers["Retry-After"] == "12"
        await made.world.tenancy.flush()
        assert made.world.tenant.used("operations") == 1


async def test_d16_hub_failure_silently_single_tenant() -> None:
    """Out of reach of the hub an unknown key is 503, not let in; a known one goes on."""
    async with served() as made:
        assert (await made.ask("GET", "/kv/a")).status == 200
        fresh = made.world.tenant.issue_key(permissions=["read"])
        made.world.hub.down = True
        told = await made.ask("GET", "/kv/a", headers=fresh.headers)
        assert told.code == "UNAVAILABLE"
        assert int(told.headers["Retry-After"]) >= 1
        assert (await made.ask("GET", "/kv/a")).status == 200
        made.world.hub.down = False


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer short"},
        {"Authorization": "Bearer " + "x" * 7000},
        {"Authorization": "Bearer a b c d e f g h i j k l"},
        {"X-API-Key": ""},
        {"X-API-Key": "ключключключключ"},
        {"X-API-Key": "x" * 20, "X-Hub-Access-Key": "y" * 20},
    ],
)
async def test_bad_carriers(headers: dict[str, str]) -> None:
    """Two keys, or one that cannot be one, get the one body that names the carriers."""
    async with served() as made:
        told = await made.ask("GET", "/kv/a", key=False, headers=headers)
        assert told.status == 400
        assert told.body == answer(INVALID_CARRIER).body


async def test_another_scheme_and_a_key_in_the_query() -> None:
    """Basic is no key; a key in the query is refused even beside a good one."""
    async with served() as made:
        told = await made.ask("GET", "/kv/a", key=False, headers={"Authorization": "Basic abc"})
        assert told.body == answer(MISSING_CREDENTIAL).body
        assert (await made.ask("GET", "/kv/a?api_key=1")).code == "INVALID_CREDENTIAL_CARRIER"
        assert (await made.ask("GET", "/kv/a?key=1")).status == 200


PATHS = [
    (b"/kv/%ff", b"400"),
    (b"/kv/%00", b"400"),
    (b"/kv/%0a", b"400"),
    (b"/kv/%zz", b"400"),
    (b"/kv/%", b"400"),
    (b"/kv/%2f", b"200"),
    (b"/kv/..", b"200"),
    (b"//kv/a", b"404"),
    (b"/kv//a", b"404"),
    (b"/kv/%C3%A9", b"200"),
    (b"/kv/" + b"a" * 5000, b"200"),
]


@pytest.mark.parametrize(("path", "status"), PATHS)
async def test_strange_paths(path: bytes, status: bytes) -> None:
    """A path that cannot be one is 400; every other is the router's business, behind the key."""
    async with served() as made:
        head = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        key = b"X-API-Key: " + made.world.key.secret.encode() + b"\r\n"
        told = await made.raw(head + key + b"\r\n")
        allowed = (status, b"400") if len(path) > 1000 else (status,)  # names have a longest
        assert told.split(b" ", 2)[1] in allowed
        assert (await made.raw(head + b"\r\n")).split(b" ", 2)[1] in (b"401", b"400")


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"GET /kv/a HTTP/9.9\r\n\r\n",
        b"GET /kv/a\r\n\r\n",
        b"GET /kv/\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET http://x/kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"BREW /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: nonsense\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: -1\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ],
)
async def test_bad_requests_without_a_key(sent: bytes) -> None:
    """Whatever is sent without a key is told 400 or 401, with no 500, and never to go on."""
    async with served() as made:
        told = await made.head(sent)
        assert told.split(b" ", 2)[1] in (b"400", b"401")
        assert b"100 Continue" not in told


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"BREW /kv/a HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /kv/a HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"400"),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /nope HTTP/1.1\r\nHost: x\r\nExpect: nonsense\r\n\r\n", b"417"),
        (b"GET /nope HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", b"100"),
    ],
)
async def test_what_the_server_answers_before_any_middleware(sent: bytes, status: bytes) -> None:
    """The table of the how-to page, so that it stays true."""
    async with served() as made:
        told = await made.head(sent)
        assert told.split(b" ", 2)[1] == status
        assert (b"nosniff" in told) == (status == b"417")


async def test_405_names_what_is_allowed_and_404_is_told_apart_from_nothing() -> None:
    """The router's own answers are rendered by us, cost a unit, and keep `Allow`."""
    async with served() as made:
        told = await made.ask("PATCH", "/kv/a")
        assert told.code == "METHOD_NOT_ALLOWED"
        assert sorted(told.headers["Allow"].split(",")) == ["GET", "HEAD", "PUT"]
        told = await made.ask("GET", "/nope")
        assert json.loads(told.body) == json.loads(answer(NOT_FOUND).body)
        assert told.headers["X-RateLimit-Remaining"] == "999998"


async def test_redirects_of_slashes() -> None:
    """normalize_path's redirects keep status and target, for those with a key alone."""
    middleware = web.normalize_path_middleware(append_slash=False, remove_slash=True)
    async with served(middlewares=[middleware]) as made:
        told = await made.ask("GET", "/pieces/")
        assert told.status == 308 or told.code in ("METHOD_NOT_ALLOWED", "NOT_FOUND")
        told = await made.ask("GET", "/kv/a/")
        assert (told.status, told.headers["Location"], told.body) == (308, "/kv/a", b"")
        assert told.headers["X-RateLimit-Remaining"] == "999998"
        assert (await made.ask("GET", "/kv/a/", key=False)).status == 401


async def test_method_override_behind_the_router_reaches_no_unguarded_handler() -> None:
    """A middleware that dispatches by its own lights meets the guard of whatever it chose."""

    @web.middleware
    async def override(request: web.Request, handler: Any) -> web.StreamResponse:
        method = request.headers.get("X-HTTP-Method-Override")
        if method is None:
            return await handler(request)  # type: ignore[no-any-return]
        other = request.clone(method=method)
        found = await request.app.router.resolve(other)
        found.add_app(request.app)
        other._match_info = found
        return await found.handler(other)

    async with served(middlewares=[override]) as made:
        reader = made.world.tenant.issue_key(permissions=["read"])
        sly = {**reader.headers, "X-HTTP-Method-Override": "PUT"}
        assert (await made.ask("GET", "/kv/a", headers=sly)).code == "FORBIDDEN"
        assert (await made.ask("GET", "/kv/a", headers={"X-HTTP-Method-Override": "PUT"})).status == 204
        assert (await made.ask("GET", "/kv/a", key=False, headers={"X-HTTP-Method-Override": "PUT"})).status == 401


async def test_a_middleware_that_answers_by_itself_is_withheld(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that no guard admitted is replaced: 403, logged with the remedy; streamed ones and crashes too."""

    @web.middleware
    async def answers(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/streamed":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"secret")
            return response
        if request.path == "/crash":
            raise ZeroDivisionError("secret")
        if request.path == "/none":
            return None  # type: ignore[return-value]
        return web.Response(text="secret")

    async with served(middlewares=[answers]) as made:
        caplog.set_level(logging.CRITICAL, "hivetenancy")
        for path in ("/kv/a", "/streamed"):
            told = await made.ask("GET", path)
            assert told.code == "FORBIDDEN"
            assert b"secret" not in told.body
            assert (await made.ask("GET", path, key=False)).status == 401
        for path in ("/crash", "/none"):
            assert (await made.ask("GET", path)).code == "INTERNAL_ERROR"
        assert await made.world.all_held() == {}


async def test_cors_preflights_are_for_the_hosts_middleware() -> None:
    """A preflight needs no key where a middleware answers it; anything else still does."""

    @web.middleware
    async def cors(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method == "OPTIONS" and request.path == "/kv/a":
            return web.Response(status=204, headers={"Access-Control-Allow-Origin": "*"})
        return await handler(request)  # type: ignore[no-any-return]

    preflight = {"Origin": "https://x", "Access-Control-Request-Method": "PUT"}
    async with served(middlewares=[cors]) as made:
        told = await made.ask("OPTIONS", "/kv/a", key=False, headers=preflight)
        assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (204, "*")
        assert (await made.ask("OPTIONS", "/kv/a", key=False)).status == 401
        assert (await made.ask("OPTIONS", "/pieces", key=False, headers=preflight)).status == 401
        assert (await made.ask("PUT", "/kv/a", key=False, headers=preflight)).status == 401


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [("denied", 404, "NOT_FOUND"), ("name", 400, "INVALID_NAME"), ("unavailable", 503, "UNAVAILABLE"),
     ("large", 413, "PAYLOAD_TOO_LARGE")],
)  # fmt: skip
async def test_refusals_raised_in_a_handler(
    what: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They become the catalogue's answers, without a 500 and without a traceback; nothing is charged."""
    async with served() as made:
        told = await made.ask("GET", f"/fail?what={what}")
        assert (told.status, told.code) == (status, code)
        assert b"secret" not in told.body
        assert await made.world.used("operations") == 0
        assert await made.world.all_held() == {}
        assert not [record for record in caplog.records if record.exc_info]


async def test_only_our_own_503_gives_the_rate_units_back() -> None:
    """A handler's own 503 keeps them."""
    async with served(World(plan(RatePolicy(limit=9, period_us=MINUTE_US, burst=9, name="burst")))) as made:
        await made.ask("GET", "/fail?what=unavailable")
        assert (await made.ask("GET", "/kv/a")).headers["X-RateLimit-Remaining"] == "8"
        await made.ask("GET", "/fail?what=503")
        assert (await made.ask("GET", "/kv/a")).headers["X-RateLimit-Remaining"] == "6"


@pytest.mark.parametrize(
    ("what", "status", "used"),
    [("200", 200, 1), ("302", 302, 1), ("400", 400, 0), ("500", 500, 0), ("found", 302, 1), ("conflict", 409, 0),
     ("crash", 500, 0)],
)  # fmt: skip
async def test_a_demand_is_committed_below_400(
    what: str, status: int, used: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Returned or raised, the status decides; a crash is aiohttp's 500 and releases."""
    caplog.set_level(logging.CRITICAL)
    async with served() as made:
        told = await made.ask("GET", f"/fail?what={what}")
        assert told.status == status
        assert told.headers["X-Content-Type-Options"] == "nosniff"
        assert await made.world.used("operations") == used
        assert await made.world.all_held() == {}


# --- bodies ----------------------------------------------------------------------------------------------------------


async def chunks(*sizes: int) -> Any:
    """A body without a length."""
    for size in sizes:
        yield b"x" * size


@pytest.mark.parametrize("path", ["/kv/a", "/pieces"])
async def test_a_body_over_the_plan_is_413(path: str) -> None:
    """Declared or not, read whole or in pieces: 413 from the catalogue, and nothing is charged."""
    method = "PUT" if path == "/kv/a" else "POST"
    async with served(World(plan(max_payload_bytes=100))) as made:
        for data in (b"x" * 101, b"x" * 300_000, chunks(60, 60), chunks(*[50_000] * 8)):
            told = await made.ask(method, path, data=data)
            assert told.code == "PAYLOAD_TOO_LARGE"
        assert await made.world.used("operations") == 0
        assert (await made.ask(method, path, data=b"x" * 100)).status < 300
        assert (await made.ask(method, path, data=chunks(50, 50))).status < 300
        assert await made.world.all_held() == {}


async def test_the_hosts_own_limits_hold_as_well() -> None:
    """`max_body_bytes` bounds every plan; the application's `client_max_size` is never widened."""
    async with served(World(http=HttpOptions(max_body_bytes=10))) as made:
        assert (await made.ask("PUT", "/kv/a", data=b"x" * 11)).code == "PAYLOAD_TOO_LARGE"
        assert (await made.ask("PUT", "/kv/a", data=chunks(11))).code == "PAYLOAD_TOO_LARGE"
    async with served(World(plan(max_payload_bytes=1000)), max_size=10) as made:
        assert (await made.ask("PUT", "/kv/a", data=chunks(11))).code == "PAYLOAD_TOO_LARGE"
    async with served(World(plan(max_payload_bytes=0))) as made:
        assert (await made.ask("PUT", "/kv/a", data=b"")).status == 204
        assert (await made.ask("PUT", "/kv/a", data=b"xx")).code == "PAYLOAD_TOO_LARGE"


async def test_expect_waits_for_the_key_and_the_length() -> None:
    """100 Continue is said once the request is admitted, and not to a body that is refused."""
    async with served(World(plan(max_payload_bytes=10))) as made:
        key = made.world.key.secret.encode()
        head = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: " + key
        body = b"\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n12345"
        told = await made.raw(head + body)
        assert told.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204")
        told = await made.head(head + body.replace(b": 5", b": 11"))
        assert told.startswith(b"HTTP/1.1 413")
        assert b"100 Continue" not in told


async def test_clients_that_leave_in_the_middle_of_a_body(caplog: pytest.LogCaptureFixture) -> None:
    """With and without handler_cancellation: nothing stays held, nothing is charged."""
    caplog.set_level(logging.CRITICAL)
    for cancels in (False, True):
        async with served(cancels=cancels) as made:
            key = made.world.key.secret.encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nX-API-Key: " + key + b"\r\nContent-Length: 99\r\n\r\nabc")
            await writer.drain()
            async with asyncio.timeout(10):
                while not await made.world.all_held():  # noqa: ASYNC110 - until the request is under way
                    await asyncio.sleep(0)
            writer.close()
            await made.quiet()
            assert await made.world.used("operations") == 0
            del reader


# --- the storm -------------------------------------------------------------------------------------------------------


async def storm(rounds: int, *, cancels: bool, leak: bool = False) -> dict[str, int]:
    """Requests that fail, are refused and are abandoned, at random; return what is held after."""
    draw = random.Random()
    stuck = asyncio.Event()

    @function("kv.storm", effect="write", demand={"operations": 1})
    async def wild(request: web.Request) -> web.StreamResponse:
        tenant, kind = current_tenant(), request.query["kind"]
        async with tenant.charge("item", storage_bytes=int(request.query["size"])):
            for _ in range(draw.randrange(4)):
                await asyncio.sleep(0)
            if kind in FAILURES:
                raise FAILURES[kind]()
        if kind == "stream":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(3):
                await response.write(b"x" * 100)
                await asyncio.sleep(0)
            if draw.random() < 0.3:
                raise DeniedError.of(Refusal(reason=Reason.QUOTA_EXCEEDED))
            return response
        if kind == "body":
            await request.read()
        if kind == "leak":
            await stuck.wait()
        return web.Response(text="x")

    async def one(made: Any, kind: str) -> None:
        data = b"x" * 200 if kind == "body" else None
        await made.ask("POST", f"/storm?kind={kind}&size={draw.randrange(99)}", data=data)

    async with served(extra=[web.post("/storm", wild)], cancels=cancels) as made:
        kinds = [*FAILURES, "stream", "body", "plain", "plain"]
        for _ in range(rounds // 10):
            tasks = [asyncio.create_task(one(made, draw.choice(kinds))) for _ in range(10)]
            for _ in range(draw.randrange(12)):
                await asyncio.sleep(0)
            for task in tasks:
                if draw.random() < 0.3:
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            odd = [r for r in results if isinstance(r, Exception) and not isinstance(r, ClientError)]
            assert odd == []
        if leak:
            await made.quiet()  # what is seen held is held by the leak
            hanging = asyncio.create_task(one(made, "leak"))
            async with asyncio.timeout(10):
                while "operations" not in await made.world.all_held():  # noqa: ASYNC110
                    await asyncio.sleep(0)
            held = await made.world.all_held()
            stuck.set()
            await hanging
            return held
        await made.quiet()
        return await made.world.all_held()


@pytest.mark.deep
@pytest.mark.parametrize("cancels", [False, True])
async def test_nothing_stays_held_after_random_errors_and_departures(
    cancels: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever handlers and clients do, in the end nothing is held: no amount, no slot, no entry."""
    caplog.set_level(logging.CRITICAL)
    assert await storm(examples(250, 10_000), cancels=cancels) == {}


async def test_a_planted_leak_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    """The storm's own check is no formality: a handler that hangs shows."""
    caplog.set_level(logging.CRITICAL)
    assert {"operations", "at-once"} <= (await storm(20, cancels=False, leak=True)).keys()


async def test_a_guard_that_forgets_to_close_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: an exchange that leaves its admission open keeps its slot, which the storm's check shows."""
    kept: list[Exchange] = []
    leave = Exchange.leave
    monkeypatch.setattr(Exchange, "leave", lambda self: kept.append(self))
    async with served() as made:
        assert (await made.ask("GET", "/kv/a")).status == 200
        assert await made.world.all_held() == {"at-once": 1}
        for exchange in kept:
            leave(exchange)
        assert await made.world.all_held() == {}


async def test_an_outer_layer_that_lets_everything_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: without the replacement of what no guard admitted, a middleware's answer gets out."""

    @web.middleware
    async def answers(request: web.Request, handler: Any) -> web.StreamResponse:
        return web.Response(text="secret")

    async def as_it_is(self: Exchange, response: web.StreamResponse) -> web.StreamResponse:
        self._ours = response
        return response

    monkeypatch.setattr(Exchange, "unless_cors", as_it_is)
    async with served(middlewares=[answers]) as made:
        assert (await made.ask("GET", "/kv/a")).body == b"secret"


async def test_standalone_changes_nothing_but_the_tenant() -> None:
    """Without keys: the handler finds the one owner, and answers are the host's own."""
    from aiohttp import ClientSession

    from hivetenancy.adapters.aiohttp import TENANT, setup_standalone

    tenant = standalone_tenant(IdentityNamespaces())

    async def handler(request: web.Request) -> web.Response:
        assert request[TENANT] is current_tenant() is tenant
        return web.Response(text=str(current_tenant().kv.key("a")))

    app = web.Application()
    app.router.add_get("/", handler)
    setup_standalone(app, tenant)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client, client.get("/") as response:
        assert await response.text() == "a"
        assert "Vary" not in response.headers
    await runner.cleanup()
