"""How usage is reported by calls, and what of that outlives the process: pinned strategies, totals, deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from hivetenancy.decision import DONE, Ticket
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension, TenantId

from .kept import Delivery, UsageCell


class Strategy(StrEnum):
    """How a cell is reported; pinned, since two strategies for one cell would both count."""

    CUMULATIVE = "cumulative"
    """Running totals for each source (X4)."""
    ABSOLUTE = "absolute"
    """The total as it stands, as often as need be."""
    IDEMPOTENCY_KEY = "idempotency_key"
    """An increment under a key, repeated to the byte until its outcome is known (X5)."""
    READ_BACK = "read_back"
    """An increment whose outcome, if unknown, is read from what the hub counts. The one with a residual."""
    INCREMENT = "increment"
    """An increment that is sent once; if its outcome is unknown it is parked."""


class Pins(Protocol):
    """Remembers which strategy a call is used with (`hivetenancy.hub.store.StateStore`)."""

    def pin(self, name: str, strategy: str) -> Ticket:
        """Settle it for good; `ConfigurationError` where another one is pinned."""
        ...

    def pinned(self) -> Mapping[str, str]:
        """Return what is pinned."""
        ...


class Absolutes(Protocol):
    """Remembers absolute totals."""

    def put_absolute(self, tenant: TenantId, dimension: Dimension, resource: str | None, value: int) -> Ticket:
        """Keep a total in the place of an earlier one."""
        ...

    def absolutes(self) -> Mapping[UsageCell, int]:
        """Return all of them."""
        ...

    async def flush(self) -> None:
        """Return when everything is on disk."""
        ...


class Deliveries(Protocol):
    """Remembers calls whose outcome is not known."""

    def put_delivery(self, id: str, first_sent_us: int, body: bytes) -> Ticket:  # noqa: A002 - what it is
        """Keep a call that is about to be sent; it may be sent when the ticket is done."""
        ...

    def drop_delivery(self, id: str) -> None:  # noqa: A002 - what it is
        """Forget a call whose outcome is known."""
        ...

    def deliveries(self) -> tuple[Delivery, ...]:
        """Return all of them."""
        ...


class SinkState(Pins, Absolutes, Deliveries, Protocol):
    """Everything that a sink keeps: `hivetenancy.hub.store.StateStore`, or `MemoryState` for the life of a process."""


class MemoryState:
    """Keeps nothing beyond the process, for hosts without ``state=``.

    A process that dies with a call under way leaves its outcome unknown for ever, and totals that the hub does not tell
    (storage of a collection) count from the start of the process.
    """

    def __init__(self) -> None:
        self._pins: dict[str, str] = {}
        self._absolutes: dict[UsageCell, int] = {}
        self._deliveries: dict[str, Delivery] = {}

    def pin(self, name: str, strategy: str) -> Ticket:
        """Settle it for the process; errors as `Pins`."""
        pinned = self._pins.setdefault(name, strategy)
        if pinned != strategy:
            raise ConfigurationError(f"usage by {name!r} is reported as {pinned!r}, and now {strategy!r} is asked for")
        return DONE

    def pinned(self) -> Mapping[str, str]:
        """Return what is pinned."""
        return dict(self._pins)

    def put_absolute(self, tenant: TenantId, dimension: Dimension, resource: str | None, value: int) -> Ticket:
        """Keep a total."""
        self._absolutes[UsageCell(tenant, dimension, resource)] = value
        return DONE

    def absolutes(self) -> Mapping[UsageCell, int]:
        """Return all totals."""
        return dict(self._absolutes)

    async def flush(self) -> None:
        """Return: there is no disk."""

    def put_delivery(self, id: str, first_sent_us: int, body: bytes) -> Ticket:  # noqa: A002 - what it is
        """Keep a call."""
        self._deliveries[id] = Delivery(id=id, first_sent_us=first_sent_us, body=body)
        return DONE

    def drop_delivery(self, id: str) -> None:  # noqa: A002 - what it is
        """Forget a call."""
        self._deliveries.pop(id, None)

    def deliveries(self) -> tuple[Delivery, ...]:
        """Return all calls."""
        return tuple(self._deliveries.values())


if TYPE_CHECKING:
    _conforms: type[SinkState] = MemoryState
