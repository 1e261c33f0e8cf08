"""The control plane in memory: tenants, keys and limits, and its answers about them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from hivetenancy.access_keys.format import digest, digest_prefix, well_formed
from hivetenancy.authority.admin import MintedKey
from hivetenancy.authority.keys import MAX_OVERLAP_SECONDS
from hivetenancy.authority.service import HubService
from hivetenancy.clock import DAY_US, SECOND_US
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.plans import ANY_RESOURCE, Plan, QuotaKind, QuotaLimit, RatePolicy
from hivetenancy.sources import (
    ChangeType,
    InactiveKey,
    InactiveReason,
    KeyRecord,
    KeyState,
    QuotaStanding,
    TenantLimits,
    TenantStatus,
)
from hivetenancy.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def hub(clock: ManualClock) -> HubService:
    """A control plane without tenants."""
    return HubService(clock=clock)


@pytest.fixture
def acme(hub: HubService) -> TenantId:
    """A tenant on the plan ``pro``."""
    return hub.add_tenant("acme", plan="pro")


def issue(hub: HubService, tenant: TenantId | None, **more: object) -> MintedKey:
    """A key that may read."""
    arguments: dict[str, object] = {"name": "key", "permissions": ["read"], **more}
    return hub.issue_key(tenant, **arguments)  # type: ignore[arg-type]


async def state(hub: HubService, key: MintedKey) -> KeyState:
    """What the hub says about a secret."""
    return (await hub.introspect(key.secret.encode())).key


async def reason(hub: HubService, key: MintedKey) -> InactiveReason | None:
    """Why a secret is not active; ``None``: it is."""
    found = await state(hub, key)
    return found.reason if isinstance(found, InactiveKey) else None


async def limits(hub: HubService, tenant: TenantId) -> TenantLimits:
    """The limits of a tenant that there is."""
    found = (await hub.limits(tenant)).limits
    assert found is not None
    return found


async def standing(hub: HubService, tenant: TenantId, dimension: str, resource: str | None = None) -> QuotaStanding:
    """One quota with its standing."""
    cells = (await limits(hub, tenant)).quotas
    return next(cell for cell in cells if (cell.limit.dimension, cell.limit.resource) == (dimension, resource))


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_a_key_is_described_as_it_was_issued(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """An active key's record holds every field that it was issued with."""
    start, end = clock.now()[1] - 1, clock.now()[1] + DAY_US
    key = issue(
        hub,
        acme,
        permissions=["read", Permission.WRITE],
        functions=["kv.get"],
        resources=["docs"],
        networks=["10.0.0.0/8"],
        not_before_us=start,
        expires_at_us=end,
    )
    assert await state(hub, key) == KeyRecord(
        key_id=key.key_id,
        version=1,
        tenant_id=acme,
        name="key",
        permissions=frozenset({Permission.READ, Permission.WRITE}),
        functions=("kv.get",),
        resources=("docs",),
        networks=("10.0.0.0/8",),
        environment=Environment.TEST,
        plan="pro",
        created_at_us=clock.now()[1],
        not_before_us=start,
        expires_at_us=end,
        current_version=1,
        overlap_until_us=None,
    )


async def test_no_list_and_an_empty_list_stay_apart(hub: HubService, acme: TenantId) -> None:
    """A key without a function list may call anything, one with an empty list nothing."""
    found = [await state(hub, issue(hub, acme, functions=functions)) for functions in (None, [])]
    assert [record.functions for record in found if isinstance(record, KeyRecord)] == [None, ()]


async def test_a_secret_looks_like_one_and_is_shown_once(hub: HubService, acme: TenantId) -> None:
    """A secret is marked, well formed and different each time; nothing that can be printed holds it."""
    keys = [issue(hub, acme) for _ in range(20)]
    assert len({key.secret for key in keys}) == 20
    for key in keys:
        assert key.secret.startswith(f"hh_test_{key.key_id.replace('-', '')[:12]}_")
        assert well_formed(key.secret.encode())
        assert len(key.secret.rpartition("_")[2]) == 43
        shown = f"{key!r} {hub!r} {hub.key(key.key_id)!r} {hub.keys(acme)!r} {hub.snapshot()!r}"
        assert key.secret not in shown
        assert digest(key.secret.encode()).hex() not in shown
        assert repr(digest(key.secret.encode())) not in shown


