r"""The text of a tenant's id, made safe to stand inside a physical name: pure, injective, reversible.

A physical name is ``head + token + delimiter + logical name``, as ``user:{t}:{key}``. With free ids that collides:
tenant ``a`` with key ``:a`` and tenant ``a:`` with key ``a`` print the same. So the id is mapped to a *token* whose
alphabet is ``[a-z0-9-]`` and the escape ``_xx`` (two lower-case hex digits of one UTF-8 byte); no delimiter is in it.
UUIDs and slugs map to themselves.

Why it holds: a token is a concatenation of code words, one safe byte or ``_xx``, of which none begins another, so it
can be read back in one way only. If one tenant's prefix began another's, the first delimiter after the head would end
both tokens at the same place, so the tenants would be one. Hence whatever follows a prefix belongs to its tenant byte
for byte, ``startswith(prefix)`` decides ownership, and order among a tenant's names is that of their logical names.

Nothing is ever trimmed, folded or repaired: what is not exactly right is refused.

Source: isolation note, section 4.2, rules R1 to R5.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from itertools import combinations
from typing import Final

from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId

TOKEN_BYTES_MAX: Final = 128
"""Longest token: leaves room for the name in stores with 249 (Kafka) or 255 bytes (file systems)."""

_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
_TOKEN: Final = re.compile(r"(?:[a-z0-9-]|_[0-9a-f]{2})+")
_ESCAPE: Final = re.compile(r"_([0-9a-f]{2})")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Spelt out rather than left to `uuid.UUID`, which also takes braces, "urn:", stray hyphens and full-width digits.
_UUID_SPELLINGS: Final = re.compile(
    r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}"
)
#: Names that Windows takes for devices, in any folder and with any suffix.
DEVICES: Final = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))})


class IdScheme(StrEnum):
    """Which texts are tenant ids. One for a deployment, for its whole life."""

    UUID = "uuid"
    """A UUID, hyphenated or as 32 hex digits, in either case; all spellings of one number are one tenant."""
    SLUG = "slug"
    """``[a-z0-9][a-z0-9-]{0,62}``."""
    OPAQUE = "opaque"
    """Any text that is in NFC, holds no control character and fits the token."""


class UuidForm(StrEnum):
    """How a token prints a UUID. One for a deployment, as the scheme: a token printed the other way is none."""

    HYPHENATED = "hyphenated"
    """36 characters, as HiveHub, Vectorizer and Nexus print them."""
    SIMPLE = "simple"
    """32 hex digits, as Synap prints them."""


#: The longest token of each scheme, in bytes.
LONGEST_TOKEN: Final[Mapping[IdScheme, int]] = {
    IdScheme.UUID: 36,
    IdScheme.SLUG: 63,
    IdScheme.OPAQUE: TOKEN_BYTES_MAX,
}


def token_of(tenant: str, scheme: IdScheme = IdScheme.UUID, form: UuidForm = UuidForm.HYPHENATED) -> str:
    """Return the token of the tenant's id *tenant*, the same for the same tenant and for no other.

    Args:
        tenant: The id, exactly as it is; a ``str`` and no subclass.
        scheme: Which texts are ids.
        form: How a UUID is printed, always in lower case; of no effect under other schemes.

    Raises:
        InvalidNameError: *tenant* is no id of *scheme*. It is never trimmed, folded or repaired.

    Concurrency:
        Pure.

    Example:
        >>> token_of("550E8400E29B41D4A716446655440000")
        '550e8400-e29b-41d4-a716-446655440000'
        >>> token_of("ada@example.org", IdScheme.OPAQUE)
        'ada_40example_2eorg'
    """
    if scheme is IdScheme.UUID:
        plain = type(tenant) is str and _UUID.fullmatch(tenant)  # as HiveHub prints it: nothing to do
        text = tenant if plain else canonical(tenant, scheme)
        return text if form is UuidForm.HYPHENATED else text.replace("-", "")
    return encode(canonical(tenant, scheme))


def canonical(tenant: str, scheme: IdScheme = IdScheme.UUID) -> TenantId:
    """Return the one text that stands for the tenant *tenant* under *scheme*.

    Only the UUID scheme has several spellings of one id; the others return *tenant* itself.

    Raises:
        InvalidNameError: *tenant* is no id of *scheme*.
    """
    if type(tenant) is not str:
        raise InvalidNameError(f"a tenant's id is a str, not {type(tenant).__name__}")
    if scheme is IdScheme.UUID:
        if not _UUID_SPELLINGS.fullmatch(tenant):
            raise InvalidNameError("the tenant's id is no UUID; name another id scheme if ids are not UUIDs")
        digits = tenant.replace("-", "").lower()
        return TenantId(f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")
    if scheme is IdScheme.SLUG:
        if not _SLUG.fullmatch(tenant):
            raise InvalidNameError("the tenant's id is no slug: 1 to 63 of a-z, 0-9 and '-', not beginning with '-'")
        return TenantId(tenant)
    _check_opaque(tenant)
    return TenantId(tenant)


def tenant_of(token: str, scheme: IdScheme = IdScheme.UUID, form: UuidForm = UuidForm.HYPHENATED) -> TenantId:
    """Return the id whose token is *token*. For operators and migrations; never for deciding who owns a name.

    Raises:
        InvalidNameError: *token* is no token, or not that of an id of *scheme*.
    """
    tenant = canonical(decode(token), scheme)
    if token_of(tenant, scheme, form) != token:  # a UUID that is not printed as tokens are
        raise InvalidNameError("not a token: another spelling of this id is the canonical one")
    return tenant


def encode(text: str) -> str:
    """Return the token of any *text* (R2); identity on ``[a-z0-9][a-z0-9-]*`` but for the names of devices.

    Raises:
        InvalidNameError: *text* is empty, holds a lone surrogate, or its token passes `TOKEN_BYTES_MAX`.
    """
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidNameError("a tenant's id must not hold a lone surrogate") from None
    words = [chr(byte) if byte in _SAFE else f"_{byte:02x}" for byte in raw]
    if not words:
        raise InvalidNameError("a tenant's id must not be empty")
    if text[0] == "-" or text in DEVICES:
        words[0] = f"_{raw[0]:02x}"
    token = "".join(words)
    if len(token) > TOKEN_BYTES_MAX:
        raise InvalidNameError(f"the tenant's id takes {len(token)} bytes in a name; {TOKEN_BYTES_MAX} is the most")
    return token


def decode(token: str) -> str:
    """Return the text whose token is *token* (R3): exactly the inverse of `encode`.

    Raises:
        InvalidNameError: `encode` makes no such token; ``_61`` for ``a`` is refused, for example.
    """
    if type(token) is not str or not _TOKEN.fullmatch(token):
        raise InvalidNameError("not a token: only a-z, 0-9, '-' and '_' with two lower-case hex digits stand in one")
    raw = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), token).encode("latin-1")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidNameError("not a token: its bytes are no UTF-8") from None
    if encode(text) != token:
        raise InvalidNameError("not a token: its text is written another way")
    return text


def _check_opaque(tenant: str) -> None:
    if any(unicodedata.category(character) == "Cc" for character in tenant):
        raise InvalidNameError("a tenant's id must not hold control characters")
    if not unicodedata.is_normalized("NFC", tenant):
        raise InvalidNameError("a tenant's id must be in Unicode's normal form NFC; it is never folded for the caller")


def check_templates(templates: Mapping[str, str]) -> None:
    """Check that the prefixes made from *templates* can meet in one store without one beginning another (R5).

    A template is ``head{t}tail``, as ``user:{t}:``. Two kinds of names may have the very same template: they then share
    one set of names, as keys and streams do in Redis. Stricter than need be in one point, to stay easy to check by eye:
    the head of a template must not begin another head, even where no token could follow it.

    Args:
        templates: By kind of name.

    Raises:
        ConfigurationError: A template has not exactly one ``{t}``, no tail, a tail whose first character could belong
            to a token, or anything but printable ASCII without glob metacharacters; or two templates overlap.
    """
    parts = {kind: split_template(kind, template) for kind, template in templates.items()}
    for (kind, mine), (other, theirs) in combinations(parts.items(), 2):
        if mine != theirs and not _apart(mine, theirs):
            raise ConfigurationError(
                f"the templates of {kind} and {other} overlap: begin them with heads of which none begins the other, "
                "or give both the same head and tails of which none begins the other"
            )


def split_template(kind: str, template: str) -> tuple[str, str]:
    """Return head and tail of the template of *kind*; raises as `check_templates`."""
    head, found, tail = template.partition("{t}")
    if not found or "{t}" in tail:
        raise ConfigurationError(f"the template of {kind} must hold {{t}} exactly once, got {template!r}")
    if not tail or tail[0] == "_" or ord(tail[0]) in _SAFE:
        raise ConfigurationError(f"the template of {kind} must go on, after {{t}}, with a character no token holds")
    if not all("\x20" < character < "\x7f" and character not in "*?[\\" for character in head + tail):
        raise ConfigurationError(f"the template of {kind} must be printable ASCII without any of * ? [ \\")
    return head, tail


def _apart(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether no prefix made from *one* begins a prefix made from *other*, or the other way round."""
    (head, tail), (other_head, other_tail) = one, other
    if head != other_head:
        return not head.startswith(other_head) and not other_head.startswith(head)
    return not tail.startswith(other_tail) and not other_tail.startswith(tail)
