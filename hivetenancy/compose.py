"""`Tenancy`: the five components, the gate and the background work, composed and ready.

The only file that knows every room.

Standalone mode and cluster mode are two classes with one interface. Which one a host has is decided where it is built,
and nothing after that asks "is there a tenant?".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from hivetenancy.access_keys.cached import CachedAccessKeys, Freshness
from hivetenancy.access_keys.feed import Feed
from hivetenancy.adapters import standalone
from hivetenancy.adapters.asgi import TenancyASGI, middleware
from hivetenancy.adapters.declare import Functions
from hivetenancy.adapters.exchange import ASGIApp
from hivetenancy.adapters.http import HttpOptions
from hivetenancy.adapters.standalone import StandaloneASGI
from hivetenancy.adapters.streams import AnyConnection, Close, Connection, StandaloneConnection
from hivetenancy.background import PartHealth, Supervisor
from hivetenancy.clock import SECOND_US, Clock, SystemClock
from hivetenancy.connections import ConnectionRegistry
from hivetenancy.decision import Reason
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.gate import Gate
from hivetenancy.home import Home
from hivetenancy.hooks import AuditSink, DecisionHook, LoggingAudit
from hivetenancy.ids import Effect, Environment
from hivetenancy.limits import CachedLimits
from hivetenancy.namespaces import NamespaceManager
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.plans import CANONICAL, DimensionSpec, Plan, QuotaLimit
from hivetenancy.quota.items import ItemCharges, MemoryItemLedger
from hivetenancy.quota.local import LocalQuota
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.sources import ControlPlane, TenantLimits
from hivetenancy.tenant import Tenant, announce_cluster, announce_standalone, current_tenant, standalone_tenant
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter
from hivetenancy.workers import claim, give_up, lock_name

if TYPE_CHECKING:
    from aiohttp import web

_log: Final = logging.getLogger("hivetenancy")

_LOOK_SECONDS: Final = 1.0
"""How often connections in doubt are looked at while the hub cannot tell, and a clock that a test moved is noticed."""

_CLOSE_SECONDS: Final = 5.0
"""How long stop waits for the last report: long enough for a call with a retry, short enough for a rolling restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a tenancy is.

    Attributes:
        ok: Whether every part does its work.
        parts: Each part, with what is wrong with it.
    """

    ok: bool
    parts: tuple[PartHealth, ...]


class Tenancy(ABC):
    """A data server's tenancy. Build one with `standalone` or `embedded`.

    Attributes:
        mode: ``standalone``: no tenants, nothing changes; ``cluster``: tenants are enforced.
        functions: The functions of this host.
    """

    mode: Literal["standalone", "cluster"]
    functions: FunctionRegistry

    @staticmethod
    def standalone(*, names: NamespaceManager | None = None) -> StandaloneTenancy:
        """Return a tenancy without tenants: every answer is the host's own, every name the identity."""
        return StandaloneTenancy(names or IdentityNamespaces())

    @staticmethod
    def embedded(hub: ControlPlane, path: str | PathLike[str] | None = None, **options: Any) -> ClusterTenancy:
        """Return a tenancy for one process, with its engines in memory.

        Args:
            hub: The control plane: a `hivetenancy.testing.FakeHiveHub`, or anything that answers the four sources.
            path: Where usage and rights would be kept over restarts. This version has no durable engines, so anything
                but ``None`` is refused rather than ignored.
            **options: See `ClusterTenancy`.

        Raises:
            ConfigurationError: *path* is given, or an option is wrong.
        """
        if path is not None:
            raise ConfigurationError(
                "path= needs durable engines, which this version does not have; leave it out to keep state in memory"
            )
        return ClusterTenancy(hub, **options)

    @abstractmethod
    def asgi(self, app: ASGIApp, *, public: Iterable[str] = (), functions: Functions = None) -> ASGIApp:
        """Return *app* with its tenancy around it.

        Args:
            app: Any ASGI application.
            public: Exact method and raw path of each route that needs no key, as ``"GET /livez"``.
            functions: Functions for handlers that carry no marker: ``{"GET /path": spec or registered name}``, or
                `hivetenancy.adapters.declare.by_method`.

        Raises:
            ConfigurationError: A route has no function, or is of an unknown kind; the message names each.
        """

    @property
    @abstractmethod
    def middleware(self) -> Callable[..., Any]:
        """What ``app.add_middleware`` of Starlette and FastAPI takes; *public* and *functions* as for `asgi`."""

    @abstractmethod
    def setup(self, app: web.Application, *, public: Iterable[str] = (), functions: Functions = None) -> None:
        """Give an aiohttp application its tenancy; *public* and *functions* as for `asgi`.

        Raises:
            ConfigurationError: The application was set up before, or is running.
        """

    @abstractmethod
    def connection(self, *, close: Close, peer: object = None, auth_timeout: float | None = None) -> AnyConnection:
        """Return the tenancy of one connection of a protocol of your own; see `hivetenancy.adapters.streams`."""

    @abstractmethod
    def current_tenant(self) -> Tenant:
        """Return the tenant that the running code acts for; see `hivetenancy.current_tenant`."""

    @abstractmethod
    async def start(self) -> None:
        """Check that nothing is missing, and start."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop in order: no connection stays open, no usage stays unreported if the hub can be reached."""

    @abstractmethod
    def health(self) -> Health:
        """Return how this tenancy is."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.stop()


class StandaloneTenancy(Tenancy):
    """No tenants: what a server is without this library."""

    mode = "standalone"

    def __init__(self, names: NamespaceManager) -> None:
        self.functions = FunctionRegistry()
        self._tenant = standalone_tenant(names)
        announce_standalone(self._tenant)

    def asgi(self, app: ASGIApp, *, public: Iterable[str] = (), functions: Functions = None) -> ASGIApp:
        """Return *app*, with the one owner of everything bound and nothing else changed."""
        return StandaloneASGI(app, self._tenant)

    @property
    def middleware(self) -> Callable[..., Any]:
        """What ``app.add_middleware`` takes; it changes nothing."""
        return standalone.middleware(self._tenant)

    def setup(self, app: web.Application, *, public: Iterable[str] = (), functions: Functions = None) -> None:
        """Bind the one owner of everything in *app*, and change nothing else."""
        from hivetenancy.adapters.aiohttp import setup_standalone  # only here: aiohttp is an extra

        setup_standalone(app, self._tenant)

    def connection(
        self, *, close: Close, peer: object = None, auth_timeout: float | None = None
    ) -> StandaloneConnection:
        """Return a connection that needs no key."""
        return StandaloneConnection(self._tenant, close=close, peer=peer, auth_timeout=auth_timeout)

    def current_tenant(self) -> Tenant:
        """Return the one owner of everything."""
        return self._tenant

    async def start(self) -> None:
        """Do nothing: there is nothing to check."""

    async def stop(self) -> None:
        """Do nothing."""

    def health(self) -> Health:
        """Return that all is well."""
        return Health(ok=True, parts=())


class ClusterTenancy(Tenancy):
    """Tenants are enforced, by engines in this process that are fed by a hub.

    Args:
        hub: The control plane.
        clock: What time it is; ``None``: the hub's own clock if it has one (a fake's), else the system's.
        http: How answers over HTTP look.
        hooks: See each decision.
        audit: Keeps refusals; by default the logger ``hivetenancy.audit``; ``None``: nobody does.
        environment: Which keys count here, ``live`` or ``test``; ``None``: both.
        freshness: How old an answer about a key may be, by effect.
        names: How names are kept apart; ``None``: the default profile, for hubs whose tenant ids are UUIDs.
        dimensions: Dimensions of your own, beside the canonical ones and those of the hub's plans.
        report_seconds: How often usage is reported.
        report_threshold: Report earlier once so many records are waiting.
        allow_workers: Let several processes of this application run, each admitting the full limits.

    Raises:
        ConfigurationError: A value is wrong.
    """

    mode = "cluster"

    def __init__(
        self,
        hub: ControlPlane,
        *,
        clock: Clock | None = None,
        http: HttpOptions | None = None,
        hooks: Iterable[DecisionHook] = (),
        audit: AuditSink | Literal["log"] | None = "log",
        environment: Environment | None = None,
        freshness: Freshness | None = None,
        names: NamespaceManager | None = None,
        dimensions: Iterable[DimensionSpec] = (),
        report_seconds: float = 10.0,
        report_threshold: int = 10_000,
        allow_workers: bool = False,
    ) -> None:
        self.hub = hub
        self.clock: Clock = clock or getattr(hub, "clock", None) or SystemClock()
        self.options = http or HttpOptions()
        self.functions = FunctionRegistry()
        self.connections = ConnectionRegistry()
        self._home = Home()
        self._feed = Feed(hub, clock=self.clock)
        self._keys = CachedAccessKeys(
            hub,
            feed=self._feed,
            functions=self.functions,
            clock=self.clock,
            environment=environment,
            freshness=freshness or Freshness(),
        )
        self._usage = MemoryUsage(dimensions={spec.name: spec for spec in dimensions}, clock=self.clock)
        for plan in (_plans_of(hub) or {}).values():  # before the canonical ones, for the zones that plans name
            for limit in plan.quotas:
                self._usage.declare(_spec_of(limit), zone=limit.zone)
        for spec in CANONICAL.values():
            self._usage.declare(spec)
        self._report_seconds, self._report_threshold = report_seconds, report_threshold
        self._reporter = self._new_reporter()
        self._limits = CachedLimits(
            hub,
            floors=self._feed.floors,
            clock=self.clock,
            sources=lambda: self._usage.sources,
            learn=self._learn_dimensions,
        )
        quota = LocalQuota(self._limits, clock=self.clock)
        self.gate = Gate(
            validator=self._keys,
            limiter=MemoryRateLimiter(clock=self.clock),
            quota=quota,
            names=names or PrefixNamespaces(),
            usage=self._usage,
            limits=self._limits,
            functions=self.functions,
            items=ItemCharges(quota, MemoryItemLedger()),
            clock=self.clock,
            hooks=hooks,
            audit=LoggingAudit() if audit == "log" else audit,
            home=self._home,
        )
        self._feed.subscribe(self._limits)
        self._feed.subscribe(self.connections)
        self._allow_workers = allow_workers
        self._supervisor = Supervisor()
        self._claimed: str | None = None
        self._starting: asyncio.Task[None] | None = None
        self._running = False
        announce_cluster()

    def _learn_dimensions(self, limits: TenantLimits) -> None:
        """Have usage count what the hub limits: a tenant may have a dimension that no plan names."""
        for standing in limits.quotas:
            self._usage.declare(_spec_of(standing.limit), zone=standing.limit.zone)

    def asgi(self, app: ASGIApp, *, public: Iterable[str] = (), functions: Functions = None) -> TenancyASGI:
        """Return *app* with its tenancy around it; see `Tenancy.asgi`."""
        return TenancyASGI(app, self, public=public, functions=functions)

    @property
    def middleware(self) -> Callable[..., Any]:
        """What ``app.add_middleware`` of Starlette and FastAPI takes."""
        return middleware(self)

    def setup(self, app: web.Application, *, public: Iterable[str] = (), functions: Functions = None) -> None:
        """Give an aiohttp application its tenancy; see `Tenancy.setup`."""
        from hivetenancy.adapters.aiohttp import setup  # only here: aiohttp is an extra

        setup(app, self, public=public, functions=functions)

    def connection(self, *, close: Close, peer: object = None, auth_timeout: float | None = None) -> Connection:
        """Return the tenancy of one connection; raises `MisuseError` while it is not running."""
        return Connection(self, close=close, peer=peer, auth_timeout=auth_timeout)

    def current_tenant(self) -> Tenant:
        """Return the tenant that the running code acts for; see `hivetenancy.current_tenant`."""
        return current_tenant()

    # --- life cycle ---

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._running

    async def start(self) -> None:
        """Check that nothing is missing, hear from the hub, and start the background work.

        Does nothing while running; callers at the same time share one attempt.

        Raises:
            ConfigurationError: Something is missing: the message names what, and the fix.
            UnavailableError: The hub cannot be reached; trying again may help.
        """
        if self._running:
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), context=Context())
            self._starting.add_done_callback(self._started)
        await asyncio.shield(self._starting)

    def _started(self, attempt: asyncio.Task[None]) -> None:
        self._starting = None
        if not attempt.cancelled():
            attempt.exception()  # seen, even if everybody who waited has gone

    async def _start(self) -> None:
        self.check()
        if not self._allow_workers:
            name = lock_name()
            claim(name)
            self._claimed = name
        try:
            self._home.settle_here()
            self._reporter = self._new_reporter()  # one that was stopped stays so, and it belongs to one loop
            await self._feed.open()  # before anything is fetched and kept (HiveHub wire 4.2)
            if not (self._feed.healthy(self.clock.now()) or self._feed.pull() or await self._feed.poll_once()):
                raise HubUnavailableError("the hub answered once, and does not any more", retry_after_us=SECOND_US)
        except BaseException:
            self._let_go()
            raise
        for name, work in (
            ("change feed", self._feed.run),
            ("keys", self._keys.run),
            ("limits", self._limits.run),
            ("connections", self._watch_connections),
            ("usage report", self._reporter.run),
        ):
            self._supervisor.start(name, work)
        self._running = True

    def check(self) -> None:
        """Check that every function's demand is declared by some plan of the hub, where the hub's plans are known.

        Raises:
            ConfigurationError: A dimension is in no plan; the message names it and the functions that ask for it.
        """
        plans = _plans_of(self.hub)
        if plans is None:
            return
        declared = {quota.dimension for plan in plans.values() for quota in plan.quotas}
        declared |= {name for plan in plans.values() for name in plan.statics}
        for function in self.functions:
            for cell in function.demand or ():
                dimension = cell if isinstance(cell, str) else cell[0]
                if dimension not in declared:
                    raise ConfigurationError(
                        f"function {function.name!r} demands {dimension!r}, which no plan of the hub declares; "
                        f"add a QuotaLimit for it to the plans, or take it out of the demand"
                    )

    async def stop(self) -> None:
        """Close connections, report usage, end the background work; a start under way is given up.

        Does nothing if not running. What cannot be reported within 5 s is logged with its size, and kept in case this
        tenancy is started again.
        """
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if not self._running:
            return
        self._running = False
        try:
            self.connections.close_all(Reason.SERVER_STOPS)
            await self._supervisor.stop()
            unreported = await self._reporter.stop(_CLOSE_SECONDS)
            if unreported:
                _log.error("stopped with %d cells of usage unreported: the hub did not take them in time", unreported)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._home.leave()
        if self._claimed is not None:
            give_up(self._claimed)
            self._claimed = None

    def _new_reporter(self) -> Reporter:
        return Reporter(
            self._usage,
            self.hub,
            clock=self.clock,
            interval_s=self._report_seconds,
            threshold=self._report_threshold,
        )

    async def flush(self) -> int:
        """Report all usage now; return how many cells the hub acknowledged.

        Raises:
            HubUnavailableError: The outcome of a report is unknown; it is sent again unchanged.
        """
        return await self._reporter.flush()

    def health(self) -> Health:
        """Return how each part is. Memory only; no call to the hub is made."""
        now = self.clock.now()
        feed_ok = self._feed.healthy(now)
        failures = self._reporter.last_error
        parts = [
            PartHealth(name="tenancy", ok=self._running, why="" if self._running else "not started"),
            PartHealth(name="hub feed", ok=feed_ok, why="" if feed_ok else self._feed.last_error or "no answer yet"),
            PartHealth(name="usage", ok=failures is None, why=failures or ""),
            *self._supervisor.health(),
        ]
        return Health(ok=all(part.ok for part in parts), parts=tuple(parts))

    async def _watch_connections(self) -> None:
        """Close connections whose key ends, and look anew at those in doubt."""
        changed = asyncio.Event()
        stop_listening = self.connections.on_wake(changed.set)
        try:
            while True:
                changed.clear()
                await self.connections.recheck(lambda principal: self._keys.recheck(principal, effect=Effect.READ))
                now = self.clock.now()
                due = self.connections.close_due(now)
                pause = _LOOK_SECONDS if due is None else min(_LOOK_SECONDS, (due - now[0]) / SECOND_US)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, pause)):
                        await changed.wait()
        finally:
            stop_listening()


def _plans_of(hub: ControlPlane) -> Mapping[str, Plan] | None:
    """Return the plans as they are now, where the hub tells them."""
    plans: Mapping[str, Plan] | None = getattr(hub, "plans", None)
    return plans


def _spec_of(limit: QuotaLimit) -> DimensionSpec:
    return DimensionSpec(name=limit.dimension, unit="pieces", kind=limit.kind, period=limit.period)
