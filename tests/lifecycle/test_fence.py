"""A tenant that is fenced off: refused like an unknown one, its connections closed, nothing delivered from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hivetenancy.adapters.streams import Connection
from hivetenancy.cache import TenantCache
from hivetenancy.compose import Tenancy
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, MissingTenantError, UnauthenticatedError
from hivetenancy.functions import function
from hivetenancy.gate import Admission, Gate
from hivetenancy.ids import Surface
from hivetenancy.lifecycle import Standing, State, TenantDataSource
from hivetenancy.lifecycle.deletion import Lifecycle
from hivetenancy.lifecycle.fence import Life
from hivetenancy.lifecycle.sources import CacheSource
from hivetenancy.tenant import Tenant, current_tenant
from hivetenancy.testing.asgi import AsgiClient, AsgiProtocolError, WebSocketClosedError
from tests.adapters.host import Stage, problem
from tests.engines import Rig
from tests.lifecycle.world import ForgetsTheFence, KeyStore, Quick, until

pytestmark = pytest.mark.anyio

DELETING, DELETED, BLOCKED = (Standing(state, 1) for state in (State.DELETING, State.DELETED, State.BLOCKED))


class World(Stage):
    """The adapters' stage, with a lifecycle over one store and one cache."""

    def __init__(self, *, lifecycle: Lifecycle | None = None, **options: Any) -> None:
        super().__init__()
        self.store, self.cache = KeyStore(), TenantCache()
        sources: list[TenantDataSource] = [
            self.store.source(),
            CacheSource("cache", drop=self.cache.drop, count=self.cache.count),
        ]
        self.lifecycle = lifecycle or Quick(sources=sources, **options)
        self.tenancy = Tenancy.embedded(
            self.hub,
            clock=self.clock,
            hooks=[self.seen],
            audit=None,
            allow_workers=True,
            lifecycle=self.lifecycle,
        )

    def app(self) -> Any:
        """A server that keeps values, streams and talks."""
        release = self.release = asyncio.Event()
        begun = self.begun = asyncio.Event()
        self.delivered: list[str] = []

        @function("kv.get", effect="read")
        async def get(request: Request) -> Response:
            tenant = current_tenant()
            name = str(tenant.kv.key("k"))
            cached = self.cache.get("row", "k")
            self.cache.put("row", "k", self.store.rows.get(name, "none"))
            return PlainTextResponse(f"{tenant.context.generation} {cached} {self.store.rows.get(name)}")

        @function("kv.set", effect="write")
        async def put(request: Request) -> Response:
            name = str(current_tenant().kv.key("k"))
            if request.query_params.get("slow"):
                begun.set()
                await release.wait()
            self.store.rows[name] = "v"
            return PlainTextResponse("ok")

        @function("events.read", effect="read")
        async def events(request: Request) -> Response:
            async def rows() -> AsyncIterator[bytes]:
                if request.query_params.get("late"):
                    begun.set()
                    await release.wait()
                while True:
                    yield b"x"
                    self.delivered.append("row")
                    await asyncio.sleep(0)

            return StreamingResponse(rows())

        @function("chat.push", effect="read")
        async def push(websocket: WebSocket) -> None:
            await websocket.accept()
            while True:
                await websocket.send_text("tick")
                self.delivered.append("tick")
                await asyncio.sleep(0)

        routes = [
            Route("/kv", get, methods=["GET"]),
            Route("/kv", put, methods=["PUT"]),
            Route("/events", events),
            WebSocketRoute("/push", push),
        ]
        return self.tenancy.asgi(Starlette(routes=routes))


# --- refused ----------------------------------------------------------------------------------------------------------


