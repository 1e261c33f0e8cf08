"""The floors that answers of a hub must reach."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivetenancy.access_keys.floors import KEY_EVENTS, TENANT_EVENTS, Floors
from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import ChangeEvent, ChangeType

KEY, TENANT = KeyId("key-1"), TenantId("tenant-1")


def event(kind: ChangeType, revision: int, **terms: str) -> ChangeEvent:
    """An event with what its type has."""
    return ChangeEvent(revision=revision, type=kind, at_us=0, **terms)  # type: ignore[arg-type]


def opened(revision: int = 10, **terms: int) -> Floors:
    """Floors of epoch 1."""
    floors = Floors(**terms)
    assert floors.reset(1, revision)
    return floors


def test_nothing_is_accepted_before_the_feed() -> None:
    """Without an epoch no answer counts, not even one of epoch 0."""
    floors = Floors()
    assert not floors.opened
    assert not floors.accepts(0, 99)
    assert not floors.accepts(1, 99, KEY)
    assert not floors.accepts_limits(1, 99, TENANT, None)


def test_only_answers_of_the_epoch_count() -> None:
    """Neither an older nor a newer one, until the feed says so."""
    floors = opened()
    assert floors.accepts(1, 10, KEY)
    assert not floors.accepts(1, 9, KEY)
    assert not floors.accepts(2, 99, KEY)
    assert not floors.accepts(0, 99, KEY)


@pytest.mark.parametrize("kind", sorted(ChangeType))
def test_what_an_event_raises(kind: ChangeType) -> None:
    """Each type raises the floors of the wire's table, and no other."""
    floors = opened()
    floors.apply(event(kind, 20, key_id=KEY, tenant_id=TENANT, plan="pro", digest_prefix="ab" * 8))
    key, tenant = kind in KEY_EVENTS, kind in TENANT_EVENTS
    assert floors.accepts(1, 19, KEY) is not key
    assert floors.accepts(1, 19, "ab" * 8) is not key
    assert floors.accepts(1, 19, TENANT) is not tenant
    limits = kind in TENANT_EVENTS | {ChangeType.LIMITS_CHANGED}
    assert floors.accepts_limits(1, 19, TENANT, None) is not limits
    assert floors.accepts_limits(1, 19, TenantId("other"), "pro") is not (kind is ChangeType.PLAN_CHANGED)
    assert floors.accepts(1, 20, KEY, TENANT, "ab" * 8)
    assert floors.accepts_limits(1, 20, TENANT, "pro")
    assert floors.accepts(1, 10, "other")


def test_a_smaller_epoch_changes_nothing() -> None:
    """There is no way back."""
    floors = opened()
    assert floors.reset(3, 5)
    assert not floors.reset(2, 99)
    assert (floors.epoch, floors.floor_all) == (3, 5)


def test_a_reset_within_an_epoch_lowers_nothing() -> None:
    """A late answer to a cursor that was not understood takes no floor away."""
    floors = opened()
    floors.apply(event(ChangeType.KEY_REVOKED, 30, key_id=KEY))
    assert floors.reset(1, 20)
    assert floors.reset(1, 15)
    assert not floors.accepts(1, 29, KEY)
    assert not floors.accepts(1, 19, "other")


def test_what_an_answer_said_counts_like_an_event() -> None:
    """An older answer that is still on its way is not believed."""
    floors = opened()
    floors.learn(KEY, 25)
    assert not floors.accepts(1, 24, KEY)


def test_floors_are_bounded() -> None:
    """The floor that gives way raises that of everything, so that nothing is believed that would not have been."""
    floors = opened(max_ids=3)
    for number in range(1, 6):
        floors.apply(event(ChangeType.KEY_REVOKED, 10 + number, key_id=f"key-{number}"))
    assert floors.floor_all == 12
    assert len(floors._ids) == 3
    assert not floors.accepts(1, 11, "key-1")
    assert not floors.accepts(1, 14, "key-5")


def test_at_least_one() -> None:
    """Floors without room are refused when they are built."""
    with pytest.raises(ValueError, match="at least 1"):
        Floors(max_ids=0)


events = st.builds(
    event,
    st.sampled_from([ChangeType.KEY_REVOKED, ChangeType.KEY_CHANGED]),
    st.integers(1, 60),
    key_id=st.sampled_from([f"key-{n}" for n in range(8)]),
)


@given(st.lists(events, max_size=40), st.randoms(), st.integers(1, 8))
def test_order_and_repetition_change_nothing_that_matters(batch: list[ChangeEvent], draw: object, room: int) -> None:
    """Whatever the order, however few floors there is room for: an answer older than a heard change never counts."""
    shuffled = [*batch, *batch]
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    floors = opened(0, max_ids=room)
    roomy = opened(0)
    for each in shuffled:
        floors.apply(each)
        roomy.apply(each)
    for number in range(8):
        key = f"key-{number}"
        latest = max((each.revision for each in batch if each.key_id == key), default=0)
        assert floors.needed(key) >= latest
        assert roomy.needed(key) == latest
