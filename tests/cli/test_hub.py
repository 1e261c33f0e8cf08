"""``hivetenancy hub``: the fake as a process, the document of its wire, and the check of a hub."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shlex
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import hivetenancy
from hivetenancy.cli import main
from tests.readme import ROOT
from tests.tiers import examples, needs_program

pytest.importorskip("uvicorn", reason="uvicorn is not installed: `hub serve` needs the extra demo")

from hivetenancy.authority.openapi import openapi
from hivetenancy.authority.statefile import StateFile
from hivetenancy.cli import hub as command

WHERE = Path(hivetenancy.__path__[0]).parent
BASE = "/api/internal"
# Nothing here is TLS, and to read the certificates for each client takes longer than most of these tests.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
get = functools.partial(httpx.get, verify=PLAIN, timeout=20)
post = functools.partial(httpx.post, verify=PLAIN, timeout=20)


@dataclass
class Served:
    """A fake in a process of its own."""

    process: subprocess.Popen[str]
    card: dict[str, Any]

    @property
    def url(self) -> str:
        """Where it is."""
        url: str = self.card["url"]
        return url

    @property
    def wire(self) -> dict[str, str]:
        """The header of the wire."""
        return {"X-Service-Key": self.card["service_key"]}

    @property
    def control(self) -> dict[str, str]:
        """The header of the control routes."""
        return {"X-Fake-Control": self.card["control_token"]}

    def get(self, path: str) -> httpx.Response:
        """Ask the wire."""
        return get(self.url + BASE + path, headers=self.wire)

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it; return its exit code and what it said beside."""
        self.process.send_signal(how)
        _, beside = self.process.communicate(timeout=20)
        return self.process.returncode, beside


