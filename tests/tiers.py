"""How much the suite draws: the fast tier, or the deep one.

One variable, ``HIVETENANCY_TIER``, chooses (``fast`` where it is not set). A tier adds no test of our own code:
the same tests run in both, and the deep one draws more examples, longer walks and more threads. So a test
that passes in the fast tier has no code of its own that only the deep tier reaches. The one exception compiles
a program in another language (`tests/interop`), which takes longer than the whole fast tier.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

TIERS: Final = ("fast", "deep")


def _tier() -> str:
    tier = os.environ.get("HIVETENANCY_TIER", "fast")
    if tier not in TIERS:
        raise RuntimeError(f"HIVETENANCY_TIER is {tier!r}: set it to one of {', '.join(TIERS)}, or unset it")
    return tier


TIER: Final = _tier()


def examples(fast: int, deep: int) -> int:
    """How many examples, steps or rounds this tier draws: *fast* for the README's command, *deep* for
    `.ci/run`."""
    if not 0 < fast <= deep:
        raise ValueError(f"examples({fast}, {deep}): the fast tier draws at least one, the deep tier no fewer")
    return deep if TIER == "deep" else fast


def needs_program(name: str) -> pytest.MarkDecorator:
    """Skip a test, saying why, where the program *name* (``redis-cli``, ``redis-server``, ``curl``) is not on
    the path."""
    missing = shutil.which(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not on this machine's PATH")
