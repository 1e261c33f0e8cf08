"""Whose name is this? An operator's question, and never a tenant's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import TenantId
from hivetenancy.namespaces.inspection import Ambiguous, Owned, Unowned
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.namespaces.profiles import GROUPS, PROFILES
from hivetenancy.testing.contracts.namespaces import scopes
from tests.namespaces.test_prefix import logical

ACME = "550e8400-e29b-41d4-a716-446655440000"
HEX = ACME.replace("-", "")


@given(
    name=logical,
    profile=st.sampled_from(sorted(PROFILES)),
)
def test_what_a_tenant_wrote_is_found_to_be_its(name: str, profile: str) -> None:
    """Each name of each kind is told to be its tenant's, with that kind among those it may be, and the logical name."""
    manager = PrefixNamespaces(profile=profile)
    names = manager.for_tenant(TenantContext(tenant_id=TenantId(ACME), key_id=None, generation=1))
    for kind, scope in scopes(names):
        found = manager.inspect(str(scope.key(name)), known={TenantId(ACME)})
        assert isinstance(found, Owned)
        assert (found.tenant, found.logical) == (ACME, name)
        assert kind.removeprefix("graph.") in found.kinds


def test_kinds_that_share_their_names_are_told_together() -> None:
    """A key may be any of the kinds of a key space; under `synap`, nearly anything."""
    found = PrefixNamespaces().inspect(f"user:{ACME}:a")
    assert found == Owned(tenant=TenantId(ACME), kinds=GROUPS["keys"], logical="a")
    found = PrefixNamespaces(profile="synap").inspect(f"user_{HEX}:a:b")
    assert isinstance(found, Owned)
    assert {"kv", "queues", "topics", "channels", "labels"} <= set(found.kinds)
    assert found.logical == "a:b"


@pytest.mark.parametrize(
    "physical",
    [
        "",
        "a",
        "user:",
        f"user:{ACME}",
        f"user-{ACME}-kv",
        "hvt!manifest",
        "user:a:b",
        f"xuser:{ACME}:a",
        "user::a",
        "user:_:a",
    ],
)
def test_a_name_that_no_tenant_can_have(physical: str) -> None:
    """What does not read as a tenant's name is nobody's."""
    assert PrefixNamespaces().inspect(physical) == Unowned()


@pytest.mark.parametrize("token", [HEX, ACME.upper(), HEX.upper()])
def test_another_spelling_is_for_a_person_to_judge(token: str) -> None:
    """An id in another spelling than ours may be an older program's: the tenant's to the eye, and not by the rule."""
    found = PrefixNamespaces().inspect(f"user:{token}:a")
    assert isinstance(found, Ambiguous)
    assert (found.tenant, found.logical) == (ACME, "a")
    assert "spelt" in found.why


def test_a_natural_name_that_reads_as_a_tenants() -> None:
    """`user:alice:x` is tenant alice's to the eye; where tenants are known and she is none, a person has to look."""
    manager = PrefixNamespaces(scheme="slug")
    assert isinstance(manager.inspect("user:alice:x"), Owned)
    assert isinstance(manager.inspect("user:alice:x", known={TenantId("alice")}), Owned)
    found = manager.inspect("user:alice:x", known=set())
    assert isinstance(found, Ambiguous)
    assert found.why == "there is no such tenant"


def test_any_text_reads_as_an_opaque_id() -> None:
    """Where ids are any text, an unescaped one is ambiguous, and one too long for a token is nobody's."""
    manager = PrefixNamespaces(scheme="opaque")
    assert isinstance(manager.inspect("user:_41lice:x"), Owned)
    found = manager.inspect("user:Alice:x")
    assert isinstance(found, Ambiguous)
    assert found.tenant == "Alice"
    assert manager.inspect("user:" + "A" * 200 + ":x") == Unowned()


def test_a_tail_of_several_characters() -> None:
    """The first character of a tail ends the token, so a tail found later makes no tenant."""
    manager = PrefixNamespaces(profile="tagged", scheme="opaque")
    assert isinstance(manager.inspect("user:{a}:x"), Owned)
    assert manager.inspect("user:{a}b}:x") == Unowned()


@pytest.mark.parametrize("wrong", [None, b"user:a:b", 5])
def test_what_is_no_text_is_refused(wrong: Any) -> None:
    """A name in bytes has to be decoded first, by whoever knows how."""
    with pytest.raises(InvalidNameError, match="is a str"):
        PrefixNamespaces().inspect(wrong)