@contextlib.contextmanager
def serve(*options: str) -> Iterator[Served]:
    """A served fake."""
    arguments = [sys.executable, "-m", "hivetenancy", "hub", "serve", "--json", *options]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=WHERE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Served(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One for the tests that leave no trace in it."""
    with serve("--control") as made:
        yield made


# --- what it prints --------------------------------------------------------------------------------------------------


def test_the_card_is_one_object(served: Served) -> None:
    """URL, service key, control token and tenants; the key opens the wire, which says that it is a fake."""
    assert list(served.card) == ["url", "service_key", "control_token", "tenants"]
    assert served.card["tenants"] == []
    got = served.get("/extensions")
    assert (got.status_code, got.json()["authority"], got.headers["x-hivehub-authority"]) == (200, "fake", "fake")
    assert len(got.json()["extensions"]) == 6


def test_text_begins_with_url_and_key(tmp_path: Path) -> None:
    """The first line is URL and service key, and the curl line below it works."""
    (tmp_path / "t.json").write_text('{"tenants": [{"name": "acme", "keys": [{"permissions": ["read"]}]}]}')
    arguments = [
        sys.executable,
        "-m",
        "hivetenancy",
        "hub",
        "serve",
        "--control",
        "--tenants",
        str(tmp_path / "t.json"),
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=WHERE) as process:
        assert process.stdout is not None
        url, key = process.stdout.readline().split()
        lines = []
        while not lines or "_fake/tenants" not in lines[-1]:
            lines.append(process.stdout.readline())
        assert get(f"{url}{BASE}/extensions", headers={"X-Service-Key": key}).status_code == 200
        assert any(line.startswith("acme") for line in lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@needs_program("curl")
def test_it_is_driven_by_curl(served: Served) -> None:
    """A tenant and a key are made, the key is introspected, and a fault is planted, in any language that has curl."""

    def curl(arguments: str, body: Any = None) -> Any:
        sent = [] if body is None else ["--data", json.dumps(body), "-H", "Content-Type: application/json"]
        line = ["curl", "-sS", *shlex.split(arguments), *sent]
        return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    control = f"-H 'X-Fake-Control: {served.card['control_token']}' {served.url}/_fake"
    wire = f"-H 'X-Service-Key: {served.card['service_key']}' {served.url}{BASE}"
    acme = curl(f"{control}/tenants", {"name": "acme", "plan": "pro"})
    key = curl(f"{control}/tenants/{acme['id']}/keys", {"permissions": ["read"]})
    assert curl(f"{wire}/access-keys/introspect", {"access_key": key["secret"]})["user_id"] == acme["id"]
    curl(f"{control}/faults", {"calls": ["introspect"], "status": 503})
    assert "error" in curl(f"{wire}/access-keys/introspect", {"access_key": key["secret"]})
    curl(f"{control}/reset", {})


def test_tenants_extensions_and_no_control(tmp_path: Path) -> None:
    """Tenants of a file are there with their keys, only what was asked for is announced, and nothing is controlled."""
    (tmp_path / "t.toml").write_text('[[tenants]]\nname="acme"\nplan="pro"\n[[tenants.keys]]\npermissions=["read"]\n')
    with serve("--tenants", str(tmp_path / "t.toml"), "--extensions", "introspection") as fake:
        assert fake.card["control_token"] is None
        (acme,) = fake.card["tenants"]
        assert (acme["name"], acme["plan"], len(acme["keys"])) == ("acme", "pro", 1)
        assert fake.get("/extensions").json()["extensions"] == ["introspection"]
        assert fake.get("/changes").status_code == 404
        told = post(
            f"{fake.url}{BASE}/access-keys/introspect",
            headers=fake.wire,
            json={"access_key": acme["keys"][0]["secret"]},
        )
        assert (told.json()["active"], told.json()["user_id"]) == (True, acme["id"])
        for headers in (fake.wire, {"X-Fake-Control": "null"}):
            assert get(f"{fake.url}/_fake/snapshot", headers=headers).status_code in (401, 404)


# --- who is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"X-Service-Key": "svc_all_" + "x" * 43}, 401),
    ],
)
def test_only_programs_of_this_machine_with_a_key(served: Served, headers: dict[str, str], status: int) -> None:
    """A page in a browser, a name that resolves here, and a wrong key are refused, control routes included."""
    got = get(f"{served.url}{BASE}/extensions", headers={**served.wire, **headers})
    assert got.status_code == status
    if status == 403:
        told = get(f"{served.url}/_fake/snapshot", headers={**served.control, **headers})
        assert (told.status_code, "tenants" in told.text) == (403, False)


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    """The port is not there on any other address of the machine."""
    port = int(served.url.rsplit(":", 1)[1])
    others = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        if not str(address).startswith("127."):
            with pytest.raises(OSError), socket.create_connection((address, port), timeout=2):
                pass
    table = Path("/proc/net/tcp")
    lines = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
    mine = [line[1] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"]  # those that listen
    assert set(mine) <= {f"0100007F:{port:04X}"}


def test_the_other_loopback_address() -> None:
    """``::1`` is this machine too, where it has one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        with serve("--host", "::1") as fake:
            assert fake.url.startswith("http://[::1]:")
            assert fake.get("/extensions").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "hub.example.com", ""])
