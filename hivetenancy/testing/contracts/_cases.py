"""What a contract kit is made of: small named cases, collected by a decorator.

A room defines a ``Harness`` protocol (how a case builds an engine and moves its world) and one list of cases::

    CASES: Cases[Harness] = Cases()

    @CASES.add
    async def what_must_hold(harness: Harness) -> None:
        '''One sentence that says it.'''
        ...
        assert ...

A user's own engine runs them all, each with a fresh harness::

    @pytest.mark.anyio
    @pytest.mark.parametrize("case", CASES, ids=str)
    async def test_my_engine(case):
        await case(MyHarness())

Cases use plain asserts and import no test framework, so that any runner will do.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar, overload

HarnessT = TypeVar("HarnessT")

Run: TypeAlias = Callable[[HarnessT], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[HarnessT]):
    """One thing that every implementation must do.

    Attributes:
        name: What the case is called; unique in its room.
        doc: One sentence that says what must hold.
        run: The case itself; raises `AssertionError` where it does not hold.
    """

    name: str
    doc: str
    run: Run[HarnessT]

    async def __call__(self, harness: HarnessT) -> None:
        """Run the case against a harness that no other case has used.

        Raises:
            AssertionError: What the case says does not hold.
        """
        await self.run(harness)

    def __str__(self) -> str:
        return self.name


class Cases(Sequence[Case[HarnessT]]):
    """The cases of one room, in the order they were written."""

    def __init__(self) -> None:
        self._cases: list[Case[HarnessT]] = []

    def add(self, run: Run[HarnessT]) -> Run[HarnessT]:
        """Add the case *run*; used as a decorator. Its name and docstring become the case's.

        Raises:
            ValueError: It has no docstring, or its name is taken.
        """
        name, doc = getattr(run, "__name__", ""), (run.__doc__ or "").strip()
        if not name or not doc or name in {case.name for case in self._cases}:
            raise ValueError(f"the case {name!r} needs a name of its own and a docstring")
        self._cases.append(Case(name=name, doc=doc, run=run))
        return run

    def named(self, name: str) -> Case[HarnessT]:
        """Return the case called *name*.

        Raises:
            KeyError: There is none.
        """
        for case in self._cases:
            if case.name == name:
                return case
        raise KeyError(name)

    @overload
    def __getitem__(self, index: int) -> Case[HarnessT]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Case[HarnessT]]: ...
    def __getitem__(self, index: int | slice) -> Case[HarnessT] | Sequence[Case[HarnessT]]:
        return self._cases[index]

    def __iter__(self) -> Iterator[Case[HarnessT]]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)


@contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can, so that a race has many chances to go wrong."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
