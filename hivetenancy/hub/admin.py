"""What can be changed at a control plane in memory: tenants, plans, limits and keys.

Every change goes through `HubAdministration._changed`: under one lock the state is replaced and the change logged,
which gives it its revision; after the lock, whoever waits for changes is told. One lock is enough: a control plane is
asked when something is not in memory yet, never once a request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal
from uuid import UUID, uuid4

from hivetenancy.access_keys.format import digest, digest_prefix
from hivetenancy.clock import Clock, SystemClock
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension, Environment, KeyId, Permission, TenantId
from hivetenancy.plans import ANY_RESOURCE, MAX_AMOUNT, Plan, Policy, QuotaKind, QuotaLimit, RateLimits
from hivetenancy.sources import ChangeType, TenantStatus

from .bell import Bell
from .feed import ChangeLog
from .keys import (
    MAX_OVERLAP_SECONDS,
    Key,
    KeyVersion,
    checked_name,
    checked_networks,
    checked_permissions,
    checked_rules,
    mint,
)
from .plans import DEFAULT_PLANS
from .state import HubState, TenantRecord

_logger = logging.getLogger("hivetenancy.hub")


class Unchanged(Enum):
    """The default of `HubService.change_key`: leave that part as it is, where ``None`` already says something."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNCHANGED: Final = Unchanged.UNCHANGED
"""Leave it as it is."""

_Same = Literal[Unchanged.UNCHANGED]


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedKey:
    """A secret, shown this once.

    Attributes:
        key_id: The key's public id.
        version: Which version of the key this secret is.
        secret: What the caller presents; the hub keeps only its digest. Not part of the repr.
        revision: The hub's revision of this change.
    """

    key_id: KeyId
    version: int
    secret: str = field(repr=False)
    revision: int


