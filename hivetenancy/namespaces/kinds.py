"""The kinds of names, and physical names as types of their own.

A kind exists for the type checker alone: it keeps the name of a collection out of a method that wants a queue's. At run
time a physical name is the text or the bytes that the store sees, and nothing else.

In one Redis database every key is a key, whatever is stored under it: `AnyKeyKind` is what those kinds have in common,
so that ``delete`` can take any of them while ``hget`` takes the name of a hash alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar


class AnyKeyKind:
    """Names in a shared key space, whatever lies under them."""


class KeyKind(AnyKeyKind):
    """Keys with a plain value."""


class HashKind(AnyKeyKind):
    """Hashes."""


class ListKind(AnyKeyKind):
    """Lists."""


class SetKind(AnyKeyKind):
    """Sets."""


class SortedSetKind(AnyKeyKind):
    """Sorted sets."""


class BitmapKind(AnyKeyKind):
    """Bitmaps."""


class HyperLogLogKind(AnyKeyKind):
    """HyperLogLogs."""


class GeoKind(AnyKeyKind):
    """Geospatial indexes."""


class StreamKind(AnyKeyKind):
    """Streams."""


class LockKind(AnyKeyKind):
    """Locks and leases."""


class CollectionKind:
    """Collections of vectors or documents."""


class QueueKind:
    """Queues."""


class TopicKind:
    """Topics: names of segments, which subscribers match with wildcards for whole segments."""


class ChannelKind:
    """Channels: names without parts, which subscribers match with a Redis glob."""


class BlobKind:
    """Blobs and objects, as in an object store."""


class FileKind:
    """Files and directories."""


class LabelKind:
    """Labels of graph nodes."""


class RelationshipTypeKind:
    """Types of graph relationships."""


class PropertyKeyKind:
    """Keys of properties in a graph."""


class IndexKind:
    """Indexes of a graph."""


class ConstraintKind:
    """Constraints of a graph."""


Kind_co = TypeVar("Kind_co", covariant=True)

if TYPE_CHECKING:

    class Scoped(Generic[Kind_co]):
        """A physical name of one kind. ``str(name)`` gives the text where a driver insists on its type."""

        def __init__(self, text: str, /) -> None: ...
        def __hash__(self) -> int: ...
        def __eq__(self, other: object) -> bool: ...

    class ScopedBytes(Generic[Kind_co]):
        """A physical name of one kind in bytes. ``bytes(name)`` gives them where a driver insists on its type."""

        def __init__(self, raw: bytes, /) -> None: ...
        def __bytes__(self) -> bytes: ...
        def __hash__(self) -> int: ...
        def __eq__(self, other: object) -> bool: ...

else:

    class Scoped(str, Generic[Kind_co]):
        """A physical name of one kind. ``str(name)`` gives the text where a driver insists on its type."""

        __slots__ = ()

    class ScopedBytes(bytes, Generic[Kind_co]):
        """A physical name of one kind in bytes. ``bytes(name)`` gives them where a driver insists on its type."""

        # `bytes` has items of variable size, so it takes no `__slots__` but an empty one.
        __slots__ = ()


AnyKeyName: TypeAlias = Scoped[AnyKeyKind]
"""The physical name of a key, whatever lies under it."""
KeyName: TypeAlias = Scoped[KeyKind]
"""The physical name of a key with a plain value."""
HashName: TypeAlias = Scoped[HashKind]
"""The physical name of a hash."""
ListName: TypeAlias = Scoped[ListKind]
"""The physical name of a list."""
SetName: TypeAlias = Scoped[SetKind]
"""The physical name of a set."""
SortedSetName: TypeAlias = Scoped[SortedSetKind]
"""The physical name of a sorted set."""
BitmapName: TypeAlias = Scoped[BitmapKind]
"""The physical name of a bitmap."""
HyperLogLogName: TypeAlias = Scoped[HyperLogLogKind]
"""The physical name of a HyperLogLog."""
GeoName: TypeAlias = Scoped[GeoKind]
"""The physical name of a geospatial index."""
StreamName: TypeAlias = Scoped[StreamKind]
"""The physical name of a stream."""
LockName: TypeAlias = Scoped[LockKind]
"""The physical name of a lock."""
CollectionName: TypeAlias = Scoped[CollectionKind]
"""The physical name of a collection."""
QueueName: TypeAlias = Scoped[QueueKind]
"""The physical name of a queue."""
TopicName: TypeAlias = Scoped[TopicKind]
"""The physical name of a topic."""
ChannelName: TypeAlias = Scoped[ChannelKind]
"""The physical name of a channel."""
BlobName: TypeAlias = Scoped[BlobKind]
"""The physical name of a blob."""
FilePath: TypeAlias = Scoped[FileKind]
"""The physical path of a file or directory, relative to the store's root, with ``/`` between its parts."""
LabelName: TypeAlias = Scoped[LabelKind]
"""The physical name of a label."""
RelationshipTypeName: TypeAlias = Scoped[RelationshipTypeKind]
"""The physical name of a relationship type."""
PropertyKeyName: TypeAlias = Scoped[PropertyKeyKind]
"""The physical name of a property key."""
IndexName: TypeAlias = Scoped[IndexKind]
"""The physical name of an index of a graph."""
ConstraintName: TypeAlias = Scoped[ConstraintKind]
"""The physical name of a constraint of a graph."""
