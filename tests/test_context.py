"""What carries the binding to a tenant, what does not, and what would carry it too far.

Each row of the matrix asks ``current_tenant`` from the far end of one mechanism. Where a mechanism is known to hand the
tenant of somebody else on, the row beside it shows that it does so without us, and what stops it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, aclosing
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from hivetenancy import context as context_module
from hivetenancy.context import Binding, Bound, TenantContext, bind_to, bound, spawn, without_tenant
from hivetenancy.errors import MissingTenantError, MisuseError
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.tenant import bound_to, current_tenant
from hivetenancy.testing import AsgiClient
from tests.tenants import ACME, BETA, a_process, a_tenant, who
from tests.tiers import examples

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process in cluster mode, with nothing bound."""
    with a_process(monkeypatch):
        yield


async def ask() -> str:
    """Who it is, from a coroutine."""
    await asyncio.sleep(0)
    return who()


# --- the matrix -------------------------------------------------------------------------------------------------------


async def by_await() -> str:
    return await ask()


async def by_task() -> str:
    return await asyncio.create_task(ask())


async def by_gather() -> str:
    one, other = await asyncio.gather(ask(), ask())
    return one if one == other else "two"


async def by_task_group() -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask())
    return task.result()


async def by_call_soon() -> str:
    return await _called(lambda tell: asyncio.get_running_loop().call_soon(tell))


async def by_call_later() -> str:
    return await _called(lambda tell: asyncio.get_running_loop().call_later(0, tell))


async def by_call_soon_threadsafe() -> str:
    loop = asyncio.get_running_loop()

    def from_thread(tell: Callable[[], None]) -> None:
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(tell))
        thread.start()
        thread.join()

    return await _called(from_thread)


async def _called(arrange: Callable[[Callable[[], None]], object]) -> str:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    arrange(lambda: answer.set_result(who()))
    return await answer


async def by_to_thread() -> str:
    return await asyncio.to_thread(who)


async def by_copy_context() -> str:
    return contextvars.copy_context().run(who)


async def by_executor() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, who)


async def by_submit() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(who).result()


async def by_thread() -> str:
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(who()))
    thread.start()
    thread.join()
    return seen[0]


async def by_loop_in_a_thread() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(ask())).result()


async def by_bound_executor() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, current_tenant().bind(who))


async def by_bound_partial() -> str:
    work = current_tenant().bind(functools.partial(ask))
    return await asyncio.create_task(without_tenant(work()))


async def by_bound_coroutine_of_a_function() -> str:
    work = current_tenant().bind(lambda: ask())
    return await asyncio.create_task(without_tenant(work()))


async def by_spawn() -> str:
    return await spawn(ask(), name="shared")


async def by_without_tenant() -> str:
    return without_tenant(who)()


async def by_without_tenant_coroutine() -> str:
    return await without_tenant(ask())


async def by_without_tenant_function() -> str:
    return await without_tenant(ask)()


async def by_empty_context() -> str:
    return await asyncio.create_task(ask(), context=contextvars.Context())


async def by_generator() -> str:
    def names() -> Iterator[str]:
        yield who()

    return next(names())


async def by_async_generator() -> str:
    async def names() -> AsyncIterator[str]:
        yield await ask()

    return await anext(names())


CARRIES: dict[str, Callable[[], Awaitable[str]]] = {
    "await": by_await,
    "create_task": by_task,
    "gather": by_gather,
    "TaskGroup": by_task_group,
    "call_soon": by_call_soon,
    "call_later": by_call_later,
    "to_thread": by_to_thread,
    "copy_context": by_copy_context,
    "generator, same code": by_generator,
    "async generator, same code": by_async_generator,
    "run_in_executor, bound": by_bound_executor,
    "partial, bound": by_bound_partial,
    "coroutine of a function, bound": by_bound_coroutine_of_a_function,
}
LOSES: dict[str, Callable[[], Awaitable[str]]] = {
    "run_in_executor": by_executor,
    "ThreadPoolExecutor.submit": by_submit,
    "Thread": by_thread,
    "loop in another thread": by_loop_in_a_thread,
    "call_soon_threadsafe from a thread": by_call_soon_threadsafe,
    "create_task, empty context": by_empty_context,
    "spawn": by_spawn,
    "without_tenant, function": by_without_tenant,
    "without_tenant, coroutine": by_without_tenant_coroutine,
    "without_tenant, coroutine function": by_without_tenant_function,
}


