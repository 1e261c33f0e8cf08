"""Every call of the wire, as one table: what the application routes by and what the OpenAPI document is made from.

A path is literal but for its parameters in braces, whose names say what they are (`PATH_PARAMETERS`). A literal segment
is preferred to a parameter. Journal and faults of a fake know a call by `Route.name`, which for the 23 calls is that of
HiveHub's SDK.

Source: HiveHub wire, part 2, and 4.1 to 4.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hivetenancy.hub import wire

from .api_http import Parameter

PREFIX: Final = "/api/internal"
DEFAULT_WAIT_SECONDS: Final = 2

ANNOUNCEMENT: Final = "announcement"
INTROSPECTION: Final = "introspection"
CHANGES: Final = "changes"
LIMITS: Final = "limits"
USAGE: Final = "usage"
IDEMPOTENCY: Final = "idempotency"
KEY_MANAGEMENT: Final = "key_management"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call.

    Attributes:
        name: What journal, faults and the OpenAPI document call it.
        number: Its number in the wire: ``1`` to ``23``, or ``X0`` to ``X6``.
        method: GET, POST, PUT or DELETE.
        path: Below `PREFIX`, with parameters in braces.
        about: What it does, for people.
        reply: Models of the reply, which together make one object; none: ``{}``.
        body: Model of the body.
        body_with_keys: Model of the body where ``key_management`` is on.
        query: Fields of the query.
        status: The status of a success.
        refusals: Statuses beside those that `statuses` derives.
        extension: The extension that it belongs to, of `ALL_EXTENSIONS`; ``None``: one of the 23
            calls.
        strict: Whether unknown query fields are refused.
        scope: The scope that it needs.
        service: The service that it is about; ``None``: the one that its path or body names, or none.
        idempotent: Whether it takes an ``Idempotency-Key``.
        secret: Whether its reply holds one.
    """

    name: str
    number: str
    method: str
    path: str
    about: str
    reply: tuple[type[BaseModel], ...] = ()
    body: type[BaseModel] | None = None
    body_with_keys: type[BaseModel] | None = None
    query: tuple[Parameter, ...] = ()
    status: int = 200
    refusals: tuple[int, ...] = ()
    extension: str | None = None
    strict: bool = False
    scope: str | None = None
    service: wire.Service | None = None
    idempotent: bool = False
    secret: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the path's parameters, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status that it may answer."""
        found = {self.status, 401, 403, 429, 503, *self.refusals}
        if self.parameters or self.body or self.query:
            found.add(400)
        if self.body:
            found.add(413)
        if self.idempotent:
            found |= {409, 422}
        if self.extension or "id}" in self.path:
            found.add(404)
        return tuple(sorted(found))


_STRICT: Final = ConfigDict(strict=True)


def _parameter(name: str, about: str, kind: Any, **options: Any) -> Parameter:
    return Parameter(name=name, about=about, type=TypeAdapter(kind, config=_STRICT), **options)


_USER: Final = _parameter("user_id", "A user: what is called a tenant elsewhere.", wire.Id)
_SERVICE: Final = _parameter("service", "A service of HiveHub.", wire.AService)
_LIMIT: Final = _parameter("limit", "How many at most.", Annotated[int, Field(ge=1, le=1_000)], number=True)
_CURSOR: Final = _parameter("cursor", "Where to go on.", wire.Cursor, empty_is_absent=True)
_ORDER: Final = (
    _parameter("min_revision", "Answer from this revision or a later one.", wire.Count, number=True),
    _parameter("epoch", "The epoch that it belongs to.", wire.Count, number=True),
)
_SOURCE: Final = _parameter("source", "A source whose share is wanted as `own`.", wire.SourceId, at_most=64)

PATH_PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        parameter.name: parameter
        for parameter in (
            _USER,
            _SERVICE,
            _parameter("collection_id", "A collection.", wire.Id),
            _parameter("key_id", "An access key, by its id.", wire.Id),
            _parameter("resource_name", "A resource, by its short name or with its user's prefix.", str),
            _parameter("source", "A source of usage, made with its journal.", wire.SourceId),
        )
    }
)
"""Parameters of paths, by name."""


_VECTORIZER: Final = wire.Service.VECTORIZER
_NEXUS: Final = wire.Service.NEXUS
_SYNAP: Final = wire.Service.SYNAP
_LESSTOKENS: Final = wire.Service.LESSTOKENS

