"""The example `examples/aiohttp_kv.py`, imported and run as a program."""

from __future__ import annotations

import asyncio
import sys

import pytest

pytest.importorskip("aiohttp", reason="needs the extra hivetenancy[aiohttp]")

from aiohttp import ClientSession, web

from tests.adapters.example import example
from tests.adapters.world import World, plan
from tests.readme import ROOT

pytestmark = pytest.mark.anyio


async def test_two_tenants_on_one_dict() -> None:
    """The same key is two keys; lists, charges and deletes are each tenant's own; a full plan frees by deleting."""
    world = World(plan(storage_bytes=10, max_payload_bytes=8))
    runner = web.AppRunner(example("aiohttp_kv").build(world.tenancy))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mine = world.key.headers
    theirs = world.other.issue_key(permissions=["read", "write", "delete"]).headers
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:

        async def ask(method: str, path: str, headers: dict[str, str], data: bytes | None = None) -> tuple[int, bytes]:
            async with client.request(method, path, headers=headers, data=data) as told:
                return told.status, await told.read()

        assert (await ask("GET", "/livez", {})) == (200, b"ok")
        assert (await ask("GET", "/kv/a", {}))[0] == 401
        assert (await ask("PUT", "/kv/a/b", mine, b"12345678")) == (204, b"")
        assert (await ask("GET", "/kv/a/b", mine)) == (200, b"12345678")
        assert (await ask("GET", "/kv/a/b", theirs))[0] == 404
        assert (await ask("DELETE", "/kv/a/b", theirs))[0] == 404
        assert (await ask("GET", "/kv?prefix=a", mine)) == (200, b'["a/b"]')
        assert (await ask("GET", "/kv", theirs)) == (200, b"[]")
        assert (await ask("PUT", "/kv/c", mine, b"123"))[0] == 429
        assert (await ask("PUT", "/kv/a/b", mine, b"1234"))[0] == 204
        assert (await ask("PUT", "/kv/c", mine, b"123"))[0] == 204
        assert (await ask("DELETE", "/kv/c", mine))[0] == 204
        assert (await ask("PUT", "/kv/c", mine, b"123456789"))[0] == 413
        assert b'"storage_bytes"' in (await ask("GET", "/usage", mine))[1]
        assert await world.used("storage_bytes") == 4
    await runner.cleanup()


async def test_run_as_a_program() -> None:
    """Started as a program it prints keys and ready lines, and serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "aiohttp_kv.py"),
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 30)).decode() for _ in range(3)]
        secret, url = lines[0].split()[2], lines[2].split()[-1]
        headers = {"Authorization": f"Bearer {secret}"}
        async with ClientSession(headers=headers) as client, client.put(url, data=b"1") as told:
            assert told.status == 204
    finally:
        process.terminate()
        await process.wait()
