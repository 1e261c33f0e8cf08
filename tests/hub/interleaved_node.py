"""One node under the scheduler of `interleaving`: its wire, its state file, the real parts, and the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from hivetenancy.access_keys.cached import CachedAccessKeys, Freshness
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.floors import KEY_EVENTS, TENANT_EVENTS, Floors
from hivetenancy.access_keys.format import digest
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.authority.feed import ChangeLog
from hivetenancy.authority.view import HubView
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubUnavailableError, UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.hub.kept import KeptLimits, Knowledge
from hivetenancy.ids import Effect, KeyId, TenantId
from hivetenancy.limits import CachedLimits
from hivetenancy.recollection import Recollection
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    ChangeEvent,
    ChangeType,
    KeyAnswer,
    KeyRecord,
    KeyState,
    LimitsAnswer,
    LimitsBatch,
    TenantLimits,
)

if TYPE_CHECKING:
    from .interleaving import World

WINDOWS: Final = Freshness()

FUNCTIONS: Final = FunctionRegistry()
for _name, _effect in (("kv.get", "read"), ("kv.set", "write"), ("kv.del", "delete"), ("kv.flush", "admin")):
    FUNCTIONS.declare(_name, effect=_effect)


# --- the wire --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Call:
    """A question on its way: waiting for the hub, then with its answer taken and waiting to arrive."""

    kind: str
    args: tuple[Any, ...]
    least: int | None
    epoch: int | None
    sent_us: int
    future: asyncio.Future[Any]
    answer: Any = None

    @property
    def taken(self) -> bool:
        """Whether the hub has answered."""
        return self.answer is not None


@dataclass(frozen=True)
class Origin:
    """Where an answer about a key or a tenant comes from."""

    seq: int
    sent_us: int
    value: Any
    """Kept so that its identity stays its own."""


@dataclass(frozen=True)
class State:
    """What the hub knew at a moment, with a log where it can still be polled."""

    seq: int
    at_us: int
    view: HubView
    log: ChangeLog | None = None


class Wire:
    """The hub as this node reaches it: the three sources, each question stopped at a gate."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.calls: list[Call] = []

    async def _ask(self, kind: str, *args: Any, least: int | None = None, epoch: int | None = None) -> Any:
        loop = asyncio.get_running_loop()
        call = Call(kind, args, least, epoch, self._world.now, loop.create_future())
        self.calls.append(call)
        try:
            return await call.future
        finally:
            with suppress(ValueError):
                self.calls.remove(call)

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Ask about one key."""
        return await self._ask("key", (digest(credential),), least=min_revision, epoch=epoch)

    async def introspect_batch(
        self, digests: Iterable[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Ask about several keys."""
        return await self._ask("keys", tuple(digests), least=min_revision, epoch=epoch)

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Poll; how long it waits is up to the schedule."""
        return await self._ask("changes", cursor)

    async def limits(
        self, tenant: TenantId, *, sources: Any = (), min_revision: int | None = None, epoch: int | None = None
    ) -> LimitsAnswer:
        """Ask about one tenant."""
        return await self._ask("limits", (tenant,), least=min_revision, epoch=epoch)

    async def limits_batch(
        self,
        tenants: Iterable[TenantId],
        *,
        sources: Any = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Ask about several tenants."""
        return await self._ask("tenants", tuple(tenants), least=min_revision, epoch=epoch)

    def take(self, call: Call, state: State) -> None:
        """Have the hub answer *call* from *state*."""
        try:
            call.answer = self._answer(call, state)
        except HubUnavailableError as error:
            call.answer = error

    def _answer(self, call: Call, state: State) -> Any:
        world, view, wall = self._world, state.view, self._world.clock.now()[1]
        if call.kind == "changes":
            return (state.log or world.hub._log).since(call.args[0], wall)
        view.recent_enough(call.least, call.epoch)
        if call.kind in ("key", "keys"):
            digests = call.args[0]
            if any(view.state.key_behind(each) is None for each in digests):  # "unknown" is the primary's to say
                state = world.present()
                view = state.view
                view.recent_enough(call.least, call.epoch)
            batch = view.keys(digests, wall)
            keys = tuple(self._of(each, state.seq, call.sent_us) for each in batch.keys)
            if call.kind == "keys":
                return replace(batch, keys=keys)
            return KeyAnswer(epoch=batch.epoch, revision=batch.revision, now_us=batch.now_us, key=keys[0])
        told = view.limits_batch(call.args[0], (), wall)
        for each in told.limits:
            if each is not None:
                world.origins[id(each)] = Origin(state.seq, call.sent_us, each)
        if call.kind == "tenants":
            return told
        return LimitsAnswer(epoch=view.epoch, revision=view.revision, now_us=wall, limits=told.limits[0])

    def _of(self, key: KeyState, seq: int, sent_us: int) -> KeyState:
        own = replace(key)  # an object of its own, so that its identity names this answer
        self._world.origins[id(own)] = Origin(seq, sent_us, own)
        return own

    def deliver(self, call: Call) -> None:
        """Let the answer of *call* arrive."""
        with suppress(ValueError):
            self.calls.remove(call)
        if call.future.done():
            return
        if isinstance(call.answer, BaseException):
            call.future.set_exception(call.answer)
        else:
            call.future.set_result(call.answer)

    def lose(self, call: Call) -> None:
        """Let *call* fail."""
        call.answer = HubUnavailableError("lost")
        self.deliver(call)


