"""Programs: what the tenants of a case do, drawn from a seed.

A program is data: steps that name a tenant, an operation, a surface and arguments. It can be run again, cut short and
shown. Handles stand in it as `HandleUse`, because their values are known only when it runs.

Hypothesis is a test dependency of this library and could draw these programs. It is not used: each example would need
fresh servers, `hivetenancy conform` has to run where no test framework is installed, and a minimised program has to
keep the handles that its steps hand to each other.

Chance alone seldom comes upon a leak. So a program is made of small scenes: something is written and everybody reads
it; a handle is given and others use it; a tenant is purged and everybody looks what is left. In a scene one name is in
focus, and two names in three are that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from hivetenancy.namespaces import NamespaceManager

from .arguments import Draw, HandleUse
from .canaries import canary
from .cliques import Clique, names_for
from .subject import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call.

    Attributes:
        number: Its number, by which later steps name the handle that it gives; kept when others are cut out.
        tenant: Who calls: a place among the case's tenants.
        operation: What is called.
        surface: On which surface.
        arguments: With what.
    """

    number: int
    tenant: int
    operation: Operation
    surface: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What happens in one case.

    Attributes:
        clique: Whose ids the tenants have.
        steps: What they do, in order.
    """

    clique: Clique
    steps: tuple[Step, ...]

    def only(self, steps: Sequence[Step]) -> Program:
        """Return the same case with *steps*."""
        return replace(self, steps=tuple(steps))

    def renumbered(self) -> Program:
        """Return the same program with its steps counted from 1, as a person counts them."""
        numbers = {step.number: number for number, step in enumerate(self.steps, start=1)}
        return self.only(
            [
                replace(step, number=numbers[step.number], arguments=_regiven(dict(step.arguments), numbers))
                for step in self.steps
            ]
        )


def _regiven(value: Any, numbers: Mapping[int, int]) -> Any:
    """Return *value* with the handles from the same steps under their new numbers."""
    if isinstance(value, HandleUse):
        return replace(value, giver=None if value.giver is None else numbers.get(value.giver))
    if isinstance(value, list):
        return [_regiven(item, numbers) for item in value]
    if isinstance(value, dict):
        return {key: _regiven(item, numbers) for key, item in value.items()}
    return value


class _Focused(Draw):
    """Draws the name in focus three times in four.

    Where that is a name as the store sees it, half of the others are the names that it may have been made from.
    """

    __slots__ = ("focus",)

    focus: str

    def name(self) -> str:
        random, names = self.random, self.names
        chance = random.random()
        if self.focus in names[:3]:
            return self.focus if chance < 0.75 else super().name()
        return self.focus if chance < 0.45 else names[random.randrange(2)] if chance < 0.85 else super().name()


class Generator:
    """Makes the programs of a subject.

    Args:
        operations: What there is.
        surfaces: Where.
        manager: Whose physical names tenants try as names of their own.
        allows: Whether a tenant, by its place, calls an operation on a surface; ``None``: all call all.
        around: What every program is about; ``None``: each is about something else.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        surfaces: Sequence[str],
        manager: NamespaceManager,
        *,
        allows: Callable[[int, Operation, str], bool] | None = None,
        around: Operation | None = None,
    ) -> None:
        self.operations = operations
        self._surfaces = surfaces
        self._manager = manager
        self._allows = allows
        self.around = around

    def program(self, clique: Clique, seed: str, length: int) -> Program:
        """Return the program of *seed*: the same for the same, on every machine."""
        return _Writer(self, clique, Random(seed), length).program()

    def allowed(self, tenant: int) -> list[tuple[Operation, str]]:
        """Return what the tenant may call, and where."""
        return [
            (operation, surface)
            for operation in self.operations
            for surface in operation.surfaces or self._surfaces
            if self._allows is None or self._allows(tenant, operation, surface)
        ]

    def names(self, clique: Clique, random: Random) -> list[str]:
        """Return the names of a case, the three that are used most at its head."""
        return names_for(clique.ids, self._manager, random)


_Ways = list[tuple[Operation, str]]


