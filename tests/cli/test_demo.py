"""``hivetenancy demo``: its run is a test of the whole road, and its server is what its card says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

import hivetenancy
from hivetenancy.cli import main
from hivetenancy.sources import SourceConflict, UsageReply, UsageReport
from hivetenancy.tenant import current_tenant
from hivetenancy.testing import FakeHiveHub
from tests.tiers import needs_program

pytest.importorskip("starlette", reason="starlette is not installed: the demo needs its extra")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: the demo needs its extra")

from starlette.requests import Request
from starlette.responses import Response

from hivetenancy.cli import demo, demo_hub, demo_steps, demo_table
from hivetenancy.cli import serving as loopback
from hivetenancy.cli.demo_table import Outcome, Step, UsageRow
from hivetenancy.cli.kv_server import OPERATION, KeyValueServer
from hivetenancy.cli.serving import NotServingError
from hivetenancy.functions import function

WHERE = Path(hivetenancy.__path__[0]).parent


# --- the driven run --------------------------------------------------------------------------------------------------


def test_the_driven_run_goes_as_expected(capfd: pytest.CaptureFixture[str]) -> None:
    """Every step gets what it expects, usage is reported as it was done, and nothing but one object is printed."""
    assert main(["demo", "--json"]) == 0
    printed, beside = capfd.readouterr()
    assert beside == ""
    run = json.loads(printed)
    assert list(run) == ["ok", "steps", "usage"]
    assert run["ok"] is True
    assert {tuple(step) for step in run["steps"]} == {("step", "expected", "got", "ms")}
    assert [step for step in run["steps"] if step["got"] != step["expected"]] == []
    assert {tuple(row) for row in run["usage"]} == {("tenant", "dimension", "done", "reported")}
    assert [row for row in run["usage"] if row["done"] != row["reported"]] == []
    assert {step["got"][:3] for step in run["steps"]} >= {"200", "204", "401", "403", "404", "413", "429", "503"}


class ForgetsUsage(FakeHiveHub):
    """Acknowledges reports and books nothing of them."""

    async def report(self, report: UsageReport) -> UsageReply | SourceConflict:
        return UsageReply(last_sequence=report.sequence)


class ForgetsTheTenant(KeyValueServer):
    """Looks a key up under the caller's name for it, whoever else may have stored that."""

    @function("kv.set", effect="write", demand=OPERATION)
    async def put(self, request: Request) -> Response:
        """Store under the logical name."""
        body = await request.body()
        async with current_tenant().charge(request.path_params["key"], storage_bytes=len(body), keys=1):
            self.store[request.path_params["key"]] = body
        return Response(status_code=204)

    @function("kv.get", effect="read", demand=OPERATION)
    async def get(self, request: Request) -> Response:
        """Answer from the logical name."""
        return Response(self.store[request.path_params["key"]])


class NeverDies(demo_hub.HubProcess):
    """A hub process that goes on through its first end, so that nothing of an outage can be seen."""

    spared = False

    async def kill(self) -> None:
        """Spare it the first time."""
        if self.spared:
            await super().kill()
        self.spared = True

    async def start(self) -> dict[str, Any]:
        """Start it once."""
        return {} if self.spared else await super().start()


class NotRun:
    """Stands for the half of the run that a planted fault does not touch, whose time it saves."""

    def __init__(self, *_: object) -> None:
        pass

    async def all(self) -> None:
        """Run no step."""


ALONE, PROCESS = (demo_steps, "HubProcessRun", NotRun), (demo_steps, "_Run", NotRun)


