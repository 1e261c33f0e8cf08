"""What outlives its request on aiohttp: streamed answers and WebSockets."""

from __future__ import annotations

import asyncio
import logging

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web

from hivetenancy.adapters.catalogue import entry_for
from hivetenancy.clock import MINUTE_US
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import DeniedError, HubUnavailableError
from hivetenancy.functions import function
from hivetenancy.ids import Permission
from hivetenancy.lifecycle import Standing, State
from hivetenancy.plans import RatePolicy
from hivetenancy.tenant import current_tenant
from tests.adapters.aiohttp.served import served
from tests.adapters.world import World, plan

pytestmark = pytest.mark.anyio


@function("ws.echo", effect="write", demand={"operations": 1})
async def echo(request: web.Request) -> web.WebSocketResponse:
    """Echo, as the tenant; `deny`, `down` and `crash` fail."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        if message.data == "deny":
            raise DeniedError.of(Refusal(reason=Reason.QUOTA_EXCEEDED))
        if message.data == "down":
            raise HubUnavailableError("x")
        await ws.send_str(f"{current_tenant().id} {message.data}")
    return ws


@function("events.read", effect="read", demand={"operations": 1})
async def events(request: web.Request) -> web.StreamResponse:
    """Stream for ever, or fail after the first byte."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first")
    if "deny" in request.query:
        raise DeniedError.of(Refusal(reason=Reason.QUOTA_EXCEEDED))
    await asyncio.Event().wait()
    return response


@function("page.read", effect="read")
async def page(request: web.Request) -> web.Response:
    """A plain answer."""
    return web.Response(text="page")


ROUTES = [web.get("/ws", echo), web.get("/events", events), web.get("/page", page)]


async def closed(ws: ClientWebSocketResponse) -> tuple[int | None, str]:
    """The code and reason that the server closes with."""
    async with asyncio.timeout(10):
        message = await ws.receive()
    assert message.type is WSMsgType.CLOSE, message
    return message.data, message.extra or ""


async def test_a_websocket_is_one_call_a_message() -> None:
    """The handshake takes a unit and a connection, each message a unit and the demand; the end gives back."""
    async with served(extra=ROUTES) as made:
        async with made.client.ws_connect("/ws", headers=made.world.key.headers) as ws:
            assert (await made.world.all_held()).keys() == {"connections", "registered"}
            assert await made.world.used("operations") == 0
            for text in ("a", "b"):
                await ws.send_str(text)
                assert await ws.receive_str() == f"{made.world.tenant.id} {text}"
        await made.quiet()
        assert await made.world.used("operations") == 2
        assert (await made.ask("GET", "/kv/a")).headers["X-RateLimit-Remaining"] == "999996"


async def test_a_websocket_is_refused_before_its_handshake() -> None:
    """Without a key 401, without the permission 403, without a connection left 429: plain HTTP answers."""
    async with served(World(plan(connections=1)), extra=ROUTES) as made:
        reader = made.world.tenant.issue_key(permissions=["read"])
        for headers, status in (({}, 401), (reader.headers, 403)):
            with pytest.raises(WSServerHandshakeError) as caught:
                await made.client.ws_connect("/ws", headers=headers)
            assert caught.value.status == status
        async with made.client.ws_connect("/ws", headers=made.world.key.headers):
            with pytest.raises(WSServerHandshakeError) as caught:
                await made.client.ws_connect("/ws", headers=made.world.key.headers)
            assert caught.value.status == 429
        await made.quiet()
        async with made.client.ws_connect("/ws", headers=made.world.key.headers):
            pass
        await made.quiet()


async def test_revocation_closes_an_idle_websocket() -> None:
    """With the catalogue's close code, though nobody sends anything."""
    async with served(extra=ROUTES) as made:
        async with made.client.ws_connect("/ws", headers=made.world.key.headers) as ws:
            made.world.key.revoke()
            assert await closed(ws) == (4401, "INVALID_CREDENTIAL")
        assert len(made.world.tenancy.connections) == 0


async def test_a_message_is_checked_anew() -> None:
    """A key that lost a right, or ended, closes at the next message, which no handler sees."""
    async with served(extra=ROUTES) as made:
        async with made.client.ws_connect("/ws", headers=made.world.key.headers) as ws:
            await ws.send_str("a")
            await ws.receive_str()
            made.world.key.change(permissions=[Permission.READ])
            await ws.send_str("b")
            assert await closed(ws) == (4403, "FORBIDDEN")
        ending = made.world.tenant.issue_key(permissions=["write"], expires_in=60)
        async with made.client.ws_connect("/ws", headers=ending.headers) as ws:
            made.world.clock.advance(61)
            await ws.send_str("b")
            assert await closed(ws) == (4401, "INVALID_CREDENTIAL")
        await made.ask("GET", "/nope")
        assert await made.world.used("operations") == 1


