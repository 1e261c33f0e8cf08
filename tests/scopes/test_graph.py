"""The guard of a shared graph: what it accepts it rewrites exactly, and everything else is refused, by a rule."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hivetenancy.errors import InvalidNameError, MisuseError, TenancyError
from hivetenancy.namespaces.protocol import GraphNames, NameScope
from hivetenancy.scopes.cypher import MAX_DEPTH, RULES, QueryRefusedError
from hivetenancy.scopes.cypher_clauses import ClauseReader
from hivetenancy.scopes.cypher_kinds import FUNCTIONS, LABEL, NODE, PROPERTY_KEY, RELATIONSHIP_TYPE
from hivetenancy.scopes.graph import GraphScope, PreparedQuery, foreign_relationships, prepare, quoted
from tests.readme import ROOT
from tests.scopes.graph_auditor import foreign, reaches_everybody
from tests.scopes.graph_queries import BENIGN, DEFUSED, REFUSED, graph_names, physical
from tests.tiers import examples

SCOPE = GraphScope(graph_names())


def first(row: tuple[str, ...]) -> str:
    """What a row of the tables is about."""
    return row[0]


def test_a34_there_are_enough_queries() -> None:
    """At least 60 attacks and 60 benign queries stand in the tables, each of its own."""
    assert len({query for _, query, _ in REFUSED + DEFUSED}) >= 60
    assert len({query for _, query, _ in BENIGN}) >= 60
    assert sum(expected is not None for _, _, expected in BENIGN) >= 40


@pytest.mark.parametrize("row", BENIGN, ids=first)
def test_a_benign_query_is_rewritten_exactly(row: tuple[str, str, str | None]) -> None:
    """What a tenant has good use for is accepted, rewritten as expected, and names only what is the tenant's."""
    _, query, expected = row
    text = SCOPE.guard(query).text
    if expected is not None:
        assert text == physical(expected)
    assert foreign(text) == []
    assert not reaches_everybody(text)


@pytest.mark.parametrize("row", REFUSED, ids=first)
def test_a34_d33_an_attack_is_refused_by_its_rule(row: tuple[str, str, str]) -> None:
    """What cannot be scoped is refused, with the rule, a place in the query, and nothing of the query itself."""
    _, query, rule = row
    with pytest.raises(QueryRefusedError) as caught:
        SCOPE.guard(query)
    assert caught.value.rule == rule
    assert 0 <= caught.value.position <= len(query)
    assert str(caught.value) == f"{RULES[rule]} (rule {rule}, at character {caught.value.position})"


@pytest.mark.parametrize("row", DEFUSED, ids=first)
def test_a9_d33_an_attack_is_rewritten_to_nothing(row: tuple[str, str, str]) -> None:
    """What names another tenant's things names the tenant's own afterwards, for no name is taken as scoped already."""
    _, query, left = row
    text = SCOPE.guard(query).text
    assert text == physical(left)
    assert foreign(text) == []
    assert not reaches_everybody(text)


def test_a_refusal_says_where() -> None:
    """The position is that of the token at fault, behind blanks and comments."""
    with pytest.raises(QueryRefusedError) as caught:
        SCOPE.guard("MATCH (a:A) /* x */ CALL db.labels()")
    assert caught.value.position == 20


