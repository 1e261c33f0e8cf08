"""Usage by calls that state absolute totals: call 8, and call 17 where the operator says so.

The hub's number is a base and our running total. The base is what was there before our total began, and it is found
once: from the totals that were kept, else from the hub (vectors of a collection, by call 7), else it is zero. It is
never read again, because from the first statement on the hub's number contains ours. For the same reason a total is
kept *before* it is stated: after a crash it is the base, whether the call arrived or not.

A statement may be repeated for ever, but an old one that is delivered late undoes a newer one. So an unchanged total is
stated again every `REASSERT_US`, for `REASSERT_FOR_US` after its last change; then no old statement is under way any
more, and a million idle collections cost nothing.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from hivetenancy.clock import HOUR_US, SECOND_US, Clock
from hivetenancy.errors import ConfigurationError, HubContractError, StoreUnavailableError
from hivetenancy.ids import Dimension, TenantId
from hivetenancy.sources import RejectCode, UsageLine

from . import wire
from .kept import Delivery, UsageCell
from .sinks import (
    Account,
    Cell,
    UsageCall,
    Verdict,
    attempt,
    field_of,
    later,
    sums,
)
from .sinks_state import Absolutes, Strategy

_log: Final = logging.getLogger("hivetenancy.usage")

REASSERT_US: Final = 300 * SECOND_US
"""How often an unchanged total is stated again (quotas_and_usage 5.5)."""

REASSERT_FOR_US: Final = HOUR_US
"""For how long after its last change. No proxy holds a request for an hour."""


class StatesCollections(Protocol):
    """The calls of Vectorizer that usage needs (calls 7 and 8)."""

    async def validate_collection(self, collection_id: str, user_id: str) -> wire.CollectionValidation:
        """Call 7."""
        ...

    async def update_usage(
        self, collection_id: str, *, vector_count: int, storage_bytes: int
    ) -> wire.UpdatedCollection:
        """Call 8."""
        ...


class StatesResources(Protocol):
    """The call of Synap that usage needs (call 17)."""

    async def update_usage(
        self,
        user_id: str,
        *,
        resource_type: wire.ResourceType | str,
        resource_name: str,
        message_count: int | None = None,
        storage_bytes: int | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> None:
        """Call 17."""
        ...


@dataclass(slots=True)
class _Stated:
    """What is known of one account: its bases, and what was stated last and when, on the monotonic clock."""

    base: dict[str, int]
    totals: dict[str, int] | None = None
    at_us: int = 0
    changed_us: int = 0


class AbsoluteCall(ABC):
    """What calls 8 and 17 have in common.

    Args:
        fields: Which field of the call states a dimension; one dimension a field.
        state: Where totals are kept before they are stated.
        clock: For the restatements.

    Raises:
        ConfigurationError: Two dimensions share a field.
    """

    strategy: Final = Strategy.ABSOLUTE
    exclusive: Final = False
    name: str

    def __init__(self, fields: Mapping[Dimension, str], *, state: Absolutes, clock: Clock) -> None:
        if len(set(fields.values())) != len(fields):
            raise ConfigurationError("an absolute total is of one dimension; two cannot share a field")
        self._fields = dict(fields)
        self._state = state
        self._clock = clock
        self._kept = dict(state.absolutes())
        self._warned = False

    def field(self, line: UsageLine) -> str | None:
        """Return the field of *line*, which must name a resource."""
        return field_of(line, self._fields, resource=True)

    def fold(self, cell: Cell) -> int:
        """The whole total stays: the hub's number contains it."""
        return cell.total

    def adopt(self, delivery: Delivery, account: Callable[[TenantId, str | None], Account]) -> str | None:
        """No delivery is of this kind: a statement that may have been lost is merely made again."""
        return None

    def inherited(self) -> set[tuple[TenantId, str | None]]:
        """Return whose totals were kept: what was stated last may not have arrived, or something older after it."""
        return {(cell.tenant, cell.resource) for cell in self._kept if cell.dimension in self._fields}

    def debts(self, account: Account) -> Mapping[str, int]:
        """None: a statement takes back as well as it adds."""
        return {}

    def due(self, account: Account, now_us: int) -> bool:
        """Whether the total wants stating again."""
        stated = account.scratch
        if not isinstance(stated, _Stated) or stated.totals is None or now_us - stated.at_us < REASSERT_US:
            return False
        return stated.at_us - stated.changed_us < REASSERT_FOR_US

    async def bring(self, account: Account) -> Verdict:
        """State where the totals stand, if they changed or it is time."""
        now_us = self._clock.now()[0]
        stated = account.scratch
        if not isinstance(stated, _Stated):
            found = await self._bases(account)
            if not isinstance(found, dict):
                return found
            stated = account.scratch = _Stated(base=found)
        counted = sums(account, lambda cell: cell.total, self._fields.values())
        totals = {name: max(0, stated.base[name] + counted[name]) for name in counted}
        covered = {cell.id: cell.total for cell in account.cells.values()}
        if totals == stated.totals and not self.due(account, now_us):
            return None
        if totals != stated.totals:
            stated.totals, stated.changed_us = None, now_us
        verdict = await self._state_them(account, totals)
        if verdict is not None:
            return verdict
        stated.totals, stated.at_us = totals, now_us
        for id_, total in covered.items():
            account.cells[id_].told = total
        return None

    async def _state_them(self, account: Account, totals: Mapping[str, int]) -> Verdict:
        try:
            for dimension, name in self._fields.items():
                self._state.put_absolute(account.tenant, dimension, account.resource, totals[name])
            await self._state.flush()
        except StoreUnavailableError as error:
            return later(f"totals cannot be kept, so none is stated: {error}")
        return (await attempt(self._send(account, totals)))[1]

    @abstractmethod
    async def _send(self, account: Account, totals: Mapping[str, int]) -> None:
        """Make the call."""

    async def _bases(self, account: Account) -> dict[str, int] | Verdict:
        """Return what the hub held before our totals began: kept totals, or zero."""
        return {name: kept or 0 for name, kept in self._take_kept(account).items()}

    def _take_kept(self, account: Account) -> dict[str, int | None]:
        """Return the kept totals of an account by field, for the one time that they are wanted."""
        cells = {
            name: UsageCell(account.tenant, dimension, account.resource) for dimension, name in self._fields.items()
        }
        return {name: self._kept.pop(cell, None) for name, cell in cells.items()}


