"""Makes the program that shows a leak as short and as plain as it gets.

Delta debugging (Zeller and Hildebrandt, 2002): leave out halves, then quarters, down to single steps, as long as the
same place still leaks. Then the arguments: fewer items, plainer names; and at last plain tenant ids, which tells
whether the leak needs confusable ones. Each attempt is a run on fresh servers, so there is a limit to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from .arguments import Argument, Mapping, Name, Optional, Several
from .cliques import Clique
from .programs import Program, Step

MOST_RUNS: Final = 400
"""How many attempts one reproduction may take."""

_PLAIN_NAMES: Final = ("k", "j")

Leaks = Callable[[Program], Awaitable[bool]]
"""Whether a program still leaks at the place in question."""


class _Attempts:
    """Tries programs, up to a number of times."""

    def __init__(self, leaks: Leaks, most: int) -> None:
        self._leaks = leaks
        self.left = most

    async def leaks(self, program: Program) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        return await self._leaks(program)


async def minimised(program: Program, leaks: Leaks, *, plain: Clique | None = None, most: int = MOST_RUNS) -> Program:
    """Return a program that leaks as *program* does, from which no single step can be left out.

    Args:
        program: One that leaks.
        leaks: Whether another one does, too.
        plain: Tenant ids with nothing confusing about them, to be tried in the end; ``None``: keep the ids.
        most: How many runs to spend; when they are spent, what has been reached is returned.
    """
    attempts = _Attempts(leaks, most)
    program = await _shorter(program, attempts)
    program = await _plainer(program, attempts)
    if plain is not None and plain.ids != program.clique.ids:
        ids = plain.ids[: len(program.clique.ids)]
        other = replace(program, clique=Clique(about=plain.about, ids=ids))
        if len(ids) == len(program.clique.ids) and await attempts.leaks(other):
            return other
    return program


async def _shorter(program: Program, attempts: _Attempts) -> Program:
    """Leave out steps until each that is left is needed."""
    steps = list(program.steps)
    size = max(len(steps) // 2, 1)
    while True:
        cut = False
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if fewer and await attempts.leaks(program.only(fewer)):
                steps, cut = fewer, True
            else:
                start += size
        if size == 1 and not cut:
            return program.only(steps)
        size = max(size // 2, 1)


async def _plainer(program: Program, attempts: _Attempts) -> Program:
    """Make arguments smaller, and names plain."""
    for place in range(len(program.steps)):
        for argument, value in list(program.steps[place].arguments.items()):
            for smaller in _smaller(value):
                other = _with(program, place, argument, smaller)
                if await attempts.leaks(other):
                    program = other
                    break
    for name in sorted(_names(program), key=len, reverse=True):
        for plain in _PLAIN_NAMES:
            if name == plain:
                break
            other = program.only([_renamed(step, name, plain) for step in program.steps])
            if await attempts.leaks(other):
                program = other
                break
    return program


def _with(program: Program, place: int, argument: str, value: Any) -> Program:
    steps = list(program.steps)
    steps[place] = replace(steps[place], arguments={**steps[place].arguments, argument: value})
    return program.only(steps)


def _smaller(value: Any) -> Iterator[Any]:
    """What may stand for *value* and is less, the least first."""
    if isinstance(value, list) and len(value) > 1:
        for item in value:
            yield [item]
    if isinstance(value, dict) and len(value) > 1:
        for key, item in value.items():
            yield {key: item}


def _names(program: Program) -> set[str]:
    """All names in the arguments."""
    found: set[str] = set()

    def keep(name: str) -> str:
        found.add(name)
        return name

    for step in program.steps:
        for argument, value in step.arguments.items():
            _put(step.operation.arguments.get(argument), value, keep)
    return found


def _renamed(step: Step, name: str, plain: str) -> Step:
    kinds = step.operation.arguments
    put = {
        argument: _put(kinds.get(argument), value, lambda one: plain if one == name else one)
        for argument, value in step.arguments.items()
    }
    return replace(step, arguments=put)


def _put(kind: Argument | None, value: Any, change: Callable[[str], str]) -> Any:
    """Return *value* with each name in it changed; what is no name, as a pattern or an option, stays."""
    if isinstance(kind, Name) and isinstance(value, str):
        return change(value)
    if isinstance(kind, Several) and isinstance(value, list):
        return [_put(kind.of, item, change) for item in value]
    if isinstance(kind, Optional):
        return _put(kind.of, value, change)
    if isinstance(kind, Mapping) and isinstance(value, dict):
        return {_put(kind.keys, key, change): _put(kind.values, item, change) for key, item in value.items()}
    return value
