"""The one order of checks: what is taken, kept and given back at each point where a request can end."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from hivetenancy.access_keys.cached import Freshness
from hivetenancy.access_keys.permissions import MCP
from hivetenancy.context import TenantContext
from hivetenancy.decision import DONE, Reason, Refusal, Ticket
from hivetenancy.errors import InvalidNameError, MissingTenantError, UnavailableError
from hivetenancy.functions import Function, FunctionRegistry, FunctionSpec
from hivetenancy.gate import Admission, Caller, Gate, both
from hivetenancy.ids import Effect, Surface
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.plans import ConcurrencyPolicy, Plan, RatePolicy, Scope, quota_limit
from hivetenancy.tenant import ReserveBlock
from tests.engines import PLAN, UNAVAILABLE, Rig, Step, Watcher, drive
from tests.tiers import examples

pytestmark = pytest.mark.anyio


# --- the order, and what each end leaves behind -----------------------------------------------------------------------


async def test_an_admitted_request_asks_in_order_and_settles_once() -> None:
    """Key, rate, quota; committed below 400, recorded once, slots freed at close; all of it only once."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.set)
    assert rig.script.log == ["validate", "recheck write", "acquire 2", "reserve operations"]
    assert (rig.units, rig.slots, rig.cells()) == (2, 1, {"operations": (0, 1)})
    for _ in range(2):
        admission.settle(succeeded=True)
    assert (rig.cells(), rig.usage.records) == ({"operations": (1, 0)}, [{"operations": 1}])
    for _ in range(2):
        admission.close()
    admission.close(refund=True)
    assert rig.script.log[4:] == ["release 2"]
    assert (rig.units, rig.slots, rig.cells()) == (2, 0, {"operations": (1, 0)})
    assert not admission.open


async def test_a_request_that_failed_is_not_charged() -> None:
    """At 400 or above the demand is released; the units are kept, since they paid for the attempt."""
    rig = await Rig().ready()
    for end in (lambda a: a.settle(succeeded=False), lambda a: None):
        admission = await rig.admit(rig.set)
        end(admission)
        admission.close()
    assert (rig.units, rig.slots, rig.cells(), rig.usage.records) == (4, 0, {}, [])