async def test_a38_a_deleted_tenant_is_answered_as_an_unknown_key() -> None:
    """The same bytes while deleting and afterwards; a neighbour is served; nothing stays held."""
    world = World()
    async with AsgiClient(world.app()) as client:
        assert (await client.request("PUT", "/kv", headers=world.key.headers)).status == 200
        unknown = await client.request("GET", "/kv", headers={"Authorization": "Bearer hh_test_nobody_0123456789"})
        world.store.fail = OSError("down")
        for fail in (OSError("down"), None):
            world.store.fail = fail
            await asyncio.gather(world.lifecycle.delete(world.acme.id), return_exceptions=True)
            for method, path in (("GET", "/kv"), ("PUT", "/kv"), ("GET", "/nowhere")):
                answer = await client.request(method, path, headers=world.key.headers)
                assert (answer.status, answer.headers, answer.body) == (401, unknown.headers, unknown.body)
            assert (await client.request("GET", "/kv", headers=world.rivals.headers)).status == 200
        assert set(world.seen.reasons()) == {"unknown_key", "suspended_tenant"}
        assert (await world.lifecycle.standing(world.acme.id)).state is State.DELETED
        assert await world.held() == {}


@pytest.mark.parametrize("broken", [False, True])
async def test_a38_a_new_life_finds_nothing_of_the_old_one(broken: bool) -> None:
    """No key, no cache entry, generation 2; where no cache is registered its old entry does not count either."""
    world = World()
    if broken:
        world.lifecycle._sources.pop("cache")
    async with AsgiClient(world.app()) as client:
        assert (await client.request("PUT", "/kv", headers=world.key.headers)).status == 200
        for expected in (b"1 None v", b"1 v v"):
            assert (await client.request("GET", "/kv", headers=world.key.headers)).body == expected
        tombstone = await world.lifecycle.delete(world.acme.id)
        assert world.cache.count(world.acme.id) == (1 if broken else 0)
        assert await world.lifecycle.recreate(tombstone) == (State.ACTIVE, 2)
        assert (await client.request("GET", "/kv", headers=world.key.headers)).body == b"2 None None"


async def test_read_only_refuses_writes_alone() -> None:
    """Reads pass; a write is 403, pays for its attempt and holds nothing; unblocked, it passes."""
    world = World()
    async with AsgiClient(world.app()) as client:
        await world.lifecycle.make_read_only(world.acme.id)
        assert (await client.request("GET", "/kv", headers=world.key.headers)).status == 200
        refused = await client.request("PUT", "/kv", headers=world.key.headers)
        assert problem(refused) == (403, "FORBIDDEN")
        assert await world.held() == {}
        await world.lifecycle.block(world.acme.id)
        assert (await client.request("GET", "/kv", headers=world.key.headers)).status == 401
        await world.lifecycle.unblock(world.acme.id)
        assert (await client.request("PUT", "/kv", headers=world.key.headers)).status == 200


async def test_who_was_let_in_before_is_refused_as_well() -> None:
    """A caller in hand, of a connection say, does not count in the next life; a fresh one does."""
    rig = await Rig().ready()
    old = await rig.caller()
    fence = rig.gate.fence
    for standing in (DELETING, DELETED, Standing(State.ACTIVE, 2)):
        fence.put(rig.tenant.id, standing)
        refused = await rig.gate.admit(old, rig.get, surface=Surface.HTTP, now=rig.now)
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.SUSPENDED_TENANT
    new = await rig.caller()
    assert new.tenant.context.generation == 2
    admission = await rig.gate.admit(new, rig.get, surface=Surface.HTTP, now=rig.now)
    assert isinstance(admission, Admission)
    admission.close()


class Before:
    """A life as it was before anybody waited."""

    admits, shut, over, running = None, False, False, 0


class ChecksEarly(Gate):
    """A gate that believes, after it has waited, what it saw before."""

    async def admit(self, caller: Any, function: Any, **options: Any) -> Any:
        """Admit by what was."""
        caller.life = Before()
        return await super().admit(caller, function, **options)


