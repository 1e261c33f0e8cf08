r"""Cypher as tokens: where names may stand, and what no two readers take for the same thing.

Whoever rewrites a query has to read it as the server does. Where two readers could differ, the text is refused rather
than guessed at:

- A backslash escape ``\uXXXX``: Neo4j resolves it before it looks for quotes, so that ``\u0060`` ends a name in
  back-ticks and ``\u002a`` takes part in a comment; openCypher knows it in strings alone. It is taken in strings, for
  characters beyond ASCII, and nowhere else.
- A word whose upper or lower case lands in ASCII (the long s, the Kelvin sign) may or may not be a keyword.
- White space and comments are replaced by one blank each, so that the server never reads a comment of the tenant's.

Why own code: the one parser on the package index that reads Cypher, antlr4-cypher 0.1.2, takes 15 ms for a query,
rejects ``FOREACH``, ``UNION`` of label expressions and subqueries, and drops the ``!`` of ``:!A`` without a word,
which makes of a negation its opposite; drivers ship no parser.

Source: openCypher 9 and the Neo4j 5 manual; isolation note, section 6.3.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from hivetenancy.errors import InvalidNameError

MAX_QUERY_CHARACTERS: Final = 65_536
"""Longest query. Reading takes time in proportion: the guard some 1 us a character, and 6 where each is a token."""

MAX_DEPTH: Final = 32
"""How deep brackets and ``CASE`` may be nested: each level takes a few frames of Python's stack."""

MAX_VARIABLES: Final = 256
"""How many variables may be bound at once: each clause that passes them on takes time for all of them."""

RULES: Final[dict[str, str]] = {
    # what cannot be read in one way only
    "too-long": "the query is longer than the guard reads",
    "unterminated": "a string, a name in back-ticks or a comment has no end",
    "unknown-character": "a character has no meaning in Cypher outside of strings and back-ticks",
    "escape": "a backslash escape that servers resolve at different times, or not at all",
    "look-alike": "a word without back-ticks whose upper or lower case could make a keyword of it, or is not in NFKC",
    "too-deep": "brackets or CASE are nested deeper than the guard reads",
    "too-many-variables": "more variables are bound at once than the guard keeps",
    "syntax": "not understood here",
    "reserved": "a keyword stands where a name belongs; put the name in back-ticks",
    "ambiguous": "could be a pattern or an expression, or where it ends depends on the reader; add parentheses",
    # clauses
    "unknown-clause": "a clause that the guard does not know",
    "procedure": "CALL of a procedure: what it reads cannot be seen",
    "load-csv": "LOAD CSV reads files and addresses of the server",
    "use": "USE names another graph",
    "administration": "a command for whoever runs the server",
    "plan": "EXPLAIN and PROFILE show physical names and everybody's statistics",
    "options": "CYPHER options choose how the server reads the query",
    "hint": "USING hints are not rewritten",
    "schema": "a form of index or constraint that covers names of others, or is not rewritten",
    "unnamed-schema": "an index or constraint without a name gets one from the server, outside of the tenant's names",
    # patterns
    "unanchored": "nothing in this path is the tenant's: label a node, give a relationship a type, or use a bound node",
    "unlabelled-node": "a node that is created needs a label",
    "untyped-relationship": "a relationship that is created needs exactly one type and a fixed length",
    "negated-label": "! and % match what others own",
    "dynamic-label": "a label or type that is computed, or comes from a parameter",
    "created-labels": "what is created takes a plain list of labels",
    # names inside expressions
    "property-map": "property keys that come from a value; scope the map and name its parameter in property_maps",
    "dynamic-property": "a property key that is computed",
    "unknown-owner": "cannot be told whether this is a node, a relationship or a map; use a variable of a pattern",
    "all-properties": "a projection of all properties shows physical keys; name the keys",
    "name-function": "shows physical names: let it be a whole item of the last RETURN, where they are mapped back",
    "identity": "internal ids are counted over all tenants, and reach what others own",
    "function": "a function that the guard does not know",
    "unknown-variable": "a variable that nothing has bound",
    "alias-needed": "give this item a name with AS",
}
"""What is refused: each rule and what its refusal says."""

