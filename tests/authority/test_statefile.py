"""A hub that outlives its process: what was acknowledged is there again, and nothing else may have the file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.access_keys.format import digest
from hivetenancy.authority.feed import ChangeLog
from hivetenancy.authority.idempotency import Claim, Fresh, Replay
from hivetenancy.authority.service import HubService
from hivetenancy.authority.statecodec import decode, encode
from hivetenancy.authority.statefile import KeptHubService, StateFile
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import CalendarPolicy, ConcurrencyPolicy, Plan, QuotaKind, QuotaLimit, RatePolicy, Scope
from hivetenancy.sources import UsageKind, UsageLine, UsageReply, UsageReport
from hivetenancy.testing import ManualClock

pytestmark = pytest.mark.anyio

SOURCE = "6" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a hub is kept."""
    return tmp_path / "hub.db"


def kept(path: Path | None, **options: Any) -> KeptHubService:
    """A hub that is kept there; the caller closes it."""
    return KeptHubService(path, **{"authority": "local", "clock": ManualClock(), **options})


def report(tenant: TenantId, *lines: tuple[UsageKind, str, int, dict[str, Any]], sequence: int = 1) -> UsageReport:
    """A report of so many lines."""
    made = [
        UsageLine(**{"tenant_id": tenant, "dimension": what, "resource": None, "kind": kind, "value": value, **more})
        for kind, what, value, more in lines
    ]
    return UsageReport(source=SOURCE, writer="w", sequence=sequence, previous_sequence=sequence - 1, lines=tuple(made))


async def lived_in(hub: KeptHubService) -> tuple[TenantId, KeyId]:
    """A hub in which everything that it can hold is there."""
    hub.define_plan(Plan(name="gold", rates=(ConcurrencyPolicy(limit=3, name="c"),), statics={"max_batch": 7}))
    acme, other = hub.add_tenant("acmé \U0001f41d", plan="gold"), hub.add_tenant("other", plan="free")
    hub.set_rates(
        acme,
        [
            RatePolicy(limit=5, period_us=1_000_000, name="r", burst=9, scope=Scope.KEY),
            CalendarPolicy(limit=5, period=Period.DAY, name="d", zone="Europe/Berlin"),
        ],
    )
    hub.set_limit(acme, "keys", None)
    hub.set_limit(acme, "max_batch", 3)
    hub.set_quota(acme, QuotaLimit(dimension="bees", limit=3, kind=QuotaKind.LEVEL))
    hub.suspend(other)
    key = hub.issue_key(acme, name="k", permissions=["read", "admin"], functions=[], networks=["10.0.0.0/8"])
    hub.rotate_key(key.key_id, overlap_seconds=60)
    hub.issue_key(None, name="unowned", permissions=["read"], service="synap", expires_at_us=2**52)
    hub.revoke_key(hub.issue_key(acme, name="gone", permissions=["read"]).key_id)
    await hub.introspect(key.secret.encode())
    hub.rotate_service_key(hub.issue_service_key("synap", ["usage"], identity="node").key_id, overlap_seconds=9)
    for dimension in ("collections", "queues"):
        hub.set_limit(acme, dimension, 9)
    desk = hub.desk
    made = desk.create_collection(acme, "docs", acme, 3)
    desk.update_collection_usage(made.collection_id, 10, 100)
    desk.create_resource(acme, "queue", "jobs", max_size=4)
    desk.update_synap_usage(acme, "queue", "jobs", message_count=2, storage_bytes=30)
    hub.set_limit(acme, "credits", 100)
    desk.consume_credits(acme, 5, "x")
    month = 4_102_444_800_000_000
    reply = await hub.report(
        report(
            acme,
            (UsageKind.COUNTER, "operations", 7, {"period_start_us": month}),
            (UsageKind.CONTRIBUTION, "storage_bytes", -7, {}),
            (UsageKind.LEVEL, "bees", 2, {"term": 1}),
            (UsageKind.CORRECTION, "storage_bytes", 3, {"reason": "late"}),
            (UsageKind.COUNTER, "nothing-like-it", 7, {}),
        ),
        owner="node",
    )
    assert isinstance(reply, UsageReply)
    assert [line.index for line in reply.rejected] == [4]
    again = report(acme, (UsageKind.CONTRIBUTION, "storage_bytes", -9, {}), sequence=2)  # changes a total in place
    assert isinstance(await hub.report(again, owner="node"), UsageReply)
    with hub.transaction() as state:
        claim = Claim(identity="node", method="POST", target=b"/x?y", key="k" * 8)
        assert state.idempotency.claim(claim, b"d", month) == Fresh()
        state.idempotency.complete(claim, 201, b'{"\xff"}', month)
        secret = replace(claim, key="s" * 8)
        state.idempotency.claim(secret, b"d", month)
        state.idempotency.complete_secret(secret, "id", 2, month)
    return acme, key.key_id