async def test_a_flood_of_messages_is_limited() -> None:
    """Each message is one call of the route's function, and the close says when to come back."""
    tested = plan(RatePolicy(limit=3, period_us=MINUTE_US, burst=3, name="burst"))
    async with served(World(tested), extra=ROUTES) as made:
        async with made.client.ws_connect("/ws", headers=made.world.key.headers) as ws:
            for _ in range(3):
                await ws.send_str("a")
            await ws.receive_str()
            await ws.receive_str()
            assert await closed(ws) == (4429, "RATE_LIMITED; retry after 20 s")


@pytest.mark.parametrize(("text", "code"), [("deny", (4429, "QUOTA_EXCEEDED")), ("down", (1013, "UNAVAILABLE"))])
async def test_what_a_websocket_handler_raises_closes_it(text: str, code: tuple[int, str]) -> None:
    """A refusal becomes the close code, and the message is not charged."""
    async with served(extra=ROUTES) as made:
        async with made.client.ws_connect("/ws", headers=made.world.key.headers) as ws:
            await ws.send_str(text)
            assert await closed(ws) == code
        await made.quiet()
        assert await made.world.used("operations") == 0


async def test_the_header_upgrade_opens_no_door() -> None:
    """A handler of a WebSocket that gets a plain request is a 400 of aiohttp's; a plain one does not care."""
    async with served(extra=ROUTES) as made:
        assert (await made.ask("GET", "/ws")).status == 400
        assert (await made.ask("GET", "/page", headers={"Upgrade": "websocket"})).status == 200
        await made.quiet()


async def test_a_table_may_say_that_a_route_is_a_websocket() -> None:
    """``WEBSOCKET /path`` in the table names the function of a route that is nothing else."""

    async def bare(request: web.Request) -> web.WebSocketResponse:
        return await echo(request)

    made_here = World()
    made_here.tenancy.functions.declare("ws.table", effect="write")
    extra = [web.get("/bare", bare, allow_head=False)]
    async with served(made_here, extra=extra, functions={"WEBSOCKET /bare": "ws.table"}) as made:
        async with made.client.ws_connect("/bare", headers=made.world.key.headers) as ws:
            await ws.send_str("a")
            assert (await ws.receive_str()).endswith(" a")
        assert (await made.ask("GET", "/bare", key=False)).status == 401


async def test_a_stream_is_settled_at_its_first_byte() -> None:
    """Headers are there, the demand is committed, the slot is held until the end, and revocation ends it."""
    async with served(extra=ROUTES) as made:
        async with made.client.get("/events", headers=made.world.key.headers) as response:
            assert response.status == 200
            assert response.headers["X-RateLimit-Remaining"] == "999999"
            assert await response.content.readany() == b"first"
            assert await made.world.used("operations") == 1
            assert await made.world.all_held() == {"at-once": 1, "registered": 1}
            made.world.key.revoke()
            with pytest.raises(ClientError):
                async with asyncio.timeout(10):
                    await response.content.read()
        assert len(made.world.tenancy.connections) == 0


async def test_a_refusal_after_the_first_byte_leaves_the_answer_unfinished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No client takes it for whole; one warning, no traceback; nothing stays held."""
    async with served(extra=ROUTES) as made:
        with pytest.raises(ClientError):
            await made.ask("GET", "/events?deny")
        await made.quiet()
    assert [record.levelno for record in caplog.records if "after its answer had begun" in record.message] == [
        logging.WARNING
    ]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_client_that_leaves_a_stream(cancels: bool) -> None:
    """With handler_cancellation its end is seen at once; without, at the end of the server at the latest."""
    async with served(extra=ROUTES, cancels=cancels) as made:
        async with made.client.get("/events", headers=made.world.key.headers) as response:
            await response.content.readany()
            response.close()
        if cancels:
            await made.quiet()
        assert await made.world.all_held() == ({} if cancels else {"at-once": 1, "registered": 1})


async def test_the_servers_end_is_not_kept_waiting() -> None:
    """At shutdown open WebSockets and streams are ended, so that the server stops at once."""
    world = World()
    async with served(world, extra=ROUTES) as made:
        ending = made.client.ws_connect("/ws", headers=world.key.headers)
        lasting = made.client.get("/events", headers=world.key.headers)
        async with ending as ws, lasting as response:
            await response.content.readany()
            await made.app.shutdown()
            assert await closed(ws) == (entry_for(Reason.SERVER_STOPS).close_code, entry_for(Reason.SERVER_STOPS).code)
            with pytest.raises(ClientError):
                await response.content.read()
        await made.quiet()


@function("ws.push", effect="read")
async def push(request: web.Request) -> web.WebSocketResponse:
    """Send without end."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    pushed = request.app[PUSHED]
    while True:
        await ws.send_str("tick")
        pushed.append("tick")
        await asyncio.sleep(0)


