"""What a type checker must accept of scoped names. Checked by mypy, never run.

The mistakes stand beside it, in `rejected_names.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hivetenancy.context import TenantContext
from hivetenancy.namespaces import (
    CollectionName,
    KeyKind,
    KeyName,
    NameScope,
    NamespaceManager,
    QueueName,
    StreamName,
    TenantNames,
    TopicName,
)
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

    def between(self, low: str, high: str | None) -> list[str]: ...


def use(store: Store, manager: PrefixNamespaces, context: TenantContext) -> list[str]:
    """Patterns and bounds are texts; what comes out of the store goes back in after `strip`."""
    scope: NameScope[KeyKind] = manager.for_tenant(context).kv
    store.get(scope.key("a"))
    store.many(scope.keys(["a", "b"]))
    found = store.scan(scope.pattern("a*")) + store.between(*scope.range("a", "b"))
    own = [scope.strip(name) for name in found if scope.owns(name)]
    store.many(scope.keys(own))
    return [scope.strip(str(scope.key(name))) for name in own]
