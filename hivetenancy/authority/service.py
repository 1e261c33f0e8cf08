"""The control plane itself, in memory: tenants, plans, keys, limits and usage, and the four questions about them.

An answer is read under the lock that changes are made under, so it is a snapshot, and its revision is the highest whose
changes are all in it (HiveHub wire 4.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from hivetenancy.access_keys.format import digest
from hivetenancy.clock import SECOND_US
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
from .credentials import ServiceIdentity
from .desk import Desk
from .idempotency import WINDOW_SECONDS
from .resources import CallRefused
from .state import USAGE_GRACE_US
from .view import ALL_EXTENSIONS, WIRE_VERSION, Announcement, HubView, Inspection, LimitsPage

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
        plans: Plans beside, or instead of, those of `hivetenancy.authority.plans.DEFAULT_PLANS`, by name.
        environment: Of the keys it issues, where `issue_key` names none.
        authority: What it says it is.
        keep_events: Events kept for pollers that fell behind, however young; further back they are reset.
        spread_seconds: What a reset tells a client about how long to spread its verification over.
        new_id: Makes ids. The default is random.
        mint_secret: Makes secrets from a key's id and environment. The default draws 256 bits from the system.
        extensions: What it speaks beside the 23 calls, of `ALL_EXTENSIONS`. Whoever puts it on the
            wire holds to that; the methods here are always there.

    Raises:
        ConfigurationError: Two of *plans* have one name, one stands under another's, or an extension is none.

    Concurrency:
        Every method may be called from any thread and under any event loop; only what is awaited needs one.
        A change is visible to every answer that is asked for after its method returned.
    """

    @cached_property
    def desk(self) -> Desk:
        """The calls of today's wire, and the management of keys, as methods."""
        return Desk(self)

    def announcement(self, identity: ServiceIdentity) -> Announcement:
        """Say what this hub is, to the holder of a service key."""
        now_us = self._now_us()
        with self._lock:
            return Announcement(
                version=WIRE_VERSION,
                hub_id=self._hub_id,
                authority=self._authority,
                epoch=self._log.epoch,
                revision=self._log.revision,
                now_us=now_us,
                service=identity.service,
                scopes=tuple(sorted(identity.scopes)),
                extensions=tuple(name for name in ALL_EXTENSIONS if name in self._extensions),
                idempotency_window_seconds=WINDOW_SECONDS,
                usage_grace_seconds=USAGE_GRACE_US // SECOND_US,
            )

    async def introspect(
        self,
        credential: bytes,
        *,
        min_revision: int | None = None,
        epoch: int | None = None,
        service: str | None = None,
    ) -> KeyAnswer:
        """Say what the key *credential* is worth (`IntrospectionSource`), to *service* alone if it names one.

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            self._used_now(digest(credential), service, now_us)
            return view.key(credential, now_us, service)

    async def introspect_batch(
        self,
        digests: Sequence[bytes],
        *,
        min_revision: int | None = None,
        epoch: int | None = None,
        service: str | None = None,
    ) -> BatchAnswer:
        """Say what up to 1,000 keys are worth, in the order asked, from one snapshot. Counts as no use of them.

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
            ValueError: More than 1,000 digests.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            return view.keys(digests, now_us, service)

    def inspect(
        self,
        digests: Sequence[bytes],
        *,
        min_revision: int | None = None,
        epoch: int | None = None,
        service: str | None = None,
        use: bool = False,
    ) -> Inspection:
        """Say what up to 1,000 keys are worth with all that the wire says of them, from one snapshot.

        Args:
            digests: Of the keys.
            min_revision: Answer from this revision or a later one.
            epoch: The epoch that *min_revision* belongs to.
            service: A key of another service is unknown; ``None``: keys of all are known.
            use: Whether the keys are being used now, which the next answer about them shows.

        Raises:
            HubUnavailableError: *min_revision* lies ahead of this hub.
            ValueError: More than 1,000 digests.
        """
        now_us = self._now_us()
        with self._lock:
            view = self._view()
            view.recent_enough(min_revision, epoch)
            found = view.inspect(digests, now_us, service)
            for presented in digests if use else ():
                self._used_now(presented, service, now_us)
            return found

    def _used_now(self, presented: bytes, service: str | None, now_us: int) -> None:
        key = self._state.key_behind(presented, service)
        if key is not None:
            self._state.last_used[key.key_id] = now_us

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

    def limits_page(self, limit: int = 1_000, cursor: str | None = None, *, sources: Sequence[str] = ()) -> LimitsPage:
        """Say what limits all tenants, page by page in the order of their ids, each page from one snapshot.

        Raises:
            ValueError: *limit* is not 1 to 1,000, *cursor* is none, or more than 64 sources.
        """
        now_us = self._now_us()
        with self._lock:
            return self._view().limits_page(limit, cursor, sources, now_us)

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

    async def report(self, report: UsageReport, *, owner: str | None = None) -> UsageReply | SourceConflict:
        """Take a usage report, once however often it is sent (`UsageSink`).

        Args:
            report: What a source reports.
            owner: Identity of who sends it. Whoever sends the first report of a source owns it from then on; ``None``:
                somebody in this process, who may send for everybody.

        Raises:
            ValueError: The report is malformed, which over HTTP would be a 400.
            CallRefused: 403 ``forbidden``: the source belongs to somebody else.
        """
        now_us = self._now_us()
        with self.transaction() as state:
            if owner is not None and state.usage.owner(report.source) not in (None, owner):
                raise CallRefused(403, "forbidden", "Access denied")
            reply = state.usage.receive(report, lambda line: state.judge(line, now_us))
            if owner is not None:
                state.usage.claim(report.source, owner)
            return reply

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
