"""Identifiers and the small vocabulary that every floor shares.

A *tenant* is the isolated customer (HiveHub's ``user_id``); a *key id* is the public part of an access key and may
stand in logs; a *dimension* names what is counted. Nothing here is secret and nothing here has behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NewType, TypeAlias

TenantId = NewType("TenantId", str)
"""The canonical text of a tenant's id: by default a lower-case, hyphenated UUID."""

KeyId = NewType("KeyId", str)
"""The public id of an access key, as the hub issued it. Safe to log; never the secret."""

Dimension: TypeAlias = str
"""What is counted, for example ``storage_bytes``. Canonical names stand in `hivetenancy.plans.CANONICAL`."""

CellKey: TypeAlias = Dimension | tuple[Dimension, str]
"""A dimension, or a dimension of one named resource, as ``("vectors", "docs")``."""

Amounts: TypeAlias = Mapping[CellKey, int]
"""Amounts by dimension, or by dimension and resource, in the unit of the dimension."""


class Effect(StrEnum):
    """What a function does to data; decides which permission it needs and how fresh a key must be."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    ADMIN = "admin"


class Permission(StrEnum):
    """A permission as the wire names it. Each grants the effect of that name alone; ``admin`` grants all four.

    Source: HiveHub wire, part 1 (enumerations); architecture, decision 8.
    """

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    ADMIN = "admin"


class Environment(StrEnum):
    """Which kind of deployment a key is for. A key of the other environment is refused like an unknown one."""

    LIVE = "live"
    TEST = "test"


class Surface(StrEnum):
    """Through which door a call came. A key may be confined to some surfaces (preset ``MCP``)."""

    HTTP = "http"
    WEBSOCKET = "websocket"
    STREAM = "stream"
    MCP = "mcp"


STANDALONE: Final = TenantId("standalone")
"""The one owner of everything in standalone mode. It is no UUID, so no hub can issue it."""
