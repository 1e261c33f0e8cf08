"""The tokens of Cypher: every character is accounted for, and reading takes time in proportion to the text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hivetenancy.errors import InvalidNameError
from hivetenancy.scopes.cypher import MAX_QUERY_CHARACTERS, RULES, QueryRefusedError, Reader


def tokens(text: str) -> list[str]:
    """The tokens of *text* without the two at the end that are the reader's own."""
    return list(Reader(text).tokens[:-2])


def refusal_of(text: str) -> QueryRefusedError | None:
    """The refusal of *text*, if it is refused."""
    try:
        Reader(text)
    except QueryRefusedError as refusal:
        return refusal
    return None


def whole(reader: Reader) -> str:
    """All that the reader holds, put together again."""
    return "".join(blank + token for blank, token in zip(reader.blanks, reader.tokens, strict=True))


@pytest.mark.parametrize(
    ("text", "expected", "kinds"),
    [
        ("MATCH (n:A)", ["MATCH", "(", "n", ":", "A", ")"], "wowowo"),
        ("n.a..b", ["n", ".", "a", "..", "b"], "wowow"),
        ("1..3 1.5 2e10 0xFF 0o17 1_000", ["1", "..", "3", "1.5", "2e10", "0xFF", "0o17", "1_000"], "nonnnnnn"),
        ("`a``b` `c`", ["`a``b`", "`c`"], "qq"),
        ("'a\\'b' \"c'd\" ''", ["'a\\'b'", '"c\'d"', "''"], "sss"),
        ("$p $0 $`a b` $", ["$p", "$0", "$`a b`", "$"], "pppp"),
        ("<> <= >= =~ += || != :: ..", ["<>", "<=", ">=", "=~", "+=", "||", "!=", "::", ".."], "ooooooooo"),
        ("<-->", ["<", "-", "-", ">"], "oooo"),
        ("a/**/b//c\nd/* ' ` */e", ["a", "b", "d", "e"], "wwww"),
        ("Straße n\u00e9e \u6771\u4eac", ["Straße", "n\u00e9e", "\u6771\u4eac"], "www"),
    ],
)
def test_what_is_one_token(text: str, expected: list[str], kinds: str) -> None:
    """Words, names, texts, numbers, parameters, operators and comments begin and end where Cypher says."""
    reader = Reader(text)
    assert list(reader.tokens[:-2]) == expected
    assert "".join(reader.kinds[:-2]) == kinds


PIECES = [
    "MATCH",
    "n",
    "`a``b`",
    "'x\\n'",
    '"y"',
    "12",
    "1.5",
    "$p",
    "$`q`",
    "(",
    ")",
    "..",
    "<=",
    "-",
    "\u00e9t\u00e9",
]
BLANKS = [" ", "\n", "/*c*/", "\u2003", "//d\n"]


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(BLANKS)), max_size=20))
def test_tokens_and_blanks_are_the_text(parts: list[tuple[str, str]]) -> None:
    """Tokens come back as they were written, and with the blanks between them they are the text again."""
    text = "".join(piece + blank for piece, blank in parts)
    refusal = refusal_of(text)
    if refusal is not None:  # brackets that do not pair
        assert refusal.rule in {"syntax", "too-deep"}
        return
    reader = Reader(text)
    assert list(reader.tokens[:-2]) == [piece for piece, _ in parts]
    assert whole(reader) == text + "\n;;"
    begins = [sum(len(piece + blank) for piece, blank in parts[:index]) for index in range(len(parts))]
    assert [reader.position(index) for index in range(len(parts))] == begins


@given(st.text())
@example("'\\'")
@example("/*/")
@example("$`")
@example("1e5x")
@example("\ud800")
def test_every_character_is_accounted_for(text: str) -> None:
    """Any text is cut into tokens without a gap, or refused by a rule with a place inside it."""
    refusal = refusal_of(text)
    if refusal is None:
        assert whole(Reader(text)) == text + "\n;;"
    else:
        assert refusal.rule in RULES
        assert 0 <= refusal.position <= len(text)


@pytest.mark.parametrize(
    "beginning", ["/*", "'", "`", '"', "'\\", "$`", "((", "/* *", "//", "1e", "\\u", "``", "\u00e9 "]
)
def test_reading_is_linear(beginning: str) -> None:
    """What begins something over and over is read in one pass: a quadratic reader would take minutes here."""
    text = (beginning * MAX_QUERY_CHARACTERS)[:MAX_QUERY_CHARACTERS]
    refusal = refusal_of(text)
    assert refusal is None or refusal.rule in RULES


@pytest.mark.parametrize(
    ("text", "doubtful"),
    [
        (r"'\u00e9'", False),
        (r"'\ud83d\ude00'", False),
        (r"'\\ \' \" \n \t'", False),
        (r"'\u0027'", True),
        (r"'\u0041'", True),
        (r"'\\u0027'", True),
        (r"'\\\u0027'", True),
        (r"'\uu0027'", True),
        (r"'\u27'", True),
        (r"'\U0001F600'", True),
        (r"'\x27'", True),
        (r"`a\u0060`", True),
        (r"`a\b`", True),
        (r"/* \ */ 1", True),
    ],
)
def test_an_escape_means_one_thing_or_is_refused(text: str, doubtful: bool) -> None:
    """An escape passes where it means the same before and after quotes are looked for, and in no name or comment."""
    refusal = refusal_of(text)
    if doubtful:
        assert refusal is not None
        assert refusal.rule == "escape"
    else:
        assert tokens(text) == [text]


def test_a_lone_surrogate_is_refused() -> None:
    """Half a character, which no server could be sent, is refused in a text, too."""
    refusal = refusal_of("RETURN '\udc00'")
    assert refusal is not None
    assert refusal.rule == "unknown-character"


def test_the_longest_query_is_read() -> None:
    """A query of just the most characters passes, and one character more does not."""
    assert tokens("1" + " " * (MAX_QUERY_CHARACTERS - 1)) == ["1"]
    refusal = refusal_of("1" + " " * MAX_QUERY_CHARACTERS)
    assert refusal is not None
    assert refusal.rule == "too-long"


def test_a_query_is_text() -> None:
    """A query in bytes is refused as the wrong type, not decoded."""
    with pytest.raises(InvalidNameError):
        Reader(b"RETURN 1")  # type: ignore[arg-type]
