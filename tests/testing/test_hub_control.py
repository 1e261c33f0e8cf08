"""The control routes: what a test in another language does to a fake, and what nobody else can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hivetenancy.authority.statefile import StateFile
from hivetenancy.errors import ConfigurationError
from hivetenancy.testing import FakeHiveHub, ManualClock
from hivetenancy.testing.hub_control import _ROUTES, ControlApp
from hivetenancy.testing.hub_guard import Guard
from hivetenancy.testing.hub_seed import KeySeed, TenantSeed, read_seeds, sow
from tests.tiers import examples

pytestmark = pytest.mark.anyio


@pytest.fixture
def hub() -> FakeHiveHub:
    """A fake on a clock that stands still."""
    return FakeHiveHub(clock=ManualClock())


@pytest.fixture
def control(hub: FakeHiveHub) -> ControlApp:
    """Its application with the control routes."""
    return hub.controlled_app()


@pytest.fixture
async def client(control: ControlApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client that holds the token."""
    transport: Any = httpx.ASGITransport(app=control)  # type: ignore[arg-type]
    headers = {"X-Fake-Control": control.token}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as made:
        yield made


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Ask a control route."""
    got = await client.request(method, f"/_fake/{path}", content=None if body is None else json.dumps(body).encode())
    assert got.headers["x-hivehub-authority"] == "fake"
    return got.status_code, got.json()


async def test_tenants_and_keys(client: httpx.AsyncClient, hub: FakeHiveHub) -> None:
    """A tenant is made, changed and deleted, its keys are issued, and no answer but that holds a secret."""
    status, acme = await ask(client, "POST", "tenants", {"name": "acme", "plan": "pro"})
    assert (status, list(acme), acme["plan"]) == (201, ["id", "name", "plan"], "pro")
    assert hub.tenant("acme").id == acme["id"]
    status, key = await ask(client, "POST", f"tenants/{acme['id']}/keys", {"permissions": ["read"], "name": "k"})
    assert status == 201
    assert hub.service.key_id_of(key["secret"].encode()) == key["id"]
    status, told = await ask(client, "PATCH", f"tenants/{acme['id']}", {"plan": "free", "limits": {"keys": 5}})
    assert (status, told["plan"], told["status"]) == (200, "free", "active")
    for path in ("tenants", f"tenants/{acme['id']}", "snapshot", "calls", "faults"):
        status, told = await ask(client, "GET", path)
        assert status == 200
        assert key["secret"] not in json.dumps(told)
    for wanted in ("suspended", "active", "deleting"):
        _, told = await ask(client, "PATCH", f"tenants/{acme['id']}", {"status": wanted})
        assert (told["status"], hub.tenant("acme").status) == (wanted, wanted)
    assert await ask(client, "DELETE", f"tenants/{acme['id']}") == (200, {})
    assert hub.tenants == ()
    status, made = await ask(client, "POST", "tenants", {"name": "b", "keys": [{"permissions": ["write"]}]})
    assert (status, made["keys"][0]["secret"][:8]) == (201, "hh_test_")


async def test_faults_clock_and_calls(client: httpx.AsyncClient, hub: FakeHiveHub) -> None:
    """Faults are planted and healed, time is moved and skewed, the journal is read and emptied."""
    wire = {"X-Service-Key": hub.service_key}

    async def announced() -> int:
        return (await client.get("/api/internal/extensions", headers=wire)).status_code

    asked = {"calls": ["announcement"], "status": 503, "times": 2, "retry_after": 1}
    assert (await ask(client, "POST", "faults", asked))[0] == 201
    assert [await announced() for _ in range(3)] == [503, 503, 200]
    await ask(client, "POST", "faults", {"seed": 1, "rate": 1, "status": 500})
    assert await announced() == 500
    assert (await ask(client, "GET", "faults"))[1]["faults"]
    await ask(client, "DELETE", "faults")
    assert await announced() == 200
    await ask(client, "POST", "faults", {"down": True})
    assert (await ask(client, "GET", "faults"))[1]["down"] is True
    await ask(client, "POST", "faults", {"down": False})
    before = (await ask(client, "GET", "clock"))[1]["now"]
    status, told = await ask(client, "POST", "clock", {"advance_seconds": 60, "skew_seconds": -5})
    assert (status, told) == (200, {"now": before + 55_000_000, "skew_seconds": -5.0})
    calls = (await ask(client, "GET", "calls"))[1]["calls"]
    assert [call["outcome"] for call in calls][:3] == ["status 503", "status 503", "answered"]
    assert await ask(client, "DELETE", "calls") == (200, {})
    assert (await ask(client, "GET", "calls"))[1] == {"calls": []}
    hub.add_tenant("acme")
    assert await ask(client, "POST", "reset") == (200, {})
    assert (hub.tenants, hub.service.clock.now()) == ((), hub.clock.now())


async def test_what_is_wrong_with_the_hub_as_a_whole(client: httpx.AsyncClient, hub: FakeHiveHub) -> None:
    """A new epoch, a replica behind, a refused service key and a lost extension: each begins, lasts and is healed."""
    acme, wire = hub.add_tenant("acme"), {"X-Service-Key": hub.service_key}

    async def told(path: str) -> Any:
        return await client.get(f"/api/internal/{path}", headers=wire)

    cursor, epoch = (await told("changes")).json()["cursor"], hub.service.epoch
    assert (await ask(client, "POST", "faults", {"new_epoch": True}))[0] == 201
    again = (await told(f"changes?wait_seconds=0&cursor={cursor}")).json()
    assert (again["reset"], again["epoch"]) == (True, epoch + 1)
    assert hub.tenants == (acme,)
    limits = f"synap/users/{acme.id}/limits"
    for how in (("POST", {"stale_replica": False}), ("DELETE", None), ("POST", "reset")):
        plan = (await told(limits)).json()["plan"]
        for asked in ({"stale_replica": True}, {"service_key_rejected": True}, {"without": ["usage", "limits"]}):
            assert (await ask(client, "POST", "faults", asked))[0] == 201
        assert (await ask(client, "GET", "faults"))[1]["lasting"] == [
            "service_key_rejected",
            "stale_replica",
            "without",
        ]
        assert (await told(limits)).status_code == 401
        await ask(client, "POST", "faults", {"service_key_rejected": False})
        assert (await told(limits)).status_code == 404
        await ask(client, "POST", "faults", {"without": []})
        acme.set_plan("pro" if plan == "free" else "free")
        assert (await told(limits)).json()["plan"] == plan
        behind = await told(f"{limits}?min_revision={hub.service.revision}")
        assert (behind.status_code, behind.json()["code"]) == (503, "replica_behind")
        if how[1] == "reset":
            assert (await ask(client, "POST", "reset"))[0] == 200
            assert (await told(limits)).status_code == 404
        else:
            await ask(client, how[0], "faults", how[1])
            assert (await told(limits)).json()["plan"] == acme.plan != plan
        assert (await ask(client, "GET", "faults"))[1]["lasting"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "tenants", {}, "name"),
        ("POST", "tenants", {"name": ""}, "name"),
        ("POST", "tenants", {"name": "a", "plan": "gold"}, "plan"),
        ("POST", "tenants", {"name": "a", "colour": 1}, "colour"),
        ("POST", "tenants", [], "body"),
        ("POST", "tenants/{id}/keys", {"permissions": []}, "permissions"),
        ("POST", "tenants/{id}/keys", {"permissions": ["fly"]}, "permissions"),
        ("POST", "tenants/{id}/keys", {"permissions": ["read"], "expires_in": -1}, "expires_in"),
        ("POST", "tenants/{id}/keys", {"permissions": ["read"], "service": "x"}, "service"),
        ("PATCH", "tenants/{id}", {"plan": "gold"}, "plan"),
        ("PATCH", "tenants/{id}", {"status": "happy"}, "status"),
        ("PATCH", "tenants/{id}", {"limits": {"keys": -1}}, "limits.keys"),
        ("PATCH", "tenants/{id}", {"limits": {"nothing": 1}}, "limits"),
        ("POST", "faults", {}, "body"),
        ("POST", "faults", {"calls": ["nothing"], "status": 503}, "calls"),
        ("POST", "faults", {"status": 200}, "status"),
        ("POST", "faults", {"connection": "torn"}, "connection"),
        ("POST", "faults", {"reply": "odd"}, "reply"),
        ("POST", "faults", {"latency": -1}, "latency"),
        ("POST", "faults", {"status": 503, "times": 0}, "times"),
        ("POST", "faults", {"seed": 1}, "rate"),
        ("POST", "faults", {"rate": 0.5}, "seed"),
        ("POST", "faults", {"rate": 5, "seed": 1}, "rate"),
        ("POST", "faults", {"without": ["nothing"]}, "without"),
        ("POST", "faults", {"new_epoch": False}, "new_epoch"),
        ("POST", "faults", {"stale_replica": None}, "body"),
        ("POST", "faults", {"stale_replica": True, "status": 503}, "status"),
        ("POST", "faults", {"down": True, "calls": ["limits"]}, "calls"),
        ("POST", "clock", {"advance_seconds": -1}, "advance_seconds"),
        ("POST", "clock", {"advance_seconds": "1"}, "advance_seconds"),
        ("POST", "reset", {"all": True}, "all"),
    ],
)
async def test_bad_input_names_the_field(
    client: httpx.AsyncClient, hub: FakeHiveHub, method: str, path: str, body: Any, field: str
) -> None:
    """400 with the field at fault, and nothing was done."""
    acme = hub.add_tenant("acme")
    revision = hub.service.revision
    status, told = await ask(client, method, path.format(id=acme.id), body)
    assert (status, told.get("code"), told.get("field")) == (400, "bad_field", field)
    assert (hub.service.revision, hub.planted) == (revision, [])


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "tenants", {"name": "b", "limits": {"keys": 1, "nothing": 1}}, "limits"),
        (
            "POST",
            "tenants",
            {"name": "b", "keys": [{"permissions": ["read"]}, {"permissions": ["fly"]}]},
            "permissions",
        ),
        ("PATCH", "tenants/{id}", {"plan": "pro", "status": "active"}, "status"),
        ("PATCH", "tenants/{id}", {"limits": {"keys": 1, "nothing": 1}}, "limits"),
    ],
)
async def test_what_is_refused_in_part_was_not_done_in_part(
    client: httpx.AsyncClient, hub: FakeHiveHub, method: str, path: str, body: Any, field: str
) -> None:
    """The tenants are who they were and what they were, and the name that was refused is free."""
    acme = hub.add_tenant("acme")
    acme.begin_deletion()
    before = hub.service.tenants()
    status, told = await ask(client, method, path.format(id=acme.id), body)
    assert (status, told.get("field")) == (400, field)
    assert (hub.service.tenants(), hub.tenants) == (before, (acme,))
    assert hub.service.keys(acme.id) == ()
    assert (await ask(client, "POST", "tenants", {"name": "b"}))[0] == 201


@pytest.mark.parametrize(
    ("first", "then", "field"),
    [
        ({}, {"advance_seconds": 90}, "advance_seconds"),
        ({"skew_seconds": 50}, {"advance_seconds": 20}, "advance_seconds"),
        ({}, {"skew_seconds": 90}, "skew_seconds"),
    ],
)
async def test_no_clock_goes_where_times_have_no_text(
    hub: FakeHiveHub, client: httpx.AsyncClient, first: Any, then: Any, field: str
) -> None:
    """Beyond the year 9999 every answer would be a 500, for ever; so the clock stops long before."""
    hub.advance(221_845_392_000 - 60 - hub.clock.now()[1] // 1_000_000)  # a minute before the year 9000
    assert (await ask(client, "POST", "clock", first))[0] == 200
    status, told = await ask(client, "POST", "clock", then)
    assert (status, told["field"]) == (400, field)
    announced = await client.get("/api/internal/extensions", headers={"X-Service-Key": hub.service_key})
    assert announced.status_code == 200


async def test_a_file_that_cannot_be_written_is_nobodys_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the reason, and the tenant is not there; once there is room, it is taken."""
    hub = FakeHiveHub(clock=ManualClock(), state=tmp_path / "hub.db")
    control = hub.controlled_app()
    transport: Any = httpx.ASGITransport(app=control)  # type: ignore[arg-type]
    headers = {"X-Fake-Control": control.token}

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with contextlib.closing(hub):
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            with monkeypatch.context() as patched:
                patched.setattr(StateFile, "save", full)
                for path, body in (("tenants", {"name": "acme"}), ("reset", {})):
                    status, told = await ask(client, "POST", path, body)
                    assert (status, "disk is full" in told["details"]) == (503, True)
            assert await ask(client, "GET", "tenants") == (200, {"tenants": []})
            assert (await ask(client, "POST", "tenants", {"name": "acme"}))[0] == 201