async def test_our_own_503_gives_the_units_back() -> None:
    """With `refund`, as an adapter closes when the library itself could not tell."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.set)
    admission.close(refund=True)
    assert (rig.units, rig.slots, rig.cells()) == (0, 0, {})


def _use_up_rate(rig: Rig) -> None:
    limits = rig.limits.try_limits(rig.tenant.id, now=rig.now)
    assert limits is not None
    from hivetenancy.ratelimit import Subject

    subjects = (Subject("t:" + rig.tenant.id, limits.tenant_rates),)
    for _ in range(10):
        rig.limiter.inner.try_acquire(subjects, now=rig.now)
        rig.limiter.inner.release(subjects, taken=rig.now)


def _use_up_quota(rig: Rig) -> None:
    rig.quota.note(rig.tenant.id, {"operations": 100})


def _fails(name: str, failure: BaseException) -> Callable[[Rig], None]:
    return lambda rig: rig.script.fail.__setitem__(name, failure)


def _stranger(rig: Rig) -> Function:
    return Function(FunctionSpec(name="kv.set", effect=Effect.WRITE, cost=2), 0)


FORBIDDEN: dict[str, Any] = {"permissions": ["read"]}
LISTED: dict[str, Any] = {"functions": ["kv.get"]}
ORDER = ["validate", "recheck write", "acquire 2", "reserve operations"]

# name, how the rig is built, what is prepared, the answer, how far it got, rate units taken at the end
POINTS: list[tuple[str, dict[str, Any], Callable[[Rig], object], object, list[str], int]] = [
    ("hub cannot tell about the key", {}, _fails("validate", UNAVAILABLE), UnavailableError, ORDER[:1], 0),
    ("key revoked before the guard", {}, lambda rig: None, Reason.REVOKED_KEY, ORDER[:2], 0),
    ("hub cannot tell about writes", {}, _fails("recheck", UNAVAILABLE), UnavailableError, ORDER[:2], 0),
    ("limiter cannot tell", {}, _fails("acquire", UNAVAILABLE), UnavailableError, ORDER[:3], 0),
    ("rate", {}, _use_up_rate, Reason.RATE_LIMITED, ORDER[:3], 10),
    ("permission", FORBIDDEN, lambda rig: None, Reason.MISSING_PERMISSION, [*ORDER[:3], "release 2"], 2),
    ("allow list", LISTED, lambda rig: None, Reason.FUNCTION_NOT_ALLOWED, [*ORDER[:3], "release 2"], 2),
    ("surface", {"confine": lambda _: MCP}, lambda rig: None, Reason.SURFACE_NOT_ALLOWED, [*ORDER[:3], "release 2"], 2),
    ("quota", {}, _use_up_quota, Reason.QUOTA_EXCEEDED, [*ORDER, "release 2"], 2),
    ("quota cannot tell", {}, _fails("reserve", UNAVAILABLE), UnavailableError, [*ORDER, "release 2 refund"], 0),
    ("quota breaks", {}, _fails("reserve", RuntimeError("bug")), RuntimeError, [*ORDER, "release 2"], 2),
    ("cancelled", {}, _fails("reserve", asyncio.CancelledError()), asyncio.CancelledError, [*ORDER, "release 2"], 2),
]  # fmt: skip


@pytest.mark.parametrize("point, built, prepare, expected, log, units", POINTS, ids=[row[0] for row in POINTS])
async def test_what_each_refusal_leaves_behind(
    point: str,
    built: dict[str, Any],
    prepare: Callable[[Rig], object],
    expected: object,
    log: list[str],
    units: int,
) -> None:
    """Nothing is asked after a refusal, a limit that refuses takes nothing, later refusals keep the units, our 503 does
    not; slots and holds are free whatever happened."""
    rig = await Rig(**built).ready()
    prepare(rig)
    answer = await _attempt(rig, point)
    if isinstance(expected, Reason):
        assert isinstance(answer, Refusal)
        assert answer.reason is expected
        assert len(rig.watcher.events) == 1
        assert rig.watcher.events[0].reason is expected
    else:
        assert isinstance(answer, expected)  # type: ignore[arg-type]
        assert rig.watcher.events == []
    assert rig.script.log == log
    assert (rig.units, rig.slots) == (units, 0)
    assert all(held == 0 for _, held in rig.cells().values())
    assert rig.usage.records == []


async def _attempt(rig: Rig, point: str) -> object:
    try:
        caller = await rig.caller()
        if point == "key revoked before the guard":
            rig.key.revoke()
        return await rig.gate.admit(caller, rig.set, surface=Surface.HTTP, now=rig.now)
    except (UnavailableError, RuntimeError, asyncio.CancelledError) as error:
        return error


class KeepsEverything(Gate):
    """A broken gate: what was taken stays taken."""

    def give_back(self, *_: object) -> None: ...


class RefundsEverything(Gate):
    """Another: every refusal gives the units back, so that floods of 403 cost nothing."""

    def give_back(self, subjects: Any, cost: int, taken: Any, refund: bool) -> None:
        super().give_back(subjects, cost, taken, True)


class NeverRefunds(Gate):
    """Another: our own failures are paid by the tenant."""

    def give_back(self, subjects: Any, cost: int, taken: Any, refund: bool) -> None:
        super().give_back(subjects, cost, taken, False)


@pytest.mark.parametrize(
    "broken, point",
    [(KeepsEverything, "permission"), (RefundsEverything, "quota"), (NeverRefunds, "quota cannot tell")],
)
async def test_the_table_catches_broken_gates(broken: type[Gate], point: str) -> None:
    """Each fails in a row of the table."""
    (row,) = [row for row in POINTS if row[0] == point]
    with pytest.raises(AssertionError):
        await test_what_each_refusal_leaves_behind(point, {**row[1], "gate": broken}, *row[2:])


@pytest.mark.parametrize("reason", [Reason.NO_CREDENTIAL, Reason.MALFORMED_CREDENTIAL, Reason.AMBIGUOUS_CREDENTIAL])
async def test_a_request_without_a_usable_key_touches_no_engine(reason: Reason) -> None:
    """What the carrier's check found is refused as it is, and seen by those who watch."""
    rig = await Rig().ready()
    answer = await rig.gate.authenticate(reason, now=rig.now)
    assert isinstance(answer, Refusal)
    assert (answer.reason, rig.script.log) == (reason, [])
    assert [event.reason for event in rig.watcher.events] == [reason]


