"""The way to the engines' thread: it is found, it answers, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hivetenancy import home as home_module
from hivetenancy.errors import MisuseError
from hivetenancy.home import Home


@contextmanager
def running() -> Iterator[tuple[Home, asyncio.AbstractEventLoop]]:
    """Run a loop with a home in a thread of its own."""
    home, ready = Home(), threading.Event()
    loop = asyncio.new_event_loop()

    def settle() -> None:
        home.settle_here()
        ready.set()

    def serve() -> None:
        loop.call_soon(settle)
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait(5)
    try:
        yield home, loop
    finally:
        if not loop.is_closed():
            if loop.is_running():
                loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            loop.close()


def test_without_a_home_everything_runs_here() -> None:
    """Components used alone have no loop, and nothing to wait for."""
    home, done = Home(), []
    assert home.here
    assert home.call(threading.get_ident) == threading.get_ident()
    home.post(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]


def test_a_call_from_a_thread_runs_at_home() -> None:
    """With its result, and with its exception."""
    with running() as (home, _):
        where = home.call(threading.get_ident)
        assert where != threading.get_ident()
        assert not home.here

        async def waits() -> int:
            await asyncio.sleep(0)
            return threading.get_ident()

        assert home.wait_for(waits) == where
        with pytest.raises(KeyError):
            home.call(lambda: {}["missing"])
        with pytest.raises(TimeoutError, match="mine"):
            home.call(_raises_timeout)
        heard: list[int] = []
        home.post(lambda: heard.append(threading.get_ident()))
        home.call(lambda: None)
        assert heard == [where]


def _raises_timeout() -> None:
    raise TimeoutError("mine")


@pytest.mark.anyio
async def test_at_home_a_call_is_made_and_waiting_is_refused() -> None:
    """On the loop's own thread waiting would block the loop that must do the work, so it raises, and starts nothing."""
    home, started = Home(), []
    home.settle_here()

    async def work() -> None:
        started.append(1)

    assert home.call(lambda: 7) == 7
    with pytest.raises(MisuseError, match="use `async with`"):
        home.wait_for(work)
    await asyncio.sleep(0)
    assert started == []
    home.leave()
    with pytest.raises(MisuseError):
        home.wait_for(work)


