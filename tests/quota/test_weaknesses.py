"""What went wrong in the three servers that this library was drawn from; the numbers are those of the study.

Each test does what brought the fault to light there.
"""

from __future__ import annotations

import threading

import pytest

from hivetenancy.clock import Instant
from hivetenancy.decision import Refusal
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.periods import Period, bounds
from hivetenancy.plans import ANY_RESOURCE
from hivetenancy.quota.local import LocalQuota, LocalReservation
from hivetenancy.sources import TenantLimits
from hivetenancy.testing.contracts.quota import ACME, OTHER, limits_for, standing

from .world import Harness, local, local_for_threads


def admitted(answer: object) -> LocalReservation:
    """The reservation that was asked for."""
    assert isinstance(answer, LocalReservation), answer
    return answer


def quota_of(harness: Harness) -> LocalQuota:
    """The engine under test."""
    assert isinstance(harness.quota, LocalQuota)
    return harness.quota


class Silent:
    """A hub that does not answer."""

    def try_limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        raise HubUnavailableError("no answer")

    async def limits(self, tenant: TenantId, *, now: Instant) -> TenantLimits | None:
        raise HubUnavailableError("no answer")


@pytest.mark.anyio
async def test_d4_a_tenant_without_an_id_was_let_through() -> None:
    """Who cannot be placed holds nothing: an unknown or malformed tenant has a limit of zero, never none."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("keys", None)))
    for nobody in ("", "tenant_0123456789abcdef", OTHER):
        answer = await harness.quota.reserve(TenantId(nobody), {"keys": 1})
        assert isinstance(answer, Refusal)
        assert answer.limit == 0


@pytest.mark.anyio
async def test_d10_an_error_of_the_hub_became_unlimited_and_stayed_so() -> None:
    """While the hub is silent the question cannot be asked; nothing is admitted, and nothing of that is remembered."""
    harness = Harness(lambda view, clock: LocalQuota(view, clock=clock))
    quota, view = quota_of(harness), harness.view
    silent = LocalQuota(Silent(), clock=harness.clock)
    with pytest.raises(HubUnavailableError):
        silent.try_reserve(ACME, {"keys": 1})
    with pytest.raises(HubUnavailableError):
        await silent.reserve(ACME, {"keys": 1})
    view.set(limits_for(ACME, standing("keys", 1)))
    admitted(quota.try_reserve(ACME, {"keys": 1})).commit()
    assert isinstance(quota.try_reserve(ACME, {"keys": 1}), Refusal)


def test_d11_one_number_was_used_for_three_resources() -> None:
    """With limits 1, 2 and 3 each dimension refuses at its own, and says so."""
    harness = Harness(local)
    dimensions = {"storage_bytes": 1, "vectors": 2, "collections": 3}
    harness.set_limits(limits_for(ACME, *(standing(name, limit) for name, limit in dimensions.items())))
    for name, limit in dimensions.items():
        admitted(quota_of(harness).try_reserve(ACME, {name: limit})).commit()
        refusal = quota_of(harness).try_reserve(ACME, {name: 1})
        assert isinstance(refusal, Refusal)
        assert (refusal.dimension, refusal.limit, refusal.used) == (name, limit, limit)


def test_d12_all_writes_inside_a_ttl_saw_the_same_used() -> None:
    """5,000 writes of 1 kB under one unchanged answer of the hub: 1 MB is admitted, not a byte more."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("storage_bytes", 1_000_000)))
    written = 0
    for _ in range(5000):
        answer = quota_of(harness).try_reserve(ACME, {"storage_bytes": 1000})
        if isinstance(answer, LocalReservation):
            answer.commit()
            written += 1000
    assert written == 1_000_000