async def test_an_unknown_key_is_refused_for_nobody() -> None:
    """No tenant is named, because none was shown to be concerned."""
    rig = await Rig().ready()
    answer = await rig.gate.authenticate(b"hh_test_" + b"x" * 40, now=rig.now)
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.tenant) == (Reason.UNKNOWN_KEY, None)


async def test_tenant_ids_that_do_not_fit_the_namespaces_are_no_fault_of_the_request() -> None:
    """A hub whose ids the id scheme refuses is "cannot tell", and not a bad name in the request."""

    class Strict(PrefixNamespaces):
        def for_tenant(self, context: TenantContext) -> TenantNames:
            raise InvalidNameError("no such id")

    rig = Rig()
    await rig.feed.open()
    rig.gate._names = Strict()
    with pytest.raises(UnavailableError, match="id scheme") as caught:
        await rig.gate.authenticate(rig.key.secret.encode(), now=rig.gate.now())
    assert not caught.value.transient


async def test_a_tenant_that_is_suspended_since_is_refused() -> None:
    """The limits are the authority's later word, even while the key's answer is kept."""
    rig = await Rig().ready()
    caller = await rig.caller()
    rig.tenant.suspend()
    answer = await rig.gate.admit(caller, rig.get, surface=Surface.HTTP, now=rig.now)
    assert isinstance(answer, Refusal)
    assert (answer.reason, rig.script.log[-1]) == (Reason.SUSPENDED_TENANT, "validate")
    rig.tenant.delete()
    gone = await rig.gate.admit(caller, rig.get, surface=Surface.HTTP, now=rig.now)
    assert isinstance(gone, Refusal)
    assert gone.reason is Reason.SUSPENDED_TENANT


async def test_an_attempt_at_nothing_costs_one_unit() -> None:
    """A router's own 404 is paid for, and refused when the rate is used up; no quota is asked."""
    rig = await Rig().ready()
    for _ in range(10):
        attempt = await rig.gate.admit_attempt(await rig.caller(), now=rig.now)
        assert isinstance(attempt, Admission)
        attempt.close()
    refused = await rig.gate.admit_attempt(await rig.caller(), now=rig.now)
    assert isinstance(refused, Refusal)
    assert (refused.reason, rig.units, rig.slots) == (Reason.RATE_LIMITED, 10, 0)
    assert not [line for line in rig.script.log if line.startswith("reserve")]


async def test_a_public_route_takes_nothing_and_has_no_tenant() -> None:
    """Code that asks for a tenant there is told what to do."""
    rig = await Rig().ready()
    admission = rig.gate.admit_public(now=rig.now)
    with pytest.raises(MissingTenantError, match="public"):
        _ = admission.tenant
    with pytest.raises(MissingTenantError):
        _ = admission.context
    admission.settle(succeeded=True)
    admission.close()
    assert (rig.script.log, admission.states()) == ([], ())


async def test_the_cost_of_a_call_may_be_its_own() -> None:
    """What was taken is what is given back."""
    rig = await Rig().ready()
    admission = await rig.gate.admit(await rig.caller(), rig.set, surface=Surface.HTTP, now=rig.now, cost=5)
    assert (rig.units, [state.name for state in admission.states()]) == (5, ["minute", "slots"])
    admission.close(refund=True)
    assert (rig.units, rig.slots) == (0, 0)


async def test_a_key_may_have_limits_of_its_own() -> None:
    """Two keys of one tenant share the tenant's units and not the key's."""
    plan = Plan(name="keyed", rates=(*PLAN.rates, RatePolicy(limit=1, period_us=10**6, name="each", scope=Scope.KEY)))
    rig = await Rig(plan=plan).ready()
    other = rig.tenant.issue_key(permissions=["read"])
    (await rig.admit(rig.get)).close()
    refused = await rig.admit(rig.get)
    assert (refused.reason, refused.policy) == (Reason.RATE_LIMITED, "each")
    second = await rig.gate.authenticate(other.secret.encode(), now=rig.now)
    assert isinstance(second, Caller)
    admission = await rig.gate.admit(second, rig.get, surface=Surface.HTTP, now=rig.now)
    assert isinstance(admission, Admission)
    admission.close()
    assert rig.units == 2


