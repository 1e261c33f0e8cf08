"""Validators that are wrong on purpose, one fault each, and the contract case that must catch it.

Each fault was found in a real validator, is what a simulation of the wire's rules showed to matter, or is a line of the
engine that looks removable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hivetenancy.access_keys.cached import CachedAccessKeys, Freshness
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.floors import KEY_EVENTS, TENANT_EVENTS, Floors
from hivetenancy.access_keys.format import digest
from hivetenancy.access_keys.permissions import READ_WRITE, compile_mask
from hivetenancy.clock import Instant
from hivetenancy.decision import Reason, Refusal
from hivetenancy.errors import HubUnavailableError, UnavailableError
from hivetenancy.ids import Effect, TenantId
from hivetenancy.sources import KeyRecord
from hivetenancy.testing.contracts.access_keys import World, seconds

Broken = Callable[[World], Any]


def build(
    kind: type[CachedAccessKeys],
    *,
    floors: type[Floors] = Floors,
    feed_of: type[Feed] = Feed,
    clock: Any = None,
    **options: Any,
) -> Broken:
    """A factory for an engine of *kind* whose feed raises floors of the class *floors*.

    The deadline is short, since some of these wait for answers that never come.
    """

    def make(world: World) -> CachedAccessKeys:
        feed = feed_of(world.hub, floors(), clock=world.clock)
        terms = {"environment": world.environment, "deadline_us": 30_000, **options}
        present = clock(world) if clock is not None else world.clock
        return kind(world.hub, feed=feed, functions=world.functions, clock=present, **terms)

    return make


# --- floors ----------------------------------------------------------------------------------------------------------


class NoFloors(Floors):
    """Remembers no change."""

    def needed(self, *ids: str | None) -> int:
        return 0


class NoTenantFloor(Floors):
    """Remembers changes of keys, not of tenants."""

    def apply(self, event: Any) -> None:
        if event.type not in TENANT_EVENTS:
            super().apply(event)


class NoFloorAtReset(Floors):
    """Knows the new epoch, and believes every answer in it."""

    def reset(self, epoch: int, revision: int) -> bool:
        return super().reset(epoch, 0)


class LateFeed(Feed):
    """Hears nothing until it is told to."""

    awake = False

    def pull(self) -> bool:
        return self.awake and super().pull()


class FeedAfterFill(CachedAccessKeys):
    """Opens the feed once the first answer is there."""

    async def _open_feed(self) -> None:
        return

    def _store(self, known: Any, state: Any, stamp: Any) -> bool:
        if isinstance(self._feed, LateFeed) and not self._feed.opened:
            self._feed.awake = True
            self._feed.pull()
            self._floors.floor_all = 0
        return super()._store(known, state, stamp)


class RevisionIgnored(CachedAccessKeys):
    """Lets an older answer replace a newer one."""

    def _least(self, known: bytes) -> int:
        return 0

    def _refuse(self, known: Any, refusal: Any, state: Any, stamp: Any) -> None:
        learn, self._floors.__class__ = self._floors.__class__, _Forgetful
        try:
            super()._refuse(known, refusal, state, stamp)
        finally:
            self._floors.__class__ = learn


class _Forgetful(Floors):
    __slots__ = ()

    def learn(self, key_id: Any, revision: int) -> None:
        return


class LaggingAccepted(CachedAccessKeys):
    """Takes every answer for a present one."""

    def _store(self, known: Any, state: Any, stamp: Any) -> bool:
        needed = self._floors.needed(state.key_id, state.tenant_id)
        return super()._store(known, state, stamp._replace(revision=max(stamp.revision, needed)))


# --- events ----------------------------------------------------------------------------------------------------------


class DeafToKeys(CachedAccessKeys):
    """Drops nothing when a key is revoked."""

    def on_event(self, event: Any) -> None:
        if event.type not in KEY_EVENTS:
            super().on_event(event)


class DeafToTenants(CachedAccessKeys):
    """Drops nothing when a tenant is suspended."""

    def on_event(self, event: Any) -> None:
        if event.type not in TENANT_EVENTS:
            super().on_event(event)


class DeafToResets(CachedAccessKeys):
    """Goes on with everything when the hub has lost its history."""

    def on_reset(self, spread_seconds: int) -> None:
        return


class NegativeSurvives(CachedAccessKeys):
    """Keeps a refusal whatever happens to the key."""

    def _negative_of(self, known: bytes, at: int) -> Any:
        self._timer_us = at
        entry = self._negative.get(known[:8])
        return entry if entry is not None and entry.digest == known else None


class NegativesAllDropped(CachedAccessKeys):
    """Drops every refusal when any key is created."""

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if event.digest_prefix:
            self._negative.clear()


# --- ages ------------------------------------------------------------------------------------------------------------


class AgeFromUse(CachedAccessKeys):
    """A key that is used stays young."""

    def _judge(self, known: bytes, effect: Effect, at: int) -> Any:
        answer = super()._judge(known, effect, at)
        if known in self._entries:
            self._entries[known] = replace(self._entries[known], verified_at_us=at)
        return answer


class AgeFromArrival(CachedAccessKeys):
    """A slow answer counts as young when it comes."""

    def _store(self, known: Any, state: Any, stamp: Any) -> bool:
        return super()._store(known, state, stamp._replace(sent_us=self._clock.now()[0]))


class Leeway(CachedAccessKeys):
    """Gives a key five more seconds."""

    def _principal(self, known: Any, record: Any, stamp: Any) -> Any:
        made = super()._principal(known, record, stamp)
        return made if made.ends_at_us is None else replace(made, ends_at_us=made.ends_at_us + seconds(5))


class OverlapForgotten(CachedAccessKeys):
    """Never ends an old secret."""

    def _store(self, known: Any, state: Any, stamp: Any) -> bool:
        if isinstance(state, KeyRecord):
            state = replace(state, overlap_until_us=None, version=state.current_version)
        return super()._store(known, state, stamp)


class OldSecretDropped(CachedAccessKeys):
    """Ends an old secret the moment there is a new one."""

    def _refusal(self, state: Any, stamp: Any) -> Any:
        if isinstance(state, KeyRecord) and state.version < state.current_version:
            return Refusal(reason=Reason.REVOKED_KEY)
        return super()._refusal(state, stamp)


class WallClock:
    """Tells the wall time as both."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock

    def now(self) -> Instant:
        wall = self._clock.now()[1]
        return wall, wall


