"""A whole gate over a `FakeHiveHub` with a clock that stands still, and engines that record, fail or really suspend."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

from hivetenancy.access_keys import Principal
from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.clock import MINUTE_US, Instant
from hivetenancy.decision import Decision, Refusal
from hivetenancy.errors import UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.gate import Caller, Gate
from hivetenancy.hooks import AuditEvent
from hivetenancy.ids import Amounts, Effect, Surface, TenantId
from hivetenancy.limits import CachedLimits
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.plans import ConcurrencyPolicy, Plan, RatePolicy, quota_limit
from hivetenancy.quota.items import ItemCharges, MemoryItemLedger
from hivetenancy.quota.local import LocalQuota
from hivetenancy.ratelimit import LimitState, Permit, Subject
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.testing import FakeHiveHub, ManualClock
from hivetenancy.usage.memory import MemoryUsage

Result = TypeVar("Result")

PLAN = Plan(
    name="small",
    rates=(
        RatePolicy(limit=10, period_us=MINUTE_US, name="minute"),
        ConcurrencyPolicy(limit=5, name="slots"),
    ),
    quotas=(
        quota_limit("keys", 3),
        quota_limit("storage_bytes", 1000),
        quota_limit("operations", 100),
        quota_limit("connections", 2),
    ),
    statics={"max_batch": 10, "max_ttl_seconds": 60},
)


class Step:
    """Suspends once. Whoever drives the coroutine goes on with it; a loop does so too."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def drive(work: Coroutine[Any, Any, Result], *, cancel_at: int | None = None) -> Result | BaseException:
    """Run *work* step by step without a loop; throw a cancellation into its step *cancel_at*.

    Returns:
        Its result, or what it raised.
    """
    steps = 0
    try:
        work.send(None)
        while True:
            if steps == cancel_at:
                work.throw(asyncio.CancelledError())
            else:
                work.send(None)
            steps += 1
    except StopIteration as end:
        result: Result = end.value
        return result
    except BaseException as error:
        return error


class Script:
    """What the engines of one rig do: what they were asked, how often they suspend, what they fail with."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.slow: set[str] = set()
        self.fail: dict[str, BaseException] = {}

    def enter(self, name: str, what: str = "") -> bool:
        """Note a call of an engine's quick way; return whether the answer has to be waited for."""
        if name in self.slow:
            return True
        self.note(name, what)
        return False

    def note(self, name: str, what: str = "") -> None:
        """Note a call, and fail if the script says so."""
        self.log.append(f"{name} {what}".strip())
        failure = self.fail.get(name)
        if failure is not None:
            raise failure


class ScriptedValidator:
    """A validator whose every answer may have to be waited for."""

    def __init__(self, inner: CachedAccessKeys, script: Script) -> None:
        self.inner, self.script = inner, script

    def try_validate(self, credential: bytes, *, effect: Effect, now: Instant | None = None) -> object:
        """Answer, unless scripted to be slow."""
        if self.script.enter("validate"):
            return None
        return self.inner.try_validate(credential, effect=effect, now=now)

    async def validate(self, credential: bytes, *, effect: Effect, now: Instant | None = None) -> Principal | Refusal:
        """Answer after a step or two."""
        if "validate" in self.script.slow:
            await Step()
            self.script.note("validate")
        return await self.inner.validate(credential, effect=effect, now=now)

    def try_recheck(self, principal: Principal, *, effect: Effect, now: Instant | None = None) -> object:
        """Answer, unless scripted to be slow."""
        if self.script.enter("recheck", effect.value):
            return None
        return self.inner.try_recheck(principal, effect=effect, now=now)

    async def recheck(self, principal: Principal, *, effect: Effect, now: Instant | None = None) -> Principal | Refusal:
        """Answer after a step."""
        if "recheck" in self.script.slow:
            await Step()
            self.script.note("recheck", effect.value)
        return await self.inner.recheck(principal, effect=effect, now=now)


class ScriptedLimiter:
    """A limiter that notes what is taken and given back."""

    def __init__(self, inner: MemoryRateLimiter, script: Script) -> None:
        self.inner, self.script = inner, script

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal | None:
        """Answer, unless scripted to be slow."""
        if self.script.enter("acquire", str(cost)):
            return None
        return self.inner.try_acquire(subjects, cost=cost, now=now)

    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        """Take after one step, and tell after another; cancelled in between it gives back by itself."""
        await Step()
        self.script.note("acquire", str(cost))
        answer = self.inner.try_acquire(subjects, cost=cost, now=now)
        try:
            await Step()
        except BaseException:
            if not isinstance(answer, Refusal):
                self.inner.release(subjects, cost=cost, taken=now or (0, 0), refund=True)
            raise
        return answer

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        """Give back."""
        self.script.log.append(f"release {cost}{' refund' if refund else ''}")
        self.inner.release(subjects, cost=cost, taken=taken, refund=refund)

    def peek(self, subjects: Sequence[Subject], *, now: Instant | None = None) -> Sequence[LimitState]:
        """Return the states."""
        return self.inner.peek(subjects, now=now)


class ScriptedQuota(LocalQuota):
    """A quota engine whose answers may have to be waited for."""

    script: Script

    def try_reserve(self, tenant: TenantId, demand: Amounts, **options: Any) -> Any:
        """Answer, unless scripted to be slow."""
        if self.script.enter("reserve", " ".join(map(str, demand))):
            return None
        return super().try_reserve(tenant, demand, **options)

    async def reserve(self, tenant: TenantId, demand: Amounts, **options: Any) -> Any:
        """Hold after one step, and tell after another; cancelled in between it releases by itself."""
        if "reserve" not in self.script.slow:
            return await super().reserve(tenant, demand, **options)
        await Step()
        self.script.note("reserve", " ".join(map(str, demand)))
        answer = super().try_reserve(tenant, demand, **options)
        try:
            await Step()
        except BaseException:
            if answer is not None and not isinstance(answer, Refusal):
                answer.release()
            raise
        return answer


