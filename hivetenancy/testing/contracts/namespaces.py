r"""What every `NamespaceManager` must do.

The cases ask one question in many ways: does a tenant see just its own names, and as it wrote them? They try names that
were chosen to go wrong: other tenants' physical names, delimiters, wildcards, texts that fold or normalise onto each
other.
"""

from __future__ import annotations

import posixpath
import re
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from operator import attrgetter
from typing import Any, Final, Protocol, cast

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError, TenancyError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.namespaces import FileScope, NameScope, NamespaceManager, TenantNames
from hivetenancy.namespaces.patterns import TopicDialect

from ._cases import Cases
from ._names import glob, like, topics

__all__ = ["CASES", "KINDS", "NAMES", "PATTERNS", "NamespaceHarness", "glob", "scopes"]


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

    @property
    def dialect(self) -> TopicDialect:
        """How the topics of the store are divided and matched: one of `hivetenancy.namespaces.patterns`."""
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

LIKES: Final = ("%", "a%", "_", "__", "a_b", "user%", "%:%", "_%a", "!%%", "a!_b", "!!%", "%!_%", "a", "user!_1:a")
"""LIKE patterns over those names, escaped by ``!``."""

KINDS: Final = (
    *("kv", "hashes", "lists", "sets", "sorted_sets", "bitmaps", "hyperloglogs", "geo", "streams", "locks"),
    *("collections", "queues", "topics", "channels", "blobs"),
    *(f"graph.{kind}" for kind in ("labels", "relationship_types", "property_keys", "indexes", "constraints")),
)
"""Every kind of names but files, as one gets at its scope."""


def scopes(names: TenantNames) -> Iterator[tuple[str, NameScope[Any]]]:
    """The scope of each kind, by name."""
    for kind in KINDS:
        yield kind, _scope(names, kind)


def _scope(names: TenantNames, kind: str) -> NameScope[Any]:
    return cast("NameScope[Any]", attrgetter(kind)(names))


def _different(names: TenantNames) -> Iterator[tuple[str, NameScope[Any]]]:
    """The scopes that are objects of their own, each under the first of its kinds: one object does one thing."""
    seen: list[NameScope[Any]] = []
    for kind, scope in scopes(names):
        if not any(scope is other for other in seen):
            seen.append(scope)
            yield kind, scope


def _kinds(harness: NamespaceHarness) -> list[str]:
    """The kinds whose scopes are objects of their own, for some tenant."""
    return [kind for kind in KINDS if any(kind in dict(_different(names)) for _, names in _all(harness))]


def _context(tenant: TenantId) -> TenantContext:
    return TenantContext(tenant_id=tenant, key_id=None, generation=1)


def _all(harness: NamespaceHarness) -> list[tuple[TenantId, TenantNames]]:
    return [(tenant, harness.manager.for_tenant(_context(tenant))) for tenant in harness.tenants]


def _fit(kind: str, names: Iterable[str]) -> list[str]:
    """Those of *names* that a kind may have: a blob's become part of an address, in which dots climb."""
    climb = re.compile(r"(^|[/\\])\.{1,2}($|[/\\])")
    return [name for name in names if kind != "blobs" or not climb.search(name)]


def _names(harness: NamespaceHarness, kind: str = "") -> list[str]:
    """The names of a kind to try: the usual ones, and all that any tenant's look like in the store."""
    physical = {
        text
        for _, names in _all(harness)[:4]
        for _, scope in _different(names)
        for text in (scope.prefix, scope.prefix.rstrip(":./"), scope.prefix + "a")
        if text
    }
    return _fit(kind, [*NAMES, *sorted(physical)])


def _refused(call: Callable[..., object], *arguments: Any, **options: Any) -> InvalidNameError | None:
    """Return the refusal of a call; ``None``: it passed."""
    try:
        call(*arguments, **options)
    except InvalidNameError as error:
        return error
    return None


