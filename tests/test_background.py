"""Background work that dies comes back, and health says what is wrong meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from hivetenancy import background
from hivetenancy.background import PartHealth, Supervisor


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait milliseconds instead of tenths of seconds."""
    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 0.002)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions of all sorts
            await asyncio.sleep(0.0005)


class Work:
    """Fails as often as told, then runs until cancelled."""

    def __init__(self, *failures: BaseException | None) -> None:
        self.failures = list(failures)
        self.begun = 0
        self.cancelled = False

    async def __call__(self) -> None:
        self.begun += 1
        if self.failures:
            failure = self.failures.pop(0)
            if failure is None:
                return
            raise failure
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.mark.parametrize(
    "failure, why",
    [
        (ValueError("no such table"), "ValueError: no such table"),
        (None, "ended although it should run until stopped"),
        (asyncio.CancelledError(), "ended by a cancellation that was not for it"),
    ],
)
@pytest.mark.anyio
async def test_what_dies_is_red_and_restarted_and_green_again(
    failure: BaseException | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Raising, returning, and dying of a stray cancellation alike; green only after it ran for a while."""
    caplog.set_level(logging.CRITICAL, "hivetenancy")
    supervisor, work = Supervisor(), Work(failure)
    supervisor.start("feed", work)
    await until(lambda: not supervisor.health()[0].ok)
    assert supervisor.health() == [PartHealth(name="feed", ok=False, why=why)]
    await until(lambda: work.begun == 2)
    await until(lambda: supervisor.health()[0].ok)
    assert supervisor.health() == [PartHealth(name="feed", ok=True)]
    await supervisor.stop()
    assert work.cancelled


class LetsCancellationsThrough(Supervisor):
    """A broken supervisor: takes any cancellation for its own."""

    async def _keep_running(self, name: str, work: background.Work) -> None:
        try:
            await super()._keep_running(name, work)
        finally:
            self.ended = True


@pytest.mark.anyio
async def test_a_supervisor_that_takes_any_cancellation_for_its_own_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task is gone for good while health stays green, which is what the test above would see."""
    monkeypatch.setattr(background, "_stopping", lambda: True)
    supervisor, work = LetsCancellationsThrough(), Work(asyncio.CancelledError())
    supervisor.start("feed", work)
    await until(lambda: getattr(supervisor, "ended", False))
    assert (work.begun, supervisor.health()[0].ok) == (1, True)
    await supervisor.stop()


@pytest.mark.anyio
async def test_the_pauses_grow_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each doubles, with jitter of at most half, up to the longest."""
    caplog.set_level(logging.CRITICAL, "hivetenancy")
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(background.asyncio, "sleep", sleep)
    supervisor, work = Supervisor(), Work(*[ValueError("again") for _ in range(15)])
    supervisor.start("feed", work)
    for _ in range(200):
        await real(0)
    monkeypatch.undo()
    await supervisor.stop()
    assert work.begun == 16
    for n, pause in enumerate(pauses):
        longest = min(0.1 * 2**n, background.LONGEST_PAUSE_SECONDS)
        assert longest / 2 <= pause <= longest


@pytest.mark.anyio
async def test_one_that_dies_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Each has its own life and its own line in health."""
    caplog.set_level(logging.CRITICAL, "hivetenancy")
    supervisor, good, bad = Supervisor(), Work(), Work(*[ValueError("x")] * 100)
    supervisor.start("good", good)
    supervisor.start("bad", bad)
    await until(lambda: bad.begun > 3)
    assert {part.name: part.ok for part in supervisor.health()} == {"good": True, "bad": False}
    assert (good.begun, good.cancelled) == (1, False)
    await supervisor.stop()
    assert supervisor.health() == []


@pytest.mark.anyio
async def test_stop_ends_work_that_turns_its_cancellation_into_something_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Clients of the network do that; it must not be restarted, and stop must not hang."""
    caplog.set_level(logging.CRITICAL, "hivetenancy")
    begun: list[str] = []

    async def raises() -> None:
        begun.append("raises")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise ConnectionError("read interrupted") from None

    async def returns() -> None:
        begun.append("returns")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return

    supervisor = Supervisor()
    supervisor.start("raises", raises)
    supervisor.start("returns", returns)
    await until(lambda: len(begun) == 2)
    async with asyncio.timeout(5):
        await supervisor.stop()
    assert sorted(begun) == ["raises", "returns"]


@pytest.mark.anyio
async def test_whoever_cancels_stop_gets_through() -> None:
    """A deadline around stop counts, even while the work takes its time to end."""
    slow = asyncio.Event()

    async def lingers() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await slow.wait()

    supervisor = Supervisor()
    supervisor.start("lingers", lingers)
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await supervisor.stop()
    slow.set()
    await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_stopping_nothing_is_fine() -> None:
    """Twice, too."""
    supervisor = Supervisor()
    await supervisor.stop()
    await supervisor.stop()
