"""HiveHub's official SDK against the fake as a process: all 23 calls, values and error variants.

The program that makes them is ours and stands in ``rust_sdk/``. What it would let pass is tested too: between it and
the hub, `Liar` falsifies the replies of one call at a time, and the program has to name that call.

Nothing here runs in the fast tier: a cold build takes a minute or two, and fetches crates.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.tiers import TIER, needs_program

pytestmark = [
    pytest.mark.skipif(TIER != "deep", reason="building the official SDK takes minutes: deep tier only"),
    needs_program("cargo"),
    pytest.mark.timeout(900),
]

CRATE: Final = Path(__file__).parent / "rust_sdk"
UUID: Final = "[0-9a-f-]{36}"

CALLS: Final = (
    "POST /access-keys/generate",
    "GET /access-keys",
    f"GET /access-keys/{UUID}",
    f"DELETE /access-keys/{UUID}",
    f"GET /vectorizer/users/{UUID}/collections",
    f"POST /vectorizer/users/{UUID}/collections",
    f"GET /vectorizer/collections/{UUID}/validate",
    f"PUT /vectorizer/collections/{UUID}/usage",
    "POST /vectorizer/quota",
    f"GET /nexus/users/{UUID}/database",
    "POST /nexus/quota",
    f"POST /nexus/users/{UUID}/credits",
    f"PUT /nexus/users/{UUID}/usage",
    f"GET /synap/users/{UUID}/resources",
    "GET /synap/resources/[^/]+/validate",
    f"POST /synap/users/{UUID}/resources",
    f"PUT /synap/users/{UUID}/usage",
    "POST /synap/quota",
    f"GET /lesstokens/users/{UUID}/tokens",
    f"GET /lesstokens/users/{UUID}/validate",
    f"POST /lesstokens/users/{UUID}/consume",
    f"GET /lesstokens/users/{UUID}/limit",
    "POST /lesstokens/quota",
)
"""The calls in the order of the SDK's documentation: method and path below ``/api/internal``, without the query."""

NO_BODY: Final = {13, 17}
"""Calls of whose reply the SDK reads the status alone."""

RUNS: Final = len(CALLS) + 2

COUNTED: Final = ("collections", "vectors", "nodes", "relationships", "queues", "storage_bytes", "credits", "tokens")

TENANTS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "free", "plan": "free"},
    {"name": "pro", "plan": "pro"},
    {"name": "boundless", "plan": "enterprise", "limits": dict.fromkeys(COUNTED)},
)
"""What one run needs; ``None`` is no limit."""


class Hub:
    """A running hub: where it is, its key, and for each run tenants that nothing was done with yet."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.url: str = said["url"]
        self.service_key: str = said["service_key"]
        ids = {tenant["name"]: tenant["id"] for tenant in said["tenants"]}
        self._runs = [[ids[f"{tenant['name']}-{run}"] for tenant in TENANTS] for run in range(RUNS)]

    def fresh(self) -> list[str]:
        """The ids of a run's tenants, as in `TENANTS`."""
        return self._runs.pop()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built program. Built from a copy, so that no lock file is left where the sources are."""
    folder = tmp_path_factory.mktemp("rust")
    shutil.copytree(CRATE, folder / "crate", ignore=shutil.ignore_patterns("target", "Cargo.lock"))
    target = Path(os.environ.get("CARGO_TARGET_DIR", folder / "target")).absolute()
    command = ["cargo", "build", "--quiet", "--manifest-path", str(folder / "crate" / "Cargo.toml")]
    quick = {"CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_INCREMENTAL": "0"}  # built once, and no debugger looks at it
    env = {**os.environ, **quick, "CARGO_TARGET_DIR": str(target)}
    built = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return target / "debug" / "hivehub-interop"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A fake hub in a process of its own."""
    folder = tmp_path_factory.mktemp("hub")
    tenants = [{**tenant, "name": f"{tenant['name']}-{run}"} for run in range(RUNS) for tenant in TENANTS]
    (folder / "tenants.json").write_text(json.dumps({"tenants": tenants}))
    command = [sys.executable, "-m", "hivetenancy", "hub", "serve", "--json", "--port", "0"]
    command += ["--tenants", str(folder / "tenants.json")]
    with (
        (folder / "errors").open("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            assert said, f"the hub did not start: {(folder / 'errors').read_text()}"
            yield Hub(json.loads(said))
        finally:
            server.kill()


def run(program: Path, url: str, service_key: str, tenants: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the program. It meets no proxy, which the SDK would take from the environment."""
    told = {"HIVEHUB_URL": url, "HIVEHUB_SERVICE_KEY": service_key}
    told |= {f"HIVEHUB_TENANT_{letter}": tenant for letter, tenant in zip("ABC", tenants, strict=True)}
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [str(program)], env={**plain, **told}, capture_output=True, text=True, timeout=120, check=False
    )


def test_official_sdk_makes_every_call(program: Path, hub: Hub) -> None:
    """All 23 calls of the official SDK give the values and errors that HiveHub's wire says."""
    ended = run(program, hub.url, hub.service_key, hub.fresh())
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, "\n".join([*lines[-4:], ended.stderr])
    assert re.fullmatch(r"23 of 23 calls, [1-9]\d* checks", lines[-1])
    assert {int(line.split()[1]) for line in lines[:-1]} == set(range(1, 24))
    assert any("without a limit" in line for line in lines)
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert hub.service_key not in ended.stdout + ended.stderr


def test_wrong_service_key_stops_the_program(program: Path, hub: Hub) -> None:
    """With a service key that is not the hub's the first call is refused, and the program says so."""
    ended = run(program, hub.url, "svc_all_of_nobody", hub.fresh())
    assert ended.returncode == 1
    assert ended.stdout.startswith("FAILED 01 access_keys.generate")
    assert 'came:     Authentication("Invalid API key")' in ended.stdout


# --- what the program would let pass ---------------------------------------------------------------------------------


def falsified(value: Any) -> Any:
    """A reply of the same types with every flag, count and list of names in it wrong."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, dict):
        return {name: falsified(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [falsified(inner) for inner in value if isinstance(inner, dict)]
    return value


class Liar(BaseHTTPRequestHandler):
    """Passes requests on to a hub and falsifies the successes of one call."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together: apart, each reply waits 40 ms for a delayed acknowledgement
    upstream: str
    call: int
    lies: int

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            status, content = reply.status, reply.read()
        finally:
            connection.close()
        asked = f"{self.command} {urlsplit(self.path).path.removeprefix('/api/internal')}"
        if status < 300 and re.fullmatch(CALLS[self.call - 1], asked):
            type(self).lies += 1
            if self.call in NO_BODY:
                status = 500
            else:
                content = json.dumps(falsified(json.loads(content))).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@contextmanager
def lying(hub: Hub, call: int) -> Iterator[tuple[str, type[Liar]]]:
    """Serve a liar about *call* in front of *hub*: its URL, and the class that counts its lies."""
    liar = type("LiarAboutOne", (Liar,), {"upstream": urlsplit(hub.url).netloc, "call": call, "lies": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), liar) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", liar
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("call", range(1, len(CALLS) + 1))
def test_program_notices_a_false_reply(program: Path, hub: Hub, call: int) -> None:
    """Whichever call is answered falsely, the program stops there and names it: each call is truly asserted about."""
    with lying(hub, call) as (url, liar):
        ended = run(program, url, hub.service_key, hub.fresh())
    assert liar.lies > 0, f"the program never made call {call}"
    assert ended.returncode == 1, ended.stdout
    assert f"\nFAILED {call:02} " in f"\n{ended.stdout}"