@pytest.mark.parametrize("row", CARRIES)
async def test_what_carries_the_tenant(row: str) -> None:
    """The far end sees the tenant that was bound at the near end, and nothing stays bound afterwards."""
    for tenant in (ACME, BETA):
        with tenant.bound():
            assert await CARRIES[row]() == tenant.id
        assert who() == "nobody"


@pytest.mark.parametrize("row", LOSES)
async def test_a24_what_loses_the_tenant_raises(row: str) -> None:
    """The far end has no tenant and says so, and the near end still has its own."""
    with ACME.bound():
        assert await LOSES[row]() == "nobody"
        assert who() == "acme"


async def test_a24_a_default_instead_of_an_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows above fail where a lost context falls back to whoever was last: the "optional tenant"."""
    monkeypatch.setattr("tests.tenants.current_tenant", lambda: ACME)
    with ACME.bound():
        assert [row for row, ways in LOSES.items() if await ways() == "acme"] == list(LOSES)


# --- workers, connections, generators ---------------------------------------------------------------------------------


class Worker:
    """A queue that serves everybody, started by the first who needs it."""

    def __init__(self, start: Callable[[Any], asyncio.Task[Any]]) -> None:
        self._start = start
        self._jobs: asyncio.Queue[tuple[Any, asyncio.Future[str]]] = asyncio.Queue()
        self.task: asyncio.Task[Any] | None = None

    async def run(self, job: Any) -> str:
        """Hand *job* in and return what it says."""
        if self.task is None:
            self.task = self._start(self._work())
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((job, answer))
        return await answer

    async def _work(self) -> None:
        while True:
            job, answer = await self._jobs.get()
            answer.set_result(await job())


async def test_a25_a_worker_started_by_the_first_tenant_acts_for_nobody() -> None:
    """A shared worker that `spawn` started has no tenant, and jobs that bring one act for theirs: 100 tenants."""
    worker = Worker(spawn)
    tenants = [a_tenant(f"t{number}") for number in range(100)]
    with tenants[0].bound():
        assert await worker.run(ask) == "nobody"
    for _ in range(examples(2, 1_000)):
        answers = await asyncio.gather(*(worker.run(tenant.bind(ask)) for tenant in tenants))
        assert answers == [tenant.id for tenant in tenants]
    assert worker.task is not None
    assert worker.task in context_module._spawned
    worker.task.cancel()
    await asyncio.wait([worker.task])
    assert worker.task not in context_module._spawned


async def test_a25_the_usual_way_to_start_a_worker_is_wrong() -> None:
    """The same worker, started as a plain task, runs everybody's jobs as the first tenant."""
    worker = Worker(asyncio.create_task)
    with ACME.bound():
        await worker.run(ask)
    with BETA.bound():
        assert await worker.run(ask) == "acme"
    assert worker.task is not None
    worker.task.cancel()


