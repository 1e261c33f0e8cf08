"""What the application that speaks the wire stands on: the control plane, behind a door that a fake can stand in.

Every call goes through one awaited method of a `Backend`, under the name that `Route.name`
gives it. `ServiceBackend` passes it on. A fake journals it there, fails it, holds its answer back, or answers from an
older snapshot; whether an answer is recent enough for the question is judged by the application in every case, so a
backend may return an old one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from hivetenancy.ids import TenantId
from hivetenancy.sources import ChangeBatch, LimitsAnswer, LimitsBatch, SourceConflict, UsageReply, UsageReport

from .api_http import Answer, Receive
from .api_routes import Route
from .credentials import ServiceIdentity
from .service import HubService
from .view import Inspection, LimitsPage

_Made = TypeVar("_Made")

Introspection: TypeAlias = Literal["introspect", "introspect_batch"]


class Backend(Protocol):
    """The calls of the wire, for `hivetenancy.authority.api.hub_app`.

    Each raises `HubUnavailableError` for a 503 and `CallRefused` for any other refusal.

    Concurrency:
        Called under one event loop.
    """

    @property
    def service(self) -> HubService:
        """The control plane: what it says it is, which extensions it speaks, its clock and its transactions."""
        ...

    def authenticate(self, secret: str) -> ServiceIdentity | None:
        """Return who presents a service key; ``None``: nobody, which is a 401."""
        ...

    async def perform(self, name: str, action: Callable[[], _Made], arguments: Mapping[str, object]) -> _Made:
        """Do *action* once: one of the 23 calls, a rotation, or the announcement.

        Args:
            name: The call's name.
            action: Does it, changes included, and returns the finished answer.
            arguments: What was asked, for a journal; never a secret.
        """
        ...

    async def inspect(
        self,
        name: Introspection,
        digests: Sequence[bytes],
        *,
        service: str | None,
        use: bool,
        min_revision: int | None,
        epoch: int | None,
    ) -> Inspection:
        """X1, one key or several; see `HubService.inspect`."""
        ...

    async def changes(self, cursor: str | None, *, wait_seconds: int) -> ChangeBatch:
        """X2; cancelled if the caller hangs up."""
        ...

    async def limits(
        self, tenant: TenantId, *, sources: Sequence[str], min_revision: int | None, epoch: int | None
    ) -> LimitsAnswer:
        """X3, one tenant."""
        ...

    async def limits_batch(
        self, tenants: Sequence[TenantId], *, sources: Sequence[str], min_revision: int | None, epoch: int | None
    ) -> LimitsBatch:
        """X3, several tenants."""
        ...

    async def limits_page(self, limit: int, cursor: str | None, *, sources: Sequence[str]) -> LimitsPage:
        """X3, all tenants page by page."""
        ...

    async def report(self, report: UsageReport, *, owner: str) -> UsageReply | SourceConflict:
        """X4; *owner* is the identity that sends it."""
        ...


class ServiceBackend:
    """A `Backend` that passes every call on to a `HubService`.

    Args:
        service: The control plane.
    """

    def __init__(self, service: HubService) -> None:
        self._service = service

    @property
    def service(self) -> HubService:
        """The control plane."""
        return self._service

    def authenticate(self, secret: str) -> ServiceIdentity | None:
        """See `Backend.authenticate`."""
        return self._service.authenticate(secret)

    async def perform(self, name: str, action: Callable[[], _Made], arguments: Mapping[str, object]) -> _Made:
        """See `Backend.perform`."""
        return action()

    async def inspect(
        self,
        name: Introspection,
        digests: Sequence[bytes],
        *,
        service: str | None,
        use: bool,
        min_revision: int | None,
        epoch: int | None,
    ) -> Inspection:
        """See `Backend.inspect`."""
        return self._service.inspect(digests, service=service, use=use)

    async def changes(self, cursor: str | None, *, wait_seconds: int) -> ChangeBatch:
        """See `Backend.changes`."""
        return await self._service.changes(cursor, wait_seconds=wait_seconds)

    async def limits(
        self, tenant: TenantId, *, sources: Sequence[str], min_revision: int | None, epoch: int | None
    ) -> LimitsAnswer:
        """See `Backend.limits`."""
        return await self._service.limits(tenant, sources=sources)

    async def limits_batch(
        self, tenants: Sequence[TenantId], *, sources: Sequence[str], min_revision: int | None, epoch: int | None
    ) -> LimitsBatch:
        """See `Backend.limits_batch`."""
        return await self._service.limits_batch(tenants, sources=sources)

    async def limits_page(self, limit: int, cursor: str | None, *, sources: Sequence[str]) -> LimitsPage:
        """See `Backend.limits_page`."""
        return self._service.limits_page(limit, cursor, sources=sources)

    async def report(self, report: UsageReport, *, owner: str) -> UsageReply | SourceConflict:
        """See `Backend.report`."""
        return await self._service.report(report, owner=owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request that was routed, authorised and read.

    Attributes:
        route: Which call.
        identity: Who asks.
        extensions: What the hub speaks at this moment.
        path: Parameters of the path.
        query: Fields of the query; ``None`` where one is not there.
        body: The body, of the route's model.
        raw_body: Its bytes.
        target: Raw path and query, as sent.
        idempotency_key: The key, where the route takes one and it was sent.
        receive: Tells when the caller hangs up.
    """

    route: Route
    identity: ServiceIdentity
    extensions: frozenset[str]
    path: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Any = field(repr=False)
    raw_body: bytes = field(repr=False)
    target: bytes
    idempotency_key: str | None
    receive: Receive = field(repr=False)


Handler: TypeAlias = Callable[[Backend, Question], Awaitable[Answer]]
"""Makes one call: asks the backend, and turns what it says into the answer."""

if TYPE_CHECKING:
    _conforms: type[Backend] = ServiceBackend
