"""Handles, kept in memory or in a store outside of the process.

A handle is looked up under (tenant, generation, kind, handle) and never under itself. So there is no moment in which
somebody else's handle has been found and must be kept back: it is not there, as one that never was is not there, and
whoever watches the calls on the store sees the same ones.

With a secret, a handle also holds a code (keyed BLAKE2b) over the same four. Then one that was not issued to this
tenant is known without asking, and a store in another machine is never asked by those who guess.

Source: isolation note, attacks A19 to A22; the code of 128 bits costs some 2 us.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from hmac import compare_digest
from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from hivetenancy.clock import DAY_US, HOUR_US, Clock, Instant, SystemClock
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, DeniedError, InvalidNameError, StoreUnavailableError
from hivetenancy.hooks import IsolationKind, IsolationSink, report_isolation
from hivetenancy.ids import TenantId

from .protocol import HandleKind, Handles, HandleStore

V = TypeVar("V")

SECRET_BYTES_MIN: Final = 32
"""Shortest secret: as much as a key of 256 bits."""
_RANDOM_BYTES: Final = 16
_CODE_BYTES: Final = 16
_TEXT: Final = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{32})?")


class _Mint:
    """Makes handles, and with a secret knows its own."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | None) -> None:
        if secret is not None and not SECRET_BYTES_MIN <= len(secret) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ConfigurationError(
                f"the secret of handles has {SECRET_BYTES_MIN} to {hashlib.blake2b.MAX_KEY_SIZE} random bytes"
            )
        self._secret = secret

    def mint(self, tenant: TenantId, generation: int, kind: HandleKind) -> str:
        """Return 128 random bits, and the code where there is a secret, in hex."""
        random = secrets.token_hex(_RANDOM_BYTES)
        return random if self._secret is None else random + self._code(tenant, generation, kind, random)

    def genuine(self, tenant: TenantId, generation: int, kind: HandleKind, handle: str) -> bool:
        """Whether *handle* can have been issued so. Without a secret every text of the right form can."""
        if type(handle) is not str or not _TEXT.fullmatch(handle):
            return False
        if self._secret is None:
            return len(handle) == 2 * _RANDOM_BYTES
        random, code = handle[: 2 * _RANDOM_BYTES], handle[2 * _RANDOM_BYTES :]
        return compare_digest(code, self._code(tenant, generation, kind, random))

    def key(self, tenant: TenantId, generation: int, kind: HandleKind, handle: str) -> str:
        """Return what a store keeps *handle* under: whoever reads the store cannot use it."""
        return _digest(self._secret or b"", "key", tenant, str(generation), kind.value, handle)

    def owner(self, tenant: TenantId) -> str:
        """Return what a store knows *tenant* by."""
        return _digest(self._secret or b"", "owner", tenant)

    def _code(self, tenant: TenantId, generation: int, kind: HandleKind, random: str) -> str:
        return _digest(self._secret or b"", "code", tenant, str(generation), kind.value, random)


def _digest(key: bytes, *parts: str) -> str:
    """Return 128 bits over *parts*, each with its length before it, so that no two lists run together."""
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    text = b"".join(b"%d:%s" % (len(part), part) for part in raw)
    return hashlib.blake2b(text, digest_size=_CODE_BYTES, key=key, person=b"hvt.handle").hexdigest()


class _Desk:
    """What both kinds of registry share: time, times to live, and how they say no."""

    __slots__ = ("_clock", "_longest_us", "_mint", "_per_tenant", "_sink", "_ttl_us")

    def __init__(
        self,
        per_tenant: int,
        ttl_us: int,
        longest_us: int,
        secret: bytes | None,
        sink: IsolationSink | None,
        clock: Clock | None,
    ) -> None:
        if min(per_tenant, ttl_us) < 1 or longest_us < ttl_us:
            raise ConfigurationError("per_tenant and ttl_us are at least 1, and longest_us is at least ttl_us")
        self._per_tenant, self._ttl_us, self._longest_us = per_tenant, ttl_us, longest_us
        self._mint, self._sink, self._clock = _Mint(secret), sink, clock or SystemClock()

    def _life_us(self, ttl_us: int | None) -> int:
        life_us = self._ttl_us if ttl_us is None else ttl_us
        if not 1 <= life_us <= self._longest_us:
            raise InvalidNameError(f"a handle lives for 1 to {self._longest_us} us, not {life_us}")
        return life_us

    def _missing(self, tenant: TenantId, kind: HandleKind, handle: str, now: Instant) -> DeniedError:
        report_isolation(
            self._sink,
            IsolationKind.FOREIGN_HANDLE,
            tenant=tenant,
            operation=f"handles.{kind.value}",
            subject=str(handle),
            now=now,
        )
        return DeniedError.of(Refusal(reason=Reason.NOT_FOUND, tenant=tenant))

    def _full(self, tenant: TenantId, kind: HandleKind) -> DeniedError:
        return DeniedError.of(
            Refusal(
                reason=Reason.QUOTA_EXCEEDED,
                tenant=tenant,
                dimension="handles",
                resource=kind.value,
                limit=self._per_tenant,
                used=self._per_tenant,
                requested=1,
            )
        )


