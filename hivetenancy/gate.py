"""The gate: the only order of checks, the only commit, the only release.

::

    key ▶ rate ▶ function ▶ quota reserve ▶ [handler] ▶ commit ▶ usage

Rate units pay for the attempt: once the key has passed they are taken whatever comes after, so that floods of 403, 404
and over-quota requests are limited too; a refusal by a limit itself takes nothing. They come back only behind our own
503. What a refusal, a failure or a cancellation finds held is released. Concurrency slots are freed at the last byte,
by `Admission.close`.

A tenant that is fenced off (`hivetenancy.lifecycle`) is refused as one that the hub lets nobody serve. That is asked
last, after everything that may wait, in one step with counting the request as under way: whoever drains a tenant either
sees the request or has it refused.

Everything here is a coroutine that does not suspend while the engines answer at once: each step asks the engine's
``try_`` method and awaits only where that says ``None``. There is no second, synchronous copy of the order.

The gate imports no engine. It knows the protocols, and finds optional abilities of an engine once, when it is built.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, Final

from hivetenancy.access_keys import AccessKeyValidator, Principal
from hivetenancy.access_keys.permissions import compile_mask, effects
from hivetenancy.clock import Clock, Instant, SystemClock
from hivetenancy.context import TenantContext
from hivetenancy.decision import DONE, Decision, Reason, Refusal, Ticket
from hivetenancy.errors import (
    ConfigurationError,
    HubUnavailableError,
    InvalidNameError,
    MissingTenantError,
    UnavailableError,
)
from hivetenancy.functions import Function, FunctionRegistry
from hivetenancy.home import Home
from hivetenancy.hooks import AuditEvent, AuditSink, DecisionHook
from hivetenancy.ids import Amounts, Effect, Surface, TenantId
from hivetenancy.lifecycle.fence import Fence, Life
from hivetenancy.namespaces import NamespaceManager
from hivetenancy.plans import ConcurrencyPolicy
from hivetenancy.quota import CellSnapshot, QuotaManager, Reservation
from hivetenancy.quota.items import ItemBlock, ItemCharges, Settled
from hivetenancy.ratelimit import PERMIT, LimitState, RateLimiter, Subject
from hivetenancy.sources import LimitsView, TenantLimits, TenantStatus
from hivetenancy.tenant import OpenItem, Tenant
from hivetenancy.usage import UsageReporter

_log: Final = logging.getLogger("hivetenancy")

_CALLERS_MAX: Final = 100_000
"""Callers kept ready; as many as the key cache keeps. The oldest go first, and cost a rebuild of some 5 us."""

_ONE_CONNECTION: Final[Amounts] = {"connections": 1}

_NO_TENANT: Final = Refusal(reason=Reason.SUSPENDED_TENANT)
"""What is said of a tenant that the hub does not know or does not let be served, or that is fenced off here."""

_READ_ONLY: Final = Refusal(reason=Reason.MISSING_PERMISSION)
"""What is said to a write for a tenant that may only be read: the key's owner has no right to it at present."""


def _cannot(*_args: object, **_kwargs: object) -> None:
    """Stand in for a ``try_`` method that an engine does not have."""


def both(first: Ticket, second: Ticket) -> Ticket:
    """Return a ticket that is done when both are; the shared `DONE` where both are done already."""
    if first.done:
        return second
    return first if second.done else _Both(first, second)