class NeverRefreshed(CachedAccessKeys):
    """Asks again only when somebody has to wait for it."""

    def _refresh(self, known: bytes) -> None:
        return


class NegativeTooLong(CachedAccessKeys):
    """Refuses for 5 s, also a key that becomes valid in 2."""

    def _refuse(self, known: Any, refusal: Any, state: Any, stamp: Any) -> None:
        super()._refuse(known, refusal, replace(state, not_before_us=None), stamp)


class NoNegatives(CachedAccessKeys):
    """Asks the hub about the same wrong key with each request."""

    def _negative_of(self, known: bytes, at: int) -> Any:
        entry = super()._negative_of(known, at)
        self._negative.pop(known[:8], None)
        return entry


class OneRoomForAll(CachedAccessKeys):
    """Lets refusals push keys out."""

    def _refuse(self, known: Any, refusal: Any, state: Any, stamp: Any) -> None:
        super()._refuse(known, refusal, state, stamp)
        if len(self._negative) > 100 and self._entries:
            self._remove(next(iter(self._entries)))


# --- outages ---------------------------------------------------------------------------------------------------------


class OutageIsWrongKey(CachedAccessKeys):
    """Says "no such key" when it cannot tell."""

    async def validate(self, credential: bytes, *, effect: Effect, now: Any = None) -> Any:
        try:
            return await super().validate(credential, effect=effect, now=now)
        except UnavailableError:
            return Refusal(reason=Reason.UNKNOWN_KEY)


class NoPause(CachedAccessKeys):
    """Lets each request of an outage ask again."""

    def _raise_if_held(self, at: int) -> None:
        return


class StaleWithoutOutage(CachedAccessKeys):
    """Uses the allowance whenever an entry is old."""

    def _hub_is_away(self, at: int) -> bool:
        return True


class StaleOnNo(CachedAccessKeys):
    """Keeps what it has when the hub says no."""

    def _refuse(self, known: Any, refusal: Any, state: Any, stamp: Any) -> None:
        if known not in self._entries:
            super()._refuse(known, refusal, state, stamp)


class StaleUnmarked(CachedAccessKeys):
    """Does not say that it accepts on old knowledge."""

    def _as_stale(self, known: Any, principal: Any) -> Any:
        return principal


class NoEndInOutage(CachedAccessKeys):
    """Forgets the key's own end while the hub is away."""

    def _judge(self, known: bytes, effect: Effect, at: int) -> Any:
        kept = self._entries.get(known)
        if kept is not None and kept.ends_at_us is not None and self._hub_is_away(at):
            self._entries[known] = replace(kept, ends_at_us=None)
        return super()._judge(known, effect, at)


class AdminTrustsSilence(CachedAccessKeys):
    """Takes a feed that says nothing for one that is well."""

    def _feed_healthy(self, at: int) -> bool:
        return True


