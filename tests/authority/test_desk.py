"""The management of keys through the desk, and what of a hub stands beside the 23 calls: inspection, pages, steps."""

from __future__ import annotations

import ipaddress
import random
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from hivetenancy.access_keys.format import digest
from hivetenancy.access_keys.permissions import allows, effects
from hivetenancy.authority import keydesk
from hivetenancy.authority.desk import Desk
from hivetenancy.authority.keys import Key
from hivetenancy.authority.resources import CallRefused, KeyEntry, ShownKey
from hivetenancy.authority.service import HubService
from hivetenancy.clock import DAY_US
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import Environment, Permission, TenantId
from hivetenancy.sources import ChangeType, InactiveKey, InactiveReason, KeyRecord
from hivetenancy.testing import ManualClock
from tests.tiers import examples

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still, at the start of 2100."""
    return ManualClock()


@pytest.fixture
def hub(clock: ManualClock) -> HubService:
    """A control plane without tenants."""
    return HubService(clock=clock)


@pytest.fixture
def acme(hub: HubService) -> TenantId:
    """A tenant."""
    return hub.add_tenant("acme", plan="pro")


@pytest.fixture
def desk(hub: HubService) -> Desk:
    """The calls."""
    return hub.desk


def make(desk: Desk, user: str | None, **more: Any) -> ShownKey:
    """A key."""
    values: dict[str, Any] = {"service": "synap", "name": "key", "permissions": ["read"], **more}
    return desk.generate_key(user_id=user, **values)


def refused(call: Callable[[], object]) -> tuple[int, str | None, str, str | None]:
    """Status, code, text and field of a refusal."""
    with pytest.raises(CallRefused) as caught:
        call()
    return caught.value.status, caught.value.code, str(caught.value), caught.value.field


def worth(hub: HubService, key: ShownKey, service: str | None = None) -> KeyRecord | InactiveReason:
    """What a key is worth to a service."""
    (found,) = hub.inspect([digest(key.access_key.encode())], service=service).keys
    return found.key if isinstance(found.key, KeyRecord) else found.key.reason


# --- generate --------------------------------------------------------------------------------------------------------


def test_a_key_is_made_as_asked(hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """The answer says everything that the key was asked to be, and the key is that."""
    start, end = clock.now()[1] - 5, clock.now()[1] + DAY_US
    made = make(
        desk,
        acme,
        permissions=["write", "read"],
        functions=["kv.*"],
        resources=["docs"],
        networks=["10.0.0.0/8"],
        environment="live",
        not_before_us=start,
        expires_at_us=end,
    )
    assert made.key == KeyEntry(
        id=made.key.id,
        service="synap",
        any_service=False,
        name="key",
        permissions=(Permission.READ, Permission.WRITE),
        active=True,
        created_at_us=clock.now()[1],
        last_used_at_us=None,
        expires_at_us=end,
        not_before_us=start,
        user_id=acme,
        version=1,
        functions=("kv.*",),
        resources=("docs",),
        networks=("10.0.0.0/8",),
        environment=Environment.LIVE,
        overlap_until_us=None,
        revoked_at_us=None,
    )
    assert (made.epoch, made.revision) == (hub.epoch, hub.revision)
    found = worth(hub, made)
    assert isinstance(found, KeyRecord)
    assert (found.tenant_id, found.functions, found.resources) == (acme, ("kv.*",), ("docs",))
    assert desk.get_key(made.key.id) == made.key
    assert made.access_key not in repr(made)


def test_a_key_without_user_opens_nothing(hub: HubService, desk: Desk) -> None:
    """Call 1 as it is today names no user, and such a key is unowned."""
    assert worth(hub, make(desk, None)) is InactiveReason.UNOWNED


def test_a_key_is_for_its_service(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """To another service a key is unknown, to the letter, batch and single alike; a key for all is known to all."""
    own, free = make(desk, acme), make(desk, acme, service=None)
    assert isinstance(worth(hub, own, "synap"), KeyRecord)
    assert isinstance(worth(hub, own), KeyRecord)
    digests = [digest(key.encode()) for key in (own.access_key, "hh_test_nothing_at_all")]
    foreign, unknown = hub.inspect(digests, service="nexus", use=True).keys
    assert foreign == unknown
    assert foreign.key == InactiveKey(reason=InactiveReason.UNKNOWN)
    assert all(isinstance(worth(hub, free, service), KeyRecord) for service in ("synap", "nexus", None))
    assert desk.get_key(own.key.id).last_used_at_us is None


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "service": ("service", {"service": "postgres"}),
    "empty name": ("name", {"name": ""}),
    "long name": ("name", {"name": "x" * 256}),
    "control": ("name", {"name": "a\x00b"}),
    "no permission": ("permissions", {"permissions": []}),
    "unknown permission": ("permissions", {"permissions": ["read", "root"]}),
    "pattern": ("functions", {"functions": ["KV.*"]}),
    "text for a list": ("functions", {"functions": "kv.get"}),
    "resource": ("resources", {"resources": [""]}),
    "network": ("networks", {"networks": ["10.0.0.1/8"]}),
    "environment": ("environment", {"environment": "staging"}),
    "past": ("expires_at", {"expires_at_us": 1}),
    "negative": ("expires_at", {"expires_at_us": -1}),
    "never valid": ("expires_at", {"not_before_us": 2**52, "expires_at_us": 2**52}),
    "fraction": ("not_before", {"not_before_us": 1.5}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_key_is_refused(hub: HubService, desk: Desk, acme: TenantId, case: str) -> None:
    """A value that is none is refused with its field, and no key is made."""
    field, wrong = WRONG[case]
    found = refused(lambda: make(desk, acme, **wrong))
    assert (found[0], found[1], found[3]) == (400, "bad_field", field)
    assert hub.keys(acme) == ()


def test_a_key_needs_a_user_that_is_there(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """An unknown user gets no key, and none that is suspended or being deleted."""
    assert refused(lambda: make(desk, str(uuid4()))) == (404, "not_found", "User not found", None)
    hub.suspend(acme)
    assert refused(lambda: make(desk, acme))[:2] == (409, "user_not_active")
    hub.begin_deletion(acme)
    assert refused(lambda: make(desk, acme))[:2] == (409, "user_not_active")


# --- parents ---------------------------------------------------------------------------------------------------------


def wide(desk: Desk, user: TenantId, end: int) -> ShownKey:
    """A parent that is confined in every way."""
    return make(
        desk,
        user,
        permissions=["read", "write"],
        functions=["kv.**", "!kv.admin.*"],
        resources=["a", "b"],
        networks=["10.0.0.0/8", "fd00::/8"],
        expires_at_us=end,
    )


NARROW: dict[str, Any] = {
    "permissions": ["read"],
    "functions": ["kv.get", "!kv.admin.*"],
    "resources": ["a"],
    "networks": ["10.1.0.0/16"],
}

WIDER: dict[str, tuple[str, dict[str, Any]]] = {
    "permission": ("permissions", {"permissions": ["read", "delete"]}),
    "admin": ("permissions", {"permissions": ["admin"]}),
    "no list": ("functions", {"functions": None}),
    "other function": ("functions", {"functions": ["kv.get", "queue.pop", "!kv.admin.*"]}),
    "what is denied": ("functions", {"functions": ["kv.**"]}),
    "no rules": ("resources", {"resources": None}),
    "other resource": ("resources", {"resources": ["a", "c"]}),
    "everywhere": ("networks", {"networks": []}),
    "wider block": ("networks", {"networks": ["0.0.0.0/0"]}),
    "other block": ("networks", {"networks": ["10.1.0.0/16", "192.168.0.0/16"]}),
    "other family": ("networks", {"networks": ["::/0"]}),
    "for ever": ("expires_at", {"expires_at_us": None}),
    "longer": ("expires_at", {"expires_at_us": 1}),
    "live": ("environment", {"environment": "live"}),
    "all services": ("service", {"service": None}),
}


@pytest.mark.parametrize("case", WIDER)
def test_a_child_is_never_wider(hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock, case: str) -> None:
    """A key that would open anything more than its parent is refused with the field that does."""
    end = clock.now()[1] + DAY_US
    parent = wide(desk, acme, end)
    field, wrong = WIDER[case]
    wanted = {**NARROW, "expires_at_us": end, **wrong}
    if wanted["expires_at_us"] == 1:
        wanted["expires_at_us"] = end + 1
    found = refused(lambda: make(desk, acme, parent_key_id=parent.key.id, **wanted))
    assert (found[0], found[1], found[3]) == (409, "wider_than_parent", field)
    assert len(hub.keys(acme)) == 1


def test_a_narrower_child_is_made(desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """As wide as the parent is wide enough; owner and environment are the parent's where none is named."""
    end = clock.now()[1] + DAY_US
    parent = wide(desk, acme, end)
    child = make(desk, None, parent_key_id=parent.key.id, expires_at_us=end, **NARROW)
    assert (child.key.user_id, child.key.environment) == (acme, Environment.TEST)
    same = {
        "permissions": ["read", "write"],
        "functions": ["kv.**", "!kv.admin.*"],
        "resources": ["b", "a"],
        "networks": ["fd00::/8", "10.0.0.0/8"],
    }
    assert make(desk, acme, parent_key_id=parent.key.id, expires_at_us=end, **same).key.user_id == acme
    nothing = {**NARROW, "functions": ["!kv.admin.*"], "resources": []}
    assert make(desk, acme, parent_key_id=parent.key.id, expires_at_us=end, **nothing).key.resources == ()


