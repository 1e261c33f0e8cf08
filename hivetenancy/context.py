"""Which tenant the running code acts for.

One context variable holds what is *bound*: in a request, its admission. It is set inside the guard, right around the
handler, and restored by value: a token cannot be reset in another context, and an async generator may well end in one.

What carries it: ``await``, tasks, ``asyncio.to_thread``, callbacks of the loop. What does not: threads and executors
that know nothing of contexts; use ``tenant.bind(fn)`` there.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol

from hivetenancy.decision import Ticket
from hivetenancy.ids import KeyId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantContext:
    """Who a piece of work is for. There is no default: code without a context has no tenant.

    Attributes:
        tenant_id: The tenant.
        key_id: The key that was used; ``None`` in standalone mode and for work that no key started.
        generation: Revision of the hub's answer that the key was accepted on; 0 in standalone mode.
    """

    tenant_id: TenantId
    key_id: KeyId | None
    generation: int


class Bound(Protocol):
    """What the context variable holds: something that acts for a tenant."""

    @property
    def context(self) -> TenantContext:
        """Who it acts for."""
        ...

    @property
    def tenant(self) -> object:
        """The `hivetenancy.tenant.Tenant` in force; typed as object because this floor does not know it."""
        ...

    @property
    def doing(self) -> str | None:
        """Name of the declared function that runs; ``None`` outside of any."""
        ...

    def await_later(self, ticket: Ticket) -> None:
        """Remember a ticket that must be done before the answer's first byte leaves."""
        ...


bound: Final[ContextVar[Bound | None]] = ContextVar("hivetenancy_bound", default=None)
"""What is bound here and now. Adapters and `Tenant.bind` set it; everybody else reads it through `current_tenant`."""
