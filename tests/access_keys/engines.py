"""How the tests of this room build engines."""

from __future__ import annotations

import asyncio

from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.testing.contracts.access_keys import World


async def no_pause(_seconds: float) -> None:
    """Pause for one turn of the loop: time is passed in these tests, never slept."""
    await asyncio.sleep(0)


def make(world: World) -> CachedAccessKeys:
    """The engine as it ships, over a scripted hub."""
    return CachedAccessKeys(
        world.hub,
        feed=Feed(world.hub, clock=world.clock),
        functions=world.functions,
        clock=world.clock,
        environment=world.environment,
    )
