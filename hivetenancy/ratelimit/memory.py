"""The in-process rate limiter: every decision is a few look-ups in memory.

One *cell* a subject id holds the packed states of its policies (`hivetenancy.ratelimit.program`). What makes it fast at
any number of tenants, and how it stays bounded:

- **Shards.** Cells lie in 256 dicts, so that a dict that grows re-hashes a 256th of the tenants at once, not all. A
  cell is one `bytes` value, which the garbage collector does not look at.
- **Hot cells.** A subject with a single token bucket that is asked about often is lifted out of its shard into a list
  that is changed in place, found by the very tuple of subjects that the caller passes; at most 1,024 of them, for at
  most a second. Anything but the plain question (cost 1, the same tuple, the same plan) first puts the cell back.
- **Dropping.** A cell whose units have all flowed off equals no cell. Each new subject pays for looking at two cells
  in a ring, and every sixteenth of the other decisions at one; what was idle for ten seconds goes. There is no
  sweep, no timer and no thread. Absence stands for whatever had expired at the latest reading that dropped a cell, so a
  clock that is set back finds nothing freed.
- **The cap.** Where *max_subjects* cells are all alive, new subjects share overflow cells, 256 for each plan, chosen by
  hash: a collision is stricter, never looser. `MemoryRateLimiter.overflowed` counts decisions made there.

A refusal writes nothing at all.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from hivetenancy.clock import SECOND_US, Clock, Instant, SystemClock
from hivetenancy.decision import Reason, Refusal
from hivetenancy.plans import RateLimits

from .gcra import NS_PER_US
from .program import FREED_BY_OTHERS, Program, Rule, SlotsRule, State, take
from .protocol import PERMIT, ImmediateRateLimiter, LimitState, Permit, Subject, TellsStates

SHARDS: Final = 256
"""Few enough for their heads to stay in a processor's cache, many enough that a million cells re-hash 4,000 at once."""

_SHARD_MASK: Final = SHARDS - 1

OVERFLOW_CELLS: Final = 256
"""Overflow cells of one plan: few enough to be nothing beside the cap, many enough to keep strangers apart."""

HOT_CELLS: Final = 1024
"""Hot cells at most: these the garbage collector does look at, which takes it some 20 us."""

_HOT_LEASE_US: Final = SECOND_US
_COMPILED_PLANS: Final = 4096
"""Plans found by identity at once; as many as `RateLimits.of` keeps. Others are compiled again (10 us)."""

_GRACE_US: Final = 10 * SECOND_US
"""How long a cell stays idle before it is dropped: to drop one that comes back at once costs more than to keep it."""

_HOT: Final = b""
"""Stands in a shard for a cell that is hot; no packed cell is empty."""

_Cells: TypeAlias = dict[Any, bytes]

# A hot cell: [limits, subject, interval, room, until, tat, latest]; times in nanoseconds but *until* (us). *room* is
# the tolerance less one interval: how far ahead of the present the TAT may be for one more unit.
_Hot: TypeAlias = list[Any]
_TAT: Final = 5
_LATEST: Final = 6


class _Loaded(NamedTuple):
    """A subject's states as one decision sees them."""

    cells: _Cells
    key: object
    program: Program
    origin: Program
    """The program the states are stored under: another one after a change of plan."""
    states: Sequence[State]
    now: Instant
    new: bool


