"""Running totals turned into the calls of a hub that does not take running totals.

A `UsageReporter` says where each total stands. A hub without X4 (HiveHub wire 4.6) is told by calls that state absolute
totals, or that add. `CallSink` stands between: it takes the reports, keeps for each cell what the hub has been told,
and has every call bring its *account* (one row at the hub: a collection, a graph, the tokens of a tenant) up to where
its cells stand.

What makes it exact:

- A total is followed over the sources of its reporter. When the reporter begins a new source it counts from what was
  acknowledged, so a cell's total here is what was acknowledged before and the value of the line.
- Only what the hub is known to hold, and what was parked, is *told*. An increment whose outcome is unknown is pending:
  frozen, never rebuilt, and nothing else of its account is sent until its fate is known.
- A reporter that is not known here although it has been acknowledged before is answered with a conflict. It goes on in
  a new source, from its last acknowledged totals; what a kept delivery holds of it is found again by its writer.
- A counter's cell is dropped when its period began `HORIZON_US` ago. A line of such a period is refused as closed, so
  that the reporter books the rest of it in the open period: a total is never followed from the middle.
- The strategy of a call is pinned. Another one needs an operator, because both would count.

Source: HiveHub wire 4.1, 4.6, 4.7; quotas_and_usage 5.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from hivetenancy.clock import DAY_US, SECOND_US, Clock
from hivetenancy.errors import (
    HubContractError,
    HubRefusedError,
    HubUnavailableError,
    InvalidNameError,
    StoreUnavailableError,
)
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.sources import (
    RejectCode,
    RejectedLine,
    SourceConflict,
    SourcePart,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
    UsageSink,
)

from .kept import Delivery
from .sinks_state import SinkState, Strategy

_log: Final = logging.getLogger("hivetenancy.usage")

HORIZON_US: Final = 40 * DAY_US
"""How long a counter's cell is kept after its period began: the longest period, and a week for late reports."""

USAGE: Final = "usage"
"""What is pinned for usage as a whole: `CALLS`, or ``Strategy.CUMULATIVE``."""

CALLS: Final = "calls"

ALARMS_MAX: Final = 1000
"""How many alarms are kept, the latest."""

TENANTS_AT_ONCE: Final = 8
"""Tenants whose calls are under way together; the pool of connections is shared with everything else."""

UPKEEP_AT_ONCE: Final = 1000
"""Accounts that one `CallSink.upkeep` looks after, at most."""


# --- cells and accounts ----------------------------------------------------------------------------------------------

CellId: TypeAlias = tuple[str, Dimension, UsageKind, int | None, str | None]
"""Writer, dimension, kind, start of the period, reason; within an account."""


class Cell:
    """One running total of one reporter.

    Attributes:
        offset: What the reporter had acknowledged in its earlier sources.
        value: What its present source says.
        acked: The total as it was acknowledged last.
        told: What of the total the hub holds, or is parked.
        parked: What of *told* nobody knows the fate of.
    """

    __slots__ = ("acked", "field", "id", "offset", "parked", "told", "value")

    def __init__(self, id: CellId, field: str) -> None:  # noqa: A002 - what it is
        self.id = id
        self.field = field
        self.offset = self.value = self.acked = self.told = self.parked = 0

    @property
    def total(self) -> int:
        """Everything its reporter ever counted in it."""
        return self.offset + self.value

    @property
    def period_us(self) -> int | None:
        """Start of its period; ``None`` for a gauge."""
        return self.id[3]


@dataclass(slots=True)
class Account:
    """One row at the hub, and the cells that add up to it.

    Attributes:
        tenant: Whose it is.
        resource: What it is of; ``None``: of the tenant as a whole.
        cells: By id.
        folded: By field, what cells that were dropped left behind, as `UsageCall.fold` says.
        scratch: What the call keeps about it.
        pending: Whether a call about it is under way with an unknown outcome.
    """

    tenant: TenantId
    resource: str | None
    cells: dict[CellId, Cell] = field(default_factory=dict)
    folded: dict[str, int] = field(default_factory=dict)
    scratch: object = None
    pending: bool = False

    def cell(self, id: CellId, field: str) -> Cell:  # noqa: A002 - what it is
        """Return a cell, made if need be."""
        found = self.cells.get(id)
        if found is None:
            found = self.cells[id] = Cell(id, field)
        return found


