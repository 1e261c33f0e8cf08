"""The order of a control plane: every change its own revision, and the log that tells of them.

The revision is the number of the change and its place in the log at once, so "everything below R is visible when R is"
(HiveHub wire 4.2) holds by construction: a change and its event are one `ChangeLog.append`. A cursor names the hub, the
epoch and the last revision seen. Whatever is no such cursor (of another hub or epoch, older than what is kept, from the
future, or nonsense) gets ``reset``, never an error: a reader that lost its place must verify again, not fail.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import islice
from typing import Final

from hivetenancy.clock import DAY_US
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import ChangeBatch, ChangeEvent, ChangeType

MAX_EVENTS: Final = 1_000
"""Events in one answer (HiveHub wire 4.4)."""

KEEP_US: Final = DAY_US
"""How long an event is kept (HiveHub wire 4.2)."""

_CURSOR: Final = re.compile(r"(?P<hub>[0-9a-f]{32})-(?P<epoch>[0-9]{1,16})-(?P<revision>[0-9]{1,16})", re.ASCII)


class ChangeLog:
    """Epoch, revision and the events of the last 24 hours.

    Args:
        hub: 32 hex digits that tell this hub's cursors from those of another.
        at_most: Events kept, however young; a reader further behind gets a reset. Bounds the memory.
        spread_seconds: What a reader is told, with a reset, about how long to spread its verification over.

    Concurrency:
        None of its own: the control plane's lock covers it.
    """

    def __init__(self, hub: str, *, at_most: int = 100_000, spread_seconds: int = 10) -> None:
        self._hub = hub
        self._at_most = at_most
        self._spread_seconds = spread_seconds
        self._events: deque[ChangeEvent] = deque()
        self.epoch = 1
        self.revision = 0

    def append(
        self,
        kind: ChangeType,
        at_us: int,
        *,
        key_id: KeyId | None = None,
        tenant_id: TenantId | None = None,
        plan: str | None = None,
        digest_prefix: str | None = None,
        revoked_at_us: int | None = None,
        expires_at_us: int | None = None,
    ) -> int:
        """Give a change its revision and return it."""
        self.revision += 1
        self._events.append(
            ChangeEvent(
                revision=self.revision,
                type=kind,
                at_us=at_us,
                key_id=key_id,
                tenant_id=tenant_id,
                plan=plan,
                digest_prefix=digest_prefix,
                revoked_at_us=revoked_at_us,
                expires_at_us=expires_at_us,
            )
        )
        self._trim(at_us)
        return self.revision

    def start_epoch(self) -> int:
        """Begin a larger epoch: cursors of the one before are reset. Return its number."""
        self.epoch += 1
        self._events.clear()
        return self.epoch

    def since(self, cursor: str | None, now_us: int) -> ChangeBatch:
        """Answer a poll, without waiting."""
        self._trim(now_us)
        seen = self.revision if cursor is None else self._place(cursor)
        if seen is None:
            return self._batch((), self.revision, now_us, reset=True)
        skip = len(self._events) - (self.revision - seen)
        events = tuple(islice(self._events, skip, skip + MAX_EVENTS))
        upto = events[-1].revision if events else seen
        return self._batch(events, upto, now_us, more=upto < self.revision)

    def _batch(
        self, events: tuple[ChangeEvent, ...], upto: int, now_us: int, *, more: bool = False, reset: bool = False
    ) -> ChangeBatch:
        return ChangeBatch(
            epoch=self.epoch,
            revision=upto,  # what was told so far: with `more`, the reader does not know the rest yet
            now_us=now_us,
            events=events,
            cursor=f"{self._hub}-{self.epoch}-{upto}",
            more=more,
            reset=reset,
            spread_seconds=self._spread_seconds if reset else 0,
        )

    def _place(self, cursor: str) -> int | None:
        """The revision that *cursor* stands at, or ``None`` where what followed it cannot be told."""
        match = _CURSOR.fullmatch(cursor)
        if match is None or match["hub"] != self._hub or int(match["epoch"]) != self.epoch:
            return None
        revision = int(match["revision"])
        oldest = self.revision - len(self._events)
        return revision if oldest <= revision <= self.revision else None

    def _trim(self, now_us: int) -> None:
        events = self._events
        while events and (len(events) > self._at_most or events[0].at_us <= now_us - KEEP_US):
            events.popleft()
