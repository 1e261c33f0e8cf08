"""The cache that takes its tenant from the context, and what the usual caches do instead."""

from __future__ import annotations

import functools
import hashlib
import pickle
import random
from collections.abc import Hashable, Iterator
from typing import Any, cast

import pytest

from hivetenancy.cache import ContentIds, TenantCache
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, MissingTenantError
from hivetenancy.ids import TenantId
from hivetenancy.tenant import current_tenant
from hivetenancy.testing import ManualClock
from tests.tenants import ACME, BETA, a_process, a_tenant
from tests.tiers import examples


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


class NoTenant(TenantCache):
    """A cache whose key lacks the tenant."""

    def _run(self, method: str, *args: Any, **options: Any) -> Any:
        with a_tenant("everybody").bound():
            return getattr(super(), method)(*args, **options)

    def get(self, *args: Any, **options: Any) -> Any:
        return self._run("get", *args, **options)

    def put(self, *args: Any, **options: Any) -> None:
        self._run("put", *args, **options)


class NoGeneration(TenantCache):
    """A cache that goes on over a deletion."""

    def _share(self, context: Any) -> Any:
        return self._shares.get(context.tenant_id)


class NoKind(TenantCache):
    """A cache that forgets what it is that it keeps."""

    def get(self, kind: str, key: Any, default: Any = None, **options: Any) -> Any:
        return super().get("", key, default, **options)

    def put(self, kind: str, key: Any, value: Any, **options: Any) -> None:
        super().put("", key, value, **options)


def foreign(cache: TenantCache) -> list[str]:
    """Which values of others a walk over tenants, generations and kinds gets to see."""
    seen = []
    places = [
        (a_tenant(name, generation=life), kind)
        for life in (1, 2)
        for name in ("acme", "beta")
        for kind in ("doc", "plan")
    ]
    for writer, kind in places:
        with writer.bound():
            mine = f"{writer.id} {writer.context.generation} {kind}"
            cache.put(kind, "key", mine)
            assert cache.get(kind, "key") == mine
        for reader, other in places:
            with reader.bound():
                found = cache.get(other, "key")
                own = f"{reader.id} {reader.context.generation} {other}"
                if found not in (None, own):
                    seen.append(f"{own} saw {found}")
    return seen


def test_a17_a_cache_serves_nobody_what_is_anothers() -> None:
    """Over tenants, lives and kinds with one key: each sees its own, or nothing."""
    assert foreign(TenantCache()) == []


@pytest.mark.parametrize("broken", [NoTenant, NoGeneration, NoKind])
def test_a17_a_cache_that_forgets_a_part_of_the_key_is_found(broken: type[TenantCache]) -> None:
    """The walk above fails for caches without tenant, generation or kind."""
    assert foreign(broken())


def test_a17_a32_what_lru_cache_does_and_this_does_not() -> None:
    """``lru_cache`` hands one tenant's value to the next, and a plan that captured a tenant goes on acting for it."""

    @functools.lru_cache
    def leaky(name: str) -> str:
        return current_tenant().kv.prefix + name

    def plan() -> Any:
        prefix = current_tenant().kv.prefix  # captured
        return lambda name: prefix + name

    cache = TenantCache()

    def kept(name: str) -> str:
        found = cache.get("physical", name)
        if found is None:
            found = current_tenant().kv.prefix + name
            cache.put("physical", name, found)
        return str(found)

    with ACME.bound():
        captured = plan()
        assert leaky("a") == kept("a") == captured("a") == "user:acme:a"
    with BETA.bound():
        assert leaky("a") == captured("a") == "user:acme:a"
        assert kept("a") == kept("a") == "user:beta:a"


def test_a17_without_a_tenant_nothing_is_kept_or_found() -> None:
    """Every method that reads or writes values raises; those for operators name the tenant."""
    cache = TenantCache()
    with ACME.bound():
        cache.put("doc", "a", 1)
    for call in (cache.get, cache.invalidate, functools.partial(cache.put, value=2)):
        with pytest.raises(MissingTenantError):
            call("doc", "a")  # type: ignore[operator]
    with pytest.raises(MissingTenantError):
        ContentIds().of(b"x")
    assert (cache.count(ACME.id), len(cache)) == (1, 1)


