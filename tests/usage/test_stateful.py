"""Whatever happens to reports, in whatever order: every record reaches the hub once."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hivetenancy.clock import DAY_US, HOUR_US
from hivetenancy.testing.contracts.usage import Fate
from hivetenancy.usage.cumulative import Totals
from tests.tiers import examples
from tests.usage.test_contract import CountsTwice, GivesUp, RestartsInside, SendsIncrements, TrustsTheHub
from tests.usage.walk import CELLS, TENANTS, Walk

tenants = st.sampled_from(TENANTS)
cells = st.sampled_from(CELLS)
amounts = st.integers(-5, 9)
fates = st.lists(st.sampled_from(Fate), max_size=2)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep some thousand alarms out of a failure's report."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Reporting(RuleBasedStateMachine):
    """The steps of `Walk` in every order that Hypothesis thinks of."""

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk()

    @rule(tenant=tenants, cell=cells, amount=amounts, late_us=st.sampled_from([0, 0, 1, HOUR_US, 3 * HOUR_US]))
    def record(self, tenant: str, cell: str, amount: int, late_us: int) -> None:
        self.walk.record(tenant, cell, amount, late_us)  # type: ignore[arg-type]

    @rule(fates=fates, during=st.none() | st.tuples(tenants, cells, amounts))
    def flush(self, fates: list[Fate], during: tuple[str, str, int] | None) -> None:
        self.walk.flush(fates, during)  # type: ignore[arg-type]

    @rule(us=st.sampled_from([1, HOUR_US, 3 * HOUR_US, 31 * DAY_US]))
    def advance(self, us: int) -> None:
        self.walk.advance(us)

    @rule(us=st.sampled_from([-40 * DAY_US, -2 * HOUR_US, 2 * HOUR_US, 40 * DAY_US]))
    def step_wall(self, us: int) -> None:
        self.walk.step_wall(us)

    @rule(dimension=st.sampled_from([None, "searches", "storage_bytes"]))
    def reject(self, dimension: str | None) -> None:
        self.walk.reject(dimension)

    @precondition(lambda self: not self.walk.disturbed)
    @rule(reports=st.integers(1, 3))
    def forget(self, reports: int) -> None:
        self.walk.forget(reports)

    @precondition(lambda self: not self.walk.disturbed)
    @rule()
    def usurp(self) -> None:
        self.walk.usurp()

    @rule()
    def restart(self) -> None:
        self.walk.restart()

    @invariant()
    def nothing_counts_twice(self) -> None:
        self.walk.check()

    def teardown(self) -> None:
        self.walk.settle()


TestReporting = Reporting.TestCase
TestReporting.settings = settings(max_examples=examples(60, 600), stateful_step_count=25, deadline=None)


def stroll(seed: int, totals: type[Totals] = Totals, steps: int = 60) -> None:
    """Take steps at random."""
    draw = random.Random(seed)
    walk = Walk(totals)

    def some() -> tuple[object, ...]:
        return draw.choice(TENANTS), draw.choice(CELLS), draw.randint(-5, 9)

    for _ in range(steps):
        match draw.choice(["record"] * 5 + ["flush"] * 4 + ["advance", "step", "reject", "forget", "usurp", "restart"]):
            case "record":
                walk.record(*some(), draw.choice([0, 0, 1, HOUR_US, 3 * HOUR_US]))  # type: ignore[arg-type]
            case "flush":
                due = [draw.choice(list(Fate)) for _ in range(draw.choice([0, 0, 1, 2]))]
                walk.flush(due, draw.choice([None, some()]))  # type: ignore[arg-type]
            case "advance":
                walk.advance(draw.choice([1, HOUR_US, 3 * HOUR_US, 31 * DAY_US]))
            case "step":
                walk.step_wall(draw.choice([-40 * DAY_US, -2 * HOUR_US, 2 * HOUR_US, 40 * DAY_US]))
            case "reject":
                walk.reject(draw.choice([None, "searches", "storage_bytes"]))
            case "forget":
                walk.forget(draw.randint(1, 3))
            case "usurp":
                walk.usurp()
            case _:
                walk.restart()
        walk.check()
    walk.settle()


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_counts_every_record_once(seed: int) -> None:
    """Long seeded walks over losses, repeats, conflicts, outages, new months and restarts end in exact totals."""
    for number in range(examples(20, 400)):
        stroll(seed * 1_000_000 + number)


@pytest.mark.parametrize("fault", [CountsTwice, GivesUp, RestartsInside, SendsIncrements, TrustsTheHub])
def test_a_walk_finds_a_planted_fault(fault: type[Totals]) -> None:
    """The walks do find faults: each broken reporter is caught by one of the first few."""
    with pytest.raises(AssertionError):
        for seed in range(40):
            stroll(seed, fault)
