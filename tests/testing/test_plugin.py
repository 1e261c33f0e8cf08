"""The pytest plugin: what its fixtures give, what its marker says, and that it costs who does not use it nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

USES = '''
import asyncio
import sys

import anyio
import pytest
from hivetenancy import current_tenant, function
from hivetenancy.errors import HubUnavailableError


@function("me.read", effect="read")
async def app(scope, receive, send):
    body = current_tenant().id.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def asked(hive_tenants, hive_asgi_client):
    key = hive_tenants["acme"].issue_key(permissions=["read"])
    async with hive_asgi_client(app) as client:
        answer = await client.request("GET", "/", headers=key.headers)
    assert answer.body.decode() == hive_tenants["acme"].id
    return hive_tenants["acme"].plan


def test_a_plain_loop(hive_tenants, hive_asgi_client):
    assert asyncio.run(asked(hive_tenants, hive_asgi_client)) == "free"


@pytest.mark.anyio
@pytest.mark.hive(plan="pro")
async def test_anyio(hive_tenants, hive_asgi_client):
    assert await asked(hive_tenants, hive_asgi_client) == "pro"


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Loop:
    """As pytest-asyncio runs a test: in a loop that was made after the fixtures."""

    def __init__(self, test):
        self.test = test

    def __call__(self, **fixtures):
        with asyncio.Runner() as runner:
            runner.run(self.test(**fixtures))


@pytest.mark.hive(plan="enterprise")
def test_a_runner(hive_tenants, hive_asgi_client):
    async def test(**fixtures):
        assert await asked(**fixtures) == "enterprise"

    Loop(test)(hive_tenants=hive_tenants, hive_asgi_client=hive_asgi_client)


def test_time_is_one(hive_clock, hive_hub, hive_tenancy):
    before = hive_hub.service.clock.now()
    hive_clock.advance(5)
    assert hive_hub.service.clock.now()[0] - before[0] == 5_000_000
    assert hive_tenancy.clock.now() == hive_clock.now()


def test_tenants_are_made_once(hive_tenants, hive_hub):
    assert hive_tenants["acme"] is hive_tenants["acme"] is hive_hub.tenant("acme")
    assert "acme" in repr(hive_tenants)


@pytest.mark.hive(faults=[{"calls": "limits", "status": 503, "times": 2}, {"calls": ["report"], "reply": "lost"}])
def test_faults(hive_hub, hive_tenants):
    acme = hive_tenants["acme"]
    for _ in range(2):
        with pytest.raises(HubUnavailableError):
            asyncio.run(hive_hub.limits(acme.id))
    asyncio.run(hive_hub.limits(acme.id))
    assert len(hive_hub.planted) == 1


@pytest.mark.hive(extensions=[])
def test_extensions(hive_hub):
    assert hive_hub.service.extensions == frozenset()
'''

STRICT = """
import asyncio
import pytest


def test_nobody_expected_it(hive_hub, hive_tenants):
    asyncio.run(hive_hub.limits(hive_tenants["acme"].id))


@pytest.mark.hive(calls="limits")
def test_it_was_expected(hive_hub, hive_tenants):
    asyncio.run(hive_hub.limits(hive_tenants["acme"].id))


def test_it_is_expected_now(hive_hub, hive_tenants):
    hive_hub.expect("limits")
    asyncio.run(hive_hub.limits(hive_tenants["acme"].id))


@pytest.mark.hive(calls=["limits"])
def test_something_else_came(hive_hub):
    asyncio.run(hive_hub.introspect(b"x"))


def test_it_fails_by_itself(hive_hub):
    asyncio.run(hive_hub.introspect(b"x"))
    assert 1 == 2


def test_it_asked_for_the_hub_while_it_ran(request):
    asyncio.run(request.getfixturevalue("hive_hub").introspect(b"x"))


@pytest.fixture
def asks_at_its_end(hive_hub):
    yield
    asyncio.run(hive_hub.introspect(b"x"))


def test_a_fixture_asked_at_its_end(asks_at_its_end):
    pass


@pytest.mark.hive(calls="introspect")
def test_a_fixture_was_expected_to(asks_at_its_end):
    pass


def test_without_a_hub():
    pass


class TestNamesOfOnesOwn:
    @pytest.fixture
    def hive_hub(self):
        return "a hub of another kind"

    def test_are_left_alone(self, hive_hub):
        assert hive_hub == "a hub of another kind"
"""

IMPORTS = """
import sys

import pytest


def test_nothing_was_imported():
    heavy = {"httpx", "pydantic", "hivetenancy.testing.hub", "hivetenancy.compose", "hivetenancy.testing.asgi"}
    assert sorted(heavy & set(sys.modules)) == []


@pytest.mark.hive(colour=1)
def test_a_marker_that_is_none(hive_hub):
    pass
"""


def run(folder: Path, text: str, *options: str) -> tuple[dict[str, str], str]:
    """Run a file of tests with the plugin; return each outcome by test, and what was printed."""
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "hivetenancy.testing.entry", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-rA", "-W", "error", *options, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    lines = (line.split(" - ")[0].split() for line in done.stdout.splitlines() if "test_it.py::" in line)
    found = {line[1].split("::")[1]: line[0] for line in lines if line[0] in ("PASSED", "FAILED", "ERROR")}
    return found, done.stdout + done.stderr


def test_the_fixtures_serve_under_every_runner(tmp_path: Path) -> None:
    """anyio, a runner of one's own and `asyncio.run`: plan, faults, extensions and time are as the marker says."""
    found, printed = run(tmp_path, USES, "-p", "anyio")
    assert set(found.values()) == {"PASSED"}, printed
    assert len(found) == 7


@pytest.mark.parametrize("how", ["option", "ini"])
def test_strict_mode_fails_on_a_call_that_nobody_expected(tmp_path: Path, how: str) -> None:
    """Said by option or by configuration: a test fails, as itself, with the calls in its message.

    However it came by the hub, and in the end of its fixtures too; a ``hive_hub`` that is none of ours is left alone.
    """
    options = ["--hive-strict"] if how == "option" else ["-o", "hive_strict=true"]
    found, printed = run(tmp_path, STRICT, *options)
    assert found == {
        "test_nobody_expected_it": "FAILED",
        "test_it_was_expected": "PASSED",
        "test_it_is_expected_now": "PASSED",
        "test_something_else_came": "FAILED",
        "test_it_fails_by_itself": "FAILED",
        "test_it_asked_for_the_hub_while_it_ran": "FAILED",
        "test_a_fixture_asked_at_its_end": "ERROR",
        "test_a_fixture_was_expected_to": "PASSED",
        "test_without_a_hub": "PASSED",
        "TestNamesOfOnesOwn": "PASSED",
    }, printed
    assert "limits(tenant=" in printed
    assert "assert 1 == 2" in printed


def test_without_it_only_what_was_said_counts(tmp_path: Path) -> None:
    """A test that says which calls it expects is held to that; others are not."""
    found, _ = run(tmp_path, STRICT)
    assert [name for name, outcome in found.items() if outcome == "FAILED"] == [
        "test_something_else_came",
        "test_it_fails_by_itself",
    ]


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """Loading the plugin imports no part of the library but its own two files; a wrong marker is an error."""
    found, printed = run(tmp_path, IMPORTS)
    assert found == {"test_nothing_was_imported": "PASSED", "test_a_marker_that_is_none": "ERROR"}, printed
    assert "colour" in printed
