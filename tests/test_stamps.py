"""Stamps: what they carry, and where they are worth nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import pickle
import random
import string
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from hivetenancy import stamps as stamps_module
from hivetenancy.clock import SECOND_US, Instant
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.context import TenantContext, bound
from hivetenancy.decision import Reason
from hivetenancy.errors import (
    ConfigurationError,
    HubUnavailableError,
    MisuseError,
    UnauthenticatedError,
    UnavailableError,
)
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.lifecycle.protocol import Standing, State
from hivetenancy.stamps import MAX_STAMP_CHARACTERS, SKEW_US, ClusterSecret, StampPress, TenantStamp
from hivetenancy.tenant import Tenant
from hivetenancy.testing import FakeHiveHub, ManualClock
from tests import tenants
from tests.tenants import Sink, a_process, who
from tests.tiers import examples

pytestmark = pytest.mark.anyio

SECRET = bytes(range(64))
NOW: Instant = (5 * SECOND_US, 4_102_444_800 * SECOND_US)
ACME = TenantContext(tenant_id=TenantId("acme"), key_id=KeyId("k1"), generation=3)
PRESS = StampPress(ClusterSecret(SECRET).derive("stamps"))


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


def later(seconds: float) -> Instant:
    """The instant so many seconds after the stamps below were made."""
    return NOW[0] + round(seconds * SECOND_US), NOW[1] + round(seconds * SECOND_US)


# --- the text ---------------------------------------------------------------------------------------------------------


def test_a_stamp_round_trips() -> None:
    """Everything that was stated is read again, as text and as bytes, and the token is fit for a header."""
    for context in (ACME, TenantContext(tenant_id=TenantId('Ünïcode "x".y/'), key_id=None, generation=0)):
        stamp = PRESS.issue(context, purpose="reindex:v1", seconds=60, now=NOW)
        assert PRESS.read(stamp.token, purpose="reindex:v1", now=NOW) == stamp
        assert PRESS.read(stamp.token.encode(), purpose="reindex:v1", now=later(59.999999)) == stamp
        assert set(stamp.token) <= set(string.ascii_letters + string.digits + "-_.")
        assert (stamp.tenant_id, stamp.key_id, stamp.generation) == (
            context.tenant_id,
            context.key_id,
            context.generation,
        )
        assert (stamp.purpose, stamp.issued_us, stamp.expires_us) == ("reindex:v1", NOW[1], later(60)[1])


def test_a_stamp_is_shown_nowhere() -> None:
    """No repr of a stamp, press or secret holds what would let somebody act."""
    stamp = PRESS.issue(ACME, purpose="p", seconds=1, now=NOW)
    assert stamp.token not in repr(stamp)
    assert stamp.token.rpartition(".")[2] not in f"{stamp} {PRESS!r} {vars(type(stamp))!r}"
    assert repr(ClusterSecret(SECRET)) == "<ClusterSecret, shared>"
    assert repr(ClusterSecret()) == "<ClusterSecret, of this process>"
    for secret in (PRESS, ClusterSecret(SECRET)):
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps(secret)


CHANGES = ("other secret", "other purpose", "expired", "not yet", "a changed bit", "another mac", "an older version")


def refused(press: StampPress, change: str, purpose: str = "reindex") -> list[Any]:
    """What *press* says of stamps that are worth nothing because of *change*."""
    stamp = PRESS.issue(ACME, purpose="reindex", seconds=60, now=NOW)
    token, now = stamp.token, later(1)
    match change:
        case "other secret":
            tokens = [
                StampPress(ClusterSecret().derive("stamps")).issue(ACME, purpose="reindex", seconds=60, now=NOW).token
            ]
            tokens.append(
                StampPress(ClusterSecret(SECRET).derive("names"))
                .issue(ACME, purpose=purpose, seconds=60, now=NOW)
                .token
            )
        case "other purpose":
            tokens = [
                PRESS.issue(ACME, purpose=other, seconds=60, now=NOW).token for other in ("reindex2", "r", "reinde")
            ]
        case "expired":
            tokens, now = [token], later(60)
        case "not yet":
            tokens, now = [token], (NOW[0], NOW[1] - SKEW_US - 1)
        case "a changed bit":
            tokens = [
                token[:at] + chr(ord(token[at]) ^ 1 << bit) + token[at + 1 :]
                for at in range(len(token))
                for bit in range(7)
            ]
        case "another mac":
            body = token.rpartition(".")[0]
            tokens = [
                f"{body}.",
                body,
                f"{body}.{'A' * 43}",
                f"{body}.{token.rpartition('.')[2]}=",
                f"{token} ",
                f" {token}",
            ]
        case _:
            tokens = [token.replace("hvt1", "hvt0"), token.replace("hvt1.", "")]
    return [press.read(each, purpose=purpose, now=now) for each in tokens]


@pytest.mark.parametrize("change", CHANGES)
def test_a31_a_stamp_is_worth_nothing_elsewhere(change: str) -> None:
    """Another secret, another purpose, before or after its time, any one changed bit: no stamp."""
    answers = refused(PRESS, change)
    assert answers
    assert all(isinstance(answer, Reason) for answer in answers)


def test_the_clock_of_the_other_node_may_be_a_little_ahead() -> None:
    """A stamp that was made a moment in the future counts; a moment more, and it does not."""
    stamp = PRESS.issue(ACME, purpose="p", seconds=60, now=NOW)
    assert PRESS.read(stamp.token, purpose="p", now=(0, NOW[1] - SKEW_US)) == stamp
    assert PRESS.read(stamp.token, purpose="p", now=(0, NOW[1] - SKEW_US - 1)) is Reason.KEY_NOT_YET_VALID
    assert PRESS.read(stamp.token, purpose="p", now=later(60)) is Reason.EXPIRED_KEY


class WithoutPurpose(StampPress):
    """A press that forgets what for."""

    def read(self, token: object, *, purpose: str, now: Instant) -> TenantStamp | Reason:
        found = super().read(token, purpose="reindex", now=now)
        return super().read(token, purpose="reindex2", now=now) if isinstance(found, Reason) else found


class WithoutTime(StampPress):
    """A press without a clock."""

    def read(self, token: object, *, purpose: str, now: Instant) -> TenantStamp | Reason:
        return super().read(token, purpose=purpose, now=later(1))


class OneKey(StampPress):
    """A press whose key is the same everywhere."""

    def __init__(self, key: bytes) -> None:
        super().__init__(b"the same everywhere")


def test_the_checks_find_presses_that_leave_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the rows above fails for a press without that defence."""
    stamp = PRESS.issue(ACME, purpose="reindex", seconds=60, now=NOW)
    key = ClusterSecret(SECRET).derive("stamps")
    assert any(isinstance(answer, TenantStamp) for answer in refused(WithoutPurpose(key), "other purpose"))
    assert isinstance(refused(WithoutTime(key), "expired")[0], TenantStamp)
    assert isinstance(refused(WithoutTime(key), "not yet")[0], TenantStamp)
    everywhere = OneKey(b"")
    assert everywhere.read(OneKey(b"x").issue(ACME, purpose="p", seconds=1, now=NOW).token, purpose="p", now=NOW)
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: True)
    assert any(isinstance(answer, TenantStamp) for answer in refused(PRESS, "a changed bit"))
    assert any(isinstance(answer, TenantStamp) for answer in refused(PRESS, "other secret"))
    assert isinstance(PRESS.read(stamp.token, purpose="reindex", now=NOW), TenantStamp)