@CASES.add
async def two_tenants_never_share_a_physical_name(harness: NamespaceHarness) -> None:
    """Whatever two tenants call their things, the store sees different names, of one kind and across kinds."""
    owner: dict[str, TenantId] = {}
    for tenant, names in _all(harness):
        for kind, scope in _different(names):
            for name in _names(harness, kind):
                physical = str(scope.key(name))
                other = owner.setdefault(physical, tenant)
                assert other == tenant, f"{kind}: a name of {tenant} is also one of {other}"


@CASES.add
async def no_tenants_names_lie_within_anothers(harness: NamespaceHarness) -> None:
    """No prefix of a tenant begins a prefix of another, so a sweep of one tenant never meets another."""
    prefixes = [(tenant, scope.prefix) for tenant, names in _all(harness) for _, scope in _different(names)]
    for (one, prefix), (other, second) in combinations(prefixes, 2):
        apart = one == other or not (prefix.startswith(second) or second.startswith(prefix))
        assert apart, f"the names of {one} and {other} lie within each other"


@CASES.add
async def a_name_round_trips(harness: NamespaceHarness) -> None:
    """What `strip` returns is the very name that `key` was given, as a plain string; and the tenant owns it."""
    for _, names in _all(harness):
        for kind, scope in _different(names):
            for name in _names(harness, kind):
                physical = str(scope.key(name))
                assert scope.owns(physical), f"{kind}: its own name is not the tenant's"
                back = scope.strip(physical)
                assert back == name, f"{kind}: {name!r} came back as {back!r}"
                assert type(back) is str


@CASES.add
async def a_physical_name_goes_to_a_driver_as_it_is(harness: NamespaceHarness) -> None:
    """A physical name is a ``str`` at run time, the prefix and then the name, byte for byte."""
    for _, names in _all(harness):
        for kind, scope in _different(names):
            for name in _names(harness, kind):
                physical: object = scope.key(name)
                assert isinstance(physical, str)
                assert str(physical) == scope.prefix + name, f"{kind}: the name was changed"


@CASES.add
async def several_names_at_once_are_the_same_names(harness: NamespaceHarness) -> None:
    """`keys` gives what `key` gives for each, in order, with what is there twice twice."""
    for _, names in _all(harness):
        for kind, scope in _different(names):
            wanted = [*_names(harness, kind), "a", "a"]
            assert scope.keys(iter(wanted)) == [scope.key(name) for name in wanted]


@CASES.add
async def a_name_is_not_scoped_twice(harness: NamespaceHarness) -> None:
    """A physical name is refused where a logical one is wanted: it is neither left alone nor prefixed again."""
    for _, names in _all(harness):
        for kind, scope in _different(names):
            physical: Any = scope.key("a")
            assert _refused(scope.key, physical), f"{kind}: a physical name was scoped again"
            assert _refused(scope.keys, ["a", physical]), f"{kind}: keys() scoped it again"
            assert _refused(scope.pattern, physical), f"{kind}: pattern() scoped it again"
            assert _refused(scope.like, physical), f"{kind}: like() scoped it again"
            assert _refused(scope.starting, physical), f"{kind}: starting() scoped it again"
            assert _refused(scope.range, physical), f"{kind}: range() scoped it again"


@CASES.add
async def what_is_no_string_is_refused(harness: NamespaceHarness) -> None:
    """Nothing but a plain string is a name: no bytes, no number, and above all not nothing."""
    wrong: list[Any] = [None, b"a", 1, True, ["a"]]
    for _, names in _all(harness):
        for kind, scope in _different(names):
            for name in wrong:
                for call in (scope.key, scope.pattern, scope.strip, scope.owns, scope.like, scope.starting):
                    assert _refused(call, name), f"{kind}: {call.__name__}({name!r}) passed"
                assert _refused(scope.strip_all, [name]), f"{kind}: strip_all([{name!r}]) passed"
                assert _refused(scope.after, None, beginning=name), f"{kind}: {name!r} began"


