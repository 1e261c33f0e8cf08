"""What every part of a control plane stands on: one lock, one state, one log; and its tenants, plans and limits.

Every change goes through `HubAccounts.transaction`: under one lock the state is replaced and the change logged, which
gives it its revision; after the lock, whoever waits for changes is told. One lock is enough: a control plane is asked
when something is not in memory yet, never once a request. It may be taken again by whoever holds it, so that several
steps (claim an idempotency key, make the change, keep the reply) are one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from uuid import UUID, uuid4

from hivetenancy.clock import Clock, SystemClock
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension, Environment, KeyId, TenantId
from hivetenancy.plans import ANY_RESOURCE, MAX_AMOUNT, Plan, Policy, QuotaKind, QuotaLimit, RateLimits
from hivetenancy.sources import ChangeType, TenantStatus

from .bell import Bell
from .feed import ChangeLog
from .keys import checked_name, mint
from .plans import DEFAULT_PLANS
from .state import HubState, TenantRecord
from .view import ALL_EXTENSIONS

_logger = logging.getLogger("hivetenancy.hub")


class HubAccounts:
    """Tenants, plans and limits of a control plane in memory.

    `HubAdministration` adds keys, `HubService` the answers; the latter
    says what the arguments are.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        plans: Iterable[Plan] | Mapping[str, Plan] = (),
        environment: Environment = Environment.TEST,
        authority: str = "local",
        keep_events: int = 100_000,
        spread_seconds: int = 10,
        new_id: Callable[[], UUID] = uuid4,
        mint_secret: Callable[[KeyId, Environment], str] = mint,
        extensions: Iterable[str] = ALL_EXTENSIONS,
    ) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._environment = environment
        self._authority = authority
        self._new_id = new_id
        self._mint = mint_secret
        self._hub_id = str(new_id())
        self._extensions = _known_extensions(extensions)
        self._lock = threading.RLock()
        self._depth = 0
        self._state = HubState(_by_name(plans))
        self._log = ChangeLog(self._hub_id.replace("-", ""), at_most=keep_events, spread_seconds=spread_seconds)
        self._bell = Bell()
        self._subscribers: dict[object, Callable[[], None]] = {}

    def __repr__(self) -> str:
        tenants, keys = len(self._state.tenants), len(self._state.keys)
        return f"<{type(self).__name__} {self._authority}: {tenants} tenants, {keys} keys, revision {self.revision}>"

    @property
    def hub_id(self) -> str:
        """Which hub this is: random, made with it and lost with it."""
        return self._hub_id

    @property
    def authority(self) -> str:
        """What this hub says it is."""
        return self._authority

    @property
    def clock(self) -> Clock:
        """The hub's clock."""
        return self._clock

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._log.epoch

    @property
    def revision(self) -> int:
        """The revision of the latest change."""
        return self._log.revision

    def new_id(self) -> str:
        """Return a new id, random unless the hub was told otherwise."""
        return str(self._new_id())

    def _now_us(self) -> int:
        return self._clock.now()[1]

    @property
    def extensions(self) -> frozenset[str]:
        """The extensions it speaks, of `hivetenancy.authority.view.ALL_EXTENSIONS`."""
        return self._extensions

    def set_extensions(self, extensions: Iterable[str]) -> None:
        """Speak these extensions from now on. No change of the state: nothing gets a revision.

        Raises:
            ConfigurationError: One of them is none.
        """
        self._extensions = _known_extensions(extensions)

    @contextmanager
    def transaction(self) -> Iterator[HubState]:
        """Hold the lock for changes, and tell about them afterwards if there were any.

        May be nested: what is done within the outermost one is visible, told and kept as one. Nothing is undone when an
        exception ends it, so whoever changes something first checks everything.
        """
        changed = False
        try:
            with self._lock:
                outermost, before = not self._depth, (self._log.epoch, self._log.revision)
                self._depth += 1
                try:
                    yield self._state
                finally:
                    self._depth -= 1
                    changed = outermost and before != (self._log.epoch, self._log.revision)
                    if outermost:
                        self._commit()
        finally:
            if changed:
                self.wake()

    @contextmanager
    def reading(self) -> Iterator[HubState]:
        """Hold the lock to read from one snapshot; nothing is to be changed."""
        with self._lock:
            yield self._state

    def _commit(self) -> None:
        """Called under the lock at the end of each transaction; in memory there is nothing to do."""

    def wake(self) -> None:
        """End every waiting poll with what there is, and call every subscriber.

        Done after each change. A subscriber that raises is logged and does not keep the others, or the maker of the
        change, from going on: the change is made.
        """
        self._bell.ring()
        with self._lock:
            subscribers = list(self._subscribers.values())
        for subscriber in subscribers:
            try:
                subscriber()
            except Exception:
                _logger.exception("a subscriber to changes raised")

    def start_epoch(self) -> int:
        """Begin a larger epoch, as after a restore from a backup, and return it.

        To be called whenever acknowledged history may have been lost: every cursor is reset, and clients verify again
        what they keep.
        """
        with self.transaction():
            return self._log.start_epoch()

    # --- tenants -----------------------------------------------------------------------------------------------------

    def add_tenant(self, name: str, *, plan: str) -> TenantId:
        """Create a tenant and return its id, a random UUID; *name* is for people and need not be unique.

        Raises:
            ConfigurationError: There is no such plan, or *name* is no printable text of 1-255 bytes.
        """
        checked_name("a tenant's name", name)
        with self.transaction() as state:
            self._plan(plan)
            tenant = TenantId(str(self._new_id()))
            state.tenants[tenant] = TenantRecord(tenant_id=tenant, name=name, plan=plan)
            self._log.append(ChangeType.USER_CHANGED, self._now_us(), tenant_id=tenant)
        return tenant

    def tenant(self, tenant: TenantId) -> TenantRecord:
        """Return what is known of *tenant*.

        Raises:
            ConfigurationError: There is no such tenant.
        """
        with self._lock:
            return self._tenant(tenant)

    def tenants(self) -> tuple[TenantRecord, ...]:
        """Return all tenants, oldest first."""
        with self._lock:
            return tuple(self._state.tenants.values())

    def suspend(self, tenant: TenantId) -> int:
        """Suspend *tenant*: none of its keys counts until `resume`. Return the revision; twice changes nothing."""
        return self._set_status(tenant, TenantStatus.SUSPENDED, ChangeType.USER_SUSPENDED)

    def resume(self, tenant: TenantId) -> int:
        """End the suspension of *tenant*. Return the revision; a tenant that is active stays as it is.

        Raises:
            ConfigurationError: There is no such tenant, or its deletion has begun.
        """
        return self._set_status(tenant, TenantStatus.ACTIVE, ChangeType.USER_RESUMED)

    def begin_deletion(self, tenant: TenantId) -> int:
        """Mark *tenant* as being deleted: its keys stop to count, its usage is still taken. Return the revision."""
        return self._set_status(tenant, TenantStatus.DELETING, ChangeType.USER_DELETING)

    def delete_tenant(self, tenant: TenantId) -> int:
        """Delete *tenant* with its keys and usage, beginning the deletion if that was not done. Return the revision.

        Its keys are unknown afterwards, and usage that still comes for it is rejected as ``unknown_user``.

        Raises:
            ConfigurationError: There is no such tenant.
        """
        self.begin_deletion(tenant)
        with self.transaction() as state:
            self._tenant(tenant)
            state.drop_tenant(tenant)
            return self._log.append(ChangeType.USER_DELETED, self._now_us(), tenant_id=tenant)

    def _set_status(self, tenant: TenantId, status: TenantStatus, kind: ChangeType) -> int:
        with self.transaction() as state:
            record = self._tenant(tenant)
            if record.status is status:
                return self._log.revision
            if record.status is TenantStatus.DELETING:
                raise ConfigurationError(f"tenant {tenant} is being deleted; that cannot be taken back")
            state.tenants[tenant] = replace(record, status=status)
            return self._log.append(kind, self._now_us(), tenant_id=tenant)

    def _tenant(self, tenant: TenantId) -> TenantRecord:
        record = self._state.tenants.get(tenant)
        if record is None:
            raise ConfigurationError(f"no tenant has the id {tenant!r}; ids come from add_tenant(), names are no ids")
        return record

    # --- plans and limits --------------------------------------------------------------------------------------------

    @property
    def plans(self) -> Mapping[str, Plan]:
        """The plans as they are now, by name."""
        with self._lock:
            return MappingProxyType(dict(self._state.plans))

    def define_plan(self, plan: Plan) -> int:
        """Add *plan*, or put it in the place of the one of its name, for all tenants on it. Return the revision."""
        with self.transaction() as state:
            state.plans[plan.name] = plan
            return self._log.append(ChangeType.PLAN_CHANGED, self._now_us(), plan=plan.name)

    def set_plan(self, tenant: TenantId, plan: str) -> int:
        """Move *tenant* to *plan*; limits of its own stay. Return the revision.

        Raises:
            ConfigurationError: There is no such tenant or plan.
        """
        with self.transaction() as state:
            record = self._tenant(tenant)
            self._plan(plan)
            state.tenants[tenant] = replace(record, plan=plan)
            return self._log.append(ChangeType.USER_CHANGED, self._now_us(), tenant_id=tenant)

    def set_limit(
        self, tenant: TenantId, dimension: Dimension, limit: int | None, *, resource: str | None = None
    ) -> int:
        """Give *tenant* a quota or static limit of its own. Return the revision.

        Args:
            tenant: The tenant.
            dimension: A dimension of its plan, or a canonical one.
            limit: In the unit of the dimension; ``None``: not limited.
            resource: For one resource. ``None``: for what the plan limits, which for ``vectors`` is each collection
                alike.

        Raises:
            ConfigurationError: There is no such tenant, the dimension is in no plan and not canonical (use `set_quota`,
                which states its kind), or the limit is no whole number from 0 to 2**53 - 1.
        """
        with self.transaction() as state:
            record = self._tenant(tenant)
            if dimension in self._statics(record):
                return self._put_static(record, dimension, limit, resource)
            known = state.what_is(record, dimension, resource)
            if known is None:
                raise ConfigurationError(f"no plan declares {dimension!r}; use set_quota(QuotaLimit(...))")
            if known.kind is QuotaKind.STATIC:
                return self._put_static(record, dimension, limit, resource)
            each = resource is None and known.resource == ANY_RESOURCE
            return self._put_quota(record, replace(known, limit=limit, resource=ANY_RESOURCE if each else resource))

    def set_quota(self, tenant: TenantId, quota: QuotaLimit) -> int:
        """Give *tenant* the limit *quota* in the place of its plan's for that cell. Return the revision.

        Raises:
            ConfigurationError: There is no such tenant.
        """
        with self.transaction():
            return self._put_quota(self._tenant(tenant), quota)

    def set_rates(self, tenant: TenantId, rates: Iterable[Policy] | None) -> int:
        """Give *tenant* rate policies of its own; ``None``: those of its plan again. Return the revision.

        Raises:
            ConfigurationError: There is no such tenant, or two policies have one name.
        """
        policies = None if rates is None else RateLimits.of(rates).policies
        with self.transaction():
            return self._put_tenant(replace(self._tenant(tenant), rates=policies))

    def clear_limits(self, tenant: TenantId) -> int:
        """Drop every limit and rate of *tenant*'s own, so that its plan alone counts. Return the revision."""
        with self.transaction():
            record = self._tenant(tenant)
            return self._put_tenant(
                TenantRecord(tenant_id=tenant, name=record.name, plan=record.plan, status=record.status)
            )

    def _statics(self, record: TenantRecord) -> set[Dimension]:
        return {*self._state.plans[record.plan].statics, *record.statics}

    def _put_static(self, record: TenantRecord, dimension: Dimension, limit: int | None, resource: str | None) -> int:
        if resource is not None:
            raise ConfigurationError(f"{dimension} is a static limit, which has no resources")
        if limit is not None and (type(limit) is not int or not 0 <= limit < MAX_AMOUNT):
            raise ConfigurationError(f"{dimension} must be a whole number from 0 to 2**53 - 1, got {limit!r}")
        return self._put_tenant(replace(record, statics=MappingProxyType({**record.statics, dimension: limit})))

    def _put_quota(self, record: TenantRecord, quota: QuotaLimit) -> int:
        if quota.kind is QuotaKind.STATIC:
            raise ConfigurationError(f"{quota.dimension} is a static limit; use set_limit()")
        quotas = {**record.quotas, (quota.dimension, quota.resource): quota}
        return self._put_tenant(replace(record, quotas=MappingProxyType(quotas)))

    def _put_tenant(self, record: TenantRecord) -> int:
        self._state.tenants[record.tenant_id] = record
        return self._log.append(ChangeType.LIMITS_CHANGED, self._now_us(), tenant_id=record.tenant_id)

    def _plan(self, name: str) -> Plan:
        plan = self._state.plans.get(name)
        if plan is None:
            raise ConfigurationError(f"no plan is called {name!r}; there are {', '.join(sorted(self._state.plans))}")
        return plan


def _by_name(plans: Iterable[Plan] | Mapping[str, Plan]) -> dict[str, Plan]:
    own = list(plans.values() if isinstance(plans, Mapping) else plans)
    if isinstance(plans, Mapping) and any(name != plan.name for name, plan in plans.items()):
        raise ConfigurationError("each plan stands under its own name")
    names = [plan.name for plan in own]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"plans need different names, got {names}")
    return {**DEFAULT_PLANS, **{plan.name: plan for plan in own}}


def _known_extensions(extensions: Iterable[str]) -> frozenset[str]:
    found = frozenset(extensions)
    unknown = found.difference(ALL_EXTENSIONS)
    if isinstance(extensions, str) or unknown:
        raise ConfigurationError(f"extensions are a list of {', '.join(ALL_EXTENSIONS)}; got {sorted(unknown)}")
    return found
