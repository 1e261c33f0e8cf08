"""The loop that moves running totals to a sink.

`MemoryUsage` counts; `Reporter` reports: on an interval, when enough cells have changed, when asked, and at stop. It
owns no number. A report stays frozen in the totals until its outcome is known, so that an outage, a cancelled flush or
a dead task loses nothing: whoever flushes next sends the very same report again. While the hub is out of reach the loop
goes on trying, ever more slowly, and what piles up is bound by cells, not by requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hivetenancy.clock import SECOND_US, Clock, SystemClock
from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError
from hivetenancy.sources import UsageSink

from .cumulative import UsageAlarm
from .memory import MemoryUsage
from .protocol import Flushes

_log: Final = logging.getLogger("hivetenancy.usage")

THRESHOLD: Final = 10_000
"""Changed cells that make a report go out early, by default: ten requests' worth, and some megabytes to lose."""

BACKOFF_S: Final = 1.0
"""Longest wait after the first failure; doubles with each further one."""

BACKOFF_MAX_S: Final = 60.0
"""Longest wait after any failure: a hub that is back is noticed within a minute."""


class Reporter:
    """Reports what a `MemoryUsage` counted, each amount once.

    Args:
        usage: What counts. It has one reporter.
        sink: Takes the reports.
        interval_s: Longest time, in seconds, that a change waits for a report while the hub answers.
        threshold: Cells changed after which a report goes out before its time.
        clock: Tells when a report succeeded.
        jitter: Draws from [0, 1): which share of a back-off is waited, so that servers do not all come back at once.

    Raises:
        ConfigurationError: *interval_s* is not above 0, or *threshold* below 1.

    Concurrency:
        For one event loop. `flush` and `stop` may be called while `run` runs; one report is under way at a time.
    """

    def __init__(
        self,
        usage: MemoryUsage,
        sink: UsageSink,
        *,
        interval_s: float = 10.0,
        threshold: int = THRESHOLD,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not interval_s > 0:
            raise ConfigurationError(f"interval_s must be above 0, got {interval_s!r}")
        if type(threshold) is not int or threshold < 1:
            raise ConfigurationError(f"threshold must be a whole number from 1, got {threshold!r}")
        self._usage = usage
        self._sink = sink
        self._interval_s = interval_s
        self._threshold = threshold
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._one = asyncio.Lock()
        self._woken = asyncio.Event()
        self._stopping = False
        self._failures = 0
        self._last_error: str | None = None
        self._last_success_us: int | None = None
        self._last_alarm: UsageAlarm | None = None

    @property
    def last_success_us(self) -> int | None:
        """Wall microseconds of the last time that everything had been reported; ``None``: never yet."""
        return self._last_success_us

    @property
    def last_error(self) -> str | None:
        """What went wrong last; ``None`` since the last success."""
        return self._last_error

    @property
    def failures(self) -> int:
        """How many flushes in a row have failed."""
        return self._failures

    @property
    def unreported(self) -> int:
        """How many cells the hub has yet to hear of."""
        return self._usage.unreported

    @property
    def alarms(self) -> tuple[UsageAlarm, ...]:
        """What no retry mends: parked cells, lost history, another writer. Oldest first."""
        return self._usage.alarms

    async def flush(self) -> int:
        """Report everything that was recorded until now; return how many cells were acknowledged.

        What is recorded meanwhile waits for the next flush. Lines that the hub rejected for the moment do, too.

        Raises:
            HubUnavailableError: The outcome of a report is unknown; it will be sent again unchanged.
            HubContractError: The hub answered outside the wire; likewise.
        """
        return await self._flush(final=False)

    async def _flush(self, *, final: bool) -> int:
        async with self._one:
            self._usage.begin_round()
            try:
                acknowledged = await self._send_round(final)
            except (HubUnavailableError, HubContractError) as error:
                self._failures += 1
                self._last_error = str(error)
                raise
            finally:
                self._log_alarms()
            self._failures = 0
            self._last_error = None
            now = self._clock.now()
            self._last_success_us = now[1]
            if acknowledged:
                self._usage.drop_closed(now=now)
            return acknowledged

    async def _send_round(self, final: bool) -> int:
        acknowledged = 0
        while (report := self._usage.next_report(final=final)) is not None:
            outcome = await self._sink.report(report)
            acknowledged += self._usage.settle(report, outcome)
        return acknowledged

    def _log_alarms(self) -> None:
        """Log each alarm that is new, once; the kind, the cell and the amount, which hold no secret."""
        alarms = self._usage.alarms
        known = next((n for n, alarm in enumerate(reversed(alarms)) if alarm is self._last_alarm), len(alarms))
        for alarm in alarms[len(alarms) - known :]:
            _log.error("usage alarm: %s", alarm)
            self._last_alarm = alarm

    async def run(self) -> None:
        """Report until stopped: on the interval, on the threshold, and again after failures.

        Anything but an unavailable or contradictory hub is raised, for the supervisor to show and to start this again;
        nothing is lost by that. A reporter that was stopped returns at once.
        """
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to wake
                loop.call_soon_threadsafe(self._woken.set)

        self._usage.wake_at(self._threshold, wake)
        try:
            wait_s = self._interval_s
            while not self._stopping:
                await self._pause(wait_s, until_woken=not self._failures)
                if not self._stopping:
                    wait_s = await self._attempt()
        finally:
            self._usage.wake_at(self._threshold, None)

    async def _attempt(self) -> float:
        """Flush once, whatever comes of it; return how long to wait, in seconds, before the next time."""
        try:
            await self.flush()
        except HubUnavailableError as error:
            return max(self._backoff_s(), (error.retry_after_us or 0) / SECOND_US)
        except HubContractError:
            return self._backoff_s()
        return self._interval_s

    def _backoff_s(self) -> float:
        # One line of arithmetic: tenacity drives a call until it succeeds, and this is a schedule without end.
        longest = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(self._failures - 1, 16))
        return self._jitter() * longest

    async def _pause(self, seconds: float, *, until_woken: bool) -> None:
        """Wait *seconds*, less if woken. While the hub is out of reach a threshold wakes nobody: only `stop` does."""
        if not until_woken:
            self._woken.clear()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0 and not self._stopping:
            try:
                await asyncio.wait_for(self._woken.wait(), left)
            except TimeoutError:
                return
            self._woken.clear()
            if until_woken:
                return

    async def stop(self, timeout_s: float = 5.0) -> int:
        """End `run`, report what is left and close the source; return how many cells could not be reported.

        Args:
            timeout_s: How long to go on trying, in seconds.

        Returns:
            0 when the hub has everything. Cells that it rejected for the moment count as left; parked ones do not.

        What is recorded afterwards is counted in a new source and reported by the next flush, if there is one.
        """
        self._stopping = True
        self._woken.set()
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                while await self._last_words() and self._usage.unreported:
                    pass  # requests that end meanwhile have something to say, too
        except TimeoutError:
            if not deadline.expired():
                raise
        return self._usage.unreported

    async def _last_words(self) -> int:
        """Flush and close, trying until it succeeds; return how many cells were acknowledged."""
        while True:
            try:
                return await self._flush(final=True)
            except (HubUnavailableError, HubContractError):
                await asyncio.sleep(self._backoff_s())


if TYPE_CHECKING:
    _conforms: type[Flushes] = Reporter
