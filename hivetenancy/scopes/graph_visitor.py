"""Scoping by the host's own syntax tree, for a server that parses queries itself.

A rewriting that walks a tree leaks where it forgets something: a class of the tree that falls into a catch-all arm, or
a child that a handler does not go into. Nexus forgot seven classes (``FOREACH``, subqueries, ``UNION``, definitions of
indexes, comprehensions, projections of maps, ``COLLECT``), each a way to another tenant's data.

So `GraphVisitor` has no catch-all arm. Each class of the tree is named, by exactly itself and not by a base class:
with a handler, as one without names and children (`LEAVES`), or as refused (`REFUSED`). `covers` compares with all
classes that the host has, for a test and for the start of the server. When a tree is visited, a class without a
handler is refused, and so is a tree of which any part was not visited.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.namespaces.protocol import GraphNames

Handler = TypeVar("Handler", bound=Callable[..., Any])
Node = TypeVar("Node")

_MARK: Final = "_graph_visitor_handles"


def handles(*classes: type) -> Callable[[Handler], Handler]:
    """Mark a method of a `GraphVisitor` as what scopes the nodes of *classes*, and of none of their subclasses."""

    def mark(method: Handler) -> Handler:
        setattr(method, _MARK, classes)
        return method

    return mark


class TreeRefusedError(InvalidNameError):
    """A syntax tree that the visitor cannot scope. Nothing of it may be run, for it may be scoped in part.

    Attributes:
        node_class: The name of the class at fault.
    """

    def __init__(self, node: object, why: str) -> None:
        self.node_class = type(node).__name__
        super().__init__(f"{self.node_class}: {why}")


class GraphVisitor(ABC, Generic[Node]):
    """Scopes the names in a host's syntax tree.

    A handler takes a node, scopes the names in it with `names`, visits each of its children, and returns what takes the
    node's place; whether that is the node itself, changed, or a new one is the host's to decide.

    Args:
        names: What the tenant names in the graph.

    Raises:
        ConfigurationError: When the class is made: a class of the tree has two handlers, or stands in two lists.

    Concurrency:
        One visitor for one tree at a time; build one for each query.
    """

    LEAVES: ClassVar[Collection[type]] = ()
    """Classes that hold neither a name of the graph nor a child: literals, parameters, variables."""
    REFUSED: ClassVar[Mapping[type, str]] = {}
    """Classes that a tenant may not use, with the reason."""
    _handlers: ClassVar[Mapping[type, str]] = {}

    def __init__(self, names: GraphNames) -> None:
        self.names = names
        self._visited: set[int] = set()

    def __init_subclass__(cls, **options: Any) -> None:
        """Collect the handlers of the class and of what it builds on."""
        super().__init_subclass__(**options)
        found: dict[type, str] = {}
        for name in dir(cls):
            for handled in getattr(getattr(cls, name, None), _MARK, ()):
                if handled in found or handled in cls.LEAVES or handled in cls.REFUSED:
                    raise ConfigurationError(f"{cls.__name__} names {handled.__name__} twice; what is to become of it?")
                found[handled] = name
        cls._handlers = found

    @classmethod
    def covers(cls, classes: Iterable[type]) -> None:
        """Check that each of *classes*, all that the host's syntax tree is made of, is named.

        Raises:
            ConfigurationError: Some are not; the message names them.
        """
        known = {*cls._handlers, *cls.LEAVES, *cls.REFUSED}
        missing = sorted(found.__name__ for found in classes if found not in known)
        if missing:
            raise ConfigurationError(
                f"{cls.__name__} does not name {', '.join(missing)}: add a handler, or enter them in LEAVES or REFUSED"
            )

    @abstractmethod
    def children(self, node: Node) -> Iterable[Node]:
        """Give every node right below *node*, by a way that does not depend on the handlers: its fields, say."""

    def scope(self, tree: Node) -> Any:
        """Return *tree* with its names scoped.

        Raises:
            TreeRefusedError: It holds a node of a refused or an unknown class, or one that no handler went to.
            InvalidNameError: A name is empty or too long.
        """
        # Taken down before anything is changed; the list also keeps the nodes alive, so that no identity is used twice.
        whole = list(self._walk(tree))
        self._visited = set()
        scoped = self.visit(tree)
        for node in whole:
            if id(node) not in self._visited:
                raise TreeRefusedError(node, "no handler went to it")
        return scoped

    def visit(self, node: Node) -> Any:
        """Return what takes the place of *node*; for handlers, on each child.

        Raises:
            TreeRefusedError: Its class is refused or unknown.
        """
        found = type(node)
        if found in self.REFUSED:
            raise TreeRefusedError(node, self.REFUSED[found])
        self._visited.add(id(node))
        if found in self.LEAVES:
            return node
        handler = self._handlers.get(found)
        if handler is None:
            raise TreeRefusedError(node, "a class that this visitor does not name")
        return getattr(self, handler)(node)

    def visit_all(self, nodes: Iterable[Node]) -> list[Any]:
        """Return what takes the place of each of *nodes*, in order."""
        return [self.visit(node) for node in nodes]

    def _walk(self, tree: Node) -> Iterable[Node]:
        waiting = [tree]
        seen: set[int] = set()
        while waiting:
            node = waiting.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                waiting.extend(self.children(node))
