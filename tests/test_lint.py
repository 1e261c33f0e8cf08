"""`hivetenancy.lint`: each rule finds what it is for, keeps quiet about its neighbours, and ours is clean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hivetenancy
from hivetenancy.cli import main
from hivetenancy.errors import ConfigurationError
from hivetenancy.lint import DRIVERS, RULES, Finding, check
from hivetenancy.testing.lint import assert_scoped, findings, sources
from tests.tiers import examples

ROOT = Path(__file__).parents[1]

FOUND = {
    "raw-driver": """
        import redis
        ---
        from redis.asyncio import Redis
        ---
        import qdrant_client.models as models
        ---
        def late():
            from neo4j import GraphDatabase
        ---
        try:
            import psycopg
        except ImportError:
            psycopg = None
        """,
    "shared-cache": """
        from functools import lru_cache
        @lru_cache
        def row(key): ...
        ---
        import functools
        @functools.lru_cache(maxsize=10)
        async def row(self, key): ...
        ---
        from functools import cache as memo
        @memo
        def plan(): ...
        ---
        from functools import lru_cache
        fast = lru_cache(maxsize=None)(slow)
        ---
        import functools
        fast = functools.cache(slow)
        ---
        from cachetools import cached
        @cached({})
        def row(key): ...
        ---
        _cache = {}
        def row(key):
            _cache[key] = 1
        ---
        from collections import OrderedDict
        ROW_CACHE: dict[str, int] = OrderedDict()
        def row(key):
            ROW_CACHE[key, 1] = 1
        """,
    "thread-local": """
        import threading
        state = threading.local()
        ---
        from threading import local as slot
        class State(slot): ...
        ---
        import threading as t
        class State(t.local): ...
        """,
    "hand-made-name": """
        name = f"user:{tenant}:{key}"
        ---
        name = "user_" + tenant
        ---
        name = "user_%s" % tenant
        ---
        name = "user_{}".format(tenant)
        ---
        pattern = b"ns:" + tenant
        ---
        folder = f"tenants/{tenant}/files"
        ---
        mine = name.startswith("user:")
        ---
        name = "hvt:x"
        """,
    "name-concat": """
        name = tenant.kv.key(key) + ":more"
        ---
        name = f"{current_tenant().hashes.key(key)}:more"
        ---
        name = "more:" + str(1) + tenant.streams.key(key)
        ---
        name = "%s:more" % tenant.graph.labels.key(key)
        """,
    "unbound-work": """
        import threading
        threading.Thread(target=work).start()
        ---
        from threading import Timer
        Timer(5, work)
        ---
        loop.run_in_executor(None, work, 1)
        ---
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor() as many:
            many.submit(work, 1)
        ---
        self._executor.map(work, rows)
        ---
        from concurrent.futures import ThreadPoolExecutor
        self.workers = ThreadPoolExecutor(4)
        self.workers.submit(lambda: 1)
        """,
}

QUIET = {
    "raw-driver": """
        from . import redis
        ---
        from my.redis import Redis
        ---
        import redistribute
        """,
    "shared-cache": """
        from functools import lru_cache
        @lru_cache
        def row(tenant_id, key): ...
        ---
        from functools import lru_cache
        @lru_cache(SIZE)
        def row(context, key): ...
        ---
        from functools import cached_property
        class A:
            @cached_property
            def row(self): ...
        ---
        def cache(function): ...
        @cache
        def row(key): ...
        ---
        _cache = {}
        def row(tenant, key):
            _cache[tenant.id, key] = 1
        ---
        _rows = {}
        def row(key):
            _rows[key] = 1
        ---
        def row(key):
            cache = {}
            cache[key] = 1
        """,
    "thread-local": """
        from contextvars import ContextVar
        state = ContextVar("state")
        ---
        local = 1
        print(local)
        """,
    "hand-made-name": '''
        """user: this is a docstring"""
        ---
        fields = {"user_id": 1, "user_agent": "x", "users": 2}
        ---
        route = f"/tenants/{tenant}"
        ---
        text = f"of user:{tenant}"
        ---
        text = "nsx:1", "the tenants/folder"
        ''',
    "name-concat": """
        name = tenant.kv.key(key + ":more")
        ---
        name = tenant.kv.key(f"{key}:more")
        ---
        name = f"{tenant.kv.key(key)}"
        ---
        total = config.key("a") + 1
        """,
    "unbound-work": """
        import threading
        threading.Thread(target=tenant.bind(work))
        ---
        work = tenant.bind(work)
        loop.run_in_executor(None, work, 1)
        ---
        from hivetenancy.context import without_tenant
        loop.run_in_executor(None, without_tenant(work))
        ---
        form.submit(button)
        ---
        list(map(work, rows))
        ---
        asyncio.to_thread(work)
        """,
}


def snippets(table: dict[str, str]) -> list[Any]:
    """Each snippet of a table with its rule."""
    return [
        pytest.param(rule, dedent(text), id=f"{rule}-{number}")
        for rule, texts in table.items()
        for number, text in enumerate(dedent(texts).split("---\n"))
    ]


def rules(source: str, **options: Any) -> list[str]:
    """The rules that a source breaks."""
    return [finding.rule for finding in check(source, "x.py", scoped=True, **options)]


@pytest.mark.parametrize(("rule", "source"), snippets(FOUND))
def test_each_rule_finds_what_it_is_for(rule: str, source: str) -> None:
    """That alone, once, with the fix in its message."""
    found = check(source, "x.py", scoped=True)
    assert [each.rule for each in found] == [rule], found
    assert found[0].message.endswith(RULES[rule])
    assert 1 <= found[0].line <= source.count("\n") + 1
    assert str(found[0]).startswith(f"x.py:{found[0].line}:")


@pytest.mark.parametrize(("rule", "source"), snippets(QUIET))
def test_each_rule_is_quiet_about_its_neighbours(rule: str, source: str) -> None:
    """What looks alike, and is right."""
    assert rules(source) == []


def test_every_rule_has_both() -> None:
    """But for the two about the file itself, which have tests of their own."""
    assert set(FOUND) == set(QUIET) == set(RULES) - {"bad-allow", "unreadable"}


def test_a17_a29_the_mistakes_of_the_attack_list_are_found() -> None:
    """`lru_cache` around tenants' data (A17), a thread-local that holds the tenant (A29)."""
    source = """
import threading
from functools import lru_cache
from hivetenancy import current_tenant
here = threading.local()
@lru_cache
def plan(query):
    return current_tenant(), query
"""
    assert sorted(each.rule for each in check(source, "x.py")) == ["shared-cache", "thread-local"]


