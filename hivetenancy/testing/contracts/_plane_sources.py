"""The cases of the kit for control planes that ask the four sources: keys, order, limits, usage."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import uuid4

from hivetenancy.access_keys.format import digest
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubUnavailableError, TenancyError
from hivetenancy.ids import KeyId
from hivetenancy.sources import (
    ChangeType,
    InactiveKey,
    InactiveReason,
    RejectCode,
    SourceConflict,
    TenantStatus,
    UsageReply,
)

from ._plane import (
    NOBODY,
    OPERATOR,
    WIRE,
    Issued,
    Subject,
    contract,
    count_of,
    cursor_now,
    dead,
    gauge,
    live,
    new_source,
    receipt,
    report_of,
    service_of,
    since,
    standing,
    state_of,
)

# How long an answer may take that is not waited for. A slow machine is no reason; a hub that waits would take the 25.
PATIENCE_S = 4.0

# --- keys ------------------------------------------------------------------------------------------------------------


@contract()
async def a_key_that_was_never_issued_is_unknown(subject: Subject) -> None:
    """Alone and in a batch, with nothing said about it."""
    forged = b"hh_test_" + uuid4().hex.encode()
    state = dead((await subject.plane.introspect(forged)).key, InactiveReason.UNKNOWN)
    assert state.key_id is None
    assert state.tenant_id is None
    batch = await subject.plane.introspect_batch([digest(forged), bytes(32)])
    assert [dead(each, InactiveReason.UNKNOWN).key_id for each in batch.keys] == [None, None]


@contract(OPERATOR)
async def a_live_key_is_described_whole(subject: Subject) -> None:
    """Its id, its owner, its permissions and its plan; what confines it not at all, as it was issued."""
    tenant = await subject.operator.add_tenant(plan="pro")
    key = await subject.operator.issue_key(tenant, permissions=["read", "delete"], functions=["kv.*"])
    record = live(await state_of(subject, key))
    assert (record.key_id, record.tenant_id, record.version) == (key.key_id, tenant, 1)
    assert {each.value for each in record.permissions} == {"read", "delete"}
    assert record.functions == ("kv.*",)
    assert (record.networks, record.resources, record.unknown_restrictions) == ((), None, ())
    assert (record.plan, record.expires_at_us, record.current_version) == ("pro", None, 1)


@contract(OPERATOR)
async def a_revoked_key_is_revoked_for_good(subject: Subject) -> None:
    """From the moment that revoking returns, by its secret and by its digest."""
    key = await subject.operator.issue_key(subject.tenant)
    live(await state_of(subject, key))
    await subject.operator.revoke_key(key.key_id)
    assert dead(await state_of(subject, key), InactiveReason.REVOKED).key_id == key.key_id
    batch = await subject.plane.introspect_batch([digest(key.credential)])
    dead(batch.keys[0], InactiveReason.REVOKED)


@contract(OPERATOR)
async def a_key_ends_when_it_says(subject: Subject) -> None:
    """To the second, without an event and without leeway."""
    key = await subject.operator.issue_key(subject.tenant, expires_in_s=60)
    answer = await subject.plane.introspect(key.credential)
    ends = live(answer.key).expires_at_us
    assert ends is not None
    assert 0 < ends - answer.now_us <= 60 * SECOND_US
    await subject.operator.advance(61)
    dead(await state_of(subject, key), InactiveReason.EXPIRED)


@contract(OPERATOR)
async def a_suspended_tenants_keys_are_suspended(subject: Subject) -> None:
    """And live again when it is resumed."""
    tenant = await subject.operator.add_tenant(plan="free")
    key = await subject.operator.issue_key(tenant)
    await subject.operator.set_status(tenant, TenantStatus.SUSPENDED)
    dead(await state_of(subject, key), InactiveReason.SUSPENDED)
    limits = (await subject.plane.limits(tenant)).limits
    assert limits is not None
    assert limits.status is TenantStatus.SUSPENDED
    await subject.operator.set_status(tenant, TenantStatus.ACTIVE)
    live(await state_of(subject, key))


@contract(OPERATOR)
async def both_secrets_count_while_a_rotation_lasts(subject: Subject) -> None:
    """One id, two versions; the old one says when it ends, and ends then."""
    old = await subject.operator.issue_key(subject.tenant)
    new = await subject.operator.rotate_key(old.key_id, overlap_s=60)
    assert new.key_id == old.key_id
    assert new.secret != old.secret
    first, second = live(await state_of(subject, old)), live(await state_of(subject, new))
    assert (first.version, second.version) == (1, 2)
    assert first.current_version == second.current_version == 2
    assert first.ends_at_us is not None
    assert second.ends_at_us is None
    await subject.operator.advance(61)
    assert isinstance(await state_of(subject, old), InactiveKey)
    live(await state_of(subject, new))


@contract(OPERATOR)
async def a_compromised_secret_ends_at_once(subject: Subject) -> None:
    """Whatever overlap was asked for; the new one counts."""
    old = await subject.operator.issue_key(subject.tenant)
    new = await subject.operator.rotate_key(old.key_id, overlap_s=60, compromised=True)
    assert isinstance(await state_of(subject, old), InactiveKey)
    live(await state_of(subject, new))
    await subject.operator.revoke_key(new.key_id)
    assert isinstance(await state_of(subject, new), InactiveKey), "revoking ends all versions"


@contract(OPERATOR)
async def a_batch_answers_in_the_order_asked(subject: Subject) -> None:
    """Live, dead and unknown keys mixed, one of them twice, each as a single question has it."""
    keys = [await subject.operator.issue_key(subject.tenant) for _ in range(3)]
    await subject.operator.revoke_key(keys[1].key_id)
    digests = [digest(key.credential) for key in (keys[2], keys[1], keys[0], keys[2])]
    batch = await subject.plane.introspect_batch([digests[0], bytes(32), *digests[1:]])
    assert [each.key_id for each in batch.keys] == [
        keys[2].key_id,
        None,
        keys[1].key_id,
        keys[0].key_id,
        keys[2].key_id,
    ]
    for key, state in zip((keys[2], keys[1], keys[0]), (batch.keys[0], batch.keys[2], batch.keys[3]), strict=True):
        assert type(await state_of(subject, key)) is type(state)
    assert len((await subject.plane.introspect_batch([])).keys) == 0


@contract(WIRE)
async def a_key_that_nobody_owns_opens_nothing(subject: Subject) -> None:
    """Call 1 of today's wire names no user; such a key belongs to no default tenant."""
    made = await subject.calls.access_keys.generate(service=service_of(subject), name="contract", permissions=["read"])
    key = Issued(key_id=KeyId(made.access_key_id), secret=made.access_key)
    state = dead(await state_of(subject, key), InactiveReason.UNOWNED)
    assert state.tenant_id is None
    await subject.calls.access_keys.revoke(made.access_key_id)


