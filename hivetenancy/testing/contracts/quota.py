"""What every `QuotaManager` must do.

A harness builds one engine and moves its world: the clock, and what the control plane says of a tenant. Cases ask only
through the protocol, so an engine that awaits for every answer passes them as well as one that answers at once; the
optional abilities (`NotesFacts`, threads) are tried where an engine has them.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import MisuseError
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import ANY_RESOURCE, QuotaKind, QuotaLimit
from hivetenancy.quota import QuotaManager, Reservation
from hivetenancy.sources import QuotaStanding, TenantLimits

from ..clock import ManualClock
from ._cases import Cases, switching_often

ACME: Final = TenantId("11111111-1111-4111-8111-111111111111")
OTHER: Final = TenantId("22222222-2222-4222-8222-222222222222")

BYTES: Final = "storage_bytes"
KEYS: Final = "keys"
OPERATIONS: Final = "operations"


class QuotaHarness(Protocol):
    """How a case reaches one engine and its world. Each case gets a fresh one."""

    @property
    def quota(self) -> QuotaManager:
        """The engine under test, reading `clock`."""
        ...

    @property
    def clock(self) -> ManualClock:
        """The engine's clock."""
        ...

    @property
    def threadsafe(self) -> bool:
        """Whether the engine may be called from several threads at once, through ``try_reserve``."""
        ...

    def set_limits(self, limits: TenantLimits) -> None:
        """Let these be the limits of their tenant, from the next question on. Others are unknown tenants."""
        ...


CASES: Cases[QuotaHarness] = Cases()
"""The cases of this room."""


def standing(
    dimension: str,
    limit: int | None,
    *,
    kind: QuotaKind = QuotaKind.CONTRIBUTION,
    resource: str | None = None,
    used: int = 0,
    own: int = 0,
    period: Period | None = None,
    start_us: int | None = None,
) -> QuotaStanding:
    """Return a quota and where it stands; a *period* makes it a counter, and *start_us* says of which period."""
    if period is not None:
        kind = QuotaKind.COUNTER
    ends_us = None if period is None or start_us is None else bounds(period, start_us)[1]
    stated = QuotaLimit(dimension=dimension, limit=limit, kind=kind, resource=resource, period=period)
    return QuotaStanding(limit=stated, used=used, own=own, period_start_us=start_us, resets_at_us=ends_us)


def limits_for(tenant: TenantId, *standings: QuotaStanding, statics: Mapping[str, int] | None = None) -> TenantLimits:
    """Return the limits of *tenant*."""
    return TenantLimits(tenant_id=tenant, plan="contract", quotas=standings, statics=statics or {})


async def must_hold(harness: QuotaHarness, demand: Amounts, tenant: TenantId = ACME) -> Reservation:
    """Reserve *demand*, which must be admitted."""
    answer = await harness.quota.reserve(tenant, demand)
    assert not isinstance(answer, Refusal), f"{dict(demand)} was refused: {answer}"
    return answer


async def must_refuse(harness: QuotaHarness, demand: Amounts, tenant: TenantId = ACME) -> Refusal:
    """Reserve *demand*, which must be refused."""
    answer = await harness.quota.reserve(tenant, demand)
    if not isinstance(answer, Refusal):
        answer.release()
    assert isinstance(answer, Refusal), f"{dict(demand)} was admitted"
    return answer


async def use(harness: QuotaHarness, demand: Amounts, tenant: TenantId = ACME) -> None:
    """Reserve and commit."""
    (await must_hold(harness, demand, tenant)).commit()


async def must_have_room(harness: QuotaHarness, cell: CellKey, room: int, tenant: TenantId = ACME) -> None:
    """Check that exactly *room* can still be held in *cell*."""
    if room > 0:
        (await must_hold(harness, {cell: room}, tenant)).release()
    await must_refuse(harness, {cell: room + 1}, tenant)


# --- holding --------------------------------------------------------------------------------------------------


@CASES.add
async def the_limit_can_be_reached_and_not_passed(harness: QuotaHarness) -> None:
    """At 999 of 1,000 one more fits and two do not."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 1000)))
    await use(harness, {BYTES: 999})
    await must_refuse(harness, {BYTES: 2})
    await use(harness, {BYTES: 1})
    await must_refuse(harness, {BYTES: 1})


@CASES.add
async def what_is_held_counts(harness: QuotaHarness) -> None:
    """What an open reservation holds is not there for the next."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    first = await must_hold(harness, {BYTES: 6})
    assert first.tenant == ACME
    assert dict(first.held) == {BYTES: 6}
    assert first.committed is None
    await must_have_room(harness, BYTES, 4)
    first.release()
    assert dict(first.held) == {}
    await must_have_room(harness, BYTES, 10)


