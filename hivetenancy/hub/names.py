"""Which names may travel in a path, and how a path is taken apart (HiveHub wire 4.9).

HiveHub's SDK puts names into a path raw. So ``a/../../users/other`` is not a strange name but a perfect call about
somebody else, and no server can tell the two apart. What can be done is done on both sides: this client refuses such a
name before it sends anything, and an authority of ours splits the *raw* path first and decodes each segment once,
strictly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

MAX_NAME_BYTES: Final = 255

_CUTTING: Final = frozenset("/\\?#%")
_OWNED: Final = re.compile(r"user_[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}:", re.IGNORECASE)
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")


def check_name(name: str) -> str:
    """Return *name* if the official SDK can send it unchanged.

    Raises:
        ValueError: It cannot; the message says why, without the name.
    """
    problem = _problem(name)
    if problem is not None:
        raise ValueError(f"a name at HiveHub {problem}")
    return name


def _problem(name: str) -> str | None:
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "must be text that UTF-8 can write"
    if not 1 <= size <= MAX_NAME_BYTES:
        return f"has 1 to {MAX_NAME_BYTES} bytes of UTF-8, this one has {size}"
    if not unicodedata.is_normalized("NFC", name):
        return "must be in normal form C"
    if _CUTTING.intersection(name):
        return "must not hold any of / \\ ? # %"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in name):
        return "must not hold control or format characters"
    if name.strip() != name:
        return "must not begin or end with a space"
    if name in (".", ".."):
        return "must not be a dot segment"
    if _OWNED.match(name):
        return "must not begin with the prefix of a user"
    return None


def segment(name: str) -> str:
    """Return *name* as a segment of a path, percent-encoded.

    Raises:
        ValueError: It is no name that may travel.
    """
    return quote(check_name(name), safe="")


def owned(name: str, user: str) -> str | None:
    """Return the short name of *name*, which may carry the prefix of *user*; ``None``: it carries another user's."""
    match = _OWNED.match(name)
    if match is None:
        return name
    prefix = f"user_{user}:"
    return name[len(prefix) :] if name.lower().startswith(prefix) else None


def split_path(raw: bytes) -> Sequence[str]:
    """Split a raw path, without its query, into decoded segments.

    Raises:
        ValueError: A bad escape, an encoded slash, backslash or NUL, a control character or a dot segment.
    """
    if not raw.startswith(b"/"):
        raise ValueError("a path begins with /")
    return [_decode(part) for part in raw[1:].split(b"/")]


def _decode(part: bytes) -> str:
    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise ValueError("the path holds a % that is no escape")
        return bytes([int(match[1], 16)])

    try:
        text = _ESCAPE.sub(byte, part).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the path is no UTF-8") from None
    if "/" in text or "\\" in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("the path holds an encoded slash, a backslash or a control character")
    if text in (".", ".."):
        raise ValueError("the path holds a dot segment")
    return text
