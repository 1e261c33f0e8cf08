"""The power test: would the suite have seen it?

The user's server is run under every faulty manager of `hivetenancy.testing.conformance.faulty`. A fault that the server
makes use of has to be found. And each operation has to show something under the manager that leaves names as they are:
one that never does is not routed through scoping at all, or there is nothing to be seen by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from hivetenancy.namespaces.codec import IdScheme

from .cliques import Clique
from .faulty import FAULTS, IDENTITY, Fault, FaultyNamespaces
from .programs import Generator
from .runner import CrashedError, Finding, Place, Run
from .subject import Operation, Subject
from .suite import PLAIN, Options, Suite
from .verdicts import Verdict

_PROGRAMS: Final = 60
"""How many programs an operation gets to show itself."""


class Outcome(StrEnum):
    """How a fault fared."""

    FOUND = "FOUND"
    """The suite reported a leak."""
    MISSED = "MISSED"
    """The server made use of the fault, and the suite reported nothing: it is blind there."""
    UNUSED = "UNUSED"
    """The server never asked for what is wrong with this manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """What came of one fault.

    Attributes:
        fault: The fault.
        outcome: Whether it was found.
        place: Where; ``None``: nowhere.
        calls: After how many calls.
    """

    fault: Fault
    outcome: Outcome
    place: Place | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReport:
    """What the power test came to.

    Attributes:
        subject: Its name.
        faults: Each fault, and whether it was found.
        unscoped: Operations and surfaces that showed nothing when names were left as they are: not scoped at all.
        seconds: How long it took.
    """

    subject: str
    faults: tuple[FaultResult, ...]
    unscoped: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def missed(self) -> tuple[str, ...]:
        """The faults that were used and not found."""
        return tuple(one.fault.name for one in self.faults if one.outcome is Outcome.MISSED)

    @property
    def found(self) -> int:
        """How many faults were found."""
        return sum(one.outcome is Outcome.FOUND for one in self.faults)

    @property
    def verdict(self) -> Verdict:
        """``PASS``, or ``VACUOUS``: a suite that misses a fault, or an operation with no scoping, proves nothing."""
        return Verdict.VACUOUS if self.missed or self.unscoped or not self.found else Verdict.PASS

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(power: PowerReport) -> list[str]:
    """Return what the power test came to, for a terminal."""
    used = [one for one in power.faults if one.outcome is not Outcome.UNUSED]
    lines = [f"Power: {power.found} of {len(used)} faults found in {power.seconds:.1f} s ({power.subject})"]
    for one in power.faults:
        where = f"  at {one.place.operation} on {one.place.surface}, after {one.calls} calls" if one.place else ""
        lines.append(f"  {one.outcome:7} {one.fault.name}: {one.fault.about}{where}")
    if power.missed:
        lines.append("MISSED: the server made use of that fault, and the suite saw nothing.")
    for operation, surface in power.unscoped:
        lines.append(f"NOT SCOPED AT ALL: {operation} on {surface} shows nothing even when names are left as they are.")
    return lines


async def power_async(
    subject: Subject,
    options: Options | None = None,
    *,
    known: Collection[Place] = (),
    faults: Sequence[Fault] | None = None,
) -> PowerReport:
    """Run the power test on *subject*, in a loop that runs already."""
    began = time.perf_counter()
    chosen = replace(options or Options(), most_leaks=1, minimise_runs=0)
    results = [await _under(subject, fault, chosen, known) for fault in (FAULTS if faults is None else faults)]
    unscoped = await _unscoped(subject, chosen)
    return PowerReport(
        subject=type(subject).__name__,
        faults=tuple(results),
        unscoped=tuple(unscoped),
        seconds=time.perf_counter() - began,
    )


def power(
    subject: Subject,
    options: Options | None = None,
    *,
    known: Collection[Place] = (),
    faults: Sequence[Fault] | None = None,
) -> PowerReport:
    """Run the user's server under faulty namespace managers, and say which faults the suite found.

    Args:
        subject: The server under test, which has to use the manager of its `Setting`.
        options: How much to do for each fault; ``None``: as for `examine`.
        known: Places that leak anyway, with the right names: they are no sign of a fault.
        faults: Which faults to try; ``None``: all.

    Raises:
        ConfigurationError: The subject is wrong; the message says how.
    """
    return asyncio.run(power_async(subject, options, known=known, faults=faults))


async def _under(subject: Subject, fault: Fault, options: Options, known: Collection[Place]) -> FaultResult:
    manager = FaultyNamespaces(subject.namespaces(), fault)
    report = await Suite(subject, options, names=manager, known=known).report()
    if report.leaks:
        place: Place | None = report.leaks[0].finding.place
        outcome = Outcome.FOUND
    else:
        place, outcome = None, Outcome.MISSED if manager.usage.differences else Outcome.UNUSED
    return FaultResult(fault=fault, outcome=outcome, place=place, calls=report.calls)


async def _unscoped(subject: Subject, options: Options) -> list[tuple[str, str]]:
    """Return what shows nothing although names are left as they are."""
    return [
        (operation.name, surface)
        for operation in subject.operations
        if operation.scoped
        for surface in operation.surfaces or subject.surfaces
        if not await _shows(subject, operation, surface, options)
    ]


async def _shows(subject: Subject, operation: Operation, surface: str, options: Options) -> bool:
    """Whether anything leaks where one tenant does everything and the other nothing but *operation*."""
    right = subject.namespaces()
    givers = {one for one in subject.operations if one.gives in operation.handles}
    generator = Generator(
        subject.operations,
        subject.surfaces,
        right,
        allows=lambda tenant, one, where: tenant == 0 or one in givers or (one is operation and where == surface),
        around=operation,
    )
    clique = _two(subject)
    for number in range(_PROGRAMS):
        program = generator.program(clique, f"{options.seed}/{operation.name}/{surface}/{number}", options.steps)
        found: list[Finding] = []
        names = FaultyNamespaces(right, IDENTITY)
        try:
            await Run(subject, program, names=names, right=right, every=found).finding()
        except CrashedError:
            continue
        tenants = {step.number: step.tenant for step in program.steps}
        if any(_tells(one, operation, surface, tenants, bool(givers)) for one in found):
            return True
    return False


def _tells(finding: Finding, operation: Operation, surface: str, tenants: dict[int, int], lent: bool) -> bool:
    """Whether *finding* is of the operation: at itself, or at the tenant to whom it alone was done."""
    if finding.place[:2] == (operation.name, surface) and tenants.get(finding.step or 0) == 1:
        return True
    return finding.step is not None and tenants[finding.step] == 0 and (not lent or operation.effect != "read")


def _two(subject: Subject) -> Clique:
    return Clique(about="nothing", ids=PLAIN[IdScheme(subject.scheme)][:2])
