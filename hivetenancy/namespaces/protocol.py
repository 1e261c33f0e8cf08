"""Whose name is this? The protocol, logical and physical names.

A *logical* name is the tenant's own; a *physical* name is what the store sees. A physical name is a `Scoped` string: at
run time a ``str`` that goes to any driver without a copy; to a type checker an opaque type of its own kind, so that a
plain string, a name of another kind, a doubly scoped or a hand-built name does not pass where one is wanted. What
stores know in bytes goes through `NameScope.binary`, which gives `ScopedBytes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hivetenancy.context import TenantContext

from .kinds import (
    BitmapKind,
    BlobKind,
    ChannelKind,
    CollectionKind,
    ConstraintKind,
    FilePath,
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

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a listing.

    Attributes:
        names: Logical names, in order.
        cursor: Where the next part begins; ``None``: there is none. It is bound to the tenant and worthless to others.
    """

    names: Sequence[str]
    cursor: str | None


class BinaryScope(Protocol[K]):
    """The share that one tenant has of the names of one kind, in bytes; each method as that of `NameScope`.

    A name in bytes and the same name as text are one name: ``binary.key(name.encode())`` is ``key(name)`` in UTF-8.
    """

    @property
    def prefix(self) -> bytes:
        """What every physical name of this tenant begins with; empty in standalone mode."""
        ...

    def key(self, name: bytes, /) -> ScopedBytes[K]:
        """Return the physical name of *name*."""
        ...

    def keys(self, names: Iterable[bytes], /) -> list[ScopedBytes[K]]:
        """Return the physical names of *names*, in order."""
        ...

    def pattern(self, pattern: bytes, /) -> bytes:
        """Return the Redis glob of *pattern* within the tenant's own names."""
        ...

    def starting(self, beginning: bytes, /) -> bytes:
        """Return what just the physical names begin with whose logical names begin with *beginning*."""
        ...

    def range(
        self, low: bytes = b"", high: bytes | None = None, /, *, reverse: bool = False
    ) -> tuple[bytes | None, bytes | None]:
        """Return physical bounds of the tenant's names from *low* to *high*."""
        ...

    def strip(self, physical: bytes, /) -> bytes:
        """Return the logical name of *physical*."""
        ...

    def owns(self, physical: bytes, /) -> bool:
        """Whether *physical* is this tenant's."""
        ...


class NameScope(Protocol[K]):
    """The share that one tenant has of the names of one kind.

    Ownership is ``startswith(prefix)`` and nothing else (isolation note, R8). Another tenant's name is treated exactly
    as one that does not exist.
    """

    @property
    def prefix(self) -> str:
        """What every physical name of this tenant begins with; empty in standalone mode."""
        ...

    @property
    def binary(self) -> BinaryScope[K]:
        """The same names in bytes."""
        ...

    def key(self, name: str, /) -> Scoped[K]:
        """Return the physical name of *name*.

        Raises:
            InvalidNameError: *name* is no ``str``, is empty, or the physical name would be too long.
        """
        ...

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        """Return the physical names of *names*, in order; raises as `key`."""
        ...

    def pattern(self, pattern: str, /) -> str:
        """Return the pattern that matches just what *pattern* matches among the tenant's own names.

        A Redis glob; for topics, the wildcards of the manager's separator (`hivetenancy.namespaces.patterns`).

        Raises:
            InvalidNameError: As `key`; or the pattern cannot be confined to the tenant's names.
        """
        ...

    def like(self, pattern: str, /, *, escape: str = "\\") -> str:
        r"""Return the SQL ``LIKE`` pattern that matches just what *pattern* matches among the tenant's own names.

        Args:
            pattern: ``%`` and ``_`` are wildcards.
            escape: What makes the character behind it literal, in *pattern* and in the result. The statement has to
                name it: ``LIKE ? ESCAPE '\'``.

        Raises:
            InvalidNameError: As `key`; or *pattern* ends in a lone *escape*, or escapes what is no wildcard.
        """
        ...

    def starting(self, beginning: str, /) -> str:
        """Return what just the physical names begin with whose logical names begin with *beginning*.

        Args:
            beginning: Empty: all of the tenant's names.
        """
        ...

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        """Return physical bounds, low inclusive and high exclusive, of the tenant's names from *low* to *high*.

        Args:
            low: First logical name wanted; empty: from the beginning.
            high: Logical name to stop before; ``None``: to the end of the tenant's names.
            reverse: Return the bounds as a scan from the end takes them: high first. What they include is the same.

        Returns:
            Bounds in code-point order, which is also the order of UTF-8 bytes. The high bound is ``None`` only in
            standalone mode, where the names have no end.
        """
        ...

    def strip(self, physical: str, /) -> str:
        """Return the logical name of *physical*.

        Raises:
            InvalidNameError: It is not this tenant's; the message does not show it.
        """
        ...

    def strip_all(self, physical: Iterable[str], /) -> list[str]:
        """Return the logical names of *physical*, in order; raises as `strip`, and then returns nothing at all."""
        ...

    def owns(self, physical: str, /) -> bool:
        """Whether *physical* is this tenant's."""
        ...

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        """Return the physical bounds of what a listing has yet to show, low inclusive and high exclusive.

        Args:
            cursor: What the last `page` gave; ``None``: from the start.
            beginning: List only names that begin with this; the same for every part of one listing.

        Raises:
            InvalidNameError: *cursor* was not given to this tenant for this listing. That of another tenant, a changed
                one and one that never was are told apart by nothing.
        """
        ...

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        """Return a part of a listing from what the store found between the bounds of `after`.

        Args:
            found: Physical names in order, as many as the store has up to ``limit + 1``: the one more tells whether the
                listing goes on.
            limit: How many names a part has at most.
            beginning: As for `after`.

        Raises:
            InvalidNameError: One of *found* is not this tenant's; nothing is returned.
        """
        ...


