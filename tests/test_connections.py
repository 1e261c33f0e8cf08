"""Open connections end with their key, their tenant or their server, and leave nothing behind."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest

from hivetenancy.access_keys import Principal
from hivetenancy.connections import ConnectionRegistry, OpenConnection
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.sources import ChangeEvent, ChangeType


def principal(key: str = "k1", tenant: str = "acme", *, ends: int | None = None) -> Principal:
    """Return a principal of *tenant*."""
    return Principal(
        tenant_id=TenantId(tenant),
        key_id=KeyId(key),
        version=1,
        permissions=frozenset(Permission),
        functions=None,
        surfaces=None,
        environment=Environment.TEST,
        plan="pro",
        mask=0,
        registry_version=0,
        verified_at_us=0,
        ends_at_us=ends,
        generation=1,
        digest=key.encode(),
    )


class Peer:
    """Counts how it is closed."""

    def __init__(self, *, broken: bool = False) -> None:
        self.reasons: list[Reason] = []
        self.broken = broken

    def __call__(self, reason: Reason, /) -> None:
        self.reasons.append(reason)
        if self.broken:
            raise RuntimeError("the transport is gone")


def event(kind: ChangeType, *, key: str | None = None, tenant: str | None = None) -> ChangeEvent:
    """Return a change."""
    return ChangeEvent(
        revision=9,
        type=kind,
        at_us=0,
        key_id=None if key is None else KeyId(key),
        tenant_id=None if tenant is None else TenantId(tenant),
    )


def test_a_revocation_closes_every_connection_of_the_key_and_no_other() -> None:
    """Each once, with the reason."""
    registry, ours, twin, other = ConnectionRegistry(), Peer(), Peer(), Peer()
    for peer, key in ((ours, "k1"), (twin, "k1"), (other, "k2")):
        registry.add(principal(key), peer)
    registry.on_event(event(ChangeType.KEY_REVOKED, key="k1", tenant="acme"))
    registry.on_event(event(ChangeType.KEY_REVOKED, key="k1", tenant="acme"))
    assert (ours.reasons, twin.reasons, other.reasons) == ([Reason.REVOKED_KEY], [Reason.REVOKED_KEY], [])
    assert len(registry) == 1


@pytest.mark.parametrize("kind", [ChangeType.USER_SUSPENDED, ChangeType.USER_DELETING, ChangeType.USER_DELETED])
def test_the_end_of_a_tenant_closes_all_its_keys(kind: ChangeType) -> None:
    """Suspended, being deleted, deleted: everything of the tenant, nothing of another."""
    registry, peers, other = ConnectionRegistry(), [Peer() for _ in range(4)], Peer()
    for n, peer in enumerate(peers):
        registry.add(principal(f"k{n % 2}"), peer)
    registry.add(principal("k9", "globex"), other)
    registry.on_event(event(kind, tenant="acme"))
    assert [peer.reasons for peer in peers] == [[Reason.SUSPENDED_TENANT]] * 4
    assert other.reasons == []
    assert len(registry) == 1


def test_an_end_on_the_clock_closes_at_that_moment() -> None:
    """Not a microsecond early, and the next end is told so that somebody can sleep until then."""
    registry, first, second, never = ConnectionRegistry(), Peer(), Peer(), Peer()
    registry.add(principal("k2", ends=200), second)
    registry.add(principal("k1", ends=100), first)
    registry.add(principal("k3"), never)
    assert registry.close_due((99, 0)) == 100
    assert registry.close_due((100, 0)) == 200
    assert (first.reasons, second.reasons) == ([Reason.EXPIRED_KEY], [])
    assert registry.close_due((500, 0)) is None
    assert (second.reasons, never.reasons) == ([Reason.EXPIRED_KEY], [])


def test_a_renewed_end_replaces_the_old_one() -> None:
    """A key whose life was prolonged stays open past its first end; one that was cut short ends earlier."""
    registry, longer, shorter, endless = ConnectionRegistry(), Peer(), Peer(), Peer()
    entries = [registry.add(principal(f"k{n}", ends=100), peer) for n, peer in enumerate((longer, shorter, endless))]
    entries[0].renew(principal("k0", ends=300))
    entries[1].renew(principal("k1", ends=50))
    entries[2].renew(principal("k2", ends=None))
    assert registry.close_due((60, 0)) == 300
    assert (longer.reasons, shorter.reasons, endless.reasons) == ([], [Reason.EXPIRED_KEY], [])
    assert registry.close_due((300, 0)) is None
    assert (longer.reasons, endless.reasons) == ([Reason.EXPIRED_KEY], [])


@pytest.mark.parametrize(
    "kind, key",
    [
        (ChangeType.KEY_CHANGED, "k1"),
        (ChangeType.KEY_ROTATED, "k1"),
        (ChangeType.USER_CHANGED, None),
        (ChangeType.USER_RESUMED, None),
    ],
)
@pytest.mark.anyio
async def test_a_change_is_looked_at_anew(kind: ChangeType, key: str | None) -> None:
    """Who is refused now is closed with that reason, who is not goes on with the newer answer; others are not asked."""
    registry, kept, gone, other = ConnectionRegistry(), Peer(), Peer(), Peer()
    first = registry.add(principal("k1"), kept)
    registry.add(principal("k1"), gone)
    registry.add(principal("k9", "globex"), other)
    woken: list[bool] = []
    registry.on_wake(lambda: woken.append(True))
    registry.on_event(event(kind, key=key, tenant="acme"))
    assert woken
    assert registry.in_doubt
    newer, asked = principal("k1", ends=70), []

    async def ask(who: Principal) -> Principal | Refusal:
        asked.append(who.key_id)
        return newer if who is first.principal else Refusal(reason=Reason.EXPIRED_KEY)

    await registry.recheck(ask)
    assert asked == ["k1", "k1"]
    assert (kept.reasons, gone.reasons, other.reasons) == ([], [Reason.EXPIRED_KEY], [])
    assert first.principal is newer
    assert not registry.in_doubt


@pytest.mark.anyio
async def test_a_reset_doubts_everybody() -> None:
    """Events may have been missed, a revocation among them."""
    registry, peers = ConnectionRegistry(), [Peer() for _ in range(3)]
    for n, peer in enumerate(peers):
        registry.add(principal(f"k{n}", f"t{n}"), peer)
    registry.on_reset(30)

    async def revoked(_: Principal) -> Refusal:
        return Refusal(reason=Reason.REVOKED_KEY)

    await registry.recheck(revoked)
    assert [peer.reasons for peer in peers] == [[Reason.REVOKED_KEY]] * 3


class Forgetful(ConnectionRegistry):
    """A broken registry: a doubt is gone once it was asked about, whatever came of it."""

    async def recheck(self, ask: Callable[..., object]) -> None:  # type: ignore[override]
        """Ask, and forget."""
        doubtful, self._doubtful = self._doubtful, set()
        for entry in doubtful:
            answer = await ask(entry.principal)  # type: ignore[misc]
            if isinstance(answer, Refusal):
                entry._end(answer.reason)


async def _outage_then_revoked(registry: ConnectionRegistry, failure: BaseException) -> list[list[Reason]]:
    """Doubt three connections, let the question fail, then answer that they are revoked; return how they ended."""
    peers = [Peer() for _ in range(3)]
    for n, peer in enumerate(peers):
        registry.add(principal(f"k{n}"), peer)
    registry.on_reset(0)

    async def fails(_: Principal) -> Principal:
        raise failure

    async def revoked(_: Principal) -> Refusal:
        return Refusal(reason=Reason.REVOKED_KEY)

    try:
        await registry.recheck(fails)
    except type(failure):
        pass
    await registry.recheck(revoked)
    return [peer.reasons for peer in peers]


@pytest.mark.parametrize("failure", [HubUnavailableError("down"), RuntimeError("a bug in the source")])
@pytest.mark.anyio
async def test_who_could_not_be_asked_about_stays_in_doubt(failure: Exception) -> None:
    """An outage, or a fault of whoever is asked, must not turn a doubt into trust; a forgetful registry does."""
    assert await _outage_then_revoked(ConnectionRegistry(), failure) == [[Reason.REVOKED_KEY]] * 3
    assert await _outage_then_revoked(Forgetful(), failure) != [[Reason.REVOKED_KEY]] * 3


@pytest.mark.anyio
async def test_a_connection_that_ends_while_it_is_asked_about_is_not_closed_again() -> None:
    """Nor entered again by the answer."""
    registry, peer = ConnectionRegistry(), Peer()
    entry = registry.add(principal(ends=100), peer)
    registry.on_reset(0)

    async def leaves(who: Principal) -> Principal:
        entry.remove()
        return replace(who, ends_at_us=50)

    await registry.recheck(leaves)
    assert registry.close_due((1000, 0)) is None
    assert (len(registry), peer.reasons) == (0, [])


class Fragile(OpenConnection):
    """A broken entry: what closing raises gets through."""

    __slots__ = ()

    def _end(self, reason: Reason) -> None:
        if self.open:
            self.remove()
            self._close(reason)


def test_one_broken_close_keeps_no_other_open(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the rest is closed; an entry that lets it through leaves others open."""
    registry, peers = ConnectionRegistry(), [Peer(broken=True) for _ in range(3)]
    for peer in peers:
        registry.add(principal(), peer)
    registry.close_all(Reason.SERVER_STOPS)
    assert [peer.reasons for peer in peers] == [[Reason.SERVER_STOPS]] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert len(registry) == 0

    monkeypatch.setattr("hivetenancy.connections.OpenConnection", Fragile)
    fragile, peers = ConnectionRegistry(), [Peer(broken=True) for _ in range(3)]
    for peer in peers:
        fragile.add(principal(), peer)
    with pytest.raises(RuntimeError):
        fragile.close_all(Reason.SERVER_STOPS)
    assert sum(len(peer.reasons) for peer in peers) == 1


