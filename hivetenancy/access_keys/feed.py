"""Hears what changed at the hub, and tells those who keep answers of it.

One feed serves keys and limits alike. Its order of work is the whole point: it is opened before anything is fetched;
each event first raises the floor, then has the listeners drop what they keep, and only when all of a batch is done does
the cursor move. A poll that fails half-way is therefore repeated, and events are harmless twice.

A feed only ever takes trust away. What it says is gone is looked up again before it counts.

Where the source lives in this process (`SignalsChanges`) a change is applied in the moment it is made: whoever revokes
a key has revoked it when the call returns. Elsewhere `run` polls, and a revocation takes as long as the hub needs to
deliver it: 2 s while the feed is healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

from hivetenancy.clock import SECOND_US, Clock, Instant, SystemClock
from hivetenancy.errors import ConfigurationError, HubUnavailableError, TenancyError
from hivetenancy.sources import ChangeBatch, ChangeEvent, ChangeSource, SignalsChanges

from .floors import Floors

_log = logging.getLogger("hivetenancy.access_keys")

MAX_WAIT_SECONDS: Final = 25
"""Longest long poll that the wire knows (HiveHub wire 4.4)."""

HEALTHY_MARGIN_US: Final = 3 * SECOND_US
"""A feed is healthy while a poll completed within its waiting time and this (HiveHub wire 4.4)."""

_DEADLINE_MARGIN = 5  # seconds that a poll may take beyond its waiting time
_IDLE_PAUSE = 1.0  # seconds between polls that brought nothing: a source that does not wait must not be spun on
_FIRST_BACKOFF, _MAX_BACKOFF = 0.25, 2.0
_MAX_BATCHES = 1000  # in one go; a source that always has more gets its next turn from the loop


class Listener(Protocol):
    """Somebody who keeps answers of the hub. Both methods are synchronous, quick and never raise."""

    def on_event(self, event: ChangeEvent) -> None:
        """Drop what *event* makes wrong. The floors are raised already."""
        ...

    def on_reset(self, spread_seconds: int) -> None:
        """Verify everything kept again within *spread_seconds*, and use nothing after that unverified."""
        ...


class Feed:
    """The change feed of one hub.

    Args:
        changes: Where changes come from.
        floors: The floors to raise; ``None`` makes new ones. Share them with whoever keeps answers of the same hub.
        clock: Tells when a poll completed.
        wait_seconds: How long a poll waits for something to happen, 0-25.
        sleep: Pauses between polls, in seconds.
        moved: Called with epoch, cursor and revision whenever all of a batch has been applied and the cursor moved.

    Raises:
        ConfigurationError: *wait_seconds* is out of range.

    Concurrency:
        `run`, `open` and `poll_once` belong to one event loop. `pull` may come from any thread; batches are applied one
        at a time. A wake-up from another thread is handed to the loop if there is one, and applied on the spot if not.
    """

    def __init__(
        self,
        changes: ChangeSource,
        floors: Floors | None = None,
        *,
        clock: Clock | None = None,
        wait_seconds: int = 2,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        moved: Callable[[int, str, int], None] | None = None,
    ) -> None:
        if not 0 <= wait_seconds <= MAX_WAIT_SECONDS:
            raise ConfigurationError(f"wait_seconds must be 0 to {MAX_WAIT_SECONDS}, got {wait_seconds}")
        self.floors = floors or Floors()
        self._changes = changes
        self._signals = _signals(changes)
        self._clock = clock or SystemClock()
        self._wait_seconds = wait_seconds
        self._healthy_us = wait_seconds * SECOND_US + HEALTHY_MARGIN_US
        self._sleep = sleep
        self._moved = moved
        self._cursor: str | None = None
        self._completed_us: int | None = None
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._pulling = False
        self._brought = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._opening: asyncio.Task[bool] | None = None
        self.last_error: str | None = None
        """What went wrong with the last poll, without any secret; ``None`` while all is well."""
        self._unsubscribe = self._signals.subscribe(self._wake) if self._signals else None

    def __repr__(self) -> str:
        state = "open" if self.opened else "not open"
        return f"Feed({state}, epoch={self.floors.epoch}, floor_all={self.floors.floor_all})"

    @property
    def opened(self) -> bool:
        """Whether the hub answered once. Nothing may be fetched and kept before."""
        return self.floors.opened

    @property
    def silent(self) -> bool:
        """Whether the hub has said that it tells of no changes. Then age alone counts, and nothing is waited for."""
        return not getattr(self._changes, "offers_changes", True)

    def resume(self, epoch: int, cursor: str, revision: int) -> None:
        """Go on where an earlier process stopped, if nothing was heard yet. What it kept stays good for that long.

        What happened since is told by the next poll, or it says ``reset``, and everything is verified again.
        """
        if not self.opened:
            self.floors.reset(epoch, revision)
            self._cursor = cursor

    def healthy(self, now: Instant) -> bool:
        """Say whether a poll completed within ``wait_seconds + 3`` seconds before *now*."""
        completed = self._completed_us
        return completed is not None and now[0] - completed <= self._healthy_us

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell *listener* about everything from here on; return a function that ends it.

        Whoever subscribes after the feed was opened misses nothing as long as it has fetched nothing yet.
        """
        with self._lock:
            self._listeners = [*self._listeners, listener]

        def end() -> None:
            with self._lock:
                self._listeners = [each for each in self._listeners if each is not listener]

        return end

    def close(self) -> None:
        """Stop listening to a source in this process. `run` is ended by cancelling its task."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    # --- asking ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Poll once unless the hub answered before. Callers at the same time share one poll.

        Raises:
            HubUnavailableError: No answer; nothing may be fetched and kept yet.
        """
        if self.opened or self.silent or self.pull():
            return
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening.done() or self._opening.get_loop() is not loop:
            self._opening = asyncio.ensure_future(self.poll_once())
        if not await asyncio.shield(self._opening):
            raise HubUnavailableError("the change feed of the hub cannot be opened", retry_after_us=SECOND_US)

    async def poll_once(self) -> bool:
        """Ask once and apply what comes; return whether there was a usable answer.

        Never raises for what the source does: a failed poll is logged when it is the first, and leaves a word in
        `last_error`. Waits up to *wait_seconds* where the cursor is known, and gives up 5 s after that.
        """
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        asked = self._cursor
        try:
            async with asyncio.timeout(self._wait_seconds + _DEADLINE_MARGIN):
                batch = await self._changes.changes(asked, wait_seconds=self._wait_seconds)
        except Exception as error:  # noqa: BLE001 - whatever a source raises means that there was no answer
            return self._failed(_why(error))
        return self._apply(batch, asked)

    def pull(self) -> bool:
        """Apply what a source in this process has now; return whether it answered.

        Synchronous and without any loop. A source elsewhere gives ``False`` and changes nothing.
        """
        if self._signals is None:
            return False
        with self._lock:
            if self._pulling:  # a listener made a change: the loop below will see it
                return True
            self._pulling = True
            try:
                return self._drain(self._signals)
            finally:
                self._pulling = False

    async def run(self) -> None:
        """Poll for ever: at once after a batch that brought something, with growing pauses after failures.

        Ends only by cancellation, or with the exception of a listener, which a supervisor may start again: nothing is
        lost, since the cursor has not moved.
        """
        backoff = _FIRST_BACKOFF
        while True:
            if self.silent:
                await self._sleep(_IDLE_PAUSE)
                continue
            before, began = self._cursor, asyncio.get_running_loop().time()
            if self._signals is not None:
                self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
                done = self.pull()
            else:
                done = await self.poll_once()
            if not done:
                # Jitter, so that many servers do not come back in step.
                await self._sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _MAX_BACKOFF)
                continue
            backoff = _FIRST_BACKOFF
            # A long poll has waited already; a source that answers at once is asked once a second.
            idle = not self._brought or self._cursor == before
            waited = asyncio.get_running_loop().time() - began
            await self._sleep(max(_IDLE_PAUSE - waited, 0.0) if idle else 0)

    # --- applying --------------------------------------------------------------------------------------------------

    def _drain(self, signals: SignalsChanges) -> bool:
        for _ in range(_MAX_BATCHES):
            asked = self._cursor
            try:
                batch = signals.try_changes(asked)
            except Exception as error:  # noqa: BLE001 - whatever a source raises means that there was no answer
                return self._failed(_why(error))
            if batch is None:
                return self._failed("out of reach")
            if not self._apply(batch, asked):
                return False
            if not batch.more and not (batch.events and self._cursor != asked):
                break
        return True

    def _apply(self, batch: ChangeBatch, asked: str | None) -> bool:
        with self._lock:
            floors = self.floors
            if batch.epoch < floors.epoch:
                return self._failed("an answer of an epoch that is over")
            # Where the hub told of no changes until now, what was kept may be older than what it begins to tell.
            begins = self._cursor is None and self._completed_us is None
            if not floors.opened:
                floors.reset(batch.epoch, batch.revision)
            elif batch.reset or batch.epoch > floors.epoch or begins:
                floors.reset(batch.epoch, batch.revision)
                for listener in self._listeners:
                    listener.on_reset(batch.spread_seconds)
            for event in batch.events:
                floors.apply(event)
                for listener in self._listeners:
                    listener.on_event(event)
            if self._cursor == asked:  # another poll that was quicker has moved it further
                self._cursor, moved = batch.cursor, self._moved
            else:
                moved = None  # its revision does not belong to the cursor that stands
            self._brought = bool(batch.events)
            self._completed_us = self._clock.now()[0]
            self.last_error = None
            if moved is not None:
                moved(floors.epoch, batch.cursor, batch.revision)
        return True

    def _failed(self, why: str) -> bool:
        if self.last_error is None:
            _log.warning("the change feed of the hub does not answer (%s); keys are verified by age", why)
        self.last_error = why
        return False

    def _wake(self) -> None:
        loop = self._loop
        if loop is None or self._thread == threading.get_ident() or not loop.is_running():
            self.pull()
            return
        with contextlib.suppress(RuntimeError):  # closed in this very moment: nobody is left to serve
            loop.call_soon_threadsafe(self.pull)


def _signals(changes: ChangeSource) -> SignalsChanges | None:
    able = callable(getattr(changes, "try_changes", None)) and callable(getattr(changes, "subscribe", None))
    return cast("SignalsChanges", changes) if able else None


def _why(error: Exception) -> str:
    """Say what went wrong: an error of ours in its words; of any other its kind, for its text may hold anything."""
    return (isinstance(error, TenancyError) and str(error)) or type(error).__name__
