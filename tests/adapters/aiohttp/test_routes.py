"""Which function each route of an aiohttp application performs, said once, and checked when it starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")

from aiohttp import web

from hivetenancy.adapters.aiohttp import setup
from hivetenancy.adapters.declare import by_method
from hivetenancy.errors import ConfigurationError, MissingTenantError
from hivetenancy.functions import FunctionSpec, function
from hivetenancy.ids import Effect
from hivetenancy.tenant import current_tenant
from tests.adapters.aiohttp.served import get, served
from tests.adapters.world import World

pytestmark = pytest.mark.anyio

READ = FunctionSpec(name="x.read", effect=Effect.READ)


async def bare(request: web.Request) -> web.Response:
    """A handler that says nothing about itself."""
    return web.Response(text="bare")


@pytest.mark.parametrize("method", ["GET", "POST", "*", "OPTIONS"])
async def test_a_route_without_function_keeps_the_application_from_starting(method: str) -> None:
    """The message names method, path and the three remedies; the tenancy is not started either."""
    world = World()
    with pytest.raises(ConfigurationError, match=rf"{'GET' if method == 'GET' else method.replace('*', '.')} /bare/"):
        async with served(world, extra=[web.route(method, "/bare/{x}", bare)]):
            raise AssertionError("started")
    assert not world.tenancy.running


async def test_every_fault_is_named_at_once() -> None:
    """A route without function, and entries that fit no route, in one message."""
    with pytest.raises(ConfigurationError) as caught:
        async with served(extra=[web.get("/bare", bare)], public=["GET /typo"], functions={"GET /no": READ}):
            raise AssertionError("started")
    for part in ("GET /bare", "GET /typo", "GET /no"):
        assert part in str(caught.value)


async def test_tables_and_verbs_stand_in_for_markers() -> None:
    """A table entry goes with the HEAD that aiohttp adds; verbs are an explicit choice."""
    async with served(extra=[web.get("/bare/{x}", bare)], functions={"GET /bare/{x}": READ}) as made:
        assert (await made.ask("GET", "/bare/1")).status == 200
        assert (await made.ask("HEAD", "/bare/1")).status == 200
        writer = made.world.tenant.issue_key(permissions=["write"])
        assert (await made.ask("GET", "/bare/1", headers=writer.headers)).code == "FORBIDDEN"
    extra = [web.get("/bare", bare), web.post("/bare", bare), web.route("*", "/any", bare)]
    async with served(extra=extra, functions=by_method()) as made:
        reader = made.world.tenant.issue_key(permissions=["read"])
        for path in ("/bare", "/any"):
            assert (await made.ask("GET", path, headers=reader.headers)).status == 200
            assert (await made.ask("POST", path, headers=reader.headers)).code == "FORBIDDEN"
            assert (await made.ask("POST", path)).status == 200
        told = await made.ask("PROPFIND", "/any")
        assert told.code == "METHOD_NOT_ALLOWED"
        assert "GET" in told.headers["Allow"]
        assert "x-ratelimit-remaining" in {name.lower() for name in told.headers}


class Book(web.View):
    """A class-based view: each method says what it performs."""

    @function("book.read", effect="read")
    async def get(self) -> web.Response:
        """Read."""
        return web.Response(text=current_tenant().id)

    @function("book.write", effect="write")
    async def post(self) -> web.Response:
        """Write."""
        return web.Response(text="written")


class Unmarked(Book):
    """One method more, which says nothing."""

    async def delete(self) -> web.Response:
        """Delete."""
        return web.Response()


async def test_views_are_declared_by_method() -> None:
    """Each method of a view has its own function; one without keeps the application from starting."""
    async with served(extra=[web.view("/book", Book)]) as made:
        reader = made.world.tenant.issue_key(permissions=["read"])
        assert (await made.ask("GET", "/book", headers=reader.headers)).body.decode() == made.world.tenant.id
        assert (await made.ask("POST", "/book", headers=reader.headers)).code == "FORBIDDEN"
        assert (await made.ask("POST", "/book")).status == 200
        told = await made.ask("DELETE", "/book")
        assert (told.code, told.headers["Allow"]) == ("METHOD_NOT_ALLOWED", "GET, POST")
        assert (await made.ask("DELETE", "/book", key=False)).status == 401
    with pytest.raises(ConfigurationError, match="DELETE /book"):
        async with served(extra=[web.view("/book", Unmarked)]):
            raise AssertionError("started")


async def test_mounted_applications_are_covered() -> None:
    """Sub-applications, nested and by domain, are guarded; their own 404s are ours."""

    def build(app: web.Application) -> None:
        inner, deep, domain = web.Application(), web.Application(), web.Application()
        for one in (inner, deep, domain):
            one.router.add_get("/kv/{key}", get)
        inner.add_subapp("/deep", deep)
        app.add_subapp("/inner", inner)
        app.add_domain("sub.example", domain)

    async with served(build=build) as made:
        for path in ("/inner/kv/a", "/inner/deep/kv/a"):
            assert (await made.ask("GET", path)).status == 200
            assert (await made.ask("GET", path, key=False)).status == 401
            assert (await made.ask("POST", path)).code == "METHOD_NOT_ALLOWED"
        assert (await made.ask("GET", "/kv/a", headers={"Host": "sub.example"})).status == 200
        assert (await made.ask("GET", "/kv/a", key=False, headers={"Host": "sub.example"})).status == 401
        assert (await made.ask("GET", "/inner/nope")).code == "NOT_FOUND"

    def hidden(app: web.Application) -> None:
        inner = web.Application()
        inner.router.add_get("/bare", bare)
        app.add_subapp("/inner", inner)

    with pytest.raises(ConfigurationError, match="GET /inner/bare"):
        async with served(build=hidden):
            raise AssertionError("started")


async def test_static_files_need_a_function(tmp_path: Path) -> None:
    """By the table or by a marker on the resource; paths that climb are the resource's 404 or 403."""
    (tmp_path / "a.txt").write_text("file")

    def build(app: web.Application) -> None:
        app.router.add_static("/files", tmp_path)

    with pytest.raises(ConfigurationError, match="GET /files"):
        async with served(build=build):
            raise AssertionError("started")
    async with served(build=build, functions={"GET /files": READ}) as made:
        assert (await made.ask("GET", "/files/a.txt")).body == b"file"
        assert (await made.ask("GET", "/files/a.txt", key=False)).status == 401
        assert (await made.ask("GET", "/files/%2e%2e/%2e%2e/etc/passwd")).status in (403, 404)
        assert (await made.ask("GET", "/files/none")).status == 404
        assert (await made.ask("PUT", "/files/a.txt")).code == "METHOD_NOT_ALLOWED"
        assert await made.world.all_held() == {}

    def marked(app: web.Application) -> None:
        function("files.read", effect="read")(app.router.add_static("/files", tmp_path))

    async with served(build=marked) as made:
        assert (await made.ask("GET", "/files/a.txt")).body == b"file"


