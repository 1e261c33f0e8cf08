"""What a client is told by a guarded Starlette application, and what is taken and given back for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.adapters.http import HttpOptions
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, HubUnavailableError, InvalidNameError, MissingTenantError
from hivetenancy.functions import function
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient, AsgiProtocolError
from tests.adapters.host import Stage, problem

pytestmark = pytest.mark.anyio


@function("kv.get", effect="read")
async def get(request: Request) -> Response:
    return PlainTextResponse(current_tenant().id)


@function("kv.set", effect="write", demand={"operations": 1, "storage_bytes": 100})
async def put(request: Request) -> Response:
    body = await request.body()
    status = int(body or b"204")
    if status == 999:
        raise RuntimeError("the handler broke")
    return Response(status_code=status)


@function("kv.raise", effect="read")
async def fail(request: Request) -> Response:
    raise request.app.state.error


ROUTES = [
    Route("/kv", get, methods=["GET"]),
    Route("/kv", put, methods=["PUT"]),
    Route("/fail", fail, methods=["GET"]),
    Route("/slash/", get, methods=["GET"]),
]


def routes() -> list[Any]:
    return [Route(route.path, route.endpoint, methods=list(route.methods or ())) for route in ROUTES]


def guarded(stage: Stage, **options: Any) -> TenancyASGI:
    return TenancyASGI(Starlette(routes=routes(), **options), stage.tenancy)


async def test_a_key_reaches_the_handler_and_its_tenant_is_bound() -> None:
    """The handler sees the tenant of the key, and nothing is bound after the request."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("GET", "/kv", headers=stage.key.headers)
        other = await client.request("GET", "/kv", headers=stage.rivals.headers)
    assert (answer.status, answer.text) == (200, stage.acme.id)
    assert other.text == stage.rival.id
    with pytest.raises(MissingTenantError):
        current_tenant()


async def test_every_answer_carries_rate_and_security_headers() -> None:
    """A good answer has both families of rate headers, nosniff, and varies by the credential."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("GET", "/kv", headers=stage.key.headers)
    assert answer.header("ratelimit") == '"minute";r=99999;t=1'
    assert answer.header("ratelimit-policy") == '"minute";q=600;w=60'
    assert answer.header("x-ratelimit-remaining") == "99999"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("vary") == "authorization, x-api-key, x-hub-access-key"


async def test_a_vary_that_is_there_is_added_to() -> None:
    """The host's own Vary and nosniff are kept and not doubled."""
    stage = Stage()

    @function("kv.get", effect="read")
    async def varied(request: Request) -> Response:
        return Response(headers={"Vary": "Accept", "X-Content-Type-Options": "nosniff"})

    async with AsgiClient(TenancyASGI(Starlette(routes=[Route("/", varied)]), stage.tenancy)) as client:
        answer = await client.request("GET", "/", headers=stage.key.headers)
    assert answer.header("vary") == "Accept, authorization, x-api-key, x-hub-access-key"
    assert answer.header("x-content-type-options") == "nosniff"


async def test_rate_headers_can_be_turned_off() -> None:
    """With rate_headers off there is none, on good answers and on refusals."""
    stage = Stage(http=HttpOptions(rate_headers="off"))
    async with AsgiClient(guarded(stage)) as client:
        for path in ("/kv", "/nowhere"):
            answer = await client.request("GET", path, headers=stage.key.headers)
            assert not [name for name, _ in answer.headers if b"ratelimit" in name]


async def test_no_key_is_401_with_a_challenge_and_without_rate_headers() -> None:
    """The challenge has no error code, and nothing tells where limits stand."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("GET", "/kv")
    assert problem(answer) == (401, "MISSING_CREDENTIAL")
    assert answer.header("www-authenticate") == 'Bearer realm="hivehub"'
    assert answer.header("ratelimit") is None


async def test_every_fault_of_a_well_formed_key_gives_the_same_bytes() -> None:
    """Unknown, revoked, expired keys and those of a suspended tenant cannot be told apart."""
    stage = Stage()
    revoked, expired = stage.acme.issue_key(permissions=["read"]), stage.acme.issue_key(permissions=["read"])
    suspended = stage.hub.add_tenant("late", plan="roomy")
    key = suspended.issue_key(permissions=["read"])
    revoked.revoke()
    expired.expire()
    suspended.suspend()
    async with AsgiClient(guarded(stage)) as client:
        bearers = [{"Authorization": "Bearer hh_test_nobody_0123456789"}, revoked.headers, expired.headers, key.headers]
        answers = [await client.request("GET", "/kv", headers=one) for one in bearers]
    assert {(one.status, one.headers, one.body) for one in answers} == {(401, answers[0].headers, answers[0].body)}
    assert answers[0].header("www-authenticate") == 'Bearer realm="hivehub", error="invalid_token"'


async def test_a_missing_permission_is_403_and_pays_for_the_attempt() -> None:
    """A read-only key may not write; its attempt took a unit and holds nothing."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answer = await client.request("PUT", "/kv", headers=stage.reader.headers)
        assert problem(answer) == (403, "FORBIDDEN")
        assert answer.header("www-authenticate") == (
            'Bearer realm="hivehub", error="insufficient_scope", scope="kv.set"'
        )
        assert answer.header("x-ratelimit-remaining") == "99999"
        assert await stage.held() == {}