# --- what is looked at, and what is allowed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "looked"),
    [
        ("", False),
        ("import hivetenancy", True),
        ("from hivetenancy.tenant import current_tenant", True),
        ("import hivetenancy.cache as c", True),
        ("import hivetenancyx", False),
        ("# hivetenancy: scoped", True),
        ("'# hivetenancy: scoped'", False),
    ],
)
def test_only_scoped_modules_are_looked_at(head: str, looked: bool) -> None:
    """Those that import the library, or say so in a comment; any, where the caller says so."""
    source = f"{head}\nimport redis\n"
    assert bool(check(source, "x.py")) is looked
    assert check(source, "x.py", scoped=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import redis  # hivetenancy: allow raw-driver the façade", []),
        ("# hivetenancy: allow raw-driver the façade\nimport redis", []),
        ("# hivetenancy: allow-file raw-driver the façade\n\n\nimport redis\nimport pymongo", []),
        ("import redis  # hivetenancy: allow raw-driver", ["bad-allow", "raw-driver"]),
        ("import redis  # hivetenancy: allow thread-local why", ["bad-allow", "raw-driver"]),
        ("import redis  # hivetenancy: allow rawdriver why", ["bad-allow", "raw-driver"]),
        ("# hivetenancy: allow raw-driver why\n\nimport redis", ["bad-allow", "raw-driver"]),
        ("import json  # hivetenancy: allow raw-driver why", ["bad-allow"]),
        ("x = '# hivetenancy: allow raw-driver why'\nimport redis", ["raw-driver"]),
    ],
)
def test_an_allowance_names_its_rule_and_reason_and_is_needed(source: str, expected: list[str]) -> None:
    """One without a reason, of another rule, of none, too far away, or for nothing, is itself found."""
    assert sorted(rules(source)) == expected


