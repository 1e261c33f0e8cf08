"""Tenants without a server around them, for tests of what stands on the context alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hivetenancy import tenant as tenant_module
from hivetenancy.context import TenantContext, bound
from hivetenancy.errors import MissingTenantError
from hivetenancy.hooks import AuditEvent, IsolationEvent
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.tenant import Tenant, current_tenant

NAMES = PrefixNamespaces(scheme="slug")


def a_tenant(name: str, *, generation: int = 1, key_id: str | None = None) -> Tenant:
    """A handle of cluster mode, with names and nothing to charge."""
    key = None if key_id is None else KeyId(key_id)
    context = TenantContext(tenant_id=TenantId(name), key_id=key, generation=generation)
    return Tenant(context, NAMES.for_tenant(context), tenant_module._Standalone())


ACME, BETA = a_tenant("acme"), a_tenant("beta")


def who() -> str:
    """The id of the tenant that is bound here, or ``nobody``."""
    try:
        return current_tenant().id
    except MissingTenantError:
        return "nobody"


@contextmanager
def a_process(monkeypatch: pytest.MonkeyPatch, *, cluster: bool = True) -> Iterator[None]:
    """A process in cluster mode that never had another one, and nothing bound."""
    monkeypatch.setattr(tenant_module._Process, "standalone", None)
    monkeypatch.setattr(tenant_module._Process, "cluster", cluster)
    before = bound.get()
    bound.set(None)
    yield
    bound.set(before)


class Sink:
    """Keeps audit and isolation events."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.events: list[AuditEvent] = []
        self.isolations: list[IsolationEvent] = []
        self.failure = failure

    def audit(self, event: AuditEvent) -> None:
        """Keep *event*, or fail."""
        if self.failure is not None:
            raise self.failure
        self.events.append(event)

    def isolation(self, event: IsolationEvent, *, now: object = None) -> None:
        """Keep *event*, or fail."""
        self.isolations.append(event)
        if self.failure is not None:
            raise self.failure