class RecordingUsage(MemoryUsage):
    """Notes each record."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.records: list[dict[Any, int]] = []

    def record(self, tenant: TenantId, amounts: Amounts, *, now: Instant | None = None) -> Any:
        """Note, and count."""
        self.records.append(dict(amounts))
        return super().record(tenant, amounts, now=now)


class Watcher:
    """A hook and an audit sink."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.decisions: list[Decision] = []
        self.events: list[AuditEvent] = []
        self.failure = failure

    def decided(self, decision: Decision) -> None:
        """Keep *decision*."""
        self.decisions.append(decision)
        if self.failure is not None:
            raise self.failure

    def audit(self, event: AuditEvent) -> None:
        """Keep *event*."""
        self.events.append(event)
        if self.failure is not None:
            raise self.failure


class Rig:
    """A gate with everything behind it, one tenant and one key. Use `Rig.ready`."""

    def __init__(
        self,
        *,
        gate: type[Gate] = Gate,
        plan: Plan = PLAN,
        permissions: Sequence[str] = ("read", "write", "delete", "admin"),
        functions: Sequence[str] | None = None,
        watcher: Watcher | None = None,
        watched: bool = True,
        **keys: Any,
    ) -> None:
        self.clock = ManualClock()
        self.hub = FakeHiveHub(clock=self.clock, plans=[plan])
        self.tenant = self.hub.add_tenant("acme", plan=plan.name)
        self.key = self.tenant.issue_key(permissions=permissions, functions=functions)
        self.script = Script()
        self.functions = FunctionRegistry()
        self.get = self.functions.declare("kv.get", effect="read")
        self.set = self.functions.declare("kv.set", effect="write", cost=2, demand={"operations": 1})
        self.drop = self.functions.declare("kv.drop", effect="delete")
        self.feed = Feed(self.hub, clock=self.clock)
        self.keys = CachedAccessKeys(self.hub, functions=self.functions, feed=self.feed, clock=self.clock, **keys)
        self.limits = CachedLimits(self.hub, floors=self.feed.floors, clock=self.clock)
        self.feed.subscribe(self.limits)
        self.limiter = ScriptedLimiter(MemoryRateLimiter(clock=self.clock), self.script)
        self.quota = ScriptedQuota(self.limits, clock=self.clock)
        self.quota.script = self.script
        self.usage = RecordingUsage(clock=self.clock)
        self.watcher = watcher or Watcher()
        self.gate = gate(
            validator=ScriptedValidator(self.keys, self.script),  # type: ignore[arg-type]
            limiter=self.limiter,
            quota=self.quota,
            names=PrefixNamespaces(),
            usage=self.usage,
            limits=self.limits,
            functions=self.functions,
            items=ItemCharges(self.quota, MemoryItemLedger()),
            clock=self.clock,
            hooks=[self.watcher] if watched else [],
            audit=self.watcher if watched else None,
        )

    async def ready(self) -> Rig:
        """Open the feed and warm the caches, so that nothing suspends from here on unless scripted."""
        await self.feed.open()
        caller = await self.gate.authenticate(self.key.secret.encode(), now=self.clock.now())
        if isinstance(caller, Caller):
            await self.limits.limits(caller.principal.tenant_id, now=self.clock.now())
        self.clear()
        return self

    def clear(self) -> None:
        """Forget what was noted so far."""
        self.script.log.clear()
        self.usage.records.clear()
        self.watcher.decisions.clear()
        self.watcher.events.clear()

    @property
    def now(self) -> Instant:
        """The present instant."""
        return self.clock.now()

    async def caller(self) -> Caller:
        """Authenticate the rig's key."""
        caller = await self.gate.authenticate(self.key.secret.encode(), now=self.now)
        assert isinstance(caller, Caller), caller
        return caller

    async def admit(self, function: Any, *, surface: Surface = Surface.HTTP) -> Any:
        """Authenticate and admit."""
        return await self.gate.admit(await self.caller(), function, surface=surface, now=self.now)

    # --- what is held -------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, LimitState]:
        """Where the tenant's rate policies stand, by name."""
        limits = self.limits.try_limits(self.tenant.id, now=self.now)
        assert limits is not None
        states = self.limiter.peek((Subject("t:" + self.tenant.id, limits.tenant_rates),), now=self.now)
        return {state.name: state for state in states}

    @property
    def units(self) -> int:
        """Rate units taken."""
        state = self.states()["minute"]
        return state.limit - state.remaining

    @property
    def slots(self) -> int:
        """Concurrency slots held."""
        state = self.states()["slots"]
        return state.limit - state.remaining

    def cells(self) -> dict[str, tuple[int, int]]:
        """``(used, held)`` of each quota cell that is not at rest."""
        snapshot = self.quota.try_snapshot(self.tenant.id, now=self.now)
        assert snapshot is not None
        return {cell.dimension: (cell.used, cell.held) for cell in snapshot if cell.used or cell.held}

    def recorded(self) -> dict[str, int]:
        """The sum of all usage records, by cell."""
        total: dict[str, int] = {}
        for record in self.usage.records:
            for cell, amount in record.items():
                total[cell] = total.get(cell, 0) + amount
        return {cell: amount for cell, amount in total.items() if amount}


UNAVAILABLE = UnavailableError("the store does not answer")
