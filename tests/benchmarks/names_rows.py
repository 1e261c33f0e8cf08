"""What names cost beside a plain f-string: scoping, stripping, patterns, the context, façades, the graph guard."""

from __future__ import annotations

from typing import Final

from hivetenancy.cli import bench
from hivetenancy.context import TenantContext, bound
from hivetenancy.ids import STANDALONE, TenantId
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.scopes.graph import GraphScope
from hivetenancy.tenant import bound_to, current_tenant, standalone_tenant

_ACME: Final = TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=1)

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


def _in_context() -> bench.Work:
    tenant = standalone_tenant(IdentityNamespaces())
    tenant._names = _names()  # a handle without a server around it

    async def work(count: int) -> None:
        before = bound.get()
        bound.set(bound_to(tenant))
        try:
            for _ in range(count):
                current_tenant().kv.key("session:1")
        finally:
            bound.set(before)

    return work


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