@pytest.mark.parametrize("refund", [False, True])
async def test_a_plan_without_slots_has_nothing_to_release(refund: bool) -> None:
    """The limiter is asked to give back at the end only where units come back, or where a slot is held."""
    plan = Plan(name="rated", rates=(PLAN.rates[0],), quotas=PLAN.quotas)
    rig = await Rig(plan=plan).ready()
    (await rig.admit(rig.set)).close(refund=refund)
    assert rig.script.log[4:] == (["release 2 refund"] if refund else [])
    assert (rig.units, rig.cells()) == (0 if refund else 2, {})


async def test_a_slot_is_freed_though_the_limits_changed_while_it_was_waited_for() -> None:
    """A caller that comes under a plan without slots, between what it took and its admission, keeps none."""
    rig = await Rig().ready()
    await _admit_while_slots_go_away(rig)
    assert rig.slots == 0


async def test_an_admission_that_asks_its_caller_for_slots_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the caller's present limits for those it took from keeps the slot."""

    class AsksItsCaller(Admission):
        __slots__ = ()

        def __init__(self, gate: Gate, caller: Any, *rest: Any) -> None:
            super().__init__(gate, caller, *rest)
            self._slotted = caller.slotted

    monkeypatch.setattr("hivetenancy.gate.Admission", AsksItsCaller)
    rig = await Rig().ready()
    await _admit_while_slots_go_away(rig)
    assert rig.slots == 1


async def _admit_while_slots_go_away(rig: Rig) -> None:
    """Admit and close one request while the tenant has no slots for a moment, and then has them again."""
    caller, slotted = await rig.caller(), PLAN.rates
    rig.script.slow = {"reserve"}
    pending = rig.gate.admit(caller, rig.set, surface=Surface.HTTP, now=rig.now)
    pending.send(None)
    assert rig.slots == 1
    rig.tenant.set_rates(slotted[0])
    await rig.gate.limits_of(caller, now=rig.now)
    assert not caller.slotted
    admission = drive(pending)
    assert isinstance(admission, Admission)
    admission.close()
    rig.tenant.set_rates(*slotted)
    await rig.gate.limits_of(caller, now=rig.now)


async def test_changed_limits_count_from_the_next_request() -> None:
    """The subjects of a caller are built anew when, and only when, the limits are other ones."""
    rig = await Rig().ready()
    caller = await rig.caller()
    (await rig.admit(rig.get)).close()
    before = caller.subjects
    (await rig.admit(rig.get)).close()
    assert caller.subjects is before
    rig.tenant.set_rates(RatePolicy(limit=9, period_us=10**6, name="minute"), ConcurrencyPolicy(limit=5))
    (await rig.admit(rig.get)).close()
    assert caller.subjects is not before


# --- permissions ------------------------------------------------------------------------------------------------------


async def test_a_function_registered_later_is_known_to_keys_accepted_before() -> None:
    """A registry that grew after the principal was compiled: allowed is allowed, forbidden is forbidden."""
    rig = await Rig(permissions=["read"]).ready()
    await rig.caller()
    peek = rig.functions.declare("kv.peek", effect="read")
    wipe = rig.functions.declare("kv.wipe", effect="delete")
    admission = await rig.admit(peek)
    assert isinstance(admission, Admission)
    admission.close()
    assert (await rig.admit(wipe)).reason is Reason.MISSING_PERMISSION


async def test_a_list_outside_the_grammar_allows_nothing_however_the_registry_grows() -> None:
    """Such a key of the hub is a 403, never an error of ours."""
    rig = await Rig(functions=["KV.*"]).ready()
    assert (await rig.admit(rig.get)).reason is Reason.FUNCTION_NOT_ALLOWED
    added = rig.functions.declare("kv.peek", effect="read")
    assert (await rig.admit(added)).reason is Reason.FUNCTION_NOT_ALLOWED
    assert rig.slots == 0