class NonsenseStopsAll(CachedAccessKeys):
    """Takes one bad answer for an outage."""

    def _unusable(self, digests: Any, error: BaseException) -> None:
        self._away(error)


# --- who -------------------------------------------------------------------------------------------------------------


class AnybodyIsATenant(CachedAccessKeys):
    """Makes a tenant of every key that looks right."""

    def _refusal(self, state: Any, stamp: Any) -> Any:
        return None

    def _refuse(self, known: Any, refusal: Any, state: Any, stamp: Any) -> None:
        record = KeyRecord(
            key_id=state.key_id or known.hex(),
            version=1,
            tenant_id=TenantId(f"tenant_{known.hex()[:16]}"),
            name="",
            permissions=READ_WRITE.permissions,
            functions=None,
            resources=None,
            networks=(),
            environment=self._environment or "live",  # type: ignore[arg-type]
            plan="pro",
            created_at_us=0,
            not_before_us=None,
            expires_at_us=None,
            current_version=1,
            overlap_until_us=None,
        )
        self._keep(known, self._principal(known, record, stamp), stamp)


class EverythingAsked(CachedAccessKeys):
    """Leaves it to the hub to say that a key is malformed."""

    def try_validate(self, credential: bytes, *, effect: Effect, now: Any = None) -> Any:
        return self._judge(digest(credential), effect, self._clock.now()[0])


class LowerCased(CachedAccessKeys):
    """Tidies keys up."""

    def try_validate(self, credential: bytes, *, effect: Effect, now: Any = None) -> Any:
        for kept in self._entries:
            if digest(credential.swapcase()) == kept or digest(b"Hh_Live_AbCdEfGhIjKl") == kept:
                return self._entries[kept]
        return super().try_validate(credential, effect=effect, now=now)


class EverybodyReadsAndWrites(CachedAccessKeys):
    """Gives each key the same preset."""

    def _principal(self, known: Any, record: Any, stamp: Any) -> Any:
        mask = compile_mask(READ_WRITE.permissions, None, self._functions)
        return replace(super()._principal(known, record, stamp), mask=mask)


class RestrictionsIgnored(CachedAccessKeys):
    """Accepts a key everywhere though it is confined to some networks."""

    def _refusal(self, state: Any, stamp: Any) -> Any:
        refusal = super()._refusal(state, stamp)
        restricted = refusal is not None and refusal.reason is Reason.UNSUPPORTED_RESTRICTION
        return None if restricted else refusal


# --- look-ups --------------------------------------------------------------------------------------------------------


class NoSharing(CachedAccessKeys):
    """Looks up for each caller alone."""

    async def _look_up(self, known: bytes, credential: bytes | None) -> None:
        name = (len(self._flights), known)
        while name in self._flights:
            name = (name[0] + 1, known)
        self._flights[name] = None  # type: ignore[assignment]
        await self._fly(name, credential)


class LeaderTakesAll(CachedAccessKeys):
    """Looks up in the task of whoever came first."""

    async def _look_up(self, known: bytes, credential: bytes | None) -> None:
        name = (0, known)
        flight = self._flights.get(name)
        if flight is not None:
            await asyncio.shield(flight)
            return
        self._flights[name] = asyncio.ensure_future(self._fly(name, credential))
        await self._flights[name]


class Unrecheckable(CachedAccessKeys):
    """Cannot ask about a principal whose entry is old."""

    async def recheck(self, principal: Any, *, effect: Effect, now: Any = None) -> Any:
        answer = self.try_recheck(principal, effect=effect, now=now)
        return answer or Refusal(reason=Reason.UNKNOWN_KEY)


# --- secrets ---------------------------------------------------------------------------------------------------------


class PlaintextKept(CachedAccessKeys):
    """Keeps the keys it has seen."""

    async def validate(self, credential: bytes, *, effect: Effect, now: Any = None) -> Any:
        self._shared[credential] = credential
        return await super().validate(credential, effect=effect, now=now)


class SecretTold(CachedAccessKeys):
    """Names the key in its error."""

    async def validate(self, credential: bytes, *, effect: Effect, now: Any = None) -> Any:
        try:
            return await super().validate(credential, effect=effect, now=now)
        except HubUnavailableError as error:
            raise HubUnavailableError(f"cannot look up {credential!r}") from error


OURS = CachedAccessKeys