class FileScope(Protocol):
    """The share that one tenant has of a directory tree: ``tenants/{t}/...``.

    Pure: it makes and reads paths. `hivetenancy.namespaces.files` opens them.
    """

    @property
    def directory(self) -> str:
        """The tenant's own directory, relative to the root; empty in standalone mode."""
        ...

    def path(self, *parts: str) -> FilePath:
        """Return the path of the file or directory called *parts*, one text a level, each any text at all.

        Two different sequences of parts have different paths, on file systems without upper and lower case too. A part
        never becomes ``..``, a device, hidden, or longer than a file system takes.

        Raises:
            InvalidNameError: There are no parts; or a part is no ``str``, is empty, or holds a lone surrogate.
        """
        ...

    def owns(self, path: str, /) -> bool:
        """Whether *path*, as `path` makes them, lies in the tenant's directory."""
        ...

    def strip(self, path: str, /) -> tuple[str, ...]:
        """Return the parts of *path*.

        Raises:
            InvalidNameError: It is not this tenant's, not made by `path`, or a part was too long to stand in a path as
                it is; who keeps such names keeps them beside the file.
        """
        ...


class GraphNames(Protocol):
    """What a tenant names in a graph. In a query each has to stand in back-ticks."""

    @property
    def labels(self) -> NameScope[LabelKind]:
        """Labels of nodes."""
        ...

    @property
    def relationship_types(self) -> NameScope[RelationshipTypeKind]:
        """Types of relationships."""
        ...

    @property
    def property_keys(self) -> NameScope[PropertyKeyKind]:
        """Keys of properties."""
        ...

    @property
    def indexes(self) -> NameScope[IndexKind]:
        """Indexes."""
        ...

    @property
    def constraints(self) -> NameScope[ConstraintKind]:
        """Constraints."""
        ...


class TenantNames(Protocol):
    """All names of one tenant, a scope for each kind.

    The kinds of a shared key space (`kv` to `locks`) share one set of names, as they do in Redis.
    """

    @property
    def kv(self) -> NameScope[KeyKind]:
        """Keys."""
        ...

    @property
    def hashes(self) -> NameScope[HashKind]:
        """Hashes."""
        ...

    @property
    def lists(self) -> NameScope[ListKind]:
        """Lists."""
        ...

    @property
    def sets(self) -> NameScope[SetKind]:
        """Sets."""
        ...

    @property
    def sorted_sets(self) -> NameScope[SortedSetKind]:
        """Sorted sets."""
        ...

    @property
    def bitmaps(self) -> NameScope[BitmapKind]:
        """Bitmaps."""
        ...

    @property
    def hyperloglogs(self) -> NameScope[HyperLogLogKind]:
        """HyperLogLogs."""
        ...

    @property
    def geo(self) -> NameScope[GeoKind]:
        """Geospatial indexes."""
        ...

    @property
    def streams(self) -> NameScope[StreamKind]:
        """Streams."""
        ...

    @property
    def locks(self) -> NameScope[LockKind]:
        """Locks."""
        ...

    @property
    def collections(self) -> NameScope[CollectionKind]:
        """Collections."""
        ...

    @property
    def queues(self) -> NameScope[QueueKind]:
        """Queues."""
        ...

    @property
    def topics(self) -> NameScope[TopicKind]:
        """Topics of segments."""
        ...

    @property
    def channels(self) -> NameScope[ChannelKind]:
        """Channels."""
        ...

    @property
    def blobs(self) -> NameScope[BlobKind]:
        """Blobs."""
        ...

    @property
    def files(self) -> FileScope:
        """Files and directories."""
        ...

    @property
    def graph(self) -> GraphNames:
        """What a graph names."""
        ...


class NamespaceManager(Protocol):
    """Gives each tenant its share of names.

    Two tenants never share a physical name, whatever bytes they use; a name round-trips.
    """

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the names of the tenant in *context*.

        Raises:
            InvalidNameError: The tenant's id cannot be encoded under the manager's id scheme.
        """
        ...
