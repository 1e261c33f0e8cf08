"""A store as one tenant sees it: a façade by composition, over a table of operations.

Its methods are those of the table and no others. There is no ``__getattr__``: a method that a new version of the driver
brings along is an `AttributeError` here, and never a call with names that nobody scoped. Whose names they are is asked
of the context at each call; without a tenant a call raises, and so does the next step of an iterator that was handed to
somebody else.

A name in a reply that is not the tenant's means that the store, or the table, is wrong. It raises, is written down
once, and is never shown.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from inspect import isawaitable
from operator import attrgetter
from typing import Any, Final, NoReturn, Self

from hivetenancy.errors import ConfigurationError, InvalidNameError, MisuseError
from hivetenancy.hooks import IsolationEvent, IsolationKind, IsolationSink, LoggingAudit, subject_hash
from hivetenancy.ids import Effect
from hivetenancy.namespaces import NameScope
from hivetenancy.tenant import Tenant, current_tenant

from .operations import Argument, Reply, StoreOperation

Scope = NameScope[Any]

_log: Final = logging.getLogger("hivetenancy")


class StoreFacade:
    """The operations of a store, for whichever tenant is bound when one is called.

    Args:
        raw: The store that all tenants share. It is not reachable through the façade's public names.
        operations: What it can do. Operations of other effects than *effects* are left out.
        effects: Which operations there are; by default all. ``[Effect.READ]`` makes a façade that cannot write.
        sink: Keeps what a store returned and must not have; by default the logger ``hivetenancy.audit``.

    Raises:
        ConfigurationError: The store has no method of an operation's name; two operations have one name.

    Concurrency:
        That of the store; the façade holds nothing.

    Each method takes what the store's takes, with logical names for physical ones, and returns what the store's
    returns, likewise; of a coroutine function it is one, too. It raises:

    - `MissingTenantError`: no tenant is bound.
    - `InvalidNameError`: a name or pattern cannot be scoped. Nothing was asked of the store.
    - `TypeError`: an argument is missing, or is none that the table states.
    - `MisuseError`: the store returned a name that is not the tenant's.
    """

    _raw: Any
    _sink: IsolationSink
    _stated: frozenset[str]

    def __new__(
        cls,
        raw: object,
        operations: Iterable[StoreOperation],
        *,
        effects: Collection[Effect] = tuple(Effect),
        sink: IsolationSink | None = None,
    ) -> Self:
        """Make a class with the methods of the table, and its one object."""
        members: dict[str, object] = {name: _Unregistered(name) for name in _public(raw)}
        stated: set[str] = set()
        for operation in operations:
            if operation.effect not in effects:
                continue
            method = getattr(raw, operation.name, None)
            if operation.name in stated:
                raise ConfigurationError(f"operation {operation.name!r} is stated twice")
            if not callable(method):
                raise ConfigurationError(f"{type(raw).__name__} has no method {operation.name!r}")
            members[operation.name] = _method(operation, method)
            stated.add(operation.name)
        members["_stated"] = frozenset(stated)
        facade: Self = object.__new__(type(cls.__name__, (cls,), members))
        facade._raw = raw
        facade._sink = sink or LoggingAudit()
        return facade

    def __repr__(self) -> str:
        return f"<StoreFacade of {type(self._raw).__name__}>"

    def __dir__(self) -> list[str]:
        return sorted(self._stated)

    def _foreign(self, tenant: Tenant, operation: str, name: object) -> MisuseError:
        """Write down that the store returned *name*, and return what to raise."""
        subject = subject_hash(name if isinstance(name, str | bytes) else type(name).__name__)
        event = IsolationEvent(
            kind=IsolationKind.FOREIGN_NAME, tenant=tenant.id, operation=f"store.{operation}", subject_hash=subject
        )
        try:
            self._sink.isolation(event)
        except Exception:  # noqa: BLE001 - foreign code; what it raises changes no answer
            _log.exception("isolation sink failed")
        return MisuseError(f"{operation}: the store returned a name that is not this tenant's")


def _public(raw: object) -> Iterable[str]:
    return (name for name in dir(raw) if not name.startswith("_"))


class _Unregistered:
    """Something that the store has and the table has not."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, facade: object, owner: type | None = None) -> NoReturn:
        raise AttributeError(
            f"{self._name!r} is no operation of this façade, so nothing of it would be scoped; state it in the table: "
            f"StoreOperation(name={self._name!r}, arguments=..., effect=..., reply=...)"
        )


Call = Callable[..., Any]


def _method(operation: StoreOperation, method: Call) -> Call:
    """Return an operation as a method of the façade: a plain function, which binds fastest."""
    whole = _any(operation, method)
    first, *others = operation.arguments.values() or [None]
    simple = first is Argument.NAME and set(others) <= {Argument.VALUE} and operation.reply is Reply.VALUE
    call = _one_name(operation, method, whole) if simple else whole
    call.__name__ = operation.name
    return call


