"""Fixtures for pytest: the suite as a test of one's own.

    def test_isolation(hive_isolation):
        hive_isolation(MyServer())

The test fails with the report where something leaks, or where nothing is proven.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .power import PowerReport
    from .subject import Subject
    from .verdicts import Report


def assert_isolated(subject: Subject, **options: int) -> Report:
    """Run the suite on *subject* and return its report.

    Args:
        subject: The server under test.
        **options: As for `hivetenancy.testing.conformance.Options`: ``seed``, ``seeds``, ``steps``, ``rounds``.

    Raises:
        AssertionError: Something leaks, or nothing is proven; the message is the report.
        ConfigurationError: The subject is wrong.
    """
    from .suite import Options, examine
    from .verdicts import Verdict

    report = examine(subject, Options(**options))
    if report.verdict is not Verdict.PASS:
        raise AssertionError(f"\n{report}")
    return report


def assert_powerful(subject: Subject, **options: int) -> PowerReport:
    """Run the power test on *subject* and return its report.

    Args:
        subject: The server under test, which does not leak.
        **options: As for `assert_isolated`.

    Raises:
        AssertionError: A fault that the server makes use of was not found, or an operation is not scoped at all.
        ConfigurationError: The subject is wrong.
    """
    from .power import power
    from .suite import Options
    from .verdicts import Verdict

    report = power(subject, Options(**options))
    if report.verdict is not Verdict.PASS:
        raise AssertionError(f"\n{report}")
    return report


@pytest.fixture
def hive_isolation() -> Callable[..., Report]:
    """Takes a subject and options, runs the suite, and fails the test unless it passes; see `assert_isolated`."""
    return assert_isolated


@pytest.fixture
def hive_power() -> Callable[..., PowerReport]:
    """Takes a subject and options, and fails the test unless its faults are found; see `assert_powerful`."""
    return assert_powerful
