"""The examples on real sockets: nothing leaks, each operation is seen to be scoped, and mistakes are found (G8)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")
pytest.importorskip("hiredis", reason="needs the extra hivetenancy[conformance]")

from aiohttp import web

from examples import resp_server
from hivetenancy import current_tenant, function
from hivetenancy.testing.conformance import Options, Subject, Verdict, examine, power
from hivetenancy.testing.conformance.faulty import FAULTS
from tests.conformance.wired import AiohttpKeyValue, Handler, RespKeyValue, ThreeWays
from tests.tiers import TIER, examples

UNUSED = frozenset(
    {
        *("shared collections", "shared queues", "shared topics", "unscoped patterns", "patterns of all"),
        *("first of many", "range without end", "range without beginning", "swapped bounds", "wide beginning"),
    }
)
"""Faults of what these servers make no use of: collections, queues, topics, patterns, ranges, many names at once."""

SUBJECTS = (RespKeyValue, AiohttpKeyValue, ThreeWays)[: examples(1, 3)]

each = pytest.mark.parametrize("made", SUBJECTS, ids=[one.__name__ for one in SUBJECTS])


@pytest.mark.deep
@each
def test_nothing_leaks_and_no_cell_is_vacuous(made: Callable[[], Subject]) -> None:
    """The servers as they are: every operation has something to show on every surface, and nothing leaks."""
    report = examine(made(), Options(rounds=examples(1, 3), steps=examples(1, 30)))
    assert not report.leaks, str(report)
    assert not report.doubts, str(report)
    if TIER == "deep":
        assert {cell.verdict for cell in report.cells} == {Verdict.PASS, None}, str(report)


@pytest.mark.deep
@each
def test_g8_faulty_names_are_found(made: Callable[[], Subject]) -> None:
    """G8: each fault that the server makes use of is found, and each operation is seen to be scoped on each surface."""
    subject = made()
    subject.operations = subject.operations[: examples(3, 99)]
    used = [fault for fault in FAULTS if fault.name not in UNUSED]
    tested = power.power(subject, Options(rounds=1, steps=25), faults=used[: examples(1, 99)])
    assert tested.missed == ()
    assert tested.unscoped == ()
    assert tested.found >= examples(1, 10), str(tested)


@pytest.mark.deep
def test_g8_an_operation_that_is_not_scoped_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that names are nothing to shows nothing under the identity, and the power test says so."""
    monkeypatch.setattr(power, "_PROGRAMS", examples(2, 60))

    async def get(server: resp_server.RespServer, tenant: Any, args: Any) -> object:
        return b"the same for everybody"

    subject = RespKeyValue(GET=get)
    subject.operations = (subject.operations[0], subject.operations[2])
    tested = power.power(subject, Options(rounds=1, steps=examples(8, 25)), faults=())
    assert ("get", "resp") in tested.unscoped


# --- mistakes in the aiohttp example ---------------------------------------------------------------------------------


def _cached(module: ModuleType) -> Handler:
    """A17: a cache that goes by the path alone."""
    cache: dict[str, bytes] = {}

    @function("kv.get", effect="read")
    async def get(request: web.Request) -> web.Response:
        name = request.match_info["key"]
        if name not in cache:
            cache[name] = (await module_get(request)).body
        return web.Response(body=cache[name], content_type="application/octet-stream")

    module_get = module.get
    return get


def _telling(module: ModuleType) -> Handler:
    """A19: 403 for what another tenant has, 404 for what nobody has."""

    @function("kv.get", effect="read")
    async def get(request: web.Request) -> web.Response:
        name, store = request.match_info["key"], request.app[module.STORE]
        own = str(current_tenant().kv.key(name))
        if own not in store and any(other.endswith(f":{name}") for other in store):
            return web.Response(status=403)
        answer: web.Response = await module_get(request)
        return answer

    module_get = module.get
    return get


def _ownerless(module: ModuleType) -> Handler:
    """A10: a listing that cuts every name at its prefix, whosever it is."""

    @function("kv.list", effect="read")
    async def names(request: web.Request) -> web.Response:
        return web.json_response(sorted({name.split(":", 2)[-1] for name in request.app[module.STORE]}))

    return names


def _first_prefix(module: ModuleType) -> Handler:
    """A25: what belongs to the first tenant who comes is kept in the application."""
    kept: list[Any] = []

    @function("kv.delete", effect="delete")
    async def delete(request: web.Request) -> web.Response:
        kept.append(current_tenant().kv)
        gone = request.app[module.STORE].pop(str(kept[0].key(request.match_info["key"])), None)
        return web.Response(status=404 if gone is None else 204)

    return delete


