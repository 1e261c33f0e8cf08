"""What a tenancy knew before it was restarted: taken from a state file at start, written back while it runs.

Nothing of it opens a door by itself. Limits serve by their age, counted from the wall clock of the sending, since a
monotonic clock does not survive a restart. Keys are known by digest alone and are verified again before any of them
counts. The place in the change feed lets the hub say what happened in between, or that it cannot, which is a reset.
"""

from __future__ import annotations

import asyncio

from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.clock import Clock
from hivetenancy.errors import ConfigurationError
from hivetenancy.hub.kept import FeedPlace, KeptAnnouncement, KeptLimits, Knowledge, age_us, plans_of
from hivetenancy.hub.store import StateStore
from hivetenancy.ids import TenantId
from hivetenancy.limits import CachedLimits, LimitsEntry


class Recollection:
    """One state file, and those who remember by it.

    Args:
        store: The file. It is opened by `begin` and closed by `end`.
        clock: What time it is.

    Concurrency:
        For the thread of the loop.
    """

    def __init__(self, store: StateStore, *, clock: Clock) -> None:
        self.store = store
        self._clock = clock
        self._open = False

    async def begin(self) -> Knowledge:
        """Open the file and return what it holds.

        Raises:
            ConfigurationError: The file cannot be used; the message names it and the remedy.
        """
        knowledge = await asyncio.to_thread(self.store.open)
        self._open = True
        return knowledge

    def stamp(self, knowledge: Knowledge, hub_id: str) -> None:
        """Make sure that the file is of this hub, as one in this process says itself.

        Raises:
            ConfigurationError: It is of another one.
        """
        known = knowledge.announcement
        if known is None:
            self.store.put_announcement(KeptAnnouncement(hub_id=hub_id, epoch=0))
        elif known.hub_id != hub_id:
            raise ConfigurationError(
                f"the state file {self.store.path} is of the hub {known.hub_id}, and this is {hub_id}; "
                "give each hub a file of its own, or move this one away"
            )

    def recall(self, knowledge: Knowledge, *, feed: Feed, limits: CachedLimits, keys: CachedAccessKeys | None) -> None:
        """Give everybody what they knew. To be called before anything is asked of the hub.

        Args:
            knowledge: What the file holds.
            feed: Goes on where it stopped.
            limits: Serves by age.
            keys: Verifies by digest; ``None`` where keys come from elsewhere than the hub.
        """
        place = knowledge.place
        if place is not None:
            feed.resume(place.epoch, place.cursor, place.revision)

        def known(tenant: TenantId) -> LimitsEntry | None:
            kept, now = knowledge.limits.get(tenant), self._clock.now()
            return (
                None
                if kept is None
                else LimitsEntry(kept.limits, now[0] - age_us(kept, now), kept.epoch, kept.revision)
            )

        limits.recall(known, revision=0 if place is None else place.revision, tenants=plans_of(knowledge.limits))
        if keys is not None:
            keys.recall(knowledge.digests)

    async def end(self) -> None:
        """Write what is waiting, and close the file."""
        if self._open:
            self._open = False
            await asyncio.to_thread(self.store.close)

    # --- what is written down ---

    def moved(self, epoch: int, cursor: str, revision: int) -> None:
        """Keep the place in the feed."""
        if self._open:
            self.store.put_place(FeedPlace(epoch=epoch, cursor=cursor, revision=revision))

    def limits_kept(self, tenant: TenantId, entry: LimitsEntry | None) -> None:
        """Keep the limits of a tenant; ``None``: forget them."""
        if not self._open:
            return
        if entry is None:
            self.store.drop_limits(tenant)
            return
        now = self._clock.now()
        sent_us = max(0, now[1] - (now[0] - entry.sent_us))
        kept = KeptLimits(limits=entry.limits, epoch=entry.epoch, revision=entry.revision, sent_us=sent_us)
        self.store.put_limits(tenant, kept)

    def key_kept(self, digest: bytes, kept: bool) -> None:
        """Keep, or forget, the digest of a key."""
        if self._open:
            (self.store.put_digests if kept else self.store.drop_digests)((digest,))