@CASES.add
async def what_no_store_can_keep_is_refused(harness: NamespaceHarness) -> None:
    """With tenants, an empty name, one with a lone surrogate and one that is too long are refused, never cut."""
    if harness.standalone:
        return
    too_long = "a" * 2**20, "é" * 2**20
    for _, names in _all(harness)[:2]:
        for kind, scope in _different(names):
            for name in ("", "\ud800", "a\udfff", *too_long):
                assert _refused(scope.key, name), f"{kind}: {name[:5]!r} passed"
                assert _refused(scope.pattern, name), f"{kind}: pattern {name[:5]!r} passed"
                assert _refused(scope.like, name), f"{kind}: like {name[:5]!r} passed"


@CASES.add
async def another_tenants_name_is_as_good_as_none(harness: NamespaceHarness) -> None:
    """Another tenant's name is not owned and not stripped, exactly as one that nobody has, and no message shows it."""
    if harness.standalone:
        return
    everybody = _all(harness)
    for tenant, names in everybody:
        for kind, scope in _different(names):
            nobodys = _refused(scope.strip, "nobody's")
            assert nobodys, f"{kind}: a name without owner was stripped"
            for other, others in everybody:
                if other == tenant:
                    continue
                for name in _names(harness, kind):
                    foreign = str(_scope(others, kind).key(name))
                    assert not scope.owns(foreign), f"{kind}: {tenant} owns a name of {other}"
                    error = _refused(scope.strip, foreign)
                    assert error, f"{kind}: {tenant} stripped a name of {other}"
                    assert str(error) == str(nobodys), "the message tells a foreign name from a missing one"


@CASES.add
async def a_pattern_matches_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """A scoped pattern, read as Redis reads it, matches what the pattern matches among the tenant's own names."""
    everybody = _all(harness)
    for kind in _kinds(harness):
        if kind == "topics":
            continue
        wanted = _names(harness, kind)
        store = {str(_scope(names, kind).key(name)) for _, names in everybody for name in wanted} | set(wanted)
        for tenant, names in everybody:
            scope = _scope(names, kind)
            mine = {name for name in store if name.startswith(scope.prefix)}
            for pattern in PATTERNS:
                found = set(filter(glob(scope.pattern(pattern)), store))
                matches = glob(pattern)
                assert found == {name for name in mine if matches(scope.strip(name))}, (
                    f"{kind}: the pattern {pattern!r} of {tenant} does not find its own names and no others"
                )


@CASES.add
async def a_like_pattern_matches_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """A scoped ``LIKE`` pattern matches what it matches among the tenant's own names; a broken one is refused."""
    everybody = _all(harness)
    for kind in _kinds(harness):
        wanted = _names(harness, kind)
        store = {str(_scope(names, kind).key(name)) for _, names in everybody for name in wanted} | set(wanted)
        for tenant, names in everybody:
            scope = _scope(names, kind)
            logical = {name: scope.strip(name) for name in store if name.startswith(scope.prefix)}
            for pattern in LIKES:
                found = set(filter(like(scope.like(pattern, escape="!"), "!"), store))
                matches = like(pattern, "!")
                assert found == {name for name, text in logical.items() if matches(text)}, (
                    f"{kind}: LIKE {pattern!r} of {tenant} does not find its own names and no others"
                )
            if not harness.standalone:
                for broken in ("a!", "!a", "!!!"):
                    assert _refused(scope.like, broken, escape="!"), f"{kind}: LIKE {broken!r} passed"


