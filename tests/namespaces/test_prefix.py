"""Names by prefix: what the store sees, what is refused, and what upstream got wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError
from hivetenancy.ids import STANDALONE, KeyId, TenantId
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces import prefix as prefix_module
from hivetenancy.namespaces.names import check_no_way_out
from hivetenancy.namespaces.patterns import DIALECTS
from hivetenancy.namespaces.prefix import MAX_NAME_BYTES, IdentityNamespaces, PrefixNamespaces
from hivetenancy.testing.contracts.namespaces import CASES, glob, scopes
from tests.namespaces.test_contract import BROKEN, fails

ACME = "550e8400-e29b-41d4-a716-446655440000"
OTHER = "650e8400-e29b-41d4-a716-446655440000"

#: Ids that something, somewhere, has taken for each other (isolation note, 5.6).
CLIQUES = (
    ("1", "12", "123"),
    ("a", "a:b", "b", "a:"),
    ("Alice", "alice", "ALICE"),
    ("a/b", "a", "b", "a/", "/a"),
    ("*", "?", "[ab]", "a*", "**"),
    ("a_b", "a_", "a__b", "a_5fb", "a-b"),
    ("k", "\uff4b", "\u212a".casefold(), "ｋ"),
    ("é", "e", "_c3_a9"),
    ("[", "]", "{a}", "{", "}"),
    ("user", "user:1", "user_1", "user:1:"),
    ("a.b", "a", ".", "..", "a."),
    ("-", "--", "-a", "a-"),
    ("#", ">", "$SYS", "+", "%2f", "/"),
)


def of_every_kind(name: str) -> bool:
    """Whether *name* may be a blob's, too, whose names become addresses: ``.`` and its like may not."""
    try:
        check_no_way_out(name)
    except InvalidNameError:
        return False
    return True


logical = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(of_every_kind)
tenants = st.sampled_from([text for clique in CLIQUES for text in clique])


def names_of(tenant: str, manager: PrefixNamespaces | None = None, *, key: str | None = None) -> TenantNames:
    """The names of a tenant, by default under the default profile."""
    context = TenantContext(tenant_id=TenantId(tenant), key_id=None if key is None else KeyId(key), generation=1)
    return (manager or PrefixNamespaces()).for_tenant(context)


def opaque(tenant: str) -> TenantNames:
    """The names of a tenant with an id of any text."""
    return names_of(tenant, PrefixNamespaces(scheme="opaque"))


def test_the_literals_of_the_default_profile() -> None:
    """The default profile prints what HiveHub's data servers print, byte for byte."""
    names = names_of(ACME)
    assert [str(scope.key("n:1")) for _, scope in scopes(names)] == [
        *[f"user:{ACME}:n:1"] * 10,
        *[f"user_{ACME}:n:1"] * 2,
        f"user_{ACME}.n:1",
        f"user_{ACME}:n:1",
        f"tenants/{ACME}/n:1",
        *[f"ns:{ACME}:n:1"] * 5,
    ]
    assert str(names.files.path("n")) == f"tenants/{ACME}/n.n"


@pytest.mark.parametrize("separator", [".", "/", ":"])
def test_a_topic_is_a_segment_of_its_own(separator: str) -> None:
    """A topic is divided from the tenant's part by what divides topics, so a wildcard cannot span it."""
    topics = names_of(ACME, PrefixNamespaces(topic_separator=separator)).topics
    assert topics.prefix == f"user_{ACME}{separator}"
    dialect = DIALECTS[separator]
    # A bare "#" also stands for no segment, and would match the tenant's own: one segment is asked for.
    assert topics.pattern("#") == separator.join([f"user_{ACME}", dialect.one, "#"])
    assert topics.pattern(f"a{separator}#") == separator.join([f"user_{ACME}", "a", "#"])
    assert topics.prefix[:-1].count(separator) == 0


@pytest.mark.parametrize("clique", CLIQUES, ids=lambda clique: clique[0])
def test_tenants_that_are_easily_confused_keep_apart(clique: tuple[str, ...]) -> None:
    """Within each clique of ids, no tenant's prefix of any kind begins one of another's."""
    prefixes = [(tenant, scope.prefix) for tenant in set(clique) for _, scope in scopes(opaque(tenant))]
    for tenant, prefix in prefixes:
        assert not [other for other, second in prefixes if other != tenant and second.startswith(prefix)]


@given(one=tenants, other=tenants, name=logical, second=logical)
def test_two_tenants_never_share_a_physical_name(one: str, other: str, name: str, second: str) -> None:
    """Two tenants, or one tenant's two names, never have one physical name, of one kind or across all of them."""
    mine, theirs = opaque(one), opaque(other)
    for kind, scope in scopes(mine):
        for other_kind, foreign in scopes(theirs):
            same = str(scope.key(name)) == str(foreign.key(second))
            assert not same or (one, name, scope.prefix) == (other, second, foreign.prefix), (kind, other_kind)
            assert one == other or not scope.owns(str(foreign.key(second)))


