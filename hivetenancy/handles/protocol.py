"""What was handed out, and to whom? The protocol.

A handle is the short text by which a client comes back to something that the server keeps for it: a subscription, a
cursor, an upload, a job, a backup. It says nothing, cannot be guessed, and belongs to one tenant in one of its lives,
and to one kind. Another tenant's handle is treated exactly as one that was never issued: the same error, the same bytes
and the same calls on what keeps them (isolation note, attacks A19 to A22).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, TypeVar

from hivetenancy.clock import Instant
from hivetenancy.ids import TenantId

V = TypeVar("V")


class HandleKind(StrEnum):
    """What a handle is for. One of a kind is none of another."""

    SUBSCRIPTION = "subscription"
    CURSOR = "cursor"
    UPLOAD = "upload"
    JOB = "job"
    BACKUP = "backup"


class Handles(Protocol[V]):
    """Issues handles and finds what they stand for.

    ``generation`` is the tenant's life everywhere: one that was deleted and made anew has another number, and finds
    nothing of what was before. ``now``: ``None`` asks the clock.
    """

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
        """Return a new handle for *value*.

        Args:
            tenant: To whom.
            generation: In which life.
            kind: What for.
            value: What it stands for.
            ttl_us: For how long, in microseconds; ``None``: for the usual time.
            now: When.

        Raises:
            QuotaExceededError: The tenant holds as many as it may; nothing was issued.
            StoreUnavailableError: All tenants together hold as many as there is room for; nothing was issued.
            InvalidNameError: *ttl_us* is below 1 or above what is allowed.
        """
        ...

    def get(self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Instant | None = None) -> V:
        """Return what *handle* stands for.

        Raises:
            NotFoundError: It was not issued to this tenant in this life for this kind, has expired or was closed:
                never told apart.
        """
        ...

    def close(
        self, tenant: TenantId, generation: int, kind: HandleKind, handle: str, *, now: Instant | None = None
    ) -> V:
        """Return what *handle* stood for; from now on it stands for nothing. Raises as `get`."""
        ...

    def drop(self, tenant: TenantId) -> int:
        """Forget every handle of *tenant*, of whatever life; return how many there were."""
        ...


class HandleStore(Protocol):
    """Keeps handles outside of the process. It never sees a handle, only a digest of it, and no tenant either.

    Each method is one round trip, raises `StoreUnavailableError` where it could not be made, and does all or nothing.
    """

    async def put(self, owner: str, key: str, value: bytes, *, now_us: int, expires_us: int, limit: int) -> bool:
        """Keep *value* as *key* of *owner* until *expires_us*; both times in wall microseconds.

        Returns:
            False where *owner* holds *limit* that have not expired at *now_us*; nothing was kept then.
        """
        ...

    async def get(self, key: str, *, now_us: int) -> bytes | None:
        """Return what is kept as *key*; ``None``: nothing, or it has expired."""
        ...

    async def take(self, key: str, *, now_us: int) -> bytes | None:
        """Return as `get`, and forget it, in one step."""
        ...

    async def drop(self, owner: str) -> int:
        """Forget all of *owner*; return how many there were."""
        ...
