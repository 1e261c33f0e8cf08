"""The one thread that the engines belong to, and the way there from others.

In-process engines take no lock: they belong to the thread of the loop that started the tenancy (architecture, decision
22). A call from another thread, for example a ``def`` endpoint that a framework runs in its pool, is handed to that
loop and waits for it. Before start, and in standalone use of components, there is no loop and every call is made where
it is.

Whoever waits may go away: its thread is interrupted, or has waited long enough. What the loop has done for it by then
is undone on the loop, if the caller said how; so a hold that nobody got is not held for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import get_ident
from typing import Any, Final, Generic, TypeVar

from hivetenancy.errors import MisuseError

Result = TypeVar("Result")

HAND_OVER_SECONDS: Final = 30.0
"""How long another thread waits for the loop: longer than any look-up's deadline, and not for ever."""

_LOOK_SECONDS: Final = 0.5  # how often a waiting thread looks whether the loop is still there


class Home:
    """Where the engines live."""

    __slots__ = ("_loop", "_thread")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None

    def settle_here(self) -> None:
        """Make the running loop, and its thread, the home."""
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()

    def leave(self) -> None:
        """Have no home any more."""
        self._loop = self._thread = None

    @property
    def here(self) -> bool:
        """Whether a call may be made right here: on the home thread, or while there is no home."""
        return self._thread is None or self._thread == get_ident()

    def call(self, function: Callable[[], Result], *, undo: Callable[[Result], None] | None = None) -> Result:
        """Run *function* at home and return its result, waiting if this is another thread.

        Args:
            function: What to run.
            undo: Takes back, at home, what *function* returned when nobody waits for it any more.

        Raises:
            MisuseError: The loop has not answered in time, or has ended.
        """
        if self.here:
            return function()

        async def run() -> Result:
            return function()

        return self._hand_over(run(), undo)

    def wait_for(
        self, work: Callable[[], Coroutine[Any, Any, Result]], *, undo: Callable[[Result], None] | None = None
    ) -> Result:
        """Run the coroutine of *work* at home and wait for it, from a thread.

        Args:
            work: What to run.
            undo: As for `call`.

        Raises:
            MisuseError: This is the home thread, where waiting would block the very loop that must do the work; or the
                loop has not answered in time, or has ended.
        """
        if self._loop is None or self.here:
            raise MisuseError("this `with` would have to wait for its own event loop; use `async with` here")
        return self._hand_over(work(), undo)

    def post(self, function: Callable[[], None]) -> None:
        """Run *function* at home, soon, without waiting for it; here, if home is gone and nobody can be disturbed."""
        loop = self._loop
        if loop is None or self.here:
            function()
            return
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # closed
            function()

    def _hand_over(self, work: Coroutine[Any, Any, Result], undo: Callable[[Result], None] | None) -> Result:
        loop = self._loop
        if loop is None or not loop.is_running():
            work.close()
            raise _gone()
        handed = _Handed(work, undo)
        try:
            loop.call_soon_threadsafe(handed.start)
        except RuntimeError:
            work.close()
            raise _gone() from None
        return handed.wait(loop)


class _Handed(Generic[Result]):
    """One call on its way to the loop and back.

    `asyncio.run_coroutine_threadsafe` drops the result of work that was done in the moment its caller gave up; this
    hands it to *undo*.
    """

    __slots__ = ("_answer", "_task", "_undo", "_work")

    def __init__(self, work: Coroutine[Any, Any, Result], undo: Callable[[Result], None] | None) -> None:
        self._work = work
        self._undo = undo
        self._answer: Future[Result] = Future()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the work. On the loop."""
        if self._answer.cancelled():
            self._work.close()
        else:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            result = await self._work
        except BaseException as error:
            if self._answer.set_running_or_notify_cancel():
                self._answer.set_exception(_gone() if isinstance(error, asyncio.CancelledError) else error)
            if not isinstance(error, Exception):
                raise
        else:
            if self._answer.set_running_or_notify_cancel():
                self._answer.set_result(result)
            elif self._undo is not None:
                self._undo(result)

    def wait(self, loop: asyncio.AbstractEventLoop) -> Result:
        """Return the result. In the thread that asked."""
        end = time.monotonic() + HAND_OVER_SECONDS
        try:
            while not self._answer.done() and time.monotonic() < end and not loop.is_closed():
                with contextlib.suppress(TimeoutError):
                    return self._answer.result(min(_LOOK_SECONDS, max(0.0, end - time.monotonic())))
        except BaseException:
            self._give_up(loop)
            raise
        if not self._give_up(loop):
            return self._answer.result()
        if loop.is_closed():
            raise _gone()
        raise MisuseError(f"the tenancy's event loop did not answer within {HAND_OVER_SECONDS:g} s")

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Say whether the answer will be nobody's; end the work then."""
        if not self._answer.cancel():
            return False
        try:
            loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # closed: it will never start, or was ended with the loop
            if self._task is None:
                self._work.close()
        return True

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _gone() -> MisuseError:
    return MisuseError("the tenancy's event loop has ended; keep `async with tenancy` open while serving")