@CASES.add
async def several_dimensions_are_held_all_or_none(harness: QuotaHarness) -> None:
    """A demand that fails in one dimension, wherever it stands in the demand, holds nothing in the others."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10), standing(KEYS, 1)))
    await must_refuse(harness, {BYTES: 5, KEYS: 2})
    await must_refuse(harness, {KEYS: 2, BYTES: 5})
    await must_refuse(harness, {BYTES: 5, "nobody_declared": 1})
    await must_have_room(harness, BYTES, 10)
    await must_have_room(harness, KEYS, 1)


@CASES.add
async def a_refusal_carries_its_numbers(harness: QuotaHarness) -> None:
    """It says which dimension was short, its limit, what is used, held and was asked for; a gauge names no wait."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    await use(harness, {BYTES: 3})
    held = await must_hold(harness, {BYTES: 2})
    refusal = await must_refuse(harness, {BYTES: 6})
    held.release()
    assert refusal.reason is Reason.QUOTA_EXCEEDED
    assert (refusal.tenant, refusal.dimension, refusal.resource) == (ACME, BYTES, None)
    assert (refusal.limit, refusal.used, refusal.held, refusal.requested) == (10, 3, 2, 6)
    assert refusal.retry_after_us is None
    assert refusal.resets_at_us is None


@CASES.add
async def nothing_is_always_admitted(harness: QuotaHarness) -> None:
    """A demand of zero passes at the edge and beyond it, and holds nothing."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 0)))
    empty = await must_hold(harness, {BYTES: 0})
    assert not any(empty.held.values())
    empty.commit()


@CASES.add
async def amounts_are_whole_and_not_negative(harness: QuotaHarness) -> None:
    """A negative or broken amount is an error of the caller, and holds nothing of what stands before it."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10), standing(KEYS, 10)))
    for wrong in (-1, 1.5, "1", True):
        try:
            await harness.quota.reserve(ACME, {BYTES: 4, KEYS: wrong})  # type: ignore[dict-item]
        except ValueError:
            continue
        raise AssertionError(f"an amount of {wrong!r} was taken")
    await must_have_room(harness, BYTES, 10)


@CASES.add
async def a_null_limit_is_no_limit(harness: QuotaHarness) -> None:
    """An unlimited dimension admits whatever is asked."""
    harness.set_limits(limits_for(ACME, standing(BYTES, None)))
    for _ in range(3):
        await use(harness, {BYTES: 2**52})


@CASES.add
async def an_undeclared_dimension_has_a_limit_of_zero(harness: QuotaHarness) -> None:
    """What nobody declared is refused, with a limit of zero."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    refusal = await must_refuse(harness, {KEYS: 1})
    assert (refusal.reason, refusal.dimension, refusal.limit) == (Reason.QUOTA_EXCEEDED, KEYS, 0)


@CASES.add
async def an_unknown_tenant_has_a_limit_of_zero(harness: QuotaHarness) -> None:
    """A tenant that nobody knows holds nothing."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    refusal = await must_refuse(harness, {BYTES: 1}, OTHER)
    assert (refusal.reason, refusal.limit) == (Reason.QUOTA_EXCEEDED, 0)


@CASES.add
async def tenants_are_apart(harness: QuotaHarness) -> None:
    """One tenant at its limit takes nothing from another."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    harness.set_limits(limits_for(OTHER, standing(BYTES, 10)))
    await use(harness, {BYTES: 10})
    await must_have_room(harness, BYTES, 10, OTHER)


# --- ending ---------------------------------------------------------------------------------------------------


@CASES.add
async def a_commit_turns_held_into_used(harness: QuotaHarness) -> None:
    """What was committed stays, and is told once for the usage record."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    taken = await must_hold(harness, {BYTES: 4})
    ticket = taken.commit()
    await ticket
    assert ticket.done
    assert taken.committed == {BYTES: 4}
    assert dict(taken.held) == {}
    taken.release()
    await must_have_room(harness, BYTES, 6)


