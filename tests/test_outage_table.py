"""The tables of `docs/explanation/when-the-hub-is-down.md`: each row names a test that is there, and its true bound."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hivetenancy import Freshness
from hivetenancy.access_keys import cached
from hivetenancy.clock import HOUR_US, SECOND_US
from hivetenancy.hub import breaker, client
from hivetenancy.limits import PATIENCE_S, STALE_US
from tests.readme import ROOT

PAGE: Final = ROOT / "docs/explanation/when-the-hub-is-down.md"
TESTS: Final = ROOT / "tests/test_hub_outage.py"
LINK: Final = re.compile(r"\[`(?P<name>test_\w+)`\]\((?P<path>[^)#]+)\)")
HEAD: Final = ["situation", "answer", "bound", "shown by"]


class Row(NamedTuple):
    """One row of the page."""

    situation: str
    answer: str
    bound: str
    shown: str


def rows(text: str) -> list[Row]:
    """The rows of all tables of *text*."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    return [Row(*cells) for cells in lines if cells != HEAD and not set("".join(cells)) <= set("-")]


@cache
def functions(path: Path) -> dict[str, str]:
    """The functions of a file with their docstrings."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)}


def missing(shown: str) -> str:
    """What is wrong with the last cell of a row; empty: nothing."""
    link = LINK.fullmatch(shown)
    if link is None:
        return "names no test"
    path = (PAGE.parent / link["path"]).resolve()
    if not path.is_file():
        return "has no such file"
    return "" if functions(path).get(link["name"]) else "has no such test"


ROWS: Final = rows(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.situation)
def test_a_row_has_its_test(row: Row) -> None:
    """The test that a row links to is there and says what it shows; situation and answer are not empty."""
    assert missing(row.shown) == "", row.shown
    assert row.situation
    assert row.answer


def test_a_test_has_its_row() -> None:
    """Every test of an outage stands on the page, but for those that show what a broken engine would do."""
    linked = {link["name"] for row in ROWS if (link := LINK.fullmatch(row.shown))}
    written = {name for name in functions(TESTS) if name.startswith("test_") and not name.endswith("_noticed")}
    assert written - linked == set()


@pytest.mark.parametrize(
    ("situation", "part", "stated"),
    [
        ("known key, reading", "bound", (Freshness().fresh_us + Freshness().stale_read_us) / SECOND_US),
        ("known key, writing or deleting", "bound", (Freshness().fresh_us + Freshness().stale_write_us) / SECOND_US),
        ("known key, writing or deleting", "bound", (Freshness().fresh_us + Freshness().stale_delete_us) / SECOND_US),
        ("known key, administration", "bound", Freshness().admin_us / SECOND_US),
        ("a key that was revoked while the feed is dead", "bound", Freshness().fresh_us / SECOND_US),
        ("known tenant, limits up to a day old", "bound", STALE_US / HOUR_US),
        ("a hundred known keys", "bound", cached.BATCH),
        ("the circuit breaker is open", "bound", breaker.LONGEST_PAUSE_US / SECOND_US),
        ("the hub takes 2 s or longer", "bound", PATIENCE_S),
    ],
)
def test_a_bound_is_the_one_of_the_code(situation: str, part: str, stated: float) -> None:
    """The numbers of the page are the defaults."""
    (row,) = [row for row in ROWS if row.situation.startswith(situation)]
    assert re.search(rf"(?<![\d.,]){stated:,g}(?![\d.,]\d)", getattr(row, part)), (row.bound, stated)


def test_the_checks_of_the_hub_are_as_often_as_stated() -> None:
    """Every 60 s, and every 2 s."""
    said = f"every {client.CHECK_SECONDS:g} s in the background, and every {client.RETRY_SECONDS:g} s while"
    assert said in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("`test_nothing`", "names no test"),
        ("[`test_nothing`](../../tests/test_nowhere.py)", "has no such file"),
        ("[`test_nothing`](../../tests/test_hub_outage.py)", "has no such test"),
    ],
)
def test_a_wrong_link_is_noticed(shown: str, why: str) -> None:
    """A row whose test was renamed or never written is found."""
    assert missing(shown) == why


def test_rows_are_read() -> None:
    """A page without tables has none, and heads and rules are no rows."""
    table = "| situation | answer | bound | shown by |\n|---|---|---|---|\n| a | b | | c |\n"
    assert rows(table) == [Row("a", "b", "", "c")]
    assert len(ROWS) >= 20
