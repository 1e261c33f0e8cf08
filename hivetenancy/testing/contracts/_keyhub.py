"""A very small hub of keys, in memory and scripted, that the access key cases move by hand.

Beside what a hub answers, it can do what goes wrong: be out of reach, take its answer at once and deliver it later in
any order, lag behind, hang, answer nonsense, announce changes late, lose its history. It counts the questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hivetenancy.access_keys.format import digest, digest_prefix
from hivetenancy.clock import SECOND_US
from hivetenancy.errors import HubUnavailableError
from hivetenancy.ids import Environment, KeyId, Permission, TenantId
from hivetenancy.sources import (
    BatchAnswer,
    ChangeBatch,
    ChangeEvent,
    ChangeType,
    InactiveKey,
    InactiveReason,
    KeyAnswer,
    KeyRecord,
    KeyState,
)

from ..clock import ManualClock

_START: Final = 100  # the first revision; small numbers would hide a mixed-up 0


@dataclass(slots=True)
class HeldReply:
    """An answer that was taken and not delivered yet. `release` delivers it."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Deliver the answer as it was taken."""
        self.gate.set()


class ScriptedHub:
    """Keys, their changes, and the faults a test asks for. An `IntrospectionSource` and a `ChangeSource` that signals.

    Args:
        clock: Its wall time is the hub's, plus *skew_us*.
        skew_us: How far the hub's clock is ahead of ours.

    Attributes:
        down: Whether nothing answers.
        nonsense: Raised instead of an answer while set.
        delay_events: Whether changes are made without being announced, until `announce`.
        lag: Answers are taken this many revisions ago unless a later one is asked for.
        hold: Whether answers are held back, each in `held`.
        asked: Questions about single keys so far, batches not counted.
        batches: Batches so far, as the number of digests in each.
    """

    def __init__(self, clock: ManualClock, *, skew_us: int = 0) -> None:
        self.clock = clock
        self.skew_us = skew_us
        self.epoch = 1
        self.revision = _START
        self.down = False
        self.nonsense: Exception | None = None
        self.delay_events = False
        self.lag = 0
        self.hold = False
        self.held: list[HeldReply] = []
        self.asked = 0
        self.batches: list[int] = []
        self.spread_seconds = 10
        self._history: dict[bytes, list[tuple[int, KeyState]]] = {}
        self._events: list[ChangeEvent] = []
        self._hidden: list[ChangeEvent] = []
        self._reset = False
        self._wakes: list[Callable[[], None]] = []
        self._issued = 0

    @property
    def now_us(self) -> int:
        """The hub's own clock."""
        return self.clock.now()[1] + self.skew_us

    # --- what an operator does -------------------------------------------------------------------------------------

    def issue(
        self,
        *,
        tenant: str = "tenant-a",
        permissions: Iterable[str] = ("read", "write", "delete", "admin"),
        functions: tuple[str, ...] | None = None,
        expires_in_us: int | None = None,
        not_before_in_us: int | None = None,
        environment: Environment = Environment.LIVE,
        networks: tuple[str, ...] = (),
        resources: tuple[str, ...] | None = None,
        secret: bytes | None = None,
    ) -> bytes:
        """Make a key and return its secret."""
        self._issued += 1
        secret = secret or b"hh_live_%032d" % self._issued
        record = KeyRecord(
            key_id=KeyId(f"key-{self._issued}"),
            version=1,
            tenant_id=TenantId(tenant),
            name="scripted",
            permissions=frozenset(Permission(each) for each in permissions),
            functions=functions,
            resources=resources,
            networks=networks,
            environment=environment,
            plan="pro",
            created_at_us=self.now_us,
            not_before_us=None if not_before_in_us is None else self.now_us + not_before_in_us,
            expires_at_us=None if expires_in_us is None else self.now_us + expires_in_us,
            current_version=1,
            overlap_until_us=None,
        )
        self._change({secret: record}, ChangeType.KEY_CREATED, record, digest_prefix=digest_prefix(digest(secret)))
        return secret

    def revoke(self, secret: bytes) -> None:
        """Revoke the key of *secret*."""
        record = self._record(secret)
        gone = InactiveKey(
            reason=InactiveReason.REVOKED,
            key_id=record.key_id,
            tenant_id=record.tenant_id,
            revoked_at_us=self.now_us,
        )
        self._change({secret: gone}, ChangeType.KEY_REVOKED, record, revoked_at_us=self.now_us)

    def change(self, secret: bytes, *, permissions: Iterable[str]) -> None:
        """Give the key of *secret* other permissions."""
        record = self._record(secret)
        changed = replace(record, permissions=frozenset(Permission(each) for each in permissions))
        self._change({secret: changed}, ChangeType.KEY_CHANGED, record)

    def rotate(self, secret: bytes, *, overlap_us: int) -> bytes:
        """Give the key of *secret* a new secret, the old one ending after *overlap_us*; return the new one."""
        record = self._record(secret)
        self._issued += 1
        new = b"hh_live_%032d" % self._issued
        version = record.current_version + 1
        old = replace(record, current_version=version, overlap_until_us=self.now_us + overlap_us)
        states: dict[bytes, KeyState] = {secret: old, new: replace(old, version=version)}
        self._change(states, ChangeType.KEY_ROTATED, record, digest_prefix=digest_prefix(digest(new)))
        return new

    def suspend(self, tenant: str = "tenant-a") -> None:
        """Suspend *tenant* with all its keys."""
        changed: dict[bytes, KeyState] = {}
        for known, states in self._history.items():
            state = states[-1][1]
            if isinstance(state, KeyRecord) and state.tenant_id == tenant:
                changed[known] = InactiveKey(
                    reason=InactiveReason.SUSPENDED, key_id=state.key_id, tenant_id=state.tenant_id
                )
        self._put(changed, ChangeType.USER_SUSPENDED, tenant_id=TenantId(tenant))

    def key_id(self, secret: bytes) -> KeyId:
        """Return the public id of the key of *secret*."""
        state = self._history[digest(secret)][-1][1]
        assert state.key_id is not None
        return state.key_id

    def announce(self, *, backwards: bool = False) -> None:
        """Announce what was hidden, the latest change first if *backwards*."""
        self._events += self._hidden[::-1] if backwards else self._hidden
        self._hidden = []
        self._wake()

    def forget_history(self, *, larger_epoch: bool = True) -> None:
        """Restart with another change log: every cursor is foreign, and the epoch larger if asked."""
        self.epoch += int(larger_epoch)
        self.revision += 1
        self._events = []
        self._reset = True
        self._wake()

    # --- what a client asks ----------------------------------------------------------------------------------------

    async def introspect(
        self, credential: bytes, *, min_revision: int | None = None, epoch: int | None = None
    ) -> KeyAnswer:
        """Describe one key, in whatever way the script wants it."""
        self.asked += 1
        at = self._taken_at(min_revision, epoch)
        answer = KeyAnswer(epoch=self.epoch, revision=at, now_us=self.now_us, key=self._at(digest(credential), at))
        await self._deliver()
        return answer

    async def introspect_batch(
        self, digests: Sequence[bytes], *, min_revision: int | None = None, epoch: int | None = None
    ) -> BatchAnswer:
        """Describe several keys by digest, likewise."""
        self.batches.append(len(digests))
        at = self._taken_at(min_revision, epoch)
        states = tuple(self._at(known, at) for known in digests)
        answer = BatchAnswer(epoch=self.epoch, revision=at, now_us=self.now_us, keys=states)
        await self._deliver()
        return answer

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> ChangeBatch:
        """Answer as `try_changes`, without waiting."""
        batch = self.try_changes(cursor)
        if batch is None:
            raise HubUnavailableError("the scripted hub is out of reach")
        return batch

    def try_changes(self, cursor: str | None) -> ChangeBatch | None:
        """Return what was announced since *cursor*."""
        if self.down:
            return None
        here = f"{self.epoch}-{len(self._events)}"
        began, _, position = (cursor or "").partition("-")
        known = position.isdigit() and began == str(self.epoch) and int(position) <= len(self._events)
        reset = cursor is not None and (not known or self._reset)
        self._reset = False
        return ChangeBatch(
            epoch=self.epoch,
            revision=self.revision,
            now_us=self.now_us,
            events=tuple(self._events[int(position) :]) if known and not reset else (),
            cursor=here,
            reset=reset,
            spread_seconds=self.spread_seconds if reset else 0,
        )

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call *wake* after each announcement."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _record(self, secret: bytes) -> KeyRecord:
        state = self._history[digest(secret)][-1][1]
        assert isinstance(state, KeyRecord), "the key is not active"
        return state

    def _change(
        self,
        states: dict[bytes, KeyState],
        kind: ChangeType,
        record: KeyRecord,
        *,
        digest_prefix: str | None = None,
        revoked_at_us: int | None = None,
    ) -> None:
        self._put(
            {digest(secret): state for secret, state in states.items()},
            kind,
            key_id=record.key_id,
            tenant_id=record.tenant_id,
            digest_prefix=digest_prefix,
            revoked_at_us=revoked_at_us,
        )

    def _put(
        self,
        states: dict[bytes, KeyState],
        kind: ChangeType,
        *,
        key_id: KeyId | None = None,
        tenant_id: TenantId | None = None,
        digest_prefix: str | None = None,
        revoked_at_us: int | None = None,
    ) -> None:
        self.revision += 1
        for known, state in states.items():
            self._history.setdefault(known, []).append((self.revision, state))
        event = ChangeEvent(
            revision=self.revision,
            type=kind,
            at_us=self.now_us,
            key_id=key_id,
            tenant_id=tenant_id,
            digest_prefix=digest_prefix,
            revoked_at_us=revoked_at_us,
        )
        (self._hidden if self.delay_events else self._events).append(event)
        if not self.delay_events:
            self._wake()

    def _taken_at(self, min_revision: int | None, epoch: int | None) -> int:
        if self.down or (epoch is not None and epoch > self.epoch):
            raise HubUnavailableError("the scripted hub is out of reach")
        if self.nonsense is not None:
            raise self.nonsense
        wanted = min_revision or 0
        if wanted > self.revision:
            raise HubUnavailableError("replica behind")
        return max(wanted, self.revision - self.lag)

    def _at(self, known: bytes, revision: int) -> KeyState:
        state: KeyState = InactiveKey(reason=InactiveReason.UNKNOWN)
        for since, each in self._history.get(known, ()):
            if since <= revision:
                state = each
        return self._aged(state)

    def _aged(self, state: KeyState) -> KeyState:
        if isinstance(state, InactiveKey):
            return state
        reason = None
        if state.ends_at_us is not None and state.ends_at_us <= self.now_us:
            reason = InactiveReason.EXPIRED
        elif state.not_before_us is not None and state.not_before_us > self.now_us:
            reason = InactiveReason.NOT_YET_VALID
        if reason is None:
            return state
        not_before = state.not_before_us if reason is InactiveReason.NOT_YET_VALID else None
        return InactiveKey(reason=reason, key_id=state.key_id, tenant_id=state.tenant_id, not_before_us=not_before)

    async def _deliver(self) -> None:
        if self.hold:
            reply = HeldReply()
            self.held.append(reply)
            await reply.gate.wait()

    def _wake(self) -> None:
        for wake in list(self._wakes):
            wake()


SETTLE_TURNS: Final = 50
"""Turns of the loop after which whatever was started in the background has come to rest."""


async def settle() -> None:
    """Let whatever is ready run. Passes no time."""
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)


def seconds(count: float) -> int:
    """Return *count* seconds in microseconds."""
    return round(count * SECOND_US)
