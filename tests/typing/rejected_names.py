"""What a type checker must refuse of scoped names: each line marked ``E`` with the code of the error.

Never run, and left out of the plain mypy run, as `rejected.py` is.
"""

from __future__ import annotations

from typing import Protocol

from hivetenancy.ids import TenantId
from hivetenancy.namespaces import KeyKind, KeyName, NameScope, NamespaceManager, Scoped, TenantNames
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces


class Store(Protocol):
    """A store that takes only scoped keys."""

    def get(self, key: KeyName) -> bytes | None: ...


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


def without_a_tenant(tenant: TenantId) -> None:
    PrefixNamespaces().for_tenant(tenant)  # E: arg-type
    PrefixNamespaces().for_tenant(None)  # E: arg-type
    IdentityNamespaces().for_tenant()  # E: call-arg


class NoTenant:
    def for_tenant(self) -> TenantNames:
        raise LookupError


MANAGER: NamespaceManager = NoTenant()  # E: assignment
