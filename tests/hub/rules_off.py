"""Nodes that are wrong on purpose: each is the real one with one client rule of HiveHub wire 4.2 switched off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.floors import KEY_EVENTS, TENANT_EVENTS, Floors
from hivetenancy.ids import Effect, KeyId, TenantId
from hivetenancy.limits import CachedLimits, LimitsEntry
from hivetenancy.sources import ChangeBatch, ChangeEvent, ChangeType, TenantLimits
from tests.access_keys.broken import AgeFromArrival, AgeFromUse, LaggingAccepted, NoFloorAtReset, NoTenantFloor

from .interleaving import Parts

# --- open the feed before the first fill ---


class BelievesUnopened(Floors):
    """Believes answers before anything is known of changes."""

    def accepts(self, epoch: int, revision: int, *ids: str | None) -> bool:
        return not self.opened or super().accepts(epoch, revision, *ids)


class FillsFirst(CachedAccessKeys):
    """Does not open the feed before its first look-up."""

    async def _open_feed(self) -> None:
        return


# --- floors ---


class NoKeyFloor(Floors):
    """Keeps no floor for a key."""

    def apply(self, event: ChangeEvent) -> None:
        if event.type not in KEY_EVENTS:
            super().apply(event)


class NoPlanFloor(Floors):
    """Keeps no floor for a plan."""

    def apply(self, event: ChangeEvent) -> None:
        if event.type is not ChangeType.PLAN_CHANGED:
            super().apply(event)


class NoLimitsFloor(Floors):
    """Keeps no floor for the limits of a tenant."""

    def apply(self, event: ChangeEvent) -> None:
        if event.type is not ChangeType.LIMITS_CHANGED:
            super().apply(event)


class EvictsSilently(Floors):
    """Forgets the oldest floor, and that there was one."""

    def _raise(self, floors: dict[str, int], name: str, revision: int) -> None:
        before = self.floor_all
        super()._raise(floors, name, revision)
        self.floor_all = before


# --- drop what is kept ---


class KeepsKeys(CachedAccessKeys):
    """Drops nothing when a key changes."""

    def on_event(self, event: ChangeEvent) -> None:
        if event.type not in KEY_EVENTS:
            super().on_event(event)


class KeepsTenants(CachedAccessKeys):
    """Drops nothing when a tenant changes."""

    def on_event(self, event: ChangeEvent) -> None:
        if event.type not in TENANT_EVENTS:
            super().on_event(event)


class KeepsLimits(CachedLimits):
    """Drops no limits when the plan changes."""

    def on_event(self, event: ChangeEvent) -> None:
        if event.type is not ChangeType.PLAN_CHANGED:
            super().on_event(event)


# --- the cursor ---


class CursorFirst(Feed):
    """Moves the cursor, then applies."""

    def _apply(self, batch: ChangeBatch, asked: str | None) -> bool:
        if batch.epoch >= self.floors.epoch:
            self._cursor = batch.cursor
        return super()._apply(batch, asked)


# --- epochs ---


class AnyEpoch(Floors):
    """Compares revisions, and no epochs."""

    def accepts(self, epoch: int, revision: int, *ids: str | None) -> bool:
        return self.opened and revision >= self.needed(*ids)

    def accepts_limits(self, epoch: int, revision: int, tenant: TenantId, plan: str | None) -> bool:
        return self.opened and revision >= self.needed_for_limits(tenant, plan)


class Backwards(Feed):
    """Goes wherever an answer of the feed leads, into a smaller epoch too."""

    def _apply(self, batch: ChangeBatch, asked: str | None) -> bool:
        floors = self.floors
        if floors.opened and batch.epoch < floors.epoch:
            floors.epoch = batch.epoch - 1
        return super()._apply(batch, asked)


class DeafToResets(CachedAccessKeys):
    """Goes on with what was known before a reset."""

    def on_reset(self, spread_seconds: int) -> None:
        return


class LimitsAfterReset(CachedLimits):
    """Lets limits from before a reset serve on while they are asked for."""

    def on_reset(self, spread_seconds: int) -> None:
        return


# --- answers that are too old ---


class TakesFirst(LaggingAccepted):
    """Acts on the first answer, however old."""


class TakesFirstLimits(CachedLimits):
    """Likewise for limits."""

    def _accepts(self, tenant: TenantId, limits: TenantLimits | None, epoch: int, revision: int) -> bool:
        floors = self._floors_now()
        return floors is None or floors.epoch == epoch


class AsksOnceMoreTheSame(CachedAccessKeys):
    """Asks again, and does not say from which revision."""

    def _catch_up(self, refused: Iterable[Any]) -> tuple[int, int]:
        return 0, self._floors.epoch


class AsksLimitsTheSame(CachedLimits):
    """Likewise for limits."""

    async def _ask(self, tenant: TenantId, least: int | None, epoch: int | None) -> Any:
        return await super()._ask(tenant, None, None)


class OlderWins(CachedAccessKeys):
    """Lets an older answer replace a newer one, while floors allow both."""

    def _least(self, known: bytes) -> int:
        return 0


class EndsUnlearnt(Floors):
    """Does not remember that an answer told of a key's end."""

    def learn(self, key_id: KeyId, revision: int) -> None:
        return


