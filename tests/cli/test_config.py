"""``hivetenancy config``: it says what a server would run with, and never the key."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hivetenancy.cli import config
from hivetenancy.settings import file_schema
from hivetenancy.settings.model import LEAVES
from tests.readme import ROOT

URL, KEY = "https://hub.example", "svc_vectorizer_do-not-show-me"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with an environment that states nothing."""
    for name in [name for name in os.environ if re.match("HIVE|SYNAP", name)]:
        monkeypatch.delenv(name)


def run(*arguments: str) -> int:
    """Run the command as its parser would."""
    parser = argparse.ArgumentParser()
    config.arguments(parser)
    return config.run(parser.parse_args(arguments))


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A settings file for cluster mode, with its key."""
    path = tmp_path / "server.toml"
    path.write_text(f'[hub]\nurl = "{URL}"\nservice_key = "{KEY}"\n[http.quota_status]\nkeys = 507\n')
    path.chmod(0o600)
    return str(path)


def test_check_of_what_is_right(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Right settings are 0, with the mode and where it comes from."""
    assert run("check", "--file", file) == 0
    assert capsys.readouterr() == ("the settings are right: cluster mode (implied hub.url)\n", "")


def test_check_of_what_is_wrong(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong settings are 1, with the whole error on standard error and nothing of the key."""
    Path(file).chmod(0o644)
    for action in (["check"], ["show"], ["show", "--json"]):
        assert run(*action, "--file", file) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"hivetenancy config: file {file}: hub.service_key: ")
        assert "do-not-show-me" not in err


def test_the_environment_is_read(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is the one that the variable names, and the environment overrides it."""
    monkeypatch.setenv("HIVETENANCY_FILE", file)
    monkeypatch.setenv("HIVEHUB_TIMEOUT", "9")
    assert run("show") == 0
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["hub.url"] == [URL, f"file {file}"]
    assert lines["hub.timeout_seconds"] == ["9.0", "environment HIVEHUB_TIMEOUT"]
    assert lines["hub.service_key"] == ["set", f"file {file}"]
    assert lines["http.quota_status.keys"] == ["507", f"file {file}"]
    assert lines["hub.state"] == ["-", "default"]
    assert lines["allow_workers"] == ["no", "default"]


def test_show_as_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One object holds every setting, with value and origin, and the key is only said to be set."""
    assert run("show", "--json", "--file", file) == 0
    text = capsys.readouterr().out
    told = json.loads(text)
    assert set(told) == {*LEAVES, "http.quota_status.keys"} - {"http.quota_status"}
    assert told["hub.service_key"] == {"value": "set", "origin": {"kind": "file", "name": file}}
    assert told["hub.retries"] == {"value": 3, "origin": {"kind": "default", "name": None}}
    assert "do-not-show-me" not in text


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema is printed whatever the settings are."""
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out) == file_schema()


@pytest.mark.parametrize(
    "arguments", [("schema", "--file", "x.toml"), ("check", "--json"), ("schema", "--json")], ids=" ".join
)
def test_options_that_do_nothing_are_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """An option that an action has no use for is a wrong call."""
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith("hivetenancy config: --")


def test_yaml_without_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A YAML file without the extra is a wrong call, and names the extra."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "hivetenancy.settings.yaml_file", raising=False)
    path = tmp_path / "server.yaml"
    path.write_text("mode: standalone\n")
    assert run("check", "--file", str(path)) == 2
    assert "pip install 'hivetenancy[yaml]'" in capsys.readouterr().err


def test_declaring_the_command_loads_nothing_slow() -> None:
    """Other commands pay nothing for this one: pydantic and httpx are loaded when it runs."""
    program = "import sys, hivetenancy.cli.config; sys.exit(any(each in sys.modules for each in ('pydantic', 'httpx')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_a_reader_that_has_had_enough_is_no_failure() -> None:
    """As ``hivetenancy config schema | head``: no traceback, and no complaint at the end of the process."""
    command = [sys.executable, "-m", "hivetenancy", "config", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything was written
        assert process.stderr.read() == b""
    assert process.returncode == 0
