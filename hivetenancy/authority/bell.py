"""Wakes tasks of any event loop from any thread.

Own code, because `asyncio.Event` belongs to one loop and may be set by its thread alone, `threading.Event` blocks the
loop that waits, and anyio's portals want to own the thread. A control plane in memory is polled by several loops and
changed by whatever thread runs the test.
"""

from __future__ import annotations

import asyncio
import threading


class Bell:
    """Something to wait for, rung by whoever has news.

    Concurrency:
        Everything may be called from any thread; `listen` needs a running loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._listeners)

    def listen(self) -> asyncio.Future[None]:
        """Return a future of the running loop, done at the next `ring`; `drop` it when nobody waits for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._listeners[future] = loop
        return future

    def drop(self, future: asyncio.Future[None]) -> None:
        """Forget *future*, rung or not."""
        with self._lock:
            self._listeners.pop(future, None)

    def ring(self) -> None:
        """Wake everybody who listens now."""
        with self._lock:
            listeners, self._listeners = self._listeners, {}
        for future, loop in listeners.items():
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # that loop was closed with the task still in it: nobody is left to wake
                continue


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