def test_an_address_that_others_reach_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is opened."""
    assert main(["hub", "serve", "--host", host]) == 2
    assert "this machine alone" in capsys.readouterr().err


def test_service_keys_are_new_at_each_start(served: Served) -> None:
    """Another process has another key, and does not know this one."""
    with serve() as other:
        assert other.card["service_key"] != served.card["service_key"]
        assert get(f"{other.url}{BASE}/extensions", headers=served.wire).status_code == 401


# --- faults of a real connection -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        ({"connection": "reset"}, httpx.TransportError),
        ({"connection": "refused"}, httpx.TransportError),
        ({"reply": "lost"}, httpx.TransportError),
        ({"reply": "truncated"}, httpx.RemoteProtocolError),
        ({"reply": "malformed"}, None),
        ({"reply": "slow", "latency": 0.0001}, None),
        ({"latency": 0.05}, None),
        ({"status": 503}, None),
    ],
)
def test_faults_are_those_of_a_network(served: Served, fault: dict[str, Any], heard: type[Exception] | None) -> None:
    """A connection is cut, a body stops short, a byte comes late: what a real client has to live with."""
    planted = post(f"{served.url}/_fake/faults", headers=served.control, json={"calls": ["announcement"], **fault})
    assert planted.status_code == 201
    if heard is not None:
        with pytest.raises(heard):
            served.get("/extensions")
    else:
        got = served.get("/extensions")
        assert got.status_code == fault.get("status", 200)
        assert (b"authority" in got.content) == ("status" not in fault and fault.get("reply") != "malformed")
    assert served.get("/extensions").json()["authority"] == "fake"


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_it_ends_at_once_with_open_polls() -> None:
    """A poll that would wait for 25 s, and a reply that is delayed for a day, do not keep it; nothing is printed."""
    with serve("--control") as fake:
        post(f"{fake.url}/_fake/faults", headers=fake.control, json={"calls": ["limits_page"], "latency": 86_400})
        cursor = fake.get("/changes").json()["cursor"]
        answers: list[int] = []

        def ask(path: str) -> None:
            answers.append(fake.get(path).status_code)

        paths = (f"/changes?cursor={cursor}&wait_seconds=25", "/synap/limits")
        threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        until, names = time.monotonic() + 60, [""]
        while time.monotonic() < until and (names.count("changes") < 2 or "limits_page" not in names):
            calls = get(f"{fake.url}/_fake/calls", headers=fake.control).json()["calls"]
            names = [call["name"] for call in calls]
        began = time.monotonic()
        assert fake.end() == (0, "")
        assert time.monotonic() - began < 12  # of the 25 s of the poll, and of a day
        for thread in threads:
            thread.join(30)
        assert sorted(answers) == [200, 503]


def test_it_ends_at_once_in_the_midst_of_a_reply() -> None:
    """A reply that comes by the byte is cut, and nothing is printed."""
    with serve("--control") as fake:
        slow = {"calls": ["announcement"], "reply": "slow", "latency": 0.05}
        post(f"{fake.url}/_fake/faults", headers=fake.control, json=slow)
        with httpx.stream("GET", f"{fake.url}{BASE}/extensions", headers=fake.wire, verify=PLAIN, timeout=20) as reply:
            began = time.monotonic()
            assert fake.end() == (0, "")
            assert time.monotonic() - began < 5
            with pytest.raises(httpx.TransportError):
                reply.read()


@pytest.mark.parametrize("saves", [0, 1])
def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], saves: int
) -> None:
    """Whether it is full at the beginning or a moment later: exit code 1, and no traceback."""
    left = iter([None] * saves)
    save = StateFile.save

    def full(self: StateFile, *more: Any) -> None:
        for _ in left:
            return save(self, *more)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(StateFile, "save", full)
    assert main(["hub", "serve", "--state", str(tmp_path / "hub.db")]) == 1
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert "disk is full" in printed.err


@pytest.mark.parametrize("command", [["hub", "serve"], ["demo", "--serve"]])
def test_it_ends_well_however_soon(command: list[str]) -> None:
    """A signal that comes with the first line ends it like any other: with exit code 0."""
    line = [sys.executable, "-m", "hivetenancy", *command, "--json"]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=WHERE)) for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.read(1) == "{"
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in processes] == [0, 0]


def test_a_taken_port_is_one_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and no traceback."""
    assert main(["hub", "serve", "--port", served.url.rsplit(":", 1)[1]]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "cannot be used" in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["hub"],
        ["hub", "dance"],
        ["hub", "serve", "--port", "x"],
        ["hub", "serve", "--port", "65536"],
        ["hub", "serve", "--extensions", "nothing"],
        ["hub", "serve", "--extensions", ""],
        ["hub", "check", "--wait", "soon"],
        ["hub", "check", "--wait", "-1"],
    ],
)
def test_what_argparse_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call ends with 2 and says what is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--wait", "1"], "--wait goes with check"),
        (["serve", "--file", "x"], "--file goes with check"),
        (["openapi", "--json"], "--json goes with serve"),
        (["check", "--port", "1"], "--port goes with serve"),
        (["openapi", "--control"], "--control goes with serve"),
    ],
)
def test_options_that_do_nothing_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option of another action is not ignored."""
    assert main(["hub", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "{", '{"tenants": [{"name": 7}]}', '{"tenants": [{"name": "a", "plan": "x"}]}'])
def test_a_bad_file_of_tenants(tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line that names it, or what in it is wrong."""
    path = tmp_path / "t.json"
    if text is not None:
        path.write_text(text)
    assert main(["hub", "serve", "--tenants", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer names it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["hub", "serve"]) == 2
    assert "hivetenancy[demo]" in capsys.readouterr().err


# --- a file that outlives it -----------------------------------------------------------------------------------------


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Killed between writes, again and again: every tenant, key and report that was acknowledged is there, once."""
    state, draw = str(tmp_path / "hub.db"), random.Random(5)
    options = ("--state", state, "--control")
    tenants: list[str] = []
    secrets: list[str] = []
    total = sequence = 0
    service_key = ""
    for _ in range(examples(2, 6)):
        with serve(*options) as fake:
            assert service_key != fake.card["service_key"]
            with httpx.Client(base_url=fake.url, timeout=20, verify=PLAIN) as client:
                _everything_is_there(client, fake, tenants, secrets, total, service_key)
                service_key = fake.card["service_key"]
                stop = threading.Timer(draw.uniform(0.05, 0.4), fake.process.kill)
                stop.start()
                with contextlib.suppress(httpx.TransportError):
                    while True:
                        made = client.post("/_fake/tenants", headers=fake.control, json={"name": f"t{len(tenants)}"})
                        if made.status_code == 409:  # made just before the kill, and not acknowledged
                            tenants.append(_named(client, fake, f"t{len(tenants)}"))
                            continue
                        tenants.append(made.json()["id"])
                        path = f"/_fake/tenants/{tenants[-1]}/keys"
                        key = client.post(path, headers=fake.control, json={"permissions": ["read"]}).json()
                        secrets.append(key["secret"])
                        told = _report(client, fake, tenants[0], total + 1, sequence)
                        if told.status_code == 409:
                            sequence = told.json()["last_sequence"]
                            total = sequence
                            continue
                        sequence, total = sequence + 1, total + 1
                stop.join()
    assert len(tenants) > 2
    with serve(*options) as fake, httpx.Client(base_url=fake.url, timeout=20, verify=PLAIN) as client:
        _everything_is_there(client, fake, tenants, secrets, total, service_key)
        with serve_fails(*options) as (code, beside):
            assert code == 1
            assert "in use already" in beside


def _report(client: httpx.Client, fake: Served, tenant: str, total: int, sequence: int) -> httpx.Response:
    line = {"user_id": tenant, "dimension": "storage_bytes", "kind": "contribution", "value": total}
    body = {"writer": "w", "sequence": sequence + 1, "previous_sequence": sequence, "lines": [line]}
    return client.put(f"{BASE}/synap/usage/{'7' * 32}", headers=fake.wire, json=body)


def _named(client: httpx.Client, fake: Served, name: str) -> str:
    told = client.get("/_fake/tenants", headers=fake.control).json()["tenants"]
    return next(str(tenant["id"]) for tenant in told if tenant["name"] == name)


def _everything_is_there(
    client: httpx.Client, fake: Served, tenants: list[str], secrets: list[str], total: int, service_key: str
) -> None:
    told = client.get("/_fake/tenants", headers=fake.control).json()["tenants"]
    assert [tenant["id"] for tenant in told][: len(tenants)] == tenants
    assert len(told) - len(tenants) in (0, 1)
    for secret in secrets[-20:]:
        asked = client.post(f"{BASE}/access-keys/introspect", headers=fake.wire, json={"access_key": secret})
        assert asked.json()["active"] is True
    if total:
        assert told[0]["used"]["storage_bytes"] in (total, total + 1)
    if service_key:  # what a node was configured with before the kill goes on
        assert client.get(f"{BASE}/extensions", headers={"X-Service-Key": service_key}).status_code == 200


@contextlib.contextmanager
def serve_fails(*options: str) -> Iterator[tuple[int, str]]:
    """A start that is refused: its exit code and what it says."""
    arguments = [sys.executable, "-m", "hivetenancy", "hub", "serve", *options]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=WHERE, timeout=30, check=False)
    assert done.stdout == ""
    yield done.returncode, done.stderr


# --- openapi and check -----------------------------------------------------------------------------------------------


def test_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    """`hub openapi` prints the document of the wire, as JSON."""
    assert main(["hub", "openapi"]) == 0
    assert json.loads(capsys.readouterr().out) == openapi()


def settings(tmp_path: Path, url: str, key: str) -> str:
    """A settings file that names a hub."""
    path = tmp_path / "settings.toml"
    path.write_text(f'mode = "cluster"\n[hub]\nurl = "{url}"\nservice_key = "{key}"\nservice = "synap"\n')
    path.chmod(0o600)
    return str(path)


def test_a_check_refuses_a_fake(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator whose settings point to a fake is told so; no option changes that."""
    assert main(["hub", "check", "--file", settings(tmp_path, served.url, served.card["service_key"])]) == 1
    assert "is a fake" in capsys.readouterr().err


def test_a_check_of_a_hub_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3 after the time that it was to wait."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        file = settings(tmp_path, url, "svc_synap_" + "x" * 30)
        assert main(["hub", "check", "--file", file, "--wait", "0.2"]) == 3
        assert time.monotonic() - began >= 0.2
    assert "HiveHub" in capsys.readouterr().err


def test_a_check_of_settings_that_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, with what is wrong."""
    assert main(["hub", "check", "--file", str(tmp_path / "nowhere.toml")]) == 1
    assert capsys.readouterr().err


def test_a_check_of_a_hub(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hub that may be believed is shown part by part; a wrong service key fails at once, however long is waited."""
    from hivetenancy.hub.client import HiveHub

    class Believing(HiveHub):
        def __init__(self, url: str, service_key: str, **options: Any) -> None:
            super().__init__(url, service_key, **{**options, "allow_fake": True})

    monkeypatch.setattr("hivetenancy.hub.client.HiveHub", Believing)
    assert command.run(_check(settings(tmp_path, served.url, served.card["service_key"]))) == 0
    assert [line[:3] for line in capsys.readouterr().out.splitlines()] == ["ok "] * 3
    post(f"{served.url}/_fake/clock", headers=served.control, json={"skew_seconds": 3600})
    assert command.run(_check(settings(tmp_path, served.url, served.card["service_key"]))) == 1
    assert "BAD hub clock" in capsys.readouterr().out
    post(f"{served.url}/_fake/clock", headers=served.control, json={"skew_seconds": 0})
    assert command.run(_check(settings(tmp_path, served.url, "svc_synap_" + "x" * 30))) == 1
    assert "401" in capsys.readouterr().err


def _check(file: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(["check", "--file", file, "--wait", "30"])


# --- the example -----------------------------------------------------------------------------------------------------


async def requests(app: Any, secret: str) -> list[int]:
    """What a server answers to a write, a read, and a stranger."""
    from hivetenancy.testing import AsgiClient

    mine = {"Authorization": f"Bearer {secret}"}
    async with AsgiClient(app) as client:
        answers = [
            await client.request("PUT", "/kv/a", headers=mine, body=b"x"),
            await client.request("GET", "/kv", headers=mine),
            await client.request("GET", "/kv", headers={"Authorization": "Bearer " + secret[:-3] + "xyz"}),
        ]
    return [answer.status for answer in answers]


@pytest.mark.anyio
async def test_one_server_on_either_hub(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """The example answers alike on a fake in its process and on one that is served; usage arrives at both."""
    import importlib.util

    from hivetenancy.testing import FakeHiveHub

    spec = importlib.util.spec_from_file_location("two_hubs", ROOT / "examples/two_hubs.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    here: FakeHiveHub = example.in_process()
    assert "Bearer hh_test_" in capsys.readouterr().out
    key = here.tenant("acme").issue_key(permissions=["read", "write"])
    assert await requests(example.build(here), key.secret) == [204, 200, 401]
    here.assert_reported(here.tenant("acme"), "storage_bytes", 1)

    async with httpx.AsyncClient(headers=served.control, base_url=served.url, timeout=20, verify=PLAIN) as control:
        made = await control.post("/_fake/tenants", json={"name": "two", "keys": [{"permissions": ["read", "write"]}]})
        secret, tenant = made.json()["keys"][0]["secret"], made.json()["id"]
        there = example.elsewhere(served.url, served.card["service_key"])
        assert await requests(example.build(there), secret) == [204, 200, 401]
        told = (await control.get(f"/_fake/tenants/{tenant}")).json()
        assert told["used"]["storage_bytes"] == 1