class TrustsBits(Gate):
    """A broken gate: asks the mask alone, in which a stranger's bit is somebody else's."""

    def _forbids(self, principal: Any, function: Function, surface: Surface) -> Refusal | None:
        return None if principal.mask >> function.bit & 1 else Refusal(reason=Reason.MISSING_PERMISSION)


async def test_a_function_of_another_registry_is_nobodys() -> None:
    """Its bit means another function here, one that the key may well call."""
    elsewhere = FunctionRegistry().declare("admin.wipe", effect="read")
    rig = await Rig(permissions=["read"]).ready()
    assert (await rig.admit(elsewhere)).reason is Reason.UNDECLARED_FUNCTION
    broken = await Rig(permissions=["read"], gate=TrustsBits).ready()
    admission = await broken.admit(elsewhere)
    assert isinstance(admission, Admission)
    admission.close()


# --- cancellation -----------------------------------------------------------------------------------------------------

_WIDE = Plan(
    name="wide",
    rates=(RatePolicy(limit=10**9, period_us=1, name="minute"), ConcurrencyPolicy(limit=100, name="slots")),
    quotas=(quota_limit("keys", 10**9), quota_limit("storage_bytes", 10**12), quota_limit("operations", 10**9)),
)
_ENGINES = ("validate", "recheck", "acquire", "reserve")


class SlowTicket:
    """A ticket that is done after one step."""

    def __init__(self) -> None:
        self.done = False

    def wait(self, timeout: float | None = None) -> bool:
        """Say whether it is done."""
        return self.done

    def __await__(self) -> Any:
        yield from Step().__await__()
        self.done = True


async def _request(rig: Rig, draw: random.Random) -> str:
    """Serve one request as an adapter does, suspending wherever it can."""
    answer = await rig.admit(draw.choice([rig.get, rig.set, rig.drop]))
    if isinstance(answer, Refusal):
        return "refused"
    admission: Admission = answer
    try:
        tenant = admission.tenant
        async with tenant.reserve(keys=draw.randrange(3)) as block:
            await Step()
            if draw.random() < 0.5:
                block.commit()
                await Step()
            if draw.random() < 0.1:
                raise KeyError("a bug of the host")
        async with tenant.charge(f"item{draw.randrange(3)}", storage_bytes=draw.randrange(100)) as charge:
            await Step()
            if draw.random() < 0.3:
                charge.commit()
                await Step()
        admission.await_later(SlowTicket())
        admission.settle(succeeded=draw.random() < 0.8)
        await admission.until_durable()
        return "done"
    finally:
        admission.close()


async def _cancel_at_random(rig: Rig, rounds: int, seed: int) -> None:
    """Cancel requests at random steps; after each, nothing is held and use is what was recorded."""
    draw = random.Random(seed)
    ended: set[str] = set()
    for _ in range(rounds):
        rig.script.slow = set(draw.sample(_ENGINES, draw.randrange(len(_ENGINES) + 1)))
        end = drive(_request(rig, draw), cancel_at=draw.choice([None, *range(18)]))
        ended.add(end if isinstance(end, str) else type(end).__name__)
        rig.script.log.clear()
        assert rig.slots == 0
        assert all(held == 0 for _, held in rig.cells().values()), rig.cells()
        assert {cell: used for cell, (used, _) in rig.cells().items()} == rig.recorded()
        rig.usage.records[:] = [rig.recorded()]  # the sum is all that counts, and stays short
    assert ended == {"done", "CancelledError", "KeyError"}


async def test_a_cancellation_anywhere_leaves_nothing_held() -> None:
    """At every await of the gate, the blocks and the engines: slots and holds come free, and what was committed is
    recorded exactly once."""
    rig = await Rig(plan=_WIDE, watched=False).ready()
    await _cancel_at_random(rig, examples(500, 20_000), random.randrange(2**32))