class Line(asyncio.Protocol):
    """A line protocol that knows its tenants by the message."""

    def __init__(self, enter: Callable[[bytes], str], closing: asyncio.Future[None]) -> None:
        self._enter, self._closing = enter, closing

    def connection_made(self, transport: Any) -> None:
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer who it was for."""
        self._transport.write(self._enter(data).encode() + b"\n")

    def connection_lost(self, error: Exception | None) -> None:
        """Say that it is over."""
        self._closing.set_result(None)


def per_message(data: bytes) -> str:
    """Bind for one message."""
    if data == b"?":
        return who()
    with a_tenant(data.decode()).bound():
        return who()


def for_good(data: bytes) -> str:
    """Bind and forget about it."""
    if data != b"?":
        bound.set(bound_to(a_tenant(data.decode())))
    return who()


async def second_messages(enter: Callable[[bytes], str]) -> list[str]:
    """What a connection answers to the messages ``acme``, ``?``, ``beta`` and ``?``, in protocol and in streams."""
    answers = []
    loop = asyncio.get_running_loop()
    closing: asyncio.Future[None] = loop.create_future()

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(99):
            writer.write(enter(data).encode() + b"\n")
        writer.close()

    protocol = await loop.create_server(lambda: Line(enter, closing), "127.0.0.1", 0)
    for server in (protocol, await asyncio.start_server(streams, "127.0.0.1", 0)):
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for message in (b"acme", b"?", b"beta", b"?"):
                writer.write(message)
                answers.append((await reader.readline()).decode().strip())
            writer.close()
            await writer.wait_closed()
    await closing
    return answers


async def test_a26_a_connection_keeps_no_tenant_for_its_next_message() -> None:
    """Bound by a block for each message, `asyncio.Protocol` and streams have no tenant between two messages."""
    assert await second_messages(per_message) == ["acme", "nobody", "beta", "nobody"] * 2


async def test_a26_setting_it_for_good_sticks_to_the_connection() -> None:
    """The test above fails for a server that sets the variable and leaves it."""
    assert await second_messages(for_good) == ["acme", "acme", "beta", "beta"] * 2


async def test_a26_a27_requests_bodies_and_background_tasks_of_starlette() -> None:
    """A bound handler's streamed body and background task see its tenant; the next request of the client does not."""
    seen: list[str] = []

    async def body() -> AsyncIterator[str]:
        yield who()

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(body())

    async def later(request: Request) -> PlainTextResponse:
        return PlainTextResponse(who(), background=BackgroundTask(lambda: seen.append(who())))

    inner = Starlette(routes=[Route("/stream", stream), Route("/later", later)])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["query_string"]:
            with a_tenant(scope["query_string"].decode()).bound():
                await inner(scope, receive, send)
        else:
            await inner(scope, receive, send)

    async with AsgiClient(app) as client:

        async def get(path: str) -> str:
            return (await client.request("GET", path)).text

        for query, name in (("?acme", "acme"), ("", "nobody"), ("?beta", "beta"), ("", "nobody")):
            assert (await get(f"/stream{query}"), await get(f"/later{query}")) == (name, name)
    assert seen == ["acme", "nobody", "beta", "nobody"]


async def test_a27_nothing_is_bound_around_a_yield() -> None:
    """A block refuses to be entered in a generator, whose consumer would get its tenant; binding one is refused too."""

    def values() -> Iterator[str]:
        with ACME.bound():
            yield who()

    async def answers() -> AsyncIterator[str]:
        with ACME.bound():
            yield who()

    with pytest.raises(MisuseError) as caught:
        next(values())
    assert str(caught.value) == (
        f"a tenant cannot be bound around a yield: {values.__qualname__} is a generator, and the tenant would be that "
        "of whoever takes its next value; bind in the code that uses it, or bind what it calls"
    )
    with pytest.raises(MisuseError, match=r"around a yield: .*answers is a generator"):
        await anext(answers())
    with pytest.raises(MisuseError, match="around a yield"):
        next(ACME.bound().__enter__() for _ in range(1))

    def stacked() -> Iterator[str]:
        with ExitStack() as stack:
            stack.enter_context(ACME.bound())
            yield who()

    async def stacked_too() -> AsyncIterator[str]:
        async with AsyncExitStack() as stack:
            stack.enter_context(ACME.bound())
            yield who()

    with BETA.bound():
        with pytest.raises(MisuseError, match=r"around a yield: .*stacked is a generator"):
            next(stacked())
        with pytest.raises(MisuseError, match=r"around a yield: .*stacked_too is a generator"):
            await anext(stacked_too())
    for work in (values, answers, lambda: values(), lambda: answers()):
        with pytest.raises(MisuseError, match=rf"^{re.escape(repr(work))} makes a generator, which cannot be bound"):
            ACME.bind(work)()
        with pytest.raises(MisuseError, match="makes a generator"):
            without_tenant(work)()
    for generator in (values, answers):
        with pytest.raises(MisuseError, match="makes a generator"):
            ACME.bind(generator)  # what can be seen at once is refused at once
    assert who() == "nobody"


