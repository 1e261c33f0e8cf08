"""Both families of HTTP clients fit the structural protocol of the hub's transport. Checked by mypy, never run."""

from __future__ import annotations

import httpx
import httpx2

from hivetenancy.hub.transport import HttpClient, HttpResponse, HubReply, HubTransport


async def over(url: str, key: str, *, old: httpx.AsyncClient, new: httpx2.AsyncClient) -> HubReply:
    """Either client is taken as it is."""
    clients: list[HttpClient] = [old, new]
    for client in clients:
        await HubTransport(url, key, http=client).aclose()
    return await HubTransport(url, key, http=new).call("GET", "/api/internal/extensions", repeatable=True)


def replies(old: httpx.Response, new: httpx2.Response) -> list[HttpResponse]:
    """So are their replies."""
    return [old, new]