async def test_the_router_s_own_answers_are_ours_and_cost_a_unit() -> None:
    """404, 405 and the slash redirect keep their status, and say how to go on."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        missing = await client.request("GET", "/nowhere", headers=stage.key.headers)
        method = await client.request("DELETE", "/kv", headers=stage.key.headers)
        slash = await client.request("GET", "/slash", headers=stage.key.headers)
    assert problem(missing) == (404, "NOT_FOUND")
    assert problem(method) == (405, "METHOD_NOT_ALLOWED")
    assert set(str(method.header("allow")).split(", ")) == {"GET", "HEAD"}
    assert (slash.status, slash.body, slash.header("location")) == (307, b"", "http://testserver/slash/")
    assert [one.header("x-ratelimit-remaining") for one in (missing, method, slash)] == ["99999", "99998", "99997"]


async def test_the_router_s_own_answers_are_limited() -> None:
    """A flood of 404 becomes a flood of 429, cheaply: the router is not asked any more."""
    stage = Stage()
    key = stage.tight()
    async with AsgiClient(guarded(stage)) as client:
        statuses = [(await client.request("GET", "/nowhere", headers=key.headers)).status for _ in range(4)]
        assert statuses == [404, 404, 429, 429]
        stage.clock.advance(1)
        assert (await client.request("GET", "/nowhere", headers=key.headers)).status == 404


async def test_a_rate_refusal_says_exactly_how_long_to_wait() -> None:
    """Refused just before the time that it named, admitted at it; the flood in between takes nothing."""
    stage = Stage()
    key = stage.tight()
    async with AsgiClient(guarded(stage)) as client:
        for _ in range(2):
            assert (await client.request("GET", "/kv", headers=key.headers)).status == 200
        refused = [await client.request("GET", "/kv", headers=key.headers) for _ in range(5)]
        assert {problem(one) for one in refused} == {(429, "RATE_LIMITED")}
        wait = refused[0].json()["retry_after_us"]
        assert refused[0].header("retry-after") == "1"
        stage.clock.advance(us=wait - 1)
        assert (await client.request("GET", "/kv", headers=key.headers)).status == 429
        stage.clock.advance(us=1)
        assert (await client.request("GET", "/kv", headers=key.headers)).status == 200
    assert stage.seen.reasons() == ["rate_limited"] * 6


async def test_a_plan_change_frees_a_caller_that_was_remembered_as_refused() -> None:
    """What the outer layer remembers refuses nobody by itself."""
    stage = Stage()
    tenant = stage.hub.add_tenant("tight", plan="tight")
    key = tenant.issue_key(permissions=["read"])
    async with AsgiClient(guarded(stage)) as client:
        for _ in range(3):
            last = await client.request("GET", "/kv", headers=key.headers)
        assert last.status == 429
        tenant.set_plan("roomy")
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await client.request("GET", "/kv", headers=key.headers)).status == 200


@pytest.mark.parametrize(("answered", "used"), [(204, 1), (399, 1), (400, 0), (404, 0), (503, 0), (999, 0)])
async def test_a_demand_is_committed_below_400_and_released_otherwise(answered: int, used: int) -> None:
    """What the function declares counts when the handler answers well, and is given back when it does not."""
    stage = Stage()
    app = guarded(stage)
    async with AsgiClient(app, raise_app_exceptions=False) as client:
        body = b"" if answered == 204 else str(answered).encode()
        answer = await client.request("PUT", "/kv", headers=stage.key.headers, body=body)
        assert answer.status == (500 if answered == 999 else answered)
        cells = {cell.dimension: cell.used for cell in await stage.tenancy.gate.usage(stage.acme.id)}
        assert cells["operations"] == used
        assert cells["storage_bytes"] == 100 * used
        assert await stage.held() == {}
        assert answer.header("x-ratelimit-remaining") == "99999"  # a handler's own 503 keeps the unit


async def test_a_full_quota_is_429_and_leaves_nothing_held() -> None:
    """The eleventh hundred bytes do not fit; the answer says what is short and names no wait."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        answers = [await client.request("PUT", "/kv", headers=stage.key.headers) for _ in range(11)]
        assert [one.status for one in answers] == [204] * 10 + [429]
        assert problem(answers[-1]) == (429, "QUOTA_EXCEEDED")
        assert answers[-1].json()["dimension"] == "storage_bytes"
        assert answers[-1].header("retry-after") is None
        assert await stage.held() == {}


