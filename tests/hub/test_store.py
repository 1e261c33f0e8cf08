"""What a node knew is there after a restart, whatever happened to the process, the disk, the clock and the file."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hivetenancy import files
from hivetenancy.access_keys.format import digest
from hivetenancy.clock import DAY_US, HOUR_US, SECOND_US
from hivetenancy.errors import ConfigurationError, MisuseError, StoreUnavailableError
from hivetenancy.hub import keptfile, keptgroup, store
from hivetenancy.hub.kept import (
    UNKNOWN_AGE_US,
    Delivery,
    FeedPlace,
    KeptAnnouncement,
    KeptLimits,
    Knowledge,
    UsageCell,
    age_us,
    can_decode,
    decode_limits,
    encode_limits,
)
from hivetenancy.hub.store import StateStore
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import (
    MAX_AMOUNT,
    CalendarPolicy,
    ConcurrencyPolicy,
    Policy,
    QuotaKind,
    QuotaLimit,
    RatePolicy,
    Scope,
)
from hivetenancy.sources import QuotaStanding, TenantLimits, TenantStatus
from hivetenancy.testing import FakeHiveHub, ManualClock
from tests.tiers import examples

HUB = "6a9d1d1c-hub"
ACME = TenantId("acme")
ROOT = Path(__file__).parents[2]
DAMAGE = 100  # bytes of header that a flip leaves alone: those are tested one by one


def only_when_told(urgent: threading.Event, _seconds: float) -> None:
    """A pause that ends when somebody waits for the disk, and at no other time."""
    urgent.wait()


def new_store(path: Path, **options: Any) -> StateStore:
    """A store that writes when it is told to, on a clock that stands still."""
    options.setdefault("clock", ManualClock())
    return StateStore(path, pause=only_when_told, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state file will be."""
    return tmp_path / "state.db"


@pytest.fixture
def opened(path: Path) -> Iterator[StateStore]:
    """A store that is open, of `HUB`."""
    state = new_store(path)
    state.open(HUB)
    yield state
    state.close()


def limits_of(tenant: str = ACME, *, sent_us: int = 7, revision: int = 1, used: int = 0) -> KeptLimits:
    """Small limits."""
    quota = QuotaLimit(dimension="keys", limit=10, kind=QuotaKind.CONTRIBUTION)
    limits = TenantLimits(tenant_id=TenantId(tenant), plan="free", quotas=(QuotaStanding(limit=quota, used=used),))
    return KeptLimits(limits=limits, epoch=1, revision=revision, sent_us=sent_us)


def reopened(state: StateStore, hub_id: str | None = HUB) -> Knowledge:
    """Close it, and open it again."""
    assert state.close()
    return state.open(hub_id)


def kept_after(path: Path, fill: Callable[[StateStore], object], **options: Any) -> Knowledge:
    """What a second process would find after *fill*."""
    state = new_store(path, **options)
    state.open(HUB)
    fill(state)
    try:
        return reopened(state)
    finally:
        state.close()


# --- round trips -----------------------------------------------------------------------------------------------------

amounts = st.integers(0, MAX_AMOUNT - 1)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=64)
scopes = st.sampled_from(Scope)
zones = st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
periods = st.sampled_from(Period)
positive = st.integers(1, MAX_AMOUNT - 1)
policies: st.SearchStrategy[Policy] = st.one_of(
    st.builds(RatePolicy, limit=positive, period_us=positive, burst=st.none() | positive, name=names, scope=scopes),
    st.builds(CalendarPolicy, limit=positive, period=periods, zone=zones, name=names, scope=scopes),
    st.builds(ConcurrencyPolicy, limit=amounts, name=names, scope=scopes),
)


@st.composite
def quotas(draw: st.DrawFn) -> QuotaLimit:
    """Any quota limit."""
    kind = draw(st.sampled_from(QuotaKind))
    return QuotaLimit(
        dimension=draw(names),
        limit=draw(st.none() | amounts),
        kind=kind,
        resource=draw(st.none() | st.text()),
        period=draw(periods) if kind is QuotaKind.COUNTER else None,
        zone=draw(zones),
    )


standings = st.builds(
    QuotaStanding,
    limit=quotas(),
    used=st.integers(),
    own=st.integers(),
    period_start_us=st.none() | st.integers(),
    resets_at_us=st.none() | st.integers(),
)
every_limits = st.builds(
    KeptLimits,
    limits=st.builds(
        TenantLimits,
        tenant_id=st.text(min_size=1).map(TenantId),
        plan=st.text(),
        status=st.sampled_from(TenantStatus),
        rates=st.lists(policies, max_size=4, unique_by=lambda policy: policy.name).map(tuple),
        quotas=st.lists(standings, max_size=4).map(tuple),
        statics=st.dictionaries(names, amounts, max_size=3),
    ),
    epoch=st.integers(),
    revision=st.integers(),
    sent_us=st.integers(0, 2**63 - 1),
)


@given(every_limits)
def test_limits_survive_as_text(kept: KeptLimits) -> None:
    """Whatever limits can be built come back equal, with the very types and the policies of an engine."""
    text = encode_limits(kept)
    assert can_decode(text)
    back = decode_limits(text, kept.sent_us)
    assert back == kept
    assert back is not None
    assert repr(back) == repr(kept)
    assert back.limits.tenant_rates is kept.limits.tenant_rates
    assert back.limits.key_rates is kept.limits.key_rates