@CASES.add
async def a_pattern_of_topics_matches_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """A scoped pattern of topics, read as a broker reads it, matches what it matches among the tenant's own topics.

    One that begins with a wildcard may be refused, where the tenant's part is no segment of its own; no other may.
    """
    dialect, everybody = harness.dialect, _all(harness)
    mark, one, many = dialect.separator, dialect.one, dialect.many
    logical = [mark.join(parts) for parts in (["a"], ["b"], ["a", "b"], ["a", "b", "c"], ["b", "b"], ["user", "a"])]
    store = {str(names.topics.key(name)) for _, names in everybody for name in logical} | set(logical)
    store |= {names.topics.prefix.rstrip(mark) for _, names in everybody} - {""}
    segments = [["a"], ["a", one], ["a", many], ["a", one, "c"], [one], [many], [one, "b"], [one, many], ["user", one]]
    for tenant, names in everybody:
        own = [name for name in store if name.startswith(names.topics.prefix)]
        for wanted in segments:
            pattern = mark.join(wanted)
            try:
                scoped = names.topics.pattern(pattern)
            except InvalidNameError:
                assert wanted[0] in (one, many), f"the pattern {pattern!r} was refused to {tenant}"
                continue
            found = set(filter(topics(scoped, dialect), store))
            matches = topics(pattern, dialect)
            assert found == {name for name in own if matches(names.topics.strip(name))}, (
                f"topics: the pattern {pattern!r} of {tenant} does not find its own topics and no others"
            )


@CASES.add
async def a_beginning_covers_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """What begins with `starting` is just the tenant's names that begin with it."""
    everybody = _all(harness)
    for kind in _kinds(harness):
        wanted = _names(harness, kind)
        store = {str(_scope(names, kind).key(name)) for _, names in everybody for name in wanted} | set(wanted)
        for tenant, names in everybody:
            scope = _scope(names, kind)
            logical = {name: scope.strip(name) for name in store if name.startswith(scope.prefix)}
            for beginning in ("", "a", "a:", "user", "\uffff", "*"):
                found = {name for name in store if name.startswith(scope.starting(beginning))}
                assert found == {name for name, text in logical.items() if text.startswith(beginning)}, (
                    f"{kind}: {tenant} gets more or less than its names that begin with {beginning!r}"
                )


@CASES.add
async def a_range_holds_just_the_tenants_own(harness: NamespaceHarness) -> None:
    """A range holds the tenant's names between its bounds in code-point order, and no other, up to the last one."""
    everybody = _all(harness)
    for kind in _kinds(harness):
        wanted = sorted(_names(harness, kind))
        store = {str(_scope(names, kind).key(name)) for _, names in everybody for name in wanted} | set(wanted)
        for tenant, names in everybody:
            scope = _scope(names, kind)
            mine = {name for name in store if name.startswith(scope.prefix)}
            for low, high in [("", None), ("a", None), ("", "b"), ("a", "user"), ("b", "a"), ("\U0010ffff", None)]:
                found = set(_between(store, *scope.range(low, high)))
                assert scope.range(low, high, reverse=True) == scope.range(low, high)[::-1]
                logical = {name: scope.strip(name) for name in mine}
                expected = {name for name, text in logical.items() if low <= text and (high is None or text < high)}
                assert found == expected, f"{kind}: the range {low!r} to {high!r} of {tenant} is not exact"


def _between(store: Iterable[str], low: str | None, high: str | None) -> Iterator[str]:
    return (name for name in store if (low is None or low <= name) and (high is None or name < high))


@CASES.add
async def whatever_the_bounds_a_range_stays_inside(harness: NamespaceHarness) -> None:
    """Both bounds of a range lie within the tenant's names or at their end, though the order be wrong."""
    if harness.standalone:
        return
    for _, names in _all(harness):
        for kind, scope in _different(names):
            _, end = scope.range()
            assert end is not None
            for name in _names(harness, kind):
                low, high = scope.range(name, "a")
                assert low is not None, f"{kind}: there is no low bound"
                assert high is not None, f"{kind}: there is no high bound"
                assert scope.owns(low), f"{kind}: the low bound is outside"
                assert scope.prefix <= high <= end, f"{kind}: the high bound is outside"


