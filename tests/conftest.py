"""What every test shares: the backend of async tests, how much Hypothesis draws, and that nothing stays
open."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.tiers import TIER, examples

# No deadline: a slow shared machine is no failure. Not derandomised, in CI neither (where Hypothesis would choose that
# by itself): each run looks somewhere new, and a failure prints the line that draws it again (`@reproduce_failure`),
# which becomes a plain test.
settings.register_profile(
    TIER,
    parent=settings.get_profile("default"),
    max_examples=examples(20, 300),
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(TIER)

# A collection follows each file (below). Python begins one of its own every 700 objects, which here finds little.
gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: it is the only runtime the library has."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_open() -> Iterator[None]:
    """Collect after each file, so that what was dropped unclosed fails near the test that dropped it.

    An admission, a socket or a task that sits in a reference cycle warns only when the collector finds it.
    Warnings are errors, pytest turns one raised in a finaliser into a failure, and without this it would come
    at the very end.

    What outlives a file (modules, thousands of collected tests and their reports) is set aside: the collector would
    walk through all of it each time a test collects, and find nothing.
    """
    gc.collect()  # what the last test before this file still held when that file was done
    gc.freeze()
    yield
    gc.collect()


def pytest_sessionfinish() -> None:
    """Bring back what was set aside, so that pytest's last collection finds what was dropped since."""
    gc.unfreeze()
