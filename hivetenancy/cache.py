"""A cache that cannot serve one tenant what was computed for another.

A cache in front of tenants' data leaks when its key lacks the tenant: ``functools.lru_cache`` on a method, a dictionary
keyed by a content hash, a compiled plan that captured a tenant's value. Here the tenant is no part that a caller could
forget: it is taken from the context, together with the tenant's generation, at each call. There is no decorator, so
that nothing is kept of the context in which a function was defined.

The same for content that is stored once (`ContentIds`): its id is salted with the tenant, so that two tenants with the
same content have two ids, and nobody learns from an id that somebody else has it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final, NoReturn, TypeVar, overload

from cachetools import LRUCache

from hivetenancy.clock import SECOND_US, Clock, Instant, SystemClock
from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import TenantId
from hivetenancy.tenant import current_tenant

D = TypeVar("D")


class _Share:
    """What is kept of one life of one tenant: by kind and key, the value and until when it counts.

    `cachetools.LRUCache` bounds it. Its TLRUCache is not used: it reads a timer of its own at each call, also where the
    instant is known, and counts entries by walking through them.
    """

    __slots__ = ("entries", "generation")

    def __init__(self, generation: int, most: int) -> None:
        self.generation = generation
        self.entries: LRUCache[tuple[str, Hashable], tuple[Any, int]] = LRUCache(most)


class TenantCache:
    """Keeps values by tenant, generation, kind and key.

    Args:
        max_entries: How many values are kept over all tenants. Beyond, the tenant goes first that was idle longest, its
            own least recently used value first.
        max_per_tenant: How many of them one tenant may have; beyond, its own least recently used value goes.
        ttl_seconds: How long a value counts from when it was put.
        clock: For calls without an instant.

    Raises:
        ConfigurationError: A number is out of range.

    Concurrency:
        Belongs to one thread, that of the loop; it takes no lock.
    """

    __slots__ = ("_clock", "_each", "_most", "_shares", "_size", "_ttl_us")

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_per_tenant: int = 1_000,
        ttl_seconds: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        if not 1 <= max_per_tenant <= max_entries:
            raise ConfigurationError("max_per_tenant must be at least 1 and at most max_entries")
        if not 1 <= ttl_seconds * SECOND_US < math.inf:
            raise ConfigurationError(f"ttl_seconds must be above 0 and finite, got {ttl_seconds!r}")
        self._most, self._each = max_entries, max_per_tenant
        self._ttl_us = round(ttl_seconds * SECOND_US)
        self._clock: Clock = clock or SystemClock()
        self._shares: OrderedDict[TenantId, _Share] = OrderedDict()  # the longest idle first
        self._size = 0

    def __len__(self) -> int:
        """How many values are kept, those included that no longer count."""
        return self._size

    @overload
    def get(self, kind: str, key: Hashable, *, now: Instant | None = None) -> Any: ...
    @overload
    def get(self, kind: str, key: Hashable, default: D, *, now: Instant | None = None) -> Any | D: ...
    def get(self, kind: str, key: Hashable, default: object = None, *, now: Instant | None = None) -> Any:
        """Return what the running tenant has put there, while it counts; else *default*.

        Raises:
            MissingTenantError: No tenant is bound.
        """
        share = self._share(current_tenant().context)
        kept = None if share is None else share.entries.get((kind, key))
        if share is None or kept is None:
            return default
        value, until_us = kept
        if (now or self._clock.now())[0] < until_us:
            return value
        self._remove(kind, key)
        return default

    def put(
        self, kind: str, key: Hashable, value: object, *, ttl_seconds: float | None = None, now: Instant | None = None
    ) -> None:
        """Keep *value* for the running tenant.

        Work of an earlier life of the tenant, which is still about, keeps nothing.

        Args:
            kind: What it is, so that one key may stand for several things.
            key: Which one. Whatever the value depends on, but for the tenant, has to be in it.
            value: What to keep.
            ttl_seconds: How long it counts; ``None``: as the cache says.
            now: The present; ``None``: the cache reads its clock.

        Raises:
            MissingTenantError: No tenant is bound.
        """
        context = current_tenant().context
        hash(key)  # one that has none raises before anything is kept or dropped
        lasts_us = self._ttl_us if ttl_seconds is None else round(ttl_seconds * SECOND_US)
        share = self._share(context)
        if share is None:
            if self._outlived(context):
                return
            self.drop(context.tenant_id)
            share = self._shares[context.tenant_id] = _Share(context.generation, self._each)
        before = len(share.entries)
        share.entries[kind, key] = (value, (now or self._clock.now())[0] + lasts_us)
        self._size += len(share.entries) - before
        while self._size > self._most:
            self._make_room()

    def invalidate(self, kind: str, key: Hashable) -> None:
        """Drop what the running tenant has put there, if anything.

        Raises:
            MissingTenantError: No tenant is bound.
        """
        share = self._share(current_tenant().context)
        if share is not None and (kind, key) in share.entries:
            self._remove(kind, key)

    def drop(self, tenant: TenantId) -> int:
        """Drop all of *tenant*, of whatever life; return how many values that were. For deletions and for changes."""
        share = self._shares.pop(tenant, None)
        count = 0 if share is None else len(share.entries)
        self._size -= count
        return count

    def count(self, tenant: TenantId) -> int:
        """Return how many values are kept of *tenant*, of whatever life."""
        share = self._shares.get(tenant)
        return 0 if share is None else len(share.entries)

    def _share(self, context: TenantContext) -> _Share | None:
        """Return the share of this very life of the tenant, which is in use from now on."""
        share = self._shares.get(context.tenant_id)
        if share is None or share.generation != context.generation:
            return None
        self._shares.move_to_end(context.tenant_id)
        return share

    def _outlived(self, context: TenantContext) -> bool:
        """Whether a later life of the tenant is known."""
        share = self._shares.get(context.tenant_id)
        return share is not None and share.generation > context.generation

    def _remove(self, kind: str, key: Hashable) -> None:
        """Remove an entry of the running tenant, and its share with the last one."""
        tenant = current_tenant().id
        share = self._shares[tenant]
        del share.entries[kind, key]
        self._size -= 1
        if not share.entries:
            del self._shares[tenant]

    def _make_room(self) -> None:
        idle, share = next(iter(self._shares.items()))
        if share.entries:
            share.entries.popitem()
            self._size -= 1
        if not share.entries:
            del self._shares[idle]


_ID_BYTES: Final = 32


class ContentIds:
    """Names content by what it is, apart for each tenant, so that a store may keep each piece once a tenant.

    Args:
        secret: At least 32 bytes, the same wherever the ids are compared, as ``tenancy.subkey("content")`` gives;
            ``None``: random, so that ids mean nothing outside this process.

    Raises:
        ConfigurationError: *secret* is too short.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | None = None) -> None:
        if secret is not None and len(secret) < _ID_BYTES:
            raise ConfigurationError(f"secret must be at least {_ID_BYTES} bytes")
        self._secret = hashlib.blake2b(secret or secrets.token_bytes(_ID_BYTES), person=b"hvt-content").digest()

    def __repr__(self) -> str:
        return "<ContentIds>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: build it in the process that needs it")

    def of(self, content: bytes) -> str:
        """Return the id of *content* for the running tenant: 64 hex digits, different in each life of each tenant.

        Raises:
            MissingTenantError: No tenant is bound.
        """
        context = current_tenant().context
        owner = f"{context.generation}:{context.tenant_id}".encode("utf-8", "surrogatepass")
        salt = hashlib.blake2b(owner, key=self._secret, digest_size=_ID_BYTES).digest()
        return hashlib.blake2b(content, key=salt, digest_size=_ID_BYTES).hexdigest()
