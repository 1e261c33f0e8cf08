"""Usage received: running totals for each source, applied once however often they are sent (HiveHub wire 4.6).

A report does not say what was added but where each total stands, and which report it follows. So a repeat changes
nothing whatever its age; a report that follows another one than the stored is a conflict and changes nothing either:
two writers hold one source, or this hub lost history. Totals of different sources are added; they are signed and
never clamped, since a delete may reach the hub before the write that it undoes.

A *level* is another matter: a measurement of the whole cell, of which the one with the highest *term* counts, and none
is added to another. Within its term the reporter measures again and again, so the source that holds a cell may replace
its own measurement; anybody else needs a higher term. A *correction* is added like a total, and counted for each reason
apart, since two closed periods may have to be made good in one open one.

The calls of today's wire book into the same totals, each under a name of its own that no source can have, so that
limits show what they counted and a source that a client names never holds any of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hivetenancy.ids import Dimension, TenantId
from hivetenancy.plans import MAX_AMOUNT
from hivetenancy.sources import RejectCode, RejectedLine, SourceConflict, UsageKind, UsageLine, UsageReply, UsageReport

MAX_LINES: Final = 1_000
"""Lines in one report (HiveHub wire 4.6)."""

MAX_REASONS: Final = 64
"""Reasons for which one source may correct one cell: what keeps them from filling the memory."""

MAX_REASON_BYTES: Final = 255

_PASSING: Final = frozenset({RejectCode.PERIOD_NOT_OPEN, RejectCode.BUSY})
_SOURCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)

Judge: TypeAlias = Callable[[UsageLine], RejectCode | None]
Cell: TypeAlias = tuple[str | None, int | None]
"""Resource and period start."""

_Place: TypeAlias = tuple[TenantId, Dimension]


@dataclass(slots=True)
class _Source:
    """What is known of one source: the last report it got through, and the receipt for it."""

    last: UsageReport
    reply: UsageReply


@dataclass(frozen=True, slots=True)
class _Level:
    """The measurement that counts for one cell."""

    term: int
    source: str
    value: int


@dataclass(slots=True)
class UsageBook:
    """Totals by tenant, dimension, cell and source.

    Concurrency:
        None of its own: the control plane's lock covers it.
    """

    _sources: dict[str, _Source] = field(default_factory=dict)
    _totals: dict[_Place, dict[Cell, dict[str, int]]] = field(default_factory=dict)
    _corrections: dict[_Place, dict[Cell, dict[tuple[str, str], int]]] = field(default_factory=dict)
    _levels: dict[_Place, dict[Cell, _Level]] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    def owner(self, source: str) -> str | None:
        """Whose *source* is; ``None``: nobody's in particular, or it never reported."""
        return self._owners.get(source)

    def claim(self, source: str, owner: str) -> None:
        """Let *source* belong to *owner* from now on, if it ever got a report through and is nobody's."""
        if source in self._sources:
            self._owners.setdefault(source, owner)

    def receive(self, report: UsageReport, judge: Judge) -> UsageReply | SourceConflict:
        """Apply *report*, or say what was said the first time, or refuse it whole.

        Args:
            report: What a source reports.
            judge: Says what is wrong with a line, ``None`` for nothing.

        Raises:
            ValueError: The report is malformed, which over HTTP would be a 400.
        """
        _check(report)
        known = self._sources.get(report.source)
        if known is None:
            if report.previous_sequence != 0:
                return SourceConflict(last_sequence=0)
        elif known.last.sequence == report.sequence and known.last == report:
            return known.reply
        elif known.last.final or known.last.sequence != report.previous_sequence:
            return SourceConflict(last_sequence=known.last.sequence)
        reply = UsageReply(last_sequence=report.sequence, rejected=tuple(self._apply(report, judge)))
        self._sources[report.source] = _Source(report, reply)
        return reply

    def _apply(self, report: UsageReport, judge: Judge) -> Iterator[RejectedLine]:
        seen: set[tuple[object, ...]] = set()
        for index, line in enumerate(report.lines):
            place = (line.tenant_id, line.dimension, line.resource, line.period_start_us, line.reason)
            code = RejectCode.DUPLICATE_LINE if place in seen else judge(line) or self._unfit(report.source, line)
            seen.add(place)
            if code is not None:
                yield RejectedLine(index=index, code=code, permanent=code not in _PASSING)
            else:
                self._put(report.source, line)

    def _put(self, source: str, line: UsageLine) -> None:
        place, cell = (line.tenant_id, line.dimension), (line.resource, line.period_start_us)
        if line.kind == UsageKind.LEVEL:
            self._levels.setdefault(place, {})[cell] = _Level(line.term or 0, source, line.value)
        elif line.kind == UsageKind.CORRECTION:
            corrected = self._corrections.setdefault(place, {}).setdefault(cell, {})
            corrected[source, line.reason or ""] = line.value
        else:
            self._totals.setdefault(place, {}).setdefault(cell, {})[source] = line.value

    def _unfit(self, source: str, line: UsageLine) -> RejectCode | None:
        """Judge a line by what is stored already: a counter never falls, a level needs a higher term."""
        place, cell = (line.tenant_id, line.dimension), (line.resource, line.period_start_us)
        if line.kind == UsageKind.COUNTER:
            before = self._totals.get(place, {}).get(cell, {}).get(source, 0)
            return RejectCode.REGRESSED if line.value < before else None
        if line.kind == UsageKind.LEVEL:
            known = self._levels.get(place, {}).get(cell)
            least = 0 if known is None else known.term if known.source == source else known.term + 1
            return RejectCode.REGRESSED if (line.term or 0) < least else None
        if line.kind == UsageKind.CORRECTION:
            mine = [reason for of, reason in self._corrections.get(place, {}).get(cell, {}) if of == source]
            return RejectCode.OUT_OF_RANGE if line.reason not in mine and len(mine) >= MAX_REASONS else None
        return None

    def book(
        self,
        call: str,
        tenant: TenantId,
        dimension: Dimension,
        resource: str | None,
        period_start_us: int | None,
        value: int,
    ) -> None:
        """Set what *call*, a name that no source can have, counted in one cell.

        Raises:
            ValueError: *value* is none that a total can have, or *call* is the name of a source.
        """
        if _SOURCE.fullmatch(call) is not None or not -MAX_AMOUNT < value < MAX_AMOUNT:
            raise ValueError(f"a total must be within 2**53, got {value}")
        self._totals.setdefault((tenant, dimension), {}).setdefault((resource, period_start_us), {})[call] = value

    def booked(
        self, call: str, tenant: TenantId, dimension: Dimension, resource: str | None, period_start_us: int | None
    ) -> int:
        """What *call* counted in one cell."""
        return self._totals.get((tenant, dimension), {}).get((resource, period_start_us), {}).get(call, 0)

    def by_source(
        self, tenant: TenantId, dimension: Dimension, resource: str | None, period_start_us: int | None
    ) -> Mapping[str, int]:
        """What each source holds in one cell, corrections and the level that counts included."""
        place, cell = (tenant, dimension), (resource, period_start_us)
        totals = self._totals.get(place, {}).get(cell, {})
        corrected = self._corrections.get(place, {}).get(cell, {})
        level = self._levels.get(place, {}).get(cell)
        if not corrected and level is None:
            return totals
        found = Counter(totals)
        for (source, _reason), value in corrected.items():
            found[source] += value
        if level is not None:
            found[level.source] += level.value
        return found

    def total(
        self,
        tenant: TenantId,
        dimension: Dimension,
        resource: str | None,
        period_start_us: int | None,
        *,
        own: Container[str] = (),
    ) -> tuple[int, int]:
        """Return what all sources hold in one cell, and which part of that is of the sources *own*."""
        totals = self.by_source(tenant, dimension, resource, period_start_us)
        return sum(totals.values()), sum(value for source, value in totals.items() if source in own)

    def resources(self, tenant: TenantId, dimension: Dimension, period_start_us: int | None) -> list[str]:
        """The resources that hold something in this period, by name."""
        place = (tenant, dimension)
        cells = {*self._totals.get(place, {}), *self._corrections.get(place, {}), *self._levels.get(place, {})}
        return sorted(
            resource
            for resource, period in cells
            if resource is not None
            and period == period_start_us
            and any(self.by_source(tenant, dimension, resource, period).values())
        )

    def forget(self, tenant: TenantId) -> None:
        """Drop everything about *tenant*. Its sources stay known: they report for others too."""
        for book in (self._totals, self._corrections, self._levels):
            for place in [place for place in book if place[0] == tenant]:
                del book[place]

    def copy(self) -> UsageBook:
        """Return a book of its own with the same totals."""
        return UsageBook(
            dict(self._sources),
            {place: {cell: dict(of) for cell, of in cells.items()} for place, cells in self._totals.items()},
            {place: {cell: dict(of) for cell, of in cells.items()} for place, cells in self._corrections.items()},
            {place: dict(cells) for place, cells in self._levels.items()},
            dict(self._owners),
        )


def out_of_range(line: UsageLine) -> bool:
    """Whether the value, the term or the reason is none that a line of its kind can have."""
    least = 0 if line.kind in (UsageKind.COUNTER, UsageKind.LEVEL) else 1 - MAX_AMOUNT
    if type(line.value) is not int or not least <= line.value < MAX_AMOUNT:
        return True
    if line.term is not None and (type(line.term) is not int or not 0 <= line.term < MAX_AMOUNT):
        return True
    return line.reason is not None and not 1 <= len(line.reason.encode("utf-8", "replace")) <= MAX_REASON_BYTES


def _check(report: UsageReport) -> None:
    if _SOURCE.fullmatch(report.source) is None:
        raise ValueError("the source of a usage report is 32 lower-case hex digits, made with the totals")
    if not 0 <= report.previous_sequence < report.sequence:
        raise ValueError(
            f"a usage report's sequence ({report.sequence}) must be above its previous one ({report.previous_sequence})"
        )
    if len(report.lines) > MAX_LINES:
        raise ValueError(f"a usage report holds at most {MAX_LINES} lines, got {len(report.lines)}")
