"""The 23 calls that HiveHub's services make today, one method each, grouped as in its official SDK (wire part 2).

Ids are UUIDs. Replies are the models of `hivetenancy.hub.wire`. Every method raises `HubUnavailableError` (no answer),
`HubRefusedError` (the hub says no: 404 unknown, 429 a limit is reached, 400 a field is wrong), `HubContractError` (an
answer outside the wire) and `InvalidNameError` (an id that is none, or a name that a path cannot carry).

Reads, and writes of absolute totals, are sent again if need be. A call that adds something is sent once, unless it
carries an *idempotency_key* that the hub has announced to honour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import ClassVar, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from hivetenancy.errors import HubContractError, HubRefusedError, InvalidNameError, TenancyError

from . import wire
from .caller import Caller, Query
from .names import owned, segment
from .translate import explain

MAX_LIST: Final = 1_000

_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{1,512}")
_Member = TypeVar("_Member", bound=StrEnum)


def path_id(value: str) -> str:
    """Return *value* as a segment of a path.

    Raises:
        InvalidNameError: It is no UUID.
    """
    try:
        found = str(UUID(value))
    except (ValueError, AttributeError, TypeError):
        found = ""
    # `UUID` also reads braces, a URN, digits of other scripts: an id is never repaired, only written in lower case.
    if not found or found != str(value).lower():
        raise InvalidNameError("ids at HiveHub are UUIDs with hyphens, and this is none")
    return found


def path_name(value: str) -> str:
    """Return a name as a segment of a path.

    Raises:
        InvalidNameError: HiveHub wire 4.9 lets no such name travel.
    """
    try:
        return segment(value)
    except ValueError as error:
        raise InvalidNameError(str(error)) from None


def checked(name: str) -> str:
    """Return a name that goes into a body; errors as `path_name`."""
    path_name(name)
    return name


def owned_name(value: str, user_id: str) -> str:
    """Return a name that goes into a body, short or with the prefix of *user_id*; errors as `path_name`."""
    user = path_id(user_id)
    short = owned(value, user)
    if short is None:
        raise InvalidNameError("a name at HiveHub must not begin with the prefix of another user")
    path_name(short)
    return value


def member(kind: type[_Member], value: str) -> _Member:
    """Return the member of an enumeration.

    Raises:
        InvalidNameError: There is none; the message lists those that there are.
    """
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(each.value for each in kind)
        raise InvalidNameError(f"HiveHub has the {kind.__name__} values {known}, and this is none") from None


def whole(name: str, value: int, low: int, high: int) -> str:
    """Return a number as a query has it.

    Raises:
        InvalidNameError: It is none, or outside *low* to *high*.
    """
    if type(value) is not int or not low <= value <= high:
        raise InvalidNameError(f"HiveHub cannot be asked this: {name} must be a whole number of {low} to {high}")
    return str(value)


def cursor_field(cursor: str | None) -> list[tuple[str, str]]:
    """Return a cursor as a field of a query; ``None``: no field.

    Raises:
        InvalidNameError: It is no cursor.
    """
    if cursor is None:
        return []
    if not _CURSOR.fullmatch(cursor):
        raise InvalidNameError("a cursor is what HiveHub gave with the page before, and this is none")
    return [("cursor", cursor)]


def body(build: Callable[[], BaseModel]) -> BaseModel:
    """Build a request.

    Raises:
        InvalidNameError: A field is out of range; its name and the rule are in the message, its value is not.
    """
    try:
        return build()
    except ValidationError as error:
        raise InvalidNameError(f"HiveHub cannot be asked this: {explain(error)}") from None


OTHER: Final = "HiveHub answers about something else than it was asked about"


def about(asked: str, told: str) -> None:
    """Compare whom a question was about with whom the answer is about."""
    if told != str(UUID(asked)):
        raise HubContractError(OTHER)


class _Group:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller


class _ServiceGroup(_Group):
    _service: ClassVar[wire.Service]

    async def check_quota(
        self, project_id: str, *, operation: str, estimated_size: int | None = None
    ) -> wire.QuotaVerdict:
        """Call 9, 11, 18 or 23: one verdict, which does not say what it counts. A project is a user unless stated."""
        question = body(
            lambda: wire.QuotaCheck(project_id=project_id, operation=operation, estimated_size=estimated_size)
        )
        return await self._caller.ask(
            wire.QuotaVerdict, "POST", f"/{self._service.value}/quota", body=question, repeatable=True
        )


class AccessKeysCalls(_Group):
    """Calls 1 to 4, and what X6 adds to them. A data server needs none of them."""

    async def generate(
        self,
        *,
        service: wire.Service | str,
        name: str,
        permissions: Iterable[str],
        expires_at_us: int | None = None,
        idempotency_key: str | None = None,
    ) -> wire.GeneratedKey:
        """Call 1: make a key that no user owns, as HiveHub does today. The secret is in the reply and nowhere else."""
        request = body(
            lambda: wire.GenerateKey.model_validate(
                {"service": service, "name": name, "permissions": list(permissions), "expires_at": expires_at_us}
            )
        )
        return await self._generate(request, idempotency_key)

    async def generate_for(
        self,
        user_id: str,
        *,
        service: wire.Service | str,
        name: str,
        permissions: Iterable[str],
        functions: Iterable[str] | None = None,
        resources: Iterable[str] | None = None,
        networks: Iterable[str] | None = None,
        environment: str | None = None,
        not_before_us: int | None = None,
        expires_at_us: int | None = None,
        parent_key_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.GeneratedKey:
        """Call 1 with X6: make a key of *user_id*. An echo that differs from what was asked is revoked and raised.

        Raises:
            HubContractError: The hub made another key than it was asked for; it is revoked, or the message names it.
        """
        wanted = {
            "service": service,
            "name": name,
            "permissions": list(permissions),
            "user_id": path_id(user_id),
            "functions": None if functions is None else list(functions),
            "resources": None if resources is None else list(resources),
            "networks": None if networks is None else list(networks),
            "environment": environment,
            "not_before": not_before_us,
            "expires_at": expires_at_us,
            "parent_key_id": None if parent_key_id is None else path_id(parent_key_id),
        }
        made = await self._generate(body(lambda: wire.GenerateOwnedKey.model_validate(wanted)), idempotency_key)
        strange = [field for field in _ECHOED if not _same(wanted[field], getattr(made, field))]
        if strange:
            raise HubContractError(await self._undone(made.access_key_id, f"differs in {', '.join(strange)}"))
        return made

    async def _undone(self, key_id: str, fault: str) -> str:
        """Revoke a key that should not be there, and say how that went."""
        try:
            await self.revoke(key_id)
        except TenancyError as error:
            return f"HiveHub made the key {key_id}, which {fault} and could not be revoked: revoke it ({error})"
        return f"HiveHub made a key that {fault}; it is revoked again"

    async def _generate(self, request: BaseModel, key: str | None) -> wire.GeneratedKey:
        return await self._caller.ask(
            wire.GeneratedKey, "POST", "/access-keys/generate", body=request, repeatable=False, key=key
        )

    async def list(
        self,
        *,
        service: wire.Service | str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> wire.KeyList:
        """Call 2: the keys of a service; with X6 those of one user, page by page."""
        fields: list[tuple[str, str]] = []
        if service is not None:
            fields.append(("service", member(wire.Service, service).value))
        if user_id is not None:
            fields.append(("user_id", path_id(user_id)))
        if limit is not None:
            fields.append(("limit", whole("limit", limit, 1, MAX_LIST)))
        fields += cursor_field(cursor)
        return await self._caller.ask(wire.KeyList, "GET", "/access-keys", query=fields, repeatable=True)

    async def get(self, key_id: str) -> wire.KeyInfo:
        """Call 3: one key."""
        found = await self._caller.ask(wire.KeyInfo, "GET", f"/access-keys/{path_id(key_id)}", repeatable=True)
        about(key_id, found.id)
        return found

    async def revoke(self, key_id: str) -> wire.RevokedKey:
        """Call 4: revoke a key with all its versions. A second time is success: the first reply may have been lost."""
        path = f"/access-keys/{path_id(key_id)}"
        try:
            return await self._caller.ask(wire.RevokedKey, "DELETE", path, repeatable=True)
        except HubRefusedError as error:
            if error.status == 400 and (error.code == "already_revoked" or "already revoked" in str(error)):
                return wire.RevokedKey(success=True, message="already revoked")
            raise

    async def rotate(
        self,
        key_id: str,
        *,
        overlap_seconds: int,
        expected_version: int,
        compromised: bool = False,
        idempotency_key: str | None = None,
    ) -> wire.RotatedKey:
        """X6: give a key a new secret; the old one counts for *overlap_seconds* more, if it is not *compromised*."""
        request = body(
            lambda: wire.RotateKey(
                overlap_seconds=overlap_seconds, compromised=compromised, expected_version=expected_version
            )
        )
        rotated = await self._caller.ask(
            wire.RotatedKey,
            "POST",
            f"/access-keys/{path_id(key_id)}/rotate",
            body=request,
            repeatable=False,
            key=idempotency_key,
        )
        about(key_id, rotated.access_key_id)
        return rotated


_ECHOED: Final = (
    "service",
    "name",
    "permissions",
    "user_id",
    "functions",
    "resources",
    "networks",
    "environment",
    "not_before",
    "expires_at",
)


def _same(asked: object, made: object) -> bool:
    """Compare what was asked with its echo. What was left to the hub is the hub's; an empty list is not none."""
    if asked is None:
        return made in (None, ()) or isinstance(made, str)
    if isinstance(asked, list):
        return isinstance(made, tuple) and sorted(map(str, asked)) == sorted(map(str, made))
    return asked == made


