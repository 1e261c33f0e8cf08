"""A graph that tenants share: names scoped on the way in, and back on the way out.

In a shared graph every label, relationship type, property key, index and constraint of a tenant stands under its
physical name, ``ns:{t}:{name}``. `GraphScope.guard` rewrites a query so that it names nothing else, and refuses every
query of which it cannot be sure (`hivetenancy.scopes.cypher.RULES`): what it accepts it has understood to the last
token.

A name is scoped whatever it looks like. One that begins with ``ns:`` is a name like any other, and is scoped again:
"already scoped" is what an attacker would say.

A database or a graph for each tenant is stronger than this, and a tenant's label on every node is simpler; see
``docs/how-to/isolate-a-graph.md`` for which to take.

Concurrency:
    Everything here is pure but for the scopes of names it is given; any number of threads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from hivetenancy.errors import InvalidNameError, MisuseError
from hivetenancy.namespaces.protocol import GraphNames, NameScope

from .cypher_clauses import ClauseReader
from .cypher_kinds import CONSTRAINT, INDEX, LABEL, PROPERTY_KEY, RELATIONSHIP_TYPE

Value = TypeVar("Value")

_NO_COLUMNS: Final[Mapping[str, str]] = {}


def quoted(name: object) -> str:
    r"""Return *name*, as a query has to spell it: in back-ticks, with those in it doubled.

    Raises:
        InvalidNameError: *name* holds a backslash. Neo4j resolves ``\u0060`` before it looks for back-ticks, so that
            no spelling of it is safe on every server; the guard refuses such names, too.

    Example:
        >>> quoted("ns:acme:Person")
        '`ns:acme:Person`'
    """
    text = str(name)
    if "\\" in text:
        raise InvalidNameError("a name in a query must not hold a backslash: servers resolve escapes before quotes")
    return "`" + text.replace("`", "``") + "`"


class ScopedQuery:
    """A query that names nothing but what is the tenant's.

    Attributes:
        text: What to send to the server.
        columns: Columns of the result that hold physical names, with the function that made them (``labels``,
            ``type``, ``keys``, ``properties``); `GraphScope.row` maps them back.
        property_maps: Parameters whose keys set properties: each goes through `GraphScope.properties` first.
        writes: Whether anything in it changes data, at any depth of subqueries and ``FOREACH``.
        schema: Whether it changes indexes or constraints.
    """

    __slots__ = ("columns", "property_maps", "schema", "text", "writes")

    def __init__(
        self, text: str, *, columns: Mapping[str, str], property_maps: frozenset[str], writes: bool, schema: bool
    ) -> None:
        self.text = text
        self.columns = columns
        self.property_maps = property_maps
        self.writes = writes
        self.schema = schema

    def __str__(self) -> str:
        return self.text


class PreparedQuery:
    """A query that was read once: what stands in it, and where names go. It holds nothing of any tenant.

    Made by `prepare`, for a host that runs the same queries for many tenants. Keep those that the host itself wrote: a
    store of the tenants' own queries would tell one, by how fast it is, what others ask.

    Attributes:
        property_maps: As for `ScopedQuery`.
    """

    __slots__ = ("_columns", "_parts", "_schema", "_slots", "_writes", "property_maps")

    def __init__(self, reader: ClauseReader) -> None:
        self.property_maps = frozenset(reader.used_maps)
        self._columns = {name: made.lower() for name, made in reader.columns.items()} or _NO_COLUMNS
        self._writes = reader.writes
        self._schema = reader.schema
        self._parts, self._slots = _parts(reader)

    def scoped(self, scopes: Mapping[str, NameScope[Any]]) -> ScopedQuery:
        """Return the query with the names that *scopes* gives, by sort."""
        parts = list(self._parts)
        for index, sort, name in self._slots:
            parts[index] = quoted(scopes[sort].key(name))
        return ScopedQuery(
            "".join(parts),
            columns=self._columns,
            property_maps=self.property_maps,
            writes=self._writes,
            schema=self._schema,
        )


def _parts(reader: ClauseReader) -> tuple[list[str], list[tuple[int, str, str]]]:
    """Return the text of a query in parts, and which of them are names."""
    parts: list[str] = []
    slots: list[tuple[int, str, str]] = []
    end = len(reader.tokens) - 2
    own, before, after, dropped = reader.slots, reader.before, reader.after, reader.dropped
    for index, (blank, token) in enumerate(zip(reader.blanks[:end], reader.tokens, strict=False)):
        if blank and index:
            parts.append(" ")
        if index in dropped:
            continue
        if index in before:
            parts.append(before[index])
        if index in own:
            slots.append((len(parts), *own[index]))
        parts.append(token)
        if index in after:
            parts.append(after[index])
    return parts, slots


def prepare(query: str, *, property_maps: Collection[str] = (), functions: Collection[str] = ()) -> PreparedQuery:
    """Read *query* once, to run it for any tenant; arguments and errors as for `GraphScope.guard`."""
    reader = ClauseReader(query, property_maps, [name.upper() for name in functions])
    reader.read()
    return PreparedQuery(reader)


class GraphScope:
    """One tenant's share of a graph.

    Args:
        names: What the tenant names in the graph, ``names.graph`` of its names.
        functions: Functions of the server beyond those of openCypher that may be called, in any case. Each has to
            compute its result from its arguments alone: one that reads the graph reads everybody's.

    Example:
        >>> from hivetenancy.context import TenantContext
        >>> from hivetenancy.ids import TenantId
        >>> from hivetenancy.namespaces.prefix import PrefixNamespaces
        >>> acme = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=1)
        >>> scope = GraphScope(PrefixNamespaces(scheme="slug").for_tenant(acme).graph)
        >>> print(scope.guard("MATCH (p:Person {name: $name}) RETURN p.age AS age"))
        MATCH (p:`ns:acme:Person` {`ns:acme:name`: $name}) RETURN p.`ns:acme:age` AS age
    """

    __slots__ = ("_functions", "_scopes", "names")

    def __init__(self, names: GraphNames, *, functions: Collection[str] = ()) -> None:
        if not hasattr(names, "labels"):
            raise TypeError(
                f"a GraphScope takes what a tenant names in a graph, got {type(names).__name__}: pass .graph"
            )
        self.names = names
        self._functions = frozenset(name.upper() for name in functions)
        self._scopes: dict[str, NameScope[Any]] = {
            LABEL: names.labels,
            RELATIONSHIP_TYPE: names.relationship_types,
            PROPERTY_KEY: names.property_keys,
            INDEX: names.indexes,
            CONSTRAINT: names.constraints,
        }

    def guard(self, query: str | PreparedQuery, *, property_maps: Collection[str] = ()) -> ScopedQuery:
        """Return *query* with all its names scoped, or refuse it.

        Args:
            query: What the tenant wrote, or what `prepare` made of it.
            property_maps: Parameters, without the ``$``, that may stand where properties are set or matched as a whole
                (``CREATE (n:A $p)``, ``SET n += $p``). Naming one promises that its value goes through `properties`.
                A prepared query has its own.

        Raises:
            QueryRefusedError: The query cannot be scoped; nothing of it may reach the server.
            InvalidNameError: A name in it is empty or too long; or *query* is no plain ``str``.
        """
        if isinstance(query, PreparedQuery):
            return query.scoped(self._scopes)
        reader = ClauseReader(query, property_maps, self._functions)
        reader.read()
        return PreparedQuery(reader).scoped(self._scopes)

    # on the way in

    def properties(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return *values* under physical keys, to stand for a parameter that sets properties.

        Raises:
            InvalidNameError: A key is no plain ``str``, empty or too long.
        """
        key = self.names.property_keys.key
        return {str(key(name)): value for name, value in values.items()}

    # on the way out; each of these is the second lock: another's name raises, and nothing is returned

    def labels(self, physical: Iterable[str]) -> list[str]:
        """Return the tenant's own names of labels.

        Raises:
            InvalidNameError: One is not the tenant's.
        """
        return self.names.labels.strip_all(physical)

    def type(self, physical: str) -> str:
        """Return the tenant's own name of a relationship type; raises as `labels`."""
        return self.names.relationship_types.strip(physical)

    def keys(self, physical: Iterable[str]) -> list[str]:
        """Return the tenant's own names of property keys; raises as `labels`."""
        return self.names.property_keys.strip_all(physical)

    def own_properties(self, physical: Mapping[str, Value]) -> dict[str, Value]:
        """Return the properties of a node or relationship under the tenant's own keys; raises as `labels`."""
        strip = self.names.property_keys.strip
        return {strip(name): value for name, value in physical.items()}

    def row(self, query: ScopedQuery, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of the result of *query* with the columns of physical names mapped back.

        Nodes, relationships and paths in it are objects of the server's driver: the host takes them apart and maps
        their parts with `labels`, `type` and `own_properties`.

        Args:
            query: The one that was sent.
            row: A column's value may be ``None``, as ``labels(n)`` is behind an ``OPTIONAL MATCH`` that found nothing.

        Raises:
            InvalidNameError: A name in these columns is not the tenant's.
            MisuseError: A column that *query* declares is missing: the row belongs to another query.
        """
        mapped = dict(row)
        for column, made in query.columns.items():
            if column not in mapped:
                raise MisuseError("the row lacks a column of this query; pass rows of the query that was sent")
            if mapped[column] is not None:
                mapped[column] = self._back(made, mapped[column])
        return mapped

    def _back(self, made: str, value: Any) -> object:
        if made == "labels":
            return self.labels(value)
        if made == "type":
            return self.type(value)
        return self.keys(value) if made == "keys" else self.own_properties(value)


Relationship = tuple[Any, Collection[str], str, Collection[str]]
"""What `foreign_relationships` looks at: any identifier, the labels at its start, its type, the labels at its end."""


def foreign_relationships(relationships: Iterable[Relationship], names: Sequence[GraphNames]) -> Iterator[Any]:
    """Give the identifier of each of *relationships* that joins what belongs to different owners.

    That there is none is what the guard rests on: a path is the tenant's as soon as one part of it is. For an operator
    to run after a migration, an import or a restore.

    Args:
        relationships: All there are, with physical names.
        names: Those of all tenants. A name that is none of theirs counts as that of one more owner.
    """
    owners: dict[tuple[str, str], int] = {}

    def owner(sort: str, physical: str) -> int:
        if (sort, physical) not in owners:
            scopes = (tenant.labels if sort == LABEL else tenant.relationship_types for tenant in names)
            own = (index for index, scope in enumerate(scopes) if scope.owns(physical))
            owners[sort, physical] = next(own, -1)
        return owners[sort, physical]

    for identifier, start, kind, end in relationships:
        found = {owner(LABEL, label) for label in (*start, *end)} | {owner(RELATIONSHIP_TYPE, kind)}
        if len(found) > 1:
            yield identifier


__all__ = [
    "GraphScope",
    "PreparedQuery",
    "Relationship",
    "ScopedQuery",
    "foreign_relationships",
    "prepare",
    "quoted",
]