def test_the_mac_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one comparison of a MAC is the library function that takes the same time for every answer."""
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(stamps_module.hmac, "compare_digest", compare)
    PRESS.read(PRESS.issue(ACME, purpose="p", seconds=1, now=NOW).token, purpose="p", now=NOW)
    assert PRESS.read("hvt1.x.y", purpose="p", now=NOW) is Reason.UNKNOWN_KEY
    assert [len(one) for one, _ in compared] == [43, 43]


MALFORMED: list[Any] = [
    None,
    7,
    "",
    b"",
    "x" * (MAX_STAMP_CHARACTERS + 1),
    "é",
    "\0",
    ["hvt1"],
    b"\xff",
    "hvt1",
    ".",
    "..",
]


@pytest.mark.parametrize("token", MALFORMED, ids=repr)
def test_whatever_comes_is_answered(token: Any) -> None:
    """Anything at all is no stamp, and no error."""
    assert isinstance(PRESS.read(token, purpose="p", now=NOW), Reason)


def test_random_texts_are_no_stamps() -> None:
    """Nor are random ones, and real ones with pieces of others in them."""
    source = random.Random(5)
    real = [PRESS.issue(ACME, purpose="p", seconds=60, now=later(number)).token for number in range(5)]
    for _ in range(examples(300, 30_000)):
        one, other = source.choice(real), source.choice(real)
        cut = source.randrange(len(one))
        mixed = one[:cut] + other[cut:]
        noise = "".join(source.choices(string.printable, k=source.randrange(80)))
        assert mixed in real or isinstance(PRESS.read(mixed, purpose="p", now=later(10)), Reason)
        assert isinstance(PRESS.read(noise, purpose="p", now=NOW), Reason)


def forged(values: object) -> str:
    """A token with a right MAC and *values*, as another version with our secret might make it."""
    body = "hvt1." + base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()
    return f"{body}.{PRESS._mac(body)}"


PAYLOADS: list[Any] = [
    [],
    {},
    7,
    None,
    "abcdef",
    ["acme", 1, None, "p", 0],
    ["acme", "1", None, "p", 0, 9],
    ["acme", True, None, "p", 0, 9],
    ["acme", 1, None, "p", 0.5, 9],
    [None, 1, None, "p", 0, 9],
    ["acme", 1, 7, "p", 0, 9],
    ["acme", 1, None, None, 0, 9],
    ["acme", 1, None, "p", 0, 9, "more"],
]


@pytest.mark.parametrize("values", PAYLOADS, ids=repr)
def test_a_payload_that_this_version_does_not_write_is_refused(values: Any) -> None:
    """A right MAC alone makes no stamp."""
    assert PRESS.read(forged(values), purpose="p", now=NOW) is Reason.MALFORMED_CREDENTIAL
    good = ["acme", 1, None, "p", NOW[1], NOW[1] + 9]
    assert isinstance(PRESS.read(forged(good), purpose="p", now=NOW), TenantStamp)


@pytest.mark.parametrize("purpose", ["", "P", "a b", "-a", "x" * 65, "a\n", "é", None, b"p"])
def test_a_purpose_that_can_be_none(purpose: Any) -> None:
    """It is refused where it is stated, with the rule."""
    with pytest.raises(ValueError, match="a purpose is 1 to 64"):
        PRESS.issue(ACME, purpose=purpose, seconds=1, now=NOW)


@pytest.mark.parametrize("seconds", [0, -1, 30 * 86_400 + 1, float("inf"), float("nan"), 1e-9])
def test_a_stamp_that_lasts_too_long_or_not_at_all(seconds: float) -> None:
    """Above 0 and at most 30 days."""
    with pytest.raises(ValueError, match="a stamp lasts"):
        PRESS.issue(ACME, purpose="p", seconds=seconds, now=NOW)
    PRESS.issue(ACME, purpose="p", seconds=30 * 86_400, now=NOW)


def test_ids_that_are_too_long_for_a_stamp() -> None:
    """They are refused when the stamp is made, not when it is read."""
    context = TenantContext(tenant_id=TenantId("x" * 800), key_id=None, generation=1)
    with pytest.raises(ValueError, match="too long for a stamp"):
        PRESS.issue(context, purpose="p", seconds=1, now=NOW)


# --- the secret -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [b"", b"x" * 31, "x" * 64, bytearray(64), 64])
def test_a_secret_that_is_none(root: Any) -> None:
    """At least 32 bytes, and bytes; the message does not show it."""
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        ClusterSecret(root)
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        ClusterTenancy(FakeHiveHub(), secret=root)


def test_each_purpose_has_a_subkey_of_its_own() -> None:
    """Same secret and purpose, same key; everything else differs, a longer secret's last byte too."""
    keys = [ClusterSecret(root).derive(purpose) for root in (SECRET, SECRET + b"x", SECRET[:32]) for purpose in "ab"]
    assert len(set(keys)) == 6
    assert {len(key) for key in keys} == {32}
    assert ClusterSecret(SECRET).derive("a") == keys[0]
    assert ClusterSecret().derive("a") != ClusterSecret().derive("a")
    assert SECRET not in keys
    assert hashlib.blake2b(SECRET).digest() not in keys