class VectorizerCalls(_ServiceGroup):
    """Calls 5 to 9."""

    _service = wire.Service.VECTORIZER

    async def get_user_collections(self, user_id: str) -> wire.UserCollections:
        """Call 5: the collections of a user, and how many there may be."""
        path = f"/vectorizer/users/{path_id(user_id)}/collections"
        found = await self._caller.ask(wire.UserCollections, "GET", path, repeatable=True)
        about(user_id, found.user_id)
        return found

    async def create_collection(
        self, user_id: str, *, name: str, project_id: str, dimension: int, idempotency_key: str | None = None
    ) -> wire.CreatedCollection:
        """Call 6: register a collection; 429 where the user's limit is reached."""
        request = body(
            lambda: wire.CreateCollection(collection_name=checked(name), project_id=project_id, dimension=dimension)
        )
        path = f"/vectorizer/users/{path_id(user_id)}/collections"
        return await self._caller.ask(
            wire.CreatedCollection, "POST", path, body=request, repeatable=False, key=idempotency_key
        )

    async def validate_collection(self, collection_id: str, user_id: str) -> wire.CollectionValidation:
        """Call 7: whether a collection is the user's, and how many vectors it may hold and holds."""
        path = f"/vectorizer/collections/{path_id(collection_id)}/validate"
        found = await self._caller.ask(
            wire.CollectionValidation, "GET", path, query=(("user_id", path_id(user_id)),), repeatable=True
        )
        about(user_id, found.user_id)
        about(collection_id, found.collection_id)
        return found

    async def update_usage(
        self, collection_id: str, *, vector_count: int, storage_bytes: int
    ) -> wire.UpdatedCollection:
        """Call 8: state the absolute totals of a collection."""
        request = body(lambda: wire.CollectionUsage(vector_count=vector_count, storage_bytes=storage_bytes))
        path = f"/vectorizer/collections/{path_id(collection_id)}/usage"
        return await self._caller.ask(wire.UpdatedCollection, "PUT", path, body=request, repeatable=True)