REFUSED = {
    "denied": (DeniedError.of(Refusal(reason=Reason.NOT_FOUND)), (404, "NOT_FOUND")),
    "name": (InvalidNameError("empty"), (400, "INVALID_NAME")),
    "unavailable": (HubUnavailableError("the hub is gone", retry_after_us=2_500_000), (503, "UNAVAILABLE")),
}


@pytest.mark.parametrize("which", REFUSED)
@pytest.mark.parametrize("swallowing", [None, Exception, ValueError, DeniedError, 500, 404])
async def test_a_refusal_raised_in_a_handler_is_the_catalogue_s_answer(
    which: str, swallowing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever handlers of exceptions the host has: no 500, no answer of theirs, no traceback in the log."""
    stage = Stage()
    error, expected = REFUSED[which]

    async def theirs(request: Request, exc: Exception) -> Response:
        return PlainTextResponse("swallowed", 418)

    app = Starlette(routes=routes(), exception_handlers={} if swallowing is None else {swallowing: theirs})
    app.state.error = error
    with caplog.at_level(logging.WARNING):
        async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
            answer = await client.request("GET", "/fail", headers=stage.key.headers)
    assert problem(answer) == expected
    assert not caplog.records


async def test_our_own_503_gives_the_unit_back() -> None:
    """A question that could not be asked costs nothing, and says when to ask again."""
    stage = Stage()
    app = Starlette(routes=routes())
    app.state.error = REFUSED["unavailable"][0]
    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        answer = await client.request("GET", "/fail", headers=stage.key.headers)
        assert answer.header("retry-after") == "3"
        after = await client.request("GET", "/kv", headers=stage.key.headers)
    assert after.header("x-ratelimit-remaining") == "99999"


async def test_an_unknown_key_during_an_outage_is_503_and_a_known_one_goes_on() -> None:
    """Cannot tell and no never share a status."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        assert (await client.request("GET", "/kv", headers=stage.key.headers)).status == 200
        with stage.hub.outage():
            unknown = await client.request("GET", "/kv", headers=stage.reader.headers)
            assert problem(unknown) == (503, "UNAVAILABLE")
            assert unknown.header("retry-after") is not None
            assert (await client.request("GET", "/kv", headers=stage.key.headers)).status == 200


async def test_a_handler_s_own_failure_stays_the_host_s_and_frees_everything() -> None:
    """The framework's 500 goes out and the error reaches the server; what was held is free before."""
    stage = Stage()
    app = guarded(stage)
    async with AsgiClient(app, raise_app_exceptions=False) as client:
        answer = await client.request("PUT", "/kv", headers=stage.key.headers, body=b"999")
        assert answer.status == 500
        assert answer.text == "Internal Server Error"
        assert isinstance(answer.error, RuntimeError)
        assert await stage.held() == {}


async def test_an_answer_of_a_middleware_is_withheld(caplog: pytest.LogCaptureFixture) -> None:
    """What no guard admitted does not get out: 403, and the log says what to do; its 5xx becomes our 500."""
    stage = Stage()

    class Eager:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/leak":
                await PlainTextResponse("secret")(scope, receive, send)
            elif scope["type"] == "http" and scope["path"] == "/break":
                raise RuntimeError("the middleware broke")
            else:
                await self.app(scope, receive, send)

    app = guarded(stage, middleware=[Middleware(Eager)])
    with caplog.at_level(logging.ERROR):
        async with AsgiClient(app, raise_app_exceptions=False) as client:
            leak = await client.request("GET", "/leak", headers=stage.key.headers)
            broken = await client.request("GET", "/break", headers=stage.key.headers)
            keyless = await client.request("GET", "/leak")
    assert problem(leak) == (403, "FORBIDDEN")
    assert problem(broken) == (500, "INTERNAL_ERROR")
    assert problem(keyless) == (401, "MISSING_CREDENTIAL")
    assert "withheld" in caplog.text


async def test_a_refusal_after_the_first_byte_leaves_the_answer_unfinished() -> None:
    """Not even a middleware that tidies up gives it a clean end."""
    stage = Stage()

    class Tidy(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            return await call_next(request)  # type: ignore[no-any-return]

    @function("kv.list", effect="read")
    async def listing(request: Request) -> Response:
        async def rows() -> AsyncIterator[bytes]:
            yield b"one,"
            raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND))

        return StreamingResponse(rows())

    for middleware in ([], [Middleware(Tidy)]):
        app = Starlette(routes=[Route("/", listing)], middleware=middleware)
        async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
            with pytest.raises(AsgiProtocolError, match="before its answer was finished"):
                await client.request("GET", "/", headers=stage.key.headers)
            assert await stage.held() == {}


