"""Access keys as the control plane holds them: digests, never secrets.

A key keeps its id over rotations; each secret is a *version*. At most two live at once: the newest, and the one before
until its overlap ends. Values are frozen, a change is a new one, so that a snapshot of the hub is a copied dict.
"""

from __future__ import annotations

import ipaddress
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.sources import InactiveKey, InactiveReason, KeyRecord, KeyState

ALPHABET: Final = string.ascii_letters + string.digits
SECRET_LENGTH: Final = 43
"""Characters of base 62: 256 bits, where wire 4.3 asks for 128 before a plain digest may be the key of a cache."""

MAX_OVERLAP_SECONDS: Final = 2_592_000
"""Thirty days (HiveHub wire 4.8)."""

SERVICES: Final = ("vectorizer", "nexus", "synap", "lesstokens")
"""The services of HiveHub (HiveHub wire, part 1)."""

MAX_NAME_BYTES: Final = 255
_MAX_LIST: Final = 1_000


def mint(key_id: KeyId, environment: Environment) -> str:
    """Return a new secret from the system's randomness: ``hh_test_``, 12 digits of the key's id, ``_``, 43 in base 62.

    The digits of the id let a person find the key that a leaked string belongs to; they say nothing about the rest.
    """
    body = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    return f"hh_{environment.value}_{key_id.replace('-', '')[:12]}_{body}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyVersion:
    """One secret of a key.

    Attributes:
        version: 1 for the first.
        digest: Digest of the secret (`hivetenancy.access_keys.format.digest`).
        ends_at_us: When it stops to count; ``None`` for the newest.
        withdrawn: Whether it was ended as compromised rather than by its overlap.
    """

    version: int
    digest: bytes = field(repr=False)
    ends_at_us: int | None = None
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One access key with its versions; fields as in `hivetenancy.sources.KeyRecord`.

    ``tenant_id`` is ``None`` for a key that nobody owns, ``service`` for a key that is for all services.
    """

    key_id: KeyId
    tenant_id: TenantId | None
    name: str
    permissions: frozenset[Permission]
    functions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    networks: tuple[str, ...]
    environment: Environment
    created_at_us: int
    not_before_us: int | None
    expires_at_us: int | None
    service: str | None = None
    revoked_at_us: int | None = None
    versions: tuple[KeyVersion, ...] = field(repr=False, default=())

    @property
    def newest(self) -> KeyVersion:
        """The version that was minted last."""
        return self.versions[-1]

    def serves(self, service: str | None) -> bool:
        """Whether the key is there for *service*; ``None`` stands for somebody who serves all."""
        return service is None or self.service is None or self.service == service

    def ended(self, now_us: int) -> InactiveReason | None:
        """Why the key as such is over at *now_us*, whichever of its secrets is presented; ``None``: it is not."""
        if self.revoked_at_us is not None:
            return InactiveReason.REVOKED
        if self.expires_at_us is not None and self.expires_at_us <= now_us:
            return InactiveReason.EXPIRED
        return None

    def state(self, digest: bytes, *, plan: str, suspended: bool, now_us: int) -> KeyState:
        """Say what the secret behind *digest* is worth at *now_us*."""
        presented = next(version for version in self.versions if version.digest == digest)
        reason = self._inactive(presented, suspended=suspended, now_us=now_us)
        if reason is not None:
            revoked_at = self.revoked_at_us if self.revoked_at_us is not None else presented.ends_at_us
            return InactiveKey(
                reason=reason,
                key_id=self.key_id,
                tenant_id=self.tenant_id,
                revoked_at_us=revoked_at if reason is InactiveReason.REVOKED else None,
                not_before_us=self.not_before_us if reason is InactiveReason.NOT_YET_VALID else None,
            )
        return self._record(presented, plan=plan, now_us=now_us)

    def _inactive(self, presented: KeyVersion, *, suspended: bool, now_us: int) -> InactiveReason | None:
        """The reason that lasts longest comes first: who hears "revoked" need never ask again."""
        ended = presented.ends_at_us is not None and presented.ends_at_us <= now_us
        if self.revoked_at_us is not None or (ended and presented.withdrawn):
            return InactiveReason.REVOKED
        if ended or (self.expires_at_us is not None and self.expires_at_us <= now_us):
            return InactiveReason.EXPIRED
        if self.tenant_id is None:
            return InactiveReason.UNOWNED
        if suspended:
            return InactiveReason.SUSPENDED
        if self.not_before_us is not None and now_us < self.not_before_us:
            return InactiveReason.NOT_YET_VALID
        return None

    def _record(self, presented: KeyVersion, *, plan: str, now_us: int) -> KeyRecord:
        assert self.tenant_id is not None  # `_inactive` answered for a key that nobody owns
        overlap = max((old.ends_at_us or 0 for old in self.versions[:-1]), default=0)
        return KeyRecord(
            key_id=self.key_id,
            version=presented.version,
            tenant_id=self.tenant_id,
            name=self.name,
            permissions=self.permissions,
            functions=self.functions,
            resources=self.resources,
            networks=self.networks,
            environment=self.environment,
            plan=plan,
            created_at_us=self.created_at_us,
            not_before_us=self.not_before_us,
            expires_at_us=self.expires_at_us,
            current_version=self.newest.version,
            overlap_until_us=overlap if overlap > now_us else None,
        )

    def rotated(self, digest: bytes, *, overlap_seconds: int, compromised: bool, now_us: int) -> Key:
        """Return the key with a new version; the one before ends after the overlap, any older one now."""
        ends = now_us + (0 if compromised else overlap_seconds * SECOND_US)
        previous = self.newest
        older = tuple(_ended(old, now_us) for old in self.versions[:-1])
        previous = replace(previous, ends_at_us=ends, withdrawn=compromised)
        new = KeyVersion(version=previous.version + 1, digest=digest)
        return replace(self, versions=(*older, previous, new))


def _ended(version: KeyVersion, now_us: int) -> KeyVersion:
    if version.ends_at_us is not None and version.ends_at_us <= now_us:
        return version
    return replace(version, ends_at_us=now_us)


def checked_name(what: str, name: str) -> str:
    """Return *name* if it is a display name: 1-255 bytes of UTF-8, no control character.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        fits = 1 <= len(name.encode("utf-8")) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        fits = False
    if not fits or not name.isprintable() or name.strip() != name:
        raise ConfigurationError(
            f"{what} must be 1-{MAX_NAME_BYTES} bytes of printable text without spaces at its ends, got {name!r}"
        )
    return name