# --- acting for whom a stamp names ------------------------------------------------------------------------------------


class Nodes:
    """Two nodes of one cluster, on one hub, and one that is somebody else's."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.hub = FakeHiveHub(clock=self.clock)
        self.tenants = [self.hub.add_tenant(name) for name in ("acme", "beta")]
        self.sink = Sink()
        self.here = self.node(SECRET)
        self.there = self.node(SECRET)
        self.foreign = self.node(SECRET[::-1])

    def node(self, secret: bytes | None, **options: Any) -> ClusterTenancy:
        """A node."""
        return Tenancy.embedded(
            self.hub, clock=self.clock, audit=self.sink, secret=secret, allow_workers=True, **options
        )

    def handle(self, node: ClusterTenancy, number: int = 0) -> Tenant:
        """A tenant's handle on *node*, as a request would have it."""
        life = node.gate.fence.life(self.tenants[number].id)
        context = TenantContext(tenant_id=self.tenants[number].id, key_id=KeyId("k"), generation=life.generation)
        return Tenant(context, node.gate._names.for_tenant(context), node.gate, life)

    def stamp(self, number: int = 0, purpose: str = "reindex") -> str:
        """A stamp that `here` made."""
        return self.here.stamp(self.handle(self.here, number), purpose=purpose, seconds=60).token