@CASES.add
async def committing_less_frees_the_rest(harness: QuotaHarness) -> None:
    """A commit of less than was held gives the difference back; a cell left out commits as held."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10), standing(KEYS, 10)))
    taken = await must_hold(harness, {BYTES: 8, KEYS: 1})
    taken.commit({BYTES: 3})
    assert taken.committed == {BYTES: 3, KEYS: 1}
    await must_have_room(harness, BYTES, 7)
    await must_have_room(harness, KEYS, 9)


@CASES.add
async def committing_more_is_a_fact(harness: QuotaHarness) -> None:
    """A commit of more than was held is booked, over the limit too, and refuses what comes next."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    taken = await must_hold(harness, {BYTES: 8})
    taken.commit({BYTES: 12})
    assert taken.committed == {BYTES: 12}
    refusal = await must_refuse(harness, {BYTES: 1})
    assert refusal.used == 12
    harness.quota.credit(ACME, {BYTES: 5})
    await must_have_room(harness, BYTES, 3)


@CASES.add
async def a_commit_counts_once(harness: QuotaHarness) -> None:
    """Committing twice, or after a release, is misuse and changes nothing."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    taken = await must_hold(harness, {BYTES: 3})
    taken.commit()
    released = await must_hold(harness, {BYTES: 3})
    released.release()
    for ended in (taken, released):
        wrong: tuple[Amounts | None, ...] = (None, {BYTES: 5})
        for actual in wrong:
            try:
                ended.commit(actual)
            except MisuseError:
                continue
            raise AssertionError("an ended reservation was committed")
    await must_have_room(harness, BYTES, 7)


@CASES.add
async def a_release_frees_once(harness: QuotaHarness) -> None:
    """Releasing twice frees once, and releasing after a commit frees nothing."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    await use(harness, {BYTES: 5})
    taken = await must_hold(harness, {BYTES: 3})
    taken.release()
    taken.release()
    await must_have_room(harness, BYTES, 5)


@CASES.add
async def a_dropped_reservation_is_freed(harness: QuotaHarness) -> None:
    """One that nobody ended warns when it is collected, and what it held is free again."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        await must_hold(harness, {BYTES: 10})
        gc.collect()
    assert any(issubclass(warning.category, ResourceWarning) for warning in seen), "no ResourceWarning"
    await must_have_room(harness, BYTES, 10)


@CASES.add
async def a_hold_can_be_extended(harness: QuotaHarness) -> None:
    """More can be held on the way, all or nothing; a refusal leaves the reservation as it was; ended, it is misuse."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10), standing(KEYS, 1)))
    taken = await must_hold(harness, {BYTES: 3})
    assert taken.try_extend({BYTES: 2, KEYS: 1}) is None
    assert dict(taken.held) == {BYTES: 5, KEYS: 1}
    refusal = taken.try_extend({BYTES: 1, KEYS: 1})
    assert refusal is not None
    assert refusal.dimension == KEYS
    assert dict(taken.held) == {BYTES: 5, KEYS: 1}
    await must_have_room(harness, BYTES, 5)
    taken.commit()
    assert taken.committed == {BYTES: 5, KEYS: 1}
    try:
        taken.try_extend({BYTES: 1})
    except MisuseError:
        return
    raise AssertionError("an ended reservation was extended")


@CASES.add
async def a_repeat_while_open_is_the_same_reservation(harness: QuotaHarness) -> None:
    """The name of an operation is held once while it is open, and is free again afterwards."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    first = await harness.quota.reserve(ACME, {BYTES: 6}, op_id="upload-1")
    again = await harness.quota.reserve(ACME, {BYTES: 6}, op_id="upload-1")
    assert again is first
    assert not isinstance(first, Refusal)
    first.commit()
    later = await harness.quota.reserve(ACME, {BYTES: 4}, op_id="upload-1")
    assert not isinstance(later, Refusal)
    later.release()
    await must_have_room(harness, BYTES, 4)


# --- giving back ----------------------------------------------------------------------------------------------


@CASES.add
async def a_credit_makes_room(harness: QuotaHarness) -> None:
    """What a delete credits can be used again; the name of a credit counts once."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    await use(harness, {BYTES: 10})
    for _ in range(2):
        harness.quota.credit(ACME, {BYTES: 4}, op_id="delete-1")
    await must_have_room(harness, BYTES, 4)


