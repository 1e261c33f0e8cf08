"""Refusals are values, and the shared ticket is done."""

from __future__ import annotations

import dataclasses

import pytest

from hivetenancy.decision import DONE, Reason, Refusal
from hivetenancy.ids import KeyId, TenantId


def test_about_completes_and_never_overwrites() -> None:
    """What a refusal knows already stays; what it lacks is filled in; the original is untouched."""
    bare = Refusal(reason=Reason.RATE_LIMITED, retry_after_us=7)
    full = bare.about(tenant=TenantId("a"), key_id=KeyId("k"), function="kv.get")
    assert (full.tenant, full.key_id, full.function, full.retry_after_us) == ("a", "k", "kv.get", 7)
    assert full.about(tenant=TenantId("b"), key_id=KeyId("l"), function="kv.set") == full
    assert bare.tenant is None


def test_a_refusal_cannot_be_changed() -> None:
    """It is shared between caches and requests, so it is frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Refusal(reason=Reason.RATE_LIMITED).reason = Reason.NOT_FOUND  # type: ignore[misc]


@pytest.mark.anyio
async def test_the_shared_ticket_is_done() -> None:
    """Waiting for it, in a thread or on a loop, returns at once and suspends nobody."""
    assert DONE.done
    assert DONE.wait() is True
    assert DONE.wait(0) is True
    await DONE
    with pytest.raises(StopIteration):
        next(iter(DONE.__await__()))
    assert repr(DONE) == "DONE"
