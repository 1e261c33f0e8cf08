"""Running totals, and what of them the hub has acknowledged. Pure.

Nothing is ever reset. A *cell* (tenant, dimension, resource, calendar period) has one running total, and a report says
"the total is 17", never "3 more"; a report that is lost, repeated or late changes nothing, and what is counted while a
report is under way is in the next one. All that a success does is to move the acknowledged mark up to what that very
report said.

The rules of HiveHub wire 4.6, as they are kept here:

- One report is under way at a time. It is frozen: until its outcome is known, the same report is handed out again.
- ``sequence`` rises with each report of a source, ``previous_sequence`` is what was acknowledged last.
- A conflict with a ``last_sequence`` below what is known to be acknowledged: the hub lost history. Every total that is
  still held is sent again, from there on. Any other conflict: somebody else writes this source. A new source begins,
  counting from the last acknowledged totals, and there is an alarm.
- A line that is rejected for good is *parked*: its cell is no longer sent, there is an alarm, the rest moves on. A line
  that is rejected for the moment comes again in the next round, even should its total be back at what was acknowledged:
  a sink that turns totals into other calls may have begun to tell it.
- A counter whose period the hub has closed is *corrected*: what the hub lacks of it, and whatever is still counted for
  that period, is booked in the open period, as a total of its own that names the closed one. A correction whose period
  is closed in its turn moves on to the next; one that is refused for any other reason, or for a period that is open by
  our clock, is parked.

A counter's cell is dropped when its period has been over for the grace time and its total is acknowledged: until then
the hub could lose history and ask again. A gauge's cell stays, though its net be zero, for the same reason. Should a
dropped cell come back (a wall clock that was ahead and is set right), it is counted from zero in a new source: a total
that restarts inside a source would be taken for one that fell. What the present source still owes to a hub that lost
history goes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from hivetenancy.errors import HubContractError
from hivetenancy.ids import CellKey, Dimension, TenantId
from hivetenancy.plans import MAX_AMOUNT, QuotaKind
from hivetenancy.sources import (
    RejectCode,
    RejectedLine,
    SourceConflict,
    UsageKind,
    UsageLine,
    UsageReply,
    UsageReport,
)

LINES_MAX: Final = 1000
"""Most lines of a report (HiveHub wire 4.6)."""

ALARMS_MAX: Final = 1000
"""How many alarms are kept, the latest; each parked cell is kept besides."""

REPORTED: Final = {QuotaKind.COUNTER: UsageKind.COUNTER, QuotaKind.CONTRIBUTION: UsageKind.CONTRIBUTION}
"""The kinds that a running total is the truth of, and what a line calls them. A level is sent by whoever measures it,
and nothing here does; an ephemeral gauge ends with the process. Both are counted here for whoever reads them, and never
sent."""

Window: TypeAlias = tuple[int, int]
"""Start (inclusive) and end (exclusive) of a calendar period, in wall microseconds."""

OpenPeriod: TypeAlias = Callable[[CellKey, Window], tuple[Window, str]]
"""Given a cell and a period that the hub has closed: the period that is open now, and what a correction is to say."""

_Key: TypeAlias = tuple[TenantId, CellKey]
_Place: TypeAlias = tuple[TenantId, CellKey, str | None]
"""A cell's place in its period: tenant, cell, and for a correction its reason."""


