"""The tables of the reference say what the code does."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re

import pytest

from hivetenancy import CANONICAL, ClusterTenancy, DeniedError, Reason, Refusal, errors
from hivetenancy.adapters.catalogue import entry_for
from hivetenancy.cli import COMMANDS
from hivetenancy.decision import Decision
from hivetenancy.hooks import AuditEvent
from hivetenancy.plans import QuotaKind
from tests.readme import ROOT

REFERENCE = ROOT / "docs/reference"


def section(page: str, title: str) -> str:
    """The text under a heading, up to the next one of its kind."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each line of the tables in *text*, headings left out."""
    tables = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|(?:\n|\Z))+)", text, flags=re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> list[str]:
    """What stands as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("reason", Reason)
def test_reasons(reason: Reason) -> None:
    """Each reason stands once, with the error and the answer that it has."""
    mine = [row for row in rows(section("errors.md", "Reasons")) if names(row[0]) == [reason.name]]
    assert len(mine) == 1
    _, means, leaf, answer = mine[0]
    entry = entry_for(reason)
    assert means
    assert names(leaf) == [type(DeniedError.of(Refusal(reason=reason))).__name__]
    assert f"{entry.status} `{entry.code}`" in answer


def test_no_reason_is_made_up() -> None:
    """No line tells of a reason that there is not."""
    assert {names(row[0])[0] for row in rows(section("errors.md", "Reasons"))} == {reason.name for reason in Reason}


def test_the_tree_of_errors() -> None:
    """The page draws the tree that the module's own text draws, and has a line for every error in it."""
    text = section("errors.md", "The tree")
    drawn = re.findall(r"(?<!a )\b(\w+Error)\b", text.split("```")[1])
    assert drawn == re.findall(
        r"(?<!a )\b(\w+Error)\b", (errors.__doc__ or "").split("::", 1)[1].split("\n\nMessages")[0]
    )
    assert [names(row[0])[0] for row in rows(text)] == list(dict.fromkeys(drawn))


def test_options_of_a_tenancy() -> None:
    """Each option stands with the default that it has, in the order of the signature."""
    parameters = list(inspect.signature(ClusterTenancy).parameters.values())[1:]
    table = rows(section("tenancy.md", "Options of `Tenancy.embedded`"))
    assert [names(row[0])[0] for row in table] == [parameter.name for parameter in parameters]
    for row, parameter in zip(table, parameters, strict=True):
        stated = names(row[1])[0]
        if parameter.default is None and stated.endswith("()"):
            continue  # made when the tenancy is: `HttpOptions()`
        assert stated.replace('"', "'").replace("_", "") == repr(parameter.default)


def test_canonical_dimensions() -> None:
    """Each canonical dimension stands with its kind, and no other does."""
    table = rows(section("values.md", "Quotas and dimensions"))
    told = {name: names(row[2])[0] for row in table if len(row) == 3 for name in names(row[0])}
    assert told == {name: spec.kind.name for name, spec in CANONICAL.items()}
    kinds = [names(row[0])[0] for row in table if len(row) == 2]
    assert kinds == [kind.name for kind in QuotaKind]


@pytest.mark.parametrize(
    ("page", "title", "value"),
    [("values.md", "Answers", Refusal), ("values.md", "Answers", Decision), ("gate.md", "Audit", AuditEvent)],
    ids=lambda each: each.__name__ if isinstance(each, type) else "",
)
def test_fields(page: str, title: str, value: type) -> None:
    """Every field of what a host reads is named."""
    told = names(section(page, title))
    assert [field.name for field in dataclasses.fields(value) if field.name not in told] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command(command: str) -> None:
    """Each option of the command stands in its table, and no other does."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"hivetenancy.cli.{command}").arguments(parser)
    has = {option for action in parser._actions for option in action.option_strings}
    told = {names(row[0])[0].split()[0] for row in rows(section("cli.md", f"`hivetenancy {command}`"))}
    assert {option for option in told if option.startswith("--")} == has


def test_the_index_lists_every_page() -> None:
    """Every page of the documentation is reached from the index."""
    index = ROOT / "docs/index.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)", index.read_text("utf-8"))}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index}
    assert [page.name for page in sorted(pages - linked)] == []
