"""The reference server, broken in one place each: what the suite has to find.

Every mutant is a mistake that somebody made, or could; its docstring says which attack it is (A1 to A51 of the
isolation note). ``python -m tests.conformance.mutants --seeds 5`` runs the suite on all of them and prints how fast
each was found.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, Final

from hivetenancy.errors import InvalidNameError
from hivetenancy.testing.conformance import Options, Setting
from hivetenancy.testing.conformance.faulty import FAULTS, Fault, FaultyNamespaces
from hivetenancy.testing.conformance.suite import Suite

from .reference import Reference, RefusedError, Server, glob

FAULT: Final = {fault.name: fault for fault in FAULTS}


class Mutant(Server):
    """A server without its second lock, which would hold where the first is broken."""

    guarded = False


class Misnamed(Mutant):
    """A server whose names are wrong in one way; not a mutant itself."""

    fault: ClassVar[Fault]

    def __init__(self, setting: Setting) -> None:
        if not setting.standalone:
            setting = replace(setting, names=FaultyNamespaces(setting.names, self.fault))
        super().__init__(setting)


class NoDelimiter(Misnamed):
    """A2: nothing closes the tenant's part, so tenant 1 reaches into tenant 12."""

    fault = FAULT["no delimiter"]


class RawIds(Misnamed):
    """A1: the raw id and the name are glued with a colon, which both may hold."""

    fault = FAULT["raw ids"]


class TrimmedId(Misnamed):
    """A4: slashes around an id are trimmed."""

    fault = FAULT["trimmed ids"]


class FoldedCase(Misnamed):
    """A5: ids are compared without upper and lower case."""

    fault = FAULT["case folding"]


class Normalised(Misnamed):
    """A6: ids are brought into a compatibility form."""

    fault = FAULT["compatibility forms"]


class AliasedUuids(Misnamed):
    """A7: one layer takes all spellings of a UUID for one."""

    fault = Fault(name="aliases", about="", identity=lambda one: one.replace("-", "") if len(one) > 30 else one)


class TruncatedId(Misnamed):
    """A36: the store cuts what is too long."""

    fault = FAULT["truncated ids"]


class AlreadyPrefixed(Mutant):
    """A9: a name that looks physical is left alone."""

    def get(self, key: str) -> Any:
        return self.kv.get(key) if key.startswith("user:") and self.own() else super().get(key)


class ForgottenMget(Mutant):
    """A10: MGET takes names as they come."""

    def mget(self, keys: Sequence[str]) -> list[Any]:
        return [self.kv.get(key) or self.kv.get(self.key(key)) for key in keys]


class HalfMget(Mutant):
    """A10: MGET scopes the first name alone."""

    def mget(self, keys: Sequence[str]) -> list[Any]:
        return [self.kv.get(self.key(keys[0])), *(self.kv.rows.get(f"user:{self.tenant}:{key}") for key in keys[1:])]


class ForgottenExists(Mutant):
    """A10: EXISTS looks whether anybody has the key."""

    def exists(self, key: str) -> bool:
        return any(name.endswith(f":{key}") or name == key for name in self.kv.rows)


class ForgottenRename(Mutant):
    """A10: RENAME scopes its source and not its target."""

    def rename(self, source: str, target: str) -> bool:
        value = self.kv.remove(self.key(source))
        if value is not None:
            self.kv.put(target, value)
        self.forget(self.key(source))
        return value is not None


class ForeignCopySource(Mutant):
    """A10: COPY takes its source from whoever has it."""

    def copy(self, source: str, target: str) -> bool:
        found = next((value for name, value in self.kv.rows.items() if name.endswith(f":{source}")), None)
        value = self.kv.get(self.key(source)) if self.kv.get(self.key(source)) is not None else found
        if value is None:
            return False
        self.kv.put(self.key(target), value)
        self.forget(self.key(target))
        return True


class ForgottenCounter(Mutant):
    """A10: counters are everybody's."""

    def incr(self, key: str, by: int) -> int:
        self.key(key)
        value = (self.tables["counters"].get(key) or 0) + by
        self.tables["counters"].put(key, value)
        return int(value)

    def read_counter(self, key: str) -> int:
        return self.tables["counters"].get(key) or 0


