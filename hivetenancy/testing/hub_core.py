"""A HiveHub in memory, from the side of the test: tenants, time, faults, the journal.

`hivetenancy.testing.hub.FakeHiveHub` adds the side of code under test. What a *test* does always works and is not
journalled; what *code under test* asks goes through `hivetenancy.testing.hub_door.Door`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from hivetenancy.authority.credentials import ALL_SCOPES, MintedServiceKey
from hivetenancy.authority.keys import ALPHABET, SECRET_LENGTH, mint
from hivetenancy.authority.view import HubView
from hivetenancy.clock import Clock
from hivetenancy.errors import ConfigurationError
from hivetenancy.ids import Dimension, Environment, KeyId, Permission, TenantId
from hivetenancy.plans import Plan

from .clock import ShiftedClock
from .faults import (
    CALLS,
    USUAL_FAULTS,
    Call,
    Connection,
    Events,
    Fault,
    Held,
    Planted,
    Reply,
    Weather,
    known,
    made_fault,
)
from .hub_door import Door
from .hub_model import FakeHubService, SkewedClock, listed
from .hub_tenants import FakeTenant, IssuedKey

_IDENTITY: Final = "default"
"""Whose the default service key is, at every start: usage sources go on belonging to the same holder."""


class MovableClock(Clock, Protocol):
    """A clock that a test can push ahead."""

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Move both times ahead together."""
        ...


