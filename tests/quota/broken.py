"""Engines with one fault each. The contract kit has to catch every one of them.

Most differ from the naive engine in one step, so that the fault is all there is; two differ from the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from hivetenancy.clock import Instant
from hivetenancy.decision import DONE, Refusal, Ticket
from hivetenancy.ids import Amounts, CellKey, TenantId
from hivetenancy.quota import QuotaManager
from hivetenancy.quota.local import LocalQuota, _Open, _Released
from hivetenancy.testing.clock import ManualClock
from tests.broken import OneLostUpdate

from .naive import Hold, NaiveQuota, NaiveReservation, Slot
from .world import SetLimits


class LeaksOnCancel(NaiveQuota):
    """Holds first and awaits afterwards; a cancellation in between leaves the hold for ever."""

    async def reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        answer = self.try_reserve(tenant, demand, op_id=op_id)
        if isinstance(answer, NaiveReservation):
            self.forgotten = getattr(self, "forgotten", [])
            self.forgotten.append(answer)
            await asyncio.sleep(0)
            self.forgotten.remove(answer)
        return answer


class ChecksThenActs(NaiveQuota):
    """Awaits between looking and taking, so all who looked meanwhile saw the same room."""

    async def reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        answer = self.judge(tenant, demand)
        await asyncio.sleep(0)
        if isinstance(answer, Refusal):
            return answer
        hold = Hold(tenant, answer)
        self.holds.append(hold)
        return NaiveReservation(self, hold)


class TakesAsItGoes(NaiveQuota):
    """Holds the first dimensions of a demand and keeps them when a later one refuses."""

    def try_reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        answer = super().try_reserve(tenant, demand, op_id=op_id)
        if isinstance(answer, Refusal):
            for key, amount in demand.items():
                first = self.judge(tenant, {key: amount})
                if isinstance(first, Refusal):
                    break
                self.holds.append(Hold(tenant, first))
        return answer


class UnknownIsUnlimited(NaiveQuota):
    """A dimension that nobody declared has no limit."""

    def limit(self, tenant: TenantId, key: CellKey) -> int | None:
        return None if self.standing(tenant, key) is None else super().limit(tenant, key)


class UnderflowMakesRoom(NaiveQuota):
    """A gauge below zero lets in more than the limit."""

    def room(self, slot: Slot, limit: int) -> int:
        return limit - self.used(slot) - self.held(slot)


class ClampsAtZero(NaiveQuota):
    """Forgets the sign of an underflow, so the charge that follows counts in full."""

    def ours(self, slot: Slot) -> int:
        total = 0
        for booked, amount in self.booked:
            if booked == slot:
                total = max(0, total + amount)
        return total


class CopiesTheHub(NaiveQuota):
    """Takes the hub's number for the whole truth, whatever was booked since."""

    def used(self, slot: Slot) -> int:
        standing = self.standing(slot[0], slot[1])
        if standing is not None and standing.used and (slot[2] is None or standing.period_start_us == slot[2]):
            return standing.used
        return super().used(slot)


class AddsItsOwnTwice(NaiveQuota):
    """Adds its own total to a number of the hub that contains it."""

    def others(self, slot: Slot) -> int:
        standing = self.standing(slot[0], slot[1])
        return 0 if standing is None else standing.used


class LoweredLimitFailsCommits(NaiveQuota):
    """Refuses to book what it admitted, once the limit is lower."""

    def end(self, taken: NaiveReservation, actual: dict[CellKey, int]) -> None:
        for slot in taken.hold.slots:
            limit = self.limit(taken.tenant, slot[1])
            if limit is not None and self.used(slot) + self.held(slot) > limit:
                taken.release()
                return
        super().end(taken, actual)


class NeverRollsOver(NaiveQuota):
    """A monthly counter that counts for ever."""

    def slot(self, tenant: TenantId, key: CellKey) -> Slot:
        tenant, key, start = super().slot(tenant, key)
        return tenant, key, None if start is None else 0


class BooksInThePresentPeriod(NaiveQuota):
    """Books what was reserved before midnight on the new day."""

    def end(self, taken: NaiveReservation, actual: dict[CellKey, int]) -> None:
        taken.hold.slots = {self.slot(slot[0], slot[1]): amount for slot, amount in taken.hold.slots.items()}
        super().end(taken, actual)


class ReopensPeriods(NaiveQuota):
    """Forgets a period when it leaves it, so a clock that is set back opens it anew."""

    last: int | None = None

    def slot(self, tenant: TenantId, key: CellKey) -> Slot:
        slot = super().slot(tenant, key)
        if slot[2] is not None and slot[2] != self.last:
            self.last = slot[2]
            self.booked = [fact for fact in self.booked if fact[0][2] is None]
        return slot


class CommitsTwice(NaiveQuota):
    """A second commit of one reservation counts again."""

    def end(self, taken: NaiveReservation, actual: dict[CellKey, int]) -> None:
        slots = dict(taken.hold.slots)
        super().end(taken, actual)
        taken.state, taken.hold = "open", Hold(taken.tenant, slots)
        self.holds = [*self.holds]


