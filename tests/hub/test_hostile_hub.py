"""A hub that answers nonsense: what every part makes of it, and that none of it is kept."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from types import UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

import httpx
import pytest

from hivetenancy.access_keys import Principal
from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.format import digest
from hivetenancy.clock import SECOND_US
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import HubContractError, HubUnavailableError, UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.hub.transport import MAX_RESPONSE_BYTES
from hivetenancy.ids import Effect, TenantId
from hivetenancy.limits import CachedLimits
from hivetenancy.plans import CANONICAL, QuotaKind
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    InactiveKey,
    InactiveReason,
    KeyAnswer,
    KeyRecord,
    LimitsAnswer,
    LimitsBatch,
    RejectCode,
    TenantLimits,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)
from hivetenancy.testing import ManualClock
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter
from tests.tiers import examples

from .wired import SOURCE, UNKNOWN, Bend, Got, Sent, Stream, Wired

pytestmark = pytest.mark.anyio

OURS = (HubUnavailableError, HubContractError)


def line(world: Wired, sequence: int = 1) -> UsageReport:
    """A report of acme's."""
    cell = UsageLine(
        tenant_id=world.acme,
        dimension="storage_bytes",
        resource=None,
        kind=UsageKind.CONTRIBUTION,
        value=5 * sequence,
    )
    return UsageReport(
        source=SOURCE, writer="w", sequence=sequence, previous_sequence=sequence - 1, lines=(cell,), final=False
    )


CALLS: dict[str, Callable[[Wired], Awaitable[Any]]] = {
    "report": lambda world: world.hub.report(line(world)),
    "introspect": lambda world: world.hub.introspect(world.key),
    "introspect_batch": lambda world: world.hub.introspect_batch([digest(world.key), bytes(32)]),
    "changes": lambda world: world.hub.changes("nonsense", wait_seconds=0),
    "limits": lambda world: world.hub.limits(world.acme),
    "limits_batch": lambda world: world.hub.limits_batch([world.acme, UNKNOWN, world.other]),
}


def substance(answer: Any) -> Any:
    """What an answer says, without when."""
    for name in ("key", "keys", "limits", "last_sequence"):
        if hasattr(answer, name):
            return getattr(answer, name)
    return (answer.reset, answer.events)


async def opened(**options: Any) -> Wired:
    """A world whose client has verified its hub."""
    world = Wired(**options)
    await world.hub.open()
    return world


def fault(error: type[Exception]) -> Bend:
    """What an HTTP library raises instead of a reply."""

    def bend(_sent: Sent, _got: Got) -> Got:
        raise error("broken")

    return bend


def body(content: bytes, status: int = 200, **headers: str) -> Bend:
    """Another reply altogether."""
    return lambda _sent, _got: Got(status, content, {name.replace("_", "-"): text for name, text in headers.items()})


def changed(change: Callable[[bytes], bytes]) -> Bend:
    """The same reply with its bytes changed."""
    return lambda _sent, got: Got(got.status, change(got.body), got.headers)