@given(st.lists(every_limits, max_size=4, unique_by=lambda kept: kept.limits.tenant_id))
@settings(max_examples=examples(10, 100))
def test_limits_survive_in_the_file(tmp_path_factory: pytest.TempPathFactory, every: list[KeptLimits]) -> None:
    """Tenants of any name and limits of any size come back from the file."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    clock = ManualClock(wall_us=2**63 - 1)
    known = kept_after(path, lambda s: [s.put_limits(k.limits.tenant_id, k) for k in every], clock=clock)
    assert known.limits == {kept.limits.tenant_id: kept for kept in every}
    assert known.forgotten == 0


@pytest.mark.anyio
@pytest.mark.parametrize("plan", ["free", "pro", "enterprise"])
async def test_limits_of_a_plan(path: Path, plan: str) -> None:
    """What the hub says of a tenant on each of its plans comes back equal."""
    hub = FakeHiveHub()
    tenant = hub.add_tenant("acme", plan=plan)
    answer = await hub.limits(tenant.id)
    assert answer.limits is not None
    kept = KeptLimits(limits=answer.limits, epoch=answer.epoch, revision=answer.revision, sent_us=answer.now_us)
    assert kept_after(path, lambda s: s.put_limits(tenant.id, kept)).limits == {tenant.id: kept}


def test_the_text_of_limits_names_every_field() -> None:
    """A field that is added to limits must be written down, and the version of the text with it."""
    known = {
        TenantLimits: "tenant_id plan status rates quotas statics tenant_rates key_rates",
        QuotaStanding: "limit used own period_start_us resets_at_us",
        QuotaLimit: "dimension limit kind resource period zone",
        RatePolicy: "limit period_us burst name scope",
        CalendarPolicy: "limit period zone name scope",
        ConcurrencyPolicy: "limit name scope",
        KeptLimits: "limits epoch revision sent_us",
    }
    for kind, expected in known.items():
        assert [each.name for each in fields(kind)] == expected.split(), f"write it down in hub/kept.py: {kind}"


def test_another_version_of_a_row_is_passed_over(path: Path) -> None:
    """A tenant whose row a later version wrote is unknown, and the others are known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hivetenancy.hub.kept.ROW_VERSION", 2)
        kept_after(path, lambda s: s.put_limits(ACME, limits_of()))
    known = kept_after(path, lambda s: s.put_limits(TenantId("globex"), limits_of("globex")))
    assert set(known.limits) == {"globex"}
    assert ACME not in known.limits
    assert known.limits.get(ACME) is None
    assert known.forgotten == 1


@pytest.mark.parametrize("body", [b"", b"{}\n", b"[]\n", b"null\n", b'{"v":1}\n', b"\xff\n\xff", b"[" * 100_000])
def test_text_that_is_none(body: bytes) -> None:
    """What is no text of limits is nobody's limits, and no error."""
    assert decode_limits(body, 0) is None
    assert not can_decode(body)


def fill(state: StateStore) -> None:
    """Put something of everything."""
    state.put_announcement(KeptAnnouncement(hub_id=HUB, epoch=3, extensions=frozenset({"limits", "changes"})))
    state.put_place(FeedPlace(epoch=3, cursor="c-ü\0", revision=99))
    state.put_limits(ACME, limits_of())
    state.put_digests([bytes([n]) * 32 for n in range(5)])
    state.drop_digests([bytes(32)])
    state.pin("vectors", "absolute")
    state.put_absolute(ACME, "vectors", "docs\ud800", -(2**70))
    state.put_absolute(ACME, "vectors", None, 2)
    state.put_delivery("second", 20, b"\0\xff")
    state.put_delivery("first", 10, b"")
    state.put_delivery("done", 5, b"x")
    state.drop_delivery("done")


def assert_filled(state: StateStore, known: Knowledge) -> None:
    """What `fill` put is there."""
    assert known.hub_id == HUB == state.hub_id
    assert known.announcement == KeptAnnouncement(hub_id=HUB, epoch=3, extensions=frozenset({"limits", "changes"}))
    assert known.place == FeedPlace(epoch=3, cursor="c-ü\0", revision=99)
    assert known.limits == {ACME: limits_of()}
    assert set(known.digests) == {bytes([n]) * 32 for n in range(1, 5)}
    assert state.pinned() == {"vectors": "absolute"}
    assert state.absolutes() == {
        UsageCell(ACME, "vectors", "docs\ud800"): -(2**70),
        UsageCell(ACME, "vectors", None): 2,
    }
    assert state.deliveries() == (
        Delivery(id="first", first_sent_us=10, body=b""),
        Delivery(id="second", first_sent_us=20, body=b"\0\xff"),
    )
    assert known.forgotten == 0


def test_everything_comes_back(opened: StateStore) -> None:
    """All that is put is there after a restart, and after another one in which nothing was put."""
    fill(opened)
    assert_filled(opened, reopened(opened))
    assert_filled(opened, reopened(opened, None))