_NOTHING: Final = object()


def _one_name(operation: StoreOperation, method: Call, whole: Call) -> Call:
    """Return the call of an operation whose first argument is its only name, and whose reply holds none."""
    scope_of, most = attrgetter(operation.kind), len(operation.arguments) - 1

    def call(self: StoreFacade, name: Any = _NOTHING, /, *args: Any, **kwargs: Any) -> Any:
        if type(name) is not str or kwargs or len(args) > most:
            return whole(self, *(() if name is _NOTHING else (name, *args)), **kwargs)
        physical = scope_of(current_tenant()).key(name)
        # Handing on a tuple that is empty would cost as much as finding the tenant.
        return method(physical, *args) if args else method(physical)

    return call


def _any(operation: StoreOperation, method: Call) -> Call:
    """Return the call of any operation."""
    arguments, scope_of = _Arguments(operation), attrgetter(operation.kind)
    read = None if operation.reply is Reply.VALUE else _READ[operation.reply]

    def call(self: StoreFacade, /, *args: Any, **kwargs: Any) -> Any:
        tenant = current_tenant()
        scope: Scope = scope_of(tenant)
        positional, named = arguments.physical(scope, args, kwargs)
        reply = method(*positional, **named)
        if read is None:
            return reply
        reader = _Reader(self, tenant, scope, operation.name)
        return _later(reader, reply, read) if isawaitable(reply) else read(reader, reply)

    return call


# --- what goes in ----------------------------------------------------------------------------------------------------