class _Both:
    __slots__ = ("_first", "_second")

    def __init__(self, first: Ticket, second: Ticket) -> None:
        self._first, self._second = first, second

    @property
    def done(self) -> bool:
        return self._first.done and self._second.done

    def wait(self, timeout: float | None = None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        if not self._first.wait(timeout):
            return False
        return self._second.wait(None if end is None else max(0.0, end - time.monotonic()))

    def __await__(self) -> Generator[object, None, None]:
        yield from self._first.__await__()
        yield from self._second.__await__()


class Caller:
    """A principal with everything that the gate derives from it once: subjects, tenant handle.

    Attributes:
        principal: Who is asking.
        tenant: The handle that its requests are given.
        life: The life of the tenant that the handle is of.
        limits: The limits that *subjects* were built for.
        subjects: Whom rate units are counted for: the tenant, and the key if it has policies of its own.
        slotted: Whether any of their policies holds slots that must be freed.
        active: Whether the tenant may be served under *limits*.
        shown: What an adapter rendered once from *limits*, to be dropped with them.
    """

    __slots__ = ("active", "life", "limits", "principal", "shown", "slotted", "subjects", "tenant")

    def __init__(self, principal: Principal, tenant: Tenant, life: Life) -> None:
        self.principal = principal
        self.tenant = tenant
        self.life = life
        self.limits: TenantLimits | None = None
        self.subjects: tuple[Subject, ...] = ()
        self.slotted = False
        self.active = False
        self.shown: bytes | None = None

    def __repr__(self) -> str:
        return f"<Caller {self.principal.key_id} of {self.principal.tenant_id}>"

    def come_under(self, limits: TenantLimits) -> None:
        """Build the subjects for *limits*; done only when these are others than before."""
        subjects = [Subject("t:" + self.principal.tenant_id, limits.tenant_rates)]
        if limits.key_rates.policies:
            subjects.append(Subject("k:" + self.principal.key_id, limits.key_rates))
        self.subjects = tuple(subjects)
        self.slotted = any(
            isinstance(policy, ConcurrencyPolicy) for subject in subjects for policy in subject.limits.policies
        )
        # The key said otherwise a moment ago; the authority's later word counts.
        self.active = limits.status is TenantStatus.ACTIVE
        self.shown = None
        self.limits = limits


class Admission:
    """One admitted request: what it took, and how that is settled.

    An adapter calls `settle` when the outcome is known and before the answer's first byte, and `close` at its last
    byte, whatever happened in between; both may be called again without effect. Dropping one unclosed is a bug: it
    warns, and closes.

    Attributes:
        caller: Who was admitted; ``None`` on a public route.
        function: What for; ``None`` on a public route, or where a router answered by itself.
        taken: When.
        cost: Rate units that were taken.
    """

    __slots__ = (
        "_gate",
        "_open",
        "_pending",
        "_reservation",
        "_slotted",
        "_subjects",
        "caller",
        "cost",
        "function",
        "taken",
    )

    def __init__(
        self,
        gate: Gate,
        caller: Caller | None,
        function: Function | None,
        taken: Instant,
        cost: int,
        subjects: tuple[Subject, ...],
        reservation: Reservation | None,
    ) -> None:
        self._gate = gate
        self.caller = caller
        self.function = function
        self.taken = taken
        self.cost = cost
        self._subjects = subjects
        # While a reservation was waited for, the caller may have come under limits other than those it took from.
        self._slotted = caller is not None and (caller.slotted or caller.subjects is not subjects)
        self._reservation = reservation
        self._pending: list[Ticket] | None = None
        self._open = True
        if caller is not None:
            caller.life.running += 1

    @property
    def tenant(self) -> Tenant:
        """The tenant that is bound while the handler runs.

        Raises:
            MissingTenantError: The route is public; or the tenant was deleted since, and this is work that its request
                left behind.
        """
        caller = self.caller
        if caller is None:
            raise MissingTenantError("this route is public and has no tenant; take it off the public list")
        if caller.life.over:
            raise MissingTenantError(
                "the tenant of this work was deleted; hand work that outlives its request tenant.bind(fn)"
            )
        return caller.tenant

    @property
    def context(self) -> TenantContext:
        """Who it is for; raises as `tenant`."""
        return self.tenant.context

    @property
    def doing(self) -> str | None:
        """Name of the function that was admitted; ``None`` on a public route."""
        return None if self.function is None else self.function.name

    @property
    def open(self) -> bool:
        """Whether `close` is still to come."""
        return self._open

    def await_later(self, ticket: Ticket) -> None:
        """Remember a ticket that must be done before the answer's first byte."""
        if not ticket.done:
            if self._pending is None:
                self._pending = []
            self._pending.append(ticket)

    def settle(self, *, succeeded: bool) -> None:
        """Commit the function's demand if the handler *succeeded* (answered below 400), release it otherwise."""
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return
        if succeeded:
            ticket = self._gate.settle(reservation, None, self.taken)
            if ticket is not DONE:
                self.await_later(ticket)
        else:
            reservation.release()

    @property
    def durable(self) -> bool:
        """Whether nothing is left to wait for before the first byte (or before the next one)."""
        return self._pending is None

    async def until_durable(self) -> None:
        """Wait for every ticket so far."""
        while self._pending is not None:
            waiting, self._pending = self._pending, None
            for ticket in waiting:
                await ticket

    def states(self) -> Sequence[LimitState]:
        """Return where the request's rate policies stand, for headers; empty where nothing can tell."""
        return self._gate.states(self._subjects, self.taken) if self._subjects else ()

    def close(self, *, refund: bool = False) -> None:
        """Free the concurrency slots, and whatever was not settled.

        Args:
            refund: Also give the rate units back, because the library itself answered 503.
        """
        if self._open:
            self._open = False
            if self.caller is not None:
                self.caller.life.running -= 1
            if self._reservation is not None:
                self.settle(succeeded=False)
            if self._slotted or (refund and self._subjects):
                self._gate.give_back(self._subjects, self.cost, self.taken, refund)

    def __del__(self) -> None:
        if self._open:
            try:
                warnings.warn(f"admission of {self.function!r} was never closed", ResourceWarning, stacklevel=2)
            finally:  # a filter may have made an error of it
                self._gate.home.post(self.close)


class Gate:
    """Decides about requests, in one order, over the five protocols.

    Args:
        validator: Who is asking.
        limiter: How fast.
        quota: How much.
        names: Whose names.
        usage: What was used.
        limits: Where limits of tenants are read.
        functions: What can be called.
        items: What items are charged.
        clock: Read once a request, by adapters, through `now`.
        hooks: See each decision.
        audit: Keeps refusals and acceptances on stale knowledge; ``None``: nobody does.
        home: The thread that the engines belong to.
        fence: Which tenants are refused new work here; ``None``: none ever is.

    Concurrency:
        Belongs to the home thread.
    """

    def __init__(
        self,
        *,
        validator: AccessKeyValidator,
        limiter: RateLimiter,
        quota: QuotaManager,
        names: NamespaceManager,
        usage: UsageReporter,
        limits: LimitsView,
        functions: FunctionRegistry,
        items: ItemCharges,
        clock: Clock | None = None,
        hooks: Iterable[DecisionHook] = (),
        audit: AuditSink | None = None,
        home: Home | None = None,
        fence: Fence | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.home = home or Home()
        self.fence = fence or Fence()
        self.functions = functions
        self.now: Callable[[], Instant] = self.clock.now
        self._validator, self._limiter, self._quota = validator, limiter, quota
        self._names, self._limits, self._items = names, limits, items
        self._hooks, self._audit = tuple(hooks), audit
        self._watched = bool(self._hooks) or audit is not None
        self._callers: dict[bytes, Caller] = {}
        self._complained: set[str] = set()
        self._record = usage.record
        self._try_limits = limits.try_limits
        # Optional abilities, found once.
        self._try_validate: Callable[..., Any] = getattr(validator, "try_validate", _cannot)
        self._try_recheck: Callable[..., Any] = getattr(validator, "try_recheck", _cannot)
        self._recheck: Callable[..., Awaitable[Any]] | None = getattr(validator, "recheck", None)
        self._bound_us: Callable[..., int] | None = getattr(validator, "bound_us", None)
        self._try_acquire: Callable[..., Any] = getattr(limiter, "try_acquire", _cannot)
        self._try_reserve: Callable[..., Any] = getattr(quota, "try_reserve", _cannot)
        self._peek: Callable[..., Sequence[LimitState]] | None = getattr(limiter, "peek", None)
        self._note: Callable[..., None] | None = getattr(quota, "note", None)
        self._try_snapshot: Callable[..., Any] | None = getattr(quota, "try_snapshot", None)

    # --- who is asking -----------------------------------------------------------------------------------------------

    async def authenticate(self, credential: bytes | Reason, *, now: Instant) -> Caller | Refusal:
        """Say who presents *credential*, fresh enough for the widest window (reading).

        Args:
            credential: The key, or why there is none (see `hivetenancy.access_keys.format`).
            now: The request's instant.

        Returns:
            The caller, or a refusal (400 and 401 reasons), which hooks and audit have seen.

        Raises:
            UnavailableError: It cannot be told.
        """
        if isinstance(credential, Reason):
            return self._refused(Refusal(reason=credential), None, None, now)
        answer = self._try_validate(credential, effect=Effect.READ, now=now)
        if answer is None:
            answer = await self._validator.validate(credential, effect=Effect.READ, now=now)
        if isinstance(answer, Refusal):
            return self._refused(answer, None, None, now)
        found = self._callers.get(answer.digest)
        if found is not None and found.principal is answer and not found.life.over:
            return found
        return self._caller(answer)

    async def still(self, caller: Caller, *, effect: Effect, now: Instant) -> Caller | Refusal:
        """Say whether *caller* still counts for a function of *effect*.

        For guards, and for every message of a connection that outlives its request.

        Raises:
            UnavailableError: It cannot be told.
        """
        answer = self._try_recheck(caller.principal, effect=effect, now=now)
        return caller if answer is caller.principal else await self._renewed(caller, answer, effect, now)

    async def _renewed(
        self, caller: Caller, answer: Principal | Refusal | None, effect: Effect, now: Instant
    ) -> Caller | Refusal:
        """Return who *caller* is now; *answer* is what the validator said at once, ``None`` if it has to look."""
        if answer is None:
            if self._recheck is None:
                return caller  # the engine keeps nothing to ask about; it was asked when the request came in
            answer = await self._recheck(caller.principal, effect=effect, now=now)
        if isinstance(answer, Refusal):
            return self._refused(answer, caller, None, now)
        return self._caller(answer)

    def _caller(self, principal: Principal) -> Caller:
        """Return the caller of *principal*, ready to be used again while the principal is the same."""
        found = self._callers.get(principal.digest)
        life = self.fence.life(principal.tenant_id)
        if found is not None and found.principal is principal and found.life is life:
            return found
        context = TenantContext(tenant_id=principal.tenant_id, key_id=principal.key_id, generation=life.generation)
        try:
            names = self._names.for_tenant(context)
        except InvalidNameError as error:  # the hub's ids and our scheme do not fit: no fault of the request
            raise HubUnavailableError(
                "the hub's tenant ids do not fit the id scheme of the namespaces; choose the scheme that it issues",
                transient=False,
            ) from error
        made = Caller(principal, Tenant(context, names, self, life), life)
        if life.shut:  # it will be refused, and is nothing to keep
            return made
        if found is None and len(self._callers) >= _CALLERS_MAX:
            del self._callers[next(iter(self._callers))]
        self._callers[principal.digest] = made
        return made

    def drop_callers(self, tenant: TenantId) -> int:
        """Forget the callers of *tenant* that are kept ready; return how many that were."""
        gone = [digest for digest, caller in self._callers.items() if caller.principal.tenant_id == tenant]
        for digest in gone:
            del self._callers[digest]
        return len(gone)

    def count_callers(self, tenant: TenantId) -> int:
        """Return how many callers of *tenant* are kept ready."""
        return sum(caller.principal.tenant_id == tenant for caller in self._callers.values())

    # --- may they --------------------------------------------------------------------------------------------------

    async def admit(
        self, caller: Caller, function: Function, *, surface: Surface, now: Instant, cost: int | None = None
    ) -> Admission | Refusal:
        """Decide whether *caller* may call *function* now, and take what that takes.

        Args:
            caller: From `authenticate`.
            function: What is called.
            surface: Through which door.
            now: The request's instant.
            cost: Rate units; ``None``: as the function declares.

        Returns:
            The admission, or a refusal, which hooks and audit have seen and after which nothing is held.

        Raises:
            UnavailableError: It cannot be told; the rate units were given back.
        """
        if function.effect is not Effect.READ:  # reading was asked for when the request came in
            answer = self._try_recheck(caller.principal, effect=function.effect, now=now)
            if answer is not caller.principal:
                answer = await self._renewed(caller, answer, function.effect, now)
                if isinstance(answer, Refusal):
                    return answer
                caller = answer
        units = function.cost if cost is None else cost
        taken = self._try_take(caller, units, now)
        if taken is None:
            taken = await self._take(caller, units, now)
        if isinstance(taken, Refusal):
            return self._refused(taken, caller, function, now, units)
        reservation: Reservation | None = None
        try:
            refusal = self._forbids(caller.principal, function, surface)
            if refusal is None and function.demand is not None:
                held = self._try_reserve(caller.principal.tenant_id, function.demand, now=now)
                if held is None:
                    held = await self._quota.reserve(caller.principal.tenant_id, function.demand, now=now)
                if isinstance(held, Refusal):
                    refusal = held
                else:
                    reservation = held
            if refusal is None:
                admits = caller.life.admits
                if admits is not None and function.effect not in admits:  # perhaps only since this began to wait
                    refusal = _READ_ONLY if admits else _NO_TENANT
                elif self._watched:
                    self._allowed(caller, function, now, units)
        except BaseException as error:
            if reservation is not None:
                reservation.release()
            self.give_back(taken, units, now, isinstance(error, UnavailableError))
            raise
        if refusal is not None:
            if reservation is not None:
                reservation.release()
            self.give_back(taken, units, now, False)
            return self._refused(refusal, caller, function, now, units)
        return Admission(self, caller, function, now, units, taken, reservation)

    async def admit_attempt(self, caller: Caller, *, now: Instant) -> Admission | Refusal:
        """Take one unit for an attempt that reached no function: a router's own 404, 405 or redirect.

        Raises:
            UnavailableError: It cannot be told.
        """
        taken = self._try_take(caller, 1, now)
        if taken is None:
            taken = await self._take(caller, 1, now)
        if isinstance(taken, Refusal):
            return self._refused(taken, caller, None, now)
        if caller.life.shut:  # since it was waited for
            self.give_back(taken, 1, now, False)
            return self._refused(_NO_TENANT, caller, None, now)
        return Admission(self, caller, None, now, 1, taken, None)

    def admit_public(self, *, now: Instant) -> Admission:
        """Admit a request to a public route: no tenant, nothing taken."""
        return Admission(self, None, None, now, 0, (), None)

    def refuse(self, reason: Reason, *, caller: Caller | None, function: Function | None, now: Instant) -> Refusal:
        """Make, and let hooks and audit see, a refusal that an adapter found: a bad path, a payload too large."""
        return self._refused(Refusal(reason=reason), caller, function, now)

    async def limits_of(self, caller: Caller, *, now: Instant) -> TenantLimits | Refusal:
        """Return the limits of the caller's tenant; a refusal where there is no such tenant, or not any more.

        Raises:
            UnavailableError: They cannot be told.
        """
        tenant = caller.principal.tenant_id
        limits = self._try_limits(tenant, now=now)
        if limits is None:
            limits = await self._limits.limits(tenant, now=now)
        if limits is None:
            return _NO_TENANT
        if limits is not caller.limits:
            caller.come_under(limits)
        return limits if caller.active and not caller.life.shut else _NO_TENANT

    def _try_take(self, caller: Caller, cost: int, now: Instant) -> tuple[Subject, ...] | Refusal | None:
        """Take *cost* units at once and return from whom; ``None`` where something has to be waited for."""
        limits = self._try_limits(caller.principal.tenant_id, now=now)
        if limits is None:
            return None
        if limits is not caller.limits:
            caller.come_under(limits)
        if not caller.active or caller.life.shut:
            return _NO_TENANT
        subjects = caller.subjects
        answer = self._try_acquire(subjects, cost=cost, now=now)
        return subjects if answer is PERMIT else answer

    async def _take(self, caller: Caller, cost: int, now: Instant) -> tuple[Subject, ...] | Refusal:
        """Take *cost* units where `_try_take` could not tell, and return from whom."""
        limits = await self.limits_of(caller, now=now)
        if isinstance(limits, Refusal):
            return limits
        subjects = caller.subjects
        answer = self._try_acquire(subjects, cost=cost, now=now)
        if answer is None:
            answer = await self._limiter.acquire(subjects, cost=cost, now=now)
        return answer if isinstance(answer, Refusal) else subjects

    def _forbids(self, principal: Principal, function: Function, surface: Surface) -> Refusal | None:
        mask = principal.mask
        if function.registry is not self.functions:  # its bit is somebody else's here
            return Refusal(reason=Reason.UNDECLARED_FUNCTION)
        if principal.registry_version == self.functions.version:
            if mask >> function.bit & 1 and principal.surfaces is None:
                return None  # nearly always
        else:
            try:
                mask = compile_mask(principal.permissions, principal.functions, self.functions)
            except ConfigurationError:  # a list outside the grammar allows nothing
                mask = 0
        if not mask >> function.bit & 1:
            granted = function.effect in effects(principal.permissions)
            return Refusal(reason=Reason.FUNCTION_NOT_ALLOWED if granted else Reason.MISSING_PERMISSION)
        if principal.surfaces is not None and surface not in principal.surfaces:
            return Refusal(reason=Reason.SURFACE_NOT_ALLOWED)
        return None

    # --- connections -------------------------------------------------------------------------------------------------

    async def hold_connection(self, caller: Caller, *, now: Instant) -> Reservation | Refusal | None:
        """Hold one of the tenant's ``connections`` for as long as a connection is open.

        Returns:
            The reservation, to be released at the end; ``None`` where the plan does not count connections; or a
            refusal, which hooks and audit have seen.

        Raises:
            UnavailableError: It cannot be told.
        """
        limits = await self.limits_of(caller, now=now)
        if isinstance(limits, Refusal):
            return self._refused(limits, caller, None, now)
        if not any(standing.limit.dimension == "connections" for standing in limits.quotas):
            return None
        answer = await self.hold(caller.principal.tenant_id, _ONE_CONNECTION, now)
        if isinstance(answer, Refusal):
            return self._refused(answer, caller, None, now)
        if caller.life.shut:  # since it was waited for
            answer.release()
            return self._refused(_NO_TENANT, caller, None, now)
        return answer

    # --- settling: the only commits and releases -----------------------------------------------------------------

    def settle(self, reservation: Reservation, actual: Amounts | None, at: Instant) -> Ticket:
        """Commit *reservation* and record its usage, once, for the period of *at*: when it was reserved."""
        durable = reservation.commit(actual, now=at)
        committed = reservation.committed
        if not committed:
            return durable
        recorded = self._record(reservation.tenant, committed, now=at)
        return recorded if durable is DONE else both(durable, recorded)

    def give_back(self, subjects: tuple[Subject, ...], cost: int, taken: Instant, refund: bool) -> None:
        """Free concurrency slots; with *refund* give the rate units back as well."""
        self._limiter.release(subjects, cost=cost, taken=taken, refund=refund)

    def states(self, subjects: tuple[Subject, ...], now: Instant) -> Sequence[LimitState]:
        """Return where rate policies stand; empty where the limiter cannot tell."""
        return () if self._peek is None else self._peek(subjects, now=now)

    # --- the services of tenant handles (hivetenancy.tenant.Services) ----------------------------------------------

    def try_hold(self, tenant: TenantId, demand: Amounts, at: Instant) -> Reservation | Refusal | None:
        """Reserve at once, or ``None``."""
        answer: Reservation | Refusal | None = self._try_reserve(tenant, demand, now=at)
        return answer

    async def hold(self, tenant: TenantId, demand: Amounts, at: Instant) -> Reservation | Refusal:
        """Reserve, waiting if need be."""
        answer: Reservation | Refusal | None = self._try_reserve(tenant, demand, now=at)
        return await self._quota.reserve(tenant, demand, now=at) if answer is None else answer

    def try_open_item(self, tenant: TenantId, item: str, amounts: Amounts) -> OpenItem | Refusal | None:
        """Open a block on *item* at once, or ``None``."""
        block = self._items.try_open(tenant, item, amounts)
        return block if block is None or isinstance(block, Refusal) else _Item(self, tenant, block)

    async def open_item(self, tenant: TenantId, item: str, amounts: Amounts) -> OpenItem | Refusal:
        """Open a block on *item*, waiting if need be."""
        block = await self._items.open(tenant, item, amounts)
        return block if isinstance(block, Refusal) else _Item(self, tenant, block)

    def count(self, tenant: TenantId, amounts: Amounts) -> Ticket:
        """Record usage that nobody reserved, and let the quota engine take note of it."""
        ticket = self._record(tenant, amounts)
        note = self._note
        if note is not None:
            self.home.post(lambda: note(tenant, amounts))
        return ticket

    def try_usage(self, tenant: TenantId) -> Sequence[CellSnapshot] | None:
        """Return where the quota cells stand; ``None`` where only a fetch can tell."""
        if self._try_snapshot is None:
            return ()
        cells: Sequence[CellSnapshot] | None = self._try_snapshot(tenant)
        return cells

    async def usage(self, tenant: TenantId) -> Sequence[CellSnapshot]:
        """Return where the quota cells stand.

        Raises:
            UnavailableError: It cannot be told.
        """
        cells = self.try_usage(tenant)
        if cells is None:
            await self._limits.limits(tenant, now=self.now())
            cells = self.try_usage(tenant)
        return cells or ()

    def denied(self, refusal: Refusal) -> None:
        """Let hooks and audit see the refusal of a block."""
        if self._watched:
            self.home.post(lambda: self._tell(refusal, None, None, self.now(), 0))

    # --- those who watch ---------------------------------------------------------------------------------------------

    def _refused(
        self, refusal: Refusal, caller: Caller | None, function: Function | None, now: Instant, cost: int = 1
    ) -> Refusal:
        name = None if function is None else function.name
        principal = None if caller is None else caller.principal
        complete = refusal.about(
            tenant=None if principal is None else principal.tenant_id,
            key_id=None if principal is None else principal.key_id,
            function=name,
        )
        if self._watched:
            self._tell(complete, principal, function, now, cost)
        return complete

    def _allowed(self, caller: Caller, function: Function, now: Instant, cost: int) -> None:
        """Let hooks see an admission, and the audit one on stale knowledge."""
        if self._hooks or caller.principal.stale:
            self._tell(None, caller.principal, function, now, cost)

    def _tell(
        self, refusal: Refusal | None, principal: Principal | None, function: Function | None, now: Instant, cost: int
    ) -> None:
        tenant, key_id, stale = None, None, False
        if principal is not None:
            tenant, key_id, stale = principal.tenant_id, principal.key_id, principal.stale
        if refusal is not None:
            tenant, key_id = refusal.tenant, refusal.key_id
        name = None if function is None else function.name
        if self._hooks:
            decision = Decision(
                allowed=refusal is None,
                refusal=refusal,
                tenant=tenant,
                key_id=key_id,
                function=name,
                effect=None if function is None else function.effect,
                cost=cost,
                at=now,
                stale=stale,
                bound_us=self._bound(function, now),
            )
            for hook in self._hooks:
                self._guarded("decision hook", lambda hook=hook: hook.decided(decision))  # type: ignore[misc]  # bound now
        audit = self._audit
        if audit is not None and (refusal is not None or stale):
            event = AuditEvent(
                what="accepted_stale" if refusal is None else "refused",
                reason=None if refusal is None else refusal.reason,
                tenant=tenant,
                key_id=key_id,
                function=name,
                at_us=now[1],
            )
            self._guarded("audit sink", lambda: audit.audit(event))

    def _bound(self, function: Function | None, now: Instant) -> int | None:
        if self._bound_us is None:
            return None
        return self._bound_us(Effect.READ if function is None else function.effect, now=now)

    def _guarded(self, what: str, call: Callable[[], None]) -> None:
        """Call a watcher; what it raises changes no answer and is logged once per kind."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - foreign code on the request path
            kind = f"{what}: {type(error).__name__}"
            if kind not in self._complained:
                self._complained.add(kind)
                _log.exception("%s failed; later failures of this kind are not logged", what)


class _Item:
    """An open block on an item whose bookings are recorded, once, as they come."""

    __slots__ = ("_block", "_gate", "_tenant")

    def __init__(self, gate: Gate, tenant: TenantId, block: ItemBlock) -> None:
        self._gate, self._tenant, self._block = gate, tenant, block

    def commit(self, actual: Amounts | None = None) -> Ticket:
        """Charge the item from now on, and record what that booked."""
        return self._recorded(self._block.commit(actual))

    def close(self) -> Ticket:
        """End the block, and record what fell free with it."""
        return self._recorded(self._block.close())

    def _recorded(self, settled: Settled) -> Ticket:
        ticket = self._gate._record(self._tenant, settled.amounts) if settled.amounts else DONE
        for each in settled.tickets:
            ticket = both(ticket, each)
        return ticket