class _Writer:
    """Writes one program."""

    def __init__(self, generator: Generator, clique: Clique, random: Random, length: int) -> None:
        self._clique = clique
        self._random = random
        self._length = length
        self._steps: list[Step] = []
        self._counter = 0
        self._tenant = 0
        self._given: dict[str, list[tuple[int, int]]] = {}
        self._draw = _Focused(random, generator.names(clique, random), self._canary, self._handle)
        self._draw.focus = self._draw.names[0]
        chosen = _some(generator.operations, random, generator.around)
        self._ways = [
            [way for way in generator.allowed(tenant) if way[0] in chosen] for tenant in range(len(clique.ids))
        ]
        self._reads = [self._of("read", tenant) for tenant in range(len(clique.ids))]
        self._writes = [self._of("write", tenant) for tenant in range(len(clique.ids))]
        self._purges = [self._of("purge", tenant) for tenant in range(len(clique.ids))]
        self._lonely = _lonely(generator.operations)

    def _of(self, effect: str, tenant: int) -> _Ways:
        return [way for way in self._ways[tenant] if way[0].effect == effect]

    def program(self) -> Program:
        """Write scenes until there is enough."""
        scenes = [self._anything, *(self._write_and_sweep,) * 4]
        if any(way[0].gives for ways in self._ways for way in ways):
            scenes += [self._pass_handles, self._pass_handles]
        if any(self._purges):
            scenes += [self._life]
        while len(self._steps) < self._length:
            before = len(self._steps)
            self._draw.focus = self._draw.names[self._random.randrange(min(6, len(self._draw.names)))]
            self._random.choice(scenes)()
            if len(self._steps) == before:  # nobody may do anything in that scene
                self._anything()
        return Program(clique=self._clique, steps=tuple(self._steps[: self._length]))

    # scenes

    def _anything(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            tenant = self._somebody()
            if self._ways[tenant]:
                self._call(tenant, self._random.choice(self._ways[tenant]))

    def _write_and_sweep(self) -> None:
        """One writes, or several do; then everybody reads."""
        tenants = self._everybody()
        written: tuple[Operation, str] | None = None
        for place, tenant in enumerate(tenants):
            if place and self._random.random() < 0.3:
                continue
            if written is None or self._random.random() < 0.3 or written not in self._writes[tenant]:
                written = self._random.choice(self._writes[tenant]) if self._writes[tenant] else written
            if written in self._writes[tenant]:
                self._call(tenant, written)
        self._sweep(written)

    def _sweep(self, written: tuple[Operation, str] | None = None) -> None:
        """Everybody reads, mostly what *written* may have changed; one time in three all ask the very same first."""
        if self._random.random() < 0.33:
            self._ask_the_same(written)
        for tenant in self._everybody():
            reads = self._near(tenant, written)
            for way in self._random.sample(reads, min(len(reads), self._random.randint(1, 3))):
                self._call(tenant, way)

    def _ask_the_same(self, written: tuple[Operation, str] | None) -> None:
        """Everybody asks one thing in the same words: what is kept of an answer shows in the next."""
        tenants = self._everybody()
        reads = [way for way in self._near(tenants[0], written) if not way[0].handles]
        if not reads:
            return
        way, before = self._random.choice(reads), self._counter
        arguments = self._call(tenants[0], way)
        for tenant in tenants[1:]:
            if way in self._reads[tenant] and self._counter == before:  # what is marked is asked by its owner alone
                self._call(tenant, way, arguments)

    def _near(self, tenant: int, written: tuple[Operation, str] | None) -> _Ways:
        """Return the tenant's reads, four times in five those alone that *written* may have changed."""
        reads = self._reads[tenant]
        near = [way for way in reads if written and (way[0] in self._lonely or _related(way[0], written[0]))]
        return near if near and self._random.random() < 0.8 else reads

    def _pass_handles(self) -> None:
        """One is given a handle, something happens, and it is used by its owner and by others."""
        owner = self._somebody()
        givers = [way for way in self._ways[owner] if way[0].gives]
        if not givers:
            return
        giver = self._random.choice(givers)
        self._write_about(owner, giver[0])
        self._call(owner, giver)
        for tenant in self._everybody():
            if self._random.random() < 0.6:
                self._write_about(tenant, giver[0])
        for tenant in (self._somebody(), owner, self._somebody(), owner):
            users = [way for way in self._ways[tenant] if giver[0].gives in way[0].handles]
            if users:
                self._call(tenant, self._random.choice(users))

    def _write_about(self, tenant: int, operation: Operation) -> None:
        """Write something that *operation* may be about."""
        near = [way for way in self._writes[tenant] if _related(way[0], operation) and not way[0].handles]
        if near or self._writes[tenant]:
            self._call(tenant, self._random.choice(near or self._writes[tenant]))

    def _life(self) -> None:
        """Write, read, purge, read, list; and a beginning anew."""
        for tenant in self._everybody():
            self._one_of(self._writes, tenant)
            self._one_of(self._writes, tenant)
        gone = self._somebody()
        looks = self._random.sample(self._reads[gone], min(len(self._reads[gone]), 4))
        for way in looks:
            self._call(gone, way)
        self._one_of(self._purges, gone)
        for way in looks:
            self._call(gone, way)
        self._sweep()
        self._one_of(self._writes, gone)
        self._sweep()

    # calls

    def _somebody(self) -> int:
        return self._random.randrange(len(self._ways))

    def _everybody(self) -> list[int]:
        return self._random.sample(range(len(self._ways)), len(self._ways))

    def _one_of(self, ways: Sequence[_Ways], tenant: int) -> None:
        if ways[tenant]:
            self._call(tenant, self._random.choice(ways[tenant]))

    def _call(
        self, tenant: int, way: tuple[Operation, str], again: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Add a call with arguments of its own, or with those of another *again*; return them."""
        operation, surface = way
        self._tenant = tenant
        number = len(self._steps)
        arguments = (
            {name: kind.draw(self._draw) for name, kind in operation.arguments.items()} if again is None else again
        )
        self._steps.append(
            Step(number=number, tenant=tenant, operation=operation, surface=surface, arguments=arguments)
        )
        if operation.gives:
            self._given.setdefault(operation.gives, []).append((tenant, number))
        return arguments

    def _canary(self) -> str:
        self._counter += 1
        return canary(self._tenant, self._counter)

    def _handle(self, kind: str) -> HandleUse:
        given = self._given.get(kind, ())
        own = [number for tenant, number in given if tenant == self._tenant]
        foreign = [number for tenant, number in given if tenant != self._tenant]
        chance = self._random.random()
        if own and chance < 0.55:
            return HandleUse(kind, own[-1] if chance < 0.4 else self._random.choice(own))
        if foreign and chance < 0.9:
            return HandleUse(kind, foreign[-1] if chance < 0.75 else self._random.choice(foreign))
        return HandleUse(kind, None)


_FEW: Final = 10
"""So many operations can all be in one program."""


def _some(operations: Sequence[Operation], random: Random, around: Operation | None) -> set[Operation]:
    """Return the operations of one program: those about two or three things, and a few others.

    A few at a time meet each other more often than all at once (swarm testing: Groce and others, 2012).
    """
    if len(operations) <= _FEW:
        return set(operations)
    subjects = sorted(frozenset[str]().union(*(operation.about for operation in operations)))
    about = set(around.about if around else random.sample(subjects, min(len(subjects), random.randint(1, 3))))
    chosen = {operation for operation in operations if operation.about & about or not operation.about}
    chosen |= {*random.sample(operations, 3), *([around] if around else [])}
    handles = frozenset[str]().union(*(one.handles | {one.gives or ""} for one in chosen))
    return chosen | {one for one in operations if one.gives in handles or one.handles & handles}


def _lonely(operations: Sequence[Operation]) -> set[Operation]:
    """Return the reads that are about what no write is about: they are tried after every write, or they never were."""
    written = frozenset[str]().union(*(one.about for one in operations if one.effect == "write"))
    return {one for one in operations if one.effect == "read" and not one.about & written}


def _related(one: Operation, other: Operation) -> bool:
    """Return whether two operations are about the same; one that is about nothing in particular is about all."""
    return not one.about or bool(one.about & other.about)
