"""A deterministic scheduler for the client's half of HiveHub wire 4.2, and what it holds the client to.

One seed is one interleaving. The real key cache, limits cache, feed and floors run in an event loop of their own whose
time is a `ManualClock`; whatever they ask the hub stops at a gate, and the schedule says when the hub takes the answer,
from which state (the primary's, a lagging replica's, that of a primary which was replaced), when the answer arrives, or
that it is lost. In between the hub changes, forgets, restarts and loses its history, and so does the node. Nothing
sleeps and nothing is left to the machine: the same seed is the same run.

The oracle knows nothing of caches. It numbers all changes over all epochs, notes which of them reached this node and
when, and from which state each answer was taken; and it looks at each answer in the very step that gives it out:

- *late*: given out on an answer from before a change that had been delivered to this node;
- *age*: on an answer older than the stated window, counted from the sending;
- *older*: an answer replaced a later one, or a key counts again after an answer that told of its end;
- *quiet*: a dead key is accepted, or limits are not the present ones, although nothing changed for longer than the
  stated bound;
- *mute*: nothing is said though the hub could have told.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from hivetenancy.access_keys.cached import FEED_BOUND_US
from hivetenancy.access_keys.format import digest
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.authority.service import HubService
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import ConfigurationError, UnavailableError
from hivetenancy.ids import Effect, TenantId
from hivetenancy.limits import GATHER_S, IDLE_US
from hivetenancy.plans import Plan, quota_limit
from hivetenancy.sources import (
    KeyRecord,
)
from hivetenancy.testing import ManualClock
from tests.tiers import examples

from .interleaved_node import FUNCTIONS, WINDOWS, Call, Change, Node, Origin, Parts, Shelf, State
from .virtual_loop import VirtualLoop

__all__ = ["FOCUSES", "FUNCTIONS", "Parts", "World", "runs"]

SPREAD: Final = 4
"""Over how many seconds the hub has a reset spread."""

LAG_US: Final = SECOND_US
"""A hub serves no state that is further behind than this (HiveHub wire 4.2)."""

SPLIT_US: Final = 10 * SECOND_US
"""How long a primary that was replaced may not know it: its epoch gives it away."""

STEPS: Final = examples(50, 70)


def plan(name: str, keys: int) -> Plan:
    """A plan with one quota."""
    return Plan(name=name, quotas=(quota_limit("keys", keys),))


FOCUSES: Final = {
    "": (),
    "starts": ("begin_anew", "ask", "take", "deliver", "warm"),
    "restarts": ("restart_node", "relapse", "hear", "warm", "change"),
    "epochs": ("fail_over", "split", "take", "exchange", "hear", "change", "burst", "ask"),
    "crossing": ("cross", "cross_limits", "warm"),
    "bursts": ("ask_limits", "overtake", "ask", "take", "burst", "change"),
    "failing": ("break_listener", "change", "hear", "warm"),
    "idle": ("advance", "to_the_edge", "peek", "ask", "warm"),
}
"""What a schedule may lean to."""


class World:
    """A hub, one node of it, and the schedule.

    Args:
        seed: Says everything that happens.
        parts: What the node is made of.
        focus: Which of `FOCUSES` the schedule leans to; ``None``: the seed says, or none.
    """

    def __init__(self, seed: int, parts: Parts | None = None, focus: str | None = None) -> None:
        self.draw = random.Random(seed)
        self.focus = FOCUSES[self.draw.choice(sorted(FOCUSES)) if focus is None else focus]
        self.parts = parts or Parts()
        self.clock = ManualClock()
        self.loop = VirtualLoop(self.clock)
        self.ids = iter(range(1, 1 << 40))
        self.hub = HubService(
            clock=self.clock,
            plans=[plan("small", 10), plan("large", 1000)],
            spread_seconds=SPREAD,
            new_id=lambda: UUID(int=next(self.ids)),
            mint_secret=lambda key_id, _kind: f"hh_test_{next(self.ids):040d}",
        )
        self.step = 0
        self.accepted = self.limited = 0
        self.violations: Counter[str] = Counter()
        self.told: list[str] = []
        self.origins: dict[int, Origin] = {}
        self.changes: list[Change] = []
        self.seqs: dict[tuple[int, int], int] = {(1, 0): 0}
        self.states: list[State] = []
        self.replaced: State | None = None
        self.secrets: list[bytes] = []
        self.tenants = [self._noted(partial(self.hub.add_tenant, name, plan="small")) for name in ("a", "b")]
        for _ in range(3):
            self.issue()
        self.shelf = Shelf()
        self.node = Node(self, self.parts, self.shelf)

    @property
    def now(self) -> int:
        """Monotonic time."""
        return self.clock.now()[0]

    def expect(self, true: bool, kind: str, what: str) -> None:
        """Note a violation unless *true*."""
        if not true:
            self.violations[kind] += 1
            self.told.append(f"step {self.step}: {kind}: {what}")

    # --- the hub ---

    def _noted(self, change: Callable[[], Any]) -> Any:
        """Make a change, and number what it told."""
        hub, before = self.hub, self.hub.revision
        made = change()
        for event in list(hub._log._events)[len(hub._log._events) - (hub.revision - before) :]:
            self.changes.append(Change(len(self.changes) + 1, event))
            self.seqs[hub.epoch, event.revision] = len(self.changes)
        self.states = [*self.states[-4:], self.present(copied=True)]
        return made

    def present(self, *, copied: bool = False) -> State:
        """The primary's state."""
        view = self.hub.snapshot() if copied else self.hub._view()
        return State(len(self.changes), self.now, view)

    def behind(self) -> State:
        """A state that a replica may still serve: no more than a second behind the primary."""
        able = [self.present()]
        for state, newer in zip(self.states, [*self.states[1:], None], strict=False):
            until = newer.at_us if newer is not None else self.now
            if self.now - until <= LAG_US and state.view.epoch == self.hub.epoch:
                able.append(state)
        old = self.replaced
        if old is not None and self.now - old.at_us <= SPLIT_US:
            able += [old, old]
        return self.draw.choice(able)

    def alive(self, secret: bytes) -> bool:
        """Whether a key counts now."""
        return isinstance(self.hub._state.key_state(digest(secret), self.clock.now()[1]), KeyRecord)

    def issue(self) -> bytes:
        """Issue a key."""
        tenant = self.draw.choice(self.tenants)
        made = self._noted(lambda: self.hub.issue_key(tenant, name="k", permissions=["admin"]))
        self.secrets.append(made.secret.encode())
        return self.secrets[-1]

    def some_key(self) -> bytes:
        """One of the newer secrets."""
        return self.draw.choice(self.secrets[-4:])

    def some_tenant(self) -> TenantId:
        """One of the tenants."""
        return self.draw.choice(self.tenants)

    def change(self) -> None:
        """Change something at the hub."""
        hub, draw = self.hub, self.draw
        key_id = hub.key_id_of(self.some_key())
        tenant = self.some_tenant()
        kind = draw.choice(
            (
                *("revoke", "revoke", "revoke", "suspend", "suspend", "resume", "resume", "rotate", "alter", "plan"),
                *("limit", "limit", "define", "define", "issue", "service"),
            )
        )
        with suppress(ConfigurationError):  # such as a key that is revoked already
            if kind == "revoke" and key_id is not None:
                self._noted(lambda: hub.revoke_key(key_id))
            elif kind == "suspend":
                self._noted(lambda: hub.suspend(tenant))
            elif kind == "resume":
                self._noted(lambda: hub.resume(tenant))
            elif kind == "rotate" and key_id is not None:
                new = self._noted(lambda: hub.rotate_key(key_id, overlap_seconds=draw.choice((0, 5))))
                self.secrets.append(new.secret.encode())
            elif kind == "alter" and key_id is not None:
                self._noted(lambda: hub.change_key(key_id, permissions=[draw.choice(("read", "admin"))]))
            elif kind == "plan":
                self._noted(lambda: hub.set_plan(tenant, draw.choice(("small", "large"))))
            elif kind == "limit":
                self._noted(lambda: hub.set_limit(tenant, "keys", draw.randrange(1000)))
            elif kind == "define":
                self._noted(lambda: hub.define_plan(plan(draw.choice(("small", "large")), draw.randrange(1000))))
            elif kind == "service":
                self._noted(lambda: hub.rotate_service_key(hub.issue_service_key("synap").key_id))
            else:
                self.issue()

    def forget_history(self) -> None:
        """The hub keeps its epoch and loses its events: every cursor is reset."""
        self.hub._log._events.clear()

    def fail_over(self) -> None:
        """Another primary takes over in a larger epoch, which counts from below; the old one answers on for a while."""
        log = copy.copy(self.hub._log)
        log._events = self.hub._log._events.copy()
        self.replaced = replace(self.present(copied=True), log=log)
        self.hub.start_epoch()
        self.hub._log.revision = self.draw.randrange(1, 6)
        self.seqs[self.hub.epoch, self.hub.revision] = len(self.changes)
        self.states = []

    def restart_hub(self) -> None:
        """The hub restarts: what was on its way to it is lost, and half of what was on its way back."""
        for call in list(self.node.wire.calls):
            if not call.taken or self.draw.random() < 0.5:
                self.node.wire.lose(call)

    # --- the node ---

    def restart_node(self) -> None:
        """The node dies, and comes back with what it wrote down, or with nothing."""
        self.node.end()
        if self.draw.random() < 0.3:
            self.shelf = Shelf()
        elif self.draw.random() < 0.5:
            self.shelf.crash(self.draw.randrange(6))
        self.node = Node(self, self.parts, self.shelf)

    def misplace_cursor(self) -> None:
        """The node's cursor is none that the hub knows."""
        if self.node.feed._cursor is not None:
            self.node.feed._cursor = "lost"

    def break_listener(self) -> None:
        """The next event finds a listener that fails."""
        self.node.flaky.fails = True

    # --- moves ---

    def ask(self) -> None:
        """A request comes."""
        self.node.start(self.node.validate(self.some_key(), self.draw.choice(list(Effect))))

    def peek(self) -> None:
        """A request is answered from memory."""
        self.loop.call_soon(self.node.peek, self.some_key(), self.draw.choice(list(Effect)))

    def ask_limits(self) -> None:
        """A request needs limits."""
        self.node.start(self.node.ask_limits(self.some_tenant()))

    def peek_limits(self) -> None:
        """A request needs limits at once."""
        self.loop.call_soon(self.node.peek_limits, self.some_tenant())

    def take(self) -> None:
        """The hub answers something, from some state, or not at all."""
        waiting = [call for call in self.node.wire.calls if not call.taken]
        if waiting:
            call = self.draw.choice(waiting)
            chance = self.draw.random()
            if chance < 0.06:
                self.node.wire.lose(call)
            else:
                self._take(call, self.present() if chance < 0.55 else self.behind())

    def _take(self, call: Call, state: State) -> None:
        if call.kind == "changes" and state.log is None:
            state = self.present()
        self.node.wire.take(call, state)

    def deliver(self) -> None:
        """Some answer arrives."""
        taken = [call for call in self.node.wire.calls if call.taken]
        if taken:
            self.node.wire.deliver(self.draw.choice(taken))

    def exchange(self) -> None:
        """Something is asked and answered in one go."""
        if self.node.wire.calls:
            call = self.draw.choice(self.node.wire.calls)
            if not call.taken:
                self._take(call, self.present() if self.draw.random() < 0.7 else self.behind())
            self.node.wire.deliver(call)

    def hear(self) -> None:
        """The poll that waits is answered."""
        for call in [each for each in self.node.wire.calls if each.kind == "changes" and not each.taken]:
            self.node.wire.take(call, self.present())
            self.node.wire.deliver(call)

    def burst(self) -> None:
        """All that was answered arrives in one moment, in any order."""
        taken = [call for call in self.node.wire.calls if call.taken]
        for call in self.draw.sample(taken, len(taken)):
            self.node.wire.deliver(call)

    def cross(self) -> None:
        """A key is refreshed while its window ends, so that two questions about it are under way at once."""
        young = [each for each in self.node.keys._entries if self._age(each) < WINDOWS.fresh_us - SECOND_US]
        if young:
            origin, _ = self.node.stored[known := self.draw.choice(young)]
            secret = next(each for each in self.secrets if digest(each) == known)
            self.clock.advance(us=max(0, origin.sent_us + WINDOWS.fresh_us - SECOND_US // 2 - self.now))
            self.loop.call_soon(self.node.peek, secret, Effect.READ)
            self.loop.rest()
            self.clock.advance(0.6)
            self.node.start(self.node.validate(secret, Effect.READ))
            self._turn_round()

    def _age(self, known: bytes) -> int:
        return self.now - self.node.stored[known][0].sent_us

    def cross_limits(self) -> None:
        """Likewise for limits."""
        entries = self.node.limits._entries
        if entries:
            tenant = self.draw.choice(sorted(entries))
            self.clock.advance(us=max(0, entries[tenant].sent_us + IDLE_US - SECOND_US // 2 - self.now))
            self.loop.call_soon(self.node.peek_limits, tenant)
            self.loop.rest()
            self.clock.advance(0.6)
            self.node.start(self.node.ask_limits(tenant))
            self._turn_round()

    def _turn_round(self) -> None:
        """Have questions answered in turn, with a change in between, and mostly let the last answer arrive first."""
        self.loop.rest()
        waiting = [call for call in self.node.wire.calls if not call.taken and call.kind != "changes"]
        self.draw.shuffle(waiting)
        for call in waiting:
            self.node.wire.take(call, self.present())
            self.change()
        for call in reversed(waiting) if self.draw.random() < 0.8 else waiting:
            self.node.wire.deliver(call)
            self.loop.rest()

    def split(self) -> None:
        """A primary is replaced while it answers, and answers on: to polls, and about a key that is revoked by then."""
        self.clock.advance(1.1)  # so that a poll is under way
        secret = self.issue()
        self.node.start(self.node.validate(secret, Effect.READ))
        self.loop.rest()
        held = [call for call in self.node.wire.calls if call.kind == "key" and not call.taken]
        for call in held:
            self.node.wire.take(call, self.present())
        self.fail_over()
        old, key_id = self.replaced, self.hub.key_id_of(secret)
        assert old is not None
        assert key_id is not None
        self._noted(lambda: self.hub.revoke_key(key_id))
        self.hear()
        self.loop.rest()
        self.clock.advance(0.8)
        self.loop.rest()
        self.clock.advance(0.3)
        self.loop.rest()
        for call in [each for each in self.node.wire.calls if each.kind == "changes"]:
            self.node.wire.take(call, old if self.draw.random() < 0.7 else self.present())
            self.node.wire.deliver(call)
        self.loop.rest()
        for call in held:
            self.node.wire.deliver(call)
        self.node.start(self.node.validate(secret, Effect.READ))
        self.loop.rest()
        for call in [each for each in self.node.wire.calls if not each.taken and each.kind == "key"]:
            self.node.wire.take(call, old)
            self.node.wire.deliver(call)

    def overtake(self) -> None:
        """Limits and the word that they changed arrive in one moment."""
        tenant = self.some_tenant()
        self.node.start(self.node.ask_limits(tenant))
        self.loop.rest()
        for call in self.node.wire.calls:
            if call.kind == "limits" and not call.taken:
                self.node.wire.take(call, self.present())
        self._noted(lambda: self.hub.set_limit(tenant, "keys", self.draw.randrange(1000)))
        for call in self.node.wire.calls:
            if call.kind == "changes":
                self.node.wire.take(call, self.present())
        self.burst()

    def relapse(self) -> None:
        """A plan changes between two restarts, before anybody asked for what was written down."""
        self.warm()
        for _ in range(2):
            self.node.end()
            self.node = Node(self, self.parts, self.shelf)
            self.loop.rest()
            self._noted(lambda: self.hub.define_plan(plan("small", self.draw.randrange(1000))))
            self.hear()
            self.loop.rest()
        self.peek_limits()

    def begin_anew(self) -> None:
        """A node starts with nothing, is asked before its first poll is answered, and the key is revoked by then."""
        self.node.end()
        self.shelf = Shelf()
        self.node = Node(self, self.parts, self.shelf)
        secret = self.issue()
        self.node.start(self.node.validate(secret, Effect.READ))
        self.loop.rest()
        for call in [each for each in self.node.wire.calls if each.kind == "key"]:
            self.node.wire.take(call, self.present())
            self.node.wire.deliver(call)
        self.loop.rest()
        key_id = self.hub.key_id_of(secret)
        assert key_id is not None
        self._noted(lambda: self.hub.revoke_key(key_id))
        self.hear()
        self.loop.rest()
        self.loop.call_soon(self.node.peek, secret, Effect.READ)

    def warm(self) -> None:
        """Everything is asked for and answered by the primary."""
        for secret in self.secrets[-3:]:
            self.node.start(self.node.validate(secret, Effect.READ))
        for tenant in self.tenants:
            self.node.start(self.node.ask_limits(tenant))
        self.loop.rest()
        for _ in range(3):
            for call in list(self.node.wire.calls):
                if not call.taken:
                    self.node.wire.take(call, self.present())
                self.node.wire.deliver(call)
            self.loop.rest()

    def advance(self) -> None:
        """Time passes."""
        self.clock.advance(self.draw.choice((0.01, 0.01, 0.3, 0.3, 0.3, 1, 1, 1.5, 5, 22)))

    def to_the_edge(self) -> None:
        """Time passes until a key that is known is just too old; it is asked about then."""
        ages = [(origin.sent_us, known) for known, (origin, _) in self.node.stored.items()]
        if ages:
            sent, known = self.draw.choice(ages)
            self.clock.advance(us=max(0, sent + WINDOWS.fresh_us - self.now))
            secret = next(each for each in self.secrets if digest(each) == known)
            self.loop.call_soon(self.node.peek, secret, Effect.READ)

    MOVES: Final = (
        *((ask, 9), (peek, 6), (ask_limits, 6), (peek_limits, 4), (change, 11), (take, 12), (deliver, 12)),
        *((exchange, 10), (hear, 4), (warm, 5), (advance, 5), (to_the_edge, 1), (forget_history, 1), (fail_over, 1)),
        *((restart_hub, 1), (restart_node, 2), (misplace_cursor, 1), (break_listener, 1)),
        *((burst, 4), (cross, 1), (cross_limits, 1), (split, 1), (overtake, 1), (relapse, 1), (begin_anew, 1)),
    )

    # --- running ---

    def run(self, steps: int = STEPS, *, until_caught: bool = False) -> Counter[str]:
        """Run the schedule and return the violations by kind."""
        state = random.getstate()
        random.seed(self.draw.random())  # what the parts draw themselves
        try:
            # Each schedule has a character of its own, so that what is rare is not rare everywhere.
            weights = [
                weight * self.draw.choice((0.3, 1, 1, 3)) + 12 * (move.__name__ in self.focus)
                for move, weight in self.MOVES
            ]
            for move, _ in self.draw.choices(self.MOVES, weights, k=steps):
                move(self)
                self._go_on()
                if until_caught and self.violations:
                    return self.violations
            self._calm()
            self._coda()
            for context in self.loop.errors:
                self.expect(False, "crash", repr(context))
        finally:
            self.node.end()
            self.loop.close()
            random.setstate(state)
        return self.violations

    def _go_on(self) -> None:
        """Let the node work for a moment: some turns of its loop, or until it rests."""
        self.step += 1
        if self.draw.random() < 0.3:
            for _ in range(self.draw.randrange(1, 4)):
                self.loop.turn()
        else:
            self.loop.rest()
        self.node.supervise()
        if self.draw.random() < 0.4:
            self.peek()
            self.peek_limits()

    def _answer_all(self, state: Callable[[], State]) -> None:
        for _ in range(8):
            self.loop.rest()
            calls = list(self.node.wire.calls)
            if not calls:
                return
            for call in calls:
                if call.kind == "changes" and call.args[0] is not None and not self._has_news(call):
                    continue  # it waits for something to happen
                self.node.wire.take(call, self.present() if call.kind == "changes" or call.least else state())
                self.node.wire.deliver(call)
                self.step += 1
            self.node.supervise()
        self.loop.rest()

    def _has_news(self, call: Call) -> bool:
        batch = self.hub._log.since(call.args[0], self.clock.now()[1])
        return bool(batch.events or batch.reset) or self.now - call.sent_us >= 2 * SECOND_US

    def _calm(self) -> None:
        """Nothing changes any more, everything is answered, and time passes until the stated bound is over."""
        self.node.flaky.fails = False
        for call in list(self.node.wire.calls):
            self.node.wire.lose(call)
        passed, bound = 0, FEED_BOUND_US
        while passed < bound:
            self._answer_all(self.present)
            self.clock.advance(0.25)
            passed += SECOND_US // 4
            if not self.node.feed.healthy(self.clock.now()):
                bound = passed + FEED_BOUND_US  # counted from where the feed is healthy
            bound = max(bound, *(cover.until_us - self.now + passed for cover in self.node.heard.covers), 0)
            if passed > 60 * SECOND_US:
                self.expect(False, "quiet", "the feed does not come back")
                return
        self._answer_all(self.present)
        for secret in self.secrets:
            if not self.alive(secret):
                answer = None
                with suppress(UnavailableError):
                    answer = self.node.keys.try_validate(secret, effect=Effect.READ)
                self.expect(not isinstance(answer, Principal), "quiet", "a dead key is accepted")
        for tenant in self.tenants:
            with suppress(UnavailableError):
                known = self.node.limits.try_limits(tenant, now=self.clock.now())
                told = known is None or self.node.limits._away or self._same(tenant, known)
                self.expect(told, "quiet", "limits that are not the present ones")
        for tenant in self.tenants:  # an outage may be over without anybody having asked since
            self._finish(self.node.ask_limits(tenant))
        for _ in range(10):
            self.clock.advance(GATHER_S / 8)
            self._answer_all(self.present)
        for tenant in self.tenants:
            limits = self._finish(self.node.ask_limits(tenant))
            self.expect(self._same(tenant, limits), "quiet", "limits that are not the present ones, when asked for")

    def _same(self, tenant: TenantId, limits: object) -> bool:
        return limits == self.hub._state.limits(tenant, (), self.clock.now()[1])

    def _finish(self, call: Any) -> object:
        task = self.loop.create_task(call)
        lagging = self.states[-2] if len(self.states) > 1 else self.present()
        if lagging.view.epoch != self.hub.epoch:
            lagging = self.present()
        self._answer_all(lambda: lagging)
        if not task.done():
            task.cancel()
            self.loop.rest()
            return None
        return task.result()

    def _coda(self) -> None:
        """Each rule once more, with replicas that lag: what was heard of counts, and the hub is asked for the rest."""
        key = self.issue()
        key_id = self.hub.key_id_of(key)
        assert key_id is not None
        tenant = self.hub.key(key_id).tenant_id
        assert tenant is not None
        self._noted(lambda: self.hub.resume(tenant))
        self._hear_now()
        self.clock.advance(1)
        self.expect(isinstance(self._finish(self.node.validate(key, Effect.READ)), Principal), "mute", "a new key")
        self._noted(lambda: self.hub.change_key(key_id, permissions=["write"]))
        self._hear_now()
        answer = self._finish(self.node.validate(key, Effect.READ))
        self.expect(isinstance(answer, Principal), "mute", "a key that changed")
        self._noted(lambda: self.hub.set_limit(tenant, "keys", 4321))
        self._hear_now()
        limits = self._finish(self.node.ask_limits(tenant))
        self.expect(self._same(tenant, limits), "mute", "limits that changed")
        self._noted(lambda: self.hub.revoke_key(key_id))
        self._hear_now()
        answer = self._finish(self.node.validate(key, Effect.READ))
        self.expect(not isinstance(answer, Principal), "quiet", "a key that was revoked and heard of")

    def _hear_now(self) -> None:
        """Have the change delivered."""
        for _ in range(12):
            if len(self.changes) in self.node.heard.seqs or any(
                cover.seq >= len(self.changes) for cover in self.node.heard.covers
            ):
                return
            self._answer_all(self.present)
            self.clock.advance(0.25)
        self.expect(False, "mute", "a change was not delivered")


def runs(
    seeds: Iterable[int], parts: Parts | None = None, focus: str | None = None, *, until_caught: bool = False
) -> tuple[Counter[str], int]:
    """Run the interleavings of *seeds*; return the violations by kind and how many answers were looked at."""
    found: Counter[str] = Counter()
    looked = 0
    for seed in seeds:
        world = World(seed, parts, focus)
        found += world.run(until_caught=until_caught)
        looked += world.accepted + world.limited
        if until_caught and found:
            break
    return found, looked
