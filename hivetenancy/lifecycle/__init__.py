"""A tenant's life: whether it may work now, and its deletion, proven. The protocol; engines are in the files beside."""

from .protocol import (
    ChecksTenant,
    DeletionIncompleteError,
    DrainsConnections,
    Receipt,
    Standing,
    State,
    Step,
    TenantDataSource,
    TenantStateError,
    Tombstone,
)

__all__ = [
    "ChecksTenant",
    "DeletionIncompleteError",
    "DrainsConnections",
    "Receipt",
    "Standing",
    "State",
    "Step",
    "TenantDataSource",
    "TenantStateError",
    "Tombstone",
]