class _Held(Generic[V]):
    """What one tenant holds."""

    __slots__ = ("entries", "soonest_us")

    def __init__(self) -> None:
        #: (generation, kind, handle) to (monotonic microseconds at which it expires, value).
        self.entries: dict[tuple[int, HandleKind, str], tuple[int, V]] = {}
        #: No entry expires before; it may be older than the truth, never younger.
        self.soonest_us = 0

    def sweep(self, at_us: int) -> int:
        """Forget what has expired, unless nothing can have; return how much."""
        if at_us < self.soonest_us:
            return 0
        gone = [key for key, (expires_us, _) in self.entries.items() if expires_us <= at_us]
        for key in gone:
            del self.entries[key]
        self.soonest_us = min((expires_us for expires_us, _ in self.entries.values()), default=at_us)
        return len(gone)


class HandleRegistry(_Desk, Generic[V]):
    """Keeps handles in memory.

    Args:
        per_tenant: How many a tenant may hold at once.
        total: How many all tenants may hold at once.
        ttl_us: How long a handle lives where the caller does not say, in microseconds.
        longest_us: How long one may live at most.
        secret: 32 to 64 random bytes that only this process and its restarts know. ``None``: handles hold no code.
        sink: Told of each handle that was not found; it cannot say whose that was either.
        clock: Tells the time where the caller does not.

    Raises:
        ConfigurationError: A number or the secret is out of range.

    Concurrency:
        Any number of threads. `get` takes no lock; the others one short lock.

    Example:
        >>> from hivetenancy.ids import TenantId
        >>> cursors = HandleRegistry[int]()
        >>> handle = cursors.issue(TenantId("acme"), 1, HandleKind.CURSOR, 42)
        >>> cursors.get(TenantId("acme"), 1, HandleKind.CURSOR, handle)
        42
        >>> cursors.get(TenantId("other"), 1, HandleKind.CURSOR, handle)
        Traceback (most recent call last):
            ...
        hivetenancy.errors.NotFoundError: not found
    """

    __slots__ = ("_lock", "_size", "_tenants", "_total")

    def __init__(
        self,
        *,
        per_tenant: int = 1_000,
        total: int = 100_000,
        ttl_us: int = HOUR_US,
        longest_us: int = 7 * DAY_US,
        secret: bytes | None = None,
        sink: IsolationSink | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(per_tenant, ttl_us, longest_us, secret, sink, clock)
        if total < per_tenant:
            raise ConfigurationError("total is at least per_tenant, or no tenant could hold as many as it may")
        self._total, self._size = total, 0
        self._tenants: dict[TenantId, _Held[V]] = {}
        self._lock = Lock()

    def issue(
        self,
        tenant: TenantId,
        generation: int,
        kind: HandleKind,
        value: V,
        *,
        ttl_us: int | None = None,
        now: Instant | None = None,
    ) -> str:
        """Return a new handle for *value*; see `Handles.issue`."""
        life_us = self._life_us(ttl_us)
        at_us = (now or self._clock.now())[0]
        handle = self._mint.mint(tenant, generation, kind)
        with self._lock:
            held = self._room(tenant, kind, at_us)
            expires_us = at_us + life_us
            held.soonest_us = min(held.soonest_us, expires_us) if held.entries else expires_us
            held.entries[generation, kind, handle] = (expires_us, value)
            self._size += 1
        return handle

    def get(self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Instant | None = None) -> V:
        """Return what *handle* stands for; see `Handles.get`."""
        now = now or self._clock.now()
        held = self._tenants.get(tenant)
        if held is not None and self._mint.genuine(tenant, generation, kind, handle):
            found = held.entries.get((generation, kind, handle))
            if found is not None and now[0] < found[0]:
                return found[1]
        raise self._missing(tenant, kind, handle, now)

    def close(
        self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Instant | None = None
    ) -> V:
        """Return what *handle* stood for; see `Handles.close`."""
        now = now or self._clock.now()
        if self._mint.genuine(tenant, generation, kind, handle):
            with self._lock:
                held = self._tenants.get(tenant)
                found = None if held is None else held.entries.pop((generation, kind, handle), None)
                if held is not None and found is not None:
                    self._size -= 1
                    if not held.entries:
                        del self._tenants[tenant]
            if found is not None and now[0] < found[0]:
                return found[1]
        raise self._missing(tenant, kind, handle, now)

    def drop(self, tenant: TenantId) -> int:
        """Forget every handle of *tenant*; see `Handles.drop`."""
        with self._lock:
            held = self._tenants.pop(tenant, None)
            gone = 0 if held is None else len(held.entries)
            self._size -= gone
            return gone

    def count(self, tenant: TenantId) -> int:
        """Return how many handles *tenant* holds, those included that have expired and were not swept yet."""
        held = self._tenants.get(tenant)
        return 0 if held is None else len(held.entries)

    def _room(self, tenant: TenantId, kind: HandleKind, at_us: int) -> _Held[V]:
        """Return where to put one more handle of *tenant*, or raise. What has expired is swept only when in the way."""
        held = self._tenants.get(tenant)
        if held is not None and len(held.entries) >= self._per_tenant:
            self._size -= held.sweep(at_us)
            if len(held.entries) >= self._per_tenant:
                raise self._full(tenant, kind)
        if self._size >= self._total:
            self._sweep_all(at_us)
            if self._size >= self._total:
                raise StoreUnavailableError("there is no room for more handles")
        return self._tenants.setdefault(tenant, _Held())

    def _sweep_all(self, at_us: int) -> None:
        for tenant, held in list(self._tenants.items()):
            self._size -= held.sweep(at_us)
            if not held.entries:
                del self._tenants[tenant]


class StoredHandles(_Desk):
    """Keeps handles in a store outside of the process, shared by the nodes of a cluster.

    Unlike `HandleRegistry` it awaits, and values are bytes; else each method is that of `Handles`. The store bounds
    what a tenant holds; what all hold together is for whoever runs the store to bound.

    Args:
        store: Where.
        secret: 32 to 64 random bytes, the same on all nodes. With it the store is asked only for handles that were
            issued to the tenant who asks. ``None``: it is asked for every text of the right form, once, whoever's.
        per_tenant: How many a tenant may hold at once.
        ttl_us: How long a handle lives where the caller does not say, in microseconds.
        longest_us: How long one may live at most.
        sink: Told of each handle that was not found.
        clock: Tells the time where the caller does not; its wall time counts.

    Raises:
        ConfigurationError: A number or the secret is out of range.

    Concurrency:
        That of the store.
    """

    __slots__ = ("_store",)

    def __init__(
        self,
        store: HandleStore,
        *,
        secret: bytes | None,
        per_tenant: int = 1_000,
        ttl_us: int = HOUR_US,
        longest_us: int = 7 * DAY_US,
        sink: IsolationSink | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(per_tenant, ttl_us, longest_us, secret, sink, clock)
        self._store = store

    async def issue(
        self,
        tenant: TenantId,
        generation: int,
        kind: HandleKind,
        value: bytes,
        *,
        ttl_us: int | None = None,
        now: Instant | None = None,
    ) -> str:
        """Return a new handle for *value*; see `Handles.issue`."""
        life_us = self._life_us(ttl_us)
        now_us = (now or self._clock.now())[1]
        handle = self._mint.mint(tenant, generation, kind)
        key = self._mint.key(tenant, generation, kind, handle)
        kept = await self._store.put(
            self._mint.owner(tenant), key, value, now_us=now_us, expires_us=now_us + life_us, limit=self._per_tenant
        )
        if not kept:
            raise self._full(tenant, kind)
        return handle

    async def get(
        self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Instant | None = None
    ) -> bytes:
        """Return what *handle* stands for; see `Handles.get`."""
        now = now or self._clock.now()
        if self._mint.genuine(tenant, generation, kind, handle):
            found = await self._store.get(self._mint.key(tenant, generation, kind, handle), now_us=now[1])
            if found is not None:
                return found
        raise self._missing(tenant, kind, handle, now)

    async def close(
        self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Instant | None = None
    ) -> bytes:
        """Return what *handle* stood for; see `Handles.close`."""
        now = now or self._clock.now()
        if self._mint.genuine(tenant, generation, kind, handle):
            found = await self._store.take(self._mint.key(tenant, generation, kind, handle), now_us=now[1])
            if found is not None:
                return found
        raise self._missing(tenant, kind, handle, now)

    async def drop(self, tenant: TenantId) -> int:
        """Forget every handle of *tenant*; see `Handles.drop`."""
        return await self._store.drop(self._mint.owner(tenant))


if TYPE_CHECKING:
    _conforms: type[Handles[object]] = HandleRegistry[object]