async def test_a27_a_block_around_a_yield_leaks() -> None:
    """What the refusal above prevents: the consumer acts for the generator's tenant between two values."""

    async def answers() -> AsyncIterator[None]:
        block = Binding(bound_to(ACME))
        block.begin()  # as the block would be without its look at the frame
        try:
            yield
        finally:
            block.end()

    async with aclosing(answers()) as leaking:  # type: ignore[type-var]
        await anext(leaking)
        assert who() == "acme"
    assert who() == "nobody"


async def test_a27_a_generator_that_is_closed_in_another_context() -> None:
    """A block that ends elsewhere raises nothing, and leaves nobody's tenant behind."""

    async def answers() -> AsyncIterator[None]:
        block = Binding(bound_to(ACME))
        block.begin()
        try:
            yield
        finally:
            block.end()

    with BETA.bound():
        generator = answers()
        await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
        await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
        assert who() == "beta"
    with BETA.bound():
        generator = answers()
        await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
        await generator.aclose()  # type: ignore[attr-defined]
        assert who() == "nobody"  # this context held another binding than the block's: none is the safe answer


async def test_a29_a_thread_local_is_overwritten() -> None:
    """Two tasks of one loop share a thread-local, and do not share the binding."""
    local, seen = threading.local(), []

    async def work(name: str) -> None:
        with a_tenant(name).bound():
            local.tenant = name
            await asyncio.sleep(0)
            seen.append((name, who(), local.tenant))

    await asyncio.gather(work("acme"), work("beta"))
    assert [(own, found) for own, found, _ in seen] == [("acme", "acme"), ("beta", "beta")]
    assert [found for _, _, found in seen] != ["acme", "beta"]


# --- blocks and wrappers, one by one ----------------------------------------------------------------------------------


async def test_blocks_nest_and_restore() -> None:
    """Whatever ends a block, what was bound before is bound again; a block is entered once at a time."""
    with ACME.bound() as outer, BETA.bound() as inner:
        assert (outer, inner, who()) == (ACME, BETA, "beta")
    assert who() == "nobody"
    with ACME.bound():
        with pytest.raises(ZeroDivisionError):
            with BETA.bound():
                raise ZeroDivisionError
        assert who() == "acme"
    block = ACME.bound()
    with block, pytest.raises(MisuseError, match="open already"):
        with block:
            pass
    with block:
        assert who() == "acme"
    binding = Binding(None)
    with ACME.bound():
        binding.begin()
        with pytest.raises(MisuseError, match=r"^this block is open already; build another one$"):
            binding.begin()
        assert who() == "nobody"
        binding.end()
        assert who() == "acme"
        binding.begin()
        binding.end()
    assert who() == "nobody"


async def test_blocks_that_end_in_the_wrong_order_leave_nobody() -> None:
    """Nobody's tenant is safer than somebody's."""
    one, other = Binding(bound_to(ACME)), Binding(bound_to(BETA))
    one.begin()
    other.begin()
    one.end()
    assert who() == "nobody"
    other.end()
    assert who() == "nobody"
    with ExitStack() as stack:
        stack.enter_context(ACME.bound())
        bound.set(bound_to(BETA))
    assert who() == "nobody"