class ForgottenSurface(Mutant):
    """A11: on the wire GET is not scoped."""

    def wire(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        if operation == "get":
            return next((v for n, v in self.kv.rows.items() if n.rpartition(":")[2] == arguments["key"]), None)
        return super().wire(operation, arguments)


class UnscopedPattern(Mutant):
    """A12: the user's glob meets physical names, and all of them."""

    def keys(self, pattern: str) -> list[str]:
        names = self.names()
        matches = glob("*" + names.kv.pattern(pattern)[len(self.own()) :])
        return [name.removeprefix(self.own()) for name in sorted(self.kv.rows) if matches(name)]


class IdAsPattern(Mutant):
    """A12: the raw id stands in a pattern, and may hold a star."""

    def keys(self, pattern: str) -> list[str]:
        right = super().keys(pattern)
        wild = glob(f"user:{self.tenant}:*")
        others = [one.id for one in self.setting.tenants if one.id != self.tenant and wild(f"user:{one.id}:")]
        scopes = [self.setting.names_of(one).kv for one in others]
        return [*right, *(scope.strip(name) for scope in scopes for name in self.kv.rows if scope.owns(name))]


class CutBySplit(Mutant):
    """V7: a logical name is what stands behind the last colon."""

    def strip(self, names: Sequence[str]) -> list[str]:
        return [name.split(":")[-1] if self.own() else name for name in names]


class KeptPrefix(Mutant):
    """Y4: listings show physical names."""

    def strip(self, names: Sequence[str]) -> list[str]:
        return list(names)


class EndlessRange(Mutant):
    """G2: a range has a beginning and no end."""

    def between(self, low: str, high: str, reverse: bool) -> list[str]:
        start, end = self.names().kv.range(low, high)
        last = None if high > "k" else end
        found = [name.removeprefix(self.own()) for name in self.kv.scan(start or "", last)]
        return found[::-1] if reverse else found


class ReversedRange(Mutant):
    """G2: read from the end, a range begins where all names end."""

    def between(self, low: str, high: str, reverse: bool) -> list[str]:
        if not reverse:
            return super().between(low, high, reverse)
        start, end = self.names().kv.range(low, high)
        found = [name for name in sorted(self.kv.rows, reverse=True) if end is None or name < end]
        return [name.removeprefix(self.own()) for name in found if name >= (start or "")[:5]]


class SharedCache(Mutant):
    """A17: the cache is keyed by the name alone."""

    def slot(self, key: str) -> Any:
        return key

    def forget(self, physical: str) -> None:
        self.cache.pop(physical.removeprefix(self.own()), None)

    def forget_all(self) -> None:
        self.cache.clear()


class CachedFunction(Mutant):
    """A17: a decorator remembers what a method answered, for whomever."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._remembered: dict[str, Any] = {}

    def read_stream(self, stream: str) -> list[Any]:
        held = super().read_stream(stream)
        known = self._remembered.get(stream)
        if known is None or len(known) < len(held):
            self._remembered[stream] = known = held
        return known[: max(len(held), 1)]


class GlobalDeduplication(Mutant):
    """A18: a blob is kept once for all tenants, and says so."""

    def blob(self, value: str) -> str:
        return value


class ForbiddenNotMissing(Mutant):
    """A19: another tenant's key is forbidden, one that nobody has is missing."""

    def get_or_error(self, key: str) -> Any:
        if self.kv.get(self.key(key)) is None and any(name.endswith(f":{key}") for name in self.kv.rows):
            raise RefusedError("forbidden")
        return super().get_or_error(key)


class GlobalConflict(Mutant):
    """A19: a collection's short name is taken for everybody."""

    def create_collection(self, name: str) -> str:
        if any(taken.endswith(f":{name}") for taken in self.shelves.rows):
            raise RefusedError(f"there is a collection {name!r} already")
        return super().create_collection(name)


class TellingError(Mutant):
    """A19: an error shows the physical name."""

    def search(self, name: str) -> list[str]:
        held = self.shelves.get(self.shelf(name))
        if held is None:
            raise RefusedError(f"no collection {self.shelf(name)!r}")
        return held[-3:]


class TotalInError(Mutant):
    """A19: an error counts everybody's collections."""

    def search(self, name: str) -> list[str]:
        held = self.shelves.get(self.shelf(name))
        if held is None:
            raise RefusedError(f"no collection {name!r} among {len(self.shelves.rows)}")
        return held[-3:]


class OpenSubscriptions(Mutant):
    """A20: whoever knows a subscription polls it."""

    def place(self, kind: str, handle: str) -> Any:
        return (kind, handle) if kind == "subscription" else super().place(kind, handle)


class OpenUploads(Mutant):
    """A20: whoever knows an upload adds to it."""

    def place(self, kind: str, handle: str) -> Any:
        return (kind, handle) if kind == "upload" else super().place(kind, handle)


class OpenJobs(Mutant):
    """A20: whoever knows a job reads its result."""

    def place(self, kind: str, handle: str) -> Any:
        return (kind, handle) if kind == "job" else super().place(kind, handle)


class OpenCursors(Mutant):
    """A20: a cursor of one tenant lists for another."""

    def place(self, kind: str, handle: str) -> Any:
        return (kind, handle) if kind == "cursor" else super().place(kind, handle)


class UncheckedUnsubscribe(Mutant):
    """Y5: whoever knows a subscription ends it."""

    def unsubscribe(self, subscription: str) -> str:
        for place in [p for p, held in self.handles.items() if p[1].endswith(subscription)]:
            del self.handles[place]
            return "gone"
        raise RefusedError("no such subscription")


class CountedHandles(Mutant):
    """A21: handles are numbers in a row, for all tenants."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._numbers = count(1)

    def new_handle(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"


class SlowOnForeign(Mutant):
    """A22: a foreign handle is looked up and then refused; one that never was is refused at once."""

    def held(self, kind: str, handle: str) -> Any:
        found = self.handles.get(self.place(kind, handle))
        if found is None and any(place[1].endswith(handle) for place in self.handles):
            self.kv.trace.append(("owner", kind))
        return super().held(kind, handle)


class ForeignHandleForbidden(Mutant):
    """A19: a foreign handle is forbidden, one that never was is missing."""

    def held(self, kind: str, handle: str) -> Any:
        if self.place(kind, handle) not in self.handles and any(p[1].endswith(handle) for p in self.handles):
            raise RefusedError(f"{kind} is not yours")
        return super().held(kind, handle)


class GlobalCount(Mutant):
    """A16: DBSIZE counts everybody's keys."""

    def count(self) -> int:
        return len(self.kv.rows)


class GlobalCalls(Mutant):
    """A23: statistics count everybody's calls."""

    def statistics(self) -> dict[str, int]:
        return {**super().statistics(), "calls": sum(self.calls.values())}


class HitRate(Mutant):
    """A23: statistics show how full the shared cache is."""

    def statistics(self) -> dict[str, int]:
        return {**super().statistics(), "cached": len(self.cache)}


class AnyFirstKey(Mutant):
    """A16: RANDOMKEY takes any key."""

    def first_key(self) -> str | None:
        found = sorted(self.kv.rows)
        return found[0].removeprefix(self.own()) if found else None


class LazyWorker(Mutant):
    """A25: the worker that a first tenant started runs the jobs of all as that tenant."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._worker: str | None = None

    def start_job(self, key: str) -> str:
        self._worker = self._worker or self.tenant
        mine, self.tenant = self.tenant, self._worker
        try:
            result = self.get(key)
        finally:
            self.tenant = mine
        return self.issue("job", {"result": result})


class StickyConnection(Mutant):
    """A26: on the wire a connection keeps the tenant of its first message for reads."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._first: str | None = None

    def wire(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        self._first = self._first or self.tenant
        if operation != "read_stream":
            return super().wire(operation, arguments)
        mine, self.tenant = self.tenant, self._first
        try:
            return super().wire(operation, arguments)
        finally:
            self.tenant = mine


class ShiftedReply(Mutant):
    """A30: after a refusal the next reply on the wire is the one before it."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._last: Any = None
        self._shifted = False

    def wire(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        try:
            answer = super().wire(operation, arguments)
        except InvalidNameError:
            self._shifted = True
            raise
        except RefusedError:
            self._shifted = operation == "search"
            raise
        if self._shifted and self._last is not None:
            self._shifted = False
            return self._last
        self._last = answer
        return answer


class WildTopics(Mutant):
    """A14: a subscription to # hears everybody, for nothing looks at delivery."""

    def publish(self, topic: str, value: str) -> int:
        reached = super().publish(topic, value)
        for held in self.subscriptions():
            names = held["names"]
            if held["match"](names.topics.prefix + topic) and not names.topics.owns(
                str(self.names().topics.key(topic))
            ):
                held["inbox"].append([topic, value])
        return reached


class GlobalReceivers(Mutant):
    """A23: PUBLISH counts the subscribers of all tenants."""

    def publish(self, topic: str, value: str) -> int:
        return super().publish(topic, value) and len(self.subscriptions())


class SweepingPurge(Mutant):
    """A39: a purge goes by the beginning of the id, and takes tenant 12 along with tenant 1."""

    def purge(self) -> int:
        gone = super().purge()
        beginning = self.own()[:-1] or "\0"
        for table in self.tables.values():
            for name in [name for name in table.rows if name.startswith(beginning)]:
                table.remove(name)
        return gone


class StaleCache(Mutant):
    """A38: a purge leaves the cache."""

    def forget_all(self) -> None:
        if not self.own():
            super().forget_all()


class LeftHandles(Mutant):
    """A38: a purge leaves subscriptions and cursors."""

    def drop_handles(self) -> None:
        if not self.own():
            super().drop_handles()


class LeftCollections(Mutant):
    """A39: a purge forgets collections."""

    def purge(self) -> int:
        held = dict(self.shelves.rows)
        gone = super().purge()
        if self.own():
            self.shelves.rows.update(
                {name: value for name, value in held.items() if self.names().collections.owns(name)}
            )
        return gone


class WholeBackup(Mutant):
    """A40: a backup packs everybody's rows, compressed and in base64."""

    def backup(self) -> dict[str, Any]:
        rows = {name: value for name, value in self.kv.rows.items() if not name.startswith(self.own())}
        packed = base64.b64encode(zlib.compress(json.dumps(rows).encode())).decode() if rows else ""
        return {**super().backup(), **({"": packed} if packed else {})}


class HexDump(Mutant):
    """A19: an error holds a dump of the neighbouring row, in hex."""

    def search(self, name: str) -> list[str]:
        held = self.shelves.get(self.shelf(name))
        if held is None:
            near = "".join(str(row) for row in self.shelves.rows.values())
            raise RefusedError(f"no collection; {near.encode().hex()[:400]}")
        return held[-3:]


class ServiceKeyInError(Mutant):
    """A49: an error holds the service key."""

    def message(self, error: Exception) -> Exception:
        if "collection" in str(error):
            return RefusedError(f"{error} (hub refused {self.setting.service_key})")
        return error


class AccessKeyInLog(Mutant):
    """A49: the log holds access keys."""

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        key = next(one.access_key for one in self.setting.tenants if one.id == tenant)
        self.log.append(f"{operation} with {key}")
        return super().call(tenant, operation, arguments, surface)


class ValueInLog(Mutant):
    """A51: the slow log holds values."""

    def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
        self.log.append(f"slow: {operation} {dict(arguments)}")
        return super().call(tenant, operation, arguments, surface)


class NeighboursInMetrics(Mutant):
    """A51: a tenant's metrics have a label for each tenant's last key."""

    def metrics(self) -> str:
        return super().metrics() + "".join(f'last{{value="{value}"}} 1\n' for value in self.kv.rows.values())


class OwnerlessForAll(Mutant):
    """A42: what has no owner is everybody's, and what a job left has none."""

    def finish_upload(self, upload: str) -> str:
        held = self.held("upload", upload)
        if self.own():
            self.kv.rows[held["key"]] = " ".join(held["parts"])
        return super().finish_upload(upload)

    def get_or_error(self, key: str) -> Any:
        return super().get_or_error(key) if not self.own() or key not in self.kv.rows else self.kv.rows[key]


class ReadFallback(Mutant):
    """A44: what is not under the new name is looked for under the old."""

    def set(self, key: str, value: str) -> str:
        if self.own() and len(key) > 2:
            self.key(key)
            self.kv.put(key, value)
        return super().set(key, value)

    def get(self, key: str) -> Any:
        found = super().get(key)
        return found if found is not None else self.kv.rows.get(key)


class Sentinel(Mutant):
    """A45: the tenant called system sees everything."""

    def all_keys(self) -> list[str]:
        if self.tenant in ("system", "__system__") and self.own():
            return sorted(self.kv.rows)
        return super().all_keys()

    def strip(self, names: Sequence[str]) -> list[str]:
        return [name.removeprefix(self.own()) for name in names]


class LastTenant(Mutant):
    """A29: the tenant stands in one place for everybody, and a queue looks there later."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._seen = ""

    def pop(self, queue: str) -> Any:
        mine, before = self.tenant, self._seen
        self._seen = mine
        if before and len(queue) > 1:
            self.tenant = before
        try:
            return super().pop(queue)
        finally:
            self.tenant = mine


class SecondLockAlone(Server):
    """G11: EXISTS takes raw names, and only the guarded store stands in its way."""

    def exists(self, key: str) -> bool:
        try:
            return self.kv.get(f"user:{key}") is not None or super().exists(key)
        except RefusedError:
            return super().exists(key)

    def set(self, key: str, value: str) -> str:
        return super().set(key, value)


class OneTable(Mutant):
    """A3: queues and collections are kept in one table, under names that nest."""

    def shelf(self, name: str) -> str:
        super().shelf(name)
        return f"{self.tenant}/{name}" if self.own() else name

    def collections(self, beginning: str) -> list[str]:
        if not self.own():
            return super().collections(beginning)
        start = f"{self.tenant}/{beginning}"
        own = f"{self.tenant}/"
        return sorted(name.removeprefix(own) for name in self.shelves.rows if name.startswith(start))

    def purge(self) -> int:
        gone = super().purge()
        if self.own():
            for name in [name for name in self.shelves.rows if name.startswith(f"{self.tenant}/")]:
                self.shelves.remove(name)
                gone += 1
        return gone


def _subclasses(base: type) -> list[type[Server]]:
    return [one for one in base.__subclasses__() if one.__module__ == __name__]


_BASES: Final = (Server, Mutant, Misnamed)
MUTANTS: Final = {one.__name__: one for base in reversed(_BASES) for one in _subclasses(base) if one not in _BASES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """How a mutant fared on one seed."""

    killed: bool
    calls: int
    seconds: float
    place: str


def hunt(server: type[Server], seed: int, *, rounds: int = 60) -> Kill:
    """Run the suite on *server* until it finds a leak."""
    report = asyncio.run(
        Suite(Reference(server), Options(seed=seed, rounds=rounds, most_leaks=1, minimise_runs=0)).report()
    )
    place = report.leaks[0].finding.place if report.leaks else ""
    return Kill(killed=bool(report.leaks), calls=report.calls, seconds=report.seconds, place=":".join(place))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of mutants."""
    parser = argparse.ArgumentParser(description="Run the conformance suite on every mutant of the reference server.")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--rounds", type=int, default=60, help="how many programs a clique gets at most")
    parser.add_argument("--only", nargs="*", help="names of mutants")
    options = parser.parse_args(arguments)
    began, survivors, all_calls = time.perf_counter(), [], 0
    print(f"{'mutant':24}{'killed':>8}{'calls (worst)':>15}{'seconds':>9}  found at")
    for name, server in MUTANTS.items():
        if options.only and name not in options.only:
            continue
        kills = [hunt(server, seed, rounds=options.rounds) for seed in range(options.seeds)]
        all_calls += sum(kill.calls for kill in kills)
        killed = sum(kill.killed for kill in kills)
        if killed < len(kills):
            survivors.append(name)
        worst, seconds = max(kill.calls for kill in kills), sum(kill.seconds for kill in kills)
        print(f"{name:24}{killed:>4} / {len(kills)}{worst:>15}{seconds:>9.2f}  {kills[0].place}", flush=True)
    seconds = time.perf_counter() - began
    print(f"{len(MUTANTS)} mutants, {options.seeds} seeds: {seconds:.1f} s, {all_calls / seconds:,.0f} calls a second")
    print(f"survivors: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
