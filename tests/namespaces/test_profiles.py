"""Profiles: what the servers print, byte for byte, and which formats are refused, and why."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from hivetenancy.context import TenantContext
from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.codec import IdScheme, UuidForm, check_templates, encode
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.namespaces.profiles import DEFAULT, GROUPS, PROFILES, Profile, profile_named
from hivetenancy.testing.contracts.namespaces import KINDS, scopes
from tests.tiers import examples

ACME = "550e8400-e29b-41d4-a716-446655440000"
HEX = "550e8400e29b41d4a716446655440000"


def names_of(tenant: str, **options: Any) -> TenantNames:
    """The names of a tenant under a manager built from *options*."""
    return PrefixNamespaces(**options).for_tenant(TenantContext(tenant_id=TenantId(tenant), key_id=None, generation=1))


# --- golden vectors -------------------------------------------------------------------------------------------------

#: What `config:app` and `orders.new` are called in the store: for keys, containers, channels, topics, graph, blobs.
GOLDEN = {
    "default": (
        f"user:{ACME}:config:app",
        f"user_{ACME}:config:app",
        f"user_{ACME}:config:app",
        f"user_{ACME}.orders.new",
        f"ns:{ACME}:config:app",
        f"tenants/{ACME}/config:app",
        f"tenants/{ACME}/n.config_3aapp",
    ),
    "synap": (
        f"user_{HEX}:config:app",
        f"user_{HEX}:config:app",
        f"user_{HEX}:config:app",
        f"user_{HEX}:orders.new",
        f"user_{HEX}:config:app",
        f"tenants/{HEX}/config:app",
        f"tenants/{HEX}/n.config_3aapp",
    ),
    "vectorizer": (
        f"user_{ACME}:config:app",
        f"user_{ACME}:config:app",
        f"user_{ACME}:config:app",
        f"user_{ACME}.orders.new",
        f"ns:{ACME}:config:app",
        f"tenants/{ACME}/config:app",
        f"tenants/{ACME}/n.config_3aapp",
    ),
    "nexus": (
        f"ns:{ACME}:config:app",
        f"ns:{ACME}:config:app",
        f"ns:{ACME}:config:app",
        f"ns:{ACME}.orders.new",
        f"ns:{ACME}:config:app",
        f"tenants/{ACME}/config:app",
        f"tenants/{ACME}/n.config_3aapp",
    ),
    "tagged": (
        f"user:{{{ACME}}}:config:app",
        f"user_{{{ACME}}}:config:app",
        f"user_{{{ACME}}}:config:app",
        f"user_{{{ACME}}}.orders.new",
        f"ns:{ACME}:config:app",
        f"tenants/{ACME}/config:app",
        f"tenants/{ACME}/n.config_3aapp",
    ),
}


@pytest.mark.parametrize("profile", GOLDEN)
@pytest.mark.parametrize("spelling", [ACME, ACME.upper(), HEX, HEX.upper()])
def test_what_a_profile_prints(profile: str, spelling: str) -> None:
    """Each shipped profile prints its literals, byte for byte, whichever spelling of the UUID comes in."""
    names = names_of(spelling, profile=profile)
    keys, containers, channels, topics, graph, blobs, files = GOLDEN[profile]
    expected = dict.fromkeys(GROUPS["keys"], keys) | dict.fromkeys(GROUPS["containers"], containers)
    expected |= {"channels": channels, "topics": topics, "blobs": blobs}
    expected |= {f"graph.{kind}": graph for kind in GROUPS["graph"]}
    assert set(expected) == set(KINDS)
    logical = {"topics": "orders.new"}
    assert {kind: str(scope.key(logical.get(kind, "config:app"))) for kind, scope in scopes(names)} == expected
    assert str(names.files.path("config:app")) == files


def test_every_shipped_profile_has_its_vectors() -> None:
    """A profile that ships without golden vectors, or a kind without a group, is noticed."""
    assert set(GOLDEN) == set(PROFILES)
    assert {kind.removeprefix("graph.") for kind in KINDS} | {"files"} == set(itertools.chain(*GROUPS.values()))
    assert profile_named("default") is DEFAULT
    with pytest.raises(ConfigurationError, match="there is no profile 'other'"):
        profile_named("other")


def test_y6_a_wildcard_in_the_first_segment_never_matched() -> None:
    """Synap glues its prefix to a topic's first segment: a leading wildcard is refused there, as it matches none."""
    topics = names_of(ACME, profile="synap").topics
    assert topics.pattern("orders.*") == f"user_{HEX}:orders.*"
    assert topics.pattern("orders.#") == f"user_{HEX}:orders.#"
    for pattern in ("#", "*", "*.new"):
        with pytest.raises(InvalidNameError, match="cannot begin with a wildcard"):
            topics.pattern(pattern)
        with pytest.raises(InvalidNameError):
            topics.binary.pattern(pattern.encode())
    with pytest.raises(InvalidNameError, match="UTF-8"):
        topics.binary.pattern(b"orders.\xff")
    assert names_of(ACME).topics.pattern("*.new") == f"user_{ACME}.*.new"