async def test_without_tenant_gives_everything_through() -> None:
    """Arguments, results, exceptions and names; in a request it binds nothing, and afterwards all is as before."""

    def work(number: int, *, name: str) -> tuple[int, str, str]:
        """Do it."""
        return number, name, who()

    async def later(number: int, *, name: str) -> tuple[int, str, str]:
        """Do it later."""
        return number, name, await ask()

    async def fails() -> None:
        raise ZeroDivisionError

    with ACME.bound():
        assert without_tenant(work)(7, name="x") == (7, "x", "nobody")
        assert await without_tenant(later)(7, name="x") == (7, "x", "nobody")
        assert (without_tenant(work).__doc__, without_tenant(later).__doc__) == ("Do it.", "Do it later.")
        with pytest.raises(ZeroDivisionError):
            await without_tenant(fails())
        with pytest.raises(ZeroDivisionError):
            without_tenant(lambda: 1 // 0)()
        assert who() == "acme"


async def test_spawned_tasks_inherit_nothing() -> None:
    """No context variable at all: a request's id is as wrong in a shared worker as its tenant."""
    other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="none")
    other.set("of the request")

    async def look() -> str:
        return other.get()

    task = spawn(look(), name="its name")
    assert (task.get_name(), await task) == ("its name", "none")
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(_spawn_without_loop)


def _spawn_without_loop() -> None:
    work = ask()
    try:
        spawn(work)
    finally:
        work.close()


