"""Which tenant the running code acts for.

One context variable holds what is *bound*: in a request, its admission. It is set inside the guard, right around the
handler, and restored by value: a token cannot be reset in another context, and an async generator may well end in one.

What carries it: ``await``, tasks, ``asyncio.to_thread``, callbacks of the loop. What does not: threads and executors
that know nothing of contexts; use ``tenant.bind(fn)`` there.

What carries it too far: whatever is started once and serves everybody. A worker that the first request starts would act
for that request's tenant for ever. Start it with `spawn`, or wrap it in `without_tenant`, and let each job bring its
tenant (`hivetenancy.stamps`).

Nothing is ever bound around a ``yield``: the body of a generator runs in the context of whoever takes the next value,
so that a binding would leak to the consumer, and end where it did not begin. Blocks refuse to be entered there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import wraps
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

from hivetenancy.decision import Ticket
from hivetenancy.errors import MisuseError
from hivetenancy.ids import KeyId, TenantId

_STACKS: Final = vars(contextlib)

P = ParamSpec("P")
R = TypeVar("R")

Enter: TypeAlias = Callable[[], Callable[[], None]]
"""Called when work begins; returns what to call at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantContext:
    """Who a piece of work is for. There is no default: code without a context has no tenant.

    Attributes:
        tenant_id: The tenant.
        key_id: The key that was used; ``None`` in standalone mode and for work that no key started.
        generation: Which life of the tenant this is: 1, and one more each time that it was deleted and made again; 0 in
            standalone mode. What is kept of a tenant (caches, handles, stamps) is kept of one life of it. The revision
            of the answer that the key was accepted on is another number, `Principal.generation`.
    """

    tenant_id: TenantId
    key_id: KeyId | None
    generation: int


class Bound(Protocol):
    """What the context variable holds: something that acts for a tenant."""

    @property
    def context(self) -> TenantContext:
        """Who it acts for."""
        ...

    @property
    def tenant(self) -> object:
        """The `hivetenancy.tenant.Tenant` in force; typed as object because this floor does not know it."""
        ...

    @property
    def doing(self) -> str | None:
        """Name of the declared function that runs; ``None`` outside of any."""
        ...

    def await_later(self, ticket: Ticket) -> None:
        """Remember a ticket that must be done before the answer's first byte leaves."""
        ...


bound: Final[ContextVar[Bound | None]] = ContextVar("hivetenancy_bound", default=None)
"""What is bound here and now. Adapters and `Tenant.bind` set it; everybody else reads it through `current_tenant`."""


# --- blocks ----------------------------------------------------------------------------------------------------------


class Binding:
    """What a block does that binds *what*; ``None``: nothing is bound in it.

    The end restores what was bound before. Where something else is bound by then, because the block ends in another
    context or something in it has bound and not restored, nothing is bound afterwards: code then finds no tenant, and
    never a wrong one.

    The block itself, which knows its frame, asks `refuse_generator` first.
    """

    __slots__ = ("_before", "_open", "_what")

    def __init__(self, what: Bound | None) -> None:
        self._what = what
        self._before: Bound | None = None
        self._open = False

    def begin(self) -> None:
        """Bind.

        Raises:
            MisuseError: It is open already.
        """
        if self._open:
            raise MisuseError("this block is open already; build another one")
        self._open = True
        self._before = bound.get()
        bound.set(self._what)

    def end(self) -> None:
        """Restore."""
        before, self._before, self._open = self._before, None, False
        bound.set(before if bound.get() is self._what else None)


def refuse_generator(frame: FrameType) -> None:
    """Refuse to bind for code in *frame*, which enters a block, if that is a generator's.

    An ``ExitStack`` enters blocks for whoever calls it: what counts is that one.

    Raises:
        MisuseError: It is.
    """
    while frame.f_globals is _STACKS and frame.f_back is not None:
        frame = frame.f_back
    if frame.f_code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        raise MisuseError(
            f"a tenant cannot be bound around a yield: {frame.f_code.co_qualname} is a generator, and the tenant would "
            "be that of whoever takes its next value; bind in the code that uses it, or bind what it calls"
        )


# --- functions and coroutines ----------------------------------------------------------------------------------------


def bind_to(work: Callable[P, R], what: Bound | None, *, enter: Enter | None = None) -> Callable[P, R]:
    """Return *work*, a function or coroutine function, so that *what* is bound while it runs, wherever that is.

    A coroutine that a plain function returns is bound as well. What else is only worked out later (an awaitable of a
    class of its own, a ``map``) is so for whoever does it: let *work* await it, or make a list of it.

    Args:
        work: What to run.
        what: What to bind; ``None``: nothing is bound while it runs.
        enter: Called when it begins to run; returns what to call when it has ended. What it raises stops the work.

    Raises:
        MisuseError: *work* is a generator function, or, when it is called, it returns a generator: its body would run
            piece by piece in the context of whoever takes the next value.
    """
    if isgeneratorfunction(work) or isasyncgenfunction(work):
        raise _generator(work)
    if iscoroutinefunction(work):

        @wraps(work)
        async def begin(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await _bound(work(*args, **kwargs), what, enter)

        return begin  # type: ignore[return-value]  # its R is this coroutine, which no type says

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        leave = None if enter is None else enter()
        before = bound.get()
        bound.set(what)
        try:
            result: R = work(*args, **kwargs)
        finally:
            bound.set(before)
            if leave is not None:
                leave()
        if isinstance(result, CoroutineType):
            return cast("R", _bound(result, what, enter))
        if isinstance(result, GeneratorType | AsyncGeneratorType):
            raise _generator(work)
        return result

    return run


async def _bound(work: Coroutine[Any, Any, R], what: Bound | None, enter: Enter | None = None) -> R:
    try:
        leave = None if enter is None else enter()
    except BaseException:
        work.close()  # it will never run, and shall not complain of it
        raise
    before = bound.get()
    bound.set(what)
    try:
        return await work
    finally:
        bound.set(before)
        if leave is not None:
            leave()


def _generator(work: object) -> MisuseError:
    return MisuseError(f"{work!r} makes a generator, which cannot be bound; bind what it calls")


@overload
def without_tenant(work: Coroutine[Any, Any, R], /) -> Coroutine[Any, Any, R]: ...
@overload
def without_tenant(work: Callable[P, R], /) -> Callable[P, R]: ...
def without_tenant(work: Any, /) -> Any:
    """Return *work*, a function, coroutine function or coroutine, so that it runs with no tenant bound.

    For what is started in some request and serves all of them: threads, pools, connections made on first use. In
    cluster mode `current_tenant` raises in it, until it acts for somebody on purpose.

    Raises:
        MisuseError: *work* makes a generator.
    """
    return _bound(work, None) if isinstance(work, CoroutineType) else bind_to(work, None)


_spawned: Final[set[asyncio.Task[Any]]] = set()
"""A loop holds its tasks weakly; what runs for ever must not be collected before."""


def spawn(work: Coroutine[Any, Any, R], *, name: str | None = None) -> asyncio.Task[R]:
    """Start *work* as a task that inherits nothing: no tenant, and no other context variable of whoever starts it.

    For workers that serve everybody and are started by the first who needs one. The task is kept alive until it ends.

    Args:
        work: The coroutine to run.
        name: What the task is called.

    Raises:
        RuntimeError: No event loop is running.
    """
    task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
    _spawned.add(task)
    task.add_done_callback(_spawned.discard)
    return task