def test_what_is_dropped_is_gone(opened: StateStore) -> None:
    """What was on disk and is dropped is not there after the next restart."""
    fill(opened)
    reopened(opened)
    opened.drop_limits(ACME)
    opened.drop_digests([bytes([n]) * 32 for n in range(5)])
    opened.drop_delivery("first")
    opened.drop_absolute(ACME, "vectors", None)
    opened.unpin("vectors")
    opened.put_place(None)
    known = reopened(opened)
    assert (known.limits, known.digests, known.place, opened.pinned()) == ({}, (), None, {})
    assert [delivery.id for delivery in opened.deliveries()] == ["second"]
    assert list(opened.absolutes()) == [UsageCell(ACME, "vectors", "docs\ud800")]


def test_the_latest_counts(opened: StateStore) -> None:
    """Of several changes of one row, committed together or apart, the latest counts."""
    for used in range(3):
        opened.put_limits(ACME, limits_of(used=used))
    opened.drop_limits(ACME)
    opened.put_limits(ACME, limits_of(used=5))
    assert reopened(opened).limits[ACME] == limits_of(used=5)
    opened.put_limits(ACME, limits_of(used=6))
    assert reopened(opened).limits[ACME] == limits_of(used=6)


def test_digests_come_by_last_use(path: Path) -> None:
    """The keys seen last are the first to be verified again."""
    clock = ManualClock()
    state = new_store(path, clock=clock)
    state.open(HUB)
    for n in (1, 2, 3, 1):
        state.put_digests([bytes([n]) * 32])
        clock.advance(1)
    assert [found[0] for found in reopened(state).digests] == [1, 3, 2]
    state.close()


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
def test_bounds(path: Path, at_once: bool) -> None:
    """The file never holds more tenants and digests than stated; those asked for or seen longest ago are gone."""
    clock = ManualClock()

    def fill_over(state: StateStore) -> None:
        for n in range(100):
            state.put_limits(TenantId(f"t{n}"), limits_of(f"t{n}", sent_us=1 + n))
            state.put_digests([bytes([n]) * 32])
            clock.advance(1)
            if not at_once:
                asyncio.run(state.flush())

    known = kept_after(path, fill_over, clock=clock, max_tenants=10, max_digests=20)
    assert 9 <= len(known.limits) <= 10
    assert 18 <= len(known.digests) <= 20
    assert set(known.limits) == {f"t{n}" for n in range(100 - len(known.limits), 100)}
    assert set(known.digests) == {bytes([n]) * 32 for n in range(100 - len(known.digests), 100)}


def test_a_removal_is_not_let_go(path: Path) -> None:
    """A tenant that was dropped does not come back because too many others waited for the disk after it."""
    kept_after(path, lambda s: s.put_limits(ACME, limits_of()), max_tenants=2)

    def drop_then_many(state: StateStore) -> None:
        state.drop_limits(ACME)
        for n in range(3):
            state.put_limits(TenantId(f"t{n}"), limits_of(f"t{n}"))

    assert set(kept_after(path, drop_then_many, max_tenants=2).limits) == {"t1", "t2"}


