r"""What every `NamespaceManager` must do.

The cases ask one question in many ways: does a tenant see just its own names, and as it wrote them? They try names that
were chosen to go wrong: other tenants' physical names, delimiters, wildcards, texts that fold or normalise onto each
other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, Final, Protocol, cast

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError, TenancyError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.namespaces import NameScope, NamespaceManager, TenantNames

from ._cases import Cases


class NamespaceHarness(Protocol):
    """How a case meets a manager."""

    @property
    def manager(self) -> NamespaceManager:
        """The manager."""
        ...

    @property
    def tenants(self) -> Sequence[TenantId]:
        """Tenants the manager takes, as easily confused as its scheme of ids allows.

        At least two with tenants, exactly one without.
        """
        ...

    @property
    def standalone(self) -> bool:
        """Whether the manager is for a server without tenants, where names are left alone."""
        ...


CASES: Final[Cases[NamespaceHarness]] = Cases()

NAMES: Final = (
    *("a", "b", "A", "ab", "a:b", ":a", "a:", "::", ":", "user:1", "user:1:a", "user_1:a", "ns:1:a", "config:app"),
    *("/", "../etc", ".", "a.b", "a/b", "a\\b", "#", "*", "?", "[a]", "{a}", "$SYS/x", "%2f", "a b", " a", "a ", "\t"),
    *("é", "e\u0301", "K", "\u212a", "ｋ", "ß", "ss", "İ", "\u200b", "\x00", "a\x00b", "\x7f", "\n", "a\n"),
    *("\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "a\U0010ffff", "a" * 200),
)
"""Logical names that have gone wrong somewhere."""

PATTERNS: Final = ("*", "a*", "?", "[ab]", "[^a]", "[a-c]:*", "a:?", "\\*", "a\\:b", "user:*", "*:*", "**", "[", "a[b")
"""Redis globs over those names."""

_KINDS: Final = ("kv", "collections", "queues", "streams", "topics")


def scopes(names: TenantNames) -> Iterator[tuple[str, NameScope[Any]]]:
    """The scope of each kind, by name."""
    for kind in _KINDS:
        yield kind, cast("NameScope[Any]", getattr(names, kind))


def _context(tenant: TenantId) -> TenantContext:
    return TenantContext(tenant_id=tenant, key_id=None, generation=1)


def _all(harness: NamespaceHarness) -> list[tuple[TenantId, TenantNames]]:
    return [(tenant, harness.manager.for_tenant(_context(tenant))) for tenant in harness.tenants]


def _names(harness: NamespaceHarness) -> list[str]:
    """The names to try: the usual ones, and all that any tenant's look like in the store."""
    physical = {
        text
        for _, names in _all(harness)
        for _, scope in scopes(names)
        for text in (scope.prefix, scope.prefix.rstrip(":."), scope.prefix + "a")
        if text
    }
    return [*NAMES, *sorted(physical)]


def _refused(call: Callable[[], object]) -> InvalidNameError | None:
    try:
        call()
    except InvalidNameError as error:
        return error
    return None


@CASES.add
async def two_tenants_never_share_a_physical_name(harness: NamespaceHarness) -> None:
    """Whatever two tenants call their things, the store sees different names, of one kind and across kinds."""
    owner: dict[str, TenantId] = {}
    for tenant, names in _all(harness):
        for kind, scope in scopes(names):
            for name in _names(harness):
                physical = str(scope.key(name))
                other = owner.setdefault(physical, tenant)
                assert other == tenant, f"{kind}: a name of {tenant} is also one of {other}"


@CASES.add
async def no_tenants_names_lie_within_anothers(harness: NamespaceHarness) -> None:
    """No prefix of a tenant begins a prefix of another, so a sweep of one tenant never meets another."""
    prefixes = [(tenant, scope.prefix) for tenant, names in _all(harness) for _, scope in scopes(names)]
    for (one, prefix), (other, second) in combinations(prefixes, 2):
        apart = one == other or not (prefix.startswith(second) or second.startswith(prefix))
        assert apart, f"the names of {one} and {other} lie within each other"


@CASES.add
async def a_name_round_trips(harness: NamespaceHarness) -> None:
    """What `strip` returns is the very name that `key` was given, as a plain string; and the tenant owns it."""
    for _, names in _all(harness):
        for kind, scope in scopes(names):
            for name in _names(harness):
                physical = str(scope.key(name))
                assert scope.owns(physical), f"{kind}: its own name is not the tenant's"
                back = scope.strip(physical)
                assert back == name, f"{kind}: {name!r} came back as {back!r}"
                assert type(back) is str


