"""Namespace managers that are wrong, each in one way: what the power test injects.

A suite that finds nothing may be blind. So the user's own server is run under managers with a known fault, and the
suite must find each that the server makes use of. A fault is used where the faulty manager gave another answer than the
right one would have.

The faulty names forward by ``__getattr__``, which a façade of this library never does: nothing here protects anything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import NamespaceManager, Page, Scoped, ScopedBytes, TenantNames


class Usage:
    """Counts how often a fault made a difference.

    Attributes:
        differences: So often.
    """

    __slots__ = ("differences",)

    def __init__(self) -> None:
        self.differences = 0

    def told(self, wrong: Any, right: Any) -> Any:
        """Return *wrong*, and count it where it is not *right*."""
        if wrong != right:
            self.differences += 1
        return wrong


class _Scope:
    """The names of one kind, under another prefix than the right one."""

    def __init__(self, right: Any, prefix: str, usage: Usage) -> None:
        self._right = right
        self._usage = usage
        self.prefix: Any = prefix

    def _moved(self, physical: Any) -> Any:
        """The physical name under the wrong prefix."""
        text = type(self.prefix)(physical)
        return self._usage.told(self.prefix + text[len(self._right.prefix) :], text)

    def key(self, name: Any) -> Any:
        return _physical(self._moved(self._right.key(name)))

    def keys(self, names: Iterable[Any]) -> list[Any]:
        return [self.key(name) for name in names]

    def pattern(self, pattern: Any) -> Any:
        return self._moved(self._right.pattern(pattern))

    def like(self, pattern: str, *, escape: str = "\\") -> str:
        right = self._right.like(pattern, escape=escape)
        own = self._right.like("%", escape=escape)[:-1]
        prefix = self.prefix.replace("_", escape + "_").replace("%", escape + "%")
        return cast(str, self._usage.told(prefix + right[len(own) :], right))

    def starting(self, beginning: Any) -> Any:
        return self._moved(self._right.starting(beginning))

    def range(self, low: Any = None, high: Any = None, *, reverse: bool = False) -> tuple[Any, Any]:
        empty = self.prefix[:0]
        end = (_after(self.prefix) if self.prefix else None) if high is None else self.prefix + high
        bounds = (self.prefix + (empty if low is None else low), end)
        given = (empty if low is None else low, high)
        wrong = bounds[::-1] if reverse else bounds
        return cast("tuple[Any, Any]", self._usage.told(wrong, self._right.range(*given, reverse=reverse)))

    def strip(self, physical: Any) -> Any:
        if not physical.startswith(self.prefix):
            raise InvalidNameError("not a name of this tenant")
        return type(self.prefix)(physical)[len(self.prefix) :]

    def strip_all(self, physical: Iterable[Any]) -> list[Any]:
        return [self.strip(name) for name in physical]

    def owns(self, physical: Any) -> bool:
        return bool(physical.startswith(self.prefix))

    def after(self, cursor: str | None, *, beginning: str = "") -> tuple[Any, Any]:
        low, high = self.starting(beginning), None
        high = _after(low) if low else None
        return (low if cursor is None else self.prefix + cursor), high

    def page(self, found: Sequence[str], *, limit: int, beginning: str = "") -> Page:
        del beginning
        names = self.strip_all(found)
        return Page(names=names[:limit], cursor=names[limit] if len(names) > limit else None)

    @property
    def binary(self) -> Any:
        return type(self)(self._right.binary, self.prefix.encode(), self._usage)


def _physical(name: Any) -> Any:
    """Return *name* as a physical one, so that scoping it again is refused as with the right names."""
    return ScopedBytes(name) if isinstance(name, bytes) else Scoped(name)


def _after(prefix: Any) -> Any:
    """The first text after all that begins with *prefix*."""
    if isinstance(prefix, bytes):
        return prefix[:-1] + bytes([prefix[-1] + 1])
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class _Lenient(_Scope):
    """Strips what it gets, so that a fault elsewhere is not covered up."""

    def strip(self, physical: Any) -> Any:
        return type(self.prefix)(physical).removeprefix(self.prefix)


class _UnscopedPatterns(_Lenient):
    def pattern(self, pattern: Any) -> Any:
        return self._usage.told(pattern, super().pattern(pattern))

    def like(self, pattern: str, *, escape: str = "\\") -> str:
        return cast(str, self._usage.told(pattern, super().like(pattern, escape=escape)))


class _AnyTenantPatterns(_Lenient):
    def pattern(self, pattern: Any) -> Any:
        wild = "*" if isinstance(self.prefix, str) else b"*"
        return self._usage.told(wild + super().pattern(pattern)[len(self.prefix) :], super().pattern(pattern))


class _PassThrough(_Scope):
    """What begins as physical names do is left alone."""

    def key(self, name: Any) -> Any:
        right = super().key(name)
        for mark in (":", "_", "/") if isinstance(self.prefix, str) else (b":", b"_", b"/"):
            head = self.prefix.split(mark)[0] + mark
            if len(head) > 1 and name.startswith(head):
                return _physical(self._usage.told(name, right))
        return right


class _FirstAlone(_Lenient):
    def keys(self, names: Iterable[Any]) -> list[Any]:
        right = super().keys(names)
        wrong = [right[0], *(_physical(name[len(self.prefix) :]) for name in right[1:])] if right else []
        return cast("list[Any]", self._usage.told(wrong, right))


class _KeptPrefix(_Scope):
    def strip(self, physical: Any) -> Any:
        right = super().strip(physical)
        return self._usage.told(type(self.prefix)(physical), right)


class _CutBySplit(_Scope):
    def strip(self, physical: Any) -> Any:
        right = super().strip(physical)
        return self._usage.told(right.split(":" if isinstance(right, str) else b":")[-1], right)


class _OwnsAll(_Lenient):
    def owns(self, physical: Any) -> bool:
        return bool(self._usage.told(True, super().owns(physical)))


class _EndlessRange(_Lenient):
    def range(self, low: Any = None, high: Any = None, *, reverse: bool = False) -> tuple[Any, Any]:
        right = super().range(low, high, reverse=reverse)
        wrong = (None, right[1]) if reverse else (right[0], None)
        return cast("tuple[Any, Any]", self._usage.told(wrong, right))


class _BeginningOfAll(_Lenient):
    """A range begins where all names begin."""

    def range(self, low: Any = None, high: Any = None, *, reverse: bool = False) -> tuple[Any, Any]:
        right = super().range(low, high, reverse=reverse)
        empty = self.prefix[:0]
        wrong = (right[0], empty) if reverse else (empty, right[1])
        return cast("tuple[Any, Any]", self._usage.told(wrong, right))


class _SwappedBounds(_Lenient):
    def range(self, low: Any = None, high: Any = None, *, reverse: bool = False) -> tuple[Any, Any]:
        right = super().range(low, high, reverse=reverse)
        return cast("tuple[Any, Any]", self._usage.told(right[::-1], right))


class _WideBeginning(_Lenient):
    """A listing by beginning looks at everybody's names."""

    def starting(self, beginning: Any) -> Any:
        right = super().starting(beginning)
        return self._usage.told(self.prefix[:1] if self.prefix else right, right)


