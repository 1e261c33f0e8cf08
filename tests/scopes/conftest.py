"""One Redis for all tests of the room that want one; each begins with it empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scopes.live_redis import Raw, live_redis, raw


@pytest.fixture(scope="package")
def redis_port() -> Iterator[int]:
    """The port of a real Redis."""
    with live_redis() as port:
        yield port


@pytest.fixture
def redis(redis_port: int) -> Iterator[Raw]:
    """An operator's connection to an empty Redis."""
    with raw(redis_port) as made:
        made("FLUSHALL")
        yield made
