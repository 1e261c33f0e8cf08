"""Handles: a foreign one is one that was never issued, in what is answered and in what the store is asked."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.clock import HOUR_US
from hivetenancy.errors import (
    ConfigurationError,
    DeniedError,
    InvalidNameError,
    NotFoundError,
    QuotaExceededError,
    StoreUnavailableError,
)
from hivetenancy.handles import HandleKind
from hivetenancy.handles import registry as module
from hivetenancy.handles.registry import HandleRegistry, StoredHandles
from hivetenancy.hooks import IsolationEvent, IsolationKind
from hivetenancy.ids import TenantId
from hivetenancy.testing.clock import ManualClock

ACME, BETA = TenantId("acme"), TenantId("beta")
CURSOR, JOB = HandleKind.CURSOR, HandleKind.JOB
SECRET = bytes(range(32))


class Trace(dict[Any, Any]):
    """A dict that writes down what it is asked, and whether there was something."""

    def __init__(self, log: list[tuple[str, bool]]) -> None:
        super().__init__()
        self.log = log

    def get(self, key: object, default: object = None) -> Any:
        self.log.append(("get", key in self))
        return super().get(key, default)

    def pop(self, key: object, *default: object) -> Any:
        self.log.append(("pop", key in self))
        return super().pop(key, *default)


class Memory:
    """A `HandleStore` that writes down what it is asked, and whether there was something."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, bytes, int]] = {}
        self.log: list[tuple[str, bool]] = []

    async def put(self, owner: str, key: str, value: bytes, *, now_us: int, expires_us: int, limit: int) -> bool:
        if sum(who == owner and now_us < until for who, _, until in self.kept.values()) >= limit:
            return False
        self.kept[key] = (owner, value, expires_us)
        return True

    async def get(self, key: str, *, now_us: int) -> bytes | None:
        self.log.append(("get", key in self.kept))
        _, value, until = self.kept.get(key, ("", None, 0))
        return value if now_us < until else None

    async def take(self, key: str, *, now_us: int) -> bytes | None:
        self.log.append(("take", key in self.kept))
        _, value, until = self.kept.pop(key, ("", None, 0))
        return value if now_us < until else None

    async def drop(self, owner: str) -> int:
        mine = [key for key, (who, _, _) in self.kept.items() if who == owner]
        for key in mine:
            del self.kept[key]
        return len(mine)


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[IsolationEvent] = []

    def isolation(self, event: IsolationEvent, *, now: object = None) -> None:
        self.events.append(event)


def answer(ask: Callable[[], object]) -> tuple[type[BaseException], str, object]:
    """What somebody who is refused gets to see, all of it."""
    with pytest.raises(DeniedError) as caught:
        ask()
    return type(caught.value), str(caught.value), caught.value.refusal


class KeyedByHandleAlone(HandleRegistry[str]):
    """Broken on purpose: finds a handle first, and then looks whose it is."""

    def get(self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Any = None) -> str:
        found = self._tenants.get(TenantId(handle))
        if found is None:
            raise self._missing(tenant, kind, handle, (0, 0))
        if found != (tenant, generation, kind):
            raise PermissionError("belongs to somebody else")
        return "value"


def traced(secret: bytes | None) -> tuple[HandleRegistry[str], list[tuple[str, bool]]]:
    """A registry of which every look into its memory is written down."""
    log: list[tuple[str, bool]] = []
    registry = HandleRegistry[str](secret=secret, clock=ManualClock())
    registry._tenants = Trace(log)
    for tenant in (ACME, BETA):
        registry.issue(tenant, 1, CURSOR, "first")
        registry._tenants[tenant].entries = Trace(log)
    return registry, log


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "with code"])
@pytest.mark.parametrize("verb", ["get", "close"])
def test_a20_a22_a_foreign_handle_is_one_that_was_never_issued(secret: bytes | None, verb: str) -> None:
    """Another tenant's, another life's, another kind's, never issued: one answer, and the same look-ups."""
    registry, log = traced(secret)
    other, _ = traced(secret)
    asked = {
        "never issued": other.issue(ACME, 7, CURSOR, "x") if secret is None else secrets.token_hex(32),
        "of another tenant": registry.issue(BETA, 1, CURSOR, "secret of beta"),
        "of another life": registry.issue(ACME, 2, CURSOR, "x"),
        "of another kind": registry.issue(ACME, 1, JOB, "x"),
    }
    answers, traces = set(), set()
    for handle in asked.values():
        log.clear()
        answers.add(answer(lambda h=handle: getattr(registry, verb)(ACME, 1, CURSOR, h)))  # type: ignore[misc]
        traces.add(tuple(log))
    assert len(answers) == len(traces) == 1, (answers, traces)
    assert {kind for kind, _, _ in answers} == {NotFoundError}
    assert answer(lambda: registry.get(ACME, 1, CURSOR, "nonsense")) in answers
    assert registry.get(BETA, 1, CURSOR, asked["of another tenant"]) == "secret of beta", "and it is still there"


