"""The memory engine passes the contract kit, and each broken engine fails it."""

from __future__ import annotations

import pytest

from hivetenancy.ratelimit.memory import MemoryRateLimiter
from hivetenancy.testing.clock import ManualClock
from hivetenancy.testing.contracts._cases import Case
from hivetenancy.testing.contracts.ratelimit import CASES, THREADED, Make, MakeThreaded
from tests.ratelimit import broken


@pytest.mark.anyio
@pytest.mark.parametrize("threadsafe", [False, True], ids=["loop", "threadsafe"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_memory_engine(case: Case[Make], threadsafe: bool) -> None:
    """The memory engine does what every engine must, with and without its lock."""
    await case(lambda clock: MemoryRateLimiter(clock=clock, threadsafe=threadsafe))


@pytest.mark.anyio
@pytest.mark.parametrize("case", THREADED, ids=str)
async def test_memory_engine_under_threads(case: Case[MakeThreaded]) -> None:
    """Built for threads, the memory engine keeps its limits in a race of them."""
    await case(lambda clock: MemoryRateLimiter(clock=clock, threadsafe=True))


async def failures(make: object, cases: object) -> set[str]:
    """The names of the cases that an engine fails."""
    failed = set()
    for case in cases:  # type: ignore[attr-defined]
        try:
            await case(make)
        except AssertionError:
            failed.add(case.name)
    return failed


@pytest.mark.anyio
@pytest.mark.parametrize("engine", broken.ENGINES, ids=lambda engine: engine.__name__)
async def test_broken_engine(engine: type[broken.Broken]) -> None:
    """Each broken engine fails the cases that are there to catch it."""
    failed = await failures(lambda clock: engine(clock=clock), [CASES.named(name) for name in engine.fails])
    assert failed == set(engine.fails)


@pytest.mark.anyio
@pytest.mark.parametrize("engine", broken.UNSAFE, ids=lambda engine: engine.__name__)
async def test_engine_that_only_claims_to_be_threadsafe(engine: type[broken.Racing]) -> None:
    """An engine without a lock, or with a lock on one side alone, loses the race that is there to catch it."""
    failed = await failures(lambda clock: engine(clock=clock), [THREADED.named(name) for name in engine.fails])
    assert failed == set(engine.fails)


@pytest.mark.anyio
async def test_every_case_can_fail() -> None:
    """Every case of the kit is failed by at least one broken engine."""
    caught = {name for engine in broken.ENGINES for name in engine.fails}
    caught |= {name for engine in broken.UNSAFE for name in engine.fails}
    assert caught == {case.name for case in [*CASES, *THREADED]}


@pytest.mark.anyio
async def test_what_the_broken_ones_are_derived_from_is_sound() -> None:
    """The honest engine below the racing ones passes everything once its lock covers both sides."""
    assert not await failures(lambda clock: broken.Racing(clock=clock), THREADED)
    assert not await failures(lambda clock: broken.Broken(clock=clock), CASES)
    assert isinstance(broken.Broken(clock=ManualClock()), MemoryRateLimiter)
