"""The 23 calls of HiveHub's wire on a control plane in memory, as methods with the SDK's names.

Every refusal is a `CallRefused` with the wire's status and text, and leaves everything as it was. What belongs to
another user is refused, or denied, like what does not exist. A project is a user: ``project_id`` is the user's id.

What the calls count is booked as usage, each call under its own name, so that limits (X3) show it in ``used`` and a
quota verdict here never differs from one there. A server that reports a cell by both a call and cumulative usage counts
it twice: each cell has one way (HiveHub wire 4.1). Calls 8 and 17 tell totals of one collection or resource, which
replace those told before; calls 6, 12, 13, 16 and 21 add. What has happened (8, 13, 17) is booked beyond any limit;
what is about to (6, 12, 16, 21) is refused there.

Source: HiveHub wire, part 2; what it leaves open is said where it is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hivetenancy.hub.names import check_name, owned
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.plans import ANY_RESOURCE
from hivetenancy.sources import TenantStatus

from .booking import BookingDesk, available_of, check_amount, left_of, most_of, used_of
from .keydesk import bad_field, live_user
from .keys import SERVICES, checked_name
from .resources import (
    MAX_U32,
    RESOURCE_TYPES,
    UNLIMITED,
    CallRefused,
    CollectionInfo,
    CollectionValidation,
    ConsumedCredits,
    ConsumedTokens,
    CreatedCollection,
    CreatedResource,
    Credits,
    NexusQuota,
    QuotaVerdict,
    RegisteredCollection,
    RegisteredResource,
    ResourceValidation,
    Tokens,
    TokenValidation,
    UpdatedCollection,
    UserCollections,
    UserDatabase,
    UserResources,
    UserTokens,
    VectorQuota,
)
from .state import HubState, TenantRecord

_MIB: Final = 1024 * 1024
_U64: Final = 2**64
_I64: Final = 2**63
_U32: Final = 2**32

#: Where the number of things lies that are created by call 16; key value stores are names, and nothing counts those.
_COUNTED: Final = {"queue": "queues", "stream": "streams"}

#: What an operation needs, by service. One that creates a thing needs one of it, and its estimated size in storage.
_THINGS: Final[Mapping[str, Mapping[str, Dimension]]] = {
    "vectorizer": {"create_collection": "collections"},
    "nexus": {"create_node": "nodes", "create_relationship": "relationships"},
    "synap": {"create_queue": "queues", "create_stream": "streams"},
    "lesstokens": {},
}

#: What any other operation of a service needs (``insert``, ``api_request``, ``classification``): its estimated size,
#: or 1 where it names none, so that a verdict without size still says whether anything is left.
_MAIN: Final[Mapping[str, Dimension]] = {
    "vectorizer": "storage_bytes",
    "nexus": "storage_bytes",
    "synap": "storage_bytes",
    "lesstokens": "tokens",
}


class Desk(BookingDesk):
    """All calls of today's wire on a control plane; those about keys stand in `KeyDesk`."""

    # --- vectorizer --------------------------------------------------------------------------------------------------

    def get_user_collections(self, user_id: str) -> UserCollections:
        """List the registered collections of a user, oldest first (call 5).

        Raises:
            CallRefused: 404 "User not found".
        """
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            ids = state.collection_ids.get(record.tenant_id, {}).values()
            held = [_info(state.collections[collection_id], record) for collection_id in ids]
            limit = state.standing(record, "collections", None, self._now_us()).limit.limit
            return UserCollections(
                user_id=record.tenant_id,
                collections=tuple(held),
                total_collections=min(len(held), MAX_U32),
                plan=record.plan,
                collection_limit=MAX_U32 if limit is None else min(limit, MAX_U32),
            )

    def create_collection(
        self, user_id: str, collection_name: str, project_id: str, dimension: int
    ) -> CreatedCollection:
        """Register a collection (call 6). One of that name and dimension is answered with its id, ``created`` false.

        Raises:
            CallRefused: 400 ``bad_field``; 404 for the user or the project; 409 ``exists_differently`` where the name
                stands for another dimension, or ``user_not_active``; 429 ``quota_exceeded``.
        """
        with bad_field("collection_name"):
            _check_collection(collection_name)
        if type(dimension) is not int or not 0 < dimension < _U32:
            text = "Invalid dimension: must be positive" if dimension == 0 else "dimension: must be 1 to 2**32 - 1"
            raise CallRefused(400, "bad_field", text, "dimension")
        with self._hub.transaction() as state:
            record = self._user(state, user_id)
            self._project(record, project_id)
            known = state.collection_ids.get(record.tenant_id, {}).get(collection_name)
            if known is not None:
                if state.collections[known].dimension != dimension:
                    raise CallRefused(409, "exists_differently", "Collection exists with another dimension")
                return CreatedCollection(collection_id=known, collection_name=collection_name, created=False)
            live_user(record)
            self._take(state, record, "collections", 1, 6, ("quota_exceeded", "Collection limit reached"))
            made = RegisteredCollection(
                collection_id=self._hub.new_id(),
                tenant_id=record.tenant_id,
                name=collection_name,
                dimension=dimension,
                created_at_us=self._now_us(),
            )
            state.put_collection(made)
            return CreatedCollection(collection_id=made.collection_id, collection_name=collection_name, created=True)

    def validate_collection(self, collection_id: str, user_id: str) -> CollectionValidation:
        """Say whether a collection is a user's, and how much it may hold (call 7).

        Raises:
            CallRefused: 404 "User not found", or "Collection not found", also for one of another user.
        """
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            held = state.collections.get(collection_id)
            if held is None or held.tenant_id != record.tenant_id:
                raise CallRefused(404, "not_found", "Collection not found")
            return CollectionValidation(
                valid=True,
                user_id=record.tenant_id,
                collection_id=held.collection_id,
                quota=self._vectors(state, record, held),
                plan=record.plan,
            )

    def update_collection_usage(self, collection_id: str, vector_count: int, storage_bytes: int) -> UpdatedCollection:
        """Take the totals of a collection in place of those told before (call 8).

        Raises:
            CallRefused: 400 ``bad_field``; 404 "Collection not found".
        """
        check_amount("vector_count", vector_count)
        check_amount("storage_bytes", storage_bytes)
        with self._hub.transaction() as state:
            held = state.collections.get(collection_id)
            if held is None:
                raise CallRefused(404, "not_found", "Collection not found")
            record = state.tenants[held.tenant_id]
            self._add(state, record, "storage_bytes", storage_bytes - held.storage_bytes, 8)
            self._add(state, record, "vectors", vector_count - held.vector_count, 8, resource=held.name)
            held = replace(held, vector_count=vector_count, storage_bytes=storage_bytes)
            state.put_collection(held)
            return UpdatedCollection(success=True, updated=True, quota=self._vectors(state, record, held))

    def collection(self, collection_id: str) -> RegisteredCollection | None:
        """Return what is known of a collection; ``None``: there is none. For tests and tools, no call of the wire."""
        with self._hub.reading() as state:
            return state.collections.get(collection_id)

    # --- quota verdicts ----------------------------------------------------------------------------------------------

    def check_quota(
        self, service: str, project_id: str, operation: str, estimated_size: int | None = None
    ) -> QuotaVerdict:
        """Say whether an operation would fit (calls 9, 11, 18, 23). Nothing is held or counted.

        The wire does not say what the triple counts. Here an operation that creates a thing (``create_collection``,
        ``create_node``, ``create_relationship``, ``create_queue``, ``create_stream``) needs one of that kind, and
        *estimated_size* bytes of storage beside it; any other needs *estimated_size* (or 1) of the service's main
        dimension: storage in bytes, for ``lesstokens`` tokens. The triple is that of what refuses, or of the first.

        Args:
            service: Which service asks.
            project_id: The user's id.
            operation: What is to be done.
            estimated_size: How much it will take; ``None``: not known.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "Project not found".
        """
        if service not in SERVICES:
            raise CallRefused(400, "bad_field", f"service: must be one of {', '.join(SERVICES)}", "service")
        with bad_field("operation"):
            checked_name("it", operation)
        if estimated_size is not None and (type(estimated_size) is not int or not 0 <= estimated_size < _I64):
            raise CallRefused(400, "bad_field", "estimated_size: must be 0 to 2**63 - 1", "estimated_size")
        with self._hub.reading() as state:
            record = state.tenants.get(TenantId(project_id))
            if record is None:
                raise CallRefused(404, "not_found", "Project not found")
            needs = _needs(service, operation, estimated_size)
            verdicts = [self._verdict(state, record, dimension, amount) for dimension, amount in needs]
            return next((verdict for verdict in verdicts if not verdict.allowed), verdicts[0])

    def _verdict(self, state: HubState, record: TenantRecord, dimension: Dimension, amount: int) -> QuotaVerdict:
        standing = state.standing(record, dimension, None, self._now_us())
        active = record.status is TenantStatus.ACTIVE
        left = left_of(standing)
        if left is None:
            return QuotaVerdict(allowed=active, remaining=None, limit=None)
        return QuotaVerdict(allowed=active and amount <= left, remaining=left, limit=standing.limit.limit)

    # --- nexus -------------------------------------------------------------------------------------------------------

    def get_user_database(self, user_id: str) -> UserDatabase:
        """Say which graph is a user's, and what it may hold (call 10).

        Raises:
            CallRefused: 404 "User not found".
        """
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            cells = {
                name: state.standing(record, name, None, self._now_us())
                for name in ("nodes", "relationships", "storage_bytes", "credits")
            }
            storage = cells["storage_bytes"]
            credit = cells["credits"]
            return UserDatabase(
                database_name=f"user_{record.tenant_id}_nexus",
                quota=NexusQuota(
                    max_nodes=most_of(cells["nodes"]),
                    current_nodes=used_of(cells["nodes"]),
                    max_relationships=most_of(cells["relationships"]),
                    current_relationships=used_of(cells["relationships"]),
                    storage_limit_mb=UNLIMITED if storage.limit.limit is None else storage.limit.limit // _MIB,
                    storage_used_mb=-(-used_of(storage) // _MIB),
                ),
                credits=Credits(available=available_of(credit), total=most_of(credit), used=used_of(credit)),
            )

    def consume_credits(
        self, user_id: str, amount: int, operation: str, description: str | None = None
    ) -> ConsumedCredits:
        """Take credits of this month (call 12).

        Args:
            user_id: The user.
            amount: How many; 0 takes none and says how many are left.
            operation: What for.
            description: What for, in words; not kept.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found"; 409 ``user_not_active``; 429
                ``insufficient_credits``, which takes none.
        """
        with self._hub.transaction() as state:
            refusal = ("insufficient_credits", "Insufficient credits")
            left = self._consume(state, user_id, "credits", amount, operation, 12, refusal)
            return ConsumedCredits(success=True, can_continue=left > 0, credits_remaining=left)

    def update_nexus_usage(
        self,
        user_id: str,
        *,
        nodes_created: int = 0,
        relationships_created: int = 0,
        storage_bytes: int = 0,
        credits_used: int = 0,
    ) -> None:
        """Add to what a user's graph holds and used (call 13).

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found".
        """
        added = {
            "nodes": ("nodes_created", nodes_created),
            "relationships": ("relationships_created", relationships_created),
            "storage_bytes": ("storage_bytes", storage_bytes),
            "credits": ("credits_used", credits_used),
        }
        for field, amount in added.values():
            check_amount(field, amount)
        with self._hub.transaction() as state:
            record = self._user(state, user_id)
            for dimension, (field, amount) in added.items():  # all are looked at before one is booked
                self._sum(state, record, dimension, amount, 13, field=field)
            for dimension, (field, amount) in added.items():
                self._add(state, record, dimension, amount, 13, field=field)

    # --- synap -------------------------------------------------------------------------------------------------------

    def get_user_resources(self, user_id: str) -> UserResources:
        """List the short names of a user's resources by type, oldest first (call 14).

        Raises:
            CallRefused: 404 "User not found".
        """
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            held = state.resources.get(record.tenant_id, {})
            queues, streams, stores = (
                tuple(name for kind, name in held if kind == wanted) for wanted in RESOURCE_TYPES
            )
            return UserResources(user_id=record.tenant_id, queues=queues, streams=streams, key_value_stores=stores)

    def validate_resource(self, resource_name: str, user_id: str, resource_type: str) -> ResourceValidation:
        """Say whether a resource is a user's (call 15); one of another user is not, like one that nobody has.

        Args:
            resource_name: The short name, or the full one.
            user_id: The user.
            resource_type: ``queue``, ``stream`` or ``keyvalue``.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found".
        """
        _check_type(resource_type)
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            held = self._resource(state, record, resource_type, resource_name)
            return ResourceValidation(
                belongs_to_user=held is not None, resource_name=resource_name, resource_type=str(resource_type)
            )

    def create_resource(
        self,
        user_id: str,
        resource_type: str,
        resource_name: str,
        *,
        max_size: int | None = None,
        ttl: int | None = None,
    ) -> CreatedResource:
        """Register a queue, stream or key value store (call 16). One that is there is answered ``created`` false.

        Queues and streams count towards their limits; key value stores are names, and nothing limits those.

        Args:
            user_id: The user.
            resource_type: ``queue``, ``stream`` or ``keyvalue``.
            resource_name: Its short name.
            max_size: An option for the service; kept with it, ``None``: not said.
            ttl: Likewise.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found"; 409 ``user_not_active``; 429 ``quota_exceeded``.
        """
        _check_type(resource_type)
        with bad_field("resource_name"):
            check_name(resource_name)
        for field, option in (("max_size", max_size), ("ttl", ttl)):
            if option is not None and (type(option) is not int or not 0 <= option < _U64):
                raise CallRefused(400, "bad_field", f"{field}: must be 0 to 2**64 - 1", field)
        with self._hub.transaction() as state:
            record = self._user(state, user_id)
            full_name = f"user_{record.tenant_id}:{resource_name}"
            kind = str(resource_type)
            if (kind, resource_name) in state.resources.get(record.tenant_id, {}):
                return CreatedResource(full_resource_name=full_name, created=False)
            live_user(record)
            if kind in _COUNTED:
                refusal = ("quota_exceeded", f"{kind.capitalize()} limit reached")
                self._take(state, record, _COUNTED[kind], 1, 16, refusal)
            state.put_resource(
                RegisteredResource(
                    resource_type=kind,
                    name=resource_name,
                    tenant_id=record.tenant_id,
                    created_at_us=self._now_us(),
                    max_size=max_size,
                    ttl=ttl,
                )
            )
            return CreatedResource(full_resource_name=full_name, created=True)

    def update_synap_usage(
        self,
        user_id: str,
        resource_type: str,
        resource_name: str,
        *,
        message_count: int | None = None,
        storage_bytes: int | None = None,
    ) -> None:
        """Take the totals of a resource in place of those told before (call 17); ``None`` leaves one as it is.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found", or "Resource not found", also for one of another user.
        """
        _check_type(resource_type)
        for field, total in (("message_count", message_count), ("storage_bytes", storage_bytes)):
            if total is not None:
                check_amount(field, total)
        with self._hub.transaction() as state:
            record = self._user(state, user_id)
            held = self._resource(state, record, resource_type, resource_name)
            if held is None:
                raise CallRefused(404, "not_found", "Resource not found")
            stored = held.storage_bytes if storage_bytes is None else storage_bytes
            messages = held.message_count if message_count is None else message_count
            self._add(state, record, "storage_bytes", stored - held.storage_bytes, 17)
            state.put_resource(replace(held, message_count=messages, storage_bytes=stored))

    def resource(self, user_id: str, resource_type: str, resource_name: str) -> RegisteredResource | None:
        """Return what is known of a resource; ``None``: there is none. For tests and tools, no call of the wire."""
        with self._hub.reading() as state:
            return self._resource(state, self._user(state, user_id), resource_type, resource_name)

    # --- lesstokens --------------------------------------------------------------------------------------------------

    def get_user_tokens(self, user_id: str) -> UserTokens:
        """Say how many tokens a user has left this month (call 19).

        Raises:
            CallRefused: 404 "User not found".
        """
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            standing = state.standing(record, "tokens", None, self._now_us())
            return UserTokens(
                user_id=record.tenant_id,
                tokens=Tokens(
                    available=available_of(standing),
                    used=used_of(standing),
                    total=most_of(standing),
                    limit_reached=available_of(standing) == 0,
                ),
            )

    def check_token_limit(self, user_id: str) -> UserTokens:
        """Say the same as `get_user_tokens` (call 22)."""
        return self.get_user_tokens(user_id)

    def validate_tokens(self, user_id: str, required: int) -> TokenValidation:
        """Say whether a user has so many tokens (call 20).

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found".
        """
        if type(required) is not int or not 0 <= required < _U64:
            raise CallRefused(400, "bad_field", "required: must be 0 to 2**64 - 1", "required")
        with self._hub.reading() as state:
            record = self._user(state, user_id)
            available = available_of(state.standing(record, "tokens", None, self._now_us()))
            allowed = record.status is TenantStatus.ACTIVE and required <= available
            return TokenValidation(allowed=allowed, tokens_available=available, tokens_required=required)

    def consume_tokens(
        self, user_id: str, amount: int, operation: str, description: str | None = None
    ) -> ConsumedTokens:
        """Take tokens of this month (call 21); arguments as of `consume_credits`.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found"; 409 ``user_not_active``; 429 ``quota_exceeded``, which
                takes none.
        """
        with self._hub.transaction() as state:
            refusal = ("quota_exceeded", "Insufficient tokens")
            left = self._consume(state, user_id, "tokens", amount, operation, 21, refusal)
            return ConsumedTokens(success=True, tokens_remaining=left)

    # --- what several calls share ------------------------------------------------------------------------------------

    def _project(self, record: TenantRecord, project_id: str) -> None:
        if project_id != record.tenant_id:
            raise CallRefused(404, "not_found", "Project not found")

    def _vectors(self, state: HubState, record: TenantRecord, held: RegisteredCollection) -> VectorQuota:
        standing = state.standing(record, "vectors", held.name, self._now_us())
        return VectorQuota(
            max_vectors=most_of(standing),
            current_vectors=used_of(standing),
            can_insert=record.status is TenantStatus.ACTIVE and available_of(standing) > 0,
        )

    def _resource(
        self, state: HubState, record: TenantRecord, resource_type: str, resource_name: str
    ) -> RegisteredResource | None:
        short = owned(resource_name, record.tenant_id)
        if short is None:
            return None
        return state.resources.get(record.tenant_id, {}).get((str(resource_type), short))


def _info(held: RegisteredCollection, record: TenantRecord) -> CollectionInfo:
    return CollectionInfo(
        collection_id=held.collection_id,
        collection_name=held.name,
        project_id=record.tenant_id,
        project_name=record.name,
        vector_count=held.vector_count,
        dimension=held.dimension,
        created_at_us=held.created_at_us,
    )


def _needs(service: str, operation: str, size: int | None) -> list[tuple[Dimension, int]]:
    thing = _THINGS[service].get(operation)
    if thing is None:
        return [(_MAIN[service], 1 if size is None else size)]
    return [(thing, 1), ("storage_bytes", size or 0)] if size else [(thing, 1)]


def _check_collection(name: str) -> None:
    if check_name(name) == ANY_RESOURCE:
        raise ValueError(f"{ANY_RESOURCE} stands for all collections, and can be the name of none")


def _check_type(resource_type: str) -> None:
    if resource_type not in RESOURCE_TYPES:
        text = f"resource_type: must be one of {', '.join(RESOURCE_TYPES)}"
        raise CallRefused(400, "bad_field", text, "resource_type")
