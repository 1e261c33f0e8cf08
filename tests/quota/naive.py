"""A quota engine so plain that it can be seen to be right: it remembers everything and adds it up at each question.

It is the model beside which the state machines drive the real engine, it passes the contract kit itself, and the broken
engines differ from it in one step each. It shares no code with the engine.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field

from hivetenancy.clock import Instant
from hivetenancy.decision import DONE, Reason, Refusal, Ticket
from hivetenancy.errors import MisuseError
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.periods import bounds
from hivetenancy.plans import ANY_RESOURCE, QuotaKind
from hivetenancy.sources import QuotaStanding
from hivetenancy.testing.clock import ManualClock

from .world import SetLimits

Slot = tuple[TenantId, CellKey, int | None]
"""A tenant's cell, in the period that starts then; ``None`` for a gauge."""


@dataclass
class Hold:
    """What one reservation holds, by slot."""

    tenant: TenantId
    slots: dict[Slot, int] = field(default_factory=dict)


class NaiveReservation:
    """A reservation of `NaiveQuota`."""

    def __init__(self, engine: NaiveQuota, hold: Hold) -> None:
        self.engine = engine
        self.hold = hold
        self.state = "open"
        self.facts: dict[Slot, int] = {}

    @property
    def tenant(self) -> TenantId:
        return self.hold.tenant

    @property
    def held(self) -> Mapping[CellKey, int]:
        return {slot[1]: amount for slot, amount in self.hold.slots.items()} if self.state == "open" else {}

    @property
    def committed(self) -> Mapping[CellKey, int] | None:
        if self.state != "committed":
            return None
        return {slot[1]: amount for slot, amount in self.facts.items() if amount}

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Ticket:
        if self.state != "open":
            raise MisuseError("ended")
        self.engine.end(self, dict(actual or {}))
        return DONE

    def release(self) -> None:
        if self.state == "open":
            self.state = "released"
            self.engine.drop(self.hold)

    def try_extend(self, more: Amounts, *, now: Instant | None = None) -> Refusal | None:
        if self.state != "open":
            raise MisuseError("ended")
        return self.engine.extend(self, more)

    def __del__(self) -> None:
        if self.state == "open":
            self.engine.drop(self.hold)
            if self.engine.warns:
                warnings.warn("dropped open", ResourceWarning, stacklevel=2)