@contract(WIRE, OPERATOR)
async def a_key_of_another_service_is_unknown(subject: Subject) -> None:
    """Its state, its id and its owner are no business of this service."""
    other = next(name for name in ("nexus", "synap", "vectorizer") if name != service_of(subject))
    key = await subject.operator.issue_key(subject.tenant, service=other)
    mine = await subject.operator.issue_key(subject.tenant, service=service_of(subject))
    live(await state_of(subject, mine))
    asked = json.dumps({"access_key": key.secret}).encode()
    described = (await subject.raw("POST", b"/access-keys/introspect", asked)).json
    if described["active"]:
        assert described["service"] == other, "a service key of all services is told whose it is"
    else:
        assert described["reason"] == "unknown"


# --- order -----------------------------------------------------------------------------------------------------------


@contract(OPERATOR)
async def every_change_has_a_revision_of_its_own(subject: Subject) -> None:
    """They rise in the order of the changes, and none is above what the feed says it shows."""
    cursor = await cursor_now(subject)
    keys = [await subject.operator.issue_key(subject.tenant) for _ in range(3)]
    for key in keys:
        await subject.operator.revoke_key(key.key_id)
    batch = await since(subject, cursor)
    told = [(event.type, event.key_id) for event in batch.events]
    created = [(ChangeType.KEY_CREATED, key.key_id) for key in keys]
    assert told == [*created, *((ChangeType.KEY_REVOKED, key.key_id) for key in keys)]
    revisions = [event.revision for event in batch.events]
    assert revisions == sorted(set(revisions))
    assert revisions[-1] <= batch.revision


@contract(OPERATOR)
async def an_answer_is_as_new_as_what_was_announced(subject: Subject) -> None:
    """Whatever the feed has told, a question asked after that is answered from there or later."""
    key = await subject.operator.issue_key(subject.tenant)
    for change in range(3):
        cursor = await cursor_now(subject)
        await subject.operator.set_limit(subject.tenant, "keys", 100 + change)
        event = (await since(subject, cursor)).events[-1]
        one = await subject.plane.introspect(key.credential)
        several = await subject.plane.introspect_batch([digest(key.credential)])
        limits = await subject.plane.limits(subject.tenant)
        assert min(one.revision, several.revision, limits.revision) >= event.revision
        assert one.epoch == several.epoch == limits.epoch


