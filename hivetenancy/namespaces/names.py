"""What a logical and a physical name must be, and what is wrong with one that is not. Pure.

The message of a refusal shows no name: it may be another tenant's.
"""

from __future__ import annotations

import re
from typing import Final

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError, MisuseError
from hivetenancy.ids import TenantId

from .kinds import Scoped, ScopedBytes

#: What clients of object stores read as ``.``, ``/`` and ``\\`` when they make an address of a name.
_ESCAPED: Final = re.compile(r"%(2e|2f|5c)", re.IGNORECASE)
_MEANT: Final = {"2e": ".", "2f": "/", "5c": "\\"}
_BETWEEN: Final = re.compile(r"[/\\]")
#: What they leave out of an address without a word (WHATWG URL, basic URL parser).
_DROPPED: Final = str.maketrans("", "", "\t\r\n")


def check(name: str, room: int) -> None:
    """Raise unless *name* is a plain, non-empty ``str`` of at most *room* bytes."""
    check_bound(name)
    if not name:
        raise InvalidNameError("a name must not be empty")
    size = len(name) if name.isascii() else len(name.encode("utf-8"))
    if size > room:
        raise InvalidNameError(f"the name has {size} bytes; {room} is the most")


def check_bound(name: str) -> None:
    """Raise unless *name* is a plain ``str`` that a store can compare; it may be empty."""
    check_type(name)
    try:
        name.isascii() or name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidNameError("a name must not hold a lone surrogate: no store can keep it") from None


def check_type(name: str) -> None:
    """Raise unless *name* is a plain ``str``: a physical name is one too, and scoping it again must not pass."""
    if type(name) is not str:
        raise no_logical(name)


def check_bytes(name: bytes) -> None:
    """Raise unless *name* is plain ``bytes``; they may be empty."""
    if type(name) is not bytes:
        raise no_name(name, 0)


def check_no_way_out(name: str) -> None:
    """Raise where *name*, once it is part of an address, could climb out of what stands before it.

    Clients and servers resolve ``..`` in the path of a URL, however it is spelt, before anybody looks whose it is:
    httpx and yarl make ``tenants/b/x`` of ``tenants/a/../b/x`` (RFC 3986, section 5.2.4).
    """
    if "." not in name and "%" not in name:
        return
    meant = _ESCAPED.sub(lambda escape: _MEANT[escape[1].lower()], name.translate(_DROPPED))
    if not {".", ".."}.isdisjoint(_BETWEEN.split(meant)):
        raise InvalidNameError(
            "the name of a blob must hold no '.' and no '..' between slashes: addresses resolve them"
        )


def tenant_in(context: TenantContext) -> TenantId:
    """Return the tenant in *context*; an id alone says nothing of who vouches for it, so it is none.

    Raises:
        MisuseError: *context* is no `TenantContext`.
    """
    try:
        return context.tenant_id
    except AttributeError:
        raise MisuseError(f"for_tenant takes a TenantContext, not {type(context).__name__}") from None


def no_logical(name: object) -> InvalidNameError:
    """Return the error for *name*, which is no plain ``str``."""
    hint = "this one is physical already" if isinstance(name, Scoped) else type(name).__name__
    return InvalidNameError(f"a logical name is a plain str: {hint}")


def no_name(name: object, room: int) -> InvalidNameError:
    """Return the error for *name*, of which at most *room* plain bytes were wanted."""
    if type(name) is not bytes:
        hint = "this one is physical already" if isinstance(name, ScopedBytes) else type(name).__name__
        return InvalidNameError(f"a logical name in bytes is plain bytes: {hint}")
    if not name:
        return InvalidNameError("a name must not be empty")
    return InvalidNameError(f"the name has {len(name)} bytes; {room} is the most")


def no_text(physical: object) -> InvalidNameError:
    """Return the error for *physical*, which is no ``str``."""
    return InvalidNameError(f"a physical name is a str, not {type(physical).__name__}; decode what the store returned")


def no_bytes(physical: object) -> InvalidNameError:
    """Return the error for *physical*, which is no ``bytes``."""
    return InvalidNameError(f"a physical name in bytes is bytes, not {type(physical).__name__}")
