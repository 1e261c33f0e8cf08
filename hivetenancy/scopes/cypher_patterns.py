"""Patterns of Cypher: the names in them, what they bind, and whose they are.

Who owns what follows from one invariant: no relationship joins nodes of two tenants. A path is the tenant's as a whole
as soon as one part of it is: a label, a relationship type, or a variable that an earlier, not optional, pattern bound.
A relationship that may be repeated is no such part, since a path of no relationship at all has any node at both ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from .cypher import Reader
from .cypher_kinds import (
    CONNECTORS,
    ENTITIES,
    ENTITY,
    LABEL,
    NODE,
    OPTIONAL,
    PROPERTY_KEY,
    RELATIONSHIP_TYPE,
    RESERVED,
    UNKNOWN,
    WRITING,
)


class PatternReader(Reader, ABC):
    """Reads patterns, and notes what of them to rewrite.

    Args:
        text: The query.
        property_maps: Parameters whose keys the host scopes.
        functions: More functions to allow, in upper case.

    Attributes:
        slots: Names to scope, by the token they stand at, with their sort.
        before: Text to put before a token.
        after: Text to put after a token.
        dropped: Tokens to leave out.
        scope: The kind of each variable that is bound here.
        used_maps: Those of *property_maps* that set properties.
        columns: Columns of the result that hold physical names, with the function that made them.
        writes: Whether anything in the query, at any depth, changes data.
    """

    __slots__ = (
        "after",
        "bar",
        "before",
        "cases",
        "columns",
        "dropped",
        "functions",
        "listing",
        "listing_function",
        "property_maps",
        "scope",
        "slots",
        "used_maps",
        "writes",
    )

    def __init__(self, text: str, property_maps: Collection[str] = (), functions: Collection[str] = ()) -> None:
        super().__init__(text)
        self.property_maps = property_maps
        self.functions = functions
        self.slots: dict[int, tuple[str, str]] = {}
        self.before: dict[int, str] = {}
        self.after: dict[int, str] = {}
        self.dropped: set[int] = set()
        self.scope: dict[str, str] = {}
        self.used_maps: set[str] = set()
        self.columns: dict[str, str] = {}
        self.writes = False
        self.bar = False  # inside a comprehension, where `|` may belong to it or to a label expression
        self.cases = 0  # how deep CASE is nested
        self.listing = -1  # the token at which a whole item of the last RETURN begins
        self.listing_function = ""  # the function with physical names that this item turned out to be

    # names

    def slot(self, sort: str) -> None:
        """Note the next token as a name of *sort*, and pass over it."""
        i = self.i
        if self.kinds[i] not in "wq":
            self.refuse("syntax")
        self.slots[i] = (sort, self.name(i))
        self.i = i + 1

    def binding(self) -> str:
        """Return the variable that the next token introduces, and pass over it."""
        i = self.i
        if self.kinds[i] not in "wq":
            self.refuse("syntax")
        if self.symbols[i] in RESERVED:
            self.refuse("reserved")
        self.i = i + 1
        return self.name(i)

    @abstractmethod
    def expression(self) -> str:
        """Pass over an expression, and return its kind."""

    # patterns

    def starts_pattern(self, i: int) -> bool:
        """Whether the token *i* opens a node that a relationship follows."""
        if self.tokens[i] != "(":
            return False
        end = self.closers[i] + 1
        following = self.tokens[end : end + 3]
        return any(following[: len(connector)] == connector for connector in CONNECTORS)

    def paths(self, mode: str) -> None:
        """Pass over paths between commas."""
        self.path(mode)
        while self.take(","):
            self.path(mode)

    def path(self, mode: str) -> None:
        """Pass over a path, see whose it is, and bind its variables."""
        start = self.i
        if self.kinds[start] in "wq" and self.symbols[start + 1] == "=":
            name = self.binding()
            self.i += 1
            self.scope[name] = UNKNOWN
        wrapped = self.symbols[self.i] in {"SHORTESTPATH", "ALLSHORTESTPATHS"}
        if wrapped:
            self.i += 1
            self.expect("(")
        fresh: list[str] = []
        anchored = self.node(mode, fresh)
        while self.symbols[self.i] in {"-", "<"}:
            anchored |= self.relationship(mode)
            anchored |= self.node(mode, fresh)
        if wrapped:
            self.expect(")")
        if not anchored:
            self.refuse("unanchored", start)
        if mode != OPTIONAL:
            self.scope.update(dict.fromkeys(fresh, NODE))

    def node(self, mode: str, fresh: list[str]) -> bool:
        """Pass over a node, add its variable to *fresh* if it anchors nothing yet, and say whether it is an anchor."""
        start = self.i
        self.expect("(")
        kind: str | None = None
        if self.kinds[self.i] in "wq" and self.symbols[self.i] != "WHERE":
            name = self.binding()
            kind = self.scope.get(name)
            if kind != NODE:
                fresh.append(name)
            self.scope.setdefault(name, ENTITY)
        labelled = self.symbols[self.i] == ":"
        if labelled:
            self.labels(LABEL, writing=mode == WRITING)
        self.details()
        self.expect(")")
        if mode == WRITING and not labelled and kind not in {NODE, ENTITY, UNKNOWN}:
            self.refuse("unlabelled-node", start)
        return labelled or kind == NODE

    def details(self) -> None:
        """Pass over the properties and the condition inside a node or relationship."""
        if self.tokens[self.i] == "{":
            self.properties()
        elif self.kinds[self.i] == "p":
            self.property_parameter()
        if self.take("WHERE"):
            self.expression()

    def relationship(self, mode: str) -> bool:
        """Pass over a relationship, and say whether it is the tenant's by itself."""
        start = self.i
        self.take("<")
        self.expect("-")
        anchor = False
        if self.take("["):
            anchor = self.relationship_body(mode)
            self.expect("]")
        self.expect("-")
        self.take(">")
        if mode == WRITING and not anchor:
            self.refuse("untyped-relationship", start)
        return anchor

    def relationship_body(self, mode: str) -> bool:
        """Pass over what stands in the brackets of a relationship."""
        name = ""
        if self.kinds[self.i] in "wq" and self.symbols[self.i] != "WHERE":
            name = self.binding()
        typed = self.symbols[self.i] == ":"
        if typed:
            self.labels(RELATIONSHIP_TYPE, writing=mode == WRITING)
        many = self.take("*")
        if many:
            self.repetition()
        if name:
            self.scope.setdefault(name, ENTITIES if many else ENTITY)
        self.details()
        # A path of no relationship at all has any node at both ends, so a repeated type is no anchor.
        return typed and not many

    def repetition(self) -> None:
        """Pass over the numbers behind ``*``."""
        if self.kinds[self.i] == "n":
            self.i += 1
        if self.take("..") and self.kinds[self.i] == "n":
            self.i += 1

    def labels(self, sort: str, *, within: bool = False, writing: bool = False) -> None:
        """Pass over ``:A``, ``:A:B``, ``:A|B``, ``:A&(B|C)``.

        Args:
            sort: Label or relationship type.
            within: It stands in an expression, where a bar may belong to a comprehension.
            writing: It stands where something is created or changed.
        """
        self.i += 1
        while True:
            self.label_atom(sort, writing=writing)
            symbol = self.symbols[self.i]
            if symbol == "|":
                if within and self.bar:
                    self.refuse("ambiguous")
                if writing:
                    self.refuse("created-labels")
                self.i += 1
                self.take(":")
            elif symbol in {"&", ":"}:
                self.i += 1
            else:
                return

    def label_atom(self, sort: str, *, writing: bool) -> None:
        """Pass over one name of a label expression, or an expression in parentheses."""
        kind, token = self.kinds[self.i], self.tokens[self.i]
        if kind in "wq":
            self.slot(sort)
        elif kind == "p":
            self.refuse("dynamic-label")
        elif token in {"!", "%"}:
            self.refuse("negated-label")
        elif token == "(":
            if writing:
                self.refuse("created-labels")
            self.labels(sort, writing=writing)  # passes over the parenthesis as over the colon
            self.expect(")")
        else:
            self.refuse("syntax")

    def properties(self) -> None:
        """Pass over a map of properties: its keys are property keys."""
        self.expect("{")
        bar, self.bar = self.bar, False
        while self.symbols[self.i] != "}":
            self.slot(PROPERTY_KEY)
            self.expect(":")
            self.expression()
            if not self.take(","):
                break
        self.expect("}")
        self.bar = bar

    def property_parameter(self) -> None:
        """Pass over a parameter whose keys become property keys."""
        token = self.tokens[self.i][1:]
        name = token[1:-1].replace("``", "`") if token[:1] == "`" else token
        if name not in self.property_maps or not name:
            self.refuse("property-map")
        self.used_maps.add(name)
        self.i += 1
