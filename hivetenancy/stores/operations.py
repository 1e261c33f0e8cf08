"""What a store can do, as a table: which arguments of each operation are names, and where its reply holds some.

The table is the façade (`hivetenancy.stores.facade`). It states *every* argument of an operation, in order and by
name, because what nobody stated cannot be scoped: ``mget(keys, *more)`` of which only *keys* is known would send *more*
to the store as they are. An argument that is not stated is refused, an operation that is not stated does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType

from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Effect


class Argument(Enum):
    """What an argument of an operation is."""

    VALUE = auto()
    """No name: passed on as it is. May be left out."""
    NAME = auto()
    """A name. Has to be given."""
    NAMES = auto()
    """A list of names, or any other iterable. Has to be given."""
    EACH_NAME = auto()
    """This and every further argument by position is a name, as in ``delete(*keys)``. Stands last."""
    NAMED_VALUES = auto()
    """A mapping whose keys are names, as that of ``mset``. Has to be given."""
    PATTERN = auto()
    """A pattern over names. Left out, or ``None``: all of the tenant's; of topics it has to be given."""
    BEGINNING = auto()
    """What names begin with. Left out, or ``None``: all of the tenant's."""
    LOW = auto()
    """The first name of a range. Left out, or ``None``: from the tenant's first."""
    HIGH = auto()
    """The name that a range stops before. Left out, or ``None``: to the tenant's last."""


class Reply(Enum):
    """Where a reply holds names; each is unscoped, and one that is not the tenant's raises."""

    VALUE = auto()
    """Nowhere."""
    NAME = auto()
    """It is a name, or ``None``."""
    NAMES = auto()
    """It is a list of names, or any other iterable."""
    PAIR = auto()
    """It is ``(name, value)``, or ``None``."""
    PAIRS = auto()
    """It is a list of ``(name, value)``."""
    NAMED_VALUES = auto()
    """It is a mapping whose keys are names."""
    PAGE = auto()
    """It is ``(cursor, names)``, as that of ``SCAN``."""
    EACH_NAME = auto()
    """It is an iterator, or an asynchronous one, that gives names."""
    EACH_PAIR = auto()
    """It is an iterator, or an asynchronous one, that gives ``(name, value)``."""


_WITH_DEFAULT = {Argument.PATTERN, Argument.BEGINNING, Argument.LOW, Argument.HIGH}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOperation:
    """One operation of a store.

    Attributes:
        name: The method's name.
        arguments: Every argument by its name, in the order of their positions.
        effect: What it does to data.
        reply: Where its reply holds names.
        kind: Which names these are, as the handles of a tenant are called: ``kv``, ``collections``, ``queues`` ...

    Raises:
        ConfigurationError: The name is none that a façade may have; the kind is unknown; an `Argument.EACH_NAME` does
            not stand last.
    """

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    effect: Effect
    reply: Reply = Reply.VALUE
    kind: str = "kv"

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name.startswith("_"):
            raise ConfigurationError(f"an operation has the name of a public method, not {self.name!r}")
        if self.kind not in KINDS:
            raise ConfigurationError(
                f"operation {self.name}: kind must be one of {', '.join(KINDS)}, not {self.kind!r}"
            )
        stated = list(self.arguments.values())
        if Argument.EACH_NAME in stated[:-1]:
            raise ConfigurationError(f"operation {self.name}: what takes every further argument stands last")
        object.__setattr__(self, "effect", Effect(self.effect))
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    @property
    def needed(self) -> tuple[str, ...]:
        """The arguments that have to be given."""
        free = {Argument.VALUE, Argument.EACH_NAME, *_WITH_DEFAULT}
        if self.kind == "topics":  # whose dialects have no one pattern for everything
            free.remove(Argument.PATTERN)
        return tuple(name for name, what in self.arguments.items() if what not in free)

    @property
    def filled(self) -> tuple[str, ...]:
        """The arguments that are filled in where they are left out, so that all is all of the tenant's."""
        return tuple(name for name, what in self.arguments.items() if what in _WITH_DEFAULT and name not in self.needed)


KINDS = (
    "kv",
    "hashes",
    "lists",
    "sets",
    "sorted_sets",
    "bitmaps",
    "hyperloglogs",
    "geo",
    "streams",
    "locks",
    "collections",
    "queues",
    "topics",
    "channels",
    "blobs",
)
"""The handles of a tenant that a table may name; files and graphs have scopes of their own."""