def everything(hub: HubService) -> dict[str, Any]:
    """All that a hub knows, to be compared."""
    state = hub.snapshot().state
    return {
        **{name: getattr(state, name) for name in state.__slots__ if name != "idempotency"},
        "order": [list(getattr(state, name)) for name in ("tenants", "keys", "collections", "service_keys")],
        "idempotency": (state.idempotency._kept, state.idempotency._bytes, list(state.idempotency._kept)),
        "log": (hub.epoch, hub.revision, list(hub._log._events)),
        "hub_id": hub.hub_id,
    }


async def test_everything_is_there_again(path: Path) -> None:
    """A hub that is opened again knows the very same, in the same order."""
    hub = kept(path)
    await lived_in(hub)
    before = everything(hub)
    hub.close()
    with contextlib.closing(kept(path)) as again:
        assert everything(again) == before


async def test_each_change_is_there_when_it_was_made(path: Path) -> None:
    """Nothing waits for the end: a file that was never closed properly holds it all."""
    hub = kept(path)
    await lived_in(hub)
    before = everything(hub)
    hub._file._connection.close()  # type: ignore[union-attr]  # as a kill would: no farewell
    with contextlib.closing(kept(path)) as again:
        assert everything(again) == before


class Lazy(KeptHubService):
    """Writes when it is closed properly, and not when something was acknowledged: the broken one."""

    def _commit(self) -> None:
        pass


async def test_a_hub_that_writes_later_would_be_found_out(path: Path) -> None:
    """What was acknowledged is not there after a kill: the test above sees that."""
    hub = Lazy(path, authority="local", clock=ManualClock())
    await lived_in(hub)
    before = everything(hub)
    hub._file._connection.close()  # type: ignore[union-attr]
    with contextlib.closing(kept(path)) as again:
        assert everything(again) != before


async def test_ids_revisions_and_cursors_go_on(path: Path) -> None:
    """A poller goes on with its cursor after a restart, and a change after it has the next revision."""
    hub = kept(path)
    acme = hub.add_tenant("acme", plan="free")
    cursor = (await hub.changes(None)).cursor
    hub.suspend(acme)
    hub.close()
    with contextlib.closing(kept(path)) as again:
        batch = again.try_changes(cursor)
        assert (batch.reset, [event.type.value for event in batch.events]) == (False, ["user_suspended"])
        assert again.resume(acme) == batch.revision + 1
        assert (again.epoch, again.hub_id) == (hub.epoch, hub.hub_id)


async def test_a_repeat_after_the_restart_counts_once(path: Path) -> None:
    """A usage report and an idempotent call that are sent again after a restart get their first answer."""
    hub = kept(path)
    acme = hub.add_tenant("acme", plan="free")
    told = report(acme, (UsageKind.CONTRIBUTION, "storage_bytes", 7, {}))
    first = await hub.report(told, owner="me")
    claim = Claim(identity="me", method="POST", target=b"/x", key="k" * 8)
    with hub.transaction() as state:
        state.idempotency.claim(claim, b"d", 0)
        state.idempotency.complete(claim, 200, b"{}", 0)
    hub.close()
    with contextlib.closing(kept(path)) as again:
        assert await again.report(told, owner="me") == first
        assert again.used(acme, "storage_bytes") == 7
        with again.transaction() as state:
            assert state.idempotency.claim(claim, b"d", 0) == Replay(status=200, body=b"{}")