def test_a_separator_changes_the_topics_alone() -> None:
    """The separator that a manager is built with goes into the template of topics, and is kept where it fits."""
    for separator in "./:":
        manager = PrefixNamespaces(topic_separator=separator)
        assert manager.profile.templates() == DEFAULT.templates() | {"topics": "user_{t}" + separator}
    nats = PrefixNamespaces(profile=Profile(name="nats", topic_dialect="nats"), topic_separator=".")
    assert nats.profile.topic_dialect == "nats"
    assert nats.for_tenant(TenantContext(tenant_id=TenantId(ACME), key_id=None, generation=1)).topics.pattern(">")


# --- Redis Cluster --------------------------------------------------------------------------------------------------


def slot(key: bytes) -> int:
    """The slot of a key in Redis Cluster: CRC16 (XMODEM) of what stands in its first non-empty braces, or of all."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % 16384


STEERING = ("a", "{b}", "{b}{c}", "}{b}", "{}", "{}x", "}", "{", "a{b}c", "{" + ACME + "}", "foo{{bar}}zap")


def test_the_slots_are_those_of_redis_cluster() -> None:
    """The oracle gives the values of the specification of Redis Cluster."""
    assert slot(b"123456789") == 0x31C3 % 16384
    assert slot(b"{user1000}.following") == slot(b"{user1000}.followers") == slot(b"user1000")
    assert slot(b"foo{}{bar}") == slot(b"foo{}{bar}") != slot(b"bar")


@pytest.mark.parametrize("tenant", [ACME, "00000000-0000-0000-0000-000000000000"])
def test_a37_no_key_steers_the_slot(tenant: str) -> None:
    """Under `tagged` all of a tenant's keys lie in one slot, that of its token, whatever braces it writes."""
    names = names_of(tenant, profile="tagged")
    for scope in (names.kv, names.queues, names.channels):
        assert {slot(bytes(scope.binary.key(name.encode()))) for name in STEERING} == {slot(tenant.encode())}


def test_a37_without_the_tag_a_key_does_steer() -> None:
    """The test above can fail: under the default profile a tenant chooses the slot of its keys."""
    scope = names_of(ACME).kv
    assert len({slot(str(scope.key(name)).encode()) for name in STEERING}) > 3
    assert slot(str(scope.key("{b}")).encode()) == slot(b"b")


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keys": "user:{t}"}, "must go on, after"),
        ({"keys": "user:{t}-"}, "must go on, after"),
        ({"keys": "user:"}, "exactly once"),
        ({"keys": "user:{t}:{t}:"}, "exactly once"),
        ({"keys": None}, "is a str"),
        ({"keys": "us*r:{t}:"}, "printable ASCII"),
        ({"keys": "user_{t}:x"}, "overlap"),
        ({"keys": "user_ns{t}:"}, "overlap"),
        ({"keys": "hvt!{t}:"}, "library's own records"),
        ({"keys": "hvt!x{t}:"}, "library's own records"),
        ({"blobs": "h{t}!"}, "library's own records"),
        ({"blobs": "hv{t}!x/"}, "library's own records"),
        ({"channels": "__keyspace@0__:{t}:"}, "must not begin with '__'"),
        ({"topics": "$SYS{t}{s}"}, "must not begin with"),
        ({"topics": "a#{t}."}, "must hold none of"),
        ({"topics": "a.+.{t}."}, "must hold none of"),
        ({"topics": "a>{t}."}, "must hold none of"),
        ({"topics": "user_{t}"}, "must go on"),
        ({"graph": "`{t}:"}, "back-tick"),
        ({"files": "{t}"}, "must go on"),
        ({"files": "t/{t}:"}, "relative path"),
        ({"files": "/tenants/{t}/"}, "relative path"),
        ({"files": "../{t}/"}, "relative path"),
        ({"files": "a/../{t}/"}, "relative path"),
        ({"files": ".hidden/{t}/"}, "relative path"),
        ({"files": "a//{t}/"}, "relative path"),
        ({"files": "con/{t}/"}, "relative path"),
        ({"files": "a/{t}/.x/"}, "relative path"),
        ({"files": "a/{t}/x"}, "relative path"),
        ({"files": "C:/{t}/"}, "relative path"),
        ({"name": ""}, "name is"),
        ({"name": "Default"}, "name is"),
        ({"name": "a\n"}, "name is"),
        ({"name": 5}, "name is"),
        ({"uuid_form": "simple"}, "UuidForm"),
        ({"topic_dialect": "kafka"}, "there are amqp, synap, nats, mqtt, colons"),
        ({"topic_dialect": ["amqp"]}, "there is no topic_dialect"),
        ({"max_name_bytes": 0}, "above 0"),
        ({"max_name_bytes": True}, "whole number"),
    ],
)
def test_a_profile_that_could_leak_is_refused(wrong: dict[str, Any], message: str) -> None:
    """A profile of one's own is refused when it is made, and the message says which template, and why."""
    with pytest.raises(ConfigurationError, match=message):
        Profile(**{"name": "own", **wrong})