# --- the state file --------------------------------------------------------------------------------------------------


class Shelf:
    """Stands in for the state file: what is written is kept in order, and a crash loses what was written last."""

    def __init__(self) -> None:
        self.written: list[tuple[str, Any, Any]] = []
        self.path = "shelf"
        self.last_error = None

    def put_place(self, place: Any) -> None:
        """Keep the place in the feed, and what had been delivered by then."""
        self.written.append(("place", place, self.heard()))

    def put_limits(self, tenant: TenantId, kept: KeptLimits) -> None:
        """Keep limits."""
        self.written.append(("limits", tenant, kept))

    def drop_limits(self, tenant: TenantId) -> None:
        """Forget limits."""
        self.written.append(("limits", tenant, None))

    def put_digests(self, digests: Iterable[bytes]) -> None:
        """Keep digests."""
        self.written.extend(("digest", each, True) for each in digests)

    def drop_digests(self, digests: Iterable[bytes]) -> None:
        """Forget digests."""
        self.written.extend(("digest", each, None) for each in digests)

    heard: Callable[[], Heard]

    def crash(self, lost: int) -> None:
        """Lose the last *lost* writes."""
        del self.written[len(self.written) - min(lost, len(self.written)) :]

    def read(self) -> tuple[Knowledge, Heard]:
        """Return what is there, and what had been delivered when the place was written."""
        place, heard = None, Heard()
        held: dict[str, dict[Any, Any]] = {"limits": {}, "digest": {}}
        for what, name, value in self.written:
            if what == "place":
                place, heard = name, value
            elif value is None:
                held[what].pop(name, None)
            else:
                held[what][name] = value
        knowledge = Knowledge(
            hub_id="h",
            announcement=None,
            place=place,
            limits=held["limits"],
            digests=tuple(held["digest"]),
        )
        return knowledge, heard.copy()


# --- the oracle ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One change of the hub, numbered over all epochs."""

    seq: int
    event: ChangeEvent

    def is_about(self, key_id: KeyId, tenant: TenantId) -> bool:
        """Whether it takes back what was said about a key."""
        event = self.event
        if event.type in KEY_EVENTS:
            return event.key_id == key_id
        return event.type in TENANT_EVENTS and event.tenant_id == tenant

    def limits(self, limits: TenantLimits) -> bool:
        """Whether it takes back what was said about a tenant's limits."""
        event = self.event
        if event.type is ChangeType.PLAN_CHANGED:
            return event.plan == limits.plan
        known = event.type in TENANT_EVENTS or event.type is ChangeType.LIMITS_CHANGED
        return known and event.tenant_id == limits.tenant_id


@dataclass(frozen=True)
class Cover:
    """An answer of the feed that spoke for everything up to *seq* at once: its first one, or a reset."""

    seq: int
    step: int
    until_us: int


@dataclass
class Heard:
    """What was delivered to this node."""

    seqs: set[int] = field(default_factory=set)
    covers: list[Cover] = field(default_factory=list)

    def copy(self) -> Heard:
        """Return a copy."""
        return Heard(set(self.seqs), list(self.covers))

    def late(self, seq: int, stored: int, now: int, about: Callable[[Change], bool], changes: list[Change]) -> bool:
        """Whether an answer of *seq*, stored in step *stored*, may not be given out any more."""
        for change in changes[seq:]:
            if not about(change):
                continue
            if change.seq in self.seqs:
                return True
            for cover in self.covers:
                if change.seq <= cover.seq and (stored > cover.step or now >= cover.until_us):
                    return True
        return False


