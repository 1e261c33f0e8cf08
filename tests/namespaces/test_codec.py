"""The token of a tenant's id: one for each tenant, none for what is no id, and never a repair."""

from __future__ import annotations

import itertools
import random
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.namespaces.codec import (
    LONGEST_TOKEN,
    TOKEN_BYTES_MAX,
    IdScheme,
    UuidForm,
    canonical,
    check_templates,
    decode,
    encode,
    tenant_of,
    token_of,
)
from tests.tiers import examples

UUID = "550e8400-e29b-41d4-a716-446655440000"
TOKEN = re.compile(r"(?:[a-z0-9-]|_[0-9a-f]{2})+")
DEVICES = ["con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))]

ids = st.text(min_size=1, max_size=40)


def refused(text: str, scheme: IdScheme = IdScheme.UUID) -> bool:
    """Whether a text is no id."""
    try:
        token_of(text, scheme)
    except InvalidNameError:
        return True
    return False


@given(text=ids)
def test_a_token_is_read_back(text: str) -> None:
    """Any text comes back from its token, which holds only what a token may hold."""
    try:
        token = encode(text)
    except InvalidNameError:
        assert len(text.encode("utf-8", "surrogatepass")) * 3 > TOKEN_BYTES_MAX or re.search(r"[\ud800-\udfff]", text)
        return
    assert decode(token) == text
    assert TOKEN.fullmatch(token)
    assert len(token) <= TOKEN_BYTES_MAX


@given(token=st.text(alphabet="ab_0159-cf", min_size=1, max_size=12))
def test_a_token_that_is_accepted_is_the_only_one(token: str) -> None:
    """What `decode` accepts is just what `encode` makes: no second spelling, no repair."""
    try:
        text = decode(token)
    except InvalidNameError:
        return
    assert encode(text) == token


def test_every_short_id_has_a_token_of_its_own() -> None:
    """All strings up to four characters of a nasty alphabet have different tokens, and none begins another's prefix."""
    alphabet, longest = "ab_:5f/.A*-", examples(3, 5)
    seen: dict[str, str] = {}
    for length in range(1, longest + 1):
        for characters in itertools.product(alphabet, repeat=length):
            text = "".join(characters)
            token = encode(text)
            assert seen.setdefault(token, text) == text
            assert decode(token) == text
    prefixes = sorted(f"user_{token}:" for token in seen)
    assert not any(after.startswith(before) for before, after in itertools.pairwise(prefixes))


def test_random_ids_of_any_script_have_tokens_of_their_own() -> None:
    """A seeded walk over Unicode finds no two ids with one token, whatever folding or normalising would merge."""
    draw = random.Random(20_240_817)
    seen: dict[str, str] = {}
    for _ in range(examples(2_000, 1_000_000)):
        text = "".join(
            chr(draw.choice((draw.randrange(128), draw.randrange(0xD800), draw.randrange(0xE000, 0x110000))))
        )
        text *= draw.randrange(1, 4)
        token = encode(text)
        assert seen.setdefault(token, text) == text
        assert decode(token) == text


@pytest.mark.parametrize("text", ["ada@example.org", "a/b", "Alice", "a_b", "é", "-a", "a.b", "*"])
def test_an_escaped_id(text: str) -> None:
    """What is not in the alphabet is escaped byte by byte, case included, so tokens survive systems that fold case."""
    token = encode(text)
    assert token == token.lower() != text
    assert decode(token) == text


def test_what_tokens_look_like() -> None:
    """The literal tokens of a few ids, byte for byte."""
    assert encode("ada@example.org") == "ada_40example_2eorg"
    assert encode("A_é") == "_41_5f_c3_a9"
    assert encode("-a-") == "_2da-"
    assert encode("con") == "_63on"
    assert encode("con0") == "con0"


@pytest.mark.parametrize("device", DEVICES)
def test_a_token_is_no_device_of_windows(device: str) -> None:
    """A token may become a folder, so none is a name that Windows takes for a device."""
    assert len(DEVICES) == 24
    assert encode(device) not in DEVICES
    assert decode(encode(device)) == device
    with pytest.raises(InvalidNameError):
        decode(device)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "_61",
        "_6",
        "_",
        "_6G",
        "_2D",
        "A",
        "a:b",
        "a b",
        "é",
        "-a",
        "con",
        "a\n",
        "_ff",
        "_c3",
        "_ed_a0_80",
        "a.b",
        "_0a\n",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """A text that `encode` does not make is no token, though it could be read somehow."""
    with pytest.raises(InvalidNameError):
        decode(token)


def test_what_is_no_string_is_no_token() -> None:
    """Neither bytes nor nothing is a token or an id."""
    for wrong in (None, b"abc", 5):
        with pytest.raises(InvalidNameError):
            decode(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidNameError):
            token_of(wrong)  # type: ignore[arg-type]


# --- schemes --------------------------------------------------------------------------------------------------------


@given(value=st.uuids())
def test_a_uuid_is_its_own_token(value: uuid.UUID) -> None:
    """A UUID's token is its canonical text, whichever of the four accepted spellings the id has."""
    text = str(value)
    for spelling in (text, text.upper(), value.hex, value.hex.upper()):
        assert token_of(spelling) == text
        assert canonical(spelling) == text
    assert tenant_of(text) == text


@pytest.mark.parametrize(
    "alias",
    [
        *("{" + UUID + "}", "urn:uuid:" + UUID, UUID + "\n", " " + UUID, UUID + " ", UUID[:-1], UUID + "0", ""),
        *(UUID.replace("-", "", 1), UUID.replace("-", "--", 1), UUID.replace("-", "_"), UUID.replace("5", "５")),
        *(UUID.replace("-", "\u2010"), UUID.replace("a", "g"), "5-50e8400e29b41d4a716446655440000", "user:" + UUID),
        *("0x" + UUID.replace("-", "")[2:], UUID.replace("-", "").replace("4", "٤"), "default", "standalone", "None"),
    ],
)
def test_an_alias_of_a_uuid_is_refused(alias: str) -> None:
    """Spellings that other readers of UUIDs take, and Unicode digits, are refused rather than repaired."""
    assert refused(alias)


def test_a_token_of_another_spelling_is_refused() -> None:
    """Read back, only the print of a UUID that is in force is a token, with hyphens or without."""
    simple = UUID.replace("-", "")
    for token in (simple, encode(UUID.upper()), encode(simple.upper())):
        with pytest.raises(InvalidNameError, match="another spelling"):
            tenant_of(token)
    assert tenant_of(simple, form=UuidForm.SIMPLE) == UUID
    with pytest.raises(InvalidNameError):
        tenant_of(UUID, form=UuidForm.SIMPLE)


@given(value=st.uuids())
def test_a_uuid_without_hyphens(value: uuid.UUID) -> None:
    """In the simple form the token of every spelling is the 32 digits, and the id is what it was."""
    for spelling in (str(value), str(value).upper(), value.hex, value.hex.upper()):
        assert token_of(spelling, form=UuidForm.SIMPLE) == value.hex
    assert tenant_of(value.hex, form=UuidForm.SIMPLE) == str(value)
    assert token_of("a-b", IdScheme.SLUG, UuidForm.SIMPLE) == "a-b"


@pytest.mark.parametrize("slug", ["a", "0", "acme", "a-b-", "a--b", "a" * 63, "con"])
def test_a_slug(slug: str) -> None:
    """A slug is an id, and its own token unless it is a device of Windows."""
    assert token_of(slug, IdScheme.SLUG) == (slug if slug != "con" else "_63on")
    assert tenant_of(token_of(slug, IdScheme.SLUG), IdScheme.SLUG) == slug


@pytest.mark.parametrize("text", ["", "-a", "A", "a_b", "a.b", "a:b", "a\n", "a" * 64, "é", "a b", "ａ", "²"])
def test_what_is_no_slug_is_refused(text: str) -> None:
    """A slug is ASCII, lower case, without a leading hyphen and without a trailing newline."""
    assert refused(text, IdScheme.SLUG)


@pytest.mark.parametrize(
    "text", ["\x00", "a\n", "\x7f", "\x85", "e\u0301", "\u212b", "\ud800", "", "a" * 129, "é" * 22]
)
def test_what_is_no_opaque_id_is_refused(text: str) -> None:
    """Control characters, text not in NFC, lone surrogates and what does not fit are refused, never folded."""
    assert refused(text, IdScheme.OPAQUE)


def test_the_longest_tokens() -> None:
    """The bound that is stated for each scheme is reached and not passed."""
    longest = {IdScheme.UUID: UUID, IdScheme.SLUG: "a" * 63, IdScheme.OPAQUE: "a" * TOKEN_BYTES_MAX}
    assert {scheme: len(token_of(text, scheme)) for scheme, text in longest.items()} == dict(LONGEST_TOKEN)


# --- templates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("user:", "exactly once"),
        ("{t}:{t}:", "exactly once"),
        ("user:{t}", "no token holds"),
        ("user:{t}_", "no token holds"),
        ("user:{t}-x", "no token holds"),
        ("user:{t}a:", "no token holds"),
        ("us*r:{t}:", "printable ASCII"),
        ("user[{t}:", "printable ASCII"),
        ("user:{t}:\n", "printable ASCII"),
        ("usér:{t}:", "printable ASCII"),
        ("user:{t}:\\", "printable ASCII"),
    ],
)
def test_a_bad_template_is_refused(template: str, message: str) -> None:
    """A template that would let tenants meet, or that a pattern would trip over, is refused with the remedy."""
    with pytest.raises(ConfigurationError, match=message):
        check_templates({"keys": template})