class OlderLimitsWin(CachedLimits):
    """Likewise for limits."""

    def _keep(self, tenant: TenantId, entry: LimitsEntry, *, tell: bool = True) -> None:
        self._entries.pop(tenant, None)
        super()._keep(tenant, entry, tell=tell)


class WaitersBelieve(CachedLimits):
    """Gives out what a look-up brought, whatever was heard of since."""

    async def limits(self, tenant: TenantId, *, now: Any) -> TenantLimits | None:
        known = self.try_limits(tenant, now=now)
        return known if known is not None else (await self._flight(tenant)).limits


# --- restarts ---


class AdoptsAnything(CachedLimits):
    """Believes what an earlier process wrote down, whatever was told since."""

    def _adopt(self, tenant: TenantId) -> LimitsEntry | None:
        entry = self._recalled(tenant) if self._recalled is not None else None
        if entry is not None:
            self._keep(tenant, entry, tell=False)
        return entry


class RowsSurvive(CachedLimits):
    """Leaves on disk what a change made doubtful before it was taken in."""

    def recall(self, known: Any, *, revision: int, tenants: Any = ()) -> None:
        super().recall(known, revision=revision)


# --- age ---


class AgeFromArrivalOff(AgeFromArrival):
    """Counts age from the arrival of the answer."""


class AdminTrustsSilence(CachedAccessKeys):
    """Lets administration go on while the feed is not heard."""

    def _judge(self, known: bytes, effect: Effect, at: int) -> Any:
        return super()._judge(known, Effect.WRITE if effect is Effect.ADMIN else effect, at)


RULES_OFF = {
    "the feed is opened before the first fill": (Parts(keys=FillsFirst, floors=BelievesUnopened), "starts"),
    "floor_all is the first reply's revision, and a reset's": (Parts(floors=NoFloorAtReset), ""),
    "a floor for each key": (Parts(floors=NoKeyFloor), ""),
    "a floor for each user": (Parts(floors=NoTenantFloor), ""),
    "a floor for limits": (Parts(floors=NoLimitsFloor), ""),
    "a floor for each plan": (Parts(floors=NoPlanFloor), "bursts"),
    "floor_all rises to a floor that is evicted": (Parts(floors=EvictsSilently, max_floors=1), "bursts"),
    "an event drops what is kept under a key": (Parts(keys=KeepsKeys), ""),
    "an event drops what is kept under a user": (Parts(keys=KeepsTenants), ""),
    "an event drops limits": (Parts(limits=KeepsLimits), "bursts"),
    "the cursor moves only afterwards": (Parts(feed=CursorFirst), "failing"),
    "a reply only if its epoch is the feed's": (Parts(floors=AnyEpoch), "epochs"),
    "a reply only from the floor up: keys": (Parts(keys=TakesFirst), ""),
    "a reply only from the floor up: limits": (Parts(limits=TakesFirstLimits), ""),
    "ask again with min_revision: keys": (Parts(keys=AsksOnceMoreTheSame), ""),
    "ask again with min_revision: limits": (Parts(limits=AsksLimitsTheSame), ""),
    "never replace an entry by an older revision: keys": (Parts(keys=OlderWins), "crossing"),
    "never replace an entry by an older revision: a key's end": (
        Parts(keys=OlderWins, floors=EndsUnlearnt),
        "crossing",
    ),
    "never replace an entry by an older revision: limits": (Parts(limits=OlderLimitsWin), "crossing"),
    "deadlines are clipped at a reset: keys": (Parts(keys=DeafToResets), "epochs"),
    "deadlines are clipped at a reset: limits": (Parts(limits=LimitsAfterReset), "epochs"),
    "never go back to a smaller epoch": (Parts(feed=Backwards), "epochs"),
    "age counts from the sending": (Parts(keys=AgeFromArrivalOff), "idle"),
    "age counts from the sending, not from use": (Parts(keys=AgeFromUse), "idle"),
    "administration needs a feed that is heard": (Parts(keys=AdminTrustsSilence), "idle"),
    "waiters look again at what was heard": (Parts(limits=WaitersBelieve), "bursts"),
    "what was written down is held to the floors": (Parts(limits=AdoptsAnything), "restarts"),
    "what is doubtful is no longer written down": (Parts(limits=RowsSurvive), "restarts"),
}
"""Each client rule, the node that goes without it, and what the schedules that look for it lean to."""
