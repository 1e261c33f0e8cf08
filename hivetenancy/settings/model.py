"""The model of what an operator writes: every setting with its type, default, range and meaning.

`hivetenancy.settings` reads them. The descriptions here are those of the reference and of the JSON schema.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    TypeAdapter,
    model_validator,
)
from pydantic.fields import FieldInfo

from hivetenancy.plans import CANONICAL, MAX_AMOUNT, QuotaKind

from .sources import FOREIGN_VARIABLES, Known, Origin, variable

Mode = Literal["standalone", "cluster"]

_REFUSED: Final = {
    "path": "leave it out: this version has no durable engines; what the hub said is kept in hub.state",
    "redis": "leave it out: this version has no engines over Redis; state is in the memory of one process",
    "policies": "leave it out: rate policies are the hub's, or part of a plan: [[plans.NAME.rates]]",
    "public": "leave it out: routes without a key are stated in code, where the routes are: asgi(app, public=...)",
    "allow_fake": "leave it out: only code can let a fake hub stand in for a real one, by passing allow_fake=True",
}
"""Names that an operator may well try, and why they are refused."""


class Secret(SecretStr):
    """Text that no repr, log, error or pickle shows. `get_secret_value` gives it to the code that needs it."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("settings with a secret are not pickled: load them in the process that needs them")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def secret(value: object) -> Secret:
    """Return *value* as a `Secret`; raises `ValueError`, without the value, unless it can be a service key."""
    from hivetenancy.hub.origin import checked_key  # only here: it loads httpx, for which standalone mode has no use

    return Secret(checked_key(value.get_secret_value() if isinstance(value, SecretStr) else value).reveal())


def cluster_secret(value: object) -> Secret:
    """Return *value* as a `Secret`; raises `ValueError`, without the value, unless it can be the cluster's secret."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str) or not 32 <= len(text) <= 512 or not text.isascii() or not text.isprintable():
        raise ValueError("must be 32 to 512 printable ASCII characters, drawn at random")
    if " " in text:
        raise ValueError("must hold no blank")
    return Secret(text)


def _path(value: object) -> object:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError("must be the path of a file")
    return Path(text).expanduser()


def _url(value: str) -> str:
    from hivetenancy.hub.origin import checked_url  # only here, as above

    return checked_url(value)


_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_Window = Annotated[float, Field(ge=2.001, le=86_400, allow_inf_nan=False)]
"""A window must outlast the look-up of a key, which takes up to 2 s: else an answer is of no use when it comes."""
_Allowance = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
_Url = Annotated[str, AfterValidator(_url)]
_Path = Annotated[Path, BeforeValidator(_path)]
_Secret = Annotated[Secret, BeforeValidator(secret)]
_ClusterSecret = Annotated[Secret, BeforeValidator(cluster_secret)]


_STATICS: Final = tuple(name for name, spec in CANONICAL.items() if spec.kind is QuotaKind.STATIC)
_COUNTED: Final = tuple(name for name in CANONICAL if name not in _STATICS)


def _one_of(names: Sequence[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"unknown key; known are {', '.join(names)}")
        return value

    return AfterValidator(check)


class _Table(BaseModel):
    """A table of settings: no key but its own, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class HubSettings(_Table):
    """How HiveHub is reached."""

    url: _Url | None = Field(
        default=None,
        description="Where the hub is. There is no default; needed in cluster mode.",
        examples=["https://api.hivehub.example"],
    )
    service_key: _Secret | None = Field(
        default=None,
        description="The key by which this server proves itself; this or the next is needed in cluster mode. "
        "A settings file that holds it must be readable by its owner alone.",
        examples=["svc_vectorizer_..."],
    )
    service_key_file: _Path | None = Field(
        default=None,
        description="A file that holds the service key as its one line, readable by its owner alone.",
        examples=["/run/secrets/service_key"],
    )
    service: Literal["vectorizer", "nexus", "synap", "lesstokens"] | None = Field(
        default=None,
        description="Which of HiveHub's services this server is: says which calls feed which dimension "
        "where the hub has nothing but today's wire.",
        examples=["vectorizer"],
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        default=30.0, description="The deadline of a call, in seconds, repeats included; at most 3600.", examples=[10]
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=3, description="How often a call that is safe to repeat is repeated, 0 to 10.", examples=[3]
    )
    synap_usage: Literal["absolute", "increment"] | None = Field(
        default=None,
        description="With `hub.service` `synap`: what the hub takes the numbers of a usage report for. "
        "Its wire does not say.",
        examples=["absolute"],
    )
    state: _Path | None = Field(
        default=None,
        description="A file that keeps what the hub said over a restart, so that an outage at start is survived.",
        examples=["/var/lib/server/hub.sqlite"],
    )
    wait_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=0.0,
        description="How long a start waits for a hub that cannot be reached, in seconds; 0: not at all.",
        examples=[60],
    )


