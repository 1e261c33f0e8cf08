"""One connection, one key after the other."""

from __future__ import annotations

import pytest

from hivetenancy import tenant as tenant_module
from hivetenancy.adapters.streams import Connection
from hivetenancy.ids import Effect
from tests.adapters.world import World
from tests.tenants import who

pytestmark = pytest.mark.anyio


async def test_a26_another_key_on_a_connection_acts_for_another_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two commands nobody is bound; after another key was accepted each command is for its tenant."""
    monkeypatch.setattr(tenant_module._Process, "cluster", True)
    world = World()
    world.tenancy.functions.declare("kv.get", effect=Effect.READ)
    other = world.other.issue_key(permissions=["read"])
    async with world.tenancy, Connection(world.tenancy, close=lambda reason: None) as connection:
        for key, tenant in ((world.key, world.tenant), (other, world.other), (world.key, world.tenant)):
            assert await connection.authenticate(key.secret.encode()) is None
            for _ in range(2):
                assert who() == "nobody"
                async with connection.admit("kv.get") as admitted:
                    assert admitted.id == who() == tenant.id
            assert await connection.authenticate(b"hh_live_not-a-key-of-anybody") is not None
            async with connection.admit("kv.get"):
                assert who() == tenant.id  # a refused key changes nothing
        assert who() == "nobody"
