"""The managers pass their contract, and managers with a planted fault do not."""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from hivetenancy.context import TenantContext
from hivetenancy.errors import InvalidNameError
from hivetenancy.ids import STANDALONE, TenantId
from hivetenancy.namespaces import (
    BinaryScope,
    FilePath,
    FileScope,
    GraphNames,
    NameScope,
    NamespaceManager,
    Page,
    Scoped,
    ScopedBytes,
    TenantNames,
)
from hivetenancy.namespaces.cursors import cursor_key
from hivetenancy.namespaces.patterns import AMQP, COLONS, MQTT, NATS, SYNAP, TopicDialect
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces, _BlobScope, _PrefixScope
from hivetenancy.namespaces.profiles import GROUPS, PROFILES, Profile
from hivetenancy.testing.contracts._cases import Case
from hivetenancy.testing.contracts.namespaces import CASES, NamespaceHarness
from tests.tiers import examples

K = TypeVar("K")

UUIDS = (
    "550e8400-e29b-41d4-a716-446655440000",
    "550e8400-e29b-41d4-a716-446655440001",
    "00000000-0000-0000-0000-000000000000",
)
SLUGS = ("1", "12", "con", "a-b", "123", "a", "ab", "user", "0-")
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
    dialect: TopicDialect = AMQP


def tenants(ids: Iterable[str]) -> list[TenantId]:
    return [TenantId(text) for text in ids]


SOUND: dict[str, Callable[[], NamespaceHarness]] = {
    "uuid": lambda: Harness(manager=PrefixNamespaces(), tenants=tenants(UUIDS)),
    "slug": lambda: Harness(manager=PrefixNamespaces(scheme="slug"), tenants=tenants(SLUGS[: examples(4, 9)])),
    "opaque": lambda: Harness(
        manager=PrefixNamespaces(scheme="opaque", topic_separator="/"),
        tenants=tenants(OPAQUE[: examples(4, 10)]),
        dialect=MQTT,
    ),
    "opaque, topics by colon": lambda: Harness(
        manager=PrefixNamespaces(scheme="opaque", topic_separator=":"),
        tenants=tenants(OPAQUE[10 : examples(14, 20)]),
        dialect=COLONS,
    ),
    "identity": lambda: Harness(manager=IdentityNamespaces(), tenants=[STANDALONE], standalone=True),
}