def test_deliveries_and_totals_are_refused_rather_than_dropped(
    opened: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One delivery or cell more than may be kept is refused, and those kept stay."""
    monkeypatch.setattr(store, "MAX_DELIVERIES", 1)
    monkeypatch.setattr(store, "MAX_ABSOLUTES", 1)
    opened.put_delivery("a", 1, b"a")
    opened.put_absolute(ACME, "keys", None, 1)
    with pytest.raises(StoreUnavailableError):
        opened.put_delivery("b", 1, b"b")
    with pytest.raises(StoreUnavailableError):
        opened.put_absolute(ACME, "nodes", None, 1)
    opened.put_absolute(ACME, "keys", None, 2)
    reopened(opened)
    assert [delivery.id for delivery in opened.deliveries()] == ["a"]
    assert list(opened.absolutes().values()) == [2]


def test_bad_values_are_refused_when_put(opened: StateStore) -> None:
    """What could not be written is refused by the call, so that it fails no group of others; nothing is kept."""
    with pytest.raises(ValueError, match="32 bytes"):
        opened.put_digests([bytes(32), b"hh_live_secret"])
    with pytest.raises(ValueError, match="limits of 'acme'"):
        opened.put_limits(TenantId("globex"), limits_of())
    with pytest.raises(ValueError, match="sent_us"):
        limits_of(sent_us=2**63)
    with pytest.raises(ValueError, match="first_sent_us"):
        opened.put_delivery("a", -1, b"")
    with pytest.raises(ValueError, match="bytes"):
        opened.put_delivery("a", 1, bytes(2**20 + 1))
    with pytest.raises(ValueError, match="whole number"):
        opened.put_absolute(ACME, "keys", None, True)
    known = reopened(opened)
    assert (known.digests, known.limits, opened.deliveries(), opened.absolutes()) == ((), {}, (), {})


# --- pins and the stamp ----------------------------------------------------------------------------------------------


def test_a_strategy_never_changes_by_itself(opened: StateStore) -> None:
    """Another strategy is refused, after a restart too, until an operator unpins it."""
    opened.pin("tokens", "increment")
    opened.pin("tokens", "increment")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"'tokens' is reported as 'increment'.*'absolute'.*unpin"):
            opened.pin("tokens", "absolute")
        reopened(opened)
    opened.unpin("tokens")
    opened.pin("tokens", "absolute")
    reopened(opened)
    assert opened.pinned() == {"tokens": "absolute"}


def test_another_hub_is_refused(opened: StateStore) -> None:
    """State of one hub is not shown to another: the error names both, and nothing in the file changes."""
    fill(opened)
    opened.close()
    with pytest.raises(ConfigurationError, match=rf"{HUB}.*another-hub.*name another state file"):
        opened.open("another-hub")
    assert_filled(opened, opened.open(None))
    for put in (opened.stamp, lambda hub: opened.put_announcement(KeptAnnouncement(hub_id=hub, epoch=9))):
        with pytest.raises(ConfigurationError, match="another-hub"):
            put("another-hub")
    assert_filled(opened, reopened(opened))


def test_a_hub_that_is_not_known_yet(path: Path) -> None:
    """A new file takes nothing before it is known whose it is; then it is stamped for good."""
    state = new_store(path)
    assert state.open(None) == Knowledge(hub_id=None)
    with pytest.raises(MisuseError, match="stamp"):
        state.put_limits(ACME, limits_of())
    with pytest.raises(ConfigurationError):
        state.stamp("")
    assert reopened(state, None).hub_id is None
    state.put_announcement(KeptAnnouncement(hub_id=HUB, epoch=1))
    state.put_limits(ACME, limits_of())
    assert reopened(state, None).hub_id == HUB
    state.close()


# --- durability ------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys, threading
sys.path.insert(0, {root!r})
from hivetenancy.hub.kept import *
from hivetenancy.hub import store
if {lies!r}:
    store.StateStore._commit = lambda self, connection, group: None
state = store.StateStore({path!r}, pause=lambda urgent, seconds: urgent.wait())
state.open("hub")
say = lambda text: print(text, flush=True)
async def main():
    for n in range(50):
        state.put_absolute("acme", "keys", str(n), n)
    state.put_digests([bytes([n]) * 32 for n in range(50)])
    await state.flush()
    await state.put_delivery("sent", 1, b"body")
    for n in range(50, 100):
        state.put_absolute("acme", "keys", str(n), n)
    say("ready")
    sys.stdin.read()
asyncio.run(main())
"""


def child(path: Path, *, lies: bool = False) -> subprocess.Popen[str]:
    """A process that flushed something, put some more, and waits to be killed."""
    code = CHILD.format(root=str(ROOT), path=str(path), lies=lies)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9."""
    process.kill()
    process.communicate()


def killed_after_flush(path: Path, *, lies: bool) -> None:
    """What flush and a ticket acknowledged is there after kill -9; what was only put is not, and does no harm."""
    kill(child(path, lies=lies))
    state = new_store(path, clock=None)
    try:
        known = state.open("hub")
        assert state.absolutes() == {UsageCell(ACME, "keys", str(n)): n for n in range(50)}
        assert len(known.digests) == 50
        assert [delivery.id for delivery in state.deliveries()] == ["sent"]
    finally:
        state.close()


def test_kill_9(path: Path) -> None:
    """A real process is killed after flush, with more put: exactly what was acknowledged is there."""
    killed_after_flush(path, lies=False)


def test_kill_9_finds_a_store_that_lies(path: Path) -> None:
    """The case above fails for a store that acknowledges what it did not write."""
    with pytest.raises(AssertionError):
        killed_after_flush(path, lies=True)


def refuses_a_second(path: Path) -> None:
    """Nobody opens the file while somebody has it open."""
    first, second = new_store(path), new_store(path)
    first.open(HUB)
    try:
        with pytest.raises(ConfigurationError, match="in use already: give each process"):
            second.open(HUB)
    finally:
        first.close()
        second.close()


def test_one_process_at_a_time(path: Path) -> None:
    """A file that another process has open is refused; the moment that one is killed it is free."""
    process = child(path)
    state = new_store(path, clock=None)
    with pytest.raises(ConfigurationError, match=r"state\.db.*in use already: give each process"):
        state.open("hub")
    kill(process)
    assert state.open("hub").hub_id == "hub"
    # A refused second opener of one process must not take the lock from the first, as POSIX locks would have it.
    with pytest.raises(ConfigurationError, match="in use already"):
        new_store(path).open("hub")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom hivetenancy.hub.store import *\n"
    code += f"try: StateStore({str(path)!r}).open()\nexcept ConfigurationError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "in use already" in done.stdout
    state.close()


def test_a_second_opener_without_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not lock its file is found out."""
    refuses_a_second(path)
    monkeypatch.setattr(files, "_PRAGMAS", ())
    with pytest.raises(pytest.fail.Exception):
        refuses_a_second(path)


def test_putting_touches_no_disk(path: Path) -> None:
    """While a commit hangs on the disk every kind of change is taken, and all of them are committed after it."""
    hanging, go_on = threading.Event(), threading.Event()

    class Slow(StateStore):
        def _commit(self, *args: Any) -> None:
            hanging.set()
            assert go_on.wait(30)
            super()._commit(*args)

    state = Slow(path, clock=ManualClock(), pause=only_when_told)
    state.open(HUB)
    ticket = state.pin("tokens", "absolute")
    assert hanging.wait(30)
    fill(state)
    assert not ticket.done
    assert not ticket.wait(0)
    go_on.set()
    assert ticket.wait(30)
    assert ticket.done
    known = reopened(state)
    assert state.pinned() == {"tokens": "absolute", "vectors": "absolute"}
    assert known.limits == {ACME: limits_of()}
    state.close()


def test_closing_has_a_deadline(path: Path) -> None:
    """A disk that hangs does not hold up the end: close says so in time, and those who wait are told."""
    hanging, go_on = threading.Event(), threading.Event()

    class Slow(StateStore):
        def _commit(self, *args: Any) -> None:
            hanging.set()
            assert go_on.wait(30)
            super()._commit(*args)

    state = Slow(path, clock=ManualClock(), pause=only_when_told)
    state.open(HUB)
    writer = state._writer
    ticket = state.pin("tokens", "absolute")
    assert hanging.wait(30)
    assert not state.close(timeout=0.01)
    assert state.last_error == "the disk did not answer in time"
    with pytest.raises(StoreUnavailableError):
        ticket.wait(0)
    go_on.set()
    assert writer is not None
    writer.join()


@pytest.mark.anyio
async def test_a_ticket_is_shared(opened: StateStore) -> None:
    """One who is cancelled while waiting does not take the outcome from the others."""
    ticket = opened.put_absolute(ACME, "keys", None, 1)

    async def wait() -> None:
        await ticket

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    await asyncio.sleep(0)
    first.cancel()
    await opened.flush()
    await second
    assert first.cancelled() or first.cancelling()
    await ticket
    assert ticket.done


def disk_is_full(state: StateStore) -> None:
    """Let the disk have no page more."""
    assert state._connection is not None
    (pages,) = state._connection.execute("PRAGMA page_count").fetchone()
    state._connection.execute(f"PRAGMA max_page_count={pages}")


def disk_has_room(state: StateStore) -> None:
    """Let the disk have room again."""
    assert state._connection is not None
    state._connection.execute("PRAGMA max_page_count=1000000")


@pytest.mark.anyio
async def test_a_full_disk(opened: StateStore, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is logged once and shown, fails those who wait and nobody else, and loses nothing in the end."""
    await opened.flush()
    disk_is_full(opened)
    opened.put_absolute(ACME, "keys", "x" * 9000, 1)
    for failures in (1, 2):
        with pytest.raises(StoreUnavailableError, match="full"):
            await opened.flush()
        assert opened.failures == failures
    assert "full" in (opened.last_error or "")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(StoreUnavailableError, match="full"):
        opened.put_delivery("now", 1, b"")
    opened.put_limits(ACME, limits_of())
    disk_has_room(opened)
    await opened.flush()
    assert opened.last_error is None
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert reopened(opened).limits == {ACME: limits_of()}
    assert list(opened.absolutes().values()) == [1]
    assert opened.deliveries() == ()


async def a_failed_delivery_is_not_kept(state: StateStore) -> None:
    """A delivery that was said not to be on disk is not there when the disk has room again, nor after a restart."""
    state.open(HUB)
    try:
        await state.flush()
        disk_is_full(state)
        ticket = state.put_delivery("big", 1, b"x" * 9000)
        with pytest.raises(StoreUnavailableError):
            await ticket
        assert not ticket.done
        assert state.deliveries() == ()
        disk_has_room(state)
        await state.flush()
        await state.put_delivery("next", 2, b"y")
        reopened(state)
        assert [delivery.id for delivery in state.deliveries()] == ["next"]
    finally:
        state.close()


@pytest.mark.anyio
async def test_a_failed_delivery(path: Path) -> None:
    """What was not sent because it could not be frozen is never sent later."""
    await a_failed_delivery_is_not_kept(new_store(path))


@pytest.mark.anyio
async def test_a_failed_delivery_that_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that tries deliveries again like everything else is found out."""
    monkeypatch.setattr(keptgroup, "DELIVERIES", "none")
    with pytest.raises(AssertionError):
        await a_failed_delivery_is_not_kept(new_store(path))


@pytest.mark.anyio
async def test_a_delivery_is_frozen(opened: StateStore) -> None:
    """The same bytes may be put again, other bytes under the same id may not."""
    await opened.put_delivery("a", 1, b"body")
    assert opened.put_delivery("a", 1, b"body").done
    with pytest.raises(ValueError, match="frozen"):
        opened.put_delivery("a", 1, b"other")
    with pytest.raises(ValueError, match="frozen"):
        opened.put_delivery("a", 2, b"body")
    assert opened.deliveries() == (Delivery(id="a", first_sent_us=1, body=b"body"),)


def test_use_at_the_wrong_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before open, after close, open twice and after a fork it says what is wrong."""
    state = new_store(path)
    for _ in range(2):
        with pytest.raises(MisuseError, match="open"):
            state.put_place(None)
        assert state.close()
    state.open(HUB)
    with pytest.raises(MisuseError, match="already"):
        state.open(HUB)
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        with pytest.raises(MisuseError, match="fork"):
            state.put_digests([])
    state.close()


# --- ages ------------------------------------------------------------------------------------------------------------


def test_age_counts_from_the_sending() -> None:
    """The age is wall time since the sending; of a time to come, or of none, it is older than anything."""
    assert age_us(limits_of(sent_us=10), (0, 25)) == 15
    assert age_us(limits_of(sent_us=10), (99, 10)) == 0
    assert age_us(limits_of(sent_us=10), (99, 9)) == UNKNOWN_AGE_US
    assert age_us(limits_of(sent_us=0), (99, 9)) == UNKNOWN_AGE_US


def never_younger(path: Path, *, running: bool) -> None:
    """Limits asked for an hour ago are not young because the clock was set back, while it ran or while it did not."""
    clock = ManualClock()
    state = new_store(path, clock=clock)
    state.open(HUB)
    kept = limits_of(sent_us=clock.now()[1])
    state.put_limits(ACME, kept)
    asyncio.run(state.flush())
    clock.advance(3600)
    if running:
        clock.step_wall(us=-DAY_US)
        state.put_digests([bytes(32)])
        asyncio.run(state.flush())
        clock.advance(us=DAY_US)  # by now the file looks an hour old again, and is a day and an hour
    else:
        clock.step_wall(us=-2 * HOUR_US)
    state.close()
    for _ in range(2):  # what is not known does not come back when the clock catches up
        known = state.open(HUB)
        assert age_us(known.limits[ACME], clock.now()) == UNKNOWN_AGE_US
        state.close()
        clock.advance(us=3 * HOUR_US)


@pytest.mark.parametrize("running", [True, False])
def test_a_clock_that_is_set_back(path: Path, monkeypatch: pytest.MonkeyPatch, running: bool) -> None:
    """After it nothing kept can be dated, for good; a store that does not look is found out."""
    never_younger(path, running=running)
    monkeypatch.setattr(store, "_STEP_US", 2**62)
    with pytest.raises(AssertionError):
        never_younger(path.with_name("other.db"), running=running)


def test_that_nothing_can_be_dated_is_written_at_once(path: Path) -> None:
    """A clock found behind at start is on disk without anybody asking, for the process may be killed at any time."""
    clock, committed = ManualClock(), threading.Event()
    kept_after(path, lambda s: s.put_limits(ACME, limits_of(sent_us=clock.now()[1])), clock=clock)
    clock.step_wall(us=-HOUR_US)

    class Watched(StateStore):
        def _commit(self, *args: Any) -> None:
            super()._commit(*args)
            committed.set()

    state = Watched(path, clock=clock, pause=only_when_told)
    state.open(HUB)
    assert committed.wait(30)
    assert state._connection is not None
    assert state._connection.execute("SELECT at_us FROM limits").fetchall() == [(0,)]
    state.close()


def test_what_was_asked_before_the_clock_was_set_back(path: Path) -> None:
    """An answer that is put after the clock was set back, and was asked for before, is of unknown age."""
    clock = ManualClock()
    kept = limits_of(sent_us=clock.now()[1] + HOUR_US)
    known = kept_after(path, lambda s: s.put_limits(ACME, kept), clock=clock)
    assert known.limits == {ACME: replace(kept, sent_us=0)}


def test_a_clock_that_is_kept_in_time(path: Path) -> None:
    """A correction of half a second is no setting back: ages stay known."""
    clock = ManualClock()
    kept = limits_of(sent_us=clock.now()[1] - SECOND_US)

    def put(state: StateStore) -> None:
        state.put_limits(ACME, kept)
        asyncio.run(state.flush())
        clock.step_wall(us=-SECOND_US // 2)

    assert kept_after(path, put, clock=clock).limits == {ACME: kept}


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_nobody_else_can_read_it(path: Path, umask: int) -> None:
    """The file and its log have mode 0600 under any umask, from the first moment."""
    state = new_store(path)
    before = os.umask(umask)
    try:
        state.open(HUB)
        fill(state)
        asyncio.run(state.flush())
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
        assert modes == {"state.db": 0o600, "state.db-wal": 0o600}
    finally:
        os.umask(before)
        state.close()


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o666])
@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
def test_a_file_that_others_can_reach(opened: StateStore, path: Path, mode: int, name: str) -> None:
    """A file or a log that others may read or write is refused, with the command that helps, and stays as it is."""
    fill(opened)
    opened.close()
    target = path.with_name(name)
    target.touch(0o600)
    target.chmod(mode)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=rf"{name}.*mode 0{mode:o}.*chmod 600"):
        opened.open(HUB)
    assert path.read_bytes() == before
    target.chmod(0o600)
    assert_filled(opened, opened.open(HUB))


@pytest.mark.skipif(os.name != "posix", reason="owners are those of POSIX")
def test_a_file_of_somebody_else(opened: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that belongs to another user is refused: its owner can change it."""
    opened.close()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigurationError, match=r"state\.db.*another user"):
        opened.open(HUB)


def test_what_is_no_file(tmp_path: Path, path: Path) -> None:
    """A link, a folder, a pipe and a missing folder are refused, each with the remedy; nothing is made."""
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(ConfigurationError, match=r"state\.db.*symbolic link"):
        StateStore(path).open(HUB)
    assert not target.exists()
    with pytest.raises(ConfigurationError, match=r"no file: name a file"):
        StateStore(tmp_path).open(HUB)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match=r"no file: name a file"):
        StateStore(tmp_path / "pipe").open(HUB)
    with pytest.raises(ConfigurationError, match=r"folder .*state\.db.* does not exist: create it"):
        StateStore(tmp_path / "missing" / "state.db").open(HUB)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["pipe", "state.db"]