class HubAdministration:
    """The changes of a control plane in memory.

    `hivetenancy.hub.service.HubService` adds its answers, and says what the arguments are.
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
    ) -> None:
        self._clock = SystemClock() if clock is None else clock
        self._environment = environment
        self._authority = authority
        self._new_id = new_id
        self._mint = mint_secret
        self._hub_id = str(new_id())
        self._lock = threading.Lock()
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

    def _now_us(self) -> int:
        return self._clock.now()[1]

    @contextmanager
    def _changed(self) -> Iterator[HubState]:
        """Hold the lock for a change, and tell about it afterwards if there was one."""
        with self._lock:
            before = (self._log.epoch, self._log.revision)
            yield self._state
            changed = before != (self._log.epoch, self._log.revision)
        if changed:
            self.wake()

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
        with self._changed():
            return self._log.start_epoch()

    # --- tenants -----------------------------------------------------------------------------------------------------

    def add_tenant(self, name: str, *, plan: str) -> TenantId:
        """Create a tenant and return its id, a random UUID; *name* is for people and need not be unique.

        Raises:
            ConfigurationError: There is no such plan, or *name* is no printable text of 1-255 bytes.
        """
        checked_name("a tenant's name", name)
        with self._changed() as state:
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
        with self._changed() as state:
            self._tenant(tenant)
            state.drop_tenant(tenant)
            return self._log.append(ChangeType.USER_DELETED, self._now_us(), tenant_id=tenant)

    def _set_status(self, tenant: TenantId, status: TenantStatus, kind: ChangeType) -> int:
        with self._changed() as state:
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
        with self._changed() as state:
            state.plans[plan.name] = plan
            return self._log.append(ChangeType.PLAN_CHANGED, self._now_us(), plan=plan.name)

    def set_plan(self, tenant: TenantId, plan: str) -> int:
        """Move *tenant* to *plan*; limits of its own stay. Return the revision.

        Raises:
            ConfigurationError: There is no such tenant or plan.
        """
        with self._changed() as state:
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
        with self._changed() as state:
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
        with self._changed():
            return self._put_quota(self._tenant(tenant), quota)

    def set_rates(self, tenant: TenantId, rates: Iterable[Policy] | None) -> int:
        """Give *tenant* rate policies of its own; ``None``: those of its plan again. Return the revision.

        Raises:
            ConfigurationError: There is no such tenant, or two policies have one name.
        """
        policies = None if rates is None else RateLimits.of(rates).policies
        with self._changed():
            return self._put_tenant(replace(self._tenant(tenant), rates=policies))

    def clear_limits(self, tenant: TenantId) -> int:
        """Drop every limit and rate of *tenant*'s own, so that its plan alone counts. Return the revision."""
        with self._changed():
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

    # --- keys --------------------------------------------------------------------------------------------------------

    def issue_key(
        self,
        tenant: TenantId | None,
        *,
        name: str,
        permissions: Iterable[Permission | str],
        functions: Iterable[str] | None = None,
        resources: Iterable[str] | None = None,
        networks: Iterable[str] = (),
        environment: Environment | None = None,
        not_before_us: int | None = None,
        expires_at_us: int | None = None,
    ) -> MintedKey:
        """Issue a key; its secret is in the answer and nowhere else.

        Args:
            tenant: The owner; ``None``: nobody, as the hub's own call without a user does. Such a key opens nothing.
            name: The owner's name for it.
            permissions: Wire permissions, at least one.
            functions: The function allow list; ``None``: no list, empty: nothing.
            resources: Resource rules; ``None``: none.
            networks: CIDR blocks it is confined to; empty: everywhere.
            environment: ``None``: the hub's.
            not_before_us: Not valid before, in wall microseconds; ``None``: at once.
            expires_at_us: Not valid from then on, in wall microseconds; ``None``: no end.

        Raises:
            ConfigurationError: There is no such tenant, its deletion has begun, or a value is out of range.
        """
        now_us = self._now_us()
        _check_span(not_before_us, expires_at_us)
        key_id = KeyId(str(self._new_id()))
        kind = self._environment if environment is None else Environment(environment)
        secret = self._mint(key_id, kind)
        version = KeyVersion(version=1, digest=digest(secret.encode("ascii")))
        key = Key(
            key_id=key_id,
            tenant_id=tenant,
            name=checked_name("a key's name", name),
            permissions=checked_permissions(permissions),
            functions=checked_rules("functions", functions),
            resources=checked_rules("resources", resources),
            networks=checked_networks(networks),
            environment=kind,
            created_at_us=now_us,
            not_before_us=not_before_us,
            expires_at_us=expires_at_us,
            versions=(version,),
        )
        with self._changed() as state:
            if tenant is not None and self._tenant(tenant).status is TenantStatus.DELETING:
                raise ConfigurationError(f"tenant {tenant} is being deleted and gets no new keys")
            state.put_key(key)
            revision = self._key_event(ChangeType.KEY_CREATED, key, secret_is_new=True)
        return MintedKey(key_id=key_id, version=1, secret=secret, revision=revision)

    def rotate_key(
        self,
        key_id: KeyId,
        *,
        overlap_seconds: int = 0,
        compromised: bool = False,
        expected_version: int | None = None,
    ) -> MintedKey:
        """Give a key a new secret; the one before counts for *overlap_seconds* more, any older one ends now.

        The id stays, nothing widens, no expiry moves.

        Args:
            key_id: The key.
            overlap_seconds: 0 to 2,592,000 (30 days).
            compromised: End the one before at once, as revoked, whatever the overlap.
            expected_version: Refuse if another rotation came first; ``None``: do not look.

        Raises:
            ConfigurationError: There is no such key, it is revoked or expired, its newest version is another, or the
                overlap is out of range.
        """
        if type(overlap_seconds) is not int or not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
            raise ConfigurationError(f"overlap_seconds must be 0 to {MAX_OVERLAP_SECONDS}, got {overlap_seconds!r}")
        now_us = self._now_us()
        with self._changed() as state:
            key = self._live_key(key_id, now_us)
            if expected_version is not None and expected_version != key.newest.version:
                raise ConfigurationError(
                    f"key {key_id} is at version {key.newest.version}, not {expected_version}: it was rotated since"
                )
            secret = self._mint(key_id, key.environment)
            key = key.rotated(
                digest(secret.encode("ascii")),
                overlap_seconds=overlap_seconds,
                compromised=compromised,
                now_us=now_us,
            )
            state.put_key(key)
            revision = self._key_event(ChangeType.KEY_ROTATED, key, secret_is_new=True)
        return MintedKey(key_id=key_id, version=key.newest.version, secret=secret, revision=revision)

    def change_key(
        self,
        key_id: KeyId,
        *,
        name: str | _Same = UNCHANGED,
        permissions: Iterable[Permission | str] | _Same = UNCHANGED,
        functions: Iterable[str] | _Same | None = UNCHANGED,
        resources: Iterable[str] | _Same | None = UNCHANGED,
        networks: Iterable[str] | _Same = UNCHANGED,
        not_before_us: int | _Same | None = UNCHANGED,
        expires_at_us: int | _Same | None = UNCHANGED,
    ) -> int:
        """Change what a key may do or how long; what is not named stays. Return the revision.

        Raises:
            ConfigurationError: There is no such key, it is revoked, or a value is out of range.
        """
        with self._changed() as state:
            key = self._key(key_id)
            if key.revoked_at_us is not None:
                raise ConfigurationError(f"key {key_id} is revoked; issue another one")
            start = key.not_before_us if isinstance(not_before_us, Unchanged) else not_before_us
            end = key.expires_at_us if isinstance(expires_at_us, Unchanged) else expires_at_us
            if expires_at_us is not UNCHANGED or not_before_us is not UNCHANGED:
                _check_span(start, end)
            key = replace(
                key,
                name=key.name if isinstance(name, Unchanged) else checked_name("a key's name", name),
                permissions=(
                    key.permissions if isinstance(permissions, Unchanged) else checked_permissions(permissions)
                ),
                functions=key.functions if isinstance(functions, Unchanged) else checked_rules("functions", functions),
                resources=key.resources if isinstance(resources, Unchanged) else checked_rules("resources", resources),
                networks=key.networks if isinstance(networks, Unchanged) else checked_networks(networks),
                not_before_us=start,
                expires_at_us=end,
            )
            state.put_key(key)
            return self._key_event(ChangeType.KEY_CHANGED, key)

    def revoke_key(self, key_id: KeyId) -> int:
        """Revoke a key with all its versions, for good. Return the revision; a second time changes nothing.

        Raises:
            ConfigurationError: There is no such key.
        """
        with self._changed() as state:
            key = self._key(key_id)
            if key.revoked_at_us is not None:
                return self._log.revision
            key = replace(key, revoked_at_us=self._now_us())
            state.put_key(key)
            return self._key_event(ChangeType.KEY_REVOKED, key)

    def key(self, key_id: KeyId) -> Key:
        """Return what is known of a key; no secret is in it, and its digests stay out of the repr.

        Raises:
            ConfigurationError: There is no such key.
        """
        with self._lock:
            return self._key(key_id)

    def key_id_of(self, credential: bytes) -> KeyId | None:
        """Return the id of the key that *credential* belongs to, live or not; ``None``: it is unknown."""
        presented = digest(credential)
        with self._lock:
            return self._state.digests.get(presented)

    def keys(self, tenant: TenantId) -> tuple[Key, ...]:
        """Return the keys of *tenant*, oldest first, revoked ones among them.

        Raises:
            ConfigurationError: There is no such tenant.
        """
        with self._lock:
            self._tenant(tenant)
            return tuple(key for key in self._state.keys.values() if key.tenant_id == tenant)

    def _key(self, key_id: KeyId) -> Key:
        key = self._state.keys.get(key_id)
        if key is None:
            raise ConfigurationError("no key has that id; ids come from issue_key(), a secret is no id")
        return key

    def _live_key(self, key_id: KeyId, now_us: int) -> Key:
        key = self._key(key_id)
        if key.revoked_at_us is not None:
            raise ConfigurationError(f"key {key_id} is revoked; issue another one")
        if key.expires_at_us is not None and key.expires_at_us <= now_us:
            raise ConfigurationError(f"key {key_id} has expired; issue another one")
        return key

    def _key_event(self, kind: ChangeType, key: Key, *, secret_is_new: bool = False) -> int:
        return self._log.append(
            kind,
            self._now_us(),
            key_id=key.key_id,
            tenant_id=key.tenant_id,
            digest_prefix=digest_prefix(key.newest.digest) if secret_is_new else None,
            revoked_at_us=key.revoked_at_us if kind is ChangeType.KEY_REVOKED else None,
        )


def _by_name(plans: Iterable[Plan] | Mapping[str, Plan]) -> dict[str, Plan]:
    own = list(plans.values() if isinstance(plans, Mapping) else plans)
    if isinstance(plans, Mapping) and any(name != plan.name for name, plan in plans.items()):
        raise ConfigurationError("each plan stands under its own name")
    names = [plan.name for plan in own]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"plans need different names, got {names}")
    return {**DEFAULT_PLANS, **{plan.name: plan for plan in own}}


def _check_span(not_before_us: int | None, expires_at_us: int | None) -> None:
    for what, value in (("not_before_us", not_before_us), ("expires_at_us", expires_at_us)):
        if value is not None and (type(value) is not int or not 0 <= value < MAX_AMOUNT):
            raise ConfigurationError(f"{what} is wall time in whole microseconds, got {value!r}")
    if not_before_us is not None and expires_at_us is not None and expires_at_us <= not_before_us:
        raise ConfigurationError("a key that expires before it is valid would never open anything")
