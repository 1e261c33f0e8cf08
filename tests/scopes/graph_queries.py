"""Queries for the guard of graphs: what it accepts and makes of it, and what it must never let through.

In what is expected, ``@Person@`` stands for the physical name of ``Person``, in back-ticks.
"""

from __future__ import annotations

import re
from typing import Final

from hivetenancy.context import TenantContext
from hivetenancy.ids import TenantId
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.namespaces.protocol import GraphNames

NAMESPACES: Final = PrefixNamespaces(scheme="slug")


def graph_names(tenant: str = "acme") -> GraphNames:
    """What *tenant* names in the graph."""
    context = TenantContext(tenant_id=TenantId(tenant), key_id=None, generation=1)
    return NAMESPACES.for_tenant(context).graph


def physical(text: str, tenant: str = "acme") -> str:
    """*text* with ``@Name@`` spelt out."""
    return re.sub(r"@([^@]+)@", rf"`ns:{tenant}:\1`", text)


#: What it is, the query, and the rewriting; ``None``: it is accepted, and just its names are looked at.
BENIGN: Final[list[tuple[str, str, str | None]]] = [
    ("a label", "MATCH (n:Person) RETURN n", "MATCH (n:@Person@) RETURN n"),
    (
        "a property without a column name keeps its column",
        "MATCH (n:Person) RETURN n.name",
        "MATCH (n:@Person@) RETURN n.@name@ AS `n.name`",
    ),
    (
        "a property with one",
        "MATCH (n:Person) RETURN n.name AS name",
        "MATCH (n:@Person@) RETURN n.@name@ AS name",
    ),
    ("keywords in any case", "match (n:Person) return n", "match (n:@Person@) return n"),
    ("blanks of all kinds", "MATCH\u2003(n:A)\u00a0RETURN\tn", "MATCH (n:@A@) RETURN n"),
    ("comments become blanks", "MATCH/* (m) */(n:A)//x\nRETURN n", "MATCH (n:@A@) RETURN n"),
    ("one semicolon", "MATCH (n:A) RETURN n;", "MATCH (n:@A@) RETURN n;"),
    ("names in back-ticks", "MATCH (n:`A b`) RETURN n.`c``d` AS c", "MATCH (n:@A b@) RETURN n.`ns:acme:c``d` AS c"),
    ("names like keywords", "MATCH (n:Order) RETURN n.limit AS l", "MATCH (n:@Order@) RETURN n.@limit@ AS l"),
    ("names beyond ASCII", "MATCH (n:Größe {prénom: 1}) RETURN n", None),
    ("properties in a node", "MATCH (n:A {x: 1, y: $y}) RETURN n", "MATCH (n:@A@ {@x@: 1, @y@: $y}) RETURN n"),
    ("no properties", "MATCH (n:A {}) RETURN n", "MATCH (n:@A@ {}) RETURN n"),
    (
        "a condition in a node",
        "MATCH (n:A WHERE n.x > 1) RETURN n",
        "MATCH (n:@A@ WHERE n.@x@ > 1) RETURN n",
    ),
    ("several labels", "MATCH (n:A:B) RETURN n", "MATCH (n:@A@:@B@) RETURN n"),
    ("labels by expression", "MATCH (n:A&(B|C)) RETURN n", "MATCH (n:@A@&(@B@|@C@)) RETURN n"),
    ("a type", "MATCH (a:A)-[r:KNOWS]->(b) RETURN r", "MATCH (a:@A@)-[r:@KNOWS@]->(b) RETURN r"),
    ("a type anchors", "MATCH (a)-[:KNOWS]->(b) RETURN a", "MATCH (a)-[:@KNOWS@]->(b) RETURN a"),
    (
        "types, old and new",
        "MATCH (:A)-[:R|S]-()-[:T|:U]-() RETURN 1",
        "MATCH (:@A@)-[:@R@|@S@]-()-[:@T@|:@U@]-() RETURN 1",
    ),
    ("arrows", "MATCH (a:A)-->(b)<--(c)--(d) RETURN d", "MATCH (a:@A@)-->(b)<--(c)--(d) RETURN d"),
    (
        "many steps",
        "MATCH (a:A)-[r:KNOWS*1..3 {x: 1}]->(b) RETURN b",
        "MATCH (a:@A@)-[r:@KNOWS@*1..3 {@x@: 1}]->(b) RETURN b",
    ),
    ("any steps", "MATCH (a:A)-[*]-(b), (c:C)-[*..2]-(), (d:D)-[*2..]-() RETURN b", None),
    ("two paths", "MATCH (a:A), (b:B) RETURN a, b", "MATCH (a:@A@), (b:@B@) RETURN a, b"),
    (
        "what is bound anchors",
        "MATCH (a:A) MATCH (a)-->(b) MATCH (b)-->(c) RETURN c",
        "MATCH (a:@A@) MATCH (a)-->(b) MATCH (b)-->(c) RETURN c",
    ),
    (
        "a named path",
        "MATCH p = (a:A)-[*]->(b:B) RETURN length(p) AS l, nodes(p) AS ns",
        "MATCH p = (a:@A@)-[*]->(b:@B@) RETURN length(p) AS l, nodes(p) AS ns",
    ),
    (
        "the shortest path",
        "MATCH (a:A), (b:B), p = shortestPath((a)-[:R*..5]-(b)) RETURN [n IN nodes(p) | n.x] AS xs",
        "MATCH (a:@A@), (b:@B@), p = shortestPath((a)-[:@R@*..5]-(b)) RETURN [n IN nodes(p) | n.@x@] AS xs",
    ),
    (
        "OPTIONAL MATCH",
        "MATCH (a:A) OPTIONAL MATCH (a)-[:R]->(b) RETURN a.x AS x, b.y AS y",
        "MATCH (a:@A@) OPTIONAL MATCH (a)-[:@R@]->(b) RETURN a.@x@ AS x, b.@y@ AS y",
    ),
    (
        "conditions",
        "MATCH (n:A) WHERE n.x = 1 AND NOT n.y <> 'b' OR n.z IS NOT NULL RETURN n",
        "MATCH (n:@A@) WHERE n.@x@ = 1 AND NOT n.@y@ <> 'b' OR n.@z@ IS NOT NULL RETURN n",
    ),
    (
        "texts",
        "MATCH (n:A) WHERE n.x STARTS WITH 'a' AND n.y ENDS WITH \"b\" AND n.z CONTAINS n.w AND n.v =~ '.*' RETURN n",
        "MATCH (n:@A@) WHERE n.@x@ STARTS WITH 'a' AND n.@y@ ENDS WITH \"b\" AND n.@z@ CONTAINS n.@w@"
        " AND n.@v@ =~ '.*' RETURN n",
    ),
    ("arithmetic", "MATCH (n:A) RETURN -n.x + 2 * (n.y - 1) / 3 % 4 ^ 5 AS z", None),
    ("subtraction of parentheses", "MATCH (n:A) RETURN (n.x + 1) - (n.y) AS z", None),
    ("less than a negative number", "MATCH (n:A) WHERE (n.x) < -1 RETURN n", None),
    ("IN", "MATCH (n:A) WHERE n.x IN [1, 2] AND n.y IN $ys RETURN n", None),
    (
        "a label as a condition",
        "MATCH (n:A) WHERE n:B AND NOT (n:C|D) RETURN n",
        "MATCH (n:@A@) WHERE n:@B@ AND NOT (n:@C@|@D@) RETURN n",
    ),
    (
        "a pattern as a condition",
        "MATCH (n:A) WHERE (n)-[:R]->() AND NOT (n)<--(:B {x: 1}) RETURN n",
        "MATCH (n:@A@) WHERE (n)-[:@R@]->() AND NOT (n)<--(:@B@ {@x@: 1}) RETURN n",
    ),
    (
        "EXISTS with a pattern",
        "MATCH (n:A) WHERE EXISTS { (n)-->(m:B) WHERE m.x = n.x } RETURN n",
        "MATCH (n:@A@) WHERE EXISTS { (n)-->(m:@B@) WHERE m.@x@ = n.@x@ } RETURN n",
    ),
    (
        "EXISTS, COUNT and COLLECT with queries",
        "MATCH (n:A) WHERE EXISTS { MATCH (n)-->(b:B) } RETURN COUNT { MATCH (n)-->(c:C) RETURN c } AS c,"
        " COLLECT { MATCH (n)-->(d:D) RETURN d.x } AS d",
        "MATCH (n:@A@) WHERE EXISTS { MATCH (n)-->(b:@B@) } RETURN COUNT { MATCH (n)-->(c:@C@) RETURN c } AS c,"
        " COLLECT { MATCH (n)-->(d:@D@) RETURN d.@x@ } AS d",
    ),
    ("exists, the function", "MATCH (n:A) WHERE exists(n.x) AND exists((n)-->()) RETURN n", None),
    (
        "size of a pattern comprehension",
        "MATCH (n:A) RETURN size([(n)-->(m) | m.x]) AS s",
        "MATCH (n:@A@) RETURN size([(n)-->(m) | m.@x@]) AS s",
    ),
    (
        "a pattern comprehension",
        "MATCH (n:A) RETURN [p = (n)-[:R]->(m:B) WHERE m.x > 1 | m.y] AS ys",
        "MATCH (n:@A@) RETURN [p = (n)-[:@R@]->(m:@B@) WHERE m.@x@ > 1 | m.@y@] AS ys",
    ),
    (
        "a list comprehension over nodes",
        "MATCH (n:A) WITH collect(n) AS ns RETURN [x IN ns WHERE x.a = 1 | x.b] AS bs",
        "MATCH (n:@A@) WITH collect(n) AS ns RETURN [x IN ns WHERE x.@a@ = 1 | x.@b@] AS bs",
    ),
    (
        "a list comprehension over maps",
        "RETURN [x IN $rows WHERE x.a = 1 | x.b] AS bs",
        "RETURN [x IN $rows WHERE x.a = 1 | x.b] AS bs",
    ),
    (
        "any and all",
        "MATCH p = (:A)-[*]-(:B) WHERE all(x IN nodes(p) WHERE x.a > 1) RETURN p",
        "MATCH p = (:@A@)-[*]-(:@B@) WHERE all(x IN nodes(p) WHERE x.@a@ > 1) RETURN p",
    ),
    (
        "reduce",
        "MATCH p = (:A)-[*]-(:B) RETURN reduce(s = 0, x IN relationships(p) | s + x.w) AS w",
        "MATCH p = (:@A@)-[*]-(:@B@) RETURN reduce(s = 0, x IN relationships(p) | s + x.@w@) AS w",
    ),
    (
        "an element of a list of nodes",
        "MATCH p = (:A)-->(:B) RETURN nodes(p)[0].x AS x, head(nodes(p)).y AS y",
        "MATCH p = (:@A@)-->(:@B@) RETURN nodes(p)[0].@x@ AS x, head(nodes(p)).@y@ AS y",
    ),
    ("a part of a list", "MATCH p = (:A)-->(:B) RETURN nodes(p)[1..2] AS ns, [1, 2, 3][..2] AS l", None),
    (
        "a plain map keeps its keys",
        "MATCH (n:A) RETURN {name: n.name, b: {c: 1}} AS m",
        "MATCH (n:@A@) RETURN {name: n.@name@, b: {c: 1}} AS m",
    ),
    (
        "an entry of a map",
        "WITH {a: {b: 1}} AS m RETURN m.a.b AS b, m['a'] AS c",
        "WITH {a: {b: 1}} AS m RETURN m.a.b AS b, m['a'] AS c",
    ),
    ("a part of a value", "MATCH (n:A) RETURN n.born.year AS y", "MATCH (n:@A@) RETURN n.@born@.year AS y"),
    (
        "a projection of a map",
        "MATCH (n:A) RETURN n {.name, .`x y`, z: n.z} AS m",
        "MATCH (n:@A@) RETURN n {name: n.@name@, `x y`: n.@x y@, z: n.@z@} AS m",
    ),
    (
        "a projection inside a function",
        "MATCH (n:A) RETURN collect(n {.a}) AS l",
        "MATCH (n:@A@) RETURN collect(n {a: n.@a@}) AS l",
    ),
    ("CASE", "MATCH (n:A) RETURN CASE WHEN n.x > 1 THEN 'a' ELSE n.y END AS c, CASE n.z WHEN 1 THEN 2 END AS d", None),
    (
        "CASE of a parenthesis",
        "MATCH (n:A) RETURN CASE (n.x) WHEN 1, 2 THEN n END AS c",
        "MATCH (n:@A@) RETURN CASE (n.@x@) WHEN 1, 2 THEN n END AS c",
    ),
    (
        "a projection that takes a variable over",
        "MATCH (n:A) WITH n, 1 AS one RETURN n {.x, one} AS m",
        "MATCH (n:@A@) WITH n, 1 AS one RETURN n {x: n.@x@, one} AS m",
    ),
    (
        "WITH, ORDER BY, LIMIT",
        "MATCH (n:A) WITH n.x AS x, count(*) AS c ORDER BY n.x DESC SKIP 1 LIMIT $l WHERE c > 1 RETURN DISTINCT x",
        "MATCH (n:@A@) WITH n.@x@ AS x, count(*) AS c ORDER BY n.@x@ DESC SKIP 1 LIMIT $l WHERE c > 1"
        " RETURN DISTINCT x",
    ),
    (
        "WITH passes a node on",
        "MATCH (n:A) WITH n AS m MATCH (m)--(o) RETURN o.x AS x",
        "MATCH (n:@A@) WITH n AS m MATCH (m)--(o) RETURN o.@x@ AS x",
    ),
    (
        "WITH *",
        "MATCH (n:A) WITH *, 1 AS one MATCH (n)--(m) RETURN *",
        "MATCH (n:@A@) WITH *, 1 AS one MATCH (n)--(m) RETURN *",
    ),
    ("UNWIND of a list", "UNWIND [1, 2] AS x CREATE (:A {v: x})", "UNWIND [1, 2] AS x CREATE (:@A@ {@v@: x})"),
    (
        "UNWIND of rows",
        "UNWIND $rows AS row MERGE (n:A {id: row.id}) SET n.name = row.name",
        "UNWIND $rows AS row MERGE (n:@A@ {@id@: row.id}) SET n.@name@ = row.name",
    ),
    (
        "CREATE",
        "CREATE (a:A {x: 1})-[r:R {y: 2}]->(b:B) RETURN a",
        "CREATE (a:@A@ {@x@: 1})-[r:@R@ {@y@: 2}]->(b:@B@) RETURN a",
    ),
    (
        "CREATE between bound nodes",
        "MATCH (a:A), (b:B) CREATE (a)-[:R]->(b)",
        "MATCH (a:@A@), (b:@B@) CREATE (a)-[:@R@]->(b)",
    ),
    (
        "MERGE",
        "MERGE (a:A {k: 1}) ON CREATE SET a.x = 1, a.y = 2 ON MATCH SET a.z = a.z + 1",
        "MERGE (a:@A@ {@k@: 1}) ON CREATE SET a.@x@ = 1, a.@y@ = 2 ON MATCH SET a.@z@ = a.@z@ + 1",
    ),
    ("SET of labels", "MATCH (a:A) SET a:B:C, a.x = null", "MATCH (a:@A@) SET a:@B@:@C@, a.@x@ = null"),
    (
        "SET of a map",
        "MATCH (a:A) SET a = {x: {y: 1}.y}, a += {z: 2}",
        "MATCH (a:@A@) SET a = {@x@: {y: 1}.y}, a += {@z@: 2}",
    ),
    (
        "SET from another node",
        "MATCH (a:A), (b:B) SET a = b, b += properties(a)",
        "MATCH (a:@A@), (b:@B@) SET a = b, b += properties(a)",
    ),
    ("REMOVE", "MATCH (a:A) REMOVE a.x, a:B", "MATCH (a:@A@) REMOVE a.@x@, a:@B@"),
    ("DELETE", "MATCH (a:A)-[r]->() DELETE r, a", "MATCH (a:@A@)-[r]->() DELETE r, a"),
    ("DETACH DELETE", "MATCH (a:A) DETACH DELETE a", "MATCH (a:@A@) DETACH DELETE a"),
    (
        "FOREACH",
        "MATCH p = (:A)-->(:B) FOREACH (n IN nodes(p) | SET n.seen = true CREATE (n)-[:LOG]->(:L {t: 1}))",
        "MATCH p = (:@A@)-->(:@B@) FOREACH (n IN nodes(p) | SET n.@seen@ = true CREATE (n)-[:@LOG@]->(:@L@ {@t@: 1}))",
    ),
    (
        "UNION",
        "MATCH (a:A) RETURN a.x AS x UNION ALL MATCH (b:B) RETURN b.y AS x",
        "MATCH (a:@A@) RETURN a.@x@ AS x UNION ALL MATCH (b:@B@) RETURN b.@y@ AS x",
    ),
    (
        "CALL with a subquery",
        "MATCH (a:A) CALL { WITH a MATCH (a)-->(b:B) RETURN b UNION WITH a MATCH (a)<--(b:C) RETURN b }"
        " RETURN b.x AS x",
        "MATCH (a:@A@) CALL { WITH a MATCH (a)-->(b:@B@) RETURN b UNION WITH a MATCH (a)<--(b:@C@) RETURN b }"
        " RETURN b.@x@ AS x",
    ),
    (
        "CALL with variables",
        "MATCH (a:A) CALL (a) { MATCH (a)-->(b) RETURN count(b) AS c } CALL (*) { CREATE (:Log {c: c}) } RETURN c",
        "MATCH (a:@A@) CALL (a) { MATCH (a)-->(b) RETURN count(b) AS c } CALL (*)"
        " { CREATE (:@Log@ {@c@: c}) } RETURN c",
    ),
    (
        "functions with physical names in the last RETURN",
        "MATCH (n:A)-[r]->(m) RETURN labels(n), type(r) AS t, keys(m) AS k, properties(n) AS p, count(*) AS c"
        " ORDER BY c",
        "MATCH (n:@A@)-[r]->(m) RETURN labels(n), type(r) AS t, keys(m) AS k, properties(n) AS p, count(*) AS c"
        " ORDER BY c",
    ),
    (
        "keys of a plain map",
        "WITH {a: 1} AS m UNWIND keys(m) AS k RETURN k",
        "WITH {a: 1} AS m UNWIND keys(m) AS k RETURN k",
    ),
    ("functions", "MATCH (n:A) RETURN toUpper(n.x) AS u, point.distance(n.p, $q) AS d, coalesce(n.y, 0) AS y", None),
    ("aggregates", "MATCH (n:A) RETURN count(DISTINCT n) AS c, avg(n.x) AS a, collect(n.y)[0..3] AS l", None),
    ("a text with an accent by escape", r"MATCH (n:A {x: 'caf\u00e9 \'s'}) RETURN n", None),
    ("numbers", "RETURN 1 + 1.5 - 2e10 + 0xFF + 1_000 AS n", "RETURN 1 + 1.5 - 2e10 + 0xFF + 1_000 AS n"),
    (
        "an index",
        "CREATE INDEX i IF NOT EXISTS FOR (n:A) ON (n.x, n.y)",
        "CREATE INDEX @i@ IF NOT EXISTS FOR (n:@A@) ON (n.@x@, n.@y@)",
    ),
    (
        "an index of relationships",
        "CREATE TEXT INDEX i FOR ()-[r:R]-() ON (r.x)",
        "CREATE TEXT INDEX @i@ FOR ()-[r:@R@]-() ON (r.@x@)",
    ),
    ("DROP INDEX", "DROP INDEX i IF EXISTS", "DROP INDEX @i@ IF EXISTS"),
    (
        "a constraint",
        "CREATE CONSTRAINT c FOR (n:A) REQUIRE n.x IS UNIQUE",
        "CREATE CONSTRAINT @c@ FOR (n:@A@) REQUIRE n.@x@ IS UNIQUE",
    ),
    (
        "a key",
        "CREATE CONSTRAINT c FOR (n:A) REQUIRE (n.x, n.y) IS NODE KEY",
        "CREATE CONSTRAINT @c@ FOR (n:@A@) REQUIRE (n.@x@, n.@y@) IS NODE KEY",
    ),
    ("a value that must be there", "CREATE CONSTRAINT c FOR ()-[r:R]-() REQUIRE r.x IS NOT NULL", None),
    ("DROP CONSTRAINT", "DROP CONSTRAINT c", "DROP CONSTRAINT @c@"),
]