def test_a_parent_must_be_active_and_ones_own(hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """Nothing comes from a key that opens nothing; a foreign parent is answered like one that does not exist."""
    other = hub.add_tenant("other", plan="free")
    now = clock.now()[1]
    theirs, elsewhere = make(desk, other).key.id, make(desk, acme, service="nexus").key.id
    unknown = refused(lambda: make(desk, acme, parent_key_id=str(uuid4())))
    assert unknown == (404, "not_found", "Access key not found", None)
    for foreign in (theirs, elsewhere):
        assert refused(lambda parent=foreign: make(desk, acme, parent_key_id=parent)) == unknown  # type: ignore[misc]
    ended = [make(desk, acme), make(desk, acme, expires_at_us=now + 1), make(desk, acme, not_before_us=now + DAY_US)]
    ended.append(make(desk, None))
    desk.revoke_key(ended[0].key.id)
    clock.advance(us=1)
    for parent in ended:
        found = refused(lambda key=parent: make(desk, None, parent_key_id=key.key.id))  # type: ignore[misc]
        assert (found[0], found[1], found[3]) == (409, "parent_not_active", "parent_key_id")


NAMES = ["kv.get", "kv.set", "kv.admin.drop", "queue.pop", "queue.push", "a", "a.b.c"]
PATTERNS = ["kv.*", "kv.**", "**", "*", "queue.*", "kv.get", "!kv.set", "!kv.**", "a.b.*", "*.*", "!**"]
BLOCKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "fd00::/8", "::/0"]
HOSTS = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "1.1.1.1", "fd00::1", "2001::1"]