HOSTILE: dict[str, Bend] = {
    "empty": body(b""),
    "no content": body(b"", 204),
    "text": body(b"ok", content_type="text/plain"),
    "a login page": body(b"<!doctype html><title>Sign in</title>", content_type="text/html"),
    "truncated": lambda _sent, got: Got(got.status, got.body[: len(got.body) // 2]),
    "less its last byte": lambda _sent, got: Got(got.status, got.body[:-1]),
    "twice": lambda _sent, got: Got(got.status, got.body * 2),
    "null": body(b"null"),
    "an array": body(b"[]"),
    "an array of it": lambda _sent, got: Got(got.status, b"[" + got.body + b"]"),
    "a number": body(b"7"),
    "no number": body(b"NaN"),
    "an object": body(b"{}"),
    "nested": body(b"[" * 200_000),
    "nested objects": body(b'{"a":' * 100_000),
    "no UTF-8": body(b'{"epoch": "\xff\xfe"}'),
    "UTF-16": changed(lambda text: text.decode().encode("utf-16")),
    "a lone surrogate": body(b'{"epoch": "\\ud800"}'),
    "an error as success": body(b'{"error": "Service temporarily unavailable"}'),
    "an error as success, with its code": body(b'{"error": "x", "code": "rate_limited"}', retry_after="1"),
    "moved": body(b"", 302, location="https://evil.example/api/internal"),
    "moved for good": body(b"", 308, location="/api/internal/"),
    "not modified": body(b"", 304),
    "a teapot": body(b"{}", 418),
    "gone": body(b'{"error": "gone"}', 410),
    "bad request": body(b'{"error": "x", "code": "bad_field", "field": "access_key"}', 400),
    "not found": body(b'{"error": "Not found"}', 404),
    "not found, by a gateway": body(b"<html>404</html>", 404, content_type="text/html"),
    "a conflict": body(b'{"error": "x", "code": "in_progress"}', 409),
    "a conflict without a sequence": body(b'{"error": "x", "code": "source_conflict"}', 409),
    "a conflict of a negative sequence": body(b'{"error": "x", "code": "source_conflict", "last_sequence": -1}', 409),
    "too large": body(b'{"error": "x"}', 413),
    "throttled": body(b'{"error": "x", "code": "rate_limited"}', 429, retry_after="1"),
    "a verdict": body(b'{"error": "Insufficient credits"}', 429),
    "unauthorised": body(b'{"error": "Invalid API key"}', 401),
    "forbidden": body(b'{"error": "Access denied"}', 403),
    "broken": body(b"<html>", 500),
    "a bad gateway": body(b"<html>", 502),
    "unavailable for a year": body(b"", 503, retry_after="31536000"),
    "unavailable for nonsense": body(b"", 503, retry_after="soon"),
    "a status of its own": body(b"{}", 999),
    "compressed": lambda _sent, got: Got(got.status, got.body, {"content-encoding": "gzip"}),
    "100 MB": lambda _sent, _got: Got(200, Stream(b" " * 65_536, 1_600)),
    "100 MB, as it says": lambda _sent, _got: Got(200, Stream(b" " * 65_536, 1_600), {"content-length": "104857600"}),
    "refused": fault(httpx.ConnectError),
    "no route": fault(httpx.ConnectTimeout),
    "reset": fault(httpx.ReadError),
    "silent": fault(httpx.ReadTimeout),
    "not HTTP": fault(httpx.RemoteProtocolError),
    "undecodable": fault(httpx.DecodingError),
    "a pool that is full": fault(httpx.PoolTimeout),
}


@pytest.mark.parametrize("bend", HOSTILE.values(), ids=HOSTILE.keys())
async def test_no_source_takes_it_for_an_answer(bend: Bend) -> None:
    """Each of the four raises an error of ours, and gives the good answer as soon as there is one."""
    world = await opened()
    good = {name: substance(await call(world)) for name, call in CALLS.items()}
    for name, call in CALLS.items():
        world.clock.advance(61)  # past whatever the breaker waits for
        with world.bent(bend), pytest.raises(OURS):
            await call(world)
        world.clock.advance(61)
        assert substance(await call(world)) == good[name], name


async def test_what_never_ends_is_not_read_to_its_end() -> None:
    """A reply beyond the cap is dropped at the cap; one that trickles, at the deadline."""
    world = await opened(timeout_s=0.2)
    for declared in ({}, {"content-length": "104857600"}):
        stream = Stream(b" " * 65_536, 1_600)
        with world.bent(lambda _sent, _got, s=stream, h=declared: Got(200, s, h)):  # type: ignore[misc]
            with pytest.raises(HubContractError):
                await world.hub.limits(world.acme)
        assert stream.taken <= MAX_RESPONSE_BYTES + 65_536
        if declared:
            assert stream.taken == 0
    drip = Stream(b" ", 10_000, pause_s=0.01)
    with world.bent(lambda _sent, _got: Got(200, drip)), pytest.raises(HubUnavailableError):
        await world.hub.limits(world.acme)
    assert drip.taken < 100


# --- replies that are nearly right ------------------------------------------------------------------------------------

#: What a reply may leave out: fields that not every event, dead key or gauge has.
OPTIONAL = {
    "changes": {"id", "user_id", "plan", "digest_prefix", "revoked_at", "expires_at"},
    "limits": {"zone"},
    "limits_batch": {"zone", "cursor"},
    "introspect_batch": set[str](),
    "introspect": set[str](),
    "report": set[str](),
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything in a JSON value; of a list, the first two members."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield (*at, name)
            yield from places(part, (*at, name))
    elif isinstance(value, list):
        for index, part in enumerate(value[:2]):
            yield (*at, index)
            yield from places(part, (*at, index))


def holder(value: Any, place: tuple[Any, ...]) -> Any:
    """What holds the thing at *place*."""
    for step in place[:-1]:
        value = value[step]
    return value


async def good_reply(world: Wired, name: str) -> tuple[Any, Any]:
    """What the hub says to a call, as JSON, and what is made of it."""
    answer = await CALLS[name](world)
    asked = world.line.sent[-1]
    got = await world.line.answer(asked)  # type: ignore[misc]
    return got.json, answer


async def answered(world: Wired, name: str, reply: Any) -> Any:
    """What a call makes of a reply; `None`: it raised an error of ours."""
    text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    with world.bent(body(text)):
        try:
            return await CALLS[name](world)
        except OURS:
            return None


@pytest.mark.parametrize("name", CALLS)
async def test_a_field_that_is_missing_makes_a_reply_none(name: str) -> None:
    """Every field that the wire has must be there: nothing is filled in for it."""
    world = await opened()
    good, _ = await good_reply(world, name)
    tried = 0
    for place in places(good):
        if isinstance(place[-1], int):
            continue
        reply = copy.deepcopy(good)
        del holder(reply, place)[place[-1]]
        gauge = place[-1] in ("period", "period_start", "resets_at") and holder(good, place)["kind"] != "counter"
        if place[-1] in OPTIONAL[name] or gauge or "static" in place[:-1]:
            continue
        tried += 1
        assert await answered(world, name, reply) is None, place
    assert tried > 1


WRONG: tuple[Any, ...] = (None, True, 0, -1, 2**53, 2**64, 1.5, "", "x", "\u0000", "5", [], {}, [None], {"a": 1})


@pytest.mark.parametrize("name", CALLS)
async def test_a_value_of_the_wrong_type_makes_a_reply_none(name: str) -> None:
    """Or it is a value that the wire allows there, and the answer is sound and about those who were asked about."""
    world = await opened()
    good, answer = await good_reply(world, name)
    refused = 0
    for place in places(good):
        for wrong in WRONG if examples(1, 2) == 2 else random.sample(WRONG, 3):
            reply = copy.deepcopy(good)
            holder(reply, place)[place[-1]] = wrong
            got = await answered(world, name, reply)
            refused += got is None
            check(name, got, answer)
    assert refused > 3


def check(name: str, got: Any, good: Any, *, granted: tuple[bool, ...] = ()) -> None:
    """Assert what must hold of whatever was made of a reply: it is sound, and grants nothing to nobody.

    Where *granted* says so, the reply itself calls the key at that place active, whole and well: a batch tells keys by
    their places alone, so a hub that exchanges two answers is believed.
    """
    if got is None:
        return
    sound(got)
    assert type(got) is type(good)
    if isinstance(good, KeyAnswer | BatchAnswer):
        keys = (good.key,) if isinstance(good, KeyAnswer) else good.keys
        found = (got.key,) if isinstance(got, KeyAnswer) else got.keys
        for one, other, said in zip_longest(keys, found, granted[: len(keys)]):
            came_alive = isinstance(one, InactiveKey) and isinstance(other, KeyRecord)
            assert said or not came_alive, "a dead key came to life"
    if isinstance(good, LimitsAnswer) and good.limits is not None and got.limits is not None:
        assert got.limits.tenant_id == good.limits.tenant_id
    if isinstance(good, LimitsBatch):
        assert len(got.limits) == len(got.revisions) == len(good.limits)
        for before, after in zip(good.limits, got.limits, strict=True):
            assert after is None or (before is not None and after.tenant_id == before.tenant_id)


def sound(value: Any, kind: Any = None) -> None:
    """Assert that a value of ours holds what its annotations say, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        assert kind is None or isinstance(value, kind), (value, kind)
        hints = get_type_hints(type(value))
        for each in fields(value):
            if each.init:
                sound_as(getattr(value, each.name), hints[each.name], f"{type(value).__name__}.{each.name}")


def sound_as(value: Any, kind: Any, where: str) -> None:
    """Assert that a value is what an annotation says."""
    if isinstance(kind, NewType):
        kind = kind.__supertype__
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        kinds: list[Any] = [
            get_origin(each) or (each.__supertype__ if isinstance(each, NewType) else each) for each in inside
        ]
        assert isinstance(value, tuple(kinds)), where
        matching = [each for each, plain in zip(inside, kinds, strict=True) if isinstance(value, plain)]
        sound_as(value, matching[0], where)
    elif origin in (tuple, frozenset):
        assert isinstance(value, origin), where
        for part in value:
            sound_as(part, inside[0], where)
    elif kind is int:
        assert type(value) is int, where
    elif kind in (str, bool, bytes):
        assert isinstance(value, kind), where
        if kind is str:
            value.encode()
    elif is_dataclass(kind):
        assert type(value) is kind, where
        sound(value)


async def test_what_is_unsound_is_noticed() -> None:
    """The check that the tests above rest on tells a wrong type wherever it stands."""
    good = UsageReply(last_sequence=1, rejected=())
    sound(good)
    for wrong in (
        UsageReply(last_sequence="1"),  # type: ignore[arg-type]
        UsageReply(last_sequence=True),
        UsageReply(last_sequence=1, rejected=("x",)),  # type: ignore[arg-type]
        InactiveKey(reason="revoked", key_id=5, tenant_id=None, revoked_at_us=None, not_before_us=None),  # type: ignore[arg-type]
        InactiveKey(reason="x", key_id=None, tenant_id="\ud800", revoked_at_us=None, not_before_us=None),  # type: ignore[arg-type]
    ):
        with pytest.raises((AssertionError, UnicodeEncodeError)):
            sound(wrong)
    dead = InactiveKey(reason="x", key_id=None, tenant_id=None, revoked_at_us=None, not_before_us=None)  # type: ignore[arg-type]
    was = KeyAnswer(epoch=1, revision=1, now_us=1, key=dead)
    world = await opened()
    alive = (await world.hub.introspect(world.key)).key
    with pytest.raises(AssertionError, match="came to life"):
        check("introspect", KeyAnswer(epoch=1, revision=1, now_us=1, key=alive), was)


def mutated(good: Any, rng: random.Random) -> Any:
    """A reply with one to three things changed somewhere, or its bytes damaged."""
    if rng.random() < 0.25:
        return damaged(json.dumps(good).encode(), rng)
    reply = copy.deepcopy(good)
    for _ in range(rng.randint(1, 3)):
        spots = list(places(reply))
        if not spots:
            break
        place = rng.choice(spots)
        inside = holder(reply, place)
        match rng.randrange(4):
            case 0:
                del inside[place[-1]]
            case 1:
                inside[place[-1]] = copy.deepcopy(rng.choice(WRONG))
            case 2:
                other = rng.choice(spots)
                inside[place[-1]] = copy.deepcopy(holder(reply, other)[other[-1]]) if spots else None
            case 3 if isinstance(inside, dict):
                inside[f"x{rng.randrange(100)}"] = copy.deepcopy(rng.choice(WRONG))
            case _:
                inside.append(copy.deepcopy(inside[0]))
    return reply


def granted(reply: Any) -> tuple[bool, ...]:
    """Which keys a batch calls active, by place; nothing where it is none."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        read = json.loads(reply) if isinstance(reply, bytes) else reply
        return tuple(one.get("active") is True for one in read["results"])
    return ()


def damaged(text: bytes, rng: random.Random) -> bytes:
    """Bytes with some cut out, put in or turned round."""
    raw = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        match rng.randrange(3):
            case 0:
                del raw[at : at + rng.randrange(1, 20)]
            case 1:
                raw[at:at] = rng.randbytes(rng.randrange(1, 4))
            case _ if at < len(raw):
                raw[at] ^= 1 << rng.randrange(8)
    return bytes(raw)


@pytest.mark.deep
async def test_mutated_replies() -> None:
    """Thousands of good replies with something wrong: only errors of ours, and no answer that is unsound."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    world = await opened()
    doomed = world.service.issue_key(world.acme, name="doomed", permissions=["read"])
    world.service.revoke_key(doomed.key_id)
    dead = await world.hub.introspect(doomed.secret.encode())
    replies = {name: await good_reply(world, name) for name in CALLS}
    await world.hub.introspect(doomed.secret.encode())
    replies["dead"] = ((await world.line.answer(world.line.sent[-1])).json, dead)  # type: ignore[misc]
    assert replies["dead"][0]["active"] is False
    outcomes = {"refused": 0, "taken": 0}
    for turn in range(examples(300, 5_000)):
        name = rng.choice(list(replies))
        good, answer = replies[name]
        reply = mutated(good, rng)
        try:
            got = await answered(world, "introspect" if name == "dead" else name, reply)
            check(name, got, answer, granted=granted(reply) if name == "introspect_batch" else ())
        except BaseException as error:
            raise AssertionError(f"seed {seed}, turn {turn}, {name}: {reply!r}") from error
        outcomes["taken" if got else "refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


# --- the whole stack --------------------------------------------------------------------------------------------------


class Stack:
    """Everything that stands between a request and a hub."""

    def __init__(self, world: Wired) -> None:
        self.world = world
        self.feed = Feed(world.hub, clock=world.clock, wait_seconds=0)
        functions = FunctionRegistry()
        functions.declare("kv.get", effect=Effect.READ)
        self.keys = CachedAccessKeys(world.hub, functions=functions, feed=self.feed, clock=world.clock)
        self.limits = CachedLimits(world.hub, floors=self.feed.floors, clock=world.clock)
        self.usage = MemoryUsage(dimensions=dict(CANONICAL), clock=world.clock)
        self.reporter = Reporter(self.usage, world.hub, clock=world.clock)
        self.counted = 0

    async def validate(self, key: bytes | None = None) -> Principal | Refusal:
        """Look a key up."""
        return await self.keys.validate(self.world.key if key is None else key, effect=Effect.READ)

    def count(self) -> None:
        """Use something."""
        self.counted += 7
        self.usage.record(self.world.acme, {"operations": 7}, now=self.world.clock.now())

    async def well(self) -> None:
        """Assert that everything works."""
        assert await self.feed.poll_once()
        assert self.feed.last_error is None
        principal = await self.validate()
        assert isinstance(principal, Principal)
        assert principal.tenant_id == self.world.acme
        limits = await self.limits.limits(self.world.acme, now=self.world.clock.now())
        assert limits is not None
        assert limits.plan == "pro"
        await self.reporter.flush()
        assert self.reporter.last_error is None
        assert self.world.service.used(self.world.acme, "operations") == self.counted


@pytest.mark.parametrize("bend", HOSTILE.values(), ids=HOSTILE.keys())
async def test_no_engine_keeps_it(bend: Bend) -> None:
    """Asked for the first time during it: 503 and nothing granted, nothing kept, and told; then all is as it was."""
    await endure(await opened(), bend)


async def endure(world: Wired, bend: Bend) -> None:
    """Assert that nothing of a hub's nonsense gets into the engines."""
    stack = Stack(world)
    await stack.feed.open()
    before = repr(stack.feed)
    stack.count()
    with world.bent(bend):
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await stack.validate()
        with pytest.raises(HubUnavailableError):
            await stack.limits.limits(world.acme, now=world.clock.now())
        with pytest.raises(OURS):
            await stack.reporter.flush()
        assert stack.reporter.last_error
        assert not await stack.feed.poll_once()
        assert stack.feed.last_error
        assert repr(stack.feed) == before
    assert len(stack.keys) == 0
    world.clock.advance(61)
    stack.count()
    await stack.well()


def forgiving(hub: Any) -> None:
    """A client that takes an outage for a wrong key."""
    real = hub.introspect

    async def introspect(credential: bytes, **more: Any) -> KeyAnswer:
        try:
            answer: KeyAnswer = await real(credential, **more)
        except OURS:
            dead = InactiveKey(
                reason=InactiveReason.UNKNOWN, key_id=None, tenant_id=None, revoked_at_us=None, not_before_us=None
            )
            return KeyAnswer(epoch=1, revision=2**40, now_us=0, key=dead)
        return answer

    hub.introspect = introspect


def generous(hub: Any) -> None:
    """A client that takes an outage for "unlimited", as theirs did (D10)."""
    real = hub.limits

    async def limits(tenant: TenantId, **more: Any) -> LimitsAnswer:
        try:
            answer: LimitsAnswer = await real(tenant, **more)
        except OURS:
            return LimitsAnswer(
                epoch=1, revision=2**40, now_us=0, limits=TenantLimits(tenant_id=tenant, plan="unlimited")
            )
        return answer

    hub.limits = limits


def careless(hub: Any) -> None:
    """A client that takes whatever comes back from a report for a receipt."""
    real = hub.report

    async def report(what: UsageReport) -> Any:
        try:
            return await real(what)
        except OURS:
            return UsageReply(last_sequence=what.sequence)

    hub.report = report


def content(hub: Any) -> None:
    """A client that takes a failed poll for one in which nothing happened."""
    real = hub.changes

    async def changes(cursor: str | None, **more: Any) -> Any:
        try:
            return await real(cursor, **more)
        except OURS:
            return ChangeBatch(
                epoch=1,
                revision=1,
                now_us=0,
                events=(),
                cursor=cursor or "x",
                more=False,
                reset=False,
                spread_seconds=0,
            )

    hub.changes = changes


@pytest.mark.parametrize("spoil", [forgiving, generous, careless, content], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("bend", ["empty", "an error as success", "unauthorised", "reset", "a teapot"])
async def test_a_client_that_guesses_is_found_out(spoil: Callable[[Any], None], bend: str) -> None:
    """The test above fails for a client that makes an answer out of no answer, whichever of the four it is about."""
    world = await opened()
    spoil(world.hub)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await endure(world, HOSTILE[bend])


@pytest.mark.parametrize("bend", HOSTILE.values(), ids=HOSTILE.keys())
async def test_nothing_starts_from_it(bend: Bend) -> None:
    """A hub that does not say what it is opens nothing; the next good word is enough."""
    world = Wired()
    with world.bent(bend), pytest.raises(HubUnavailableError):
        await world.hub.open()
    assert any(not part.ok for part in world.hub.parts())
    for call in CALLS.values():
        with pytest.raises(OURS):
            await call(world)
    world.clock.advance(61)
    await world.hub.open()
    assert all(part.ok for part in world.hub.parts()), world.hub.parts()
    await CALLS["introspect"](world)


@pytest.mark.parametrize("bend", [body(b"{}"), body(b"", 302, location="https://x"), fault(httpx.ReadError)])
async def test_known_tenants_go_on_while_it_lasts(bend: Bend) -> None:
    """What was known and is fresh serves; a key that ages is refused with 503 and never with 401."""
    world = await opened()
    stack = Stack(world)
    await stack.well()
    with world.bent(bend):
        assert isinstance(await stack.validate(), Principal)
        world.clock.advance(29)
        assert isinstance(await stack.validate(), Principal)
        assert await stack.limits.limits(world.acme, now=world.clock.now())
        world.clock.advance(1_000)
        with pytest.raises(UnavailableError):
            await stack.validate()
    world.clock.advance(61)
    await stack.well()
    await stack.keys.aclose()


# --- lies ------------------------------------------------------------------------------------------------------------


async def test_an_answer_about_another_user_is_none() -> None:
    """For one and for several: in another order, one too few, one too many, somebody else."""
    world = await opened()
    with world.bent(lambda _sent, got: got.but(user_id=world.other)), pytest.raises(HubContractError):
        await world.hub.limits(world.acme)
    for change in (
        lambda items: items[::-1],
        lambda items: items[:-1],
        lambda items: [*items, items[0]],
        lambda items: [items[0], items[0], items[2]],
    ):
        with world.bent(lambda _sent, got, c=change: got.but(items=c(got.json["items"]))):  # type: ignore[misc]
            with pytest.raises(HubContractError):
                await CALLS["limits_batch"](world)


@pytest.mark.parametrize("change", [lambda keys: keys[:-1], lambda keys: [*keys, keys[0]], lambda _keys: []])
async def test_a_batch_of_another_length_verifies_nothing(change: Callable[[Any], Any]) -> None:
    """Whose answer is whose cannot be told, so none is anybody's."""
    world = await opened()
    stack = Stack(world)
    await stack.feed.open()

    def bend(sent: Sent, got: Got) -> Got:
        return got.but(results=change(got.json["results"])) if sent.path.endswith("batch") else got

    principal = await stack.validate()
    assert isinstance(principal, Principal)
    world.clock.advance(31)
    with world.bent(bend), pytest.raises(UnavailableError):
        await stack.keys.recheck(principal, effect=Effect.READ)
    world.clock.advance(2)
    assert isinstance(await stack.keys.recheck(principal, effect=Effect.READ), Principal)


async def test_a_restriction_of_a_later_version_refuses_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """A key that may be confined by what we do not know is refused, in one line of the log that names it."""
    world = await opened()
    for more in (
        {"geo": ["DE"]},
        {"networks": ["10.0.0.0/8"]},
        {"resources": [{"bucket": "x"}]},
        {"unknown": 1},
        {"uses": 0},
    ):
        stack = Stack(world)
        await stack.feed.open()
        with world.bent(lambda _sent, got, m=more: got.but(**m) if "access_keys" else got):  # type: ignore[misc]
            with caplog.at_level(logging.WARNING):
                answer = await stack.validate()
            assert isinstance(answer, Refusal)
            assert answer.reason is Reason.UNSUPPORTED_RESTRICTION
        assert caplog.text.count(world.issued.key_id) == 1
        assert world.issued.secret not in caplog.text
        caplog.clear()


async def test_a_field_that_says_nothing_refuses_no_key() -> None:
    """Empty ones: a later version may always send them."""
    world = await opened()
    stack = Stack(world)
    await stack.feed.open()
    with world.bent(lambda _sent, got: got.but(geo=[], owner=None, strict=False, note="", rules={})):
        assert isinstance(await stack.validate(), Principal)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ..., "user_id": "acme"},
        {"user_id": None},
        {"permissions": "read"},
        {"permissions": ["read"] * 65},
        {"functions": "kv.*"},
        {"functions": ["kv.*"] * 1_025},
        {"environment": "prod"},
        {"active": "true"},
        {"active": 1},
        {"active": None},
        {"version": -1},
        {"version": 2**53},
        {"revision": -1},
        {"epoch": "1"},
        {"now": 1.5},
        {"expires_at": "tomorrow"},
        {"expires_at": 5},
        {"rotation": {"current_version": 1}},
    ],
    ids=str,
)
async def test_a_malformed_key_grants_nothing(changes: dict[str, Any]) -> None:
    """It is neither accepted nor refused: it cannot be told."""
    world = await opened()
    stack = Stack(world)
    await stack.feed.open()
    with world.bent(lambda _sent, got: got.but(**changes)), pytest.raises(UnavailableError):
        await stack.validate()
    world.clock.advance(2)
    assert isinstance(await stack.validate(), Principal)


async def test_unknown_words_grant_nothing() -> None:
    """A permission of a later version gives no right, a reason of a later version leaves a dead key dead."""
    world = await opened()
    stack = Stack(world)
    await stack.feed.open()
    with world.bent(lambda _sent, got: got.but(permissions=["own", "read"])):
        answer = await stack.validate()
    assert isinstance(answer, Principal)
    assert {permission.value for permission in answer.permissions} == {"read"}
    dead = body(json.dumps({"active": False, "reason": "quarantined", "epoch": 1, "revision": 99, "now": NOW}).encode())
    with world.bent(dead):
        refused = await stack.keys.validate(b"hh_test_0123456789abcdef0123456789", effect=Effect.READ)
    assert isinstance(refused, Refusal)


NOW = "2100-01-01T00:00:00Z"


def quotas(change: Callable[[Any], Any]) -> Bend:
    """Limits with their quotas changed."""
    return lambda _sent, got: got.but(quotas=change(got.json["quotas"])) if got.status == 200 else got


COUNTER: dict[str, Any] = {
    "dimension": "operations",
    "resource": None,
    "kind": "counter",
    "limit": 5,
    "used": 0,
    "own": 0,
    "period": "month",
    "period_start": NOW,
    "resets_at": "2100-02-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": -1},
        {"limit": 2**53},
        {"limit": 1.5},
        {"limit": "5"},
        {"used": 2**53},
        {"used": -(2**53)},
        {"own": None},
        {"kind": "reservation"},
        {"kind": "contribution"},
        {"period": "year"},
        {"period": None},
        {"period_start": None},
        {"resets_at": None},
        {"resets_at": NOW},
        {"resets_at": "2099-01-01T00:00:00Z"},
        {"dimension": ""},
        {"dimension": "Operations!"},
        {"zone": "../../etc/passwd"},
        {"zone": "Mars/Olympus"},
        {"zone": "\x00"},
    ],
    ids=str,
)
async def test_a_quota_out_of_range_makes_the_limits_none(wrong: dict[str, Any]) -> None:
    """Negative, huge, of no known kind, without its period: the tenant has no limits then, and so no admission."""
    world = await opened()
    with world.bent(quotas(lambda _old: [COUNTER])):
        answer = await world.hub.limits(world.acme)
    assert answer.limits is not None
    with world.bent(quotas(lambda _old: [{**COUNTER, **wrong}])), pytest.raises(HubContractError):
        await world.hub.limits(world.acme)