@pytest.mark.parametrize("bad", ["", ":memory:", "file:state.db?mode=memory", "a\0b", None, 7])
def test_what_is_no_path(bad: Any) -> None:
    """What names no file of its own is refused when the store is built."""
    with pytest.raises(ConfigurationError, match="path of a file"):
        StateStore(bad)


@pytest.mark.parametrize("bound", [0, -1, 1.5, True])
def test_bounds_are_numbers(path: Path, bound: Any) -> None:
    """A bound below 1 or of another type is refused when the store is built; nothing is made on disk."""
    with pytest.raises(ConfigurationError, match="max_tenants"):
        StateStore(path, max_tenants=bound)
    assert not path.exists()


def other_database(path: Path, *pragmas: str) -> bytes:
    """Make somebody else's database, and return its bytes."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute("INSERT INTO theirs VALUES ('precious')")
    connection.commit()
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    connection.close()
    path.chmod(0o600)
    return path.read_bytes()


@pytest.mark.parametrize("pragmas", [(), ("application_id=7",), ("journal_mode=WAL",), ("user_version=1",)])
def test_another_programs_database(path: Path, pragmas: tuple[str, ...]) -> None:
    """Another program's database is refused and stays as it is, to the byte."""
    before = other_database(path, *pragmas)
    with pytest.raises(ConfigurationError, match=r"state\.db.*not a state file.*left as it is.*Name another path"):
        StateStore(path).open(HUB)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"precious", b"precious" * 1000, b"SQLite format 3\0", bytes(5000)])