@asynccontextmanager
async def nodes() -> AsyncIterator[Nodes]:
    """Run all three."""
    made = Nodes()
    async with made.here, made.there, made.foreign:
        yield made


async def act(node: ClusterTenancy, stamp: Any, *, purpose: str = "reindex") -> str:
    """Who works on *node*; awaits in between."""
    async with node.act_for(stamp, purpose=purpose) as tenant:
        await asyncio.sleep(0)
        assert tenant.id == who()
        assert tenant.kv.key("a").endswith(f"{tenant.id}:a")  # type: ignore[attr-defined]
        return who()


async def test_a31_a_stamp_acts_on_every_node_of_its_cluster() -> None:
    """On both nodes, as stamp, text and bytes, with its tenant bound inside and nobody outside."""
    async with nodes() as made:
        for number, tenant in enumerate(made.tenants):
            stamp = made.stamp(number)
            for node in (made.here, made.there):
                for form in (
                    stamp,
                    stamp.encode(),
                    made.here._press.read(stamp, purpose="reindex", now=made.clock.now()),
                ):
                    assert await act(node, form) == tenant.id
                    assert who() == "nobody"
        assert made.sink.events == []


async def test_a31_jobs_of_many_tenants_by_one_worker() -> None:
    """A worker without a tenant takes stamped jobs of all of them at the same time, and no job without a stamp."""
    async with nodes() as made:
        jobs = [(number % 2, made.stamp(number % 2)) for number in range(examples(50, 5_000))]
        answers = await asyncio.gather(*(act(made.there, stamp) for _, stamp in jobs))
        assert answers == [made.tenants[number].id for number, _ in jobs]
        for claim in (made.tenants[0].id, "", None, "hvt1.."):
            with pytest.raises(UnauthenticatedError, match="no valid stamp"):
                await act(made.there, claim)


async def test_a46_a_stamp_of_another_cluster_or_purpose_is_refused_and_audited() -> None:
    """One message for all reasons; the audit has one event each, with a tenant only where the stamp was a right one."""
    async with nodes() as made:
        stamp = made.stamp()
        for node, purpose, token in (
            (made.foreign, "reindex", stamp),
            (made.there, "export", stamp),
            (made.there, "reindex", stamp[:-1]),
        ):
            with pytest.raises(UnauthenticatedError, match=r"^no valid stamp$"):
                await act(node, token, purpose=purpose)
            assert who() == "nobody"
        made.clock.advance(seconds=60)
        with pytest.raises(UnauthenticatedError, match=r"^no valid stamp$"):
            await act(made.there, stamp)
        reasons = [event.reason for event in made.sink.events]
        assert reasons == [Reason.UNKNOWN_KEY] * 3 + [Reason.EXPIRED_KEY]
        assert {event.tenant for event in made.sink.events} == {None}


async def test_a38_a50_a_stamp_ends_with_its_tenant() -> None:
    """Suspended by the hub, fenced off here, deleted and made again: the stamp counts for nothing any more."""
    async with nodes() as made:
        stamp, beta = made.stamp(), made.stamp(1)
        fence, tenant = made.there.gate.fence, made.tenants[0].id
        for standing, reason in (
            (Standing(State.BLOCKED, 1), Reason.SUSPENDED_TENANT),
            (Standing(State.DELETING, 1), Reason.SUSPENDED_TENANT),
            (Standing(State.DELETED, 1), Reason.SUSPENDED_TENANT),
            (Standing(State.ACTIVE, 2), Reason.REVOKED_KEY),
        ):
            fence.put(tenant, standing)
            with pytest.raises(UnauthenticatedError) as caught:
                await act(made.there, stamp)
            assert caught.value.refusal.reason is reason
            assert made.sink.events[-1].tenant == tenant
            assert await act(made.there, beta) == made.tenants[1].id
        made.tenants[1].suspend()
        for _ in range(20):
            await asyncio.sleep(0.001)  # the change comes through the feed
        with pytest.raises(UnauthenticatedError) as caught:
            await act(made.there, beta)
        assert caught.value.refusal.reason is Reason.SUSPENDED_TENANT