async def test_what_is_not_there(client: httpx.AsyncClient, hub: FakeHiveHub) -> None:
    """404 for a route and a tenant, 405 with the methods, 409 for a name that is taken."""
    hub.add_tenant("acme")
    assert (await ask(client, "GET", "nothing"))[0] == 404
    assert (await ask(client, "GET", "tenants/00000000-0000-4000-8000-000000000000"))[0] == 404
    assert (await ask(client, "DELETE", "tenants"))[0] == 405
    assert (await ask(client, "POST", "tenants", {"name": "acme"})) == (
        409,
        {"error": "A tenant has that name", "code": "exists", "field": "name"},
    )
    assert (await client.get("/_fake/%zz")).status_code == 400


async def test_the_token_is_all_that_opens_them(control: ControlApp, hub: FakeHiveHub) -> None:
    """None, a wrong one, two, or a service key in its place: the same 401, and nothing is done."""
    transport: Any = httpx.ASGITransport(app=control)  # type: ignore[arg-type]
    wrong: list[Any] = [
        {},
        {"X-Fake-Control": "x"},
        {"X-Fake-Control": hub.service_key},
        {"X-Service-Key": control.token},
        {"Authorization": f"Bearer {control.token}"},
        [("X-Fake-Control", control.token), ("X-Fake-Control", control.token)],
        {"X-Fake-Control": ""},
        {"X-Fake-Control": control.token + " x"},
    ]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for headers in wrong:
            for path in _ROUTES:
                got = await client.post(f"/_fake/{path}", headers=headers, json={"name": "acme"})
                assert (got.status_code, got.json()) == (401, {"error": "Invalid control token"})
        wire = await client.get("/api/internal/extensions", headers={"X-Service-Key": control.token})
        assert wire.status_code == 401
    assert hub.tenants == ()