def test_what_is_no_database(path: Path, content: bytes) -> None:
    """A file that is no database is refused and stays as it is."""
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"state\.db"):
        StateStore(path).open(HUB)
    assert path.read_bytes() == content


def test_a_later_version(opened: StateStore, path: Path) -> None:
    """A file of a later version is refused, says both versions, and stays as it is."""
    fill(opened)
    opened.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=9")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"later version.*schema 9.*knows 1.*Upgrade"):
        opened.open(HUB)
    assert path.read_bytes() == before


def test_an_empty_file(path: Path) -> None:
    """A file of no length, as a process leaves that was killed while making it, is taken for new."""
    path.touch(0o600)
    state = new_store(path)
    assert state.open(HUB) == Knowledge(hub_id=HUB)
    fill(state)
    assert_filled(state, reopened(state))
    state.close()


def test_a_lost_file_with_its_log(tmp_path: Path, path: Path) -> None:
    """An empty file beside a log of changes is refused, for SQLite would throw the log away."""
    kill(child(path))
    log = path.with_name("state.db-wal")
    before = log.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"damaged: it is empty.*state\.db-wal.*backup"):
        StateStore(path).open()
    assert log.read_bytes() == before


# --- damage ----------------------------------------------------------------------------------------------------------


def large(state: StateStore) -> None:
    """Put enough for several pages of each table."""
    for n in range(100):
        state.put_limits(TenantId(f"t{n}"), limits_of(f"t{n}", used=n))
        state.put_digests([bytes([n]) * 32])
        state.put_absolute(ACME, "keys", f"resource {n}", n)
        state.put_delivery(f"d{n}", 1 + n, b"body %d " % n * 20)
        state.pin(f"pin{n}", "absolute")