@pytest.mark.parametrize("kind", [Gate, ChecksEarly])
@pytest.mark.parametrize("slow", ["acquire", "reserve"])
async def test_a_fence_that_comes_while_a_request_waits_refuses_it(kind: type[Gate], slow: str) -> None:
    """It is asked last; nothing stays held; a gate that asks before it waits lets it in."""
    rig = await Rig(gate=kind).ready()
    caller = await rig.caller()
    rig.script.slow.add(slow)
    waiting = asyncio.ensure_future(rig.gate.admit(caller, rig.set, surface=Surface.HTTP, now=rig.now))
    await asyncio.sleep(0)
    rig.gate.fence.put(rig.tenant.id, DELETING)
    answer = await waiting
    if kind is ChecksEarly:
        assert isinstance(answer, Admission), "the broken gate has to be seen"
        answer.close()
        return
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.SUSPENDED_TENANT
    assert (rig.slots, rig.cells().get("operations", (0, 0))[1]) == (0, 0)
    assert caller.life.running == 0


async def test_an_attempt_and_a_connection_that_waited_are_refused() -> None:
    """The two other things that are taken."""
    rig = await Rig().ready()
    caller = await rig.caller()
    for slow, ask in (("acquire", rig.gate.admit_attempt), ("reserve", rig.gate.hold_connection)):
        rig.script.slow = {slow}
        waiting = asyncio.ensure_future(ask(caller, now=rig.now))
        await asyncio.sleep(0)
        rig.gate.fence.put(rig.tenant.id, BLOCKED)
        answer = await waiting
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.SUSPENDED_TENANT
        rig.gate.fence.put(rig.tenant.id, Standing(State.ACTIVE, 1))
    assert (rig.slots, rig.cells().get("connections", (0, 0))[1]) == (0, 0)


# --- under way --------------------------------------------------------------------------------------------------------


async def test_every_admission_is_counted_until_it_closes() -> None:
    """Once, however often it is closed; a public one is nobody's."""
    rig = await Rig().ready()
    caller = await rig.caller()
    admissions = [await rig.admit(rig.get), await rig.gate.admit_attempt(caller, now=rig.now)]
    public = rig.gate.admit_public(now=rig.now)
    assert caller.life.running == 2
    for admission in [*admissions, *admissions, public]:
        admission.close()
    assert caller.life.running == 0


async def test_a_request_under_way_ends_well_and_is_purged() -> None:
    """Its answer goes out, and what it wrote last is gone with the rest."""
    world = World(drain_seconds=1000)
    async with AsgiClient(world.app()) as client:
        slow = asyncio.create_task(client.request("PUT", "/kv?slow=1", headers=world.key.headers))
        await world.begun.wait()
        deletion = asyncio.create_task(world.lifecycle.delete(world.acme.id))
        await until(lambda: world.lifecycle.fence.life(world.acme.id).shut)
        world.release.set()
        assert (await slow).status == 200
        await deletion
        assert world.store.rows == {}


