"""Idempotency keys: one effect however often a call is sent, and the first answer again."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from hivetenancy.authority.idempotency import (
    WINDOW_US,
    Claim,
    Claimed,
    Fresh,
    Full,
    IdempotencyStore,
    InProgress,
    Mismatch,
    Replay,
    SecretMade,
    checked_key,
)
from hivetenancy.authority.service import HubService
from hivetenancy.clock import SECOND_US
from hivetenancy.testing import ManualClock
from tests.tiers import examples

NOW = 10**15


def claim(key: str = "key-0001", *, identity: str = "node", method: str = "POST", target: bytes = b"/x?y=1") -> Claim:
    """Which call."""
    return Claim(identity=identity, method=method, target=target, key=key)


def ask(store: IdempotencyStore, one: Claim, body: bytes = b"{}", *, now_us: int = NOW) -> Claimed:
    """Claim a call with a body."""
    return store.claim(one, sha256(body).digest(), now_us)


def test_a_call_is_made_once() -> None:
    """The first claim is fresh, one meanwhile is in progress, and one after it gets the answer again."""
    store = IdempotencyStore()
    assert ask(store, claim()) == Fresh()
    assert ask(store, claim()) == InProgress()
    store.complete(claim(), 201, b'{"a": 1}', NOW)
    assert ask(store, claim()) == ask(store, claim()) == Replay(status=201, body=b'{"a": 1}')


def test_another_body_is_a_mismatch() -> None:
    """The key of another body is refused, while the call is made and afterwards; the answer stays."""
    store = IdempotencyStore()
    ask(store, claim())
    assert ask(store, claim(), b"{ }") == Mismatch()
    store.complete(claim(), 200, b"done", NOW)
    assert ask(store, claim(), b"{ }") == Mismatch()
    assert ask(store, claim()) == Replay(status=200, body=b"done")


@pytest.mark.parametrize("status", [199, 300, 400, 409, 429, 500])
def test_only_success_is_kept(status: int) -> None:
    """A call that was refused had no effect, and may be tried anew, with another body too."""
    store = IdempotencyStore()
    ask(store, claim())
    store.complete(claim(), status, b"no", NOW)
    assert ask(store, claim(), b"other") == Fresh()
    assert len(store) == 0


def test_a_secret_is_never_kept() -> None:
    """A repeat of a call that made a secret learns which key and version it was."""
    store = IdempotencyStore()
    ask(store, claim())
    store.complete_secret(claim(), "id", 3, NOW)
    assert ask(store, claim()) == SecretMade(key_id="id", version=3)
    assert ask(store, claim(), b"other") == Mismatch()


@pytest.mark.parametrize(
    "other",
    [
        claim("key-0002"),
        claim(identity="other"),
        claim(method="PUT"),
        claim(target=b"/x?y=2"),
        claim(target=b"/x%3Fy=1"),
    ],
)
def test_the_scope_of_a_key(other: Claim) -> None:
    """Another identity, method, path or query with the same key is another call."""
    store = IdempotencyStore()
    ask(store, claim())
    store.complete(claim(), 200, b"", NOW)
    assert ask(store, other) == Fresh()


def test_an_answer_is_kept_for_its_window() -> None:
    """An answer is there for 30 days, to the microsecond."""
    store = IdempotencyStore()
    ask(store, claim())
    store.complete(claim(), 200, b"body", NOW)
    assert ask(store, claim(), now_us=NOW + WINDOW_US - 1) == Replay(status=200, body=b"body")
    assert ask(store, claim(), now_us=NOW + WINDOW_US) == Fresh()


def test_a_full_store_forgets_nothing() -> None:
    """With no room left a new call is turned away before it is made; known ones are answered, old ones make room."""
    for store in (IdempotencyStore(max_entries=1), IdempotencyStore(max_bytes=4)):
        ask(store, claim())
        store.complete(claim(), 200, b"body", NOW)
        assert ask(store, claim("key-0002")) == Full()
        assert ask(store, claim()) == Replay(status=200, body=b"body")
        assert ask(store, claim("key-0002"), now_us=NOW + WINDOW_US) == Fresh()


def test_released_claims_make_room() -> None:
    """A claim in progress takes a place, and gives it back."""
    store = IdempotencyStore(max_entries=1)
    ask(store, claim())
    assert ask(store, claim("key-0002")) == Full()
    store.release(claim())
    store.release(claim())
    assert ask(store, claim("key-0002")) == Fresh()


def test_a_copy_goes_its_own_way() -> None:
    """What is claimed in a copy is not claimed in the original."""
    store = IdempotencyStore()
    ask(store, claim())
    store.complete(claim(), 200, b"secretive body", NOW)
    other = store.copy()
    ask(other, claim("key-0002"))
    assert (ask(store, claim("key-0002")), ask(other, claim())) == (
        Fresh(),
        Replay(status=200, body=b"secretive body"),
    )
    assert "secretive" not in repr(store) + repr(ask(other, claim()))


@pytest.mark.parametrize("key", ["", "a" * 7, "a" * 129, "with space", "tabtab\t\t", "ü" * 8, "line\nfeed", "\x7f" * 8])
def test_a_wrong_key(key: str) -> None:
    """A key is 8 to 128 visible ASCII characters; the error does not repeat it."""
    with pytest.raises(ValueError, match="visible ASCII") as refused:
        checked_key(key)
    assert not key or key not in str(refused.value)
    assert checked_key("a" * 8) + checked_key("~!" * 64) == "a" * 8 + "~!" * 64


# --- a lossy line ----------------------------------------------------------------------------------------------------


class Forgets(IdempotencyStore):
    """A broken store: it makes room by forgetting."""

    def claim(self, claim: Claim, body_digest: bytes, now_us: int) -> Claimed:
        found = super().claim(claim, body_digest, now_us)
        while isinstance(found, Full):
            self._kept.popitem(last=False)
            found = super().claim(claim, body_digest, now_us)
        return found


class KeepsRefusals(IdempotencyStore):
    """A broken store: a refusal is final."""

    def complete(self, claim: Claim, status: int, body: bytes, now_us: int) -> None:
        super().complete(claim, 200, body, now_us)


class NeverLooks(IdempotencyStore):
    """A broken store: every call is new."""

    def claim(self, claim: Claim, body_digest: bytes, now_us: int) -> Claimed:
        return Fresh()

    def complete(self, claim: Claim, status: int, body: bytes, now_us: int) -> None:
        pass


def walk(store: IdempotencyStore, seed: int) -> None:
    """Consume credits over a line that loses replies and sends calls again, and compare with what was meant.

    A call that was refused for want of credits is sent until it succeeds; in the middle the plan is raised.
    """
    draw = random.Random(seed)
    clock = ManualClock()
    hub = HubService(clock=clock)
    hub._state.idempotency = store
    acme = hub.add_tenant("acme", plan="free")
    hub.set_limit(acme, "credits", 5)
    meant = [claim(f"key-{number:04}") for number in range(12)]
    done: set[Claim] = set()
    for step in range(80):
        if step == 40:
            hub.set_limit(acme, "credits", None)
        one = draw.choice(meant)
        consume(hub, one, acme)
        done.add(one)
        clock.advance(us=SECOND_US)
    for one in meant:
        consume(hub, one, acme)
    assert hub.used(acme, "credits") == len(meant)


def consume(hub: HubService, one: Claim, tenant: str) -> None:
    """One delivery of a call, as a server makes it: claim, effect and answer in one transaction."""
    with hub.transaction() as state:
        now_us = hub.clock.now()[1]
        claimed = ask(state.idempotency, one, now_us=now_us)
        if claimed != Fresh():
            return
        try:
            hub.desk.consume_credits(tenant, 1, "op")
        except Exception:
            state.idempotency.complete(one, 429, b"", now_us)
        else:
            state.idempotency.complete(one, 200, b"done", now_us)


@pytest.mark.parametrize("seed", range(examples(10, 200)))
def test_a_lossy_line_has_each_effect_once(seed: int) -> None:
    """However often and in whatever order calls are repeated, each takes its credit once."""
    walk(IdempotencyStore(), seed)


@pytest.mark.parametrize("broken", [Forgets, KeepsRefusals, NeverLooks])
def test_a_broken_store_is_caught(broken: type[IdempotencyStore]) -> None:
    """The walk fails on a store that forgets to make room, keeps refusals, or does not look."""
    caught = 0
    for seed in range(10):
        try:
            walk(broken(max_entries=4) if broken is Forgets else broken(), seed)
        except AssertionError:
            caught += 1
    assert caught >= 8
