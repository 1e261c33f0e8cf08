"""The memory engine agrees with its core after every step."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.ratelimit.walk import IDS, PAUSES, PLANS, Walk
from tests.tiers import examples

one_or_two = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True).map(tuple)


class Machine(RuleBasedStateMachine):
    """The rules of `Walk`, drawn by Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk()

    @rule(ids=one_or_two, cost=st.sampled_from((1, 1, 1, 2, 3, 6, 13)))
    def acquire(self, ids: tuple[str, ...], cost: int) -> None:
        self.walk.acquire(ids, cost)

    @rule(id_=st.sampled_from(IDS), times=st.sampled_from((3, 20)))
    def repeat(self, id_: str, times: int) -> None:
        self.walk.repeat(id_, times)

    @rule(us=st.sampled_from(PAUSES) | st.integers(0, 4_000_000))
    def advance(self, us: int) -> None:
        self.walk.advance(us)

    @rule(us=st.sampled_from(PAUSES), wall_only=st.booleans())
    def back(self, us: int, wall_only: bool) -> None:
        self.walk.back(us, wall_only)

    @rule(id_=st.sampled_from(IDS), plan=st.integers(0, len(PLANS) - 1))
    def change_plan(self, id_: str, plan: int) -> None:
        self.walk.change_plan(id_, plan)

    @rule(which=st.integers(0, 50), refund=st.booleans(), twice=st.booleans())
    def release(self, which: int, refund: bool, twice: bool) -> None:
        self.walk.release(which, refund, twice)

    @rule()
    def expire(self) -> None:
        self.walk.expire()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(25, 300), stateful_step_count=30, deadline=None)


def step(walk: Walk, draw: random.Random) -> None:
    """One step of the seeded walk, by the same rules."""
    what = draw.random()
    if what < 0.45:
        ids = tuple(draw.sample(IDS, draw.choice((1, 1, 1, 2, 3))))
        walk.acquire(ids, draw.choice((1, 1, 1, 2, 3, 6, 13)))
    elif what < 0.55:
        walk.repeat(draw.choice(IDS), draw.choice((3, 20)))
    elif what < 0.75:
        walk.advance(draw.choice((*PAUSES, draw.randrange(4_000_000))))
    elif what < 0.82:
        walk.back(draw.choice(PAUSES), draw.random() < 0.5)
    elif what < 0.88:
        walk.change_plan(draw.choice(IDS), draw.randrange(len(PLANS)))
    elif what < 0.995:
        walk.release(draw.randrange(50), draw.random() < 0.5, draw.random() < 0.3)
    else:
        walk.expire()


@pytest.mark.parametrize("threadsafe", [False, True], ids=["loop", "threadsafe"])
def test_seeded_walk(threadsafe: bool) -> None:
    """Over a long seeded walk the engine answers and stands as its core does, after each of thousands of steps."""
    for seed in range(examples(6, 30)):
        draw, walk = random.Random(seed), Walk(threadsafe=threadsafe)
        for _ in range(400):
            step(walk, draw)
    assert walk.admitted, "the walk admitted nothing, so it compared little"
