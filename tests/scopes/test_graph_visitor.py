"""Scoping by a host's own syntax tree: no class and no child can be forgotten without a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from hivetenancy.errors import ConfigurationError
from hivetenancy.scopes.graph_visitor import GraphVisitor, TreeRefusedError, handles
from tests.scopes.graph_queries import graph_names


class Tree:
    """A node of a small syntax tree, as a server of its own has one."""


def made(name: str, fields: str) -> type[Any]:
    """A class of the tree with *fields*."""
    return dataclasses.make_dataclass(name, fields.split(), bases=(Tree,), eq=False)


def some(names: str) -> list[type[Any]]:
    """The classes of *names*."""
    return [CLASSES[name] for name in names.split()]


CLASSES: dict[str, type[Any]] = {
    name: made(name, fields)
    for name, fields in {
        "Query": "clauses",
        "Union": "parts",
        "Match": "paths where",
        "Create": "paths",
        "Merge": "paths",
        "SetProperty": "owner key value",
        "SetLabel": "owner label",
        "Delete": "values",
        "Unwind": "value",
        "With": "items",
        "Return": "items",
        "Foreach": "value clauses",
        "CallSubquery": "body",
        "CallProcedure": "name",
        "LoadCsv": "source",
        "CreateIndex": "name label keys",
        "CreateConstraint": "name label keys",
        "NodePattern": "labels properties",
        "RelationshipPattern": "types properties",
        "Property": "owner key",
        "PropertyMap": "entries",
        "MapLiteral": "entries",
        "MapProjection": "owner keys",
        "ListComprehension": "value where result",
        "PatternComprehension": "path where result",
        "CollectSubquery": "body",
        "ExistsSubquery": "body",
        "Call": "arguments",
        "Literal": "value",
        "Parameter": "name",
        "Variable": "name",
    }.items()
}
C = type("C", (), CLASSES)  # for mypy every name of it is Any
ALL = list(CLASSES.values())
K: Any = C


def parts_of(value: object) -> Iterator[Any]:
    """The nodes of the tree in *value*, at any depth of lists and maps."""
    if isinstance(value, Tree):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from parts_of(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from parts_of(entry)


class Visitor(GraphVisitor[Any]):
    """Scopes the small tree, naming every class of it."""

    LEAVES = (K.Literal, K.Parameter, K.Variable)
    REFUSED = {K.CallProcedure: "procedures read what they like", K.LoadCsv: "files of the server"}  # noqa: RUF012

    def children(self, node: Any) -> Iterator[Any]:
        """The nodes in the fields of *node*."""
        return parts_of(list(vars(node).values()))

    @handles(
        *some("Query Union Match Create Merge Delete Unwind With Return Foreach CallSubquery ListComprehension"),
        *some("PatternComprehension CollectSubquery ExistsSubquery Call MapLiteral"),
    )
    def inner(self, node: Any) -> Any:
        """No names of its own."""
        self.visit_all(self.children(node))
        return node

    @handles(K.NodePattern)
    def node_pattern(self, node: Any) -> Any:
        """Labels, and properties."""
        node.labels = [str(self.names.labels.key(label)) for label in node.labels]
        return self.inner(node)

    @handles(K.RelationshipPattern)
    def relationship_pattern(self, node: Any) -> Any:
        """Types, and properties."""
        node.types = [str(self.names.relationship_types.key(kind)) for kind in node.types]
        return self.inner(node)

    @handles(K.Property, K.SetProperty)
    def property(self, node: Any) -> Any:
        """A key."""
        node.key = str(self.names.property_keys.key(node.key))
        return self.inner(node)

    @handles(K.SetLabel)
    def set_label(self, node: Any) -> Any:
        """A label."""
        node.label = str(self.names.labels.key(node.label))
        return self.inner(node)

    @handles(K.PropertyMap)
    def property_map(self, node: Any) -> Any:
        """Keys of properties."""
        node.entries = {str(self.names.property_keys.key(key)): value for key, value in node.entries.items()}
        return self.inner(node)

    @handles(K.MapProjection)
    def map_projection(self, node: Any) -> Any:
        """Keys of properties, of a node."""
        node.keys = [str(self.names.property_keys.key(key)) for key in node.keys]
        return self.inner(node)

    @handles(K.CreateIndex, K.CreateConstraint)
    def definition(self, node: Any) -> Any:
        """A name, a label and keys."""
        names = self.names.indexes if type(node) is K.CreateIndex else self.names.constraints
        node.name = str(names.key(node.name))
        node.label = str(self.names.labels.key(node.label))
        node.keys = [str(self.names.property_keys.key(key)) for key in node.keys]
        return node


SECRET = "ns:other:A"


def pattern() -> Any:
    """A node with a label of somebody else."""
    return K.NodePattern([SECRET], K.PropertyMap({SECRET: K.Literal(1)}))


#: The seven holes of N2, and others: each a tree with a foreign name where Nexus does not look.
HOLES: dict[str, Any] = {
    "FOREACH": lambda: K.Query([K.Foreach(K.Literal([]), [K.Create([pattern()])])]),
    "a subquery of CALL": lambda: K.Query([K.CallSubquery(K.Query([K.Match([pattern()], None)]))]),
    "UNION": lambda: K.Union([K.Query([]), K.Query([K.Match([pattern()], None)])]),
    "an index": lambda: K.CreateIndex(SECRET, SECRET, [SECRET]),
    "a constraint": lambda: K.CreateConstraint(SECRET, SECRET, [SECRET]),
    "a list comprehension": lambda: K.Return(
        [K.ListComprehension(K.Variable("l"), None, K.Property(K.Variable("x"), SECRET))]
    ),
    "a pattern comprehension": lambda: K.Return([K.PatternComprehension([pattern()], None, K.Variable("n"))]),
    "a projection of a map": lambda: K.Return([K.MapProjection(K.Variable("n"), [SECRET])]),
    "COLLECT": lambda: K.Return([K.CollectSubquery(K.Query([K.Match([pattern()], None)]))]),
    "EXISTS": lambda: K.Match([pattern()], K.ExistsSubquery(K.Query([K.Match([pattern()], None)]))),
}


def names_in(value: object) -> list[str]:
    """Every text in a tree that looks like a name of the catalogue."""
    if isinstance(value, str):
        return [value] if value.startswith("ns:") else []
    if isinstance(value, Tree):
        value = list(vars(value).values())
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [name for entry in value for name in names_in(entry)] if isinstance(value, list) else []


def test_n2_every_class_is_named() -> None:
    """The visitor covers all classes of the tree, and a class that the host adds is found missing by name."""
    assert len(ALL) >= 25
    Visitor.covers(ALL)
    with pytest.raises(ConfigurationError, match="Visitor does not name Later, Sooner:"):
        Visitor.covers([*ALL, type("Sooner", (Tree,), {}), type("Later", (Tree,), {})])


@pytest.mark.parametrize("hole", HOLES)
def test_n2_a_hole_of_nexus_is_closed(hole: str) -> None:
    """Where Nexus leaves a foreign name alone, it becomes the tenant's own."""
    tree = HOLES[hole]()
    assert SECRET in names_in(tree)
    found = names_in(Visitor(graph_names()).scope(tree))
    assert found
    assert {name for name in found if name != "ns:acme:" + SECRET} == set()