async def test_the_walk_catches_gates_that_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that keeps slots, a block that keeps its hold, and a gate that records twice."""
    leaky = await Rig(plan=_WIDE, watched=False, gate=KeepsEverything).ready()
    with pytest.raises(AssertionError):
        await _cancel_at_random(leaky, 200, 1)

    class RecordsTwice(Gate):
        def settle(self, reservation: Any, *rest: Any) -> Ticket:
            ticket = super().settle(reservation, *rest)
            self._usage.record(reservation.tenant, reservation.committed)
            return ticket

    twice = await Rig(plan=_WIDE, watched=False, gate=RecordsTwice).ready()
    with pytest.raises(AssertionError):
        await _cancel_at_random(twice, 200, 1)

    original = ReserveBlock._end
    monkeypatch.setattr(ReserveBlock, "_end", lambda self, clean: original(self, clean) if clean else None)
    forgetful = await Rig(plan=_WIDE, watched=False).ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        held: list[object] = []
        monkeypatch.setattr(ReserveBlock, "__aenter__", _keeping(ReserveBlock.__aenter__, held))
        with pytest.raises(AssertionError):
            await _cancel_at_random(forgetful, 200, 1)
        held.clear()
        gc.collect()


def _keeping(enter: Any, kept: list[object]) -> Any:
    """Enter, and keep the reservation alive, so that no finalizer mends what the block forgot."""

    async def entered(self: ReserveBlock) -> ReserveBlock:
        block: ReserveBlock = await enter(self)
        kept.append(block._reservation)
        return block

    return entered


async def test_every_single_step_of_an_admission_can_be_the_last() -> None:
    """Exhaustively, with every engine slow: cancelled at step n, for each n until it is through."""
    for n in range(30):
        rig = await Rig(plan=_WIDE).ready()
        rig.script.slow = set(_ENGINES)
        answer = drive(rig.admit(rig.set), cancel_at=n)
        if isinstance(answer, Admission):
            answer.close()
            assert n > 4
            break
        assert isinstance(answer, asyncio.CancelledError)
        assert (rig.slots, {cell: held for cell, (_, held) in rig.cells().items() if held}) == (0, {})
    else:
        raise AssertionError("it never came through")


# --- dropped and durable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["always", "error"])
async def test_an_admission_dropped_unclosed_warns_and_closes(action: Any) -> None:
    """Slots and holds are not lost with it, not even where the warning is made an error."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.set)
    assert rig.slots == 1
    seen: list[object] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action, ResourceWarning)
        import sys

        hook, sys.unraisablehook = sys.unraisablehook, lambda raised: seen.append(raised.exc_type)
        try:
            del admission
            gc.collect()
        finally:
            sys.unraisablehook = hook
    assert seen == [ResourceWarning] or ["never closed" in str(each.message) for each in caught] == [True]
    assert (rig.slots, rig.cells(), rig.units) == (0, {}, 2)


