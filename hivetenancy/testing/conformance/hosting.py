"""A tenancy for a setting: a fake hub with the setting's tenants, each with a key, and the setting's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hivetenancy.compose import ClusterTenancy, StandaloneTenancy, Tenancy
from hivetenancy.context import TenantContext
from hivetenancy.ids import TenantId
from hivetenancy.namespaces import NamespaceManager, TenantNames

from ..hub import FakeHiveHub
from .subject import Setting


class Hosted:
    """A `Tenancy` under a setting, for servers that are built around one.

    Args:
        setting: Under what the server starts.
        plan: The plan of the tenants; one without narrow limits, as a refusal of a limit would differ from server to
            server.
        permissions: What their keys may do.
        **options: Further options of `Tenancy.embedded`.

    Attributes:
        tenancy: The tenancy: standalone where the setting is.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        plan: str = "enterprise",
        permissions: tuple[str, ...] = ("read", "write", "delete"),
        **options: Any,
    ) -> None:
        self._keys: dict[str, Any] = {}
        self.tenancy: StandaloneTenancy | ClusterTenancy
        if setting.standalone:
            self.tenancy = Tenancy.standalone(names=setting.names)
            return
        hub, called = FakeHiveHub(), {}
        for number, one in enumerate(setting.tenants):
            tenant = hub.add_tenant(f"tenant-{number}", plan=plan)
            called[tenant.id] = one.context
            self._keys[one.id] = tenant.issue_key(permissions=permissions)
        self.tenancy = Tenancy.embedded(hub, names=_Called(setting.names, called), **options)

    def headers(self, tenant: str) -> Mapping[str, str]:
        """Return what a request of the tenant carries; nothing in standalone mode."""
        return self._keys[tenant].headers if tenant in self._keys else {}

    def key(self, tenant: str) -> str | None:
        """Return the tenant's access key; ``None`` in standalone mode."""
        return self._keys[tenant].secret if tenant in self._keys else None

    def secrets(self) -> list[str]:
        """Return all access keys, which nothing may show."""
        return [key.secret for key in self._keys.values()]


class _Called:
    """The setting's names, for a hub that gives its tenants ids of its own."""

    def __init__(self, names: NamespaceManager, called: Mapping[TenantId, TenantContext]) -> None:
        self._names = names
        self._called = called

    def for_tenant(self, context: TenantContext) -> TenantNames:
        """Return the names of the tenant that the setting means."""
        return self._names.for_tenant(self._called[context.tenant_id])