#: What it tries, the query, and the rule that refuses it.
REFUSED: Final[list[tuple[str, str, str]]] = [
    ("every node", "MATCH (n) RETURN n", "unanchored"),
    ("every node, without a variable", "MATCH () RETURN count(*)", "unanchored"),
    ("every node by property", "MATCH (n {name: 'x'}) RETURN n", "unanchored"),
    ("every node by condition", "MATCH (n WHERE n.name = 'x') RETURN n", "unanchored"),
    ("every relationship", "MATCH ()-[r]->() RETURN r", "unanchored"),
    ("every path", "MATCH p = (a)-[*]-(b) RETURN p", "unanchored"),
    ("every node, as a path of no relationship", "MATCH (n)-[:R*0..1]->() RETURN n", "unanchored"),
    ("every node behind a harmless path", "MATCH (a:A), (n) RETURN n", "unanchored"),
    ("a node that was never there", "OPTIONAL MATCH (n:Nobody) MATCH (n) RETURN n", "unanchored"),
    ("a node that WITH let go", "MATCH (n:A) WITH 1 AS one MATCH (n) RETURN n", "unanchored"),
    (
        "a node that FOREACH let go",
        "MATCH (n:A) FOREACH (x IN [1] | CREATE (k:B)) WITH * MATCH (k) RETURN k",
        "unanchored",
    ),
    ("a node of a pattern in a condition", "MATCH (n:A) WHERE (n)-->(k) WITH * MATCH (k) RETURN k", "unanchored"),
    (
        "a node of a comprehension",
        "MATCH (n:A) WHERE size([(n)-->(k) | 1]) > 0 MATCH (k) RETURN k",
        "unanchored",
    ),
    (
        "a node of a subquery that imports all",
        "MATCH (n:A) CALL (*) { MATCH (k:B) RETURN 1 AS one } MATCH (k) RETURN k",
        "unanchored",
    ),
    (
        "a node of another part of COLLECT",
        "MATCH (n:A) RETURN COLLECT { MATCH (m:A) RETURN m UNION WITH * MATCH (m) RETURN m } AS everybody",
        "unanchored",
    ),
    (
        "a node of another part of EXISTS",
        "MATCH (n:A) WHERE EXISTS { MATCH (m:A) RETURN m UNION WITH * MATCH (m) RETURN m } RETURN n",
        "unanchored",
    ),
    (
        "a sum that becomes a node",
        "MATCH (n:A) RETURN reduce(s = null, x IN [1, 2] | CASE WHEN s IS NULL THEN n ELSE s.`ns:other:x` END) AS y",
        "unknown-owner",
    ),
    (
        "the keys of a sum that becomes a node",
        "MATCH (n:A) RETURN reduce(s = null, x IN [1, 2] | CASE WHEN s IS NULL THEN n ELSE keys(s) END) AS y",
        "unknown-owner",
    ),
    (
        "a node behind a sign, which servers pass over",
        "MATCH (n:A) UNWIND [n, 1] AS x WITH +x AS y RETURN y.`ns:other:x` AS z",
        "unknown-owner",
    ),
    ("a variable of another meaning", "MATCH (n:A) WITH n.x AS n MATCH (n) RETURN n", "unanchored"),
    ("a variable that is null", "WITH null AS n MATCH (n) RETURN n", "unanchored"),
    ("the second part of a UNION", "MATCH (n:A) RETURN n UNION MATCH (n) RETURN n", "unanchored"),
    ("a variable of a subquery", "MATCH (a:A) WHERE EXISTS { MATCH (b:B) } MATCH (b) RETURN b", "unanchored"),
    (
        "a variable that a subquery does not import",
        "MATCH (n:A) CALL { MATCH (n) RETURN n AS m } RETURN m",
        "unanchored",
    ),
    ("a variable that a list shadows", "MATCH (n:A) RETURN [n IN [1] WHERE EXISTS { MATCH (n) } | 1]", "unanchored"),
    (
        "a variable that is gone, in the condition of WITH",
        "MATCH (n:A) WITH 1 AS x WHERE EXISTS { MATCH (n) } RETURN x",
        "unanchored",
    ),
    ("a column without a name", "CALL { MATCH (n:A) RETURN (n) } MATCH (`(n)`) RETURN `(n)`", "unanchored"),
    ("every node in EXISTS", "MATCH (a:A) WHERE EXISTS { MATCH (n) WHERE n.x = 1 } RETURN a", "unanchored"),
    ("every node in COUNT", "RETURN COUNT { (n) } AS c", "unanchored"),
    ("every node in COLLECT", "RETURN COLLECT { MATCH (n) RETURN n } AS l", "unanchored"),
    ("every node in a comprehension", "RETURN [(n)-->(m) | m] AS l", "unanchored"),
    ("every node in a subquery", "CALL { MATCH (n) RETURN n } RETURN n", "unanchored"),
    ("every node in MERGE", "MERGE (n) RETURN n", "unlabelled-node"),
    ("the shortest path between any two", "MATCH p = shortestPath((a)-[*]-(b)) RETURN p", "unanchored"),
    ("a condition with a pattern of anybody's", "MATCH (a:A) WHERE ()-->() RETURN a", "unanchored"),
    ("all that is not mine", "MATCH (n:!Person) RETURN n", "negated-label"),
    ("anything with a label", "MATCH (n:%) RETURN n", "negated-label"),
    ("mine or not mine", "MATCH (n:A|!A) RETURN n", "negated-label"),
    ("types that are not mine", "MATCH (:A)-[:!R]-(b) RETURN b", "negated-label"),
    ("a label by parameter (D33)", "MATCH (n:$label) RETURN n", "dynamic-label"),
    ("a label that is computed", "MATCH (n:$('ns:other:' + 'A')) RETURN n", "dynamic-label"),
    ("a label that is computed, for good", "MATCH (n:A) SET n:$($l) RETURN n", "dynamic-label"),
    ("a type by parameter", "MATCH (:A)-[:$t]-(b) RETURN b", "dynamic-label"),
    ("a node of nobody", "CREATE (n {x: 1})", "unlabelled-node"),
    ("a node of nobody at a relationship", "MATCH (a:A) CREATE (a)-[:R]->(b {x: 1})", "unlabelled-node"),
    ("a node of nobody in FOREACH", "MATCH (a:A) FOREACH (i IN [1] | CREATE (a)-[:R]->())", "unlabelled-node"),
    ("a node of anybody by MERGE", "MATCH (a:A) MERGE (a)-[:R]->(b)", "unlabelled-node"),
    ("a relationship without type", "MATCH (a:A), (b:B) MERGE (a)-[r]-(b)", "untyped-relationship"),
    ("a procedure that lists", "CALL db.labels()", "procedure"),
    (
        "a procedure in the middle",
        "MATCH (n:A) CALL db.index.fulltext.queryNodes('i', 'x') YIELD node RETURN node",
        "procedure",
    ),
    ("a procedure in a subquery", "CALL { CALL db.labels() YIELD label RETURN label } RETURN label", "procedure"),
    ("a file", "LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line", "load-csv"),
    ("an address", "load  csv WITH HEADERS FROM 'http://169.254.169.254/' AS line RETURN line", "load-csv"),
    ("another graph", "USE neo4j MATCH (n:A) RETURN n", "use"),
    ("another graph in a subquery", "CALL { USE other.graph MATCH (n:A) RETURN n } RETURN n", "use"),
    ("names of everybody", "SHOW INDEXES", "administration"),
    ("queries of everybody", "SHOW TRANSACTIONS", "administration"),
    ("the end of others' queries", "TERMINATE TRANSACTIONS 'neo4j-transaction-1'", "administration"),
    ("a database", "CREATE DATABASE other", "administration"),
    ("no database", "DROP DATABASE neo4j", "administration"),
    ("a user", "CREATE USER mallory SET PASSWORD 'x'", "administration"),
    ("rights", "GRANT TRAVERSE ON GRAPH * TO mallory", "administration"),
    ("a plan", "EXPLAIN MATCH (n:A) RETURN n", "plan"),
    ("counts by a plan", "PROFILE MATCH (n:A) RETURN n", "plan"),
    ("another language version", "CYPHER 25 MATCH (n:A) RETURN n", "options"),
    ("a hint", "MATCH (n:A) USING INDEX n:A(x) WHERE n.x = 1 RETURN n", "hint"),
    ("batches", "MATCH (n:A) CALL { WITH n DELETE n } IN TRANSACTIONS RETURN 1", "unknown-clause"),
    ("a clause of another language", "INSERT (:A {x: 1})", "unknown-clause"),
    ("a clause of tomorrow", "MATCH (n:A) EXPORT n", "unknown-clause"),
    ("a keyword in back-ticks", "`MATCH` (n:A) RETURN n", "unknown-clause"),
    ("all labels in an index", "CREATE LOOKUP INDEX i FOR (n) ON EACH labels(n)", "schema"),
    ("an index that only procedures read", "CREATE FULLTEXT INDEX i FOR (n:A) ON EACH [n.x]", "schema"),
    ("options of an index", "CREATE INDEX i FOR (n:A) ON (n.x) OPTIONS {indexProvider: 'x'}", "schema"),
    ("an index with a name of the server's", "CREATE INDEX FOR (n:A) ON (n.x)", "unnamed-schema"),
    ("an index as it once was", "CREATE INDEX ON :A(x)", "unnamed-schema"),
    ("a node by its internal id", "MATCH (n:A) WHERE id(n) = 5 RETURN n", "identity"),
    ("an internal id", "MATCH (n:A) RETURN elementId(n) AS i", "identity"),
    ("the start of a relationship", "MATCH ()-[r:R]->() RETURN startNode(r) AS n", "identity"),
    ("a query in a function", "RETURN apoc.cypher.runFirstColumnSingle('MATCH (n) RETURN n', {}) AS n", "function"),
    ("a function of the server", "MATCH (n:A) RETURN graph.names() AS g", "function"),
    ("a name among the labels", "MATCH (n:A) WHERE 'ns:other:B' IN labels(n) RETURN n", "name-function"),
    ("names as values", "MATCH (n:A) UNWIND keys(n) AS k RETURN k", "name-function"),
    ("names out of a subquery", "MATCH (n:A) CALL { WITH n RETURN labels(n) AS l } RETURN l", "name-function"),
    ("names inside an expression", "MATCH (:A)-[r]->() RETURN 'x' + type(r) AS t", "name-function"),
    (
        "names in one part of a UNION",
        "MATCH (n:A) RETURN labels(n) AS l UNION RETURN ['ns:other:A'] AS l",
        "name-function",
    ),
    ("all properties", "MATCH (n:A) RETURN n {.*} AS m", "all-properties"),
    ("a property by parameter", "MATCH (n:A) RETURN n[$key] AS v", "dynamic-property"),
    ("a property by text", "MATCH (n:A) RETURN n['ns:other:secret'] AS v", "dynamic-property"),
    ("a property by text, for good", "MATCH (n:A) SET n['ns:other:secret'] = 1", "dynamic-property"),
    ("properties by parameter", "CREATE (n:A $props)", "property-map"),
    ("properties by parameter, in a pattern", "MATCH (n:A $props) RETURN n", "property-map"),
    ("properties by parameter, in SET", "MATCH (n:A) SET n = $props", "property-map"),
    ("more properties by parameter", "MATCH (n:A) SET n += $props", "property-map"),
    ("properties by a variable", "WITH {`ns:other:x`: 1} AS m MATCH (n:A) SET n = m", "property-map"),
    ("properties by rows", "UNWIND $rows AS row CREATE (n:A) SET n += row", "property-map"),
    ("properties by an expression", "MATCH (n:A) SET n = n {.x}", "property-map"),
    (
        "a property of who knows what",
        "MATCH (n:A) WITH [n, {x: 1}] AS l UNWIND l AS e RETURN e.x AS x",
        "unknown-owner",
    ),
    ("an element of who knows what", "MATCH p = (:A)-->(:B) RETURN p['x'] AS x", "unknown-owner"),
    ("names of who knows what", "MATCH p = (:A)-->(:B) RETURN labels(p) AS l", "unknown-owner"),
    ("a key of who knows what", "MATCH (n:A) WITH {a: n} AS m RETURN m {.a} AS x", "unknown-owner"),
    ("a keyword as a function", "RETURN match(1) AS x", "reserved"),
    ("depth by CASE", "RETURN " + "CASE WHEN true THEN " * 33 + "1" + " END" * 33, "too-deep"),
    ("a key that is computed", "RETURN {$k: 1} AS m", "syntax"),
    ("a definition of nothing", "CREATE CONSTRAINT c FOR (n:A) REQUIRE m.x IS UNIQUE", "unknown-variable"),
    ("a variable from nowhere, for a subquery", "CALL (n) { RETURN 1 AS x } RETURN x", "unknown-variable"),
    ("a variable from nowhere", "RETURN n.x AS x", "unknown-variable"),
    ("a change of what is not there", "SET n.x = 1", "unknown-variable"),
    ("a map or a node", "MATCH (a:A) RETURN (a)-({`ns:other:x`: 1}) AS x", "ambiguous"),
    ("a projection or a node", "MATCH (a:A) RETURN (a)-(a {`ns:other:x`: 1}) AS x", "ambiguous"),
    ("a bar of a list or of labels", "MATCH (n:A) RETURN [x IN collect(n) WHERE x:A | x.y] AS l", "ambiguous"),
    ("labels to choose from", "CREATE (n:A|B)", "created-labels"),
    ("a name in WITH that is text", "MATCH (n:A) WITH n.x RETURN 1", "alias-needed"),
    ("a column name with an escape", r"MATCH (n:A) RETURN n.x + '\n'", "alias-needed"),
    ("a keyword as a variable", "MATCH (match:A) RETURN 1", "reserved"),
    ("a back-tick by escape", "MATCH (n:`A\\u0060) RETURN 1 //`) RETURN n", "escape"),
    ("a quote by escape", "MATCH (n:A {x: '\\u0027}) MATCH (m) RETURN m //'}) RETURN n", "escape"),
    ("a quote by an escaped escape", "MATCH (n:A {x: '\\\\u0027}) MATCH (m) RETURN m //'}) RETURN n", "escape"),
    ("a quote by a long escape", "MATCH (n:A {x: '\\U00000027'}) RETURN n", "escape"),
    ("the end of a comment by escape", "/* \\u002a/ MATCH (m) RETURN m // */ MATCH (n:A) RETURN n", "escape"),
    ("a keyword by escape", "\\u004dATCH (n) RETURN n", "unknown-character"),
    ("a keyword with a long s", "MATCH (n:A) \u017fET n.x = 1", "look-alike"),
    ("a keyword with a Kelvin sign", "MATCH (n:A) RETURN n AS \u212a", "look-alike"),
    ("a keyword at full width", "\uff2d\uff21\uff34\uff23\uff28 (n) RETURN n", "look-alike"),
    ("a dash that only some know", "MATCH (n:A)\u2014\u2014(m) RETURN m", "unknown-character"),
    ("a zero byte", "MATCH (n:A) RETURN n\x00", "unknown-character"),
    ("an open text", "MATCH (n:A {x: 'a}) RETURN n", "unterminated"),
    ("an open comment", "MATCH (n:A) RETURN n /* MATCH (m)", "unterminated"),
    ("a second query", "MATCH (n:A) RETURN n; MATCH (m) RETURN m", "syntax"),
    ("a clause behind RETURN", "MATCH (n:A) RETURN n MATCH (m:A) RETURN m", "syntax"),
    ("a text that ends twice", "MATCH (n:A {x: 'a''}) MATCH (m) RETURN m //'}) RETURN n", "syntax"),
    ("repeated paths", "MATCH ((a)-[:R]->(b)){1,3} RETURN a", "syntax"),
    ("labels by IS", "MATCH (n IS A) RETURN n", "syntax"),
    ("a parameter as it once was", "MATCH (n:A {x: {p}}) RETURN n", "syntax"),
    ("brackets that do not pair", "MATCH (n:A] RETURN n", "syntax"),
    ("nothing", "", "syntax"),
    ("depth", "RETURN " + "(" * 40 + "1" + ")" * 40, "too-deep"),
    ("length", "RETURN 1" + " " * 70_000, "too-long"),
]

