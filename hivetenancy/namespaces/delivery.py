"""The second lock: what a store or broker hands back is the tenant's, or nobody sees it.

A scoped pattern matches the tenant's own names alone (`hivetenancy.namespaces.patterns`). That is the first lock. The
second asks again when something comes back, and knows nothing of how it was asked for: a wrong pattern, a broker with
dialects of its own, a listing that somebody else filled. A leak needs both to be wrong.

A name that is not the tenant's is a fault of the host or of this library, never of the tenant. So it is not left out
quietly: it is reported once, without being shown, and the whole answer fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from hivetenancy.clock import Instant
from hivetenancy.errors import InvalidNameError
from hivetenancy.hooks import IsolationKind, IsolationSink, report_isolation
from hivetenancy.ids import TenantId

N = TypeVar("N", str, bytes)


class Owner(Protocol[N]):
    """What decides whose a physical name is: a `NameScope`, or its ``binary``."""

    def owns(self, physical: N, /) -> bool:
        """Whether *physical* is the tenant's."""
        ...

    def strip(self, physical: N, /) -> N:
        """Return the logical name of *physical*; raise `InvalidNameError` where it is not the tenant's."""
        ...


class Delivery:
    """Takes the names that come back for one tenant, and gives the tenant's own names for them.

    Args:
        tenant: For whom.
        operation: What is delivered, for the audit: ``topics.deliver``.
        sink: Told of each name that is not the tenant's; `hivetenancy.hooks.LimitedIsolation` keeps a flood from
            it. ``None``: nobody is told, but nothing is let through either.

    Concurrency:
        Without state of its own; any number of threads.
    """

    __slots__ = ("_operation", "_sink", "_tenant")

    def __init__(self, tenant: TenantId, operation: str, *, sink: IsolationSink | None = None) -> None:
        self._tenant, self._operation, self._sink = tenant, operation, sink

    def deliver(self, scope: Owner[N], physical: N, /, *, now: Instant | None = None) -> N:
        """Return the logical name of *physical*.

        Args:
            scope: The tenant's names of the kind in question.
            physical: What came back.
            now: For the audit; ``None``: just now.

        Raises:
            InvalidNameError: *physical* is not the tenant's, or only the prefix itself, which is no name. The message
                does not show it, and it has been reported, once.
        """
        if scope.owns(physical):
            logical = scope.strip(physical)
            if logical:
                return logical
        raise self._foreign(physical, now)

    def deliver_all(self, scope: Owner[N], physical: Iterable[N], /, *, now: Instant | None = None) -> list[N]:
        """Return the logical names of *physical*, in order; raises as `deliver`, and then returns nothing at all."""
        return [self.deliver(scope, name, now=now) for name in physical]

    def _foreign(self, physical: str | bytes, now: Instant | None) -> InvalidNameError:
        report_isolation(
            self._sink,
            IsolationKind.FOREIGN_NAME,
            tenant=self._tenant,
            operation=self._operation,
            subject=physical,
            now=now,
        )
        return InvalidNameError("the store returned a name that is not this tenant's")