class FreshnessSettings(_Table):
    """For how long an answer about a key counts."""

    fresh_seconds: _Window = Field(
        default=30.0, description="For every effect, while nothing else says otherwise; at least 2.001.", examples=[30]
    )
    admin_seconds: _Window = Field(
        default=5.0,
        description="For admin functions while the change feed is not healthy; at least 2.001, at most "
        "`freshness.fresh_seconds`.",
        examples=[5],
    )
    stale_read_seconds: _Allowance = Field(
        default=300.0,
        description="Beyond `freshness.fresh_seconds` for reads while the hub is out of reach; 0: none.",
        examples=[300],
    )
    stale_write_seconds: _Allowance = Field(default=60.0, description="Likewise for writes.", examples=[60])
    stale_delete_seconds: _Allowance = Field(default=60.0, description="Likewise for deletes.", examples=[60])
    negative_seconds: Annotated[float, Field(ge=2.001, le=5, allow_inf_nan=False)] = Field(
        default=5.0, description="For a refused key; 2.001 to 5.", examples=[5]
    )
    refresh_percent: Annotated[int, Field(ge=1, le=100)] = Field(
        default=70,
        description="At which part of `freshness.fresh_seconds` a key in use is asked about again.",
        examples=[70],
    )


class HttpSettings(_Table):
    """How answers over HTTP look."""

    realm: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[ !#-\[\]-~]+$")] = Field(
        default="hivehub",
        description="The realm of challenges: printable ASCII without quotes and backslashes.",
        examples=["hivehub"],
    )
    rate_headers: Literal["both", "ietf", "x", "off"] = Field(
        default="both",
        description="Which rate headers are sent: `RateLimit`, `X-RateLimit-*`, both or none.",
        examples=["both"],
    )
    quota_status: dict[str, Literal[403, 429, 507]] = Field(
        default_factory=dict,
        description="The status of a refused quota by dimension: 403, 429 or 507; 429 where it is not named.",
        examples=[{"storage_bytes": 507}],
    )
    max_body_bytes: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None,
        description="Bound on a body whatever the plan says; where it is not set, the plan alone.",
        examples=[1_048_576],
    )


class NamesSettings(_Table):
    """How the names of tenants are kept apart."""

    profile: Literal["default", "synap", "vectorizer", "nexus", "tagged"] = Field(
        default="default",
        description="How names are written. One for the life of a deployment.",
        examples=["synap"],
    )
    scheme: Literal["uuid", "slug", "opaque"] = Field(
        default="uuid", description="What tenant ids are. One for the life of a deployment.", examples=["uuid"]
    )
    max_name_bytes: Annotated[int, Field(ge=1, le=1_048_576)] = Field(
        default=1024,
        description="The longest physical name that the store takes, in bytes; a longer one is refused.",
        examples=[511],
    )
    topic_separator: Literal[".", "/", ":"] = Field(
        default=".", description="What divides a topic from the tenant's part.", examples=["."]
    )
    manifest: _Path | None = Field(
        default=None,
        description="A file that says how the names in the store are written; made at the first start. "
        "A server that would write them another way does not start.",
        examples=["/var/lib/vectorizer/names.json"],
    )


_Count = Annotated[int, Field(ge=0, lt=MAX_AMOUNT)]


