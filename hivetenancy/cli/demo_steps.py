"""The steps of ``hivetenancy demo``: what a real client sees when tenants are served, limited, refused and settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from hivetenancy.clock import SECOND_US
from hivetenancy.compose import ClusterTenancy, Tenancy
from hivetenancy.errors import HubUnavailableError
from hivetenancy.plans import Plan, RatePolicy, quota_limit
from hivetenancy.testing.hub import FakeHiveHub, FakeTenant

from .demo_hub import HubProcessRun
from .demo_table import Outcome, Table, UsageRow, bearer
from .kv_server import KeyValueServer
from .serving import serving

STORAGE = 1_000
"""Bytes that a tenant of the small plan may store; small enough to fill in one step."""

_SMALL = Plan(
    name="small",
    rates=(RatePolicy(name="per-second", limit=1_000, period_us=SECOND_US, burst=1_000),),
    quotas=(
        quota_limit("storage_bytes", STORAGE),
        quota_limit("keys", 100),
        quota_limit("operations", 10_000),
        quota_limit("searches", None),
    ),
    statics={"max_payload_bytes": 800},
)
_SLOW = Plan(
    name="slow",
    rates=(RatePolicy(name="per-second", limit=2, period_us=SECOND_US, burst=3),),
    quotas=_SMALL.quotas,
)


async def drive(show: Callable[[str], None]) -> Outcome:
    """Run all steps against a server of its own, showing each as a line of a table, and return what came of them."""
    table = Table(show)
    table.head()
    hub = FakeHiveHub(plans={plan.name: plan for plan in (_SMALL, _SLOW)})
    tenancy = Tenancy.embedded(hub, allow_workers=True)
    async with serving(tenancy.asgi(KeyValueServer().app())) as url, httpx.AsyncClient(base_url=url) as http:
        await _Run(hub, tenancy, http, table).all()
    await HubProcessRun(table).all()
    return table.outcome


class _Run:
    def __init__(self, hub: FakeHiveHub, tenancy: ClusterTenancy, http: httpx.AsyncClient, table: Table) -> None:
        self.hub, self.tenancy, self.http = hub, tenancy, http
        self.outcome, self.expect, self.note = table.outcome, table.expect, table.note
        self.acme = hub.add_tenant("acme", plan="small")
        self.globex = hub.add_tenant("globex", plan="small")
        self.initech = hub.add_tenant("initech", plan="slow")
        full = ["read", "write", "delete"]
        self.key = self.acme.issue_key(permissions=full).secret
        self.reader = self.acme.issue_key(permissions=["read"]).secret
        self.other = self.globex.issue_key(permissions=full).secret
        self.slow = self.initech.issue_key(permissions=full).secret
        self.done: dict[tuple[str, str], int] = {}

    async def all(self) -> None:
        """Run the steps in their order."""
        await self.keys_and_names()
        await self.permissions_and_payload()
        await self.storage()
        await self.rate()
        await self.revocation()
        await self.outage()
        await self.reporting()

    async def keys_and_names(self) -> None:
        """Without a key nothing; with one, only one's own."""
        await self.expect("no key", "401", self.http.get("/kv/greeting"))
        await self.expect("acme writes", "204", self.put("acme", self.key, "greeting", b"hello from acme"))
        await self.expect(
            "acme reads it back", "200 hello from acme", self.get("acme", self.key, "greeting"), body=True
        )
        await self.expect("globex asks for the same key", "404", self.get(None, self.other, "greeting"))
        await self.expect("globex lists its own keys", "200 []", self.list("globex", self.other), body=True)
        await self.expect("acme lists its own keys", '200 ["greeting"]', self.list("acme", self.key), body=True)

    async def permissions_and_payload(self) -> None:
        """A reading key does not write; a body over the plan's payload never fits."""
        await self.expect("acme's read-only key reads", "200", self.get("acme", self.reader, "greeting"))
        await self.expect("acme's read-only key writes", "403", self.put(None, self.reader, "greeting", b"no"))
        await self.expect("acme sends too large a payload", "413", self.put(None, self.key, "big", b"x" * 801))

    async def storage(self) -> None:
        """A full quota refuses, and a delete makes room again."""
        await self.expect("acme fills its storage", "204", self.put("acme", self.key, "filler", b"x" * 800))
        too_much = self.put(None, self.key, "more", b"x" * 300)
        await self.expect("acme stores more than its quota", "429 QUOTA_EXCEEDED", too_much, code=True)
        await self.expect("acme deletes", "204", self.delete("acme", self.key, "filler", 800))
        await self.expect("acme stores again", "204", self.put("acme", self.key, "more", b"x" * 300))

    async def rate(self) -> None:
        """Too fast is refused with the exact wait, and passes after it."""
        for _ in range(3):
            await self.expect("initech within its rate", "200", self.list("initech", self.slow))
        refused = await self.expect("initech too fast", "429 RATE_LIMITED", self.list(None, self.slow), code=True)
        wait_us = int(refused.json().get("retry_after_us", 0)) if refused.status_code == 429 else 0
        headers = refused.headers
        self.note(
            "  its headers: RateLimit", "yes", "yes" if '"per-second";r=' in headers.get("ratelimit", "") else "no"
        )
        exact = str(-(-wait_us // SECOND_US))
        self.note("  its headers: Retry-After, rounded up", exact, headers.get("retry-after", "none"))
        await asyncio.sleep(wait_us / SECOND_US)
        await self.expect("initech after just that wait", "200", self.list("initech", self.slow))

    async def revocation(self) -> None:
        """A revoked key is refused at its next call."""
        key = self.acme.issue_key(permissions=["read"])
        await self.expect("acme uses another key", "200", self.get("acme", key.secret, "greeting"))
        key.revoke()
        await self.expect("acme uses it after its revocation", "401", self.get(None, key.secret, "greeting"))

    async def outage(self) -> None:
        """With the hub out of reach known keys go on, and nothing is guessed about others."""
        stranger = self.acme.issue_key(permissions=["read"]).secret
        with self.hub.outage():
            await self.expect("hub down: a known key goes on", "200", self.get("acme", self.key, "greeting"))
            await self.expect("hub down: an unknown key", "503", self.get(None, stranger, "greeting"))
        self.hub.advance(2)  # past the pause that follows a failed look-up
        await self.expect("hub back: the key is known now", "200", self.get("acme", stranger, "greeting"))

    async def reporting(self) -> None:
        """Usage reaches the hub once, though the receipt of a report is lost."""
        self.hub.lose_next_reply("report")
        try:
            await self.tenancy.flush()
            lost = "no"
        except HubUnavailableError:
            lost = "yes"
        self.note("usage reported, its receipt lost on the way", "yes", lost)
        await self.tenancy.flush()
        for tenant in (self.acme, self.globex, self.initech):
            self.usage_of(tenant)
        right = sum(row.done == row.reported for row in self.outcome.usage)
        self.note("figures at the hub that equal what was done", str(len(self.outcome.usage)), str(right))

    def usage_of(self, tenant: FakeTenant) -> None:
        """Set what the clients did beside what the hub was told."""
        for (name, dimension), done in sorted(self.done.items()):
            if name == tenant.name:
                row = UsageRow(tenant=name, dimension=dimension, done=done, reported=tenant.used(dimension))
                self.outcome.usage.append(row)

    # --- calls; *tenant* names who is to be charged for a success, None: nobody is ---

    async def put(self, tenant: str | None, key: str, name: str, body: bytes) -> httpx.Response:
        """Write, and remember what it should be charged."""
        self.count(tenant, operations=1, storage_bytes=len(body), keys=1)
        return await self.http.put(f"/kv/{name}", headers=bearer(key), content=body)

    async def get(self, tenant: str | None, key: str, name: str) -> httpx.Response:
        """Read."""
        self.count(tenant, operations=1)
        return await self.http.get(f"/kv/{name}", headers=bearer(key))

    async def delete(self, tenant: str | None, key: str, name: str, size: int) -> httpx.Response:
        """Delete, and remember what it should be credited."""
        self.count(tenant, operations=1, storage_bytes=-size, keys=-1)
        return await self.http.delete(f"/kv/{name}", headers=bearer(key))

    async def list(self, tenant: str | None, key: str) -> httpx.Response:
        """List."""
        self.count(tenant, operations=1, searches=1)
        return await self.http.get("/kv", headers=bearer(key))

    def count(self, tenant: str | None, **amounts: int) -> None:
        """Remember what a success should come to."""
        if tenant is not None:
            for dimension, amount in amounts.items():
                self.done[tenant, dimension] = self.done.get((tenant, dimension), 0) + amount
