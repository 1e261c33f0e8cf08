"""Programs come upon mistakes that show only where two tenants ask the same thing."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import pytest

from hivetenancy.testing.conformance import Name, Operation, Options, Pattern, Report, Setting, Value, examine
from hivetenancy.testing.conformance.objects import ObjectSubject
from hivetenancy.testing.conformance.programs import _Writer
from tests.readme import ROOT


class Shop:
    """What one tenant talks to: a search whose answers are kept for whoever asks the same, until somebody writes."""

    def __init__(self, rows: dict[str, str], kept: dict[str, list[str]], names: Any) -> None:
        self.rows, self.kept, self.kv = rows, kept, names.kv

    def put(self, name: str, value: str) -> None:
        self.rows[self.kv.key(name)] = value
        self.kept.clear()

    def get(self, name: str) -> str | None:
        return self.rows.get(self.kv.key(name))

    def search(self, beginning: str) -> list[str]:
        if beginning not in self.kept:
            start = self.kv.starting(beginning)
            self.kept[beginning] = sorted(value for key, value in self.rows.items() if key.startswith(start))
        return self.kept[beginning]

    def count(self) -> int:
        return sum(self.kv.owns(key) for key in self.rows)


class ShopSubject(ObjectSubject):
    """Its search shares the name of no argument with what it searches, and says nothing of what it is about."""

    operations = (
        Operation("put", effect="write", name=Name(), value=Value()),
        Operation("get", name=Name()),
        Operation("search", beginning=Pattern("prefix")),
        Operation("count"),
    )

    def build(self, setting: Setting) -> tuple[dict[str, str], dict[str, list[str]]]:
        return {}, {}

    def session(self, server: Any, setting: Setting, tenant: str) -> Shop:
        return Shop(*server, setting.names_of(tenant))


def run(seed: int) -> Report:
    """One program for each clique: what a build can afford where calls are slow."""
    return examine(ShopSubject(), Options(seed=seed, rounds=1, most_leaks=1, minimise_runs=0))


def found(seed: int) -> set[str]:
    return {leak.finding.place.operation for leak in run(seed).leaks}


def test_a17_a_cache_of_searches_is_found_in_few_calls() -> None:
    """Every seed comes upon answers that are kept for all, in one round."""
    assert [seed for seed in range(5) if found(seed) != {"search"}] == []


def test_without_the_same_question_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator in which nobody repeats a question, and which searches seldom after a write, misses it."""
    monkeypatch.setattr(_Writer, "_ask_the_same", lambda self, written: None)
    monkeypatch.setattr("hivetenancy.testing.conformance.programs._lonely", lambda operations: set())
    assert any(not found(seed) for seed in range(5))


def test_one_seed_and_several_are_said() -> None:
    """A report says its seed as a person would, and shows refused ids so that one sees how they differ."""
    text = str(run(4))
    assert "seed 4; " in text
    assert r"because the names refuse them: 'cafe\u0301'." in text
    report = examine(ShopSubject(), Options(seed=4, seeds=2, steps=1, rounds=1))
    assert "seeds 4 to 5; " in str(report)


def test_the_tutorial_shows_what_one_sees() -> None:
    """The leaks that the tutorial prints are those that its reader gets, word for word."""
    page = (ROOT / "docs" / "tutorial" / "conformance.md").read_text(encoding="utf-8")
    blocks, space = re.findall(r"```python\n(.*?)```", page, re.DOTALL), {"__name__": "__page__"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for block in blocks[:7]:
            exec(block, space)
    printed = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert len(printed) == 2
    assert [text for text in printed if text not in said.getvalue() + "\n"] == []
