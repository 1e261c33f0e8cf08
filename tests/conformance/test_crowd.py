"""120 tenants at once on one server: nobody sees what another one wrote."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="Starlette is not installed: pip install 'hivetenancy[starlette]'")

from tests.conformance.crowd import CarelessServer, crowd, for_seconds, show, show_cost
from tests.tiers import TIER


@pytest.mark.anyio
@pytest.mark.deep
@pytest.mark.timeout(300)
async def test_a_crowd_of_tenants_sees_nothing_of_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """For 60 s in the deep tier: no answer holds another tenant's data, and the lock around the store never trips."""
    outcome = await crowd(120, for_seconds(60) if TIER == "deep" else lambda calls: calls < 10)
    with capsys.disabled():
        print(f"\n{show(outcome)}")
        if TIER == "deep":
            print(await show_cost(calls=500, rounds=5))
    assert outcome.calls >= 120 * 10
    assert not outcome.foreign
    assert outcome.trips == 0


@pytest.mark.anyio
async def test_a_careless_server_is_noticed() -> None:
    """One operation that forgets the tenant is seen in the answers: the search can fail."""
    outcome = await crowd(5, lambda calls: calls < 60, server=CarelessServer)
    assert any("backup showed data of" in seen for seen in outcome.foreign)
