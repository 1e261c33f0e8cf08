"""The fake over its wire, under the real client; and that nobody takes it for production."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from hivetenancy import Tenancy, function
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.hub.client import HiveHub
from hivetenancy.hub.store import StateStore
from hivetenancy.ids import TenantId
from hivetenancy.sources import KeyRecord
from hivetenancy.testing import AsgiClient, FakeHiveHub, ManualClock
from hivetenancy.testing.hub_http import FakeTransport

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub() -> FakeHiveHub:
    """A fake on a clock that stands still."""
    return FakeHiveHub(clock=ManualClock())


def plain(hub: FakeHiveHub, **options: Any) -> HiveHub:
    """A client that reaches the fake and was not told that it is one."""
    http: Any = httpx.AsyncClient(transport=FakeTransport(hub.app))
    given = {"service": "synap", "http": http, "clock": hub.clock, "retries": 0, **options}
    return HiveHub("http://127.0.0.1", hub.service_key, **given)


# --- one hub, three ways ---------------------------------------------------------------------------------------------


async def test_the_wire_says_what_the_methods_say(hub: FakeHiveHub) -> None:
    """Keys, limits, changes and usage are the same, asked by methods and by the real client."""
    acme = hub.add_tenant("acme", plan="pro")
    key = acme.issue_key(permissions=["read"], functions=["kv.*"])
    client = hub.connect(service="synap")
    await client.open()
    assert await client.introspect(key.secret.encode()) == await hub.introspect(key.secret.encode())
    over, direct = (await client.limits(acme.id)).limits, (await hub.limits(acme.id)).limits
    assert over is not None
    assert direct is not None
    assert {standing.limit.dimension: standing.limit.limit for standing in over.quotas} == {
        standing.limit.dimension: standing.limit.limit for standing in direct.quotas
    }
    assert (over.plan, over.statics) == (direct.plan, direct.statics)
    cursor = (await client.changes(None)).cursor
    poll = asyncio.create_task(client.changes(cursor, wait_seconds=20))
    await asyncio.sleep(0.01)
    key.revoke()
    assert [event.key_id for event in (await poll).events] == [key.key_id]
    assert (await client.limits(TenantId("00000000-0000-4000-8000-000000000000"))).limits is None
    await client.aclose()


async def test_a_server_on_the_real_client(hub: FakeHiveHub) -> None:
    """A tenancy over the client serves a key, and refuses it once it is revoked, without a network."""

    @function("x.get", effect="read")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    key = hub.add_tenant("acme", plan="pro").issue_key(permissions=["read", "write", "delete", "admin"])
    client = hub.connect(service="synap")
    tenancy = Tenancy.embedded(client, allow_workers=True)
    async with AsgiClient(tenancy.asgi(app)) as asgi:
        assert (await asgi.request("GET", "/x", headers=key.headers)).status == 204
        assert hub.count("introspect") == 1
        key.revoke()
        for _ in range(500):  # until the feed has told of it
            if (await asgi.request("GET", "/x", headers=key.headers)).status == 401:
                break
            await asyncio.sleep(0.01)
        assert (await asgi.request("GET", "/x", headers=key.headers)).status == 401


async def test_keys_of_one_service(hub: FakeHiveHub) -> None:
    """A service key of one service sees that service's keys alone, and its scopes confine it."""
    synap = hub.issue_service_key(service="synap", scopes=["introspect", "limits", "changes", "usage"])
    assert synap.secret not in repr(synap)
    acme = hub.add_tenant("acme")
    own = acme.issue_key(permissions=["read"], service="synap")
    other = acme.issue_key(permissions=["read"], service="nexus")
    client = hub.connect(service_key=synap.secret)
    await client.open()
    assert isinstance((await client.introspect(own.secret.encode())).key, KeyRecord)
    assert not isinstance((await client.introspect(other.secret.encode())).key, KeyRecord)
    with pytest.raises(HubUnavailableError, match="scope"):
        await client.access_keys.list()
    one = FakeHiveHub(service="nexus")
    announced = await one.connect().extensions.announcement()
    assert announced is not None
    assert announced.service == "nexus"


