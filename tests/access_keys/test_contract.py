"""The shipped engine keeps its contract, and the contract catches engines that do not."""

from __future__ import annotations

import asyncio

import pytest

from hivetenancy.errors import UnavailableError
from hivetenancy.testing.contracts._cases import Case, Cases
from hivetenancy.testing.contracts.access_keys import CASES, Make
from tests.access_keys.broken import BROKEN
from tests.access_keys.engines import make

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_shipped_engine(case: Case[Make]) -> None:
    """The engine does what every validator must."""
    await case(make)


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_engine_is_caught(name: str) -> None:
    """Each planted fault fails the case that is about it."""
    engine, case = BROKEN[name]
    with pytest.raises((AssertionError, UnavailableError, asyncio.CancelledError)):
        await CASES.named(case)(engine)


def test_every_case_catches_something() -> None:
    """No case passes whatever it is given: each is the one about some fault of the test above."""
    assert {case for _, case in BROKEN.values()} == {case.name for case in CASES}


async def test_a_list_of_cases() -> None:
    """Cases are found by name, counted and sliced; one needs a docstring and a name of its own."""
    cases: Cases[list[int]] = Cases()

    @cases.add
    async def adds(harness: list[int]) -> None:
        """It adds."""
        harness.append(1)

    heard: list[int] = []
    await cases.named("adds")(heard)
    assert heard == [1]
    assert (len(cases), str(cases[0]), cases[0].doc, len(cases[1:])) == (1, "adds", "It adds.", 0)
    with pytest.raises(KeyError):
        cases.named("takes")
    with pytest.raises(ValueError, match="adds"):
        cases.add(adds)

    async def silent(harness: list[int]) -> None:
        harness.append(2)

    with pytest.raises(ValueError, match="docstring"):
        cases.add(silent)
