"""What broken engines share: the bad moment itself, which they bring about instead of waiting for it.

A race that goes wrong by luck goes right on another machine, and the test that needs it to go wrong fails there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, TypeVar

Found = TypeVar("Found")
Result = TypeVar("Result")

PATIENCE_SECONDS: Final = 30.0


class OneLostUpdate:
    """Lets the first two threads that change something read before either writes, so that one change is lost.

    Everybody else waits until that has happened. From then on all take turns, so that nothing that goes wrong later can
    make up for the loss. Whoever comes first waits for a second thread; where none comes in time it changes alone, and
    nothing is lost.
    """

    def __init__(self) -> None:
        self._count = 0
        self._counting = threading.Lock()
        self._both = threading.Barrier(2)
        self._over = threading.Event()

    def run(
        self, turn: AbstractContextManager[object], read: Callable[[], Found], write: Callable[[Found], Result]
    ) -> Result:
        """Write what follows from what was read, in a *turn* of one's own or in the one bad moment."""
        with self._counting:
            self._count += 1
            number = self._count
        if number > 2:
            self._over.wait(PATIENCE_SECONDS)  # or the others might be done before the two have begun
        elif self._met():
            return self._first(turn, read, write) if number == 1 else self._second(read, write)
        with turn:
            return write(read())

    def _met(self) -> bool:
        try:
            self._both.wait(PATIENCE_SECONDS)
        except threading.BrokenBarrierError:
            self._over.set()
            return False
        return True

    def _first(
        self, turn: AbstractContextManager[object], read: Callable[[], Found], write: Callable[[Found], Result]
    ) -> Result:
        with turn:  # which keeps out everybody but the second
            self._both.wait(PATIENCE_SECONDS)
            found = read()
            self._both.wait(PATIENCE_SECONDS)
            written = write(found)
            self._both.wait(PATIENCE_SECONDS)
            self._both.wait(PATIENCE_SECONDS)
        self._over.set()
        return written

    def _second(self, read: Callable[[], Found], write: Callable[[Found], Result]) -> Result:
        self._both.wait(PATIENCE_SECONDS)
        found = read()
        self._both.wait(PATIENCE_SECONDS)
        self._both.wait(PATIENCE_SECONDS)
        written = write(found)
        self._both.wait(PATIENCE_SECONDS)
        return written
