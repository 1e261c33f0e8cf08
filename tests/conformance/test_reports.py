"""Minimiser, reports, power test, command line, fixtures, and the subjects that are shipped."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from websockets.asyncio.server import serve

from hivetenancy.cli import main
from hivetenancy.errors import ConfigurationError, InvalidNameError
from hivetenancy.namespaces.prefix import PrefixNamespaces
from hivetenancy.testing import conformance
from hivetenancy.testing.conformance import (
    Choice,
    Count,
    Handle,
    Name,
    Names,
    Operation,
    Optional,
    Options,
    Report,
    Running,
    ServerCrashedError,
    Setting,
    Subject,
    Value,
    Verdict,
    examine,
)
from hivetenancy.testing.conformance import (
    Mapping as Mapped,
)
from hivetenancy.testing.conformance.arguments import Argument
from hivetenancy.testing.conformance.cliques import Clique, context
from hivetenancy.testing.conformance.faulty import FAULTS, IDENTITY, FaultyNamespaces
from hivetenancy.testing.conformance.html import as_html
from hivetenancy.testing.conformance.http import HttpRunning, HttpSubject, Route, observed
from hivetenancy.testing.conformance.jsonfile import SCHEMA, as_dict, as_json
from hivetenancy.testing.conformance.minimise import minimised
from hivetenancy.testing.conformance.objects import ObjectSubject
from hivetenancy.testing.conformance.plugin import assert_isolated, assert_powerful
from hivetenancy.testing.conformance.power import Outcome, PowerReport, power
from hivetenancy.testing.conformance.programs import Program, Step
from hivetenancy.testing.conformance.resp import RespClient
from hivetenancy.testing.conformance.websocket import WebSocketRunning, WebSocketSubject, opened

from . import mutants
from .mutants import MUTANTS, Mutant
from .reference import Reference, Server

SET = Operation("set", effect="write", key=Name(), value=Value())
GET = Operation("get", key=Name())
THREE = Clique(about="x", ids=("a", "a:b", "a:b:b"))

ROOT = Path(__file__).parents[2]

# subjects that the command line finds here
Leaking = Reference(MUTANTS["FoldedCase"])
NoSubject = object()


class Blind(Reference):
    """A subject that never gets to see anything."""

    operations = (Operation("queues"),)


def step(number: int, tenant: int, operation: Operation, **arguments: Any) -> Step:
    return Step(number=number, tenant=tenant, operation=operation, surface="direct", arguments=arguments)


def leaking(server: str, **options: int) -> Report:
    return examine(Reference(MUTANTS[server]), Options(**{"rounds": 20, "most_leaks": 1, **options}))


# --- the minimiser ----------------------------------------------------------------------------------------------------


def test_a_program_is_cut_to_what_it_needs() -> None:
    """Of thirty steps the two are left that matter, with the plainest arguments and ids."""
    steps = [step(number, number % 3, GET, key=f"name-{number}") for number in range(30)]
    steps[4] = step(4, 1, SET, key="odd name", value="v")
    steps[21] = step(21, 2, Operation("mget", keys=Names()), keys=["x", "odd name", "y"])
    ran = 0

    async def leaks(program: Program) -> bool:
        nonlocal ran
        ran += 1
        written = {one.arguments["key"] for one in program.steps if one.operation is SET}
        return any(written & set(one.arguments.get("keys", ())) for one in program.steps)

    plain = Clique(about="nothing", ids=("acme", "globex", "initech"))
    short = asyncio.run(minimised(Program(clique=THREE, steps=tuple(steps)), leaks, plain=plain))
    assert [(one.operation.name, dict(one.arguments)) for one in short.steps] == [
        ("set", {"key": "k", "value": "v"}),
        ("mget", {"keys": ["k"]}),
    ]
    assert short.clique is not THREE
    assert ran < 100


def test_the_minimiser_stops_when_its_runs_are_spent() -> None:
    """What has been reached by then is returned, and still leaks."""
    steps = tuple(step(number, 0, GET, key="k") for number in range(64))

    async def leaks(program: Program) -> bool:
        return len(program.steps) >= 20

    assert 20 <= len(asyncio.run(minimised(Program(clique=THREE, steps=steps), leaks, most=5)).steps) < 64


def test_confusing_ids_stay_where_the_leak_needs_them() -> None:
    """A leak between ids that differ in case alone keeps them, and says so; another one gets plain ids."""
    folded, conflict = leaking("FoldedCase").leaks[0], leaking("GlobalConflict").leaks[0]
    assert {one.lower() for one in folded.ids} == {"alice"}
    assert conflict.ids == ("acme", "globex", "initech")


def test_a_reproduction_is_short_and_its_handles_name_its_steps() -> None:
    """Calls are counted from 1, and a handle says which of them gave it."""
    leak = leaking("OpenJobs").leaks[0]
    assert len(leak.calls) <= 3
    assert [one.step.number for one in leak.calls] == list(range(1, len(leak.calls) + 1))
    shown = str(leak.calls[-1].arguments)
    assert "of step" not in shown or re.search(r"<job of step [12]>", shown)


# --- reports ----------------------------------------------------------------------------------------------------------


class Strict(HTMLParser):
    """Checks that tags are closed in order, and takes down what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report() -> Report:
    class Server(MUTANTS["OpenJobs"], MUTANTS["HexDump"], MUTANTS["NeighboursInMetrics"]):  # type: ignore[misc]
        """Three leaks."""

        def get(self, key: str) -> Any:
            return {"<script>alert(1)</script>": super().get(key)}

    return examine(Reference(Server), Options(rounds=1, steps=25, most_leaks=3))