class _Arguments:
    """How the arguments of one operation become physical: all that can be known before a call."""

    __slots__ = ("_each", "_enough", "_filled", "_name", "_needed", "_order", "_scoped")

    def __init__(self, operation: StoreOperation) -> None:
        self._name = operation.name
        self._order = tuple(operation.arguments)
        self._scoped = {name: _scoping(operation, name) for name in self._order}
        last = operation.arguments[self._order[-1]] if self._order else None
        self._each = self._order[-1] if last is Argument.EACH_NAME else None
        self._needed, self._filled = operation.needed, operation.filled
        asked = {*self._needed, *self._filled}
        # So many arguments by position, and nothing is missing or to be filled in.
        self._enough = max((place for place, name in enumerate(self._order, 1) if name in asked), default=0)

    def physical(
        self, scope: Scope, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], Mapping[str, Any]]:
        """Return the arguments as the store is to see them."""
        order, scoped = self._order, self._scoped
        if len(args) > len(order):
            if self._each is None:
                raise TypeError(f"{self._name} takes {len(order)} arguments, as the table states it, not {len(args)}")
            order = (*order, *([self._each] * (len(args) - len(order))))
        positional = [scoped[name](scope, value) for name, value in zip(order, args, strict=False)]
        if len(args) >= self._enough and not kwargs:
            return positional, kwargs
        return positional, self._named(scope, frozenset(order[: len(args)]), kwargs)

    def _named(self, scope: Scope, given: Collection[str], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, with those that are filled in."""
        named: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name not in self._scoped or name in given or name == self._each:
                raise TypeError(f"{self._name}: {name!r} is no argument that the table states, or is given twice")
            named[name] = self._scoped[name](scope, value)
        for name in self._needed:
            if name not in given and name not in named:
                raise TypeError(f"{self._name}: {name!r} is missing")
        for name in self._filled:
            if name not in given and name not in named:
                named[name] = self._scoped[name](scope, None)
        return named


def _scoping(operation: StoreOperation, name: str) -> Callable[[Scope, Any], Any]:
    """Return what makes the argument *name* physical."""
    what = operation.arguments[name]
    if what is not Argument.PATTERN or operation.kind != "topics":
        return _SCOPED[what]

    def topics(scope: Scope, value: Any) -> Any:
        if value is None:
            raise TypeError(f"{operation.name}: {name!r} is missing")
        return _pattern(scope, value)

    return topics


def _value(scope: Scope, value: Any) -> Any:
    return value


_TEXTS: Final = (str, bytes)


def _name(scope: Scope, value: Any) -> Any:
    return scope.binary.key(value) if type(value) is bytes else scope.key(value)


def _names(scope: Scope, value: Any) -> list[Any]:
    if isinstance(value, _TEXTS):
        raise TypeError("a list of names is wanted, and one name was given")
    names = list(value)
    try:
        return scope.keys(names)
    except InvalidNameError:
        if bytes not in map(type, names):
            raise
    return [_name(scope, each) for each in names]


def _named_values(scope: Scope, value: Mapping[Any, Any]) -> dict[Any, Any]:
    return {_name(scope, name): each for name, each in value.items()}


def _pattern(scope: Scope, value: Any) -> Any:
    return scope.binary.pattern(value) if type(value) is bytes else scope.pattern("*" if value is None else value)


def _beginning(scope: Scope, value: Any) -> Any:
    return scope.binary.starting(value) if type(value) is bytes else scope.starting("" if value is None else value)


def _low(scope: Scope, value: Any) -> Any:
    return scope.binary.range(value)[0] if type(value) is bytes else scope.range("" if value is None else value)[0]


def _high(scope: Scope, value: Any) -> Any:
    return scope.binary.range(b"", value)[1] if type(value) is bytes else scope.range("", value)[1]


_SCOPED: Final[Mapping[Argument, Callable[[Scope, Any], Any]]] = {
    Argument.VALUE: _value,
    Argument.NAME: _name,
    Argument.EACH_NAME: _name,
    Argument.NAMES: _names,
    Argument.NAMED_VALUES: _named_values,
    Argument.PATTERN: _pattern,
    Argument.BEGINNING: _beginning,
    Argument.LOW: _low,
    Argument.HIGH: _high,
}


# --- what comes back -------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one reply for the tenant that asked."""

    __slots__ = ("_facade", "_operation", "_scope", "_tenant")

    def __init__(self, facade: StoreFacade, tenant: Tenant, scope: Scope, operation: str) -> None:
        self._facade, self._tenant, self._scope, self._operation = facade, tenant, scope, operation

    def strip(self, name: Any) -> Any:
        """Return the logical name; a foreign one raises, shown to nobody."""
        try:
            return self._scope.binary.strip(name) if isinstance(name, bytes) else self._scope.strip(name)
        except InvalidNameError:
            pass
        raise self._facade._foreign(self._tenant, self._operation, name)

    def names(self, names: Iterable[Any]) -> list[Any]:
        found = list(names)
        try:
            return self._scope.strip_all(found)
        except InvalidNameError:
            pass  # they are bytes; or one is foreign, and looking at each tells which
        return [self.strip(name) for name in found]

    def pair(self, pair: Sequence[Any]) -> Any:
        name, value = pair
        return self.strip(name), value

    def each(self, items: Any, read: Callable[[Any], Any]) -> Any:
        if hasattr(items, "__aiter__"):
            return _AsyncItems(self, items.__aiter__(), read)
        return _Items(self, iter(items), read)

    def still(self) -> None:
        """Refuse to give the next item to anybody but the tenant that asked."""
        here = current_tenant()
        if here is not self._tenant and not _same_life(here, self._tenant):
            raise MisuseError(f"{self._operation}: this iterator belongs to another tenant's work")


async def _later(reader: _Reader, reply: Awaitable[Any], read: Callable[[_Reader, Any], Any]) -> Any:
    return read(reader, await reply)


def _page(reader: _Reader, reply: Any) -> Any:
    cursor, names = reply
    return cursor, reader.names(names)


_READ: Final[Mapping[Reply, Callable[[_Reader, Any], Any]]] = {
    Reply.NAME: lambda reader, reply: None if reply is None else reader.strip(reply),
    Reply.NAMES: lambda reader, reply: reader.names(reply),
    Reply.PAIR: lambda reader, reply: None if reply is None else reader.pair(reply),
    Reply.PAIRS: lambda reader, reply: [reader.pair(each) for each in reply],
    Reply.NAMED_VALUES: lambda reader, reply: {reader.strip(name): value for name, value in reply.items()},
    Reply.PAGE: _page,
    Reply.EACH_NAME: lambda reader, reply: reader.each(reply, reader.strip),
    Reply.EACH_PAIR: lambda reader, reply: reader.each(reply, reader.pair),
}
"""How each kind of reply is read; of a plain value nothing is."""


def _same_life(one: Tenant, other: Tenant) -> bool:
    return one.id == other.id and one.context.generation == other.context.generation


class _Items:
    """Names as they come; each step looks whose they are."""

    __slots__ = ("_items", "_read", "_reader")

    def __init__(self, reader: _Reader, items: Iterator[Any], read: Callable[[Any], Any]) -> None:
        self._reader, self._items, self._read = reader, items, read

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._reader.still()
        return self._read(next(self._items))


class _AsyncItems:
    """As `_Items`, asynchronous."""

    __slots__ = ("_items", "_read", "_reader")

    def __init__(self, reader: _Reader, items: AsyncIterator[Any], read: Callable[[Any], Any]) -> None:
        self._reader, self._items, self._read = reader, items, read

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._reader.still()
        return self._read(await anext(self._items))

    async def aclose(self) -> None:
        """End what the store began for it."""
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()
