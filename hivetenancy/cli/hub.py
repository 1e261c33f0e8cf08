"""``hivetenancy hub serve | openapi | check``: a fake HiveHub as a process, its document, and a look at a real one.

``serve`` speaks HiveHub's wire on loopback for programs in any language. It is a fake and says so in every answer.
``check`` opens the hub that the settings name, as a server would, and says how each part of it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hivetenancy.hub.client import HiveHub

UNREACHABLE = 3
"""Exit code of ``check`` where nothing answers."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "action",
        choices=("serve", "openapi", "check"),
        help="serve a fake HiveHub, print the OpenAPI document of the wire, or check the hub of the settings",
    )
    serve = "with serve: "
    parser.add_argument("--host", help=f"{serve}an address of this machine: 127.0.0.1 (the default), localhost or ::1")
    parser.add_argument("--port", type=_port, help=f"{serve}the port; 0, the default, takes a free one")
    parser.add_argument("--tenants", type=Path, help=f"{serve}add the tenants of this JSON or TOML file")
    parser.add_argument("--state", type=Path, help=f"{serve}keep everything in this file, and go on from there")
    parser.add_argument("--control", action="store_true", help=f"{serve}offer the control routes (/_fake/...)")
    parser.add_argument(
        "--extensions", type=_extensions, help=f"{serve}what to announce: a,b,... or none; all otherwise"
    )
    parser.add_argument("--json", action="store_true", help=f"{serve}print one JSON object instead of text")
    parser.add_argument("--file", help="with check: the settings file; by default the one of HIVETENANCY_FILE, or none")
    parser.add_argument("--wait", type=_seconds, help="with check: how many seconds to wait for the hub to answer")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    of_serve = ("host", "port", "tenants", "state", "control", "extensions", "json")
    of_check = ("file", "wait")
    for names, action in ((of_serve, "serve"), (of_check, "check")):
        for name in names:
            if options.action != action and getattr(options, name) not in (None, False):
                return _wrong(f"--{name} goes with {action}")
    if options.action == "openapi":
        return _openapi()
    if options.action == "check":
        return _check(options)
    return _serve(options)


def _wrong(message: str, code: int = 2) -> int:
    """Say what is wrong with the call, where it does not mix with what is printed, and return the exit code for it."""
    print(f"hivetenancy hub: {message}", file=sys.stderr)
    return code


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("seconds are a number from 0 to 86400")
    return seconds


def _extensions(text: str) -> list[str]:
    from hivetenancy.authority.view import ALL_EXTENSIONS

    names = [] if text == "none" else text.split(",")
    if not set(names) <= set(ALL_EXTENSIONS):
        raise argparse.ArgumentTypeError(f"extensions are none, or some of {','.join(ALL_EXTENSIONS)}")
    return ["announcement", *names] if names else []  # whoever asks for some wants them announced


def _openapi() -> int:
    from hivetenancy.authority.openapi import openapi

    print(json.dumps(openapi(), indent=2))
    return 0


# --- serve -----------------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    try:
        import uvicorn  # noqa: F401 - asked for here, so that the answer names the extra
    except ImportError:
        return _wrong("serving needs its extra: pip install 'hivetenancy[demo]'")
    from hivetenancy.errors import ConfigurationError, HubUnavailableError

    from .hub_serve import serve
    from .serving import NotServingError

    try:
        return asyncio.run(serve(options))
    except KeyboardInterrupt:
        return 0
    except ConfigurationError as error:
        return _wrong(str(error))
    except (NotServingError, HubUnavailableError) as error:
        return _wrong(str(error), 1)


# --- check -----------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from hivetenancy.errors import ConfigurationError
    from hivetenancy.hub.client import HiveHub
    from hivetenancy.settings import hub_arguments, load

    try:
        hub = HiveHub(**hub_arguments(load(options.file)))
    except ConfigurationError as error:
        return _wrong(str(error), 1)
    except ImportError as error:
        return _wrong(str(error))
    return asyncio.run(_look(hub, options.wait or 0.0))


async def _look(hub: HiveHub, wait_s: float) -> int:
    from hivetenancy.errors import ConfigurationError, HubUnavailableError

    try:
        await _opened(hub, wait_s)
    except ConfigurationError as error:
        return _wrong(str(error), 1)
    except HubUnavailableError as error:
        return _wrong(str(error), UNREACHABLE if error.transient else 1)
    finally:
        await hub.aclose()
    parts = hub.parts()
    for part in parts:
        print(f"{'ok ' if part.ok else 'BAD'} {part.name}{': ' if part.why else ''}{part.why}")
    return 0 if all(part.ok for part in parts) else 1


async def _opened(hub: HiveHub, wait_s: float) -> None:
    """Open the hub, trying again until *wait_s* have passed."""
    from hivetenancy.errors import HubUnavailableError

    until = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            await hub.open()
        except HubUnavailableError as error:
            left = until - asyncio.get_running_loop().time()
            if not error.transient or left <= 0:
                raise
            await asyncio.sleep(min(0.5, left))
        else:
            return
