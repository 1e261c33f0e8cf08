"""Finding one credential, and nothing else, in what a client sends."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.access_keys import format as form
from hivetenancy.decision import Reason

KEY = b"hh_live_" + b"a1B2" * 8
OTHER = b"hh_live_" + b"z9Y8" * 8
FOUND, NONE = KEY, Reason.NO_CREDENTIAL
TWO, BAD = Reason.AMBIGUOUS_CREDENTIAL, Reason.MALFORMED_CREDENTIAL

Headers = Sequence[tuple[bytes, bytes]]


def bearer(value: bytes) -> Headers:
    """One ``Authorization`` header."""
    return [(b"host", b"a"), (b"authorization", value), (b"accept", b"*/*")]


TABLE: dict[str, tuple[Headers, bytes | Reason]] = {
    "nothing": ([(b"host", b"a")], NONE),
    "bearer": (bearer(b"Bearer " + KEY), FOUND),
    "bearer in lower case": (bearer(b"bearer " + KEY), FOUND),
    "bearer in any case": (bearer(b"bEaReR " + KEY), FOUND),
    "x-api-key": ([(b"x-api-key", KEY)], FOUND),
    "x-hub-access-key": ([(b"x-hub-access-key", KEY)], FOUND),
    "another scheme": (bearer(b"Basic dXNlcjpwYXNz"), NONE),
    "another scheme that begins alike": (bearer(b"BearerX " + KEY), NONE),
    "a key without scheme": (bearer(KEY), NONE),
    "another scheme and a key": ([(b"authorization", b"Basic dXNl"), (b"x-api-key", KEY)], FOUND),
    "a key and another scheme": ([(b"x-api-key", KEY), (b"authorization", b"Basic dXNl")], FOUND),
    "two spaces": (bearer(b"Bearer  " + KEY), BAD),
    "a tab": (bearer(b"Bearer\t" + KEY), BAD),
    "no space": (bearer(b"Bearer"), BAD),
    "nothing after the space": (bearer(b"Bearer "), BAD),
    "a trailing space": (bearer(b"Bearer " + KEY + b" "), BAD),
    "a leading space": (bearer(b" Bearer " + KEY), BAD),
    "an empty header": (bearer(b""), BAD),
    "joined by a comma": (bearer(b"Bearer " + KEY + b", Bearer " + OTHER), BAD),
    "a folded line": (bearer(b"Bearer " + KEY[:20] + b"\r\n " + KEY[20:]), BAD),
    "an empty key": ([(b"x-api-key", b"")], BAD),
    "15 bytes": ([(b"x-api-key", b"k" * 15)], BAD),
    "16 bytes": ([(b"x-api-key", b"k" * 16)], b"k" * 16),
    "512 bytes": (bearer(b"Bearer " + b"k" * 512), b"k" * 512),
    "513 bytes": (bearer(b"Bearer " + b"k" * 513), BAD),
    "513 bytes, bearer in lower case": (bearer(b"bearer " + b"k" * 513), BAD),
    "a megabyte": ([(b"x-api-key", b"k" * 1_000_000)], BAD),
    "nul": ([(b"x-api-key", KEY + b"\x00")], BAD),
    "delete": ([(b"x-api-key", KEY + b"\x7f")], BAD),
    "latin-1": ([(b"x-api-key", KEY + b"\xe9")], BAD),
    "no-break space": (bearer(b"Bearer\xa0" + KEY), BAD),
    "two of one header": ([(b"x-api-key", KEY), (b"x-api-key", OTHER)], TWO),
    "the same twice": ([(b"x-api-key", KEY), (b"x-api-key", KEY)], TWO),
    "two authorizations": ([*bearer(b"Bearer " + KEY), *bearer(b"Bearer " + KEY)], TWO),
    "basic and bearer": ([*bearer(b"Basic dXNl"), *bearer(b"Bearer " + KEY)], TWO),
    "two headers": ([*bearer(b"Bearer " + KEY), (b"x-api-key", KEY)], TWO),
    "two key headers": ([(b"x-hub-access-key", KEY), (b"x-api-key", OTHER)], TWO),
    "basic and two keys": ([*bearer(b"Basic a"), (b"x-hub-access-key", KEY), (b"x-api-key", KEY)], TWO),
    "a broken scheme and a key": ([*bearer(b"Bearer\t"), (b"x-api-key", KEY)], TWO),
    "trusted headers": ([(b"x-hivehub-service", b"1"), (b"x-hivehub-user-id", b"victim")], NONE),
}


@pytest.mark.parametrize("name", TABLE)
def test_find_credential(name: str) -> None:
    """One credential is found, none is told from a bad one, and two are never ranked."""
    headers, expected = TABLE[name]
    assert form.find_credential(headers) == expected
    assert form.find_credential(tuple(headers)) == expected


def test_an_iterator_never_hides_a_second_key() -> None:
    """Headers that can be walked only once are refused where there are several carriers."""
    headers = [(b"x-api-key", KEY), (b"authorization", b"Bearer " + OTHER), (b"accept", b"a")]
    assert form.find_credential(iter(headers)) is TWO  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query",
    [
        *(
            b"api_key=x",
            b"a=1&apikey=x",
            b"API-Key=x",
            b"access_token=x",
            b"access_key",
            b"X-API-Key=",
            b"x-hub-access-key=x",
        ),
        *(b"x-hub-access-key=x", b"%61pi_key=x", b"api%5fkey=x", b"a=1;api_key=x", b"%41CCESS%2dKEY=x"),
    ],
)
def test_a_key_in_the_query_is_refused(query: bytes) -> None:
    """However it is written, and also beside a good header."""
    assert form.find_credential([], query) is Reason.CREDENTIAL_IN_QUERY
    assert form.find_credential([(b"x-api-key", KEY)], query) is Reason.CREDENTIAL_IN_QUERY


@pytest.mark.parametrize(
    "query", [b"", b"key=user:1", b"token=a", b"prefix=api_key", b"keys=1&monkey=2", b"q=%zz&%", b"my_api_key=1"]
)
def test_an_ordinary_query_is_left_alone(query: bytes) -> None:
    """A parameter called key or token belongs to the data server."""
    assert form.find_credential([(b"x-api-key", KEY)], query) == KEY


@given(st.binary(max_size=600))
def test_only_visible_ascii_of_the_right_length_is_a_key(value: bytes) -> None:
    """The three places that judge a key's shape agree with the rule as it is written."""
    good = 16 <= len(value) <= 512 and all(0x21 <= byte <= 0x7E for byte in value)
    assert form.well_formed(value) == good
    expected = value if good else BAD
    assert form.find_credential([(b"x-api-key", value)]) == expected
    assert form.find_credential([(b"authorization", b"Bearer " + value)]) == expected
    assert form.find_credential([(b"authorization", b"bearer " + value)]) == expected
    assert form.credential_from_text(value) == (expected if value else NONE)