@function("events.late", effect="read")
async def late(request: web.Request) -> web.StreamResponse:
    """Begin a stream when the test says so."""
    response = web.StreamResponse()
    await request.app[RELEASE].wait()
    await response.prepare(request)
    await response.write(b"first")
    return response


PUSHED = web.AppKey("pushed", list[str])
RELEASE = web.AppKey("release", asyncio.Event)


def fenced(app: web.Application) -> None:
    """What the two handlers need."""
    app[PUSHED], app[RELEASE] = [], asyncio.Event()


async def test_a50_nothing_goes_out_behind_the_fence() -> None:
    """A WebSocket that sends without end, and a stream that was admitted before and begins after."""
    async with served(extra=[web.get("/push", push), web.get("/late", late)], build=fenced) as made:
        tenancy, tenant = made.world.tenancy, made.world.tenant.id
        asked = asyncio.ensure_future(made.ask("GET", "/late"))
        async with made.client.ws_connect("/push", headers=made.world.key.headers) as ws:
            assert await ws.receive_str() == "tick"
            while tenancy.gate.fence.life(tenant).running == 0:  # noqa: ASYNC110 - the other one has come
                await asyncio.sleep(0)
            tenancy.gate.fence.put(tenant, Standing(State.DELETING, 1))
            tenancy.connections.close_tenant(tenant, Reason.SUSPENDED_TENANT)
            before = len(made.app[PUSHED])
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(made.app[PUSHED]) == before
            made.app[RELEASE].set()
            assert (await asked).status == 401
        tenancy.gate.fence.put(tenant, Standing(State.ACTIVE, 1))
        await made.quiet()
        assert not tenancy.gate.fence.life(tenant).requests


async def test_a_request_that_takes_too_long_for_a_deletion_is_ended() -> None:
    """By its adapter, without an answer; nothing stays held."""
    async with served(extra=[web.post("/late", late)], build=fenced) as made:
        life = made.world.tenancy.gate.fence.life(made.world.tenant.id)
        asked = asyncio.ensure_future(made.ask("POST", "/late"))  # aiohttp's client would try a GET again
        while not life.requests:  # noqa: ASYNC110 - until it has come
            await asyncio.sleep(0)
        for request in list(life.requests):
            request.end(Reason.SUSPENDED_TENANT)
        async with asyncio.timeout(10):
            with pytest.raises(ClientError):
                await asked
        await made.quiet()
        assert (life.running, life.requests) == (0, set())


@function("deaf.read", effect="read")
async def deaf(request: web.Request) -> web.StreamResponse:
    """A WebSocket whose handler looks at it no more once it is open."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.send_str("open")
    await request.app[RELEASE].wait()
    request.app[PUSHED].append("worked on")
    return ws


async def test_a38_a_websocket_handler_that_sees_no_closing_is_ended() -> None:
    """Closed first, cancelled then: it does nothing any more, and a deletion waits until it has ended."""
    async with served(extra=[web.get("/deaf", deaf)], build=fenced) as made:
        tenancy, tenant = made.world.tenancy, made.world.tenant.id
        life = tenancy.gate.fence.life(tenant)
        async with made.client.ws_connect("/deaf", headers=made.world.key.headers) as ws:
            assert await ws.receive_str() == "open"
            assert (life.running, life.busy) == (0, 1)
            tenancy.connections.close_tenant(tenant, Reason.SUSPENDED_TENANT)
            for request in list(life.requests):
                request.end(Reason.SUSPENDED_TENANT)
            async with asyncio.timeout(10):
                while life.busy:  # noqa: ASYNC110 - until it has ended
                    await asyncio.sleep(0)
            made.app[RELEASE].set()
        await made.quiet()
        assert made.app[PUSHED] == []
