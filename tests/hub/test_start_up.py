"""What is verified before anything is served, what a restart remembers, and that health says how it is."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from hivetenancy import Tenancy, compose, workers
from hivetenancy import tenant as tenant_module
from hivetenancy.access_keys import Principal
from hivetenancy.authority.view import ALL_EXTENSIONS
from hivetenancy.clock import SECOND_US
from hivetenancy.compose import ClusterTenancy
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError, UnavailableError
from hivetenancy.gate import Admission, Caller
from hivetenancy.hub import client as client_module
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import Effect, Surface
from hivetenancy.sources import BatchAnswer, KeyAnswer
from hivetenancy.testing import FakeHiveHub, ManualClock

from .wired import SERVICE_KEY, Got, Line, Sent, Wired, client_on

pytestmark = pytest.mark.anyio

TODAY: tuple[str, ...] = ()
"""The extensions of today's wire."""


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test a process that never had a tenancy, locks of its own, and no patience."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(compose, "_WAIT_SECONDS", 0.002)
    monkeypatch.setattr(client_module, "CHECK_SECONDS", 0.002)
    monkeypatch.setattr(client_module, "RETRY_SECONDS", 0.002)
    yield
    assert workers._held == {}


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions of all sorts
            await asyncio.sleep(0.001)


def part(hub: HiveHub, name: str = "hub") -> Any:
    """One part of the health of a client."""
    return next(each for each in hub.parts() if each.name == name)


def unwell(tenancy: ClusterTenancy) -> set[str]:
    """The parts of a tenancy that are not well."""
    return {each.name for each in tenancy.health().parts if not each.ok}


class Keys:
    """A key source of a host's own, which knows the keys of a fake and tells of no changes."""

    def __init__(self, world: Wired) -> None:
        self.world = world
        self.asked = 0

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Say what one key is."""
        self.asked += 1
        return await self.world.service.introspect(credential)

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Say what several are."""
        self.asked += len(digests)
        return await self.world.service.introspect_batch(digests)


# --- the service key, the hub, the clock ------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [ALL_EXTENSIONS, TODAY], ids=["with extensions", "today's wire"])
async def test_the_service_key_is_proven(extensions: Sequence[str]) -> None:
    """A wrong one is found at start, with either wire, and is no outage that one could wait for."""
    world = Wired(extensions=extensions)
    hub = world.client(service_key=SERVICE_KEY, keys=Keys(world))
    with pytest.raises(HubUnavailableError, match="service key") as caught:
        await hub.open()
    assert not caught.value.transient
    assert not part(hub).ok
    assert "service key" in part(hub).why
    assert SERVICE_KEY not in part(hub).why + str(caught.value) + repr(hub)
    with pytest.raises(UnavailableError):
        await hub.limits(world.acme)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302, 200])
async def test_d15_start_fails_when_the_hub_does(status: int) -> None:
    """A check that could not fail let a server start over nothing; ours starts over a hub that said what it is."""
    hub = client_on(Line(lambda _sent: Got(status, b'{"error": "x"}')))
    tenancy = Tenancy.embedded(hub, allow_workers=True)
    with pytest.raises(UnavailableError):
        await tenancy.start()
    assert not tenancy.running
    assert not tenancy.health().ok
    assert "hub" in unwell(tenancy)


@pytest.mark.parametrize("status", [401, 403, 404, 503])
async def test_d32_a_hub_that_answers_401_or_404_was_green(status: int) -> None:
    """While it serves, every status that is no answer makes health red, says which, and goes away with its cause."""
    world = Wired()
    tenancy = Tenancy.embedded(world.hub, allow_workers=True)
    async with tenancy:
        await until(lambda: not unwell(tenancy))
        with world.bent(lambda _sent, _got: Got(status, b'{"error": "x"}')):
            await until(lambda: "hub" in unwell(tenancy))
            why = part(world.hub).why
            assert why
            assert str(status) in why or status == 404
        world.clock.advance(61)
        await until(lambda: not unwell(tenancy) - {"hub feed"})
        assert part(world.hub).ok


async def test_the_skew_of_the_clocks_is_measured() -> None:
    """From the middle of the question; beyond half a minute health is red, since counts would be of another period."""
    for seconds, well in ((0, True), (29, True), (-29, True), (31, False), (-31, False)):
        world = Wired()
        hub_clock = ManualClock()
        hub_clock.advance(1_000 + seconds)
        world.clock.advance(1_000)
        world.service._clock = hub_clock
        await world.hub.open()
        clock = part(world.hub, "hub clock")
        assert clock.ok is well
        assert f"{seconds:+.1f} s" in clock.why