@pytest.fixture(scope="module")
def tested() -> PowerReport:
    return power(Plain(), Options(rounds=3, steps=20))


def test_the_page_is_whole_and_loads_nothing(report: Report, tested: PowerReport) -> None:
    """Tags match, ids are unique, links lead into the page, and what a server says stays text."""
    page = as_html(report, tested)
    strict = Strict()
    strict.feed(page)
    assert strict.open == []
    assert len(set(strict.ids)) == len(strict.ids)
    assert all(link.startswith("#") and link[1:] in strict.ids for link in strict.links)
    assert not strict.tags & {"link", "img", "iframe"}
    assert "://" not in page
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_the_page_shows_each_leak_and_each_verdict(report: Report) -> None:
    """A card for each leak with its steps, and a row for each operation and surface."""
    page = as_html(report)
    assert page.count('<article class="leak"') == len(report.groups) > 0
    assert page.count("<li") >= sum(len(group[0].calls) for group in report.groups)
    assert page.count("<tr data-verdicts") == len({cell.place[:2] for cell in report.cells})


def test_json_says_all_that_the_report_says(report: Report, tested: PowerReport) -> None:
    """The file is JSON of the announced schema, and its figures are the report's."""
    read = json.loads(as_json(report, tested))
    assert read["schema"] == SCHEMA == "hivetenancy.conformance/1"
    assert read["verdict"] == "LEAK"
    assert len(read["leaks"]) == len(report.leaks)
    assert len(read["cells"]) == len(report.cells)
    fields = {"operation", "surface", "oracle", "text", "tenants", "seed", "got", "expected", "steps"}
    assert fields <= set(read["leaks"][0])
    assert set(read["power"]) == {"verdict", "seconds", "faults", "unscoped"}
    assert as_dict(report)["power"] is None


def test_text_tells_what_to_do_and_what_came(report: Report) -> None:
    """Each leak is numbered, with its calls in order; marks are written as somebody's value."""
    text = str(report)
    assert text.startswith("LEAK: Reference")
    assert "Leak 1: " in text
    assert "  1. " in text
    assert "hvcanary" not in text


# --- the power test ---------------------------------------------------------------------------------------------------


