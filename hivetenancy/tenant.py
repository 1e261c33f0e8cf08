"""The tenant that the running code acts for: its names, and what it holds, is charged and used.

`current_tenant` gives the handle. A cluster-mode handle exists only through an admission, or `Tenant.bind` of one; a
standalone handle is another class with the same face, whose names are the identity and whose blocks hold nothing. There
is no handle with "maybe a tenant".

The blocks (`Tenant.reserve`, `Tenant.charge`) commit on a clean exit, or at an explicit ``commit()`` right after the
write, after which neither an error nor a cancellation changes anything. Leaving with an exception before that releases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from sys import _getframe
from types import TracebackType
from typing import Final, ParamSpec, Protocol, Self, TypeVar, cast

from hivetenancy.clock import Instant, SystemClock
from hivetenancy.context import Binding, Bound, TenantContext, bind_to, bound, refuse_generator
from hivetenancy.decision import DONE, Reason, Refusal, Ticket
from hivetenancy.errors import DeniedError, MissingTenantError, MisuseError
from hivetenancy.home import Home
from hivetenancy.ids import STANDALONE, Amounts, Dimension, KeyId, TenantId
from hivetenancy.lifecycle.fence import Life
from hivetenancy.namespaces import (
    BitmapKind,
    BlobKind,
    ChannelKind,
    CollectionKind,
    FileScope,
    GeoKind,
    GraphNames,
    HashKind,
    HyperLogLogKind,
    KeyKind,
    ListKind,
    LockKind,
    NameScope,
    NamespaceManager,
    QueueKind,
    SetKind,
    SortedSetKind,
    StreamKind,
    TenantNames,
    TopicKind,
)
from hivetenancy.quota import CellSnapshot, Reservation

P = ParamSpec("P")
R = TypeVar("R")

NOTHING: Final[Amounts] = {}

_OTHER_LOOP: Final = "this event loop is not the tenancy's; start a tenancy in it, or use `with` in a thread"


class OpenItem(Protocol):
    """One open block on one item, as `hivetenancy.quota.items` makes them."""

    def commit(self, actual: Amounts | None = None) -> Ticket:
        """State what the item is charged from now on."""
        ...

    def close(self) -> Ticket:
        """End the block."""
        ...


class Services(Protocol):
    """What a tenant handle needs done. The gate implements it; it alone commits and records."""

    home: Home
    now: Callable[[], Instant]

    def try_hold(self, tenant: TenantId, demand: Amounts, at: Instant) -> Reservation | Refusal | None:
        """Reserve at once, or ``None``."""
        ...

    async def hold(self, tenant: TenantId, demand: Amounts, at: Instant) -> Reservation | Refusal:
        """Reserve, waiting if need be."""
        ...

    def settle(self, reservation: Reservation, actual: Amounts | None, at: Instant) -> Ticket:
        """Commit *reservation*, made at *at*, and record its usage, once."""
        ...

    def try_open_item(self, tenant: TenantId, item: str, amounts: Amounts) -> OpenItem | Refusal | None:
        """Open a block on *item* at once, or ``None``."""
        ...

    async def open_item(self, tenant: TenantId, item: str, amounts: Amounts) -> OpenItem | Refusal:
        """Open a block on *item*, waiting if need be."""
        ...

    def count(self, tenant: TenantId, amounts: Amounts) -> Ticket:
        """Record usage that nobody reserved."""
        ...

    def try_usage(self, tenant: TenantId) -> Sequence[CellSnapshot] | None:
        """Return where the quota cells stand, or ``None`` where only a fetch can tell."""
        ...

    async def usage(self, tenant: TenantId) -> Sequence[CellSnapshot]:
        """Return where the quota cells stand."""
        ...

    def denied(self, refusal: Refusal) -> None:
        """Let those who watch see the refusal of a block."""
        ...


class Block(Protocol):
    """What `Tenant.reserve` and `Tenant.charge` give: use it with ``async with``, or ``with``.

    Raises on entering:
        DeniedError: There is no room; nothing is held.
        UnavailableError: It cannot be told.
    """

    def commit(self, actual: Amounts | None = None, /, **amounts: int) -> Ticket:
        """Make it so now, with what was really used; a dimension that is left out counts as asked for.

        Raises:
            MisuseError: Outside the block, or for the second time.
        """
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class ReserveBlock:
    """A hold on amounts; see `Block`."""

    __slots__ = ("_at", "_demand", "_reservation", "_tenant")

    _at: Instant

    def __init__(self, tenant: Tenant, demand: Amounts) -> None:
        self._tenant = tenant
        self._demand = demand
        self._reservation: Reservation | None = None

    def commit(self, actual: Amounts | None = None, /, **amounts: int) -> Ticket:
        """Turn the hold into use; see `Block.commit`."""
        reservation = self._held()
        return self._tenant._settle(reservation, merged(actual, amounts) or None, self._at)

    def extend(self, more: Amounts | None = None, /, **amounts: int) -> None:
        """Hold more as well, for work whose size shows on the way.

        Raises:
            DeniedError: There is no room for more; what was held stays held.
            MisuseError: Outside the block, or after its commit.
        """
        reservation = self._held()
        tenant = self._tenant
        refusal = tenant._services.home.call(lambda: reservation.try_extend(merged(more, amounts)))
        if refusal is not None:
            raise tenant._denied(refusal)

    async def __aenter__(self) -> Self:
        self._fresh()
        tenant = self._tenant
        services = tenant._services
        if not services.home.here:
            raise MisuseError(_OTHER_LOOP)
        self._at = at = services.now()
        answer = services.try_hold(tenant.id, self._demand, at)
        if answer is None:
            answer = await services.hold(tenant.id, self._demand, at)
        if isinstance(answer, Refusal):
            raise tenant._denied(answer)
        self._reservation = answer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end(kind is None)

    def __enter__(self) -> Self:
        self._fresh()
        tenant = self._tenant
        services = tenant._services
        self._at = at = services.now()
        answer = services.home.call(lambda: services.try_hold(tenant.id, self._demand, at), undo=_release)
        if answer is None:
            answer = services.home.wait_for(lambda: services.hold(tenant.id, self._demand, at), undo=_release)
        if isinstance(answer, Refusal):
            raise tenant._denied(answer)
        self._reservation = answer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end(kind is None)

    def _fresh(self) -> None:
        if self._reservation is not None:
            raise MisuseError("this block is open already; build another one with tenant.reserve(...)")

    def _held(self) -> Reservation:
        if self._reservation is None:
            raise MisuseError("commit() and extend() belong inside the block")
        return self._reservation

    def _end(self, clean: bool) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return
        if clean and reservation.committed is None:
            self._tenant._settle(reservation, None, self._at)
        else:
            self._tenant._services.home.call(reservation.release)


class ChargeBlock:
    """A statement of what an item is charged; see `Block` and `Tenant.charge`."""

    __slots__ = ("_amounts", "_committed", "_item", "_open", "_tenant")

    def __init__(self, tenant: Tenant, item: str, amounts: Amounts) -> None:
        self._tenant = tenant
        self._item = item
        self._amounts = amounts
        self._open: OpenItem | None = None
        self._committed = False

    def commit(self, actual: Amounts | None = None, /, **amounts: int) -> Ticket:
        """Charge the item from now on; see `Block.commit`."""
        if self._open is None:
            raise MisuseError("commit() belongs inside the block")
        if self._committed:
            raise MisuseError("this block was committed before")
        opened = self._open
        self._committed = True
        final = merged(actual, amounts)
        return self._tenant._later(lambda: opened.commit({**self._amounts, **final} if final else None))

    async def __aenter__(self) -> Self:
        self._fresh()
        tenant = self._tenant
        services = tenant._services
        if not services.home.here:
            raise MisuseError(_OTHER_LOOP)
        answer = services.try_open_item(tenant.id, self._item, self._amounts)
        if answer is None:
            answer = await services.open_item(tenant.id, self._item, self._amounts)
        return self._opened(answer)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end(kind is None)

    def __enter__(self) -> Self:
        self._fresh()
        tenant = self._tenant
        services = tenant._services
        answer = services.home.call(
            lambda: services.try_open_item(tenant.id, self._item, self._amounts), undo=_close_item
        )
        if answer is None:
            answer = services.home.wait_for(
                lambda: services.open_item(tenant.id, self._item, self._amounts), undo=_close_item
            )
        return self._opened(answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._end(kind is None)

    def _fresh(self) -> None:
        if self._open is not None:
            raise MisuseError("this block is open already; build another one with tenant.charge(...)")
        self._committed = False

    def _opened(self, answer: OpenItem | Refusal) -> Self:
        if isinstance(answer, Refusal):
            raise self._tenant._denied(answer)
        self._open = answer
        return self

    def _end(self, clean: bool) -> None:
        opened = self._open
        if opened is None:
            return
        try:
            if clean and not self._committed:
                self.commit()
        finally:
            self._open = None
            self._tenant._later(opened.close)


def _release(answer: Reservation | Refusal | None) -> None:
    """Undo a hold that nobody waits for any more."""
    if answer is not None and not isinstance(answer, Refusal):
        answer.release()


def _close_item(answer: OpenItem | Refusal | None) -> None:
    """Undo a block on an item that nobody waits for any more."""
    if answer is not None and not isinstance(answer, Refusal):
        answer.close()


class Tenant:
    """The tenant that a request acts for.

    Attributes:
        context: Tenant, key id and generation.
        id: The tenant's id.
        key_id: The id of the key that was used; ``None`` for work that no key started.
        names: All of the tenant's names, for code that chooses the kind by itself.
        kv: The tenant's keys.

    Concurrency:
        Any thread; what belongs to the engines is handed to the tenancy's loop.
    """

    # `kv` is most of what handles are for, and a slot takes half of what a property does.
    __slots__ = ("_life", "_services", "context", "id", "key_id", "kv", "names")

    context: TenantContext
    id: TenantId
    key_id: KeyId | None
    names: TenantNames
    kv: NameScope[KeyKind]

    def __init__(
        self, context: TenantContext, names: TenantNames, services: Services, life: Life | None = None
    ) -> None:
        self.context = context
        self.id = context.tenant_id
        self.key_id = context.key_id
        self.names = names
        self.kv = names.kv
        self._services = services
        self._life = life  # None: standalone mode, where nobody is ever fenced off

    def __repr__(self) -> str:
        return f"Tenant({self.id!r})"

    # --- names ---

    @property
    def hashes(self) -> NameScope[HashKind]:
        """The tenant's hashes."""
        return self.names.hashes

    @property
    def lists(self) -> NameScope[ListKind]:
        """The tenant's lists."""
        return self.names.lists

    @property
    def sets(self) -> NameScope[SetKind]:
        """The tenant's sets."""
        return self.names.sets

    @property
    def sorted_sets(self) -> NameScope[SortedSetKind]:
        """The tenant's sorted sets."""
        return self.names.sorted_sets

    @property
    def bitmaps(self) -> NameScope[BitmapKind]:
        """The tenant's bitmaps."""
        return self.names.bitmaps

    @property
    def hyperloglogs(self) -> NameScope[HyperLogLogKind]:
        """The tenant's HyperLogLogs."""
        return self.names.hyperloglogs

    @property
    def geo(self) -> NameScope[GeoKind]:
        """The tenant's geospatial indexes."""
        return self.names.geo

    @property
    def streams(self) -> NameScope[StreamKind]:
        """The tenant's streams."""
        return self.names.streams

    @property
    def locks(self) -> NameScope[LockKind]:
        """The tenant's locks."""
        return self.names.locks

    @property
    def collections(self) -> NameScope[CollectionKind]:
        """The tenant's collections."""
        return self.names.collections

    @property
    def queues(self) -> NameScope[QueueKind]:
        """The tenant's queues."""
        return self.names.queues

    @property
    def topics(self) -> NameScope[TopicKind]:
        """The tenant's topics."""
        return self.names.topics

    @property
    def channels(self) -> NameScope[ChannelKind]:
        """The tenant's channels."""
        return self.names.channels

    @property
    def blobs(self) -> NameScope[BlobKind]:
        """The tenant's blobs."""
        return self.names.blobs

    @property
    def files(self) -> FileScope:
        """The tenant's files and directories."""
        return self.names.files

    @property
    def graph(self) -> GraphNames:
        """What the tenant names in a graph."""
        return self.names.graph

    # --- amounts ---

    def reserve(self, demand: Amounts | None = None, /, **amounts: int) -> ReserveBlock:
        """Hold amounts while the block is open, and use them when it ends well.

        Args:
            demand: Amounts by cell, for resources: ``{("vectors", name): 3}``.
            **amounts: Amounts by dimension. A static dimension such as ``max_ttl_seconds`` is compared with its limit.

        Returns:
            A block; see `Block` for what entering raises.
        """
        return ReserveBlock(self, merged(demand, amounts))

    def charge(self, item: object, demand: Amounts | None = None, /, **amounts: int) -> ChargeBlock:
        """State what *item* is charged from now on; no amounts: it is deleted.

        While blocks on one item are open the item counts as the largest of its charge and their amounts; a block holds
        only what raises that. The charge is what committed last, and what falls free is credited when the last block
        ends: nothing waits, nothing goes over, concurrent overwrites charge once.

        Args:
            item: The item's physical name, or any text that names it among this tenant's items.
            demand: Amounts by cell.
            **amounts: Amounts by dimension.

        Returns:
            A block; see `Block` for what entering raises. A block that only shrinks the charge is never refused.
        """
        return ChargeBlock(self, str(item), merged(demand, amounts))

    def record(self, demand: Amounts | None = None, /, **amounts: int) -> Ticket:
        """Count use that has no reservation, without a limit.

        Returns:
            A ticket that is done when the record is as durable as its dimension asks for. Within a request the adapter
            waits for it before the answer's first byte.

        Raises:
            ValueError: A dimension nobody declared, or an amount that is no whole number.
        """
        ticket = self._services.count(self.id, merged(demand, amounts))
        _await_later(ticket)
        return ticket

    def check(self, **statics: int) -> None:
        """Compare values with the static limits of the plan, such as ``max_ttl_seconds`` or ``max_batch``.

        Raises:
            DeniedError: A value is over its limit (`StaticLimitError`, or `NeverFitsError` for payloads and batches).
            UnavailableError: The limits cannot be told.
        """
        with self.reserve(**statics) as block:
            block.commit()

    def try_usage(self) -> Sequence[CellSnapshot] | None:
        """Return where every quota cell of the tenant stands; ``None`` where only a fetch can tell."""
        services = self._services
        return services.home.call(lambda: services.try_usage(self.id))

    async def usage(self) -> Sequence[CellSnapshot]:
        """Return where every quota cell of the tenant stands.

        Raises:
            UnavailableError: The limits of the tenant cannot be told.
        """
        return await self._services.usage(self.id)

    # --- context ---

    def bind(self, work: Callable[P, R]) -> Callable[P, R]:
        """Return *work*, a function or coroutine function, so that it acts for this tenant wherever it runs.

        For threads and executors, and for tasks that are started outside the request. It counts as under way while it
        runs: a deletion of the tenant waits for it. What begins after the tenant was fenced off raises
        `UnauthenticatedError`, unless its request is still under way.

        Raises:
            MisuseError: *work* makes a generator, whose body runs piece by piece in the context of whoever takes the
                next value; bind what it calls.
        """
        mine, life = self._mine(), self._life
        return bind_to(work, mine, enter=None if life is None else lambda: _entered(life, mine))

    def bound(self) -> TenantBlock:
        """Return a ``with`` block in which code acts for this tenant; what was bound before is restored at its end.

        For a job that has its tenant in hand. It does not belong around a ``yield``, where entering it raises
        `MisuseError`. It counts as under way, and is refused, as what `bind` returns.
        """
        return TenantBlock(self)

    def _mine(self) -> Bound:
        """Return what to bind: the running request if it is this tenant's, since its answer waits for tickets."""
        here = bound.get()
        try:
            if here is not None and here.tenant is self:
                return here
        except MissingTenantError:
            pass  # a public route has none
        return _Detached(self)

    # --- for the blocks of this file ---

    def _settle(self, reservation: Reservation, actual: Amounts | None, at: Instant) -> Ticket:
        services = self._services
        if not services.home.here:
            return self._later(lambda: services.settle(reservation, actual, at))
        ticket = services.settle(reservation, actual, at)
        if ticket is not DONE:
            _await_later(ticket)
        return ticket

    def _later(self, commit: Callable[[], Ticket]) -> Ticket:
        """Do *commit* at home, and have the answer wait for its ticket."""
        ticket = self._services.home.call(commit)
        _await_later(ticket)
        return ticket

    def _denied(self, refusal: Refusal) -> DeniedError:
        here = bound.get()
        function = here.doing if here is not None else None
        complete = refusal.about(tenant=self.id, key_id=self.key_id, function=function)
        self._services.denied(complete)
        return DeniedError.of(complete)


