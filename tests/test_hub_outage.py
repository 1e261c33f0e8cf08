"""What a server answers while its hub cannot be asked, through the whole stack.

A Starlette application behind its tenancy, a `HiveHub` over HTTP, and between them and the hub a line that can be cut,
bent and held. Time stands still but where a test moves it. `docs/explanation/when-the-hub-is-down.md` has a row for
each of these tests, and `tests/test_outage_table.py` keeps the two together.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

pytest.importorskip("starlette", reason="starlette is not installed: it belongs to an extra")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hivetenancy import (
    CachedLimits,
    ConfigurationError,
    Effect,
    Freshness,
    HubContractError,
    HubUnavailableError,
    KeyId,
    Tenancy,
    TenantId,
    function,
)
from hivetenancy import tenant as tenant_module
from hivetenancy.authority.api import hub_app
from hivetenancy.authority.service import HubService
from hivetenancy.clock import SECOND_US
from hivetenancy.hub.breaker import CircuitBreaker
from hivetenancy.sources import BatchAnswer, KeyAnswer
from hivetenancy.testing import AsgiClient
from hivetenancy.testing.asgi_http import Response as Answer
from tests.adapters.host import Seen
from tests.hub.wired import Got, Sent, Wired, from_app

pytestmark = pytest.mark.anyio

DAY_S: Final = 24 * 3600
PERMISSIONS: Final = ("read", "write", "delete", "admin")
METHODS: Final = {Effect.READ: "GET", Effect.WRITE: "PUT", Effect.DELETE: "DELETE", Effect.ADMIN: "POST"}
STORED: Final = 100


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a process that never had a tenancy, and locks of its own."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@function("kv.get", effect="read")
async def get(_request: Request) -> Response:
    return PlainTextResponse("got")


@function("kv.set", effect="write", demand={"storage_bytes": STORED, "operations": 1})
async def put(_request: Request) -> Response:
    return PlainTextResponse("put")


@function("kv.delete", effect="delete")
async def delete(_request: Request) -> Response:
    return PlainTextResponse("gone")


@function("kv.flush", effect="admin")
async def flush(_request: Request) -> Response:
    return PlainTextResponse("flushed")


HANDLERS: Final = {"GET": get, "PUT": put, "DELETE": delete, "POST": flush}


class OwnKeys:
    """A key source of a host's own: it knows what the hub knows of keys, and does not go over the line."""

    def __init__(self, service: HubService) -> None:
        self._service = service

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Say what one key is."""
        return await self._service.introspect(credential)

    async def introspect_batch(
        self, digests: Any, *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Say what several keys are."""
        return await self._service.introspect_batch(digests)


class Server:
    """A server behind its tenancy, and its hub at the other end of a line."""

    def __init__(self, wired: Wired | None = None, *, own_keys: bool = False, **options: Any) -> None:
        self.wired = wired or Wired()
        self.clock, self.line, self.service = self.wired.clock, self.wired.line, self.wired.service
        self.acme = self.wired.acme
        self.key = self.new_key(self.acme)
        self.hub = self.wired.client(keys=OwnKeys(self.service) if own_keys else None)
        self.seen = Seen()
        self.tenancy = Tenancy.embedded(self.hub, hooks=[self.seen], audit=None, allow_workers=True, **options)
        routes = [Route("/", handler, methods=[method]) for method, handler in HANDLERS.items()]
        self.client = AsgiClient(self.tenancy.asgi(Starlette(routes=routes)))

    def new_key(self, tenant: TenantId) -> str:
        """Another key of *tenant*, with every permission."""
        return self.service.issue_key(tenant, name="k", permissions=PERMISSIONS).secret

    async def ask(self, effect: Effect = Effect.READ, key: str | None = None) -> Answer:
        """Send a request with that effect."""
        return await self.client.request(METHODS[effect], "/", headers={"x-api-key": key or self.key})

    async def status(self, effect: Effect = Effect.READ, key: str | None = None) -> int:
        """The status of such a request."""
        return (await self.ask(effect, key)).status

    def at(self, seconds: float, began: int) -> None:
        """Move the clock to *seconds* after *began*."""
        self.clock.advance(us=began + round(seconds * SECOND_US) - self.clock.now()[0])

    def sent_since(self, mark: int, path: str) -> int:
        """How many requests to *path* went out since the line had carried *mark*."""
        return sum(sent.path == path for sent in self.line.sent[mark:])

    def red(self) -> dict[str, str]:
        """What health shows in red, with the reasons."""
        return {part.name: part.why for part in self.tenancy.health().parts if not part.ok}


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """Start, serve one request so that key and tenant are known, and stop at the end with the line whole."""
    await server.tenancy.start()
    try:
        assert await server.status() == 200
        yield server
    finally:
        server.line.bend = None
        server.clock.advance(60)  # past any pause of the breaker, so that stop can report
        await server.tenancy.stop()