@pytest.mark.anyio
async def test_d12_concurrent_requests_all_passed_the_check() -> None:
    """Requests that have all been admitted before any of them wrote share the limit; so do threads."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("keys", 5)))
    answers = [await harness.quota.reserve(ACME, {"keys": 1}) for _ in range(64)]
    held = [answer for answer in answers if isinstance(answer, LocalReservation)]
    assert len(held) == 5
    for reservation in held:
        reservation.release()

    threads = Harness(local_for_threads)
    threads.set_limits(limits_for(ACME, standing("keys", 50)))
    got: list[LocalReservation] = []

    def work() -> None:
        for _ in range(100):
            answer = quota_of(threads).try_reserve(ACME, {"keys": 1})
            if isinstance(answer, LocalReservation):
                got.append(answer)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(got) == 50
    for reservation in got:
        reservation.commit()


def test_d12_used_and_required_overflowed() -> None:
    """Amounts at the ends of 32 and 64 bits are compared as what they are."""
    for edge in (2**31, 2**32, 2**53 - 1):
        harness = Harness(local)
        harness.set_limits(limits_for(ACME, standing("storage_bytes", edge)))
        admitted(quota_of(harness).try_reserve(ACME, {"storage_bytes": edge})).commit()
        for amount in (1, edge, 2**63, 2**64 - 1, 2**70):
            assert isinstance(quota_of(harness).try_reserve(ACME, {"storage_bytes": amount}), Refusal)


def test_d14_a_cache_of_quotas_grew_without_bound() -> None:
    """Names that are only asked for leave nothing, and what is idle is forgotten beyond the bound."""
    harness = Harness(lambda view, clock: LocalQuota(view, clock=clock, max_cells=50))
    quota = quota_of(harness)
    harness.set_limits(limits_for(ACME, standing("vectors", 5, resource=ANY_RESOURCE), standing("keys", 10)))
    for number in range(500):
        assert isinstance(quota.try_reserve(ACME, {("vectors", f"c{number}"): 6}), Refusal)
    assert len(quota._cells) == 0
    for number in range(500):
        admitted(quota.try_reserve(ACME, {("vectors", f"c{number}"): 5})).release()
    assert len(quota._cells) <= 100
    admitted(quota.try_reserve(ACME, {("vectors", "kept"): 5})).commit()
    for number in range(500):
        admitted(quota.try_reserve(ACME, {("vectors", f"d{number}"): 5})).release()
    assert isinstance(quota.try_reserve(ACME, {("vectors", "kept"): 1}), Refusal)


def test_d16_no_answer_of_the_hub_became_no_tenancy() -> None:
    """An engine is never without limits: what the hub does not state is refused."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME))
    assert isinstance(quota_of(harness).try_reserve(ACME, {"storage_bytes": 1}), Refusal)


def test_d35_a_tenant_over_its_limit_could_not_delete() -> None:
    """Over a lowered limit a delete is credited, and then there is room again; usage comes down exactly."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("storage_bytes", 100)))
    quota = quota_of(harness)
    admitted(quota.try_reserve(ACME, {"storage_bytes": 100})).commit()
    harness.set_limits(limits_for(ACME, standing("storage_bytes", 50)))
    admitted(quota.try_reserve(ACME, {"storage_bytes": 0})).commit()
    quota.credit(ACME, {"storage_bytes": 60})
    admitted(quota.try_reserve(ACME, {"storage_bytes": 10})).commit()
    assert isinstance(quota.try_reserve(ACME, {"storage_bytes": 1}), Refusal)


def test_d35_a_refusal_of_one_window_still_burned_another() -> None:
    """Of an hourly and a daily counter, the hourly one loses nothing while the daily one refuses."""
    harness = Harness(local)
    stated = [standing("hourly", 10, period=Period.HOUR), standing("daily", 2, period=Period.DAY)]
    harness.set_limits(limits_for(ACME, *stated))
    quota = quota_of(harness)
    admitted(quota.try_reserve(ACME, {"hourly": 2, "daily": 2})).commit()
    for _ in range(20):
        assert isinstance(quota.try_reserve(ACME, {"hourly": 1, "daily": 1}), Refusal)
    admitted(quota.try_reserve(ACME, {"hourly": 8})).commit()


def test_d35_a_tenant_registered_again_lost_its_usage() -> None:
    """Limits stated anew, equal or not, keep what was used."""
    harness = Harness(local)
    quota = quota_of(harness)
    for _ in range(5):
        harness.set_limits(limits_for(ACME, standing("keys", 3)))
        answer = quota.try_reserve(ACME, {"keys": 1})
        if isinstance(answer, LocalReservation):
            answer.commit()
    (cell,) = quota.try_snapshot(ACME) or ()
    assert (cell.used, cell.remaining) == (3, 0)


def test_d35_a_snapshot_showed_an_expired_window() -> None:
    """Once a period is over a snapshot shows the new one, although nobody used it yet."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("operations", 10, period=Period.HOUR)))
    admitted(quota_of(harness).try_reserve(ACME, {"operations": 4})).commit()
    harness.clock.advance(3600)
    (cell,) = quota_of(harness).try_snapshot(ACME) or ()
    assert cell.used == 0
    assert (cell.period_start_us, cell.resets_at_us) == bounds(Period.HOUR, harness.clock.now()[1])