async def test_public_routes_are_an_exact_list(caplog: pytest.LogCaptureFixture) -> None:
    """Exactly the method and the raw path; without a tenant; printed at the start."""

    async def livez(request: web.Request) -> web.Response:
        with pytest.raises(MissingTenantError):
            current_tenant()
        return web.Response(text="ok")

    with caplog.at_level(logging.WARNING, "hivetenancy"):
        async with served(extra=[web.get("/livez", livez)], public=["GET /livez"]) as made:
            assert (await made.ask("GET", "/livez", key=False)).body == b"ok"
            assert (await made.ask("GET", "/livez?x=1", key=False)).body == b"ok"
            assert (await made.ask("GET", "/livez")).body == b"ok"
            for path in ("/livez/", "/kv/livez", "/livez%2f"):
                assert (await made.ask("GET", path, key=False)).status == 401, path
            assert (await made.ask("HEAD", "/livez", key=False)).status == 401
            head = await made.raw(b"GET /%6civez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert head.split(b" ", 2)[1] == b"401"
    assert "open to everybody, without a key: GET /livez" in caplog.text


async def test_a_route_added_after_the_start_is_never_run(caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp lets a method be added to a running resource: it has no guard, and its handler is not reached."""
    caplog.set_level(logging.CRITICAL, "hivetenancy")
    ran: list[str] = []

    async def late(request: web.Request) -> web.Response:
        ran.append(request.path)
        return web.Response()

    async with served() as made:
        resource = next(one for one in made.app.router.resources() if one.canonical == "/kv/{key}")
        resource.add_route("DELETE", late)  # type: ignore[attr-defined]
        assert (await made.ask("DELETE", "/kv/a")).code == "FORBIDDEN"
        assert (await made.ask("DELETE", "/kv/a", key=False)).status == 401
    assert ran == []


async def test_what_cannot_be_seen_through_does_not_start() -> None:
    """An unknown kind of resource, a middleware in front, a second set-up, one of a mounted application: all named."""

    class Odd(web.PlainResource):
        pass

    def odd(app: web.Application) -> None:
        app.router.register_resource(Odd("/odd"))

    with pytest.raises(ConfigurationError, match="Odd"):
        async with served(build=odd):
            raise AssertionError("started")

    def mounted(app: web.Application) -> None:
        inner = web.Application()
        setup(inner, World().tenancy)
        app.add_subapp("/inner", inner)

    with pytest.raises(ConfigurationError, match="outermost"):
        async with served(build=mounted):
            raise AssertionError("started")

    @web.middleware
    async def front(request: web.Request, handler: Any) -> web.StreamResponse:
        return web.Response(text="open")

    app = web.Application()
    setup(app, World().tenancy)
    with pytest.raises(ConfigurationError, match="already"):
        setup(app, World().tenancy)
    app.middlewares.insert(0, front)
    runner = web.AppRunner(app)
    with pytest.raises(ConfigurationError, match="in front"):
        await runner.setup()
    await runner.cleanup()
    late = web.Application()
    late.pre_freeze()
    with pytest.raises(ConfigurationError, match="before"):
        setup(late, World().tenancy)


async def test_the_router_is_sealed_once_it_is_guarded() -> None:
    """A route, a mount or a middleware that the application's own start adds would have no guard: it raises."""

    async def adds_route(app: web.Application) -> None:
        app.router.add_get("/late", bare)

    async def adds_middleware(app: web.Application) -> None:
        app.middlewares.insert(0, web.normalize_path_middleware())

    for late in (adds_route, adds_middleware):
        with pytest.raises(RuntimeError, match="frozen"):
            async with served(build=lambda app, late=late: app.on_startup.append(late)):  # type: ignore[misc]
                raise AssertionError("started")


async def test_the_tenancy_lives_as_long_as_the_application() -> None:
    """Started before the application's own start, stopped after its end; a request after that is 503."""
    world, order = World(), []

    async def own(app: web.Application) -> Any:
        order.append(world.tenancy.running)
        yield
        order.append(world.tenancy.running)

    async with served(world, build=lambda app: app.cleanup_ctx.append(own)) as made:
        assert (await made.ask("GET", "/kv/a")).status == 200
        await world.tenancy.stop()
        told = await made.ask("GET", "/kv/a")
        assert (told.code, told.headers["Retry-After"]) == ("UNAVAILABLE", "1")
        await world.tenancy.start()
    assert order == [True, True]
    assert not world.tenancy.running