async def test_a_slow_answer_is_no_skew() -> None:
    """Twenty seconds on the way are twenty seconds, and not a clock that is wrong by as much."""
    world = Wired()

    def slowly(_sent: Sent, got: Got) -> Got:
        world.clock.advance(20)
        return got

    with world.bent(slowly):
        await world.hub.open()
    assert part(world.hub, "hub clock").why == "-10.0 s from ours"


# --- what it can be used for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extensions", [TODAY, [name for name in ALL_EXTENSIONS if name != "introspection"]], ids=["today", "no X1"]
)
async def test_a_hub_that_cannot_tell_keys_is_refused(extensions: Sequence[str]) -> None:
    """With both remedies; and a header that names somebody is neither asked for nor believed."""
    world = Wired(extensions=extensions)
    tenancy = Tenancy.embedded(world.hub, allow_workers=True)
    with pytest.raises(ConfigurationError) as caught:
        await tenancy.start()
    for word in ("upgrade the hub", "keys=", "IntrospectionSource", "header"):
        assert word in str(caught.value)
    assert not tenancy.running
    with pytest.raises(UnavailableError):
        await world.hub.introspect(world.key)


@pytest.mark.parametrize(
    "extensions", [ALL_EXTENSIONS, [name for name in ALL_EXTENSIONS if name != "introspection"]], ids=["all", "no X1"]
)
async def test_a_key_source_of_the_hosts_own_is_accepted(extensions: Sequence[str]) -> None:
    """It is asked, and the hub never is about a key, even where it could tell."""
    world = Wired(extensions=extensions)
    keys = Keys(world)
    tenancy = Tenancy.embedded(world.client(keys=keys), allow_workers=True)
    async with tenancy:
        answer = await tenancy._keys.validate(world.key, effect=Effect.READ)
        assert isinstance(answer, Principal)
        assert await tenancy._limits.limits(world.acme, now=world.clock.now())
    assert keys.asked == 1
    assert not any("introspect" in sent.target for sent in world.line.sent)


async def test_a_service_key_of_another_service_is_refused() -> None:
    """The message names both services."""
    world = Wired(of="nexus")
    with pytest.raises(ConfigurationError, match=r"of nexus.*synap"):
        await world.hub.open()


async def test_the_service_is_that_of_the_key() -> None:
    """Where nothing states it; a key of all services does not say, and is refused with the choice."""
    world = Wired(of="vectorizer", service=None)
    await world.hub.open()
    await world.hub.limits(world.acme)
    assert world.line.sent[-1].path == f"/vectorizer/users/{world.acme}/limits"
    world = Wired(service=None)
    with pytest.raises(ConfigurationError, match=r"service=.*vectorizer, nexus, synap, lesstokens"):
        await world.hub.open()


@pytest.mark.parametrize("scope", ["introspect", "changes", "limits", "usage"])
async def test_a_scope_that_is_lacking_is_named(scope: str) -> None:
    """At start, not with the first request that needs it."""
    world = Wired()
    scopes = {"introspect", "changes", "limits", "usage"} - {scope}
    hub = world.client(service_key=world.service.issue_service_key("synap", scopes).secret)
    with pytest.raises(ConfigurationError, match=scope) as caught:
        await hub.open()
    assert not any(other in str(caught.value) for other in scopes)


async def test_a_scope_that_is_not_needed_is_not_asked_for() -> None:
    """With keys of the host's own, the service key need not introspect."""
    world = Wired()
    key = world.service.issue_service_key("synap", {"changes", "limits", "usage"}).secret
    await world.client(service_key=key, keys=Keys(world)).open()


@pytest.mark.parametrize("extensions", [ALL_EXTENSIONS, TODAY], ids=["it says so", "by its header alone"])
async def test_a_fake_is_refused(extensions: Sequence[str]) -> None:
    """By whatever it gives itself away, at the first word; nothing after that is asked."""
    world = Wired(extensions=extensions)
    hub = world.client(allow_fake=False, keys=Keys(world))
    tenancy = Tenancy.embedded(hub, allow_workers=True)
    with pytest.raises(ConfigurationError, match="fake"):
        await tenancy.start()
    assert len(world.line.sent) == 1


