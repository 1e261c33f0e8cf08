"""Quart: guards in the place of its view functions, the exchange around all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hivetenancy.adapters.asgi import TenancyASGI
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, DeniedError, HubUnavailableError, InvalidNameError
from hivetenancy.functions import FunctionSpec, function
from hivetenancy.ids import Effect
from hivetenancy.tenant import current_tenant
from hivetenancy.testing.asgi import AsgiClient, AsgiProtocolError
from tests.adapters.host import Stage, problem

pytest.importorskip("quart", reason="Quart is in the extra `hosts`")

from quart import Blueprint, Quart, Response, request, websocket
from quart.views import MethodView

pytestmark = pytest.mark.anyio

RAISED = {
    "denied": DeniedError.of(Refusal(reason=Reason.NOT_FOUND)),
    "name": InvalidNameError("empty"),
    "unavailable": HubUnavailableError("gone"),
}


def quart() -> Quart:
    app = Quart(__name__, static_folder=None)
    blueprint = Blueprint("items", __name__, url_prefix="/items")

    @blueprint.errorhandler(ValueError)
    async def swallow(error: ValueError) -> tuple[str, int]:
        return "swallowed", 418

    @blueprint.get("/<name>")
    @function("item.get", effect="read")
    async def read(name: str) -> str:
        if name in RAISED:
            raise RAISED[name]
        if name == "break":
            raise RuntimeError("the handler broke")
        return current_tenant().id

    @app.put("/items")
    @function("item.set", effect="write", demand={"operations": 1})
    async def write() -> str:
        return str(len(await request.get_data()))

    @app.get("/sync")
    @function("item.sync", effect="read")
    def sync() -> str:
        return current_tenant().id

    @app.get("/stream")
    @function("item.stream", effect="read")
    async def stream() -> Response:
        async def rows() -> AsyncIterator[bytes]:
            yield current_tenant().id.encode()
            raise RAISED["denied"]

        return Response(rows())

    @app.websocket("/ws")
    @function("item.talk", effect="read")
    async def talk() -> None:
        while True:
            text = await websocket.receive()
            if text in RAISED:
                raise RAISED[str(text)]
            await websocket.send(current_tenant().id)

    class View(MethodView):
        @function("view.get", effect="read")
        async def get(self) -> str:
            return current_tenant().id

        @function("view.set", effect="write")
        async def put(self) -> str:
            return "put"

    app.add_url_rule("/view", view_func=View.as_view("view"))
    app.register_blueprint(blueprint)
    return app


async def test_views_of_every_kind_are_guarded() -> None:
    """Async, sync, class-based and WebSocket views; the router's 404 and 405 are ours."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(quart(), stage.tenancy)) as client:
        for path in ("/items/a", "/sync", "/view"):
            assert (await client.request("GET", path)).status == 401, path
            answer = await client.request("GET", path, headers=stage.key.headers)
            assert (answer.status, answer.text) == (200, stage.id), path
            assert answer.header("ratelimit") is not None
            assert (await client.request("HEAD", path, headers=stage.key.headers)).status == 200
        assert (await client.request("PUT", "/items", headers=stage.reader.headers)).status == 403
        assert (await client.request("PUT", "/view", headers=stage.reader.headers)).status == 403
        assert problem(await client.request("GET", "/nowhere", headers=stage.key.headers)) == (404, "NOT_FOUND")
        method = await client.request("DELETE", "/items", headers=stage.key.headers)
        assert problem(method) == (405, "METHOD_NOT_ALLOWED")
        assert "PUT" in str(method.header("allow"))
        for path in ("/items", "/view"):
            assert (await client.request("OPTIONS", path)).status == 401
            assert (await client.request("OPTIONS", path, headers=stage.key.headers)).status == 200
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            await socket.send("hello")
            assert await socket.receive() == stage.id
        async with client.websocket("/ws") as socket:
            assert socket.refusal.status == 401
        assert await stage.held() == {}


