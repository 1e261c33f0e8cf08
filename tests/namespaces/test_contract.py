"""The managers pass their contract, and managers with a planted fault do not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import STANDALONE, TenantId
from hivetenancy.namespaces import NameScope, NamespaceManager, Scoped, TenantNames
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.testing.contracts._cases import Case
from hivetenancy.testing.contracts.namespaces import CASES, NamespaceHarness

K = TypeVar("K")

UUIDS = (
    "550e8400-e29b-41d4-a716-446655440000",
    "550e8400-e29b-41d4-a716-446655440001",
    "00000000-0000-0000-0000-000000000000",
)
SLUGS = ("1", "12", "123", "a", "ab", "a-b", "user", "con", "0-")
OPAQUE = (
    *("1", "12", "a", "a:b", "b", "Alice", "alice", "a/b", "a_b", "a_2fb"),
    *("é", "e", "*", "[ab]", "user", "user:1", "ａ", "-", ".", "_"),
)


@dataclass(frozen=True, kw_only=True)
class Harness:
    """A manager with its tenants."""

    manager: NamespaceManager
    tenants: Sequence[TenantId]
    standalone: bool = False


def tenants(ids: Iterable[str]) -> list[TenantId]:
    return [TenantId(text) for text in ids]


SOUND: dict[str, Callable[[], NamespaceHarness]] = {
    "uuid": lambda: Harness(manager=PrefixNamespaces(), tenants=tenants(UUIDS)),
    "slug": lambda: Harness(manager=PrefixNamespaces(scheme="slug"), tenants=tenants(SLUGS)),
    "opaque": lambda: Harness(
        manager=PrefixNamespaces(scheme="opaque", topic_separator="/"), tenants=tenants(OPAQUE[:10])
    ),
    "opaque, topics by colon": lambda: Harness(
        manager=PrefixNamespaces(scheme="opaque", topic_separator=":"), tenants=tenants(OPAQUE[10:])
    ),
    "identity": lambda: Harness(manager=IdentityNamespaces(), tenants=[STANDALONE], standalone=True),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("manager", SOUND)
async def test_the_managers_keep_the_contract(case: Case[NamespaceHarness], manager: str) -> None:
    """Each manager that ships passes each case, with tenants that are easily confused."""
    await case(SOUND[manager]())


# --- managers with a planted fault ----------------------------------------------------------------------------------


class Broken(Generic[K]):
    """A scope that is sound until a mutant overrides something."""

    def __init__(self, tenant: str, sound: NameScope[K]) -> None:
        self.tenant = tenant
        self.sound = sound

    @property
    def prefix(self) -> str:
        return self.sound.prefix

    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        return [self.key(name) for name in names]

    def pattern(self, pattern: str, /) -> str:
        return self.sound.pattern(pattern)

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        return self.sound.range(low, high)

    def strip(self, physical: str, /) -> str:
        return self.sound.strip(physical)

    def owns(self, physical: str, /) -> bool:
        return self.sound.owns(physical)


class Names:
    """All kinds of names, each in the same broken scope."""

    def __init__(self, scope: Callable[[NameScope[Any]], Broken[Any]], sound: TenantNames) -> None:
        self.kv = scope(sound.kv)
        self.collections = scope(sound.collections)
        self.queues = scope(sound.queues)
        self.streams = scope(sound.streams)
        self.topics = scope(sound.topics)


class Manager:
    """A manager whose scopes are broken in one way."""

    def __init__(self, scope: type[Broken[Any]]) -> None:
        self.scope = scope
        self.sound = PrefixNamespaces(scheme="slug")

    def for_tenant(self, context: TenantContext) -> TenantNames:
        tenant = context.tenant_id
        return Names(lambda sound: self.scope(tenant, sound), self.sound.for_tenant(context))


class OwnFormat(Broken[K]):
    """A scope of a format of its own, otherwise sound in itself."""

    form = "user:{t}:"

    @property
    def prefix(self) -> str:
        return self.form.format(t=self.tenant)

    def key(self, name: str, /) -> Scoped[K]:
        self.sound.key(name)  # the sound one's refusals
        return Scoped(self.prefix + name)

    def pattern(self, pattern: str, /) -> str:
        self.sound.pattern(pattern)
        return self.prefix + pattern

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        end = self.prefix[:-1] + chr(ord(self.prefix[-1]) + 1)
        return self.prefix + low, end if high is None else self.prefix + high

    def owns(self, physical: str, /) -> bool:
        self.sound.owns(physical)
        return physical.startswith(self.prefix)

    def strip(self, physical: str, /) -> str:
        if not self.owns(physical):
            raise InvalidNameError("not a name of this tenant")
        return physical[len(self.prefix) :]


class Identity(OwnFormat[K]):
    """Forgets the tenant: the middleware that would set it is mounted nowhere (isolation note, Y1 and Y2)."""

    form = "shared:"


class NoDelimiter(OwnFormat[K]):
    """Tenant 1 holds the names of tenant 12."""

    form = "user:{t}"


class Underscore(OwnFormat[K]):
    """`user_{id}_{name}`, as the upload of collections had it: ids may hold the delimiter."""

    form = "user-{t}-"


class FoldsCase(Broken[K]):
    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name.lower() if type(name) is str else name)


class Trims(Broken[K]):
    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name.strip() or name if type(name) is str else name)


class UnscopedPattern(Broken[K]):
    def pattern(self, pattern: str, /) -> str:
        self.sound.pattern(pattern)
        return pattern


class QuotedPattern(Broken[K]):
    """Takes the user's wildcards for text."""

    def pattern(self, pattern: str, /) -> str:
        self.sound.pattern(pattern)
        return self.prefix + re.sub(r"([*?\[\]\\])", r"\\\1", pattern)