class Lenient(ClauseReader):
    """A reader without one of the rules: where it would refuse, it goes on as if it had never heard of the rule."""

    off = ""

    def refuse(self, rule: str, at: int | None = None) -> None:
        """Refuse by any other rule; by this one, pass over what is at fault as it stands."""
        if rule != self.off:
            super().refuse(rule, at)
        skip = getattr(self, "leave_" + rule.replace("-", "_"), None)
        if skip is not None:
            skip()

    def leave_unreadable(self) -> None:
        """Leave out what has no meaning."""
        kept = [(blank, token) for blank, token in zip(self.blanks, self.tokens, strict=True) if token]
        while [token for _, token in kept[-2:]] != [";", ";"]:
            kept.append(("", ";"))
        self.blanks, self.tokens = zip(*kept, strict=True)

    leave_unterminated = leave_unknown_character = leave_unreadable

    def leave_clause(self) -> None:
        """Go on behind the clause."""
        self.i += 1
        while self.symbols[self.i] not in {*self.CLAUSES, "WHERE", ";", "}", "CREATE"}:
            self.i += 1
        if self.symbols[self.i] == "WHERE":
            self.i += 1
            self.expression()

    leave_unknown_clause = leave_load_csv = leave_use = leave_plan = leave_options = leave_clause
    leave_procedure = leave_hint = leave_clause

    def leave_rest(self) -> None:
        """Take the rest as it is."""
        self.i = len(self.tokens) - 2

    leave_syntax = leave_administration = leave_schema = leave_rest

    def leave_negated_label(self) -> None:
        """Take a negation and its name as they are."""
        self.i += 2 if self.tokens[self.i] == "!" else 1

    def leave_dynamic_label(self) -> None:
        """Take a computed label as it is."""
        self.i = self.closers[self.i + 1] + 1 if self.tokens[self.i] == "$" else self.i + 1