@pytest.mark.parametrize(
    ("which", "expected"),
    [("denied", (404, "NOT_FOUND")), ("name", (400, "INVALID_NAME")), ("unavailable", (503, "UNAVAILABLE"))],
)
async def test_a_refusal_raised_in_a_view(
    which: str, expected: tuple[int, str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A blueprint's handler for ValueError does not swallow it; nothing is logged."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(quart(), stage.tenancy)) as client:
        answer = await client.request("GET", f"/items/{which}", headers=stage.key.headers)
        assert problem(answer) == expected
        assert await stage.held() == {}
    assert "Traceback" not in caplog.text + capfd.readouterr().err


async def test_a_view_s_own_failure_stays_quart_s() -> None:
    """Its 500 goes out; nothing stays held."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(quart(), stage.tenancy)) as client:
        answer = await client.request("GET", "/items/break", headers=stage.key.headers)
        assert answer.status == 500
        assert answer.header("content-type") == "text/html; charset=utf-8"
        assert await stage.held() == {}


async def test_a_refusal_after_the_first_byte() -> None:
    """A streamed answer has its tenant, and is left unfinished."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(quart(), stage.tenancy)) as client:
        with pytest.raises(AsgiProtocolError, match="before its answer was finished"):
            async with client.stream("GET", "/stream", headers=stage.key.headers) as exchange:
                assert await exchange.next_chunk() == stage.id.encode()
                await exchange.next_chunk()
        assert await stage.held() == {}


async def test_bodies_are_bounded() -> None:
    """Declared or not, 413."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(quart(), stage.tenancy)) as client:
        for body in (b"x" * 101, [b"x" * 60, b"x" * 60]):
            answer = await client.request("PUT", "/items", headers=stage.key.headers, body=body)
            assert problem(answer) == (413, "PAYLOAD_TOO_LARGE")
        assert (await client.request("PUT", "/items", headers=stage.key.headers, body=b"x" * 100)).text == "100"
        assert await stage.held() == {}


async def test_an_answer_before_the_view_is_withheld() -> None:
    """A before_request function has no tenant, and what it answers does not get out."""
    stage = Stage()
    app = quart()

    @app.before_request
    async def eager() -> Any:
        return "secret" if request.path == "/sync" else None

    async with AsgiClient(TenancyASGI(app, stage.tenancy)) as client:
        assert problem(await client.request("GET", "/sync", headers=stage.key.headers)) == (403, "FORBIDDEN")
        assert (await client.request("GET", "/view", headers=stage.key.headers)).status == 200


async def test_websocket_refusals_and_revocation() -> None:
    """With the catalogue's codes."""
    stage = Stage()
    async with AsgiClient(TenancyASGI(quart(), stage.tenancy)) as client:
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            await socket.send("hello")
            await socket.receive()
            await socket.send("denied")
            assert await socket.closed() == (4404, "NOT_FOUND")
        async with client.websocket("/ws", headers=stage.key.headers) as socket:
            await socket.send("hello")
            await socket.receive()
            stage.key.revoke()
            assert await socket.closed() == (4401, "INVALID_CREDENTIAL")
        assert await stage.held() == {}


async def test_a_view_without_a_function_does_not_start_and_none_is_added_later() -> None:
    """A table names what cannot be marked, and a public view needs no key."""
    app = quart()

    @app.get("/open")
    async def unmarked() -> str:
        return "open"

    with pytest.raises(ConfigurationError, match="/open has no function"):
        TenancyASGI(app, Stage().tenancy)
    stage = Stage()
    table: dict[str, Any] = {
        "GET /open": FunctionSpec(name="open.read", effect=Effect.READ),
        "OPTIONS /open": "open.read",
    }
    async with AsgiClient(TenancyASGI(app, stage.tenancy, functions=table)) as client:
        assert (await client.request("GET", "/open")).status == 401
        assert (await client.request("GET", "/open", headers=stage.key.headers)).text == "open"
    with pytest.raises(ConfigurationError, match="sealed"):
        app.add_url_rule("/late", "late", lambda: "secret")


async def test_a_guarded_application_served_without_its_tenancy_refuses() -> None:
    """As with every other framework."""
    stage = Stage()
    app = quart()
    TenancyASGI(app, stage.tenancy)
    async with AsgiClient(app, raise_app_exceptions=False) as client:
        assert (await client.request("GET", "/sync", headers=stage.key.headers)).status == 500
