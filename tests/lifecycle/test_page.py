"""The reference's tables say what the code does."""

from __future__ import annotations

import inspect
import re

from hivetenancy.ids import Effect
from hivetenancy.lifecycle import State, Step
from hivetenancy.lifecycle.deletion import Lifecycle
from hivetenancy.lifecycle.states import ADMITS, FOLLOWS
from tests.readme import ROOT

PAGE = (ROOT / "docs/reference/lifecycle.md").read_text("utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section."""
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.split("\n|", 1)[1].split("\n\n", 1)[0].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_states_and_what_follows_them() -> None:
    """Each state with what it admits and what it may become."""
    says = {None: "everything", frozenset({Effect.READ}): "read", frozenset(): "nothing"}
    assert {row[0].strip("`"): row[1] for row in rows("States")} == {s.value: says[ADMITS[s]] for s in State}
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows("States")}
    assert told == {state.value: {after.value for after in FOLLOWS[state]} for state in State}


def test_arguments_with_their_defaults() -> None:
    """In the order of the signature."""
    parameters = list(inspect.signature(Lifecycle).parameters.values())
    table = rows("`Lifecycle`")
    assert [row[0].strip("`") for row in table] == [parameter.name for parameter in parameters]
    for row, parameter in zip(table, parameters, strict=True):
        assert row[1].strip("`") in (repr(parameter.default), "asyncio.sleep")


def test_every_public_method_and_step_is_told() -> None:
    """None is left out."""
    methods = {name for name in vars(Lifecycle) if not name.startswith("_")} - {"attach", "open", "aclose"}
    assert [name for name in methods - {"run", "trouble"} if f"`{name}(" not in PAGE] == []
    assert [step.value for step in Step if f"`{step.value}`" not in PAGE] == []
