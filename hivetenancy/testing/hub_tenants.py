"""What a fake hub hands out: tenants and keys, with all that a test may do to them.

Whatever a test does here always works: it is no call, so neither journalled nor met by a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from hivetenancy.authority.admin import UNCHANGED, MintedKey, Unchanged
from hivetenancy.authority.keys import Key
from hivetenancy.authority.service import HubService
from hivetenancy.clock import SECOND_US
from hivetenancy.ids import Dimension, Environment, KeyId, Permission, TenantId
from hivetenancy.plans import Policy, QuotaLimit
from hivetenancy.sources import TenantStatus

_Same: TypeAlias = Literal[Unchanged.UNCHANGED]


class FakeTenant:
    """One tenant of a `FakeHiveHub`.

    Attributes:
        id: Its id, a random UUID.
        name: What people call it.
    """

    def __init__(self, service: HubService, tenant: TenantId, name: str, forget: Callable[[str], object]) -> None:
        self._service = service
        self._forget = forget
        self.id = tenant
        self.name = name

    def __repr__(self) -> str:
        return f"<FakeTenant {self.name} {self.id}>"

    @property
    def plan(self) -> str:
        """The name of its plan."""
        return self._service.tenant(self.id).plan

    @property
    def status(self) -> TenantStatus:
        """Where it stands in its life."""
        return self._service.tenant(self.id).status

    def issue_key(
        self,
        *,
        permissions: Iterable[Permission | str],
        name: str = "key",
        functions: Iterable[str] | None = None,
        resources: Iterable[str] | None = None,
        networks: Iterable[str] = (),
        expires_in: float | None = None,
        valid_in: float | None = None,
        environment: Environment = Environment.TEST,
        service: str | None = None,
    ) -> IssuedKey:
        """Issue an access key.

        Args:
            permissions: Of ``read``, ``write``, ``delete`` and ``admin``; at least one.
            name: The tenant's name for it.
            functions: The function allow list; ``None``: no list, empty: nothing.
            resources: Resource rules; ``None``: none.
            networks: CIDR blocks it is confined to; empty: everywhere.
            expires_in: Seconds until it expires; ``None``: never.
            valid_in: Seconds until it becomes valid; ``None``: at once.
            environment: What the hub says it is for. The secret begins ``hh_test_`` whatever this says.
            service: The one service that it is for; ``None``: all.

        Raises:
            ConfigurationError: The tenant is gone, or a value is out of range.
        """
        now_us = self._service.clock.now()[1]
        minted = self._service.issue_key(
            self.id,
            name=name,
            permissions=permissions,
            functions=functions,
            resources=resources,
            networks=networks,
            environment=environment,
            service=service,
            not_before_us=_later(now_us, valid_in),
            expires_at_us=_later(now_us, expires_in),
        )
        return IssuedKey(self._service, minted)

    def suspend(self) -> None:
        """Suspend it: none of its keys counts until `resume`."""
        self._service.suspend(self.id)

    def resume(self) -> None:
        """End its suspension."""
        self._service.resume(self.id)

    def begin_deletion(self) -> None:
        """Mark it as being deleted: its keys stop to count, its usage is still taken."""
        self._service.begin_deletion(self.id)

    def delete(self) -> None:
        """Delete it with its keys and usage. Its name is free again."""
        self._service.delete_tenant(self.id)
        self._forget(self.name)

    def set_plan(self, plan: str) -> None:
        """Move it to *plan*; limits of its own stay."""
        self._service.set_plan(self.id, plan)

    def set_limit(self, dimension: Dimension, limit: int | None, *, resource: str | None = None) -> None:
        """Give it a limit of its own, as `HubService.set_limit` says; ``None``: not limited."""
        self._service.set_limit(self.id, dimension, limit, resource=resource)

    def set_quota(self, quota: QuotaLimit) -> None:
        """Give it a quota of its own, for a dimension that no plan declares, say."""
        self._service.set_quota(self.id, quota)

    def set_rates(self, *rates: Policy) -> None:
        """Give it rate policies of its own, in the place of its plan's; none at all: no rate limit."""
        self._service.set_rates(self.id, rates)

    def clear_limits(self) -> None:
        """Drop every limit and rate of its own, so that its plan alone counts."""
        self._service.clear_limits(self.id)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Its keys, oldest first, revoked ones among them; no secret is in them."""
        return self._service.keys(self.id)

    def all_used(self) -> dict[str, int]:
        """Return what was reported in the present period, by dimension; those without any left out."""
        limits = self._service.snapshot().limits(self.id, (), self._service.clock.now()[1]).limits
        standings = () if limits is None else limits.quotas
        found: dict[str, int] = {}
        for standing in standings:
            if standing.used:
                found[standing.limit.dimension] = found.get(standing.limit.dimension, 0) + standing.used
        return found

    def used(self, dimension: Dimension, *, resource: str | None = None) -> int:
        """Return what all sources together reported for a cell in the present period."""
        return self._service.used(self.id, dimension, resource=resource)


class IssuedKey:
    """One secret of an access key, with what can be done to the key. The secret is in no repr.

    Attributes:
        key_id: The key's public id.
        version: Which version of the key this secret is.
        secret: What a caller presents.
    """

    def __init__(self, service: HubService, minted: MintedKey) -> None:
        self._service = service
        self.key_id: KeyId = minted.key_id
        self.version = minted.version
        self.secret = minted.secret

    def __repr__(self) -> str:
        return f"<IssuedKey {self.key_id} version {self.version}>"

    @property
    def headers(self) -> dict[str, str]:
        """The request headers that present it."""
        return {"Authorization": f"Bearer {self.secret}"}

    def revoke(self) -> None:
        """Revoke the key with all its versions; a second time changes nothing."""
        self._service.revoke_key(self.key_id)

    def rotate(self, *, overlap_seconds: int = 0, compromised: bool = False) -> IssuedKey:
        """Give the key a new secret and return that; this one counts for *overlap_seconds* more."""
        minted = self._service.rotate_key(self.key_id, overlap_seconds=overlap_seconds, compromised=compromised)
        return IssuedKey(self._service, minted)

    def expire(self, *, expires_in: float = 0) -> None:
        """Let the key expire in *expires_in* seconds: at once, unless told otherwise."""
        now_us = self._service.clock.now()[1]
        self._service.change_key(self.key_id, expires_at_us=_later(now_us, expires_in))

    def change(
        self,
        *,
        permissions: Iterable[Permission | str] | _Same = UNCHANGED,
        functions: Iterable[str] | _Same | None = UNCHANGED,
    ) -> None:
        """Change what the key may do; what is not named stays."""
        self._service.change_key(self.key_id, permissions=permissions, functions=functions)


def _later(now_us: int, seconds: float | None) -> int | None:
    return None if seconds is None else now_us + round(seconds * SECOND_US)
