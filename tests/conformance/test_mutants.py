"""The suite finds every mutant of the reference server, and nothing in the server itself."""

from __future__ import annotations

import pytest

from hivetenancy.testing.conformance import Options, Verdict, examine
from tests.tiers import examples

from .mutants import MUTANTS, hunt
from .reference import OPERATIONS, Reference

#: One mutant for each oracle, and the one that takes longest; the deep tier tries them all.
FEW = (
    "AliasedUuids",
    "CountedHandles",
    "ForgottenSurface",
    "HexDump",
    "SecondLockAlone",
    "SlowOnForeign",
    "ValueInLog",
)


@pytest.mark.deep
def test_every_mutant_is_killed() -> None:
    """G7: each mistake is found; on five seeds by ``python -m tests.conformance.mutants``."""
    tried = FEW if examples(1, 2) == 1 else tuple(MUTANTS)
    survivors = [name for name in tried if not hunt(MUTANTS[name], 0).killed]
    assert survivors == []


@pytest.mark.deep
def test_the_clean_server_raises_no_alarm() -> None:
    """G7: 200,000 calls in the deep tier on a server without a mistake: no leak, no doubt, nothing vacuous."""
    report = examine(Reference(), Options(seed=7, rounds=examples(6, 100)))
    assert report.leaks == ()
    assert report.doubts == ()
    if examples(1, 2) == 2:
        assert report.calls >= 200_000
        assert report.verdict is Verdict.PASS, str(report)


def test_there_are_enough_of_them() -> None:
    """At least 40 mutants, each with the attack that it stands for, and at least 20 operations."""
    assert len(MUTANTS) >= 40
    assert len(OPERATIONS) >= 20
    assert [
        name for name, one in MUTANTS.items() if (one.__doc__ or "")[:1] not in "AGVY" or ":" not in one.__doc__
    ] == []


def test_a_seed_makes_the_same_programs() -> None:
    """The same seed finds the same leak after the same number of calls."""
    server = MUTANTS["GlobalConflict"]
    first, second = hunt(server, 3), hunt(server, 3)
    assert (first.calls, first.place) == (second.calls, second.place)
    assert first.calls != hunt(server, 4).calls
