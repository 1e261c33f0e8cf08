"""Which state follows which, what each admits, and that a transition compares before it sets."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hivetenancy.ids import Effect, TenantId
from hivetenancy.lifecycle import Standing, State, TenantStateError
from hivetenancy.lifecycle.fence import Fence
from hivetenancy.lifecycle.states import ADMITS, FIRST, FOLLOWS, moved
from hivetenancy.lifecycle.store import LifecycleStore
from tests.lifecycle.world import ACME, OTHER, KeepsTheGeneration
from tests.tiers import examples


def test_every_state_has_a_rule_and_deletion_is_never_taken_back() -> None:
    """Both tables are complete; `deleting` leads to `deleted` alone; every state with data may be deleted."""
    assert set(FOLLOWS) == set(ADMITS) == set(State)
    assert FOLLOWS[State.DELETING] == {State.DELETED}
    assert {state for state in State if State.DELETING in FOLLOWS[state]} == set(State) - {
        State.DELETING,
        State.DELETED,
    }


def test_what_each_state_admits() -> None:
    """Everything, reading alone, nothing."""
    assert ADMITS[State.ACTIVE] is None
    assert ADMITS[State.READ_ONLY] == frozenset({Effect.READ})
    assert all(ADMITS[state] == frozenset() for state in (State.BLOCKED, State.DELETING, State.DELETED))


def test_a_transition_compares_state_and_generation() -> None:
    """Whoever believes in another state, or in another life, changes nothing."""
    found = Standing(State.ACTIVE, 2)
    for believed in (Standing(State.BLOCKED, 2), Standing(State.ACTIVE, 1)):
        with pytest.raises(TenantStateError, match="it was believed"):
            moved(ACME, found, believed, State.DELETING)
    with pytest.raises(TenantStateError, match="cannot become deleted"):
        moved(ACME, found, found, State.DELETED)
    assert moved(ACME, Standing(State.DELETED, 2), Standing(State.DELETED, 2), State.ACTIVE) == (State.ACTIVE, 3)


class Lives(RuleBasedStateMachine):
    """The store and the fence beside a naive model: a dictionary, and a list of what follows what."""

    store_kind: type[LifecycleStore] = LifecycleStore

    def __init__(self) -> None:
        super().__init__()
        self.store = self.store_kind()
        self.store.open()
        self.fence = Fence()
        self.model: dict[str, tuple[str, int]] = {}
        self.lives = {self.fence.life(ACME), self.fence.life(OTHER)}

    @rule(
        tenant=st.sampled_from([ACME, OTHER]),
        to=st.sampled_from(list(State)),
        stale=st.sampled_from([0, 0, 0, 1]),
        lie=st.sampled_from([None, None, None, *State]),
    )
    def move(self, tenant: str, to: State, stale: int, lie: State | None) -> None:
        """Try a transition, believing the truth or not."""
        state, generation = self.model.get(tenant, ("active", 1))
        believed = Standing(lie or State(state), generation - stale)
        allowed = {
            "active": "read_only blocked deleting",
            "read_only": "active blocked deleting",
            "blocked": "active read_only deleting",
            "deleting": "deleted",
            "deleted": "active",
        }[state].split()
        fits = believed == (state, generation) and to.value in allowed
        try:
            after = self.store.move(tenant, believed, to)  # type: ignore[arg-type]  # a text is what ids are
        except TenantStateError:
            assert not fits
            return
        assert fits
        self.model[tenant] = (to.value, generation + (state == "deleted"))
        assert after == self.model[tenant], "a generation too few or too many"
        self.lives.add(self.fence.put(TenantId(tenant), after))

    @invariant()
    def agree(self) -> None:
        """Store, fence and model say the same; lives that are over stay refused."""
        for tenant in (ACME, OTHER):
            state, generation = self.model.get(tenant, ("active", 1))
            assert self.store.standing(tenant) == (state, generation)
            life = self.fence.life(tenant)
            assert (life.generation, life.shut, life.over) == (
                generation,
                state in ("blocked", "deleting", "deleted"),
                state == "deleted",
            )
            assert life.admits == ADMITS[State(state)]
            assert all(old.shut and old.over for old in self.lives if old.tenant == tenant and old is not life)


class LivesKept(Lives):
    """The same over a store that does not count generations."""

    store_kind = KeepsTheGeneration


Lives.TestCase.settings = settings(max_examples=examples(15, 200), stateful_step_count=examples(20, 60), deadline=None)
TestLives = Lives.TestCase


def test_the_machine_finds_a_store_that_counts_no_generations() -> None:
    """A walk through a deletion and a new life fails on it, and passes on the real one."""
    for kind, passes in ((Lives, True), (LivesKept, False)):
        machine = kind()
        try:
            for to in (State.DELETING, State.DELETED, State.ACTIVE):
                machine.move(tenant=ACME, to=to, stale=0, lie=None)
                machine.agree()
        except AssertionError:
            assert not passes
        else:
            assert passes


def test_a_tenant_that_was_never_fenced_costs_no_memory() -> None:
    """Lives are kept only while somebody holds them, or something is to be remembered of them."""
    fence = Fence()
    held = fence.life(ACME)
    assert fence.life(ACME) is held
    del held
    assert len(fence._lives) == 0
    fence.put(ACME, Standing(State.BLOCKED, 1))
    assert len(fence._lives) == 1
    fence.put(ACME, FIRST)
    assert len(fence._lives) == 0


def test_detached_work_and_the_fence_see_each_other() -> None:
    """Work that entered is counted; after the fence none enters, but what belongs to an open request."""

    class Request:
        open = True

    life, request = Fence().life(ACME), Request()
    token = life.enter()
    assert token is not None
    assert life.busy == 1
    life.stand(State.DELETING)
    assert life.enter() is None
    part = life.enter(part_of=request)
    assert part is not None
    request.open = False
    assert life.enter(part_of=request) is None
    life.leave(token)
    life.leave(part)
    assert life.busy == 0
