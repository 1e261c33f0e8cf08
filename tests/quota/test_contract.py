"""The engine passes the contract kit in each of its forms, and each planted fault is caught by it."""

from __future__ import annotations

import asyncio
import gc
import traceback
import warnings

import pytest

from hivetenancy.testing.contracts._cases import Case
from hivetenancy.testing.contracts.quota import CASES, QuotaHarness

from .broken import ENGINES
from .naive import NaiveQuota
from .world import Harness, local, local_for_threads

FORMS = {
    "owner's thread": lambda: Harness(local),
    "limits fetched first": lambda: Harness(local, cold=True),
    "threads": lambda: Harness(local_for_threads, threadsafe=True),
    "model": lambda: Harness(NaiveQuota),
}


@pytest.mark.anyio
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_engine_passes(case: Case[QuotaHarness], form: str) -> None:
    """Every case of the kit holds for the engine of one thread, with cold limits, for threads, and for the model."""
    await case(FORMS[form]())


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ENGINES)
async def test_a_planted_fault_is_caught(fault: str) -> None:
    """The case that is there for the fault fails on the engine that has it."""
    build, name = ENGINES[fault]
    case, harness = CASES.named(name), Harness(build, threadsafe=fault == "locks one side")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        caught = False
        try:
            await case(harness)
        except AssertionError as error:
            caught = bool(error.__traceback__)
            traceback.clear_frames(error.__traceback__)  # a failing case leaves reservations open
        if isinstance(harness.quota, NaiveQuota):
            harness.quota.warns = False
        for _ in range(10):
            await asyncio.sleep(0)  # and tasks under way
        gc.collect()
    assert caught, f"{name} did not notice"


def test_every_case_catches_something() -> None:
    """No case of the kit is there for nothing: each fails on at least one engine."""
    assert {case.name for case in CASES} == {name for _, name in ENGINES.values()}
