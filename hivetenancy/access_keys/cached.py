"""The in-process engine: answers from memory what an `IntrospectionSource` answered once.

**What is kept.** A digest and a `Principal` for each key that the hub said is active; never the key. A hit is one hash,
one look-up in a plain dict and one comparison: no lock, no write, no coroutine. The dict is a plain one because a hit
in any of cachetools' caches costs ten of these; what is not hit in earnest, the negative entries, does live in one.

**How long.** By age, counted from the sending of the question, in windows that depend on what the key is about to be
used for (`Freshness`), and never past the key's own end, which has no leeway. A key in use is asked about again in the
background before its window ends; an idle one is asked about when it comes back. The allowance beyond the window exists
only while the hub is known to be out of reach, which a failed look-up of the last seconds must say.

**What takes it away.** The feed: an event raises a floor and removes the entries at once, so that a hit needs no
comparison with floors. An answer that was already on its way is compared with the floors before it is stored
(`hivetenancy.access_keys.floors`), asked for once more if it is too old, and given up as "cannot tell" if that is no
better.

**What is never kept.** An error. A hub that fails, answers nonsense or lags gives `HubUnavailableError`, for a second
without asking again, and leaves no entry behind.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import Context
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar, cast
from weakref import WeakKeyDictionary

from cachetools import TLRUCache

from hivetenancy.clock import SECOND_US, Clock, Instant, SystemClock
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import ConfigurationError, HubContractError, HubUnavailableError, UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.ids import Effect, Environment, KeyId, Permission, TenantId
from hivetenancy.sources import (
    ChangeEvent,
    InactiveKey,
    InactiveReason,
    IntrospectionSource,
    KeyRecord,
    KeyState,
)

from .feed import Feed
from .floors import KEY_EVENTS, TENANT_EVENTS, Floors
from .format import DIGEST_PREFIX, MAX_LENGTH, digest, digest_prefix, well_formed
from .permissions import Preset, compile_mask, effects
from .protocol import ImmediateValidator, Principal, Rechecks

if TYPE_CHECKING:
    from .protocol import Forgets

_log = logging.getLogger("hivetenancy.access_keys")

BATCH: Final = 1000
"""Most digests that the hub takes in one question (HiveHub wire 4.3)."""

RETRY_US: Final = SECOND_US
"""After a failed look-up no request starts another one for this long."""

GATHER_S: Final = 2.0
"""How long what comes due after a refresh waits for others to go along: a key has nine left then."""

FEED_BOUND_US: Final = 2 * SECOND_US
"""How long a revocation takes while the feed is healthy: a second for the hub to deliver it, one for the poll."""

_EVIDENCE_US = 5 * SECOND_US  # how long a failed look-up proves that the hub is out of reach
_REMEMBERED_US = 30 * SECOND_US  # how long health shows a failure after which nobody asked again
_EPOCH_SPREAD_SECONDS = 2  # without a feed nobody says over how long to verify everything again
_ATTEMPTS = 3  # look-ups of one call whose answers were overtaken before they could be given
_ADMIN = Effect.ADMIN
_PLAIN = (Effect.READ, Effect.WRITE, Effect.DELETE)  # a tuple: found by identity, where a set would hash a string
_MALFORMED = Refusal(reason=Reason.MALFORMED_CREDENTIAL)
_SHARED_MAX = 4096

_REASONS: Final = {
    InactiveReason.UNKNOWN: Reason.UNKNOWN_KEY,
    InactiveReason.REVOKED: Reason.REVOKED_KEY,
    InactiveReason.EXPIRED: Reason.EXPIRED_KEY,
    InactiveReason.NOT_YET_VALID: Reason.KEY_NOT_YET_VALID,
    InactiveReason.SUSPENDED: Reason.SUSPENDED_TENANT,
    InactiveReason.UNOWNED: Reason.UNOWNED_KEY,
}

_Shared = TypeVar("_Shared")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """For how long an answer of the hub counts, in microseconds from the sending of the question.

    Attributes:
        fresh_us: For every effect, while nothing says otherwise.
        admin_us: For admin functions while the feed is not healthy.
        stale_read_us: Allowance beyond *fresh_us* for reads while the hub is out of reach; 0: none.
        stale_write_us: Likewise for writes.
        stale_delete_us: Likewise for deletes. Admin functions have none.
        negative_us: For "no such key" and every other refusal; at most 5 s.
        refresh_percent: At which part of *fresh_us* a key in use is asked about again.

    Raises:
        ConfigurationError: A value is out of range.

    Source:
        Architecture, decision 7; HiveHub wire 4.4 for the negative entries.
    """

    fresh_us: int = 30 * SECOND_US
    admin_us: int = 5 * SECOND_US
    stale_read_us: int = 300 * SECOND_US
    stale_write_us: int = 60 * SECOND_US
    stale_delete_us: int = 60 * SECOND_US
    negative_us: int = 5 * SECOND_US
    refresh_percent: int = 70

    def __post_init__(self) -> None:
        if not 0 < self.admin_us <= self.fresh_us:
            raise ConfigurationError("admin_us must be above 0 and no more than fresh_us")
        if not 0 < self.negative_us <= 5 * SECOND_US:
            raise ConfigurationError("negative_us must be above 0 and no more than 5 s")
        if min(self.stale_read_us, self.stale_write_us, self.stale_delete_us) < 0:
            raise ConfigurationError("a stale allowance must be 0 or more")
        if not 0 < self.refresh_percent <= 100:
            raise ConfigurationError("refresh_percent must be 1 to 100")

    def stale_us(self, effect: Effect) -> int:
        """Return the allowance for *effect* beyond the fresh window."""
        return {
            Effect.READ: self.stale_read_us,
            Effect.WRITE: self.stale_write_us,
            Effect.DELETE: self.stale_delete_us,
        }.get(effect, 0)

    def bound(self) -> str:
        """Say in words how long a revoked key can still be accepted."""
        fresh = self.fresh_us / SECOND_US
        return (
            f"feed healthy: as fast as the feed; feed dead, hub answering: {fresh:g} s; hub dead: {fresh:g} s and "
            f"{self.stale_read_us / SECOND_US:g} s for reads, {self.stale_write_us / SECOND_US:g} s for writes, "
            f"{self.stale_delete_us / SECOND_US:g} s for deletes; admin without a healthy feed: "
            f"{self.admin_us / SECOND_US:g} s"
        )


class _Negative(NamedTuple):
    """What is remembered of a key that is not accepted; without a refusal: that it could not be told."""

    digest: bytes
    refusal: Refusal | None
    epoch: int
    revision: int
    until_us: int


class _Index:
    """Digests by an id: nearly always one, so that one stands for itself and only more cost a set."""

    __slots__ = ("_digests",)

    def __init__(self) -> None:
        self._digests: dict[str, bytes | set[bytes]] = {}

    def add(self, name: str, known: bytes) -> None:
        present = self._digests.setdefault(name, known)
        if isinstance(present, set):
            present.add(known)
        elif present != known:
            self._digests[name] = {present, known}

    def discard(self, name: str, known: bytes) -> None:
        present = self._digests.get(name)
        if isinstance(present, set):
            present.discard(known)
        if present == known or present == set():
            del self._digests[name]

    def of(self, name: str) -> tuple[bytes, ...]:
        present = self._digests.get(name, ())
        return (present,) if isinstance(present, bytes) else tuple(present)


class CachedAccessKeys:
    """Validates access keys from memory, with an `IntrospectionSource` behind it.

    Args:
        source: Tells what a key is.
        functions: The functions of the host, for which permissions are compiled.
        feed: Tells what changed; share it with whoever keeps limits of the same hub. ``None``: answers are trusted by
            age alone, and the stated bound is that of a dead feed. Somebody has to run it: `Feed.run`.
        clock: Tells the time.
        environment: Accept keys of this environment only; ``None``: of any.
        freshness: How long answers count.
        confine: Narrows a key to a preset by the host's own rule, asked once a look-up; ``None`` as an answer leaves
            the key as the hub describes it. The wire has no word for surfaces, so this is where a key becomes `MCP`.
        max_keys: How many keys are kept; those that were asked about longest ago give way.
        max_negative: How many refusals are kept, apart from the keys: a flood of forged keys evicts no good one.
        max_flights: How many look-ups may be under way at once; others wait for their turn, up to the deadline.
        max_waiting: How many may wait; a call beyond that cannot be answered.
        deadline_us: How long one look-up may take, both of its questions together.
        sleep: Pauses background work, in seconds.
        kept: Called with each digest that is accepted from now on, and ``True``, or that is not any more, and
            ``False``.

    Raises:
        ConfigurationError: A size is below 1, or the deadline is no shorter than the shortest window.

    Concurrency:
        `validate`, `recheck` and background work belong to event loops; look-ups of one key are shared within a loop.
        `try_validate`, `try_recheck`, `forget` and the feed's calls may come from any thread: a hit reads one immutable
        entry and needs no lock, everything that changes something takes one. A thread without a loop starts no
        background work, so there an entry lasts until its window ends.
    """

    def __init__(
        self,
        source: IntrospectionSource,
        *,
        functions: FunctionRegistry,
        feed: Feed | None = None,
        clock: Clock | None = None,
        environment: Environment | None = None,
        freshness: Freshness | None = None,
        confine: Callable[[KeyRecord], Preset | None] | None = None,
        max_keys: int = 100_000,
        max_negative: int = 4096,
        max_flights: int = 64,
        max_waiting: int = 10_000,
        deadline_us: int = 2 * SECOND_US,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        kept: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        self.freshness = freshness or Freshness()
        _check_sizes(self.freshness, max_keys, max_negative, max_flights, deadline_us)
        if max_waiting < 0:
            raise ConfigurationError(f"max_waiting must be at least 0, got {max_waiting}")
        self._source = source
        self._functions = functions
        self._feed = feed
        self._clock = clock or SystemClock()
        self._environment = environment
        self._confine = confine
        self._max_keys = max_keys
        self._max_flights = max_flights
        self._max_look_ups = max_flights + max_waiting
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._deadline = deadline_us / SECOND_US
        self._sleep = sleep
        self._kept = kept
        self._recalled: dict[bytes, None] = {}
        self._fresh_us = self.freshness.fresh_us
        self._quiet_us = self._fresh_us * self.freshness.refresh_percent // 100
        self._floors = feed.floors if feed is not None else Floors()
        self._lock = threading.RLock()
        self._entries: dict[bytes, Principal] = {}
        self._by_key = _Index()
        self._by_tenant = _Index()
        # After a reset: what was known before, good until a common deadline at most.
        self._clipped: dict[bytes, Principal] = {}
        self._clipped_until_us = 0
        # Epoch of the revisions in either; entries of different epochs cannot be compared, and -1 says so.
        self._entries_epoch = self._clipped_epoch = -1
        self._timer_us = 0
        self._negative: TLRUCache[bytes, _Negative] = TLRUCache(
            max_negative, ttu=lambda _, entry, __: entry.until_us, timer=lambda: self._timer_us
        )
        self._failed_us: int | None = None  # when the hub was last found out of reach
        self._useless_us: int | None = None  # when an answer of it was last of no use
        self._forgets = 0
        self._flights: dict[tuple[int, bytes], asyncio.Task[None]] = {}
        self._due: dict[bytes, None] = {}
        self._refresher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # where background work goes from a thread without one
        self._shared: dict[object, object] = {}
        self._warned: set[KeyId] = set()
        self._unsubscribe = feed.subscribe(self) if feed is not None else None

    def __repr__(self) -> str:
        return f"CachedAccessKeys({len(self)} keys, {len(self._flights)} look-ups)"

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._entries) + len(self._clipped)

    # --- answering -------------------------------------------------------------------------------------------------

    def try_validate(
        self, credential: bytes, *, effect: Effect, now: Instant | None = None
    ) -> Principal | Refusal | None:
        """Say who presents *credential*, from memory; ``None`` where only a look-up can tell.

        See `AccessKeyValidator.validate` for the arguments and answers. A principal that is accepted only because the
        hub is out of reach has ``stale`` set.

        Raises:
            HubUnavailableError: A look-up failed less than a second ago, and no allowance is left.
        """
        if len(credential) > MAX_LENGTH:
            return _MALFORMED
        # `format.digest`, written out: this is the path of every request.
        known = sha256(DIGEST_PREFIX + credential).digest()
        at = (now or self._clock.now())[0]
        principal = self._entries.get(known)
        if principal is None:
            if not well_formed(credential):
                return _MALFORMED
        elif at - principal.verified_at_us < self._quiet_us and effect in _PLAIN:
            ends = principal.ends_at_us
            if ends is None or at < ends:
                return principal
        return self._judge(known, effect, at)

    async def validate(self, credential: bytes, *, effect: Effect, now: Instant | None = None) -> Principal | Refusal:
        """Say who presents *credential*: from memory, or after one look-up that callers of the same key share.

        Cancelling a caller does not end the look-up, which the others wait for and the next caller finds done.

        Raises:
            HubUnavailableError: The hub cannot tell, or not usefully; never cached as an answer.
        """
        answer = self.try_validate(credential, effect=effect, now=now)
        return answer if answer is not None else await self._find(digest(credential), credential, effect)

    def try_recheck(
        self, principal: Principal, *, effect: Effect, now: Instant | None = None
    ) -> Principal | Refusal | None:
        """Say whether *principal* still counts for *effect*; ``None`` where only a look-up can tell.

        Raises:
            HubUnavailableError: A look-up failed less than a second ago, and no allowance is left.
        """
        at = (now or self._clock.now())[0]
        current = self._entries.get(principal.digest)
        if current is not None and at - current.verified_at_us < self._quiet_us and effect in _PLAIN:
            ends = current.ends_at_us
            if ends is None or at < ends:
                return current
        return self._judge(principal.digest, effect, at)

    async def recheck(self, principal: Principal, *, effect: Effect, now: Instant | None = None) -> Principal | Refusal:
        """Say whether *principal* still counts for *effect*, looking it up by its digest if need be.

        Raises:
            HubUnavailableError: The hub cannot tell.
        """
        answer = self.try_recheck(principal, effect=effect, now=now)
        return answer if answer is not None else await self._find(principal.digest, None, effect)

    def _judge(self, known: bytes, effect: Effect, at: int) -> Principal | Refusal | None:
        """Answer about a digest: everything but the plain hit, which stands written out in the two callers."""
        with self._lock:
            principal = self._entries.get(known) or self._before_reset(known, at)
            if principal is None:
                return self._absent(known, at)
            if principal.ends_at_us is not None and at >= principal.ends_at_us:
                self._remove(known)
                return self._absent(known, at)
            age = at - principal.verified_at_us
            if age < self._fresh_us:
                if effect == _ADMIN and age >= self.freshness.admin_us and not self._feed_healthy(at):
                    self._raise_if_held(at)
                    return None
                if age >= self._quiet_us:
                    self._refresh(known)
                return principal
            if self._hub_is_away(at) and age < self._fresh_us + self.freshness.stale_us(effect):
                self._refresh(known)
                return self._as_stale(known, principal)
            self._raise_if_held(at)
            return None

    def _before_reset(self, known: bytes, at: int) -> Principal | None:
        """Return what was known before a reset, while its clipped deadline lasts; drop a few that are over."""
        if not self._clipped:
            return None
        if at < self._clipped_until_us:
            return self._clipped.get(known)
        for over in list(islice(self._clipped, 256)):  # in passing: 100,000 at once would be felt
            self._remove(over)
        return None

    def _absent(self, known: bytes, at: int) -> Refusal | None:
        entry = self._negative_of(known, at)
        if entry is None:
            self._raise_if_held(at)
            return None
        if entry.refusal is None:
            _cannot_tell(entry.until_us - at)
        return entry.refusal

    def _negative_of(self, known: bytes, at: int) -> _Negative | None:
        self._timer_us = at
        entry = self._negative.get(known[:8])
        if entry is None or entry.digest != known:
            return None
        of_key = entry.refusal.key_id if entry.refusal else None
        of_tenant = entry.refusal.tenant if entry.refusal else None
        if self._floors.accepts(entry.epoch, entry.revision, of_key, of_tenant, digest_prefix(known)):
            return entry
        del self._negative[known[:8]]  # something changed since: a key was created, a tenant resumed
        return None

    def _raise_if_held(self, at: int) -> None:
        if self._failed_us is not None and at < self._failed_us + RETRY_US:
            _cannot_tell(self._failed_us + RETRY_US - at)

    def _hub_is_away(self, at: int) -> bool:
        return self._failed_us is not None and at < self._failed_us + _EVIDENCE_US

    def _feed_healthy(self, at: int) -> bool:
        return self._feed is not None and self._feed.healthy((at, 0))

    def _as_stale(self, known: bytes, principal: Principal) -> Principal:
        """Return the marked twin of *principal*, and keep it in its place: one for all requests of the outage."""
        if principal.stale:
            return principal
        marked = replace(principal, stale=True)
        (self._entries if known in self._entries else self._clipped)[known] = marked
        return marked

    # --- looking up ------------------------------------------------------------------------------------------------

    async def _find(self, known: bytes, credential: bytes | None, effect: Effect) -> Principal | Refusal:
        for _ in range(_ATTEMPTS):
            await self._look_up(known, credential)
            answer = self._judge(known, effect, self._clock.now()[0])
            if answer is not None:
                return answer
        _cannot_tell(RETRY_US)

    async def _look_up(self, known: bytes, credential: bytes | None) -> None:
        """Wait for the one look-up of this digest, starting it if there is none. Never raises for the hub."""
        loop = self._loop = asyncio.get_running_loop()
        name = (id(loop), known)
        flight = self._flights.get(name)
        if flight is None or flight.done():
            if len(self._flights) >= self._max_look_ups:
                raise _crowded()
            # A context of its own: the look-up is nobody's request, and outlives the one that started it.
            flight = loop.create_task(self._take_turn(loop, name, credential), context=Context())
            flight.add_done_callback(_seen)
            self._flights[name] = flight
        try:
            await asyncio.shield(flight)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.cancelled() and not (task is not None and task.cancelling()):
                raise HubUnavailableError("access keys are no longer looked up here: stopped") from None
            raise

    async def _take_turn(
        self, loop: asyncio.AbstractEventLoop, name: tuple[int, bytes], credential: bytes | None
    ) -> None:
        """Look up once fewer than `max_flights` others do.

        A flood of unknown keys makes others wait, and is no sign that the hub is out of reach: nothing is served stale
        because of it.
        """
        turn = self._turns.setdefault(loop, asyncio.Semaphore(self._max_flights))
        try:
            try:
                async with asyncio.timeout(self._deadline):
                    await turn.acquire()
            except TimeoutError:
                raise _crowded() from None
            try:
                await self._fly(name[1], credential)
            finally:
                turn.release()
        finally:
            del self._flights[name]

    async def _fly(self, known: bytes, credential: bytes | None) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                await self._open_feed()
                await self._ask(known, credential)
        except (UnavailableError, OSError, TimeoutError) as error:
            self._away(error)
        except Exception as error:  # noqa: BLE001 - a source is foreign code: whatever it raises means "cannot tell"
            self._unusable([known], error)

    async def _open_feed(self) -> None:
        if self._feed is not None and not self._feed.opened:
            await self._feed.open()

    async def _ask(self, known: bytes, credential: bytes | None) -> None:
        """Ask about one key, and once more from the revision that is needed if the answer is older than that."""
        least, epoch = self._least(known), self._floors.epoch
        for _ in range(2):
            sent, forgets = self._clock.now()[0], self._forgets
            asking = {"min_revision": least or None, "epoch": epoch if least else None}
            if credential is None:
                batch = await self._source.introspect_batch((known,), **asking)
                stamp, states = _Stamp(batch.epoch, batch.revision, batch.now_us, sent, forgets), batch.keys
            else:
                answer = await self._source.introspect(credential, **asking)
                stamp, states = _Stamp(answer.epoch, answer.revision, answer.now_us, sent, forgets), (answer.key,)
            _check_count(states, 1)
            if self._store(known, states[0], stamp):
                self._back()
                return
            least, epoch = self._catch_up([(known, states[0])])
        raise HubContractError("answers of the hub are older than changes it announced")

    async def _ask_batch(self, digests: list[bytes]) -> bool:
        """Ask about several keys by digest; return whether the hub was there. What is refused twice stays unknown."""
        try:
            async with asyncio.timeout(self._deadline):
                await self._open_feed()
                await self._store_batch(digests)
        except (UnavailableError, OSError, TimeoutError) as error:
            self._away(error)
            return False
        except Exception as error:  # noqa: BLE001 - as in `_fly`; each key is then asked about when it is used
            self._unusable([], error)
        else:
            self._back()
        return True

    async def _store_batch(self, digests: list[bytes]) -> None:
        least, epoch = 0, self._floors.epoch
        for _ in range(2):
            sent, forgets = self._clock.now()[0], self._forgets
            batch = await self._source.introspect_batch(
                tuple(digests), min_revision=least or None, epoch=epoch if least else None
            )
            _check_count(batch.keys, len(digests))
            stamp = _Stamp(batch.epoch, batch.revision, batch.now_us, sent, forgets)
            pairs = zip(digests, batch.keys, strict=True)
            again = [(known, state) for known, state in pairs if not self._store(known, state, stamp)]
            if not again:
                return
            digests = [known for known, _ in again]
            least, epoch = self._catch_up(again)

    def _catch_up(self, refused: Iterable[tuple[bytes, KeyState]]) -> tuple[int, int]:
        """Return from which revision and epoch to ask again, hearing first what a source in this process has to say."""
        if self._feed is not None:
            self._feed.pull()
        least = [
            max(self._least(known), self._floors.needed(state.key_id, state.tenant_id, digest_prefix(known)))
            for known, state in refused
        ]
        return max(least), self._floors.epoch

    def _least(self, known: bytes) -> int:
        """Return the revision below which nothing about this digest may replace what is kept."""
        with self._lock:
            principal = self._entries.get(known)
            if principal is None and self._clipped_epoch == self._floors.epoch:
                principal = self._clipped.get(known)
            if principal is not None:
                return max(principal.generation, self._floors.needed(principal.key_id, principal.tenant_id))
            entry = self._negative.get(known[:8])
            kept = entry is not None and entry.digest == known and entry.epoch == self._floors.epoch
            return entry.revision if kept and entry is not None else 0

    # --- storing ---------------------------------------------------------------------------------------------------

    def _store(self, known: bytes, state: KeyState, stamp: _Stamp) -> bool:
        """Store one answer if it may be; return whether it was. Nothing can come between the question and the act."""
        with self._lock:
            if (self._feed is None or self._feed.silent) and stamp.epoch > self._floors.epoch:
                self._begin_epoch(stamp)
            floors = self._floors
            if not floors.accepts(stamp.epoch, stamp.revision, state.key_id, state.tenant_id, digest_prefix(known)):
                return False
            if stamp.forgets != self._forgets or stamp.revision < self._least(known):
                return False
            refusal = self._refusal(state, stamp)
            if refusal is None and isinstance(state, KeyRecord):
                self._keep(known, self._principal(known, state, stamp), stamp)
            else:
                self._refuse(known, refusal or _MALFORMED, state, stamp)
            return True

    def _begin_epoch(self, stamp: _Stamp) -> None:
        """Without a feed the answers themselves tell of a new epoch."""
        if self._floors.opened:
            self._floors.reset(stamp.epoch, stamp.revision)
            self.on_reset(_EPOCH_SPREAD_SECONDS)
        else:
            self._floors.reset(stamp.epoch, 0)

    def _refusal(self, state: KeyState, stamp: _Stamp) -> Refusal | None:
        """Return why a key is not accepted here; ``None``: it is."""
        if isinstance(state, InactiveKey):
            return Refusal(reason=_REASONS[state.reason], tenant=state.tenant_id, key_id=state.key_id)
        reason = None
        ends = state.ends_at_us
        if ends is not None and ends <= stamp.hub_now_us:
            reason = Reason.EXPIRED_KEY
        elif state.not_before_us is not None and state.not_before_us > stamp.hub_now_us:
            reason = Reason.KEY_NOT_YET_VALID
        elif self._environment is not None and state.environment is not self._environment:
            reason = Reason.WRONG_ENVIRONMENT
        elif state.networks or state.resources is not None or state.unknown_restrictions:
            reason = Reason.UNSUPPORTED_RESTRICTION
            self._warn(state.key_id, f"is confined in a way that cannot be enforced here ({_confines(state)}): refused")
        return Refusal(reason=reason, tenant=state.tenant_id, key_id=state.key_id) if reason is not None else None

    def _principal(self, known: bytes, record: KeyRecord, stamp: _Stamp) -> Principal:
        permissions, surfaces = record.permissions, None
        preset = self._confine(record) if self._confine is not None else None
        if preset is not None:
            both = effects(permissions) & effects(preset.permissions)
            permissions, surfaces = frozenset(Permission(each.value) for each in both), preset.surfaces
        try:
            mask = compile_mask(permissions, record.functions, self._functions)
        except ConfigurationError:
            mask = 0
            self._warn(record.key_id, "has a function list outside the grammar: it may call nothing")
        ends = record.ends_at_us
        return Principal(
            tenant_id=record.tenant_id,
            key_id=record.key_id,
            version=record.version,
            permissions=self._share(permissions),
            functions=self._share(record.functions),
            surfaces=self._share(surfaces),
            environment=record.environment,
            plan=self._share(record.plan),
            mask=self._share(mask),
            registry_version=self._functions.version,
            verified_at_us=stamp.sent_us,
            ends_at_us=None if ends is None else stamp.local(ends),
            generation=self._share(stamp.revision),
            digest=known,
        )

    def _keep(self, known: bytes, principal: Principal, stamp: _Stamp) -> None:
        self._remove(known)  # also so that it stands last: what was asked about longest ago gives way first
        self._negative.pop(known[:8], None)
        self._entries[known] = principal
        self._entries_epoch = stamp.epoch
        self._by_key.add(principal.key_id, known)
        self._by_tenant.add(principal.tenant_id, known)
        self._recalled.pop(known, None)
        if self._kept is not None:
            self._kept(known, True)
        if len(self) > self._max_keys:
            # Several at once: finding the first of a dict whose front was emptied costs a walk.
            crowd = min(64, max(1, self._max_keys // 8))
            for over in list(islice(self._clipped or self._entries, crowd)):
                self._remove(over)

    def _refuse(self, known: bytes, refusal: Refusal, state: KeyState, stamp: _Stamp) -> None:
        if self._kept is not None and (known in self._entries or known in self._clipped or known in self._recalled):
            self._kept(known, False)
        self._recalled.pop(known, None)
        self._remove(known)
        until = stamp.sent_us + self.freshness.negative_us
        if state.not_before_us is not None:
            until = min(until, stamp.local(state.not_before_us))
        if state.key_id is not None and isinstance(state, InactiveKey):
            self._floors.learn(state.key_id, stamp.revision)
        self._timer_us = stamp.sent_us
        self._negative[known[:8]] = _Negative(known, refusal, stamp.epoch, stamp.revision, until)

    def _remove(self, known: bytes) -> None:
        principal = self._entries.pop(known, None) or self._clipped.pop(known, None)
        if principal is not None:
            self._by_key.discard(principal.key_id, known)
            self._by_tenant.discard(principal.tenant_id, known)

    def _share(self, value: _Shared) -> _Shared:
        """Return an equal value that others hold already: most keys of a host have the same few rights."""
        if len(self._shared) >= _SHARED_MAX:
            self._shared.clear()
        # The type belongs to the name: an empty list and an empty set are different answers.
        return cast("_Shared", self._shared.setdefault((type(value), value), value))

    def _warn(self, key_id: KeyId, what: str) -> None:
        if key_id not in self._warned:
            if len(self._warned) >= _SHARED_MAX:
                self._warned.clear()
            self._warned.add(key_id)
            _log.warning("access key %s %s", key_id, what)

    # --- what takes trust away -------------------------------------------------------------------------------------

    def on_event(self, event: ChangeEvent) -> None:
        """Drop what *event* makes wrong; the feed has raised the floors. Any order, any number of times."""
        with self._lock:
            if event.type in KEY_EVENTS and event.key_id is not None:
                dropped = self._by_key.of(event.key_id)
            elif event.type in TENANT_EVENTS and event.tenant_id is not None:
                dropped = self._by_tenant.of(event.tenant_id)
            else:
                return
            for known in dropped:
                self._remove(known)

    def on_reset(self, spread_seconds: int) -> None:
        """Use what is known until it is verified again, for *spread_seconds* at most; forget every refusal."""
        at = self._clock.now()[0]
        until = at + min(spread_seconds * SECOND_US, self._fresh_us)
        with self._lock:
            if self._clipped and self._clipped_until_us <= at:
                for over in list(self._clipped):
                    self._remove(over)
            if self._clipped:
                until = min(until, self._clipped_until_us)  # a second reset gives the older ones no more time
            same = not self._clipped or self._clipped_epoch == self._entries_epoch
            self._clipped_epoch = self._entries_epoch if same else -1
            self._clipped.update(self._entries)
            self._entries = {}
            self._clipped_until_us = until
            self._negative.clear()
        if self._clipped and until > at:
            seconds = (until - at) / SECOND_US

            def start(loop: asyncio.AbstractEventLoop) -> None:
                self._spawn(loop, lambda: self._verify_again(seconds))

            self._background(start)

    def forget(self, *, key_id: KeyId | None = None, tenant_id: TenantId | None = None) -> None:
        """Drop the entries of a key, of a tenant, or with neither all, refusals included.

        Each is looked up again before it counts; look-ups under way are asked again.
        """
        with self._lock:
            self._forgets += 1
            self._negative.clear()
            if key_id is None and tenant_id is None:
                self._entries, self._clipped = {}, {}
                self._by_key, self._by_tenant = _Index(), _Index()
            if key_id is not None:
                for known in self._by_key.of(key_id):
                    self._remove(known)
            if tenant_id is not None:
                for known in self._by_tenant.of(tenant_id):
                    self._remove(known)

    # --- in the background -----------------------------------------------------------------------------------------

    def recall(self, digests: Iterable[bytes]) -> None:
        """Have keys that an earlier process knew verified by `run`, in batches. None counts before it was."""
        with self._lock:
            self._recalled.update(dict.fromkeys(islice(digests, self._max_keys)))

    @property
    def recalled(self) -> int:
        """How many keys of an earlier process are still to be verified."""
        return len(self._recalled)

    async def _verify_recalled(self) -> None:
        while self._recalled:
            with self._lock:
                batch = list(islice(self._recalled, BATCH))
            # What the answer is about leaves by `_keep` or `_refuse`, which tell whoever writes the digests down.
            if not await self._ask_batch(batch):
                await self._sleep(RETRY_US / SECOND_US * random.uniform(0.5, 1.5))
                continue
            with self._lock:
                for known in batch:
                    self._recalled.pop(known, None)

    def bound_us(self, effect: Effect, *, now: Instant | None = None) -> int:
        """Return how long a key that is revoked now may still be accepted for *effect*, in microseconds.

        The three bounds of architecture decision 7: the feed is healthy; it is not, and the hub answers; nothing does.
        """
        at = (now or self._clock.now())[0]
        if self._feed_healthy(at):
            return FEED_BOUND_US
        fresh = self.freshness.admin_us if effect == _ADMIN else self._fresh_us
        return fresh + (self.freshness.stale_us(effect) if self._hub_is_away(at) else 0)

    def trouble(self, now: Instant) -> str | None:
        """Say what keeps keys from being looked up at present; ``None``: nothing, or nobody asked for a while."""
        for at, what in (
            (self._failed_us, "the hub cannot be asked about access keys"),
            (self._useless_us, "an answer of the hub about access keys was of no use"),
        ):
            if at is not None and now[0] < at + _REMEMBERED_US:
                return what
        return None

    async def run(self) -> None:
        """Own the background work until cancelled, and end it then, look-ups under way included.

        Not needed in a single loop, where whoever asks starts what is due. With it, threads without a loop have their
        keys refreshed ahead of need as well.
        """
        loop = self._loop = asyncio.get_running_loop()
        if self._recalled:
            self._spawn(loop, self._verify_recalled)
        try:
            await loop.create_future()
        finally:
            self._loop = None
            await self._end()

    async def aclose(self) -> None:
        """End background work and look-ups, and stop listening to the feed."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        await self._end()

    async def _end(self) -> None:
        work = [*self._tasks, *self._flights.values()]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    def _refresh(self, known: bytes) -> None:
        """Have *known* asked about again soon; where there is no loop it is asked about when its window ends."""
        self._due[known] = None
        running = self._refresher
        if running is None or running.done() or running.get_loop().is_closed():
            self._background(self._start_refresher, self._due.clear)

    def _start_refresher(self, loop: asyncio.AbstractEventLoop) -> None:
        running = self._refresher
        if running is None or running.done() or running.get_loop().is_closed():  # threads may have asked twice
            self._refresher = self._spawn(loop, self._refresh_due)

    def _background(
        self, start: Callable[[asyncio.AbstractEventLoop], None], nowhere: Callable[[], None] = lambda: None
    ) -> None:
        """Call *start* with a loop: the running one, or from a thread without one that of earlier look-ups."""
        try:
            start(asyncio.get_running_loop())
        except RuntimeError:
            loop = self._loop
            if loop is not None and loop.is_running():
                loop.call_soon_threadsafe(start, loop)
            else:
                nowhere()

    def _spawn(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[None, None, None]]
    ) -> asyncio.Task[None]:
        task = loop.create_task(work(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _refresh_due(self) -> None:
        """Ask about whatever is due, in batches, until nothing is; about once a second, so that many go together."""
        await self._sleep(0)  # whatever else comes due in this turn of the loop goes along
        while True:
            with self._lock:
                batch = [known for known in islice(self._due, BATCH) if self._usable(known)]
                for known in list(islice(self._due, BATCH)):
                    del self._due[known]
            if not batch:
                if not self._due:
                    return
                continue
            if not await self._ask_batch(batch):
                self._due.update(dict.fromkeys(batch))
                await self._sleep(RETRY_US / SECOND_US * random.uniform(0.5, 1.0))
            else:
                await self._sleep(GATHER_S)

    def _usable(self, known: bytes) -> bool:
        """Say whether any effect could still be served from this entry."""
        principal = self._entries.get(known) or self._clipped.get(known)
        if principal is None:
            return False
        longest = max(self.freshness.stale_us(effect) for effect in Effect)
        return self._clock.now()[0] - principal.verified_at_us < self._fresh_us + longest

    async def _verify_again(self, seconds: float) -> None:
        """Ask about everything known before a reset, the newest first, spread over *seconds*."""
        digests = list(self._clipped)[::-1]
        chunks = [digests[start : start + BATCH] for start in range(0, len(digests), BATCH)]
        pause = seconds / (len(chunks) + 1)
        await self._sleep(pause * random.random())  # many servers hear of a reset in the same moment
        for chunk in chunks:
            left = [known for known in chunk if known in self._clipped]
            if left:
                await self._ask_batch(left)
            await self._sleep(pause)

    def _away(self, error: BaseException) -> None:
        if self._failed_us is None:
            _log.warning("the hub cannot be asked about access keys (%s); known keys go on for a while", _kind(error))
        self._failed_us = self._clock.now()[0]

    def _back(self) -> None:
        if self._failed_us is not None:
            _log.info("the hub answers about access keys again")
        self._failed_us = self._useless_us = None

    def _unusable(self, digests: Iterable[bytes], error: BaseException) -> None:
        """Remember for a second that an answer was of no use. The hub is there, so nothing is served stale for it."""
        _log.warning("an answer of the hub about access keys is of no use (%s)", _kind(error))
        with self._lock:
            self._timer_us = self._useless_us = self._clock.now()[0]
            for known in digests:
                revision, until = self._least(known), self._timer_us + RETRY_US
                self._negative[known[:8]] = _Negative(known, None, self._floors.epoch, revision, until)


class _Stamp(NamedTuple):
    """When and where an answer was taken."""

    epoch: int
    revision: int
    hub_now_us: int
    sent_us: int
    forgets: int

    def local(self, hub_us: int) -> int:
        """Return a moment of the hub's clock on our monotonic one, never later than it is."""
        return self.sent_us + hub_us - self.hub_now_us


def _kind(error: BaseException) -> str:
    """Name an error for a log. Its text is left out: foreign code may have put anything there."""
    return type(error).__name__


def _crowded() -> HubUnavailableError:
    return HubUnavailableError("too many look-ups of access keys at once", retry_after_us=RETRY_US)


def _seen(flight: asyncio.Task[None]) -> None:
    """Take note of how a look-up ended, since everybody who waited for it may have gone."""
    if not flight.cancelled():
        flight.exception()


def _cannot_tell(wait_us: int) -> NoReturn:
    raise HubUnavailableError("the hub cannot be asked about this access key", retry_after_us=max(wait_us, 1))


def _confines(key: KeyRecord) -> str:
    """Name what confines a key."""
    known = [name for name, rules in (("networks", key.networks), ("resources", key.resources)) if rules]
    if key.resources is not None and not key.resources:
        known.append("resources")
    return ", ".join([*known, *key.unknown_restrictions])[:200]


def _check_count(states: tuple[KeyState, ...], expected: int) -> None:
    if len(states) != expected:
        raise HubContractError(f"the hub was asked about {expected} keys and described {len(states)}")


def _check_sizes(freshness: Freshness, keys: int, negative: int, flights: int, deadline_us: int) -> None:
    for name, value in (("max_keys", keys), ("max_negative", negative), ("max_flights", flights)):
        if value < 1:
            raise ConfigurationError(f"{name} must be at least 1, got {value}")
    shortest = min(freshness.admin_us, freshness.negative_us, freshness.fresh_us)
    if not 0 < deadline_us < shortest:
        raise ConfigurationError(
            f"deadline_us must be above 0 and below the shortest window of the freshness, {shortest}: an answer must "
            f"be of use when it comes; got {deadline_us}"
        )


if TYPE_CHECKING:
    _validates: type[ImmediateValidator] = CachedAccessKeys
    _rechecks: type[Rechecks] = CachedAccessKeys
    _forgets: type[Forgets] = CachedAccessKeys