#: What it tries, a query that is accepted all the same, and what is left of the attempt.
DEFUSED: Final[list[tuple[str, str, str]]] = [
    ("a foreign label (A9, N1)", "MATCH (n:`ns:other:A`) RETURN n", "MATCH (n:@ns:other:A@) RETURN n"),
    ("an own label, scoped already (A9)", "MATCH (n:`ns:acme:A`) RETURN n", "MATCH (n:@ns:acme:A@) RETURN n"),
    ("a foreign type", "MATCH ()-[r:`ns:other:R`]->() RETURN r", "MATCH ()-[r:@ns:other:R@]->() RETURN r"),
    ("a foreign property", "MATCH (n:A) RETURN n.`ns:other:x` AS x", "MATCH (n:@A@) RETURN n.@ns:other:x@ AS x"),
    ("a foreign property, for good", "MATCH (n:A) SET n.`ns:other:x` = 1", "MATCH (n:@A@) SET n.@ns:other:x@ = 1"),
    (
        "a foreign property in a map",
        "MATCH (n:A) SET n += {`ns:other:x`: 1}",
        "MATCH (n:@A@) SET n += {@ns:other:x@: 1}",
    ),
    ("a foreign index", "DROP INDEX `ns:other:i`", "DROP INDEX @ns:other:i@"),
    ("a foreign constraint", "DROP CONSTRAINT `ns:other:c`", "DROP CONSTRAINT @ns:other:c@"),
    (
        "a back-tick in a name",
        "MATCH (n:`A``) MATCH (m) RETURN m //`) RETURN n",
        "MATCH (n:`ns:acme:A``) MATCH (m) RETURN m //`) RETURN n",
    ),
    ("a comment that hides", "MATCH (n:A) // \u2028 MATCH (m)\nRETURN n", "MATCH (n:@A@) RETURN n"),
    ("a comment inside a pattern", "MATCH (n/**/:/**/A) RETURN n", "MATCH (n : @A@) RETURN n"),
    (
        "a query in a text",
        "MATCH (n:A {x: 'a\\'}) MATCH (m) RETURN m //'}) RETURN n",
        "MATCH (n:@A@ {@x@: 'a\\'}) MATCH (m) RETURN m //'}) RETURN n",
    ),
    ("FOREACH (N2)", "FOREACH (i IN [1] | CREATE (:`ns:other:A`))", "FOREACH (i IN [1] | CREATE (:@ns:other:A@))"),
    (
        "a subquery (N2)",
        "CALL { MATCH (n:`ns:other:A`) RETURN n } RETURN n",
        "CALL { MATCH (n:@ns:other:A@) RETURN n } RETURN n",
    ),
    (
        "UNION (N2)",
        "RETURN 1 AS n UNION MATCH (n:`ns:other:A`) RETURN n",
        "RETURN 1 AS n UNION MATCH (n:@ns:other:A@) RETURN n",
    ),
    (
        "a definition (N2)",
        "CREATE INDEX i FOR (n:`ns:other:A`) ON (n.`ns:other:x`)",
        "CREATE INDEX @i@ FOR (n:@ns:other:A@) ON (n.@ns:other:x@)",
    ),
    (
        "a comprehension (N2)",
        "RETURN [(:`ns:other:A`)-->(m) | m.x] AS l",
        "RETURN [(:@ns:other:A@)-->(m) | m.@x@] AS l",
    ),
    (
        "a projection (N2)",
        "MATCH (n:A) RETURN n {.`ns:other:x`} AS m",
        "MATCH (n:@A@) RETURN n {`ns:other:x`: n.@ns:other:x@} AS m",
    ),
    (
        "COLLECT (N2)",
        "RETURN COLLECT { MATCH (n:`ns:other:A`) RETURN n } AS l",
        "RETURN COLLECT { MATCH (n:@ns:other:A@) RETURN n } AS l",
    ),
    (
        "ORDER BY (N2)",
        "MATCH (n:A) RETURN 1 AS x ORDER BY n.`ns:other:x`",
        "MATCH (n:@A@) RETURN 1 AS x ORDER BY n.@ns:other:x@",
    ),
    ("a name with a sentinel (D33)", "MATCH (n:`$label`) RETURN n", "MATCH (n:@$label@) RETURN n"),
]