def test_a_profile_of_ones_own() -> None:
    """Templates that keep the rules are taken, and print as they say."""
    profile = Profile(name="own", keys="app/{t}/", files="data/{t}/files/", max_name_bytes=511)
    names = names_of("acme", profile=profile, scheme="slug")
    assert str(names.kv.key("a")) == "app/acme/a"
    assert str(names.files.path("a")) == "data/acme/files/n.a"
    with pytest.raises(InvalidNameError, match="is the most"):
        names.kv.key("a" * 503)
    assert str(names.kv.key("a" * 502))
    assert PrefixNamespaces(profile=profile, max_name_bytes=600).profile.max_name_bytes == 600


@pytest.mark.parametrize("template", ["h{t}:", "hv{t}/", "x{t}!", "hvt{t}!", "hvt:{t}:", "hv!{t}:"])
def test_what_only_resembles_the_librarys_own_is_taken(template: str) -> None:
    """A template is refused for what its names could be, and not for a likeness."""
    assert not [text for text in TOKENS if template.replace("{t}", text).startswith("hvt!")]
    assert Profile(name="own", blobs=template).blobs == template


def test_the_longest_name_by_default() -> None:
    """What object stores take as a key, and the least that can be stated is one byte."""
    assert DEFAULT.max_name_bytes == 1024
    assert Profile(name="own", max_name_bytes=1).max_name_bytes == 1


def test_d34_no_way_round_the_checks_of_a_profile() -> None:
    """Made anew, copied, pickled or changed, a profile passes the checks; what was tampered with does not come back."""
    for again in (pickle.loads(pickle.dumps(DEFAULT)), copy.deepcopy(DEFAULT), copy.copy(DEFAULT), replace(DEFAULT)):
        assert again == DEFAULT
    rebuild, (values,) = DEFAULT.__reduce__()
    with pytest.raises(ConfigurationError, match="must go on"):
        rebuild(values | {"keys": "user:{t}"})
    with pytest.raises(ConfigurationError, match="must go on"):
        pickle.loads(pickle.dumps(DEFAULT).replace(b"user:{t}:", b"user:{t}x"))
    with pytest.raises(ConfigurationError):
        replace(DEFAULT, keys="user:{t}")
    with pytest.raises(FrozenInstanceError):
        DEFAULT.keys = "user:{t}"  # type: ignore[misc]


class Trusting(Profile):
    """A profile that is read back without a look: the fault that D34 names."""

    def __reduce__(self) -> Any:
        return _unchecked, ({name: getattr(self, name) for name in Profile.__dataclass_fields__},)


def _unchecked(values: dict[str, Any]) -> Trusting:
    made: Trusting = object.__new__(Trusting)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def test_d34_a_profile_read_back_unchecked_would_leak() -> None:
    """The test above can fail: read back without a check, tenant 1 would hold what is tenant 12's."""
    tampered = pickle.loads(pickle.dumps(Trusting(name="x")).replace(b"user:{t}:", b"user:{t}x"))
    one, twelve = (tampered.keys.replace("{t}", token) for token in ("1", "1x2"))
    assert twelve.startswith(one)