async def test_a_request_that_takes_too_long_is_ended() -> None:
    """It is broken off without an answer, and writes nothing."""
    world = World()
    async with AsgiClient(world.app(), raise_app_exceptions=False) as client:
        slow = asyncio.create_task(client.request("PUT", "/kv?slow=1", headers=world.key.headers))
        await world.begun.wait()
        await world.lifecycle.delete(world.acme.id)
        await asyncio.gather(slow, return_exceptions=True)
        assert (world.store.rows, await world.held()) == ({}, {})


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("path", ["/after", "/talk"])
async def test_a38_what_works_behind_its_last_byte_is_ended_before_the_proof(
    path: str, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A framework's background task, and a WebSocket handler that waits for no message; else they write into the void.

    Counting open admissions alone, which these two have none of, lets a row in behind the tombstone.
    """
    if broken:
        monkeypatch.setattr(Life, "busy", property(lambda life: life.running + len(life.detached)))
    world, begun, release = World(), asyncio.Event(), asyncio.Event()

    async def work(tenant: Tenant) -> None:
        begun.set()
        await release.wait()
        world.store.rows[str(tenant.kv.key("late"))] = "v"

    @function("after.set", effect="write")
    async def after(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(work, current_tenant()))

    @function("talk.set", effect="write")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await work(current_tenant())

    app = world.tenancy.asgi(Starlette(routes=[Route("/after", after), WebSocketRoute("/talk", talk)]))
    async with AsgiClient(app, raise_app_exceptions=False) as client, AsyncExitStack() as stack:
        if path == "/talk":
            await stack.enter_async_context(client.websocket(path, headers=world.key.headers))
            asked = None
        else:
            asked = asyncio.create_task(client.request("GET", path, headers=world.key.headers))
        await begun.wait()
        await world.lifecycle.delete(world.acme.id)
        release.set()
        await asyncio.gather(*([] if asked is None else [asked]), return_exceptions=True)
        for _ in range(10):
            await asyncio.sleep(0)
        assert bool(world.store.rows) is broken
    assert not world.tenancy.gate.fence.life(world.acme.id).requests


async def test_bound_work_is_waited_for_and_refused_afterwards() -> None:
    """In a thread and as a task; a request's own part may begin while the request is open; leftovers find no tenant."""
    world = World(drain_seconds=1000)
    async with world.tenancy as tenancy:
        read = tenancy.functions.declare("kv.get", effect="read")
        gate = tenancy.gate
        caller: Any = await gate.authenticate(world.key.secret.encode(), now=gate.now())
        admission: Any = await gate.admit(caller, read, surface=Surface.HTTP, now=gate.now())
        tenant, hold = admission.tenant, asyncio.Event()
        life = tenancy.gate.fence.life(world.acme.id)
        job = asyncio.create_task(tenant.bind(hold.wait)())
        await asyncio.sleep(0)
        assert life.busy == 2
        assert await asyncio.to_thread(tenant.bind(lambda: life.busy)) == 3
        admission.close()
        deletion = asyncio.create_task(world.lifecycle.delete(world.acme.id))
        await until(lambda: life.shut)
        with pytest.raises(UnauthenticatedError):
            await asyncio.to_thread(tenant.bind(lambda: None))
        with pytest.raises(UnauthenticatedError):
            await tenant.bind(asyncio.sleep)(0)
        assert not deletion.done()
        hold.set()
        await job
        await deletion
        with pytest.raises(MissingTenantError, match="was deleted"):
            _ = admission.tenant


# --- A50: what was open -----------------------------------------------------------------------------------------------


class ClosesNothing:
    """A registry that is asked in vain."""

    def close_tenant(self, tenant: Any, reason: Any, /) -> int:
        """Close nothing."""
        return 0


async def fenced(world: World) -> int:
    """Fence off the tenant; return how much was delivered by then."""
    store = world.lifecycle.store
    world.lifecycle.fence.put(world.acme.id, DELETING)
    store.begin(world.acme.id, Standing(State.ACTIVE, 1), ["kv"])
    world.lifecycle._connections.close_tenant(world.acme.id, Reason.SUSPENDED_TENANT)  # type: ignore[union-attr]
    return len(world.delivered)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("path", ["/events", "/push"])
async def test_a50_nothing_is_delivered_after_the_fence(path: str, broken: bool) -> None:
    """A stream and a WebSocket that send without end; where connections are not closed they go on."""
    world = World()
    async with AsgiClient(world.app(), raise_app_exceptions=False) as client:
        if broken:
            world.lifecycle._connections = ClosesNothing()
        if path == "/push":
            async with client.websocket(path, headers=world.key.headers) as socket:
                await socket.receive()
                before = await fenced(world)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert (len(world.delivered) > before) is broken
                if broken:
                    return
                with pytest.raises(WebSocketClosedError) as caught:
                    while True:
                        await socket.receive()
                assert caught.value.code == 4401
        else:
            stream = client.stream("GET", path, headers=world.key.headers)
            exchange = await stream.__aenter__()
            await exchange.next_chunk()
            before = await fenced(world)
            for _ in range(20):
                await asyncio.sleep(0)
            assert (len(world.delivered) > before) is broken
            await asyncio.gather(stream.__aexit__(None, None, None), return_exceptions=True)


async def test_a50_a_stream_that_begins_behind_the_fence_delivers_nothing() -> None:
    """Admitted before, its first row comes after: it is broken off."""
    world = World(drain_seconds=1000)
    async with AsgiClient(world.app(), raise_app_exceptions=False) as client:
        asked = asyncio.create_task(client.request("GET", "/events?late=1", headers=world.key.headers))
        await world.begun.wait()
        await fenced(world)
        world.release.set()
        with pytest.raises(AsgiProtocolError, match="before its answer was finished"):
            await asked
        assert world.delivered == []
        assert await world.held() == {}


async def test_a50_a_line_connection_is_closed_and_takes_no_command() -> None:
    """At the fence, with the reason; the next command is refused."""
    world = World()
    async with world.tenancy as tenancy:
        tenancy.functions.declare("kv.get", effect="read")
        reasons: list[Reason] = []
        async with Connection(tenancy, close=reasons.append, peer="a test") as connection:
            assert await connection.authenticate(world.key.secret.encode()) is None
            async with connection.admit("kv.get"):
                pass
            await world.lifecycle.delete(world.acme.id)
            assert reasons == [Reason.SUSPENDED_TENANT]
            with pytest.raises(DeniedError):
                async with connection.admit("kv.get"):
                    pass
        async with Connection(tenancy, close=reasons.append, peer="a test") as again:
            assert isinstance(await again.authenticate(world.key.secret.encode()), Refusal) or (
                again.state.value != "authenticated"
            )


# --- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Quick, ForgetsTheFence])
async def test_a_start_restores_the_fence_before_the_first_request(kind: type[Quick], tmp_path: Path) -> None:
    """A blocked tenant is refused from the start; a start that forgets the fence serves it."""
    first = World(lifecycle=Quick(tmp_path / "life"))
    async with first.tenancy:
        await first.lifecycle.block(first.acme.id)
    again = World(lifecycle=kind(tmp_path / "life"))
    again.hub.add_tenant("spare", plan="roomy")
    async with AsgiClient(again.app()) as client:
        assert again.acme.id == first.acme.id, "the stage's hub has one seed"
        answer = await client.request("GET", "/kv", headers=again.key.headers)
        assert answer.status == (401 if kind is Quick else 200)


async def test_a_tenancy_takes_a_path_and_shows_how_deletions_are(tmp_path: Path) -> None:
    """The file is opened at start, let go at stop; an unfinished deletion makes health red."""
    stage = Stage()
    tenancy = Tenancy.embedded(
        stage.hub, clock=stage.clock, audit=None, allow_workers=True, lifecycle=tmp_path / "life"
    )
    assert not (tmp_path / "life").exists()
    lifecycle = tenancy.lifecycle
    assert lifecycle is not None
    store = KeyStore()
    lifecycle.register(store.source())
    for fail in (OSError("down"), None):
        store.fail = fail
        async with tenancy:
            lifecycle._sleep = asyncio.sleep
            lifecycle._proof_seconds = 0.001
            await asyncio.gather(lifecycle.delete(stage.acme.id), return_exceptions=True)
            part = next(part for part in tenancy.health().parts if part.name == "life cycle of tenants")
            assert part.ok is (fail is None), part
    assert (await _standing(tmp_path / "life", stage.acme.id)).state is State.DELETED


async def _standing(path: Path, tenant: Any) -> Standing:
    lifecycle = Quick(path)
    await lifecycle.open()
    standing = await lifecycle.standing(tenant)
    await lifecycle.aclose()
    return standing