@pytest.mark.parametrize(
    "pair",
    [("user:{t}:", "user:{t}:s:"), ("user_{t}:", "user_ns:{t}:"), ("{t}:", "user:{t}:"), ("u{t}.", "u{t}.x")],
)
def test_templates_that_overlap_are_refused(pair: tuple[str, str]) -> None:
    """Two kinds whose names could meet in one store are refused, in either order."""
    for first, second in (pair, pair[::-1]):
        with pytest.raises(ConfigurationError, match="overlap"):
            check_templates({"one": first, "other": second})


pieces = st.text(alphabet="us:_.{}-a/", max_size=4)
templates = st.builds("{}{{t}}{}".format, pieces, pieces)
tokens = st.text(alphabet="as-0", min_size=1, max_size=4).map(encode)


@given(first=templates, second=templates, one=tokens, other=tokens)
def test_prefixes_of_accepted_templates_keep_apart(first: str, second: str, one: str, other: str) -> None:
    """Of templates that are accepted together, no prefix begins one of another tenant or of another kind."""
    try:
        check_templates({"one": first, "other": second})
    except ConfigurationError:
        return
    prefix, following = first.replace("{t}", one), second.replace("{t}", other)
    if (first, one) != (second, other):
        assert not prefix.startswith(following)
        assert not following.startswith(prefix)


