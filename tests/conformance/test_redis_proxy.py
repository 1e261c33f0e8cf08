"""The conformance suite on the Redis proxy, before a real Redis: it passes, and it is not blind there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("hiredis", reason="the suite's RESP client reads with hiredis: pip install hiredis")

from hivetenancy.testing.conformance import Options, Verdict, power
from hivetenancy.testing.conformance.suite import examine_async
from tests.conformance.redis_subject import RedisProxySubject
from tests.tiers import TIER, examples, needs_program

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600), needs_program("redis-server")]


@pytest.fixture
def subject() -> Iterator[RedisProxySubject]:
    """The proxy, with its stock of servers."""
    made = RedisProxySubject()
    yield made
    made.close()


async def test_each_tenant_observes_what_it_would_alone(subject: RedisProxySubject) -> None:
    """No operation leaks; and with rounds enough, each of them had something to show."""
    report = await examine_async(subject, Options(rounds=examples(1, 10)))
    assert report.leaks == ()
    assert Verdict.LEAK not in {cell.verdict for cell in report.cells}
    if TIER == "deep":
        assert {cell.verdict for cell in report.cells} == {Verdict.PASS, None}


async def test_it_would_be_seen_if_names_were_wrong(
    subject: RedisProxySubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under each faulty namespace manager that the proxy makes use of the suite finds a leak, and by each operation."""
    monkeypatch.setattr(power, "FAULTS", power.FAULTS[: examples(2, 100)])
    subject.operations = subject.operations[: examples(2, 100)]
    report = await power.power_async(subject, Options(rounds=2))
    assert report.unscoped == ()
    assert {result.outcome for result in report.faults} <= {power.Outcome.FOUND, power.Outcome.UNUSED}
    assert sum(result.outcome is power.Outcome.FOUND for result in report.faults) >= examples(2, 15)