def test_leaving_by_itself_closes_nothing_and_may_be_said_twice() -> None:
    """The host closed it already; a revocation after that finds nobody."""
    registry, peer = ConnectionRegistry(), Peer()
    entry = registry.add(principal(ends=5), peer)
    entry.remove()
    entry.remove()
    registry.on_event(event(ChangeType.KEY_REVOKED, key="k1"))
    assert registry.close_due((10, 0)) is None
    assert (len(registry), peer.reasons, entry.open) == (0, [], False)


def test_the_heap_stays_bounded() -> None:
    """20,000 short connections with an end, and one that is renewed as often, leave a handful of rows."""
    registry = ConnectionRegistry()
    lasting = registry.add(principal("k0", ends=10**9), Peer())
    for n in range(20_000):
        registry.add(principal("k1", ends=10**9 + n), Peer()).remove()
        lasting.renew(principal("k0", ends=10**9 + n % 7))
    assert len(registry._ends) <= 70
    assert registry.close_due((2 * 10**9, 0)) is None
    assert not lasting.open


def test_memory_is_freed() -> None:
    """A registry without connections keeps no key, no tenant, and none of the closed connections' owners."""
    registry, peers = ConnectionRegistry(), [Peer() for _ in range(50)]
    watched = [weakref.ref(peer) for peer in peers]
    for n, peer in enumerate(peers):
        registry.add(principal(f"k{n}", f"t{n % 5}"), peer)
    registry.on_reset(0)
    for n in range(5):
        registry.on_event(event(ChangeType.USER_DELETED, tenant=f"t{n}"))
    del peers, peer
    gc.collect()
    assert [ref() for ref in watched] == [None] * 50
    assert (registry._by_key, registry._by_tenant, registry._doubtful, registry._ends) == ({}, {}, set(), [])


def test_a_waker_can_leave() -> None:
    """It hears of nearer ends until it does."""
    registry, heard = ConnectionRegistry(), []
    leave = registry.on_wake(lambda: heard.append(1))
    registry.add(principal(ends=5), Peer())
    leave()
    registry.add(principal(ends=4), Peer())
    assert heard == [1]