async def test_a_quota_that_is_stated_twice_makes_the_limits_none() -> None:
    """One of the two would be the looser."""
    world = await opened()
    with world.bent(quotas(lambda _old: [COUNTER, {**COUNTER, "limit": None}])), pytest.raises(HubContractError):
        await world.hub.limits(world.acme)


async def test_unknown_fields_of_limits_are_ignored() -> None:
    """As by HiveHub's own SDK."""
    world = await opened()
    good = substance(await world.hub.limits(world.acme))
    with world.bent(lambda _sent, got: got.but(colour="red", features={"a": [1]})):
        assert substance(await world.hub.limits(world.acme)) == good


async def test_a_count_in_the_billions_is_a_count() -> None:
    """The largest that the wire has is enforced as it is, and adds up to no overflow."""
    world = await opened()
    most = 2**53 - 1
    with world.bent(quotas(lambda _old: [{**COUNTER, "limit": most, "used": most, "own": -most}])):
        answer = await world.hub.limits(world.acme)
    assert answer.limits is not None
    (standing,) = answer.limits.quotas
    assert (standing.limit.limit, standing.used, standing.own) == (most, most, -most)
    assert standing.limit.kind is QuotaKind.COUNTER


async def test_an_event_of_an_unknown_type_takes_away_what_it_is_about() -> None:
    """It must not spoil the others; and whatever it means, what was known is looked up again."""
    world = await opened()
    stack = Stack(world)
    await stack.well()
    for about, gone in (
        ({"id": world.issued.key_id}, True),
        ({"user_id": world.acme}, True),
        ({"plan": "pro"}, False),
        ({}, False),
        ({"id": UNKNOWN}, False),
    ):
        await stack.well()
        asked = len(world.line.sent)
        event = {"type": "key_blessed", "at": NOW, "revision": world.service.revision, **about}
        with world.bent(lambda _sent, got, e=event: got.but(events=[e])):  # type: ignore[misc]
            assert await stack.feed.poll_once()
        await stack.validate()
        assert (len(world.line.sent) - asked == 2) is gone, about


