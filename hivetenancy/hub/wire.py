"""HiveHub's JSON: the only file that knows a name of its fields.

One model a body, requests and replies alike, so that the client and every authority of ours read and write the same
ones. Numbers have the ranges of the wire, times are RFC 3339 on it and microseconds in here, ids are lower-case UUIDs.
Nothing is converted in silence: ``"7"`` is no number and ``1.0`` no count.

Replies ignore fields that they do not know, as HiveHub's own SDK does, but for one: an access key that is described
with a field this version does not know may be confined by it, so such fields are kept in `ActiveKey.unknown` and the
validator refuses the key. Requests of the 23 calls ignore unknown fields as well; those of the extensions refuse them.

Source: HiveHub wire, parts 1, 2 and 4.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    RootModel,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

# --- values ----------------------------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?P<fraction>\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def read_time(text: object) -> int:
    """Read an RFC 3339 time as wall microseconds; digits beyond the microsecond are dropped.

    Raises:
        PydanticCustomError: It is none, or has no offset.
    """
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None or not isinstance(text, str):
        raise PydanticCustomError("time", "must be an RFC 3339 time with an offset, such as 2030-01-31T12:00:00Z")
    fraction = match["fraction"] or ""
    if len(fraction) > 7:
        text = text.replace(fraction, fraction[:7])
    try:
        return (datetime.fromisoformat(text.upper()).astimezone(UTC) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):  # the latter: in UTC it lies beyond the years 1 to 9999, and has no text
        raise PydanticCustomError("time", "must be a time that exists") from None


def write_time(wall_us: int) -> str:
    """Write wall microseconds as RFC 3339 in UTC, with as many digits as it takes."""
    text = (_EPOCH + timedelta(microseconds=wall_us)).isoformat()
    return text.replace("+00:00", "Z")


def _time_or_us(value: object, info: ValidationInfo) -> int:
    """Microseconds are for our own code: in JSON a number is no time."""
    return value if type(value) is int and info.mode == "python" else read_time(value)


def _uuid(text: str) -> str:
    try:
        found = UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text.lower():
        raise PydanticCustomError("id", "must be a UUID with hyphens")
    return str(found)


Time: TypeAlias = Annotated[
    int,
    BeforeValidator(_time_or_us),
    PlainSerializer(write_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Wall microseconds; RFC 3339 on the wire."""


def _plain(text: str) -> str:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise PydanticCustomError("text", "must be text that UTF-8 can write") from None
    if size > 255:
        raise PydanticCustomError("text", "must have at most 255 bytes of UTF-8")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise PydanticCustomError("text", "must not hold control characters")
    return text


