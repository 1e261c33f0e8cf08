"""The engine beside the naive model, step by step: drawn by Hypothesis, and by seeds that always run."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hivetenancy.plans import QuotaLimit
from hivetenancy.quota import cells, local
from hivetenancy.quota.ledger import Cell, PeriodCell, terms_of
from tests.tiers import examples

from .walk import RULES, Walk, seeded


@pytest.mark.parametrize("threadsafe", [False, True], ids=["owner", "threads"])
def test_a_random_walk_agrees_with_the_model(threadsafe: bool) -> None:
    """Long walks from fixed seeds leave the engine and the model with the same cells after every step."""
    for seed in range(examples(12, 150)):
        seeded(seed, 60, threadsafe=threadsafe)


@settings(max_examples=examples(40, 1500))
@given(st.data())
def test_a_drawn_walk_agrees_with_the_model(data: st.DataObject) -> None:
    """The same rules, in the order and with the amounts that Hypothesis draws and shrinks."""
    walk = Walk(lambda below: data.draw(st.integers(0, below - 1)))
    with walk:
        for rule in data.draw(st.lists(st.sampled_from(RULES), max_size=30)):
            walk.step(rule)


def _restate_forgetting_base(cell: Cell, limit: QuotaLimit, base: int, *, declared: bool = True) -> None:
    cell.base, cell.free = base, terms_of(limit).ceiling - base - cell.total
    cell.terms = terms_of(limit, declared=declared)


MUTANTS: Final = {
    "new limits forget what is held": (Cell, "restate", _restate_forgetting_base),
    "a commit books what was held": (Cell, "settle", lambda cell, held, actual: cell.settle_real(held, held)),
    "an underflow makes room": (Cell, "fits", lambda cell, amount: amount <= cell.free),
    "ours is counted twice": (cells, "stated_base", lambda standing, resource, opens: standing.used),
    "a period is never left": (PeriodCell, "current", lambda cell, wall: True),
    "a refusal is not undone": (local, "_give_back", lambda parts: None),
    "the short cut takes a closed period": (PeriodCell, "closes", property(lambda cell: 1 << 62, lambda cell, v: None)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_walk_finds_a_planted_fault(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the arithmetic of the engine itself is seen within a few hundred walks."""
    where, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(Cell, "settle_real", Cell.settle, raising=False)
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises((AssertionError, RecursionError)):
        for seed in range(300):
            seeded(seed, 60)