class FakeHubCore:
    """What a test does with a fake hub; the arguments are those of `FakeHiveHub`."""

    def __init__(
        self,
        *,
        clock: MovableClock | None = None,
        plans: Iterable[Plan] | Mapping[str, Plan] = (),
        seed: int | None = None,
        extensions: Iterable[str] | None = None,
        service: str | None = None,
        state: str | PathLike[str] | None = None,
    ) -> None:
        if seed is not None and state is not None:
            raise ConfigurationError("seed= and state= do not go together: after a restart every id would come again")
        self._clock: MovableClock = ShiftedClock() if clock is None else clock
        self._wrong_clock = SkewedClock(self._clock)
        new_id, mint_secret = (uuid4, _random_secret) if seed is None else _seeded(seed)
        self.service = FakeHubService(
            clock=self._wrong_clock,
            path=state,
            plans=plans,
            new_id=new_id,
            mint_secret=mint_secret,
            **listed(extensions),
        )
        self._first_extensions = self.service.extensions
        self._door = Door(self._clock, self.service.wake)
        self._lock = threading.Lock()
        self._service_key: MintedServiceKey | None = None
        self._key_service = service
        self._rejecting = 0
        self._replica: HubView | None = None
        self._tenants = {name: self._tenant(TenantId(of), name) for of, name in self.service.names().items()}

    def __repr__(self) -> str:
        state = "down" if self.down else "up"
        return f"<FakeHiveHub {state}: {len(self._tenants)} tenants, revision {self.service.revision}>"

    def close(self) -> None:
        """Let go of the state file; without one nothing happens."""
        self.service.close()

    @property
    def hub_id(self) -> str:
        """Which hub this is."""
        return self.service.hub_id

    @property
    def authority(self) -> str:
        """``fake``: nothing but a test takes its word."""
        return self.service.authority

    @property
    def clock(self) -> MovableClock:
        """The hub's clock. Hand it to whatever is to live in the same time."""
        return self._clock

    @property
    def plans(self) -> Mapping[str, Plan]:
        """The plans as they are now, by name."""
        return self.service.plans

    def advance(self, seconds: float) -> None:
        """Push the clock ahead, let delayed calls go that are due, and end every waiting poll."""
        self._clock.advance(seconds)
        self._door.moved()
        self.service.wake()

    # --- what a test does --------------------------------------------------------------------------------------------

    def _tenant(self, tenant: TenantId, name: str) -> FakeTenant:
        return FakeTenant(self.service, tenant, name, lambda gone: self._tenants.pop(gone, None))

    def add_tenant(self, name: str, *, plan: str = "free") -> FakeTenant:
        """Create a tenant; its id is a random UUID.

        Raises:
            ConfigurationError: A tenant of that name is there (`tenant` returns it), or there is no such plan.
        """
        with self._lock:
            if name in self._tenants:
                raise ConfigurationError(f"this fake has a tenant called {name!r}; hub.tenant({name!r}) returns it")
            tenant = self._tenants[name] = self._tenant(self.service.add_tenant(name, plan=plan), name)
        return tenant

    def tenant(self, name: str) -> FakeTenant:
        """Return the tenant called *name*.

        Raises:
            ConfigurationError: There is none.
        """
        tenant = self._tenants.get(name)
        if tenant is None:
            raise ConfigurationError(f"this fake has no tenant called {name!r}; there are {sorted(self._tenants)}")
        return tenant

    @property
    def tenants(self) -> tuple[FakeTenant, ...]:
        """The tenants that were added here, oldest first."""
        with self._lock:
            return tuple(self._tenants.values())

    def define_plan(self, plan: Plan) -> None:
        """Add *plan*, or change the one of its name for every tenant on it."""
        self.service.define_plan(plan)

    def issue_unowned_key(self) -> IssuedKey:
        """Issue a key that no tenant owns, as HiveHub's oldest call does; it must open nothing."""
        return IssuedKey(self.service, self.service.issue_key(None, name="unowned", permissions=list(Permission)))

    def start_epoch(self) -> None:
        """Lose acknowledged history, as a restore from a backup would: every cursor is reset."""
        self.service.start_epoch()

    def reset(self) -> None:
        """Forget tenants, keys and usage in a new epoch, end every fault, empty the journal. Service keys stay."""
        self._door.heal()
        self._wrong_clock.skew(0)
        self._rejecting = 0
        self._show(None)
        self.service.set_extensions(self._first_extensions)
        with self._lock:
            self.service.clear()
            self._tenants.clear()
        self._door.forget()
        self.service.wake()

    # --- service keys ------------------------------------------------------------------------------------------------

    @property
    def service_key(self) -> str:
        """The secret of the default service key: of every scope, new for each fake, kept in memory alone."""
        with self._lock:
            if self._service_key is None:
                self._service_key = self.service.issue_service_key(self._key_service, identity=_IDENTITY)
            return self._service_key.secret

    def issue_service_key(self, service: str | None = None, scopes: Iterable[str] = ALL_SCOPES) -> MintedServiceKey:
        """Issue a service key for one service, or for all, with certain scopes; its secret is in no repr.

        Raises:
            ConfigurationError: There is no such service or scope.
        """
        return self.service.issue_service_key(service, scopes)

    # --- faults of the hub -------------------------------------------------------------------------------------------

    @property
    def down(self) -> bool:
        """Whether nothing answers. Set it, or use `outage` for a block."""
        return all(self._door.fails(name) for name in CALLS)

    @down.setter
    def down(self, down: bool) -> None:
        self._door.set_down(down)

    @contextmanager
    def outage(self, *names: str) -> Iterator[None]:
        """Let the calls *names* fail within the block; without names, all of them.

        A call fails with `HubUnavailableError`; polls that wait fail at once; no change is signalled until the block
        ends, and then each subscriber is called. Blocks nest. Changes of the hub itself go on.

        Raises:
            ConfigurationError: One of *names* is no call.
        """
        gone = known(names) or CALLS
        self._door.begin_outage(gone)
        try:
            yield
        finally:
            self._door.end_outage(gone)

    @contextmanager
    def stale_replica(self) -> Iterator[None]:
        """Answer what only reads from what is known now, whatever changes within the block.

        A question with a ``min_revision`` beyond that raises `HubUnavailableError`, as from a replica that is behind.
        The feed and the announcement are not served by the replica and tell of the changes.
        """
        before = self._replica
        self._show(self.service.snapshot())
        try:
            yield
        finally:
            self._show(before)

    def _show(self, view: HubView | None) -> None:
        self._replica = view
        self.service.answer_as_of(view)

    def skew(self, seconds: float) -> None:
        """Let the hub's own clock be wrong by *seconds* from now on; 0: right. `clock` itself stays as it is."""
        self._wrong_clock.skew(seconds)
        self.service.wake()

    @contextmanager
    def service_key_rejected(self) -> Iterator[None]:
        """Refuse every service key within the block: 401 over HTTP, to methods an error that is not transient."""
        with self._lock:
            self._rejecting += 1
        self.service.wake()
        try:
            yield
        finally:
            with self._lock:
                self._rejecting = max(0, self._rejecting - 1)
            self.service.wake()

    @contextmanager
    def without(self, *extensions: str) -> Iterator[None]:
        """Let *extensions* vanish from the wire within the block; methods are there as before.

        Raises:
            ConfigurationError: One of them is none.
        """
        before = self.service.extensions
        self.service.set_extensions(extensions)  # looked at before anything is taken away
        self.service.set_extensions(before - set(extensions))
        try:
            yield
        finally:
            self.service.set_extensions(before)

    def set_epoch(self, epoch: int) -> None:
        """Be in this epoch, a smaller one perhaps, as a hub that was restored wrongly."""
        self.service.set_epoch(epoch)

    def become_another_hub(self) -> str:
        """Be another hub with the same tenants, in its first epoch; return its id."""
        return self.service.become_another()

    # --- faults of calls ---------------------------------------------------------------------------------------------

    def fail(
        self,
        *names: str,
        times: int | None = 1,
        status: int | None = None,
        retry_after: int | None = None,
        connection: Connection | None = None,
        reply: Reply | None = None,
        events: Events | None = None,
        latency: float = 0.0,
        again: int | None = None,
    ) -> Planted:
        """Let calls go wrong in one way, which the other arguments say as `Fault` does.

        Args:
            names: Which calls; none: all.
            times: How many; ``None``: all until the fault is removed, which the end of a ``with`` block does.
            status: See `Fault`, as the following.
            retry_after: In seconds.
            connection: ``refused`` or ``reset``.
            reply: ``lost``, ``malformed``, ``truncated`` or ``slow``.
            events: ``reversed``, ``repeated``, ``skipped`` or ``cursor_lost``; of ``changes`` alone.
            latency: In seconds of the hub's clock.
            again: Deliver the request a second time, after so many further calls.

        Raises:
            ConfigurationError: One of *names* is no call, or the fault is none.

        Example:
            >>> from hivetenancy.testing import FakeHiveHub
            >>> FakeHiveHub().fail("limits", status=503, times=2)
            <Planted status 503 for 2 calls of limits>
        """
        fault = Fault(
            status=status,
            retry_after=retry_after,
            connection=connection,
            reply=reply,
            events=events,
            latency=latency,
            again=again,
        )
        chosen = known(names) or (("changes",) if events is not None else CALLS)
        return self._door.plan.plant(chosen, fault, times)

    def script(self, name: str, faults: Iterable[Fault | Mapping[str, Any] | None]) -> None:
        """Say what each of the next calls of *name* meets, in order; ``None``: nothing.

        Raises:
            ConfigurationError: *name* is no call, or one of *faults* is no fault.
        """
        known((name,))
        made = [None if fault is None else made_fault(fault) for fault in faults]
        if name != "changes" and any(fault is not None and fault.events is not None for fault in made):
            raise ConfigurationError('events is a fault of "changes" alone')
        self._door.plan.script(name, made)

    def faults(
        self, *names: str, seed: int, rate: float, kinds: Sequence[Fault | Mapping[str, Any]] = USUAL_FAULTS
    ) -> Weather:
        """Let calls meet faults by chance until the end of a ``with`` block.

        Args:
            names: Which calls; none: all.
            seed: The same seed and the same order of calls give the same faults.
            rate: Of so many calls, 0 to 1.
            kinds: What is drawn from, each as likely; by default `USUAL_FAULTS`.

        Raises:
            ConfigurationError: One of *names* is no call, or a value is out of range.
        """
        made = [made_fault(kind) for kind in kinds]
        if set(names) != {"changes"} and any(fault.events is not None for fault in made):
            raise ConfigurationError('events is a fault of "changes" alone: hub.faults("changes", ...)')
        return self._door.plan.chance(known(names) or CALLS, made, seed=seed, rate=rate)

    def lose_next_reply(self, name: str, *, times: int = 1) -> None:
        """Let the next call *name* do its work and lose the reply: it raises `HubUnavailableError`.

        Raises:
            ConfigurationError: *name* is no call, or *times* is below 1.
        """
        known((name,))
        if times < 1:
            raise ConfigurationError(f"times must be at least 1, got {times}")
        self._door.lose(name, times)

    @contextmanager
    def hold(self, name: str) -> Iterator[Held]:
        """Hold the replies to *name* back: made when asked, delivered when released or when the block ends.

        What changes in between is not in them, which is how an answer in flight comes to be older than a revocation.

        Raises:
            ConfigurationError: *name* is no call.
        """
        known((name,))
        held = self._door.hold(name)
        try:
            yield held
        finally:
            self._door.let_go(held, name)

    @property
    def late(self) -> int:
        """How many requests are still to arrive a second time."""
        return self._door.late

    async def deliver_late(self) -> int:
        """Let all of those arrive now; return how many there were."""
        return await self._door.deliver()

    def heal(self) -> None:
        """End everything that was made to go wrong with calls; requests that are late never arrive."""
        self._door.heal()

    @property
    def planted(self) -> list[str]:
        """What is made to go wrong with calls, in words."""
        return self._door.plan.listed()

    # --- the journal -------------------------------------------------------------------------------------------------

    @property
    def calls(self) -> tuple[Call, ...]:
        """What code under test asked, oldest first: the latest 10,000, without any secret."""
        return self._door.calls

    def count(self, name: str) -> int:
        """Return how often *name* was called since the hub was made or `forget_calls`.

        Raises:
            ConfigurationError: *name* is no call.
        """
        return self._door.count(name)

    def forget_calls(self) -> None:
        """Empty the journal and begin to count anew."""
        self._door.forget()

    def expect(self, *names: str) -> None:
        """Expect these calls, beside those expected before, and no others: `assert_expected` tells.

        Raises:
            ConfigurationError: One of *names* is no call.
        """
        self._door.expect(names)

    def assert_expected(self) -> None:
        """Assert that no call came that `expect` did not name; passes where that was never called.

        Raises:
            AssertionError: One did; the message lists the first hundred.
        """
        unexpected = self._door.unexpected
        if unexpected:
            lines = "\n  ".join(map(str, unexpected))
            raise AssertionError(f"calls of the hub that nobody expected (hub.expect names those that are):\n  {lines}")

    def assert_calls(self, name: str, times: int) -> None:
        """Assert that *name* was called exactly *times* times.

        Raises:
            AssertionError: It was not; the message lists what was called.
            ConfigurationError: *name* is no call.
        """
        if self.count(name) != times:
            latest = "\n  ".join(str(call) for call in self.calls[-20:]) or "nothing"
            raise AssertionError(
                f"{name} was called {self.count(name)} times, not {times}; the latest calls:\n  {latest}"
            )

    def assert_reported(
        self, tenant: FakeTenant | TenantId, dimension: Dimension, amount: int, *, resource: str | None = None
    ) -> None:
        """Assert that all sources together reported *amount* for a cell in the present period.

        Raises:
            AssertionError: They did not; the message shows each source.
            ConfigurationError: There is no such tenant, or nothing declares *dimension*.
        """
        tenant_id = tenant.id if isinstance(tenant, FakeTenant) else tenant
        by_source = self.service.used_by_source(tenant_id, dimension, resource=resource)
        reported = sum(by_source.values())
        if reported != amount:
            what = dimension if resource is None else f"{dimension} of {resource!r}"
            sources = ", ".join(f"{source[:8]}: {value}" for source, value in by_source.items()) or "none"
            raise AssertionError(
                f"{self.service.tenant(tenant_id).name} reported {reported} {what}, not {amount}; "
                f"by source: {sources}; {self.count('report')} reports came in all (was the reporter flushed?)"
            )


def _random_secret(key_id: KeyId, environment: Environment) -> str:
    """A fake's keys are of the test environment to look at, whatever the hub is made to say about them."""
    return mint(key_id, Environment.TEST)


def _seeded(seed: int) -> tuple[Callable[[], UUID], Callable[[KeyId, Environment], str]]:
    """Ids and secrets that are the same in each run, marked so that nothing but a test takes them."""
    draw = random.Random(seed)

    def new_id() -> UUID:
        return UUID(int=draw.getrandbits(128), version=4)

    def secret(key_id: KeyId, environment: Environment) -> str:
        body = "".join(draw.choice(ALPHABET) for _ in range(SECRET_LENGTH))
        return f"hh_test_seeded_{key_id.replace('-', '')[:12]}_{body}"

    return new_id, secret