@given(tenant=tenants, names=st.lists(logical, min_size=1, max_size=8))
def test_names_round_trip_and_keep_their_order(tenant: str, names: list[str]) -> None:
    """A name of any characters comes back as it was, and physical names sort as the logical ones do."""
    for _, scope in scopes(opaque(tenant)):
        physical = [str(name) for name in scope.keys(names)]
        assert [scope.strip(name) for name in physical] == names
        assert [scope.strip(name) for name in sorted(physical)] == sorted(names)
        assert sorted(physical, key=lambda name: name.encode()) == sorted(physical)


edges = st.text(alphabet="ab\uffff\U0010ffff\x00:", max_size=4)


@given(tenant=tenants, stored=st.lists(st.tuples(tenants, edges.filter(bool)), max_size=12), low=edges, high=edges)
def test_a_range_equals_what_begins_with_the_prefix(
    tenant: str, stored: list[tuple[str, str]], low: str, high: str
) -> None:
    """A whole range is the `startswith` set, a bounded one its slice, up to the last character there is."""
    scope = opaque(tenant).kv
    store = [str(opaque(owner).kv.key(name)) for owner, name in stored] + [name for _, name in stored]
    start, end = scope.range()
    assert end is not None
    assert [name for name in store if start <= name < end] == [n for n in store if n.startswith(scope.prefix)]
    start, end = scope.range(low, high)
    assert end is not None
    wanted = [n for n in store if n.startswith(scope.prefix) and low <= n.removeprefix(scope.prefix) < high]
    assert [name for name in store if start <= name < end] == wanted


globs = st.text(alphabet="ab:*?[]^-\\", min_size=1, max_size=6)


@given(tenant=tenants, stored=st.lists(st.tuples(tenants, logical | globs), max_size=10), pattern=globs)
def test_a_pattern_finds_the_tenants_own(tenant: str, stored: list[tuple[str, str]], pattern: str) -> None:
    """A scoped pattern, matched as Redis matches, finds what the pattern finds among the tenant's names alone."""
    scope = opaque(tenant).kv
    store = {str(opaque(owner).kv.key(name)) for owner, name in stored} | {name for _, name in stored}
    own = {name for name in store if name.startswith(scope.prefix)}
    found = set(filter(glob(scope.pattern(pattern)), store))
    assert found == {name for name in own if glob(pattern)(scope.strip(name))}


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        *(("*", "", True), ("a*c", "abbc", True), ("a*c", "abb", False), ("?", "é", False), ("??", "é", True)),
        *(("[a-c]", "b", True), ("[c-a]", "b", True), ("[^a-c]", "b", False), ("[^a-c]", "d", True)),
        *(("\\*", "*", True), ("\\*", "a", False), ("[\\]]", "]", True), ("[", "[", False), ("[ab", "b", True)),
        *(("a\\", "a\\", True), ("[]a", "a", False), ("[^]", "\n", True), ("[-]", "-", True), ("*a*b*", "xaxbx", True)),
    ],
)
def test_the_kits_matcher_matches_as_redis_does(pattern: str, name: str, matches: bool) -> None:
    """The matcher that the patterns are judged by knows classes, negation, escapes, and matches bytes."""
    assert glob(pattern)(name) is matches


def test_names_that_are_too_long_are_refused() -> None:
    """The bound counts bytes of the physical name, and a name just within it passes."""
    names = names_of(ACME)
    for _, scope in scopes(names):
        room = MAX_NAME_BYTES - len(scope.prefix)
        for letter, count in (("a", room), ("é", room // 2), ("\U0001f600", room // 4)):
            fits = letter * count
            assert len(str(scope.key(fits)).encode()) <= MAX_NAME_BYTES
            with pytest.raises(InvalidNameError, match="is the most"):
                scope.key(fits + letter)
            with pytest.raises(InvalidNameError, match="is the most"):
                scope.pattern(fits + letter)


def test_the_bound_follows_the_store() -> None:
    """A store with shorter names gets a manager with a smaller bound."""
    scope = names_of(ACME, PrefixNamespaces(max_name_bytes=63)).collections
    assert len(str(scope.key("a" * 21))) == 63
    with pytest.raises(InvalidNameError):
        scope.key("a" * 22)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scheme": "email"}, "there are uuid, slug, opaque"),
        ({"max_name_bytes": 45}, "above 45"),
        ({"scheme": "opaque", "max_name_bytes": 137}, "above 137"),
        ({"max_name_bytes": 100.0}, "whole number"),
        ({"max_name_bytes": True}, "whole number"),
        ({"topic_separator": "-"}, "topic_separator"),
        ({"topic_separator": ""}, "topic_separator"),
        ({"profile": "redis"}, "there are default, synap, vectorizer, nexus, tagged"),
        ({"profile": None}, "there is no profile None"),
        ({"secret": b"short"}, "at least 16 bytes"),
        ({"secret": "0123456789abcdef"}, "at least 16 bytes"),
    ],
)
def test_a_wrong_setting_is_refused_when_built(wrong: dict[str, Any], message: str) -> None:
    """A manager that could not keep its promise is not built, and the message names the fix."""
    with pytest.raises(ConfigurationError, match=message):
        PrefixNamespaces(**wrong)