def judge_damage(path: Path, spoilt: bytes) -> str:
    """Open a damaged file: it is refused and left alone, or whatever it gives is true, and nothing of ours is lost."""
    path.write_bytes(spoilt)
    path.chmod(0o600)
    state = new_store(path)
    known = why = None
    try:
        known = state.open(HUB)
    except ConfigurationError as error:
        why = str(error)
    finally:
        state.close()
    if known is None:
        assert why is not None
        assert "state.db" in why
        assert path.read_bytes() == spoilt
        return "refused"
    for tenant, kept in known.limits.items():
        stated = limits_of(tenant, used=int(tenant[1:]))
        if known.forgotten and kept.sent_us == 0:  # the fact that dates them was hit: they are as old as can be
            stated = replace(stated, sent_us=0)
        assert kept == stated, "limits that nobody stated"
    assert set(known.digests) <= {bytes([n]) * 32 for n in range(100)}
    assert state.absolutes() == {UsageCell(ACME, "keys", f"resource {n}"): n for n in range(100)}
    assert [(d.id, d.first_sent_us, d.body) for d in state.deliveries()] == [
        (f"d{n}", 1 + n, b"body %d " % n * 20) for n in range(100)
    ]
    assert state.pinned() == {f"pin{n}": "absolute" for n in range(100)}
    return "intact" if len(known.limits) == len(known.digests) == 100 else "forgotten"


def damage_at_random(path: Path, rounds: int, seed: int) -> set[str]:
    """Flip bytes all over a file, again and again, and judge each."""
    state = new_store(path)
    state.open(HUB)
    large(state)
    state.close()
    intact, draw, found = path.read_bytes(), random.Random(seed), set()
    for _ in range(rounds):
        spoilt = bytearray(intact)
        for _ in range(draw.choice([1, 1, 1, 8])):
            spoilt[draw.randrange(DAMAGE, len(spoilt))] ^= draw.randrange(1, 256)
        found.add(judge_damage(path, bytes(spoilt)))
    return found


def test_flipped_bytes(path: Path) -> None:
    """Whatever bytes are flipped, nothing false is believed, and nothing that only we know is lost without a word."""
    seed = random.randrange(2**32)
    print("seed", seed)
    assert {"refused", "forgotten"} <= damage_at_random(path, examples(60, 1200), seed)


