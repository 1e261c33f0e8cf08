"""How the calls of today's wire count: each into the usage book under a name of its own, checked first, then booked.

A call's name (``call:12``) is none that a source can have, so nothing that a client names as its own ever holds it.
"""

from __future__ import annotations

from typing import Final

from hivetenancy.ids import Dimension
from hivetenancy.plans import MAX_AMOUNT
from hivetenancy.sources import QuotaStanding

from .keydesk import KeyDesk, bad_field, live_user
from .keys import checked_name
from .resources import UNLIMITED, CallRefused
from .state import HubState, TenantRecord

_U64: Final = 2**64


class BookingDesk(KeyDesk):
    """What the calls that count share; nothing here is a call."""

    def _consume(
        self,
        state: HubState,
        user_id: str,
        dimension: Dimension,
        amount: int,
        operation: str,
        call: int,
        refusal: tuple[str, str],
    ) -> int:
        """Take *amount* of a counter and return what is left of it."""
        if type(amount) is not int or not 0 <= amount < _U64:
            raise CallRefused(400, "bad_field", "amount: must be 0 to 2**64 - 1", "amount")
        with bad_field("operation"):
            checked_name("it", operation)
        record = self._user(state, user_id)
        live_user(record)
        self._take(state, record, dimension, amount, call, refusal)
        return available_of(state.standing(record, dimension, None, self._now_us()))

    def _take(
        self,
        state: HubState,
        record: TenantRecord,
        dimension: Dimension,
        amount: int,
        call: int,
        refusal: tuple[str, str],
    ) -> None:
        """Book *amount* if it fits; otherwise refuse with 429, having booked nothing."""
        left = left_of(state.standing(record, dimension, None, self._now_us()))
        if left is not None and amount > left:
            raise CallRefused(429, *refusal)
        self._add(state, record, dimension, amount, call, field="amount")

    def _add(
        self,
        state: HubState,
        record: TenantRecord,
        dimension: Dimension,
        amount: int,
        call: int,
        *,
        resource: str | None = None,
        field: str | None = None,
    ) -> None:
        start, value = self._sum(state, record, dimension, amount, call, resource=resource, field=field)
        state.usage.book(f"call:{call}", record.tenant_id, dimension, resource, start, value)

    def _sum(
        self,
        state: HubState,
        record: TenantRecord,
        dimension: Dimension,
        amount: int,
        call: int,
        *,
        resource: str | None = None,
        field: str | None = None,
    ) -> tuple[int | None, int]:
        """The period, and what *call* will have counted in it with *amount* more; refused where that is too large."""
        start = state.standing(record, dimension, resource, self._now_us()).period_start_us
        value = state.usage.booked(f"call:{call}", record.tenant_id, dimension, resource, start) + amount
        if not -MAX_AMOUNT < value < MAX_AMOUNT:
            field = field or dimension
            raise CallRefused(400, "bad_field", f"{field}: the total must stay below 2**53", field)
        return start, value


def left_of(standing: QuotaStanding) -> int | None:
    """What is left of a limit, never below 0; ``None``: there is none."""
    return None if standing.limit.limit is None else max(0, standing.limit.limit - standing.used)


def available_of(standing: QuotaStanding) -> int:
    """What is left as a number of the wire, `UNLIMITED` less what is used where nothing limits it."""
    return max(0, most_of(standing) - used_of(standing))


def most_of(standing: QuotaStanding) -> int:
    """The limit as a number of the wire, `UNLIMITED` where there is none."""
    return UNLIMITED if standing.limit.limit is None else standing.limit.limit


def used_of(standing: QuotaStanding) -> int:
    """What is used as a number of the wire: a delete that arrived before its write makes it no less than 0."""
    return min(max(0, standing.used), UNLIMITED)


def check_amount(field: str, amount: int) -> None:
    """Refuse what no total can hold.

    Raises:
        CallRefused: 400 ``bad_field``.
    """
    if type(amount) is not int or not 0 <= amount < MAX_AMOUNT:
        raise CallRefused(400, "bad_field", f"{field}: must be 0 to 2**53 - 1", field)