def test_keys_and_service_keys_go_on_and_no_secret_is_kept(path: Path) -> None:
    """What was shown once still opens; the file holds digests alone, and is for its owner's eyes."""
    hub = kept(path)
    acme = hub.add_tenant("acme", plan="free")
    key, service_key = hub.issue_key(acme, name="k", permissions=["read"]), hub.issue_service_key()
    hub.close()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert digest(key.secret.encode()).hex().encode() in content
    assert key.secret.encode() not in content
    assert service_key.secret.encode() not in content
    with contextlib.closing(kept(path)) as again:
        assert again.authenticate(service_key.secret) is not None
        assert again.key_id_of(key.secret.encode()) == key.key_id


async def test_what_is_deleted_stays_deleted(path: Path) -> None:
    """Rows of a deleted tenant are gone, and events older than a day, and nobody gets them back."""
    clock = ManualClock()
    hub = kept(path, clock=clock)
    acme, _ = await lived_in(hub)
    clock.advance(90_000)
    hub.delete_tenant(acme)
    before = everything(hub)
    assert len(before["log"][2]) == 2
    hub.close()
    with contextlib.closing(kept(path)) as again:
        assert everything(again) == before


def test_plans_that_are_stated_count_over_those_of_the_file(path: Path) -> None:
    """A plan given at the start replaces the kept one of its name; a plan of the file alone stays."""
    with contextlib.closing(kept(path)) as hub:
        hub.define_plan(Plan(name="gold", statics={"max_batch": 1}))
        hub.define_plan(Plan(name="own", statics={"max_batch": 1}))
    with contextlib.closing(kept(path, plans=[Plan(name="gold", statics={"max_batch": 2})])) as again:
        assert (again.plans["gold"].statics, again.plans["own"].statics) == ({"max_batch": 2}, {"max_batch": 1})


# --- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("fake", "local"), ("local", "fake")])
def test_each_authority_refuses_the_others_file(path: Path, first: str, second: str) -> None:
    """A fake's file is no local authority's, nor the other way round; the file stays as it was."""
    with contextlib.closing(kept(path, authority=first)) as hub:
        hub.add_tenant("acme", plan="free")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=f"authority '{first}'"):
        kept(path, authority=second)
    assert path.read_bytes() == before
    with contextlib.closing(kept(path, authority=first)) as again:
        assert [tenant.name for tenant in again.tenants()] == ["acme"]


OWNER = """
import sys
from hivetenancy.authority.statefile import KeptHubService
try:
    KeptHubService(sys.argv[1], authority="local").close()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_there_is_one_owner(path: Path) -> None:
    """A second hub is refused, in this process and in another, until the first has let go."""

    def elsewhere() -> str:
        done = subprocess.run([sys.executable, "-c", OWNER, str(path)], capture_output=True, text=True, check=True)
        return done.stdout

    with contextlib.closing(kept(path)):
        with pytest.raises(ConfigurationError, match="in use already"):
            kept(path)
        assert "ConfigurationError" in elsewhere()
    assert elsewhere() == ""


def others(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    path.chmod(0o600)


def nonsense(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    path.chmod(0o600)


def later(path: Path) -> None:
    kept(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


def broken(path: Path) -> None:
    kept(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE rows SET body = ? WHERE kind = 'plans'", (b'{"d":"Plan","v":{"name":7}}',))
        connection.commit()


def unread(path: Path) -> None:
    kept(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM rows WHERE kind = 'plans'")
        connection.commit()


def without(table: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        kept(path).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"DROP TABLE {table}")

    return make


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.touch()
    target.chmod(0o600)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (others, "mode 0644"),
        (foreign, "not the state of a hub"),
        (nonsense, "no state file"),
        (later, "schema 99"),
        (broken, "damaged"),
        (unread, "damaged"),
        (without("rows"), "damaged: no such table"),
        (without("events"), "damaged: no such table"),
        (link, "is a symbolic link"),
        (lambda path: path.mkdir(), "is no file"),
    ],
    ids=["readable", "foreign", "nonsense", "later", "broken", "unread", "no rows", "no events", "link", "folder"],
)
@pytest.mark.skipif(os.name != "posix", reason="modes and links are those of POSIX")
def test_a_file_that_is_not_ours_is_refused(path: Path, make: Callable[[Path], None], says: str) -> None:
    """Each with its reason, and left as it was."""
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError, match=says):
        kept(path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A path that cannot be made is an error that names it."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        kept(tmp_path / "nowhere" / "hub.db")


# --- when it cannot be written ---------------------------------------------------------------------------------------


class Failing(StateFile):
    """A file on a disk that is full."""

    full = False

    def save(self, hub_id: str, state: Any, log: ChangeLog) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().save(hub_id, state, log)


def failing(path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptHubService:
    """A hub on such a disk."""
    monkeypatch.setattr("hivetenancy.authority.statefile.StateFile", Failing)
    return kept(path)


async def test_a_change_that_cannot_be_kept_was_never_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, nobody sees it, its revision is free, and what can be written later is."""
    with contextlib.closing(failing(path, monkeypatch)) as hub:
        acme = hub.add_tenant("acme", plan="free")
        before = everything(hub)
        Failing.full = True
        try:
            with pytest.raises(HubUnavailableError, match="was not made") as caught:
                hub.suspend(acme)
            assert caught.value.outcome_unknown is False
            with pytest.raises(HubUnavailableError):
                await hub.report(report(acme, (UsageKind.CONTRIBUTION, "storage_bytes", 7, {})), owner="me")
        finally:
            Failing.full = False
        assert everything(hub) == before
        assert hub.suspend(acme) == before["log"][1] + 1