def test_the_least_bound_is_enough_for_a_name() -> None:
    """One byte above the longest prefix, the longest tenant still has names."""
    manager = PrefixNamespaces(scheme="opaque", max_name_bytes=138)
    assert str(names_of("a" * 128, manager).blobs.key("x")).endswith("/x")


@pytest.mark.parametrize("tenant", ["", "acme", "tenant_0123456789abcdef", f"{ACME}\n", "standalone"])
def test_a_tenant_whose_id_is_no_uuid_has_no_names(tenant: str) -> None:
    """An id outside the scheme is refused before a name can be made."""
    with pytest.raises(InvalidNameError):
        names_of(tenant)


def test_the_standalone_manager_serves_no_tenant() -> None:
    """The identity is refused to a tenant, whose names would otherwise be everybody's."""
    with pytest.raises(MisuseError, match="PrefixNamespaces"):
        IdentityNamespaces().for_tenant(TenantContext(tenant_id=TenantId(ACME), key_id=None, generation=1))


def test_standalone_leaves_names_alone() -> None:
    """Without tenants a name is what it was, be it empty or not to be encoded; only its type is looked at."""
    names = IdentityNamespaces().for_tenant(TenantContext(tenant_id=STANDALONE, key_id=None, generation=0))
    for _, scope in scopes(names):
        for name in ("", "a", "user:1:a", "\ud800", "x" * 5000):
            assert str(scope.key(name)) == scope.pattern(name) == scope.strip(name) == name
        assert scope.range("a") == ("a", None)
        wrong: Any
        for wrong in (b"a", None, scope.key("a")):
            with pytest.raises(InvalidNameError):
                scope.key(wrong)
        for wrong in (b"a", None):
            with pytest.raises(InvalidNameError):
                scope.range("a", wrong) if wrong else scope.range(wrong)
            with pytest.raises(InvalidNameError):
                scope.owns(wrong)


def test_bounds_of_a_range_are_looked_at() -> None:
    """A bound that is no plain string, or that no store could compare, is refused."""
    scope = names_of(ACME).kv
    wrong: Any
    for wrong in (b"a", scope.key("a"), "\ud800"):
        with pytest.raises(InvalidNameError):
            scope.range(wrong)
        with pytest.raises(InvalidNameError):
            scope.range("a", wrong)


# --- what went wrong upstream ---------------------------------------------------------------------------------------


def test_d4_an_id_that_was_no_uuid_counted_as_no_tenant() -> None:
    """An id that cannot be read as one is an error, never "no tenant", which upstream let see everything."""
    for tenant in ("tenant_0123456789abcdef", "", "None"):
        with pytest.raises(InvalidNameError):
            names_of(tenant)


def test_d7_one_name_space_for_all_tenants() -> None:
    """Two tenants both own a collection `docs`, and neither learns of the other's."""
    store = {names_of(ACME).collections.key("docs"): "mine", names_of(OTHER).collections.key("docs"): "theirs"}
    assert len(store) == 2
    assert not any(names_of(OTHER).collections.owns(str(name)) for name, owner in store.items() if owner == "mine")


def test_d8_three_naming_schemes_disagreed() -> None:
    """Whichever way one asks, key id and spelling of the UUID included, a tenant's collection has one physical name."""
    manager = PrefixNamespaces()
    spellings = (ACME, ACME.upper(), ACME.replace("-", ""))
    made = {str(names_of(text, manager, key=key).collections.key("docs")) for text in spellings for key in (None, "k1")}
    assert made == {f"user_{ACME}:docs"}


def test_d9_what_was_made_could_not_be_used() -> None:
    """A collection is its maker's from its name on: the maker finds, lists and reads it, and nobody else does."""
    mine, theirs = names_of(ACME), names_of(OTHER)
    store = {str(mine.collections.key("docs")): "made without a word about its owner"}
    assert [mine.collections.strip(name) for name in store if mine.collections.owns(name)] == ["docs"]
    assert store[str(mine.collections.key("docs"))]
    assert not [name for name in store if theirs.collections.owns(name)]
    assert str(theirs.collections.key("docs")) not in store


