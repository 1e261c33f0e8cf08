"""What can be changed about the keys of a control plane in memory: those of its users, and those of services.

Each change is a transaction of `hivetenancy.authority.accounts.HubAccounts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Literal

from hivetenancy.access_keys.format import digest, digest_prefix
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.plans import MAX_AMOUNT
from hivetenancy.sources import ChangeType, TenantStatus

from .accounts import HubAccounts
from .credentials import (
    ALL_SCOPES,
    MintedServiceKey,
    ServiceIdentity,
    ServiceKey,
    ServiceSecret,
    checked_scopes,
    checked_secret,
    find_identity,
    mint_service_secret,
    service_digest,
)
from .keys import (
    MAX_OVERLAP_SECONDS,
    Key,
    KeyVersion,
    checked_name,
    checked_networks,
    checked_permissions,
    checked_rules,
    checked_service,
)


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


class HubAdministration(HubAccounts):
    """The keys of a control plane in memory; `hivetenancy.authority.service.HubService` adds its answers."""

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
        service: str | None = None,
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
            service: The one service it is for, of `hivetenancy.authority.keys.SERVICES`; ``None``: all.

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
            service=checked_service(service),
            versions=(version,),
        )
        with self.transaction() as state:
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
        _check_overlap(overlap_seconds)
        now_us = self._now_us()
        with self.transaction() as state:
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
        with self.transaction() as state:
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
        with self.transaction() as state:
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

    # --- service keys ------------------------------------------------------------------------------------------------

    def issue_service_key(
        self,
        service: str | None = None,
        scopes: Iterable[str] = ALL_SCOPES,
        *,
        expires_at_us: int | None = None,
        identity: str | None = None,
        secret: str | None = None,
    ) -> MintedServiceKey:
        """Issue a service key; its secret is in the answer and nowhere else. No change that pollers hear of.

        Args:
            service: The one service that it speaks for; ``None``: all.
            scopes: What it may do, of `hivetenancy.authority.credentials.ALL_SCOPES`.
            expires_at_us: Not valid from then on, in wall microseconds; ``None``: no end.
            identity: Who its holder is, to whom usage sources and idempotency keys belong: stays the same where a key
                is issued anew for the same holder. ``None``: the key's id.
            secret: Take this one instead of a random one, as from a file of the operator's.

        Raises:
            ConfigurationError: A value is out of range, or the secret is that of another key.
        """
        key_id = str(self._new_id())
        made = mint_service_secret(service) if secret is None else checked_secret(secret)
        _check_span(None, expires_at_us)
        key = ServiceKey(
            key_id=key_id,
            identity=key_id if identity is None else checked_name("an identity", identity),
            service=checked_service(service),
            scopes=checked_scopes(scopes),
            created_at_us=self._now_us(),
            expires_at_us=expires_at_us,
            secrets=(ServiceSecret(digest=service_digest(made)),),
        )
        with self.transaction() as state:
            known = {held.digest for other in state.service_keys.values() for held in other.secrets}
            if key.secrets[0].digest in known:
                raise ConfigurationError("that secret is already the secret of a service key")
            state.service_keys[key_id] = key
        return MintedServiceKey.of(key, made)

    def rotate_service_key(self, key_id: str, *, overlap_seconds: int = 0) -> MintedServiceKey:
        """Give a service key a new secret; the one before counts for *overlap_seconds* more, any older one ends now.

        Pollers hear of it (``service_key_rotated``).

        Raises:
            ConfigurationError: There is no such service key, or the overlap is not 0 to 2,592,000.
        """
        _check_overlap(overlap_seconds)
        with self.transaction() as state:
            key, now_us = self._service_key(key_id), self._now_us()
            made = mint_service_secret(key.service)
            ends = now_us + overlap_seconds * SECOND_US
            key = key.rotated(service_digest(made), ends_at_us=ends)
            state.service_keys[key_id] = key
            self._log.append(ChangeType.SERVICE_KEY_ROTATED, now_us, expires_at_us=ends)
        return MintedServiceKey.of(key, made)

    def revoke_service_key(self, key_id: str) -> int:
        """End a service key at once. Return the revision: for pollers, it was rotated and the old one is over.

        Raises:
            ConfigurationError: There is no such service key.
        """
        with self.transaction() as state:
            self._service_key(key_id)
            del state.service_keys[key_id]
            now_us = self._now_us()
            return self._log.append(ChangeType.SERVICE_KEY_ROTATED, now_us, expires_at_us=now_us)

    def service_keys(self) -> tuple[ServiceKey, ...]:
        """Return the service keys, oldest first; no secret is in them."""
        with self._lock:
            return tuple(self._state.service_keys.values())

    def authenticate(self, secret: str) -> ServiceIdentity | None:
        """Return who presents the service key *secret*; ``None``: nobody who may speak to this hub.

        How long it takes does not depend on how much of *secret* is right.
        """
        now_us = self._now_us()
        with self._lock:
            return find_identity(self._state.service_keys.values(), secret, now_us)

    def _service_key(self, key_id: str) -> ServiceKey:
        key = self._state.service_keys.get(key_id)
        if key is None:
            raise ConfigurationError("no service key has that id; ids come from issue_service_key(), a secret is no id")
        return key


def _check_overlap(overlap_seconds: int) -> None:
    if type(overlap_seconds) is not int or not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
        raise ConfigurationError(f"overlap_seconds must be 0 to {MAX_OVERLAP_SECONDS}, got {overlap_seconds!r}")


def _check_span(not_before_us: int | None, expires_at_us: int | None) -> None:
    for what, value in (("not_before_us", not_before_us), ("expires_at_us", expires_at_us)):
        if value is not None and (type(value) is not int or not 0 <= value < MAX_AMOUNT):
            raise ConfigurationError(f"{what} is wall time in whole microseconds, got {value!r}")
    if not_before_us is not None and expires_at_us is not None and expires_at_us <= not_before_us:
        raise ConfigurationError("a key that expires before it is valid would never open anything")
