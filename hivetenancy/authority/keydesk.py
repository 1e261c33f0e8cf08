"""The management of access keys as a control plane's callers see it: calls 1 to 4 of today's wire, and X6.

Every refusal is a `CallRefused` with the wire's status and text, and leaves everything as it was. A key of another
user or service is refused like one that does not exist.

A key made from a parent never opens more than the parent does, and what cannot be told counts as more. That is judged
in the transaction that makes the key, so no change of the parent comes between.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

from hivetenancy.access_keys.permissions import check_patterns, narrower
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.sources import InactiveReason, TenantStatus

from .admin import HubAdministration, MintedKey
from .keys import (
    MAX_OVERLAP_SECONDS,
    SERVICES,
    Key,
    checked_name,
    checked_networks,
    checked_permissions,
    checked_rules,
    checked_service,
)
from .resources import CallRefused, KeyEntry, KeyPage, RevokedKey, ShownKey
from .state import HubState, TenantRecord

MAX_PAGE: Final = 1_000
"""Keys in one page."""

_CURSOR: Final = re.compile(r"(?P<at>[0-9]{1,18})-(?P<id>[0-9a-f-]{36})", re.ASCII)


@contextmanager
def bad_field(name: str) -> Iterator[None]:
    """Turn a value that the model refuses into 400 ``bad_field`` with the field's name."""
    try:
        yield
    except ValueError as error:
        raise CallRefused(400, "bad_field", f"{name}: {error}"[:400], name) from None


