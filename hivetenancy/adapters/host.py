"""What an adapter needs of a tenancy. `hivetenancy.compose.Tenancy` is one; a test may bring a smaller one."""

from __future__ import annotations

from typing import Protocol

from hivetenancy.connections import ConnectionRegistry
from hivetenancy.gate import Gate

from .http import HttpOptions


class Host(Protocol):
    """A tenancy in cluster mode, as adapters see it."""

    @property
    def gate(self) -> Gate:
        """The gate that decides."""
        ...

    @property
    def options(self) -> HttpOptions:
        """How answers over HTTP look."""
        ...

    @property
    def connections(self) -> ConnectionRegistry:
        """The open connections by key."""
        ...

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped. Requests are served only then."""
        ...

    async def start(self) -> None:
        """Run the self-check and start the background work. Does nothing while running; callers share one attempt.

        Raises:
            ConfigurationError: Something is missing; the message names what, and the fix.
            UnavailableError: The hub cannot be reached; trying again may help.
        """
        ...

    async def stop(self) -> None:
        """Close connections, flush usage, end the background work, within a deadline. Does nothing if not running."""
        ...