async def test_a_refusal_that_a_middleware_held_back_the_beginning_of_is_still_told() -> None:
    """Compression holds the start until the first chunk is there; nothing has left, so the refusal can be."""
    stage = Stage()

    @function("kv.list", effect="read")
    async def listing(request: Request) -> Response:
        async def rows() -> AsyncIterator[bytes]:
            if request is not None:
                raise DeniedError.of(Refusal(reason=Reason.NOT_FOUND))
            yield b""

        return StreamingResponse(rows())

    app = Starlette(routes=[Route("/", listing)], middleware=[Middleware(GZipMiddleware)])
    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        answer = await client.request("GET", "/", headers={**stage.key.headers, "Accept-Encoding": "gzip"})
    assert problem(answer) == (404, "NOT_FOUND")


async def test_a_slot_is_free_at_the_last_byte_while_a_background_task_still_runs() -> None:
    """Background work keeps its tenant and no slot."""
    stage = Stage()
    seen: list[Any] = []

    @function("kv.set", effect="write")
    async def put(request: Request) -> Response:
        async def later() -> None:
            seen.append((current_tenant().id, await stage.held()))

        return Response(background=BackgroundTask(later))

    app = TenancyASGI(Starlette(routes=[Route("/", put, methods=["PUT"])]), stage.tenancy)
    async with AsgiClient(app) as client:
        await client.request("PUT", "/", headers=stage.key.headers)
    assert seen == [(stage.acme.id, {})]


async def test_sync_handlers_see_their_tenant() -> None:
    """A def endpoint runs in a thread, where the tenant is bound as well."""
    stage = Stage()

    @function("kv.get", effect="read")
    def get(request: Request) -> Response:
        with current_tenant().reserve(storage_bytes=10):
            return PlainTextResponse(current_tenant().id)

    async with AsgiClient(TenancyASGI(Starlette(routes=[Route("/", get)]), stage.tenancy)) as client:
        answer = await client.request("GET", "/", headers=stage.key.headers)
    assert answer.text == stage.acme.id


async def test_class_based_endpoints_have_a_function_by_method() -> None:
    """HEAD counts as GET; a method that the class lacks is 405, for a unit, without any function's permission."""
    stage = Stage()

    class Item(HTTPEndpoint):
        @function("item.get", effect="read")
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("got")

        @function("item.set", effect="write")
        async def put(self, request: Request) -> Response:
            return PlainTextResponse("put")

    app = TenancyASGI(Starlette(routes=[Route("/item", Item)]), stage.tenancy)
    async with AsgiClient(app) as client:
        got = {
            method: (await client.request(method, "/item", headers=stage.reader.headers)).status
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW")
        }
        allow = (await client.request("DELETE", "/item", headers=stage.reader.headers)).header("allow")
    assert got == {"GET": 200, "HEAD": 200, "PUT": 403, "DELETE": 405, "OPTIONS": 405, "BREW": 405}
    assert allow == "GET, HEAD, PUT"


async def test_a_public_route_needs_no_key_and_has_no_tenant() -> None:
    """It is reached by exactly its method and path; inside, asking for a tenant is an error."""
    stage = Stage()

    async def livez(request: Request) -> Response:
        with pytest.raises(MissingTenantError):
            current_tenant()
        return PlainTextResponse("alive")

    app = Starlette(routes=[*routes(), Route("/livez", livez)])
    guarded = TenancyASGI(app, stage.tenancy, public=("GET /livez",))
    async with AsgiClient(guarded) as client:
        alive = await client.request("GET", "/livez")
        assert (alive.status, alive.text) == (200, "alive")
        assert alive.header("ratelimit") is None
        for method, path in [
            ("GET", "/livez/"),
            ("GET", "/%6Civez"),
            ("POST", "/livez"),
            ("GET", "//livez"),
            ("HEAD", "/livez"),
        ]:
            assert problem_status(await client.request(method, path)) == 401, (method, path)
        with_key = await client.request("GET", "/livez", headers=stage.key.headers)
        assert with_key.text == "alive"
        bad_key = await client.request("GET", "/livez", headers={"X-API-Key": "wrong-wrong-wrong-wrong"})
        assert bad_key.status == 401