def test_values_count_until_their_time() -> None:
    """Until just before, and no longer; on the clock that is passed, or the cache's; each value may have its own."""
    clock = ManualClock()
    cache = TenantCache(ttl_seconds=10, clock=clock)
    with ACME.bound():
        cache.put("doc", "a", 1)
        cache.put("doc", "b", 2, ttl_seconds=1)
        now = clock.now()
        cache.put("doc", "c", 3, now=(now[0] + 5 * SECOND_US, 0))
        assert (cache.get("doc", "b", now=(now[0] + SECOND_US - 1, 0)), cache.get("doc", "x", "no")) == (2, "no")
        clock.advance(seconds=1)
        assert (cache.get("doc", "b", "gone"), len(cache)) == ("gone", 2)
        clock.advance(seconds=9)
        assert (cache.get("doc", "a"), cache.get("doc", "c"), len(cache)) == (None, 3, 1)
        cache.put("doc", "none", None)
        assert cache.get("doc", "none", "default") is None


def test_dropping_and_invalidating() -> None:
    """One value, or all of a tenant; the neighbour keeps its own."""
    cache = TenantCache()
    for tenant in (ACME, BETA):
        with tenant.bound():
            for key in "abc":
                cache.put("doc", key, tenant.id)
    with ACME.bound():
        cache.invalidate("doc", "a")
        cache.invalidate("doc", "a")
        cache.invalidate("plan", "b")
        assert [cache.get("doc", key) for key in "abc"] == [None, "acme", "acme"]
    assert (cache.drop(ACME.id), cache.drop(ACME.id), cache.drop(TenantId("nobody"))) == (2, 0, 0)
    assert (cache.count(ACME.id), cache.count(BETA.id), len(cache)) == (0, 3, 3)
    with BETA.bound():
        for key in "abc":
            cache.invalidate("doc", key)
    assert (len(cache), len(cache._shares)) == (0, 0)


def test_a38_an_earlier_life_keeps_nothing() -> None:
    """Work that outlived its tenant's deletion writes to nobody's cache, and finds nothing of the next life."""
    cache = TenantCache()
    old, new = a_tenant("acme"), a_tenant("acme", generation=2)
    with old.bound():
        cache.put("doc", "a", "old")
    with new.bound():
        assert cache.get("doc", "a") is None
        cache.put("doc", "b", "new")
    with old.bound():
        cache.put("doc", "b", "late")
        assert (cache.get("doc", "a"), cache.get("doc", "b")) == (None, None)
    with new.bound():
        assert cache.get("doc", "b") == "new"
    assert len(cache) == 1


def test_a_noisy_tenant_takes_no_more_than_its_share() -> None:
    """Its own oldest value goes first; over all, the tenant's that was idle longest."""
    cache = TenantCache(max_entries=6, max_per_tenant=3)
    with BETA.bound():
        cache.put("doc", "kept", 1)
    with ACME.bound():
        for key in range(1_000):
            cache.put("doc", key, key)
        assert [cache.get("doc", key) for key in (996, 997, 998, 999)] == [None, 997, 998, 999]
    with BETA.bound():
        assert cache.get("doc", "kept") == 1
    for name in ("c", "d", "e"):
        with a_tenant(name).bound():
            cache.put("doc", "x", name)
    assert (cache.count(ACME.id), cache.count(BETA.id), len(cache)) == (2, 1, 6)


