"""The circuit breaker and the retry budget: each property is also run on engines that break it on purpose."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from hivetenancy.errors import ConfigurationError
from hivetenancy.hub.breaker import CircuitBreaker, CircuitState, Outcome, Passage, RetryBudget
from hivetenancy.testing.clock import ManualClock
from tests.tiers import examples

SECOND = 1_000_000
Make = Callable[[ManualClock], CircuitBreaker]


def whole(clock: ManualClock, kind: type[CircuitBreaker] = CircuitBreaker) -> CircuitBreaker:
    """A breaker whose openings last nearly the whole of their pause."""
    return kind(clock=clock, random=lambda: 0.999_999)


def trip(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Open a closed breaker and let its pause pass."""
    fail(breaker, 5)
    assert breaker.state is CircuitState.OPEN
    clock.advance(us=breaker.wait_us)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        passage = breaker.enter()
        assert passage is not None
        breaker.settle(passage, Outcome.FAILURE)


# -- properties, each with the engine that breaks it -------------------------------------------------------------------


def one_probe(make: Make) -> None:
    """Of 1,000 callers that come together while it is half open, exactly one passes, in each of several rounds."""
    clock = ManualClock()
    breaker = make(clock)
    sent = 0

    async def caller(release: asyncio.Event) -> None:
        nonlocal sent
        passage = breaker.enter()
        if passage is None:
            return
        sent += 1
        await release.wait()
        breaker.settle(passage, Outcome.FAILURE)

    async def round_of_callers() -> int:
        nonlocal sent
        sent = 0
        release = asyncio.Event()
        callers = [asyncio.create_task(caller(release)) for _ in range(1000)]
        for _ in range(3):
            await asyncio.sleep(0)  # all have asked, none has an answer
        release.set()
        await asyncio.gather(*callers)
        return sent

    trip(breaker, clock)
    for _ in range(4):
        assert asyncio.run(round_of_callers()) == 1
        clock.advance(seconds=60)


def a_cancelled_probe_frees_its_place(make: Make) -> None:
    """The caller after a probe without a verdict is the next probe, and not refused for ever."""
    clock = ManualClock()
    breaker = make(clock)
    trip(breaker, clock)
    for _ in range(3):
        probe = breaker.enter()
        assert probe is not None
        assert breaker.enter() is None
        breaker.settle(probe, Outcome.NEITHER)
    assert breaker.state is CircuitState.HALF_OPEN


def late_words_count_for_nothing(make: Make) -> None:
    """A call that began before the outage neither closes the circuit by its success nor is taken for the probe."""
    clock = ManualClock()
    breaker = make(clock)
    slow = [breaker.enter() for _ in range(2)]
    assert slow[0]
    assert slow[1]
    trip(breaker, clock)
    breaker.settle(slow[0], Outcome.SUCCESS)
    assert breaker.state is CircuitState.OPEN
    probe = breaker.enter()
    assert probe is not None
    breaker.settle(slow[1], Outcome.SUCCESS)
    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.enter() is None


def openings_grow_and_end(make: Make) -> None:
    """Each failed probe doubles the pause up to 5 s; a success takes it back to the first."""
    clock = ManualClock()
    breaker = make(clock)
    trip(breaker, clock)
    pauses = []
    for _ in range(9):
        fail(breaker, 1)
        pauses.append(breaker.wait_us)
        clock.advance(us=breaker.wait_us)
    assert [round(pause / SECOND) for pause in pauses] == [2, 4, 5, 5, 5, 5, 5, 5, 5]
    probe = breaker.enter()
    assert probe is not None
    breaker.settle(probe, Outcome.SUCCESS)
    assert breaker.state is CircuitState.CLOSED
    fail(breaker, 5)
    assert breaker.wait_us <= SECOND


class EverybodyProbes(CircuitBreaker):
    """As the libraries do: once the pause is over, whoever asks passes."""

    def enter(self) -> Passage | None:
        passage = super().enter()
        return passage or (Passage(self._generation) if self._state is CircuitState.HALF_OPEN else None)


class KeepsThePlace(CircuitBreaker):
    """Hears verdicts only, so that a cancelled probe holds its place for ever."""

    def settle(self, passage: Passage, outcome: Outcome) -> None:
        if outcome is not Outcome.NEITHER:
            super().settle(passage, outcome)


class BelievesEverybody(CircuitBreaker):
    """Takes each outcome for the present one."""

    def settle(self, passage: Passage, outcome: Outcome) -> None:
        if self._state is CircuitState.OPEN and outcome is Outcome.SUCCESS:
            self._move(CircuitState.CLOSED)
        passage.generation = self._generation
        super().settle(passage, outcome)


class NeverGrows(CircuitBreaker):
    """Opens for the first pause each time."""

    def _open(self) -> None:
        self._openings = 0
        super()._open()


PROPERTIES = [
    (one_probe, EverybodyProbes),
    (a_cancelled_probe_frees_its_place, KeepsThePlace),
    (late_words_count_for_nothing, BelievesEverybody),
    (openings_grow_and_end, NeverGrows),
]


@pytest.mark.parametrize("property_, _broken", PROPERTIES, ids=lambda item: item.__name__)
def test_the_breaker_holds(property_: Callable[[Make], None], _broken: type[CircuitBreaker]) -> None:
    """Each property holds for the breaker."""
    property_(whole)


@pytest.mark.parametrize("property_, broken", PROPERTIES, ids=lambda item: item.__name__)
def test_a_broken_breaker_is_caught(property_: Callable[[Make], None], broken: type[CircuitBreaker]) -> None:
    """Each property fails for the breaker that breaks it."""
    with pytest.raises(AssertionError):
        property_(lambda clock: whole(clock, broken))