def _entered(life: Life, mine: Bound) -> Callable[[], None]:
    """Count work as under way; return what ends that."""
    token = life.enter(part_of=mine)
    if token is None:
        raise DeniedError.of(Refusal(reason=Reason.SUSPENDED_TENANT, tenant=life.tenant))
    return lambda: life.leave(token)


def _nothing() -> None:
    """End work that nobody counts."""


class TenantBlock:
    """A block in which code acts for one tenant; see `Tenant.bound`. Each is used once at a time."""

    __slots__ = ("_binding", "_leave", "_tenant")

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._binding: Binding | None = None
        self._leave: Callable[[], None] = _nothing

    def __enter__(self) -> Tenant:
        refuse_generator(_getframe(1))
        if self._binding is not None:
            raise MisuseError("this block is open already; build another one with tenant.bound()")
        tenant = self._tenant
        mine, life = tenant._mine(), tenant._life
        if life is not None:
            self._leave = _entered(life, mine)
        self._binding = Binding(mine)
        self._binding.begin()
        return tenant

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        binding, self._binding = self._binding, None
        if binding is not None:
            binding.end()
            self._leave()


class _Detached:
    """What is bound where the tenant has no request: a tenant alone. Its tickets are left to *within*, if anybody."""

    __slots__ = ("_within", "tenant")

    def __init__(self, tenant: Tenant, within: Bound | None = None) -> None:
        self.tenant = tenant
        self._within = within

    @property
    def context(self) -> TenantContext:
        return self.tenant.context

    @property
    def doing(self) -> str | None:
        return None

    def await_later(self, ticket: Ticket) -> None:
        """Leave the ticket to the request around it, or to whoever holds it where there is no answer to delay."""
        if self._within is not None:
            self._within.await_later(ticket)


