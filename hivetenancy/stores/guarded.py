"""The second lock: a store that refuses physical names which are not the running tenant's.

It stands between a façade, or any code that scopes names, and the raw store, and knows nothing of either. It has a
table of its own, reads the arguments in a way of its own, and asks one thing: does every physical name in this call
begin as those of the tenant do that is bound *now*? Whoever forgets to scope one argument, scopes it for somebody else,
or runs in the wrong context, is stopped here. A leak needs both locks to be wrong, in the same way.

A trip is a bug of the server, so it is loud: it raises, is written down once, and is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, NoReturn, Self, TypeAlias

from hivetenancy.errors import ConfigurationError, MissingTenantError, MisuseError
from hivetenancy.hooks import IsolationEvent, IsolationKind, IsolationSink, LoggingAudit, subject_hash
from hivetenancy.namespaces import NamespaceManager, TenantNames
from hivetenancy.tenant import Tenant, current_tenant

_log: Final = logging.getLogger("hivetenancy")

Physical: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], Iterable[object]]
"""Finds the physical names in the arguments of a call. What is no text counts as somebody else's name."""


# --- where names stand -----------------------------------------------------------------------------------------------


def at(position: int, name: str | None = None) -> Physical:
    """Return a reader of one name, at *position* or called *name*. A call without it is a trip.

    It does for patterns and prefixes as well: what they begin with is what counts.
    """

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterable[object]:
        return (args[position] if len(args) > position else kwargs.get(name or ""),)

    return read


def rest(position: int = 0) -> Physical:
    """Return a reader of the names at *position* and all that follow; any of them may be a list of names."""

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[object]:
        for each in args[position:]:
            if isinstance(each, list | tuple | set | frozenset):
                yield from each
            else:
                yield each
        yield from kwargs.values()  # where every argument is a name, one given by name is too

    return read


def within(position: int, name: str | None = None) -> Physical:
    """Return a reader of the names in a list, or of the keys of a mapping, at *position* or called *name*."""

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[object]:
        found = args[position] if len(args) > position else kwargs.get(name or "")
        # Of an iterator, reading would leave nothing for the store.
        if isinstance(found, str | bytes | Iterator) or not isinstance(found, Iterable):
            yield None
        else:
            yield from found

    return read


def below(position: int, name: str | None = None) -> Physical:
    """Return a reader of the bound that a range stops before, at *position* or called *name*.

    It may also be the end of the tenant's names.
    """

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[object]:
        yield _Bound(args[position] if len(args) > position else kwargs.get(name or ""))

    return read


class _Bound:
    """A bound of a range."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def nowhere(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterable[object]:
    """Read the names of a method that has none, as ``ping``. It still takes a tenant to call it."""
    return ()


def several(*readers: Physical) -> Physical:
    """Return a reader of what all *readers* find."""

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[object]:
        for reader in readers:
            yield from reader(args, kwargs)

    return read


class GuardedStore:
    """The raw store, for calls whose physical names are the running tenant's.

    Args:
        raw: The store that all tenants share.
        table: Where the physical names of each method stand. A method that is not in it does not exist here.
        kind: Which names these are, as the handles of a tenant are called; or the kind of each method by its name.
        names: Whose names are what; ``None``: as the tenant's own handle says. A manager of the guard's own makes it
            independent of a handle that was built wrongly.
        sink: Keeps trips; by default the logger ``hivetenancy.audit``.

    Attributes:
        trips: How often it has stopped a call.

    Raises:
        ConfigurationError: The store has no such method; a method has no kind.

    Concurrency:
        That of the store. `trips` is exact on one thread.

    Each method takes and returns what the store's does. It raises `MissingTenantError` where no tenant is bound, and
    `MisuseError` where a name is not the running tenant's; the store was not asked then, and both are trips.
    """

    trips: int
    _raw: Any

    def __new__(
        cls,
        raw: object,
        table: Mapping[str, Physical],
        *,
        kind: str | Mapping[str, str] = "kv",
        names: NamespaceManager | None = None,
        sink: IsolationSink | None = None,
    ) -> Self:
        """Make a class with the methods of the table, and its one object."""
        members: dict[str, object] = {name: _Closed(name) for name in dir(raw) if not name.startswith("_")}
        for name, reader in table.items():
            which = kind if isinstance(kind, str) else kind.get(name)
            method = getattr(raw, name, None)
            if which is None or not callable(method):
                raise ConfigurationError(f"guard: {type(raw).__name__} has no method {name!r}, or it has no kind")
            members[name] = _guarding(name, reader, which, method)
        members.update(trips=0)
        guarded: Self = object.__new__(type(cls.__name__, (cls,), members))
        guarded._raw, guarded._names, guarded._sink = raw, names, sink or LoggingAudit()
        return guarded

    _names: NamespaceManager | None
    _sink: IsolationSink

    def __repr__(self) -> str:
        return f"<GuardedStore of {type(self._raw).__name__}, {self.trips} trips>"

    def _pass(self, method: str, prefix_of: Callable[[TenantNames], str], found: Iterable[object]) -> None:
        """Let a call through, or trip."""
        try:
            tenant = current_tenant()
        except MissingTenantError:
            self._trip(IsolationKind.MISSING_CONTEXT, None, method, b"")
            raise
        begins = prefix_of(tenant.names if self._names is None else self._names.for_tenant(tenant.context))
        for name in found:
            if not _mine(name, begins):
                self._trip(IsolationKind.FOREIGN_NAME, tenant, method, name)
                raise MisuseError(f"{method}: a physical name is not that of the tenant whose work this is")

    def _trip(self, what: IsolationKind, tenant: Tenant | None, method: str, name: object) -> None:
        self.trips += 1
        subject = subject_hash(name if isinstance(name, str | bytes) else type(name).__name__)
        event = IsolationEvent(
            kind=what, tenant=None if tenant is None else tenant.id, operation=f"guard.{method}", subject_hash=subject
        )
        try:
            self._sink.isolation(event)
        except Exception:  # noqa: BLE001 - foreign code; what it raises changes no answer
            _log.exception("isolation sink failed")


def _mine(name: object, begins: str) -> bool:
    """Whether *name* begins as the tenant's names do. Not `owns`: this lock is not to be made of the same iron."""
    if isinstance(name, str):
        return name[: len(begins)] == begins
    if isinstance(name, _Bound):
        ends = begins and begins[:-1] + chr(ord(begins[-1]) + 1)
        return _mine(name.value, begins) or name.value in ((ends, ends.encode()) if ends else (None,))
    return isinstance(name, bytes) and name[: len(begins)] == begins.encode()  # a prefix is ASCII


class _Closed:
    """Something that the store has and the guard's table has not."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, guarded: object, owner: type | None = None) -> NoReturn:
        raise AttributeError(
            f"{self._name!r} is not in the guard's table, so nobody would look at its names; state where they stand: "
            f"{{{self._name!r}: at(0)}}"
        )


def _guarding(name: str, reader: Physical, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
    prefix_of: Callable[[TenantNames], str] = attrgetter(f"{kind}.prefix")

    def call(self: GuardedStore, /, *args: Any, **kwargs: Any) -> Any:
        self._pass(name, prefix_of, reader(args, kwargs))
        return method(*args, **kwargs)

    call.__name__ = name
    return call