async def test_without_control_there_are_none(hub: FakeHiveHub) -> None:
    """The plain application knows no such path, whatever is sent."""
    token = hub.controlled_app().token
    transport: Any = httpx.ASGITransport(app=hub.app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        headers = {"X-Service-Key": hub.service_key, "X-Fake-Control": token}
        for path in _ROUTES:
            assert (await client.post(f"/_fake/{path}", headers=headers)).status_code == 404
            assert (await client.post(f"/_fake/{path}", headers={"X-Fake-Control": token})).status_code == 401


class NoToken(ControlApp):
    """Lets everybody in: the broken one."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-fake-control", self.token.encode())]
        await super().__call__({**scope, "headers": headers}, receive, send)


async def test_a_control_without_a_token_would_be_found_out(hub: FakeHiveHub) -> None:
    """The test of the token fails on an application that looks at none."""
    with pytest.raises(AssertionError):
        await test_the_token_is_all_that_opens_them(NoToken(hub.app, hub), hub)


FIELDS = st.sampled_from(["name", "plan", "keys", "permissions", "calls", "status", "limits", "times", "seed", "rate"])
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=examples(10, 100))  # each goes to every route
@given(BODIES)
def test_nothing_that_is_sent_is_a_fault_of_ours(value: Any) -> None:
    """Whatever the body: an answer below 500, or one that says which field is wrong."""

    async def send_everywhere() -> None:
        hub = FakeHiveHub(clock=ManualClock())
        tenant = hub.add_tenant("acme").id
        control = hub.controlled_app()
        transport: Any = httpx.ASGITransport(app=control)  # type: ignore[arg-type]
        headers = {"X-Fake-Control": control.token}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            for path, methods in _ROUTES.items():
                for method in methods:
                    status, told = await ask(client, method, path.format(id=tenant), value)
                    assert status < 500
                    assert status != 400 or told["field"]
                    if path == "tenants/{id}" and method == "DELETE" and status == 200:
                        tenant = hub.add_tenant(f"acme {method}").id

    asyncio.run(send_everywhere())


# --- a file of tenants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "t.json",
            '{"tenants": [{"name": "acme", "plan": "pro", "keys": [{"permissions": ["read"]}]}, {"name": "b"}]}',
        ),
        (
            "t.toml",
            '[[tenants]]\nname="acme"\nplan="pro"\n[[tenants.keys]]\npermissions=["read"]\n[[tenants]]\nname="b"',
        ),
    ],
)
def test_tenants_of_a_file(tmp_path: Path, hub: FakeHiveHub, name: str, text: str) -> None:
    """Each is added with its keys; a second time each is as it was, and gets no new keys."""
    (tmp_path / name).write_text(text)
    seeds = read_seeds(tmp_path / name)
    cards = sow(hub, seeds)
    assert [(card["name"], card["plan"], len(card["keys"])) for card in cards] == [("acme", "pro", 1), ("b", "free", 0)]
    again = sow(hub, seeds)
    assert [card["id"] for card in again] == [card["id"] for card in cards]
    assert all(card["keys"] == [] for card in again)


@pytest.mark.parametrize(
    "second",
    [
        TenantSeed(name="b", plan="gold"),
        TenantSeed(name="b", limits={"nothing": 1}),
        TenantSeed(name="b", keys=[KeySeed(permissions=["fly"])]),
        TenantSeed(name="a"),
    ],
)
def test_one_wrong_tenant_adds_none(hub: FakeHiveHub, second: TenantSeed) -> None:
    """A tenant that stayed would be there the next time, with keys whose secrets nobody was ever shown."""
    first = TenantSeed(name="a", keys=[KeySeed(permissions=["read"])])
    acme = hub.add_tenant("acme")
    with pytest.raises(ConfigurationError):
        sow(hub, [first, second])
    assert hub.tenants == (acme,)
    assert [len(card["keys"]) for card in sow(hub, [first])] == [1]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.json", "{", "JSON"),
        ("t.json", "[]", "the file"),
        ("t.json", '{"tenants": [{"plan": "pro"}]}', r"tenants\.0\.name"),
        ("t.json", '{"tenants": [], "more": 1}', "more"),
        ("t.toml", "[[", "no JSON or TOML"),
        ("t.json", '{"tenants": [{"name": "a", "keys": [{"permissions": []}]}]}', r"permissions"),
    ],
)
def test_a_bad_file_names_itself_and_the_field(tmp_path: Path, name: str, text: str, says: str) -> None:
    """One line, with the path in it."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_seeds(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_seeds(tmp_path / "nowhere")


# --- the guard -------------------------------------------------------------------------------------------------------


async def test_a_fault_of_ours_says_whose_it_is() -> None:
    """An application that breaks is the server's to log; what is answered is the fake's, and says so."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [HERE]}
    with pytest.raises(RuntimeError, match="a bug"):
        await Guard(broken)(scope, receive, send)
    assert sent[0]["status"] == 500
    assert (b"x-hivehub-authority", b"fake") in sent[0]["headers"]
    assert "bug" not in sent[1]["body"].decode()


async def through_guard(hub: FakeHiveHub, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of an announcement behind the guard, asked with these headers and a right key."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path = b"/api/internal/extensions"
    scope = {
        "type": "http",
        "method": "GET",
        "path": path.decode(),
        "raw_path": path,
        "query_string": b"",
        "headers": [(b"x-service-key", hub.service_key.encode()), *headers],
    }
    await Guard(hub.app)(scope, receive, send)
    status: int = sent[0]["status"]
    return status


HERE = (b"host", b"127.0.0.1:80")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([HERE], 200),
        ([(b"Host", b"LOCALHOST:8000")], 200),
        ([(b"host", b"[::1]:9")], 200),
        ([(b"host", b"127.1.2.3")], 200),
        ([], 403),
        ([HERE, HERE], 403),
        ([(b"host", b"evil.example")], 403),
        ([(b"host", b"localhost.evil.example")], 403),
        ([(b"host", b"127.0.0.1.evil.example")], 403),
        ([(b"host", b"127.0.0.1@evil.example")], 403),
        ([(b"host", b"192.168.0.1")], 403),
        ([(b"host", b"0.0.0.0")], 403),
        ([(b"host", b"")], 403),
        ([HERE, (b"origin", b"http://127.0.0.1")], 403),
        ([HERE, (b"Origin", b"null")], 403),
        ([HERE, (b"origin", b"")], 403),
    ],
)
async def test_only_this_machines_programs_are_answered(
    hub: FakeHiveHub, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    """Another name for this machine, and anything with an Origin, is a web page's."""
    assert await through_guard(hub, headers) == status