@CASES.add
async def several_physical_names_at_once_are_stripped_or_none(harness: NamespaceHarness) -> None:
    """`strip_all` gives what `strip` gives for each, in order; one foreign name among them, and it gives nothing."""
    everybody = _all(harness)
    for tenant, names in everybody:
        for kind, scope in _different(names):
            physical = [str(scope.key(name)) for name in ("b", "a", "a")]
            assert scope.strip_all(iter(physical)) == ["b", "a", "a"]
            for other, others in everybody:
                if other != tenant:
                    foreign = str(_scope(others, kind).key("secret"))
                    error = _refused(scope.strip_all, [*physical, foreign])
                    assert error, f"{kind}: {tenant} stripped a name of {other} among its own"
                    assert "secret" not in str(error)


@CASES.add
async def a_blobs_name_climbs_nowhere(harness: NamespaceHarness) -> None:
    """A blob's name that an address would resolve to a place above is refused, as text and in bytes."""
    if harness.standalone:
        return
    ways = ("..", ".", "../b/x", "a/../../b", "a/./b", "..\\b", "%2e%2e/b", "%2E./b", "a/..%2fb", ".\t./b", "a/..\n")
    for _, names in _all(harness):
        for name in ways:
            assert _refused(names.blobs.key, name), f"{name!r} leads out of the tenant's blobs"
            assert _refused(names.blobs.keys, ["a", name]), f"keys() lets {name!r} out"
            assert _refused(names.blobs.binary.key, name.encode()), f"{name!r} leads out in bytes"
        assert str(names.blobs.key("a..b/...x/.y")).endswith("a..b/...x/.y")


@CASES.add
async def names_in_bytes_are_the_same_names(harness: NamespaceHarness) -> None:
    """A name in bytes and the same name as text are one name in the store, by every method; bytes need be no text."""
    for _, names in _all(harness):
        for kind, scope in _different(names):
            raw = scope.binary
            assert raw.prefix == scope.prefix.encode(), f"{kind}: another prefix in bytes"
            for name in _names(harness, kind):
                physical: object = raw.key(name.encode())
                assert isinstance(physical, bytes)
                assert bytes(physical) == str(scope.key(name)).encode(), f"{kind}: {name!r} is another one in bytes"
                assert raw.strip(bytes(physical)) == name.encode()
                assert raw.owns(bytes(physical))
                assert raw.starting(name.encode()) == scope.starting(name).encode()
            for blob in (b"\xff", b"\x00\x80", b"a\xed\xa0\x80"):
                assert bytes(raw.key(blob)) == raw.prefix + blob
                assert type(raw.strip(bytes(raw.key(blob)))) is bytes
                assert raw.strip(bytes(raw.key(blob))) == blob
            assert raw.keys(iter([b"b", b"a", b"a"])) == [raw.key(b"b"), raw.key(b"a"), raw.key(b"a")]
            assert raw.pattern(b"a") == scope.pattern("a").encode()
            for low, high in (("", None), ("a", None), ("a", "b")):
                bounds = [None if bound is None else bound.encode() for bound in scope.range(low, high)]
                given = low.encode(), None if high is None else high.encode()
                assert [*raw.range(*given)] == bounds, f"{kind}: another range in bytes"
                assert raw.range(*given, reverse=True) == raw.range(*given)[::-1]


@CASES.add
async def what_is_no_name_in_bytes_is_refused(harness: NamespaceHarness) -> None:
    """In bytes nothing but plain bytes is a name; another tenant's is not owned, and none is scoped twice."""
    everybody = _all(harness)
    for tenant, names in everybody:
        for kind, scope in _different(names):
            raw = scope.binary
            wrong: list[Any] = [None, "a", 1, bytearray(b"a"), raw.key(b"a")]
            for name in wrong:
                for call in (raw.key, raw.pattern, raw.starting, raw.range):
                    assert _refused(call, name), f"{kind}: {call.__name__}({name!r}) passed"
            for name in wrong[:3]:
                assert _refused(raw.strip, name), f"{kind}: strip({name!r}) passed"
                assert _refused(raw.owns, name), f"{kind}: owns({name!r}) passed"
            if not harness.standalone:
                for name in (b"", b"a" * 2**20):
                    assert _refused(raw.key, name), f"{kind}: {name[:5]!r} passed"
            for other, others in everybody:
                if other != tenant:
                    foreign = bytes(_scope(others, kind).binary.key(b"a"))
                    assert not raw.owns(foreign), f"{kind}: {tenant} owns a name of {other} in bytes"
                    assert _refused(raw.strip, foreign), f"{kind}: {tenant} stripped it"