@pytest.mark.parametrize("missing", ALL_EXTENSIONS)
async def test_each_extension_can_be_switched_off(missing: str) -> None:
    """Without X0 nothing is announced; without another it is the only one that is not."""
    hub = FakeHiveHub(extensions=[name for name in ALL_EXTENSIONS if name != missing])
    announced = await hub.connect(service="synap").extensions.announcement()
    if missing == "announcement":
        assert announced is None
    else:
        assert announced is not None
        assert set(ALL_EXTENSIONS) - set(announced.extensions) == {missing, "announcement"}


async def test_a_hub_of_todays_wire(hub: FakeHiveHub) -> None:
    """Without extensions the 23 calls are there, and a client without a key source is told what to do."""
    today = FakeHiveHub(clock=hub.clock, extensions=[])
    acme = today.add_tenant("acme", plan="free")
    client = today.connect(service="vectorizer")
    assert (await client.vectorizer.get_user_collections(acme.id)).collection_limit == 3
    with pytest.raises(ConfigurationError, match="IntrospectionSource"):
        await client.open()
    with_keys = today.connect(service="vectorizer", keys=hub)
    await with_keys.open()
    limits = (await with_keys.limits(acme.id)).limits
    assert limits is not None
    assert limits.plan == "free"


async def test_what_is_given_counts_over_what_the_fake_says(hub: FakeHiveHub) -> None:
    """The fake is not believed where a test says so, and another service key is sent."""
    with pytest.raises(ConfigurationError, match="is a fake"):
        await hub.connect(service="synap", allow_fake=False).open()
    with pytest.raises(HubUnavailableError, match="401"):
        await hub.connect(service="synap", service_key="svc_synap_" + "x" * 30).open()


async def test_a_call_that_is_given_up_leaves_nothing(hub: FakeHiveHub) -> None:
    """A poll whose caller goes away ends in the hub as well."""
    client = hub.connect(service="synap")
    await client.open()
    cursor = (await client.changes(None)).cursor
    poll = asyncio.create_task(client.changes(cursor, wait_seconds=20))
    for _ in range(1_000):
        if len(hub.service._bell):
            break
        await asyncio.sleep(0)
    assert len(hub.service._bell) == 1
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll
    assert len(hub.service._bell) == 0


LIGHT = """
import sys
from hivetenancy.testing import FakeHiveHub, ManualClock
hub = FakeHiveHub(clock=ManualClock())
key = hub.add_tenant("acme").issue_key(permissions=["read"])
heavy = {"pydantic", "httpx", "uvicorn", "starlette", "hivetenancy.hub.client", "pytest"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_fake_costs_no_import() -> None:
    """Method calls need neither pydantic nor httpx, and only what needs them loads them."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_service_keys_show_in_no_repr(hub: FakeHiveHub) -> None:
    """Neither the fake, nor its application, nor its client prints one."""
    key = hub.service_key
    control = hub.controlled_app()
    things = [hub, hub.app, hub.connect(service="synap"), hub.issue_service_key(), control, hub.service, hub._door.plan]
    assert hub.service_key == key
    for thing in things:
        assert key not in repr(thing)
        assert control.token not in repr(thing)


# --- it cannot become production by accident -------------------------------------------------------------------------


async def test_a_client_that_was_not_told_refuses_a_fake(hub: FakeHiveHub) -> None:
    """Opening says that it is one, and the remedy; nothing else is believed either."""
    client = plain(hub)
    acme = hub.add_tenant("acme")
    with pytest.raises(ConfigurationError, match="is a fake"):
        await client.open()
    for ask in (client.vectorizer.get_user_collections(acme.id), client.extensions.limits(acme.id)):
        with pytest.raises(ConfigurationError, match="is a fake"):
            await ask


@pytest.mark.parametrize("extensions", [[], ["introspection"]], ids=["today's wire", "no X0"])
async def test_a_fake_that_announces_nothing_is_found_by_its_header(extensions: list[str]) -> None:
    """Every reply says so: with the announcement switched off, the first call is refused all the same."""
    with pytest.raises(ConfigurationError, match="is a fake"):
        await plain(FakeHiveHub(extensions=extensions), keys=FakeHiveHub()).open()


