"""What people use instead, measured the same way: limiters by themselves, and middleware around the same handler.

Each peer does the closest thing it can do: two limits (a minute and an hour) for each of 100,000 tenants, or one for a
single hot one, and nothing is ever refused. None of them has quotas, names, permissions or usage, so for whole requests
the comparison favours them.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

from aiolimiter import AsyncLimiter
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage as AsyncMemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter as AsyncSlidingWindow
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate
from slowapi import Limiter as SlowLimiter
from slowapi.middleware import SlowAPIASGIMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hivetenancy.cli.bench import MANY, SOME, Row, Work, requests_with

PLENTY = 10**9
MINUTE, HOUR = RateLimitItemPerMinute(PLENTY), RateLimitItemPerHour(PLENTY)


def rows() -> list[Row]:
    """Return the rows of all peers."""
    return [
        Row(name="limits, fixed window, hot", work=_limits_hot(), per="SHA", peer=True),
        Row(name="aiolimiter, one bucket, hot", work=_aiolimiter(), per="SHA", peer=True),
        Row(name="pyrate-limiter, one rate, hot", work=_pyrate(), per="SHA", peer=True),
        Row(name="limits, two sliding windows, 100,000 tenants", work=_limits_sliding(), per="SHA", peer=True),
        Row(name="limits aio, two sliding windows, 100,000 tenants", work=_limits_async(), per="SHA", peer=True),
        _middleware_row("hand-made middleware, two limits and headers, added", _hand_made()),
        _middleware_row("slowapi ASGI middleware, two limits, added", _slowapi()),
    ]


def _middleware_row(name: str, app: Any) -> Row:
    keys = [f"hh_test_{number:040d}".encode() for number in range(SOME)]
    bare = requests_with(Starlette(routes=[Route("/kv/{key:path}", _put, methods=["PUT"])]), keys)
    return Row(name=name, work=requests_with(app, keys), per="bare", beyond=bare, peer=True)


async def _put(request: Request) -> Response:
    return Response(status_code=204)


def _tenants() -> list[str]:
    names = [f"{number:032x}" for number in range(MANY)]
    random.Random(7).shuffle(names)
    return names


def _limits_hot() -> Work:
    limiter = FixedWindowRateLimiter(MemoryStorage())

    async def work(count: int) -> None:
        for _ in range(count):
            limiter.hit(MINUTE, "tenant")

    return work


def _limits_sliding() -> Work:
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
    tenants = itertools.cycle(_tenants())

    async def work(count: int) -> None:
        for tenant in itertools.islice(tenants, count):
            limiter.hit(MINUTE, tenant)
            limiter.hit(HOUR, tenant)

    return work


def _limits_async() -> Work:
    limiter = AsyncSlidingWindow(AsyncMemoryStorage())
    tenants = itertools.cycle(_tenants())

    async def work(count: int) -> None:
        for tenant in itertools.islice(tenants, count):
            await limiter.hit(MINUTE, tenant)
            await limiter.hit(HOUR, tenant)

    return work


def _aiolimiter() -> Work:
    limiter: AsyncLimiter | None = None

    async def work(count: int) -> None:
        nonlocal limiter
        limiter = limiter or AsyncLimiter(PLENTY, 60)
        for _ in range(count):
            await limiter.acquire()

    return work


def _pyrate() -> Work:
    limiter = Limiter(InMemoryBucket([Rate(1_000_000, Duration.SECOND)]))

    async def work(count: int) -> None:
        for _ in range(count):
            limiter.try_acquire("tenant", blocking=False)

    return work


def _hand_made() -> Any:
    """Return what a careful team writes by hand: pure ASGI, two windows of `limits`, three headers."""
    limiter = FixedWindowRateLimiter(MemoryStorage())
    inner = Starlette(routes=[Route("/kv/{key:path}", _put, methods=["PUT"])])

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        key = dict(scope["headers"]).get(b"authorization", b"").decode()
        if not (limiter.hit(MINUTE, key) and limiter.hit(HOUR, key)):
            await Response(status_code=429)(scope, receive, send)
            return
        stats = limiter.get_window_stats(MINUTE, key)

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"x-ratelimit-limit", b"%d" % PLENTY),
                    (b"x-ratelimit-remaining", b"%d" % stats.remaining),
                    (b"x-ratelimit-reset", b"%d" % stats.reset_time),
                ]
            await send(message)

        await inner(scope, receive, with_headers)

    return app


def _slowapi() -> Any:
    def key(request: Request) -> str:
        return request.headers.get("authorization", "")

    limiter = SlowLimiter(key_func=key, default_limits=[f"{PLENTY}/minute", f"{PLENTY}/hour"], headers_enabled=True)
    app = Starlette(routes=[Route("/kv/{key:path}", _put, methods=["PUT"])])
    app.state.limiter = limiter
    app.add_middleware(SlowAPIASGIMiddleware)
    return app
