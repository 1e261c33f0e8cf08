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
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast
from weakref import WeakSet

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
from hivetenancy.clock import SECOND_US, Clock, Instant, SystemClock
from hivetenancy.connections import ConnectionRegistry
from hivetenancy.context import TenantContext
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, HubUnavailableError, MisuseError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.gate import Gate
from hivetenancy.home import Home
from hivetenancy.hooks import AuditSink, DecisionHook, LoggingAudit
from hivetenancy.hub.store import StateStore
from hivetenancy.ids import Effect, Environment, TenantId
from hivetenancy.lifecycle.deletion import Lifecycle
from hivetenancy.lifecycle.sources import CacheSource
from hivetenancy.lifecycle.store import LifecycleStore
from hivetenancy.limits import CachedLimits
from hivetenancy.namespaces import NamespaceManager
from hivetenancy.namespaces.prefix import IdentityNamespaces, PrefixNamespaces
from hivetenancy.operators import Operator
from hivetenancy.plans import CANONICAL, DimensionSpec, Plan, QuotaLimit
from hivetenancy.quota.items import ItemCharges, MemoryItemLedger
from hivetenancy.quota.local import LocalQuota
from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.recollection import Recollection
from hivetenancy.sources import ChangeSource, ControlPlane, IntrospectionSource, RemoteHub, SourcePart, TenantLimits
from hivetenancy.stamps import (
    STANDALONE_PRESS,
    ActFor,
    ClusterSecret,
    StampBlock,
    StampPress,
    StandaloneBlock,
    TenantStamp,
    checked_purpose,
)
from hivetenancy.tenant import Tenant, announce_cluster, announce_standalone, current_tenant, standalone_tenant
from hivetenancy.usage.memory import MemoryUsage
from hivetenancy.usage.reporter import Reporter
from hivetenancy.workers import claim, give_up, lock_name

if TYPE_CHECKING:
    from aiohttp import web

_log: Final = logging.getLogger("hivetenancy")

_LOOK_SECONDS: Final = 1.0
"""How often connections in doubt are looked at while the hub cannot tell, and a clock that a test moved is noticed."""

_WAIT_SECONDS: Final = 1.0
"""How long a start that waits for the hub pauses between two attempts."""

_WAIT_MOST_SECONDS: Final = 86_400.0

_SOURCES_MAX: Final = 64
"""How many sources a question about limits may name (HiveHub wire 4.5). A start makes one; what older ones counted is
taken for somebody else's then, and counts twice: on the safe side."""

