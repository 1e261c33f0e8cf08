"""Names by prefix: the in-process implementation, and the identity for a server without tenants.

The default profile (`hivetenancy.namespaces.profiles`) prints the literals of HiveHub's data servers:

| handle | physical name |
|---|---|
| ``kv``, ``hashes``, ``lists``, ``sets``, ``sorted_sets``, ``bitmaps``, ``hyperloglogs``, ``geo``, ``streams``, \
``locks`` | ``user:{t}:{name}`` |
| ``collections``, ``queues``, ``channels`` | ``user_{t}:{name}`` |
| ``topics`` | ``user_{t}.{name}``, or another separator |
| ``graph.labels`` and the other names of a graph | ``ns:{t}:{name}`` |
| ``blobs`` | ``tenants/{t}/{name}`` |
| ``files`` | ``tenants/{t}/...`` (`hivetenancy.namespaces.paths`) |

``{t}`` is the token of the tenant's id (`hivetenancy.namespaces.codec`). No prefix begins another one, of this tenant
or of any other, so all kinds may live in one store. The kinds of a row share one set of names: in one Redis database
the stream ``a`` and the key ``a`` are the same key, which is what Redis itself does; in stores of their own they are
apart.

What follows the prefix is the logical name, raw. No character of it is special, and no prefix holds a metacharacter of
a glob, so a glob is scoped by concatenation.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId

from . import patterns
from .codec import IdScheme, split_template, token_of
from .cursors import after, page
from .identity import IdentityNamespaces, OneGraph, cursors_of
from .inspection import Finding, inspect
from .kinds import (
    BitmapKind,
    BlobKind,
    ChannelKind,
    CollectionKind,
    GeoKind,
    HashKind,
    HyperLogLogKind,
    KeyKind,
    ListKind,
    LockKind,
    QueueKind,
    Scoped,
    ScopedBytes,
    SetKind,
    SortedSetKind,
    StreamKind,
    TopicKind,
)
from .names import check, check_bound, check_bytes, check_no_way_out, no_bytes, no_name, no_text, tenant_in
from .paths import PrefixFiles
from .profiles import DEFAULT, GROUPS, MAX_NAME_BYTES, TOPIC_DIALECTS, Profile, profile_named
from .protocol import BinaryScope, FileScope, GraphNames, NameScope, NamespaceManager, Page, TenantNames

__all__ = ["MAX_NAME_BYTES", "IdentityNamespaces", "PrefixNamespaces"]

K = TypeVar("K")


class _PrefixScope(Generic[K]):
    """One tenant's names of one kind."""

    __slots__ = ("_binary", "_cursors", "_room", "prefix")

    _binary: BinaryScope[K] | None

    def __init__(self, prefix: str, max_bytes: int, cursors: bytes) -> None:
        self.prefix = prefix
        self._room = max_bytes - len(prefix)  # a prefix is ASCII, so its characters are its bytes
        self._cursors = cursors
        self._binary = None

    @property
    def binary(self) -> BinaryScope[K]:
        """The same names in bytes."""
        if self._binary is None:
            self._binary = _PrefixBytes(self.prefix.encode(), self._room)
        return self._binary

    def key(self, name: str, /) -> Scoped[K]:
        """Return the physical name of *name*."""
        # `type(...) is`: a physical name is a str too, and scoping one again must not pass.
        # `isascii` reads a flag, so an ordinary name is neither encoded nor walked through.
        if type(name) is str and name.isascii() and 0 < len(name) <= self._room:
            return Scoped(self.prefix + name)
        check(name, self._room)
        return Scoped(self.prefix + name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        """Return the physical names of *names*, in order."""
        # What `key` does, written out: calling it for each name costs a fifth of the whole. Who overrides one of the
        # two overrides both.
        key, prefix, room = self.key, self.prefix, self._room
        return [
            Scoped(prefix + name) if type(name) is str and name.isascii() and 0 < len(name) <= room else key(name)
            for name in names
        ]

    def pattern(self, pattern: str, /) -> str:
        """Return the Redis glob of *pattern* within the tenant's own names."""
        if not (type(pattern) is str and pattern.isascii() and 0 < len(pattern) <= self._room):
            check(pattern, self._room)
        return self.prefix + pattern

    def like(self, pattern: str, /, *, escape: str = "\\") -> str:
        """Return the ``LIKE`` pattern of *pattern* within the tenant's own names."""
        check(pattern, self._room)
        return patterns.like(self.prefix, pattern, escape)

    def starting(self, beginning: str, /) -> str:
        """Return what the physical names begin with whose logical names begin with *beginning*."""
        check_bound(beginning)
        return self.prefix + beginning

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        """Return physical bounds; both lie within the tenant's names, or at their end, whatever is passed."""
        check_bound(low)
        if high is None:
            end = self.prefix[:-1] + chr(ord(self.prefix[-1]) + 1)  # a prefix is ASCII, so there is one more
        else:
            check_bound(high)
            end = self.prefix + high
        return (end, self.prefix + low) if reverse else (self.prefix + low, end)

    def strip(self, physical: str, /) -> str:
        """Return the logical name of *physical*."""
        # `removeprefix` looks and cuts in one call. No prefix is empty, so what is not shorter did not begin with it.
        try:
            name = physical.removeprefix(self.prefix)
        except (AttributeError, TypeError):
            raise no_text(physical) from None
        if len(name) != len(physical):
            return name
        raise InvalidNameError("not a name of this tenant")

    def strip_all(self, physical: Iterable[str], /) -> list[str]:
        """Return the logical names of *physical*."""
        strip = self.strip
        return [strip(name) for name in physical]

    def owns(self, physical: str, /) -> bool:
        """Whether *physical* is this tenant's."""
        try:
            return physical.startswith(self.prefix)
        except (AttributeError, TypeError):  # bytes, or nothing at all
            raise no_text(physical) from None

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        """Return the physical bounds of what is still to be listed."""
        return after(self._cursors, self.prefix, cursor, beginning)

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        """Return a part of a listing."""
        return page(self._cursors, self, found, limit, beginning)


class _PrefixBytes(Generic[K]):
    """One tenant's names of one kind, in bytes."""

    __slots__ = ("_room", "prefix")

    def __init__(self, prefix: bytes, room: int) -> None:
        self.prefix = prefix
        self._room = room

    def key(self, name: bytes, /) -> ScopedBytes[K]:
        """Return the physical name of *name*."""
        if not (type(name) is bytes and 0 < len(name) <= self._room):
            raise no_name(name, self._room)
        return ScopedBytes(self.prefix + name)

    def keys(self, names: Iterable[bytes], /) -> list[ScopedBytes[K]]:
        """Return the physical names of *names*, in order."""
        key = self.key
        return [key(name) for name in names]

    def pattern(self, pattern: bytes, /) -> bytes:
        """Return the Redis glob of *pattern* within the tenant's own names."""
        if not (type(pattern) is bytes and 0 < len(pattern) <= self._room):
            raise no_name(pattern, self._room)
        return self.prefix + pattern

    def starting(self, beginning: bytes, /) -> bytes:
        """Return what the physical names begin with whose logical names begin with *beginning*."""
        check_bytes(beginning)
        return self.prefix + beginning

    def range(
        self, low: bytes = b"", high: bytes | None = None, /, *, reverse: bool = False
    ) -> tuple[bytes | None, bytes | None]:
        """Return physical bounds; both lie within the tenant's names, or at their end, whatever is passed."""
        check_bytes(low)
        if high is None:
            end = self.prefix[:-1] + bytes((self.prefix[-1] + 1,))  # a prefix is ASCII, so there is one more
        else:
            check_bytes(high)
            end = self.prefix + high
        return (end, self.prefix + low) if reverse else (self.prefix + low, end)

    def strip(self, physical: bytes, /) -> bytes:
        """Return the logical name of *physical*."""
        try:
            name = physical.removeprefix(self.prefix)
        except (AttributeError, TypeError):
            raise no_bytes(physical) from None
        if len(name) != len(physical):
            return name
        raise InvalidNameError("not a name of this tenant")

    def owns(self, physical: bytes, /) -> bool:
        """Whether *physical* is this tenant's."""
        try:
            return physical.startswith(self.prefix)
        except (AttributeError, TypeError):
            raise no_bytes(physical) from None


class _TopicScope(_PrefixScope[TopicKind]):
    """One tenant's topics, whose patterns have wildcards for whole segments."""

    __slots__ = ("_dialect",)

    def __init__(self, prefix: str, max_bytes: int, cursors: bytes, dialect: patterns.TopicDialect) -> None:
        super().__init__(prefix, max_bytes, cursors)
        self._dialect = dialect

    @property
    def binary(self) -> BinaryScope[TopicKind]:
        """The same topics in bytes."""
        if self._binary is None:
            self._binary = _TopicBytes(self.prefix.encode(), self._room, self)
        return self._binary

    def pattern(self, pattern: str, /) -> str:
        """Return the pattern of segments of *pattern* within the tenant's own topics."""
        check(pattern, self._room)
        return patterns.segmented(self.prefix, pattern, self._dialect)


class _TopicBytes(_PrefixBytes[TopicKind]):
    """One tenant's topics in bytes: its patterns are those of the text, as only text has segments."""

    __slots__ = ("_text",)

    def __init__(self, prefix: bytes, room: int, text: _TopicScope) -> None:
        super().__init__(prefix, room)
        self._text = text

    def pattern(self, pattern: bytes, /) -> bytes:
        """Return the pattern of segments of *pattern* within the tenant's own topics."""
        check_bytes(pattern)
        try:
            text = pattern.decode()
        except UnicodeDecodeError:
            raise InvalidNameError("a pattern of topics is UTF-8") from None
        return self._text.pattern(text).encode()


class _BlobScope(_PrefixScope[BlobKind]):
    """One tenant's blobs. Their names become addresses, in which ``..`` climbs out of the tenant's part."""

    __slots__ = ()

    @property
    def binary(self) -> BinaryScope[BlobKind]:
        """The same blobs in bytes."""
        if self._binary is None:
            self._binary = _BlobBytes(self.prefix.encode(), self._room)
        return self._binary

    def key(self, name: str, /) -> Scoped[BlobKind]:
        """Return the physical name of *name*."""
        check(name, self._room)
        check_no_way_out(name)
        return Scoped(self.prefix + name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[BlobKind]]:
        """Return the physical names of *names*, in order."""
        return [self.key(name) for name in names]


class _BlobBytes(_PrefixBytes[BlobKind]):
    """One tenant's blobs in bytes."""

    __slots__ = ()

    def key(self, name: bytes, /) -> ScopedBytes[BlobKind]:
        """Return the physical name of *name*."""
        physical = super().key(name)
        check_no_way_out(name.decode("latin-1"))
        return physical


class _Names:
    """All names of one tenant. Kinds with one template share one scope."""

    __slots__ = ("_blobs", "_files", "_graph", "_plan", "_token", "channels", "collections", "kv", "topics")

    kv: NameScope[KeyKind]
    hashes: NameScope[HashKind]
    lists: NameScope[ListKind]
    sets: NameScope[SetKind]
    sorted_sets: NameScope[SortedSetKind]
    bitmaps: NameScope[BitmapKind]
    hyperloglogs: NameScope[HyperLogLogKind]
    geo: NameScope[GeoKind]
    streams: NameScope[StreamKind]
    locks: NameScope[LockKind]
    collections: NameScope[CollectionKind]
    queues: NameScope[QueueKind]
    channels: NameScope[ChannelKind]
    topics: NameScope[TopicKind]

    def __init__(self, plan: _Plan, token: str) -> None:
        self._plan = plan
        self._token = token
        self.kv = keys = plan.scope("keys", token)
        self.collections = containers = keys if plan.containers_as_keys else plan.scope("containers", token)
        self.channels = containers if plan.channels_as_containers else plan.scope("channels", token)
        self.topics = plan.topics(token)
        self._graph: GraphNames | None = None
        self._blobs: NameScope[BlobKind] | None = None
        self._files: FileScope | None = None

    @property
    def graph(self) -> GraphNames:
        """What a graph names."""
        if self._graph is None:
            self._graph = OneGraph(self._plan.scope("graph", self._token))
        return self._graph

    @property
    def blobs(self) -> NameScope[BlobKind]:
        """Blobs."""
        if self._blobs is None:
            self._blobs = self._plan.blobs(self._token)
        return self._blobs

    @property
    def files(self) -> FileScope:
        """Files and directories."""
        if self._files is None:
            self._files = self._plan.files(self._token)
        return self._files


# The descriptor of a slot serves under several names: kinds that share a scope cost a tenant nothing.
for _kind in GROUPS["keys"][1:]:
    setattr(_Names, _kind, vars(_Names)["kv"])
_Names.queues = vars(_Names)["collections"]
del _kind


class _Plan:
    """What all tenants of one manager have in common."""

    __slots__ = ("channels_as_containers", "containers_as_keys", "cursors", "dialect", "max_bytes", "templates")

    def __init__(self, profile: Profile, max_bytes: int, cursors: bytes) -> None:
        templates = profile.templates()
        self.templates = {group: split_template(group, template) for group, template in templates.items()}
        self.containers_as_keys = templates["containers"] == templates["keys"]
        self.channels_as_containers = templates["channels"] == templates["containers"]
        self.max_bytes = max_bytes
        self.cursors = cursors
        self.dialect = profile.dialect

    def prefix(self, group: str, token: str) -> str:
        head, tail = self.templates[group]
        return head + token + tail

    def scope(self, group: str, token: str) -> NameScope[Any]:
        head, tail = self.templates[group]
        scope: _PrefixScope[Any] = _PrefixScope(head + token + tail, self.max_bytes, self.cursors)
        return scope

    def topics(self, token: str) -> NameScope[TopicKind]:
        return _TopicScope(self.prefix("topics", token), self.max_bytes, self.cursors, self.dialect)

    def blobs(self, token: str) -> NameScope[BlobKind]:
        return _BlobScope(self.prefix("blobs", token), self.max_bytes, self.cursors)

    def files(self, token: str) -> FileScope:
        return PrefixFiles(self.prefix("files", token))


class PrefixNamespaces:
    """Gives each tenant a prefix of its own: the `NamespaceManager` of cluster mode.

    Args:
        profile: How names are written: the name of a profile that ships (`hivetenancy.namespaces.profiles`), or one of
            your own. One for the life of a deployment: see `hivetenancy.namespaces.manifest`.
        scheme: Which texts are tenant ids; ``uuid``, what HiveHub issues, by default. It, too, stays for life.
        max_name_bytes: Longest physical name, in bytes of UTF-8. A longer one is refused, never cut. Set it to what the
            store takes (511 in LMDB, 249 in Kafka, 63 in PostgreSQL). ``None``: what the profile states, 1024 mostly.
        topic_separator: What divides the segments of a topic: ``.`` (AMQP, NATS), ``/`` (MQTT) or ``:``. ``None``: that
            of the profile. Where topics have segments it must be what divides them, so that wildcards cannot span it.
        secret: What cursors are sealed with, at least 16 random bytes, the same in every process that serves one
            listing. ``None``: a random one, so that a cursor ends with this object.

    Raises:
        ConfigurationError: A value is out of range.

    Concurrency:
        Without state; any number of threads. What `for_tenant` returns may be kept and shared.

    Example:
        >>> acme = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
        >>> names = PrefixNamespaces(scheme="slug").for_tenant(acme)
        >>> str(names.kv.key("config:app")), str(names.queues.key("jobs")), names.kv.pattern("config:*")
        ('user:acme:config:app', 'user_acme:jobs', 'user:acme:config:*')
    """

    __slots__ = ("_form", "_plan", "_profile", "_scheme")

    def __init__(
        self,
        *,
        profile: Profile | str = DEFAULT,
        scheme: IdScheme | str = IdScheme.UUID,
        max_name_bytes: int | None = None,
        topic_separator: str | None = None,
        secret: bytes | None = None,
    ) -> None:
        self._scheme = _scheme(scheme)
        self._profile = _effective(profile, self._scheme, max_name_bytes, topic_separator)
        self._form = self._profile.uuid_form
        self._plan = _Plan(self._profile, self._profile.max_name_bytes, cursors_of(secret))

    @property
    def profile(self) -> Profile:
        """How names are written, with what the arguments changed of it."""
        return self._profile

    @property
    def scheme(self) -> IdScheme:
        """Which texts are tenant ids."""
        return self._scheme

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the names of the tenant in *context*; some 2 us, to be kept for the length of a request.

        Raises:
            InvalidNameError: The tenant's id is none of the manager's scheme.
            MisuseError: *context* is no `TenantContext`.
        """
        return _Names(self._plan, token_of(tenant_in(context), self._scheme, self._form))

    def inspect(self, physical: str, *, known: Container[TenantId] | None = None) -> Finding:
        """Return whose name *physical* is. For operators; what a tenant may see is decided by `NameScope.owns` alone.

        Args:
            physical: A name from the store.
            known: The tenants that there are, or were: a name that reads as another's is `Ambiguous` and not `Owned`.
                ``None``: any id may be a tenant's.

        Raises:
            InvalidNameError: *physical* is no ``str``.
        """
        if not isinstance(physical, str):
            raise no_text(physical)
        templates: dict[tuple[str, str], tuple[str, ...]] = {}
        for group, parts in self._plan.templates.items():
            templates[parts] = templates.get(parts, ()) + GROUPS[group]
        rows = ((head, tail, kinds) for (head, tail), kinds in templates.items())
        return inspect(str(physical), rows, scheme=self._scheme, form=self._form, known=known)


# --- building --------------------------------------------------------------------------------------------------------


def _scheme(scheme: IdScheme | str) -> IdScheme:
    try:
        return IdScheme(scheme)
    except ValueError:
        known = ", ".join(IdScheme)
        raise ConfigurationError(f"there is no id scheme {scheme!r}; there are {known}") from None


def _effective(profile: Profile | str, scheme: IdScheme, max_bytes: int | None, separator: str | None) -> Profile:
    """Return the profile with what the arguments change of it."""
    found = profile if isinstance(profile, Profile) else profile_named(profile)
    if separator is not None and separator != found.dialect.separator:
        named = {patterns.DIALECTS[mark]: mark for mark in patterns.DIALECTS}
        dialect = next((name for name, each in TOPIC_DIALECTS.items() if named.get(each) == separator), None)
        if dialect is None:
            raise ConfigurationError(f"topic_separator must be '.', '/' or ':', got {separator!r}")
        found = replace(found, topic_dialect=dialect)
    longest = found.longest_prefix(scheme)
    given = found.max_name_bytes if max_bytes is None else max_bytes
    if type(given) is not int or given <= longest:
        raise ConfigurationError(
            f"max_name_bytes must be a whole number above {longest}, the longest prefix of a tenant, got {given!r}"
        )
    return replace(found, max_name_bytes=given)


if TYPE_CHECKING:
    _conforms: type[NamespaceManager] = PrefixNamespaces
