"""Usage in memory: every total in one process, nothing on disk.

`MemoryUsage.record` is called on the request path, by any thread, and must never wait. So it validates, finds the
calendar period, and appends one entry to a deque, which is one step for every thread; no lock is taken. Whoever reads
(the reporter, `MemoryUsage.total`) takes the lock and *folds* the entries into the totals. A recorder folds too, every
so many entries, but only if the lock is free at that moment: so memory is bound by cells and not by calls.

A process that dies takes with it what was not reported. Where that is too much, use a journal.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC as UTC_ZONE
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from hivetenancy.clock import HOUR_US, SECOND_US, Clock, Instant, SystemClock
from hivetenancy.decision import DONE, Ticket
from hivetenancy.errors import ConfigurationError, MissingTenantError
from hivetenancy.ids import Amounts, CellKey, Dimension, TenantId
from hivetenancy.periods import UTC, Period, bounds
from hivetenancy.periods import zone as zone_named
from hivetenancy.plans import CANONICAL, MAX_AMOUNT, DimensionSpec, QuotaKind
from hivetenancy.sources import RejectCode, SourceConflict, UsageReply, UsageReport

from .cumulative import Totals, UsageAlarm, Window
from .protocol import HasSource, UsageReporter

GRACE_US: Final = HOUR_US
"""How long a period is kept when it is over, by default: as a hub does for late reports (``usage_grace_seconds``)."""

_FOLD_AT: Final = 64
"""Entries after which a recorder folds: some 20 us of work at once, and a deque that stays small."""

_Entry: TypeAlias = tuple[Window | None, TenantId, CellKey, QuotaKind, int]


class _Meter:
    """How one dimension is counted; holds the period that is open, since the next record is nearly always in it."""

    __slots__ = ("kind", "least", "spec", "window", "zone")

    def __init__(self, spec: DimensionSpec, zone: str) -> None:
        self.spec = spec
        self.zone = zone
        self.kind = spec.kind
        self.least = 0 if spec.kind is QuotaKind.COUNTER else 1 - MAX_AMOUNT
        self.window: Window | None = None if spec.period is None else (0, 0)

    def open(self, wall_us: int) -> Window | None:
        """Return the period that holds *wall_us*, and remember it."""
        if self.spec.period is None:
            return None
        self.window = window = bounds(self.spec.period, wall_us, self.zone)
        return window


class MemoryUsage:
    """Counts in memory, one running total for each tenant, cell and calendar period.

    Dimensions of the kinds ``level`` and ``ephemeral`` are counted for `total` and never reported: a level is measured,
    not summed, and a gauge of the moment ends with the process.

    Args:
        dimensions: The declared dimensions by name.
        clock: Read where a call passes no instant.
        zone: Time zone whose calendar the periods of counters follow.
        source: Id of the source, 32 hex digits; ``None``: random, as it must be for each life of the totals.
        grace_us: How long a counter's total is kept after its period, at least. The hub may ask for it again.

    Raises:
        ConfigurationError: An argument is out of range, or the system has no data for *zone*.

    Concurrency:
        Every method may be called from any thread. `record` never waits: it takes no lock, or one that is free. The
        others share one lock with the reporter, held at most for as long as a report of 1,000 lines takes to build.

    Example:
        >>> usage = MemoryUsage()
        >>> usage.record(TenantId("acme"), {"storage_bytes": 120, ("vectors", "docs"): 3}).done
        True
        >>> usage.total(TenantId("acme"), "storage_bytes", None)
        120
    """

    def __init__(
        self,
        *,
        dimensions: Mapping[Dimension, DimensionSpec] = CANONICAL,
        clock: Clock | None = None,
        zone: str = UTC,
        source: str | None = None,
        grace_us: int = GRACE_US,
    ) -> None:
        zone_named(zone)
        if type(grace_us) is not int or grace_us < 0:
            raise ConfigurationError(f"grace_us must be a whole number of microseconds, at least 0, got {grace_us!r}")
        self._now = (clock or SystemClock()).now
        self._zone = zone
        self._meters: dict[CellKey, _Meter] = {}
        self._counted: dict[CellKey, _Meter] = {}
        for spec in dimensions.values():
            self.declare(spec)
        self._grace_us = grace_us
        self._inbox: deque[_Entry] = deque()
        self._fold_at = _FOLD_AT
        self._threshold: int | None = None
        self._wake: Callable[[], None] | None = None
        self._lock = Lock()
        self._totals = Totals(source=_source(source), writer=secrets.token_hex(8))

    def declare(self, spec: DimensionSpec, *, zone: str | None = None) -> None:
        """Count *spec* from now on as well; a dimension that is declared already stays as it is.

        Args:
            spec: The dimension.
            zone: Time zone whose calendar a counter's periods follow; ``None``: that of the whole.

        Raises:
            ConfigurationError: The system has no data for *zone*.
        """
        if spec.name not in self._meters:
            meter = self._meters[spec.name] = _Meter(spec, zone or self._zone)
            if meter.kind is not QuotaKind.STATIC:
                self._counted[spec.name] = meter

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        """Count *amounts*; negative ones are credits of a gauge. All of them or, when this raises, none.

        Args:
            tenant: Whose use it was.
            amounts: By cell, in the unit of the dimension; each ``abs(amount) < 2**53``.
            now: The present instant; ``None``: the clock is read. A counter's amounts belong to its period.

        Returns:
            The ticket that is done: in memory there is nothing to wait for.

        Raises:
            ValueError: A dimension nobody declared or of which nothing is counted, an amount that is no whole number or
                out of range, a negative one of a counter, or a resource that is no name.
            MissingTenantError: *tenant* is empty.
        """
        if not tenant:
            raise MissingTenantError("usage is somebody's: pass the tenant's id")
        wall_us = (self._now() if now is None else now)[1]
        counted = self._counted
        entries: list[_Entry] = []
        for cell, amount in amounts.items():
            meter = counted.get(cell) or self._meter(cell)
            if type(amount) is not int or not meter.least <= amount < MAX_AMOUNT:
                raise _bad_amount(meter, amount)
            window = meter.window
            if window is not None and not window[0] <= wall_us < window[1]:
                window = meter.open(wall_us)
            entries.append((window, tenant, cell, meter.kind, amount))
        self._inbox.extend(entries)
        if len(self._inbox) >= self._fold_at:
            self._try_fold()
        return DONE

    def total(self, tenant: TenantId, cell: CellKey, period_start_us: int | None) -> int:
        """Return everything that was ever counted in a cell by this process, reported or not.

        Args:
            tenant: Whose cell.
            cell: The dimension, or the dimension of a resource.
            period_start_us: Start of the counter's period; ``None`` for a gauge.

        Returns:
            The total; 0 where nothing was counted, or the period is long over and acknowledged.

        Raises:
            ValueError: A dimension nobody declared, or a start that is none of its periods'.
        """
        meter = self._meter(cell)
        period = meter.spec.period
        window = None if period is None else bounds(period, period_start_us or 0, meter.zone)
        if (None if window is None else window[0]) != period_start_us:
            raise ValueError(f"{meter.spec.name!r} has no period that starts at {period_start_us!r}")
        with self._lock:
            self._fold()
            return self._totals.total(window, tenant, cell)

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of all sources ever written in this process, the present one last."""
        return self._totals.sources

    @property
    def alarms(self) -> tuple[UsageAlarm, ...]:
        """The latest thousand alarms, oldest first."""
        with self._lock:
            return self._totals.alarms

    @property
    def parked(self) -> tuple[UsageAlarm, ...]:
        """The cells that the hub refused for good, each with what the hub lacks of it by now."""
        with self._lock:
            return self._totals.parked

    @property
    def unreported(self) -> int:
        """How many cells the hub has yet to hear of."""
        with self._lock:
            self._fold()
            return self._totals.unreported

    # --- for the reporter ---------------------------------------------------------------------------------------------

    def begin_round(self) -> None:
        """Take in all that was recorded until now, for `next_report` to hand out."""
        with self._lock:
            self._fold()
            self._totals.begin_round()

    def drop_closed(self, *, now: Instant | None = None) -> int:
        """Drop the acknowledged counters of periods that are over for the grace time; return how many.

        To be called once the hub has taken a report: so it has not lost history just now, and they are not asked for.
        """
        wall_us = (self._now() if now is None else now)[1]
        with self._lock:
            return self._totals.drop_closed(wall_us - self._grace_us)

    def next_report(self, *, final: bool = False) -> UsageReport | None:
        """Return the report whose outcome is unknown, or the next of the round; ``None`` when there is none.

        Args:
            final: Close the source if nothing is left to say. What is recorded later begins a new one.
        """
        with self._lock:
            if final:
                self._fold()  # what was recorded a moment ago is to keep the source open
            return self._totals.report(fresh=secrets.token_hex(16), final=final)

    def settle(self, report: UsageReport, outcome: UsageReply | SourceConflict) -> int:
        """Take in what became of *report*; return how many cells are acknowledged now.

        Raises:
            HubContractError: The answer cannot be one to this report; the report stays under way.
            ValueError: *report* is not under way.
        """
        with self._lock:
            fresh = secrets.token_hex(16)
            return self._totals.settle(report, outcome, fresh=fresh, open_period=self._open_period)

    def _open_period(self, cell: CellKey, closed: Window) -> tuple[Window, str]:
        """Return the period that is open now, and the reason of a correction: which period it makes good."""
        meter = self._meter(cell)
        assert meter.spec.period is not None
        window = bounds(meter.spec.period, self._now()[1], meter.zone)
        return window, f"{RejectCode.PERIOD_CLOSED} {label(meter.spec.period, closed[0], meter.zone)}"

    def wake_at(self, threshold: int, wake: Callable[[], None] | None) -> None:
        """Call *wake*, in the thread of whoever records, once *threshold* cells have changed; ``None`` ends it.

        It must not block. It is called again with each further entries folded, until a round begins.
        """
        with self._lock:
            self._threshold, self._wake = threshold, wake
            self._fold_at = _FOLD_AT if wake is None else min(_FOLD_AT, threshold)

    # --- folding ------------------------------------------------------------------------------------------------------

    def _try_fold(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # who holds it folds, or the next recorder will
        try:
            self._fold()
            wake = self._wake if self._threshold and self._totals.changed >= self._threshold else None
        finally:
            self._lock.release()
        if wake is not None:
            wake()

    def _fold(self) -> None:
        """Move entries into the totals; the lock is held. Those that come meanwhile are left, or it might never end."""
        take, add = self._inbox.popleft, self._totals.add
        for _ in range(len(self._inbox)):
            window, tenant, cell, kind, amount = take()
            add(window, tenant, cell, kind, amount)

    def _meter(self, cell: CellKey) -> _Meter:
        """Return the meter of *cell*, the slow way.

        Raises:
            ValueError: There is none.
        """
        dimension, resource = (cell, "-") if isinstance(cell, str) else cell
        meter = self._meters.get(dimension)
        if meter is None:
            raise ValueError(f"nobody declared the dimension {dimension!r}; declare it where the usage is built")
        if meter.kind is QuotaKind.STATIC:
            raise ValueError(f"{dimension!r} is a static limit: nothing is counted of it")
        if type(resource) is not str or not resource:
            raise ValueError(f"the resource of {dimension!r} must be a name, got {resource!r}")
        return meter


def label(period: Period, start_us: int, zone: str) -> str:
    """Name a period for people: ``2030-01``, ``2030-01-31``, or the hour of UTC, for a zone may have one hour twice."""
    if period is Period.HOUR:
        return f"{datetime.fromtimestamp(start_us // SECOND_US, UTC_ZONE):%Y-%m-%dT%H:%MZ}"
    local = datetime.fromtimestamp(start_us // SECOND_US, zone_named(zone))
    return f"{local:%Y-%m}" if period is Period.MONTH else f"{local:%Y-%m-%d}"


def _bad_amount(meter: _Meter, amount: object) -> ValueError:
    name = meter.spec.name
    if type(amount) is int and amount < 0 and meter.kind is QuotaKind.COUNTER:
        return ValueError(f"{name!r} is a counter and never falls; only gauges take credits")
    return ValueError(f"an amount of {name!r} must be a whole number below 2**53, got {amount!r}")


def _source(given: str | None) -> str:
    if given is None:
        return secrets.token_hex(16)
    if len(given) != 32 or not set(given) <= set("0123456789abcdef"):
        raise ConfigurationError("source must be 32 lower-case hex digits, or None for random ones")
    return given


if TYPE_CHECKING:
    _conforms: tuple[type[UsageReporter], type[HasSource]] = (MemoryUsage, MemoryUsage)
