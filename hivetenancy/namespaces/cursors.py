"""Cursors of listings: where the next part begins, sealed so that nobody but its tenant can hand one in.

A cursor is the last logical name that was shown, with a MAC over it, the tenant's prefix of that kind of names, and
what the listing was confined to. It is not secret from the tenant that it was given to, which has just read that name;
what matters is that no other cursor is taken. One of another tenant, of another listing, a changed one and one that
never was fail at the same line with the same message.

The last name shown rather than the first not shown: what is written in between the two while a reader turns the page
is then not skipped.

Source: isolation note, A20; keyed BLAKE2 is RFC 7693, `person` keeps this use of a secret apart from every other.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from itertools import pairwise
from typing import Any, Final

from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError

from .names import check_bound
from .protocol import NameScope, Page

SECRET_BYTES_MIN: Final = 16
"""Shortest secret: 128 bits, as many as the MAC has."""

_MAC_BYTES: Final = 16


def cursor_key(secret: bytes) -> bytes:
    """Return the key for cursors that follows from *secret*, of any length from `SECRET_BYTES_MIN`.

    Args:
        secret: The same in every process that serves one listing.

    Raises:
        ConfigurationError: It is shorter, or no ``bytes``; the message does not show it.
    """
    if type(secret) is not bytes or len(secret) < SECRET_BYTES_MIN:
        raise ConfigurationError(f"secret must be at least {SECRET_BYTES_MIN} bytes, chosen at random")
    return blake2b(secret, digest_size=32, person=b"hvt-cursor-key").digest()


def seal(key: bytes, *, prefix: str, beginning: str, last: str) -> str:
    """Return the cursor behind the name *last*, for URLs and JSON: letters, digits, ``-`` and ``_``.

    Args:
        key: From `cursor_key`.
        prefix: What the physical names of the tenant and kind begin with.
        beginning: What the logical names of the listing begin with.
        last: Logical name after which the listing goes on.

    Concurrency:
        Pure.
    """
    raw = last.encode()
    return urlsafe_b64encode(_mac(key, prefix, beginning, raw) + raw).rstrip(b"=").decode()


def unseal(key: bytes, cursor: str, *, prefix: str, beginning: str) -> str:
    """Return the name behind which *cursor* stands.

    Raises:
        InvalidNameError: `seal` did not make it from the same *key*, *prefix* and *beginning*. One message for all.
    """
    raw = _decoded(cursor)
    mac, last = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not compare_digest(mac, _mac(key, prefix, beginning, last)):
        raise InvalidNameError("the cursor was not given for this listing")
    return last.decode()


def _decoded(cursor: str) -> bytes:
    """Return what *cursor* holds, or nothing at all: that has no MAC, so it fails as any other."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (TypeError, ValueError, binascii.Error):
        return b""
    # The last character has bits to spare, and foreign characters are skipped: only one spelling is taken.
    return raw if urlsafe_b64encode(raw).rstrip(b"=").decode() == cursor else b""


def _mac(key: bytes, prefix: str, beginning: str, last: bytes) -> bytes:
    mac = blake2b(key=key, digest_size=_MAC_BYTES, person=b"hvt-cursor")
    for part in (prefix.encode(), beginning.encode(), last):
        mac.update(len(part).to_bytes(8, "big") + part)  # with its length, so that no two bindings run into one
    return mac.digest()


# --- listings --------------------------------------------------------------------------------------------------------


def after(key: bytes, prefix: str, cursor: str | None, beginning: str) -> tuple[str, str | None]:
    """Return what `NameScope.after` returns, for the names with *prefix*; raises as it does."""
    check_bound(beginning)
    end = behind(prefix + beginning)
    if cursor is None:
        return prefix + beginning, end
    last = unseal(key, cursor, prefix=prefix, beginning=beginning)
    return prefix + last + "\0", end  # the very next text there can be, so nothing is listed twice or left out


def page(key: bytes, scope: NameScope[Any], found: Sequence[str], limit: int, beginning: str) -> Page:
    """Return what `NameScope.page` returns, for the names of *scope*.

    Raises:
        InvalidNameError: As `NameScope.page`; or one of *found* is not what the listing asks for.
        MisuseError: *limit* is no whole number above 0, or *found* is not in order.
    """
    check_bound(beginning)
    if type(limit) is not int or limit < 1:
        raise MisuseError(f"limit is a whole number above 0, got {limit!r}")
    names = scope.strip_all(found)
    if not all(name.startswith(beginning) for name in names):
        raise InvalidNameError("the store found names that the listing did not ask for")
    if any(after < before for before, after in pairwise(names)):
        raise MisuseError("the store's names are not in order: sort them by code points, or by bytes of UTF-8")
    names, more = names[:limit], len(names) > limit
    cursor = seal(key, prefix=scope.prefix, beginning=beginning, last=names[-1]) if more else None
    return Page(names=names, cursor=cursor)


def behind(text: str) -> str | None:
    """Return the first text, by code points, after all that begin with *text*; ``None``: there is none."""
    kept = text.rstrip("\U0010ffff")
    if not kept:
        return None
    point = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if point == 0xD800 else point)  # no text holds a surrogate
