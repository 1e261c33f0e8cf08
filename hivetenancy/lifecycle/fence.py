"""Which tenants are refused new work, and which work of theirs is still under way. In memory, without a lock.

Each life of a tenant is one object, `Life`, that everything admitted for it holds: closing it is seen at once by
whoever was let in before, in whatever cache its caller stands. A life that has ended is never opened again; the tenant
gets a new one. So the request path asks one attribute of an object that it holds already.

Work in other threads (`Tenant.bind`) enters with a token before it looks whether it may, and the fence is closed before
anybody looks who has entered: one of the two sees the other. Adding to a set is one step in CPython, so no lock is
needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol
from weakref import WeakValueDictionary

from hivetenancy.decision import Reason
from hivetenancy.ids import Effect, TenantId

from .protocol import Standing, State
from .states import ADMITS, FIRST


class Ends(Protocol):
    """A request under way that can be ended."""

    def end(self, reason: Reason, /) -> None:
        """End it, soon and without blocking."""
        ...


class Life:
    """One life of one tenant.

    Attributes:
        tenant: The tenant.
        generation: Which life, from 1.
        admits: Effects that new work may have; ``None``: all.
        shut: Whether no new work at all is let in.
        ending: Whether it is being deleted or was: not even an operator puts anything there.
        over: Whether not even work under way may go on: it has been waited for.
        running: Admissions that are open. Of the home thread.
        detached: A token for each piece of bound work that runs, in whatever thread.
        requests: Requests and WebSockets whose handlers run, and can be ended; also behind their last byte, where an
            admission is closed already but a background task of the framework still works. Of the home thread.
    """

    __slots__ = (
        "__weakref__",
        "admits",
        "detached",
        "ending",
        "generation",
        "over",
        "requests",
        "running",
        "shut",
        "tenant",
    )

    def __init__(self, tenant: TenantId, standing: Standing) -> None:
        self.tenant = tenant
        self.generation = standing.generation
        self.running = 0
        self.detached: set[object] = set()
        self.requests: set[Ends] = set()
        self.stand(standing.state)

    def __repr__(self) -> str:
        return f"<Life {self.generation} of {self.tenant}: {self.busy} at work>"

    def stand(self, state: State) -> None:
        """Admit from now on what *state* admits."""
        self.admits: frozenset[Effect] | None = ADMITS[state]
        self.over = state is State.DELETED
        self.ending = state in (State.DELETING, State.DELETED)
        self.shut = self.admits is not None and not self.admits  # last: whoever sees it sees the rest

    @property
    def busy(self) -> int:
        """How much work of it is under way."""
        # A request stands in both while its admission is open, and in `requests` alone once that is closed.
        return max(self.running, len(self.requests)) + len(self.detached)

    def enter(self, part_of: object = None) -> object | None:
        """Note that detached work begins; ``None``: it may not. Any thread.

        Args:
            part_of: The admission that it belongs to, if any: while that is open its work may go on.
        """
        token = object()
        self.detached.add(token)
        if self.shut and not getattr(part_of, "open", False):
            self.detached.discard(token)
            return None
        return token

    def leave(self, token: object) -> None:
        """Note that detached work has ended. Any thread."""
        self.detached.discard(token)


class Fence:
    """Knows the present life of every tenant.

    Concurrency:
        Belongs to the home thread, but for what `Life` says.
    """

    def __init__(self) -> None:
        self._lives: Final[WeakValueDictionary[TenantId, Life]] = WeakValueDictionary()
        self._kept: Final[dict[TenantId, Life]] = {}  # those that are not as they would be made anew

    def life(self, tenant: TenantId) -> Life:
        """Return the present life of *tenant*: the same object for as long as anybody holds it."""
        found = self._lives.get(tenant)
        if found is None:
            found = self._lives[tenant] = Life(tenant, FIRST)
        return found

    def put(self, tenant: TenantId, standing: Standing) -> Life:
        """Have *tenant* stand at *standing* from now on; return the life that is meant.

        A generation other than the present one begins a new life, and ends the old one for whoever still holds it.
        """
        life = self.life(tenant)
        if life.generation == standing.generation:
            life.stand(standing.state)
        else:
            life.stand(State.DELETED)
            life = self._lives[tenant] = Life(tenant, standing)
        if standing == FIRST:
            self._kept.pop(tenant, None)
        else:
            self._kept[tenant] = life
        return life

    def restore(self, standings: Iterable[tuple[TenantId, Standing]]) -> None:
        """Take in what is written down, before anybody is let in."""
        for tenant, standing in standings:
            self.put(tenant, standing)
