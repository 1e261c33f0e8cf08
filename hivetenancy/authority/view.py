"""What a control plane answers from one revision of its knowledge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Final

from hivetenancy.access_keys.format import digest
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.sources import BatchAnswer, KeyAnswer, KeyState, LimitsAnswer, LimitsBatch, TenantLimits

from .state import HubState

MAX_BATCH: Final = 1_000
"""Digests or tenants in one question (HiveHub wire 4.3, 4.5)."""

MAX_SOURCES: Final = 64
"""Sources in one question about limits (HiveHub wire 4.5)."""


ALL_EXTENSIONS: Final = (
    "announcement",
    "introspection",
    "changes",
    "limits",
    "usage",
    "idempotency",
    "key_management",
)
"""X0 to X6 by their names (HiveHub wire 4)."""

WIRE_VERSION: Final = "1.0"
"""Version of the extensions that an announcement speaks of."""

CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{1,512}", re.ASCII)
"""What every cursor of the wire looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a hub says of itself to whoever asks with a service key (HiveHub wire 4.1).

    Attributes:
        version: Of the extensions.
        hub_id: Which hub it is.
        authority: ``hivehub``, ``local`` or ``fake``.
        epoch: The epoch.
        revision: The revision of the latest change.
        now_us: The hub's wall time.
        service: The one service that the asking key speaks for; ``None``: all.
        scopes: What that key may do, in alphabetical order.
        extensions: What the hub speaks, in the order of `ALL_EXTENSIONS`.
        idempotency_window_seconds: How long an idempotency key is remembered.
        usage_grace_seconds: How long a period takes reports after its end.
    """

    version: str
    hub_id: str
    authority: str
    epoch: int
    revision: int
    now_us: int
    service: str | None
    scopes: tuple[str, ...]
    extensions: tuple[str, ...]
    idempotency_window_seconds: int
    usage_grace_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedKey:
    """What a key is worth, with what the wire says beside it; both ``None`` for an unknown key.

    Attributes:
        key: What it is worth.
        service: The one service it is for; ``None``: all.
        last_used_at_us: When it was introspected before this; ``None``: never.
    """

    key: KeyState
    service: str | None
    last_used_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Keys in the order asked, from one snapshot."""

    epoch: int
    revision: int
    now_us: int
    keys: tuple[InspectedKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsPage:
    """The limits of some tenants, from one snapshot; *cursor* is where to go on, ``None`` at the end."""

    epoch: int
    revision: int
    now_us: int
    limits: tuple[TenantLimits, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubView:
    """State, with the epoch and revision that it is of.

    Attributes:
        epoch: The epoch.
        revision: The highest revision whose changes are all in *state*.
        state: What was known then.
    """

    epoch: int
    revision: int
    state: HubState = field(repr=False)

    def recent_enough(self, min_revision: int | None, epoch: int | None) -> None:
        """Refuse to answer who knows of something later than this (HiveHub wire 4.2).

        A revision of an earlier epoch says nothing about this one, so the answer of the later epoch counts as later.

        Raises:
            HubUnavailableError: The question names a later epoch, or a later revision of this one.
        """
        asked = self.epoch if epoch is None else epoch
        least = min_revision if min_revision is not None and asked == self.epoch else 0
        if (asked, least) > (self.epoch, self.revision):
            raise HubUnavailableError(
                f"replica behind: at revision {self.epoch}/{self.revision}, asked for {asked}/{min_revision}"
            )

    def key(self, credential: bytes, now_us: int, service: str | None = None) -> KeyAnswer:
        """Say what the key *credential* is worth to *service*."""
        key = self.state.key_state(digest(credential), now_us, service)
        return KeyAnswer(epoch=self.epoch, revision=self.revision, now_us=now_us, key=key)

    def keys(self, digests: Sequence[bytes], now_us: int, service: str | None = None) -> BatchAnswer:
        """Say what the keys behind *digests* are worth to *service*, in the order asked.

        Raises:
            ValueError: More than 1,000 digests.
        """
        _at_most("digests", digests, MAX_BATCH)
        keys = tuple(self.state.key_state(presented, now_us, service) for presented in digests)
        return BatchAnswer(epoch=self.epoch, revision=self.revision, now_us=now_us, keys=keys)

    def inspect(self, digests: Sequence[bytes], now_us: int, service: str | None = None) -> Inspection:
        """Say the same as `keys`, with which service each key is for and when it was last used.

        Raises:
            ValueError: More than 1,000 digests.
        """
        _at_most("digests", digests, MAX_BATCH)
        keys = tuple(self._inspected(presented, now_us, service) for presented in digests)
        return Inspection(epoch=self.epoch, revision=self.revision, now_us=now_us, keys=keys)

    def _inspected(self, presented: bytes, now_us: int, service: str | None) -> InspectedKey:
        held = self.state.key_behind(presented, service)
        return InspectedKey(
            key=self.state.key_state(presented, now_us, service),
            service=None if held is None else held.service,
            last_used_at_us=None if held is None else self.state.last_used.get(held.key_id),
        )

    def limits(self, tenant: TenantId, sources: Sequence[str], now_us: int) -> LimitsAnswer:
        """Say what limits *tenant*.

        Raises:
            ValueError: More than 64 sources.
        """
        _at_most("sources", sources, MAX_SOURCES)
        limits = self.state.limits(tenant, sources, now_us)
        return LimitsAnswer(epoch=self.epoch, revision=self.revision, now_us=now_us, limits=limits)

    def limits_batch(self, tenants: Sequence[TenantId], sources: Sequence[str], now_us: int) -> LimitsBatch:
        """Say what limits *tenants*, in the order asked.

        Raises:
            ValueError: More than 1,000 tenants, or more than 64 sources.
        """
        _at_most("tenants", tenants, MAX_BATCH)
        _at_most("sources", sources, MAX_SOURCES)
        limits = tuple(self.state.limits(tenant, sources, now_us) for tenant in tenants)
        revisions = (self.revision,) * len(limits)
        return LimitsBatch(epoch=self.epoch, now_us=now_us, limits=limits, revisions=revisions)

    def limits_page(self, limit: int, cursor: str | None, sources: Sequence[str], now_us: int) -> LimitsPage:
        """Say what limits the next *limit* tenants after *cursor*, in the order of their ids.

        Raises:
            ValueError: *limit* is not 1 to 1,000, the cursor is none, or more than 64 sources.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_BATCH:
            raise ValueError(f"limit must be 1 to {MAX_BATCH}")
        if cursor is not None and CURSOR.fullmatch(cursor) is None:
            raise ValueError("a cursor is 1-512 of A-Z a-z 0-9 _ -, as the page before gave it")
        _at_most("sources", sources, MAX_SOURCES)
        after = cursor or ""
        found = nsmallest(limit + 1, (tenant for tenant in self.state.tenants if tenant > after))
        limits = (self.state.limits(tenant, sources, now_us) for tenant in found[:limit])
        return LimitsPage(
            epoch=self.epoch,
            revision=self.revision,
            now_us=now_us,
            limits=tuple(each for each in limits if each is not None),
            cursor=str(found[limit - 1]) if len(found) > limit else None,
        )


def _at_most(what: str, items: Sequence[object], limit: int) -> None:
    if len(items) > limit:
        raise ValueError(f"at most {limit} {what} in one question, got {len(items)}")