def checked_service(service: str | None) -> str | None:
    """Return *service* if it is one, ``None`` standing for all.

    Raises:
        ConfigurationError: It is none.
    """
    if service is None or service in SERVICES:
        return None if service is None else str(service)
    raise ConfigurationError(f"services are {', '.join(SERVICES)}, got {service!r}")


def checked_permissions(permissions: Iterable[Permission | str]) -> frozenset[Permission]:
    """Return *permissions* as a set, never empty.

    Raises:
        ConfigurationError: There is none, or one that the wire does not know.
    """
    if isinstance(permissions, str):
        raise ConfigurationError(f'permissions is a list, such as ["read", "write"], got {permissions!r}')
    try:
        found = frozenset(Permission(permission) for permission in permissions)
    except ValueError as error:
        known = ", ".join(permission.value for permission in Permission)
        raise ConfigurationError(f"{error}; permissions are {known}") from None
    if not found:
        raise ConfigurationError("a key needs at least one permission: a key without any could do nothing")
    return found


def checked_rules(what: str, rules: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return an allow list as a tuple; ``None`` (no list) and empty (nothing) stay apart.

    Raises:
        ConfigurationError: It is a bare text, too long, or holds something that is no printable text.
    """
    if rules is None:
        return None
    if isinstance(rules, str):
        raise ConfigurationError(f"{what} is a list of texts, got the text {rules!r}")
    found = tuple(rules)
    if len(found) > _MAX_LIST:
        raise ConfigurationError(f"{what} may hold {_MAX_LIST} entries, got {len(found)}")
    return tuple(checked_name(f"each of {what}", rule) for rule in found)


def checked_networks(networks: Iterable[str]) -> tuple[str, ...]:
    """Return networks in their canonical form.

    Raises:
        ConfigurationError: One is no network, or has bits set below its mask.
    """
    rules = checked_rules("networks", networks) or ()
    try:
        return tuple(str(ipaddress.ip_network(rule)) for rule in rules)
    except ValueError as error:
        raise ConfigurationError(f"networks are CIDR blocks such as 10.0.0.0/8: {error}") from None
