"""Deletes tenants so that nothing of them is left, and says so only when that was seen.

::

    fence ▶ drain ▶ purge every source ▶ prove, twice ▶ tombstone

Each arrow is written down before it is followed, and each step may be done again from its beginning: after a crash, or
after a source has failed, `Lifecycle.resume` starts over from the fence. What is half deleted is refused and called
``deleting``, never deleted.

The proof looks at every source that there was when the deletion began, also if nobody registers it any more: data that
cannot be looked at is not gone. It looks twice with a pause between, so that a write that was under way anywhere else
shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import Context
from typing import Any, Final, TypeVar

from hivetenancy.clock import Clock, SystemClock
from hivetenancy.context import TenantContext
from hivetenancy.decision import Reason
from hivetenancy.errors import ConfigurationError, StoreUnavailableError
from hivetenancy.ids import TenantId

from .fence import Fence, Life
from .protocol import (
    ChecksTenant,
    DeletionIncompleteError,
    DrainsConnections,
    Receipt,
    Standing,
    State,
    Step,
    TenantDataSource,
    TenantStateError,
    Tombstone,
)
from .states import FIRST
from .store import LifecycleStore

Result = TypeVar("Result")

_log: Final = logging.getLogger("hivetenancy")

_LOOK_SECONDS: Final = 0.05
"""How often a drain looks whether the work has ended."""

_RETRY_SECONDS: Final = 30.0
"""How often `Lifecycle.run` comes back to what is unfinished."""

_WAIT_MOST_SECONDS: Final = 86_400.0

WORK: Final = "work under way"
"""What `DeletionIncompleteError.failures` calls requests and bound work; no source may be called so."""


class Lifecycle:
    """Where tenants stand here, and how they are deleted.

    Args:
        store: What keeps it, or the path of its file; ``None``: in memory, so that a restart knows of no deletion.
        sources: Everything on this server that holds data of tenants.
        connections: What closes connections; a tenancy that this is handed to brings its own.
        clock: Dates receipts and tombstones.
        drain_seconds: How long work under way is waited for; then it is ended, and waited for as long again.
        proof_seconds: How long after the first look the second one is taken.
        source_seconds: How long one call of a source may take.
        sleep: Waits; tests hand in one that does not.

    Raises:
        ConfigurationError: A value is wrong, or two sources have one name.

    Concurrency:
        Belongs to the loop that it is opened in. Callers who delete one tenant share one deletion, and it goes on when
        they are cancelled.

    Source:
        Isolation note, 6.6.
    """

    def __init__(
        self,
        store: LifecycleStore | str | os.PathLike[str] | None = None,
        *,
        sources: Iterable[TenantDataSource] = (),
        connections: DrainsConnections | None = None,
        clock: Clock | None = None,
        drain_seconds: float = 10.0,
        proof_seconds: float = 1.0,
        source_seconds: float = 600.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        waits = {"drain_seconds": drain_seconds, "proof_seconds": proof_seconds, "source_seconds": source_seconds}
        for name, seconds in waits.items():
            if not 0 < seconds <= _WAIT_MOST_SECONDS:
                raise ConfigurationError(f"{name} must be above 0 and at most {_WAIT_MOST_SECONDS:g}, got {seconds!r}")
        self.fence = Fence()
        self.store = store if isinstance(store, LifecycleStore) else LifecycleStore(store)
        self._drain_seconds, self._proof_seconds, self._source_seconds = drain_seconds, proof_seconds, source_seconds
        self._connections = connections
        self._clock: Clock = clock or SystemClock()
        self._sleep = sleep
        self._sources: dict[str, TenantDataSource] = {}
        self._own: dict[str, TenantDataSource] = {}
        self._deletions: dict[TenantId, asyncio.Task[Tombstone]] = {}
        self._changes: set[asyncio.Task[Any]] = set()
        self._unfinished: dict[TenantId, str] = {}
        self._turn = asyncio.Lock()
        for source in sources:
            self.register(source)

    def __repr__(self) -> str:
        return f"<Lifecycle of {len(self._sources)} sources, {self.store!r}>"

    def register(self, source: TenantDataSource) -> None:
        """Have *source* purged, and proven empty, from the next deletion on.

        Raises:
            ConfigurationError: Its name is taken, or empty.
        """
        name = source.name
        if not name or name == WORK:
            raise ConfigurationError(f"a data source needs a name of its own, got {name!r}")
        if name in self._sources or name in self._own:
            raise ConfigurationError(f"two data sources are called {name!r}; receipts could not tell them apart")
        self._sources[name] = source

    def attach(self, *, connections: DrainsConnections, clock: Clock, own: Iterable[TenantDataSource] = ()) -> None:
        """Take what a tenancy brings: its connections, its clock, and what it keeps of tenants itself.

        Raises:
            ConfigurationError: A source is called as one of *own*.
        """
        brought = {source.name: source for source in own}
        if taken := brought.keys() & self._sources.keys():
            raise ConfigurationError(
                f"{min(taken)!r} is what the tenancy keeps itself; call your data source otherwise"
            )
        self._connections, self._clock, self._own = connections, clock, brought

    # --- opening and closing ---

    async def open(self) -> None:
        """Open the store and fence off whom it says, before anybody is let in. Does nothing while it is open.

        Raises:
            ConfigurationError: The file is refused.
        """
        self._turn = asyncio.Lock()  # this loop's: a tenancy may be started again in another
        await asyncio.to_thread(self.store.open)
        self.fence.restore(await asyncio.to_thread(self.store.standings))

    async def aclose(self) -> None:
        """End what is under way; deletions go on where they stopped after the next `open`."""
        for deletion in list(self._deletions.values()):
            deletion.cancel()
        await asyncio.gather(*self._deletions.values(), *self._changes, return_exceptions=True)
        await asyncio.to_thread(self.store.close)

    async def run(self) -> None:
        """Come back to unfinished deletions until cancelled."""
        while True:
            await self.resume()
            await self._sleep(_RETRY_SECONDS)

    def trouble(self) -> str | None:
        """Say which deletions are unfinished, and why, by the last attempt; ``None``: none that failed."""
        if not self._unfinished:
            return None
        tenant, why = next(iter(self._unfinished.items()))
        return f"{len(self._unfinished)} deletions are unfinished; one is of {tenant}: {why}"

    # --- where a tenant stands ---

    async def standing(self, tenant: TenantId) -> Standing:
        """Return where *tenant* stands, as written down."""
        return await asyncio.to_thread(self.store.standing, tenant)

    async def make_read_only(self, tenant: TenantId) -> Standing:
        """Refuse *tenant* everything but reading from now on; what is under way goes on."""
        return await self._stand(tenant, State.READ_ONLY)

    async def block(self, tenant: TenantId) -> Standing:
        """Refuse *tenant* everything from now on, and close its connections; requests under way go on."""
        return await self._stand(tenant, State.BLOCKED)

    async def unblock(self, tenant: TenantId) -> Standing:
        """Let *tenant* work again, after `block` or `make_read_only`.

        Raises:
            TenantStateError: It is being deleted, or was deleted; see `recreate`.
        """
        return await self._stand(tenant, State.ACTIVE)

    def _check(self, tenant: TenantId, standing: Standing) -> None:
        """Raise where a source says that *tenant* is no tenant's id; nothing was changed then."""
        context = TenantContext(tenant_id=tenant, key_id=None, generation=standing.generation)
        for source in self._sources.values():
            if isinstance(source, ChecksTenant):
                source.check(context)

    async def _stand(self, tenant: TenantId, to: State) -> Standing:
        self._check(tenant, FIRST)

        def write() -> Standing:
            found = self.store.standing(tenant)
            if found.state is State.DELETED:
                raise TenantStateError(tenant, found, "create it again with its tombstone, recreate(tombstone)")
            return found if found.state is to else self.store.move(tenant, found, to)

        return await self._change(tenant, write)

    async def recreate(self, tombstone: Tombstone) -> Standing:
        """Begin the next life of a deleted tenant. Nothing of an earlier one counts in it.

        Args:
            tombstone: What `delete` returned.

        Raises:
            TenantStateError: The tenant is not deleted, or *tombstone* is not the one of its last life.
        """
        tenant = tombstone.tenant

        def write() -> Standing:
            found = self.store.standing(tenant)
            if self.store.tombstone(tenant, found.generation) != tombstone:
                raise TenantStateError(tenant, found, "this is not the tombstone of its last life")
            return self.store.move(tenant, found, State.ACTIVE)

        return await self._change(tenant, write)

    async def tombstone(self, tenant: TenantId) -> Tombstone | None:
        """Return the tombstone of *tenant*'s last life; ``None``: it is not deleted."""
        found = await self.standing(tenant)
        return await asyncio.to_thread(self.store.tombstone, tenant, found.generation)

    async def receipts(self, tenant: TenantId, generation: int) -> tuple[Receipt, ...]:
        """Return what was purged of one life so far, by source."""
        return (await asyncio.to_thread(self.store.deletion, tenant, generation)).receipts

    async def _change(self, tenant: TenantId, write: Callable[[], Standing]) -> Standing:
        """Write a transition down, and then have the fence follow it; one at a time, and both or neither."""

        async def change() -> Standing:
            async with self._turn:
                standing = await asyncio.to_thread(write)
                life = self.fence.put(tenant, standing)
                if life.shut and self._connections is not None:
                    self._connections.close_tenant(tenant, Reason.SUSPENDED_TENANT)
                return standing

        task = _alone(change())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    # --- deleting ---

    async def delete(self, tenant: TenantId) -> Tombstone:
        """Delete *tenant*, from whatever state it is in; of one that is deleted, return the tombstone.

        Raises:
            ConfigurationError: No data source is registered, so that nothing could be proven; nothing was changed.
            InvalidNameError: *tenant* is no tenant's id, or another spelling of one; nothing was changed.
            DeletionIncompleteError: It is unfinished. The tenant is refused, and `resume` or another call goes on.
            StoreUnavailableError: It cannot be written down how far it has come; likewise, once it has begun.
        """
        deletion = self._deletions.get(tenant)
        if deletion is None:
            deletion = self._deletions[tenant] = _alone(self._delete(tenant))
            deletion.add_done_callback(lambda _: self._deletions.pop(tenant, None))
        return await asyncio.shield(deletion)

    async def resume(self) -> dict[TenantId, Tombstone | Exception]:
        """Go on with every deletion that has begun; return what came of each. None stops the others."""
        standings = await asyncio.to_thread(self.store.standings)
        tenants = [tenant for tenant, standing in standings if standing.state is State.DELETING]
        results = await asyncio.gather(*(self.delete(tenant) for tenant in tenants), return_exceptions=True)
        pairs = zip(tenants, results, strict=True)
        return {tenant: result for tenant, result in pairs if isinstance(result, Tombstone | Exception)}

    async def _delete(self, tenant: TenantId) -> Tombstone:
        try:
            tombstone = await self._through(tenant)
        except (DeletionIncompleteError, StoreUnavailableError) as error:
            self._unfinished[tenant] = str(error)
            _log.warning("%s", error)
            raise
        self._unfinished.pop(tenant, None)
        return tombstone

    async def _through(self, tenant: TenantId) -> Tombstone:
        standing = await self.standing(tenant)
        if standing.state is State.DELETED:
            known = await asyncio.to_thread(self.store.tombstone, tenant, standing.generation)
            assert known is not None  # written down in one transaction with the state
            return known
        names = sorted({**self._sources, **self._own})
        if standing.state is not State.DELETING:
            if not self._sources:
                raise ConfigurationError(
                    "no data source is registered, so nothing would be purged: pass sources=[...], or register(...)"
                )
            self._check(tenant, standing)
            # Looked up again in its turn: whoever blocks the tenant meanwhile does not stop the deletion.
            standing = await self._change(tenant, lambda: self.store.begin(tenant, self.store.standing(tenant), names))
        life = self.fence.life(tenant)
        await self._step(tenant, standing, Step.DRAIN, names)
        await self._drain(life)
        life.over = True
        context = TenantContext(tenant_id=tenant, key_id=None, generation=standing.generation)
        await self._step(tenant, standing, Step.PURGE)
        await self._purge(context)
        await self._step(tenant, standing, Step.PROVE)
        await self._prove(context)
        return await self._conclude(tenant, standing)

    async def _step(self, tenant: TenantId, standing: Standing, step: Step, names: Iterable[str] = ()) -> None:
        await asyncio.to_thread(self.store.step, tenant, standing, step, tuple(names))

    async def _drain(self, life: Life) -> None:
        """Wait until no work of *life* is under way; end what takes too long."""
        if not await self._idle(life):
            for request in list(life.requests):
                request.end(Reason.SUSPENDED_TENANT)
            if not await self._idle(life):
                failure = f"{life.busy} pieces have not ended"
                raise DeletionIncompleteError(life.tenant, Step.DRAIN, {WORK: failure})

    async def _idle(self, life: Life) -> bool:
        waited = 0.0
        while life.busy and waited < self._drain_seconds:
            await self._sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
        return not life.busy

    async def _purge(self, context: TenantContext) -> None:
        """Purge every source; those that can be are, also where others fail."""
        failures: dict[str, str] = {}
        for name, source in (await self._needed(context)).items():
            amount = await self._asked(name, None if source is None else source.purge, context)
            if isinstance(amount, str):
                failures[name] = amount
                continue
            receipt = Receipt(source=name, amount=amount, at_us=self._clock.now()[1])
            await asyncio.to_thread(self.store.receive, context.tenant_id, context.generation, receipt)
        if failures:
            raise DeletionIncompleteError(context.tenant_id, Step.PURGE, failures)

    async def _prove(self, context: TenantContext) -> None:
        """Look twice that every source is empty."""
        await self._look(context)
        await self._sleep(self._proof_seconds)
        await self._look(context)

    async def _look(self, context: TenantContext) -> None:
        failures: dict[str, str] = {}
        for name, source in (await self._needed(context)).items():
            left = await self._asked(name, None if source is None else source.count, context)
            if left != 0:
                failures[name] = left if isinstance(left, str) else f"{left} pieces are left"
        if failures:
            raise DeletionIncompleteError(context.tenant_id, Step.PROVE, failures)

    async def _needed(self, context: TenantContext) -> Mapping[str, TenantDataSource | None]:
        """Return every source that there is or was when the deletion began; ``None``: it is not there any more."""
        written = await asyncio.to_thread(self.store.deletion, context.tenant_id, context.generation)
        present = {**self._sources, **self._own}
        return {name: present.get(name) for name in sorted({*written.sources, *present})}

    async def _asked(
        self, name: str, ask: Callable[[TenantContext], Awaitable[int]] | None, context: TenantContext
    ) -> int | str:
        """Return what a source answers, or what is wrong with it in words that hold nothing of its data."""
        if ask is None:
            return "it was registered when the deletion began, and is not any more: register it"
        try:
            async with asyncio.timeout(self._source_seconds):
                amount = await ask(context)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            _log.warning("data source %r was cancelled in a deletion", name, exc_info=error)
            return "it was cancelled by something else (see the log)"
        except Exception as error:  # noqa: BLE001 - foreign code; whatever it is, the data may still be there
            _log.warning("data source %r failed in a deletion", name, exc_info=error)
            return f"{type(error).__name__} (see the log)"
        if type(amount) is not int or amount < 0:
            return f"it answered with {type(amount).__name__}, which is no number of pieces"
        return amount

    async def _conclude(self, tenant: TenantId, standing: Standing) -> Tombstone:
        receipts = await self.receipts(tenant, standing.generation)
        tombstone = Tombstone(
            tenant=tenant,
            generation=standing.generation,
            token=secrets.token_hex(16),
            receipts_hash=receipts_hash(receipts),
            at_us=self._clock.now()[1],
        )
        await self._change(tenant, lambda: self.store.conclude(standing, tombstone))
        return tombstone


def receipts_hash(receipts: Iterable[Receipt]) -> str:
    """Return the SHA-256 of *receipts* in hex, over their JSON in order of the sources' names."""
    rows = sorted((receipt.source, receipt.amount, receipt.at_us) for receipt in receipts)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def _alone(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Start *work* in a context of its own: it acts for no tenant, whoever asked for it, and outlives its caller."""
    task = asyncio.create_task(work, context=Context())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if nobody waits any more
    return task
