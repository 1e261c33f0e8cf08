"""The names of a server without tenants: each is what it is. The same protocol, so that no code needs a branch."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from hivetenancy.context import TenantContext
from hivetenancy.errors import MisuseError
from hivetenancy.ids import STANDALONE

from .cursors import after, cursor_key, page
from .kinds import (
    BitmapKind,
    BlobKind,
    ChannelKind,
    CollectionKind,
    ConstraintKind,
    GeoKind,
    HashKind,
    HyperLogLogKind,
    IndexKind,
    KeyKind,
    LabelKind,
    ListKind,
    LockKind,
    PropertyKeyKind,
    QueueKind,
    RelationshipTypeKind,
    Scoped,
    ScopedBytes,
    SetKind,
    SortedSetKind,
    StreamKind,
    TopicKind,
)
from .names import check_bytes, check_type, no_bytes, no_logical, no_text, tenant_in
from .paths import IdentityFiles
from .profiles import GROUPS
from .protocol import BinaryScope, FileScope, GraphNames, NameScope, NamespaceManager, Page, TenantNames

K = TypeVar("K")


class _IdentityScope(Generic[K]):
    """The names of a server without tenants: each is what it is."""

    __slots__ = ("_cursors",)

    prefix = ""

    def __init__(self, cursors: bytes) -> None:
        self._cursors = cursors

    @property
    def binary(self) -> BinaryScope[K]:
        """The same names in bytes."""
        return _IDENTITY_BYTES

    def key(self, name: str, /) -> Scoped[K]:
        """Return *name*, typed."""
        if type(name) is not str:  # code that scopes twice is found here, not on the day that tenants are switched on
            raise no_logical(name)
        return Scoped(name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        """Return *names*, typed."""
        return [self.key(name) for name in names]

    def pattern(self, pattern: str, /) -> str:
        """Return *pattern*."""
        check_type(pattern)
        return pattern

    def like(self, pattern: str, /, *, escape: str = "\\") -> str:
        """Return *pattern*."""
        check_type(pattern)
        check_type(escape)
        return pattern

    def starting(self, beginning: str, /) -> str:
        """Return *beginning*."""
        check_type(beginning)
        return beginning

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        """Return the bounds as they are."""
        check_type(low)
        if high is not None:
            check_type(high)
        return (high, low) if reverse else (low, high)

    def strip(self, physical: str, /) -> str:
        """Return *physical* as a plain ``str``."""
        self.owns(physical)
        return str(physical)

    def strip_all(self, physical: Iterable[str], /) -> list[str]:
        """Return *physical* as plain texts."""
        return [self.strip(name) for name in physical]

    def owns(self, physical: str, /) -> bool:
        """True: there is nobody else."""
        if isinstance(physical, str):
            return True
        raise no_text(physical)

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        """Return the bounds of what is still to be listed."""
        return after(self._cursors, "", cursor, beginning)

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        """Return a part of a listing."""
        return page(self._cursors, self, found, limit, beginning)


class _IdentityBytes(Generic[K]):
    """The names of a server without tenants, in bytes."""

    __slots__ = ()

    prefix = b""

    def key(self, name: bytes, /) -> ScopedBytes[K]:
        """Return *name*, typed."""
        check_bytes(name)
        return ScopedBytes(name)

    def keys(self, names: Iterable[bytes], /) -> list[ScopedBytes[K]]:
        """Return *names*, typed."""
        return [self.key(name) for name in names]

    def pattern(self, pattern: bytes, /) -> bytes:
        """Return *pattern*."""
        check_bytes(pattern)
        return pattern

    def starting(self, beginning: bytes, /) -> bytes:
        """Return *beginning*."""
        check_bytes(beginning)
        return beginning

    def range(
        self, low: bytes = b"", high: bytes | None = None, /, *, reverse: bool = False
    ) -> tuple[bytes | None, bytes | None]:
        """Return the bounds as they are."""
        check_bytes(low)
        if high is not None:
            check_bytes(high)
        return (high, low) if reverse else (low, high)

    def strip(self, physical: bytes, /) -> bytes:
        """Return *physical* as plain ``bytes``."""
        self.owns(physical)
        return bytes(physical)

    def owns(self, physical: bytes, /) -> bool:
        """True: there is nobody else."""
        if isinstance(physical, bytes):
            return True
        raise no_bytes(physical)


_IDENTITY_BYTES: Final[_IdentityBytes[Any]] = _IdentityBytes()


class OneGraph:
    """What a tenant names in a graph, all in one scope."""

    __slots__ = ("labels",)

    labels: NameScope[LabelKind]
    relationship_types: NameScope[RelationshipTypeKind]
    property_keys: NameScope[PropertyKeyKind]
    indexes: NameScope[IndexKind]
    constraints: NameScope[ConstraintKind]

    def __init__(self, scope: NameScope[Any]) -> None:
        self.labels = scope


# The descriptor of a slot serves under several names.
for _kind in GROUPS["graph"][1:]:
    setattr(OneGraph, _kind, vars(OneGraph)["labels"])
del _kind


class _IdentityNames:
    """All names of a server without tenants: one scope serves every kind."""

    __slots__ = ("blobs", "channels", "collections", "files", "graph", "topics", *GROUPS["keys"], "queues")

    def __init__(self, cursors: bytes) -> None:
        scope: _IdentityScope[Any] = _IdentityScope(cursors)
        for kind in (*GROUPS["keys"], *GROUPS["containers"], "channels", "topics", "blobs"):
            setattr(self, kind, scope)
        self.graph = OneGraph(scope)
        self.files = IdentityFiles()

    if TYPE_CHECKING:
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
        blobs: NameScope[BlobKind]
        files: FileScope
        graph: GraphNames


def cursors_of(secret: bytes | None) -> bytes:
    """Return the key for cursors that follows from *secret*; ``None``: from a random one."""
    return cursor_key(secrets.token_bytes(32) if secret is None else secret)


class IdentityNamespaces:
    """Names of a server without tenants: nothing changes, not even for names that a tenant could not have.

    Only the type is looked at, so that code that scopes a name twice fails here as it would with tenants. The high
    bound of a range is ``None`` where none was given: the names have no end.

    Args:
        secret: As for `PrefixNamespaces`.

    Raises:
        ConfigurationError: *secret* is too short.

    Concurrency:
        Without state; any number of threads.
    """

    __slots__ = ("_names",)

    def __init__(self, *, secret: bytes | None = None) -> None:
        self._names = _IdentityNames(cursors_of(secret))

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the identity.

        Raises:
            MisuseError: *context* is none; or it is of a tenant, whose names would be everybody's.
        """
        if tenant_in(context) != STANDALONE:
            raise MisuseError("IdentityNamespaces keeps no tenants apart; with tenants, use PrefixNamespaces")
        return self._names


if TYPE_CHECKING:
    _conforms: type[NamespaceManager] = IdentityNamespaces