def test_d41_a_monthly_counter_never_rolled_over() -> None:
    """In each of 14 months the whole limit is there again, and not before the month begins."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("operations", 3, period=Period.MONTH)))
    quota = quota_of(harness)
    for _ in range(14):
        admitted(quota.try_reserve(ACME, {"operations": 3})).commit()
        refusal = quota.try_reserve(ACME, {"operations": 1})
        assert isinstance(refusal, Refusal)
        assert refusal.retry_after_us is not None
        harness.clock.advance(us=refusal.retry_after_us - 1)
        assert isinstance(quota.try_reserve(ACME, {"operations": 1}), Refusal)
        harness.clock.advance(us=1)


def test_d41_a_busy_tenant_never_saw_its_new_limit() -> None:
    """A tenant that writes all the time has the lower limit with the next request after it is known."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("keys", 1000)))
    quota = quota_of(harness)
    for _ in range(100):
        admitted(quota.try_reserve(ACME, {"keys": 1})).commit()
    harness.set_limits(limits_for(ACME, standing("keys", 100)))
    assert isinstance(quota.try_reserve(ACME, {"keys": 1}), Refusal)


def test_d41_a_refresh_overwrote_what_was_not_reported_yet() -> None:
    """The hub's answer from before our reports takes back nothing that was booked here."""
    harness = Harness(local)
    quota = quota_of(harness)
    harness.set_limits(limits_for(ACME, standing("keys", 100, used=10)))
    admitted(quota.try_reserve(ACME, {"keys": 80})).commit()
    harness.set_limits(limits_for(ACME, standing("keys", 100, used=10)))
    assert isinstance(quota.try_reserve(ACME, {"keys": 11}), Refusal)
    harness.set_limits(limits_for(ACME, standing("keys", 100, used=90, own=80)))
    admitted(quota.try_reserve(ACME, {"keys": 10})).release()


def test_d44_a_tenant_at_no_master_was_unlimited() -> None:
    """A dimension without an authority is a limit of zero, for notes, credits and holds alike."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("keys", 5)))
    quota = quota_of(harness)
    quota.note(ACME, {"storage_bytes": 1})
    quota.credit(ACME, {"storage_bytes": 5})
    assert isinstance(quota.try_reserve(ACME, {"storage_bytes": 1}), Refusal)


def test_d44_a_negative_net_was_never_told() -> None:
    """What shrinks counts as what grows: a net below zero of ours lowers what the hub knows to be used."""
    harness = Harness(local)
    harness.set_limits(limits_for(ACME, standing("storage_bytes", 100, used=80)))
    quota = quota_of(harness)
    quota.credit(ACME, {"storage_bytes": 30})
    admitted(quota.try_reserve(ACME, {"storage_bytes": 50})).commit()
    assert isinstance(quota.try_reserve(ACME, {"storage_bytes": 1}), Refusal)