def test_g8_every_fault_is_found_and_every_operation_is_scoped() -> None:
    """G8: at least ten faulty managers, each found, and no operation that shows nothing under the identity."""
    found = power(Reference(Mutant), Options(rounds=20))
    outcomes = {one.fault.name: one.outcome for one in found.faults}
    assert set(outcomes.values()) == {Outcome.FOUND}, str(found)
    assert len(outcomes) >= 20
    assert found.unscoped == ()
    assert found.verdict is Verdict.PASS
    assert "Power: 25 of 25" in str(found)


def test_an_operation_that_is_not_scoped_at_all_is_named() -> None:
    """An operation that shows nothing whatever the names are is reported, unless the subject says that it has none."""

    class Server(Mutant):
        def ping(self) -> str:
            return "PONG"

    class Pinging(Reference):
        operations = (*Reference.operations[:2], Operation("ping"), Operation("pong", scoped=False))

    found = power(Pinging(Server), Options(rounds=1, steps=20))
    assert ("ping", "direct") in found.unscoped
    assert not [one for one in found.unscoped if one[0] != "ping"]
    assert found.verdict is Verdict.VACUOUS
    assert "NOT SCOPED AT ALL: ping on direct" in str(found)


def test_a_fault_that_is_not_used_is_no_fault_of_the_suite(tested: PowerReport) -> None:
    """A server that asks for no ranges cannot show a range without end."""

    found = {one.fault.name: one.outcome for one in tested.faults}
    assert found["range without end"] is found["unscoped patterns"] is Outcome.UNUSED
    assert found["identity"] is found["no delimiter"] is Outcome.FOUND


# --- the command line and the fixtures --------------------------------------------------------------------------------

HERE = "tests.conformance.test_reports"


class Unstarted(Subject):
    """Forgets how to start."""

    operations = (GET,)


class Uncalled(Unstarted):
    """Forgets how to call."""

    def start(self, setting: Setting) -> Any:
        """Return what has no call."""
        return Running()


class Unrouted(HttpSubject):
    """Forgets a route."""

    operations = (GET,)


class Down(Unstarted):
    """Does not start today."""

    def start(self, setting: Setting) -> Any:
        """Fail as a driver does."""
        raise OSError("the store is down")


class Wanting(Unstarted):
    """Cannot be made without an argument."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted


def test_the_command_passes_a_clean_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and a matrix on the terminal."""
    assert main(["conform", f"{HERE}:Plain", "--rounds", "1"]) == 0
    assert capsys.readouterr().out.startswith("PASS: Plain")


