"""What names cost beside a plain f-string: scoping, stripping, patterns, the context, façades, the graph guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hivetenancy.cli import bench
from hivetenancy.context import TenantContext, bound
from hivetenancy.ids import STANDALONE, Effect, TenantId
from hivetenancy.namespaces import Scoped, TenantNames
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.scopes.graph import GraphScope
from hivetenancy.stores.facade import StoreFacade
from hivetenancy.stores.guarded import GuardedStore, at, within
from hivetenancy.stores.operations import Argument, StoreOperation
from hivetenancy.tenant import bound_to, current_tenant, standalone_tenant

_ACME: Final = TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=1)

TEN: Final = [f"session:{number}" for number in range(10)]

QUERY: Final = (
    "MATCH (p:Person {name: $name})-[k:KNOWS]->(f:Person)-[:WORKS_AT]->(c:Company) "
    "WHERE f.age > 30 AND c.country IN ['CH', 'AT'] "
    "WITH p, f, c ORDER BY f.age DESC LIMIT 10 "
    "RETURN p.name AS person, collect(f.name) AS friends, count(c) AS companies"
)
"""Some 80 tokens."""


def _names() -> TenantNames:
    return PrefixNamespaces().for_tenant(_ACME)


def rows() -> list[bench.Row]:
    """Return the rows."""
    return [
        bench.Row(name="scope a name, checked and typed", work=_scope(_names()), per="f-string", gate=2.5),
        bench.Row(name="a typed name, nothing checked: the floor", work=_typed(), per="f-string"),
        bench.Row(name="scope a name in bytes", work=_scope_bytes(_names()), per="f-string"),
        bench.Row(name="strip", work=_strip(_names()), per="f-string", gate=3),
        bench.Row(name="pattern", work=_pattern(_names()), per="f-string", gate=3),
        bench.Row(name="current tenant and scope", work=_in_context(), per="f-string", gate=3),
        bench.Row(
            name="identity (standalone)",
            work=_scope(IdentityNamespaces().for_tenant(_standalone())),
            per="f-string",
            gate=1.5,
        ),
        bench.Row(name="scope ten names", work=_ten(), per="f-string"),
        bench.Row(
            name="facade: get", work=_facade("get", "session:1"), per="f-string", beyond=_store("get", "session:1")
        ),
        bench.Row(name="facade: mget of ten", work=_facade("mget", TEN), per="f-string", beyond=_store("mget", TEN)),
        bench.Row(name="facade over a guard: get", work=_facade("get", "session:1", guard=True), per="f-string"),
        bench.Row(name="tenant.bound(), in and out", work=_bound(), per="f-string"),
        bench.Row(name="all names of a tenant", work=_for_tenant(), per="f-string"),
        bench.Row(name="graph guard, 80 tokens", work=_graph(), per="f-string"),
    ]


def _standalone() -> TenantContext:
    return TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)


def _scope(names: TenantNames) -> bench.Work:
    async def work(count: int) -> None:
        key = names.kv.key
        for _ in range(count):
            key("session:1")

    return work


def _typed() -> bench.Work:
    """Return the work of making the type alone, which nothing that returns a `Scoped` is faster than."""
    prefix, name = _names().kv.prefix, "session:1"

    async def work(count: int) -> None:
        for _ in range(count):
            Scoped(prefix + name)

    return work


def _scope_bytes(names: TenantNames) -> bench.Work:
    async def work(count: int) -> None:
        key = names.kv.binary.key
        for _ in range(count):
            key(b"session:1")

    return work


def _strip(names: TenantNames) -> bench.Work:
    physical = str(names.kv.key("session:1"))

    async def work(count: int) -> None:
        strip = names.kv.strip
        for _ in range(count):
            strip(physical)

    return work


def _pattern(names: TenantNames) -> bench.Work:
    async def work(count: int) -> None:
        pattern = names.kv.pattern
        for _ in range(count):
            pattern("session:*")

    return work


class _Acme:
    """Gives a standalone handle the names of a tenant: a handle without a server around it."""

    def for_tenant(self, context: TenantContext) -> TenantNames:
        return _names()


def _as_acme(call: Callable[[], object]) -> bench.Work:
    """Return the work of making *call*, with a tenant bound."""
    tenant = standalone_tenant(_Acme())

    async def work(count: int) -> None:
        before = bound.get()
        bound.set(bound_to(tenant))
        try:
            for _ in range(count):
                call()
        finally:
            bound.set(before)

    return work


def _in_context() -> bench.Work:
    return _as_acme(lambda: current_tenant().kv.key("session:1"))


def _bound() -> bench.Work:
    tenant = standalone_tenant(_Acme())

    async def work(count: int) -> None:
        for _ in range(count):
            with tenant.bound():
                pass

    return work


def _ten() -> bench.Work:
    keys = _names().kv.keys
    return _as_acme(lambda: keys(TEN))


class _Store:
    """What a façade stands before."""

    def get(self, key: str) -> None:
        """Find nothing."""

    def mget(self, keys: Sequence[str]) -> None:
        """Find nothing."""


_OPERATIONS: Final = (
    StoreOperation(name="get", arguments={"key": Argument.NAME}, effect=Effect.READ),
    StoreOperation(name="mget", arguments={"keys": Argument.NAMES}, effect=Effect.READ),
)


def _store(method: str, argument: object) -> bench.Work:
    call = getattr(_Store(), method)
    return _as_acme(lambda: call(argument))


def _facade(method: str, argument: object, *, guard: bool = False) -> bench.Work:
    store: object = GuardedStore(_Store(), {"get": at(0), "mget": within(0)}) if guard else _Store()
    call = getattr(StoreFacade(store, _OPERATIONS), method)
    return _as_acme(lambda: call(argument))


def _for_tenant() -> bench.Work:
    manager = PrefixNamespaces()

    async def work(count: int) -> None:
        for _ in range(count):
            manager.for_tenant(_ACME)

    return work


def _graph() -> bench.Work:
    scope = GraphScope(_names().graph)

    async def work(count: int) -> None:
        for _ in range(count):
            scope.guard(QUERY)

    return work