@pytest.mark.parametrize("hole", HOLES)
def test_n2_a_forgotten_class_is_refused(hole: str) -> None:
    """A visitor without a handler for the class at issue refuses the tree rather than leaving it alone."""
    tree = HOLES[hole]()
    at_issue = (
        type(tree) if type(tree) not in {K.Query, K.Return} else type(next(Visitor(graph_names()).children(tree)))
    )
    kept = {found: name for found, name in Visitor._handlers.items() if found is not at_issue}
    forgetful = type("Forgetful", (Visitor,), {})
    forgetful._handlers = kept
    with pytest.raises(ConfigurationError, match=at_issue.__name__):
        forgetful.covers(ALL)
    with pytest.raises(TreeRefusedError, match="a class that this visitor does not name") as caught:
        forgetful(graph_names()).scope(tree)
    assert caught.value.node_class == at_issue.__name__


class Careless(Visitor):
    """Names the class, and forgets to go into its body, as the catch-all arms of Nexus do."""

    def inner(self, node: Any) -> Any:
        """Go in, but not everywhere."""
        if type(node) in {K.Foreach, K.CallSubquery, K.CollectSubquery, K.ListComprehension}:
            return node
        return super().inner(node)


class StillMarked(Careless):
    """The same, with its handlers still entered."""

    _handlers = Visitor._handlers


@pytest.mark.parametrize("hole", ["FOREACH", "a subquery of CALL", "a list comprehension", "COLLECT"])
def test_n2_a_forgotten_child_is_refused(hole: str) -> None:
    """A handler that does not go into a child is found out when the tree is visited."""
    StillMarked._handlers = Visitor._handlers
    with pytest.raises(TreeRefusedError, match="no handler went to it"):
        StillMarked(graph_names()).scope(HOLES[hole]())


@pytest.mark.parametrize("node", [K.CallProcedure("db.labels"), K.LoadCsv("file:///etc/passwd")])
def test_a_refused_class_is_refused(node: Any) -> None:
    """A class that tenants may not use is refused, with the reason, wherever it stands."""
    with pytest.raises(TreeRefusedError, match=Visitor.REFUSED[type(node)]):
        Visitor(graph_names()).scope(K.Query([node]))


def test_a_subclass_is_a_class_of_its_own() -> None:
    """A handler for a class is none for what derives from it: that may hold more names."""
    derived = type("Derived", (K.NodePattern,), {})
    with pytest.raises(TreeRefusedError):
        Visitor(graph_names()).scope(derived(["A"], None))


def test_a_class_named_twice_is_refused() -> None:
    """A class with a handler that is a leaf, too, is a contradiction, found when the visitor is defined."""
    with pytest.raises(ConfigurationError, match="names Query twice"):
        type("Contradictory", (Visitor,), {"LEAVES": (K.Query,)})


def test_an_overridden_handler_needs_its_mark() -> None:
    """A method that replaces a handler without saying what it handles leaves its classes without one."""
    unmarked = type("Unmarked", (Visitor,), {"inner": Careless.inner})
    with pytest.raises(ConfigurationError, match="Query"):
        unmarked.covers(ALL)


def test_a_visitor_serves_again() -> None:
    """What was visited in one tree does not count for the next."""
    visitor = Visitor(graph_names())
    assert names_in(visitor.scope(pattern())) == ["ns:acme:" + SECRET] * 2
    assert names_in(visitor.scope(pattern())) == ["ns:acme:" + SECRET] * 2