class OneColon(Broken[K]):
    """Takes a name apart at its colons and wants just so many (upstream D39)."""

    def owns(self, physical: str, /) -> bool:
        return self.sound.owns(physical) and physical.count(":") == self.prefix.count(":")


class LastColon(Broken[K]):
    """Takes what follows the last colon for the logical name (isolation note, V7)."""

    def strip(self, physical: str, /) -> str:
        self.sound.strip(physical)
        return physical.rsplit(":", 1)[-1]


class LeavesPrefixed(Broken[K]):
    """Leaves alone what looks scoped already, so a tenant can name another's (upstream D33, N1)."""

    def key(self, name: str, /) -> Scoped[K]:
        if type(name) is str and name.startswith(("user:", "user_")):
            return Scoped(name)
        return self.sound.key(name)


class ScopesTwice(Broken[K]):
    """Takes a physical name for a logical one."""

    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(str(name) if isinstance(name, str) else name)

    def pattern(self, pattern: str, /) -> str:
        return self.sound.pattern(str(pattern) if isinstance(pattern, str) else pattern)


class TakesAnything(Broken[K]):
    """Turns whatever it gets into a string; `None` becomes a name."""

    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name if isinstance(name, Scoped) else str(name))


class TakesEmpty(Broken[K]):
    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name) if name != "" else Scoped(self.prefix)


class Truncates(Broken[K]):
    """Cuts a long name, as PostgreSQL does."""

    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name[:250] if type(name) is str else name)


class LosesOrder(Broken[K]):
    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        return [self.key(name) for name in dict.fromkeys(names)]


class RangeToTheEnd(Broken[K]):
    """Ends at the greatest character, which a name may begin with."""

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        low, end = self.sound.range(low, high)
        return low, end if high is not None else self.prefix + "\U0010ffff"


class RangeOutside(Broken[K]):
    """Passes the upper bound on as it came."""

    def range(self, low: str = "", high: str | None = None, /) -> tuple[str, str | None]:
        low, end = self.sound.range(low, high)
        return low, end if high is None else high


class Tells(Broken[K]):
    """Shows a foreign name in the message."""

    def strip(self, physical: str, /) -> str:
        try:
            return self.sound.strip(physical)
        except InvalidNameError:
            raise InvalidNameError(f"{physical!r} belongs to another tenant") from None


class StripsAnybody(Broken[K]):
    """Reads the name without looking whose it is."""

    def strip(self, physical: str, /) -> str:
        self.sound.owns(physical)
        return re.sub(r"^user[:_][a-z0-9-]+[:.]", "", physical)


class Loses(Broken[K]):
    """A physical name that no driver takes."""

    def key(self, name: str, /) -> Scoped[K]:
        made: Any = self.sound.key(name)
        encoded: Any = made.encode("utf-8")
        scoped: Scoped[K] = encoded
        return scoped