@CASES.add
async def a_listing_shows_each_own_name_once(harness: NamespaceHarness) -> None:
    """Part by part a listing shows just the tenant's names, in order, once each, and what was written in between."""
    everybody = _all(harness)
    for kind in _kinds(harness):
        store = sorted(
            {str(_scope(names, kind).key(name)) for _, names in everybody for name in _fit(kind, NAMES)} | {*NAMES}
        )
        for tenant, names in everybody:
            scope = _scope(names, kind)
            for beginning in ("", "a", "user"):
                own = [scope.strip(name) for name in store if name.startswith(scope.prefix)]
                shown = [name for part in _listed(scope, store, 7, beginning) for name in part]
                assert shown == sorted(name for name in own if name.startswith(beginning)), (
                    f"{kind}: a listing of {tenant} from {beginning!r} is not exact"
                )
    kind, scope = next(_different(everybody[0][1]))
    grown = sorted(str(scope.key(name)) for name in ("a", "c", "e"))
    parts = _listed(scope, grown, 2, "")
    assert next(parts) == ["a", "c"]
    insort(grown, str(scope.key("d")))
    grown.remove(str(scope.key("e")))
    assert next(parts) == ["d"], f"{kind}: what was written after the page that was shown is missing"


def _listed(scope: NameScope[Any], store: Sequence[str], limit: int, beginning: str) -> Iterator[list[str]]:
    cursor = None
    while True:
        low, high = scope.after(cursor, beginning=beginning)
        found = [name for name in store if low <= name and (high is None or name < high)][: limit + 1]
        page = scope.page(found, limit=limit, beginning=beginning)
        yield list(page.names)
        assert len(page.names) <= limit, "a part of a listing is longer than its limit"
        if page.cursor is None:
            return
        assert page.cursor != cursor, "a listing does not get on"
        cursor = page.cursor


@CASES.add
async def a_cursor_is_worth_nothing_to_others(harness: NamespaceHarness) -> None:
    """Another tenant's cursor, one of another listing, a changed one and one that never was: refused in one way."""
    everybody = _all(harness)
    for tenant, names in everybody:
        for kind, scope in _different(names):
            found = [str(scope.key(name)) for name in ("a", "ab", "ac")]
            cursor = scope.page(found, limit=1, beginning="a").cursor
            assert cursor is not None, f"{kind}: a listing that goes on has no cursor"
            assert scope.after(cursor, beginning="a")[0] > found[0]
            changed = [cursor[:at] + other + cursor[at + 1 :] for at in range(len(cursor)) for other in ("A", "B")]
            forged: list[Any] = [
                *changed,
                "",
                "a",
                "\ud800",
                "é" * 40,
                cursor + "A",
                cursor + "=",
                cursor[:-1],
                5,
                b"a",
            ]
            errors = {str(_refused(scope.after, bad, beginning="a")) for bad in forged if bad != cursor}
            errors.add(str(_refused(scope.after, cursor)))
            for other, others in everybody:
                if other != tenant:
                    foreign = _scope(others, kind).after
                    errors.add(str(_refused(foreign, cursor, beginning="a")))
            assert "None" not in errors, f"{kind}: a cursor that was not given to {tenant} for this listing passed"
            assert len(errors) == 1, f"{kind}: cursors are told apart: {sorted(errors)}"