def test_without_the_check_prefixes_do_meet() -> None:
    """The property above can fail: templates without a delimiter put one tenant's names inside another's."""
    assert "user:{t}".replace("{t}", "12").startswith("user:{t}".replace("{t}", "1"))


def test_kinds_may_share_a_template() -> None:
    """The very same template for two kinds is a choice: they share one set of names."""
    check_templates({"keys": "user:{t}:", "streams": "user:{t}:", "queues": "user_{t}:", "tagged": "tag:{{t}}:"})


@pytest.mark.parametrize(
    ("tenant", "scheme", "rule"),
    [
        (7, IdScheme.UUID, "a tenant's id is a str, not int"),
        ("acme", IdScheme.UUID, "the tenant's id is no UUID; name another id scheme if ids are not UUIDs"),
        (
            "Acme",
            IdScheme.SLUG,
            "the tenant's id is no slug: 1 to 63 of a-z, 0-9 and '-', not beginning with '-'",
        ),
        ("", IdScheme.OPAQUE, "a tenant's id must not be empty"),
        ("a\x00", IdScheme.OPAQUE, "a tenant's id must not hold control characters"),
        ("a\ud800", IdScheme.OPAQUE, "a tenant's id must not hold a lone surrogate"),
        (
            "e\u0301",
            IdScheme.OPAQUE,
            "a tenant's id must be in Unicode's normal form NFC; it is never folded for the caller",
        ),
        ("A" * 50, IdScheme.OPAQUE, "the tenant's id takes 150 bytes in a name; 128 is the most"),
    ],
)
def test_an_id_is_refused_by_the_rule_that_it_breaks(tenant: str, scheme: IdScheme, rule: str) -> None:
    """The message is the rule, so that whoever sent the id can mend it."""
    with pytest.raises(InvalidNameError) as refused:
        token_of(tenant, scheme)
    assert str(refused.value) == rule


@pytest.mark.parametrize(
    ("token", "rule"),
    [
        ("A", "only a-z, 0-9, '-' and '_' with two lower-case hex digits stand in one"),
        ("_ff", "its bytes are no UTF-8"),
        ("_61", "its text is written another way"),
    ],
)
def test_a_token_is_refused_by_the_rule_that_it_breaks(token: str, rule: str) -> None:
    """The message is the rule here too."""
    with pytest.raises(InvalidNameError) as refused:
        decode(token)
    assert str(refused.value) == f"not a token: {rule}"


def test_the_token_of_another_spelling_says_so() -> None:
    """A UUID that is not printed as tokens are is no token."""
    with pytest.raises(InvalidNameError) as refused:
        tenant_of("550e8400e29b41d4a716446655440000")
    assert str(refused.value) == "not a token: another spelling of this id is the canonical one"


@pytest.mark.parametrize("strange", ["user {t}:", "user\x7f{t}:", "user:{t}:*", "user:{t}:["])
def test_a_template_is_printable_and_holds_no_wildcard(strange: str) -> None:
    """Blanks, DEL and wildcards are refused in head and tail, and the message names the kind."""
    with pytest.raises(ConfigurationError) as refused:
        check_templates({"keys": strange})
    assert str(refused.value) == "the template of keys must be printable ASCII without any of * ? [ \\"


def test_overlapping_templates_are_told_the_remedy() -> None:
    """The message names both kinds and says what to change."""
    with pytest.raises(ConfigurationError) as refused:
        check_templates({"keys": "user:{t}:", "queues": "user:{t}:q:"})
    assert str(refused.value) == (
        "the templates of keys and queues overlap: begin them with heads of which none begins the other, "
        "or give both the same head and tails of which none begins the other"
    )
