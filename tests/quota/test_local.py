"""What the contract cannot ask: hooks, memory, facts that come before the limits, snapshots, limits stated in code."""

from __future__ import annotations

import pytest

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal
from hivetenancy.errors import HubUnavailableError, MisuseError
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period
from hivetenancy.plans import ANY_RESOURCE, Plan, QuotaKind, QuotaLimit, quota_limit
from hivetenancy.quota import CellSnapshot
from hivetenancy.quota.fixed import FixedLimits
from hivetenancy.quota.ledger import PERIODS_KEPT, period_to_use, split
from hivetenancy.quota.local import CREDITS_KEPT, LocalQuota, LocalReservation
from hivetenancy.sources import TenantLimits
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts.quota import ACME, OTHER, limits_for, standing

from .world import Harness, SetLimits, local


def reserve(quota: LocalQuota, **demand: int) -> LocalReservation:
    """Reserve, which must be admitted."""
    answer = quota.try_reserve(ACME, demand)
    assert isinstance(answer, LocalReservation), answer
    return answer


def test_an_overrun_is_told_once() -> None:
    """A commit beyond its hold and a noted fact that pass the limit are told; what is within it is not."""
    told: list[tuple[TenantId, CellSnapshot]] = []
    view = SetLimits()
    view.set(limits_for(ACME, standing("keys", 10)))
    quota = LocalQuota(view, clock=ManualClock(), on_overrun=lambda tenant, cell: told.append((tenant, cell)))
    reserve(quota, keys=5).commit({"keys": 8})
    quota.note(ACME, {"keys": 2})
    assert told == []
    quota.note(ACME, {"keys": 3})
    reserve(quota).commit({"keys": 1})
    assert [(tenant, cell.used, cell.limit) for tenant, cell in told] == [(ACME, 13, 10), (ACME, 14, 10)]


def test_facts_before_the_limits_are_not_lost() -> None:
    """What is noted and credited while nobody can tell the limits counts as soon as they are there."""

    class Late(SetLimits):
        silent = True

        def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
            if self.silent:
                raise HubUnavailableError("no answer")
            return super().try_limits(tenant, now=now)

    view, clock = Late(), ManualClock()
    view.set(
        limits_for(
            ACME,
            standing("keys", 10, used=8),
            standing("operations", 10, period=Period.HOUR),
            standing("vectors", 9, resource=ANY_RESOURCE),
        )
    )
    quota = LocalQuota(view, clock=clock)
    quota.note(ACME, {"operations": 3})
    clock.advance(3600)
    quota.note(ACME, {"operations": 4, ("vectors", "docs"): 2})
    quota.credit(ACME, {"keys": 3})
    view.silent = False
    cells = {cell.dimension: cell.used for cell in quota.try_snapshot(ACME) or ()}
    assert cells == {"keys": 5, "operations": 4}
    answer = quota.try_reserve(ACME, {("vectors", "docs"): 8})
    assert isinstance(answer, Refusal)
    assert answer.used == 2
    view.silent = True
    quota.note(ACME, {"operations": 1})
    reserve_later = quota.try_snapshot
    view.silent = False
    assert [cell.used for cell in reserve_later(ACME) or () if cell.dimension == "operations"] == [5]


