"""The Starlette example with mistakes that anybody could make: each is found. `test_wired` has the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Endpoint

from hivetenancy import Tenancy, current_tenant, function
from hivetenancy.testing.conformance import (
    Mapping,
    Name,
    Names,
    Operation,
    Options,
    Report,
    Subject,
    Value,
    Verdict,
    examine,
)
from hivetenancy.testing.conformance.faulty import FAULTS
from hivetenancy.testing.conformance.http import HttpSubject, Route
from hivetenancy.testing.conformance.power import power
from tests.tiers import examples

Mistake = Callable[[ModuleType], Callable[[Request], Any]]
"""Makes a handler for one copy of the example."""

_SPEC = find_spec("examples.starlette_kv")
assert _SPEC is not None
assert isinstance(_SPEC.loader, SourceFileLoader)
_CODE = _SPEC.loader.get_code("examples.starlette_kv")
assert _CODE is not None


def example() -> ModuleType:
    """A copy of the example with a store of its own: it keeps its data in the module."""
    module = ModuleType("starlette_kv")
    exec(_CODE, module.__dict__)  # type: ignore[arg-type]
    return module


class KeyValue(HttpSubject):
    """`examples/starlette_kv.py`, with other handlers in the places of some."""

    operations = (
        Operation("put", effect="write", key=Name(), value=Value()),
        Operation("get", key=Name()),
        Operation("delete", effect="write", key=Name()),
        Operation("keys"),
    )
    routes: ClassVar[Any] = {
        "put": Route(method="PUT", path="/kv/{key}", body="value"),
        "get": Route(method="GET", path="/kv/{key}"),
        "delete": Route(method="DELETE", path="/kv/{key}"),
        "keys": Route(method="GET", path="/kv"),
    }

    def __init__(self, **mistakes: Mistake) -> None:
        self.mistakes = mistakes

    def app(self, tenancy: Tenancy) -> Any:
        module = example()
        handlers = {name: mistake(module) for name, mistake in self.mistakes.items()}
        endpoints = [
            Endpoint(one.path, handlers.get(one.endpoint.__name__, one.endpoint), methods=list(one.methods or ()))
            for one in module.routes
            if isinstance(one, Endpoint) and one.path != "/livez"
        ]
        extra = [Endpoint("/jobs/{key:path}", handlers["jobs"])] if "jobs" in handlers else []
        return tenancy.asgi(Starlette(routes=[*endpoints, *extra]))


def run(subject: Subject, *, rounds: int = 4) -> Report:
    """Run the suite until a first leak."""
    return examine(subject, Options(rounds=rounds, steps=30, most_leaks=1, minimise_runs=20))


def found_at(report: Report) -> set[str]:
    """The operations at which something leaks."""
    return {leak.finding.place.operation for leak in report.leaks}


def test_the_starlette_example_leaks_nothing() -> None:
    """The example as it is passes, over HTTP, with the tenancy around it."""
    report = examine(KeyValue(), Options(rounds=examples(1, 10), steps=examples(8, 40)))
    assert not report.leaks, str(report)
    assert not report.doubts, str(report)
    assert report.cell("keys", "http", "control").verdict is Verdict.PASS


def test_a_cache_without_tenant_is_found() -> None:
    """A17: a cache keyed by the path alone shows one tenant's values to another."""

    def cached(module: ModuleType) -> Any:
        cache: dict[str, bytes] = {}

        @function("kv.get", effect="read")
        async def get(request: Request) -> Response:
            name = request.path_params["key"]
            if name not in cache:
                key = str(current_tenant().kv.key(name))
                if key not in module.store:
                    raise module.missing()
                cache[name] = module.store[key]
            return Response(cache[name], media_type="application/octet-stream")

        return get

    assert found_at(run(KeyValue(get=cached))) == {"get"}


def test_forbidden_in_place_of_missing_is_found() -> None:
    """A19: 403 for what another tenant has, 404 for what nobody has."""

    def telling(module: ModuleType) -> Any:
        @function("kv.get", effect="read")
        async def get(request: Request) -> Response:
            name = request.path_params["key"]
            key = str(current_tenant().kv.key(name))
            if key in module.store:
                return Response(module.store[key], media_type="application/octet-stream")
            if any(other.endswith(f":{name}") for other in module.store):
                return Response(status_code=403)
            raise module.missing()

        return get

    assert found_at(run(KeyValue(get=telling))) == {"get"}


def test_a_listing_without_owner_is_found() -> None:
    """A10: a listing that cuts every key at its prefix, whosever it is."""

    def ownerless(module: ModuleType) -> Any:
        @function("kv.list", effect="read")
        async def keys(request: Request) -> Response:
            return JSONResponse(sorted({key.split(":", 2)[-1] for key in module.store}))

        return keys

    assert found_at(run(KeyValue(keys=ownerless))) == {"keys"}


def test_a_worker_that_the_first_tenant_started_is_found() -> None:
    """A25: a worker that starts with the first job keeps that tenant, and runs all jobs as that."""

    def lazy(module: ModuleType) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        workers: list[asyncio.Task[None]] = []

        async def work() -> None:
            while True:
                name, answer = await queue.get()
                answer.set_result(module.store.get(str(current_tenant().kv.key(name))))

        @function("jobs.run", effect="read")
        async def jobs(request: Request) -> Response:
            if not workers:
                workers.append(asyncio.create_task(work()))
            answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            await queue.put((request.path_params["key"], answer))
            return Response(await answer or b"")

        return jobs

    class WithJobs(KeyValue):
        operations = (*KeyValue.operations, Operation("job", key=Name()))
        routes: ClassVar[Any] = {**KeyValue.routes, "job": Route(method="GET", path="/jobs/{key}")}

    assert found_at(run(WithJobs(jobs=lazy))) == {"job"}


def test_a_refused_route_is_no_leak() -> None:
    """A subject whose server refuses every call is vacuous, not well."""

    def refusing(module: ModuleType) -> Any:
        @function("kv.get", effect="read")
        async def get(request: Request) -> Response:
            return Response(status_code=404)

        return get

    report = examine(KeyValue(get=refusing), Options(rounds=1, steps=5))
    assert report.cell("get", "http", "equality").verdict is Verdict.VACUOUS


@pytest.mark.deep
def test_g8_faulty_names_are_found_through_starlette() -> None:
    """G8: the faults that the example makes use of are found over HTTP, through the adapter; all in the deep tier."""
    faults = FAULTS if examples(1, 2) == 2 else FAULTS[:2]
    tested = power(KeyValue(), Options(rounds=1, steps=examples(8, 25)), faults=faults)
    assert not tested.missed, str(tested)
    assert tested.found >= examples(2, 10)
    if examples(1, 2) == 2:
        assert tested.unscoped == ()


@pytest.mark.parametrize("argument", [Mapping(), Names()])
def test_arguments_of_many_are_filled(argument: Any) -> None:
    """Lists and mappings become parts of a command."""
    from hivetenancy.testing.conformance.resp import filled

    given: Any = {"k": "v"} if isinstance(argument, Mapping) else ["k", "v"]
    assert filled(("X", "{a}"), {"a": given}) == ["X", "k", "v"]