def test_a20_a22_a_registry_that_looks_first_and_compares_then_is_found_out() -> None:
    """The broken registry tells foreign from missing, by its answer and by its look-ups: the test above can fail."""
    log: list[tuple[str, bool]] = []
    broken = KeyedByHandleAlone()
    broken._tenants = Trace(log)
    broken._tenants[TenantId("h1")] = (BETA, 1, CURSOR)  # type: ignore[assignment]
    with pytest.raises(NotFoundError):
        broken.get(ACME, 1, CURSOR, "h2")
    with pytest.raises(PermissionError):
        broken.get(ACME, 1, CURSOR, "h1")
    assert log[0] != log[1]


@pytest.mark.anyio
@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "with code"])
@pytest.mark.parametrize("verb", ["get", "close"])
async def test_a20_a22_a_store_is_asked_the_same_for_foreign_and_missing(secret: bytes | None, verb: str) -> None:
    """With a code the store is asked for neither; without, once for each; the answers are the same in every byte."""
    store = Memory()
    handles = StoredHandles(store, secret=secret, clock=ManualClock())
    asked = [
        secrets.token_hex(16 if secret is None else 32),
        await handles.issue(BETA, 1, CURSOR, b"secret of beta"),
        await handles.issue(ACME, 2, CURSOR, b"x"),
        await handles.issue(ACME, 1, JOB, b"x"),
    ]
    answers, traces = set(), set()
    for handle in asked:
        store.log.clear()
        with pytest.raises(NotFoundError) as caught:
            await getattr(handles, verb)(ACME, 1, CURSOR, handle)
        answers.add((type(caught.value), str(caught.value), caught.value.refusal))
        traces.add(tuple(store.log))
    assert len(answers) == len(traces) == 1, (answers, traces)
    assert {len(trace) for trace in traces} == {1 if secret is None else 0}
    assert await handles.get(BETA, 1, CURSOR, asked[1]) == b"secret of beta"


@pytest.mark.anyio
async def test_a22_a_code_that_forgets_the_tenant_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: a code over the random part alone lets a foreign handle reach the store, a made-up one not."""
    monkeypatch.setattr(
        module._Mint,
        "_code",
        lambda self, tenant, generation, kind, random: module._digest(self._secret, random),
    )
    store = Memory()
    handles = StoredHandles(store, secret=SECRET, clock=ManualClock())
    traces = []
    for handle in (secrets.token_hex(32), await handles.issue(BETA, 1, CURSOR, b"x")):
        store.log.clear()
        with pytest.raises(NotFoundError):
            await handles.get(ACME, 1, CURSOR, handle)
        traces.append(tuple(store.log))
    assert traces[0] != traces[1]


def constant_bits(handles: list[str]) -> int:
    """How many bits of the random part never change; 0 for 128 random ones, but for one chance in 2**390."""
    values = [int(handle[:32], 16) for handle in handles]
    ones, zeros = values[0], ~values[0] & (1 << 128) - 1
    for value in values:
        ones, zeros = ones & value, zeros & ~value
    return (ones | zeros).bit_count()


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "with code"])
def test_a21_handles_cannot_be_counted_up(secret: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 128 bits change, no two are alike, and the bits come from the system's source of secrets."""
    registry = HandleRegistry[int](secret=secret)
    handles = [registry.issue(ACME, 1, CURSOR, number) for number in range(400)]
    assert len(set(handles)) == 400
    assert constant_bits(handles) == 0
    assert constant_bits([f"{number:032x}" for number in range(400)]) > 100, "numbers in a row would be found"
    counter = itertools.count()
    sizes = []

    def drawn(size: int) -> str:
        sizes.append(size)
        return f"{next(counter):032x}"

    monkeypatch.setattr(module.secrets, "token_hex", drawn)
    counted = [HandleRegistry[int]().issue(ACME, 1, CURSOR, 0) for _ in range(50)]
    assert sizes == [16] * 50
    assert constant_bits(counted) > 100, "without the source of secrets they can be counted"