class ByKey(Manager):
    """Names that change with the access key."""

    def for_tenant(self, context: TenantContext) -> TenantNames:
        Other = type("Other", (OwnFormat,), {"form": f"user:{{t}}:{context.key_id}:"})
        return Names(lambda sound: Other(context.tenant_id, sound), self.sound.for_tenant(context))


class Repairs(Manager):
    """Trims an id before it looks at it."""

    def for_tenant(self, context: TenantContext) -> TenantNames:
        trimmed = TenantId(context.tenant_id.strip(" \n\t/:"))
        return super().for_tenant(TenantContext(tenant_id=trimmed, key_id=None, generation=0))


class PrefixesAnyway:
    """Standalone that is not: an invisible tenant of its own."""

    def for_tenant(self, context: TenantContext) -> TenantNames:
        return PrefixNamespaces(scheme="slug").for_tenant(context)


def alone(manager: NamespaceManager) -> NamespaceHarness:
    return Harness(manager=manager, tenants=[STANDALONE], standalone=True)


def among(manager: NamespaceManager) -> NamespaceHarness:
    return Harness(manager=manager, tenants=tenants(["1", "12", "a", "a-b", "b"]))


#: Each fault, and the case that is there to catch it.
BROKEN: dict[str, tuple[Callable[[], NamespaceHarness], str]] = {
    **{
        scope.__name__: (lambda scope=scope: among(Manager(scope)), case)
        for scope, case in {
            Identity: "two_tenants_never_share_a_physical_name",
            NoDelimiter: "no_tenants_names_lie_within_anothers",
            Underscore: "no_tenants_names_lie_within_anothers",
            FoldsCase: "a_name_round_trips",
            Trims: "a_physical_name_goes_to_a_driver_as_it_is",
            Loses: "a_physical_name_goes_to_a_driver_as_it_is",
            UnscopedPattern: "a_pattern_matches_just_the_tenants_own",
            QuotedPattern: "a_pattern_matches_just_the_tenants_own",
            OneColon: "a_name_round_trips",
            LastColon: "a_name_round_trips",
            LeavesPrefixed: "two_tenants_never_share_a_physical_name",
            ScopesTwice: "a_name_is_not_scoped_twice",
            TakesAnything: "what_is_no_string_is_refused",
            TakesEmpty: "what_no_store_can_keep_is_refused",
            Truncates: "what_no_store_can_keep_is_refused",
            LosesOrder: "several_names_at_once_are_the_same_names",
            RangeToTheEnd: "a_range_holds_just_the_tenants_own",
            RangeOutside: "whatever_the_bounds_a_range_stays_inside",
            Tells: "another_tenants_name_is_as_good_as_none",
            StripsAnybody: "another_tenants_name_is_as_good_as_none",
        }.items()
    },
    "ByKey": (lambda: among(ByKey(Broken)), "the_names_are_the_tenants_and_not_the_keys"),
    "Repairs": (lambda: among(Repairs(Broken)), "an_id_is_never_repaired"),
    "PrefixesAnyway": (lambda: alone(PrefixesAnyway()), "without_tenants_nothing_changes"),
}


def fails(case: Case[NamespaceHarness], harness: NamespaceHarness) -> bool:
    """Whether the case finds fault; a fault may also show as an error of the engine."""
    try:
        asyncio.run(case.run(harness))  # type: ignore[arg-type]
    except Exception:
        return True
    return False


@pytest.mark.parametrize("fault", BROKEN)
def test_a_planted_fault_is_caught(fault: str) -> None:
    """The case that is there for a fault fails on a manager that has it."""
    harness, case = BROKEN[fault]
    assert fails(CASES.named(case), harness())


def test_the_broken_scope_is_sound_without_a_fault() -> None:
    """What the mutants are made of passes every case, so what fails is the fault."""
    assert [str(case) for case in CASES if fails(case, among(Manager(Broken)))] == []
    assert [
        str(case) for case in CASES if fails(case, Harness(manager=Manager(OwnFormat), tenants=tenants(["1"])))
    ] == []


def test_each_case_catches_something() -> None:
    """No case of the kit is there for nothing: each fails on one of the broken managers."""
    assert {str(case) for case in CASES} == {case for _, case in BROKEN.values()}