async def test_what_bound_work_enters_it_leaves() -> None:
    """Entered when the work begins and left when it ends, however that is; refused work is never begun."""
    log: list[str] = []

    def enter() -> Callable[[], None]:
        log.append("enter")
        return lambda: log.append("leave")

    def refuse() -> Callable[[], None]:
        raise ZeroDivisionError

    def work() -> str:
        log.append("work")
        return who()

    async def later() -> str:
        return work()

    what = bound_to(ACME)
    assert bind_to(work, what, enter=enter)() == "acme"
    assert await bind_to(later, what, enter=enter)() == "acme"
    assert log == ["enter", "work", "leave"] * 2
    assert await bind_to(lambda: later(), what, enter=enter)() == "acme"
    assert log[6:] == ["enter", "leave", "enter", "work", "leave"]
    with pytest.raises(ZeroDivisionError):
        bind_to(lambda: 1 // 0, what, enter=enter)()
    assert log[11:] == ["enter", "leave"]
    log.clear()
    with pytest.raises(ZeroDivisionError):
        bind_to(work, what, enter=refuse)()
    with pytest.raises(ZeroDivisionError):
        await bind_to(later, what, enter=refuse)()
    assert (log, who()) == ([], "nobody")


def test_a_context_has_no_default() -> None:
    """A context without a tenant cannot be built, and one that is built does not change."""
    with pytest.raises(TypeError):
        TenantContext(key_id=None, generation=1)  # type: ignore[call-arg]
    context = TenantContext(tenant_id=TenantId("acme"), key_id=KeyId("k"), generation=2)
    with pytest.raises(AttributeError):
        context.tenant_id = TenantId("beta")  # type: ignore[misc]
    assert (context.tenant_id, context.key_id, context.generation) == ("acme", "k", 2)
    assert (bound.name, bound.get()) == ("hivetenancy_bound", None)


# --- random interleavings ---------------------------------------------------------------------------------------------


class Interleaving:
    """Many workers that bind, hand on and end in random order; each knows whom it has to see."""

    def __init__(self, seed: int, pool: ThreadPoolExecutor, enter: Callable[[Any], Any]) -> None:
        self.random = random.Random(seed)
        self.pool, self.enter = pool, enter
        self.crossings = 0
        self.looks = 0

    def look(self, expected: str) -> None:
        """Count it if somebody else is seen than *expected*; to see nobody is loud, and no crossing."""
        seen = who()
        self.looks += 1
        self.crossings += seen not in (expected, "nobody")

    def exactly(self, expected: str) -> None:
        """As `look`, where seeing nobody would be wrong too."""
        self.looks += 1
        self.crossings += who() != expected

    async def worker(self, depth: int, expected: str) -> None:
        """Do a few random steps as *expected*."""
        for _ in range(self.random.randint(1, 4)):
            step = self.random.choice(
                (self.block, self.task, self.thread, self.generator, self.cancelled, self.shared, self.failing)
            )
            await asyncio.sleep(0)
            self.exactly(expected)
            if depth:
                await step(depth - 1, expected)
            self.exactly(expected)

    def another(self) -> Any:
        return a_tenant(self.random.choice(["acme", "beta", "gamma", "delta"]))

    async def block(self, depth: int, expected: str) -> None:
        tenant = self.another()
        with self.enter(tenant):
            await self.worker(depth, tenant.id)

    async def task(self, depth: int, expected: str) -> None:
        tenant = self.another()
        await asyncio.gather(
            asyncio.create_task(self.worker(depth, expected)),
            asyncio.create_task(tenant.bind(self.worker)(depth, tenant.id)),
        )

    async def thread(self, depth: int, expected: str) -> None:
        tenant, loop = self.another(), asyncio.get_running_loop()
        await loop.run_in_executor(self.pool, tenant.bind(self.exactly), tenant.id)
        await loop.run_in_executor(self.pool, self.exactly, "nobody")
        await asyncio.to_thread(self.exactly, expected)

    async def generator(self, depth: int, expected: str) -> None:
        async def values() -> AsyncIterator[None]:
            for _ in range(2):
                self.exactly(expected)
                await self.block(0, expected)
                yield

        async with aclosing(values()) as given:  # type: ignore[type-var]
            async for _ in given:
                self.exactly(expected)
                if self.random.random() < 0.3:
                    break
        orphan = values()
        await anext(orphan)
        await asyncio.create_task(orphan.aclose())  # type: ignore[attr-defined]

    async def cancelled(self, depth: int, expected: str) -> None:
        task = asyncio.create_task(self.block(depth, expected))
        for _ in range(self.random.randint(0, 3)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def shared(self, depth: int, expected: str) -> None:
        await spawn(self.worker(min(depth, 1), "nobody"))
        await without_tenant(self.worker)(0, "nobody")

    async def failing(self, depth: int, expected: str) -> None:
        with pytest.raises(MissingTenantError):
            with self.enter(self.another()):
                await self.worker(depth, who())
                raise MissingTenantError


async def interleavings(count: int, enter: Callable[[Any], Any]) -> tuple[int, int]:
    """Run *count* of them; return how many looks saw somebody else's tenant, and how many looks there were."""
    crossings = looks = 0
    with ThreadPoolExecutor(2) as pool:
        for seed in range(count):
            run = Interleaving(seed, pool, enter)
            await asyncio.gather(*(asyncio.create_task(run.worker(2, "nobody")) for _ in range(2)))
            crossings, looks = crossings + run.crossings, looks + run.looks
    return crossings, looks


@pytest.mark.deep
@pytest.mark.timeout(1_800)
async def test_random_interleavings_cross_nowhere() -> None:
    """Tasks, threads, generators, cancellation, shared workers: everybody sees their own tenant, or is told of none."""
    count = examples(500, 20_000)
    crossings, looks = await interleavings(count, lambda tenant: tenant.bound())
    assert crossings == 0
    assert looks > 20 * count


class Forgetful:
    """A block that does not restore."""

    def __init__(self, tenant: Any) -> None:
        self._tenant = tenant

    def __enter__(self) -> None:
        bound.set(bound_to(self._tenant))

    def __exit__(self, *error: object) -> None: ...


class Shared:
    """A block over one variable for all, as a thread-local under asyncio is."""

    def __init__(self, tenant: Any) -> None:
        self._binding = bound_to(tenant)

    def __enter__(self) -> None:
        self._before = _everybodys[0]
        _everybodys[0] = self._binding

    def __exit__(self, *error: object) -> None:
        _everybodys[0] = self._before


_everybodys: list[Bound | None] = [None]


async def test_random_interleavings_find_a_block_that_does_not_restore() -> None:
    """The walk above fails for it."""
    assert (await interleavings(3, Forgetful))[0] > 0


async def test_random_interleavings_find_a_variable_that_all_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk above fails for it, too."""
    monkeypatch.setattr(
        "tests.tenants.current_tenant", lambda: _everybodys[0].tenant if _everybodys[0] else current_tenant()
    )
    assert (await interleavings(3, Shared))[0] > 0
