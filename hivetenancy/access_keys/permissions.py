"""What a key may do: presets, allow lists, and their compilation to one integer.

A permission grants the effect of its name alone, ``admin`` grants all four. An allow list takes away and never adds:
what a key may call is the intersection of its permissions with its list, so that an empty list means nothing at all
and no list leaves the permissions as they are. Both are compared with the *registered* functions: one that nobody
registered has no bit and is allowed to nobody.

The grammar of an allow list is small, because every cleverness in such patterns was once a hole: names are lower-case
ASCII segments joined by dots; ``*`` stands for exactly one segment, ``**`` as the last segment for one or more; a
leading ``!`` denies, and a denial wins wherever it stands. A list of denials alone allows nothing. Anything else is no
list: it is refused where a host writes it, and a key of the hub that has one may call nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from hivetenancy.errors import ConfigurationError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.ids import Effect, Permission, Surface

MAX_PATTERNS: Final = 1024
"""Longest allow list; a longer one is taken for a hostile reply."""

_PATTERN: Final = re.compile(r"!?(?:(?:\*|[a-z0-9_-]+)\.)*(?:\*\*|\*|[a-z0-9_-]+)")
_MAX_PATTERN_LENGTH: Final = 130  # a function's name has at most 128
_MEMO_MAX: Final = 1024

_Grant = tuple[frozenset[Permission], "tuple[str, ...] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named set of permissions, confined to some surfaces or to none.

    Attributes:
        permissions: What it grants.
        surfaces: The surfaces it is confined to; ``None``: all.
    """

    permissions: frozenset[Permission]
    surfaces: frozenset[Surface] | None = None

    def includes(self, other: Preset) -> bool:
        """Say whether everything that *other* grants is granted here too: by set inclusion, not by a rank."""
        inside = self.surfaces is None or (other.surfaces is not None and other.surfaces <= self.surfaces)
        return inside and effects(other.permissions) <= effects(self.permissions)


ADMIN: Final = Preset(permissions=frozenset(Permission))
"""Everything within the tenant."""

READ_WRITE: Final = Preset(permissions=frozenset({Permission.READ, Permission.WRITE, Permission.DELETE}))
"""Data, without administration."""

READ_ONLY: Final = Preset(permissions=frozenset({Permission.READ}))
"""Reading alone."""

MCP: Final = Preset(permissions=frozenset({Permission.READ, Permission.WRITE}), surfaces=frozenset({Surface.MCP}))
"""For agents: read and write, no delete, and only through MCP."""

PRESETS: Final = {"Admin": ADMIN, "ReadWrite": READ_WRITE, "ReadOnly": READ_ONLY, "MCP": MCP}
"""The presets by the names that HiveHub's services use."""


def effects(permissions: Iterable[Permission]) -> frozenset[Effect]:
    """Return the effects that *permissions* grant: each its own, ``admin`` all four.

    Example:
        >>> sorted(effect.value for effect in effects({Permission.WRITE}))
        ['write']
    """
    granted = frozenset(permissions)
    return frozenset(Effect) if Permission.ADMIN in granted else frozenset(Effect(each.value) for each in granted)


def check_patterns(functions: tuple[str, ...] | None) -> None:
    """Check an allow list.

    Raises:
        ConfigurationError: A pattern is outside the grammar, or there are more than `MAX_PATTERNS`.
    """
    if functions is None:
        return
    if len(functions) > MAX_PATTERNS:
        raise ConfigurationError(f"an allow list has at most {MAX_PATTERNS} patterns, this one has {len(functions)}")
    for pattern in functions:
        if len(pattern) > _MAX_PATTERN_LENGTH or not _PATTERN.fullmatch(pattern):
            raise ConfigurationError(
                f"{pattern[:_MAX_PATTERN_LENGTH]!r} is no pattern of an allow list: write 'kv.get', 'kv.*', 'kv.**' "
                "or '!kv.delete', in lower-case ASCII"
            )