async def test_a_fake_that_hides_its_header_is_refused_by_its_word() -> None:
    """And one that hides its word, by its header, with each single call."""
    world = Wired()

    def hide_header(_sent: Sent, got: Got) -> Got:
        return Got(got.status, got.body, {n: v for n, v in got.headers.items() if n.lower() != "x-hivehub-authority"})

    def hide_word(sent: Sent, got: Got) -> Got:
        return got.but(authority="hivehub") if sent.path == "/extensions" else got

    for bend in (hide_header, hide_word):
        with world.bent(bend), pytest.raises(ConfigurationError, match="fake"):
            await world.client(allow_fake=False).open()

    def hide_both_once(sent: Sent, got: Got) -> Got:
        return hide_header(sent, hide_word(sent, got)) if sent.path == "/extensions" else got

    hub = world.client(allow_fake=False)
    with world.bent(hide_both_once):
        await hub.open()
        for call in (hub.introspect(world.key), hub.limits(world.acme), hub.lesstokens.check_limit(world.acme)):
            with pytest.raises(ConfigurationError, match="fake"):
                await call


def test_no_variable_lets_a_fake_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """`allow_fake` is code: neither a setting nor a variable of the environment does it."""
    monkeypatch.setenv("HIVETENANCY_ALLOW_FAKE", "1")
    environ = {"HIVETENANCY_HUB__URL": "https://hub.example", "HIVETENANCY_HUB__SERVICE_KEY": SERVICE_KEY}
    for name in ("HIVETENANCY_ALLOW_FAKE", "HIVETENANCY_HUB__ALLOW_FAKE"):
        try:
            tenancy = Tenancy.from_env(environ={**environ, name: "true", "HIVETENANCY_HUB__SERVICE": "synap"})
        except ConfigurationError as error:
            told = str(error)
            assert name in told
        else:
            assert isinstance(tenancy, ClusterTenancy)
            assert isinstance(tenancy.hub, HiveHub)
            assert not tenancy.hub._caller._allow_fake


@pytest.mark.parametrize(
    "drifted",
    [
        "[hub]\napi_base_url = 'https://hub.example'\n",
        "[hub]\nurl = 'https://hub.example'\ncache_ttl_secs = 60\n",
        "[hub]\nurl = 'https://hub.example'\nusage_report_interval_secs = 60\n",
        "[cluster]\nenabled = true\n",
    ],
)
def test_d46_a_setting_that_nobody_reads_was_accepted(tmp_path: Path, drifted: str) -> None:
    """Their own example file had names that the code did not know, and led to localhost; here it does not load."""
    path = tmp_path / "config-cluster.toml"
    path.write_text(drifted)
    path.chmod(0o600)
    unknown = drifted.split("\n")[-2].split(" ")[0].strip("[]")
    with pytest.raises(ConfigurationError) as caught:
        Tenancy.from_env(file=path, environ={"HIVETENANCY_HUB__SERVICE_KEY": SERVICE_KEY})
    assert str(path) in str(caught.value)
    assert unknown in str(caught.value) or "cluster" in str(caught.value)


def test_d46_there_is_no_hub_by_default() -> None:
    """A cluster without a URL is refused by name: there is no localhost to fall back to."""
    with pytest.raises(ConfigurationError, match="url"):
        Tenancy.from_env(environ={"HIVETENANCY_HUB__SERVICE_KEY": SERVICE_KEY, "HIVETENANCY_MODE": "cluster"})
    with pytest.raises(TypeError):
        HiveHub(service_key=SERVICE_KEY)  # type: ignore[call-arg]


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_start_can_wait_for_the_hub() -> None:
    """It goes on as soon as the hub is there, and gives up when its time is over."""
    world = Wired(retries=0)
    tenancy = Tenancy.embedded(world.hub, allow_workers=True, wait_seconds=300)
    async with AsyncExitStack() as life:
        with world.down():
            starting = asyncio.create_task(tenancy.start())
            await until(lambda: len(world.line.sent) >= 3)
            assert not tenancy.running
            assert not starting.done()
            world.clock.advance(31)
        await asyncio.wait_for(starting, 10)
        life.push_async_callback(tenancy.stop)
        assert not unwell(tenancy) - {"hub feed"}
    with world.down():
        starting = asyncio.create_task(tenancy.start())
        asked = len(world.line.sent)
        await until(lambda: len(world.line.sent) > asked)
        world.clock.advance(301)
        with pytest.raises(HubUnavailableError):
            await asyncio.wait_for(starting, 10)
    assert not tenancy.running


