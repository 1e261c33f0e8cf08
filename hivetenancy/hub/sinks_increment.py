"""Usage by calls that add: 12, 13, 21, and 17 where the operator says so.

An increment that is sent twice counts twice, and one that is not sent is lost; so everything here is about an outcome
that is not known. Whatever is about to be sent is frozen into a *delivery*: the amounts, which cells they come from and
up to where. It is kept before it is sent, one for an account at a time, and it is never built anew: either it is
repeated to the byte under its idempotency key, or the hub's own count is read, or it is parked with an alarm. What is
parked counts as told: the cell goes on with what comes after.

- *Under a key* a repeat is harmless for as long as the hub remembers the key. In the window's last hour, and later, it
  might not, and the delivery is parked. A refusal changes nothing at the hub, so a delivery that was only ever refused
  is dropped; one whose earlier fate is unknown is kept, for the earlier sending may still arrive.
- *By reading back* the hub's count is read before and, when `SETTLE_US` have passed in which whatever was under way
  arrives, after. No difference: it was not applied, and the amount is sent anew. Just the amount: it was. Anything else
  cannot be told (somebody else counts there, or it was applied twice) and is parked, never guessed. Bytes that the hub
  tells in megabytes decide nothing as long as something exact was sent with them, or they fill one.
  What is left over: a request that arrives after `SETTLE_US`, or twice after its first outcome was known; and somebody
  else's call of just the same amount in between. That is the residual of today's wire.
- *Once*: an unknown outcome is parked at once.

An increment cannot be negative. When more is deleted than was added, the hub holds too much; that debt is carried here
and is paid out of what is added next. It is forgotten with the process.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hivetenancy.clock import HOUR_US, MINUTE_US, Clock, Instant
from hivetenancy.errors import ConfigurationError, StoreUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.sources import RejectCode, UsageKind, UsageLine

from .kept import Delivery
from .sinks import (
    Account,
    Alarms,
    Cell,
    CellId,
    Outcome,
    UsageCall,
    Verdict,
    attempt,
    field_of,
    later,
    sums,
)
from .sinks_absolute import split_resource
from .sinks_calls import Adds
from .sinks_state import Deliveries, Strategy

SETTLE_US: Final = 2 * MINUTE_US
"""How long after its sending a request may still arrive: four times the deadline of a call."""

SAFETY_US: Final = HOUR_US
"""Part of the window of an idempotency key in which nothing is repeated any more (HiveHub wire 4.7)."""

_DELIVERIES_A_TURN: Final = 4
"""What is found not applied is sent anew at once; a hub that loses everything must not keep a turn for ever."""

_MEGABYTES: Final = (1_000_000, 1 << 20)
"""The wire says ``mb`` and not which; both are allowed for."""


# --- deliveries ------------------------------------------------------------------------------------------------------

_Share: TypeAlias = tuple[CellId | None, str, int]
"""A cell, or what dropped ones left behind; the field; how much of the delivery is its."""


@dataclass(slots=True)
class _Pending:
    """A delivery: what is sent, or was, with an unknown outcome.

    Attributes:
        id: Its idempotency key.
        amounts: By field, each above 0.
        shares: Which cells the amounts come from.
        before: What the hub counted before it was sent, where it is read back.
        first: When it was first about to be sent; the monotonic time is of this process.
        kept: Whether it lies where a restart finds it.
        uncertain: Whether it may have been applied.
    """

    id: str
    amounts: dict[str, int]
    shares: list[_Share]
    before: dict[str, int] | None = None
    first: Instant | None = None
    kept: bool = False
    uncertain: bool = False

    def encode(self, call: str, account: Account) -> bytes:
        """Return it as it is kept; no secret is in it."""
        writer = next((id_[0] for id_, _, _ in self.shares if id_ is not None), "")
        shares = [[None if id_ is None else list(id_), name, share] for id_, name, share in self.shares]
        said = {"call": call, "tenant": account.tenant, "resource": account.resource, "amounts": self.amounts}
        return json.dumps({**said, "before": self.before, "writer": writer, "shares": shares}).encode()


def _share(share: list[Any]) -> _Share:
    id_, name, amount = share
    if id_ is None:
        return None, str(name), int(amount)
    writer, dimension, kind, period, reason = id_
    return (writer, dimension, UsageKind(kind), period, reason), str(name), int(amount)


class IncrementCall:
    """A call that adds, with the strategy that fits the hub.

    Args:
        call: The call.
        strategy: ``IDEMPOTENCY_KEY``, ``READ_BACK`` (for a call that can be read back) or ``INCREMENT``.
        state: Where deliveries are kept before they are sent.
        alarms: Where those go whose fate cannot be told.
        clock: For the window and the settling time.
        window_us: How long the hub remembers an idempotency key.
        settle_us: How long a request may still arrive after its sending.

    Raises:
        ConfigurationError: The strategy does not fit the call, or a window of no more than `SAFETY_US` was announced.
    """

    def __init__(
        self,
        call: Adds,
        strategy: Strategy,
        *,
        state: Deliveries,
        alarms: Alarms,
        clock: Clock,
        window_us: int = 0,
        settle_us: int = SETTLE_US,
    ) -> None:
        if strategy in (Strategy.ABSOLUTE, Strategy.CUMULATIVE):
            raise ConfigurationError(f"{call.name} adds; it cannot be used as {strategy}")
        if strategy is Strategy.READ_BACK and not hasattr(call, "read"):
            raise ConfigurationError(f"nothing tells what {call.name} has added, so it cannot be read back")
        if strategy is Strategy.IDEMPOTENCY_KEY and window_us <= SAFETY_US:
            raise ConfigurationError("a hub that remembers idempotency keys for no more than an hour is of no use")
        self.name: str = call.name
        self.strategy = strategy
        self.exclusive: bool = strategy is Strategy.READ_BACK
        self._call = call
        self._state = state
        self._alarms = alarms
        self._clock = clock
        self._window_us = window_us
        self._settle_us = settle_us
        self._fields = tuple(dict.fromkeys(call.fields.values()))

    # --- as a `UsageCall` ---

    def field(self, line: UsageLine) -> str | None:
        """Return the field of *line*."""
        if self._call.of_resources and split_resource(line.resource) is None:
            return None
        return field_of(line, self._call.fields, resource=self._call.of_resources)

    def fold(self, cell: Cell) -> int:
        """What has yet to be told stays, and what was told too much."""
        return cell.total - cell.told

    def due(self, account: Account, now_us: int) -> bool:
        """Never: a call that is under way is looked after as such."""
        return False

    def inherited(self) -> tuple[tuple[TenantId, str | None], ...]:
        """Nothing but its deliveries."""
        return ()

    def debts(self, account: Account) -> Mapping[str, int]:
        """Return what was deleted beyond what was added since, by field."""
        found = sums(account, lambda cell: cell.total - cell.told, self._fields)
        pending = account.scratch
        if isinstance(pending, _Pending):
            found.update({name: found[name] - amount for name, amount in pending.amounts.items()})
        return {name: -amount for name, amount in found.items() if amount < 0}

    def adopt(self, delivery: Delivery, account: Callable[[TenantId, str | None], Account]) -> str | None:
        """Take over a delivery that an earlier process kept. It may have been sent."""
        said = json.loads(delivery.body)
        if said["call"] != self.name:
            return None
        found = account(TenantId(said["tenant"]), said["resource"])
        shares = [_share(share) for share in said["shares"]]
        for id_, name, amount in shares:
            if id_ is not None:
                # Its total here is what the delivery says, until its reporter shows up and says more.
                found.cell(id_, name).value += amount
            else:
                found.folded[name] = found.folded.get(name, 0) + amount
        found.scratch = _Pending(
            id=delivery.id,
            amounts=said["amounts"],
            shares=shares,
            before=said["before"],
            first=(self._clock.now()[0], delivery.first_sent_us),
            kept=True,
            uncertain=True,
        )
        found.pending = True
        return str(said["writer"])

    async def bring(self, account: Account) -> Verdict:
        """Tell the hub what it has not been told, once it is known what became of the last time."""
        for _ in range(_DELIVERIES_A_TURN):
            pending = account.scratch
            if not isinstance(pending, _Pending):
                pending = self._freeze(account)
                if pending is None:
                    return None
            verdict = await self._drive(account, pending)
            if verdict is not None:
                return verdict
        return RejectCode.BUSY

    # --- one delivery ---

    def _freeze(self, account: Account) -> _Pending | None:
        """Freeze what the hub lacks; ``None``: nothing."""
        lacking = sums(account, lambda cell: cell.total - cell.told, self._fields)
        amounts = {name: amount for name, amount in lacking.items() if amount > 0}
        if not amounts:
            return None
        shares: list[_Share] = [
            (cell.id, cell.field, cell.total - cell.told)
            for cell in account.cells.values()
            if cell.field in amounts and cell.total != cell.told
        ]
        shares += [(None, name, left) for name, left in account.folded.items() if name in amounts and left]
        pending = account.scratch = _Pending(id=secrets.token_hex(16), amounts=amounts, shares=shares)
        account.pending = True
        return pending

    async def _drive(self, account: Account, pending: _Pending) -> Verdict:
        """Go one step towards knowing what becomes of a delivery; ``None``: it is known, or given up."""
        if pending.uncertain:
            if self.strategy is Strategy.READ_BACK:
                return await self._read_back(account, pending)
            if why := self._hopeless(pending):
                self._park(account, pending, why)
                return None
        elif (verdict := await self._prepare(account, pending)) is not None:
            return verdict
        return await self._send(account, pending)

    async def _prepare(self, account: Account, pending: _Pending) -> Verdict:
        """Read what the hub counts, if that will be compared, and keep the delivery."""
        if self.strategy is Strategy.READ_BACK and pending.before is None:
            found, verdict = await self._read(account)
            if found is None:
                self._forget(account, pending)
                return verdict
            pending.before = found
        if pending.first is None:
            pending.first = self._clock.now()
        try:
            await self._state.put_delivery(pending.id, pending.first[1], pending.encode(self.name, account))
        except StoreUnavailableError as error:
            self._forget(account, pending)
            return later(f"what is about to be sent cannot be kept, so it is not sent: {error}")
        pending.kept = True
        return None

    async def _send(self, account: Account, pending: _Pending) -> Verdict:
        before, pending.uncertain = pending.uncertain, True
        key = pending.id if self.strategy is Strategy.IDEMPOTENCY_KEY else None
        outcome, verdict = await attempt(self._call.add(account, pending.amounts, key))
        if outcome is Outcome.DONE:
            self._settle(account, pending)
        elif outcome is Outcome.UNKNOWN:
            if self.strategy is Strategy.INCREMENT:
                self._park(account, pending, "its outcome is unknown")
                return None
        elif not before:
            self._forget(account, pending)
        elif outcome is Outcome.REFUSED and verdict is not RejectCode.BUSY:
            self._park(account, pending, f"a repeat was refused ({verdict}), and an earlier sending may have counted")
        return verdict

    def _hopeless(self, pending: _Pending) -> str:
        """Say why a delivery that may have counted must not be repeated; nothing: it may be."""
        if self.strategy is Strategy.INCREMENT:
            return "it was under way when its sender was stopped"
        assert pending.first is not None  # it was sent
        now = self._clock.now()
        age_us = max(now[0] - pending.first[0], now[1] - pending.first[1])  # one clock may have been set back
        if age_us >= self._window_us - SAFETY_US:
            return "its outcome stayed unknown for as long as its key is remembered"
        return ""

    async def _read_back(self, account: Account, pending: _Pending) -> Verdict:
        assert pending.first is not None
        if self._clock.now()[0] < pending.first[0] + self._settle_us:
            return RejectCode.BUSY  # no outage: what else the reporter has to say need not wait for this
        after, verdict = await self._read(account)
        if after is None:
            return verdict
        applied = compare(pending.before or {}, after, pending.amounts)
        if applied is None:
            self._park(account, pending, "what the hub counts tells neither that it was applied nor that it was not")
        elif applied:
            self._settle(account, pending)
        else:
            self._forget(account, pending)
        return None

    async def _read(self, account: Account) -> tuple[dict[str, int] | None, Verdict]:
        found: dict[str, int] = {}

        async def ask() -> None:
            found.update(await self._call.read(account))  # type: ignore[attr-defined]  # seen to when built

        _, verdict = await attempt(ask())
        return (found, None) if verdict is None else (None, verdict)

    # --- ends ---

    def _settle(self, account: Account, pending: _Pending, *, parked: bool = False) -> None:
        """Take the amounts for told."""
        for id_, name, share in pending.shares:
            if id_ is None:
                account.folded[name] -= share
            else:
                account.cells[id_].told += share
                account.cells[id_].parked += share if parked else 0
        self._forget(account, pending)

    def _park(self, account: Account, pending: _Pending, why: str) -> None:
        self._alarms.park(self.name, account, pending.amounts, why)
        self._settle(account, pending, parked=True)

    def _forget(self, account: Account, pending: _Pending) -> None:
        """Drop the delivery; what it held is frozen anew, unless it was settled."""
        account.scratch, account.pending = None, False
        if pending.kept or pending.first is not None:
            self._state.drop_delivery(pending.id)


def compare(before: Mapping[str, int], after: Mapping[str, int], amounts: Mapping[str, int]) -> bool | None:
    """Say from the hub's count whether *amounts* were added to it once.

    Args:
        before: The count before, by field; bytes in megabytes as ``storage_mb``.
        after: The count after.
        amounts: What was to be added, each above 0.

    Returns:
        ``True``: once. ``False``: not at all. ``None``: that cannot be told.

    Example:
        >>> compare({"amount": 5}, {"amount": 8}, {"amount": 3})
        True
        >>> compare({"amount": 5}, {"amount": 6}, {"amount": 3}) is None
        True
        >>> compare({"storage_mb": 5}, {"storage_mb": 5}, {"storage_bytes": 300}) is None
        True
    """
    exact = {name: amount for name, amount in amounts.items() if name in before and name in after}
    if exact:
        gained = {name: after[name] - before[name] for name in exact}
        return True if gained == exact else False if not any(gained.values()) else None
    stored = amounts.get("storage_bytes", 0)
    gained_mb = after.get("storage_mb", 0) - before.get("storage_mb", 0)
    least, most = stored // _MEGABYTES[1], stored // _MEGABYTES[0] + 1
    if least < 1:
        return None  # applied or not, the megabytes may look the same
    return False if gained_mb == 0 else True if least <= gained_mb <= most else None


if TYPE_CHECKING:
    _conforms: type[UsageCall] = IncrementCall