class NaiveQuota:
    """Adds up what was booked and what is held, each time it is asked."""

    warns = True

    def __init__(self, view: SetLimits, clock: ManualClock) -> None:
        self.view = view
        self.clock = clock
        self.booked: list[tuple[Slot, int]] = []
        self.holds: list[Hold] = []
        self.named: weakref.WeakValueDictionary[tuple[TenantId, str], NaiveReservation]
        self.named = weakref.WeakValueDictionary()
        self.credits: set[tuple[TenantId, str]] = set()
        self.word: dict[Slot, int] = {}

    # --- what the limits say ---

    def standing(self, tenant: TenantId, key: CellKey) -> QuotaStanding | None:
        limits = self.view.told.get(tenant)
        dimension, resource = (key, None) if isinstance(key, str) else key
        for wanted in (resource, ANY_RESOURCE) if resource is not None else (None,):
            for standing in limits.quotas if limits else ():
                if (standing.limit.dimension, standing.limit.resource) == (dimension, wanted):
                    return standing
        return None

    def slot(self, tenant: TenantId, key: CellKey) -> Slot:
        standing = self.standing(tenant, key)
        if standing is None or standing.limit.period is None:
            return tenant, key, None
        return tenant, key, bounds(standing.limit.period, self.clock.now()[1], standing.limit.zone)[0]

    def others(self, slot: Slot) -> int:
        """The hub's word on use that is not ours; of another period it says nothing new."""
        standing = self.standing(slot[0], slot[1])
        if standing is not None and (slot[2] is None or standing.period_start_us == slot[2]):
            resource = None if isinstance(slot[1], str) else slot[1][1]
            self.word[slot] = standing.used - standing.own if standing.limit.resource == resource else 0
        return self.word.get(slot, 0)

    def ours(self, slot: Slot) -> int:
        return sum(amount for booked, amount in self.booked if booked == slot)

    def used(self, slot: Slot) -> int:
        return self.others(slot) + self.ours(slot)

    def held(self, slot: Slot) -> int:
        return sum(hold.slots.get(slot, 0) for hold in self.holds)

    # --- the protocol ---

    def try_reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        known = self.named.get((tenant, op_id or ""))
        if op_id and known and known.state == "open":
            return known
        answer = self.judge(tenant, demand)
        if isinstance(answer, Refusal):
            return answer
        hold = Hold(tenant, answer)
        self.holds.append(hold)
        taken = NaiveReservation(self, hold)
        if op_id:
            self.named[tenant, op_id] = taken
        return taken

    async def reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        return self.try_reserve(tenant, demand, op_id=op_id)

    def judge(self, tenant: TenantId, demand: Amounts) -> dict[Slot, int] | Refusal:
        """What *demand* would hold, or the first reason why it cannot."""
        for key, amount in demand.items():
            if type(amount) is not int or amount < 0:
                raise ValueError(f"{key}: {amount}")
        slots: dict[Slot, int] = {}
        for key, amount in demand.items():
            refusal = self.short(tenant, key, amount)
            if refusal is not None:
                return refusal
            if amount and not self.static(tenant, key):
                slots[self.slot(tenant, key)] = amount
        return slots

    def static(self, tenant: TenantId, key: CellKey) -> bool:
        return isinstance(key, str) and key.startswith("max_")

    def limit(self, tenant: TenantId, key: CellKey) -> int | None:
        standing = self.standing(tenant, key)
        return 0 if standing is None else standing.limit.limit

    def room(self, slot: Slot, limit: int) -> int:
        return limit - max(0, self.used(slot)) - self.held(slot)

    def short(self, tenant: TenantId, key: CellKey, amount: int) -> Refusal | None:
        if self.static(tenant, key):
            limits = self.view.told.get(tenant)
            limit = limits.statics.get(str(key)) if limits else 0
            if limit is None or amount <= limit:
                return None
            reasons = {"max_payload_bytes": Reason.PAYLOAD_TOO_LARGE, "max_batch": Reason.BATCH_TOO_LARGE}
            reason = reasons.get(str(key), Reason.STATIC_LIMIT)
            return Refusal(reason=reason, dimension=str(key), limit=limit, requested=amount)
        slot, limit = self.slot(tenant, key), self.limit(tenant, key)
        if not amount or limit is None or amount <= self.room(slot, limit):
            return None
        ends = None
        if slot[2] is not None:
            standing = self.standing(tenant, key)
            assert standing is not None
            assert standing.limit.period is not None
            ends = bounds(standing.limit.period, slot[2], standing.limit.zone)[1]
        return Refusal(
            reason=Reason.QUOTA_EXCEEDED,
            tenant=tenant,
            dimension=key if isinstance(key, str) else key[0],
            resource=None if isinstance(key, str) else key[1],
            limit=limit,
            used=max(0, self.used(slot)),
            held=self.held(slot),
            requested=amount,
            resets_at_us=ends,
            retry_after_us=ends - self.clock.now()[1] if ends is not None and amount <= limit else None,
        )

    def extend(self, taken: NaiveReservation, more: Amounts) -> Refusal | None:
        own = {slot[1]: slot for slot in taken.hold.slots}
        added: dict[Slot, int] = {}
        for key, amount in more.items():
            slot = own.get(key) or self.slot(taken.tenant, key)
            limit = self.limit(taken.tenant, key)
            if amount and limit is not None and amount > self.room(slot, limit):
                return self.short(taken.tenant, key, amount) or Refusal(
                    reason=Reason.QUOTA_EXCEEDED, dimension=str(key)
                )
            added[slot] = amount
        for slot, amount in ((slot, amount) for slot, amount in added.items() if amount):
            taken.hold.slots[slot] = taken.hold.slots.get(slot, 0) + amount
        return None

    def end(self, taken: NaiveReservation, actual: dict[CellKey, int]) -> None:
        facts = {slot: actual.pop(slot[1], amount) for slot, amount in taken.hold.slots.items()}
        for key, amount in actual.items():
            if self.standing(taken.tenant, key) is None:
                raise MisuseError(f"{key!r} is not declared")
            facts[self.slot(taken.tenant, key)] = amount
        taken.facts = {slot: amount for slot, amount in facts.items() if not self.passing(slot)}
        taken.state = "committed"
        self.drop(taken.hold)
        self.booked += taken.facts.items()

    def passing(self, slot: Slot) -> bool:
        standing = self.standing(slot[0], slot[1])
        return standing is not None and standing.limit.kind is QuotaKind.EPHEMERAL

    def drop(self, hold: Hold) -> None:
        self.holds = [other for other in self.holds if other is not hold]

    def credit(
        self, tenant: TenantId, amounts: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Ticket:
        if any(self.slot(tenant, key)[2] is not None for key in amounts):
            raise MisuseError("a counter")
        if op_id is None or (tenant, op_id) not in self.credits:
            self.credits.add((tenant, op_id or ""))
            self.booked += [(self.slot(tenant, key), -amount) for key, amount in amounts.items()]
        return DONE

    def note(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> None:
        self.booked += [
            (self.slot(tenant, key), amount) for key, amount in amounts.items() if self.standing(tenant, key)
        ]