class ReleasesTwice(NaiveQuota):
    """A second release frees what others hold."""

    def drop(self, hold: Hold) -> None:
        super().drop(hold)
        self.booked += [(slot, -amount) for slot, amount in hold.slots.items()] if not self.holds else []


class KeepsWhatWasDropped(NaiveQuota):
    """Has no finalizer: what a forgotten reservation held stays held."""

    def try_reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        answer = super().try_reserve(tenant, demand, op_id=op_id)
        self.everything = getattr(self, "everything", [])
        self.everything.append(answer)
        return answer


class ExtendsInPart(NaiveQuota):
    """Keeps the first dimensions of an extension whose later ones are refused."""

    def extend(self, taken: NaiveReservation, more: Amounts) -> Refusal | None:
        for key, amount in more.items():
            refusal = super().extend(taken, {key: amount})
            if refusal is not None:
                return refusal
        return None


class CreditsEachRepeat(NaiveQuota):
    """Forgets the names of credits."""

    def credit(
        self, tenant: TenantId, amounts: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Ticket:
        return super().credit(tenant, amounts)


class ChargesEachRepeat(NaiveQuota):
    """Forgets the names of reservations."""

    def try_reserve(
        self, tenant: TenantId, demand: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> NaiveReservation | Refusal:
        return super().try_reserve(tenant, demand)


class CreditsCounters(NaiveQuota):
    """Gives back what a period counted."""

    def credit(
        self, tenant: TenantId, amounts: Amounts, *, op_id: str | None = None, now: Instant | None = None
    ) -> Ticket:
        self.booked += [(self.slot(tenant, key), -amount) for key, amount in amounts.items()]
        return DONE


class OneCellForAllResources(NaiveQuota):
    """Counts all resources of a dimension together."""

    def slot(self, tenant: TenantId, key: CellKey) -> Slot:
        _, _, start = super().slot(tenant, key)
        return tenant, key if isinstance(key, str) else (key[0], "*"), start


class OneTenant(NaiveQuota):
    """Counts all tenants together."""

    def ours(self, slot: Slot) -> int:
        return sum(amount for booked, amount in self.booked if booked[1:] == slot[1:])


class RefusesAtTheLimit(NaiveQuota):
    """Off by one: the last unit is never admitted."""

    def room(self, slot: Slot, limit: int) -> int:
        return super().room(slot, limit) - 1


class BooksAsHeld(NaiveQuota):
    """Ignores what a commit says was really used."""

    def end(self, taken: NaiveReservation, actual: dict[CellKey, int]) -> None:
        super().end(taken, {})


class WrapsAround(NaiveQuota):
    """Counts in 32 bits, so a large amount comes out small."""

    def short(self, tenant: TenantId, key: CellKey, amount: int) -> Refusal | None:
        if type(amount) is int and amount >= 2**32 and not self.static(tenant, key):
            limit = self.limit(tenant, key)
            if limit is None:
                return Refusal(reason=super().short(tenant, "x", 1).reason)  # type: ignore[union-attr]
        return super().short(tenant, key, amount)


class CountsStatics(NaiveQuota):
    """Adds up values that are only to be compared."""

    def static(self, tenant: TenantId, key: CellKey) -> bool:
        return False


class KeepsConnections(NaiveQuota):
    """Books an ephemeral gauge for good when its reservation commits."""

    def passing(self, slot: Slot) -> bool:
        return False


class StaysOnTheOldPlan(NaiveQuota):
    """Reads a tenant's limit once."""

    def limit(self, tenant: TenantId, key: CellKey) -> int | None:
        self.first: dict[tuple[TenantId, CellKey], int | None] = getattr(self, "first", {})
        return self.first.setdefault((tenant, key), super().limit(tenant, key))


class IgnoresFacts(NaiveQuota):
    """Notes nothing that was not reserved."""

    def note(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> None:
        pass


class LocksOneSide(LocalQuota):
    """Loses a release, as an engine does that takes its lock to reserve and not to release."""

    def __init__(self, view: SetLimits, clock: ManualClock) -> None:
        super().__init__(view, clock=clock, threadsafe=True)
        self._slip = OneLostUpdate()

    def _release(self, taken: _Open) -> None:
        parts = taken._parts

        def write(free: list[int]) -> None:
            for (cell, amount), found in zip(parts, free, strict=True):
                cell.free = found + amount
            self._end(taken, _Released)

        self._slip.run(self._enter(taken._tenant), lambda: [cell.free for cell, _ in parts], write)


class HoldsAreFree(NaiveQuota):
    """Looks at what is used, and not at what is held."""

    def held(self, slot: Slot) -> int:
        return 0


class RefusesWithoutNumbers(NaiveQuota):
    """Says no, and not why."""

    def short(self, tenant: TenantId, key: CellKey, amount: int) -> Refusal | None:
        refusal = super().short(tenant, key, amount)
        return refusal and replace(refusal, used=0, held=0)


class NothingIsTooMuch(NaiveQuota):
    """Refuses even a demand of nothing where the limit is zero."""

    def short(self, tenant: TenantId, key: CellKey, amount: int) -> Refusal | None:
        return super().short(tenant, key, amount if self.limit(tenant, key) else max(1, amount))


class TakesAnyAmount(NaiveQuota):
    """Makes a whole number of whatever it is given."""

    def judge(self, tenant: TenantId, demand: Amounts) -> dict[Slot, int] | Refusal:
        return super().judge(tenant, {key: abs(int(amount)) for key, amount in demand.items()})


class ForgetsCommits(NaiveQuota):
    """Ends a reservation with its commit, and books nothing."""

    def end(self, taken: NaiveReservation, actual: dict[CellKey, int]) -> None:
        before = list(self.booked)
        super().end(taken, actual)
        self.booked = before


class RemembersLimits(NaiveQuota):
    """Goes on with the last limit of a dimension that is no longer declared."""

    def limit(self, tenant: TenantId, key: CellKey) -> int | None:
        self.known = getattr(self, "known", {})
        if self.standing(tenant, key) is not None:
            self.known[tenant, key] = super().limit(tenant, key)
        return self.known.get((tenant, key), 0)


ENGINES: Final[Mapping[str, tuple[Callable[[SetLimits, ManualClock], QuotaManager], str]]] = {
    "leaks on cancel": (LeaksOnCancel, "a_cancelled_reserve_holds_nothing"),
    "checks, then acts": (ChecksThenActs, "tasks_never_pass_the_limit_together"),
    "takes as it goes": (TakesAsItGoes, "several_dimensions_are_held_all_or_none"),
    "unknown is unlimited": (UnknownIsUnlimited, "an_undeclared_dimension_has_a_limit_of_zero"),
    "unknown tenants too": (UnknownIsUnlimited, "an_unknown_tenant_has_a_limit_of_zero"),
    "underflow makes room": (UnderflowMakesRoom, "an_underflow_keeps_its_sign_and_makes_no_room"),
    "clamps at zero": (ClampsAtZero, "an_underflow_keeps_its_sign_and_makes_no_room"),
    "copies the hub": (CopiesTheHub, "the_hubs_word_is_merged"),
    "adds its own twice": (AddsItsOwnTwice, "the_hubs_word_is_merged"),
    "mixes periods": (AddsItsOwnTwice, "the_hubs_word_is_of_one_period"),
    "a lowered limit fails commits": (LoweredLimitFailsCommits, "a_lowered_limit_fails_no_commit"),
    "never rolls over": (NeverRollsOver, "a_counter_starts_anew_with_its_period"),
    "books in the present period": (BooksInThePresentPeriod, "a_reservation_belongs_to_its_period"),
    "reopens periods": (ReopensPeriods, "a_clock_set_back_opens_no_period_twice"),
    "commits twice": (CommitsTwice, "a_commit_counts_once"),
    "releases twice": (ReleasesTwice, "a_release_frees_once"),
    "keeps what was dropped": (KeepsWhatWasDropped, "a_dropped_reservation_is_freed"),
    "extends in part": (ExtendsInPart, "a_hold_can_be_extended"),
    "credits each repeat": (CreditsEachRepeat, "a_credit_makes_room"),
    "charges each repeat": (ChargesEachRepeat, "a_repeat_while_open_is_the_same_reservation"),
    "credits counters": (CreditsCounters, "a_counter_cannot_be_credited"),
    "one cell for all resources": (OneCellForAllResources, "each_resource_has_a_cell"),
    "one tenant": (OneTenant, "tenants_are_apart"),
    "refuses at the limit": (RefusesAtTheLimit, "the_limit_can_be_reached_and_not_passed"),
    "books as held": (BooksAsHeld, "committing_less_frees_the_rest"),
    "forgets the overrun": (BooksAsHeld, "committing_more_is_a_fact"),
    "wraps around": (WrapsAround, "a_null_limit_is_no_limit"),
    "counts statics": (CountsStatics, "static_limits_are_compared_and_not_counted"),
    "keeps connections": (KeepsConnections, "an_ephemeral_gauge_ends_with_its_reservation"),
    "stays on the old plan": (StaysOnTheOldPlan, "a_raised_limit_counts_at_once"),
    "ignores facts": (IgnoresFacts, "noted_facts_count"),
    "holds are free": (HoldsAreFree, "what_is_held_counts"),
    "refuses without numbers": (RefusesWithoutNumbers, "a_refusal_carries_its_numbers"),
    "nothing is too much": (NothingIsTooMuch, "nothing_is_always_admitted"),
    "takes any amount": (TakesAnyAmount, "amounts_are_whole_and_not_negative"),
    "forgets commits": (ForgetsCommits, "a_commit_turns_held_into_used"),
    "remembers limits": (RemembersLimits, "a_withdrawn_dimension_is_refused"),
    "locks one side": (LocksOneSide, "threads_never_pass_the_limit_together"),
}
"""Each fault, and a case that catches it."""
