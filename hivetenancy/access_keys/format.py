"""What an access key looks like, where a request carries it, and the digest that stands for it.

A key is bytes from end to end: 16 to 512 visible ASCII characters, never trimmed, decoded or normalised, because two
spellings of one key would be two entries of a cache and two answers. A request carries exactly one, in one of three
headers (`CARRIERS`). Two credentials are refused rather than ranked: a proxy that looks at the first and a server that
looks at the second would speak of different callers. A key in the query is refused even beside a good header, since
queries end up in logs.

What is kept of a key is its digest, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from hivetenancy.decision import Reason

MIN_LENGTH: Final = 16
"""Shortest key in bytes."""

MAX_LENGTH: Final = 512
"""Longest key in bytes; nothing longer is ever hashed, so that a huge header costs nothing."""

CARRIERS: Final = frozenset({b"authorization", b"x-api-key", b"x-hub-access-key"})
"""The headers that may carry a key, in lower case."""

QUERY_NAMES: Final = frozenset(
    {b"access_token", b"api_key", b"apikey", b"access_key", b"x_api_key", b"x_hub_access_key"}
)
"""Query parameters that are taken for a key, in lower case with ``-`` written ``_``.

A short list on purpose: ``key``, ``token`` and ``auth`` are ordinary parameters of data servers (``?key=user:1``).
"""

DIGEST_PREFIX: Final = b"hivehub-key-1\n"
"""Hashed before the key, so that a digest is of use for nothing else (HiveHub wire 4.3)."""

_VISIBLE: Final = bytes(range(0x21, 0x7F))
_USUAL: Final = re.compile(rb"Bearer ([!-~]{16,512})").fullmatch  # scheme, length and characters in one go
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HINT: Final = re.compile(rb"key|token|%", re.IGNORECASE)  # each of QUERY_NAMES holds one; most queries hold none
_SEPARATOR: Final = re.compile(rb"[&;]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")

# Shapes that are keys wherever they stand: what HiveHub issues, its service keys, and whatever follows a carrier.
_SECRETS: Final = re.compile(
    r"(?P<kept>\b(?:hh|svc|nx)_(?:[a-z]+_)?"
    r"|(?i:\bbearer |\b(?:x-api-key|x-hub-access-key)['\"]?[:=,] ?b?['\"]?"
    r"|[?&;](?:access_token|api[_-]?key|access[_-]key|x-api-key|x-hub-access-key)=))"
    r"[^\s&;,'\"]+"
)


def digest(credential: bytes) -> bytes:
    """Return the 32 bytes that stand for *credential* in caches and in the hub's batch call.

    Source:
        HiveHub wire 4.3: SHA-256 of ``hivehub-key-1``, a line feed and the key. A fast hash is right here: keys have
        128 bits or more, so there is nothing to guess.

    Example:
        >>> digest(b"hh_live_0123456789").hex()[:16]
        '9b09d4c5d6172ec0'
    """
    return sha256(DIGEST_PREFIX + credential).digest()


def digest_prefix(known: bytes) -> str:
    """Return the first 16 hex digits of the digest *known*, by which the hub announces a new secret."""
    return known[:8].hex()


def well_formed(credential: bytes) -> bool:
    """Say whether *credential* could be a key: 16 to 512 bytes, each visible ASCII (0x21 to 0x7e).

    A value of any length costs no more than one of 512 bytes.
    """
    return MIN_LENGTH <= len(credential) <= MAX_LENGTH and not credential.translate(None, _VISIBLE)


def equal(left: bytes, right: bytes) -> bool:
    """Compare two secrets or digests in a time that does not tell where they differ."""
    return compare_digest(left, right)


def credential_from_text(text: bytes) -> bytes | Reason:
    """Return the key that a line protocol was given (``AUTH <key>``), or why it is none.

    Returns:
        *text* itself, `Reason.NO_CREDENTIAL` when it is empty, or `Reason.MALFORMED_CREDENTIAL`. Nothing is trimmed.
    """
    if not text:
        return Reason.NO_CREDENTIAL
    return text if well_formed(text) else Reason.MALFORMED_CREDENTIAL


def find_credential(headers: Collection[tuple[bytes, bytes]], query_string: bytes = b"") -> bytes | Reason:
    """Find the one access key of a request.

    ``Authorization`` counts with the scheme Bearer (in any case, one space); with another scheme it carries no key, so
    that a key in ``X-API-Key`` beside ``Authorization: Basic`` is one credential. A header given twice is ambiguous
    even if both say the same.

    Args:
        headers: Names in lower case and values, as ASGI has them; names of another case are not seen. Walked twice
            where there are several carriers, hence no iterator.
        query_string: The raw query, without ``?``.

    Returns:
        The key, or `Reason.NO_CREDENTIAL`, `Reason.AMBIGUOUS_CREDENTIAL`, `Reason.CREDENTIAL_IN_QUERY` or
        `Reason.MALFORMED_CREDENTIAL`. No reason holds any part of what was sent.

    Concurrency:
        Pure.
    """
    if query_string and _HINT.search(query_string) and _in_query(query_string):
        return Reason.CREDENTIAL_IN_QUERY
    found, value = None, b""
    for name, text in headers:
        if name in {b"authorization", b"x-api-key", b"x-hub-access-key"}:  # `CARRIERS`; a constant set is quicker
            if found is not None:
                return _several(headers)
            found, value = name, text
    if found is None:
        return Reason.NO_CREDENTIAL
    if found == b"authorization":
        usual = _USUAL(value)
        return usual[1] if usual is not None else _unusual(value)
    return value if well_formed(value) else Reason.MALFORMED_CREDENTIAL


def redact(text: str) -> str:
    """Return *text* with everything that looks like a key replaced by ``***``, for logs of other people's text.

    Knows the keys that HiveHub issues, service keys, what follows ``Bearer`` and the key headers, and key parameters of
    a query. The library's own messages need none of it: they never hold a key.

    Example:
        >>> redact("GET /kv/a?api_key=0123456789 Authorization: Bearer abc.def")
        'GET /kv/a?api_key=*** Authorization: Bearer ***'
    """
    return _SECRETS.sub(r"\g<kept>***", text)


def _several(headers: Collection[tuple[bytes, bytes]]) -> bytes | Reason:
    """Judge a request with more than one carrier: one of them may be an ``Authorization`` of another scheme."""
    pairs = [(name, value) for name, value in headers if name in CARRIERS]
    if len(pairs) < 2:  # an iterator after all, and the first is gone
        return Reason.AMBIGUOUS_CREDENTIAL
    named = dict(pairs)
    if _bearer(named.get(b"authorization", b"")) is Reason.NO_CREDENTIAL:
        del named[b"authorization"]
    if len(named) != 1 or len(dict(pairs)) != len(pairs):
        return Reason.AMBIGUOUS_CREDENTIAL
    return find_credential(tuple(named.items()))


def _unusual(value: bytes) -> bytes | Reason:
    """Judge an ``Authorization`` that does not begin with exactly ``Bearer`` and a space."""
    credential = _bearer(value)
    if isinstance(credential, Reason):
        return credential
    return credential if well_formed(credential) else Reason.MALFORMED_CREDENTIAL


def _bearer(value: bytes) -> bytes | Reason:
    """Return what follows the scheme Bearer; `NO_CREDENTIAL` for another scheme, `MALFORMED_CREDENTIAL` for none."""
    scheme, _, credential = value[: MAX_LENGTH + 8].partition(b" ")
    if not _TOKEN.fullmatch(scheme):
        return Reason.MALFORMED_CREDENTIAL
    return credential if scheme.lower() == b"bearer" else Reason.NO_CREDENTIAL


def _in_query(query: bytes) -> bool:
    """Say whether a parameter of *query* has one of the `QUERY_NAMES`, however it is written."""
    for part in _SEPARATOR.split(query):
        name = part.partition(b"=")[0]
        if b"%" in name:  # decoded once, as every server does
            name = _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode("ascii")), name)
        if name.lower().replace(b"-", b"_") in QUERY_NAMES:
            return True
    return False
