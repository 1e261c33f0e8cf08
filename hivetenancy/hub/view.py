"""What a control plane answers from one revision of its knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hivetenancy.access_keys.format import digest
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import TenantId
from hivetenancy.sources import BatchAnswer, KeyAnswer, LimitsAnswer, LimitsBatch

from .state import HubState

MAX_BATCH: Final = 1_000
"""Digests or tenants in one question (HiveHub wire 4.3, 4.5)."""

MAX_SOURCES: Final = 64
"""Sources in one question about limits (HiveHub wire 4.5)."""


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

    def key(self, credential: bytes, now_us: int) -> KeyAnswer:
        """Say what the key *credential* is worth."""
        key = self.state.key_state(digest(credential), now_us)
        return KeyAnswer(epoch=self.epoch, revision=self.revision, now_us=now_us, key=key)

    def keys(self, digests: Sequence[bytes], now_us: int) -> BatchAnswer:
        """Say what the keys behind *digests* are worth, in the order asked.

        Raises:
            ValueError: More than 1,000 digests.
        """
        _at_most("digests", digests, MAX_BATCH)
        keys = tuple(self.state.key_state(presented, now_us) for presented in digests)
        return BatchAnswer(epoch=self.epoch, revision=self.revision, now_us=now_us, keys=keys)

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


def _at_most(what: str, items: Sequence[object], limit: int) -> None:
    if len(items) > limit:
        raise ValueError(f"at most {limit} {what} in one question, got {len(items)}")