PROFILED: dict[str, Callable[[], NamespaceHarness]] = {
    "synap": lambda: Harness(manager=PrefixNamespaces(profile="synap"), tenants=tenants(UUIDS[:2]), dialect=SYNAP),
    **{
        profile: lambda profile=profile: Harness(
            manager=PrefixNamespaces(profile=profile, scheme="slug"), tenants=tenants(SLUGS[: examples(2, 4)])
        )
        for profile in PROFILES
        if profile not in ("default", "synap")
    },
    "one of your own": lambda: Harness(
        manager=PrefixNamespaces(profile=Profile(name="own", keys="own/{t}/", topic_dialect="nats"), scheme="slug"),
        tenants=tenants(SLUGS[: examples(2, 4)]),
        dialect=NATS,
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("manager", SOUND)
async def test_the_managers_keep_the_contract(case: Case[NamespaceHarness], manager: str) -> None:
    """Each manager that ships passes each case, with tenants that are easily confused."""
    await case(SOUND[manager]())


@pytest.mark.anyio
@pytest.mark.parametrize("profile", PROFILED)
async def test_every_profile_keeps_the_contract(profile: str) -> None:
    """Under each other profile that ships, and one of one's own, each case passes."""
    for case in CASES:
        await case(PROFILED[profile]())


# --- managers with a planted fault ----------------------------------------------------------------------------------


class Broken(Generic[K]):
    """A scope that is sound until a mutant overrides something."""

    def __init__(self, tenant: str, sound: NameScope[K]) -> None:
        self.tenant = tenant
        self.sound = sound

    @property
    def prefix(self) -> str:
        return self.sound.prefix

    @property
    def binary(self) -> BinaryScope[K]:
        return self.sound.binary

    def key(self, name: str, /) -> Scoped[K]:
        return self.sound.key(name)

    def keys(self, names: Iterable[str], /) -> list[Scoped[K]]:
        return [self.key(name) for name in names]

    def pattern(self, pattern: str, /) -> str:
        return self.sound.pattern(pattern)

    def like(self, pattern: str, /, *, escape: str = "\\") -> str:
        return self.sound.like(pattern, escape=escape)

    def starting(self, beginning: str, /) -> str:
        return self.sound.starting(beginning)

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        return self.sound.range(low, high, reverse=reverse)

    def strip(self, physical: str, /) -> str:
        return self.sound.strip(physical)

    def strip_all(self, physical: Iterable[str], /) -> list[str]:
        return [self.strip(name) for name in physical]

    def owns(self, physical: str, /) -> bool:
        return self.sound.owns(physical)

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        return self.sound.after(cursor, beginning=beginning)

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        return self.sound.page(found, limit=limit, beginning=beginning)


class Names:
    """All kinds of names, each in the same broken scope."""

    kv: NameScope[Any]
    hashes: NameScope[Any]
    lists: NameScope[Any]
    sets: NameScope[Any]
    sorted_sets: NameScope[Any]
    bitmaps: NameScope[Any]
    hyperloglogs: NameScope[Any]
    geo: NameScope[Any]
    streams: NameScope[Any]
    locks: NameScope[Any]
    collections: NameScope[Any]
    queues: NameScope[Any]
    channels: NameScope[Any]
    topics: NameScope[Any]
    blobs: NameScope[Any]

    def __init__(self, scope: Callable[[NameScope[Any]], NameScope[Any]], sound: TenantNames) -> None:
        for kinds in (kinds for group, kinds in GROUPS.items() if group not in ("graph", "files")):
            made = scope(getattr(sound, kinds[0]))
            for kind in kinds:
                setattr(self, kind, made)
        self.graph: GraphNames = Graph(scope(sound.graph.labels))
        self.files: FileScope = sound.files


class Graph:
    """The names of a graph, each in one scope."""

    def __init__(self, scope: NameScope[Any]) -> None:
        self.labels = self.relationship_types = self.property_keys = self.indexes = self.constraints = scope


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
    looks_at_blobs = True

    def __init__(self, tenant: str, sound: NameScope[K]) -> None:
        self.topics = sound.prefix.endswith(".")
        scope = _BlobScope if isinstance(sound, _BlobScope) and self.looks_at_blobs else _PrefixScope
        super().__init__(tenant, scope(self.form.format(t=tenant), 1024, cursor_key(b"0123456789abcdef")))

    def pattern(self, pattern: str, /) -> str:
        if self.topics and type(pattern) is str and pattern.startswith(("#", "*")):
            raise InvalidNameError("a topic begins in the tenant's own segment")
        return self.sound.pattern(pattern)


class ClimbingBlobs(OwnFormat[K]):
    """Lets a blob be called `../b/x`, of which an address is made."""

    looks_at_blobs = False


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

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        start, end = self.sound.range(low, high)
        end = end if high is not None else self.prefix + "\U0010ffff"
        return (end, start) if reverse else (start, end)


class RangeOutside(Broken[K]):
    """Passes the upper bound on as it came."""

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        start, end = self.sound.range(low, high)
        return start, end if high is None else high


class ForgetsReverse(Broken[K]):
    """Gives the bounds of a scan from the end the wrong way round, so that it finds nothing."""

    def range(
        self, low: str = "", high: str | None = None, /, *, reverse: bool = False
    ) -> tuple[str | None, str | None]:
        return self.sound.range(low, high)


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


class ThreeSchemes(Broken[K]):
    """Makes names of one format and looks for those of another (upstream D8)."""

    def owns(self, physical: str, /) -> bool:
        self.sound.owns(physical)
        return physical.startswith(f"{self.tenant}:")


class MakesUnowned(Broken[K]):
    """Makes what nobody owns, and asks for the owner later (upstream D9)."""

    def key(self, name: str, /) -> Scoped[K]:
        return Scoped(str(self.sound.key(name)).removeprefix(self.prefix))


class OneNameSpace(OwnFormat[K]):
    """One name space for all, with the owner in a column beside it (upstream D7)."""

    form = "collection:"


class LikeUnescaped(Broken[K]):
    """Takes the underscore of its own prefix for a wildcard."""

    def like(self, pattern: str, /, *, escape: str = "\\") -> str:
        self.sound.like(pattern, escape=escape)
        return self.prefix + pattern


class LikeUnchecked(Broken[K]):
    """Lets a pattern end in its escape."""

    def like(self, pattern: str, /, *, escape: str = "\\") -> str:
        self.sound.key(pattern)
        return self.sound.like("%", escape=escape)[:-1] + pattern


class ConcatenatesTopics(Broken[K]):
    """Puts the prefix before whatever a subscriber sends: `#` then matches the tenant's own segment alone, too."""

    def pattern(self, pattern: str, /) -> str:
        self.sound.key(pattern)
        return self.prefix + pattern


class BeginsAnywhere(Broken[K]):
    """Forgets the prefix where a store is asked for what begins with a text."""

    def starting(self, beginning: str, /) -> str:
        self.sound.starting(beginning)
        return beginning


class SkipsForeign(Broken[K]):
    """Passes over what is not the tenant's, so nobody learns that the store is wrong."""

    def strip_all(self, physical: Iterable[str], /) -> list[str]:
        return [self.strip(name) for name in physical if self.owns(name)]


class PageSkipsForeign(Broken[K]):
    """As before, page by page."""

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        return self.sound.page([name for name in found if self.owns(name)], limit=limit, beginning=beginning)


class ListsFromTheTop(Broken[K]):
    """Goes on with the last name shown."""

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        low, end = self.sound.after(cursor, beginning=beginning)
        return low.removesuffix("\0"), end


class PlainCursor(Broken[K]):
    """A cursor that everybody can write (isolation note, A20)."""

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        if cursor is None:
            return self.sound.after(None, beginning=beginning)
        try:
            last = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
            return self.prefix + last + "\0", self.sound.after(None, beginning=beginning)[1]
        except (TypeError, ValueError):
            raise InvalidNameError("no cursor") from None

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        page = self.sound.page(found, limit=limit, beginning=beginning)
        cursor = urlsafe_b64encode(page.names[-1].encode()).decode() if page.cursor else None
        return Page(names=page.names, cursor=cursor)


class AnybodysCursor(Broken[K]):
    """A cursor that is sealed, but not for one tenant."""

    def __init__(self, tenant: str, sound: NameScope[K]) -> None:
        super().__init__(tenant, sound)
        self.shared: NameScope[K] = _PrefixScope("all:", 1024, cursor_key(b"0123456789abcdef"))

    def after(self, cursor: str | None, /, *, beginning: str = "") -> tuple[str, str | None]:
        low, _ = self.shared.after(cursor, beginning=beginning)
        return self.prefix + low.removeprefix("all:"), self.sound.after(None, beginning=beginning)[1]

    def page(self, found: Sequence[str], /, *, limit: int, beginning: str = "") -> Page:
        self.sound.page(found, limit=limit, beginning=beginning)
        return self.shared.page(["all:" + name for name in self.strip_all(found)], limit=limit, beginning=beginning)


class OtherBytes(Broken[K]):
    """Writes names in bytes another way than as text."""

    @property
    def binary(self) -> BinaryScope[K]:
        other: NameScope[K] = _PrefixScope(f"bytes:{self.tenant}:", 1024, b"key")
        return other.binary


class LooseBytes(Broken[K]):
    """Takes text where bytes are wanted."""

    @property
    def binary(self) -> BinaryScope[K]:
        return Loose(self.sound.binary)


class Loose(Generic[K]):
    """Bytes, or what can be made into some."""

    def __init__(self, sound: BinaryScope[K]) -> None:
        self.sound = sound

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sound, name)

    def key(self, name: bytes, /) -> ScopedBytes[K]:
        return self.sound.key(name.encode() if isinstance(name, str) else name)


class Joined:
    """Paths put together as they come: a part may climb."""

    def __init__(self, sound: FileScope) -> None:
        self.sound = sound
        self.directory = sound.directory

    def path(self, *parts: str) -> FilePath:
        self.sound.path(*parts)
        return Scoped("/".join([self.directory, *parts]))

    def owns(self, path: str, /) -> bool:
        return path.startswith(self.directory + "/")

    def strip(self, path: str, /) -> tuple[str, ...]:
        if not self.owns(path):
            raise InvalidNameError("not a path of this tenant")
        return tuple(path.removeprefix(self.directory + "/").split("/"))


class Climbs(Manager):
    """Everything is sound but the files."""

    def for_tenant(self, context: TenantContext) -> TenantNames:
        made = Names(lambda sound: sound, self.sound.for_tenant(context))
        made.files = Joined(made.files)
        return made


class System(OwnFormat[K]):
    """Begins as the library's own records do (isolation note, A45)."""

    form = "hvt!{t}:"


class Unchecked:
    """Takes any text for an id, as where reading a stored namespace skips the check (upstream D34)."""

    def for_tenant(self, context: TenantContext) -> TenantNames:
        sound = PrefixNamespaces(scheme="slug").for_tenant(
            TenantContext(tenant_id=TenantId("x"), key_id=None, generation=0)
        )
        return Names(lambda scope: OwnFormat(context.tenant_id, scope), sound)


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
    return Harness(manager=manager, tenants=tenants(["1", "12", "a", "a-b"]))


#: Each fault, and the case that is there to catch it.
BROKEN: dict[str, tuple[Callable[[], NamespaceHarness], str]] = {
    **{
        scope.__name__: (lambda scope=scope: among(Manager(scope)), case)
        for scope, case in {
            Identity: "two_tenants_never_share_a_physical_name",
            ClimbingBlobs: "a_blobs_name_climbs_nowhere",
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
            ThreeSchemes: "a_name_round_trips",
            MakesUnowned: "a_name_round_trips",
            OneNameSpace: "two_tenants_never_share_a_physical_name",
            LikeUnescaped: "a_like_pattern_matches_just_the_tenants_own",
            LikeUnchecked: "a_like_pattern_matches_just_the_tenants_own",
            ConcatenatesTopics: "a_pattern_of_topics_matches_just_the_tenants_own",
            BeginsAnywhere: "a_beginning_covers_just_the_tenants_own",
            ForgetsReverse: "a_range_holds_just_the_tenants_own",
            SkipsForeign: "several_physical_names_at_once_are_stripped_or_none",
            PageSkipsForeign: "a_page_shows_no_name_of_others",
            ListsFromTheTop: "a_listing_shows_each_own_name_once",
            PlainCursor: "a_cursor_is_worth_nothing_to_others",
            AnybodysCursor: "a_cursor_is_worth_nothing_to_others",
            OtherBytes: "names_in_bytes_are_the_same_names",
            LooseBytes: "what_is_no_name_in_bytes_is_refused",
            System: "no_name_is_one_of_the_librarys_own",
        }.items()
    },
    "ByKey": (lambda: among(ByKey(Broken)), "the_names_are_the_tenants_and_not_the_keys"),
    "Repairs": (lambda: among(Repairs(Broken)), "an_id_is_never_repaired"),
    "Climbs": (lambda: among(Climbs(Broken)), "files_of_tenants_keep_apart"),
    "Unchecked": (
        lambda: Harness(manager=Unchecked(), tenants=tenants(["a", "a:b"])),
        "no_tenants_names_lie_within_anothers",
    ),
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