@contract(OPERATOR)
async def a_revision_that_is_asked_for_is_given(subject: Subject) -> None:
    """An answer at or above it, or "cannot tell"; never one from before."""
    key = await subject.operator.issue_key(subject.tenant)
    now = await subject.plane.introspect(key.credential)
    here, ahead = now.revision, now.revision + 1_000_000
    plane, epoch = subject.plane, now.epoch
    known = [digest(key.credential)]
    assert (await plane.introspect(key.credential, min_revision=here, epoch=epoch)).revision >= here
    assert (await plane.introspect_batch(known, min_revision=here, epoch=epoch)).revision >= here
    assert (await plane.limits(subject.tenant, min_revision=here, epoch=epoch)).revision >= here
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: plane.introspect(key.credential, min_revision=ahead, epoch=epoch),
        lambda: plane.introspect_batch(known, min_revision=ahead, epoch=epoch),
        lambda: plane.limits(subject.tenant, min_revision=ahead, epoch=epoch),
        lambda: plane.limits_batch([subject.tenant], min_revision=ahead, epoch=epoch),
    )
    for call in calls:
        try:
            answer: object = await call()
        except HubUnavailableError:
            continue
        raise AssertionError(f"answered from before the revision that was asked for: {answer!r}")


@contract()
async def a_poll_without_a_cursor_answers_at_once(subject: Subject) -> None:
    """With a cursor, and the revision that everything is counted from."""
    async with asyncio.timeout(PATIENCE_S):
        batch = await subject.plane.changes(None, wait_seconds=25)
    assert batch.cursor
    assert batch.epoch >= 1
    assert not batch.events


@contract()
async def a_strange_cursor_is_reset(subject: Subject) -> None:
    """One that is unknown, old or of elsewhere is no bad request: everything is verified again."""
    for strange in ("x", "nonsense-1-2", "A" * 512, "9" * 40, "-", "_"):
        batch = await subject.plane.changes(strange, wait_seconds=0)
        assert batch.reset, f"the cursor {strange!r} was taken for one"
        assert batch.spread_seconds >= 0
        again = await subject.plane.changes(batch.cursor, wait_seconds=0)
        assert not again.reset, "the cursor of a reset is reset again"
        assert again.epoch == batch.epoch


@contract(OPERATOR)
async def a_poll_that_waits_hears_of_a_change(subject: Subject) -> None:
    """Delivery begins within a second of the change, not when the wait is over."""
    cursor = await cursor_now(subject)
    poll = asyncio.create_task(subject.plane.changes(cursor, wait_seconds=20))
    await asyncio.sleep(0.05)
    key = await subject.operator.issue_key(subject.tenant)
    async with asyncio.timeout(10):
        batch = await poll
    assert [event.key_id for event in batch.events] == [key.key_id]


@contract(OPERATOR)
async def each_change_is_told_by_its_name(subject: Subject) -> None:
    """With whom or what it is about, so that a listener drops just that."""
    tenant = await subject.operator.add_tenant(plan="free")
    cursor = await cursor_now(subject)
    key = await subject.operator.issue_key(tenant)
    new = await subject.operator.rotate_key(key.key_id, overlap_s=60)
    await subject.operator.set_limit(tenant, "keys", 5)
    await subject.operator.set_status(tenant, TenantStatus.SUSPENDED)
    await subject.operator.set_status(tenant, TenantStatus.ACTIVE)
    await subject.operator.set_plan(tenant, "pro")
    events = (await since(subject, cursor)).events
    kinds = [event.type for event in events]
    assert kinds[:5] == [
        ChangeType.KEY_CREATED,
        ChangeType.KEY_ROTATED,
        ChangeType.LIMITS_CHANGED,
        ChangeType.USER_SUSPENDED,
        ChangeType.USER_RESUMED,
    ]
    assert len(events) > 5
    assert all(event.tenant_id == tenant for event in events)
    assert events[0].digest_prefix == digest(key.credential).hex()[:16]
    assert events[1].digest_prefix == digest(new.credential).hex()[:16]


# --- limits ----------------------------------------------------------------------------------------------------------