_QUOTED: Final = r"`(?:[^`]++|``)*+`"
_TOKEN: Final = re.compile(
    rf"""
    ((?:\s++ | //[^\r\n]*+ | /\*.*?\*/)*+)
    (?:(
        [^\W\d]\w*+
      | (?:0[xX][0-9a-fA-F_]++ | 0[oO][0-7_]++ | [0-9][0-9_]*+(?:\.[0-9][0-9_]*+)?+(?:[eE][+-]?[0-9]++)?+)(?!\w)
      | {_QUOTED}
      | '(?:[^'\\]++|\\.)*+'
      | "(?:[^"\\]++|\\.)*+"
      | \$(?:\w++|{_QUOTED})?+
      | <> | <= | >= | =~ | \+= | \.\. | \|\| | != | ::
      | (?!/\*)[-+*/%^=<>()\[\]{{}},.:;|&!]
    ) | (?:/\*|['"`]).* | .)
    """,
    re.VERBOSE | re.DOTALL,
)
# What cannot be read stands in no group, so it is an empty token; what has no end swallows the rest, or each new
# beginning would be read to the end again.

_DOUBTFUL: Final = re.compile(r"\\\\[uU]|\\U|\\u(?![0-9a-fA-F]{4})")
_RESOLVED: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = frozenset("\\'\"`bfnrtBFNRTu")
_PAIRS: Final = {"(": ")", "[": "]", "{": "}"}
_CLASSES: Final = {
    **dict.fromkeys("-+*/%^=<>()[]{},.:;|&!", "o"),
    **dict.fromkeys("0123456789", "n"),
    **dict.fromkeys("'\"", "s"),
    "`": "q",
    "$": "p",
}


class QueryRefusedError(InvalidNameError):
    """A query that the guard cannot scope. Nothing of it may reach the server.

    The message shows nothing of the query.

    Attributes:
        rule: Which of `RULES` refuses it.
        position: Where in the query, in characters from its beginning.
    """

    def __init__(self, rule: str, position: int) -> None:
        super().__init__(f"{RULES[rule]} (rule {rule}, at character {position})")
        self.rule = rule
        self.position = position


