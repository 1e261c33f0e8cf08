"""What a type checker must accept of scoped names. Checked by mypy and pyright, never run.

The mistakes stand beside it, in `rejected_names.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hivetenancy.context import TenantContext
from hivetenancy.namespaces import (
    AnyKeyName,
    BlobName,
    ChannelName,
    CollectionKind,
    CollectionName,
    FilePath,
    HashName,
    IndexName,
    KeyKind,
    KeyName,
    LabelName,
    LockName,
    NameScope,
    NamespaceManager,
    Page,
    QueueName,
    ScopedBytes,
    StreamName,
    TenantNames,
    TopicName,
)
from hivetenancy.namespaces.inspection import Ambiguous, Owned, Unowned
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces

MANAGERS: tuple[NamespaceManager, ...] = (PrefixNamespaces(), IdentityNamespaces())


def kinds(names: TenantNames) -> tuple[KeyName, CollectionName, QueueName, StreamName, TopicName]:
    """Each handle makes names of its own kind."""
    return (
        names.kv.key("a"),
        names.collections.key("a"),
        names.queues.key("a"),
        names.streams.key("a"),
        names.topics.key("a"),
    )


class Store(Protocol):
    """A store that takes only scoped keys, and hands out physical texts."""

    def get(self, key: KeyName) -> bytes | None: ...

    def many(self, keys: Iterable[KeyName]) -> list[bytes]: ...

    def scan(self, match: str) -> list[str]: ...

    def between(self, low: str | None, high: str | None) -> list[str]: ...

    def hget(self, key: HashName, field: str) -> bytes | None: ...

    def delete(self, key: AnyKeyName) -> None: ...

    def raw(self, key: ScopedBytes[KeyKind]) -> bytes | None: ...


def use(store: Store, manager: PrefixNamespaces, context: TenantContext) -> list[str]:
    """Patterns and bounds are texts; what comes out of the store goes back in after `strip`."""
    scope: NameScope[KeyKind] = manager.for_tenant(context).kv
    store.get(scope.key("a"))
    store.many(scope.keys(["a", "b"]))
    found = store.scan(scope.pattern("a*")) + store.between(*scope.range("a", "b"))
    own = [scope.strip(name) for name in found if scope.owns(name)]
    store.many(scope.keys(own))
    return [scope.strip(str(scope.key(name))) for name in own]


def of_every_kind(names: TenantNames) -> tuple[BlobName, ChannelName, LabelName, IndexName, LockName, FilePath]:
    """Names of the other kinds, of a graph, and paths."""
    return (
        names.blobs.key("a"),
        names.channels.key("a"),
        names.graph.labels.key("a"),
        names.graph.indexes.key("a"),
        names.locks.key("a"),
        names.files.path("collections", "docs"),
    )


def of_one_key_space(store: Store, names: TenantNames) -> None:
    """What takes any key takes the name of a hash, and of a lock; what takes a hash takes a hash."""
    store.hget(names.hashes.key("a"), "field")
    for key in (names.hashes.key("a"), names.locks.key("a"), names.kv.key("a"), names.streams.key("a")):
        store.delete(key)
    anything: AnyKeyName = names.sorted_sets.key("a")
    store.delete(anything)


def in_bytes(store: Store, names: TenantNames) -> list[bytes]:
    """Bytes go in plain and come out physical."""
    raw = names.kv.binary
    store.raw(raw.key(b"a"))
    low, high = raw.range(b"a", reverse=True)
    return [raw.prefix, raw.pattern(b"*"), raw.strip(bytes(raw.key(b"a"))), low or b"", high or b""]


def listed(store: Store, scope: NameScope[CollectionKind], cursor: str | None) -> tuple[list[str], str | None]:
    """A part of a listing, as a handler gives it to a tenant."""
    low, high = scope.after(cursor, beginning="docs")
    page: Page = scope.page(store.between(low, high), limit=10, beginning="docs")
    return list(page.names), page.cursor


def told(manager: PrefixNamespaces, physical: str) -> str:
    """An operator's question has three answers."""
    match manager.inspect(physical):
        case Owned(tenant=tenant) | Ambiguous(tenant=tenant):
            return tenant
        case Unowned():
            return "nobody's"
