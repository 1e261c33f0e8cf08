"""Functions: the named operations of a host, their effects, and the marker that declares them on handlers.

A function has a name of dot-separated segments (``kv.set``), an *effect*, a *cost* in rate units and a *demand* on
quotas. A key's permissions and allow list are compiled against a `FunctionRegistry` to one integer, in which each
function has a bit; what was never registered has no bit and is refused to everybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Amounts, CellKey, Effect

MARKER: Final = "__hivetenancy_function__"
"""The attribute that `function` leaves on a handler."""

_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

Handler = TypeVar("Handler")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """A function as a host declares it.

    Attributes:
        name: Lower-case ASCII segments joined by dots.
        effect: What it does to data.
        cost: Rate units that one call takes, at least 1.
        demand: Quota amounts held before the handler runs, committed when it answers below 400 and released otherwise.

    Raises:
        ConfigurationError: The name, the cost or an amount is out of range.
    """

    name: str
    effect: Effect
    cost: int = 1
    demand: Amounts = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > 128:
            raise ConfigurationError(
                f"function name {self.name!r} must be lower-case ASCII segments joined by dots, as in 'kv.set'"
            )
        if type(self.cost) is not int or self.cost < 1:
            raise ConfigurationError(f"{self.name}: cost must be a whole number of at least 1, got {self.cost!r}")
        for cell, amount in self.demand.items():
            if type(amount) is not int or amount < 0:
                raise ConfigurationError(f"{self.name}: demand of {cell!r} must be a whole number, got {amount!r}")
        object.__setattr__(self, "demand", MappingProxyType(dict(self.demand)))


class Function:
    """A registered function: its spec, and the bit that stands for it in the masks of its registry, and only there."""

    __slots__ = ("bit", "cost", "demand", "effect", "name", "registry", "spec")

    def __init__(self, spec: FunctionSpec, bit: int, registry: FunctionRegistry | None = None) -> None:
        self.spec = spec
        self.bit = bit
        self.registry = registry
        # Read on the request path, hence plain attributes.
        self.name = spec.name
        self.effect = spec.effect
        self.cost = spec.cost
        self.demand: Amounts | None = spec.demand or None

    def __repr__(self) -> str:
        return f"Function({self.name!r}, effect={self.effect.value!r}, cost={self.cost})"


class FunctionRegistry:
    """All functions of one host.

    Concurrency:
        Register before serving, from one thread; reading is safe from any.
    """

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self.version = 0
        """Rises with each registration, so that compiled masks can tell that they are out of date."""

    def register(self, spec: FunctionSpec) -> Function:
        """Register *spec*, or return the function registered under the same terms before.

        Raises:
            ConfigurationError: The name is taken by a function with other terms.
        """
        known = self._functions.get(spec.name)
        if known is not None:
            if known.spec != spec:
                raise ConfigurationError(
                    f"function {spec.name!r} is declared twice with different terms: {known.spec} and {spec}"
                )
            return known
        added = self._functions[spec.name] = Function(spec, len(self._functions), self)
        self.version += 1
        return added

    def declare(self, name: str, *, effect: Effect | str, cost: int = 1, demand: Amounts | None = None) -> Function:
        """Register a function by its parts; see `FunctionSpec` for their meaning and errors."""
        return self.register(_spec(name, effect, cost, demand))

    def get(self, name: str) -> Function | None:
        """Return the function called *name*, or ``None``."""
        return self._functions.get(name)

    def __iter__(self) -> Iterator[Function]:
        return iter(list(self._functions.values()))

    def __len__(self) -> int:
        return len(self._functions)


def function(
    name: str, *, effect: Effect | str, cost: int = 1, demand: Mapping[CellKey, int] | None = None
) -> Callable[[Handler], Handler]:
    """Declare which function a handler performs.

    Works on functions, on methods of class-based endpoints and on mounted objects; adapters read it when the
    application is built. The handler itself is returned unchanged.

    Args:
        name: Dot-separated lower-case segments, for example ``kv.set``.
        effect: ``read``, ``write``, ``delete`` or ``admin``.
        cost: Rate units a call takes.
        demand: Quota amounts to hold while the handler runs; see `FunctionSpec`.

    Raises:
        ConfigurationError: A value is out of range, or the object cannot carry the marker.
    """
    spec = _spec(name, effect, cost, demand)

    def mark(handler: Handler) -> Handler:
        try:
            setattr(handler, MARKER, spec)
        except (AttributeError, TypeError) as error:
            raise ConfigurationError(
                f"{handler!r} cannot carry a marker; wrap it in a function, or name it in functions={{...}}"
            ) from error
        return handler

    return mark


def declared(handler: object) -> FunctionSpec | None:
    """Return what `function` declared on *handler*, or ``None``."""
    found = getattr(handler, MARKER, None)
    return found if isinstance(found, FunctionSpec) else None


def _spec(name: str, effect: Effect | str, cost: int, demand: Amounts | None) -> FunctionSpec:
    try:
        known = Effect(effect)
    except ValueError:
        allowed = ", ".join(Effect)
        raise ConfigurationError(f"{name}: effect must be one of {allowed}, got {effect!r}") from None
    return FunctionSpec(name=name, effect=known, cost=cost, demand=demand or {})