def test_random_walk_stays_within_its_bounds() -> None:
    """Whatever is done, the bounds hold and the count is right; and nobody sees a value of somebody else."""
    source, clock = random.Random(3), ManualClock()
    cache = TenantCache(max_entries=20, max_per_tenant=5, ttl_seconds=3, clock=clock)
    tenants = [a_tenant(name, generation=life) for name in "abcdefgh" for life in (1, 2)]
    for _ in range(examples(3_000, 100_000)):
        tenant, key = source.choice(tenants), source.randrange(8)
        own = (tenant.id, tenant.context.generation, key)
        with tenant.bound():
            match source.randrange(8):
                case 0:
                    cache.invalidate("doc", key)
                case 1:
                    cache.drop(tenant.id)
                case 2:
                    clock.advance(seconds=1)
                case 3 | 4:
                    cache.put("doc", key, own)
                case _:
                    assert cache.get("doc", key) in (None, own)
        shares = cache._shares.values()
        assert len(cache) == sum(len(share.entries) for share in shares) <= 20
        assert all(0 < len(share.entries) <= 5 for share in shares)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_entries": 0},
        {"max_per_tenant": 0},
        {"max_entries": 5, "max_per_tenant": 6},
        {"ttl_seconds": 0},
        {"ttl_seconds": float("nan")},
        {"ttl_seconds": float("inf")},
    ],
)
def test_a_cache_that_cannot_be(wrong: dict[str, Any]) -> None:
    """Bounds that make no sense are refused when it is built."""
    with pytest.raises(ConfigurationError):
        TenantCache(**wrong)


def test_a_key_that_is_none_leaves_all_as_it_was() -> None:
    """What cannot be hashed raises; no empty share is left, and nothing of an earlier life is dropped for it."""
    cache, none = TenantCache(), cast("Hashable", [])
    with a_tenant("acme").bound():
        with pytest.raises(TypeError):
            cache.put("kind", none, 1)
        assert cache._shares == {}
        cache.put("kind", 1, 1)
    with a_tenant("acme", generation=2).bound(), pytest.raises(TypeError):
        cache.put("kind", none, 1)
    assert len(cache) == 1


# --- content ----------------------------------------------------------------------------------------------------------


def existing(content_id: Any) -> list[str]:
    """What a second tenant, and a second life, learn about the content of the first from ids in a shared store."""
    store = set()
    with a_tenant("acme").bound():
        store.add(content_id(b"secret plan"))
        assert content_id(b"secret plan") in store
        assert content_id(b"another") not in store
    others = (a_tenant("beta"), a_tenant("acme", generation=2), a_tenant("1-acme"))
    learned = []
    for tenant in others:
        with tenant.bound():
            if content_id(b"secret plan") in store:
                learned.append(tenant.id)
    return learned


def test_a18_the_same_content_has_another_id_for_each_tenant() -> None:
    """Who has the id learns nothing of others; who has the secret makes the same ids elsewhere."""
    assert existing(ContentIds().of) == []
    with ACME.bound():
        assert ContentIds(b"x" * 32).of(b"c") == ContentIds(b"x" * 32).of(b"c") != ContentIds().of(b"c")
        assert len(ContentIds().of(b"")) == 64
    assert repr(ContentIds()) == "<ContentIds>"
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        ContentIds(b"short")


def test_the_secret_of_content_ids_is_not_pickled() -> None:
    """It would leave the process in every copy of what holds it."""
    with pytest.raises(TypeError, match="a secret is not pickled"):
        pickle.dumps(ContentIds(b"s" * 32))


def test_a18_a_plain_content_hash_tells() -> None:
    """The test above fails for a hash of the content alone, and for one that is salted for all alike."""
    assert existing(lambda content: hashlib.sha256(content).hexdigest()) == ["beta", "acme", "1-acme"]
    assert existing(lambda content: hashlib.blake2b(content, key=b"x" * 32).hexdigest())


def test_d06_a_query_cache_answered_before_anybody_looked_whose_it_was() -> None:
    """Two tenants ask the same of collections of one name: with a cache of what was asked alone the second one reads
    the first one's answer, and with this one each reads its own."""
    asked = ("docs", "similar to [0.1, 0.2]", 10, 0.5)
    plain: dict[Any, str] = {}
    cache = TenantCache()
    answers = []
    for tenant in (ACME, BETA):
        with tenant.bound():
            found = f"what {current_tenant().collections.key('docs')!s} holds"
            theirs = plain.setdefault(asked, found)
            mine = cache.get("search", asked)
            if mine is None:
                cache.put("search", asked, found)
                mine = cache.get("search", asked)
            answers.append((theirs, mine))
    assert answers == [
        ("what user_acme:docs holds", "what user_acme:docs holds"),
        ("what user_acme:docs holds", "what user_beta:docs holds"),
    ]