_KEYS: Final = (
    Route(
        name="access_keys.generate",
        number="1",
        method="POST",
        path="/access-keys/generate",
        about="Make an access key. Its secret is in this reply and nowhere else.",
        reply=(wire.GeneratedKey,),
        body=wire.GenerateKey,
        body_with_keys=wire.GenerateOwnedKey,
        refusals=(404,),
        scope="keys",
        idempotent=True,
        secret=True,
    ),
    Route(
        name="access_keys.list",
        number="2",
        method="GET",
        path="/access-keys",
        about="Show access keys, one row an id.",
        reply=(wire.KeyList,),
        query=(
            _SERVICE,
            replace(_USER, extension=KEY_MANAGEMENT),
            replace(_LIMIT, extension=KEY_MANAGEMENT),
            replace(_CURSOR, extension=KEY_MANAGEMENT),
        ),
        refusals=(404,),
        scope="keys",
    ),
    Route(
        name="access_keys.get",
        number="3",
        method="GET",
        path="/access-keys/{key_id}",
        about="Show one access key.",
        reply=(wire.KeyInfo,),
        scope="keys",
    ),
    Route(
        name="access_keys.revoke",
        number="4",
        method="DELETE",
        path="/access-keys/{key_id}",
        about="Revoke an access key with all its versions. A second time is refused as already revoked.",
        reply=(wire.RevokedKey,),
        scope="keys",
    ),
    Route(
        name="access_keys.rotate",
        number="X6",
        method="POST",
        path="/access-keys/{key_id}/rotate",
        about="Give an access key a new secret; its id stays, nothing widens.",
        reply=(wire.RotatedKey,),
        body=wire.RotateKey,
        extension=KEY_MANAGEMENT,
        strict=True,
        scope="keys",
        idempotent=True,
        secret=True,
    ),
)


def _quota(service: wire.Service, number: str) -> Route:
    return Route(
        name=f"{service.value}.check_quota",
        number=number,
        method="POST",
        path=f"/{service.value}/quota",
        about="Ask whether an operation of a project fits. The triple does not say what it counts.",
        reply=(wire.QuotaVerdict,),
        body=wire.QuotaCheck,
        refusals=(404,),
        service=service,
    )


_VECTORIZER_CALLS: Final = (
    Route(
        name="vectorizer.get_user_collections",
        number="5",
        method="GET",
        path="/vectorizer/users/{user_id}/collections",
        about="Show the collections of a user.",
        reply=(wire.UserCollections,),
        service=_VECTORIZER,
    ),
    Route(
        name="vectorizer.create_collection",
        number="6",
        method="POST",
        path="/vectorizer/users/{user_id}/collections",
        about="Register a collection; 429 where the user has as many as the plan allows.",
        reply=(wire.CreatedCollection,),
        body=wire.CreateCollection,
        status=201,
        service=_VECTORIZER,
        idempotent=True,
    ),
    Route(
        name="vectorizer.validate_collection",
        number="7",
        method="GET",
        path="/vectorizer/collections/{collection_id}/validate",
        about="Ask whether a collection is a user's, and how many vectors it may hold.",
        reply=(wire.CollectionValidation,),
        query=(replace(_USER, required=True),),
        service=_VECTORIZER,
    ),
    Route(
        name="vectorizer.update_usage",
        number="8",
        method="PUT",
        path="/vectorizer/collections/{collection_id}/usage",
        about="Tell the absolute totals of a collection.",
        reply=(wire.UpdatedCollection,),
        body=wire.CollectionUsage,
        service=_VECTORIZER,
    ),
    _quota(_VECTORIZER, "9"),
)

_NEXUS_CALLS: Final = (
    Route(
        name="nexus.get_user_database",
        number="10",
        method="GET",
        path="/nexus/users/{user_id}/database",
        about="Show the database of a user, what it may hold, and its credits.",
        reply=(wire.UserDatabase,),
        service=_NEXUS,
    ),
    _quota(_NEXUS, "11"),
    Route(
        name="nexus.consume_credits",
        number="12",
        method="POST",
        path="/nexus/users/{user_id}/credits",
        about="Consume credits; 429 where there are too few, and then none is consumed.",
        reply=(wire.ConsumedCredits,),
        body=wire.Consume,
        service=_NEXUS,
        idempotent=True,
    ),
    Route(
        name="nexus.update_usage",
        number="13",
        method="PUT",
        path="/nexus/users/{user_id}/usage",
        about="Tell what was added since the last time.",
        body=wire.NexusUsage,
        service=_NEXUS,
        idempotent=True,
    ),
)

_SYNAP_CALLS: Final = (
    Route(
        name="synap.get_user_resources",
        number="14",
        method="GET",
        path="/synap/users/{user_id}/resources",
        about="Show the names of a user's queues, streams and key value stores.",
        reply=(wire.UserResources,),
        service=_SYNAP,
    ),
    Route(
        name="synap.validate_resource",
        number="15",
        method="GET",
        path="/synap/resources/{resource_name}/validate",
        about="Ask whether a resource is a user's.",
        reply=(wire.ResourceValidation,),
        query=(
            replace(_USER, required=True),
            _parameter(
                "type", "Of which type; `Queue` as well as `queue`.", wire.AResourceType, any_case=True, required=True
            ),
        ),
        refusals=(404,),
        service=_SYNAP,
    ),
    Route(
        name="synap.create_resource",
        number="16",
        method="POST",
        path="/synap/users/{user_id}/resources",
        about="Register a resource; 429 where the user has as many as the plan allows.",
        reply=(wire.CreatedResource,),
        body=wire.CreateResource,
        status=201,
        service=_SYNAP,
        idempotent=True,
    ),
    Route(
        name="synap.update_usage",
        number="17",
        method="PUT",
        path="/synap/users/{user_id}/usage",
        about="Tell the level of a resource.",
        body=wire.SynapUsage,
        service=_SYNAP,
        idempotent=True,
    ),
    _quota(_SYNAP, "18"),
)

