"""Connections of a pool, lent to one tenant at a time.

A pooled connection remembers: a session variable that names a tenant, a cached search path, a reply that somebody
asked for and did not wait for. The next borrower gets it. In the field that was the cause of the worst leaks of all: a
request was cancelled between the sending of a command and its reply, the connection went back to its pool, and from
then on everybody received the answer to somebody else's question.

So a connection goes back only if the block around it ended well *and* it was then found clean. After an exception or a
cancellation, wherever it struck, the connection is discarded. What a discarded connection costs is a new one; what a
dirty one costs is another tenant's data.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar, cast

from hivetenancy.errors import MisuseError
from hivetenancy.tenant import Tenant, current_tenant

C = TypeVar("C")

Maybe = Awaitable[object] | object


class TenantPool(Generic[C]):
    """Lends the connections of any pool, one tenant at a time.

    Each callable may be a function or a coroutine function; with coroutine functions a lease goes with ``async with``.

    Args:
        acquire: Returns a connection of the pool, or a new one.
        release: Takes a clean connection back.
        discard: Ends a connection that nobody may have again, at once; must not fail where it is ended already.
        enter: Called at checkout with the connection and the tenant, where the connection has to know it.
        reset: Called before the connection goes back: takes away what `enter` and the borrower have set.
        clean: Called after `reset`: whether nothing is left of the borrower. No reply under way, no open transaction.

    Concurrency:
        That of the pool; a lease itself shares nothing.
    """

    __slots__ = ("_acquire", "_clean", "_discard", "_enter", "_release", "_reset")

    def __init__(
        self,
        *,
        acquire: Callable[[], Awaitable[C] | C],
        release: Callable[[C], Maybe],
        discard: Callable[[C], Maybe],
        enter: Callable[[C, Tenant], Maybe] | None = None,
        reset: Callable[[C], Maybe] | None = None,
        clean: Callable[[C], Awaitable[bool] | bool],
    ) -> None:
        self._acquire, self._release, self._discard = acquire, release, discard
        self._enter, self._reset, self._clean = enter, reset, clean

    def lease(self) -> Lease[C]:
        """Return a block that lends a connection to the tenant that is bound when it is entered.

        The connection must not be used after the block, nor by a task that outlives it.
        """
        return Lease(self)


class Lease(Generic[C]):
    """A block with a connection; see `TenantPool.lease`.

    Raises on entering:
        MissingTenantError: No tenant is bound; no connection was taken.
        MisuseError: It is open already; or ``with`` was used and a callable returned an awaitable.

    Raises on leaving:
        MisuseError: The connection was not clean; it was discarded.
    """

    __slots__ = ("_connection", "_open", "_pool")

    def __init__(self, pool: TenantPool[C]) -> None:
        self._pool = pool
        self._open = False
        self._connection: C | None = None

    async def __aenter__(self) -> C:
        tenant = self._begin()
        try:
            connection: C = await _value(self._pool._acquire())
        except BaseException:
            self._open = False
            raise
        try:
            if self._pool._enter is not None:
                await _value(self._pool._enter(connection, tenant))
        except BaseException:
            await self._throw_away(connection)
            raise
        self._connection = connection
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        connection, pool = self._taken(), self._pool
        if error is not None:
            await self._throw_away(connection)
            return
        try:
            if pool._reset is not None:
                await _value(pool._reset(connection))
            if not await _value(pool._clean(connection)):
                raise _dirty()
            await _value(pool._release(connection))
        except BaseException:
            await self._throw_away(connection)
            raise
        self._open = False

    def __enter__(self) -> C:
        tenant = self._begin()
        try:
            connection: C = _now(self._pool._acquire())
        except BaseException:
            self._open = False
            raise
        try:
            if self._pool._enter is not None:
                _now(self._pool._enter(connection, tenant))
        except BaseException:
            self._throw_away_now(connection)
            raise
        self._connection = connection
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        connection, pool = self._taken(), self._pool
        if error is not None:
            self._throw_away_now(connection)
            return
        try:
            if pool._reset is not None:
                _now(pool._reset(connection))
            if not _now(pool._clean(connection)):
                raise _dirty()
            _now(pool._release(connection))
        except BaseException:
            self._throw_away_now(connection)
            raise
        self._open = False

    def _begin(self) -> Tenant:
        if self._open:
            raise MisuseError("this lease is open already; call lease() for each piece of work")
        tenant = current_tenant()
        self._open = True
        return tenant

    def _taken(self) -> C:
        connection, self._connection = self._connection, None
        return cast("C", connection)

    async def _throw_away(self, connection: C) -> None:
        self._open = False
        result = self._pool._discard(connection)
        if inspect.isawaitable(result):
            # What ends a connection must get to its end, however often its borrower is cancelled meanwhile.
            await asyncio.shield(_ended(result))

    def _throw_away_now(self, connection: C) -> None:
        self._open = False
        _now(self._pool._discard(connection))


async def _ended(result: Awaitable[object]) -> None:
    await result


async def _value(result: Awaitable[C] | C) -> C:
    return await result if inspect.isawaitable(result) else result


def _now(result: Awaitable[C] | C) -> C:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise MisuseError("this pool is asynchronous; lease with `async with`")
    return result


def _dirty() -> MisuseError:
    return MisuseError("the connection came back with something of its tenant left on it, and was discarded")