@given(other=st.text(min_size=1, max_size=6), generation=st.integers(0, 3), flip=st.integers(0, 63))
def test_a_code_holds_for_one_tenant_life_and_kind_alone(other: str, generation: int, flip: int) -> None:
    """Any change of tenant, life, kind or of a single digit makes a handle one that was not issued."""
    mint = module._Mint(SECRET)
    handle = mint.mint(ACME, 1, CURSOR)
    assert mint.genuine(ACME, 1, CURSOR, handle)
    assert mint.genuine(TenantId(other), 1, CURSOR, handle) == (other == ACME)
    assert mint.genuine(ACME, generation, CURSOR, handle) == (generation == 1)
    assert not mint.genuine(ACME, 1, JOB, handle)
    digit = "0" if handle[flip] != "0" else "1"
    assert not mint.genuine(ACME, 1, CURSOR, handle[:flip] + digit + handle[flip + 1 :])
    assert not mint.genuine(ACME, 1, CURSOR, handle.upper() if handle != handle.upper() else handle[:-1])
    assert not module._Mint(bytes(32)).genuine(ACME, 1, CURSOR, handle)
    assert module._digest(b"", "ab", "c") != module._digest(b"", "a", "bc"), "parts do not run together"


def test_a_handle_lives_until_it_expires_or_is_closed() -> None:
    """At its last microsecond it is there, then it is not; a closed one is not closed twice."""
    clock = ManualClock()
    registry = HandleRegistry[str](clock=clock)
    usual = registry.issue(ACME, 1, CURSOR, "usual")
    short = registry.issue(ACME, 1, JOB, "short", ttl_us=10)
    clock.advance(us=9)
    assert registry.get(ACME, 1, JOB, short) == "short"
    clock.advance(us=1)
    for verb in (registry.get, registry.close):
        with pytest.raises(NotFoundError):
            verb(ACME, 1, JOB, short)
    clock.advance(us=HOUR_US - 11)
    assert registry.close(ACME, 1, CURSOR, usual) == "usual"
    with pytest.raises(NotFoundError):
        registry.close(ACME, 1, CURSOR, usual)
    assert registry.count(ACME) == 0


def test_a_tenant_holds_so_many_and_is_no_burden_to_others() -> None:
    """At its bound a tenant is refused and nothing is issued; what has expired makes room; others go on."""
    clock = ManualClock()
    registry = HandleRegistry[int](per_tenant=2, total=3, clock=clock)
    registry.issue(ACME, 1, CURSOR, 1, ttl_us=5)
    registry.issue(ACME, 2, JOB, 2, ttl_us=9)
    with pytest.raises(QuotaExceededError) as caught:
        registry.issue(ACME, 1, CURSOR, 3)
    assert (caught.value.refusal.limit, caught.value.refusal.resource) == (2, "cursor")
    registry.issue(BETA, 1, CURSOR, 4)
    with pytest.raises(StoreUnavailableError):
        registry.issue(BETA, 1, CURSOR, 5)
    clock.advance(us=5)
    registry.issue(BETA, 1, CURSOR, 5)
    assert (registry.count(ACME), registry.count(BETA)) == (1, 2)
    assert registry.drop(BETA) == 2
    assert registry.drop(BETA) == 0
    clock.advance(us=4)
    for number in (6, 7):
        registry.issue(BETA, 1, CURSOR, number)
    registry.issue(TenantId("third"), 1, CURSOR, 8)
    assert registry.count(ACME) == 0, "a tenant of whom nothing is left takes no memory"