# -- single rules ------------------------------------------------------------------------------------------------------


def test_only_failures_in_a_row_open_it() -> None:
    """Four failures and a success never open the circuit; throttles between failures neither open nor save it."""
    breaker = whole(ManualClock())
    for _ in range(20):
        fail(breaker, 4)
        settle(breaker, Outcome.SUCCESS)
    assert breaker.state is CircuitState.CLOSED
    for _ in range(50):
        settle(breaker, Outcome.NEITHER)
    fail(breaker, 4)
    settle(breaker, Outcome.NEITHER)
    fail(breaker, 1)
    assert breaker.state is CircuitState.OPEN


def settle(breaker: CircuitBreaker, outcome: Outcome) -> Passage:
    passage = breaker.enter()
    assert passage is not None
    breaker.settle(passage, outcome)
    return passage


def test_it_refuses_until_its_pause_is_over_and_says_how_long() -> None:
    """Refused a microsecond before the end that was stated, admitted at it."""
    clock = ManualClock()
    breaker = whole(clock)
    assert breaker.wait_us == 0
    fail(breaker, 5)
    clock.advance(us=breaker.wait_us - 1)
    assert breaker.enter() is None
    assert breaker.wait_us == 1
    clock.advance(us=1)
    assert breaker.enter() is not None
    assert breaker.wait_us == 0


def test_a_second_word_on_a_passage_is_not_heard() -> None:
    """One call counts once, so that five settlings of one failure do not open the circuit."""
    breaker = whole(ManualClock())
    passage = settle(breaker, Outcome.NEITHER)
    for _ in range(9):
        breaker.settle(passage, Outcome.FAILURE)
    assert breaker.state is CircuitState.CLOSED


def test_a_wall_clock_that_jumps_changes_nothing() -> None:
    """The pause is measured on the monotonic reading."""
    clock = ManualClock()
    breaker = whole(clock)
    fail(breaker, 5)
    clock.step_wall(us=86_400 * SECOND)
    assert breaker.enter() is None


def test_openings_are_spread() -> None:
    """100 nodes that open together come back over half of the pause, not at once."""
    waits = []
    for seed in range(100):
        clock = ManualClock()
        breaker = CircuitBreaker(clock=clock, random=random.Random(seed).random)
        fail(breaker, 5)
        waits.append(breaker.wait_us)
    assert SECOND // 2 <= min(waits) <= max(waits) <= SECOND
    assert len(set(waits)) > 90
    assert max(later - earlier for earlier, later in pairwise(sorted(waits))) < SECOND // 10


@pytest.mark.parametrize("seed", range(examples(10, 300)))
def test_a_random_walk_never_has_two_probes_and_never_stays_shut(seed: int) -> None:
    """Whatever callers do, at most one is out while it is half open, and it always lets one in again."""
    chance = random.Random(seed)
    clock = ManualClock()
    breaker = CircuitBreaker(clock=clock, random=chance.random)
    out: list[Passage] = []
    for _ in range(400):
        before = breaker.state
        if chance.random() < 0.5:
            passage = breaker.enter()
            if passage is not None:
                if breaker.state is CircuitState.HALF_OPEN:
                    assert not [other for other in out if other.generation == passage.generation]
                out.append(passage)
            else:
                assert before is not CircuitState.CLOSED
        elif out:
            breaker.settle(out.pop(chance.randrange(len(out))), chance.choice(list(Outcome)))
        clock.advance(us=chance.choice((0, 1000, SECOND // 4)))
    for passage in out:
        breaker.settle(passage, Outcome.NEITHER)
    clock.advance(seconds=30)
    assert breaker.enter() is not None


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"first_pause_us": 0}, {"longest_pause_us": 1}])
def test_a_breaker_that_makes_no_sense_is_not_built(wrong: dict[str, int]) -> None:
    """Numbers out of range are found when it is built."""
    with pytest.raises(ConfigurationError):
        CircuitBreaker(clock=ManualClock(), **wrong)


# -- the budget --------------------------------------------------------------------------------------------------------


class CountsNothing(RetryBudget):
    """Has always one left."""

    def spend(self) -> bool:
        return True


class SavesUp(RetryBudget):
    """Keeps what a good day earned, and spends it all in one outage."""

    def earn(self) -> None:
        self._hundredths += self._percent


def bounded(budget: RetryBudget) -> None:
    """After any past, N calls that all fail make at most N/10 retries and the reserve."""
    for _ in range(100_000):
        budget.earn()
    retries = 0
    for _ in range(10_000):
        budget.earn()
        retries += sum(budget.spend() for _ in range(3))
    assert 1000 <= retries <= 1010


def test_retries_are_a_share_of_the_calls() -> None:
    """The budget holds its bound, and gives what it owes."""
    bounded(RetryBudget())


@pytest.mark.parametrize("broken", [CountsNothing, SavesUp])
def test_a_broken_budget_is_caught(broken: type[RetryBudget]) -> None:
    """The bound fails for a budget that counts nothing, and for one without an upper end."""
    with pytest.raises(AssertionError):
        bounded(broken())


def test_a_budget_starts_with_its_reserve_and_can_be_none() -> None:
    """Ten retries at once, then none; with nothing to spend, never one."""
    budget = RetryBudget()
    assert [budget.spend() for _ in range(12)] == [True] * 10 + [False] * 2
    none = RetryBudget(percent=0, reserve=0)
    none.earn()
    assert not none.spend()


@pytest.mark.parametrize("wrong", [{"percent": -1}, {"percent": 101}, {"reserve": -1}])
def test_a_budget_that_makes_no_sense_is_not_built(wrong: dict[str, int]) -> None:
    """Numbers out of range are found when it is built."""
    with pytest.raises(ConfigurationError):
        RetryBudget(**wrong)