class RateSettings(_Table):
    """A rate policy: *limit* in a period of seconds, in a period of the calendar, or at the same moment."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,64}$")] = "default"
    limit: Annotated[int, Field(ge=1, lt=MAX_AMOUNT)]
    period_seconds: Annotated[float, Field(ge=0.001, le=31_622_400, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1, lt=MAX_AMOUNT)] | None = None
    calendar: Literal["hour", "day", "month"] | None = None
    concurrent: Literal[True] | None = None
    scope: Literal["tenant", "key"] = "tenant"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(each is not None for each in (self.period_seconds, self.calendar, self.concurrent)) != 1:
            raise ValueError("must have exactly one of period_seconds, calendar and concurrent")
        if self.burst is not None and self.period_seconds is None:
            raise ValueError("a burst goes with period_seconds")
        return self


class PlanSettings(_Table):
    """What a tenant on a plan may do and hold, as far as the hub does not tell."""

    rates: list[RateSettings] = []
    quotas: dict[Annotated[str, _one_of(_COUNTED)], _Count | Literal["unlimited"]] = {}
    statics: dict[Annotated[str, _one_of(_STATICS)], _Count] = {}

    @model_validator(mode="after")
    def _different_names(self) -> Self:
        names = [rate.name for rate in self.rates]
        if len(set(names)) != len(names):
            raise ValueError("rates must have different names")
        return self


class Settings(_Table):
    """Everything that an operator can say. Build one with `load`, which checks what belongs together.

    Frozen; shows no secret; not pickled while it holds one.
    """

    mode: Mode = Field(
        description="`standalone`: no tenants; `cluster`: tenants are enforced. Where it is not set, `hub.url` or a "
        "service key implies `cluster`, and without either there is no mode, and no start.",
        examples=["cluster"],
    )
    environment: Literal["live", "test"] | None = Field(
        default=None, description="Which keys count here; where it is not set, both.", examples=["live"]
    )
    report_seconds: _Seconds = Field(default=10.0, description="How often usage is reported.", examples=[10])
    report_threshold: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        default=10_000, description="Report earlier once so many cells have changed.", examples=[10_000]
    )
    allow_workers: bool = Field(
        default=False,
        description="Let several processes of this application run, each admitting the full limits.",
        examples=[True],
    )
    secret: _ClusterSecret | None = Field(
        default=None,
        description="What the nodes of this cluster share: stamps and cursors count on other nodes, and after a "
        "restart, only with it. 32 to 512 printable ASCII characters; where it is not set, random for each process. "
        "A settings file that holds it must be readable by its owner alone.",
        examples=["4be1f0c2d7...64-hex-digits-of-your-own"],
    )
    secret_file: _Path | None = Field(
        default=None,
        description="A file that holds `secret` as its one line, readable by its owner alone.",
        examples=["/run/secrets/cluster_secret"],
    )
    hub: HubSettings = Field(default_factory=HubSettings, description="How HiveHub is reached.")
    freshness: FreshnessSettings = Field(
        default_factory=FreshnessSettings, description="For how long an answer about a key counts."
    )
    http: HttpSettings = Field(default_factory=HttpSettings, description="How answers over HTTP look.")
    names: NamesSettings = Field(default_factory=NamesSettings, description="How names are kept apart.")

    plans: dict[Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,64}$")], PlanSettings] = Field(
        default_factory=dict,
        description="What a hub of today's wire does not tell, by the name of the plan, or `default`; see below.",
        examples=[{"default": {"quotas": {"keys": 1000}}}],
    )

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)

    def origin_of(self, name: str) -> Origin:
        """Return where the setting *name* (dotted, as ``hub.url``) comes from.

        Raises:
            KeyError: There is no such setting.
        """
        if name not in LEAVES and not _in_open_table(name):
            raise KeyError(name)
        return self._origins.get(name, Origin(kind="default"))

    def value_of(self, name: str) -> Any:
        """Return the value of the setting *name* (dotted); a secret as a `Secret`.

        Raises:
            KeyError: There is no such setting.
        """
        found: Any = self
        for part in leaf_of(name).key.split("."):
            found = getattr(found, part)
        return found if name in LEAVES else found[name.removeprefix(f"{leaf_of(name).key}.")]


# --- the settings there are ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One setting.

    Attributes:
        key: Its name, dotted.
        kind: ``text``, ``number``, ``whole number``, ``yes or no``, ``path``, ``secret``, ``choice``, ``table`` or
            ``plans``.
        choices: What a choice may be.
        default: Its value where nobody states one; ``None``: there is none.
        meaning: What it does.
        example: A value that is right.
        adapter: What judges a value.
    """

    key: str
    kind: str
    choices: tuple[object, ...]
    default: object
    meaning: str
    example: object
    adapter: TypeAdapter[Any]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that state it, the strongest first; none where a variable has no room for it."""
        if self.kind == "plans":
            return ()
        foreign = [each.variable for each in FOREIGN_VARIABLES if each.key == self.key]
        own = variable(self.key) + ("__DIMENSION" if self.kind == "table" else "")
        return (own, *foreign)


def _leaves(table: type[BaseModel], above: str = "") -> Iterable[Leaf]:
    for name, field in table.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{above}{name}.")
        else:
            yield _leaf(f"{above}{name}", field)


def _leaf(key: str, field: FieldInfo) -> Leaf:
    plain, metadata = _plain(field.annotation, tuple(field.metadata))
    is_plans, is_table = key == "plans", get_origin(plain) is dict and key != "plans"
    judged = get_args(plain)[1] if is_table else plain
    choices = get_args(judged) if get_origin(judged) is Literal else ()
    kinds = {float: "number", int: "whole number", bool: "yes or no", str: "text", Path: "path", Secret: "secret"}
    return Leaf(
        key=key,
        kind="plans" if is_plans else "table" if is_table else "choice" if choices else kinds[plain],
        choices=choices,
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        meaning=field.description or "",
        example=(field.examples or [None])[0],
        adapter=TypeAdapter(Annotated[(judged, *metadata)] if metadata else judged),
    )


def _plain(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Return the type below ``Annotated`` and ``| None``, and what was annotated on the way."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _plain(inner, (*more, *metadata))
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (each for each in get_args(annotation) if each is not type(None))
        return _plain(inner, metadata)
    return annotation, metadata


LEAVES: Final[Mapping[str, Leaf]] = types.MappingProxyType({leaf.key: leaf for leaf in _leaves(Settings)})
"""Every setting by its dotted key."""

_OPEN_TABLES: Final = frozenset(key for key, leaf in LEAVES.items() if leaf.kind == "table")
KNOWN: Final = Known(
    keys=tuple(LEAVES),
    open_tables=_OPEN_TABLES,
    no_variable=frozenset(key for key, leaf in LEAVES.items() if not leaf.variables),
    refused=_REFUSED,
)
"""The keys that there are, for whoever reads them."""


def _in_open_table(key: str) -> bool:
    return any(key.startswith(f"{table}.") for table in _OPEN_TABLES)


def leaf_of(key: str) -> Leaf:
    """Return the leaf of *key*, which may name an entry of a table of the operator's own."""
    table = next((table for table in _OPEN_TABLES if key.startswith(f"{table}.")), key)
    return LEAVES[table]