@contract()
async def a_tenant_that_is_not_there_has_no_limits(subject: Subject) -> None:
    """Alone it is nobody, in a batch it has its place; the answer counts in the order like any other."""
    answer = await subject.plane.limits(NOBODY)
    assert answer.limits is None
    assert answer.revision >= 0
    batch = await subject.plane.limits_batch([NOBODY, subject.tenant, NOBODY])
    assert [limits is None for limits in batch.limits] == [True, False, True]
    found = batch.limits[1]
    assert found is not None
    assert found.tenant_id == subject.tenant
    assert len(batch.revisions) == 3


@contract()
async def limits_are_the_same_alone_and_in_a_batch(subject: Subject) -> None:
    """Plan, status, rates, statics and quotas."""
    alone = (await subject.plane.limits(subject.tenant)).limits
    batch = await subject.plane.limits_batch([subject.tenant])
    assert alone == batch.limits[0]
    assert alone is not None
    assert alone.status is TenantStatus.ACTIVE
    assert alone.plan


@contract(OPERATOR)
async def a_limit_that_is_changed_counts(subject: Subject) -> None:
    """By itself, and with the whole plan; both are told, and neither is kept from the next question."""
    tenant = await subject.operator.add_tenant(plan="free")
    await subject.operator.set_limit(tenant, "storage_bytes", 77)
    assert (await standing(subject, tenant, "storage_bytes")).limit.limit == 77
    before = (await subject.plane.limits(tenant)).limits
    await subject.operator.set_plan(tenant, "pro")
    after = (await subject.plane.limits(tenant)).limits
    assert before is not None
    assert after is not None
    assert (before.plan, after.plan) == ("free", "pro")
    assert before.rates != after.rates


@contract(OPERATOR)
async def our_own_share_is_told_apart(subject: Subject) -> None:
    """What the named sources reported, in the same snapshot; others' use and unknown sources are not in it."""
    tenant = await subject.operator.add_tenant(plan="pro")
    ours, theirs = new_source(), new_source()
    await receipt(subject, report_of(ours, gauge(tenant, 5), await count_of(subject, tenant, 3)))
    await receipt(subject, report_of(theirs, gauge(tenant, 100)))
    for sources, own in (([ours], 5), ([theirs], 100), ([ours, theirs], 105), ([new_source()], 0), ([], 0)):
        cell = await standing(subject, tenant, "storage_bytes", sources)
        assert (cell.used, cell.own) == (105, own), f"own of {len(sources)} sources"
    counted = await standing(subject, tenant, "operations", [ours])
    assert (counted.used, counted.own) == (3, 3)
    start, end = counted.period_start_us, counted.resets_at_us
    now = (await subject.plane.limits(tenant)).now_us
    assert start is not None
    assert end is not None
    assert start <= now < end


# --- usage -----------------------------------------------------------------------------------------------------------


@contract(OPERATOR)
async def a_report_counts_once_however_often_it_comes(subject: Subject) -> None:
    """Equal bytes give the first reply again, rejections included."""
    tenant = await subject.operator.add_tenant(plan="pro")
    report = report_of(new_source(), gauge(tenant, 7), gauge(NOBODY, 1))
    first = await receipt(subject, report)
    for _ in range(3):
        assert await receipt(subject, report) == first
    assert [(line.index, line.code, line.permanent) for line in first.rejected] == [(1, RejectCode.UNKNOWN_USER, True)]
    assert (await standing(subject, tenant, "storage_bytes")).used == 7


@contract(OPERATOR)
async def totals_replace_and_are_summed_over_sources(subject: Subject) -> None:
    """A source's value is a running total, signed and never clamped; two sources add up."""
    tenant = await subject.operator.add_tenant(plan="pro")
    one, other = new_source(), new_source()
    await receipt(subject, report_of(other, gauge(tenant, 10)))
    for sequence, value in enumerate((5, 9, -30), start=1):
        await receipt(subject, report_of(one, gauge(tenant, value), sequence=sequence, previous=sequence - 1))
        assert (await standing(subject, tenant, "storage_bytes")).used == 10 + value


@contract(OPERATOR)
async def a_conflict_changes_nothing(subject: Subject) -> None:
    """Whatever does not follow what is stored is refused whole, and told what is."""
    tenant, source = await subject.operator.add_tenant(plan="pro"), new_source()
    await receipt(subject, report_of(source, gauge(tenant, 1)))
    stored = report_of(source, gauge(tenant, 5), sequence=4, previous=1)
    await receipt(subject, stored)
    for wrong in (
        replace(stored, lines=(gauge(tenant, 99),)),
        replace(stored, writer="a copy"),
        report_of(source, gauge(tenant, 99), sequence=6, previous=5),
        report_of(source, gauge(tenant, 99), sequence=5, previous=0),
        report_of(source, gauge(tenant, 1)),
    ):
        outcome = await subject.plane.report(wrong)
        assert outcome == SourceConflict(last_sequence=4), f"expected a conflict, got {outcome!r}"
    assert (await standing(subject, tenant, "storage_bytes")).used == 5
    assert await receipt(subject, stored) == UsageReply(last_sequence=4)
    await receipt(subject, report_of(source, gauge(tenant, 6), sequence=5, previous=4))