class _Standalone:
    """The services of standalone mode: everything fits and nothing is counted."""

    def __init__(self) -> None:
        self.home = Home()
        self.now: Callable[[], Instant] = SystemClock().now

    def try_hold(self, tenant: TenantId, demand: Amounts, at: Instant) -> Reservation:
        return _Free(tenant)

    async def hold(self, tenant: TenantId, demand: Amounts, at: Instant) -> Reservation:
        return _Free(tenant)

    def settle(self, reservation: Reservation, actual: Amounts | None, at: Instant) -> Ticket:
        return reservation.commit(actual)

    def try_open_item(self, tenant: TenantId, item: str, amounts: Amounts) -> OpenItem:
        return _FREE_ITEM

    async def open_item(self, tenant: TenantId, item: str, amounts: Amounts) -> OpenItem:
        return _FREE_ITEM

    def count(self, tenant: TenantId, amounts: Amounts) -> Ticket:
        return DONE

    def try_usage(self, tenant: TenantId) -> Sequence[CellSnapshot]:
        return ()

    async def usage(self, tenant: TenantId) -> Sequence[CellSnapshot]:
        return ()

    def denied(self, refusal: Refusal) -> None:
        return None


class _Free:
    """A reservation of standalone mode. It keeps the rule that a block is committed once, and no number."""

    __slots__ = ("committed", "held", "tenant")

    def __init__(self, tenant: TenantId) -> None:
        self.tenant = tenant
        self.held: Amounts = NOTHING
        self.committed: Amounts | None = None

    def commit(self, actual: Amounts | None = None, *, now: Instant | None = None) -> Ticket:
        if self.committed is not None:
            raise MisuseError("this block was committed before")
        self.committed = NOTHING
        return DONE

    def release(self) -> None:
        return None

    def try_extend(self, more: Amounts, *, now: Instant | None = None) -> Refusal | None:
        return None


