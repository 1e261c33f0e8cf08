"""A second reader of Cypher, which shares nothing with the first: what does a rewritten query reach?

It reads character by character, knows no grammar, and errs on the side of alarm: a name behind a colon is one of the
catalogue unless it is the key of a map, and a node in round brackets is anybody's unless something says whose.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

_FORBIDDEN_WORDS: Final = "LOAD USE SHOW EXPLAIN PROFILE CYPHER YIELD GRANT TERMINATE USING"
_WORDS_BEHIND_A_PATTERN: Final = "WHERE RETURN WITH CREATE MERGE SET DELETE REMOVE UNWIND CALL DETACH UNION ORDER"
FORBIDDEN: Final = frozenset(_FORBIDDEN_WORDS.split())
ENDS_PATTERN: Final = frozenset(_WORDS_BEHIND_A_PATTERN.split())
#: A label in a node, or a type in a relationship of a fixed length.
OWN: Final = re.compile(r"\( ?(\w+ ?)?: ?(\( ?)*`ns:acme:|\[ ?(\w+ ?)?: ?(\( ?)*`ns:acme:[^*\]]*\]")


def pieces(text: str) -> list[str]:
    """The text cut into words, names in back-ticks, quoted texts (as ``''``) and single characters."""
    found: list[str] = []
    at = 0
    while at < len(text):
        start, at = at, at + 1
        first = text[start]
        if first.isspace():
            continue
        if first in "'\"":
            while text[at] != first:
                at += 2 if text[at] == "\\" else 1
            at += 1
            found.append("''")
            continue
        if first == "`":
            while text[at] != "`" or text[at : at + 2] == "``":
                at += 2 if text[at] == "`" else 1
            at += 1
        elif first.isalnum() or first in "_$":
            while at < len(text) and (text[at].isalnum() or text[at] == "_"):
                at += 1
        found.append(text[start:at])
    return found


def is_name(piece: str) -> bool:
    """Whether *piece* is a word or a name in back-ticks."""
    return piece[:1] == "`" or piece[:1].isalpha() or piece[:1] == "_"


def foreign(text: str, prefix: str = "`ns:acme:", *, entries: bool = False) -> list[str]:
    """Names of the catalogue in *text* that are not below *prefix*, and words that reach beyond it.

    With *entries* a physical name behind a dot may be the key of a plain map, which is anybody's to choose.
    """
    found: list[str] = []
    parts = ["", "", *pieces(text), "", ""]
    around: list[str] = []
    for index in range(2, len(parts) - 2):
        piece, before = parts[index], parts[index - 1]
        if piece in {"(", "[", "{"}:
            around.append(piece)
        elif piece in {")", "]", "}"}:
            around.pop()
        is_key = piece == ":" and around[-1:] == ["{"] and parts[index - 2] in {"{", ","} and is_name(before)
        if piece == ":" and not is_key and not parts[index + 1].startswith((prefix, "(")):
            found.append(parts[index + 1])
        if piece in {"!", "%"} and before in {":", "|", "&", "("}:
            found.append(piece)
        if before != "." and piece.upper() in FORBIDDEN:
            found.append(piece)
        if not entries and before == "." and piece.startswith("`ns:") and not piece.startswith(prefix):
            found.append(piece)
    return found


def reaches_everybody(text: str) -> bool:
    """Whether a path of ``MATCH`` in *text* could begin at anybody's node."""
    bound: set[str] = set()
    parts = pieces(text)
    for index, piece in enumerate(parts):
        word = piece.upper()
        if word == "AS" and parts[index - 1] in bound:
            bound.add(parts[index + 1])
        if word not in {"MATCH", "CREATE", "MERGE"} or parts[index - 1].upper() == "ON":
            continue
        for path in paths(parts[index + 1 :]):
            names = {name for before, name in pairwise(path) if before == "(" and is_name(name)}
            if word == "MATCH" and not OWN.search(" ".join(path)) and not names & bound:
                return True
            bound |= names
    return False


def paths(parts: list[str]) -> list[list[str]]:
    """The paths that *parts* begin with, as between commas outside of brackets."""
    found: list[list[str]] = [[]]
    depth = 0
    for piece in parts:
        depth += (piece in {"(", "[", "{"}) - (piece in {")", "]", "}"})
        if depth < 0 or (not depth and piece.upper() in ENDS_PATTERN):
            break
        if piece == "," and not depth:
            found.append([])
        else:
            found[-1].append(piece)
    return found
