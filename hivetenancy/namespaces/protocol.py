"""Whose name is this? The protocol, logical and physical names.

A *logical* name is the tenant's own; a *physical* name is what the store sees. A physical name is a `Scoped` string: at
run time a ``str`` that goes to any driver without a copy; to a type checker an opaque type of its own kind, so that a
plain string, a name of another kind, a doubly scoped or a hand-built name does not pass where one is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from hivetenancy.context import TenantContext


class KeyKind:
    """Names in a shared key space: keys, hashes, lists, sets, locks."""


class CollectionKind:
    """Collections of vectors or documents."""


class QueueKind:
    """Queues."""


class StreamKind:
    """Streams."""


class TopicKind:
    """Topics and channels."""


Kind_co = TypeVar("Kind_co", covariant=True)

if TYPE_CHECKING:

    class Scoped(Generic[Kind_co]):
        """A physical name of one kind. ``str(name)`` gives the text where a driver insists on its type."""

        def __init__(self, text: str, /) -> None: ...
        def __hash__(self) -> int: ...
        def __eq__(self, other: object) -> bool: ...

else:

    class Scoped(str, Generic[Kind_co]):
        """A physical name of one kind. ``str(name)`` gives the text where a driver insists on its type."""

        __slots__ = ()


KeyName: TypeAlias = Scoped[KeyKind]
"""The physical name of a key."""
CollectionName: TypeAlias = Scoped[CollectionKind]
"""The physical name of a collection."""
QueueName: TypeAlias = Scoped[QueueKind]
"""The physical name of a queue."""
StreamName: TypeAlias = Scoped[StreamKind]
"""The physical name of a stream."""
TopicName: TypeAlias = Scoped[TopicKind]
"""The physical name of a topic."""

K = TypeVar("K")


class NameScope(Protocol[K]):
    """The share that one tenant has of the names of one kind.

    Ownership is ``startswith(prefix)`` and nothing else (isolation note, R8). Another tenant's name is treated exactly
    as one that does not exist.
    """

    @property
    def prefix(self) -> str:
        """What every physical name of this tenant begins with; empty in standalone mode."""
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
        """Return the Redis glob that matches just what *pattern* matches among the tenant's own names.

        Raises:
            InvalidNameError: As `key`.
        """
        ...

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        """Return physical bounds, low inclusive and high exclusive, of the tenant's names from *low* to *high*.

        Args:
            low: First logical name wanted; empty: from the beginning.
            high: Logical name to stop before; ``None``: to the end of the tenant's names.

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

    def owns(self, physical: str, /) -> bool:
        """Whether *physical* is this tenant's."""
        ...


class TenantNames(Protocol):
    """All names of one tenant, a scope for each kind."""

    @property
    def kv(self) -> NameScope[KeyKind]:
        """Keys."""
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
    def streams(self) -> NameScope[StreamKind]:
        """Streams."""
        ...

    @property
    def topics(self) -> NameScope[TopicKind]:
        """Topics and channels."""
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