def only(path: str, bend: Callable[[Sent, Got], Got | Awaitable[Got]]) -> Callable[[Sent, Got], Any]:
    """Bend the replies to *path*, and those below it."""
    return lambda sent, got: bend(sent, got) if sent.path.startswith(path) else got


def refused(_sent: Sent, _got: Got) -> Got:
    """No connection."""
    raise httpx.ConnectError("connection refused")


def says(status: int, **headers: str) -> Callable[[Sent, Got], Got]:
    """Whatever is asked, this status, and a page that is none of a hub."""
    return lambda _sent, _got: Got(status, b"<html>", {name.replace("_", "-"): v for name, v in headers.items()})


class Silence:
    """Answers nothing until it is broken."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()

    async def __call__(self, _sent: Sent, got: Got) -> Got:
        """Wait."""
        await self.broken.wait()
        return got


def cannot_tell(answer: Answer) -> bool:
    """Whether *answer* is the one that states nothing: 503, with a time after which to ask again."""
    return (answer.status, answer.json()["code"]) == (503, "UNAVAILABLE") and int(
        answer.header("retry-after") or 0
    ) >= 1


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effect", "seconds"), [(Effect.READ, 330), (Effect.WRITE, 90), (Effect.DELETE, 90), (Effect.ADMIN, 5)]
)
async def test_a_known_key_goes_on_for_as_long_as_the_effect_allows(effect: Effect, seconds: int) -> None:
    """Answered up to the bound, flagged as stale past the fresh window, and 503 from the bound on."""
    async with serving(Server()) as server:
        began = server.clock.now()[0]
        server.line.bend = refused
        server.at(seconds - 0.1, began)
        assert await server.status(effect) == 200
        decision = server.seen.decisions[-1]
        assert decision.stale == (seconds > 30)
        server.at(seconds + 0.1, began)
        assert cannot_tell(await server.ask(effect))
        assert server.red().keys() >= {"hub feed"}


@pytest.mark.parametrize("broken", [Freshness(stale_write_us=300 * SECOND_US), Freshness(stale_write_us=0)])
async def test_another_allowance_is_noticed(broken: Freshness) -> None:
    """With an allowance that is longer or shorter than the table says, the test above fails."""
    server = Server(freshness=broken)
    async with serving(server):
        began = server.clock.now()[0]
        server.line.bend = refused
        server.at(89.9, began)
        before = await server.status(Effect.WRITE)
        server.at(90.1, began)
        assert (before, await server.status(Effect.WRITE)) != (200, 503)


async def test_the_bound_in_force_is_shown() -> None:
    """In each decision and in health: 2 s while the feed is healthy, then by age, then with the allowance."""
    async with serving(Server()) as server:

        async def bound() -> int | None:
            await server.ask()
            shown = next(part.why for part in server.tenancy.health().parts if part.name == "keys")
            told = server.seen.decisions[-1].bound_us
            assert told is not None
            assert f"read {told / SECOND_US:g} s" in shown
            return told

        assert await bound() == 2 * SECOND_US
        server.line.bend = only("/changes", refused)
        server.clock.advance(6)
        assert await bound() == 30 * SECOND_US
        server.line.bend = refused
        server.clock.advance(30)
        assert await bound() == 330 * SECOND_US


@pytest.mark.parametrize(("effect", "seconds"), [(Effect.READ, 30), (Effect.WRITE, 30), (Effect.ADMIN, 5)])
async def test_with_a_dead_feed_a_revoked_key_counts_until_its_age_is_up(effect: Effect, seconds: int) -> None:
    """The hub answers everything but the feed: refused at that age, and never later."""
    async with serving(Server()) as server:
        began = server.clock.now()[0]
        server.line.bend = only("/changes", refused)
        server.service.revoke_key(key_id(server))
        await asyncio.sleep(0.01)
        server.at(min(seconds - 0.1, 20), began)
        assert await server.status(effect) == 200
        server.at(seconds + 0.1, began)
        assert await server.status(effect) == 401


def key_id(server: Server, key: str | None = None) -> KeyId:
    """The id of the server's key, or of *key*."""
    found = server.service.key_id_of((key or server.key).encode())
    assert found is not None
    return found