@dataclass(frozen=True)
class Parts:
    """What a node is built of; a rule is switched off by putting another class in its place."""

    keys: type[CachedAccessKeys] = CachedAccessKeys
    limits: type[CachedLimits] = CachedLimits
    feed: type[Feed] = Feed
    floors: type[Floors] = Floors
    max_floors: int | None = None
    """``None``: drawn, and few."""


class Flaky:
    """A listener that fails when it is told to, as any listener of a host may."""

    def __init__(self) -> None:
        self.fails = False

    def on_event(self, event: ChangeEvent) -> None:
        """Hear of a change, or fail."""
        if self.fails:
            self.fails = False
            raise RuntimeError("a listener failed")

    def on_reset(self, spread_seconds: int) -> None:
        """Hear of a reset."""


class Node:
    """One validator: the real parts, composed as a tenancy composes them."""

    def __init__(self, world: World, parts: Parts, shelf: Shelf) -> None:
        self.world, self.heard = world, Heard()
        self.wire = Wire(world)
        self.rec = Recollection(shelf, clock=world.clock)  # type: ignore[arg-type]
        self.rec._open = True
        floors = parts.floors(max_ids=parts.max_floors or world.draw.choice((1, 2, 100)))
        self.feed = parts.feed(self.wire, floors, clock=world.clock, moved=self.rec.moved)
        self.flaky = Flaky()
        if world.draw.random() < 0.5:
            self.feed.subscribe(self.flaky)
        self.keys = parts.keys(
            self.wire, functions=FUNCTIONS, feed=self.feed, clock=world.clock, kept=self.rec.key_kept, max_flights=4
        )
        self.limits = parts.limits(self.wire, floors=floors, clock=world.clock, keep=self.rec.limits_kept)
        self.feed.subscribe(self.limits)
        self.feed.subscribe(self.flaky)
        self.stored: dict[bytes, tuple[Origin, int]] = {}
        self.kept_at: dict[int, int] = {}
        self.ended: dict[bytes, int] = {}
        self.failed_us = -1  # when a look-up of limits failed last
        self._watch()
        shelf.heard = lambda: self.heard.copy()
        knowledge, heard = shelf.read()
        if knowledge.place is not None:
            self.heard = heard
            self.kept_at = {id(each.limits): -1 for each in knowledge.limits.values()}
        self.rec.recall(knowledge, feed=self.feed, limits=self.limits, keys=self.keys)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.calls: set[asyncio.Task[None]] = set()
        self.supervise()

    def supervise(self) -> None:
        """Start whatever does not run, as the supervisor of a tenancy does."""
        for name, work in (("feed", self.feed.run), ("limits", self.limits.run), ("keys", self.keys.run)):
            task = self.tasks.get(name)
            if task is None or task.done():
                if task is not None and not task.cancelled() and task.exception() is not None:
                    self.world.expect(isinstance(task.exception(), RuntimeError), "crash", repr(task.exception()))
                self.tasks[name] = self.world.loop.create_task(work())

    def end(self) -> None:
        """Die: nothing is delivered to this node any more."""
        self.rec._open = False
        for task in (*self.tasks.values(), *self.calls, *self.keys._tasks, *self.keys._flights.values()):
            task.cancel()
        for task in self.limits._tasks:
            task.cancel()
        self.wire.calls.clear()
        self.world.loop.rest()

    # --- looking on ---

    def _watch(self) -> None:
        """Note what is applied and stored, by wrapping the methods that do it."""
        world, feed, keys, limits = self.world, self.feed, self.keys, self.limits
        apply, principal, refuse, keep = feed._apply, keys._principal, keys._refuse, limits._keep
        fail = limits._failed

        def applied(batch: ChangeBatch, asked: str | None) -> bool:
            first, before = not feed.floors.opened, feed.floors.epoch
            done = apply(batch, asked)
            if done:
                self._hear(batch, first, batch.reset or batch.epoch > before)
            return done

        def made(known: bytes, record: KeyRecord, stamp: Any) -> Principal:
            origin = world.origins[id(record)]
            present = keys._entries.get(known) or keys._clipped.get(known)
            if present is not None:
                world.expect(self.stored[known][0].seq <= origin.seq, "older", "a key's answer replaced a later one")
            self.stored[known] = (origin, world.step)
            return principal(known, record, stamp)

        def refused(known: bytes, refusal: Any, state: KeyState, stamp: Any) -> None:
            if state.key_id is not None:
                self.ended[known] = max(self.ended.get(known, 0), world.origins[id(state)].seq)
            refuse(known, refusal, state, stamp)

        def kept(tenant: TenantId, entry: Any, *, tell: bool = True) -> None:
            present = limits._entries.get(tenant)
            keep(tenant, entry, tell=tell)
            origin = world.origins[id(entry.limits)]
            if limits._entries.get(tenant) is entry:
                if present is not None:
                    before = world.origins[id(present.limits)].seq
                    world.expect(before <= origin.seq, "older", "limits replaced later ones")
                self.kept_at.setdefault(id(entry.limits), world.step)

        def failed() -> None:
            self.failed_us = world.now
            fail()

        feed._apply, keys._principal, keys._refuse, limits._keep = applied, made, refused, kept  # type: ignore[method-assign]
        limits._failed = failed  # type: ignore[method-assign]

    def _hear(self, batch: ChangeBatch, first: bool, reset: bool) -> None:
        world, moved = self.world, self.feed._moved
        if first:
            self.heard.covers.append(Cover(world.seqs[batch.epoch, batch.revision], world.step, world.now))
        elif reset:
            until = world.now + batch.spread_seconds * SECOND_US
            self.heard.covers.append(Cover(world.seqs[batch.epoch, batch.revision], world.step, until))
        self.heard.seqs |= {world.seqs[batch.epoch, event.revision] for event in batch.events}
        if moved is not None and self.rec._open and world.shelf.written:
            what, place, _ = world.shelf.written[-1]
            if what == "place":  # written just now, before this was noted
                world.shelf.written[-1] = (what, place, self.heard.copy())

    # --- asking ---

    def start(self, call: Any) -> None:
        """Start a caller."""
        task = self.world.loop.create_task(call)
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    async def validate(self, secret: bytes, effect: Effect) -> object:
        """Ask as a request does, and have the answer looked at in the step that gives it out."""
        try:
            answer = await self.keys.validate(secret, effect=effect)
        except UnavailableError as error:
            return error
        self.judge(digest(secret), effect, answer)
        return answer

    def peek(self, secret: bytes, effect: Effect) -> None:
        """Ask memory alone."""
        with suppress(UnavailableError):
            self.judge(digest(secret), effect, self.keys.try_validate(secret, effect=effect))

    def judge(self, known: bytes, effect: Effect, answer: object) -> None:
        """Hold an answer about a key to what may be answered now."""
        world = self.world
        if not isinstance(answer, Principal):
            return
        world.accepted += 1
        origin, stored = self.stored[known]
        late = self.heard.late(
            origin.seq, stored, world.now, lambda each: each.is_about(answer.key_id, answer.tenant_id), world.changes
        )
        world.expect(not late, "late", "a key, on an answer from before a change that was delivered")
        world.expect(self.ended.get(known, 0) <= origin.seq, "older", "a key counts again after its end was told")
        age = world.now - origin.sent_us
        window = WINDOWS.fresh_us + (WINDOWS.stale_us(effect) if answer.stale else 0)
        if effect == Effect.ADMIN and not self.feed.healthy(world.clock.now()):
            window = WINDOWS.admin_us
        world.expect(age < window, "age", f"an answer {age} us old, for {effect}")

    async def ask_limits(self, tenant: TenantId) -> object:
        """Ask for limits as a request does."""
        began = self.world.now
        try:
            answer = await self.limits.limits(tenant, now=self.world.clock.now())
        except UnavailableError as error:
            return error
        told = self.world.now - began < SECOND_US // 4 and self.failed_us < began
        self.judge_limits(tenant, answer, excused=not told)
        return answer

    def peek_limits(self, tenant: TenantId) -> None:
        """Ask memory alone."""
        with suppress(UnavailableError):
            self.judge_limits(tenant, self.limits.try_limits(tenant, now=self.world.clock.now()))

    def judge_limits(self, tenant: TenantId, answer: TenantLimits | None, *, excused: bool = False) -> None:
        """Hold limits to what may be answered now."""
        world = self.world
        if answer is None:
            return
        world.limited += 1
        for whole, thawed in self.limits._frozen.values():
            answer = whole if thawed is answer else answer
        origin = world.origins[id(answer)]
        told = answer
        # A hub that is out of reach, or takes its time, lets limits serve on after a reset: that is said of them.
        excused = excused or self.limits._away
        late = self.heard.late(
            origin.seq,
            self.kept_at.get(id(answer), world.step),
            0 if excused else world.now,
            lambda each: each.limits(told),
            world.changes,
        )
        world.expect(not late, "late", "limits from before a change that was delivered")
