"""What a type checker must refuse of scoped names: each line marked ``E`` with the code of the error.

Never run, and left out of the plain mypy run, as `rejected.py` is.
"""

from __future__ import annotations

from typing import Protocol

from hivetenancy.ids import TenantId
from hivetenancy.namespaces import (
    AnyKeyName,
    BinaryScope,
    FilePath,
    HashKind,
    HashName,
    KeyKind,
    KeyName,
    LabelName,
    NameScope,
    NamespaceManager,
    RelationshipTypeName,
    Scoped,
    ScopedBytes,
    TenantNames,
)
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces


class Store(Protocol):
    """A store that takes only scoped keys."""

    def get(self, key: KeyName) -> bytes | None: ...

    def hget(self, key: HashName) -> bytes | None: ...

    def delete(self, key: AnyKeyName) -> None: ...

    def raw(self, key: ScopedBytes[KeyKind]) -> bytes | None: ...

    def open(self, path: FilePath) -> bytes: ...


def misuse(store: Store, names: TenantNames, name: str, tenant: TenantId) -> None:
    store.get(name)  # E: arg-type
    store.get(f"user:{tenant}:{name}")  # E: arg-type
    store.get(names.collections.key(name))  # E: arg-type
    store.get(names.streams.key(name))  # E: arg-type
    store.get(names.kv.key(names.kv.key(name)))  # E: arg-type
    store.get(names.kv.key(name) + ":suffix")  # E: operator
    store.get(names.kv.pattern(name))  # E: arg-type
    store.get(names.kv.strip(str(names.kv.key(name))))  # E: arg-type
    store.get(None)  # E: arg-type


def made_by_hand(names: TenantNames, name: str) -> None:
    names.kv.keys([names.kv.key(name)])  # E: list-item
    names.kv.pattern(names.kv.key(name))  # E: arg-type
    names.kv.key(None)  # E: arg-type
    names.kv.key(b"name")  # E: arg-type
    text: str = names.kv.key(name)  # E: assignment
    kv: NameScope[KeyKind] = names.queues  # E: assignment
    scoped: KeyName = Scoped[TenantNames](name)  # E: assignment


def of_another_kind(store: Store, names: TenantNames) -> None:
    store.hget(names.kv.key("a"))  # E: arg-type
    store.hget(names.lists.key("a"))  # E: arg-type
    store.get(names.hashes.key("a"))  # E: arg-type
    store.delete(names.collections.key("a"))  # E: arg-type
    store.delete(names.channels.key("a"))  # E: arg-type
    store.delete("a")  # E: arg-type
    label: LabelName = names.graph.relationship_types.key("KNOWS")  # E: assignment
    kind: RelationshipTypeName = names.graph.labels.key("Person")  # E: assignment
    hashes: NameScope[HashKind] = names.sets  # E: assignment


def of_any_kind(store: Store, anything: AnyKeyName) -> None:
    store.hget(anything)  # E: arg-type


def in_bytes(store: Store, names: TenantNames) -> None:
    store.raw(b"a")  # E: arg-type
    store.raw(names.kv.key("a"))  # E: arg-type
    store.get(names.kv.binary.key(b"a"))  # E: arg-type
    store.raw(names.hashes.binary.key(b"a"))  # E: arg-type
    names.kv.binary.key("a")  # E: arg-type
    names.kv.binary.key(names.kv.binary.key(b"a"))  # E: arg-type
    raw: bytes = names.kv.binary.key(b"a")  # E: assignment
    binary: BinaryScope[HashKind] = names.kv.binary  # E: assignment


def files_and_listings(store: Store, names: TenantNames) -> None:
    store.open("tenants/acme/x")  # E: arg-type
    store.open(names.blobs.key("a"))  # E: arg-type
    names.files.path(names.files.path("a"))  # E: arg-type
    names.kv.after(names.kv.page([], limit=1))  # E: arg-type
    names.kv.starting(names.kv.key("a"))  # E: arg-type
    names.kv.range("a", "b", True)  # E: call-arg
    names.kv.strip(names.kv.key("a"))  # E: arg-type


def without_a_tenant(tenant: TenantId) -> None:
    PrefixNamespaces().for_tenant(tenant)  # E: arg-type
    PrefixNamespaces().for_tenant(None)  # E: arg-type
    IdentityNamespaces().for_tenant()  # E: call-arg


class NoTenant:
    def for_tenant(self) -> TenantNames:
        raise LookupError


MANAGER: NamespaceManager = NoTenant()  # E: assignment
