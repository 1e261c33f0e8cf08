"""What the arguments of an operation are, so that the suite can make some.

A kind of argument draws a value for one call. It draws from a `Draw`: the names that everybody uses, values marked as
the tenant's own, handles that were given before. Names are few and the same for all tenants, on purpose: a leak shows
where two tenants mean two things by one name.

An argument of your own is a subclass with a `draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True)
class HandleUse:
    """A place in a call where a handle goes. Which one is known when the program runs.

    Attributes:
        kind: What the handle is of, as ``subscription``.
        giver: The number of the step whose answer held it; ``None``: one that was never issued.
    """

    kind: str
    giver: int | None


class Draw:
    """What arguments are made from, for one call of one tenant.

    Attributes:
        random: Where chance comes from; seeded.
        names: Names that every tenant of the program uses, the likeliest first.
    """

    __slots__ = ("_canary", "_handle", "names", "random")

    def __init__(
        self, random: Random, names: Sequence[str], canary: Callable[[], str], handle: Callable[[str], HandleUse]
    ) -> None:
        self.random = random
        self.names = names
        self._canary = canary
        self._handle = handle

    def name(self) -> str:
        """Return a name: more often than not one of the first three."""
        random = self.random
        return self.names[random.randrange(3)] if random.random() < 0.7 else random.choice(self.names)

    def canary(self) -> str:
        """Return a text that marks what holds it as this tenant's."""
        return self._canary()

    def handle(self, kind: str) -> HandleUse:
        """Return a handle of *kind*: the tenant's own, another tenant's, or one that was never issued."""
        return self._handle(kind)


class Argument:
    """A kind of argument."""

    __slots__ = ()

    def draw(self, draw: Draw, /) -> Any:
        """Return a value for one call."""
        raise TypeError(f"{type(self).__name__} says no way to draw a value: give it a method draw(draw)")

    def handles(self) -> frozenset[str]:
        """Return the kinds of handles that a value may hold."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class Name(Argument):
    """A name: of a key, a queue, a collection, a topic, a field."""

    def draw(self, draw: Draw, /) -> Any:
        """Return one of the program's names."""
        return draw.name()


@dataclass(frozen=True, slots=True)
class Value(Argument):
    """What a tenant stores, marked as its own.

    Attributes:
        form: ``text``, or ``bytes``.
        common: How many of a hundred values are one that other tenants store too, unmarked: what is kept once for all
            who have it shows by these.
        odd: How many of a hundred are empty, or, as many, long: some 1,500 characters. What holds for most values
            is often done otherwise for these. 0 where the server makes a name of it.
    """

    form: Literal["text", "bytes"] = "text"
    common: int = 12
    odd: int = 3

    def draw(self, draw: Draw, /) -> Any:
        """Return a marked value, a common one or an odd one."""
        chance, odd = draw.random.randrange(100), self.common + self.odd
        if chance < self.common:
            text = f"common value {draw.random.randrange(2)}"
        else:
            text = "" if chance < odd else draw.canary() + ("." * _LONG if chance < odd + self.odd else "")
        return text.encode() if self.form == "bytes" else text


_LONG: Final = 1_500
_USUAL: Final = 4
"""So many items most lists have at most; one in eight is longer."""


def _length(random: Random, least: int, most: int) -> int:
    return random.randint(least, most if random.randrange(8) == 0 else max(least, min(most, _USUAL)))


#: Patterns of each dialect; ``{}`` stands for the beginning of a name.
_PATTERNS: Final = {
    "glob": ("*", "*", "{}*", "*{}*", "?*", "{}", "[{}]*", "[!{}]*", "*:*", "user*", "user:*", "\\*"),
    "topic": ("#", "*", "#", "{}.#", "{}", "*.*", "#.{}", "user.#", "*.#"),
    "like": ("%", "%", "{}%", "%{}%", "_%", "{}", "user%", "%:%"),
    "prefix": ("{}", "{}", "user", "user:", "a", "1"),
}


@dataclass(frozen=True, slots=True)
class Pattern(Argument):
    """What names are matched with.

    Attributes:
        dialect: ``glob`` (Redis), ``topic`` (segments, ``*`` and ``#``), ``like`` (SQL), or ``prefix``.
    """

    dialect: Literal["glob", "topic", "like", "prefix"] = "glob"

    def draw(self, draw: Draw, /) -> Any:
        """Return a pattern of the dialect."""
        name = draw.name()
        beginning = name if draw.random.random() < 0.5 else name[:1]
        return draw.random.choice(_PATTERNS[self.dialect]).replace("{}", beginning)


@dataclass(frozen=True, slots=True)
class Handle(Argument):
    """What an operation with ``gives=kind`` answered with: of a subscription, a cursor, an upload, a job.

    Attributes:
        kind: As in ``gives``.
    """

    kind: str

    def draw(self, draw: Draw, /) -> Any:
        """Return whose handle goes here."""
        return draw.handle(self.kind)

    def handles(self) -> frozenset[str]:
        """Return the handle's kind."""
        return frozenset({self.kind})


@dataclass(frozen=True, slots=True)
class Count(Argument):
    """A whole number.

    Attributes:
        low: The least.
        high: The most.
    """

    low: int = 1
    high: int = 10

    def draw(self, draw: Draw, /) -> Any:
        """Return a number between the two."""
        return draw.random.randint(self.low, self.high)


class Choice(Argument):
    """One of some fixed values.

    Args:
        *options: The values; any the server takes.
    """

    __slots__ = ("options",)

    def __init__(self, *options: object) -> None:
        if not options:
            raise TypeError("a Choice has at least one option")
        self.options = options

    def draw(self, draw: Draw, /) -> Any:
        """Return one of them."""
        return draw.random.choice(self.options)


@dataclass(frozen=True, slots=True)
class Several(Argument):
    """A list of arguments of one kind.

    Attributes:
        of: Their kind.
        least: How many there are at least.
        most: How many there are at most. Where the server takes longer lists piece by piece, more than one piece.
    """

    of: Argument
    least: int = 1
    most: int = 20

    def draw(self, draw: Draw, /) -> Any:
        """Return a list."""
        return [self.of.draw(draw) for _ in range(_length(draw.random, self.least, self.most))]

    def handles(self) -> frozenset[str]:
        """Return those of its items."""
        return self.of.handles()


def Names(least: int = 1, most: int = 20) -> Several:  # noqa: N802 - reads as the argument that it is
    """Return the kind of argument that is a list of names."""
    return Several(Name(), least, most)


@dataclass(frozen=True, slots=True)
class Mapping(Argument):
    """A dictionary.

    Attributes:
        keys: The kind of its keys.
        values: The kind of its values.
        most: How many items it has at most; at least one.
    """

    keys: Argument = Name()
    values: Argument = Value()
    most: int = 12

    def draw(self, draw: Draw, /) -> Any:
        """Return a dictionary."""
        count = _length(draw.random, 1, self.most)
        return {self.keys.draw(draw): self.values.draw(draw) for _ in range(count)}

    def handles(self) -> frozenset[str]:
        """Return those of its values."""
        return self.values.handles()


@dataclass(frozen=True, slots=True)
class Optional(Argument):
    """An argument that may be left out.

    Attributes:
        of: Its kind, where it is there.
    """

    of: Argument

    def draw(self, draw: Draw, /) -> Any:
        """Return a value, or ``None`` in one of three calls."""
        return None if draw.random.randrange(3) == 0 else self.of.draw(draw)

    def handles(self) -> frozenset[str]:
        """Return those of its kind."""
        return self.of.handles()
