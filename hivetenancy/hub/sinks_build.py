"""Which calls take the usage of each service, and with which strategy. The only place where that is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, Protocol

from hivetenancy.clock import Clock
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension

from . import wire
from .sinks import USAGE, Alarms, CallSink, UsageCall
from .sinks_absolute import CollectionTotals, ResourceTotals, StatesCollections, StatesResources
from .sinks_calls import Adds, AddsToGraph, GraphUsage, ResourceUsage, TakesTokens, TokensSpent
from .sinks_increment import SETTLE_US, IncrementCall
from .sinks_state import MemoryState, Pins, SinkState, Strategy

FIELDS: Final[Mapping[wire.Service, Mapping[Dimension, str]]] = MappingProxyType(
    {
        wire.Service.VECTORIZER: {"vectors": "vector_count", "storage_bytes": "storage_bytes"},
        wire.Service.NEXUS: {
            "nodes": "nodes_created",
            "relationships": "relationships_created",
            "storage_bytes": "storage_bytes",
            "credits": "credits_used",
        },
        wire.Service.SYNAP: {"messages": "message_count", "storage_bytes": "storage_bytes"},
        wire.Service.LESSTOKENS: {"tokens": "amount"},
    }
)
"""Which field of its service's call a dimension goes into. Every other dimension cannot be said."""


class ServiceCalls(Protocol):
    """The typed calls of a hub (`hivetenancy.hub.client.HiveHub`)."""

    @property
    def vectorizer(self) -> StatesCollections:
        """Calls 5 to 9."""
        ...

    @property
    def nexus(self) -> AddsToGraph:
        """Calls 10 to 13."""
        ...

    @property
    def synap(self) -> StatesResources:
        """Calls 14 to 18."""
        ...

    @property
    def lesstokens(self) -> TakesTokens:
        """Calls 19 to 23."""
        ...


def usage_sink(
    service: wire.Service,
    calls: ServiceCalls,
    *,
    clock: Clock,
    state: SinkState | None = None,
    window_us: int = 0,
    synap_usage: Literal["absolute", "increment"] | None = None,
    settle_us: int = SETTLE_US,
) -> CallSink:
    """Build the sink of a service on a hub that takes no running totals.

    Args:
        service: The service.
        calls: Its calls.
        clock: The host's clock.
        state: What outlives the process; ``None``: nothing. It must be open.
        window_us: How long the hub remembers idempotency keys (``idempotency_window_seconds`` of X0); 0: it has none.
        synap_usage: How Synap's usage call is to be understood. The wire does not say.
        settle_us: How long after its sending a request may still arrive, where outcomes are read back.

    Raises:
        ConfigurationError: *synap_usage* is needed and missing, or the usage of this service was reported in another
            way before; the message says which.
    """
    kept = MemoryState() if state is None else state
    alarms, fields = Alarms(clock), FIELDS[service]

    def adding(call: Adds, otherwise: Strategy) -> UsageCall:
        as_before = kept.pinned().get(call.name) == otherwise  # a hub that has learnt about keys since changes nothing
        strategy = Strategy.IDEMPOTENCY_KEY if window_us and not as_before else otherwise
        return IncrementCall(
            call, strategy, state=kept, alarms=alarms, clock=clock, window_us=window_us, settle_us=settle_us
        )

    if service is wire.Service.VECTORIZER:
        call: UsageCall = CollectionTotals(calls.vectorizer, fields, state=kept, clock=clock)
    elif service is wire.Service.NEXUS:
        call = adding(GraphUsage(calls.nexus, fields), Strategy.READ_BACK)
    elif service is wire.Service.LESSTOKENS:
        call = adding(TokensSpent(calls.lesstokens, tuple(fields)), Strategy.READ_BACK)
    elif synap_usage == "absolute":
        call = ResourceTotals(calls.synap, fields, state=kept, clock=clock)
    elif synap_usage == "increment":
        call = adding(ResourceUsage(calls.synap, fields), Strategy.INCREMENT)
    else:
        raise ConfigurationError(
            "HiveHub's call that takes Synap's usage does not say whether it takes totals or increments. Ask whoever "
            "runs the hub, and say synap_usage='absolute' (each call states the total) or synap_usage='increment' "
            "(each call adds); the wrong one bills wrongly"
        )
    return CallSink([call], clock=clock, state=kept, alarms=alarms)


def pin_cumulative(state: Pins) -> None:
    """Settle that usage is reported as running totals (X4), so that a hub which stops to announce them is an outage.

    Raises:
        ConfigurationError: It was reported by calls before, and both would count; an operator has to decide.
    """
    state.pin(USAGE, Strategy.CUMULATIVE)
