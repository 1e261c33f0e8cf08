"""Marks that show whose data something is, wherever it turns up.

Every value that a tenant writes holds a *canary*: a fixed head, four hex digits that stand for the tenant, six that
count. One shape for all, so that a single regular expression finds every canary, however many there are. Secrets of the
setting (the service key, access keys) have the same shape and belong to nobody who may see them.

They are found as they are, in hex, in base64 at each of its three offsets, and in what is compressed with gzip or zlib,
layer by layer and within bounds, so that a bomb is no trouble.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

HEAD: Final = "hvcanary"
LENGTH: Final = len(HEAD) + 10
SERVICE_KEY: Final = "ffff"
_ACCESS_KEY: Final = "ee"

_INFLATE_BYTES: Final = 1 << 20
"""How much of one compressed piece is looked at."""
_DEPTH: Final = 3
"""How many layers of encodings are taken off."""
_PIECES: Final = 64
"""How many encoded or compressed pieces of one text are looked into."""

_RAW: Final = re.compile(rb"hvcanary([0-9a-f]{4})([0-9a-f]{6})")
_HEX: Final = re.compile(binascii.hexlify(HEAD.encode()) + rb"(?:3[0-9]|6[1-6]){10}", re.IGNORECASE)


def _base64_heads() -> list[bytes]:
    """What the head looks like in base64, without the characters that depend on its neighbours."""
    head = HEAD.encode()
    heads = []
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + head)
        first = (offset * 8 + 5) // 6  # the first character that holds bits of the head alone
        last = (offset + len(head)) * 8 // 6
        heads.append(text[first:last])
    return heads


_HEADS: Final = _base64_heads()
_BASE64: Final = re.compile(rb"(?:" + b"|".join(_HEADS) + rb")[A-Za-z0-9+/_-]{8,40}")
_PACKED: Final = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
#: The same beginnings in base64; what follows is at least as long as a mark is when it is packed.
_PACKED_BASE64: Final = re.compile(rb"(?:H4sI|eJ[w-z]|eN[o-r]|eA[E-H]|eF[4-7])[A-Za-z0-9+/_-]{16,}")
_WIDE: Final = re.compile(b"\0".join(bytes([one]) for one in HEAD.encode()))
_ANY: Final = re.compile(
    b"|".join([HEAD.encode(), binascii.hexlify(HEAD.encode()), *_HEADS, _PACKED_BASE64.pattern, _WIDE.pattern]),
    re.IGNORECASE,
)


def canary(tag: int, count: int) -> str:
    """Return the mark number *count* of the tenant number *tag*."""
    return f"{HEAD}{tag:04x}{count:06x}"


def service_key() -> str:
    """Return a service key that can be found again."""
    return f"{HEAD}{SERVICE_KEY}{0:06x}"


def access_key(tag: int) -> str:
    """Return an access key of the tenant number *tag* that can be found again."""
    return f"{HEAD}{_ACCESS_KEY}{tag:02x}{0:06x}"


def describe(tag: str, ids: Sequence[str] = ()) -> str:
    """Say whose a mark is, for a person who knows the tenants by *ids*."""
    if tag == SERVICE_KEY:
        return "the service key"
    if tag.startswith(_ACCESS_KEY):
        return f"the access key of {_tenant(int(tag, base=16) & 0xFF, ids)}"
    return f"data of {_tenant(int(tag, base=16), ids)}"


def _tenant(place: int, ids: Sequence[str]) -> str:
    return repr(ids[place]) if place < len(ids) else f"tenant {place}"


def found(content: bytes) -> set[str]:
    """Return the tags of all marks in *content*, encoded and compressed ones too."""
    if not _ANY.search(content) and not _PACKED.search(content):
        return set()
    tags: set[str] = set()
    layer = [content]
    for _ in range(_DEPTH):
        for piece in layer:
            tags.update(match[1].decode() for match in _RAW.finditer(piece))
        layer = [inner for piece in layer for inner in _inside(piece)][:_PIECES]
        if not layer:
            break
    for piece in layer:
        tags.update(match[1].decode() for match in _RAW.finditer(piece))
    return tags


def _inside(content: bytes) -> Iterator[bytes]:
    """What is in *content* in another form."""
    for match in _HEX.finditer(content):
        yield binascii.unhexlify(match[0])
    for match in _BASE64.finditer(content):
        yield from _unbased(content, match.start())
    for match in _PACKED.finditer(content):
        yield from _inflated(content[match.start() :])
    if b"\0" in content:  # text of two or four bytes a character
        yield content.replace(b"\0", b"")
    yield from _packed_in_base64(content)


def _packed_in_base64(content: bytes) -> Iterator[bytes]:
    for match in _PACKED_BASE64.finditer(content):
        yield _decoded(match[0])


def _unbased(content: bytes, start: int) -> Iterator[bytes]:
    """What stands in base64 at *start*, read from each of the places that its first group may begin at."""
    for back in range(4):
        if start - back >= 0:
            yield _decoded(content[start - back : start - back + 44])


def _decoded(text: bytes) -> bytes:
    run = re.match(rb"[A-Za-z0-9+/_-]*", text)
    text = (run[0] if run else b"").replace(b"-", b"+").replace(b"_", b"/")
    return binascii.a2b_base64(text[: len(text) // 4 * 4] + _padded(text[len(text) // 4 * 4 :]))


def _padded(rest: bytes) -> bytes:
    return b"" if len(rest) < 2 else rest + b"=" * (4 - len(rest))


def _inflated(content: bytes) -> Iterator[bytes]:
    try:
        yield zlib.decompressobj(wbits=47).decompress(content, _INFLATE_BYTES)  # 47: gzip or zlib, whichever it is
    except zlib.error:
        return


def strangers(content: bytes, own: str | None, *, secrets_only: bool = False) -> set[str]:
    """Return the tags in *content* that should not be there.

    Args:
        content: What was seen.
        own: The tag of who may see it; ``None``: no tenant.
        secrets_only: Let data of any tenant pass, as in a file of the operator's.
    """
    tags = found(content)
    tags.discard(own or "")
    if secrets_only:
        return {tag for tag in tags if tag == SERVICE_KEY or tag.startswith(_ACCESS_KEY)}
    return tags


def holds_any(content: bytes, secrets: Iterable[bytes]) -> bool:
    """Return whether one of *secrets* stands in *content* as it is."""
    return any(secret in content for secret in secrets)
