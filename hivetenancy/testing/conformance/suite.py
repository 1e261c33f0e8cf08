"""The suite: programs for every clique of tenant ids, run in lock-step, each leak reduced to its shortest program."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hivetenancy.errors import ConfigurationError
from hivetenancy.namespaces import NamespaceManager
from hivetenancy.namespaces.codec import IdScheme

from .cliques import Clique, accepted, cliques
from .minimise import MOST_RUNS, minimised
from .programs import Generator, Program
from .runner import Counts, CrashedError, Finding, Place, Run, Shown
from .subject import Operation, Subject
from .verdicts import Doubt, Leak, Report, cells, telling_share

PLAIN: Final = {
    IdScheme.UUID: (
        "0b0e3d5c-7a1f-4f6e-9a53-2c1d8e9f0a1b",
        "6f2c4a1e-93b7-4d58-8e0a-b1c2d3e4f506",
        "c9d8e7f6-a5b4-4c3d-9e2f-1a0b9c8d7e6f",
    ),
    IdScheme.SLUG: ("acme", "globex", "initech"),
    IdScheme.OPAQUE: ("acme", "globex", "initech"),
}
"""Ids with nothing confusing about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much the suite does.

    Attributes:
        seed: The first seed. The same seed makes the same programs on every machine.
        seeds: How many seeds, from that one on.
        steps: How many calls one program has; of ten programs one has five times as many, for what shows late.
        rounds: How many programs each clique of ids gets for each seed.
        most_leaks: After how many leaks to stop.
        minimise_runs: How many runs to spend on one reproduction; 0: leave it as it was found.
    """

    seed: int = 0
    seeds: int = 1
    steps: int = 40
    rounds: int = 20
    most_leaks: int = 12
    minimise_runs: int = MOST_RUNS

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("steps", 1), ("rounds", 1), ("most_leaks", 1), ("minimise_runs", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(f"{name} is a whole number of at least {least}, got {value!r}")


_PROOF: Final = ("canary", "guard")
"""What these object to is no matter of chance: seen once, it has been there."""


class Known:
    """Everything but one place: a run with it stops at that place alone."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    def __contains__(self, place: object) -> bool:
        return place != self._place


