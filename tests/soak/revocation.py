"""``python -m tests.soak.revocation``: how long a revoked key is accepted, in real time and over real HTTP.

One hub on uvicorn; three validators with the change feed and three without, each a process of its own. All of them
present the same keys over and over: every second key all the time, the others now and then, as an idle key that comes
back is what a cache without a feed is slowest about. A caller that was refused stops. The keys are revoked at staggered
moments, and for each the last acceptance of any validator is compared with the moment of its revocation, on the clock
that all processes share.

It measures, prints and asserts nothing. ``nox -s revocation`` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Sequence
from typing import Any

import uvicorn

from hivetenancy.access_keys.cached import CachedAccessKeys
from hivetenancy.access_keys.feed import Feed
from hivetenancy.access_keys.protocol import Principal
from hivetenancy.authority.api import hub_app
from hivetenancy.authority.service import HubService
from hivetenancy.errors import UnavailableError
from hivetenancy.functions import FunctionRegistry
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import Effect

EVERY = 0.02
"""Seconds between two uses of a key that is in use all the time."""

NOW_AND_THEN = 5.0
"""Seconds between two uses of a key that is not, on average."""

AFTER = 35.0
"""Seconds that are watched after the last revocation: longer than an answer counts without a feed."""


# --- a validator -----------------------------------------------------------------------------------------------------


class Validator:
    """One process: presents keys, and notes when each was accepted last."""

    def __init__(self, hub: HiveHub, secrets: Sequence[str], *, with_feed: bool) -> None:
        self.hub, self.secrets = hub, [each.encode() for each in secrets]
        self.feed = Feed(hub) if with_feed else None
        self.keys = CachedAccessKeys(hub, functions=FunctionRegistry(), feed=self.feed)
        self.last = [0.0] * len(secrets)
        self.asking: set[int] = set()
        self.refused: set[int] = set()
        self.unavailable = 0

    async def run(self) -> None:
        """Warm up, say so, work until told to end, and print what was noted."""
        await self.hub.open()
        tasks = [asyncio.create_task(self.keys.run())]
        if self.feed is not None:
            await self.feed.open()
            tasks.append(asyncio.create_task(self.feed.run()))
        await asyncio.gather(*(self.use(number) for number in range(len(self.secrets))))
        print("ready", flush=True)
        work = asyncio.create_task(self.work())
        await asyncio.to_thread(sys.stdin.readline)
        for task in (work, *tasks):
            task.cancel()
        await asyncio.gather(work, *tasks, return_exceptions=True)
        await self.keys.aclose()
        await self.hub.aclose()
        print(json.dumps({"last": self.last, "unavailable": self.unavailable}), flush=True)

    async def work(self) -> None:
        """Present the keys."""
        uses = [asyncio.create_task(self.now_and_then(number)) for number in range(1, len(self.secrets), 2)]
        try:
            while True:
                for number in range(0, len(self.secrets), 2):
                    if number not in self.refused:
                        self.glance(number)
                await asyncio.sleep(EVERY)
        finally:
            for use in uses:
                use.cancel()

    async def now_and_then(self, number: int) -> None:
        """Present one key at random moments."""
        while number not in self.refused:
            await asyncio.sleep(random.expovariate(1 / NOW_AND_THEN))
            await self.use(number)

    def glance(self, number: int) -> None:
        """Present a key to memory; where that cannot tell, have it looked up."""
        try:
            answer = self.keys.try_validate(self.secrets[number], effect=Effect.READ)
        except UnavailableError:
            self.unavailable += 1
            return
        if isinstance(answer, Principal):
            self.last[number] = time.monotonic()
        elif answer is not None:
            self.refused.add(number)
        elif number not in self.asking:
            self.asking.add(number)
            asyncio.get_running_loop().create_task(self.use(number)).add_done_callback(
                lambda _: self.asking.discard(number)
            )

    async def use(self, number: int) -> None:
        """Present a key as a request does."""
        try:
            answer = await self.keys.validate(self.secrets[number], effect=Effect.READ)
        except UnavailableError:
            self.unavailable += 1
            return
        if isinstance(answer, Principal):
            self.last[number] = time.monotonic()
        else:
            self.refused.add(number)


async def validate() -> None:
    """Be a validator: what to do comes as one line of JSON, so that no secret stands in a list of processes."""
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    hub = HiveHub(told["url"], told["service_key"])
    await Validator(hub, told["secrets"], with_feed=told["with_feed"]).run()


# --- the hub, and those who watch ------------------------------------------------------------------------------------


async def start(told: dict[str, Any]) -> Process:
    """Start a validator process and wait until it knows all keys."""
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.revocation", "--validator"), stdin=PIPE, stdout=PIPE, limit=1 << 24
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    await process.stdin.drain()
    if (await process.stdout.readline()).strip() != b"ready":
        raise RuntimeError("a validator did not start")
    return process


async def end(process: Process) -> dict[str, Any]:
    """Have a validator end, and return what it noted."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"end\n")
    noted: dict[str, Any] = json.loads(await process.stdout.readline())
    await process.wait()
    return noted


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure(keys: int, validators: int, seconds: float) -> None:
    """Run it all and print the figures."""
    hub = HubService()
    tenants = [hub.add_tenant(f"tenant-{number}", plan="free") for number in range(50)]
    minted = [hub.issue_key(tenants[number % 50], name="k", permissions=["read"]) for number in range(keys)]
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(hub_app(hub), port=port, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.05)
    told = {
        "url": f"http://127.0.0.1:{port}",
        "service_key": hub.issue_service_key("synap").secret,
        "secrets": [each.secret for each in minted],
    }
    processes = {
        with_feed: [await start(told | {"with_feed": with_feed}) for _ in range(validators)]
        for with_feed in (True, False)
    }
    print(
        f"{keys} keys known to {validators} validators with the feed and {validators} without; revoking for "
        f"{seconds:g} s",
        flush=True,
    )
    order = random.sample(range(keys), keys)
    began = time.monotonic()
    revoked = [0.0] * keys
    for place, number in enumerate(order):
        await asyncio.sleep(max(0.0, began + seconds * place / keys - time.monotonic()))
        revoked[number] = time.monotonic()
        hub.revoke_key(minted[number].key_id)
    await asyncio.sleep(AFTER)
    for with_feed, group in processes.items():
        notes = [await end(process) for process in group]
        show("with the feed" if with_feed else "without the feed", revoked, notes)
    server.should_exit = True
    await serving


def show(name: str, revoked: Sequence[float], notes: Sequence[dict[str, Any]]) -> None:
    """Print how long keys were accepted after their revocation, in milliseconds."""
    late = sorted(1000 * (note["last"][number] - at) for note in notes for number, at in enumerate(revoked))
    accepted = [each for each in late if each > 0]
    print(
        f"{name:17} longest {max(late):8.1f} ms; accepted after the revocation at all: {len(accepted)} of {len(late)}; "
        f"median of those {statistics.median(accepted) if accepted else 0:.1f} ms, "
        f"p99 {accepted[int(len(accepted) * 0.99)] if accepted else 0:.1f} ms; "
        f"could not be told {sum(note['unavailable'] for note in notes)} times",
        flush=True,
    )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.revocation")
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--validators", type=int, default=3, help="with the feed, and as many without")
    parser.add_argument("--seconds", type=float, default=30.0, help="over how long to revoke")
    parser.add_argument("--validator", action="store_true", help="be one of them (what to do comes by stdin)")
    options = parser.parse_args()
    if options.validator:
        asyncio.run(validate())
    else:
        asyncio.run(measure(options.keys, options.validators, options.seconds))


if __name__ == "__main__":
    main()