class MemoryRateLimiter:
    """Admits or refuses by rate, for one process.

    Args:
        clock: Read where a call passes no ``now``, and by `release`.
        max_subjects: Cells kept at once, some 100 bytes each for two token buckets (beside the id). At the cap new
            subjects share overflow cells. A call that meets several new subjects at the cap may pass it by as many.
        threadsafe: Take a lock on every side. Without it the engine belongs to one thread, that of its loop.

    Raises:
        ValueError: *max_subjects* is below 1.

    Concurrency:
        Nothing awaits, so that one thread needs no lock. *threadsafe* costs one uncontended lock a call and gives up
        the hot cells.

    Example:
        >>> from hivetenancy.plans import RatePolicy
        >>> limits = RateLimits.of([RatePolicy(limit=2, period_us=1_000_000, name="second")])
        >>> limiter, acme = MemoryRateLimiter(), (Subject("t:acme", limits),)
        >>> [limiter.try_acquire(acme, now=(0, 0)) for _ in range(2)]
        [PERMIT, PERMIT]
        >>> refused = limiter.try_acquire(acme, now=(1, 1))
        >>> refused.policy, refused.retry_after_us
        ('second', 999999)
    """

    __slots__ = (
        "_clock",
        "_count",
        "_hot",
        "_latest_us",
        "_live",
        "_lock",
        "_max",
        "_next_number",
        "_numbered",
        "_overflow",
        "_overflowed",
        "_pending",
        "_pending_from",
        "_programs",
        "_ring",
        "_shards",
        "_swept",
        "_turn",
    )

    def __init__(self, *, clock: Clock | None = None, max_subjects: int = 1_000_000, threadsafe: bool = False) -> None:
        if max_subjects < 1:
            raise ValueError(f"max_subjects must be at least 1, got {max_subjects}")
        self._clock = clock or SystemClock()
        self._max = max_subjects
        self._lock = threading.Lock() if threadsafe else None
        self._programs: dict[RateLimits, Program] = {}
        self._numbered: dict[int, Program] = {}
        self._next_number = 0
        self._shards: list[_Cells] = [{} for _ in range(SHARDS)]
        self._overflow: _Cells = {}
        self._count = 0
        self._overflowed = 0
        self._hot: dict[Sequence[Subject], _Hot] = {}
        self._live: dict[str, tuple[Sequence[Subject], Program]] = {}
        self._ring = 0
        self._pending: list[object] = []
        self._pending_from: _Cells = self._overflow
        self._turn = 0
        self._swept: Instant | None = None
        self._latest_us = -(2**63)

    @property
    def subjects(self) -> int:
        """How many subjects have a cell of their own."""
        return self._count

    @property
    def overflowed(self) -> int:
        """How many decisions were made in a shared overflow cell, because *max_subjects* were alive."""
        return self._overflowed

    async def acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        """Answer as `try_acquire`, which never has to wait."""
        return self.try_acquire(subjects, cost=cost, now=now)

    def try_acquire(
        self, subjects: Sequence[Subject], *, cost: int = 1, now: Instant | None = None
    ) -> Permit | Refusal:
        """Take *cost* units from every policy of every subject, or from none.

        Args:
            subjects: For whom to count; no two with one id. The same tuple each time is fastest.
            cost: Units to take, at least 1. A concurrency limit counts the call as one, whatever it costs.
            now: The present instant; ``None``: the clock is read.

        Returns:
            `PERMIT`, or a refusal after which nothing was taken: ``COST_TOO_LARGE`` where a capacity is below *cost*,
            else ``TOO_MANY_IN_FLIGHT`` where a slot must be freed, else ``RATE_LIMITED`` with the longest exact wait of
            all policies that refuse, and the policy it comes from.

        Raises:
            ValueError: *cost* is below 1, or two subjects have one id.
        """
        if now is None:
            now = self._clock.now()
        try:
            cell = self._hot.get(subjects)
        except TypeError:  # a list is no key; it is not found hot
            cell = None
        if cell is not None and cost == 1:
            limits, subject, interval, room, until, tat, _ = cell
            present = now[0]
            if subject.limits is limits and present < until:
                present *= NS_PER_US
                if tat < present:
                    tat = present
                if tat - present <= room:
                    cell[_TAT] = tat + interval
                    cell[_LATEST] = present
                    return PERMIT
        if self._lock is None:
            return self._decide(subjects, cost, now)
        with self._lock:
            return self._decide(subjects, cost, now)

    def release(self, subjects: Sequence[Subject], *, cost: int = 1, taken: Instant, refund: bool = False) -> None:
        """Free the one slot that a call admitted at *taken* holds of each concurrency limit, whatever it cost.

        A subject without a cell, a plan without concurrency limit and slots that are free already are no error.

        Args:
            subjects: As given to `try_acquire`.
            cost: As given to `try_acquire`.
            taken: The instant of the call, on this engine's clock.
            refund: Also give the units back. What flowed off since is not given back again, and nothing is where the
                plan has changed in between: a refund never makes more pass than if the call had not been made.

        Raises:
            ValueError: *cost* is below 1.
        """
        if cost < 1:
            raise ValueError(f"cost must be at least 1, got {cost}")
        if self._lock is None:
            return self._release(subjects, cost, taken, refund)
        with self._lock:
            return self._release(subjects, cost, taken, refund)

    def peek(self, subjects: Sequence[Subject], *, now: Instant | None = None) -> Sequence[LimitState]:
        """Return the state of each policy of each subject, in order. Changes nothing."""
        if now is None:
            now = self._clock.now()
        if self._lock is not None:
            with self._lock:
                return self._peek(subjects, now)
        if len(subjects) == 1:  # the short way, for the headers of every answer
            subject = subjects[0]
            program = self._programs.get(subject.limits)
            cell = self._shards[hash(subject.id) & _SHARD_MASK].get(subject.id)
            if cell and program is not None:
                told = program.told_at_once(cell, now)
                if told is not None:
                    return told
        return self._peek(subjects, now)

    # Deciding.

    def _decide(self, subjects: Sequence[Subject], cost: int, now: Instant) -> Permit | Refusal:
        """Decide what no hot cell could. One subject with a cell of its own and of its plan is the short way."""
        if cost < 1:
            raise ValueError(f"cost must be at least 1, got {cost}")
        if now[0] > self._latest_us:
            self._latest_us = now[0]
        if len(subjects) == 1:
            subject = subjects[0]
            key = subject.id
            cells = self._shards[hash(key) & _SHARD_MASK]
            cell = cells.get(key)
            program = self._programs.get(subject.limits)
            if program is not None:
                if cell:
                    after = program.advance(cell, now, cost)
                    if after is not None:
                        cells[key] = after
                        self._turn = turn = self._turn + 1
                        if not turn & 15:
                            self._inspect(1, now, _GRACE_US)
                            self._lift(subjects, program, now)
                        return PERMIT
                elif cell is None and self._began(key, cells, program, cost, now):
                    return PERMIT
        elif len({subject.id for subject in subjects}) < len(subjects):
            raise ValueError("two subjects have one id; a call counts each subject once")
        return self._generic(subjects, cost, now)

    def _began(self, key: str, cells: _Cells, program: Program, cost: int, now: Instant) -> bool:
        """Give a subject that has none a cell of its own. False: there is no room, nothing to keep, or a refusal."""
        if self._count >= self._max or self._overflow:
            return False
        cell = program.begin(self._not_before_swept(now), cost)
        if cell is None:
            return False
        cells[key] = cell
        program.cells += 1
        self._count += 1
        self._inspect(2, now, _GRACE_US)
        return True

    def _generic(self, subjects: Sequence[Subject], cost: int, now: Instant) -> Permit | Refusal:
        """Check all, then write all."""
        if self._count >= self._max:
            self._inspect(16, now, 0)  # before anything is loaded, since it drops cells
        loaded = [self._load(at, subject, now) for at, subject in enumerate(subjects)]
        refused: Rule | None = None
        refused_in = loaded[0] if loaded else None
        longest = 0
        after: list[list[State]] = []
        for one in loaded:
            states: list[State] = []
            for at, rule in enumerate(one.program.rules):
                if cost > rule.capacity:
                    return Refusal(
                        reason=Reason.COST_TOO_LARGE, policy=rule.policy.name, limit=rule.capacity, requested=cost
                    )
                if one.origin is one.program:
                    wait, state = rule.take(one.states[at], one.now, cost)
                else:
                    wait, state = take(rule, *one.origin.state_for(rule, one.states), one.now, cost)
                states.append(state)
                if wait and longest != FREED_BY_OTHERS and (wait > longest or wait == FREED_BY_OTHERS):
                    refused, refused_in, longest = rule, one, wait
            after.append(states)
        if refused is not None and refused_in is not None:
            return _refusal(refused, refused_in, longest, cost)
        self._store(loaded, after, now)
        return PERMIT

    def _store(self, loaded: list[_Loaded], after: list[list[State]], now: Instant) -> None:
        fresh = 0
        for one, states in zip(loaded, after, strict=True):
            if not states:
                continue  # no policy: nothing to remember
            one.cells[one.key] = one.program.pack(states)
            if one.cells is self._overflow:
                self._overflowed += 1
            if one.new:
                fresh += one.cells is not self._overflow
                one.program.cells += 1
            elif one.origin is not one.program:
                one.program.cells += 1
                self._one_cell_less(one.origin)
        self._count += fresh
        self._turn += 1
        self._inspect(1 + 2 * fresh, now, _GRACE_US)

    def _load(self, at: int, subject: Subject, now: Instant) -> _Loaded:
        program = self._programs.get(subject.limits) or self._compile(subject.limits)
        key = subject.id
        cells = self._shards[hash(key) & _SHARD_MASK]
        cell = cells.get(key)
        if cell is None:
            return self._load_absent(at, subject, cells, program, now)
        if not cell:
            cell = self._put_back(key)
        origin = self._origin(cell)
        return _Loaded(cells, key, program, origin, origin.unpack(cell), now, False)

    def _load_absent(self, at: int, subject: Subject, cells: _Cells, program: Program, now: Instant) -> _Loaded:
        """Load a subject that has no cell: as never seen, or in the overflow cell that it shares.

        Whoever may hold units or slots in an overflow cell goes on counting there until that cell is idle, so that a
        release finds what it is to free.
        """
        now = self._not_before_swept(now)
        full = self._count >= self._max
        if full or self._overflow:
            shared = _overflow_key(at, subject)
            cell = self._overflow.get(shared)
            if cell is not None:
                origin = self._origin(cell)
                states = origin.unpack(cell)
                if full or not origin.idle(states, now):
                    return _Loaded(self._overflow, shared, program, origin, states, now, False)
            elif full:
                return _Loaded(self._overflow, shared, program, program, program.never_seen, now, True)
        return _Loaded(cells, subject.id, program, program, program.never_seen, now, True)

    def _not_before_swept(self, now: Instant) -> Instant:
        """Return the instant at which a subject without a cell is judged: it may have been idle then, not before."""
        swept = self._swept
        return now if swept is None else (max(now[0], swept[0]), max(now[1], swept[1]))

    # Hot cells.

    def _lift(self, subjects: Sequence[Subject], program: Program, now: Instant) -> None:
        """Make the cell of the one subject hot, if it is of the kind that can be."""
        if self._lock is not None or len(program.buckets) != 1 or type(subjects) is not tuple:
            return
        subject = subjects[0]
        cells = self._shards[hash(subject.id) & _SHARD_MASK]
        if len(self._live) >= HOT_CELLS:
            self._put_back(next(iter(self._live)))
        interval, tolerance = program.buckets[0]
        (tat,) = program.unpack(cells[subject.id])[0]
        until, latest = now[0] + _HOT_LEASE_US, now[0] * NS_PER_US
        self._hot[subjects] = [subject.limits, subject, interval, tolerance - interval, until, tat, latest]
        self._live[subject.id] = (subjects, program)
        cells[subject.id] = _HOT

    def _put_back(self, key: str) -> bytes:
        """Pack a hot cell back into its shard and return it."""
        subjects, program = self._live.pop(key)
        hot = self._hot.pop(subjects)
        latest = hot[_LATEST] // NS_PER_US
        self._latest_us = max(self._latest_us, latest)
        cell = program.pack([(hot[_TAT],)])
        self._shards[hash(key) & _SHARD_MASK][key] = cell
        return cell

    # Programs.

    def _compile(self, limits: RateLimits) -> Program:
        if len(self._programs) >= _COMPILED_PLANS:
            for known in self._programs.values():
                known.known = False
                if not known.cells:
                    del self._numbered[known.number]
            self._programs.clear()
        program = self._programs[limits] = Program(self._next_number, limits)
        self._numbered[program.number] = program
        self._next_number += 1
        return program

    def _origin(self, cell: bytes) -> Program:
        return self._numbered[int.from_bytes(cell[:8], "little")]

    def _one_cell_less(self, program: Program) -> None:
        program.cells -= 1
        if not program.cells and not program.known:
            del self._numbered[program.number]

    # Dropping what is idle.

    def _inspect(self, cells: int, now: Instant, grace_us: int) -> None:
        """Look at the next *cells* cells of the ring and drop those that have been as good as none for *grace_us*."""
        pending = self._pending
        then = now[0] - grace_us, now[1] - grace_us
        for _ in range(cells):
            if not pending:
                self._ring = (self._ring + 1) % (SHARDS + 1)
                self._pending_from = self._shards[self._ring] if self._ring < SHARDS else self._overflow
                pending = self._pending = list(self._pending_from)
                continue
            key = pending.pop()
            cell = self._pending_from.get(key)
            if cell:
                program = self._origin(cell)
                if program.idle_cell(cell, then):
                    self._drop(key, program, then)

    def _drop(self, key: object, program: Program, now: Instant) -> None:
        del self._pending_from[key]
        self._one_cell_less(program)
        if self._pending_from is not self._overflow:
            self._count -= 1
        swept = self._swept
        self._swept = now if swept is None else (max(now[0], swept[0]), max(now[1], swept[1]))

    # Releasing and telling.

    def _release(self, subjects: Sequence[Subject], cost: int, taken: Instant, refund: bool) -> None:
        for at, subject in enumerate(subjects):
            program = self._programs.get(subject.limits) or self._compile(subject.limits)
            if not program.slotted and not refund:
                continue
            key: object = subject.id
            cells = self._shards[hash(key) & _SHARD_MASK]
            cell = cells.get(key)
            if cell is None:
                cells, key = self._overflow, _overflow_key(at, subject)
                cell = cells.get(key)
            elif not cell:
                cell = self._put_back(subject.id)
            if cell is not None:
                origin = self._origin(cell)
                cells[key] = origin.pack(self._released(origin, cell, program, cost, taken, refund))

    def _released(
        self, origin: Program, cell: bytes, program: Program, cost: int, taken: Instant, refund: bool
    ) -> list[State]:
        """Return the states of *origin* after a release of what was taken under *program*."""
        states = list(origin.unpack(cell))
        latest = max(self._clock.now()[0], self._latest_us) if refund else 0
        for rule in program.rules:
            at = origin.index.get(rule.policy.name)
            if at is None:
                continue
            if isinstance(rule, SlotsRule) and isinstance(origin.rules[at], SlotsRule):
                states[at] = (max(0, (states[at][0] if states[at] else 0) - 1),)
            elif refund and origin.rules[at].policy == rule.policy:
                states[at] = rule.withdrawn(states[at], taken, latest, cost)
        return states

    def _peek(self, subjects: Sequence[Subject], now: Instant) -> list[LimitState]:
        told: list[LimitState] = []
        for at, subject in enumerate(subjects):
            program = self._programs.get(subject.limits) or self._compile(subject.limits)
            states, judged_at, origin = self._look(at, subject, program, now)
            told += program.told(states, judged_at, origin)
        return told

    def _look(
        self, at: int, subject: Subject, program: Program, now: Instant
    ) -> tuple[Sequence[State], Instant, Program]:
        """Return states, the instant to judge them at and the program they are stored under; changes nothing."""
        cell = self._shards[hash(subject.id) & _SHARD_MASK].get(subject.id)
        if cell is None:
            now = self._not_before_swept(now)
            cell = self._overflow.get(_overflow_key(at, subject))
            if cell is None:
                return program.never_seen, now, program
        if cell:
            origin = self._origin(cell)
            return origin.unpack(cell), now, origin
        subjects, origin = self._live[subject.id]
        return [(self._hot[subjects][_TAT],)], now, origin


def _overflow_key(at: int, subject: Subject) -> object:
    """Name the overflow cell of a subject that stands at position *at* of a call.

    The position keeps the tenant and the key of one call apart, whose units would otherwise be counted once.
    """
    return subject.limits, at, hash(subject.id) % OVERFLOW_CELLS


def _refusal(rule: Rule, one: _Loaded, wait: int, cost: int) -> Refusal:
    in_flight = wait == FREED_BY_OTHERS
    under, state = one.origin.state_for(rule, one.states)
    return Refusal(
        reason=Reason.TOO_MANY_IN_FLIGHT if in_flight else Reason.RATE_LIMITED,
        retry_after_us=None if in_flight else wait,
        policy=rule.policy.name,
        limit=rule.policy.limit,
        used=under.used(state, one.now),
        requested=1 if in_flight else cost,  # a slot, not what the call costs
    )


if TYPE_CHECKING:
    _conforms: type[ImmediateRateLimiter] = MemoryRateLimiter
    _tells: type[TellsStates] = MemoryRateLimiter