async def test_an_event_that_is_malformed_leaves_the_cursor() -> None:
    """The whole batch is asked for again: none of it may be passed over."""
    world = await opened()
    stack = Stack(world)
    await stack.well()
    cursor = stack.feed._cursor
    world.service.revoke_key(world.issued.key_id)
    with world.bent(lambda _sent, got: got.but(events=[*got.json["events"], {"type": 5}])):
        assert not await stack.feed.poll_once()
    assert stack.feed._cursor == cursor
    assert await stack.feed.poll_once()
    answer = await stack.validate()
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.REVOKED_KEY


async def test_a_clock_that_is_a_day_off_moves_no_end() -> None:
    """Ends are counted from the hub's own time, so a key lives as long as it should; and health says so."""
    for days in (-1, 1):
        hub_clock = ManualClock()
        hub_clock.advance(86_400 + 86_400 * days)
        world = _with_clock(hub_clock)
        key = world.service.issue_key(
            world.acme, name="brief", permissions=["read"], expires_at_us=hub_clock.now()[1] + 60 * SECOND_US
        ).secret.encode()
        await world.hub.open()
        clock = next(part for part in world.hub.parts() if part.name == "hub clock")
        assert not clock.ok
        assert "86400.0 s" in clock.why
        stack = Stack(world)
        await stack.feed.open()
        assert isinstance(await stack.validate(key), Principal)
        for clock_of in (world.clock, hub_clock):
            clock_of.advance(59)
        assert isinstance(await stack.validate(key), Principal)
        for clock_of in (world.clock, hub_clock):
            clock_of.advance(2)
        assert isinstance(await stack.validate(key), Refusal)