#: For each rule a query that no other rule stops, and what of it reaches the server without the rule.
ONLY: dict[str, tuple[str, str]] = {
    "too-long": ("RETURN 1" + " " * 70_000 + "AS x", "AS x"),
    "unterminated": ("MATCH (n:A) RETURN 1 /* x", "RETURN 1"),
    "unknown-character": ("MATCH (n:A) RETURN 1\x00 + 1 AS x", "RETURN 1 + 1"),
    "escape": ("MATCH (`n\\u0060) RETURN 1 //`:A) RETURN 1 AS one", "n\\u0060) RETURN 1 //"),
    "look-alike": ("MATCH (\u212a:A) RETURN \u212a", "RETURN \u212a"),
    "too-deep": ("RETURN " + "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "(" * (MAX_DEPTH + 1)),
    "too-many-variables": ("WITH " + ", ".join(f"1 AS v{n}" for n in range(257)) + " RETURN v7", "AS v256 RETURN v7"),
    "syntax": ("MATCH (n:A) RETURN 1; MATCH (m) RETURN m", "MATCH (m)"),
    "reserved": ("MATCH (match:A) WITH 1 AS one RETURN one", "(match:"),
    "ambiguous": ("MATCH (a:A) RETURN (a)-({`ns:other:x`: 1}) AS x", "(a)-({`ns:other:x`: 1})"),
    "unknown-clause": ("MATCH (n:A) EXPORT secret RETURN 1", "EXPORT secret"),
    "procedure": ("CALL db.labels() RETURN 1", "CALL db.labels()"),
    "load-csv": ("LOAD CSV FROM 'file:///etc/passwd' AS line RETURN 1", "LOAD CSV FROM 'file:///etc/passwd'"),
    "use": ("USE other MATCH (n:A) RETURN n", "USE other"),
    "administration": ("CREATE USER mallory SET PASSWORD 'x'", "CREATE USER mallory"),
    "plan": ("PROFILE MATCH (n:A) RETURN n", "PROFILE"),
    "options": ("CYPHER 25 MATCH (n:A) RETURN n", "CYPHER 25"),
    "hint": ("MATCH (n:A) USING INDEX n:A(x) WHERE n.x = 1 RETURN n", "n:A(x)"),
    "schema": ("CREATE LOOKUP INDEX i FOR (n) ON EACH labels(n)", "FOR (n) ON EACH labels(n)"),
    "unnamed-schema": ("CREATE INDEX FOR (n:A) ON (n.x)", "INDEX FOR"),
    "unanchored": ("MATCH (n) RETURN n", "MATCH (n)"),
    "unlabelled-node": ("MATCH (a:A) CREATE (a)-[:R]->(b)", "->(b)"),
    "untyped-relationship": ("MATCH (a:A), (b:B) MERGE (a)-[r]-(b)", "(a)-[r]-(b)"),
    "negated-label": ("MATCH (n:!A) RETURN n", "(n:!A)"),
    "dynamic-label": ("MATCH (n:$($l)) RETURN n", "(n:$($l))"),
    "created-labels": ("CREATE (n:A|B)", "|"),
    "property-map": ("CREATE (n:A $props)", " $props)"),
    "dynamic-property": ("MATCH (n:A) RETURN n['ns:other:x'] AS x", "n['ns:other:x']"),
    "unknown-owner": ("MATCH (n:A) WITH {a: n} AS m RETURN m.a.`ns:other:x` AS x", "m.a.`ns:other:x`"),
    "all-properties": ("MATCH (n:A) RETURN n {.*} AS m", "{.*}"),
    "name-function": ("MATCH (n:A) UNWIND labels(n) AS l RETURN l", "UNWIND labels(n)"),
    "identity": ("MATCH (n:A) WHERE id(n) = 5 RETURN n", "id(n) = 5"),
    "function": ("RETURN apoc.cypher.runFirstColumn('MATCH (n) RETURN n', {}) AS n", "apoc.cypher.runFirstColumn("),
    "unknown-variable": ("RETURN `ns:other:x` AS x", "RETURN `ns:other:x`"),
    "alias-needed": ("MATCH (n:A) WITH n.x RETURN 1", "WITH n.`ns:acme:x` RETURN"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a34_each_rule_stops_what_no_other_does(rule: str) -> None:
    """With all rules the query is refused by this one; with all but this one, the attack reaches the server."""
    query, reaches = ONLY[rule]
    with pytest.raises(QueryRefusedError) as caught:
        SCOPE.guard(query)
    assert caught.value.rule == rule
    reader = type("Mutant", (Lenient,), {"off": rule})(query)
    reader.read()
    assert reaches in PreparedQuery(reader).scoped(SCOPE._scopes).text


def test_a34_the_second_reader_sees_what_gets_through() -> None:
    """The reader that the other tests judge by raises the alarm on what reaches beyond the tenant's names."""
    for rule in ("negated-label", "dynamic-label", "load-csv", "use", "plan", "options", "hint", "unknown-owner"):
        reader = type("Mutant", (Lenient,), {"off": rule})(ONLY[rule][0])
        reader.read()
        assert foreign(PreparedQuery(reader).scoped(SCOPE._scopes).text), rule
    assert reaches_everybody("MATCH (n) RETURN n")
    assert reaches_everybody("MATCH (a:`ns:acme:A`), (n) RETURN n")
    assert reaches_everybody("MATCH (a)-[:`ns:acme:R`*0..1]-(b) RETURN a")
    assert foreign("MATCH (n:A) RETURN n") == ["A"]
    assert foreign("MATCH (n:`ns:other:A`) RETURN n") == ["`ns:other:A`"]


# ways to break what is bound where


class AnyRepetitionAnchors(ClauseReader):
    """Takes a type for an anchor though the path may be of no relationship."""

    def relationship_body(self, mode: str) -> bool:
        """Yes, whatever follows."""
        super().relationship_body(mode)
        return True


class OptionalAnchors(ClauseReader):
    """Takes what may be null for bound."""

    def path(self, mode: str) -> None:
        """A path is a path."""
        super().path("matching" if mode == "optional" else mode)


class EverythingStays(ClauseReader):
    """Lets `WITH` take nothing away."""

    def projection(self, *, last: bool) -> dict[str, str]:
        """Keep what was there."""
        return {**self.scope, **super().projection(last=last)}


class NothingShadows(ClauseReader):
    """Forgets that a comprehension has a variable of its own."""

    def each(self) -> str:
        """Keep the outer one."""
        outer = self.scope
        kind = super().each()
        self.scope = {**self.scope, **outer}
        return kind


class PartsShare(ClauseReader):
    """Forgets that the parts of a `UNION` know nothing of each other."""

    def part(self, imported: dict[str, str] | None) -> dict[str, str]:
        """Keep what an earlier part bound."""
        self.scope = {**getattr(self, "kept", {}), **self.scope}
        columns = super().part(imported)
        self.kept = dict(self.scope)
        return columns


class SubqueriesSeeAll(ClauseReader):
    """Takes a subquery of `CALL` for a block that sees every variable around it."""

    def query(self, imported: dict[str, str] | None = None) -> dict[str, str]:
        """Begin with what is around."""
        self.scope = {**(imported or {}), **self.scope}
        return super().query(imported)


class SubqueriesShareParts(ClauseReader):
    """Lets the first part of a subquery bind in the very scope that the second may import from."""

    def inner(self) -> list[str]:
        """Hand over the scope itself, and no copy."""
        if self.symbols[self.i] not in self.CLAUSES:
            return super().inner()
        self.depth += 1
        kinds = list(self.query(self.scope).values())
        self.depth -= 1
        return kinds


BROKEN = [
    (SubqueriesShareParts, "MATCH (n:A) RETURN COUNT { MATCH (m:A) RETURN m UNION WITH * MATCH (m) RETURN m } AS c"),
    (AnyRepetitionAnchors, "MATCH (n)-[:R*0..1]->() RETURN n"),
    (OptionalAnchors, "OPTIONAL MATCH (n:Nobody) MATCH (n) RETURN n"),
    (EverythingStays, "MATCH (n:A) WITH 1 AS one MATCH (n) RETURN n"),
    (NothingShadows, "MATCH (n:A) RETURN [n IN [1] WHERE EXISTS { MATCH (n) } | 1] AS l"),
    (PartsShare, "MATCH (n:A) RETURN n UNION MATCH (n) RETURN n"),
    (SubqueriesSeeAll, "MATCH (n:A) CALL { MATCH (n) RETURN n AS m } RETURN m"),
]


@pytest.mark.parametrize(("broken", "query"), BROKEN)
def test_a34_a_reader_with_wrong_scopes_lets_an_attack_through(broken: type[ClauseReader], query: str) -> None:
    """Each rule of what is bound where is needed: without it, a query for everybody's nodes is accepted."""
    broken(query).read()
    with pytest.raises(QueryRefusedError) as caught:
        ClauseReader(query).read()
    assert caught.value.rule == "unanchored"


# ways to break the rewriting itself


class Idempotent:
    """Names as N1 has them: what begins like a physical name passes as it is."""

    def __init__(self, scope: NameScope[object]) -> None:
        self._scope = scope

    def key(self, name: str) -> object:
        """The name itself where it looks scoped."""
        return name if name.startswith("ns:") else self._scope.key(name)


def test_a9_idempotent_names_would_be_seen() -> None:
    """Under names that pass what looks scoped already, each such attack of the table reaches another's names."""
    broken = dict.fromkeys(SCOPE._scopes, Idempotent(SCOPE.names.labels))
    prepared = prepare("MATCH (n:`ns:other:A`) RETURN n.`ns:other:x` AS x")
    assert foreign(prepared.scoped(broken).text) == ["`ns:other:A`", "`ns:other:x`"]  # type: ignore[arg-type]
    assert foreign(prepared.scoped(SCOPE._scopes).text) == []


def test_a9_scoping_twice_scopes_twice() -> None:
    """A rewritten query is a query like any other: nothing in it counts as scoped."""
    once = SCOPE.guard("MATCH (n:A {x: 1}) RETURN n").text
    twice = SCOPE.guard(once).text
    assert twice == physical("MATCH (n:@ns:acme:A@ {@ns:acme:x@: 1}) RETURN n")


def test_a9_what_is_physical_is_no_query_and_no_name() -> None:
    """A physical name is refused where a query or a property key is wanted."""
    with pytest.raises(InvalidNameError):
        SCOPE.guard(SCOPE.names.labels.key("A"))  # type: ignore[arg-type]
    with pytest.raises(InvalidNameError):
        SCOPE.properties({SCOPE.names.property_keys.key("x"): 1})  # type: ignore[dict-item]


@pytest.mark.parametrize("query", ["MATCH (n:``) RETURN n", "MATCH (n:A {`" + "x" * 2000 + "`: 1}) RETURN n"])
def test_a_name_that_cannot_be_made_is_refused(query: str) -> None:
    """A name that is empty or too long is refused as it is everywhere else."""
    with pytest.raises(InvalidNameError):
        SCOPE.guard(query)


def test_the_most_variables_are_kept() -> None:
    """As many variables as may be bound at once are accepted."""
    assert SCOPE.guard("WITH " + ", ".join(f"1 AS v{n}" for n in range(256)) + " RETURN v7")


@pytest.mark.parametrize("query", [None, 7, b"RETURN 1", ["RETURN 1"]])
def test_a_query_is_text(query: object) -> None:
    """Anything but a str is refused as an error of this library."""
    with pytest.raises(TenancyError):
        SCOPE.guard(query)  # type: ignore[arg-type]


@pytest.mark.parametrize("tenant", ["", "a:b", "acme:", "a`b", "ns:other", "A", "a\n"])
def test_d34_names_of_an_unchecked_tenant_cannot_be_made(tenant: str) -> None:
    """There is no way around the check of a tenant's id: the guard takes scopes of names, and each is made by it."""
    with pytest.raises(InvalidNameError):
        GraphScope(graph_names(tenant))


# what a query says about itself


@pytest.mark.parametrize(
    "query",
    [
        "CREATE (:A)",
        "MERGE (:A)",
        "MATCH (n:A) SET n.x = 1",
        "MATCH (n:A) REMOVE n.x",
        "MATCH (n:A) DETACH DELETE n",
        "FOREACH (i IN [1] | CREATE (:A))",
        "CALL { CREATE (n:A) RETURN n } RETURN n",
        "MATCH (n:A) RETURN n UNION CREATE (n:A) RETURN n",
    ],
)
def test_d33_a_query_that_writes_says_so(query: str) -> None:
    """Whatever changes data is known to, inside subqueries and behind UNION too."""
    assert SCOPE.guard(query).writes


def test_d33_a_query_that_reads_says_so() -> None:
    """A query that only reads does not count as one that writes, and one that defines an index says just that."""
    read = SCOPE.guard("MATCH (n:A) WHERE EXISTS { MATCH (n)-->(:B) } RETURN n")
    defined = SCOPE.guard("CREATE INDEX i FOR (n:A) ON (n.x)")
    assert (read.writes, read.schema) == (False, False)
    assert (defined.writes, defined.schema) == (False, True)


def test_a_vouched_parameter_passes() -> None:
    """A parameter that the host scopes itself may set properties; the query says which of them it uses so."""
    scoped = SCOPE.guard("CREATE (n:A $p) SET n += $q SET n.x = $other", property_maps={"p", "q", "unused"})
    assert str(scoped) == physical("CREATE (n:@A@ $p) SET n += $q SET n.@x@ = $other")
    assert scoped.property_maps == {"p", "q"}
    assert SCOPE.properties({"x": 1, "ns:other:y": 2}) == {"ns:acme:x": 1, "ns:acme:ns:other:y": 2}


def test_a_vouched_function_passes() -> None:
    """A function that the host vouches for may be called, in any case, and no other."""
    scope = GraphScope(graph_names(), functions=["My.Pure"])
    assert str(scope.guard("RETURN my.PURE(1) AS x")) == "RETURN my.PURE(1) AS x"
    with pytest.raises(QueryRefusedError):
        scope.guard("RETURN my.other(1) AS x")


def test_a32_a_prepared_query_holds_no_tenant() -> None:
    """What was read once serves every tenant, each under names of its own."""
    prepared = prepare("MATCH (n:A {x: $x}) RETURN n.y, labels(n) AS l")
    for tenant in ("acme", "other", "acme"):
        scoped = GraphScope(graph_names(tenant)).guard(prepared)
        assert scoped.text == physical("MATCH (n:@A@ {@x@: $x}) RETURN n.@y@ AS `n.y`, labels(n) AS l", tenant)
    held = repr([getattr(prepared, slot) for slot in PreparedQuery.__slots__])
    assert "acme" not in held
    assert "ns:" not in held


# on the way out


def test_a_row_comes_back_with_own_names() -> None:
    """Columns that hold physical names are declared by the query, and mapped back; the others are left alone."""
    scoped = SCOPE.guard(
        "MATCH (n:A)-[r]->() RETURN labels(n), type(r) AS t, keys(n) AS k, properties(r) AS p, n.x AS x"
    )
    assert scoped.columns == {"labels(n)": "labels", "t": "type", "k": "keys", "p": "properties"}
    row = {"labels(n)": ["ns:acme:A"], "t": "ns:acme:R", "k": ["ns:acme:x"], "p": {"ns:acme:w": 1}, "x": "ns:other:A"}
    expected = {"labels(n)": ["A"], "t": "R", "k": ["x"], "p": {"w": 1}, "x": "ns:other:A"}
    assert SCOPE.row(scoped, row) == expected
    assert SCOPE.row(scoped, dict.fromkeys(row)) == dict.fromkeys(row)


@pytest.mark.parametrize(
    ("column", "value"),
    [("l", ["ns:acme:A", "ns:other:A"]), ("t", "ns:other:R"), ("k", ["x"]), ("p", {"ns:acmeother:x": 1})],
)
def test_a_foreign_name_never_comes_back(column: str, value: object) -> None:
    """The second lock: a name that is not the tenant's raises, and the message does not show it."""
    scoped = SCOPE.guard("MATCH (n:A)-[r]->() RETURN labels(n) AS l, type(r) AS t, keys(n) AS k, properties(n) AS p")
    row: dict[str, object] = {"l": [], "t": "ns:acme:R", "k": [], "p": {}, column: value}
    with pytest.raises(InvalidNameError) as caught:
        SCOPE.row(scoped, row)
    assert "other" not in str(caught.value)


def test_a_row_of_another_query_is_noticed() -> None:
    """A row that lacks a declared column raises rather than passing with physical names."""
    with pytest.raises(MisuseError):
        SCOPE.row(SCOPE.guard("MATCH (n:A) RETURN labels(n) AS l"), {"labels": ["ns:acme:A"]})


def test_a_column_keeps_the_name_it_was_written_with() -> None:
    """A column without a name is called as the tenant wrote it, comments and line breaks included."""
    scoped = SCOPE.guard("MATCH (n:A) RETURN labels( /*x*/\nn), n.x  +  1")
    assert scoped.text == physical("MATCH (n:@A@) RETURN labels( n) AS `labels( /*x*/\nn)`, n.@x@ + 1 AS `n.x  +  1`")
    assert scoped.columns == {"labels( /*x*/\nn)": "labels"}


def test_a_subquery_leaves_the_declared_columns_alone() -> None:
    """A UNION inside an expression does not make the query forget a column of physical names."""
    scoped = SCOPE.guard("MATCH (n:A) RETURN labels(n) AS l, COUNT { RETURN 1 AS x UNION RETURN 2 AS x } AS c")
    assert scoped.columns == {"l": "labels"}


# the invariant behind it all


def test_d33_a_relationship_between_tenants_is_found() -> None:
    """Each relationship that joins different owners is found, be the foreign part a node, the type, or nobody's."""
    names = [graph_names("acme"), graph_names("other")]
    relationships = [
        (1, ["ns:acme:A"], "ns:acme:R", ["ns:acme:B", "ns:acme:C"]),
        (2, ["ns:acme:A"], "ns:acme:R", ["ns:other:A"]),
        (3, ["ns:acme:A"], "ns:other:R", ["ns:acme:A"]),
        (4, ["ns:acme:A", "ns:other:A"], "ns:acme:R", []),
        (5, ["A"], "ns:acme:R", ["ns:acme:A"]),
        (6, [], "ns:other:R", ["ns:other:A"]),
        (7, ["A"], "R", []),
    ]
    assert list(foreign_relationships(relationships, names)) == [2, 3, 4, 5]


# what the documentation says


def test_the_documentation_lists_what_is_refused() -> None:
    """The reference has each rule, with the very words of the refusal, and no other."""
    page = (ROOT / "docs" / "reference" / "graph.md").read_text(encoding="utf-8")
    section = page.split("## What is refused")[1].split("##")[0]
    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", section, re.MULTILINE)) == RULES


def test_the_documentation_lists_the_functions() -> None:
    """The reference names each function that may be called."""
    page = (ROOT / "docs" / "reference" / "graph.md").read_text(encoding="utf-8")
    listed = page.split("## Functions")[1].split("##")[0].upper()
    assert {name for name in FUNCTIONS if f"`{name}`" not in listed} == set()


# anything at all

WORDS = """
MATCH OPTIONAL WHERE RETURN WITH UNWIND CREATE MERGE SET REMOVE DELETE DETACH CALL UNION FOREACH AS IN ON NOT AND
ORDER BY CASE WHEN THEN END EXISTS COUNT COLLECT n m A B x USE LOAD ( ) ( ) [ ] { } ( ) : : . , | & ! % - > <
= * .. $p $ 1 'a' `ns:other:A` `ns:acme:A` (n) (n:A) -[r:R]-> --> (m) {x:1} n.x labels(n) ; // /* */ \\u0060
"""
LIKELY = [row[1] for row in BENIGN]


@settings(max_examples=examples(150, 5000))
@given(st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=14).map(" ".join))
def test_a34_soup_never_reaches_beyond(text: str) -> None:
    """Whatever of random tokens is accepted names only what is the tenant's, and begins at the tenant's nodes."""
    judge(text)


@settings(max_examples=examples(150, 5000))
@given(st.sampled_from(LIKELY), st.data())
def test_a34_a_query_with_a_change_never_reaches_beyond(query: str, data: st.DataObject) -> None:
    """A good query in which a few tokens were dropped, doubled or replaced is refused or still the tenant's alone."""
    words = query.split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(words) - 1))
        words[at] = data.draw(st.sampled_from(["", words[at] * 2, data.draw(st.sampled_from(WORDS.split()))]))
    judge(" ".join(words))


@settings(max_examples=examples(100, 3000))
@given(st.text(max_size=60))
def test_a34_any_text_is_answered(text: str) -> None:
    """Any text at all gets a query or a refusal, and no other exception."""
    judge(text)
    judge("MATCH (n:A) " + text + " RETURN n")


def judge(text: str) -> None:
    """Guard *text* and let the second reader see what comes out."""
    try:
        scoped = SCOPE.guard(text).text
    except InvalidNameError:
        return
    assert foreign(scoped, entries=True) == [], scoped
    assert not reaches_everybody(scoped), scoped


@pytest.mark.parametrize("name", ["A\\u0060) DETACH DELETE n //", "A\\", "\\u005cu0060"])
def test_a34_quoting_refuses_what_a_server_may_resolve(name: str) -> None:
    """Neo4j resolves a backslash escape before it looks for back-ticks, so one in a name could end them."""
    with pytest.raises(InvalidNameError, match="backslash"):
        quoted(name)


@given(st.text(min_size=1, max_size=20).filter(lambda name: "\\" not in name))
def test_quoting_cannot_be_left(name: str) -> None:
    """No name ends its own back-ticks."""
    text = quoted(name)
    assert text[0] == text[-1] == "`"
    assert "`" not in text[1:-1].replace("``", "")


def test_the_kinds_are_told_apart() -> None:
    """What sorts of names there are agrees with what the tenant's names offer."""
    names: GraphNames = graph_names()
    for sort in (LABEL, RELATIONSHIP_TYPE, PROPERTY_KEY):
        assert str(SCOPE._scopes[sort].key("x")) == str(names.labels.key("x"))
    assert NODE not in SCOPE._scopes