def powers(key: Key, now_us: int) -> set[tuple[object, ...]]:
    """Everything that a key opens in a small world: who may do what, on what, from where, when."""
    names = [(effect, name) for effect in effects(key.permissions) for name in NAMES if allows(key.functions, name)]
    rules = ("a", "b", "c") if key.resources is None else key.resources
    blocks = [ipaddress.ip_network(block) for block in key.networks]
    hosts = [host for host in HOSTS if not blocks or any(ipaddress.ip_address(host) in block for block in blocks)]
    times = [time for time in (1, 5, 9) if key.expires_at_us is None or now_us + time < key.expires_at_us]
    return {
        (what, rule, host, time, key.environment)
        for what in names
        for rule in rules
        for host in hosts
        for time in times
    }


def draw_key(draw: random.Random, now_us: int) -> dict[str, Any]:
    """What a key is to be."""

    def some(of: list[Any], none: float) -> list[Any] | None:
        return None if draw.random() < none else draw.sample(of, draw.randrange(min(4, len(of)) + 1))

    return {
        "permissions": draw.sample(list(Permission), draw.randrange(1, 4)),
        "functions": some(PATTERNS, 0.3),
        "resources": some(["a", "b", "c"], 0.4),
        "networks": some(BLOCKS, 0.4) or [],
        "expires_at_us": draw.choice([None, now_us + 3, now_us + 7]),
        "environment": draw.choice(["test", "test", "live"]),
    }