class AlarmKind(StrEnum):
    """What an operator has to hear of."""

    PARKED = "parked"
    """The hub refused a cell for good; its amount is not at the hub, and it is no longer sent."""
    HISTORY_LOST = "history_lost"
    """The hub forgot what it had acknowledged; every total is sent again."""
    FOREIGN_WRITER = "foreign_writer"
    """Somebody else writes our source (a copied disk); a new source was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAlarm:
    """Something that no retry mends.

    Attributes:
        kind: What happened.
        source: The source it happened to.
        code: Why the line was refused; ``None`` for a conflict.
        tenant_id: Whose cell it is; ``None`` for a conflict.
        dimension: Of the cell.
        resource: Of the cell, if it has one.
        period_start_us: Of the cell, for a counter.
        reason: Of the correction, if the cell is one.
        missing: What the hub has not counted of the cell when it was parked. Where the hub lost history of a period
            that it has closed since: what it may have lost, at most.
    """

    kind: AlarmKind
    source: str
    code: RejectCode | None = None
    tenant_id: TenantId | None = None
    dimension: Dimension | None = None
    resource: str | None = None
    period_start_us: int | None = None
    reason: str | None = None
    missing: int | None = None


Flight: TypeAlias = "tuple[UsageReport, list[_Cell], list[int]]"
"""A report whose outcome is unknown, its cells, and their totals when it was made."""


class _Cell:
    """One running total.

    Attributes:
        total: Everything ever counted, over all sources of this process.
        acked: What of it the hub has acknowledged.
        base: What of it belongs to sources before the present one.
        queued: Whether it waits to be looked at for a report.
        again: Whether it must be sent even if unchanged, because it was refused for the moment.
        owed: Whether it must be sent even if unchanged, because the hub lost history.
        parked: Why the hub refused it for good, if it did.
        revived: Whether it may have been dropped before, and so must not be spoken of in the present source.
        reason: For a correction: which period it makes good.
        corrected_by: The correction that holds what the hub did not take of it, once its period was closed.
    """

    __slots__ = (
        *("acked", "again", "base", "corrected_by", "key", "kind", "owed", "parked"),
        *("queued", "reason", "revived", "total", "window"),
    )

    def __init__(self, key: _Key, window: Window | None, kind: QuotaKind, reason: str | None = None) -> None:
        self.key = key
        self.window = window
        self.kind = kind
        self.reason = reason
        self.total = self.acked = self.base = 0
        self.queued = kind not in REPORTED  # what is never sent is never queued either
        self.again = self.owed = self.revived = False
        self.parked: RejectCode | None = None
        self.corrected_by: _Cell | None = None

    @property
    def due(self) -> bool:
        """Whether the hub should hear of it."""
        return (self.total != self.acked or self.again or self.owed) and not self.closed

    @property
    def closed(self) -> bool:
        """Whether the hub takes nothing more of it."""
        return self.parked is not None or self.corrected_by is not None

    @property
    def last(self) -> _Cell:
        """The correction that holds now what the hub did not take of it; itself where there is none."""
        found = self
        while found.corrected_by is not None:
            found = found.corrected_by
        return found

    @property
    def value(self) -> int:
        """What of it belongs to the present source."""
        return self.total - self.base

    @property
    def period_start_us(self) -> int | None:
        """Start of its period; ``None`` for a gauge."""
        return None if self.window is None else self.window[0]

    def line(self) -> UsageLine:
        """What a report says of it."""
        tenant, cell = self.key
        dimension, resource = (cell, None) if isinstance(cell, str) else cell
        return UsageLine(
            tenant_id=tenant,
            dimension=dimension,
            resource=resource,
            kind=REPORTED[self.kind] if self.reason is None else UsageKind.CORRECTION,
            value=self.value,
            period_start_us=self.period_start_us,
            reason=self.reason,
        )

    def alarm(self, source: str, kind: AlarmKind = AlarmKind.PARKED) -> UsageAlarm:
        """What an operator hears of it, once it is parked."""
        tenant, cell = self.key
        dimension, resource = (cell, None) if isinstance(cell, str) else cell
        return UsageAlarm(
            kind=kind,
            source=source,
            code=self.parked,
            reason=self.reason,
            tenant_id=tenant,
            dimension=dimension,
            resource=resource,
            period_start_us=self.period_start_us,
            missing=self.total - self.acked,
        )


class Totals:
    """The running totals of one process, source by source.

    Args:
        source: Id of the first source, 32 hex digits.
        writer: Random for each start of a process.

    Concurrency:
        None: the engine makes each call one step.
    """

    def __init__(self, *, source: str, writer: str) -> None:
        self._sources = [source]
        self._writer = writer
        self._sequence = 0
        self._acked_sequence = 0
        self._closed = False  # by a final report
        self._owing = 0  # how many cells are owed
        self._dropped_until = 0  # end of the latest period that was dropped
        self._books: dict[Window | None, dict[_Place, _Cell]] = {}
        self._corrected: dict[Window, dict[_Key, int]] = {}  # what is booked in each period by way of correction
        self._changed: deque[_Cell] = deque()
        self._round: deque[_Cell] = deque()
        self._later: list[_Cell] = []
        self._flight: Flight | None = None
        self._parked: list[_Cell] = []
        self._alarms: deque[UsageAlarm] = deque(maxlen=ALARMS_MAX)

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources of this process, the present one last."""
        return tuple(self._sources)

    @property
    def alarms(self) -> tuple[UsageAlarm, ...]:
        """The latest alarms, oldest first."""
        return tuple(self._alarms)

    @property
    def parked(self) -> tuple[UsageAlarm, ...]:
        """The cells that the hub refused for good, each with what is missing of it at the hub by now."""
        return tuple(cell.alarm(self._sources[-1]) for cell in self._parked)

    @property
    def changed(self) -> int:
        """How many cells have changed since the round began."""
        return len(self._changed)

    @property
    def unreported(self) -> int:
        """How many cells the hub has yet to hear of, at most; a net change of zero counts until it is looked at."""
        flight = 0 if self._flight is None else len(self._flight[1])
        return len(self._changed) + len(self._round) + len(self._later) + flight

    def add(self, window: Window | None, tenant: TenantId, cell: CellKey, kind: QuotaKind, amount: int) -> None:
        """Count *amount*, already validated.

        Args:
            window: The counter's period; ``None`` for a gauge.
            tenant: Whose use it was.
            cell: The dimension, or the dimension of a resource.
            kind: The kind of the dimension.
            amount: Added to the total.
        """
        found = self._find(window, (tenant, cell), kind)
        found.total += amount
        if found.corrected_by is not None:
            found = found.last
            self._correct(found, amount)
        if not found.queued:
            found.queued = True
            self._changed.append(found)

    def _find(self, window: Window | None, key: _Key, kind: QuotaKind, reason: str | None = None) -> _Cell:
        """Return a cell, made if need be."""
        book = self._books.get(window)
        if book is None:
            book = self._books[window] = {}
        place = (*key, reason)
        found = book.get(place)
        if found is None:
            found = book[place] = _Cell(key, window, kind, reason)
            if window is not None and window[1] <= self._dropped_until:
                found.revived = True
        return found

    def _correct(self, correction: _Cell, amount: int) -> None:
        """Add *amount* to a correction, and to what its period holds by way of correction."""
        assert correction.window is not None
        correction.total += amount
        booked = self._corrected.setdefault(correction.window, {})
        booked[correction.key] = booked.get(correction.key, 0) + amount

    def total(self, window: Window | None, tenant: TenantId, cell: CellKey) -> int:
        """Return everything that was ever counted in a cell, reported or not; 0 where the cell is gone or never was.

        What is booked in the period by way of correction is part of it, as it is of what the hub says is used. The
        closed period goes on to show it as well: it was used then.
        """
        found = self._books.get(window, {}).get((tenant, cell, None))
        counted = 0 if found is None else found.total
        if window is not None and window in self._corrected:
            counted += self._corrected[window].get((tenant, cell), 0)
        return counted

    def begin_round(self) -> None:
        """Take in everything that has changed until now; `report` sends that, and later changes wait for a new round.

        Without a round, a flush would never end while requests keep coming.
        """
        self._round.extend(self._changed)
        self._round.extend(self._later)
        self._changed.clear()
        self._later.clear()

    def report(self, *, fresh: str, final: bool = False) -> UsageReport | None:
        """Return the report to send next: the one whose outcome is unknown, or the next of this round.

        Args:
            fresh: Id for a new source, used if the present one was closed by a final report.
            final: Close the source with this report, should nothing be left to say; what is counted later belongs to
                a new source.

        Returns:
            The report, at most `LINES_MAX` lines; ``None`` when the round has been sent, and the source is new, closed
            or not to be closed.
        """
        if self._flight is not None:
            return self._flight[0]
        cells = self._next_cells()
        quiet = not cells and not self._changed and not self._later
        closing = final and quiet and self._sequence > 0 and not self._closed
        if not cells and not closing:
            return None
        if self._closed or any(cell.revived for cell in cells):
            self._begin_source(fresh)
        self._sequence += 1
        report = UsageReport(
            source=self._sources[-1],
            writer=self._writer,
            sequence=self._sequence,
            previous_sequence=self._acked_sequence,
            lines=tuple(cell.line() for cell in cells),
            final=closing,
        )
        self._flight = report, cells, [cell.total for cell in cells]
        return report

    def _next_cells(self) -> list[_Cell]:
        """Take from the round the cells of one report."""
        cells: list[_Cell] = []
        while self._round and len(cells) < LINES_MAX:
            cell = self._round.popleft()
            if cell.revived and self._owing:
                self._later.append(cell)
                continue
            cell.queued = False
            if not cell.due:
                continue
            if abs(cell.value) >= MAX_AMOUNT:
                self._park(cell, RejectCode.OUT_OF_RANGE)  # the hub must refuse it; ours is not even well-formed
            else:
                cells.append(cell)
        return cells

    def _paid(self, cell: _Cell) -> None:
        if cell.owed:
            cell.owed = False
            self._owing -= 1

    def settle(
        self,
        report: UsageReport,
        outcome: UsageReply | SourceConflict,
        *,
        fresh: str,
        open_period: OpenPeriod | None = None,
    ) -> int:
        """Take in what became of *report*.

        Args:
            report: What was sent; it must be the one under way.
            outcome: The hub's answer to it.
            fresh: Id for a new source, used if somebody else writes the present one.
            open_period: Tells where to book what belongs to a closed period; ``None``: nowhere, it is parked.

        Returns:
            How many cells are acknowledged now.

        Raises:
            HubContractError: The answer cannot be one to this report; nothing of it is used, and the report stays under
                way.
            ValueError: *report* is not under way.
        """
        flight = self._flight
        if flight is None or flight[0] is not report:
            raise ValueError("this report is not under way")
        if isinstance(outcome, SourceConflict):
            self._conflict(flight, outcome, fresh)
            return 0
        return self._acknowledge(flight, outcome, open_period)

    def _acknowledge(self, flight: Flight, reply: UsageReply, open_period: OpenPeriod | None = None) -> int:
        report, cells, totals = flight
        rejected = _rejections(report, reply)
        self._flight = None
        self._acked_sequence = report.sequence
        self._closed = report.final
        for index, (cell, total) in enumerate(zip(cells, totals, strict=True)):
            rejection = rejected.get(index)
            if rejection is None:
                cell.acked, cell.again = total, False
                self._paid(cell)
            elif rejection.permanent:
                if rejection.code is not RejectCode.PERIOD_CLOSED or not self._move(cell, open_period):
                    self._park(cell, rejection.code)
            else:
                cell.again = True
                if not cell.queued:  # if it changed meanwhile it will be looked at anyway
                    cell.queued = True
                    self._later.append(cell)
        return len(cells) - len(rejected)

    def _move(self, cell: _Cell, open_period: OpenPeriod | None) -> bool:
        """Book in the open period what the hub lacks of *cell*, whose period it has closed; ``False``: there is none.

        The correction joins the present round, so that the flush that met the refusal sends it, the last one included.
        """
        if open_period is None or cell.window is None:
            return False
        window, reason = open_period(cell.key[1], cell.window)
        if cell.reason is not None and window[0] <= cell.window[0]:
            return False  # the hub will not take it there, and there is no later place: trying again would never end
        if cell.owed and cell.acked != cell.base:
            self._alarms.append(
                replace(cell.alarm(self._sources[-1], AlarmKind.HISTORY_LOST), missing=cell.acked - cell.base)
            )
        self._paid(cell)
        lacking = cell.total - cell.acked
        correction = self._find(window, cell.key, cell.kind, cell.reason or reason).last
        cell.corrected_by = correction
        if cell.reason is not None:
            self._correct(cell, -lacking)  # it is no longer booked there
        self._correct(correction, lacking)
        self._requeue([correction])
        return True

    def _conflict(self, flight: Flight, conflict: SourceConflict, fresh: str) -> None:
        report, cells, _ = flight
        last = conflict.last_sequence
        if last == report.previous_sequence:
            raise HubContractError("the hub refuses a report that follows what it stored last")
        if len(self._sources) > 1 and not self._acked_sequence:
            # Nobody else can know a source that was drawn a moment ago. Believing this would begin source after source.
            raise HubContractError("the hub claims that a new source has been written before")
        self._flight = None
        if last < self._acked_sequence:
            self._alarm(AlarmKind.HISTORY_LOST)
            self._acked_sequence = last
            self._owe_everything()
        else:
            self._alarm(AlarmKind.FOREIGN_WRITER)
            self._begin_source(fresh)
            self._requeue(cells)

    def _begin_source(self, fresh: str) -> None:
        self._sources.append(fresh)
        self._sequence = self._acked_sequence = self._owing = 0
        self._closed = False
        for book in self._books.values():
            for cell in book.values():
                cell.base = cell.acked
                cell.owed = cell.revived = False

    def _owe_everything(self) -> None:
        """Have every total sent again that the present source may speak of and the hub did not refuse."""
        cells = [cell for book in self._books.values() for cell in book.values()]
        for cell in cells:
            cell.owed = cell.kind in REPORTED and not cell.revived and not cell.closed
        self._owing = sum(cell.owed for cell in cells)
        self._requeue(cell for cell in cells if cell.owed)

    def _requeue(self, cells: Iterable[_Cell]) -> None:
        """Put cells into the present round, so that the flush that met the conflict goes on with them."""
        for cell in cells:
            if not cell.queued and not cell.closed:
                cell.queued = True
                self._round.append(cell)

    def _park(self, cell: _Cell, code: RejectCode) -> None:
        cell.parked = code
        self._paid(cell)
        self._parked.append(cell)
        self._alarms.append(cell.alarm(self._sources[-1]))

    def _alarm(self, kind: AlarmKind) -> None:
        self._alarms.append(UsageAlarm(kind=kind, source=self._sources[-1]))

    def drop_closed(self, before_us: int) -> int:
        """Drop the counters of periods that ended before *before_us* and owe the hub nothing; return how many.

        Args:
            before_us: Wall microseconds: the present, less the time for which the hub keeps a period open.

        A parked cell is kept: its amount is nowhere else. So is one that was closed, for as long as its correction:
        what still comes in for its period finds the way.
        """
        dropped = 0
        for window in [window for window in self._books if window is not None and window[1] < before_us]:
            book = self._books[window]
            kept = {place: cell for place, cell in book.items() if _kept(cell, before_us)}
            if len(kept) < len(book):
                self._dropped_until = max(self._dropped_until, window[1])
            dropped += len(book) - len(kept)
            if kept:
                self._books[window] = kept
            else:
                del self._books[window]
                self._corrected.pop(window, None)
        return dropped


def _kept(cell: _Cell, before_us: int) -> bool:
    """Whether a cell of a period that is long over is still of use."""
    last = cell.last
    young = last is not cell and last.window is not None and last.window[1] >= before_us
    return young or last.due or last.queued or last.parked is not None


def _rejections(report: UsageReport, reply: UsageReply) -> dict[int, RejectedLine]:
    """Return the rejected lines of *report* by index.

    Raises:
        HubContractError: The reply is not to this report.
    """
    rejected = {line.index: line for line in reply.rejected}
    if reply.last_sequence != report.sequence:
        raise HubContractError(f"the hub answered sequence {reply.last_sequence} to sequence {report.sequence}")
    if len(rejected) != len(reply.rejected) or not all(0 <= index < len(report.lines) for index in rejected):
        raise HubContractError("the hub rejected a line twice, or one that was not sent")
    return rejected
