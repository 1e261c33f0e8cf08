"""Kinds of expressions and sorts of names in Cypher, and the words that the readers know.

A *kind* says what a name behind a dot would belong to; it follows from the text alone, or is `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NODE: Final = "node"
"""A node that a pattern bound, so it is there, and the tenant's: it anchors further patterns."""
ENTITY: Final = "entity"
"""A node or relationship of the tenant's, or null."""
ENTITIES: Final = "entities"
"""A list of such."""
PLAIN: Final = "plain"
"""A value, list or map without any node or relationship in it."""
NOTHING: Final = "nothing"
"""Null: goes with every other kind."""
UNKNOWN: Final = "unknown"
"""Paths, and maps or lists of several kinds."""

LABEL: Final = "label"
RELATIONSHIP_TYPE: Final = "relationship_type"
PROPERTY_KEY: Final = "property_key"
INDEX: Final = "index"
CONSTRAINT: Final = "constraint"

MATCHING: Final = "matching"
"""Patterns that find: one anchor in a path is enough."""
OPTIONAL: Final = "optional"
"""Patterns that may find nothing, so that what they bind may be null."""
WRITING: Final = "writing"
"""Patterns of CREATE and MERGE: each new node and relationship has to say whose it is."""


def words(text: str) -> frozenset[str]:
    """Return the words of *text*."""
    return frozenset(text.split())


RESERVED: Final = words(
    """
    MATCH OPTIONAL WHERE RETURN WITH UNWIND CREATE MERGE SET REMOVE DELETE DETACH NODETACH CALL YIELD UNION FOREACH LOAD
    USE USING ORDER SKIP LIMIT OFFSET ON AS AND OR XOR NOT IN IS CONTAINS STARTS ENDS CASE WHEN THEN ELSE END DISTINCT
    TRUE FALSE NULL NAN INF INFINITY EXPLAIN PROFILE CYPHER FINISH SHOW DROP GRANT DENY REVOKE FOR INSERT NEXT LET
    FILTER REQUIRE ASSERT
    """
)
"""Words that are no variable unless they stand in back-ticks."""

BOOLEAN: Final = words("= <> < > <= >= =~ != AND OR XOR IN CONTAINS STARTS ENDS")
CONCATENATION: Final = frozenset({"+", "||"})
BINARY: Final = BOOLEAN | CONCATENATION | frozenset("-*/%^")
PREFIXES: Final = frozenset({"NOT", "+", "-"})
POSTFIXES: Final = frozenset({".", "[", ":", "IS"})
SUBQUERIES: Final = frozenset({"EXISTS", "COUNT", "COLLECT"})
LITERALS: Final = {**dict.fromkeys(("TRUE", "FALSE", "NAN", "INF", "INFINITY"), PLAIN), "NULL": NOTHING}
CONNECTORS: Final = (("-", "["), ("-", "-", "("), ("-", "-", ">"), ("<", "-", "["), ("<", "-", "-"))

QUANTIFIERS: Final = words("ANY ALL NONE SINGLE")
SAME_KIND: Final = words("COALESCE NULLIF MIN MAX TAIL REVERSE")
ELEMENT_OF: Final = words("HEAD LAST")
ENTITIES_OF: Final = words("NODES RELATIONSHIPS")
NAME_FUNCTIONS: Final = words("LABELS TYPE KEYS PROPERTIES")
IDENTITIES: Final = words("ID ELEMENTID STARTNODE ENDNODE")
FUNCTIONS: Final = words(
    """
    ABS ACOS ASIN ATAN ATAN2 AVG CEIL CHAR_LENGTH CHARACTER_LENGTH COLLECT COS COSH COT COTH COUNT DATE DATE.REALTIME
    DATE.STATEMENT DATE.TRANSACTION DATE.TRUNCATE DATETIME DATETIME.FROMEPOCH DATETIME.FROMEPOCHMILLIS
    DATETIME.REALTIME DATETIME.STATEMENT DATETIME.TRANSACTION DATETIME.TRUNCATE DEGREES DISTANCE DURATION
    DURATION.BETWEEN DURATION.INDAYS DURATION.INMONTHS DURATION.INSECONDS E EXISTS EXP FLOOR HAVERSIN ISEMPTY ISNAN
    LEFT LENGTH LOCALDATETIME LOCALDATETIME.TRUNCATE LOCALTIME LOCALTIME.TRUNCATE LOG LOG10 LOWER LTRIM NORMALIZE
    PERCENTILECONT PERCENTILEDISC PI POINT POINT.DISTANCE POINT.WITHINBBOX RADIANS RAND RANDOMUUID RANGE REPLACE RIGHT
    ROUND RTRIM SIGN SIN SINH SIZE SPLIT SQRT STDEV STDEVP SUBSTRING SUM TAN TANH TIME TIME.TRUNCATE TIMESTAMP TOBOOLEAN
    TOBOOLEANLIST TOBOOLEANORNULL TOFLOAT TOFLOATLIST TOFLOATORNULL TOINTEGER TOINTEGERLIST TOINTEGERORNULL TOLOWER
    TOSTRING TOSTRINGLIST TOSTRINGORNULL TOUPPER TRIM UPPER VALUETYPE VECTOR.SIMILARITY.COSINE
    VECTOR.SIMILARITY.EUCLIDEAN
    """
)
"""Functions, in upper case, that compute a value from their arguments and look at nothing else."""


def join(kinds: Iterable[str]) -> str:
    """Return the kind of what may be of any of *kinds*; what may be one of several nodes anchors nothing."""
    found = set(kinds) - {NOTHING}
    if found <= {NODE, ENTITY}:
        return ENTITY if found else NOTHING
    return found.pop() if len(found) == 1 else UNKNOWN


def listed(kinds: Iterable[str]) -> str:
    """Return the kind of a list whose elements are of *kinds*."""
    kind = join(kinds)
    return {ENTITY: ENTITIES, NOTHING: PLAIN}.get(kind, kind)


def element(kind: str) -> str:
    """Return the kind of an element of a list of *kind*."""
    return {ENTITIES: ENTITY, PLAIN: PLAIN, NOTHING: PLAIN}.get(kind, UNKNOWN)


def signed(kind: str) -> str:
    """Return the kind of what is of *kind* behind ``+``, ``-`` or ``NOT``: servers pass over a ``+``."""
    return PLAIN if kind in {PLAIN, NOTHING} else UNKNOWN