@CASES.add
async def an_underflow_keeps_its_sign_and_makes_no_room(harness: QuotaHarness) -> None:
    """A credit for what was never charged lets nobody over the limit, and the next charge evens it out."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    harness.quota.credit(ACME, {BYTES: 4})
    refusal = await must_refuse(harness, {BYTES: 11})
    assert refusal.used == 0
    await use(harness, {BYTES: 4})
    await must_have_room(harness, BYTES, 10)


@CASES.add
async def a_counter_cannot_be_credited(harness: QuotaHarness) -> None:
    """What a period counted stays counted; nothing of such a credit is booked."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10), standing(OPERATIONS, 10, period=Period.MONTH)))
    await use(harness, {BYTES: 5, OPERATIONS: 5})
    try:
        harness.quota.credit(ACME, {BYTES: 1, OPERATIONS: 1})
    except MisuseError:
        await must_have_room(harness, OPERATIONS, 5)
        await must_have_room(harness, BYTES, 5)
        return
    raise AssertionError("a counter was credited")


# --- kinds ----------------------------------------------------------------------------------------------------


@CASES.add
async def a_counter_starts_anew_with_its_period(harness: QuotaHarness) -> None:
    """A full counter names the exact wait, refuses just before it is over, and admits the whole limit after it."""
    harness.set_limits(limits_for(ACME, standing(OPERATIONS, 5, period=Period.HOUR)))
    await use(harness, {OPERATIONS: 5})
    harness.clock.advance(60)
    refusal = await must_refuse(harness, {OPERATIONS: 1})
    wait = refusal.retry_after_us
    assert wait is not None
    assert refusal.resets_at_us == harness.clock.now()[1] + wait == bounds(Period.HOUR, harness.clock.now()[1])[1]
    harness.clock.advance(us=wait - 1)
    await must_refuse(harness, {OPERATIONS: 1})
    harness.clock.advance(us=1)
    await must_have_room(harness, OPERATIONS, 5)
    never = await must_refuse(harness, {OPERATIONS: 6})
    assert never.retry_after_us is None, "no wait brings more than the limit"


@CASES.add
async def a_reservation_belongs_to_its_period(harness: QuotaHarness) -> None:
    """What was reserved before midnight is booked before midnight, even if it is committed after."""
    harness.set_limits(limits_for(ACME, standing(OPERATIONS, 5, period=Period.HOUR)))
    harness.clock.advance(us=bounds(Period.HOUR, harness.clock.now()[1])[1] - harness.clock.now()[1] - 1)
    straddling = await must_hold(harness, {OPERATIONS: 5})
    harness.clock.advance(us=1)
    await must_have_room(harness, OPERATIONS, 5)
    straddling.commit()
    assert straddling.committed == {OPERATIONS: 5}
    await must_have_room(harness, OPERATIONS, 5)


@CASES.add
async def a_clock_set_back_opens_no_period_twice(harness: QuotaHarness) -> None:
    """A period that is entered again holds what it held."""
    harness.set_limits(limits_for(ACME, standing(OPERATIONS, 5, period=Period.HOUR)))
    await use(harness, {OPERATIONS: 4})
    hour_us = 3_600_000_000
    harness.clock.step_wall(us=hour_us)
    await use(harness, {OPERATIONS: 3})
    harness.clock.step_wall(us=-hour_us)
    await must_have_room(harness, OPERATIONS, 1)
    harness.clock.step_wall(us=hour_us)
    await must_have_room(harness, OPERATIONS, 2)


@CASES.add
async def an_ephemeral_gauge_ends_with_its_reservation(harness: QuotaHarness) -> None:
    """A connection that was committed has ended all the same: its place is free, and nothing is recorded."""
    harness.set_limits(limits_for(ACME, standing("connections", 2, kind=QuotaKind.EPHEMERAL), standing(BYTES, 9)))
    first = await must_hold(harness, {"connections": 1, BYTES: 1})
    await must_have_room(harness, "connections", 1)
    first.commit()
    assert first.committed == {BYTES: 1}
    await must_have_room(harness, "connections", 2)
    await must_have_room(harness, BYTES, 8)