def test_what_cannot_be_read_is_said() -> None:
    """A file with an error is no clean file."""
    for source in ("def (", "x = '\0'", "  x\n y"):
        assert rules(source) == ["unreadable"], source
    assert rules("") == []


def test_what_is_nested_too_deep_stops_no_other_file() -> None:
    """Python reads it, and what writes it out again does not: that is said of this file, and raises nothing."""
    for depth in range(300, 3001, 300):
        assert rules("import hivetenancy\nexecutor.submit(a" + ".b" * depth + ")\n") in (
            ["unbound-work"],
            ["unreadable"],
        )


def test_odd_texts_are_read_as_python_reads_them() -> None:
    """A separator of lines that is none to Python, a stray backslash, line ends of Windows."""
    allowed = "# hivetenancy: allow raw-driver the façade"
    assert rules(f"x = '\u2028\x0c'\nimport redis  {allowed}\n") == []
    assert rules(f"x = '\\d'\r\n{allowed}\r\nimport redis\r\n") == []


def test_drivers_can_be_named() -> None:
    """One's own, or none."""
    assert rules("import mine", drivers={"mine"}) == ["raw-driver"]
    assert rules("import redis", drivers=()) == []
    assert "redis" in DRIVERS


@given(st.text(alphabet="abdefkt_.:=+()[]{}'\"\n #@%", max_size=60))
@settings(max_examples=examples(60, 3_000), deadline=None)
def test_no_text_breaks_it(source: str) -> None:
    """Whatever it is given, findings come back, each of a known rule."""
    assert {each.rule for each in check(source, "x.py", scoped=True)} <= set(RULES)


