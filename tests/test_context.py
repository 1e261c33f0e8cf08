"""What carries the binding to a tenant, and what does not."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hivetenancy.context import Bound, TenantContext, bound
from hivetenancy.ids import TenantId


class _Work:
    """Something bound."""

    context = TenantContext(tenant_id=TenantId("acme"), key_id=None, generation=0)
    tenant = object()

    def await_later(self, ticket: object) -> None: ...


@pytest.fixture
def work() -> object:
    """Something to bind."""
    return _Work()


@pytest.mark.anyio
async def test_tasks_and_to_thread_carry_it_and_plain_threads_do_not(work: Bound) -> None:
    """As the module says: what starts with a copy of the context has the tenant, what starts without has none."""
    bound.set(work)
    seen: dict[str, Bound | None] = {
        "task": await asyncio.create_task(_ask()),
        "to_thread": await asyncio.to_thread(bound.get),
    }
    with ThreadPoolExecutor(1) as pool:
        seen["executor"] = await asyncio.get_running_loop().run_in_executor(pool, bound.get)
    thread = threading.Thread(target=lambda: seen.__setitem__("thread", bound.get()))
    thread.start()
    thread.join()
    assert seen == {"task": work, "to_thread": work, "executor": None, "thread": None}


@pytest.mark.anyio
async def test_tasks_of_two_requests_do_not_see_each_other(work: Bound) -> None:
    """A binding made in a task ends with it."""

    async def binds() -> None:
        bound.set(work)
        await asyncio.sleep(0)

    await asyncio.gather(asyncio.create_task(binds()), asyncio.create_task(binds()))
    assert bound.get() is None


async def _ask() -> Bound | None:
    return bound.get()