def test_the_command_reports_a_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and the files that were asked for."""
    page, data = tmp_path / "r.html", tmp_path / "r.json"
    asked = ["conform", f"{HERE}:Leaking", "--rounds", "3", "--leaks", "1", "--html", str(page), "--json", str(data)]
    assert main(asked) == 1
    assert "Leak 1" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert json.loads(data.read_text(encoding="utf-8"))["verdict"] == "LEAK"


def test_the_command_says_when_nothing_is_proven(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3 where there was nothing to be seen."""
    assert main(["conform", f"{HERE}:Blind", "--rounds", "1", "--steps", "5"]) == 3
    assert "every answer was empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "names no subject: write package.module:Name"),
        ("no_such_module:X", "cannot be imported"),
        (f"{HERE}:Nothing", "there is no Nothing in"),
        (f"{HERE}:NoSubject", "is no Subject"),
        (f"{HERE}:Unstarted", "Unstarted has no method start"),
        (f"{HERE}:Uncalled", "Running has no method call"),
        (f"{HERE}:Unrouted", "no Route for operation 'get'"),
        (f"{HERE}:Down", "failed outside of a call: OSError('the store is down')"),
        (f"{HERE}:Wanting", "failed outside of a call: TypeError"),
    ],
)
def test_the_command_says_what_is_wrong_with_the_call(
    where: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and a sentence."""
    assert main(["conform", where]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, after the report."""
    there = str(tmp_path / "no" / "r.html")
    assert main(["conform", f"{HERE}:Blind", "--rounds", "1", "--steps", "2", "--html", there]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_test_of_ones_own_fails_with_the_report() -> None:
    """What the fixtures give passes a clean server and fails with the report else."""
    assert assert_isolated(Plain(), rounds=1).verdict is Verdict.PASS
    with pytest.raises(AssertionError, match="Leak 1"):
        assert_isolated(Plain(right=False), rounds=1, most_leaks=1)
    with pytest.raises(AssertionError, match="Power: 0 of 0"):
        assert_powerful(Blind(), rounds=1, steps=2)


OWN_TESTS = """
from tests.conformance.test_reports import Plain

def test_right(hive_isolation):
    hive_isolation(Plain(), rounds=1)

def test_wrong(hive_isolation, hive_power):
    hive_isolation(Plain(right=False), rounds=1, most_leaks=1)
"""


def test_the_fixtures_are_fixtures(tmp_path: Path) -> None:
    """A test of one's own asks for them by name; a leak fails it with the report."""
    (tmp_path / "test_own.py").write_text(OWN_TESTS, encoding="utf-8")
    plugins = ("hivetenancy.testing.entry", "no:randomly", "no:cacheprovider", "no:hivetenancy")
    options = [part for plugin in plugins for part in ("-p", plugin)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(tmp_path), "--rootdir", str(tmp_path), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "Leak 1: " in done.stdout


def test_the_room_loads_nothing_until_it_is_asked() -> None:
    """Importing the room loads none of its files, and a name that it has not is said to be missing."""
    code = "import sys, hivetenancy.testing.conformance.plugin; print([m for m in sys.modules if 'conformance.' in m])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['hivetenancy.testing.conformance.plugin']"
    assert "examine" in dir(conformance)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = conformance.nothing


# --- subjects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ((), "has no operations"),
        ((GET, GET), "names an operation twice: get"),
        ((Operation("x", h=Handle("cursor")),), "which none gives"),
        ((Operation("x", surfaces=("mcp",)),), "on no surface called 'mcp'"),
        (GET, "one alone wants a comma"),
        (("get",), "is a tuple of Operation"),
    ],
)
def test_a_wrong_subject_is_refused(operations: Any, message: str) -> None:
    """A subject that cannot be run says what it lacks."""
    subject = Reference()
    subject.operations = operations
    with pytest.raises(ConfigurationError, match=message):
        examine(subject)


def test_wrong_values_are_refused() -> None:
    """Options, effects, arguments and settings out of range are refused where they are written."""
    with pytest.raises(ConfigurationError, match="rounds is a whole number of at least 1"):
        Options(rounds=0)
    with pytest.raises(ConfigurationError, match="effect is one of"):
        Operation("x", effect="none")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"write key=Name\(\)"):
        Operation("x", key=Name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at least one option"):
        Choice()
    with pytest.raises(ConfigurationError, match="is no Running"):
        examine(type("Odd", (Reference,), {"start": lambda self, setting: object()})())
    for missing, call in (("start", lambda: Subject().start(None)), ("call", lambda: Running().call("", "", {}, ""))):
        with pytest.raises(TypeError, match=f"has no method {missing}"):
            call()
    with pytest.raises(TypeError, match="no way to draw"):
        Argument().draw(None)  # type: ignore[arg-type]


def test_arguments_are_drawn() -> None:
    """Each kind of argument gives what it says, also nested, and names the handles that it may hold."""
    seen: list[Mapping[str, Any]] = []

    class Taking(Subject):
        operations = (
            Operation("give", gives="ticket"),
            Operation(
                "take",
                count=Count(2, 3),
                choice=Choice("a", "b"),
                names=Names(1, 2),
                items=Mapped(Name(), Value("bytes"), most=2),
                maybe=Optional(Count(1, 1)),
                held=Optional(Handle("ticket")),
            ),
        )

        def start(self, setting: Setting) -> Running:
            class Here(Running):
                def call(self, tenant: str, operation: str, arguments: Mapping[str, Any], surface: str) -> Any:
                    seen.append(arguments)
                    return "ticket-1"

            return Here()

    examine(Taking(), Options(rounds=1, steps=20))
    taken = [arguments for arguments in seen if arguments]
    assert {one["count"] for one in taken} == {2, 3}
    assert {one["choice"] for one in taken} == {"a", "b"}
    assert {one["maybe"] for one in taken} == {None, 1}
    assert {len(one["names"]) for one in taken} == {1, 2}
    assert all(isinstance(value, bytes) for one in taken for value in one["items"].values())
    assert "ticket-1" in {one["held"] for one in taken}


class Rows:
    """A plain object for one tenant of a dict."""

    def __init__(self, rows: dict[str, str], key: Any) -> None:
        self.rows, self.key = rows, key

    def set(self, key: str, value: str) -> None:
        self.rows[self.key(key)] = value

    def get(self, key: str) -> str | None:
        return self.rows.get(self.key(key))


class Plain(ObjectSubject):
    """Rows, with names that are right or not."""

    operations = (SET, GET)

    def __init__(self, *, right: bool = True) -> None:
        self.right = right

    def build(self, setting: Setting) -> dict[str, str]:
        return {}

    def session(self, server: Any, setting: Setting, tenant: str) -> Rows:
        return Rows(server, setting.names_of(tenant).kv.key if self.right else str)


def test_a_plain_object_is_a_subject() -> None:
    """Methods of an object are operations; a right one passes and a wrong one leaks."""
    assert examine(Plain(), Options(rounds=1)).verdict is Verdict.PASS
    assert examine(Plain(right=False), Options(rounds=1, most_leaks=1)).verdict is Verdict.LEAK


class Socket(WebSocketSubject):
    """A server on a WebSocket that keeps rows, by names or not."""

    operations = (SET, GET)
    right: ClassVar[bool] = True

    async def start(self, setting: Setting) -> Running:
        rows: dict[str, str] = {}

        async def talk(connection: Any) -> None:
            tenant = connection.request.headers["x-tenant"]
            one = setting.tenants[int(tenant)].id
            session = Rows(rows, setting.names_of(one).kv.key if self.right else str)
            async for raw in connection:
                message = json.loads(raw)
                await connection.send(json.dumps(getattr(session, message.pop("operation"))(**message)))

        server = await serve(talk, "127.0.0.1", 0)
        port = next(iter(server.sockets)).getsockname()[1]
        headers = {one.id: {"x-tenant": str(number)} for number, one in enumerate(setting.tenants)}

        class Serving(WebSocketRunning):
            async def stop(self) -> None:
                await super().stop()
                server.close()
                await server.wait_closed()

        return Serving(self, await opened(f"ws://127.0.0.1:{port}", headers))


def test_a_server_on_a_websocket_is_a_subject() -> None:
    """Messages over a connection for each tenant; a right server passes and a wrong one leaks."""
    options = Options(rounds=1, steps=8, most_leaks=1)

    class Wrong(Socket):
        right = False

    assert not examine(Socket(), options).leaks
    assert examine(Wrong(), options).verdict is Verdict.LEAK


@pytest.mark.parametrize("scheme", ["uuid", "slug"])
def test_other_schemes_of_ids_are_tried(scheme: str) -> None:
    """With UUIDs and slugs the clean server passes, and one that cuts ids is found."""

    class Of(Reference):
        pass

    Of.scheme = scheme
    options = Options(rounds=2, most_leaks=1, minimise_runs=30)
    assert not examine(Of(), options).leaks
    assert examine(Of(MUTANTS["TruncatedId" if scheme == "uuid" else "NoDelimiter"]), options).leaks


def test_a_server_that_is_not_there_is_no_leak() -> None:
    """Connections that nobody takes are said to be a crash, for each protocol."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ServerCrashedError, match="nobody listens"):
            asyncio.run(RespClient.open("127.0.0.1", port))
        with pytest.raises(ServerCrashedError, match="no connection to"):
            asyncio.run(opened(f"ws://127.0.0.1:{port}", {"a": {}}))

        class Away(HttpSubject):
            operations = (GET,)
            routes: ClassVar[Any] = {"get": Route(method="GET", path="/{key}")}

            async def start(self, setting: Setting) -> Running:
                stack = AsyncExitStack()
                client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
                return HttpRunning(self.routes, client, {one.id: {} for one in setting.tenants}, [], stack)

        report = examine(Away(), Options(rounds=1, steps=2))
        assert report.verdict is Verdict.INCONCLUSIVE
        assert "gone" in report.stopped


def test_a_route_makes_a_request() -> None:
    """Arguments go into the path, the query and the body, escaped as each wants it."""
    arguments = {"key": "a/b?c", "value": b"v", "most": 3, "none": None}
    route = Route(method="PUT", path="/x/{key}", body="value", query=("most", "none"))
    made = {"method": "PUT", "url": "/x/a%2Fb%3Fc", "content": b"v", "params": {"most": 3}}
    assert route.request(arguments) == made
    assert Route(method="POST", path="/", json=("most",)).request(arguments)["json"] == {"most": 3}


def test_what_is_observed_of_an_http_answer() -> None:
    """Status, type, where one is sent, and the body: as JSON, text or bytes."""
    answer = httpx.Response(302, headers={"location": "/b", "content-type": "application/problem+json"}, content=b"{}")
    assert observed(answer) == {"status": 302, "type": "application/problem+json", "body": {}, "location": "/b"}
    assert observed(httpx.Response(200, text="x"))["body"] == "x"
    assert observed(httpx.Response(200, headers={"content-type": "application/json"}, content=b"{"))["body"] == b"{"
    assert observed(httpx.Response(200, content=b"\xff"))["body"] == b"\xff"


def test_faulty_names_are_wrong_in_each_method() -> None:
    """Under the identity every method leaves names as they are, in text and in bytes; the usage counts it."""
    names = FaultyNamespaces(PrefixNamespaces(scheme="slug"), IDENTITY)
    kv = names.for_tenant(context("acme")).kv
    assert (kv.key("k"), kv.pattern("a*"), kv.like("a_%"), kv.starting("a")) == ("k", "a*", "a_%", "a")
    assert (kv.range("a", "b"), kv.range(reverse=True)) == (("a", "b"), (None, ""))
    assert (kv.binary.key(b"k"), kv.binary.strip(b"k"), kv.owns("user:globex:k")) == (b"k", b"k", True)
    page = kv.page(["a", "b"], limit=1)
    assert (list(page.names), page.cursor, kv.after("b")) == (["a"], "b", ("b", None))
    assert names.usage.differences > 5
    assert names.for_tenant(context("acme")).graph.labels.key("Person") == "Person"
    cut = FaultyNamespaces(PrefixNamespaces(), next(fault for fault in FAULTS if fault.name == "truncated ids"))
    one = cut.for_tenant(context("550e8400-e29b-41d4-a716-446655440000")).kv
    assert one.key("k") == "user:550e8400:k"
    with pytest.raises(InvalidNameError):
        one.strip_all(["user:other:k"])


def test_the_table_of_mutants_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that prints the table says who was killed, and fails where one survives."""
    assert mutants.main(["--seeds", "1", "--rounds", "5", "--only", "GlobalCalls"]) == 0
    assert "survivors: none" in capsys.readouterr().out
    monkeypatch.setitem(mutants.MUTANTS, "Clean", Server)
    assert mutants.main(["--seeds", "1", "--rounds", "1", "--only", "Clean"]) == 1
    assert "survivors: Clean" in capsys.readouterr().out
