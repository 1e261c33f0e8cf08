"""What the 23 calls are about and what they answer: values, and the one exception that is a refusal.

A collection or resource is known by what a service registered through the calls; what it holds is a *level*, replaced
by each report about it. Names of fields are the SDK's, but for times, which are wall microseconds here.

Source: HiveHub wire, part 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hivetenancy.errors import HubRefusedError
from hivetenancy.ids import Environment, Permission, TenantId

RESOURCE_TYPES: Final = ("queue", "stream", "keyvalue")
"""What Synap has names for."""

UNLIMITED: Final = 2**63 - 1
"""What stands for "no limit" where a reply must have a number: the largest that every reader of the wire takes."""

MAX_U32: Final = 2**32 - 1
"""The same for ``collection_limit``, which has 32 bits."""


class CallRefused(HubRefusedError):  # noqa: N818 - a refusal is an answer, not an error of the hub
    """A call that the hub heard and refuses; nothing was changed.

    Args:
        status: The HTTP status.
        code: The wire's word for it (HiveHub wire 4), such as ``quota_exceeded``.
        message: The wire's text for it.
        field: The field at fault, for ``bad_field``.
    """

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(status, message, code=code, field=field)


# --- what there is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredCollection:
    """A registered collection; *vector_count* and *storage_bytes* are what was last reported about it."""

    collection_id: str
    tenant_id: TenantId
    name: str
    dimension: int
    created_at_us: int
    vector_count: int = 0
    storage_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredResource:
    """A registered queue, stream or key value store; *message_count* and *storage_bytes* are what was last reported."""

    resource_type: str
    name: str
    tenant_id: TenantId
    created_at_us: int
    max_size: int | None = None
    ttl: int | None = None
    message_count: int = 0
    storage_bytes: int = 0


# --- keys: calls 1 to 4 and rotation ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A key as the calls show it, one an id, never with a secret.

    Attributes:
        id: The key's id.
        service: The service it is for. One that is for all is shown as for the service that was asked about, or that
            asks, or else as ``vectorizer``, since the wire has no word for all.
        any_service: Whether it is for all.
        name: The owner's name for it.
        permissions: In the order of `hivetenancy.ids.Permission`.
        active: Whether it is neither revoked nor expired. It may be not valid yet, or its owner suspended.
        created_at_us: When it was issued.
        last_used_at_us: When it was last introspected; ``None``: never.
        expires_at_us: Not valid from then on; ``None``: no end.
        not_before_us: Not valid before; ``None``: at once.
        user_id: The owner; ``None``: nobody.
        version: Its newest version.
        functions: The function allow list; ``None``: none.
        resources: Resource rules; ``None``: none.
        networks: Networks it is confined to; empty: everywhere.
        environment: Live or test.
        overlap_until_us: When the secret before the newest ends; ``None`` outside a rotation.
        revoked_at_us: When it was revoked; ``None``: it is not.
    """

    id: str
    service: str
    any_service: bool
    name: str
    permissions: tuple[Permission, ...]
    active: bool
    created_at_us: int
    last_used_at_us: int | None
    expires_at_us: int | None
    not_before_us: int | None
    user_id: TenantId | None
    version: int
    functions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    networks: tuple[str, ...]
    environment: Environment
    overlap_until_us: int | None
    revoked_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPage:
    """Keys, oldest first; *cursor* is where to go on, ``None`` at the end."""

    keys: tuple[KeyEntry, ...]
    cursor: str | None
    epoch: int
    revision: int
    now_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownKey:
    """A new secret (calls 1 and rotate), shown this once, with the key as it is now."""

    access_key: str = field(repr=False)
    key: KeyEntry
    epoch: int
    revision: int
    now_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedKey:
    """The reply to a revocation."""

    success: bool
    message: str
    epoch: int
    revision: int
    now_us: int


# --- vectorizer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """A collection as call 5 shows it."""

    collection_id: str
    collection_name: str
    project_id: str
    project_name: str
    vector_count: int
    dimension: int
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCollections:
    """The reply to call 5. Without a limit, *collection_limit* is `MAX_U32`."""

    user_id: TenantId
    collections: tuple[CollectionInfo, ...]
    total_collections: int
    plan: str
    collection_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedCollection:
    """The reply to call 6; *created* is false where it was there already."""

    collection_id: str
    collection_name: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorQuota:
    """How many vectors a collection may hold; without a limit, *max_vectors* is `UNLIMITED`."""

    max_vectors: int
    current_vectors: int
    can_insert: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionValidation:
    """The reply to call 7."""

    valid: bool
    user_id: TenantId
    collection_id: str
    quota: VectorQuota
    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatedCollection:
    """The reply to call 8."""

    success: bool
    updated: bool
    quota: VectorQuota


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaVerdict:
    """The reply to calls 9, 11, 18 and 23; without a limit, *remaining* and *limit* are ``None``."""

    allowed: bool
    remaining: int | None
    limit: int | None


# --- nexus -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NexusQuota:
    """What a graph may hold, and holds; without a limit a maximum is `UNLIMITED`.

    Attributes:
        max_nodes: Nodes.
        current_nodes: Nodes.
        max_relationships: Relationships.
        current_relationships: Relationships.
        storage_limit_mb: In whole MiB, rounded down.
        storage_used_mb: In whole MiB, rounded up.
    """

    max_nodes: int
    current_nodes: int
    max_relationships: int
    current_relationships: int
    storage_limit_mb: int
    storage_used_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Credits of the month; without a limit, *total* is `UNLIMITED`."""

    available: int
    total: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDatabase:
    """The reply to call 10."""

    database_name: str
    quota: NexusQuota
    credits: Credits


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumedCredits:
    """The reply to call 12."""

    success: bool
    can_continue: bool
    credits_remaining: int


# --- synap -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UserResources:
    """The reply to call 14: short names by type, oldest first."""

    user_id: TenantId
    queues: tuple[str, ...]
    streams: tuple[str, ...]
    key_value_stores: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceValidation:
    """The reply to call 15; *resource_name* as it was asked about."""

    belongs_to_user: bool
    resource_name: str
    resource_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedResource:
    """The reply to call 16; *created* is false where it was there already."""

    full_resource_name: str
    created: bool


# --- lesstokens ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of the month; without a limit, *total* is `UNLIMITED`."""

    available: int
    used: int
    total: int
    limit_reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTokens:
    """The reply to calls 19 and 22."""

    user_id: TenantId
    tokens: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenValidation:
    """The reply to call 20."""

    allowed: bool
    tokens_available: int
    tokens_required: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumedTokens:
    """The reply to call 21."""

    success: bool
    tokens_remaining: int