@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_is_gone_is_said_at_once(closed: bool) -> None:
    """Nothing hangs, and a post that nobody can take runs where it is."""
    with running() as (home, loop):
        loop.call_soon_threadsafe(loop.stop)
        while loop.is_running():
            time.sleep(0.001)
        if closed:
            loop.close()
        began = time.monotonic()
        with pytest.raises(MisuseError, match="has ended"):
            home.call(lambda: 1)
        with pytest.raises(MisuseError, match="has ended"):
            home.wait_for(_forever)
        assert time.monotonic() - began < 5
        if closed:
            posted: list[int] = []
            home.post(lambda: posted.append(threading.get_ident()))
            assert posted == [threading.get_ident()]


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def _in_thread(work: Callable[[], object]) -> Callable[[], BaseException | None]:
    """Run *work* in a thread; return a function that waits for it and gives what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> BaseException | None:
        thread.join(10)
        assert not thread.is_alive(), "it hangs"
        return raised[0] if raised else None

    return wait


@pytest.mark.anyio
async def test_a_loop_that_ends_while_somebody_waits_frees_them() -> None:
    """Its cancelled work is a MisuseError for the thread, not a hang and not a stray cancellation."""
    waits: list[Callable[[], BaseException | None]] = []

    async def serve(home: Home) -> None:
        home.settle_here()
        waits.append(_in_thread(lambda: home.wait_for(_forever)))
        while len(asyncio.all_tasks()) < 2:  # noqa: ASYNC110 - until the thread has handed its work over
            await asyncio.sleep(0.001)

    await asyncio.to_thread(lambda: asyncio.run(serve(Home())))
    error = await asyncio.to_thread(waits[0])
    assert isinstance(error, MisuseError)
    assert "has ended" in str(error)


def test_a_loop_that_is_closed_before_it_takes_the_work_frees_the_caller() -> None:
    """Handed over and never begun: the caller looks after the loop, and the coroutine is closed."""
    with running() as (home, loop):
        stopped, go = threading.Event(), threading.Event()

        def stop() -> None:
            stopped.set()
            go.wait(5)
            loop.stop()

        lost = threading.Event()

        def never(callback: Callable[[], object], *_: object) -> None:
            """Lose what is handed over, as a loop that stops in that moment."""
            lost.set()

        loop.call_soon_threadsafe(stop)
        stopped.wait(5)
        loop.call_soon_threadsafe = never  # type: ignore[assignment, method-assign]
        wait = _in_thread(lambda: home.wait_for(_forever))
        assert lost.wait(5)
        go.set()
        while loop.is_running():
            time.sleep(0.001)
        del loop.call_soon_threadsafe
        loop.close()
        error = wait()
        assert isinstance(error, MisuseError)
        assert "has ended" in str(error)


def test_a_loop_that_does_not_answer_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets a MisuseError, the work is cancelled, and what was done too late is undone."""
    monkeypatch.setattr(home_module, "HAND_OVER_SECONDS", 0.05)
    with running() as (home, loop):
        with pytest.raises(MisuseError, match="did not answer within"):
            home.wait_for(_forever)
        monkeypatch.setattr(home_module, "HAND_OVER_SECONDS", 30.0)
        assert home.call(lambda: [task for task in asyncio.all_tasks(loop) if "_run" in repr(task)][1:]) == []
        undone, blocked = _undone_by_a_late_loop(home, monkeypatch)
        assert undone == ["held"]
        assert isinstance(blocked, MisuseError)


def _undone_by_a_late_loop(home: Home, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], BaseException | None]:
    """Give up on work that is done in that very moment; return what was undone."""
    undone: list[str] = []
    begun, go = threading.Event(), threading.Event()
    original = home_module.Future.result

    def once_begun(self: Any, timeout: float | None = None) -> object:
        """Give up on nothing that has not begun, or there would be nothing to undo."""
        assert begun.wait(10)
        return original(self, timeout)

    async def slow() -> str:
        begun.set()
        go.wait(10)  # the loop is busy, and finishes the work although the caller has gone
        return "held"

    with monkeypatch.context() as patch:
        patch.setattr(home_module, "HAND_OVER_SECONDS", 0.05)
        patch.setattr(home_module.Future, "result", once_begun)
        error = _in_thread(lambda: home.wait_for(slow, undo=undone.append))()
    go.set()
    home.call(lambda: None)
    return undone, error


class LosesResults(Home):
    """A broken home: hands over as asyncio does, which drops what nobody waits for."""

    __slots__ = ()

    def _hand_over(self, work, undo):  # type: ignore[no-untyped-def]
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(home_module.HAND_OVER_SECONDS)
        except TimeoutError:
            future.cancel()
            raise MisuseError("too late") from None


def test_the_undo_catches_a_home_that_loses_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """With asyncio's own hand-over a hold that came too late is held for ever."""
    with running() as (home, _):
        broken = LosesResults()
        broken._loop, broken._thread = home._loop, home._thread
        assert _undone_by_a_late_loop(broken, monkeypatch)[0] == []


def test_an_interrupted_thread_leaves_nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a waiting thread cancels the work at home."""
    with running() as (home, _):
        begun, ended = threading.Event(), threading.Event()

        async def work() -> None:
            begun.set()
            try:
                await _forever()
            finally:
                ended.set()

        original = home_module.Future.result

        def interrupted(self: object, timeout: float | None = None) -> object:
            monkeypatch.setattr(home_module.Future, "result", original)
            assert begun.wait(10)
            raise KeyboardInterrupt

        monkeypatch.setattr(home_module.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            home.wait_for(work)
        assert ended.wait(5)