def descend(seed: int, rounds: int) -> int:
    """Make keys from keys, and check that none opens what its parent does not; return how many there were."""
    draw, clock = random.Random(seed), ManualClock()
    hub = HubService(clock=clock)
    acme, now = hub.add_tenant("acme", plan="pro"), clock.now()[1]
    made = 0
    for _ in range(rounds):
        parent = make(hub.desk, acme, **draw_key(draw, now))
        wanted = draw_key(draw, now)
        for field in draw.sample(list(wanted), 5):  # children like their parents, or few would be made
            entry = parent.key
            wanted[field] = getattr(entry, field)
        try:
            child = make(hub.desk, acme, parent_key_id=parent.key.id, **wanted)
        except CallRefused as refusal:
            if refusal.code != "wider_than_parent":
                raise
            continue
        made += 1
        keys = {key.key_id: key for key in hub.keys(acme)}
        assert powers(keys[child.key.id], now) <= powers(keys[parent.key.id], now)  # type: ignore[index]
    return made


@pytest.mark.parametrize("seed", range(examples(4, 60)))
def test_no_child_opens_more(seed: int) -> None:
    """Whatever parents and children are drawn, a child's powers are among its parent's, and many are made."""
    assert descend(seed, 150) >= 20


@pytest.mark.parametrize("blind", ["permissions", "functions", "resources", "networks", "expires_at", "environment"])
def test_a_desk_blind_to_one_field_is_caught(monkeypatch: pytest.MonkeyPatch, blind: str) -> None:
    """The draw above fails on a desk that does not compare one of the fields."""
    sound = keydesk._wider

    def without(parent: Key, wanted: Any) -> str | None:
        found = sound(parent, wanted)
        return None if found == blind else found

    monkeypatch.setattr(keydesk, "_wider", without)
    caught = 0
    for seed in range(4):
        try:
            descend(seed, 150)
        except AssertionError:
            caught += 1
    assert caught >= 3


# --- list, get, revoke, rotate ---------------------------------------------------------------------------------------


def test_keys_are_listed_page_by_page(hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """Pages hold every key once, oldest first, one row an id over rotations, whatever is made meanwhile."""
    made = []
    for number in range(7):
        made.append(make(desk, acme, name=f"k{number}").key.id)
        clock.advance(us=1)
    desk.rotate_key(made[2], overlap_seconds=60, expected_version=1)
    desk.revoke_key(made[3])
    rows: list[KeyEntry] = []
    cursor = None
    for page_number in range(10):
        page = desk.list_keys(user_id=acme, limit=3, cursor=cursor)
        rows += page.keys
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.keys) == 3
        if not page_number:
            made.append(make(desk, acme).key.id)
    assert [row.id for row in rows] == made
    assert [row.active for row in rows] == [True] * 3 + [False] + [True] * 4
    assert (rows[2].version, rows[2].overlap_until_us) == (2, clock.now()[1] + 60_000_000)
    assert rows[3].revoked_at_us == clock.now()[1]
    assert [row.id for row in desk.list_keys().keys] == made


