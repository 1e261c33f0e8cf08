"""``hivetenancy demo``: a fake hub, a multi-tenant key-value server on loopback, and a real HTTP client driving it.

Without ``--serve`` it runs its steps, prints what was expected and what came, and exits with 1 on any mismatch. With
``--serve`` it keeps the server up for clients of your own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hivetenancy.testing.hub import FakeHiveHub, FakeTenant

    from .demo_table import Outcome

SERVED = (("writer", ("read", "write", "delete")), ("reader", ("read",)))
"""The keys that each tenant of ``--serve`` gets, by name, with their wire permissions."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--serve", action="store_true", help="keep the server up and print URL, tenants and keys")
    parser.add_argument("--port", type=_port, help="with --serve: the port; 0, the default, takes a free one")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        import starlette  # noqa: F401 - asked for here, so that the answer names the extra
        import uvicorn  # noqa: F401
    except ImportError:
        return _wrong("the demo needs its extra: pip install 'hivetenancy[demo]'")
    if options.port is not None and not options.serve:
        return _wrong("--port goes with --serve: the driven run takes a free port by itself")
    from .serving import NotServingError

    work = _serve(options) if options.serve else _drive(options)
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return 0
    except NotServingError as error:
        print(f"hivetenancy demo: {error}", file=sys.stderr)
        return 1


def _wrong(message: str) -> int:
    """Say what is wrong with the call, where it does not mix with what is printed, and return the exit code for it."""
    print(f"hivetenancy demo: {message}", file=sys.stderr)
    return 2


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


# --- --serve ---------------------------------------------------------------------------------------------------------


async def _serve(options: argparse.Namespace) -> int:
    from hivetenancy.compose import Tenancy
    from hivetenancy.testing.hub import FakeHiveHub

    from .kv_server import KeyValueServer
    from .serving import serving, told_to_stop

    hub = FakeHiveHub()
    tenancy = Tenancy.embedded(hub, allow_workers=True)
    async with serving(tenancy.asgi(KeyValueServer().app()), options.port or 0) as url:
        printed = _card(hub, url)
        told = told_to_stop()
        print(json.dumps(printed) if options.json else _curl_lines(printed), flush=True)
        await told.wait()
    return 0


def _card(hub: FakeHiveHub, url: str) -> dict[str, Any]:
    """Return what a client needs: the URL, and each tenant with its keys."""
    return {"url": url, "tenants": [_tenant_card(hub.add_tenant(name, plan="pro")) for name in ("acme", "globex")]}


def _tenant_card(tenant: FakeTenant) -> dict[str, Any]:
    keys = [
        {
            "name": name,
            "permissions": list(permissions),
            "secret": tenant.issue_key(permissions=permissions, name=name).secret,
        }
        for name, permissions in SERVED
    ]
    return {"name": tenant.name, "id": tenant.id, "keys": keys}


def _curl_lines(card: dict[str, Any]) -> str:
    url = card["url"]
    lines = [f"A multi-tenant key-value server listens on {url}", ""]
    for tenant in card["tenants"]:
        lines.append(f"{tenant['name']}  {tenant['id']}  plan pro")
        lines += [f"    {key['name']:7} {'+'.join(key['permissions']):18} {key['secret']}" for key in tenant["keys"]]
    secret = card["tenants"][0]["keys"][0]["secret"]
    header = f"-H 'Authorization: Bearer {secret}'"
    lines += [
        "",
        f"curl -i -X PUT {header} --data 'hello' {url}/kv/greeting",
        f"curl -i {header} {url}/kv/greeting",
        f"curl -i {header} '{url}/kv?prefix=gr'",
        f"curl -i {header} {url}/usage",
        f"curl -i {url}/kv/greeting        # no key: 401",
        "",
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)


# --- the driven run --------------------------------------------------------------------------------------------------


async def _drive(options: argparse.Namespace) -> int:
    from .demo_steps import drive

    show: Callable[[str], None] = (lambda _line: None) if options.json else print
    with _quiet():
        outcome = await drive(show)
    if options.json:
        print(json.dumps(outcome.as_json()))
    else:
        print(_ending(outcome))
    return 0 if outcome.ok else 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's log lines from between the lines of the table, where nobody configured logging.

    The refusals of the run are its point; without any handler Python would print each a second time. A host that
    handles log records goes on getting them.
    """
    logger, silent = logging.getLogger("hivetenancy"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        yield
    finally:
        logger.removeHandler(silent)


def _ending(outcome: Outcome) -> str:
    largest = max((row.done for row in outcome.usage), default=1) or 1
    lines = ["", "usage, as the clients did it and as the hub was told (once, though one receipt was lost):", ""]
    for row in outcome.usage:
        bar = "#" * max(1, round(30 * row.done / largest)) if row.done else ""
        lines.append(f"  {row.tenant:8} {row.dimension:14} {row.done:>7} {row.reported:>7}  {bar}")
    failed = sum(not step.ok for step in outcome.steps)
    verdict = "everything as expected" if outcome.ok else f"{failed} steps went wrong"
    lines += ["", f"{len(outcome.steps)} steps, {verdict}. `hivetenancy demo --serve` keeps the server up for curl."]
    return "\n".join(lines)