Place: TypeAlias = tuple[str, TenantId, str | None]
"""Of an account: the call's name, tenant, resource."""

Verdict: TypeAlias = RejectCode | HubUnavailableError | None
"""How bringing an account up to date ended: done, refused (``BUSY``: for now), or the hub is out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkAlarm:
    """An amount that no retry can settle: nobody knows whether the hub counted it, and it is not sent again.

    Attributes:
        call: Which call it was.
        tenant_id: Whose usage.
        resource: Of which resource, if of one.
        amounts: What was to be added, by the call's field.
        why: Why its fate cannot be told.
        at_us: Wall microseconds.
    """

    call: str
    tenant_id: TenantId
    resource: str | None
    amounts: Mapping[str, int]
    why: str
    at_us: int


class Alarms:
    """What was given up. One for a sink and its calls; made by hand only where the calls are.

    Args:
        clock: Dates the alarms.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: deque[SinkAlarm] = deque(maxlen=ALARMS_MAX)
        self._parked: dict[Place, dict[str, int]] = {}

    @property
    def latest(self) -> tuple[SinkAlarm, ...]:
        """The latest alarms, oldest first."""
        return tuple(self._latest)

    @property
    def parked(self) -> Mapping[Place, Mapping[str, int]]:
        """By call, tenant and resource: the amounts by field whose fate cannot be told. They are not sent again."""
        return MappingProxyType({place: dict(amounts) for place, amounts in self._parked.items()})

    def park(self, call: str, account: Account, amounts: Mapping[str, int], why: str) -> None:
        """Give an amount up; it is logged once."""
        alarm = SinkAlarm(
            call=call,
            tenant_id=account.tenant,
            resource=account.resource,
            amounts=MappingProxyType(dict(amounts)),
            why=why,
            at_us=self._clock.now()[1],
        )
        self._latest.append(alarm)
        sums = self._parked.setdefault((call, account.tenant, account.resource), {})
        for name, amount in amounts.items():
            sums[name] = sums.get(name, 0) + amount
        _log.error("usage parked: %s", alarm)


class UsageCall(Protocol):
    """One call of the wire that takes usage, and the strategy it is used with."""

    @property
    def name(self) -> str:
        """As it is pinned, such as ``nexus.update_usage``."""
        ...

    @property
    def strategy(self) -> Strategy:
        """How outcomes are handled."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether nothing else that is read back may be sent for a tenant while an outcome is unknown."""
        ...

    def field(self, line: UsageLine) -> str | None:
        """Return the field that *line* belongs in; ``None``: the call cannot say it."""
        ...

    async def bring(self, account: Account) -> Verdict:
        """Have the hub hold what the cells of *account* add up to. Never raises what the hub can cause."""
        ...

    def fold(self, cell: Cell) -> int:
        """Return what is to stay in the account of a cell that is dropped."""
        ...

    def due(self, account: Account, now_us: int) -> bool:
        """Whether the account wants looking after at the monotonic time *now_us* though no total changed."""
        ...

    def adopt(self, delivery: Delivery, account: Callable[[TenantId, str | None], Account]) -> str | None:
        """Take over a kept delivery of this call; return its writer, or ``None`` where it is another call's."""
        ...

    def inherited(self) -> Iterable[tuple[TenantId, str | None]]:
        """Return tenant and resource of what an earlier process told that may not have arrived."""
        ...

    def debts(self, account: Account) -> Mapping[str, int]:
        """Return by field by how much the hub holds more than it should, which this call cannot take back."""
        ...


