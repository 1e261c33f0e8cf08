"""The control plane itself, in memory: tenants, plans, keys, limits and usage, and the four questions about them.

An answer is read under the lock that changes are made under, so it is a snapshot, and its revision is the highest whose
changes are all in it (HiveHub wire 4.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    KeyAnswer,
    LimitsAnswer,
    LimitsBatch,
    SourceConflict,
    UsageReply,
    UsageReport,
)

from .admin import HubAdministration
from .view import HubView

if TYPE_CHECKING:
    from hivetenancy.sources import ControlPlane, SignalsChanges

MAX_WAIT_SECONDS: Final = 25
"""The longest a poll for changes may wait (HiveHub wire 4.4)."""


class HubService(HubAdministration):
    """A control plane in memory.

    It answers the four source protocols and `SignalsChanges`, and is changed by plain method calls, which return the
    revision they made. Nothing is written to disk.

    Args:
        clock: Tells the time of the hub; its wall time is what answers carry as *now*.
        plans: Plans beside, or instead of, those of `hivetenancy.hub.plans.DEFAULT_PLANS`, by name.
        environment: Of the keys it issues, where `issue_key` names none.
        authority: What it says it is.
        keep_events: Events kept for pollers that fell behind, however young; further back they are reset.
        spread_seconds: What a reset tells a client about how long to spread its verification over.
        new_id: Makes ids. The default is random.
        mint_secret: Makes secrets from a key's id and environment. The default draws 256 bits from the system.

    Raises:
        ConfigurationError: Two of *plans* have one name, or one stands under another's.

    Concurrency:
        Every method may be called from any thread and under any event loop; only what is awaited needs one.
        A change is visible to every answer that is asked for after its method returned.
    """

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Say what the key *credential* is worth (`IntrospectionSource`).

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            return view.key(credential, now_us)

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Say what up to 1,000 keys are worth, in the order asked, from one snapshot.

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
            ValueError: More than 1,000 digests.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            return view.keys(digests, now_us)

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """Say what limits *tenant*, and what it used (`LimitsSource`).

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
            ValueError: More than 64 sources.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            return view.limits(tenant, sources, now_us)

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Say what limits up to 1,000 tenants, in the order asked, from one snapshot.

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
            ValueError: More than 1,000 tenants, or more than 64 sources.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            return view.limits_batch(tenants, sources, now_us)

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Say what changed since *cursor*, waiting up to *wait_seconds* for something (`ChangeSource`).

        Raises:
            ValueError: *wait_seconds* is not within 0 to 25.
        """
        if not 0 <= wait_seconds <= MAX_WAIT_SECONDS:
            raise ValueError(f"wait_seconds must be 0 to {MAX_WAIT_SECONDS}, got {wait_seconds!r}")
        with self._lock:
            batch = self._log.since(cursor, self._now_us())
            if cursor is None or batch.events or batch.reset or not wait_seconds:
                return batch
            news = self._bell.listen()  # under the lock: whatever changes from here on rings it
        try:
            async with asyncio.timeout(wait_seconds):
                await news
        except TimeoutError:
            pass  # nothing happened: say so
        finally:
            self._bell.drop(news)
        return self.try_changes(cursor)

    def try_changes(self, cursor: str | None) -> ChangeBatch:
        """Say what changed since *cursor*, without waiting (`SignalsChanges`)."""
        with self._lock:
            return self._log.since(cursor, self._now_us())

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake* after each change, in the thread that made it; return a function that ends it (`SignalsChanges`).

        *wake* must not wait for anything, and may ask this hub whatever it likes.
        """
        token = object()
        with self._lock:
            self._subscribers[token] = wake

        def end() -> None:
            with self._lock:
                self._subscribers.pop(token, None)

        return end

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Take a usage report, once however often it is sent (`UsageSink`).

        Raises:
            ValueError: The report is malformed, which over HTTP would be a 400.
        """
        now_us = self._now_us()
        with self._lock:
            return self._state.usage.receive(report, lambda line: self._state.judge(line, now_us))

    def used(self, tenant: TenantId, dimension: Dimension, *, resource: str | None = None) -> int:
        """Return what all sources together reported for a cell in the present period.

        Raises:
            ConfigurationError: There is no such tenant, or nothing declares *dimension*.
        """
        return sum(self.used_by_source(tenant, dimension, resource=resource).values())

    def used_by_source(
        self, tenant: TenantId, dimension: Dimension, *, resource: str | None = None
    ) -> Mapping[str, int]:
        """Return what each source reported for a cell in the present period; errors as `used`."""
        now_us = self._now_us()
        with self._lock:
            record = self._tenant(tenant)
            known = self._state.what_is(record, dimension, resource)
            if known is None:
                raise ConfigurationError(f"no plan declares {dimension!r}, so nothing can be reported for it")
            return dict(self._state.used(record, replace(known, resource=resource), now_us))

    def snapshot(self) -> HubView:
        """Return a copy of everything known now, which answers like this hub does at this moment for ever."""
        with self._lock:
            return HubView(epoch=self._log.epoch, revision=self._log.revision, state=self._state.copy())

    def _view(self) -> HubView:
        """What is known, to be read under the lock."""
        return HubView(epoch=self._log.epoch, revision=self._log.revision, state=self._state)


if TYPE_CHECKING:
    _conforms: type[ControlPlane] = HubService
    _signals: type[SignalsChanges] = HubService