class Suite:
    """Runs a subject.

    Args:
        subject: Whose server.
        options: How much to do.
        names: The manager of the shared server; ``None``: the subject's own.
        known: Places to pass over.
    """

    def __init__(
        self,
        subject: Subject,
        options: Options,
        *,
        names: NamespaceManager | None = None,
        known: Iterable[Place] = (),
    ) -> None:
        _check(subject)
        self._subject = subject
        self._options = options
        self._right = subject.namespaces()
        self._names = names or self._right
        self._generator = Generator(subject.operations, subject.surfaces, self._right)
        self._counts = Counts()
        self._known = set(known)
        self._leaks: list[Leak] = []
        self._doubts: list[Doubt] = []
        self._crashes = 0
        self._programs = 0
        self.stopped = ""

    async def report(self) -> Report:
        """Run everything, and return what it came to.

        Raises:
            ConfigurationError: The subject is wrong: it does not start, or takes no two of the ids.
        """
        began = time.perf_counter()
        options, (chosen, refused) = self._options, self.cliques()
        for number, clique, program_seed in self._seeds(chosen):
            steps = options.steps * (5 if number % 10 == 9 else 1)
            await self._one(self._generator.program(clique, program_seed, steps), program_seed)
            if self.stopped:
                break
        seconds = time.perf_counter() - began
        subject = self._subject
        return Report(
            subject=type(subject).__name__,
            seeds=tuple(range(options.seed, options.seed + options.seeds)),
            programs=self._programs,
            calls=self._counts.calls,
            seconds=seconds,
            cells=cells(subject, self._counts, self._leaks, self._doubts),
            leaks=tuple(self._leaks),
            doubts=tuple(self._doubts),
            telling=telling_share(subject.operations, self._counts),
            refused_ids=refused,
            stopped=self.stopped,
        )

    def cliques(self) -> tuple[list[Clique], tuple[str, ...]]:
        """Return the cliques of which the manager takes at least two ids, and the ids that it refuses."""
        all_of = cliques(self._subject.scheme)
        taken = [accepted(clique, self._right) for clique in all_of]
        refused = dict.fromkeys(
            one for clique, left in zip(all_of, taken, strict=True) for one in clique.ids if one not in left.ids
        )
        chosen = [clique for clique in taken if len(clique.ids) > 1]
        if not chosen:
            raise ConfigurationError(
                f"the namespace manager takes no two of the tenant ids of scheme {self._subject.scheme!s}: "
                f"set {type(self._subject).__name__}.scheme to the scheme of its manager"
            )
        return chosen, tuple(refused)

    def _seeds(self, chosen: Sequence[Clique]) -> Iterator[tuple[int, Clique, str]]:
        for seed in range(self._options.seed, self._options.seed + self._options.seeds):
            for number in range(self._options.rounds):
                for clique in chosen:
                    yield number, clique, f"{seed}/{clique.about}/{number}"

    async def _one(self, program: Program, program_seed: str) -> None:
        """Run one program, again and again until it shows nothing new."""
        counts: Counts | None = self._counts
        self._programs += 1
        while not self.stopped:
            try:
                finding = await self._run(program, counts=counts, known=self._known).finding()
            except CrashedError as error:
                return self._crashed(error)
            if finding is None:
                return None
            counts = None  # what it does again counts once
            await self._found(program, finding, program_seed)
        return None

    def _run(self, program: Program, **options: object) -> Run:
        return Run(self._subject, program, names=self._names, right=self._right, **options)  # type: ignore[arg-type]

    def _crashed(self, error: CrashedError) -> None:
        self._crashes += 1
        place = Place(error.operation, error.surface, "equality")
        if place not in self._known:
            self._doubts.append(Doubt(place=place, reason=str(error)))
            self._known.add(place)
        if self._crashes >= 3:
            self.stopped = f"The server was gone {self._crashes} times."

    async def _found(self, program: Program, finding: Finding, program_seed: str) -> None:
        """Take a finding for a leak, if it shows again and the tenants do not cause it by themselves."""
        self._known.add(finding.place)
        place, only = finding.place, Known(finding.place)
        try:
            by_itself = None
            if place.oracle in ("equality", "handles"):  # a secret or a foreign canary is no matter of chance
                by_itself = await self._run(program, known=only, control=True).finding()
            again = by_itself or await self._run(program, known=only).finding()
            if by_itself is not None:
                reason = "Two servers of one tenant's own differ: normalise what differs from run to run."
                self._doubts.append(Doubt(place=place, reason=reason, finding=by_itself))
            elif again is None and place.oracle in _PROOF:
                self._leaks.append(await self._leak(program, finding, program_seed, again=False))
            elif again is None:
                self._doubts.append(Doubt(place=place, reason="It was seen once, and not again.", finding=finding))
            else:
                self._leaks.append(await self._leak(program, again, program_seed))
        except CrashedError as error:
            return self._crashed(error)
        if len({leak.sign for leak in self._leaks}) >= self._options.most_leaks:
            self.stopped = f"Stopped at {self._options.most_leaks} leaks: mend these, and run it again."
        return None

    async def _leak(self, program: Program, finding: Finding, program_seed: str, *, again: bool = True) -> Leak:
        """Return the leak with the shortest program that shows it, which has then been run once more.

        One that did not show *again* keeps the program that it was seen in, and says so.
        """
        known = Known(finding.place)

        async def leaks(other: Program) -> bool:
            try:
                return await self._run(other, known=known).finding() is not None
            except CrashedError:
                return False

        short = program
        if finding.step is not None:
            short = program.only([step for step in program.steps if step.number <= finding.step])
        if not again:
            finding = replace(finding, text=f"{finding.text} It was seen once, and not again in the same calls.")
        elif self._options.minimise_runs:
            plain = Clique(about="nothing", ids=PLAIN[IdScheme(self._subject.scheme)])
            short = await minimised(short, leaks, plain=plain, most=self._options.minimise_runs)
        short = short.renumbered()
        calls: list[Shown] = []
        last = await self._run(short, known=known, record=calls).finding()
        return Leak(
            finding=last or finding,
            ids=short.clique.ids,
            clique=short.clique.about,
            calls=tuple(calls),
            program_seed=program_seed,
        )


def _check(subject: Subject) -> None:
    """Raise where a subject cannot be run at all."""
    name = type(subject).__name__
    if not subject.operations:
        raise ConfigurationError(f"{name} has no operations: name what a tenant can ask of the server")
    given_as: object = subject.operations
    if not isinstance(given_as, Sequence) or not all(isinstance(one, Operation) for one in given_as):
        raise ConfigurationError(
            f"{name}.operations is a tuple of Operation, got {given_as!r}; one alone wants a comma"
        )
    if type(subject).start is Subject.start:
        raise ConfigurationError(f"{name} has no method start(setting): let it return a Running")
    names = [operation.name for operation in subject.operations]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise ConfigurationError(f"{name} names an operation twice: {', '.join(twice)}")
    given = {operation.gives for operation in subject.operations}
    for operation in subject.operations:
        missing = sorted(operation.handles - given)
        if missing:
            raise ConfigurationError(
                f"{name}: operation {operation.name!r} takes a handle of kind {missing[0]!r}, which none gives: "
                f'the one that makes it needs gives="{missing[0]}"'
            )
        strange = sorted(set(operation.surfaces or ()) - set(subject.surfaces))
        if strange:
            raise ConfigurationError(f"{name}: operation {operation.name!r} is on no surface called {strange[0]!r}")


async def examine_async(subject: Subject, options: Options | None = None) -> Report:
    """Run the suite on *subject*, in a loop that runs already."""
    return await Suite(subject, options or Options()).report()


def examine(subject: Subject, options: Options | None = None) -> Report:
    """Run the suite on *subject* and return what it came to.

    Args:
        subject: The server under test.
        options: How much to do; ``None``: one seed, some 20 to 60 thousand calls.

    Raises:
        ConfigurationError: The subject is wrong; the message says how.
    """
    return asyncio.run(examine_async(subject, options))