@CASES.add
async def a_physical_name_goes_to_a_driver_as_it_is(harness: NamespaceHarness) -> None:
    """A physical name is a ``str`` at run time, the prefix and then the name, byte for byte."""
    for _, names in _all(harness):
        for kind, scope in scopes(names):
            for name in _names(harness):
                physical: object = scope.key(name)
                assert isinstance(physical, str)
                assert str(physical) == scope.prefix + name, f"{kind}: the name was changed"


@CASES.add
async def several_names_at_once_are_the_same_names(harness: NamespaceHarness) -> None:
    """`keys` gives what `key` gives for each, in order, with what is there twice twice."""
    wanted = [*_names(harness), "a", "a"]
    for _, names in _all(harness):
        for _, scope in scopes(names):
            assert scope.keys(iter(wanted)) == [scope.key(name) for name in wanted]


@CASES.add
async def a_name_is_not_scoped_twice(harness: NamespaceHarness) -> None:
    """A physical name is refused where a logical one is wanted: it is neither left alone nor prefixed again."""
    for _, names in _all(harness):
        for kind, scope in scopes(names):
            physical: Any = scope.key("a")
            assert _refused(lambda: scope.key(physical)), f"{kind}: a physical name was scoped again"  # noqa: B023
            assert _refused(lambda: scope.keys(["a", physical])), f"{kind}: keys() scoped it again"  # noqa: B023
            assert _refused(lambda: scope.pattern(physical)), f"{kind}: pattern() scoped it again"  # noqa: B023


@CASES.add
async def what_is_no_string_is_refused(harness: NamespaceHarness) -> None:
    """Nothing but a plain string is a name: no bytes, no number, and above all not nothing."""
    wrong: list[Any] = [None, b"a", 1, True, ["a"]]
    for _, names in _all(harness):
        for kind, scope in scopes(names):
            for name in wrong:
                for call in (scope.key, scope.pattern, scope.strip, scope.owns):
                    assert _refused(lambda: call(name)), f"{kind}: {call.__name__}({name!r}) passed"  # noqa: B023


@CASES.add
async def what_no_store_can_keep_is_refused(harness: NamespaceHarness) -> None:
    """With tenants, an empty name, one with a lone surrogate and one that is too long are refused, never cut."""
    if harness.standalone:
        return
    for _, names in _all(harness):
        for kind, scope in scopes(names):
            for name in ("", "\ud800", "a\udfff", "a" * 2**20, "é" * 2**20):
                assert _refused(lambda: scope.key(name)), f"{kind}: {name[:5]!r} passed"  # noqa: B023
                assert _refused(lambda: scope.pattern(name)), f"{kind}: pattern {name[:5]!r} passed"  # noqa: B023


@CASES.add
async def another_tenants_name_is_as_good_as_none(harness: NamespaceHarness) -> None:
    """Another tenant's name is not owned and not stripped, exactly as one that nobody has, and no message shows it."""
    if harness.standalone:
        return
    everybody = _all(harness)
    for tenant, names in everybody:
        for kind, scope in scopes(names):
            nobodys = _refused(lambda: scope.strip("nobody's"))  # noqa: B005, B023
            assert nobodys, f"{kind}: a name without owner was stripped"
            for other, others in everybody:
                if other == tenant:
                    continue
                for name in _names(harness):
                    foreign = str(getattr(others, kind).key(name))
                    assert not scope.owns(foreign), f"{kind}: {tenant} owns a name of {other}"
                    error = _refused(lambda: scope.strip(foreign))  # noqa: B023
                    assert error, f"{kind}: {tenant} stripped a name of {other}"
                    assert str(error) == str(nobodys), "the message tells a foreign name from a missing one"


@CASES.add
async def a_pattern_matches_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """A scoped pattern, read as Redis reads it, matches what the pattern matches among the tenant's own names."""
    everybody = _all(harness)
    wanted = _names(harness)
    for kind in _KINDS:
        store = {str(getattr(names, kind).key(name)) for _, names in everybody for name in wanted} | set(wanted)
        for tenant, names in everybody:
            scope = getattr(names, kind)
            mine = {name for name in store if name.startswith(scope.prefix)}
            for pattern in PATTERNS:
                found = set(filter(glob(scope.pattern(pattern)), store))
                matches = glob(pattern)
                assert found == {name for name in mine if matches(scope.strip(name))}, (
                    f"{kind}: the pattern {pattern!r} of {tenant} does not find its own names and no others"
                )


