"""A raw store in memory that all tenants share, synchronous and asynchronous, and its tables."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from hivetenancy.ids import Effect
from hivetenancy.stores.guarded import Physical, at, below, nowhere, rest, several, within
from hivetenancy.stores.operations import Argument, Reply, StoreOperation

NAME, VALUE, EACH = Argument.NAME, Argument.VALUE, Argument.EACH_NAME


class RawStore:
    """A driver, as somebody else wrote it."""

    version = "1.0"

    def __init__(self) -> None:
        self.data: dict[Any, Any] = {}
        self.calls = 0
        self.lies: Any = None

    def get(self, key: Any, default: Any = None) -> Any:
        self.calls += 1
        return self.data.get(key, default)

    def set(self, key: Any, value: Any, *, ttl: int | None = None) -> bool:
        self.calls += 1
        self.data[key] = value
        return True

    def delete(self, *keys: Any) -> int:
        self.calls += 1
        return sum(self.data.pop(key, None) is not None for key in keys)

    def mget(self, keys: Iterable[Any], *more: Any) -> list[Any]:
        self.calls += 1
        return [self.data.get(key) for key in [*keys, *more]]

    def mset(self, mapping: Mapping[Any, Any]) -> None:
        self.calls += 1
        self.data.update(mapping)

    def keys(self, pattern: Any = "*") -> list[Any]:
        self.calls += 1
        return self._told([key for key in sorted(self.data) if fnmatch.fnmatchcase(key, pattern)])

    def scan(self, cursor: int = 0, match: Any = None, count: int = 10) -> tuple[int, list[Any]]:
        self.calls += 1
        found = self.keys(match or "*")
        return (cursor + count if cursor + count < len(found) else 0), found[cursor : cursor + count]

    def between(self, low: Any = None, high: Any = None) -> list[tuple[Any, Any]]:
        self.calls += 1
        keys = [key for key in sorted(self.data) if (low is None or key >= low) and (high is None or key < high)]
        return [(key, self.data[key]) for key in self._told(keys)]

    def first(self, beginning: Any = "") -> Any:
        self.calls += 1
        found = self._told([key for key in sorted(self.data) if key.startswith(beginning)])
        return found[0] if found else None

    def pop(self, beginning: Any = "") -> Any:
        self.calls += 1
        found = self._told([key for key in sorted(self.data) if key.startswith(beginning)])
        return (found[0], self.data.pop(found[0])) if found else None

    def several(self, keys: Iterable[Any]) -> dict[Any, Any]:
        self.calls += 1
        return {key: self.data.get(key) for key in self._told(list(keys))}

    def scan_iter(self, match: Any = None) -> Iterator[Any]:
        self.calls += 1
        yield from self.keys(match or "*")

    def items_iter(self, match: Any = None) -> Iterator[tuple[Any, Any]]:
        self.calls += 1
        for key in self.keys(match or "*"):
            yield key, self.data[key]

    def ping(self) -> str:
        self.calls += 1
        return "pong"

    def rename(self, old: Any, new: Any) -> None:
        self.calls += 1
        self.data[new] = self.data.pop(old)

    def flush(self) -> None:
        """Of which nobody thought."""
        self.data.clear()

    def setex(self, key: Any, seconds: int, value: Any) -> None:
        """Of which nobody thought either."""
        self.data[key] = value

    def _told(self, found: list[Any]) -> list[Any]:
        return found if self.lies is None else [*found, self.lies]


class AsyncStore:
    """The same, asynchronous."""

    version = "1.0"

    def __init__(self) -> None:
        self.inner = RawStore()

    async def scan_iter(self, match: Any = None) -> AsyncIterator[Any]:
        for key in self.inner.keys(match or "*"):
            yield key

    async def items_iter(self, match: Any = None) -> AsyncIterator[Any]:
        for key in self.inner.keys(match or "*"):
            yield key, self.inner.data[key]


def _later(name: str) -> Any:
    async def method(self: AsyncStore, *args: Any, **options: Any) -> Any:
        return getattr(self.inner, name)(*args, **options)

    return method


for _name in (
    *("get", "set", "delete", "mget", "mset", "keys", "scan", "between", "first", "pop", "several", "ping"),
    *("rename", "flush", "setex"),
):
    setattr(AsyncStore, _name, _later(_name))

OPERATIONS = (
    StoreOperation(name="get", arguments={"key": NAME, "default": VALUE}, effect=Effect.READ),
    StoreOperation(name="set", arguments={"key": NAME, "value": VALUE, "ttl": VALUE}, effect=Effect.WRITE),
    StoreOperation(name="delete", arguments={"keys": EACH}, effect=Effect.DELETE),
    StoreOperation(name="mget", arguments={"keys": Argument.NAMES, "more": EACH}, effect=Effect.READ),
    StoreOperation(name="mset", arguments={"mapping": Argument.NAMED_VALUES}, effect=Effect.WRITE),
    StoreOperation(name="keys", arguments={"pattern": Argument.PATTERN}, effect=Effect.READ, reply=Reply.NAMES),
    StoreOperation(
        name="scan",
        arguments={"cursor": VALUE, "match": Argument.PATTERN, "count": VALUE},
        effect=Effect.READ,
        reply=Reply.PAGE,
    ),
    StoreOperation(
        name="between", arguments={"low": Argument.LOW, "high": Argument.HIGH}, effect=Effect.READ, reply=Reply.PAIRS
    ),
    StoreOperation(name="first", arguments={"beginning": Argument.BEGINNING}, effect=Effect.READ, reply=Reply.NAME),
    StoreOperation(name="pop", arguments={"beginning": Argument.BEGINNING}, effect=Effect.DELETE, reply=Reply.PAIR),
    StoreOperation(name="several", arguments={"keys": Argument.NAMES}, effect=Effect.READ, reply=Reply.NAMED_VALUES),
    StoreOperation(name="scan_iter", arguments={"match": Argument.PATTERN}, effect=Effect.READ, reply=Reply.EACH_NAME),
    StoreOperation(name="items_iter", arguments={"match": Argument.PATTERN}, effect=Effect.READ, reply=Reply.EACH_PAIR),
    StoreOperation(name="ping", effect=Effect.READ),
    StoreOperation(name="rename", arguments={"old": NAME, "new": NAME}, effect=Effect.WRITE),
)

GUARD: dict[str, Physical] = {
    "get": at(0, "key"),
    "set": at(0, "key"),
    "delete": rest(),
    "mget": rest(),
    "mset": within(0, "mapping"),
    "keys": at(0, "pattern"),
    "scan": at(1, "match"),
    "between": several(at(0, "low"), below(1, "high")),
    "first": at(0, "beginning"),
    "pop": at(0, "beginning"),
    "several": within(0, "keys"),
    "scan_iter": at(0, "match"),
    "items_iter": at(0, "match"),
    "ping": nowhere,
    "rename": several(at(0, "old"), at(1, "new")),
}