class Forgetful(KeptHubService):
    """Keeps in memory what could not be written: the broken one."""

    def _go_back(self, error: Exception) -> None:
        pass


async def test_a_hub_that_kept_it_in_memory_would_be_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not go back shows a change that a restart takes away: the test above sees that."""
    monkeypatch.setattr("hivetenancy.authority.statefile.StateFile", Failing)
    with contextlib.closing(Forgetful(path, authority="local")) as hub:
        acme = hub.add_tenant("acme", plan="free")
        before = everything(hub)
        monkeypatch.setattr(Failing, "full", True)
        with pytest.raises(HubUnavailableError):
            hub.suspend(acme)
        assert everything(hub) != before


async def test_where_nothing_can_be_read_nothing_is_answered(path: Path) -> None:
    """A file that fails for good, or was closed, takes the hub with it."""
    hub = kept(path)
    acme = hub.add_tenant("acme", plan="free")
    hub._file._connection.close()  # type: ignore[union-attr]
    with pytest.raises(HubUnavailableError):
        hub.suspend(acme)
    for ask in (
        lambda: hub.introspect(b"x"),
        lambda: hub.limits(acme),
        lambda: hub.changes(None),
    ):
        with pytest.raises(HubUnavailableError, match="out of use"):
            await ask()
    for read in (
        lambda: hub.try_changes(None),
        lambda: hub.desk.get_user_tokens(acme),
        lambda: hub.suspend(acme),
    ):
        with pytest.raises(HubUnavailableError, match="out of use"):
            read()
    hub.close()
    hub.close()


# --- values ----------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.sampled_from([*UsageKind, *Scope]),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.binary() | st.tuples(st.text(), st.none()), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_values_come_back_as_they_were(value: object) -> None:
    """Tuples stay tuples, bytes bytes and members of enumerations members; a lone surrogate survives too."""
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [object(), 1.5, [1], {"a": {1}}], ids=["an object", "1.5", "a list", "a set"])
def test_what_is_no_value_of_the_model_is_refused(value: object) -> None:
    """Nothing is written that could not be read back."""
    with pytest.raises(TypeError):
        encode(value)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(max_size=3), st.lists).map(lambda v: repr(v).encode()))
def test_what_cannot_be_read_is_a_value_error(body: bytes) -> None:
    """Nothing in a file raises anything else, and only classes of the model are ever made."""
    with contextlib.suppress(ValueError):
        decode(body)
    for bad in (
        b'{"d":"Popen","v":{}}',
        b'{"e":"Path","v":1}',
        b'{"b":"zz"}',
        b"[" * 10_000,
        b"{}",
        b'{"d":"Key","v":3}',
    ):
        with pytest.raises(ValueError):
            decode(bad)
