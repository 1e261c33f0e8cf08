"""What did they really use? The protocol."""

from __future__ import annotations

from typing import Protocol

from hivetenancy.clock import Instant
from hivetenancy.decision import Ticket
from hivetenancy.ids import Amounts, TenantId


class UsageReporter(Protocol):
    """Counts what happened, and sees to it that the hub hears of it once."""

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Ticket:
        """Count *amounts*; negative ones are credits of a gauge.

        Args:
            tenant: Whose use it was.
            amounts: By cell, in the unit of the dimension.
            now: The present instant; ``None``: the engine reads its clock. A counter's amounts belong to the period of
                this instant.

        Returns:
            A ticket that is done when the record is as durable as its dimension asks for.

        Raises:
            ValueError: A dimension nobody declared, an amount that is no whole number, or a negative one of a counter.

        Concurrency:
            Callable from any thread; never blocks.
        """
        ...


class Flushes(Protocol):
    """Optional ability: push what is counted to the sink now."""

    async def flush(self) -> int:
        """Report everything unreported; return how many cells were acknowledged.

        Raises:
            HubUnavailableError: The outcome of a report is unknown; it will be sent again unchanged.
        """
        ...


class HasSource(Protocol):
    """Optional ability: name the sources whose share of the hub's numbers is ours."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of all sources this reporter has ever written in this process, the present one last."""
        ...