@pytest.mark.parametrize(
    ("planted", "without", "wrong"),
    [
        ((demo_steps, "FakeHiveHub", ForgetsUsage), ALONE, {"figures at the hub that equal what was done"}),
        (
            (demo_steps, "KeyValueServer", ForgetsTheTenant),
            ALONE,
            {"globex asks for the same key", "acme lists its own keys"},
        ),
        ((demo_hub, "HubProcess", NeverDies), PROCESS, {"a key that was never seen"}),
    ],
    ids=["a hub that forgets usage", "a server that forgets the tenant", "a hub that was never gone"],
)
def test_a_mismatch_is_seen(
    planted: tuple[object, str, type],
    without: tuple[object, str, type],
    wrong: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What goes wrong is marked in the table, and makes the exit code 1."""
    monkeypatch.setattr(demo_steps._Run, "rate", NotRun.all)  # half a second of waiting, which no fault here is about
    monkeypatch.setattr(*planted)
    monkeypatch.setattr(*without)
    assert main(["demo"]) == 1
    lines = capsys.readouterr().out.splitlines()
    marked = {line[:52].strip() for line in lines if line.endswith("<-- not as expected")}
    assert wrong <= marked
    assert f"{len(marked)} steps went wrong" in lines[-1]


def test_the_ending_of_a_run() -> None:
    """The usage stands as a picture with both numbers, and the last line says how it went."""
    steps = [Step(step="no key", expected="401", got="401", ms=1.0)]
    usage = [
        UsageRow(tenant="acme", dimension="storage_bytes", done=300, reported=300),
        UsageRow(tenant="acme", dimension="keys", done=0, reported=0),
        UsageRow(tenant="globex", dimension="keys", done=1, reported=1),
    ]
    text = demo._ending(Outcome(steps=steps, usage=usage))
    assert [line.split() for line in text.splitlines() if line.startswith("  ")] == [
        ["acme", "storage_bytes", "300", "300", "#" * 30],
        ["acme", "keys", "0", "0"],
        ["globex", "keys", "1", "1", "#"],
    ]
    assert "1 steps, everything as expected" in text


def test_a_run_is_well_only_if_everything_was_looked_at() -> None:
    """A run without steps or without usage is not well, nor is one with a wrong figure of either."""
    good = Step(step="a", expected="200", got="200", ms=0.0)
    row = UsageRow(tenant="acme", dimension="keys", done=1, reported=1)
    assert Outcome(steps=[good], usage=[row]).as_json() == {"ok": True, "steps": [asdict(good)], "usage": [asdict(row)]}
    wrong_row = UsageRow(tenant="acme", dimension="keys", done=1, reported=0)
    wrong_step = Step(step="a", expected="200", got="500", ms=0.0)
    for steps, usage in (([], [row]), ([good], []), ([wrong_step], [row]), ([good], [wrong_row])):
        assert not Outcome(steps=steps, usage=usage).ok


def test_an_answer_that_is_no_problem_body_has_no_code() -> None:
    """A step that expects a code shows what came instead."""
    assert demo_table._code(httpx.Response(429, json={"code": "RATE_LIMITED"})) == "RATE_LIMITED"
    assert demo_table._code(httpx.Response(429, json={})) == "without a code"
    assert demo_table._code(httpx.Response(502, text="oops")) == "without a code"


# --- wrong calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["demo", "--nonsense"],
        ["demo", "--serve", "--port", "65536"],
        ["demo", "--serve", "--port", "-1"],
        ["demo", "--serve", "--port", "http"],
        ["demo", "extra"],
    ],
    ids=" ".join,
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A call that is wrong ends with 2 and says so beside the output."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    printed, beside = capsys.readouterr()
    assert printed == ""
    assert "usage: hivetenancy" in beside


def test_a_port_without_serve_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """No option is taken and ignored: a port belongs to the server that stays up."""
    assert main(["demo", "--port", "8000"]) == 2
    printed, beside = capsys.readouterr()
    assert printed == ""
    assert "--serve" in beside


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_a_missing_extra_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its extra the demo says what to install, and ends with 2."""
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["demo", "--json"]) == 2
    printed, beside = capsys.readouterr()
    assert printed == ""
    assert "pip install 'hivetenancy[demo]'" in beside


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that somebody else has is named, without a traceback, and ends the command with 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--serve", "--port", str(port)]) == 1
    printed, beside = capsys.readouterr()
    assert printed == ""
    assert f"port {port} of 127.0.0.1 cannot be used" in beside
    assert "Traceback" not in beside