async def test_an_unknown_key_is_503_at_once_and_never_401() -> None:
    """Good and made-up keys alike; a thousand of them ask the dead hub once."""
    async with serving(Server()) as server:
        good = server.new_key(server.acme)
        server.line.bend = refused
        assert cannot_tell(await server.ask(key=good))
        mark = len(server.line.sent)
        assert {await server.status(key=f"hh_test_made_up_{number:020}") for number in range(1000)} == {503}
        assert server.sent_since(mark, "/access-keys/introspect") == 0
        server.line.bend = None
        server.clock.advance(60)
        assert await server.status(key=good) == 200
        assert await server.status(key="hh_test_made_up_00000000000000000000") == 401


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_tenant_is_503_at_once() -> None:
    """Though its key could be verified: what it may do and hold cannot be told."""
    async with serving(Server(own_keys=True)) as server:
        server.line.bend = refused
        assert cannot_tell(await server.ask(key=server.new_key(server.wired.other)))
        assert await server.status() == 200


async def test_a_known_tenant_goes_on_for_a_day_and_then_its_gauges_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changes for 24 h; after that nothing is stored any more, and everything else goes on."""
    for name, value in (("PAUSE_US", 10_000), ("GATHER_S", 0.01)):  # a second between two attempts, in a test
        monkeypatch.setattr(f"hivetenancy.limits.{name}", value)
    async with serving(Server(own_keys=True)) as server:
        began = server.clock.now()[0]
        server.line.bend = refused
        server.at(DAY_S - 60, began)
        assert [await server.status(effect) for effect in Effect] == [200] * 4
        server.at(DAY_S + 60, began)
        answers = {effect: await server.ask(effect) for effect in Effect}
        assert {effect: answer.status for effect, answer in answers.items()} == {
            **dict.fromkeys(Effect, 200),
            Effect.WRITE: 429,
        }
        problem = answers[Effect.WRITE].json()
        assert (problem["code"], problem["dimension"]) == ("QUOTA_EXCEEDED", "storage_bytes")
        server.line.bend = None
        server.clock.advance(60)
        async with asyncio.timeout(30):
            while await server.status(Effect.WRITE) != 200:  # noqa: ASYNC110 - the background work of another part
                await asyncio.sleep(0.01)


async def test_gauges_that_do_not_freeze_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that serves limits of any age in full lets a write pass that the test above refuses."""
    monkeypatch.setattr(CachedLimits, "_aged", lambda _self, entry, _age: entry.limits)
    async with serving(Server(own_keys=True)) as server:
        server.line.bend = refused
        server.clock.advance(DAY_S + 60)
        assert await server.status(Effect.WRITE) == 200


async def test_a_key_source_of_the_hosts_own_goes_on_in_an_outage_of_the_hub() -> None:
    """Keys that nobody has seen yet are verified, and the limits of their tenant enforced, past every allowance."""
    async with serving(Server(own_keys=True)) as server:
        server.line.bend = refused
        server.clock.advance(3600)
        assert await server.status(Effect.WRITE, server.new_key(server.acme)) == 200
        revoked = server.new_key(server.acme)
        server.service.revoke_key(key_id(server, revoked))
        assert await server.status(key=revoked) == 401


# --- usage ------------------------------------------------------------------------------------------------------------


async def test_usage_piles_up_and_is_delivered_once() -> None:
    """Through an outage, and through a report that was applied and whose reply was lost."""
    async with serving(Server()) as server:
        server.line.bend = refused
        for _ in range(3):
            assert await server.status(Effect.WRITE) == 200
            with pytest.raises(HubUnavailableError):
                await server.tenancy.flush()
        assert "usage" in server.red()
        server.clock.advance(40)

        def reply_lost(_sent: Sent, _got: Got) -> Got:
            raise httpx.ReadError("connection reset")

        server.line.bend = only("/synap/usage", reply_lost)
        with pytest.raises(HubUnavailableError) as lost:
            await server.tenancy.flush()
        assert lost.value.outcome_unknown
        server.line.bend = None
        await server.tenancy.flush()
        assert server.service.used(server.acme, "operations") == 3
        assert server.service.used(server.acme, "storage_bytes") == 3 * STORED
        assert "usage" not in server.red()


