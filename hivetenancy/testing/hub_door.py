"""The door of a fake hub: what code under test asks goes through it, is journalled there, and fails as the test said.

A call passes it in this order: late requests that are due are delivered, the call is journalled, an outage stops it,
its fault delays or prevents it, the work is done, replies are held back, an outage that began meanwhile stops the
reply, and its fault spoils that. Whoever came by HTTP finds the fault in `hivetenancy.testing.faults.EXCHANGE`, for
the bytes of the reply; whoever called a method gets what the real client would raise.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar, cast

from hivetenancy.authority.bell import Bell
from hivetenancy.clock import SECOND_US, Clock
from hivetenancy.errors import HubUnavailableError
from hivetenancy.sources import ChangeBatch

from .faults import EXCHANGE, Call, Connection, Exchange, Fault, FaultPlan, Held, known, unheard

JOURNAL: Final = 10_000
"""Calls that the journal keeps; older ones only count."""

_logger: Final = logging.getLogger("hivetenancy.testing")
_LOOK_SECONDS: Final = 0.05  # how often a delayed call looks at a clock that somebody may have moved by hand

_Answer = TypeVar("_Answer")
_Work: TypeAlias = Callable[[], Awaitable[Any]]


@dataclass(slots=True, eq=False)
class _Late:
    """A request that will arrive a second time: after so many calls, or (``None``) only when told."""

    work: _Work
    calls_to_go: int | None


class Door:
    """Journal and faults of one fake hub.

    Args:
        clock: The hub's clock, for the journal and for delays.
        wake: Ends waiting polls and tells subscribers; called whenever what a call meets has changed.

    Concurrency:
        Any thread; `ask` needs a running loop.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._journal: deque[list[Call]] = deque(maxlen=JOURNAL)  # boxes, so that an outcome can still be put in
        self._counts: Counter[str] = Counter()
        self._all_down = False
        self._out: Counter[str] = Counter()
        self._lose: Counter[str] = Counter()
        self._holds: dict[str, list[Held]] = {}
        self._late: list[_Late] = []
        self._moved = Bell()
        self._expected: frozenset[str] | None = None
        self._unexpected: deque[Call] = deque(maxlen=100)
        self.plan = FaultPlan()

    # --- switches ----------------------------------------------------------------------------------------------------

    def fails(self, name: str) -> bool:
        """Whether an outage covers *name*."""
        return self._all_down or self._out[name] > 0

    def set_down(self, down: bool) -> None:
        """Switch everything off, or on."""
        self._all_down = down
        self._wake()

    def begin_outage(self, names: Sequence[str]) -> None:
        """Count one outage more of *names*."""
        with self._lock:
            self._out.update(names)
        self._wake()

    def end_outage(self, names: Sequence[str]) -> None:
        """Count one outage less of *names*."""
        with self._lock:
            self._out.subtract(names)
        self._wake()

    def lose(self, name: str, times: int) -> None:
        """Lose the next replies to *name*."""
        with self._lock:
            self._lose[name] += times

    def hold(self, name: str) -> Held:
        """Hold replies to *name* back."""
        held = Held(name, self._wake)
        self._holds.setdefault(name, []).append(held)
        return held

    def let_go(self, held: Held, name: str) -> None:
        """End a hold."""
        self._holds[name].remove(held)
        held.release()

    def silent(self, name: str) -> bool:
        """Whether something stands between a change and who would be told of it at once."""
        held = any(not held.released for held in self._holds.get(name, ()))
        return held or self.fails(name) or self.plan.waits_for(name)

    def moved(self) -> None:
        """Let delayed calls look at the clock."""
        self._moved.ring()

    def heal(self) -> None:
        """End every outage, loss, hold and fault; what is late is never delivered."""
        self.plan.clear()
        with self._lock:
            self._all_down = False
            self._out.clear()
            self._lose.clear()
            self._late.clear()
            holds = [held for each in self._holds.values() for held in each]
        for held in holds:
            held.release()
        self._wake()

    # --- the journal -------------------------------------------------------------------------------------------------

    @property
    def calls(self) -> tuple[Call, ...]:
        """The journal, oldest first."""
        with self._lock:
            return tuple(box[0] for box in self._journal)

    def count(self, name: str) -> int:
        """How often *name* was called."""
        known((name,))
        return self._counts[name]

    def forget(self) -> None:
        """Empty the journal and begin to count anew."""
        with self._lock:
            self._journal.clear()
            self._counts.clear()
            self._unexpected.clear()

    def expect(self, names: Sequence[str]) -> None:
        """Expect calls of *names*, beside those expected before, and of no others."""
        self._expected = (self._expected or frozenset()) | set(known(names))

    @property
    def unexpected(self) -> tuple[Call, ...]:
        """The first calls of names that are not expected; none while nothing is."""
        with self._lock:
            return tuple(self._unexpected)

    def _begin(self, name: str, arguments: Mapping[str, object]) -> tuple[list[Call], Fault | None]:
        """Journal a call; return its box and what it meets."""
        with self._lock:
            out, lost = self.fails(name), self._lose[name] > 0
            fault = None
            if not out:
                fault = Fault(reply="lost") if lost else self.plan.next(name)
                self._lose[name] -= lost
            outcome = "outage" if out else "answered" if fault is None else fault.label
            call = Call(
                name=name, arguments=MappingProxyType(dict(arguments)), at_us=self._clock.now()[1], outcome=outcome
            )
            box = [call]
            self._counts[name] += 1
            self._journal.append(box)
            if self._expected is not None and name not in self._expected and len(self._unexpected) < 100:
                self._unexpected.append(call)
        return box, fault

    def _note_refusal(self, box: list[Call], error: Exception) -> None:
        """Put the status of a refusal into the journal: the model's, or the application's."""
        status = getattr(error, "status", None)
        if isinstance(status, int):
            with self._lock:
                box[0] = replace(box[0], outcome=f"refused {status}")

    # --- a call ------------------------------------------------------------------------------------------------------

    async def ask(self, name: str, arguments: Mapping[str, object], work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Let a call through, or fail as the test said.

        Args:
            name: Which, of `CALLS`.
            arguments: What was asked, for the journal.
            work: Does it; called once more if its request is to arrive twice.

        Raises:
            HubUnavailableError: An outage or a fault, by the rules of `unheard`.
            HubContractError: A fault that makes an answer outside the wire.
        """
        await self._deliver_due()
        box, fault = self._begin(name, arguments)
        exchange = EXCHANGE.get()
        self._stop_in_outage(name, exchange, "refused")
        if exchange is not None:
            exchange.fault = fault
        if fault is not None:
            await self._meet(fault, name, work, over_http=exchange is not None)
        try:
            answer = await work()
        except Exception as error:
            self._note_refusal(box, error)
            raise
        for held in list(self._holds.get(name, ())):
            await held.pass_through()
        self._stop_in_outage(name, exchange, "reset")
        return answer if fault is None else self._spoiled(fault, name, answer, over_http=exchange is not None)

    async def _meet(self, fault: Fault, name: str, work: _Work, *, over_http: bool) -> None:
        """Delay the call and see to its second delivery; raise where it is prevented."""
        if fault.again is not None and name != "changes":  # a second poll would change nothing, and wait
            with self._lock:
                self._late.append(_Late(work, fault.again or None))
        if fault.latency and fault.reply != "slow":
            await self.delay(fault.latency_us)
        if fault.prevents and over_http:
            raise HubUnavailableError(f"{fault.label}: the application answers otherwise, or not at all")
        error = unheard(fault, name) if fault.prevents else None
        if error is not None:
            raise error

    def _spoiled(self, fault: Fault, name: str, answer: _Answer, *, over_http: bool) -> _Answer:
        """Return what is left of *answer*; over HTTP its bytes are spoiled later."""
        if fault.events is not None and isinstance(answer, ChangeBatch):
            return cast("_Answer", spoiled_events(answer, fault))
        error = None if over_http else unheard(fault, name)
        if error is not None:
            raise error
        return answer

    def _stop_in_outage(self, name: str, exchange: Exchange | None, how: Connection) -> None:
        if self.fails(name):
            if exchange is not None:
                exchange.fault = Fault(connection=how)
            raise HubUnavailableError(f"FakeHiveHub does not answer {name}: hub.outage() or hub.down = True")

    async def delay(self, for_us: int) -> None:
        """Wait until the hub's clock has gone on by so much: by itself, or moved by hand."""
        due_us = self._clock.now()[0] + for_us
        while (left_us := due_us - self._clock.now()[0]) > 0:
            moved = self._moved.listen()
            try:
                await asyncio.wait({moved}, timeout=min(left_us / SECOND_US, _LOOK_SECONDS))
            finally:
                self._moved.drop(moved)

    # --- late requests -----------------------------------------------------------------------------------------------

    @property
    def late(self) -> int:
        """How many requests are still to arrive a second time."""
        return len(self._late)

    async def deliver(self) -> int:
        """Deliver all late requests now; return how many. Nobody reads their replies."""
        with self._lock:
            due, self._late = self._late, []
        await _do(due)
        return len(due)

    async def _deliver_due(self) -> None:
        if not self._late:
            return
        with self._lock:
            for late in self._late:
                if late.calls_to_go is not None:
                    late.calls_to_go -= 1
            due = [late for late in self._late if late.calls_to_go == 0]
            self._late = [late for late in self._late if late.calls_to_go != 0]
        await _do(due)


async def _do(due: Sequence[_Late]) -> None:
    for late in due:
        try:
            await late.work()
        except Exception:
            _logger.debug("a late request was refused, which nobody hears", exc_info=True)


def spoiled_events(batch: ChangeBatch, fault: Fault) -> ChangeBatch:
    """Return *batch* with its events as *fault* says."""
    match fault.events:
        case "reversed":
            return replace(batch, events=batch.events[::-1])
        case "repeated":
            return replace(batch, events=tuple(event for event in batch.events for _ in range(2)))
        case "skipped":
            return replace(batch, events=batch.events[1::2])
        case "cursor_lost":
            return replace(batch, events=(), more=False, reset=True, spread_seconds=1)
    return batch