async def test_work_counts_as_under_way_until_it_ends() -> None:
    """A deletion waits for it, however it ends."""
    async with nodes() as made:
        life = made.there.gate.fence.life(made.tenants[0].id)
        async with made.there.act_for(made.stamp(), purpose="reindex"):
            assert life.busy == 1
        with pytest.raises(ZeroDivisionError):
            async with made.there.act_for(made.stamp(), purpose="reindex"):
                raise ZeroDivisionError
        assert life.busy == 0
        with made.handle(made.there).bound():
            assert made.there.gate.fence.life(made.tenants[0].id).busy == 1


async def test_the_answer_of_a_request_waits_for_what_the_work_records() -> None:
    """On a route without a tenant of its own the tickets of the work are left to the request."""
    async with nodes() as made:
        request = made.there.gate.admit_public(now=made.clock.now())
        ticket: Any = type("Pending", (), {"done": False})()
        bound.set(request)
        async with made.there.act_for(made.stamp(), purpose="reindex"):
            here = bound.get()
            assert here is not None
            here.await_later(ticket)
            assert (here.doing, here.context.tenant_id) == (None, made.tenants[0].id)
        assert bound.get() is request
        assert not request.durable
        bound.set(None)
        request.close()
        async with made.there.act_for(made.stamp(), purpose="reindex"):
            here = bound.get()
            assert here is not None
            here.await_later(ticket)  # nobody's answer: it is whoever's that holds it


async def test_what_cannot_be_told_is_no_refusal() -> None:
    """Where the hub does not answer about a tenant that nobody knows yet it is an outage, and nothing is bound."""
    async with nodes() as made:
        fresh = made.hub.add_tenant("gamma")
        context = TenantContext(tenant_id=fresh.id, key_id=None, generation=1)
        press = StampPress(ClusterSecret(SECRET).derive("stamps"))
        stamp = press.issue(context, purpose="reindex", seconds=60, now=made.clock.now())

        async def fails(*args: object, **options: object) -> object:
            raise HubUnavailableError("the hub is away")

        made.there._limits._source = type("Away", (), {"limits": fails, "limits_batch": fails})()  # type: ignore[assignment]
        with pytest.raises(UnavailableError):
            await act(made.there, stamp)
        assert who() == "nobody"
        assert await act(made.here, stamp) == fresh.id
        nobody = TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=1)
        unknown = press.issue(nobody, purpose="reindex", seconds=60, now=made.clock.now())
        with pytest.raises(UnauthenticatedError):
            await act(made.here, unknown)


async def test_a_block_works_from_a_thread() -> None:
    """With ``with``, whether the limits are known or have to be asked for; charges go through the loop."""
    async with nodes() as made:
        stamp = made.stamp()

        def work() -> str:
            with made.there.act_for(stamp, purpose="reindex") as tenant:
                tenant.check(max_batch=0)
                return who()

        for _ in range(2):
            assert await asyncio.to_thread(work) == made.tenants[0].id
        with ThreadPoolExecutor(4) as pool:
            loop = asyncio.get_running_loop()
            answers = await asyncio.gather(*(loop.run_in_executor(pool, work) for _ in range(20)))
        assert set(answers) == {made.tenants[0].id}
        with made.there.act_for(stamp, purpose="reindex"):
            assert who() == made.tenants[0].id

        def elsewhere() -> None:
            with pytest.raises(MisuseError, match="is not the tenancy's"):
                asyncio.run(act(made.there, stamp))

        await asyncio.to_thread(elsewhere)


async def test_misuse_of_a_block() -> None:
    """Entered twice, in a generator, of a tenancy that does not run, with a purpose that is none."""
    async with nodes() as made:
        stamp = made.stamp()
        block = made.there.act_for(stamp, purpose="reindex")
        async with block:
            with pytest.raises(MisuseError, match="open already"):
                async with block:
                    pass
            with pytest.raises(MisuseError, match="open already"):
                with block:
                    pass
        async with block:
            assert who() == made.tenants[0].id

        async def works() -> AsyncIterator[str]:
            async with made.there.act_for(stamp, purpose="reindex"):
                yield who()

        def works_too() -> Iterator[str]:
            with made.there.act_for(stamp, purpose="reindex"):
                yield who()

        with pytest.raises(MisuseError, match="around a yield"):
            await anext(works())
        with pytest.raises(MisuseError, match="around a yield"):
            next(works_too())
        with pytest.raises(ValueError, match="a purpose"):
            made.there.act_for(stamp, purpose="")
    with pytest.raises(MisuseError, match="not running"):
        await act(made.there, stamp)


