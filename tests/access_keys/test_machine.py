"""The engine beside a simple model of what may be accepted, under every order of events that can be drawn.

The hub answers late, out of order and from behind, hides its changes and announces them backwards, loses its history
and goes away; callers cancel, clocks jump. The model knows nothing of caches: it knows when a key was revoked, when
that was heard of, and how old an answer may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hivetenancy.access_keys.cached import CachedAccessKeys, Freshness
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import HubContractError, UnavailableError
from hivetenancy.ids import Effect
from hivetenancy.sources import KeyRecord
from hivetenancy.testing.contracts.access_keys import World, seconds, settle
from tests.access_keys.broken import (
    DeafToKeys,
    DeafToResets,
    DeafToTenants,
    LaggingAccepted,
    NoFloors,
    StaleWithoutOutage,
)
from tests.access_keys.engines import no_pause
from tests.tiers import examples

WINDOWS = Freshness()
EFFECTS = tuple(Effect)


class Walk:
    """An engine, the hub and the clock it lives by, and what the model holds true of them."""

    def __init__(self, kind: type[CachedAccessKeys] = CachedAccessKeys, floors: Any = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.hub, self.clock = self.world.hub, self.world.clock
        self.feed = Feed(self.hub, floors and floors(), clock=self.clock)
        self.engine = kind(
            self.hub, feed=self.feed, functions=self.world.functions, clock=self.clock, max_keys=5, sleep=no_pause
        )
        self.secrets: list[bytes] = []
        self.gone: dict[bytes, int] = {}  # the revision at which a key ended
        self.heard: set[int] = set()
        self.said_no: set[bytes] = set()
        self.ends: dict[bytes, int] = {}  # monotonic time at which a key ends
        self.away = 0  # when the hub was last out of reach
        self.reset_at: int | None = None
        self.calls: list[tuple[bytes, Effect, asyncio.Task[Any]]] = []
        self.principals: dict[bytes, Principal] = {}

    def close(self) -> None:
        """End everything, so that nothing is left pending."""
        for _, _, task in self.calls:
            task.cancel()
        for reply in self.hub.held:
            reply.release()
        self.loop.run_until_complete(self.engine.aclose())
        self.loop.run_until_complete(settle())
        self.loop.close()

    # --- moves -----------------------------------------------------------------------------------------------------

    def issue(self, n: int) -> None:
        """Make a key; every third one ends soon."""
        ends = seconds(20 + n % 40) if n % 3 == 0 else None
        self.secrets.append(self.hub.issue(tenant=f"tenant-{n % 3}", expires_in_us=ends))
        if ends is not None:
            self.ends[self.secrets[-1]] = self.clock.now()[0] + ends

    def revoke(self, n: int) -> None:
        """Revoke a key that is alive."""
        alive = [each for each in self.secrets if isinstance(self.hub._history[self._known(each)][-1][1], KeyRecord)]
        if alive:
            secret = alive[n % len(alive)]
            self.gone[secret] = self.hub.revision + 1
            self.hub.revoke(secret)

    def suspend(self, n: int) -> None:
        """Suspend a tenant."""
        alive = [
            each
            for each in self.secrets
            if isinstance(state := self.hub._history[self._known(each)][-1][1], KeyRecord)
            and state.tenant_id == f"tenant-{n % 3}"
        ]
        self.gone.update(dict.fromkeys(alive, self.hub.revision + 1))
        self.hub.suspend(f"tenant-{n % 3}")

    def announce(self, n: int) -> None:
        """Hide changes from now on, or tell all, forwards or backwards."""
        self.hub.delay_events = n % 3 == 0
        if n % 3:
            self.hub.announce(backwards=n % 3 == 1)

    def lose_history(self, n: int) -> None:
        """Restart the hub's log, with a larger epoch or without."""
        if n % 4 == 0 and self.feed.opened and not self.hub.down:
            self.reset_at = self.clock.now()[0]
            self.hub.forget_history(larger_epoch=n % 8 == 0)

    def advance(self, n: int) -> None:
        """Let time pass: moments, or minutes."""
        self.clock.advance(us=(n % 7) * seconds(0.3) if n % 5 else seconds(n % 90))

    def step_wall(self, n: int) -> None:
        """Set the wall clock, of the hub too, back or ahead."""
        self.clock.step_wall(us=seconds(n % 20 - 10))
        self.hub.skew_us -= seconds(n % 20 - 10)

    def weather(self, n: int) -> None:
        """Take the hub away or bring it back, make it lag, or make it talk nonsense."""
        self.hub.down = n % 3 == 0
        self.hub.lag = n % 4
        self.hub.nonsense = HubContractError("nonsense") if n % 11 == 0 else None

    def hold(self, n: int) -> None:
        """Have answers taken now and delivered later, or not any more."""
        self.hub.hold = n % 2 == 0

    def release(self, n: int) -> None:
        """Deliver one of the answers that were taken, in any order."""
        waiting = [reply for reply in self.hub.held if not reply.gate.is_set()]
        if waiting:
            waiting[n % len(waiting)].release()

    def ask(self, n: int) -> None:
        """Begin to validate a key, or to check a principal again."""
        if not self.secrets:
            return
        secret, effect = self.secrets[n % len(self.secrets)], EFFECTS[n % 4]
        principal = self.principals.get(secret)
        if principal is not None and n % 3 == 0:
            call = self.engine.recheck(principal, effect=effect)
        else:
            call = self.engine.validate(secret, effect=effect)
        self.calls.append((secret, effect, self.loop.create_task(call)))

    def cancel(self, n: int) -> None:
        """Cancel a caller."""
        if self.calls:
            self.calls[n % len(self.calls)][2].cancel()

    def peek(self, n: int) -> None:
        """Answer from memory alone."""
        if self.secrets:
            secret, effect = self.secrets[n % len(self.secrets)], EFFECTS[n % 4]
            with contextlib.suppress(UnavailableError):
                self.judge(secret, effect, self.engine.try_validate(secret, effect=effect))

    MOVES = (
        *("issue", "revoke", "suspend", "announce", "lose_history", "advance", "step_wall", "weather"),
        *("hold", "release", "release", "ask", "ask", "ask", "cancel", "peek", "peek"),
    )

    # --- the model -------------------------------------------------------------------------------------------------

    def move(self, name: str, n: int) -> None:
        """Make a move, let the loop come to rest, and judge every answer that is there."""
        getattr(self, name)(n)
        if self.hub.down:
            self.away = self.clock.now()[0]
        self.loop.run_until_complete(settle())
        if self.feed.pull():
            self.heard |= {event.revision for event in self.hub._events}
        waiting = []
        for secret, effect, task in self.calls:
            if not task.done():
                waiting.append((secret, effect, task))
            elif not task.cancelled() and task.exception() is None:
                self.judge(secret, effect, task.result())
            elif not task.cancelled():
                assert isinstance(task.exception(), UnavailableError), repr(task.exception())
        self.calls = waiting
        assert len(self.engine) <= 10

    def judge(self, secret: bytes, effect: Effect, answer: Any) -> None:
        """Hold an answer to what may be answered now."""
        at = self.clock.now()[0]
        if isinstance(answer, Refusal):
            assert answer.reason is not Reason.UNKNOWN_KEY or not self.heard_of(secret)
            if answer.reason in (Reason.REVOKED_KEY, Reason.SUSPENDED_TENANT):
                self.said_no.add(secret)
        if not isinstance(answer, Principal):
            return
        self.principals[secret] = answer
        assert secret not in self.said_no, "accepted after it was refused for good"
        assert answer.key_id == self.hub.key_id(secret)
        age = at - answer.verified_at_us
        assert age < WINDOWS.fresh_us + (WINDOWS.stale_us(effect) if answer.stale else 0)
        assert at < self.ends.get(secret, at + 1), "accepted past its end"
        assert not answer.stale or at - self.away <= seconds(5), "stale though nothing had failed lately"
        if secret in self.gone:
            assert self.gone[secret] not in self.heard, "accepted after its revocation was heard of"
            assert answer.generation < self.gone[secret], "accepted on an answer that told of its revocation"
        if self.reset_at is not None and at >= self.reset_at + seconds(self.hub.spread_seconds):
            assert answer.verified_at_us >= self.reset_at, "accepted unverified after a reset"

    def heard_of(self, secret: bytes) -> bool:
        """Whether the making of a key was announced."""
        return self.hub._history[self._known(secret)][0][0] in self.heard

    def settle_all(self) -> None:
        """Once all is well again, every answer is the truth."""
        self.hub.down, self.hub.lag, self.hub.hold, self.hub.nonsense = False, 0, False, None
        self.hub.delay_events = False
        self.hub.announce()
        for reply in self.hub.held:
            reply.release()
        self.loop.run_until_complete(settle())
        self.clock.advance(6)
        for secret in self.secrets:
            answer = self.loop.run_until_complete(self.engine.validate(secret, effect=Effect.ADMIN))
            self.judge(secret, Effect.ADMIN, answer)
            alive = isinstance(self.hub._at(self._known(secret), self.hub.revision), KeyRecord)
            assert isinstance(answer, Principal) == alive

    @staticmethod
    def _known(secret: bytes) -> bytes:
        from hivetenancy.access_keys.format import digest

        return digest(secret)