def _with_clock(hub_clock: ManualClock) -> Wired:
    """A world whose hub has a clock of its own; the client's starts a day after the epoch of a `ManualClock`."""
    mine = ManualClock()
    mine.advance(86_400)
    world = Wired()
    world.service._clock = hub_clock
    world.clock = mine
    world.options["clock"] = mine
    world.hub = world.client()
    return world


async def test_an_extension_that_vanishes_is_an_outage_of_it() -> None:
    """Keys are 503 then, limits are not put together in another way, and health names what is missing."""
    world = await opened()
    stack = Stack(world)
    await stack.well()
    everything = world.service.extensions
    for gone in ("introspection", "limits", "usage", "changes"):
        world.service.set_extensions(everything - {gone})
        with pytest.raises(HubUnavailableError):
            await world.hub.open()
        parts = {part.name: part for part in world.hub.parts()}
        assert not parts["hub"].ok
        assert gone in parts["hub extensions"].why
        call = {"introspection": "introspect", "usage": "report"}.get(gone, gone)
        with pytest.raises(OURS):
            await CALLS[call](world)
        sent = {one.path.split("/")[-1] for one in world.line.sent}
        assert not sent & {"resources", "quota", "database"}, "the calls of the service were used instead"
        world.service.set_extensions(everything)
        world.clock.advance(61)
        await world.hub.open()
        assert all(part.ok for part in world.hub.parts())
        await stack.well()


