"""Usage received: running totals for each source, applied once however often they are sent (HiveHub wire 4.6).

A report does not say what was added but where each total stands, and which report it follows. So a repeat changes
nothing whatever its age; a report that follows another one than the stored is a conflict and changes nothing either:
two writers hold one source, or this hub lost history. Totals of different sources are added; they are signed and
never clamped, since a delete may reach the hub before the write that it undoes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hivetenancy.ids import Dimension, TenantId
from hivetenancy.plans import MAX_AMOUNT, QuotaKind
from hivetenancy.sources import RejectCode, RejectedLine, SourceConflict, UsageLine, UsageReply, UsageReport

MAX_LINES: Final = 1_000
"""Lines in one report (HiveHub wire 4.6)."""

#: What a report may carry. A *level* needs the term of the reporter that measured it, which `UsageLine` does not have;
#: ephemeral gauges are gone before a report could arrive; static limits count nothing.
REPORTED: Final = frozenset({QuotaKind.COUNTER, QuotaKind.CONTRIBUTION})

_PASSING: Final = frozenset({RejectCode.PERIOD_NOT_OPEN, RejectCode.BUSY})
_SOURCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)

Judge: TypeAlias = Callable[[UsageLine], RejectCode | None]
Cell: TypeAlias = tuple[str | None, int | None]
"""Resource and period start."""


@dataclass(slots=True)
class _Source:
    """What is known of one source: the last report it got through, and the receipt for it."""

    last: UsageReport
    reply: UsageReply


@dataclass(slots=True)
class UsageBook:
    """Totals by tenant, dimension, cell and source.

    Concurrency:
        None of its own: the control plane's lock covers it.
    """

    _sources: dict[str, _Source] = field(default_factory=dict)
    _totals: dict[tuple[TenantId, Dimension], dict[Cell, dict[str, int]]] = field(default_factory=dict)

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
            place = (line.tenant_id, line.dimension, line.resource, line.period_start_us)
            code = RejectCode.DUPLICATE_LINE if place in seen else judge(line) or self._regressed(report.source, line)
            seen.add(place)
            if code is not None:
                yield RejectedLine(index=index, code=code, permanent=code not in _PASSING)
                continue
            cells = self._totals.setdefault((line.tenant_id, line.dimension), {})
            cells.setdefault((line.resource, line.period_start_us), {})[report.source] = line.value

    def _regressed(self, source: str, line: UsageLine) -> RejectCode | None:
        if line.kind is not QuotaKind.COUNTER:
            return None
        before = self.by_source(line.tenant_id, line.dimension, line.resource, line.period_start_us)
        return RejectCode.REGRESSED if line.value < before.get(source, 0) else None

    def by_source(
        self, tenant: TenantId, dimension: Dimension, resource: str | None, period_start_us: int | None
    ) -> Mapping[str, int]:
        """The total of each source in one cell."""
        return self._totals.get((tenant, dimension), {}).get((resource, period_start_us), {})

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
        cells = self._totals.get((tenant, dimension), {})
        return sorted(
            resource
            for (resource, period), totals in cells.items()
            if resource is not None and period == period_start_us and any(totals.values())
        )

    def forget(self, tenant: TenantId) -> None:
        """Drop everything about *tenant*. Its sources stay known: they report for others too."""
        for place in [place for place in self._totals if place[0] == tenant]:
            del self._totals[place]

    def copy(self) -> UsageBook:
        """Return a book of its own with the same totals."""
        totals = {place: {cell: dict(of) for cell, of in cells.items()} for place, cells in self._totals.items()}
        return UsageBook(dict(self._sources), totals)


def out_of_range(line: UsageLine) -> bool:
    """Whether the value is none that a total of its kind can have."""
    least = 0 if line.kind is QuotaKind.COUNTER else 1 - MAX_AMOUNT
    return type(line.value) is not int or not least <= line.value < MAX_AMOUNT


def _check(report: UsageReport) -> None:
    if _SOURCE.fullmatch(report.source) is None:
        raise ValueError("the source of a usage report is 32 lower-case hex digits, made with the totals")
    if not 0 <= report.previous_sequence < report.sequence:
        raise ValueError(
            f"a usage report's sequence ({report.sequence}) must be above its previous one ({report.previous_sequence})"
        )
    if len(report.lines) > MAX_LINES:
        raise ValueError(f"a usage report holds at most {MAX_LINES} lines, got {len(report.lines)}")
