"""A HiveHub in memory, for tests: the control plane, with a clock to move, faults to switch, a journal to read.

The model is `hivetenancy.hub.service.HubService`, the same that other authorities are built on; only what is false on
purpose stands here. What a *test* does to the hub (`FakeHiveHub.add_tenant`, ``key.revoke()``) always works and is not
journalled; what *code under test* asks it (the four source protocols) goes through `_call`, which journals, and fails
where the test said so.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypeVar
from uuid import UUID, uuid4

from hivetenancy.clock import SECOND_US, Clock
from hivetenancy.errors import ConfigurationError, HubUnavailableError
from hivetenancy.hub.admin import UNCHANGED, MintedKey, Unchanged
from hivetenancy.hub.keys import ALPHABET, SECRET_LENGTH, mint
from hivetenancy.hub.service import HubService
from hivetenancy.hub.view import HubView
from hivetenancy.ids import Dimension, Environment, KeyId, Permission, TenantId
from hivetenancy.plans import Plan, Policy, QuotaLimit
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    KeyAnswer,
    LimitsAnswer,
    LimitsBatch,
    SourceConflict,
    TenantStatus,
    UsageReply,
    UsageReport,
)

from .clock import ShiftedClock
from .faults import CALLS, Call, Held, known

if TYPE_CHECKING:
    from hivetenancy.sources import ControlPlane, SignalsChanges

JOURNAL: Final = 10_000
"""Calls that the journal keeps; older ones only count."""

_Answer = TypeVar("_Answer")
_Same: TypeAlias = Literal[Unchanged.UNCHANGED]


class MovableClock(Clock, Protocol):
    """A clock that a test can push ahead."""

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Move both times ahead together."""
        ...