async def test_an_announcement_that_vanishes_is_an_outage() -> None:
    """A hub that says 404 now, where it said what it is before, is not one of today's wire."""
    world = await opened()
    world.service.set_extensions(())
    with pytest.raises(HubUnavailableError):
        await world.hub.open()
    for call in CALLS.values():
        with pytest.raises(OURS):
            await call(world)
    assert not all(part.ok for part in world.hub.parts())


async def test_another_hub_behind_the_same_address_is_not_believed() -> None:
    """Its word counts for nothing, for keys, limits and usage alike, until an operator has looked."""
    world, stranger = await opened(), Wired()
    stack = Stack(world)
    await stack.well()
    stack.count()
    stranger.service.issue_service_key(secret=world.service_key.secret)
    mine, world.line.answer = world.line.answer, stranger.line.answer
    assert not await stack.feed.poll_once()
    for call in CALLS.values():
        with pytest.raises(HubContractError, match="another hub"):
            await call(world)
    with pytest.raises(HubContractError):
        await stack.reporter.flush()
    why = next(part.why for part in world.hub.parts() if part.name == "hub")
    assert stranger.service.hub_id in why
    assert world.service.hub_id in why
    assert stranger.service.used(stranger.acme, "operations") == 0
    assert isinstance(await stack.validate(), Principal), "fresh for what is left of its window"
    world.clock.advance(31)
    with pytest.raises(UnavailableError):
        await stack.validate()
    world.line.answer = mine
    world.clock.advance(61)
    await world.hub.open()
    await stack.well()