async def test_nobody_waits_for_what_time_does_not_mend() -> None:
    """A refused service key, a fake, a hub without keys: at once, whatever `wait_seconds` says."""
    world = Wired()
    for hub in (world.client(service_key=SERVICE_KEY), world.client(allow_fake=False), Wired(extensions=TODAY).hub):
        tenancy = Tenancy.embedded(hub, allow_workers=True, wait_seconds=300)
        with pytest.raises((ConfigurationError, HubUnavailableError)):
            await asyncio.wait_for(tenancy.start(), 5)


# --- a restart --------------------------------------------------------------------------------------------------------


class Node:
    """A server with a state file, which is started again and again."""

    def __init__(self, world: Wired, path: Path) -> None:
        self.world = world
        self.path = path

    def tenancy(self, **options: Any) -> ClusterTenancy:
        """A new process, as far as it goes."""
        tenancy = Tenancy.embedded(self.world.client(**options), allow_workers=True, state=self.path)
        tenancy._feed._wait_seconds = 0  # a poll of real time is no test
        self.set = tenancy.functions.declare("kv.set", effect="write", demand={"operations": 1})
        return tenancy

    async def serve(self, tenancy: ClusterTenancy, key: bytes | None = None) -> Admission | Refusal:
        """Serve one request."""
        gate = tenancy.gate
        caller = await gate.authenticate(self.world.key if key is None else key, now=gate.now())
        if not isinstance(caller, Caller):
            return caller
        admission = await gate.admit(caller, self.set, surface=Surface.HTTP, now=gate.now())
        if isinstance(admission, Admission):
            admission.settle(succeeded=True)
            admission.close()
        return admission


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node that has never run."""
    return Node(Wired(), tmp_path / "state.db")


async def test_a_restart_in_an_outage_serves_nobody_by_a_kept_digest(node: Node) -> None:
    """It starts, says that it is not well, answers 503 and never 401; and all is well when the hub is back."""
    async with node.tenancy() as tenancy:
        assert isinstance(await node.serve(tenancy), Admission)
    with node.world.down():
        again = node.tenancy()
        await again.start()
        with pytest.raises(UnavailableError):
            await node.serve(again)
        assert "hub" in unwell(again)
        waiting = next(each.why for each in again.health().parts if "yet to be verified" in each.why)
        assert "1 keys" in waiting
        node.world.clock.advance(61)
    try:
        node.world.clock.advance(61)
        await until(lambda: not unwell(again) - {"hub feed"})
        await again._feed.poll_once()
        assert isinstance(await node.serve(again), Admission)
    finally:
        await again.stop()


async def test_a_restart_in_an_outage_enforces_limits_for_keys_of_the_hosts_own(node: Node) -> None:
    """The host tells keys itself: known tenants are served by the limits that were kept, unknown ones are 503."""
    world = node.world
    limit = world.service.set_limit(world.acme, "operations", 3)
    assert limit
    keys = Keys(world)
    stranger = world.service.issue_key(world.other, name="k", permissions=["read", "write"]).secret.encode()
    async with node.tenancy(keys=keys) as tenancy:
        assert isinstance(await node.serve(tenancy), Admission)
    with world.down():
        again = node.tenancy(keys=keys)
        await again.start()
        try:
            answers = [await node.serve(again) for _ in range(4)]
            admitted = [isinstance(answer, Admission) for answer in answers]
            assert admitted in ([True, True, False, False], [True, True, True, False])
            assert isinstance(answers[-1], Refusal)
            assert answers[-1].reason is Reason.QUOTA_EXCEEDED
            with pytest.raises(UnavailableError):
                await node.serve(again, stranger)
        finally:
            world.clock.advance(61)
            again._reporter._interval_s = 0.01
    await again.stop()


async def test_digests_are_verified_by_batch_before_any_is_accepted(node: Node) -> None:
    """After a restart one question about all of them comes before the first acceptance; a dead one stays dead."""
    world = node.world
    doomed = world.service.issue_key(world.acme, name="doomed", permissions=["read", "write"])
    async with node.tenancy() as tenancy:
        assert isinstance(await node.serve(tenancy), Admission)
        assert isinstance(await node.serve(tenancy, doomed.secret.encode()), Admission)
    world.service.revoke_key(doomed.key_id)
    world.line.sent.clear()
    async with node.tenancy() as again:
        await until(lambda: not again._keys.recalled and len(again._keys) == 1)
        asked = [sent for sent in world.line.sent if "introspect" in sent.target]
        assert [sent.path for sent in asked] == ["/access-keys/introspect/batch"]
        assert len(json.loads(asked[0].body)["digests"]) == 2
        assert isinstance(await node.serve(again), Admission)
        refused = await node.serve(again, doomed.secret.encode())
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.REVOKED_KEY


async def test_the_state_of_another_hub_is_refused(node: Node) -> None:
    """With both names and no waiting: its tenants are not ours, and nothing of the file is forgotten."""
    async with node.tenancy() as tenancy:
        assert isinstance(await node.serve(tenancy), Admission)
    stranger = Wired()
    hub = client_on(stranger.line, **stranger.options)
    other = Tenancy.embedded(hub, allow_workers=True, state=node.path, wait_seconds=300)
    with pytest.raises((HubUnavailableError, ConfigurationError)) as caught:
        await asyncio.wait_for(other.start(), 5)
    assert stranger.service.hub_id in str(caught.value)
    assert node.world.service.hub_id in str(caught.value)
    async with node.tenancy() as again:
        assert isinstance(await node.serve(again), Admission)


async def test_an_extension_that_was_announced_before_the_restart_is_missed(node: Node) -> None:
    """What was announced once is remembered over restarts: a hub without it is an outage, not another hub."""
    async with node.tenancy():
        pass
    node.world.service.set_extensions(TODAY)
    hub = node.world.client()
    again = Tenancy.embedded(hub, allow_workers=True, state=node.path)
    await again.start()
    try:
        assert "hub" in unwell(again)
        with pytest.raises(UnavailableError):
            await again._keys.validate(node.world.key, effect=Effect.READ)
    finally:
        await again.stop()


async def test_a_smaller_epoch_after_a_restart_is_not_believed(node: Node) -> None:
    """The epoch is kept: a hub that was put back while nothing ran is found out all the same."""
    node.world.service.start_epoch()
    async with node.tenancy():
        pass
    tenancy = node.tenancy()
    with node.world.bent(lambda _sent, got: got.but(epoch=1)):
        with pytest.raises(HubUnavailableError, match="went back"):
            await tenancy.start()


@pytest.mark.parametrize(
    "before", [TODAY, [name for name in ALL_EXTENSIONS if name != "limits"]], ids=["today", "no X3"]
)
async def test_a_hub_that_is_upgraded_while_it_is_used(before: Sequence[str], tmp_path: Path) -> None:
    """It may say more than it did; how questions are asked stays as it was, and they are answered."""
    world = Wired(extensions=before)
    tenancy = Tenancy.embedded(world.client(keys=Keys(world), synap_usage="absolute"), allow_workers=True)
    async with tenancy:
        assert await tenancy._limits.limits(world.acme, now=world.clock.now())
        world.service.set_extensions(ALL_EXTENSIONS)
        hub = tenancy.hub
        assert isinstance(hub, HiveHub)
        await until(lambda: "limits" in hub.announced)
        world.clock.advance(1_000)
        await until(lambda: "hub" not in unwell(tenancy))
        assert await tenancy._limits.limits(world.acme, now=world.clock.now())
        assert await tenancy._limits.limits(world.other, now=world.clock.now()), "nobody knew it before"
        assert not any(sent.path.endswith("/limits") for sent in world.line.sent)
        assert hub.hub_id == world.service.hub_id


# --- what went wrong there --------------------------------------------------------------------------------------------


async def test_d10_a_hub_that_failed_made_everybody_unlimited(node: Node) -> None:
    """Nobody unknown is admitted during an outage, nobody known beyond the limit, and no error is kept as an answer."""
    world = node.world
    world.service.set_limit(world.acme, "operations", 2)
    keys = Keys(world)
    async with node.tenancy(keys=keys) as tenancy:
        with world.bent(lambda _sent, _got: Got(500, b"{}")):
            for _ in range(5):
                with pytest.raises(UnavailableError):
                    await node.serve(tenancy)
        world.clock.advance(61)
        answers = [await node.serve(tenancy) for _ in range(3)]
        assert [isinstance(answer, Admission) for answer in answers] == [True, True, False]
        with world.bent(lambda _sent, _got: Got(500, b"{}")):
            world.clock.advance(3_600)
            refused = await node.serve(tenancy)
            assert isinstance(refused, Refusal)
            assert refused.reason is Reason.QUOTA_EXCEEDED
        world.clock.advance(61)


async def test_d41_a_refresh_overwrote_what_was_not_reported(node: Node) -> None:
    """Limits that are fetched again over the wire leave out our own share, so nothing is forgotten or counted twice."""
    world = node.world
    world.service.set_limit(world.acme, "operations", 5)
    async with node.tenancy() as tenancy:
        for served in range(5):
            assert isinstance(await node.serve(tenancy), Admission), served
            if served == 2:
                assert await tenancy.flush() == 1
            world.clock.advance(40)  # past the freshness of the limits
            await tenancy._feed.poll_once()
        refused = await node.serve(tenancy)
        assert isinstance(refused, Refusal)
        assert refused.used == 5
        await tenancy.flush()
        assert world.service.used(world.acme, "operations") == 5


async def test_d41_a_busy_tenant_never_saw_its_new_limit(node: Node) -> None:
    """Age counts from the question and never from use, and the feed says so at once."""
    world = node.world
    world.service.set_limit(world.acme, "operations", 2)
    async with node.tenancy() as tenancy:
        answers = [await node.serve(tenancy) for _ in range(3)]
        assert [isinstance(answer, Admission) for answer in answers] == [True, True, False]
        world.service.set_limit(world.acme, "operations", 3)
        assert await tenancy._feed.poll_once()
        assert isinstance(await node.serve(tenancy), Admission)
        assert isinstance(await node.serve(tenancy), Refusal)


async def test_d41_a_monthly_count_never_rolled_over(node: Node) -> None:
    """A new month is a new cell, at the hub and here, without anybody asking."""
    world = node.world
    world.service.set_limit(world.acme, "operations", 1)
    async with node.tenancy() as tenancy:
        assert isinstance(await node.serve(tenancy), Admission)
        refused = await node.serve(tenancy)
        assert isinstance(refused, Refusal)
        assert refused.resets_at_us
        world.clock.advance((refused.resets_at_us - world.clock.now()[1]) / SECOND_US + 1)
        await tenancy._feed.poll_once()
        assert isinstance(await node.serve(tenancy), Admission)


async def test_d30_cluster_mode_refused_everybody() -> None:
    """Turned on by its settings alone, a valid key is admitted and any other is not."""
    world = Wired()
    async with Tenancy.embedded(world.hub, allow_workers=True) as tenancy:
        assert isinstance(await tenancy._keys.validate(world.key, effect=Effect.READ), Principal)
        unknown = await tenancy._keys.validate(b"hh_test_" + b"x" * 40, effect=Effect.READ)
        assert isinstance(unknown, Refusal)


# --- opening and closing ----------------------------------------------------------------------------------------------


async def test_a_hub_that_was_closed_can_be_opened_again() -> None:
    """As a tenancy is that is stopped and started; the client that was handed in stays open."""
    world = Wired()
    async with Tenancy.embedded(world.hub, allow_workers=True) as tenancy:
        await tenancy._keys.validate(world.key, effect=Effect.READ)
    async with tenancy:
        await tenancy._keys.validate(world.key, effect=Effect.WRITE)
        assert not unwell(tenancy)


async def test_nothing_is_answered_before_it_is_opened() -> None:
    """Each of the four says that it cannot tell, and nothing is sent."""
    world = Wired()
    for call in (world.hub.introspect(world.key), world.hub.changes(None), world.hub.limits(world.acme)):
        with pytest.raises(HubUnavailableError):
            await call
    assert world.line.sent == []
    assert not part(world.hub).ok


async def test_a_client_of_the_hosts_own_that_is_closed_is_named() -> None:
    """An error of ours, not one of the HTTP library."""
    world = Wired()
    client = httpx.AsyncClient(transport=world.line)
    hub = HiveHub("http://127.0.0.1:1", world.service_key.secret, service="synap", http=client, allow_fake=True)
    await client.aclose()
    with pytest.raises(Exception, match="closed") as caught:
        await hub.open()
    assert type(caught.value).__module__.startswith("hivetenancy")


async def test_the_fake_in_process_needs_no_verification() -> None:
    """A control plane in this process has nothing to open, and starts at once."""
    async with Tenancy.embedded(FakeHiveHub(), allow_workers=True) as tenancy:
        assert not unwell(tenancy)


def test_errors_of_start_are_told_apart() -> None:
    """Configuration is for an operator, unavailability for time; neither is the other."""
    assert not issubclass(HubUnavailableError, ConfigurationError)
    assert not issubclass(HubContractError, UnavailableError)