def test_a_snapshot_shows_every_cell() -> None:
    """Declared cells, resources in use and what is no longer declared but used, in order; never below zero."""
    harness = Harness(local)
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    harness.set_limits(
        limits_for(ACME, standing("vectors", 9, resource=ANY_RESOURCE), standing("keys", None), standing("queues", 2))
    )
    answer = quota.try_reserve(ACME, {("vectors", "b"): 3, ("vectors", "a"): 1})
    assert isinstance(answer, LocalReservation)
    quota.credit(ACME, {"keys": 4})
    reserve(quota, queues=1).commit()
    harness.set_limits(limits_for(ACME, standing("vectors", 9, resource=ANY_RESOURCE), standing("keys", None)))
    rows = [
        (cell.dimension, cell.resource, cell.limit, cell.used, cell.held) for cell in quota.try_snapshot(ACME) or ()
    ]
    assert rows == [
        ("keys", None, None, 0, 0),
        ("queues", None, 0, 1, 0),
        ("vectors", "a", 9, 0, 1),
        ("vectors", "b", 9, 0, 3),
    ]
    answer.commit()
    assert repr(answer) == f"<Committed of {ACME}: {{('vectors', 'b'): 3, ('vectors', 'a'): 1}}>"
    assert quota.try_snapshot(OTHER) is None


def test_a_static_limit_may_be_a_quota() -> None:
    """A quota of kind static is compared like a static limit, for a resource too, and cannot be credited."""
    harness = Harness(local)
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    harness.set_limits(limits_for(ACME, standing("depth", 4, kind=QuotaKind.STATIC, resource=ANY_RESOURCE)))
    for _ in range(2):
        answer = quota.try_reserve(ACME, {("depth", "graph"): 4})
        assert isinstance(answer, LocalReservation)
        answer.commit({("depth", "graph"): 3})
        assert answer.committed == {}
    assert isinstance(quota.try_reserve(ACME, {("depth", "graph"): 5}), Refusal)
    with pytest.raises(MisuseError):
        quota.credit(ACME, {("depth", "graph"): 1})
    assert list(quota.try_snapshot(ACME) or ()) == []


def test_a_commit_of_what_nobody_declared_is_misuse() -> None:
    """It raises, books nothing, and leaves the reservation open."""
    harness = Harness(local)
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    harness.set_limits(limits_for(ACME, standing("keys", 10), standing("queues", 1)))
    taken = reserve(quota, keys=3)
    with pytest.raises(MisuseError, match="nobody_declared"):
        taken.commit({"keys": 1, "nobody_declared": 1})
    with pytest.raises(ValueError, match="keys"):
        taken.commit({"keys": -1})
    assert dict(taken.held) == {"keys": 3}
    taken.commit({"queues": 2})
    assert taken.committed == {"keys": 3, "queues": 2}


def test_the_longest_wait_is_told() -> None:
    """Of several full counters the one that opens last says when the request passes; a full gauge says never."""
    harness = Harness(local)
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    stated = [standing("hourly", 1, period=Period.HOUR), standing("daily", 1, period=Period.DAY), standing("keys", 1)]
    harness.set_limits(limits_for(ACME, *stated))
    reserve(quota, hourly=1, daily=1, keys=1).commit()
    for demand, dimension in (
        ({"hourly": 1, "daily": 1}, "daily"),
        ({"daily": 1, "hourly": 1}, "daily"),
        ({"daily": 1, "keys": 1}, "keys"),
    ):
        refusal = quota.try_reserve(ACME, demand)
        assert isinstance(refusal, Refusal)
        assert refusal.dimension == dimension
        assert (refusal.retry_after_us is None) == (dimension == "keys")


def test_a_period_of_a_named_zone() -> None:
    """A day in New York begins when it does there."""
    clock = ManualClock()
    limit = QuotaLimit(
        dimension="operations", limit=1, kind=QuotaKind.COUNTER, period=Period.DAY, zone="America/New_York"
    )
    quota = LocalQuota(FixedLimits(Plan(name="zoned", quotas=(limit,))), clock=clock)
    reserve(quota, operations=1).commit()  # midnight in UTC is seven in the evening there
    clock.advance(5 * 3600 - 1)
    assert isinstance(quota.try_reserve(ACME, {"operations": 1}), Refusal)
    clock.advance(1)
    reserve(quota, operations=1).commit()