class Reader:
    """The tokens of a query, and a place among them.

    Args:
        text: The query.

    Attributes:
        tokens: The text of each token; the last two are ``;`` of our own, so that there is always one more to look at.
        blanks: What stood before each: white space and comments.
        symbols: The tokens in upper case, to compare with keywords.
        kinds: ``w`` word, ``q`` name in back-ticks, ``s`` string, ``n`` number, ``p`` parameter, ``o`` anything else.
        closers: Where the bracket ends that opens at a token.
        i: The token to read next.

    Raises:
        InvalidNameError: *text* is no ``str``.
        QueryRefusedError: It cannot be read in one way only.

    Concurrency:
        Pure; for one thread. Time is linear in the length of *text*.
    """

    __slots__ = ("blanks", "closers", "i", "kinds", "symbols", "text", "tokens")

    def __init__(self, text: str) -> None:
        if type(text) is not str:
            raise InvalidNameError(f"a query is a plain str, not {type(text).__name__}")
        self.text = text
        self.i = 0
        self.blanks: tuple[str, ...] = ()
        self.tokens: tuple[str, ...] = ()
        if len(text) > MAX_QUERY_CHARACTERS:
            self.refuse("too-long", 0)
        self.blanks, self.tokens = zip(*_TOKEN.findall(text + "\n;;"), strict=True)
        if "" in self.tokens:
            self._unreadable()
        if "\\" in text or not text.isascii():
            self._check_characters()
        self.symbols = [token.upper() for token in self.tokens]
        self.kinds = [_CLASSES.get(token[:1], "w") for token in self.tokens]
        self.closers = self._pair()

    def refuse(self, rule: str, at: int | None = None) -> None:
        """Refuse the query.

        Args:
            rule: One of `RULES`.
            at: The token at fault; ``None``: the next one.

        Raises:
            QueryRefusedError: Always.
        """
        raise QueryRefusedError(rule, self.position(self.i if at is None else at))

    def position(self, index: int) -> int:
        """Return where the token *index* begins, in characters from the beginning of the query."""
        before = sum(map(len, self.tokens[:index])) + sum(map(len, self.blanks[: index + 1]))
        return min(before, len(self.text))

    def source(self, first: int, last: int) -> str:
        """Return the text from the token *first* to the token *last*, both included, as it was written."""
        rest = range(first + 1, last + 1)
        return self.tokens[first] + "".join(self.blanks[index] + self.tokens[index] for index in rest)

    def name(self, index: int) -> str:
        """Return the name that the token *index* spells, out of its back-ticks."""
        token = self.tokens[index]
        return token[1:-1].replace("``", "`") if token[0] == "`" else token

    def expect(self, symbol: str) -> None:
        """Pass over *symbol*, or refuse the query."""
        if self.symbols[self.i] != symbol:
            self.refuse("syntax")
        self.i += 1

    def take(self, symbol: str) -> bool:
        """Pass over *symbol* if it comes next, and say whether it did."""
        if self.symbols[self.i] == symbol:
            self.i += 1
            return True
        return False

    def _unreadable(self) -> None:
        at = self.tokens.index("")
        rest = self.text[self.position(at) :]
        if rest[0] in "'\"`" or rest[:2] == "/*":
            rule = "unterminated"
        else:
            rule = "syntax" if "0" <= rest[0] <= "9" else "unknown-character"
        self.refuse(rule, at)

    def _check_characters(self) -> None:
        try:
            self.text.encode()
        except UnicodeEncodeError:
            self.refuse("unknown-character")
        for index, token in enumerate(self.tokens):
            if "\\" in self.blanks[index]:
                self.refuse("escape", index)
            if "\\" in token and not (token[0] in "'\"" and _harmless(token)):
                self.refuse("escape", index)
            if not token.isascii() and not _readable(token):
                self.refuse("look-alike", index)

    def _pair(self) -> dict[int, int]:
        closers: dict[int, int] = {}
        waiting: list[int] = []
        for index, token in enumerate(self.tokens):
            if token in _PAIRS:
                waiting.append(index)
                if len(waiting) > MAX_DEPTH:
                    self.refuse("too-deep", index)
            elif token in {")", "]", "}"}:
                if not waiting or _PAIRS[self.tokens[waiting[-1]]] != token:
                    self.refuse("syntax", index)
                closers[waiting.pop()] = index
        if waiting:
            self.refuse("syntax", waiting[-1])
        return closers


def _harmless(string: str) -> bool:
    """Whether each escape in *string* means the same whenever it is resolved."""
    # A backslash before the escape, too: a reader that resolves first does not see that it was escaped itself.
    if _DOUBTFUL.search(string) or any(int(digits, 16) < 0x80 for digits in _RESOLVED.findall(string)):
        return False
    return all(character in _ESCAPES for character in _ESCAPED.findall(string))


def _readable(token: str) -> bool:
    """Whether *token*, which is not all ASCII, stands in quotes, or is a word like no keyword."""
    if token[0] in "'\"`" or token[:2] == "$`":
        return True
    word = token.lstrip("$")
    if not word.isidentifier() or unicodedata.normalize("NFKC", word) != word:
        return False
    cases = (str.upper, str.lower, str.casefold)
    # One character for one, as those who compare keywords do: the capitals of a sharp s are two.
    changed = (change(other) for other in word if other > "\x7f" for change in cases)
    return not any(len(other) == 1 and other.isascii() for other in changed)
