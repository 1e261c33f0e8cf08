"""The names inside expressions of Cypher: found where they stand, and by what they belong to.

``n.name`` is a property where ``n`` is a node, and an entry where it is a map; the first is rewritten, the second must
not be. So each variable, and each expression, has a kind: what a name behind a dot would belong to. Kinds follow what
is certain from the text alone; where nothing is, the query is refused.
"""

from __future__ import annotations

from .cypher import MAX_DEPTH
from .cypher_kinds import (
    BINARY,
    BOOLEAN,
    CONCATENATION,
    ELEMENT_OF,
    ENTITIES,
    ENTITIES_OF,
    ENTITY,
    FUNCTIONS,
    IDENTITIES,
    LABEL,
    LITERALS,
    MATCHING,
    NAME_FUNCTIONS,
    NODE,
    NOTHING,
    PLAIN,
    POSTFIXES,
    PREFIXES,
    PROPERTY_KEY,
    QUANTIFIERS,
    RESERVED,
    SAME_KIND,
    SUBQUERIES,
    UNKNOWN,
    element,
    join,
    listed,
    signed,
)
from .cypher_patterns import PatternReader


class ExpressionReader(PatternReader):
    """Reads expressions, and notes what of them to rewrite; arguments and attributes as those of `PatternReader`."""

    __slots__ = ()

    # expressions

    def expression(self) -> str:
        """Pass over an expression, and return its kind."""
        symbols = self.symbols
        prefixed = False
        while symbols[self.i] in PREFIXES:
            prefixed = True
            self.i += 1
        kind = self.operand()
        if symbols[self.i] in POSTFIXES:
            kind = self.postfixed(kind)
        if symbols[self.i] not in BINARY:
            return signed(kind) if prefixed else kind
        operators: set[str] = set()
        kinds = [signed(kind) if prefixed else kind]
        while (symbol := symbols[self.i]) in BINARY:
            operators.add(symbol)
            self.i += 1
            if symbol in {"STARTS", "ENDS"}:
                self.expect("WITH")
            while symbols[self.i] in PREFIXES:
                self.i += 1
            kind = self.operand()
            if symbols[self.i] in POSTFIXES:
                kind = self.postfixed(kind)
            kinds.append(kind)
        return self.combined(operators, kinds)

    def combined(self, operators: set[str], kinds: list[str]) -> str:
        """Return the kind of what *operators* make of *kinds*."""
        if operators & BOOLEAN or not operators & CONCATENATION:
            return PLAIN
        return listed(ENTITY if kind == ENTITIES else kind for kind in kinds)

    def operand(self) -> str:
        """Pass over an operand without what follows it, and return its kind."""
        i = self.i
        kind = self.kinds[i]
        if kind == "w":
            following = self.tokens[i + 1]
            if following == "(":
                return self.call()
            if following == "{" and self.symbols[i] in SUBQUERIES:
                return self.subquery()
            return self.variable()
        if kind == "q":
            return self.variable()
        if kind != "o":
            if self.tokens[i] == "$":
                self.refuse("syntax")
            self.i = i + 1
            return PLAIN
        token = self.tokens[i]
        if token == "(":
            return self.parenthesised()
        if token == "[":
            return self.bracketed()
        if token == "{":
            return self.map_literal()
        self.refuse("syntax")
        return UNKNOWN

    def variable(self) -> str:
        """Pass over a variable, a literal word, ``CASE`` or a projection of a map."""
        i = self.i
        symbol = self.symbols[i]
        if symbol in RESERVED:
            if symbol in LITERALS:
                self.i = i + 1
                return LITERALS[symbol]
            if symbol == "CASE":
                return self.case()
            self.refuse("reserved")
        kind = self.scope.get(self.tokens[i] if self.kinds[i] == "w" else self.name(i))
        if kind is None:
            if self.tokens[i + 1] == ".":
                return self.call()
            self.refuse("unknown-variable")
            kind = UNKNOWN
        self.i = i + 1
        return self.projected_map(kind) if self.tokens[i + 1] == "{" else kind

    def postfixed(self, kind: str) -> str:
        """Pass over what follows an operand of *kind*: properties, indexes, labels, ``IS NULL``."""
        while (symbol := self.symbols[self.i]) in POSTFIXES:
            if symbol == ".":
                self.i += 1
                kind = self.member(kind)
            elif symbol == "[":
                kind = self.indexed(kind)
            elif symbol == ":":
                self.labels(LABEL, within=True)
                kind = PLAIN
            else:
                self.i += 1
                self.take("NOT")
                self.expect("NULL")
                kind = PLAIN
        return kind

    def member(self, kind: str) -> str:
        """Pass over the name behind a dot, which belongs to what is of *kind*."""
        if kind in {NODE, ENTITY}:
            self.slot(PROPERTY_KEY)
            return PLAIN
        if kind not in {PLAIN, NOTHING}:
            self.refuse("unknown-owner")
        if self.kinds[self.i] not in "wq":
            self.refuse("syntax")
        self.i += 1
        return PLAIN

    def indexed(self, kind: str) -> str:
        """Pass over ``[index]`` or ``[from..to]`` behind what is of *kind*."""
        if kind in {NODE, ENTITY}:
            self.refuse("dynamic-property")
        elif kind == UNKNOWN:
            self.refuse("unknown-owner")
        bar, self.bar = self.bar, False
        self.i += 1
        if self.symbols[self.i] != "..":
            self.expression()
        sliced = self.take("..")
        if sliced and self.symbols[self.i] != "]":
            self.expression()
        self.expect("]")
        self.bar = bar
        return kind if sliced else element(kind)

    def parenthesised(self) -> str:
        """Pass over an expression in parentheses, or a pattern that begins with one."""
        if self.starts_pattern(self.i):
            return self.pattern_predicate()
        bar, self.bar = self.bar, False
        self.i += 1
        # `({a: 1})` and `(n {a: 1})` are a map, a projection or a node, and in two of these `a` is a property key.
        if self.symbols[self.i] == "{" or (self.tokens[self.i + 1] == "{" and self.symbols[self.i] not in SUBQUERIES):
            self.refuse("ambiguous")
        kind = self.expression()
        self.expect(")")
        self.bar = bar
        return kind

    def bracketed(self) -> str:
        """Pass over a list, or a comprehension of a list or a pattern."""
        bar, outer = self.bar, self.scope
        self.i += 1
        i = self.i
        if self.kinds[i] in "wq" and self.symbols[i + 1] == "IN":
            self.bar = True
            kind = self.comprehension()
        elif self.starts_pattern(i) or (self.symbols[i + 1] == "=" and self.starts_pattern(i + 2)):
            self.bar = True
            kind = self.pattern_comprehension()
        else:
            self.bar = False
            kind = listed(self.separated("]"))
        self.expect("]")
        self.bar, self.scope = bar, outer
        return kind

    def separated(self, end: str) -> list[str]:
        """Pass over expressions between commas up to *end*, and return their kinds."""
        kinds: list[str] = []
        while self.symbols[self.i] != end:
            kinds.append(self.expression())
            if not self.take(","):
                break
        return kinds

    def comprehension(self) -> str:
        """Pass over ``x IN list WHERE condition | result``."""
        kind = self.each()
        if self.take("WHERE"):
            self.expression()
        return listed([self.expression()]) if self.take("|") else kind

    def each(self) -> str:
        """Pass over ``x IN list``, bind ``x``, and return the kind of the list. The caller puts the scope back."""
        name = self.binding()
        self.expect("IN")
        kind = self.expression()
        self.scope = {**self.scope, name: element(kind)}
        return kind

    def pattern_comprehension(self) -> str:
        """Pass over ``(a)-->(b) WHERE condition | result``."""
        self.scope = dict(self.scope)
        self.path(MATCHING)
        if self.take("WHERE"):
            self.expression()
        self.expect("|")
        return listed([self.expression()])

    def pattern_predicate(self) -> str:
        """Pass over a pattern that stands as a condition."""
        outer, self.scope = self.scope, dict(self.scope)
        self.path(MATCHING)
        self.scope = outer
        return PLAIN

    def map_literal(self) -> str:
        """Pass over a map; its keys are no names of the graph."""
        bar, self.bar = self.bar, False
        self.i += 1
        kinds: set[str] = set()
        while self.symbols[self.i] != "}":
            if self.kinds[self.i] not in "wq":
                self.refuse("syntax")
            self.i += 1
            self.expect(":")
            kinds.add(self.expression())
            if not self.take(","):
                break
        self.expect("}")
        self.bar = bar
        return PLAIN if kinds <= {PLAIN, NOTHING} else UNKNOWN

    def projected_map(self, kind: str) -> str:
        """Pass over ``{.name, other, key: value}`` behind a variable of *kind*.

        ``.name`` of a node becomes ``name: n.`physical```, so that the result has the tenant's key.
        """
        bar, self.bar = self.bar, False
        owner = self.tokens[self.i - 1]
        self.i += 1
        kinds: set[str] = set()
        while self.symbols[self.i] != "}":
            if self.take("."):
                self.projected(kind, owner)
            elif self.symbols[self.i + 1] == ":":
                self.i += 2
                kinds.add(self.expression())
            else:
                kinds.add(self.variable())
            if not self.take(","):
                break
        self.expect("}")
        self.bar = bar
        return PLAIN if kinds <= {PLAIN, NOTHING} else UNKNOWN

    def projected(self, kind: str, owner: str) -> None:
        """Pass over what follows the dot in a projection of *owner*, which is of *kind*."""
        i = self.i
        if self.take("*"):
            if kind != PLAIN:
                self.refuse("all-properties", i)
            return
        self.member(kind)
        if i in self.slots:
            self.dropped.add(i - 1)
            self.before[i] = f"{self.tokens[i]}: {owner}."

    def case(self) -> str:
        """Pass over ``CASE ... END``."""
        bar, self.bar = self.bar, False
        self.cases += 1
        if self.cases > MAX_DEPTH:
            self.refuse("too-deep")
        self.i += 1
        kinds: set[str] = set()
        if self.symbols[self.i] != "WHEN":
            self.expression()
        while self.take("WHEN"):
            self.separated("THEN")
            self.expect("THEN")
            kinds.add(self.expression())
        if self.take("ELSE"):
            kinds.add(self.expression())
        self.expect("END")
        self.bar = bar
        self.cases -= 1
        return join(kinds)

    # functions

    def call(self) -> str:
        """Pass over a call of a function, and return the kind of its result."""
        start = self.i
        while self.tokens[self.i + 1] == "." and self.kinds[self.i] == "w":
            self.i += 2
        name = "".join(self.symbols[start : self.i + 1])
        if name in RESERVED:
            if name == "CASE":
                return self.case()
            self.refuse("reserved")
        if self.tokens[self.i + 1] != "(":
            self.refuse("unknown-variable", start)
        self.i += 2
        bar, outer = self.bar, self.scope
        if name in QUANTIFIERS or name == "REDUCE":
            self.bar = True
            kind = self.quantified() if name != "REDUCE" else self.reduced()
        else:
            self.bar = False
            kind = self.applied(name, start)
        self.expect(")")
        self.bar, self.scope = bar, outer
        return kind

    def applied(self, name: str, start: int) -> str:
        """Pass over the arguments of the function *name*, whose name begins at the token *start*."""
        self.take("DISTINCT")
        kinds = [] if name == "COUNT" and self.take("*") else self.separated(")")
        if name in FUNCTIONS:
            return listed(kinds) if name == "COLLECT" else PLAIN
        if name in SAME_KIND:
            return join(kinds)
        if name in ELEMENT_OF:
            return element(join(kinds))
        if name in ENTITIES_OF:
            return ENTITIES
        if name in NAME_FUNCTIONS:
            return self.named(name, join(kinds), start)
        if name in IDENTITIES:
            self.refuse("identity", start)
        elif name not in self.functions:
            self.refuse("function", start)
        return PLAIN

    def named(self, name: str, kind: str, start: int) -> str:
        """Judge a call of the function *name*, which shows the names of what is of *kind*."""
        if kind in {PLAIN, NOTHING}:
            return PLAIN
        if kind != ENTITY and kind != NODE:
            self.refuse("unknown-owner", start)
        if self.listing != start:
            self.refuse("name-function", start)
        self.listing_function = name
        return PLAIN

    def quantified(self) -> str:
        """Pass over ``x IN list WHERE condition``."""
        self.each()
        if self.take("WHERE"):
            self.expression()
        return PLAIN

    def reduced(self) -> str:
        """Pass over ``sum = start, x IN list | next``."""
        name = self.binding()
        self.expect("=")
        first = self.expression()
        self.expect(",")
        kind = self.each()
        both = join([first, kind])
        self.scope = {**self.scope, name: PLAIN if both in {PLAIN, NOTHING} else UNKNOWN}
        self.expect("|")
        start = self.i
        more = self.expression()
        if self.scope[name] == PLAIN and more not in {PLAIN, NOTHING}:
            self.refuse("unknown-owner", start)  # it was read as a value, and is none from the second round on
        return join([first, more])

    def subquery(self) -> str:
        """Pass over ``EXISTS {...}``, ``COUNT {...}`` or ``COLLECT {...}``."""
        name = self.symbols[self.i]
        bar, outer = self.bar, self.scope
        self.bar, self.scope = False, dict(outer)
        self.i += 2
        kinds = self.inner()
        self.expect("}")
        self.bar, self.scope = bar, outer
        return listed(kinds) if name == "COLLECT" else PLAIN

    def inner(self) -> list[str]:
        """Pass over the body of a subquery that stands in an expression, and return the kinds of its columns."""
        self.paths(MATCHING)
        if self.take("WHERE"):
            self.expression()
        return []
