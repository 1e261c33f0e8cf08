"""What can go wrong between a fake hub and code under test, and the journal of what was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hivetenancy.errors import ConfigurationError
from hivetenancy.hub.bell import Bell

CALLS: Final = ("introspect", "introspect_batch", "limits", "limits_batch", "changes", "report")
"""What code under test can ask a hub, by the names that faults and the journal use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question that code under test asked.

    Attributes:
        name: Which, of `CALLS`.
        arguments: What was asked, as far as it is no secret: a key by its id, ``unknown`` where it has none.
        at_us: When, in wall microseconds of the hub's clock.
        outcome: ``answered``, ``outage``, or ``reply lost``.
    """

    name: str
    arguments: Mapping[str, object]
    at_us: int
    outcome: str

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name}({arguments}): {self.outcome}"


class Held:
    """Replies held back, from `FakeHiveHub.hold`: made, and not yet delivered.

    Concurrency:
        `release` from any thread; `wait_for` needs a running loop.
    """

    def __init__(self, name: str, when_released: Callable[[], None]) -> None:
        self._name = name
        self._when_released = when_released
        self._open = False
        self._lock = threading.Lock()
        self._arrivals = Bell()
        self._gate = Bell()
        self._count = 0

    def __repr__(self) -> str:
        return f"<Held {self._name}: {self._count} held>"

    @property
    def released(self) -> bool:
        """Whether it holds nothing any more."""
        return self._open

    @property
    def count(self) -> int:
        """How many replies are held now."""
        return self._count

    async def wait_for(self, count: int = 1, *, timeout: float = 5) -> None:
        """Wait until *count* replies are held.

        Raises:
            TimeoutError: They were not after *timeout* seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    arrival = self._arrivals.listen()
                    try:
                        if self._count >= count:
                            return
                        await arrival
                    finally:
                        self._arrivals.drop(arrival)
        except TimeoutError:
            raise TimeoutError(
                f"{self._count} replies to {self._name} are held, waited {timeout:g} s for {count}"
            ) from None

    def release(self) -> None:
        """Deliver what is held, and hold nothing from now on."""
        with self._lock:
            self._open = True
        self._gate.ring()
        self._when_released()

    async def pass_through(self) -> None:
        """Wait until released."""
        with self._lock:
            if self._open:
                return
            opened = self._gate.listen()
            self._count += 1
        self._arrivals.ring()
        try:
            await opened
        finally:
            self._gate.drop(opened)
            with self._lock:
                self._count -= 1


def known(names: Sequence[str]) -> tuple[str, ...]:
    """Return *names* if each is one of `CALLS`.

    Raises:
        ConfigurationError: One is not; the message lists them.
    """
    for name in names:
        if name not in CALLS:
            raise ConfigurationError(f"{name!r} is no call of a hub; the calls are {', '.join(CALLS)}")
    return tuple(names)
