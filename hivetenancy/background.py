"""Background work that is looked after: a task that dies is restarted with back-off, and health says so.

Nothing in here is known to the request path. A part is *red* from the moment its task died until it has run again for
as long as its last back-off lasted.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_log: Final = logging.getLogger("hivetenancy")

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 30.0

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHealth:
    """How one part is.

    Attributes:
        name: The part.
        ok: Whether it does its work.
        why: What is wrong, or worth knowing while it is well, in words fit for an operator; never a secret.
    """

    name: str
    ok: bool
    why: str = ""


class Supervisor:
    """Runs pieces of work until it is stopped, restarting those that die.

    Concurrency:
        Belongs to the loop it is started in.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._faults: dict[str, str] = {}

    def start(self, name: str, work: Work) -> None:
        """Run *work* as *name* from now on. It should run until cancelled; returning counts as dying."""
        self._tasks[name] = asyncio.create_task(self._keep_running(name, work), name=f"hivetenancy {name}")

    async def stop(self) -> None:
        """Cancel everything and wait for it to end."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # and not one by one: whoever cancels this stop must get through
        self._faults.clear()

    def health(self) -> list[PartHealth]:
        """Return how each piece of work is."""
        return [
            PartHealth(name=name, ok=name not in self._faults, why=self._faults.get(name, "")) for name in self._tasks
        ]

    async def _keep_running(self, name: str, work: Work) -> None:
        pause = FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            healing = loop.call_later(pause, self._faults.pop, name, None)
            began = loop.time()
            try:
                await work()
                fault = "ended although it should run until stopped"
            except asyncio.CancelledError:
                if _stopping():
                    raise
                fault = "ended by a cancellation that was not for it"  # of something that it waited for
            except Exception as error:  # noqa: BLE001 - whatever it was, it is restarted and shown
                fault = f"{type(error).__name__}: {error}"
                _log.exception("background work %r died; it is restarted", name)
            finally:
                healing.cancel()
            if _stopping():
                return  # the work turned its cancellation into something else
            self._faults[name] = fault
            pause = FIRST_PAUSE_SECONDS if loop.time() - began > LONGEST_PAUSE_SECONDS else pause
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _stopping() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