@pytest.mark.parametrize(
    "sentinel", ["system", "__system__", "public", "default", "hvt", "hvt!", "hvt!manifest", "fake"]
)
def test_a45_no_tenant_reaches_what_is_the_systems(sentinel: str) -> None:
    """A tenant may be called as the library's own records are: its names are its own, and theirs are not its."""
    for profile in PROFILES:
        names = names_of(sentinel, profile=profile, scheme="opaque")
        for _, scope in scopes(names):
            assert not scope.owns("hvt!manifest")
            assert not str(scope.key("!manifest")).startswith("hvt!")


def test_a45_without_the_rule_a_tenant_would_reach_it() -> None:
    """The tests above can fail: under the template that is refused, tenant `hvt` owns the manifest."""
    head, tail = "", "!"
    assert "hvt!manifest".startswith(head + encode("hvt") + tail)


# --- templates against an oracle -------------------------------------------------------------------------------------

TOKENS = [encode(text) for text in ("a", "b", "u", "a-", "s", "us", "_", "A", "u-s", "x0")]


def _begins(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _meet(first: str, second: str) -> bool:
    """Whether a prefix of *first* begins one of *second*, or the other way round: by trying tokens."""
    if first == second:
        return any(_begins(first.replace("{t}", a), first.replace("{t}", b)) for a in TOKENS for b in TOKENS if a != b)
    return any(_begins(first.replace("{t}", a), second.replace("{t}", b)) for a in TOKENS for b in TOKENS)


def _accepts(check: Callable[[dict[str, str]], None], templates: dict[str, str]) -> bool:
    try:
        check(templates)
    except ConfigurationError:
        return False
    return True


def _generated(count: int) -> list[tuple[str, str]]:
    draw = random.Random(5)

    def template() -> str:
        head = "".join(draw.choices("us_:.a", k=draw.randrange(4)))
        tail = (
            draw.choice("::..!as-_") + "".join(draw.choices("s:.", k=draw.randrange(3))) if draw.random() < 0.9 else ""
        )
        return f"{head}{{t}}{tail}"

    return [(template(), template()) for _ in range(count)]


def test_a02_a03_templates_agree_with_brute_force() -> None:
    """Of generated pairs each accepted one keeps apart by trial, and each that meets by trial is refused.

    A refused one meets by trial, has a bad delimiter, or has heads of which one begins the other: the one strictness.
    """
    taken = refused = 0
    for first, second in _generated(examples(600, 12_000)):
        meets = (_meet(first, second) and first != second) or _meet(first, first) or _meet(second, second)
        if _accepts(check_templates, {"one": first, "other": second}):
            taken += 1
            assert not meets, (first, second)
        else:
            refused += 1
            heads = first.partition("{t}")[0], second.partition("{t}")[0]
            bad = any(
                tail == "" or tail[0] in "as-_" for tail in (first.partition("{t}")[2], second.partition("{t}")[2])
            )
            assert meets or bad or _begins(*heads), (first, second)
    assert taken > 40
    assert refused > 40


@pytest.mark.parametrize("fault", ["no delimiter", "no look at other kinds"])
def test_a02_a03_a_check_with_a_fault_is_found_out(fault: str) -> None:
    """The oracle tells a check that asks for no delimiter, and one that looks at each template alone."""

    def broken(templates: dict[str, str]) -> None:
        if fault == "no delimiter":
            check_templates({kind: text + ":" for kind, text in templates.items()})
        else:
            for kind, text in templates.items():
                check_templates({kind: text})

    found = [
        pair
        for pair in _generated(300)
        if _accepts(broken, dict(zip(("one", "other"), pair, strict=True)))
        and ((pair[0] != pair[1] and _meet(*pair)) or _meet(pair[0], pair[0]))
    ]
    assert found


def test_the_longest_prefix() -> None:
    """The bound on names is checked against the longest prefix of any kind, under the scheme in force."""
    assert DEFAULT.longest_prefix(IdScheme.UUID) == len("tenants/") + 36 + 1
    assert PROFILES["synap"].longest_prefix(IdScheme.SLUG) == len("tenants/") + 63 + 1
    assert replace(DEFAULT, files="a-very-long-folder-of-files/{t}/").longest_prefix(IdScheme.UUID) == 45


def test_the_form_is_no_matter_but_for_uuids() -> None:
    """Under other schemes a hyphen is part of the id, whatever form UUIDs have."""
    assert PROFILES["synap"].uuid_form is UuidForm.SIMPLE
    assert str(names_of("a-b", profile="synap", scheme="slug").kv.key("x")) == "user_a-b:x"