class FakeHiveHub:
    """HiveHub in memory.

    It answers the four source protocols and `SignalsChanges`, so it can be handed to `Tenancy.embedded`, or to one
    component alone.

    Args:
        clock: The hub's clock; ``None``: the machine's, which `advance` pushes ahead.
        plans: Plans beside, or instead of, ``free``, ``pro`` and ``enterprise``, by name.
        seed: Makes every id and secret the same in each run; such secrets begin ``hh_test_seeded_``. ``None``: random.

    Raises:
        ConfigurationError: Two of *plans* have one name, or one stands under another's.

    Concurrency:
        Built without a running loop; used from any number of loops and threads.

    Example:
        >>> hub = FakeHiveHub()
        >>> acme = hub.add_tenant("acme", plan="pro")
        >>> key = acme.issue_key(permissions=["read"])
        >>> key.secret.startswith("hh_test_"), key.secret in repr(key)
        (True, False)
    """

    def __init__(
        self,
        *,
        clock: MovableClock | None = None,
        plans: Iterable[Plan] | Mapping[str, Plan] = (),
        seed: int | None = None,
    ) -> None:
        self._clock: MovableClock = ShiftedClock() if clock is None else clock
        new_id, mint_secret = (uuid4, _random_secret) if seed is None else _seeded(seed)
        self.service = HubService(
            clock=self._clock, plans=plans, authority="fake", new_id=new_id, mint_secret=mint_secret
        )
        self._lock = threading.Lock()
        self._tenants: dict[str, FakeTenant] = {}
        self._journal: deque[Call] = deque(maxlen=JOURNAL)
        self._counts: Counter[str] = Counter()
        self._down = False
        self._out: Counter[str] = Counter()
        self._lose: Counter[str] = Counter()
        self._holds: dict[str, list[Held]] = {}
        self._replica: HubView | None = None

    def __repr__(self) -> str:
        state = "down" if self.down else "up"
        return f"<FakeHiveHub {state}: {len(self._tenants)} tenants, revision {self.service.revision}>"

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
        """Push the clock ahead, and end every waiting poll."""
        self._clock.advance(seconds)
        self.service.wake()

    # --- what a test does --------------------------------------------------------------------------------------------

    def add_tenant(self, name: str, *, plan: str = "free") -> FakeTenant:
        """Create a tenant; its id is a random UUID.

        Raises:
            ConfigurationError: A tenant of that name is there (`tenant` returns it), or there is no such plan.
        """
        with self._lock:
            if name in self._tenants:
                raise ConfigurationError(f"this fake has a tenant called {name!r}; hub.tenant({name!r}) returns it")
            tenant = self._tenants[name] = FakeTenant(self, self.service.add_tenant(name, plan=plan), name)
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

    def define_plan(self, plan: Plan) -> None:
        """Add *plan*, or change the one of its name for every tenant on it."""
        self.service.define_plan(plan)

    def issue_unowned_key(self) -> IssuedKey:
        """Issue a key that no tenant owns, as HiveHub's oldest call does; it must open nothing."""
        return IssuedKey(self, self.service.issue_key(None, name="unowned", permissions=list(Permission)))

    def start_epoch(self) -> None:
        """Lose acknowledged history, as a restore from a backup would: every cursor is reset."""
        self.service.start_epoch()

    # --- faults ------------------------------------------------------------------------------------------------------

    @property
    def down(self) -> bool:
        """Whether nothing answers. Set it, or use `outage` for a block."""
        return all(self._fails(name) for name in CALLS)

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        self.service.wake()

    @contextmanager
    def outage(self, *names: str) -> Iterator[None]:
        """Let the calls *names* fail within the block; without names, all of them.

        A call fails with `HubUnavailableError`; polls that wait fail at once; no change is signalled until the block
        ends, and then each subscriber is called. Blocks nest. Changes of the hub itself go on.

        Raises:
            ConfigurationError: One of *names* is no call.
        """
        gone = known(names) or CALLS
        with self._lock:
            self._out.update(gone)
        self.service.wake()
        try:
            yield
        finally:
            with self._lock:
                self._out.subtract(gone)
            self.service.wake()

    def lose_next_reply(self, name: str, *, times: int = 1) -> None:
        """Let the next call *name* do its work and lose the reply: it raises `HubUnavailableError`.

        Raises:
            ConfigurationError: *name* is no call, or *times* is below 1.
        """
        known((name,))
        if times < 1:
            raise ConfigurationError(f"times must be at least 1, got {times}")
        with self._lock:
            self._lose[name] += times

    @contextmanager
    def hold(self, name: str) -> Iterator[Held]:
        """Hold the replies to *name* back: made when asked, delivered when released or when the block ends.

        What changes in between is not in them, which is how an answer in flight comes to be older than a revocation.

        Raises:
            ConfigurationError: *name* is no call.
        """
        known((name,))
        held = Held(name, self.service.wake)
        self._holds.setdefault(name, []).append(held)
        try:
            yield held
        finally:
            self._holds[name].remove(held)
            held.release()

    @contextmanager
    def stale_replica(self) -> Iterator[None]:
        """Answer about keys and limits from what is known now, whatever changes within the block.

        A question with a ``min_revision`` beyond that raises `HubUnavailableError`, as from a replica that is behind.
        The feed is not served by the replica and tells of the changes.
        """
        before, self._replica = self._replica, self.service.snapshot()
        try:
            yield
        finally:
            self._replica = before

    # --- the journal -------------------------------------------------------------------------------------------------

    @property
    def calls(self) -> tuple[Call, ...]:
        """What code under test asked, oldest first: the latest 10,000, without any secret."""
        with self._lock:
            return tuple(self._journal)

    def count(self, name: str) -> int:
        """Return how often *name* was called since the hub was made or `forget_calls`.

        Raises:
            ConfigurationError: *name* is no call.
        """
        known((name,))
        return self._counts[name]

    def forget_calls(self) -> None:
        """Empty the journal and begin to count anew."""
        with self._lock:
            self._journal.clear()
            self._counts.clear()

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

    # --- what code under test asks -----------------------------------------------------------------------------------

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Answer as `HubService.introspect`, or fail as the test wants it."""
        key_id = self.service.key_id_of(credential)
        lost = self._enter("introspect", key=key_id or "unknown", min_revision=min_revision)
        view = self._replica
        if view is None:
            answer = await self.service.introspect(credential, min_revision=min_revision, epoch=epoch)
        else:
            view.recent_enough(min_revision, epoch)
            answer = view.key(credential, self._now_us())
        return await self._leave("introspect", lost, answer)

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Answer as `HubService.introspect_batch`, or fail as the test wants it."""
        lost = self._enter("introspect_batch", keys=len(digests), min_revision=min_revision)
        view = self._replica
        if view is None:
            answer = await self.service.introspect_batch(digests, min_revision=min_revision, epoch=epoch)
        else:
            view.recent_enough(min_revision, epoch)
            answer = view.keys(digests, self._now_us())
        return await self._leave("introspect_batch", lost, answer)

    async def limits(
        self,
        tenant: TenantId,
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsAnswer:
        """Answer as `HubService.limits`, or fail as the test wants it."""
        lost = self._enter("limits", tenant=tenant, sources=len(sources), min_revision=min_revision)
        view = self._replica
        if view is None:
            answer = await self.service.limits(tenant, sources=sources, min_revision=min_revision, epoch=epoch)
        else:
            view.recent_enough(min_revision, epoch)
            answer = view.limits(tenant, sources, self._now_us())
        return await self._leave("limits", lost, answer)

    async def limits_batch(
        self,
        tenants: Sequence[TenantId],
        *,
        sources: Sequence[str] = (),
        min_revision: int | None = None,
        epoch: int | None = None,
    ) -> LimitsBatch:
        """Answer as `HubService.limits_batch`, or fail as the test wants it."""
        lost = self._enter("limits_batch", tenants=len(tenants), sources=len(sources), min_revision=min_revision)
        view = self._replica
        if view is None:
            answer = await self.service.limits_batch(tenants, sources=sources, min_revision=min_revision, epoch=epoch)
        else:
            view.recent_enough(min_revision, epoch)
            answer = view.limits_batch(tenants, sources, self._now_us())
        return await self._leave("limits_batch", lost, answer)

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Answer as `HubService.changes`, or fail as the test wants it; an outage ends a poll that waits."""
        lost = self._enter("changes", cursor=cursor, wait_seconds=wait_seconds)
        return await self._leave("changes", lost, await self.service.changes(cursor, wait_seconds=wait_seconds))

    def try_changes(self, cursor: str | None) -> ChangeBatch | None:
        """Answer at once (`SignalsChanges`); ``None`` in an outage, or while replies to ``changes`` are held.

        Not journalled: it stands for a poll that was answered already.
        """
        if self._fails("changes") or any(not held.released for held in self._holds.get("changes", ())):
            return None
        return self.service.try_changes(cursor)

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake* after each change (`SignalsChanges`); in an outage of ``changes`` once, when that ends."""

        def unless_out() -> None:
            if not self._fails("changes"):
                wake()

        return self.service.subscribe(unless_out)

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        """Answer as `HubService.report`, or fail as the test wants it."""
        lost = self._enter(
            "report", source=report.source, sequence=report.sequence, lines=len(report.lines), final=report.final
        )
        return await self._leave("report", lost, await self.service.report(report))

    def _now_us(self) -> int:
        return self._clock.now()[1]

    def _in_us(self, seconds: float | None) -> int | None:
        return None if seconds is None else self._now_us() + round(seconds * SECOND_US)

    def _fails(self, name: str) -> bool:
        return self._down or self._out[name] > 0

    def _enter(self, name: str, **arguments: object) -> bool:
        """Journal a call and fail in an outage; return whether its reply is to be lost."""
        with self._lock:
            lost = self._lose[name] > 0
            outcome = "outage" if self._fails(name) else "reply lost" if lost else "answered"
            self._counts[name] += 1
            self._journal.append(
                Call(name=name, arguments=MappingProxyType(arguments), at_us=self._now_us(), outcome=outcome)
            )
            if outcome == "reply lost":
                self._lose[name] -= 1
        self._refuse_in_outage(name)
        return lost

    async def _leave(self, name: str, lost: bool, answer: _Answer) -> _Answer:
        """Deliver *answer*, if no fault is in its way."""
        for held in list(self._holds.get(name, ())):
            await held.pass_through()
        self._refuse_in_outage(name)
        if lost:
            raise HubUnavailableError(f"FakeHiveHub lost the reply to {name}, as lose_next_reply() said")
        return answer

    def _refuse_in_outage(self, name: str) -> None:
        if self._fails(name):
            raise HubUnavailableError(f"FakeHiveHub does not answer {name}: hub.outage() or hub.down = True")


class FakeTenant:
    """One tenant of a `FakeHiveHub`.

    Attributes:
        id: Its id, a random UUID.
        name: What people call it.
    """

    def __init__(self, hub: FakeHiveHub, tenant: TenantId, name: str) -> None:
        self._hub = hub
        self._service = hub.service
        self.id = tenant
        self.name = name

    def __repr__(self) -> str:
        return f"<FakeTenant {self.name} {self.id}>"

    @property
    def plan(self) -> str:
        """The name of its plan."""
        return self._service.tenant(self.id).plan

    @property
    def status(self) -> TenantStatus:
        """Where it stands in its life."""
        return self._service.tenant(self.id).status

    def issue_key(
        self,
        *,
        permissions: Iterable[Permission | str],
        name: str = "key",
        functions: Iterable[str] | None = None,
        resources: Iterable[str] | None = None,
        networks: Iterable[str] = (),
        expires_in: float | None = None,
        valid_in: float | None = None,
        environment: Environment = Environment.TEST,
    ) -> IssuedKey:
        """Issue an access key.

        Args:
            permissions: Of ``read``, ``write``, ``delete`` and ``admin``; at least one.
            name: The tenant's name for it.
            functions: The function allow list; ``None``: no list, empty: nothing.
            resources: Resource rules; ``None``: none.
            networks: CIDR blocks it is confined to; empty: everywhere.
            expires_in: Seconds until it expires; ``None``: never.
            valid_in: Seconds until it becomes valid; ``None``: at once.
            environment: What the hub says it is for. The secret begins ``hh_test_`` whatever this says.

        Raises:
            ConfigurationError: The tenant is gone, or a value is out of range.
        """
        minted = self._service.issue_key(
            self.id,
            name=name,
            permissions=permissions,
            functions=functions,
            resources=resources,
            networks=networks,
            environment=environment,
            not_before_us=self._hub._in_us(valid_in),
            expires_at_us=self._hub._in_us(expires_in),
        )
        return IssuedKey(self._hub, minted)

    def suspend(self) -> None:
        """Suspend it: none of its keys counts until `resume`."""
        self._service.suspend(self.id)

    def resume(self) -> None:
        """End its suspension."""
        self._service.resume(self.id)

    def begin_deletion(self) -> None:
        """Mark it as being deleted: its keys stop to count, its usage is still taken."""
        self._service.begin_deletion(self.id)

    def delete(self) -> None:
        """Delete it with its keys and usage. Its name is free again."""
        self._service.delete_tenant(self.id)
        self._hub._tenants.pop(self.name, None)

    def set_plan(self, plan: str) -> None:
        """Move it to *plan*; limits of its own stay."""
        self._service.set_plan(self.id, plan)

    def set_limit(self, dimension: Dimension, limit: int | None, *, resource: str | None = None) -> None:
        """Give it a limit of its own, as `HubService.set_limit` says; ``None``: not limited."""
        self._service.set_limit(self.id, dimension, limit, resource=resource)

    def set_quota(self, quota: QuotaLimit) -> None:
        """Give it a quota of its own, for a dimension that no plan declares, say."""
        self._service.set_quota(self.id, quota)

    def set_rates(self, *rates: Policy) -> None:
        """Give it rate policies of its own, in the place of its plan's; none at all: no rate limit."""
        self._service.set_rates(self.id, rates)

    def clear_limits(self) -> None:
        """Drop every limit and rate of its own, so that its plan alone counts."""
        self._service.clear_limits(self.id)

    def used(self, dimension: Dimension, *, resource: str | None = None) -> int:
        """Return what all sources together reported for a cell in the present period."""
        return self._service.used(self.id, dimension, resource=resource)


class IssuedKey:
    """One secret of an access key, with what can be done to the key. The secret is in no repr.

    Attributes:
        key_id: The key's public id.
        version: Which version of the key this secret is.
        secret: What a caller presents.
    """

    def __init__(self, hub: FakeHiveHub, minted: MintedKey) -> None:
        self._hub = hub
        self.key_id: KeyId = minted.key_id
        self.version = minted.version
        self.secret = minted.secret

    def __repr__(self) -> str:
        return f"<IssuedKey {self.key_id} version {self.version}>"

    @property
    def headers(self) -> dict[str, str]:
        """The request headers that present it."""
        return {"Authorization": f"Bearer {self.secret}"}

    def revoke(self) -> None:
        """Revoke the key with all its versions; a second time changes nothing."""
        self._hub.service.revoke_key(self.key_id)

    def rotate(self, *, overlap_seconds: int = 0, compromised: bool = False) -> IssuedKey:
        """Give the key a new secret and return that; this one counts for *overlap_seconds* more."""
        service = self._hub.service
        minted = service.rotate_key(self.key_id, overlap_seconds=overlap_seconds, compromised=compromised)
        return IssuedKey(self._hub, minted)

    def expire(self, *, expires_in: float = 0) -> None:
        """Let the key expire in *expires_in* seconds: at once, unless told otherwise."""
        self._hub.service.change_key(self.key_id, expires_at_us=self._hub._in_us(expires_in))

    def change(
        self,
        *,
        permissions: Iterable[Permission | str] | _Same = UNCHANGED,
        functions: Iterable[str] | _Same | None = UNCHANGED,
    ) -> None:
        """Change what the key may do; what is not named stays."""
        self._hub.service.change_key(self.key_id, permissions=permissions, functions=functions)


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


if TYPE_CHECKING:
    _conforms: type[ControlPlane] = FakeHiveHub
    _signals: type[SignalsChanges] = FakeHiveHub