class _Suffix(_Lenient):
    """The tenant stands behind the name, its two arguments having been swapped."""

    def key(self, name: Any) -> Any:
        right = super().key(name)
        return _physical(self._usage.told(name + self.prefix, right))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way for a manager to be wrong.

    Attributes:
        name: For reports.
        about: What is wrong, in a sentence.
        scope: What the names of a kind are.
        identity: Returns, for the id of a tenant, the id whose names it gets; ``None``: its own.
        prefix: Returns a wrong prefix for the right one, the kind and the raw id; ``None``: the right one.
        sticky: The first tenant's names are everybody's.
    """

    name: str
    about: str
    scope: type[_Scope] = _Scope
    identity: Callable[[str], str] | None = None
    prefix: Callable[[str, str, str], str] | None = None
    sticky: bool = False


def _trimmed(one: str) -> str:
    return one.strip("/ .") or one


def _nfkc(one: str) -> str:
    return unicodedata.normalize("NFKC", one)


def _raw(prefix: str, _kind: str, one: str) -> str:
    """The raw id in the place of its token, and no delimiter that it could not hold."""
    head = prefix[:5]
    return head + one + prefix[-1]


def _one_kind(shared: str) -> Callable[[str, str, str], str]:
    return lambda prefix, kind, _one: prefix[:5] + "everybody" + prefix[-1:] if kind == shared else prefix


IDENTITY: Final = Fault(name="identity", about="Names are left as they are.", prefix=lambda *_: "")

FAULTS: Final = (
    IDENTITY,
    Fault(name="no delimiter", about="Nothing closes the tenant's part.", prefix=lambda prefix, *_: prefix[:-1]),
    Fault(name="raw ids", about="Ids stand in names as they are.", prefix=_raw),
    Fault(name="case folding", about="Alice and alice are one.", identity=str.lower),
    Fault(name="trimmed ids", about="Slashes, dots and blanks around an id are dropped.", identity=_trimmed),
    Fault(name="compatibility forms", about="Ids are normalised, so x\u00b2 is x2.", identity=_nfkc),
    Fault(name="truncated ids", about="The first eight characters count.", identity=lambda one: one[:8]),
    Fault(name="first character", about="A cache of names goes by the first character.", identity=lambda one: one[:1]),
    Fault(name="first tenant", about="The names of the first tenant are kept for all.", sticky=True),
    Fault(name="shared keys", about="All tenants share one prefix for keys.", prefix=_one_kind("kv")),
    Fault(name="shared collections", about="All share one for collections.", prefix=_one_kind("collections")),
    Fault(name="shared queues", about="All share one for queues.", prefix=_one_kind("queues")),
    Fault(name="shared topics", about="All share one for topics.", prefix=_one_kind("topics")),
    Fault(name="unscoped patterns", about="Patterns are left as they are.", scope=_UnscopedPatterns),
    Fault(name="patterns of all", about="A pattern begins with a star.", scope=_AnyTenantPatterns),
    Fault(name="pass-through", about="What looks prefixed is left alone.", scope=_PassThrough),
    Fault(name="first of many", about="Of several names the first is scoped.", scope=_FirstAlone),
    Fault(name="kept prefix", about="Stripping leaves the prefix on.", scope=_KeptPrefix),
    Fault(name="cut at the colon", about="A logical name is what follows the last colon.", scope=_CutBySplit),
    Fault(name="owns all", about="Everything is the tenant's.", scope=_OwnsAll),
    Fault(name="range without end", about="A range ends where all names end.", scope=_EndlessRange),
    Fault(name="range without beginning", about="A range begins where all names begin.", scope=_BeginningOfAll),
    Fault(name="swapped bounds", about="A range ends where it should begin.", scope=_SwappedBounds),
    Fault(name="wide beginning", about="A listing by beginning shows everybody's.", scope=_WideBeginning),
    Fault(name="tenant behind", about="Tenant and name are swapped.", scope=_Suffix),
)
"""All faults, the identity first."""


class _Names:
    """All names of one tenant, wrong.

    Args:
        right: The right ones.
        fault: What is wrong.
        one: The tenant's raw id.
        usage: Counts what differs.
        other: Whose prefixes it gets; ``None``: its own.
        left: What stands in place of the token, where an id is none any more; ``None``: the token.
    """

    def __init__(
        self, right: Any, fault: Fault, one: str, usage: Usage, *, other: Any = None, left: str | None = None
    ) -> None:
        self._right = right
        self._fault = fault
        self._one = one
        self._usage = usage
        self._other = other
        self._left = left

    def __getattr__(self, kind: str) -> Any:
        right = getattr(self._right, kind)
        other = None if self._other is None else getattr(self._other, kind)
        if hasattr(right, "binary"):
            made: Any = self._fault.scope(right, self._prefix(right.prefix, kind, other), self._usage)
        elif hasattr(right, "labels"):
            made = _Names(right, self._fault, self._one, self._usage, other=other, left=self._left)
        else:
            return right
        setattr(self, kind, made)
        return made

    def _prefix(self, right: str, kind: str, other: Any) -> str:
        if self._left is not None:
            return _raw(right, kind, self._left)
        if other is not None:
            return str(other.prefix)
        return right if self._fault.prefix is None else self._fault.prefix(right, kind, self._one)


class FaultyNamespaces:
    """A `NamespaceManager` with a fault.

    Args:
        right: The manager that would be right.
        fault: What is wrong with it.

    Attributes:
        usage: How often the server was told something wrong.
    """

    def __init__(self, right: NamespaceManager, fault: Fault) -> None:
        self._right = right
        self._fault = fault
        self._first: TenantNames | None = None
        self.usage = Usage()

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return names that are wrong."""
        right = self._right.for_tenant(context)
        other: TenantNames | None = None
        left: str | None = None
        if self._fault.identity is not None:
            taken = self._fault.identity(context.tenant_id)
            try:
                other = self._right.for_tenant(_as(context, taken))
            except InvalidNameError:  # no id of the scheme any more: cut, or folded
                left = taken
        if self._fault.sticky:
            other = self._first = self._first or right
        made = _Names(right, self._fault, str(context.tenant_id), self.usage, other=other, left=left)
        return cast(TenantNames, made)


def _as(context: TenantContext, one: str) -> TenantContext:
    return TenantContext(tenant_id=TenantId(one), key_id=context.key_id, generation=context.generation)