def test_a_list_shows_what_was_asked_for(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """Filters narrow; a caller of one service sees its keys and those for all, shown as its own."""
    other = hub.add_tenant("other", plan="free")
    ours = make(desk, acme).key.id
    theirs = make(desk, other, service="nexus").key.id
    free = make(desk, acme, service=None).key.id
    nobodys = make(desk, None).key.id

    def ids(**question: Any) -> set[str]:
        return {row.id for row in desk.list_keys(**question).keys}

    assert ids() == {ours, theirs, free, nobodys}
    assert ids(service="nexus") == {theirs, free}
    assert ids(user_id=acme) == {ours, free}
    assert ids(caller="nexus") == {theirs, free}
    assert ids(service="synap", caller="nexus") == {free}
    shown = {row.id: (row.service, row.any_service) for row in desk.list_keys(caller="nexus").keys}
    assert shown == {theirs: ("nexus", False), free: ("nexus", True)}
    assert desk.get_key(free).service == "vectorizer"
    assert refused(lambda: desk.list_keys(user_id=str(uuid4())))[2] == "User not found"
    for field, wrong in (("limit", 0), ("limit", 1_001), ("cursor", "x"), ("cursor", "1-../"), ("service", "sql")):
        found = refused(lambda name=field, value=wrong: desk.list_keys(**{name: value}))  # type: ignore[misc]
        assert (found[0], found[3]) == (400, field)


def test_a_key_is_revoked_once(hub: HubService, desk: Desk, acme: TenantId) -> None:
    """The first revocation is told to pollers and ends every version; the second is refused in the SDK's words."""
    first = make(desk, acme)
    second = desk.rotate_key(first.key.id, overlap_seconds=60, expected_version=1)
    reply = desk.revoke_key(first.key.id)
    assert (reply.success, reply.revision) == (True, hub.revision)
    assert [worth(hub, key) for key in (first, second)] == [InactiveReason.REVOKED] * 2
    again = refused(lambda: desk.revoke_key(first.key.id))
    assert again == (400, "already_revoked", "Access key already revoked", None)
    assert refused(lambda: desk.rotate_key(first.key.id, overlap_seconds=0, expected_version=2)) == again
    assert hub.revision == reply.revision


def test_a_foreign_key_is_a_missing_key(desk: Desk, acme: TenantId) -> None:
    """To a caller of another service a key does not exist, in the very words for one that does not."""
    key, missing = make(desk, acme).key.id, str(uuid4())
    for call in (
        lambda one: desk.get_key(one, caller="nexus"),
        lambda one: desk.revoke_key(one, caller="nexus"),
        lambda one: desk.rotate_key(one, overlap_seconds=0, expected_version=1, caller="nexus"),
    ):
        answers = {refused(lambda one=one, call=call: call(one)) for one in (key, missing)}  # type: ignore[misc]
        assert answers == {(404, "not_found", "Access key not found", None)}
    assert desk.get_key(key, caller="synap").active


def test_two_rotations_do_not_race(hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock) -> None:
    """Who does not know the newest version is refused and changes nothing; id and limits of the key stay."""
    first = make(desk, acme, expires_at_us=clock.now()[1] + DAY_US)
    second = desk.rotate_key(first.key.id, overlap_seconds=60, expected_version=1)
    assert (second.key.id, second.key.version) == (first.key.id, 2)
    assert second.key.expires_at_us == first.key.expires_at_us
    revision = hub.revision
    found = refused(lambda: desk.rotate_key(first.key.id, overlap_seconds=60, expected_version=1))
    assert found[:2] == (409, "version_conflict")
    assert hub.revision == revision
    third = desk.rotate_key(first.key.id, overlap_seconds=60, expected_version=2, compromised=True)
    states = [worth(hub, key) for key in (first, second, third)]
    assert states[:2] == [InactiveReason.EXPIRED, InactiveReason.REVOKED]
    assert isinstance(states[2], KeyRecord)
    for overlap in (-1, 2_592_001, 0.5, True):
        wrong: Any = overlap
        assert refused(
            lambda value=wrong: desk.rotate_key(first.key.id, overlap_seconds=value, expected_version=3)  # type: ignore[misc]
        )[3] == ("overlap_seconds")
    clock.advance(us=DAY_US)
    assert refused(lambda: desk.rotate_key(first.key.id, overlap_seconds=0, expected_version=3))[1] == "key_expired"


# --- inspection ------------------------------------------------------------------------------------------------------


async def test_use_is_remembered_without_a_revision(
    hub: HubService, desk: Desk, acme: TenantId, clock: ManualClock
) -> None:
    """A key's last use is its last introspection, by itself and not in a batch, and no change that pollers see."""
    key = make(desk, acme)
    presented = digest(key.access_key.encode())
    revision, first = hub.revision, clock.now()[1]
    assert hub.inspect([presented]).keys[0].last_used_at_us is None
    await hub.introspect(key.access_key.encode())
    clock.advance(us=5)
    await hub.introspect_batch([presented])
    (found,) = hub.inspect([presented], use=True).keys
    assert (found.last_used_at_us, found.service) == (first, "synap")
    assert desk.get_key(key.key.id).last_used_at_us == first + 5
    assert hub.revision == revision
    assert [each.key for each in hub.inspect([presented]).keys] == list((await hub.introspect_batch([presented])).keys)
    hub.delete_tenant(acme)
    assert hub.snapshot().state.last_used == {}


def test_an_inspection_is_recent_enough_or_refused(hub: HubService) -> None:
    """A hub that is behind what the caller knows says so."""
    with pytest.raises(HubUnavailableError, match="replica behind"):
        hub.inspect([], min_revision=1)
    with pytest.raises(ValueError, match="1000 digests"):
        hub.inspect([b""] * 1_001)


# --- pages of limits -------------------------------------------------------------------------------------------------


async def test_limits_come_page_by_page(hub: HubService) -> None:
    """Pages hold every tenant once, with what a single question says, whoever comes or goes meanwhile."""
    tenants = [hub.add_tenant(f"t{number}", plan="free") for number in range(7)]
    seen: list[TenantId] = []
    cursor = None
    while True:
        page = hub.limits_page(3, cursor)
        for found in page.limits:
            assert found == (await hub.limits(found.tenant_id)).limits
        seen += [found.tenant_id for found in page.limits]
        if page.cursor is None:
            break
        cursor = page.cursor
        gone = next((tenant for tenant in tenants if tenant not in seen), None)
        if gone is not None and len(tenants) == 7:
            hub.delete_tenant(gone)
            tenants.remove(gone)
    assert seen == sorted(tenants)
    assert hub.limits_page(6).cursor is None
    assert hub.limits_page(5).cursor == seen[4]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1_001}, {"cursor": "a b"}, {"cursor": ""}])