async def test_the_answer_waits_for_every_ticket() -> None:
    """Those of the demand, and those that come while it waits."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.get)
    assert admission.durable
    admission.await_later(DONE)
    assert admission.durable
    tickets = [SlowTicket() for _ in range(3)]
    admission.await_later(tickets[0])
    admission.await_later(tickets[1])
    assert not admission.durable
    waiting = admission.until_durable()
    waiting.send(None)
    admission.await_later(tickets[2])
    with pytest.raises(StopIteration):
        for _ in range(10):
            waiting.send(None)
    assert all(ticket.done for ticket in tickets)
    assert admission.durable
    admission.close()


async def test_two_tickets_are_done_when_both_are() -> None:
    """And cost nothing where they are done already."""
    assert both(DONE, DONE) is DONE
    slow = SlowTicket()
    assert both(slow, DONE) is slow
    assert both(DONE, slow) is slow
    other = SlowTicket()
    pair = both(slow, other)
    assert (pair.done, pair.wait(0)) == (False, False)
    await pair
    assert (pair.done, pair.wait(), pair.wait(1)) == (True, True, True)


# --- those who watch --------------------------------------------------------------------------------------------------


async def test_hooks_see_each_decision_and_the_audit_each_refusal() -> None:
    """An admission is one decision and no event; a refusal is one of each, with who, what and when."""
    rig = await Rig().ready()
    (await rig.admit(rig.set)).close()
    assert rig.watcher.events == []
    (seen,) = rig.watcher.decisions
    assert (seen.allowed, seen.refusal, seen.function, seen.effect, seen.cost, seen.at, seen.stale) == (
        True,
        None,
        "kv.set",
        Effect.WRITE,
        2,
        rig.now,
        False,
    )
    assert (seen.tenant, seen.key_id) == (rig.tenant.id, rig.key.key_id)
    _use_up_quota(rig)
    refusal = await rig.admit(rig.set)
    _, decision = rig.watcher.decisions
    assert (decision.allowed, decision.refusal) == (False, refusal)
    (event,) = rig.watcher.events
    assert (event.what, event.reason, event.tenant, event.key_id, event.function, event.at_us) == (
        "refused",
        Reason.QUOTA_EXCEEDED,
        rig.tenant.id,
        rig.key.key_id,
        "kv.set",
        rig.now[1],
    )
    assert rig.key.secret not in repr((decision, event, refusal))


async def test_what_an_adapter_refuses_is_seen_too() -> None:
    """A bad path, before anybody is known."""
    rig = await Rig().ready()
    refusal = rig.gate.refuse(Reason.INVALID_PATH, caller=None, function=None, now=rig.now)
    assert (refusal.reason, len(rig.watcher.events), len(rig.watcher.decisions)) == (Reason.INVALID_PATH, 1, 1)


async def test_the_refusal_of_a_block_is_seen_once() -> None:
    """In a handler as well as before it."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.get)
    rig.clear()
    with pytest.raises(Exception, match="quota exceeded"):
        async with admission.tenant.reserve(keys=4):
            pass
    admission.close()
    (event,) = rig.watcher.events
    assert (event.reason, event.tenant, event.key_id) == (Reason.QUOTA_EXCEEDED, rig.tenant.id, rig.key.key_id)
    assert len(rig.watcher.decisions) == 1


async def test_an_acceptance_on_stale_knowledge_is_audited() -> None:
    """Serving through an outage is visible, each time."""
    rig = await Rig(freshness=Freshness()).ready()
    with rig.hub.outage():
        rig.clock.advance(31)
        for _ in range(2):
            try:
                await rig.gate.authenticate(rig.key.secret.encode(), now=rig.now)
            except UnavailableError:
                rig.clock.advance(2)
        (await rig.admit(rig.get)).close()
    assert [(event.what, event.reason) for event in rig.watcher.events] == [("accepted_stale", None)]
    assert rig.watcher.decisions[-1].stale


async def test_a_failing_watcher_changes_no_answer_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of failure has one traceback in the log, however many requests there are."""
    caplog.set_level(logging.INFO, "hivetenancy")
    rig = await Rig(watcher=Watcher(RuntimeError("metrics are down"))).ready()
    caplog.clear()
    rig.gate._complained.clear()
    for _ in range(3):
        admission = await rig.admit(rig.get)
        assert isinstance(admission, Admission)
        admission.close()
    _use_up_quota(rig)
    for _ in range(3):
        assert (await rig.admit(rig.set)).reason is Reason.QUOTA_EXCEEDED
    assert [record.getMessage().split(" failed")[0] for record in caplog.records] == ["decision hook", "audit sink"]
    assert rig.slots == 0


class Stops(Watcher):
    """A hook that ends the process, as a debugger's Ctrl-C does."""

    def decided(self, decision: object) -> None:
        raise KeyboardInterrupt


async def test_an_interrupt_in_a_hook_leaves_nothing_held() -> None:
    """It is no answer, and what was taken before it comes free."""
    rig = await Rig().ready()
    rig.gate._hooks = (Stops(),)
    with pytest.raises(KeyboardInterrupt):
        await rig.admit(rig.set)
    assert (rig.slots, rig.cells()) == (0, {})


# --- connections, items, usage ----------------------------------------------------------------------------------------


