"""Limits of tenants, answered from memory: a cache in front of a `LimitsSource`.

The rules are those for keys (HiveHub wire 4.2 and 4.5): an answer is kept only if the floors accept its epoch and
revision, otherwise it is asked for once more, then it is a 503; a later answer is never replaced by an earlier one; age
counts from the sending of the question, never from use. A change of the limits, the plan or the tenant drops what is
kept.

How long an entry serves depends on its age:

- fresh: always. What is in use is asked for again in the background, in batches, somewhat ahead of the end, at a moment
  of its own for each tenant.
- up to `IDLE_US`: it serves, and is asked for again. So a tenant that comes back after a pause is not made to wait, nor
  is code that cannot wait.
- up to `STALE_US`: the hub is asked first. Where it is out of reach, or takes its time, the entry serves, because an
  outage of the control plane must not stop the tenants that it once told us about.
- older than that: the hub is asked first. Where it is out of reach the tenant is *frozen*: gauges do not grow any more,
  reads, deletes, rates and counters go on as they were known.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Final, NamedTuple

from hivetenancy.access_keys.floors import Floors
from hivetenancy.clock import DAY_US, SECOND_US, Clock, Instant, SystemClock
from hivetenancy.errors import HubContractError, HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.plans import QuotaKind
from hivetenancy.sources import ChangeEvent, ChangeType, LimitsAnswer, LimitsBatch, LimitsSource, TenantLimits

_log: Final = logging.getLogger("hivetenancy")

FRESH_US: Final = 30 * SECOND_US
"""How long an entry serves as it is; the feed tells of changes earlier, so this is the safety net."""

AHEAD_PERCENT: Final = (60, 90)
"""At which part of its freshness an entry in use is asked for again, drawn for each tenant and time."""

IDLE_US: Final = 600 * SECOND_US
"""Up to this age an entry serves before the hub has answered again."""

PATIENCE_S: Final = 0.25
"""How long a request of a tenant that is known waits for a hub that takes its time."""

STALE_US: Final = DAY_US
"""How long an entry serves in full while the hub is out of reach. Limits change rarely, and cutting off every tenant
during an outage would harm more than a limit that is a day old."""

GATHER_S: Final = 2.0
"""How long a refresh waits for others to go along: its entry serves for longer than that."""

PAUSE_US: Final = SECOND_US
"""After a failed look-up nobody on the request path tries again for so long."""

_BATCH_MAX: Final = 1000
"""Most tenants in one call (HiveHub wire 4.5)."""

_BATCH_SHRINKS: Final = 4
"""By how much a batch that was not answered in time is made smaller: where limits are put together from several calls
a tenant (`hivetenancy.hub.composed`), a thousand at once would never be done."""

_HELD_MAX: Final = 4096
"""Tenants whose limits were of no use, before those are forgotten that may be asked about again."""

_REMEMBERED_US: Final = 30 * SECOND_US
"""How long health shows a failure after which nobody asked again."""

_ATTEMPTS: Final = 3
"""Look-ups of one call whose answers were overtaken before they could be given."""

_DEADLINE_SECONDS: Final = 5.0
"""How long one look-up may take before it counts as failed."""


class LimitsEntry(NamedTuple):
    """What is kept of a tenant.

    Attributes:
        limits: The limits.
        sent_us: Monotonic time of the sending of the question.
        epoch: Epoch of the answer.
        revision: Revision of the answer.
        ahead_us: Age from which it is asked for again.
    """

    limits: TenantLimits
    sent_us: int
    epoch: int
    revision: int
    ahead_us: int = 0


class CachedLimits:
    """A `LimitsView` over a `LimitsSource`.

    Args:
        source: Who knows.
        floors: What the change feed has told so far, shared with the key cache; ``None``: there is no feed, and changes
            are seen after *fresh_us*. A function where that is known only when the hub has answered.
        clock: For calls without an instant.
        sources: Tells the ids of our own usage sources, whose share of the numbers is wanted.
        fresh_us: Age from which an entry is refreshed in the background.
        stale_us: Age up to which an entry serves in full while the hub is out of reach.
        max_tenants: How many tenants are kept; the oldest entries go first.
        max_flights: How many tenants are asked about one by one at the same time; others wait for their turn.
        learn: Called with all limits that are kept, before anybody is given them.
        keep: Called with each entry that is kept, and with ``None`` for a tenant that the hub says is none.

    Concurrency:
        Belongs to the thread of its loop. Callers for one tenant share one look-up.
    """

    def __init__(
        self,
        source: LimitsSource,
        *,
        floors: Floors | Callable[[], Floors | None] | None = None,
        clock: Clock | None = None,
        sources: Callable[[], Sequence[str]] = tuple,
        fresh_us: int = FRESH_US,
        stale_us: int = STALE_US,
        max_tenants: int = 100_000,
        max_flights: int = 64,
        learn: Callable[[TenantLimits], None] | None = None,
        keep: Callable[[TenantId, LimitsEntry | None], None] | None = None,
    ) -> None:
        self._source = source
        self._learn = learn
        self._told = keep
        self._floors_now: Callable[[], Floors | None] = floors if callable(floors) else lambda: floors
        self._clock: Clock = clock or SystemClock()
        self._sources = sources
        self._fresh_us = fresh_us
        self._idle_us = max(fresh_us, min(IDLE_US, stale_us))
        self._stale_us = max(fresh_us, stale_us)
        self._max = max_tenants
        self._entries: dict[TenantId, LimitsEntry] = {}
        self._flights: dict[TenantId, asyncio.Future[LimitsAnswer]] = {}
        self._due: set[TenantId] = set()
        self._wake = asyncio.Event()
        self._frozen: dict[TenantId, tuple[TenantLimits, TenantLimits]] = {}
        self._recalled: Callable[[TenantId], LimitsEntry | None] | None = None
        self._recalled_revision = 0
        self._rows: dict[TenantId, str] = {}  # recalled, and not taken in yet: their plans
        self._gone: set[TenantId] = set()
        self._pause_until_us = 0
        self._batch = _BATCH_MAX
        self._unusable: dict[TenantId, int] = {}  # until when nobody asks again: what the hub said was of no use
        self._away = self._running = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._max_flights = max_flights
        self._turn = asyncio.Semaphore(max_flights)

    # --- answering ---

    def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant* from memory; ``None`` where only a fetch can tell.

        Raises:
            HubUnavailableError: Nothing recent enough is known, and a fetch failed a moment ago.
        """
        entry = self._entries.get(tenant) or self._adopt(tenant)
        if entry is not None:
            age = now[0] - entry.sent_us
            if age < entry.ahead_us:
                return entry.limits
            # While the hub is away `run` goes on asking; without it whoever comes after the pause has to.
            held = now[0] < self._unusable.get(tenant, 0)
            if age < self._idle_us or held or (self._away and (self._running or now[0] < self._pause_until_us)):
                self._ask_for(tenant)
                return self._aged(entry, age)
            return None
        held_until_us = max(self._pause_until_us, self._unusable.get(tenant, 0))
        if now[0] < held_until_us:
            raise HubUnavailableError(
                "the limits of the tenant are not known and the hub cannot tell them",
                retry_after_us=held_until_us - now[0],
            )
        return None

    async def limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        """Return the limits of *tenant*, fetched if need be; ``None``: no such tenant.

        A tenant that is known waits for no more than `PATIENCE_S`.

        Raises:
            HubUnavailableError: The hub cannot tell, or not recently enough, and nothing is known.
        """
        known = self.try_limits(tenant, now=now)
        if known is not None:
            return known
        for _ in range(_ATTEMPTS):
            flight = self._flight(tenant)
            if tenant in self._entries:
                await asyncio.wait((flight,), timeout=PATIENCE_S)
                entry = self._entries.get(tenant)  # nothing is left of it where the answer was "no such tenant"
                if entry is not None and (not flight.done() or flight.exception() is not None):
                    return self._aged(entry, now[0] - entry.sent_us)
            # Whoever asked first may be cancelled; the look-up goes on for the others.
            answer = await asyncio.shield(flight)
            # A change may have been heard of after the answer came and before its waiters woke.
            if self._accepts(tenant, answer.limits, answer.epoch, answer.revision):
                return answer.limits
        raise HubUnavailableError("the limits of the tenant change faster than they can be asked for")

    def _flight(self, tenant: TenantId) -> asyncio.Future[LimitsAnswer]:
        """Return the one look-up of *tenant*, started if there is none."""
        flight = self._flights.get(tenant)
        if flight is None:
            flight = self._flights[tenant] = asyncio.get_running_loop().create_future()
            # A context of its own: the look-up serves everybody, and must not act for the tenant who asked first.
            task = asyncio.create_task(self._fly(tenant, flight), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return flight

    def _aged(self, entry: LimitsEntry, age: int) -> TenantLimits:
        return entry.limits if age < self._stale_us else self._freeze(entry.limits)

    def _freeze(self, limits: TenantLimits) -> TenantLimits:
        """Return *limits* with no room in any gauge: one object for as long as they are the same."""
        tenant = limits.tenant_id
        known = self._frozen.get(tenant)
        if known is None or known[0] is not limits:
            known = self._frozen[tenant] = (limits, frozen(limits))
        return known[1]

    def recall(
        self,
        known: Callable[[TenantId], LimitsEntry | None],
        *,
        revision: int,
        tenants: Mapping[TenantId, str] | None = None,
    ) -> None:
        """Take in what an earlier process knew, each tenant when it is first asked about.

        Args:
            known: Returns what was known of a tenant; quick, and from memory.
            revision: How far the change feed had been followed: what was announced after that drops what it is about.
            tenants: Of whom something is known, and their plans. What a change makes doubtful before it was taken in
                has to be forgotten for good, or the process after this one would believe it.
        """
        self._recalled, self._recalled_revision = known, revision
        self._rows = dict(tenants or {})

    def _adopt(self, tenant: TenantId) -> LimitsEntry | None:
        if self._recalled is None or tenant in self._gone:
            return None
        entry, floors = self._recalled(tenant), self._floors_now()
        if entry is None:
            return None
        if floors is not None:
            needed = floors.needed_for_limits(tenant, entry.limits.plan)
            if entry.epoch != floors.epoch or needed > self._recalled_revision:
                return None
        self._rows.pop(tenant, None)
        entry = entry._replace(ahead_us=0)
        self._keep(tenant, entry, tell=False)
        return entry

    def trouble(self, now: Instant) -> str | None:
        """Say what keeps limits from being asked for at present; ``None``: nothing that is known of."""
        if self._away and now[0] < self._pause_until_us + _REMEMBERED_US:
            return "the hub cannot be asked about limits"
        wrong = sum(now[0] < until_us + _REMEMBERED_US for until_us in self._unusable.values())
        return f"the hub's answers about the limits of {wrong} tenants are of no use: see the log" if wrong else None

    # --- what the feed says ---

    def on_event(self, event: ChangeEvent) -> None:
        """Drop what *event* makes doubtful; the floors were raised before."""
        if event.type is ChangeType.PLAN_CHANGED:
            for tenant in [t for t, entry in self._entries.items() if entry.limits.plan == event.plan]:
                self._forget(tenant)
            for tenant in [tenant for tenant, plan in self._rows.items() if plan == event.plan]:
                self._forget(tenant)
        elif event.tenant_id is not None and event.key_id is None:
            self._forget(event.tenant_id)

    def on_reset(self, spread_seconds: int) -> None:
        """Have everything fetched anew within *spread_seconds*; what is kept serves until then.

        What is in use is asked for at once, in batches. Anything else counts as idle for too long: the hub is asked
        before it serves again, since what it says from before the reset may have changed without a word.
        """
        now = self._clock.now()[0]
        if self._told is not None:  # what is written down is from before the reset, and would be believed later on
            for tenant in {**self._rows, **self._entries}:
                self._told(tenant, None)
        self._recalled = None
        self._rows.clear()
        self._gone.clear()
        for tenant, entry in self._entries.items():
            spread = random.randrange(max(1, spread_seconds * SECOND_US))
            self._entries[tenant] = entry._replace(sent_us=min(entry.sent_us, now - self._idle_us + spread))

    # --- background ---

    async def run(self) -> None:
        """Refresh what is due, in batches, until cancelled."""
        # This loop's: a tenancy may be started again in another.
        self._wake = asyncio.Event()
        self._turn = asyncio.Semaphore(self._max_flights)
        self._running = True
        try:
            await self._refresh_for_ever()
        finally:
            self._running = False

    async def _refresh_for_ever(self) -> None:
        if self._due:
            self._wake.set()
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)  # whatever else comes due meanwhile goes along
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
            HubUnavailableError: The hub does not answer, or not for so many at once; they stay due.
        """
        asked = [self._due.pop() for _ in range(min(len(self._due), self._batch))]
        if asked:
            await self._refresh_these(asked)
        return len(asked)

    async def _refresh_these(self, asked: Sequence[TenantId]) -> None:
        sent = self._clock.now()[0]
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                batch = await self._source.limits_batch(asked, sources=self._sources())
                if not len(batch.limits) == len(batch.revisions) == len(asked):
                    raise HubContractError("the hub was asked about some tenants and described others")
        except Exception as error:  # noqa: BLE001 - whatever a source raises means that it cannot be told
            self._due.update(asked)
            trouble, late = _no_answer(error), isinstance(error, TimeoutError)
        except BaseException:
            self._due.update(asked)
            raise
        else:
            self._take_in_batch(asked, batch, sent)
            return
        if not isinstance(trouble, _UnusableError):
            self._failed()
            if late:
                self._batch = max(1, len(asked) // _BATCH_SHRINKS)
            raise trouble
        self._due.difference_update(asked)
        await self._refresh_halves(asked)

    def _take_in_batch(self, asked: Sequence[TenantId], batch: LimitsBatch, sent: int) -> None:
        self._away = False
        took_us = self._clock.now()[0] - sent
        if len(asked) == self._batch and took_us * _BATCH_SHRINKS < _DEADLINE_SECONDS * SECOND_US:
            self._batch = min(_BATCH_MAX, self._batch * 2)
        for tenant, limits, revision in zip(asked, batch.limits, batch.revisions, strict=True):
            self._unusable.pop(tenant, None)
            if self._accepts(tenant, limits, batch.epoch, revision):
                self._take_in(tenant, limits, sent, batch.epoch, revision)

    async def _refresh_halves(self, asked: Sequence[TenantId]) -> None:
        """Find whose limits cannot be read: the others must not go without because of them."""
        if len(asked) == 1:
            self._hold(asked[0])
            return
        middle = len(asked) // 2
        try:
            await self._refresh_these(asked[:middle])
        finally:  # whatever comes of the first half, the second stays due
            self._due.update(asked[middle:])
        self._due.difference_update(asked[middle:])
        await self._refresh_these(asked[middle:])

    # --- fetching one ---

    async def _fly(self, tenant: TenantId, flight: asyncio.Future[LimitsAnswer]) -> None:
        try:
            async with self._turn:
                answer = await self._fetch(tenant)
        except BaseException as error:
            if isinstance(error, _UnusableError):
                self._hold(tenant)
            elif isinstance(error, HubUnavailableError):
                self._failed()
            if not flight.done():
                flight.set_exception(
                    HubUnavailableError("the look-up was ended") if isinstance(error, asyncio.CancelledError) else error
                )
                flight.exception()  # seen: nobody may be waiting any more
            if not isinstance(error, Exception):
                raise
        else:
            flight.set_result(answer)
        finally:
            self._flights.pop(tenant, None)

    async def _fetch(self, tenant: TenantId) -> LimitsAnswer:
        sent, answer = await self._ask(tenant, None, None)
        floors = self._floors_now()
        if floors is not None and not self._accepts(tenant, answer.limits, answer.epoch, answer.revision):
            least = floors.needed_for_limits(tenant, answer.limits.plan if answer.limits else None)
            sent, answer = await self._ask(tenant, least, floors.epoch)
            if not self._accepts(tenant, answer.limits, answer.epoch, answer.revision):
                raise HubUnavailableError("the hub answers from before a change that it announced")
        self._unusable.pop(tenant, None)
        self._take_in(tenant, answer.limits, sent, answer.epoch, answer.revision)
        return answer

    def _take_in(self, tenant: TenantId, limits: TenantLimits | None, sent: int, epoch: int, revision: int) -> None:
        """Keep what an answer says that the floors accepted; "no such tenant" is no less an answer."""
        if limits is not None:
            self._keep(tenant, LimitsEntry(limits, sent, epoch, revision, self._ahead()))
            return
        known, floors = self._entries.get(tenant), self._floors_now()
        if known is not None and (known.epoch, known.revision) > (epoch, revision):
            return
        self._forget(tenant)
        if floors is not None:
            floors.learn_limits(tenant, revision)

    async def _ask(self, tenant: TenantId, least: int | None, epoch: int | None) -> tuple[int, LimitsAnswer]:
        sent = self._clock.now()[0]
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                answer = await self._source.limits(tenant, sources=self._sources(), min_revision=least, epoch=epoch)
        except Exception as error:  # noqa: BLE001 - whatever a source raises means that it cannot be told
            trouble = _no_answer(error)
        else:
            self._away = False
            return sent, answer
        raise trouble  # out here: a time-out stands on frames of the HTTP client, where the service key is

    def _failed(self) -> None:
        """Remember that the hub is out of reach: nobody who is known waits for it until it has answered."""
        self._away = True
        self._pause_until_us = self._clock.now()[0] + PAUSE_US

    def _hold(self, tenant: TenantId) -> None:
        """Remember that what the hub says of one tenant is of no use: about all others it may be asked."""
        now = self._clock.now()[0]
        if len(self._unusable) >= _HELD_MAX:
            self._unusable = {each: until for each, until in self._unusable.items() if now < until}
        self._unusable[tenant] = now + PAUSE_US

    def _accepts(self, tenant: TenantId, limits: TenantLimits | None, epoch: int, revision: int) -> bool:
        floors = self._floors_now()
        if floors is None:
            return True
        return floors.accepts_limits(epoch, revision, tenant, limits.plan if limits else None)

    def _ahead(self) -> int:
        return self._fresh_us * random.randint(*AHEAD_PERCENT) // 100

    def _forget(self, tenant: TenantId) -> None:
        self._frozen.pop(tenant, None)
        self._rows.pop(tenant, None)
        known = self._entries.pop(tenant, None) is not None
        if self._recalled is not None:
            self._gone.add(tenant)
            known = True
        if known and self._told is not None:
            self._told(tenant, None)

    def _keep(self, tenant: TenantId, entry: LimitsEntry, *, tell: bool = True) -> None:
        known = self._entries.get(tenant)
        if known is not None and (known.epoch, known.revision) > (entry.epoch, entry.revision):
            return
        if known is None and len(self._entries) >= self._max:
            self._forget(next(iter(self._entries)))  # the state file too: of what is not kept no change is noted
        if self._learn is not None:
            self._learn(entry.limits)
        self._entries[tenant] = entry
        self._frozen.pop(tenant, None)
        if tell and self._told is not None:
            self._told(tenant, entry)

    def _ask_for(self, tenant: TenantId) -> None:
        if tenant not in self._due:
            self._due.add(tenant)
            self._wake.set()


def frozen(limits: TenantLimits) -> TenantLimits:
    """Return *limits* as they are enforced when nothing recent is known: no gauge grows, everything else as it was."""
    gauges = (QuotaKind.CONTRIBUTION, QuotaKind.LEVEL)
    quotas = tuple(
        replace(standing, limit=replace(standing.limit, limit=0)) if standing.limit.kind in gauges else standing
        for standing in limits.quotas
    )
    return replace(limits, quotas=quotas)


class _UnusableError(HubUnavailableError):
    """The hub is there, and what it says of this tenant is of no use."""


def _no_answer(error: Exception) -> HubUnavailableError:
    """Return what callers are told: whatever a source raises means that it cannot be told, never that it is refused."""
    if isinstance(error, HubUnavailableError):
        return error
    if isinstance(error, TimeoutError):
        return HubUnavailableError(f"the hub did not answer within {_DEADLINE_SECONDS:g} s")
    if isinstance(error, OSError):
        return HubUnavailableError(f"the hub cannot be asked about limits ({type(error).__name__})")
    _log.error("the hub's answer about limits cannot be used", exc_info=error)
    return _UnusableError("the hub's answer about limits cannot be used", retry_after_us=PAUSE_US)