def walk(
    seed: int,
    steps: int,
    kind: type[CachedAccessKeys] = CachedAccessKeys,
    floors: Any = None,
    moves: tuple[str, ...] = Walk.MOVES,
) -> None:
    """Walk at random from *seed*, which alone decides where to."""
    draw = random.Random(seed)
    here = Walk(kind, floors)
    try:
        here.issue(1)
        for _ in range(steps):
            here.move(draw.choice(moves), draw.randrange(10_000))
        here.settle_all()
    finally:
        here.close()


def test_a_seeded_walk() -> None:
    """No walk accepts what may not be accepted, and each ends with the truth."""
    for seed in range(examples(40, 600)):
        walk(seed, 60)


# The moves that a rule is about, where others would mostly undo what they do.
RESETS = ("issue", "lose_history", "lose_history", "advance", "ask", "ask", "peek")
AGES = ("issue", "advance", "advance", "hold", "ask", "ask", "peek", "weather")


@pytest.mark.parametrize(
    "kind, floors, moves",
    [
        (DeafToKeys, None, Walk.MOVES),
        (DeafToTenants, None, Walk.MOVES),
        (DeafToResets, None, RESETS),
        (CachedAccessKeys, NoFloors, Walk.MOVES),
        (LaggingAccepted, None, Walk.MOVES),
        (StaleWithoutOutage, None, AGES),
    ],
)
def test_the_walk_catches(kind: type[CachedAccessKeys], floors: Any, moves: tuple[str, ...]) -> None:
    """Engines without one of the rules are found out by a walk that the engine with all of them comes through."""
    for seed in range(300):
        try:
            walk(seed, 60, kind, floors, moves)
        except AssertionError:
            walk(seed, 60, moves=moves)
            return
    pytest.fail(f"no walk caught {kind.__name__}")


class Machine(RuleBasedStateMachine):
    """The same moves, drawn and shrunk by Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk()
        self.walk.issue(1)

    @rule(name=st.sampled_from(Walk.MOVES), n=st.integers(0, 9999))
    def move(self, name: str, n: int) -> None:
        """Any move at any time."""
        self.walk.move(name, n)

    @invariant()
    def bounded(self) -> None:
        """No more is kept than was asked for."""
        assert len(self.walk.engine._entries) <= 5

    def teardown(self) -> None:
        """All ends with the truth."""
        try:
            self.walk.settle_all()
        finally:
            self.walk.close()


def test_the_state_machine() -> None:
    """Hypothesis finds no order of moves that the model forbids."""
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=examples(15, 300), stateful_step_count=40, deadline=None),
    )