@CASES.add
async def a_page_shows_no_name_of_others(harness: NamespaceHarness) -> None:
    """A store that finds what is not the tenant's, or not asked for, makes `page` raise; the message shows no name."""
    everybody = _all(harness)
    for tenant, names in everybody:
        for kind, scope in _different(names):
            own = [str(scope.key(name)) for name in ("a", "ab")]
            assert _refused(scope.page, own, limit=5, beginning="ab"), f"{kind}: too much was shown"
            for other, others in everybody:
                if other != tenant:
                    found = sorted([*own, str(_scope(others, kind).key("secret"))])
                    for limit in (1, 5):
                        error = _refused(scope.page, found, limit=limit)
                        assert error, f"{kind}: {tenant} was shown a name of {other}"
                        assert "secret" not in str(error)


@CASES.add
async def files_of_tenants_keep_apart(harness: NamespaceHarness) -> None:
    """Every path lies in its tenant's directory, is read back, and is nobody else's, upper and lower case folded."""
    owner: dict[str, tuple[TenantId, tuple[str, ...]]] = {}
    everybody = _all(harness)
    for tenant, names in everybody:
        files = names.files
        for parts in [*((name,) for name in _names(harness)), ("a", "b"), ("a/b",), ("a", ".."), ("..", "..", "x")]:
            path = str(files.path(*parts))
            _check_inside(path, files, parts)
            first = owner.setdefault(path.casefold(), (tenant, parts))
            assert first == (tenant, parts), f"{parts} of {tenant} and {first[1]} of {first[0]} are one file"
        for other, others in everybody:
            if other != tenant:
                foreign = str(others.files.path("secret"))
                assert not files.owns(foreign), f"{tenant} owns a file of {other}"
                error = _refused(files.strip, foreign)
                assert error, f"{tenant} stripped a path of {other}"
                assert "secret" not in str(error)
                climbing = f"{files.directory}/../" + posixpath.basename(others.files.directory) + "/n.secret"
                assert not files.owns(climbing), "a path that leaves the directory counts as in it"
        wrong: list[tuple[Any, ...]] = [(), ("",), ("a", ""), ("\ud800",), (b"a",), (None,), (files.path("a"),)]
        for parts in wrong:
            assert _refused(files.path, *parts), f"path{parts!r} passed"


def _check_inside(path: str, files: FileScope, parts: tuple[str, ...]) -> None:
    beginning = f"{files.directory}/" if files.directory else ""
    assert path.startswith(beginning), "a path is not in its tenant's directory"
    assert posixpath.normpath(path) == path, f"the path of {parts} is not what a file system makes of it"
    assert not path.startswith("/"), f"the path of {parts} is absolute"
    assert "\\" not in path, f"the path of {parts} divides on Windows"
    assert files.owns(path), f"the tenant does not own the path of {parts}"
    if all(len(part) < 60 for part in parts):  # a longer one may stand there as its digest
        assert files.strip(path) == parts, f"the path of {parts} was read as {files.strip(path)}"


@CASES.add
async def no_name_is_one_of_the_librarys_own(harness: NamespaceHarness) -> None:
    """No name of a tenant begins with ``hvt!``, under which the library keeps its own records, whatever is tried."""
    if harness.standalone:
        return
    for tenant, names in _all(harness):
        for kind, scope in _different(names):
            for name in ("hvt!manifest", "!manifest", "manifest", "a"):
                assert not str(scope.key(name)).startswith("hvt!"), f"{kind}: {tenant} reaches the library's records"
            assert not "hvt!".startswith(scope.prefix), f"{kind}: {tenant} has a prefix within the library's"


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
    assert names.files.directory == ""
    for _, scope in _different(names):
        assert scope.prefix == ""
        assert scope.binary.prefix == b""
        assert scope.range() == scope.after(None) == ("", None)
        assert scope.range("a", "b") == ("a", "b")
        assert scope.binary.range(b"a") == (b"a", None)
        for name in ("", *_names(harness)):
            assert str(scope.key(name)) == scope.pattern(name) == scope.like(name) == scope.strip(name) == name
            assert scope.starting(name) == name
            assert scope.owns(name)
            raw = name.encode()
            assert scope.binary.pattern(raw) == scope.binary.starting(raw) == raw