@contract(OPERATOR)
async def a_line_that_cannot_be_counted_is_named(subject: Subject) -> None:
    """For good or for now, by its code; the other lines count."""
    tenant = await subject.operator.add_tenant(plan="pro")
    count = await count_of(subject, tenant, 5)
    start = count.period_start_us
    assert start is not None
    wrong = {
        RejectCode.UNKNOWN_USER: (gauge(NOBODY, 1), True),
        RejectCode.UNKNOWN_DIMENSION: (gauge(tenant, 1, "no-such-dimension"), True),
        RejectCode.KIND_MISMATCH: (gauge(tenant, 1, "tokens"), True),
        RejectCode.OUT_OF_RANGE: (gauge(tenant, 2**53, "keys"), True),
        RejectCode.PERIOD_NOT_OPEN: (replace(count, period_start_us=start + 3_200 * 86_400 * SECOND_US), False),
    }
    lines = [line for line, _ in wrong.values()]
    reply = await receipt(subject, report_of(new_source(), *lines, count, gauge(tenant, 3)))
    assert {(line.index, line.code, line.permanent) for line in reply.rejected if line.index < 4} == {
        (index, code, permanent) for index, (code, (_, permanent)) in enumerate(wrong.items()) if index < 4
    }
    assert 4 in {line.index for line in reply.rejected}, "a period far ahead was counted"
    assert (await standing(subject, tenant, "storage_bytes")).used == 3
    assert (await standing(subject, tenant, "operations")).used == 5


@contract(OPERATOR)
async def a_cell_stands_in_a_report_once(subject: Subject) -> None:
    """The second line of one cell is rejected for good, the first counts."""
    tenant = await subject.operator.add_tenant(plan="pro")
    reply = await receipt(subject, report_of(new_source(), gauge(tenant, 1), gauge(tenant, 2)))
    assert [(line.index, line.code) for line in reply.rejected] == [(1, RejectCode.DUPLICATE_LINE)]
    assert (await standing(subject, tenant, "storage_bytes")).used == 1


@contract(OPERATOR)
async def a_count_never_falls(subject: Subject) -> None:
    """A smaller total of a period is rejected for good, and what was counted stays."""
    tenant, source = await subject.operator.add_tenant(plan="pro"), new_source()
    count = await count_of(subject, tenant, 5)
    await receipt(subject, report_of(source, count))
    reply = await receipt(subject, report_of(source, replace(count, value=4), sequence=2, previous=1))
    assert [(line.code, line.permanent) for line in reply.rejected] == [(RejectCode.REGRESSED, True)]
    assert (await standing(subject, tenant, "operations")).used == 5


@contract(OPERATOR)
async def a_period_that_is_over_long_enough_is_closed(subject: Subject) -> None:
    """It takes no more, for good, and the new period begins at nothing."""
    tenant, source = await subject.operator.add_tenant(plan="pro"), new_source()
    count = await count_of(subject, tenant, 5)
    await receipt(subject, report_of(source, count))
    await subject.operator.advance(70 * 86_400)
    cell = await standing(subject, tenant, "operations")
    assert (cell.used, cell.period_start_us != count.period_start_us) == (0, True)
    reply = await receipt(subject, report_of(source, replace(count, value=9), sequence=2, previous=1))
    assert [(line.code, line.permanent) for line in reply.rejected] == [(RejectCode.PERIOD_CLOSED, True)]
    assert (await standing(subject, tenant, "operations")).used == 0


@contract(OPERATOR)
async def a_source_that_is_closed_stays_counted(subject: Subject) -> None:
    """Its values remain when it ends, and it takes no more."""
    tenant, source = await subject.operator.add_tenant(plan="pro"), new_source()
    await receipt(subject, replace(report_of(source, gauge(tenant, 7)), final=True))
    with contextlib.suppress(TenancyError):
        await subject.plane.report(report_of(source, gauge(tenant, 99), sequence=2, previous=1))
    assert (await standing(subject, tenant, "storage_bytes")).used == 7
