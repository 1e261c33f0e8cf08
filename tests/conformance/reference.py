"""A small data server with tenants, in memory: what the suite is proven on.

Keys, listings, a cache, counters, collections, queues, streams, blobs, topics, subscriptions, cursors, uploads, jobs,
statistics, backup and purge; on two surfaces. `mutants.py` breaks it in one place each. Like a real server it keeps all
tenants in the same tables, and only names keep them apart; behind the names a second lock looks at every key.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any, ClassVar

from hivetenancy.errors import InvalidNameError
from hivetenancy.namespaces import TenantNames
from hivetenancy.namespaces.patterns import AMQP, check_topic, segmented, topic_matches
from hivetenancy.testing.conformance import (
    Choice,
    Count,
    Handle,
    Name,
    Names,
    Observable,
    Operation,
    Pattern,
    Running,
    Setting,
    Subject,
    Value,
)
from hivetenancy.testing.conformance import (
    Mapping as Mapped,
)

OPERATIONS = (
    Operation("set", about="keys", effect="write", key=Name(), value=Value()),
    Operation("get", about="keys", key=Name()),
    Operation("get_or_error", about="keys", key=Name()),
    Operation("exists", about="keys", key=Name()),
    Operation("delete", about="keys", effect="write", key=Name()),
    Operation("mget", about="keys", keys=Names()),
    Operation("mset", about="keys", effect="write", items=Mapped(Name(), Value())),
    Operation("rename", about="keys", effect="write", source=Name(), target=Name()),
    Operation("copy", about="keys", effect="write", source=Name(), target=Name()),
    Operation("incr", about="counters", effect="write", key=Name(), by=Count(1, 3)),
    Operation("read_counter", about="counters", key=Name()),
    Operation("cached", about="keys", key=Name()),
    Operation("keys", about="keys", pattern=Pattern()),
    Operation("between", about="keys", low=Name(), high=Name(), reverse=Choice(False, True)),
    Operation("count", about="keys"),
    Operation("first_key", about="keys"),
    Operation("create_collection", about="collections", effect="write", name=Name()),
    Operation("insert", about="collections", effect="write", name=Name(), value=Value()),
    Operation("search", about="collections", name=Name()),
    Operation("collections", about="collections", beginning=Pattern("prefix")),
    Operation("drop_collection", about="collections", effect="write", name=Name()),
    Operation("push", effect="write", queue=Name(), value=Value()),
    Operation("pop", queue=Name()),
    Operation("queue_length", queue=Name()),
    Operation("queues"),
    Operation("append", effect="write", stream=Name(), value=Value()),
    Operation("read_stream", stream=Name()),
    Operation("put_blob", about="blobs", effect="write", value=Value(common=50, odd=0)),
    Operation("has_blob", about="blobs", value=Value(common=90, odd=0)),
    Operation("publish", about="topics", effect="write", topic=Name(), value=Value()),
    Operation("subscribe", about="topics", effect="write", gives="subscription", pattern=Pattern("topic")),
    Operation("poll", about="topics", subscription=Handle("subscription")),
    Operation("unsubscribe", about="topics", effect="write", subscription=Handle("subscription")),
    Operation("open_cursor", about="keys", effect="write", gives="cursor", beginning=Pattern("prefix")),
    Operation("fetch", about="keys", cursor=Handle("cursor"), most=Count(1, 3)),
    Operation("begin_upload", about="keys", effect="write", gives="upload", key=Name()),
    Operation("upload_part", about="keys", effect="write", upload=Handle("upload"), value=Value()),
    Operation("finish_upload", about="keys", effect="write", upload=Handle("upload")),
    Operation("start_job", about="keys", effect="write", gives="job", key=Name()),
    Operation("job_result", about="keys", job=Handle("job")),
    Operation("statistics"),
    Operation("backup", about="keys"),
    Operation("purge", effect="purge"),
)


class RefusedError(Exception):
    """What the server answers where it will not."""


class Store:
    """One table of physical names, which keeps a trace and looks at whose name it is given.

    Args:
        owns: Whether a name of a kind is that of the tenant that is being served; ``None``: do not look.
    """

    def __init__(self, owns: Callable[[str], bool] | None) -> None:
        self.rows: dict[str, Any] = {}
        self.trace: list[tuple[str, str]] = []
        self.trips: list[str] = []
        self._owns = owns

    def look(self, verb: str, name: str) -> None:
        self.trace.append((verb, name))
        if self._owns is not None and not self._owns(name):
            self.trips.append(name)
            raise RefusedError("no such name")

    def get(self, name: str) -> Any:
        self.look("get", name)
        return self.rows.get(name)

    def put(self, name: str, value: Any) -> None:
        self.look("put", name)
        self.rows[name] = value

    def remove(self, name: str) -> Any:
        self.look("remove", name)
        return self.rows.pop(name, None)

    def scan(self, low: str, high: str | None) -> list[str]:
        """The names from *low* up to *high*, in order."""
        self.trace.append(("scan", low))
        return sorted(name for name in self.rows if name >= low and (high is None or name < high))


class Server:
    """The server. A mutant overrides one method of it."""

    guarded: ClassVar[bool] = True
    """Whether the second lock is on. Mutants have it off: it would hold where the first lock is broken."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.tenant = ""
        self.tables = {kind: Store(self._owner(kind) if self.guarded else None) for kind in TABLES}
        self.cache: dict[Any, Any] = {}
        self.handles: dict[Any, Any] = {}
        self.calls: dict[str, int] = {}
        self.log: list[str] = []
        self._names: dict[str, TenantNames] = {}

    def _owner(self, kind: str) -> Callable[[str], bool]:
        return lambda name: getattr(self.names(), TABLES[kind]).owns(name)  # type: ignore[no-any-return]

    # who is asking

    def names(self) -> TenantNames:
        """The names of the tenant that is being served."""
        found = self._names.get(self.tenant)
        if found is None:
            found = self._names[self.tenant] = self.setting.names_of(self.tenant)
        return found

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        """Serve one call. The wire is another way in to the same operations, and speaks JSON."""
        self.tenant = tenant
        self.calls[self.own()] = self.calls.get(self.own(), 0) + 1
        self.log.append(f"{operation} took 3 us")
        if surface == "wire":
            return json.loads(json.dumps(self.wire(operation, arguments)))
        return getattr(self, operation)(**arguments)

    def wire(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        return getattr(self, operation)(**arguments)

    def own(self) -> str:
        """What this tenant's rows in tables without names are kept under."""
        return self.names().kv.prefix

    def key(self, name: str) -> str:
        return str(self.names().kv.key(name))

    # keys

    @property
    def kv(self) -> Store:
        return self.tables["keys"]

    def set(self, key: str, value: str) -> str:
        physical = self.key(key)
        self.kv.put(physical, value)
        self.forget(physical)
        return "OK"

    def get(self, key: str) -> Any:
        return self.kv.get(self.key(key))

    def get_or_error(self, key: str) -> Any:
        value = self.kv.get(self.key(key))
        if value is None:
            raise RefusedError(f"no key {key!r}")
        return value

    def exists(self, key: str) -> bool:
        return self.kv.get(self.key(key)) is not None

    def delete(self, key: str) -> bool:
        physical = self.key(key)
        self.forget(physical)
        return self.kv.remove(physical) is not None

    def mget(self, keys: Sequence[str]) -> list[Any]:
        return [self.kv.get(str(name)) for name in self.names().kv.keys(keys)]

    def mset(self, items: Mapping[str, str]) -> int:
        for key, value in items.items():
            self.set(key, value)
        return len(items)

    def rename(self, source: str, target: str) -> bool:
        value = self.kv.remove(self.key(source))
        if value is None:
            return False
        self.kv.put(self.key(target), value)
        self.forget(self.key(source))
        self.forget(self.key(target))
        return True

    def copy(self, source: str, target: str) -> bool:
        value = self.kv.get(self.key(source))
        if value is None:
            return False
        self.kv.put(self.key(target), value)
        self.forget(self.key(target))
        return True

    # counters

    def incr(self, key: str, by: int) -> int:
        name = self.key(key)
        value = (self.tables["counters"].get(name) or 0) + by
        self.tables["counters"].put(name, value)
        return int(value)

    def read_counter(self, key: str) -> int:
        return self.tables["counters"].get(self.key(key)) or 0

    # a cache in front of the keys

    def cached(self, key: str) -> Any:
        slot = self.slot(key)
        if slot not in self.cache:
            self.cache[slot] = self.kv.get(self.key(key))
        return self.cache[slot]

    def slot(self, key: str) -> Any:
        return self.key(key)

    def forget(self, physical: str) -> None:
        self.cache.pop(physical, None)

    # listings

    def keys(self, pattern: str) -> list[str]:
        matches = glob(self.names().kv.pattern(pattern))
        return self.strip([name for name in self.all_keys() if matches(name)])

    def all_keys(self) -> list[str]:
        return self.kv.scan(*self.names().kv.range())  # type: ignore[arg-type]

    def strip(self, names: Sequence[str]) -> list[str]:
        return self.names().kv.strip_all(names)

    def between(self, low: str, high: str, reverse: bool) -> list[str]:
        start, end = self.names().kv.range(low, high)
        found = self.strip(self.kv.scan(start or "", end))
        return found[::-1] if reverse else found

    def count(self) -> int:
        return len(self.all_keys())

    def first_key(self) -> str | None:
        found = self.all_keys()
        return self.strip(found[:1])[0] if found else None

    # collections

    @property
    def shelves(self) -> Store:
        return self.tables["collections"]

    def shelf(self, name: str) -> str:
        return str(self.names().collections.key(name))

    def create_collection(self, name: str) -> str:
        if self.shelves.get(self.shelf(name)) is not None:
            raise RefusedError(f"there is a collection {name!r} already")
        self.shelves.put(self.shelf(name), [])
        return "created"

    def insert(self, name: str, value: str) -> int:
        held = self.shelves.get(self.shelf(name)) or []
        self.shelves.put(self.shelf(name), [*held, value])
        return len(held) + 1

    def search(self, name: str) -> list[str]:
        held = self.shelves.get(self.shelf(name))
        if held is None:
            raise RefusedError(f"no collection {name!r}")
        return held[-3:]

    def collections(self, beginning: str) -> list[str]:
        scope = self.names().collections
        low, high = scope.range()
        start = scope.starting(beginning)
        return scope.strip_all([name for name in self.shelves.scan(low or "", high) if name.startswith(start)])

    def drop_collection(self, name: str) -> bool:
        return self.shelves.remove(self.shelf(name)) is not None

    # queues and streams

    def push(self, queue: str, value: str) -> int:
        name = str(self.names().queues.key(queue))
        held = [*(self.tables["queues"].get(name) or ()), value]
        self.tables["queues"].put(name, held)
        return len(held)

    def pop(self, queue: str) -> Any:
        name = str(self.names().queues.key(queue))
        held = self.tables["queues"].get(name)
        if not held:
            return None
        self.tables["queues"].put(name, held[1:])
        return held[0]

    def queue_length(self, queue: str) -> int:
        return len(self.tables["queues"].get(str(self.names().queues.key(queue))) or ())

    def queues(self) -> list[str]:
        scope = self.names().queues
        return sorted(scope.strip(name) for name in self.tables["queues"].rows if scope.owns(name))

    def append(self, stream: str, value: str) -> int:
        name = str(self.names().streams.key(stream))
        held = [*(self.tables["streams"].get(name) or ()), value]
        self.tables["streams"].put(name, held)
        return len(held)

    def read_stream(self, stream: str) -> list[Any]:
        held = self.tables["streams"].get(str(self.names().streams.key(stream))) or []
        return [[number, value] for number, value in enumerate(held)]

    # blobs, kept once for each content

    def put_blob(self, value: str) -> str:
        known = self.has_blob(value)
        self.tables["blobs"].put(self.blob(value), value)
        return "kept before" if known else "kept"

    def has_blob(self, value: str) -> bool:
        return self.tables["blobs"].get(self.blob(value)) is not None

    def blob(self, value: str) -> str:
        return str(self.names().blobs.key(value))

    # topics

    def publish(self, topic: str, value: str) -> int:
        check_topic(topic, AMQP)
        name = str(self.names().topics.key(topic))
        reached = 0
        for held in self.subscriptions():
            if held["match"](name) and self.delivers(held, name):
                held["inbox"].append([topic, value])
                reached += 1
        return reached

    def subscriptions(self) -> list[Any]:
        return [held for held in self.handles.values() if held["kind"] == "subscription"]

    def delivers(self, held: Any, name: str) -> bool:
        """The second look at delivery: is it the subscriber's own topic?"""
        return bool(held["names"].topics.owns(name))

    def subscribe(self, pattern: str) -> str:
        segmented("", pattern, AMQP)  # refuse what is no pattern, with tenants or without
        names = self.names()
        match = segments(names.topics.pattern(pattern))
        return self.issue("subscription", {"match": match, "inbox": [], "names": names})

    def poll(self, subscription: str) -> list[Any]:
        held = self.held("subscription", subscription)
        inbox, held["inbox"] = held["inbox"], []
        return inbox  # type: ignore[no-any-return]

    def unsubscribe(self, subscription: str) -> str:
        self.held("subscription", subscription)
        self.give_up("subscription", subscription)
        return "gone"

    # handles

    def issue(self, kind: str, held: dict[str, Any]) -> str:
        handle = self.new_handle(kind)
        self.handles[self.place(kind, handle)] = {"kind": kind, "owner": self.own(), **held}
        return handle

    def new_handle(self, kind: str) -> str:
        return f"{kind}-{secrets.token_hex(16)}"

    def place(self, kind: str, handle: str) -> Any:
        return (kind, self.key(handle))

    def held(self, kind: str, handle: str) -> Any:
        """What a handle stands for; another tenant's stands for nothing."""
        self.kv.trace.append(("handle", kind))
        found = self.handles.get(self.place(kind, handle))
        if found is None:
            raise RefusedError(f"no such {kind}")
        return found

    def give_up(self, kind: str, handle: str) -> None:
        self.handles.pop(self.place(kind, handle), None)

    def open_cursor(self, beginning: str) -> str:
        start = self.names().kv.starting(beginning)
        return self.issue("cursor", {"left": self.strip([name for name in self.all_keys() if name.startswith(start)])})

    def fetch(self, cursor: str, most: int) -> list[Any]:
        held = self.held("cursor", cursor)
        page, held["left"] = held["left"][:most], held["left"][most:]
        return [[key, self.get(key)] for key in page]

    def begin_upload(self, key: str) -> str:
        return self.issue("upload", {"key": key, "parts": []})

    def upload_part(self, upload: str, value: str) -> int:
        parts = self.held("upload", upload)["parts"]
        parts.append(value)
        return len(parts)

    def finish_upload(self, upload: str) -> str:
        held = self.held("upload", upload)
        self.give_up("upload", upload)
        return self.set(held["key"], " ".join(held["parts"]))

    def start_job(self, key: str) -> str:
        return self.issue("job", {"result": self.get(key)})

    def job_result(self, job: str) -> Any:
        return self.held("job", job)["result"]

    # all of it

    def statistics(self) -> dict[str, int]:
        return {
            "calls": self.calls[self.own()],
            "keys": self.count(),
            "handles": sum(held["owner"] == self.own() for held in self.handles.values()),
        }

    def backup(self) -> dict[str, Any]:
        return {name: self.get(name) for name in self.strip(self.all_keys())}

    def purge(self) -> int:
        """Remove all that the tenant has, of every kind."""
        gone = 0
        for kind, table in self.tables.items():
            for name in table.scan(*getattr(self.names(), TABLES[kind]).range()):
                table.remove(name)
                gone += 1
        self.forget_all()
        self.drop_handles()
        return gone

    def forget_all(self) -> None:
        for slot in [slot for slot in self.cache if str(slot).startswith(self.own())]:
            del self.cache[slot]

    def drop_handles(self) -> None:
        for place in [place for place, held in self.handles.items() if held["owner"] == self.own()]:
            del self.handles[place]

    # what it leaves

    def metrics(self) -> str:
        """What the tenant itself is shown."""
        return f"calls {self.calls.get(self.own(), 0)}\n"

    def message(self, error: Exception) -> Exception:
        """The error as the tenant gets to see it."""
        return error


TABLES = {
    "keys": "kv",
    "counters": "kv",
    "collections": "collections",
    "queues": "queues",
    "streams": "streams",
    "blobs": "blobs",
}
"""The tables, and the kind of the names in each."""


@lru_cache(maxsize=4096)
def glob(pattern: str) -> Callable[[str], Any]:
    """What matches a glob. It may be cached: the pattern is physical, so it is one tenant's."""
    return re.compile(translate(pattern)).match


@lru_cache(maxsize=4096)
def segments(pattern: str) -> Callable[[str], bool]:
    """What matches a topic's pattern, in which ``*`` is one segment and ``#`` any number of them."""
    return lru_cache(maxsize=256)(lambda topic: topic_matches(pattern, topic, AMQP))


class ServerRunning(Running):
    """The server as the suite sees it."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        try:
            return self.server.call(tenant, operation, arguments, surface)
        except InvalidNameError:
            return {"refused": "name"}  # what may be a name differs with and without tenants, and says nothing of them
        except Exception as error:
            return self.server.message(error)

    def observables(self) -> list[Observable]:
        server = self.server
        left = [Observable(source="server.log", content="\n".join(server.log))]
        for one in server.setting.tenants:
            server.tenant = one.id
            left.append(Observable(source="/metrics", content=server.metrics(), kind="metrics", tenant=one.id))
        return left

    def trace(self) -> list[Any]:
        made = []
        for kind, table in self.server.tables.items():
            made += [[kind, *entry] for entry in table.trace]
            table.trace.clear()
        return made

    def trips(self) -> list[str] | None:
        if not self.server.guarded:
            return None
        made = []
        for table in self.server.tables.values():
            made += table.trips
            table.trips.clear()
        return made


class Reference(Subject):
    """The subject: the clean server, or another one.

    Args:
        server: Its class.
    """

    operations = OPERATIONS
    surfaces = ("direct", "wire")

    def __init__(self, server: type[Server] = Server) -> None:
        self.server = server

    def start(self, setting: Setting) -> ServerRunning:
        return ServerRunning(self.server(setting))
