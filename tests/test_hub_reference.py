"""The page about HiveHub says what the code does: arguments, calls, figures."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Final

import pytest

import hivetenancy
from hivetenancy import HiveHub
from hivetenancy.authority.api_routes import ROUTES
from hivetenancy.clock import SECOND_US
from hivetenancy.hub import breaker, calls, client, origin, transport
from hivetenancy.hub.extensions import Extension, Extensions
from tests.layers import sources
from tests.readme import ROOT
from tests.test_reference import names, rows, section

PAGE: Final = "hub.md"
GROUPS: Final[dict[str, type]] = {
    "access_keys": calls.AccessKeysCalls,
    "vectorizer": calls.VectorizerCalls,
    "nexus": calls.NexusCalls,
    "synap": calls.SynapCalls,
    "lesstokens": calls.LessTokensCalls,
    "extensions": Extensions,
}
TABLE: Final = re.findall(
    r"^\| (X?\d+) \| `([\w.]+)` \| (\w+) `([^`]+)` \| (.+) \|$", section(PAGE, "The calls"), re.MULTILINE
)


def method(name: str) -> object:
    """The method that the table calls *name*."""
    group, _, call = name.partition(".")
    return inspect.getattr_static(GROUPS[group], call)


def test_arguments() -> None:
    """Each argument stands with the default that it has, in the order of the signature."""
    parameters = list(inspect.signature(HiveHub).parameters.values())
    table = rows(section(PAGE, "Arguments of `HiveHub`"))[: len(parameters)]
    assert [names(row[0])[0] for row in table] == [parameter.name for parameter in parameters]
    for row, parameter in zip(table, parameters, strict=True):
        stated = names(row[1])
        assert stated == ([] if parameter.default is inspect.Parameter.empty else [repr(parameter.default)])


def test_every_call_has_a_row() -> None:
    """The 23 calls in order, then the extensions; every public method of the groups, and none else."""
    assert [number for number, *_ in TABLE[:23]] == [str(number) for number in range(1, 24)]
    told = {name for _, name, *_ in TABLE}
    assert len(told) == len(TABLE)
    public = {
        f"{group}.{name}"
        for group, kind in GROUPS.items()
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }
    assert told == public


def test_a_row_has_the_request_of_the_wire() -> None:
    """Method and path are those that the fake serves."""

    def plain(path: str) -> str:
        return re.sub(r"\{\w+\}", "{}", path)

    served = {
        (route.method, plain(route.path.replace("{service}", service)))
        for route in ROUTES
        for service in ("{service}", "vectorizer", "nexus", "synap", "lesstokens")
    }
    assert [row for row in TABLE if (row[2], plain(row[3])) not in served] == []


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[1])
def test_what_repeats_a_call(row: tuple[str, ...]) -> None:
    """ "With a key" stands at exactly the calls that take one; what is sent again without is a read or a total."""
    takes = "idempotency_key" in inspect.signature(method(row[1])).parameters  # type: ignore[arg-type]
    assert row[4].startswith("with a key") == takes
    assert takes or row[4].startswith("yes" if row[1] != "extensions.changes" else "no")


def test_every_extension_has_a_row() -> None:
    """By the name that a hub announces."""
    assert [names(row[0])[0] for row in rows(section(PAGE, "Extensions"))] == [each.value for each in Extension]


def test_figures() -> None:
    """Those of the transport and of the life cycle are the constants."""
    told = section(PAGE, "Transport")
    for figure in (
        f"one pool of {origin.MAX_CONNECTIONS}, of which {origin.KEEPALIVE_CONNECTIONS} are kept open, "
        f"for {origin.KEEPALIVE_SECONDS:g} s",
        f"{transport.CONNECT_SECONDS:g} s at most",
        f"a random part of {transport._FIRST_PAUSE_S:g} s, doubling up to {transport._LONGEST_PAUSE_S:g} s",
        f"opens after {breaker.FAILURES} failures in a row, for up to {breaker.FIRST_PAUSE_US // SECOND_US} s, "
        f"doubling up to {breaker.LONGEST_PAUSE_US // SECOND_US} s",
        f"| {transport.MAX_RESPONSE_BYTES // 2**20} MiB |",
    ):
        assert figure in told
    budget = inspect.signature(breaker.RetryBudget).parameters
    assert f"{budget['reserve'].default} in reserve, and one more for every ten calls" in told
    assert budget["percent"].default == 10
    life = section(PAGE, "`RemoteHub`")
    assert f"again every {client.CHECK_SECONDS:g} s, every {client.RETRY_SECONDS:g} s while it has no answer" in life
    assert f"more than {client.SKEW_US // SECOND_US} s from ours" in life


def test_what_a_start_says() -> None:
    """Each message that the guide quotes is one of the package."""
    guide = (ROOT / "docs/how-to/connect-to-hivehub.md").read_text(encoding="utf-8")
    table = guide.split("| what is checked |")[1].split("\n\n")[0]
    quoted = [text for line in table.splitlines()[2:] for text in names(line.split("|")[2])]
    assert len(quoted) >= 15
    package = Path(hivetenancy.__path__[0])
    said = [
        node.value
        for path in sources(package)
        for node in ast.walk(ast.parse((package / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in quoted if not any(text.removesuffix("...").strip() in each for each in said)] == []