class CollectionTotals(AbsoluteCall):
    """Call 8: vectors and bytes of a collection. The resource of a line is the collection's id.

    A collection without a kept total is asked about (call 7), since call 8 does not say whose it is: one that is not
    the tenant's is refused for good. Its vectors are the base; its bytes cannot be read, so they count from the start
    of this process.
    """

    name = "vectorizer.update_usage"

    def __init__(
        self, calls: StatesCollections, fields: Mapping[Dimension, str], *, state: Absolutes, clock: Clock
    ) -> None:
        unknown = set(fields.values()) - {"vector_count", "storage_bytes"}
        if unknown:
            raise ConfigurationError(f"call 8 states vector_count and storage_bytes, not {', '.join(sorted(unknown))}")
        super().__init__(fields, state=state, clock=clock)
        self._calls = calls

    async def _bases(self, account: Account) -> dict[str, int] | Verdict:
        kept = self._take_kept(account)
        if None not in kept.values():
            return {name: total or 0 for name, total in kept.items()}
        answers: list[wire.CollectionValidation] = []

        async def ask() -> None:
            answers.append(await self._calls.validate_collection(account.resource or "", account.tenant))

        _, verdict = await attempt(ask())
        if verdict is not None:
            return RejectCode.UNKNOWN_USER if verdict is RejectCode.OUT_OF_RANGE else verdict
        (answer,) = answers
        if not answer.valid or (answer.user_id, answer.collection_id) != (account.tenant, account.resource):
            return RejectCode.UNKNOWN_USER
        vectors = answer.quota.current_vectors
        return {name: vectors if name == "vector_count" else self._unknown_bytes() for name in kept}

    def _unknown_bytes(self) -> int:
        if not self._warned:
            self._warned = True
            _log.warning(
                "HiveHub does not tell how many bytes a collection holds: where no total was kept (state=), "
                "storage_bytes counts from now, and what the hub knew before is overwritten"
            )
        return 0

    async def _send(self, account: Account, totals: Mapping[str, int]) -> None:
        answer = await self._calls.update_usage(
            account.resource or "",
            vector_count=totals.get("vector_count", 0),
            storage_bytes=totals.get("storage_bytes", 0),
        )
        if not (answer.success and answer.updated):
            raise HubContractError("HiveHub answers 200 to totals that it did not take")


class ResourceTotals(AbsoluteCall):
    """Call 17, where the operator says that it takes totals. The resource of a line is ``queue/orders``.

    Nothing tells what the hub held before, so without a kept total the base is zero.
    """

    name = "synap.update_usage"

    def __init__(
        self, calls: StatesResources, fields: Mapping[Dimension, str], *, state: Absolutes, clock: Clock
    ) -> None:
        check_resource_fields(fields)
        super().__init__(fields, state=state, clock=clock)
        self._calls = calls

    def field(self, line: UsageLine) -> str | None:
        """Return the field of *line*, whose resource must be a type and a name."""
        return None if split_resource(line.resource) is None else super().field(line)

    async def _send(self, account: Account, totals: Mapping[str, int]) -> None:
        found = split_resource(account.resource)
        assert found is not None
        await self._calls.update_usage(
            account.tenant,
            resource_type=found[0],
            resource_name=found[1],
            message_count=totals.get("message_count"),
            storage_bytes=totals.get("storage_bytes"),
            repeatable=True,
        )


def check_resource_fields(fields: Mapping[Dimension, str]) -> None:
    """See to it that call 17 has these fields.

    Raises:
        ConfigurationError: It has not.
    """
    unknown = set(fields.values()) - {"message_count", "storage_bytes"}
    if unknown:
        raise ConfigurationError(f"call 17 takes message_count and storage_bytes, not {', '.join(sorted(unknown))}")


def split_resource(resource: str | None) -> tuple[wire.ResourceType, str] | None:
    """Return type and name of a resource of Synap, which lines call ``queue/orders``; ``None`` where it is none.

    No name has a slash (HiveHub wire 4.9), so there is one way to read it.
    """
    kind, slash, name = (resource or "").partition("/")
    if not slash or not name or kind not in set(wire.ResourceType):
        return None
    return wire.ResourceType(kind), name


if TYPE_CHECKING:
    _conforms: tuple[type[UsageCall], type[UsageCall]] = (CollectionTotals, ResourceTotals)