# --- the helper and the command ---------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with one fault, and files that are not its own."""
    for name in ("app/ok.py", "app/bad.py", "app/.venv/bad.py", "app/node_modules/x/bad.py", "app/deep/more.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        fault = "import hivetenancy\nimport redis\n" if "bad" in name else "import hivetenancy\n"
        (tmp_path / name).write_text(fault)
    return tmp_path / "app"


def test_the_helper_fails_where_something_is_found(package: Path) -> None:
    """With its place; for a path or a dotted name; and never holds of nothing."""
    with pytest.raises(AssertionError, match=r"(?s)1 places.*bad\.py:2:1: raw-driver"):
        assert_scoped(package)
    assert_scoped(package / "ok.py")
    assert_scoped("hivetenancy.cache")
    assert_scoped("hivetenancy.access_keys")
    (package / "empty").mkdir()
    for nothing in (package / "empty", "no.such.package", "nowhere"):
        with pytest.raises(ConfigurationError, match="no Python file"):
            assert_scoped(nothing)


def test_hidden_folders_and_environments_are_left_out(package: Path) -> None:
    """Their code is nobody's here; a path that is not there is an error."""
    assert [path.name for path in sources(package)] == ["bad.py", "more.py", "ok.py"]
    assert [each.rule for each in findings([package])] == ["raw-driver"]
    with pytest.raises(FileNotFoundError):
        list(sources(package / "missing"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_module(package: Path) -> None:
    """What is called like a module and is none is left out, and not waited for."""
    before = list(sources(package))
    os.mkfifo(package / "pipe.py")
    assert list(sources(package)) == before


def test_the_command(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 clean, 1 findings, 2 a wrong call; lines or JSON."""
    assert main(["lint", str(package / "ok.py")]) == 0
    assert capsys.readouterr().out == "1 file, nothing found\n"
    assert main(["lint", str(package)]) == 1
    out = capsys.readouterr().out
    assert "bad.py:2:1: raw-driver: imports redis." in out
    assert out.endswith("1 finding in 3 files\n")
    assert main(["lint", "--json", str(package)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], [Finding(**each).rule for each in told["findings"]]) == (3, ["raw-driver"])
    (package / "plain.py").write_text("import mine\n")
    assert main(["lint", "--driver", "mine", str(package / "plain.py")]) == 0
    assert main(["lint", "--scoped", "--driver", "mine", str(package / "plain.py")]) == 1
    capsys.readouterr()
    assert main(["lint", "--rules"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{rule}: {text}" for rule, text in RULES.items()]
    assert main(["lint", "--rules", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == dict(RULES)
    (package / "empty").mkdir()
    for wrong in ([], ["--rules", "x"], [str(package / "missing")], [str(package / "empty")]):
        assert main(["lint", *wrong]) == 2
        assert capsys.readouterr().err.startswith("hivetenancy lint: ")


# --- ours -------------------------------------------------------------------------------------------------------------

OURS = {
    ("files.py", "raw-driver"): "opens the library's own files, in which no tenant's data is",
    ("hub/keptfile.py", "raw-driver"): "the same",
    ("hub/store.py", "raw-driver"): "the same",
    ("authority/statefile.py", "raw-driver"): "the same",
    ("lifecycle/store.py", "raw-driver"): "the same",
    ("hub/store.py", "unbound-work"): "the writer of the state file acts for nobody",
    ("testing/contracts/ratelimit.py", "unbound-work"): "threads of a contract kit act for nobody",
    ("testing/contracts/usage.py", "unbound-work"): "the same",
    ("adapters/http.py", "shared-cache"): "an answer's bytes, the same for everybody",
    ("hub/kept.py", "shared-cache"): "shapes of types",
    ("hub/translate.py", "shared-cache"): "plans and dimensions, by their numbers",
    ("periods.py", "shared-cache"): "time zones and calendar periods",
    ("quota/ledger.py", "shared-cache"): "the arithmetic of a limit, by its numbers",
    ("namespaces/profiles.py", "hand-made-name"): "here the names are made",
    ("namespaces/inspection.py", "hand-made-name"): "the same",
    ("namespaces/names.py", "hand-made-name"): "the same",
    ("cli/bench.py", "hand-made-name"): "the plain f-string that the codec is measured against",
    ("authority/desk.py", "hand-made-name"): "ids that HiveHub's wire shows, and no names in a store",
    ("testing/hub_control.py", "hand-made-name"): "routes of the fake hub",
    ("testing/hub_model.py", "thread-local"): "which thread holds the fake's lock",
}
"""What the rules find in the layer that makes the names and keeps the books itself, and why it is right there."""

HOSTILE = ("testing/contracts/", "testing/conformance/")
"""Kits that try hostile names on purpose."""


def test_our_own_package_and_examples_have_no_unexplained_finding() -> None:
    """Examples and the parts that a host writes like are clean; the rest is explained in the table."""
    assert findings([ROOT / "examples"]) == []
    package = Path(hivetenancy.__file__).parent
    unexplained = []
    for finding in findings([package]):
        path = Path(finding.path).relative_to(package).as_posix()
        hostile = finding.rule == "hand-made-name" and path.startswith(HOSTILE)
        if (path, finding.rule) not in OURS and not hostile:
            unexplained.append(str(finding))
    assert unexplained == []


def test_the_page_has_every_rule() -> None:
    """The table of the reference says what the code says."""
    table = [line for line in (ROOT / "docs/reference/lint.md").read_text("utf-8").splitlines() if "|" in line]
    told = dict(line.strip("|").split(" | ", 1) for line in table if line.startswith("| `"))
    told = {rule.strip(" `"): text.strip(" |") for rule, text in told.items()}
    assert {rule: told.get(rule) for rule in RULES} == dict(RULES)