async def test_a_smaller_epoch_is_not_believed() -> None:
    """A hub that was put back to the past says of dead keys that they live."""
    world = await opened()
    world.service.start_epoch()
    await world.hub.open()
    stack = Stack(world)
    await stack.well()
    with world.bent(lambda _sent, got: got.but(epoch=1)):
        with pytest.raises(HubUnavailableError):
            await world.hub.open()
        assert "went back" in next(part.why for part in world.hub.parts() if part.name == "hub")
        assert not await stack.feed.poll_once()
        for call in CALLS.values():
            with pytest.raises(HubContractError, match="went back"):
                await call(world)
    await world.hub.open()
    await stack.well()


async def test_a_line_that_the_wire_cannot_say_holds_up_no_other() -> None:
    """A resource with too long a name is parked, as if the hub had rejected it for good; the rest is reported."""
    world = await opened()
    good = line(world).lines[0]
    strange = [
        UsageLine(
            tenant_id=world.acme,
            dimension="storage_bytes",
            resource=resource,
            kind=UsageKind.CONTRIBUTION,
            value=1,
        )
        for resource in ("x" * 1_025, "", "\ud800")
    ]
    foreign = UsageLine(
        tenant_id="acme",  # type: ignore[arg-type]
        dimension="storage_bytes",
        resource=None,
        kind=UsageKind.CONTRIBUTION,
        value=1,
    )
    unknown = UsageLine(
        tenant_id=UNKNOWN, dimension="storage_bytes", resource=None, kind=UsageKind.CONTRIBUTION, value=1
    )
    report = UsageReport(
        source=SOURCE,
        writer="w",
        sequence=1,
        previous_sequence=0,
        lines=(strange[0], foreign, good, *strange[1:], unknown),
    )
    reply = await world.hub.report(report)
    assert isinstance(reply, UsageReply)
    assert {(each.index, each.code, each.permanent) for each in reply.rejected} == {
        (0, RejectCode.OUT_OF_RANGE, True),
        (1, RejectCode.UNKNOWN_USER, True),
        (3, RejectCode.OUT_OF_RANGE, True),
        (4, RejectCode.OUT_OF_RANGE, True),
        (5, RejectCode.UNKNOWN_USER, True),
    }
    assert world.service.used(world.acme, "storage_bytes") == good.value
    again = {**world.line.sent[-1].headers}
    assert await world.hub.report(report) == reply
    assert world.line.sent[-1].body == world.line.sent[-2].body
    assert again