async def test_connections_are_held_while_the_plan_counts_them() -> None:
    """Two fit, the third is refused and seen; a plan that does not count them holds nothing."""
    rig = await Rig().ready()
    caller = await rig.caller()
    held = [await rig.gate.hold_connection(caller, now=rig.now) for _ in range(2)]
    refused = await rig.gate.hold_connection(caller, now=rig.now)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.dimension, refused.key_id) == (
        Reason.QUOTA_EXCEEDED,
        "connections",
        rig.key.key_id,
    )
    assert len(rig.watcher.events) == 1
    for each in held:
        assert each is not None
        assert not isinstance(each, Refusal)
        each.release()
    assert rig.cells() == {}
    uncounted = await Rig(plan=Plan(name="none", rates=PLAN.rates)).ready()
    assert await uncounted.gate.hold_connection(await uncounted.caller(), now=uncounted.now) is None


async def test_items_are_charged_the_difference_and_credits_are_negative() -> None:
    """Written, overwritten smaller, deleted: the records sum to the engine's use at every point."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.get)
    for size, record in ((100, 100), (40, -60), (70, 30), (0, -70)):
        rig.usage.records.clear()
        async with admission.tenant.charge("doc", storage_bytes=size):
            pass
        assert rig.usage.records == [{"storage_bytes": record}]
        assert rig.cells().get("storage_bytes", (0, 0)) == (size, 0)
    admission.close()


async def test_recorded_use_is_seen_by_the_quota_engine() -> None:
    """`record` counts without a limit, over it too, and limits what comes after."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.get)
    assert admission.tenant.record(operations=150).done
    assert (rig.usage.records, rig.cells()["operations"]) == ([{"operations": 150}], (150, 0))
    assert (await rig.admit(rig.set)).reason is Reason.QUOTA_EXCEEDED
    admission.close()


async def test_callers_are_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One principal, one caller; a newer answer about the key makes a new one in its place."""
    rig = await Rig().ready()
    monkeypatch.setattr("hivetenancy.gate._CALLERS_MAX", 3)
    first = await rig.caller()
    assert await rig.caller() is first
    rig.key.change(permissions=["read"])
    assert await rig.caller() is not first
    for _ in range(6):
        key = rig.tenant.issue_key(permissions=["read"])
        await rig.gate.authenticate(key.secret.encode(), now=rig.now)
    assert len(rig.gate._callers) == 3


async def test_d38_nothing_was_connected() -> None:
    """Upstream's limiter only logged, its quota checks and its usage had no callers: here each refuses or counts."""
    rig = await Rig().ready()
    assert isinstance(await rig.gate.authenticate(b"hh_test_" + b"x" * 40, now=rig.now), Refusal)
    admission = await rig.admit(rig.set)
    admission.settle(succeeded=True)
    admission.close()
    assert rig.usage.total(rig.tenant.id, "operations", _month(rig)) == 1
    _use_up_quota(rig)
    assert (await rig.admit(rig.set)).reason is Reason.QUOTA_EXCEEDED
    _use_up_rate(rig)
    assert (await rig.admit(rig.get)).reason is Reason.RATE_LIMITED


async def test_d12_check_then_act_never_adjusted() -> None:
    """Concurrent requests do not all pass on one number: of ten that ask before any commits, three fit in three."""
    rig = await Rig().ready()
    admissions = [await rig.admit(rig.get) for _ in range(5)]
    blocks, refused = [], 0
    for admission in [*admissions, *admissions]:
        block = admission.tenant.reserve(keys=1)
        try:
            blocks.append(await block.__aenter__())
        except Exception:
            refused += 1
    assert (len(blocks), refused, rig.cells()["keys"]) == (3, 7, (0, 3))
    for block in blocks:
        await block.__aexit__(None, None, None)
    for admission in admissions:
        admission.close()
    assert rig.cells()["keys"] == (3, 0)


async def test_d43_secrets_as_cache_keys_and_in_representations() -> None:
    """The presented key is in no cache of the gate and in nobody's repr."""
    rig = await Rig().ready()
    admission = await rig.admit(rig.get)
    secret = rig.key.secret
    assert secret.encode() not in rig.gate._callers
    shown = repr((admission, admission.caller, admission.tenant, admission.context, rig.gate._callers))
    shown += repr((admission.caller.principal, rig.watcher.decisions, rig.keys, rig.limits))
    assert secret not in shown
    assert secret.removeprefix("hh_test_") not in shown
    admission.close()


def _month(rig: Rig) -> int:
    from hivetenancy.periods import Period, bounds

    return bounds(Period.MONTH, rig.now[1])[0]