@CASES.add
async def a_range_holds_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """A range holds the tenant's names between its bounds in code-point order, and no other, up to the last one."""
    everybody = _all(harness)
    wanted = sorted(_names(harness))
    for kind in _KINDS:
        store = {str(getattr(names, kind).key(name)) for _, names in everybody for name in wanted} | set(wanted)
        for tenant, names in everybody:
            scope = getattr(names, kind)
            mine = {name for name in store if name.startswith(scope.prefix)}
            for low, high in [("", None), ("a", None), ("", "b"), ("a", "user"), ("b", "a"), ("\U0010ffff", None)]:
                found = set(_between(store, *scope.range(low, high)))
                logical = {name: scope.strip(name) for name in mine}
                expected = {name for name, text in logical.items() if low <= text and (high is None or text < high)}
                assert found == expected, f"{kind}: the range {low!r} to {high!r} of {tenant} is not exact"


def _between(store: set[str], low: str, high: str | None) -> Iterator[str]:
    return (name for name in store if low <= name and (high is None or name < high))


@CASES.add
async def whatever_the_bounds_a_range_stays_inside(harness: NamespaceHarness) -> None:
    """Both bounds of a range lie within the tenant's names or at their end, though the order be wrong."""
    if harness.standalone:
        return
    for _, names in _all(harness):
        for kind, scope in scopes(names):
            _, end = scope.range()
            assert end is not None
            for name in _names(harness):
                low, high = scope.range(name, "a")
                assert scope.owns(low), f"{kind}: the low bound is outside"
                assert high is not None
                assert scope.prefix <= high <= end, f"{kind}: the high bound is outside"


@CASES.add
async def the_names_are_the_tenants_and_not_the_keys(harness: NamespaceHarness) -> None:
    """Another access key, or a later revision of it, leads to the same names."""
    for tenant, names in _all(harness):
        again = harness.manager.for_tenant(TenantContext(tenant_id=tenant, key_id=KeyId("other"), generation=7))
        for (kind, one), (_, other) in zip(scopes(names), scopes(again), strict=True):
            assert one.prefix == other.prefix, f"{kind}: the names depend on more than the tenant"
            assert one.key("a") == other.key("a")


@CASES.add
async def an_id_is_never_repaired(harness: NamespaceHarness) -> None:
    """A text that merely resembles a tenant's id is refused or is another tenant, never trimmed into the first one."""
    for tenant, names in _all(harness):
        for text in (f" {tenant}", f"{tenant} ", f"{tenant}\n", f"\t{tenant}", f"{tenant}/", f"{tenant}:", ""):
            try:
                other = harness.manager.for_tenant(_context(TenantId(text)))
            except TenancyError:
                continue
            assert other.kv.prefix != names.kv.prefix, f"{text!r} was taken for {tenant!r}"


@CASES.add
async def without_tenants_nothing_changes(harness: NamespaceHarness) -> None:
    """On a server without tenants a name, a pattern and a range are what they were, and everything is owned."""
    if not harness.standalone:
        return
    (_, names), *others = _all(harness)
    assert not others, "a server without tenants has one owner"
    for _, scope in scopes(names):
        assert scope.prefix == ""
        assert scope.range() == ("", None)
        assert scope.range("a", "b") == ("a", "b")
        for name in ("", *_names(harness)):
            assert str(scope.key(name)) == scope.pattern(name) == scope.strip(name) == name
            assert scope.owns(name)


def glob(pattern: str) -> Callable[[str], bool]:
    r"""Return whether a name matches *pattern* as Redis matches: on bytes, with ``* ? [...] [^...] [a-c] \``.

    The standard library's `fnmatch` knows no backslash and negates with ``!``.
    """
    text = pattern.encode("utf-8", "surrogatepass")
    compiled = re.compile(b"".join(_pieces(text)), re.DOTALL)
    return lambda name: compiled.fullmatch(name.encode("utf-8", "surrogatepass")) is not None


def _pieces(pattern: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(pattern):
        byte, at = pattern[at : at + 1], at + 1
        if byte == b"*":
            yield b".*"
        elif byte == b"?":
            yield b"."
        elif byte == b"[":
            piece, at = _byte_class(pattern, at)
            yield piece
        elif byte == b"\\" and at < len(pattern):
            yield re.escape(pattern[at : at + 1])
            at += 1
        else:
            yield re.escape(byte)


def _byte_class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Read a class that begins after its bracket; one that is never closed ends with the pattern."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    if negated:
        members = set(range(256)) - members
    inside = b"".join(b"\\x%02x" % member for member in sorted(members))
    return (b"[" + inside + b"]" if inside else b"(?!)"), at + 1
