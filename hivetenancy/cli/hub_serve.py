"""``hivetenancy hub serve``: the fake over HTTP, on this machine's own addresses, until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any

from hivetenancy.errors import ConfigurationError
from hivetenancy.testing.hub import FakeHiveHub
from hivetenancy.testing.hub_guard import Guard
from hivetenancy.testing.hub_seed import read_seeds, sow

from .serving import NotServingError, serving, told_to_stop

HOSTS = {None: "127.0.0.1", "127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}
"""What ``--host`` may say, and the address that is bound: this machine's own, never one that others reach."""


async def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code.

    Raises:
        ConfigurationError: The address is not of this machine alone, or a file is wrong.
        NotServingError: The address cannot be used, or the state file is another's.
        HubUnavailableError: The state file cannot be written.
    """
    if options.host not in HOSTS:
        raise ConfigurationError(
            f"--host {options.host}: a fake listens on this machine alone: 127.0.0.1, localhost or ::1"
        )
    seeds = [] if options.tenants is None else read_seeds(options.tenants)
    try:
        hub = FakeHiveHub(extensions=options.extensions, state=options.state)
    except ConfigurationError as error:
        raise NotServingError(str(error)) from error
    with contextlib.closing(hub):
        tenants = sow(hub, seeds)
        control = hub.controlled_app() if options.control else None
        guard = Guard(hub.app if control is None else control)
        async with serving(guard, options.port or 0, host=HOSTS[options.host]) as url:
            card = {
                "url": url,
                "service_key": hub.service_key,
                "control_token": None if control is None else control.token,
                "tenants": tenants,
            }
            told = told_to_stop()  # before anybody knows that it is there
            print(json.dumps(card) if options.json else _text(card), flush=True)
            await told.wait()
            guard.end()
            hub.service.wake()
    return 0


def _text(card: dict[str, Any]) -> str:
    url, key, token = card["url"], card["service_key"], card["control_token"]
    lines = [f"{url} {key}", "", "A fake HiveHub, for tests: it says so in every answer. Ctrl-C ends it.", ""]
    for tenant in card["tenants"]:
        lines.append(f"{tenant['name']}  {tenant['id']}  plan {tenant['plan']}")
        lines += [f"    {key['name']}  {'+'.join(key['permissions'])}  {key['secret']}" for key in tenant["keys"]]
    lines.append(f"curl -H 'X-Service-Key: {key}' {url}/api/internal/extensions")
    if token is not None:
        lines.append(
            f"""curl -H 'X-Fake-Control: {token}' -d '{{"name": "another", "plan": "pro"}}' {url}/_fake/tenants"""
        )
    return "\n".join(lines)
