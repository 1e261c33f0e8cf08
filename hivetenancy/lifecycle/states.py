"""Which state may follow which, and what a tenant may do in each. Pure.

A transition is a compare-and-set on state *and* generation: whoever decided on an older standing is refused, so nothing
that was meant for one life of a tenant is done to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hivetenancy.ids import Effect, TenantId

from .protocol import Standing, State, TenantStateError

FIRST: Final = Standing(State.ACTIVE, 1)
"""Where a tenant stands of which nothing is written down."""

FOLLOWS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.ACTIVE: frozenset({State.READ_ONLY, State.BLOCKED, State.DELETING}),
        State.READ_ONLY: frozenset({State.ACTIVE, State.BLOCKED, State.DELETING}),
        State.BLOCKED: frozenset({State.ACTIVE, State.READ_ONLY, State.DELETING}),
        State.DELETING: frozenset({State.DELETED}),
        State.DELETED: frozenset({State.ACTIVE}),
    }
)
"""Deletion can be begun from every state that has data, and is never taken back."""

_NOTHING: Final[frozenset[Effect]] = frozenset()

ADMITS: Final[Mapping[State, frozenset[Effect] | None]] = MappingProxyType(
    {
        State.ACTIVE: None,
        State.READ_ONLY: frozenset({Effect.READ}),
        State.BLOCKED: _NOTHING,
        State.DELETING: _NOTHING,
        State.DELETED: _NOTHING,
    }
)
"""Effects of functions that new work may have; ``None``: all."""


def moved(tenant: TenantId, found: Standing, believed: Standing, to: State) -> Standing:
    """Return where *tenant* stands after it went *to* another state.

    Args:
        tenant: For the message.
        found: Where it stands.
        believed: Where the caller believes that it stands.
        to: The state it is to have.

    Raises:
        TenantStateError: It stands elsewhere than believed, or *to* does not follow.
    """
    if found != believed:
        raise TenantStateError(
            tenant, found, f"it was believed to be {believed.state}, generation {believed.generation}"
        )
    if to not in FOLLOWS[found.state]:
        raise TenantStateError(tenant, found, f"it cannot become {to}")
    return Standing(to, found.generation + (found.state is State.DELETED))