@CASES.add
async def static_limits_are_compared_and_not_counted(harness: QuotaHarness) -> None:
    """Exactly at the limit passes, one more does not, with the reason of its kind; without a limit all pass."""
    statics = {"max_payload_bytes": 100, "max_batch": 5}
    harness.set_limits(limits_for(ACME, standing(BYTES, 1000), statics=statics))
    for _ in range(3):
        await use(harness, {"max_payload_bytes": 100, "max_batch": 5, "max_ttl_seconds": 10**9, BYTES: 1})
    payload = await must_refuse(harness, {BYTES: 1, "max_payload_bytes": 101})
    assert (payload.reason, payload.limit, payload.requested) == (Reason.PAYLOAD_TOO_LARGE, 100, 101)
    assert (await must_refuse(harness, {"max_batch": 6})).reason is Reason.BATCH_TOO_LARGE
    harness.set_limits(limits_for(ACME, standing(BYTES, 1000), statics={"max_ttl_seconds": 60}))
    assert (await must_refuse(harness, {"max_ttl_seconds": 61})).reason is Reason.STATIC_LIMIT
    await must_have_room(harness, BYTES, 997)


@CASES.add
async def each_resource_has_a_cell(harness: QuotaHarness) -> None:
    """A resource follows its own limit, else the one for any; without either it is refused, as is the plain name."""
    harness.set_limits(
        limits_for(
            ACME,
            standing("vectors", 3, resource=ANY_RESOURCE),
            standing("vectors", 5, resource="big"),
            standing(KEYS, 5),
        )
    )
    await use(harness, {("vectors", "docs"): 3})
    refusal = await must_refuse(harness, {("vectors", "docs"): 1})
    assert (refusal.dimension, refusal.resource, refusal.limit) == ("vectors", "docs", 3)
    await must_have_room(harness, ("vectors", "other"), 3)
    await must_have_room(harness, ("vectors", "big"), 5)
    await must_refuse(harness, {"vectors": 1})
    await must_refuse(harness, {(KEYS, "docs"): 1})


# --- limits that change ---------------------------------------------------------------------------------------


@CASES.add
async def a_lowered_limit_fails_no_commit(harness: QuotaHarness) -> None:
    """What is held may be committed under a lower limit; only new holds are refused, and credits still make room."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    taken = await must_hold(harness, {BYTES: 8})
    harness.set_limits(limits_for(ACME, standing(BYTES, 4)))
    await must_refuse(harness, {BYTES: 1})
    taken.commit()
    assert taken.committed == {BYTES: 8}
    refusal = await must_refuse(harness, {BYTES: 1})
    assert (refusal.limit, refusal.used) == (4, 8)
    harness.quota.credit(ACME, {BYTES: 6})
    await must_have_room(harness, BYTES, 2)


@CASES.add
async def a_raised_limit_counts_at_once(harness: QuotaHarness) -> None:
    """A busy tenant sees its new plan with the next question, and keeps what it used."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 4)))
    await use(harness, {BYTES: 4})
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    await must_have_room(harness, BYTES, 6)


@CASES.add
async def a_withdrawn_dimension_is_refused(harness: QuotaHarness) -> None:
    """A dimension that is no longer declared has a limit of zero; declared again, what was used is still used."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    taken = await must_hold(harness, {BYTES: 3})
    harness.set_limits(limits_for(ACME, standing(KEYS, 10)))
    await must_refuse(harness, {BYTES: 1})
    taken.commit()
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    await must_have_room(harness, BYTES, 7)


@CASES.add
async def the_hubs_word_is_merged(harness: QuotaHarness) -> None:
    """Used is ``used - own`` and all we ever booked, however stale, late or repeated the hub's answer is."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 100, used=30)))
    await use(harness, {BYTES: 20})
    await must_have_room(harness, BYTES, 50)
    fresh = standing(BYTES, 100, used=55, own=20)
    stale = standing(BYTES, 100, used=35, own=0)
    for answer in (stale, fresh, fresh, stale, replace(fresh)):
        harness.set_limits(limits_for(ACME, answer))
        await must_have_room(harness, BYTES, 45)
    await use(harness, {BYTES: 45})
    harness.set_limits(limits_for(ACME, replace(fresh)))
    await must_refuse(harness, {BYTES: 1})


@CASES.add
async def the_hubs_word_is_of_one_period(harness: QuotaHarness) -> None:
    """Numbers of the period that is over say nothing of the present one."""
    start = bounds(Period.HOUR, harness.clock.now()[1])[0]
    before = standing(OPERATIONS, 10, used=9, own=2, period=Period.HOUR, start_us=start)
    harness.set_limits(limits_for(ACME, before))
    await must_have_room(harness, OPERATIONS, 3)
    harness.clock.advance(3600)
    await must_have_room(harness, OPERATIONS, 10)
    harness.set_limits(limits_for(ACME, replace(before)))
    await must_have_room(harness, OPERATIONS, 10)
    after = bounds(Period.HOUR, harness.clock.now()[1])[0]
    late = standing(OPERATIONS, 10, used=4, own=0, period=Period.HOUR, start_us=after)
    harness.set_limits(limits_for(ACME, late))
    await must_have_room(harness, OPERATIONS, 6)