def allows(functions: tuple[str, ...] | None, name: str) -> bool:
    """Say whether an allow list lets the function *name* through. Assumes a list that `check_patterns` accepts.

    Example:
        >>> allows(("kv.*", "!kv.delete"), "kv.get"), allows(("kv.*", "!kv.delete"), "kv.delete"), allows((), "kv.get")
        (True, False, False)
    """
    if functions is None:
        return True
    segments = name.split(".")
    allowed = False
    for pattern in functions:
        if pattern.startswith("!"):
            if _matches(pattern[1:].split("."), segments):
                return False
        elif not allowed:
            allowed = _matches(pattern.split("."), segments)
    return allowed


def compile_mask(
    permissions: frozenset[Permission], functions: tuple[str, ...] | None, registry: FunctionRegistry
) -> int:
    """Compile what a key may call to one integer, with the bit of each such function set.

    The answer holds for ``registry.version`` as it is now; compile again when that has risen. Remembered for each
    distinct pair, since most keys of a host share a few.

    Args:
        permissions: The wire permissions.
        functions: The allow list; ``None``: no list, ``()``: nothing.
        registry: The functions of the host.

    Raises:
        ConfigurationError: The list is outside the grammar (`check_patterns`).

    Concurrency:
        Any thread; two that compile the same at once both arrive at the same.

    Example:
        >>> registry = FunctionRegistry()
        >>> get, put = registry.declare("kv.get", effect="read"), registry.declare("kv.put", effect="write")
        >>> compile_mask(frozenset({Permission.READ}), None, registry) == 1 << get.bit
        True
    """
    version, memo = _memos.get(registry, (-1, {}))
    if version != registry.version or len(memo) >= _MEMO_MAX:
        version, memo = registry.version, {}
        _memos[registry] = (version, memo)
    grant = (permissions, functions)
    mask = memo.get(grant)
    if mask is None:
        mask = memo[grant] = _compile(grant, registry)
    return mask


_memos: WeakKeyDictionary[FunctionRegistry, tuple[int, dict[_Grant, int]]] = WeakKeyDictionary()


def narrower(child: _Grant, parent: _Grant) -> bool:
    """Say whether *child*, permissions and allow list, surely grants nothing that *parent* does not.

    For minting a key from a key. Judged by the patterns alone, so that it holds for functions yet to be registered;
    where that cannot be told the answer is no.

    Example:
        >>> read = frozenset({Permission.READ})
        >>> narrower((read, ("kv.get",)), (read, ("kv.*",))), narrower((read, None), (read, ("kv.*",)))
        (True, False)
    """
    if not effects(child[0]) <= effects(parent[0]):
        return False
    mine, theirs = child[1], parent[1]
    if theirs is None:
        return True
    if mine is None:
        return False
    denied = [pattern[1:] for pattern in mine if pattern.startswith("!")]
    allowed = [pattern for pattern in mine if not pattern.startswith("!")]
    wider = [pattern for pattern in theirs if not pattern.startswith("!")]
    forbidden = [pattern[1:] for pattern in theirs if pattern.startswith("!")]
    return all(_covered(each, wider) for each in allowed if not _covered(each, denied)) and all(
        _covered(each, denied) for each in forbidden
    )


def _compile(grant: _Grant, registry: FunctionRegistry) -> int:
    permissions, functions = grant
    check_patterns(functions)
    granted = effects(permissions)
    mask = 0
    for each in registry:
        if each.effect in granted and allows(functions, each.name):
            mask |= 1 << each.bit
    return mask


def _matches(pattern: list[str], segments: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        if len(segments) <= len(pattern):
            return False
        segments = segments[: len(pattern)]
    return len(pattern) == len(segments) and all(
        part in ("*", segment) for part, segment in zip(pattern, segments, strict=True)
    )


def _covered(pattern: str, by: list[str]) -> bool:
    """Say whether one of the patterns *by* matches whatever *pattern* matches."""
    return any(_covers(each.split("."), pattern.split(".")) for each in by)


def _covers(wide: list[str], narrow: list[str]) -> bool:
    if wide[-1] == "**":
        head = wide[:-1]
        # `a.**` covers `a.b`, `a.*`, `a.**` and what lies below them.
        return len(narrow) > len(head) and _matches(head, narrow[: len(head)]) if head else True
    return narrow[-1] != "**" and _matches(wide, narrow)