@given(st.lists(st.tuples(st.sampled_from([*sorted(form.CARRIERS), b"host"]), st.binary(max_size=40)), max_size=4))
def test_no_headers_make_it_raise(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever stands in the headers, the answer is a key of theirs or a reason."""
    found = form.find_credential(headers)
    assert isinstance(found, Reason) or any(value.endswith(found) for _, value in headers)


def test_the_digest_is_the_one_of_the_wire() -> None:
    """SHA-256 of the prefix and the key; its first 16 hex digits announce a new secret."""
    expected = hashlib.sha256(b"hivehub-key-1\n" + KEY)
    assert form.digest(KEY) == expected.digest()
    assert form.digest_prefix(form.digest(KEY)) == expected.hexdigest()[:16]


def test_comparing_secrets() -> None:
    """Equal is equal, whatever the lengths."""
    assert form.equal(KEY, bytes(KEY))
    assert not form.equal(KEY, OTHER)
    assert not form.equal(KEY, KEY[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer CANARY",
        "authorization: bEARER CANARY, x",
        'GET /a?api_key=CANARY&b=1 HTTP/1.1" 400',
        "GET /a?x-api-key=CANARY",
        "X-API-Key: CANARY",
        "(b'x-api-key', b'CANARY')",
        "key hh_live_CANARY is",
        "svc_synap_CANARY",
    ],
)
def test_redact(text: str) -> None:
    """Nothing that looks like a key is left in a text, and the rest stays."""
    told = form.redact(text)
    assert "CANARY" not in told
    assert "***" in told
    assert told.replace("***", "CANARY") == text


def test_redact_leaves_the_rest() -> None:
    """An ordinary text is not touched."""
    text = "GET /kv/user:1?prefix=a&key=b HTTP/1.1 200 bearer"
    assert form.redact(text) == text