_in_use: Final[WeakSet[RemoteHub]] = WeakSet()
"""Hubs that a tenancy of this process has started with: what one hub confirmed of usage is of one tenancy's totals."""

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
    def standalone(*, names: NamespaceManager | None = None, secret: bytes | None = None) -> StandaloneTenancy:
        """Return a tenancy without tenants: every answer is the host's own, every name the identity.

        Args:
            names: What replaces the identity.
            secret: What `subkey` derives from, at least 32 random bytes; ``None``: random, for this process.

        Raises:
            ConfigurationError: *secret* is too short.
        """
        return StandaloneTenancy(names or IdentityNamespaces(), secret)

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

    @staticmethod
    def from_env(
        *,
        file: str | PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        keys: IntrospectionSource | None = None,
        allow_fake: bool = False,
        **options: Any,
    ) -> StandaloneTenancy | ClusterTenancy:
        """Return the tenancy that an operator has described in a file and in the environment.

        Args:
            file: The settings file; ``None``: the one that ``HIVETENANCY_FILE`` names, or none.
            environ: The environment; ``None``: that of the process.
            keys: Who tells what an access key is, where HiveHub cannot; see `hivetenancy.hub.client.HiveHub`.
            allow_fake: Let the hub be a fake. For tests; no setting does this.
            **options: See `ClusterTenancy`. What is stated here counts over the settings, and nothing of it in
                standalone mode.

        Raises:
            ConfigurationError: The settings are wrong; the message has a line for each, with its place and remedy.
        """
        from hivetenancy.settings import hub_arguments, load, tenancy_arguments  # only here: it loads pydantic

        settings = load(file, environ)
        if settings.mode == "standalone":
            return StandaloneTenancy(IdentityNamespaces())
        from hivetenancy.hub.client import HiveHub  # only here: it loads httpx

        hub = HiveHub(**hub_arguments(settings), keys=keys, allow_fake=allow_fake)
        return ClusterTenancy(hub, **{**tenancy_arguments(settings), **options})

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
    def stamp(self, tenant: Tenant, *, purpose: str, seconds: float) -> TenantStamp:
        """Return what carries *tenant* to a job, or to another node of this cluster; see `hivetenancy.stamps`.

        Args:
            tenant: For whom the work is.
            purpose: What the stamp is good for: 1 to 64 of ``a-z 0-9 . _ : -``.
            seconds: How long it counts; above 0, at most 30 days.

        Raises:
            ValueError: *purpose* or *seconds* is out of range.
            MisuseError: The tenant is of another tenancy of this process, perhaps of another cluster.
        """

    @abstractmethod
    def act_for(self, stamp: TenantStamp | str | bytes, *, purpose: str) -> ActFor:
        """Return a block, for ``async with`` or ``with``, that binds the tenant of *stamp*.

        Args:
            stamp: A stamp, or its token as it came.
            purpose: What it has to be good for.

        Raises:
            ValueError: *purpose* can be none.

        Raises on entering:
            UnauthenticatedError: The stamp is worth nothing here.
            UnavailableError: Whether its tenant may be served cannot be told.
        """

    @abstractmethod
    def subkey(self, purpose: str) -> bytes:
        """Return 32 bytes of the secret for a purpose of the host's own, the same wherever the secret is.

        Args:
            purpose: 1 to 64 of ``a-z 0-9 . _ : -``.

        Raises:
            ValueError: *purpose* can be none.
        """

    @abstractmethod
    def as_operator(self, *, reason: str) -> Operator:
        """Return a block, for ``with`` or ``async with``, in which an operator acts; see `hivetenancy.operators`.

        Args:
            reason: Why; it is written to the audit, on entry and with each act.

        Raises:
            MisuseError: *reason* is blank or too long; or nobody keeps the audit.
        """

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

    def __init__(self, names: NamespaceManager, secret: bytes | None = None) -> None:
        self.functions = FunctionRegistry()
        self._secret = ClusterSecret(secret)
        self._names, self._clock = names, SystemClock()
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

    def stamp(self, tenant: Tenant, *, purpose: str, seconds: float) -> TenantStamp:
        """Return a stamp of standalone mode: it carries no secret, and counts on every server without tenants."""
        return STANDALONE_PRESS.issue(tenant.context, purpose=purpose, seconds=seconds, now=self._clock.now())

    def act_for(self, stamp: TenantStamp | str | bytes, *, purpose: str) -> StandaloneBlock:
        """Return a block for the one owner; a stamp that no server without tenants made counts for nothing."""
        return StandaloneBlock(stamp, purpose, STANDALONE_PRESS, self._tenant, self._clock.now)

    def subkey(self, purpose: str) -> bytes:
        """Return 32 bytes of the secret for *purpose*; see `Tenancy.subkey`."""
        return self._secret.derive("host:" + checked_purpose(purpose))

    def as_operator(self, *, reason: str) -> Operator:
        """Return a block in which an operator acts; written down by the logger ``hivetenancy.audit``."""
        return Operator(
            self._names, generation=lambda tenant: 0, audit=LoggingAudit(), now=self._clock.now, reason=reason
        )

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
        secret: What all nodes of this cluster share, at least 32 random bytes: stamps and the cursors of listings are
            worth something on other nodes, and after a restart, only with it. ``None``: random, for this process.
        state: A state file, or its path: keeps limits, the place in the change feed and the digests of known keys over
            restarts, so that an outage of the hub at start does not stop the tenants that were known. ``None``: nothing
            is kept.
        lifecycle: Where tenants stand here, so that they can be blocked and deleted; or the store of that, or the path
            of its file. ``None``: nothing of this is done.
        wait_seconds: How long a start waits for a hub that cannot be reached.
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
        secret: bytes | None = None,
        state: StateStore | str | PathLike[str] | None = None,
        lifecycle: Lifecycle | LifecycleStore | str | PathLike[str] | None = None,
        wait_seconds: float = 0.0,
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
        self._remote = _remote(hub)
        self._secret = ClusterSecret(secret)
        self._press = StampPress(self._secret.derive("stamps"))
        self._names = names or PrefixNamespaces(secret=self._secret.derive("names"))
        self._audit = LoggingAudit() if audit == "log" else audit
        self._recollection = _recollection(state, self.clock)
        self.lifecycle = lifecycle if lifecycle is None or isinstance(lifecycle, Lifecycle) else Lifecycle(lifecycle)
        if not 0 <= wait_seconds <= _WAIT_MOST_SECONDS:
            raise ConfigurationError(f"wait_seconds must be 0 to {_WAIT_MOST_SECONDS:g}, got {wait_seconds!r}")
        self._wait_seconds = wait_seconds
        kept = self._recollection
        self._feed = Feed(hub, clock=self.clock, moved=None if kept is None else kept.moved)
        own_keys: IntrospectionSource | None = getattr(hub, "own_keys", None)
        self._keys_feed = self._feed if own_keys is None else _feed_of(own_keys, self.clock)
        self._keys = CachedAccessKeys(
            own_keys or hub,
            feed=self._keys_feed,
            functions=self.functions,
            clock=self.clock,
            environment=environment,
            freshness=freshness or Freshness(),
            kept=kept.key_kept if kept is not None and own_keys is None else None,
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
            floors=lambda: self._feed.floors if getattr(hub, "has_order", True) else None,
            clock=self.clock,
            sources=lambda: self._usage.sources[-_SOURCES_MAX:],
            learn=self._learn_dimensions,
            keep=None if kept is None else kept.limits_kept,
        )
        quota = LocalQuota(self._limits, clock=self.clock)
        self.gate = Gate(
            validator=self._keys,
            limiter=MemoryRateLimiter(clock=self.clock),
            quota=quota,
            names=self._names,
            usage=self._usage,
            limits=self._limits,
            functions=self.functions,
            items=ItemCharges(quota, MemoryItemLedger()),
            clock=self.clock,
            hooks=hooks,
            audit=self._audit,
            home=self._home,
            fence=None if self.lifecycle is None else self.lifecycle.fence,
        )
        if self.lifecycle is not None:
            gate = self.gate
            own = [CacheSource("callers of this process", drop=gate.drop_callers, count=gate.count_callers)]
            self.lifecycle.attach(connections=self.connections, clock=self.clock, own=own)
        self._feed.subscribe(self._limits)
        self._feed.subscribe(self.connections)
        if own_keys is not None:
            self._feed.subscribe(self._keys)  # the hub may suspend a tenant whose keys it does not know
            if self._keys_feed is not None:
                self._keys_feed.subscribe(self.connections)
        self._allow_workers = allow_workers
        self._supervisor = Supervisor()
        self._claimed: str | None = None
        self._holds_hub = False
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

    # --- work elsewhere, and operators ---

    def subkey(self, purpose: str) -> bytes:
        """Return 32 bytes of the cluster's secret for *purpose*, the same on every node; see `Tenancy.subkey`."""
        return self._secret.derive("host:" + checked_purpose(purpose))

    def stamp(self, tenant: Tenant, *, purpose: str, seconds: float) -> TenantStamp:
        """Return what carries *tenant* elsewhere; see `Tenancy.stamp`. Any thread."""
        if tenant._services is not self.gate:  # its id may be somebody else's here
            raise MisuseError("this tenant is another tenancy's; stamp it there")
        return self._press.issue(tenant.context, purpose=purpose, seconds=seconds, now=self.clock.now())

    def act_for(self, stamp: TenantStamp | str | bytes, *, purpose: str) -> StampBlock:
        """Return a block that binds the tenant of *stamp*; see `Tenancy.act_for`.

        Raises on entering:
            MisuseError: The tenancy is not running.
        """
        return StampBlock(stamp, purpose, self._press, self._limits, _Work(self))

    def as_operator(self, *, reason: str) -> Operator:
        """Return a block in which an operator acts; see `Tenancy.as_operator`."""
        return Operator(
            self._names,
            generation=self._generation,
            ending=self._ending,
            audit=self._audit,
            now=self.clock.now,
            reason=reason,
        )

    def _generation(self, tenant: TenantId) -> int:
        return self._home.call(lambda: self.gate.fence.life(tenant).generation)

    def _ending(self, tenant: TenantId) -> bool:
        return self._home.call(lambda: self.gate.fence.life(tenant).ending)

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
            self._take_hub()
            self._reporter = self._new_reporter()  # one that was stopped stays so, and it belongs to one loop
            if self.lifecycle is not None:
                await self.lifecycle.open()  # nobody who is fenced off is let in from the first request on
            await self._hear_from_the_hub()
        except BaseException:
            await self._let_go()
            raise
        for name, work in (
            ("hub check", None if self._remote is None else self._remote.run),
            ("change feed", self._feed.run),
            ("change feed of keys", None if self._keys_feed in (None, self._feed) else self._keys_feed.run),
            ("access keys", self._keys.run),
            ("limits", self._limits.run),
            ("connections", self._watch_connections),
            ("usage report", self._reporter.run),
            ("deletions", None if self.lifecycle is None else self.lifecycle.run),
        ):
            if work is not None:
                self._supervisor.start(name, work)
        self._running = True

    async def _hear_from_the_hub(self) -> None:
        """Verify the hub and open its feed, before anything is fetched and kept (HiveHub wire 4.2).

        Where the hub is out of reach, what was known before is enough to start with: every tenant that is not in it is
        answered 503 until the hub is back.
        """
        known = await self._recall()
        deadline = self.clock.now()[0] + round(self._wait_seconds * SECOND_US)
        while True:
            try:
                return await self._open_hub()
            except HubUnavailableError as error:
                if known and error.transient:
                    _log.warning("the hub cannot be reached; starting from what was known before: %s", error)
                    return None
                left = (deadline - self.clock.now()[0]) / SECOND_US
                if left <= 0 or not error.transient:
                    raise
                _log.info("waiting for the hub: %s", error)
                await asyncio.sleep(min(left, _WAIT_SECONDS))

    async def _open_hub(self) -> None:
        if self._remote is not None:
            await self._remote.open()
        if self._keys_feed is not None and self._keys_feed is not self._feed:
            await self._keys_feed.open()
        await self._feed.open()
        if self._feed.silent:
            return
        if not (self._feed.healthy(self.clock.now()) or self._feed.pull() or await self._feed.poll_once()):
            raise HubUnavailableError("the hub answered once, and does not any more", retry_after_us=SECOND_US)

    async def _recall(self) -> bool:
        """Take in what an earlier process knew; return whether that is enough to go on without the hub."""
        if self._recollection is None:
            return False
        knowledge = await self._recollection.begin()
        remember = getattr(self.hub, "remember", None)
        if remember is not None:
            remember(self._recollection.store, knowledge)
        else:
            self._recollection.stamp(knowledge, self.hub.hub_id)
        self._recollection.recall(
            knowledge,
            feed=self._feed,
            limits=self._limits,
            keys=self._keys if self._keys_feed is self._feed else None,
        )
        return knowledge.announcement is not None

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
            await self._let_go()

    def _take_hub(self) -> None:
        if self._remote is not None:
            if self._remote in _in_use:
                raise ConfigurationError(
                    f"{self._remote!r} serves another tenancy already, and each would take the other's usage for its "
                    "own: build one hub for each"
                )
            _in_use.add(self._remote)
            self._holds_hub = True

    async def _let_go(self) -> None:
        if self._remote is not None and self._holds_hub:
            self._holds_hub = False
            _in_use.discard(self._remote)
            await self._remote.aclose()
        if self._recollection is not None:
            await self._recollection.end()
        if self.lifecycle is not None:
            await self.lifecycle.aclose()
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
        failures = self._reporter.last_error
        parts = [
            PartHealth(name="tenancy", ok=self._running, why="" if self._running else "not started"),
            *(PartHealth(name=part.name, ok=part.ok, why=part.why) for part in self._remote_parts()),
            self._feed_health(),
            self._keys_health(),
            self._limits_health(),
            PartHealth(name="usage", ok=failures is None, why=failures or ""),
            *self._state_health(),
            *self._lifecycle_health(),
            *self._supervisor.health(),
        ]
        return Health(ok=all(part.ok for part in parts), parts=tuple(parts))

    def _remote_parts(self) -> tuple[SourcePart, ...]:
        return () if self._remote is None else self._remote.parts()

    def _feed_health(self) -> PartHealth:
        if self._feed.silent:
            return PartHealth(name="hub feed", ok=True, why="this hub tells of no changes: age alone counts")
        ok = self._feed.healthy(self.clock.now())
        return PartHealth(name="hub feed", ok=ok, why="" if ok else self._feed.last_error or "no answer yet")

    def _keys_health(self) -> PartHealth:
        """The bound in force: for how long a revoked key could still be accepted, by the effect of the function."""
        now = self.clock.now()
        bounds = ", ".join(
            f"{effect.value} {self._keys.bound_us(effect, now=now) / SECOND_US:g} s" for effect in Effect
        )
        left = self._keys.recalled
        waiting = f"; {left} keys of before are yet to be verified" if left else ""
        trouble = self._keys.trouble(now)
        why = f"a revoked key may count for up to: {bounds}{waiting}"
        return PartHealth(name="keys", ok=trouble is None, why=f"{trouble}; {why}" if trouble else why)

    def _limits_health(self) -> PartHealth:
        trouble = self._limits.trouble(self.clock.now())
        return PartHealth(name="limits of tenants", ok=trouble is None, why=trouble or "")

    def _state_health(self) -> tuple[PartHealth, ...]:
        if self._recollection is None:
            return ()
        error = self._recollection.store.last_error
        return (PartHealth(name="state file", ok=error is None, why=error or ""),)

    def _lifecycle_health(self) -> tuple[PartHealth, ...]:
        if self.lifecycle is None:
            return ()
        trouble = self.lifecycle.trouble()
        return (PartHealth(name="life cycle of tenants", ok=trouble is None, why=trouble or ""),)

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


