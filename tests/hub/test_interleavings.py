"""The client rules of HiveHub wire 4.2 over many interleavings: none late with them, and some without each of them.

`interleaving` has the scheduler and the oracle, `rules_off` the nodes that go without a rule. The counts are printed
(``pytest -s``). `tests/access_keys/test_machine.py` walks the key cache alone, over a hub in the same process;
`tests/authority/test_order.py` holds the hub to its half.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from hivetenancy.access_keys.cached import CachedAccessKeys, Freshness
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.authority.service import HubService
from hivetenancy.clock import DAY_US, MINUTE_US, SECOND_US
from hivetenancy.decision import Reason, Refusal
from hivetenancy.ids import Effect
from hivetenancy.testing import ManualClock
from tests.tiers import examples

from .interleaving import FUNCTIONS, Parts, World, runs
from .rules_off import RULES_OFF

BLOCKS = 10
EACH = examples(20, 1000)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep thousands of outages out of the log."""
    log = logging.getLogger("hivetenancy")
    log.disabled, keys = True, logging.getLogger("hivetenancy.access_keys")
    keys.disabled = True
    yield
    log.disabled = keys.disabled = False


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_interleaving_gives_out_what_a_delivered_change_took_back(block: int) -> None:
    """0 late acceptances, 0 limits from before a delivered change, and after quiescence nothing but the truth."""
    found, looked = runs(range(block * EACH, (block + 1) * EACH))
    print(f"\n{EACH} interleavings, {looked} answers looked at, violations: {dict(found)}")
    assert not found
    assert looked > EACH * 10


@pytest.mark.parametrize("rule", RULES_OFF)
def test_without_a_rule_something_is_late(rule: str) -> None:
    """Each client rule that is switched off lets something through, so each of them is necessary."""
    parts, focus = RULES_OFF[rule]
    caught, first = 0, {}
    for seed in range(examples(400, 400)):
        found, _ = runs((seed,), parts, focus, until_caught=True)
        caught += bool(found)
        first = first or dict(found)
        if caught and examples(1, 4) <= caught:
            break
    print(f"\nwithout {rule!r}: {caught} of {seed + 1} interleavings, the first {first}")
    assert caught


def test_a_seed_is_one_interleaving() -> None:
    """The same seed gives the same run, to the number of answers and turns, so a failure can be looked at again."""

    def trace(seed: int) -> tuple[object, ...]:
        world = World(seed, Parts())
        world.run()
        return world.accepted, world.limited, world.step, world.now, len(world.changes), world.hub.revision

    assert [trace(seed) for seed in range(10)] == [trace(seed) for seed in range(10)]


# --- keys that count later -------------------------------------------------------------------------------------------


class Polled:
    """A hub that does not signal: what happened is heard of when it is polled."""

    def __init__(self, hub: HubService) -> None:
        self.introspect, self.introspect_batch = hub.introspect, hub.introspect_batch
        self._changes = hub.changes

    async def changes(self, cursor: str | None, *, wait_seconds: int = 2) -> object:
        """Answer at once."""
        return await self._changes(cursor, wait_seconds=0)


