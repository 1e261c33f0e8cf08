"""Open connections by key: found, and closed, when the key is revoked or ends, or the tenant is suspended.

A request is checked when it comes in; a WebSocket, a stream or a line-protocol connection may outlive its key by days.
Each is entered here with a way to close it. What closes them is the change feed (at once), their end on the monotonic
clock (`close_due`), and, where an event only says that something about a key has changed, a fresh look (`recheck`).
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from hivetenancy.access_keys import Principal
from hivetenancy.clock import Instant
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import UnavailableError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import ChangeEvent, ChangeType

_log: Final = logging.getLogger("hivetenancy")

_ENDS_TENANT: Final = frozenset({ChangeType.USER_SUSPENDED, ChangeType.USER_DELETING, ChangeType.USER_DELETED})
_ASKS_AGAIN: Final = frozenset(
    {ChangeType.KEY_CHANGED, ChangeType.KEY_ROTATED, ChangeType.USER_CHANGED, ChangeType.USER_RESUMED}
)


class Closes(Protocol):
    """How a connection is closed."""

    def __call__(self, reason: Reason, /) -> None:
        """Close it, soon and without blocking; called at most once."""
        ...


class OpenConnection:
    """One entry of the registry.

    Attributes:
        principal: On whose behalf it is open.
        open: Whether it is still entered.
    """

    __slots__ = ("_close", "_registry", "open", "principal")

    def __init__(self, registry: ConnectionRegistry, principal: Principal, close: Closes) -> None:
        self._registry = registry
        self._close = close
        self.principal = principal
        self.open = True

    def remove(self) -> None:
        """Take the connection off the registry, because it has ended by itself. May be called again."""
        if self.open:
            self.open = False
            self._registry._forget(self)

    def renew(self, principal: Principal) -> None:
        """Note a newer answer about the same key, with an end of its own."""
        watched = self.principal.ends_at_us
        self.principal = principal
        if principal.ends_at_us != watched:
            self._registry._watch_end(self)

    def _end(self, reason: Reason) -> None:
        if self.open:
            self.remove()
            try:
                self._close(reason)
            except Exception:  # noqa: BLE001 - one broken connection must not keep the others open
                _log.exception("closing a connection failed")


class ConnectionRegistry:
    """Open connections by key.

    Concurrency:
        Belongs to the thread of its loop.
    """

    def __init__(self) -> None:
        self._by_key: dict[KeyId, set[OpenConnection]] = {}
        self._by_tenant: dict[TenantId, set[KeyId]] = {}
        self._ends: list[tuple[int, int, OpenConnection]] = []
        self._order = itertools.count()
        self._doubtful: set[OpenConnection] = set()
        self._wakers: list[Callable[[], None]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, principal: Principal, close: Closes) -> OpenConnection:
        """Enter a connection that *principal* opened; *close* ends it."""
        entry = OpenConnection(self, principal, close)
        self._by_key.setdefault(principal.key_id, set()).add(entry)
        self._count += 1
        self._by_tenant.setdefault(principal.tenant_id, set()).add(principal.key_id)
        self._watch_end(entry)
        return entry

    # --- what closes them ---

    def on_event(self, event: ChangeEvent) -> None:
        """Close, or doubt, what *event* is about."""
        if event.type is ChangeType.KEY_REVOKED and event.key_id is not None:
            self._end_all(self._of_key(event.key_id), Reason.REVOKED_KEY)
        elif event.type in _ENDS_TENANT and event.tenant_id is not None:
            self._end_all(self._of_tenant(event.tenant_id), Reason.SUSPENDED_TENANT)
        elif event.type in _ASKS_AGAIN:
            about_key = self._of_key(event.key_id) if event.key_id is not None else []
            about_tenant = self._of_tenant(event.tenant_id) if event.key_id is None and event.tenant_id else []
            self._doubt([*about_key, *about_tenant])

    def on_reset(self, spread_seconds: int) -> None:
        """Doubt everything: events may have been missed."""
        self._doubt([entry for entries in self._by_key.values() for entry in entries])

    def close_due(self, now: Instant) -> int | None:
        """Close the connections whose key has ended; return the monotonic time of the next end.

        ``None``: there is none.
        """
        while self._ends and self._ends[0][0] <= now[0]:
            end, _, entry = heapq.heappop(self._ends)
            if _current((end, 0, entry)):
                entry._end(Reason.EXPIRED_KEY)
        while self._ends and not _current(self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    async def recheck(self, ask: Callable[[Principal], Awaitable[Principal | Refusal]]) -> None:
        """Look anew at the connections in doubt: close the refused ones, renew the others.

        Where *ask* cannot tell, a connection stays in doubt; its next message is checked anyway.
        """
        doubtful, self._doubtful = self._doubtful, set()
        while doubtful:
            entry = doubtful.pop()
            if not entry.open:
                continue
            try:
                answer = await ask(entry.principal)
            except BaseException as error:
                self._doubtful |= doubtful | {entry}
                if isinstance(error, UnavailableError):
                    return
                raise
            if isinstance(answer, Refusal):
                entry._end(answer.reason)
            else:
                entry.renew(answer)

    @property
    def in_doubt(self) -> bool:
        """Whether `recheck` has something to do."""
        return bool(self._doubtful)

    def on_wake(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake* whenever there is a nearer end or a new doubt; return a function that ends it."""
        self._wakers.append(wake)
        return lambda: self._wakers.remove(wake)

    def close_tenant(self, tenant: TenantId, reason: Reason) -> int:
        """Close what is open for *tenant*, because it is fenced off; return how many that were."""
        entries = self._of_tenant(tenant)
        self._end_all(entries, reason)
        return len(entries)

    def close_all(self, reason: Reason) -> None:
        """Close everything, because the server stops."""
        self._end_all([entry for entries in self._by_key.values() for entry in entries], reason)

    # --- bookkeeping ---

    def _of_key(self, key_id: KeyId) -> list[OpenConnection]:
        return list(self._by_key.get(key_id, ()))

    def _of_tenant(self, tenant_id: TenantId) -> list[OpenConnection]:
        return [entry for key_id in self._by_tenant.get(tenant_id, ()) for entry in self._by_key.get(key_id, ())]

    def _end_all(self, entries: Iterable[OpenConnection], reason: Reason) -> None:
        for entry in entries:
            entry._end(reason)

    def _doubt(self, entries: list[OpenConnection]) -> None:
        if entries:
            self._doubtful.update(entries)
            self._wake()

    def _watch_end(self, entry: OpenConnection) -> None:
        end = entry.principal.ends_at_us
        if end is not None and entry.open:
            if len(self._ends) > 2 * len(self) + 64:  # those that left or were renewed leave their ends behind
                self._ends = list({id(row[2]): row for row in self._ends if _current(row)}.values())
                heapq.heapify(self._ends)
            heapq.heappush(self._ends, (end, next(self._order), entry))
            self._wake()

    def _forget(self, entry: OpenConnection) -> None:
        self._count -= 1
        principal = entry.principal
        entries = self._by_key.get(principal.key_id)
        if entries is not None:
            entries.discard(entry)
            if not entries:
                del self._by_key[principal.key_id]
                self._forget_key(principal)
        self._doubtful.discard(entry)

    def _forget_key(self, principal: Principal) -> None:
        keys = self._by_tenant.get(principal.tenant_id)
        if keys is not None:
            keys.discard(principal.key_id)
            if not keys:
                del self._by_tenant[principal.tenant_id]

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()


def _current(row: tuple[int, int, OpenConnection]) -> bool:
    """Say whether a row of the heap still tells the end of an open connection."""
    return row[2].open and row[2].principal.ends_at_us == row[0]