def live_user(record: TenantRecord) -> None:
    """Refuse to begin anything new for a user that is suspended or being deleted.

    Raises:
        CallRefused: 409 ``user_not_active``.
    """
    if record.status is not TenantStatus.ACTIVE:
        raise CallRefused(409, "user_not_active", f"User is {record.status.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a key is to be, checked field by field."""

    name: str
    permissions: frozenset[Permission]
    functions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    networks: tuple[str, ...]
    environment: Environment | None
    not_before_us: int | None
    expires_at_us: int | None
    service: str | None


class KeyDesk:
    """Calls 1 to 4, and rotation.

    *caller* is the service that the caller's service key speaks for: it sees keys of that service and of all, and no
    others; ``None`` sees every key.

    Args:
        hub: The control plane.

    Concurrency:
        As the control plane: any thread; each call is one transaction of its own, or part of the caller's.
    """

    def __init__(self, hub: HubAdministration) -> None:
        self._hub = hub

    def _now_us(self) -> int:
        return self._hub.clock.now()[1]

    def _user(self, state: HubState, user_id: str) -> TenantRecord:
        record = state.tenants.get(TenantId(user_id))
        if record is None:
            raise CallRefused(404, "not_found", "User not found")
        return record

    def generate_key(
        self,
        service: str | None,
        name: str,
        permissions: Iterable[Permission | str],
        *,
        expires_at_us: int | None = None,
        user_id: str | None = None,
        functions: Iterable[str] | None = None,
        resources: Iterable[str] | None = None,
        networks: Iterable[str] = (),
        environment: Environment | str | None = None,
        not_before_us: int | None = None,
        parent_key_id: str | None = None,
    ) -> ShownKey:
        """Make a key (call 1); its secret is in the answer and nowhere else.

        Args:
            service: The one service it is for; ``None``: all.
            name: The owner's name for it.
            permissions: At least one.
            expires_at_us: Not valid from then on; ``None``: no end. One in the past is refused.
            user_id: The owner. ``None``: that of the parent; without a parent nobody, and the key opens nothing.
            functions: The function allow list; ``None``: no list, empty: nothing.
            resources: Resource rules; ``None``: none.
            networks: CIDR blocks it is confined to; empty: everywhere.
            environment: ``None``: that of the parent, or the hub's.
            not_before_us: Not valid before; ``None``: at once.
            parent_key_id: The key that this one is made from, and never wider than; ``None``: none.

        Raises:
            CallRefused: 400 ``bad_field``; 404 for the user or the parent; 409 ``user_not_active``,
                ``parent_not_active`` or ``wider_than_parent`` (with the field).
        """
        with self._hub.transaction() as state:
            now_us = self._now_us()
            wanted = _checked(
                service, name, permissions, functions, resources, networks, environment, not_before_us, expires_at_us
            )
            if expires_at_us is not None and expires_at_us <= now_us:
                raise CallRefused(400, "bad_field", "expires_at: lies in the past", "expires_at")
            parent = None if parent_key_id is None else self._key(state, parent_key_id, wanted.service)
            owner = self._owner(state, user_id, parent)
            kind = wanted.environment
            if parent is not None:
                _check_parent(parent, wanted, now_us)
                kind = wanted.environment or parent.environment
            minted = self._hub.issue_key(
                owner,
                name=wanted.name,
                permissions=wanted.permissions,
                functions=wanted.functions,
                resources=wanted.resources,
                networks=wanted.networks,
                environment=kind,
                not_before_us=wanted.not_before_us,
                expires_at_us=wanted.expires_at_us,
                service=wanted.service,
            )
            return self._shown(state, minted)

    def list_keys(
        self,
        service: str | None = None,
        *,
        user_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        caller: str | None = None,
    ) -> KeyPage:
        """List keys, oldest first, revoked ones among them (call 2).

        Args:
            service: Only keys for this service, those for all among them; ``None``: do not look.
            user_id: Only keys of this user; ``None``: of everybody, unowned ones among them.
            limit: At most so many, 1 to 1,000; ``None``: all that there are.
            cursor: Where the page before ended; ``None``: from the start.
            caller: See the class.

        Raises:
            CallRefused: 400 ``bad_field``; 404 "User not found".
        """
        with bad_field("service"):
            checked_service(service)
        if limit is not None and (type(limit) is not int or not 1 <= limit <= MAX_PAGE):
            raise CallRefused(400, "bad_field", f"limit: must be 1 to {MAX_PAGE}", "limit")
        after = _place(cursor)
        with self._hub.reading() as state:
            if user_id is not None:
                self._user(state, user_id)
            places = (
                (key.created_at_us, key.key_id)
                for key in state.keys.values()
                if key.serves(service) and key.serves(caller) and user_id in (None, key.tenant_id)
            )
            rest = (place for place in places if place > after)
            found = sorted(rest) if limit is None else nsmallest(limit + 1, rest)
            shown = found[:limit]
            now_us = self._now_us()
            return KeyPage(
                keys=tuple(_entry(state, state.keys[key_id], now_us, service or caller) for _, key_id in shown),
                cursor=f"{shown[-1][0]}-{shown[-1][1]}" if len(shown) < len(found) else None,
                epoch=self._hub.epoch,
                revision=self._hub.revision,
                now_us=now_us,
            )

    def get_key(self, key_id: str, *, caller: str | None = None) -> KeyEntry:
        """Show a key (call 3).

        Raises:
            CallRefused: 404 "Access key not found".
        """
        with self._hub.reading() as state:
            return _entry(state, self._key(state, key_id, caller), self._now_us(), caller)

    def revoke_key(self, key_id: str, *, caller: str | None = None) -> RevokedKey:
        """Revoke a key with all its versions, for good (call 4).

        Raises:
            CallRefused: 404 "Access key not found"; 400 ``already_revoked``.
        """
        with self._hub.transaction() as state:
            key = self._key(state, key_id, caller)
            if key.revoked_at_us is not None:
                raise CallRefused(400, "already_revoked", "Access key already revoked")
            revision = self._hub.revoke_key(key.key_id)
            return RevokedKey(
                success=True,
                message="Access key revoked",
                epoch=self._hub.epoch,
                revision=revision,
                now_us=self._now_us(),
            )

    def rotate_key(
        self,
        key_id: str,
        *,
        overlap_seconds: int,
        expected_version: int,
        compromised: bool = False,
        caller: str | None = None,
    ) -> ShownKey:
        """Give a key a new secret; the one before counts for *overlap_seconds* more, any older one ends now.

        Args:
            key_id: The key.
            overlap_seconds: 0 to 2,592,000 (30 days).
            expected_version: The newest version that the caller knows of.
            compromised: End the one before at once, as revoked, whatever the overlap.
            caller: See the class.

        Raises:
            CallRefused: 400 ``bad_field`` or ``already_revoked``; 404 "Access key not found"; 409 ``version_conflict``
                or ``key_expired``.
        """
        if type(overlap_seconds) is not int or not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
            text = f"overlap_seconds: must be 0 to {MAX_OVERLAP_SECONDS}"
            raise CallRefused(400, "bad_field", text, "overlap_seconds")
        with self._hub.transaction() as state:
            key = self._key(state, key_id, caller)
            over = key.ended(self._now_us())
            if over is InactiveReason.REVOKED:
                raise CallRefused(400, "already_revoked", "Access key already revoked")
            if over is not None:
                raise CallRefused(409, "key_expired", "Access key expired")
            if key.newest.version != expected_version:
                raise CallRefused(409, "version_conflict", f"Access key is at version {key.newest.version}")
            minted = self._hub.rotate_key(key.key_id, overlap_seconds=overlap_seconds, compromised=compromised)
            return self._shown(state, minted)

    def _owner(self, state: HubState, user_id: str | None, parent: Key | None) -> TenantId | None:
        """The owner of a key to be made; another user's parent is refused like one that does not exist."""
        owner = parent.tenant_id if parent is not None and user_id is None else user_id
        if owner is None:
            return None
        record = self._user(state, owner)
        if parent is not None and parent.tenant_id != record.tenant_id:
            raise CallRefused(404, "not_found", "Access key not found")
        live_user(record)
        return record.tenant_id

    def _key(self, state: HubState, key_id: str, caller: str | None) -> Key:
        key = state.keys.get(KeyId(key_id))
        if key is None or not key.serves(caller):
            raise CallRefused(404, "not_found", "Access key not found")
        return key

    def _shown(self, state: HubState, minted: MintedKey) -> ShownKey:
        now_us = self._now_us()
        return ShownKey(
            access_key=minted.secret,
            key=_entry(state, state.keys[minted.key_id], now_us, None),
            epoch=self._hub.epoch,
            revision=minted.revision,
            now_us=now_us,
        )


def _checked(
    service: str | None,
    name: str,
    permissions: Iterable[Permission | str],
    functions: Iterable[str] | None,
    resources: Iterable[str] | None,
    networks: Iterable[str],
    environment: Environment | str | None,
    not_before_us: int | None,
    expires_at_us: int | None,
) -> _Wanted:
    with bad_field("service"):
        service = checked_service(service)
    with bad_field("name"):
        name = checked_name("it", name)
    with bad_field("permissions"):
        granted = checked_permissions(permissions)
    with bad_field("functions"):
        listed = checked_rules("functions", functions)
        check_patterns(listed)
    with bad_field("resources"):
        rules = checked_rules("resources", resources)
    with bad_field("networks"):
        blocks = checked_networks(networks)
    with bad_field("environment"):
        kind = None if environment is None else Environment(environment)
    for field, moment in (("not_before", not_before_us), ("expires_at", expires_at_us)):
        if moment is not None and (type(moment) is not int or not 0 <= moment < 2**53):
            raise CallRefused(400, "bad_field", f"{field}: must be a time after 1970", field)
    if not_before_us is not None and expires_at_us is not None and expires_at_us <= not_before_us:
        raise CallRefused(400, "bad_field", "expires_at: must be after not_before", "expires_at")
    return _Wanted(
        name=name,
        permissions=granted,
        functions=listed,
        resources=rules,
        networks=blocks,
        environment=kind,
        not_before_us=not_before_us,
        expires_at_us=expires_at_us,
        service=service,
    )


def _check_parent(parent: Key, wanted: _Wanted, now_us: int) -> None:
    """Refuse a key that opens anything which its parent does not, or a parent that opens nothing itself."""
    early = parent.not_before_us is not None and now_us < parent.not_before_us
    if parent.ended(now_us) is not None or early or parent.tenant_id is None:
        raise CallRefused(409, "parent_not_active", "Parent access key is not active", "parent_key_id")
    field = _wider(parent, wanted)
    if field is not None:
        raise CallRefused(409, "wider_than_parent", f"{field}: wider than the parent's", field)


def _wider(parent: Key, wanted: _Wanted) -> str | None:
    """The field in which *wanted* is wider than *parent*, or cannot be told not to be."""
    if not narrower((wanted.permissions, None), (parent.permissions, None)):
        return "permissions"
    try:
        check_patterns(parent.functions)
    except ValueError:  # a list that nobody understands allows nothing, and bequeaths nothing
        return "functions"
    if not narrower((wanted.permissions, wanted.functions), (parent.permissions, parent.functions)):
        return "functions"
    if parent.resources is not None and (
        wanted.resources is None or not set(wanted.resources) <= set(parent.resources)
    ):
        return "resources"
    if parent.networks and not _inside(wanted.networks, parent.networks):
        return "networks"
    end = wanted.expires_at_us
    if parent.expires_at_us is not None and (end is None or end > parent.expires_at_us):
        return "expires_at"
    if wanted.environment not in (None, parent.environment):
        return "environment"
    return None if parent.service in (None, wanted.service) else "service"


def _inside(networks: tuple[str, ...], around: tuple[str, ...]) -> bool:
    """Whether each of *networks* lies within one of *around*; no network at all is everywhere, and lies in none."""
    return bool(networks) and all(any(_within(each, one) for one in around) for each in networks)


def _within(inner: str, outer: str) -> bool:
    small, large = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    if isinstance(small, ipaddress.IPv4Network) and isinstance(large, ipaddress.IPv4Network):
        return small.subnet_of(large)
    if isinstance(small, ipaddress.IPv6Network) and isinstance(large, ipaddress.IPv6Network):
        return small.subnet_of(large)
    return False


def _entry(state: HubState, key: Key, now_us: int, asked: str | None) -> KeyEntry:
    overlap = max((old.ends_at_us or 0 for old in key.versions[:-1]), default=0)
    return KeyEntry(
        id=key.key_id,
        service=key.service or asked or SERVICES[0],
        any_service=key.service is None,
        name=key.name,
        permissions=tuple(permission for permission in Permission if permission in key.permissions),
        active=key.ended(now_us) is None,
        created_at_us=key.created_at_us,
        last_used_at_us=state.last_used.get(key.key_id),
        expires_at_us=key.expires_at_us,
        not_before_us=key.not_before_us,
        user_id=key.tenant_id,
        version=key.newest.version,
        functions=key.functions,
        resources=key.resources,
        networks=key.networks,
        environment=key.environment,
        overlap_until_us=overlap if overlap > now_us else None,
        revoked_at_us=key.revoked_at_us,
    )


def _place(cursor: str | None) -> tuple[int, str]:
    if cursor is None:
        return -1, ""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise CallRefused(400, "bad_field", "cursor: is none that a page before gave", "cursor")
    return int(match["at"]), match["id"]
