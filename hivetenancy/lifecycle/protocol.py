"""Where a tenant stands in its life here, and what has to be emptied before it may be called deleted.

A *generation* is one life of a tenant: 1 from the beginning, one more with each time it is created again after a
deletion. Everything that outlives a request and belongs to a tenant (cache entries, handles, stamps, backups) carries
the generation, so nothing of an earlier life counts in a later one (isolation note, A38).

This is the life of the tenant's data on this server. What HiveHub says about the tenant (suspended, deleting) counts
beside it: a tenant is served only where both let it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from hivetenancy.context import TenantContext
from hivetenancy.decision import Reason
from hivetenancy.errors import TenancyError
from hivetenancy.ids import TenantId


class State(StrEnum):
    """Where a tenant stands. Of what is not written down anywhere, every tenant is active, in its first generation."""

    ACTIVE = "active"
    READ_ONLY = "read_only"
    BLOCKED = "blocked"
    DELETING = "deleting"
    DELETED = "deleted"


class Step(StrEnum):
    """How far a deletion has come; each is written down before it is begun."""

    DRAIN = "drain"
    PURGE = "purge"
    PROVE = "prove"


class Standing(NamedTuple):
    """What transitions are compared with: they happen only where both are as the caller believes.

    Attributes:
        state: The state.
        generation: Which life of the tenant it is, from 1.
    """

    state: State
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """That one source was purged of one life of a tenant.

    Attributes:
        source: The source's name.
        amount: How many pieces it removed, over all attempts that were written down.
        at_us: Wall time of the last attempt.
    """

    source: str
    amount: int
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is left of one life of a tenant: that every source was empty, twice.

    Attributes:
        tenant: The tenant.
        generation: Which life ended.
        token: Names this deletion; `Lifecycle.recreate` wants it. Random, and no secret of anybody's.
        receipts_hash: SHA-256 of the receipts, in hex.
        at_us: Wall time of the second proof.
    """

    tenant: TenantId
    generation: int
    token: str
    receipts_hash: str
    at_us: int


class TenantDataSource(Protocol):
    """A place that holds data of tenants: a store, a cache, a folder, an index.

    Both methods get the context of the life that is deleted; its key is ``None``. Both may be called again at any time,
    from the beginning, after any failure or crash.
    """

    @property
    def name(self) -> str:
        """What receipts call it: the same after a restart, and no other source's."""
        ...

    async def purge(self, context: TenantContext) -> int:
        """Remove everything of the tenant and nothing of any other; return how many pieces that were.

        Raises:
            Exception: Some of it may be left. The deletion stays unfinished and comes again.
        """
        ...

    async def count(self, context: TenantContext) -> int:
        """Return how many pieces of the tenant are there now: looked up, never remembered.

        Raises:
            Exception: It cannot be told, which is never taken for none.
        """
        ...


@runtime_checkable
class ChecksTenant(Protocol):
    """A data source that knows which texts are ids, and is asked before anything is written down or removed."""

    def check(self, context: TenantContext) -> None:
        """See that the tenant's id is one, spelt as requests of that tenant have it.

        Raises:
            InvalidNameError: It is none, or another spelling: the tenant's data would be found, and its requests would
                go on, for the fence would stand before the other spelling alone.
        """
        ...


class DrainsConnections(Protocol):
    """Closes what is open for a tenant (`hivetenancy.connections`)."""

    def close_tenant(self, tenant: TenantId, reason: Reason, /) -> int:
        """Close the tenant's open connections and streams; return how many."""
        ...


class TenantStateError(TenancyError):
    """A transition was refused, and nothing was changed: the tenant does not stand where that is possible.

    Attributes:
        tenant: The tenant.
        standing: Where it stands.
    """

    def __init__(self, tenant: TenantId, standing: Standing, message: str) -> None:
        super().__init__(f"tenant {tenant!r} is {standing.state} in generation {standing.generation}: {message}")
        self.tenant = tenant
        self.standing = standing


class DeletionIncompleteError(TenancyError):
    """A deletion did not come to its end: the tenant stays refused and ``deleting``, and is resumed.

    Attributes:
        tenant: The tenant.
        step: Where it stopped.
        failures: What is wrong, by the source's name; ``requests`` for work that did not end.
    """

    def __init__(self, tenant: TenantId, step: Step, failures: Mapping[str, str]) -> None:
        said = "; ".join(f"{name}: {what}" for name, what in failures.items())
        super().__init__(f"the deletion of tenant {tenant!r} is unfinished, at step {step}: {said}")
        self.tenant = tenant
        self.step = step
        self.failures = dict(failures)