def _raw(module: ModuleType) -> Handler:
    """A forgotten scope: what is stored lies under the name as it came."""

    @function("kv.set", effect="write")
    async def put(request: web.Request) -> web.Response:
        name, store = request.match_info["key"], request.app[module.STORE]
        known = name in store
        store[name] = await request.read()
        return web.Response(status=200 if known else 201)

    return put


# --- mistakes in the RESP example ------------------------------------------------------------------------------------


async def _mget(server: resp_server.RespServer, tenant: Any, args: Any) -> object:
    """A10: of many names the first alone is scoped, the others are found by how they end."""
    items = {name.rpartition(":")[2]: item for name, item in server.store._items.items()}
    first = await server.store.get(str(tenant.kv.key(args[0].decode())))
    return [found and found.value for found in (first, *(items.get(name.decode()) for name in args[1:]))]


async def _exists(server: resp_server.RespServer, tenant: Any, args: Any) -> object:
    """A10: a count over everybody's names."""
    return sum(any(name.endswith(":" + arg.decode()) for name in server.store._items) for arg in args)


async def _incr(server: resp_server.RespServer, tenant: Any, args: Any) -> object:
    """A counter under the name as it came."""
    item = await server.store.get(args[0].decode())
    value = b"%d" % (1 if item is None else int(item.value) + 1)
    server.store.put(args[0].decode(), resp_server.Item(value, tenant))
    return int(value)


async def _scan(server: resp_server.RespServer, tenant: Any, args: Any) -> object:
    """A10: a listing that cuts every name at its prefix, whosever it is."""
    return [b"0", sorted({name.split(":", 2)[-1].encode() for name in server.store._items})]


async def _delete(server: resp_server.RespServer, tenant: Any, args: Any) -> object:
    """A5: an id without its delimiter: who begins alike loses keys, and is told how many."""
    ends = tuple(f":{arg.decode()}" for arg in args)
    gone = [name for name in server.store._items if name.endswith(ends)]
    for name in gone:
        del server.store._items[name]
    return len(gone)


# --- mistakes on one of three surfaces -------------------------------------------------------------------------------


def _first_speaker() -> Callable[[], Any]:
    """A25: the WebSocket acts for whoever spoke first on any."""
    kept: list[Any] = []

    def whose() -> Any:
        kept.append(current_tenant())
        return kept[0]

    return whose


# --- all of them -----------------------------------------------------------------------------------------------------

ANYWHERE: set[tuple[str, str]] = set()

MISTAKES: dict[str, tuple[Callable[[], Subject], set[tuple[str, str]]]] = {
    "RESP: a forgotten MGET": (lambda: RespKeyValue(MGET=_mget), {("mget", "resp")}),
    "RESP: EXISTS of everybody's": (lambda: RespKeyValue(EXISTS=_exists), {("exists", "resp")}),
    "RESP: a counter unscoped": (lambda: RespKeyValue(INCR=_incr), {("incr", "resp")}),
    "RESP: a listing without owner": (lambda: RespKeyValue(SCAN=_scan), {("scan", "resp"), ("walk", "resp")}),
    "RESP: DEL by how names end": (lambda: RespKeyValue(DEL=_delete), ANYWHERE),
    "aiohttp: a cache without tenant": (lambda: AiohttpKeyValue(get=_cached), {("get", "http")}),
    "aiohttp: 403 for what another has": (lambda: AiohttpKeyValue(get=_telling), {("get", "http")}),
    "aiohttp: a listing without owner": (lambda: AiohttpKeyValue(names=_ownerless), {("names", "http")}),
    "aiohttp: the first tenant's names kept": (lambda: AiohttpKeyValue(delete=_first_prefix), ANYWHERE),
    "aiohttp: a forgotten scope": (lambda: AiohttpKeyValue(put=_raw), ANYWHERE),
    "three ways: a forgotten MGET": (lambda: ThreeWays(MGET=_mget), {("mget", "websocket"), ("mget", "resp")}),
    "three ways: the WebSocket's first speaker": (lambda: ThreeWays(_first_speaker), ANYWHERE),
}
"""The server with the mistake, and where it may show; `ANYWHERE`: other operations see it first."""


@pytest.mark.deep
@pytest.mark.parametrize("mistake", list(MISTAKES)[: examples(1, 99)])
def test_mistakes_are_found(mistake: str) -> None:
    """Each is found, where it is; one on the WebSocket alone by calls of which some went there."""
    made, where = MISTAKES[mistake]
    report = examine(made(), Options(rounds=4, steps=30, most_leaks=1, minimise_runs=examples(1, 30)))
    assert report.leaks
    assert where == ANYWHERE or {leak.finding.place[:2] for leak in report.leaks} <= where
    if "WebSocket" in mistake:
        assert "websocket" in {shown.step.surface for shown in report.leaks[0].calls}
