"""What every test of the room shares: a store that it drops, as a process that is killed does, is closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hivetenancy.lifecycle.store import LifecycleStore


@pytest.fixture(autouse=True)
def _stores_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what was dropped: CPython 3.13 warns of each database that nobody closed."""
    made: list[LifecycleStore] = []
    build = LifecycleStore.__init__

    def building(self: LifecycleStore, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(LifecycleStore, "__init__", building)
    yield
    for store in made:
        store.close()