# --- the hub is back --------------------------------------------------------------------------------------------------


async def test_the_hub_comes_back_to_no_herd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred known keys that all come at once cost it one question, and none of them is made to wait for it."""
    monkeypatch.setattr("hivetenancy.access_keys.cached.RETRY_US", 10_000)  # likewise
    server = Server()
    keys = [server.new_key(server.acme) for _ in range(100)]
    async with serving(server):
        assert {await server.status(key=key) for key in keys} == {200}
        server.line.bend = refused
        server.clock.advance(40)
        assert {await server.status(key=key) for key in keys} == {200}
        await asyncio.sleep(0)
        server.line.bend = None
        server.clock.advance(4)  # past the pause of the breaker, within the evidence of the outage
        mark = len(server.line.sent)
        answers = await asyncio.gather(*(server.ask(key=key) for key in keys))
        assert {answer.status for answer in answers} == {200}
        async with asyncio.timeout(30):
            while server.tenancy._keys._failed_us is not None:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.01)
        assert server.sent_since(mark, "/access-keys/introspect") == 0
        assert 1 <= server.sent_since(mark, "/access-keys/introspect/batch") <= 2
        assert await server.status() == 200
        assert not server.seen.decisions[-1].stale


async def test_the_first_call_after_the_outage_is_the_only_one_until_it_was_answered() -> None:
    """Fifty strangers at once while the breaker is open: one question reaches the hub, the others are 503."""
    async with serving(Server()) as server:
        strangers = [server.new_key(server.acme) for _ in range(50)]
        breaker = server.hub._transport._breaker if server.hub._transport is not None else None
        assert isinstance(breaker, CircuitBreaker)
        server.line.bend = refused
        while breaker.state != "open":
            server.clock.advance(2)
            await server.ask(key=strangers[0])
        server.clock.advance(31)
        silence = Silence()
        server.line.bend = silence
        mark = len(server.line.sent)
        asked = [asyncio.create_task(server.ask(key=key)) for key in strangers]
        async with asyncio.timeout(30):
            while sum(task.done() for task in asked) < len(asked) - 1:  # noqa: ASYNC110 - all but the one that went out
                await asyncio.sleep(0.001)
        assert len(server.line.sent) - mark == 1
        silence.broken.set()
        server.line.bend = None
        answers = [await one for one in asked]
        assert all(answer.status == 200 or cannot_tell(answer) for answer in answers)


# --- restart ----------------------------------------------------------------------------------------------------------


async def test_a_restart_in_an_outage_without_a_state_file_is_refused() -> None:
    """Nothing is known, so nothing could be answered; the start says so and leaves nothing behind."""
    server = Server()
    server.line.bend = refused
    with pytest.raises(HubUnavailableError) as error:
        await server.tenancy.start()
    assert error.value.transient
    assert not server.tenancy.running


@pytest.mark.parametrize("own_keys", [False, True], ids=["keys of the hub", "own keys"])
async def test_a_restart_in_an_outage_with_a_state_file(own_keys: bool, tmp_path: Path) -> None:
    """It starts. Keys of the hub are 503 until they were verified; with keys of one's own, limits are enforced."""
    state = tmp_path / "state.db"
    first = Server(own_keys=own_keys, state=state)
    async with serving(first):
        assert await first.status(Effect.WRITE) == 200
    second = Server(first.wired, own_keys=own_keys, state=state)
    second.key = first.key
    second.line.bend = refused
    await second.tenancy.start()
    try:
        assert "hub" in second.red()
        if own_keys:
            assert await second.status(Effect.WRITE) == 200
            assert cannot_tell(await second.ask(key=second.new_key(second.wired.other)))
        else:
            assert cannot_tell(await second.ask(Effect.WRITE))
        second.line.bend = None
        second.clock.advance(60)
        assert await second.status(Effect.WRITE) == 200
    finally:
        second.line.bend = None
        second.clock.advance(60)
        await second.tenancy.stop()


