"""The control plane behind a fake: the common model, with the few things about it that only a test may do."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any
from uuid import uuid4

from hivetenancy.authority.feed import ChangeLog
from hivetenancy.authority.state import HubState
from hivetenancy.authority.statefile import KeptHubService
from hivetenancy.authority.view import HubView
from hivetenancy.clock import SECOND_US, Clock, Instant
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import KeyId


class SkewedClock:
    """A clock whose wall time is wrong by *skew_us*."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.skew_us = 0

    def now(self) -> Instant:
        """Return the present instant, as this clock believes it to be."""
        monotonic, wall = self._clock.now()
        return monotonic, wall + self.skew_us

    def skew(self, seconds: float) -> None:
        """Be wrong by *seconds* from now on; 0: right.

        Raises:
            ConfigurationError: More than ten years.
        """
        if not -315_360_000 <= seconds <= 315_360_000:
            raise ConfigurationError(f"a clock is skewed by ten years at most, got {seconds!r} seconds")
        self.skew_us = round(seconds * SECOND_US)


class FakeHubService(KeptHubService):
    """`HubService` that can answer from a replica, be emptied, and pretend to be another hub.

    Args:
        clock: Its clock.
        path: Keep it there; ``None``: in memory alone.
        **options: See `HubService`.
    """

    def __init__(self, *, clock: Clock, path: str | PathLike[str] | None = None, **options: Any) -> None:
        self._replica: HubView | None = None
        self._as_of = threading.local()
        super().__init__(path, clock=clock, authority="fake", **options)

    def answer_as_of(self, view: HubView | None) -> None:
        """Let the calls that only read see *view*; ``None``: the present."""
        self._replica = view

    @contextmanager
    def reading(self) -> Iterator[HubState]:
        """See `HubAccounts.reading`; from the replica, if there is one."""
        view = self._replica
        if view is None:
            with super().reading() as state:
                yield state
            return
        self._as_of.view = view
        try:
            yield view.state
        finally:
            self._as_of.view = None

    @property
    def epoch(self) -> int:
        """The present epoch, or within a reading that of what is read."""
        view: HubView | None = getattr(self._as_of, "view", None)
        return super().epoch if view is None else view.epoch

    @property
    def revision(self) -> int:
        """The revision of the latest change, or within a reading that of what is read."""
        view: HubView | None = getattr(self._as_of, "view", None)
        return super().revision if view is None else view.revision

    def clear(self) -> None:
        """Forget tenants, keys, usage and idempotency keys; service keys stay. A new epoch: history is lost."""
        with self.transaction() as state:
            fresh = HubState(dict(self._first_plans))
            for name in HubState.__slots__:
                if name != "service_keys":
                    setattr(state, name, getattr(fresh, name))
            self._log.start_epoch()

    def set_epoch(self, epoch: int) -> None:
        """Be in *epoch*, a smaller one perhaps, as a hub that was restored wrongly.

        Raises:
            ConfigurationError: It is below 1.
        """
        if type(epoch) is not int or not 1 <= epoch < 2**53:
            raise ConfigurationError(f"an epoch is a whole number from 1, got {epoch!r}")
        with self.transaction():
            self._log.start_epoch()
            self._log.epoch = epoch

    def become_another(self) -> str:
        """Be another hub from now on, in its first epoch, with the same tenants and keys; return its id."""
        with self.transaction():
            self._hub_id = str(uuid4())
            log = ChangeLog(self._hub_id.replace("-", ""))
            log.revision = self._log.revision
            self._log = log
        return self._hub_id

    def key_id_by(self, digest: bytes) -> KeyId | None:
        """Return the id of the key with that digest, live or not; ``None``: it is unknown."""
        with self._lock:
            return self._state.digests.get(digest)

    def names(self) -> Mapping[str, str]:
        """Return the names of the tenants by id."""
        return {record.tenant_id: record.name for record in self.tenants()}


def listed(extensions: Iterable[str] | None) -> dict[str, Iterable[str]]:
    """Return the argument of `HubService` for *extensions*; ``None``: what that speaks by itself."""
    return {} if extensions is None else {"extensions": extensions}