@pytest.mark.parametrize(
    "wrong",
    [
        {"last_sequence": 0},
        {"last_sequence": 99},
        {"rejected": [{"index": 5, "code": "busy", "permanent": False}]},
        {"rejected": [{"index": 0, "code": "busy", "permanent": False}] * 2},
        {"rejected": [{"index": -1, "code": "busy", "permanent": False}]},
        {"rejected": [{"index": 0, "code": "busy"}]},
    ],
    ids=str,
)
async def test_a_receipt_that_is_none_acknowledges_nothing(wrong: dict[str, Any]) -> None:
    """For another report, of lines that were not in it: the report is sent again, and counts once."""
    world = await opened()
    stack = Stack(world)
    stack.count()
    with world.bent(lambda _sent, got: got.but(**wrong)), pytest.raises(HubContractError):
        await stack.reporter.flush()
    assert stack.reporter.unreported == 1
    await stack.well()


async def test_a_rejection_of_a_later_version_is_what_the_hub_says_it_is() -> None:
    """An unknown code is passing or permanent as it says, and raises nothing."""
    world = await opened()
    for permanent in (False, True):
        rejected = [{"index": 0, "code": "quarantined", "permanent": permanent}]
        with world.bent(lambda _sent, got, r=rejected: got.but(rejected=r)):  # type: ignore[misc]
            reply = await world.hub.report(line(world))
        assert isinstance(reply, UsageReply)
        assert [(each.code, each.permanent) for each in reply.rejected] == [(RejectCode.OTHER, permanent)]


async def test_many_who_ask_a_hub_that_trickles_are_all_answered() -> None:
    """Within the deadline of a look-up, with 503; nobody waits for the last byte."""
    world = await opened(timeout_s=0.2)
    stack = Stack(world)
    await stack.feed.open()
    with world.bent(lambda _sent, _got: Got(200, Stream(b" ", 10_000, pause_s=0.01))):
        async with asyncio.timeout(60):  # the last byte would come after 100 s
            answers = await asyncio.gather(*(stack.validate() for _ in range(50)), return_exceptions=True)
    assert all(isinstance(answer, UnavailableError) for answer in answers)
