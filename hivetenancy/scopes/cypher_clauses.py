"""The clauses of Cypher: which are known, and what is bound where.

A clause that is not in `ClauseReader.CLAUSES` is refused, and so is anything left over behind one that is: there is no
arm that lets the rest through. What is bound decides which patterns are anchored, so ``WITH``, subqueries, ``UNION``
and ``FOREACH`` open and close scopes here just as they do for the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from .cypher import MAX_VARIABLES
from .cypher_expressions import ExpressionReader
from .cypher_kinds import (
    CONSTRAINT,
    ENTITY,
    INDEX,
    LABEL,
    MATCHING,
    NODE,
    NOTHING,
    OPTIONAL,
    PLAIN,
    PROPERTY_KEY,
    RELATIONSHIP_TYPE,
    UNKNOWN,
    WRITING,
    element,
    join,
    words,
)

_ENDS: Final = frozenset({";", "}", ")", "UNION"})
_UPDATES: Final = words("CREATE MERGE SET REMOVE DELETE DETACH NODETACH FOREACH")
_TAIL: Final = words("ORDER SKIP OFFSET LIMIT WHERE")
_AFTER_ITEM: Final = frozenset({",", "AS"}) | _ENDS | _TAIL
_KINDS_OF_INDEX: Final = words("RANGE TEXT POINT")

_REFUSED_CLAUSES: Final = {
    "LOAD": "load-csv",
    "USE": "use",
    "USING": "hint",
    "EXPLAIN": "plan",
    "PROFILE": "plan",
    "CYPHER": "options",
    **dict.fromkeys(
        words("SHOW TERMINATE GRANT DENY REVOKE ALTER START STOP RENAME ENABLE DRYRUN DEALLOCATE REALLOCATE"),
        "administration",
    ),
}


def _quoted(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"


class ClauseReader(ExpressionReader):
    """Reads a whole query; arguments and attributes as those of `PatternReader`.

    Attributes:
        depth: How many subqueries lie around the next token.
        schema: Whether the query changes indexes or constraints.
    """

    __slots__ = ("depth", "schema")

    CLAUSES: ClassVar[dict[str, Callable[[ClauseReader], dict[str, str] | None]]]

    def read(self) -> None:
        """Read the query from its beginning to its end.

        Raises:
            QueryRefusedError: It cannot be scoped.
        """
        self.depth = 0
        self.schema = False
        if self.symbols[0] in {"CREATE", "DROP"} and self.kinds[1] == "w" and self.symbols[2] != "=":
            self.definition()
        else:
            self.query()
        end = len(self.symbols) - 2  # what follows is our own
        if self.i < end:
            self.expect(";")  # one of the tenant's
        if self.i < end:
            self.refuse("syntax")

    def query(self, imported: dict[str, str] | None = None) -> dict[str, str]:
        """Pass over the parts of a query between ``UNION``, and return the kinds of its columns.

        Args:
            imported: What a first ``WITH`` of each part may take from the query around it.
        """
        outer = dict(self.scope)
        columns = self.part(imported)
        first = dict(self.columns)
        while self.take("UNION"):
            if not self.take("ALL"):
                self.take("DISTINCT")
            self.scope = dict(outer)
            if not self.depth:
                self.columns = {}
            more = self.part(imported)
            if self.columns != first and not self.depth:
                self.refuse("name-function")
            columns = {name: kind if more.get(name) == kind else UNKNOWN for name, kind in columns.items()}
        return columns

    def part(self, imported: dict[str, str] | None) -> dict[str, str]:
        """Pass over clauses up to the end of one part, and return the kinds of its columns."""
        returned: dict[str, str] | None = None
        if imported is not None and self.symbols[self.i] == "WITH":
            self.scope = dict(imported)
        if self.symbols[self.i] in _ENDS:
            self.refuse("syntax")
        while self.symbols[self.i] not in _ENDS:
            if returned is not None:
                self.refuse("syntax")
            returned = self.clause()
            if len(self.scope) > MAX_VARIABLES:
                self.refuse("too-many-variables")
        return returned or {}

    def clause(self) -> dict[str, str] | None:
        """Pass over the next clause, and return the columns of a ``RETURN``."""
        handler = self.CLAUSES.get(self.symbols[self.i])
        if handler is None:
            self.refuse(_REFUSED_CLAUSES.get(self.symbols[self.i], "unknown-clause"))
            return None
        return handler(self)

    def inner(self) -> list[str]:
        """Pass over the body of a subquery in an expression: a whole query, or a pattern."""
        if self.symbols[self.i] not in self.CLAUSES:
            return super().inner()
        self.depth += 1
        kinds = list(self.query(dict(self.scope)).values())  # a copy: its first part binds variables in `scope`
        self.depth -= 1
        return kinds

    # reading clauses

    def match(self) -> None:
        """``MATCH``, and ``OPTIONAL MATCH``."""
        optional = self.take("OPTIONAL")
        self.expect("MATCH")
        self.paths(OPTIONAL if optional else MATCHING)
        if self.take("WHERE"):
            self.expression()

    def unwind(self) -> None:
        """``UNWIND list AS x``."""
        self.i += 1
        kind = self.expression()
        self.expect("AS")
        self.scope[self.binding()] = element(kind)

    def with_(self) -> None:
        """``WITH``: what it does not name is bound no more."""
        self.scope = self.projection(last=False)

    def return_(self) -> dict[str, str]:
        """``RETURN``."""
        return self.projection(last=not self.depth)

    def projection(self, *, last: bool) -> dict[str, str]:
        """Pass over the items of ``WITH`` or ``RETURN`` and what belongs to them; return what they bind.

        Args:
            last: It is the ``RETURN`` whose columns the client sees.
        """
        keyword = self.symbols[self.i]
        self.i += 1
        self.take("DISTINCT")
        projected: dict[str, str] = {}
        if self.take("*"):
            projected.update(self.scope)
            more = self.take(",")
        else:
            more = True
        while more:
            self.item(projected, keyword, last=last)
            more = self.take(",")
        # What is bound no more may still be read here, but anchors no pattern: not every server would still see it.
        before = {name: ENTITY if kind == NODE else kind for name, kind in self.scope.items()}
        self.scope = {**before, **projected}
        self.tail()
        return projected

    def item(self, projected: dict[str, str], keyword: str, *, last: bool) -> None:
        """Pass over one item, and enter what it binds in *projected*."""
        start, slots = self.i, len(self.slots)
        if last and self.tokens[start + 1] == "(" and self.symbols[self.closers[start + 1] + 1] in _AFTER_ITEM:
            self.listing = start
        kind = self.expression()
        self.listing = -1
        end = self.i - 1
        if self.take("AS"):
            name = self.binding()
        elif start == end and self.kinds[start] in "wq":
            name = self.name(start)
        else:
            if keyword == "WITH":
                self.refuse("alias-needed", start)
            # Other names, or other blanks: the server would call the column by what it sees.
            changed = len(self.slots) > slots or any(
                blank not in {"", " "} for blank in self.blanks[start + 1 : end + 1]
            )
            name = self.unnamed(start, end, rewritten=last and changed)
            kind = join([kind])  # a node without a name is none that a pattern could mean
        projected[name] = PLAIN if kind == NOTHING else kind
        if self.listing_function:
            self.columns[name] = self.listing_function
            self.listing_function = ""

    def unnamed(self, first: int, end: int, *, rewritten: bool) -> str:
        """Return the name that a server gives the column of an item without a name: the item as it was written.

        Args:
            first: The token that the item begins with.
            end: The token that it ends with.
            rewritten: Whether the guard has to say so, since the server sees other words.
        """
        name = self.source(first, end)
        if rewritten:
            if "\\" in name:
                self.refuse("alias-needed", first)
            self.after[end] = " AS " + _quoted(name)
        return name

    def tail(self) -> None:
        """Pass over ``ORDER BY``, ``SKIP``, ``LIMIT`` and ``WHERE``."""
        if self.take("ORDER"):
            self.expect("BY")
            more = True
            while more:
                self.expression()
                if self.symbols[self.i] in {"ASC", "DESC", "ASCENDING", "DESCENDING"}:
                    self.i += 1
                more = self.take(",")
        while self.symbols[self.i] in {"SKIP", "OFFSET", "LIMIT"}:
            self.i += 1
            self.expression()
        if self.take("WHERE"):
            self.expression()

    def call_clause(self) -> None:
        """``CALL {...}`` and ``CALL (x, y) {...}``; procedures are refused."""
        self.i += 1
        outer = self.scope
        if self.tokens[self.i] not in {"(", "{"}:
            self.refuse("procedure", self.i - 1)
            return
        if self.take("("):
            self.scope, imported = self.imports(outer), None
        else:
            self.scope, imported = {}, outer
        self.expect("{")
        self.depth += 1
        columns = self.query(imported)
        self.depth -= 1
        self.expect("}")
        self.scope = {**outer, **columns}

    def imports(self, outer: dict[str, str]) -> dict[str, str]:
        """Pass over the variables in parentheses that a subquery takes from *outer*."""
        if self.take("*"):
            self.expect(")")
            return dict(outer)
        taken: dict[str, str] = {}
        while self.symbols[self.i] != ")":
            name = self.binding()
            if name not in outer:
                self.refuse("unknown-variable", self.i - 1)
            taken[name] = outer.get(name, PLAIN)
            if not self.take(","):
                break
        self.expect(")")
        return taken

    # writing clauses

    def create(self) -> None:
        """``CREATE``."""
        self.writes = True
        self.i += 1
        self.paths(WRITING)

    def merge(self) -> None:
        """``MERGE``, with ``ON CREATE`` and ``ON MATCH``."""
        self.writes = True
        self.i += 1
        self.path(WRITING)
        while self.take("ON"):
            if not self.take("CREATE"):
                self.expect("MATCH")
            if self.symbols[self.i] != "SET":
                self.refuse("syntax")
            self.set()

    def set(self) -> None:
        """``SET n.key = value``, ``SET n = {...}``, ``SET n += {...}``, ``SET n:Label``."""
        self.writes = True
        self.i += 1
        more = True
        while more:
            self.target()
            if self.take("."):
                self.slot(PROPERTY_KEY)
                self.expect("=")
                self.expression()
            elif self.symbols[self.i] == ":":
                self.labels(LABEL, writing=True)
            elif self.symbols[self.i] in {"=", "+="}:
                self.i += 1
                self.assigned()
            else:
                self.refuse("dynamic-property" if self.symbols[self.i] == "[" else "syntax")
            more = self.take(",")

    def target(self) -> None:
        """Pass over the variable that is changed."""
        if self.binding() not in self.scope:
            self.refuse("unknown-variable", self.i - 1)

    def assigned(self) -> None:
        """Pass over a map whose keys become properties: one that is written out, vouched for, or an entity's own."""
        i = self.i
        if self.tokens[i] == "{":
            self.properties()
        elif self.kinds[i] == "p":
            self.property_parameter()
        elif self.symbols[i] == "PROPERTIES" and self.tokens[i + 1] == "(":
            self.i = i + 2
            self.copied()
            self.expect(")")
        else:
            self.copied()

    def copied(self) -> None:
        """Pass over the variable of an entity whose properties are copied as they are."""
        known = self.kinds[self.i] in "wq" and self.scope.get(self.name(self.i)) in {NODE, ENTITY}
        if not known or self.tokens[self.i + 1] in {".", "[", "{", "+"}:
            self.refuse("property-map")
        self.i += 1

    def remove(self) -> None:
        """``REMOVE n.key`` and ``REMOVE n:Label``."""
        self.writes = True
        self.i += 1
        more = True
        while more:
            self.target()
            if self.take("."):
                self.slot(PROPERTY_KEY)
            elif self.symbols[self.i] == ":":
                self.labels(LABEL, writing=True)
            else:
                self.refuse("dynamic-property" if self.symbols[self.i] == "[" else "syntax")
            more = self.take(",")

    def delete(self) -> None:
        """``DELETE``, ``DETACH DELETE``, ``NODETACH DELETE``."""
        self.writes = True
        if not self.take("DETACH"):
            self.take("NODETACH")
        self.expect("DELETE")
        self.expression()
        while self.take(","):
            self.expression()

    def foreach(self) -> None:
        """``FOREACH (x IN list | updates)``."""
        self.writes = True
        self.i += 1
        self.expect("(")
        outer, bar = self.scope, self.bar
        self.bar = True
        self.each()
        self.bar = bar
        self.expect("|")
        self.scope = dict(self.scope)
        while self.symbols[self.i] != ")":
            if self.symbols[self.i] not in _UPDATES:
                self.refuse("syntax")
            self.clause()
        self.i += 1
        self.scope = outer

    # indexes and constraints

    def definition(self) -> None:
        """Pass over a command that makes or drops an index or a constraint."""
        self.schema = True
        dropped = self.symbols[self.i] == "DROP"
        self.i += 1
        if not dropped and self.symbols[self.i] in _KINDS_OF_INDEX:
            self.i += 1
            self.definition_of(INDEX, dropped=False)
        elif self.symbols[self.i] == "INDEX":
            self.definition_of(INDEX, dropped=dropped)
        elif self.symbols[self.i] == "CONSTRAINT":
            self.definition_of(CONSTRAINT, dropped=dropped)
        elif self.symbols[self.i] in {"LOOKUP", "FULLTEXT", "VECTOR", "BTREE"}:
            self.refuse("schema")
        else:
            self.refuse("administration")

    def definition_of(self, sort: str, *, dropped: bool) -> None:
        """Pass over the rest of the command for an index or a constraint."""
        self.expect(sort.upper())
        if self.symbols[self.i] in {"FOR", "ON", "IF"}:
            self.refuse("unnamed-schema")
        else:
            self.slot(sort)
        if self.take("IF"):
            if not dropped:
                self.expect("NOT")
            self.expect("EXISTS")
        if dropped:
            return
        self.expect("FOR")
        name = self.covered()
        self.expect("REQUIRE" if sort == CONSTRAINT else "ON")
        self.keys(name)
        if sort == CONSTRAINT:
            self.requirement()
        if self.symbols[self.i] not in _ENDS:
            self.refuse("schema")

    def covered(self) -> str:
        """Pass over ``(n:Label)`` or ``()-[r:TYPE]-()``, and return the variable."""
        self.expect("(")
        if not self.take(")"):
            name = self.covered_name(LABEL)
            self.expect(")")
            return name
        self.take("<")
        self.expect("-")
        self.expect("[")
        name = self.covered_name(RELATIONSHIP_TYPE)
        for symbol in ("]", "-"):
            self.expect(symbol)
        self.take(">")
        self.expect("(")
        self.expect(")")
        return name

    def covered_name(self, sort: str) -> str:
        """Pass over ``n:Name`` and return ``n``."""
        name = self.binding()
        self.expect(":")
        self.slot(sort)
        return name

    def keys(self, name: str) -> None:
        """Pass over the properties of *name* that an index or a constraint is about."""
        wrapped = self.take("(")
        more = True
        while more:
            if self.binding() != name:
                self.refuse("unknown-variable", self.i - 1)
            self.expect(".")
            self.slot(PROPERTY_KEY)
            more = wrapped and self.take(",")
        if wrapped:
            self.expect(")")

    def requirement(self) -> None:
        """Pass over what a constraint asks."""
        self.expect("IS")
        if self.take("NOT"):
            self.expect("NULL")
            return
        if not self.take("NODE"):
            self.take("RELATIONSHIP")
            self.take("REL")
        if not self.take("KEY"):
            self.expect("UNIQUE")


ClauseReader.CLAUSES = {
    "MATCH": ClauseReader.match,
    "OPTIONAL": ClauseReader.match,
    "UNWIND": ClauseReader.unwind,
    "WITH": ClauseReader.with_,
    "RETURN": ClauseReader.return_,
    "CALL": ClauseReader.call_clause,
    "CREATE": ClauseReader.create,
    "MERGE": ClauseReader.merge,
    "SET": ClauseReader.set,
    "REMOVE": ClauseReader.remove,
    "DELETE": ClauseReader.delete,
    "DETACH": ClauseReader.delete,
    "NODETACH": ClauseReader.delete,
    "FOREACH": ClauseReader.foreach,
}
