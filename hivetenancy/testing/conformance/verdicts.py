"""What the suite comes to: a verdict for each operation, surface and oracle, and a reproduction for each leak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .runner import ORACLES, OUTSIDE, Counts, Finding, Place, Shown, Tally
from .subject import Operation, Subject
from .text import call, shown

CONTROL: Final = "control"
"""The oracle that asks whether anything was there to be seen."""
COLUMNS: Final = (*ORACLES, CONTROL)

TELLING_SHARE: Final = 0.3
"""How many of the answers to reads have to tell something: where nearly all are empty, equality says little."""


class Verdict(StrEnum):
    """What is known of one place."""

    PASS = "PASS"
    """It was tried, there was something to be seen, and nothing leaked."""
    LEAK = "LEAK"
    """There is a reproduction."""
    VACUOUS = "VACUOUS"
    """It was tried, but there was nothing to be seen, so that nothing could leak."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """It was not tried, the server crashed, or it answers the same calls now so, now otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One place of the matrix.

    Attributes:
        place: Operation, surface and oracle.
        verdict: What is known; ``None``: the oracle does not apply there.
        reason: Why, where it is not a plain pass.
    """

    place: Place
    verdict: Verdict | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A leak, and how to see it.

    Attributes:
        finding: What is wrong, and where.
        ids: The tenants' ids; a step names one by its place.
        clique: What is confusing about them.
        calls: The shortest program that shows it, as it ran; the last call is the one at which it shows.
        program_seed: The seed of the program in which it was found.
    """

    finding: Finding
    ids: tuple[str, ...]
    clique: str
    calls: tuple[Shown, ...]
    program_seed: str

    @property
    def sign(self) -> tuple[str, ...]:
        """The operations in order, wherever they are called: two leaks with one sign are most likely one."""
        return (self.finding.place.operation, *(shown.step.operation.name for shown in self.calls))

    @property
    def operations(self) -> frozenset[str]:
        """The operations without which it does not show."""
        return frozenset(shown.step.operation.name for shown in self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that could not be told.

    Attributes:
        place: Where.
        reason: Why not.
        finding: What was seen once; ``None``: nothing, the server was gone.
    """

    place: Place
    reason: str
    finding: Finding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is known of a subject.

    Attributes:
        subject: Its name.
        seeds: Which seeds were run.
        programs: How many programs ran.
        calls: How many calls all servers took.
        seconds: How long it took.
        cells: The matrix, by operation, surface and oracle.
        leaks: The leaks, in the order in which they were found.
        doubts: What could not be told.
        telling: The share of answers to reads that told something.
        refused_ids: Ids that the namespace manager refused, which is its right.
        stopped: Why the suite ended before its time; empty: it did not.
    """

    subject: str
    seeds: tuple[int, ...]
    programs: int
    calls: int
    seconds: float
    cells: tuple[Cell, ...]
    leaks: tuple[Leak, ...]
    doubts: tuple[Doubt, ...]
    telling: float
    refused_ids: tuple[str, ...]
    stopped: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst of all: a leak, then a doubt, then vacuity."""
        found = {cell.verdict for cell in self.cells}
        if self.leaks:
            return Verdict.LEAK
        for verdict in (Verdict.INCONCLUSIVE, Verdict.VACUOUS):
            if verdict in found:
                return verdict
        return Verdict.INCONCLUSIVE if self.stopped else Verdict.VACUOUS if self.is_vacuous else Verdict.PASS

    @property
    def groups(self) -> tuple[tuple[Leak, ...], ...]:
        """The leaks, those together that show in the same calls: on other surfaces, or to other oracles."""
        found: dict[tuple[str, ...], list[Leak]] = {}
        for leak in self.leaks:
            found.setdefault(leak.sign, []).append(leak)
        return tuple(tuple(group) for group in found.values())

    @property
    def is_vacuous(self) -> bool:
        """Whether too few answers told anything."""
        return self.telling < TELLING_SHARE

    @property
    def calls_per_second(self) -> int:
        """How many calls a second the suite made."""
        return round(self.calls / self.seconds) if self.seconds else 0

    def cell(self, operation: str, surface: str, oracle: str) -> Cell:
        """Return one cell.

        Raises:
            KeyError: There is none.
        """
        for cell in self.cells:
            if cell.place == (operation, surface, oracle):
                return cell
        raise KeyError((operation, surface, oracle))

    def __str__(self) -> str:
        return as_text(self)


def cells(subject: Subject, counts: Counts, leaks: Iterable[Leak], doubts: Iterable[Doubt]) -> tuple[Cell, ...]:
    """Return the matrix."""
    judge = _Judge(counts, {leak.finding.place for leak in leaks}, {doubt.place: doubt.reason for doubt in doubts})
    found = [
        judge.cell(operation, Place(operation.name, surface, oracle))
        for operation in subject.operations
        for surface in operation.surfaces or subject.surfaces
        for oracle in COLUMNS
    ]
    for source in sorted(counts.observed | {place.operation for place in judge.leaking if place.surface == OUTSIDE}):
        place = Place(source, OUTSIDE, "canary")
        found.append(Cell(place=place, verdict=Verdict.LEAK if place in judge.leaking else Verdict.PASS))
    return tuple(found)


class _Judge:
    def __init__(self, counts: Counts, leaking: set[Place], doubtful: dict[Place, str]) -> None:
        self._counts = counts
        self.leaking = leaking
        self._doubtful = doubtful

    def cell(self, operation: Operation, place: Place) -> Cell:
        """Return one cell: what was found there, or else whether it could have been."""
        if place in self.leaking:
            return Cell(place=place, verdict=Verdict.LEAK)
        if place in self._doubtful:
            return Cell(place=place, verdict=Verdict.INCONCLUSIVE, reason=self._doubtful[place])
        if not self._applies(operation, place.oracle):
            return Cell(place=place, verdict=None)
        tally = self._counts.tallies.get(place[:2])
        if tally is None or not tally.calls:
            return Cell(place=place, verdict=Verdict.INCONCLUSIVE, reason="never called")
        reason = _vacuous(operation, tally, place.oracle)
        return Cell(place=place, verdict=Verdict.VACUOUS if reason else Verdict.PASS, reason=reason)

    def _applies(self, operation: Operation, oracle: str) -> bool:
        if oracle == "handles":
            return bool(operation.handles or operation.gives)
        return oracle != "guard" or self._counts.guarded


def _vacuous(operation: Operation, tally: Tally, oracle: str) -> str:
    if not tally.succeeded:
        return f"never succeeded; the last answer was {tally.refusal!r}"[:300]
    if operation.effect == "read" and not tally.telling:
        return "every answer was empty"
    if operation.effect == "read" and operation.scoped and not tally.varied:
        return "every answer was the same, whatever was written; scoped=False says that it has to be"
    if oracle == "handles" and operation.handles and not tally.handles:
        return "never called with another tenant's handle"
    return ""


def telling_share(operations: Sequence[Operation], counts: Counts) -> float:
    """Return the share of answers to reads that told something; of all answers, where nothing reads."""
    reads = {operation.name for operation in operations if operation.effect == "read"}
    tallies = [tally for (name, _), tally in counts.tallies.items() if name in reads or not reads]
    calls = sum(tally.calls - tally.strange for tally in tallies)
    return sum(tally.telling for tally in tallies) / calls if calls else 0.0


# --- as text ----------------------------------------------------------------------------------------------------------

SIGNS: Final[Mapping[Verdict | None, str]] = {
    Verdict.PASS: "ok",
    Verdict.LEAK: "LEAK",
    Verdict.VACUOUS: "vacuous",
    Verdict.INCONCLUSIVE: "?",
    None: "-",
}


def place(cell_or_leak: Cell | Leak) -> str:
    """Return where something is: ``get on http``."""
    found = cell_or_leak.place if isinstance(cell_or_leak, Cell) else cell_or_leak.finding.place
    return (
        f"{found.operation}, {found.surface}" if found.surface == OUTSIDE else f"{found.operation} on {found.surface}"
    )


def as_text(report: Report) -> str:
    """Return a report for a terminal."""
    lines = [*_headline(report), "", *_matrix(report)]
    for number, group in enumerate(report.groups, start=1):
        lines += ["", *_leak(number, group)]
    reasons = _reasons(report)
    if reasons:
        lines += ["", "Not known:", *reasons]
    return "\n".join(lines)


def _headline(report: Report) -> list[str]:
    lines = [
        f"{report.verdict}: {report.subject}",
        f"{report.programs} programs, {report.calls:,} calls in {report.seconds:.1f} s "
        f"({report.calls_per_second:,} a second), {_seeds(report.seeds)}; "
        f"{report.telling:.0%} of the reads told something.",
    ]
    if report.is_vacuous:
        lines.append(f"That is less than {TELLING_SHARE:.0%}: where hardly anything is to be seen, nothing can leak.")
    if report.refused_ids:
        lines.append(refused(report))
    return [*lines, *([report.stopped] if report.stopped else [])]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def refused(report: Report) -> str:
    """Return what was not tried, as nobody can be a tenant by it; in ASCII, for two such ids may look alike."""
    return f"Not tried as tenant ids, because the names refuse them: {', '.join(map(ascii, report.refused_ids))}."


def rows(report: Report) -> dict[tuple[str, str], dict[str, Cell]]:
    """Return the matrix, by operation and surface, and then by oracle."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in report.cells:
        found.setdefault((cell.place.operation, cell.place.surface), {})[cell.place.oracle] = cell
    return found


def _matrix(report: Report) -> list[str]:
    table = rows(report)
    width = max((len(f"{operation} {surface}") for operation, surface in table), default=0) + 2
    lines = [" " * width + "".join(f"{column:>10}" for column in COLUMNS)]
    for (operation, surface), cells in table.items():
        signs = (SIGNS[cells[column].verdict] if column in cells else "-" for column in COLUMNS)
        lines.append(f"{f'{operation} {surface}':{width}}" + "".join(f"{sign:>10}" for sign in signs))
    return lines


def also(group: Sequence[Leak]) -> str:
    """Return the other places at which one leak shows."""
    others: dict[str, list[str]] = {}
    for leak in group[1:]:
        others.setdefault(place(leak), []).append(leak.finding.place.oracle)
    return "; ".join(f"{where} ({', '.join(oracles)})" for where, oracles in others.items())


def _leak(number: int, group: Sequence[Leak]) -> list[str]:
    """Return a leak as steps that one can follow."""
    leak = group[0]
    lines = [f"Leak {number}: {place(leak)} ({leak.finding.place.oracle}). {leak.finding.text}"]
    if leak.clique != "nothing":
        lines.append(f"  Seen with these tenant ids: {', '.join(map(ascii, leak.ids))} ({leak.clique}).")
    for step, one in enumerate(leak.calls, start=1):
        who = leak.ids[one.step.tenant]
        lines.append(f"  {step}. {who!r} on {one.step.surface}: {call(one, leak.ids)} -> {shown(one.shared, leak.ids)}")
    others = [f"The same at {also(group)}."] if len(group) > 1 else []
    return [*lines, *(f"     {line}" for line in [*difference(leak), *others])]


def difference(leak: Leak) -> list[str]:
    """Return what was observed, and what there should have been."""
    finding = leak.finding
    got = f"got:      {shown(finding.shared, leak.ids)}"
    if finding.alone is None and (finding.step is None or finding.place.oracle == "handles"):
        return [got]
    expected = {"handles": "never issued: ", "guard": "expected: "}.get(finding.place.oracle, "alone:    ")
    return [got, f"{expected}{shown(finding.alone, leak.ids)}"]


def _reasons(report: Report) -> Iterable[str]:
    """Return each reason once, with all the places that it holds for."""
    found: dict[str, dict[str, None]] = {}
    for cell in report.cells:
        if cell.verdict in (Verdict.VACUOUS, Verdict.INCONCLUSIVE):
            found.setdefault(f"{cell.verdict}: {cell.reason}", {})[place(cell)] = None
    return [f"  {', '.join(places)}: {reason}" for reason, places in found.items()]
