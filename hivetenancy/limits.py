"""Limits of tenants, answered from memory: a cache in front of a `LimitsSource`.

The rules are those for keys (HiveHub wire 4.2 and 4.5): an answer is kept only if the floors accept its epoch and
revision, otherwise it is asked for once more, then it is a 503; a later answer is never replaced by an earlier one; age
counts from the sending of the question, never from use. A change of the limits, the plan or the tenant drops what is
kept. What is in use is refreshed by `run`, in batches, when it is no longer fresh, and serves meanwhile; where the hub
is out of reach it serves on for a stated time, because an outage of the control plane must not stop the tenants it once
told us about.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final, NamedTuple

from hivetenancy.access_keys.floors import Floors
from hivetenancy.clock import DAY_US, SECOND_US, Clock, Instant, SystemClock
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.sources import ChangeEvent, ChangeType, LimitsAnswer, LimitsSource, TenantLimits

_log: Final = logging.getLogger("hivetenancy")

FRESH_US: Final = 30 * SECOND_US
"""After this an entry is asked for again; the feed tells of changes earlier, so this is the safety net."""

STALE_US: Final = DAY_US
"""How long an entry serves while the hub is out of reach. Limits change rarely, and cutting off every tenant during an
outage would harm more than a limit that is a day old."""

PAUSE_US: Final = SECOND_US
"""After a failed look-up nobody on the request path tries again for so long."""

_BATCH_MAX: Final = 1000
"""Most tenants in one call (HiveHub wire 4.5)."""

_DEADLINE_SECONDS: Final = 5.0
"""How long one look-up may take before it counts as failed."""


class _Entry(NamedTuple):
    limits: TenantLimits
    sent_us: int
    epoch: int
    revision: int


class CachedLimits:
    """A `LimitsView` over a `LimitsSource`.

    Args:
        source: Who knows.
        floors: What the change feed has told so far, shared with the key cache; ``None``: there is no feed, and changes
            are seen after *fresh_us*.
        clock: For calls without an instant.
        sources: Tells the ids of our own usage sources, whose share of the numbers is wanted.
        fresh_us: Age from which an entry is refreshed in the background.
        stale_us: Age up to which an entry serves while a newer answer is not there, as in an outage of the hub.
        max_tenants: How many tenants are kept; the oldest entries go first.
        learn: Called with all limits that are kept, before anybody is given them.

    Concurrency:
        Belongs to the thread of its loop. Callers for one tenant share one look-up.
    """

    def __init__(
        self,
        source: LimitsSource,
        *,
        floors: Floors | None = None,
        clock: Clock | None = None,
        sources: Callable[[], Sequence[str]] = tuple,
        fresh_us: int = FRESH_US,
        stale_us: int = STALE_US,
        max_tenants: int = 100_000,
        learn: Callable[[TenantLimits], None] | None = None,
    ) -> None:
        self._source = source
        self._learn = learn
        self._floors = floors
        self._clock: Clock = clock or SystemClock()
        self._sources = sources
        self._fresh_us = fresh_us
        self._stale_us = max(fresh_us, stale_us)
        self._max = max_tenants
        self._entries: dict[TenantId, _Entry] = {}
        self._flights: dict[TenantId, asyncio.Future[TenantLimits | None]] = {}
        self._due: set[TenantId] = set()
        self._wake = asyncio.Event()
        self._pause_until_us = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- answering ---

    def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant* from memory; ``None`` where only a fetch can tell.

        Raises:
            HubUnavailableError: Nothing recent enough is known, and a fetch failed a moment ago.
        """
        entry = self._entries.get(tenant)
        if entry is not None:
            age = now[0] - entry.sent_us
            if age < self._fresh_us:
                return entry.limits
            if age < self._stale_us:
                self._ask_for(tenant)
                return entry.limits
        if now[0] < self._pause_until_us:
            raise HubUnavailableError(
                "the limits of the tenant are not known and the hub does not answer",
                retry_after_us=self._pause_until_us - now[0],
            )
        return None

    async def limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant*, fetched if need be; ``None``: no such tenant.

        Raises:
            HubUnavailableError: The hub cannot tell, or not recently enough.
        """
        known = self.try_limits(tenant, now=now)
        if known is not None:
            return known
        flight = self._flights.get(tenant)
        if flight is None:
            flight = self._flights[tenant] = asyncio.get_running_loop().create_future()
            # A context of its own: the look-up serves everybody, and must not act for the tenant who asked first.
            task = asyncio.create_task(self._fly(tenant, flight), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # Whoever asked first may be cancelled; the look-up goes on for the others.
        return await asyncio.shield(flight)

    # --- what the feed says ---

    def on_event(self, event: ChangeEvent) -> None:
        """Drop what *event* makes doubtful; the floors were raised before."""
        if event.type is ChangeType.PLAN_CHANGED:
            for tenant in [t for t, entry in self._entries.items() if entry.limits.plan == event.plan]:
                del self._entries[tenant]
        elif event.tenant_id is not None and event.key_id is None:
            self._entries.pop(event.tenant_id, None)

    def on_reset(self, spread_seconds: int) -> None:
        """Have everything fetched anew within *spread_seconds*; what is kept serves until then."""
        now = self._clock.now()[0]
        for tenant, entry in self._entries.items():
            spread = random.randrange(max(1, spread_seconds * SECOND_US))
            self._entries[tenant] = entry._replace(sent_us=min(entry.sent_us, now - self._fresh_us + spread))

    # --- background ---

    async def run(self) -> None:
        """Refresh what is due, in batches, until cancelled."""
        self._wake = asyncio.Event()  # this loop's: a tenancy may be started again in another
        if self._due:
            self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._due:
                    await self.refresh()
            except HubUnavailableError:
                await asyncio.sleep(PAUSE_US / SECOND_US * random.uniform(1.0, 2.0))
                self._wake.set()

    async def refresh(self) -> int:
        """Fetch up to 1,000 of the tenants that are due; return how many were asked for.

        Raises:
            HubUnavailableError: The hub does not answer; they stay due.
        """
        asked = [self._due.pop() for _ in range(min(len(self._due), _BATCH_MAX))]
        if not asked:
            return 0
        sent = self._clock.now()[0]
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                batch = await self._source.limits_batch(asked, sources=self._sources())
        except BaseException as error:
            self._due.update(asked)
            if isinstance(error, Exception):
                raise _no_answer(error) from error
            raise
        for tenant, limits, revision in zip(asked, batch.limits, batch.revisions, strict=True):
            if limits is None:
                self._entries.pop(tenant, None)
            elif self._accepts(tenant, limits, batch.epoch, revision):
                self._keep(tenant, _Entry(limits, sent, batch.epoch, revision))
        return len(asked)

    # --- fetching one ---

    async def _fly(self, tenant: TenantId, flight: asyncio.Future[TenantLimits | None]) -> None:
        try:
            limits = await self._fetch(tenant)
        except BaseException as error:
            if isinstance(error, HubUnavailableError):
                self._pause_until_us = self._clock.now()[0] + PAUSE_US
            if not flight.done():
                flight.set_exception(
                    HubUnavailableError("the look-up was ended") if isinstance(error, asyncio.CancelledError) else error
                )
                flight.exception()  # seen: nobody may be waiting any more
            if not isinstance(error, Exception):
                raise
        else:
            flight.set_result(limits)
        finally:
            self._flights.pop(tenant, None)

    async def _fetch(self, tenant: TenantId) -> TenantLimits | None:
        sent, answer = await self._ask(tenant, None, None)
        if not self._accepts(tenant, answer.limits, answer.epoch, answer.revision) and self._floors is not None:
            least = self._floors.needed_for_limits(tenant, answer.limits.plan if answer.limits else None)
            sent, answer = await self._ask(tenant, least, self._floors.epoch)
            if not self._accepts(tenant, answer.limits, answer.epoch, answer.revision):
                raise HubUnavailableError("the hub answers from before a change that it announced")
        if answer.limits is not None:
            self._keep(tenant, _Entry(answer.limits, sent, answer.epoch, answer.revision))
        return answer.limits

    async def _ask(self, tenant: TenantId, least: int | None, epoch: int | None) -> tuple[int, LimitsAnswer]:
        sent = self._clock.now()[0]
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return sent, await self._source.limits(tenant, sources=self._sources(), min_revision=least, epoch=epoch)
        except Exception as error:
            raise _no_answer(error) from error

    def _accepts(self, tenant: TenantId, limits: TenantLimits | None, epoch: int, revision: int) -> bool:
        if self._floors is None:
            return True
        return self._floors.accepts_limits(epoch, revision, tenant, limits.plan if limits else None)

    def _keep(self, tenant: TenantId, entry: _Entry) -> None:
        known = self._entries.get(tenant)
        if known is not None and (known.epoch, known.revision) > (entry.epoch, entry.revision):
            return
        if known is None and len(self._entries) >= self._max:
            del self._entries[next(iter(self._entries))]
        if self._learn is not None:
            self._learn(entry.limits)
        self._entries[tenant] = entry

    def _ask_for(self, tenant: TenantId) -> None:
        if tenant not in self._due:
            self._due.add(tenant)
            self._wake.set()


def _no_answer(error: Exception) -> HubUnavailableError:
    """Return what callers are told: whatever a source raises means that it cannot be told, never that it is refused."""
    if isinstance(error, HubUnavailableError):
        return error
    if isinstance(error, TimeoutError):
        return HubUnavailableError(f"the hub did not answer within {_DEADLINE_SECONDS:g} s")
    _log.error("the hub's answer about limits cannot be used", exc_info=error)
    return HubUnavailableError("the hub's answer about limits cannot be used")