#: What each weakness of the servers would be called in the kit, and which case finds it.
WEAKNESSES = {
    "d7": ("OneNameSpace", "two_tenants_never_share_a_physical_name"),
    "d8": ("ThreeSchemes", "a_name_round_trips"),
    "d9": ("MakesUnowned", "a_name_round_trips"),
    "d33": ("LeavesPrefixed", "two_tenants_never_share_a_physical_name"),
    "d34": ("Unchecked", "no_tenants_names_lie_within_anothers"),
    "d39": ("OneColon", "a_name_round_trips"),
}


@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_manager_with_a_weakness_of_upstream_is_caught(weakness: str) -> None:
    """Each weakness of the servers, planted into a manager of names, fails a case of the kit."""
    fault, case = WEAKNESSES[weakness]
    harness, expected = BROKEN[fault]
    assert expected == case
    assert fails(CASES.named(case), harness())


def test_d28_a_namespace_that_could_not_be_selected() -> None:
    """There is no optional tenant: without a context nothing gives a name, and `None` is none."""
    nobody: Any = None
    for manager in (PrefixNamespaces(), IdentityNamespaces()):
        with pytest.raises(MisuseError, match="takes a TenantContext, not NoneType"):
            manager.for_tenant(nobody)
    with pytest.raises(InvalidNameError):
        names_of(nobody)


def test_d33_a_name_that_looked_scoped_passed_unchanged() -> None:
    """A tenant who writes another's physical name out gets a name of its own, and a scoped name is not scoped again."""
    mine, theirs = names_of(ACME), names_of(OTHER)
    stolen = str(theirs.kv.key("secret"))
    assert str(mine.kv.key(stolen)) == f"user:{ACME}:{stolen}"
    again: Any = mine.kv.key("a")
    with pytest.raises(InvalidNameError, match="physical already"):
        mine.kv.key(again)


def test_d39_a_colon_in_a_name_broke_the_round_trip() -> None:
    """`config:app` is its owner's, is listed, and comes back without the prefix; so does a name of colons alone."""
    names = names_of(ACME)
    for _, scope in scopes(names):
        for name in ("config:app", "a:b:c", ":", "::", ":a", "a:", f"user:{OTHER}:x"):
            physical = str(scope.key(name))
            assert scope.owns(physical)
            assert scope.strip(physical) == name
    listed = [str(name) for name in names.kv.keys(["config:app", "plain"])]
    assert [names.kv.strip(name) for name in filter(glob(names.kv.pattern("config:*")), listed)] == ["config:app"]


def test_a9_typed_names_are_stripped_to_plain_ones_and_foreign_ones_raise() -> None:
    """A9: of a typed name, in text or bytes, what is left is plain; another tenant's raises, typed or not."""
    mine, theirs = names_of(ACME).kv, names_of(OTHER).kv
    assert type(mine.strip(str(mine.key("a")))) is type(mine.strip(mine.key("a"))) is str  # type: ignore[arg-type]
    assert type(mine.binary.strip(mine.binary.key(b"a"))) is bytes  # type: ignore[arg-type]
    pairs: list[tuple[Any, Any]] = [(mine, theirs.key("a")), (mine.binary, theirs.binary.key(b"a"))]
    for scope, foreign in pairs:
        with pytest.raises(InvalidNameError):
            scope.strip(foreign)


def test_several_names_are_refused_as_each_is() -> None:
    """Many at once are written out for speed: what is refused, and why, is as one by one."""
    scope = names_of(ACME).kv
    for bad in ("", "x" * MAX_NAME_BYTES, scope.key("a"), b"a", None, 1, "\ud800"):
        with pytest.raises(InvalidNameError) as one:
            scope.key(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidNameError) as many:
            scope.keys(["a", bad])  # type: ignore[list-item]
        assert str(one.value) == str(many.value)
    assert scope.keys(["\u00e9", "a"]) == [scope.key("\u00e9"), scope.key("a")]


def test_who_overrides_the_name_overrides_the_names() -> None:
    """`keys` does not call `key`, so a kind with rules of its own that has one alone would pass what it refuses."""
    for kind in prefix_module._PrefixScope.__subclasses__():
        assert ("key" in vars(kind)) == ("keys" in vars(kind)), kind


@pytest.mark.parametrize("wrong", ["acme", None, TenantId("550e8400-e29b-41d4-a716-446655440000")])
def test_what_is_no_context_has_no_names(wrong: Any) -> None:
    """An id alone says nothing of who vouches for it; the message says what is wanted."""
    with pytest.raises(MisuseError, match="takes a TenantContext, not"):
        PrefixNamespaces().for_tenant(wrong)