class Strips(FakeTransport):
    """A gateway that lets only headers through that it knows."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        del answer.headers["x-hivehub-authority"]
        return answer


async def test_a_gateway_that_takes_the_header_away_hides_nothing(hub: FakeHiveHub) -> None:
    """The announcement itself says so."""
    http: Any = httpx.AsyncClient(transport=Strips(hub.app))
    with pytest.raises(ConfigurationError, match="is a fake"):
        await plain(hub, http=http).open()


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 404}, {"reply": "malformed"}])
async def test_a_fault_does_not_make_a_fake_believed(hub: FakeHiveHub, fault: dict[str, Any]) -> None:
    """A 404 to the announcement looks like today's wire, and still carries the header."""
    client = plain(hub)
    hub.fail(**fault, times=None)
    with pytest.raises((ConfigurationError, HubUnavailableError)):
        await client.open()
    assert (client.announced, client.parts()[0].ok) == (frozenset(), False)


async def test_a_hub_that_turns_out_to_be_a_fake_is_dropped(hub: FakeHiveHub) -> None:
    """A client that was opened on something else and finds a fake behind the address says so at the next look."""
    client = plain(hub)
    hub.service._authority = "local"
    await client.open()
    hub.service._authority = "fake"
    with pytest.raises(ConfigurationError, match="is a fake"):
        await client.open()


def test_no_variable_allows_a_fake(hub: FakeHiveHub) -> None:
    """Settings have no such key, under any name that one would try, and an unknown one is an error."""
    url = {"HIVETENANCY_HUB__URL": "http://127.0.0.1:1", "HIVETENANCY_HUB__SERVICE_KEY": hub.service_key}
    for name in ("HIVETENANCY_HUB__ALLOW_FAKE", "HIVETENANCY_ALLOW_FAKE"):
        with pytest.raises(ConfigurationError, match=name):
            Tenancy.from_env(environ={**url, name: "1"})


async def test_settings_that_name_a_fake_do_not_start(hub: FakeHiveHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose variables point to a fake refuses to start, and only code can change that."""
    environ = {
        "HIVETENANCY_MODE": "cluster",
        "HIVETENANCY_HUB__URL": "http://127.0.0.1",
        "HIVETENANCY_HUB__SERVICE_KEY": hub.service_key,
        "HIVETENANCY_HUB__SERVICE": "synap",
    }
    http = httpx.AsyncClient(transport=FakeTransport(hub.app))
    monkeypatch.setattr("hivetenancy.hub.transport.own_client", lambda url, verify: http)
    tenancy = Tenancy.from_env(environ=environ, allow_workers=True)
    with pytest.raises(ConfigurationError, match="is a fake"):
        await tenancy.start()
    allowed = Tenancy.from_env(environ=environ, allow_workers=True, allow_fake=True)
    http = httpx.AsyncClient(transport=FakeTransport(hub.app))
    await allowed.start()
    await allowed.stop()


@pytest.mark.parametrize("url", [None, "", "http://hub.example.com", "http://10.0.0.7:12000", "http://0.0.0.0:1"])
def test_there_is_no_default_and_no_plain_http_to_elsewhere(url: Any) -> None:
    """A fake listens on loopback over http, where a client goes only if it is told so."""
    with pytest.raises(ConfigurationError):
        HiveHub(url, "svc_synap_" + "x" * 30)
    with pytest.raises(TypeError):
        HiveHub()  # type: ignore[call-arg]


def test_keys_of_tests_are_no_service_keys() -> None:
    """Neither a seeded secret, which anybody can make again, nor a tenant's key."""
    for seed in (3, None):
        key = FakeHiveHub(seed=seed).add_tenant("acme").issue_key(permissions=["read"]).secret
        with pytest.raises(ConfigurationError) as caught:
            HiveHub("https://hub.example.com", key)
        assert key not in str(caught.value)


def test_a_seeded_fake_has_a_random_service_key() -> None:
    """Two fakes of one seed give tenants the same ids and no two service keys alike."""
    first, second = FakeHiveHub(seed=3), FakeHiveHub(seed=3)
    assert first.add_tenant("a").id == second.add_tenant("a").id
    assert first.service_key != second.service_key
    assert first.authenticate(second.service_key) is None


def test_a_fakes_file_is_no_nodes_file(tmp_path: Path) -> None:
    """What a fake keeps is not what a node keeps: neither opens the other's."""
    fake = FakeHiveHub(state=tmp_path / "hub.db")
    fake.close()
    with pytest.raises(ConfigurationError):
        StateStore(tmp_path / "hub.db").open()
    node = StateStore(tmp_path / "node.db")
    node.open("hub")
    node.close()
    with pytest.raises(ConfigurationError):
        FakeHiveHub(state=tmp_path / "node.db")