Id: TypeAlias = Annotated[str, AfterValidator(_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID with hyphens, in lower case."""

U64: TypeAlias = Annotated[int, Field(ge=0, lt=2**64)]
U32: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
I64: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Amount: TypeAlias = Annotated[int, Field(gt=-(2**53), lt=2**53)]
"""What an extension counts: exact in every JSON reader."""

Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_plain)]
"""1-255 bytes of UTF-8 without control characters. What may travel in a path is narrower (`hivetenancy.hub.names`)."""

Text: TypeAlias = Annotated[str, Field(max_length=4096)]
Cursor: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,512}$")]
Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SourceId: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Service(StrEnum):
    """The services of HiveHub."""

    VECTORIZER = "vectorizer"
    NEXUS = "nexus"
    SYNAP = "synap"
    LESSTOKENS = "lesstokens"


class ResourceType(StrEnum):
    """What Synap has names for. A query spells it ``Queue``, ``Stream``, ``KeyValue``."""

    QUEUE = "queue"
    STREAM = "stream"
    KEYVALUE = "keyvalue"

    @property
    def in_query(self) -> str:
        """As HiveHub's SDK spells it in a query."""
        return {"queue": "Queue", "stream": "Stream", "keyvalue": "KeyValue"}[self.value]


class WirePermission(StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    ADMIN = "admin"


class Reply(BaseModel):
    """Something a hub answers. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Request(BaseModel):
    """Something that one of the 23 calls is asked with. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class StrictRequest(Request):
    """Something that an extension is asked with. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _enum(kind: type[StrEnum]) -> BeforeValidator:
    """Read a member by its text, which strict mode alone would not; another text is an error that lists them."""

    def read(value: object) -> object:
        if isinstance(value, kind):
            return value
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            known = ", ".join(member.value for member in kind)
            raise PydanticCustomError("enum", "must be one of {known}", {"known": known}) from None

    return BeforeValidator(read)


def _tuple(value: object) -> object:
    """JSON has lists; ours are tuples, which strict mode would refuse."""
    return tuple(value) if isinstance(value, list) else value


AService: TypeAlias = Annotated[Service, _enum(Service)]
AResourceType: TypeAlias = Annotated[ResourceType, _enum(ResourceType)]
APermission: TypeAlias = Annotated[WirePermission, _enum(WirePermission)]
Permissions: TypeAlias = Annotated[tuple[APermission, ...], BeforeValidator(_tuple)]
Texts: TypeAlias = Annotated[tuple[Name, ...], BeforeValidator(_tuple), Field(max_length=1_024)]


class ErrorBody(Reply):
    """What comes with every status that is no success."""

    error: str
    details: str | None = None
    code: str | None = None
    field: str | None = None
    id: str | None = None
    version: int | None = None
    last_sequence: int | None = None
    epoch: Count | None = None
    revision: Count | None = None
    now: Time | None = None


# --- access keys: calls 1 to 4, and X6 -------------------------------------------------------------------------------


class GenerateKey(Request):
    """Call 1, as it is today."""

    service: AService
    name: Name
    permissions: Permissions = Field(min_length=1)
    expires_at: Time | None = None


class GenerateOwnedKey(StrictRequest):
    """Call 1 with X6: the owner and what confines the key."""

    service: AService
    name: Name
    permissions: Permissions = Field(min_length=1)
    expires_at: Time | None = None
    user_id: Id | None = None
    functions: Texts | None = None
    resources: Texts | None = None
    networks: Texts | None = None
    environment: Literal["live", "test"] | None = None
    not_before: Time | None = None
    parent_key_id: Id | None = None


class GeneratedKey(Reply):
    """The reply to call 1. What X6 added is there if it was asked for."""

    success: bool
    access_key: str = Field(repr=False)
    access_key_id: Id
    service: AService
    name: str
    permissions: Permissions
    created_at: Time
    expires_at: Time | None = None
    user_id: Id | None = None
    functions: Texts | None = None
    resources: Texts | None = None
    networks: Texts | None = None
    environment: str | None = None
    not_before: Time | None = None
    version: U64 | None = None
    epoch: Count | None = None
    revision: Count | None = None
    now: Time | None = None


class KeyInfo(Reply):
    """A key as calls 2 and 3 show it."""

    id: Id
    service: AService
    name: str
    permissions: Permissions
    active: bool
    created_at: Time
    last_used_at: Time | None = None
    expires_at: Time | None = None
    user_id: Id | None = None
    version: U64 | None = None


class KeyList(Reply):
    """The reply to call 2; *cursor* with X6 where more is to come."""

    keys: Annotated[tuple[KeyInfo, ...], BeforeValidator(_tuple)]
    cursor: str | None = None
    epoch: Count | None = None
    revision: Count | None = None
    now: Time | None = None


class RevokedKey(Reply):
    """The reply to call 4."""

    success: bool
    message: str
    epoch: Count | None = None
    revision: Count | None = None
    now: Time | None = None


class RotateKey(StrictRequest):
    """X6: give a key a new secret."""

    overlap_seconds: Annotated[int, Field(ge=0, le=2_592_000)]
    compromised: bool = False
    expected_version: Annotated[int, Field(ge=1, lt=2**53)]


class RotatedKey(Reply):
    """The reply to a rotation."""

    access_key: str = Field(repr=False)
    access_key_id: Id
    version: U64
    overlap_until: Time | None = None
    epoch: Count | None = None
    revision: Count | None = None
    now: Time | None = None


# --- vectorizer: calls 5 to 9 ----------------------------------------------------------------------------------------


class Collection(Reply):
    """A collection of vectors."""

    collection_id: Id
    collection_name: str
    project_id: str
    project_name: str
    vector_count: U64
    dimension: U32
    created_at: Time


class UserCollections(Reply):
    """The reply to call 5."""

    user_id: Id
    collections: Annotated[tuple[Collection, ...], BeforeValidator(_tuple)]
    total_collections: U32
    plan: str
    collection_limit: U32


class CreateCollection(Request):
    """Call 6."""

    collection_name: Name
    project_id: Name
    dimension: U32


class CreatedCollection(Reply):
    """The reply to call 6."""

    collection_id: Id
    collection_name: str
    created: bool


class VectorQuota(Reply):
    """How many vectors a collection may hold."""

    max_vectors: U64
    current_vectors: U64
    can_insert: bool


class CollectionValidation(Reply):
    """The reply to call 7."""

    valid: bool
    user_id: Id
    collection_id: Id
    quota: VectorQuota
    plan: str


class CollectionUsage(Request):
    """Call 8: absolute totals of a collection."""

    vector_count: U64
    storage_bytes: U64


class UpdatedCollection(Reply):
    """The reply to call 8."""

    success: bool
    updated: bool
    quota: VectorQuota


class QuotaCheck(Request):
    """Calls 9, 11, 18 and 23."""

    project_id: Name
    operation: Name
    estimated_size: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class QuotaVerdict(Reply):
    """The reply to them: one triple, which does not say what it counts."""

    allowed: bool
    remaining: I64 | None = None
    limit: I64 | None = None


# --- nexus: calls 10 to 13 -------------------------------------------------------------------------------------------


class NexusQuota(Reply):
    """What a graph may hold, and holds."""

    max_nodes: U64
    current_nodes: U64
    max_relationships: U64
    current_relationships: U64
    storage_limit_mb: U64
    storage_used_mb: U64


class Credits(Reply):
    """Credits of a month."""

    available: U64
    total: U64
    used: U64


class UserDatabase(Reply):
    """The reply to call 10."""

    database_name: str
    quota: NexusQuota
    credits: Credits


class Consume(Request):
    """Calls 12 and 21."""

    amount: U64
    operation: Name
    description: Text | None = None


class ConsumedCredits(Reply):
    """The reply to call 12."""

    success: bool
    can_continue: bool
    credits_remaining: U64


class NexusUsage(Request):
    """Call 13: increments."""

    nodes_created: U64
    relationships_created: U64
    storage_bytes: U64
    credits_used: U64


# --- synap: calls 14 to 17 -------------------------------------------------------------------------------------------


class Resources(Reply):
    """Names by type."""

    queues: Annotated[tuple[str, ...], BeforeValidator(_tuple)]
    streams: Annotated[tuple[str, ...], BeforeValidator(_tuple)]
    key_value_stores: Annotated[tuple[str, ...], BeforeValidator(_tuple)]


class UserResources(Reply):
    """The reply to call 14."""

    user_id: Id
    resources: Resources


class ResourceValidation(Reply):
    """The reply to call 15."""

    belongs_to_user: bool
    resource_name: str
    resource_type: AResourceType


class ResourceConfig(Request):
    """Options of call 16."""

    max_size: U64 | None = None
    ttl: U64 | None = None


class CreateResource(Request):
    """Call 16."""

    resource_type: AResourceType
    resource_name: Name
    config: ResourceConfig | None = None


class CreatedResource(Reply):
    """The reply to call 16."""

    full_resource_name: str
    created: bool


class SynapUsage(Request):
    """Call 17."""

    resource_type: AResourceType
    resource_name: Name
    message_count: U64 | None = None
    storage_bytes: U64 | None = None


# --- lesstokens: calls 19 to 22 --------------------------------------------------------------------------------------


class Tokens(Reply):
    """Tokens of a month."""

    available: U64
    used: U64
    total: U64
    limit_reached: bool


class UserTokens(Reply):
    """The reply to call 19."""

    user_id: Id
    tokens: Tokens


class TokenValidation(Reply):
    """The reply to call 20."""

    allowed: bool
    tokens_available: U64
    tokens_required: U64


class ConsumedTokens(Reply):
    """The reply to call 21."""

    success: bool
    tokens_remaining: U64


class TokenLimit(Reply):
    """The reply to call 22."""

    tokens: Tokens


# --- X0: announcement ------------------------------------------------------------------------------------------------


class Announcement(Reply):
    """What a hub says of itself."""

    version: str
    hub_id: Annotated[str, Field(min_length=1, max_length=128)]
    authority: str
    epoch: Count
    revision: Count
    now: Time
    service: AService | None
    scopes: Annotated[tuple[str, ...], BeforeValidator(_tuple)]
    extensions: Annotated[tuple[str, ...], BeforeValidator(_tuple)]
    idempotency_window_seconds: Count
    usage_grace_seconds: Count


class Stamped(Reply):
    """A reply that has its place in the hub's order (4.2)."""

    epoch: Count
    revision: Count
    now: Time


# --- X1: introspection -----------------------------------------------------------------------------------------------


class Introspect(StrictRequest):
    """Ask about one key."""

    access_key: Annotated[str, Field(min_length=1, max_length=4096)] = Field(repr=False)
    min_revision: Count | None = None
    epoch: Count | None = None


class IntrospectBatch(StrictRequest):
    """Ask about several by their digests."""

    digests: Annotated[tuple[Digest, ...], BeforeValidator(_tuple), Field(max_length=1_000)]
    min_revision: Count | None = None
    epoch: Count | None = None


class Rotation(Reply):
    """A rotation that is under way."""

    current_version: Count
    overlap_until: Time | None


class ActiveKey(BaseModel):
    """An active key. Every field is there; one that is missing makes it malformed.

    Attributes:
        unknown: Names of fields that this version does not know and that are not empty.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    active: Literal[True]
    id: Id
    version: Count
    user_id: Id
    service: AService | None
    name: str
    permissions: Annotated[tuple[str, ...], BeforeValidator(_tuple), Field(max_length=64)]
    functions: Annotated[tuple[str, ...], BeforeValidator(_tuple), Field(max_length=1_024)] | None
    resources: Annotated[tuple[Any, ...], BeforeValidator(_tuple), Field(max_length=1_024)] | None
    networks: Annotated[tuple[str, ...], BeforeValidator(_tuple), Field(max_length=1_024)]
    environment: Literal["live", "test"]
    plan: str
    created_at: Time
    not_before: Time | None
    expires_at: Time | None
    last_used_at: Time | None
    rotation: Rotation | None
    unknown: Annotated[tuple[str, ...], Field(exclude=True)] = ()

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        strange = tuple(
            sorted(
                _printable(str(name))
                for name, value in data.items()
                if (name not in cls.model_fields or name == "unknown")
                and name not in _STAMP
                and not _says_nothing(value)
            )
        )
        return {**{name: value for name, value in data.items() if name != "unknown"}, "unknown": strange}


_STAMP: Final = frozenset({"epoch", "revision", "now"})


def _says_nothing(value: object) -> bool:
    """Whether a field that is not known is empty; a number is not, since 0 of something is a narrow limit."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _printable(name: str) -> str:
    """Fit for a line of a log, whoever chose it."""
    return name[:64] if name.isprintable() else "?"


class DeadKey(Reply):
    """A key that is not active."""

    active: Literal[False]
    reason: str
    id: Id | None = None
    user_id: Id | None = None
    revoked_at: Time | None = None
    not_before: Time | None = None


def _liveness(value: object) -> str | None:
    active = value.get("active") if isinstance(value, Mapping) else getattr(value, "active", None)
    return {True: "active", False: "dead"}.get(active) if isinstance(active, bool) else None


AKey: TypeAlias = Annotated[
    Annotated[ActiveKey, Tag("active")] | Annotated[DeadKey, Tag("dead")], Discriminator(_liveness)
]


class IntrospectedKey(RootModel[AKey]):
    """One key, without its place in the order."""


class IntrospectedKeys(Stamped):
    """The reply to a batch, in the order asked."""

    results: Annotated[tuple[AKey, ...], BeforeValidator(_tuple), Field(max_length=1_000)]


# --- X2: changes -----------------------------------------------------------------------------------------------------


class Event(Reply):
    """One change. *type* is a text: an event that this version does not know must not spoil the others."""

    revision: Count
    type: str
    at: Time
    id: Id | None = None
    user_id: Id | None = None
    plan: str | None = None
    digest_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    revoked_at: Time | None = None
    expires_at: Time | None = None


class Changes(Stamped):
    """What happened since a cursor."""

    events: Annotated[tuple[Event, ...], BeforeValidator(_tuple), Field(max_length=1_000)]
    cursor: Cursor
    more: bool
    reset: bool
    spread_seconds: Annotated[int, Field(ge=0, le=86_400)]


# --- X3: limits ------------------------------------------------------------------------------------------------------


class Quota(Reply):
    """A quota with what is used of it."""

    dimension: Name
    resource: str | None
    kind: Literal["counter", "contribution", "level", "ephemeral"]
    limit: Count | None
    used: Amount
    own: Amount
    period: Literal["hour", "day", "month"] | None = None
    period_start: Time | None = None
    resets_at: Time | None = None
    zone: str | None = None


RateScope: TypeAlias = Literal["user", "key"]
"""Who shares a rate: all keys of a user, or each key alone."""


class Rate(Reply):
    """A rate policy; without *burst* a sliding window."""

    name: Name
    limit: Annotated[int, Field(ge=1, lt=2**53)]
    period_seconds: Annotated[float, Field(gt=0, lt=2**33)] | Annotated[int, Field(gt=0, lt=2**33)]
    burst: Annotated[int, Field(ge=1, lt=2**53)] | None
    scope: RateScope


class Limits(Stamped):
    """Everything that limits a user."""

    user_id: Id
    plan: str
    status: Literal["active", "suspended", "deleting"]
    quotas: Annotated[tuple[Quota, ...], BeforeValidator(_tuple), Field(max_length=100_000)]
    rates: Annotated[tuple[Rate, ...], BeforeValidator(_tuple), Field(max_length=1_000)]
    static: dict[Name, Count]


class LimitsItem(Reply):
    """One user of a page or batch; *limits* is null where there is no such user."""

    user_id: Id
    revision: Count
    limits: LimitsBody | None


class LimitsBody(Reply):
    """The limits within an item, whose place in the order stands beside them."""

    plan: str
    status: Literal["active", "suspended", "deleting"]
    quotas: Annotated[tuple[Quota, ...], BeforeValidator(_tuple), Field(max_length=100_000)]
    rates: Annotated[tuple[Rate, ...], BeforeValidator(_tuple), Field(max_length=1_000)]
    static: dict[Name, Count]


class LimitsPage(Stamped):
    """A page of users, or the users that were asked for, in that order."""

    items: Annotated[tuple[LimitsItem, ...], BeforeValidator(_tuple), Field(max_length=1_000)]
    cursor: Cursor | None = None


class LimitsQuestion(StrictRequest):
    """Ask for the limits of several users."""

    user_ids: Annotated[tuple[Id, ...], BeforeValidator(_tuple), Field(max_length=1_000)]
    sources: Annotated[tuple[SourceId, ...], BeforeValidator(_tuple), Field(max_length=64)] = ()
    min_revision: Count | None = None
    epoch: Count | None = None


# --- X4: cumulative usage --------------------------------------------------------------------------------------------


class Line(StrictRequest):
    """The running total of one cell."""

    user_id: Id
    dimension: Name
    resource: Annotated[str, Field(min_length=1, max_length=1_024)] | None = None
    kind: Literal["counter", "contribution", "level", "correction"]
    value: int
    period_start: Time | None = None
    term: Count | None = None
    reason: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class Report(StrictRequest):
    """Running totals of one source."""

    writer: Annotated[str, Field(min_length=1, max_length=64)]
    sequence: Annotated[int, Field(ge=1, lt=2**53)]
    previous_sequence: Count
    final: bool = False
    lines: Annotated[tuple[Line, ...], BeforeValidator(_tuple), Field(max_length=1_000)]


class Rejected(Reply):
    """A line that was not applied."""

    index: Annotated[int, Field(ge=0, lt=1_000)]
    code: str
    permanent: bool


class Receipt(Reply):
    """The reply to a report."""

    last_sequence: Count
    rejected: Annotated[tuple[Rejected, ...], BeforeValidator(_tuple), Field(max_length=1_000)]


LimitsItem.model_rebuild()