class NexusCalls(_ServiceGroup):
    """Calls 10 to 13."""

    _service = wire.Service.NEXUS

    async def get_user_database(self, user_id: str) -> wire.UserDatabase:
        """Call 10: the graph of a user: limits, use and credits."""
        path = f"/nexus/users/{path_id(user_id)}/database"
        return await self._caller.ask(wire.UserDatabase, "GET", path, repeatable=True)

    async def consume_credits(
        self,
        user_id: str,
        *,
        amount: int,
        operation: str,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ConsumedCredits:
        """Call 12: spend credits; 429 where there are too few."""
        request = body(lambda: wire.Consume(amount=amount, operation=operation, description=description))
        path = f"/nexus/users/{path_id(user_id)}/credits"
        return await self._caller.ask(
            wire.ConsumedCredits, "POST", path, body=request, repeatable=False, key=idempotency_key
        )

    async def update_usage(
        self,
        user_id: str,
        *,
        nodes_created: int,
        relationships_created: int,
        storage_bytes: int,
        credits_used: int,
        idempotency_key: str | None = None,
    ) -> None:
        """Call 13: add to what is used. Increments, so never repeated without a key."""
        request = body(
            lambda: wire.NexusUsage(
                nodes_created=nodes_created,
                relationships_created=relationships_created,
                storage_bytes=storage_bytes,
                credits_used=credits_used,
            )
        )
        path = f"/nexus/users/{path_id(user_id)}/usage"
        await self._caller.ask(None, "PUT", path, body=request, repeatable=False, key=idempotency_key)


class SynapCalls(_ServiceGroup):
    """Calls 14 to 18."""

    _service = wire.Service.SYNAP

    async def get_user_resources(self, user_id: str) -> wire.UserResources:
        """Call 14: the names that a user has."""
        path = f"/synap/users/{path_id(user_id)}/resources"
        found = await self._caller.ask(wire.UserResources, "GET", path, repeatable=True)
        about(user_id, found.user_id)
        return found

    async def validate_resource(
        self, name: str, user_id: str, *, resource_type: wire.ResourceType | str
    ) -> wire.ResourceValidation:
        """Call 15: whether a name is the user's."""
        kind = member(wire.ResourceType, resource_type)
        fields: Query = (("user_id", path_id(user_id)), ("type", kind.in_query))
        path = f"/synap/resources/{path_name(name)}/validate"
        found = await self._caller.ask(wire.ResourceValidation, "GET", path, query=fields, repeatable=True)
        if owned(found.resource_name, path_id(user_id)) != name or found.resource_type is not kind:
            raise HubContractError(OTHER)
        return found

    async def create_resource(
        self,
        user_id: str,
        *,
        resource_type: wire.ResourceType | str,
        name: str,
        max_size: int | None = None,
        ttl: int | None = None,
        idempotency_key: str | None = None,
    ) -> wire.CreatedResource:
        """Call 16: register a name; 429 where the user's limit is reached."""

        def build() -> BaseModel:
            plain = max_size is None and ttl is None
            return wire.CreateResource(
                resource_type=member(wire.ResourceType, resource_type),
                resource_name=checked(name),
                config=None if plain else wire.ResourceConfig(max_size=max_size, ttl=ttl),
            )

        path = f"/synap/users/{path_id(user_id)}/resources"
        return await self._caller.ask(
            wire.CreatedResource, "POST", path, body=body(build), repeatable=False, key=idempotency_key
        )

    async def update_usage(
        self,
        user_id: str,
        *,
        resource_type: wire.ResourceType | str,
        resource_name: str,
        message_count: int | None = None,
        storage_bytes: int | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> None:
        """Call 17. The wire does not say whether these are totals or increments; *repeatable* is for who knows."""
        name = owned_name(resource_name, user_id)
        request = body(
            lambda: wire.SynapUsage(
                resource_type=member(wire.ResourceType, resource_type),
                resource_name=name,
                message_count=message_count,
                storage_bytes=storage_bytes,
            )
        )
        path = f"/synap/users/{path_id(user_id)}/usage"
        await self._caller.ask(None, "PUT", path, body=request, repeatable=repeatable, key=idempotency_key)


class LessTokensCalls(_ServiceGroup):
    """Calls 19 to 23."""

    _service = wire.Service.LESSTOKENS

    async def get_user_tokens(self, user_id: str) -> wire.UserTokens:
        """Call 19: the tokens of a user."""
        path = f"/lesstokens/users/{path_id(user_id)}/tokens"
        found = await self._caller.ask(wire.UserTokens, "GET", path, repeatable=True)
        about(user_id, found.user_id)
        return found

    async def validate_tokens(self, user_id: str, *, required: int) -> wire.TokenValidation:
        """Call 20: whether so many are left."""
        path = f"/lesstokens/users/{path_id(user_id)}/validate"
        return await self._caller.ask(
            wire.TokenValidation,
            "GET",
            path,
            query=(("required", whole("required", required, 0, 2**64 - 1)),),
            repeatable=True,
        )

    async def consume_tokens(
        self,
        user_id: str,
        *,
        amount: int,
        operation: str,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ConsumedTokens:
        """Call 21: spend tokens; 429 where there are too few."""
        request = body(lambda: wire.Consume(amount=amount, operation=operation, description=description))
        path = f"/lesstokens/users/{path_id(user_id)}/consume"
        return await self._caller.ask(
            wire.ConsumedTokens, "POST", path, body=request, repeatable=False, key=idempotency_key
        )

    async def check_limit(self, user_id: str) -> wire.TokenLimit:
        """Call 22: the tokens of a user, without saying whose they are."""
        path = f"/lesstokens/users/{path_id(user_id)}/limit"
        return await self._caller.ask(wire.TokenLimit, "GET", path, repeatable=True)