async def test_a46_a_tenant_of_another_cluster_is_not_stamped() -> None:
    """Two clusters in one process may have one id for two tenants; a stamp of the wrong one would act for the other."""
    async with nodes() as made:
        for stranger in (made.handle(made.foreign), tenants.ACME):
            with pytest.raises(MisuseError, match="another tenancy's"):
                made.here.stamp(stranger, purpose="reindex", seconds=60)


async def test_a_block_is_entered_once_at_a_time() -> None:
    """Two tasks enter one block while the limits are awaited: one is refused, and neither keeps a tenant behind it."""
    async with nodes() as made:
        told = asyncio.Event()

        class Slow:
            def try_limits(self, tenant: Any, *, now: Any) -> None:
                return None

            async def limits(self, tenant: Any, *, now: Any) -> Any:
                await told.wait()
                return await made.there._limits.limits(tenant, now=now)

        block = made.there.act_for(made.stamp(), purpose="reindex")
        block._limits = cast("Any", Slow())

        async def works() -> str:
            async with block:
                await asyncio.sleep(0)
            return who()

        tasks = [asyncio.create_task(works()) for _ in range(2)]
        await asyncio.sleep(0)
        told.set()
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert first == "nobody"
        assert isinstance(second, MisuseError)
        assert made.there.gate.fence.life(made.tenants[0].id).busy == 0


async def test_a_secret_of_this_process_is_nobody_elses() -> None:
    """Without a secret each tenancy has one of its own; subkeys are the same where the secret is."""
    made = Nodes()
    alone, other = made.node(None), made.node(None)
    async with alone, other:
        stamp = alone.stamp(made.handle(alone), purpose="reindex", seconds=60)
        assert await act(alone, stamp) == made.tenants[0].id
        with pytest.raises(UnauthenticatedError):
            await act(other, stamp)
    assert made.here.subkey("mine") == made.there.subkey("mine") != made.foreign.subkey("mine")
    assert made.here.subkey("stamps") != ClusterSecret(SECRET).derive("stamps")
    with pytest.raises(ValueError, match="a purpose"):
        made.here.subkey("")
    alone_again = Tenancy.standalone(secret=SECRET)
    assert alone_again.subkey("mine") == Tenancy.standalone(secret=SECRET).subkey("mine") == made.here.subkey("mine")
    assert Tenancy.standalone().subkey("mine") != Tenancy.standalone().subkey("mine")
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        Tenancy.standalone(secret=b"short")


async def test_a_second_life_in_a_job_is_found() -> None:
    """The test of generations fails for a tenancy that does not compare them."""
    async with nodes() as made:
        stamp = made.stamp()
        made.there.gate.fence.put(made.tenants[0].id, Standing(State.DELETED, 1))
        life = made.there.gate.fence.put(made.tenants[0].id, Standing(State.ACTIVE, 2))
        life.generation = 1  # as if nobody had counted
        assert await act(made.there, stamp) == made.tenants[0].id


async def test_standalone_mode_has_the_same_blocks() -> None:
    """Its stamps count in standalone mode, for their purpose and time, and in no cluster; nor do a cluster's here."""
    async with nodes() as made:
        tenancy, twin = Tenancy.standalone(), Tenancy.standalone()
        stamp = tenancy.stamp(tenancy.current_tenant(), purpose="reindex", seconds=60)
        for form in (stamp, stamp.token, stamp.token.encode()):
            async with twin.act_for(form, purpose="reindex") as tenant:
                assert (tenant, who()) == (twin.current_tenant(), "standalone")
            with twin.act_for(form, purpose="reindex") as tenant:
                assert tenant.kv.key("a") == "a"
        block = twin.act_for(stamp, purpose="reindex")
        with block, pytest.raises(MisuseError, match="open already"):
            with block:
                pass
        for token, purpose in ((stamp, "export"), (made.stamp(), "reindex"), ("x", "reindex")):
            with pytest.raises(UnauthenticatedError, match="no valid stamp"):
                with twin.act_for(token, purpose=purpose):
                    pass
        with pytest.raises(UnauthenticatedError):
            await act(made.here, stamp)
