"""The Redis proxy beside Redis itself: the same client, the same commands, with and without the proxy in between.

Run ``python -m tests.benchmarks.redis_proxy``. It starts a redis-server of its own and, as a program of its own, the
example `examples/redis_proxy.py`. Each row is measured in turns, straight and through the proxy, so that a busy machine
slows both. It passes or fails nothing.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis import __version__ as client_version

from hivetenancy.context import TenantContext
from hivetenancy.ids import TenantId
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.scopes.commands import CommandScope
from tests.readme import ROOT
from tests.scopes.live_redis import live_redis
from tests.scopes.served_proxy import served

ROUNDS = 9
CALLS = 600
DEPTH = 100


@contextmanager
def proxied(upstream: int) -> Iterator[Redis]:
    """A client of the proxy before the Redis on *upstream*."""
    program = [sys.executable, "-m", "tests.benchmarks.redis_proxy", str(upstream)]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port, key = process.stdout.readline().decode().split()
            with Redis(port=int(port), password=key) as client:
                yield client
        finally:
            process.terminate()


async def serve(upstream: int) -> None:
    """Be the proxy, with a tenant whose plan has room for all this."""
    async with served(upstream) as made:
        print(made.proxy.port, made.keys["a"].secret, flush=True)
        await asyncio.Event().wait()


def one_by_one(client: Any) -> int:
    """Commands, each after the reply to the one before."""
    for number in range(CALLS // 2):
        client.set("k", number)
        client.get("k")
    return CALLS


def in_pipelines(client: Any) -> int:
    """Commands, a hundred at once."""
    for _ in range(CALLS * 4 // DEPTH):
        pipe = client.pipeline(transaction=False)
        for number in range(DEPTH // 2):
            pipe.set("k", number).get("k")
        pipe.execute()
    return CALLS * 4


def of_many_keys(client: Any) -> int:
    """MGET of a hundred keys; a key counts as one."""
    for _ in range(CALLS // 20):
        client.mget([f"k{number}" for number in range(100)])
    return CALLS * 5


def per_call_us(work: Callable[[Any], int], client: Any) -> float:
    """Microseconds for one command."""
    began = time.perf_counter()
    count = work(client)
    return (time.perf_counter() - began) / count * 1e6


def beside(direct: Redis, proxy: Redis) -> None:
    """Print the rows of the proxy."""
    print(f"{'redis-py, us for one':28}{'straight':>10}{'proxy':>10}{'ratio':>8}{'overhead':>10}")
    for work in (one_by_one, in_pipelines, of_many_keys):
        rows = [(per_call_us(work, direct), per_call_us(work, proxy)) for _ in range(ROUNDS)]
        straight, through = (statistics.median(column) for column in zip(*rows, strict=True))
        name = work.__name__.replace("_", " ")
        print(f"{name:28}{straight:10.1f}{through:10.1f}{through / straight:8.2f}{through - straight:10.1f}")


def micro() -> None:
    """Print what the scope alone takes."""
    names = PrefixNamespaces().for_tenant(
        TenantContext(tenant_id=TenantId("550e8400-e29b-41d4-a716-446655440000"), key_id=None, generation=1)
    )
    scope = CommandScope(names)
    prefix = names.kv.binary.prefix
    many = [b"k%d" % number for number in range(100)]
    listed = [prefix + name for name in many]
    cases: list[tuple[str, list[bytes], object]] = [
        ("GET", [b"GET", b"k"], b"v"),
        ("SET with options", [b"SET", b"k", b"v", b"EX", b"100"], b"OK"),
        ("BLPOP of two", [b"BLPOP", b"a", b"b", b"0"], [prefix + b"a", b"v"]),
        ("ZUNIONSTORE of two", [b"ZUNIONSTORE", b"to", b"2", b"a", b"b"], 5),
        ("MGET of 100", [b"MGET", *many], [None] * 100),
        ("KEYS that finds 100", [b"KEYS", b"*"], listed),
    ]
    print(f"\n{'scope and unscope':28}{'us':>10}")
    for name, args, reply in cases:
        count = 20_000 if len(args) < 10 and reply is not listed else 1_000
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(count):
                scope.scope(args).unscope(reply)
            times.append((time.perf_counter() - began) / count * 1e6)
        print(f"{name:28}{statistics.median(times):10.2f}")


def main() -> None:
    """Measure, and print."""
    if len(sys.argv) > 1:
        asyncio.run(serve(int(sys.argv[1])))
    print(f"Python {platform.python_version()}, redis-py {client_version}, {platform.machine()}")
    with live_redis() as port, Redis(port=port) as direct, proxied(port) as proxy:
        beside(direct, proxy)
    micro()


if __name__ == "__main__":
    main()