@CASES.add
async def noted_facts_count(harness: QuotaHarness) -> None:
    """Use that nobody reserved is booked over the limit too, by an engine that notes facts; unknown names pass by."""
    note = getattr(harness.quota, "note", None)
    if note is None:
        return
    harness.set_limits(limits_for(ACME, standing(OPERATIONS, 10, period=Period.MONTH)))
    note(ACME, {OPERATIONS: 7, "nobody_declared": 1})
    await must_have_room(harness, OPERATIONS, 3)
    note(ACME, {OPERATIONS: 7})
    assert (await must_refuse(harness, {OPERATIONS: 1})).used == 14


# --- at the same time -----------------------------------------------------------------------------------------


@CASES.add
async def tasks_never_pass_the_limit_together(harness: QuotaHarness) -> None:
    """Whatever way 200 tasks interleave, what is held and used together stays within the limit."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 50)))
    inside = committed = most = 0

    async def one(number: int) -> None:
        nonlocal inside, committed, most
        answer = await harness.quota.reserve(ACME, {BYTES: 1})
        if isinstance(answer, Refusal):
            return
        inside += 1
        most = max(most, inside + committed)
        for _ in range(number % 4):
            await asyncio.sleep(0)
        inside -= 1
        if number % 3:
            committed += 1
            answer.commit()
        else:
            answer.release()

    await asyncio.gather(*(one(number) for number in range(200)))
    assert most <= 50, f"{most} of 50 were in"
    await must_have_room(harness, BYTES, 50 - committed)


@CASES.add
async def a_cancelled_reserve_holds_nothing(harness: QuotaHarness) -> None:
    """Wherever a task is cancelled while it reserves, nothing stays held."""
    harness.set_limits(limits_for(ACME, standing(BYTES, 10)))
    for steps in range(8):
        task = asyncio.ensure_future(harness.quota.reserve(ACME, {BYTES: 10}))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        (answer,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(answer, BaseException):
            assert not isinstance(answer, Refusal), f"held after a cancellation: {answer}"
            answer.release()
        await must_have_room(harness, BYTES, 10)


@CASES.add
async def threads_never_pass_the_limit_together(harness: QuotaHarness) -> None:
    """In an engine for threads, a race of them books each fact once and never passes the limit."""
    if not harness.threadsafe:
        return
    harness.set_limits(limits_for(ACME, standing(BYTES, 3000), standing(KEYS, None)))
    spent = [0] * 4
    ready = threading.Barrier(4)

    def work(mine: int) -> None:
        ready.wait()
        for number in range(1000):
            answer = _reserve_now(harness.quota, {BYTES: 2, KEYS: 1})
            if isinstance(answer, Refusal):
                continue
            kind = number % 5
            if kind == 0:
                answer.release()
            elif kind == 1:
                answer.commit({BYTES: 1})
                spent[mine] += 1
            elif kind == 2 and answer.try_extend({BYTES: 1}) is None:
                answer.commit()
                spent[mine] += 3
            else:
                answer.commit()
                spent[mine] += 2

    with switching_often():
        await _in_threads(work, range(4))
    used = sum(spent)
    assert used <= 3000, f"{used} of 3000 were spent"
    await must_have_room(harness, BYTES, 3000 - used)


def _reserve_now(quota: QuotaManager, demand: Amounts) -> Reservation | Refusal:
    """Reserve from a thread that has no loop: a thread-safe engine that knows the limits answers at once."""
    try_reserve = getattr(quota, "try_reserve")  # noqa: B009 - an optional ability
    answer: Reservation | Refusal | None = try_reserve(ACME, demand)
    assert answer is not None, "a thread-safe engine must know limits that were asked for before"
    return answer


async def _in_threads(work: object, numbers: Iterable[int]) -> None:
    """Run *work* once a number, each in a thread of its own; raise what any of them raised."""
    assert callable(work)
    await asyncio.gather(*(asyncio.to_thread(work, number) for number in numbers))