@pytest.mark.anyio
async def test_an_application_that_does_not_start() -> None:
    """Where the start-up fails nothing is served, and whoever wanted to serve is told."""

    async def fails(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(NotServingError, match="did not start"):
        async with loopback.serving(fails):
            raise AssertionError("unreachable")


# --- --serve, as a process of its own --------------------------------------------------------------------------------


@contextmanager
def serving(*options: str, ending: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m hivetenancy demo --serve`` while the block is open; then the signal must end it with 0."""
    path = os.pathsep.join([str(WHERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "hivetenancy", "demo", "--serve", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield process
        process.send_signal(ending)
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def card() -> Iterator[dict[str, Any]]:
    """What a served demo says of itself on its first line, while it is up."""
    with serving("--json", "--port", "0") as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


@pytest.fixture
def client(card: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client of the served demo, without a key of its own."""
    with httpx.Client(base_url=card["url"], timeout=20) as client:
        yield client


def bearer(card: dict[str, Any], tenant: int = 0, key: int = 0) -> dict[str, str]:
    """The header for one of the card's keys."""
    return {"Authorization": f"Bearer {card['tenants'][tenant]['keys'][key]['secret']}"}


def test_the_card(card: dict[str, Any], client: httpx.Client) -> None:
    """The first line is one object: where the server is, and two tenants on plan pro with two keys each."""
    assert list(card) == ["url", "tenants"]
    assert httpx.URL(card["url"]).host == "127.0.0.1"
    assert len(card["tenants"]) >= 2
    for at, tenant in enumerate(card["tenants"]):
        assert list(tenant) == ["name", "id", "keys"]
        assert [key["permissions"] for key in tenant["keys"]] == [["read", "write", "delete"], ["read"]]
        assert all(list(key) == ["name", "permissions", "secret"] for key in tenant["keys"])
        told = client.get("/usage", headers=bearer(card, at)).json()
        assert told["tenant"] == tenant["id"]
        limits = {cell["dimension"]: cell["limit"] for cell in told["usage"]}
        assert limits["storage_bytes"] == 10 * 2**30, "not on plan pro"


def test_write_read_list_delete(card: dict[str, Any], client: httpx.Client) -> None:
    """A key that may do everything writes, reads, lists by prefix, and deletes; usage follows."""
    mine = bearer(card)
    assert client.put("/kv/life/one", headers=mine, content=b"1").status_code == 204
    assert client.put("/kv/life/two", headers=mine, content=b"22").status_code == 204
    read = client.get("/kv/life/two", headers=mine)
    assert (read.status_code, read.content) == (200, b"22")
    assert client.get("/kv", params={"prefix": "life/"}, headers=mine).json() == ["life/one", "life/two"]
    assert client.get("/kv", params={"prefix": "death"}, headers=mine).json() == []

    def used() -> dict[str, int]:
        cells = client.get("/usage", headers=mine).json()["usage"]
        return {cell["dimension"]: cell["used"] for cell in cells}

    before = used()
    assert client.delete("/kv/life/two", headers=mine).status_code == 204
    assert client.delete("/kv/life/two", headers=mine).status_code == 404
    after = used()
    assert before["storage_bytes"] - after["storage_bytes"] == 2
    assert before["keys"] - after["keys"] == 1
    assert after["operations"] - before["operations"] == 1, "an operation that failed was counted"


def test_foreign_equals_missing(card: dict[str, Any], client: httpx.Client) -> None:
    """Another tenant's key and one that nobody has give the same bytes, and neither is listed or can be deleted."""
    assert client.put("/kv/foreign/one", headers=bearer(card), content=b"mine").status_code == 204
    theirs = bearer(card, tenant=1)
    foreign, missing = (client.get(f"/kv/foreign/{name}", headers=theirs) for name in ("one", "two"))
    assert foreign.status_code == missing.status_code == 404
    assert foreign.content == missing.content
    assert set(foreign.headers) == set(missing.headers)
    assert client.delete("/kv/foreign/one", headers=theirs).status_code == 404
    assert "foreign/one" not in client.get("/kv", headers=theirs).json()
    assert client.get("/kv/foreign/one", headers=bearer(card)).content == b"mine"


def test_who_is_refused(card: dict[str, Any], client: httpx.Client) -> None:
    """No key is 401 with a challenge, a made-up one 401, one that may only read 403."""
    nobody = client.get("/kv")
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="hivehub"')
    assert client.get("/kv", headers={"X-API-Key": "hh_test_" + "0" * 40}).status_code == 401
    reader = bearer(card, key=1)
    assert client.get("/kv", headers=reader).status_code == 200
    for method in ("PUT", "DELETE"):
        refused = client.request(method, "/kv/locked", headers=reader)
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_ends_it_well(ending: signal.Signals) -> None:
    """SIGTERM and Ctrl-C close what is open and end the process with 0, and then nobody listens any more."""
    with serving("--json", ending=ending) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert httpx.get(told["url"] + "/kv", headers=bearer(told)).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(told["url"] + "/kv")


@needs_program("curl")
def test_the_curl_lines_work() -> None:
    """Each line that is printed for people is a command that does what its place says."""
    with serving() as process:
        assert process.stdout is not None
        lines = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            lines.append(process.stdout.readline())
            assert lines[-1], "the server ended before it had said everything"
        commands = [shlex.split(line, comments=True) for line in lines if line.startswith("curl ")]
        answers = [
            subprocess.run([*command, "-sS"], capture_output=True, text=True, check=True).stdout for command in commands
        ]
        assert [answer.split()[1] for answer in answers] == ["204", "200", "200", "200", "401"]
        assert answers[1].endswith("hello")
        assert answers[2].endswith('["greeting"]')