# --- outcomes --------------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What is known of a call that was made."""

    DONE = "done"
    NO_EFFECT = "no effect"
    REFUSED = "refused"
    UNKNOWN = "unknown"


_REFUSALS: Final = {404: RejectCode.UNKNOWN_USER, 409: RejectCode.BUSY, 429: RejectCode.BUSY}
"""What a refusal means for a line. 404 is said alike of an unknown tenant, an unknown resource and somebody else's."""


async def attempt(call: Awaitable[object]) -> tuple[Outcome, Verdict]:
    """Make a call; return what is known of it, and what to say of its lines.

    A reply outside the wire leaves the outcome unknown: something happened, and nobody can say what.
    """
    try:
        await call
    except HubUnavailableError as error:
        return (Outcome.UNKNOWN if error.outcome_unknown else Outcome.NO_EFFECT), error
    except HubContractError as error:
        return Outcome.UNKNOWN, HubUnavailableError(f"the outcome is unknown: {error}")
    except InvalidNameError:
        return Outcome.REFUSED, RejectCode.OUT_OF_RANGE  # the client did not even send it
    except HubRefusedError as error:
        return Outcome.REFUSED, _REFUSALS.get(error.status, RejectCode.OUT_OF_RANGE)
    return Outcome.DONE, None


# --- the sink --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Writer:
    """What is known of one reporter."""

    source: str | None = None
    sequence: int = 0
    last: UsageReport | None = None
    reply: UsageReply | None = None
    cells: list[tuple[Account, Cell]] = field(default_factory=list)


