"""Mistakes with the hub's transport that a type checker must report, at the marked lines and nowhere else."""

from __future__ import annotations

import httpx

from hivetenancy.hub.transport import HubTransport


def blocking(url: str, key: str, client: httpx.Client) -> HubTransport:
    """A blocking client is none."""
    return HubTransport(url, key, http=client)  # E: arg-type


async def undecided(transport: HubTransport) -> None:
    """Whether a call may be repeated is never left open."""
    await transport.call("POST", "/api/internal/quota")  # E: call-arg
