"""Limits that cannot be read, or not in time: whose they are, and that nobody else has to wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from uuid import UUID

import pytest

from hivetenancy import limits as limits_module
from hivetenancy.errors import HubContractError, HubUnavailableError
from hivetenancy.hub.kept import KeptLimits, encode_limits, plans_of
from hivetenancy.hub.kept import KeptTenants as Rows
from hivetenancy.ids import TenantId
from hivetenancy.limits import CachedLimits, LimitsEntry
from hivetenancy.sources import ChangeEvent, ChangeType, LimitsAnswer, LimitsBatch, TenantLimits
from hivetenancy.testing import ManualClock
from tests.hub.wired import Got, Sent, Wired

pytestmark = pytest.mark.anyio

TENANTS = tuple(TenantId(str(UUID(int=number + 1))) for number in range(1_000))


class Hub:
    """A hub whose answer about some tenants is nonsense, and which takes its time for each."""

    def __init__(self, clock: ManualClock, *nonsense: TenantId) -> None:
        self.clock, self.nonsense = clock, set(nonsense)
        self.batches: list[int] = []
        self.singles = 0
        self.at_most = len(TENANTS)

    def _of(self, tenants: Sequence[TenantId]) -> tuple[TenantLimits, ...]:
        if self.nonsense.intersection(tenants):
            raise HubContractError("limits that are none")
        return tuple(TenantLimits(tenant_id=each, plan="free") for each in tenants)

    async def limits(self, tenant: TenantId, **_: object) -> LimitsAnswer:
        """Tell, or not."""
        self.singles += 1
        return LimitsAnswer(epoch=0, revision=0, now_us=0, limits=self._of([tenant])[0])

    async def limits_batch(self, tenants: Sequence[TenantId], **_: object) -> LimitsBatch:
        """Tell of several, or not, or not in time."""
        self.batches.append(len(tenants))
        if len(tenants) > self.at_most:
            raise TimeoutError
        return LimitsBatch(epoch=0, now_us=0, limits=self._of(tenants), revisions=(0,) * len(tenants))


def cache(hub: Hub) -> CachedLimits:
    """A cache in front of it."""
    return CachedLimits(hub, clock=hub.clock)


async def test_nonsense_about_one_tenant_is_not_an_outage() -> None:
    """Or whoever has broken limits would keep everybody new out, by asking again and again."""
    hub = Hub(ManualClock(), TENANTS[0])
    limits = cache(hub)
    with pytest.raises(HubUnavailableError):
        await limits.limits(TENANTS[0], now=hub.clock.now())
    assert await limits.limits(TENANTS[1], now=hub.clock.now())
    for _ in range(10):
        with pytest.raises(HubUnavailableError) as held:
            await limits.limits(TENANTS[0], now=hub.clock.now())
        assert held.value.retry_after_us
    assert hub.singles == 2, "it is asked about again after a pause, and not at once"
    assert "1 tenants" in str(limits.trouble(hub.clock.now()))
    hub.clock.advance(2)
    hub.nonsense.clear()
    assert await limits.limits(TENANTS[0], now=hub.clock.now())
    assert limits.trouble(hub.clock.now()) is None


async def test_nonsense_about_one_tenant_leaves_the_others_refreshed() -> None:
    """It is found by halves, so that a thousand are not asked about one by one."""
    hub = Hub(ManualClock(), TENANTS[437])
    limits = cache(hub)
    limits._due.update(TENANTS)
    await limits.refresh()
    assert not limits._due
    assert set(limits._entries) == set(TENANTS) - {TENANTS[437]}
    assert len(hub.batches) <= 2 * 10 + 1
    assert "1 tenants" in str(limits.trouble(hub.clock.now()))


async def test_an_outage_among_the_halves_leaves_everybody_due() -> None:
    """Nobody is forgotten because the hub went away while the one was looked for."""
    hub = Hub(ManualClock(), TENANTS[437])
    limits = cache(hub)
    limits._due.update(TENANTS)
    usual = hub.limits_batch

    async def one_only(tenants: Sequence[TenantId], **more: object) -> LimitsBatch:
        if hub.batches:
            raise HubUnavailableError("gone")
        return await usual(tenants, **more)

    hub.limits_batch = one_only  # type: ignore[method-assign]
    with pytest.raises(HubUnavailableError):
        await limits.refresh()
    assert limits._due == set(TENANTS)


async def test_a_batch_that_is_never_done_in_time_is_made_smaller() -> None:
    """Limits that are put together from several calls a tenant would never be refreshed otherwise."""
    hub = Hub(ManualClock())
    hub.at_most = 20
    limits = cache(hub)
    limits._due.update(TENANTS)
    for _ in range(4):
        with contextlib.suppress(HubUnavailableError):
            await limits.refresh()
    assert hub.batches == [1_000, 250, 62, 15]
    hub.at_most = 1_000
    while limits._due:
        await limits.refresh()
    assert len(limits._entries) == 1_000
    assert hub.batches[4:] == [30, 60, 120, 240, 480, 55], "and larger again when there is time"


async def test_a_plan_that_changes_reads_none_of_what_was_kept() -> None:
    """A hundred thousand tenants of before would stand still for seconds; the plan is known without."""
    world = Wired()
    await world.hub.open()
    known = (await world.hub.limits(world.acme)).limits
    assert known is not None
    rows = {}
    for number, tenant in enumerate(TENANTS):
        limits = TenantLimits(tenant_id=tenant, plan="pro" if number % 2 else "free", quotas=known.quotas)
        rows[tenant] = 1, encode_limits(KeptLimits(limits=limits, epoch=1, revision=1, sent_us=1))
    read, told = [], []

    def recalled(tenant: TenantId) -> LimitsEntry | None:
        read.append(tenant)
        return None

    cached = CachedLimits(world.hub, clock=world.clock, keep=lambda tenant, _entry: told.append(tenant))
    cached.recall(recalled, revision=1, tenants=plans_of(Rows(rows)))
    cached.on_event(ChangeEvent(revision=2, type=ChangeType.PLAN_CHANGED, at_us=1, plan="pro"))
    assert told == list(TENANTS[1::2])
    assert not read


def frames(error: BaseException) -> Iterator[object]:
    """The variables of all frames that an error, and whatever stands behind it, brings along."""
    behind: list[BaseException | None] = [error]
    seen: set[int] = set()
    while behind:
        each = behind.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        behind += [each.__cause__, each.__context__]
        trace: TracebackType | None = each.__traceback__
        while trace is not None:
            yield from trace.tb_frame.f_locals.values()
            trace = trace.tb_next


@pytest.mark.parametrize("several", [False, True])
async def test_a_look_up_that_takes_too_long_shows_no_service_key(
    several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time-out ends the HTTP client's own frames, where the headers stand for any tool that reports variables."""
    monkeypatch.setattr(limits_module, "_DEADLINE_SECONDS", 0.01)
    world = Wired()
    await world.hub.open()

    async def never(_sent: Sent) -> Got:
        await asyncio.Event().wait()
        raise AssertionError

    world.line.answer = never
    limits = CachedLimits(world.hub, clock=world.clock)
    limits._due.add(world.acme)
    with pytest.raises(HubUnavailableError) as late:
        await (limits.refresh() if several else limits.limits(world.acme, now=world.clock.now()))
    assert not [each for each in frames(late.value) if world.service_key.secret in repr(each)]