class _Work:
    """What acting for a stamp needs of a tenancy (`hivetenancy.stamps.StampServices`)."""

    __slots__ = ("_tenancy", "home")

    def __init__(self, tenancy: ClusterTenancy) -> None:
        self._tenancy = tenancy
        self.home = tenancy.gate.home

    def now(self) -> Instant:
        if not self._tenancy.running:
            raise MisuseError("the tenancy is not running; work inside `async with tenancy`")
        return self._tenancy.clock.now()

    def begin(self, context: TenantContext) -> tuple[Tenant, Callable[[], None]] | Reason:
        gate = self._tenancy.gate
        life = gate.fence.life(context.tenant_id)
        if life.generation != context.generation:
            return Reason.REVOKED_KEY
        token = life.enter()
        if token is None:
            return Reason.SUSPENDED_TENANT
        tenant = Tenant(context, self._tenancy._names.for_tenant(context), gate, life)
        return tenant, lambda: life.leave(token)

    def refused(self, refusal: Refusal) -> None:
        self._tenancy.gate.denied(refusal)


def _plans_of(hub: ControlPlane) -> Mapping[str, Plan] | None:
    """Return the plans as they are now, where the hub tells them."""
    plans: Mapping[str, Plan] | None = getattr(hub, "plans", None)
    return plans


def _remote(hub: ControlPlane) -> RemoteHub | None:
    """Return *hub* as one that lives elsewhere, if it does."""
    able = all(callable(getattr(hub, name, None)) for name in ("open", "run", "aclose", "parts"))
    return cast("RemoteHub", hub) if able else None


def _recollection(state: StateStore | str | PathLike[str] | None, clock: Clock) -> Recollection | None:
    if state is None:
        return None
    return Recollection(state if isinstance(state, StateStore) else StateStore(state, clock=clock), clock=clock)


def _feed_of(keys: IntrospectionSource, clock: Clock) -> Feed | None:
    """Return the feed of a host's own key source, if that tells of changes."""
    return Feed(cast("ChangeSource", keys), clock=clock) if callable(getattr(keys, "changes", None)) else None


def _spec_of(limit: QuotaLimit) -> DimensionSpec:
    return DimensionSpec(name=limit.dimension, unit="pieces", kind=limit.kind, period=limit.period)