BROKEN: dict[str, tuple[Broken, str]] = {
    "no floors": (build(OURS, floors=NoFloors), "a_key_revoked_during_its_look_up_is_never_accepted"),
    "no floor for the tenant": (
        build(OURS, floors=NoTenantFloor),
        "a_tenant_suspended_during_a_look_up_is_never_accepted",
    ),
    "no floor for everything at a reset": (
        build(OURS, floors=NoFloorAtReset),
        "an_answer_from_before_a_reset_is_not_kept",
    ),
    "feed opened after the first look-up": (
        build(FeedAfterFill, feed_of=LateFeed),
        "the_feed_is_opened_before_the_first_question",
    ),
    "revision ignored": (build(RevisionIgnored), "an_older_answer_never_replaces_a_newer_one"),
    "lagging answers accepted": (build(LaggingAccepted), "a_lagging_answer_is_asked_for_again"),
    "unknown kept over a creation": (build(OURS, floors=NoFloors), "a_refusal_that_was_under_way_is_not_kept"),
    "deaf to keys": (build(DeafToKeys), "a_revoked_key_is_refused_at_once"),
    "deaf to tenants": (build(DeafToTenants), "suspension_drops_every_key_of_the_tenant"),
    "deaf to resets": (build(DeafToResets), "a_reset_trusts_nothing_past_its_deadline"),
    "negative entry survives key_created": (build(NegativeSurvives), "a_created_key_counts_at_once"),
    "key_created drops every refusal": (build(NegativesAllDropped), "a_created_key_counts_at_once"),
    "age from use": (build(AgeFromUse), "a_key_in_use_is_refreshed_ahead"),
    "age from arrival": (build(AgeFromArrival), "age_counts_from_the_sending_of_the_question"),
    "leeway at expiry": (build(Leeway), "expiry_has_no_leeway"),
    "overlap forgotten": (build(OverlapForgotten), "an_old_secret_ends_with_its_overlap"),
    "old secret dropped": (build(OldSecretDropped), "an_old_secret_ends_with_its_overlap"),
    "ages on the wall clock": (build(OURS, clock=WallClock), "a_wall_clock_that_jumps_changes_nothing"),
    "never refreshed ahead": (build(NeverRefreshed), "a_key_in_use_is_refreshed_ahead"),
    "refusal outlives not_before": (build(NegativeTooLong), "a_key_becomes_valid_in_time"),
    "no negative entries": (build(NoNegatives), "one_forged_key_costs_one_question"),
    "one room for keys and refusals": (build(OneRoomForAll), "forged_keys_evict_no_good_one"),
    "outage reported as wrong key": (build(OutageIsWrongKey), "an_outage_is_not_a_wrong_key"),
    "no pause after a failure": (build(NoPause), "an_outage_is_not_a_wrong_key"),
    "stale without an outage": (build(StaleWithoutOutage), "an_idle_key_is_asked_about_again"),
    "stale on an authoritative no": (build(StaleOnNo), "an_authoritative_no_ends_the_allowance"),
    "stale and not marked": (build(StaleUnmarked), "known_keys_survive_an_outage_within_their_allowance"),
    "stale for ever": (
        build(OURS, freshness=Freshness(stale_write_us=seconds(3600))),
        "known_keys_survive_an_outage_within_their_allowance",
    ),
    "no end in an outage": (build(NoEndInOutage), "expiry_counts_during_an_outage"),
    "admin trusts silence": (build(AdminTrustsSilence), "admin_needs_a_feed_that_is_heard"),
    "one bad answer stops all": (build(NonsenseStopsAll), "nonsense_is_no_answer"),
    "anybody is a tenant": (build(AnybodyIsATenant), "a_well_formed_key_is_nobody"),
    "malformed keys asked about": (build(EverythingAsked), "malformed_keys_never_reach_the_hub"),
    "keys in lower case": (build(LowerCased), "keys_are_not_normalised"),
    "everybody reads and writes": (build(EverybodyReadsAndWrites), "permissions_are_what_the_key_says"),
    "masks of another preset": (build(EverybodyReadsAndWrites), "a_key_of_the_hub_is_accepted"),
    "restrictions ignored": (build(RestrictionsIgnored), "restrictions_that_cannot_be_enforced_refuse"),
    "environment ignored": (build(OURS, environment=None), "the_other_environment_is_refused"),
    "one look-up for each caller": (build(NoSharing), "a_herd_asks_once"),
    "followers cancelled with the leader": (build(LeaderTakesAll), "followers_outlive_the_leader"),
    "no recheck by digest": (build(Unrecheckable), "a_recheck_needs_no_secret"),
    "plaintext key kept": (build(PlaintextKept), "no_secret_is_kept_or_told"),
    "secret in an error": (build(SecretTold), "no_secret_is_kept_or_told"),
}
"""Each fault: the engine that has it, and the case that must catch it."""