def test_room_is_counted_right_whatever_happens() -> None:
    """After a thousand random steps there are as many as a plain model says, and no more than the bounds."""

    rng, clock = random.Random(3), ManualClock()
    registry = HandleRegistry[int](per_tenant=5, total=12, clock=clock)
    live: dict[tuple[TenantId, str], int] = {}
    for _ in range(1000):
        tenant = TenantId(rng.choice("abcd"))
        step = rng.random()
        at_us = clock.now()[0]
        live = {key: until for key, until in live.items() if at_us < until}
        mine = [handle for who, handle in live if who == tenant]
        if step < 0.6:
            life_us = rng.randint(1, 30)
            try:
                live[tenant, registry.issue(tenant, 1, CURSOR, 0, ttl_us=life_us)] = at_us + life_us
                assert len(mine) < 5
                assert len(live) <= 12
            except QuotaExceededError:
                assert len(mine) == 5
            except StoreUnavailableError:
                assert len(live) == 12
        elif step < 0.75 and mine:
            registry.close(tenant, 1, CURSOR, mine[0])
            del live[tenant, mine[0]]
        elif step < 0.78:
            assert registry.drop(tenant) >= len(mine)
            live = {key: until for key, until in live.items() if key[0] != tenant}
        else:
            clock.advance(us=rng.randint(1, 8))
        assert registry._size == sum(map(registry.count, map(TenantId, "abcd")))


@pytest.mark.anyio
async def test_a_store_keeps_digests_and_its_bound() -> None:
    """Neither handle nor tenant is in the store; the bound, the time to live, closing and dropping hold."""
    clock = ManualClock()
    store = Memory()
    handles = StoredHandles(store, secret=SECRET, per_tenant=2, clock=clock)
    first = await handles.issue(ACME, 1, CURSOR, b"1", ttl_us=5)
    await handles.issue(ACME, 1, JOB, b"2")
    assert first[:32] not in repr(store.kept)
    assert "acme" not in repr(store.kept)
    with pytest.raises(QuotaExceededError):
        await handles.issue(ACME, 1, CURSOR, b"3")
    clock.advance(us=5)
    with pytest.raises(NotFoundError):
        await handles.get(ACME, 1, CURSOR, first)
    third = await handles.issue(ACME, 1, CURSOR, b"3")
    assert await handles.close(ACME, 1, CURSOR, third) == b"3"
    with pytest.raises(NotFoundError):
        await handles.close(ACME, 1, CURSOR, third)
    assert await handles.drop(BETA) == 0
    assert await handles.drop(ACME) == 2


def test_a_miss_is_reported_without_the_handle() -> None:
    """The event names who asked and what for; it holds a digest of the handle."""
    sink = Kept()
    registry = HandleRegistry[int](sink=sink)
    handle = registry.issue(BETA, 1, CURSOR, 1)
    with pytest.raises(NotFoundError):
        registry.get(ACME, 1, CURSOR, handle)
    (event,) = sink.events
    assert (event.kind, event.tenant, event.operation) == (IsolationKind.FOREIGN_HANDLE, ACME, "handles.cursor")
    assert handle not in repr(event)
    assert "beta" not in repr(event)


@pytest.mark.parametrize("handle", [None, b"a" * 32, 7, ["x"], "", "a" * 31, "A" * 32, "a" * 10_000, "\ud800"])
def test_what_is_no_handle_is_not_found(handle: object) -> None:
    """Other types and forms are answered as a handle that was never issued, with and without a code."""
    for secret in (None, SECRET):
        registry = HandleRegistry[int](secret=secret)
        registry.issue(ACME, 1, CURSOR, 1)
        with pytest.raises(NotFoundError):
            registry.get(ACME, 1, CURSOR, handle)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_tenant": 0},
        {"per_tenant": 10, "total": 9},
        {"ttl_us": 0},
        {"ttl_us": 10, "longest_us": 9},
        {"secret": b"short"},
        {"secret": b"x" * 65},
    ],
)
def test_a_wrong_setting_is_found_when_the_registry_is_built(wrong: dict[str, Any]) -> None:
    """Numbers and secrets out of range; the message does not hold the secret."""
    with pytest.raises(ConfigurationError) as caught:
        HandleRegistry[int](**wrong)
    assert "short" not in str(caught.value)
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize("ttl_us", [0, -1, 8 * 24 * HOUR_US])
def test_a_life_out_of_range_is_refused(ttl_us: int) -> None:
    """Nothing is issued for no time, and nothing for ever."""
    registry = HandleRegistry[int]()
    with pytest.raises(InvalidNameError, match="lives"):
        registry.issue(ACME, 1, CURSOR, 1, ttl_us=ttl_us)
    assert registry.count(ACME) == 0
