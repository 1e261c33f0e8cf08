"""The demo's last steps: a hub in a process of its own, which is killed, and started again.

The server is the same as before. What is different is that its hub is reached over HTTP by the client that would talk
to a real one, and that it really is gone for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from hivetenancy.clock import SECOND_US
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.errors import HubContractError, HubUnavailableError
from hivetenancy.hub.client import HiveHub
from hivetenancy.ids import TenantId

from .demo_table import Table, UsageRow, bearer
from .kv_server import KeyValueServer
from .serving import NotServingError, serving

_TENANTS = {
    "tenants": [
        {"name": "hooli", "plan": "free", "keys": [{"permissions": ["read", "write"]}, {"permissions": ["read"]}]}
    ]
}
_START_SECONDS = 30.0
_BACK_SECONDS = 30.0


class HubProcess:
    """``hivetenancy hub serve`` with a state file.

    Args:
        folder: Where its files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self) -> dict[str, Any]:
        """Start it, on the port that it had before, and return what it says of itself.

        Raises:
            NotServingError: It did not start.
        """
        seeds = self._folder / "tenants.json"
        arguments = ["hub", "serve", "--json", "--state", str(self._folder / "hub.db"), "--port", str(self.port)]
        if not self.port:
            seeds.write_text(json.dumps(_TENANTS), encoding="utf-8")
            arguments += ["--tenants", str(seeds)]
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hivetenancy",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await self._process.stdout.readline()
            card: dict[str, Any] = json.loads(line)
        except (TimeoutError, ValueError):
            raise NotServingError("the hub did not start; its messages say why") from None
        self.port = httpx.URL(card["url"]).port or 0
        return card

    async def kill(self) -> None:
        """End it without a chance to say anything."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class HubProcessRun:
    """The steps with a hub in a process of its own.

    Args:
        table: Where they are entered.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._done = {"operations": 0, "storage_bytes": 0, "keys": 0}

    async def all(self) -> None:
        """Run them."""
        with tempfile.TemporaryDirectory() as folder:
            hub = HubProcess(Path(folder))
            try:
                async with self._server(await hub.start()) as (control, tenancy, http, tenant):
                    await self._steps(hub, control, tenancy, http, tenant)
            finally:
                await hub.kill()

    @contextlib.asynccontextmanager
    async def _server(
        self, card: dict[str, Any]
    ) -> AsyncIterator[tuple[HiveHub, ClusterTenancy, httpx.AsyncClient, dict[str, Any]]]:
        control = HiveHub(card["url"], card["service_key"], service="synap", allow_fake=True)
        tenancy = Tenancy.embedded(control, allow_workers=True, report_seconds=3600)
        async with serving(tenancy.asgi(KeyValueServer().app())) as url, httpx.AsyncClient(base_url=url) as http:
            yield control, tenancy, http, card["tenants"][0]

    async def _steps(
        self,
        hub: HubProcess,
        control: HiveHub,
        tenancy: ClusterTenancy,
        http: httpx.AsyncClient,
        tenant: dict[str, Any],
    ) -> None:
        writer, stranger = (key["secret"] for key in tenant["keys"])
        await self._write(http, "a hub in another process: hooli writes", writer, "one")
        await hub.kill()
        await self._write(http, "the process is killed: hooli writes on", writer, "two")
        await self._read(http, "  and reads", writer, "one")
        await self._table.expect("  a key that was never seen", "503", http.get("/kv/one", headers=bearer(stranger)))
        await hub.start()
        self._table.note("it is started again: usage is taken", "yes", "yes" if await _reported(tenancy) else "no")
        await self._figures(control, tenant)

    async def _write(self, http: httpx.AsyncClient, step: str, key: str, name: str) -> None:
        await self._table.expect(step, "204", http.put(f"/kv/{name}", headers=bearer(key), content=b"x" * 100))
        self._done["operations"] += 1
        self._done["storage_bytes"] += 100
        self._done["keys"] += 1

    async def _read(self, http: httpx.AsyncClient, step: str, key: str, name: str) -> None:
        await self._table.expect(step, "200", http.get(f"/kv/{name}", headers=bearer(key)))
        self._done["operations"] += 1

    async def _figures(self, control: HiveHub, tenant: dict[str, Any]) -> None:
        limits = (await control.extensions.limits(TenantId(tenant["id"]))).limits
        told = {} if limits is None else {standing.limit.dimension: standing.used for standing in limits.quotas}
        for dimension, done in sorted(self._done.items()):
            row = UsageRow(tenant=tenant["name"], dimension=dimension, done=done, reported=told.get(dimension, -1))
            self._table.outcome.usage.append(row)
        right = sum(told.get(dimension) == done for dimension, done in self._done.items())
        self._table.note("  figures at the hub that equal what was done", str(len(self._done)), str(right))


async def _reported(tenancy: ClusterTenancy) -> bool:
    """Report until the hub takes it, as the background work does with more patience; return whether it did."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BACK_SECONDS):
            while True:
                try:
                    await tenancy.flush()
                except HubUnavailableError as error:
                    await asyncio.sleep((error.retry_after_us or SECOND_US // 4) / SECOND_US)
                except HubContractError:
                    return False
                else:
                    return True
    return False