_LESSTOKENS_CALLS: Final = (
    Route(
        name="lesstokens.get_user_tokens",
        number="19",
        method="GET",
        path="/lesstokens/users/{user_id}/tokens",
        about="Show the tokens of a user.",
        reply=(wire.UserTokens,),
        service=_LESSTOKENS,
    ),
    Route(
        name="lesstokens.validate_tokens",
        number="20",
        method="GET",
        path="/lesstokens/users/{user_id}/validate",
        about="Ask whether a user has so many tokens left.",
        reply=(wire.TokenValidation,),
        query=(_parameter("required", "How many tokens.", wire.U64, number=True, required=True),),
        service=_LESSTOKENS,
    ),
    Route(
        name="lesstokens.consume_tokens",
        number="21",
        method="POST",
        path="/lesstokens/users/{user_id}/consume",
        about="Consume tokens; 429 where there are too few, and then none is consumed.",
        reply=(wire.ConsumedTokens,),
        body=wire.Consume,
        service=_LESSTOKENS,
        idempotent=True,
    ),
    Route(
        name="lesstokens.check_limit",
        number="22",
        method="GET",
        path="/lesstokens/users/{user_id}/limit",
        about="Show the tokens of a user.",
        reply=(wire.TokenLimit,),
        service=_LESSTOKENS,
    ),
    _quota(_LESSTOKENS, "23"),
)

_EXTENSIONS: Final = (
    Route(
        name="announcement",
        number="X0",
        method="GET",
        path="/extensions",
        about="Say what this hub is and which extensions it speaks.",
        reply=(wire.Announcement,),
        extension=ANNOUNCEMENT,
        strict=True,
    ),
    Route(
        name="introspect",
        number="X1",
        method="POST",
        path="/access-keys/introspect",
        about="Say what an access key is worth, live or dead.",
        reply=(wire.Stamped, wire.IntrospectedKey),
        body=wire.Introspect,
        extension=INTROSPECTION,
        strict=True,
        scope="introspect",
    ),
    Route(
        name="introspect_batch",
        number="X1",
        method="POST",
        path="/access-keys/introspect/batch",
        about="Say what several access keys are worth, by their digests, from one snapshot.",
        reply=(wire.IntrospectedKeys,),
        body=wire.IntrospectBatch,
        extension=INTROSPECTION,
        strict=True,
        scope="introspect",
    ),
    Route(
        name="changes",
        number="X2",
        method="GET",
        path="/changes",
        about="Say what changed since a cursor, waiting for something to change.",
        reply=(wire.Changes,),
        query=(
            _parameter("cursor", "Where to go on; one that means nothing gives `reset`.", str, empty_is_absent=True),
            _parameter(
                "wait_seconds",
                f"How long to wait for a change; {DEFAULT_WAIT_SECONDS} where it is not there.",
                Annotated[int, Field(ge=0, le=25)],
                number=True,
            ),
        ),
        extension=CHANGES,
        strict=True,
        scope="changes",
    ),
    Route(
        name="limits",
        number="X3",
        method="GET",
        path="/{service}/users/{user_id}/limits",
        about="Say what limits a user, and what is used.",
        reply=(wire.Limits,),
        query=(_SOURCE, *_ORDER),
        extension=LIMITS,
        strict=True,
        scope="limits",
    ),
    Route(
        name="limits_page",
        number="X3",
        method="GET",
        path="/{service}/limits",
        about="Say what limits all users, page by page.",
        reply=(wire.LimitsPage,),
        query=(_LIMIT, _CURSOR, _SOURCE, *_ORDER),
        extension=LIMITS,
        strict=True,
        scope="limits",
    ),
    Route(
        name="limits_batch",
        number="X3",
        method="POST",
        path="/{service}/limits",
        about="Say what limits several users, in the order asked.",
        reply=(wire.LimitsPage,),
        body=wire.LimitsQuestion,
        extension=LIMITS,
        strict=True,
        scope="limits",
    ),
    Route(
        name="report",
        number="X4",
        method="PUT",
        path="/{service}/usage/{source}",
        about="Take the running totals of a source, once however often they are sent.",
        reply=(wire.Receipt,),
        body=wire.Report,
        refusals=(409,),
        extension=USAGE,
        strict=True,
        scope="usage",
    ),
)

ROUTES: Final = (
    *_KEYS,
    *_VECTORIZER_CALLS,
    *_NEXUS_CALLS,
    *_SYNAP_CALLS,
    *_LESSTOKENS_CALLS,
    *_EXTENSIONS,
)
"""Every call."""
