"""`FakeHiveHub`: a HiveHub in memory, for tests.

The model is `HubService`, the same that other authorities are built on; only what is false on
purpose stands in this room. One fake answers in three ways that give the same answers: method calls (the four source
protocols), an ASGI application under the real client (`FakeHiveHub.app`, `FakeHiveHub.connect`), and a process
(``hivetenancy hub serve``). Whichever way it is asked, the call is journalled and meets the faults that were planted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hivetenancy.authority.credentials import ServiceIdentity
from hivetenancy.authority.view import Inspection, LimitsPage
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.plans import Plan
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    KeyAnswer,
    LimitsAnswer,
    LimitsBatch,
    SourceConflict,
    UsageReply,
    UsageReport,
)

from .faults import EXCHANGE
from .hub_core import FakeHubCore, MovableClock
from .hub_door import JOURNAL
from .hub_tenants import FakeTenant, IssuedKey

if TYPE_CHECKING:
    from hivetenancy.authority.backend import Backend
    from hivetenancy.hub.client import HiveHub
    from hivetenancy.sources import ControlPlane, SignalsChanges

    from .hub_app import FakeHubApp
    from .hub_control import ControlApp

__all__ = ["JOURNAL", "FakeHiveHub", "FakeTenant", "IssuedKey", "MovableClock"]

_Answer = TypeVar("_Answer")


class FakeHiveHub(FakeHubCore):
    """HiveHub in memory.

    It answers the four source protocols and `SignalsChanges`, so it can be handed to `Tenancy.embedded`, or to one
    component alone. `connect` gives the real client instead, over the wire and without a network.

    Args:
        clock: The hub's clock; ``None``: the machine's, which `advance` pushes ahead.
        plans: Plans beside, or instead of, ``free``, ``pro`` and ``enterprise``, by name.
        seed: Makes every id and secret the same in each run; such secrets begin ``hh_test_seeded_``. ``None``: random.
        extensions: What it speaks on the wire beside the 23 calls, of `ALL_EXTENSIONS`; none: a
            hub of today's wire. ``None``: all. Its methods are there whatever this says.
        service: The one service that `service_key` speaks for; ``None``: all.
        state: Keep everything in this SQLite file, on disk before each answer, and go on from there; `close` lets go
            of it. ``None``: in memory alone.

    Raises:
        ConfigurationError: Two of *plans* have one name, or one stands under another's; an extension is none; *seed*
            and *state* are both given; the file is refused.

    Concurrency:
        Built without a running loop; used from any number of loops and threads.

    Example:
        >>> hub = FakeHiveHub()
        >>> acme = hub.add_tenant("acme", plan="pro")
        >>> key = acme.issue_key(permissions=["read"])
        >>> key.secret.startswith("hh_test_"), key.secret in repr(key)
        (True, False)
    """

    def __init__(
        self,
        *,
        clock: MovableClock | None = None,
        plans: Iterable[Plan] | Mapping[str, Plan] = (),
        seed: int | None = None,
        extensions: Iterable[str] | None = None,
        service: str | None = None,
        state: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(clock=clock, plans=plans, seed=seed, extensions=extensions, service=service, state=state)

    # --- over the wire -----------------------------------------------------------------------------------------------

    @cached_property
    def app(self) -> FakeHubApp:
        """The ASGI application that speaks HiveHub's wire. It has no control routes."""
        from .hub_app import FakeHubApp  # only here: it loads pydantic, which a test of method calls has no use for

        return FakeHubApp(self)

    def controlled_app(self, token: str | None = None) -> ControlApp:
        """Return `app` with the control routes (``/_fake/...``) in front of it.

        Args:
            token: What opens them, in the header ``X-Fake-Control``; ``None``: a random one, which is the result's
                *token*.
        """
        from .hub_control import ControlApp  # only here: it loads pydantic

        return ControlApp(self.app, self, token)

    def connect(self, **options: Any) -> HiveHub:
        """Return the real client, talking to `app` without a network, in this hub's time, with `service_key`.

        Args:
            **options: Of `hivetenancy.hub.client.HiveHub`; ``service=`` says which service asks. What is given here
                counts over what is said above, ``service_key`` included.

        Raises:
            ConfigurationError: An option is wrong.
        """
        from .hub_http import connected  # only here: it loads httpx

        return connected(self.app, **{"service_key": self.service_key, "clock": self._clock, **options})

    # --- the door ----------------------------------------------------------------------------------------------------

    async def _ask(self, name: str, arguments: Mapping[str, object], work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        if self._rejecting and EXCHANGE.get() is None:
            raise HubUnavailableError(
                f"FakeHiveHub rejects the service key at {name}: hub.service_key_rejected()",
                transient=False,
                outcome_unknown=False,
            )
        return await self._door.ask(name, arguments, work)

    def _now_us(self) -> int:
        return self.service.clock.now()[1]

    # --- the four sources --------------------------------------------------------------------------------------------

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Answer as `HubService.introspect`, or fail as the test wants it."""

        async def work() -> KeyAnswer:
            view = self._replica
            if view is None:
                return await self.service.introspect(credential, min_revision=min_revision, epoch=epoch)
            view.recent_enough(min_revision, epoch)
            return view.key(credential, self._now_us())

        key_id = self.service.key_id_of(credential)
        return await self._ask("introspect", {"key": key_id or "unknown", "min_revision": min_revision}, work)

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Answer as `HubService.introspect_batch`, or fail as the test wants it."""

        async def work() -> BatchAnswer:
            view = self._replica
            if view is None:
                return await self.service.introspect_batch(digests, min_revision=min_revision, epoch=epoch)
            view.recent_enough(min_revision, epoch)
            return view.keys(digests, self._now_us())

        return await self._ask("introspect_batch", {"keys": len(digests), "min_revision": min_revision}, work)

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """Answer as `HubService.limits`, or fail as the test wants it."""

        async def work() -> LimitsAnswer:
            view, order = self._replica, _order(min_revision, epoch)
            if view is None:
                return await self.service.limits(tenant, sources=sources, **order)
            view.recent_enough(**order)
            return view.limits(tenant, sources, self._now_us())

        asked = {"tenant": tenant, "sources": len(sources), "min_revision": min_revision}
        return await self._ask("limits", asked, work)

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Answer as `HubService.limits_batch`, or fail as the test wants it."""

        async def work() -> LimitsBatch:
            view, order = self._replica, _order(min_revision, epoch)
            if view is None:
                return await self.service.limits_batch(tenants, sources=sources, **order)
            view.recent_enough(**order)
            return view.limits_batch(tenants, sources, self._now_us())

        asked = {"tenants": len(tenants), "sources": len(sources), "min_revision": min_revision}
        return await self._ask("limits_batch", asked, work)

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Answer as `HubService.changes`, or fail as the test wants it; an outage ends a poll that waits."""

        async def work() -> ChangeBatch:
            return await self.service.changes(cursor, wait_seconds=wait_seconds)

        return await self._ask("changes", {"cursor": cursor, "wait_seconds": wait_seconds}, work)

    def try_changes(self, cursor: str | None) -> ChangeBatch | None:
        """Answer at once (`SignalsChanges`); ``None`` while a fault of any kind stands before ``changes``.

        Not journalled: it stands for a poll that was answered already.
        """
        return None if self._silent() else self.service.try_changes(cursor)

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake* after each change (`SignalsChanges`); in an outage of ``changes`` once, when that ends."""

        def unless_out() -> None:
            if not self._door.fails("changes"):
                wake()

        return self.service.subscribe(unless_out)

    def _silent(self) -> bool:
        return self._rejecting > 0 or self._door.silent("changes")

    async def report(self, report: UsageReport, *, owner: str | None = None) -> UsageReply | SourceConflict:
        """Answer as `HubService.report`, or fail as the test wants it."""

        async def work() -> UsageReply | SourceConflict:
            return await self.service.report(report, owner=owner)

        asked = {
            "source": report.source,
            "sequence": report.sequence,
            "lines": len(report.lines),
            "final": report.final,
        }
        return await self._ask("report", asked, work)

    # --- the rest of the wire ----------------------------------------------------------------------------------------

    def authenticate(self, secret: str) -> ServiceIdentity | None:
        """Return who presents a service key; ``None``: nobody, or all of them are rejected."""
        return None if self._rejecting else self.service.authenticate(secret)

    async def perform(self, name: str, action: Callable[[], _Answer], arguments: Mapping[str, object]) -> _Answer:
        """Do one of the other calls, or fail as the test wants it."""

        async def work() -> _Answer:
            return action()

        return await self._ask(name, arguments, work)

    async def inspect(
        self,
        name: Literal["introspect", "introspect_batch"],
        digests: Sequence[bytes],
        *,
        service: str | None,
        use: bool,
        min_revision: int | None,
        epoch: int | None,
    ) -> Inspection:
        """Answer about keys as the wire does, or fail as the test wants it."""

        async def work() -> Inspection:
            view = self._replica
            if view is None:
                return self.service.inspect(digests, service=service, use=use)
            return view.inspect(digests, self._now_us(), service)

        asked: dict[str, object] = {"keys": len(digests), "min_revision": min_revision}
        if name == "introspect":
            asked = {"key": self.service.key_id_by(digests[0]) or "unknown", "min_revision": min_revision}
        return await self._ask(name, asked, work)

    async def limits_page(self, limit: int, cursor: str | None, *, sources: Sequence[str]) -> LimitsPage:
        """Answer as `HubService.limits_page`, or fail as the test wants it."""

        async def work() -> LimitsPage:
            view = self._replica
            if view is None:
                return self.service.limits_page(limit, cursor, sources=sources)
            return view.limits_page(limit, cursor, sources, self._now_us())

        return await self._ask("limits_page", {"limit": limit, "cursor": cursor, "sources": len(sources)}, work)


def _order(min_revision: int | None, epoch: int | None) -> dict[str, int | None]:
    """What an answer to a method call has to be as recent as; over HTTP the application sees to that, with its code."""
    over_http = EXCHANGE.get() is not None
    return {"min_revision": None if over_http else min_revision, "epoch": None if over_http else epoch}


if TYPE_CHECKING:
    _conforms: type[ControlPlane] = FakeHiveHub
    _signals: type[SignalsChanges] = FakeHiveHub
    _backend: type[Backend] = FakeHiveHub