class Later:
    """A key cache over a hub whose clock is off by *skew_us*, and a key that is shown before it exists."""

    SECRET = "hh_test_" + "k" * 40

    def __init__(self, skew_us: int = 0, kind: type[CachedAccessKeys] = CachedAccessKeys) -> None:
        self.clock, self.hub_clock = ManualClock(), ManualClock()
        self.hub_clock.step_wall(us=skew_us)
        self.hub = HubService(clock=self.hub_clock, mint_secret=lambda *_: self.SECRET)
        self.tenant = self.hub.add_tenant("acme", plan="free")
        polled = Polled(self.hub)
        self.feed = Feed(polled, clock=self.clock)  # type: ignore[arg-type]
        self.keys = kind(polled, feed=self.feed, functions=FUNCTIONS, clock=self.clock)  # type: ignore[arg-type]

    def advance(self, us: int) -> None:
        """Let time pass here and there."""
        self.clock.advance(us=us)
        self.hub_clock.advance(us=us)

    async def show(self) -> Principal | Refusal:
        """Present the key."""
        return await self.keys.validate(self.SECRET.encode(), effect=Effect.READ)

    def issue(self, *, starts_us: int | None = None, ends_us: int | None = None) -> None:
        """Issue the key, to start and end so long from now, by the hub's clock."""
        wall = self.hub_clock.now()[1]
        self.hub.issue_key(
            self.tenant,
            name="k",
            permissions=["read"],
            not_before_us=None if starts_us is None else wall + starts_us,
            expires_at_us=None if ends_us is None else wall + ends_us,
        )

    async def until_accepted(self) -> int:
        """Show the key every tenth of a second, and return when it was accepted first, in microseconds from now."""
        for tenths in range(200):
            if isinstance(await self.show(), Principal):
                return tenths * SECOND_US // 10
            self.advance(SECOND_US // 10)
        return 20 * SECOND_US


class LongNegatives(CachedAccessKeys):
    """A broken cache: remembers refusals for as long as keys."""

    def __init__(self, *arguments: object, **options: object) -> None:
        freshness = Freshness()
        object.__setattr__(freshness, "negative_us", 30 * SECOND_US)
        super().__init__(*arguments, freshness=freshness, **options)  # type: ignore[arg-type]


class DeafToCreation(CachedAccessKeys):
    """A broken cache: no word of the feed ends a refusal."""

    def _negative_of(self, known: bytes, at: int) -> object:  # type: ignore[override]
        entry = self._negative.get(known[:8])
        return entry if entry is not None and at < entry.until_us else None


@pytest.mark.anyio
@pytest.mark.parametrize("kind, good", [(CachedAccessKeys, True), (DeafToCreation, False)])
async def test_a_key_created_later_counts_at_once_when_it_is_announced(
    kind: type[CachedAccessKeys], good: bool
) -> None:
    """A refused key that is created counts as soon as the feed has said so, without any time passing."""
    world = Later(kind=kind)
    assert isinstance(await world.show(), Refusal)
    world.issue()
    assert isinstance(await world.show(), Refusal)  # not heard of yet
    await world.feed.poll_once()
    assert isinstance(await world.show(), Principal) is good


@pytest.mark.anyio
@pytest.mark.parametrize("kind, good", [(CachedAccessKeys, True), (LongNegatives, False)])
async def test_a_key_created_later_counts_within_five_seconds_otherwise(
    kind: type[CachedAccessKeys], good: bool
) -> None:
    """Where the feed says nothing, no refusal is remembered for longer than 5 s."""
    world = Later(kind=kind)
    assert isinstance(await world.show(), Refusal)
    world.issue()
    assert (await world.until_accepted() <= 5 * SECOND_US) is good


SKEWS = pytest.mark.parametrize("skew_us", [0, 10 * MINUTE_US, -10 * MINUTE_US, DAY_US, -DAY_US])


@pytest.mark.anyio
@SKEWS
async def test_not_before_is_kept_to_the_microsecond(skew_us: int) -> None:
    """A key starts when it says, by the hub's clock however wrong, and no refusal outlives that moment."""
    world = Later(skew_us)
    world.issue(starts_us=2 * SECOND_US + 7)
    refusal = await world.show()
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.KEY_NOT_YET_VALID
    world.advance(2 * SECOND_US + 6)
    assert isinstance(await world.show(), Refusal)
    world.advance(1)
    assert isinstance(await world.show(), Principal)


@pytest.mark.anyio
@SKEWS
async def test_expiry_has_no_leeway_by_a_hub_that_is_polled(skew_us: int) -> None:
    """A key ends when it says, by the hub's clock however wrong, while our own wall clock is stepped about."""
    world = Later(skew_us)
    world.issue(ends_us=20 * SECOND_US)
    assert isinstance(await world.show(), Principal)
    world.advance(20 * SECOND_US - 1)
    world.clock.step_wall(us=-DAY_US)
    assert isinstance(await world.show(), Principal)
    world.advance(1)
    assert not isinstance(world.keys.try_validate(world.SECRET.encode(), effect=Effect.READ), Principal)
    refusal = await world.show()
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.EXPIRED_KEY


class Late(Later):
    """The same over a hub whose answers take a second to arrive."""

    def __init__(self) -> None:
        super().__init__()
        ask = self.hub.introspect

        async def slowly(credential: bytes, **options: object) -> object:
            answer = await ask(credential, **options)  # type: ignore[arg-type]
            self.advance(SECOND_US)
            return answer

        self.keys._source.introspect = slowly  # type: ignore[method-assign,assignment]


@pytest.mark.anyio
async def test_an_end_is_never_reckoned_later_than_it_is() -> None:
    """Where the answer took a second, the end counts from its sending: early by that second, never late."""
    world = Late()
    await world.feed.open()
    world.issue(ends_us=10 * SECOND_US)
    assert isinstance(await world.show(), Principal)
    world.advance(9 * SECOND_US)
    assert not isinstance(world.keys.try_validate(world.SECRET.encode(), effect=Effect.READ), Principal)