def test_flipped_bytes_without_checksums(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that trusts SQLite to notice is found out."""
    monkeypatch.setattr(keptfile, "checksum", lambda *_row: 0)
    with pytest.raises(AssertionError):
        damage_at_random(path, 300, 1)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(path: Path, share: float) -> None:
    """A file that was cut off is refused and stays as it is."""
    state = new_store(path)
    state.open(HUB)
    large(state)
    state.close()
    intact = path.read_bytes()
    assert judge_damage(path, intact[: int(len(intact) * share)]) == "refused"


@pytest.mark.parametrize("at", range(0, 100, 4))
def test_a_damaged_header(path: Path, at: int) -> None:
    """Damage to the header is refused, or does not matter."""
    state = new_store(path)
    state.open(HUB)
    large(state)
    state.close()
    intact = path.read_bytes()
    assert judge_damage(path, intact[:at] + bytes([intact[at] ^ 0xFF]) + intact[at + 1 :]) != "forgotten"


def spoil_row(path: Path, table: str, key: bytes) -> None:
    """Damage one row in a way that SQLite cannot see."""
    connection = sqlite3.connect(path)
    assert connection.execute(f"UPDATE {table} SET crc = crc + 1 WHERE key = ?", (key,)).rowcount == 1
    connection.commit()
    connection.close()


@pytest.mark.parametrize("fact", [b"place", b"written"])
def test_a_damaged_copy(opened: StateStore, path: Path, fact: bytes) -> None:
    """Without its place the feed begins anew; without the time of writing nothing can be dated."""
    fill(opened)
    opened.close()
    spoil_row(path, "facts", fact)
    known = opened.open(HUB)
    assert known.forgotten == 1
    assert (known.place is None) == (fact == b"place")
    assert (known.limits[ACME].sent_us == 0) == (fact == b"written")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("facts", b"hub_id"),
        ("facts", b"announcement"),
        ("pins", b"vectors"),
        ("absolutes", b'["acme","vectors",null]'),
        ("deliveries", b"first"),
    ],
)
def test_damage_to_what_is_known_here_alone(opened: StateStore, path: Path, table: str, key: bytes) -> None:
    """The file is refused rather than the row guessed, with the remedy."""
    fill(opened)
    opened.close()
    spoil_row(path, table, key)
    with pytest.raises(ConfigurationError, match=rf"damaged: a row of {table} .*backup, or move both aside"):
        opened.open(HUB)


def test_a_file_without_stamp(opened: StateStore, path: Path) -> None:
    """Rows that nobody knows the hub of are not shown to any."""
    fill(opened)
    opened.close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM facts WHERE key = ?", (b"hub_id",))
    connection.commit()
    connection.close()
    with pytest.raises(ConfigurationError, match="stamp is missing"):
        opened.open(HUB)


# --- secrets and size ------------------------------------------------------------------------------------------------


def test_no_key_is_in_the_file(opened: StateStore, path: Path) -> None:
    """Neither the file nor its log nor any text of the store holds a key, or what a key may do."""
    hub = FakeHiveHub()
    key = hub.add_tenant("acme").issue_key(permissions=["admin"], name="payroll")
    opened.put_digests([digest(key.secret.encode())])
    fill(opened)
    asyncio.run(opened.flush())
    raw = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert digest(key.secret.encode()) in raw
    for secret in (key.secret, key.secret.rpartition("_")[2], key.key_id, "payroll", "admin"):
        assert secret.encode() not in raw
    known = reopened(opened)
    assert repr(digest(key.secret.encode())) not in f"{known!r}{opened!r}{opened.deliveries()!r}"


def test_a_node_that_knew_many_keys(path: Path) -> None:
    """A node that knew 100,000 keys (deep tier) knows them again; the times are printed, and judge nothing."""
    keys = [n.to_bytes(32, "big") for n in range(examples(10_000, 100_000))]
    tenants = {TenantId(f"t{n}"): limits_of(f"t{n}") for n in range(examples(500, 2_000))}
    state = new_store(path)
    state.open(HUB)
    began = time.perf_counter()
    state.put_digests(keys)
    for tenant, kept in tenants.items():
        state.put_limits(tenant, kept)
    put = time.perf_counter()
    assert state.close(timeout=100)  # a slow machine writes for longer than a node that ends would wait
    saved = time.perf_counter()
    known = state.open(HUB)
    loaded = time.perf_counter()
    state.close()
    print(f"put {put - began:.3f} s, saved {saved - put:.3f} s, loaded {loaded - saved:.3f} s, ", end="")
    print(f"{path.stat().st_size / 2**20:.1f} MiB")
    assert set(known.digests) == set(keys)
    assert known.limits == tenants


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_removed_while_it_is_used(tmp_path: Path, replaced: bool) -> None:
    """SQLite would go on writing to what nobody will find again: it is told, and no delivery is taken for kept."""
    path = tmp_path / "state"
    state = StateStore(path)
    state.open(HUB)
    state.pin("a", "b").wait()
    for each in tmp_path.iterdir():
        each.unlink()
    if replaced:
        path.touch(0o600)
    with pytest.raises(StoreUnavailableError, match="another file" if replaced else "removed"):
        state.put_delivery("id", 1, b"body").wait(5)
    assert state.last_error is not None
    assert not state.deliveries()
    assert not state.close()
    assert path.exists() == replaced
