"""An event loop whose time is moved by hand, so that nothing under test waits and nothing is left to the machine."""

from __future__ import annotations

import asyncio
from typing import Any

from hivetenancy.clock import SECOND_US
from hivetenancy.testing import ManualClock


class _Nothing:
    """A selector without anything to select."""

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        return


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is a `ManualClock`, run turn by turn. It knows no files, sockets or signals."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _Nothing()
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.errors.append(context))

    def time(self) -> float:
        """Return the monotonic time of the clock, in seconds."""
        return self._clock.now()[0] / SECOND_US

    def _process_events(self, _events: Any) -> None:
        return

    def _write_to_self(self) -> None:
        return

    def turn(self) -> bool:
        """Run whatever is ready now once; return whether anything is left."""
        self.stop()
        self.run_forever()
        return bool(self._ready)

    def rest(self) -> None:
        """Run until nothing is ready."""
        while self.turn():
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass, and run whatever comes due at its moment."""
        until = self._clock.now()[0] + round(seconds * SECOND_US)
        self.rest()
        while (now := self._clock.now()[0]) < until:
            due = round(self._scheduled[0].when() * SECOND_US) if self._scheduled else until
            self._clock.advance(us=min(max(due, now + 1), until) - now)
            self.rest()