class _FreeItem:
    __slots__ = ()

    def commit(self, actual: Amounts | None = None) -> Ticket:
        return DONE

    def close(self) -> Ticket:
        return DONE


_FREE_ITEM: Final = _FreeItem()


def standalone_tenant(names: NamespaceManager) -> Tenant:
    """Return the handle of standalone mode: *names* of the one owner, and blocks that hold nothing."""
    context = TenantContext(tenant_id=STANDALONE, key_id=None, generation=0)
    return Tenant(context, names.for_tenant(context), _Standalone())


class _Process:
    """What `current_tenant` falls back to where nothing is bound."""

    standalone: Tenant | None = None
    cluster = False


def announce_standalone(tenant: Tenant) -> None:
    """Let `current_tenant` answer with *tenant* where nothing is bound, unless this process ever had cluster mode."""
    _Process.standalone = tenant


def announce_cluster() -> None:
    """Let `current_tenant` raise from now on wherever nothing is bound, whatever else this process runs."""
    _Process.cluster = True


_here: Final = bound.get


def current_tenant() -> Tenant:
    """Return the tenant that the running code acts for.

    In standalone mode this is the one owner of everything, whose names are the identity.

    Raises:
        MissingTenantError: Cluster mode, and no tenant is bound here: outside a request, on a public route, or in a
            thread or executor that was started without ``tenant.bind(fn)``.
    """
    here = _here()
    if here is not None:
        return here.tenant  # type: ignore[return-value]  # a cast would be a call, on every request's way
    if _Process.standalone is not None and not _Process.cluster:
        return _Process.standalone
    raise MissingTenantError(
        "no tenant is bound here. Inside a request this happens in threads and executors: hand them tenant.bind(fn). "
        "Elsewhere, take the tenant from the request that the work is for."
    )


def bound_to(tenant: Tenant, *, within: Bound | None = None) -> Bound:
    """Return what to bind for work of *tenant* outside any request of its own.

    Args:
        tenant: For whom.
        within: A request of nobody's, or of somebody else's, whose answer waits for what the work records.
    """
    return _Detached(tenant, within)


def _await_later(ticket: Ticket) -> None:
    if not ticket.done:
        here = bound.get()
        if here is not None:
            here.await_later(ticket)


def merged(demand: Amounts | None, amounts: Mapping[Dimension, int]) -> Amounts:
    """Join amounts given as a mapping and as keywords.

    Raises:
        ValueError: A dimension stands in both.
    """
    named = cast("Amounts", amounts)  # a mapping's keys are invariant; every dimension is a cell key
    if not demand:
        return named or NOTHING
    if not amounts:
        return demand
    joined = {**demand, **named}
    if len(joined) != len(demand) + len(amounts):
        raise ValueError("a dimension is given twice, in the mapping and as a keyword")
    return joined