def test_a_clock_far_back_counts_in_the_oldest_period_kept() -> None:
    """Beyond the periods that are kept nothing is opened anew, and nothing grows without bound."""
    harness = Harness(local)
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    harness.set_limits(limits_for(ACME, standing("operations", 5, period=Period.HOUR)))
    for used in range(1, 8):
        reserve(quota, operations=min(used, 5)).commit()
        harness.clock.advance(3600)
    harness.clock.step_wall(us=-7 * 3_600_000_000)
    assert isinstance(quota.try_reserve(ACME, {"operations": 5}), Refusal)
    kept = [cell for cells in quota._cells._earlier.values() for cell in cells]
    assert len(kept) <= PERIODS_KEPT
    assert period_to_use((), 0) is None


def test_only_so_many_credits_are_remembered() -> None:
    """The names of the last credits of a tenant are kept, and no more."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("keys", 10_000, used=5000)))
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    for number in range(CREDITS_KEPT + 1):
        quota.credit(ACME, {"keys": 1}, op_id=f"op-{number}")
    quota.credit(ACME, {"keys": 1}, op_id=f"op-{CREDITS_KEPT}")
    quota.credit(ACME, {"keys": 1}, op_id="op-0")
    (cell,) = quota.try_snapshot(ACME) or ()
    assert cell.used == 5000 - CREDITS_KEPT - 2


@pytest.mark.parametrize("key", [("vectors",), ("vectors", 3), 7], ids=str)
def test_a_name_that_is_no_cell(key: object) -> None:
    """A malformed name is an error of the caller."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("vectors", 5, resource=ANY_RESOURCE)))
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    with pytest.raises(ValueError, match="quota cell"):
        quota.try_reserve(ACME, {key: 1})  # type: ignore[dict-item]
    assert split(("vectors", "docs")) == ("vectors", "docs")
    with pytest.raises(ValueError, match="max_cells"):
        LocalQuota(harness.view, max_cells=0)


def test_negative_notes_lower_a_gauge_only() -> None:
    """A gauge may be noted down; what a period counted stays counted."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("keys", 10, used=5), standing("operations", 5, period=Period.DAY)))
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    quota.note(ACME, {"keys": -2})
    with pytest.raises(ValueError, match="operations"):
        quota.note(ACME, {"keys": -1, "operations": -1})
    assert [cell.used for cell in quota.try_snapshot(ACME) or ()] == [3, 0]


@pytest.mark.anyio
async def test_limits_stated_in_code() -> None:
    """One plan serves every tenant, or each has its own; another plan counts with the next question."""
    small, large = (Plan(name=name, quotas=(quota_limit("keys", n),)) for name, n in (("small", 1), ("large", 3)))
    everybody = LocalQuota(FixedLimits(small))
    for tenant in (ACME, OTHER):
        answer = await everybody.reserve(tenant, {"keys": 1})
        assert isinstance(answer, LocalReservation)
        answer.commit()
    stated = FixedLimits({ACME: small})
    quota = LocalQuota(stated)
    assert quota.try_reserve(OTHER, {"keys": 1}) is None
    assert isinstance(await quota.reserve(OTHER, {"keys": 1}), Refusal)
    reserve(quota, keys=1).commit()
    stated.set(ACME, large)
    reserve(quota, keys=2).commit()
    assert isinstance(quota.try_reserve(ACME, {"keys": 1}), Refusal)


def test_an_extension_across_midnight_stays_in_its_period() -> None:
    """A counter that is held grows in the period it was reserved in, whatever the time is now."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("operations", 5, period=Period.HOUR)))
    quota = harness.quota
    assert isinstance(quota, LocalQuota)
    taken = reserve(quota, operations=3)
    harness.clock.advance(3600)
    reserve(quota, operations=4).commit()
    assert taken.try_extend({"operations": 2}) is None
    assert taken.try_extend({"operations": 1}) is not None
    taken.commit()
    reserve(quota, operations=1).commit()
    assert isinstance(quota.try_reserve(ACME, {"operations": 1}), Refusal)
