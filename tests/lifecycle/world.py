"""Stores in memory, a lifecycle that waits for nothing, and deliberately broken variants of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hivetenancy.clock import Clock
from hivetenancy.context import TenantContext
from hivetenancy.ids import TenantId
from hivetenancy.lifecycle import Standing
from hivetenancy.lifecycle.deletion import Lifecycle
from hivetenancy.lifecycle.sources import PrefixSource
from hivetenancy.lifecycle.store import LifecycleStore
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.testing.clock import ManualClock

ACME = TenantId("550e8400-e29b-41d4-a716-446655440000")
OTHER = TenantId("550e8400-e29b-41d4-a716-446655440001")
NAMES = PrefixNamespaces()


async def at_once(seconds: float) -> None:
    """Wait for no time, but let everybody else run."""
    await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions of all sorts
            await asyncio.sleep(0)


class KeyStore:
    """A key-value store that knows nothing of tenants, and can be told to fail."""

    def __init__(self, name: str = "kv") -> None:
        self.name = name
        self.rows: dict[str, str] = {}
        self.fail: Exception | None = None
        self.deletes = 0

    def put(self, tenant: TenantId, key: str, value: str = "x", *, generation: int = 1) -> None:
        """Write a key of *tenant*."""
        context = TenantContext(tenant_id=tenant, key_id=None, generation=generation)
        self.rows[str(NAMES.for_tenant(context).kv.key(key))] = value

    def of(self, tenant: TenantId) -> int:
        """How many keys *tenant* has."""
        scope = NAMES.for_tenant(TenantContext(tenant_id=tenant, key_id=None, generation=1)).kv
        return sum(map(scope.owns, self.rows))

    async def scan(self, prefix: str) -> list[str]:
        """Find keys."""
        if self.fail is not None:
            raise self.fail
        return [name for name in self.rows if name.startswith(prefix)]

    async def remove(self, names: Sequence[str]) -> None:
        """Delete keys."""
        self.deletes += 1
        for name in names:
            self.rows.pop(name, None)

    def source(self, **options: Any) -> PrefixSource:
        """The data source over this store."""
        scan: Callable[[str], Awaitable[list[str]]] = options.pop("scan", self.scan)
        return PrefixSource(self.name, NAMES, lambda names: [names.kv], scan=scan, delete=self.remove)


class Quick(Lifecycle):
    """A lifecycle that never sleeps."""

    def __init__(self, *args: Any, clock: Clock | None = None, **options: Any) -> None:
        options.setdefault("sleep", at_once)
        options.setdefault("drain_seconds", 0.2)
        super().__init__(*args, clock=clock or ManualClock(), **options)


async def opened(*stores: KeyStore, kind: type[Quick] = Quick, **options: Any) -> Quick:
    """An open lifecycle over *stores*."""
    lifecycle = kind(options.pop("store", None), sources=[store.source() for store in stores], **options)
    await lifecycle.open()
    return lifecycle


# --- broken on purpose ------------------------------------------------------------------------------------------------


class SweepsBeyond(PrefixSource):
    """Deletes by a beginning that lacks its delimiter, as many a hand-made clean-up does."""

    async def _found(self, context: TenantContext) -> list[str]:
        scope = self._scopes(self._names.for_tenant(context))[0]
        answer = self._scan(scope.prefix[:-3])
        return list(await answer)  # type: ignore[misc]  # the tests' stores give lists


class SkipsASource(Quick):
    """Forgets the last source."""

    async def _needed(self, context: TenantContext) -> Any:
        needed = dict(await super()._needed(context))
        needed.popitem()
        return needed


class ForgetsThoseThatLeft(Quick):
    """Proves only what is registered now."""

    async def _needed(self, context: TenantContext) -> Any:
        return {name: source for name, source in (await super()._needed(context)).items() if source is not None}


class LooksOnce(Quick):
    """Takes one empty look for a proof."""

    async def _prove(self, context: TenantContext) -> None:
        await self._look(context)


class TrustsThePurge(Quick):
    """Takes no look at all: what was purged must be gone."""

    async def _prove(self, context: TenantContext) -> None:
        return None


class ForgetsTheFence(Quick):
    """Opens its store and restores nothing."""

    async def open(self) -> None:
        self._turn = asyncio.Lock()
        await asyncio.to_thread(self.store.open)


class DoesNotDrain(Quick):
    """Purges while requests are under way."""

    async def _drain(self, life: Any) -> None:
        return None


class KeepsTheGeneration(LifecycleStore):
    """Gives a tenant that is created again the generation that it had."""

    def _move(self, run: Any, tenant: TenantId, believed: Standing, to: Any, step: Any) -> Standing:
        after = super()._move(run, tenant, believed, to, step)
        run("UPDATE tenants SET generation = ? WHERE tenant = ?", believed.generation, tenant)
        return Standing(after.state, believed.generation)