class CallSink:
    """A `UsageSink` over the calls of today's wire.

    It must live as long as the totals it is told of: a reporter may stop and start before it, and so may the connection
    behind it.

    Args:
        calls: The calls, each with its strategy. A line goes to the first that can say it.
        clock: For the horizon and for ages.
        state: Where strategies are pinned and deliveries are kept; that of the calls.
        alarms: Those of the calls.

    Raises:
        ConfigurationError: A call was used with another strategy before; the message names both.

    Concurrency:
        For one event loop at a time. One report at a time; within it tenants go side by side, and the calls of one
        tenant one after the other.
    """

    def __init__(self, calls: Sequence[UsageCall], *, clock: Clock, state: SinkState, alarms: Alarms) -> None:
        self._calls = {call.name: call for call in calls}
        self._clock = clock
        self._accounts: dict[Place, Account] = {}
        self._writers: dict[str, _Writer] = {}
        self._open: dict[TenantId, dict[Place, Account]] = {}
        self._unsaid: set[tuple[Dimension, bool]] = set()
        self._horizon_us = self._swept_us = clock.now()[1] - HORIZON_US
        self._one: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._alarms = alarms
        self._strange = 0
        self._pins = [state.pin(USAGE, CALLS), *(state.pin(call.name, call.strategy) for call in calls)]
        for delivery in state.deliveries():
            self._adopt(delivery)
        self._inherited = {(call.name, *whose): None for call in calls for whose in call.inherited()}

    def _adopt(self, delivery: Delivery) -> None:
        for call in self._calls.values():
            place: list[Place] = []

            def account(
                tenant: TenantId, resource: str | None, name: str = call.name, to: list[Place] = place
            ) -> Account:
                to.append((name, tenant, resource))
                return self._account(to[-1])

            writer = call.adopt(delivery, account)
            if writer is not None:
                known = self._writers.setdefault(writer, _Writer())
                found = self._accounts[place[-1]]
                known.cells.extend((found, cell) for id_, cell in found.cells.items() if id_[0] == writer)
                self._open.setdefault(found.tenant, {})[place[-1]] = found
                return
        self._strange += 1

    def _account(self, place: Place) -> Account:
        found = self._accounts.get(place)
        if found is None:
            found = self._accounts[place] = Account(tenant=place[1], resource=place[2])
        return found

    # --- what can be read --------------------------------------------------------------------------------------------

    @property
    def alarms(self) -> tuple[SinkAlarm, ...]:
        """The latest alarms, oldest first."""
        return self._alarms.latest

    @property
    def parked(self) -> Mapping[Place, Mapping[str, int]]:
        """What was given up, as `Alarms.parked`."""
        return self._alarms.parked

    @property
    def debts(self) -> Mapping[Place, Mapping[str, int]]:
        """By call, tenant and resource: by how much the hub holds too much, and can only be let to catch up."""
        found = {place: self._calls[place[0]].debts(account) for place, account in self._accounts.items()}
        return MappingProxyType({place: debts for place, debts in found.items() if debts})

    @property
    def pending(self) -> int:
        """How many accounts wait for the outcome of a call, or for `upkeep` after a restart."""
        return len(self._inherited) + sum(len(accounts) for accounts in self._open.values())

    def confirmed(self, tenant: TenantId, dimension: Dimension, resource: str | None) -> int:
        """Return what of our running total of a cell the hub is known to hold; of a counter, in its latest period.

        Only of reporters that are there: what an earlier process left under way is in nobody's total any more.
        """
        cells = [
            cell
            for name in self._calls
            if (account := self._accounts.get((name, tenant, resource))) is not None
            for cell in account.cells.values()
            if cell.id[1] == dimension and self._writers[cell.id[0]].source is not None
        ]
        latest = max((cell.period_us for cell in cells if cell.period_us is not None), default=None)
        return sum(cell.told - cell.parked for cell in cells if cell.period_us in (None, latest))

    def parts(self) -> tuple[SourcePart, ...]:
        """Return how each call is doing, for health."""
        debts = self.debts
        found = [self._part(call, debts) for call in self._calls.values()]
        if self._strange:
            why = f"{self._strange} kept deliveries belong to calls that are not used any more"
            found.append(SourcePart(name="hub usage", ok=False, why=why))
        return tuple(found)

    def _part(self, call: UsageCall, debts: Mapping[Place, object]) -> SourcePart:
        parked = sum(place[0] == call.name for place in self._alarms.parked)
        owing = sum(place[0] == call.name for place in debts)
        waiting = sum(place[0] == call.name for accounts in self._open.values() for place in accounts)
        why = [f"reported as {call.strategy}"]
        why += [f"{waiting} calls have an unknown outcome"] if waiting else []
        why += [f"amounts of {parked} accounts are parked: see the log"] if parked else []
        why += [f"the hub holds too much for {owing} accounts, until they grow again"] if owing else []
        return SourcePart(name=f"hub usage {call.name}", ok=not parked, why="; ".join(why))

    @property
    def keyed(self) -> bool:
        """Whether anything is repeated under an idempotency key, which a hub that knows no keys would count twice."""
        return any(call.strategy is Strategy.IDEMPOTENCY_KEY for call in self._calls.values())

    def _turn(self) -> asyncio.Lock:
        """Return the lock of the running loop: whoever reports may be started again in another one."""
        loop = asyncio.get_running_loop()
        if self._one is None or self._one[0] is not loop:
            self._one = loop, asyncio.Lock()
        return self._one[1]

    # --- reports -----------------------------------------------------------------------------------------------------

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Have the hub hold the totals of *report*.

        Returns:
            The receipt. Lines whose outcome is pending are rejected as ``busy`` and come again; lines that the hub will
            never take are rejected for good. A conflict where the reporter is not known here any more.

        Raises:
            HubUnavailableError: Not one line could be settled because the hub is out of reach.
        """
        async with self._turn():
            writer = self._writers.setdefault(report.writer, _Writer())
            if writer.source == report.source and writer.last == report and writer.reply is not None:
                return writer.reply
            follows = writer.sequence if writer.source == report.source else 0
            if report.previous_sequence != follows:
                # Above what the reporter knows acknowledged, so that it takes its source for lost and not us.
                return SourceConflict(last_sequence=max(report.sequence, writer.sequence))
            if writer.source != report.source:
                self._switch(writer, report.source)
            await self._pinned()
            self._sweep()
            reply = await self._take(writer, report)
            writer.sequence, writer.last, writer.reply = report.sequence, report, reply
            return reply

    async def _pinned(self) -> None:
        """Wait until it is on disk how things are reported; only then may anything be."""
        try:
            while self._pins:
                await self._pins[-1]
                self._pins.pop()
        except StoreUnavailableError as error:
            raise later(f"it cannot be kept how usage is reported, so none is: {error}") from error

    def _switch(self, writer: _Writer, source: str) -> None:
        """Follow a reporter into its new source, in which it counts from what was acknowledged."""
        writer.source, writer.sequence, writer.last, writer.reply = source, 0, None, None
        for _, cell in writer.cells:
            cell.offset, cell.value = cell.acked, cell.total - cell.acked

    def _sweep(self) -> None:
        """Drop counters of long ago. The horizon never goes back, whatever the wall clock does."""
        self._horizon_us = max(self._horizon_us, self._clock.now()[1] - HORIZON_US)
        if self._horizon_us - self._swept_us < DAY_US:
            return
        self._swept_us = self._horizon_us
        for place, account in self._accounts.items():
            old = [cell for cell in account.cells.values() if self._over(cell.period_us)]
            for cell in [] if account.pending else old:
                del account.cells[cell.id]
                left = self._calls[place[0]].fold(cell)
                account.folded[cell.field] = account.folded.get(cell.field, 0) + left
        for writer in self._writers.values():
            writer.cells = [(account, cell) for account, cell in writer.cells if cell.id in account.cells]

    def _over(self, period_us: int | None) -> bool:
        return period_us is not None and period_us < self._horizon_us

    async def _take(self, writer: _Writer, report: UsageReport) -> UsageReply:
        rejected: dict[int, RejectCode] = {}
        lines: dict[Place, list[tuple[int, Cell]]] = {}
        for index, line in enumerate(report.lines):
            found = self._place(report.writer, writer, line)
            if isinstance(found, RejectCode):
                rejected[index] = found
            else:
                lines.setdefault(found[0], []).append((index, found[1]))
        verdicts = await self._bring({place: self._accounts[place] for place in lines})
        trouble: HubUnavailableError | None = None
        settled = len(rejected)
        for place, named in lines.items():
            verdict = verdicts[place]
            for index, cell in named:
                if verdict is None:
                    cell.acked = cell.total
                else:
                    rejected[index] = verdict if isinstance(verdict, RejectCode) else RejectCode.BUSY
            if isinstance(verdict, HubUnavailableError):
                trouble = verdict
            else:
                settled += len(named)
        if trouble is not None and not settled:
            raise trouble
        return UsageReply(last_sequence=report.sequence, rejected=tuple(map(_rejected, sorted(rejected.items()))))

    def _place(self, name: str, writer: _Writer, line: UsageLine) -> tuple[Place, Cell] | RejectCode:
        """Find where a line belongs, and take in what it says."""
        if line.kind is UsageKind.LEVEL:
            return RejectCode.KIND_MISMATCH  # no call of today's wire knows a term
        for call in self._calls.values():
            said = call.field(line)
            if said is not None:
                break
        else:
            return self._cannot_say(line)
        place = (call.name, line.tenant_id, line.resource)
        id_ = (name, line.dimension, line.kind, line.period_start_us, line.reason)
        account = self._account(place)
        if id_ not in account.cells:
            if self._over(line.period_start_us):
                return RejectCode.PERIOD_CLOSED
            writer.cells.append((account, account.cell(id_, said)))
        cell = account.cells[id_]
        cell.value = line.value
        return place, cell

    def _cannot_say(self, line: UsageLine) -> RejectCode:
        what = (line.dimension, line.resource is not None)
        if what not in self._unsaid and len(self._unsaid) < ALARMS_MAX:
            self._unsaid.add(what)
            which = "of a resource" if what[1] else "of a tenant as a whole"
            _log.error("HiveHub has no call that takes %r %s: such usage is not reported", line.dimension, which)
        return RejectCode.UNKNOWN_DIMENSION

    async def upkeep(self) -> int:
        """Look after what no report mentions: calls whose outcome is unknown, totals to be stated again.

        To be called every minute or so, and first soon after the start: what an earlier process stated last may not
        have arrived. What the hub does not answer is left for the next time.

        Returns:
            How many accounts still wait.
        """
        async with self._turn():
            now_us = self._clock.now()[0]
            due = {
                place: account
                for place, account in self._accounts.items()
                if account.pending or self._calls[place[0]].due(account, now_us)
            }
            due |= {place: self._account(place) for place in islice(self._inherited, UPKEEP_AT_ONCE)}
            verdicts = await self._bring(dict(islice(due.items(), UPKEEP_AT_ONCE)))
            done = [place for place, verdict in verdicts.items() if not isinstance(verdict, HubUnavailableError)]
            for place in done:
                self._inherited.pop(place, None)
            return len(due) - len(done)

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _bring(self, accounts: Mapping[Place, Account]) -> dict[Place, Verdict]:
        """Bring accounts up to date, a bounded number of tenants side by side."""
        tenants: dict[TenantId, dict[Place, Account]] = {}
        for place, account in accounts.items():
            tenants.setdefault(account.tenant, {})[place] = account
        verdicts: dict[Place, Verdict] = {}
        room = asyncio.Semaphore(TENANTS_AT_ONCE)

        async def one(tenant: TenantId, named: dict[Place, Account]) -> None:
            async with room:
                verdicts.update(await self._bring_tenant(tenant, named))

        ended = await asyncio.gather(*(one(*item) for item in tenants.items()), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error
        return verdicts

    async def _bring_tenant(self, tenant: TenantId, named: Mapping[Place, Account]) -> dict[Place, Verdict]:
        """Bring the accounts of one tenant up to date, first those whose last outcome is unknown."""
        verdicts: dict[Place, Verdict] = {}
        for place, account in {**self._open.get(tenant, {}), **named}.items():
            call = self._calls[place[0]]
            waiting = self._open.get(tenant, {})
            if call.exclusive and any(other != place and self._calls[other[0]].exclusive for other in waiting):
                verdicts[place] = RejectCode.BUSY  # what it adds could not be told from what is being read back
                continue
            try:
                verdicts[place] = await call.bring(account)
            finally:
                if account.pending:
                    self._open.setdefault(tenant, {})[place] = account
                elif place in waiting:
                    del waiting[place]
        if tenant in self._open and not self._open[tenant]:
            del self._open[tenant]
        return verdicts


def _rejected(item: tuple[int, RejectCode]) -> RejectedLine:
    index, code = item
    passing = code in (RejectCode.BUSY, RejectCode.PERIOD_NOT_OPEN)
    return RejectedLine(index=index, code=code, permanent=not passing)


def later(why: str) -> HubUnavailableError:
    """Return the error of a call that is put off by us: certainly without effect."""
    return HubUnavailableError(why, retry_after_us=SECOND_US, outcome_unknown=False)


def field_of(line: UsageLine, fields: Mapping[Dimension, str], *, resource: bool) -> str | None:
    """Return the field that *fields* names for a line that has, or has not, a resource."""
    return fields.get(line.dimension) if (line.resource is not None) == resource else None


def sums(account: Account, amount: Callable[[Cell], int], fields: Iterable[str]) -> dict[str, int]:
    """Return by field what the cells of an account add up to, with what dropped ones left behind."""
    found = {name: account.folded.get(name, 0) for name in fields}
    for cell in account.cells.values():
        found[cell.field] += amount(cell)
    return found


if TYPE_CHECKING:
    _conforms: type[UsageSink] = CallSink