def test_a_wrong_page_is_refused(hub: HubService, wrong: dict[str, Any]) -> None:
    """A page is of 1 to 1,000 tenants after a cursor of the wire, with at most 64 sources."""
    with pytest.raises(ValueError, match=r"limit|cursor"):
        hub.limits_page(**wrong)
    with pytest.raises(ValueError, match="64 sources"):
        hub.limits_page(sources=["a" * 32] * 65)


# --- several steps as one --------------------------------------------------------------------------------------------


class Recording(HubService):
    """A hub that notes when it would write to disk."""

    commits = 0

    def _commit(self) -> None:
        self.commits += 1


def test_steps_within_a_transaction_are_one(clock: ManualClock) -> None:
    """Nested changes are kept once and told once, after the last; nobody else gets in between."""
    hub = Recording(clock=clock)
    told: list[int] = []
    hub.subscribe(lambda: told.append(hub.revision))
    entered = threading.Event()
    other = threading.Thread(target=lambda: (entered.wait(10), hub.add_tenant("late", plan="free")))
    other.start()
    with hub.transaction():
        entered.set()
        acme = hub.add_tenant("acme", plan="free")
        hub.desk.create_collection(acme, "a", acme, 3)
        hub.suspend(acme)
        assert (told, hub.commits, hub.revision) == ([], 0, 2)
    other.join(10)
    assert told[0] in (2, 3)
    assert (len(told), hub.commits, hub.revision) == (2, 2, 3)


def test_what_was_done_before_an_error_is_kept_and_told(clock: ManualClock) -> None:
    """An error after a change does not undo it, so it is kept and told like any other."""
    hub = Recording(clock=clock)
    cursor = hub.try_changes(None).cursor
    told: list[int] = []
    hub.subscribe(lambda: told.append(hub.revision))

    def fail() -> None:
        with hub.transaction():
            hub.add_tenant("acme", plan="free")
            raise RuntimeError("afterwards")

    with pytest.raises(RuntimeError, match="afterwards"):
        fail()
    assert (told, hub.commits) == ([1], 1)
    assert [event.type for event in hub.try_changes(cursor).events] == [ChangeType.USER_CHANGED]
    hub.add_tenant("next", plan="free")
    assert (told, hub.commits) == ([1, 2], 2)


def test_reading_keeps_nothing(clock: ManualClock) -> None:
    """Calls that only read are no reason to write to disk."""
    hub = Recording(clock=clock)
    acme = hub.add_tenant("acme", plan="free")
    before = hub.commits
    hub.desk.get_user_collections(acme)
    hub.desk.get_user_database(acme)
    hub.desk.check_quota("nexus", acme, "create_node")
    hub.desk.list_keys()
    hub.inspect([b"x"], use=True)
    assert hub.commits == before