def problem_status(response: Any) -> int:
    return int(response.status)


async def test_a_method_override_within_does_not_matter() -> None:
    """The guard stands behind the match, so it decides by the method that the router saw."""
    stage = Stage()

    class Override:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                for name, value in scope["headers"]:
                    if name == b"x-http-method-override":
                        scope = {**scope, "method": value.decode()}
            await self.app(scope, receive, send)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("alive")

    app = Starlette(
        routes=[*routes(), Route("/livez", livez), Route("/livez", put, methods=["PUT"])],
        middleware=[Middleware(Override)],
    )
    async with AsgiClient(TenancyASGI(app, stage.tenancy, public=("GET /livez",))) as client:
        as_put = {**stage.reader.headers, "X-HTTP-Method-Override": "PUT"}
        assert problem(await client.request("GET", "/kv", headers=as_put)) == (403, "FORBIDDEN")
        keyless = await client.request("GET", "/livez", headers={"X-HTTP-Method-Override": "PUT"})
        assert problem(keyless) == (401, "MISSING_CREDENTIAL")


async def test_a_preflight_may_be_answered_by_the_host_s_middleware_alone() -> None:
    """CORS middleware answers it without a key; a router, or a handler, does not."""
    stage = Stage()
    cors = Middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_methods=["PUT"])
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    async with AsgiClient(guarded(stage, middleware=[cors])) as client:
        good = await client.request("OPTIONS", "/kv", headers=preflight)
        assert (good.status, good.header("access-control-allow-origin")) == (200, "https://app.example")
        bad = await client.request("OPTIONS", "/kv", headers={**preflight, "Origin": "https://evil.example"})
        assert bad.status == 400
        plain = await client.request("OPTIONS", "/kv", headers={"Origin": "https://app.example"})
        assert plain.status == 401
        refused = await client.request("GET", "/kv", headers={"Origin": "https://app.example"})
        assert refused.status == 401
    async with AsgiClient(guarded(Stage())) as client:
        assert problem(await client.request("OPTIONS", "/kv", headers=preflight)) == (401, "MISSING_CREDENTIAL")
        assert problem(await client.request("OPTIONS", "/nowhere", headers=preflight)) == (401, "MISSING_CREDENTIAL")


async def test_mounted_twice_charges_once() -> None:
    """Two layers of one tenancy, and one around a sub-application, decide once."""
    stage = Stage()
    sub = TenancyASGI(Starlette(routes=[Route("/kv", get)]), stage.tenancy)
    app = TenancyASGI(TenancyASGI(Starlette(routes=[Mount("/sub", app=sub)]), stage.tenancy), stage.tenancy)
    async with AsgiClient(app) as client:
        answer = await client.request("GET", "/sub/kv", headers=stage.key.headers)
    assert (answer.status, answer.header("x-ratelimit-remaining")) == (200, "99999")


async def test_a_guarded_application_served_without_its_tenancy_refuses() -> None:
    """Whoever throws away what tenancy.asgi(app) returned serves nothing, rather than everything."""
    stage = Stage()
    app = Starlette(routes=routes())
    TenancyASGI(app, stage.tenancy)
    async with AsgiClient(app) as client:
        answer = await client.request("GET", "/kv", headers=stage.key.headers)
    assert problem(answer) == (500, "INTERNAL_ERROR")


async def test_a_head_request_gets_headers_and_no_body() -> None:
    """Refusals of ours included."""
    stage = Stage()
    async with AsgiClient(guarded(stage)) as client:
        for path, headers in (("/kv", {}), ("/nowhere", stage.key.headers), ("/fail", {})):
            answer = await client.request("HEAD", path, headers=headers)
            assert answer.body == b""
            assert int(str(answer.header("content-length"))) > 0


async def test_a_redirect_of_the_host_s_own_handler_is_its_own() -> None:
    """Only what no guard admitted is rendered anew."""
    stage = Stage()

    @function("kv.get", effect="read")
    async def away(request: Request) -> Response:
        return RedirectResponse("/elsewhere")

    async with AsgiClient(TenancyASGI(Starlette(routes=[Route("/", away)]), stage.tenancy)) as client:
        answer = await client.request("GET", "/", headers=stage.key.headers)
    assert (answer.status, answer.header("location")) == (307, "/elsewhere")