async def test_an_unknown_secret_tells_nothing(hub: HubService, acme: TenantId) -> None:
    """A secret that was never issued is unknown, and names no key and no tenant."""
    issue(hub, acme)
    for credential in (b"", b"hh_test_nobody", b"\xff" * 600):
        assert (await hub.introspect(credential)).key == InactiveKey(reason=InactiveReason.UNKNOWN)


async def test_a_revoked_key_stays_revoked(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """Revocation ends a key for good, tells when, and a second one changes nothing."""
    key = issue(hub, acme)
    revision = hub.revoke_key(key.key_id)
    at = clock.now()[1]
    clock.advance(5)
    assert hub.revoke_key(key.key_id) == revision == hub.revision
    found = await state(hub, key)
    assert found == InactiveKey(reason=InactiveReason.REVOKED, key_id=key.key_id, tenant_id=acme, revoked_at_us=at)
    for change in (hub.rotate_key, hub.change_key):
        with pytest.raises(ConfigurationError, match="revoked"):
            change(key.key_id)


async def test_expiry_and_not_before_have_no_leeway(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A key is valid from its first microsecond to the one before its last, and says when it will be."""
    now = clock.now()[1]
    key = issue(hub, acme, not_before_us=now + 10, expires_at_us=now + 20)
    seen = []
    for _ in range(21):
        found = await state(hub, key)
        seen.append(found.reason if isinstance(found, InactiveKey) else None)
        if isinstance(found, InactiveKey) and found.reason is InactiveReason.NOT_YET_VALID:
            assert found.not_before_us == now + 10
        clock.advance(us=1)
    assert seen == [InactiveReason.NOT_YET_VALID] * 10 + [None] * 10 + [InactiveReason.EXPIRED]
    with pytest.raises(ConfigurationError, match="expired"):
        hub.rotate_key(key.key_id)


async def test_a_rotation_overlaps_exactly_as_long_as_asked(
    hub: HubService, acme: TenantId, clock: ManualClock
) -> None:
    """The old secret counts until the overlap ends and says so; the new one goes on under the same id."""
    old = issue(hub, acme)
    new = hub.rotate_key(old.key_id, overlap_seconds=60)
    ends = clock.now()[1] + 60 * SECOND_US
    assert (new.key_id, new.version) == (old.key_id, 2)
    for key, version in ((old, 1), (new, 2)):
        found = await state(hub, key)
        assert isinstance(found, KeyRecord)
        assert (found.version, found.current_version, found.overlap_until_us) == (version, 2, ends)
    before = await state(hub, old)
    assert isinstance(before, KeyRecord)
    assert before.ends_at_us == ends
    clock.advance(us=60 * SECOND_US - 1)
    assert await reason(hub, old) is None
    clock.advance(us=1)
    assert await reason(hub, old) is InactiveReason.EXPIRED
    after = await state(hub, new)
    assert isinstance(after, KeyRecord)
    assert after.overlap_until_us is None


async def test_at_most_two_secrets_live(hub: HubService, acme: TenantId) -> None:
    """A second rotation within the overlap ends the oldest secret at once; revoking ends all."""
    first = issue(hub, acme)
    second = hub.rotate_key(first.key_id, overlap_seconds=600)
    third = hub.rotate_key(first.key_id, overlap_seconds=600)
    assert [await reason(hub, key) for key in (first, second, third)] == [InactiveReason.EXPIRED, None, None]
    hub.revoke_key(first.key_id)
    assert [await reason(hub, key) for key in (first, second, third)] == [InactiveReason.REVOKED] * 3


async def test_a_compromised_secret_ends_at_once(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """Rotating a compromised key revokes the old secret whatever the overlap."""
    old = issue(hub, acme)
    new = hub.rotate_key(old.key_id, overlap_seconds=600, compromised=True)
    found = await state(hub, old)
    assert isinstance(found, InactiveKey)
    assert (found.reason, found.revoked_at_us) == (InactiveReason.REVOKED, clock.now()[1])
    assert await reason(hub, new) is None


async def test_two_rotations_do_not_race(hub: HubService, acme: TenantId) -> None:
    """Who expects a version that is gone gets an error, and no secret is made."""
    key = issue(hub, acme)
    hub.rotate_key(key.key_id, expected_version=1)
    before = hub.revision
    with pytest.raises(ConfigurationError, match="version 2, not 1"):
        hub.rotate_key(key.key_id, expected_version=1)
    assert hub.revision == before


async def test_a_key_can_be_changed(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """What is named changes, what is not stays, and ``None`` takes a list or an end away."""
    key = issue(hub, acme, functions=["kv.get"], expires_at_us=clock.now()[1] + 5)
    hub.change_key(key.key_id, permissions=["write"], expires_at_us=None)
    found = await state(hub, key)
    assert isinstance(found, KeyRecord)
    assert (found.permissions, found.functions, found.expires_at_us) == ({Permission.WRITE}, ("kv.get",), None)
    hub.change_key(key.key_id, name="other", functions=None, resources=["a"], networks=["::1"], not_before_us=7)
    found = await state(hub, key)
    assert isinstance(found, KeyRecord)
    assert (found.name, found.functions, found.resources) == ("other", None, ("a",))
    assert (found.networks, found.not_before_us) == (("::1/128",), 7)


async def test_a_key_that_nobody_owns_opens_nothing(hub: HubService) -> None:
    """A key without owner is unowned, never a default tenant's."""
    assert await reason(hub, issue(hub, None)) is InactiveReason.UNOWNED


async def test_what_outlasts_comes_first(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A key that is revoked, expired and of a suspended tenant is called revoked; without, expired."""
    dead, old = issue(hub, acme), issue(hub, acme, expires_at_us=clock.now()[1] + 1)
    hub.revoke_key(dead.key_id)
    clock.advance(1)
    hub.suspend(acme)
    assert await reason(hub, dead) is InactiveReason.REVOKED
    assert await reason(hub, old) is InactiveReason.EXPIRED


async def test_a_batch_answers_in_order(hub: HubService, acme: TenantId) -> None:
    """A batch by digests gives what single questions give, in the order asked."""
    keys = [issue(hub, acme) for _ in range(3)]
    hub.revoke_key(keys[1].key_id)
    digests = [digest(key.secret.encode()) for key in keys] + [b"\0" * 32]
    answer = await hub.introspect_batch(digests)
    assert answer.keys[:3] == tuple([await state(hub, key) for key in keys])
    assert answer.keys[3] == InactiveKey(reason=InactiveReason.UNKNOWN)
    assert (answer.epoch, answer.revision) == (hub.epoch, hub.revision)


async def test_a_secret_can_be_traced_to_its_key(hub: HubService, acme: TenantId) -> None:
    """The id behind a secret is found, live or not; a stranger has none."""
    key = issue(hub, acme)
    hub.revoke_key(key.key_id)
    assert hub.key_id_of(key.secret.encode()) == key.key_id
    assert hub.key_id_of(b"stranger") is None


WRONG_KEYS: dict[str, dict[str, object]] = {
    "no permission": {"permissions": []},
    "one text": {"permissions": "read"},
    "unknown permission": {"permissions": ["fly"]},
    "functions as text": {"functions": "kv.get"},
    "an empty function": {"functions": [""]},
    "too many functions": {"functions": ["f"] * 1_001},
    "no network": {"networks": ["ten"]},
    "bits below the mask": {"networks": ["10.0.0.1/8"]},
    "no name": {"name": ""},
    "control in the name": {"name": "a\nb"},
    "long name": {"name": "é" * 128},
    "a surrogate": {"name": "\ud800"},
    "spaces": {"name": " key"},
    "expiry as float": {"expires_at_us": 1.5},
    "expiry before start": {"not_before_us": 2, "expires_at_us": 2},
}


@pytest.mark.parametrize("wrong", WRONG_KEYS)
async def test_a_wrong_key_is_refused(hub: HubService, acme: TenantId, wrong: str) -> None:
    """What a key cannot be is an error that changes nothing."""
    before = hub.revision
    with pytest.raises(ConfigurationError):
        issue(hub, acme, **WRONG_KEYS[wrong])
    assert (hub.revision, hub.keys(acme)) == (before, ())


@pytest.mark.parametrize("overlap", [-1, MAX_OVERLAP_SECONDS + 1, 1.5, True])
async def test_a_wrong_overlap_is_refused(hub: HubService, acme: TenantId, overlap: int) -> None:
    """An overlap is whole seconds up to thirty days."""
    key = issue(hub, acme)
    with pytest.raises(ConfigurationError, match="overlap_seconds"):
        hub.rotate_key(key.key_id, overlap_seconds=overlap)


# --- tenants ---------------------------------------------------------------------------------------------------------


async def test_names_are_for_people(hub: HubService, acme: TenantId) -> None:
    """A second tenant of one name is another tenant, and no name is an id."""
    other = hub.add_tenant("acme", plan="free")
    assert other != acme
    assert [record.tenant_id for record in hub.tenants()] == [acme, other]
    with pytest.raises(ConfigurationError, match="names are no ids"):
        hub.tenant(TenantId("acme"))


async def test_suspension_and_its_end(hub: HubService, acme: TenantId) -> None:
    """A suspended tenant's keys stop to count and its limits say so; both come back."""
    key = issue(hub, acme)
    revision = hub.suspend(acme)
    assert hub.suspend(acme) == revision
    assert await reason(hub, key) is InactiveReason.SUSPENDED
    assert (await limits(hub, acme)).status is TenantStatus.SUSPENDED
    hub.resume(acme)
    assert await reason(hub, key) is None
    assert (await limits(hub, acme)).status is TenantStatus.ACTIVE


async def test_deletion_goes_one_way(hub: HubService, acme: TenantId) -> None:
    """A tenant being deleted cannot come back or get keys; deleted, it and its keys are unknown."""
    key = issue(hub, acme)
    hub.begin_deletion(acme)
    assert await reason(hub, key) is InactiveReason.SUSPENDED
    for change in (hub.resume, hub.suspend):
        with pytest.raises(ConfigurationError, match="being deleted"):
            change(acme)
    with pytest.raises(ConfigurationError, match="being deleted"):
        issue(hub, acme)
    hub.delete_tenant(acme)
    assert await reason(hub, key) is InactiveReason.UNKNOWN
    assert (await hub.limits(acme)).limits is None
    with pytest.raises(ConfigurationError, match="no key"):
        hub.key(key.key_id)


MISUSES: dict[str, tuple[str, Callable[[HubService, TenantId], object]]] = {
    "unknown plan": ("there are enterprise, free, pro", lambda hub, _: hub.add_tenant("x", plan="gold")),
    "to an unknown plan": ("no plan is called 'gold'", lambda hub, acme: hub.set_plan(acme, "gold")),
    "a nameless tenant": ("a tenant's name", lambda hub, _: hub.add_tenant("", plan="free")),
    "an unknown key": ("a secret is no id", lambda hub, _: hub.revoke_key(KeyId("hh_test_x"))),
    "an unknown tenant": ("ids come from add_tenant", lambda hub, _: hub.suspend(TenantId("x"))),
    "an undeclared dimension": ("set_quota", lambda hub, acme: hub.set_limit(acme, "widgets", 3)),
    "undeclared usage": ("no plan declares 'widgets'", lambda hub, acme: hub.used(acme, "widgets")),
    "a negative limit": ("limit must be", lambda hub, acme: hub.set_limit(acme, "keys", -1)),
    "a negative static": ("max_batch must be", lambda hub, acme: hub.set_limit(acme, "max_batch", -1)),
    "a static of a resource": ("no resources", lambda hub, acme: hub.set_limit(acme, "max_batch", 1, resource="a")),
    "a static as a quota": (
        "use set_limit",
        lambda hub, acme: hub.set_quota(acme, QuotaLimit(dimension="max_x", limit=1, kind=QuotaKind.STATIC)),
    ),
    "two rates of a name": (
        "different names",
        lambda hub, acme: hub.set_rates(acme, [RatePolicy(limit=1, period_us=1), RatePolicy(limit=2, period_us=1)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
async def test_misuse_is_explained_and_changes_nothing(hub: HubService, acme: TenantId, misuse: str) -> None:
    """A wrong call is an error that names the fix, and leaves no revision behind."""
    message, call = MISUSES[misuse]
    before = hub.revision
    with pytest.raises(ConfigurationError, match=message):
        call(hub, acme)
    assert hub.revision == before


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_limits_follow_plan_and_tenant(hub: HubService, acme: TenantId) -> None:
    """A tenant's own limits stand in the place of its plan's, outlive a change of plan, and can be dropped."""
    assert (await standing(hub, acme, "keys")).limit.limit == 100_000
    hub.set_limit(acme, "keys", 5)
    hub.set_limit(acme, "max_batch", 7)
    hub.set_rates(acme, [RatePolicy(limit=3, period_us=SECOND_US, name="own")])
    hub.set_plan(acme, "free")
    found = await limits(hub, acme)
    assert found.plan == "free"
    assert (await standing(hub, acme, "keys")).limit.limit == 5
    assert (found.statics["max_batch"], found.statics["max_payload_bytes"]) == (7, 256 * 1024)
    assert [policy.name for policy in found.rates] == ["own"]
    hub.clear_limits(acme)
    found = await limits(hub, acme)
    assert ((await standing(hub, acme, "keys")).limit.limit, found.statics["max_batch"]) == (1_000, 10)
    assert [policy.name for policy in found.rates] == ["per-minute", "per-hour"]


async def test_unlimited_is_none(hub: HubService, acme: TenantId) -> None:
    """``None`` lifts a quota and takes a static limit away; no rates at all is no rate limit."""
    hub.set_limit(acme, "keys", None)
    hub.set_limit(acme, "max_ttl_seconds", None)
    hub.set_rates(acme, [])
    found = await limits(hub, acme)
    assert (await standing(hub, acme, "keys")).limit.limit is None
    assert "max_ttl_seconds" not in found.statics
    assert found.rates == ()


async def test_a_limit_of_vectors_is_each_collections(hub: HubService, acme: TenantId) -> None:
    """Without a resource the cell that the plan limits is meant; with one, that resource alone."""
    hub.set_limit(acme, "vectors", 5)
    hub.set_limit(acme, "vectors", 9, resource="docs")
    assert (await standing(hub, acme, "vectors", ANY_RESOURCE)).limit.limit == 5
    assert (await standing(hub, acme, "vectors", "docs")).limit.limit == 9
    assert ("vectors", None) not in {
        (cell.limit.dimension, cell.limit.resource) for cell in (await limits(hub, acme)).quotas
    }


async def test_a_dimension_of_ones_own(hub: HubService, acme: TenantId) -> None:
    """A quota for a dimension that no plan has can be given, and changed by its name afterwards."""
    hub.set_quota(acme, QuotaLimit(dimension="widgets", limit=3, kind=QuotaKind.CONTRIBUTION))
    hub.set_limit(acme, "widgets", 4)
    assert (await standing(hub, acme, "widgets")).limit.limit == 4


async def test_a_plan_can_change_under_its_tenants(hub: HubService, acme: TenantId) -> None:
    """A new definition of a plan counts for all tenants on it."""
    hub.define_plan(Plan(name="pro", statics={"max_batch": 1}))
    found = await limits(hub, acme)
    assert (dict(found.statics), found.quotas, found.rates) == ({"max_batch": 1}, (), ())


async def test_limits_of_many_are_one_snapshot(hub: HubService, acme: TenantId) -> None:
    """Limits of several tenants come in the order asked, ``None`` for strangers, at one revision."""
    other = hub.add_tenant("other", plan="free")
    answer = await hub.limits_batch([other, TenantId("nobody"), acme])
    assert [found.plan if found else None for found in answer.limits] == ["free", None, "pro"]
    assert answer.revisions == (hub.revision,) * 3


async def test_too_much_in_one_question(hub: HubService, acme: TenantId) -> None:
    """Questions are bounded as the wire says."""
    with pytest.raises(ValueError, match="1000 digests"):
        await hub.introspect_batch([b""] * 1_001)
    with pytest.raises(ValueError, match="1000 tenants"):
        await hub.limits_batch([acme] * 1_001)
    for question in (hub.limits(acme, sources=["a"] * 65), hub.limits_batch([acme], sources=["a"] * 65)):
        with pytest.raises(ValueError, match="64 sources"):
            await question
    with pytest.raises(ValueError, match="wait_seconds"):
        await hub.changes(None, wait_seconds=26)


# --- order -----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_recent_enough_or_refused(hub: HubService, acme: TenantId) -> None:
    """Asked for a revision that it has, the hub answers at or above it; for a later one, or epoch, it refuses."""
    now, later = hub.revision, hub.revision + 1
    assert (await hub.limits(acme, min_revision=now, epoch=hub.epoch)).revision == now
    for asked, epoch in ((later, hub.epoch), (later, None), (0, hub.epoch + 1)):
        for question in (
            hub.introspect(b"x", min_revision=asked, epoch=epoch),
            hub.introspect_batch([], min_revision=asked, epoch=epoch),
            hub.limits(acme, min_revision=asked, epoch=epoch),
            hub.limits_batch([acme], min_revision=asked, epoch=epoch),
        ):
            with pytest.raises(HubUnavailableError, match="replica behind"):
                await question
    hub.start_epoch()
    answer = await hub.introspect(b"x", min_revision=later, epoch=1)
    assert (answer.epoch, answer.revision) == (2, now)


async def test_each_change_is_one_event(hub: HubService) -> None:
    """Every change has a revision and an event of its own, in order, saying whom it is about."""
    cursor = (await hub.changes(None)).cursor
    acme = hub.add_tenant("acme", plan="pro")
    key = issue(hub, acme)
    new = hub.rotate_key(key.key_id)
    hub.change_key(key.key_id, name="other")
    hub.revoke_key(key.key_id)
    hub.suspend(acme)
    hub.resume(acme)
    hub.set_limit(acme, "keys", 1)
    hub.set_plan(acme, "free")
    hub.define_plan(Plan(name="free"))
    hub.delete_tenant(acme)
    batch = await hub.changes(cursor)
    kinds = ChangeType
    assert [event.type for event in batch.events] == [
        kinds.USER_CHANGED, kinds.KEY_CREATED, kinds.KEY_ROTATED, kinds.KEY_CHANGED, kinds.KEY_REVOKED,
        kinds.USER_SUSPENDED, kinds.USER_RESUMED, kinds.LIMITS_CHANGED, kinds.USER_CHANGED, kinds.PLAN_CHANGED,
        kinds.USER_DELETING, kinds.USER_DELETED,
    ]  # fmt: skip
    assert [event.revision for event in batch.events] == list(range(1, 13))
    assert (batch.revision, batch.more, batch.reset) == (12, False, False)
    events = batch.events
    assert all(event.key_id == key.key_id for event in events[1:5])
    assert all(event.tenant_id == acme for event in events if event.type is not kinds.PLAN_CHANGED)
    assert events[9].plan == "free"
    prefixes = [digest_prefix(digest(secret.secret.encode())) for secret in (key, new)]
    assert [event.digest_prefix for event in events[1:5]] == [*prefixes, None, None]
    assert events[4].revoked_at_us is not None


async def test_a_mutator_returns_the_revision_it_made(hub: HubService, acme: TenantId) -> None:
    """Whoever changes something learns its revision, to apply it without waiting for the feed."""
    key = issue(hub, acme)
    assert key.revision == hub.revision
    made = [
        hub.rotate_key(key.key_id).revision,
        hub.change_key(key.key_id, name="k"),
        hub.revoke_key(key.key_id),
        hub.set_limit(acme, "keys", 1),
        hub.set_rates(acme, None),
        hub.suspend(acme),
        hub.delete_tenant(acme),
    ]
    assert made == [key.revision + step for step in (1, 2, 3, 4, 5, 6, 8)]


async def test_a_poll_without_cursor_answers_at_once(hub: HubService, acme: TenantId) -> None:
    """The first poll tells where the hub stands and sends no events."""
    batch = await hub.changes(None, wait_seconds=25)
    assert (batch.events, batch.revision, batch.reset) == ((), hub.revision, False)


async def test_a_cursor_from_elsewhere_is_reset(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A cursor of another hub or epoch, from the future, too old, or nonsense gives a reset and no error."""
    old = (await hub.changes(None)).cursor
    foreign = (await HubService(clock=clock).changes(None)).cursor
    future = old.rpartition("-")[0] + "-99"
    for cursor in ("", "nonsense", "-" * 40, foreign, future, old + "0" * 600):
        batch = await hub.changes(cursor, wait_seconds=25)
        assert (batch.reset, batch.events, batch.revision) == (True, (), hub.revision), cursor
        assert batch.spread_seconds > 0
        assert not (await hub.changes(batch.cursor, wait_seconds=0)).reset
    hub.start_epoch()
    assert (await hub.changes(old, wait_seconds=25)).reset


async def test_events_are_kept_for_a_day(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """A reader may be away for just under a day; after it, it is reset rather than left without an event."""
    cursor = (await hub.changes(None)).cursor
    hub.suspend(acme)
    clock.advance(us=DAY_US - 1)
    assert [event.type for event in (await hub.changes(cursor)).events] == [ChangeType.USER_SUSPENDED]
    clock.advance(us=1)
    assert (await hub.changes(cursor)).reset


async def test_memory_of_events_is_bounded(clock: ManualClock) -> None:
    """Over the bound the oldest event goes, and who had not read it is reset."""
    hub = HubService(clock=clock, keep_events=3)
    first = (await hub.changes(None)).cursor
    acme = hub.add_tenant("acme", plan="free")
    second = (await hub.changes(first)).cursor
    for _ in range(3):
        hub.set_plan(acme, "pro")
    assert (await hub.changes(first)).reset
    assert len((await hub.changes(second)).events) == 3


async def test_a_long_backlog_comes_in_pieces(hub: HubService, acme: TenantId) -> None:
    """A thousand events at most come at once; a reader is told of more, and of no revision that it has not seen."""
    cursor = (await hub.changes(None)).cursor
    for _ in range(2_500):
        hub.set_plan(acme, "pro")
    sizes, seen = [], []
    more = True
    while more:
        batch = await hub.changes(cursor)
        cursor, more = batch.cursor, batch.more
        sizes.append(len(batch.events))
        seen += [event.revision for event in batch.events]
        assert batch.revision == seen[-1]
    assert sizes == [1_000, 1_000, 500]
    assert seen == list(range(2, 2_502))


# --- waiting and being told ------------------------------------------------------------------------------------------


async def test_a_waiting_poll_is_woken(hub: HubService, acme: TenantId) -> None:
    """A poll that waits is answered by the change, by whichever thread it is made."""
    for thread in (False, True):
        cursor = (await hub.changes(None)).cursor
        poll = asyncio.create_task(hub.changes(cursor, wait_seconds=25))
        await asyncio.sleep(0)
        assert not poll.done()
        if thread:
            await asyncio.to_thread(hub.set_plan, acme, "free")
        else:
            hub.set_plan(acme, "free")
        batch = await asyncio.wait_for(poll, 30)
        assert [event.type for event in batch.events] == [ChangeType.USER_CHANGED]


def test_polls_of_two_loops_are_woken(hub: HubService, acme: TenantId) -> None:
    """Two loops in two threads wait at one hub; a change in a third thread wakes both."""
    cursor = hub.try_changes(None).cursor
    seen: list[int] = []

    async def poll() -> None:
        batch = await asyncio.wait_for(hub.changes(cursor, wait_seconds=25), 20)
        seen.append(len(batch.events))

    threads = [threading.Thread(target=lambda: asyncio.run(poll())) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(hub._bell) < 2:
        assert any(thread.is_alive() for thread in threads)
    hub.suspend(acme)
    for thread in threads:
        thread.join(20)
    assert seen == [1, 1]


async def test_a_poll_that_is_given_up_leaves_nothing(hub: HubService) -> None:
    """A cancelled poll is forgotten, and one whose time is over says that nothing happened."""
    cursor = (await hub.changes(None)).cursor
    poll = asyncio.create_task(hub.changes(cursor, wait_seconds=25))
    await asyncio.sleep(0)
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll
    assert len(hub._bell) == 0
    for seconds in (0, 0.001):  # a whole second would be one that the suite waits
        short = await hub.changes(cursor, wait_seconds=seconds)  # type: ignore[arg-type]
        assert (short.events, short.cursor, short.reset) == ((), cursor, False)
    assert len(hub._bell) == 0


def test_a_poll_of_a_loop_that_is_gone_harms_nobody(hub: HubService, acme: TenantId) -> None:
    """A loop that was closed with a poll in it is skipped when a change is told."""
    cursor = hub.try_changes(None).cursor
    loop = asyncio.new_event_loop()
    poll = loop.create_task(hub.changes(cursor, wait_seconds=25))
    loop.run_until_complete(asyncio.sleep(0))
    listening = len(hub._bell)
    loop.close()
    hub.suspend(acme)
    poll.get_coro().close()  # type: ignore[union-attr]
    poll._log_destroy_pending = False  # type: ignore[attr-defined]
    assert (listening, len(hub._bell)) == (1, 0)


async def test_a_subscriber_is_called_after_each_change(hub: HubService, acme: TenantId) -> None:
    """A subscriber is called when the change is there to be read, until it ends its subscription."""
    seen: list[int] = []
    end = hub.subscribe(lambda: seen.append(hub.try_changes(None).revision))
    revisions = [hub.suspend(acme), hub.resume(acme)]
    hub.resume(acme)  # changes nothing
    end()
    hub.suspend(acme)
    end()
    assert seen == revisions


async def test_a_failing_subscriber_harms_nobody(
    hub: HubService, acme: TenantId, caplog: pytest.LogCaptureFixture
) -> None:
    """A subscriber that raises is logged; the change is made and the others hear of it."""
    heard: list[str] = []
    hub.subscribe(lambda: [].pop())
    hub.subscribe(lambda: heard.append("other"))
    with caplog.at_level(logging.ERROR):
        hub.suspend(acme)
    assert heard == ["other"]
    assert "a subscriber to changes raised" in caplog.text


async def test_a_snapshot_stands_still(hub: HubService, acme: TenantId, clock: ManualClock) -> None:
    """What was copied goes on answering as it was, whatever happens to the hub."""
    key = issue(hub, acme)
    view = hub.snapshot()
    hub.revoke_key(key.key_id)
    hub.delete_tenant(acme)
    answer = view.key(key.secret.encode(), clock.now()[1])
    assert isinstance(answer.key, KeyRecord)
    assert (answer.revision, hub.revision) == (2, 5)
    assert view.limits(acme, (), clock.now()[1]).limits is not None