# --- a hub that answers, and says nothing of use ----------------------------------------------------------------------


async def goes_on_as_in_an_outage(server: Server) -> None:
    """Known keys and tenants are served up to their bounds; strangers are told that it cannot be told."""
    began = server.clock.now()[0]
    assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
    server.at(89, began)
    assert [await server.status(effect) for effect in (Effect.READ, Effect.WRITE)] == [200, 200]
    server.at(91, began)
    assert [await server.status(effect) for effect in (Effect.READ, Effect.WRITE)] == [200, 503]
    server.at(331, began)
    assert await server.status() == 503


async def test_a_revoked_service_key_is_an_outage_and_red() -> None:
    """401 of the hub is about us, and never about a caller; a start with such a key waits for nothing."""
    async with serving(Server()) as server:
        server.service.revoke_service_key(server.wired.service_key.key_id)
        await goes_on_as_in_an_outage(server)
        with pytest.raises(HubUnavailableError, match="service key") as error:
            await server.hub.open()
        assert not error.value.transient
        assert "refused the service key (401)" in server.red()["hub"]
        late = Server(server.wired, wait_seconds=3600)
        with pytest.raises(HubUnavailableError, match="service key"):
            await late.tenancy.start()
        old = server.wired.service_key
        server.service.issue_service_key(secret=old.secret, identity=old.key_id)
        await server.hub.open()
        server.clock.advance(2)
        assert await server.status() == 200
        assert "hub" not in server.red()


async def test_a_wrong_address_is_an_outage_and_red() -> None:
    """404 for everything: what was announced is missing, so it is gone, and no key is refused for it."""
    async with serving(Server()) as server:
        server.line.bend = says(404)
        await goes_on_as_in_an_outage(server)
        with pytest.raises(HubUnavailableError):
            await server.hub.open()
        assert {"hub", "hub extensions"} <= server.red().keys()
        late = Server(server.wired, wait_seconds=3600)
        with pytest.raises(HubUnavailableError, match="no HiveHub") as error:
            await late.tenancy.start()
        assert not error.value.transient


async def test_another_hub_is_believed_in_nothing() -> None:
    """Known keys count for what is left of their 30 s, and nothing is stale for it: the hub is there, and is wrong."""
    async with serving(Server()) as server:
        other = HubService(clock=server.clock, authority="fake")
        here = from_app(hub_app(other))
        theirs = other.issue_service_key().secret

        async def elsewhere(sent: Sent) -> Got:
            got = here(Sent(sent.method, sent.target, {**sent.headers, "x-service-key": theirs}, sent.body))
            return await got if isinstance(got, Awaitable) else got

        began, server.line.answer = server.clock.now()[0], elsewhere
        with pytest.raises(HubUnavailableError, match="another hub answers"):
            await server.hub.open()
        assert "another hub answers" in server.red()["hub"]
        server.at(20, began)
        assert await server.status(Effect.WRITE) == 200
        assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
        server.at(31, began)
        assert cannot_tell(await server.ask())
        mark = len(server.line.sent)
        with pytest.raises(HubContractError, match="another hub answers"):
            await server.tenancy.flush()
        assert len(server.line.sent) == mark, "it was told something"
        server.line.answer = from_app(hub_app(server.service))
        await server.hub.open()
        server.clock.advance(2)
        assert await server.status() == 200
        await server.tenancy.flush()
        assert server.service.used(server.acme, "operations") == 1


async def test_an_earlier_epoch_is_believed_in_nothing() -> None:
    """A hub that was put back to a past: it knows less than we do, so nothing that it says counts."""
    async with serving(Server()) as server:
        server.line.bend = only("/extensions", lambda _sent, got: got.but(epoch=got.json["epoch"] - 1))
        with pytest.raises(HubUnavailableError, match="went back to epoch"):
            await server.hub.open()
        assert "went back to epoch" in server.red()["hub"]
        assert await server.status() == 200
        assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
        server.clock.advance(31)
        assert cannot_tell(await server.ask())
        server.line.bend = None
        await server.hub.open()
        server.clock.advance(2)
        assert await server.status() == 200


@pytest.mark.parametrize("status", [200, 418])
async def test_nonsense_is_believed_in_nothing(status: int) -> None:
    """It refuses nobody and grants nothing, and it is no proof that the hub is out of reach."""
    async with serving(Server()) as server:
        server.line.bend = says(status)
        server.clock.advance(25)
        assert await server.status() == 200
        assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
        server.clock.advance(6)
        assert cannot_tell(await server.ask())
        server.line.bend = None
        server.clock.advance(40)
        assert await server.status() == 200


async def test_a_redirect_is_followed_nowhere_and_refuses_nobody() -> None:
    """It fails as nonsense does until the breaker opens, then as a hub out of reach: never 401, never past 330 s."""
    async with serving(Server()) as server:
        began = server.clock.now()[0]
        server.line.bend = says(302, location="https://login.example/")
        mark = len(server.line.sent)
        for _ in range(20):
            server.clock.advance(3)
            assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
            assert await server.status() in (200, 503)
        assert "/" not in {sent.target for sent in server.line.sent[mark:]}, "it was followed"
        server.at(331, began)
        assert await server.status() == 503


async def test_an_extension_that_vanished_is_not_replaced_by_a_weaker_way() -> None:
    """Limits that X3 told are not put together from the calls of the service: what is known goes on, no more."""
    async with serving(Server()) as server:

        def without_limits(sent: Sent, got: Got) -> Got:
            if sent.path == "/extensions":
                return got.but(extensions=[name for name in got.json["extensions"] if name != "limits"])
            return Got(404, b"{}") if sent.path.endswith("/limits") else got

        server.line.bend = without_limits
        with pytest.raises(HubUnavailableError, match="missing now"):
            await server.hub.open()
        assert server.red()["hub extensions"] == "announced once and missing now: limits"
        mark = len(server.line.sent)
        server.clock.advance(3600)
        assert await server.status(Effect.WRITE) == 200
        assert cannot_tell(
            await server.ask(key=server.service.issue_key(server.wired.other, name="k", permissions=PERMISSIONS).secret)
        )
        asked = {sent.path for sent in server.line.sent[mark:]}
        assert not [path for path in asked if path.endswith(("/resources", "/quota"))]


async def test_a_state_file_of_another_hub_stops_the_start(tmp_path: Path) -> None:
    """What is on disk is of the hub that it was learnt from; no other one is asked about it."""
    first = Server(state=tmp_path / "state.db")
    async with serving(first):
        pass
    second = Server(state=tmp_path / "state.db")
    with pytest.raises((HubUnavailableError, ConfigurationError), match="another hub"):
        await second.tenancy.start()


async def test_a_hub_that_takes_its_time_holds_up_nobody_who_is_known() -> None:
    """A key in use is answered from memory, one that comes back waits for the deadline of one look-up, then not."""
    async with serving(Server()) as server:
        server.tenancy._keys._deadline = 0.05  # 2 s, in a test
        silence = Silence()
        server.line.bend = silence
        try:
            server.clock.advance(29)
            async with asyncio.timeout(30):  # without the deadline of a look-up it would wait for ever
                assert [await server.status(effect) for effect in (Effect.READ, Effect.WRITE)] == [200, 200]
                server.clock.advance(31)
                assert await server.status() == 200  # waited once
            assert server.seen.decisions[-1].stale
            waited = len(server.line.sent)
            for _ in range(100):
                assert await server.status() == 200
            assert server.sent_since(waited, "/access-keys/introspect") == 0
            assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
        finally:
            silence.broken.set()


async def test_a_throttle_is_no_verdict_and_opens_no_breaker() -> None:
    """429 with ``Retry-After`` is about us: known keys go on, strangers are 503, and the next call may go out."""
    async with serving(Server()) as server:
        server.line.bend = says(429, retry_after="7")
        for _ in range(10):
            server.clock.advance(2)
            assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
            assert await server.status(Effect.WRITE) == 200
        assert server.hub._transport is not None
        assert server.hub._transport.circuit == "closed"
        server.line.bend = None
        server.clock.advance(2)
        assert await server.status(key=server.new_key(server.acme)) == 200


async def test_a_hub_that_takes_no_more_questions_refuses_no_key() -> None:
    """429 without ``Retry-After`` says nothing about a key either: no caller is refused for it."""
    async with serving(Server()) as server:
        server.line.bend = says(429)
        assert cannot_tell(await server.ask(key=server.new_key(server.acme)))
        assert await server.status() == 200
